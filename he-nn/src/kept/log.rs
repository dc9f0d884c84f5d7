//! Records over a NOR flash, or memory that is written as one.
//!
//! The medium is divided into pages, each a multiple of what the flash erases at once. A
//! record takes as many pages as it needs, wherever they lie, so nothing has to be moved
//! to make room:
//!
//! ```text
//! page:   | header 32 | commit 32 | blocks of 32 bytes ..                      |
//! stream: | seed | checksum | chunk | checksum | chunk | checksum | ..          |
//! ```
//!
//! What a loss of power leaves, at any write or erasure:
//!
//! - A record counts from its commit block on, which lies in its first page and is written
//!   last. Before that its pages are free at the next mount.
//! - To make room, the first page of a record is erased first: with its commit block goes
//!   the record.
//! - A page is erased before it is used again, whatever it holds.
//! - Headers, commit blocks and pieces carry checksums, those of pieces over the record's
//!   generation and their place too: a page that was half erased or half written, or that
//!   has worn out, gives no piece out. Writes are read back.
//!
//! Free pages are taken in turns, so all wear alike. Which records exist is kept in memory
//! of the caller and found again by [`Log::mount`].
//!
//! Why not `sequential-storage`: an item of its map has to fit a page, and lies in RAM as
//! a whole; a key of 143 KB does neither. It is asynchronous, too, where an evaluator does
//! one thing. The flash is behind `embedded-storage`'s trait, which drivers implement.

use core::fmt;
use core::num::NonZero;

use embedded_storage::nor_flash::NorFlash;

use super::block::{
    Block, FREE, WORN, checksum, commit_block, page_header, read_commit, read_header,
};
use super::{BLOCK_BYTES, KEY_ID_BYTES, KeyId, KeyStore, Piece, Record, RecordSize};

/// Bytes of a page that hold no piece: header and commit block.
pub const PAGE_HEADER_BYTES: usize = 2 * BLOCK_BYTES;

/// Bytes of a page where so many divide a medium that erases `erase` bytes at once, at the
/// least: a multiple of these, with room for more than a header; 0 for none of either.
#[must_use]
pub const fn page_bytes(capacity: usize, erase: usize, pages: usize) -> usize {
    let (erase, pages) = match (erase, pages) {
        (0, _) | (_, 0) => return 0,
        given => given,
    };
    let sectors = (capacity / erase).div_ceil(pages);
    let least = PAGE_HEADER_BYTES / erase + 1;
    if sectors < least {
        least * erase
    } else {
        sectors * erase
    }
}

/// No page.
const NONE: u16 = u16::MAX;
/// Index of a free page that is known to be erased.
const ERASED: u16 = 1;

/// What is known of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEntry {
    /// Of the record that it belongs to.
    generation: u32,
    /// Which of its pages.
    index: u16,
    /// Its next.
    next: u16,
}

impl PageEntry {
    /// Before a mount.
    pub const EMPTY: Self = Self {
        generation: FREE,
        index: 0,
        next: NONE,
    };
}

/// What is known of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordEntry {
    id: KeyId,
    /// Bytes of its stream; 0 for none.
    length: u32,
    generation: u32,
    first: u16,
    /// The inference that used it last.
    used: u32,
}

impl RecordEntry {
    /// Before a mount.
    pub const EMPTY: Self = Self {
        id: KeyId([0; KEY_ID_BYTES]),
        length: 0,
        generation: FREE,
        first: NONE,
        used: 0,
    };
}

/// Why a medium cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountError {
    /// Its units do not divide a block, or what it erases is no multiple of one.
    Units {
        /// Bytes that are written at once.
        write: usize,
        /// Bytes that are erased at once.
        erase: usize,
    },
    /// There is no page of it, or no memory to know one by.
    Small {
        /// Bytes of the medium.
        capacity: usize,
        /// Pages that there is memory for.
        pages: usize,
        /// Records that there is memory for.
        records: usize,
    },
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Units { write, erase } => write!(
                f,
                "a flash that writes {write} and erases {erase} bytes at once cannot keep keys in \
                 blocks of {BLOCK_BYTES}: use one whose units divide that"
            ),
            Self::Small {
                capacity,
                pages,
                records,
            } => write!(
                f,
                "no key can be kept in {capacity} bytes with {pages} pages and {records} records: \
                 allow more"
            ),
        }
    }
}

