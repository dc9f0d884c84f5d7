//! A circuit as a program for an evaluator that is fed by a stream: what a board
//! does, task by task, and what the client sends it meanwhile.
//!
//! One ciphertext, the accumulator, is operand and result of every task; a circuit
//! with baby steps has registers for more of them. Nothing else is kept: inputs,
//! switching keys and encrypted factors come as a stream and are used up as they
//! arrive. Where weights are encrypted, a chunk of an input and a chunk of the
//! factor that belongs to it take turns, both halves of each expanded or unpacked
//! there, and their product is added to three parts, which are relinearised once.
//!
//! A program has no weights. Whoever plans writes it ([`Program::write`]), and an
//! evaluator reads it ([`Program::parse`]): with weights in plain it holds the model
//! beside it, with encrypted ones nothing else.

use super::{Circuit, CircuitError, Form, Norms, Step, Weights};
use crate::message::{CHUNK_COEFFS, Item, MAX_STAGES, SEED_BYTES};
use crate::plan::BIAS_SHIFT;
use he_core::ckks::encode::COEFF_LIMIT_LOG2;
use he_core::ckks::evaluator::{SwitchOp, workspace_words};
use he_core::params::{Params, fnv};
use he_core::ring::automorphism;
use he_core::rlwe::KeyLimb;
use he_core::wire::packed_len;
use serde::{Deserialize, Serialize};

/// Most tasks of a program, so that a message numbers inputs, factors and keys in
/// eight bits.
pub const MAX_TASKS: usize = 128;

/// Most steps of its circuit: an evaluator reports the time of each.
pub const MAX_STEPS: usize = MAX_STAGES;

/// Longest name of a network.
const MAX_NAME: usize = crate::model::MAX_NAME_BYTES;

/// A ciphertext that is multiplied by weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operand {
    /// The next input, as it arrives.
    Input,
    /// A register.
    Register(u8),
    /// The accumulator, in place.
    Accumulator,
}

/// What a task does to the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// It becomes zero, at the scale of the step's sums or of its input.
    Clear {
        /// Of the sums.
        sums: bool,
    },
    /// It becomes the next input, as that arrives. It was zero.
    Receive,
    /// A product with weights is added; one of [`Operand::Accumulator`] takes its
    /// place.
    Product {
        /// What is multiplied.
        operand: Operand,
        /// Which of the step's products.
        index: u16,
    },
    /// Biases are added.
    Bias,
    /// The slots are rotated or conjugated by a Galois element.
    Rotate(u32),
    /// The same, and added to what was there.
    RotateAdd(u32),
    /// Square and relinearisation.
    Square,
    /// The sums of products of ciphertexts go back to two parts.
    Relinearize,
    /// Division by the last prime.
    Rescale,
    /// It is copied to a register.
    Save(u8),
    /// It becomes a copy of a register.
    Load(u8),
    /// It is multiplied by the imaginary unit and a register is added.
    Pair(u8),
}

impl Op {
    /// The operation that takes a switching key.
    #[must_use]
    pub const fn switching(self) -> Option<SwitchOp> {
        match self {
            Self::Rotate(g) => Some(SwitchOp::Rotate(g)),
            Self::RotateAdd(g) => Some(SwitchOp::RotateAdd(g)),
            Self::Square => Some(SwitchOp::Square),
            Self::Relinearize => Some(SwitchOp::Relinearize),
            _ => None,
        }
    }
}

/// One operation at its place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What is done.
    pub op: Op,
    /// The circuit's step that it belongs to.
    pub step: u8,
    /// Level of the accumulator before it.
    pub level: u8,
}

const _: () = assert!(size_of::<Task>() == 12);

/// The layer behind a step with weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearStep {
    /// The layer's index in the network; of several as one, the first.
    pub layer: u8,
    /// How it is evaluated.
    pub form: Form,
    /// Scale of what it takes.
    pub input: f64,
    /// Scale of its weights.
    pub weights: f64,
}

impl LinearStep {
    /// Scale of its sums, before rescaling.
    #[must_use]
    pub const fn sums(&self) -> f64 {
        self.input * self.weights
    }
}

/// Which of its streams a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Streams {
    input: bool,
    factor: bool,
    key: bool,
}

impl Streams {
    const fn any(self) -> bool {
        self.input || self.factor || self.key
    }
}

