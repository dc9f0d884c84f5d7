//! Safe, portable kernels: two NTT layers merged in one pass.
//!
//! # Bounds of the transforms
//!
//! Twiddle factors are centred, `|w| <= q / 2 + 1`, and any `i32` may be
//! multiplied by one: `|mont(x, w)| <= |x| / 4 * (q / 2^31) + q / 2 + 1
//! <= 0.75 q + 1`. In the forward transform (Cooley-Tukey) a value therefore
//! grows by at most `0.75 q + 1` per layer. With `q <= MAX_UNREDUCED` it stays
//! inside `i32` for 14 layers without any reduction; larger moduli are
//! centred once per pass (two layers: `0.5 + 2 * 0.75 = 2`, and `2q < 2^31`).
//! In the inverse transform (Gentleman-Sande) sums double instead; see
//! [`inverse`].

use crate::arith::Modulus;
use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

#[cfg(target_arch = "x86_64")]
pub use super::integers::lift_i64;

/// Largest modulus whose forward transform of up to 2^14 points needs no
/// intermediate reduction: `(1 + 14 * 0.75) q + 15 < 2^31`.
pub const MAX_UNREDUCED: u32 = 186_000_000;

/// Forward butterfly: `(a + w b, a - w b)`.
#[inline(always)]
fn ct(m: &Modulus, a: i32, b: i32, w: i32) -> (i32, i32) {
    let t = m.mont(b, w);
    (a.wrapping_add(t), a.wrapping_sub(t))
}

/// Inverse butterfly: `(a + b, w (a - b))`.
#[inline(always)]
fn gs(m: &Modulus, a: i32, b: i32, w: i32) -> (i32, i32) {
    (a.wrapping_add(b), m.mont(a.wrapping_sub(b), w))
}

/// Applies `f` to the four quarters of `block`, index by index.
#[inline(always)]
fn quarters(
    block: &mut [u32],
    len: usize,
    mut f: impl FnMut(&mut u32, &mut u32, &mut u32, &mut u32),
) {
    let (low, high) = block.split_at_mut(2 * len);
    let (x0, x1) = low.split_at_mut(len);
    let (x2, x3) = high.split_at_mut(len);
    for (((a, b), c), d) in x0.iter_mut().zip(x1).zip(x2).zip(x3) {
        f(a, b, c, d);
    }
}

#[inline(always)]
fn forward_pass<const REDUCE: bool>(
    data: &mut [u32],
    m: &Modulus,
    quarter: usize,
    z: &[i32],
    count: usize,
) {
    // Block k of this layer uses z[count + k], its halves z[2 (count + k) ..].
    let (Some(first), Some(second)) = (z.get(count..2 * count), z.get(2 * count..4 * count)) else {
        return;
    };
    let twiddles = first.iter().zip(second.chunks_exact(2));
    for (block, (&w1, pair)) in data.chunks_exact_mut(4 * quarter).zip(twiddles) {
        let &[w2, w3] = pair else { return };
        quarters(block, quarter, |x0, x1, x2, x3| {
            let (mut a, mut b, c, d) = (*x0 as i32, *x1 as i32, *x2 as i32, *x3 as i32);
            if REDUCE {
                (a, b) = (m.centre(a), m.centre(b));
            }
            let (a, c) = ct(m, a, c, w1);
            let (b, d) = ct(m, b, d, w1);
            let (a, b) = ct(m, a, b, w2);
            let (c, d) = ct(m, c, d, w3);
            (*x0, *x1, *x2, *x3) = (a as u32, b as u32, c as u32, d as u32);
        });
    }
}

#[inline(always)]
fn inverse_pass<const REDUCE: bool>(
    data: &mut [u32],
    m: &Modulus,
    quarter: usize,
    z: &[i32],
    count: usize,
) {
    let (Some(last), Some(first)) = (z.get(count..2 * count), z.get(2 * count..4 * count)) else {
        return;
    };
    let twiddles = last.iter().zip(first.chunks_exact(2));
    for (block, (&w1, pair)) in data.chunks_exact_mut(4 * quarter).zip(twiddles) {
        let &[w2, w3] = pair else { return };
        quarters(block, quarter, |x0, x1, x2, x3| {
            let (mut a, mut b, mut c, mut d) = (*x0 as i32, *x1 as i32, *x2 as i32, *x3 as i32);
            if REDUCE {
                (a, b, c, d) = (m.centre(a), m.centre(b), m.centre(c), m.centre(d));
            }
            let (a, b) = gs(m, a, b, w2);
            let (c, d) = gs(m, c, d, w3);
            let (mut a, c) = gs(m, a, c, w1);
            let (b, d) = gs(m, b, d, w1);
            if !REDUCE {
                a = m.centre(a);
            }
            (*x0, *x1, *x2, *x3) = (a as u32, b as u32, c as u32, d as u32);
        });
    }
}

