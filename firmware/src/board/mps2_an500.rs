//! Arm MPS2 with the AN500 image, a Cortex-M7: QEMU's `mps2-an500`. What it
//! shares with the other images is in [`super::mps2`].

use core::ptr::addr_of;

pub(crate) use super::mps2::*;

/// 16 MB: the mailbox in the first of them, the arena in the others.
pub(super) const PSRAM: usize = 0x6000_0000;

/// The link's and the log's.
pub(super) const UARTS: [usize; 2] = [0x4000_4000, 0x4000_5000];

/// The interrupt that UART0 raises when it has received a byte.
pub(super) const LINK_RECEIVED: u16 = 0;

/// The processor's clock.
pub(super) const SYSTEM_HZ: u32 = 25_000_000;

unsafe extern "C" {
    // Addresses, set by the memory map; there is nothing to read behind them.
    static _arena_start: u32;
    static _arena_end: u32;
}

/// Bytes of the arena.
pub(super) fn arena_outside() -> u32 {
    (addr_of!(_arena_end) as u32).wrapping_sub(addr_of!(_arena_start) as u32)
}
