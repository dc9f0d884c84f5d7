//! Values and errors through a plan: a fold over its tasks.
//!
//! Two figures go along: the worst case over all inputs, but with a probability of 2^-64
//! over honest keys and coins, as long as nothing wraps around, and the deviation of
//! independent errors for values like those of training. Behind an activation that is the
//! mean over such values, as a layer sums many of them: a single value at the end of its range has a
//! larger error, three times that of the mean for a square, more for a steep polynomial.
//! What a sample that has such values may differ by is found with the sample at hand
//! (`clear::error_alone`, `clear::error_in_batch`).

use super::WeightMode;
use super::order::{Op, Operand};
use super::{
    BIAS_SHIFT, Form, HEADROOM_BITS, LinearMap, LinearScales, LogitError, Plan, PlanError, Step,
};
use crate::model::Input;
use core::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
use he_core::ckks::evaluator::polynomial_bound;
use he_core::ckks::{Message, Noise};
use he_core::params::Params;

/// The largest value in training over the root mean square of values: a
/// pessimist's guess, as a model holds the largest alone.
const CREST: f64 = 3.0;

/// What encoding in double precision adds to a value of magnitude 1: about 2^-50, and some
/// room. At the scales of published values it is more than an encryption does.
const DOUBLE: f64 = 1.0 / (1u64 << 48) as f64;

/// Standard deviation of the error of an input of a batch, times the scale: of its encryption
/// and its encoding.
pub(super) fn input_sigma(params: &Params, scale: f64) -> f64 {
    libm::hypot(Noise::fresh(params).sigma, DOUBLE * scale)
}

/// What encoding a bias adds to the sums of a batch.
/// Its bound is counted as rounding.
pub(super) const BIAS: Noise = Noise {
    bound: 0.0,
    sigma: 0.3,
};

/// How large the weights of a map are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Norms {
    /// Largest magnitude of a weight.
    pub weight: f64,
    /// Largest magnitude of a bias.
    pub bias: f64,
    /// Largest sum of magnitudes over the weights of an output.
    pub sum: f64,
    /// Largest root of the sum of squares over the weights of an output.
    pub root: f64,
    /// The first output all of whose weights are zero.
    pub dead: Option<usize>,
}

impl Norms {
    /// Of a map; `row` and `scratch` as [`LinearMap::row`] takes them.
    ///
    /// # Errors
    /// As [`LinearMap::row`].
    pub fn of(
        map: &LinearMap<'_>,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<Self, PlanError> {
        let mut norms = Self::default();
        for output in 0..map.outputs() {
            let bias = map.row(output, row, scratch)?;
            let (mut sum, mut squares) = (0.0, 0.0);
            for weight in row.iter().take(map.inputs()) {
                sum += libm::fabs(*weight);
                squares += weight * weight;
                norms.weight = libm::fmax(norms.weight, libm::fabs(*weight));
            }
            if sum == 0.0 && norms.dead.is_none() {
                norms.dead = Some(output);
            }
            norms.bias = libm::fmax(norms.bias, libm::fabs(bias));
            norms.sum = libm::fmax(norms.sum, sum);
            norms.root = libm::fmax(norms.root, libm::sqrt(squares));
        }
        Ok(norms)
    }
}

/// The deviation of a polynomial's results, times the scale that they are rescaled
/// to, for inputs at a level and scale with this error: the mean over values as they
/// are in training, Gaussian ones as far as their range goes, as a slope may be
/// steep where few of them are.
///
/// # Errors
/// As [`polynomial_bound`].
pub(super) fn polynomial_sigma(
    params: &Params,
    coefficients: &[f64],
    (level, scale, target): (usize, f64, f64),
    rms: f64,
    noise: Noise,
) -> he_core::Result<f64> {
    /// Magnitudes that stand for all.
    const POINTS: u32 = 24;
    let (mut squares, mut weights) = (0.0, 0.0);
    for point in 0..POINTS {
        let at = CREST * (f64::from(point) + 0.5) / f64::from(POINTS);
        let value = at * rms;
        let bound = polynomial_bound(params, coefficients, level, scale, target, value, noise)?;
        let weight = libm::exp(-0.5 * at * at);
        squares += weight * bound.noise.sigma * bound.noise.sigma;
        weights += weight;
    }
    Ok(libm::sqrt(squares / weights))
}

