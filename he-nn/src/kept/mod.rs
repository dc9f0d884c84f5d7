//! Switching keys that an evaluator keeps, so that they are streamed once.
//!
//! A key never changes while it is in use, and it is most of an upload: 70 % for
//! `mnist-mlp64`. An evaluator with room keeps each key that streams by, under the
//! [`KeyId`] that it computes itself from what arrived. [`Reply::Ready`] names what is
//! held, and the client sends [`Request::Kept`] where it would have streamed one of
//! these. So nobody claims what a record holds: whoever streams something else has
//! another id, and a client finds its own keys or streams them.
//!
//! The unit is one key rather than the whole set: an upload that breaks off leaves the
//! keys that were complete, and a store that has room for some of them saves those.
//!
//! A key is kept for the highest level that the program uses it at; its limbs serve every
//! lower level too, so lower uses read a part of the same record ([`KeyShape`]). Where there
//! is room for all of a program's keys with their uniform halves, those are kept too, which
//! spares their expansion ([`Program::kept_keys`]).
//!
//! | module | holds |
//! |---|---|
//! | here | what a session asks of a store, ids, shapes |
//! | `block` | headers, ends and checksums of records |
//! | `log` | [`Log`]: records over any NOR flash, or memory |
//! | `memory` | [`MemoryFlash`]: a slice as a flash that forgets |
//! | `writing` | [`Writing`]: what keeping a key takes of a flash |
//!
//! [`Program::kept_keys`]: crate::program::Program::kept_keys
//! [`Reply::Ready`]: crate::message::Reply::Ready
//! [`Request::Kept`]: crate::message::Request::Kept
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod block;
mod log;
mod memory;
#[cfg(feature = "std")]
mod writing;

pub use log::{Log, MountError, PAGE_HEADER_BYTES, PageEntry, RecordEntry, page_bytes};
pub use memory::MemoryFlash;
#[cfg(feature = "std")]
pub use writing::{Writer, Writing};

use he_core::params::Params;
use he_core::rlwe::KeyLimb;
use he_core::wire::packed_len;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::message::{CHUNK_COEFFS, MAX_CHUNK_BYTES, SEED_BYTES};

/// Bytes of a [`KeyId`].
pub const KEY_ID_BYTES: usize = 16;

/// Ids that a greeting holds at most: they fit the largest chunk.
pub const MAX_HELD: usize = 112;

/// Pages that a board divides its external memory into: 15 KiB each for 15 MiB, half of
/// which a key leaves unused on average.
pub const BOARD_PAGES: usize = 1024;

const _: () = assert!(MAX_HELD * KEY_ID_BYTES <= MAX_CHUNK_BYTES);

/// What a store adds to every piece: its checksum, in a block of the largest unit that a
/// flash here is written in.
pub const BLOCK_BYTES: usize = 32;

/// The content of a key: the first half of the SHA-256 digest of its seed and of its packed
/// `b` half, limb by limb in the order of the stream. 128 bits, as nobody must find another
/// content for a client's id; two contents of one id, which take 2^64 tries, harm whoever
/// made them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct KeyId(pub [u8; KEY_ID_BYTES]);

/// Computes a [`KeyId`] from a key as it streams.
#[derive(Clone, Debug)]
pub struct KeyHash(Sha256);

impl KeyHash {
    /// Of a key with this seed.
    #[must_use]
    pub fn new(seed: &[u8; SEED_BYTES]) -> Self {
        Self(Sha256::new_with_prefix(seed))
    }

    /// The next packed coefficients.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The id.
    #[must_use]
    pub fn id(self) -> KeyId {
        let digest: [u8; 32] = self.0.finalize().into();
        match digest.first_chunk() {
            Some(id) => KeyId(*id),
            None => KeyId::default(),
        }
    }
}

/// Where a piece of a record lies: a seed or a chunk, read and checked as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Pieces before it.
    pub index: usize,
    /// Bytes of these.
    pub start: usize,
    /// Its own.
    pub bytes: usize,
}

/// How a key of a level lies in its record: the seed, then limb by limb in the order of
/// [`KeyLimb`] its chunks, each followed by the words of the uniform half where that is
/// kept too.
///
/// Reading them takes 8 instructions per coefficient of a Cortex-M4 less 25 for expanding
/// them from the seed, for 2.5 times the memory.
#[derive(Clone, Copy, Debug)]
pub struct KeyShape {
    params: &'static Params,
    level: usize,
    expanded: bool,
}

