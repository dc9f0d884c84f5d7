//! Networks in the clear, with the memory that a host has.

use crate::model::{Layer, Model, ModelError, Sample};

use crate::network::Network;
use crate::plan::batch::BatchPlan;
use crate::plan::{self, OutOfRange, Plan};

/// The logits of a sample.
///
/// # Errors
/// [`ModelError`] where the sample does not fit the network.
pub fn logits<'s>(
    model: &Model<'_>,
    sample: impl Into<Sample<'s>>,
) -> Result<Vec<f64>, ModelError> {
    let mut workspace = vec![0.0; model.workspace_len()];
    let mut logits = vec![0.0; model.outputs()];
    model.plain_logits(sample, &mut workspace, &mut logits)?;
    Ok(logits)
}

/// Why a sample is not evaluated.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// It does not fit the network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The plan has no room for its values.
    #[error(transparent)]
    Range(#[from] OutOfRange),
}

/// The logits of a sample in the clear, if the plan has room for every value on the way:
/// what a client asks before it encrypts, as a result that wrapped around cannot always
/// be told from a right one.
///
/// # Errors
/// [`SampleError`].
pub fn checked<'s>(
    plan: &Plan<'_>,
    sample: impl Into<Sample<'s>>,
) -> Result<Vec<f64>, SampleError> {
    let mut step = 0;
    walk(
        plan.model(),
        sample.into(),
        plan.input_limit(),
        |layer, inputs, results| {
            // The last layer of several that are one step.
            if plan.limit(step).is_none_or(|limit| limit.layer != layer) {
                return Ok(false);
            }
            plan.check_step(step, inputs, results)?;
            step += 1;
            Ok(true)
        },
    )
}

/// The same for a batch.
///
/// # Errors
/// [`SampleError`].
pub fn checked_in_batch<'s>(
    plan: &BatchPlan<'_>,
    sample: impl Into<Sample<'s>>,
) -> Result<Vec<f64>, SampleError> {
    walk(
        plan.model(),
        sample.into(),
        plan.input_limit(),
        |layer, _, results| {
            if let Some(limit) = plan.limit(layer) {
                plan::check(results.iter().copied(), Some(layer), limit.value)?;
            }
            Ok(true)
        },
    )
}

/// Standard deviations of the error of a logit in a batch, by where it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ErrorInBatch {
    /// From the errors of the encryption, which are Gaussian.
    pub of_inputs: f64,
    /// From roundings, which stand before the secret key. In a slot all of them are
    /// multiplied by the key's value there, whose square is exponentially distributed over
    /// the slots: so this part has the distribution of Laplace, however many ciphertexts
    /// are summed.
    pub of_roundings: f64,
}

impl ErrorInBatch {
    /// Of both, as a complex error: real parts have `1 / sqrt(2)` of it.
    #[must_use]
    pub fn sigma(&self) -> f64 {
        self.of_inputs.hypot(self.of_roundings)
    }

    /// What an error does not exceed but with a probability of 10^-10: six deviations of
    /// the Gaussian part, 8.5 of its real one, and twelve of the other, of whose real part
    /// `exp(-2 x)` is beyond `x` deviations.
    #[must_use]
    pub fn limit(&self) -> f64 {
        6.0 * self.of_inputs + 12.0 * self.of_roundings
    }
}

