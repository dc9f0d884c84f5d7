//! The inner loops, one module per kind of machine.
//!
//! One suite checks the contract of every kernel, on a host and on a board
//! (`conformance`, with the list that a new kernel is entered in):
//!
//! - Residues are canonical, in and out. Other words give wrong residues, never a
//!   panic.
//! - Factors named `_mont` are in centred Montgomery form (`|b| <= q / 2 + 1`) or in
//!   canonical Montgomery form (`0 <= b < q`); the bounds allow either.
//! - A lift leaves words of either sign, `-q < x < q`, which `forward` takes as they
//!   are.
//! - Slices have equal lengths. If they don't, the shortest decides, and nothing is
//!   read or written beyond it.
//!
//! | module | for |
//! |---|---|
//! | `portable` | every target, in safe code |
//! | `cortex_m` | processors with the DSP instructions of Armv7E-M and Armv8-M (see `build.rs`) |
//! | `x86` | AVX2 and AVX-512, chosen at run time |
//! | `integers`, `small`, `sums` | wide integers, small weights, sums with one reduction: safe code for every target but hosts, which have a faster form in `x86` |

use crate::arith::Modulus;

/// `$call!` of the width in bits, where that is known to the compiler.
macro_rules! of_width {
    ($bits:expr, $call:ident) => {
        $crate::ring::kernel::of_width!(@ $bits, $call,
            16 17 18 19 20 21 22 23 24 25 26 27 28 29 30)
    };
    (@ $bits:expr, $call:ident, $($width:literal)*) => {
        match $bits {
            $($width => Some($call!($width)),)*
            _ => None,
        }
    };
}
pub(crate) use of_width;

#[cfg(any(test, feature = "kernel-comparison"))]
pub mod conformance;
#[cfg(cortex_m_dsp)]
pub mod cortex_m;
pub mod integers;
#[cfg(any(not(cortex_m_dsp), feature = "kernel-comparison"))]
pub mod portable;

pub mod small;
pub mod sums;

#[cfg(target_arch = "x86_64")]
pub mod x86;

#[cfg(cortex_m_dsp)]
pub use cortex_m::*;
#[cfg(not(target_arch = "x86_64"))]
pub use integers::lift_i64;
#[cfg(not(any(cortex_m_dsp, target_arch = "x86_64")))]
pub use portable::*;
#[cfg(not(target_arch = "x86_64"))]
pub use small::small_row;
pub use small::{SMALL_BLOCK, pack_column, small_packed_len};
pub use sums::{Carried, MAX_TERMS, SumTerm};
#[cfg(not(target_arch = "x86_64"))]
pub use sums::{dot_two, lift_sum};
#[cfg(target_arch = "x86_64")]
pub use x86::*;

/// Cosines and sines of the special FFT (see [`crate::ckks::encode`]): entry
/// `len / 2 + j` belongs to stage `len`.
pub(crate) type Twiddles = (&'static [f64], &'static [f64]);

/// One prime of a reconstruction by mixed-radix digits (`ring::crt`), for
/// `reconstruct`.
#[derive(Clone, Copy, Debug)]
pub struct RadixStep<'a> {
    /// The prime.
    pub modulus: &'a Modulus,
    /// The product of the lower primes, as a float.
    pub weight: f64,
    /// Inverses of the lower primes modulo this one, in order and in centred
    /// Montgomery form.
    pub inverses: &'a [i32],
}

/// What only hosts have kernels for; here each does nothing and says so.
#[cfg(not(target_arch = "x86_64"))]
mod absent {
    use super::{Carried, RadixStep, Twiddles};
    use crate::arith::Modulus;

    pub(crate) fn tensor(
        a0: &mut [u32],
        a1: &mut [u32],
        a2: &mut [u32],
        b0: &[u32],
        b1: &[u32],
        m: &Modulus,
    ) -> bool {
        let _ = (a0, a1, a2, b0, b1, m);
        false
    }

    pub(crate) fn carry_forward(
        src: &[u32],
        terms: &[Carried],
        dst: &mut [u32],
        m: &Modulus,
        z: &[i32],
    ) -> bool {
        let _ = (src, terms, dst, m, z);
        false
    }

    pub(crate) fn mod_down(
        x: &mut [u32],
        carried: (&[u32], &[Carried]),
        scratch: &mut [u32],
        factors: [i32; 2],
        m: &Modulus,
        z: &[i32],
    ) -> bool {
        let _ = (x, carried, scratch, factors, m, z);
        false
    }

    pub(crate) fn accepted(
        words: &[u32],
        out: &mut [u32],
        q: u32,
        reject_below: u32,
    ) -> (usize, usize) {
        let _ = (words, out, q, reject_below);
        (0, 0)
    }

    pub(crate) fn fft_forward_f64(
        re: &mut [f64],
        im: &mut [f64],
        twiddles: Twiddles,
        factor: f64,
    ) -> bool {
        let _ = (re, im, twiddles, factor);
        false
    }

    pub(crate) fn fft_inverse_f64(re: &mut [f64], im: &mut [f64], twiddles: Twiddles) -> bool {
        let _ = (re, im, twiddles);
        false
    }

    pub(crate) fn scale_and_round(x: &mut [f64], factor: f64, limit: f64) -> (usize, bool) {
        let _ = (x, factor, limit);
        (0, true)
    }

    pub(crate) fn permute(src: &[u32], dst: &mut [u32], g: u32, half: u32) -> bool {
        let _ = (src, dst, g, half);
        false
    }

    pub(crate) fn reconstruct(
        steps: &[RadixStep<'_>],
        residues: &[u32],
        out: &mut [f64],
    ) -> (usize, f64) {
        let _ = (steps, residues, out);
        (0, 0.0)
    }
}
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use absent::*;

/// Nearest integer, ties to even, of a number below 2^31 in magnitude: without
/// a branch, as what is encoded is secret.
#[cfg(not(all(cortex_m_dsp, target_abi = "eabihf")))]
#[must_use]
pub fn round_f32(x: f32) -> f32 {
    // Adding 2^23 leaves no bits below one; from there on a number is an integer
    // already.
    const UNIT: f32 = 8_388_608.0;
    let unit = UNIT.copysign(x);
    let rounded = (x + unit) - unit;
    let distance = libm::fabsf(x).to_bits().wrapping_sub(UNIT.to_bits());
    let below = (distance as i32 >> 31) as u32;
    f32::from_bits((rounded.to_bits() & below) | (x.to_bits() & !below))
}

/// The kernels in use: `cortex_m`, `avx512`, `avx2` or `portable`.
#[must_use]
pub fn backend() -> &'static str {
    #[cfg(cortex_m_dsp)]
    let name = "cortex_m";
    #[cfg(target_arch = "x86_64")]
    let name = Backend::current().name();
    #[cfg(not(any(cortex_m_dsp, target_arch = "x86_64")))]
    let name = "portable";
    name
}
