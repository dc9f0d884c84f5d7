//! The evaluator: a state machine that turns requests into replies, the same
//! on a board, in a process and in tests.
//!
//! Everything streams. An input chunk is multiplied by its weights and added
//! as it arrives; a chunk of a switching key is consumed by the running key
//! switch. The arena holds what the plan says ([`Plan::arena_words`]); weights in plain
//! are read from the model (in flash on a board) as integers and encoded here.
//! The accumulator is a ciphertext of two parts; the third, which sums of products
//! of ciphertexts have, is memory beside it until they are relinearised. Between
//! two requests that need nothing of the client, tasks are carried out until one
//! waits again. The key of a polynomial alone stays in the arena, while it is evaluated.
//! Where the arena is longer by two limbs, transforms of divisions are put off ([`Debt`]).
//! With a store ([`Session::keeping`]) keys are kept as they stream by, and read from
//! there the next time.
//!
//! Whatever is wrong with a request is answered by [`Reply::Refused`], which
//! drops the running inference; the next [`Request::Begin`] works.
//!
//! [`Plan::arena_words`]: crate::plan::Plan::arena_words

mod accumulator;
mod keeping;
mod prepared;
mod watch;

use core::mem;

use he_core::ckks::evaluator::{
    Debt, Due, Switching, Workspace, add_encoded, evaluate_polynomial, multiply_constant,
    multiply_encoded, multiply_transformed, rescale_owing, rescale_probed, transform_encoded,
};
use he_core::ckks::{Ciphertext, Constant};
use he_core::error::Error;
use he_core::params::Params;
use he_core::probe::Probe;
use he_core::ring::kernel;
use he_core::ring::sample::{Domain, Uniform, stream};
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{KeyLimb, SwitchKey, SwitchTarget};
use he_core::wire::{pack, packed_len, unpack};

use crate::kept::{KeyStore, Nothing};
use crate::message::{
    CHUNK_COEFFS, Card, Item, MAX_CHUNK_BYTES, Memory, PROTOCOL_VERSION, Refusal, Reply, Request,
    SEED_BYTES, Stage, Stages, TimeUnit,
};
use crate::model::Model;
use crate::plan::{BIAS_SHIFT, Coefficients, LinearMap, Op, Operand, PlanError, Task};
use crate::program::Program;
use crate::schedule::{Cursor, Upload};
use crate::trace::{Off, Place, SpanKind, Tracer};
use accumulator::Accumulator;
use keeping::Keeping;
pub use prepared::Prepared;
#[cfg(feature = "std")]
pub use prepared::prepare;
use watch::Trace;

/// What a session asks of the machine that it runs on.
pub trait Platform {
    /// Name of the board.
    fn board(&self) -> &'static str;
    /// What [`Self::now`] counts.
    fn unit(&self) -> TimeUnit;
    /// A monotonic count.
    fn now(&mut self) -> u64;
    /// How much of the time since start went by in waiting for bytes.
    fn waited(&mut self) -> u64 {
        0
    }
    /// Memory figures up to now.
    fn memory(&mut self) -> Memory;
    /// Bytes of frames that it can take before the first is acknowledged.
    fn window(&self) -> u32;
    /// Whether it has memory for a result that waits for a tick ([`crate::padding`]);
    /// otherwise the tick that asks for the result has it packed.
    #[cfg(feature = "padding")]
    fn keeps_result(&self) -> bool {
        false
    }
}

/// Where an evaluator's weights are.
pub trait WeightSource {
    /// Whether they are in plain.
    const PLAIN: bool;
    /// Whether they were encoded and transformed before.
    const PREPARED: bool = false;

    /// `count` layers from this index on, as one.
    fn map(&self, index: usize, count: usize) -> Option<LinearMap<'_>>;

    /// Words of [`Prepared`] weights; none of others.
    fn prepared(&self, _first: usize, _words: usize) -> Option<&[u32]> {
        None
    }
}

/// Weights of a model, encoded in single precision at each use.
impl WeightSource for Model<'_> {
    const PLAIN: bool = true;

    fn map(&self, index: usize, count: usize) -> Option<LinearMap<'_>> {
        let mut layers = self.layers().skip(index);
        let mut map = LinearMap::new(layers.next()?)?;
        for layer in layers.take(count.saturating_sub(1)) {
            map.then(layer).ok()?;
        }
        Some(map)
    }
}

/// No weights: the client streams them, encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

impl WeightSource for Encrypted {
    const PLAIN: bool = false;

    fn map(&self, _: usize, _: usize) -> Option<LinearMap<'_>> {
        None
    }
}

/// A running inference.
#[derive(Debug)]
struct Run {
    cursor: Cursor,
    /// Expand the uniform halves of the input or key, and of the factor.
    seeds: [[u8; SEED_BYTES]; 2],
    uniforms: [Option<Uniform>; 2],
    switching: Option<Switching>,
    /// Bounds of what is owed.
    owed: [u32; 2],
    stages: Stages,
    /// The clock's reading at the begin, and how much had been waited before.
    begun: [u64; 2],
}

/// Both halves of a chunk, unpacked and expanded. Memory of its own, as on a stack it
/// would be cleared for every chunk: 4 million instructions per inference of
/// `mnist-mlp64`.
pub type ChunkBuffer = [[u32; CHUNK_COEFFS]; 2];

/// A [`ChunkBuffer`] before its first chunk.
pub const EMPTY_CHUNK: ChunkBuffer = [[0; CHUNK_COEFFS]; 2];

/// Which of two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    InputOrKey,
    Factor,
}

