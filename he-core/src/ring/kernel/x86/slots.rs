//! Kernels of the encoder and the decoder: the special FFT in double precision
//! (see [`crate::ckks::encode`]), rounding, and reconstruction from residues.
//!
//! # The transforms
//!
//! Two stages are merged in one pass. The two shortest stages and the bit
//! reversal are one pass over tiles of four by four numbers. With the index of a
//! number split into two bits, the bits of the tile, and two bits,
//!
//! ```text
//! (a, m, b)  ->  (reverse b, reverse m, reverse a),
//! ```
//!
//! bit reversal transposes tile `m` and puts it in the place of tile `reverse m`,
//! and the four numbers of a block of the shortest stages are one column (before
//! the reversal) or one row (after it) of a tile.

use super::doubles::{Doubles, Four, Wide};
use super::vector::{Factor, Q};
use crate::ring::kernel::{RadixStep, Twiddles};

/// Real and imaginary parts.
type Complex<D> = (D, D);

/// Whether a transform of that size is for vectors.
#[inline(always)]
fn long_enough(re: &[f64], im: &[f64], twiddles: Twiddles) -> bool {
    let n = re.len();
    let table = twiddles.0.len().min(twiddles.1.len());
    n.is_power_of_two() && n >= 16 && im.len() == n && table >= n
}

/// `a + w b` and `a - w b`.
#[inline(always)]
fn forward_butterfly<D: Doubles>(
    a: Complex<D>,
    b: Complex<D>,
    w: Complex<D>,
) -> (Complex<D>, Complex<D>) {
    let t = (
        b.0.mul(w.0).sub(b.1.mul(w.1)),
        b.0.mul(w.1).add(b.1.mul(w.0)),
    );
    ((a.0.add(t.0), a.1.add(t.1)), (a.0.sub(t.0), a.1.sub(t.1)))
}

/// `a + b` and `(a - b)` times the conjugate of `w`.
#[inline(always)]
fn inverse_butterfly<D: Doubles>(
    a: Complex<D>,
    b: Complex<D>,
    w: Complex<D>,
) -> (Complex<D>, Complex<D>) {
    let d = (a.0.sub(b.0), a.1.sub(b.1));
    (
        (a.0.add(b.0), a.1.add(b.1)),
        (
            d.0.mul(w.0).add(d.1.mul(w.1)),
            d.1.mul(w.0).sub(d.0.mul(w.1)),
        ),
    )
}

/// Where the parts of a polynomial lie.
#[derive(Clone, Copy)]
struct Parts {
    re: *mut f64,
    im: *mut f64,
}

impl Parts {
    /// # Safety
    /// `D::COUNT` numbers must be readable from index `i` on.
    #[inline(always)]
    unsafe fn load<D: Doubles>(self, i: usize) -> Complex<D> {
        // SAFETY: the caller's.
        unsafe { (D::load(self.re.add(i)), D::load(self.im.add(i))) }
    }

    /// # Safety
    /// As for [`Self::load`], writable.
    #[inline(always)]
    unsafe fn store<D: Doubles>(self, i: usize, x: Complex<D>) {
        // SAFETY: the caller's.
        unsafe {
            x.0.store(self.re.add(i));
            x.1.store(self.im.add(i));
        }
    }

    /// The rows of a tile.
    ///
    /// # Safety
    /// Four times `quarter` numbers must be readable, of them four times `tile`
    /// and four more in a quarter.
    #[inline(always)]
    unsafe fn rows(self, quarter: usize, tile: usize) -> [Complex<Four>; 4] {
        let at = 4 * tile;
        // SAFETY: the caller's.
        unsafe {
            [
                self.load(at),
                self.load(quarter + at),
                self.load(2 * quarter + at),
                self.load(3 * quarter + at),
            ]
        }
    }

    /// # Safety
    /// As for [`Self::rows`], writable.
    #[inline(always)]
    unsafe fn put_rows(self, quarter: usize, tile: usize, rows: [Complex<Four>; 4]) {
        let at = 4 * tile;
        let [a, b, c, d] = rows;
        // SAFETY: the caller's.
        unsafe {
            self.store(at, a);
            self.store(quarter + at, b);
            self.store(2 * quarter + at, c);
            self.store(3 * quarter + at, d);
        }
    }
}

