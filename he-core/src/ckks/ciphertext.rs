//! Ciphertexts and plaintexts with level and scale.

use super::noise::{Message, Noise};
use super::scale::check_scale;
use super::track::{Known, Track};
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::ntt;
use crate::rlwe::Coefficient;

/// A ciphertext of `PARTS` polynomials over caller-provided storage, NTT
/// domain, canonical residues. It decrypts to `c0 + c1 s`, or to
/// `c0 + c1 s + c2 s^2` with the three parts that a product has before it is
/// relinearised; other numbers do not compile. The parts may lie in storage
/// larger than the level needs.
#[derive(Debug)]
pub struct Ciphertext<S, const PARTS: usize = 2> {
    parts: [S; PARTS],
    params: u32,
    n: usize,
    level: usize,
    /// The factor between slot values and what is encrypted; exact (a
    /// product of encoding scales divided by the primes rescaled by), never
    /// reset to a nominal value.
    scale: f64,
    track: Track,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Ciphertext<S> {
    /// Takes two halves of `level + 1` limbs or more, of unknown noise and
    /// message.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Scale`], [`Error::Length`] or
    /// [`Error::Residue`].
    pub fn new(params: &Params, level: usize, scale: f64, c0: S, c1: S) -> Result<Self> {
        Self::from_parts(params, level, scale, [c0, c1])
    }

    /// The zero ciphertext, to accumulate into.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn zero(params: &Params, level: usize, scale: f64, mut c0: S, mut c1: S) -> Result<Self> {
        c0.as_mut().fill(0);
        c1.as_mut().fill(0);
        let mut ct = Self::new(params, level, scale, c0, c1)?;
        ct.track = Track::ZERO;
        Ok(ct)
    }

    /// The halves, `level + 1` limbs each.
    #[must_use]
    pub fn halves(&self) -> (&[u32], &[u32]) {
        self.parts().into()
    }

