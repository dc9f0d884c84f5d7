//! Forward and inverse NTT: three layers merged in one pass, a column of eight
//! values in registers.
//!
//! Registers of all passes: r0-r7 values, r8 the column, r9 q, r10-r12 and lr as
//! said. In the layers of large distance the factors of a pass lie on its stack;
//! in the three layers of neighbours every column has its own.

use super::{Constants, Factor};
use crate::arith::Modulus;
use core::arch::naked_asm;

/// Largest modulus for the passes of three layers.
///
/// Forward: `(1 + 14 * 0.75) q + 15 < 2^31`, as in the portable kernel.
/// Inverse: see [`inverse`]. Larger moduli are transformed layer by layer.
pub const MAX_UNREDUCED: u32 = 186_000_000;

/// Shoup butterfly `(a + w b, a - w b)`, `w` in r10 and `k` in r11; the sum
/// comes to `b`, the difference to `a`. Uses r12.
#[rustfmt::skip]
macro_rules! ct {
    ($a:literal, $b:literal) => {
        concat!(
            "smmulr r12, ", $b, ", r11\n", "mla ", $b, ", ", $b, ", r10, ", $a, "\n",
            "mls ", $b, ", r12, r9, ", $b, "\n", "rsb ", $a, ", ", $b, ", ", $a, ", lsl #1\n",
        )
    };
}

/// `(a + b, a - b)` in place.
#[rustfmt::skip]
macro_rules! sum {
    ($a:literal, $b:literal) => {
        concat!(
            "sub ", $b, ", ", $a, ", ", $b, "\n", "rsb ", $a, ", ", $b, ", ", $a, ", lsl #1\n",
        )
    };
}

/// `(a + b w, a - b w)` as [`ct`]: the product of the inverse transform, when
/// the next layer adds it to the product `a`.
#[rustfmt::skip]
macro_rules! times_sum {
    ($a:literal, $b:literal) => {
        ct!($a, $b)
    };
}

/// Montgomery product `b = b z / R`: z in r10, -q^-1 in r11; uses r12 and `m`
/// (which may be r10 if it is needed no more).
#[rustfmt::skip]
macro_rules! mont {
    ($b:literal, $m:literal) => {
        concat!(
            "smull r12, ", $b, ", ", $b, ", r10\n", "mul ", $m, ", r12, r11\n",
            "smlal r12, ", $b, ", ", $m, ", r9\n",
        )
    };
}

/// Forward butterfly in place with a Montgomery product.
#[rustfmt::skip]
macro_rules! ct_mont {
    ($a:literal, $b:literal, $m:literal) => {
        concat!(
            mont!($b, $m), "add ", $a, ", ", $a, ", ", $b, "\n",
            "sub ", $b, ", ", $a, ", ", $b, ", lsl #1\n",
        )
    };
}

/// Inverse butterfly in place with a Montgomery product.
#[rustfmt::skip]
macro_rules! gs_mont {
    ($a:literal, $b:literal, $m:literal) => {
        concat!(sum!($a, $b), mont!($b, $m))
    };
}

/// Barrett reduction, constant in r10. Uses r12.
#[rustfmt::skip]
macro_rules! centre {
    ($x:literal) => {
        concat!("smmulr r12, ", $x, ", r10\n", "mls ", $x, ", r12, r9, ", $x, "\n")
    };
}

#[rustfmt::skip]
macro_rules! reduce {
    ($x:literal) => {
        concat!(centre!($x), canon!($x))
    };
}