/// The quarter of the largest block that a pass of two layers covers, after
/// the single layer that an odd number of layers leaves.
const fn largest_quarter(n: usize) -> (bool, usize) {
    let odd = n.trailing_zeros() & 1 == 1;
    (odd, if odd { n >> 3 } else { n >> 2 })
}

/// Negacyclic forward NTT in place; residues in natural order in, canonical or
/// between `-q` and `q` as a lift leaves them, canonical ones in bit-reversed
/// order out.
///
/// `data` has a power-of-two length `n` from 2 to 2^14, and
/// `z[k] = psi^brv(k) R mod q`, centred, has as many entries.
pub fn forward(data: &mut [u32], m: &Modulus, z: &[i32]) {
    let (odd, mut quarter) = largest_quarter(data.len());
    let mut count = 1;
    if odd && let Some(&w) = z.get(1) {
        // Below q in, below 1.75 q + 1 out: within the first pass's bounds.
        let (low, high) = data.split_at_mut(data.len() >> 1);
        for (x, y) in low.iter_mut().zip(high) {
            let (a, b) = ct(m, *x as i32, *y as i32, w);
            (*x, *y) = (a as u32, b as u32);
        }
        count = 2;
    }
    while quarter > 0 {
        if m.value() > MAX_UNREDUCED {
            forward_pass::<true>(data, m, quarter, z, count);
        } else {
            forward_pass::<false>(data, m, quarter, z, count);
        }
        quarter >>= 2;
        count <<= 2;
    }
    for x in data {
        *x = m.reduce(*x as i32);
    }
}

/// Inverse of [`forward`], multiplied by `scale` in Montgomery form (`n^-1 R`
/// for the inverse itself).
///
/// `z[k] = psi^-brv(k) R mod q`, centred.
///
/// Bounds, for `q <= MAX_UNREDUCED`: a pass takes `|x| <= 1.5 q + 2` and forms
/// sums up to `6 q + 8 < 2^31`; it centres the one output that is a sum of
/// sums and leaves a sum of two products, `1.5 q + 2`, and products. For
/// larger `q` a pass centres its inputs, and sums reach `2 q + 4 < 2^31`
/// (an NTT modulus below 2^30 is at most `2^30 - 2n + 1`).
pub fn inverse(data: &mut [u32], m: &Modulus, z: &[i32], scale: i32) {
    let (odd, largest) = largest_quarter(data.len());
    let mut quarter = 1;
    let mut count = data.len() >> 2;
    while quarter <= largest {
        if m.value() > MAX_UNREDUCED {
            inverse_pass::<true>(data, m, quarter, z, count);
        } else {
            inverse_pass::<false>(data, m, quarter, z, count);
        }
        quarter <<= 2;
        count >>= 2;
    }
    if odd && let Some(&w) = z.get(1) {
        let (low, high) = data.split_at_mut(data.len() >> 1);
        for (x, y) in low.iter_mut().zip(high) {
            let (a, b) = gs(m, m.centre(*x as i32), m.centre(*y as i32), w);
            (*x, *y) = (a as u32, b as u32);
        }
    }
    for x in data {
        *x = m.canon(m.mont(*x as i32, scale));
    }
}

/// `acc += a * b`, with `b` in Montgomery form.
pub fn mul_acc(acc: &mut [u32], a: &[u32], b_mont: &[u32], m: &Modulus) {
    for ((x, &a), &b) in acc.iter_mut().zip(a).zip(b_mont) {
        *x = m.add(*x, m.canon(m.mont(a as i32, b as i32)));
    }
}

/// `acc0 += a0 * b` and `acc1 += a1 * b`, with `b` in Montgomery form: both
/// halves of a ciphertext or of a key.
pub fn mul_acc_two(
    acc0: &mut [u32],
    acc1: &mut [u32],
    a0: &[u32],
    a1: &[u32],
    b_mont: &[u32],
    m: &Modulus,
) {
    mul_acc(acc0, a0, b_mont, m);
    mul_acc(acc1, a1, b_mont, m);
}

