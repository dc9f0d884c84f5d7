//! The definitions of the kernels, in integers of 64 bits and by division.

use super::{Kernels, Portable};
use crate::arith::Modulus;
use crate::ring::kernel::{Carried, RadixStep, SMALL_BLOCK, SumTerm, Twiddles};

/// Each kernel as it is defined.
pub(super) struct Definitions;

fn times(a: u64, b: u64, q: u64) -> u64 {
    a * b % q
}

/// `2^-32 mod q`.
fn r_inverse(m: &Modulus) -> u64 {
    let r = (1u64 << 32) % u64::from(m.value());
    u64::from(m.inv(r as u32))
}

/// What a word in Montgomery form stands for: a signed word if it is negative.
fn plain(x: i32, m: &Modulus) -> u64 {
    let q = i64::from(m.value());
    times(i64::from(x).rem_euclid(q) as u64, r_inverse(m), q as u64)
}

/// The polynomial at `start ratio^i` for all `i < n`, where `ratio^n = 1`: the
/// even and the odd part at the squares, which are half as many.
fn evaluate(p: &[u64], start: u64, ratio: u64, q: u64) -> Vec<u64> {
    if p.len() == 1 {
        return p.to_vec();
    }
    let part = |first: usize| -> Vec<u64> { p.iter().skip(first).step_by(2).copied().collect() };
    let [even, odd] = [part(0), part(1)]
        .map(|part| evaluate(&part, times(start, start, q), times(ratio, ratio, q), q));
    let mut x = start;
    (0..p.len())
        .map(|i| {
            let value = even[i % even.len()] + times(x, odd[i % odd.len()], q);
            x = times(x, ratio, q);
            value % q
        })
        .collect()
}

fn bit_reversed(i: usize, n: usize) -> usize {
    (0..n.trailing_zeros()).fold(0, |r, bit| r << 1 | i >> bit & 1)
}

impl Definitions {
    fn each(a: &mut [u32], f: impl Fn(usize, u64) -> u64) {
        for (i, x) in a.iter_mut().enumerate() {
            *x = f(i, u64::from(*x)) as u32;
        }
    }
}