    /// The halves, mutable. Whoever writes keeps the residues canonical. Noise
    /// and message are unknown from here on.
    pub fn halves_mut(&mut self) -> (&mut [u32], &mut [u32]) {
        self.parts_mut().into()
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> (S, S) {
        self.parts.into()
    }

    /// Becomes three parts, the third as `c2` has it; at least as long.
    pub(super) fn with_third(self, c2: S) -> Result<Ciphertext<S, 3>> {
        check_storage(self.n, self.level, c2.as_ref().len())?;
        let [c0, c1] = self.parts;
        Ok(Ciphertext {
            parts: [c0, c1, c2],
            params: self.params,
            n: self.n,
            level: self.level,
            scale: self.scale,
            track: self.track,
        })
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Ciphertext<S, 3> {
    /// A relinearised ciphertext in two parts, and the storage of the third.
    ///
    /// # Errors
    /// [`Error::Parts`] if the third part is not zero.
    pub fn into_two_parts(self) -> Result<(Ciphertext<S>, S)> {
        let [_, _, third] = self.parts();
        if third.iter().any(|&x| x != 0) {
            return Err(Error::Parts {
                operation: "conversion to two parts",
                expected: 2,
                got: 3,
            });
        }
        Ok(self.without_third())
    }

    /// The same of one whose third part is known to be zero.
    pub(crate) fn without_third(self) -> (Ciphertext<S>, S) {
        let [c0, c1, c2] = self.parts;
        let two = Ciphertext {
            parts: [c0, c1],
            params: self.params,
            n: self.n,
            level: self.level,
            scale: self.scale,
            track: self.track,
        };
        (two, c2)
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize> Ciphertext<S, PARTS> {
    /// Takes parts of `level + 1` limbs or more, of unknown noise and message.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Scale`], [`Error::Length`] or
    /// [`Error::Residue`].
    pub fn from_parts(
        params: &Params,
        level: usize,
        scale: f64,
        parts: [S; PARTS],
    ) -> Result<Self> {
        const {
            assert!(
                PARTS == 2 || PARTS == 3,
                "a ciphertext has two or three parts"
            )
        };
        params.check_level("ciphertext", level)?;
        check_scale("ciphertext", scale)?;
        let n = params.n();
        for part in &parts {
            let words = part.as_ref();
            check_storage(n, level, words.len())?;
            for (limb, words) in words.chunks_exact(n).take(level + 1).enumerate() {
                let q = params.prime(limb)?.modulus().value();
                if let Some(index) = words.iter().position(|&x| x >= q) {
                    return Err(Error::Residue { limb, index });
                }
            }
        }
        Ok(Self {
            parts,
            params: params.fingerprint(),
            n,
            level,
            scale,
            track: Track::UNKNOWN,
        })
    }

    /// States the noise, in slots times the scale, and the message, in units of
    /// the slots: for a fresh encryption [`Noise::fresh`] or
    /// [`Noise::fresh_public`], and the range that inputs are known to have
    /// whatever they are. Operations go on from there.
    ///
    /// A statement is as good as whoever makes it: an evaluator's must not reach
    /// what a key holder decides. Without the feature `noise` it is dropped.
    #[must_use]
    pub fn with_noise(mut self, noise: Noise, message: Message) -> Self {
        let scale = self.scale;
        self.track = Track::of(|| Known::at_scale(noise, message, scale));
        self
    }

    /// Refuses a level that the storage is too short for.
    pub(super) fn check_storage(&self, level: usize) -> Result<()> {
        let mut parts = self.parts.iter();
        parts.try_for_each(|part| check_storage(self.n, level, part.as_ref().len()))
    }

    /// Makes this the zero ciphertext of another level and scale, in the same
    /// storage.
    ///
    /// # Errors
    /// [`Error::Params`], [`Error::Level`], [`Error::Scale`], or [`Error::Length`]
    /// where the storage is too short.
    pub fn reset(&mut self, params: &Params, level: usize, scale: f64) -> Result<()> {
        self.check_params(params)?;
        params.check_level("ciphertext", level)?;
        check_scale("ciphertext", scale)?;
        for part in &mut self.parts {
            let words = part.as_mut();
            check_storage(self.n, level, words.len())?;
            if let Some(words) = words.get_mut(..(level + 1) * self.n) {
                words.fill(0);
            }
        }
        self.set(level, scale);
        self.track = Track::ZERO;
        Ok(())
    }

    /// The noise that it carries, in slots times the scale: what the operations
    /// made here have come to. [`Noise::UNKNOWN`] if it began with something of
    /// which nothing was stated, or without the feature `noise`; an infinite bound
    /// alone where the worst case may wrap around the modulus.
    #[must_use]
    pub fn noise(&self) -> Noise {
        self.track.get().noise
    }

    /// The message that it carries, in units of the slots; as [`Self::noise`].
    #[must_use]
    pub fn message(&self) -> Message {
        let unit = 1.0 / self.scale;
        self.track.get().message.times(unit, unit)
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

    /// The parts, `level + 1` limbs each.
    #[must_use]
    pub fn parts(&self) -> [&[u32]; PARTS] {
        let words = (self.level + 1) * self.n;
        self.parts
            .each_ref()
            .map(|part| part.as_ref().get(..words).unwrap_or_default())
    }

    /// The parts, mutable. Whoever writes keeps the residues canonical. Noise
    /// and message are unknown from here on.
    pub fn parts_mut(&mut self) -> [&mut [u32]; PARTS] {
        self.track = Track::UNKNOWN;
        self.words_mut()
    }

    /// The parts, mutable, for operations that bring the noise forward.
    pub(super) fn words_mut(&mut self) -> [&mut [u32]; PARTS] {
        let words = (self.level + 1) * self.n;
        self.parts
            .each_mut()
            .map(|part| part.as_mut().get_mut(..words).unwrap_or_default())
    }

    /// Gives the storage back.
    pub fn into_parts(self) -> [S; PARTS] {
        self.parts
    }

    pub(crate) fn check_params(&self, params: &Params) -> Result<()> {
        params.check_fingerprint(self.params)
    }

    pub(super) const fn set(&mut self, level: usize, scale: f64) {
        self.level = level;
        self.scale = scale;
    }

    /// What is carried.
    pub(super) const fn track(&self) -> Track {
        self.track
    }

    /// Brings what is carried forward.
    pub(super) fn update(&mut self, f: impl FnOnce(Known) -> Known) {
        self.track.update(f);
    }

    /// Replaces what is carried.
    pub(super) const fn set_track(&mut self, track: Track) {
        self.track = track;
    }

    /// Limb `i` of every part.
    pub(super) fn limbs_mut(&mut self, i: usize) -> Result<[&mut [u32]; PARTS]> {
        let (n, level) = (self.n, self.level);
        if i > level {
            return Err(Error::Level {
                operation: "limb",
                expected: level,
                got: i,
            });
        }
        let range = i * n..(i + 1) * n;
        Ok(self
            .words_mut()
            .map(|part| part.get_mut(range.clone()).unwrap_or_default()))
    }
}

/// Checks that a part has room for `level + 1` limbs.
fn check_storage(n: usize, level: usize, got: usize) -> Result<()> {
    let expected = level.saturating_add(1).saturating_mul(n);
    if got >= expected {
        Ok(())
    } else {
        Err(Error::Length {
            what: "ciphertext half",
            expected,
            got,
        })
    }
}

/// Writes encoded coefficients modulo these primes, NTT domain in Montgomery form;
/// gives what is known of them.
pub(super) fn transform<C: Coefficient>(
    params: &Params,
    coefficients: &[C],
    limbs: &mut [u32],
    primes: impl Iterator<Item = usize>,
) -> Result<Track> {
    for (limb, i) in limbs.chunks_exact_mut(params.n()).zip(primes) {
        let prime = params.prime(i)?;
        let m = prime.modulus();
        C::lift(coefficients, limb, m.r2(), m);
        ntt::forward(limb, prime)?;
    }
    Ok(Track::of(|| {
        let values = coefficients.iter().map(|c| c.to_f64());
        Known::encoded(params, values, |_| Noise::rounding(params))
    }))
}

/// An encoded plaintext, NTT domain in Montgomery form.
#[derive(Debug)]
pub struct Plaintext<S> {
    limbs: S,
    params: u32,
    level: usize,
    scale: f64,
    track: Track,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Plaintext<S> {
    /// Transforms integer coefficients (from [`super::encode`]) for `level`.
    ///
    /// Its noise is the rounding of an encoding in double precision, its message
    /// what the coefficients show of the slots: their root mean square, and a
    /// bound up to `sqrt(N / 2)` times that ([`Self::with_noise`] states better).
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Scale`] or [`Error::Length`]; [`Error::Range`]
    /// for a coefficient beyond `2^62` in magnitude.
    pub fn new<C: Coefficient>(
        params: &Params,
        coefficients: &[C],
        level: usize,
        scale: f64,
        mut limbs: S,
    ) -> Result<Self> {
        params.check_level("plaintext", level)?;
        check_scale("plaintext", scale)?;
        let n = params.n();
        check_len("coefficients", coefficients.len(), n)?;
        C::check(coefficients)?;
        check_len("plaintext", limbs.as_ref().len(), (level + 1) * n)?;
        let track = transform(params, coefficients, limbs.as_mut(), 0..=level)?;
        Ok(Self {
            limbs,
            params: params.fingerprint(),
            level,
            scale,
            track,
        })
    }

    /// States the rounding, in slots times the scale, and the values, in units of
    /// the slots, as [`Ciphertext::with_noise`] does.
    #[must_use]
    pub fn with_noise(mut self, noise: Noise, message: Message) -> Self {
        let scale = self.scale;
        self.track = Track::of(|| Known::at_scale(noise, message, scale));
        self
    }

    pub(super) const fn track(&self) -> Track {
        self.track
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.limbs
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
        params.check_fingerprint(self.params)
    }

    pub(super) fn words(&self) -> &[u32] {
        self.limbs.as_ref()
    }
}
