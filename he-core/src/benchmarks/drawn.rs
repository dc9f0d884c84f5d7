//! Operations on secrets, inputs and weights that are drawn anew before each run: what
//! `he-edge timing` measures on a host and the firmware's program `timing` counts on an
//! emulated board, where neither may depend on what was drawn.
//!
//! A [`Subject`] is an operation with what varies in it. [`Drawn::draw`] prepares it from
//! one of two classes, fixed or random, by the same instructions; [`Drawn::run`] is what
//! is measured. The fixed class is what code with a shortcut would take it for: messages,
//! inputs and weights of nothing but zeros, a key with 64 coefficients that are not zero,
//! coins that are all zero. Seeds of uniform halves are public and always the same, as
//! uniform sampling rejects by them.
//!
//! [`Drawn::leak`] leaves zeros out, and has to be caught.

#[cfg(feature = "publish")]
use crate::ckks::Noise;
use crate::ckks::decrypt;
use crate::ckks::encode::{Real, encode};
use crate::ckks::evaluator::{
    Workspace, add, multiply, multiply_plain, relinearize, rescale, rotate,
};
#[cfg(feature = "publish")]
use crate::ckks::publish::{
    Allowance, Budget, Expected, HonestEvaluator, HonestResult, KeyId, NoiseKey, PublishError,
    publish_label, publish_values,
};
use crate::ckks::{Ciphertext, Plaintext};
use crate::error::{Error, Result};
use crate::params::Params;
use crate::ring::automorphism::rotation;
use crate::ring::sample::{self, SEED_LEN, Uniform};
use crate::rlwe::keys::{switching_key, switching_key_words};
use crate::rlwe::{
    self, CompactKey, Encryption, KeySet, PublicKey, PublicScratch, SecretKey, SwitchKey,
    SwitchTarget,
};
use chacha20::ChaCha20Rng;
use core::convert::Infallible;
use core::hint::black_box;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};

use super::subjects::{Subject, Varied};
use super::{Float, Limbs, SCALE, SEED, take};

/// Coefficients of the fixed key that are not zero.
const WEIGHT: usize = 64;

/// A generator of secret coins whose bytes, which are public seeds, are always the same.
#[derive(Debug)]
struct Coins {
    rng: ChaCha20Rng,
    /// Zero for coins that are all zero.
    mask: u32,
}

impl Coins {
    fn new(seed: u64, mask: u32) -> Self {
        Self {
            rng: ChaCha20Rng::seed_from_u64(seed),
            mask,
        }
    }
}

impl TryRng for Coins {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> core::result::Result<u32, Infallible> {
        Ok(self.rng.next_u32() & black_box(self.mask))
    }

    fn try_next_u64(&mut self) -> core::result::Result<u64, Infallible> {
        let mask = u64::from(black_box(self.mask));
        Ok(self.rng.next_u64() & (mask | mask << 32))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> core::result::Result<(), Infallible> {
        bytes.fill(1);
        Ok(())
    }
}

impl TryCryptoRng for Coins {}

/// A budget in memory that is never used up.
#[cfg(feature = "publish")]
#[derive(Debug)]
struct InMemory(Allowance);

#[cfg(feature = "publish")]
impl Budget for InMemory {
    type Error = Infallible;

    fn allowance(&self) -> Allowance {
        self.0
    }

    fn spend(&mut self, _: &KeyId) -> core::result::Result<(), Infallible> {
        Ok(())
    }

    fn retire(&mut self, _: &KeyId) -> core::result::Result<(), Infallible> {
        Ok(())
    }
}

/// What the operations work in; each slice may be longer than needed.
#[derive(Debug)]
pub struct Memory<'a> {
    /// [`Memory::words`].
    pub words: &'a mut [u32],
    /// `5 N`.
    pub integers: &'a mut [i32],
    /// `2 N`.
    pub floats: &'a mut [Float],
    /// `N`.
    pub doubles: &'a mut [f64],
    /// `N / 4`.
    pub bytes: &'a mut [u8],
}

impl Memory<'_> {
    /// Words that a set takes.
    #[must_use]
    pub const fn words(params: &Params) -> usize {
        let (n, limbs) = (params.n(), params.data_limbs());
        // Two keys of an evaluator and one that is generated; a secret and two public
        // keys; five halves of ciphertexts, a plaintext and a result; what varies.
        3 * switching_key_words(params, params.max_level())
            + SecretKey::<Limbs<'_>>::words(params)
            + 2 * PublicKey::<Limbs<'_>>::words(params)
            + 7 * limbs * n
            + n
            + super::scratch_words(params)
    }
}

