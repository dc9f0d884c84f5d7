//! One sample in the slots of a ciphertext.

use std::time::{Duration, Instant};

use he_core::Params;
use he_core::ckks::encode::{encode, encode_complex};
use he_core::ckks::evaluator::{
    SwitchOp, Workspace, add, add_plain, fast_workspace_words, hoisting_words, multiply_add,
    multiply_constant, plaintext_matrix, relinearize, rescale, rotate_many, square, switch,
};
use he_core::ckks::{Ciphertext, Constant, Plaintext};
use he_core::ring::automorphism;
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{KeySet, SwitchKey, SwitchTarget};
use he_core::wire::{self, Header, Object};
use he_nn::circuit::{Circuit, Form, LinearMap, LinearScales, Step, Weights};
use he_nn::model::{Model, Sample};
use zeroize::Zeroizing;

use super::{
    EngineError, Keys, Matrix, StageTime, ciphertext_bytes, failed, objects, polynomial,
    polynomial_len, refused,
};

type Ct = Ciphertext<Vec<u32>>;
type Ct3 = Ciphertext<Vec<u32>, 3>;

/// Keys of a circuit, each once, for the highest level it is used at.
#[must_use]
pub fn wanted_keys(circuit: &Circuit<'_>) -> Vec<(SwitchTarget, usize)> {
    let mut wanted: Vec<(SwitchTarget, usize)> = Vec::new();
    // From high levels to low ones: the first use decides.
    circuit.keys(|target, level| {
        if !wanted.iter().any(|&(known, _)| known == target) {
            wanted.push((target, level));
        }
    });
    wanted
}

/// Bytes of the evaluator's memory while it evaluates: keys, expanded, weights, and
/// the ciphertexts of the layer that has most.
#[must_use]
pub fn memory(circuit: &Circuit<'_>) -> usize {
    let params = circuit.params();
    let words_of = |&(_, level): &(SwitchTarget, usize)| 2 * switching_key_words(params, level);
    let keys: usize = wanted_keys(circuit).iter().map(words_of).sum();
    let parts = match circuit.weights() {
        Weights::Plain => 1,
        Weights::Encrypted => 2,
    };
    let factors = circuit.steps().iter().map(|step| match step {
        Step::Linear { form, level, .. } => {
            parts * (form.products(params.slots()) + 1) * (level + 1) * params.n()
        }
        Step::Square { .. } | Step::Polynomial { .. } => 0,
    });
    let level = circuit.input_level();
    let scratch = fast_workspace_words(params, level) + hoisting_words(params, level);
    // Inputs or baby steps, and sums: one a giant step, or one and another of three
    // parts.
    let values = circuit.steps().iter().map(|step| match step {
        Step::Linear { form, level, .. } => {
            let operands = match *form {
                Form::Blocks { .. } => form.products(params.slots()),
                Form::Diagonals { baby, .. } => baby,
                Form::Rows { .. } => 1,
            };
            let sums = match circuit.weights() {
                Weights::Plain => 2 * form.giants(),
                Weights::Encrypted => 2 + 3,
            };
            (2 * operands + sums) * (level + 1) * params.n()
        }
        Step::Square { level, .. } => 3 * (level + 1) * params.n(),
        Step::Polynomial {
            coefficients,
            level,
            ..
        } => {
            let words = polynomial_len(params, *level, coefficients.len());
            2 * (level + 1) * params.n() + words
        }
    });
    let values = values.max().unwrap_or(0);
    size_of::<u32>() * (keys + factors.sum::<usize>() + scratch + values)
}

/// The client: its keys never leave it.
#[derive(Debug)]
pub struct Client<'m> {
    circuit: Circuit<'m>,
    keys: Keys,
}

impl<'m> Client<'m> {
    /// A client with fresh keys.
    ///
    /// # Errors
    /// [`EngineError::Random`].
    pub fn new(circuit: Circuit<'m>) -> Result<Self, EngineError> {
        let keys = Keys::new(circuit.params())?;
        Ok(Self::with_keys(circuit, keys))
    }

