//! Several rotations of one ciphertext with one decomposition (hoisting: Halevi
//! and Shoup, Crypto 2018, ePrint 2018/244, section 5).
//!
//! The digits of the second half are carried over to all primes and transformed
//! once. As digits are centred, symmetrically, an automorphism of a digit is the
//! digit of the automorphism: a rotation permutes the transformed digits and
//! multiplies them by its key. So [`Hoisted::rotate`] and [`rotate_many`] give
//! the same bits as separate rotations with the same keys. Sums of rotations
//! divide by the special prime once, at the end: [`Hoisted::sum`],
//! [`Hoisted::weighted_sum`] and [`inner_sum_hoisted`] agree with their separate
//! operations within the rounding of that division, not bit by bit, and round
//! less often.
//!
//! Transforms at level `l`, with `d` digits ([`Params::digits`]) and `t = l + 1 +
//! alpha` primes, `alpha` of them special:
//!
//! | | decompositions | divisions by P | transforms |
//! |---|---|---|---|
//! | `k` separate rotations | k | k | `k (d t + 2 t)` |
//! | [`rotate_many`] | 1 | k | `d t + 2 k t` |
//! | [`Hoisted::sum`], [`Hoisted::weighted_sum`] | 1 | 1 | `d t + 2 t` |
//!
//! This takes more memory than a rotation by a streamed key does
//! ([`hoisting_words`]): the digits are alive over all primes at a time.
//!
//! At level 3 that is 28 limbs where a streamed switch has 5 beside the ciphertext, so it is
//! for hosts. Eight rotations at N = 4096, level 3, took 6.0 ms hoisted and 7.1 apart, their
//! sum with one division 4.3 (the least of 20 runs, AVX2, optimisation level 2). An inner
//! sum of four terms gains nothing by radix four, 1.84 ms against 1.69: it halves the
//! transforms, but expands a third key and permutes digits over all primes.

use super::{check_level, limb, limb_mut};
use crate::ckks::ciphertext::transform;
use crate::ckks::scale::{check_same_scale, check_scale};
use crate::ckks::track::{Known, Track};
use crate::ckks::{Ciphertext, Message, Noise};
use crate::error::{Result, check_len};
use crate::params::Params;
use crate::ring::{Scratch, automorphism, copy, kernel};
use crate::rlwe::Coefficient;
use crate::rlwe::gadget::grouped::{self, Form};
use crate::rlwe::keys::{KeySet, SwitchTarget};

/// Words of memory that hoisted rotations at `level` work in, in limbs: the
/// digits over all primes, an image of each, two halves at one prime, and two at
/// the special ones. `usize::MAX` for a level that the set does not have.
#[must_use]
pub const fn hoisting_words(params: &Params, level: usize) -> usize {
    if level > params.max_level() {
        return usize::MAX;
    }
    let (digits, special) = (params.digits(level), params.special_limbs());
    (digits * targets(params, level) + images(params, level) + 2 + 2 * special) * params.n()
}

/// Number of primes at `level`, the special ones included.
const fn targets(params: &Params, level: usize) -> usize {
    level + 1 + params.special_limbs()
}

/// Limbs for images: one per digit, and room for the limbs of a digit.
const fn images(params: &Params, level: usize) -> usize {
    let (digits, limbs) = (params.digits(level), params.digit(0, level).end);
    if digits > limbs { digits } else { limbs }
}

