//! A plan as an evaluator holds it: the tasks of [`crate::plan`] as bytes.
//!
//! Inputs, switching keys and encrypted factors come as a stream and are used up as
//! they arrive. Where weights are encrypted, a chunk of an input and a chunk of the
//! factor that belongs to it take turns, both halves of each expanded or unpacked
//! there, and their product is added to three parts, which are relinearised once.
//!
//! A program has no weights. Whoever plans writes it ([`write()`]), and an
//! evaluator reads it ([`Program::parse`]): with weights in plain it holds the model
//! beside it, with encrypted ones nothing else. As a [`crate::model::Model`] it is a
//! view of its bytes, which on a board are in flash, so that its length costs no RAM.
//!
//! | bytes | hold |
//! |---|---|
//! | head | postcard: parameter set, names, sizes, and what each step is |
//! | 8 per task | kind, step, level, register, and a Galois element or an index |
//! | 8 per number | coefficients of activation polynomials, `f64` |
//! | 4 | CRC-32 of all before: the fingerprint by which two sides agree on a plan |
//!
//! The model's checksum is in the program only where the evaluator has the model anyway:
//! whoever holds encrypted weights could test a guess of them by it. Client and evaluator
//! compare the program's fingerprint instead.

use crate::model::{CRC_BYTES, MAX_DEGREE, MAX_NAME_BYTES};
use crate::plan::{Form, MAX_STEPS, Op, Operand, Plan, PlanError, Step, Streams, Task, WeightMode};
use he_core::ckks::evaluator::workspace_words;
use he_core::params::Params;
use he_core::rlwe::SwitchTarget;
use serde::{Deserialize, Serialize};

use crate::kept::{KeyShape, KeyStore, RecordSize};
use crate::message::CHUNK_COEFFS;

/// Bytes of a task.
const TASK_BYTES: usize = 8;

/// Bytes of a number.
const NUMBER_BYTES: usize = 8;

/// Most bytes of a head: a step takes less than 64.
const HEAD_BYTES: usize = 64 * (MAX_STEPS + 2);

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// A layer with weights, as an evaluator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearStep {
    /// The layer's index in the network; of several as one, the first.
    pub layer: u8,
    /// How many layers it is.
    pub layers: u8,
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

