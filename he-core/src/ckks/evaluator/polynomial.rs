//! Polynomials of a ciphertext, slot by slot, with the fewest levels there can be:
//! `ceil(log2(d + 1))` for degree `d`, the multiplication by coefficients included.
//!
//! Paterson and Stockmeyer's way (SIAM J. Comput. 2, 1973) with powers of two as
//! giant steps, split further where a level would be lost (Bossuat, Mouchet,
//! Troncoso-Pastoriza, Hubaux, Eurocrypt 2021, ePrint 2020/1203, section 5).
//! `p = q x^g + r`, where `g` is the largest power of two up to the degree. `q`
//! is evaluated one level higher. Products and terms are added up in three parts, and
//! the sum is relinearised and rescaled once.
//!
//! Scales are exact. The caller chooses that of the result. It fixes the scale of
//! every sum, from the top down, and a coefficient is encoded at the scale of its sum
//! divided by that of its power. So no level goes into alignment, and no scale stands
//! for another that is near.
//!
//! [`polynomial_outcome`] takes the same steps without ciphertexts,
//! [`polynomial_bound`] with errors and values in their place.

mod bound;

pub use bound::{PolynomialBound, polynomial_bound};

use super::switching::relinearize;
use super::{Workspace, limb, limb_mut, rescale};
use crate::ckks::scale::check_scale;
use crate::ckks::track::{Known, Track};
use crate::ckks::{Ciphertext, Constant};
use crate::error::{Error, Result};
use crate::params::Params;
use crate::ring::{copy, kernel};
use crate::rlwe::keys::{SwitchKey, SwitchTarget};

const OP: &str = "polynomial";

/// Words of a factor that are in Montgomery form at a time.
const BLOCK: usize = 128;

/// Most powers below the first giant step, a power of two.
const MAX_BABY: usize = 32;

/// Most powers that are kept, and sums that are alive: bits of a `u64`.
const MAX_KEPT: usize = 64;

/// What a polynomial's evaluation comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolynomialOutcome {
    /// Level of the result.
    pub level: usize,
    /// Scale of the result.
    pub scale: f64,
    /// Products of two ciphertexts.
    pub products: u32,
    /// Relinearisations; those of a sum of products are one.
    pub relinearizations: u32,
    /// Rescalings.
    pub rescalings: u32,
}

/// `ceil(log2 k)` for `k > 0`.
const fn ceil_log2(k: usize) -> usize {
    (usize::BITS - k.saturating_sub(1).leading_zeros()) as usize
}

/// Levels that a polynomial of this degree takes: `ceil(log2(degree + 1))`.
#[must_use]
pub const fn polynomial_levels(degree: usize) -> usize {
    ceil_log2(degree.saturating_add(1))
}

/// Whether the polynomial is a sum of terms: its powers are baby steps, and at
/// a level high enough where `depth` levels are left.
const fn is_sum(degree: usize, baby: usize, depth: usize) -> bool {
    degree < baby && ceil_log2(degree) < depth
}

/// The largest power of two up to `degree > 0`.
const fn giant_step(degree: usize) -> usize {
    1 << (usize::BITS - 1 - degree.leading_zeros())
}

/// Products with giant steps for a dense polynomial.
const fn giant_products(mut degree: usize, baby: usize, depth: usize) -> usize {
    let mut products = 0;
    while degree > 0 && !is_sum(degree, baby, depth) {
        let giant = giant_step(degree);
        if degree > giant {
            products += 1 + giant_products(degree - giant, baby, depth.saturating_sub(1));
        }
        degree = giant - 1;
    }
    products
}

/// The number of baby steps with which a dense polynomial takes the fewest
/// products: the first giant step, a power of two.
const fn baby_steps(degree: usize) -> usize {
    let (mut best, mut fewest) = (2, usize::MAX);
    let mut baby = 2;
    while baby <= MAX_BABY {
        let mut products = giant_products(degree, baby, polynomial_levels(degree));
        let mut power = Some(2);
        while let Some(k) = power
            && k <= degree
        {
            products += 1;
            power = next_power(k, baby);
        }
        if products < fewest {
            (best, fewest) = (baby, products);
        }
        baby *= 2;
    }
    best
}

