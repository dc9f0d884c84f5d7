//! Level and scale: what makes them fall, and what brings two together.

use super::product::multiply_constant;
use crate::ckks::scale::check_scale;
use crate::ckks::{Ciphertext, Constant};
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::probe::{Probe, Work};
use crate::ring::ntt;
use crate::rlwe::gadget::{self, Debt, divide_by};

/// Divides by the last prime of the modulus and drops it: level and scale
/// fall. `scratch` is one limb.
///
/// A ciphertext of three parts is relinearised first: the rounding of its third part
/// would stand before `s^2`, which is `sqrt(N)` times the error that rescaling two
/// parts adds, whole units of a slot at usual scales.
///
/// # Errors
/// [`Error::Level`] at level 0, [`Error::Scale`] if the scale leaves the range of
/// `f64`, [`Error::Params`], [`Error::Length`].
pub fn rescale<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    scratch: &mut [u32],
) -> Result<()> {
    rescale_probed(params, ct, scratch, &mut ())
}

/// [`rescale`] under a probe.
///
/// # Errors
/// As [`rescale`].
pub fn rescale_probed<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    scratch: &mut [u32],
    probe: &mut impl Probe,
) -> Result<()> {
    ct.check_params(params)?;
    check_len("scratch", scratch.len(), params.n())?;
    let (level, scale) = rescaled(params, ct)?;
    let n = params.n();
    let last = params.prime(level)?;
    for part in ct.words_mut() {
        let Some((kept, dropped)) = part.split_at_mut_checked(level * n) else {
            continue;
        };
        probe.begin(Work::Ntt);
        ntt::inverse(dropped, last)?;
        for (i, limb) in kept.chunks_exact_mut(n).enumerate() {
            let prime = params.prime(i)?;
            divide_by(limb, dropped, last, prime, scratch, Work::Rescale, probe)?;
        }
    }
    ct.set(level - 1, scale);
    ct.update(|known| known.rescaled(params, level));
    Ok(())
}

/// [`rescale_probed`] of a ciphertext whose halves owe transforms ([`Debt`]), which this
/// pays. `scratch` is two limbs.
///
/// # Errors
/// As [`rescale`].
pub fn rescale_owing<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    debts: [Debt<'_>; 2],
    scratch: &mut [u32],
    probe: &mut impl Probe,
) -> Result<()> {
    ct.check_params(params)?;
    let (level, scale) = rescaled(params, ct)?;
    for (part, debt) in ct.words_mut().into_iter().zip(debts) {
        gadget::rescale_owing(params, level, part, debt, scratch, probe)?;
    }
    ct.set(level - 1, scale);
    ct.update(|known| known.rescaled(params, level));
    Ok(())
}

/// The level of what is rescaled, not 0, and the scale of the result.
fn rescaled<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &Ciphertext<S>,
) -> Result<(usize, f64)> {
    let level = ct.level();
    if level == 0 {
        return Err(Error::Level {
            operation: "rescale",
            expected: 1,
            got: 0,
        });
    }
    let scale = ct.scale() / f64::from(params.prime(level)?.modulus().value());
    check_scale("rescale", scale)?;
    Ok((level, scale))
}

/// Drops primes down to `level` without dividing: slots, scale and error stay
/// as they are.
///
/// # Errors
/// [`Error::Level`] if the ciphertext is at a lower level, [`Error::Params`].
pub fn drop_level<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &mut Ciphertext<S, PARTS>,
    level: usize,
) -> Result<()> {
    ct.check_params(params)?;
    if level > ct.level() {
        return Err(Error::Level {
            operation: "level drop",
            expected: level,
            got: ct.level(),
        });
    }
    ct.set(level, ct.scale());
    ct.update(|known| known.within(params, level));
    Ok(())
}

/// The scale at which a plaintext or a constant must be encoded, so that a
/// ciphertext at `level` and `scale`, multiplied by it and rescaled, has
/// exactly the scale `target`.
///
/// # Errors
/// [`Error::Level`] at level 0, from which nothing can be rescaled;
/// [`Error::Scale`].
pub fn scale_towards(params: &Params, level: usize, scale: f64, target: f64) -> Result<f64> {
    const OP: &str = "scale alignment";
    check_scale(OP, scale)?;
    check_scale(OP, target)?;
    params.check_level(OP, level)?;
    if level == 0 {
        return Err(Error::Level {
            operation: OP,
            expected: 1,
            got: 0,
        });
    }
    let factor = target * f64::from(params.prime(level)?.modulus().value()) / scale;
    check_scale(OP, factor)?;
    Ok(factor)
}

/// Brings a ciphertext to the scale `target` at the cost of one level, by a
/// multiplication by 1 encoded at [`scale_towards`] it. As a constant is an
/// integer, slots change by the relative amount of its rounding, at most
/// `scale / (2 target q)` with the prime `q` that is dropped. `scratch` is one
/// limb.
///
/// # Errors
/// [`Error::Level`] at level 0; [`Error::Scale`] where the constant would be
/// zero, naming the least scale that can be reached; [`Error::Params`],
/// [`Error::Length`].
pub fn align_scale<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    target: f64,
    scratch: &mut [u32],
) -> Result<()> {
    ct.check_params(params)?;
    check_len("scratch", scratch.len(), params.n())?;
    let factor = scale_towards(params, ct.level(), ct.scale(), target)?;
    if factor < 1.0 {
        return Err(Error::Scale {
            operation: "scale alignment",
            expected: target / factor,
            got: target,
        });
    }
    multiply_constant(params, ct, &Constant::real(1.0, factor)?)?;
    rescale(params, ct, scratch)
}
