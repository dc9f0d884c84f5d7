//! Extraction of the network behind a service (Xiang, Dalla, Wu 2025, Table 1).
//!
//! By surrogates, trained on the answers to some queries; and, where the network has
//! one square, exactly: each logit is then a quadratic form, and quadratic forms are
//! found by differences. What a defence does to the answers (fewer digits, labels
//! alone, a query budget) is a parameter beside the target.

pub mod exact;
pub mod surrogate;
