//! Products: by plaintexts, constants and ciphertexts. None of them rescales.

use super::check_level;
use crate::arith::Modulus;
use crate::ckks::scale::{check_same_scale, check_scale};
use crate::ckks::track::{Known, Track};
use crate::ckks::{Ciphertext, Constant, Noise, Plaintext};
use crate::error::{Result, check_len};
use crate::params::Params;
use crate::probe::{Probe, Work};
use crate::ring::{kernel, ntt};

/// Words that a product of ciphertexts keeps of the second one in Montgomery
/// form at a time.
const BLOCK: usize = 128;

/// `ct *= plain`, slot by slot; the scales multiply.
///
/// # Errors
/// [`crate::Error::Level`] where the operands differ, [`crate::Error::Scale`] if the scale
/// leaves the range of `f64`, [`crate::Error::Params`].
pub fn multiply_plain<S, U, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    plain: &Plaintext<U>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    U: AsRef<[u32]> + AsMut<[u32]>,
{
    const OP: &str = "multiplication";
    ct.check_params(params)?;
    plain.check_params(params)?;
    check_level(OP, ct.level(), plain.level())?;
    let scale = ct.scale() * plain.scale();
    check_scale(OP, scale)?;
    for (i, p) in plain.words().chunks_exact(params.n()).enumerate() {
        let m = params.prime(i)?.modulus();
        for limb in ct.limbs_mut(i)? {
            kernel::mul(limb, p, m);
        }
    }
    ct.set(ct.level(), scale);
    ct.update(|known| known.product(plain.track().get()));
    Ok(())
}

/// Multiplies every slot by the same constant; the scales multiply, so that an
/// integer at scale 1 leaves the scale as it is.
///
/// # Errors
/// [`crate::Error::Scale`] if the scale leaves the range of `f64`,
/// [`crate::Error::Params`].
pub fn multiply_constant<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    constant: &Constant,
) -> Result<()> {
    ct.check_params(params)?;
    let scale = ct.scale() * constant.scale();
    check_scale("multiplication", scale)?;
    for i in 0..=ct.level() {
        let prime = params.prime(i)?;
        let m = prime.modulus();
        for limb in ct.limbs_mut(i)? {
            for (half, value) in constant.halves(prime, limb) {
                kernel::scale(half, m.to_mont(value), m);
            }
        }
    }
    ct.set(ct.level(), scale);
    ct.update(|known| known.product(constant.known()));
    Ok(())
}

/// The product of two ciphertexts, slot by slot, in three parts; the scales
/// multiply. `c2` becomes the third part: storage for `level + 1` limbs or
/// more.
///
/// # Errors
/// [`crate::Error::Level`] where the operands differ, [`crate::Error::Scale`] if the scale
/// leaves the range of `f64`, [`crate::Error::Length`] for `c2`, [`crate::Error::Params`].
pub fn multiply<S, T>(
    params: &Params,
    ct: Ciphertext<S>,
    other: &Ciphertext<T>,
    c2: S,
) -> Result<Ciphertext<S, 3>>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
{
    const OP: &str = "multiplication";
    ct.check_params(params)?;
    other.check_params(params)?;
    check_level(OP, ct.level(), other.level())?;
    let scale = ct.scale() * other.scale();
    check_scale(OP, scale)?;
    let mut ct = ct.with_third(c2)?;
    let n = params.n();
    let (b0, b1) = other.halves();
    for (i, (b0, b1)) in b0.chunks_exact(n).zip(b1.chunks_exact(n)).enumerate() {
        tensor(ct.limbs_mut(i)?, b0, b1, params.prime(i)?.modulus());
    }
    ct.set(ct.level(), scale);
    ct.update(|known| known.product(other.track().get()));
    Ok(ct)
}

/// `(a0, a1, _) -> (a0 b0, a0 b1 + a1 b0, a1 b1)`.
fn tensor([a0, a1, a2]: [&mut [u32]; 3], b0: &[u32], b1: &[u32], m: &Modulus) {
    if kernel::tensor(a0, a1, a2, b0, b1, m) {
        return;
    }
    let a = a0
        .chunks_mut(BLOCK)
        .zip(a1.chunks_mut(BLOCK))
        .zip(a2.chunks_mut(BLOCK));
    for (((a0, a1), a2), (b0, b1)) in a.zip(b0.chunks(BLOCK).zip(b1.chunks(BLOCK))) {
        let (mut factor0, mut factor1, mut old) = ([0; BLOCK], [0; BLOCK], [0; BLOCK]);
        montgomery(b0, &mut factor0, m);
        montgomery(b1, &mut factor1, m);
        for ((o, a2), &a1) in old.iter_mut().zip(a2.iter_mut()).zip(a1.iter()) {
            (*o, *a2) = (a1, a1);
        }
        kernel::mul(a2, &factor1, m);
        kernel::mul(a1, &factor0, m);
        kernel::mul_acc(a1, a0, &factor1, m);
        kernel::mul(a0, &factor0, m);
    }
}

