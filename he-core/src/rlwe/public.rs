//! Public keys, and encryption under them.
//!
//! A public key is an encryption of zero over all primes, the special ones
//! included. A ciphertext is formed over them too and divided by `P`, as in
//! key switching: of the error `e u + e0 + e1 s` of public-key encryption
//! (Lyubashevsky, Peikert, Regev, Eurocrypt 2010) only the rounding of that
//! division is left, and it costs the special limbs more and not one transform
//! more for the others.
//!
//! Secret-key encryption is four to five times more exact at N = 4096, takes a third of the
//! transforms and half the bytes: who holds the key uses that.

use super::gadget::factors::special_product;
use super::gadget::grouped::{self, Form};
use super::keys::SecretKey;
use super::{Coefficient, subtract_product};
use crate::arith::Modulus;
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::{
    kernel, ntt,
    sample::{self, Domain, SEED_LEN, Uniform},
};
use crate::secret::Erased;
use core::fmt;
use rand_core::CryptoRng;

/// A public key `(b, a)` with `b = e - a s`, NTT domain, one limb of `b` for
/// every prime of the set (the special ones last); `a` is expanded from a seed
/// as in a ciphertext.
#[derive(Debug)]
pub struct PublicKey<S> {
    params: u32,
    n: usize,
    seed: [u8; SEED_LEN],
    b: S,
}

impl<S: AsRef<[u32]> + AsMut<[u32]>> PublicKey<S> {
    /// Words of storage that a key of this set takes.
    #[must_use]
    pub const fn words(params: &Params) -> usize {
        params.limbs() * params.n()
    }

