//! Polynomials of degree 4 from values, and the linear forms that they are made of.
//!
//! A polynomial of degree 4 in `h` coordinates is interpolated by Newton's formula on
//! the lattice of all exponents with sum at most 4, each coordinate running through the
//! same nodes: every coefficient is a divided difference, and no linear system is
//! solved.
//!
//! The logits of `V (W2 (W1 x)^2)^2` have the degree-4 part `sum_ij M_ij l_i^2 l_j^2` in
//! the linear forms `l_i` of the first layer. As maps of symmetric matrices, two such
//! parts `F`, `F'` are `P D P^T` and `P D' P^T` with the products `l_i l_j` in the
//! columns of `P`, and with `D` diagonal where `i` and `j` differ. So these products are
//! eigenvectors of `F' F^-1`, and each of them, a matrix of rank 2, splits into its two
//! forms.

use chacha20::ChaCha8Rng;
use nalgebra::{DMatrix, DVector, SymmetricEigen};
use rand_core::SeedableRng;

use crate::random;

/// Degree.
const DEGREE: usize = 4;

/// Where each coordinate is read, in this order.
const NODES: [f64; DEGREE + 1] = [0.0, 1.0, -1.0, 2.0, -2.0];

/// A third eigenvalue of this share of the first is rounding.
const RANK: f64 = 1e-3;

/// Directions with this much of a cosine between them are one.
const SAME: f64 = 1.0 - 1e-4;

/// Polynomials of degree 4 in the same coordinates, one per output.
#[derive(Clone, Debug)]
pub(super) struct Quartic {
    exponents: Vec<Vec<(usize, usize)>>,
    /// One row per exponent, one column per output.
    coefficients: DMatrix<f64>,
    dimensions: usize,
}

/// All exponents with sum at most 4: the coordinates that occur with their powers.
pub(super) fn exponents(dimensions: usize) -> Vec<Vec<(usize, usize)>> {
    let mut all = vec![Vec::new()];
    let mut start = 0;
    // Each is a shorter one with one more coordinate behind its last.
    while start < all.len() {
        let own: Vec<(usize, usize)> = all[start].clone();
        let sum: usize = own.iter().map(|(_, power)| power).sum();
        let next = own.last().map_or(0, |(at, _)| at + 1);
        for at in next..dimensions {
            for power in 1..=DEGREE - sum {
                let mut longer = own.clone();
                longer.push((at, power));
                all.push(longer);
            }
        }
        start += 1;
    }
    all
}

/// The lattice point of an exponent.
pub(super) fn point(exponent: &[(usize, usize)], dimensions: usize) -> Vec<f64> {
    let mut at = vec![0.0; dimensions];
    exponent.iter().for_each(|&(i, power)| at[i] = NODES[power]);
    at
}

/// Weight of the value at node `j` in the divided difference over nodes 0 to `k`.
fn weight(k: usize, j: usize) -> f64 {
    let others = (0..=k).filter(|&l| l != j);
    1.0 / others.map(|l| NODES[j] - NODES[l]).product::<f64>()
}

impl Quartic {
    /// From values at the [`point`] of each of the [`exponents`], one row per point.
    pub(super) fn interpolated(dimensions: usize, values: &DMatrix<f64>) -> Self {
        let exponents = exponents(dimensions);
        let index: std::collections::HashMap<&[(usize, usize)], usize> = exponents
            .iter()
            .enumerate()
            .map(|(i, e)| (&e[..], i))
            .collect();
        let mut coefficients = DMatrix::zeros(exponents.len(), values.ncols());
        for (row, exponent) in exponents.iter().enumerate() {
            // All lattice points below this one, with their weights.
            let mut below: Vec<(Vec<(usize, usize)>, f64)> = vec![(Vec::new(), 1.0)];
            for &(at, power) in exponent {
                let longer = below.iter().flat_map(|(known, factor)| {
                    (0..=power).map(move |node| {
                        let mut known = known.clone();
                        if node > 0 {
                            known.push((at, node));
                        }
                        (known, factor * weight(power, node))
                    })
                });
                below = longer.collect();
            }
            for (known, factor) in below {
                let Some(&from) = index.get(&known[..]) else {
                    continue;
                };
                for k in 0..values.ncols() {
                    coefficients[(row, k)] += factor * values[(from, k)];
                }
            }
        }
        Self {
            exponents,
            coefficients,
            dimensions,
        }
    }

    /// The values of all outputs.
    pub(super) fn evaluate(&self, at: &[f64]) -> Vec<f64> {
        // Newton's products of each coordinate.
        let table: Vec<[f64; DEGREE + 1]> = at
            .iter()
            .map(|&x| {
                let mut products = [1.0; DEGREE + 1];
                for k in 0..DEGREE {
                    products[k + 1] = products[k] * (x - NODES[k]);
                }
                products
            })
            .collect();
        let factor = |exponent: &Vec<(usize, usize)>| {
            exponent.iter().map(|&(i, k)| table[i][k]).product::<f64>()
        };
        let factors =
            DVector::from_iterator(self.exponents.len(), self.exponents.iter().map(factor));
        self.coefficients.tr_mul(&factors).iter().copied().collect()
    }

