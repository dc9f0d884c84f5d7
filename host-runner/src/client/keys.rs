//! The side of the key: keys, encryption, decryption.

use std::ops::Range;

use chacha20::ChaCha20Rng;
use he_core::Params;
use he_core::ckks::Ciphertext;
use he_core::ckks::decrypt::{Decrypted, decrypt};
use he_core::ckks::encode::encode_complex;
use he_core::ring::kernel;
use he_core::ring::sample::{Domain, Uniform, stream};
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{self, KeySeed, SecretKey, SwitchKey, SwitchTarget};
use he_core::wire::{self, Object};
use he_nn::message::SEED_BYTES;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::packed::{PackedCiphertext, pack};
use super::{ClientError, IN_MEMORY, WRAPPED, failed};
use crate::engine::object_bytes;

/// A secret key and the randomness to use it with.
pub struct Keys {
    params: &'static Params,
    pub(super) key: SecretKey<Vec<u32>>,
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
    /// [`ClientError::Random`].
    pub fn new(params: &'static Params) -> Result<Self, ClientError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(ClientError::Random)?;
        Self::from_seed(params, &seed)
    }

    /// As [`Self::new`], with all randomness from `seed`: for tests. Whoever calls it twice
    /// encrypts twice with the same randomness; a key that is kept is [`Self::derived`].
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn from_seed(params: &'static Params, seed: &[u8; 32]) -> Result<Self, ClientError> {
        let mut rng = ChaCha20Rng::from_seed(*seed);
        let storage = vec![0; SecretKey::<Vec<u32>>::words(params)];
        let key =
            SecretKey::generate(params, storage, &mut rng).map_err(failed("key generation"))?;
        Ok(Self { params, key, rng })
    }

    /// The key of a seed that is kept, with fresh randomness to use it with: however often
    /// it is derived, no two encryptions share any.
    ///
    /// # Errors
    /// [`ClientError::Random`].
    pub fn derived(params: &'static Params, seed: &KeySeed) -> Result<Self, ClientError> {
        let mut fresh = Zeroizing::new([0; 32]);
        getrandom::fill(fresh.as_mut()).map_err(ClientError::Random)?;
        let storage = vec![0; SecretKey::<Vec<u32>>::words(params)];
        let key = SecretKey::generate(params, storage, &mut seed.key_rng())
            .map_err(failed("key generation"))?;
        let rng = seed.encryption_rng(&fresh);
        Ok(Self { params, key, rng })
    }

    /// A key that was made elsewhere. **`rng` must not repeat anything that was drawn for
    /// that key**, or ciphertexts share their uniform halves.
    #[must_use]
    pub const fn with_key(
        params: &'static Params,
        key: SecretKey<Vec<u32>>,
        rng: ChaCha20Rng,
    ) -> Self {
        Self { params, key, rng }
    }