/// What is sent over the link, apart from framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Bytes of the inputs.
    pub inputs: usize,
    /// Bytes of encrypted factors.
    pub factors: usize,
    /// Bytes of switching keys.
    pub keys: usize,
    /// Bytes of the result.
    pub result: usize,
}

/// The program of a circuit.
#[derive(Clone, Debug)]
pub struct Program {
    params: &'static Params,
    body: Body,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Body {
    params: u32,
    name: heapless::String<MAX_NAME>,
    /// Of the model where weights are plain, otherwise of the program: an evaluator
    /// that holds no weights can test no guess of them.
    model: u32,
    fingerprint: u32,
    encrypted: bool,
    level: u8,
    input_scale: f64,
    output_scale: f64,
    registers: u8,
    register_level: u8,
    steps: heapless::Vec<Option<LinearStep>, MAX_STEPS>,
    tasks: heapless::Vec<Task, MAX_TASKS>,
}

impl Program {
    /// The program of a circuit. `row` and `scratch` as for [`Circuit::new`].
    ///
    /// # Errors
    /// [`CircuitError`] where a stream or an encoder in single precision does not
    /// serve it.
    pub fn new(
        circuit: &Circuit<'_>,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<Self, CircuitError> {
        let params = circuit.params();
        if params.special_limbs() > 1 {
            return Err(CircuitError::Special {
                primes: params.special_limbs(),
            });
        }
        if params.n() < CHUNK_COEFFS {
            return Err(CircuitError::Ring { n: params.n() });
        }
        let many = |what, got, max| CircuitError::Many { what, got, max };
        let steps = circuit.steps();
        if steps.len() > MAX_STEPS {
            return Err(many("steps", steps.len(), MAX_STEPS));
        }
        let encrypted = circuit.weights() == Weights::Encrypted;
        let mut writer = Writer {
            params,
            encrypted,
            tasks: heapless::Vec::new(),
            written: 0,
            step: 0,
            level: circuit.input_level(),
            registers: 0,
            register_level: 0,
        };
        let mut of_steps = heapless::Vec::new();
        for (index, step) in steps.iter().enumerate() {
            writer.step = index as u8;
            writer.level = step.level();
            let linear = match step {
                Step::Polynomial { layer, .. } => {
                    return Err(CircuitError::Activation { layer: *layer });
                }
                Step::Square { .. } => {
                    writer.push(Op::Square);
                    None
                }
                Step::Linear {
                    map, form, scales, ..
                } => {
                    let (layer, _) = map.layers();
                    if !encrypted {
                        map.single().ok_or(CircuitError::Product { layer })?;
                        let norms = Norms::of(map, row, scratch)?;
                        check_single(layer, norms.weight, scales.weights)?;
                        let shifted = libm::ldexp(scales.sums(), -(BIAS_SHIFT as i32));
                        check_single(layer, norms.bias, shifted)?;
                    }
                    writer.linear(*form, circuit.ciphertexts());
                    Some(LinearStep {
                        layer: layer as u8,
                        form: *form,
                        input: scales.input,
                        weights: scales.weights,
                    })
                }
            };
            writer.push(Op::Rescale);
            let _ = of_steps.push(linear);
        }
        if writer.written > MAX_TASKS {
            return Err(many("operations", writer.written, MAX_TASKS));
        }
        let mut program = Self {
            params,
            body: Body {
                params: params.fingerprint(),
                // A model's name is no longer.
                name: heapless::String::try_from(circuit.model().name()).unwrap_or_default(),
                model: circuit.model().crc(),
                fingerprint: 0,
                encrypted,
                level: circuit.input_level() as u8,
                input_scale: circuit.input_scale(),
                output_scale: circuit.output_scale(),
                registers: writer.registers,
                register_level: writer.register_level as u8,
                steps: of_steps,
                tasks: writer.tasks,
            },
        };
        let shape = program.hash();
        program.body.fingerprint = if encrypted {
            program.body.model = shape;
            shape
        } else {
            fnv(shape, program.body.model)
        };
        Ok(program)
    }

