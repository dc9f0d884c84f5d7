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
use crate::rlwe::gadget::{KeySwitch, Scratch, divide_by};
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

/// The memory of a [`Switching`]: `level + 1` limbs of the polynomial that is
/// switched, coefficient domain, and the key switch's own scratch.
#[derive(Debug)]
pub struct Workspace<'a> {
    source: &'a mut [u32],
    scratch: Scratch<'a>,
}

/// Words of a [`Workspace`] for ciphertexts of `level`.
#[must_use]
pub const fn workspace_words(params: &Params, level: usize) -> usize {
    (level + 1) * params.n() + crate::rlwe::gadget::scratch_words(params)
}

impl<'a> Workspace<'a> {
    /// Divides `words` up; they may be more than needed.
    ///
    /// # Errors
    /// [`Error::Length`] if there are fewer than [`workspace_words`].
    pub fn new(params: &Params, level: usize, words: &'a mut [u32]) -> Result<Self> {
        let expected = workspace_words(params, level);
        let got = words.len();
        let Some(words) = words.get_mut(..expected) else {
            return Err(Error::Length {
                what: "key-switching workspace",
                expected,
                got,
            });
        };
        let (source, scratch) = words.split_at_mut((level + 1) * params.n());
        Ok(Self {
            source,
            scratch: Scratch::new(params, scratch)?,
        })
    }
}

/// A key switch in progress on one ciphertext. The key's chunks must come in
/// the order of [`crate::rlwe::keys::switching_key`].
#[derive(Clone, Copy, Debug)]
pub struct Switching {
    op: SwitchOp,
    run: KeySwitch,
    row: usize,
    digit: usize,
    offset: usize,
}

impl Switching {
    /// Prepares the polynomial to be switched; for [`SwitchOp::Square`] also
    /// squares the ciphertext.
    ///
    /// # Errors
    /// [`Error::Params`], [`Error::Length`] if the workspace is for another
    /// level, [`Error::Galois`].
    pub fn start<S: AsRef<[u32]> + AsMut<[u32]>>(
        params: &Params,
        op: SwitchOp,
        ct: &mut Ciphertext<S>,
        work: &mut Workspace<'_>,
    ) -> Result<Self> {
        ct.check_params(params)?;
        let (level, n) = (ct.level(), params.n());
        check_len("key-switching source", work.source.len(), (level + 1) * n)?;
        let tmp = work.scratch.spare();
        for (i, source) in work.source.chunks_exact_mut(n).enumerate() {
            let prime = params.prime(i)?;
            let m = prime.modulus();
            let (c0, c1) = ct.limb_mut(i)?;
            match op {
                SwitchOp::Square => {
                    kernel::square(c0, c1, source, m);
                    ntt::inverse(source, prime)?;
                }
                SwitchOp::Rotate(g) | SwitchOp::RotateAdd(g) => {
                    tmp.copy_from_slice(c1);
                    ntt::inverse(tmp, prime)?;
                    automorphism::coeff(tmp, source, g, m)?;
                }
            }
        }
        if op == SwitchOp::Square {
            ct.set(level, ct.scale() * ct.scale());
        }
        Ok(Self {
            op,
            run: KeySwitch::new(params, level)?,
            row: 0,
            digit: 0,
            offset: 0,
        })
    }

    /// The key limb that comes next, as (target prime, digit); `None` when
    /// the operation is complete.
    #[must_use]
    pub const fn expects(&self, params: &Params) -> Option<(usize, usize)> {
        if self.row > self.run.level() + 1 {
            None
        } else if self.row == 0 {
            Some((params.special(), self.digit))
        } else {
            Some((self.row - 1, self.digit))
        }
    }

    /// Consumes the next coefficients of the key: `b` as sent, `a` expanded
    /// from the key's seed. Chunks may have any length that divides a limb.
    ///
    /// # Errors
    /// [`Error::Params`]; [`Error::Length`] if the chunk exceeds its limb or the
    /// key has ended.
    pub fn absorb<S: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        params: &Params,
        ct: &mut Ciphertext<S>,
        work: &mut Workspace<'_>,
        b: &[u32],
        a: &[u32],
    ) -> Result<()> {
        ct.check_params(params)?;
        let Some((target, digit)) = self.expects(params) else {
            return Err(Error::Length {
                what: "switching key",
                expected: 0,
                got: b.len(),
            });
        };
        let n = params.n();
        let Workspace { source, scratch } = work;
        if self.offset == 0 {
            if digit == 0 {
                self.run.begin_limb(target, scratch);
            }
            match self.op {
                SwitchOp::Rotate(g) | SwitchOp::RotateAdd(g) if target == digit => {
                    let (_, c1) = ct.limb_mut(target)?;
                    self.run.begin_own_digit(params, c1, g, scratch)?;
                }
                _ => {
                    let limb = source.chunks_exact(n).nth(digit).unwrap_or_default();
                    self.run.begin_digit(params, digit, limb, scratch)?;
                }
            }
        }
        self.run.absorb(params, b, a, scratch)?;
        self.offset += b.len();
        if self.offset < n {
            return Ok(());
        }
        self.offset = 0;
        self.digit += 1;
        if self.digit <= self.run.level() {
            return Ok(());
        }
        self.digit = 0;
        self.row += 1;
        if target == params.special() {
            self.run.end_special(params, scratch)
        } else {
            self.end_limb(params, ct, scratch, target)
        }
    }

    fn end_limb<S: AsRef<[u32]> + AsMut<[u32]>>(
        &self,
        params: &Params,
        ct: &mut Ciphertext<S>,
        scratch: &mut Scratch<'_>,
        target: usize,
    ) -> Result<()> {
        let m = params.prime(target)?.modulus();
        self.run.end_limb(params, scratch)?;
        let (k0, k1, tmp) = scratch.result();
        let (c0, c1) = ct.limb_mut(target)?;
        match self.op {
            SwitchOp::Square => {}
            SwitchOp::Rotate(g) => {
                automorphism::ntt(c0, tmp, g)?;
                c0.copy_from_slice(tmp);
                c1.fill(0);
            }
            SwitchOp::RotateAdd(g) => {
                automorphism::ntt(c0, tmp, g)?;
                kernel::add(c0, tmp, m);
            }
        }
        kernel::add(c0, k0, m);
        kernel::add(c1, k1, m);
        Ok(())
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
    let mut run = Switching::start(params, op, ct, work)?;
    let mut a = [0; 256];
    for b in key.chunks_exact(params.n()) {
        let Some((target, digit)) = run.expects(params) else {
            break;
        };
        let mut uniform =
            Uniform::new(seed, stream(digit, target), params.prime(target)?.modulus());
        for b in b.chunks(a.len()) {
            let Some(a) = a.get_mut(..b.len()) else { break };
            uniform.fill(a);
            run.absorb(params, ct, work, b, a)?;
        }
    }
    Ok(())
}