    /// A switching key for a target, for every level up to one.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn switching_key(
        &mut self,
        target: SwitchTarget,
        level: usize,
    ) -> Result<SwitchKey<Vec<u32>>, ClientError> {
        let params = self.params;
        let mut errors = Zeroizing::new(vec![0; params.n()]);
        let storage = vec![0; switching_key_words(params, level)];
        SwitchKey::generate(
            params,
            &self.key,
            target,
            level,
            &mut self.rng,
            &mut errors,
            storage,
        )
        .map_err(failed("key generation"))
    }

    /// The evaluator's keys, one object after the other.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn switching_keys(
        &mut self,
        wanted: &[(SwitchTarget, usize)],
    ) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        for &(target, level) in wanted {
            let key = self.switching_key(target, level)?;
            write_key(self.params, &key, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// A mask of a result, of its level and scale: both halves are uniform and expanded from
    /// a seed that nothing else has.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub(super) fn mask(&mut self, level: usize, scale: f64) -> Result<(Fresh, Mask), ClientError> {
        let mut seed = [0; SEED_BYTES];
        self.rng.fill_bytes(&mut seed);
        let mask = Mask(seed);
        let c0 = mask.half(self.params, Domain::ResultMask, level);
        let fresh = Fresh {
            seed,
            scale: scale.to_bits(),
            c0: c0.map_err(failed("encryption"))?,
        };
        Ok((fresh, mask))
    }

    /// Encrypts slots at a level and scale.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn encrypt(
        &mut self,
        re: &[f64],
        im: &[f64],
        level: usize,
        scale: f64,
    ) -> Result<Fresh, ClientError> {
        encrypt_by(
            self.params,
            &self.key,
            &mut self.rng,
            (re, im),
            level,
            scale,
        )
    }

    /// Encrypts `count` ciphertexts on all threads of rayon's pool, of which `slots` gives
    /// the real values. Each has randomness of its own, drawn in order, so that all are the
    /// same for any number of threads.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn encrypt_many(
        &mut self,
        count: usize,
        slots: impl Fn(usize) -> Zeroizing<Vec<f64>> + Sync,
        level: usize,
        scale: f64,
    ) -> Result<Vec<Fresh>, ClientError> {
        let mut seeds = Zeroizing::new(vec![[0; 32]; count]);
        for seed in seeds.iter_mut() {
            self.rng.fill_bytes(seed);
        }
        let (params, key) = (self.params, &self.key);
        let one = |(index, seed): (usize, &[u8; 32])| {
            let mut rng = ChaCha20Rng::from_seed(*seed);
            encrypt_by(params, key, &mut rng, (&slots(index), &[]), level, scale)
        };
        seeds.par_iter().enumerate().map(one).collect()
    }

    /// Decrypts a ciphertext in memory that came from `device`, as [`Self::decrypt`]: a sum
    /// per range of slots.
    ///
    /// # Errors
    /// As [`Self::decrypt`].
    pub(super) fn decrypt_words(
        &self,
        (c0, c1): (Vec<u32>, Vec<u32>),
        found: f64,
        (level, scale): (usize, f64),
        slots: impl Iterator<Item = Range<usize>>,
        device: &str,
    ) -> Result<Vec<f64>, ClientError> {
        let rejected = |source| ClientError::Result {
            device: device.to_owned(),
            source,
        };
        let ct = Ciphertext::new(self.params, level, found, c0, c1).map_err(rejected)?;
        self.opened(&ct, level, scale, device, WRAPPED, |plain| {
            slots.filter_map(|slots| plain.sum(slots)).collect()
        })
    }

    /// Decrypts a result of this level and scale, and no other: the values of
    /// `slots`.
    ///
    /// # Errors
    /// [`ClientError::Result`], [`ClientError::Wrapped`].
    pub fn decrypt(
        &self,
        bytes: &[u8],
        level: usize,
        scale: f64,
        slots: impl Iterator<Item = usize>,
    ) -> Result<Vec<f64>, ClientError> {
        self.decrypted(bytes, level, scale, |plain| {
            slots.filter_map(|slot| plain.slot(slot)).collect()
        })
    }

    /// As [`Self::decrypt_words`], also where the values fill the modulus.
    ///
    /// # Errors
    /// [`ClientError::Result`].
    #[cfg(feature = "attack")]
    pub(super) fn decrypt_any(
        &self,
        bytes: &[u8],
        (level, scale): (usize, f64),
        slots: impl Iterator<Item = Range<usize>>,
    ) -> Result<Vec<f64>, ClientError> {
        let ct = self.read(bytes, level)?;
        self.opened(&ct, level, scale, IN_MEMORY, f64::INFINITY, |plain| {
            slots.filter_map(|slots| plain.sum(slots)).collect()
        })
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
    ) -> Result<T, ClientError> {
        let ct = self.read(bytes, level)?;
        self.opened(&ct, level, scale, IN_MEMORY, WRAPPED, read)
    }

    pub(super) fn read(
        &self,
        bytes: &[u8],
        level: usize,
    ) -> Result<Ciphertext<Vec<u32>>, ClientError> {
        let limbs = || vec![0; (level + 1) * self.params.n()];
        wire::read_ciphertext(self.params, bytes, [limbs(), limbs()]).map_err(|source| {
            ClientError::Result {
                device: IN_MEMORY.to_owned(),
                source,
            }
        })
    }

    fn opened<T>(
        &self,
        ct: &Ciphertext<Vec<u32>>,
        level: usize,
        scale: f64,
        device: &str,
        most: f64,
        read: impl FnOnce(&Decrypted<'_>) -> T,
    ) -> Result<T, ClientError> {
        let params = self.params;
        let mut scratch = vec![0; (level + 1) * params.n()];
        let mut values = vec![0.0; params.n()];
        let plain = decrypt(
            params,
            &self.key,
            ct,
            level,
            scale,
            &mut scratch,
            &mut values,
        )
        .map_err(|source| ClientError::Result {
            device: device.to_owned(),
            source,
        })?;
        if plain.fill() > most {
            return Err(ClientError::Wrapped {
                device: device.to_owned(),
                percent: 100.0 * plain.fill(),
            });
        }
        Ok(read(&plain))
    }
}

/// A mask of a result: a ciphertext of uniform halves, by the seed that both are expanded
/// from. The evaluator adds it, and the client takes it off. What it decrypts to is uniform,
/// so that a result with another request's mask, or without one, is noise. It is not secret:
/// whoever evaluates has the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask([u8; SEED_BYTES]);

