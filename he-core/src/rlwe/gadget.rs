//! Key switching: gadget product and mod-down, in the ciphertext's own memory.
//!
//! A polynomial `s` is switched and added to a pair `(x0, x1)`, both over the
//! data primes. Digit `i` of `s` is its residue modulo `q_i`, centred; the
//! product with a switching key is over `Q P`, and dividing it by `P` ends the
//! switch. The pair itself is the accumulator over the data primes: each of its
//! limbs is multiplied by `P` first, and as `(P x + k - r) / P = x + (k - r) / P`
//! exactly, where `r` is the residue of `k` modulo `P`, the result has the bits
//! of the product formed apart and added at the end.
//!
//! Little is alive at a time. Limbs of memory:
//!
//! | step | at level `l` | at level 3 |
//! |---|---|---|
//! | the pair, at every step | `2 (l + 1)` | 8 |
//! | own limbs; the other data primes; the special prime (below) | `l + 2` | 5 |
//! | division by `P` | 3 | 3 |
//!
//! So 13 limbs at level 3, 208 KiB at N = 4096, where a product formed apart, one target
//! limb after the other, took 17. Waiting digits packed into bits would, on paper, take
//! 196 KiB and about a million instructions more per switch; 208 KiB fit a board of 256.
//!
//! A key is consumed as a stream in the order of [`KeyLimb`], in chunks of any
//! size, and never resident:
//!
//! 1. Own limbs: digit `i` modulo `q_i` is limb `i` of `s` as it stands, in the
//!    NTT domain. No transform.
//! 2. Digit by digit, the other data primes: the digit is carried over and
//!    transformed in the spare limb.
//! 3. The special prime, all digits. It comes last because no digit is needed
//!    any more then: each is carried over and transformed where it lies, and
//!    the two accumulators take the spare limb and, in place, the first digit.
//! 4. Division by `P`.
//!
//! So `level + 2` limbs of memory are enough beside the pair: `s` and one.
//!
//! That is for sets with one special prime. With several special primes a digit has
//! several primes too, and keys are in memory: see `grouped`. `order` is the order of
//! a key's limbs, `workspace` the memory that a switch takes, `factors` the products
//! of primes that gadget and division need.

mod debt;
pub(crate) mod factors;
pub(crate) mod grouped;
pub(crate) mod order;
mod workspace;

pub use debt::{Debt, rescale_owing};
pub use order::KeyLimb;
pub use workspace::{Workspace, fast_workspace_words, workspace_words};

use crate::error::{Error, Result, check_len};
use crate::params::{Params, Prime};
use crate::probe::{Probe, Work};
use crate::ring::kernel::Carried;
use crate::ring::{copy, kernel, ntt};
use workspace::limb;

/// What a key switch does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Preparing the digit for this limb of the key.
    Digit(KeyLimb),
    /// This limb of the key, or the rest of it.
    Key(KeyLimb),
    /// Division by the special prime.
    Division,
}

impl Due {
    const fn name(due: Option<Self>) -> &'static str {
        match due {
            Some(Self::Digit(_)) => "a digit",
            Some(Self::Key(_)) => "a chunk of the key",
            Some(Self::Division) => "the division",
            None => "nothing more",
        }
    }
}

/// Position of a running key switch.
#[derive(Clone, Copy, Debug)]
pub struct KeySwitch {
    level: usize,
    due: Option<Due>,
    absorbed: usize,
}

impl KeySwitch {
    /// A key switch of a polynomial at `level`.
    ///
    /// # Errors
    /// [`Error::Level`]; [`Error::Streamed`] for a set with several special primes.
    pub fn new(params: &Params, level: usize) -> Result<Self> {
        params.check_level("key switching", level)?;
        let special = params.special_limbs();
        if special != 1 {
            return Err(Error::Streamed { special });
        }
        Ok(Self {
            level,
            due: Some(Due::Digit(KeyLimb::FIRST)),
            absorbed: 0,
        })
    }

    /// What comes next; `None` when the result is complete.
    #[must_use]
    pub const fn due(&self) -> Option<Due> {
        self.due
    }

    /// That something other is due than `got`.
    pub(crate) const fn out_of_turn(&self, got: &'static str) -> Error {
        Error::Turn {
            due: Due::name(self.due),
            got,
        }
    }

    fn digit_due(&self) -> Result<KeyLimb> {
        match self.due {
            Some(Due::Digit(at)) => Ok(at),
            _ => Err(self.out_of_turn("a digit")),
        }
    }

    /// Prepares a digit for its own prime. Its limb in `work` holds the
    /// polynomial's, NTT domain; `x0` and `x1` are the same limb of the pair
    /// that the switched polynomial is added to.
    ///
    /// # Errors
    /// [`Error::Turn`] if something else is due, [`Error::Level`],
    /// [`Error::Length`].
    pub fn begin_own_digit(
        &mut self,
        params: &Params,
        x0: &mut [u32],
        x1: &mut [u32],
        work: &mut Workspace<'_>,
    ) -> Result<()> {
        let at = self.digit_due()?;
        if !at.is_own() {
            return Err(self.out_of_turn("an own digit"));
        }
        let special = params.prime(params.special())?.modulus().value();
        let m = params.prime(at.target)?.modulus();
        let p = m.to_mont(m.reduce(special as i32));
        for x in [x0, x1] {
            check_len("limb", x.len(), params.n())?;
            kernel::scale(x, p, m);
        }
        let (source, _) = work.source_and_spare(at.digit)?;
        kernel::scale(source, m.r2(), m);
        self.begin_key(at);
        Ok(())
    }

