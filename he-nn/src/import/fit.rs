//! Polynomials in place of activations that are none.
//!
//! Each is fitted by least squares on the values that enter it over the training data, so
//! that errors count where values are (Lee et al., arXiv:2105.14587, argue for the same
//! weighting). A share of the weight lies evenly over the whole range, which keeps the
//! ends in hand. The dense layer behind it is then distilled from the original in closed
//! form: by ridge regression its results become those that the original layer gave behind
//! the original activation. From the input to the logits, so that every layer makes up
//! for what came before it.

use nalgebra::{Cholesky, DMatrix, DVector};

use super::ImportError;
use super::emit::{Imported, Part};
use super::function::Function;
use crate::clear;
use crate::data::Samples;
use crate::forward;
use crate::model::{ModelError, Shape};
use crate::network::{NetworkLayer, Weights};

/// Samples to fit on, and to tell the accuracy of a layer on; fewer where layers are so
/// large that their values would be more than [`MAX_HELD`].
const SAMPLES: usize = 4096;
const MAX_HELD: usize = 1 << 24;

/// Values of an activation to fit on.
const VALUES: usize = 1 << 17;

/// Share of the weight that lies evenly over the range.
const EVEN_SHARE: f64 = 0.05;
const EVEN_POINTS: usize = 256;

/// Degrees that are tried: the largest that takes one, two and three levels.
const DEGREES: [usize; 3] = [2, 3, 7];

/// Of the share of right labels, what a lower degree may cost.
const TOLERANCE: f64 = 0.003;

/// Largest input of a layer that is distilled.
const MAX_DISTILLED: usize = 1024;

/// Weight of staying at the original weights, relative to the mean square of an input.
const RIDGE: f64 = 1e-3;

/// How polynomials are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Degree {
    /// The lowest of 2, 3 and 7 (one, two and three levels) that keeps the accuracy.
    Auto,
    /// This one, from 2 to 15.
    Fixed(usize),
}

/// A polynomial in place of an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The operator, and its node.
    pub operator: String,
    /// Its name.
    pub node: String,
    /// Coefficients, from the constant up.
    pub coefficients: Vec<f32>,
    /// The least and the largest value that entered it.
    pub range: [f64; 2],
    /// Root of the mean square of its errors over the values that entered it.
    pub error: f64,
    /// Share that is classified right, of at most 4,096 test samples evenly chosen, with
    /// this and all earlier activations replaced, weights not rounded.
    pub accuracy: f64,
    /// Whether the layer behind it was distilled from the original.
    pub distilled: bool,
}

/// What was replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Replaced {
    /// In order.
    pub activations: Vec<Fitted>,
    /// Share that the original classifies right, of at most 4,096 test samples evenly
    /// chosen.
    pub accuracy: f64,
    /// What was replaced otherwise: sentences.
    pub notes: Vec<String>,
}

/// Values of many samples, and their labels.
#[derive(Clone)]
struct Stream {
    shape: Shape,
    values: Vec<Vec<f64>>,
    labels: Vec<u8>,
}

impl Stream {
    /// At most [`SAMPLES`], evenly chosen, as the first layer sees them.
    fn new(imported: &Imported, samples: &Samples) -> Result<Self, ModelError> {
        let all = samples.all();
        let most = (MAX_HELD / largest(imported).max(1)).clamp(1, SAMPLES);
        let step = all.len().div_ceil(most).max(1);
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for &(sample, label) in all.iter().step_by(step) {
            values.push(forward::input_values(&imported.input, sample)?);
            labels.push(label);
        }
        Ok(Self {
            shape: forward::input_shape(&imported.input),
            values,
            labels,
        })
    }

    fn through(&mut self, part: &Part) {
        match part {
            Part::Layer(layer) => {
                let mut shape = self.shape;
                for values in &mut self.values {
                    (shape, *values) = forward::layer(layer, self.shape, values);
                }
                self.shape = shape;
            }
            Part::Activation(function) => {
                let values = self.values.iter_mut().flatten();
                values.for_each(|x| *x = function.at(*x));
            }
        }
    }

    /// Share of the samples whose label is right behind these parts.
    fn accuracy(mut self, parts: &[Part]) -> f64 {
        parts.iter().for_each(|part| self.through(part));
        let labelled = self.values.iter().zip(&self.labels);
        let right = labelled.filter(|(logits, label)| clear::class(logits) == usize::from(**label));
        right.count() as f64 / self.labels.len().max(1) as f64
    }
}

/// Most values between two layers.
fn largest(imported: &Imported) -> usize {
    let mut shape = forward::input_shape(&imported.input);
    let mut most = shape.values();
    for part in &imported.parts {
        match part {
            Part::Layer(NetworkLayer::Conv2d(kernel, _)) => shape = kernel.output(shape),
            Part::Layer(NetworkLayer::Dense(weights)) => {
                shape = Shape::flat(u16::try_from(weights.biases.len()).unwrap_or(u16::MAX));
            }
            _ => {}
        }
        most = most.max(shape.values());
    }
    most
}

