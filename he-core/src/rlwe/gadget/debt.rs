//! Divisions whose transforms are put off.
//!
//! Mod-down subtracts the residue `r` of the special prime `P` from every limb, for which it
//! is carried over and transformed once per data prime. Transforms are linear, and all of
//! this is exact modulo each prime. So a half `x` may stand for `x - NTT(D) / P` with an
//! integer polynomial `D` beside it, in the coefficient domain, and the words that come out
//! in the end are the same, bit for bit:
//!
//! - A doubling `x + x(X^g)` with a switch whose division leaves `r` has
//!   `D + D(X^g) + r`. So a chain of doublings transforms nothing for its first half, of
//!   which a key switch reads no digits.
//! - A rescaling subtracts the transform of another residue anyway: `D / P` is added to that
//!   before. So a debt that lasts until then costs no transform at all.
//!
//! For `mnist-mlp64` 48 of its 350 transforms go, for two limbs of memory.

use super::divide_by;
use crate::arith::Modulus;
use crate::error::{Error, Result, check_len};
use crate::params::{Params, Prime};
use crate::probe::{Probe, Work};
use crate::ring::{automorphism, kernel, ntt};

/// What a half of a ciphertext still owes: an integer polynomial in one limb.
#[derive(Debug)]
pub struct Debt<'a> {
    /// Meaningless where the bound is 0.
    words: &'a mut [i32],
    /// Of the largest coefficient; 0 if nothing is owed.
    bound: &'a mut u32,
}

/// Above this a debt is paid, so that another doubling and division leave it within `i32`.
const MOST: u32 = 1 << 29;

impl<'a> Debt<'a> {
    /// Over a limb of memory and the bound that belongs to it, 0 at first.
    pub const fn new(words: &'a mut [i32], bound: &'a mut u32) -> Self {
        Self { words, bound }
    }

    /// The bound of a debt behind another division by the special prime, where it was
    /// `before` and is doubled, or 0 for none: 0 if it is more than may last, and is paid at
    /// once. What a plan counts by.
    #[must_use]
    pub const fn bound_behind(before: u32, special: u32) -> u32 {
        let bound = before.saturating_mul(2).saturating_add((special >> 1) + 1);
        if bound < MOST { bound } else { 0 }
    }

    /// Whether anything is owed that may last.
    pub(super) const fn is_owing(&self) -> bool {
        *self.bound != 0
    }

    /// Refuses a half that owes something where nothing doubles that.
    pub(super) const fn check_turn(&self, doubling: Option<u32>) -> Result<()> {
        if self.is_owing() && doubling.is_none() {
            return Err(Error::Turn {
                due: "a doubling or a rescaling",
                got: "another operation",
            });
        }
        Ok(())
    }

    /// Takes up what a division by the special prime leaves, `r` in the coefficient domain,
    /// behind a doubling by `g` if there was a debt before ([`Self::check_turn`]). `scratch`
    /// is one limb. From here on the debt is owed if it may last; if not, it is to be paid.
    pub(super) fn take_up(
        &mut self,
        r: &[u32],
        special: &Prime,
        doubling: Option<u32>,
        scratch: &mut [u32],
    ) -> Result<()> {
        check_len("debt", self.words.len(), r.len())?;
        let m = special.modulus();
        match doubling.filter(|_| self.is_owing()) {
            None => {
                for (owed, &r) in self.words.iter_mut().zip(r) {
                    *owed = m.centred(r);
                }
            }
            Some(g) => {
                automorphism::integers(self.words, scratch, g)?;
                let images = scratch.iter().zip(r);
                for (owed, (&image, &r)) in self.words.iter_mut().zip(images) {
                    *owed = owed.wrapping_add(image as i32).wrapping_add(m.centred(r));
                }
            }
        }
        *self.bound = Self::bound_behind(*self.bound, m.value());
        Ok(())
    }

    /// Nothing is owed any more.
    pub(super) const fn settle(&mut self) {
        *self.bound = 0;
    }