/// An encoded vector over the primes of a level and the special ones, NTT
/// domain in Montgomery form: a factor of [`Hoisted::weighted_sum`], which
/// multiplies before it divides by the special primes.
#[derive(Debug)]
pub struct Weight<S> {
    limbs: S,
    params: u32,
    level: usize,
    scale: f64,
    track: Track,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Weight<S> {
    /// Words of storage at `level`; `usize::MAX` for one that the set does not have.
    #[must_use]
    pub const fn words(params: &Params, level: usize) -> usize {
        if level > params.max_level() {
            return usize::MAX;
        }
        targets(params, level) * params.n()
    }

    /// Transforms integer coefficients (from [`crate::ckks::encode`]) for
    /// `level`, of the noise and message that
    /// [`Plaintext::new`](crate::ckks::Plaintext::new) finds.
    ///
    /// # Errors
    /// [`crate::Error::Level`], [`crate::Error::Scale`] or [`crate::Error::Length`];
    /// [`crate::Error::Range`] for a coefficient beyond `2^62` in magnitude.
    pub fn new<C: Coefficient>(
        params: &Params,
        coefficients: &[C],
        level: usize,
        scale: f64,
        mut limbs: S,
    ) -> Result<Self> {
        params.check_level("weight", level)?;
        check_scale("weight", scale)?;
        let n = params.n();
        check_len("coefficients", coefficients.len(), n)?;
        C::check(coefficients)?;
        let words = limbs.as_mut();
        check_len("weight", words.len(), Self::words(params, level))?;
        let track = transform(params, coefficients, words, params.targets(level))?;
        Ok(Self {
            limbs,
            params: params.fingerprint(),
            level,
            scale,
            track,
        })
    }

    /// States rounding and values as
    /// [`Plaintext::with_noise`](crate::ckks::Plaintext::with_noise) does.
    #[must_use]
    pub fn with_noise(mut self, noise: Noise, message: Message) -> Self {
        let scale = self.scale;
        self.track = Track::of(|| Known::at_scale(noise, message, scale));
        self
    }

    /// Gives the storage back.
    pub fn into_storage(self) -> S {
        self.limbs
    }
}

/// The digits of one polynomial over all primes ([`Params::targets`]),
/// transformed, and limbs for their images.
#[derive(Debug)]
struct Digits<'w> {
    level: usize,
    digits: &'w mut [u32],
    images: &'w mut [u32],
}

/// They and the rest of the scratch.
#[derive(Debug)]
struct Work<'w> {
    digits: Digits<'w>,
    /// Two halves at one prime.
    pair: [&'w mut [u32]; 2],
    /// Accumulators modulo the special primes.
    special: [&'w mut [u32]; 2],
}

impl<'w> Work<'w> {
    fn new(params: &Params, level: usize, words: &'w mut [u32]) -> Result<Self> {
        let limbs = hoisting_words(params, level) >> params.n().trailing_zeros();
        let mut scratch = Scratch::new("hoisting workspace", words, limbs, params.n())?;
        let mut take = |limbs| scratch.take(limbs);
        let special = params.special_limbs();
        Ok(Self {
            digits: Digits {
                level,
                digits: take(params.digits(level) * targets(params, level))?,
                images: take(images(params, level))?,
            },
            pair: [take(1)?, take(1)?],
            special: [take(special)?, take(special)?],
        })
    }

    /// `(x0, x1) = ((x0, x1) - the accumulators modulo P) / P`.
    fn divide(&mut self, params: &Params, x: [&mut [u32]; 2]) -> Result<()> {
        let scratch = limb_mut(self.digits.images, params.n(), 0);
        for (x, r) in x.into_iter().zip(&mut self.special) {
            grouped::divide(params, x, r, scratch)?;
        }
        Ok(())
    }

    /// The sum of the images of the ciphertext whose digits these are.
    fn sum<K: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        params: &Params,
        source: [&[u32]; 2],
        elements: impl Iterator<Item = u32> + Clone,
        keys: KeySet<'_, K>,
        mut x: [&mut [u32]; 2],
    ) -> Result<()> {
        let n = params.n();
        for j in 0..=self.digits.level {
            let limb = source.map(|c| limb(c, n, j));
            let x = x.each_mut().map(|x| limb_mut(x, n, j));
            let elements = elements.clone();
            self.digits.sum(params, j, Some(limb), elements, keys, x)?;
        }
        self.finish(params, elements, keys, x)
    }

    /// The same in place.
    fn sum_in_place<K: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        params: &Params,
        elements: impl Iterator<Item = u32> + Clone,
        keys: KeySet<'_, K>,
        mut x: [&mut [u32]; 2],
    ) -> Result<()> {
        let n = params.n();
        for j in 0..=self.digits.level {
            let x = x.each_mut().map(|x| limb_mut(x, n, j));
            for (c, x) in self.pair.iter_mut().zip(&x) {
                copy(c, x);
            }
            let limb = self.pair.each_ref().map(|c| &**c);
            let elements = elements.clone();
            self.digits.sum(params, j, Some(limb), elements, keys, x)?;
        }
        self.finish(params, elements, keys, x)
    }

    /// The special primes, and the division by them.
    fn finish<K: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        params: &Params,
        elements: impl Iterator<Item = u32> + Clone,
        keys: KeySet<'_, K>,
        x: [&mut [u32]; 2],
    ) -> Result<()> {
        let (n, data) = (params.n(), self.digits.level + 1);
        for at in 0..params.special_limbs() {
            let r = self.special.each_mut().map(|r| limb_mut(r, n, at));
            let elements = elements.clone();
            self.digits
                .sum(params, data + at, None, elements, keys, r)?;
        }
        self.divide(params, x)
    }
}

