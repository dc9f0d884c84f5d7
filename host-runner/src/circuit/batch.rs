//! As many samples as there are slots, one ciphertext a value.

use std::time::Instant;

use he_core::Params;
use he_core::ckks::evaluator::{
    Workspace, add_constant, fast_workspace_words, integer_matrix, integer_matrix_halves,
    multiply_constant, relinearize, rescale, square,
};
use he_core::ckks::{Ciphertext, Constant};
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{SwitchKey, SwitchTarget};
use he_core::wire;
use he_nn::circuit::batch::{BatchCircuit, BatchStep};
use he_nn::circuit::{Circuit, CircuitError};
use he_nn::circuit::{LinearMap, Taps};
use he_nn::model::{Layer, LayerView, Linear, Model, Sample};

use zeroize::Zeroizing;

use super::latency::{polynomial_name, read_fresh, read_keys, square_name, values_of};
use super::{
    EngineError, Keys, StageTime, ciphertext_bytes, failed, first_that_serves, objects, polynomial,
    polynomial_len, refused,
};

type Ct = Ciphertext<Vec<u32>>;

/// There is an activation and no key.
const NO_KEY: EngineError = EngineError::Count {
    what: "switching keys",
    expected: 1,
    got: 0,
};

/// A name for a layer in tables.
#[must_use]
pub fn layer_name(view: &LayerView<'_>) -> String {
    match view.layer {
        Layer::Polynomial { coefficients, .. } if view.layer.is_polynomial() => {
            polynomial_name(view.index, coefficients.len())
        }
        _ if view.layer.linear().is_none() => square_name(view.index),
        _ => {
            let (inputs, outputs) = (view.input.values(), view.output.values());
            format!("layer {}: {inputs}-{outputs}", view.index)
        }
    }
}

/// Plans a network for batches, under the first of [`super::SETS`] that serves.
///
/// # Errors
/// [`CircuitError`] of the last set.
pub fn plan<'m>(model: Model<'m>) -> Result<BatchCircuit<'m>, CircuitError> {
    first_that_serves(|params| plan_under(params, model))
}

/// Plans a network for batches under a set.
///
/// # Errors
/// [`CircuitError`].
pub fn plan_under<'m>(
    params: &'static Params,
    model: Model<'m>,
) -> Result<BatchCircuit<'m>, CircuitError> {
    let mut row = vec![0.0; Circuit::buffer_len(&model)];
    let mut scratch = row.clone();
    BatchCircuit::new(params, model, &mut row, &mut scratch)
}

/// The relinearisation key, where there is an activation.
#[must_use]
pub fn wanted_keys(circuit: &BatchCircuit<'_>) -> Vec<(SwitchTarget, usize)> {
    let level = circuit.square_level();
    level
        .map(|l| (SwitchTarget::Square, l))
        .into_iter()
        .collect()
}

/// Bytes of the evaluator's memory while it evaluates: the ciphertexts of two
/// layers, the key of squares and products, expanded, and what polynomials work in.
#[must_use]
pub fn memory(circuit: &BatchCircuit<'_>) -> usize {
    let params = circuit.params();
    let of_squares = circuit.square_level().map_or(0, |level| {
        2 * switching_key_words(params, level) + fast_workspace_words(params, level)
    });
    let layers = circuit.model().layers().zip(circuit.steps());
    let of_polynomials = layers.filter_map(|(view, step)| match view.layer {
        Layer::Polynomial { coefficients, .. } if view.layer.is_polynomial() => {
            let level = step.level - step.approach.rescales;
            Some(polynomial_len(params, level, coefficients.len()))
        }
        _ => None,
    });
    let of_polynomials = of_polynomials.max().unwrap_or(0);
    size_of::<u32>() * (circuit.limbs() * params.n() + of_squares + of_polynomials)
}

/// The client: its keys never leave it.
#[derive(Debug)]
pub struct Client<'m> {
    circuit: BatchCircuit<'m>,
    keys: Keys,
}

impl<'m> Client<'m> {
    /// A client with fresh keys.
    ///
    /// # Errors
    /// [`EngineError::Random`].
    pub fn new(circuit: BatchCircuit<'m>) -> Result<Self, EngineError> {
        let keys = Keys::new(circuit.params())?;
        Ok(Self::with_keys(circuit, keys))
    }

    /// A client with keys of the circuit's set.
    #[must_use]
    pub const fn with_keys(circuit: BatchCircuit<'m>, keys: Keys) -> Self {
        Self { circuit, keys }
    }

    /// What the evaluator needs before the first batch.
    ///
    /// # Errors
    /// [`EngineError::Operation`].
    pub fn switching_keys(&mut self) -> Result<Vec<u8>, EngineError> {
        self.keys.switching_keys(&wanted_keys(&self.circuit))
    }

