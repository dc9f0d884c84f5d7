//! Keys of the session that are kept, and read again. Keeping them is part of no stage, as
//! the link is not: it happens once. Reading them is.

use super::{Platform, Session, WeightSource};
use crate::kept::{KEY_ID_BYTES, KeyHash, KeyId, KeyShape, KeyStore, MAX_HELD, Piece, Record};
use crate::message::{CHUNK_COEFFS, Held, Item, MAX_CHUNK_BYTES, Refusal, Reply, SEED_BYTES};
use crate::plan::Task;
use crate::program::Program;
use crate::schedule::Upload;
use crate::trace::{Place, SpanKind, Tracer};
use he_core::rlwe::KeyLimb;

/// More than sets for streams have.
const LEVELS: usize = 16;

/// The store, and the key that is being kept.
#[derive(Debug)]
pub(super) struct Keeping<K> {
    store: K,
    /// Whether uniform halves are kept too.
    uniforms: bool,
    /// Lengths of records that the program uses: one per level.
    stored: heapless::Vec<usize, LEVELS>,
    /// Of the key that streams; none where it is not kept.
    streaming: Option<KeyHash>,
    /// Whether the uniform half of the chunk that is taken was read from the store, to where
    /// it would be expanded.
    read: bool,
}

impl<K: KeyStore> Keeping<K> {
    pub(super) fn new<B: AsRef<[u8]>>(store: K, program: &Program<B>) -> Self {
        let uniforms = K::ON && program.keeps_uniforms(&store);
        let mut stored = heapless::Vec::new();
        if K::ON {
            for size in program.kept_keys(uniforms) {
                // One that has no place is streamed each time.
                if !stored.contains(&size.stored()) {
                    let _ = stored.push(size.stored());
                }
            }
        }
        Self {
            uniforms,
            stored,
            store,
            streaming: None,
            read: false,
        }
    }

    /// Whether the uniform half of a chunk is there already.
    pub(super) const fn has_read_uniform(&self) -> bool {
        K::ON && self.read
    }

    /// An inference begins; a key that was not complete is forgotten.
    pub(super) fn begin(&mut self) {
        if K::ON {
            self.streaming = None;
            self.store.begin();
        }
    }
}

impl<B, W, T, const POLYNOMIALS: bool, const MERGED: bool, K>
    Session<'_, B, W, T, POLYNOMIALS, MERGED, K>