impl core::error::Error for MountError {}

/// A record that is being written.
#[derive(Clone, Copy, Debug)]
struct Open {
    slot: usize,
    size: RecordSize,
    /// Pieces and bytes of its stream so far.
    pieces: usize,
    written: usize,
    /// Its last page, and which that is.
    last: u16,
    pages: u16,
}

/// Where the last piece was read: the next one mostly lies there too.
#[derive(Clone, Copy, Debug)]
struct Place {
    generation: u32,
    index: usize,
    page: u16,
}

/// Keys over a flash; see the module.
#[derive(Debug)]
pub struct Log<'a, F> {
    flash: F,
    pages: &'a mut [PageEntry],
    records: &'a mut [RecordEntry],
    page_bytes: usize,
    /// Of these, bytes of the stream.
    payload: NonZero<usize>,
    /// Where the search for a free page goes on.
    turn: usize,
    generation: u32,
    inference: u32,
    open: Option<Open>,
    place: Option<Place>,
    uniforms: bool,
}

impl<'a, F: NorFlash> Log<'a, F> {
    /// Finds what the medium holds. Pages are as small as the memory for `pages` allows.
    ///
    /// # Errors
    /// [`MountError`].
    pub fn mount(
        flash: F,
        pages: &'a mut [PageEntry],
        records: &'a mut [RecordEntry],
    ) -> Result<Self, MountError> {
        let (write, erase) = (F::WRITE_SIZE, F::ERASE_SIZE);
        let divides = |unit: usize| unit != 0 && BLOCK_BYTES.is_multiple_of(unit);
        if !divides(write) || !divides(F::READ_SIZE) || erase == 0 || erase % BLOCK_BYTES != 0 {
            return Err(MountError::Units { write, erase });
        }
        let capacity = flash.capacity().min(u32::MAX as usize);
        let most = pages.len().min(usize::from(NONE));
        let small = MountError::Small {
            capacity,
            pages: pages.len(),
            records: records.len(),
        };
        if most == 0 || records.is_empty() {
            return Err(small);
        }
        let page_bytes = page_bytes(capacity, erase, most);
        let count = capacity.checked_div(page_bytes).unwrap_or_default();
        let payload = page_bytes.checked_sub(PAGE_HEADER_BYTES);
        let payload = payload.and_then(NonZero::new).ok_or(small)?;
        let pages = pages.get_mut(..count).filter(|pages| !pages.is_empty());
        let pages = pages.ok_or(small)?;
        records.fill(RecordEntry::EMPTY);
        let mut log = Self {
            flash,
            pages,
            records,
            page_bytes,
            payload,
            turn: 0,
            generation: FREE,
            inference: 1,
            open: None,
            place: None,
            uniforms: true,
        };
        log.scan();
        Ok(log)
    }

    /// The same for keys without their uniform halves, whatever room there is.
    #[must_use]
    pub const fn without_uniforms(mut self) -> Self {
        self.uniforms = false;
        self
    }

    /// Pages that a stream of so many bytes takes.
    fn pages_of(&self, bytes: usize) -> usize {
        bytes / self.payload + usize::from(bytes % self.payload != 0)
    }

    const fn address(&self, page: u16, within: usize) -> u32 {
        (page as usize * self.page_bytes + within) as u32
    }

    fn block(&mut self, page: u16, within: usize) -> Option<Block> {
        let mut block = [0; BLOCK_BYTES];
        let at = self.address(page, within);
        self.flash.read(at, &mut block).ok()?;
        Some(block)
    }

    fn scan(&mut self) {
        for page in 0..self.pages.len() as u16 {
            let header = self.block(page, 0).and_then(|b| read_header(&b));
            let (generation, index) = header.unwrap_or((FREE, 0));
            self.generation = self.generation.max(generation);
            self.set_page(page, generation, index);
        }
        for first in 0..self.pages.len() as u16 {
            let Some(&PageEntry {
                generation,
                index: 0,
                ..
            }) = self.page(first)
            else {
                continue;
            };
            // A second first page is none.
            let is_known = self.records.iter().any(|r| r.generation == generation);
            if is_known && generation != FREE {
                self.set_page(first, FREE, 0);
            } else if generation != FREE && !self.recover(first, generation) {
                self.free(generation);
            }
        }
        // Of records whose first page is gone.
        for page in 0..self.pages.len() as u16 {
            let generation = self.page(page).map_or(FREE, |page| page.generation);
            let is_known = self.records.iter().any(|r| r.generation == generation);
            if generation != FREE && !is_known {
                self.set_page(page, FREE, 0);
            }
        }
        self.turn = self.generation as usize % self.pages.len().max(1);
    }

