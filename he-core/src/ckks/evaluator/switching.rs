//! Operations that switch keys: relinearisation, rotation, conjugation.
//!
//! [`Switching`] is the step machine, for a key that arrives as a stream; the
//! rest takes keys in memory.

use super::product::multiply_constant;
use crate::arith::Modulus;
use crate::ckks::scale::check_scale;
use crate::ckks::track::Known;
use crate::ckks::{Ciphertext, Constant};
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::probe::{Probe, Work};
use crate::ring::{automorphism, copy, kernel};
use crate::rlwe::gadget::KeySwitch;
use crate::rlwe::gadget::grouped::GroupedSwitch;
use crate::rlwe::gadget::{Debt, Debts};
pub use crate::rlwe::gadget::{Due, Workspace, fast_workspace_words, workspace_words};
use crate::rlwe::keys::{KeySet, SwitchKey, SwitchTarget, inner_sum_rotations};

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
    /// Switch the third part back into the first two; it is zero then, see
    /// [`Ciphertext::into_two_parts`].
    Relinearize,
}

impl SwitchOp {
    /// What the key must switch from.
    #[must_use]
    pub const fn target(self) -> SwitchTarget {
        match self {
            Self::Rotate(g) | Self::RotateAdd(g) => SwitchTarget::Galois(g),
            Self::Square | Self::Relinearize => SwitchTarget::Square,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Rotate(_) | Self::RotateAdd(_) => "rotation",
            Self::Square => "square",
            Self::Relinearize => "relinearisation",
        }
    }

    /// What an operand becomes that carries `known`.
    fn track(self, params: &Params, level: usize, known: Known) -> Known {
        match self {
            Self::Rotate(_) | Self::Relinearize => known,
            Self::RotateAdd(g) => known.images([1, g].into_iter()),
            Self::Square => known.square(),
        }
        .switched(params, level)
    }

    const fn parts(self) -> usize {
        match self {
            Self::Rotate(_) | Self::RotateAdd(_) | Self::Square => 2,
            Self::Relinearize => 3,
        }
    }

