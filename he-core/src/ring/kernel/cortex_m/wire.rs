//! Residues out of their bytes.

use crate::arith::Modulus;
use core::arch::naked_asm;

/// Unpacks residues of the modulus' width (see [`crate::wire::unpack`]), eight
/// from as many bytes as one has bits; whether all are below the modulus. `None`
/// for widths that have no kernel.
pub fn unpack(bytes: &[u8], m: &Modulus, out: &mut [u32]) -> Option<bool> {
    macro_rules! width {
        ($bits:literal) => {
            unpack_width::<$bits>(bytes, m.value(), out)
        };
    }
    of_width!(m.bits(), width)
}

fn unpack_width<const BITS: usize>(bytes: &[u8], q: u32, out: &mut [u32]) -> bool {
    let groups = bytes.as_chunks::<BITS>().0;
    let eights = out.as_chunks_mut::<8>().0;
    let count = groups.len().min(eights.len());
    if count == 0 {
        return true;
    }
    let (bytes, out) = (groups.as_ptr().cast(), eights.as_mut_ptr());
    // SAFETY: there are `count` groups of `BITS` bytes and as many of eight
    // words, not none. Within a group nothing beyond its bytes is read (`at`).
    unsafe { unpack_eights::<BITS>(bytes, out, out.add(count), (1 << 31) - q) == 0 }
}

/// Four bytes that hold the first bit of residue `i`, and end within the group.
const fn at(bits: usize, i: usize) -> usize {
    let first = (i * bits) >> 3;
    if first < bits - 4 { first } else { bits - 4 }
}

/// Place of that bit in those bytes.
const fn shift(bits: usize, i: usize) -> usize {
    i * bits - 8 * at(bits, i)
}

/// Residue `$i` to register `$x`. Where it lies in five bytes, which is only so
/// before the group's last four, the fifth gives its upper bits.
///
/// `x + (2^31 - q)` leaves `i32` for `x >= q`, which the Q flag keeps in mind.
#[rustfmt::skip]
macro_rules! residue {
    ($x:literal, $i:literal) => {
        concat!(
            "ldr ", $x, ", [r0, #{at", $i, "}]\n",
            ".if {shift", $i, "} + {bits} <= 32\n",
            "ubfx ", $x, ", ", $x, ", #{shift", $i, "}, #{bits}\n",
            ".else\n",
            "ldrb r12, [r0, #{at", $i, "} + 4]\n",
            "lsr ", $x, ", ", $x, ", #{shift", $i, "}\n",
            "bfi ", $x, ", r12, #(32 - {shift", $i, "}), #({shift", $i, "} + {bits} - 32)\n",
            ".endif\n",
            "qadd r12, ", $x, ", r3\n",
        )
    };
}

/// Eight residues at a time; not zero if one was not below the modulus.
///
/// # Safety
/// As many groups of `BITS` bytes as there are groups of words up to `end`, not
/// none; `16 <= BITS <= 30`.
#[rustfmt::skip]
#[unsafe(naked)]
unsafe extern "C" fn unpack_eights<const BITS: usize>(
    bytes: *const u8, out: *mut [u32; 8], end: *mut [u32; 8], room: u32,
) -> u32 {
    naked_asm!(
        dsp!(),
        "push {{r4-r11, lr}}",
        "mov r12, #0",
        "msr APSR_nzcvq, r12",
        "2:",
        residue!("r4", 0), residue!("r5", 1), residue!("r6", 2), residue!("r7", 3),
        residue!("r8", 4), residue!("r9", 5), residue!("r10", 6), residue!("r11", 7),
        "stm r1!, {{r4-r11}}",
        "add r0, r0, #{bits}",
        "cmp r1, r2",
        "bne 2b",
        "mrs r0, APSR",
        "and r0, r0, #(1 << 27)",
        "pop {{r4-r11, pc}}",
        bits = const BITS,
        at0 = const at(BITS, 0), shift0 = const shift(BITS, 0),
        at1 = const at(BITS, 1), shift1 = const shift(BITS, 1),
        at2 = const at(BITS, 2), shift2 = const shift(BITS, 2),
        at3 = const at(BITS, 3), shift3 = const shift(BITS, 3),
        at4 = const at(BITS, 4), shift4 = const shift(BITS, 4),
        at5 = const at(BITS, 5), shift5 = const shift(BITS, 5),
        at6 = const at(BITS, 6), shift6 = const shift(BITS, 6),
        at7 = const at(BITS, 7), shift7 = const shift(BITS, 7),
    )
}
