//! Samplers: uniform residues from a public seed, centred binomial errors and
//! ternary secrets from the caller's generator.

use super::kernel::{self, Keystream};
use crate::arith::Modulus;
use rand_core::CryptoRng;

/// Bytes of the public seed of a uniform polynomial.
pub const SEED_LEN: usize = 32;

/// Parameter of the centred binomial error: 21 coins against 21, standard
/// deviation `sqrt(21 / 2) = 3.24`, bound 21.
pub const ERROR_COINS: u32 = 21;

/// Variance of the error distribution.
pub const ERROR_VARIANCE: f64 = ERROR_COINS as f64 / 2.0;

/// A stream of uniform residues modulo one prime, expanded from a public
/// seed: keystream words of ChaCha with 8 rounds, 64-bit counter from 0 and
/// the 64-bit nonce `stream`, each word `w` giving `floor(w q / 2^32)` unless
/// the low half of `w q` is below `2^32 mod q` (Lemire, arXiv 1805.10941,
/// algorithm 5): exactly uniform.
///
/// The seed and what comes out of it are public, so the running time may
/// depend on it, and 8 rounds are enough: nobody has to invert or hide
/// anything, the output only must not have structure (the best published
/// distinguishers of ChaCha reach 7 rounds, with an unknown key).
#[derive(Debug)]
pub struct Uniform {
    keystream: Keystream,
    words: [u32; Keystream::WORDS],
    /// Words that have been used.
    used: usize,
    q: u32,
    reject_below: u32,
}

impl Uniform {
    /// The stream of `seed` numbered `stream`. Every limb of every polynomial
    /// of every kind of object under one seed has its own number, see [`stream`].
    #[must_use]
    pub fn new(seed: &[u8; SEED_LEN], stream: u64, m: &Modulus) -> Self {
        Self {
            keystream: Keystream::new(seed, stream),
            words: [0; Keystream::WORDS],
            used: Keystream::WORDS,
            q: m.value(),
            // 2^32 mod q.
            reject_below: m.canon(m.r()),
        }
    }

    /// The next residue.
    #[inline]
    pub fn next_residue(&mut self) -> u32 {
        let mut x = [0];
        self.fill(&mut x);
        let [x] = x;
        x
    }

    /// Fills `out` with the next residues.
    pub fn fill(&mut self, mut out: &mut [u32]) {
        while !out.is_empty() {
            if self.used >= Keystream::WORDS {
                self.keystream.refill(&mut self.words);
                self.used = 0;
            }
            let words = self.words.get(self.used..).unwrap_or_default();
            // Whole vectors, where a kernel leaves out what is refused.
            let (used, made) = kernel::accepted(words, out, self.q, self.reject_below);
            self.used += used;
            out = out.get_mut(made..).unwrap_or_default();
            let words = words.get(used..).unwrap_or_default();
            // As many as the kernel takes in one go, then one by one up to the
            // first that is refused.
            let mut taken = kernel::residues(words, out, self.q, self.reject_below);
            let tail = out.iter_mut().zip(words).skip(taken);
            for (x, &word) in tail {
                let wide = u64::from(word) * u64::from(self.q);
                if (wide as u32) < self.reject_below {
                    break;
                }
                *x = (wide >> 32) as u32;
                taken += 1;
            }
            // Where it broke off, one word more is used up without a residue.
            let room = words.len().min(out.len());
            self.used += (taken + 1).min(room);
            out = out.get_mut(taken..).unwrap_or_default();
        }
    }
}

/// What a uniform polynomial belongs to. Objects of different domains share no
/// polynomial, even where somebody gives them one seed: a public key and a
/// ciphertext with the same `a` differ by the message and small errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A ciphertext, of messages and of encrypted weights alike.
    Ciphertext,
    /// A public key.
    PublicKey,
    /// The switching key of a Galois element, or of 0 for relinearisation.
    SwitchingKey(u32),
    /// The first half of a mask of a result, which is no object of the wire format either;
    /// the second is that of a ciphertext.
    ResultMask,
    /// A mask of a secret key, which is no object of the wire format: its seed is secret.
    KeyMask,
}

/// Number of the stream of limb `limb` of digit `digit`, both below 256, of an
/// object: ciphertexts and public keys have one digit, switching keys one per
/// gadget digit. The highest byte is the kind of the object, in the wire format's
/// numbers, and bits 16 .. 47 the Galois element.
#[must_use]
pub const fn stream(domain: Domain, digit: usize, limb: usize) -> u64 {
    let (kind, element) = match domain {
        Domain::Ciphertext => (2, 0),
        Domain::PublicKey => (4, 0),
        Domain::SwitchingKey(element) => (5, element),
        Domain::ResultMask => (254, 0),
        Domain::KeyMask => (255, 0),
    };
    (kind << 56) | ((element as u64) << 16) | ((digit as u64) << 8) | limb as u64
}

/// One centred binomial error, `-21 ..= 21`, in constant time.
pub fn error(rng: &mut impl CryptoRng) -> i32 {
    const MASK: u32 = (1 << ERROR_COINS) - 1;
    let w = rng.next_u64();
    // Heads of the first coins and tails of the second ones are counted
    // together: in pairs of bits, then in fours, where both sums find room.
    let pairs = |x: u32| x - (x >> 1 & 0x5555_5555);
    let fours = |x: u32| (x & 0x3333_3333) + (x >> 2 & 0x3333_3333);
    let heads = fours(pairs(w as u32 & MASK));
    let tails = fours(pairs(!(w >> ERROR_COINS) as u32 & MASK));
    let sum = heads + tails;
    let bytes = (sum & 0x0f0f_0f0f) + (sum >> 4 & 0x0f0f_0f0f);
    (bytes.wrapping_mul(0x0101_0101) >> 24) as i32 - ERROR_COINS as i32
}

