//! The stack: painted at reset (cortex-m-rt's `paint-stack`), measured here, and
//! guarded by the memory protection unit.
//!
//! Every board's memory map puts the stack at the start of the RAM, so that
//! what outgrows it leaves the RAM. The guard makes that a fault on processors
//! and emulators that would let it pass.

use core::ptr::addr_of;

use cortex_m::peripheral::MPU;
use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    // Addresses, set by the linker; there is nothing to read behind them.
    static _stack_end: u32;
    static _stack_start: u32;
    static __sdata: u32;
    static __sheap: u32;
}

/// Bytes of `.data`, `.bss` and `.uninit`.
pub(crate) fn static_bytes() -> u32 {
    (addr_of!(__sheap) as u32).wrapping_sub(addr_of!(__sdata) as u32)
}

/// The most bytes that the stack has held since reset.
pub(crate) fn peak() -> u32 {
    let top = addr_of!(_stack_start) as u32;
    let mut word = addr_of!(_stack_end);
    while (word as u32) < top {
        // SAFETY: between the linker's two symbols lies the stack, which is
        // RAM; the unused part of it belongs to nobody.
        if unsafe { word.read_volatile() } != STACK_PAINT_VALUE {
            break;
        }
        word = word.wrapping_add(1);
    }
    top.wrapping_sub(word as u32)
}

/// Makes the 256 MB below the RAM inaccessible, as far as the code does not lie
/// there. The stack grows into it where it overflows.
pub(crate) fn guard() {
    const REGION: u32 = 0x1000_0000;
    /// `ENABLE`, 2^(27 + 1) bytes, no access, never executable.
    const ATTRIBUTES: u32 = 1 | 27 << 1 | 1 << 28;
    /// `ENABLE` and `PRIVDEFENA`: everything else stays as it is without MPU.
    const CONTROL: u32 = 1 | 1 << 2;

    // SAFETY: nothing of the program lies in the region; only the main loop's
    // first statement writes these registers.
    unsafe {
        let mpu = &*MPU::PTR;
        mpu.rnr.write(0);
        mpu.rbar.write(REGION);
        mpu.rasr.write(ATTRIBUTES);
        mpu.ctrl.write(CONTROL);
    }
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}