    /// Pays a limb of `p x`, which becomes `x - NTT(D) / p`. `scratch` is one limb.
    pub(super) fn pay(
        &self,
        x: &mut [u32],
        special: &Prime,
        to: &Prime,
        scratch: &mut [u32],
        probe: &mut impl Probe,
    ) -> Result<()> {
        probe.begin(Work::ModDown);
        let m = to.modulus();
        let inverse = inverse_of(special, m);
        kernel::lift_i32(self.words, scratch, m.r(), m);
        probe.begin(Work::Ntt);
        ntt::forward(scratch, to)?;
        probe.begin(Work::ModDown);
        kernel::sub_scale(x, scratch, inverse, m);
        Ok(())
    }
}

/// `1 / p` in Montgomery form.
pub(super) fn inverse_of(special: &Prime, m: &Modulus) -> i32 {
    m.to_mont(m.inv(m.reduce(special.modulus().value() as i32)))
}

/// Rescales a half of `level + 1` limbs, which pays what it owes; it keeps `level` of them.
/// `scratch` is two limbs.
///
/// # Errors
/// [`Error::Length`], [`Error::Level`].
pub fn rescale_owing(
    params: &Params,
    level: usize,
    half: &mut [u32],
    debt: Debt<'_>,
    scratch: &mut [u32],
    probe: &mut impl Probe,
) -> Result<()> {
    let n = params.n();
    let (last, special) = (params.prime(level)?, params.prime(params.special())?);
    check_len("half", half.len(), (level + 1) * n)?;
    check_len("scratch", scratch.len(), 2 * n)?;
    check_len("debt", debt.words.len(), n)?;
    let (Some((kept, dropped)), Some((scratch, owed))) = (
        half.split_at_mut_checked(level * n),
        scratch.split_at_mut_checked(n),
    ) else {
        return Ok(());
    };
    probe.begin(Work::Ntt);
    ntt::inverse(dropped, last)?;
    let is_owing = debt.is_owing();
    if is_owing {
        probe.begin(Work::Rescale);
        // In the coefficient domain, where it needs no transform.
        let m = last.modulus();
        kernel::lift_i32(debt.words, owed, -inverse_of(special, m), m);
        for (x, &owed) in dropped.iter_mut().zip(owed.iter()) {
            *x = m.reduce((*x as i32).wrapping_add(owed as i32));
        }
    }
    for (i, limb) in kept.chunks_exact_mut(n).enumerate() {
        let prime = params.prime(i)?;
        if !is_owing {
            divide_by(limb, dropped, last, prime, scratch, Work::Rescale, probe)?;
            continue;
        }
        probe.begin(Work::Rescale);
        let m = prime.modulus();
        kernel::lift(dropped, last.modulus(), scratch, m.r(), m);
        kernel::lift_i32(debt.words, owed, inverse_of(special, m), m);
        for (x, &owed) in scratch.iter_mut().zip(owed.iter()) {
            *x = m.reduce((*x as i32).wrapping_add(owed as i32));
        }
        probe.begin(Work::Ntt);
        ntt::forward(scratch, prime)?;
        probe.begin(Work::Rescale);
        kernel::sub_scale(limb, scratch, inverse_of(last, m), m);
    }
    *debt.bound = 0;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The remainder of a division is at most half of the prime, rounded up, and what was
    /// owed is doubled.
    #[test]
    fn a_debt_lasts_below_its_limit_and_is_paid_at_it() {
        assert_eq!(Debt::bound_behind(0, 262_147), 131_074);
        assert_eq!(Debt::bound_behind(131_074, 262_147), 393_222);
        assert_eq!(Debt::bound_behind((MOST - 4) / 2, 5), MOST - 1);
        assert_eq!(Debt::bound_behind((MOST - 4) / 2, 7), 0);
        assert_eq!(Debt::bound_behind(u32::MAX, u32::MAX), 0);
    }
}