    /// Takes up a record whose first page was found, if it is whole.
    fn recover(&mut self, first: u16, generation: u32) -> bool {
        let commit = self.block(first, BLOCK_BYTES);
        let Some((of, length, id)) = commit.and_then(|b| read_commit(&b)) else {
            return false;
        };
        let Some(slot) = self.records.iter().position(|r| r.length == 0) else {
            return false;
        };
        if of != generation || length == 0 {
            return false;
        }
        let count = self.pages_of(length as usize);
        let mut last = first;
        for index in 1..count {
            let found = self
                .pages
                .iter()
                .position(|p| p.generation == generation && usize::from(p.index) == index);
            let Some(page) = found else {
                return false;
            };
            if let Some(entry) = self.pages.get_mut(usize::from(last)) {
                entry.next = page as u16;
            }
            last = page as u16;
        }
        if let Some(record) = self.records.get_mut(slot) {
            *record = RecordEntry {
                id,
                length,
                generation,
                first,
                used: 0,
            };
        }
        true
    }

    fn page(&self, page: u16) -> Option<&PageEntry> {
        self.pages.get(usize::from(page))
    }

    fn set_page(&mut self, page: u16, generation: u32, index: u16) {
        if let Some(entry) = self.pages.get_mut(usize::from(page)) {
            *entry = PageEntry {
                generation,
                index,
                next: NONE,
            };
        }
    }

    /// Gives all pages of a generation back.
    fn free(&mut self, generation: u32) {
        for page in self.pages.iter_mut() {
            if page.generation == generation {
                *page = PageEntry::EMPTY;
            }
        }
        self.place = None;
    }

    /// Erases a page; one that fails is set aside.
    fn erase(&mut self, page: u16) -> bool {
        let (from, to) = (self.address(page, 0), self.address(page, self.page_bytes));
        let done = self.flash.erase(from, to).is_ok();
        if done {
            self.set_page(page, FREE, ERASED);
        } else {
            self.set_page(page, WORN, 0);
        }
        done
    }

    /// Forgets a record, on the medium first.
    fn evict(&mut self, slot: usize) {
        let Some(record) = self.records.get_mut(slot) else {
            return;
        };
        let RecordEntry {
            generation, first, ..
        } = *record;
        *record = RecordEntry::EMPTY;
        self.erase(first);
        self.free(generation);
    }

    /// Pages that records take which this inference has not used, and that are free.
    fn available(&self) -> usize {
        let is_available = |page: &&PageEntry| {
            let owner = || {
                self.records
                    .iter()
                    .find(|r| r.generation == page.generation)
            };
            page.generation == FREE
                || owner().is_some_and(|r| r.length != 0 && r.used != self.inference)
        };
        self.pages.iter().filter(is_available).count()
    }

    /// The record used longest ago, before this inference.
    fn oldest(&self) -> Option<usize> {
        let unused = self.records.iter().enumerate();
        let unused = unused.filter(|(_, r)| r.length != 0 && r.used != self.inference);
        let oldest = unused.min_by_key(|(_, r)| (r.used, r.generation));
        oldest.map(|(slot, _)| slot)
    }

    /// Makes room for a record; where it is entered.
    fn make_room(&mut self, needed: usize) -> Option<usize> {
        if self.available() < needed {
            return None;
        }
        loop {
            let free = self.pages.iter().filter(|p| p.generation == FREE).count();
            let slot = self.records.iter().position(|r| r.length == 0);
            match slot {
                Some(slot) if free >= needed => return Some(slot),
                _ => {
                    let oldest = self.oldest()?;
                    self.evict(oldest);
                }
            }
        }
    }