impl Mask {
    /// Bytes that it is kept in.
    pub(crate) const BYTES: usize = SEED_BYTES;

    /// As [`Self::bytes`] gave it.
    pub(crate) const fn new(seed: [u8; SEED_BYTES]) -> Self {
        Self(seed)
    }

    /// What it is kept in.
    pub(crate) const fn bytes(self) -> [u8; SEED_BYTES] {
        self.0
    }

    /// A half of it in the NTT domain.
    fn half(self, params: &Params, domain: Domain, level: usize) -> he_core::Result<Vec<u32>> {
        let mut words = vec![0; (level + 1) * params.n()];
        for (limb, words) in words.chunks_exact_mut(params.n()).enumerate() {
            let modulus = params.prime(limb)?.modulus();
            Uniform::new(&self.0, stream(domain, 0, limb), modulus).fill(words);
        }
        Ok(words)
    }

    /// Takes it off a result of a level.
    ///
    /// # Errors
    /// [`he_core::Error::Level`] where the set has no such level.
    pub(crate) fn take_off(
        self,
        params: &Params,
        level: usize,
        halves: [&mut [u32]; 2],
    ) -> he_core::Result<()> {
        let domains = [Domain::ResultMask, Domain::Ciphertext];
        for (half, domain) in halves.into_iter().zip(domains) {
            let mut mask = self.half(params, domain, level)?;
            let limbs = half.chunks_exact_mut(params.n());
            let limbs = limbs.zip(mask.chunks_exact_mut(params.n()));
            for (limb, (half, mask)) in limbs.enumerate() {
                let modulus = params.prime(limb)?.modulus();
                for x in mask.iter_mut().filter(|x| **x != 0) {
                    *x = modulus.value() - *x;
                }
                kernel::add(half, mask, modulus);
            }
        }
        Ok(())
    }
}

/// Appends a switching key as an object of [`he_core::wire`].
pub(super) fn write_key(
    params: &Params,
    key: &SwitchKey<Vec<u32>>,
    bytes: &mut Vec<u8>,
) -> Result<(), ClientError> {
    let target = key.target();
    let start = bytes.len();
    let length = object_bytes(params, Object::SwitchingKey { target }, key.level())
        .map_err(failed("key generation"))?;
    bytes.resize(start + length, 0);
    wire::write_switch_key(params, key, &mut bytes[start..]).map_err(failed("key generation"))
}

/// A fresh ciphertext: the seed of its uniform half, and the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    seed: [u8; SEED_BYTES],
    scale: u64,
    c0: Vec<u32>,
}

impl Fresh {
    /// Appends it as an object of [`he_core::wire`].
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn write(&self, params: &Params, bytes: &mut Vec<u8>) -> Result<(), ClientError> {
        let scale = f64::from_bits(self.scale);
        let level = self.c0.len() / params.n() - 1;
        let object = Object::SeededCiphertext { scale };
        let start = bytes.len();
        let length = object_bytes(params, object, level).map_err(failed("encryption"))?;
        bytes.resize(start + length, 0);
        wire::write_seeded(params, scale, &self.seed, &self.c0, &mut bytes[start..])
            .map_err(failed("encryption"))
    }

    /// Packed limb by limb, as it streams.
    ///
    /// # Errors
    /// [`ClientError::Operation`].
    pub fn packed(&self, params: &Params) -> Result<PackedCiphertext, ClientError> {
        let limbs = self.c0.chunks_exact(params.n()).enumerate();
        let limbs = limbs
            .map(|(i, limb)| pack(params, i, limb))
            .collect::<Result<_, _>>();
        Ok(PackedCiphertext {
            seed: self.seed,
            limbs: limbs.map_err(failed("encryption"))?,
        })
    }
}

/// A seeded ciphertext of slots.
fn encrypt_by(
    params: &Params,
    key: &SecretKey<Vec<u32>>,
    rng: &mut ChaCha20Rng,
    (re, im): (&[f64], &[f64]),
    level: usize,
    scale: f64,
) -> Result<Fresh, ClientError> {
    let n = params.n();
    let mut buffer = Zeroizing::new(vec![0.0f64; n]);
    let mut message = Zeroizing::new(vec![0i64; n]);
    encode_complex(re, im, scale, &mut buffer, &mut message, |x| x as i64)
        .map_err(failed("encoding"))?;
    let mut c0 = vec![0; (level + 1) * n];
    let seed = rlwe::encrypt(params, key, &mut message, level, rng, &mut c0)
        .map_err(failed("encryption"))?;
    Ok(Fresh {
        seed,
        scale: scale.to_bits(),
        c0,
    })
}