impl Kernels for Definitions {
    fn lanes(&self) -> usize {
        1
    }
    fn forward(&self, data: &mut [u32], m: &Modulus, z: &[i32]) {
        let (n, q) = (data.len(), u64::from(m.value()));
        let psi = plain(z[n / 2], m);
        let p: Vec<u64> = data.iter().map(|&x| u64::from(x)).collect();
        let values = evaluate(&p, psi, times(psi, psi, q), q);
        Self::each(data, |i, _| values[bit_reversed(i, n)]);
    }
    fn inverse(&self, data: &mut [u32], m: &Modulus, z: &[i32], scale: i32) {
        let (n, q) = (data.len(), u64::from(m.value()));
        // 1 / psi.
        let root = plain(z[n / 2], m);
        let values: Vec<u64> = (0..n)
            .map(|i| u64::from(data[bit_reversed(i, n)]))
            .collect();
        let sums = evaluate(&values, 1, times(root, root, q), q);
        let mut factor = plain(scale, m);
        for (x, sum) in data.iter_mut().zip(sums) {
            *x = times(sum, factor, q) as u32;
            factor = times(factor, root, q);
        }
    }
    fn mul_acc(&self, acc: &mut [u32], a: &[u32], b_mont: &[u32], m: &Modulus) {
        let (n, q) = (
            acc.len().min(a.len()).min(b_mont.len()),
            u64::from(m.value()),
        );
        Self::each(&mut acc[..n], |i, x| {
            (x + times(u64::from(a[i]), plain(b_mont[i] as i32, m), q)) % q
        });
    }
    fn mul_acc_two(
        &self,
        acc0: &mut [u32],
        acc1: &mut [u32],
        a0: &[u32],
        a1: &[u32],
        b_mont: &[u32],
        m: &Modulus,
    ) {
        self.mul_acc(acc0, a0, b_mont, m);
        self.mul_acc(acc1, a1, b_mont, m);
    }
    fn mul_sub(&self, a: &mut [u32], b: &[u32], c_mont: &[u32], m: &Modulus) {
        let q = u64::from(m.value());
        Self::each(a, |i, x| {
            (x + q - times(u64::from(b[i]), plain(c_mont[i] as i32, m), q)) % q
        });
    }
    fn mul(&self, a: &mut [u32], b_mont: &[u32], m: &Modulus) {
        let q = u64::from(m.value());
        Self::each(a, |i, x| times(x, plain(b_mont[i] as i32, m), q));
    }
    fn scale(&self, a: &mut [u32], factor: i32, m: &Modulus) {
        Self::each(a, |_, x| times(x, plain(factor, m), u64::from(m.value())));
    }
    fn add(&self, a: &mut [u32], b: &[u32], m: &Modulus) {
        Self::each(a, |i, x| (x + u64::from(b[i])) % u64::from(m.value()));
    }
    fn sub_scale(&self, a: &mut [u32], b: &[u32], factor: i32, m: &Modulus) {
        let q = u64::from(m.value());
        Self::each(a, |i, x| {
            times(x + q - u64::from(b[i]), plain(factor, m), q)
        });
    }
    fn square(&self, a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus) {
        let q = u64::from(m.value());
        for ((x, y), z) in a.iter_mut().zip(b).zip(c) {
            let (a, b) = (u64::from(*x), u64::from(*y));
            let products = [times(a, a, q), 2 * times(a, b, q) % q, times(b, b, q)];
            [*x, *y, *z] = products.map(|p| p as u32);
        }
    }
    fn lift(&self, src: &[u32], from: &Modulus, dst: &mut [u32], factor: i32, m: &Modulus) {
        let q = from.value();
        let centred = |x: u32| {
            if x > q / 2 {
                x as i32 - q as i32
            } else {
                x as i32
            }
        };
        let integers: Vec<i32> = src.iter().map(|&x| centred(x)).collect();
        self.lift_i32(&integers, dst, factor, m);
    }
    fn lift_i32(&self, src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus) {
        let q = i64::from(m.value());
        Self::each(dst, |i, _| {
            let x = i64::from(src[i]).rem_euclid(q) as u64;
            times(x, plain(factor, m), q as u64)
        });
    }
    fn lift_f32(&self, src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus) {
        let integers: Vec<i32> = src.iter().map(|&x| x as i32).collect();
        self.lift_i32(&integers, dst, factor, m);
    }
    fn lift_i64(&self, src: &[i64], dst: &mut [u32], factor: i32, m: &Modulus) {
        let q = i64::from(m.value());
        Self::each(dst, |i, _| {
            times(src[i].rem_euclid(q) as u64, plain(factor, m), q as u64)
        });
    }
    fn lift_sum(&self, src: &[u32], terms: &[Carried], dst: &mut [u32], m: &Modulus) {
        let (n, q) = (dst.len(), i64::from(m.value()));
        Self::each(dst, |i, _| {
            let sum = terms.iter().enumerate().map(|(k, term)| {
                let (x, from) = (i64::from(src[k * n + i]), i64::from(term.from.value()));
                let centred = if x > from / 2 { x - from } else { x };
                times(
                    centred.rem_euclid(q) as u64,
                    plain(term.factor, m),
                    q as u64,
                )
            });
            sum.sum::<u64>() % q as u64
        });
    }
    fn dot_two(
        &self,
        acc0: &mut [u32],
        acc1: &mut [u32],
        factor: i32,
        terms: &[SumTerm<'_>],
        m: &Modulus,
    ) {
        let q = u64::from(m.value());
        for (acc, second) in [(acc0, false), (acc1, true)] {
            Self::each(acc, |i, x| {
                let sum = terms.iter().map(|term| {
                    let key = if second { term.a[i] } else { term.b[i] };
                    times(u64::from(term.x[i]), plain(key as i32, m), q)
                });
                (times(x, plain(factor, m), q) + sum.sum::<u64>()) % q
            });
        }
    }
    fn tensor(
        &self,
        a0: &mut [u32],
        a1: &mut [u32],
        a2: &mut [u32],
        b0: &[u32],
        b1: &[u32],
        m: &Modulus,
    ) -> bool {
        let q = u64::from(m.value());
        for i in 0..a0.len() {
            let [x0, x1, y0, y1] = [a0[i], a1[i], b0[i], b1[i]].map(u64::from);
            a0[i] = times(x0, y0, q) as u32;
            a1[i] = ((times(x0, y1, q) + times(x1, y0, q)) % q) as u32;
            a2[i] = times(x1, y1, q) as u32;
        }
        true
    }
    fn carry_forward(
        &self,
        src: &[u32],
        terms: &[Carried],
        dst: &mut [u32],
        m: &Modulus,
        z: &[i32],
    ) -> bool {
        self.lift_sum(src, terms, dst, m);
        self.forward(dst, m, z);
        true
    }
    fn mod_down(
        &self,
        x: &mut [u32],
        (src, terms): (&[u32], &[Carried]),
        scratch: &mut [u32],
        factors: [i32; 2],
        m: &Modulus,
        z: &[i32],
    ) -> bool {
        self.carry_forward(src, terms, scratch, m, z);
        let q = u64::from(m.value());
        let [f, g] = factors.map(|factor| plain(factor, m));
        Self::each(x, |i, x| {
            (times(x, f, q) + times(u64::from(scratch[i]), g, q)) % q
        });
        true
    }
    fn small_row(&self, packed: &[i16], weights: &[i8], out: &mut [u32], m: &Modulus) {
        let q = i64::from(m.value());
        Self::each(out, |i, _| {
            // Pairs of columns: lower halves of both by turns, then upper ones.
            let products = weights.iter().enumerate().map(|(column, &weight)| {
                let at = column / 2 * (4 * SMALL_BLOCK) + 2 * i + column % 2;
                let (low, high) = (packed[at], packed[at + 2 * SMALL_BLOCK]);
                i64::from(weight) * (i64::from(low) + (i64::from(high) << 15))
            });
            products.sum::<i64>().rem_euclid(q) as u64
        });
    }
    fn permute(&self, src: &[u32], dst: &mut [u32], g: u32, _: u32) -> bool {
        // The value at psi^(2 r + 1) is at the place r with its bits reversed.
        let n = src.len();
        Self::each(dst, |i, _| {
            let exponent = (2 * bit_reversed(i, n) + 1) * g as usize % (2 * n);
            u64::from(src[bit_reversed(exponent / 2, n)])
        });
        true
    }
    fn residues(&self, words: &[u32], out: &mut [u32], q: u32, _: u32) -> usize {
        let products = words.iter().map(|&w| u64::from(w) * u64::from(q));
        let accepted = products.take_while(|p| p % (1 << 32) >= (1 << 32) % u64::from(q));
        let places = out.iter_mut().zip(accepted);
        places.map(|(x, p)| *x = (p / (1 << 32)) as u32).count()
    }
    fn accepted(&self, words: &[u32], out: &mut [u32], q: u32, _: u32) -> (usize, usize) {
        let products = words.iter().map(|&w| u64::from(w) * u64::from(q));
        let accepted = products.filter(|p| p % (1 << 32) >= (1 << 32) % u64::from(q));
        let places = out.iter_mut().zip(accepted);
        (
            words.len(),
            places.map(|(x, p)| *x = (p / (1 << 32)) as u32).count(),
        )
    }
    fn unpack(&self, bytes: &[u8], m: &Modulus, out: &mut [u32]) -> Option<bool> {
        // The widths that there are kernels for.
        let bits = m.bits() as usize;
        (16..=30).contains(&bits).then_some(())?;
        Self::each(out, |i, _| {
            (0..bits).fold(0, |x, k| {
                let at = i * bits + k;
                x | u64::from(bytes[at / 8] >> (at % 8) & 1) << k
            })
        });
        Some(out.iter().all(|&x| x < m.value()))
    }
    // In floating point the scalar code is the definition; it has tests of its
    // own, in `encode` and `crt`.
    fn fft_inverse_f64(&self, re: &mut [f64], im: &mut [f64], twiddles: Twiddles) -> bool {
        Portable.fft_inverse_f64(re, im, twiddles)
    }
    fn fft_forward_f64(
        &self,
        re: &mut [f64],
        im: &mut [f64],
        twiddles: Twiddles,
        factor: f64,
    ) -> bool {
        Portable.fft_forward_f64(re, im, twiddles, factor)
    }
    fn scale_and_round(&self, x: &mut [f64], factor: f64, limit: f64) -> (usize, bool) {
        let below = x.iter().all(|x| (x * factor).abs() < limit);
        x.iter_mut()
            .for_each(|x| *x = (*x * factor).round_ties_even());
        (x.len(), below)
    }
    fn reconstruct(
        &self,
        steps: &[RadixStep<'_>],
        residues: &[u32],
        out: &mut [f64],
    ) -> (usize, f64) {
        Portable.reconstruct(steps, residues, out)
    }
    fn fft_inverse(&self, re: &mut [f32], im: &mut [f32], twiddles: &[[f32; 2]]) -> usize {
        Portable.fft_inverse(re, im, twiddles)
    }
    fn round_f32(&self, x: &mut [f32]) {
        x.iter_mut().for_each(|x| *x = x.round_ties_even());
    }
}
