//! Logistic regression in `f64`, by Newton's method.

use crate::data::table::{FEATURES, Table};

/// Weights, and the bias last.
const SIZE: usize = FEATURES + 1;

/// Steps, of which far fewer are needed: the method converges quadratically.
const STEPS: usize = 50;

/// A regression on standardised features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Regression {
    pub(super) means: [f32; FEATURES],
    pub(super) deviations: [f32; FEATURES],
    pub(super) weights: [f64; FEATURES],
    pub(super) bias: f64,
}

impl Regression {
    /// The minimum of the cross-entropy summed over the rows, and half of `ridge`
    /// times the square of the weights; `ridge` must be positive, so that there
    /// is one.
    pub(super) fn fit(table: &Table, ridge: f64) -> Self {
        let (means, deviations) = table.standard();
        let mut regression = Self {
            means,
            deviations,
            weights: [0.0; FEATURES],
            bias: 0.0,
        };
        for _ in 0..STEPS {
            let mut gradient = [0.0; SIZE];
            let mut hessian = [[0.0; SIZE]; SIZE];
            for (row, &label) in table.rows.iter().zip(&table.labels) {
                let x = regression.standardised(row);
                let p = 1.0 / (1.0 + (-regression.logit(row)).exp());
                for i in 0..SIZE {
                    gradient[i] += (p - f64::from(label)) * x[i];
                    for j in 0..SIZE {
                        hessian[i][j] += p * (1.0 - p) * x[i] * x[j];
                    }
                }
            }
            for i in 0..FEATURES {
                gradient[i] += ridge * regression.weights[i];
                hessian[i][i] += ridge;
            }
            let step = solve(hessian, gradient);
            for (weight, step) in regression.weights.iter_mut().zip(step) {
                *weight -= step;
            }
            regression.bias -= step[FEATURES];
            if step.iter().all(|step| step.abs() < 1e-12) {
                break;
            }
        }
        regression
    }

    /// Features, and 1 for the bias.
    fn standardised(&self, row: &[f32; FEATURES]) -> [f64; SIZE] {
        std::array::from_fn(|i| match row.get(i) {
            Some(&v) => (f64::from(v) - f64::from(self.means[i])) / f64::from(self.deviations[i]),
            None => 1.0,
        })
    }

    pub(super) fn logit(&self, row: &[f32; FEATURES]) -> f64 {
        let x = self.standardised(row);
        let terms = self.weights.iter().zip(x).map(|(w, x)| w * x);
        terms.sum::<f64>() + self.bias
    }

    /// Share of the rows that are classified right.
    pub(super) fn accuracy(&self, table: &Table) -> f64 {
        let rows = table.rows.iter().zip(&table.labels);
        let right = rows.filter(|(row, label)| (self.logit(row) > 0.0) == (**label == 1));
        right.count() as f64 / table.rows.len().max(1) as f64
    }
}

/// Solves a system of equations by elimination with the largest pivots.
fn solve(mut matrix: [[f64; SIZE]; SIZE], mut right: [f64; SIZE]) -> [f64; SIZE] {
    for column in 0..SIZE {
        let largest = (column..SIZE)
            .max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))
            .unwrap_or(column);
        matrix.swap(column, largest);
        right.swap(column, largest);
        for row in column + 1..SIZE {
            let pivot = matrix[column];
            let factor = matrix[row][column] / pivot[column];
            for (x, pivot) in matrix[row].iter_mut().zip(pivot).skip(column) {
                *x -= factor * pivot;
            }
            right[row] -= factor * right[column];
        }
    }
    for row in (0..SIZE).rev() {
        let known: f64 = (row + 1..SIZE).map(|k| matrix[row][k] * right[k]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_solved() {
        let matrix: [[f64; SIZE]; SIZE] = std::array::from_fn(|i| {
            std::array::from_fn(|j| ((i * 7 + j * 5) % 11) as f64 - if i == j { 9.0 } else { 4.0 })
        });
        let x: [f64; SIZE] = std::array::from_fn(|i| i as f64 - 3.5);
        let right = matrix.map(|row| row.iter().zip(x).map(|(a, x)| a * x).sum());
        for (found, x) in solve(matrix, right).iter().zip(x) {
            assert!((found - x).abs() < 1e-9, "{found} {x}");
        }
    }

    #[test]
    fn the_gradient_is_zero_at_the_minimum() {
        let row = |i: usize| std::array::from_fn(|k| ((i * (k + 3) * 31) % 17) as f32);
        let table = Table {
            rows: (0..60).map(row).collect(),
            labels: (0..60).map(|i| u8::from(i * 7 % 5 < 2)).collect(),
        };
        let ridge = 0.5;
        let found = Regression::fit(&table, ridge);
        for i in 0..SIZE {
            let mut gradient = found.weights.get(i).map_or(0.0, |w| ridge * w);
            for (row, &label) in table.rows.iter().zip(&table.labels) {
                let p = 1.0 / (1.0 + (-found.logit(row)).exp());
                gradient += (p - f64::from(label)) * found.standardised(row)[i];
            }
            assert!(gradient.abs() < 1e-9, "{i}: {gradient}");
        }
    }
}
