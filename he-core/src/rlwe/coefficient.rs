//! The integers that messages are made of.
//!
//! A board encodes in single precision into words of 32 bits. A host may take `i64` up to
//! 2^62, for a scale of 2^40 that two primes of 20 bits rescale; it is carried over to a
//! prime as two words, in constant time. From 2^53 on a coefficient has the precision of
//! the double that it was rounded from.

use crate::arith::Modulus;
use crate::error::{Error, Result};
use crate::ring::kernel::{self, integers};
use crate::ring::sample;
use crate::secret::first_negative;
use zeroize::DefaultIsZeroes;

mod sealed {
    pub trait Sealed {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
}

/// A coefficient of a message: `i32`, or `i64` up to `2^62` in magnitude for the
/// scales of a host.
pub trait Coefficient: sealed::Sealed + Copy + DefaultIsZeroes + 'static {
    /// The encoder keeps coefficients below this power of two.
    const ENCODED_LOG2: u32;

    /// Refuses coefficients that cannot be carried over, in a time that does not
    /// depend on them unless there is one.
    ///
    /// # Errors
    /// [`Error::Range`].
    fn check(coefficients: &[Self]) -> Result<()>;

    /// Negative where the sum with some error of an encryption cannot be carried
    /// over.
    fn room(self) -> i32;

    /// The sum with an error of an encryption, of what has room for it.
    fn plus(self, error: i32) -> Self;

    /// Nearest number.
    fn to_f64(self) -> f64;

    /// What farther from zero than this power of two, there is no room for.
    const LIMIT_LOG2: u32;

    /// Carries coefficients over to a modulus times `factor` (centred; `m.r()`
    /// leaves the value, `m.r2()` gives Montgomery form): words between `-q` and
    /// `q`, for a transform. In constant time.
    fn lift(coefficients: &[Self], limb: &mut [u32], factor: i32, m: &Modulus);
}

impl Coefficient for i32 {
    const ENCODED_LOG2: u32 = 30;
    const LIMIT_LOG2: u32 = 31;

    #[inline(always)]
    fn check(_: &[Self]) -> Result<()> {
        Ok(())
    }

    #[inline(always)]
    fn room(self) -> i32 {
        // Negative where an addition passes the end of the range, either way.
        let (up, down) = (self.wrapping_add(LARGEST), self.wrapping_sub(LARGEST));
        (up & !self) | (self & !down)
    }

    #[inline(always)]
    fn plus(self, error: i32) -> Self {
        self.wrapping_add(error)
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn lift(coefficients: &[Self], limb: &mut [u32], factor: i32, m: &Modulus) {
        kernel::lift_i32(coefficients, limb, factor, m);
    }
}

/// The largest error of an encryption.
const LARGEST: i32 = sample::ERROR_COINS as i32;

/// Negative unless `x` is at most `2^62` in magnitude.
const fn within(x: i64) -> i32 {
    const LIMIT: u64 = 1 << integers::LIMIT_LOG2;
    // `x + 2^62` is at most `2^63` for these and no others: not both it and its
    // predecessor have the highest bit.
    let moved = (x as u64).wrapping_add(LIMIT);
    ((moved.wrapping_sub(1) & moved) >> 32) as i32
}

impl Coefficient for i64 {
    const ENCODED_LOG2: u32 = integers::LIMIT_LOG2;
    const LIMIT_LOG2: u32 = integers::LIMIT_LOG2;

    fn check(coefficients: &[Self]) -> Result<()> {
        // Values are secret; that they cannot be carried over is not.
        match first_negative(coefficients.iter().map(|&x| within(x))) {
            None => Ok(()),
            Some(index) => Err(Error::Range {
                index,
                limit_log2: Self::LIMIT_LOG2,
            }),
        }
    }

    #[inline(always)]
    fn room(self) -> i32 {
        let largest = Self::from(LARGEST);
        within(self.wrapping_add(largest)) | within(self.wrapping_sub(largest))
    }

    #[inline(always)]
    fn plus(self, error: i32) -> Self {
        self.wrapping_add(Self::from(error))
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        self as f64
    }

    #[inline(always)]
    fn lift(coefficients: &[Self], limb: &mut [u32], factor: i32, m: &Modulus) {
        kernel::lift_i64(coefficients, limb, factor, m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_integers_reach_their_limit_and_no_further() {
        const LIMIT: i64 = 1 << 62;
        for x in [0, 1, -1, LIMIT, -LIMIT, LIMIT - 1, 1 - LIMIT] {
            assert_eq!(i64::check(&[0, x]), Ok(()), "{x}");
        }
        for x in [LIMIT + 1, -LIMIT - 1, i64::MAX, i64::MIN, i64::MIN + 1] {
            let refused = Err(Error::Range {
                index: 1,
                limit_log2: 62,
            });
            assert_eq!(i64::check(&[0, x, 0]), refused, "{x}");
        }
        for (x, fits) in [
            (LIMIT - 21, true),
            (LIMIT - 20, false),
            (21 - LIMIT, true),
            (20 - LIMIT, false),
            (i64::MAX, false),
            (i64::MIN, false),
            (0, true),
        ] {
            assert_eq!(x.room() >= 0, fits, "{x}");
        }
        for (x, fits) in [
            (i32::MAX - 21, true),
            (i32::MAX - 20, false),
            (i32::MIN + 21, true),
            (i32::MIN + 20, false),
            (0, true),
        ] {
            assert_eq!(x.room() >= 0, fits, "{x}");
        }
        assert_eq!((LIMIT - 21).plus(21), LIMIT);
        // Of which the root mean square of a plaintext's slots is estimated.
        for x in [0, 3, -(1 << 40), LIMIT] {
            assert_eq!(Coefficient::to_f64(x), x as f64);
        }
    }
}