/// The power that is kept after `x^k`: baby steps, then giant steps.
const fn next_power(k: usize, baby: usize) -> Option<usize> {
    if k < baby {
        Some(k + 1)
    } else {
        k.checked_mul(2)
    }
}

/// The powers whose product is `x^k`, both kept: the highest power of two below
/// `k`, and the rest.
const fn factors(k: usize) -> (usize, usize) {
    let high = giant_step(k.saturating_sub(1));
    (high, k - high)
}

/// Words of one part of `x^k`, from a ciphertext at `level`.
const fn power_words(params: &Params, level: usize, k: usize) -> usize {
    (level.saturating_sub(ceil_log2(k)) + 1) * params.n()
}

/// Words of the sums that are alive at a time, three parts each; the deepest is
/// also what powers are formed in.
const fn sums_words(params: &Params, level: usize, degree: usize) -> usize {
    let depths = polynomial_levels(degree);
    let mut words = 0;
    let mut depth = 0;
    while depth < depths {
        words += 3 * (level.saturating_sub(depth) + 1) * params.n();
        depth += 1;
    }
    words
}

/// Words of memory that [`evaluate_polynomial`] works in, for a ciphertext at
/// `level` and any polynomial of `degree`: the powers, the sums, and a limb.
/// `usize::MAX` for a level that the set does not have, and for a degree that none of
/// its levels is enough for.
#[must_use]
pub const fn polynomial_words(params: &Params, level: usize, degree: usize) -> usize {
    if level > params.max_level() || polynomial_levels(degree) > params.max_level() {
        return usize::MAX;
    }
    let baby = baby_steps(degree);
    let mut words = sums_words(params, level, degree) + params.n();
    let mut power = Some(2);
    while let Some(k) = power
        && k <= degree
    {
        words += 2 * power_words(params, level, k);
        power = next_power(k, baby);
    }
    words
}

/// Level and scale of a sum before it is rescaled, and how many sums it is
/// within.
#[derive(Clone, Copy, Debug)]
struct At {
    depth: usize,
    level: usize,
    scale: f64,
}

/// One step of an evaluation.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A sum begins at zero.
    Begin(At),
    /// The sum takes a constant times `x^k`.
    Term(At, usize, Constant),
    /// The sum is relinearised and rescaled, which makes it a factor, and the
    /// sum around it, given here, takes the product with `x^k`.
    Close { inner: At, outer: At, k: usize },
}

/// A polynomial and the ciphertext it is for, by level and scale.
struct Walk<'a> {
    params: &'a Params,
    coefficients: &'a [f64],
    level: usize,
    scale: f64,
    baby: usize,
}

impl<'a> Walk<'a> {
    /// Checks the polynomial and that there are levels for it.
    fn new(
        params: &'a Params,
        coefficients: &'a [f64],
        level: usize,
        scale: f64,
    ) -> Result<(Self, At)> {
        params.check_level(OP, level)?;
        check_scale(OP, scale)?;
        let degree = match coefficients.iter().rposition(|&c| c != 0.0) {
            Some(degree) if degree > 0 => degree,
            _ => {
                return Err(Error::Length {
                    what: "polynomial without leading zeros",
                    expected: 2,
                    got: coefficients.len().min(1),
                });
            }
        };
        let expected = polynomial_levels(degree);
        if level < expected {
            return Err(Error::Level {
                operation: OP,
                expected,
                got: level,
            });
        }
        let coefficients = coefficients.get(..=degree).unwrap_or_default();
        let walk = Self {
            params,
            coefficients,
            level,
            scale,
            baby: baby_steps(degree),
        };
        let at = At {
            depth: 0,
            level: level + 1 - expected,
            scale,
        };
        Ok((walk, at))
    }