/// One uniform element of {-1, 0, 1}, in constant time: `floor(3 w / 2^64)`
/// of a 64-bit word, at a statistical distance below 2^-62 from uniform.
pub fn ternary(rng: &mut impl CryptoRng) -> i32 {
    let w = rng.next_u64();
    ((u128::from(w) * 3) >> 64) as i32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    #[test]
    fn uniform_residues_match_the_specification() {
        // An implementation of the specification by bytes.
        let m = Modulus::new(188_417).unwrap();
        let number = stream(Domain::SwitchingKey(0x0804), 2, 3);
        assert_eq!(number, 0x0500_0000_0804_0203);
        let mut u = Uniform::new(&[7; 32], number, &m);
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        rng.set_stream(number);
        let mut checked = 0;
        let mut sum = 0.0;
        while checked < 10_000 {
            let mut w = [0; 4];
            rng.fill_bytes(&mut w);
            let wide = u128::from(u32::from_le_bytes(w)) * 188_417;
            if wide % (1 << 32) >= (1 << 32) % 188_417 {
                let x = u.next_residue();
                assert_eq!(u128::from(x), wide >> 32);
                sum += f64::from(x);
                checked += 1;
            }
        }
        // Mean of a uniform residue, standard error q / sqrt(12 n).
        let mean = sum / 10_000.0;
        assert!((mean - 94_208.0).abs() < 5.0 * 188_417.0 / (12.0f64 * 10_000.0).sqrt());
    }

    #[test]
    fn no_two_limbs_have_one_stream() {
        let kinds = [0, 1, 5, 255, 0x7fff, u32::MAX].map(Domain::SwitchingKey);
        let domains = kinds
            .into_iter()
            .chain([Domain::Ciphertext, Domain::PublicKey])
            .chain([Domain::ResultMask, Domain::KeyMask]);
        let mut numbers = std::collections::BTreeSet::new();
        let mut count = 0;
        for domain in domains {
            for digit in [0, 1, 16, 255] {
                for limb in [0, 1, 16, 255] {
                    numbers.insert(stream(domain, digit, limb));
                    count += 1;
                }
            }
        }
        assert_eq!(numbers.len(), count);
    }

    /// A generator of given words.
    struct Words<I>(I);
    impl<I: Iterator<Item = u64>> rand_core::TryRng for Words<I> {
        type Error = core::convert::Infallible;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Ok(self.0.next().unwrap() as u32)
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Ok(self.0.next().unwrap())
        }
        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
            unreachable!("errors are made of words")
        }
    }
    impl<I: Iterator<Item = u64>> rand_core::TryCryptoRng for Words<I> {}

    /// Residues as the definition has them, over moduli that refuse words rarely
    /// and often, in pieces of all lengths.
    #[test]
    fn uniform_residues_are_as_defined() {
        for q in [12_289, 134_176_769, 185_909_249, 1_073_643_521, 536_887_297] {
            let m = Modulus::new(q).unwrap();
            let mut words = ChaCha8Rng::from_seed([7; 32]);
            words.set_stream(3);
            let mut expected = || loop {
                let wide = u64::from(words.next_u32()) * u64::from(q);
                if u64::from(wide as u32) >= (1 << 32) % u64::from(q) {
                    return (wide >> 32) as u32;
                }
            };
            let mut uniform = Uniform::new(&[7; 32], 3, &m);
            for length in [1, 7, 64, 8, 100, 1000, 63, 4096] {
                let mut out = vec![0; length];
                uniform.fill(&mut out);
                for x in out {
                    assert_eq!(x, expected(), "{q}");
                }
            }
        }
    }

    #[test]
    fn an_error_is_the_difference_of_its_coins() {
        let all = (1u64 << (2 * ERROR_COINS)) - 1;
        let mut words = vec![0, u64::MAX, all, !all, (1 << ERROR_COINS) - 1];
        words.extend((0..64).map(|i| 1 << i));
        let mut rng = ChaCha8Rng::from_seed([3; 32]);
        words.extend((0..10_000).map(|_| rng.next_u64()));
        let mut given = Words(words.iter().copied());
        for &w in &words {
            let coins = |from: u32| (from..from + ERROR_COINS).map(|i| (w >> i & 1) as i32);
            let expected = coins(0).sum::<i32>() - coins(ERROR_COINS).sum::<i32>();
            assert_eq!(error(&mut given), expected, "{w:x}");
        }
    }

    #[test]
    fn errors_and_secrets_have_their_moments() {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let n = 100_000;
        let (mut sum, mut square, mut counts) = (0.0, 0.0, [0u32; 3]);
        for _ in 0..n {
            let e = error(&mut rng);
            assert!(e.abs() <= 21);
            sum += f64::from(e);
            square += f64::from(e * e);
            counts[(ternary(&mut rng) + 1) as usize] += 1;
        }
        let n = f64::from(n);
        assert!((sum / n).abs() < 5.0 * (ERROR_VARIANCE / n).sqrt());
        assert!((square / n - ERROR_VARIANCE).abs() < 0.3);
        for c in counts {
            assert!((f64::from(c) / n - 1.0 / 3.0).abs() < 0.01);
        }
    }
}
