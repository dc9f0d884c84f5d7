//! Ciphertexts and plaintexts with level and scale.

use crate::error::{Error, Result, check_len, check_params};
use crate::params::Params;
use crate::ring::{kernel, ntt};

/// Two scales are the same if they agree to this relative difference: they
/// are products and quotients of the same few numbers, in `f64`.
pub const SCALE_TOLERANCE: f64 = 1e-9;

/// Checks that a scale is one: positive and finite.
///
/// # Errors
/// [`Error::Scale`].
pub fn check_scale(operation: &'static str, scale: f64) -> Result<()> {
    if scale.is_finite() && scale > 0.0 {
        Ok(())
    } else {
        Err(Error::Scale {
            operation,
            expected: 1.0,
            got: scale,
        })
    }
}

/// Checks that two scales are equal within [`SCALE_TOLERANCE`].
///
/// # Errors
/// [`Error::Scale`] naming both.
pub fn check_same_scale(operation: &'static str, expected: f64, got: f64) -> Result<()> {
    check_scale(operation, got)?;
    if libm::fabs(expected - got) <= expected * SCALE_TOLERANCE {
        Ok(())
    } else {
        Err(Error::Scale {
            operation,
            expected,
            got,
        })
    }
}

/// A two-part ciphertext over caller-provided storage, NTT domain, canonical
/// residues. The halves may lie in storage larger than the level needs.
#[derive(Debug)]
pub struct Ciphertext<S> {
    c0: S,
    c1: S,
    params: u32,
    n: usize,
    level: usize,
    /// The factor between slot values and what is encrypted; exact (a
    /// product of encoding scales divided by the primes rescaled by), never
    /// reset to a nominal value.
    scale: f64,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Ciphertext<S> {
    /// Takes two halves of `level + 1` limbs or more.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Scale`], [`Error::Length`] or
    /// [`Error::Residue`].
    pub fn new(params: &Params, level: usize, scale: f64, c0: S, c1: S) -> Result<Self> {
        params.check_level("ciphertext", level)?;
        check_scale("ciphertext", scale)?;
        let n = params.n();
        for half in [&c0, &c1] {
            let words = half.as_ref();
            if words.len() < (level + 1) * n {
                let expected = (level + 1) * n;
                return Err(Error::Length {
                    what: "ciphertext half",
                    expected,
                    got: words.len(),
                });
            }
            for (limb, words) in words.chunks_exact(n).take(level + 1).enumerate() {
                let q = params.prime(limb)?.modulus().value();
                if let Some(index) = words.iter().position(|&x| x >= q) {
                    return Err(Error::Residue { limb, index });
                }
            }
        }
        Ok(Self {
            c0,
            c1,
            params: params.fingerprint(),
            n,
            level,
            scale,
        })
    }

    /// The zero ciphertext, to accumulate into.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn zero(params: &Params, level: usize, scale: f64, mut c0: S, mut c1: S) -> Result<Self> {
        c0.as_mut().fill(0);
        c1.as_mut().fill(0);
        Self::new(params, level, scale, c0, c1)
    }

    /// Makes this the zero ciphertext of another level and scale, in the same
    /// storage.
    ///
    /// # Errors
    /// [`Error::Scale`], or [`Error::Length`] where the storage is too short.
    pub fn reset(&mut self, level: usize, scale: f64) -> Result<()> {
        check_scale("ciphertext", scale)?;
        let expected = level.saturating_add(1).saturating_mul(self.n);
        for half in [&mut self.c0, &mut self.c1] {
            let words = half.as_mut();
            let got = words.len();
            let Some(words) = words.get_mut(..expected) else {
                return Err(Error::Length {
                    what: "ciphertext half",
                    expected,
                    got,
                });
            };
            words.fill(0);
        }
        self.set(level, scale);
        Ok(())
    }

    /// Level: the index of the last prime of its modulus.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }

    /// Exact scale.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    /// The halves, `level + 1` limbs each.
    #[must_use]
    pub fn halves(&self) -> (&[u32], &[u32]) {
        let words = (self.level + 1) * self.n;
        (
            self.c0.as_ref().get(..words).unwrap_or_default(),
            self.c1.as_ref().get(..words).unwrap_or_default(),
        )
    }

    /// The halves, mutable. Whoever writes keeps the residues canonical.
    pub fn halves_mut(&mut self) -> (&mut [u32], &mut [u32]) {
        let words = (self.level + 1) * self.n;
        (
            self.c0.as_mut().get_mut(..words).unwrap_or_default(),
            self.c1.as_mut().get_mut(..words).unwrap_or_default(),
        )
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> (S, S) {
        (self.c0, self.c1)
    }

    pub(super) fn check_params(&self, params: &Params) -> Result<()> {
        check_params(params, self.params)
    }

    pub(super) const fn set(&mut self, level: usize, scale: f64) {
        self.level = level;
        self.scale = scale;
    }

    /// Limb `i` of both halves.
    pub(super) fn limb_mut(&mut self, i: usize) -> Result<(&mut [u32], &mut [u32])> {
        let (n, level) = (self.n, self.level);
        let (c0, c1) = self.halves_mut();
        let range = i * n..(i + 1) * n;
        match (c0.get_mut(range.clone()), c1.get_mut(range)) {
            (Some(a), Some(b)) => Ok((a, b)),
            _ => Err(Error::Level {
                operation: "limb",
                expected: level,
                got: i,
            }),
        }
    }
}

/// An encoded plaintext, NTT domain in Montgomery form.
#[derive(Debug)]
pub struct Plaintext<S> {
    limbs: S,
    params: u32,
    level: usize,
    scale: f64,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Plaintext<S> {
    /// Transforms integer coefficients (from [`super::encode`]) for `level`.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Scale`] or [`Error::Length`].
    pub fn new(
        params: &Params,
        coefficients: &[i32],
        level: usize,
        scale: f64,
        mut limbs: S,
    ) -> Result<Self> {
        params.check_level("plaintext", level)?;
        check_scale("plaintext", scale)?;
        let n = params.n();
        check_len("coefficients", coefficients.len(), n)?;
        check_len("plaintext", limbs.as_ref().len(), (level + 1) * n)?;
        for (i, limb) in limbs.as_mut().chunks_exact_mut(n).enumerate() {
            let prime = params.prime(i)?;
            let m = prime.modulus();
            kernel::lift_i32(coefficients, limb, m.r2(), m);
            ntt::forward(limb, prime)?;
        }
        Ok(Self {
            limbs,
            params: params.fingerprint(),
            level,
            scale,
        })
    }

    /// Level it was made for.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }

    /// Scale it was encoded at.
    #[must_use]
    pub const fn scale(&self) -> f64 {
        self.scale
    }

    pub(super) fn check_params(&self, params: &Params) -> Result<()> {
        check_params(params, self.params)
    }

    pub(super) fn words(&self) -> &[u32] {
        self.limbs.as_ref()
    }
}