/// `a -= b * c`, with `c` in Montgomery form.
pub fn mul_sub(a: &mut [u32], b: &[u32], c_mont: &[u32], m: &Modulus) {
    for ((x, &b), &c) in a.iter_mut().zip(b).zip(c_mont) {
        *x = m.sub(*x, m.canon(m.mont(b as i32, c as i32)));
    }
}

/// `a *= b`, with `b` in Montgomery form.
pub fn mul(a: &mut [u32], b_mont: &[u32], m: &Modulus) {
    for (x, &b) in a.iter_mut().zip(b_mont) {
        *x = m.canon(m.mont(*x as i32, b as i32));
    }
}

/// `a *= factor`, the factor in centred Montgomery form.
pub fn scale(a: &mut [u32], factor: i32, m: &Modulus) {
    for x in a {
        *x = m.canon(m.mont(*x as i32, factor));
    }
}

/// `a += b`.
pub fn add(a: &mut [u32], b: &[u32], m: &Modulus) {
    for (x, &b) in a.iter_mut().zip(b) {
        *x = m.add(*x, b);
    }
}

/// `a = (a - b) * factor`, the factor in centred Montgomery form.
pub fn sub_scale(a: &mut [u32], b: &[u32], factor: i32, m: &Modulus) {
    for (x, &b) in a.iter_mut().zip(b) {
        *x = m.canon(m.mont((*x as i32).wrapping_sub(b as i32), factor));
    }
}

/// In place `(a, b) -> (a^2, 2 a b)` and `c = b^2`: the square of a
/// two-part ciphertext.
pub fn square(a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus) {
    for ((x, y), z) in a.iter_mut().zip(b).zip(c) {
        let (a, b) = (*x as i32, *y as i32);
        // |mont(a, r2)| < q, so the second product is within the bound too.
        let (am, bm) = (m.mont(a, m.r2()), m.mont(b, m.r2()));
        let ab = m.canon(m.mont(am, b));
        *x = m.canon(m.mont(am, a));
        *z = m.canon(m.mont(bm, b));
        *y = m.add(ab, ab);
    }
}

/// Residues modulo `from`, centred and carried over to `m` times `factor`
/// (centred; `m.r()` leaves the value, `m.r2()` gives Montgomery form); between
/// `-q` and `q`.
pub fn lift(src: &[u32], from: &Modulus, dst: &mut [u32], factor: i32, m: &Modulus) {
    for (y, &x) in dst.iter_mut().zip(src) {
        *y = m.mont(from.centred(x), factor) as u32;
    }
}

/// Integers carried over to `m` times `factor`, as in [`lift`].
pub fn lift_i32(src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus) {
    for (y, &x) in dst.iter_mut().zip(src) {
        *y = m.mont(x, factor) as u32;
    }
}

/// Integers held in `f32` (rounded, below 2^31 in magnitude) carried over to
/// `m` times `factor`, as in [`lift`].
pub fn lift_f32(src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus) {
    for (y, &x) in dst.iter_mut().zip(src) {
        *y = m.mont(x as i32, factor) as u32;
    }
}

/// Stages of the inverse special FFT (see [`crate::ckks::encode`]), from the
/// longest on, as many as there is a faster way for; returns the length of the
/// next one. Here there is none.
pub fn fft_inverse(re: &mut [f32], im: &mut [f32], twiddles: &[[f32; 2]]) -> usize {
    let _ = (im, twiddles);
    re.len()
}

/// The residues `floor(w q / 2^32)` of words, in order, up to one whose low half
/// of `w q` is below `reject_below` or a little before; returns how many. Here
/// there is no faster way than the caller's.
pub fn residues(words: &[u32], out: &mut [u32], q: u32, reject_below: u32) -> usize {
    let _ = (words, out, q, reject_below);
    0
}

/// Unpacks residues of the modulus' width (see [`crate::wire::unpack`]), eight
/// from as many bytes as one has bits; whether all are below the modulus. `None`
/// for widths that have no kernel.
pub fn unpack(bytes: &[u8], m: &Modulus, out: &mut [u32]) -> Option<bool> {
    macro_rules! width {
        ($bits:literal) => {
            unpack_width::<$bits>(bytes, m.value(), out)
        };
    }
    of_width!(m.bits(), width)
}

