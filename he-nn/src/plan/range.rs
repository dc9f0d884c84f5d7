//! What a sample may do to a plan: which values every step has room for.
//!
//! Sums and products of ciphertexts are exact modulo `q`, so what lies between may wrap
//! around and come back. What must lie within half the modulus is the input, what a
//! rescaling divides, and the result. A coefficient is at most the largest slot, so it
//! is enough that all slots do. Where the client adds up lanes, they are the result, and
//! their sum has no limit.

use super::batch::{BatchPlan, wide_limit};
use super::{ENCODED_LOG2, Form, LinearMap, Plan, Step};
use he_core::params::Params;

/// Of half the modulus, what values may take: the rest is for errors.
const USABLE: f64 = 1.0 - 1.0 / 64.0;

/// How large the results of a layer may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// The layer's index in the network; of several as one, the last.
    pub layer: usize,
    /// Largest magnitude of its results, or of their lanes where the client adds them up.
    pub value: f64,
}

/// A value that a plan has no room for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutOfRange {
    /// The layer that has it as a result; `None` for an input.
    pub layer: Option<usize>,
    /// The value.
    pub value: f64,
    /// What it may be.
    pub limit: f64,
}

impl core::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            layer,
            value,
            limit,
        } = self;
        match layer {
            None => write!(f, "an input is {value:.1}")?,
            Some(layer) => write!(f, "layer {layer} gives {value:.1}")?,
        }
        write!(
            f,
            " and the plan has room for {limit:.1}, so the result would wrap around: the sample is unlike the training data"
        )
    }
}

impl core::error::Error for OutOfRange {}

/// Half the modulus of a level at a scale.
fn room(params: &Params, level: usize, scale: f64) -> f64 {
    // As a sum of logarithms: the modulus itself may be no `f64`.
    libm::exp2(params.log_q(level) - 1.0 - libm::log2(scale)) * USABLE
}

impl Plan<'_> {
    /// How large inputs may be, as the first layer sees them.
    #[must_use]
    pub fn input_limit(&self) -> f64 {
        room(self.params(), self.input_level(), self.input_scale())
    }

    /// How large the results of a step may be, with its last layer.
    #[must_use]
    pub fn limit(&self, step: usize) -> Option<Limit> {
        let params = self.params();
        let next = self.steps().get(step + 1);
        let (layer, at, value) = match self.steps().get(step)? {
            Step::Linear {
                map, level, scales, ..
            } => {
                let (_, last) = map.layers();
                (last, scales.output, room(params, *level, scales.sums()))
            }
            Step::Square {
                layer,
                level,
                input,
                output,
                ..
            } => (*layer, *output, room(params, *level, input * input)),
            Step::Polynomial { layer, output, .. } => {
                let level = self.steps().get(step)?.output_level();
                (*layer, *output, room(params, level, *output))
            }
        };
        // What follows takes it as it is: the result, or an argument of powers.
        let after = match next {
            None => room(params, self.output_level(), at),
            // With the headroom that a plan keeps, powers and sums of twice the values
            // of training stay within half the modulus (`bound`).
            Some(Step::Polynomial { domain, .. }) => 2.0 * domain,
            Some(_) => f64::INFINITY,
        };
        Some(Limit {
            layer,
            value: libm::fmin(value, after),
        })
    }

    /// Checks what one step does to a sample: `inputs` are the values that it takes,
    /// `results` those that it gives.
    ///
    /// # Errors
    /// [`OutOfRange`].
    pub fn check_step(
        &self,
        step: usize,
        inputs: &[f64],
        results: &[f64],
    ) -> Result<(), OutOfRange> {
        let Some(limit) = self.limit(step) else {
            return Ok(());
        };
        let layer = Some(limit.layer);
        let Some(Step::Linear {
            map,
            form: Form::Rows { period, summed },
            ..
        }) = self.steps().get(step)
        else {
            return check(results.iter().copied(), layer, limit.value);
        };
        if !summed {
            return check(lanes(map, *period, inputs), layer, limit.value);
        }
        check(results.iter().copied(), layer, limit.value)?;
        let largest = beside_rows(map, *period, self.params().slots(), inputs);
        check(core::iter::once(largest), layer, limit.value)
    }
}