/// Replaces every activation that is no polynomial.
pub(super) fn fit(
    imported: &mut Imported,
    degree: Degree,
    train: &Samples,
    test: &Samples,
) -> Result<Replaced, ImportError> {
    let mut exact = Stream::new(imported, train)?;
    let mut current = exact.clone();
    let mut tested = Stream::new(imported, test)?;
    let mut replaced = Replaced {
        activations: Vec::new(),
        accuracy: tested.clone().accuracy(&imported.parts),
        notes: imported.notes.clone(),
    };
    let original = exact.clone().accuracy(&imported.parts);
    let degrees = match degree {
        Degree::Auto => DEGREES.to_vec(),
        Degree::Fixed(degree) => vec![degree],
    };
    let parts = imported.parts.clone();
    let mut at = 0;
    while at < parts.len() {
        let (function, origin) = match &parts[at] {
            Part::Activation(function @ Function::Other(expression)) => {
                (function, expression.origin.clone())
            }
            part => {
                exact.through(part);
                current.through(part);
                tested.through(part);
                at += 1;
                continue;
            }
        };
        // The activation, and the layer behind it: there always is one.
        exact.through(&parts[at]);
        let mut best: Option<(f64, Choice)> = None;
        for &degree in &degrees {
            let choice = Choice::of(function, degree, &current, &exact, &parts[at + 1])
                .ok_or_else(|| refused(&origin))?;
            let mut after = current.clone();
            after.through(&choice.activation);
            after.through(&choice.layer);
            let accuracy = after.accuracy(&parts[at + 2..]);
            let enough = accuracy >= original - TOLERANCE;
            if best.as_ref().is_none_or(|(found, _)| accuracy > *found) {
                best = Some((accuracy, choice));
            }
            if enough {
                break;
            }
        }
        let Some((_, choice)) = best else {
            return Err(refused(&origin));
        };
        exact.through(&parts[at + 1]);
        for stream in [&mut current, &mut tested] {
            stream.through(&choice.activation);
            stream.through(&choice.layer);
        }
        replaced.activations.push(Fitted {
            operator: origin.0,
            node: origin.1,
            coefficients: choice.coefficients,
            range: choice.range,
            error: choice.error,
            accuracy: tested.clone().accuracy(&parts[at + 2..]),
            distilled: choice.layer != parts[at + 1],
        });
        imported.parts[at] = choice.activation;
        imported.parts[at + 1] = choice.layer;
        at += 2;
    }
    Ok(replaced)
}

fn refused((operator, node): &(String, String)) -> ImportError {
    ImportError::Node {
        operator: operator.clone(),
        node: node.clone(),
        reason: "no polynomial can be fitted on the values that enter it, as they are all the same or not finite; use data that the network was trained on"
            .into(),
    }
}

/// One way to replace an activation and the layer behind it.
struct Choice {
    activation: Part,
    layer: Part,
    coefficients: Vec<f32>,
    range: [f64; 2],
    error: f64,
}

impl Choice {
    /// `current` enters the activation, `exact` left it in the original.
    fn of(
        function: &Function,
        degree: usize,
        current: &Stream,
        exact: &Stream,
        layer: &Part,
    ) -> Option<Self> {
        let count: usize = current.values.iter().map(Vec::len).sum();
        let step = count.div_ceil(VALUES).max(1);
        let values: Vec<f64> = current
            .values
            .iter()
            .flatten()
            .copied()
            .step_by(step)
            .collect();
        let (low, high) = current
            .values
            .iter()
            .flatten()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| {
                (low.min(x), high.max(x))
            });
        if !(low.is_finite() && high.is_finite() && high > low) {
            return None;
        }
        let coefficients: Vec<f32> = polynomial(&|x| function.at(x), degree, &values, low, high)?
            .into_iter()
            .map(|c| c as f32)
            .collect();
        let rounded = Function::Polynomial(coefficients.iter().map(|&c| c.into()).collect());
        let squares = values
            .iter()
            .map(|&x| (rounded.at(x) - function.at(x)).powi(2));
        let error = (squares.sum::<f64>() / values.len() as f64).sqrt();
        let activation = Part::Activation(rounded);
        let mut entering = current.clone();
        entering.through(&activation);
        Some(Self {
            layer: distilled(layer, &entering, exact),
            activation,
            coefficients,
            range: [low, high],
            error,
        })
    }
}