    /// Takes the next free page for the record that is written.
    fn take_page(&mut self, open: &mut Open) -> bool {
        let count = self.pages.len().max(1);
        let mut turns = (0..count).map(|i| (self.turn + i) % count);
        let is_free = |&page: &usize| self.pages.get(page).is_some_and(|p| p.generation == FREE);
        let Some(page) = turns.find(is_free) else {
            return false;
        };
        self.turn = page + 1;
        let page = page as u16;
        let is_erased = self.page(page).is_some_and(|p| p.index == ERASED);
        if !is_erased && !self.erase(page) {
            return false;
        }
        let header = page_header(self.generation, open.pages);
        if !self.write(page, 0, &header) {
            return false;
        }
        self.set_page(page, self.generation, open.pages);
        let before = match open.pages {
            0 => self.records.get_mut(open.slot).map(|r| &mut r.first),
            _ => {
                let last = self.pages.get_mut(usize::from(open.last));
                last.map(|p| &mut p.next)
            }
        };
        if let Some(before) = before {
            *before = page;
        }
        open.last = page;
        open.pages += 1;
        true
    }

    /// Writes, and reads back what was written: a page that does not hold it is set aside.
    fn write(&mut self, page: u16, within: usize, bytes: &[u8]) -> bool {
        let at = self.address(page, within);
        let mut is_held = self.flash.write(at, bytes).is_ok();
        for (i, wanted) in bytes.chunks(BLOCK_BYTES).enumerate() {
            let found = self.block(page, within + i * BLOCK_BYTES);
            is_held &= found.is_some_and(|found| found.starts_with(wanted));
        }
        if !is_held {
            self.set_page(page, WORN, 0);
        }
        is_held
    }

    /// Appends to the stream of the record that is written.
    fn push(&mut self, open: &mut Open, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let within = open.written % self.payload;
            if within == 0 && !self.take_page(open) {
                return false;
            }
            let room = (self.payload.get() - within).min(bytes.len());
            let (now, rest) = bytes.split_at_checked(room).unwrap_or_default();
            if !self.write(open.last, PAGE_HEADER_BYTES + within, now) {
                return false;
            }
            open.written += now.len();
            bytes = rest;
        }
        true
    }

    /// The page that holds so many bytes of a record's stream.
    fn seek(&mut self, record: &RecordEntry, offset: usize) -> Option<u16> {
        let wanted = offset / self.payload;
        let (mut index, mut page) = match self.place {
            Some(place) if place.generation == record.generation && place.index <= wanted => {
                (place.index, place.page)
            }
            _ => (0, record.first),
        };
        while index < wanted {
            page = self.page(page)?.next;
            index += 1;
        }
        self.page(page)?;
        self.place = Some(Place {
            generation: record.generation,
            index,
            page,
        });
        Some(page)
    }

    /// Reads from a record's stream.
    fn pull(&mut self, record: &RecordEntry, mut offset: usize, out: &mut [u8]) -> Option<()> {
        let mut rest = out;
        while !rest.is_empty() {
            let page = self.seek(record, offset)?;
            let within = offset % self.payload;
            let room = (self.payload.get() - within).min(rest.len());
            let (now, later) = rest.split_at_mut_checked(room)?;
            let at = self.address(page, PAGE_HEADER_BYTES + within);
            self.flash.read(at, now).ok()?;
            offset += now.len();
            rest = later;
        }
        Some(())
    }

    /// Forgets the record that is written.
    fn abandon(&mut self) {
        if let Some(open) = self.open.take() {
            if let Some(record) = self.records.get_mut(open.slot) {
                *record = RecordEntry::EMPTY;
            }
            self.free(self.generation);
        }
    }
}

