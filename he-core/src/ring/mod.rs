//! Polynomials modulo `X^N + 1` over a chain of primes.
//!
//! A polynomial is held as limbs of `N` canonical residues, one limb per
//! prime, in the caller's memory. Everything here works on one limb, because
//! that is what streams and what fits a microcontroller. A limb is in the
//! coefficient domain (coefficients, ascending) or in the NTT domain
//! (evaluations at the odd powers of a primitive `2N`-th root, in the
//! bit-reversed order of [`ntt`]); each function says which it takes.
//! Ciphertexts, keys and plaintexts of the layers above are always in the NTT
//! domain, and only [`crate::rlwe::gadget`], [`crate::ckks::evaluator`] and
//! [`crate::rlwe::decrypt`] leave it, inside one function.

pub mod automorphism;
pub mod crt;
pub mod kernel;
pub mod ntt;
pub mod sample;

/// Copies words; both have as many, which callers have checked. Not
/// `copy_from_slice`, which brings a panic with it where the compiler does not
/// see that.
pub(crate) fn copy(to: &mut [u32], from: &[u32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = from;
    }
}
