//! Kernels for x86-64 with AVX2 or AVX-512F, chosen at run time.
//!
//! Both are the same code (`vector`) over vectors of 8 or 16 words (`lanes`).
//! Results are those of `portable`, word for word, but for lifts, one of which in
//! 2^32 differs by the modulus. What has no vector form here is `portable`'s.
//!
//! On a Zen 3 core at 4096 points an AVX2 transform takes 7 microseconds, `portable` about
//! 60; on a Sapphire Rapids core at 3 GHz an AVX-512 transform takes 4.8, 13 instructions
//! of two ports per butterfly of 16 words. There, products, sums and comparisons take
//! either port, shifts one of them and shuffles the other, and odd words that are loaded
//! twice take neither.

mod chacha;
mod doubles;
mod lanes;
mod pairs;
mod slots;
mod vector;

use super::small;
use super::sums::{self, Carried, SumTerm};
use super::{RadixStep, Twiddles, portable};
use crate::arith::Modulus;
use core::sync::atomic::{AtomicU8, Ordering};
use lanes::{Avx2, Avx512};

pub use super::portable::*;
pub use chacha::Keystream;

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
        kernel!(portable, $name, $on($($arg: $ty),*));
    };
    ($safe:ident, $name:ident, $on:ident ( $($arg:ident : $ty:ty),* )) => {
        #[doc = concat!("See [`", stringify!($safe), "::", stringify!($name), "`].")]
        #[inline]
        pub fn $name($($arg: $ty),*) {
            $on(Backend::current(), $($arg),*);
        }

        #[doc = concat!(
            "See [`", stringify!($safe), "::", stringify!($name), "`]; on a given backend."
        )]
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
                Kind::Portable => $safe::$name($($arg),*),
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
kernel!(lift_i64, lift_i64_on(src: &[i64], dst: &mut [u32], factor: i32, m: &Modulus));
kernel!(lift_f32, lift_f32_on(src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus));
kernel!(sums, lift_sum, lift_sum_on(
    src: &[u32], terms: &[Carried], dst: &mut [u32], m: &Modulus
));
kernel!(sums, dot_two, dot_two_on(
    acc0: &mut [u32], acc1: &mut [u32], factor: i32, terms: &[SumTerm<'_>], m: &Modulus
));

/// See [`small::small_row`].
#[inline]
pub fn small_row(packed: &[i16], weights: &[i8], out: &mut [u32], m: &Modulus) {
    small_row_on(Backend::current(), packed, weights, out, m);
}

/// See [`small::small_row`]; on a given backend.
pub fn small_row_on(
    backend: Backend,
    packed: &[i16],
    weights: &[i8],
    out: &mut [u32],
    m: &Modulus,
) {
    match backend.0 {
        // SAFETY: a backend exists only where its instructions do, and where there
        // is AVX-512F there is AVX2.
        Kind::Avx512 | Kind::Avx2 => unsafe { pairs::small_row(packed, weights, out, m) },
        Kind::Portable => small::small_row(packed, weights, out, m),
    }
}

/// A kernel with a result behind the choice of backend; `$none` where that is
/// `portable`.
macro_rules! kernel_or {
    ($(#[$meta:meta])* $vis:vis $name:ident, $on:ident, $module:ident::$of:ident
        ($($arg:ident : $ty:ty),*) -> $result:ty, $none:expr) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name($($arg: $ty),*) -> $result {
            $on(Backend::current(), $($arg),*)
        }

        #[doc = concat!("See [`", stringify!($name), "`]; on a given backend.")]
        $vis fn $on(backend: Backend, $($arg: $ty),*) -> $result {
            #[target_feature(enable = "avx2")]
            fn eight($($arg: $ty),*) -> $result {
                $module::$of::<Avx2>($($arg),*)
            }
            #[target_feature(enable = "avx512f")]
            fn sixteen($($arg: $ty),*) -> $result {
                $module::$of::<Avx512>($($arg),*)
            }
            match backend.0 {
                // SAFETY: a backend exists only where its instructions do.
                Kind::Avx512 => unsafe { sixteen($($arg),*) },
                // SAFETY: as above.
                Kind::Avx2 => unsafe { eight($($arg),*) },
                Kind::Portable => $none,
            }
        }
    };
}

kernel_or!(
    /// The decoder's transform of `factor` times its input; whether it was done.
    pub(crate) fft_forward_f64, fft_forward_on,
    slots::fft_forward(re: &mut [f64], im: &mut [f64], twiddles: Twiddles, factor: f64) -> bool, false
);
kernel_or!(
    /// The encoder's transform up to its factor; whether it was done.
    pub(crate) fft_inverse_f64, fft_inverse_on,
    slots::fft_inverse(re: &mut [f64], im: &mut [f64], twiddles: Twiddles) -> bool, false
);
kernel_or!(
    /// Multiplies by `factor` and rounds: how many were done, and whether the
    /// magnitudes of their products were below `limit`.
    pub(crate) scale_and_round, scale_and_round_on,
    slots::scale_and_round(x: &mut [f64], factor: f64, limit: f64) -> (usize, bool), (0, true)
);
kernel_or!(
    /// Centred values of coefficients ([`crate::ring::crt::Crt::values`]): how many were done, and
    /// the largest magnitude among them.
    pub(crate) reconstruct, reconstruct_on,
    slots::reconstruct(steps: &[RadixStep<'_>], residues: &[u32], out: &mut [f64]) -> (usize, f64),
    (0, 0.0)
);

kernel_or!(
    /// In place `(a0, a1, _) -> (a0 b0, a0 b1 + a1 b0, a1 b1)` of canonical residues: the
    /// product of ciphertexts of two parts; whether it was done, which it is for whole vectors.
    pub(crate) tensor, tensor_on,
    vector::tensor(
        a0: &mut [u32], a1: &mut [u32], a2: &mut [u32], b0: &[u32], b1: &[u32], m: &Modulus
    ) -> bool,
    false
);
kernel_or!(
    /// Base extension ([`sums::lift_sum`]) and forward transform in one: words of either sign that
    /// are congruent to the residues, for [`dot_two`]; whether it was done, which it is
    /// for whole vectors and tables that have all parts, modulo `q <= MAX_UNREDUCED`.
    pub(crate) carry_forward, carry_forward_on,
    vector::carry_forward(
        src: &[u32], terms: &[Carried], dst: &mut [u32], m: &Modulus, z: &[i32]
    ) -> bool,
    false
);
kernel_or!(
    /// `x = (x f + NTT(y) g) / R` with `[f, g] = factors`, centred, and `y` as in
    /// [`sums::lift_sum`] of what is `carried`: division by a prime. Whether it was done, as for
    /// [`carry_forward`].
    pub(crate) mod_down, mod_down_on,
    vector::mod_down(
        x: &mut [u32], carried: (&[u32], &[Carried]), scratch: &mut [u32], factors: [i32; 2],
        m: &Modulus, z: &[i32]
    ) -> bool,
    false
);
kernel_or!(
    /// The automorphism `g` of a limb in the NTT domain; whether it was done.
    pub(crate) permute, permute_on,
    vector::permute(src: &[u32], dst: &mut [u32], g: u32, half: u32) -> bool, false
);

kernel_or!(
    /// See [`portable::residues`].
    pub residues, residues_on,
    vector::residues(words: &[u32], out: &mut [u32], q: u32, reject_below: u32) -> usize,
    portable::residues(words, out, q, reject_below)
);

/// The residues of words in order, those that are refused left out: how many words were
/// used, and how many residues that made.
pub(crate) fn accepted(
    words: &[u32],
    out: &mut [u32],
    q: u32,
    reject_below: u32,
) -> (usize, usize) {
    accepted_on(Backend::current(), words, out, q, reject_below)
}

/// See [`accepted`]; on a given backend.
pub(crate) fn accepted_on(
    backend: Backend,
    words: &[u32],
    out: &mut [u32],
    q: u32,
    reject_below: u32,
) -> (usize, usize) {
    match backend.0 {
        // SAFETY: a backend exists only where its instructions do.
        Kind::Avx512 => unsafe { chacha::accepted(words, out, q, reject_below) },
        // Without an instruction that leaves words out, [`residues`] is as good.
        Kind::Avx2 | Kind::Portable => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    /// Unequal lengths end at the shortest, on every backend.
    #[test]
    fn the_shortest_length_decides() {
        let m = Modulus::new(12_289).unwrap();
        for backend in Backend::available() {
            let (mut acc, a, b) = (vec![1; 40], random(37, 12_289, 1), random(64, 12_289, 2));
            mul_acc_on(backend, &mut acc, &a, &b, &m);
            assert_eq!(acc[37..], [1; 3]);
        }
    }
}