    /// Covers the parameter set, every task and every scale.
    fn hash(&self) -> u32 {
        let real = |h, x: f64| fnv(fnv(h, x.to_bits() as u32), (x.to_bits() >> 32) as u32);
        let mut h = fnv(0x811c_9dc5, self.body.params);
        h = real(real(h, self.body.input_scale), self.body.output_scale);
        for linear in self.body.steps.iter().flatten() {
            h = real(real(h, linear.input), linear.weights);
        }
        for task in &self.body.tasks {
            h = fnv(h, u32::from(task.step) << 8 | u32::from(task.level));
            h = match task.op {
                Op::Clear { sums } => fnv(fnv(h, 1), sums.into()),
                Op::Receive => fnv(h, 2),
                Op::Product { operand, index } => {
                    let operand = match operand {
                        Operand::Input => 0,
                        Operand::Accumulator => 1,
                        Operand::Register(r) => 2 + u32::from(r),
                    };
                    fnv(fnv(fnv(h, 3), operand), u32::from(index))
                }
                Op::Bias => fnv(h, 4),
                Op::Rotate(g) => fnv(fnv(h, 5), g),
                Op::RotateAdd(g) => fnv(fnv(h, 6), g),
                Op::Square => fnv(h, 7),
                Op::Relinearize => fnv(h, 8),
                Op::Rescale => fnv(h, 9),
                Op::Save(r) => fnv(fnv(h, 10), u32::from(r)),
                Op::Load(r) => fnv(fnv(h, 11), u32::from(r)),
                Op::Pair(r) => fnv(fnv(h, 12), u32::from(r)),
            };
        }
        h
    }

