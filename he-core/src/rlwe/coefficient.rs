//! The integers that messages are made of.

use crate::arith::Modulus;
use crate::error::{Error, Result};
use crate::ring::kernel::{self, integers};
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

    /// The sum with an error of an encryption, unless it cannot be carried over.
    fn plus(self, error: i32) -> Option<Self>;

    /// [`Self::plus`] refuses what is farther from zero than this power of two.
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
    fn plus(self, error: i32) -> Option<Self> {
        self.checked_add(error)
    }

    #[inline(always)]
    fn lift(coefficients: &[Self], limb: &mut [u32], factor: i32, m: &Modulus) {
        kernel::lift_i32(coefficients, limb, factor, m);
    }
}

/// Whether all are at most `2^62` in magnitude.
fn all_within(coefficients: &[i64]) -> bool {
    const LIMIT: u64 = 1 << integers::LIMIT_LOG2;
    // `x + 2^62` is at most `2^63` for these and no others: not both it and its
    // predecessor have the highest bit.
    let above = coefficients.iter().fold(0, |above, &x| {
        let moved = (x as u64).wrapping_add(LIMIT);
        above | (moved.wrapping_sub(1) & moved)
    });
    above >> 63 == 0
}

impl Coefficient for i64 {
    const ENCODED_LOG2: u32 = integers::LIMIT_LOG2;
    const LIMIT_LOG2: u32 = integers::LIMIT_LOG2;

    fn check(coefficients: &[Self]) -> Result<()> {
        if all_within(coefficients) {
            return Ok(());
        }
        let index = coefficients.iter().position(|&x| !all_within(&[x]));
        Err(Error::Range {
            index: index.unwrap_or(0),
            limit_log2: Self::LIMIT_LOG2,
        })
    }

    #[inline(always)]
    fn plus(self, error: i32) -> Option<Self> {
        let sum = self.checked_add(Self::from(error))?;
        all_within(&[sum]).then_some(sum)
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
        assert_eq!((LIMIT - 21).plus(21), Some(LIMIT));
        assert_eq!((LIMIT - 20).plus(21), None);
        assert_eq!((-LIMIT).plus(-1), None);
        assert_eq!((-LIMIT).plus(1), Some(1 - LIMIT));
        assert_eq!(i64::MAX.plus(1), None);
    }
}