/// Keys, operands and scratch.
#[derive(Debug)]
pub struct Drawn<'a> {
    params: &'static Params,
    coins: Coins,
    // Keys of the evaluator, and the public key, never vary.
    relin: SwitchKey<Limbs<'a>>,
    rotation: [SwitchKey<Limbs<'a>>; 1],
    public: PublicKey<Limbs<'a>>,
    secret: SecretKey<Limbs<'a>>,
    compact: CompactKey<&'a mut [u8]>,
    /// Of the secret key.
    coefficients: &'a mut [i32],
    values: &'a mut [Float],
    message: &'a mut [i32],
    parts: [Limbs<'a>; 3],
    other: [Limbs<'a>; 2],
    plain: Option<Plaintext<Limbs<'a>>>,
    result: Limbs<'a>,
    generated: Limbs<'a>,
    generated_public: Limbs<'a>,
    /// What varies, zero where it is zero.
    watched: Limbs<'a>,
    scratch: Limbs<'a>,
    integers: &'a mut [i32],
    buffer: &'a mut [Float],
    slots: &'a mut [f64],
}

impl<'a> Drawn<'a> {
    /// Makes the keys that do not vary.
    ///
    /// # Errors
    /// [`Error::Length`] where the memory is too short.
    pub fn new(params: &'static Params, memory: Memory<'a>) -> Result<Self> {
        let Memory {
            mut words,
            mut integers,
            mut floats,
            mut doubles,
            mut bytes,
        } = memory;
        let (n, level) = (params.n(), params.max_level());
        let half = params.data_limbs() * n;
        let mut coins = Coins::new(0, u32::MAX);
        let message = take(&mut integers, n)?;
        let storage = take(&mut words, SecretKey::<Limbs<'_>>::words(params))?;
        let secret = SecretKey::generate(params, storage, &mut coins)?;
        let storage = take(&mut bytes, CompactKey::<&mut [u8]>::bytes(params))?;
        let compact = CompactKey::generate(params, storage, &mut coins)?;
        let storage = take(&mut words, PublicKey::<Limbs<'_>>::words(params))?;
        let public = PublicKey::generate(params, &secret, &SEED, &mut coins, message, storage)?;
        let mut key = |target| {
            let storage = take(&mut words, switching_key_words(params, level))?;
            SwitchKey::generate(params, &secret, target, level, &mut coins, message, storage)
        };
        let relin = key(SwitchTarget::Square)?;
        let rotation = [key(SwitchTarget::Galois(rotation(n, 1)))?];
        let storage = take(&mut words, half)?;
        let plain = Some(Plaintext::new(params, message, level, SCALE, storage)?);
        let mut limbs = || take(&mut words, half);
        Ok(Self {
            params,
            parts: [limbs()?, limbs()?, limbs()?],
            other: [limbs()?, limbs()?],
            result: limbs()?,
            coins,
            relin,
            rotation,
            public,
            secret,
            compact,
            plain,
            generated: take(&mut words, switching_key_words(params, level))?,
            generated_public: take(&mut words, PublicKey::<Limbs<'_>>::words(params))?,
            watched: take(&mut words, n)?,
            scratch: take(&mut words, super::scratch_words(params))?,
            coefficients: take(&mut integers, n)?,
            integers: take(&mut integers, 3 * n)?,
            values: take(&mut floats, n)?,
            buffer: take(&mut floats, n)?,
            slots: take(&mut doubles, n)?,
            message,
        })
    }

    /// Prepares `subject`: what varies in it is that of the fixed class, or drawn by
    /// `seed`. Coins that do not vary come from `seed` in both.
    ///
    /// # Errors
    /// Those of he-core; none is expected.
    pub fn draw(&mut self, subject: Subject, fixed: bool, seed: u64) -> Result<()> {
        // The same work for either class, so that caches are left alike.
        let keep = black_box(if fixed { 0 } else { u32::MAX });
        let of_inputs = subject.varies() == Varied::Input;
        self.coins = Coins::new(seed, u32::MAX);
        self.draw_key(subject, keep)?;
        self.draw_message(subject, if of_inputs { u32::MAX } else { keep })?;
        if subject.is_of_evaluator() {
            self.draw_operands(if of_inputs { keep } else { u32::MAX })?;
        }
        if subject.decrypts() {
            self.draw_ciphertext()?;
        }
        self.watch(subject);
        // The same number of coins whatever was drawn before.
        let of_coins = subject.varies() == Varied::Coins;
        self.coins = Coins::new(!seed, if of_coins { keep } else { u32::MAX });
        Ok(())
    }

    /// Coefficients of a secret key, ternary or [`WEIGHT`] ones and otherwise zero, and
    /// the key that `subject` takes.
    fn draw_key(&mut self, subject: Subject, keep: u32) -> Result<()> {
        for (i, coefficient) in self.coefficients.iter_mut().enumerate() {
            let drawn = sample::ternary(&mut self.coins) as u32 & keep;
            let own = u32::from(i < WEIGHT) & !keep;
            *coefficient = (drawn | own) as i32;
        }
        if subject == Subject::EncryptCompact {
            self.coins.mask = keep;
            self.compact.redraw(&mut self.coins);
            self.coins.mask = u32::MAX;
            return Ok(());
        }
        if subject.is_of_evaluator() {
            return Ok(());
        }
        let mut next = self.coefficients.iter();
        let next = || next.next().copied().unwrap_or_default();
        self.secret.refill(self.params, next)
    }

    /// Values between -1 and 1, or those of the fixed class, and the integers that they are
    /// encoded in. For [`Self::leak`], how far values are from those of the fixed class.
    fn draw_message(&mut self, subject: Subject, keep: u32) -> Result<()> {
        let zero = if subject == Subject::EncodeDrawn {
            u32::MAX
        } else {
            0
        };
        let each = self.values.iter_mut().zip(self.watched.iter_mut());
        for ((value, watched), i) in each.zip(0u32..) {
            let drawn = (self.coins.rng.next_u32() & 255) as i32 - 128;
            // Bytes without a pattern.
            let own = (i.wrapping_mul(0x9e37_79b9) >> 24) as i32 - 128;
            let chosen = (drawn & keep as i32) | (own & (zero & !keep) as i32);
            *watched = (chosen ^ own) as u32;
            *value = Float::from_f64(f64::from(chosen) / 128.0);
        }
        self.encode()?;
        let (level, storage) = (self.params.max_level(), self.plain.take());
        let storage = storage.map_or_else(Limbs::default, Plaintext::into_storage);
        let plain = Plaintext::new(self.params, self.message, level, SCALE, storage)?;
        self.plain = Some(plain);
        Ok(())
    }

    fn encode(&mut self) -> Result<()> {
        let values = self.values.get(..self.params.slots()).unwrap_or_default();
        encode(values, SCALE, self.buffer, self.message, |x| x as i32)
    }

    /// A ciphertext of uniform parts or of zeros, and another one.
    fn draw_operands(&mut self, keep: u32) -> Result<()> {
        let mut seed = [0; SEED_LEN];
        self.coins.rng.fill_bytes(&mut seed);
        let varied = self.parts.iter_mut().map(|part| (part, keep));
        let others = self.other.iter_mut().map(|part| (part, u32::MAX));
        for (stream, (part, keep)) in (1u64..).zip(varied.chain(others)) {
            for (i, limb) in part.chunks_exact_mut(self.params.n()).enumerate() {
                let modulus = self.params.prime(i)?.modulus();
                Uniform::new(&seed, stream << 32 | i as u64, modulus).fill(limb);
                limb.iter_mut().for_each(|x| *x &= keep);
            }
        }
        Ok(())
    }

    /// A fresh encryption of the message under the key.
    fn draw_ciphertext(&mut self) -> Result<()> {
        let (params, level) = (self.params, self.params.max_level());
        let ([c0, c1, _], coins) = (&mut self.parts, &mut self.coins);
        rlwe::encrypt_with_seed(params, &self.secret, self.message, level, &SEED, coins, c0)?;
        rlwe::expand_c1(params, &SEED, c1)?;
        // Encryption has added its errors.
        self.encode()
    }

    /// Copies what varies to where [`Self::leak`] looks.
    fn watch(&mut self, subject: Subject) {
        if subject == Subject::EncodeDrawn {
            // There already.
            return;
        }
        let [input, ..] = &self.parts;
        let of_input = subject.varies() == Varied::Input;
        let integers = match subject.varies() {
            // Weights are the message, encoded.
            Varied::Message | Varied::Weights => &*self.message,
            _ => &*self.coefficients,
        };
        let both = integers.iter().zip(input.iter());
        for (watched, (&integer, &word)) in self.watched.iter_mut().zip(both) {
            *watched = if of_input { word } else { integer as u32 };
        }
    }

    /// What must not happen: works on what varies and leaves out zeros, or what the fixed
    /// class has, once for every limb that `subject` writes.
    pub fn leak(&mut self, subject: Subject) {
        let mut sum = 1u32;
        for pass in 0..subject.limbs(self.params) as u32 {
            for &x in self.watched.iter() {
                if x != 0 {
                    // Not to be done without the branch.
                    sum = black_box(sum.wrapping_mul(x | 1).rotate_left(7) ^ pass);
                }
            }
        }
        black_box(sum);
    }

    /// Runs `subject` on what [`Self::draw`] prepared for it.
    ///
    /// # Errors
    /// Those of the operation; none is expected.
    pub fn run(&mut self, subject: Subject) -> Result<()> {
        match subject {
            Subject::Encode | Subject::EncodeDrawn => {
                self.encode()?;
                self.plaintext()
            }
            Subject::EncryptSecret | Subject::EncryptCompact | Subject::EncryptPublic => {
                self.encrypt(subject)
            }
            Subject::KeygenSecret
            | Subject::KeygenPublic
            | Subject::KeygenRelin
            | Subject::KeygenRotation => self.generate(subject),
            Subject::Decrypt | Subject::DecryptDecode => self.decrypt(subject),
            #[cfg(feature = "publish")]
            Subject::PublishLabel | Subject::PublishValues => self.publish(subject),
            _ => self.evaluate(subject),
        }
    }

    fn plaintext(&mut self) -> Result<()> {
        let level = self.params.max_level();
        Plaintext::new(self.params, self.message, level, SCALE, &mut *self.result)?;
        Ok(())
    }

    fn encrypt(&mut self, subject: Subject) -> Result<()> {
        let (params, level) = (self.params, self.params.max_level());
        if subject != Subject::EncryptPublic {
            self.encode()?;
        }
        let [c0, c1, _] = &mut self.parts;
        let (coins, message) = (&mut self.coins, &mut *self.message);
        match subject {
            Subject::EncryptSecret => {
                rlwe::encrypt_with_seed(params, &self.secret, message, level, &SEED, coins, c0)
            }
            Subject::EncryptCompact => {
                let scratch = self.scratch.get_mut(..params.n()).unwrap_or_default();
                let mut encryption = Encryption::start(params, message, scratch, coins)?;
                for (i, limb) in c0.chunks_exact_mut(params.n()).enumerate() {
                    encryption.limb(&self.compact, i, limb)?;
                }
                Ok(())
            }
            _ => {
                let words = PublicScratch::words(params);
                let scratch = PublicScratch {
                    integers: self.integers,
                    limbs: self.scratch.get_mut(..words).unwrap_or_default(),
                };
                let halves = [&mut **c0, &mut **c1];
                rlwe::encrypt_public(params, &self.public, message, level, coins, scratch, halves)
            }
        }
    }

    fn generate(&mut self, subject: Subject) -> Result<()> {
        let (params, level) = (self.params, self.params.max_level());
        let errors = self.integers.get_mut(..params.n()).unwrap_or_default();
        let (secret, coins, out) = (&self.secret, &mut self.coins, &mut *self.generated);
        let target = match subject {
            Subject::KeygenSecret => {
                return self.secret.refill(params, || sample::ternary(coins));
            }
            Subject::KeygenPublic => {
                let storage = &mut *self.generated_public;
                PublicKey::generate(params, secret, &SEED, coins, errors, storage)?;
                return Ok(());
            }
            Subject::KeygenRelin => SwitchTarget::Square,
            _ => SwitchTarget::Galois(rotation(params.n(), 1)),
        };
        switching_key(params, secret, target, level, &SEED, coins, errors, out)
    }

    fn decrypt(&mut self, subject: Subject) -> Result<()> {
        let (params, level) = (self.params, self.params.max_level());
        let [c0, c1, _] = &mut self.parts;
        if subject == Subject::Decrypt {
            return rlwe::decrypt(params, &self.secret, [&**c0, &**c1], self.result);
        }
        let ct = Ciphertext::new(params, level, SCALE, &mut **c0, &mut **c1)?;
        let (words, slots) = (&mut *self.result, &mut *self.slots);
        black_box(decrypt(params, &self.secret, &ct, level, SCALE, words, slots)?.fill());
        Ok(())
    }

    #[cfg(feature = "publish")]
    fn publish(&mut self, subject: Subject) -> Result<()> {
        let (params, level) = (self.params, self.params.max_level());
        let [c0, c1, _] = &mut self.parts;
        let ct = Ciphertext::new(params, level, SCALE, &mut **c0, &mut **c1)?;
        let (words, slots) = (&mut *self.result, &mut *self.slots);
        let noise_key = NoiseKey::new([7; 32]);
        let mut budget = InMemory(Allowance::new(1, 30)?);
        let published = match subject {
            Subject::PublishLabel => {
                let at = (level, SCALE);
                // Ten logits of 64 lanes, or of as many as there are.
                let lanes = (params.slots() >> 4).min(64);
                let candidates = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|k| k * lanes..(k + 1) * lanes);
                let (key, budget) = (&self.secret, &mut budget);
                publish_label(
                    params,
                    key,
                    &noise_key,
                    budget,
                    &ct,
                    at,
                    &candidates,
                    words,
                    slots,
                )
                .map(|label| {
                    black_box(label);
                })
            }
            _ => {
                let expected = Expected {
                    level,
                    scale: SCALE,
                    noise: Noise::error(params),
                    magnitude: 2.0,
                    // More noise than message, of which the time does not depend.
                    precision_bits: -40.0,
                };
                let result = HonestResult::stated(&ct, HonestEvaluator::assume());
                let (key, budget) = (&self.secret, &mut budget);
                publish_values(
                    params, key, &noise_key, budget, &result, &expected, words, slots,
                )
                .map(|values| {
                    black_box(values.fill());
                })
            }
        };
        published.map_err(|error| match error {
            PublishError::Refused(error) => error,
            PublishError::Budget(never) => match never {},
            // A fresh encryption under the same key does not wrap around.
            PublishError::Retired => Error::Headroom {
                needed_log2: f64::INFINITY,
                room_log2: 0.0,
            },
        })
    }

    fn evaluate(&mut self, subject: Subject) -> Result<()> {
        let (params, level) = (self.params, self.params.max_level());
        let [c0, c1, c2] = self.parts.each_mut().map(|part| &mut **part);
        let [d0, d1] = self.other.each_mut().map(|part| &mut **part);
        let other = Ciphertext::new(params, level, SCALE, d0, d1)?;
        if subject == Subject::Relinearize {
            let ct = Ciphertext::from_parts(params, level, SCALE, [c0, c1, c2])?;
            let mut work = Workspace::new(params, level, self.scratch)?;
            relinearize(params, ct, &self.relin, &mut work)?;
            return Ok(());
        }
        let mut ct = Ciphertext::new(params, level, SCALE, c0, c1)?;
        match subject {
            Subject::Add => add(params, &mut ct, &other),
            Subject::MultiplyCt => {
                multiply(params, ct, &other, c2)?;
                Ok(())
            }
            Subject::Rescale => {
                let scratch = self.scratch.get_mut(..params.n()).unwrap_or_default();
                rescale(params, &mut ct, scratch)
            }
            Subject::Rotate => {
                let mut work = Workspace::new(params, level, self.scratch)?;
                rotate(params, &mut ct, 1, KeySet::new(&self.rotation), &mut work)
            }
            _ => match &self.plain {
                Some(plain) => multiply_plain(params, &mut ct, plain),
                None => Err(Error::Parts {
                    operation: "timing",
                    expected: 1,
                    got: 0,
                }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::N4096_DEPTH3;

    #[test]
    fn every_subject_is_drawn_and_run_in_the_memory_it_asks_for() {
        let (params, n) = (&N4096_DEPTH3, N4096_DEPTH3.n());
        let mut words = vec![0; Memory::words(params)];
        let (mut integers, mut floats, mut doubles) =
            (vec![0; 5 * n], vec![0.0; 2 * n], vec![0.0; n]);
        let mut bytes = vec![0; n / 4];
        let memory = Memory {
            words: &mut words,
            integers: &mut integers,
            floats: &mut floats,
            doubles: &mut doubles,
            bytes: &mut bytes,
        };
        let mut drawn = Drawn::new(params, memory).unwrap();
        for &subject in Subject::CLIENT.iter().chain(&Subject::EVALUATOR) {
            for (fixed, seed) in [(true, 1), (false, 2), (true, 3)] {
                drawn.draw(subject, fixed, seed).unwrap();
                // What the control leaves out is what the fixed class has.
                let zeros = drawn.watched.iter().filter(|&&x| x == 0).count();
                assert_eq!(fixed, zeros > n / 2, "{subject:?} {zeros}");
                drawn.run(subject).unwrap();
                drawn.leak(subject);
            }
        }
    }
}
