//! Key switching: gadget product and mod-down, one target limb at a time.
//!
//! The input is one polynomial in the coefficient domain; digit `i` is its
//! residue modulo `q_i`, centred. The product with a switching key is formed
//! for the special limb first, whose result is kept as the correction for
//! division by `P`; then limb after limb, each finished before the next is
//! begun. So neither the key nor the product over `Q P` is ever held as a
//! whole: a key is consumed as a stream, in the order that
//! [`super::keys::switching_key`] writes it, in chunks of any size.
//!
//! ```text
//! for target in [special, 0, 1, .. level]:
//!     begin_limb(target)
//!     for digit in 0 ..= level:
//!         begin_digit(digit, ..)            one NTT
//!         absorb(b, a)                      any number of chunks
//!     end_limb()                            special: two inverse NTTs, kept
//!                                           others: two NTTs, result in acc
//! ```

use crate::error::{Error, Result, check_len};
use crate::params::{Params, Prime};
use crate::ring::{automorphism, kernel, ntt};

/// Words of memory that a key switch works in: two accumulators, two
/// corrections, one transformed digit.
#[must_use]
pub const fn scratch_words(params: &Params) -> usize {
    5 * params.n()
}

/// The memory of a key switch, five limbs.
#[derive(Debug)]
pub struct Scratch<'a> {
    acc: [&'a mut [u32]; 2],
    correction: [&'a mut [u32]; 2],
    digit: &'a mut [u32],
}

impl<'a> Scratch<'a> {
    /// Divides `words` up.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are [`scratch_words`] of them.
    pub fn new(params: &Params, words: &'a mut [u32]) -> Result<Self> {
        let n = params.n();
        check_len("key-switching scratch", words.len(), scratch_words(params))?;
        let (a0, rest) = words.split_at_mut(n);
        let (a1, rest) = rest.split_at_mut(n);
        let (k0, rest) = rest.split_at_mut(n);
        let (k1, digit) = rest.split_at_mut(n);
        Ok(Self {
            acc: [a0, a1],
            correction: [k0, k1],
            digit,
        })
    }

    /// The limb of the transformed digit, free between digits.
    pub fn spare(&mut self) -> &mut [u32] {
        self.digit
    }

    /// The two halves of the result after [`KeySwitch::end_limb`] (NTT
    /// domain), and the spare limb.
    pub fn result(&mut self) -> (&[u32], &[u32], &mut [u32]) {
        let [a0, a1] = &self.acc;
        (a0, a1, self.digit)
    }
}

/// Position of a running key switch.
#[derive(Clone, Copy, Debug)]
pub struct KeySwitch {
    level: usize,
    target: usize,
    absorbed: usize,
}

impl KeySwitch {
    /// A key switch of a polynomial at `level`.
    ///
    /// # Errors
    /// [`Error::Level`].
    pub fn new(params: &Params, level: usize) -> Result<Self> {
        params.check_level("key switching", level)?;
        Ok(Self {
            level,
            target: params.special(),
            absorbed: 0,
        })
    }

    /// Starts a target limb, [`Params::special`] or `0 ..= level`.
    pub fn begin_limb(&mut self, target: usize, scratch: &mut Scratch<'_>) {
        self.target = target;
        for acc in &mut scratch.acc {
            acc.fill(0);
        }
    }

    /// Prepares digit `digit`: `source` is limb `digit` of the input in the
    /// coefficient domain.
    ///
    /// # Errors
    /// [`Error::Level`] or [`Error::Length`].
    pub fn begin_digit(
        &mut self,
        params: &Params,
        digit: usize,
        source: &[u32],
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        check_len("digit", source.len(), params.n())?;
        let to = params.prime(self.target)?;
        let m = to.modulus();
        kernel::lift(
            source,
            params.prime(digit)?.modulus(),
            scratch.digit,
            m.r2(),
            m,
        );
        self.absorbed = 0;
        ntt::forward(scratch.digit, to)
    }

    /// Prepares the digit whose prime is the target limb's from the input's
    /// NTT form, `g` being the automorphism yet to be applied to it (1 for
    /// none): saves the transform of [`Self::begin_digit`].
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Length`] or [`Error::Galois`].
    pub fn begin_own_digit(
        &mut self,
        params: &Params,
        source_ntt: &[u32],
        g: u32,
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        let m = params.prime(self.target)?.modulus();
        automorphism::ntt(source_ntt, scratch.digit, g)?;
        kernel::scale(scratch.digit, m.r2(), m);
        self.absorbed = 0;
        Ok(())
    }

    /// Multiplies the next coefficients of the digit by as many of the key's
    /// two halves, and accumulates.
    ///
    /// # Errors
    /// [`Error::Length`] if the halves differ or exceed what is left.
    pub fn absorb(
        &mut self,
        params: &Params,
        b: &[u32],
        a: &[u32],
        scratch: &mut Scratch<'_>,
    ) -> Result<()> {
        check_len("key half", a.len(), b.len())?;
        let end = self.absorbed + b.len();
        let range = self.absorbed..end;
        let m = params.prime(self.target)?.modulus();
        let [acc0, acc1] = &mut scratch.acc;
        let parts = (
            acc0.get_mut(range.clone()),
            acc1.get_mut(range.clone()),
            scratch.digit.get(range),
        );
        let (Some(acc0), Some(acc1), Some(d)) = parts else {
            return Err(Error::Length {
                what: "key chunk",
                expected: params.n() - self.absorbed,
                got: b.len(),
            });
        };
        kernel::mul_acc_two(acc0, acc1, b, a, d, m);
        self.absorbed = end;
        Ok(())
    }

    /// Ends the special limb: keeps its result as the correction of the
    /// others.
    ///
    /// # Errors
    /// [`Error::Level`].
    pub fn end_special(&self, params: &Params, scratch: &mut Scratch<'_>) -> Result<()> {
        let special = params.prime(params.special())?;
        for (acc, keep) in scratch.acc.iter().zip(&mut scratch.correction) {
            keep.copy_from_slice(acc);
            ntt::inverse(keep, special)?;
        }
        Ok(())
    }

    /// Ends a data limb: subtracts the correction and divides by `P`; the two
    /// halves are then in [`Scratch::result`]. The transformed digit is lost.
    ///
    /// # Errors
    /// [`Error::Level`].
    pub fn end_limb(&self, params: &Params, scratch: &mut Scratch<'_>) -> Result<()> {
        let special = params.prime(params.special())?;
        let to = params.prime(self.target)?;
        let m = to.modulus();
        let factor = m.to_mont(m.inv(m.reduce(special.modulus().value() as i32)));
        for (acc, correction) in scratch.acc.iter_mut().zip(&scratch.correction) {
            divide_by(acc, correction, special, to, factor, scratch.digit)?;
        }
        Ok(())
    }

    /// Level of the polynomial that is switched.
    #[must_use]
    pub const fn level(&self) -> usize {
        self.level
    }
}

/// `x = (x - [r]_to) / p` with `r` in the coefficient domain modulo `from`,
/// centred: the common step of mod-down and rescale (`factor = p^-1`,
/// Montgomery form; `scratch` is one limb).
///
/// # Errors
/// [`Error::Length`].
pub fn divide_by(
    x: &mut [u32],
    r: &[u32],
    from: &Prime,
    to: &Prime,
    factor: i32,
    scratch: &mut [u32],
) -> Result<()> {
    let m = to.modulus();
    kernel::lift(r, from.modulus(), scratch, m.r(), m);
    ntt::forward(scratch, to)?;
    kernel::sub_scale(x, scratch, factor, m);
    Ok(())
}