/// The scale of a polynomial's inputs, a power of two up to the prime `near` it,
/// that leaves its results the least error. With a lower one high powers of large
/// values are at lower scales still, and what they are multiplied by is at higher
/// ones.
pub(super) fn polynomial_input_scale(
    params: &Params,
    coefficients: &[f64],
    (level, target): (usize, f64),
    domain: f64,
    near: f64,
) -> f64 {
    /// By how many bits it is lower at most.
    const LOWER: i32 = 8;
    let fresh = Noise::division(params);
    let of = |scale| {
        let place = (level, scale, target);
        polynomial_sigma(params, coefficients, place, domain / CREST, fresh)
    };
    let mut best = (near, f64::INFINITY);
    for lower in 0..=LOWER {
        let scale = libm::ldexp(near, -lower);
        match of(scale) {
            Ok(sigma) if sigma < best.1 => best = (scale, sigma),
            _ => {}
        }
    }
    best.0
}

/// What the errors of a layer's tasks depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerFigures {
    pub(super) form: Form,
    pub(super) scales: LinearScales,
    pub(super) norms: Norms,
    /// Largest result in training.
    pub(super) range: f64,
    pub(super) weights: WeightMode,
    /// Whether weights and biases are encoded in single precision.
    pub(super) single: bool,
}

impl LayerFigures {
    /// Error of an encoded weight's slot, times its scale.
    fn weight(&self, params: &Params) -> Noise {
        match self.weights {
            WeightMode::Encrypted => Noise::fresh(params),
            WeightMode::Plain if self.single => {
                Noise::rounding_f32(params, self.norms.weight * self.scales.weights)
            }
            WeightMode::Plain => Noise::rounding(params),
        }
    }

    /// Error of an encoded bias's slot, times the scale of the sums.
    fn bias(&self, params: &Params) -> Noise {
        match self.weights {
            WeightMode::Encrypted => Noise::fresh(params),
            WeightMode::Plain if self.single => {
                let shift = libm::exp2(f64::from(BIAS_SHIFT));
                let magnitude = self.norms.bias * self.scales.sums() / shift;
                Noise::rounding_f32(params, magnitude).times(shift, shift)
            }
            WeightMode::Plain => Noise::rounding(params),
        }
    }

    /// Inputs that a slot of the result sums up, those that only fill up included.
    const fn terms(&self) -> f64 {
        match self.form {
            Form::Blocks { pairs, .. } => 2.0 * pairs as f64,
            Form::Diagonals { period, .. } | Form::Rows { period, .. } => period as f64,
        }
    }
}

/// What is known of the accumulator and of what is kept beside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// Error of a slot, times the scale.
    noise: Noise,
    /// Value of a slot.
    value: Message,
    /// Error of fresh inputs.
    fresh: Noise,
    /// Error of register 0, which has not been rotated.
    unrotated: Noise,
    /// The largest of the registers' errors.
    saved: Noise,
    /// A layer's products, all of them, once the first is formed.
    products: Option<Noise>,
    /// Of a batch: the part of the error's bound that is the rounding of inputs and biases
    /// to integers. It is not in `noise`.
    encoding: f64,
    /// Of a batch: every value has an encryption of its own, whose error is independent of
    /// the others'.
    is_independent: bool,
}

impl State {
    /// Of fresh inputs: pixels are within 1; standardised features have no bound.
    pub(super) fn fresh(params: &Params, input: Input<'_>) -> Self {
        let value = match input {
            Input::Image(_) => Message {
                bound: 1.0,
                rms: 0.5,
            },
            Input::Features { .. } => Message {
                bound: f64::INFINITY,
                rms: 1.0,
            },
        };
        let fresh = Noise::fresh(params);
        Self {
            noise: fresh,
            value,
            fresh,
            unrotated: Noise::ZERO,
            saved: Noise::ZERO,
            products: None,
            encoding: 0.0,
            is_independent: false,
        }
    }

