//! The kernels over any [`Lanes`]. Lengths that are no multiple of a vector end
//! in `portable`.
//!
//! Montgomery products are those of [`Modulus::mont`] in the form `(t - m q) /
//! 2^32` with `m = t q^-1 mod 2^32`, which gives the same number, or, where `m` is
//! `-2^31`, one that differs by `q` and keeps the same bounds; for a factor
//! `w` that is known beforehand `m` is `b (w q^-1) mod 2^32` and does not wait
//! for `t` (Seiler, ePrint 2018/039, section 3.2).
//!
//! # Transforms without reductions
//!
//! For `q <= MAX_UNREDUCED`, and tables that have the factors and their quotients too
//! ([`crate::ring::ntt::tables`]), products are those of [`Modulus::shoup`]: a
//! multiplication less, between `-q / 4` and `5 q / 4`. Forward, values grow by `5 q / 4`
//! per layer; where all layers would leave `i32`, the two inputs of one pass that are
//! not multiplied are reduced half-way ([`Lazy`]). Inverse, sums double, and the one sum
//! of sums of a pass of two layers is reduced, or of every other pass where `q < 2^25`.
//!
//! # Bounds of the other transforms
//!
//! With factors centred, `|w| <= q / 2 + 1`, a product with any `|b| < 2^31` is
//! at most `|b| / 2^32 (q / 2 + 1) + q / 2 <= 0.75 q + 1` in magnitude. Forward: for
//! `q <= MAX_UNREDUCED` nothing is reduced (see `portable`); for larger `q` the
//! first input of every butterfly is brought from `|a| < 2q` to `|a| <= q`, and
//! outputs are below `1.75 q + 1 < 2q < 2^31`. Inverse: the sum of every
//! butterfly is brought from `|a + b| <= 2q` to `q` at most; both outputs are.

use super::lanes::Lanes;
use crate::arith::Modulus;
use crate::ring::kernel::integers;
use crate::ring::kernel::portable::{self, MAX_UNREDUCED};
use crate::ring::kernel::sums::{self, Carried, MAX_TERMS, SumTerm};

/// [`Lanes::high`].
#[inline(always)]
fn high<L: Lanes>(even: L, odd: L) -> L {
    // SAFETY: by the contract of `Lanes`.
    unsafe { L::high(even, odd) }
}

/// A modulus in every lane.
#[derive(Clone, Copy)]
pub(super) struct Q<L> {
    q: L,
    /// `q^-1 mod 2^32`.
    inv: L,
}

/// A factor and `factor * q^-1 mod 2^32`, and the odd lanes of both in the even ones.
#[derive(Clone, Copy)]
pub(super) struct Factor<L> {
    w: L,
    odd: L,
    m: L,
    m_odd: L,
}

/// A factor and its quotient, see [`Modulus::shoup`].
#[derive(Clone, Copy)]
struct Shoup<L> {
    w: L,
    quotient: L,
    /// The odd lanes of `quotient` in the even ones.
    odd: L,
}

/// Factors with their quotients behind the `n` of a table.
#[derive(Clone, Copy)]
struct Table {
    w: *const i32,
    quotients: *const i32,
}

impl Table {
    /// # Safety
    /// `z` has `3 n` entries.
    #[inline(always)]
    unsafe fn new(z: &[i32], n: usize) -> Self {
        // SAFETY: by this function's contract.
        unsafe {
            Self {
                w: z.as_ptr().add(n),
                quotients: z.as_ptr().add(2 * n),
            }
        }
    }

    /// Entry `k` in every lane.
    ///
    /// # Safety
    /// `k < n`.
    #[inline(always)]
    unsafe fn all<L: Lanes>(self, k: usize) -> Shoup<L> {
        // SAFETY: by this function's contract.
        unsafe {
            let quotient = L::broadcast(self.quotients.add(k));
            Shoup {
                w: L::broadcast(self.w.add(k)),
                quotient,
                odd: quotient,
            }
        }
    }

    /// The factors of a pair of blocks from entry `k` on, see [`Lanes::factors`].
    ///
    /// # Safety
    /// `k + (2 << layer) <= n`.
    #[inline(always)]
    unsafe fn pair<L: Lanes>(self, layer: usize, k: usize) -> Shoup<L> {
        // SAFETY: by this function's contract, and before the last layer there are the
        // entries of the next.
        unsafe {
            Shoup {
                w: L::factors(layer, self.w.add(k)),
                quotient: L::factors(layer, self.quotients.add(k)),
                odd: L::factors_odd(layer, self.quotients.add(k)),
            }
        }
    }
}

impl<L: Lanes> Factor<L> {
    /// The same factor in every lane.
    #[inline(always)]
    pub(super) fn all(w: i32, m: &Modulus) -> Self {
        let w_m = w.wrapping_mul(m.neg_inv().wrapping_neg());
        let (w, w_m) = (L::splat(w), L::splat(w_m));
        Self {
            w,
            odd: w,
            m: w_m,
            m_odd: w_m,
        }
    }
}

impl<L: Lanes> Q<L> {
    #[inline(always)]
    pub(super) fn new(m: &Modulus) -> Self {
        Self {
            q: L::splat(m.value() as i32),
            inv: L::splat(m.neg_inv().wrapping_neg()),
        }
    }

    #[inline(always)]
    fn factor(self, w: L) -> Factor<L> {
        let m = w.mul_low(self.inv);
        Factor {
            w,
            odd: w.odd(),
            m,
            m_odd: m.odd(),
        }
    }

    /// `b w / 2^32 mod q`.
    #[inline(always)]
    pub(super) fn times(self, b: L, f: Factor<L>) -> L {
        self.times_split(b, b.odd(), f)
    }

    /// The same, `odd` being the odd words of `b` in even places.
    #[inline(always)]
    pub(super) fn times_split(self, b: L, odd: L, f: Factor<L>) -> L {
        // SAFETY: by the contract of `Lanes`.
        unsafe {
            let (m, m_odd) = (b.mul_even(f.m), odd.mul_even(f.m_odd));
            let even = b.mul_even(f.w).sub_wide(m.mul_even(self.q));
            let odd = odd.mul_even(f.odd).sub_wide(m_odd.mul_even(self.q));
            high(even, odd)
        }
    }

