//! Decryption of what an untrusted evaluator returned.
//!
//! The evaluator may return anything, and a decrypted value that leaves the
//! key holder can carry the key: `(0, d)` decrypts to `d s`. So a ciphertext
//! must have the level and scale that the client computed beforehand, no
//! part may be zero, and what comes out stays in a type that can be neither
//! printed nor serialised; single slots are taken out of it by name
//! (Li, Micciancio, Eurocrypt 2021). What may be given to others are labels and
//! values that are counted, values flooded with noise too (the module `publish`,
//! with the feature of that name).

use super::ciphertext::Ciphertext;
use super::encode::decode_in_place;
use super::noise::Noise;
use super::scale::check_same_scale;
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::crt::Crt;
use crate::rlwe::{self, SecretKey};
use crate::secret::Erased;
use core::fmt;
use core::ops::Range;
use zeroize::Zeroize;

const OP: &str = "decryption";

/// Decrypted slots. They belong to the holder of the key: the type has no
/// serialisation, its `Debug` shows nothing, and it is erased when dropped.
pub struct Decrypted<'a> {
    slots: &'a mut [f64],
    largest: f64,
    noise: Noise,
}

impl Decrypted<'_> {
    /// The real part of slot `i < N / 2`, for use by the holder of the key.
    #[must_use]
    pub fn slot(&self, i: usize) -> Option<f64> {
        self.halves().0.get(i).copied()
    }

    /// The sum of the real parts of a range of slots below `N / 2`, for use by the holder
    /// of the key.
    #[must_use]
    pub fn sum(&self, slots: Range<usize>) -> Option<f64> {
        Some(self.halves().0.get(slots)?.iter().sum())
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

    /// The noise of the slots, in their units, as the ciphertext carried it: of a
    /// computation made here. Of one that came from elsewhere it is unknown, that
    /// is infinite, unless its holder stated it ([`Ciphertext::with_noise`]).
    #[must_use]
    pub const fn noise(&self) -> Noise {
        self.noise
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
        self.largest.zeroize();
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
    check_answer(params, ct, level, scale, scratch, slots)?;
    let scratch = Erased::new(scratch);
    match fill(params, key, ct.parts(), scale, scratch.0, slots) {
        Ok(largest) => {
            let noise = ct.track().get().within(params, level).noise;
            Ok(Decrypted {
                slots,
                largest,
                noise: noise.times(1.0 / scale, 1.0 / scale),
            })
        }
        Err(error) => {
            slots.zeroize();
            Err(error)
        }
    }
}

/// Refuses what an evaluator may not have returned, and memory of the wrong
/// size, before the key is touched.
pub(super) fn check_answer<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &Ciphertext<S, PARTS>,
    level: usize,
    scale: f64,
    scratch: &[u32],
    slots: &[f64],
) -> Result<()> {
    ct.check_params(params)?;
    if ct.level() != level {
        return Err(Error::Level {
            operation: OP,
            expected: level,
            got: ct.level(),
        });
    }
    check_same_scale(OP, scale, ct.scale())?;
    let transparent = |part: &[u32]| part.iter().all(|&x| x == 0);
    if ct.parts().into_iter().any(transparent) {
        return Err(Error::Transparent);
    }
    let n = params.n();
    check_len("slots", slots.len(), n)?;
    check_len("decryption scratch", scratch.len(), (level + 1) * n)
}

/// The index, among `candidates`, ranges of slots below `N / 2`, of the one whose real
/// parts have the largest sum, the first of equals; of a single candidate, 1 where its sum
/// is positive and 0 otherwise. The running time does not depend on the values.
#[cfg(feature = "publish")]
pub(super) fn label(result: &Decrypted<'_>, candidates: &[Range<usize>]) -> usize {
    // A single one competes with zero, which is class 0.
    let (mut best, first) = match candidates.len() {
        1 => (0.0, 1),
        _ => (f64::NEG_INFINITY, 0),
    };
    let mut label = 0;
    for (i, slots) in (first..).zip(candidates) {
        let value = result.sum(slots.clone()).unwrap_or(f64::NEG_INFINITY);
        let larger = core::hint::black_box(u64::from(value > best)).wrapping_neg();
        best = f64::from_bits((value.to_bits() & larger) | (best.to_bits() & !larger));
        label = (i & larger as usize) | (label & !(larger as usize));
    }
    label
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
    let largest = crt.values(limbs, slots)?;
    decode_in_place(slots, scale)?;
    // A division takes its time by its operands; this one has none that is secret.
    Ok(largest * (2.0 / crt.modulus()))
}
