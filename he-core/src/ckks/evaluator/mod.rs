//! Operations on ciphertexts. No secret comes here; the evaluator is public.
//!
//! They work in place, on two parts or three alike, and check that levels and
//! scales agree: [`linear`] adds, [`product`] multiplies, [`level`] divides,
//! [`switching`] relinearises and rotates.

pub mod level;
pub mod linear;
pub mod product;
pub mod switching;

pub use level::{align_scale, drop_level, rescale, scale_towards};
pub use linear::{add, add_constant, add_encoded, add_plain, negate, sub, sub_plain};
pub use product::{
    multiply, multiply_constant, multiply_encoded, multiply_plain, multiply_plain_add, square,
    transform_encoded,
};
pub use switching::{
    Due, SwitchOp, Switching, Workspace, conjugate, inner_sum, relinearize, rotate, switch,
    workspace_words,
};

use crate::error::{Error, Result};

/// Checks that the levels of two operands are equal.
fn check_level(operation: &'static str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        Ok(())
    } else {
        Err(Error::Level {
            operation,
            expected,
            got,
        })
    }
}