    /// `b w mod q` of any `b`, between `-q / 4` and `5 q / 4`, several of them: step by step
    /// for all, as those that wait for a multiplication would fill the processor's queue.
    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "arrays of a length that the compiler knows"
    )]
    fn shoups<const K: usize>(self, b: [L; K], odd: [L; K], f: [Shoup<L>; K]) -> [L; K] {
        let mut even = b;
        let mut quotient = odd;
        for k in 0..K {
            // SAFETY: by the contract of `Lanes`.
            unsafe {
                even[k] = b[k].mul_even(f[k].quotient);
                quotient[k] = odd[k].mul_even(f[k].odd);
            }
        }
        for k in 0..K {
            quotient[k] = high(even[k], quotient[k]);
        }
        let mut product = b;
        for k in 0..K {
            product[k] = b[k].mul_low(f[k].w);
        }
        for quotient in &mut quotient {
            *quotient = quotient.mul_low(self.q);
        }
        for k in 0..K {
            product[k] = product[k].sub(quotient[k]);
        }
        product
    }

    /// Any word between `-q / 4` and `5 q / 4`, by the quotient of [`Modulus::shoup`] of 1.
    #[inline(always)]
    fn reduce(self, x: L, one: L) -> L {
        // SAFETY: by the contract of `Lanes`.
        let (even, odd) = unsafe { (x.mul_even(one), x.odd().mul_even(one)) };
        x.sub(high(even, odd).mul_low(self.q))
    }

    /// 64-bit `t` less the multiple of `q` that clears its low word.
    #[inline(always)]
    fn down(self, t: L) -> L {
        // SAFETY: by the contract of `Lanes`.
        unsafe { t.sub_wide(t.mul_even(self.inv).mul_even(self.q)) }
    }

    /// `a b / 2^32 mod q` of words in memory.
    ///
    /// # Safety
    /// A vector must be readable at both.
    #[inline(always)]
    unsafe fn mont(self, a: *const u32, b: *const u32) -> L {
        // SAFETY: by this function's contract.
        let (even, odd) = unsafe {
            (
                L::load(a).mul_even(L::load(b)),
                L::load_odd(a).mul_even(L::load_odd(b)),
            )
        };
        high(self.down(even), self.down(odd))
    }

    /// From `-q < x < q` to `0 <= x < q`.
    #[inline(always)]
    pub(super) fn canon(self, x: L) -> L {
        x.min(x.add(self.q))
    }

    /// From `-4 q < x < 4 q` to `0 <= x < q`, where `8 q < 2^32`.
    #[inline(always)]
    fn canon_wide(self, x: L) -> L {
        let (q, two) = (self.q, self.q.add(self.q));
        let four = two.add(two);
        let x = x.min(x.add(four));
        let x = x.min(x.sub(two));
        x.min(x.sub(q))
    }

    /// The sum of canonical residues.
    #[inline(always)]
    fn add(self, a: L, b: L) -> L {
        let sum = a.add(b);
        sum.min(sum.sub(self.q))
    }

    /// The difference of canonical residues.
    #[inline(always)]
    fn sub(self, a: L, b: L) -> L {
        self.canon(a.sub(b))
    }

    /// Forward butterfly: `(a + w b, a - w b)`.
    #[inline(always)]
    fn ct<const REDUCE: bool>(self, a: L, b: L, f: Factor<L>) -> (L, L) {
        let a = if REDUCE { a.towards_zero(self.q) } else { a };
        let t = self.times(b, f);
        (a.add(t), a.sub(t))
    }

    /// Several of them by [`Self::shoups`], `odd` being the odd words of `b` in even places.
    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "arrays of a length that the compiler knows"
    )]
    fn ct_lazy<const K: usize>(
        self,
        a: [L; K],
        b: [L; K],
        odd: [L; K],
        f: [Shoup<L>; K],
    ) -> ([L; K], [L; K]) {
        let t = self.shoups(b, odd, f);
        let (mut sum, mut difference) = (a, a);
        for k in 0..K {
            sum[k] = a[k].add(t[k]);
            difference[k] = a[k].sub(t[k]);
        }
        (sum, difference)
    }

    /// Several inverse butterflies likewise.
    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "arrays of a length that the compiler knows"
    )]
    fn gs_lazy<const K: usize>(self, a: [L; K], b: [L; K], f: [Shoup<L>; K]) -> ([L; K], [L; K]) {
        let (mut sum, mut difference, mut odd) = (a, a, a);
        for k in 0..K {
            difference[k] = a[k].sub(b[k]);
            odd[k] = difference[k].odd();
            sum[k] = a[k].add(b[k]);
        }
        (sum, self.shoups(difference, odd, f))
    }

    /// Inverse butterfly: `(a + b, w (a - b))`.
    #[inline(always)]
    fn gs(self, a: L, b: L, f: Factor<L>) -> (L, L) {
        let sum = a.add(b).towards_zero(self.q);
        (sum, self.times(a.sub(b), f))
    }

    /// Inverse butterfly of the last layer, with `f = w s`: canonical
    /// `(s (a + b), s w (a - b))`.
    #[inline(always)]
    fn gs_last(self, a: L, b: L, s: Factor<L>, f: Factor<L>) -> (L, L) {
        let sum = self.times(a.add(b), s);
        let difference = self.times(a.sub(b), f);
        (self.canon(sum), self.canon(difference))
    }
}

/// Any word to `0 <= x < q`: Barrett, as [`Modulus::centre`], the quotient rounded
/// by one place less.
#[derive(Clone, Copy)]
struct Barrett<L> {
    factor: L,
    half: L,
    shift: u32,
}

impl<L: Lanes> Barrett<L> {
    #[inline(always)]
    fn new(m: &Modulus) -> Self {
        let (factor, shift) = m.barrett();
        // 32 bits less: the high words of the products are shifted.
        let shift = shift.saturating_sub(32);
        Self {
            factor: L::splat(factor),
            half: L::splat(1i32.wrapping_shl(shift) >> 1),
            shift,
        }
    }

    #[inline(always)]
    fn canon(self, x: L, q: Q<L>) -> L {
        // SAFETY: by the contract of `Lanes`.
        let (even, odd) = unsafe { (x.mul_even(self.factor), x.odd().mul_even(self.factor)) };
        let product = high(even, odd);
        let quotient = product.add(self.half).shift_right(self.shift);
        q.canon(x.sub(quotient.mul_low(q.q)))
    }
}

/// Whether a transform of that size is for vectors.
#[inline(always)]
fn long_enough<L: Lanes>(data: &[u32], z: &[i32]) -> bool {
    let n = data.len();
    n.is_power_of_two() && n >= 4 * L::COUNT && z.len() >= n
}

/// See [`portable::forward`].
#[inline(always)]
pub(super) fn forward<L: Lanes>(data: &mut [u32], m: &Modulus, z: &[i32]) {
    if !long_enough::<L>(data, z) {
        portable::forward(data, m, z);
    } else if let Some(lazy) = Lazy::new::<L>(data.len(), m.value(), m, z) {
        let data = data.as_mut_ptr();
        // SAFETY: the lengths are checked.
        unsafe { forward_lazy::<L, _, _>(data, Words(data), Canonical::new(m, data), &lazy) }
    } else if m.value() > MAX_UNREDUCED {
        // SAFETY: the lengths are checked.
        unsafe { forward_all::<L, true>(data, m, z) }
    } else {
        // SAFETY: the lengths are checked.
        unsafe { forward_all::<L, false>(data, m, z) }
    }
}

/// A forward transform without reductions, or with one half-way.
#[derive(Clone, Copy)]
struct Lazy<'m> {
    n: usize,
    modulus: &'m Modulus,
    table: Table,
    /// Layers before the reduction, or none that there are.
    middle: u32,
}

impl<'m> Lazy<'m> {
    /// Where the bounds and the table allow it, for inputs up to `start` in magnitude.
    #[inline(always)]
    fn new<L: Lanes>(n: usize, start: u32, m: &'m Modulus, z: &[i32]) -> Option<Self> {
        let (q, layers) = (u64::from(m.value()), n.trailing_zeros());
        // In quarters: the largest multiple of q within i32, which `Canonical` adds.
        let end = 4 * q * u64::from(m.quotient_of_r() >> 1);
        let grown = |from: u64, layers: u32| from + 5 * u64::from(layers) * q;
        let start = 4 * u64::from(start);
        let alone = layers.saturating_sub(L::LAYERS as u32);
        // The first pass of two layers that begins in the second half.
        let middle = layers >> 1;
        let middle = middle + ((middle ^ alone) & 1);
        let middle = if grown(start, layers) <= end {
            u32::MAX
        } else if middle < alone
            && grown(start, middle) <= end
            && grown(5 * q, layers - middle) <= end
        {
            middle
        } else {
            return None;
        };
        if z.len() < 3 * n {
            return None;
        }
        Some(Self {
            n,
            modulus: m,
            // SAFETY: that was checked.
            table: unsafe { Table::new(z, n) },
            middle,
        })
    }
}

/// Runs a block for the layers within a vector, which the compiler would not unroll.
macro_rules! each_layer {
    ($lanes:ident, $layer:ident in [$($number:literal),*], $block:block) => {
        $(if $number < $lanes::LAYERS {
            let $layer = $number;
            $block
        })*
    };
}

/// Where a forward transform takes its inputs.
trait Source<L>: Copy {
    /// A vector from index `i` on, and its odd words in even places.
    ///
    /// # Safety
    /// Whole vectors within the limb.
    unsafe fn load(self, i: usize) -> (L, L);
}

/// Words as they are.
#[derive(Clone, Copy)]
struct Words(*const u32);

impl<L: Lanes> Source<L> for Words {
    #[inline(always)]
    unsafe fn load(self, i: usize) -> (L, L) {
        // SAFETY: by the trait's contract.
        unsafe { (L::load(self.0.add(i)), L::load_odd(self.0.add(i))) }
    }
}

/// Residues of another prime, centred.
#[derive(Clone, Copy)]
struct Centred<L> {
    src: *const u32,
    from: L,
    half: L,
}

impl<L: Lanes> Source<L> for Centred<L> {
    #[inline(always)]
    unsafe fn load(self, i: usize) -> (L, L) {
        // SAFETY: by the trait's contract.
        let x = unsafe { L::load(self.src.add(i)) }.sub_above(self.half, self.from);
        (x, x.odd())
    }
}