/// The same factor in every lane.
///
/// # Safety
/// Entry `i` must be readable.
#[inline(always)]
unsafe fn all<D: Doubles>(table: Parts, i: usize) -> Complex<D> {
    // SAFETY: the caller's.
    unsafe { (D::splat(*table.re.add(i)), D::splat(*table.im.add(i))) }
}

/// Stages of the forward transform of half-lengths `half` and `2 half`.
///
/// # Safety
/// `n` numbers in `data` and in `table`; `half` is a multiple of `D::COUNT` and
/// `4 half` divides `n`.
#[inline(always)]
unsafe fn forward_pass<D: Doubles>(data: Parts, n: usize, half: usize, table: Parts) {
    for block in (0..n).step_by(4 * half) {
        for i in (0..half).step_by(D::COUNT) {
            let at = block + i;
            // SAFETY: below `block + 4 half <= n`, in the table below `4 half`.
            unsafe {
                let (a, b) = (data.load::<D>(at), data.load::<D>(at + half));
                let (c, d) = (data.load::<D>(at + 2 * half), data.load::<D>(at + 3 * half));
                let (w1, w2) = (table.load(half + i), table.load(2 * half + i));
                let w3 = table.load(3 * half + i);
                let (a, b) = forward_butterfly(a, b, w1);
                let (c, d) = forward_butterfly(c, d, w1);
                let (a, c) = forward_butterfly(a, c, w2);
                let (b, d) = forward_butterfly(b, d, w3);
                data.store(at, a);
                data.store(at + half, b);
                data.store(at + 2 * half, c);
                data.store(at + 3 * half, d);
            }
        }
    }
}

/// Stages of the inverse transform of half-lengths `2 half` and `half`.
///
/// # Safety
/// As for [`forward_pass`].
#[inline(always)]
unsafe fn inverse_pass<D: Doubles>(data: Parts, n: usize, half: usize, table: Parts) {
    for block in (0..n).step_by(4 * half) {
        for i in (0..half).step_by(D::COUNT) {
            let at = block + i;
            // SAFETY: as in `forward_pass`.
            unsafe {
                let (a, b) = (data.load::<D>(at), data.load::<D>(at + half));
                let (c, d) = (data.load::<D>(at + 2 * half), data.load::<D>(at + 3 * half));
                let (w1, w2) = (table.load(half + i), table.load(2 * half + i));
                let w3 = table.load(3 * half + i);
                let (a, c) = inverse_butterfly(a, c, w2);
                let (b, d) = inverse_butterfly(b, d, w3);
                let (a, b) = inverse_butterfly(a, b, w1);
                let (c, d) = inverse_butterfly(c, d, w1);
                data.store(at, a);
                data.store(at + half, b);
                data.store(at + 2 * half, c);
                data.store(at + 3 * half, d);
            }
        }
    }
}

/// The longest stage alone.
///
/// # Safety
/// `n` numbers in `data` and in `table`; `n / 2` is a multiple of `D::COUNT`.
#[inline(always)]
unsafe fn longest<D: Doubles>(
    data: Parts,
    n: usize,
    table: Parts,
    butterfly: impl Fn(Complex<D>, Complex<D>, Complex<D>) -> (Complex<D>, Complex<D>),
) {
    let half = n >> 1;
    for i in (0..half).step_by(D::COUNT) {
        // SAFETY: below `n`, as in the table.
        unsafe {
            let (a, b, w) = (data.load(i), data.load(half + i), table.load(half + i));
            let (a, b) = butterfly(a, b, w);
            data.store(i, a);
            data.store(half + i, b);
        }
    }
}

/// What is done with a tile. (A trait and no closure, as a closure need not be
/// inlined to where the instructions are enabled.)
trait Tile {
    /// From its rows, read where it lies, to its rows where it comes to lie.
    fn run(&self, rows: [Complex<Four>; 4]) -> [Complex<Four>; 4];
}