/// The evaluator. No secret ever comes here; where weights are encrypted, no weights
/// either. `T` keeps the trace of an inference whose client asked for one.
/// `POLYNOMIALS` says whether activations may be other than squares, `MERGED` whether
/// layers may follow each other without one: a board whose network has neither is
/// spared the code.
#[derive(Debug)]
pub struct Session<
    'a,
    B,
    W,
    T = Off,
    const POLYNOMIALS: bool = true,
    const MERGED: bool = true,
    K = Nothing,
> {
    program: &'a Program<B>,
    weights: W,
    accumulator: Accumulator<'a>,
    registers: &'a mut [u32],
    /// Workspace of key switches, scratch of everything else.
    work: &'a mut [u32],
    /// Both halves of a chunk that waits for its factor.
    held: &'a mut [u32],
    /// A polynomial's key and its powers.
    powers: &'a mut [u32],
    /// What both halves of the accumulator owe of divisions ([`Debt`]); empty where there is
    /// no memory for it.
    owed: &'a mut [u32],
    /// Away while a chunk is absorbed.
    chunk: Option<&'a mut ChunkBuffer>,
    run: Option<Run>,
    trace: Trace<T>,
    keeping: Keeping<K>,
    /// A result waits for the tick that asks for it.
    #[cfg(feature = "padding")]
    holds: bool,
}

impl<'a, B, W, T, const POLYNOMIALS: bool, const MERGED: bool>
    Session<'a, B, W, T, POLYNOMIALS, MERGED>
where
    B: AsRef<[u8]>,
    W: WeightSource,
    T: Tracer,
{
    /// Prepares an evaluator over `arena`, and over `chunk`, which needs no content.
    ///
    /// # Errors
    /// [`PlanError::Memory`] if the arena is shorter than
    /// [`Program::arena_words`].
    pub fn new(
        program: &'a Program<B>,
        weights: W,
        arena: &'a mut [u32],
        chunk: &'a mut ChunkBuffer,
        tracer: T,
    ) -> Result<Self, PlanError> {
        let needed = program.arena_words() * size_of::<u32>();
        let available = size_of_val(arena);
        let short = PlanError::Memory { needed, available };
        let mut rest = arena;
        let mut take = |words: usize| {
            let (part, left) = mem::take(&mut rest)
                .split_at_mut_checked(words)
                .ok_or(short)?;
            rest = left;
            Ok::<_, PlanError>(part)
        };
        let part = program.part_words();
        let (c0, c1) = (take(part)?, take(part)?);
        let third = take((program.parts() - 2) * part)?;
        let registers = take(2 * program.registers() * program.register_words())?;
        let work = take(program.work_words())?;
        let held = take(program.held_words())?;
        let powers = take(program.polynomial_words())?;
        // What is left over puts transforms off, if it is enough.
        let owed = take(2 * program.params().n()).unwrap_or_default();
        let params = program.params();
        let ct = Ciphertext::zero(params, program.input_level(), 1.0, c0, c1).map_err(|_| short)?;
        Ok(Self {
            program,
            weights,
            accumulator: Accumulator::Two(ct, third),
            registers,
            work,
            held,
            powers,
            owed,
            chunk: Some(chunk),
            run: None,
            trace: Trace {
                tracer,
                on: false,
                waited: 0,
            },
            keeping: Keeping::new(Nothing, program),
            #[cfg(feature = "padding")]
            holds: false,
        })
    }
}

impl<'a, B, W, T, const POLYNOMIALS: bool, const MERGED: bool, K>
    Session<'a, B, W, T, POLYNOMIALS, MERGED, K>
