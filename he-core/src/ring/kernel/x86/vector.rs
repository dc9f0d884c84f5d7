//! The kernels over any [`Lanes`]. Lengths that are no multiple of a vector end
//! in `portable`.
//!
//! Montgomery products are those of [`Modulus::mont`] in the form `(t - m q) /
//! 2^32` with `m = t q^-1 mod 2^32`, which gives the same number, or, where `m` is
//! `-2^31`, one that differs by `q` and keeps the same bounds; for a factor
//! `w` that is known beforehand `m` is `b (w q^-1) mod 2^32` and does not wait
//! for `t` (Seiler, ePrint 2018/039, section 3.2).
//!
//! # Bounds of the transforms
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

/// A modulus in every lane.
#[derive(Clone, Copy)]
pub(super) struct Q<L> {
    q: L,
    /// `q^-1 mod 2^32`.
    inv: L,
}

/// A factor and `factor * q^-1 mod 2^32`.
#[derive(Clone, Copy)]
pub(super) struct Factor<L> {
    w: L,
    /// The odd lanes of `w` in the even ones.
    odd: L,
    m: L,
}

impl<L: Lanes> Factor<L> {
    /// The same factor in every lane.
    #[inline(always)]
    pub(super) fn all(w: i32, m: &Modulus) -> Self {
        let w_m = w.wrapping_mul(m.neg_inv().wrapping_neg());
        let w = L::splat(w);
        Self {
            w,
            odd: w,
            m: L::splat(w_m),
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
        Factor {
            w,
            odd: w.odd(),
            m: w.mul_low(self.inv),
        }
    }

    /// `b w / 2^32 mod q`.
    #[inline(always)]
    pub(super) fn times(self, b: L, f: Factor<L>) -> L {
        let m = b.mul_low(f.m);
        // SAFETY: by the contract of `Lanes`.
        unsafe {
            let even = b.mul_even(f.w).sub_wide(m.mul_even(self.q));
            let odd = b.odd().mul_even(f.odd).sub_wide(m.odd().mul_even(self.q));
            L::high(even, odd)
        }
    }

    /// 64-bit `t` less the multiple of `q` that clears its low word.
    #[inline(always)]
    fn down(self, t: L) -> L {
        // SAFETY: by the contract of `Lanes`.
        unsafe { t.sub_wide(t.mul_even(self.inv).mul_even(self.q)) }
    }

    /// `a b / 2^32 mod q`.
    #[inline(always)]
    fn mont(self, a: L, b: L) -> L {
        // SAFETY: by the contract of `Lanes`.
        let (even, odd) = unsafe { (a.mul_even(b), a.odd().mul_even(b.odd())) };
        L::high(self.down(even), self.down(odd))
    }

    /// From `-q < x < q` to `0 <= x < q`.
    #[inline(always)]
    pub(super) fn canon(self, x: L) -> L {
        x.min(x.add(self.q))
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
        let product = L::high(even, odd);
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
    } else if m.value() > MAX_UNREDUCED {
        // SAFETY: the lengths are checked.
        unsafe { forward_all::<L, true>(data, m, z) }
    } else {
        // SAFETY: the lengths are checked.
        unsafe { forward_all::<L, false>(data, m, z) }
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
            for layer in (0..L::LAYERS).rev() {
                (a, b) = L::unsplit(layer, a, b);
            }
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
    if long_enough::<L>(data, z) {
        // SAFETY: the lengths are checked.
        unsafe { inverse_all::<L>(data, m, z, scale) }
    } else {
        portable::inverse(data, m, z, scale);
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
            let (mut a, mut b) = (L::load(at), L::load(at.add(L::COUNT)));
            for layer in 0..L::LAYERS {
                (a, b) = L::split(layer, a, b);
            }
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
    let done = whole::<L>(&[acc.len(), a.len(), b_mont.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let at = acc.as_mut_ptr().add(i);
            let (a, b) = (L::load(a.as_ptr().add(i)), L::load(b_mont.as_ptr().add(i)));
            let product = q.canon(q.mont(a, b));
            q.add(L::load(at), product).store(at);
        }
    }
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
    let done = whole::<L>(&[acc0.len(), acc1.len(), a0.len(), a1.len(), b_mont.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let b = q.factor(L::load(b_mont.as_ptr().add(i)));
            for (acc, a) in [(&mut *acc0, a0), (&mut *acc1, a1)] {
                let at = acc.as_mut_ptr().add(i);
                let product = q.canon(q.times(L::load(a.as_ptr().add(i)), b));
                q.add(L::load(at), product).store(at);
            }
        }
    }
    rest!(mul_acc_two, done, (acc0, acc1), (a0, a1, b_mont), m);
}

/// See [`portable::mul_sub`].
#[inline(always)]
pub(super) fn mul_sub<L: Lanes>(a: &mut [u32], b: &[u32], c_mont: &[u32], m: &Modulus) {
    let q = Q::<L>::new(m);
    let done = whole::<L>(&[a.len(), b.len(), c_mont.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let at = a.as_mut_ptr().add(i);
            let (b, c) = (L::load(b.as_ptr().add(i)), L::load(c_mont.as_ptr().add(i)));
            let product = q.canon(q.mont(b, c));
            q.sub(L::load(at), product).store(at);
        }
    }
    rest!(mul_sub, done, (a), (b, c_mont), m);
}

/// See [`portable::mul`].
#[inline(always)]
pub(super) fn mul<L: Lanes>(a: &mut [u32], b_mont: &[u32], m: &Modulus) {
    let q = Q::<L>::new(m);
    let done = whole::<L>(&[a.len(), b_mont.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let at = a.as_mut_ptr().add(i);
            let b = L::load(b_mont.as_ptr().add(i));
            q.canon(q.mont(L::load(at), b)).store(at);
        }
    }
    rest!(mul, done, (a), (b_mont), m);
}

/// See [`portable::scale`].
#[inline(always)]
pub(super) fn scale<L: Lanes>(a: &mut [u32], factor: i32, m: &Modulus) {
    let q = Q::<L>::new(m);
    let f = Factor::<L>::all(factor, m);
    let done = whole::<L>(&[a.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the length.
        unsafe {
            let at = a.as_mut_ptr().add(i);
            q.canon(q.times(L::load(at), f)).store(at);
        }
    }
    rest!(scale, done, (a), (), factor, m);
}

/// See [`portable::add`].
#[inline(always)]
pub(super) fn add<L: Lanes>(a: &mut [u32], b: &[u32], m: &Modulus) {
    let q = Q::<L>::new(m);
    let done = whole::<L>(&[a.len(), b.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let at = a.as_mut_ptr().add(i);
            q.add(L::load(at), L::load(b.as_ptr().add(i))).store(at);
        }
    }
    rest!(add, done, (a), (b), m);
}

/// See [`portable::sub_scale`].
#[inline(always)]
pub(super) fn sub_scale<L: Lanes>(a: &mut [u32], b: &[u32], factor: i32, m: &Modulus) {
    let q = Q::<L>::new(m);
    let f = Factor::<L>::all(factor, m);
    let done = whole::<L>(&[a.len(), b.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let at = a.as_mut_ptr().add(i);
            let difference = L::load(at).sub(L::load(b.as_ptr().add(i)));
            q.canon(q.times(difference, f)).store(at);
        }
    }
    rest!(sub_scale, done, (a), (b), factor, m);
}

/// See [`portable::square`].
#[inline(always)]
pub(super) fn square<L: Lanes>(a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus) {
    let q = Q::<L>::new(m);
    let r2 = Factor::<L>::all(m.r2(), m);
    let done = whole::<L>(&[a.len(), b.len(), c.len()]);
    for i in (0..done).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            let [at_a, at_b, at_c] = [&mut *a, &mut *b, &mut *c].map(|x| x.as_mut_ptr().add(i));
            let (x, y) = (L::load(at_a), L::load(at_b));
            let x_mont = q.factor(q.times(x, r2));
            let xy = q.canon(q.times(y, x_mont));
            q.canon(q.times(x, x_mont)).store(at_a);
            q.add(xy, xy).store(at_b);
            q.canon(q.mont(q.times(y, r2), y)).store(at_c);
        }
    }
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
    let q = Q::<L>::new(m);
    let constants = terms.map(|term| {
        let from = term.from.value() as i32;
        (L::splat(from), L::splat(from >> 1), L::splat(term.factor))
    });
    for i in (0..n).step_by(count) {
        // SAFETY: whole vectors of limbs that are there.
        unsafe {
            let (mut even, mut odd) = (L::splat(0), L::splat(0));
            for (k, (from, half, factor)) in constants.into_iter().enumerate() {
                let x = L::load(src.as_ptr().add(k * n + i)).sub_above(half, from);
                even = even.add_wide(x.mul_even(factor));
                odd = odd.add_wide(x.odd().mul_even(factor));
            }
            L::high(q.down(even), q.down(odd)).store(dst.as_mut_ptr().add(i));
        }
    }
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
    match *terms {
        [a] => dot_terms::<L, 1>(acc0, acc1, factor, [a], m),
        [a, b] => dot_terms::<L, 2>(acc0, acc1, factor, [a, b], m),
        [a, b, c] => dot_terms::<L, 3>(acc0, acc1, factor, [a, b, c], m),
        [a, b, c, d] => dot_terms::<L, 4>(acc0, acc1, factor, [a, b, c, d], m),
        [a, b, c, d, e] => dot_terms::<L, MAX_TERMS>(acc0, acc1, factor, [a, b, c, d, e], m),
        _ => sums::dot_two(acc0, acc1, factor, terms, m),
    }
}

#[inline(always)]
fn dot_terms<L: Lanes, const K: usize>(
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
    for i in (0..n).step_by(L::COUNT) {
        // SAFETY: whole vectors below the shortest length.
        unsafe {
            // Without closures: what is not enabled in one is not inlined there.
            let (at0, at1) = (acc0.as_mut_ptr().add(i), acc1.as_mut_ptr().add(i));
            let (x0, x1) = (L::load(at0), L::load(at1));
            let (mut even0, mut odd0) = (x0.mul_even(factor), x0.odd().mul_even(factor));
            let (mut even1, mut odd1) = (x1.mul_even(factor), x1.odd().mul_even(factor));
            for term in &terms {
                let digit = L::load(term.x.as_ptr().add(i));
                let digit_odd = digit.odd();
                let b = L::load(term.b.as_ptr().add(i));
                even0 = even0.add_wide(digit.mul_even(b));
                odd0 = odd0.add_wide(digit_odd.mul_even(b.odd()));
                let a = L::load(term.a.as_ptr().add(i));
                even1 = even1.add_wide(digit.mul_even(a));
                odd1 = odd1.add_wide(digit_odd.mul_even(a.odd()));
            }
            let x0 = q.canon(L::high(q.down(even0), q.down(odd0)));
            let x1 = q.canon(L::high(q.down(even1), q.down(odd1)));
            x0.min(x0.sub(q.q)).store(at0);
            x1.min(x1.sub(q.q)).store(at1);
        }
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
            let w = L::load(words.as_ptr().add(i));
            let (even, odd) = (
                w.mul_even_unsigned(factor),
                w.odd().mul_even_unsigned(factor),
            );
            L::high(even, odd).store(out.as_mut_ptr().add(i));
            let accepted = w.mul_low(factor).before_at_most(last);
            if accepted < L::COUNT {
                return i + accepted;
            }
        }
    }
    done
}