    /// A client with keys of the circuit's set.
    #[must_use]
    pub const fn with_keys(circuit: Circuit<'m>, keys: Keys) -> Self {
        Self { circuit, keys }
    }

    /// What the evaluator needs before the first sample: its keys.
    ///
    /// # Errors
    /// [`EngineError::Operation`].
    pub fn switching_keys(&mut self) -> Result<Vec<u8>, EngineError> {
        self.keys.switching_keys(&wanted_keys(&self.circuit))
    }

    /// The weights and biases, encrypted: all products of a layer, then its biases,
    /// layer by layer. Nothing where weights are plain.
    ///
    /// # Errors
    /// [`EngineError::Operation`].
    pub fn weights(&mut self) -> Result<Vec<u8>, EngineError> {
        let mut bytes = Vec::new();
        if self.circuit.weights() == Weights::Plain {
            return Ok(bytes);
        }
        let params = self.circuit.params();
        let slots = params.slots();
        let [mut re, mut im] = secret_slots(params);
        for (index, step) in self.circuit.steps().iter().enumerate() {
            let Step::Linear {
                map,
                form,
                level,
                scales,
            } = step
            else {
                continue;
            };
            let matrix = Matrix::new(map)?;
            for product in 0..form.products(slots) {
                let weight = |output, input| matrix.weight(output, input);
                self.circuit
                    .weight_slots(index, product, weight, &mut re, &mut im);
                self.keys
                    .encrypt(&re, &im, *level, scales.weights, &mut bytes)?;
            }
            self.circuit.bias_slots(index, |k| matrix.bias(k), &mut re);
            im.fill(0.0);
            self.keys
                .encrypt(&re, &im, *level, scales.sums(), &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Encrypts a sample.
    ///
    /// # Errors
    /// [`EngineError::Operation`]; [`EngineError::Sample`] for one of another size.
    pub fn encrypt<'s>(&mut self, sample: impl Into<Sample<'s>>) -> Result<Vec<u8>, EngineError> {
        let sample = sample.into();
        let model = self.circuit.model();
        let values = values_of(model, sample)?;
        let [mut re, mut im] = secret_slots(self.circuit.params());
        let mut bytes = Vec::new();
        let (level, scale) = (self.circuit.input_level(), self.circuit.input_scale());
        for index in 0..self.circuit.ciphertexts() {
            self.circuit.input_slots(index, &values, &mut re, &mut im);
            self.keys.encrypt(&re, &im, level, scale, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Decrypts a result: the logits.
    ///
    /// # Errors
    /// As [`Keys::decrypt`].
    pub fn decrypt(&self, bytes: &[u8]) -> Result<Vec<f64>, EngineError> {
        let slots = (0..self.circuit.model().outputs()).map(|k| self.circuit.output_slot(k));
        self.keys
            .decrypt(bytes, 0, self.circuit.output_scale(), slots)
    }
}

/// A sample as the first layer sees it.
pub(super) fn values_of(
    model: &Model<'_>,
    sample: Sample<'_>,
) -> Result<Zeroizing<Vec<f64>>, EngineError> {
    let mut values = Zeroizing::new(vec![0.0; model.inputs()]);
    model.input_values(sample, &mut values)?;
    Ok(values)
}

/// Slots, their real and their imaginary parts, erased when dropped.
fn secret_slots(params: &Params) -> [Zeroizing<Vec<f64>>; 2] {
    [(); 2].map(|()| Zeroizing::new(vec![0.0; params.slots()]))
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

/// The evaluator: a circuit, its keys and its weights in memory.
#[derive(Debug)]
pub struct Evaluator<'m> {
    circuit: Circuit<'m>,
    keys: Vec<SwitchKey<Vec<u32>>>,
    /// One an activation is `None`.
    factors: Vec<Option<Factors>>,
    work: Vec<u32>,
    hoisting: Vec<u32>,
}

impl<'m> Evaluator<'m> {
    /// Reads the client's keys, and its weights where they are encrypted
    /// (otherwise the model's are encoded and `weights` is empty).
    ///
    /// # Errors
    /// [`EngineError::Bytes`] or [`EngineError::Count`] for what is not the
    /// circuit's; [`EngineError::Operation`].
    pub fn new(circuit: Circuit<'m>, keys: &[u8], weights: &[u8]) -> Result<Self, EngineError> {
        let params = circuit.params();
        let keys = read_keys(params, keys, &wanted_keys(&circuit))?;
        let factors = match circuit.weights() {
            Weights::Plain => encoded(&circuit)?,
            Weights::Encrypted => encrypted(&circuit, weights)?,
        };
        let level = circuit.input_level();
        Ok(Self {
            keys,
            factors,
            work: vec![0; fast_workspace_words(params, level)],
            hoisting: vec![0; hoisting_words(params, level)],
            circuit,
        })
    }

    /// Evaluates the network on one encrypted sample: the encrypted logits, and
    /// what every layer took.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn evaluate(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, Vec<StageTime>), EngineError> {
        let start = Instant::now();
        self.evaluate_by(bytes, || start.elapsed())
    }

    /// As [`Self::evaluate`], with the times of another clock: that of the
    /// processor's time, where a machine is shared.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn evaluate_by(
        &mut self,
        bytes: &[u8],
        clock: impl Fn() -> Duration,
    ) -> Result<(Vec<u8>, Vec<StageTime>), EngineError> {
        let start = clock();
        let inputs = self.read_inputs(bytes)?;
        let params = self.circuit.params();
        let mut times = vec![StageTime {
            name: "input".to_owned(),
            time: clock().saturating_sub(start),
            level: self.circuit.input_level(),
            scale_log2: self.circuit.input_scale().log2(),
            bytes: bytes.len(),
        }];
        let mut machine = Machine {
            params,
            keys: KeySet::new(&self.keys),
            work: &mut self.work,
            hoisting: &mut self.hoisting,
        };
        let mut values = inputs;
        let mut scratch = vec![0; params.n()];
        for (index, (step, factors)) in self.circuit.steps().iter().zip(&self.factors).enumerate() {
            let start = clock();
            let result = match (step, factors) {
                (Step::Linear { form, scales, .. }, Some(factors)) => {
                    let mut sum = machine.linear(index == 0, *form, scales, factors, values)?;
                    rescale(params, &mut sum, &mut scratch).map_err(failed("rescaling"))?;
                    sum
                }
                (Step::Square { .. }, None) => {
                    let [value] = take_one(values)?;
                    let mut squared = machine.square(value)?;
                    rescale(params, &mut squared, &mut scratch).map_err(failed("rescaling"))?;
                    squared
                }
                (
                    Step::Polynomial {
                        coefficients,
                        output,
                        ..
                    },
                    None,
                ) => {
                    let [value] = take_one(values)?;
                    machine.polynomial(value, coefficients, *output)?
                }
                _ => {
                    return Err(EngineError::Count {
                        what: "layers",
                        expected: index,
                        got: index + 1,
                    });
                }
            };
            times.push(StageTime {
                name: step_name(step),
                time: clock().saturating_sub(start),
                level: step.level(),
                scale_log2: result.scale().log2(),
                bytes: ciphertext_bytes(params, result.level())?,
            });
            values = vec![result];
        }
        let [result] = take_one(values)?;
        let mut out = vec![0; ciphertext_bytes(params, result.level())?];
        wire::write_ciphertext(params, &result, &mut out).map_err(failed("writing"))?;
        Ok((out, times))
    }

    fn read_inputs(&self, bytes: &[u8]) -> Result<Vec<Ct>, EngineError> {
        let (level, scale) = (self.circuit.input_level(), self.circuit.input_scale());
        let params = self.circuit.params();
        let what = "an input ciphertext";
        let parts = objects(params, bytes).map_err(refused(what))?;
        let expected = self.circuit.ciphertexts();
        if parts.len() != expected {
            return Err(EngineError::Count {
                what: "input ciphertexts",
                expected,
                got: parts.len(),
            });
        }
        let read = |object: &&[u8]| read_fresh(params, object, level, scale, what);
        parts.iter().map(read).collect()
    }
}

fn take_one(values: Vec<Ct>) -> Result<[Ct; 1], EngineError> {
    let got = values.len();
    values.try_into().map_err(|_| EngineError::Count {
        what: "ciphertexts",
        expected: 1,
        got,
    })
}

/// A name for a layer in tables.
#[must_use]
pub fn layer_name(map: &LinearMap<'_>) -> String {
    let (first, last) = map.layers();
    let (inputs, outputs) = (map.inputs(), map.outputs());
    if first == last {
        format!("layer {first}: {inputs}-{outputs}")
    } else {
        format!("layers {first} to {last}: {inputs}-{outputs}")
    }
}

/// A name for a step in tables.
#[must_use]
pub fn step_name(step: &Step<'_>) -> String {
    match step {
        Step::Linear { map, .. } => layer_name(map),
        Step::Square { layer, .. } => square_name(*layer),
        Step::Polynomial {
            layer,
            coefficients,
            ..
        } => polynomial_name(*layer, coefficients.len()),
    }
}

/// A name for a square in tables.
pub(super) fn square_name(layer: usize) -> String {
    format!("square {layer}")
}

/// A name for an activation that is no square, in tables.
pub(super) fn polynomial_name(layer: usize, coefficients: usize) -> String {
    format!(
        "polynomial {layer}: degree {}",
        coefficients.saturating_sub(1)
    )
}

/// A seeded ciphertext of this level and scale.
pub(crate) fn read_fresh(
    params: &Params,
    object: &[u8],
    level: usize,
    scale: f64,
    what: &'static str,
) -> Result<Ct, EngineError> {
    let refused = refused(what);
    let header = Header::parse(object, params).map_err(&refused)?;
    if header.level != level {
        return Err(refused(he_core::Error::Level {
            operation: what,
            expected: level,
            got: header.level,
        }));
    }
    if let Object::SeededCiphertext { scale: got } = header.object
        && got.to_bits() != scale.to_bits()
    {
        return Err(refused(he_core::Error::Scale {
            operation: what,
            expected: scale,
            got,
        }));
    }
    let limbs = || vec![0; (level + 1) * params.n()];
    wire::read_seeded(params, object, limbs(), limbs()).map_err(refused)
}

/// The keys of a circuit, expanded.
pub(crate) fn read_keys(
    params: &Params,
    bytes: &[u8],
    wanted: &[(SwitchTarget, usize)],
) -> Result<Vec<SwitchKey<Vec<u32>>>, EngineError> {
    let what = "a switching key";
    let parts = objects(params, bytes).map_err(refused(what))?;
    if parts.len() != wanted.len() {
        return Err(EngineError::Count {
            what: "switching keys",
            expected: wanted.len(),
            got: parts.len(),
        });
    }
    let mut keys = Vec::with_capacity(parts.len());
    for (object, &(target, level)) in parts.into_iter().zip(wanted) {
        let header = Header::parse(object, params).map_err(refused(what))?;
        // Whoever wrote them chose the level; the memory is ours.
        if header.level != level {
            return Err(refused(what)(he_core::Error::Level {
                operation: what,
                expected: level,
                got: header.level,
            }));
        }
        let words = switching_key_words(params, level);
        let key: SwitchKey<Vec<u32>> =
            wire::read_switch_key(params, object, vec![0; words]).map_err(refused(what))?;
        if key.target() != target {
            return Err(EngineError::Count {
                what: "keys of that rotation",
                expected: 1,
                got: 0,
            });
        }
        keys.push(
            key.expanded(params, vec![0; words])
                .map_err(failed("expanding a key"))?,
        );
    }
    Ok(keys)
}

/// The model's weights, encoded.
fn encoded(circuit: &Circuit<'_>) -> Result<Vec<Option<Factors>>, EngineError> {
    let params = circuit.params();
    let slots = params.slots();
    let (mut re, mut im) = (vec![0.0; slots], vec![0.0; slots]);
    let mut buffer = vec![0.0f64; params.n()];
    let mut integers = vec![0i64; params.n()];
    let mut all = Vec::new();
    for (index, step) in circuit.steps().iter().enumerate() {
        let Step::Linear {
            map,
            form,
            level,
            scales,
        } = step
        else {
            all.push(None);
            continue;
        };
        let limbs = || vec![0; (level + 1) * params.n()];
        let matrix = Matrix::new(map)?;
        let mut weights = Vec::new();
        for product in 0..form.products(slots) {
            let weight = |output, input| matrix.weight(output, input);
            circuit.weight_slots(index, product, weight, &mut re, &mut im);
            encode_complex(&re, &im, scales.weights, &mut buffer, &mut integers, |x| {
                x as i64
            })
            .and_then(|()| Plaintext::new(params, &integers, *level, scales.weights, limbs()))
            .map(|plain| weights.push(plain))
            .map_err(failed("encoding weights"))?;
        }
        circuit.bias_slots(index, |k| matrix.bias(k), &mut re);
        let bias = encode(&re, scales.sums(), &mut buffer, &mut integers, |x| x as i64)
            .and_then(|()| Plaintext::new(params, &integers, *level, scales.sums(), limbs()))
            .map_err(failed("encoding biases"))?;
        all.push(Some(Factors::Plain { weights, bias }));
    }
    Ok(all)
}

/// The client's weights.
fn encrypted(circuit: &Circuit<'_>, bytes: &[u8]) -> Result<Vec<Option<Factors>>, EngineError> {
    let params = circuit.params();
    let what = "an encrypted weight";
    let parts = objects(params, bytes).map_err(refused(what))?;
    let linear = |step: &Step<'_>| match step {
        Step::Linear { form, .. } => form.products(params.slots()) + 1,
        Step::Square { .. } | Step::Polynomial { .. } => 0,
    };
    let expected = circuit.steps().iter().map(linear).sum();
    if parts.len() != expected {
        return Err(EngineError::Count {
            what: "encrypted weights",
            expected,
            got: parts.len(),
        });
    }
    let mut parts = parts.into_iter();
    let mut all = Vec::new();
    for step in circuit.steps() {
        let Step::Linear {
            form,
            level,
            scales,
            ..
        } = step
        else {
            all.push(None);
            continue;
        };
        let weights = parts
            .by_ref()
            .take(form.products(params.slots()))
            .map(|object| read_fresh(params, object, *level, scales.weights, what))
            .collect::<Result<Vec<_>, _>>()?;
        let bias = read_fresh(
            params,
            parts.next().unwrap_or_default(),
            *level,
            scales.sums(),
            what,
        )?;
        all.push(Some(Factors::Encrypted { weights, bias }));
    }
    Ok(all)
}

/// Keys and memory of the operations.
struct Machine<'e> {
    params: &'static Params,
    keys: KeySet<'e, Vec<u32>>,
    work: &'e mut [u32],
    hoisting: &'e mut [u32],
}

impl Machine<'_> {
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