/// What [`sums::lift_sum`] makes of `K` limbs of `n` words.
#[derive(Clone, Copy)]
struct Sum<L, const K: usize> {
    src: *const u32,
    n: usize,
    q: Q<L>,
    /// Of each limb its prime, half of that, and its factor.
    terms: [(L, L, L); K],
}

impl<L: Lanes, const K: usize> Sum<L, K> {
    #[inline(always)]
    fn new(src: &[u32], n: usize, terms: [Carried; K], m: &Modulus) -> Self {
        Self {
            src: src.as_ptr(),
            n,
            q: Q::new(m),
            terms: terms.map(|term| {
                let from = term.from.value() as i32;
                (L::splat(from), L::splat(from >> 1), L::splat(term.factor))
            }),
        }
    }
}

impl<L: Lanes, const K: usize> Source<L> for Sum<L, K> {
    #[inline(always)]
    unsafe fn load(self, i: usize) -> (L, L) {
        let (mut even, mut odd) = (L::splat(0), L::splat(0));
        for (k, (from, half, factor)) in self.terms.into_iter().enumerate() {
            // SAFETY: by the trait's contract.
            unsafe {
                let x = L::load(self.src.add(k * self.n + i)).sub_above(half, from);
                even = even.add_wide(x.mul_even(factor));
                odd = odd.add_wide(x.odd().mul_even(factor));
            }
        }
        let odd = self.q.down(odd);
        (high(self.q.down(even), odd), odd.odd())
    }
}

/// What becomes of the outputs of a forward transform.
trait Target<L>: Copy {
    /// Takes four vectors from index `i` on.
    ///
    /// # Safety
    /// Whole vectors within the limb.
    unsafe fn store(self, i: usize, x: [L; 4]);
}

/// They are stored as they are.
#[derive(Clone, Copy)]
struct Raw(*mut u32);

impl<L: Lanes> Target<L> for Raw {
    #[inline(always)]
    unsafe fn store(self, i: usize, x: [L; 4]) {
        for (k, x) in x.into_iter().enumerate() {
            // SAFETY: by the trait's contract.
            unsafe { x.store(self.0.add(i + k * L::COUNT)) }
        }
    }
}

/// They are stored as canonical residues.
#[derive(Clone, Copy)]
struct Canonical<L> {
    q: L,
    /// A multiple of `q` above all magnitudes.
    bias: L,
    /// `2^32 / q`, rounded down.
    factor: L,
    out: *mut u32,
}

impl<L: Lanes> Canonical<L> {
    #[inline(always)]
    fn new(m: &Modulus, out: *mut u32) -> Self {
        let (q, factor) = (m.value(), m.quotient_of_r());
        // The largest up to 2^31.
        let bias = q.wrapping_mul(factor >> 1);
        Self {
            q: L::splat(q as i32),
            bias: L::splat(bias as i32),
            factor: L::splat(factor as i32),
            out,
        }
    }
}

impl<L: Lanes> Target<L> for Canonical<L> {
    #[inline(always)]
    unsafe fn store(self, i: usize, x: [L; 4]) {
        // Without closures: what is not enabled in one is not inlined there.
        let mut x = x;
        for x in &mut x {
            *x = x.add(self.bias);
        }
        let mut quotients = x;
        for (quotient, x) in quotients.iter_mut().zip(x) {
            let (even, odd) = (
                x.mul_even_unsigned(self.factor),
                x.odd().mul_even_unsigned(self.factor),
            );
            *quotient = high(even, odd);
        }
        let mut multiples = quotients;
        for multiple in &mut multiples {
            *multiple = multiple.mul_low(self.q);
        }
        for (k, (x, multiple)) in x.into_iter().zip(multiples).enumerate() {
            // Below 2 q.
            let x = x.sub(multiple);
            // SAFETY: by the trait's contract.
            unsafe { x.min(x.sub(self.q)).store(self.out.add(i + k * L::COUNT)) }
        }
    }
}

/// They are subtracted from `x` in a division, see [`super::mod_down`].
#[derive(Clone, Copy)]
struct Division<L> {
    q: Q<L>,
    x: *mut u32,
    factors: [L; 2],
}

impl<L: Lanes> Target<L> for Division<L> {
    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "arrays of a length that the compiler knows"
    )]
    unsafe fn store(self, i: usize, y: [L; 4]) {
        let [f, g] = self.factors;
        let (mut even, mut odd) = (y, y);
        // SAFETY: by the trait's contract. The sum of products is below
        // `q^2 / 2 + 2^31 q / 2 < 2^31 q`, so what is left of it is below `q`.
        unsafe {
            let at = self.x.add(i);
            for k in 0..4 {
                let x = at.add(k * L::COUNT);
                even[k] = L::load(x).mul_even(f).add_wide(y[k].mul_even(g));
                odd[k] = L::load_odd(x).mul_even(f).add_wide(y[k].odd().mul_even(g));
            }
            for k in 0..4 {
                let x = high(self.q.down(even[k]), self.q.down(odd[k]));
                self.q.canon(x).store(at.add(k * L::COUNT));
            }
        }
    }
}

/// Two layers of forward butterflies, on quarters of a block. Of the last two quarters
/// `odd` are the odd words in even places.
#[inline(always)]
fn two_layers<L: Lanes, const MIDDLE: bool>(
    q: Q<L>,
    [mut a, mut b, c, d]: [L; 4],
    odd: [L; 2],
    [f1, f2, f3]: [Shoup<L>; 3],
    one: L,
) -> [L; 4] {
    if MIDDLE {
        a = q.reduce(a, one);
        b = q.reduce(b, one);
    }
    let ([a, b], [c, d]) = q.ct_lazy([a, b], [c, d], odd, [f1, f1]);
    let ([a, c], [b, d]) = q.ct_lazy([a, c], [b, d], [b.odd(), d.odd()], [f2, f3]);
    [a, b, c, d]
}

/// One such pass over a block whose quarters are `quarter` long.
///
/// # Safety
/// There is such a block in `source` and at `out`.
#[inline(always)]
unsafe fn forward_block<L: Lanes, S: Source<L>, const MIDDLE: bool>(
    q: Q<L>,
    (source, start): (S, usize),
    out: *mut u32,
    quarter: usize,
    factors: [Shoup<L>; 3],
    one: L,
) {
    for i in (0..quarter).step_by(L::COUNT) {
        // SAFETY: by this function's contract.
        unsafe {
            let (a, _) = source.load(start + i);
            let (b, _) = source.load(start + i + quarter);
            let (c, c_odd) = source.load(start + i + 2 * quarter);
            let (d, d_odd) = source.load(start + i + 3 * quarter);
            let x = two_layers::<L, MIDDLE>(q, [a, b, c, d], [c_odd, d_odd], factors, one);
            let [a, b, c, d] = x;
            a.store(out.add(i));
            b.store(out.add(i + quarter));
            c.store(out.add(i + 2 * quarter));
            d.store(out.add(i + 3 * quarter));
        }
    }
}