    fn degree(&self) -> usize {
        self.coefficients.len().saturating_sub(1)
    }

    fn prime(&self, level: usize) -> Result<f64> {
        Ok(f64::from(self.params.prime(level)?.modulus().value()))
    }

    /// Checks that a sum or product of this scale is below the modulus.
    fn check_fits(&self, level: usize, scale: f64) -> Result<()> {
        check_scale(OP, scale)?;
        let most = self.params.log_q(level) - 1.0;
        if libm::log2(scale) <= most {
            Ok(())
        } else {
            Err(Error::Scale {
                operation: OP,
                expected: libm::exp2(most),
                got: scale,
            })
        }
    }

    /// Level and scale of `x^k`.
    fn power(&self, k: usize) -> Result<(usize, f64)> {
        if k <= 1 {
            return Ok((self.level, self.scale));
        }
        let (high, rest) = factors(k);
        let (a, b) = (self.power(high)?, self.power(rest)?);
        let (level, scale) = (a.0.min(b.0), a.1 * b.1);
        self.check_fits(level, scale)?;
        let below = level.checked_sub(1).ok_or(Error::Level {
            operation: OP,
            expected: 1,
            got: 0,
        })?;
        Ok((below, scale / self.prime(level)?))
    }

    /// The powers that are kept, from 2 on.
    fn powers(&self) -> impl Iterator<Item = usize> + use<> {
        let (baby, degree) = (self.baby, self.degree());
        core::iter::successors(Some(2), move |&k| next_power(k, baby))
            .take_while(move |&k| k <= degree)
    }

    /// Where the parts of `x^k` begin among the powers' words.
    fn offset(&self, k: usize) -> usize {
        self.powers()
            .take_while(|&kept| kept < k)
            .map(|kept| 2 * power_words(self.params, self.level, kept))
            .sum()
    }

    /// The parts of `x^k`, for `k > 0`.
    fn parts<'x>(&self, x: [&'x [u32]; 2], powers: &'x [u32], k: usize) -> [&'x [u32]; 2] {
        if k == 1 {
            return x;
        }
        let words = power_words(self.params, self.level, k);
        let at = self.offset(k);
        [at, at + words].map(|at| powers.get(at..at + words).unwrap_or_default())
    }

    /// How many powers are kept before `x^k`.
    fn place(&self, k: usize) -> usize {
        self.powers().take_while(|&kept| kept < k).count()
    }

    /// The powers that are used, one bit per power that is kept.
    fn used(&self, top: At) -> Result<u64> {
        let place = |k| self.place(k);
        let mut used = 0u64;
        self.whole(top, &mut |step| {
            if let Step::Term(_, k, _) | Step::Close { k, .. } = step
                && k > 1
            {
                used |= 1 << place(k);
            }
            Ok(())
        })?;
        // And their factors.
        for k in (2..=self.degree()).rev() {
            if self.powers().any(|kept| kept == k) && used >> place(k) & 1 == 1 {
                let (high, rest) = factors(k);
                for factor in [high, rest].into_iter().filter(|&f| f > 1) {
                    used |= 1 << place(factor);
                }
            }
        }
        Ok(used)
    }

    /// Those powers, in the order in which they can be formed.
    fn used_powers(&self, top: At) -> Result<impl Iterator<Item = usize> + use<>> {
        let used = self.used(top)?;
        Ok(self
            .powers()
            .enumerate()
            .filter(move |&(place, _)| used >> place & 1 == 1)
            .map(|(_, k)| k))
    }

    /// All steps of the polynomial's sum `top`.
    fn whole(&self, top: At, f: &mut impl FnMut(Step) -> Result<()>) -> Result<()> {
        self.check_fits(top.level, top.scale)?;
        f(Step::Begin(top))?;
        self.sum(self.coefficients, top, f)
    }

    /// The steps that add `p` to the sum `at`.
    fn sum(&self, mut p: &[f64], at: At, f: &mut impl FnMut(Step) -> Result<()>) -> Result<()> {
        let levels = self.level + 1 - at.level;
        while let Some(degree) = p.iter().rposition(|&c| c != 0.0) {
            if degree == 0 || is_sum(degree, self.baby, levels) {
                for (k, &c) in p.iter().enumerate().filter(|&(_, &c)| c != 0.0) {
                    self.term(at, k, c, f)?;
                }
                return Ok(());
            }
            let k = giant_step(degree);
            let (rest, q) = p.split_at_checked(k).unwrap_or_default();
            if let (true, Some(&c)) = (degree == k, q.first()) {
                self.term(at, k, c, f)?;
            } else {
                let (_, giant) = self.power(k)?;
                let level = at.level + 1;
                let inner = At {
                    depth: at.depth + 1,
                    level,
                    scale: at.scale / giant * self.prime(level)?,
                };
                self.check_fits(level, inner.scale)?;
                f(Step::Begin(inner))?;
                self.sum(q, inner, f)?;
                f(Step::Close {
                    inner,
                    outer: at,
                    k,
                })?;
            }
            p = rest;
        }
        Ok(())
    }

    /// `c x^k`, with the constant at the scale that makes it fit the sum.
    fn term(&self, at: At, k: usize, c: f64, f: &mut impl FnMut(Step) -> Result<()>) -> Result<()> {
        let scale = if k == 0 { 1.0 } else { self.power(k)?.1 };
        if at.scale < scale {
            return Err(Error::Scale {
                operation: OP,
                expected: scale,
                got: at.scale,
            });
        }
        f(Step::Term(at, k, Constant::real(c, at.scale / scale)?))
    }

    /// The sum of the whole polynomial, so that it is rescaled to `target`.
    fn top(&self, at: At, target: f64) -> Result<At> {
        check_scale(OP, target)?;
        let scale = target * self.prime(at.level)?;
        Ok(At { scale, ..at })
    }
}

