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
//! | [`rlwe`] | secret, public and switching keys (seeded), encryption, gadget product and mod-down; knows no scale |
//! | [`ckks`] | encoding, ciphertexts with level, scale and noise, the evaluator, decryption, publication |
//!
//! Beside them: [`params`] (literal to validated, at compile time), [`error`],
//! [`probe`] (how a device sees what an operation is at) and [`wire`]
//! (bit-packed bytes, specified in `he-core/WIRE.md`).
//!
//! # The first multiplication
//!
//! A vector is encrypted, multiplied slot by slot by another in the clear, and
//! decrypted. Here and below memory comes from `Vec`; on a microcontroller it
//! is slices of a static array. [`ckks::evaluator`] goes on from here.
//!
//! ```
//! use he_core::ckks::encode::encode;
//! use he_core::ckks::evaluator::{multiply_plain, rescale};
//! use he_core::ckks::{Ciphertext, Message, Noise, Plaintext, decrypt};
//! use he_core::params::N4096_DEPTH3 as P;
//! use he_core::rlwe::{self, SecretKey};
//!
//! # let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
//! let (n, level, scale) = (P.n(), P.max_level(), (1u64 << 20) as f64);
//! let limbs = level + 1;
//! let integers = |values: &[f64]| {
//!     let (mut buffer, mut integers) = (vec![0.0; n], vec![0; n]);
//!     encode(values, scale, &mut buffer, &mut integers, |x| x as i32)?;
//!     Ok::<_, he_core::Error>(integers)
//! };
//!
//! // The holder of the key, with a cryptographic generator `rng`.
//! let storage = vec![0; SecretKey::<Vec<u32>>::words(&P)];
//! let key = SecretKey::generate(&P, storage, &mut rng)?;
//! let mut message = integers(&[1.5, -2.0, 3.0])?;
//! let (mut c0, mut c1) = (vec![0; limbs * n], vec![0; limbs * n]);
//! let seed = rlwe::encrypt(&P, &key, &mut message, level, &mut rng, &mut c0)?;
//!
//! // The evaluator, who has `seed` and `c0`.
//! rlwe::expand_c1(&P, &seed, &mut c1)?;
//! // What is known of the inputs: fresh, and no slot above 3.
//! let ct = Ciphertext::new(&P, level, scale, c0, c1)?;
//! let mut ct = ct.with_noise(Noise::fresh(&P), Message::within(3.0));
//! let weights = integers(&[2.0, 0.5, -1.0])?;
//! let weights = Plaintext::new(&P, &weights, level, scale, vec![0; limbs * n])?;
//! multiply_plain(&P, &mut ct, &weights)?;
//! rescale(&P, &mut ct, &mut vec![0; n])?;
//!
//! // The holder of the key again, who knows what level and scale to expect.
//! let expected = scale * scale / f64::from(P.prime(3)?.modulus().value());
//! let (mut scratch, mut slots) = (vec![0; 3 * n], vec![0.0; n]);
//! let result = decrypt(&P, &key, &ct, 2, expected, &mut scratch, &mut slots)?;
//! for (i, product) in [3.0, -1.0, -3.0].into_iter().enumerate() {
//!     assert!((result.slot(i).unwrap() - product).abs() < 0.01);
//! }
//! assert!(result.noise().sigma < 0.01);
//! # Ok::<(), he_core::Error>(())
//! ```
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
//! (Cheon, Han, Kim, Kim, Song, SAC 2018) with hybrid key switching (Gentry,
//! Halevi, Smart, Crypto 2012, appendix D; Han, Ki, CT-RSA 2020, section 3): with
//! one special prime and one prime per digit, by a streamed key or one in memory,
//! or with several of both, by keys in memory.
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
    reason = "tables of up to 2^14 entries per prime"
)]

pub mod arith;
#[cfg(any(test, feature = "benchmarks"))]
pub mod benchmarks;
pub mod ckks;
pub mod error;
pub mod params;
pub mod probe;
pub mod ring;
pub mod rlwe;
mod secret;
mod switch_target;
#[cfg(feature = "taint")]
pub mod taint;
pub mod wire;

#[cfg(test)]
mod testing;

pub use error::{Error, Result};
pub use params::Params;