where
    B: AsRef<[u8]>,
    W: WeightSource,
    T: Tracer,
    K: KeyStore,
{
    /// The same evaluator, which keeps keys in `store`.
    #[must_use]
    pub fn keeping<S: KeyStore>(self, store: S) -> Session<'a, B, W, T, POLYNOMIALS, MERGED, S> {
        Session {
            program: self.program,
            weights: self.weights,
            accumulator: self.accumulator,
            registers: self.registers,
            work: self.work,
            held: self.held,
            powers: self.powers,
            owed: self.owed,
            chunk: self.chunk,
            run: self.run,
            trace: self.trace,
            keeping: Keeping::new(store, self.program),
            #[cfg(feature = "padding")]
            holds: self.holds,
        }
    }

    /// The program it executes.
    #[must_use]
    pub const fn program(&self) -> &Program<B> {
        self.program
    }

    /// Answers one request.
    pub fn handle<P: Platform>(
        &mut self,
        request: Request<'_>,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) {
        if self.trace.is_on() {
            let next = self.run.as_ref().and_then(|run| {
                let mut cursor = run.cursor;
                cursor.advance(self.program);
                cursor.upload(self.program)
            });
            self.trace.heard(&request, next, platform);
        }
        if let Err(refusal) = self.answer(request, platform, reply) {
            self.run = None;
            reply(Reply::Refused(refusal));
        }
        if self.trace.is_on() {
            self.trace.answered(self.run.is_some(), platform);
        }
    }

    /// Answers a frame that was not decodable: whatever it carried is lost, so
    /// a running inference is dropped.
    pub fn refuse_frame(&mut self, received: u32, reply: &mut impl FnMut(Reply<'_>)) {
        self.run = None;
        reply(Reply::Refused(Refusal::Frame { received }));
    }

    fn answer<P: Platform>(
        &mut self,
        request: Request<'_>,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        match request {
            Request::Hello { version } => {
                #[cfg(feature = "padding")]
                {
                    self.holds = false;
                }
                reply(Reply::Hello(self.greet(version, platform)?));
            }
            #[cfg(feature = "padding")]
            Request::Tick { result, .. } => {
                self.holds = !platform.keeps_result();
                let ended = self
                    .run
                    .as_ref()
                    .is_some_and(|run| run.cursor.task() >= self.program.len());
                if result && ended {
                    self.send_result(platform, reply)?;
                }
            }
            Request::Begin { plan, trace } => {
                self.begin(plan, trace, platform)?;
                self.name_held(reply)?;
            }
            Request::Seed { seed } => {
                let ended = self.take_seed(&seed, platform)?;
                self.keep_from(&seed, platform)?;
                self.trace.watch(platform).mark(SpanKind::Send);
                reply(Reply::Ack);
                if ended && !self.holds_result() {
                    self.send_result(platform, reply)?;
                }
            }
            Request::Data {
                item,
                offset,
                bytes,
            } => {
                let ended = self.take_chunk(item, offset, bytes, platform)?;
                let stored = self.keep_chunk(item, bytes, platform)?;
                self.trace.watch(platform).mark(SpanKind::Send);
                // Apart: a reply that is chosen would be copied, a kilobyte per chunk.
                match stored {
                    Some(key) => reply(Reply::Stored { key }),
                    None => reply(Reply::Ack),
                }
                if ended && !self.holds_result() {
                    self.send_result(platform, reply)?;
                }
            }
            Request::Kept { key } => {
                let ended = self.take_kept(&key, platform)?;
                self.trace.watch(platform).mark(SpanKind::Send);
                reply(Reply::Ack);
                if ended && !self.holds_result() {
                    self.send_result(platform, reply)?;
                }
            }
            Request::Abort => {
                self.run = None;
                reply(Reply::Aborted);
            }
            Request::Trace => {
                if !T::ON {
                    return Err(Refusal::NoTracer);
                }
                if self.run.is_some() {
                    return Err(Refusal::NotExpected);
                }
                for span in self.trace.tracer.spans() {
                    reply(Reply::Span(span));
                }
                reply(Reply::Traced {
                    dropped: self.trace.tracer.dropped(),
                    own: self.trace.tracer.own(),
                });
            }
        }
        Ok(())
    }

    /// The card that answers the greeting of a client of the same protocol.
    fn greet(&self, client: u16, platform: &impl Platform) -> Result<Card<'_>, Refusal> {
        if client != PROTOCOL_VERSION {
            return Err(Refusal::Version {
                evaluator: PROTOCOL_VERSION,
                client,
            });
        }
        Ok(Card {
            version: PROTOCOL_VERSION,
            board: platform.board(),
            model: self.program.name(),
            model_crc: self.program.model_crc(),
            params: self.program.params().fingerprint(),
            plan: self.program.fingerprint(),
            window: platform.window(),
            unit: platform.unit(),
        })
    }

    fn begin<P: Platform>(
        &mut self,
        plan: u32,
        trace: bool,
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let evaluator = self.program.fingerprint();
        if plan != evaluator {
            return Err(Refusal::Plan {
                evaluator,
                client: plan,
            });
        }
        if trace && !T::ON {
            return Err(Refusal::NoTracer);
        }
        self.run = Some(Run {
            cursor: Cursor::start(self.program),
            seeds: [[0; SEED_BYTES]; 2],
            uniforms: [None, None],
            switching: None,
            owed: [0; 2],
            stages: Stages::new(),
            begun: [platform.now(), platform.waited()],
        });
        self.keeping.begin();
        if T::ON {
            self.trace.waited = platform.waited();
            self.trace.tracer.begin(platform.now());
            self.trace.on = trace;
        }
        self.proceed(0, platform)
    }

    /// Takes a seed; whether it was the last that was waited for, as that of a mask is. Apart,
    /// as this and the next are called from two places and hold most of the code.
    #[inline(never)]
    fn take_seed<P: Platform>(
        &mut self,
        seed: &[u8; SEED_BYTES],
        platform: &mut P,
    ) -> Result<bool, Refusal> {
        let start = platform.now();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let (task, upload) = run.cursor.due(self.program).ok_or(Refusal::NotExpected)?;
        let [first, second] = &mut run.seeds;
        match upload {
            Upload::InputSeed(_) => {
                *first = *seed;
                if task.op == Op::Mask {
                    self.add_mask(task.step, seed, platform)?;
                } else if W::PLAIN
                    && !W::PREPARED
                    && let Op::Product { index, .. } = task.op
                {
                    self.trace.watch(platform).mark(SpanKind::Encode);
                    self.encode_weights(task.step, index)?;
                }
            }
            Upload::FactorSeed(_) => *second = *seed,
            Upload::KeySeed(index) => {
                *first = *seed;
                if task.op != Op::Polynomial {
                    self.trace.watch(platform).mark(SpanKind::Digit);
                    self.start_switching(task, index, platform)?;
                }
            }
            Upload::Chunk(..) => return Err(Refusal::NotExpected),
        }
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.cursor.advance(self.program);
        run.account(task.step, platform.now().saturating_sub(start));
        // A mask is what a program ends with.
        Ok(run.cursor.task() >= self.program.len())
    }

    /// Adds a mask to the result: both halves are expanded.
    fn add_mask<P: Platform>(
        &mut self,
        step: u8,
        seed: &[u8; SEED_BYTES],
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let params = self.program.params();
        let (ct, _) = self.accumulator.two()?;
        let [words, _] = self.chunk.as_deref_mut().ok_or(Refusal::Model)?;
        let (c0, c1) = ct.halves_mut();
        self.trace
            .group(Place::Step(step), SpanKind::Expand, platform);
        let halves = [(c0, Domain::ResultMask), (c1, Domain::Ciphertext)];
        for (half, domain) in halves {
            for (limb, half) in half.chunks_exact_mut(params.n()).enumerate() {
                let modulus = params.prime(limb).map_err(internal)?.modulus();
                let mut uniform = Uniform::new(seed, stream(domain, 0, limb), modulus);
                for half in half.chunks_exact_mut(CHUNK_COEFFS) {
                    uniform.fill(words);
                    kernel::add(half, words, modulus);
                }
            }
        }
        Ok(())
    }

    /// Takes a chunk, and does what can be done before the next; whether it was the
    /// last.
    #[inline(never)]
    fn take_chunk<P: Platform>(
        &mut self,
        item: Item,
        offset: u16,
        bytes: &[u8],
        platform: &mut P,
    ) -> Result<bool, Refusal> {
        let start = platform.now();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let due = run.cursor.due(self.program);
        let Some((task, Upload::Chunk(expected, expected_offset))) = due else {
            return Err(Refusal::NotExpected);
        };
        if (item, usize::from(offset)) != (expected, expected_offset) {
            return Err(Refusal::Order {
                expected,
                expected_offset: expected_offset as u16,
                got: item,
                got_offset: offset,
            });
        }
        let waiting = run.cursor.task();
        self.consume(task, item, offset, bytes, platform)?;
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.cursor.advance(self.program);
        let next = run.cursor.task();
        if next != waiting {
            match task.op {
                Op::Relinearize if !W::PLAIN => self.accumulator.narrow()?,
                Op::Polynomial => self.polynomial(task)?,
                _ => {}
            }
        }
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.account(task.step, platform.now().saturating_sub(start));
        if next != waiting {
            self.proceed(waiting + 1, platform)?;
        }
        Ok(next >= self.program.len())
    }

    /// Carries out tasks from `first` on, up to the one that waits.
    fn proceed<P: Platform>(&mut self, first: usize, platform: &mut P) -> Result<(), Refusal> {
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        for index in first..run.cursor.task() {
            let task = self.program.task(index).ok_or(Refusal::Model)?;
            let start = platform.now();
            let kind = match task.op {
                Op::Product { .. } | Op::Bias if !W::PREPARED => SpanKind::Encode,
                Op::Rescale => SpanKind::Rescale,
                _ => SpanKind::MultiplyAccumulate,
            };
            self.trace.group(Place::Step(task.step), kind, platform);
            self.perform(task, platform)?;
            if let Some(run) = &mut self.run {
                run.account(task.step, platform.now().saturating_sub(start));
            }
        }
        Ok(())
    }

    /// A task that needs nothing of the client.
    fn perform<P: Platform>(&mut self, task: Task, platform: &mut P) -> Result<(), Refusal> {
        let params = self.program.params();
        let level = usize::from(task.level);
        match task.op {
            Op::Clear { sums } => {
                let linear = self.program.linear(task.step).ok_or(Refusal::Model)?;
                let scale = if sums { linear.sums() } else { linear.input };
                self.accumulator.clear(params, level, scale)
            }
            Op::Product {
                operand: Operand::Register(register),
                index,
            } => {
                if !W::PREPARED {
                    self.encode_weights(task.step, index)?;
                }
                self.multiply_register(task, register, platform)
            }
            Op::Product {
                operand: Operand::Accumulator,
                index,
            } => {
                if W::PREPARED {
                    let linear = self.program.linear(task.step).ok_or(Refusal::Model)?;
                    let plain = plaintext(self.program, &self.weights, task)?;
                    let (ct, _) = self.accumulator.two()?;
                    let mut watch = self.trace.watch(platform);
                    return multiply_transformed(params, ct, plain, linear.weights, &mut watch)
                        .map_err(internal);
                }
                let scale = self.encode_weights(task.step, index)?;
                let (ct, _) = self.accumulator.two()?;
                let (coefficients, scratch) = two_limbs(self.work, params.n())?;
                let coefficients = bytemuck::cast_slice(coefficients);
                let mut watch = self.trace.watch(platform);
                multiply_encoded(params, ct, coefficients, scale, scratch, &mut watch)
                    .map_err(internal)
            }
            Op::Bias => {
                let (ct, _) = self.accumulator.two()?;
                if W::PREPARED {
                    let plain = plaintext(self.program, &self.weights, task)?;
                    let (c0, _) = ct.halves_mut();
                    let (n, limbs) = (params.n(), c0.len());
                    let plain = plain.get(..limbs).ok_or(Refusal::Model)?;
                    let limbs = c0.chunks_exact_mut(n).zip(plain.chunks_exact(n));
                    for (limb, (c0, plain)) in limbs.enumerate() {
                        kernel::add(c0, plain, params.prime(limb).map_err(internal)?.modulus());
                    }
                    return Ok(());
                }
                let (sums, program, weights) = (ct.scale(), self.program, &self.weights);
                prepared::encode_biases::<_, _, MERGED>(
                    program, weights, task.step, sums, self.work,
                )?;
                let (coefficients, scratch) = two_limbs(self.work, params.n())?;
                let coefficients = bytemuck::cast_slice(coefficients);
                let mut watch = self.trace.watch(platform);
                add_encoded(params, ct, coefficients, BIAS_SHIFT, scratch, &mut watch)
                    .map_err(internal)
            }
            Op::Rescale => {
                let (ct, _) = self.accumulator.two()?;
                let n = params.n();
                let mut watch = self.trace.watch(platform);
                if let Some(run) = &mut self.run
                    && !self.owed.is_empty()
                {
                    let debts = debts(self.owed, &mut run.owed, n)?;
                    let scratch = self.work.get_mut(..2 * n).ok_or(Refusal::Model)?;
                    return rescale_owing(params, ct, debts, scratch, &mut watch).map_err(internal);
                }
                let scratch = self.work.get_mut(..n).ok_or(Refusal::Model)?;
                rescale_probed(params, ct, scratch, &mut watch).map_err(internal)
            }
            Op::Save(register) => {
                let (ct, _) = self.accumulator.two()?;
                let halves = register_halves(self.program, self.registers, register)?;
                for (half, part) in halves.into_iter().zip(ct.parts()) {
                    half.get_mut(..part.len())
                        .ok_or(Refusal::Model)?
                        .copy_from_slice(part);
                }
                Ok(())
            }
            Op::Load(register) => {
                let (ct, _) = self.accumulator.two()?;
                let halves = register_halves(self.program, self.registers, register)?;
                for (half, part) in halves.into_iter().zip(ct.parts_mut()) {
                    part.copy_from_slice(half.get(..part.len()).ok_or(Refusal::Model)?);
                }
                Ok(())
            }
            Op::Pair(register) => {
                let (ct, _) = self.accumulator.two()?;
                let i = Constant::complex(0.0, 1.0, 1.0).map_err(internal)?;
                multiply_constant(params, ct, &i).map_err(internal)?;
                let halves = register_halves(self.program, self.registers, register)?;
                for (half, part) in halves.into_iter().zip(ct.parts_mut()) {
                    let n = params.n();
                    let limbs = part.chunks_exact_mut(n).zip(half.chunks_exact(n));
                    for (limb, (part, half)) in limbs.enumerate() {
                        let modulus = params.prime(limb).map_err(internal)?.modulus();
                        kernel::add(part, half, modulus);
                    }
                }
                Ok(())
            }
            // These wait for a stream or a seed.
            Op::Receive
            | Op::Product {
                operand: Operand::Input,
                ..
            }
            | Op::Rotate(_)
            | Op::RotateAdd(_)
            | Op::Square
            | Op::Polynomial
            | Op::Mask
            | Op::Relinearize => Err(Refusal::Model),
        }
    }

    /// Encodes the weights of a product; their scale. The coefficients (integers in `f32`)
    /// take the first limb of the workspace.
    fn encode_weights(&mut self, step: u8, index: u16) -> Result<f64, Refusal> {
        let (program, weights) = (self.program, &self.weights);
        prepared::encode_weights::<_, _, MERGED>(program, weights, step, index, self.work)
    }

    /// Adds the product of a register and the weights, which are encoded or prepared.
    fn multiply_register<P: Platform>(
        &mut self,
        task: Task,
        register: u8,
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let params = self.program.params();
        let n = params.n();
        let [r0, r1] = register_halves(self.program, self.registers, register)?;
        let (ct, _) = self.accumulator.two()?;
        let (coefficients, encoded) = two_limbs(self.work, n)?;
        let coefficients = bytemuck::cast_slice(coefficients);
        let plain: &[u32] = match W::PREPARED {
            true => plaintext(self.program, &self.weights, task)?,
            false => &[],
        };
        let (c0, c1) = ct.halves_mut();
        let parts = c0.chunks_exact_mut(n).zip(c1.chunks_exact_mut(n));
        let registers = r0.chunks_exact(n).zip(r1.chunks_exact(n));
        for (limb, ((c0, c1), (r0, r1))) in parts.zip(registers).enumerate() {
            let modulus = params.prime(limb).map_err(internal)?.modulus();
            let mut watch = self.trace.watch(platform);
            let weights: &[u32] = match W::PREPARED {
                true => limb_of(plain, n, limb)?,
                false => {
                    transform_encoded(params, limb, coefficients, encoded, &mut watch)
                        .map_err(internal)?;
                    &*encoded
                }
            };
            watch.mark(SpanKind::MultiplyAccumulate);
            kernel::mul_acc_two(c0, c1, r0, r1, weights, modulus);
        }
        Ok(())
    }

    fn start_switching<P: Platform>(
        &mut self,
        task: Task,
        key: usize,
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let params = self.program.params();
        let op = task.op.switching().ok_or(Refusal::Model)?;
        if let Op::Relinearize = task.op {
            if W::PLAIN {
                return Err(Refusal::Model);
            }
            let scale = self.program.linear(task.step).ok_or(Refusal::Model)?.sums();
            let level = usize::from(task.level);
            self.accumulator.widen(params, level, scale)?;
        }
        let started = match &mut self.accumulator {
            Accumulator::Two(ct, _) => Switching::start(params, op, ct),
            Accumulator::Three(ct) if !W::PLAIN => Switching::start(params, op, ct),
            _ => return Err(Refusal::Model),
        };
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.switching = Some(started.map_err(internal)?);
        self.between_key_limbs(task, key as u16, platform)
    }

    /// What the running key switch does before it can take more of its key:
    /// the next digit, or after the last limb the division.
    fn between_key_limbs<P: Platform>(
        &mut self,
        task: Task,
        key: u16,
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let params = self.program.params();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let waiting = run.cursor.task();
        let Run {
            switching, owed, ..
        } = run;
        let switching = switching.as_mut().ok_or(Refusal::NotExpected)?;
        let level = usize::from(task.level);
        let due = switching.due();
        if let Some(Due::Digit(at)) = due {
            let (limb, digit) = (at.target as u8, at.digit as u8);
            let place = Place::Item(Item::Key { key, limb, digit });
            self.trace.group(place, SpanKind::Digit, platform);
        }
        let owing = match due {
            Some(Due::Division) if !self.owed.is_empty() => {
                let debts = debts(self.owed, owed, params.n())?;
                Some((debts, may_owe(self.program, waiting)))
            }
            _ => None,
        };
        let work = &mut Workspace::new(params, level, self.work).map_err(internal)?;
        let mut watch = self.trace.watch(platform);
        match (due, &mut self.accumulator) {
            (Some(Due::Digit(_)), Accumulator::Two(ct, _)) => {
                switching.digit(params, ct, work, &mut watch)
            }
            (Some(Due::Digit(_)), Accumulator::Three(ct)) if !W::PLAIN => {
                switching.digit(params, ct, work, &mut watch)
            }
            (Some(Due::Division), Accumulator::Two(ct, _)) => {
                divide(params, switching, ct, owing, work, &mut watch)
            }
            (Some(Due::Division), Accumulator::Three(ct)) if !W::PLAIN => {
                divide(params, switching, ct, owing, work, &mut watch)
            }
            (Some(Due::Key(_)) | None, Accumulator::Two(..) | Accumulator::Three(_)) => Ok(()),
            _ => return Err(Refusal::Model),
        }
        .map_err(internal)
    }

    /// Takes what a chunk carries.
    fn consume<P: Platform>(
        &mut self,
        task: Task,
        item: Item,
        offset: u16,
        bytes: &[u8],
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let (limb, digit, source) = match item {
            Item::Input { limb, .. } => (limb, 0, Source::InputOrKey),
            Item::Weight { limb, .. } => (limb, 0, Source::Factor),
            Item::Key { limb, digit, .. } => (limb, digit, Source::InputOrKey),
        };
        let (limb, digit) = (usize::from(limb), usize::from(digit));
        let params = self.program.params();
        let modulus = params.prime(limb).map_err(internal)?.modulus();
        let length = packed_len(CHUNK_COEFFS, modulus.bits());
        if bytes.len() != length {
            return Err(Refusal::ChunkLength {
                expected: length as u16,
                got: u16::try_from(bytes.len()).unwrap_or(u16::MAX),
            });
        }
        if offset == 0 {
            let ([seed, factor_seed], [uniform, factor]) = (&run.seeds, &mut run.uniforms);
            match source {
                Source::InputOrKey => {
                    let domain = match item {
                        Item::Key { .. } => task.op.key().ok_or(Refusal::Model)?.domain(),
                        Item::Input { .. } | Item::Weight { .. } => Domain::Ciphertext,
                    };
                    *uniform = Some(Uniform::new(seed, stream(domain, digit, limb), modulus));
                }
                Source::Factor => {
                    let stream = stream(Domain::Ciphertext, 0, limb);
                    *factor = Some(Uniform::new(factor_seed, stream, modulus));
                }
            }
            // The weights of this limb.
            if W::PLAIN && !W::PREPARED && matches!(task.op, Op::Product { .. }) {
                let (coefficients, weights) = two_limbs(self.work, params.n())?;
                let coefficients = bytemuck::cast_slice(coefficients);
                let mut watch = self.trace.watch(platform);
                transform_encoded(params, limb, coefficients, weights, &mut watch)
                    .map_err(internal)?;
            }
        }
        let buffer = self.chunk.take().ok_or(Refusal::Model)?;
        let absorbed = self.absorb(task, item, source, offset, bytes, buffer, platform);
        self.chunk = Some(buffer);
        absorbed?;
        match item {
            Item::Key { key, .. } if task.op != Op::Polynomial => {
                self.between_key_limbs(task, key, platform)
            }
            _ => Ok(()),
        }
    }

    /// Unpacks and expands a chunk in `buffer`, and puts it where it belongs. Apart, as
    /// it is large.
    #[inline(never)]
    #[expect(
        clippy::too_many_arguments,
        reason = "one call, where these are at hand"
    )]
    fn absorb<P: Platform>(
        &mut self,
        task: Task,
        item: Item,
        source: Source,
        offset: u16,
        bytes: &[u8],
        buffer: &mut ChunkBuffer,
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let params = self.program.params();
        let (Item::Input { limb, .. } | Item::Key { limb, .. } | Item::Weight { limb, .. }) = item;
        let limb = usize::from(limb);
        let modulus = params.prime(limb).map_err(internal)?.modulus();
        let mut watch = self.trace.watch(platform);
        watch.mark(SpanKind::Decode);
        let [sent, expanded] = buffer;
        unpack(bytes, modulus, sent).map_err(|e| match e {
            Error::Residue { index, .. } => Refusal::Residue {
                item,
                index: offset.saturating_add(index as u16),
            },
            _ => Refusal::Model,
        })?;
        if let (Op::Polynomial, Item::Key { digit, .. }) = (task.op, item) {
            let at = KeyLimb {
                target: limb,
                digit: digit.into(),
            };
            let index = at.index(params, task.level.into()).ok_or(Refusal::Model)?;
            let first = index * params.n() + usize::from(offset);
            let kept = self.powers.get_mut(first..first + CHUNK_COEFFS);
            kept.ok_or(Refusal::Model)?.copy_from_slice(sent);
            return Ok(());
        }
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let [uniform, factor] = &mut run.uniforms;
        let uniform = match source {
            Source::InputOrKey => uniform,
            Source::Factor => factor,
        };
        if !self.keeping.has_read_uniform() {
            watch.mark(SpanKind::Expand);
            uniform.as_mut().ok_or(Refusal::NotExpected)?.fill(expanded);
        }
        if let Item::Key { .. } = item {
            watch.mark(SpanKind::KeyProduct);
            let switching = run.switching.as_mut().ok_or(Refusal::NotExpected)?;
            let level = usize::from(task.level);
            let work = &mut Workspace::new(params, level, self.work).map_err(internal)?;
            return match &mut self.accumulator {
                Accumulator::Two(ct, _) => switching.absorb(params, ct, work, sent, expanded),
                Accumulator::Three(ct) if !W::PLAIN => {
                    switching.absorb(params, ct, work, sent, expanded)
                }
                _ => return Err(Refusal::Model),
            }
            .map_err(internal);
        }
        watch.mark(SpanKind::MultiplyAccumulate);
        let chunk = Chunk {
            limb,
            offset: offset.into(),
            halves: [sent, expanded],
        };
        match source {
            Source::InputOrKey => self.take_input(task, chunk),
            Source::Factor if W::PLAIN => Err(Refusal::NotExpected),
            Source::Factor => self.take_factor(task.op, chunk),
        }
    }

    /// A chunk of an input: received, multiplied by plain weights, or kept until its
    /// factor comes.
    #[inline(always)]
    fn take_input(&mut self, task: Task, chunk: Chunk<'_>) -> Result<(), Refusal> {
        let params = self.program.params();
        let modulus = params.prime(chunk.limb).map_err(internal)?.modulus();
        let [sent, expanded] = chunk.halves;
        let (ct, _) = self.accumulator.two()?;
        let first = chunk.limb * params.n() + chunk.offset;
        let (c0, c1) = both(ct.halves_mut(), first)?;
        match task.op {
            Op::Receive => {
                c0.copy_from_slice(sent);
                c1.copy_from_slice(expanded);
            }
            Op::Product { .. } if W::PLAIN => {
                let (_, encoded) = two_limbs(self.work, params.n())?;
                let weights: &[u32] = match W::PREPARED {
                    true => {
                        let plain = plaintext(self.program, &self.weights, task)?;
                        limb_of(plain, params.n(), chunk.limb)?
                    }
                    false => encoded,
                };
                let weights = weights.get(chunk.offset..chunk.offset + CHUNK_COEFFS);
                let weights = weights.ok_or(Refusal::Model)?;
                kernel::mul_acc_two(c0, c1, sent, expanded, weights, modulus);
            }
            Op::Product { .. } => {
                let (h0, h1) = two_limbs(self.held, CHUNK_COEFFS)?;
                h0.copy_from_slice(sent);
                h1.copy_from_slice(expanded);
            }
            _ => return Err(Refusal::Model),
        }
        Ok(())
    }

    /// A chunk of an encrypted factor: biases are added, weights multiplied by what
    /// they belong to.
    #[inline(always)]
    fn take_factor(&mut self, op: Op, chunk: Chunk<'_>) -> Result<(), Refusal> {
        let params = self.program.params();
        let modulus = params.prime(chunk.limb).map_err(internal)?.modulus();
        let [sent, expanded] = chunk.halves;
        let first = chunk.limb * params.n() + chunk.offset;
        let (ct, third) = self.accumulator.two()?;
        let (c0, c1) = both(ct.halves_mut(), first)?;
        let operand = match op {
            Op::Bias => {
                kernel::add(c0, sent, modulus);
                kernel::add(c1, expanded, modulus);
                return Ok(());
            }
            Op::Product { operand, .. } => operand,
            _ => return Err(Refusal::Model),
        };
        let range = first..first + CHUNK_COEFFS;
        let c2 = third.get_mut(range.clone()).ok_or(Refusal::Model)?;
        let (h0, h1) = two_limbs(self.held, CHUNK_COEFFS)?;
        let (a0, a1): (&[u32], &[u32]) = match operand {
            Operand::Input => (h0, h1),
            Operand::Accumulator => {
                h0.copy_from_slice(c0);
                h1.copy_from_slice(c1);
                c0.fill(0);
                c1.fill(0);
                c2.fill(0);
                (h0, h1)
            }
            Operand::Register(register) => {
                let [r0, r1] = register_halves(self.program, self.registers, register)?;
                match (r0.get(range.clone()), r1.get(range)) {
                    (Some(r0), Some(r1)) => (r0, r1),
                    _ => return Err(Refusal::Model),
                }
            }
        };
        // Both halves of the factor in Montgomery form.
        kernel::scale(sent, modulus.r2(), modulus);
        kernel::scale(expanded, modulus.r2(), modulus);
        kernel::mul_acc_two(c0, c1, a0, a1, sent, modulus);
        kernel::mul_acc_two(c1, c2, a0, a1, expanded, modulus);
        Ok(())
    }

    /// Evaluates an activation polynomial, whose key is complete.
    #[inline(never)]
    fn polynomial(&mut self, task: Task) -> Result<(), Refusal> {
        if !POLYNOMIALS {
            return Err(Refusal::Model);
        }
        let params = self.program.params();
        let level = usize::from(task.level);
        let step = self.program.polynomial(task.step).ok_or(Refusal::Model)?;
        let coefficients: Coefficients = self.program.coefficients(step).collect();
        let run = self.run.as_ref().ok_or(Refusal::NotExpected)?;
        let [seed, _] = run.seeds;
        let words = switching_key_words(params, level);
        let halves = self.powers.split_at_mut_checked(words);
        let (key, powers) = halves.ok_or(Refusal::Model)?;
        let key = SwitchKey::from_parts(params, SwitchTarget::Square, level, seed, key)
            .map_err(internal)?;
        let work = &mut Workspace::new(params, level, self.work).map_err(internal)?;
        let (ct, _) = self.accumulator.two()?;
        evaluate_polynomial(params, ct, &coefficients, step.output, &key, powers, work)
            .map_err(internal)
    }

    /// Whether a result waits for a tick.
    const fn holds_result(&self) -> bool {
        #[cfg(feature = "padding")]
        {
            self.holds
        }
        #[cfg(not(feature = "padding"))]
        {
            false
        }
    }

    /// Apart for the same reason as [`Self::absorb`].
    #[inline(never)]
    fn send_result<P: Platform>(
        &mut self,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        let params = self.program.params();
        let mut packed = [0; MAX_CHUNK_BYTES];
        let (ct, _) = self.accumulator.two()?;
        let (c0, c1) = ct.halves();
        for (part, half) in (0..).zip([c0, c1]) {
            for (limb, words) in half.chunks_exact(params.n()).enumerate() {
                let modulus = params.prime(limb).map_err(internal)?.modulus();
                let length = packed_len(CHUNK_COEFFS, modulus.bits());
                let bytes = packed.get_mut(..length).ok_or(Refusal::Model)?;
                for (i, chunk) in words.chunks_exact(CHUNK_COEFFS).enumerate() {
                    pack(chunk, modulus, bytes).map_err(internal)?;
                    reply(Reply::Result {
                        part,
                        limb: limb as u8,
                        offset: (i * CHUNK_COEFFS) as u16,
                        bytes,
                    });
                }
            }
        }
        let scale_bits = ct.scale().to_bits();
        let busy = self.run.as_ref().map_or(0, |run| run.busy(platform));
        // Not the whole of it, which would take 700 bytes of stack.
        let stages = self.run.take().map_or_else(Stages::new, |run| run.stages);
        reply(Reply::Done {
            scale_bits,
            memory: platform.memory(),
            stages,
            busy,
        });
        Ok(())
    }
}

