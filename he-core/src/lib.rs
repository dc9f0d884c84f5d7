//! Leveled RNS-CKKS on 32-bit words: `no_std`, no allocator, no panic on any
//! input, the same code on a Cortex-M4 and on a host.
//!
//! # Layers
//!
//! Lower layers know nothing of higher ones.
//!
//! | layer | holds |
//! |---|---|
//! | [`arith`] | one prime modulus below 2^30: Montgomery reduction with its bounds stated, const prime and root checks |
//! | [`ring`] | limbs of polynomials modulo X^N + 1 over a chain of primes: NTT, automorphism, base extension, samplers; [`ring::kernel`] is where machine-specific code goes |
//! | [`rlwe`] | secret and switching keys (seeded), secret-key encryption, gadget product and mod-down; knows no scale |
//! | [`ckks`] | encoding, ciphertexts with level and scale, the evaluator, decryption |
//!
//! Beside them: [`params`] (literal to validated, at compile time), [`error`]
//! and [`wire`] (bit-packed bytes, specified in `he-core/WIRE.md`).
//!
//! # Contracts
//!
//! - Every function checks lengths, levels and scales of what it is given, in
//!   release builds too, and returns an [`Error`] that names what disagreed.
//! - Residues are canonical (`0 <= x < q`) between calls.
//! - Whoever needs memory takes it as a slice from the caller.
//! - Whoever needs randomness takes the generator from the caller.
//! - Running time depends on lengths and levels, never on secret values.
//!
//! # Not here
//!
//! Bootstrapping, BFV/BGV, multi-party keys. Circuit privacy: the client that
//! decrypts sees the noise of the computation.
//!
//! The scheme is CKKS (Cheon, Kim, Kim, Song, Asiacrypt 2017) in its RNS form
//! (Cheon, Han, Kim, Kim, Song, SAC 2018) with hybrid key switching of one
//! prime a digit and one special prime (Gentry, Halevi, Smart, Crypto 2012,
//! appendix D; Han, Ki, CT-RSA 2020, section 3).
#![cfg_attr(not(test), no_std)]
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::integer_division_remainder_used
)]
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::integer_division_remainder_used,
        reason = "a test may fail by panicking, and an oracle may divide"
    )
)]
// The NTT tables of a parameter set are computed by the compiler.
#![allow(
    long_running_const_eval,
    reason = "tables of up to 2^14 entries a prime"
)]

pub mod arith;
pub mod ckks;
pub mod error;
pub mod params;
pub mod ring;
pub mod rlwe;
mod secret;
pub mod wire;

#[cfg(test)]
mod testing;

pub use error::{Error, Result};
pub use params::Params;
