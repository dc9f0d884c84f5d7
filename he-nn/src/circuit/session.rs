//! The evaluator of a circuit's [`Program`]: a state machine that turns requests
//! into replies, as [`crate::session`] is for two layers, and as sparing.
//!
//! The accumulator is a ciphertext of two parts; the third, which sums of products
//! of ciphertexts have, is memory beside it until they are relinearised. Between
//! two requests that need nothing of the client, tasks are carried out until one
//! waits again.

use super::program::{Cursor, Op, Operand, Program, Task, Upload};
use super::{Form, LinearMap};
use crate::message::{
    CHUNK_COEFFS, Item, MAX_CHUNK_BYTES, Refusal, Reply, Request, SEED_BYTES, Stage, StageKind,
    Stages,
};
use crate::model::Model;
use crate::plan::BIAS_SHIFT;
use crate::session::{Held, Platform, check_plan};
use core::mem;
use he_core::ckks::encode::encode_in_place;
use he_core::ckks::evaluator::{
    Due, Switching, Workspace, add_encoded, multiply_constant, multiply_encoded, rescale,
    transform_encoded,
};
use he_core::ckks::{Ciphertext, Constant};
use he_core::error::Error;
use he_core::params::Params;
use he_core::ring::kernel;
use he_core::ring::sample::{Domain, Uniform, stream};
use he_core::wire::{pack, packed_len, unpack};

use super::CircuitError;

/// Where an evaluator's weights are.
pub trait WeightSource {
    /// Whether they are in plain.
    const PLAIN: bool;

    /// The layer with this index.
    fn layer(&self, index: usize) -> Option<LinearMap<'_>>;
}

/// Weights of a model, encoded in single precision at each use.
impl WeightSource for Model<'_> {
    const PLAIN: bool = true;

    fn layer(&self, index: usize) -> Option<LinearMap<'_>> {
        LinearMap::new(self.layers().nth(index)?)
    }
}

/// No weights: the client streams them, encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

impl WeightSource for Encrypted {
    const PLAIN: bool = false;

    fn layer(&self, _: usize) -> Option<LinearMap<'_>> {
        None
    }
}

/// The ciphertext that everything happens to.
#[derive(Debug)]
enum Accumulator<'a> {
    /// And the third part, of no words where weights are in plain.
    Two(Ciphertext<&'a mut [u32]>, &'a mut [u32]),
    /// While it is relinearised.
    Three(Ciphertext<&'a mut [u32], 3>),
    /// Between the two.
    Nothing,
}

impl<'a> Accumulator<'a> {
    fn parts(self) -> Option<[&'a mut [u32]; 3]> {
        match self {
            Self::Two(ct, third) => {
                let [c0, c1] = ct.into_parts();
                Some([c0, c1, third])
            }
            Self::Three(ct) => Some(ct.into_parts()),
            Self::Nothing => None,
        }
    }

    /// Both of the two parts, and the third.
    const fn two(&mut self) -> Result<(&mut Ciphertext<&'a mut [u32]>, &mut [u32]), Refusal> {
        match self {
            Self::Two(ct, third) => Ok((ct, third)),
            Self::Three(_) | Self::Nothing => Err(Refusal::Model),
        }
    }

    /// Becomes zero in two parts.
    fn clear(&mut self, params: &Params, level: usize, scale: f64) -> Result<(), Refusal> {
        let [c0, c1, third] = mem::replace(self, Self::Nothing)
            .parts()
            .ok_or(Refusal::Model)?;
        third.fill(0);
        let ct = Ciphertext::zero(params, level, scale, c0, c1).map_err(internal)?;
        *self = Self::Two(ct, third);
        Ok(())
    }

    /// Takes the third part in.
    fn widen(&mut self, params: &Params, level: usize, scale: f64) -> Result<(), Refusal> {
        let parts = mem::replace(self, Self::Nothing).parts();
        let parts = parts.ok_or(Refusal::Model)?;
        let ct = Ciphertext::from_parts(params, level, scale, parts).map_err(internal)?;
        *self = Self::Three(ct);
        Ok(())
    }

    /// Gives the third part back, which a relinearisation has left zero.
    fn narrow(&mut self) -> Result<(), Refusal> {
        match mem::replace(self, Self::Nothing) {
            Self::Three(ct) => {
                let (ct, third) = ct.into_two_parts().map_err(internal)?;
                *self = Self::Two(ct, third);
                Ok(())
            }
            Self::Two(..) | Self::Nothing => Err(Refusal::Model),
        }
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
    stages: Stages,
}

/// Which of two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    InputOrKey,
    Factor,
}

