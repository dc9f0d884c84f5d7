//! Products, sums and lifts, coefficient by coefficient.

use super::{Constants, Factor};
use crate::arith::Modulus;
#[cfg(target_abi = "eabihf")]
use core::arch::asm;
use core::arch::naked_asm;

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

/// Operands of [`accumulate_eights`] and [`subtract_eights`].
#[repr(C)]
struct Products {
    acc: *mut u32,
    a: *const u32,
    b: *const u32,
    c: Constants,
    end: *const u32,
}

/// Two words of the accumulator plus or minus two products, canonical.
///
/// The accumulator is the upper half of a 64-bit sum, to which the product of a
/// Montgomery multiplication is added: its lower half, r12, is zero before and
/// after. `$sign` may change that of the first factors, r8 and r9. The sum is between -q and 2q before it is reduced.
#[rustfmt::skip]
macro_rules! products_pair {
    ($sign:expr) => {
        concat!(
            "ldrd r6, r7, [r2], #8\n ldrd r8, r9, [r1], #8\n ldrd r10, r11, [r0]\n",
            $sign,
            "smlal r12, r10, r8, r6\n mul r6, r12, r4\n smlal r12, r10, r6, r3\n",
            "smlal r12, r11, r9, r7\n mul r7, r12, r4\n smlal r12, r11, r7, r3\n",
            "smmulr r6, r10, r5\n smmulr r7, r11, r5\n",
            "mls r10, r6, r3, r10\n mls r11, r7, r3, r11\n",
            "and r6, r3, r10, asr #31\n and r7, r3, r11, asr #31\n",
            "add r10, r10, r6\n add r11, r11, r7\n",
            "strd r10, r11, [r0], #8\n",
        )
    };
}

/// r0-r2 the accumulator and the factors, r3 q, r4 -q^-1, r5 the Barrett
/// constant, lr the end of the second factors.
#[rustfmt::skip]
macro_rules! products {
    ($name:ident, $sign:expr) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(operands: &Products) {
            naked_asm!(
                dsp!(),
                "push {{r4-r11, lr}}",
                "ldr lr, [r0, #24]",
                "ldm r0, {{r0-r5}}",
                "mov r12, #0",
                "2:",
                products_pair!($sign),
                products_pair!($sign),
                products_pair!($sign),
                products_pair!($sign),
                "cmp r2, lr",
                "bne 2b",
                "pop {{r4-r11, pc}}",
            )
        }
    };
}

products!(accumulate_eights, "");
products!(subtract_eights, "rsb r8, r8, #0\n rsb r9, r9, #0\n");

/// Runs `eights` on as many words as there are eights, then `f` on the rest.
#[inline(always)]
fn products(
    eights: unsafe extern "C" fn(&Products),
    acc: &mut [u32],
    a: &[u32],
    b: &[u32],
    c: Constants,
    f: impl Fn(u32, u32, u32) -> u32,
) {
    let n = acc.len().min(a.len()).min(b.len());
    let whole = n & !7;
    if whole > 0 {
        // SAFETY: all three have `whole` words, a multiple of eight and not
        // zero; the loop reads them once, in order, and writes `acc`.
        unsafe {
            eights(&Products {
                acc: acc.as_mut_ptr(),
                a: a.as_ptr(),
                b: b.as_ptr(),
                c,
                end: b.as_ptr().add(whole),
            });
        }
    }
    let rest = (acc.get_mut(whole..n), a.get(whole..n), b.get(whole..n));
    if let (Some(acc), Some(a), Some(b)) = rest {
        for ((x, &a), &b) in acc.iter_mut().zip(a).zip(b) {
            *x = f(*x, a, b);
        }
    }
}

/// `acc += a * b`, with `b` in Montgomery form.
pub fn mul_acc(acc: &mut [u32], a: &[u32], b_mont: &[u32], m: &Modulus) {
    let c = Constants::new(m);
    products(accumulate_eights, acc, a, b_mont, c, |x, a, b| {
        c.reduce((x as i32).wrapping_add(c.mont(a, b)))
    });
}

/// `acc0 += a0 * b` and `acc1 += a1 * b`, with `b` in Montgomery form: both
/// halves of a ciphertext or of a key. (Together they would have too few
/// registers to share `b`.)
pub fn mul_acc_two(
    acc0: &mut [u32],
    acc1: &mut [u32],
    a0: &[u32],
    a1: &[u32],
    b_mont: &[u32],
    m: &Modulus,
) {
    mul_acc(acc0, a0, b_mont, m);
    mul_acc(acc1, a1, b_mont, m);
}