impl Digits<'_> {
    /// The prime of limb `j` of a digit.
    fn target(&self, params: &Params, j: usize) -> usize {
        if j <= self.level {
            j
        } else {
            j - self.level - 1 + params.special()
        }
    }

    /// Takes the digits of `c1`.
    fn decompose(&mut self, params: &Params, c1: &[u32]) -> Result<()> {
        let (n, level) = (params.n(), self.level);
        let rows = self.digits.chunks_exact_mut(targets(params, level) * n);
        for (digit, row) in rows.enumerate() {
            let group = params.digit(digit, level);
            let own = c1.get(group.start * n..group.end * n).unwrap_or_default();
            let prepared = self.images.get_mut(..own.len()).unwrap_or_default();
            copy(prepared, own);
            for (limb, i) in prepared.chunks_exact_mut(n).zip(group.clone()) {
                grouped::prepare(params, group.clone(), i, Form::Plain, limb)?;
            }
            for (limb, j) in row.chunks_exact_mut(n).zip(params.targets(level)) {
                if let Some(at) = group.clone().position(|i| i == j) {
                    // A prime of its own: as it stands.
                    copy(limb, super::limb(own, n, at));
                } else {
                    grouped::carry_forward(params, group.clone(), prepared, j, limb)?;
                }
            }
        }
        Ok(())
    }

    /// For limb `j`: `(x0, x1) = P (sum of images of (c0, c1 where it is not
    /// moved)) + the digits' images times their keys`, over `elements`, all of it
    /// divided by `R`, which the division by `P` makes good. `source` is limb `j`
    /// of the ciphertext, `None` modulo a special prime, where `P` is zero.
    fn sum<K: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        params: &Params,
        j: usize,
        source: Option<[&[u32]; 2]>,
        elements: impl Iterator<Item = u32> + Clone,
        keys: KeySet<'_, K>,
        [x0, x1]: [&mut [u32]; 2],
    ) -> Result<()> {
        let (at, level) = (self.target(params, j), self.level);
        let m = params.prime(at)?.modulus();
        x0.fill(0);
        x1.fill(0);
        if let Some([c0, c1]) = source {
            let image = limb_mut(self.images, params.n(), 0);
            for g in elements.clone() {
                if g == 1 {
                    kernel::add(x0, c0, m);
                    kernel::add(x1, c1, m);
                } else {
                    automorphism::ntt(c0, image, g)?;
                    kernel::add(x0, image, m);
                }
            }
        }
        let mut factor = grouped::start_factor(params, at)?;
        let mut moved = elements.filter(|&g| g != 1).peekable();
        if moved.peek().is_none() {
            kernel::scale(x0, factor, m);
            kernel::scale(x1, factor, m);
        }
        for g in moved {
            let key = keys.find(SwitchTarget::Galois(g), level)?;
            let images = self.images(params, j, g)?;
            let x = [&mut *x0, &mut *x1];
            grouped::multiply_key(params, level, at, images, key, factor, x)?;
            factor = m.r();
        }
        Ok(())
    }

    /// The images of all digits under `g`, limb `j`.
    fn images(&mut self, params: &Params, j: usize, g: u32) -> Result<&[u32]> {
        let (n, digits) = (params.n(), params.digits(self.level));
        let rows = self.digits.chunks_exact(targets(params, self.level) * n);
        let images = self.images.get_mut(..digits * n).unwrap_or_default();
        for (row, image) in rows.zip(images.chunks_exact_mut(n)) {
            automorphism::ntt(limb(row, n, j), image, g)?;
        }
        Ok(images)
    }
}