    /// Writes it for an evaluator; the bytes that were written. `None` where `out`
    /// is too short.
    #[must_use]
    pub fn write<'o>(&self, out: &'o mut [u8]) -> Option<&'o mut [u8]> {
        postcard::to_slice(&self.body, out).ok()
    }

    /// Reads what [`Self::write`] wrote under the same set. `None` for anything
    /// else.
    #[must_use]
    pub fn parse(params: &'static Params, bytes: &[u8]) -> Option<Self> {
        let body: Body = postcard::from_bytes(bytes).ok()?;
        let mut layers = body.steps.iter().flatten();
        let sound = layers.all(|layer| layer.form.fits(params.slots()));
        (sound && body.params == params.fingerprint()).then_some(Self { params, body })
    }

    /// Parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.body.name
    }

    /// CRC-32 of the model; where weights are encrypted, the fingerprint.
    #[must_use]
    pub const fn model_crc(&self) -> u32 {
        self.body.model
    }

    /// A number that both sides compare before they begin.
    #[must_use]
    pub const fn fingerprint(&self) -> u32 {
        self.body.fingerprint
    }

    /// Whether weights are encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.body.encrypted
    }

    /// Level of the inputs; that of the result is 0.
    #[must_use]
    pub const fn input_level(&self) -> usize {
        self.body.level as usize
    }

    /// Scale of the inputs.
    #[must_use]
    pub const fn input_scale(&self) -> f64 {
        self.body.input_scale
    }

    /// Scale of the result.
    #[must_use]
    pub const fn output_scale(&self) -> f64 {
        self.body.output_scale
    }

    /// What is done, in order.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.body.tasks
    }

    /// The layer of a step; `None` for an activation.
    #[must_use]
    pub fn linear(&self, step: u8) -> Option<LinearStep> {
        self.body.steps.get(usize::from(step)).copied().flatten()
    }

    /// The tasks that take an encrypted factor, in the order of the stream.
    pub fn factors(&self) -> impl Iterator<Item = &Task> {
        let tasks = self.body.tasks.iter();
        tasks.filter(|task| self.streams(task).factor)
    }

    /// The tasks that take a switching key, in the order of the stream.
    pub fn key_uses(&self) -> impl Iterator<Item = &Task> {
        let tasks = self.body.tasks.iter();
        tasks.filter(|task| task.op.switching().is_some())
    }

    /// Input ciphertexts.
    #[must_use]
    pub fn inputs(&self) -> usize {
        let tasks = self.body.tasks.iter();
        tasks.filter(|task| self.streams(task).input).count()
    }

    const fn streams(&self, task: &Task) -> Streams {
        let encrypted = self.body.encrypted;
        let (input, factor) = match task.op {
            Op::Receive => (true, false),
            Op::Product {
                operand: Operand::Input,
                ..
            } => (true, encrypted),
            Op::Product { .. } | Op::Bias => (false, encrypted),
            _ => (false, false),
        };
        Streams {
            input,
            factor,
            key: task.op.switching().is_some(),
        }
    }

    /// Registers.
    #[must_use]
    pub const fn registers(&self) -> usize {
        self.body.registers as usize
    }

    /// Words of one part of the accumulator.
    #[must_use]
    pub const fn part_words(&self) -> usize {
        (self.body.level as usize + 1) * self.params.n()
    }

    /// Parts of the accumulator: three where products of ciphertexts are added up.
    #[must_use]
    pub const fn parts(&self) -> usize {
        if self.body.encrypted { 3 } else { 2 }
    }

    /// Words of one half of a register.
    #[must_use]
    pub const fn register_words(&self) -> usize {
        (self.body.register_level as usize + 1) * self.params.n()
    }

    /// Words of a key switch's workspace, scratch of everything else.
    #[must_use]
    pub const fn work_words(&self) -> usize {
        workspace_words(self.params, self.body.level as usize)
    }

    /// Words of both halves of a chunk, kept until its factor comes.
    #[must_use]
    pub const fn held_words(&self) -> usize {
        if self.body.encrypted {
            2 * CHUNK_COEFFS
        } else {
            0
        }
    }

    /// Words of the evaluator's arena.
    #[must_use]
    pub const fn arena_words(&self) -> usize {
        self.parts() * self.part_words()
            + 2 * self.registers() * self.register_words()
            + self.work_words()
            + self.held_words()
    }

    /// Refuses an evaluator with so many bytes for its arena.
    ///
    /// # Errors
    /// [`CircuitError::Memory`].
    pub const fn check_memory(&self, available: usize) -> Result<(), CircuitError> {
        let needed = self.arena_words() * size_of::<u32>();
        if needed > available {
            return Err(CircuitError::Memory { needed, available });
        }
        Ok(())
    }

    /// Bytes that seeds and chunks of one sample take on the wire.
    #[must_use]
    pub fn payload(&self) -> Payload {
        let params = self.params;
        let limb = |i| {
            params
                .prime(i)
                .map_or(0, |p| packed_len(params.n(), p.modulus().bits()))
        };
        let mut payload = Payload {
            result: 2 * limb(0),
            ..Payload::default()
        };
        for task in &self.body.tasks {
            let level = usize::from(task.level);
            let half: usize = (0..=level).map(limb).sum();
            let streams = self.streams(task);
            if streams.input {
                payload.inputs += half + SEED_BYTES;
            }
            if streams.factor {
                payload.factors += half + SEED_BYTES;
            }
            if streams.key {
                payload.keys += (half + limb(params.special())) * (level + 1) + SEED_BYTES;
            }
        }
        payload
    }

    /// Number-theoretic transforms of one sample on the evaluator.
    #[must_use]
    pub fn transforms(&self) -> usize {
        let of = |task: &Task| {
            let limbs = usize::from(task.level) + 1;
            match task.op {
                Op::Product { .. } | Op::Bias if !self.body.encrypted => limbs,
                // The limb that goes away, and it in every other's domain.
                Op::Rescale => 2 * limbs,
                // Digits to the coefficient domain and to every other prime;
                // division: two accumulators, and two halves.
                op if op.switching().is_some() => limbs + limbs * limbs + 2 + 2 * limbs,
                _ => 0,
            }
        };
        self.body.tasks.iter().map(of).sum()
    }
}

/// A coefficient is at most the largest slot; less what rounding in single precision
/// may add.
fn check_single(layer: usize, value: f64, scale: f64) -> Result<(), CircuitError> {
    let limit = libm::exp2(f64::from(COEFF_LIMIT_LOG2)) * (1.0 - 1.0 / 65536.0);
    if value * scale < limit {
        return Ok(());
    }
    Err(CircuitError::Single {
        layer,
        value,
        scale_log2: libm::log2(scale),
    })
}

/// Writes tasks; counts those for which there is no room.
struct Writer {
    params: &'static Params,
    encrypted: bool,
    tasks: heapless::Vec<Task, MAX_TASKS>,
    written: usize,
    step: u8,
    level: usize,
    registers: u8,
    register_level: usize,
}

impl Writer {
    fn push(&mut self, op: Op) {
        self.written += 1;
        let _ = self.tasks.push(Task {
            op,
            step: self.step,
            level: self.level as u8,
        });
    }

    fn rotation(&self, steps: usize) -> u32 {
        automorphism::rotation(self.params.n(), steps as i32)
    }

    fn save(&mut self, register: u8) {
        self.registers = self.registers.max(register.saturating_add(1));
        self.register_level = self.register_level.max(self.level);
        self.push(Op::Save(register));
    }