    /// Checks the operands of a whole operation; the scale of the result.
    fn check<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
        self,
        params: &Params,
        ct: &Ciphertext<S, PARTS>,
    ) -> Result<f64> {
        ct.check_params(params)?;
        if PARTS != self.parts() {
            return Err(Error::Parts {
                operation: self.name(),
                expected: self.parts(),
                got: PARTS,
            });
        }
        match self {
            Self::Square => {
                let scale = ct.scale() * ct.scale();
                check_scale(self.name(), scale)?;
                return Ok(scale);
            }
            Self::Relinearize => {}
            Self::Rotate(g) | Self::RotateAdd(g) => automorphism::check(g, params.n())?,
        }
        Ok(ct.scale())
    }

    /// Limb of the pair that the switched polynomial is added to, in place, and
    /// of that polynomial, to `source`. `spare` is one limb.
    fn pair(
        self,
        parts: &mut [&mut [u32]],
        source: &mut [u32],
        spare: &mut [u32],
        m: &Modulus,
    ) -> Result<()> {
        let (c0, c1, c2) = split(parts);
        match self {
            Self::Square => kernel::square(c0, c1, source, m),
            Self::Relinearize => {
                check_len("third part", c2.len(), source.len())?;
                copy(source, c2);
                c2.fill(0);
            }
            Self::Rotate(g) => {
                automorphism::ntt(c1, source, g)?;
                automorphism::ntt(c0, spare, g)?;
                copy(c0, spare);
                c1.fill(0);
            }
            Self::RotateAdd(g) => {
                automorphism::ntt(c1, source, g)?;
                automorphism::ntt(c0, spare, g)?;
                kernel::add(c0, spare, m);
            }
        }
        Ok(())
    }

    /// The same limb of the polynomial that is switched, and the parts as they
    /// are.
    fn source(self, parts: &mut [&mut [u32]], source: &mut [u32], m: &Modulus) -> Result<()> {
        let (_, c1, c2) = split(parts);
        match self {
            Self::Square => {
                copy(source, c1);
                kernel::scale(source, m.r2(), m);
                kernel::mul(source, c1, m);
            }
            Self::Relinearize => copy(source, c2),
            Self::Rotate(g) | Self::RotateAdd(g) => automorphism::ntt(c1, source, g)?,
        }
        Ok(())
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
    /// [`Error::Params`], [`Error::Level`], [`Error::Galois`]; [`Error::Parts`]
    /// where the operation takes another number of parts; [`Error::Streamed`] for
    /// a set with several special primes.
    pub fn start<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
        params: &Params,
        op: SwitchOp,
        ct: &mut Ciphertext<S, PARTS>,
    ) -> Result<Self> {
        let scale = op.check(params, ct)?;
        let run = KeySwitch::new(params, ct.level())?;
        ct.set(ct.level(), scale);
        let level = ct.level();
        ct.update(|known| op.track(params, level, known));
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
    pub fn digit<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
        &mut self,
        params: &Params,
        ct: &mut Ciphertext<S, PARTS>,
        work: &mut Workspace<'_>,
        probe: &mut impl Probe,
    ) -> Result<()> {
        ct.check_params(params)?;
        let at = match self.due() {
            Some(Due::Digit(at)) if at.is_own() => at,
            _ => return self.run.begin_digit(params, work, probe),
        };
        probe.begin(Work::Digit);
        let m = params.prime(at.target)?.modulus();
        let mut parts = ct.limbs_mut(at.target)?;
        let (source, spare) = work.source_and_spare(at.digit)?;
        self.op.pair(&mut parts, source, spare, m)?;
        let (c0, c1, _) = split(&mut parts);
        self.run.begin_own_digit(params, c0, c1, work)
    }

    /// Multiplies the digit by the next coefficients of the key: `b` as sent,
    /// `a` expanded from the key's seed. The limbs come in the order of
    /// [`crate::rlwe::KeyLimb`], in chunks of any length that divides a limb.
    ///
    /// # Errors
    /// [`Error::Turn`] if no key is due; [`Error::Params`]; [`Error::Length`] if
    /// the chunk exceeds its limb.
    pub fn absorb<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
        &mut self,
        params: &Params,
        ct: &mut Ciphertext<S, PARTS>,
        work: &mut Workspace<'_>,
        b: &[u32],
        a: &[u32],
    ) -> Result<()> {
        ct.check_params(params)?;
        let mut parts = ct.words_mut();
        let (c0, c1, _) = split(&mut parts);
        self.run.absorb(params, c0, c1, b, a, work)
    }

    /// Divides by the special prime, which completes the operation.
    ///
    /// # Errors
    /// [`Error::Turn`] if the key is not complete; [`Error::Params`].
    pub fn divide<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
        &mut self,
        params: &Params,
        ct: &mut Ciphertext<S, PARTS>,
        work: &mut Workspace<'_>,
        probe: &mut impl Probe,
    ) -> Result<()> {
        ct.check_params(params)?;
        let mut parts = ct.words_mut();
        let (c0, c1, _) = split(&mut parts);
        self.run.divide(params, c0, c1, work, probe)
    }
}

impl Switching {
    /// As [`Self::divide`], with transforms put off ([`Debt`]) where `lasts` says that a
    /// half may owe them: the first where doublings ([`SwitchOp::RotateAdd`]), sums and
    /// [`rescale_owing`] alone follow, the second where that is the rescaling. The result is
    /// the same.
    ///
    /// # Errors
    /// As [`Self::divide`]; [`Error::Turn`] if the first half owes something and this
    /// operation is no doubling, or if the second does, whose digits a switch reads.
    ///
    /// [`rescale_owing`]: super::level::rescale_owing
    pub fn divide_owing<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
        &mut self,
        params: &Params,
        ct: &mut Ciphertext<S, PARTS>,
        halves: [Debt<'_>; 2],
        lasts: [bool; 2],
        work: &mut Workspace<'_>,
        probe: &mut impl Probe,
    ) -> Result<()> {
        ct.check_params(params)?;
        let doubling = match self.op {
            SwitchOp::RotateAdd(g) => Some(g),
            SwitchOp::Rotate(_) | SwitchOp::Square | SwitchOp::Relinearize => None,
        };
        let debts = Debts {
            halves,
            doubling,
            lasts,
        };
        let mut parts = ct.words_mut();
        let (c0, c1, _) = split(&mut parts);
        self.run.divide_owing(params, [c0, c1], debts, work, probe)
    }
}

