//! Networks before their weights are rounded, evaluated in `f64`.

use crate::model::{Kernel, ModelError, Sample, Shape};
use crate::network::{Network, NetworkInput, NetworkLayer, Weights};

/// What the first layer sees of a sample: pixels from 0 to 1, features standardised.
///
/// # Errors
/// [`ModelError::SampleKind`] or [`ModelError::Sample`] for a sample that does not fit.
pub(crate) fn input_values(
    input: &NetworkInput,
    sample: Sample<'_>,
) -> Result<Vec<f64>, ModelError> {
    let check = |expected: usize, got: usize| match expected == got {
        true => Ok(()),
        false => Err(ModelError::Sample { expected, got }),
    };
    match (input, sample) {
        (NetworkInput::Image(shape), Sample::Pixels(pixels)) => {
            check(shape.values(), pixels.len())?;
            Ok(pixels.iter().map(|&p| f64::from(p) / 255.0).collect())
        }
        (NetworkInput::Features { means, deviations }, Sample::Features(features)) => {
            check(means.len(), features.len())?;
            let standard = means.iter().zip(deviations).zip(features);
            let values = standard.map(|((&mean, &deviation), &x)| {
                (f64::from(x) - f64::from(mean)) / f64::from(deviation)
            });
            Ok(values.collect())
        }
        (NetworkInput::Image(_), Sample::Features(_)) => {
            Err(ModelError::SampleKind { pixels: true })
        }
        (NetworkInput::Features { .. }, Sample::Pixels(_)) => {
            Err(ModelError::SampleKind { pixels: false })
        }
    }
}

/// Shape of what the first layer sees.
pub(crate) fn input_shape(input: &NetworkInput) -> Shape {
    match input {
        NetworkInput::Image(shape) => *shape,
        NetworkInput::Features { means, .. } => {
            Shape::flat(u16::try_from(means.len()).unwrap_or(u16::MAX))
        }
    }
}

/// The results of a layer on values of a shape, and their shape.
pub(crate) fn layer(layer: &NetworkLayer<f32>, shape: Shape, x: &[f64]) -> (Shape, Vec<f64>) {
    match layer {
        NetworkLayer::Dense(weights) => {
            let outputs = u16::try_from(weights.biases.len()).unwrap_or(u16::MAX);
            (Shape::flat(outputs), dense(weights, x))
        }
        NetworkLayer::Conv2d(kernel, weights) => {
            (kernel.output(shape), convolved(kernel, weights, shape, x))
        }
        NetworkLayer::Polynomial(coefficients) => {
            let at = |x: &f64| {
                let horner = |sum: f64, &c: &f32| sum * x + f64::from(c);
                coefficients.iter().rev().fold(0.0, horner)
            };
            (shape, x.iter().map(at).collect())
        }
        NetworkLayer::Relu => (shape, x.iter().map(|x| x.max(0.0)).collect()),
    }
}

fn dense(weights: &Weights<f32>, x: &[f64]) -> Vec<f64> {
    let rows = weights.weights.chunks_exact(x.len().max(1)).enumerate();
    let sum = |((index, row), &bias): ((usize, &[f32]), &f32)| {
        let terms = row.iter().zip(x).map(|(&w, x)| f64::from(w) * x);
        weights.row_scale(index) * terms.sum::<f64>() + f64::from(bias)
    };
    rows.zip(&weights.biases).map(sum).collect()
}

fn convolved(kernel: &Kernel, weights: &Weights<f32>, input: Shape, x: &[f64]) -> Vec<f64> {
    let output = kernel.output(input);
    let [rows, columns] = [output.height, output.width].map(usize::from);
    let [height, width] = [input.height, input.width].map(usize::from);
    let [of_rows, of_columns] = [kernel.height, kernel.width].map(usize::from);
    let patch = usize::from(input.channels) * of_rows * of_columns;
    let mut results = Vec::with_capacity(output.values());
    let kernels = weights.weights.chunks_exact(patch.max(1)).enumerate();
    for ((index, own), &bias) in kernels.zip(&weights.biases) {
        for place in 0..rows * columns {
            let over = kernel.rows(input, place / columns);
            let across = kernel.columns(input, place % columns);
            let mut sum = 0.0;
            for channel in 0..usize::from(input.channels) {
                for line in 0..over.len {
                    let at = (channel * of_rows + over.skipped + line) * of_columns;
                    let from = (channel * height + over.start + line) * width + across.start;
                    let terms = own[at + across.skipped..][..across.len].iter();
                    let values = &x[from..from + across.len];
                    sum += terms
                        .zip(values)
                        .map(|(&w, x)| f64::from(w) * x)
                        .sum::<f64>();
                }
            }
            results.push(weights.row_scale(index) * sum + f64::from(bias));
        }
    }
    results
}

impl Network<f32> {
    /// The logits of a sample.
    ///
    /// # Errors
    /// [`ModelError::SampleKind`] or [`ModelError::Sample`] for a sample that does not
    /// fit.
    pub fn logits<'s>(&self, sample: impl Into<Sample<'s>>) -> Result<Vec<f64>, ModelError> {
        let mut values = input_values(&self.input, sample.into())?;
        let mut shape = input_shape(&self.input);
        for each in &self.layers {
            (shape, values) = layer(each, shape, &values);
        }
        Ok(values)
    }
}
