//! Where the board keeps switching keys, which the memory map calls `_kept_start` to
//! `_kept_end`: in external memory, or in a flash whose driver is the board's file under
//! `kept`. With the feature `kept-flash` an emulated board's memory is used as a NOR flash would be.

#[cfg(not(board = "mps2-an386-256k"))]
mod selected {
    use core::mem::MaybeUninit;
    use core::ptr::addr_of;

    use he_nn::kept::{Log, PageEntry, RecordEntry};

    use super::medium::{self, Flash, PAGES, RECORDS};

    /// A table of the store, beside the keys where these lie in memory.
    type Table<T, const LEN: usize> = MaybeUninit<[T; LEN]>;

    #[unsafe(link_section = ".bss.kept")]
    static mut PAGE_TABLE: Table<PageEntry, PAGES> = MaybeUninit::uninit();
    #[unsafe(link_section = ".bss.kept")]
    static mut RECORD_TABLE: Table<RecordEntry, RECORDS> = MaybeUninit::uninit();

    unsafe extern "C" {
        // Addresses, set by the memory map; there is nothing to read behind them.
        static _kept_start: u32;
        static _kept_end: u32;
    }

    pub(crate) type Store = Option<Log<'static, Flash>>;

    /// The store, once.
    pub(crate) fn store() -> Store {
        let _once = cortex_m::singleton!(: () = ())?;
        let start = addr_of!(_kept_start) as usize;
        let length = (addr_of!(_kept_end) as usize).checked_sub(start)?;
        let (pages, records) = ((&raw mut PAGE_TABLE).cast(), (&raw mut RECORD_TABLE).cast());
        let Some(flash) = medium::flash(start, length) else {
            defmt::error!("there is no flash for keys; each is streamed at every use");
            return None;
        };
        // SAFETY: statics of these lengths, which are taken here only, once.
        let pages = unsafe { filled(pages, PageEntry::EMPTY, PAGES) };
        // SAFETY: as before.
        let records = unsafe { filled(records, RecordEntry::EMPTY, RECORDS) };
        let mounted = Log::mount(flash, pages, records);
        if mounted.is_err() {
            defmt::error!("there is no room for keys; each is streamed at every use");
        }
        mounted.ok().map(medium::chosen)
    }

    /// Fills a table, which nothing has done before, entry by entry: it is larger than the
    /// stack.
    ///
    /// # Safety
    /// `table` is valid for `count` entries and for as long as the program runs, and nobody
    /// else has it.
    unsafe fn filled<T: Copy>(table: *mut T, empty: T, count: usize) -> &'static mut [T] {
        for index in 0..count {
            // SAFETY: within the table.
            unsafe { table.add(index).write(empty) };
        }
        // SAFETY: all of it is written, and it is the caller's.
        unsafe { core::slice::from_raw_parts_mut(table, count) }
    }
}

#[cfg(board = "mps2-an386-256k")]
mod selected {
    pub(crate) type Store = he_nn::kept::Nothing;

    /// Keeps nothing.
    pub(crate) const fn store() -> Store {
        he_nn::kept::Nothing
    }
}

/// External memory.
#[cfg(any(board = "mps2-an386", board = "mps2-an500", board = "mps2-an505"))]
mod medium {
    use core::ptr;

    use he_nn::kept::{BOARD_PAGES, Log, MAX_HELD};

    #[cfg(not(feature = "kept-flash"))]
    pub(super) type Flash = he_nn::kept::MemoryFlash<'static>;
    #[cfg(feature = "kept-flash")]
    pub(super) type Flash = super::flash::NorModel<'static>;

    pub(super) const PAGES: usize = BOARD_PAGES;
    pub(super) const RECORDS: usize = MAX_HELD;

    /// The memory from an address on, for whoever calls once.
    pub(super) fn flash(start: usize, length: usize) -> Option<Flash> {
        let _once = cortex_m::singleton!(: () = ())?;
        // SAFETY: the memory map gives these bytes to nothing else, and this line is reached
        // once. They are external memory, of which every value is one of a byte.
        let memory = unsafe {
            core::slice::from_raw_parts_mut(ptr::with_exposed_provenance_mut::<u8>(start), length)
        };
        Some(Flash::new(memory))
    }

    /// With uniform halves where there is room.
    pub(super) const fn chosen(log: Log<'static, Flash>) -> Log<'static, Flash> {
        log
    }
}

#[cfg(board = "nrf52840-dk")]
#[path = "kept/nrf52840_dk.rs"]
mod driver;
#[cfg(board = "nucleo-h743zi")]
#[path = "kept/nucleo_h743zi.rs"]
mod driver;
#[cfg(board = "pico2")]
#[path = "kept/pico2.rs"]
mod driver;

/// A chip's flash.
#[cfg(any(board = "nrf52840-dk", board = "nucleo-h743zi", board = "pico2"))]
mod medium {
    use he_nn::kept::Log;

    pub(super) use super::driver::{Flash, flash};

    // Of the board's entry.
    include!(concat!(env!("OUT_DIR"), "/kept.rs"));

    /// Without uniform halves, which take two and a half times as long to write and no less to
    /// read than to expand.
    pub(super) fn chosen(log: Log<'static, Flash>) -> Log<'static, Flash> {
        log.without_uniforms()
    }
}

/// A NOR flash as QSPI chips are: sectors of 4 KiB, and writing only clears bits.
#[cfg(all(
    feature = "kept-flash",
    any(board = "mps2-an386", board = "mps2-an500", board = "mps2-an505")
))]
mod flash {
    use embedded_storage::nor_flash::{
        ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_write,
    };
    use he_nn::kept::MemoryFlash;

    /// Over memory.
    pub(crate) struct NorModel<'a>(MemoryFlash<'a>);

    impl<'a> NorModel<'a> {
        pub(crate) const fn new(memory: &'a mut [u8]) -> Self {
            Self(MemoryFlash::new(memory))
        }
    }

    impl ErrorType for NorModel<'_> {
        type Error = NorFlashErrorKind;
    }

    impl ReadNorFlash for NorModel<'_> {
        const READ_SIZE: usize = 4;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
            self.0.read(offset, bytes)
        }

        fn capacity(&self) -> usize {
            self.0.capacity()
        }
    }

    impl NorFlash for NorModel<'_> {
        const WRITE_SIZE: usize = 4;
        const ERASE_SIZE: usize = 4096;

        fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
            check_erase(self, from, to)?;
            self.0.erase(from, to)
        }

        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
            check_write(self, offset, bytes.len())?;
            let mut at = offset;
            for word in bytes.chunks(Self::WRITE_SIZE) {
                let mut cleared = [0; Self::WRITE_SIZE];
                self.0.read(at, &mut cleared)?;
                for (bits, wanted) in cleared.iter_mut().zip(word) {
                    *bits &= wanted;
                }
                self.0.write(at, &cleared)?;
                at = at.saturating_add(Self::WRITE_SIZE as u32);
            }
            Ok(())
        }
    }
}

pub(crate) use selected::*;