    /// The public key of a secret key. `errors` is scratch for N integers; it
    /// is erased before returning.
    ///
    /// **A seed must never be used twice under one key.**
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Params`].
    pub fn generate(
        params: &Params,
        key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
        seed: &[u8; SEED_LEN],
        rng: &mut impl CryptoRng,
        errors: &mut [i32],
        mut storage: S,
    ) -> Result<Self> {
        let n = params.n();
        check_len("error scratch", errors.len(), n)?;
        check_len("public key", storage.as_ref().len(), Self::words(params))?;
        // Before anything is written that a mask should cover.
        key.limb(params, 0)?;
        let errors = Erased::new(errors);
        for e in errors.0.iter_mut() {
            *e = sample::error(rng);
        }
        for (j, b) in storage.as_mut().chunks_exact_mut(n).enumerate() {
            let prime = params.prime(j)?;
            let m = prime.modulus();
            kernel::lift_i32(errors.0, b, m.r(), m);
            ntt::forward(b, prime)?;
            let mut a = Uniform::new(seed, sample::stream(Domain::PublicKey, 0, j), m);
            subtract_product(b, &mut a, key.limb(params, j)?, m);
        }
        Ok(Self {
            params: params.fingerprint(),
            n,
            seed: *seed,
            b: storage,
        })
    }

    /// A key from the half and the seed that its owner published.
    ///
    /// # Errors
    /// [`Error::Length`] unless `b` has [`Self::words`] words,
    /// [`Error::Residue`].
    pub fn from_parts(params: &Params, seed: [u8; SEED_LEN], b: S) -> Result<Self> {
        let n = params.n();
        check_len("public key", b.as_ref().len(), Self::words(params))?;
        for (limb, words) in b.as_ref().chunks_exact(n).enumerate() {
            let q = params.prime(limb)?.modulus().value();
            if let Some(index) = words.iter().position(|&x| x >= q) {
                return Err(Error::Residue { limb, index });
            }
        }
        Ok(Self {
            params: params.fingerprint(),
            n,
            seed,
            b,
        })
    }

    /// The seed of `a`.
    #[must_use]
    pub const fn seed(&self) -> &[u8; SEED_LEN] {
        &self.seed
    }

    /// The half `b`.
    #[must_use]
    pub fn b(&self) -> &[u32] {
        self.b.as_ref()
    }

    pub(crate) fn check_params(&self, params: &Params) -> Result<()> {
        params.check_fingerprint(self.params)
    }

    /// `(b_j, a_j)` times `u`, which is in the NTT domain and Montgomery form.
    fn multiply(&self, j: usize, u: &[u32], out: [&mut [u32]; 2], m: &Modulus) {
        let [x0, x1] = out;
        let b = self.b.as_ref().chunks_exact(self.n).nth(j);
        x0.copy_from_slice(b.unwrap_or_default());
        Uniform::new(&self.seed, sample::stream(Domain::PublicKey, 0, j), m).fill(x1);
        for x in [x0, x1] {
            kernel::mul(x, u, m);
        }
    }
}

/// Coefficients of a message that are carried over at a time.
const BLOCK: usize = 64;

/// The memory of [`encrypt_public`]: `3 N` integers and [`Self::words`]. Erased
/// when it returns, whether it has encrypted or refused; never printed.
pub struct PublicScratch<'a> {
    /// The ephemeral secret and two errors.
    pub integers: &'a mut [i32],
    /// The ephemeral secret's transform and the two halves modulo the special
    /// primes.
    pub limbs: &'a mut [u32],
}

impl PublicScratch<'_> {
    /// Words of `limbs`: `3 N` with one special prime.
    #[must_use]
    pub const fn words(params: &Params) -> usize {
        (1 + 2 * params.special_limbs()) * params.n()
    }
}

impl fmt::Debug for PublicScratch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicScratch(..)")
    }
}

/// Encrypts integers under a public key: writes two halves of `level + 1`
/// limbs, NTT domain, into `halves`; they decrypt to the message plus an error
/// whose coefficients have the variance `(1 + 2 N / 3) / 12` of a rounding, once
/// for each special prime.
///
/// # Errors
/// [`Error::Level`], [`Error::Length`] or [`Error::Params`]; [`Error::Range`] for
/// a coefficient beyond `2^62` in magnitude.
pub fn encrypt_public<C: Coefficient>(
    params: &Params,
    key: &PublicKey<impl AsRef<[u32]> + AsMut<[u32]>>,
    message: &[C],
    level: usize,
    rng: &mut impl CryptoRng,
    scratch: PublicScratch<'_>,
    halves: [&mut [u32]; 2],
) -> Result<()> {
    // First, so that they are erased on every path.
    let (integers, limbs) = (Erased::new(scratch.integers), Erased::new(scratch.limbs));
    params.check_level("encryption", level)?;
    params.check_fingerprint(key.params)?;
    let n = params.n();
    check_len("message", message.len(), n)?;
    C::check(message)?;
    check_len("encryption integers", integers.0.len(), 3 * n)?;
    let words = PublicScratch::words(params);
    check_len("encryption limbs", limbs.0.len(), words)?;
    for half in &halves {
        check_len("ciphertext half", half.len(), (level + 1) * n)?;
    }
    let (secret, errors) = integers.0.split_at_mut(n);
    let (error0, error1) = errors.split_at_mut(n);
    for u in secret.iter_mut() {
        *u = sample::ternary(rng);
    }
    for e in error0.iter_mut().chain(error1.iter_mut()) {
        *e = sample::error(rng);
    }
    let (u, rest) = limbs.0.split_at_mut(n);
    let (k0, k1) = rest.split_at_mut(params.special_limbs() * n);
    let ephemeral = |u: &mut [u32], j: usize| -> Result<&'static Modulus> {
        let prime = params.prime(j)?;
        let m = prime.modulus();
        kernel::lift_i32(secret, u, m.r2(), m);
        ntt::forward(u, prime)?;
        Ok(m)
    };

    let special = params.special()..params.limbs();
    let pairs = k0.chunks_exact_mut(n).zip(k1.chunks_exact_mut(n));
    for (j, (k0, k1)) in special.clone().zip(pairs) {
        let p = ephemeral(u, j)?;
        key.multiply(j, u, [&mut *k0, &mut *k1], p);
        for (k, e) in [(k0, &*error0), (k1, &*error1)] {
            ntt::inverse(k, params.prime(j)?)?;
            for (k, &e) in k.iter_mut().zip(e) {
                *k = p.add(*k, p.canon(e));
            }
            if special.len() > 1 {
                grouped::prepare_coefficients(params, special.clone(), j, k)?;
            }
        }
    }

    let [c0, c1] = halves;
    for (j, (c0, c1)) in c0
        .chunks_exact_mut(n)
        .zip(c1.chunks_exact_mut(n))
        .enumerate()
    {
        let m = ephemeral(u, j)?;
        key.multiply(j, u, [&mut *c0, &mut *c1], m);
        // (x - [k]_P) / P with x = c + e + P m; what is integer there joins k
        // before its transform.
        let product = special_product(params, m)?;
        let (p_mont, inverse) = (m.to_mont(product), m.to_mont(m.inv(product)));
        for (c, k, e, message) in [(c0, &*k0, &*error0, message), (c1, &*k1, &*error1, &[])] {
            grouped::carry(params, special.clone(), k, j, Form::Plain, u)?;
            // Of the second half there is no message.
            let mut plain = [0; BLOCK];
            let plain = Erased::new(&mut plain);
            let mut message = message.chunks(BLOCK);
            for (u, e) in u.chunks_mut(BLOCK).zip(e.chunks(BLOCK)) {
                if let Some(message) = message.next()
                    && let Some(plain) = plain.0.get_mut(..message.len())
                {
                    C::lift(message, plain, p_mont, m);
                }
                for ((u, &e), &plain) in u.iter_mut().zip(e).zip(&*plain.0) {
                    // The error is far below q: between -q and q after both.
                    let x = m.sub(m.canon(*u as i32), m.canon(e));
                    *u = x.wrapping_sub(m.canon(plain as i32));
                }
            }
            ntt::forward(u, params.prime(j)?)?;
            kernel::sub_scale(c, u, inverse, m);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::keys::{switching_key, switching_key_words};
    use super::super::{KeyLimb, SwitchTarget};
    use super::*;
    use crate::params::Security;
    use crate::testing::N16 as P;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    const N: usize = 16;

    /// `x y` modulo `X^16 + 1` and `q`, by the definition.
    fn schoolbook(x: &[i64], y: &[i64], q: i64) -> Vec<i64> {
        let mut out = vec![0; N];
        for (i, x) in x.iter().enumerate() {
            for (j, y) in y.iter().enumerate() {
                let sign = if i + j < N { 1 } else { -1 };
                let at = (i + j) % N;
                out[at] = (out[at] + sign * (x.rem_euclid(q) * y.rem_euclid(q) % q)).rem_euclid(q);
            }
        }
        out
    }

    fn coefficients(params: &Params, limb: &[u32], j: usize) -> Vec<i64> {
        let mut limb = limb.to_vec();
        ntt::inverse(&mut limb, params.prime(j).unwrap()).unwrap();
        limb.into_iter().map(i64::from).collect()
    }

    crate::parameter_set! {
        /// Its special prime is hardly larger than an error, so that errors move the
        /// rounding of the division by it often.
        static SMALL_SPECIAL = {
            n: 16, security: Security::Insecure,
            data: [134_217_409, 12_289], special: 97
        };
    }

    #[test]
    fn a_ciphertext_holds_its_ephemeral_secret_and_both_errors() {
        holds_every_number(&P, 5);
        let moved: usize = (0..20)
            .map(|seed| holds_every_number(&SMALL_SPECIAL, seed))
            .sum();
        // Of 20 * 32 about a thirtieth: without errors the result would be another.
        assert!(moved > 5, "{moved}");
    }

    /// Compares every number of a ciphertext with its definition; the coefficients,
    /// in one limb of both halves, that would be others without the errors.
    fn holds_every_number(params: &'static Params, seed: u8) -> usize {
        // The error is smaller than the rounding of the division by P, so that
        // no decryption would miss it: every number is compared instead.
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let words = SecretKey::<Vec<u32>>::words(params);
        let key = SecretKey::generate(params, vec![0; words], &mut rng).unwrap();
        let (seed, mut errors) = ([6; SEED_LEN], [0; N]);
        let public =
            PublicKey::generate(params, &key, &seed, &mut rng, &mut errors, vec![0; words])
                .unwrap();
        let mut moved = 0;
        let message: Vec<i32> = (0..16).map(|i| (i - 8) * 130_000_001).collect();
        let level = params.max_level();
        let (mut c0, mut c1) = (vec![0; (level + 1) * N], vec![0; (level + 1) * N]);
        let (mut integers, mut limbs) = ([0; 3 * N], [0; 3 * N]);
        let scratch = PublicScratch {
            integers: &mut integers,
            limbs: &mut limbs,
        };
        let [mut rng, mut same] = [(); 2].map(|()| ChaCha20Rng::from_seed([8; 32]));
        let halves = [&mut c0[..], &mut c1[..]];
        encrypt_public(params, &public, &message, level, &mut rng, scratch, halves).unwrap();

        let u: Vec<i64> = (0..N).map(|_| sample::ternary(&mut same).into()).collect();
        let mut error =
            || -> Vec<i64> { (0..N).map(|_| sample::error(&mut same).into()).collect() };
        let (e0, e1) = (error(), error());
        let p = i64::from(params.prime(params.special()).unwrap().modulus().value());
        let half = |j: usize, second: bool| -> Vec<i64> {
            if second {
                let mut a = vec![0; N];
                let m = params.prime(j).unwrap().modulus();
                Uniform::new(&seed, sample::stream(Domain::PublicKey, 0, j), m).fill(&mut a);
                coefficients(params, &a, j)
            } else {
                coefficients(params, &public.b()[j * N..(j + 1) * N], j)
            }
        };
        for (second, c, e) in [(false, &c0, &e0), (true, &c1, &e1)] {
            let centred = |x: i64| {
                let k = x.rem_euclid(p);
                if k > p / 2 { k - p } else { k }
            };
            let special = schoolbook(&half(params.special(), second), &u, p);
            let with_errors = special.iter().zip(e);
            moved += with_errors
                .filter(|&(x, e)| centred(x + e) != centred(*x) + e)
                .count();
            let both = special.iter().zip(e);
            let remainder: Vec<i64> = both.map(|(x, e)| centred(x + e)).collect();
            for (j, limb) in c.chunks_exact(N).enumerate() {
                let q = i64::from(params.prime(j).unwrap().modulus().value());
                let product = schoolbook(&half(j, second), &u, q);
                for (i, c) in coefficients(params, limb, j).into_iter().enumerate() {
                    let m = if second { 0 } else { i64::from(message[i]) };
                    let expected = product[i] + e[i] - remainder[i] + p * m;
                    assert_eq!((c * p).rem_euclid(q), expected.rem_euclid(q), "{j} {i}");
                }
            }
        }
        moved
    }

    /// A seed that serves objects of several kinds gives each its own uniform half:
    /// `b + a s` is small with the half of its own domain and no other.
    #[test]
    fn one_seed_gives_every_kind_of_object_its_own_uniform_half() {
        let mut rng = ChaCha20Rng::from_seed([15; 32]);
        let words = SecretKey::<Vec<u32>>::words(&P);
        let key = SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        let (seed, mut errors) = ([6; SEED_LEN], [0; N]);
        let (limb, level) = (1, 2);
        let nth = |b: &[u32], at: usize| b.chunks_exact(N).nth(at).unwrap().to_vec();

        let mut c0 = vec![0; (level + 1) * N];
        let mut zero = [0; N];
        super::super::encrypt_with_seed(&P, &key, &mut zero, level, &seed, &mut rng, &mut c0)
            .unwrap();
        let mut objects = vec![(Domain::Ciphertext, nth(&c0, limb))];
        let storage = vec![0; words];
        let public = PublicKey::generate(&P, &key, &seed, &mut rng, &mut errors, storage).unwrap();
        objects.push((Domain::PublicKey, nth(public.b(), limb)));
        // Digit 0 modulo another prime than its own: an encryption of zero.
        let at = KeyLimb {
            target: limb,
            digit: 0,
        };
        for target in [
            SwitchTarget::Square,
            SwitchTarget::Galois(5),
            SwitchTarget::Galois(31),
        ] {
            let mut b = vec![0; switching_key_words(&P, level)];
            let e = &mut errors;
            switching_key(&P, &key, target, level, &seed, &mut rng, e, &mut b).unwrap();
            objects.push((target.domain(), nth(&b, at.index(&P, level).unwrap())));
        }

        let prime = P.prime(limb).unwrap();
        let (m, s) = (prime.modulus(), key.limb(&P, limb).unwrap());
        for (own, b) in &objects {
            for (domain, _) in &objects {
                let mut sum = vec![0; N];
                Uniform::new(&seed, sample::stream(*domain, 0, limb), m).fill(&mut sum);
                kernel::mul(&mut sum, s, m);
                kernel::add(&mut sum, b, m);
                ntt::inverse(&mut sum, prime).unwrap();
                let largest = sum.iter().map(|&x| m.centred(x).abs()).max().unwrap();
                assert_eq!(largest <= 21, own == domain, "{own:?} with {domain:?}");
                // Sixteen errors are all zero with a probability of 2^-48.
                assert!(largest > 0, "{own:?} has no error");
            }
        }
    }

    #[test]
    fn wrong_sets_levels_and_lengths_are_refused() {
        let other = &crate::testing::N64;
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let words = SecretKey::<Vec<u32>>::words(&P);
        let key = SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        let (seed, mut errors) = ([6; SEED_LEN], [0; N]);
        let short = vec![0; words - 1];
        assert!(PublicKey::generate(&P, &key, &seed, &mut rng, &mut errors, short).is_err());
        let public =
            PublicKey::generate(&P, &key, &seed, &mut rng, &mut errors, vec![0; words]).unwrap();
        assert_eq!(errors, [0; N]);
        let mut encrypt = |params: &Params, n: usize, level: usize, limbs: usize| {
            let (mut c0, mut c1) = (vec![0; limbs * n], vec![0; limbs * n]);
            let (mut integers, mut words) = (vec![7; 3 * n], vec![7; 3 * n]);
            let scratch = PublicScratch {
                integers: &mut integers,
                limbs: &mut words,
            };
            assert_eq!(format!("{scratch:?}"), "PublicScratch(..)");
            let halves = [&mut c0[..], &mut c1[..]];
            let message = vec![0; n];
            let done = encrypt_public(params, &public, &message, level, &mut rng, scratch, halves);
            // Whether it was used or refused.
            assert!(integers.iter().all(|&x| x == 0) && words.iter().all(|&x| x == 0));
            done
        };
        assert_eq!(encrypt(&P, N, 1, 2), Ok(()));
        assert!(matches!(encrypt(&P, N, 1, 1), Err(Error::Length { .. })));
        assert!(matches!(encrypt(&P, N, 4, 5), Err(Error::Level { .. })));
        assert!(matches!(
            encrypt(other, 64, 1, 2),
            Err(Error::Params { .. })
        ));
    }
}
