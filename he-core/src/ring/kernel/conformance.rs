//! One suite for all kernels: every one against a reference, at the edges of its
//! contract and at random, in all lengths.
//!
//! Words must be the same, except that a lift may differ by the modulus, and must
//! lie between `-q` and `q`. Numbers must be the same bit for bit.
//!
//! `portable` is compared with the definitions in plain arithmetic, and every
//! other set of kernels with `portable`: on a host by the tests below, on a board
//! by the firmware's program `bench`. A new kernel is one entry of
//! `every_kernel`, without which a test fails, and one comparison in [`Pair`],
//! without which another one does.
//!
//! Of kernels that may leave work to their caller, what is done must be right, and
//! where there are vectors ([`Kernels::lanes`]) all must be done that they are for.
//! Their reference does everything: it is the scalar code of the caller, so that the
//! suite knows of layers above this one.
//!
//! Apart from the suite stands [`kernel::Keystream`], which on a host is a
//! library's; the program `bench` compares it with that library.
//!
//! It needs neither `std` nor an allocator, so that it runs on any machine.

use crate::arith::{Modulus, prime};
use crate::ckks::encode::{self, Real};
use crate::params::MAX_LIMBS;
use crate::ring::crt::Crt;
use crate::ring::kernel::{
    self, Carried, MAX_TERMS, SMALL_BLOCK, SumTerm, Twiddles, integers, small_packed_len,
};
use crate::ring::ntt::tables;
use crate::wire;

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
                small_row_on small_row [out] (
                    packed: &[i16], weights: &[i8], out: &mut [u32], m: &Modulus
                );
                permute_on permute [dst] (src: &[u32], dst: &mut [u32], g: u32, half: u32) -> bool;
                residues_on residues [out] (
                    words: &[u32], out: &mut [u32], q: u32, reject_below: u32
                ) -> usize;
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
                    crt: &Crt, residues: &[u32], out: &mut [f64]
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
                #[doc = concat!("See `", stringify!($name), "` of [`kernel`].")]
                fn $name(&self, $($arg: $ty),*) $(-> $result)?;
            )*
            $(
                #[doc = concat!("See `", stringify!($one), "` of [`kernel`].")]
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

/// What each kernel computes, all of it.
mod reference {
    use super::{Crt, Real, Twiddles, encode};
    use crate::ring::automorphism;
    use crate::ring::kernel::{integers, portable, small, sums};
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

    pub(super) fn fft_forward_f64(
        re: &mut [f64],
        im: &mut [f64],
        _: Twiddles,
        factor: f64,
    ) -> bool {
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

    pub(super) fn reconstruct(crt: &Crt, residues: &[u32], out: &mut [f64]) -> (usize, f64) {
        let n = out.len();
        let mut largest = 0.0;
        for (k, x) in out.iter_mut().enumerate() {
            *x = crt.value(|limb| residues.get(limb * n + k).copied().unwrap_or(0));
            largest = f64::max(largest, libm::fabs(*x));
        }
        (n, largest)
    }

    pub(super) fn round_f32(x: &mut [f32]) {
        for x in x {
            *x = libm::rintf(*x);
        }
    }
}

/// What is compared, and what with.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'k, K, R> {
    /// The kernels on trial.
    pub kernels: &'k K,
    /// Those that are right.
    pub reference: &'k R,
}

/// Memory of a comparison: limbs of the largest length there is to be.
#[derive(Debug)]
pub struct Memory<'a> {
    /// Operands and results, on trial and of the reference.
    pub limbs: [&'a mut [u32]; 6],
    /// Twiddle factors.
    pub table: &'a mut [i32],
    /// Numbers to be lifted.
    pub integers: &'a mut [i32],
    /// The same.
    pub wide: &'a mut [i64],
    /// The same, and four parts for the encoder's transform on a board.
    pub floats: &'a mut [f32],
    /// Operands and results of the encoder's kernels on a host: none where there are
    /// no such kernels.
    pub numbers: [&'a mut [f64]; 4],
    /// Packed residues.
    pub bytes: &'a mut [u8],
    /// Packed columns of small products, as many as find room.
    pub halves: &'a mut [i16],
}

/// The first disagreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The kernel.
    pub kernel: &'static str,
    /// Its modulus.
    pub modulus: u32,
    /// Words of an operand.
    pub length: usize,
    /// Number of the pattern of operands.
    pub case: u32,
}

/// Moduli on both sides of the bounds that kernels distinguish: the widths that
/// they have, [`kernel::MAX_UNREDUCED`], and the largest there is for each
/// length.
pub const MODULI: [u32; 10] = [
    12_289,
    40_961,
    188_417,
    270_337,
    134_215_681,
    185_909_249,
    186_007_553,
    268_369_921,
    1_073_643_521,
    1_073_692_673,
];

/// Lengths of pointwise operands: around the widths of vectors.
pub const LENGTHS: [usize; 14] = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33, 64, 256];

/// Patterns of one operand.
const PATTERNS: u32 = 6;

/// Patterns of several: the same in all, then different ones.
const CASES: u32 = 3 * PATTERNS;

/// The next of a sequence of random words.
fn next(state: &mut u64) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 32) as u32
}

