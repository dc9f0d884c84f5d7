//! What each kernel computes, all of it.

use crate::ckks::encode::{self, Real};
use crate::ring::kernel::{RadixStep, Twiddles};
use crate::ring::kernel::{integers, portable, small, sums};
use crate::ring::{automorphism, crt};
pub(super) use integers::lift_i64;
pub(super) use portable::*;
pub(super) use small::small_row;
pub(super) use sums::{dot_two, lift_sum};

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
