//! One sample in the slots of a ciphertext: a program carried out in memory.
//!
//! The tasks are those that a board carries out one by one. A host takes several at
//! once where that is faster: all products of a layer are one pass over the
//! ciphertexts, and the rotations of baby steps are hoisted.

use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use he_core::Params;
use he_core::ckks::encode::encode_complex;
use he_core::ckks::evaluator::{
    SwitchOp, Workspace, add, add_plain, fast_workspace_words, hoisting_words, multiply_add,
    multiply_constant, plaintext_matrix, polynomial_words, relinearize, rescale, rotate_many,
    square, switch,
};
use he_core::ckks::{Ciphertext, Constant, Plaintext};
use he_core::ring::automorphism;
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{KeySet, SwitchKey, SwitchTarget};
use he_core::wire;
use he_nn::model::Model;
use he_nn::plan::{BIAS_SHIFT, LinearMap, Op, Operand, Precision, Task};
use he_nn::program::{LinearStep, Program};
use he_nn::session::WeightSource;

use super::{
    EngineError, Times, ciphertext_bytes, failed, objects, polynomial, read_fresh, read_keys,
    refused,
};

type Ct = Ciphertext<Vec<u32>>;
type Ct3 = Ciphertext<Vec<u32>, 3>;

/// Keys of a program, each once, for the highest level it is used at.
#[must_use]
pub fn wanted_keys<B: AsRef<[u8]>>(program: &Program<B>) -> Vec<(SwitchTarget, usize)> {
    let mut wanted: Vec<(SwitchTarget, usize)> = Vec::new();
    // From high levels to low ones: the first use decides.
    for task in program.key_uses() {
        if let Some(target) = task.op.key()
            && !wanted.iter().any(|&(known, _)| known == target)
        {
            wanted.push((target, task.level.into()));
        }
    }
    wanted
}

/// Bytes of an engine's memory while it evaluates: keys, expanded, weights, and the
/// ciphertexts of the layer that has most.
#[must_use]
pub fn memory<B: AsRef<[u8]>>(program: &Program<B>) -> usize {
    let params = program.params();
    let words_of = |&(_, level): &(SwitchTarget, usize)| 2 * switching_key_words(params, level);
    let keys: usize = wanted_keys(program).iter().map(words_of).sum();
    let parts = if program.is_encrypted() { 2 } else { 1 };
    let (mut factors, mut most) = (0, 0);
    // Of a step: operands of products, sums of them, and what a polynomial works in.
    let mut of_step = (0, 0, 0, 0);
    for task in program.tasks() {
        let limbs = (usize::from(task.level) + 1) * params.n();
        if of_step.0 != task.step {
            of_step = (task.step, 0, 0, 0);
        }
        match task.op {
            Op::Product { operand, .. } => {
                factors += parts * limbs;
                of_step.1 += usize::from(operand == Operand::Input);
                of_step.2 = of_step.2.max(1);
            }
            Op::Bias => factors += parts * limbs,
            Op::Save(_) => of_step.1 += 1,
            Op::Rotate(_) if of_step.2 > 0 => of_step.2 += 1,
            Op::Polynomial => {
                let step = program.polynomial(task.step);
                let degree = step.map_or(0, |step| program.coefficients(step).count());
                let level = usize::from(task.level);
                of_step.3 = polynomial_words(params, level, degree.saturating_sub(1));
            }
            _ => {}
        }
        let (_, operands, sums, others) = of_step;
        // One sum and another of three parts where each is relinearised.
        let sums = if program.is_encrypted() { 5 } else { 2 * sums };
        most = most.max((2 * operands.max(1) + sums) * limbs + others);
    }
    let level = program.input_level();
    let scratch = fast_workspace_words(params, level) + hoisting_words(params, level);
    size_of::<u32>() * (keys + factors + scratch + most)
}

/// Factors of a layer, encoded or encrypted.
#[derive(Debug)]
enum Factors {
    Plain {
        weights: Vec<Plaintext<Vec<u32>>>,
        bias: Plaintext<Vec<u32>>,
    },
    Encrypted {
        weights: Vec<Ct>,
        bias: Ct,
    },
}

/// The evaluator in memory: a program, its keys and its weights.
#[derive(Debug)]
pub struct Engine {
    program: Program<Vec<u8>>,
    tasks: Vec<Task>,
    keys: Vec<SwitchKey<Vec<u32>>>,
    /// Of every step; an activation has none.
    factors: Vec<Option<Factors>>,
    work: Vec<u32>,
    hoisting: Vec<u32>,
}

