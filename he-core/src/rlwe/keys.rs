//! Secret keys and the generation of switching keys.

use super::gadget::factors::special_product;
use super::gadget::order::KeyLimb;
use super::subtract_product;
use crate::arith::Modulus;
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::{
    automorphism, kernel, ntt,
    sample::{self, SEED_LEN, Uniform},
};
use crate::secret::{Erased, first_negative};
pub use crate::switch_target::SwitchTarget;
use core::fmt;
use rand_core::CryptoRng;
use zeroize::Zeroize;

/// A uniform ternary secret, NTT domain in Montgomery form, one limb for
/// every prime of the set (the special ones last). Erased when dropped, never
/// printed, not serialisable.
pub struct SecretKey<S: AsRef<[u32]> + AsMut<[u32]>> {
    params: u32,
    n: usize,
    limbs: S,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> SecretKey<S> {
    /// Words of storage that a key of this set takes.
    #[must_use]
    pub const fn words(params: &Params) -> usize {
        params.limbs() * params.n()
    }

    /// Draws a key into `storage`.
    ///
    /// # Errors
    /// [`crate::Error::Length`] unless `storage` has [`Self::words`] words.
    pub fn generate(params: &Params, storage: S, rng: &mut impl CryptoRng) -> Result<Self> {
        Self::fill(params, storage, || sample::ternary(rng))
    }

    /// A key with given ternary coefficients, for test vectors.
    ///
    /// # Errors
    /// [`crate::Error::Length`] unless there are N coefficients and `storage`
    /// has [`Self::words`] words; [`crate::Error::Range`] for a coefficient
    /// outside -1, 0, 1.
    pub fn from_coefficients(params: &Params, storage: S, coefficients: &[i8]) -> Result<Self> {
        check_len("secret", coefficients.len(), params.n())?;
        // Negative unless 1 - s and 1 + s are not.
        let ternary = |&s: &i8| (1 - i32::from(s)) | (1 + i32::from(s));
        if let Some(index) = first_negative(coefficients.iter().map(ternary)) {
            return Err(Error::Range {
                index,
                limit_log2: 1,
            });
        }
        let mut it = coefficients.iter();
        Self::fill(params, storage, || it.next().map_or(0, |&s| i32::from(s)))
    }

    fn fill(params: &Params, storage: S, next: impl FnMut() -> i32) -> Result<Self> {
        check_len("secret key", storage.as_ref().len(), Self::words(params))?;
        let mut key = Self {
            params: params.fingerprint(),
            n: params.n(),
            limbs: storage,
        };
        key.refill(params, next)?;
        Ok(key)
    }

    /// Replaces the key by another one in the same storage.
    pub(crate) fn refill(&mut self, params: &Params, mut next: impl FnMut() -> i32) -> Result<()> {
        params.check_fingerprint(self.params)?;
        // The integers are put into the last limb first, each other limb is
        // made from it, and at last that limb itself.
        let words = self.limbs.as_mut();
        let last_prime = params.limbs() - 1;
        let (others, last) = words.split_at_mut(last_prime * self.n);
        for x in last.iter_mut() {
            *x = next() as u32;
        }
        for (i, limb) in others.chunks_exact_mut(self.n).enumerate() {
            limb.copy_from_slice(last);
            Self::transform(params, i, limb)?;
        }
        Self::transform(params, last_prime, last)
    }

    /// Integers in two's complement to residues, NTT domain, Montgomery form.
    fn transform(params: &Params, i: usize, limb: &mut [u32]) -> Result<()> {
        let prime = params.prime(i)?;
        let m = prime.modulus();
        for x in limb.iter_mut() {
            *x = m.canon(m.mont(*x as i32, m.r2()));
        }
        ntt::forward(limb, prime)
    }

    /// Limb `i`, NTT domain, Montgomery form.
    pub(crate) fn limb(&self, params: &Params, i: usize) -> Result<&[u32]> {
        params.check_fingerprint(self.params)?;
        let limb = self.limbs.as_ref().chunks_exact(self.n).nth(i);
        limb.ok_or(Error::Level {
            operation: "secret key",
            expected: self.limbs.as_ref().len() >> self.n.trailing_zeros(),
            got: i,
        })
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> fmt::Debug for SecretKey<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Drop for SecretKey<S> {
    fn drop(&mut self) {
        self.limbs.as_mut().zeroize();
    }
}

/// Words of the `b` half of a switching key for level `level`: for each digit
/// ([`Params::digits`]) one polynomial over the primes of the level and the
/// special ones. `usize::MAX` for a level that the set does not have.
#[must_use]
pub const fn switching_key_words(params: &Params, level: usize) -> usize {
    if level > params.max_level() {
        return usize::MAX;
    }
    params.digits(level) * (level + 1 + params.special_limbs()) * params.n()
}

/// Writes the `b` half of a switching key into `out`, NTT domain, canonical.
///
/// Digit `i` is an encryption of `P g_i s'`, where the gadget `g_i` is one
/// modulo the primes of the digit and zero modulo the other data primes: `b_ij =
/// e_i - a_ij s + [q_j in digit i] P s'`. The order is that in which the
/// evaluator consumes a stream, [`KeyLimb`]'s. `a_ij` comes from stream
/// `sample::stream(target.domain(), i, j)` of `seed`.
///
/// **A seed must never be used twice under one key.** `errors` is scratch for
/// N integers; it is erased before returning.
///
/// # Errors
/// [`crate::Error::Length`], [`crate::Error::Level`] or [`crate::Error::Galois`].
#[expect(
    clippy::too_many_arguments,
    reason = "what it reads, where it writes, and its scratch"
)]
pub fn switching_key(
    params: &Params,
    key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
    target: SwitchTarget,
    level: usize,
    seed: &[u8; SEED_LEN],
    rng: &mut impl CryptoRng,
    errors: &mut [i32],
    out: &mut [u32],
) -> Result<()> {
    params.check_level("switching key", level)?;
    let n = params.n();
    check_len("error scratch", errors.len(), n)?;
    check_len(
        "switching key",
        out.len(),
        switching_key_words(params, level),
    )?;
    // Before anything is written that a mask should cover.
    key.limb(params, 0)?;
    let errors = Erased::new(errors);
    for digit in 0..params.digits(level) {
        for e in errors.0.iter_mut() {
            *e = sample::error(rng);
        }
        for j in params.targets(level) {
            let at = KeyLimb { target: j, digit }.index(params, level);
            let Some(b) = at.and_then(|at| out.chunks_exact_mut(n).nth(at)) else {
                continue;
            };
            let prime = params.prime(j)?;
            let m = prime.modulus();
            kernel::lift_i32(errors.0, b, m.r(), m);
            ntt::forward(b, prime)?;
            let mut a = Uniform::new(seed, sample::stream(target.domain(), digit, j), m);
            subtract_product(b, &mut a, key.limb(params, j)?, m);
            if params.digit(digit, level).contains(&j) {
                let p = m.to_mont(special_product(params, m)?);
                add_source(b, key.limb(params, j)?, target, p, m)?;
            }
        }
    }
    Ok(())
}

/// A switching key in memory. It serves its level and every lower one.
#[derive(Debug)]
pub struct SwitchKey<S> {
    params: u32,
    target: SwitchTarget,
    level: usize,
    seed: [u8; SEED_LEN],
    b: S,
    /// The uniform half, where it is kept.
    a: Option<S>,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> SwitchKey<S> {
    /// Generates a key, with a seed drawn from `rng`: see [`switching_key`].
    /// `storage` has [`switching_key_words`].
    ///
    /// # Errors
    /// As [`switching_key`].
    pub fn generate(
        params: &Params,
        key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
        target: SwitchTarget,
        level: usize,
        rng: &mut impl CryptoRng,
        errors: &mut [i32],
        mut storage: S,
    ) -> Result<Self> {
        let mut seed = [0; SEED_LEN];
        rng.fill_bytes(&mut seed);
        let out = storage.as_mut();
        switching_key(params, key, target, level, &seed, rng, errors, out)?;
        Ok(Self {
            params: params.fingerprint(),
            target,
            level,
            seed,
            b: storage,
            a: None,
        })
    }

    /// A key from what [`switching_key`] wrote, and its seed.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Length`], [`Error::Galois`] or
    /// [`Error::Residue`], the limb counted in the order of [`KeyLimb`].
    pub fn from_parts(
        params: &Params,
        target: SwitchTarget,
        level: usize,
        seed: [u8; SEED_LEN],
        b: S,
    ) -> Result<Self> {
        params.check_level("switching key", level)?;
        if let SwitchTarget::Galois(g) = target {
            automorphism::check(g, params.n())?;
        }
        let words = b.as_ref();
        let expected = switching_key_words(params, level);
        check_len("switching key", words.len(), expected)?;
        let mut at = Some(KeyLimb::FIRST);
        for (limb, words) in words.chunks_exact(params.n()).enumerate() {
            let Some(here) = at else { break };
            let q = params.prime(here.target)?.modulus().value();
            if let Some(index) = words.iter().position(|&x| x >= q) {
                return Err(Error::Residue { limb, index });
            }
            at = here.next(params, level);
        }
        Ok(Self {
            params: params.fingerprint(),
            target,
            level,
            seed,
            b,
            a: None,
        })
    }

    /// Keeps the uniform half too, in `storage` of as many words: twice the
    /// memory, and nothing is expanded at each use.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Params`].
    pub fn expanded(mut self, params: &Params, mut storage: S) -> Result<Self> {
        params.check_fingerprint(self.params)?;
        let words = storage.as_mut();
        check_len("switching key", words.len(), self.b.as_ref().len())?;
        let mut at = Some(KeyLimb::FIRST);
        for limb in words.chunks_exact_mut(params.n()) {
            let Some(here) = at else { break };
            let m = params.prime(here.target)?.modulus();
            self.uniform(here, m).fill(limb);
            at = here.next(params, self.level);
        }
        self.a = Some(storage);
        Ok(self)
    }

    /// What it switches from.
    #[must_use]
    pub const fn target(&self) -> SwitchTarget {
        self.target
    }

    /// The highest level that it serves.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }

    /// The seed of the uniform half.
    #[must_use]
    pub const fn seed(&self) -> &[u8; SEED_LEN] {
        &self.seed
    }

    /// The other half, in the order of [`KeyLimb`].
    #[must_use]
    pub fn b(&self) -> &[u32] {
        self.b.as_ref()
    }

    /// Checks that it switches from `target` and serves `level`.
    pub(crate) fn check(&self, params: &Params, target: SwitchTarget, level: usize) -> Result<()> {
        params.check_fingerprint(self.params)?;
        if self.target == target && self.level >= level {
            Ok(())
        } else {
            Err(Error::Key { target, level })
        }
    }

    /// The stream of one limb of the uniform half.
    fn uniform(&self, at: KeyLimb, m: &Modulus) -> Uniform {
        let stream = sample::stream(self.target.domain(), at.digit, at.target);
        Uniform::new(&self.seed, stream, m)
    }

    /// Whether it keeps its uniform half.
    pub(crate) const fn is_expanded(&self) -> bool {
        self.a.is_some()
    }

    /// One limb of both halves of a key that keeps them.
    pub(crate) fn halves(&self, params: &Params, at: KeyLimb) -> Result<(&[u32], &[u32])> {
        let missing = Error::Key {
            target: self.target,
            level: self.level,
        };
        let (n, place) = (params.n(), at.index(params, self.level).ok_or(missing)?);
        let b = self.b.as_ref().chunks_exact(n).nth(place);
        let a = self
            .a
            .as_ref()
            .and_then(|a| a.as_ref().chunks_exact(n).nth(place));
        b.zip(a).ok_or(missing)
    }

    /// The half in memory of one limb, and the stream of the other.
    pub(crate) fn half_and_stream(
        &self,
        params: &Params,
        at: KeyLimb,
    ) -> Result<(&[u32], Uniform)> {
        let missing = Error::Key {
            target: self.target,
            level: self.level,
        };
        let place = at.index(params, self.level).ok_or(missing)?;
        let mut limbs = self.b.as_ref().chunks_exact(params.n());
        let b = limbs.nth(place).ok_or(missing)?;
        let m = params.prime(at.target)?.modulus();
        Ok((b, self.uniform(at, m)))
    }

    /// Hands one limb over in chunks `(b, a)`.
    pub(crate) fn feed(
        &self,
        params: &Params,
        at: KeyLimb,
        mut f: impl FnMut(&[u32], &[u32]) -> Result<()>,
    ) -> Result<()> {
        let n = params.n();
        let missing = Error::Key {
            target: self.target,
            level: self.level,
        };
        // At a lower level a key has the same limbs, in other places.
        let place = at.index(params, self.level).ok_or(missing)?;
        let mut halves = [Some(&self.b), self.a.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|half| half.as_ref().chunks_exact(n).nth(place));
        let b = halves.next().ok_or(missing)?;
        if let Some(a) = halves.next() {
            return f(b, a);
        }
        let m = params.prime(at.target)?.modulus();
        let mut uniform = self.uniform(at, m);
        let mut a = [0; 256];
        for b in b.chunks(a.len()) {
            let Some(a) = a.get_mut(..b.len()) else { break };
            uniform.fill(a);
            f(b, a)?;
        }
        Ok(())
    }
}

/// Switching keys in memory, to be found by what they switch from.
#[derive(Debug)]
pub struct KeySet<'k, S>(&'k [SwitchKey<S>]);

impl<S> Clone for KeySet<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for KeySet<'_, S> {}

impl<'k, S> KeySet<'k, S> {
    /// Of these keys.
    #[must_use]
    pub const fn new(keys: &'k [SwitchKey<S>]) -> Self {
        Self(keys)
    }

