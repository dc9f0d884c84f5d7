//! Constants: the same value in every slot, encoded without a transform.

use super::noise::{Message, Noise};
use super::scale::check_scale;
use super::track::Known;
use crate::arith::Modulus;
use crate::error::{Error, Result};
use crate::params::Prime;

/// Integers of a constant stay below this power of two in magnitude.
pub const CONSTANT_LIMIT_LOG2: u32 = 128;

/// Larger ones are multiples of a power of two that leaves this many bits: more than a
/// double has.
const KEPT_BITS: i32 = 61;

/// An encoded constant `a + b i`. Its polynomial is `a + b X^(N/2)`, as
/// `X^(N/2)` has the value `i` in every slot; `a` and `b` are rounded to
/// multiples of `1 / scale`. It has no level and no parameter set: it serves
/// any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant {
    /// Both times `2^shift`.
    re: i64,
    im: i64,
    shift: i32,
    scale: f64,
    /// Magnitude of what rounding to integers changed.
    rounding: f64,
}

impl Constant {
    /// The real constant `value`.
    ///
    /// # Errors
    /// [`Error::Scale`]; [`Error::NotFinite`], [`Error::Range`] where
    /// `value * scale` reaches `2^128` in magnitude.
    pub fn real(value: f64, scale: f64) -> Result<Self> {
        Self::complex(value, 0.0, scale)
    }

    /// The constant `re + im i`.
    ///
    /// # Errors
    /// As [`Self::real`]; the index is 0 for the real part, 1 for the other.
    pub fn complex(re: f64, im: f64, scale: f64) -> Result<Self> {
        check_scale("constant", scale)?;
        let [a, b] = [scaled(re, scale, 0)?, scaled(im, scale, 1)?];
        let (_, exponent) = libm::frexp(libm::fmax(libm::fabs(a), libm::fabs(b)));
        let shift = (exponent - KEPT_BITS).max(0);
        let integer = |x| libm::rint(libm::ldexp(x, -shift));
        let off = |x| libm::ldexp(integer(x), shift) - x;
        Ok(Self {
            re: integer(a) as i64,
            im: integer(b) as i64,
            shift,
            scale,
            rounding: libm::hypot(off(a), off(b)),
        })
    }

    /// The constant in every slot, and how far it is from the value encoded.
    pub(super) fn known(&self) -> Known {
        let rounding = self.rounding;
        let size = libm::hypot(self.re as f64, self.im as f64);
        let size = libm::ldexp(size, self.shift) + rounding;
        Known {
            noise: Noise {
                bound: rounding,
                sigma: rounding,
            },
            message: Message::within(size),
        }
    }

    /// Scale it was encoded at.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// Its values on the halves of a limb in the NTT domain, canonical.
    pub(super) fn halves<'l>(
        &self,
        prime: &Prime,
        limb: &'l mut [u32],
    ) -> [(&'l mut [u32], u32); 2] {
        let m = prime.modulus();
        // Word k is the value at psi^(2 brv(k) + 1), where X^(N/2) is
        // I^(2 brv(k) + 1) with I = psi^(N/2): I or, where the highest bit of
        // k is set, -I. The table's entry 1 is psi^brv(1) = I.
        let root = prime.forward_table().get(1).copied().unwrap_or(0);
        let re = residue(self.re, self.shift, m);
        let im = residue(self.im, self.shift, m);
        let turned = m.canon(m.mont(im as i32, root));
        let (low, high) = limb.split_at_mut(limb.len() >> 1);
        [(low, m.add(re, turned)), (high, m.sub(re, turned))]
    }
}

/// A part times the scale, if it is within the limit.
fn scaled(x: f64, scale: f64, index: usize) -> Result<f64> {
    let scaled = x * scale;
    if !scaled.is_finite() {
        Err(Error::NotFinite { index })
    } else if libm::fabs(scaled) < libm::ldexp(1.0, CONSTANT_LIMIT_LOG2 as i32) {
        Ok(scaled)
    } else {
        Err(Error::Range {
            index,
            limit_log2: CONSTANT_LIMIT_LOG2,
        })
    }
}

/// The residue of `x 2^shift`, of an integer below `2^62` in magnitude.
fn residue(x: i64, shift: i32, m: &Modulus) -> u32 {
    let low = x as i32;
    // `x - low` is a multiple of 2^32, and the quotient fits.
    let high = ((x - i64::from(low)) >> 32) as i32;
    let mut residue = m.add(m.canon(m.mont(high, m.r2())), m.reduce(low));
    for _ in 0..shift {
        residue = m.add(residue, residue);
    }
    residue
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::ntt;
    use crate::testing::N16;

    #[test]
    fn residues_of_wide_integers_are_right() {
        for i in 0..5 {
            let m = N16.prime(i).unwrap().modulus();
            let limit = (1i64 << 62) - 1;
            for x in [
                0,
                1,
                -1,
                1 << 31,
                -(1 << 31),
                (1 << 32) - 1,
                limit,
                -limit,
                987_654_321_987,
            ] {
                let q = i128::from(m.value());
                for shift in [0, 1, 31, 60] {
                    assert_eq!(
                        i128::from(residue(x, shift, m)),
                        (i128::from(x) << shift).rem_euclid(q),
                        "{x} 2^{shift}"
                    );
                }
            }
        }
    }

    /// A double times a power of two loses nothing, and the smaller part no more than a
    /// double beside the larger one.
    #[test]
    fn constants_beyond_the_integers_of_a_word_are_kept() {
        for (re, im, log2) in [
            (1.0 / 3.0, 0.0, 100),
            (-7.25, 1e-9, 120),
            (0.1, -0.2, 61),
            (0.0, 5.0, 125),
        ] {
            let scale = libm::ldexp(1.0, log2);
            let c = Constant::complex(re, im, scale).unwrap();
            let part = |x| libm::ldexp(x as f64, c.shift - log2);
            let largest = f64::max(f64::abs(re), f64::abs(im));
            assert!((part(c.re) - re).abs() <= 2f64.powi(-60) * largest, "{c:?}");
            assert!((part(c.im) - im).abs() <= 2f64.powi(-60) * largest, "{c:?}");
            assert!(c.rounding <= libm::ldexp(largest, log2 - 60), "{c:?}");
            assert!(c.re.unsigned_abs().max(c.im.unsigned_abs()) < 1 << 62);
            let known = c.known().message.bound;
            assert!((known / (f64::hypot(re, im) * scale) - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_constant_is_the_transform_of_its_polynomial() {
        let c = Constant::complex(-3.25, 1.5, 4.0).unwrap();
        for i in 0..5 {
            let prime = N16.prime(i).unwrap();
            let m = prime.modulus();
            let mut slow = [0; 16];
            (slow[0], slow[8]) = (m.reduce(-13), m.reduce(6));
            ntt::forward(&mut slow, prime).unwrap();
            let mut fast = [0; 16];
            for (half, value) in c.halves(prime, &mut fast) {
                half.fill(value);
            }
            assert_eq!(slow, fast);
        }
    }

    #[test]
    fn constants_that_do_not_fit_are_refused() {
        let limit_log2 = CONSTANT_LIMIT_LOG2;
        assert_eq!(
            Constant::complex(0.0, -1.0, 2f64.powi(128)),
            Err(Error::Range {
                index: 1,
                limit_log2
            })
        );
        assert!(Constant::real(1.0, 2f64.powi(127)).is_ok());
        assert_eq!(
            Constant::real(f64::NAN, 1.0),
            Err(Error::NotFinite { index: 0 })
        );
        assert!(matches!(Constant::real(1.0, 0.0), Err(Error::Scale { .. })));
    }
}
