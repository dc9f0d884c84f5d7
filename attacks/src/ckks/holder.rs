//! The holder of a secret key, as attacks on the scheme meet him.

use chacha20::ChaCha20Rng;
use he_core::ckks::publish::{
    Allowance, Budget, Expected, HonestEvaluator, HonestResult, KeyId, NoiseKey, PublishError,
    precision, publish_label, publish_values,
};
use he_core::ckks::{Ciphertext, Message, Noise, decrypt};
use he_core::ring::sample;
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{self, SecretKey, SwitchKey, SwitchTarget};
use he_core::{Error, Params, Result};
use rand_core::{Rng, SeedableRng};

use super::algebra;

/// A ciphertext in memory.
pub(super) type Ct = Ciphertext<Vec<u32>>;

/// Publications under one key, where nothing else is said, and bits of statistical
/// security.
pub(super) const BUDGET: (u32, u32) = (1024, 30);

/// What is left of a budget: a count in memory.
#[derive(Clone, Copy, Debug)]
pub struct Count {
    allowance: Allowance,
    spent: u32,
}

impl Count {
    /// A new count.
    ///
    /// # Errors
    /// [`Error::StatisticalBits`].
    pub fn new(queries: u32, statistical_bits: u32) -> Result<Self> {
        Ok(Self {
            allowance: Allowance::new(queries, statistical_bits)?,
            spent: 0,
        })
    }
}

/// The budget is used up, or its key was retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key has published all that it may; take a new key")]
pub struct UsedUp;

impl Budget for Count {
    type Error = UsedUp;

    fn allowance(&self) -> Allowance {
        self.allowance
    }

    fn spend(&mut self, _: &KeyId) -> std::result::Result<(), UsedUp> {
        if self.spent >= self.allowance.queries() {
            return Err(UsedUp);
        }
        self.spent += 1;
        Ok(())
    }

    fn retire(&mut self, _: &KeyId) -> std::result::Result<(), UsedUp> {
        self.spent = self.allowance.queries();
        Ok(())
    }
}

/// Who holds a key: encrypts, decrypts, publishes.
pub struct Holder {
    params: &'static Params,
    secret: Vec<i8>,
    key: SecretKey<Vec<u32>>,
    noise_key: NoiseKey,
    pub(super) rng: ChaCha20Rng,
}

impl Holder {
    /// With a key of this seed.
    ///
    /// # Errors
    /// he-core's; none for a set of the crate.
    pub fn new(params: &'static Params, seed: u64) -> Result<Self> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let secret: Vec<i8> = (0..params.n())
            .map(|_| sample::ternary(&mut rng) as i8)
            .collect();
        let storage = vec![0; SecretKey::<Vec<u32>>::words(params)];
        let key = SecretKey::from_coefficients(params, storage, &secret)?;
        let mut noise = [0; 32];
        rng.fill_bytes(&mut noise);
        Ok(Self {
            params,
            secret,
            key,
            noise_key: NoiseKey::new(noise),
            rng,
        })
    }

    /// Whether this is his key, every coefficient of it.
    #[must_use]
    pub fn knows(&self, found: Option<&[i8]>) -> bool {
        found == Some(&self.secret)
    }

    /// The key, for figures of how near an attacker came.
    pub(super) fn revealed(&self) -> Vec<f64> {
        self.secret.iter().map(|&s| f64::from(s)).collect()
    }

    /// How many coefficients of a guess are right.
    pub(super) fn right(&self, guess: impl IntoIterator<Item = Option<i64>>) -> usize {
        let pairs = guess.into_iter().zip(&self.secret);
        pairs
            .filter(|(guess, s)| *guess == Some(i64::from(**s)))
            .count()
    }

    /// Uniform numbers from -1 to 1 in all slots.
    pub(super) fn values(&mut self) -> Vec<f64> {
        let mut unit = || f64::from(self.rng.next_u32()) / 2f64.powi(31) - 1.0;
        (0..self.params.slots()).map(|_| unit()).collect()
    }

    /// Coefficients of real values at a scale.
    pub(super) fn encode(&self, values: &[f64], scale: f64) -> Result<Vec<i64>> {
        let mut slots = values.to_vec();
        slots.resize(self.params.n(), 0.0);
        algebra::coefficients(&slots, scale)
    }

