//! ChaCha with 8 rounds, 16 words of state in registers and on the stack.

use core::arch::naked_asm;

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
        let words = constants
            .as_chunks::<4>()
            .0
            .iter()
            .chain(key.as_chunks::<4>().0);
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
#[rustfmt::skip]
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
#[rustfmt::skip]
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
#[rustfmt::skip]
#[unsafe(naked)]
unsafe extern "C" fn chacha8(state: &[u32; 16], out: &mut [u32; 16]) {
    naked_asm!(
        dsp!(),
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

/// The residues `floor(w q / 2^32)` of words, in order, up to one whose low half
/// of `w q` is below `reject_below` or a little before; returns how many.
pub fn residues(words: &[u32], out: &mut [u32], q: u32, reject_below: u32) -> usize {
    let whole = words.len().min(out.len()) & !3;
    if whole == 0 {
        return 0;
    }
    let (words, out) = (words.as_ptr(), out.as_mut_ptr());
    // SAFETY: both have `whole` words, a multiple of four and not zero; what is
    // left is at least zero and at most that.
    unsafe { whole - residues_fours(words, out, q, reject_below, whole) }
}

/// Four words at a time until one is refused; returns how many are left.
#[rustfmt::skip]
#[unsafe(naked)]
unsafe extern "C" fn residues_fours(
    words: *const u32, out: *mut u32, q: u32, reject_below: u32, count: usize,
) -> usize {
    naked_asm!(
        dsp!(),
        "push {{r4-r8, lr}}",
        "ldr r12, [sp, #24]",
        "2:",
        "ldm r0!, {{r4-r7}}",
        "umull r8, r4, r4, r2", "cmp r8, r3", "blo 3f",
        "umull r8, r5, r5, r2", "cmp r8, r3", "blo 3f",
        "umull r8, r6, r6, r2", "cmp r8, r3", "blo 3f",
        "umull r8, r7, r7, r2", "cmp r8, r3", "blo 3f",
        "stm r1!, {{r4-r7}}",
        "subs r12, r12, #4",
        "bne 2b",
        "3:",
        "mov r0, r12",
        "pop {{r4-r8, pc}}",
    )
}