/// The evaluator of a circuit. No secret ever comes here; where weights are
/// encrypted, no weights either.
#[derive(Debug)]
pub struct CircuitSession<'a, W> {
    program: &'a Program,
    weights: W,
    accumulator: Accumulator<'a>,
    registers: &'a mut [u32],
    /// Workspace of key switches, scratch of everything else.
    work: &'a mut [u32],
    /// Both halves of a chunk that waits for its factor.
    held: &'a mut [u32],
    run: Option<Run>,
}

impl<'a, W: WeightSource> CircuitSession<'a, W> {
    /// Prepares an evaluator over `arena`.
    ///
    /// # Errors
    /// [`CircuitError::Memory`] if the arena is shorter than
    /// [`Program::arena_words`].
    pub fn new(
        program: &'a Program,
        weights: W,
        arena: &'a mut [u32],
    ) -> Result<Self, CircuitError> {
        let needed = program.arena_words() * size_of::<u32>();
        let available = size_of_val(arena);
        let short = CircuitError::Memory { needed, available };
        let mut rest = arena;
        let mut take = |words: usize| {
            let (part, left) = mem::take(&mut rest)
                .split_at_mut_checked(words)
                .ok_or(short)?;
            rest = left;
            Ok::<_, CircuitError>(part)
        };
        let part = program.part_words();
        let (c0, c1) = (take(part)?, take(part)?);
        let third = take((program.parts() - 2) * part)?;
        let registers = take(2 * program.registers() * program.register_words())?;
        let work = take(program.work_words())?;
        let held = take(program.held_words())?;
        let params = program.params();
        let ct = Ciphertext::zero(params, program.input_level(), 1.0, c0, c1).map_err(|_| short)?;
        Ok(Self {
            program,
            weights,
            accumulator: Accumulator::Two(ct, third),
            registers,
            work,
            held,
            run: None,
        })
    }

    /// The program it executes.
    #[must_use]
    pub const fn program(&self) -> &Program {
        self.program
    }

