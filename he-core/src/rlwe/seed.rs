//! The 32 bytes that a key is derived from, and what must not repeat with it.

use chacha20::ChaCha20Rng;
use core::fmt;
use rand_core::{Rng, SeedableRng};
use zeroize::{Zeroize, Zeroizing};

/// What a generator is for: the nonce of its ChaCha20 stream under the seed.
#[derive(Clone, Copy)]
enum Purpose {
    Key = 1,
    Encryption = 2,
    NoiseKey = 3,
}

/// 32 secret bytes from a cryptographic generator, from which a secret key can be
/// derived again. Erased when dropped, never printed.
///
/// Whoever derives a key again must not derive the randomness of its encryptions
/// again: two ciphertexts of one seed show the difference of their messages. So the
/// two come from streams of different nonces, and the second takes fresh bytes, for
/// which there is no default.
pub struct KeySeed(Zeroizing<[u8; 32]>);

impl KeySeed {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(mut bytes: [u8; 32]) -> Self {
        let seed = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        seed
    }

    /// The generator for the secret key, and for nothing else: the same every time.
    #[must_use]
    pub fn key_rng(&self) -> ChaCha20Rng {
        self.stream(Purpose::Key)
    }

    /// The generator for everything that is drawn under the key: public and
    /// switching keys, seeds and errors of encryptions. `fresh` are 32 bytes from the
    /// entropy of the system, drawn anew whenever the key is derived. It is as good as
    /// the better of both.
    #[must_use]
    pub fn encryption_rng(&self, fresh: &[u8; 32]) -> ChaCha20Rng {
        let mut key = Zeroizing::new([0; 32]);
        self.stream(Purpose::Encryption).fill_bytes(key.as_mut());
        let mut other = Zeroizing::new([0; 32]);
        let mut rng = ChaCha20Rng::from_seed(*fresh);
        rng.set_stream(Purpose::Encryption as u64);
        rng.fill_bytes(other.as_mut());
        for (byte, other) in key.iter_mut().zip(other.iter()) {
            *byte ^= other;
        }
        ChaCha20Rng::from_seed(*key)
    }

    /// The bytes of the noise key that belongs to the secret key
    /// (`ckks::publish::NoiseKey`): the same every time, so that a ciphertext that is
    /// published again shows no new noise.
    #[must_use]
    pub fn noise_key(&self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.stream(Purpose::NoiseKey).fill_bytes(bytes.as_mut());
        bytes
    }

    fn stream(&self, purpose: Purpose) -> ChaCha20Rng {
        let mut rng = ChaCha20Rng::from_seed(*self.0);
        rng.set_stream(purpose as u64);
        rng
    }
}

impl fmt::Debug for KeySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySeed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rlwe::{SecretKey, encrypt, expand_c1};
    use crate::testing::N64 as P;

    fn first(mut rng: ChaCha20Rng) -> [u8; 32] {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn every_purpose_has_its_own_bytes() {
        let seeds = [KeySeed::new([1; 32]), KeySeed::new([2; 32])];
        let mut all = std::collections::BTreeSet::new();
        for seed in &seeds {
            all.insert(first(seed.key_rng()));
            all.insert(*seed.noise_key());
            all.insert(first(seed.encryption_rng(&[3; 32])));
            all.insert(first(seed.encryption_rng(&[4; 32])));
        }
        assert_eq!(all.len(), 8);
        let again = KeySeed::new([1; 32]);
        assert_eq!(first(again.key_rng()), first(seeds[0].key_rng()));
        assert_eq!(again.noise_key(), seeds[0].noise_key());
        assert_eq!(format!("{again:?}"), "KeySeed(..)");
    }

    /// Both streams are added, so that each hides the other.
    #[test]
    fn what_encrypts_is_the_sum_of_the_key_s_and_of_fresh_bytes() {
        let (seed, fresh) = (KeySeed::new([1; 32]), [3; 32]);
        let mut of_fresh = ChaCha20Rng::from_seed(fresh);
        of_fresh.set_stream(Purpose::Encryption as u64);
        let of_key = first(seed.stream(Purpose::Encryption));
        let sum: Vec<u8> = of_key
            .iter()
            .zip(first(of_fresh))
            .map(|(a, b)| a ^ b)
            .collect();
        let expected = ChaCha20Rng::from_seed(sum.try_into().unwrap());
        assert_eq!(first(seed.encryption_rng(&fresh)), first(expected));
    }

    /// A key that is derived again and encrypts again: with fresh bytes the difference
    /// of two ciphertexts is noise.
    #[test]
    fn a_key_derived_again_does_not_repeat_its_encryptions() {
        let words = SecretKey::<Vec<u32>>::words(&P);
        let encrypted = |message: i32, fresh: u8| {
            let seed = KeySeed::new([9; 32]);
            let key = SecretKey::generate(&P, vec![0; words], &mut seed.key_rng()).unwrap();
            let mut rng = seed.encryption_rng(&[fresh; 32]);
            let (mut m, mut c0, mut c1) = ([0; 64], [0; 64], [0; 64]);
            m[0] = message;
            let public = encrypt(&P, &key, &mut m, 0, &mut rng, &mut c0).unwrap();
            expand_c1(&P, &public, &mut c1).unwrap();
            (c0, c1, key.limb(&P, 0).unwrap().to_vec())
        };
        let (x, y) = (encrypted(1000, 1), encrypted(1625, 2));
        assert_eq!(x.2, y.2, "the same key");
        assert!(x.0 != y.0 && x.1 != y.1);
        // What repeats shows the difference: 625 in every place of the NTT domain.
        let repeated = encrypted(1625, 1);
        assert_eq!(x.1, repeated.1);
        let m = P.prime(0).unwrap().modulus();
        let shown =
            x.0.iter()
                .zip(&repeated.0)
                .all(|(x, y)| m.sub(*y, *x) == 625);
        assert!(shown);
    }
}
