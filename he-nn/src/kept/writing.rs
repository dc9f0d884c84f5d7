//! What keeping a key takes of a flash: for plans.

use super::{BLOCK_BYTES, KeyShape, PAGE_HEADER_BYTES};

/// What a [`super::Log`] does to a flash to keep keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writing {
    /// Pages that are erased and written.
    pub pages: usize,
    /// Units that are programmed, those that are written in parts once per part.
    pub programmed: usize,
}

impl Writing {
    /// Of a key in pages of so many bytes, where units of `program` bytes are programmed at
    /// once. Pages begin with a unit.
    #[must_use]
    pub fn of(shape: &KeyShape, page: usize, program: usize) -> Self {
        let mut writer = Writer::new(page, program);
        shape.pieces().fold(Self::default(), |sum, piece| {
            let of_piece = writer.append(piece);
            Self {
                pages: sum.pages + of_piece.pages,
                programmed: sum.programmed + of_piece.programmed,
            }
        })
    }
}

/// A record that is written, piece by piece.
#[derive(Clone, Debug)]
pub struct Writer {
    page: usize,
    program: usize,
    written: usize,
}

impl Writer {
    /// In pages of so many bytes, where units of `program` bytes are programmed at once.
    #[must_use]
    pub const fn new(page: usize, program: usize) -> Self {
        Self {
            page,
            program,
            written: 0,
        }
    }

    /// What the next piece takes with its checksum; the first has the record's end too, which
    /// lies in its page.
    pub fn append(&mut self, piece: usize) -> Writing {
        let payload = self.page.saturating_sub(PAGE_HEADER_BYTES).max(1);
        let program = self.program.max(1);
        let mut writing = Writing::default();
        for part in [piece, BLOCK_BYTES] {
            let mut rest = part;
            while rest > 0 {
                let within = self.written % payload;
                if within == 0 {
                    writing.programmed += 1 + usize::from(self.written == 0);
                    writing.pages += 1;
                }
                let now = rest.min(payload - within);
                let start = PAGE_HEADER_BYTES + within;
                writing.programmed += (start + now - 1) / program - start / program + 1;
                self.written += now;
                rest -= now;
            }
        }
        writing
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
    use he_core::params::N4096_DEPTH3;

    use super::*;
    use crate::boards::BOARDS;
    use crate::kept::{KeyId, KeyStore, Log, PageEntry, RecordEntry};

    /// Counts what is erased and programmed.
    struct Counted<const ERASE: usize, const WRITE: usize> {
        bytes: Vec<u8>,
        program: usize,
        erased: Rc<Cell<usize>>,
        programmed: Rc<Cell<usize>>,
    }

    impl<const E: usize, const W: usize> ErrorType for Counted<E, W> {
        type Error = NorFlashErrorKind;
    }

    impl<const E: usize, const W: usize> ReadNorFlash for Counted<E, W> {
        const READ_SIZE: usize = 1;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
            let from = offset as usize;
            bytes.copy_from_slice(&self.bytes[from..from + bytes.len()]);
            Ok(())
        }

        fn capacity(&self) -> usize {
            self.bytes.len()
        }
    }

    impl<const E: usize, const W: usize> NorFlash for Counted<E, W> {
        const WRITE_SIZE: usize = W;
        const ERASE_SIZE: usize = E;

        fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
            self.bytes[from as usize..to as usize].fill(0xFF);
            self.erased.set(self.erased.get() + (to - from) as usize);
            Ok(())
        }

        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
            let (from, to) = (offset as usize, offset as usize + bytes.len());
            assert!(from.is_multiple_of(W) && bytes.len().is_multiple_of(W));
            self.bytes[from..to].copy_from_slice(bytes);
            // One at a time, as a chip takes them.
            let units: std::collections::BTreeSet<usize> =
                (from..to).map(|at| at / self.program).collect();
            self.programmed.set(self.programmed.get() + units.len());
            Ok(())
        }
    }

    fn counted<const E: usize, const W: usize>(name: &str) {
        let board = BOARDS.iter().find(|board| board.name == name).unwrap();
        let (flash, capacity) = (board.flash.unwrap(), board.kept_bytes);
        assert_eq!(flash.erase_bytes, E);
        let (erased, programmed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let medium = Counted::<E, W> {
            bytes: vec![0xA5; capacity],
            program: flash.program_bytes,
            erased: Rc::clone(&erased),
            programmed: Rc::clone(&programmed),
        };
        let mut pages = vec![PageEntry::EMPTY; flash.pages];
        let mut records = vec![RecordEntry::EMPTY; flash.records];
        let mut log = Log::mount(medium, &mut pages, &mut records).unwrap();
        log.begin();
        let shapes = [1, 3].map(|level| KeyShape::new(&N4096_DEPTH3, level, false));
        for (index, shape) in (0..).zip(&shapes) {
            let pieces: Vec<usize> = shape.pieces().collect();
            let size = shape.size();
            assert_eq!(
                (pieces.len(), pieces.iter().sum()),
                (size.pieces, size.bytes)
            );
            assert!(log.start(size));
            for piece in pieces {
                assert!(log.append(&vec![index; piece]));
            }
            assert!(log.commit(&KeyId([index; 16])));
        }
        let planned = flash.writing(capacity, shapes.into_iter());
        assert_eq!(planned.programmed, programmed.get(), "{name}");
        assert_eq!(
            planned.pages * flash.page_bytes(capacity),
            erased.get(),
            "{name}"
        );
        // What it comes to, from the counts alone.
        let seconds = erased.get() as f64 / E as f64 * f64::from(flash.erase_us)
            + programmed.get() as f64 * f64::from(flash.program_us);
        assert!((flash.seconds(capacity, planned) - 1e-6 * seconds).abs() < 1e-9);
        let all = capacity as u64 * u64::from(flash.erasures);
        assert_eq!(
            flash.exchanges(capacity, planned),
            all / erased.get() as u64
        );
    }

    #[test]
    fn what_is_planned_is_what_a_log_does() {
        counted::<4096, 4>("nrf52840-dk");
        counted::<{ 128 * 1024 }, 32>("nucleo-h743zi");
        counted::<4096, 1>("pico2");
        let flashes = BOARDS.iter().filter(|board| board.flash.is_some()).count();
        assert_eq!(flashes, 3);
    }
}