/// An activation polynomial, as an evaluator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolynomialStep {
    /// The first of its coefficients among the program's numbers.
    first: u16,
    /// How many there are.
    count: u16,
    /// Scale of its results.
    pub output: f64,
}

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum StepHead {
    Linear(LinearStep),
    Square,
    Polynomial(PolynomialStep),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Head {
    params: u32,
    name: heapless::String<MAX_NAME_BYTES>,
    /// CRC-32 of the model where weights are plain, 0 where they are encrypted: an
    /// evaluator that holds no weights can test no guess of them.
    model: u32,
    encrypted: bool,
    /// Weights are formed and encoded in single precision.
    single: bool,
    level: u8,
    input_scale: f64,
    output_level: u8,
    output_scale: f64,
    registers: u8,
    register_level: u8,
    polynomial_words: u32,
    tasks: u16,
    numbers: u16,
    steps: heapless::Vec<StepHead, MAX_STEPS>,
}

/// Words that no polynomial works in, a gibibyte: the other parts of an arena have no more
/// than 2^29.1 words, whatever their bytes say, so that with these a size fits 32 bits.
const MAX_POLYNOMIAL_WORDS: u32 = 1 << 28;

/// The program of a plan, in bytes that somebody holds.
#[derive(Clone, Debug)]
pub struct Program<B> {
    params: &'static Params,
    head: Head,
    /// Where the tasks begin.
    start: usize,
    fingerprint: u32,
    bytes: B,
}

/// Bytes that hold the program of any plan with so many tasks and numbers.
const fn room(tasks: usize, numbers: usize) -> usize {
    HEAD_BYTES + tasks * TASK_BYTES + numbers * NUMBER_BYTES + CRC_BYTES
}

/// Bytes that [`write()`] needs for a plan at most.
#[must_use]
pub fn max_len(plan: &Plan<'_>) -> usize {
    let mut tasks = 0;
    plan.tasks(|_| tasks += 1);
    room(tasks, numbers(plan).count())
}

/// Coefficients of all activation polynomials.
fn numbers<'p>(plan: &'p Plan<'_>) -> impl Iterator<Item = f64> + 'p {
    let of = |step: &'p Step<'_>| match step {
        Step::Polynomial { coefficients, .. } => coefficients.as_slice(),
        Step::Linear { .. } | Step::Square { .. } => &[],
    };
    plan.steps().iter().flat_map(of).copied()
}

/// Writes the program of a plan; how many bytes of `out` it takes.
///
/// # Errors
/// [`PlanError::Buffer`] where `out` is shorter than [`max_len`], [`PlanError::Many`]
/// where there are more tasks than a program counts.
pub fn write(plan: &Plan<'_>, out: &mut [u8]) -> Result<usize, PlanError> {
    let (needed, got) = (max_len(plan), out.len());
    let short = PlanError::Buffer { needed, got };
    let mut count = 0;
    plan.tasks(|_| count += 1);
    let tasks = u16::try_from(count).map_err(|_| PlanError::Many {
        what: "operations",
        got: count,
        max: u16::MAX.into(),
    })?;
    let head = head(plan, tasks);
    let start = postcard::to_slice(&head, out).map_err(|_| short)?.len();
    let mut rest = out.get_mut(start..).ok_or(short)?;
    let mut written = start;
    let mut push = |bytes: [u8; TASK_BYTES]| {
        if let Some((to, left)) = core::mem::take(&mut rest).split_first_chunk_mut() {
            *to = bytes;
            rest = left;
            written += bytes.len();
        }
    };
    plan.tasks(|task| push(encode(task)));
    numbers(plan).for_each(|number| push(number.to_le_bytes()));
    if written != start + count * TASK_BYTES + usize::from(head.numbers) * NUMBER_BYTES {
        return Err(short);
    }
    let crc = CRC.checksum(out.get(..written).ok_or(short)?);
    let end = out.get_mut(written..written + CRC_BYTES).ok_or(short)?;
    end.copy_from_slice(&crc.to_le_bytes());
    Ok(written + CRC_BYTES)
}

fn head(plan: &Plan<'_>, tasks: u16) -> Head {
    let encrypted = plan.weights() == WeightMode::Encrypted;
    let mut first = 0;
    let steps = plan.steps().iter().map(|step| match step {
        Step::Linear {
            map, form, scales, ..
        } => {
            let (layer, last) = map.layers();
            StepHead::Linear(LinearStep {
                layer: layer as u8,
                layers: (last - layer + 1) as u8,
                form: *form,
                input: scales.input,
                weights: scales.weights,
            })
        }
        Step::Square { .. } => StepHead::Square,
        Step::Polynomial {
            coefficients,
            output,
            ..
        } => {
            let count = coefficients.len() as u16;
            first += count;
            StepHead::Polynomial(PolynomialStep {
                first: first - count,
                count,
                output: *output,
            })
        }
    });
    let steps = steps.collect();
    let (registers, register_level) = plan.registers();
    Head {
        params: plan.params().fingerprint(),
        // A model's name is no longer.
        name: heapless::String::try_from(plan.model().name()).unwrap_or_default(),
        model: if encrypted { 0 } else { plan.model().crc() },
        encrypted,
        single: plan.target().is_stream(),
        level: plan.input_level() as u8,
        input_scale: plan.input_scale(),
        output_level: plan.output_level() as u8,
        output_scale: plan.output_scale(),
        registers: registers as u8,
        register_level: register_level as u8,
        polynomial_words: plan.polynomial_words() as u32,
        tasks,
        numbers: numbers(plan).count() as u16,
        steps,
    }
}

/// A task as bytes: kind, step, level, register, number.
fn encode(task: Task) -> [u8; TASK_BYTES] {
    let (kind, register, number): (u8, u8, u32) = match task.op {
        Op::Clear { sums } => (0, sums.into(), 0),
        Op::Receive => (1, 0, 0),
        Op::Product { operand, index } => {
            let (kind, register) = match operand {
                Operand::Input => (2, 0),
                Operand::Accumulator => (3, 0),
                Operand::Register(register) => (4, register),
            };
            (kind, register, index.into())
        }
        Op::Bias => (5, 0, 0),
        Op::Rotate(g) => (6, 0, g),
        Op::RotateAdd(g) => (7, 0, g),
        Op::Square => (8, 0, 0),
        Op::Relinearize => (9, 0, 0),
        Op::Rescale => (10, 0, 0),
        Op::Save(register) => (11, register, 0),
        Op::Load(register) => (12, register, 0),
        Op::Pair(register) => (13, register, 0),
        Op::Polynomial => (14, 0, 0),
        Op::Mask => (15, 0, 0),
    };
    let [a, b, c, d] = number.to_le_bytes();
    [kind, task.step, task.level, register, a, b, c, d]
}

/// What [`encode`] wrote; `None` for a kind that there is not.
fn decode(bytes: [u8; TASK_BYTES]) -> Option<Task> {
    let [kind, step, level, register, a, b, c, d] = bytes;
    let number = u32::from_le_bytes([a, b, c, d]);
    let product = |operand| Op::Product {
        operand,
        index: number as u16,
    };
    let op = match kind {
        0 => Op::Clear {
            sums: register != 0,
        },
        1 => Op::Receive,
        2 => product(Operand::Input),
        3 => product(Operand::Accumulator),
        4 => product(Operand::Register(register)),
        5 => Op::Bias,
        6 => Op::Rotate(number),
        7 => Op::RotateAdd(number),
        8 => Op::Square,
        9 => Op::Relinearize,
        10 => Op::Rescale,
        11 => Op::Save(register),
        12 => Op::Load(register),
        13 => Op::Pair(register),
        14 => Op::Polynomial,
        15 => Op::Mask,
        _ => return None,
    };
    Some(Task { op, step, level })
}

impl<B: AsRef<[u8]>> Program<B> {
    /// Reads what [`write()`] wrote under the same set. `None` for anything else.
    #[must_use]
    pub fn parse(params: &'static Params, bytes: B) -> Option<Self> {
        let all = bytes.as_ref();
        let (body, crc) = all.split_last_chunk::<CRC_BYTES>()?;
        let fingerprint = u32::from_le_bytes(*crc);
        if CRC.checksum(body) != fingerprint {
            return None;
        }
        let (head, rest) = postcard::take_from_bytes::<Head>(body).ok()?;
        let expected =
            usize::from(head.tasks) * TASK_BYTES + usize::from(head.numbers) * NUMBER_BYTES;
        let sound = rest.len() == expected
            && head.params == params.fingerprint()
            && usize::from(head.level) <= params.max_level()
            && head.register_level <= head.level
            && head.output_level <= head.level
            && head.polynomial_words <= MAX_POLYNOMIAL_WORDS;
        let start = body.len() - rest.len();
        let program = Self {
            params,
            head,
            start,
            fingerprint,
            bytes,
        };
        (sound && program.is_sound()).then_some(program)
    }

    /// Whether every step and every task is of this set and these registers.
    fn is_sound(&self) -> bool {
        let head = &self.head;
        let of_step = |step: &StepHead| match step {
            StepHead::Linear(linear) => linear.form.fits(self.params.slots()),
            StepHead::Polynomial(p) => {
                usize::from(p.count) <= MAX_DEGREE + 1
                    && usize::from(p.first) + usize::from(p.count) <= usize::from(head.numbers)
            }
            StepHead::Square => true,
        };
        let of_task = |task: Option<Task>| {
            task.is_some_and(|task| {
                let register = match task.op {
                    Op::Save(register)
                    | Op::Load(register)
                    | Op::Pair(register)
                    | Op::Product {
                        operand: Operand::Register(register),
                        ..
                    } => Some(register),
                    _ => None,
                };
                usize::from(task.step) < head.steps.len()
                    && task.level <= head.level
                    && register.is_none_or(|register| register < head.registers)
            })
        };
        // Nothing follows a mask.
        let before = 0..self.len().saturating_sub(1);
        let is_mask = |task: Task| task.op == Op::Mask;
        head.steps.iter().all(of_step)
            && (0..self.len()).all(|index| of_task(self.task(index)))
            && !before.filter_map(|index| self.task(index)).any(is_mask)
    }

    /// Parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.head.name
    }

    /// CRC-32 of the model; where weights are encrypted, the fingerprint.
    #[must_use]
    pub const fn model_crc(&self) -> u32 {
        if self.head.encrypted {
            self.fingerprint
        } else {
            self.head.model
        }
    }

    /// A number that both sides compare before they begin.
    #[must_use]
    pub const fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Whether weights are encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.head.encrypted
    }

    /// Whether weights are formed and encoded in single precision, as a board does.
    #[must_use]
    pub const fn is_single(&self) -> bool {
        self.head.single
    }

    /// Level of the inputs.
    #[must_use]
    pub const fn input_level(&self) -> usize {
        self.head.level as usize
    }

    /// Scale of the inputs.
    #[must_use]
    pub const fn input_scale(&self) -> f64 {
        self.head.input_scale
    }

    /// Level of the result.
    #[must_use]
    pub const fn output_level(&self) -> usize {
        self.head.output_level as usize
    }

    /// Scale of the result.
    #[must_use]
    pub const fn output_scale(&self) -> f64 {
        self.head.output_scale
    }

    /// Number of steps.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.head.steps.len()
    }

    /// Number of tasks.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.head.tasks as usize
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head.tasks == 0
    }

    /// A task; `None` beyond the last.
    #[must_use]
    pub fn task(&self, index: usize) -> Option<Task> {
        if index >= self.len() {
            return None;
        }
        let tasks = self.bytes().get(self.start..)?;
        decode(*tasks.as_chunks().0.get(index)?)
    }

    /// What is done, in order.
    pub fn tasks(&self) -> impl Iterator<Item = Task> + '_ {
        (0..self.len()).map_while(|index| self.task(index))
    }

    /// The layer of a step; `None` for an activation.
    #[must_use]
    pub fn linear(&self, step: u8) -> Option<LinearStep> {
        match self.head.steps.get(usize::from(step))? {
            StepHead::Linear(linear) => Some(*linear),
            StepHead::Square | StepHead::Polynomial(_) => None,
        }
    }

    /// The polynomial of a step; `None` for any other.
    #[must_use]
    pub fn polynomial(&self, step: u8) -> Option<PolynomialStep> {
        match self.head.steps.get(usize::from(step))? {
            StepHead::Polynomial(polynomial) => Some(*polynomial),
            StepHead::Linear(_) | StepHead::Square => None,
        }
    }

    /// The coefficients of a polynomial, from the constant up.
    pub fn coefficients(&self, polynomial: PolynomialStep) -> impl Iterator<Item = f64> + '_ {
        let start = self.start + self.len() * TASK_BYTES;
        let numbers = self.bytes().get(start..).unwrap_or_default();
        let numbers = numbers.as_chunks().0.iter();
        let skipped = numbers.skip(usize::from(polynomial.first));
        let taken = skipped.take(usize::from(polynomial.count));
        taken.map(|bytes| f64::from_le_bytes(*bytes))
    }

    /// Whether any activation is a polynomial that is no square.
    #[must_use]
    pub fn has_polynomials(&self) -> bool {
        let mut steps = self.head.steps.iter();
        steps.any(|step| matches!(step, StepHead::Polynomial(_)))
    }

    /// Whether several layers follow each other without an activation.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        let mut steps = self.head.steps.iter();
        steps.any(|step| matches!(step, StepHead::Linear(linear) if linear.layers > 1))
    }

    pub(crate) const fn streams(&self, op: Op) -> Streams {
        Streams::of(op, self.head.encrypted)
    }

    /// The tasks that take an encrypted factor, in the order of the stream.
    pub fn factors(&self) -> impl Iterator<Item = Task> + '_ {
        self.tasks().filter(|task| self.streams(task.op).factor)
    }

    /// The tasks that take a plaintext of weights or biases, in order; none where weights
    /// are encrypted.
    pub fn plaintexts(&self) -> impl Iterator<Item = Task> + '_ {
        let tasks = self.tasks().filter(|_| !self.is_encrypted());
        tasks.filter(|task| matches!(task.op, Op::Product { .. } | Op::Bias))
    }

    /// Limbs of the plaintexts before that of a task; `None` if it takes none.
    #[must_use]
    pub fn plaintext_limbs_before(&self, of: Task) -> Option<usize> {
        let mut before = 0;
        for task in self.plaintexts() {
            if task == of {
                return Some(before);
            }
            before += usize::from(task.level) + 1;
        }
        None
    }

    /// The tasks that take a switching key, in the order of the stream.
    pub fn key_uses(&self) -> impl Iterator<Item = Task> + '_ {
        self.tasks().filter(|task| task.op.key().is_some())
    }

    /// Of the key for a target, the use whose level is the highest, the first of these: its
    /// index and level. That key serves every other use.
    #[must_use]
    pub fn widest_use(&self, target: SwitchTarget) -> Option<(usize, usize)> {
        let uses = self.key_uses().enumerate();
        let uses = uses.filter(|(_, task)| task.op.key() == Some(target));
        let widest = uses.reduce(|widest, next| match next.1.level > widest.1.level {
            true => next,
            false => widest,
        });
        widest.map(|(index, task)| (index, task.level.into()))
    }

    /// What keeping all keys takes, in the order of their first uses, without their uniform
    /// halves or with them.
    pub fn kept_keys(&self, expanded: bool) -> impl Iterator<Item = RecordSize> + '_ {
        self.key_uses()
            .enumerate()
            .filter_map(move |(index, task)| {
                let (widest, level) = self.widest_use(task.op.key()?)?;
                (widest == index).then(|| KeyShape::new(self.params, level, expanded).size())
            })
    }

    /// Whether a store keeps uniform halves too: where it takes them and has room for all. The
    /// key of a polynomial stays in the arena, which has none.
    #[must_use]
    pub fn keeps_uniforms(&self, store: &impl KeyStore) -> bool {
        !self.has_polynomials() && store.takes_uniforms() && store.has_room(self.kept_keys(true))
    }

    /// Input ciphertexts.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.tasks()
            .filter(|task| self.streams(task.op).input)
            .count()
    }

    /// Registers.
    #[must_use]
    pub const fn registers(&self) -> usize {
        self.head.registers as usize
    }

    /// Words of one part of the accumulator.
    #[must_use]
    pub const fn part_words(&self) -> usize {
        (self.head.level as usize + 1) * self.params.n()
    }

    /// Parts of the accumulator: three where products of ciphertexts are added up.
    #[must_use]
    pub const fn parts(&self) -> usize {
        if self.head.encrypted { 3 } else { 2 }
    }

    /// Words of one half of a register.
    #[must_use]
    pub const fn register_words(&self) -> usize {
        (self.head.register_level as usize + 1) * self.params.n()
    }

    /// Words of a key switch's workspace, scratch of everything else.
    #[must_use]
    pub const fn work_words(&self) -> usize {
        workspace_words(self.params, self.head.level as usize)
    }

    /// Words of both halves of a chunk, kept until its factor comes.
    #[must_use]
    pub const fn held_words(&self) -> usize {
        if self.head.encrypted {
            2 * CHUNK_COEFFS
        } else {
            0
        }
    }

    /// Words of a polynomial's key and powers.
    #[must_use]
    pub const fn polynomial_words(&self) -> usize {
        self.head.polynomial_words as usize
    }

    /// Words of the evaluator's arena: as [`Plan::arena_words`].
    #[must_use]
    pub const fn arena_words(&self) -> usize {
        self.parts() * self.part_words()
            + 2 * self.registers() * self.register_words()
            + self.work_words()
            + self.held_words()
            + self.polynomial_words()
    }

    /// The step that an item of the upload belongs to; `None` for one that there is
    /// not.
    #[must_use]
    pub fn step_of(&self, item: crate::message::Item) -> Option<u8> {
        use crate::message::Item;
        let task = match item {
            Item::Input { ciphertext, .. } => {
                let mut inputs = self.tasks().filter(|task| self.streams(task.op).input);
                inputs.nth(usize::from(ciphertext))
            }
            Item::Weight { factor, .. } => self.factors().nth(usize::from(factor)),
            Item::Key { key, .. } => self.key_uses().nth(usize::from(key)),
        };
        task.map(|task| task.step)
    }
}