    /// Without any error, of values with this root mean square: what tasks leave is what they
    /// add.
    fn exact(rms: f64) -> Self {
        Self {
            noise: Noise::ZERO,
            value: Message { bound: 0.0, rms },
            fresh: Noise::ZERO,
            unrotated: Noise::ZERO,
            saved: Noise::ZERO,
            products: None,
            encoding: 0.0,
            is_independent: false,
        }
    }

    /// Of a batch: fresh inputs, one value of all samples in each.
    pub(super) fn batch(params: &Params, input: Input<'_>, scale: f64) -> Self {
        let rounding = Noise::rounding(params).bound;
        let mut state = Self::fresh(params, input);
        state.noise.bound -= rounding;
        state.noise.sigma = input_sigma(params, scale);
        state.encoding = rounding;
        state.is_independent = true;
        state
    }

    /// One task of a layer with weights.
    pub(super) fn task(&mut self, params: &Params, op: Op, level: usize, layer: &LayerFigures) {
        let switch = Noise::key_switch(params, level).unwrap_or(Noise::UNKNOWN);
        match op {
            // From the first product on the accumulator holds the noise of key
            // switches alone, which rotations double; that of the products is
            // counted for all of a layer's sums at once.
            Op::Clear { .. } => self.noise = Noise::ZERO,
            Op::Receive => self.noise = self.fresh,
            Op::Save(0) => {
                self.unrotated = self.noise;
                self.saved = self.noise;
            }
            Op::Save(_) => {
                self.saved = Noise {
                    bound: libm::fmax(self.saved.bound, self.noise.bound),
                    sigma: libm::fmax(self.saved.sigma, self.noise.sigma),
                };
            }
            Op::Load(_) => self.noise = self.unrotated,
            Op::Pair(_) => self.noise = self.noise.plus(self.unrotated),
            Op::Product { operand, .. } => {
                if self.products.is_some() {
                    return;
                }
                let operand = match operand {
                    Operand::Input => self.fresh,
                    Operand::Register(_) => self.saved,
                    Operand::Accumulator => self.noise,
                };
                self.noise = Noise::ZERO;
                self.products = Some(self.multiplied(params, operand, layer));
            }
            Op::Rotate(_) | Op::Relinearize => self.noise = self.noise.plus(switch),
            Op::RotateAdd(_) => self.noise = self.noise.times(2.0, SQRT_2).plus(switch),
            Op::Bias => {
                // Of products it is that of all lanes already.
                let products = self.products.take().unwrap_or(Noise::ZERO);
                let lanes = layer.form.lanes();
                self.noise = of_lanes(self.noise, lanes)
                    .plus(products)
                    .plus(of_lanes(layer.bias(params), lanes));
                self.value = Message {
                    bound: layer.norms.sum * self.value.bound + layer.norms.bias,
                    rms: layer.range / CREST,
                };
            }
            Op::Rescale => self.divide(params, level),
            Op::Square | Op::Polynomial | Op::Mask => {}
        }
    }

    /// The error of a layer's sums of products for operands with an error.
    ///
    /// In complex slots the product of `x + i x'` with `(w - i w') / 2` has an error
    /// of which twice the real part is taken: `1 / sqrt(2)` for sigma, which counts
    /// both parts of an error, and for the error of a weight `sqrt(2)`, as a pair of
    /// values is `sqrt(2)` times as large as one of them.
    fn multiplied(&self, params: &Params, operand: Noise, layer: &LayerFigures) -> Noise {
        let (operands, weights) = if layer.form.is_complex() {
            (FRAC_1_SQRT_2, SQRT_2)
        } else {
            (1.0, 1.0)
        };
        let LayerFigures { norms, scales, .. } = layer;
        let of_weights = layer.weight(params);
        let terms = layer.terms();
        let (bound, rms) = (
            self.value.bound * scales.input,
            self.value.rms * scales.input,
        );
        operand
            .times(
                norms.sum * scales.weights,
                operands * norms.root * scales.weights,
            )
            .plus(of_weights.times(weights * terms * bound, weights * libm::sqrt(terms) * rms))
            .plus(operand.times(
                terms * of_weights.bound,
                libm::sqrt(terms) * of_weights.sigma,
            ))
    }

