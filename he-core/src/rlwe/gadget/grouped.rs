//! Key switching by keys in memory, with several primes per digit and as many special
//! primes (Han and Ki, CT-RSA 2020, section 3), or with one of each. It is for hosts:
//! an evaluator on a bare Arm processor holds none of this code.
//!
//! A digit is the residue modulo the product `D` of a group of primes. From its
//! residues `x_i` it is carried over to another prime without its value ever
//! being formed (Halevi, Polyakov, Shoup, CT-RSA 2019, section 2.2): with `y_i =
//! [x_i (D / q_i)^-1]` centred modulo `q_i`,
//!
//! ```text
//! x' = sum of y_i (D / q_i)        = x + v D,   |x'| <= k D / 2 for k primes.
//! ```
//!
//! Nobody subtracts the multiple `v D`. The gadget of a digit is zero modulo all
//! primes but the digit's own, and modulo those `v D` is zero; so `v D` adds noise
//! and no error of the message ([`crate::ckks::Noise::key_switch`]). The division
//! by `P` carries its remainder over in the same way, and rounds a coefficient by up
//! to `alpha / 2` instead of 1/2.
//!
//! The inverse transforms multiply by the factors `(D / q_i)^-1`. One pass then sums
//! the products with all digits modulo one prime, and reduces the sum once
//! (`ring::kernel::sums`). That leaves the accumulators divided by `R = 2^32`, which
//! the division by `P` undoes. Transforms at level `l`, with `d` digits and `alpha` special primes:
//!
//! | step | transforms |
//! |---|---|
//! | digits into the coefficient domain | `l + 1` |
//! | digits modulo other primes than their own | `d (l + 1 + alpha) - (l + 1)` |
//! | division by `P` | `2 alpha + 2 (l + 1)` |
//!
//! With one special prime it gives the bits of the streamed switch.
//!
//! A streamed switch would need all primes of a digit at a time, for which a board has no
//! memory. At N = 8192 with six data primes, two special ones make three digits of six, and
//! 40 transforms per switch instead of 56.

use super::factors::{cofactor_inverse, product, special, special_product};
use super::order::KeyLimb;
use super::workspace::{Workspace, limb, workspace_limbs};
use crate::error::{Result, check_len};
use crate::params::{MAX_SPECIAL, Params};
use crate::ring::kernel::{self, Carried, MAX_TERMS, SumTerm};
use crate::ring::sample::Uniform;
use crate::ring::{Scratch, ntt};
use crate::rlwe::keys::SwitchKey;
use core::ops::Range;

const _: () = assert!(
    MAX_SPECIAL <= MAX_TERMS,
    "a digit is carried over in one sum"
);

/// What words stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Themselves.
    Plain,
    /// `R` times themselves.
    Reduced,
}

/// Brings a limb modulo prime `i` of `group` from the NTT domain to the `y_i` of the
/// module's head.
pub(crate) fn prepare(
    params: &Params,
    group: Range<usize>,
    i: usize,
    form: Form,
    limb: &mut [u32],
) -> Result<()> {
    let prime = params.prime(i)?;
    let m = prime.modulus();
    let factor = m.to_mont(cofactor_inverse(params, group, i)?);
    let factor = match form {
        Form::Plain => factor,
        Form::Reduced => m.mont(factor, m.r2()),
    };
    ntt::inverse_scaled(limb, prime, factor)
}

/// The same of a limb in the coefficient domain.
pub(crate) fn prepare_coefficients(
    params: &Params,
    group: Range<usize>,
    i: usize,
    limb: &mut [u32],
) -> Result<()> {
    let m = params.prime(i)?.modulus();
    let factor = m.to_mont(cofactor_inverse(params, group, i)?);
    kernel::scale(limb, factor, m);
    Ok(())
}

/// The terms by which [`kernel::lift_sum`] carries the `y_i` of `group` over to prime
/// `to`, and how many there are.
fn carried(
    params: &Params,
    group: Range<usize>,
    to: usize,
    form: Form,
) -> Result<([Carried; MAX_SPECIAL], usize)> {
    let m = params.prime(to)?.modulus();
    let mut terms = [Carried {
        from: *m,
        factor: 0,
    }; MAX_SPECIAL];
    let count = group.len();
    for (term, i) in terms.iter_mut().zip(group.clone()) {
        let cofactor = product(params, group.clone(), i, m)?;
        *term = Carried {
            from: *params.prime(i)?.modulus(),
            factor: match form {
                Form::Plain if count == 1 => m.r(),
                Form::Plain => m.to_mont(cofactor),
                Form::Reduced => m.centred(cofactor),
            },
        };
    }
    Ok((terms, count))
}

/// Carries the `y_i` of `group`, limb after limb in `from`, over to prime `to`:
/// words as a lift leaves them, coefficient domain.
pub(crate) fn carry(
    params: &Params,
    group: Range<usize>,
    from: &[u32],
    to: usize,
    form: Form,
    out: &mut [u32],
) -> Result<()> {
    let m = params.prime(to)?.modulus();
    let (terms, count) = carried(params, group, to, form)?;
    match terms.get(..count).unwrap_or_default() {
        [term] => kernel::lift(from, &term.from, out, term.factor, m),
        terms => kernel::lift_sum(from, terms, out, m),
    }
    Ok(())
}