impl Engine {
    /// Reads the client's keys, and its weights where they are encrypted; otherwise
    /// those of `model` are encoded, and `weights` is empty.
    ///
    /// # Errors
    /// [`EngineError::Bytes`] or [`EngineError::Count`] for what is not the
    /// program's; [`EngineError::Operation`].
    pub fn new(
        program: Program<Vec<u8>>,
        model: Option<&Model<'_>>,
        keys: &[u8],
        weights: &[u8],
    ) -> Result<Self, EngineError> {
        let params = program.params();
        let tasks: Vec<Task> = program.tasks().collect();
        let keys = read_keys(params, keys, &wanted_keys(&program))?;
        let factors = match model {
            Some(model) if !program.is_encrypted() && program.is_single() => {
                encoded::<f32>(&program, &tasks, model)?
            }
            Some(model) if !program.is_encrypted() => encoded::<f64>(&program, &tasks, model)?,
            _ => encrypted(&program, &tasks, weights)?,
        };
        let level = program.input_level();
        Ok(Self {
            work: vec![0; fast_workspace_words(params, level)],
            hoisting: vec![0; hoisting_words(params, level)],
            program,
            tasks,
            keys,
            factors,
        })
    }

    /// The program.
    #[must_use]
    pub const fn program(&self) -> &Program<Vec<u8>> {
        &self.program
    }

    /// Evaluates the network on one encrypted sample: the encrypted logits, and
    /// what every step took.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn evaluate(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, Times), EngineError> {
        let start = Instant::now();
        self.evaluate_by(bytes, || start.elapsed())
    }

    /// As [`Self::evaluate`], with the times of another clock: that of the
    /// processor's time, where a machine is shared.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    // A function of its own in every program: what counts instructions looks for its name.
    #[inline(never)]
    pub fn evaluate_by(
        &mut self,
        bytes: &[u8],
        clock: impl Fn() -> Duration,
    ) -> Result<(Vec<u8>, Times), EngineError> {
        let (start, cpu) = (clock(), ThreadTime::now());
        let inputs = self.read_inputs(bytes)?;
        let params = self.program.params();
        let mut times = Times {
            input: clock().saturating_sub(start),
            steps: Vec::with_capacity(self.factors.len()),
            cpu: Duration::ZERO,
        };
        let mut machine = Machine {
            params,
            program: &self.program,
            keys: KeySet::new(&self.keys),
            work: &mut self.work,
            hoisting: &mut self.hoisting,
            inputs: inputs.into_iter(),
            accumulator: None,
            registers: Vec::new(),
        };
        for (tasks, factors) in self
            .tasks
            .chunk_by(|a, b| a.step == b.step)
            .zip(&self.factors)
        {
            let start = clock();
            machine.step(tasks, factors.as_ref())?;
            times.steps.push(clock().saturating_sub(start));
        }
        let result = machine.take()?;
        let mut out = vec![0; ciphertext_bytes(params, result.level())?];
        wire::write_ciphertext(params, &result, &mut out).map_err(failed("writing"))?;
        times.cpu = cpu.elapsed();
        Ok((out, times))
    }

    fn read_inputs(&self, bytes: &[u8]) -> Result<Vec<Ct>, EngineError> {
        let (level, scale) = (self.program.input_level(), self.program.input_scale());
        let params = self.program.params();
        let what = "an input ciphertext";
        let parts = objects(params, bytes).map_err(refused(what))?;
        let expected = self.program.inputs();
        if parts.len() != expected {
            return Err(EngineError::Count {
                what: "input ciphertexts",
                expected,
                got: parts.len(),
            });
        }
        // A mask, of the result's level and scale.
        let masked = self.tasks.last().is_some_and(|task| task.op == Op::Mask);
        let read = |(index, object): (usize, &&[u8])| {
            if masked && index + 1 == expected {
                let (level, scale) = (self.program.output_level(), self.program.output_scale());
                read_fresh(params, object, level, scale, what)
            } else {
                read_fresh(params, object, level, scale, what)
            }
        };
        parts.iter().enumerate().map(read).collect()
    }
}

/// Indices of a step's products, and whether there are biases.
fn products(tasks: &[Task], step: u8) -> impl Iterator<Item = usize> + '_ {
    let mut indices: Vec<usize> = tasks
        .iter()
        .filter(|task| task.step == step)
        .filter_map(|task| match task.op {
            Op::Product { index, .. } => Some(index.into()),
            _ => None,
        })
        .collect();
    indices.sort_unstable();
    indices.into_iter()
}

