//! Ring learning with errors: keys, encryption and key switching. Knows no
//! scale and no slots: a message is integers, a ciphertext `(c0, c1)`
//! decrypts to `c0 + c1 s`.

mod coefficient;
pub mod compact;
pub mod gadget;
pub mod keys;
pub mod masked;
pub mod public;
mod seed;

pub use coefficient::Coefficient;
pub use compact::{CompactKey, Encryption};
pub use gadget::{KeyLimb, KeySwitch};
pub use keys::{KeySet, SecretKey, SwitchKey, SwitchTarget};
pub use masked::MaskedKey;
pub use public::{PublicKey, PublicScratch, encrypt_public};
pub use seed::KeySeed;

use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::{
    kernel, ntt,
    sample::{self, Domain, SEED_LEN, Uniform},
};
use crate::secret::first_negative;
use rand_core::CryptoRng;

/// Encrypts integers ([`Coefficient`]) under a secret key: writes `c0 = m + e - a s`, NTT
/// domain, for the limbs `0 ..= level` into `c0`; the other half is
/// `c1 = a`, expanded from the seed that is returned (see [`expand_c1`]).
///
/// The error is added to `message` in place; the caller erases it. The seed is
/// drawn from `rng` first, then the errors. A generator that repeats itself repeats
/// both, and two such ciphertexts show the difference of their messages: never
/// encrypt with the generator that a key was derived from (see [`KeySeed`]).
///
/// # Errors
/// As [`encrypt_with_seed`].
pub fn encrypt<C: Coefficient>(
    params: &Params,
    key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
    message: &mut [C],
    level: usize,
    rng: &mut impl CryptoRng,
    c0: &mut [u32],
) -> Result<[u8; SEED_LEN]> {
    let mut seed = [0; SEED_LEN];
    rng.fill_bytes(&mut seed);
    encrypt_with_seed(params, key, message, level, &seed, rng, c0)?;
    Ok(seed)
}

/// [`encrypt`] with a seed that the caller chose, for known-answer vectors.
///
/// **A seed must never be used twice under one key**: two ciphertexts with the
/// same `a` reveal the difference of their messages. The generator of `rng`
/// is for the error alone.
///
/// # Errors
/// [`Error::Level`] or [`Error::Length`]; [`Error::Range`] for a message
/// coefficient within 21 of the range of `i32`, or for one that its error takes
/// farther from zero than `2^62`.
pub fn encrypt_with_seed<C: Coefficient>(
    params: &Params,
    key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
    message: &mut [C],
    level: usize,
    seed: &[u8; SEED_LEN],
    rng: &mut impl CryptoRng,
    c0: &mut [u32],
) -> Result<()> {
    params.check_level("encryption", level)?;
    let n = params.n();
    check_len("message", message.len(), n)?;
    check_len("ciphertext half", c0.len(), (level + 1) * n)?;
    // Before anything is written that a mask should cover.
    key.limb(params, 0)?;
    add_errors(message, rng)?;
    for (i, limb) in c0.chunks_exact_mut(n).enumerate() {
        encrypt_limb(params, key.limb(params, i)?, message, i, seed, limb)?;
    }
    Ok(())
}

/// Adds an error to every coefficient. That some have no room for the largest is
/// not secret, whatever error is drawn.
fn add_errors<C: Coefficient>(message: &mut [C], rng: &mut impl CryptoRng) -> Result<()> {
    if let Some(index) = first_negative(message.iter().map(|m| m.room())) {
        return Err(Error::Range {
            index,
            limit_log2: C::LIMIT_LOG2,
        });
    }
    for m in message {
        *m = m.plus(sample::error(rng));
    }
    Ok(())
}

/// Limb `i` of `c0` for a message that has its errors; `s_mont` is that limb of
/// the key.
fn encrypt_limb<C: Coefficient>(
    params: &Params,
    s_mont: &[u32],
    message: &[C],
    i: usize,
    seed: &[u8; SEED_LEN],
    limb: &mut [u32],
) -> Result<()> {
    let mut a = message_limb(params, message, i, seed, limb)?;
    subtract_product(limb, &mut a, s_mont, params.prime(i)?.modulus());
    Ok(())
}

