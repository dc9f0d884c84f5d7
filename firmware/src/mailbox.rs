//! Layout of the mailbox: memory through which an emulator's host hands the
//! board the bytes of the link, instead of one by one through the emulated
//! UART. Both sides take it from here.
//!
//! ```text
//! | 0       | 8      | 9       | 4096 + 2048 i          |
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

/// Slots. They divide the counters' range and cannot be all in use twice.
pub const SLOTS: u8 = 16;

/// Bytes of the length, little endian, at the start of a slot.
pub const LENGTH_BYTES: usize = 2;

/// Most bytes of the link in one slot: the largest frame fits.
pub const SLOT_BYTES: usize = STRIDE - LENGTH_BYTES;

const STRIDE: usize = 2048;
const FIRST: usize = 4096;

/// Offset of the slot that is filled and taken at this count.
#[must_use]
pub const fn slot(count: u8) -> usize {
    FIRST + (count % SLOTS) as usize * STRIDE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_repeat_where_the_counters_wrap() {
        assert_eq!(slot(0), slot(SLOTS));
        assert_eq!(slot(255) + STRIDE, slot(15) + STRIDE);
        assert_eq!(256 % usize::from(SLOTS), 0);
        assert!(DRAINED < slot(0));
    }
}
