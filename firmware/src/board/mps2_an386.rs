//! Arm MPS2 with the AN386 image, a Cortex-M4F: QEMU's `mps2-an386`. What it
//! shares with the other images is in [`super::mps2`].

pub(crate) use super::mps2::*;

/// 16 MB of which only the mailbox is used.
pub(super) const PSRAM: usize = 0x2100_0000;

/// The link's and the log's.
pub(super) const UARTS: [usize; 2] = [0x4000_4000, 0x4000_5000];

/// The interrupt that UART0 raises when it has received a byte.
pub(super) const LINK_RECEIVED: u16 = 0;

/// The processor's clock.
pub(super) const SYSTEM_HZ: u32 = 25_000_000;

/// The arena lies in the RAM.
pub(super) const fn arena_outside() -> u32 {
    0
}