/// The error of a sample's logits in a batch, of the logit that has the largest: to first
/// order, of what is drawn independently for each ciphertext, with what the network makes
/// of it at the sample's own values.
///
/// What a plan says instead is of a usual sample, by the largest weights of each layer, with
/// values spread over the range of training and errors of a layer's results that do not
/// depend on each other. This takes as many passes backwards through the network as it has
/// logits.
///
/// # Errors
/// [`ModelError`] where the sample does not fit the network.
pub fn error_in_batch<'s>(
    plan: &BatchPlan<'_>,
    sample: impl Into<Sample<'s>>,
) -> Result<ErrorInBatch, ModelError> {
    let (model, sample) = (plan.model(), sample.into());
    let mut first = vec![0.0; model.inputs()];
    model.input_values(sample, &mut first)?;
    // What each layer takes.
    let mut values = vec![first];
    let mut workspace = vec![0.0; model.workspace_len()];
    model.plain_layers(sample, &mut workspace, |_, results| {
        values.push(results.to_vec());
    })?;
    // What it adds to each of its results: where there is no bound, nothing, which allows
    // less.
    let steps = model.layers().zip(plan.steps()).zip(&values);
    let layers: Vec<_> = steps
        .map(|((view, step), values)| {
            let of = |value| {
                let added = step.added_sigma(plan.params(), view.layer, value);
                added.unwrap_or(0.0)
            };
            let added: Vec<f64> = match view.layer.linear() {
                Some(_) => vec![of(0.0); view.output.values()],
                None => values.iter().map(|&value| of(value)).collect(),
            };
            (view, values, added)
        })
        .collect();
    let error_of = |logit: usize| {
        let mut slopes = vec![0.0; model.outputs()];
        slopes[logit] = 1.0;
        let mut variance = 0.0;
        for (view, values, added) in layers.iter().rev() {
            let each = slopes.iter().zip(added);
            variance += each
                .map(|(slope, added)| (slope * added).powi(2))
                .sum::<f64>();
            if let Layer::Polynomial { coefficients, .. } = view.layer {
                let coefficients: Vec<f64> = coefficients.iter().map(f64::from).collect();
                for (slope, value) in slopes.iter_mut().zip(*values) {
                    *slope *= derivative(&coefficients, *value);
                }
                continue;
            }
            let mut before = vec![0.0; view.input.values()];
            for (output, &slope) in slopes.iter().enumerate() {
                if slope != 0.0 {
                    plan::add_row(view, output, slope, &mut before);
                }
            }
            slopes = before;
        }
        let of_inputs = plan.input_sigma();
        let inputs = slopes.iter().map(|slope| (slope * of_inputs).powi(2));
        ErrorInBatch {
            of_inputs: inputs.sum::<f64>().sqrt(),
            of_roundings: variance.sqrt(),
        }
    };
    let errors = (0..model.outputs()).map(error_of);
    let largest = errors.max_by(|a, b| a.limit().total_cmp(&b.limit()));
    Ok(largest.unwrap_or_default())
}

/// Of a polynomial, at a value.
fn derivative(coefficients: &[f64], value: f64) -> f64 {
    let powers = coefficients.iter().enumerate().skip(1).rev();
    powers.fold(0.0, |sum, (power, c)| sum * value + power as f64 * c)
}

/// How far the logits of a sample in a batch may be from those in the clear: by the plan's
/// figure, and where `error` is more than that, by the limit of [`error_in_batch`], as the
/// sample may be an unusual one, or its slot.
///
/// # Errors
/// As [`error_in_batch`].
pub fn allowed_in_batch<'s>(
    plan: &BatchPlan<'_>,
    sample: impl Into<Sample<'s>>,
    error: f64,
) -> Result<f64, ModelError> {
    let usual = plan.logit_error();
    if usual.allows(error) {
        return Ok(usual.six_sigma);
    }
    let own = error_in_batch(plan, sample)?.limit();
    // What has no bound is not allowed everything.
    Ok(match own.is_finite() {
        true => own.max(usual.six_sigma),
        false => usual.six_sigma,
    })
}