/// Whether [`switch`] has the way of `gadget::grouped`. A microcontroller has not: it
/// would be code that no set for a board uses.
const IN_MEMORY: bool = cfg!(not(all(target_arch = "arm", target_os = "none")));

/// The parts, the third empty where there are two.
fn split<'p>(parts: &'p mut [&mut [u32]]) -> (&'p mut [u32], &'p mut [u32], &'p mut [u32]) {
    match parts {
        [c0, c1] => (c0, c1, &mut []),
        [c0, c1, c2] => (c0, c1, c2),
        _ => Default::default(),
    }
}

/// Runs a whole switching operation with a key in memory, which may be for a
/// higher level. It is faster with [`fast_workspace_words`] and a key that keeps its uniform
/// half, on x86-64 any key; not on a microcontroller, where a set with several
/// special primes is refused.
///
/// # Errors
/// [`Error::Key`] if the key switches from something else or is for a lower
/// level; [`Error::Level`] if the workspace is; as [`Switching::start`]. The
/// ciphertext is unchanged then.
pub fn switch<S, K, const PARTS: usize>(
    params: &Params,
    op: SwitchOp,
    ct: &mut Ciphertext<S, PARTS>,
    key: &SwitchKey<K>,
    work: &mut Workspace<'_>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    let level = ct.level();
    key.check(params, op.target(), level)?;
    work.check_level(params, level)?;
    if IN_MEMORY {
        // Where the other half is expanded by vectors, too.
        let is_fast = key.is_expanded() || cfg!(target_arch = "x86_64");
        let faster = is_fast && work.is_fast(params, level);
        if params.special_limbs() > 1 || faster {
            return switch_grouped(params, op, ct, key, work);
        }
    }
    let mut run = Switching::start(params, op, ct)?;
    while let Some(due) = run.due() {
        match due {
            Due::Digit(_) => run.digit(params, ct, work, &mut ())?,
            Due::Key(at) => key.feed(params, at, |b, a| run.absorb(params, ct, work, b, a))?,
            Due::Division => run.divide(params, ct, work, &mut ())?,
        }
    }
    Ok(())
}

/// The same with all digits of a prime at a time.
fn switch_grouped<S, K, const PARTS: usize>(
    params: &Params,
    op: SwitchOp,
    ct: &mut Ciphertext<S, PARTS>,
    key: &SwitchKey<K>,
    work: &mut Workspace<'_>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    let level = ct.level();
    let scale = op.check(params, ct)?;
    let mut run = GroupedSwitch::new(params, level, work)?;
    for i in 0..=level {
        let m = params.prime(i)?.modulus();
        op.source(&mut ct.limbs_mut(i)?, run.source(i)?, m)?;
        run.prepare(i)?;
    }
    for i in 0..=level {
        let m = params.prime(i)?.modulus();
        let mut parts = ct.limbs_mut(i)?;
        let (own, spare) = run.own(i)?;
        op.pair(&mut parts, own, spare, m)?;
        let (c0, c1, _) = split(&mut parts);
        run.multiply(i, key, [c0, c1])?;
    }
    let mut parts = ct.words_mut();
    let (c0, c1, _) = split(&mut parts);
    run.divide(key, [c0, c1])?;
    ct.set(level, scale);
    ct.update(|known| op.track(params, level, known));
    Ok(())
}

