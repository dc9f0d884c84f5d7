//! Secret-key encryption in three limbs of memory, for a device that does nothing
//! else.
//!
//! [`SecretKey`](super::SecretKey) holds the NTT form of the key for every prime:
//! 80 KiB at N = 4096 with five primes. [`CompactKey`] holds two bits per coefficient
//! and makes the NTT form anew for every limb, and the ciphertext exists one limb at a
//! time. With equal randomness the ciphertexts are those of [`super::encrypt`], bit
//! by bit.

use super::{Coefficient, MaskedKey, add_errors, encrypt_limb, message_limb};
use crate::error::{Result, check_len};
use crate::params::Params;
use crate::ring::{
    ntt,
    sample::{self, SEED_LEN},
};
use crate::secret::Erased;
use core::fmt;
use rand_core::CryptoRng;
use zeroize::Zeroize;

/// Coefficients in one byte of a packed key.
const IN_BYTE: usize = 4;

/// A uniform ternary secret, two bits per coefficient. Erased when dropped,
/// never printed, not serialisable. The same generator gives the same key as
/// [`SecretKey::generate`](super::SecretKey::generate).
pub struct CompactKey<S: AsRef<[u8]> + AsMut<[u8]>> {
    params: u32,
    /// Coefficient `4 i + j` in bits `2 j` and `2 j + 1` of byte `i`, two's
    /// complement.
    packed: S,
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> CompactKey<S> {
    /// Bytes of storage that a key of this set takes.
    #[must_use]
    pub const fn bytes(params: &Params) -> usize {
        params.n() >> 2
    }

    /// Draws a key into `storage`.
    ///
    /// # Errors
    /// [`crate::Error::Length`] unless `storage` has [`Self::bytes`] bytes.
    pub fn generate(params: &Params, storage: S, rng: &mut impl CryptoRng) -> Result<Self> {
        check_len("secret key", storage.as_ref().len(), Self::bytes(params))?;
        let mut key = Self {
            params: params.fingerprint(),
            packed: storage,
        };
        key.redraw(rng);
        Ok(key)
    }

    /// Replaces the key by a new one in the same storage.
    pub fn redraw(&mut self, rng: &mut impl CryptoRng) {
        for byte in self.packed.as_mut() {
            *byte = 0;
            for place in 0..IN_BYTE {
                let bits = sample::ternary(rng) as u8 & 3;
                *byte |= bits << (2 * place);
            }
        }
    }

    /// Writes the key's NTT form for prime `i`, in Montgomery form. The caller
    /// erases it.
    pub(super) fn transform(&self, params: &Params, i: usize, limb: &mut [u32]) -> Result<()> {
        params.check_fingerprint(self.params)?;
        check_len("limb", limb.len(), params.n())?;
        let prime = params.prime(i)?;
        let m = prime.modulus();
        let (fours, _) = limb.as_chunks_mut::<IN_BYTE>();
        for (four, &byte) in fours.iter_mut().zip(self.packed.as_ref()) {
            let byte = i32::from(byte);
            // The two bits to the top and down again with their sign, times
            // R mod q, which is at most q / 2 + 1 in magnitude.
            let [a, b, c, d] = [30, 28, 26, 24].map(|up| (byte << up) >> 30);
            *four = [a, b, c, d].map(|s| m.canon(s.wrapping_mul(m.r())));
        }
        ntt::forward(limb, prime)
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> fmt::Debug for CompactKey<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompactKey(..)")
    }
}

impl<S: AsRef<[u8]> + AsMut<[u8]>> Drop for CompactKey<S> {
    fn drop(&mut self) {
        self.packed.as_mut().zeroize();
    }
}

/// One encryption in progress: the message with its errors, and the seed of
/// the uniform half. Both are drawn here, so that a seed serves one message. The
/// message and the scratch are erased when this is dropped.
pub struct Encryption<'a, C: Coefficient = i32> {
    params: &'static Params,
    message: Erased<'a, C>,
    scratch: Erased<'a, u32>,
    seed: [u8; SEED_LEN],
}