    /// Encrypts coefficients of a message with slots up to 1.
    pub(super) fn encrypt(&mut self, message: &[i64], level: usize, scale: f64) -> Result<Ct> {
        let words = (level + 1) * self.params.n();
        let (mut c0, mut c1, mut message) = (vec![0; words], vec![0; words], message.to_vec());
        let (params, rng) = (self.params, &mut self.rng);
        let seed = rlwe::encrypt(params, &self.key, &mut message, level, rng, &mut c0)?;
        rlwe::expand_c1(params, &seed, &mut c1)?;
        let ct = Ciphertext::new(params, level, scale, c0, c1)?;
        Ok(ct.with_noise(Noise::fresh(params), Message::within(1.0)))
    }

    /// A key of the evaluator.
    pub(super) fn switch_key(&mut self, target: SwitchTarget) -> Result<SwitchKey<Vec<u32>>> {
        let (params, level) = (self.params, self.params.max_level());
        let storage = vec![0; switching_key_words(params, level)];
        let mut errors = vec![0; params.n()];
        let rng = &mut self.rng;
        SwitchKey::generate(params, &self.key, target, level, rng, &mut errors, storage)
    }

    /// The old rule, which has none: decrypts, and gives out all slots as they are,
    /// real parts and then imaginary ones.
    pub(super) fn unguarded(&self, ct: &Ct) -> Result<Vec<f64>> {
        let (level, scale, n) = (ct.level(), ct.scale(), self.params.n());
        let (mut scratch, mut slots) = (vec![0; (level + 1) * n], vec![0.0; n]);
        let key = &self.key;
        let found = decrypt(self.params, key, ct, level, scale, &mut scratch, &mut slots)?;
        let slots = 0..n / 2;
        let real = slots.clone().filter_map(|i| found.slot(i));
        let imaginary = slots.filter_map(|i| found.imaginary(i));
        Ok(real.chain(imaginary).collect())
    }

    /// The share of the modulus that a result fills.
    pub(super) fn fill(&self, ct: &Ct) -> Result<f64> {
        let (level, scale, n) = (ct.level(), ct.scale(), self.params.n());
        let (mut scratch, mut slots) = (vec![0; (level + 1) * n], vec![0.0; n]);
        let key = &self.key;
        Ok(decrypt(self.params, key, ct, level, scale, &mut scratch, &mut slots)?.fill())
    }

    /// Publishes values by he-core's rule, of an evaluation stated honest.
    pub(super) fn publish(
        &self,
        budget: &mut Count,
        ct: &Ct,
        expected: &Expected,
    ) -> std::result::Result<Vec<f64>, PublishError<UsedUp>> {
        let n = self.params.n();
        let (mut scratch, mut slots) = (vec![0; (expected.level + 1) * n], vec![0.0; n]);
        let published = publish_values(
            self.params,
            &self.key,
            &self.noise_key,
            budget,
            &HonestResult::stated(ct, HonestEvaluator::assume()),
            expected,
            &mut scratch,
            &mut slots,
        )?;
        Ok([published.values(), published.imaginary()].concat())
    }

    /// Publishes a label by he-core's rule.
    pub(super) fn label(
        &self,
        budget: &mut Count,
        ct: &Ct,
        candidates: &[usize],
    ) -> std::result::Result<usize, PublishError<UsedUp>> {
        let (level, n) = (ct.level(), self.params.n());
        let (mut scratch, mut slots) = (vec![0; (level + 1) * n], vec![0.0; n]);
        let candidates: Vec<_> = candidates.iter().map(|&slot| slot..slot + 1).collect();
        publish_label(
            self.params,
            &self.key,
            &self.noise_key,
            budget,
            ct,
            (level, ct.scale()),
            &candidates,
            &mut scratch,
            &mut slots,
        )
    }
}

/// What to expect of values up to 1 with an error up to `bound`, whatever precision is
/// left.
pub(super) const fn expected(level: usize, scale: f64, noise: Noise) -> Expected {
    Expected {
        level,
        scale,
        noise,
        magnitude: 1.0,
        precision_bits: -1e3,
    }
}

/// The largest scale, a power of two, at which values up to 1 with this error can be
/// published under an allowance, and the bits after the binary point that are right
/// then; the refusal where there is none.
pub(super) fn widest(
    params: &Params,
    level: usize,
    noise: Noise,
    allowance: &Allowance,
) -> Result<(f64, f64)> {
    let mut refusal = Error::NoiseBound { got: noise.bound };
    // The encoder's coefficients stay below 2^62.
    for log_scale in (10..=60).rev() {
        let scale = f64::exp2(f64::from(log_scale));
        match precision(params, &expected(level, scale, noise), allowance) {
            Ok(bits) => return Ok((scale, bits)),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}
