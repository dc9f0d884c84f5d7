//! The side of the key: keys, encryption, decryption.

use chacha20::ChaCha20Rng;
use he_core::Params;
use he_core::ckks::Ciphertext;
use he_core::ckks::decrypt::{Decrypted, decrypt};
use he_core::ckks::encode::encode_complex;
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{self, SecretKey, SwitchKey, SwitchTarget};
use he_core::wire::{self, Object};
use rand_core::SeedableRng;
use zeroize::Zeroizing;

use super::{EngineError, failed, object_bytes, refused};

/// Above this share of the modulus a result counts as wrapped around: values
/// within the plan's ranges reach a quarter of it.
const WRAPPED: f64 = 0.5;

/// A secret key and the randomness to use it with.
pub struct Keys {
    params: &'static Params,
    key: SecretKey<Vec<u32>>,
    rng: ChaCha20Rng,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Draws a secret key from the system's generator.
    ///
    /// # Errors
    /// [`EngineError::Random`].
    pub fn new(params: &'static Params) -> Result<Self, EngineError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(EngineError::Random)?;
        Self::from_seed(params, &seed)
    }

    /// As [`Self::new`], with all randomness from `seed`: for tests.
    ///
    /// # Errors
    /// [`EngineError::Operation`].
    pub fn from_seed(params: &'static Params, seed: &[u8; 32]) -> Result<Self, EngineError> {
        let mut rng = ChaCha20Rng::from_seed(*seed);
        let storage = vec![0; SecretKey::<Vec<u32>>::words(params)];
        let key =
            SecretKey::generate(params, storage, &mut rng).map_err(failed("key generation"))?;
        Ok(Self { params, key, rng })
    }

    /// The key and its randomness, for one who streams what is made with them.
    pub(super) fn into_parts(self) -> (SecretKey<Vec<u32>>, ChaCha20Rng) {
        (self.key, self.rng)
    }

    /// The evaluator's keys, one object after the other.
    ///
    /// # Errors
    /// [`EngineError::Operation`].
    pub fn switching_keys(
        &mut self,
        wanted: &[(SwitchTarget, usize)],
    ) -> Result<Vec<u8>, EngineError> {
        let params = self.params;
        let mut bytes = Vec::new();
        let mut errors = vec![0; params.n()];
        for &(target, level) in wanted {
            let storage = vec![0; switching_key_words(params, level)];
            let key = SwitchKey::generate(
                params,
                &self.key,
                target,
                level,
                &mut self.rng,
                &mut errors,
                storage,
            )
            .map_err(failed("key generation"))?;
            let object = Object::SwitchingKey { target };
            let start = bytes.len();
            bytes.resize(start + object_bytes(params, object, level)?, 0);
            wire::write_switch_key(params, &key, &mut bytes[start..])
                .map_err(failed("key generation"))?;
        }
        Ok(bytes)
    }

    /// Encrypts slots as a seeded ciphertext, and appends it to `bytes`.
    ///
    /// # Errors
    /// [`EngineError::Operation`].
    pub fn encrypt(
        &mut self,
        re: &[f64],
        im: &[f64],
        level: usize,
        scale: f64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        let params = self.params;
        let n = params.n();
        let mut buffer = Zeroizing::new(vec![0.0f64; n]);
        let mut message = Zeroizing::new(vec![0i64; n]);
        encode_complex(re, im, scale, &mut buffer, &mut message, |x| x as i64)
            .map_err(failed("encoding"))?;
        let mut c0 = vec![0; (level + 1) * n];
        let rng = &mut self.rng;
        let seed = rlwe::encrypt(params, &self.key, &mut message, level, rng, &mut c0)
            .map_err(failed("encryption"))?;
        let object = Object::SeededCiphertext { scale };
        let start = bytes.len();
        bytes.resize(start + object_bytes(params, object, level)?, 0);
        wire::write_seeded(params, scale, &seed, &c0, &mut bytes[start..])
            .map_err(failed("encryption"))
    }

    /// Decrypts a result of this level and scale, and no other: the values of
    /// `slots`.
    ///
    /// # Errors
    /// [`EngineError::Bytes`], [`EngineError::Result`], [`EngineError::Wrapped`].
    pub fn decrypt(
        &self,
        bytes: &[u8],
        level: usize,
        scale: f64,
        slots: impl Iterator<Item = usize>,
    ) -> Result<Vec<f64>, EngineError> {
        self.decrypted(bytes, level, scale, |plain| {
            let value = |slot| {
                plain.slot(slot).ok_or(EngineError::Count {
                    what: "slots",
                    expected: self.params.slots(),
                    got: slot + 1,
                })
            };
            slots.map(value).collect()
        })?
    }

    /// What `read` makes of a decrypted result of this level and scale.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub(crate) fn decrypted<T>(
        &self,
        bytes: &[u8],
        level: usize,
        scale: f64,
        read: impl FnOnce(&Decrypted<'_>) -> T,
    ) -> Result<T, EngineError> {
        let params = self.params;
        let limbs = || vec![0; (level + 1) * params.n()];
        let ct: Ciphertext<Vec<u32>> = wire::read_ciphertext(params, bytes, [limbs(), limbs()])
            .map_err(refused("the result"))?;
        let (mut scratch, mut values) = (limbs(), vec![0.0; params.n()]);
        let plain = decrypt(
            params,
            &self.key,
            &ct,
            level,
            scale,
            &mut scratch,
            &mut values,
        )
        .map_err(EngineError::Result)?;
        if plain.fill() > WRAPPED {
            return Err(EngineError::Wrapped {
                percent: 100.0 * plain.fill(),
            });
        }
        Ok(read(&plain))
    }
}
