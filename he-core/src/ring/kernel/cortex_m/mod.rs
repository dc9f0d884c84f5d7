//! Kernels for Armv7E-M, that is Cortex-M4 and M7, written and measured by
//! instructions (`firmware/benches/counts-mps2-an386.csv`); and for an Armv8-M processor
//! with the same instructions, such as the Cortex-M33 of RP2350 (feature `armv8m-dsp`).
//!
//! | module | holds |
//! |---|---|
//! | `ntt` | the transforms, three layers merged in one pass |
//! | `pointwise` | products, sums and lifts, coefficient by coefficient |
//! | `fft` | the encoder's transform in single precision |
//! | `chacha` | the keystream of uniform polynomials, and its residues |
//! | `wire` | residues out of their bytes |
//!
//! # Multiplication by a constant
//!
//! The factor `w`, table entry `z = w R mod q`, is used as the pair
//!
//! ```text
//! k = -z q^-1 mod 2^32   (signed)      w = (k q + z) / 2^32, an integer
//! ```
//!
//! made from the table on the way by two instructions: `mul`, and `smmulr`,
//! which rounds `k q / 2^32` to `w` since `|z| < 2^31`. Then `b w` is reduced by
//! `b w - h q` with `h = round(b k / 2^32)` (Shoup's trick with a signed,
//! rounded quotient). As `w / q = k / 2^32 + z / (q 2^32)`,
//!
//! ```text
//! |b w - h q| <= q / 2 + |b z| / 2^32,        for any i32 b:
//!             <= 0.75 q + 1                   with |z| <= q / 2 + 1.
//! ```
//!
//! That is the bound of a Montgomery product, so the bounds of the forward
//! transform are those written in `ntt::MAX_UNREDUCED`. All of it may be computed
//! modulo 2^32, and the addition of a butterfly is free: `a + b w` is one `mla`,
//! `- h q` one `mls`, and `a - t = 2 a - (a + t)` one `rsb` with a shifted
//! operand: four instructions per butterfly.
//!
//! With `w = 1` (`z = R mod q`) the same two steps, `smmulr` and `mls`, are a
//! Barrett reduction of any `i32` to `0.75 q + 1`.
//!
//! Where a factor is used once or twice, in the layers of neighbours, a
//! Montgomery product (three instructions, no preparation) is cheaper.

// Before the modules, which use them.

/// The start of every piece of assembly with DSP instructions. On Armv8-M they are an option
/// that the assembler is not told of by the target's name; this processor has them.
#[cfg(not(armv8m))]
macro_rules! dsp {
    () => {
        ""
    };
}
#[cfg(armv8m)]
macro_rules! dsp {
    () => {
        ".cpu cortex-m33"
    };
}

/// `b = b w`, factor in r10 and r11. Uses r12.
#[rustfmt::skip]
macro_rules! times {
    ($b:literal) => {
        concat!(
            "smmulr r12, ", $b, ", r11\n", "mul ", $b, ", ", $b, ", r10\n",
            "mls ", $b, ", r12, r9, ", $b, "\n",
        )
    };
}

/// `-q < x < q` to its residue. Uses r12.
#[rustfmt::skip]
macro_rules! canon {
    ($x:literal) => {
        concat!("and r12, r9, ", $x, ", asr #31\n", "add ", $x, ", ", $x, ", r12\n")
    };
}

mod chacha;
mod fft;
mod ntt;
mod pointwise;
mod wire;

pub use chacha::{Keystream, residues};
pub use fft::fft_inverse;
#[cfg(target_abi = "eabihf")]
pub use fft::round_f32;
pub use ntt::{MAX_UNREDUCED, forward, inverse};
pub use pointwise::{
    add, lift, lift_f32, lift_i32, mul, mul_acc, mul_acc_two, mul_sub, scale, square, sub_scale,
};
pub use wire::unpack;

use crate::arith::Modulus;
use core::arch::asm;

/// `round(a b / 2^32)`.
#[inline(always)]
fn smmulr(a: i32, b: i32) -> i32 {
    let h;
    // SAFETY: an instruction that computes a register from two registers.
    unsafe {
        asm!(dsp!(), "smmulr {h}, {a}, {b}", h = out(reg) h, a = in(reg) a, b = in(reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    h
}

/// A factor prepared for [`Factor::times`].
#[derive(Clone, Copy)]
#[repr(C)]
struct Factor {
    w: i32,
    k: i32,
}

impl Factor {
    /// From Montgomery form, `|z| < 2^31`.
    #[inline(always)]
    fn new(m: &Constants, z: i32) -> Self {
        let k = z.wrapping_mul(m.neg_inv);
        Self {
            w: smmulr(k, m.q),
            k,
        }
    }

    /// `b w mod q`, at most `q / 2 + |b z| / 2^32` in magnitude.
    #[inline(always)]
    fn times(self, b: i32, q: i32) -> i32 {
        let h = smmulr(b, self.k);
        b.wrapping_mul(self.w).wrapping_sub(h.wrapping_mul(q))
    }
}

/// What the loops need of a modulus.
#[derive(Clone, Copy)]
#[repr(C)]
struct Constants {
    q: i32,
    /// `-q^-1 mod 2^32`.
    neg_inv: i32,
    /// `k` of the factor 1: `round(2^32 / q)`.
    barrett: i32,
}

impl Constants {
    #[inline(always)]
    fn new(m: &Modulus) -> Self {
        Self {
            q: m.value() as i32,
            neg_inv: m.neg_inv(),
            barrett: m.r().wrapping_mul(m.neg_inv()),
        }
    }

    /// Any `i32` reduced to `|x| <= 0.75 q + 1`.
    #[inline(always)]
    fn centre(&self, x: i32) -> i32 {
        x.wrapping_sub(smmulr(x, self.barrett).wrapping_mul(self.q))
    }

    /// As [`Modulus::mont`].
    #[inline(always)]
    fn mont(&self, a: u32, b: u32) -> i32 {
        let t = i64::from(a as i32) * i64::from(b as i32);
        let m = (t as i32).wrapping_mul(self.neg_inv);
        ((t + i64::from(m) * i64::from(self.q)) >> 32) as i32
    }

    /// `-q < x < q` to its residue. (The compiler makes three instructions of
    /// it, one of them conditional.)
    #[inline(always)]
    fn canon(&self, x: i32) -> u32 {
        let y: u32;
        // SAFETY: instructions that compute a register from two registers.
        unsafe {
            asm!("and {y}, {q}, {x}, asr #31", "add {y}, {y}, {x}",
                y = out(reg) y, q = in(reg) self.q, x = in(reg) x,
                options(pure, nomem, nostack, preserves_flags));
        }
        y
    }

    /// Any `i32` to its residue.
    #[inline(always)]
    fn reduce(&self, x: i32) -> u32 {
        self.canon(self.centre(x))
    }
}
