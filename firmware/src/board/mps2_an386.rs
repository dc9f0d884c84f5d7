//! Arm MPS2 with the AN386 image, a Cortex-M4F: QEMU's `mps2-an386`. What it
//! shares with the other images is in [`super::mps2`].

pub(crate) use super::mps2::*;

/// 16 MB of which only the mailbox is used.
pub(super) const PSRAM: usize = 0x2100_0000;

/// The arena lies in the RAM.
pub(super) const fn arena_outside() -> u32 {
    0
}
