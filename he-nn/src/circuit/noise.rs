//! Values and errors through a circuit.
//!
//! Two figures go along, as in [`crate::plan`]: the worst case over all inputs
//! and all outcomes of the sampling, and the deviation of independent errors for
//! values like those of training. Behind an activation that is the mean over such
//! values, as a layer sums many of them: a single value at the end of its range has a
//! larger error, three times that of the mean for a square, more for a steep polynomial.

use super::{CircuitError, Form, LinearMap, LinearScales, Weights};
use crate::model::Input;
use crate::plan::{HEADROOM_BITS, LogitError};
use core::f64::consts::SQRT_2;
use he_core::ckks::evaluator::polynomial_bound;
use he_core::ckks::{Message, Noise};
use he_core::params::Params;

/// The largest value in training over the root mean square of values: a
/// pessimist's guess, as a model holds the largest alone.
const CREST: f64 = 3.0;

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
    ) -> Result<Self, CircuitError> {
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

/// What is known of a ciphertext of the circuit.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// Error of a slot, times the scale.
    noise: Noise,
    /// Value of a slot.
    value: Message,
    weights: Weights,
}

impl State {
    /// Of fresh inputs: pixels are within 1; standardised features have no bound.
    pub(super) fn fresh(params: &Params, input: Input<'_>, weights: Weights) -> Self {
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
        Self {
            noise: Noise::fresh(params),
            value,
            weights,
        }
    }

    /// A layer with weights, the first or not.
    pub(super) fn linear(
        &mut self,
        params: &Params,
        form: Form,
        level: usize,
        scales: &LinearScales,
        norms: &Norms,
        (first, range): (bool, f64),
    ) {
        let switch = Noise::key_switch(params, level).unwrap_or(Noise::UNKNOWN);
        if let Form::Diagonals { baby, complex, .. } = form {
            if complex && !first {
                // Paired with a rotation of itself.
                self.noise = self.noise.plus(self.noise).plus(switch);
            }
            if baby > 1 {
                self.noise = self.noise.plus(switch);
            }
        }
        let of_weights = match self.weights {
            Weights::Plain => Noise::rounding(params),
            Weights::Encrypted => Noise::fresh(params),
        };
        let terms = match form {
            Form::Blocks { pairs, .. } => 2.0 * pairs as f64,
            Form::Diagonals { period, .. } | Form::Rows { period } => period as f64,
        };
        let (bound, rms) = (
            self.value.bound * scales.input,
            self.value.rms * scales.input,
        );
        self.noise = self
            .noise
            .times(norms.sum * scales.weights, norms.root * scales.weights)
            .plus(of_weights.times(terms * bound, libm::sqrt(terms) * rms))
            .plus(self.noise.times(
                terms * of_weights.bound,
                libm::sqrt(terms) * of_weights.sigma,
            ))
            .plus(self.switches(params, form, switch))
            .plus(of_weights);
        self.value = Message {
            bound: norms.sum * self.value.bound + norms.bias,
            rms: range / CREST,
        };
    }

    /// The key switches of a layer's sums.
    fn switches(&self, params: &Params, form: Form, switch: Noise) -> Noise {
        let giants = form.giants() as f64;
        let relinearized = match self.weights {
            Weights::Plain => giants - 1.0,
            Weights::Encrypted => 2.0 * giants - 1.0,
        };
        let mut noise = switch.times(relinearized, libm::sqrt(relinearized));
        let folds = form.folds(params.slots()).count() + usize::from(form.is_complex());
        for _ in 0..folds {
            noise = noise.times(2.0, SQRT_2).plus(switch);
        }
        noise
    }

    /// A square of values at a scale, relinearised at a level.
    pub(super) fn square(&mut self, params: &Params, level: usize, scale: f64, range: f64) {
        let (bound, rms) = (self.value.bound * scale, self.value.rms * scale);
        self.noise = self
            .noise
            .times(2.0 * bound, 2.0 * rms)
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
    pub(super) fn integers(&mut self, norms: &Norms, unit: f64, range: f64) {
        self.noise = self
            .noise
            .times(norms.sum / unit, norms.root / unit)
            .plus(Noise {
                bound: 0.5,
                sigma: 0.3,
            });
        self.value = Message {
            bound: norms.sum * self.value.bound + norms.bias,
            rms: range / CREST,
        };
    }

    /// A product with an integer that goes into the scale.
    pub(super) fn scaled(&mut self, factor: f64) {
        self.noise = self.noise.times(factor, factor);
    }

    /// A rescaling from a level.
    pub(super) fn divide(&mut self, params: &Params, level: usize) {
        let unit = 1.0 / super::prime_value(params, level);
        self.noise = self.noise.times(unit, unit).plus(Noise::division(params));
    }

    pub(super) fn logit_error(&self, scale: f64) -> LogitError {
        LogitError {
            worst_case: self.noise.bound / scale,
            six_sigma: 6.0 * self.noise.sigma / scale,
        }
    }
}