/// What every step with weights is, with the level of its factors.
fn layers<'p>(
    program: &'p Program<Vec<u8>>,
    tasks: &'p [Task],
) -> impl Iterator<Item = (u8, Option<(LinearStep, usize)>)> + 'p {
    (0..program.steps() as u8).map(|step| {
        let level = tasks.iter().find(|task| task.step == step);
        let level = level.map_or(0, |task| task.level.into());
        (step, program.linear(step).map(|linear| (linear, level)))
    })
}

/// The model's weights, encoded in a precision.
fn encoded<T: Precision + Into<f64>>(
    program: &Program<Vec<u8>>,
    tasks: &[Task],
    model: &Model<'_>,
) -> Result<Vec<Option<Factors>>, EngineError> {
    let params = program.params();
    let slots = params.slots();
    let (mut re, mut im) = (vec![T::ZERO; slots], vec![T::ZERO; slots]);
    let mut buffer = vec![T::ZERO; params.n()];
    let mut integers = vec![0i64; params.n()];
    let mut all = Vec::new();
    for (step, layer) in layers(program, tasks) {
        let Some((linear, level)) = layer else {
            all.push(None);
            continue;
        };
        let (first, count) = (usize::from(linear.layer), usize::from(linear.layers));
        let map = model
            .map(first, count)
            .ok_or(EngineError::Layer { layer: first })?;
        let limbs = || vec![0; (level + 1) * params.n()];
        let table = map.weights::<T, true>();
        let mut weights = Vec::new();
        for product in products(tasks, step) {
            let weight = |output, input| table.at(output, input);
            let form = linear.form;
            form.weight_slots(&map, product, weight, &mut re, &mut im);
            let scale = linear.weights;
            let to_integer = |x: T| Into::<f64>::into(x) as i64;
            encode_complex(&re, &im, scale, &mut buffer, &mut integers, to_integer)
                .and_then(|()| Plaintext::new(params, &integers, level, scale, limbs()))
                .map(|plain| weights.push(plain))
                .map_err(failed("encoding weights"))?;
        }
        let bias = encoded_bias(program, &map, linear, level, (&mut re, &mut im))?;
        all.push(Some(Factors::Plain { weights, bias }));
    }
    Ok(all)
}

/// A layer's biases; in single precision at a lower scale, as a board encodes them.
fn encoded_bias<T: Precision + Into<f64>>(
    program: &Program<Vec<u8>>,
    map: &LinearMap<'_>,
    linear: LinearStep,
    level: usize,
    (re, im): (&mut [T], &mut [T]),
) -> Result<Plaintext<Vec<u32>>, EngineError> {
    let params = program.params();
    let shift = if program.is_single() { BIAS_SHIFT } else { 0 };
    let mut buffer = vec![T::ZERO; params.n()];
    let mut integers = vec![0i64; params.n()];
    linear.form.bias_slots(map, |k| map.bias::<T, true>(k), re);
    im.fill(T::ZERO);
    let scale = linear.sums() / f64::from(1u32 << shift);
    let to_integer = |x: T| (Into::<f64>::into(x) as i64) << shift;
    encode_complex(re, im, scale, &mut buffer, &mut integers, to_integer)
        .and_then(|()| {
            let limbs = vec![0; (level + 1) * params.n()];
            Plaintext::new(params, &integers, level, linear.sums(), limbs)
        })
        .map_err(failed("encoding biases"))
}

/// The client's weights.
fn encrypted(
    program: &Program<Vec<u8>>,
    tasks: &[Task],
    bytes: &[u8],
) -> Result<Vec<Option<Factors>>, EngineError> {
    let params = program.params();
    let what = "an encrypted weight";
    let parts = objects(params, bytes).map_err(refused(what))?;
    let linear = layers(program, tasks).filter(|(_, layer)| layer.is_some());
    let expected = linear
        .map(|(step, _)| products(tasks, step).count() + 1)
        .sum();
    if parts.len() != expected {
        return Err(EngineError::Count {
            what: "encrypted weights",
            expected,
            got: parts.len(),
        });
    }
    let mut parts = parts.into_iter();
    let mut all = Vec::new();
    for (step, layer) in layers(program, tasks) {
        let Some((linear, level)) = layer else {
            all.push(None);
            continue;
        };
        let mut next = |scale| {
            let object = parts.next().unwrap_or_default();
            read_fresh(params, object, level, scale, what)
        };
        let weights = products(tasks, step)
            .map(|_| next(linear.weights))
            .collect::<Result<Vec<_>, _>>()?;
        let bias = next(linear.sums())?;
        all.push(Some(Factors::Encrypted { weights, bias }));
    }
    Ok(all)
}

