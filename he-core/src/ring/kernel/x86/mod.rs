//! Kernels for x86-64 with AVX2 or AVX-512F, chosen at run time.
//!
//! Both are the same code (`vector`) over vectors of 8 or 16 words (`lanes`).
//! Results are those of `portable`, word for word, but for lifts, one of which in
//! 2^32 differs by the modulus. What has no vector form here is `portable`'s.

mod lanes;
mod vector;

use super::portable;
use crate::arith::Modulus;
use core::sync::atomic::{AtomicU8, Ordering};
use lanes::{Avx2, Avx512};

pub use super::portable::*;

cpufeatures::new!(avx2, "avx2");
cpufeatures::new!(avx512, "avx512f");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Portable = 1,
    Avx2 = 2,
    Avx512 = 3,
}

/// A set of kernels that this processor can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend(Kind);

/// The selected [`Kind`]; 0 before the first use.
static SELECTED: AtomicU8 = AtomicU8::new(0);

impl Backend {
    /// Those that this processor can run, the fastest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let avx512 = avx512::get().then_some(Self(Kind::Avx512));
        let avx2 = avx2::get().then_some(Self(Kind::Avx2));
        let portable = Some(Self(Kind::Portable));
        [avx512, avx2, portable].into_iter().flatten()
    }

    /// The one in use: the fastest, unless another was selected.
    #[inline]
    #[must_use]
    pub fn current() -> Self {
        // Every value that is stored belongs to an available one.
        match SELECTED.load(Ordering::Relaxed) {
            3 => Self(Kind::Avx512),
            2 => Self(Kind::Avx2),
            1 => Self(Kind::Portable),
            _ => {
                let best = Self::available().next().unwrap_or(Self(Kind::Portable));
                best.select();
                best
            }
        }
    }

    /// Uses this one from now on, in the whole process: for benchmarks.
    pub fn select(self) {
        SELECTED.store(self.0 as u8, Ordering::Relaxed);
    }

    /// `portable`, `avx2` or `avx512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            Kind::Avx2 => "avx2",
            Kind::Avx512 => "avx512",
        }
    }
}

/// A kernel of [`vector`] behind the choice of backend.
macro_rules! kernel {
    ($name:ident, $on:ident ( $($arg:ident : $ty:ty),* )) => {
        #[doc = concat!("See [`portable::", stringify!($name), "`].")]
        #[inline]
        pub fn $name($($arg: $ty),*) {
            $on(Backend::current(), $($arg),*);
        }

        #[doc = concat!("See [`portable::", stringify!($name), "`]; on a given backend.")]
        pub fn $on(backend: Backend, $($arg: $ty),*) {
            #[target_feature(enable = "avx2")]
            fn eight($($arg: $ty),*) {
                vector::$name::<Avx2>($($arg),*);
            }
            #[target_feature(enable = "avx512f")]
            fn sixteen($($arg: $ty),*) {
                vector::$name::<Avx512>($($arg),*);
            }
            match backend.0 {
                // SAFETY: a backend exists only where its instructions do.
                Kind::Avx512 => unsafe { sixteen($($arg),*) },
                // SAFETY: as above.
                Kind::Avx2 => unsafe { eight($($arg),*) },
                Kind::Portable => portable::$name($($arg),*),
            }
        }
    };
}

kernel!(forward, forward_on(data: &mut [u32], m: &Modulus, z: &[i32]));
kernel!(inverse, inverse_on(data: &mut [u32], m: &Modulus, z: &[i32], scale: i32));
kernel!(mul_acc, mul_acc_on(acc: &mut [u32], a: &[u32], b_mont: &[u32], m: &Modulus));
kernel!(mul_acc_two, mul_acc_two_on(
    acc0: &mut [u32], acc1: &mut [u32], a0: &[u32], a1: &[u32], b_mont: &[u32], m: &Modulus
));
kernel!(mul_sub, mul_sub_on(a: &mut [u32], b: &[u32], c_mont: &[u32], m: &Modulus));
kernel!(mul, mul_on(a: &mut [u32], b_mont: &[u32], m: &Modulus));
kernel!(scale, scale_on(a: &mut [u32], factor: i32, m: &Modulus));
kernel!(add, add_on(a: &mut [u32], b: &[u32], m: &Modulus));
kernel!(sub_scale, sub_scale_on(a: &mut [u32], b: &[u32], factor: i32, m: &Modulus));
kernel!(square, square_on(a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus));
kernel!(lift, lift_on(src: &[u32], from: &Modulus, dst: &mut [u32], factor: i32, m: &Modulus));
kernel!(lift_i32, lift_i32_on(src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus));
kernel!(lift_f32, lift_f32_on(src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus));