    /// The sums of products, back in two parts.
    fn relinearize(&mut self) {
        if self.encrypted {
            self.push(Op::Relinearize);
        }
    }

    /// A layer with weights, without its rescaling: the order of the engine on a
    /// host (`host-runner/src/circuit/latency.rs`).
    fn linear(&mut self, form: Form, ciphertexts: usize) {
        let product = |operand, index: usize| Op::Product {
            operand,
            index: index as u16,
        };
        let first = self.step == 0;
        match form {
            Form::Blocks { .. } => {
                self.push(Op::Clear { sums: true });
                for index in 0..ciphertexts {
                    self.push(product(Operand::Input, index));
                }
                self.relinearize();
            }
            Form::Rows { .. } => {
                if first {
                    self.push(Op::Clear { sums: false });
                    self.push(Op::Receive);
                }
                self.push(product(Operand::Accumulator, 0));
                self.relinearize();
            }
            Form::Diagonals { baby, complex, .. } => {
                if first {
                    self.push(Op::Clear { sums: false });
                    self.push(Op::Receive);
                } else if complex {
                    let half = self.rotation(form.pair_distance());
                    self.save(0);
                    self.push(Op::Rotate(half));
                    self.push(Op::Pair(0));
                }
                self.save(0);
                for steps in 1..baby {
                    if steps > 1 {
                        self.push(Op::Load(0));
                    }
                    let g = self.rotation(steps);
                    self.push(Op::Rotate(g));
                    self.save(steps as u8);
                }
                self.push(Op::Clear { sums: true });
                let giant_step = self.rotation(baby);
                for (done, giant) in (0..form.giants()).rev().enumerate() {
                    if done > 0 {
                        self.push(Op::Rotate(giant_step));
                    }
                    for b in 0..baby {
                        self.push(product(Operand::Register(b as u8), giant * baby + b));
                    }
                    self.relinearize();
                }
            }
        }
        for fold in form.folds(self.params.slots()) {
            let g = self.rotation(fold);
            self.push(Op::RotateAdd(g));
        }
        if form.is_complex() {
            self.push(Op::RotateAdd(automorphism::conjugation(self.params.n())));
        }
        self.push(Op::Bias);
    }
}

/// What the client sends next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    /// The seed of input ciphertext `0`, `1`, ..
    InputSeed(usize),
    /// The seed of encrypted factor `0`, `1`, ..
    FactorSeed(usize),
    /// The seed of key use `0`, `1`, ..
    KeySeed(usize),
    /// A chunk.
    Chunk(Item, usize),
}

/// Walks through the upload of one sample; both sides hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The task that waits.
    task: usize,
    place: Place,
    /// Of a ciphertext, only the target counts.
    limb: KeyLimb,
    offset: usize,
    /// Inputs, factors and keys that are complete.
    inputs: usize,
    factors: usize,
    keys: usize,
}

/// Of the current task's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The seed of the input or key.
    Seed,
    FactorSeed,
    /// A chunk of the input or key.
    Chunk,
    FactorChunk,
}

impl Cursor {
    /// At the first message.
    #[must_use]
    pub fn start(program: &Program) -> Self {
        let mut cursor = Self {
            task: 0,
            place: Place::Seed,
            limb: KeyLimb::FIRST,
            offset: 0,
            inputs: 0,
            factors: 0,
            keys: 0,
        };
        cursor.settle(program);
        cursor
    }

    /// The task that waits for something; as many as there are at the end.
    #[must_use]
    pub const fn task(&self) -> usize {
        self.task
    }

    fn current(&self, program: &Program) -> Option<(Task, Streams)> {
        let task = program.body.tasks.get(self.task)?;
        Some((*task, program.streams(task)))
    }

    /// Goes on to the next task that waits for anything.
    fn settle(&mut self, program: &Program) {
        while let Some((_, streams)) = self.current(program) {
            if streams.any() {
                self.place = if streams.input || streams.key {
                    Place::Seed
                } else {
                    Place::FactorSeed
                };
                self.limb = KeyLimb::FIRST;
                self.offset = 0;
                return;
            }
            self.task += 1;
        }
    }

