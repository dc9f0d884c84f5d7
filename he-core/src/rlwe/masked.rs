//! A secret key under a mask that changes with every encryption, for a device whose power
//! or emissions somebody measures.
//!
//! Encryption multiplies a public polynomial by the key, and where the key is always the
//! same, what the processor takes over many encryptions tells it word by word. Here each
//! limb of the key's transform is a sum `s = share + mask` with a uniform mask, of which the
//! seed is kept; both products are subtracted. For every encryption a fresh mask replaces
//! the old one, the new one first, so that no word that is computed with is the key's: each
//! is uniform, whatever the key is.
//!
//! That holds for words one by one. Two together, `share` and `mask`, tell the key: an
//! analysis that combines samples (of the second order) is made harder by noise and not
//! excluded. Nor is what is measured while the key is made ([`MaskedKey::new`]), once per
//! key, nor what the generators, the error sampler and the message leak.
//!
//! Masks are uniform by rejection, in a time that tells how many words were rejected; those
//! that are kept do not depend on it.

use super::CompactKey;
use crate::arith::Modulus;
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::{
    kernel,
    sample::{self, Domain, SEED_LEN, Uniform},
};
use core::fmt;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

/// Words that hold the seed of a limb's mask, four bytes each.
const SEED_WORDS: usize = SEED_LEN >> 2;

/// Coefficients that are treated at a time.
const BLOCK: usize = 64;