/// `a -= b * c`, with `c` in Montgomery form.
pub fn mul_sub(a: &mut [u32], b: &[u32], c_mont: &[u32], m: &Modulus) {
    let c = Constants::new(m);
    products(subtract_eights, a, b, c_mont, c, |x, b, z| {
        c.reduce((x as i32).wrapping_sub(c.mont(b, z)))
    });
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
/// lr the destination; r0-r3 and r12 for the loop. Its end is in a register
/// that the loop leaves alone, or on the stack.
#[rustfmt::skip]
macro_rules! fours {
    ($name:ident, stack, $($step:expr),+ $(,)?) => {
        fours!(@ $name, "r12", "str r12, [sp]", "ldr r12, [sp]", $($step),+);
    };
    ($name:ident, $end:literal, $($step:expr),+ $(,)?) => {
        fours!(@ $name, $end, "", "", $($step),+);
    };
    (@ $name:ident, $end:literal, $keep:literal, $find:literal, $($step:expr),+) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(operands: &Fours) {
            naked_asm!(
                dsp!(),
                "push {{r0, r4-r11, lr}}",
                "ldm r0!, {{r6-r11}}",
                concat!("ldrd lr, ", $end, ", [r0]"),
                $keep,
                "2:",
                $($step,)+
                "stm lr!, {{r0-r3}}",
                $find,
                concat!("cmp lr, ", $end),
                "bne 2b",
                "pop {{r0, r4-r11, pc}}",
            )
        }
    };
}

/// `x = x w`, canonical.
#[rustfmt::skip]
macro_rules! times_canon {
    ($x:literal) => {
        concat!(times!($x), canon!($x))
    };
}

#[rustfmt::skip]
macro_rules! centred {
    ($x:literal) => {
        concat!(
            "sub r12, r6, ", $x, "\n", "and r12, r7, r12, asr #31\n",
            "sub ", $x, ", ", $x, ", r12\n",
        )
    };
}

#[rustfmt::skip]
macro_rules! add_canon {
    ($x:literal, $y:literal) => {
        concat!(
            "sub ", $x, ", ", $x, ", r9\n", "add ", $x, ", ", $x, ", ", $y, "\n", canon!($x)
        )
    };
}

fours!(
    scale_fours,
    "r5",
    "ldm lr, {{r0-r3}}",
    times_canon!("r0"),
    times_canon!("r1"),
    times_canon!("r2"),
    times_canon!("r3"),
);

fours!(
    add_fours,
    "r10",
    "ldm lr, {{r0-r3}}",
    "ldm r8!, {{r4-r7}}",
    add_canon!("r0", "r4"),
    add_canon!("r1", "r5"),
    add_canon!("r2", "r6"),
    add_canon!("r3", "r7"),
);

fours!(
    sub_scale_fours,
    stack,
    "ldm lr, {{r0-r3}}",
    "ldm r8!, {{r4-r7}}",
    "sub r0, r0, r4",
    "sub r1, r1, r5",
    "sub r2, r2, r6",
    "sub r3, r3, r7",
    times_canon!("r0"),
    times_canon!("r1"),
    times_canon!("r2"),
    times_canon!("r3"),
);

fours!(
    lift_fours,
    "r5",
    "ldm r8!, {{r0-r3}}",
    centred!("r0"),
    times!("r0"),
    centred!("r1"),
    times!("r1"),
    centred!("r2"),
    times!("r2"),
    centred!("r3"),
    times!("r3"),
);

fours!(
    lift_i32_fours,
    "r5",
    "ldm r8!, {{r0-r3}}",
    times!("r0"),
    times!("r1"),
    times!("r2"),
    times!("r3"),
);

/// A word that a loop reads.
trait Word: Copy {}
impl Word for u32 {}
impl Word for i32 {}

/// Runs `fours` on as many words as there are fours in both, then `f` on each of
/// the rest.
#[inline(always)]
fn by_fours<W: Word>(
    fours: unsafe extern "C" fn(&Fours),
    dst: &mut [u32],
    src: &[W],
    (half, from): (u32, u32),
    (q, factor): (i32, Factor),
    f: impl Fn(u32, W) -> u32,
) {
    let n = dst.len().min(src.len());
    let whole = n & !3;
    if whole > 0 {
        // SAFETY: both have `whole` words, a multiple of four and not zero; the
        // loop reads them once, in order, and writes `dst`.
        unsafe {
            let (src, dst) = (src.as_ptr().cast(), dst.as_mut_ptr());
            let end = dst.add(whole);
            fours(&Fours {
                half,
                from,
                src,
                q,
                factor,
                dst,
                end,
            });
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
            let operands = Fours {
                half: 0,
                from: 0,
                src,
                q: m.q,
                factor: f,
                dst,
                end,
            };
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
        m.canon((a as i32).wrapping_add(b as i32).wrapping_sub(m.q))
    });
}