    /// A polynomial, rescaled to `target`.
    fn polynomial(
        &mut self,
        mut ct: Ct,
        coefficients: &[f64],
        target: f64,
    ) -> Result<Ct, EngineError> {
        let (params, level) = (self.params, ct.level());
        let key = self.keys.find(SwitchTarget::Square, level);
        let key = key.map_err(failed("a polynomial"))?;
        let mut words = vec![0; polynomial_len(params, level, coefficients.len())];
        let memory = (&mut words[..], &mut *self.work);
        polynomial(params, &mut ct, coefficients, target, key, memory)?;
        Ok(ct)
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

    /// A layer with weights, without its rescaling.
    fn linear(
        &mut self,
        first: bool,
        form: Form,
        scales: &LinearScales,
        factors: &Factors,
        values: Vec<Ct>,
    ) -> Result<Ct, EngineError> {
        let params = self.params;
        let n = params.n();
        let sums = scales.sums();
        let rotation = |steps: usize| automorphism::rotation(n, steps as i32);
        let values = match form {
            Form::Blocks { .. } | Form::Rows { .. } => values,
            Form::Diagonals { baby, complex, .. } => {
                let [mut value] = take_one(values)?;
                if complex && !first {
                    self.pair(&mut value, rotation(form.pair_distance()))?;
                }
                self.babies(value, baby)?
            }
        };
        let giants = form.giants();
        // In one pass where they are cheap, one by one where each is relinearised.
        let mut plain = match factors {
            Factors::Plain { weights, .. } => self.plain_sums(&values, weights, giants, sums)?,
            Factors::Encrypted { .. } => Vec::new(),
        };
        let missing = || EngineError::Count {
            what: "sums of a layer",
            expected: giants,
            got: 0,
        };
        let mut sum: Option<Ct> = None;
        // The last giant step comes first, so that each is a rotation by one.
        for giant in (0..giants).rev() {
            let term = match factors {
                Factors::Plain { .. } => plain.pop().ok_or_else(missing)?,
                Factors::Encrypted { weights, .. } => {
                    let row = weights.chunks(values.len().max(1)).nth(giant);
                    self.encrypted_sum(&values, row.unwrap_or_default(), sums)?
                }
            };
            sum = Some(match (sum.take(), form) {
                (Some(mut before), Form::Diagonals { baby, .. }) => {
                    self.switch(SwitchOp::Rotate(rotation(baby)), &mut before)?;
                    add(params, &mut before, &term).map_err(failed("a sum"))?;
                    before
                }
                _ => term,
            });
        }
        drop(values);
        let mut sum = sum.ok_or_else(missing)?;
        for fold in form.folds(params.slots()) {
            self.switch(SwitchOp::RotateAdd(rotation(fold)), &mut sum)?;
        }
        if form.is_complex() {
            self.switch(SwitchOp::RotateAdd(automorphism::conjugation(n)), &mut sum)?;
        }
        match factors {
            Factors::Plain { bias, .. } => add_plain(params, &mut sum, bias),
            Factors::Encrypted { bias, .. } => add(params, &mut sum, bias),
        }
        .map_err(failed("adding biases"))?;
        Ok(sum)
    }

    /// `x + i (x rotated)`.
    fn pair(&mut self, value: &mut Ct, rotation: u32) -> Result<(), EngineError> {
        let what = "pairing values";
        let (c0, c1) = value.halves();
        let (level, scale) = (value.level(), value.scale());
        let copied = Ciphertext::new(self.params, level, scale, c0.to_vec(), c1.to_vec());
        let mut rotated = copied.map_err(failed(what))?;
        self.switch(SwitchOp::Rotate(rotation), &mut rotated)?;
        let i = Constant::complex(0.0, 1.0, 1.0).map_err(failed(what))?;
        multiply_constant(self.params, &mut rotated, &i).map_err(failed(what))?;
        add(self.params, value, &rotated).map_err(failed(what))
    }

    /// The rotations by 0 to `baby - 1`.
    fn babies(&mut self, value: Ct, baby: usize) -> Result<Vec<Ct>, EngineError> {
        if baby == 1 {
            return Ok(vec![value]);
        }
        let steps: Vec<i32> = (1..baby as i32).collect();
        let mut babies = steps
            .iter()
            .map(|_| self.zero(value.level(), value.scale()))
            .collect::<Result<Vec<_>, _>>()?;
        rotate_many(
            self.params,
            &value,
            &steps,
            self.keys,
            &mut babies,
            self.hoisting,
        )
        .map_err(failed("rotations"))?;
        babies.insert(0, value);
        Ok(babies)
    }
}