    /// What comes next, `None` at the end.
    #[must_use]
    pub fn upload(&self, program: &Program) -> Option<Upload> {
        let (_, streams) = self.current(program)?;
        let (limb, digit) = (self.limb.target as u8, self.limb.digit as u8);
        let item = match self.place {
            Place::Seed if streams.key => return Some(Upload::KeySeed(self.keys)),
            Place::Seed => return Some(Upload::InputSeed(self.inputs)),
            Place::FactorSeed => return Some(Upload::FactorSeed(self.factors)),
            Place::Chunk if streams.key => Item::Key {
                key: self.keys as u8,
                limb,
                digit,
            },
            Place::Chunk => Item::Input {
                ciphertext: self.inputs as u8,
                limb,
            },
            Place::FactorChunk => Item::Weight {
                factor: self.factors as u8,
                limb,
            },
        };
        Some(Upload::Chunk(item, self.offset))
    }

    /// Moves past it.
    pub fn advance(&mut self, program: &Program) {
        let Some((task, streams)) = self.current(program) else {
            return;
        };
        let chunk = if streams.input || streams.key {
            Place::Chunk
        } else {
            Place::FactorChunk
        };
        match self.place {
            Place::Seed if streams.factor => self.place = Place::FactorSeed,
            Place::Seed | Place::FactorSeed => self.place = chunk,
            // The factor's chunk of the same coefficients.
            Place::Chunk if streams.factor => self.place = Place::FactorChunk,
            Place::Chunk | Place::FactorChunk => {
                self.place = chunk;
                self.next_chunk(program, task, streams);
            }
        }
    }

    fn next_chunk(&mut self, program: &Program, task: Task, streams: Streams) {
        self.offset += CHUNK_COEFFS;
        if self.offset < program.params.n() {
            return;
        }
        self.offset = 0;
        let level = usize::from(task.level);
        let next = if streams.key {
            self.limb.next(program.params, level)
        } else if self.limb.target < level {
            Some(KeyLimb {
                target: self.limb.target + 1,
                ..self.limb
            })
        } else {
            None
        };
        if let Some(next) = next {
            self.limb = next;
            return;
        }
        self.inputs += usize::from(streams.input);
        self.factors += usize::from(streams.factor);
        self.keys += usize::from(streams.key);
        self.task += 1;
        self.settle(program);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Floats, Input, Kernel, Layer, Linear, Model, ModelParts, Padding, Shape};
    use he_core::params::{N4096_DEPTH3, N8192_DEPTH5};
    use std::vec::Vec;

    /// A convolution, and a dense layer behind a square, as often as `middle` says.
    fn with_program<T>(
        params: &'static Params,
        weights: Weights,
        middle: usize,
        (scale, bias): (f32, f32),
        take: impl FnOnce(Result<Program, CircuitError>) -> T,
    ) -> T {
        let square: Vec<u8> = [0.0f32, 0.0, 1.0]
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect();
        let bytes = std::vec![3u8; 36 * 16];
        let biases: Vec<u8> = [bias; 16].into_iter().flat_map(f32::to_le_bytes).collect();
        let linear = |weights: usize, biases_: usize, scale| Linear {
            scale,
            weights: &bytes[..weights],
            biases: Floats::new(&biases[..4 * biases_]),
        };
        let polynomial = Layer::Polynomial {
            coefficients: Floats::new(&square),
            range: 16.0,
        };
        let mut layers = std::vec![Layer::Conv2d {
            kernel: Kernel {
                out_channels: 4,
                height: 4,
                width: 4,
                stride: 4,
                padding: Padding::NONE,
            },
            linear: linear(64, 4, scale),
            range: 4.0,
        }];
        for index in 0..=middle {
            let inputs = if index == 0 { 36 } else { 16 };
            layers.push(polynomial);
            layers.push(Layer::Dense {
                outputs: 16,
                linear: linear(inputs * 16, 16, 0.01),
                range: 4.0,
            });
        }
        let parts = ModelParts {
            name: b"stream",
            input: Input::Image(Shape {
                channels: 1,
                height: 12,
                width: 12,
            }),
            layers: &layers,
        };
        let mut file = std::vec![0; parts.file_len().unwrap()];
        let model: Model<'_> = parts.write(&mut file).unwrap();
        let mut row = std::vec![0.0; Circuit::buffer_len(&model)];
        let mut scratch = row.clone();
        let circuit = Circuit::new(params, model, weights, &mut row, &mut scratch).unwrap();
        // Client and engine take the same keys.
        let program = Program::new(&circuit, &mut row, &mut scratch);
        if let Ok(program) = &program {
            let mut wanted = Vec::new();
            circuit.keys(|target, level| wanted.push((target, level)));
            let uses = program.key_uses();
            for (target, level) in
                uses.map(|task| (task.op.switching().unwrap().target(), task.level.into()))
            {
                assert!(wanted.contains(&(target, level)), "{target:?} at {level}");
            }
        }
        take(program)
    }

