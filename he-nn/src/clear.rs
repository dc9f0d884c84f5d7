//! Networks in the clear, with the memory that a host has.

use crate::model::{Layer, Model, ModelError, Sample};

use crate::network::Network;
use crate::plan::batch::BatchPlan;
use crate::plan::{self, LogitError, OutOfRange, Plan, Step, Taps};

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

/// Standard deviations of the error of a sample's logit, by where it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnError {
    /// From the errors of the encryption, which are Gaussian.
    pub of_inputs: f64,
    /// From all that is added on the way, above all roundings, which stand before the secret
    /// key. In a slot all of them are multiplied by the key's value there, whose square is
    /// exponentially distributed over the slots: so this part has the distribution of
    /// Laplace, however many ciphertexts are summed, and a lighter one where slots are summed.
    pub of_roundings: f64,
}

impl OwnError {
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

    /// Allows an error: by the plan's figure, and where it is more than that by this limit,
    /// as the sample may be an unusual one, or its slots. What is no number allows nothing.
    fn allows(self, usual: LogitError) -> f64 {
        let own = self.limit();
        match own.is_finite() {
            true => own.max(usual.six_sigma),
            false => usual.six_sigma,
        }
    }
}

/// What a network does between two roundings, for the errors of what it takes.
enum Passed<'p> {
    /// The polynomial with these coefficients, in each value.
    Polynomial(Vec<f64>),
    /// A linear map: writes the weights of an output to zeros.
    Map(Box<Row<'p>>),
}

/// Writes a row of weights.
type Row<'p> = dyn Fn(usize, &mut [f64]) + 'p;

/// A part of a network that adds an error to each of its results.
struct Stage<'p> {
    /// What it takes.
    values: Vec<f64>,
    passed: Passed<'p>,
    /// Deviations of what it adds; where there is no bound nothing, which allows less.
    added: Vec<f64>,
}