/// Checks that there is a key for every element that moves anything.
fn check_keys<K: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    level: usize,
    elements: impl Iterator<Item = u32>,
    keys: KeySet<'_, K>,
) -> Result<()> {
    for g in elements.filter(|&g| g != 1) {
        let target = SwitchTarget::Galois(g);
        keys.find(target, level)?.check(params, target, level)?;
    }
    Ok(())
}

/// A ciphertext with its decomposition: what rotations of it share.
///
/// ```
/// use he_core::ckks::evaluator::{Hoisted, hoisting_words};
/// # use he_core::ckks::encode::encode;
/// # use he_core::ckks::{Ciphertext, decrypt};
/// # use he_core::params::N4096_DEPTH3 as P;
/// # use he_core::ring::automorphism::rotation;
/// # use he_core::rlwe::keys::switching_key_words;
/// # use he_core::rlwe::{self, KeySet, SecretKey, SwitchKey, SwitchTarget};
/// # let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
/// # let (n, level, scale) = (P.n(), 1, (1u64 << 26) as f64);
/// # let storage = vec![0; SecretKey::<Vec<u32>>::words(&P)];
/// # let key = SecretKey::generate(&P, storage, &mut rng)?;
/// # let mut errors = vec![0; n];
/// # let keys = [1, 2, 5]
/// #     .map(|steps| SwitchTarget::Galois(rotation(n, steps)))
/// #     .into_iter()
/// #     .map(|target| {
/// #         let storage = vec![0; switching_key_words(&P, level)];
/// #         SwitchKey::generate(&P, &key, target, level, &mut rng, &mut errors, storage)
/// #     })
/// #     .collect::<Result<Vec<_>, _>>()?;
/// # let keys = KeySet::new(&keys);
/// # let (mut buffer, mut message) = (vec![0.0; n], vec![0; n]);
/// # encode(&[1.0, 2.0, 3.0, 0.0, 0.0, 4.0], scale, &mut buffer, &mut message, |x| x as i32)?;
/// # let limbs = || vec![0; (level + 1) * n];
/// # let (mut c0, mut c1) = (limbs(), limbs());
/// # let seed = rlwe::encrypt(&P, &key, &mut message, level, &mut rng, &mut c0)?;
/// # rlwe::expand_c1(&P, &seed, &mut c1)?;
/// // `ct` holds 1, 2, 3, 0, 0, 4, and `keys` rotate by 1, 2 and 5.
/// let ct = Ciphertext::new(&P, level, scale, c0, c1)?;
/// let mut words = vec![0; hoisting_words(&P, level)];
/// let mut hoisted = Hoisted::new(&P, &ct, &mut words)?;
///
/// let mut out = Ciphertext::zero(&P, level, scale, limbs(), limbs())?;
/// for (steps, first) in [(1, 2.0), (2, 3.0), (5, 4.0)] {
///     hoisted.rotate(&P, steps, keys, &mut out)?;
/// #   let (mut scratch, mut slots) = (limbs(), vec![0.0; n]);
/// #   let slots = decrypt(&P, &key, &out, level, scale, &mut scratch, &mut slots)?;
///     // Slot 0 of the result:
///     assert!((slots.slot(0).unwrap() - first).abs() < 0.1);
/// }
/// // All of them and the ciphertext itself, with one division.
/// hoisted.sum(&P, &[0, 1, 2, 5], keys, &mut out)?;
/// # let (mut scratch, mut slots) = (limbs(), vec![0.0; n]);
/// # let slots = decrypt(&P, &key, &out, level, scale, &mut scratch, &mut slots)?;
/// assert!((slots.slot(0).unwrap() - 10.0).abs() < 0.1);
/// # Ok::<(), he_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Hoisted<'c, 'w, S> {
    ct: &'c Ciphertext<S>,
    work: Work<'w>,
}