impl<F: NorFlash> KeyStore for Log<'_, F> {
    const ON: bool = true;

    fn takes_uniforms(&self) -> bool {
        self.uniforms
    }

    fn has_room(&self, mut sizes: impl Iterator<Item = RecordSize>) -> bool {
        let sound = self.pages.iter().filter(|p| p.generation != WORN).count();
        let left = sizes.try_fold((sound, self.records.len()), |(pages, records), size| {
            let pages = pages.checked_sub(self.pages_of(size.stored()))?;
            Some((pages, records.checked_sub(1)?))
        });
        left.is_some()
    }

    fn begin(&mut self) {
        self.abandon();
        self.inference = self.inference.wrapping_add(1);
    }

    fn held(&mut self, ids: &mut [[u8; KEY_ID_BYTES]], stored: &[usize]) -> usize {
        let order = |r: &RecordEntry| (r.used, r.generation);
        let mut before = (u32::MAX, u32::MAX);
        let mut count = 0;
        for id in ids {
            let is_one = |r: &&RecordEntry| stored.contains(&(r.length as usize));
            let whole = self.records.iter().filter(|r| r.length != 0);
            let whole = whole.filter(is_one);
            let next = whole.filter(|r| order(r) < before).max_by_key(|r| order(r));
            let Some(record) = next else {
                break;
            };
            before = order(record);
            *id = record.id.0;
            count += 1;
        }
        count
    }

    fn find(&mut self, id: &KeyId, size: RecordSize) -> Option<Record> {
        let inference = self.inference;
        let mut records = (0..).zip(self.records.iter_mut());
        let (slot, record) =
            records.find(|(_, r)| r.id == *id && r.length as usize == size.stored())?;
        record.used = inference;
        Some(Record(slot))
    }

    fn start(&mut self, size: RecordSize) -> bool {
        self.abandon();
        let pages = self.pages_of(size.stored());
        // The last two stand for pages without a record.
        let is_left = self.generation < WORN - 1;
        let slot = match is_left && pages < usize::from(NONE) {
            true => self.make_room(pages),
            false => None,
        };
        let Some(slot) = slot else {
            return false;
        };
        self.generation += 1;
        self.open = Some(Open {
            slot,
            size,
            pieces: 0,
            written: 0,
            last: NONE,
            pages: 0,
        });
        true
    }

    fn append(&mut self, piece: &[u8]) -> bool {
        let Some(mut open) = self.open else {
            return false;
        };
        let mut block = [0xFF; BLOCK_BYTES];
        if let Some(crc) = block.first_chunk_mut() {
            *crc = checksum(self.generation, open.written, piece).to_le_bytes();
        }
        let fits = piece.len().is_multiple_of(BLOCK_BYTES)
            && open.written + piece.len() + BLOCK_BYTES <= open.size.stored();
        let done = fits && self.push(&mut open, piece) && self.push(&mut open, &block);
        open.pieces += 1;
        self.open = Some(open);
        if !done {
            self.abandon();
        }
        done
    }

    fn commit(&mut self, id: &KeyId) -> bool {
        let Some(open) = self.open else {
            return false;
        };
        let is_whole = open.pieces == open.size.pieces && open.written == open.size.stored();
        let first = self.records.get(open.slot).map_or(NONE, |r| r.first);
        let block = commit_block(self.generation, open.written as u32, id);
        if !is_whole || !self.write(first, BLOCK_BYTES, &block) {
            self.abandon();
            return false;
        }
        self.open = None;
        let (generation, inference) = (self.generation, self.inference);
        if let Some(record) = self.records.get_mut(open.slot) {
            *record = RecordEntry {
                id: *id,
                length: open.written as u32,
                generation,
                first,
                used: inference,
            };
        }
        true
    }

    fn read(&mut self, record: Record, piece: Piece, out: &mut [u8]) -> bool {
        let Some(&record) = self.records.get(usize::from(record.0)) else {
            return false;
        };
        let start = piece.start + piece.index * BLOCK_BYTES;
        if out.len() != piece.bytes || start + out.len() + BLOCK_BYTES > record.length as usize {
            return false;
        }
        let mut block = [0; BLOCK_BYTES];
        let read = self.pull(&record, start, out).is_some()
            && self
                .pull(&record, start + piece.bytes, &mut block)
                .is_some();
        read && block.first_chunk() == Some(&checksum(record.generation, start, out).to_le_bytes())
    }

    fn discard(&mut self, record: Record) {
        self.evict(usize::from(record.0));
    }
}

#[cfg(test)]
mod tests {
    use embedded_storage::nor_flash::{
        ErrorType, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
    };

    use super::*;

    type Word = [u8; 32];

    const ERASED: Word = [0xFF; 32];

    /// A flash with a correction code per word, as the STM32H743's: a word is programmed once, as
    /// a whole, and one at which the power was lost is not read again before it is erased.
    struct Corrected {
        words: Vec<Option<Word>>,
        /// Words that are programmed or erased until the power is lost.
        left: Option<u64>,
        is_off: bool,
        noise: u64,
    }

    impl Corrected {
        /// The next word is done, if it is not the one at which the power is lost.
        fn is_powered(&mut self) -> bool {
            match &mut self.left {
                Some(0) => self.is_off = true,
                Some(left) => *left -= 1,
                None => {}
            }
            !self.is_off
        }

