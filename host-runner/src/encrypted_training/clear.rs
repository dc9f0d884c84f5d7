//! The same algorithm in the clear, in `f64`.

use super::circuit::{DECAY, SIGMOID};
use super::{Model, Rows};

/// The sigmoid's polynomial.
fn sigmoid(x: f64) -> f64 {
    SIGMOID.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

/// One epoch: a step of gradient descent over all rows, with learning rate 1.
#[must_use]
pub fn epoch(model: &Model, rows: &Rows) -> Model {
    let mut gradient = Model::ZERO;
    for (row, &label) in rows.features.iter().zip(&rows.labels) {
        let error = sigmoid(model.logit(row)) - f64::from(label);
        for (sum, x) in gradient.weights.iter_mut().zip(row) {
            *sum += error * x;
        }
        gradient.bias += error;
    }
    let count = rows.features.len().max(1) as f64;
    let step = |i: usize| {
        let weight = model.weights[i];
        weight - gradient.weights[i] / count - DECAY * weight
    };
    Model {
        weights: std::array::from_fn(step),
        bias: model.bias - gradient.bias / count,
    }
}
