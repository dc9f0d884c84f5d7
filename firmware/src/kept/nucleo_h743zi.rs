//! The STM32H743's own flash behind the image: twelve sectors of 128 KiB, four of them in the
//! bank that holds the code, which stands still while one of these is erased or programmed. The
//! link's DMA does not: it writes SRAM4.
//!
//! By registers, as `stm32-metapac` names them and as RM0433 is known to describe them (the manual
//! was not at hand when this was written: compare chapters FLASH and "Error code correction"),
//! since two things were read of the abstraction layer (`embassy_stm32::flash`): it clears error
//! flags by writing the status, which is read only, so that one word found torn would fail every
//! erasure after it; and it leaves the parallelism at 8 bits, at which erasing takes twice as long.
//!
//! A word of 256 bits whose programming was cut off has two bits or more that its correction
//! code does not explain, and reading it is a fault of the bus. So reads are made at the priority
//! that ignores such faults (`BFHFNMIGN`, Arm DDI 0403, B3.2.8), and the flash says in its status
//! whether there was one: to the log that page is damaged, as it is.

use core::arch::asm;
use core::ptr;

use cortex_m::peripheral::{MPU, SCB};
use embassy_stm32::pac::FLASH;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

const BASE: usize = 0x0800_0000;
const BANK_BYTES: usize = 1 << 20;
const SECTOR_BYTES: usize = 128 * 1024;
const WORD_BYTES: usize = 32;

const KEYS: [u32; 2] = [0x4567_0123, 0xCDEF_89AB];

/// Parallelism: 32 bits at once.
const PARALLELISM: u8 = 2;

/// The sectors from an address on.
pub(crate) struct Flash {
    start: usize,
    bytes: usize,
}

/// The flash from an address on: 512 KiB behind its start, as the memory map has it.
pub(crate) fn flash(start: usize, bytes: usize) -> Option<Flash> {
    /// `ENABLE`, 2^(20 + 1) bytes, of which the first two eighths are left out, device memory:
    /// neither cached nor read ahead. Read and written by all, never executed.
    const ATTRIBUTES: u32 = 1 | 20 << 1 | 0b11 << 8 | 1 << 16 | 0b011 << 24 | 1 << 28;

    if start != BASE.checked_add(SECTOR_BYTES.checked_mul(4)?)? {
        return None;
    }
    // SAFETY: regions 0 and 1 are the stack's guard and the DMA's memory; nothing of the
    // program lies in this one.
    unsafe {
        let mpu = &*MPU::PTR;
        mpu.rnr.write(2);
        mpu.rbar.write(BASE as u32);
        mpu.rasr.write(ATTRIBUTES);
    }
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
    Some(Flash { start, bytes })
}

/// Where an address lies: its bank, and its sector there.
const fn place(address: usize) -> (usize, u8) {
    let within = address.saturating_sub(BASE);
    let sector = within % BANK_BYTES / SECTOR_BYTES;
    (within / BANK_BYTES, sector as u8)
}

/// Reads words from an address on, with faults of the bus ignored.
fn read(address: usize, out: &mut [u8]) {
    const IGNORES: u32 = 1 << 8;
    /// All of the bus in the status of faults: 1 erases.
    const BUS_FAULTS: u32 = 0xFF00;

    // SAFETY: registers of the processor that nothing else uses, and a priority that keeps every
    // interrupt waiting for as long as it is set. What is read is flash, of which every value
    // is one of a word.
    unsafe {
        let control = &*SCB::PTR;
        control.ccr.modify(|bits| bits | IGNORES);
        asm!("cpsid f", "dsb", "isb", options(nostack, preserves_flags));
        for (part, at) in out.chunks_mut(4).zip((address..).step_by(4)) {
            let word = ptr::with_exposed_provenance::<u32>(at).read_volatile();
            for (to, from) in part.iter_mut().zip(word.to_le_bytes()) {
                *to = from;
            }
        }
        asm!("dsb", "cpsie f", "isb", options(nostack, preserves_flags));
        control.ccr.modify(|bits| bits & !IGNORES);
        control.cfsr.write(BUS_FAULTS);
    }
}

/// Clears what a bank says of errors.
fn clear(bank: usize) {
    FLASH.bank(bank).ccr().write(|w| {
        w.set_clr_eop(true);
        w.set_clr_wrperr(true);
        w.set_clr_pgserr(true);
        w.set_clr_strberr(true);
        w.set_clr_incerr(true);
        w.set_clr_operr(true);
        w.set_clr_rdperr(true);
        w.set_clr_rdserr(true);
        w.set_clr_sneccerr(true);
        w.set_clr_dbeccerr(true);
    });
}

/// Has an unlocked bank do something, and waits for it.
fn carry_out(bank: usize, work: impl FnOnce()) -> Result<(), NorFlashErrorKind> {
    let registers = FLASH.bank(bank);
    clear(bank);
    if registers.cr().read().lock() {
        for key in KEYS {
            registers.keyr().write_value(key);
        }
    }
    work();
    cortex_m::asm::dsb();
    let state = loop {
        let state = registers.sr().read();
        if !state.qw() && !state.bsy() {
            break state;
        }
    };
    registers.cr().write(|w| w.set_lock(true));
    let failed =
        state.wrperr() || state.pgserr() || state.strberr() || state.incerr() || state.operr();
    match failed {
        true => Err(NorFlashErrorKind::Other),
        false => Ok(()),
    }
}

impl ErrorType for Flash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        check_read(self, offset, bytes.len())?;
        let mut at = self.start.saturating_add(offset as usize);
        for part in bytes.chunks_mut(SECTOR_BYTES) {
            let ends = [at, at.saturating_add(part.len().saturating_sub(1))];
            let banks = ends.map(|end| place(end).0);
            banks.into_iter().for_each(clear);
            read(at, part);
            let is_torn = |bank| FLASH.bank(bank).sr().read().dbeccerr();
            if banks.into_iter().any(is_torn) {
                banks.into_iter().for_each(clear);
                return Err(NorFlashErrorKind::Other);
            }
            at = at.saturating_add(part.len());
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD_BYTES;
    const ERASE_SIZE: usize = SECTOR_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        check_erase(self, from, to)?;
        for offset in (from..to).step_by(SECTOR_BYTES) {
            let (bank, sector) = place(self.start.saturating_add(offset as usize));
            let control = FLASH.bank(bank).cr();
            carry_out(bank, || {
                control.write(|w| {
                    w.set_ser(true);
                    w.set_psize(PARALLELISM);
                    w.set_snb(sector);
                });
                control.modify(|w| w.set_start(true));
            })?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        check_write(self, offset, bytes.len())?;
        let first = self.start.saturating_add(offset as usize);
        for (word, at) in bytes.chunks(WORD_BYTES).zip((first..).step_by(WORD_BYTES)) {
            let (bank, _) = place(at);
            carry_out(bank, || {
                FLASH.bank(bank).cr().write(|w| {
                    w.set_pg(true);
                    w.set_psize(PARALLELISM);
                });
                cortex_m::asm::isb();
                cortex_m::asm::dsb();
                let (parts, _) = word.as_chunks();
                for (&part, at) in parts.iter().zip((at..).step_by(4)) {
                    let to = ptr::with_exposed_provenance_mut::<u32>(at);
                    // SAFETY: flash that is the log's alone, unlocked for writing.
                    unsafe { to.write_volatile(u32::from_le_bytes(part)) };
                }
            })?;
        }
        Ok(())
    }
}