/// The error of the logit that has the largest: to first order, of what is drawn
/// independently for each ciphertext, with what the network makes of it at the sample's own
/// values. `input` is the deviation of an input.
///
/// A value that lies in several slots has an error in each. Where `is_copied`, what comes of
/// it is taken at the larger of two: as if all were the same, and as if each result had a
/// copy of its own.
///
/// This takes as many passes backwards through the network as it has logits.
fn own_error(stages: &[Stage<'_>], outputs: usize, input: f64, is_copied: bool) -> OwnError {
    let error_of = |logit: usize| {
        // Of each value: how the logit depends on it, and the sum of the squares of how it
        // does by each copy.
        let mut slopes = vec![0.0; outputs];
        slopes[logit] = 1.0;
        let mut copies: Vec<f64> = slopes.clone();
        let larger = |(slope, copies): (&f64, &f64)| copies.max(slope * slope);
        let mut variance = 0.0;
        for stage in stages.iter().rev() {
            let each = slopes.iter().zip(&copies).map(larger).zip(&stage.added);
            variance += each
                .map(|(square, added)| square * added * added)
                .sum::<f64>();
            match &stage.passed {
                Passed::Polynomial(coefficients) => {
                    for ((slope, copies), value) in
                        slopes.iter_mut().zip(&mut copies).zip(&stage.values)
                    {
                        let by = derivative(coefficients, *value);
                        *slope *= by;
                        *copies *= by * by;
                    }
                }
                Passed::Map(row_of) => {
                    let mut before = vec![0.0; stage.values.len()];
                    let (mut of_copies, mut row) = (before.clone(), before.clone());
                    for (output, of_output) in slopes.iter().zip(&copies).enumerate() {
                        let (slope, square) = (of_output.0, larger(of_output));
                        if square == 0.0 {
                            continue;
                        }
                        row.fill(0.0);
                        row_of(output, &mut row);
                        for ((before, of_copies), weight) in
                            before.iter_mut().zip(&mut of_copies).zip(&row)
                        {
                            *before += slope * weight;
                            if is_copied {
                                *of_copies += square * weight * weight;
                            }
                        }
                    }
                    (slopes, copies) = (before, of_copies);
                }
            }
        }
        let inputs = slopes.iter().zip(&copies).map(larger).sum::<f64>();
        OwnError {
            of_inputs: input * inputs.sqrt(),
            of_roundings: variance.sqrt(),
        }
    };
    let errors = (0..outputs).map(error_of);
    let largest = errors.max_by(|a, b| a.limit().total_cmp(&b.limit()));
    largest.unwrap_or_default()
}

/// What each layer takes, and the logits.
fn values_of(model: &Model<'_>, sample: Sample<'_>) -> Result<Vec<Vec<f64>>, ModelError> {
    let mut first = vec![0.0; model.inputs()];
    model.input_values(sample, &mut first)?;
    let mut values = vec![first];
    let mut workspace = vec![0.0; model.workspace_len()];
    model.plain_layers(sample, &mut workspace, |_, results| {
        values.push(results.to_vec());
    })?;
    Ok(values)
}

/// The error of a sample's logits in a batch, of the logit that has the largest.
///
/// What a plan says instead is of a usual sample, by the largest weights of each layer, with
/// values spread over the range of training and errors of a layer's results that do not
/// depend on each other.
///
/// # Errors
/// [`ModelError`] where the sample does not fit the network.
pub fn error_in_batch<'s>(
    plan: &BatchPlan<'_>,
    sample: impl Into<Sample<'s>>,
) -> Result<OwnError, ModelError> {
    let model = plan.model();
    let values = values_of(model, sample.into())?;
    let steps = model.layers().zip(plan.steps()).zip(values);
    let stages: Vec<_> = steps
        .map(|((view, step), values)| {
            let of = |value| {
                let added = step.added_sigma(plan.params(), view.layer, value);
                added.unwrap_or(0.0)
            };
            let (added, passed) = match view.layer {
                Layer::Polynomial { coefficients, .. } => (
                    values.iter().map(|&value| of(value)).collect(),
                    Passed::Polynomial(coefficients.iter().map(f64::from).collect()),
                ),
                _ => {
                    let row = move |output, row: &mut [f64]| {
                        plan::add_row(&view, output, 1.0, row);
                    };
                    (
                        vec![of(0.0); view.output.values()],
                        Passed::Map(Box::new(row)),
                    )
                }
            };
            Stage {
                values,
                passed,
                added,
            }
        })
        .collect();
    let input = plan.input_sigma();
    Ok(own_error(&stages, model.outputs(), input, false))
}

/// The same of a sample by itself, whose values lie in several slots each.
///
/// # Errors
/// [`ModelError`] where the sample does not fit the network.
pub fn error_alone<'s>(
    plan: &Plan<'_>,
    sample: impl Into<Sample<'s>>,
) -> Result<OwnError, ModelError> {
    let model = plan.model();
    let mut values = values_of(model, sample.into())?;
    let stages: Vec<_> = (0..)
        .zip(plan.steps())
        .map(|(index, step)| {
            let at = match step {
                Step::Linear { map, .. } => map.layers().0,
                Step::Square { layer, .. } | Step::Polynomial { layer, .. } => *layer,
            };
            let values = std::mem::take(&mut values[at]);
            let (added, passed) = match step {
                Step::Linear { map, .. } => {
                    let mut row = vec![0.0; map.inputs()];
                    let mut scratch = vec![0.0; map.scratch_len()];
                    let root = largest_root(&map.taps(), map.outputs(), &values);
                    let added = plan.layer_sigma(index, root, &mut row, &mut scratch);
                    let row = |output, row: &mut [f64]| {
                        let mut scratch = vec![0.0; map.scratch_len()];
                        // Both are as long as that.
                        let _ = map.row(output, row, &mut scratch);
                    };
                    (
                        vec![added.unwrap_or(0.0); map.outputs()],
                        Passed::Map(Box::new(row)),
                    )
                }
                Step::Square { .. } | Step::Polynomial { .. } => {
                    let of = |&value| plan.activation_sigma(index, value).unwrap_or(0.0);
                    let coefficients = match step {
                        Step::Polynomial { coefficients, .. } => coefficients.to_vec(),
                        _ => vec![0.0, 0.0, 1.0],
                    };
                    (
                        values.iter().map(of).collect(),
                        Passed::Polynomial(coefficients),
                    )
                }
            };
            Stage {
                values,
                passed,
                added,
            }
        })
        .collect();
    Ok(own_error(
        &stages,
        model.outputs(),
        plan.input_sigma(),
        true,
    ))
}