where
    B: AsRef<[u8]>,
    W: WeightSource,
    T: Tracer,
    K: KeyStore,
{
    /// Says what is held. The memory of a chunk holds the ids meanwhile.
    pub(super) fn name_held(&mut self, reply: &mut impl FnMut(Reply<'_>)) -> Result<(), Refusal> {
        let mut held = Held::default();
        if K::ON {
            let buffer = self.chunk.as_mut().ok_or(Refusal::Model)?;
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(buffer.as_flattened_mut());
            let (ids, _) = bytes.as_chunks_mut::<KEY_ID_BYTES>();
            let ids = ids.get_mut(..MAX_HELD).ok_or(Refusal::Model)?;
            let count = self.keeping.store.held(ids, &self.keeping.stored);
            held = Held::new(ids.get(..count).ok_or(Refusal::Model)?);
        }
        reply(Reply::Ready { held });
        Ok(())
    }

    /// A seed was taken: of a key, it is kept if this is the use that serves the others.
    pub(super) fn keep_from<P: Platform>(
        &mut self,
        seed: &[u8; SEED_BYTES],
        platform: &mut P,
    ) -> Result<(), Refusal> {
        if !K::ON {
            return Ok(());
        }
        let run = self.run.as_ref().ok_or(Refusal::NotExpected)?;
        let Some((task, Upload::Chunk(Item::Key { key, .. }, 0))) = run.cursor.due(self.program)
        else {
            return Ok(());
        };
        self.trace.watch(platform).mark(SpanKind::Keep);
        let target = task.op.key().ok_or(Refusal::Model)?;
        if let Some((widest, level)) = self.program.widest_use(target)
            && widest == usize::from(key)
        {
            let keeping = &mut self.keeping;
            let size = KeyShape::new(self.program.params(), level, keeping.uniforms).size();
            let is_kept = keeping.store.start(size) && keeping.store.append(seed);
            keeping.streaming = is_kept.then(|| KeyHash::new(seed));
        }
        Ok(())
    }

    /// A chunk was taken: of a key that is kept, it is kept too. The key, if it is complete.
    pub(super) fn keep_chunk<P: Platform>(
        &mut self,
        item: Item,
        bytes: &[u8],
        platform: &mut P,
    ) -> Result<Option<KeyId>, Refusal> {
        let Item::Key { key, .. } = item else {
            return Ok(None);
        };
        if !K::ON || self.keeping.streaming.is_none() {
            return Ok(None);
        }
        self.trace.watch(platform).mark(SpanKind::Keep);
        let keeping = &mut self.keeping;
        let mut is_kept = keeping.store.append(bytes);
        if is_kept && keeping.uniforms {
            // As it was expanded for the switch.
            let [_, uniform] = self.chunk.as_mut().ok_or(Refusal::Model)?;
            is_kept = keeping
                .store
                .append(bytemuck::cast_slice(uniform.as_slice()));
        }
        match &mut keeping.streaming {
            Some(hash) if is_kept => hash.update(bytes),
            _ => keeping.streaming = None,
        }
        // The last chunk is behind the cursor.
        let run = self.run.as_ref().ok_or(Refusal::NotExpected)?;
        let due = run.cursor.upload(self.program);
        let is_over =
            !matches!(due, Some(Upload::Chunk(Item::Key { key: next, .. }, _)) if next == key);
        if is_over && let Some(hash) = keeping.streaming.take() {
            // A key that could not be kept is streamed again the next time.
            let id = hash.id();
            return Ok(keeping.store.commit(&id).then_some(id));
        }
        Ok(None)
    }

    /// Takes a whole key from the store; whether it was the last that was waited for. Apart,
    /// as its buffer is large.
    #[inline(never)]
    pub(super) fn take_kept<P: Platform>(
        &mut self,
        id: &KeyId,
        platform: &mut P,
    ) -> Result<bool, Refusal> {
        let run = self.run.as_ref().ok_or(Refusal::NotExpected)?;
        let due = run.cursor.due(self.program);
        let Some((task, Upload::KeySeed(index))) = due else {
            return Err(Refusal::NotExpected);
        };
        let key = index as u16;
        if !K::ON {
            return Err(Refusal::NotKept { key });
        }
        let start = platform.now();
        let (record, shape) = self.kept(id, task).ok_or(Refusal::NotKept { key })?;
        let mut seed = [0; SEED_BYTES];
        self.read_kept(record, KeyShape::SEED, key, &mut seed)?;
        self.account(task.step, start, platform);
        self.take_seed(&seed, platform)?;
        let mut bytes = [0; MAX_CHUNK_BYTES];
        let mut first = KeyShape::SEED;
        loop {
            let start = platform.now();
            let run = self.run.as_ref().ok_or(Refusal::NotExpected)?;
            let (item, offset) = match run.cursor.upload(self.program) {
                Some(Upload::Chunk(item @ Item::Key { key: next, .. }, offset)) if next == key => {
                    (item, offset)
                }
                next => return Ok(next.is_none()),
            };
            let Item::Key { limb, digit, .. } = item else {
                return Err(Refusal::Model);
            };
            if offset == 0 {
                self.trace
                    .group(Place::Item(item), SpanKind::Decode, platform);
                let (target, digit) = (limb.into(), digit.into());
                let limb = KeyLimb { target, digit };
                first = shape.first_chunk(limb).ok_or(Refusal::Model)?;
            }
            self.trace.watch(platform).mark(SpanKind::Decode);
            let pieces = shape.chunk(first, offset / CHUNK_COEFFS);
            let bytes = bytes.get_mut(..first.bytes).ok_or(Refusal::Model)?;
            self.read_kept(record, pieces.sent, key, bytes)?;
            if let Some(piece) = pieces.uniform {
                let buffer = self.chunk.take().ok_or(Refusal::Model)?;
                let [_, uniform] = buffer;
                let words = bytemuck::cast_slice_mut(uniform.as_mut_slice());
                let read = self.read_kept(record, piece, key, words);
                self.chunk = Some(buffer);
                read?;
            }
            self.account(task.step, start, platform);
            self.keeping.read = pieces.uniform.is_some();
            let taken = self.take_chunk(item, offset as u16, bytes, platform);
            self.keeping.read = false;
            taken?;
        }
    }

    /// The record of a key for a task.
    fn kept(&mut self, id: &KeyId, task: Task) -> Option<(Record, KeyShape)> {
        let (_, level) = self.program.widest_use(task.op.key()?)?;
        let shape = KeyShape::new(self.program.params(), level, self.keeping.uniforms);
        let record = self.keeping.store.find(id, shape.size())?;
        Some((record, shape))
    }

    /// Reads a piece; a record that is damaged is no longer kept.
    fn read_kept(
        &mut self,
        record: Record,
        piece: Piece,
        key: u16,
        out: &mut [u8],
    ) -> Result<(), Refusal> {
        let store = &mut self.keeping.store;
        if store.read(record, piece, out) {
            return Ok(());
        }
        store.discard(record);
        Err(Refusal::NotKept { key })
    }

    /// Counts the time since `start` to a step.
    fn account<P: Platform>(&mut self, step: u8, start: u64, platform: &mut P) {
        let time = platform.now().saturating_sub(start);
        if let Some(run) = &mut self.run {
            run.account(step, time);
        }
    }
}
