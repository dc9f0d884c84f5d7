//! Arm MPS2 with the AN505 image, a Cortex-M33 with FPU and DSP instructions: QEMU's
//! `mps2-an505`. It stands for the processors of RP2350, which no emulator has. Everything
//! runs in the secure state that the processor starts in, at the secure addresses. What it
//! shares with the other images is in [`super::mps2`].

pub(crate) use super::mps2::*;

/// 16 MB: the mailbox in the first of them, kept keys in the others.
pub(super) const PSRAM: usize = 0x8000_0000;

/// The link's and the log's.
pub(super) const UARTS: [usize; 2] = [0x5020_0000, 0x5020_1000];

/// The interrupt that UART0 raises when it has received a byte: the first of the board's,
/// behind the 32 of the subsystem.
pub(super) const LINK_RECEIVED: u16 = 32;

/// The processor's clock.
pub(super) const SYSTEM_HZ: u32 = 20_000_000;

/// The arena lies in the RAM.
pub(super) const fn arena_outside() -> u32 {
    0
}