/// What [`evaluate_polynomial`] will come to for a ciphertext at `level` and
/// `scale`, without one: the same walk, with the same errors but those of keys
/// and memory.
///
/// Scales are checked against the modulus, values are not: partial sums and
/// powers, times their scales, must stay below half of it.
///
/// ```
/// use he_core::ckks::evaluator::polynomial_outcome;
/// use he_core::Error;
/// use he_core::params::N8192_DEPTH5 as P;
/// let scale = (1u64 << 24) as f64;
/// let sigmoid = [0.5, 0.197, 0.0, -0.004];
/// let outcome = polynomial_outcome(&P, &sigmoid, 5, scale, scale)?;
/// assert_eq!((outcome.level, outcome.products), (3, 2));
/// assert_eq!(
///     polynomial_outcome(&P, &sigmoid, 1, scale, scale),
///     Err(Error::Level { operation: "polynomial", expected: 2, got: 1 })
/// );
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Length`] for a polynomial that is constant, whose result would not
/// depend on the ciphertext; [`Error::Level`] naming the levels it takes and the
/// ciphertext's; [`Error::Scale`] where a sum's scale is less than that of a
/// power in it, or does not fit the modulus; [`Error::Range`] or
/// [`Error::NotFinite`] for a coefficient.
pub fn polynomial_outcome(
    params: &Params,
    coefficients: &[f64],
    level: usize,
    scale: f64,
    target: f64,
) -> Result<PolynomialOutcome> {
    let (walk, at) = Walk::new(params, coefficients, level, scale)?;
    let top = walk.top(at, target)?;
    let powers = walk.used_powers(top)?.count() as u32;
    let (mut products, mut sums, mut relinearizations) = (0, 0, 0);
    // Sums that hold a product, one bit per depth.
    let mut three = 0u64;
    walk.whole(top, &mut |step| {
        match step {
            Step::Begin(at) => {
                three &= !(1 << at.depth);
                sums += 1;
            }
            Step::Term(..) => {}
            Step::Close { inner, outer, .. } => {
                relinearizations += u32::from(three >> inner.depth & 1 == 1);
                three |= 1 << outer.depth;
                products += 1;
            }
        }
        Ok(())
    })?;
    relinearizations += u32::from(three & 1 == 1);
    Ok(PolynomialOutcome {
        level: top.level - 1,
        scale: target,
        products: powers + products,
        relinearizations: powers + relinearizations,
        rescalings: powers + sums,
    })
}

/// The three parts of the sum at `level` among `sums`, which begin with the one
/// at `top`, the innermost, and the words of those at lower levels.
fn split_sum<'s>(
    params: &Params,
    sums: &'s mut [u32],
    top: usize,
    level: usize,
) -> ([&'s mut [u32]; 3], &'s mut [u32]) {
    let n = params.n();
    let before: usize = (level + 1..=top).map(|above| 3 * (above + 1) * n).sum();
    let sums = sums.get_mut(before..).unwrap_or_default();
    let words = (level + 1) * n;
    let (sum, lower) = sums.split_at_mut_checked(3 * words).unwrap_or_default();
    let mut parts = sum.chunks_exact_mut(words);
    let mut part = || parts.next().unwrap_or_default();
    ([part(), part(), part()], lower)
}

/// Evaluates a polynomial in every slot, in place: the slots become
/// `sum coefficients[k] x^k`, the scale `target`, and the level falls by
/// [`polynomial_levels`] of the degree. Leading zeros are not counted, and
/// powers that no coefficient needs are not formed.
///
/// `key` switches from [`SwitchTarget::Square`]; `words` are
/// [`polynomial_words`] of the degree, or more.
///
/// ```
/// use he_core::ckks::evaluator::{
///     Workspace, evaluate_polynomial, polynomial_words, workspace_words,
/// };
/// # use he_core::ckks::encode::encode;
/// # use he_core::ckks::{Ciphertext, decrypt};
/// # use he_core::params::N8192_DEPTH5 as P;
/// # use he_core::rlwe::keys::switching_key_words;
/// # use he_core::rlwe::{self, SecretKey, SwitchKey, SwitchTarget};
/// # let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
/// # let (n, level, scale) = (P.n(), P.max_level(), (1u64 << 24) as f64);
/// # let storage = vec![0; SecretKey::<Vec<u32>>::words(&P)];
/// # let secret = SecretKey::generate(&P, storage, &mut rng)?;
/// # let target = SwitchTarget::Square;
/// # let (mut errors, storage) = (vec![0; n], vec![0; switching_key_words(&P, level)]);
/// # let key = SwitchKey::generate(&P, &secret, target, level, &mut rng, &mut errors, storage)?;
/// # let (mut buffer, mut message) = (vec![0.0; n], vec![0; n]);
/// # encode(&[2.0, -1.0], scale, &mut buffer, &mut message, |x| x as i32)?;
/// # let (mut c0, mut c1) = (vec![0; (level + 1) * n], vec![0; (level + 1) * n]);
/// # let seed = rlwe::encrypt(&P, &secret, &mut message, level, &mut rng, &mut c0)?;
/// # rlwe::expand_c1(&P, &seed, &mut c1)?;
/// // `ct` holds 2 and -1; `key` is a relinearisation key.
/// let mut ct = Ciphertext::new(&P, level, scale, c0, c1)?;
/// let sigmoid = [0.5, 0.197, 0.0, -0.004];
/// let mut words = vec![0; polynomial_words(&P, level, 3)];
/// let mut switching = vec![0; workspace_words(&P, level)];
/// let mut work = Workspace::new(&P, level, &mut switching)?;
/// evaluate_polynomial(&P, &mut ct, &sigmoid, scale, &key, &mut words, &mut work)?;
/// assert_eq!(ct.level(), level - 2);
/// # let (mut scratch, mut slots) = (vec![0; (ct.level() + 1) * n], vec![0.0; n]);
/// # let slots = decrypt(&P, &secret, &ct, level - 2, scale, &mut scratch, &mut slots)?;
/// assert!((slots.slot(0).unwrap() - 0.862).abs() < 0.01);
/// assert!((slots.slot(1).unwrap() - 0.307).abs() < 0.01);
/// # Ok::<(), he_core::Error>(())
/// ```
///
/// # Errors
/// As [`polynomial_outcome`]; [`Error::Key`], [`Error::Params`];
/// [`Error::Length`] for `words` and the workspace. The ciphertext is unchanged
/// then.
pub fn evaluate_polynomial<S, K>(
    params: &Params,
    ct: &mut Ciphertext<S>,
    coefficients: &[f64],
    target: f64,
    key: &SwitchKey<K>,
    words: &mut [u32],
    work: &mut Workspace<'_>,
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    K: AsRef<[u32]> + AsMut<[u32]>,
{
    ct.check_params(params)?;
    let (walk, at) = Walk::new(params, coefficients, ct.level(), ct.scale())?;
    let top = walk.top(at, target)?;
    walk.whole(top, &mut |_| Ok(()))?;
    key.check(params, SwitchTarget::Square, ct.level())?;
    work.check_level(params, ct.level())?;

    let (n, level, got) = (params.n(), ct.level(), words.len());
    let expected = polynomial_words(params, level, walk.degree());
    let too_short = Error::Length {
        what: "polynomial workspace",
        expected,
        got,
    };
    let (scratch, rest) = words
        .get_mut(..expected)
        .and_then(|words| words.split_at_mut_checked(n))
        .ok_or(too_short)?;
    let sums = sums_words(params, level, walk.degree());
    let (sums, powers) = rest.split_at_mut_checked(sums).ok_or(too_short)?;
    let mut evaluation = Evaluation {
        walk: &walk,
        x: ct.halves().into(),
        powers,
        sums,
        tracks: Tracks {
            x: ct.track(),
            powers: [Track::UNKNOWN; MAX_KEPT],
            sums: [Track::ZERO; MAX_KEPT],
        },
        products: 0,
        finishing: Finishing { key, scratch, work },
    };
    for k in walk.used_powers(top)? {
        evaluation.form_power(k)?;
    }
    walk.whole(top, &mut |step| evaluation.take(step))?;
    let (result, track) = evaluation.result(top)?;
    ct.set(top.level - 1, target);
    ct.set_track(track);
    for (to, from) in ct.words_mut().into_iter().zip(result) {
        copy(to, from);
    }
    Ok(())
}

/// An evaluation that goes on, with its memory.
struct Evaluation<'c, 'e, 'w, K> {
    walk: &'e Walk<'e>,
    /// The ciphertext.
    x: [&'c [u32]; 2],
    /// The powers that are kept, by [`Walk::offset`].
    powers: &'e mut [u32],
    /// The sums, by [`split_sum`].
    sums: &'e mut [u32],
    tracks: Tracks,
    /// Sums that hold a product, one bit per depth.
    products: u64,
    finishing: Finishing<'e, 'w, K>,
}

impl<'e, K: AsRef<[u32]> + AsMut<[u32]>> Evaluation<'_, 'e, '_, K> {
    const fn holds_product(&self, at: At) -> bool {
        self.products >> at.depth & 1 == 1
    }

    /// Forms `x^k` from its factors, in the memory of the innermost sum, and keeps
    /// it.
    fn form_power(&mut self, k: usize) -> Result<()> {
        let (walk, params) = (self.walk, self.walk.params);
        let (a, b) = factors(k);
        let ((la, sa), (lb, sb)) = (walk.power(a)?, walk.power(b)?);
        let at = At {
            depth: 0,
            level: la.min(lb),
            scale: sa * sb,
        };
        let mut parts = split_sum(params, self.sums, walk.level, at.level).0;
        for part in &mut parts {
            part.fill(0);
        }
        let other = self.tracks.power(walk, b);
        let mut track = self.tracks.power(walk, a);
        track.update(|known| {
            if a == b {
                known.square()
            } else {
                known.product(other.get())
            }
        });
        let [a, b] = [a, b].map(|k| walk.parts(self.x, self.powers, k));
        add_product(params, at.level, a, b, &mut parts)?;
        let power = self.finishing.finish(params, at, true, parts, &mut track)?;
        if let Some(kept) = self.tracks.powers.get_mut(walk.place(k)) {
            *kept = track;
        }
        let words = power_words(params, walk.level, k);
        let place = self.powers.get_mut(walk.offset(k)..).unwrap_or_default();
        for (to, from) in place.chunks_exact_mut(words).zip(power) {
            copy(to, from);
        }
        Ok(())
    }

    /// Takes one step of the walk.
    fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Begin(at) => {
                self.begin(at);
                Ok(())
            }
            Step::Term(at, k, constant) => self.add_term(at, k, &constant),
            Step::Close { inner, outer, k } => self.close(inner, outer, k),
        }
    }

    fn begin(&mut self, at: At) {
        self.products &= !(1 << at.depth);
        self.tracks.sum(at, |_| Known::ZERO);
        for part in split_sum(self.walk.params, self.sums, self.walk.level, at.level).0 {
            part.fill(0);
        }
    }

    fn add_term(&mut self, at: At, k: usize, constant: &Constant) -> Result<()> {
        let (walk, params) = (self.walk, self.walk.params);
        let x = (k > 0).then(|| walk.parts(self.x, self.powers, k));
        let power = (k > 0).then(|| self.tracks.power(walk, k));
        self.tracks.sum(at, |sum| {
            let term = constant.known();
            sum.plus(power.map_or(term, |x| x.get().product(term)), 0.0)
        });
        let parts = split_sum(params, self.sums, walk.level, at.level).0;
        add_term(params, at.level, constant, x, parts)
    }

    fn close(&mut self, inner: At, outer: At, k: usize) -> Result<()> {
        let (walk, params) = (self.walk, self.walk.params);
        let product = self.holds_product(inner);
        let (mut track, power) = (self.tracks.of(inner), self.tracks.power(walk, k));
        let (parts, lower) = split_sum(params, self.sums, walk.level, inner.level);
        let factor = self
            .finishing
            .finish(params, inner, product, parts, &mut track)?;
        self.tracks
            .sum(outer, |sum| sum.plus(track.get().product(power.get()), 0.0));
        let mut parts = split_sum(params, lower, outer.level, outer.level).0;
        let x = walk.parts(self.x, self.powers, k);
        add_product(params, outer.level, x, factor, &mut parts)?;
        self.products |= 1 << outer.depth;
        Ok(())
    }

    /// The polynomial's own sum, finished, and what it carries.
    fn result(mut self, top: At) -> Result<([&'e [u32]; 2], Track)> {
        let product = self.holds_product(top);
        let (mut track, params) = (self.tracks.of(top), self.walk.params);
        let parts = split_sum(params, self.sums, self.walk.level, top.level).0;
        let result = self
            .finishing
            .finish(params, top, product, parts, &mut track)?;
        Ok((result, track))
    }
}

