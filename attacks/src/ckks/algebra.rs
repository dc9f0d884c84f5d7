//! Linear algebra modulo one prime, and the encoder over whole numbers.

use he_core::arith::Modulus;
use he_core::ckks::encode::{decode_in_place, encode_complex};
use he_core::params::Prime;
use he_core::ring::ntt;
use he_core::{Error, Result};

/// Rounded coefficients of slots: `N / 2` real parts and then as many imaginary ones,
/// in units of the message.
///
/// # Errors
/// The encoder's: values beyond `2^62 / scale` among them.
pub(super) fn coefficients(slots: &[f64], scale: f64) -> Result<Vec<i64>> {
    let n = slots.len();
    let (re, im) = slots.split_at(n / 2);
    let (mut buffer, mut out) = (vec![0.0; n], vec![0i64; n]);
    encode_complex(re, im, scale, &mut buffer, &mut out, |x: f64| x as i64)?;
    Ok(out)
}

/// Slots of coefficients, real parts and then imaginary ones, divided by the scale.
///
/// # Errors
/// The decoder's.
pub(super) fn slots(coefficients: &[f64], scale: f64) -> Result<Vec<f64>> {
    let mut slots = coefficients.to_vec();
    decode_in_place(&mut slots, scale)?;
    Ok(slots)
}

/// Residues of whole numbers.
pub(super) fn residues(numbers: &[i64], m: &Modulus) -> Vec<u32> {
    let q = i64::from(m.value());
    numbers.iter().map(|x| x.rem_euclid(q) as u32).collect()
}

/// A limb in the coefficient domain, as numbers around zero.
///
/// # Errors
/// [`Error::Length`].
pub(super) fn centred(limb: &[u32], prime: &Prime) -> Result<Vec<i64>> {
    let mut limb = limb.to_vec();
    ntt::inverse(&mut limb, prime)?;
    let m = prime.modulus();
    Ok(limb.iter().map(|&x| i64::from(m.centred(x))).collect())
}

/// A key, if all numbers are those of one: -1, 0 and 1.
pub(super) fn ternary(numbers: &[i64]) -> Option<Vec<i8>> {
    let small = |&x: &i64| (-1..=1).contains(&x).then_some(x as i8);
    numbers.iter().map(small).collect()
}

/// `b / c` modulo one prime, both in the NTT domain, as numbers around zero; none where
/// `c` has no inverse.
///
/// # Errors
/// [`Error::Length`].
pub(super) fn quotient(b: &[u32], c: &[u32], prime: &Prime) -> Result<Option<Vec<i64>>> {
    let m = prime.modulus();
    if c.contains(&0) {
        return Ok(None);
    }
    let pairs = b.iter().zip(c);
    let quotient: Vec<u32> = pairs.map(|(&b, &c)| m.mul(b, m.inv(c))).collect();
    centred(&quotient, prime).map(Some)
}

/// Solves linear equations modulo a prime by elimination: every row has the
/// coefficients of `unknowns` and the right side. None where the rows do not decide
/// all unknowns, or contradict each other.
pub(super) fn solve(mut rows: Vec<Vec<u32>>, unknowns: usize, m: &Modulus) -> Option<Vec<u32>> {
    for column in 0..unknowns {
        let pivot = (column..rows.len()).find(|&row| rows[row][column] != 0)?;
        rows.swap(column, pivot);
        let inverse = m.inv(rows[column][column]);
        for x in &mut rows[column][column..] {
            *x = m.mul(*x, inverse);
        }
        let (before, rest) = rows.split_at_mut(column);
        let (pivot, after) = rest.split_first_mut()?;
        for row in before.iter_mut().chain(after) {
            let factor = row[column];
            if factor == 0 {
                continue;
            }
            let factor = m.to_mont(factor);
            for (x, p) in row[column..].iter_mut().zip(&pivot[column..]) {
                *x = m.sub(*x, m.canon(m.mont(*p as i32, factor)));
            }
        }
    }
    let consistent = rows[unknowns..].iter().all(|row| row[unknowns] == 0);
    consistent.then(|| rows[..unknowns].iter().map(|row| row[unknowns]).collect())
}

/// The polynomials of degree below `len` modulo `Y^len + 1` at all roots of it, and
/// back, by definition: `len` is small here.
pub(super) struct Points {
    /// Row `t` has the powers of the root `psi^(2 t + 1)`.
    powers: Vec<Vec<u32>>,
    modulus: Modulus,
}

impl Points {
    /// # Errors
    /// [`Error::Length`] where the modulus has no such roots.
    pub(super) fn new(len: usize, m: &Modulus) -> Result<Self> {
        let root = he_core::arith::prime::primitive_root(m, len as u32);
        let psi = root.ok_or(Error::Length {
            what: "roots of unity",
            expected: m.value() as usize / 2,
            got: len,
        })?;
        let powers = (0..len).map(|t| {
            let root = m.pow(psi, 2 * t as u32 + 1);
            let powers = std::iter::successors(Some(1), |&x| Some(m.mul(x, root)));
            powers.take(len).collect()
        });
        Ok(Self {
            powers: powers.collect(),
            modulus: *m,
        })
    }

    /// The root of a point.
    pub(super) fn root(&self, point: usize) -> u32 {
        self.powers[point][1]
    }

    /// A polynomial at a point.
    pub(super) fn at(&self, polynomial: &[u32], point: usize) -> u32 {
        let m = &self.modulus;
        let terms = polynomial.iter().zip(&self.powers[point]);
        terms.fold(0, |sum, (&a, &x)| m.add(sum, m.mul(a, x)))
    }

    /// The polynomial with these values.
    pub(super) fn interpolate(&self, values: &[u32]) -> Vec<u32> {
        let m = &self.modulus;
        let len = values.len();
        let inverse = m.inv(len as u32);
        let coefficient = |k: usize| {
            // The inverse of a power is the negative of the one as far from `len`.
            let terms = values.iter().zip(&self.powers).map(|(&v, powers)| {
                let x = match k {
                    0 => 1,
                    k => m.sub(0, powers[len - k]),
                };
                m.mul(v, x)
            });
            m.mul(inverse, terms.fold(0, |sum, x| m.add(sum, x)))
        };
        (0..len).map(coefficient).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use he_core::params::N2048_DEPTH1 as P;

    #[test]
    fn what_is_evaluated_is_interpolated() {
        let m = P.prime(0).unwrap().modulus();
        let points = Points::new(16, m).unwrap();
        let polynomial: Vec<u32> = (0..16).map(|i| i * i * 7919 + 3).collect();
        let values: Vec<u32> = (0..16).map(|t| points.at(&polynomial, t)).collect();
        assert_eq!(points.interpolate(&values), polynomial);
        assert_eq!(m.pow(points.root(3), 16), m.value() - 1);
    }

    #[test]
    fn equations_are_solved_and_contradictions_found() {
        let m = P.prime(0).unwrap().modulus();
        // x + 2 y = 5, 3 x + 4 y = 11: (1, 2).
        let rows = || vec![vec![0, 0, 0], vec![1, 2, 5], vec![3, 4, 11]];
        assert_eq!(solve(rows(), 2, m), Some(vec![1, 2]));
        let mut wrong = rows();
        wrong.push(vec![1, 1, 4]);
        assert_eq!(solve(wrong, 2, m), None);
        assert_eq!(solve(rows()[..2].to_vec(), 2, m), None);
    }
}
