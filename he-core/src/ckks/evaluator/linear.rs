//! Sums: of ciphertexts, with plaintexts and with constants.

use super::check_level;
use crate::arith::Modulus;
use crate::ckks::scale::check_same_scale;
use crate::ckks::track::Known;
use crate::ckks::{Ciphertext, Constant, Noise, Plaintext};
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::probe::{Probe, Work};
use crate::ring::{kernel, ntt};

/// A plaintext's words are in Montgomery form, and multiplied by these lose it.
const ONES: [u32; 256] = [1; 256];

/// `ct += other`. Three parts may take two.
///
/// # Errors
/// [`Error::Level`] or [`Error::Scale`] where the operands differ,
/// [`Error::Params`].
pub fn add<S, T, const PARTS: usize, const OTHER: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    other: &Ciphertext<T, OTHER>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
{
    each_limb("addition", params, ct, other, kernel::add)
}

/// `ct -= other`. Three parts may take two.
///
/// # Errors
/// As [`add`].
pub fn sub<S, T, const PARTS: usize, const OTHER: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    other: &Ciphertext<T, OTHER>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
{
    each_limb("subtraction", params, ct, other, |x, y, m| {
        kernel::sub_scale(x, y, m.r(), m);
    })
}

fn each_limb<S, T, const PARTS: usize, const OTHER: usize>(
    operation: &'static str,
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    other: &Ciphertext<T, OTHER>,
    f: impl Fn(&mut [u32], &[u32], &Modulus),
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
{
    const { assert!(OTHER <= PARTS, "the sum of two and three parts has three") };
    ct.check_params(params)?;
    other.check_params(params)?;
    check_level(operation, ct.level(), other.level())?;
    check_same_scale(operation, ct.scale(), other.scale())?;
    let n = params.n();
    for (part, other) in ct.words_mut().into_iter().zip(other.parts()) {
        for (i, (x, y)) in part
            .chunks_exact_mut(n)
            .zip(other.chunks_exact(n))
            .enumerate()
        {
            f(x, y, params.prime(i)?.modulus());
        }
    }
    let off = difference(ct.scale(), other.scale());
    ct.update(|known| known.plus(other.track().get(), off));
    Ok(())
}

/// How far a scale that is taken for another is from it, relatively.
fn difference(scale: f64, other: f64) -> f64 {
    libm::fabs(scale / other - 1.0)
}

/// `ct = -ct`.
///
/// # Errors
/// [`Error::Params`].
pub fn negate<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
) -> Result<()> {
    ct.check_params(params)?;
    for i in 0..=ct.level() {
        let m = params.prime(i)?.modulus();
        for limb in ct.limbs_mut(i)? {
            kernel::scale(limb, -m.r(), m);
        }
    }
    Ok(())
}

/// `ct += plain`.
///
/// # Errors
/// [`Error::Level`] or [`Error::Scale`] where the operands differ,
/// [`Error::Params`].
pub fn add_plain<S, U, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    plain: &Plaintext<U>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    U: AsRef<[u32]> + AsMut<[u32]>,
{
    each_plain("addition", params, ct, plain, kernel::mul_acc)
}

/// `ct -= plain`.
///
/// # Errors
/// As [`add_plain`].
pub fn sub_plain<S, U, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    plain: &Plaintext<U>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    U: AsRef<[u32]> + AsMut<[u32]>,
{
    each_plain("subtraction", params, ct, plain, kernel::mul_sub)
}

fn each_plain<S, U, const PARTS: usize>(
    operation: &'static str,
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    plain: &Plaintext<U>,
    f: impl Fn(&mut [u32], &[u32], &[u32], &Modulus),
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    U: AsRef<[u32]> + AsMut<[u32]>,
{
    ct.check_params(params)?;
    plain.check_params(params)?;
    check_level(operation, ct.level(), plain.level())?;
    check_same_scale(operation, ct.scale(), plain.scale())?;
    for (i, p) in plain.words().chunks_exact(params.n()).enumerate() {
        let m = params.prime(i)?.modulus();
        if let Some(c0) = ct.limbs_mut(i)?.first_mut() {
            for (c0, p) in c0.chunks_mut(ONES.len()).zip(p.chunks(ONES.len())) {
                f(c0, p, &ONES, m);
            }
        }
    }
    let off = difference(ct.scale(), plain.scale());
    ct.update(|known| known.plus(plain.track().get(), off));
    Ok(())
}

/// Adds the same constant to every slot.
///
/// # Errors
/// [`Error::Scale`] where the constant's scale is not the ciphertext's,
/// [`Error::Params`].
pub fn add_constant<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    constant: &Constant,
) -> Result<()> {
    ct.check_params(params)?;
    check_same_scale("addition", ct.scale(), constant.scale())?;
    for i in 0..=ct.level() {
        let prime = params.prime(i)?;
        let m = prime.modulus();
        if let Some(c0) = ct.limbs_mut(i)?.first_mut() {
            for (half, value) in constant.halves(prime, c0) {
                for x in half {
                    *x = m.add(*x, value);
                }
            }
        }
    }
    let off = difference(ct.scale(), constant.scale());
    ct.update(|known| known.plus(constant.known(), off));
    Ok(())
}

/// Adds an encoded vector: `coefficients` hold integers encoded at
/// `ct.scale() / 2^shift` (so that constants at large scales stay within the
/// encoder's range). `scratch` is one limb.
///
/// # Errors
/// [`Error::Length`], [`Error::Params`]; [`Error::Range`] for a shift of 31 or
/// more.
pub fn add_encoded<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    coefficients: &[f32],
    shift: u32,
    scratch: &mut [u32],
    probe: &mut impl Probe,
) -> Result<()> {
    ct.check_params(params)?;
    check_len("coefficients", coefficients.len(), params.n())?;
    check_len("scratch", scratch.len(), params.n())?;
    for i in 0..=ct.level() {
        transform_addend(params, i, coefficients, shift, scratch, probe)?;
        probe.begin(Work::Multiply);
        if let Some(c0) = ct.limbs_mut(i)?.first_mut() {
            kernel::add(c0, scratch, params.prime(i)?.modulus());
        }
    }
    ct.update(|known| {
        let factor = f64::from(1u32 << shift);
        let values = coefficients.iter().map(|&c| f64::from(c));
        let Known { noise, message } =
            Known::encoded(params, values, |size| Noise::rounding_f32(params, size));
        let encoded = Known {
            noise: noise.times(factor, factor),
            message: message.times(factor, factor),
        };
        known.plus(encoded, 0.0)
    });
    Ok(())
}

/// Writes limb `i` of an encoded vector times `2^shift`, NTT domain: what
/// [`add_encoded`] adds.
///
/// # Errors
/// [`Error::Length`] or [`Error::Level`]; [`Error::Range`] for a shift of 31 or more.
pub fn transform_addend(
    params: &Params,
    i: usize,
    coefficients: &[f32],
    shift: u32,
    limb: &mut [u32],
    probe: &mut impl Probe,
) -> Result<()> {
    if shift >= 31 {
        return Err(Error::Range {
            index: 0,
            limit_log2: 31,
        });
    }
    let prime = params.prime(i)?;
    let m = prime.modulus();
    let factor = m.to_mont(m.reduce(1i32 << shift));
    probe.begin(Work::Encode);
    kernel::lift_f32(coefficients, limb, factor, m);
    probe.begin(Work::Ntt);
    ntt::forward(limb, prime)
}
