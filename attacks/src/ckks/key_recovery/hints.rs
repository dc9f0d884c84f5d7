//! Hints: honest results of which the attacker knows the values, a few slots each.
//!
//! Ten slots of a full encoding give no equation modulo `q`, as the reduction is per
//! coefficient and a slot is a sum over all of them. They do give equations over the
//! reals, without any reduction: a rescaling divides `(c0, c1)` by a prime `p` and
//! leaves the remainders `(r0, r1)` away, which whoever evaluates has seen. So
//!
//! ```text
//! p (published) - (exact product) + r0 = e w - r1 s      in every slot,
//! ```
//!
//! with the error `e` of encryption and the weight `w`. In slot `j` all that is unknown
//! of the key is the number `s(zeta_j)`, the same in every inference, before a factor
//! `r1(zeta_j)` that is known and different each time: a regression per slot. `r1` is
//! uniform on an interval of length `p`, of variance `1 / 12` of the square, so that the
//! relative error of `s(zeta_j)` after `T` inferences is about
//! `sqrt(12 sigma^2 w^2 / T)` of one unit of `sqrt(N)`, and all slots together give a
//! coefficient of the key to `sqrt(12 sigma^2 w^2 / (T N))`: far below one half after a
//! few inferences. Published values that are rounded ask for more inferences and no more
//! than that, where the exact attack ends; a full run sweeps the bits.
//!
//! So it depends on *which* ten slots are published:
//!
//! - **Other slots each time** (the place of an answer depends on the request, or each
//!   inference of a batch is another's): the whole key, after as many inferences as cover
//!   all slots some times over.
//! - **The same ten slots always**: ten complex numbers of the key, 20 real equations of
//!   `N` in unknowns from {-1, 0, 1}, however many inferences there are. Precision
//!   grows with `sqrt(T)` alone, half a bit per doubling, and 20 numbers of `b` bits tell
//!   `20 b` bits of `N log2 3`: at N = 2048 a budget of 2^20 inferences leaves nine
//!   tenths of the key's entropy. As hints in the sense of Dachman-Soled, Ducas, Gong and
//!   Rossi (Crypto 2020) each takes one from the dimension of the lattice, 20 of `2 N`
//!   (`N` of the key, `N` of an encryption's error). Hints on the errors of encryption
//!   themselves are of another `e` in each inference, and their lattices have nothing in
//!   common but `s`. No lattice is reduced here: 20 dimensions of 2,048 are no matter at
//!   N = 1024, and in rings small enough for a reduction to end, ten slots are a large
//!   share of all, which is another question.

use he_core::Result;
use he_core::ckks::evaluator::{multiply_plain, rescale};
use he_core::ckks::{Message, Noise, Plaintext};
use rand_core::Rng;

use super::super::algebra;
use super::super::holder::{Ct, Holder};
use he_core::Params;

/// One inference as its evaluator sees it, who knows the values: the result, and what
/// was left away. Slots have real and imaginary halves.
pub(super) struct Inference {
    pub(super) result: Ct,
    /// The exact product in units of the ciphertext before it was rescaled.
    product: Vec<f64>,
    /// Remainders of both halves.
    left_away: [Vec<f64>; 2],
    /// The prime that was divided by.
    divisor: f64,
    /// Magnitudes of the weights.
    weights: Vec<f64>,
}

