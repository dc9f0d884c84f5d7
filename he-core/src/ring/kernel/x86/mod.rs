//! Kernels for x86-64 with AVX2 or AVX-512F, chosen at run time.
//!
//! Both are the same code (`vector`) over vectors of 8 or 16 words (`lanes`).
//! Results are those of `portable`, word for word, but for lifts, one of which in
//! 2^32 differs by the modulus. What has no vector form here is `portable`'s.

mod doubles;
mod lanes;
mod slots;
mod vector;

use super::small;
use super::sums::{self, Carried, KeyTerm};
use super::{Twiddles, portable};
use crate::arith::Modulus;
use crate::ring::crt::Crt;
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
    acc0: &mut [u32], acc1: &mut [u32], factor: i32, terms: &[KeyTerm<'_>], m: &Modulus
));

/// See [`small::small_row`].
#[inline]
pub fn small_row(packed: &[i16], weights: &[i8], out: &mut [u32], m: &Modulus) {
    small_row_on(Backend::current(), packed, weights, out, m);
}

/// See [`small::small_row`]; on a given backend: the same code, for its vectors.
pub fn small_row_on(
    backend: Backend,
    packed: &[i16],
    weights: &[i8],
    out: &mut [u32],
    m: &Modulus,
) {
    #[target_feature(enable = "avx2")]
    fn sixteen(packed: &[i16], weights: &[i8], out: &mut [u32], m: &Modulus) {
        small::small_row(packed, weights, out, m);
    }
    match backend.0 {
        // SAFETY: a backend exists only where its instructions do, and where there
        // is AVX-512F there is AVX2.
        Kind::Avx512 | Kind::Avx2 => unsafe { sixteen(packed, weights, out, m) },
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
    /// Centred values of coefficients ([`Crt::values`]): how many were done, and
    /// the largest magnitude among them.
    pub(crate) reconstruct, reconstruct_on,
    slots::reconstruct(crt: &Crt, residues: &[u32], out: &mut [f64]) -> (usize, f64), (0, 0.0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::prime::primitive_root;
    use crate::ring::ntt::tables;
    use crate::testing::random;

    /// Widths on both sides of `MAX_UNREDUCED`, and the largest there is.
    const MODULI: [u32; 7] = [
        12_289,
        188_417,
        134_176_769,
        185_909_249,
        186_007_553,
        268_369_921,
        1_073_643_521,
    ];

    /// Words at the edges first, then random ones.
    fn words(n: usize, q: u32, seed: u64) -> Vec<u32> {
        let mut v = random(n, q, seed);
        let edges = [0, 1, q - 1, q / 2, q / 2 + 1, q - 1, 0, q - 1];
        for (x, edge) in v.iter_mut().zip(edges.into_iter().skip(seed as usize % 3)) {
            *x = edge;
        }
        v
    }

    fn backends() -> Vec<Backend> {
        let all: Vec<_> = Backend::available().collect();
        assert_eq!(all.last().unwrap().name(), "portable");
        all
    }

    #[test]
    fn transforms_are_those_of_portable() {
        for backend in backends() {
            for n in [
                2, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
            ] {
                for q in MODULI {
                    let m = Modulus::new(q).unwrap();
                    let Some(psi) = primitive_root(&m, n as u32) else {
                        continue;
                    };
                    let (mut f, mut b) = (vec![0; n], vec![0; n]);
                    tables(&m, psi, &mut f);
                    tables(&m, m.inv(psi), &mut b);
                    let scale = m.to_mont(m.inv(n as u32));
                    for start in [vec![q - 1; n], words(n, q, 1), vec![0; n]] {
                        let (mut expected, mut got) = (start.clone(), start.clone());
                        portable::forward(&mut expected, &m, &f);
                        forward_on(backend, &mut got, &m, &f);
                        assert!(got == expected, "forward {} {n} {q}", backend.name());
                        // Of the other sign, as lifts leave them.
                        let mut negative = start;
                        for x in negative.iter_mut().filter(|x| **x & 1 == 1) {
                            *x = x.wrapping_sub(q);
                        }
                        forward_on(backend, &mut negative, &m, &f);
                        assert!(negative == expected, "lifted {} {n} {q}", backend.name());
                        portable::inverse(&mut expected, &m, &b, scale);
                        inverse_on(backend, &mut got, &m, &b, scale);
                        assert!(got == expected, "inverse {} {n} {q}", backend.name());
                    }
                }
            }
        }
    }

    #[test]
    fn pointwise_kernels_are_those_of_portable() {
        for backend in backends() {
            for n in [0, 1, 7, 8, 16, 33, 256] {
                for q in MODULI {
                    let m = Modulus::new(q).unwrap();
                    let other = Modulus::new(40_961).unwrap();
                    let [a, b, x, y] = [1, 2, 3, 4].map(|seed| words(n, q, seed));
                    let ints: Vec<i32> = a.iter().map(|&x| (x << 2) as i32).collect();
                    let floats: Vec<f32> = ints.iter().map(|&x| (x >> 3) as f32).collect();
                    let edges = [0, 1 << 62, -(1 << 62), -1, 1 << 31, -(1 << 31)];
                    let wide = a
                        .iter()
                        .zip(&b)
                        .map(|(&x, &y)| i64::from((x << 2) as i32) << 30 ^ i64::from(y));
                    let wide: Vec<i64> = edges.into_iter().chain(wide).take(n).collect();
                    let f = m.to_mont(q / 3);
                    // Each kernel as (portable, this backend) over the same state.
                    type State = [Vec<u32>; 3];
                    type Run<'a> = Box<dyn Fn(&mut State, Option<Backend>) + 'a>;
                    macro_rules! run {
                        ($name:ident, $on:ident, |$s:ident| $($arg:expr),*) => {
                            (stringify!($name), Box::new(|$s: &mut State, on: Option<Backend>| {
                                match on {
                                    None => portable::$name($($arg),*),
                                    Some(on) => $on(on, $($arg),*),
                                }
                            }) as Run<'_>)
                        };
                    }
                    let kernels = [
                        run!(mul_acc, mul_acc_on, |s| &mut s[0], &a, &b, &m),
                        run!(mul_sub, mul_sub_on, |s| &mut s[0], &a, &b, &m),
                        run!(mul, mul_on, |s| &mut s[0], &b, &m),
                        run!(scale, scale_on, |s| &mut s[0], f, &m),
                        run!(add, add_on, |s| &mut s[0], &b, &m),
                        run!(sub_scale, sub_scale_on, |s| &mut s[0], &b, f, &m),
                        run!(lift, lift_on, |s| &a, &m, &mut s[0], other.r2(), &other),
                        run!(lift_i32, lift_i32_on, |s| &ints, &mut s[0], m.r(), &m),
                        run!(lift_f32, lift_f32_on, |s| &floats, &mut s[0], m.r2(), &m),
                        run!(lift_i64, lift_i64_on, |s| &wide, &mut s[0], m.r2(), &m),
                    ];
                    let start = [x.clone(), y.clone(), a.clone()];
                    let check = |name, run: &dyn Fn(&mut State, Option<Backend>)| {
                        let (mut expected, mut got) = (start.clone(), start.clone());
                        run(&mut expected, None);
                        run(&mut got, Some(backend));
                        assert_eq!(got, expected, "{name} {} {n} {q}", backend.name());
                    };
                    for (name, run) in kernels {
                        check(name, &*run);
                    }
                    for (count, list) in (0..).zip([
                        &[] as &[u32],
                        &[q],
                        &[q, 40_961],
                        &[1_073_643_521, q, 12_289],
                        &[q, q, 1_073_643_521, 40_961],
                        &[1_073_643_521; 5],
                    ]) {
                        let terms: Vec<Carried> = list
                            .iter()
                            .map(|&from| Carried {
                                from: Modulus::new(from).unwrap(),
                                factor: f.wrapping_sub(count),
                            })
                            .collect();
                        let src: Vec<u32> = list
                            .iter()
                            .zip(5..)
                            .flat_map(|(&from, seed)| words(n, from, seed))
                            .collect();
                        check("lift_sum", &|[s, ..], on| match on {
                            None => sums::lift_sum(&src, &terms, s, &m),
                            Some(on) => lift_sum_on(on, &src, &terms, s, &m),
                        });
                        let top = vec![q - 1; n];
                        let terms: Vec<KeyTerm<'_>> = [(&a, &b, &x), (&top, &top, &top)]
                            .into_iter()
                            .cycle()
                            .take(list.len())
                            .map(|(digit, b, a)| KeyTerm { digit, b, a })
                            .collect();
                        for factor in [f, -(q as i32 / 2), q as i32 / 2, m.r()] {
                            check("dot_two", &|[s, t, _], on| match on {
                                None => sums::dot_two(s, t, factor, &terms, &m),
                                Some(on) => dot_two_on(on, s, t, factor, &terms, &m),
                            });
                        }
                    }
                    check("mul_acc_two", &|[s, t, _], on| match on {
                        None => portable::mul_acc_two(s, t, &a, &x, &b, &m),
                        Some(on) => mul_acc_two_on(on, s, t, &a, &x, &b, &m),
                    });
                    check("square", &|[s, t, u], on| match on {
                        None => portable::square(s, t, u, &m),
                        Some(on) => square_on(on, s, t, u, &m),
                    });
                }
            }
        }
    }

    /// Residues of words, up to the last whole vector or the first word that is
    /// refused.
    #[test]
    fn residues_are_as_defined_up_to_the_first_refused() {
        for backend in backends() {
            for q in MODULI {
                let reject_below = ((1u64 << 32) % u64::from(q)) as u32;
                let product = |w: u32| u64::from(w) * u64::from(q);
                let refused = |w: &u32| (product(*w) as u32) < reject_below;
                // Zero is refused.
                let spread = |i: u32| i.wrapping_mul(0x9E37_79B1);
                let mut words: Vec<u32> = (1..=100).map(spread).collect();
                words.retain(|w| !refused(w));
                for zero in [None, Some(0), Some(21), Some(40)] {
                    let mut words = words.clone();
                    if let Some(at) = zero {
                        words[at] = 0;
                    }
                    for length in [0, 7, 41, 64] {
                        let mut out = vec![0; length];
                        let done = residues_on(backend, &words, &mut out, q, reject_below);
                        let whole = |lanes: usize| {
                            let vectors = length & !(lanes - 1);
                            zero.map_or(vectors, |at| at.min(vectors))
                        };
                        let expected = match backend.name() {
                            "avx512" => whole(16),
                            "avx2" => whole(8),
                            _ => 0,
                        };
                        assert_eq!(done, expected, "{} {q}", backend.name());
                        for (&x, &w) in out[..done].iter().zip(&words) {
                            assert_eq!(u64::from(x), product(w) >> 32);
                        }
                    }
                }
            }
        }
    }

    /// Unequal lengths end at the shortest, on every backend.
    #[test]
    fn the_shortest_length_decides() {
        let m = Modulus::new(12_289).unwrap();
        for backend in backends() {
            let (mut acc, a, b) = (vec![1; 40], words(37, 12_289, 1), words(64, 12_289, 2));
            mul_acc_on(backend, &mut acc, &a, &b, &m);
            assert_eq!(acc[37..], [1; 3]);
        }
    }
}