/// The same and transformed: words of either sign that are congruent, as
/// [`kernel::dot_two`] takes them.
pub(crate) fn carry_forward(
    params: &Params,
    group: Range<usize>,
    from: &[u32],
    to: usize,
    out: &mut [u32],
) -> Result<()> {
    let prime = params.prime(to)?;
    let m = prime.modulus();
    let (terms, count) = carried(params, group.clone(), to, Form::Plain)?;
    let terms = terms.get(..count).unwrap_or_default();
    if kernel::carry_forward(from, terms, out, m, prime.forward_table()) {
        return Ok(());
    }
    carry(params, group, from, to, Form::Plain, out)?;
    ntt::forward(out, prime)
}

/// `x = (x factor + sum of digit key) / R` modulo prime `target`: both halves, over
/// all digits of the level. `digits` has one limb for each; `factor` is centred.
pub(crate) fn multiply_key<K: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    level: usize,
    target: usize,
    digits: &[u32],
    key: &SwitchKey<K>,
    factor: i32,
    [x0, x1]: [&mut [u32]; 2],
) -> Result<()> {
    let n = params.n();
    let m = params.prime(target)?.modulus();
    let count = params.digits(level);
    check_len("digits", digits.len(), count * n)?;
    let mut rest = digits.chunks_exact(n).zip(0..);
    if !key.is_expanded() {
        return multiply_seeded(params, target, digits, key, factor, [x0, x1]);
    }
    let mut factor = factor;
    let mut left = count;
    while left > 0 {
        let mut terms = [SumTerm::default(); MAX_TERMS];
        let some = left.min(MAX_TERMS);
        for (term, (limb, digit)) in terms.iter_mut().zip(rest.by_ref().take(some)) {
            let (b, a) = key.halves(params, KeyLimb { target, digit })?;
            *term = SumTerm { x: limb, b, a };
        }
        let terms = terms.get(..some).unwrap_or_default();
        kernel::dot_two(x0, x1, factor, terms, m);
        left -= some;
        // What is there already stays as it is.
        factor = m.r();
    }
    Ok(())
}

/// A digit, the half of its key that is in memory, and the stream of the other.
type Expanding<'a> = (&'a [u32], &'a [u32], Uniform);