impl<'c, 'w, S: AsRef<[u32]> + AsMut<[u32]>> Hoisted<'c, 'w, S> {
    /// Decomposes; `words` are [`hoisting_words`] of the ciphertext's level, or
    /// more.
    ///
    /// # Errors
    /// [`crate::Error::Params`], [`crate::Error::Length`].
    pub fn new(params: &Params, ct: &'c Ciphertext<S>, words: &'w mut [u32]) -> Result<Self> {
        ct.check_params(params)?;
        let mut work = Work::new(params, ct.level(), words)?;
        work.digits.decompose(params, ct.halves().1)?;
        Ok(Self { ct, work })
    }

    /// Writes the ciphertext, rotated to the left by `steps` (see
    /// [`super::rotate`]), to `out`, whose storage has room for its level. It
    /// takes the key of just that rotation; by 0 it is a copy.
    ///
    /// # Errors
    /// [`crate::Error::Key`] without that key; [`crate::Error::Length`] where `out` has no
    /// room; [`crate::Error::Params`].
    pub fn rotate<T, K>(
        &mut self,
        params: &Params,
        steps: i32,
        keys: KeySet<'_, K>,
        out: &mut Ciphertext<T>,
    ) -> Result<()>
    where
        T: AsRef<[u32]> + AsMut<[u32]>,
        K: AsRef<[u32]> + AsMut<[u32]>,
    {
        self.sum(params, &[steps], keys, out)
    }

    /// Writes the complex conjugate.
    ///
    /// # Errors
    /// As [`Self::rotate`].
    pub fn conjugate<T, K>(
        &mut self,
        params: &Params,
        keys: KeySet<'_, K>,
        out: &mut Ciphertext<T>,
    ) -> Result<()>
    where
        T: AsRef<[u32]> + AsMut<[u32]>,
        K: AsRef<[u32]> + AsMut<[u32]>,
    {
        let g = automorphism::conjugation(params.n());
        self.images(params, core::iter::once(g), keys, out)
    }

    /// Writes the sum of the rotations by all `steps`; a step that is named
    /// twice counts twice.
    ///
    /// # Errors
    /// [`crate::Error::Length`] where there are no steps; as [`Self::rotate`].
    pub fn sum<T, K>(
        &mut self,
        params: &Params,
        steps: &[i32],
        keys: KeySet<'_, K>,
        out: &mut Ciphertext<T>,
    ) -> Result<()>
    where
        T: AsRef<[u32]> + AsMut<[u32]>,
        K: AsRef<[u32]> + AsMut<[u32]>,
    {
        check_some("rotations", steps.len())?;
        let n = params.n();
        let elements = steps.iter().map(|&s| automorphism::rotation(n, s));
        self.images(params, elements, keys, out)
    }