/// `acc += ct * other`, slot by slot, in three parts that wait for one
/// relinearisation.
///
/// # Errors
/// [`crate::Error::Level`], [`crate::Error::Scale`] (the accumulator's scale must be the
/// product of the operands') or [`crate::Error::Params`].
pub fn multiply_add<S, T, U>(
    params: &Params,
    acc: &mut Ciphertext<S, 3>,
    ct: &Ciphertext<T>,
    other: &Ciphertext<U>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
    U: AsRef<[u32]> + AsMut<[u32]>,
{
    acc.check_params(params)?;
    ct.check_params(params)?;
    other.check_params(params)?;
    add_term(acc, ct, (other.level(), other.scale(), other.track()))?;
    let n = params.n();
    let (a, b) = (ct.halves(), other.halves());
    for i in 0..=acc.level() {
        let m = params.prime(i)?.modulus();
        let [x0, x1, x2] = acc.limbs_mut(i)?;
        let limbs = |(c0, c1)| (super::limb(c0, n, i), super::limb(c1, n, i));
        let ((a0, a1), (b0, b1)) = (limbs(a), limbs(b));
        let x = x0
            .chunks_mut(BLOCK)
            .zip(x1.chunks_mut(BLOCK))
            .zip(x2.chunks_mut(BLOCK));
        let a = a0.chunks(BLOCK).zip(a1.chunks(BLOCK));
        let b = b0.chunks(BLOCK).zip(b1.chunks(BLOCK));
        for ((((x0, x1), x2), (a0, a1)), (b0, b1)) in x.zip(a).zip(b) {
            let (mut factor0, mut factor1) = ([0; BLOCK], [0; BLOCK]);
            montgomery(b0, &mut factor0, m);
            montgomery(b1, &mut factor1, m);
            kernel::mul_acc(x0, a0, &factor0, m);
            kernel::mul_acc(x1, a0, &factor1, m);
            kernel::mul_acc(x1, a1, &factor0, m);
            kernel::mul_acc(x2, a1, &factor1, m);
        }
    }
    Ok(())
}

/// Checks the product of `ct` and a factor of this level and scale as a term of
/// `acc`, and adds what is carried of it.
fn add_term<S, T, const PARTS: usize>(
    acc: &mut Ciphertext<S, PARTS>,
    ct: &Ciphertext<T>,
    (level, scale, track): (usize, f64, Track),
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
{
    const OP: &str = "multiply-accumulate";
    check_level(OP, acc.level(), ct.level())?;
    check_level(OP, acc.level(), level)?;
    let scale = ct.scale() * scale;
    check_same_scale(OP, acc.scale(), scale)?;
    let off = libm::fabs(acc.scale() / scale - 1.0);
    let term = ct.track().after(|known| known.product(track.get()));
    acc.update(|known| known.plus(term.get(), off));
    Ok(())
}

/// Writes a block in Montgomery form.
#[inline(always)]
fn montgomery(words: &[u32], factor: &mut [u32; BLOCK], m: &Modulus) {
    for (f, &word) in factor.iter_mut().zip(words) {
        *f = word;
    }
    kernel::scale(factor, m.r2(), m);
}

/// The square of a ciphertext, slot by slot, in three parts; the scale is
/// squared. `c2` becomes the third part: storage for `level + 1` limbs or more.
///
/// # Errors
/// As [`multiply`].
pub fn square<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: Ciphertext<S>,
    c2: S,
) -> Result<Ciphertext<S, 3>> {
    ct.check_params(params)?;
    let scale = ct.scale() * ct.scale();
    check_scale("square", scale)?;
    let mut ct = ct.with_third(c2)?;
    for i in 0..=ct.level() {
        let m = params.prime(i)?.modulus();
        let [c0, c1, c2] = ct.limbs_mut(i)?;
        kernel::square(c0, c1, c2, m);
    }
    ct.set(ct.level(), scale);
    ct.update(Known::square);
    Ok(ct)
}

/// `acc += ct * plain`, slot by slot.
///
/// # Errors
/// [`crate::Error::Level`], [`crate::Error::Scale`] (the accumulator's scale must be the
/// product of the operands') or [`crate::Error::Params`].
pub fn multiply_plain_add<S, T, U>(
    params: &Params,
    acc: &mut Ciphertext<S>,
    ct: &Ciphertext<T>,
    plain: &Plaintext<U>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
    U: AsRef<[u32]> + AsMut<[u32]>,
{
    acc.check_params(params)?;
    ct.check_params(params)?;
    plain.check_params(params)?;
    add_term(acc, ct, (plain.level(), plain.scale(), plain.track()))?;
    let n = params.n();
    let (c0, c1) = ct.halves();
    let [a0, a1] = acc.words_mut();
    for (acc, c) in [(a0, c0), (a1, c1)] {
        let limbs = acc
            .chunks_exact_mut(n)
            .zip(c.chunks_exact(n))
            .zip(plain.words().chunks_exact(n));
        for (i, ((acc, c), p)) in limbs.enumerate() {
            kernel::mul_acc(acc, c, p, params.prime(i)?.modulus());
        }
    }
    Ok(())
}

/// Multiplies in place by an encoded vector: `coefficients` hold integers
/// encoded at `plain_scale`. `scratch` is one limb.
///
/// # Errors
/// [`crate::Error::Length`], [`crate::Error::Params`] or [`crate::Error::Scale`].
pub fn multiply_encoded<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    coefficients: &[f32],
    plain_scale: f64,
    scratch: &mut [u32],
    probe: &mut impl Probe,
) -> Result<()> {
    ct.check_params(params)?;
    let scale = ct.scale() * plain_scale;
    check_scale("multiplication", scale)?;
    check_len("coefficients", coefficients.len(), params.n())?;
    check_len("scratch", scratch.len(), params.n())?;
    for i in 0..=ct.level() {
        let m = params.prime(i)?.modulus();
        transform_encoded(params, i, coefficients, scratch, probe)?;
        probe.begin(Work::Multiply);
        for limb in ct.limbs_mut(i)? {
            kernel::mul(limb, scratch, m);
        }
    }
    ct.set(ct.level(), scale);
    ct.update(|known| {
        let values = coefficients.iter().map(|&c| f64::from(c));
        known.product(Known::encoded(params, values, |size| {
            Noise::rounding_f32(params, size)
        }))
    });
    Ok(())
}

/// The same by limbs that [`transform_encoded`] has written before, those of the
/// ciphertext's level one after the other. Noise and message are unknown from here on.
///
/// # Errors
/// [`crate::Error::Length`], [`crate::Error::Params`] or [`crate::Error::Scale`].
pub fn multiply_transformed<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    plain: &[u32],
    plain_scale: f64,
    probe: &mut impl Probe,
) -> Result<()> {
    ct.check_params(params)?;
    let scale = ct.scale() * plain_scale;
    check_scale("multiplication", scale)?;
    let (n, level) = (params.n(), ct.level());
    check_len("plaintext", plain.len(), (level + 1) * n)?;
    probe.begin(Work::Multiply);
    for part in ct.parts_mut() {
        let limbs = part.chunks_exact_mut(n).zip(plain.chunks_exact(n));
        for (i, (limb, plain)) in limbs.enumerate() {
            kernel::mul(limb, plain, params.prime(i)?.modulus());
        }
    }
    ct.set(level, scale);
    Ok(())
}