impl Run {
    /// Time since the begin, waiting apart.
    fn busy<P: Platform>(&self, platform: &mut P) -> u64 {
        let [began, before] = self.begun;
        let waited = platform.waited().saturating_sub(before);
        platform.now().saturating_sub(began).saturating_sub(waited)
    }

    /// Adds time to a step. There is room for every one of a program.
    fn account(&mut self, step: u8, time: u64) {
        match self.stages.iter_mut().find(|stage| stage.step == step) {
            Some(stage) => stage.time = stage.time.saturating_add(time),
            None => {
                let _ = self.stages.push(Stage { step, time });
            }
        }
    }
}

/// A chunk of a ciphertext, both halves unpacked.
struct Chunk<'c> {
    limb: usize,
    offset: usize,
    halves: [&'c mut [u32; CHUNK_COEFFS]; 2],
}

/// A chunk's place in both halves of the accumulator.
fn both<'c>(
    (c0, c1): (&'c mut [u32], &'c mut [u32]),
    first: usize,
) -> Result<(&'c mut [u32], &'c mut [u32]), Refusal> {
    let range = first..first + CHUNK_COEFFS;
    let halves = (c0.get_mut(range.clone()), c1.get_mut(range));
    let (Some(c0), Some(c1)) = halves else {
        return Err(Refusal::Model);
    };
    Ok((c0, c1))
}