/// Runs `f` on every tile and puts the result in its place.
///
/// # Safety
/// `n >= 16` numbers in `data`, a power of two.
#[inline(always)]
unsafe fn tiles(data: Parts, n: usize, f: &impl Tile) {
    let quarter = n >> 2;
    let bits = n.trailing_zeros() - 4;
    for tile in 0..n >> 4 {
        let other = (((tile << 1) as u32).reverse_bits() >> (31 - bits)) as usize;
        // SAFETY: rows of four in the quarters of `data`.
        unsafe {
            if tile < other {
                let x = f.run(data.rows(quarter, tile));
                let y = f.run(data.rows(quarter, other));
                data.put_rows(quarter, other, x);
                data.put_rows(quarter, tile, y);
            } else if tile == other {
                let x = f.run(data.rows(quarter, tile));
                data.put_rows(quarter, tile, x);
            }
        }
    }
}

/// Times a real factor.
#[inline(always)]
fn times(x: Complex<Four>, factor: Four) -> Complex<Four> {
    (x.0.mul(factor), x.1.mul(factor))
}

/// The two shortest stages of the forward transform, of `factor` times the input.
struct ForwardTile {
    factor: Four,
    w: [Complex<Four>; 3],
}

impl Tile for ForwardTile {
    #[inline(always)]
    fn run(&self, rows: [Complex<Four>; 4]) -> [Complex<Four>; 4] {
        let [w1, w2, w3] = self.w;
        let [a, c, b, d] = rows;
        let (a, b) = (times(a, self.factor), times(b, self.factor));
        let (c, d) = (times(c, self.factor), times(d, self.factor));
        let (a, b) = forward_butterfly(a, b, w1);
        let (c, d) = forward_butterfly(c, d, w1);
        let (a, c) = forward_butterfly(a, c, w2);
        let (b, d) = forward_butterfly(b, d, w3);
        reversed(transpose([a, b, c, d]))
    }
}

/// The two shortest stages of the inverse transform.
struct InverseTile {
    w: [Complex<Four>; 3],
}

impl Tile for InverseTile {
    #[inline(always)]
    fn run(&self, rows: [Complex<Four>; 4]) -> [Complex<Four>; 4] {
        let [w1, w2, w3] = self.w;
        let [a, b, c, d] = transpose(reversed(rows));
        let (a, c) = inverse_butterfly(a, c, w2);
        let (b, d) = inverse_butterfly(b, d, w3);
        let (a, b) = inverse_butterfly(a, b, w1);
        let (c, d) = inverse_butterfly(c, d, w1);
        reversed([a, b, c, d])
    }
}

/// Rows, or columns, of a tile in the order of reversed bits.
#[inline(always)]
fn reversed<T>([a, b, c, d]: [T; 4]) -> [T; 4] {
    [a, c, b, d]
}

#[inline(always)]
fn transpose([a, b, c, d]: [Complex<Four>; 4]) -> [Complex<Four>; 4] {
    let [p, q, r, s] = Four::transpose([a.0, b.0, c.0, d.0]);
    let [t, u, v, w] = Four::transpose([a.1, b.1, c.1, d.1]);
    [(p, t), (q, u), (r, v), (s, w)]
}

/// The forward transform of `factor` times the slots' polynomial: bit reversal and
/// all stages. Whether it was done, which it is from 16 numbers on.
#[inline(always)]
pub(super) fn fft_forward<L: Wide>(
    re: &mut [f64],
    im: &mut [f64],
    twiddles: Twiddles,
    factor: f64,
) -> bool {
    if !long_enough(re, im, twiddles) {
        return false;
    }
    let n = re.len();
    let data = Parts {
        re: re.as_mut_ptr(),
        im: im.as_mut_ptr(),
    };
    let table = Parts {
        re: twiddles.0.as_ptr().cast_mut(),
        im: twiddles.1.as_ptr().cast_mut(),
    };
    // SAFETY: the lengths are checked; nothing is written to the table.
    unsafe {
        let w = [all(table, 1), all(table, 2), all(table, 3)];
        let factor = Four::splat(factor);
        tiles(data, n, &ForwardTile { factor, w });
        let mut half = 4;
        // Too short for vectors of eight.
        if L::Doubles::COUNT > half && 4 * half <= n {
            forward_pass::<Four>(data, n, half, table);
            half *= 4;
        }
        while 4 * half <= n {
            forward_pass::<L::Doubles>(data, n, half, table);
            half *= 4;
        }
        if half < n {
            longest::<L::Doubles>(data, n, table, forward_butterfly);
        }
    }
    true
}

