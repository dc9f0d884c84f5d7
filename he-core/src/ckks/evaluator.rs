//! Operations on ciphertexts. No secret comes here; the evaluator is public.
//!
//! Key switching consumes its key as a stream, so that the key need not be
//! resident: [`Switching`] is the step machine, [`switch_with`] feeds it from
//! a key in memory.

use super::ciphertext::{Ciphertext, Plaintext, check_same_scale, check_scale};
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::{
    automorphism, kernel, ntt,
    sample::{SEED_LEN, Uniform, stream},
};
pub use crate::rlwe::gadget::{Due, Workspace, workspace_words};
use crate::rlwe::gadget::{KeySwitch, divide_by};
use crate::rlwe::keys::{SwitchTarget, switching_key_words};

/// `acc += ct * plain`, slot by slot.
///
/// # Errors
/// [`Error::Level`], [`Error::Scale`] (the accumulator's scale must be the
/// product of the operands') or [`Error::Params`].
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
    const OP: &str = "multiply-accumulate";
    acc.check_params(params)?;
    ct.check_params(params)?;
    plain.check_params(params)?;
    for got in [ct.level(), plain.level()] {
        if got != acc.level() {
            return Err(Error::Level {
                operation: OP,
                expected: acc.level(),
                got,
            });
        }
    }
    check_same_scale(OP, acc.scale(), ct.scale() * plain.scale())?;
    let n = params.n();
    let (c0, c1) = ct.halves();
    let (a0, a1) = acc.halves_mut();
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

/// Adds an encoded vector: `coefficients` hold integers encoded at
/// `ct.scale() / 2^shift` (so that constants at large scales stay within the
/// encoder's range). `scratch` is one limb.
///
/// # Errors
/// [`Error::Length`], [`Error::Params`]; [`Error::Range`] for a shift of 31 or
/// more.
pub fn add_encoded<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    coefficients: &[f32],
    shift: u32,
    scratch: &mut [u32],
) -> Result<()> {
    ct.check_params(params)?;
    check_len("coefficients", coefficients.len(), params.n())?;
    check_len("scratch", scratch.len(), params.n())?;
    if shift >= 31 {
        return Err(Error::Range {
            index: 0,
            limit_log2: 31,
        });
    }
    for i in 0..=ct.level() {
        let prime = params.prime(i)?;
        let m = prime.modulus();
        let factor = m.to_mont(m.reduce(1i32 << shift));
        kernel::lift_f32(coefficients, scratch, factor, m);
        ntt::forward(scratch, prime)?;
        let (c0, _) = ct.limb_mut(i)?;
        kernel::add(c0, scratch, m);
    }
    Ok(())
}

/// Multiplies in place by an encoded vector: `coefficients` hold integers
/// encoded at `plain_scale`. `scratch` is one limb.
///
/// # Errors
/// [`Error::Length`], [`Error::Params`] or [`Error::Scale`].
pub fn multiply_encoded<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    coefficients: &[f32],
    plain_scale: f64,
    scratch: &mut [u32],
) -> Result<()> {
    ct.check_params(params)?;
    check_scale("plaintext", plain_scale)?;
    check_len("coefficients", coefficients.len(), params.n())?;
    check_len("scratch", scratch.len(), params.n())?;
    for i in 0..=ct.level() {
        let m = params.prime(i)?.modulus();
        transform_encoded(params, i, coefficients, scratch)?;
        let (c0, c1) = ct.limb_mut(i)?;
        kernel::mul(c0, scratch, m);
        kernel::mul(c1, scratch, m);
    }
    ct.set(ct.level(), ct.scale() * plain_scale);
    Ok(())
}

