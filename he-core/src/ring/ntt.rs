//! Negacyclic number-theoretic transform of one limb.
//!
//! `forward` maps coefficients `a_0 .. a_{N-1}` to
//! `out[i] = a(psi^(2 brv(i) + 1))`, where `brv` reverses `log2 N` bits and
//! `psi` is the primitive `2N`-th root of [`crate::arith::prime::primitive_root`].
//! Layers as in Longa and Naehrig, ePrint 2016/504, algorithms 1 and 2.

use super::kernel;
use crate::arith::{Modulus, prime};
use crate::error::{Result, check_len};
use crate::params::Prime;

/// Parts of a table: the factors in Montgomery form, and for the kernels of hosts that
/// multiply by [`Modulus::shoup`] the factors themselves and their quotients.
pub(crate) const PARTS: usize = if cfg!(target_arch = "x86_64") { 3 } else { 1 };

/// Entries of the table of a prime of a set.
#[must_use]
pub const fn table_len(n: usize) -> usize {
    PARTS * n
}

/// Entries of a table, where a vector does not cross the lines of a cache.
#[derive(Debug)]
#[cfg_attr(target_arch = "x86_64", repr(align(64)))]
pub struct Entries<const LEN: usize>(pub [i32; LEN]);

/// Writes `z[k] = root^brv(k) R mod q`, centred, for a power-of-two length.
pub const fn tables(m: &Modulus, root: u32, z: &mut [i32]) {
    first_part(m, root, z.len(), z);
}

/// [`tables`] of the first `n` entries.
///
/// The second half of the first `2 count` entries is the first half times one
/// power of the root, as `brv(count + k) = brv(k) + n / (2 count)` for `k < count`.
/// The loop is written out, with no call in it: compilers interpret it, for up to
/// 2^14 entries per prime.
#[expect(
    clippy::indexing_slicing,
    clippy::integer_division_remainder_used,
    reason = "run by the compiler; indices are below the length"
)]
const fn first_part(m: &Modulus, root: u32, n: usize, z: &mut [i32]) {
    if n == 0 {
        return;
    }
    let q = m.value() as u64;
    z[0] = m.centred(m.canon(m.r()));
    let mut count = 1;
    while count < n {
        let power = m.pow(root, (n / (2 * count)) as u32) as u64;
        let mut k = 0;
        while k < count {
            let mut x = z[k] as i64;
            if x < 0 {
                x += q as i64;
            }
            let product = x as u64 * power % q;
            z[count + k] = if product > q / 2 {
                product as i32 - q as i32
            } else {
                product as i32
            };
            k += 1;
        }
        count *= 2;
    }
}

/// Writes the other parts of a table behind the `n` entries of the first: all
/// [`Modulus::shoup`] of them, the factors, then the quotients.
#[expect(
    clippy::indexing_slicing,
    reason = "run by the compiler; indices are below the length"
)]
pub(crate) const fn other_parts(m: &Modulus, n: usize, z: &mut [i32]) {
    let (q, inverse) = (m.value() as i64, m.neg_inv());
    let mut k = 0;
    while k < n && z.len() >= 3 * n {
        // Written out, as above.
        let quotient = z[k].wrapping_mul(inverse);
        z[n + k] = ((quotient as i64 * q + z[k] as i64) >> 32) as i32;
        z[2 * n + k] = quotient;
        k += 1;
    }
}

/// The forward table of the prime `q` for `N` coefficients, for the statics of a
/// parameter set: `LEN` is [`table_len`].
///
/// # Panics
/// At compile time, if `q` is not an NTT modulus for `N`.
#[must_use]
pub const fn forward_table<const N: usize, const LEN: usize>(q: u32) -> Entries<LEN> {
    let (m, psi) = root_of(q, N);
    parts_of(&m, psi, N)
}

/// The inverse table of the prime `q`.
///
/// # Panics
/// As [`forward_table`].
#[must_use]
pub const fn inverse_table<const N: usize, const LEN: usize>(q: u32) -> Entries<LEN> {
    let (m, psi) = root_of(q, N);
    parts_of(&m, m.inv(psi), N)
}

const fn parts_of<const LEN: usize>(m: &Modulus, root: u32, n: usize) -> Entries<LEN> {
    assert!(LEN == table_len(n), "a table of another length");
    let mut z = [0; LEN];
    first_part(m, root, n, &mut z);
    other_parts(m, n, &mut z);
    Entries(z)
}

#[expect(clippy::panic, reason = "a compile-time check")]
const fn root_of(q: u32, n: usize) -> (Modulus, u32) {
    let Some(m) = Modulus::new(q) else {
        panic!("a modulus is not an odd number below 2^30")
    };
    // By Fermat: for most others the search for a root would try all bases. The
    // exact check is that of the prime.
    assert!(m.pow(2, q - 1) == 1, "a modulus is not prime");
    match prime::primitive_root(&m, n as u32) {
        Some(psi) => (m, psi),
        None => panic!("a modulus has no primitive 2N-th root of unity"),
    }
}

/// Coefficients to evaluations, in place.
///
/// # Errors
/// [`crate::Error::Length`] unless `limb` has `N` words.
pub fn forward(limb: &mut [u32], prime: &Prime) -> Result<()> {
    check_len("limb", limb.len(), prime.n())?;
    kernel::forward(limb, prime.modulus(), prime.forward_table());
    Ok(())
}

/// Evaluations to coefficients, in place.
///
/// # Errors
/// As [`forward`].
pub fn inverse(limb: &mut [u32], prime: &Prime) -> Result<()> {
    check_len("limb", limb.len(), prime.n())?;
    kernel::inverse(limb, prime.modulus(), prime.inverse_table(), prime.n_inv());
    Ok(())
}

/// As [`inverse`], of evaluations in Montgomery form: the coefficients are not.
///
/// # Errors
/// As [`forward`].
pub fn inverse_from_mont(limb: &mut [u32], prime: &Prime) -> Result<()> {
    inverse_scaled(limb, prime, 1)
}

/// As [`inverse`], times a factor in Montgomery form.
///
/// # Errors
/// As [`forward`].
pub fn inverse_scaled(limb: &mut [u32], prime: &Prime, factor: i32) -> Result<()> {
    check_len("limb", limb.len(), prime.n())?;
    let m = prime.modulus();
    let scale = m.centre(m.mont(prime.n_inv(), factor));
    kernel::inverse(limb, m, prime.inverse_table(), scale);
    Ok(())
}