    /// Writes the sum of the rotations by `steps`, each multiplied slot by slot
    /// by its weight: a matrix by its diagonals. The scale is the ciphertext's
    /// times the weights', which have one scale.
    ///
    /// # Errors
    /// [`crate::Error::Length`] where there are no steps or not as many weights;
    /// [`crate::Error::Level`] for a weight of another level; [`crate::Error::Scale`] where
    /// two weights differ; as [`Self::rotate`].
    pub fn weighted_sum<T, K, U>(
        &mut self,
        params: &Params,
        steps: &[i32],
        weights: &[Weight<U>],
        keys: KeySet<'_, K>,
        out: &mut Ciphertext<T>,
    ) -> Result<()>
    where
        T: AsRef<[u32]> + AsMut<[u32]>,
        K: AsRef<[u32]> + AsMut<[u32]>,
        U: AsRef<[u32]> + AsMut<[u32]>,
    {
        const OP: &str = "weighted sum";
        check_len("weights", weights.len(), steps.len())?;
        let Some(first) = weights.first() else {
            return check_some("weights", 0);
        };
        let (n, level) = (params.n(), self.ct.level());
        for weight in weights {
            params.check_fingerprint(weight.params)?;
            check_level(OP, level, weight.level)?;
            check_same_scale(OP, first.scale, weight.scale)?;
        }
        let scale = self.ct.scale() * first.scale;
        let elements = steps.iter().map(|&s| automorphism::rotation(n, s));
        self.prepare(params, elements.clone(), keys, scale, out)?;
        let of_the_sum = Track::of(|| {
            let one = self.ct.track().get();
            let product = Noise::key_product(params, level).unwrap_or(Noise::UNKNOWN);
            let terms = elements.clone().zip(weights);
            let sum = terms.fold(Known::ZERO, |sum, (g, weight)| {
                let image = if g == 1 { one } else { one.with(product) };
                sum.plus(image.product(weight.track.get()), 0.0)
            });
            sum.with(Noise::mod_down(params))
        });

        let Work {
            digits,
            pair,
            special,
        } = &mut self.work;
        let source: [&[u32]; 2] = self.ct.halves().into();
        out.set_track(of_the_sum);
        let mut x = out.words_mut();
        for s in special.iter_mut() {
            s.fill(0);
        }
        for (j, prime) in params.targets(level).enumerate() {
            let m = params.prime(prime)?.modulus();
            let limbs = (j <= level).then(|| source.map(|c| limb(c, n, j)));
            let mut sums = match limbs {
                Some(_) => x.each_mut().map(|x| limb_mut(x, n, j)),
                None => special.each_mut().map(|s| limb_mut(s, n, j - level - 1)),
            };
            for (g, weight) in elements.clone().zip(weights) {
                let term = pair.each_mut().map(|t| &mut **t);
                digits.sum(params, j, limbs, core::iter::once(g), keys, term)?;
                for (sum, term) in sums.iter_mut().zip(pair.iter()) {
                    kernel::mul_acc(sum, term, limb(weight.limbs.as_ref(), n, j), m);
                }
            }
        }
        self.work.divide(params, x)
    }

    fn images<T, K>(
        &mut self,
        params: &Params,
        elements: impl Iterator<Item = u32> + Clone,
        keys: KeySet<'_, K>,
        out: &mut Ciphertext<T>,
    ) -> Result<()>
    where
        T: AsRef<[u32]> + AsMut<[u32]>,
        K: AsRef<[u32]> + AsMut<[u32]>,
    {
        self.prepare(params, elements.clone(), keys, self.ct.scale(), out)?;
        out.set_track(after_images(params, self.ct, elements.clone()));
        let (source, x) = (self.ct.halves().into(), out.words_mut());
        self.work.sum(params, source, elements, keys, x)
    }

    /// Checks everything, and makes `out` zero at the right level and scale.
    fn prepare<T, K>(
        &self,
        params: &Params,
        elements: impl Iterator<Item = u32>,
        keys: KeySet<'_, K>,
        scale: f64,
        out: &mut Ciphertext<T>,
    ) -> Result<()>
    where
        T: AsRef<[u32]> + AsMut<[u32]>,
        K: AsRef<[u32]> + AsMut<[u32]>,
    {
        let level = self.ct.level();
        self.ct.check_params(params)?;
        out.check_params(params)?;
        check_keys(params, level, elements, keys)?;
        out.reset(params, level, scale)
    }
}

/// What the sum of a ciphertext's images carries, with one division.
fn after_images<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &Ciphertext<S>,
    elements: impl Iterator<Item = u32> + Clone,
) -> Track {
    ct.track().after(|known| {
        known
            .images(elements.clone())
            .hoisted(params, ct.level(), elements)
    })
}

fn check_some(what: &'static str, got: usize) -> Result<()> {
    check_len(what, got, got.max(1))
}