/// Both halves of a register.
fn register_halves<'r, B: AsRef<[u8]>>(
    program: &Program<B>,
    registers: &'r mut [u32],
    register: u8,
) -> Result<[&'r mut [u32]; 2], Refusal> {
    let words = program.register_words();
    let start = 2 * words * usize::from(register);
    let both = registers.get_mut(start..start + 2 * words);
    let halves = both.and_then(|both| both.split_at_mut_checked(words));
    let (r0, r1) = halves.ok_or(Refusal::Model)?;
    Ok([r0, r1])
}

/// What both halves owe.
fn debts<'d>(
    words: &'d mut [u32],
    [first, second]: &'d mut [u32; 2],
    n: usize,
) -> Result<[Debt<'d>; 2], Refusal> {
    let (d0, d1) = two_limbs(words, n)?;
    let debt = |words: &'d mut [u32], bound| Debt::new(bytemuck::cast_slice_mut(words), bound);
    Ok([debt(d0, first), debt(d1, second)])
}

/// The division of a key switch, of which transforms are put off where there is memory for
/// what is owed, and as far as what follows lets it.
fn divide<const PARTS: usize>(
    params: &Params,
    switching: &mut Switching,
    ct: &mut Ciphertext<&mut [u32], PARTS>,
    owing: Option<([Debt<'_>; 2], [bool; 2])>,
    work: &mut Workspace<'_>,
    watch: &mut impl Probe,
) -> Result<(), Error> {
    match owing {
        Some((debts, lasts)) => switching.divide_owing(params, ct, debts, lasts, work, watch),
        None => switching.divide(params, ct, work, watch),
    }
}

/// Which halves may owe transforms behind the key switch of a task.
fn may_owe<B: AsRef<[u8]>>(program: &Program<B>, task: usize) -> [bool; 2] {
    let mut later = (task.saturating_add(1)..).map_while(|index| program.task(index));
    let next = later.find(|task| task.op != Op::Bias);
    next.map_or([false; 2], |task| task.op.lets_owe())
}

/// The limbs of a task's plaintext, for the levels from 0 to the task's.
fn plaintext<'w, B: AsRef<[u8]>, W: WeightSource>(
    program: &Program<B>,
    weights: &'w W,
    task: Task,
) -> Result<&'w [u32], Refusal> {
    let n = program.params().n();
    let before = program.plaintext_limbs_before(task);
    let limbs = usize::from(task.level) + 1;
    let plain = before.and_then(|before| weights.prepared(before * n, limbs * n));
    plain.ok_or(Refusal::Model)
}

/// A limb of a plaintext.
fn limb_of(plain: &[u32], n: usize, limb: usize) -> Result<&[u32], Refusal> {
    let from = plain.get(limb.saturating_mul(n)..);
    from.and_then(|from| from.get(..n)).ok_or(Refusal::Model)
}

/// The first two times `n` words.
fn two_limbs(words: &mut [u32], n: usize) -> Result<(&mut [u32], &mut [u32]), Refusal> {
    let (first, rest) = words.split_at_mut_checked(n).ok_or(Refusal::Model)?;
    Ok((first, rest.get_mut(..n).ok_or(Refusal::Model)?))
}

/// Errors that a checked program excludes; reported, not swallowed.
fn internal(_: Error) -> Refusal {
    Refusal::Model
}
