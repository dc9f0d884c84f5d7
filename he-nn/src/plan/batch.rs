//! Batch packing: one sample per slot, one ciphertext per value.
//!
//! A weight is an integer times the layer's scale, so a layer is a sum of
//! ciphertexts times small integers: exact, without an encoding, without a
//! rescaling, and the scale goes up by the inverse of the layer's. Layers that
//! follow each other are not merged. Only activations take levels. A square is
//! followed by as many rescalings as leave a scale of [`MIN_SCALE_LOG2`] bits. The
//! powers of a polynomial take one rescaling each, so its input is first brought to a
//! scale near their primes: multiplied by a power of two, which is exact, and
//! rescaled.
//!
//! Encrypted weights would take a ciphertext each and are refused. A polynomial takes a
//! level more here than in latency packing, for that first rescaling.

use super::bound::{BIAS, State, input_sigma, polynomial_input_scale};
use super::{Coefficients, HEADROOM_BITS, LinearMap, LogitError, Norms, PlanError};
use crate::model::{Input, Layer, LayerView, Model};
use he_core::ckks::Noise;
use he_core::ckks::constant::CONSTANT_LIMIT_LOG2;
use he_core::ckks::evaluator::{
    PolynomialOutcome, polynomial_bound, polynomial_levels, polynomial_outcome,
};
use he_core::params::Params;

/// Least scale of values, as bits: the rounding of a rescaling has a standard
/// deviation of about 2^-12 of a slot then (`he-core/PRECISION.md`).
pub const MIN_SCALE_LOG2: f64 = 22.0;

/// Scale of the encrypted inputs, as bits.
const INPUT_SCALE_LOG2: i32 = 22;

/// The largest scale of inputs that [`BatchPlan::wide`] tries: pixels, which are at most 1,
/// and standardised features up to 2^6 are encoded in 60 bits.
const WIDE_SCALES_LOG2: [i32; 2] = [60, 54];

/// The largest least scale behind a square that it tries, and in what steps it goes down to
/// [`MIN_SCALE_LOG2`], as bits: a rescaling's error is far below the inputs' then, and noise
/// of 118 bits, the most that is drawn, far above that of a result.
const WIDE_KEPT_LOG2: (i32, usize) = (90, 4);

/// What results of a layer may be in a plan by [`BatchPlan::wide`]: twice the largest of
/// training, or 2 where that is less. Its bound relies on it, and samples are held to it.
pub(super) fn wide_limit(layer: Layer<'_>) -> f64 {
    2.0 * libm::fmax(f64::from(layer.range()), 1.0)
}

/// Passes of sums of small integers' products that take as long as one of a product.
const INTEGER_PRODUCTS_PER_PASS: usize = 12;

/// A layer of the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchStep {
    /// The layer's index in the network.
    pub layer: usize,
    /// Level of what it takes.
    pub level: usize,
    /// Scale of what it takes.
    pub input: f64,
    /// Levels that it takes: of an activation.
    pub rescales: usize,
    /// How a polynomial begins; nothing of any other layer.
    pub approach: Approach,
    /// Scale of its results, after rescaling.
    pub output: f64,
    /// Six standard deviations of the error of its results, as values, of samples like those
    /// of training.
    pub error: f64,
}

/// How a polynomial's input comes to the scale of its powers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Approach {
    /// The power of two that it is multiplied by.
    pub factor: f64,
    /// Rescalings after that, part of [`BatchStep::rescales`].
    pub rescales: usize,
    /// Scale afterwards.
    pub scale: f64,
}

/// The plan of as many samples as there are slots.
#[derive(Clone, Debug)]
pub struct BatchPlan<'m> {
    params: &'static Params,
    model: Model<'m>,
    level: usize,
    /// Of the inputs.
    scale_log2: i32,
    /// No value is above [`wide_limit`].
    is_limited: bool,
    steps: heapless::Vec<BatchStep, { super::MAX_STEPS }>,
    error: LogitError,
    headroom_bits: f64,
}

/// Where a plan begins, and what it keeps.
#[derive(Clone, Copy)]
struct Start {
    level: usize,
    /// Of the inputs, as bits.
    scale_log2: i32,
    /// Least scale of values behind a square, as bits.
    kept_log2: f64,
    is_limited: bool,
}

