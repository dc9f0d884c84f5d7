//! The list of all kernels, and the ways of calling them.

use super::reference;
use crate::arith::Modulus;
#[cfg(target_arch = "x86_64")]
use crate::ring::kernel;
use crate::ring::kernel::{Carried, RadixStep, SumTerm, Twiddles};

/// Gives a macro the list of all kernels: the function of `x86` that takes a
/// backend, where it chooses between several (`chosen`), and of each its name, what
/// it writes to last, its arguments and its result.
macro_rules! every_kernel {
    ($with:ident) => {
        $with! {
            chosen {
                forward_on forward [data] (data: &mut [u32], m: &Modulus, z: &[i32]);
                inverse_on inverse [data] (data: &mut [u32], m: &Modulus, z: &[i32], scale: i32);
                mul_acc_on mul_acc [acc] (acc: &mut [u32], a: &[u32], b: &[u32], m: &Modulus);
                mul_acc_two_on mul_acc_two [acc1] (
                    acc0: &mut [u32], acc1: &mut [u32], a0: &[u32], a1: &[u32], b: &[u32],
                    m: &Modulus
                );
                mul_sub_on mul_sub [a] (a: &mut [u32], b: &[u32], c: &[u32], m: &Modulus);
                mul_on mul [a] (a: &mut [u32], b: &[u32], m: &Modulus);
                scale_on scale [a] (a: &mut [u32], factor: i32, m: &Modulus);
                add_on add [a] (a: &mut [u32], b: &[u32], m: &Modulus);
                sub_scale_on sub_scale [a] (a: &mut [u32], b: &[u32], factor: i32, m: &Modulus);
                square_on square [c] (a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus);
                lift_on lift [dst] (
                    src: &[u32], from: &Modulus, dst: &mut [u32], factor: i32, m: &Modulus
                );
                lift_i32_on lift_i32 [dst] (src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus);
                lift_i64_on lift_i64 [dst] (src: &[i64], dst: &mut [u32], factor: i32, m: &Modulus);
                lift_f32_on lift_f32 [dst] (src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus);
                lift_sum_on lift_sum [dst] (
                    src: &[u32], terms: &[Carried], dst: &mut [u32], m: &Modulus
                );
                dot_two_on dot_two [acc1] (
                    acc0: &mut [u32], acc1: &mut [u32], factor: i32, terms: &[SumTerm<'_>],
                    m: &Modulus
                );
                tensor_on tensor [a2] (
                    a0: &mut [u32], a1: &mut [u32], a2: &mut [u32], b0: &[u32], b1: &[u32],
                    m: &Modulus
                ) -> bool;
                carry_forward_on carry_forward [dst] (
                    src: &[u32], terms: &[Carried], dst: &mut [u32], m: &Modulus, z: &[i32]
                ) -> bool;
                mod_down_on mod_down [x] (
                    x: &mut [u32], carried: (&[u32], &[Carried]), scratch: &mut [u32],
                    factors: [i32; 2], m: &Modulus, z: &[i32]
                ) -> bool;
                small_row_on small_row [out] (
                    packed: &[i16], weights: &[i8], out: &mut [u32], m: &Modulus
                );
                permute_on permute [dst] (src: &[u32], dst: &mut [u32], g: u32, half: u32) -> bool;
                residues_on residues [out] (
                    words: &[u32], out: &mut [u32], q: u32, reject_below: u32
                ) -> usize;
                accepted_on accepted [out] (
                    words: &[u32], out: &mut [u32], q: u32, reject_below: u32
                ) -> (usize, usize);
                fft_inverse_on fft_inverse_f64 [im] (
                    re: &mut [f64], im: &mut [f64], twiddles: Twiddles
                ) -> bool;
                fft_forward_on fft_forward_f64 [im] (
                    re: &mut [f64], im: &mut [f64], twiddles: Twiddles, factor: f64
                ) -> bool;
                scale_and_round_on scale_and_round [x] (
                    x: &mut [f64], factor: f64, limit: f64
                ) -> (usize, bool);
                reconstruct_on reconstruct [out] (
                    steps: &[RadixStep<'_>], residues: &[u32], out: &mut [f64]
                ) -> (usize, f64);
            }
            single {
                unpack [out] (bytes: &[u8], m: &Modulus, out: &mut [u32]) -> Option<bool>;
                fft_inverse [im] (
                    re: &mut [f32], im: &mut [f32], twiddles: &[[f32; 2]]
                ) -> usize;
                round_f32 [x] (x: &mut [f32]);
            }
        }
    };
}
#[cfg(test)]
pub(super) use every_kernel;

/// Declares the kernels, for every way of calling them.
macro_rules! kernels {
    (
        chosen { $(
            $on:ident $name:ident [$out:ident] ($($arg:ident : $ty:ty),*) $(-> $result:ty)?;
        )* }
        single { $(
            $one:ident [$end:ident] ($($of:ident : $is:ty),*) $(-> $gives:ty)?;
        )* }
    ) => {
        /// A set of kernels; `portable`, or the scalar code of the caller, has what each computes.
        pub trait Kernels {
            /// Words of a vector, 1 where there are none.
            fn lanes(&self) -> usize;
            $(
                #[doc = concat!("See `", stringify!($name), "` of [`kernel`](crate::ring::kernel).")]
                fn $name(&self, $($arg: $ty),*) $(-> $result)?;
            )*
            $(
                #[doc = concat!("See `", stringify!($one), "` of [`kernel`](crate::ring::kernel).")]
                fn $one(&self, $($of: $is),*) $(-> $gives)?;
            )*
        }

        impl Kernels for Portable {
            fn lanes(&self) -> usize { 1 }
            $(fn $name(&self, $($arg: $ty),*) $(-> $result)? { reference::$name($($arg),*) })*
            $(fn $one(&self, $($of: $is),*) $(-> $gives)? { reference::$one($($of),*) })*
        }

        impl Kernels for Current {
            #[cfg(target_arch = "x86_64")]
            fn lanes(&self) -> usize { kernel::Backend::current().lanes() }
            #[cfg(not(target_arch = "x86_64"))]
            fn lanes(&self) -> usize { 1 }
            $(fn $name(&self, $($arg: $ty),*) $(-> $result)? { current::$name($($arg),*) })*
            $(fn $one(&self, $($of: $is),*) $(-> $gives)? { current::$one($($of),*) })*
        }

        #[cfg(target_arch = "x86_64")]
        impl Kernels for kernel::Backend {
            fn lanes(&self) -> usize {
                match self.name() {
                    "avx512" => 16,
                    "avx2" => 8,
                    _ => 1,
                }
            }
            $(fn $name(&self, $($arg: $ty),*) $(-> $result)? {
                kernel::x86::$on(*self, $($arg),*)
            })*
            $(fn $one(&self, $($of: $is),*) $(-> $gives)? { current::$one($($of),*) })*
        }
    };
}

/// The portable kernels, and the scalar code where there are none.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// Those in use on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Current;

every_kernel!(kernels);

/// The kernels in use, in the shapes of the list.
mod current {
    pub(super) use crate::ring::kernel::*;

    pub(super) fn round_f32(x: &mut [f32]) {
        for x in x {
            *x = crate::ring::kernel::round_f32(*x);
        }
    }
}