/// Rotates one ciphertext by each of `steps` into the ciphertext of the same
/// place in `out`. `words` are [`hoisting_words`].
///
/// # Errors
/// [`crate::Error::Length`] where `out` has another number; as [`Hoisted::new`] and
/// [`Hoisted::rotate`]: keys are looked up before anything is written.
pub fn rotate_many<S, T, K>(
    params: &Params,
    ct: &Ciphertext<S>,
    steps: &[i32],
    keys: KeySet<'_, K>,
    out: &mut [Ciphertext<T>],
    words: &mut [u32],
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    check_len("rotated ciphertexts", out.len(), steps.len())?;
    let elements = steps.iter().map(|&s| automorphism::rotation(params.n(), s));
    check_keys(params, ct.level(), elements, keys)?;
    let mut hoisted = Hoisted::new(params, ct, words)?;
    for (&steps, out) in steps.iter().zip(out) {
        hoisted.rotate(params, steps, keys, out)?;
    }
    Ok(())
}

/// The strides at which an inner sum takes four terms together, or two: with the
/// first step, and whether four.
fn stages(stride: i32, count: usize) -> impl Iterator<Item = (i32, bool)> + Clone {
    let bits = count.checked_ilog2().unwrap_or(0);
    (0..bits)
        .step_by(2)
        .map(move |bit| (stride.wrapping_shl(bit), bit + 1 < bits))
}

/// What the keys of [`inner_sum_hoisted`] switch from, with four terms at a
/// time: rotations by `stride` times 1, 2, 3, times 4, 8, 12, and so on.
pub fn inner_sum_hoisted_keys(
    params: &Params,
    stride: i32,
    count: usize,
) -> impl Iterator<Item = SwitchTarget> {
    let n = params.n();
    stages(stride, count.min(params.slots())).flat_map(move |(step, four)| {
        let element = move |k: i32| automorphism::rotation(n, step.wrapping_mul(k));
        let last = if four { 3 } else { 1 };
        (1..=last)
            // Where two steps come round to no rotation, three are one step.
            .filter(move |&k| k != 3 || element(3) != element(1))
            .map(element)
            .filter(|&g| g != 1)
            .map(SwitchTarget::Galois)
    })
}

/// Sums slots as [`super::inner_sum`] does, four terms at a time with one
/// decomposition and one division where `keys` have the third rotation too
/// ([`inner_sum_hoisted_keys`]), and two at a time where not. `words` are
/// [`hoisting_words`].
///
/// A step of four takes half the transforms of two steps of two, but three keys
/// instead of two and more permutations. Measure before supplying the third
/// key: at N = 4096 and level 3 it gained nothing on the one host it was timed on
/// (`ARCHITECTURE.md`).
///
/// # Errors
/// As [`super::inner_sum`]; [`crate::Error::Length`] for `words`. The ciphertext is
/// unchanged then.
pub fn inner_sum_hoisted<S, K>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    stride: i32,
    count: usize,
    keys: KeySet<'_, K>,
    words: &mut [u32],
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    ct.check_params(params)?;
    let expected = count.next_power_of_two().min(params.slots());
    check_len("inner sum", count, expected.max(1))?;
    let (n, level) = (params.n(), ct.level());
    let element = |step: i32, k: i32| automorphism::rotation(n, step.wrapping_mul(k));
    for (step, four) in stages(stride, count) {
        let last = if four { 2 } else { 1 };
        check_keys(params, level, (1..=last).map(|k| element(step, k)), keys)?;
    }
    let mut work = Work::new(params, level, words)?;
    for (step, four) in stages(stride, count) {
        let third = element(step, 3);
        let together =
            four && (third == 1 || keys.find(SwitchTarget::Galois(third), level).is_ok());
        let pairs = [step, step.wrapping_mul(2)];
        let (terms, steps) = match (together, four) {
            (true, _) => (4, pairs.get(..1)),
            (false, true) => (2, pairs.get(..2)),
            (false, false) => (2, pairs.get(..1)),
        };
        for &step in steps.unwrap_or_default() {
            work.digits.decompose(params, ct.halves().1)?;
            let elements = (0..terms).map(|k| element(step, k));
            let track = after_images(params, ct, elements.clone());
            work.sum_in_place(params, elements, keys, ct.words_mut())?;
            ct.set_track(track);
        }
    }
    Ok(())
}