/// Forward transform from `source` by way of `data` to `target`.
///
/// # Safety
/// `lazy.n` is a power of two of at least `4 L::COUNT`, and `data` has that many words,
/// as have `source` and `target`.
#[inline(always)]
unsafe fn forward_lazy<L: Lanes, S: Source<L>, T: Target<L>>(
    data: *mut u32,
    source: S,
    target: T,
    lazy: &Lazy<'_>,
) {
    let Lazy {
        n,
        modulus,
        table,
        middle,
    } = *lazy;
    let q = Q::<L>::new(modulus);
    let one = L::splat(modulus.shoup(modulus.r()).1);
    // SAFETY: every index below is less than n, as in `forward_all`.
    unsafe {
        // The first pass reads the source; an odd number of layers that reach a vector
        // or farther leaves it one layer.
        let mut layers;
        if (n.trailing_zeros() - L::COUNT.trailing_zeros()) & 1 == 1 {
            let (half, f) = (n >> 1, table.all(1));
            for i in (0..half).step_by(L::COUNT) {
                let (a, _) = source.load(i);
                let (b, odd) = source.load(i + half);
                let ([a], [b]) = q.ct_lazy([a], [b], [odd], [f]);
                a.store(data.add(i));
                b.store(data.add(i + half));
            }
            layers = 1;
        } else {
            let factors = [table.all(1), table.all(2), table.all(3)];
            forward_block::<L, S, false>(q, (source, 0), data, n >> 2, factors, one);
            layers = 2;
        }
        while (n >> layers) >= 2 * L::COUNT {
            let (count, quarter) = (1 << layers, n >> (layers + 2));
            for k in 0..count {
                let (first, start) = (count + k, k * 4 * quarter);
                let factors = [
                    table.all(first),
                    table.all(2 * first),
                    table.all(2 * first + 1),
                ];
                let (from, out) = ((Words(data), start), data.add(start));
                if layers == middle {
                    forward_block::<L, Words, true>(q, from, out, quarter, factors, one);
                } else {
                    forward_block::<L, Words, false>(q, from, out, quarter, factors, one);
                }
            }
            layers += 2;
        }
        // Blocks are one vector long now. Two pairs at a time, as one waits for its
        // multiplications.
        let count = 1usize << layers;
        for pair in (0..n >> (L::LAYERS + 1)).step_by(2) {
            let at = pair * 2 * L::COUNT;
            let [mut a0, mut b0, mut a1, mut b1] =
                [0, 1, 2, 3].map(|j| L::load(data.add(at + j * L::COUNT)));
            each_layer!(L, layer in [0, 1, 2, 3], {
                let first = (count << layer) + (pair << (layer + 1));
                let f0 = table.pair::<L>(layer, first);
                let f1 = table.pair::<L>(layer, first + (2 << layer));
                (a0, b0) = L::split(layer, a0, b0);
                (a1, b1) = L::split(layer, a1, b1);
                ([a0, a1], [b0, b1]) =
                    q.ct_lazy([a0, a1], [b0, b1], [b0.odd(), b1.odd()], [f0, f1]);
            });
            (a0, b0) = L::gather(a0, b0);
            (a1, b1) = L::gather(a1, b1);
            target.store(at, [a0, b0, a1, b1]);
        }
    }
}

/// # Safety
/// [`long_enough`].
#[inline(always)]
unsafe fn forward_all<L: Lanes, const REDUCE: bool>(data: &mut [u32], m: &Modulus, z: &[i32]) {
    let n = data.len();
    let (data, z) = (data.as_mut_ptr(), z.as_ptr());
    let q = Q::<L>::new(m);
    // SAFETY: every index below is less than n: of the data by the shape of the
    // layers, of the factors because layer with `count` blocks has the entries
    // `count..2 count` and the last layer has n / 2 blocks.
    unsafe {
        let factor = |k: usize| Factor::<L>::all(*z.add(k), m);
        let mut count = 1;
        let mut length = n >> 1;
        // An odd number of layers that reach a vector or farther leaves one.
        if (n.trailing_zeros() - L::COUNT.trailing_zeros()) & 1 == 1 {
            let f = factor(1);
            for i in (0..length).step_by(L::COUNT) {
                let (x, y) = (data.add(i), data.add(i + length));
                let (a, b) = q.ct::<REDUCE>(L::load(x), L::load(y), f);
                a.store(x);
                b.store(y);
            }
            count = 2;
            length >>= 1;
        }
        while length >= 2 * L::COUNT {
            let quarter = length >> 1;
            for k in count..2 * count {
                let (f1, f2, f3) = (factor(k), factor(2 * k), factor(2 * k + 1));
                let block = data.add((k - count) * 2 * length);
                for i in (0..quarter).step_by(L::COUNT) {
                    let at = [0, 1, 2, 3].map(|j| block.add(i + j * quarter));
                    let [a, b, c, d] = at.map(|p| L::load(p));
                    let (a, c) = q.ct::<REDUCE>(a, c, f1);
                    let (b, d) = q.ct::<REDUCE>(b, d, f1);
                    let (a, b) = q.ct::<REDUCE>(a, b, f2);
                    let (c, d) = q.ct::<REDUCE>(c, d, f3);
                    for (x, p) in [a, b, c, d].into_iter().zip(at) {
                        x.store(p);
                    }
                }
            }
            count <<= 2;
            length >>= 2;
        }
        // Blocks are one vector long now.
        let barrett = Barrett::<L>::new(m);
        for pair in 0..n >> (L::LAYERS + 1) {
            let at = data.add(pair * 2 * L::COUNT);
            let (mut a, mut b) = (L::load(at), L::load(at.add(L::COUNT)));
            for layer in 0..L::LAYERS {
                (a, b) = L::split(layer, a, b);
                let first = (count << layer) + (pair << (layer + 1));
                let f = q.factor(L::factors(layer, z.add(first)));
                (a, b) = q.ct::<REDUCE>(a, b, f);
            }
            (a, b) = L::gather(a, b);
            if REDUCE {
                (a, b) = (a.towards_zero(q.q), b.towards_zero(q.q));
                (a, b) = (q.canon(a), q.canon(b));
            } else {
                (a, b) = (barrett.canon(a, q), barrett.canon(b, q));
            }
            a.store(at);
            b.store(at.add(L::COUNT));
        }
    }
}

/// See [`portable::inverse`].
#[inline(always)]
pub(super) fn inverse<L: Lanes>(data: &mut [u32], m: &Modulus, z: &[i32], scale: i32) {
    if !long_enough::<L>(data, z) {
        portable::inverse(data, m, z, scale);
    } else if m.value() <= MAX_UNREDUCED && z.len() >= 3 * data.len() {
        // SAFETY: the lengths are checked.
        unsafe { inverse_lazy::<L>(data, m, z, scale) }
    } else {
        // SAFETY: the lengths are checked.
        unsafe { inverse_all::<L>(data, m, z, scale) }
    }
}

/// The layers within a vector of an inverse transform. Inputs are canonical; outputs
/// are below `L::COUNT q`, or below `5 q / 2` if `REDUCE`, on the way there below `8 q`.
///
/// # Safety
/// `n` words, a multiple of four vectors, at `data`, and a table for them.
#[inline(always)]
unsafe fn inverse_within<L: Lanes, const REDUCE: bool>(
    q: Q<L>,
    data: *mut u32,
    n: usize,
    table: Table,
    one: L,
) {
    let count = n >> L::LAYERS;
    // SAFETY: as in `forward_lazy`.
    unsafe {
        for pair in (0..n >> (L::LAYERS + 1)).step_by(2) {
            let at = [0, 1, 2, 3].map(|j| data.add((2 * pair + j) * L::COUNT));
            let [a0, b0, a1, b1] = at.map(|p| L::load(p));
            let (mut a0, mut b0) = L::deal(a0, b0);
            let (mut a1, mut b1) = L::deal(a1, b1);
            each_layer!(L, layer in [3, 2, 1, 0], {
                let first = (count << layer) + (pair << (layer + 1));
                let f0 = table.pair::<L>(layer, first);
                let f1 = table.pair::<L>(layer, first + (2 << layer));
                // The third: sums are below 8 q by then.
                ([a0, a1], [b0, b1]) = q.gs_lazy([a0, a1], [b0, b1], [f0, f1]);
                if REDUCE && layer + 3 == L::LAYERS {
                    a0 = q.reduce(a0, one);
                    a1 = q.reduce(a1, one);
                }
                (a0, b0) = L::unsplit(layer, a0, b0);
                (a1, b1) = L::unsplit(layer, a1, b1);
            });
            for (x, p) in [a0, b0, a1, b1].into_iter().zip(at) {
                x.store(p);
            }
        }
    }
}

/// Two layers of an inverse transform, the first of `count` blocks, the second of half
/// as many. The sum of sums is reduced if `REDUCE`.
///
/// # Safety
/// As [`inverse_within`].
#[inline(always)]
unsafe fn inverse_pass<L: Lanes, const REDUCE: bool>(
    q: Q<L>,
    data: *mut u32,
    (count, quarter): (usize, usize),
    table: Table,
    one: L,
) {
    let outer = count >> 1;
    // SAFETY: as in `forward_lazy`.
    unsafe {
        for k in outer..2 * outer {
            let (f1, f2, f3) = (table.all(k), table.all(2 * k), table.all(2 * k + 1));
            let block = data.add((k - outer) * 4 * quarter);
            for i in (0..quarter).step_by(L::COUNT) {
                let at = [0, 1, 2, 3].map(|j| block.add(i + j * quarter));
                let [a, b, c, d] = at.map(|p| L::load(p));
                let ([a, c], [b, d]) = q.gs_lazy([a, c], [b, d], [f2, f3]);
                let ([mut a, b], [c, d]) = q.gs_lazy([a, b], [c, d], [f1, f1]);
                if REDUCE {
                    a = q.reduce(a, one);
                }
                for (x, p) in [a, b, c, d].into_iter().zip(at) {
                    x.store(p);
                }
            }
        }
    }
}

