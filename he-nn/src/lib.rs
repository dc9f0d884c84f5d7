//! Quantized networks on CKKS ciphertexts: the model, the plan, the
//! evaluator's session, a sensor that encrypts, and the messages on the link.
//!
//! `no_std` and without an allocator; the firmware, the in-process evaluator
//! and the tests run the same code.
#![cfg_attr(not(test), no_std)]

pub mod circuit;
pub mod link;
pub mod mailbox;
pub mod message;
pub mod model;
pub mod packing;
pub mod plan;
pub mod sensor;
pub mod session;
pub mod trace;
