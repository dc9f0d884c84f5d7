//! One suite for all kernels: every one against a reference, at the edges of its
//! contract and at random, in all lengths.
//!
//! Words must be the same, except that a lift may differ by the modulus, and must
//! lie between `-q` and `q`.
//!
//! `portable` is compared with the definitions in plain arithmetic, and every
//! other set of kernels with `portable`: on a host by the tests below, on a board
//! by the firmware's program `bench`. A new kernel is one entry of [`Kernels`] and
//! one comparison in [`pointwise`] or [`transforms`].
//!
//! It needs neither `std` nor an allocator, so that it runs on any machine.

use crate::arith::{Modulus, prime};
use crate::ring::kernel::{self, portable};
use crate::ring::ntt::tables;

/// Declares the kernels once, for every way of calling them.
macro_rules! kernels {
    ($($name:ident, $on:ident ( $($arg:ident : $ty:ty),* );)*) => {
        /// A set of kernels; `portable` has what each computes.
        pub trait Kernels {
            $(
                #[doc = concat!("See [`portable::", stringify!($name), "`].")]
                fn $name(&self, $($arg: $ty),*);
            )*
        }

        impl Kernels for Portable {
            $(fn $name(&self, $($arg: $ty),*) { portable::$name($($arg),*); })*
        }

        impl Kernels for Current {
            $(fn $name(&self, $($arg: $ty),*) { kernel::$name($($arg),*); })*
        }

        #[cfg(target_arch = "x86_64")]
        impl Kernels for kernel::Backend {
            $(fn $name(&self, $($arg: $ty),*) { kernel::x86::$on(*self, $($arg),*); })*
        }
    };
}

/// The portable kernels.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// Those in use on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Current;

kernels! {
    forward, forward_on (data: &mut [u32], m: &Modulus, z: &[i32]);
    inverse, inverse_on (data: &mut [u32], m: &Modulus, z: &[i32], scale: i32);
    mul_acc, mul_acc_on (acc: &mut [u32], a: &[u32], b_mont: &[u32], m: &Modulus);
    mul_acc_two, mul_acc_two_on (
        acc0: &mut [u32], acc1: &mut [u32], a0: &[u32], a1: &[u32], b_mont: &[u32], m: &Modulus
    );
    mul_sub, mul_sub_on (a: &mut [u32], b: &[u32], c_mont: &[u32], m: &Modulus);
    mul, mul_on (a: &mut [u32], b_mont: &[u32], m: &Modulus);
    scale, scale_on (a: &mut [u32], factor: i32, m: &Modulus);
    add, add_on (a: &mut [u32], b: &[u32], m: &Modulus);
    sub_scale, sub_scale_on (a: &mut [u32], b: &[u32], factor: i32, m: &Modulus);
    square, square_on (a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus);
    lift, lift_on (src: &[u32], from: &Modulus, dst: &mut [u32], factor: i32, m: &Modulus);
    lift_i32, lift_i32_on (src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus);
    lift_f32, lift_f32_on (src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus);
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
    pub floats: &'a mut [f32],
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
/// they have, [`portable::MAX_UNREDUCED`], and the largest there is for each
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
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *x = match pattern {
            0 => q - 1,
            1 => 0,
            2 => (q - 1) * (i as u32 & 1),
            3 => {
                let at = (i + operand as usize) & 7;
                edges.get(at).copied().unwrap_or_default()
            }
            _ => (((state >> 32) * u64::from(q)) >> 32) as u32,
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
        let mut compared = 0;
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
            }
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
        let (integers, floats) = (&mut *memory.integers, &mut *memory.floats);
        let (Some(integers), Some(floats)) = (integers.get_mut(..length), floats.get_mut(..length))
        else {
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
                    for x in limb.iter_mut() {
                        let within = (*x as i32).unsigned_abs() < q;
                        *x = if within { m.canon(*x as i32) } else { u32::MAX };
                    }
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
            "lift_f32",
            &|_, b, _, t| on!(t, lift_f32(floats, b, factor, m)),
            true,
        )?;
        Ok(compared)
    }
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
        let (mut table, mut integers, mut floats) = (vec![0; MAX_N], vec![0; 256], vec![0.0; 256]);
        let mut memory = Memory {
            limbs: limbs.each_mut().map(|limb| &mut limb[..]),
            table: &mut table,
            integers: &mut integers,
            floats: &mut floats,
        };
        let pair = Pair { kernels, reference };
        let compared = pair.all(&moduli(), &mut memory).unwrap();
        assert!(compared > 100_000, "{compared}");
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
    }

    #[test]
    fn portable_computes_what_is_defined() {
        compare(&Portable, &Definitions);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn all_that_this_processor_runs_are_portable() {
        use crate::ring::kernel::Backend;
        let all: Vec<Backend> = Backend::available().collect();
        assert_eq!(all.last().unwrap().name(), "portable");
        for backend in all {
            compare(&backend, &Portable);
        }
    }

    #[test]
    fn those_in_use_are_portable() {
        compare(&Current, &Portable);
    }

    /// A suite that finds nothing in wrong kernels is none.
    #[test]
    fn one_wrong_word_is_found() {
        /// `portable`, but for the last word of one kernel.
        struct Wrong(&'static str);
        fn spoil(x: &mut [u32]) {
            if let Some(x) = x.last_mut() {
                *x ^= 1;
            }
        }
        macro_rules! wrong {
            ($($name:ident ( $first:ident : $t:ty $(, $arg:ident : $ty:ty)* ) on $out:ident;)*) => {
                impl Kernels for Wrong {
                    $(fn $name(&self, $first: $t $(, $arg: $ty)*) {
                        portable::$name($first $(, $arg)*);
                        if self.0 == stringify!($name) {
                            spoil($out);
                        }
                    })*
                }
                const NAMES: &[&str] = &[$(stringify!($name)),*];
            };
        }
        wrong! {
            forward(data: &mut [u32], m: &Modulus, z: &[i32]) on data;
            inverse(data: &mut [u32], m: &Modulus, z: &[i32], scale: i32) on data;
            mul_acc(acc: &mut [u32], a: &[u32], b: &[u32], m: &Modulus) on acc;
            mul_acc_two(acc0: &mut [u32], acc1: &mut [u32], a0: &[u32], a1: &[u32], b: &[u32],
                m: &Modulus) on acc1;
            mul_sub(a: &mut [u32], b: &[u32], c: &[u32], m: &Modulus) on a;
            mul(a: &mut [u32], b: &[u32], m: &Modulus) on a;
            scale(a: &mut [u32], factor: i32, m: &Modulus) on a;
            add(a: &mut [u32], b: &[u32], m: &Modulus) on a;
            sub_scale(a: &mut [u32], b: &[u32], factor: i32, m: &Modulus) on a;
            square(a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus) on c;
            lift(src: &[u32], from: &Modulus, dst: &mut [u32], factor: i32, m: &Modulus) on dst;
            lift_i32(src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus) on dst;
            lift_f32(src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus) on dst;
        }
        let mut limbs = [[0; 257]; 6];
        let (mut table, mut integers, mut floats) = ([0; 8], [0; 256], [0.0; 256]);
        for name in NAMES {
            let mut memory = Memory {
                limbs: limbs.each_mut().map(|limb| &mut limb[..]),
                table: &mut table,
                integers: &mut integers,
                floats: &mut floats,
            };
            let pair = Pair {
                kernels: &Wrong(name),
                reference: &Portable,
            };
            let found = pair.all(&[12_289], &mut memory).unwrap_err();
            assert_eq!(found.kernel, *name);
        }
    }
}