/// # Safety
/// [`long_enough`], a table of `3 n` entries, `q <= MAX_UNREDUCED`.
#[inline(always)]
unsafe fn inverse_lazy<L: Lanes>(data: &mut [u32], m: &Modulus, z: &[i32], scale: i32) {
    let n = data.len();
    let data = data.as_mut_ptr();
    let q = Q::<L>::new(m);
    let one = L::splat(m.shoup(m.r()).1);
    // SAFETY: as in `forward_lazy`.
    unsafe {
        let table = Table::new(z, n);
        // The last layer multiplies by `scale` as well.
        let s = Factor::<L>::all(scale, m);
        let last = Factor::<L>::all(m.centre(m.mont(*z.as_ptr().add(1), scale)), m);
        // Magnitudes in half moduli: every pass of two layers takes some that may grow
        // fourfold.
        let end = u64::from(m.quotient_of_r());
        let mut bound = 2 * L::COUNT as u64;
        if 4 * bound < end {
            inverse_within::<L, false>(q, data, n, table, one);
        } else {
            inverse_within::<L, true>(q, data, n, table, one);
            bound = 5;
        }
        let mut count = n >> (L::LAYERS + 1);
        let mut quarter = L::COUNT;
        while count > 2 {
            if 16 * bound < end {
                inverse_pass::<L, false>(q, data, (count, quarter), table, one);
                bound *= 4;
            } else {
                inverse_pass::<L, true>(q, data, (count, quarter), table, one);
                bound = 5;
            }
            count >>= 2;
            quarter <<= 2;
        }
        if count == 2 {
            let (f2, f3) = (table.all(2), table.all(3));
            for i in (0..quarter).step_by(L::COUNT) {
                let at = [0, 1, 2, 3].map(|j| data.add(i + j * quarter));
                let [a, b, c, d] = at.map(|p| L::load(p));
                let ([a, c], [b, d]) = q.gs_lazy([a, c], [b, d], [f2, f3]);
                let (a, c) = q.gs_last(a, c, s, last);
                let (b, d) = q.gs_last(b, d, s, last);
                for (x, p) in [a, b, c, d].into_iter().zip(at) {
                    x.store(p);
                }
            }
        } else {
            let half = n >> 1;
            for i in (0..half).step_by(L::COUNT) {
                let (x, y) = (data.add(i), data.add(i + half));
                let (a, b) = q.gs_last(L::load(x), L::load(y), s, last);
                a.store(x);
                b.store(y);
            }
        }
    }
}

/// # Safety
/// [`long_enough`].
#[inline(always)]
unsafe fn inverse_all<L: Lanes>(data: &mut [u32], m: &Modulus, z: &[i32], scale: i32) {
    let n = data.len();
    let (data, z) = (data.as_mut_ptr(), z.as_ptr());
    let q = Q::<L>::new(m);
    // SAFETY: as in `forward_all`.
    unsafe {
        let factor = |k: usize| Factor::<L>::all(*z.add(k), m);
        // The last layer multiplies by `scale` as well.
        let s = Factor::<L>::all(scale, m);
        let last = Factor::<L>::all(m.centre(m.mont(*z.add(1), scale)), m);
        let mut count = n >> L::LAYERS;
        for pair in 0..n >> (L::LAYERS + 1) {
            let at = data.add(pair * 2 * L::COUNT);
            let (mut a, mut b) = L::deal(L::load(at), L::load(at.add(L::COUNT)));
            for layer in (0..L::LAYERS).rev() {
                let first = (count << layer) + (pair << (layer + 1));
                let f = q.factor(L::factors(layer, z.add(first)));
                (a, b) = q.gs(a, b, f);
                (a, b) = L::unsplit(layer, a, b);
            }
            a.store(at);
            b.store(at.add(L::COUNT));
        }
        // Two layers per pass, of which the first has `count` blocks; the block of
        // a pass is `4 quarter` long.
        count >>= 1;
        let mut quarter = L::COUNT;
        while count >= 2 {
            let outer = count >> 1;
            for k in outer..2 * outer {
                let (f1, f2, f3) = (factor(k), factor(2 * k), factor(2 * k + 1));
                let block = data.add((k - outer) * 4 * quarter);
                for i in (0..quarter).step_by(L::COUNT) {
                    let at = [0, 1, 2, 3].map(|j| block.add(i + j * quarter));
                    let [a, b, c, d] = at.map(|p| L::load(p));
                    let (a, b) = q.gs(a, b, f2);
                    let (c, d) = q.gs(c, d, f3);
                    let ((a, c), (b, d)) = if outer == 1 {
                        (q.gs_last(a, c, s, last), q.gs_last(b, d, s, last))
                    } else {
                        (q.gs(a, c, f1), q.gs(b, d, f1))
                    };
                    for (x, p) in [a, b, c, d].into_iter().zip(at) {
                        x.store(p);
                    }
                }
            }
            count >>= 2;
            quarter <<= 2;
        }
        if count == 1 {
            let half = n >> 1;
            for i in (0..half).step_by(L::COUNT) {
                let (x, y) = (data.add(i), data.add(i + half));
                let (a, b) = q.gs_last(L::load(x), L::load(y), s, last);
                a.store(x);
                b.store(y);
            }
        }
    }
}

/// Words that whole vectors cover.
#[inline(always)]
fn whole<L: Lanes>(lengths: &[usize]) -> usize {
    let shortest = lengths.iter().copied().min().unwrap_or(0);
    shortest & !(L::COUNT - 1)
}

/// The shortest of some lengths.
#[inline(always)]
fn shortest(lengths: &[usize]) -> usize {
    lengths.iter().copied().min().unwrap_or(0)
}

/// Writes what `$words` makes of the operands from index `$i` on, one vector for each of
/// the pointers `$out`, for all `$n` words or as many as whole vectors cover; gives
/// how many those are. It must depend on the words from `$i` on alone, which are written
/// afterwards.
///
/// Memory of an allocator starts in the middle of a vector, and a vector that crosses the
/// lines of a cache takes twice as long. So the first and the last vector are made before
/// all others, and those begin on a line.
macro_rules! vectors {
    ($lanes:ident, $n:expr, $out:expr, $i:ident => $words:expr) => {{
        let (n, out, count) = ($n, $out, $lanes::COUNT);
        let [first, ..] = out;
        let skip = first.align_offset(4 * count);
        let apart = 0 < skip && skip < count && n >= 2 * count;
        let (ends, start) = if apart {
            let head = {
                let $i = 0usize;
                $words
            };
            let tail = {
                let $i = n - count;
                $words
            };
            (Some((head, tail)), skip)
        } else {
            (None, 0)
        };
        let end = start + ((n - start) & !(count - 1));
        for $i in (start..end).step_by(count) {
            for (words, out) in $words.into_iter().zip(out) {
                words.store(out.add($i));
            }
        }
        match ends {
            Some((head, tail)) => {
                for ((head, tail), out) in head.into_iter().zip(tail).zip(out) {
                    head.store(out);
                    tail.store(out.add(n - count));
                }
                n
            }
            None => end,
        }
    }};
}

/// Runs `portable` on what is left behind the first `done` words.
macro_rules! rest {
    ($name:ident, $done:expr, ($($changed:ident),*), ($($read:ident),*) $(, $arg:expr)*) => {
        if let ($(Some($changed),)* $(Some($read),)*) =
            ($($changed.get_mut($done..),)* $($read.get($done..),)*)
            && !rest!(@first $($changed)*).is_empty()
        {
            portable::$name($($changed,)* $($read,)* $($arg),*);
        }
    };
    (@first $first:ident $($others:ident)*) => { $first };
}