/// Residues below `q`. Patterns: the largest, zero, both by turns, the edges,
/// random ones twice.
fn fill(x: &mut [u32], q: u32, case: u32, operand: u32) {
    let mut pattern = match case {
        0..PATTERNS => case,
        _ => case.wrapping_mul(operand + 1),
    };
    while pattern >= PATTERNS {
        pattern -= PATTERNS;
    }
    let edges = [0, 1, q - 1, q >> 1, (q >> 1) + 1, q - 2, 0, q - 1];
    let mut state = u64::from(case << 8 | operand);
    for (i, x) in x.iter_mut().enumerate() {
        let word = next(&mut state);
        *x = match pattern {
            0 => q - 1,
            1 => 0,
            2 => (q - 1) * (i as u32 & 1),
            3 => {
                let at = (i + operand as usize) & 7;
                edges.get(at).copied().unwrap_or_default()
            }
            _ => ((u64::from(word) * u64::from(q)) >> 32) as u32,
        };
    }
}

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// Compares everything for these moduli, transforms in all lengths up to that
    /// of the memory. Returns how many comparisons that was.
    ///
    /// # Errors
    /// The first [`Difference`].
    pub fn all(&self, moduli: &[u32], memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let mut compared = self.without_modulus(memory)?;
        for &q in moduli {
            let none = Difference {
                kernel: "modulus",
                modulus: q,
                length: 0,
                case: 0,
            };
            let m = Modulus::new(q).ok_or(none)?;
            let mut n = 2;
            while n <= memory.table.len() {
                compared += self.transforms(&m, n, memory)?;
                n <<= 1;
            }
            for length in LENGTHS {
                for from in [12_289, 185_909_249, 1_073_692_673] {
                    let from = Modulus::new(from).ok_or(none)?;
                    compared += self.pointwise(&m, &from, length, memory)?;
                }
                compared += self.residues(&m, length, memory)?;
            }
            compared += self.small_rows(&m, memory)?;
        }
        Ok(compared)
    }

    /// What has no modulus, or one of its own.
    fn without_modulus(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let mut compared = self.permutations(memory)?
            + self.unpacking(memory)?
            + self.single_precision(memory)?
            + self.slots(memory)?;
        for length in LENGTHS {
            compared += self.rounding(length, memory)?;
            compared += self.reconstruction(length, memory)?;
        }
        Ok(compared)
    }

    /// The transforms of one length, where there is a root of unity: of canonical
    /// residues, and of what a lift leaves.
    fn transforms(
        &self,
        m: &Modulus,
        n: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let q = m.value();
        let Some(psi) = prime::primitive_root(m, n as u32) else {
            return Ok(0);
        };
        let [x, y, ..] = &mut memory.limbs;
        let (Some(x), Some(y), Some(z)) =
            (x.get_mut(..n), y.get_mut(..n), memory.table.get_mut(..n))
        else {
            return Ok(0);
        };
        let n_inv = m.to_mont(m.inv(m.reduce(n as i32)));
        let differs = |kernel, case| Difference {
            kernel,
            modulus: q,
            length: n,
            case,
        };
        for case in 0..PATTERNS {
            tables(m, psi, z);
            fill(x, q, case, 0);
            fill(y, q, case, 0);
            self.kernels.forward(x, m, z);
            self.reference.forward(y, m, z);
            if x != y {
                return Err(differs("forward", case));
            }
            // The same residues, each other one less q.
            fill(x, q, case, 0);
            for (i, x) in x.iter_mut().enumerate() {
                if i & 1 == 0 && *x != 0 {
                    *x = x.wrapping_sub(q);
                }
            }
            self.kernels.forward(x, m, z);
            if x != y {
                return Err(differs("forward of a lift", case));
            }
            tables(m, m.inv(psi), z);
            // The factor of the inverse itself, and at its edges.
            for scale in [n_inv, (q >> 1) as i32, -((q >> 1) as i32), 0] {
                fill(x, q, case, 1);
                fill(y, q, case, 1);
                self.kernels.inverse(x, m, z, scale);
                self.reference.inverse(y, m, z, scale);
                if x != y {
                    return Err(differs("inverse", case));
                }
            }
        }
        Ok(6 * PATTERNS)
    }

    /// Everything that works coefficient by coefficient. `from` is the modulus
    /// that is lifted from.
    fn pointwise(
        &self,
        m: &Modulus,
        from: &Modulus,
        length: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let mut compared = 0;
        for case in 0..CASES {
            compared += self.pointwise_case(m, from, length, case, memory)?;
        }
        for case in 0..PATTERNS {
            compared += self.sums(m, from, length, case, memory)?;
        }
        Ok(compared)
    }

    fn pointwise_case(
        &self,
        m: &Modulus,
        from: &Modulus,
        length: usize,
        case: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let q = m.value();
        let [a, b, c, x, y, z] = &mut memory.limbs;
        let mut operands = [a, b, c, x, y, z].map(|limb| {
            // Off the alignment of vectors.
            limb.get_mut(1..=length).unwrap_or_default()
        });
        let (Some(integers), Some(wide), Some(floats)) = (
            memory.integers.get_mut(..length),
            memory.wide.get_mut(..length),
            memory.floats.get_mut(..length),
        ) else {
            return Ok(0);
        };
        let mut state = case;
        for (i, (int, float)) in integers.iter_mut().zip(floats.iter_mut()).enumerate() {
            state = state.wrapping_mul(0x9E37_79B9).wrapping_add(i as u32 | 1);
            *int = match (case.wrapping_add(i as u32)) & 7 {
                0 => i32::MIN,
                1 => i32::MAX,
                2 => 0,
                3 => -1,
                _ => state as i32,
            };
            // Integers of 24 bits and any size below 2^31.
            *float = ((*int >> 8) << (state & 7)) as f32;
        }
        wide_integers(wide, case);
        let factor = match case & 3 {
            0 => m.r2(),
            1 => (q >> 1) as i32,
            2 => -((q >> 1) as i32),
            _ => m.r(),
        };
        let mut compared = 0;
        let mut compare = |name: &'static str, run: Run<'_>, lifted: bool| {
            compared += 1;
            let mut sides = operands.each_mut();
            let [a, b, c, x, y, z] = &mut sides;
            for (limb, operand) in [(&mut **a, 0), (&mut **b, 1), (&mut **c, 2)] {
                fill(limb, q, case, operand);
            }
            if lifted {
                // What is lifted is a residue of the other modulus.
                fill(a, from.value(), case, 0);
            } else if case & 1 == 1 {
                // A factor in centred Montgomery form.
                for c in c.iter_mut() {
                    *c = m.centred(*c) as u32;
                }
            }
            for (copy, of) in [(&mut **x, &**a), (&mut **y, &**b), (&mut **z, &**c)] {
                crate::ring::copy(copy, of);
            }
            run(a, b, c, true);
            run(x, y, z, false);
            if lifted {
                for limb in [&mut **b, &mut **y] {
                    canonical(limb, m);
                }
            }
            if **a == **x && **b == **y && **c == **z {
                Ok(())
            } else {
                Err(Difference {
                    kernel: name,
                    modulus: q,
                    length,
                    case,
                })
            }
        };
        /// The kernel of either side.
        macro_rules! on {
            ($trial:expr, $name:ident($($arg:expr),*)) => {
                if $trial {
                    self.kernels.$name($($arg),*);
                } else {
                    self.reference.$name($($arg),*);
                }
            };
        }
        compare("mul_acc", &|a, b, c, t| on!(t, mul_acc(a, b, c, m)), false)?;
        compare(
            "mul_acc_two",
            &|a, b, c, t| {
                let (a0, a1) = halves_mut(a);
                let (b0, b1) = halves_mut(b);
                on!(t, mul_acc_two(a0, a1, b0, b1, c, m));
            },
            false,
        )?;
        compare("mul_sub", &|a, b, c, t| on!(t, mul_sub(a, b, c, m)), false)?;
        compare("mul", &|a, _, c, t| on!(t, mul(a, c, m)), false)?;
        compare("scale", &|a, _, _, t| on!(t, scale(a, factor, m)), false)?;
        compare("add", &|a, b, _, t| on!(t, add(a, b, m)), false)?;
        compare(
            "sub_scale",
            &|a, b, _, t| on!(t, sub_scale(a, b, factor, m)),
            false,
        )?;
        // The third is written to only.
        compare("square", &|a, b, c, t| on!(t, square(a, b, c, m)), false)?;
        compare(
            "lift",
            &|a, b, _, t| on!(t, lift(a, from, b, factor, m)),
            true,
        )?;
        compare(
            "lift_i32",
            &|_, b, _, t| on!(t, lift_i32(integers, b, factor, m)),
            true,
        )?;
        compare(
            "lift_i64",
            &|_, b, _, t| on!(t, lift_i64(wide, b, factor, m)),
            false,
        )?;
        compare(
            "lift_f32",
            &|_, b, _, t| on!(t, lift_f32(floats, b, factor, m)),
            true,
        )?;
        Ok(compared)
    }

    /// Sums of up to [`MAX_TERMS`] products; some sources are modulo `from`.
    fn sums(
        &self,
        m: &Modulus,
        from: &Modulus,
        length: usize,
        case: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let q = m.value();
        let differs = |kernel| Difference {
            kernel,
            modulus: q,
            length,
            case,
        };
        let [src, keys, x0, x1, y0, y1] = &mut memory.limbs;
        let words = MAX_TERMS * length;
        let (Some(src), Some(keys), Some(x0), Some(x1), Some(y0), Some(y1)) = (
            src.get_mut(1..=words),
            keys.get_mut(1..=words),
            x0.get_mut(1..=length),
            x1.get_mut(1..=length),
            y0.get_mut(1..=length),
            y1.get_mut(1..=length),
        ) else {
            return Ok(0);
        };
        let half = (q >> 1) as i32;
        let factors = [half, -half, m.r2(), half, m.r()];
        let largest = Modulus::new(1_073_692_673).unwrap_or(*from);
        let mut compared = 0;

        let mut terms = [Carried {
            from: *from,
            factor: 0,
        }; MAX_TERMS];
        for (i, (term, factor)) in terms.iter_mut().zip(factors).enumerate() {
            let from = if i & 1 == 0 { largest } else { *from };
            *term = Carried { from, factor };
            if let Some(limb) = src.get_mut(i * length..(i + 1) * length) {
                fill(limb, from.value(), case, i as u32);
            }
        }
        for count in 0..=MAX_TERMS {
            let terms = terms.get(..count).unwrap_or_default();
            let read = src.get(..count * length).unwrap_or_default();
            self.kernels.lift_sum(read, terms, x0, m);
            self.reference.lift_sum(read, terms, y0, m);
            canonical(x0, m);
            canonical(y0, m);
            if x0 != y0 {
                return Err(differs("lift_sum"));
            }
            compared += 1;
        }

        for i in 0..MAX_TERMS {
            for (words, operand) in [(&mut *src, i), (&mut *keys, MAX_TERMS + i)] {
                if let Some(limb) = words.get_mut(i * length..(i + 1) * length) {
                    fill(limb, q, case, operand as u32);
                }
            }
        }
        let (src, keys) = (&*src, &*keys);
        let mut terms = [SumTerm {
            x: &[],
            b: &[],
            a: &[],
        }; MAX_TERMS];
        for (i, term) in terms.iter_mut().enumerate() {
            *term = SumTerm {
                x: part(src, i, length),
                b: part(keys, i, length),
                a: part(keys, MAX_TERMS - 1 - i, length),
            };
        }
        for (count, factor) in (0..=MAX_TERMS).zip([half, -half, m.r2(), m.r(), half, half]) {
            let terms = terms.get(..count).unwrap_or_default();
            for (acc, operand) in [(&mut *x0, 0), (&mut *x1, 1), (&mut *y0, 0), (&mut *y1, 1)] {
                fill(acc, q, case, operand);
            }
            self.kernels.dot_two(x0, x1, factor, terms, m);
            self.reference.dot_two(y0, y1, factor, terms, m);
            if x0 != y0 || x1 != y1 {
                return Err(differs("dot_two"));
            }
            compared += 1;
        }
        Ok(compared)
    }

    /// Sums of residues times small integers.
    fn small_rows(&self, m: &Modulus, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        // Around the number of columns that are summed in one word.
        const COLUMNS: [usize; 8] = [0, 1, 2, 3, 8, 510, 511, MOST];
        const MOST: usize = 514;
        let q = m.value();
        let [words, x, y, ..] = &mut memory.limbs;
        let (Some(words), Some(x), Some(y)) = (
            words.get_mut(..SMALL_BLOCK),
            x.get_mut(1..=SMALL_BLOCK),
            y.get_mut(1..=SMALL_BLOCK),
        ) else {
            return Ok(0);
        };
        let mut weights = [0; MOST];
        let (mut compared, mut state) = (0, u64::from(q));
        for case in 0..PATTERNS {
            for (column, weight) in weights.iter_mut().enumerate() {
                fill(words, q, case, column as u32);
                kernel::pack_column(memory.halves, column, words);
                *weight = match case {
                    0 => i8::MIN,
                    1 => 0,
                    2 => i8::MAX,
                    3 if column & 1 == 0 => i8::MIN,
                    3 => i8::MAX,
                    _ => next(&mut state) as i8,
                };
            }
            for columns in COLUMNS {
                let length = small_packed_len(columns);
                let (Some(packed), Some(weights)) =
                    (memory.halves.get(..length), weights.get(..columns))
                else {
                    continue;
                };
                self.kernels.small_row(packed, weights, x, m);
                self.reference.small_row(packed, weights, y, m);
                if x != y {
                    return Err(Difference {
                        kernel: "small_row",
                        modulus: q,
                        length: columns,
                        case,
                    });
                }
                compared += 1;
            }
        }
        Ok(compared)
    }

    /// Residues of random words, up to one that is refused.
    fn residues(
        &self,
        m: &Modulus,
        length: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        // Where a word is refused, if there are so many.
        const REFUSED: [usize; 10] = [usize::MAX, 0, 1, 6, 7, 8, 15, 16, 31, 40];
        let q = m.value();
        // 2^32 mod q, and 1 / q mod 2^32, which gives words by their low half.
        let (reject_below, inverse) = (m.canon(m.r()), m.neg_inv().wrapping_neg() as u32);
        let with_low = |low: u32| low.wrapping_mul(inverse);
        let [words, x, y, ..] = &mut memory.limbs;
        let (Some(words), Some(x), Some(y)) = (
            words.get_mut(1..=length),
            x.get_mut(1..=length),
            y.get_mut(1..=length),
        ) else {
            return Ok(0);
        };
        let (mut compared, mut state) = (0, u64::from(q));
        for (case, refused) in (0..).zip(REFUSED) {
            for word in words.iter_mut() {
                let low = next(&mut state);
                *word = with_low(low.max(reject_below));
            }
            // The edges of what is accepted.
            if let [first, .., last] = words {
                (*first, *last) = (with_low(reject_below), with_low(u32::MAX));
            }
            if let Some(word) = words.get_mut(refused) {
                *word = with_low(if case & 1 == 0 { 0 } else { reject_below - 1 });
            }
            let done = self.kernels.residues(words, x, q, reject_below);
            let most = self.reference.residues(words, y, q, reject_below);
            let lanes = self.kernels.lanes();
            let least = if lanes > 1 { most & !(lanes - 1) } else { 0 };
            if !(least..=most).contains(&done) || x.get(..done) != y.get(..done) {
                return Err(Difference {
                    kernel: "residues",
                    modulus: q,
                    length,
                    case,
                });
            }
            compared += u32::from(done > 0);
        }
        Ok(compared)
    }

    /// Automorphisms of evaluations, of every length.
    fn permutations(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        const ELEMENTS: u32 = 16;
        let mut compared = 0;
        let mut n = 2;
        while n <= memory.table.len() {
            let [src, x, y, ..] = &mut memory.limbs;
            let (Some(src), Some(x), Some(y)) = (src.get_mut(..n), x.get_mut(..n), y.get_mut(..n))
            else {
                break;
            };
            for (x, i) in src.iter_mut().zip(0..) {
                *x = i;
            }
            let last = 2 * n as u32 - 1;
            for case in 0..=ELEMENTS {
                // The identity first, conjugation last.
                let g = match case {
                    ELEMENTS => last,
                    _ => (case.wrapping_mul(0x9E37_79B1) | 1) & last,
                };
                let half = (g >> 1) << (32 - n.trailing_zeros());
                let done = self.kernels.permute(src, x, g, half);
                let lanes = self.kernels.lanes();
                let due = lanes > 1 && n >= lanes;
                if due && !done || done && !(self.reference.permute(src, y, g, half) && x == y) {
                    return Err(Difference {
                        kernel: "permute",
                        modulus: 0,
                        length: n,
                        case: g,
                    });
                }
                compared += u32::from(done);
            }
            n <<= 1;
        }
        Ok(compared)
    }

    /// Residues out of their bytes, in every width, at every alignment, and one that
    /// is none.
    fn unpacking(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        const MOST: usize = 128;
        let [words, x, y, ..] = &mut memory.limbs;
        let (Some(words), Some(x), Some(y)) =
            (words.get_mut(..MOST), x.get_mut(..MOST), y.get_mut(..MOST))
        else {
            return Ok(0);
        };
        let mut compared = 0;
        for bits in 14..=30 {
            // The width's largest word is the modulus itself: not a residue.
            let q = (1 << bits) - 1;
            let Some(m) = Modulus::new(q) else { continue };
            for (length, case) in [0, 8, 16, 64, MOST].into_iter().zip(0..) {
                let (Some(words), Some(x), Some(y)) = (
                    words.get_mut(..length),
                    x.get_mut(..length),
                    y.get_mut(..length),
                ) else {
                    continue;
                };
                for above in [None, Some(0), Some(7), Some(30), length.checked_sub(1)] {
                    fill(words, q, 4, bits);
                    if let Some([first, second, ..]) = words.get_mut(1..) {
                        (*first, *second) = (q - 1, 0);
                    }
                    let place = above.and_then(|at| words.get_mut(at));
                    let canonical = place.is_none();
                    if let Some(word) = place {
                        *word = q;
                    }
                    let end = wire::packed_len(length, bits);
                    let packed = memory.bytes.get_mut(bits as usize & 3..);
                    let Some(packed) = packed.and_then(|bytes| bytes.get_mut(..end)) else {
                        continue;
                    };
                    let same = wire::pack(words, &m, packed).is_ok() && {
                        let done = self.kernels.unpack(packed, &m, x);
                        compared += u32::from(done.is_some());
                        done == self.reference.unpack(packed, &m, y)
                            && (done.is_none() || done == Some(canonical) && x == y && x == words)
                    };
                    if !same {
                        return Err(Difference {
                            kernel: "unpack",
                            modulus: q,
                            length,
                            case,
                        });
                    }
                }
            }
        }
        Ok(compared)
    }

    /// The encoder's kernels in single precision, which a board has.
    fn single_precision(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let differs = |kernel, length, case| Difference {
            kernel,
            modulus: 0,
            length,
            case,
        };
        let mut compared = 0;
        let quarter = memory.floats.len() >> 2;
        let (x, y) = memory.floats.split_at_mut(2 * quarter);
        let ((xr, xi), (yr, yi)) = (x.split_at_mut(quarter), y.split_at_mut(quarter));
        let twiddles = <f32 as Real>::twiddles();
        let mut n = 2;
        while n <= quarter.min(twiddles.len()) {
            let (Some(xr), Some(xi), Some(yr), Some(yi)) = (
                xr.get_mut(..n),
                xi.get_mut(..n),
                yr.get_mut(..n),
                yi.get_mut(..n),
            ) else {
                break;
            };
            for case in 0..2 {
                for (x, operand) in [(&mut *xr, 1), (&mut *xi, 2), (&mut *yr, 1), (&mut *yi, 2)] {
                    let mut state = operand;
                    for x in x {
                        *x = number(next(&mut state), case) as f32;
                    }
                }
                // What a kernel leaves, the stages do.
                let left = self.kernels.fft_inverse(xr, xi, twiddles);
                encode::stages_from(xr, xi, left);
                let of_reference = self.reference.fft_inverse(yr, yi, twiddles);
                encode::stages_from(yr, yi, of_reference);
                let bits = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits();
                if !xr.iter().zip(&*yr).all(bits) || !xi.iter().zip(&*yi).all(bits) {
                    return Err(differs("fft_inverse", n, case));
                }
                compared += u32::from(left < n);
            }
            n <<= 1;
        }

        let mut state = 0;
        let edges = [
            0.0,
            -0.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            4_194_303.5,
            8_388_607.5,
            8_388_609.0,
            -2e9,
        ];
        for (i, (x, y)) in x.iter_mut().zip(y.iter_mut()).enumerate() {
            let word = next(&mut state);
            // Halves of integers, and numbers of every magnitude below 2^31.
            let random = (word as i32 >> (word & 31)) as f32 * 0.5;
            *x = edges.get(i).copied().unwrap_or(random);
            *y = *x;
        }
        self.kernels.round_f32(x);
        self.reference.round_f32(y);
        // Zero has two signs, and either is right.
        if x.iter().ne(y.iter()) {
            return Err(differs("round_f32", x.len(), 0));
        }
        Ok(compared + 1)
    }

    /// The encoder's and the decoder's transform on a host, of every length.
    fn slots(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let twiddles = encode::split_twiddles();
        let [xr, xi, yr, yi] = &mut memory.numbers;
        let mut compared = 0;
        let mut n = 2;
        while n <= xr.len().min(twiddles.0.len()) {
            let (Some(xr), Some(xi), Some(yr), Some(yi)) = (
                xr.get_mut(..n),
                xi.get_mut(..n),
                yr.get_mut(..n),
                yi.get_mut(..n),
            ) else {
                break;
            };
            // From 16 numbers on there are tiles, in vectors of either length.
            let due = self.kernels.lanes() > 1 && n >= 16;
            for case in 0..3 {
                for forward in [false, true] {
                    for (x, operand) in [(&mut *xr, 1), (&mut *xi, 2), (&mut *yr, 1), (&mut *yi, 2)]
                    {
                        let mut state = operand;
                        for x in x {
                            *x = number(next(&mut state), case);
                        }
                    }
                    let done = if forward {
                        self.kernels.fft_forward_f64(xr, xi, twiddles, 0.3)
                    } else {
                        self.kernels.fft_inverse_f64(xr, xi, twiddles)
                    };
                    if done && forward {
                        self.reference.fft_forward_f64(yr, yi, twiddles, 0.3);
                    } else if done {
                        self.reference.fft_inverse_f64(yr, yi, twiddles);
                    }
                    let same = !done || same_bits(xr, yr) && same_bits(xi, yi);
                    if due && !done || !same {
                        return Err(Difference {
                            kernel: if forward {
                                "fft_forward_f64"
                            } else {
                                "fft_inverse_f64"
                            },
                            modulus: 0,
                            length: n,
                            case,
                        });
                    }
                    compared += u32::from(done);
                }
            }
            n <<= 1;
        }
        Ok(compared)
    }

    /// Scaling and rounding, and what is not below the limit.
    fn rounding(&self, length: usize, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        const LIMIT: f64 = (1u64 << 62) as f64;
        // Where the limit is reached, if there are so many, and by what.
        const ABOVE: [(usize, f64); 8] = [
            (usize::MAX, 0.0),
            (0, LIMIT),
            (1, -LIMIT),
            (3, f64::NAN),
            (4, f64::INFINITY),
            (7, LIMIT),
            (8, f64::NEG_INFINITY),
            (31, -f64::NAN),
        ];
        const EDGES: [f64; 8] = [
            -0.2,
            0.5,
            -1.5,
            2.5,
            4_503_599_627_370_495.5,
            -4_503_599_627_370_497.0,
            -0.0,
            LIMIT * (1.0 - f64::EPSILON),
        ];
        let [x, y, ..] = &mut memory.numbers;
        let (Some(x), Some(y)) = (x.get_mut(1..=length), y.get_mut(1..=length)) else {
            return Ok(0);
        };
        let (mut compared, mut state) = (0, length as u64);
        for (case, (at, above)) in (0..).zip(ABOVE) {
            for factor in [1.0, 0.37] {
                for (i, x) in x.iter_mut().enumerate() {
                    let random = number(next(&mut state), 0) * 1_048_576.0;
                    *x = match case {
                        0 | 2 => EDGES.get(i & 7).copied().unwrap_or(random),
                        _ => random,
                    };
                }
                if let Some(x) = x.get_mut(at) {
                    *x = above;
                }
                y.copy_from_slice(x);
                let (done, below) = self.kernels.scale_and_round(x, factor, LIMIT);
                // Vectors of numbers are half as long as those of words.
                let lanes = self.kernels.lanes() >> 1;
                let least = if lanes > 0 { length & !(lanes - 1) } else { 0 };
                let (Some(x), Some(y)) = (x.get(..done), y.get_mut(..done)) else {
                    return Err(Difference {
                        kernel: "scale_and_round",
                        modulus: 0,
                        length,
                        case,
                    });
                };
                let (_, expected) = self.reference.scale_and_round(y, factor, LIMIT);
                if done < least || below != expected || !same_bits(x, y) {
                    return Err(Difference {
                        kernel: "scale_and_round",
                        modulus: 0,
                        length,
                        case,
                    });
                }
                compared += u32::from(done > 0);
            }
        }
        Ok(compared)
    }

    /// Centred values of residues modulo the first of [`MODULI`].
    fn reconstruction(&self, length: usize, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let ([residues, ..], [x, y, ..]) = (&mut memory.limbs, &mut memory.numbers);
        let (Some(residues), Some(x), Some(y)) = (
            residues.get_mut(1..=MODULI.len() * length),
            x.get_mut(1..=length),
            y.get_mut(1..=length),
        ) else {
            return Ok(0);
        };
        let mut compared = 0;
        for limbs in 1..=MODULI.len() {
            let residues = residues.get_mut(..limbs * length).unwrap_or_default();
            compared += self.reconstruct(limbs, residues, x, y)?;
        }
        Ok(compared)
    }

    fn reconstruct(
        &self,
        limbs: usize,
        residues: &mut [u32],
        x: &mut [f64],
        y: &mut [f64],
    ) -> Result<u32, Difference> {
        let mut moduli = [None; MAX_LIMBS];
        for (place, q) in moduli.iter_mut().zip(MODULI).take(limbs) {
            *place = Modulus::new(q);
        }
        let (crt, length, mut compared) = (&Crt::of(moduli), x.len(), 0);
        for case in 0..PATTERNS {
            for (i, (m, ..)) in crt.steps().enumerate() {
                if let Some(limb) = residues.get_mut(i * length..(i + 1) * length) {
                    fill(limb, m.value(), case, i as u32);
                }
            }
            let (done, largest) = self.kernels.reconstruct(crt, residues, x);
            self.reference.reconstruct(crt, residues, y);
            let lanes = self.kernels.lanes();
            let least = if lanes > 1 { length & !(lanes - 1) } else { 0 };
            let same = done >= least
                && match (x.get(..done), y.get(..done)) {
                    (Some(x), Some(y)) => {
                        let expected = y.iter().fold(0.0, |a, x| f64::max(a, libm::fabs(*x)));
                        same_bits(x, y) && largest.to_bits() == expected.to_bits()
                    }
                    _ => false,
                };
            if !same {
                return Err(Difference {
                    kernel: "reconstruct",
                    modulus: limbs as u32,
                    length,
                    case,
                });
            }
            compared += u32::from(done > 0);
        }
        Ok(compared)
    }
}