impl<'a, C: Coefficient> Encryption<'a, C> {
    /// Draws the seed, then an error for every coefficient, which is added to
    /// `message` (N integers). `scratch` has N words.
    ///
    /// # Errors
    /// [`crate::Error::Length`]; [`crate::Error::Range`] as for [`super::encrypt`].
    pub fn start(
        params: &'static Params,
        message: &'a mut [C],
        scratch: &'a mut [u32],
        rng: &mut impl CryptoRng,
    ) -> Result<Self> {
        // First, so that they are erased on every path.
        let (message, scratch) = (Erased::new(message), Erased::new(scratch));
        check_len("encryption scratch", scratch.0.len(), params.n())?;
        Self::draw(params, message, scratch, rng)
    }

    /// The same for a [`MaskedKey`], which takes no scratch: for [`Self::masked_limb`]
    /// alone.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_masked(
        params: &'static Params,
        message: &'a mut [C],
        rng: &mut impl CryptoRng,
    ) -> Result<Self> {
        Self::draw(params, Erased::new(message), Erased::new(&mut []), rng)
    }

    fn draw(
        params: &'static Params,
        message: Erased<'a, C>,
        scratch: Erased<'a, u32>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self> {
        check_len("message", message.0.len(), params.n())?;
        let mut seed = [0; SEED_LEN];
        rng.fill_bytes(&mut seed);
        add_errors(message.0, rng)?;
        Ok(Self {
            params,
            message,
            scratch,
            seed,
        })
    }

    /// The public seed of the ciphertext's other half.
    #[must_use]
    pub const fn seed(&self) -> &[u8; SEED_LEN] {
        &self.seed
    }

    /// Writes limb `i` of `c0`, NTT domain, canonical: N words.
    ///
    /// # Errors
    /// [`crate::Error::Level`] beyond the data primes, [`crate::Error::Length`], or
    /// [`crate::Error::Params`] for a key of another set.
    pub fn limb(
        &mut self,
        key: &CompactKey<impl AsRef<[u8]> + AsMut<[u8]>>,
        i: usize,
        c0: &mut [u32],
    ) -> Result<()> {
        self.params.check_level("encryption", i)?;
        check_len("limb", c0.len(), self.params.n())?;
        key.transform(self.params, i, self.scratch.0)?;
        encrypt_limb(
            self.params,
            self.scratch.0,
            self.message.0,
            i,
            &self.seed,
            c0,
        )
    }

    /// As [`Self::limb`], under a mask of the key that is drawn from `rng` for this limb.
    /// The words are the same.
    ///
    /// # Errors
    /// As [`Self::limb`].
    pub fn masked_limb(
        &mut self,
        key: &mut MaskedKey<impl AsRef<[u32]> + AsMut<[u32]>>,
        i: usize,
        c0: &mut [u32],
        rng: &mut impl CryptoRng,
    ) -> Result<()> {
        self.params.check_level("encryption", i)?;
        check_len("limb", c0.len(), self.params.n())?;
        let mut a = message_limb(self.params, self.message.0, i, &self.seed, c0)?;
        key.subtract_product(self.params, i, c0, &mut a, rng)
    }
}