/// Brings a product back to two parts with the key of
/// [`SwitchTarget::Square`]; gives the storage of the third back.
///
/// # Errors
/// As [`switch`].
pub fn relinearize<S, K>(
    params: &Params,
    mut ct: Ciphertext<S, 3>,
    key: &SwitchKey<K>,
    work: &mut Workspace<'_>,
) -> Result<(Ciphertext<S>, S)>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    switch(params, SwitchOp::Relinearize, &mut ct, key, work)?;
    Ok(ct.without_third())
}

/// Rotates the slots to the left by any number of steps, to the right if it is
/// negative: slot `i` takes the value of slot `i + steps`, modulo `N / 2`. With
/// the key of just that rotation it takes one key switch; otherwise one for
/// every 1 among the binary digits of `steps mod N / 2`, with the keys of
/// powers of two ([`crate::rlwe::keys::powers_of_two`]).
///
/// # Errors
/// [`Error::Key`] naming the first key that is missing; as [`switch`].
pub fn rotate<S, K>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    steps: i32,
    keys: KeySet<'_, K>,
    work: &mut Workspace<'_>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    let (n, level) = (params.n(), ct.level());
    let steps = steps.rem_euclid(params.slots() as i32);
    if steps == 0 {
        return ct.check_params(params);
    }
    let whole = automorphism::rotation(n, steps);
    if let Ok(key) = keys.find(SwitchTarget::Galois(whole), level) {
        return switch(params, SwitchOp::Rotate(whole), ct, key, work);
    }
    let powers = || {
        (0..i32::BITS - 1)
            .map(|bit| 1 << bit)
            .filter(move |power| steps & power != 0)
            .map(|power| automorphism::rotation(n, power))
    };
    each_found(params, ct, keys, powers, SwitchOp::Rotate, work)
}

/// Takes the complex conjugate of every slot.
///
/// # Errors
/// As [`rotate`].
pub fn conjugate<S, K>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    keys: KeySet<'_, K>,
    work: &mut Workspace<'_>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    let g = automorphism::conjugation(params.n());
    let key = keys.find(SwitchTarget::Galois(g), ct.level())?;
    switch(params, SwitchOp::Rotate(g), ct, key, work)
}

/// Sums slots: slot `i` becomes the sum of the slots `i + k stride` for
/// `k = 0 .. count`, modulo `N / 2`, in `log2 count` key switches with the keys
/// of [`crate::rlwe::keys::inner_sum`]. `count` is a power of two. What comes
/// round to the same slots again is counted again, by doubling.
///
/// # Errors
/// [`Error::Length`] for another count, or one above the number of slots; as
/// [`rotate`].
pub fn inner_sum<S, K>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    stride: i32,
    count: usize,
    keys: KeySet<'_, K>,
    work: &mut Workspace<'_>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    let expected = count.next_power_of_two().min(params.slots());
    check_len("inner sum", count, expected.max(1))?;
    // A rotation by a multiple of N / 2 is none, and so are all that follow.
    let elements = || inner_sum_rotations(params, stride, count);
    let doublings = count.trailing_zeros() as usize - elements().count();
    each_found(params, ct, keys, elements, SwitchOp::RotateAdd, work)?;
    let times = Constant::real((1u64 << doublings) as f64, 1.0)?;
    multiply_constant(params, ct, &times)
}

/// Carries `op` out for every Galois element, once all their keys are found.
fn each_found<S, K, I: Iterator<Item = u32>>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    keys: KeySet<'_, K>,
    elements: impl Fn() -> I,
    op: impl Fn(u32) -> SwitchOp,
    work: &mut Workspace<'_>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    ct.check_params(params)?;
    for g in elements() {
        keys.find(SwitchTarget::Galois(g), ct.level())?;
    }
    work.check_level(params, ct.level())?;
    for g in elements() {
        let key = keys.find(SwitchTarget::Galois(g), ct.level())?;
        switch(params, op(g), ct, key, work)?;
    }
    Ok(())
}