/// Integers up to the limit of what is carried over.
fn wide_integers(wide: &mut [i64], case: u32) {
    const LIMIT: i64 = 1 << integers::LIMIT_LOG2;
    let edges = [
        LIMIT,
        -LIMIT,
        0,
        -1,
        LIMIT - 1,
        1 << 31,
        -(1 << 31),
        (1 << 31) - 1,
        1 << 32,
        i64::from(i32::MIN) - 1,
    ];
    let mut state = u64::from(case);
    for (i, x) in wide.iter_mut().enumerate() {
        let (high, low) = (next(&mut state), next(&mut state));
        // Of every magnitude.
        let random = (i64::from(high as i32) << 30 ^ i64::from(low)) >> (low & 31);
        let at = i.wrapping_add(case as usize) & 15;
        *x = edges.get(at).copied().unwrap_or(random);
    }
}

/// Words between `-q` and `q` as residues; others as what is none.
fn canonical(limb: &mut [u32], m: &Modulus) {
    for x in limb {
        let within = (*x as i32).unsigned_abs() < m.value();
        *x = if within { m.canon(*x as i32) } else { u32::MAX };
    }
}

/// A number of a random word: around one, of every magnitude, or next to nothing.
fn number(word: u32, case: u32) -> f64 {
    let x = f64::from(word as i32);
    match case {
        0 => x * (1.0 / 1_073_741_824.0),
        1 if word & 15 == 0 => -0.0,
        1 => x * x * f64::from(word & 0xffff) * 1.1,
        _ => f64::from_bits(u64::from(word)) * f64::from(word as i32 >> 31 | 1),
    }
}

