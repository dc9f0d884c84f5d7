//! The upper half of Pico 2's flash, behind the lower one with the image.
//!
//! Read of the driver (`embassy_rp::flash`): it fills what is no whole page with ones, which
//! leave what was programmed before as it is, runs from RAM with interrupts off while the chip
//! erases or programs (`he-nn/src/boards.rs` has the times), and restores the boot loader's mode of
//! reading afterwards. The link's DMA goes on meanwhile, as far as the window reaches.

use embassy_rp::flash::{Blocking, ERASE_SIZE, FLASH_BASE, Flash as Driver};
use embassy_rp::peripherals::FLASH;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read,
    check_write,
};

/// What the board has.
const CHIP_BYTES: usize = 4 << 20;

/// A part of the flash.
pub(crate) struct Flash {
    driver: Driver<'static, FLASH, Blocking, CHIP_BYTES>,
    /// Where it begins in the chip.
    start: u32,
    bytes: usize,
}

/// The flash from an address on.
pub(crate) fn flash(start: usize, bytes: usize) -> Option<Flash> {
    let start = start.checked_sub(FLASH_BASE.addr())?;
    // SAFETY: nothing else of this program writes the flash.
    let driver = Driver::new_blocking(unsafe { FLASH::steal() });
    Some(Flash {
        driver,
        start: start as u32,
        bytes,
    })
}

impl ErrorType for Flash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        check_read(self, offset, bytes.len())?;
        let read = self
            .driver
            .blocking_read(self.start.saturating_add(offset), bytes);
        read.map_err(|error| error.kind())
    }

    fn capacity(&self) -> usize {
        self.bytes
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 1;
    const ERASE_SIZE: usize = ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        check_erase(self, from, to)?;
        let [from, to] = [from, to].map(|offset| self.start.saturating_add(offset));
        let erased = self.driver.blocking_erase(from, to);
        erased.map_err(|error| error.kind())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        check_write(self, offset, bytes.len())?;
        let written = self
            .driver
            .blocking_write(self.start.saturating_add(offset), bytes);
        written.map_err(|error| error.kind())
    }
}
