//! Layout of the mailbox: memory through which an emulator's host hands the
//! board the bytes of the link, instead of one by one through the emulated
//! UART. Both sides take it from here.
//!
//! ```text
//! | 0       | 8      | 9       | 64 + 2048 i            |
//! | "here"  | pushed | drained | slot i: length, bytes  |
//! ```
//!
//! The host writes a slot, then counts it in `pushed`, then sends one byte on
//! the UART, which wakes the board and means nothing else. The board takes the
//! slot's bytes, then counts it in `drained`. Both counters are single bytes,
//! which no copying routine can write or read in halves, and both outlive a
//! restart of the board, so the bytes stay a stream across one.

/// What the host has written at the start before the board starts.
pub const MAGIC: [u8; 8] = *b"he-edge\x01";

/// Offset of the count of slots that were filled, modulo 256. The host writes it.
pub const PUSHED: usize = 8;

/// Offset of the count of slots that were taken, modulo 256. The board writes it.
pub const DRAINED: usize = 9;

/// Slots; a divisor of the counters' range. As many of the largest frames as a board's
/// window has room for: the mailbox counts as the board's memory, and the host waits where
/// smaller frames are more.
pub const SLOTS: u8 = 4;

/// Bytes of the length, little endian, at the start of a slot.
pub const LENGTH_BYTES: usize = 2;

/// Most bytes of the link in one slot: the largest frame fits.
pub const SLOT_BYTES: usize = STRIDE - LENGTH_BYTES;

const STRIDE: usize = 2048;
const FIRST: usize = 64;

/// Memory that the mailbox takes.
pub const BYTES: usize = FIRST + SLOTS as usize * STRIDE;

/// Offset of the slot that is filled and taken at this count.
#[must_use]
pub const fn slot(count: u8) -> usize {
    FIRST + (count % SLOTS) as usize * STRIDE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::MAX_FRAME;

    #[test]
    fn slots_repeat_where_the_counters_wrap() {
        assert_eq!(slot(0), slot(SLOTS));
        assert_eq!(slot(255), slot(SLOTS - 1));
        assert_eq!(256 % usize::from(SLOTS), 0);
        const { assert!(DRAINED < FIRST) };
        const { assert!(MAX_FRAME <= SLOT_BYTES) };
    }
}