    /// Answers one request.
    pub fn handle<P: Platform>(
        &mut self,
        request: Request<'_>,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) {
        if let Err(refusal) = self.answer(request, platform, reply) {
            self.run = None;
            reply(Reply::Refused(refusal));
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
                let held = Held {
                    model: self.program.name(),
                    model_crc: self.program.model_crc(),
                    params: self.program.params().fingerprint(),
                    plan: self.program.fingerprint(),
                };
                reply(Reply::Hello(held.greet(version, platform)?));
            }
            Request::Begin { plan, trace } => {
                check_plan(self.program.fingerprint(), plan)?;
                if trace {
                    return Err(Refusal::NoTracer);
                }
                self.run = Some(Run {
                    cursor: Cursor::start(self.program),
                    seeds: [[0; SEED_BYTES]; 2],
                    uniforms: [None, None],
                    switching: None,
                    stages: Stages::new(),
                });
                self.proceed(0, platform)?;
                reply(Reply::Ready);
            }
            Request::Seed { seed } => {
                self.take_seed(&seed, platform)?;
                reply(Reply::Ack);
            }
            Request::Data {
                item,
                offset,
                bytes,
            } => {
                let ended = self.take_chunk(item, offset, bytes, platform)?;
                reply(Reply::Ack);
                if ended {
                    self.send_result(platform, reply)?;
                }
            }
            Request::Abort => {
                self.run = None;
                reply(Reply::Aborted);
            }
            Request::Trace => return Err(Refusal::NoTracer),
        }
        Ok(())
    }

    fn take_seed<P: Platform>(
        &mut self,
        seed: &[u8; SEED_BYTES],
        platform: &mut P,
    ) -> Result<(), Refusal> {
        let start = platform.now();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let tasks = self.program.tasks();
        let task = *tasks.get(run.cursor.task()).ok_or(Refusal::NotExpected)?;
        let [first, second] = &mut run.seeds;
        match run.cursor.upload(self.program) {
            Some(Upload::InputSeed(_)) => {
                *first = *seed;
                if W::PLAIN
                    && let Op::Product { index, .. } = task.op
                {
                    self.encode_weights(task.step, index)?;
                }
            }
            Some(Upload::FactorSeed(_)) => *second = *seed,
            Some(Upload::KeySeed(_)) => {
                *first = *seed;
                self.start_switching(task)?;
            }
            _ => return Err(Refusal::NotExpected),
        }
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.cursor.advance(self.program);
        run.account(task.step, platform.now().saturating_sub(start));
        Ok(())
    }

    /// Takes a chunk, and does what can be done before the next; whether it was the
    /// last.
    fn take_chunk<P: Platform>(
        &mut self,
        item: Item,
        offset: u16,
        bytes: &[u8],
        platform: &mut P,
    ) -> Result<bool, Refusal> {
        let start = platform.now();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let Some(Upload::Chunk(expected, expected_offset)) = run.cursor.upload(self.program) else {
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
        let task = *self.program.tasks().get(waiting).ok_or(Refusal::Model)?;
        self.consume(task, item, offset, bytes)?;
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.cursor.advance(self.program);
        let next = run.cursor.task();
        if next != waiting && matches!(task.op, Op::Relinearize) {
            self.accumulator.narrow()?;
        }
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.account(task.step, platform.now().saturating_sub(start));
        if next != waiting {
            self.proceed(waiting + 1, platform)?;
        }
        Ok(next >= self.program.tasks().len())
    }

    /// Carries out tasks from `first` on, up to the one that waits.
    fn proceed<P: Platform>(&mut self, first: usize, platform: &mut P) -> Result<(), Refusal> {
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let program = self.program;
        let tasks = program.tasks().get(first..run.cursor.task());
        for task in tasks.unwrap_or_default() {
            let start = platform.now();
            self.perform(*task)?;
            if let Some(run) = &mut self.run {
                run.account(task.step, platform.now().saturating_sub(start));
            }
        }
        Ok(())
    }

    /// A task that needs nothing of the client.
    fn perform(&mut self, task: Task) -> Result<(), Refusal> {
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
                self.encode_weights(task.step, index)?;
                self.multiply_register(register)
            }
            Op::Product {
                operand: Operand::Accumulator,
                index,
            } => {
                let scale = self.encode_weights(task.step, index)?;
                let (ct, _) = self.accumulator.two()?;
                let (coefficients, scratch) = two_limbs(self.work, params.n())?;
                let coefficients = bytemuck::cast_slice(coefficients);
                multiply_encoded(params, ct, coefficients, scale, scratch, &mut ())
                    .map_err(internal)
            }
            Op::Bias => {
                let (ct, _) = self.accumulator.two()?;
                let scale = ct.scale() / f64::from(1u32 << BIAS_SHIFT);
                self.encode(task.step, scale, |map, form, re, _| {
                    form.bias_slots(map, |k| map.bias(k).map_or(0.0, f64::from), re);
                })?;
                let (ct, _) = self.accumulator.two()?;
                let (coefficients, scratch) = two_limbs(self.work, params.n())?;
                let coefficients = bytemuck::cast_slice(coefficients);
                add_encoded(params, ct, coefficients, BIAS_SHIFT, scratch, &mut ())
                    .map_err(internal)
            }
            Op::Rescale => {
                let (ct, _) = self.accumulator.two()?;
                let scratch = self.work.get_mut(..params.n()).ok_or(Refusal::Model)?;
                rescale(params, ct, scratch).map_err(internal)
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
            // These wait for a stream.
            Op::Receive
            | Op::Product {
                operand: Operand::Input,
                ..
            }
            | Op::Rotate(_)
            | Op::RotateAdd(_)
            | Op::Square
            | Op::Relinearize => Err(Refusal::Model),
        }
    }

    /// Encodes the weights of a product; their scale.
    fn encode_weights(&mut self, step: u8, index: u16) -> Result<f64, Refusal> {
        let scale = self.program.linear(step).ok_or(Refusal::Model)?.weights;
        self.encode(step, scale, |map, form, re, im| {
            let weight = |output, input| map.weight(output, input).unwrap_or(0.0);
            form.weight_slots(map, usize::from(index), weight, re, im);
        })?;
        Ok(scale)
    }

    /// Encodes what `fill` writes into the slots; the coefficients (integers in
    /// `f32`) take the first limb of the workspace.
    fn encode(
        &mut self,
        step: u8,
        scale: f64,
        fill: impl FnOnce(&LinearMap<'_>, Form, &mut [f32], &mut [f32]),
    ) -> Result<(), Refusal> {
        let params = self.program.params();
        let linear = self.program.linear(step).ok_or(Refusal::Model)?;
        let map = self
            .weights
            .layer(usize::from(linear.layer))
            .ok_or(Refusal::Model)?;
        let buffer = self.work.get_mut(..params.n()).ok_or(Refusal::Model)?;
        let coefficients: &mut [f32] = bytemuck::cast_slice_mut(buffer);
        let halves = coefficients.split_at_mut_checked(params.slots());
        let (re, im) = halves.ok_or(Refusal::Model)?;
        im.fill(0.0);
        fill(&map, linear.form, re, im);
        encode_in_place(coefficients, scale).map_err(internal)
    }

    /// Adds the product of a register and the encoded weights.
    fn multiply_register(&mut self, register: u8) -> Result<(), Refusal> {
        let params = self.program.params();
        let n = params.n();
        let [r0, r1] = register_halves(self.program, self.registers, register)?;
        let (ct, _) = self.accumulator.two()?;
        let (coefficients, weights) = two_limbs(self.work, n)?;
        let coefficients = bytemuck::cast_slice(coefficients);
        let (c0, c1) = ct.halves_mut();
        let parts = c0.chunks_exact_mut(n).zip(c1.chunks_exact_mut(n));
        let registers = r0.chunks_exact(n).zip(r1.chunks_exact(n));
        for (limb, ((c0, c1), (r0, r1))) in parts.zip(registers).enumerate() {
            let modulus = params.prime(limb).map_err(internal)?.modulus();
            transform_encoded(params, limb, coefficients, weights, &mut ()).map_err(internal)?;
            kernel::mul_acc_two(c0, c1, r0, r1, weights, modulus);
        }
        Ok(())
    }

    fn start_switching(&mut self, task: Task) -> Result<(), Refusal> {
        let params = self.program.params();
        let op = task.op.switching().ok_or(Refusal::Model)?;
        if let Op::Relinearize = task.op {
            let scale = self.program.linear(task.step).ok_or(Refusal::Model)?.sums();
            let level = usize::from(task.level);
            self.accumulator.widen(params, level, scale)?;
        }
        let started = match &mut self.accumulator {
            Accumulator::Two(ct, _) => Switching::start(params, op, ct),
            Accumulator::Three(ct) => Switching::start(params, op, ct),
            Accumulator::Nothing => return Err(Refusal::Model),
        };
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        run.switching = Some(started.map_err(internal)?);
        self.between_key_limbs(task)
    }

    /// What the running key switch does before it can take more of its key:
    /// the next digit, or after the last limb the division.
    fn between_key_limbs(&mut self, task: Task) -> Result<(), Refusal> {
        let params = self.program.params();
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let switching = run.switching.as_mut().ok_or(Refusal::NotExpected)?;
        let level = usize::from(task.level);
        let work = &mut Workspace::new(params, level, self.work).map_err(internal)?;
        match (switching.due(), &mut self.accumulator) {
            (Some(Due::Digit(_)), Accumulator::Two(ct, _)) => {
                switching.digit(params, ct, work, &mut ())
            }
            (Some(Due::Digit(_)), Accumulator::Three(ct)) => {
                switching.digit(params, ct, work, &mut ())
            }
            (Some(Due::Division), Accumulator::Two(ct, _)) => {
                switching.divide(params, ct, work, &mut ())
            }
            (Some(Due::Division), Accumulator::Three(ct)) => {
                switching.divide(params, ct, work, &mut ())
            }
            (_, Accumulator::Nothing) => return Err(Refusal::Model),
            (Some(Due::Key(_)) | None, _) => Ok(()),
        }
        .map_err(internal)
    }

    /// Takes what a chunk carries.
    fn consume(
        &mut self,
        task: Task,
        item: Item,
        offset: u16,
        bytes: &[u8],
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
                        Item::Key { .. } => {
                            task.op.switching().ok_or(Refusal::Model)?.target().domain()
                        }
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
            if W::PLAIN && matches!(task.op, Op::Product { .. }) {
                let (coefficients, weights) = two_limbs(self.work, params.n())?;
                let coefficients = bytemuck::cast_slice(coefficients);
                transform_encoded(params, limb, coefficients, weights, &mut ())
                    .map_err(internal)?;
            }
        }
        self.absorb(task, item, limb, source, offset, bytes)?;
        match item {
            Item::Key { .. } => self.between_key_limbs(task),
            Item::Input { .. } | Item::Weight { .. } => Ok(()),
        }
    }

    /// Unpacks and expands a chunk, and puts it where it belongs. Apart, so that its
    /// buffers are on the stack only as long as that takes.
    #[inline(never)]
    fn absorb(
        &mut self,
        task: Task,
        item: Item,
        limb: usize,
        source: Source,
        offset: u16,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let params = self.program.params();
        let n = params.n();
        let modulus = params.prime(limb).map_err(internal)?.modulus();
        let (mut sent, mut expanded) = ([0; CHUNK_COEFFS], [0; CHUNK_COEFFS]);
        unpack(bytes, modulus, &mut sent).map_err(|e| match e {
            Error::Residue { index, .. } => Refusal::Residue {
                item,
                index: offset.saturating_add(index as u16),
            },
            _ => Refusal::Model,
        })?;
        let run = self.run.as_mut().ok_or(Refusal::NotExpected)?;
        let [uniform, factor] = &mut run.uniforms;
        let uniform = match source {
            Source::InputOrKey => uniform,
            Source::Factor => factor,
        };
        uniform
            .as_mut()
            .ok_or(Refusal::NotExpected)?
            .fill(&mut expanded);

        if let Item::Key { .. } = item {
            let switching = run.switching.as_mut().ok_or(Refusal::NotExpected)?;
            let level = usize::from(task.level);
            let work = &mut Workspace::new(params, level, self.work).map_err(internal)?;
            return match &mut self.accumulator {
                Accumulator::Two(ct, _) => switching.absorb(params, ct, work, &sent, &expanded),
                Accumulator::Three(ct) => switching.absorb(params, ct, work, &sent, &expanded),
                Accumulator::Nothing => return Err(Refusal::Model),
            }
            .map_err(internal);
        }

        let first = limb * n + usize::from(offset);
        let range = first..first + CHUNK_COEFFS;
        let (ct, third) = self.accumulator.two()?;
        let (c0, c1) = ct.halves_mut();
        let (Some(c0), Some(c1)) = (c0.get_mut(range.clone()), c1.get_mut(range.clone())) else {
            return Err(Refusal::Model);
        };
        match (source, task.op) {
            (Source::InputOrKey, Op::Receive) => {
                c0.copy_from_slice(&sent);
                c1.copy_from_slice(&expanded);
            }
            (Source::InputOrKey, Op::Product { .. }) if W::PLAIN => {
                let (_, weights) = two_limbs(self.work, n)?;
                let at = usize::from(offset);
                let weights = weights.get(at..at + CHUNK_COEFFS).ok_or(Refusal::Model)?;
                kernel::mul_acc_two(c0, c1, &sent, &expanded, weights, modulus);
            }
            (Source::InputOrKey, Op::Product { .. }) => {
                let (h0, h1) = two_limbs(self.held, CHUNK_COEFFS)?;
                h0.copy_from_slice(&sent);
                h1.copy_from_slice(&expanded);
            }
            (Source::Factor, Op::Bias) => {
                kernel::add(c0, &sent, modulus);
                kernel::add(c1, &expanded, modulus);
            }
            (Source::Factor, Op::Product { operand, .. }) => {
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
                kernel::scale(&mut sent, modulus.r2(), modulus);
                kernel::scale(&mut expanded, modulus.r2(), modulus);
                kernel::mul_acc_two(c0, c1, a0, a1, &sent, modulus);
                kernel::mul_acc_two(c1, c2, a0, a1, &expanded, modulus);
            }
            _ => return Err(Refusal::Model),
        }
        Ok(())
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
        let stages = self.run.take().map_or_else(Stages::new, |run| run.stages);
        reply(Reply::Done {
            scale_bits,
            memory: platform.memory(),
            stages,
        });
        Ok(())
    }
}

impl Run {
    /// Adds time to a step. There is room for every one of a program.
    fn account(&mut self, step: u8, time: u64) {
        let kind = StageKind::Step(step);
        match self.stages.iter_mut().find(|stage| stage.kind == kind) {
            Some(stage) => stage.time = stage.time.saturating_add(time),
            None => {
                let _ = self.stages.push(Stage { kind, time });
            }
        }
    }
}

/// Both halves of a register.
fn register_halves<'r>(
    program: &Program,
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

/// The first two times `n` words.
fn two_limbs(words: &mut [u32], n: usize) -> Result<(&mut [u32], &mut [u32]), Refusal> {
    let (first, rest) = words.split_at_mut_checked(n).ok_or(Refusal::Model)?;
    Ok((first, rest.get_mut(..n).ok_or(Refusal::Model)?))
}

/// Errors that a checked program excludes; reported, not swallowed.
fn internal(_: Error) -> Refusal {
    Refusal::Model
}