/// [`multiply_key`] by a key whose uniform half is expanded on the way, some words of all
/// digits at a time.
fn multiply_seeded<K: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    target: usize,
    digits: &[u32],
    key: &SwitchKey<K>,
    factor: i32,
    [x0, x1]: [&mut [u32]; 2],
) -> Result<()> {
    const CHUNK: usize = 1024;
    let n = params.n();
    let m = params.prime(target)?.modulus();
    let mut factor = factor;
    let mut first = 0;
    let mut uniform = [[0; CHUNK]; MAX_TERMS];
    for some in digits.chunks(MAX_TERMS * n) {
        let mut streams: [Option<Expanding<'_>>; MAX_TERMS] = Default::default();
        for ((stream, limb), digit) in streams.iter_mut().zip(some.chunks_exact(n)).zip(first..) {
            let (b, uniform) = key.half_and_stream(params, KeyLimb { target, digit })?;
            *stream = Some((limb, b, uniform));
        }
        let parts = x0.chunks_mut(CHUNK).zip(x1.chunks_mut(CHUNK));
        for ((x0, x1), start) in parts.zip((0..).step_by(CHUNK)) {
            let range = start..start + x0.len();
            let mut terms = [SumTerm::default(); MAX_TERMS];
            let mut count = 0;
            for ((term, words), stream) in terms.iter_mut().zip(&mut uniform).zip(&mut streams) {
                let (Some((limb, b, stream)), Some(words)) =
                    (stream.as_mut(), words.get_mut(..x0.len()))
                else {
                    break;
                };
                stream.fill(words);
                *term = SumTerm {
                    x: limb.get(range.clone()).unwrap_or_default(),
                    b: b.get(range.clone()).unwrap_or_default(),
                    a: words,
                };
                count += 1;
            }
            let terms = terms.get(..count).unwrap_or_default();
            kernel::dot_two(x0, x1, factor, terms, m);
        }
        // What is there already stays as it is.
        factor = m.r();
        first += MAX_TERMS;
    }
    Ok(())
}

/// `x = (x - [r]) / P` with `x` in the form that [`multiply_key`] leaves, and `r`
/// the same modulo the special primes, NTT domain, which is used up. `scratch` is
/// one limb.
pub(crate) fn divide(
    params: &Params,
    x: &mut [u32],
    r: &mut [u32],
    scratch: &mut [u32],
) -> Result<()> {
    let n = params.n();
    for (limb, j) in r.chunks_exact_mut(n).zip(special(params)) {
        prepare(params, special(params), j, Form::Reduced, limb)?;
    }
    for (i, x) in x.chunks_exact_mut(n).enumerate() {
        let to = params.prime(i)?;
        let m = to.modulus();
        let inverse = m.to_mont(m.inv(special_product(params, m)?));
        let factor = m.centre(m.mont(inverse, m.r2()));
        let (terms, count) = carried(params, special(params), i, Form::Plain)?;
        let terms = terms.get(..count).unwrap_or_default();
        let (factors, z) = ([factor, -inverse], to.forward_table());
        if kernel::mod_down(x, (r, terms), scratch, factors, m, z) {
            continue;
        }
        carry(params, special(params), r, i, Form::Reduced, scratch)?;
        ntt::forward(scratch, to)?;
        kernel::sub_scale(x, scratch, factor, m);
    }
    Ok(())
}

/// The factor by which [`multiply_key`] starts: `P`, to which the switched polynomial
/// is added; nothing modulo a special prime.
pub(crate) fn start_factor(params: &Params, target: usize) -> Result<i32> {
    if target >= params.special() {
        return Ok(0);
    }
    let m = params.prime(target)?.modulus();
    Ok(m.centred(special_product(params, m)?))
}

/// A key switch with its memory: [`Self::source`] and [`Self::prepare`] for every
/// limb, [`Self::own`] and [`Self::multiply`] for every limb, then
/// [`Self::divide`].
#[derive(Debug)]
pub(crate) struct GroupedSwitch<'w> {
    params: &'w Params,
    level: usize,
    source: &'w mut [u32],
    digits: &'w mut [u32],
    special: [&'w mut [u32]; 2],
    spare: &'w mut [u32],
}

impl<'w> GroupedSwitch<'w> {
    /// # Errors
    /// [`Error::Length`] if the workspace is too small.
    pub(crate) fn new(
        params: &'w Params,
        level: usize,
        work: &'w mut Workspace<'_>,
    ) -> Result<Self> {
        work.check_level(params, level)?;
        let limbs = workspace_limbs(params, level) - 1;
        let mut scratch = Scratch::new("key-switching workspace", work.source, limbs, params.n())?;
        let mut take = |limbs| scratch.take(limbs);
        let alpha = params.special_limbs();
        Ok(Self {
            params,
            level,
            source: take(level + 1)?,
            digits: take(params.digits(level))?,
            special: [take(alpha)?, take(alpha)?],
            spare: work.spare,
        })
    }

    /// Where limb `i` of the polynomial goes, NTT domain.
    pub(crate) fn source(&mut self, i: usize) -> Result<&mut [u32]> {
        limb(self.source, self.params.n(), i)
    }

    /// Makes limb `i` ready to be carried over.
    pub(crate) fn prepare(&mut self, i: usize) -> Result<()> {
        let group = self.group(self.params.digit_of(i));
        let params = self.params;
        prepare(params, group, i, Form::Plain, self.source(i)?)
    }

    fn group(&self, digit: usize) -> Range<usize> {
        self.params.digit(digit, self.level)
    }

    /// Where limb `i` goes once more, as it was, and a limb to make it in.
    pub(crate) fn own(&mut self, i: usize) -> Result<(&mut [u32], &mut [u32])> {
        let own = self.params.digit_of(i);
        Ok((limb(self.digits, self.params.n(), own)?, self.spare))
    }

    /// Multiplies modulo data prime `i`: `x` is limb `i` of the pair that the result
    /// is added to.
    pub(crate) fn multiply<K: AsRef<[u32]> + AsMut<[u32]>>(
        &mut self,
        i: usize,
        key: &SwitchKey<K>,
        x: [&mut [u32]; 2],
    ) -> Result<()> {
        self.carry_to(i)?;
        let factor = start_factor(self.params, i)?;
        multiply_key(self.params, self.level, i, self.digits, key, factor, x)
    }

    /// Carries all digits but the target's own over to it.
    fn carry_to(&mut self, target: usize) -> Result<()> {
        let n = self.params.n();
        for (digit, out) in self.digits.chunks_exact_mut(n).enumerate() {
            let group = self.params.digit(digit, self.level);
            if group.contains(&target) {
                continue;
            }
            let from = self.source.get(group.start * n..group.end * n);
            let from = from.unwrap_or_default();
            carry_forward(self.params, group, from, target, out)?;
        }
        Ok(())
    }

    /// Multiplies modulo the special primes, and divides by them: `x` is the pair.
    pub(crate) fn divide<K: AsRef<[u32]> + AsMut<[u32]>>(
        mut self,
        key: &SwitchKey<K>,
        x: [&mut [u32]; 2],
    ) -> Result<()> {
        let (params, n) = (self.params, self.params.n());
        for (at, target) in special(params).enumerate() {
            self.carry_to(target)?;
            let [r0, r1] = &mut self.special;
            let r = [limb(r0, n, at)?, limb(r1, n, at)?];
            multiply_key(params, self.level, target, self.digits, key, 0, r)?;
        }
        for (x, r) in x.into_iter().zip(self.special) {
            divide(params, x, r, self.spare)?;
        }
        Ok(())
    }
}