    /// A square of values at a scale, relinearised at a level.
    pub(super) fn square(&mut self, params: &Params, level: usize, scale: f64, range: f64) {
        let (bound, rms) = (self.value.bound * scale, self.value.rms * scale);
        // What the encoding rounds stands before the encryption's error as the value does.
        let encoding = self.encoding;
        self.encoding *= 2.0 * bound + encoding;
        self.is_independent = false;
        self.noise = self
            .noise
            .times(2.0 * (bound + encoding), 2.0 * rms)
            .plus(self.noise.times(self.noise.bound, self.noise.sigma))
            .plus(Noise::key_switch(params, level).unwrap_or(Noise::UNKNOWN));
        self.value = Message {
            bound: self.value.bound * self.value.bound,
            rms: range / CREST,
        };
    }

    /// A polynomial of values at a level and scale, rescaled to a scale, values up to
    /// `domain` and results up to `range` in training: the headroom in bits, counted as
    /// that of a square is. Where [`HEADROOM_BITS`] are left, values up to twice the
    /// `domain` keep all powers and sums within half the modulus.
    ///
    /// # Errors
    /// As [`polynomial_bound`].
    pub(super) fn polynomial(
        &mut self,
        params: &Params,
        coefficients: &[f64],
        place: (usize, f64, f64),
        (domain, range): (f64, f64),
    ) -> he_core::Result<f64> {
        let (level, scale, target) = place;
        self.noise.bound += core::mem::take(&mut self.encoding);
        self.is_independent = false;
        let of = |value, noise| {
            polynomial_bound(params, coefficients, level, scale, target, value, noise)
        };
        let beyond = libm::exp2(f64::from(HEADROOM_BITS) / 2.0);
        let headroom = f64::from(HEADROOM_BITS) + of(beyond * domain, Noise::ZERO)?.headroom_bits;
        let sigma = polynomial_sigma(params, coefficients, place, self.value.rms, self.noise)?;
        let largest = self.value.bound;
        let bound = if largest.is_finite() {
            let all = of(largest, self.noise)?;
            // What wraps around has no bound.
            if all.headroom_bits > 0.0 {
                all.noise.bound
            } else {
                f64::INFINITY
            }
        } else {
            f64::INFINITY
        };
        self.noise = Noise { bound, sigma };
        self.value = Message {
            bound: if largest.is_finite() {
                let powers = coefficients.iter().rev();
                powers.fold(0.0, |sum, c| sum * largest + libm::fabs(*c))
            } else {
                f64::INFINITY
            },
            rms: range / CREST,
        };
        Ok(headroom)
    }

    /// A layer of a batch: an exact sum of integers' products, and biases. `unit` is
    /// what an integer 1 stands for.
    ///
    /// Errors of encryptions that nothing was computed from yet are independent, and their
    /// sum with weights, which are fixed before anything is encrypted, is sub-Gaussian with
    /// the sum of the squares (`he_core::ckks::noise`): a polynomial more of those that
    /// the bound is for.
    pub(super) fn integers(&mut self, norms: &Norms, unit: f64, range: f64) {
        let coherent = if self.is_independent {
            norms.root
        } else {
            norms.sum
        };
        self.is_independent = false;
        self.encoding = self.encoding * norms.sum / unit + 0.5;
        self.noise = self
            .noise
            .times(coherent / unit, norms.root / unit)
            .plus(BIAS);
        self.value = Message {
            bound: norms.sum * self.value.bound + norms.bias,
            rms: range / CREST,
        };
    }

    /// Samples with a value above this are refused before they are encrypted.
    pub(super) fn limit(&mut self, largest: f64) {
        self.value.bound = libm::fmin(self.value.bound, largest);
    }

    /// A product with an integer that goes into the scale.
    pub(super) fn scaled(&mut self, factor: f64) {
        self.noise = self.noise.times(factor, factor);
        self.encoding *= factor;
    }

    /// A rescaling from a level.
    pub(super) fn divide(&mut self, params: &Params, level: usize) {
        let unit = 1.0 / super::prime_value(params, level);
        self.encoding *= unit;
        self.noise = self.noise.times(unit, unit).plus(Noise::division(params));
    }

