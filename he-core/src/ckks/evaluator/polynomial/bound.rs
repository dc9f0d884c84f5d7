//! Errors and values through a polynomial, without a ciphertext.

use super::{MAX_KEPT, Step, Walk, factors};
use crate::ckks::noise::Noise;
use crate::error::{Error, Result};
use crate::params::Params;

/// What is known of [`super::evaluate_polynomial`]'s result beforehand, for slots
/// of one magnitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolynomialBound {
    /// Error of a slot, times the result's scale.
    pub noise: Noise,
    /// Least distance between a power or a sum with its error, times its scale, and
    /// half the modulus where it is rescaled, in bits: below 0 it may wrap around.
    pub headroom_bits: f64,
}

/// Error and magnitude of a slot, both times the scale.
#[derive(Clone, Copy, Default)]
struct Slot {
    noise: Noise,
    value: f64,
}

impl Slot {
    /// All of it is of one ciphertext, so errors add up, deviations too.
    const fn plus(self, other: Self) -> Self {
        Self {
            noise: Noise {
                bound: self.noise.bound + other.noise.bound,
                sigma: self.noise.sigma + other.noise.sigma,
            },
            value: self.value + other.value,
        }
    }

    fn product(self, other: Self) -> Self {
        let times = |noise: Noise, value| noise.times(value, value);
        let of = |noise| Self { noise, value: 0.0 };
        of(times(self.noise, other.value))
            .plus(of(times(other.noise, self.value)))
            .plus(of(self.noise.times(other.noise.bound, other.noise.sigma)))
            .plus(Self {
                noise: Noise::ZERO,
                value: self.value * other.value,
            })
    }
}

/// Sums and powers before they are rescaled.
struct Bounds<'w, 'a> {
    walk: &'w Walk<'a>,
    x: Slot,
    /// By place among the powers that are kept.
    powers: [Slot; MAX_KEPT],
    headroom: f64,
}

impl Bounds<'_, '_> {
    fn power(&self, k: usize) -> Slot {
        if k == 1 {
            return self.x;
        }
        let kept = self.powers.get(self.walk.place(k));
        kept.copied().unwrap_or_default()
    }

    /// Relinearises a sum at `level`, if it holds a product, and rescales it.
    fn finish(&mut self, mut sum: Slot, level: usize, product: bool) -> Result<Slot> {
        let params = self.walk.params;
        if product {
            sum.noise = sum.noise.plus(Noise::key_switch(params, level)?);
        }
        let left = params.log_q(level) - 1.0 - libm::log2(sum.value + sum.noise.bound);
        self.headroom = libm::fmin(self.headroom, left);
        let unit = 1.0 / self.walk.prime(level)?;
        let noise = sum.noise.times(unit, unit);
        Ok(Slot {
            noise: noise.plus(Noise::division(params)),
            value: sum.value * unit,
        })
    }
}

/// Bounds the error of [`super::evaluate_polynomial`] by the walk that computes it,
/// for slots of the magnitude `value` and of the error `noise` (times `scale`).
///
/// All terms are taken at their magnitude, and errors that come from the same
/// ciphertext add up, standard deviations too: powers of one value depend on each
/// other, which the figures that ciphertexts carry do not count for deviations.
///
/// ```
/// use he_core::ckks::Noise;
/// use he_core::ckks::evaluator::polynomial_bound;
/// use he_core::params::N8192_DEPTH5 as P;
/// let (sigmoid, scale) = ([0.5, 0.197, 0.0, -0.004], (1u64 << 24) as f64);
/// let bound = polynomial_bound(&P, &sigmoid, 5, scale, scale, 4.0, Noise::fresh(&P))?;
/// assert!(6.0 * bound.noise.sigma / scale < 0.05);
/// assert!(bound.headroom_bits > 10.0);
/// # Ok::<(), he_core::Error>(())
/// ```
///
/// # Errors
/// As [`super::polynomial_outcome`]; [`Error::NotFinite`] for a magnitude that is
/// negative or no finite number.
pub fn polynomial_bound(
    params: &Params,
    coefficients: &[f64],
    level: usize,
    scale: f64,
    target: f64,
    value: f64,
    noise: Noise,
) -> Result<PolynomialBound> {
    if !(value.is_finite() && value >= 0.0) {
        return Err(Error::NotFinite { index: 0 });
    }
    let (walk, at) = Walk::new(params, coefficients, level, scale)?;
    let top = walk.top(at, target)?;
    let mut bounds = Bounds {
        walk: &walk,
        x: Slot {
            noise,
            value: value * scale,
        },
        powers: [Slot::default(); MAX_KEPT],
        headroom: f64::INFINITY,
    };
    for k in walk.used_powers(top)? {
        let (a, b) = factors(k);
        let level = walk.power(a)?.0.min(walk.power(b)?.0);
        let product = bounds.power(a).product(bounds.power(b));
        let power = bounds.finish(product, level, true)?;
        if let Some(kept) = bounds.powers.get_mut(walk.place(k)) {
            *kept = power;
        }
    }
    let mut sums = [(Slot::default(), false); MAX_KEPT];
    walk.whole(top, &mut |step| {
        match step {
            Step::Begin(at) => {
                if let Some(sum) = sums.get_mut(at.depth) {
                    *sum = (Slot::default(), false);
                }
            }
            Step::Term(at, k, constant) => {
                let known = constant.known();
                let mut term = Slot {
                    noise: known.noise,
                    value: known.message.bound,
                };
                if k > 0 {
                    term = term.product(bounds.power(k));
                }
                if let Some((sum, _)) = sums.get_mut(at.depth) {
                    *sum = sum.plus(term);
                }
            }
            Step::Close { inner, outer, k } => {
                let (sum, product) = sums.get(inner.depth).copied().unwrap_or_default();
                let factor = bounds.finish(sum, inner.level, product)?;
                let term = factor.product(bounds.power(k));
                if let Some((sum, product)) = sums.get_mut(outer.depth) {
                    *sum = sum.plus(term);
                    *product = true;
                }
            }
        }
        Ok(())
    })?;
    let (sum, product) = sums.get(top.depth).copied().unwrap_or_default();
    let result = bounds.finish(sum, top.level, product)?;
    Ok(PolynomialBound {
        noise: result.noise,
        headroom_bits: bounds.headroom,
    })
}