/// See [`portable::mul_acc`].
#[inline(always)]
pub(super) fn mul_acc<L: Lanes>(acc: &mut [u32], a: &[u32], b_mont: &[u32], m: &Modulus) {
    let q = Q::<L>::new(m);
    let n = shortest(&[acc.len(), a.len(), b_mont.len()]);
    let (to, from, b) = (acc.as_mut_ptr(), a.as_ptr(), b_mont.as_ptr());
    // SAFETY: vectors within the shortest length.
    let done = unsafe {
        vectors!(L, n, [to], i => {
            let product = q.canon(q.mont(from.add(i), b.add(i)));
            [q.add(L::load(to.add(i)), product)]
        })
    };
    rest!(mul_acc, done, (acc), (a, b_mont), m);
}

/// See [`portable::mul_acc_two`].
#[inline(always)]
pub(super) fn mul_acc_two<L: Lanes>(
    acc0: &mut [u32],
    acc1: &mut [u32],
    a0: &[u32],
    a1: &[u32],
    b_mont: &[u32],
    m: &Modulus,
) {
    let q = Q::<L>::new(m);
    let n = shortest(&[acc0.len(), acc1.len(), a0.len(), a1.len(), b_mont.len()]);
    let to = [acc0.as_mut_ptr(), acc1.as_mut_ptr()];
    let (from, b) = ([a0.as_ptr(), a1.as_ptr()], b_mont.as_ptr());
    // SAFETY: vectors within the shortest length.
    let done = unsafe {
        vectors!(L, n, to, i => {
            let products = from.map(|from| from.add(i));
            let b = b.add(i);
            let [x0, x1] = [q.mont(products[0], b), q.mont(products[1], b)];
            [
                q.add(L::load(to[0].add(i)), q.canon(x0)),
                q.add(L::load(to[1].add(i)), q.canon(x1)),
            ]
        })
    };
    rest!(mul_acc_two, done, (acc0, acc1), (a0, a1, b_mont), m);
}

/// See [`portable::mul_sub`].
#[inline(always)]
pub(super) fn mul_sub<L: Lanes>(a: &mut [u32], b: &[u32], c_mont: &[u32], m: &Modulus) {
    let q = Q::<L>::new(m);
    let n = shortest(&[a.len(), b.len(), c_mont.len()]);
    let (to, from, c) = (a.as_mut_ptr(), b.as_ptr(), c_mont.as_ptr());
    // SAFETY: vectors within the shortest length.
    let done = unsafe {
        vectors!(L, n, [to], i => {
            let product = q.canon(q.mont(from.add(i), c.add(i)));
            [q.sub(L::load(to.add(i)), product)]
        })
    };
    rest!(mul_sub, done, (a), (b, c_mont), m);
}

/// See [`portable::mul`].
#[inline(always)]
pub(super) fn mul<L: Lanes>(a: &mut [u32], b_mont: &[u32], m: &Modulus) {
    let q = Q::<L>::new(m);
    let n = shortest(&[a.len(), b_mont.len()]);
    let (to, b) = (a.as_mut_ptr(), b_mont.as_ptr());
    // SAFETY: vectors within the shortest length.
    let done = unsafe { vectors!(L, n, [to], i => [q.canon(q.mont(to.add(i), b.add(i)))]) };
    rest!(mul, done, (a), (b_mont), m);
}

/// See [`portable::scale`].
#[inline(always)]
pub(super) fn scale<L: Lanes>(a: &mut [u32], factor: i32, m: &Modulus) {
    let q = Q::<L>::new(m);
    let f = Factor::<L>::all(factor, m);
    let to = a.as_mut_ptr();
    // SAFETY: vectors within the length.
    let done = unsafe {
        vectors!(L, a.len(), [to], i => {
            let at = to.add(i);
            [q.canon(q.times_split(L::load(at), L::load_odd(at), f))]
        })
    };
    rest!(scale, done, (a), (), factor, m);
}

/// See [`portable::add`].
#[inline(always)]
pub(super) fn add<L: Lanes>(a: &mut [u32], b: &[u32], m: &Modulus) {
    let q = Q::<L>::new(m);
    let n = shortest(&[a.len(), b.len()]);
    let (to, from) = (a.as_mut_ptr(), b.as_ptr());
    // SAFETY: vectors within the shortest length.
    let done =
        unsafe { vectors!(L, n, [to], i => [q.add(L::load(to.add(i)), L::load(from.add(i)))]) };
    rest!(add, done, (a), (b), m);
}

/// See [`portable::sub_scale`].
#[inline(always)]
pub(super) fn sub_scale<L: Lanes>(a: &mut [u32], b: &[u32], factor: i32, m: &Modulus) {
    let q = Q::<L>::new(m);
    let f = Factor::<L>::all(factor, m);
    let n = shortest(&[a.len(), b.len()]);
    let (to, from) = (a.as_mut_ptr(), b.as_ptr());
    // SAFETY: vectors within the shortest length.
    let done = unsafe {
        vectors!(L, n, [to], i => {
            let difference = L::load(to.add(i)).sub(L::load(from.add(i)));
            [q.canon(q.times(difference, f))]
        })
    };
    rest!(sub_scale, done, (a), (b), factor, m);
}

/// Sums of up to two products of canonical residues to canonical residues: Barrett on 64
/// bits, which unlike Montgomery's needs no factor in another form.
///
/// With `s = bits - 2` and `f = floor(2^(32 + s) / q) < 2^31`, `q` being above `2^(s + 1)`,
/// the quotient `floor(floor(t / 2^s) f / 2^32)` of `t < 2 q^2` is at most that of `t`,
/// and less by below `1/2` for the bits that are shifted out, `2^(bits - 29)` for
/// `f` and 1: for `bits <= 28` what is left is below `2 q`. If `WIDE`, `s = bits - 1`, and it is
/// below `3 q`.
#[derive(Clone, Copy)]
struct WideBarrett<L> {
    q: L,
    twice: L,
    factor: L,
    shift: u32,
}

impl<L: Lanes> WideBarrett<L> {
    /// The most bits of a modulus that are not `WIDE`.
    const NARROW: u32 = 28;

    #[inline(always)]
    fn new<const WIDE: bool>(m: &Modulus) -> Self {
        let (q, bits) = (m.value(), m.bits());
        let factor = m.wide_quotient(u32::from(WIDE));
        Self {
            q: L::splat(q as i32),
            twice: L::splat(2 * q as i32),
            factor: L::splat(factor as i32),
            shift: bits - 2 + u32::from(WIDE),
        }
    }

    #[inline(always)]
    fn canon<const WIDE: bool>(self, even: L, odd: L) -> L {
        let quotient = high(
            even.shift_wide(self.shift).mul_even_unsigned(self.factor),
            odd.shift_wide(self.shift).mul_even_unsigned(self.factor),
        );
        // SAFETY: by the contract of `Lanes`.
        let low = unsafe { L::low(even, odd) };
        let mut x = low.sub(quotient.mul_low(self.q));
        if WIDE {
            x = x.min(x.sub(self.twice));
        }
        x.min(x.sub(self.q))
    }
}

/// [`square`] of the first `n` words, or as many as vectors cover: how many that is.
#[inline(always)]
fn square_wide<L: Lanes, const WIDE: bool>(
    a: &mut [u32],
    b: &mut [u32],
    c: &mut [u32],
    n: usize,
    m: &Modulus,
) -> usize {
    let barrett = WideBarrett::<L>::new::<WIDE>(m);
    let to = [a.as_mut_ptr(), b.as_mut_ptr(), c.as_mut_ptr()];
    let [a, b, _] = to;
    // SAFETY: vectors within the shortest length.
    unsafe {
        vectors!(L, n, to, i => {
            let (x, x_odd) = (L::load(a.add(i)), L::load_odd(a.add(i)));
            let (y, y_odd) = (L::load(b.add(i)), L::load_odd(b.add(i)));
            let (twice, twice_odd) = (x.add(x), x_odd.add(x_odd));
            [
                barrett.canon::<WIDE>(x.mul_even(x), x_odd.mul_even(x_odd)),
                barrett.canon::<WIDE>(twice.mul_even(y), twice_odd.mul_even(y_odd)),
                barrett.canon::<WIDE>(y.mul_even(y), y_odd.mul_even(y_odd)),
            ]
        })
    }
}