/// Where a chunk lies: as it was streamed, and the words of the uniform half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPieces {
    /// As it was streamed.
    pub sent: Piece,
    /// The uniform half, little-endian words, if it is kept.
    pub uniform: Option<Piece>,
}

impl KeyShape {
    /// Of a key for every level up to one, without its uniform half or with it.
    #[must_use]
    pub const fn new(params: &'static Params, level: usize, expanded: bool) -> Self {
        Self {
            params,
            level,
            expanded,
        }
    }

    /// The seed.
    pub const SEED: Piece = Piece {
        index: 0,
        start: 0,
        bytes: SEED_BYTES,
    };

    /// Bytes of the uniform half of a chunk.
    pub const UNIFORM_BYTES: usize = CHUNK_COEFFS * size_of::<u32>();

    fn chunks(&self) -> usize {
        self.params.n() / CHUNK_COEFFS
    }

    /// Pieces of a chunk, and their bytes beside those that were streamed.
    const fn of_chunk(&self) -> (usize, usize) {
        match self.expanded {
            true => (2, Self::UNIFORM_BYTES),
            false => (1, 0),
        }
    }

    /// Bytes of a chunk of a limb, as it was streamed.
    fn chunk_bytes(&self, limb: KeyLimb) -> Option<usize> {
        let bits = self.params.prime(limb.target).ok()?.modulus().bits();
        Some(packed_len(CHUNK_COEFFS, bits))
    }

    fn limbs(&self) -> impl Iterator<Item = KeyLimb> {
        let Self { params, level, .. } = *self;
        core::iter::successors(Some(KeyLimb::FIRST), move |limb| limb.next(params, level))
    }

    /// The first chunk of a limb; `None` for a limb that such a key does not have.
    #[must_use]
    pub fn first_chunk(&self, limb: KeyLimb) -> Option<Piece> {
        let before = limb.index(self.params, self.level)?;
        let (pieces, beside) = self.of_chunk();
        let mut start = SEED_BYTES;
        for limb in self.limbs().take(before) {
            start += self.chunks() * (self.chunk_bytes(limb)? + beside);
        }
        Some(Piece {
            index: 1 + before * self.chunks() * pieces,
            start,
            bytes: self.chunk_bytes(limb)?,
        })
    }

    /// A chunk of a limb, from the first of it.
    #[must_use]
    pub const fn chunk(&self, first: Piece, chunk: usize) -> ChunkPieces {
        let (pieces, beside) = self.of_chunk();
        let sent = Piece {
            index: first.index + chunk * pieces,
            start: first.start + chunk * (first.bytes + beside),
            bytes: first.bytes,
        };
        let uniform = Piece {
            index: sent.index + 1,
            start: sent.start + sent.bytes,
            bytes: Self::UNIFORM_BYTES,
        };
        ChunkPieces {
            sent,
            uniform: if self.expanded { Some(uniform) } else { None },
        }
    }

    /// The pieces in their order, in bytes.
    pub fn pieces(&self) -> impl Iterator<Item = usize> {
        let chunks = self.chunks();
        let of_chunk = move |sent| {
            let uniform = self.expanded.then_some(Self::UNIFORM_BYTES);
            core::iter::once(sent).chain(uniform)
        };
        let of_limb = move |limb| {
            let sent = self.chunk_bytes(limb).unwrap_or_default();
            core::iter::repeat_n(sent, chunks).flat_map(of_chunk)
        };
        core::iter::once(SEED_BYTES).chain(self.limbs().flat_map(of_limb))
    }

    /// What a store is asked to make room for.
    #[must_use]
    pub fn size(&self) -> RecordSize {
        let mut size = RecordSize {
            pieces: 1,
            bytes: SEED_BYTES,
        };
        let (pieces, beside) = self.of_chunk();
        for limb in self.limbs() {
            size.pieces += self.chunks() * pieces;
            let streamed = self.chunk_bytes(limb).unwrap_or_default();
            size.bytes += self.chunks() * (streamed + beside);
        }
        size
    }
}

/// A record's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordSize {
    /// Seed and chunks.
    pub pieces: usize,
    /// Their bytes.
    pub bytes: usize,
}

impl RecordSize {
    /// Bytes that it takes in a store, checksums included.
    #[must_use]
    pub const fn stored(self) -> usize {
        self.bytes
            .saturating_add(self.pieces.saturating_mul(BLOCK_BYTES))
    }
}