#[cfg(feature = "std")]
impl Program<Vec<u8>> {
    /// The program of a plan, in memory of its own.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn of(plan: &Plan<'_>) -> Result<Self, PlanError> {
        let mut bytes = vec![0; max_len(plan)];
        let (got, needed) = (bytes.len(), bytes.len());
        let length = write(plan, &mut bytes)?;
        bytes.truncate(length);
        // What was just written is read again.
        Self::parse(plan.params(), bytes).ok_or(PlanError::Buffer { needed, got })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Item, SEED_BYTES};
    use crate::model::{
        Floats, Input, Integers, Kernel, Layer, Linear, Model, ModelParts, Padding, Shape,
    };
    use crate::plan::{Payload, Sums, Target, Terms};
    use crate::schedule::{Cursor, Upload};
    use he_core::params::{N4096_DEPTH3, N8192_DEPTH5};
    use he_core::wire::packed_len;
    use std::vec::Vec;

    const fn added_by_evaluator(weights: WeightMode) -> Terms {
        let sums = Sums::Evaluator;
        Terms {
            weights,
            sums,
            inputs: None,
        }
    }

    /// A convolution, and a dense layer behind a square, as often as `middle` says.
    fn with_program<T>(
        params: &'static Params,
        terms: impl Into<Terms>,
        middle: usize,
        (scale, bias): (f32, f32),
        take: impl FnOnce(Result<(Plan<'_>, Program<Vec<u8>>), PlanError>) -> T,
    ) -> T {
        let square: Vec<u8> = [0.0f32, 0.0, 1.0]
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect();
        let bytes = std::vec![3u8; 36 * 16];
        let biases: Vec<u8> = [bias; 16].into_iter().flat_map(f32::to_le_bytes).collect();
        let linear = |weights: usize, biases_: usize, scale| Linear {
            scale,
            multipliers: &[],
            weights: Integers::Bytes(&bytes[..weights]),
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
        let mut row = std::vec![0.0; Plan::buffer_len(&model)];
        let mut scratch = row.clone();
        let plan = Plan::new(params, model, terms, Target::STREAM, &mut row, &mut scratch);
        take(plan.map(|plan| {
            let mut bytes = std::vec![0; max_len(&plan)];
            let length = write(&plan, &mut bytes).unwrap();
            bytes.truncate(length);
            let program = Program::parse(params, bytes).unwrap();
            (plan, program)
        }))
    }

    #[test]
    fn a_program_has_the_tasks_of_its_plan() {
        for weights in [WeightMode::Plain, WeightMode::Encrypted] {
            with_program(&N8192_DEPTH5, weights, 1, (0.01, 0.5), |planned| {
                let (plan, program) = planned.unwrap();
                let mut tasks = Vec::new();
                plan.tasks(|task| tasks.push(task));
                assert_eq!(program.tasks().collect::<Vec<_>>(), tasks);
                let mut wanted = Vec::new();
                plan.keys(|target, level| wanted.push((target, level)));
                let uses = program.key_uses();
                let uses = uses.map(|task| (task.op.key().unwrap(), task.level.into()));
                assert_eq!(uses.collect::<Vec<_>>(), wanted);
                assert_eq!(program.arena_words(), plan.arena_words());
                assert_eq!(program.inputs(), plan.ciphertexts() + 1);
            });
        }
    }

    #[test]
    fn the_cursor_covers_the_payload() {
        for (params, middle, weights) in [
            (&N4096_DEPTH3, 0, WeightMode::Plain),
            (&N4096_DEPTH3, 0, WeightMode::Encrypted),
            (&N8192_DEPTH5, 1, WeightMode::Plain),
            (&N8192_DEPTH5, 1, WeightMode::Encrypted),
        ] {
            with_program(params, weights, middle, (0.01, 0.5), |planned| {
                let (plan, program) = planned.unwrap();
                let mut cursor = Cursor::start(&program);
                let mut sent = Payload {
                    result: plan.payload().result,
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
                assert_eq!(sent, plan.payload());
                assert_eq!(cursor.task(), program.len());
                assert_eq!(sent.factors > 0, weights == WeightMode::Encrypted);
            });
        }
    }

    #[test]
    fn a_program_is_read_as_it_was_written_and_under_its_set_alone() {
        let of = |planned: Result<(Plan<'_>, Program<Vec<u8>>), PlanError>| planned.unwrap().1;
        let program = with_program(&N4096_DEPTH3, WeightMode::Encrypted, 0, (0.01, 0.5), of);
        let bytes = program.bytes();
        let read = Program::parse(&N4096_DEPTH3, bytes).unwrap();
        assert!(read.tasks().eq(program.tasks()));
        assert_eq!(read.fingerprint(), program.fingerprint());
        assert!(Program::parse(&N8192_DEPTH5, bytes).is_none());
        // Whatever byte is lost or changed.
        assert!(Program::parse(&N4096_DEPTH3, &bytes[..bytes.len() - 1]).is_none());
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert!(Program::parse(&N4096_DEPTH3, changed).is_none(), "{at}");
        }
        // With a checksum that is right, a task of no kind, step, level or register.
        for (at, value) in [(0, 16), (1, 3), (2, 4), (3, 1)] {
            let mut changed = bytes.to_vec();
            let save = encode(Task {
                op: Op::Save(0),
                step: 0,
                level: 0,
            });
            changed[program.start..program.start + TASK_BYTES].copy_from_slice(&save);
            changed[program.start + at] = value;
            let end = changed.len() - CRC_BYTES;
            let crc = CRC.checksum(&changed[..end]);
            changed[end..].copy_from_slice(&crc.to_le_bytes());
            assert!(Program::parse(&N4096_DEPTH3, changed).is_none(), "{at}");
        }
    }

    #[test]
    fn a_polynomial_of_a_higher_degree_than_a_model_has_is_refused() {
        let of = |planned: Result<(Plan<'_>, Program<Vec<u8>>), PlanError>| planned.unwrap().1;
        let program = with_program(&N4096_DEPTH3, WeightMode::Plain, 0, (0.01, 0.5), of);
        let end = program.start + program.len() * TASK_BYTES;
        let with_coefficients = |count: u16| {
            let mut head = program.head.clone();
            head.numbers = count;
            head.steps[1] = StepHead::Polynomial(PolynomialStep {
                first: 0,
                count,
                output: 1.0,
            });
            let mut bytes = postcard::to_stdvec(&head).unwrap();
            bytes.extend(&program.bytes()[program.start..end]);
            bytes.resize(bytes.len() + usize::from(count) * NUMBER_BYTES, 0);
            let crc = CRC.checksum(&bytes);
            bytes.extend(crc.to_le_bytes());
            Program::parse(&N4096_DEPTH3, bytes)
        };
        let most = MAX_DEGREE as u16 + 1;
        assert!(with_coefficients(most).is_some());
        assert!(with_coefficients(most + 1).is_none());
    }

    /// A device multiplies in 32 bits, and a file may say anything.
    #[test]
    fn no_arena_is_larger_than_32_bits_count() {
        use he_core::params::SETS;

        let of = |planned: Result<(Plan<'_>, Program<Vec<u8>>), PlanError>| planned.unwrap().1;
        let program = with_program(&N4096_DEPTH3, WeightMode::Encrypted, 0, (0.01, 0.5), of);
        let with_words = |words: u32| {
            let mut head = program.head.clone();
            head.polynomial_words = words;
            let mut bytes = postcard::to_stdvec(&head).unwrap();
            let rest = &program.bytes()[program.start..];
            bytes.extend(&rest[..rest.len() - CRC_BYTES]);
            let crc = CRC.checksum(&bytes);
            bytes.extend(crc.to_le_bytes());
            Program::parse(&N4096_DEPTH3, bytes)
        };
        assert!(with_words(MAX_POLYNOMIAL_WORDS).is_some());
        assert!(with_words(MAX_POLYNOMIAL_WORDS + 1).is_none());
        assert!(with_words(u32::MAX).is_none());
        // The largest of every other field.
        for params in SETS {
            let limbs = (params.max_level() as u64 + 1) * params.n() as u64;
            let work = workspace_words(params, params.max_level()) as u64;
            let words = 3 * limbs
                + 2 * u64::from(u8::MAX) * limbs
                + work
                + 2 * CHUNK_COEFFS as u64
                + u64::from(MAX_POLYNOMIAL_WORDS);
            assert!(
                words * size_of::<u32>() as u64 <= u64::from(u32::MAX),
                "{}",
                params.name()
            );
        }
    }

    #[test]
    fn programs_that_differ_in_weights_or_scales_are_told_apart() {
        // Scales are chosen by the sizes of weights: here by the same for all.
        let of = |weights, scale| {
            let terms = added_by_evaluator(weights);
            with_program(&N4096_DEPTH3, terms, 0, (scale, 0.5), |program| {
                let (_, program) = program.unwrap();
                (program.fingerprint(), program.model_crc())
            })
        };
        assert_eq!(of(WeightMode::Plain, 0.01), of(WeightMode::Plain, 0.01));
        assert_ne!(of(WeightMode::Plain, 0.01), of(WeightMode::Plain, 0.02));
        assert_ne!(of(WeightMode::Plain, 0.01), of(WeightMode::Encrypted, 0.01));
        // An evaluator without weights cannot tell them.
        assert_eq!(
            of(WeightMode::Encrypted, 0.01),
            of(WeightMode::Encrypted, 0.02)
        );
    }

    #[test]
    fn biases_beyond_the_encoder_are_refused() {
        // Of lanes a bias of that size would be refused first.
        let error = with_program(
            &N4096_DEPTH3,
            added_by_evaluator(WeightMode::Plain),
            0,
            (0.01, 1e6),
            |planned| planned.map(|_| ()).unwrap_err(),
        );
        assert!(
            matches!(error, PlanError::Single { layer: 0, .. }),
            "{error}"
        );
    }
}