/// The polynomial of a degree with the least mean square of errors: over the values, and
/// with [`EVEN_SHARE`] of the weight over the range. By Chebyshev polynomials of the
/// range, which keep the equations well conditioned.
fn polynomial(
    function: &dyn Fn(f64) -> f64,
    degree: usize,
    values: &[f64],
    low: f64,
    high: f64,
) -> Option<Vec<f64>> {
    let (middle, half) = (f64::midpoint(low, high), (high - low) / 2.0);
    let mut gram = DMatrix::<f64>::zeros(degree + 1, degree + 1);
    let mut right = DVector::<f64>::zeros(degree + 1);
    let mut add = |x: f64, weight: f64| {
        let t = (x - middle) / half;
        let mut row = vec![1.0, t];
        for k in 2..=degree {
            row.push(2.0 * t * row[k - 1] - row[k - 2]);
        }
        let y = function(x);
        for (i, a) in row.iter().enumerate() {
            right[i] += weight * a * y;
            for (j, b) in row.iter().enumerate() {
                gram[(i, j)] += weight * a * b;
            }
        }
    };
    let each = (1.0 - EVEN_SHARE) / values.len() as f64;
    values.iter().for_each(|&x| add(x, each));
    for point in 0..EVEN_POINTS {
        let t = (point as f64 + 0.5) / EVEN_POINTS as f64;
        add(low + t * (high - low), EVEN_SHARE / EVEN_POINTS as f64);
    }
    let solved = Cholesky::new(gram)?.solve(&right);
    // Of t, then of x: T_k = 2 t T_(k-1) - T_(k-2), with t = (x - middle) / half.
    let times_t = |p: &[f64]| -> Vec<f64> {
        let mut product = vec![0.0; p.len() + 1];
        for (i, c) in p.iter().enumerate() {
            product[i] -= c * middle / half;
            product[i + 1] += c / half;
        }
        product
    };
    let (mut before, mut now) = (vec![1.0], times_t(&[1.0]));
    let mut coefficients = vec![0.0; degree + 1];
    for weight in solved.iter() {
        let own = coefficients.iter_mut().zip(&before);
        own.for_each(|(sum, c)| *sum += weight * c);
        let mut next: Vec<f64> = times_t(&now).iter().map(|c| 2.0 * c).collect();
        before.iter().enumerate().for_each(|(i, c)| next[i] -= c);
        (before, now) = (now, next);
    }
    let sound = coefficients.iter().all(|c| c.is_finite()) && coefficients[degree] as f32 != 0.0;
    sound.then_some(coefficients)
}

/// A dense layer whose results on `entering` are as near as may be to those of `layer` on
/// `exact`; the layer itself where it is none, or too large.
fn distilled(layer: &Part, entering: &Stream, exact: &Stream) -> Part {
    let Part::Layer(NetworkLayer::Dense(weights)) = layer else {
        return layer.clone();
    };
    let (outputs, inputs) = (weights.biases.len(), entering.shape.values());
    let count = entering.values.len();
    if inputs > MAX_DISTILLED || count < 2 * inputs {
        return layer.clone();
    }
    let mut wanted = exact.clone();
    wanted.through(layer);
    let mut got = entering.clone();
    got.through(layer);
    // Changes of the weights, the last of the bias.
    let taken = DMatrix::from_fn(count, inputs + 1, |i, j| {
        entering.values[i].get(j).copied().unwrap_or(1.0)
    });
    let missing = DMatrix::from_fn(count, outputs, |i, j| {
        wanted.values[i][j] - got.values[i][j]
    });
    let mut gram = taken.tr_mul(&taken);
    let ridge = RIDGE * gram.trace() / (inputs + 1) as f64;
    for i in 0..inputs {
        gram[(i, i)] += ridge;
    }
    let Some(solver) = Cholesky::new(gram) else {
        return layer.clone();
    };
    let change = solver.solve(&taken.tr_mul(&missing));
    let mut changed: Weights<f32> = weights.clone();
    let rows = changed.weights.chunks_exact_mut(inputs.max(1));
    for (output, (row, bias)) in rows.zip(&mut changed.biases).enumerate() {
        let weights = row.iter_mut().enumerate();
        weights.for_each(|(input, weight)| *weight += change[(input, output)] as f32);
        *bias += change[(inputs, output)] as f32;
    }
    let finite = |values: &[f32]| values.iter().all(|x| x.is_finite());
    match finite(&changed.weights) && finite(&changed.biases) {
        true => Part::Layer(NetworkLayer::Dense(changed)),
        false => layer.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_polynomial_is_found_again_and_errors_count_where_values_are() {
        let cubic = |x: f64| 0.5 - x + 0.25 * x * x * x;
        let values: Vec<f64> = (0..500).map(|i| f64::from(i) / 50.0 - 3.0).collect();
        let found = polynomial(&cubic, 3, &values, -3.0, 7.0).unwrap();
        for (got, expected) in found.iter().zip([0.5, -1.0, 0.0, 0.25]) {
            assert!((got - expected).abs() < 1e-9, "{found:?}");
        }
        // Of a rectifier on values near 1, the line is what counts there.
        let near: Vec<f64> = (0..500).map(|i| 1.0 + f64::from(i) / 5000.0).collect();
        let wide: Vec<f64> = (0..500).map(|i| f64::from(i) / 50.0 - 5.0).collect();
        let error = |values: &[f64]| {
            let found = polynomial(&|x| x.max(0.0), 2, values, -5.0, 5.0).unwrap();
            (found[0] + found[1] * 1.05 + found[2] * 1.05 * 1.05 - 1.05).abs()
        };
        assert!(
            error(&near) < 0.5 * error(&wide),
            "{} {}",
            error(&near),
            error(&wide)
        );
        assert!(polynomial(&|_| f64::NAN, 2, &wide, -5.0, 5.0).is_none());
    }
}
