//! As many samples as there are slots, one ciphertext per value.
//!
//! Ciphertexts are read, and the outputs of a layer computed, on all threads of rayon's
//! pool. Each is the same whichever thread it is, so results do not depend on their
//! number.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;

use he_core::ckks::evaluator::{
    Workspace, add, add_constant, fast_workspace_words, integer_matrix, integer_matrix_halves,
    multiply_constant, polynomial_words, relinearize, rescale, square,
};
use he_core::ckks::{Ciphertext, Constant};
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{SwitchKey, SwitchTarget};
use he_core::wire;
use he_nn::model::{Integers, Layer, LayerView, Linear};
use he_nn::plan::batch::{BatchPlan, BatchStep};
use he_nn::plan::{LinearMap, Taps};
use rayon::prelude::*;

use super::{
    EngineError, Times, ciphertext_bytes, failed, objects, polynomial, read_fresh, read_keys,
    refused,
};

type Ct = Ciphertext<Vec<u32>>;

/// Weights of 16 bits are two digits of this base, as products are with 8 bits.
const DIGIT: f64 = 256.0;

/// The lower digit of a weight: the weight itself where that has 8 bits.
const fn lower_digit(weight: i16) -> i8 {
    weight as i8
}

/// The upper digit: what the lower one, which has a sign, leaves. No weight is beyond
/// [`Integers::MAX_HALF`], so it has 8 bits.
const fn upper_digit(weight: i16) -> i8 {
    ((weight - lower_digit(weight) as i16) >> 8) as i8
}

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

/// Bytes of the evaluator's memory while it evaluates on so many threads: the ciphertexts
/// of two layers, the key of squares and products, expanded, and per thread what squares and
/// polynomials work in.
#[must_use]
pub fn memory(plan: &BatchPlan<'_>, threads: usize) -> usize {
    let params = plan.params();
    let n = params.n();
    let of_keys = plan
        .square_level()
        .map_or(0, |level| 2 * switching_key_words(params, level));
    let of_squares = plan.square_level().map_or(0, |level| {
        fast_workspace_words(params, level) + (level + 2) * n
    });
    let layers = plan.model().layers().zip(plan.steps());
    let of_polynomials = layers.filter_map(|(view, step)| match view.layer {
        Layer::Polynomial { coefficients, .. } if view.layer.is_polynomial() => {
            let level = step.level - step.approach.rescales;
            let degree = coefficients.len().saturating_sub(1);
            Some(polynomial_words(params, level, degree))
        }
        _ => None,
    });
    let of_thread = of_squares + of_polynomials.max().unwrap_or(0);
    size_of::<u32>() * (plan.limbs() * n + of_keys + threads * of_thread)
}

/// The evaluator of batches.
#[derive(Debug)]
pub struct BatchEngine<'m> {
    plan: BatchPlan<'m>,
    keys: Vec<SwitchKey<Vec<u32>>>,
    /// Processor time of all threads, in nanoseconds.
    cpu: AtomicU64,
}

/// Outputs of a linear layer that are computed at a time: rows of the weights at a place.
type Tile = (usize, Range<usize>);

impl<'m> BatchEngine<'m> {
    /// Reads the client's keys.
    ///
    /// # Errors
    /// [`EngineError::Bytes`] or [`EngineError::Count`] for what is not the
    /// plan's; [`EngineError::Operation`].
    pub fn new(plan: BatchPlan<'m>, keys: &[u8]) -> Result<Self, EngineError> {
        let keys = read_keys(plan.params(), keys, &wanted_keys(&plan))?;
        Ok(Self {
            plan,
            keys,
            cpu: AtomicU64::new(0),
        })
    }