/// A product with public weights, rescaled: of chosen values, at the scale `scale`, from
/// `level` to the one below.
pub(super) fn infer(
    params: &Params,
    holder: &mut Holder,
    level: usize,
    scale: f64,
) -> Result<Inference> {
    let (n, divisor) = (params.n(), params.prime(level)?.modulus().value());
    let divisor = f64::from(divisor);
    let values = holder.values();
    let message = holder.encode(&values, scale)?;
    // From 1/4 to 1, of either sign.
    let weights: Vec<f64> = (0..params.slots())
        .map(|_| {
            let word = holder.rng.next_u32();
            let size = 0.25 + 0.75 * f64::from(word >> 1) / 2f64.powi(31);
            if word & 1 == 1 { size } else { -size }
        })
        .collect();
    let encoded = holder.encode(&weights, divisor)?;
    let mut ct = holder.encrypt(&message, level, scale)?;
    let plain = Plaintext::new(params, &encoded, level, divisor, vec![0; (level + 1) * n])?
        .with_noise(Noise::rounding(params), Message::within(1.0));
    multiply_plain(params, &mut ct, &plain)?;
    let prime = params.prime(level)?;
    let (c0, c1) = ct.halves();
    let remainder = |part: &[u32]| -> Result<Vec<f64>> {
        let part = algebra::centred(&part[level * n..], prime)?;
        let part: Vec<f64> = part.iter().map(|&x| x as f64).collect();
        algebra::slots(&part, 1.0)
    };
    let left_away = [remainder(c0)?, remainder(c1)?];
    rescale(params, &mut ct, &mut vec![0; n])?;
    let in_slots = |coefficients: &[i64]| {
        let coefficients: Vec<f64> = coefficients.iter().map(|&x| x as f64).collect();
        algebra::slots(&coefficients, 1.0)
    };
    let (m, w) = (in_slots(&message)?, in_slots(&encoded)?);
    let half = n / 2;
    let real = (0..half).map(|j| m[j] * w[j] - m[j + half] * w[j + half]);
    let imaginary = (0..half).map(|j| m[j] * w[j + half] + m[j + half] * w[j]);
    Ok(Inference {
        result: ct,
        product: real.chain(imaginary).collect(),
        left_away,
        divisor,
        weights: weights.iter().map(|w| w.abs()).collect(),
    })
}

/// What is known of the key in each slot: sums of the normal equations of
/// `y = -(r a - i b)` for `s(zeta) = a + b i`, from real parts alone, as networks
/// publish them.
pub(super) struct Regression {
    /// Sums of `r r`, `r i`, `i i`, `r y`, `i y`, by slot.
    sums: Vec<[f64; 5]>,
}

impl Regression {
    pub(super) fn new(params: &Params) -> Self {
        Self {
            sums: vec![[0.0; 5]; params.slots()],
        }
    }

    /// Takes the real parts of some slots of what is published of an inference.
    pub(super) fn take(
        &mut self,
        inference: &Inference,
        published: &[f64],
        at: impl IntoIterator<Item = usize>,
    ) {
        let half = self.sums.len();
        let Inference {
            result,
            product,
            left_away: [r0, r1],
            divisor,
            weights,
        } = inference;
        for j in at {
            let y = published[j] * result.scale() * divisor - product[j] + r0[j];
            // The error of encryption counts by the weight, roundings do not matter
            // beside it.
            let weight = 1.0 / (weights[j] * divisor).powi(2);
            let (r, i) = (-r1[j], r1[j + half]);
            let terms = [r * r, r * i, i * i, r * y, i * y];
            for (sum, term) in self.sums[j].iter_mut().zip(terms) {
                *sum += weight * term;
            }
        }
    }

    /// The key's values in all slots, real parts and then imaginary ones; zero where
    /// nothing is known.
    fn values(&self) -> Vec<f64> {
        let solved = self.sums.iter().map(|[rr, ri, ii, ry, iy]| {
            let determinant = rr * ii - ri * ri;
            match determinant > 1e-9 * rr * ii {
                true => [
                    (ii * ry - ri * iy) / determinant,
                    (rr * iy - ri * ry) / determinant,
                ],
                false => [0.0; 2],
            }
        });
        let solved: Vec<[f64; 2]> = solved.collect();
        let real = solved.iter().map(|s| s[0]);
        real.chain(solved.iter().map(|s| s[1])).collect()
    }

    /// The nearest key. Values under flooding may be beyond what the encoder takes: they
    /// are made smaller, and keep their signs.
    pub(super) fn key(&self) -> Result<Vec<i8>> {
        let mut values = self.values();
        let largest = values.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        let factor = (2f64.powi(40) / largest).min(1.0);
        values.iter_mut().for_each(|x| *x *= factor);
        let nearest = algebra::coefficients(&values, 1.0)?;
        Ok(nearest.iter().map(|&x| x.clamp(-1, 1) as i8).collect())
    }

    /// Root mean square error of the key's values in these slots, and of guessing zero:
    /// for the record, by whoever knows the key.
    pub(super) fn error(&self, truth: &[f64], at: &[usize]) -> [f64; 2] {
        let (values, half) = (self.values(), self.sums.len());
        let both = || at.iter().flat_map(|&j| [j, j + half]);
        let rms = |squares: f64| (squares / (2 * at.len()) as f64).sqrt();
        [
            rms(both().map(|j| (values[j] - truth[j]).powi(2)).sum()),
            rms(both().map(|j| truth[j].powi(2)).sum()),
        ]
    }
}