/// Limb `i` of a message, NTT domain, and the stream of the uniform half's.
fn message_limb<C: Coefficient>(
    params: &Params,
    message: &[C],
    i: usize,
    seed: &[u8; SEED_LEN],
    limb: &mut [u32],
) -> Result<Uniform> {
    let prime = params.prime(i)?;
    let m = prime.modulus();
    C::lift(message, limb, m.r(), m);
    ntt::forward(limb, prime)?;
    let stream = sample::stream(Domain::Ciphertext, 0, i);
    Ok(Uniform::new(seed, stream, m))
}

/// `x -= a s` with `a` from a stream, so that `a` needs no memory.
fn subtract_product(x: &mut [u32], a: &mut Uniform, s_mont: &[u32], m: &crate::arith::Modulus) {
    let mut block = [0; 64];
    for (x, s) in x.chunks_mut(64).zip(s_mont.chunks(64)) {
        let Some(block) = block.get_mut(..x.len()) else {
            return;
        };
        a.fill(block);
        kernel::mul_sub(x, block, s, m);
    }
}

/// Writes the uniform half `c1` of a seeded ciphertext, NTT domain.
///
/// # Errors
/// [`Error::Length`] unless `c1` has a whole number of limbs, [`Error::Level`]
/// if there are more of them than data primes.
pub fn expand_c1(params: &Params, seed: &[u8; SEED_LEN], c1: &mut [u32]) -> Result<()> {
    let n = params.n();
    let whole = c1.len() & !(n - 1);
    check_len("ciphertext half", c1.len(), whole)?;
    for (i, limb) in c1.chunks_exact_mut(n).enumerate() {
        params.check_level("expansion", i)?;
        let stream = sample::stream(Domain::Ciphertext, 0, i);
        Uniform::new(seed, stream, params.prime(i)?.modulus()).fill(limb);
    }
    Ok(())
}

/// Decrypts without any guard: **whoever sees what it writes may compute the key**,
/// of a crafted ciphertext from one decryption. [`crate::ckks::decrypt()`] is what a
/// holder of a key calls. This is for known-answer vectors, as insecure sets are.
///
/// Writes `c0 + c1 s`, or `c0 + c1 s + c2 s^2`, coefficient domain, into `out`, which
/// has as many limbs as each part.
///
/// # Errors
/// [`Error::Length`], [`Error::Level`] or [`Error::Params`].
#[cfg(feature = "insecure-test-sets")]
pub fn declassify_decryption<const PARTS: usize>(
    params: &Params,
    key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
    parts: [&[u32]; PARTS],
    out: &mut [u32],
) -> Result<()> {
    decrypt(params, key, parts, out)
}

/// Decrypts: writes `c0 + c1 s`, or `c0 + c1 s + c2 s^2`, coefficient domain,
/// into `out`, which has as many limbs as each part; the caller erases it.
///
/// # Errors
/// [`Error::Length`], [`Error::Level`] or [`Error::Params`].
pub(crate) fn decrypt<const PARTS: usize>(
    params: &Params,
    key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
    parts: [&[u32]; PARTS],
    out: &mut [u32],
) -> Result<()> {
    let n = params.n();
    let limbs = out.len() >> n.trailing_zeros();
    check_len("plaintext", out.len(), limbs * n)?;
    for part in parts {
        check_len("ciphertext half", part.len(), limbs * n)?;
    }
    params.check_level("decryption", limbs.saturating_sub(1))?;
    out.fill(0);
    for (i, limb) in out.chunks_exact_mut(n).enumerate() {
        let prime = params.prime(i)?;
        let (m, s) = (prime.modulus(), key.limb(params, i)?);
        // Horner's rule, from the last part on.
        for (at, part) in parts.iter().enumerate().rev() {
            if at + 1 < PARTS {
                kernel::mul(limb, s, m);
            }
            kernel::add(limb, part.get(i * n..(i + 1) * n).unwrap_or_default(), m);
        }
        ntt::inverse(limb, prime)?;
    }
    Ok(())
}