/// The same numbers, and NaN where there is NaN.
fn same_bits(x: &[f64], y: &[f64]) -> bool {
    let same = |(x, y): (&f64, &f64)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
    x.len() == y.len() && x.iter().zip(y).all(same)
}

/// Limb `i` of several.
fn part(words: &[u32], i: usize, length: usize) -> &[u32] {
    words.get(i * length..(i + 1) * length).unwrap_or_default()
}

/// Two of equal length.
fn halves_mut(x: &mut [u32]) -> (&mut [u32], &mut [u32]) {
    let half = x.len() >> 1;
    let (first, rest) = x.split_at_mut(half);
    (first, rest.get_mut(..half).unwrap_or_default())
}

/// A kernel over three operands, on trial or of the reference.
type Run<'r> = &'r dyn Fn(&mut [u32], &mut [u32], &mut [u32], bool);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{N4096_DEPTH3, N8192_DEPTH5, Params};

    /// Every set that is for use.
    const SETS: [&Params; 2] = [&N4096_DEPTH3, &N8192_DEPTH5];

    /// Largest length of a transform.
    const MAX_N: usize = 1 << 14;

    fn moduli() -> Vec<u32> {
        let of_sets = SETS
            .into_iter()
            .flat_map(|set| (0..=set.special()).map(|i| set.prime(i).unwrap().modulus().value()));
        let mut moduli: Vec<u32> = MODULI.into_iter().chain(of_sets).collect();
        moduli.sort_unstable();
        moduli.dedup();
        moduli
    }

    fn compare<K: Kernels, R: Kernels>(kernels: &K, reference: &R) {
        let mut limbs = [(); 6].map(|()| vec![0; MAX_N]);
        let (mut table, mut integers, mut wide) = (vec![0; MAX_N], vec![0; 256], vec![0; 256]);
        let mut numbers = [(); 4].map(|()| vec![0.0; encode::MAX_SLOTS]);
        let mut memory = Memory {
            limbs: limbs.each_mut().map(|limb| &mut limb[..]),
            table: &mut table,
            integers: &mut integers,
            wide: &mut wide,
            floats: &mut vec![0.0; 4096],
            numbers: numbers.each_mut().map(|part| &mut part[..]),
            bytes: &mut [0; 512],
            halves: &mut vec![0; small_packed_len(514)],
        };
        let pair = Pair { kernels, reference };
        let compared = pair.all(&moduli(), &mut memory).unwrap();
        assert!(compared > 250_000, "{compared}");
    }

    /// The definitions, in integers of 64 bits and by division.
    struct Definitions;

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
        let part =
            |first: usize| -> Vec<u64> { p.iter().skip(first).step_by(2).copied().collect() };
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
        fn reconstruct(&self, crt: &Crt, residues: &[u32], out: &mut [f64]) -> (usize, f64) {
            Portable.reconstruct(crt, residues, out)
        }
        fn fft_inverse(&self, re: &mut [f32], im: &mut [f32], twiddles: &[[f32; 2]]) -> usize {
            Portable.fft_inverse(re, im, twiddles)
        }
        fn round_f32(&self, x: &mut [f32]) {
            x.iter_mut().for_each(|x| *x = x.round_ties_even());
        }
    }

    #[test]
    fn portable_computes_what_is_defined() {
        compare(&Portable, &Definitions);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn all_that_this_processor_runs_are_portable() {
        use crate::ring::kernel::Backend;
        use std::io::Write;
        let all: Vec<Backend> = Backend::available().collect();
        assert_eq!(all.last().unwrap().name(), "portable");
        for backend in all {
            compare(&backend, &Portable);
            // Past the capture of the output: `tests/run` looks for it.
            let line = format!("conformance: {} agrees with portable\n", backend.name());
            std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }

    #[test]
    fn those_in_use_are_portable() {
        compare(&Current, &Portable);
    }

    /// What a wrong kernel does to its last word.
    trait Spoil {
        fn spoil(&mut self);
    }
    impl Spoil for [u32] {
        fn spoil(&mut self) {
            if let Some(x) = self.last_mut() {
                *x ^= 1;
            }
        }
    }
    impl Spoil for [f32] {
        fn spoil(&mut self) {
            if let Some(x) = self.last_mut() {
                *x = -1.0 - *x;
            }
        }
    }
    impl Spoil for [f64] {
        fn spoil(&mut self) {
            if let Some(x) = self.last_mut() {
                *x = f64::from_bits(x.to_bits() ^ 1);
            }
        }
    }

    /// `portable`, but for the last word of one kernel.
    struct Wrong(&'static str);

    macro_rules! wrong {
        (
            chosen { $(
                $on:ident $name:ident [$out:ident] ($($arg:ident : $ty:ty),*) $(-> $result:ty)?;
            )* }
            single { $(
                $one:ident [$end:ident] ($($of:ident : $is:ty),*) $(-> $gives:ty)?;
            )* }
        ) => {
            impl Kernels for Wrong {
                fn lanes(&self) -> usize {
                    1
                }
                $(fn $name(&self, $($arg: $ty),*) $(-> $result)? {
                    let result = Portable.$name($($arg),*);
                    if self.0 == stringify!($name) {
                        $out.spoil();
                    }
                    result
                })*
                $(fn $one(&self, $($of: $is),*) $(-> $gives)? {
                    let result = Portable.$one($($of),*);
                    if self.0 == stringify!($one) {
                        $end.spoil();
                    }
                    result
                })*
            }
            const NAMES: &[&str] = &[$(stringify!($name),)* $(stringify!($one)),*];
        };
    }
    every_kernel!(wrong);

    /// A suite that finds nothing in wrong kernels is none, and every kernel that is
    /// in the list has its comparison.
    #[test]
    fn one_wrong_word_is_found() {
        let mut limbs = [(); 6].map(|()| vec![0; 4096]);
        let mut numbers = [(); 4].map(|()| vec![0.0; 300]);
        for name in NAMES {
            let mut memory = Memory {
                limbs: limbs.each_mut().map(|limb| &mut limb[..]),
                table: &mut [0; 8],
                integers: &mut [0; 256],
                wide: &mut [0; 256],
                floats: &mut [0.0; 256],
                numbers: numbers.each_mut().map(|part| &mut part[..]),
                bytes: &mut [0; 512],
                halves: &mut [0; 1024],
            };
            let pair = Pair {
                kernels: &Wrong(name),
                reference: &Portable,
            };
            let found = pair.all(&[12_289], &mut memory).unwrap_err();
            assert_eq!(found.kernel, *name);
        }
    }

    /// The modules of which every target has a form name all kernels: the files here
    /// (those of one kind of machine are in folders).
    #[test]
    fn every_kernel_is_in_the_list() {
        // What these modules have beside kernels.
        const OTHERS: [&str; 2] = ["backend", "pack_column"];
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ring/kernel");
        let mut declared = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() || path.ends_with("conformance.rs") {
                continue;
            }
            let source = std::fs::read_to_string(path).unwrap();
            let names = source.lines().filter_map(|line| {
                let free = line.strip_prefix("pub fn ");
                // Of the module of what only hosts have.
                let free = free.or(line.strip_prefix("    pub(crate) fn "))?;
                free.split(['(', '<']).next()
            });
            let names = names.filter(|name| !OTHERS.contains(name));
            declared.extend(names.map(String::from));
        }
        for name in &declared {
            let there = NAMES.contains(&name.as_str());
            assert!(there, "{name} has no entry in every_kernel");
        }
        assert_eq!(declared.len(), NAMES.len(), "{declared:?}");
    }
}