/// Entry of a pass: r0 block, r1 eight factors, r2 q, r3 end of the first
/// eighth. Puts the factors on the stack, for `factor!`.
#[rustfmt::skip]
macro_rules! enter {
    () => {
        "push {{r4-r11, lr}}
         sub sp, sp, #68
         ldm r1!, {{r4-r11}}
         stm sp, {{r4-r11}}
         ldm r1!, {{r4-r11}}
         add r12, sp, #32
         stm r12, {{r4-r11}}
         ldr r1, [r1]
         str r1, [sp, #64]
         mov r8, r0
         mov r9, r2
         mov lr, r3"
    };
}

#[rustfmt::skip]
macro_rules! leave {
    () => {
        "cmp r8, lr
         bne 2b
         add sp, sp, #68
         pop {{r4-r11, pc}}"
    };
}

/// Factor `i` to r10 and r11.
#[rustfmt::skip]
macro_rules! factor {
    ($offset:literal) => {
        concat!("ldrd r10, r11, [sp, #", $offset, "]\n")
    };
}

/// The Barrett constant to r10.
#[rustfmt::skip]
macro_rules! barrett {
    () => {
        "ldr r10, [sp, #64]\n"
    };
}

/// Loads a column of eight values `stride` bytes apart.
#[rustfmt::skip]
macro_rules! load {
    (2048) => {
        "ldr r0, [r8]
         ldr r1, [r8, #2048]
         add r8, r8, #4096
         ldr r2, [r8]
         ldr r3, [r8, #2048]
         add r8, r8, #4096
         ldr r4, [r8]
         ldr r5, [r8, #2048]
         add r8, r8, #4096
         ldr r6, [r8]
         ldr r7, [r8, #2048]\n"
    };
    ($stride:tt) => {
        concat!(
            "ldr r0, [r8]\n",
            "ldr r1, [r8, #", $stride, "]\n",
            "ldr r2, [r8, #2*", $stride, "]\n",
            "ldr r3, [r8, #3*", $stride, "]\n",
            "ldr r4, [r8, #4*", $stride, "]\n",
            "ldr r5, [r8, #5*", $stride, "]\n",
            "ldr r6, [r8, #6*", $stride, "]\n",
            "ldr r7, [r8, #7*", $stride, "]\n",
        )
    };
}

/// Stores a column, named from place 0 to place 7, and goes to the next one.
#[rustfmt::skip]
macro_rules! store {
    (2048, $r0:literal $r1:literal $r2:literal $r3:literal $r4:literal $r5:literal $r6:literal $r7:literal) => {
        concat!(
            "str ", $r6, ", [r8]\n", "str ", $r7, ", [r8, #2048]\n", "sub r8, r8, #4096\n",
            "str ", $r4, ", [r8]\n", "str ", $r5, ", [r8, #2048]\n", "sub r8, r8, #4096\n",
            "str ", $r2, ", [r8]\n", "str ", $r3, ", [r8, #2048]\n", "sub r8, r8, #4096\n",
            "str ", $r1, ", [r8, #2048]\n", "str ", $r0, ", [r8], #4\n",
        )
    };
    ($stride:tt, $r0:literal $r1:literal $r2:literal $r3:literal $r4:literal $r5:literal $r6:literal $r7:literal) => {
        concat!(
            "str ", $r1, ", [r8, #", $stride, "]\n",
            "str ", $r2, ", [r8, #2*", $stride, "]\n",
            "str ", $r3, ", [r8, #3*", $stride, "]\n",
            "str ", $r4, ", [r8, #4*", $stride, "]\n",
            "str ", $r5, ", [r8, #5*", $stride, "]\n",
            "str ", $r6, ", [r8, #6*", $stride, "]\n",
            "str ", $r7, ", [r8, #7*", $stride, "]\n",
            "str ", $r0, ", [r8], #4\n",
        )
    };
}

/// What a pass over one block reads: factors of the three layers (one, two and
/// four), the factor of the sums in the last inverse pass, the Barrett constant.
#[repr(C)]
struct Factors {
    layer: [Factor; 7],
    sums: Factor,
    barrett: i32,
}

impl Factors {
    /// For block `k` of the layer of `count` blocks: `z[count + k]`, and those
    /// of its halves and quarters.
    #[inline(always)]
    fn new(m: &Constants, z1: i32, z2: [i32; 2], z4: [i32; 4]) -> Self {
        let f = |z| Factor::new(m, z);
        let [z3, z4, z5, z6] = z4;
        Self {
            layer: [f(z1), f(z2[0]), f(z2[1]), f(z3), f(z4), f(z5), f(z6)],
            sums: Factor { w: 1, k: m.barrett },
            barrett: m.barrett,
        }
    }
}

/// A pass over one block: its first word, factors, q, end of its first eighth.
type Pass = unsafe extern "C" fn(*mut u32, &Factors, i32, *mut u32);

#[rustfmt::skip]
macro_rules! forward_pass {
    ($name:ident, $stride:tt) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut u32, factors: &Factors, q: i32, end: *mut u32) {
            naked_asm!(
                dsp!(),
                enter!(),
                "2:",
                load!($stride),
                factor!(0),
                ct!("r0", "r4"), ct!("r1", "r5"), ct!("r2", "r6"), ct!("r3", "r7"),
                // Places 0-3 are in r4-r7, places 4-7 in r0-r3.
                factor!(8),
                ct!("r4", "r6"), ct!("r5", "r7"),
                factor!(16),
                ct!("r0", "r2"), ct!("r1", "r3"),
                // In order: r6 r7 r4 r5 r2 r3 r0 r1.
                factor!(24),
                ct!("r6", "r7"),
                factor!(32),
                ct!("r4", "r5"),
                factor!(40),
                ct!("r2", "r3"),
                factor!(48),
                ct!("r0", "r1"),
                store!($stride, "r7" "r6" "r5" "r4" "r3" "r2" "r1" "r0"),
                leave!(),
            )
        }
    };
}

forward_pass!(forward_2048, 2048);
forward_pass!(forward_256, 256);
forward_pass!(forward_32, 32);

/// Up to the products of the last of three inverse layers. Afterwards places
/// 0-7 are in r0 r3 r6 r5 r4 r7 r2 r1, the latter four yet to be multiplied.
#[rustfmt::skip]
macro_rules! inverse_layers {
    () => {
        concat!(
            sum!("r0", "r1"), sum!("r2", "r3"),
            factor!(24), times!("r1"),
            factor!(32), times_sum!("r1", "r3"),
            // Place 1 in r3, place 3 in r1.
            sum!("r0", "r2"),
            factor!(8), times!("r2"), times!("r1"),
            sum!("r4", "r5"), sum!("r6", "r7"),
            factor!(40), times!("r5"),
            factor!(48), times_sum!("r5", "r7"),
            // Place 5 in r7, place 7 in r5.
            sum!("r4", "r6"),
            factor!(16), times_sum!("r2", "r6"), times_sum!("r1", "r5"),
            // Place 2 in r6, 6 in r2, 3 in r5, 7 in r1.
            sum!("r0", "r4"), sum!("r3", "r7"),
            factor!(0), times!("r4"), times!("r7"), times!("r2"), times!("r1"),
        )
    };
}

#[rustfmt::skip]
macro_rules! inverse_pass {
    ($name:ident, $stride:tt) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut u32, factors: &Factors, q: i32, end: *mut u32) {
            naked_asm!(
                dsp!(),
                enter!(),
                "2:",
                load!($stride),
                inverse_layers!(),
                barrett!(),
                centre!("r0"), centre!("r3"),
                store!($stride, "r0" "r3" "r6" "r5" "r4" "r7" "r2" "r1"),
                leave!(),
            )
        }
    };
}

inverse_pass!(inverse_32, 32);
inverse_pass!(inverse_256, 256);
inverse_pass!(inverse_2048, 2048);

/// The last pass of 4096 points: sums are multiplied too, and all is reduced.
#[rustfmt::skip]
#[unsafe(naked)]
unsafe extern "C" fn inverse_last(block: *mut u32, factors: &Factors, q: i32, end: *mut u32) {
    naked_asm!(
        dsp!(),
        enter!(),
        "2:",
        load!(2048),
        inverse_layers!(),
        canon!("r4"), canon!("r7"), canon!("r2"), canon!("r1"),
        factor!(56),
        times!("r0"), canon!("r0"), times!("r3"), canon!("r3"),
        times!("r6"), canon!("r6"), times!("r5"), canon!("r5"),
        store!(2048, "r0" "r3" "r6" "r5" "r4" "r7" "r2" "r1"),
        leave!(),
    )
}

/// Operands of the passes over neighbours.
///
/// Column `i` of eight words uses `z[count + i]`, two and four entries. Its
/// address `p` grows by 32 while those of the entries grow by 4, 8 and 16, so
/// each is a constant plus `p` shifted right by 3, 2 or 1.
#[repr(C)]
struct Neighbours {
    data: *mut u32,
    end: *mut u32,
    q: i32,
    neg_inv: i32,
    barrett: i32,
    z1: usize,
    z2: usize,
    z4: usize,
}

impl Neighbours {
    /// `z` is the whole table, as long as `data`, eight or more.
    fn new(data: &mut [u32], z: &[i32], m: &Constants) -> Self {
        let range = data.as_mut_ptr_range();
        let (at, z0) = (range.start as usize, z.as_ptr() as usize);
        let bytes = size_of_val(data);
        Self {
            data: range.start,
            end: range.end,
            q: m.q,
            neg_inv: m.neg_inv,
            barrett: m.barrett,
            z1: (z0 + (bytes >> 3)).wrapping_sub(at >> 3),
            z2: (z0 + (bytes >> 2)).wrapping_sub(at >> 2),
            z4: (z0 + (bytes >> 1)).wrapping_sub(at >> 1),
        }
    }
}

/// r8 the column, r9 q, r11 -q^-1; on the stack the end, the Barrett constant
/// and the addresses of the tables.
#[rustfmt::skip]
macro_rules! enter_neighbours {
    () => {
        "push {{r4-r11, lr}}
         sub sp, sp, #20
         ldm r0, {{r1-r8}}
         mov r9, r3
         mov r11, r4
         stm sp, {{r2, r5-r8}}
         mov r8, r1"
    };
}

#[rustfmt::skip]
macro_rules! leave_neighbours {
    () => {
        "ldr r12, [sp]
         cmp r8, r12
         bne 2b
         add sp, sp, #20
         pop {{r4-r11, pc}}"
    };
}

/// Entry of the first table to r10.
#[rustfmt::skip]
macro_rules! entry1 {
    () => {
        "ldr r10, [sp, #8]
         add r10, r10, r8, lsr #3
         ldr r10, [r10]\n"
    };
}

/// Entry 0 or 1 of the second table to r10.
#[rustfmt::skip]
macro_rules! entry2 {
    ($i:literal) => {
        concat!("ldr r10, [sp, #12]\n add r10, r10, r8, lsr #2\n ldr r10, [r10, #4*", $i, "]\n")
    };
}

/// Address of the third table's entries to lr.
#[rustfmt::skip]
macro_rules! entries4 {
    () => {
        "ldr lr, [sp, #16]
         add lr, lr, r8, lsr #1\n"
    };
}

#[rustfmt::skip]
macro_rules! entry4 {
    () => {
        "ldr r10, [lr], #4\n"
    };
}

/// The last three forward layers, and the reduction.
#[rustfmt::skip]
#[unsafe(naked)]
unsafe extern "C" fn forward_neighbours(operands: &Neighbours) {
    naked_asm!(
        dsp!(),
        enter_neighbours!(),
        "2:",
        "ldm r8, {{r0-r7}}",
        entry1!(),
        ct_mont!("r0", "r4", "lr"), ct_mont!("r1", "r5", "lr"),
        ct_mont!("r2", "r6", "lr"), ct_mont!("r3", "r7", "r10"),
        entry2!(0),
        ct_mont!("r0", "r2", "lr"), ct_mont!("r1", "r3", "r10"),
        entry2!(1),
        ct_mont!("r4", "r6", "lr"), ct_mont!("r5", "r7", "r10"),
        entries4!(),
        entry4!(), ct_mont!("r0", "r1", "r10"),
        entry4!(), ct_mont!("r2", "r3", "r10"),
        entry4!(), ct_mont!("r4", "r5", "r10"),
        entry4!(), ct_mont!("r6", "r7", "r10"),
        "ldr r10, [sp, #4]",
        reduce!("r0"), reduce!("r1"), reduce!("r2"), reduce!("r3"),
        reduce!("r4"), reduce!("r5"), reduce!("r6"), reduce!("r7"),
        "stm r8!, {{r0-r7}}",
        leave_neighbours!(),
    )
}

/// The first three inverse layers.
#[rustfmt::skip]
#[unsafe(naked)]
unsafe extern "C" fn inverse_neighbours(operands: &Neighbours) {
    naked_asm!(
        dsp!(),
        enter_neighbours!(),
        "2:",
        "ldm r8, {{r0-r7}}",
        entries4!(),
        entry4!(), gs_mont!("r0", "r1", "r10"),
        entry4!(), gs_mont!("r2", "r3", "r10"),
        entry4!(), gs_mont!("r4", "r5", "r10"),
        entry4!(), gs_mont!("r6", "r7", "r10"),
        entry2!(0),
        gs_mont!("r0", "r2", "lr"), gs_mont!("r1", "r3", "r10"),
        entry2!(1),
        gs_mont!("r4", "r6", "lr"), gs_mont!("r5", "r7", "r10"),
        entry1!(),
        gs_mont!("r0", "r4", "lr"), gs_mont!("r1", "r5", "lr"),
        gs_mont!("r2", "r6", "lr"), gs_mont!("r3", "r7", "r10"),
        "ldr r10, [sp, #4]",
        centre!("r0"), centre!("r1"),
        "stm r8!, {{r0-r7}}",
        leave_neighbours!(),
    )
}

/// The pass whose column has a stride of `eighth` words.
fn pass_of(eighth: usize, passes: [Pass; 3]) -> Option<Pass> {
    let [p2048, p256, p32] = passes;
    match eighth {
        512 => Some(p2048),
        64 => Some(p256),
        8 => Some(p32),
        _ => None,
    }
}

/// Runs `pass` over the blocks of 8 `eighth` words.
fn run(
    pass: Pass,
    data: &mut [u32],
    eighth: usize,
    z: &[i32],
    m: &Constants,
    adjust: impl Fn(&mut Factors),
) {
    let log_block = eighth.trailing_zeros() + 3;
    let count = data.len() >> log_block;
    let tables = (
        z.get(count..2 * count),
        z.get(2 * count..4 * count),
        z.get(4 * count..8 * count),
    );
    let (Some(z1), Some(z2), Some(z4)) = tables else {
        return;
    };
    let (z2, _) = z2.as_chunks::<2>();
    let (z4, _) = z4.as_chunks::<4>();
    let blocks = data.chunks_exact_mut(1 << log_block);
    for (block, ((&z1, &z2), &z4)) in blocks.zip(z1.iter().zip(z2).zip(z4)) {
        let mut factors = Factors::new(m, z1, z2, z4);
        adjust(&mut factors);
        let range = block.as_mut_ptr();
        // SAFETY: the block has eight times `eighth` words; the pass, chosen for
        // this stride, reads and writes exactly these: columns from the first
        // up to, not including, the one `eighth` words on.
        unsafe { pass(range, &factors, m.q, range.add(eighth)) };
    }
}

/// One layer by itself: halves of `2 half` words. For what the passes of three
/// layers leave, and for large moduli (`REDUCE`).
#[inline(always)]
fn layer(data: &mut [u32], half: usize, z: &[i32], f: impl Fn(i32, i32, i32) -> (i32, i32)) {
    let log_block = half.trailing_zeros() + 1;
    let count = data.len() >> log_block;
    let Some(z) = z.get(count..2 * count) else {
        return;
    };
    for (block, &z) in data.chunks_exact_mut(1 << log_block).zip(z) {
        let (low, high) = block.split_at_mut_checked(half).unwrap_or_default();
        for (x, y) in low.iter_mut().zip(high) {
            let (a, b) = f(*x as i32, *y as i32, z);
            (*x, *y) = (a as u32, b as u32);
        }
    }
}

/// Layers that the passes take, of `log2 n`: three by neighbours, and three
/// more up to three times. What is left, of large distance, goes one by one.
fn single_layers(n: usize, m: &Modulus) -> u32 {
    let layers = n.trailing_zeros();
    if m.value() > MAX_UNREDUCED || layers < 3 {
        layers
    } else {
        match layers - 3 {
            0 | 3 | 6 | 9 => 0,
            1 | 4 | 7 | 10 => 1,
            2 | 5 | 8 | 11 => 2,
            more => more - 9,
        }
    }
}

/// Negacyclic forward NTT in place; canonical residues in natural order in,
/// in bit-reversed order out.
///
/// `data` has a power-of-two length `n` from 2 to 2^14, and
/// `z[k] = psi^brv(k) R mod q`, centred, has as many entries.
///
/// Bounds as in the portable kernel: a value grows by at most `0.75 q + 1`
/// per layer; above [`MAX_UNREDUCED`] each layer's sums are reduced first
/// (`0.5 + 0.75 < 2`).
pub fn forward(data: &mut [u32], m: &Modulus, z: &[i32]) {
    let n = data.len();
    if !n.is_power_of_two() || z.len() < n {
        return;
    }
    let c = Constants::new(m);
    let single = single_layers(n, m);
    let mut half = n >> 1;
    for _ in 0..single {
        if m.value() > MAX_UNREDUCED {
            layer(data, half, z, |a, b, z| {
                let (a, t) = (m.centre(a), m.mont(b, z));
                (a + t, a - t)
            });
        } else {
            layer(data, half, z, |a, b, z| {
                let t = m.mont(b, z);
                (a + t, a - t)
            });
        }
        half >>= 1;
    }
    let mut eighth = half >> 2;
    while let Some(pass) = pass_of(eighth, [forward_2048, forward_256, forward_32]) {
        run(pass, data, eighth, z, &c, |_| ());
        eighth >>= 3;
    }
    if eighth == 1 {
        let operands = Neighbours::new(data, z, &c);
        // SAFETY: `data` and `z` have the same power-of-two length of at least
        // eight; column `i` of `n / 8` reads z[n/8 + i], z[n/4 + 2i ..][..2] and
        // z[n/2 + 4i ..][..4], all below `n`.
        unsafe { forward_neighbours(&operands) };
    } else {
        for x in data {
            *x = m.reduce(*x as i32);
        }
    }
}

/// Inverse of [`forward`], multiplied by `scale` in Montgomery form (`n^-1 R`
/// for the inverse itself).
///
/// `z[k] = psi^-brv(k) R mod q`, centred.
///
/// Bounds, for `q <= MAX_UNREDUCED`, in units of `q`, with `u = q / 2^33 <
/// 0.0217`: let a pass of three layers take values up to `B`. Its sums reach
/// `8 B`, a product of a difference up to `x` is at most `0.5 + x u` (and a
/// rounding of 1, `q` being large in comparison). Of the outputs, place 0, a sum
/// of eight, and place 1, of four products, are reduced to 0.75; places 2 and 3
/// are sums of two products of differences up to `4 B`: `1 + 8 B u`; places 4 to
/// 7 are products, below 1. So `B = 1.22` is kept (`1 + 8 * 1.22 * 0.0217 <
/// 1.22`), and `8 B = 9.76 < 11.5 <= 2^31 / q`. Two single layers after that:
/// `4 B`. Above `MAX_UNREDUCED` each layer centres its inputs, and sums reach
/// `q + 2`.
pub fn inverse(data: &mut [u32], m: &Modulus, z: &[i32], scale: i32) {
    let n = data.len();
    if !n.is_power_of_two() || z.len() < n {
        return;
    }
    let c = Constants::new(m);
    let single = single_layers(n, m);
    let scale = m.centre(scale);
    let mut half = 1;
    if single < n.trailing_zeros() {
        let operands = Neighbours::new(data, z, &c);
        // SAFETY: as in `forward`: here `n` is at least eight.
        unsafe { inverse_neighbours(&operands) };
        let mut eighth = 8;
        if n == 4096 {
            run(inverse_32, data, 8, z, &c, |_| ());
            run(inverse_256, data, 64, z, &c, |_| ());
            run(inverse_last, data, 512, z, &c, |f| {
                if let Some(&z1) = z.get(1) {
                    f.layer[0] = Factor::new(&c, m.centre(m.mont(z1, scale)));
                }
                f.sums = Factor::new(&c, scale);
            });
            return;
        }
        while 8 * eighth <= n
            && let Some(pass) = pass_of(eighth, [inverse_2048, inverse_256, inverse_32])
        {
            run(pass, data, eighth, z, &c, |_| ());
            eighth <<= 3;
        }
        half = eighth;
    }
    for _ in 0..single {
        if m.value() > MAX_UNREDUCED {
            layer(data, half, z, |a, b, z| {
                let (a, b) = (m.centre(a), m.centre(b));
                (a + b, m.mont(a - b, z))
            });
        } else {
            layer(data, half, z, |a, b, z| (a + b, m.mont(a - b, z)));
        }
        half <<= 1;
    }
    for x in data {
        *x = m.canon(m.mont(*x as i32, scale));
    }
}