/// What powers and sums carry.
struct Tracks {
    x: Track,
    /// By place among the powers that are kept.
    powers: [Track; MAX_KEPT],
    /// By depth.
    sums: [Track; MAX_KEPT],
}

impl Tracks {
    fn power(&self, walk: &Walk<'_>, k: usize) -> Track {
        if k == 1 {
            return self.x;
        }
        let kept = self.powers.get(walk.place(k));
        kept.copied().unwrap_or(Track::UNKNOWN)
    }

    fn of(&self, at: At) -> Track {
        let sum = self.sums.get(at.depth);
        sum.copied().unwrap_or(Track::UNKNOWN)
    }

    fn sum(&mut self, at: At, f: impl FnOnce(Known) -> Known) {
        if let Some(sum) = self.sums.get_mut(at.depth) {
            sum.update(f);
        }
    }
}

/// What a sum is finished with: the key, one limb, and the memory of a key switch.
struct Finishing<'e, 'w, K> {
    key: &'e SwitchKey<K>,
    scratch: &'e mut [u32],
    work: &'e mut Workspace<'w>,
}

impl<K: AsRef<[u32]> + AsMut<[u32]>> Finishing<'_, '_, K> {
    /// Relinearises a sum, if it holds a product, and rescales it, where it is.
    fn finish<'s>(
        &mut self,
        params: &Params,
        at: At,
        product: bool,
        [c0, c1, c2]: [&'s mut [u32]; 3],
        track: &mut Track,
    ) -> Result<[&'s [u32]; 2]> {
        let mut ct = if product {
            let mut ct = Ciphertext::from_parts(params, at.level, at.scale, [c0, c1, c2])?;
            ct.set_track(*track);
            relinearize(params, ct, self.key, self.work)?.0
        } else {
            let mut ct = Ciphertext::new(params, at.level, at.scale, c0, c1)?;
            ct.set_track(*track);
            ct
        };
        rescale(params, &mut ct, self.scratch)?;
        *track = ct.track();
        let words = (ct.level() + 1) * params.n();
        let (c0, c1) = ct.into_storage();
        Ok([c0, c1].map(|c| c.get(..words).unwrap_or_default()))
    }
}