/// The largest root, over the outputs, of the sum of the squares of what an output takes.
fn largest_root(taps: &Taps, outputs: usize, values: &[f64]) -> f64 {
    let square = |output: usize| {
        let taken = (0..taps.count()).filter_map(|tap| taps.source(tap, output));
        taken.map(|at| values[at] * values[at]).sum::<f64>()
    };
    let outputs = match taps {
        // All take the same.
        Taps::Dense { .. } => outputs.min(1),
        Taps::Window { .. } => outputs,
    };
    largest((0..outputs).map(square)).sqrt()
}

/// Of a polynomial, at a value.
fn derivative(coefficients: &[f64], value: f64) -> f64 {
    let powers = coefficients.iter().enumerate().skip(1).rev();
    powers.fold(0.0, |sum, (power, c)| sum * value + power as f64 * c)
}

/// What the error of a sample's logits may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowed {
    /// How far they may be from those in the clear.
    pub error: f64,
    /// Whether they are further off than the plan's figure, and a layer gives the sample a
    /// value above the largest of training: what the plan says is said of others.
    pub beyond_training: bool,
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
) -> Result<Allowed, ModelError> {
    let sample = sample.into();
    let own = || error_in_batch(plan, sample);
    allowed((plan.model(), sample), plan.logit_error(), error, own)
}

/// The same of a sample by itself, by [`error_alone`].
///
/// # Errors
/// As [`error_alone`].
pub fn allowed_alone<'s>(
    plan: &Plan<'_>,
    sample: impl Into<Sample<'s>>,
    error: f64,
) -> Result<Allowed, ModelError> {
    let sample = sample.into();
    let own = || error_alone(plan, sample);
    allowed((plan.model(), sample), plan.logit_error(), error, own)
}

/// The sample's own limit is computed only where its error needs it.
fn allowed(
    (model, sample): (&Model<'_>, Sample<'_>),
    usual: LogitError,
    error: f64,
    own: impl FnOnce() -> Result<OwnError, ModelError>,
) -> Result<Allowed, ModelError> {
    Ok(match usual.allows(error) {
        true => Allowed {
            error: usual.six_sigma,
            beyond_training: false,
        },
        false => Allowed {
            error: own()?.allows(usual),
            beyond_training: is_beyond_training(model, sample)?,
        },
    })
}

/// Whether a layer gives a sample a value above the largest of training.
///
/// # Errors
/// [`ModelError`] where the sample does not fit the network.
pub fn is_beyond_training<'s>(
    model: &Model<'_>,
    sample: impl Into<Sample<'s>>,
) -> Result<bool, ModelError> {
    // Ranges are rounded to single precision.
    let range = |range: f32| f64::from(range) * (1.0 + f64::from(f32::EPSILON));
    let ranges: Vec<f64> = model.layers().map(|l| range(l.layer.range())).collect();
    let mut workspace = vec![0.0; model.workspace_len()];
    let mut is_beyond = false;
    model.plain_layers(sample, &mut workspace, |layer, results| {
        let range = ranges.get(layer).copied().unwrap_or(f64::INFINITY);
        // What is no number is.
        is_beyond |= !results.iter().all(|x| x.abs() <= range);
    })?;
    Ok(is_beyond)
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
            Ok(true) => results.clone_into(&mut inputs),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
        results.clone_into(&mut logits);
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
    network: &Network<i16>,
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