/// Writes limb `i` of an encoded vector, NTT domain in Montgomery form: what
/// a streamed multiply-accumulate multiplies by.
///
/// # Errors
/// [`Error::Length`] or [`Error::Level`].
pub fn transform_encoded(
    params: &Params,
    i: usize,
    coefficients: &[f32],
    limb: &mut [u32],
) -> Result<()> {
    let prime = params.prime(i)?;
    let m = prime.modulus();
    kernel::lift_f32(coefficients, limb, m.r2(), m);
    ntt::forward(limb, prime)
}

/// Divides by the last prime of the modulus and drops it: level and scale
/// fall. `scratch` is one limb.
///
/// # Errors
/// [`Error::Level`] at level 0, [`Error::Params`], [`Error::Length`].
pub fn rescale<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    scratch: &mut [u32],
) -> Result<()> {
    ct.check_params(params)?;
    check_len("scratch", scratch.len(), params.n())?;
    let level = ct.level();
    if level == 0 {
        return Err(Error::Level {
            operation: "rescale",
            expected: 1,
            got: 0,
        });
    }
    let n = params.n();
    let last = params.prime(level)?;
    let q = last.modulus().value();
    let (c0, c1) = ct.halves_mut();
    for half in [c0, c1] {
        let Some((kept, dropped)) = half.split_at_mut_checked(level * n) else {
            continue;
        };
        ntt::inverse(dropped, last)?;
        for (i, limb) in kept.chunks_exact_mut(n).enumerate() {
            let prime = params.prime(i)?;
            let m = prime.modulus();
            let factor = m.to_mont(m.inv(m.reduce(q as i32)));
            divide_by(limb, dropped, last, prime, factor, scratch)?;
        }
    }
    ct.set(level - 1, ct.scale() / f64::from(q));
    Ok(())
}

/// An operation that needs a switching key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchOp {
    /// Rotate or conjugate the slots by a Galois element (see
    /// [`automorphism::rotation`] and [`automorphism::conjugation`]).
    Rotate(u32),
    /// The same, and add the ciphertext as it was: one step of a slot sum, or
    /// twice the real parts.
    RotateAdd(u32),
    /// Square and relinearise; the scale is squared.
    Square,
}

impl SwitchOp {
    /// What the key must switch from.
    #[must_use]
    pub const fn target(self) -> SwitchTarget {
        match self {
            Self::Rotate(g) | Self::RotateAdd(g) => SwitchTarget::Galois(g),
            Self::Square => SwitchTarget::Square,
        }
    }
}

/// A key switch in progress on one ciphertext, step by step as [`Self::due`]
/// says. Until it is complete the ciphertext is neither operand nor result: it
/// is the accumulator.
#[derive(Clone, Copy, Debug)]
pub struct Switching {
    op: SwitchOp,
    run: KeySwitch,
}

impl Switching {
    /// Begins; for [`SwitchOp::Square`] the ciphertext's scale is squared here.
    ///
    /// # Errors
    /// [`Error::Params`], [`Error::Level`] or [`Error::Galois`].
    pub fn start<S: AsRef<[u32]> + AsMut<[u32]>>(
        params: &Params,
        op: SwitchOp,
        ct: &mut Ciphertext<S>,
    ) -> Result<Self> {
        ct.check_params(params)?;
        let run = KeySwitch::new(params, ct.level())?;
        match op {
            SwitchOp::Square => ct.set(ct.level(), ct.scale() * ct.scale()),
            SwitchOp::Rotate(g) | SwitchOp::RotateAdd(g) => automorphism::check(g, params.n())?,
        }
        Ok(Self { op, run })
    }

    /// The step that comes next: [`Self::digit`], [`Self::absorb`] or
    /// [`Self::divide`]; `None` when the operation is complete.
    #[must_use]
    pub const fn due(&self) -> Option<Due> {
        self.run.due()
    }