    #[test]
    fn the_cursor_covers_the_payload() {
        for (params, middle, weights) in [
            (&N4096_DEPTH3, 0, Weights::Plain),
            (&N4096_DEPTH3, 0, Weights::Encrypted),
            (&N8192_DEPTH5, 1, Weights::Plain),
            (&N8192_DEPTH5, 1, Weights::Encrypted),
        ] {
            let program = with_program(params, weights, middle, (0.01, 0.5), Result::unwrap);
            let mut cursor = Cursor::start(&program);
            let mut sent = Payload {
                result: program.payload().result,
                ..Payload::default()
            };
            let mut last_input = None;
            while let Some(upload) = cursor.upload(&program) {
                match upload {
                    Upload::InputSeed(_) => sent.inputs += SEED_BYTES,
                    Upload::FactorSeed(_) => sent.factors += SEED_BYTES,
                    Upload::KeySeed(_) => sent.keys += SEED_BYTES,
                    Upload::Chunk(item, offset) => {
                        let (Item::Input { limb, .. }
                        | Item::Weight { limb, .. }
                        | Item::Key { limb, .. }) = item;
                        let prime = params.prime(usize::from(limb)).unwrap();
                        let bytes = packed_len(CHUNK_COEFFS, prime.modulus().bits());
                        match item {
                            Item::Input { .. } => {
                                sent.inputs += bytes;
                                last_input = Some((limb, offset));
                            }
                            Item::Weight { .. } => {
                                sent.factors += bytes;
                                // A chunk of an input is followed by its factor's.
                                if let Some(of) = last_input.take() {
                                    assert_eq!(of, (limb, offset));
                                }
                            }
                            Item::Key { .. } => sent.keys += bytes,
                        }
                    }
                }
                cursor.advance(&program);
            }
            assert_eq!(sent, program.payload());
            assert_eq!(cursor.task(), program.tasks().len());
            assert_eq!(sent.factors > 0, weights == Weights::Encrypted);
        }
    }

    #[test]
    fn a_program_is_read_as_it_was_written_and_under_its_set_alone() {
        let program = with_program(
            &N4096_DEPTH3,
            Weights::Encrypted,
            0,
            (0.01, 0.5),
            Result::unwrap,
        );
        let mut room = [0; 4096];
        let bytes = program.write(&mut room).unwrap();
        let read = Program::parse(&N4096_DEPTH3, bytes).unwrap();
        assert_eq!(read.tasks(), program.tasks());
        assert_eq!(read.fingerprint(), program.fingerprint());
        assert_eq!(read.arena_words(), program.arena_words());
        assert!(Program::parse(&N8192_DEPTH5, bytes).is_none());
        assert!(Program::parse(&N4096_DEPTH3, &bytes[..bytes.len() - 1]).is_none());
        assert!(program.write(&mut [0; 8]).is_none());
    }

    #[test]
    fn programs_that_differ_in_weights_or_scales_are_told_apart() {
        let of = |weights, scale| {
            with_program(&N4096_DEPTH3, weights, 0, (scale, 0.5), |program| {
                let program = program.unwrap();
                (program.fingerprint(), program.model_crc())
            })
        };
        assert_eq!(of(Weights::Plain, 0.01), of(Weights::Plain, 0.01));
        assert_ne!(of(Weights::Plain, 0.01), of(Weights::Plain, 0.02));
        assert_ne!(of(Weights::Plain, 0.01), of(Weights::Encrypted, 0.01));
        // An evaluator without weights cannot tell them.
        assert_eq!(of(Weights::Encrypted, 0.01), of(Weights::Encrypted, 0.02));
    }

    #[test]
    fn biases_beyond_the_encoder_are_refused() {
        let error = with_program(
            &N4096_DEPTH3,
            Weights::Plain,
            0,
            (0.01, 1e6),
            Result::unwrap_err,
        );
        assert!(
            matches!(error, CircuitError::Single { layer: 0, .. }),
            "{error}"
        );
    }
}