    /// Does some of the work on the thread that has it, and counts its processor time.
    fn counted<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = ThreadTime::now();
        let done = work();
        let took = start.elapsed().as_nanos() as u64;
        self.cpu.fetch_add(took, Ordering::Relaxed);
        done
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
        self.cpu.store(0, Ordering::Relaxed);
        let params = self.plan.params();
        let mut values = self.read_inputs(bytes)?;
        let mut times = Times {
            input: start.elapsed(),
            ..Times::default()
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
                _ => values = self.squares(step, values)?,
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
        times.cpu = Duration::from_nanos(self.cpu.load(Ordering::Relaxed));
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
        let read = |object| self.counted(|| read_fresh(params, object, level, scale, what));
        parts.into_par_iter().map(read).collect()
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
        // A dense layer has one place, a convolution as many as its windows. Where there
        // are fewer places than threads, each takes some of the rows.
        let places = view.output.values() / rows.max(1);
        let shares = rayon::current_num_threads().div_ceil(places.max(1));
        let share = rows.div_ceil(shares).max(1);
        let tiles: Vec<Tile> = (0..places)
            .flat_map(|place| {
                let begins = (0..rows).step_by(share);
                begins.map(move |begin| (place, begin..rows.min(begin + share)))
            })
            .collect();
        let unit = f64::from(linear.scale);
        let halves = || vec![0; integer_matrix_halves(taps.count())];
        let of_tile = |halves: &mut Vec<i16>, (place, range): &Tile| {
            // What lies in the padding is zero and has no ciphertext.
            let inside: Vec<(usize, usize)> = (0..taps.count())
                .filter_map(|tap| Some((tap, taps.source(tap, *place)?)))
                .collect();
            let inputs: Vec<&Ct> = inside.iter().map(|&(_, source)| &values[source]).collect();
            // Missing ones would be refused by the product.
            let integers = |row: usize| {
                let of_tap =
                    move |&(tap, _): &(usize, usize)| linear.weight(taps.count(), row, tap);
                inside.iter().filter_map(of_tap)
            };
            let halves = &mut halves[..integer_matrix_halves(inputs.len())];
            let mut sums = |digit: fn(i16) -> i8, unit: f64| {
                let weights: Vec<i8> = range.clone().flat_map(integers).map(digit).collect();
                let mut window = zeros(range.len())?;
                integer_matrix(params, &inputs, &weights, unit, &mut window, halves)
                    .map_err(failed(what))?;
                Ok::<_, EngineError>(window)
            };
            let mut window = sums(lower_digit, unit)?;
            if let Integers::Halves(_) = linear.weights {
                // One of the upper digit stands for so many.
                let upper = sums(upper_digit, DIGIT * unit)?;
                let factor = Constant::real(1.0, DIGIT).map_err(failed(what))?;
                for (sum, mut upper) in window.iter_mut().zip(upper) {
                    multiply_constant(params, &mut upper, &factor).map_err(failed(what))?;
                    add(params, sum, &upper).map_err(failed(what))?;
                }
            }
            for (row, output) in range.clone().zip(&mut window) {
                if let multiplier @ 2.. = linear.multiplier(row) {
                    let factor = Constant::real(multiplier.into(), 1.0).map_err(failed(what))?;
                    multiply_constant(params, output, &factor).map_err(failed(what))?;
                }
                let bias = linear.biases.get(row).map_or(0.0, f64::from);
                Constant::real(bias, step.output)
                    .and_then(|bias| add_constant(params, output, &bias))
                    .map_err(failed("adding biases"))?;
            }
            Ok(window)
        };
        let tiles = tiles.par_iter().map_init(halves, |halves, tile| {
            self.counted(|| of_tile(halves, tile))
        });
        let tiles: Vec<Vec<Ct>> = tiles.collect::<Result<_, EngineError>>()?;
        // One after the other they are the rows of the first place, then of the next; the
        // outputs of a place, one per channel, lie `places` apart.
        let mut by_place: Vec<_> = tiles.into_iter().flatten().map(Some).collect();
        let mut outputs = Vec::with_capacity(by_place.len());
        for row in 0..rows {
            for place in 0..places {
                let output = by_place.get_mut(place * rows + row);
                outputs.extend(output.and_then(Option::take));
            }
        }
        Ok(outputs)
    }

    /// A polynomial of all values, in place.
    fn polynomials(
        &self,
        step: &BatchStep,
        coefficients: &[f64],
        values: &mut [Ct],
    ) -> Result<(), EngineError> {
        let params = self.plan.params();
        let what = "a polynomial";
        let level = step.level - step.approach.rescales;
        let degree = coefficients.len().saturating_sub(1);
        let key = self.keys.first().ok_or(NO_KEY)?;
        let factor = Constant::real(1.0, step.approach.factor).map_err(failed(what))?;
        let memory = || {
            (
                vec![0; polynomial_words(params, level, degree)],
                vec![0; fast_workspace_words(params, step.level)],
                vec![0; params.n()],
            )
        };
        type Memory = (Vec<u32>, Vec<u32>, Vec<u32>);
        let of_value = |(words, work, scratch): &mut Memory, value: &mut Ct| {
            multiply_constant(params, value, &factor).map_err(failed(what))?;
            for _ in 0..step.approach.rescales {
                rescale(params, value, scratch).map_err(failed("rescaling"))?;
            }
            let memory = (&mut words[..], &mut work[..]);
            polynomial(params, value, coefficients, step.output, key, memory)
        };
        values
            .par_iter_mut()
            .map_init(memory, |memory, value| {
                self.counted(|| of_value(memory, value))
            })
            .collect()
    }

    /// Squares of all values.
    fn squares(&self, step: &BatchStep, values: Vec<Ct>) -> Result<Vec<Ct>, EngineError> {
        let params = self.plan.params();
        let (n, what) = (params.n(), "a square");
        let key = self.keys.first().ok_or(NO_KEY)?;
        let memory = || {
            (
                vec![0; (step.level + 1) * n],
                vec![0; fast_workspace_words(params, step.level)],
                vec![0; n],
            )
        };
        type Memory = (Vec<u32>, Vec<u32>, Vec<u32>);
        let of_value = |(third, work, scratch): &mut Memory, value: Ct| {
            let mut work = Workspace::new(params, step.level, work).map_err(failed(what))?;
            let storage = std::mem::take(third);
            let squared = square(params, value, storage).map_err(failed(what))?;
            let (mut value, storage) =
                relinearize(params, squared, key, &mut work).map_err(failed(what))?;
            *third = storage;
            for _ in 0..step.rescales {
                rescale(params, &mut value, scratch).map_err(failed("rescaling"))?;
            }
            Ok(value)
        };
        values
            .into_par_iter()
            .map_init(memory, |memory, value| {
                self.counted(|| of_value(memory, value))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_every_weight() {
        let max = Integers::MAX_HALF;
        for weight in -max..=max {
            let [upper, lower] = [upper_digit(weight), lower_digit(weight)].map(i32::from);
            assert_eq!(DIGIT as i32 * upper + lower, i32::from(weight));
            // Of 8 bits there is no upper one.
            assert!(upper == 0 || weight.unsigned_abs() > 127);
        }
    }
}
