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
//! `rlwe::decrypt` leave it, inside one function.
//!
//! The domain is no type: nearly every object of the layers above is in the NTT domain, and
//! the three functions that leave it do so for one limb at a time. A `Poly<Domain>` was
//! written, and nothing used it.

use crate::error::{Error, Result};

pub mod automorphism;
pub(crate) mod crt;
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

/// Scratch of the caller that is handed out limb by limb.
pub(crate) struct Scratch<'w> {
    rest: &'w mut [u32],
    n: usize,
    too_short: Error,
}

impl<'w> Scratch<'w> {
    /// `limbs` limbs at the front of `words`, which may be longer.
    pub(crate) fn new(
        what: &'static str,
        words: &'w mut [u32],
        limbs: usize,
        n: usize,
    ) -> Result<Self> {
        let (expected, got) = (limbs * n, words.len());
        let too_short = Error::Length {
            what,
            expected,
            got,
        };
        let rest = words.get_mut(..expected).ok_or(too_short)?;
        Ok(Self { rest, n, too_short })
    }

    /// The next limbs.
    pub(crate) fn take(&mut self, limbs: usize) -> Result<&'w mut [u32]> {
        let (taken, others) = core::mem::take(&mut self.rest)
            .split_at_mut_checked(limbs * self.n)
            .ok_or(self.too_short)?;
        self.rest = others;
        Ok(taken)
    }
}
