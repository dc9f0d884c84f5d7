//! Ring learning with errors: keys, encryption and key switching. Knows no
//! scale and no slots: a message is integers, a ciphertext `(c0, c1)`
//! decrypts to `c0 + c1 s`.

pub mod gadget;
pub mod keys;

pub use gadget::{KeyLimb, KeySwitch};
pub use keys::{SecretKey, SwitchTarget};

use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::{
    kernel, ntt,
    sample::{self, SEED_LEN, Uniform},
};
use rand_core::CryptoRng;

/// Encrypts integers under a secret key: writes `c0 = m + e - a s`, NTT
/// domain, for the limbs `0 ..= level` into `c0`; the other half is
/// `c1 = a`, expanded from `seed` (see [`expand_c1`]).
///
/// The error is added to `message` in place; the caller erases it.
///
/// **A seed must never be used twice under one key**: two ciphertexts with the
/// same `a` reveal the difference of their messages. The generator of `rng`
/// is for the error alone.
///
/// # Errors
/// [`Error::Level`] or [`Error::Length`]; [`Error::Range`] for a message
/// coefficient within 21 of the range of `i32`.
pub fn encrypt(
    params: &Params,
    key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
    message: &mut [i32],
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
    for (index, m) in message.iter_mut().enumerate() {
        *m = m.checked_add(sample::error(rng)).ok_or(Error::Range {
            index,
            limit_log2: 31,
        })?;
    }
    for (i, limb) in c0.chunks_exact_mut(n).enumerate() {
        let prime = params.prime(i)?;
        let m = prime.modulus();
        kernel::lift_i32(message, limb, m.r(), m);
        ntt::forward(limb, prime)?;
        let mut a = Uniform::new(seed, sample::stream(0, i), m);
        subtract_product(limb, &mut a, key.limb(params, i)?, m);
    }
    Ok(())
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
        Uniform::new(seed, sample::stream(0, i), params.prime(i)?.modulus()).fill(limb);
    }
    Ok(())
}

/// Decrypts: writes `c0 + c1 s`, coefficient domain, into `out`, which has as
/// many limbs as the two halves.
///
/// # Errors
/// [`Error::Length`] or [`Error::Level`].
pub fn decrypt(
    params: &Params,
    key: &SecretKey<impl AsRef<[u32]> + AsMut<[u32]>>,
    c0: &[u32],
    c1: &[u32],
    out: &mut [u32],
) -> Result<()> {
    let n = params.n();
    let limbs = out.len() >> n.trailing_zeros();
    check_len("plaintext", out.len(), limbs * n)?;
    check_len("ciphertext half", c0.len(), limbs * n)?;
    check_len("ciphertext half", c1.len(), limbs * n)?;
    params.check_level("decryption", limbs.saturating_sub(1))?;
    out.copy_from_slice(c0);
    for (i, (limb, c1)) in out.chunks_exact_mut(n).zip(c1.chunks_exact(n)).enumerate() {
        let prime = params.prime(i)?;
        kernel::mul_acc(limb, c1, key.limb(params, i)?, prime.modulus());
        ntt::inverse(limb, prime)?;
    }
    Ok(())
}