    /// The key that switches from `target` and serves `level`.
    ///
    /// # Errors
    /// [`Error::Key`] if there is none.
    pub fn find(&self, target: SwitchTarget, level: usize) -> Result<&'k SwitchKey<S>> {
        self.0
            .iter()
            .find(|key| key.target == target && key.level >= level)
            .ok_or(Error::Key { target, level })
    }
}

/// What the keys of a set must switch from: rotations by 1, 2, 4 .. N / 4, with
/// which every other one is composed.
pub fn powers_of_two(params: &Params) -> impl Iterator<Item = SwitchTarget> {
    inner_sum(params, 1, params.slots())
}

/// The same for the sum of `count` slots (a power of two) that lie `stride`
/// apart: rotations by `stride`, 2 `stride`, 4 `stride` .. as long as they are
/// below `count stride` and move anything.
pub fn inner_sum(params: &Params, stride: i32, count: usize) -> impl Iterator<Item = SwitchTarget> {
    inner_sum_rotations(params, stride, count).map(SwitchTarget::Galois)
}

/// Their Galois elements.
pub(crate) fn inner_sum_rotations(
    params: &Params,
    stride: i32,
    count: usize,
) -> impl Iterator<Item = u32> {
    let n = params.n();
    let steps = count.min(params.slots()).checked_ilog2().unwrap_or(0);
    (0..steps)
        .map(move |bit| automorphism::rotation(n, stride.wrapping_mul(1i32.wrapping_shl(bit))))
        .take_while(|&g| g != 1)
}

/// The complex conjugation's.
#[must_use]
pub const fn conjugation(params: &Params) -> SwitchTarget {
    SwitchTarget::Galois(automorphism::conjugation(params.n()))
}

/// `b += P s'`, where `s` is in Montgomery form and so is `p`.
fn add_source(b: &mut [u32], s: &[u32], target: SwitchTarget, p: i32, m: &Modulus) -> Result<()> {
    let plain = |x: u32| m.mont(m.mont(x as i32, 1), p);
    match target {
        SwitchTarget::Square => {
            for (x, &s) in b.iter_mut().zip(s) {
                // (s R)(s R) / R = s^2 R.
                let square = m.canon(m.mont(s as i32, s as i32));
                *x = m.add(*x, m.canon(plain(square)));
            }
        }
        SwitchTarget::Galois(g) => {
            automorphism::for_each_ntt(s, g, |i, s| {
                if let Some(x) = b.get_mut(i) {
                    *x = m.add(*x, m.canon(plain(s)));
                }
            })?;
        }
    }
    Ok(())
}
