//! Constants: the same value in every slot, encoded without a transform.

use super::noise::{Message, Noise};
use super::scale::check_scale;
use super::track::Known;
use crate::arith::Modulus;
use crate::error::{Error, Result};
use crate::params::Prime;

/// Integers of a constant reach at most this power of two in magnitude.
pub const CONSTANT_LIMIT_LOG2: u32 = 62;

/// An encoded constant `a + b i`. Its polynomial is `a + b X^(N/2)`, as
/// `X^(N/2)` has the value `i` in every slot; `a` and `b` are rounded to
/// multiples of `1 / scale`. It has no level and no parameter set: it serves
/// any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant {
    re: i64,
    im: i64,
    scale: f64,
    /// Magnitude of what rounding to integers changed.
    rounding: f64,
}

impl Constant {
    /// The real constant `value`.
    ///
    /// # Errors
    /// [`Error::Scale`]; [`Error::NotFinite`], [`Error::Range`] where
    /// `value * scale` reaches `2^62` in magnitude.
    pub fn real(value: f64, scale: f64) -> Result<Self> {
        Self::complex(value, 0.0, scale)
    }

    /// The constant `re + im i`.
    ///
    /// # Errors
    /// As [`Self::real`]; the index is 0 for the real part, 1 for the other.
    pub fn complex(re: f64, im: f64, scale: f64) -> Result<Self> {
        check_scale("constant", scale)?;
        let (a, b) = (integer(re, scale, 0)?, integer(im, scale, 1)?);
        Ok(Self {
            re: a,
            im: b,
            scale,
            rounding: libm::hypot(a as f64 - re * scale, b as f64 - im * scale),
        })
    }

    /// The constant in every slot, and how far it is from the value encoded.
    pub(super) fn known(&self) -> Known {
        let rounding = self.rounding;
        let size = libm::hypot(self.re as f64, self.im as f64) + rounding;
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
        let (re, im) = (residue(self.re, m), residue(self.im, m));
        let turned = m.canon(m.mont(im as i32, root));
        let (low, high) = limb.split_at_mut(limb.len() >> 1);
        [(low, m.add(re, turned)), (high, m.sub(re, turned))]
    }
}

fn integer(x: f64, scale: f64, index: usize) -> Result<i64> {
    let scaled = libm::rint(x * scale);
    if !scaled.is_finite() {
        Err(Error::NotFinite { index })
    } else if libm::fabs(scaled) < (1u64 << CONSTANT_LIMIT_LOG2) as f64 {
        Ok(scaled as i64)
    } else {
        Err(Error::Range {
            index,
            limit_log2: CONSTANT_LIMIT_LOG2,
        })
    }
}

/// The residue of an integer below `2^62` in magnitude.
fn residue(x: i64, m: &Modulus) -> u32 {
    let low = x as i32;
    // `x - low` is a multiple of 2^32, and the quotient fits.
    let high = ((x - i64::from(low)) >> 32) as i32;
    m.add(m.canon(m.mont(high, m.r2())), m.reduce(low))
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
                assert_eq!(
                    i64::from(residue(x, m)),
                    x.rem_euclid(i64::from(m.value())),
                    "{x}"
                );
            }
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
            Constant::complex(0.0, -1.0, 2f64.powi(62)),
            Err(Error::Range {
                index: 1,
                limit_log2
            })
        );
        assert!(Constant::real(1.0, 2f64.powi(61)).is_ok());
        assert_eq!(
            Constant::real(f64::NAN, 1.0),
            Err(Error::NotFinite { index: 0 })
        );
        assert!(matches!(Constant::real(1.0, 0.0), Err(Error::Scale { .. })));
    }
}
