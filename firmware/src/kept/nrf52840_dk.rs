//! The nRF52840 DK's external flash, 8 MB behind QSPI.
//!
//! Pins, commands, identification and the bits of the two registers are those that boards'
//! descriptions and examples for the DK have; Macronix's data sheet of the MX25R6435F was not at
//! hand: compare. Read of the driver
//! (`embassy_nrf::qspi`): it asserts that buffers and addresses are words and does not check
//! that buffers are RAM, which EasyDMA needs, so what is not goes through one here.

use embassy_nrf::qspi::{self, Config, Frequency, Qspi, ReadOpcode, WriteOpcode, WritePageSize};
use embassy_nrf::{bind_interrupts, peripherals};
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

bind_interrupts!(struct Interrupts {
    QSPI => qspi::InterruptHandler<peripherals::QSPI>;
});

const READ_ID: u8 = 0x9F;
const READ_STATUS: u8 = 0x05;
const READ_CONFIGURATION: u8 = 0x15;
const WRITE_STATUS: u8 = 0x01;

/// Macronix, MX25R, 64 Mbit.
const ID: [u8; 3] = [0xC2, 0x28, 0x17];

/// Of the status: data travels by four lines.
const QUAD: u8 = 1 << 6;

/// Of the second configuration register: high performance rather than low power, which
/// programs more slowly and is not meant for 32 MHz.
const FAST: u8 = 1 << 1;

/// What is programmed at once.
const PROGRAM_BYTES: usize = 256;

/// Words that EasyDMA reads or writes.
#[repr(align(4))]
struct Bounce([u8; PROGRAM_BYTES]);

/// The flash.
pub(crate) struct Flash(Qspi<'static>);

/// The flash of so many bytes, if it is the one that the board has.
pub(crate) fn flash(_start: usize, bytes: usize) -> Option<Flash> {
    let mut config = Config::default();
    config.capacity = u32::try_from(bytes).ok()?;
    config.frequency = Frequency::M32;
    config.read_opcode = ReadOpcode::Read4io;
    config.write_opcode = WriteOpcode::Pp4io;
    config.write_page_size = WritePageSize::_256bytes;
    // 62.5 ns, of the 30 that the chip asks for.
    config.sck_delay = 1;
    // SAFETY: nothing else of this program uses the peripheral and these pins.
    let mut port = unsafe {
        Qspi::new(
            peripherals::QSPI::steal(),
            Interrupts,
            peripherals::P0_19::steal(),
            peripherals::P0_17::steal(),
            peripherals::P0_20::steal(),
            peripherals::P0_21::steal(),
            peripherals::P0_22::steal(),
            peripherals::P0_23::steal(),
            config,
        )
    };
    let mut id = [0; 3];
    port.blocking_custom_instruction(READ_ID, &[], &mut id)
        .ok()?;
    if id != ID {
        return None;
    }
    let (mut status, mut configuration) = ([0; 1], [0; 2]);
    port.blocking_custom_instruction(READ_STATUS, &[], &mut status)
        .ok()?;
    port.blocking_custom_instruction(READ_CONFIGURATION, &[], &mut configuration)
        .ok()?;
    let ([status], [first, second]) = (status, configuration);
    let wanted = [status | QUAD, first, second | FAST];
    if wanted != [status, first, second] {
        port.blocking_custom_instruction(WRITE_STATUS, &wanted, &mut [])
            .ok()?;
    }
    Some(Flash(port))
}

impl ErrorType for Flash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        check_read(self, offset, bytes.len())?;
        let failed = |_| NorFlashErrorKind::Other;
        // What is written to is RAM.
        if bytes.as_ptr().addr().is_multiple_of(4) {
            return self.0.blocking_read(offset, bytes).map_err(failed);
        }
        let mut at = offset;
        for part in bytes.chunks_mut(PROGRAM_BYTES) {
            let mut bounce = Bounce([0; PROGRAM_BYTES]);
            let words = bounce.0.get_mut(..part.len()).unwrap_or_default();
            self.0.blocking_read(at, words).map_err(failed)?;
            for (to, from) in part.iter_mut().zip(words) {
                *to = *from;
            }
            at = at.saturating_add(part.len() as u32);
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        check_erase(self, from, to)?;
        NorFlash::erase(&mut self.0, from, to).map_err(|_| NorFlashErrorKind::Other)
    }

    fn write(&mut self, offset: u32, mut bytes: &[u8]) -> Result<(), Self::Error> {
        check_write(self, offset, bytes.len())?;
        let mut at = offset;
        while !bytes.is_empty() {
            // What is programmed at once begins at a multiple of its size.
            let room = PROGRAM_BYTES.saturating_sub(at as usize % PROGRAM_BYTES);
            let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            let mut bounce = Bounce([0; PROGRAM_BYTES]);
            let words = bounce.0.get_mut(..now.len()).unwrap_or_default();
            for (to, from) in words.iter_mut().zip(now) {
                *to = *from;
            }
            let written = self.0.blocking_write(at, words);
            written.map_err(|_| NorFlashErrorKind::Other)?;
            at = at.saturating_add(now.len() as u32);
            bytes = rest;
        }
        Ok(())
    }
}