/// Evaluates a sample and shows `each` the values that a step takes and gives; it says
/// whether the step is complete. The logits.
fn walk(
    model: &Model<'_>,
    sample: Sample<'_>,
    input_limit: f64,
    mut each: impl FnMut(usize, &[f64], &[f64]) -> Result<bool, OutOfRange>,
) -> Result<Vec<f64>, SampleError> {
    let mut inputs = vec![0.0; model.inputs()];
    model.input_values(sample, &mut inputs)?;
    plan::check(inputs.iter().copied(), None, input_limit)?;
    let mut workspace = vec![0.0; model.workspace_len()];
    let (mut logits, mut failed) = (Vec::new(), None);
    model.plain_layers(sample, &mut workspace, |layer, results| {
        if failed.is_some() {
            return;
        }
        match each(layer, &inputs, results) {
            Ok(true) => inputs = results.to_vec(),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
        logits = results.to_vec();
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(logits),
    }
}

/// The class that logits speak for: the largest, or for a single one whether
/// it is positive.
#[must_use]
pub fn class(logits: &[f64]) -> usize {
    match logits {
        [logit] => usize::from(*logit > 0.0),
        _ => argmax(logits),
    }
}

/// The largest difference between logits and those in the clear; what is no number if one
/// is none, and infinity where there are not as many.
#[must_use]
pub fn largest_error(logits: &[f64], plain: &[f64]) -> f64 {
    if logits.len() != plain.len() {
        return f64::INFINITY;
    }
    largest(logits.iter().zip(plain).map(|(a, b)| (a - b).abs()))
}

/// The largest of errors, 0 of none. One that is no number is larger than all: it must not
/// pass for none.
#[must_use]
pub fn largest(errors: impl IntoIterator<Item = f64>) -> f64 {
    let larger = |most: f64, error: f64| match most >= error || most.is_nan() {
        true => most,
        false => error,
    };
    errors.into_iter().fold(0.0, larger)
}

/// Index of the largest value, the first of several equal ones; 0 for no values.
#[must_use]
pub fn argmax(values: &[f64]) -> usize {
    let better = |best: Option<(usize, f64)>, (i, &x): (usize, &f64)| match best {
        Some((_, y)) if y >= x => best,
        _ => Some((i, x)),
    };
    values
        .iter()
        .enumerate()
        .fold(None, better)
        .map_or(0, |(i, _)| i)
}

/// A network on labelled samples.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Measured {
    /// Samples.
    pub samples: usize,
    /// Of these, how many are classified right.
    pub right: usize,
    /// Largest magnitude of the results of every layer.
    pub ranges: Vec<f32>,
}

impl Measured {
    /// Share of the samples that is classified right.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.samples.max(1) as f64
    }
}

/// Runs a network over labelled samples.
///
/// # Errors
/// [`ModelError`] where a sample does not fit the network.
pub fn measure<'s>(
    model: &Model<'_>,
    samples: impl Iterator<Item = (Sample<'s>, u8)>,
) -> Result<Measured, ModelError> {
    let mut workspace = vec![0.0; model.workspace_len()];
    let mut ranges = vec![0.0f64; model.layer_count()];
    let (mut count, mut right) = (0, 0);
    for (sample, label) in samples {
        let mut found = None;
        model.plain_layers(sample, &mut workspace, |layer, values| {
            let range = &mut ranges[layer];
            *range = values.iter().fold(*range, |max, x| max.max(x.abs()));
            found = Some(class(values));
        })?;
        count += 1;
        right += usize::from(found == Some(usize::from(label)));
    }
    Ok(Measured {
        samples: count,
        right,
        ranges: ranges.into_iter().map(|range| range as f32).collect(),
    })
}

/// A network with the ranges of its training, and what was measured with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrated {
    /// Its `.hemodel` file.
    pub file: Vec<u8>,
    /// Over the samples trained on; these ranges are in the file.
    pub train: Measured,
    /// Over the samples tested on.
    pub test: Measured,
}

/// Measures a network and writes it with the ranges of training.
///
/// # Errors
/// [`ModelError`] for what is no network within the format's limits.
pub fn calibrated<'s>(
    network: &Network<i8>,
    train: impl Iterator<Item = (Sample<'s>, u8)>,
    test: impl Iterator<Item = (Sample<'s>, u8)>,
) -> Result<Calibrated, ModelError> {
    let draft = network.draft()?;
    let train = measure(&Model::parse(&draft)?, train)?;
    let file = network.file(&train.ranges)?;
    let test = measure(&Model::parse(&file)?, test)?;
    Ok(Calibrated { file, train, test })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_is_no_number_is_the_largest() {
        assert_eq!(largest_error(&[1.0, 2.0], &[1.5, 2.25]), 0.5);
        assert_eq!(largest([]), 0.0);
        for at in 0..3 {
            let mut logits = [1.0, 2.0, 3.0];
            logits[at] = f64::NAN;
            assert!(largest_error(&logits, &[9.0, 2.0, 1.0]).is_nan(), "{at}");
        }
        assert_eq!(largest([1.0, f64::INFINITY, 2.0]), f64::INFINITY);
        assert_eq!(largest_error(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }
}