    /// Prepares the digit for the next limb of the key: a permutation or
    /// product for a digit's own prime, a transform for every other.
    ///
    /// # Errors
    /// [`Error::Turn`] if something else is due; [`Error::Params`];
    /// [`Error::Level`] if the workspace is for a lower level.
    pub fn digit<S: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        params: &Params,
        ct: &mut Ciphertext<S>,
        work: &mut Workspace<'_>,
    ) -> Result<()> {
        ct.check_params(params)?;
        let at = match self.due() {
            Some(Due::Digit(at)) if at.is_own() => at,
            _ => return self.run.begin_digit(params, work),
        };
        let m = params.prime(at.target)?.modulus();
        let (c0, c1) = ct.limb_mut(at.target)?;
        let (source, spare) = work.source_and_spare(at.digit)?;
        match self.op {
            SwitchOp::Square => kernel::square(c0, c1, source, m),
            SwitchOp::Rotate(g) => {
                automorphism::ntt(c1, source, g)?;
                automorphism::ntt(c0, spare, g)?;
                c0.copy_from_slice(spare);
                c1.fill(0);
            }
            SwitchOp::RotateAdd(g) => {
                automorphism::ntt(c1, source, g)?;
                automorphism::ntt(c0, spare, g)?;
                kernel::add(c0, spare, m);
            }
        }
        self.run.begin_own_digit(params, c0, c1, work)
    }

    /// Multiplies the digit by the next coefficients of the key: `b` as sent,
    /// `a` expanded from the key's seed. The limbs come in the order of
    /// [`crate::rlwe::KeyLimb`], in chunks of any length that divides a limb.
    ///
    /// # Errors
    /// [`Error::Turn`] if no key is due; [`Error::Params`]; [`Error::Length`] if
    /// the chunk exceeds its limb.
    pub fn absorb<S: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        params: &Params,
        ct: &mut Ciphertext<S>,
        work: &mut Workspace<'_>,
        b: &[u32],
        a: &[u32],
    ) -> Result<()> {
        ct.check_params(params)?;
        let (c0, c1) = ct.halves_mut();
        self.run.absorb(params, c0, c1, b, a, work)
    }

    /// Divides by the special prime, which completes the operation.
    ///
    /// # Errors
    /// [`Error::Turn`] if the key is not complete; [`Error::Params`].
    pub fn divide<S: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        params: &Params,
        ct: &mut Ciphertext<S>,
        work: &mut Workspace<'_>,
    ) -> Result<()> {
        ct.check_params(params)?;
        let (c0, c1) = ct.halves_mut();
        self.run.divide(params, c0, c1, work)
    }
}

/// Runs a whole switching operation with a key in memory: `key` is the `b`
/// half as written by [`crate::rlwe::keys::switching_key`], `seed` its seed.
///
/// # Errors
/// As [`Switching`]; [`Error::Length`] if the key is for another level.
pub fn switch_with<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    op: SwitchOp,
    ct: &mut Ciphertext<S>,
    key: &[u32],
    seed: &[u8; SEED_LEN],
    work: &mut Workspace<'_>,
) -> Result<()> {
    check_len(
        "switching key",
        key.len(),
        switching_key_words(params, ct.level()),
    )?;
    let n = params.n();
    let mut run = Switching::start(params, op, ct)?;
    let mut a = [0; 256];
    while let Some(due) = run.due() {
        match due {
            Due::Digit(_) => run.digit(params, ct, work)?,
            Due::Division => run.divide(params, ct, work)?,
            Due::Key(at) => {
                let m = params.prime(at.target)?.modulus();
                let mut uniform = Uniform::new(seed, stream(at.digit, at.target), m);
                let b = key.chunks_exact(n).nth(at.index(params, ct.level()));
                let b = b.ok_or(Error::Length {
                    what: "switching key",
                    expected: switching_key_words(params, ct.level()),
                    got: key.len(),
                })?;
                for b in b.chunks(a.len()) {
                    let Some(a) = a.get_mut(..b.len()) else { break };
                    uniform.fill(a);
                    run.absorb(params, ct, work, b, a)?;
                }
            }
        }
    }
    Ok(())
}