/// `sum += constant x`, or the constant alone.
fn add_term(
    params: &Params,
    level: usize,
    constant: &Constant,
    x: Option<[&[u32]; 2]>,
    [s0, s1, _]: [&mut [u32]; 3],
) -> Result<()> {
    let n = params.n();
    for i in 0..=level {
        let prime = params.prime(i)?;
        let m = prime.modulus();
        let Some(x) = x else {
            for (half, value) in constant.halves(prime, limb_mut(s0, n, i)) {
                for s in half {
                    *s = m.add(*s, value);
                }
            }
            continue;
        };
        for (s, x) in [&mut *s0, &mut *s1].into_iter().zip(x) {
            let halves = limb(x, n, i).chunks_exact(n >> 1);
            for ((s, value), x) in constant
                .halves(prime, limb_mut(s, n, i))
                .into_iter()
                .zip(halves)
            {
                let factor = [m.to_mont(value) as u32; BLOCK];
                for (s, x) in s.chunks_mut(BLOCK).zip(x.chunks(BLOCK)) {
                    kernel::mul_acc(s, x, &factor, m);
                }
            }
        }
    }
    Ok(())
}

/// `sum += a b`, in three parts.
fn add_product(
    params: &Params,
    level: usize,
    a: [&[u32]; 2],
    b: [&[u32]; 2],
    [s0, s1, s2]: &mut [&mut [u32]; 3],
) -> Result<()> {
    let n = params.n();
    for i in 0..=level {
        let m = params.prime(i)?.modulus();
        let a = a.map(|a| limb(a, n, i).chunks(BLOCK));
        let b = b.map(|b| limb(b, n, i).chunks(BLOCK));
        let s = limb_mut(s0, n, i)
            .chunks_mut(BLOCK)
            .zip(limb_mut(s1, n, i).chunks_mut(BLOCK))
            .zip(limb_mut(s2, n, i).chunks_mut(BLOCK));
        let ([a0, a1], [b0, b1]) = (a, b);
        for (((s0, s1), s2), ((a0, a1), (b0, b1))) in s.zip(a0.zip(a1).zip(b0.zip(b1))) {
            let [factor0, factor1] = [b0, b1].map(|b| {
                let mut factor = [0; BLOCK];
                copy(&mut factor, b);
                kernel::scale(&mut factor, m.r2(), m);
                factor
            });
            kernel::mul_acc_two(s0, s1, a0, a1, &factor0, m);
            kernel::mul_acc_two(s1, s2, a0, a1, &factor1, m);
        }
    }
    Ok(())
}