/// `a = (a - b) * factor`, the factor in centred Montgomery form.
pub fn sub_scale(a: &mut [u32], b: &[u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    by_fours(sub_scale_fours, a, b, (0, 0), (m.q, f), |a, b| {
        m.canon(f.times((a as i32).wrapping_sub(b as i32), m.q))
    });
}

/// In place `(a, b) -> (a^2, 2 a b)` and `c = b^2`: the square of a
/// two-part ciphertext.
// Inlined into its caller it has too few registers, and takes a quarter more.
#[inline(never)]
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
/// (centred; `m.r()` leaves the value, `m.r2()` gives Montgomery form); between
/// `-q` and `q`.
pub fn lift(src: &[u32], from: &Modulus, dst: &mut [u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    let source = (from.value() >> 1, from.value());
    by_fours(lift_fours, dst, src, source, (m.q, f), |_, x| {
        f.times(from.centred(x), m.q) as u32
    });
}

/// Integers carried over to `m` times `factor`, as in [`lift`].
pub fn lift_i32(src: &[i32], dst: &mut [u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    by_fours(lift_i32_fours, dst, src, (0, 0), (m.q, f), |_, x| {
        f.times(x, m.q) as u32
    });
}

/// Integers held in `f32` (rounded, below 2^31 in magnitude) carried over to
/// `m` times `factor`, as in [`lift`].
#[cfg(target_abi = "eabihf")]
pub fn lift_f32(src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    let n = src.len().min(dst.len());
    let whole = n & !7;
    if whole > 0 {
        // SAFETY: both have `whole` words, a multiple of eight and not zero;
        // the loop reads them once, in order, and writes `dst`.
        unsafe { lift_f32_eights(src.as_ptr(), dst.as_mut_ptr(), whole, m.q, f) };
    }
    if let (Some(dst), Some(src)) = (dst.get_mut(whole..n), src.get(whole..n)) {
        for (y, &x) in dst.iter_mut().zip(src) {
            *y = f.times(x as i32, m.q) as u32;
        }
    }
}

/// Without an FPU the conversion is a function of the compiler's library.
#[cfg(not(target_abi = "eabihf"))]
pub fn lift_f32(src: &[f32], dst: &mut [u32], factor: i32, m: &Modulus) {
    let m = Constants::new(m);
    let f = Factor::new(&m, factor);
    for (y, &x) in dst.iter_mut().zip(src) {
        *y = f.times(x as i32, m.q) as u32;
    }
}

/// Two integers from the FPU, times the factor.
#[cfg(target_abi = "eabihf")]
#[rustfmt::skip]
macro_rules! from_float {
    ($x:literal, $y:literal, $s:literal, $t:literal) => {
        concat!(
            "vcvt.s32.f32 ", $s, ", ", $s, "\n vcvt.s32.f32 ", $t, ", ", $t, "\n",
            "vmov ", $x, ", ", $y, ", ", $s, ", ", $t, "\n",
            times!($x), times!($y),
        )
    };
}

/// r8 the source, r5 its end, lr the destination, r9-r11 as in [`fours`].
///
/// Not a naked function, whose assembly would not know of the FPU.
///
/// # Safety
/// `count` is a multiple of eight and not zero, and both have as many words.
#[cfg(target_abi = "eabihf")]
#[inline(never)]
#[rustfmt::skip]
unsafe fn lift_f32_eights(src: *const f32, dst: *mut u32, count: usize, q: i32, f: Factor) {
    // SAFETY: the caller's; r6, r9 and the stack are as before at the end.
    unsafe { asm!(
        dsp!(),
        "push {{r6, r9}}",
        "mov r9, r12",
        "2:",
        "vldmia r8!, {{s0-s7}}",
        from_float!("r0", "r1", "s0", "s1"),
        from_float!("r2", "r3", "s2", "s3"),
        "stm lr!, {{r0-r3}}",
        from_float!("r0", "r1", "s4", "s5"),
        from_float!("r2", "r3", "s6", "s7"),
        "stm lr!, {{r0-r3}}",
        "cmp r8, r5",
        "bne 2b",
        "pop {{r6, r9}}",
        inout("r8") src => _, in("r5") src.wrapping_add(count), inout("lr") dst => _,
        inout("r12") q => _, in("r10") f.w, in("r11") f.k,
        out("r0") _, out("r1") _, out("r2") _, out("r3") _,
        out("s0") _, out("s1") _, out("s2") _, out("s3") _,
        out("s4") _, out("s5") _, out("s6") _, out("s7") _,
    ) }
}