/// The product of ciphertexts of two parts, see [`super::tensor`].
#[inline(always)]
pub(super) fn tensor<L: Lanes>(
    a0: &mut [u32],
    a1: &mut [u32],
    a2: &mut [u32],
    b0: &[u32],
    b1: &[u32],
    m: &Modulus,
) -> bool {
    let n = a0.len();
    if whole::<L>(&[n, a1.len(), a2.len(), b0.len(), b1.len()]) != n {
        return false;
    }
    if m.bits() > WideBarrett::<L>::NARROW {
        tensor_wide::<L, true>([a0, a1, a2], [b0, b1], n, m);
    } else {
        tensor_wide::<L, false>([a0, a1, a2], [b0, b1], n, m);
    }
    true
}

/// [`tensor`] of the first `n` words, a multiple of a vector.
#[inline(always)]
fn tensor_wide<L: Lanes, const WIDE: bool>(
    a: [&mut [u32]; 3],
    [b0, b1]: [&[u32]; 2],
    n: usize,
    m: &Modulus,
) {
    let barrett = WideBarrett::<L>::new::<WIDE>(m);
    let to = a.map(<[u32]>::as_mut_ptr);
    let ([a0, a1, _], b0, b1) = (to, b0.as_ptr(), b1.as_ptr());
    // SAFETY: vectors within the shortest length.
    unsafe {
        vectors!(L, n, to, i => {
            let (x0, x0_odd) = (L::load(a0.add(i)), L::load_odd(a0.add(i)));
            let (x1, x1_odd) = (L::load(a1.add(i)), L::load_odd(a1.add(i)));
            let (y0, y0_odd) = (L::load(b0.add(i)), L::load_odd(b0.add(i)));
            let (y1, y1_odd) = (L::load(b1.add(i)), L::load_odd(b1.add(i)));
            let even = x0.mul_even(y1).add_wide(x1.mul_even(y0));
            let odd = x0_odd.mul_even(y1_odd).add_wide(x1_odd.mul_even(y0_odd));
            [
                barrett.canon::<WIDE>(x0.mul_even(y0), x0_odd.mul_even(y0_odd)),
                barrett.canon::<WIDE>(even, odd),
                barrett.canon::<WIDE>(x1.mul_even(y1), x1_odd.mul_even(y1_odd)),
            ]
        });
    }
}

/// See [`portable::square`].
#[inline(always)]
pub(super) fn square<L: Lanes>(a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus) {
    let n = shortest(&[a.len(), b.len(), c.len()]);
    let done = if m.bits() > WideBarrett::<L>::NARROW {
        square_wide::<L, true>(&mut *a, &mut *b, &mut *c, n, m)
    } else {
        square_wide::<L, false>(&mut *a, &mut *b, &mut *c, n, m)
    };
    rest!(square, done, (a, b, c), (), m);
}

/// See [`portable::lift`].
#[inline(always)]
pub(super) fn lift<L: Lanes>(
    src: &[u32],
    from: &Modulus,
    dst: &mut [u32],
    factor: i32,
    m: &Modulus,
) {
    let q = Q::<L>::new(m);
    let f = Factor::<L>::all(factor, m);
    let (from_q, half) = (
        L::splat(from.value() as i32),
        L::splat((from.value() >> 1) as i32),
    );
    let done = whole::<L>(&[src.len(), dst.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let x = L::load(src.as_ptr().add(i)).sub_above(half, from_q);
            q.times(x, f).store(dst.as_mut_ptr().add(i));
        }
    }
    if let (Some(src), Some(dst)) = (src.get(done..), dst.get_mut(done..)) {
        portable::lift(src, from, dst, factor, m);
    }
}

/// See [`portable::lift_i32`].
#[inline(always)]
pub(super) fn lift_i32<L: Lanes>(src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus) {
    let q = Q::<L>::new(m);
    let f = Factor::<L>::all(factor, m);
    let done = whole::<L>(&[src.len(), dst.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let x = L::load(src.as_ptr().add(i).cast());
            q.times(x, f).store(dst.as_mut_ptr().add(i));
        }
    }
    if let (Some(src), Some(dst)) = (src.get(done..), dst.get_mut(done..)) {
        portable::lift_i32(src, dst, factor, m);
    }
}

/// See [`portable::lift_f32`].
#[inline(always)]
pub(super) fn lift_f32<L: Lanes>(src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus) {
    let q = Q::<L>::new(m);
    let f = Factor::<L>::all(factor, m);
    let done = whole::<L>(&[src.len(), dst.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let x = L::load_f32(src.as_ptr().add(i));
            q.times(x, f).store(dst.as_mut_ptr().add(i));
        }
    }
    if let (Some(src), Some(dst)) = (src.get(done..), dst.get_mut(done..)) {
        portable::lift_f32(src, dst, factor, m);
    }
}

/// See [`sums::lift_sum`].
#[inline(always)]
pub(super) fn lift_sum<L: Lanes>(src: &[u32], terms: &[Carried], dst: &mut [u32], m: &Modulus) {
    // The number of terms is known in each loop.
    match *terms {
        [a] => lift_terms::<L, 1>(src, [a], dst, m),
        [a, b] => lift_terms::<L, 2>(src, [a, b], dst, m),
        [a, b, c] => lift_terms::<L, 3>(src, [a, b, c], dst, m),
        [a, b, c, d] => lift_terms::<L, 4>(src, [a, b, c, d], dst, m),
        _ => sums::lift_sum(src, terms, dst, m),
    }
}

#[inline(always)]
fn lift_terms<L: Lanes, const K: usize>(
    src: &[u32],
    terms: [Carried; K],
    dst: &mut [u32],
    m: &Modulus,
) {
    let (n, count) = (dst.len(), L::COUNT);
    if n & (count - 1) != 0 || src.len() < K * n {
        return sums::lift_sum(src, &terms, dst, m);
    }
    let source = Sum::<L, K>::new(src, n, terms, m);
    for i in (0..n).step_by(count) {
        // SAFETY: whole vectors of limbs that are there.
        unsafe {
            let (x, _) = source.load(i);
            x.store(dst.as_mut_ptr().add(i));
        }
    }
}

/// Base extension and forward transform, see [`super::carry_forward`].
#[inline(always)]
pub(super) fn carry_forward<L: Lanes>(
    src: &[u32],
    terms: &[Carried],
    dst: &mut [u32],
    m: &Modulus,
    z: &[i32],
) -> bool {
    let target = Raw(dst.as_mut_ptr());
    // SAFETY: the target is as long as `dst`.
    unsafe { carried::<L, _>(src, terms, dst, m, z, target) }
}

/// Division by a prime, see [`super::mod_down`].
#[inline(always)]
pub(super) fn mod_down<L: Lanes>(
    x: &mut [u32],
    (src, terms): (&[u32], &[Carried]),
    scratch: &mut [u32],
    factors: [i32; 2],
    m: &Modulus,
    z: &[i32],
) -> bool {
    if x.len() != scratch.len() {
        return false;
    }
    let target = Division {
        q: Q::<L>::new(m),
        x: x.as_mut_ptr(),
        factors: factors.map(L::splat),
    };
    // SAFETY: the target is as long as `scratch`.
    unsafe { carried::<L, _>(src, terms, scratch, m, z, target) }
}

