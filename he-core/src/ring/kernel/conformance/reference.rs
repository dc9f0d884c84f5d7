//! What each kernel computes, all of it.

use crate::arith::Modulus;
use crate::ckks::encode::{self, Real};
use crate::ring::kernel::{Carried, RadixStep, Twiddles};
use crate::ring::kernel::{integers, portable, small, sums};
use crate::ring::{automorphism, crt};
pub(super) use integers::lift_i64;
pub(super) use portable::*;
pub(super) use small::small_row;
pub(super) use sums::{dot_two, lift_sum};

pub(super) fn tensor(
    a0: &mut [u32],
    a1: &mut [u32],
    a2: &mut [u32],
    b0: &[u32],
    b1: &[u32],
    m: &Modulus,
) -> bool {
    let a = a0.iter_mut().zip(a1).zip(a2);
    for (((x0, x1), x2), (&y0, &y1)) in a.zip(b0.iter().zip(b1)) {
        let cross = m.add(m.mul(*x0, y1), m.mul(*x1, y0));
        *x2 = m.mul(*x1, y1);
        *x0 = m.mul(*x0, y0);
        *x1 = cross;
    }
    true
}

pub(super) fn carry_forward(
    src: &[u32],
    terms: &[Carried],
    dst: &mut [u32],
    m: &Modulus,
    z: &[i32],
) -> bool {
    lift_sum(src, terms, dst, m);
    forward(dst, m, z);
    true
}

pub(super) fn mod_down(
    x: &mut [u32],
    (src, terms): (&[u32], &[Carried]),
    scratch: &mut [u32],
    factors: [i32; 2],
    m: &Modulus,
    z: &[i32],
) -> bool {
    carry_forward(src, terms, scratch, m, z);
    let [f, g] = factors;
    for (x, &y) in x.iter_mut().zip(scratch.iter()) {
        let (kept, taken) = (m.mont(*x as i32, f), m.mont(y as i32, g));
        *x = m.add(m.canon(kept), m.canon(taken));
    }
    true
}

pub(super) fn permute(src: &[u32], dst: &mut [u32], g: u32, half: u32) -> bool {
    let _ = half;
    let put = |i, x| {
        if let Some(y) = dst.get_mut(i) {
            *y = x;
        }
    };
    automorphism::for_each_ntt(src, g, put).is_ok()
}

pub(super) fn residues(words: &[u32], out: &mut [u32], q: u32, reject_below: u32) -> usize {
    let mut done = 0;
    for (x, &word) in out.iter_mut().zip(words) {
        let wide = u64::from(word) * u64::from(q);
        if (wide as u32) < reject_below {
            break;
        }
        *x = (wide >> 32) as u32;
        done += 1;
    }
    done
}

pub(super) fn accepted(
    words: &[u32],
    out: &mut [u32],
    q: u32,
    reject_below: u32,
) -> (usize, usize) {
    let mut made = 0;
    for &word in words {
        let wide = u64::from(word) * u64::from(q);
        if (wide as u32) >= reject_below
            && let Some(x) = out.get_mut(made)
        {
            *x = (wide >> 32) as u32;
            made += 1;
        }
    }
    (words.len(), made)
}

pub(super) fn fft_inverse_f64(re: &mut [f64], im: &mut [f64], _: Twiddles) -> bool {
    encode::inverse_by_stages(re, im);
    true
}

pub(super) fn fft_forward_f64(re: &mut [f64], im: &mut [f64], _: Twiddles, factor: f64) -> bool {
    encode::forward_by_stages(re, im, factor);
    true
}

pub(super) fn scale_and_round(x: &mut [f64], factor: f64, limit: f64) -> (usize, bool) {
    let mut below = true;
    for x in x.iter_mut() {
        *x *= factor;
        below &= libm::fabs(*x) < limit;
        *x = Real::round(*x);
    }
    (x.len(), below)
}

pub(super) fn reconstruct(
    steps: &[RadixStep<'_>],
    residues: &[u32],
    out: &mut [f64],
) -> (usize, f64) {
    let n = out.len();
    let mut largest = 0.0;
    for (k, x) in out.iter_mut().enumerate() {
        *x = crt::value(steps.iter().copied(), |limb| {
            residues.get(limb * n + k).copied().unwrap_or(0)
        });
        largest = f64::max(largest, libm::fabs(*x));
    }
    (n, largest)
}

pub(super) fn round_f32(x: &mut [f32]) {
    for x in x {
        *x = libm::rintf(*x);
    }
}