/// Residue `I` of the eight in a group of `BITS` bytes, `4 <= BITS <= 30`.
#[inline(always)]
fn residue<const BITS: usize, const I: usize>(group: &[u8; BITS]) -> u32 {
    // Four bytes that hold its first bit, and end within the group.
    let first = I * BITS;
    let at = if first >> 3 < BITS - 4 {
        first >> 3
    } else {
        BITS - 4
    };
    let shift = first - 8 * at;
    let word = |at: usize| {
        let bytes = group.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let mut x = word(at) >> shift;
    if shift + BITS > 32 {
        let next = group.get(at + 4).copied().unwrap_or(0);
        x |= u32::from(next) << (32 - shift);
    }
    x & ((1 << BITS) - 1)
}

/// Unpacks residues of a width known here; whether all are below `q`.
fn unpack_width<const BITS: usize>(bytes: &[u8], q: u32, out: &mut [u32]) -> bool {
    let (groups, _) = bytes.as_chunks::<BITS>();
    let (eights, _) = out.as_chunks_mut::<8>();
    // The sign of `q - 1 - x` for any x.
    let mut above = 0;
    for (eight, group) in eights.iter_mut().zip(groups) {
        let x = [
            residue::<BITS, 0>(group),
            residue::<BITS, 1>(group),
            residue::<BITS, 2>(group),
            residue::<BITS, 3>(group),
            residue::<BITS, 4>(group),
            residue::<BITS, 5>(group),
            residue::<BITS, 6>(group),
            residue::<BITS, 7>(group),
        ];
        for x in x {
            above |= (q - 1).wrapping_sub(x);
        }
        *eight = x;
    }
    above >> 31 == 0
}

/// Words of ChaCha with 8 rounds, 64-bit counter from 0 and a 64-bit nonce.
#[derive(Debug)]
pub struct Keystream(ChaCha8Rng);

impl Keystream {
    /// Words that [`Self::refill`] gives.
    pub const WORDS: usize = 64;

    /// The stream of `seed` numbered `stream`.
    #[must_use]
    pub fn new(seed: &[u8; 32], stream: u64) -> Self {
        let mut rng = ChaCha8Rng::from_seed(*seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// The next words.
    pub fn refill(&mut self, out: &mut [u32; Self::WORDS]) {
        // All at once is several times faster than word by word.
        let mut bytes = [0; 4 * Self::WORDS];
        self.0.fill_bytes(&mut bytes);
        for (x, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *x = u32::from_le_bytes(*bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::prime::primitive_root;
    use crate::ring::ntt::tables;
    use crate::testing::random;

    fn roots(n: usize, q: u32) -> (Modulus, Vec<i32>, Vec<i32>, i32) {
        let m = Modulus::new(q).unwrap();
        let psi = primitive_root(&m, n as u32).unwrap();
        let mut f = vec![0; n];
        let mut b = vec![0; n];
        tables(&m, psi, &mut f);
        tables(&m, m.inv(psi), &mut b);
        let scale = m.to_mont(m.inv(n as u32));
        (m, f, b, scale)
    }

    #[test]
    fn products_match_schoolbook() {
        for (n, q) in [
            (16, 134_217_409),
            (1024, 134_215_681),
            (1024, 1_073_692_673),
        ] {
            let (m, f, b, scale) = roots(n, q);
            let (x, y) = (random(n, q, 1), random(n, q, 2));
            let mut expected = vec![0i128; n];
            for (i, &a) in x.iter().enumerate() {
                for (j, &b) in y.iter().enumerate() {
                    let p = i128::from(a) * i128::from(b);
                    if i + j < n {
                        expected[i + j] += p;
                    } else {
                        expected[i + j - n] -= p;
                    }
                }
            }
            let (mut tx, mut ty) = (x, y);
            forward(&mut tx, &m, &f);
            forward(&mut ty, &m, &f);
            super::scale(&mut ty, m.r2(), &m);
            mul(&mut tx, &ty, &m);
            inverse(&mut tx, &m, &b, scale);
            for (t, e) in tx.iter().zip(expected) {
                assert_eq!(i128::from(*t), e.rem_euclid(i128::from(q)));
            }
        }
    }
}