/// Writes limb `i` of an encoded vector, NTT domain in Montgomery form: what
/// a streamed multiply-accumulate multiplies by.
///
/// # Errors
/// [`crate::Error::Length`] or [`crate::Error::Level`].
pub fn transform_encoded(
    params: &Params,
    i: usize,
    coefficients: &[f32],
    limb: &mut [u32],
    probe: &mut impl Probe,
) -> Result<()> {
    let prime = params.prime(i)?;
    let m = prime.modulus();
    probe.begin(Work::Encode);
    kernel::lift_f32(coefficients, limb, m.r2(), m);
    probe.begin(Work::Ntt);
    ntt::forward(limb, prime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::evaluator::add;
    use crate::testing::{N64 as P, random};

    const N: usize = 64;

    fn part(seed: u64, level: usize) -> Vec<u32> {
        let limbs = (0..=level).flat_map(|i| {
            let q = P.prime(i).unwrap().modulus().value();
            random(N, q, seed * 16 + i as u64)
        });
        limbs.collect()
    }

    fn ciphertext(seed: u64, level: usize, scale: f64) -> Ciphertext<Vec<u32>> {
        let parts = [part(2 * seed, level), part(2 * seed + 1, level)];
        Ciphertext::from_parts(&P, level, scale, parts).unwrap()
    }

    #[test]
    fn a_product_that_is_added_is_a_product_and_a_sum() {
        let product = |a: u64, b: u64| {
            let (a, b) = (ciphertext(a, 2, 512.0), ciphertext(b, 2, 64.0));
            multiply(&P, a, &b, vec![0; 3 * N]).unwrap()
        };
        let mut sum = product(1, 2);
        let (a, b) = (ciphertext(3, 2, 512.0), ciphertext(4, 2, 64.0));
        multiply_add(&P, &mut sum, &a, &b).unwrap();
        let mut expected = product(1, 2);
        add(&P, &mut expected, &product(3, 4)).unwrap();
        assert_eq!(sum.parts(), expected.parts());

        let other = ciphertext(4, 2, 32.0);
        let refused = multiply_add(&P, &mut sum, &a, &other).unwrap_err();
        assert!(matches!(refused, crate::Error::Scale { .. }));
        let other = ciphertext(4, 1, 64.0);
        let refused = multiply_add(&P, &mut sum, &a, &other).unwrap_err();
        assert!(matches!(refused, crate::Error::Level { .. }));
        assert_eq!(sum.parts(), expected.parts());
    }
}
