//! Which numbers are scales, and which scales are the same.

use crate::error::{Error, Result};

/// Two scales are the same if they agree to this relative difference: they
/// are products and quotients of the same few numbers, in `f64`.
pub const SCALE_TOLERANCE: f64 = 1e-9;

/// Checks that a scale is one: positive, finite, and not so small (below 2^-1022)
/// that its inverse is infinite.
///
/// # Errors
/// [`Error::Scale`].
pub fn check_scale(operation: &'static str, scale: f64) -> Result<()> {
    if scale.is_normal() && scale.is_sign_positive() {
        Ok(())
    } else {
        Err(Error::Scale {
            operation,
            expected: 1.0,
            got: scale,
        })
    }
}

/// Checks that two scales are equal within [`SCALE_TOLERANCE`].
///
/// # Errors
/// [`Error::Scale`] naming both.
pub fn check_same_scale(operation: &'static str, expected: f64, got: f64) -> Result<()> {
    check_scale(operation, got)?;
    if libm::fabs(expected - got) <= expected * SCALE_TOLERANCE {
        Ok(())
    } else {
        Err(Error::Scale {
            operation,
            expected,
            got,
        })
    }
}