/// Keys and memory of the operations, the accumulator and what is kept beside it.
struct Machine<'e> {
    params: &'static Params,
    program: &'e Program<Vec<u8>>,
    keys: KeySet<'e, Vec<u32>>,
    work: &'e mut [u32],
    hoisting: &'e mut [u32],
    inputs: std::vec::IntoIter<Ct>,
    accumulator: Option<Ct>,
    registers: Vec<Ct>,
}

/// What a program that was checked does not do.
const OUT_OF_ORDER: EngineError = EngineError::Count {
    what: "operands",
    expected: 1,
    got: 0,
};

impl Machine<'_> {
    /// The tasks of one step.
    fn step(&mut self, tasks: &[Task], factors: Option<&Factors>) -> Result<(), EngineError> {
        let mut rest = tasks;
        while let Some((task, after)) = rest.split_first() {
            rest = after;
            match task.op {
                // The sums of a layer begin, or a product takes the accumulator's place.
                Op::Clear { sums: true } => rest = self.sums(after, factors)?,
                Op::Product { .. } => {
                    rest = self
                        .sums(std::slice::from_ref(task), factors)
                        .and(Ok(after))?
                }
                Op::Clear { sums: false } => self.accumulator = None,
                Op::Receive => self.accumulator = Some(self.inputs.next().ok_or(OUT_OF_ORDER)?),
                Op::Mask => {
                    let mask = self.inputs.next().ok_or(OUT_OF_ORDER)?;
                    let value = self.accumulator.as_mut().ok_or(OUT_OF_ORDER)?;
                    add(self.params, value, &mask).map_err(failed("a mask"))?;
                }
                Op::Save(0) => rest = self.save(after)?,
                Op::Rotate(g) => self.switch_accumulator(SwitchOp::Rotate(g))?,
                Op::RotateAdd(g) => self.switch_accumulator(SwitchOp::RotateAdd(g))?,
                Op::Pair(_) => self.pair()?,
                Op::Relinearize | Op::Save(_) | Op::Load(_) => {}
                Op::Bias => self.bias(factors)?,
                Op::Square => {
                    let value = self.take()?;
                    self.accumulator = Some(self.square(value)?);
                }
                Op::Polynomial => self.polynomial(task.step)?,
                Op::Rescale => {
                    let mut scratch = vec![0; self.params.n()];
                    let value = self.accumulator.as_mut().ok_or(OUT_OF_ORDER)?;
                    rescale(self.params, value, &mut scratch).map_err(failed("rescaling"))?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Ct, EngineError> {
        self.accumulator.take().ok_or(OUT_OF_ORDER)
    }

    /// All products of a layer, and the giant steps between them: the tasks behind them.
    fn sums<'t>(
        &mut self,
        tasks: &'t [Task],
        factors: Option<&Factors>,
    ) -> Result<&'t [Task], EngineError> {
        let of_sums = |task: &&Task| {
            matches!(
                task.op,
                Op::Product { .. } | Op::Rotate(_) | Op::Relinearize
            )
        };
        let count = tasks.iter().take_while(of_sums).count();
        let (tasks, after) = tasks.split_at(count);
        let factors = factors.ok_or(OUT_OF_ORDER)?;
        let linear = tasks
            .first()
            .and_then(|task| self.program.linear(task.step));
        let scale = linear.ok_or(OUT_OF_ORDER)?.sums();
        let values = match tasks.first().map(|task| task.op) {
            Some(Op::Product { operand, .. }) => match operand {
                Operand::Input => {
                    let products = |task: &&Task| matches!(task.op, Op::Product { .. });
                    let count = tasks.iter().filter(products).count();
                    self.inputs.by_ref().take(count).collect()
                }
                Operand::Register(_) => std::mem::take(&mut self.registers),
                Operand::Accumulator => vec![self.take()?],
            },
            _ => return Err(OUT_OF_ORDER),
        };
        // In one pass where they are cheap, one by one where each is relinearised.
        let rows = tasks.split(|task| matches!(task.op, Op::Rotate(_))).count();
        let mut plain = match factors {
            Factors::Plain { weights, .. } => self.plain_sums(&values, weights, rows, scale)?,
            Factors::Encrypted { .. } => Vec::new(),
        };
        let mut sum: Option<Ct> = None;
        let mut giant = None;
        for row in tasks.split_inclusive(|task| matches!(task.op, Op::Rotate(_))) {
            let first = row.iter().find_map(|task| match task.op {
                Op::Product { index, .. } => Some(usize::from(index)),
                _ => None,
            });
            // The last giant step comes first.
            let term = match (factors, first) {
                (Factors::Plain { .. }, _) => plain.pop().ok_or(OUT_OF_ORDER)?,
                (Factors::Encrypted { weights, .. }, Some(first)) => {
                    let row = weights.get(first..first + values.len());
                    self.encrypted_sum(&values, row.unwrap_or_default(), scale)?
                }
                (Factors::Encrypted { .. }, None) => return Err(OUT_OF_ORDER),
            };
            sum = Some(match (sum.take(), giant.take()) {
                (Some(mut before), Some(op)) => {
                    self.switch(op, &mut before)?;
                    add(self.params, &mut before, &term).map_err(failed("a sum"))?;
                    before
                }
                _ => term,
            });
            giant = row.last().and_then(|task| match task.op {
                Op::Rotate(g) => Some(SwitchOp::Rotate(g)),
                _ => None,
            });
        }
        self.accumulator = sum;
        Ok(after)
    }

    /// Keeps the accumulator, and where baby steps follow their rotations, all from one
    /// decomposition: the tasks behind them.
    fn save<'t>(&mut self, tasks: &'t [Task]) -> Result<&'t [Task], EngineError> {
        let value = self.take()?;
        let mut steps = Vec::new();
        let mut rest = tasks;
        loop {
            let after_load = match rest {
                [
                    Task {
                        op: Op::Load(0), ..
                    },
                    after @ ..,
                ] => after,
                _ => rest,
            };
            let next = steps.len() + 1;
            match after_load {
                [
                    Task {
                        op: Op::Rotate(g), ..
                    },
                    Task {
                        op: Op::Save(to), ..
                    },
                    after @ ..,
                ] if usize::from(*to) == next
                    && *g == automorphism::rotation(self.params.n(), next as i32) =>
                {
                    steps.push(next as i32);
                    rest = after;
                }
                _ => break,
            }
        }
        self.registers.clear();
        if steps.is_empty() {
            // The sums begin anew where the layer's products follow.
            if !matches!(tasks.first().map(|task| task.op), Some(Op::Clear { .. })) {
                self.accumulator = Some(self.copy(&value)?);
            }
            self.registers.push(value);
            return Ok(rest);
        }
        let mut rotated = steps
            .iter()
            .map(|_| self.zero(value.level(), value.scale()))
            .collect::<Result<Vec<_>, _>>()?;
        rotate_many(
            self.params,
            &value,
            &steps,
            self.keys,
            &mut rotated,
            self.hoisting,
        )
        .map_err(failed("rotations"))?;
        self.registers.push(value);
        self.registers.append(&mut rotated);
        Ok(rest)
    }

    /// `x + i (x rotated)` of register 0 and the accumulator.
    fn pair(&mut self) -> Result<(), EngineError> {
        let what = "pairing values";
        let mut rotated = self.take()?;
        let i = Constant::complex(0.0, 1.0, 1.0).map_err(failed(what))?;
        multiply_constant(self.params, &mut rotated, &i).map_err(failed(what))?;
        let first = self.registers.first().ok_or(OUT_OF_ORDER)?;
        add(self.params, &mut rotated, first).map_err(failed(what))?;
        self.accumulator = Some(rotated);
        Ok(())
    }

    fn bias(&mut self, factors: Option<&Factors>) -> Result<(), EngineError> {
        let sum = self.accumulator.as_mut().ok_or(OUT_OF_ORDER)?;
        match factors {
            Some(Factors::Plain { bias, .. }) => add_plain(self.params, sum, bias),
            Some(Factors::Encrypted { bias, .. }) => add(self.params, sum, bias),
            None => return Err(OUT_OF_ORDER),
        }
        .map_err(failed("adding biases"))
    }

    /// A polynomial, rescaled.
    fn polynomial(&mut self, step: u8) -> Result<(), EngineError> {
        let polynomial_step = self.program.polynomial(step).ok_or(OUT_OF_ORDER)?;
        let coefficients: Vec<f64> = self.program.coefficients(polynomial_step).collect();
        let ct = self.accumulator.as_mut().ok_or(OUT_OF_ORDER)?;
        let level = ct.level();
        let key = self.keys.find(SwitchTarget::Square, level);
        let key = key.map_err(failed("a polynomial"))?;
        let degree = coefficients.len().saturating_sub(1);
        let mut words = vec![0; polynomial_words(self.params, level, degree)];
        let memory = (&mut words[..], &mut *self.work);
        polynomial(
            self.params,
            ct,
            &coefficients,
            polynomial_step.output,
            key,
            memory,
        )
    }

    fn copy(&self, value: &Ct) -> Result<Ct, EngineError> {
        let (c0, c1) = value.halves();
        let (level, scale) = (value.level(), value.scale());
        Ciphertext::new(self.params, level, scale, c0.to_vec(), c1.to_vec())
            .map_err(failed("a copy"))
    }

    fn zero(&self, level: usize, scale: f64) -> Result<Ct, EngineError> {
        let limbs = || vec![0; (level + 1) * self.params.n()];
        Ciphertext::zero(self.params, level, scale, limbs(), limbs()).map_err(failed("a sum"))
    }

    fn zero3(&self, level: usize, scale: f64) -> Result<Ct3, EngineError> {
        let limbs = || vec![0; (level + 1) * self.params.n()];
        let parts = [limbs(), limbs(), limbs()];
        let mut sum =
            Ciphertext::from_parts(self.params, level, scale, parts).map_err(failed("a sum"))?;
        // It is known to be zero, which of parts from elsewhere nothing is.
        sum.reset(self.params, level, scale)
            .map_err(failed("a sum"))?;
        Ok(sum)
    }

    fn switch_accumulator(&mut self, op: SwitchOp) -> Result<(), EngineError> {
        let mut value = self.take()?;
        self.switch(op, &mut value)?;
        self.accumulator = Some(value);
        Ok(())
    }

    fn switch<const PARTS: usize>(
        &mut self,
        op: SwitchOp,
        ct: &mut Ciphertext<Vec<u32>, PARTS>,
    ) -> Result<(), EngineError> {
        let what = "key switching";
        let level = ct.level();
        let key = self.keys.find(op.target(), level).map_err(failed(what))?;
        let mut work = Workspace::new(self.params, level, self.work).map_err(failed(what))?;
        switch(self.params, op, ct, key, &mut work).map_err(failed(what))
    }

    fn relinearize(&mut self, ct: Ct3) -> Result<Ct, EngineError> {
        let what = "relinearisation";
        let level = ct.level();
        let key = self.keys.find(SwitchTarget::Square, level);
        let key = key.map_err(failed(what))?;
        let mut work = Workspace::new(self.params, level, self.work).map_err(failed(what))?;
        let (ct, _) = relinearize(self.params, ct, key, &mut work).map_err(failed(what))?;
        Ok(ct)
    }

    fn square(&mut self, ct: Ct) -> Result<Ct, EngineError> {
        let c2 = vec![0; (ct.level() + 1) * self.params.n()];
        let squared = square(self.params, ct, c2).map_err(failed("a square"))?;
        self.relinearize(squared)
    }

    /// Sums of products of ciphertexts and plaintexts: of all ciphertexts and the first
    /// plaintexts, then of all and the next.
    fn plain_sums(
        &self,
        values: &[Ct],
        weights: &[Plaintext<Vec<u32>>],
        count: usize,
        scale: f64,
    ) -> Result<Vec<Ct>, EngineError> {
        let level = values.first().map_or(0, Ciphertext::level);
        let sums = (0..count).map(|_| self.zero(level, scale));
        let mut sums = sums.collect::<Result<Vec<_>, _>>()?;
        plaintext_matrix(self.params, values, weights, &mut sums)
            .map_err(failed("a product with weights"))?;
        Ok(sums)
    }

    /// The sum of products of pairs of ciphertexts.
    fn encrypted_sum(
        &mut self,
        values: &[Ct],
        weights: &[Ct],
        scale: f64,
    ) -> Result<Ct, EngineError> {
        let level = values.first().map_or(0, Ciphertext::level);
        let mut sum = self.zero3(level, scale)?;
        for (value, weight) in values.iter().zip(weights) {
            multiply_add(self.params, &mut sum, value, weight)
                .map_err(failed("a product with weights"))?;
        }
        self.relinearize(sum)
    }
}
