//! Extraction of the network behind a service (Xiang, Dalla, Wu 2025, Table 1).
//!
//! By surrogates, trained on the answers to some queries; and, where the network has
//! one square, exactly: each logit is then a quadratic form, and quadratic forms are
//! found by differences of scores, or from the boundaries between classes by labels
//! alone; with two squares they are polynomials of degree 4. What a defence does to the
//! answers (fewer digits, labels alone, a query budget) is a parameter beside the target.

mod boundary;
pub mod exact;
pub mod exact_labels;
pub mod outputs;
mod quadrics;
mod quartic;
pub mod surrogate;
pub mod two_squares;
mod victim;

pub(crate) use self::exact::{exactly, majority};
