//! Quantized networks on CKKS ciphertexts: the model, the plan, the
//! evaluator's session, a sensor that encrypts, and the messages on the link.
//!
//! `no_std` and without an allocator; the firmware, the in-process evaluator
//! and the tests run the same code. What a host has besides stands behind features:
//!
//! - `std`: the boards, data sets, networks in floating point, evaluation in the clear, and the
//!   bundled models and digits;
//! - `import`: networks from ONNX files;
//! - `train`: training of the bundled architectures.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

pub mod kept;
pub mod link;
pub mod mailbox;
pub mod message;
pub mod model;
#[cfg(feature = "padding")]
pub mod padding;
pub mod plan;
pub mod program;
pub mod progress;
pub mod schedule;
pub mod sensor;
pub mod session;
pub mod trace;

#[cfg(feature = "std")]
pub mod boards;
#[cfg(feature = "std")]
pub mod bundled;
#[cfg(feature = "std")]
pub mod clear;
#[cfg(feature = "std")]
pub mod data;
#[cfg(feature = "std")]
pub mod files;
#[cfg(feature = "import")]
mod forward;
#[cfg(feature = "import")]
pub mod import;
#[cfg(feature = "std")]
pub mod network;
#[cfg(feature = "train")]
pub mod train;