    /// Encrypts up to [`BatchCircuit::samples`] samples, one a slot.
    ///
    /// # Errors
    /// [`EngineError::Count`] for more; [`EngineError::Sample`] for one of another
    /// size; [`EngineError::Operation`].
    pub fn encrypt(&mut self, samples: &[Sample<'_>]) -> Result<Vec<u8>, EngineError> {
        let most = self.circuit.samples();
        if samples.len() > most {
            return Err(EngineError::Count {
                what: "samples of a batch",
                expected: most,
                got: samples.len(),
            });
        }
        let model = self.circuit.model();
        let rows = samples
            .iter()
            .map(|&sample| values_of(model, sample))
            .collect::<Result<Vec<_>, _>>()?;
        let (level, scale) = (self.circuit.input_level(), self.circuit.input_scale());
        let mut bytes = Vec::new();
        for input in 0..model.inputs() {
            let slots = rows.iter().map(|row| row[input]);
            let slots = Zeroizing::new(slots.collect::<Vec<f64>>());
            self.keys.encrypt(&slots, &[], level, scale, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// Decrypts a result: the logits of each of the first `samples`.
    ///
    /// # Errors
    /// As [`Keys::decrypt`]; [`EngineError::Count`].
    pub fn decrypt(&self, bytes: &[u8], samples: usize) -> Result<Vec<Vec<f64>>, EngineError> {
        let (params, outputs) = (self.circuit.params(), self.circuit.model().outputs());
        let most = self.circuit.samples();
        if samples > most {
            return Err(EngineError::Count {
                what: "samples of a batch",
                expected: most,
                got: samples,
            });
        }
        let parts = objects(params, bytes).map_err(refused("the result"))?;
        if parts.len() != outputs {
            return Err(EngineError::Count {
                what: "result ciphertexts",
                expected: outputs,
                got: parts.len(),
            });
        }
        let (level, scale) = (self.circuit.output_level(), self.circuit.output_scale());
        let mut logits = vec![Vec::with_capacity(outputs); samples];
        for object in parts {
            let values = self.keys.decrypt(object, level, scale, 0..samples)?;
            for (logits, value) in logits.iter_mut().zip(values) {
                logits.push(value);
            }
        }
        Ok(logits)
    }
}

/// The evaluator.
#[derive(Debug)]
pub struct Evaluator<'m> {
    circuit: BatchCircuit<'m>,
    keys: Vec<SwitchKey<Vec<u32>>>,
    work: Vec<u32>,
}

impl<'m> Evaluator<'m> {
    /// Reads the client's keys.
    ///
    /// # Errors
    /// [`EngineError::Bytes`] or [`EngineError::Count`] for what is not the
    /// circuit's; [`EngineError::Operation`].
    pub fn new(circuit: BatchCircuit<'m>, keys: &[u8]) -> Result<Self, EngineError> {
        let params = circuit.params();
        let keys = read_keys(params, keys, &wanted_keys(&circuit))?;
        let level = circuit.square_level().unwrap_or(0);
        let work = vec![0; fast_workspace_words(params, level)];
        Ok(Self {
            circuit,
            keys,
            work,
        })
    }

    /// Evaluates the network on one encrypted batch: the encrypted logits, and
    /// what every layer took. `seen` hears of each layer that is done.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn evaluate(
        &mut self,
        bytes: &[u8],
        mut seen: impl FnMut(&StageTime),
    ) -> Result<(Vec<u8>, Vec<StageTime>), EngineError> {
        let start = Instant::now();
        let params = self.circuit.params();
        let mut values = self.read_inputs(bytes)?;
        let mut times = vec![StageTime {
            name: "input".to_owned(),
            time: start.elapsed(),
            level: self.circuit.input_level(),
            scale_log2: self.circuit.input_scale().log2(),
            bytes: bytes.len(),
        }];
        let model = *self.circuit.model();
        let steps = self.circuit.steps().to_vec();
        for (view, step) in model.layers().zip(&steps) {
            let start = Instant::now();
            match view.layer {
                Layer::Conv2d { linear, .. } | Layer::Dense { linear, .. } => {
                    values = self.linear(&view, &linear, step, values)?;
                }
                Layer::Polynomial { coefficients, .. } if view.layer.is_polynomial() => {
                    let coefficients: Vec<f64> = coefficients.iter().map(f64::from).collect();
                    self.polynomials(step, &coefficients, &mut values)?;
                }
                _ => self.squares(step, &mut values)?,
            }
            let name = layer_name(&view);
            let level = step.level - step.rescales;
            let time = StageTime {
                name,
                time: start.elapsed(),
                level: step.level,
                scale_log2: step.output.log2(),
                bytes: values.len() * ciphertext_bytes(params, level)?,
            };
            seen(&time);
            times.push(time);
        }
        let mut out = Vec::new();
        for value in &values {
            let begin = out.len();
            out.resize(begin + ciphertext_bytes(params, value.level())?, 0);
            wire::write_ciphertext(params, value, &mut out[begin..]).map_err(failed("writing"))?;
        }
        Ok((out, times))
    }

    fn read_inputs(&self, bytes: &[u8]) -> Result<Vec<Ct>, EngineError> {
        let (level, scale) = (self.circuit.input_level(), self.circuit.input_scale());
        let (params, what) = (self.circuit.params(), "an input ciphertext");
        let parts = objects(params, bytes).map_err(refused(what))?;
        let expected = self.circuit.model().inputs();
        if parts.len() != expected {
            return Err(EngineError::Count {
                what: "input ciphertexts",
                expected,
                got: parts.len(),
            });
        }
        let read = |object| read_fresh(params, object, level, scale, what);
        parts.into_iter().map(read).collect()
    }

    /// A layer with weights.
    fn linear(
        &self,
        view: &LayerView<'_>,
        linear: &Linear<'_>,
        step: &BatchStep,
        values: Vec<Ct>,
    ) -> Result<Vec<Ct>, EngineError> {
        let params = self.circuit.params();
        let what = "a sum of products";
        let rows = usize::from(view.output.channels);
        let limbs = || vec![0; (step.level + 1) * params.n()];
        let zeros = |count| -> Result<Vec<Ct>, EngineError> {
            let zero = || Ciphertext::zero(params, step.level, step.output, limbs(), limbs());
            let zeros: Result<Vec<Ct>, _> = (0..count).map(|_| zero()).collect();
            zeros.map_err(failed(what))
        };
        let taps = match (view.layer, LinearMap::new(*view)) {
            (Layer::Conv2d { .. }, Some(map)) => map.taps(),
            _ => Taps::Dense {
                inputs: values.len(),
            },
        };
        // A dense layer has one place, a convolution as many as its windows.
        let places = view.output.values() / rows.max(1);
        let mut halves = vec![0; integer_matrix_halves(taps.count())];
        let unit = f64::from(linear.scale);
        let mut windows = Vec::with_capacity(places);
        for place in 0..places {
            // What lies in the padding is zero and has no ciphertext.
            let inside: Vec<(usize, usize)> = (0..taps.count())
                .filter_map(|tap| Some((tap, taps.source(tap, place)?)))
                .collect();
            let inputs: Vec<&Ct> = inside.iter().map(|&(_, source)| &values[source]).collect();
            let weights: Vec<i8> = linear
                .weights
                .chunks_exact(taps.count())
                .flat_map(|row| inside.iter().map(|&(tap, _)| row[tap].cast_signed()))
                .collect();
            let mut window = zeros(rows)?;
            let halves = &mut halves[..integer_matrix_halves(inputs.len())];
            integer_matrix(params, &inputs, &weights, unit, &mut window, halves)
                .map_err(failed(what))?;
            windows.push(window.into_iter());
        }
        // The outputs of a place, one a channel, lie `places` apart.
        let mut outputs = Vec::with_capacity(view.output.values());
        for _ in 0..rows {
            outputs.extend(windows.iter_mut().filter_map(Iterator::next));
        }
        for (k, output) in outputs.iter_mut().enumerate() {
            let bias = linear.biases.get(k / places).map_or(0.0, f64::from);
            Constant::real(bias, step.output)
                .and_then(|bias| add_constant(params, output, &bias))
                .map_err(failed("adding biases"))?;
        }
        Ok(outputs)
    }

    /// A polynomial of all values, in place.
    fn polynomials(
        &mut self,
        step: &BatchStep,
        coefficients: &[f64],
        values: &mut [Ct],
    ) -> Result<(), EngineError> {
        let params = self.circuit.params();
        let what = "a polynomial";
        let level = step.level - step.approach.rescales;
        let mut words = vec![0; polynomial_len(params, level, coefficients.len())];
        let mut scratch = vec![0; params.n()];
        let key = self.keys.first().ok_or(NO_KEY)?;
        let factor = Constant::real(1.0, step.approach.factor).map_err(failed(what))?;
        for value in values {
            multiply_constant(params, value, &factor).map_err(failed(what))?;
            for _ in 0..step.approach.rescales {
                rescale(params, value, &mut scratch).map_err(failed("rescaling"))?;
            }
            let memory = (&mut words[..], &mut self.work[..]);
            polynomial(params, value, coefficients, step.output, key, memory)?;
        }
        Ok(())
    }

    /// Squares all values, in place.
    fn squares(&mut self, step: &BatchStep, values: &mut Vec<Ct>) -> Result<(), EngineError> {
        let params = self.circuit.params();
        let (n, what) = (params.n(), "a square");
        let mut third = vec![0; (step.level + 1) * n];
        let mut scratch = vec![0; n];
        let mut squares = Vec::with_capacity(values.len());
        for value in values.drain(..) {
            let key = self.keys.first().ok_or(NO_KEY)?;
            let mut work =
                Workspace::new(params, step.level, &mut self.work).map_err(failed(what))?;
            let squared = square(params, value, third).map_err(failed(what))?;
            let (mut value, storage) =
                relinearize(params, squared, key, &mut work).map_err(failed(what))?;
            third = storage;
            for _ in 0..step.rescales {
                rescale(params, &mut value, &mut scratch).map_err(failed("rescaling"))?;
            }
            squares.push(value);
        }
        *values = squares;
        Ok(())
    }
}