    pub(super) fn logit_error(&self, scale: f64) -> LogitError {
        LogitError {
            worst_case: (self.noise.bound + self.encoding) / scale,
            of_encryption: self.noise.bound / scale,
            six_sigma: 6.0 * self.noise.sigma / scale,
        }
    }
}

/// What is added to the error of one sample, of which the values are known. Deviations are
/// of complex errors, of which a real part has `1 / sqrt(2)`.
impl Plan<'_> {
    /// Of an input, as it is encrypted.
    #[must_use]
    pub fn input_sigma(&self) -> f64 {
        Noise::fresh(self.params()).sigma / self.input_scale()
    }

    /// Of a result of a step with weights, by the step itself: by weights and biases as they
    /// are encoded or encrypted, switches and the rescaling. `root` is the root of the sum of
    /// the squares of what a result takes.
    ///
    /// # Errors
    /// [`PlanError::Buffer`], as [`Norms::of`] has it; 0 for another step.
    pub fn layer_sigma(
        &self,
        index: usize,
        root: f64,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<f64, PlanError> {
        let Some(Step::Linear {
            map, form, scales, ..
        }) = self.steps().get(index)
        else {
            return Ok(0.0);
        };
        let figures = self.figures(map, *form, *scales, Norms::of(map, row, scratch)?);
        let mut state = State::exact(root / libm::sqrt(figures.terms()));
        self.tasks_of(index, |task| {
            state.task(self.params(), task.op, task.level.into(), &figures);
        });
        // Behind complex slots a fold counts the real part alone.
        let parts = if form.is_complex() { SQRT_2 } else { 1.0 };
        Ok(parts * state.noise.sigma / scales.output)
    }

    /// Of a result of an activation, by the activation itself, where it takes `value`; 0 for
    /// another step.
    ///
    /// # Errors
    /// As [`polynomial_bound`]; those of a level that the set has not.
    pub fn activation_sigma(&self, index: usize, value: f64) -> he_core::Result<f64> {
        let params = self.params();
        match self.steps().get(index) {
            Some(Step::Square { level, output, .. }) => {
                let mut state = State::exact(0.0);
                state.noise = Noise::key_switch(params, *level)?;
                state.divide(params, *level);
                Ok(state.noise.sigma / output)
            }
            Some(Step::Polynomial {
                coefficients,
                level,
                input,
                output,
                ..
            }) => {
                let value = libm::fabs(value);
                let bound = polynomial_bound(
                    params,
                    coefficients,
                    *level,
                    *input,
                    *output,
                    value,
                    Noise::ZERO,
                )?;
                Ok(bound.noise.sigma / output)
            }
            Some(Step::Linear { .. }) | None => Ok(0.0),
        }
    }
}

/// The error of a sum of slots, each of which has this one.
fn of_lanes(noise: Noise, lanes: usize) -> Noise {
    let lanes = lanes as f64;
    noise.times(lanes, libm::sqrt(lanes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Shape;
    use he_core::params::N4096_DEPTH3 as P;

    /// The worst case is over every image that there is, by the norms of the weights: what
    /// training has seen moves the expected error, not the bound, so samples unlike those
    /// of training are within it.
    #[test]
    fn the_worst_case_does_not_depend_on_ranges_of_training() {
        let shape = Shape::flat(16);
        let norms = Norms {
            weight: 0.5,
            bias: 0.25,
            sum: 4.0,
            root: 1.5,
            dead: None,
        };
        let of = |range: f64| {
            let mut state = State::batch(&P, Input::Image(shape), f64::from(1 << 20));
            state.integers(&norms, 1.0 / 64.0, range);
            state.square(&P, 3, f64::from(1 << 20), range);
            state.divide(&P, 3);
            state.integers(&norms, 1.0 / 64.0, range);
            state.logit_error(f64::from(1 << 20))
        };
        let (narrow, wide) = (of(1.0), of(1000.0));
        assert!(narrow.worst_case.is_finite());
        assert_eq!(narrow.worst_case.to_bits(), wide.worst_case.to_bits());
        assert!(of(1.0).six_sigma <= narrow.worst_case);
    }
}