    /// Prepares a digit for another prime than its own.
    ///
    /// # Errors
    /// As [`Self::begin_own_digit`].
    pub fn begin_digit(
        &mut self,
        params: &Params,
        work: &mut Workspace<'_>,
        probe: &mut impl Probe,
    ) -> Result<()> {
        let at = self.digit_due()?;
        if at.is_own() {
            return Err(self.out_of_turn("another prime's digit"));
        }
        let (from, to) = (params.prime(at.digit)?, params.prime(at.target)?);
        let m = to.modulus();
        let (source, spare) = work.source_and_spare(at.digit)?;
        if at.leaves_its_prime(params, self.level) {
            probe.begin(Work::Ntt);
            ntt::inverse_from_mont(source, from)?;
        }
        probe.begin(Work::Digit);
        if at.target == params.special() {
            lift_in_place(source, from, m.r2(), to);
            probe.begin(Work::Ntt);
            ntt::forward(source, to)?;
        } else {
            kernel::lift(source, from.modulus(), spare, m.r2(), m);
            probe.begin(Work::Ntt);
            ntt::forward(spare, to)?;
        }
        self.begin_key(at);
        Ok(())
    }

    const fn begin_key(&mut self, at: KeyLimb) {
        self.due = Some(Due::Key(at));
        self.absorbed = 0;
    }

    /// Multiplies the next coefficients of the digit by as many of the key's
    /// two halves, and accumulates. `x0` and `x1` are the halves of the pair.
    ///
    /// # Errors
    /// [`Error::Turn`] if no key is due; [`Error::Length`] if the chunk's halves
    /// differ or exceed what is left of the limb.
    pub fn absorb(
        &mut self,
        params: &Params,
        x0: &mut [u32],
        x1: &mut [u32],
        b: &[u32],
        a: &[u32],
        work: &mut Workspace<'_>,
    ) -> Result<()> {
        let Some(Due::Key(at)) = self.due else {
            return Err(self.out_of_turn("a chunk of the key"));
        };
        check_len("key half", a.len(), b.len())?;
        let n = params.n();
        let end = self.absorbed.saturating_add(b.len());
        let range = self.absorbed..end;
        let too_long = Error::Length {
            what: "key chunk",
            expected: n - self.absorbed,
            got: b.len(),
        };
        if end > n {
            return Err(too_long);
        }
        let m = params.prime(at.target)?.modulus();
        let Workspace { spare, source } = work;
        if at.target != params.special() {
            let digit = if at.is_own() {
                &*limb(source, n, at.digit)?
            } else {
                &**spare
            };
            let parts = (
                limb(x0, n, at.target)?.get_mut(range.clone()),
                limb(x1, n, at.target)?.get_mut(range.clone()),
                digit.get(range),
            );
            let (Some(x0), Some(x1), Some(digit)) = parts else {
                return Err(too_long);
            };
            kernel::mul_acc_two(x0, x1, b, a, digit, m);
        } else {
            let (first, others) = source.split_at_mut_checked(n).ok_or(too_long)?;
            let parts = (spare.get_mut(range.clone()), first.get_mut(range.clone()));
            let (Some(acc0), Some(acc1)) = parts else {
                return Err(too_long);
            };
            if let Some(before) = at.digit.checked_sub(1) {
                let digit = limb(others, n, before)?.get(range).ok_or(too_long)?;
                kernel::mul_acc_two(acc0, acc1, b, a, digit, m);
            } else {
                // The first digit becomes the second accumulator.
                copy(acc0, b);
                kernel::mul(acc0, acc1, m);
                kernel::mul(acc1, a, m);
            }
        }
        self.absorbed = end;
        if end == n {
            self.due = Some(match at.next_streamed(params, self.level) {
                Some(next) => Due::Digit(next),
                None => Due::Division,
            });
        }
        Ok(())
    }