    /// The degree-4 part of a combination of outputs, as a map of symmetric matrices in
    /// an orthonormal basis. Newton's leading coefficients are those of the powers.
    fn flattened(&self, of_output: &[f64]) -> DMatrix<f64> {
        let pairs = pairs(self.dimensions);
        let index: std::collections::HashMap<&[(usize, usize)], usize> = self
            .exponents
            .iter()
            .enumerate()
            .map(|(i, e)| (&e[..], i))
            .collect();
        let norm = |(a, b): (usize, usize)| if a == b { 1.0 } else { 2.0f64.sqrt() };
        DMatrix::from_fn(pairs.len(), pairs.len(), |row, column| {
            let (first, second) = (pairs[row], pairs[column]);
            let mut all = [first.0, first.1, second.0, second.1];
            all.sort_unstable();
            let runs = all.chunk_by(|a, b| a == b).map(|run| (run[0], run.len()));
            let exponent: Vec<(usize, usize)> = runs.collect();
            let orders = exponent.iter().map(|&(_, k)| (1..=k).product::<usize>());
            let orders = orders.product::<usize>() as f64 / 24.0;
            let coefficient = index.get(&exponent[..]).map_or(0.0, |&at| {
                let row = self.coefficients.row(at);
                row.iter().zip(of_output).map(|(c, w)| c * w).sum()
            });
            coefficient * orders * norm(first) * norm(second)
        })
    }

    /// Unit vectors of the linear forms, up to their signs: those that came out of
    /// every product with another form.
    pub(super) fn linear_forms(&self, seed: u64) -> Vec<DVector<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut combination = || {
            let outputs = 0..self.coefficients.ncols();
            let weights: Vec<f64> = outputs.map(|_| random::normal(&mut rng)).collect();
            self.flattened(&weights)
        };
        let (first, second) = (combination(), combination());
        // Eigenvectors of F' F^-1, from those of its transpose's similarity F^-1 F'.
        let Some(map) = first.lu().solve(&second).map(|map| map.transpose()) else {
            return Vec::new();
        };
        let mut found: Vec<DVector<f64>> = Vec::new();
        let size = map.norm();
        for value in map.complex_eigenvalues().iter() {
            if value.im.abs() > 1e-9 * size {
                continue;
            }
            if let Some(vector) = eigenvector(&map, value.re) {
                found.extend(split(&vector, self.dimensions).into_iter().flatten());
            }
        }
        let mut groups: Vec<(DVector<f64>, usize)> = Vec::new();
        for vector in found {
            match groups.iter_mut().find(|g| g.0.dot(&vector).abs() > SAME) {
                Some(group) => group.1 += 1,
                None => groups.push((vector, 1)),
            }
        }
        // A form is in as many products as there are other forms; a chance one is in
        // one.
        let often = self.dimensions.saturating_sub(1).div_ceil(2).max(2);
        groups.retain(|group| group.1 >= often);
        groups.into_iter().map(|group| group.0).collect()
    }
}

/// Pairs of coordinates, the smaller first.
fn pairs(dimensions: usize) -> Vec<(usize, usize)> {
    let firsts = 0..dimensions;
    firsts
        .flat_map(|a| (a..dimensions).map(move |b| (a, b)))
        .collect()
}

/// By inverse iteration beside the eigenvalue.
fn eigenvector(map: &DMatrix<f64>, value: f64) -> Option<DVector<f64>> {
    let size = map.nrows();
    let beside = value + 1e-10 * map.norm();
    let shifted = (map - DMatrix::identity(size, size) * beside).lu();
    let start = (0..size).map(|i| 1.0 + (i as f64 * 0.7).sin());
    let mut vector = DVector::from_iterator(size, start);
    for _ in 0..4 {
        vector = shifted.solve(&vector)?.normalize();
    }
    vector.iter().all(|x| x.is_finite()).then_some(vector)
}

/// The two forms of a product, if it is one: `u v^T + v u^T` has one eigenvalue above 0
/// and one below.
fn split(vector: &DVector<f64>, dimensions: usize) -> Option<[DVector<f64>; 2]> {
    let mut matrix = DMatrix::<f64>::zeros(dimensions, dimensions);
    for ((a, b), value) in pairs(dimensions).into_iter().zip(vector) {
        let entry = if a == b {
            *value
        } else {
            value / 2.0f64.sqrt()
        };
        matrix[(a, b)] = entry;
        matrix[(b, a)] = entry;
    }
    let eigen = SymmetricEigen::new(matrix);
    let mut order: Vec<usize> = (0..dimensions).collect();
    let size = |i: usize| eigen.eigenvalues[i].abs();
    order.sort_by(|&a, &b| size(b).total_cmp(&size(a)));
    let &[first, second, ..] = &order[..] else {
        return None;
    };
    let third = order.get(2).map_or(0.0, |&i| size(i));
    let signs = eigen.eigenvalues[first] * eigen.eigenvalues[second];
    if third > RANK * size(first) || signs >= 0.0 {
        return None;
    }
    let part = |i: usize| eigen.eigenvectors.column(i) * size(i).sqrt();
    let (a, b) = (part(first), part(second));
    Some([(&a + &b).normalize(), (&a - &b).normalize()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newton_reads_a_polynomial_of_degree_4_exactly() {
        let f = |x: &[f64]| {
            let l = 0.3 + x[0] - 2.0 * x[1] + 0.5 * x[2];
            [l.powi(4) - x[0] * x[1] * x[2], 1.0 + x[1].powi(3) * x[2]]
        };
        let all = exponents(3);
        assert_eq!(all.len(), 35);
        let values = all.iter().flat_map(|e| f(&point(e, 3)));
        let values: Vec<f64> = values.collect();
        let found = Quartic::interpolated(3, &DMatrix::from_row_slice(35, 2, &values));
        let at = [0.7, -1.3, 2.9];
        for (a, b) in found.evaluate(&at).iter().zip(f(&at)) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }
}