/// The forward transform of what [`sums::lift_sum`] makes of `src`, by way of `data` to
/// `target`; whether it was done.
///
/// # Safety
/// `target` takes as many words as `data` has.
#[inline(always)]
unsafe fn carried<L: Lanes, T: Target<L>>(
    src: &[u32],
    terms: &[Carried],
    data: &mut [u32],
    m: &Modulus,
    z: &[i32],
    target: T,
) -> bool {
    let n = data.len();
    if !long_enough::<L>(data, z) || src.len() < terms.len() * n {
        return false;
    }
    if let [term] = terms
        && term.factor == m.r()
    {
        // Itself: not even a multiplication, where there is room.
        let half = term.from.value() >> 1;
        if let Some(lazy) = Lazy::new::<L>(n, half, m, z) {
            let source = Centred {
                src: src.as_ptr(),
                from: L::splat(term.from.value() as i32),
                half: L::splat(half as i32),
            };
            // SAFETY: the lengths are checked.
            unsafe { forward_lazy(data.as_mut_ptr(), source, target, &lazy) }
            return true;
        }
    }
    let Some(lazy) = Lazy::new::<L>(n, m.value(), m, z) else {
        return false;
    };
    let data = data.as_mut_ptr();
    // SAFETY: the lengths are checked.
    unsafe {
        match *terms {
            [a] => forward_lazy(data, Sum::<L, 1>::new(src, n, [a], m), target, &lazy),
            [a, b] => forward_lazy(data, Sum::<L, 2>::new(src, n, [a, b], m), target, &lazy),
            [a, b, c] => {
                forward_lazy(data, Sum::<L, 3>::new(src, n, [a, b, c], m), target, &lazy);
            }
            [a, b, c, d] => {
                let source = Sum::<L, 4>::new(src, n, [a, b, c, d], m);
                forward_lazy(data, source, target, &lazy);
            }
            _ => return false,
        }
    }
    true
}

/// See [`sums::dot_two`].
#[inline(always)]
pub(super) fn dot_two<L: Lanes>(
    acc0: &mut [u32],
    acc1: &mut [u32],
    factor: i32,
    terms: &[SumTerm<'_>],
    m: &Modulus,
) {
    // Modulo smaller primes factors may be any words: with five of them, the sum is within
    // `(5 * 2^31 + q / 2) q`, and what is left of it within `3.1 q`.
    if m.value() <= MAX_UNREDUCED {
        dot_any::<L, true>(acc0, acc1, factor, terms, m);
    } else {
        dot_any::<L, false>(acc0, acc1, factor, terms, m);
    }
}

#[inline(always)]
fn dot_any<L: Lanes, const WIDE: bool>(
    acc0: &mut [u32],
    acc1: &mut [u32],
    factor: i32,
    terms: &[SumTerm<'_>],
    m: &Modulus,
) {
    match *terms {
        [a] => dot_terms::<L, WIDE, 1>(acc0, acc1, factor, [a], m),
        [a, b] => dot_terms::<L, WIDE, 2>(acc0, acc1, factor, [a, b], m),
        [a, b, c] => dot_terms::<L, WIDE, 3>(acc0, acc1, factor, [a, b, c], m),
        [a, b, c, d] => dot_terms::<L, WIDE, 4>(acc0, acc1, factor, [a, b, c, d], m),
        [a, b, c, d, e] => {
            dot_terms::<L, WIDE, MAX_TERMS>(acc0, acc1, factor, [a, b, c, d, e], m);
        }
        _ => sums::dot_two(acc0, acc1, factor, terms, m),
    }
}

#[inline(always)]
fn dot_terms<L: Lanes, const WIDE: bool, const K: usize>(
    acc0: &mut [u32],
    acc1: &mut [u32],
    factor: i32,
    terms: [SumTerm<'_>; K],
    m: &Modulus,
) {
    let n = acc0.len();
    let fits = |term: &SumTerm<'_>| [term.x, term.b, term.a].iter().all(|x| x.len() >= n);
    if n & (L::COUNT - 1) != 0 || acc1.len() != n || !terms.iter().all(fits) {
        return sums::dot_two(acc0, acc1, factor, &terms, m);
    }
    let q = Q::<L>::new(m);
    let factor = L::splat(factor);
    let to = [acc0.as_mut_ptr(), acc1.as_mut_ptr()];
    // Without closures: what is not enabled in one is not inlined there.
    // SAFETY: vectors within the shortest length.
    unsafe {
        vectors!(L, n, to, i => {
            let (at0, at1) = (to[0].add(i), to[1].add(i));
            let mut even0 = L::load(at0).mul_even(factor);
            let mut odd0 = L::load_odd(at0).mul_even(factor);
            let mut even1 = L::load(at1).mul_even(factor);
            let mut odd1 = L::load_odd(at1).mul_even(factor);
            for term in &terms {
                let (x, b, a) = (
                    term.x.as_ptr().add(i),
                    term.b.as_ptr().add(i),
                    term.a.as_ptr().add(i),
                );
                let (digit, digit_odd) = (L::load(x), L::load_odd(x));
                even0 = even0.add_wide(digit.mul_even(L::load(b)));
                odd0 = odd0.add_wide(digit_odd.mul_even(L::load_odd(b)));
                even1 = even1.add_wide(digit.mul_even(L::load(a)));
                odd1 = odd1.add_wide(digit_odd.mul_even(L::load_odd(a)));
            }
            let x0 = high(q.down(even0), q.down(odd0));
            let x1 = high(q.down(even1), q.down(odd1));
            if WIDE {
                [q.canon_wide(x0), q.canon_wide(x1)]
            } else {
                let (x0, x1) = (q.canon(x0), q.canon(x1));
                [x0.min(x0.sub(q.q)), x1.min(x1.sub(q.q))]
            }
        });
    }
}

/// See [`portable::lift_i64`].
#[inline(always)]
pub(super) fn lift_i64<L: Lanes>(src: &[i64], dst: &mut [u32], factor: i32, m: &Modulus) {
    let q = Q::<L>::new(m);
    let f = Factor::<L>::all(factor, m);
    let f_high = Factor::<L>::all(integers::high_factor(factor, m), m);
    let done = whole::<L>(&[src.len(), dst.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let (high, low) = L::load_i64(src.as_ptr().add(i));
            let sum = q.add(q.canon(q.times(high, f_high)), q.canon(q.times(low, f)));
            sum.store(dst.as_mut_ptr().add(i));
        }
    }
    if let (Some(src), Some(dst)) = (src.get(done..), dst.get_mut(done..)) {
        portable::lift_i64(src, dst, factor, m);
    }
}

/// The automorphism `g` of evaluations, `half` as in `automorphism::Permutation`;
/// whether it was done, which it is for limbs of a vector or more.
///
/// A vector of the output comes from one of the input: its places differ in the
/// first bits of the reversed place alone, to which multiples of `g` are added
/// there. So the start of those bits, one of as many as there are words, names the
/// permutation.
#[inline(always)]
pub(super) fn permute<L: Lanes>(src: &[u32], dst: &mut [u32], g: u32, half: u32) -> bool {
    let n = src.len();
    if !n.is_power_of_two() || n < L::COUNT || dst.len() != n {
        return false;
    }
    let reversed = |x: u32| x.reverse_bits() >> (32 - L::LAYERS);
    let mut places = [[0u32; 16]; 16];
    for (places, start) in places.iter_mut().zip(0..) {
        for (place, k) in places.iter_mut().zip(0..L::COUNT as u32) {
            *place = reversed(g.wrapping_mul(reversed(k)).wrapping_add(start));
        }
    }
    for i in (0..n).step_by(L::COUNT) {
        let from = (i as u32).reverse_bits().wrapping_mul(g).wrapping_add(half);
        let block = from.reverse_bits() as usize & (n - 1) & !(L::COUNT - 1);
        let start = (from >> (32 - L::LAYERS)) as usize;
        // SAFETY: whole vectors of both; `start` is below 16.
        unsafe {
            let places = L::load(places.as_ptr().add(start).cast::<u32>());
            let x = L::load(src.as_ptr().add(block));
            x.permute(places).store(dst.as_mut_ptr().add(i));
        }
    }
    true
}

/// See [`portable::residues`]. Up to the last whole vector, or to the first word
/// that gives no residue; behind that, words of `out` are overwritten.
#[inline(always)]
pub(super) fn residues<L: Lanes>(
    words: &[u32],
    out: &mut [u32],
    q: u32,
    reject_below: u32,
) -> usize {
    let (factor, last) = (
        L::splat(q as i32),
        // Not zero, as the modulus is odd.
        L::splat(reject_below.wrapping_sub(1) as i32),
    );
    let done = whole::<L>(&[words.len(), out.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let at = words.as_ptr().add(i);
            let w = L::load(at);
            let (even, odd) = (
                w.mul_even_unsigned(factor),
                L::load_odd(at).mul_even_unsigned(factor),
            );
            high(even, odd).store(out.as_mut_ptr().add(i));
            let accepted = w.mul_low(factor).before_at_most(last);
            if accepted < L::COUNT {
                return i + accepted;
            }
        }
    }
    done
}
