//! The inverse special FFT in single precision, for the encoder.

#[cfg(target_abi = "eabihf")]
use core::arch::asm;

/// Stages of the inverse special FFT (see [`crate::ckks::encode`]), from the
/// longest on; returns the length of the next one. `twiddles[len / 2 + j]`
/// belongs to stage `len`.
///
/// Two stages are merged in one pass; products are rounded before they are
/// added, so that the result is that of the portable code bit by bit.
#[cfg(target_abi = "eabihf")]
pub fn fft_inverse(re: &mut [f32], im: &mut [f32], twiddles: &[[f32; 2]]) -> usize {
    let n = re.len();
    if im.len() != n || !n.is_power_of_two() || n > twiddles.len() {
        return n;
    }
    let mut len = n;
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
            blocks: n >> len.trailing_zeros(),
        };
        // SAFETY: `re` and `im` have `n` numbers each: `n / len` blocks of four
        // quarters, all of which the pass reads and writes once (after a quarter
        // a pointer goes `step` on, to the same quarter of the next block). Of
        // the table it reads the entries from `quarter` to `4 quarter <= n`.
        unsafe { fft_pass(&operands) };
        len >>= 2;
    }
    len
}

/// Without an FPU there is no faster way: nothing is done.
#[cfg(not(target_abi = "eabihf"))]
pub fn fft_inverse(re: &mut [f32], im: &mut [f32], twiddles: &[[f32; 2]]) -> usize {
    let _ = (im, twiddles);
    re.len()
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
#[cfg(target_abi = "eabihf")]
#[rustfmt::skip]
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
#[rustfmt::skip]
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

/// Nearest integer, ties to even, of a number below 2^31 in magnitude: without
/// a branch, as what is encoded is secret.
#[cfg(target_abi = "eabihf")]
#[must_use]
#[inline(always)]
pub fn round_f32(x: f32) -> f32 {
    let mut bits = x.to_bits();
    // SAFETY: instructions that compute a register from a register; the
    // rounding is that of the FPU's mode, which is to nearest from reset on.
    unsafe {
        asm!("vmov s0, {b}", "vcvtr.s32.f32 s0, s0", "vcvt.f32.s32 s0, s0", "vmov {b}, s0",
            b = inout(reg) bits, out("s0") _, options(pure, nomem, nostack));
    }
    f32::from_bits(bits)
}