/// Refuses a value above a limit, and what is no number.
///
/// # Errors
/// [`OutOfRange`], the first of them.
pub fn check(
    values: impl Iterator<Item = f64>,
    layer: Option<usize>,
    limit: f64,
) -> Result<(), OutOfRange> {
    for value in values {
        // What is no number is not below anything.
        if libm::fabs(value) <= limit {
            continue;
        }
        return Err(OutOfRange {
            layer,
            value,
            limit,
        });
    }
    Ok(())
}

/// The lanes of a layer's results in [`Form::Rows`] that are not summed: products of a
/// weight and a value, each with its share of the bias.
fn lanes(map: &LinearMap<'_>, period: usize, inputs: &[f64]) -> impl Iterator<Item = f64> {
    let weights = map.weights::<f64, true>();
    let count = inputs.len().max(1);
    (0..map.outputs() * count).map(move |lane| {
        let (row, input) = (lane / count, lane % count);
        let share = map.bias::<f64, true>(row) / period as f64;
        let value = inputs.get(input).copied().unwrap_or_default();
        weights.at(row, input) * value + share
    })
}

/// The largest magnitude in the slots of [`Form::Rows`] after its rotations: each slot
/// sums as many products as a row has, from where it stands on, so beside the outputs
/// it sums the end of one row and the begin of the next.
fn beside_rows(map: &LinearMap<'_>, period: usize, slots: usize, inputs: &[f64]) -> f64 {
    let weights = map.weights::<f64, true>();
    let product = |slot: usize| {
        let (row, input) = (slot / period.max(1), slot & (period.wrapping_sub(1)));
        match inputs.get(input) {
            Some(value) if row < map.outputs() => weights.at(row, input) * value,
            _ => 0.0,
        }
    };
    let mut sum: f64 = (0..period).map(product).sum();
    let mut largest = libm::fabs(sum);
    for slot in 0..(map.outputs() * period).min(slots) {
        sum += product((slot + period) & (slots - 1)) - product(slot);
        largest = libm::fmax(largest, libm::fabs(sum));
    }
    largest
}

impl BatchPlan<'_> {
    /// How large inputs may be, as the first layer sees them: of the modulus, and of what
    /// is encoded.
    #[must_use]
    pub fn input_limit(&self) -> f64 {
        let scale = self.input_scale();
        let encoded = libm::exp2(ENCODED_LOG2) / scale;
        libm::fmin(room(self.params(), self.input_level(), scale), encoded)
    }

    /// How large the results of a layer may be.
    #[must_use]
    pub fn limit(&self, layer: usize) -> Option<Limit> {
        let params = self.params();
        let step = self.steps().get(layer)?;
        let view = self.model().layers().nth(layer)?;
        let end = step.level - step.rescales;
        // A square is rescaled at the level and scale that it is formed at.
        let squared = if view.layer.is_square() {
            room(params, step.level, step.input * step.input)
        } else {
            f64::INFINITY
        };
        let next = self.model().layers().nth(layer + 1);
        let after = match next {
            Some(next) if next.layer.is_polynomial() => {
                // Multiplied by a power of two before its rescalings, then as in
                // `Plan::limit`.
                let factor = self
                    .steps()
                    .get(layer + 1)
                    .map_or(1.0, |s| s.approach.factor);
                let domain = 2.0 * f64::from(view.layer.range());
                libm::fmin(domain, room(params, end, step.output * factor))
            }
            _ => f64::INFINITY,
        };
        let own = room(params, end, step.output);
        // What the bound of the error relies on.
        let trained = if self.is_limited() {
            wide_limit(view.layer)
        } else {
            f64::INFINITY
        };
        let value = [squared, after, trained].into_iter().fold(own, libm::fmin);
        Some(Limit { layer, value })
    }
}
