//! As many samples as there are slots, one ciphertext per value.

use std::time::Instant;

use he_core::ckks::evaluator::{
    Workspace, add_constant, fast_workspace_words, integer_matrix, integer_matrix_halves,
    multiply_constant, polynomial_words, relinearize, rescale, square,
};
use he_core::ckks::{Ciphertext, Constant};
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{SwitchKey, SwitchTarget};
use he_core::wire;
use he_nn::model::{Layer, LayerView, Linear};
use he_nn::plan::batch::{BatchPlan, BatchStep};
use he_nn::plan::{LinearMap, Taps};

use super::{
    EngineError, Times, ciphertext_bytes, failed, objects, polynomial, read_fresh, read_keys,
    refused,
};

type Ct = Ciphertext<Vec<u32>>;

/// There is an activation and no key.
const NO_KEY: EngineError = EngineError::Count {
    what: "switching keys",
    expected: 1,
    got: 0,
};

/// The relinearisation key, where there is an activation.
#[must_use]
pub fn wanted_keys(plan: &BatchPlan<'_>) -> Vec<(SwitchTarget, usize)> {
    let level = plan.square_level();
    level
        .map(|l| (SwitchTarget::Square, l))
        .into_iter()
        .collect()
}

/// Bytes of the evaluator's memory while it evaluates: the ciphertexts of two
/// layers, the key of squares and products, expanded, and what polynomials work in.
#[must_use]
pub fn memory(plan: &BatchPlan<'_>) -> usize {
    let params = plan.params();
    let of_squares = plan.square_level().map_or(0, |level| {
        2 * switching_key_words(params, level) + fast_workspace_words(params, level)
    });
    let layers = plan.model().layers().zip(plan.steps());
    let of_polynomials = layers.filter_map(|(view, step)| match view.layer {
        Layer::Polynomial { coefficients, .. } if view.layer.is_polynomial() => {
            let level = step.level - step.approach.rescales;
            Some(polynomial_words(
                params,
                level,
                coefficients.len().saturating_sub(1),
            ))
        }
        _ => None,
    });
    let of_polynomials = of_polynomials.max().unwrap_or(0);
    size_of::<u32>() * (plan.limbs() * params.n() + of_squares + of_polynomials)
}

/// The evaluator of batches.
#[derive(Debug)]
pub struct BatchEngine<'m> {
    plan: BatchPlan<'m>,
    keys: Vec<SwitchKey<Vec<u32>>>,
    work: Vec<u32>,
}

impl<'m> BatchEngine<'m> {
    /// Reads the client's keys.
    ///
    /// # Errors
    /// [`EngineError::Bytes`] or [`EngineError::Count`] for what is not the
    /// plan's; [`EngineError::Operation`].
    pub fn new(plan: BatchPlan<'m>, keys: &[u8]) -> Result<Self, EngineError> {
        let params = plan.params();
        let keys = read_keys(params, keys, &wanted_keys(&plan))?;
        let level = plan.square_level().unwrap_or(0);
        let work = vec![0; fast_workspace_words(params, level)];
        Ok(Self { plan, keys, work })
    }

    /// Evaluates the network on one encrypted batch: the encrypted logits, and
    /// what every step took. `seen` hears of each step that is done.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn evaluate(
        &mut self,
        bytes: &[u8],
        mut seen: impl FnMut(),
    ) -> Result<(Vec<u8>, Times), EngineError> {
        let start = Instant::now();
        let params = self.plan.params();
        let mut values = self.read_inputs(bytes)?;
        let mut times = Times {
            input: start.elapsed(),
            steps: Vec::new(),
        };
        let model = *self.plan.model();
        let steps = self.plan.steps().to_vec();
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
            times.steps.push(start.elapsed());
            seen();
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
        let (level, scale) = (self.plan.input_level(), self.plan.input_scale());
        let (params, what) = (self.plan.params(), "an input ciphertext");
        let parts = objects(params, bytes).map_err(refused(what))?;
        let expected = self.plan.model().inputs();
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
        let params = self.plan.params();
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
        // The outputs of a place, one per channel, lie `places` apart.
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
        let params = self.plan.params();
        let what = "a polynomial";
        let level = step.level - step.approach.rescales;
        let mut words =
            vec![0; polynomial_words(params, level, coefficients.len().saturating_sub(1))];
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
        let params = self.plan.params();
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