    /// What is summed up of both halves at the special prime, when a division is due, and a
    /// limb of scratch.
    #[inline(always)]
    fn residues<'w>(
        &self,
        n: usize,
        work: &'w mut Workspace<'_>,
    ) -> Result<([&'w mut [u32]; 2], &'w mut [u32])> {
        if self.due != Some(Due::Division) {
            return Err(self.out_of_turn("the division"));
        }
        let Workspace { spare, source } = work;
        let (acc1, rest) = source.split_at_mut_checked(n).unwrap_or_default();
        Ok(([&mut **spare, acc1], limb(rest, n, 0)?))
    }

    /// Divides by the special prime; the halves then hold the result.
    ///
    /// # Errors
    /// [`Error::Turn`] if the key is not complete, [`Error::Level`] or
    /// [`Error::Length`].
    pub fn divide(
        &mut self,
        params: &Params,
        x0: &mut [u32],
        x1: &mut [u32],
        work: &mut Workspace<'_>,
        probe: &mut impl Probe,
    ) -> Result<()> {
        let n = params.n();
        let (residues, scratch) = self.residues(n, work)?;
        let special = params.prime(params.special())?;
        for (x, r) in [x0, x1].into_iter().zip(residues) {
            check_len("half", x.len(), (self.level + 1) * n)?;
            probe.begin(Work::Ntt);
            ntt::inverse(r, special)?;
            for (i, x) in x.chunks_exact_mut(n).enumerate() {
                let to = params.prime(i)?;
                divide_by(x, r, special, to, scratch, Work::ModDown, probe)?;
            }
        }
        self.due = None;
        Ok(())
    }
}

/// What both halves owe, and how far a division may leave it so.
#[derive(Debug)]
pub struct Debts<'a> {
    /// Of the halves.
    pub halves: [Debt<'a>; 2],
    /// The Galois element of the doubling that the switch was part of.
    pub doubling: Option<u32>,
    /// Which halves may go on owing. The first may where nothing but doublings, sums and a
    /// rescaling follows, the second where it is the rescaling alone.
    pub lasts: [bool; 2],
}

impl KeySwitch {
    /// As [`Self::divide`], with divisions put off as [`Debts`] says.
    ///
    /// # Errors
    /// As [`Self::divide`]; [`Error::Turn`] if the first half owes something and this
    /// operation is no doubling, or if the second does, whose digits a switch reads.
    pub fn divide_owing(
        &mut self,
        params: &Params,
        [x0, x1]: [&mut [u32]; 2],
        debts: Debts<'_>,
        work: &mut Workspace<'_>,
        probe: &mut impl Probe,
    ) -> Result<()> {
        let n = params.n();
        let (residues, scratch) = self.residues(n, work)?;
        let special = params.prime(params.special())?;
        let Debts {
            halves: [debt0, debt1],
            doubling,
            lasts,
        } = debts;
        // The digits of the second half were read: they must not have owed anything.
        debt0.check_turn(doubling)?;
        debt1.check_turn(None)?;
        let [r0, r1] = residues;
        let halves = [
            (x0, r0, debt0, doubling, lasts[0]),
            (x1, r1, debt1, None, lasts[1]),
        ];
        for (x, r, mut debt, doubling, lasts) in halves {
            check_len("half", x.len(), (self.level + 1) * n)?;
            probe.begin(Work::Ntt);
            ntt::inverse(r, special)?;
            probe.begin(Work::ModDown);
            debt.take_up(r, special, doubling, scratch)?;
            let lasts = lasts && debt.is_owing();
            for (i, x) in x.chunks_exact_mut(n).enumerate() {
                let to = params.prime(i)?;
                if lasts {
                    let m = to.modulus();
                    kernel::scale(x, debt::inverse_of(special, m), m);
                } else {
                    debt.pay(x, special, to, scratch, probe)?;
                }
            }
            if !lasts {
                debt.settle();
            }
        }
        self.due = None;
        Ok(())
    }
}

/// [`kernel::lift`] where the source lies.
fn lift_in_place(limb: &mut [u32], from: &Prime, factor: i32, to: &Prime) {
    let mut block = [0; 64];
    for part in limb.chunks_mut(block.len()) {
        let Some(block) = block.get_mut(..part.len()) else {
            return;
        };
        copy(block, part);
        kernel::lift(block, from.modulus(), part, factor, to.modulus());
    }
}

/// `x = (x - [r]_to) / p` with `r` in the coefficient domain modulo `from`,
/// whose prime is `p`, centred: the common step of mod-down and rescale
/// (`work` is which of them; `scratch` is one limb).
///
/// # Errors
/// [`Error::Length`].
pub fn divide_by(
    x: &mut [u32],
    r: &[u32],
    from: &Prime,
    to: &Prime,
    scratch: &mut [u32],
    work: Work,
    probe: &mut impl Probe,
) -> Result<()> {
    probe.begin(work);
    let m = to.modulus();
    let factor = m.to_mont(m.inv(m.reduce(from.modulus().value() as i32)));
    // In one pass, where there is a kernel of it.
    if cfg!(target_arch = "x86_64") {
        probe.begin(Work::Ntt);
        let terms = [Carried {
            from: *from.modulus(),
            factor: m.r(),
        }];
        let (factors, z) = ([factor, -factor], to.forward_table());
        let done = kernel::mod_down(x, (r, &terms), scratch, factors, m, z);
        probe.begin(work);
        if done {
            return Ok(());
        }
    }
    kernel::lift(r, from.modulus(), scratch, m.r(), m);
    probe.begin(Work::Ntt);
    ntt::forward(scratch, to)?;
    probe.begin(work);
    kernel::sub_scale(x, scratch, factor, m);
    Ok(())
}