/// Of every layer; none for an activation.
type AllNorms = heapless::Vec<Option<Norms>, { super::MAX_STEPS }>;

impl<'m> BatchPlan<'m> {
    /// Plans `model` under `params`, from the lowest level that serves. `row` and
    /// `scratch` are memory as [`super::Plan::new`] takes it.
    ///
    /// # Errors
    /// [`PlanError`] with the figures that disagree.
    pub fn new(
        params: &'static Params,
        model: Model<'m>,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<Self, PlanError> {
        let norms = Self::norms(&model, row, scratch)?;
        let mut last = Err(PlanError::Depth {
            needed: 1,
            available: 0,
        });
        for level in 0..=params.max_level() {
            let start = Start {
                level,
                scale_log2: INPUT_SCALE_LOG2,
                kept_log2: MIN_SCALE_LOG2,
                is_limited: false,
            };
            last = Self::from_start(params, model, start, &norms);
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// As [`Self::new`], from the highest level and with the scales of the least error that
    /// fit: for results whose values are to be flooded with noise, which take the room that
    /// this leaves above their errors. No value of a sample may be more than twice the
    /// largest of training ([`Self::limit`]), which the bound of the error relies on. A
    /// polynomial rescales to the scale of [`Self::new`].
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn wide(
        params: &'static Params,
        model: Model<'m>,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<Self, PlanError> {
        let norms = Self::norms(&model, row, scratch)?;
        let [of_pixels, of_features] = WIDE_SCALES_LOG2;
        let largest = match model.input() {
            Input::Image(_) => of_pixels,
            Input::Features { .. } => of_features,
        };
        // The scales of a polynomial's powers are near their primes.
        let is_kept = model.layers().any(|view| view.layer.is_square())
            && !model.layers().any(|view| view.layer.is_polynomial());
        let (most, step) = WIDE_KEPT_LOG2;
        let mut best: Result<Self, PlanError> = Err(PlanError::Depth {
            needed: 1,
            available: 0,
        });
        for scale_log2 in (INPUT_SCALE_LOG2..=largest).rev() {
            let plan = |kept_log2| {
                let start = Start {
                    level: params.max_level(),
                    scale_log2,
                    kept_log2,
                    is_limited: true,
                };
                Self::from_start(params, model, start, &norms)
            };
            // The largest that fits has the least error of them.
            let mut kept = (MIN_SCALE_LOG2 as i32..=most).rev().step_by(step);
            let of_kept = |kept| plan(f64::from(kept)).ok();
            let kept = if is_kept {
                kept.find_map(of_kept)
            } else {
                None
            };
            let planned = kept.map_or_else(|| plan(MIN_SCALE_LOG2), Ok);
            best = match (best, planned) {
                (Ok(best), Ok(planned)) if planned.error.worst_case < best.error.worst_case => {
                    Ok(planned)
                }
                (Ok(best), _) => Ok(best),
                (Err(_), planned) => planned,
            };
            // Where nothing is rescaled a larger scale has the least error, and of a
            // polynomial each plan takes its time.
            if best.is_ok() && !is_kept {
                break;
            }
        }
        best
    }

    /// The plan whose inputs have this level and these bits of scale, as [`Self::new`] and
    /// [`Self::wide`] choose them: for whoever evaluates again what one of them planned.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_inputs(
        params: &'static Params,
        model: Model<'m>,
        (level, scale_log2): (usize, i32),
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<Self, PlanError> {
        // One of the two has them: what else they chose follows from the network.
        let has_them = |plan: &Self| (plan.level, plan.scale_log2) == (level, scale_log2);
        let narrow = Self::new(params, model, row, scratch).ok().filter(has_them);
        let wide = || {
            Self::wide(params, model, row, scratch)
                .ok()
                .filter(has_them)
        };
        narrow.or_else(wide).ok_or(PlanError::Depth {
            needed: level,
            available: params.max_level(),
        })
    }

    fn norms(
        model: &Model<'_>,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<AllNorms, PlanError> {
        let mut norms = AllNorms::new();
        for view in model.layers() {
            let map = LinearMap::new(view);
            let of_layer = map.map(|map| Norms::of(&map, row, scratch)).transpose()?;
            // A result of no ciphertext at all is nothing to decrypt.
            if let Some(Norms {
                dead: Some(output), ..
            }) = of_layer
                && view.index + 1 == model.layer_count()
            {
                return Err(PlanError::Dead {
                    layer: view.index,
                    output,
                });
            }
            // A model has no more layers than there is room.
            let _ = norms.push(of_layer);
        }
        Ok(norms)
    }

    fn from_start(
        params: &'static Params,
        model: Model<'m>,
        Start {
            level: start,
            scale_log2,
            kept_log2,
            is_limited,
        }: Start,
        norms: &AllNorms,
    ) -> Result<Self, PlanError> {
        let prime = |i: usize| super::prime_value(params, i);
        let min_scale = libm::exp2(kept_log2);
        let mut steps = heapless::Vec::new();
        let (mut level, mut scale) = (start, libm::ldexp(1.0, scale_log2));
        let mut headroom = f64::INFINITY;
        let mut state = State::batch(params, model.input(), scale);
        let mut domain = 0.0;
        for (LayerView { index, layer, .. }, norms) in model.layers().zip(norms) {
            let input = scale;
            let (at, mut rescales) = (level, 0);
            let mut approach = Approach {
                factor: 1.0,
                rescales: 0,
                scale,
            };
            let value = libm::fmax(f64::from(layer.range()), 1.0);
            match layer {
                Layer::Conv2d { linear, .. } | Layer::Dense { linear, .. } => {
                    let unit = f64::from(linear.scale);
                    scale /= unit;
                    let norms = norms.unwrap_or_default();
                    let largest = libm::fmax(norms.bias, 1.0) * scale;
                    // Biases are constants; inputs stay within what is encoded.
                    let most = f64::from(CONSTANT_LIMIT_LOG2 - 1);
                    if !largest.is_finite() || libm::log2(largest) >= most {
                        return Err(PlanError::Encoding {
                            layer: index,
                            value: norms.bias,
                            scale_log2: libm::log2(scale),
                        });
                    }
                    state.integers(&norms, unit, value);
                }
                Layer::Polynomial { coefficients, .. } if layer.is_polynomial() => {
                    let coefficients: Coefficients = coefficients.iter().map(f64::from).collect();
                    let levels = polynomial_levels(coefficients.len().saturating_sub(1));
                    let place = (index, level, start);
                    let above;
                    (approach, above) = approached(params, &coefficients, place, input, domain)?;
                    headroom = libm::fmin(headroom, above);
                    state.scaled(approach.factor);
                    for _ in 0..approach.rescales {
                        state.divide(params, level);
                        level -= 1;
                    }
                    let end = level - levels;
                    scale = super::round_pow2(prime(end.max(1)));
                    let place = (level, approach.scale, scale);
                    let left = state
                        .polynomial(params, &coefficients, place, (domain, value))
                        .map_err(|source| PlanError::Polynomial {
                            layer: index,
                            source,
                        })?;
                    headroom = libm::fmin(headroom, left);
                    if left < f64::from(HEADROOM_BITS) {
                        return Err(PlanError::Powers {
                            layer: index,
                            value: domain,
                            headroom_bits: left,
                        });
                    }
                    level = end;
                    rescales = approach.rescales + levels;
                }
                Layer::Polynomial { .. } => scale *= scale,
                Layer::Relu { .. } => return Err(PlanError::Relu { layer: index }),
            }
            let log_q = params.log_q(level);
            let left = log_q - 1.0 - libm::log2(scale * value);
            headroom = libm::fmin(headroom, left);
            if left < f64::from(HEADROOM_BITS) {
                return Err(PlanError::Wraps {
                    layer: index,
                    value,
                    scale_log2: libm::log2(scale),
                    log_q,
                });
            }
            if layer.is_square() {
                state.square(params, level, input, value);
                while level > 0 && scale / prime(level) >= min_scale {
                    state.divide(params, level);
                    scale /= prime(level);
                    level -= 1;
                    rescales += 1;
                }
            }
            if is_limited {
                state.limit(wide_limit(layer));
            }
            let _ = steps.push(BatchStep {
                layer: index,
                level: at,
                input,
                rescales,
                approach,
                output: scale,
                error: state.logit_error(scale).six_sigma,
            });
            domain = value;
        }
        let error = state.logit_error(scale);
        super::check_error(&model, error)?;
        Ok(Self {
            params,
            model,
            level: start,
            scale_log2,
            is_limited,
            steps,
            error,
            headroom_bits: headroom,
        })
    }

    /// Largest error of a logit: `six_sigma` of a usual sample, as far as ranges of training
    /// tell; of one sample `clear::error_in_batch`.
    #[must_use]
    pub const fn logit_error(&self) -> LogitError {
        self.error
    }

    /// Parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// The network.
    #[must_use]
    pub const fn model(&self) -> &Model<'m> {
        &self.model
    }

    /// The layers in order.
    #[must_use]
    pub fn steps(&self) -> &[BatchStep] {
        &self.steps
    }

    /// Whether no value may be above [`wide_limit`].
    pub(super) const fn is_limited(&self) -> bool {
        self.is_limited
    }

    /// Level of the inputs.
    #[must_use]
    pub const fn input_level(&self) -> usize {
        self.level
    }

    /// Scale of the inputs.
    #[must_use]
    pub fn input_scale(&self) -> f64 {
        libm::ldexp(1.0, self.scale_log2)
    }

    /// Standard deviation of an input's error, as it is encrypted.
    #[must_use]
    pub fn input_sigma(&self) -> f64 {
        input_sigma(self.params, self.input_scale()) / self.input_scale()
    }

    /// Level of the result.
    #[must_use]
    pub fn output_level(&self) -> usize {
        self.steps
            .last()
            .map_or(self.level, |step| step.level - step.rescales)
    }

    /// Scale of the result.
    #[must_use]
    pub fn output_scale(&self) -> f64 {
        self.steps
            .last()
            .map_or_else(|| self.input_scale(), |step| step.output)
    }

    /// Least distance over the layers between values seen in training and half
    /// the modulus, in bits.
    #[must_use]
    pub const fn headroom_bits(&self) -> f64 {
        self.headroom_bits
    }

    /// What one run takes, in passes of a product over a limb, as
    /// [`super::Plan::total_cost`].
    #[must_use]
    pub fn passes(&self) -> usize {
        let layers = self.model.layers().zip(&self.steps);
        layers
            .map(|(view, step)| self.layer_passes(&view, step))
            .sum()
    }

    /// What a layer takes of that.
    #[must_use]
    pub fn layer_passes(&self, view: &LayerView<'_>, step: &BatchStep) -> usize {
        let limbs = step.level + 1;
        let outputs = view.output.values();
        match view.layer.linear() {
            Some(linear) => {
                // Weights of two bytes are two digits, multiplied by apart.
                let digits = linear.weights.width();
                let products = digits * view.layer.fan_in(view.input) * outputs;
                2 * limbs * products / INTEGER_PRODUCTS_PER_PASS
            }
            None => {
                let rescaling = 2 * limbs * super::PASSES_PER_TRANSFORM;
                let switch = super::cost::switch(self.params, step.level);
                let of_value = match step.polynomial_outcome(self.params, view.layer) {
                    None => switch + rescaling * step.rescales,
                    Some(outcome) => {
                        rescaling * (step.approach.rescales + outcome.rescalings as usize)
                            + outcome.products as usize * 4 * super::cost::product(step.level)
                            + outcome.relinearizations as usize * switch
                    }
                };
                outputs * of_value
            }
        }
    }

    /// Most limbs of ciphertexts that are in memory at a time: those of two layers.
    #[must_use]
    pub fn limbs(&self) -> usize {
        let layers = self.model.layers().zip(&self.steps);
        let of_layer = layers.map(|(view, step)| {
            let values = match view.layer.linear() {
                // Sums of each digit of a weight.
                Some(linear) => view.input.values() + linear.weights.width() * view.output.values(),
                None => view.input.values(),
            };
            2 * (step.level + 1) * values
        });
        of_layer.max().unwrap_or(0)
    }

    /// Samples of one run.
    #[must_use]
    pub const fn samples(&self) -> usize {
        self.params.slots()
    }

    /// Highest level at which a product is relinearised; `None` without an activation.
    #[must_use]
    pub fn square_level(&self) -> Option<usize> {
        let mut layers = self.model.layers().zip(&self.steps);
        layers.find_map(|(view, step)| {
            let level = step.level - step.approach.rescales;
            view.layer.linear().is_none().then_some(level)
        })
    }
}

impl BatchStep {
    /// Standard deviation of the error that the layer adds to a result of its own, beside
    /// what it makes of its inputs' errors; `value` is what an activation takes there.
    ///
    /// # Errors
    /// As [`polynomial_bound`]; those of a level that the set has not.
    pub fn added_sigma(
        &self,
        params: &Params,
        layer: Layer<'_>,
        value: f64,
    ) -> he_core::Result<f64> {
        let divided = |noise: Noise, level: usize| {
            let unit = 1.0 / super::prime_value(params, level);
            noise.times(unit, unit).plus(Noise::division(params))
        };
        let Layer::Polynomial { coefficients, .. } = layer else {
            return Ok(BIAS.sigma / self.output);
        };
        if layer.is_square() {
            let levels = (self.level + 1 - self.rescales..=self.level).rev();
            let noise = levels.fold(Noise::key_switch(params, self.level)?, divided);
            return Ok(noise.sigma / self.output);
        }
        let level = self.level - self.approach.rescales;
        let noise = (level + 1..=self.level).rev().fold(Noise::ZERO, divided);
        let coefficients: Coefficients = coefficients.iter().map(f64::from).collect();
        let (scale, value) = (self.approach.scale, libm::fabs(value));
        let bound = polynomial_bound(
            params,
            &coefficients,
            level,
            scale,
            self.output,
            value,
            noise,
        )?;
        Ok(bound.noise.sigma / self.output)
    }