/// The inverse transform, all stages and bit reversal, up to its factor. Whether
/// it was done, which it is from 16 numbers on.
#[inline(always)]
pub(super) fn fft_inverse<L: Wide>(re: &mut [f64], im: &mut [f64], twiddles: Twiddles) -> bool {
    if !long_enough(re, im, twiddles) {
        return false;
    }
    let n = re.len();
    let data = Parts {
        re: re.as_mut_ptr(),
        im: im.as_mut_ptr(),
    };
    let table = Parts {
        re: twiddles.0.as_ptr().cast_mut(),
        im: twiddles.1.as_ptr().cast_mut(),
    };
    // SAFETY: the lengths are checked; nothing is written to the table.
    unsafe {
        // Two stages are the tiles'; an odd number leaves one.
        let mut half = n >> 2;
        if n.trailing_zeros() & 1 == 1 {
            longest::<L::Doubles>(data, n, table, inverse_butterfly);
            half >>= 1;
        }
        while half >= L::Doubles::COUNT {
            inverse_pass::<L::Doubles>(data, n, half, table);
            half >>= 2;
        }
        if half >= Four::COUNT {
            inverse_pass::<Four>(data, n, half, table);
        }
        let w = [all(table, 1), all(table, 2), all(table, 3)];
        tiles(data, n, &InverseTile { w });
    }
    true
}

/// Multiplies by `factor` and rounds to the nearest integer, ties to even. The
/// number done, a multiple of a vector, and whether all products before rounding
/// were below `limit` in magnitude.
#[inline(always)]
pub(super) fn scale_and_round<L: Wide>(x: &mut [f64], factor: f64, limit: f64) -> (usize, bool) {
    let (factor, limit) = (L::Doubles::splat(factor), L::Doubles::splat(limit));
    let done = x.len() & !(L::Doubles::COUNT - 1);
    let mut below = true;
    for i in (0..done).step_by(L::Doubles::COUNT) {
        // SAFETY: whole vectors below the length.
        unsafe {
            let at = x.as_mut_ptr().add(i);
            let scaled = L::Doubles::load(at).mul(factor);
            below &= scaled.abs().all_below(limit);
            scaled.round().store(at);
        }
    }
    (done, below)
}

/// Centred values of the first coefficients, and the largest magnitude among
/// them; how many, a multiple of a vector. See [`crate::ring::crt::Crt::values`].
#[inline(always)]
pub(super) fn reconstruct<L: Wide>(
    steps: &[RadixStep<'_>],
    residues: &[u32],
    out: &mut [f64],
) -> (usize, f64) {
    let n = out.len();
    let limbs = steps.len();
    let mut digits = [L::splat(0); crate::params::MAX_LIMBS];
    let mut largest = L::Doubles::splat(0.0);
    let done = n & !(L::COUNT - 1);
    if residues.len() != limbs * n {
        return (0, 0.0);
    }
    for k in (0..done).step_by(L::COUNT) {
        let mut value = [L::Doubles::splat(0.0); 2];
        for (i, step) in steps.iter().enumerate() {
            let RadixStep {
                modulus: m,
                weight,
                inverses,
            } = *step;
            let q = Q::<L>::new(m);
            // SAFETY: a whole vector below the end of limb `i`.
            let mut x = unsafe { L::load(residues.as_ptr().add(i * n + k)) };
            for (&digit, &inverse) in digits.iter().zip(inverses) {
                x = q.times(x.sub(digit), Factor::all(inverse, m));
            }
            let (modulus, half) = (m.value(), m.value() >> 1);
            let x = q
                .canon(x)
                .sub_above(L::splat(half as i32), L::splat(modulus as i32));
            if let Some(digit) = digits.get_mut(i) {
                *digit = x;
            }
            let weight = L::Doubles::splat(weight);
            let [low, high] = x.doubles();
            let [a, b] = value;
            value = [a.add(low.mul(weight)), b.add(high.mul(weight))];
        }
        let [low, high] = value;
        largest = largest.max(low.abs()).max(high.abs());
        // SAFETY: a whole vector of words below the end.
        unsafe {
            let at = out.as_mut_ptr().add(k);
            low.store(at);
            high.store(at.add(L::Doubles::COUNT));
        }
    }
    // They are those of the last coefficients, which are secret.
    digits.fill(L::splat(0));
    core::hint::black_box(&digits);
    (done, largest.largest())
}