/// A secret key under masks, for every data prime: NTT domain, Montgomery form. Erased
/// when dropped, never printed, not serialisable.
pub struct MaskedKey<S: AsRef<[u32]> + AsMut<[u32]>> {
    params: u32,
    /// Per limb the share, and the seed of the mask.
    limbs: S,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> MaskedKey<S> {
    /// Words of storage that a key of this set takes.
    #[must_use]
    pub const fn words(params: &Params) -> usize {
        params.data_limbs() * (params.n() + SEED_WORDS)
    }

    /// Puts `key`, which is no longer needed, under masks from `rng`. Its transform is
    /// computed openly, once.
    ///
    /// # Errors
    /// [`crate::Error::Length`] unless `storage` has [`Self::words`] words,
    /// [`crate::Error::Params`] for a key of another set.
    pub fn new(
        params: &Params,
        key: &CompactKey<impl AsRef<[u8]> + AsMut<[u8]>>,
        storage: S,
        rng: &mut impl CryptoRng,
    ) -> Result<Self> {
        check_len("masked key", storage.as_ref().len(), Self::words(params))?;
        // First, so that it is erased on every path.
        let mut masked = Self {
            params: params.fingerprint(),
            limbs: storage,
        };
        masked.replace(params, key, rng)?;
        Ok(masked)
    }

    /// Replaces the key by another one in the same storage.
    ///
    /// # Errors
    /// [`crate::Error::Params`] for a key of another set.
    pub fn replace(
        &mut self,
        params: &Params,
        key: &CompactKey<impl AsRef<[u8]> + AsMut<[u8]>>,
        rng: &mut impl CryptoRng,
    ) -> Result<()> {
        params.check_fingerprint(self.params)?;
        for i in 0..params.data_limbs() {
            let m = params.prime(i)?.modulus();
            let (share, kept) = self.limb(params, i)?;
            key.transform(params, i, share)?;
            let seed = draw(rng);
            let mut mask = uniform(&seed, i, m);
            let mut block = Zeroizing::new([0; BLOCK]);
            for share in share.chunks_mut(BLOCK) {
                let block = block.get_mut(..share.len()).unwrap_or_default();
                mask.fill(block);
                kernel::sub_scale(share, block, m.r(), m);
            }
            keep(&seed, kept);
        }
        Ok(())
    }

    /// The share of a limb, and the words of its mask's seed.
    fn limb(&mut self, params: &Params, i: usize) -> Result<(&mut [u32], &mut [u32])> {
        params.check_fingerprint(self.params)?;
        params.check_level("masked key", i)?;
        let each = params.n() + SEED_WORDS;
        let got = self.limbs.as_ref().len();
        let limb = self.limbs.as_mut().get_mut(i * each..(i + 1) * each);
        let halves = limb.and_then(|limb| limb.split_at_mut_checked(params.n()));
        halves.ok_or(Error::Length {
            what: "masked key",
            expected: Self::words(params),
            got,
        })
    }

    /// `x -= a s` for limb `i`, under a mask that is drawn before.
    pub(super) fn subtract_product(
        &mut self,
        params: &Params,
        i: usize,
        x: &mut [u32],
        a: &mut Uniform,
        rng: &mut impl CryptoRng,
    ) -> Result<()> {
        let m = params.prime(i)?.modulus();
        let (share, kept) = self.limb(params, i)?;
        let seed = draw(rng);
        let mut masks = [uniform(&seed, i, m), uniform(&kept_seed(kept), i, m)];
        let mut blocks = Zeroizing::new([[0; BLOCK]; 3]);
        for (x, share) in x.chunks_mut(BLOCK).zip(share.chunks_mut(BLOCK)) {
            let [factor, new, old] = &mut *blocks;
            let blocks = [factor, new, old].map(|block| block.get_mut(..x.len()));
            let [Some(factor), Some(new), Some(old)] = blocks else {
                break;
            };
            let [new_mask, old_mask] = &mut masks;
            a.fill(factor);
            new_mask.fill(new);
            old_mask.fill(old);
            // In this order: the other would leave the key for a moment.
            kernel::sub_scale(share, new, m.r(), m);
            kernel::add(share, old, m);
            kernel::mul_sub(x, factor, share, m);
            kernel::mul_sub(x, factor, new, m);
        }
        keep(&seed, kept);
        Ok(())
    }
}

/// The stream of a limb's mask.
fn uniform(seed: &[u8; SEED_LEN], i: usize, m: &Modulus) -> Uniform {
    Uniform::new(seed, sample::stream(Domain::KeyMask, 0, i), m)
}

fn draw(rng: &mut impl CryptoRng) -> Zeroizing<[u8; SEED_LEN]> {
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    rng.fill_bytes(seed.as_mut());
    seed
}

/// Keeps a seed in words.
fn keep(seed: &[u8; SEED_LEN], words: &mut [u32]) {
    let (bytes, _) = seed.as_chunks();
    for (word, &bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_le_bytes(bytes);
    }
}

fn kept_seed(words: &[u32]) -> Zeroizing<[u8; SEED_LEN]> {
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    let (bytes, _) = seed.as_chunks_mut();
    for (bytes, word) in bytes.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    seed
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> fmt::Debug for MaskedKey<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskedKey(..)")
    }
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> Drop for MaskedKey<S> {
    fn drop(&mut self) {
        self.limbs.as_mut().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Encryption;
    use super::*;
    use crate::params::N4096_DEPTH3;
    use crate::testing::N16;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn compact(params: &Params, seed: u8) -> CompactKey<Vec<u8>> {
        let storage = vec![0; CompactKey::<Vec<u8>>::bytes(params)];
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        CompactKey::generate(params, storage, &mut rng).unwrap()
    }

    fn masked(params: &Params, seed: u8, rng: &mut ChaCha20Rng) -> MaskedKey<Vec<u32>> {
        let storage = vec![7; MaskedKey::<Vec<u32>>::words(params)];
        MaskedKey::new(params, &compact(params, seed), storage, rng).unwrap()
    }

    /// Masks are drawn apart, so that the rest of the randomness is the same.
    #[test]
    fn ciphertexts_are_those_of_the_open_key() {
        for params in [&N16, &N4096_DEPTH3] {
            let n = params.n();
            let open = compact(params, 3);
            let mut masks = ChaCha20Rng::from_seed([1; 32]);
            let mut key = masked(params, 3, &mut masks);
            let [mut one, mut other] = [2, 2].map(|seed| ChaCha20Rng::from_seed([seed; 32]));
            let (mut scratch, mut limbs) = (vec![0; n], [vec![0; n], vec![0; n]]);
            let mut shares = vec![key.limbs.clone()];
            for _ in 0..3 {
                let mut messages =
                    [1, 1].map(|_| (0..n as i32).map(|k| k << 9).collect::<Vec<_>>());
                let [first, second] = &mut messages;
                let mut e = Encryption::start(params, first, &mut scratch, &mut one).unwrap();
                let mut f = Encryption::start_masked(params, second, &mut other).unwrap();
                assert_eq!(e.seed(), f.seed());
                for i in 0..params.data_limbs() {
                    e.limb(&open, i, &mut limbs[0]).unwrap();
                    f.masked_limb(&mut key, i, &mut limbs[1], &mut masks)
                        .unwrap();
                    assert_eq!(limbs[0], limbs[1], "limb {i}");
                }
                drop((e, f));
                assert!(messages[1].iter().all(|&x| x == 0));
                shares.push(key.limbs.clone());
            }
            // Nothing of the key stays: neither shares nor seeds.
            for (k, a) in shares.iter().enumerate() {
                for b in &shares[..k] {
                    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
                    // By chance one in q; of the small set's 96 words none.
                    assert!(same < 4, "{same}");
                }
            }
        }
    }

    #[test]
    fn shares_and_masks_are_the_key() {
        let params = &N4096_DEPTH3;
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let mut key = masked(params, 5, &mut rng);
        let open = compact(params, 5);
        for i in 0..params.data_limbs() {
            let m = params.prime(i).unwrap().modulus();
            let mut transform = vec![0; params.n()];
            open.transform(params, i, &mut transform).unwrap();
            let (share, kept) = key.limb(params, i).unwrap();
            let mut mask = vec![0; params.n()];
            uniform(&kept_seed(kept), i, m).fill(&mut mask);
            let sums = share.iter().zip(&mask).map(|(&a, &b)| m.add(a, b));
            assert!(sums.eq(transform.iter().copied()));
            // Uniform: the mean of residues, standard error q / sqrt(12 n).
            let q = f64::from(m.value());
            let mean = share.iter().map(|&x| f64::from(x)).sum::<f64>() / params.n() as f64;
            let error = q / (12.0 * params.n() as f64).sqrt();
            assert!((mean - q / 2.0).abs() < 5.0 * error, "{i}");
        }
    }

    #[test]
    fn bad_input_is_refused() {
        let mut rng = ChaCha20Rng::from_seed([6; 32]);
        let key = compact(&N16, 1);
        let words = MaskedKey::<Vec<u32>>::words(&N16);
        let short = MaskedKey::new(&N16, &key, vec![0; words - 1], &mut rng);
        assert!(matches!(short, Err(Error::Length { .. })));
        let foreign = MaskedKey::new(
            &N4096_DEPTH3,
            &key,
            vec![0; MaskedKey::<Vec<u32>>::words(&N4096_DEPTH3)],
            &mut rng,
        );
        assert!(matches!(foreign, Err(Error::Params { .. })));
        let mut key = masked(&N16, 1, &mut rng);
        assert_eq!(format!("{key:?}"), "MaskedKey(..)");
        let mut message = vec![1; N4096_DEPTH3.n()];
        let mut limb = vec![0; N4096_DEPTH3.n()];
        let mut e = Encryption::start_masked(&N4096_DEPTH3, &mut message, &mut rng).unwrap();
        let refused = e.masked_limb(&mut key, 0, &mut limb, &mut rng);
        assert!(matches!(refused, Err(Error::Params { .. })));
        let refused = e.masked_limb(&mut key, 0, &mut limb[1..], &mut rng);
        assert!(matches!(refused, Err(Error::Length { .. })));
        let refused = e.masked_limb(&mut key, 9, &mut limb, &mut rng);
        assert!(matches!(refused, Err(Error::Level { .. })));
        // It has no scratch for a key that is transformed.
        let open = compact(&N4096_DEPTH3, 1);
        assert!(matches!(
            e.limb(&open, 0, &mut limb),
            Err(Error::Length { .. })
        ));
    }
}