/// A record that was found; of no use to another store, or once anything was started or
/// discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record(pub(crate) u16);

/// Where an evaluator keeps keys: by content, in pieces, each checked before it is given
/// out. No error has a reason: whoever asks does without the record, and the client
/// streams the key.
pub trait KeyStore {
    /// Whether it keeps anything; where not, a session has none of the code.
    const ON: bool;

    /// Whether uniform halves are kept where there is room: not where writing takes long and
    /// reading no less than expanding them, as in a flash.
    fn takes_uniforms(&self) -> bool {
        true
    }

    /// Whether records of all these sizes fit beside each other, where nothing else is kept.
    fn has_room(&self, sizes: impl Iterator<Item = RecordSize>) -> bool;

    /// An inference begins. What is found or committed from here on stays until the next
    /// one begins; a record that was not committed is forgotten.
    fn begin(&mut self);

    /// The ids of whole records of these lengths ([`RecordSize::stored`]), those used last
    /// first, as many as there are or fit: one of another length would not be found.
    fn held(&mut self, ids: &mut [[u8; KEY_ID_BYTES]], stored: &[usize]) -> usize;

    /// A record of this content and size, which counts as used.
    fn find(&mut self, id: &KeyId, size: RecordSize) -> Option<Record>;

    /// Starts a record and makes room for it, at the cost of those used longest ago;
    /// whether there is room.
    fn start(&mut self, size: RecordSize) -> bool;

    /// Appends a piece to the record that was started; whether that could be written. A
    /// multiple of [`BLOCK_BYTES`] long.
    fn append(&mut self, piece: &[u8]) -> bool;

    /// Ends the record that was started: from here on it is found, after a loss of power
    /// too where the medium lasts. Whether it is whole.
    fn commit(&mut self, id: &KeyId) -> bool;

    /// Reads a piece into `out`, which is as long; whether its checksum is right.
    fn read(&mut self, record: Record, piece: Piece, out: &mut [u8]) -> bool;

    /// Forgets a record: it is damaged.
    fn discard(&mut self, record: Record);
}

/// An evaluator that keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl KeyStore for Nothing {
    const ON: bool = false;

    fn has_room(&self, _: impl Iterator<Item = RecordSize>) -> bool {
        false
    }

    fn begin(&mut self) {}

    fn held(&mut self, _: &mut [[u8; KEY_ID_BYTES]], _: &[usize]) -> usize {
        0
    }

    fn find(&mut self, _: &KeyId, _: RecordSize) -> Option<Record> {
        None
    }

    fn start(&mut self, _: RecordSize) -> bool {
        false
    }

    fn append(&mut self, _: &[u8]) -> bool {
        false
    }

    fn commit(&mut self, _: &KeyId) -> bool {
        false
    }

    fn read(&mut self, _: Record, _: Piece, _: &mut [u8]) -> bool {
        false
    }

    fn discard(&mut self, _: Record) {}
}

/// A store that may be missing: keeps nothing then.
impl<S: KeyStore> KeyStore for Option<S> {
    const ON: bool = S::ON;

    fn takes_uniforms(&self) -> bool {
        self.as_ref().is_some_and(KeyStore::takes_uniforms)
    }

    fn has_room(&self, sizes: impl Iterator<Item = RecordSize>) -> bool {
        self.as_ref().is_some_and(|store| store.has_room(sizes))
    }

    fn begin(&mut self) {
        if let Some(store) = self {
            store.begin();
        }
    }

    fn held(&mut self, ids: &mut [[u8; KEY_ID_BYTES]], stored: &[usize]) -> usize {
        self.as_mut().map_or(0, |store| store.held(ids, stored))
    }

    fn find(&mut self, id: &KeyId, size: RecordSize) -> Option<Record> {
        self.as_mut()?.find(id, size)
    }

    fn start(&mut self, size: RecordSize) -> bool {
        self.as_mut().is_some_and(|store| store.start(size))
    }

    fn append(&mut self, piece: &[u8]) -> bool {
        self.as_mut().is_some_and(|store| store.append(piece))
    }

    fn commit(&mut self, id: &KeyId) -> bool {
        self.as_mut().is_some_and(|store| store.commit(id))
    }

    fn read(&mut self, record: Record, piece: Piece, out: &mut [u8]) -> bool {
        self.as_mut()
            .is_some_and(|store| store.read(record, piece, out))
    }

    fn discard(&mut self, record: Record) {
        if let Some(store) = self {
            store.discard(record);
        }
    }
}