impl<C: Coefficient> fmt::Debug for Encryption<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encryption(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SecretKey, encrypt_with_seed};
    use super::*;
    use crate::Error;
    use crate::params::N4096_DEPTH3;
    use crate::testing::N16;
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    fn both_encrypt(params: &'static Params) {
        let n = params.n();
        let message: Vec<i32> = (0..n as i32)
            .map(|k| k.wrapping_mul(0x9E37_79B9_u32 as i32) >> 2)
            .collect();
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let words = SecretKey::<Vec<u32>>::words(params);
        let key = SecretKey::generate(params, vec![0; words], &mut rng).unwrap();
        let mut seed = [0; SEED_LEN];
        rng.fill_bytes(&mut seed);
        let limbs = params.data_limbs();
        let mut expected = vec![0; limbs * n];
        encrypt_with_seed(
            params,
            &key,
            &mut message.clone(),
            limbs - 1,
            &seed,
            &mut rng,
            &mut expected,
        )
        .unwrap();

        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let bytes = CompactKey::<Vec<u8>>::bytes(params);
        let key = CompactKey::generate(params, vec![0xAA; bytes], &mut rng).unwrap();
        let (mut noisy, mut scratch, mut limb) = (message, vec![0; n], vec![0; n]);
        let mut encryption = Encryption::start(params, &mut noisy, &mut scratch, &mut rng).unwrap();
        assert_eq!(encryption.seed(), &seed);
        for (i, expected) in expected.chunks_exact(n).enumerate() {
            encryption.limb(&key, i, &mut limb).unwrap();
            assert_eq!(limb, expected, "limb {i}");
        }
        assert!(matches!(
            encryption.limb(&key, limbs, &mut limb),
            Err(Error::Level { .. })
        ));
        assert!(encryption.limb(&key, 0, &mut limb[1..]).is_err());
        drop(encryption);
        assert!(noisy.iter().all(|&x| x == 0) && scratch.iter().all(|&x| x == 0));
    }

    #[test]
    fn ciphertexts_are_those_of_the_resident_key() {
        both_encrypt(&N16);
        both_encrypt(&N4096_DEPTH3);
    }

    #[test]
    fn bad_input_is_refused_and_erased() {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        assert!(CompactKey::generate(&N16, [0; 3], &mut rng).is_err());
        let foreign = CompactKey::generate(&N4096_DEPTH3, vec![0; 1024], &mut rng).unwrap();
        assert_eq!(format!("{foreign:?}"), "CompactKey(..)");
        let (mut message, mut scratch, mut limb) = ([1; 16], [1; 16], [0; 16]);
        let mut encryption = Encryption::start(&N16, &mut message, &mut scratch, &mut rng).unwrap();
        assert!(matches!(
            encryption.limb(&foreign, 0, &mut limb),
            Err(Error::Params { .. })
        ));
        drop(encryption);
        let (mut message, mut scratch) = ([1; 15], [1; 16]);
        assert!(Encryption::start(&N16, &mut message, &mut scratch, &mut rng).is_err());
        assert_eq!((message, scratch), ([0; 15], [0; 16]));
        let mut message = [i32::MAX; 16];
        // An error of the next sixteen is positive.
        let refused = Encryption::start(&N16, &mut message, &mut scratch, &mut rng);
        assert!(matches!(refused, Err(Error::Range { .. })));
        drop(refused);
        assert_eq!(message, [0; 16]);
        let mut message = [(1i64 << 62) + 22; 16];
        let refused = Encryption::start(&N16, &mut message, &mut scratch, &mut rng);
        assert!(matches!(refused, Err(Error::Range { .. })));
        drop(refused);
        assert_eq!(message, [0; 16]);
    }

    /// Of the same integers, so that words of either size give the same bits.
    #[test]
    fn wide_messages_give_the_ciphertexts_of_narrow_ones() {
        let mut rng = ChaCha20Rng::from_seed([6; 32]);
        let key = CompactKey::generate(&N16, [0; 4], &mut rng).unwrap();
        let mut narrow: [i32; 16] = core::array::from_fn(|k| (k as i32 - 7) << 27);
        let mut wide = narrow.map(i64::from);
        let (mut scratch, mut limbs) = ([0; 16], [[0; 16]; 2]);
        let [mut one, mut other] = [1, 1].map(|seed| ChaCha20Rng::from_seed([seed; 32]));
        for i in 0..4 {
            let mut e = Encryption::start(&N16, &mut narrow, &mut scratch, &mut one).unwrap();
            e.limb(&key, i, &mut limbs[0]).unwrap();
            drop(e);
            let mut e = Encryption::start(&N16, &mut wide, &mut scratch, &mut other).unwrap();
            e.limb(&key, i, &mut limbs[1]).unwrap();
            drop(e);
            assert_eq!(limbs[0], limbs[1]);
        }
    }

    #[test]
    fn a_redrawn_key_is_another_and_both_are_ternary() {
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        let mut key = CompactKey::generate(&N4096_DEPTH3, vec![0; 1024], &mut rng).unwrap();
        let first = key.packed.clone();
        key.redraw(&mut rng);
        assert_ne!(first, key.packed);
        let mut counts = [0u32; 4];
        for byte in first.iter().chain(&key.packed) {
            for place in 0..4 {
                counts[usize::from(byte >> (2 * place) & 3)] += 1;
            }
        }
        // 8192 coefficients; five standard deviations of 42.7 each.
        assert_eq!(counts[2], 0);
        for count in [counts[0], counts[1], counts[3]] {
            assert!(count.abs_diff(2731) < 214, "{counts:?}");
        }
    }
}
