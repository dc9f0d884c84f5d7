//! Decryption of what an untrusted evaluator returned.
//!
//! The evaluator may return anything, and a decrypted value that leaves the
//! key holder can carry the key: `(0, d)` decrypts to `d s`. So a ciphertext
//! must have the level and scale that the client computed beforehand, no
//! part may be zero, and what comes out stays in a type that can be neither
//! printed nor serialised; single slots are taken out of it by name
//! (Li, Micciancio, Eurocrypt 2021).

use super::ciphertext::{Ciphertext, check_same_scale};
use super::encode::decode_in_place;
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::crt::Crt;
use crate::rlwe::{self, SecretKey};
use crate::secret::Erased;
use core::fmt;
use zeroize::Zeroize;

/// Decrypted slots. They belong to the holder of the key: the type has no
/// serialisation, its `Debug` shows nothing, and it is erased when dropped.
pub struct Decrypted<'a> {
    slots: &'a mut [f64],
    largest: f64,
}

impl Decrypted<'_> {
    /// The real part of slot `i < N / 2`, for use by the holder of the key.
    #[must_use]
    pub fn slot(&self, i: usize) -> Option<f64> {
        self.halves().0.get(i).copied()
    }

    /// The imaginary part of slot `i < N / 2`; noise alone where the values
    /// are real.
    #[must_use]
    pub fn imaginary(&self, i: usize) -> Option<f64> {
        self.halves().1.get(i).copied()
    }

    fn halves(&self) -> (&[f64], &[f64]) {
        self.slots.split_at(self.slots.len() >> 1)
    }

    /// Largest magnitude of any encrypted coefficient divided by half the
    /// modulus, `0.0 ..= 1.0`. A correct result lies well below 1 by the
    /// plan's headroom; values near 1 mean that it wrapped around.
    #[must_use]
    pub const fn fill(&self) -> f64 {
        self.largest
    }
}

impl fmt::Debug for Decrypted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decrypted(..)")
    }
}

impl Drop for Decrypted<'_> {
    fn drop(&mut self) {
        self.slots.zeroize();
    }
}

/// Decrypts `ct`, of two parts or three, which must have the given level and
/// scale. `scratch` has the words of `level + 1` limbs and is erased, `slots`
/// has `N` numbers.
///
/// # Errors
/// [`Error::Level`], [`Error::Scale`], [`Error::Transparent`],
/// [`Error::Params`] or [`Error::Length`]; nothing was decrypted then.
pub fn decrypt<'a, S, K, const PARTS: usize>(
    params: &Params,
    key: &SecretKey<K>,
    ct: &Ciphertext<S, PARTS>,
    level: usize,
    scale: f64,
    scratch: &mut [u32],
    slots: &'a mut [f64],
) -> Result<Decrypted<'a>>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    const OP: &str = "decryption";
    ct.check_params(params)?;
    if ct.level() != level {
        return Err(Error::Level {
            operation: OP,
            expected: level,
            got: ct.level(),
        });
    }
    check_same_scale(OP, scale, ct.scale())?;
    let parts = ct.parts();
    if parts.iter().any(|part| part.iter().all(|&x| x == 0)) {
        return Err(Error::Transparent);
    }
    let n = params.n();
    check_len("slots", slots.len(), n)?;
    check_len("decryption scratch", scratch.len(), (level + 1) * n)?;
    let scratch = Erased::new(scratch);
    match fill(params, key, parts, scale, scratch.0, slots) {
        Ok(largest) => Ok(Decrypted { slots, largest }),
        Err(error) => {
            slots.zeroize();
            Err(error)
        }
    }
}

/// Decrypts into `slots` and returns the share of the modulus that is filled.
fn fill<K: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    key: &SecretKey<K>,
    parts: [&[u32]; PARTS],
    scale: f64,
    scratch: &mut [u32],
    slots: &mut [f64],
) -> Result<f64> {
    rlwe::decrypt(params, key, parts, scratch)?;
    decode(params, scratch, scale, slots)
}

/// Turns limbs in the coefficient domain into slots and returns the share of
/// the modulus that is filled.
pub(crate) fn decode(params: &Params, limbs: &[u32], scale: f64, slots: &mut [f64]) -> Result<f64> {
    let n = params.n();
    let crt = Crt::new(params, limbs.len() >> n.trailing_zeros())?;
    let mut largest = 0.0f64;
    for (k, x) in slots.iter_mut().enumerate() {
        let value = crt.value(|limb| limbs.get(limb * n + k).copied().unwrap_or(0))?;
        largest = largest.max(libm::fabs(value));
        *x = value;
    }
    decode_in_place(slots, scale)?;
    Ok(largest / (0.5 * crt.modulus()))
}