        fn bit(&mut self) -> bool {
            self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005) | 1;
            self.noise >> 63 == 1
        }
    }

    impl ErrorType for Corrected {
        type Error = NorFlashErrorKind;
    }

    impl ReadNorFlash for Corrected {
        const READ_SIZE: usize = 4;

        fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
            check_read(self, offset, bytes.len())?;
            for (at, byte) in (offset as usize..).zip(bytes) {
                let word = self.words[at / 32].filter(|_| !self.is_off);
                *byte = word.ok_or(NorFlashErrorKind::Other)?[at % 32];
            }
            Ok(())
        }

        fn capacity(&self) -> usize {
            32 * self.words.len()
        }
    }

    impl NorFlash for Corrected {
        const WRITE_SIZE: usize = 32;
        const ERASE_SIZE: usize = 512;

        fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
            check_erase(self, from, to)?;
            let range = from as usize / 32..to as usize / 32;
            if self.is_off || !self.is_powered() {
                // Any of them may have lost what it held, or be erased.
                for index in range {
                    let left = [None, Some(ERASED), self.words[index]];
                    let which = usize::from(self.bit()) + usize::from(self.bit());
                    self.words[index] = left[which];
                }
                return Err(NorFlashErrorKind::Other);
            }
            self.words[range].fill(Some(ERASED));
            Ok(())
        }

        fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
            check_write(self, offset, bytes.len())?;
            for (index, word) in (offset as usize / 32..).zip(bytes.as_chunks().0) {
                if self.is_off {
                    return Err(NorFlashErrorKind::Other);
                }
                assert_eq!(
                    self.words[index],
                    Some(ERASED),
                    "word {index} is not erased"
                );
                self.words[index] = self.is_powered().then_some(*word);
            }
            match self.is_off {
                true => Err(NorFlashErrorKind::Other),
                false => Ok(()),
            }
        }
    }

    const SIZE: RecordSize = RecordSize {
        pieces: 5,
        bytes: 5 * 64,
    };

    fn keep<F: NorFlash>(log: &mut Log<'_, F>, key: u8) -> bool {
        log.begin();
        log.start(SIZE)
            && (0..5).all(|i| log.append(&[key ^ i; 64]))
            && log.commit(&KeyId([key; 16]))
    }

    /// Whether a key is held; it is whole then.
    fn holds<F: NorFlash>(log: &mut Log<'_, F>, key: u8) -> bool {
        let Some(record) = log.find(&KeyId([key; 16]), SIZE) else {
            return false;
        };
        for index in 0..5 {
            let piece = Piece {
                index,
                start: 64 * index,
                bytes: 64,
            };
            let mut out = [0; 64];
            assert!(log.read(record, piece, &mut out), "{key}: {index}");
            assert_eq!(out, [key ^ index as u8; 64]);
        }
        true
    }

    #[test]
    fn words_that_cannot_be_read_any_more_cost_the_key_that_was_written() {
        let mut unreadable = 0;
        for cut in 0..1000 {
            let mut flash = Corrected {
                words: vec![Some([0xA5; 32]); 7 * 16],
                left: None,
                is_off: false,
                noise: cut,
            };
            let (mut pages, mut records) = ([PageEntry::EMPTY; 7], [RecordEntry::EMPTY; 5]);
            let mut mount =
                |flash: &mut Corrected, run: &mut dyn FnMut(&mut Log<'_, &mut Corrected>)| {
                    run(&mut Log::mount(flash, &mut pages, &mut records).unwrap());
                };
            mount(&mut flash, &mut |log| {
                assert!((1..4).all(|key| keep(log, key)));
            });
            // A fourth takes the place of the first, and the power goes.
            flash.left = Some(cut % 24);
            let mut is_kept = true;
            mount(&mut flash, &mut |log| is_kept = keep(log, 4));
            (flash.left, flash.is_off) = (None, false);
            unreadable += usize::from(flash.words.iter().any(Option::is_none));
            mount(&mut flash, &mut |log| {
                assert!(holds(log, 2) && holds(log, 3));
                assert_eq!(holds(log, 4), is_kept, "{cut}");
                assert!(!(is_kept && holds(log, 1)));
                assert!(keep(log, 4) && holds(log, 4) && holds(log, 3));
            });
        }
        assert!(unreadable > 500, "{unreadable}");
    }
}
