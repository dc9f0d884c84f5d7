//! Kernels for Cortex-M processors with DSP instructions (M4, M7, and M33 where
//! it has them): three NTT layers merged in one pass, eight values in registers.
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
//! transform are those written in [`MAX_UNREDUCED`]. All of it may be computed
//! modulo 2^32, and the addition of a butterfly is free: `a + b w` is one `mla`,
//! `- h q` one `mls`, and `a - t = 2 a - (a + t)` one `rsb` with a shifted
//! operand: four instructions a butterfly.
//!
//! With `w = 1` (`z = R mod q`) the same two steps, `smmulr` and `mls`, are a
//! Barrett reduction of any `i32` to `0.75 q + 1`.
//!
//! Where a factor is used once or twice, in the layers of neighbours, a
//! Montgomery product (three instructions, no preparation) is cheaper.

use crate::arith::Modulus;
use core::arch::{asm, naked_asm};

/// Largest modulus for the passes of three layers.
///
/// Forward: `(1 + 14 * 0.75) q + 15 < 2^31`, as in the portable kernel.
/// Inverse: see [`inverse`]. Larger moduli are transformed layer by layer.
pub const MAX_UNREDUCED: u32 = 186_000_000;

/// `round(a b / 2^32)`.
#[inline(always)]
fn smmulr(a: i32, b: i32) -> i32 {
    let h;
    // SAFETY: an instruction that computes a register from two registers.
    unsafe {
        asm!("smmulr {h}, {a}, {b}", h = out(reg) h, a = in(reg) a, b = in(reg) b,
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
}

// Assembly.
//
// Registers of all passes: r0-r7 values, r8 the column, r9 q, r10-r12 and lr
// as said. A pass gets its block, its factors and its end from `Pass`.

/// Shoup butterfly `(a + w b, a - w b)`, `w` in r10 and `k` in r11; the sum
/// comes to `b`, the difference to `a`. Uses r12.
macro_rules! ct {
    ($a:literal, $b:literal) => {
        concat!(
            "smmulr r12, ", $b, ", r11\n", "mla ", $b, ", ", $b, ", r10, ", $a, "\n",
            "mls ", $b, ", r12, r9, ", $b, "\n", "rsb ", $a, ", ", $b, ", ", $a, ", lsl #1\n",
        )
    };
}

/// `(a + b, a - b)` in place.
macro_rules! sum {
    ($a:literal, $b:literal) => {
        concat!(
            "sub ", $b, ", ", $a, ", ", $b, "\n", "rsb ", $a, ", ", $b, ", ", $a, ", lsl #1\n",
        )
    };
}

/// `b = b w`, factor in r10 and r11. Uses r12.
macro_rules! times {
    ($b:literal) => {
        concat!(
            "smmulr r12, ", $b, ", r11\n", "mul ", $b, ", ", $b, ", r10\n",
            "mls ", $b, ", r12, r9, ", $b, "\n",
        )
    };
}

/// `(a + b w, a - b w)` as [`ct`]: the product of the inverse transform, when
/// the next layer adds it to the product `a`.
macro_rules! times_sum {
    ($a:literal, $b:literal) => {
        ct!($a, $b)
    };
}

/// Montgomery product `b = b z / R`: z in r10, -q^-1 in r11; uses r12 and `m`
/// (which may be r10 if it is needed no more).
macro_rules! mont {
    ($b:literal, $m:literal) => {
        concat!(
            "smull r12, ", $b, ", ", $b, ", r10\n", "mul ", $m, ", r12, r11\n",
            "smlal r12, ", $b, ", ", $m, ", r9\n",
        )
    };
}

/// Forward butterfly in place with a Montgomery product.
macro_rules! ct_mont {
    ($a:literal, $b:literal, $m:literal) => {
        concat!(
            mont!($b, $m), "add ", $a, ", ", $a, ", ", $b, "\n",
            "sub ", $b, ", ", $a, ", ", $b, ", lsl #1\n",
        )
    };
}

/// Inverse butterfly in place with a Montgomery product.
macro_rules! gs_mont {
    ($a:literal, $b:literal, $m:literal) => {
        concat!(sum!($a, $b), mont!($b, $m))
    };
}

/// Barrett reduction, constant in r10. Uses r12.
macro_rules! centre {
    ($x:literal) => {
        concat!("smmulr r12, ", $x, ", r10\n", "mls ", $x, ", r12, r9, ", $x, "\n")
    };
}

/// `-q < x < q` to its residue. Uses r12.
macro_rules! canon {
    ($x:literal) => {
        concat!("and r12, r9, ", $x, ", asr #31\n", "add ", $x, ", ", $x, ", r12\n")
    };
}

macro_rules! reduce {
    ($x:literal) => {
        concat!(centre!($x), canon!($x))
    };
}

/// Entry of a pass: r0 block, r1 eight factors, r2 q, r3 end of the first
/// eighth. Puts the factors on the stack, for `factor!`.
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

macro_rules! leave {
    () => {
        "cmp r8, lr
         bne 2b
         add sp, sp, #68
         pop {{r4-r11, pc}}"
    };
}

/// Factor `i` to r10 and r11.
macro_rules! factor {
    ($offset:literal) => {
        concat!("ldrd r10, r11, [sp, #", $offset, "]\n")
    };
}

/// The Barrett constant to r10.
macro_rules! barrett {
    () => {
        "ldr r10, [sp, #64]\n"
    };
}

/// Loads a column of eight values `stride` bytes apart.
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

macro_rules! forward_pass {
    ($name:ident, $stride:tt) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut u32, factors: &Factors, q: i32, end: *mut u32) {
            naked_asm!(
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

macro_rules! inverse_pass {
    ($name:ident, $stride:tt) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(block: *mut u32, factors: &Factors, q: i32, end: *mut u32) {
            naked_asm!(
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
#[unsafe(naked)]
unsafe extern "C" fn inverse_last(block: *mut u32, factors: &Factors, q: i32, end: *mut u32) {
    naked_asm!(
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
            z1: (z0 + bytes / 8).wrapping_sub(at >> 3),
            z2: (z0 + bytes / 4).wrapping_sub(at >> 2),
            z4: (z0 + bytes / 2).wrapping_sub(at >> 1),
        }
    }
}

/// r8 the column, r9 q, r11 -q^-1; on the stack the end, the Barrett constant
/// and the addresses of the tables.
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
macro_rules! entry1 {
    () => {
        "ldr r10, [sp, #8]
         add r10, r10, r8, lsr #3
         ldr r10, [r10]\n"
    };
}

/// Entry 0 or 1 of the second table to r10.
macro_rules! entry2 {
    ($i:literal) => {
        concat!("ldr r10, [sp, #12]\n add r10, r10, r8, lsr #2\n ldr r10, [r10, #4*", $i, "]\n")
    };
}

/// Address of the third table's entries to lr.
macro_rules! entries4 {
    () => {
        "ldr lr, [sp, #16]
         add lr, lr, r8, lsr #1\n"
    };
}

macro_rules! entry4 {
    () => {
        "ldr r10, [lr], #4\n"
    };
}

/// The last three forward layers, and the reduction.
#[unsafe(naked)]
unsafe extern "C" fn forward_neighbours(operands: &Neighbours) {
    naked_asm!(
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
#[unsafe(naked)]
unsafe extern "C" fn inverse_neighbours(operands: &Neighbours) {
    naked_asm!(
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
    let count = data.len() >> (eighth.trailing_zeros() + 3);
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
    let blocks = data.chunks_exact_mut(8 * eighth);
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
fn layer(
    data: &mut [u32],
    half: usize,
    z: &[i32],
    f: impl Fn(i32, i32, i32) -> (i32, i32),
) {
    let count = data.len() >> (half.trailing_zeros() + 1);
    let Some(z) = z.get(count..2 * count) else {
        return;
    };
    for (block, &z) in data.chunks_exact_mut(2 * half).zip(z) {
        let (low, high) = block.split_at_mut(half);
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
/// Bounds as in the portable kernel: a value grows by at most `0.75 q + 1` a
/// layer; above [`MAX_UNREDUCED`] each layer's sums are reduced first
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

/// `a = f(a, b)`, four at a time and the rest.
#[inline(always)]
fn map2(a: &mut [u32], b: &[u32], f: impl Fn(u32, u32) -> u32) {
    let n = a.len().min(b.len());
    let (a, a_rest) = a.get_mut(..n).unwrap_or_default().as_chunks_mut::<4>();
    let (b, b_rest) = b.get(..n).unwrap_or_default().as_chunks::<4>();
    for (a, b) in a.iter_mut().zip(b) {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (*a, *b);
        *a = [f(a0, b0), f(a1, b1), f(a2, b2), f(a3, b3)];
    }
    for (a, &b) in a_rest.iter_mut().zip(b_rest) {
        *a = f(*a, b);
    }
}

/// `a = f(a, b, c)`, four at a time and the rest.
#[inline(always)]
fn map3(a: &mut [u32], b: &[u32], c: &[u32], f: impl Fn(u32, u32, u32) -> u32) {
    let n = a.len().min(b.len()).min(c.len());
    let (a, a_rest) = a.get_mut(..n).unwrap_or_default().as_chunks_mut::<4>();
    let (b, b_rest) = b.get(..n).unwrap_or_default().as_chunks::<4>();
    let (c, c_rest) = c.get(..n).unwrap_or_default().as_chunks::<4>();
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (*a, *b);
        let [c0, c1, c2, c3] = *c;
        *a = [f(a0, b0, c0), f(a1, b1, c1), f(a2, b2, c2), f(a3, b3, c3)];
    }
    for ((a, &b), &c) in a_rest.iter_mut().zip(b_rest).zip(c_rest) {
        *a = f(*a, b, c);
    }
}

impl Constants {
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

/// `acc += a * b`, with `b` in Montgomery form.
pub fn mul_acc(acc: &mut [u32], a: &[u32], b_mont: &[u32], m: &Modulus) {
    let m = Constants::new(m);
    // Between -q and 2q.
    map3(acc, a, b_mont, |x, a, b| m.reduce(x as i32 + m.mont(a, b)));
}

/// `acc0 += a0 * b` and `acc1 += a1 * b`, with `b` in Montgomery form: both
/// halves of a ciphertext or of a key.
pub fn mul_acc_two(
    acc0: &mut [u32],
    acc1: &mut [u32],
    a0: &[u32],
    a1: &[u32],
    b_mont: &[u32],
    m: &Modulus,
) {
    let n = acc0.len().min(acc1.len()).min(b_mont.len());
    let n = n.min(a0.len()).min(a1.len());
    let c = Constants::new(m);
    if n >= 2 {
        // SAFETY: all five have `n` words, of which an even number is taken.
        unsafe {
            mul_acc_pairs(&MulAcc {
                acc: [acc0.as_mut_ptr(), acc1.as_mut_ptr()],
                a: [a0.as_ptr(), a1.as_ptr()],
                b: b_mont.as_ptr(),
                c,
                end: b_mont.as_ptr().add(n & !1),
            });
        }
    }
    for (acc, a) in [(acc0, a0), (acc1, a1)] {
        let rest = (acc.get_mut(n & !1..n), a.get(n & !1..n), b_mont.get(n & !1..n));
        if let (Some(acc), Some(a), Some(b)) = rest {
            map3(acc, a, b, |x, a, b| c.reduce(x as i32 + c.mont(a, b)));
        }
    }
}

/// Operands of [`mul_acc_pairs`].
#[repr(C)]
struct MulAcc {
    acc: [*mut u32; 2],
    a: [*const u32; 2],
    b: *const u32,
    c: Constants,
    end: *const u32,
}

/// Two words of `a` in r10, r11 times those of `b` in r8, r9, added to two words
/// of the accumulator. The sum is between -q and 2q before it is reduced.
macro_rules! mul_acc_pair {
    ($acc:literal, $a:literal) => {
        concat!(
            "ldrd r10, r11, [", $a, "], #8\n",
            "smull r12, r10, r10, r8\n mul lr, r12, r6\n smlal r12, r10, lr, r5\n",
            "smull r12, r11, r11, r9\n mul lr, r12, r6\n smlal r12, r11, lr, r5\n",
            "ldrd r12, lr, [", $acc, "]\n",
            "add r10, r10, r12\n add r11, r11, lr\n",
            "smmulr r12, r10, r7\n smmulr lr, r11, r7\n",
            "mls r10, r12, r5, r10\n mls r11, lr, r5, r11\n",
            "and r12, r5, r10, asr #31\n and lr, r5, r11, asr #31\n",
            "add r10, r10, r12\n add r11, r11, lr\n",
            "strd r10, r11, [", $acc, "], #8\n",
        )
    };
}

/// r0-r4 the five pointers, r5 q, r6 -q^-1, r7 the Barrett constant.
#[unsafe(naked)]
unsafe extern "C" fn mul_acc_pairs(operands: &MulAcc) {
    naked_asm!(
        "push {{r0, r4-r11, lr}}",
        "ldr r12, [r0, #32]",
        "str r12, [sp]",
        "ldm r0, {{r0-r7}}",
        "2:",
        "ldrd r8, r9, [r4], #8",
        mul_acc_pair!("r0", "r2"),
        mul_acc_pair!("r1", "r3"),
        "ldr r12, [sp]",
        "cmp r4, r12",
        "bne 2b",
        "pop {{r0, r4-r11, pc}}",
    )
}

/// `a -= b * c`, with `c` in Montgomery form.
pub fn mul_sub(a: &mut [u32], b: &[u32], c_mont: &[u32], m: &Modulus) {
    let m = Constants::new(m);
    map3(a, b, c_mont, |x, b, c| m.reduce(x as i32 - m.mont(b, c)));
}

/// `a *= b`, with `b` in Montgomery form.
pub fn mul(a: &mut [u32], b_mont: &[u32], m: &Modulus) {
    let m = Constants::new(m);
    map2(a, b_mont, |a, b| m.canon(m.mont(a, b)));
}

/// Operands of the loops over four words.
#[repr(C)]
struct Fours {
    /// Half of the source's modulus, and that modulus.
    half: u32,
    from: u32,
    src: *const u32,
    q: i32,
    factor: Factor,
    dst: *mut u32,
    end: *mut u32,
}

/// r6 and r7 the source's modulus, r8 the source, r9 q, r10 and r11 the factor,
/// lr the destination, its end on the stack; r0-r3 and r12 for the loop.
macro_rules! fours {
    ($name:ident, $($step:expr),+ $(,)?) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(operands: &Fours) {
            naked_asm!(
                "push {{r0, r4-r11, lr}}",
                "ldm r0!, {{r6-r11}}",
                "ldrd lr, r12, [r0]",
                "str r12, [sp]",
                "2:",
                $($step,)+
                "stm lr!, {{r0-r3}}",
                "ldr r12, [sp]",
                "cmp lr, r12",
                "bne 2b",
                "pop {{r0, r4-r11, pc}}",
            )
        }
    };
}

/// `x = x w`, canonical.
macro_rules! times_canon {
    ($x:literal) => {
        concat!(times!($x), canon!($x))
    };
}

macro_rules! centred {
    ($x:literal) => {
        concat!(
            "sub r12, r6, ", $x, "\n", "and r12, r7, r12, asr #31\n",
            "sub ", $x, ", ", $x, ", r12\n",
        )
    };
}

macro_rules! add_canon {
    ($x:literal, $y:literal) => {
        concat!(
            "sub ", $x, ", ", $x, ", r9\n", "add ", $x, ", ", $x, ", ", $y, "\n", canon!($x)
        )
    };
}

fours!(
    scale_fours,
    "ldm lr, {{r0-r3}}",
    times_canon!("r0"), times_canon!("r1"), times_canon!("r2"), times_canon!("r3"),
);

fours!(
    add_fours,
    "ldm lr, {{r0-r3}}",
    "ldm r8!, {{r4-r7}}",
    add_canon!("r0", "r4"), add_canon!("r1", "r5"),
    add_canon!("r2", "r6"), add_canon!("r3", "r7"),
);

fours!(
    sub_scale_fours,
    "ldm lr, {{r0-r3}}",
    "ldm r8!, {{r4-r7}}",
    "sub r0, r0, r4", "sub r1, r1, r5", "sub r2, r2, r6", "sub r3, r3, r7",
    times_canon!("r0"), times_canon!("r1"), times_canon!("r2"), times_canon!("r3"),
);

fours!(
    lift_fours,
    "ldm r8!, {{r0-r3}}",
    centred!("r0"), times_canon!("r0"),
    centred!("r1"), times_canon!("r1"),
    centred!("r2"), times_canon!("r2"),
    centred!("r3"), times_canon!("r3"),
);

/// Runs `fours` on as many words as there are fours in both, then `f` on each of
/// the rest.
#[inline(always)]
fn by_fours(
    fours: unsafe extern "C" fn(&Fours),
    dst: &mut [u32],
    src: &[u32],
    (half, from): (u32, u32),
    (q, factor): (i32, Factor),
    f: impl Fn(u32, u32) -> u32,
) {
    let n = dst.len().min(src.len());
    let whole = n & !3;
    if whole > 0 {
        // SAFETY: both have `whole` words, a multiple of four and not zero; the
        // loop reads them once, in order, and writes `dst`.
        unsafe {
            let (src, dst) = (src.as_ptr(), dst.as_mut_ptr());
            let end = dst.add(whole);
            fours(&Fours { half, from, src, q, factor, dst, end });
        }
    }
    if let (Some(dst), Some(src)) = (dst.get_mut(whole..n), src.get(whole..n)) {
        for (y, &x) in dst.iter_mut().zip(src) {
            *y = f(*y, x);
        }
    }
}

/// The factor of loops that have none.
const NONE: Factor = Factor { w: 0, k: 0 };

/// `a *= factor`, the factor in centred Montgomery form.
pub fn scale(a: &mut [u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    let whole = a.len() & !3;
    if let Some((fours, rest)) = a.split_at_mut_checked(whole) {
        if whole > 0 {
            let range = fours.as_mut_ptr_range();
            let (src, dst, end) = (range.start, range.start, range.end);
            let operands = Fours { half: 0, from: 0, src, q: m.q, factor: f, dst, end };
            // SAFETY: a multiple of four words, not zero, read and written.
            unsafe { scale_fours(&operands) };
        }
        for x in rest {
            *x = m.canon(f.times(*x as i32, m.q));
        }
    }
}

/// `a += b`.
pub fn add(a: &mut [u32], b: &[u32], m: &Modulus) {
    let m = Constants::new(m);
    by_fours(add_fours, a, b, (0, 0), (m.q, NONE), |a, b| {
        m.canon(a as i32 + b as i32 - m.q)
    });
}

/// `a = (a - b) * factor`, the factor in centred Montgomery form.
pub fn sub_scale(a: &mut [u32], b: &[u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    by_fours(sub_scale_fours, a, b, (0, 0), (m.q, f), |a, b| {
        m.canon(f.times(a as i32 - b as i32, m.q))
    });
}

/// In place `(a, b) -> (a^2, 2 a b)` and `c = b^2`: the square of a
/// two-part ciphertext.
pub fn square(a: &mut [u32], b: &mut [u32], c: &mut [u32], m: &Modulus) {
    let r2 = m.r2() as u32;
    let m = Constants::new(m);
    for ((x, y), z) in a.iter_mut().zip(b).zip(c) {
        let (a, b) = (*x, *y);
        // |mont(a, r2)| < q, so the second product is within the bound too.
        let (am, bm) = (m.mont(a, r2) as u32, m.mont(b, r2) as u32);
        *x = m.canon(m.mont(am, a));
        *z = m.canon(m.mont(bm, b));
        *y = m.reduce(2 * m.mont(am, b));
    }
}

/// Residues modulo `from`, centred and carried over to `m` times `factor`
/// (centred; `m.r()` leaves the value, `m.r2()` gives Montgomery form).
pub fn lift(src: &[u32], from: &Modulus, dst: &mut [u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    let source = (from.value() >> 1, from.value());
    by_fours(lift_fours, dst, src, source, (m.q, f), |_, x| {
        m.canon(f.times(from.centred(x), m.q))
    });
}

/// Integers carried over to `m` times `factor`, as in [`lift`].
pub fn lift_i32(src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    for (y, &x) in dst.iter_mut().zip(src) {
        *y = m.canon(f.times(x, m.q));
    }
}

/// Integers held in `f32` (rounded, below 2^31 in magnitude) carried over to
/// `m` times `factor`, as in [`lift`].
pub fn lift_f32(src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    for (y, &x) in dst.iter_mut().zip(src) {
        *y = m.canon(f.times(x as i32, m.q));
    }
}

/// Stages of the inverse special FFT (see [`crate::ckks::encode`]), from the
/// longest on; returns the length of the next one. `twiddles[len / 2 + j]`
/// belongs to stage `len`.
///
/// Two stages are merged in one pass; products are rounded before they are
/// added, so that the result is that of the portable code bit by bit.
pub fn fft_inverse(re: &mut [f32], im: &mut [f32], twiddles: &[[f32; 2]]) -> usize {
    let n = re.len();
    if !cfg!(target_abi = "eabihf") || im.len() != n || !n.is_power_of_two() || n > twiddles.len() {
        return n;
    }
    let mut len = n;
    #[cfg(target_abi = "eabihf")]
    while len >= 4 {
        let quarter = len >> 2;
        let places = |base: *mut f32| [0, 1, 2, 3].map(|i| base.wrapping_add(i * quarter));
        let entries = [1, 2, 3].map(|i| twiddles.as_ptr().wrapping_add(i * quarter));
        let operands = Fft {
            re: places(re.as_mut_ptr()),
            im: places(im.as_mut_ptr()),
            twiddles: entries,
            step: 3 * quarter * size_of::<f32>(),
            quarter,
            blocks: n / len,
        };
        // SAFETY: in each of `n / len` blocks, `step` bytes after each other
        // beyond what has been walked, the pass reads and writes `quarter`
        // numbers from each of four places, all of the block; of the table the
        // entries from `quarter` to `4 quarter <= n`.
        unsafe { fft_pass(&operands) };
        len >>= 2;
    }
    len
}

/// Operands of [`fft_pass`].
#[cfg(target_abi = "eabihf")]
#[repr(C)]
struct Fft {
    re: [*mut f32; 4],
    im: [*mut f32; 4],
    twiddles: [*const [f32; 2]; 3],
    step: usize,
    quarter: usize,
    blocks: usize,
}

/// One butterfly: `(a, b) -> (a + b, (a - b) conj(w))`. Uses s14, s15.
macro_rules! fft {
    ($ra:literal $ia:literal, $rb:literal $ib:literal, $c:literal $s:literal) => {
        concat!(
            "vsub.f32 s14, ", $ra, ", ", $rb, "\n", "vsub.f32 s15, ", $ia, ", ", $ib, "\n",
            "vadd.f32 ", $ra, ", ", $ra, ", ", $rb, "\n",
            "vadd.f32 ", $ia, ", ", $ia, ", ", $ib, "\n",
            "vmul.f32 ", $rb, ", s14, ", $c, "\n", "vmul.f32 ", $ib, ", s15, ", $s, "\n",
            "vadd.f32 ", $rb, ", ", $rb, ", ", $ib, "\n",
            "vmul.f32 ", $ib, ", s15, ", $c, "\n", "vmul.f32 s14, s14, ", $s, "\n",
            "vsub.f32 ", $ib, ", ", $ib, ", s14\n",
        )
    };
}

/// r0-r7 the places, r8-r10 the tables of the shorter stage and of the halves of
/// the longer one, r11 the step, r12 what is left of a block, lr of the blocks.
///
/// Not a naked function, whose assembly would not know of the FPU; so it saves
/// what a function may not name as clobbered.
///
/// # Safety
/// What `operands` point to must be there, see [`fft_inverse`].
#[cfg(target_abi = "eabihf")]
#[inline(never)]
unsafe fn fft_pass(operands: &Fft) {
    // SAFETY: the caller's; r4 to r11 and the stack are as before at the end.
    unsafe { asm!(
        "push {{r0, r4-r11}}",
        "ldrd r12, lr, [r0, #48]",
        "str r12, [sp]",
        "ldm r0, {{r0-r11}}",
        "2:",
        "ldr r12, [sp]",
        "3:",
        "vldr s0, [r0]", "vldr s1, [r1]", "vldr s2, [r2]", "vldr s3, [r3]",
        "vldr s4, [r4]", "vldr s5, [r5]", "vldr s6, [r6]", "vldr s7, [r7]",
        "vldmia r9!, {{s8, s9}}",
        fft!("s0" "s4", "s2" "s6", "s8" "s9"),
        "vldmia r10!, {{s10, s11}}",
        fft!("s1" "s5", "s3" "s7", "s10" "s11"),
        "vldmia r8!, {{s12, s13}}",
        fft!("s0" "s4", "s1" "s5", "s12" "s13"),
        fft!("s2" "s6", "s3" "s7", "s12" "s13"),
        "vstmia r0!, {{s0}}", "vstmia r1!, {{s1}}", "vstmia r2!, {{s2}}", "vstmia r3!, {{s3}}",
        "vstmia r4!, {{s4}}", "vstmia r5!, {{s5}}", "vstmia r6!, {{s6}}", "vstmia r7!, {{s7}}",
        "subs r12, r12, #1",
        "bne 3b",
        "ldr r12, [sp]",
        "sub r8, r8, r12, lsl #3", "sub r9, r9, r12, lsl #3", "sub r10, r10, r12, lsl #3",
        "add r0, r0, r11", "add r1, r1, r11", "add r2, r2, r11", "add r3, r3, r11",
        "add r4, r4, r11", "add r5, r5, r11", "add r6, r6, r11", "add r7, r7, r11",
        "subs lr, lr, #1",
        "bne 2b",
        "pop {{r0, r4-r11}}",
        inout("r0") operands => _, out("r1") _, out("r2") _, out("r3") _, out("r12") _, out("lr") _,
        out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _,
        out("s6") _, out("s7") _, out("s8") _, out("s9") _, out("s10") _, out("s11") _,
        out("s12") _, out("s13") _, out("s14") _, out("s15") _,
    ) }
}

/// Words of ChaCha with 8 rounds, 64-bit counter from 0 and a 64-bit nonce
/// (Bernstein, "ChaCha, a variant of Salsa20", 2008).
#[derive(Debug)]
pub struct Keystream {
    /// Constants, key, counter, nonce.
    state: [u32; 16],
}

impl Keystream {
    /// Words that [`Self::refill`] gives.
    pub const WORDS: usize = 64;

    /// The stream of `seed` numbered `stream`.
    #[must_use]
    pub fn new(seed: &[u8; 32], stream: u64) -> Self {
        let mut state = [0; 16];
        let (constants, key) = (*b"expand 32-byte k", *seed);
        let words = constants.as_chunks::<4>().0.iter().chain(key.as_chunks::<4>().0);
        for (s, &w) in state.iter_mut().zip(words) {
            *s = u32::from_le_bytes(w);
        }
        let [.., low, high] = &mut state;
        (*low, *high) = (stream as u32, (stream >> 32) as u32);
        Self { state }
    }

    /// The next words.
    pub fn refill(&mut self, out: &mut [u32; Self::WORDS]) {
        for block in out.as_chunks_mut::<16>().0 {
            // SAFETY: reads 16 words, writes 16 words.
            unsafe { chacha8(&self.state, block) };
            let [.., low, high, _, _] = &mut self.state;
            let carry;
            (*low, carry) = low.overflowing_add(1);
            *high = high.wrapping_add(u32::from(carry));
        }
    }
}

/// Quarter round. Rotations wait until an operand is shifted anyway: rows `b`
/// and `d` are held as words to be rotated right by amounts that depend on the
/// round alone. `$b0` is that of row b on entry and `$n0` its complement to 32,
/// `$b1`, `$n1` those after the first rotation of b, likewise for row d.
macro_rules! quarter {
    ($a:literal $b:literal $c:literal $d:literal, $b0:literal $n0:literal $b1:literal $n1:literal, $e0:literal $d1:literal $e1:literal $d2:literal) => {
        concat!(
            "add ", $a, ", ", $a, ", ", $b, ", ror #", $b0, "\n",
            "eor ", $d, ", ", $d, ", ", $a, ", ror #", $e0, "\n",
            "add ", $c, ", ", $c, ", ", $d, ", ror #", $d1, "\n",
            "eor ", $b, ", ", $b, ", ", $c, ", ror #", $n0, "\n",
            "add ", $a, ", ", $a, ", ", $b, ", ror #", $b1, "\n",
            "eor ", $d, ", ", $d, ", ", $a, ", ror #", $e1, "\n",
            "add ", $c, ", ", $c, ", ", $d, ", ror #", $d2, "\n",
            "eor ", $b, ", ", $b, ", ", $c, ", ror #", $n1, "\n",
        )
    };
}

/// Two rounds: first on columns, then on diagonals. Of row c two words are in
/// r12 and lr, the other two on the stack.
macro_rules! double_round {
    ($b0:literal $n0:literal $b1:literal $n1:literal, $e0:literal $d1:literal $e1:literal $d2:literal;
     $b2:literal $n2:literal $b3:literal $n3:literal, $e2:literal $d3:literal $e3:literal $d4:literal) => {
        concat!(
            quarter!("r0" "r4" "r12" "r8", $b0 $n0 $b1 $n1, $e0 $d1 $e1 $d2),
            quarter!("r1" "r5" "lr" "r9", $b0 $n0 $b1 $n1, $e0 $d1 $e1 $d2),
            "strd r12, lr, [sp]\n ldrd r12, lr, [sp, #8]\n",
            quarter!("r2" "r6" "r12" "r10", $b0 $n0 $b1 $n1, $e0 $d1 $e1 $d2),
            quarter!("r3" "r7" "lr" "r11", $b0 $n0 $b1 $n1, $e0 $d1 $e1 $d2),
            quarter!("r0" "r5" "r12" "r11", $b2 $n2 $b3 $n3, $e2 $d3 $e3 $d4),
            quarter!("r1" "r6" "lr" "r8", $b2 $n2 $b3 $n3, $e2 $d3 $e3 $d4),
            "strd r12, lr, [sp, #8]\n ldrd r12, lr, [sp]\n",
            quarter!("r2" "r7" "r12" "r9", $b2 $n2 $b3 $n3, $e2 $d3 $e3 $d4),
            quarter!("r3" "r4" "lr" "r10", $b2 $n2 $b3 $n3, $e2 $d3 $e3 $d4),
        )
    };
}

/// One block. Stack: row c, row d at the end, the two arguments.
#[unsafe(naked)]
unsafe extern "C" fn chacha8(state: &[u32; 16], out: &mut [u32; 16]) {
    naked_asm!(
        "push {{r0, r1, r4-r11, lr}}",
        "sub sp, sp, #36",
        "mov r12, r0",
        "ldm r12!, {{r0-r7}}",
        "ldm r12!, {{r8-r11}}",
        "stm sp, {{r8-r11}}",
        "ldm r12, {{r8-r11}}",
        "ldrd r12, lr, [sp]",
        double_round!(0 0 20 12, 0 16 16 8; 13 19 1 31, 24 24 8 16),
        double_round!(26 6 14 18, 16 0 0 24; 7 25 27 5, 8 8 24 0),
        double_round!(20 12 8 24, 0 16 16 8; 1 31 21 11, 24 24 8 16),
        double_round!(14 18 2 30, 16 0 0 24; 27 5 15 17, 8 8 24 0),
        "strd r12, lr, [sp]",
        "add r12, sp, #16",
        "stm r12, {{r8-r11}}",
        "ldrd r12, lr, [sp, #36]",
        "ldm r12!, {{r8-r11}}",
        "add r0, r0, r8", "add r1, r1, r9", "add r2, r2, r10", "add r3, r3, r11",
        "ldm r12!, {{r8-r11}}",
        "add r4, r8, r4, ror #8", "add r5, r9, r5, ror #8",
        "add r6, r10, r6, ror #8", "add r7, r11, r7, ror #8",
        "stm lr!, {{r0-r7}}",
        "ldm sp, {{r0-r7}}",
        "ldm r12!, {{r8-r11}}",
        "add r0, r0, r8", "add r1, r1, r9", "add r2, r2, r10", "add r3, r3, r11",
        "ldm r12, {{r8-r11}}",
        "add r4, r4, r8", "add r5, r5, r9", "add r6, r6, r10", "add r7, r7, r11",
        "stm lr, {{r0-r7}}",
        "add sp, sp, #44",
        "pop {{r4-r11, pc}}",
    )
}
