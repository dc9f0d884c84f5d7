//! Polynomials modulo `X^N + 1` over a chain of primes.
//!
//! A polynomial is held as limbs of `N` canonical residues, one limb per
//! prime. Its domain is a type: [`Coeff`] (coefficients, ascending) or
//! [`Ntt`] (evaluations at the odd powers of a primitive `2N`-th root, in the
//! bit-reversed order of [`ntt`]). Most functions work on one limb, because
//! that is what streams and what fits a microcontroller; [`Poly`] ties limbs,
//! domain and length together where whole polynomials are held.

pub mod automorphism;
pub mod crt;
pub mod kernel;
pub mod ntt;
pub mod sample;

use crate::error::{Result, check_len};
use crate::params::Params;
use core::marker::PhantomData;

/// Coefficient domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coeff {}

/// Evaluation (number-theoretic transform) domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ntt {}

/// A polynomial of `limbs` limbs over caller-provided storage (`&[u32]`,
/// `&mut [u32]`, `Vec<u32>`, an array), limb after limb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poly<S, D> {
    data: S,
    n: usize,
    limbs: usize,
    domain: PhantomData<D>,
}

impl<S: AsRef<[u32]>, D> Poly<S, D> {
    /// Takes storage that already holds canonical residues in domain `D`.
    ///
    /// # Errors
    /// [`crate::Error::Length`] unless it has exactly `limbs * N` words,
    /// [`crate::Error::Residue`] where a residue is not below its prime.
    pub fn new(params: &Params, limbs: usize, data: S) -> Result<Self> {
        let n = params.n();
        check_len("polynomial", data.as_ref().len(), limbs * n)?;
        for (i, limb) in data.as_ref().chunks_exact(n).enumerate() {
            let q = params.prime(i)?.modulus().value();
            if let Some(index) = limb.iter().position(|&x| x >= q) {
                return Err(crate::Error::Residue { limb: i, index });
            }
        }
        Ok(Self {
            data,
            n,
            limbs,
            domain: PhantomData,
        })
    }

    /// Number of limbs.
    #[must_use]
    pub const fn limbs(&self) -> usize {
        self.limbs
    }

    /// All words, limb after limb.
    pub fn words(&self) -> &[u32] {
        self.data.as_ref()
    }

    /// The limbs in the order of the modulus chain.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.data.as_ref().chunks_exact(self.n)
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>, D> Poly<S, D> {
    /// The limbs, mutable. Whoever writes keeps them canonical.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut [u32]> {
        self.data.as_mut().chunks_exact_mut(self.n)
    }

    fn retype<E>(self) -> Poly<S, E> {
        Poly {
            data: self.data,
            n: self.n,
            limbs: self.limbs,
            domain: PhantomData,
        }
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Poly<S, Coeff> {
    /// Transforms every limb.
    ///
    /// # Errors
    /// [`crate::Error::Level`] if `params` has fewer primes than this
    /// polynomial has limbs.
    pub fn into_ntt(mut self, params: &Params) -> Result<Poly<S, Ntt>> {
        for (i, limb) in self.iter_mut().enumerate() {
            ntt::forward(limb, params.prime(i)?)?;
        }
        Ok(self.retype())
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Poly<S, Ntt> {
    /// Transforms every limb back.
    ///
    /// # Errors
    /// As [`Poly::into_ntt`].
    pub fn into_coeff(mut self, params: &Params) -> Result<Poly<S, Coeff>> {
        for (i, limb) in self.iter_mut().enumerate() {
            ntt::inverse(limb, params.prime(i)?)?;
        }
        Ok(self.retype())
    }
}
