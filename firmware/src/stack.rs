//! The stack: painted at reset (cortex-m-rt's `paint-stack`), measured here, and
//! guarded by the memory protection unit or the stack limit of Armv8-M.
//!
//! Every board's memory map puts the stack at the start of a memory, so that
//! what outgrows it leaves that memory. The guard makes that a fault on processors
//! and emulators that would let it pass.

use core::ptr::addr_of;

#[cfg(not(armv8m))]
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

/// Whether these bytes are words of the stack.
pub(crate) fn holds(address: usize, bytes: usize) -> bool {
    let stack = addr_of!(_stack_end) as usize..addr_of!(_stack_start) as usize;
    let end = address.checked_add(bytes);
    address.is_multiple_of(4) && stack.contains(&address) && end.is_some_and(|end| end <= stack.end)
}

/// Makes what lies below the stack inaccessible, so that a stack that outgrows
/// its region faults: the 512 KiB there, which hold no program, no statics and no
/// registers on any board.
#[cfg(not(armv8m))]
pub(crate) fn guard() {
    const BYTES: u32 = 512 * 1024;
    /// `ENABLE`, 2^(18 + 1) bytes, no access, never executable.
    const ATTRIBUTES: u32 = 1 | 18 << 1 | 1 << 28;
    /// `ENABLE` and `PRIVDEFENA`: everything else stays as it is without MPU.
    const CONTROL: u32 = 1 | 1 << 2;

    // SAFETY: nothing of the program lies in the region; only the main loop's
    // first statement writes these registers.
    unsafe {
        let mpu = &*MPU::PTR;
        mpu.rnr.write(0);
        mpu.rbar
            .write((addr_of!(_stack_end) as u32).wrapping_sub(BYTES));
        mpu.rasr.write(ATTRIBUTES);
        mpu.ctrl.write(CONTROL);
    }
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

/// Sets the processor's own limit: a stack that outgrows its region faults.
#[cfg(armv8m)]
pub(crate) fn guard() {
    // SAFETY: the stack lies above, with all that it holds now.
    unsafe { cortex_m::register::msplim::write(addr_of!(_stack_end) as u32) };
}