    /// What a polynomial's evaluation comes to; `None` for any other layer.
    #[must_use]
    pub fn polynomial_outcome(
        &self,
        params: &Params,
        layer: Layer<'_>,
    ) -> Option<PolynomialOutcome> {
        let Layer::Polynomial { coefficients, .. } = layer else {
            return None;
        };
        if !layer.is_polynomial() {
            return None;
        }
        let coefficients: Coefficients = coefficients.iter().map(f64::from).collect();
        let level = self.level - self.approach.rescales;
        polynomial_outcome(
            params,
            &coefficients,
            level,
            self.approach.scale,
            self.output,
        )
        .ok()
    }
}

/// How the input of a polynomial, the activation `layer`, comes from `level` and
/// `input` to the scale that its powers keep; and the headroom in bits that the
/// product leaves.
fn approached(
    params: &Params,
    coefficients: &[f64],
    (layer, level, start): (usize, usize, usize),
    input: f64,
    domain: f64,
) -> Result<(Approach, f64), PlanError> {
    let levels = polynomial_levels(coefficients.len().saturating_sub(1));
    let near = |level: usize| super::round_pow2(super::prime_value(params, level));
    let (mut rescales, mut divisor) = (0, 1.0);
    loop {
        let needed = rescales + levels;
        if level < needed {
            return Err(PlanError::Depth {
                needed: start - level + needed,
                available: start,
            });
        }
        let at = level - rescales;
        let end = (at - levels).max(1);
        let most = near(at);
        if libm::log2(libm::fmin(most, near(end))) < MIN_SCALE_LOG2 {
            return Err(PlanError::Polynomial {
                layer,
                source: he_core::Error::Scale {
                    operation: "polynomial",
                    expected: libm::exp2(MIN_SCALE_LOG2),
                    got: most,
                },
            });
        }
        let place = (at, near(end));
        let wanted = polynomial_input_scale(params, coefficients, place, domain, most);
        if input <= 1.5 * wanted * divisor {
            let factor = libm::fmax(super::floor_pow2(wanted * divisor / input), 1.0);
            let mut scale = input * factor;
            let left = params.log_q(level) - 1.0 - libm::log2(scale * libm::fmax(domain, 1.0));
            if left < f64::from(HEADROOM_BITS) {
                return Err(PlanError::Wraps {
                    layer,
                    value: domain,
                    scale_log2: libm::log2(scale),
                    log_q: params.log_q(level),
                });
            }
            for level in (at + 1..=level).rev() {
                scale /= super::prime_value(params, level);
            }
            let approach = Approach {
                factor,
                rescales,
                scale,
            };
            return Ok((approach, left));
        }
        divisor *= super::prime_value(params, at);
        rescales += 1;
    }
}
