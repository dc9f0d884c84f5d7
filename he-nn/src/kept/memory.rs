//! Memory as a flash: what a [`super::Log`] keeps in RAM.

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

/// A caller's memory that is written and erased as a NOR flash is, at no such cost.
#[derive(Debug)]
pub struct MemoryFlash<'a>(&'a mut [u8]);

impl<'a> MemoryFlash<'a> {
    /// Bytes that are erased at once.
    pub const SECTOR_BYTES: usize = 1024;

    /// Over `memory`, whatever it holds.
    #[must_use]
    pub const fn new(memory: &'a mut [u8]) -> Self {
        Self(memory)
    }

    fn part(&mut self, offset: u32, length: usize) -> Result<&mut [u8], NorFlashErrorKind> {
        let start = offset as usize;
        let end = start.saturating_add(length);
        self.0
            .get_mut(start..end)
            .ok_or(NorFlashErrorKind::OutOfBounds)
    }
}

/// As `copy_from_slice`, without its panic where lengths differ, which they do not.
fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

impl ErrorType for MemoryFlash<'_> {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for MemoryFlash<'_> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        check_read(self, offset, bytes.len())?;
        let part = self.part(offset, bytes.len())?;
        copy(bytes, part);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.0.len()
    }
}

impl NorFlash for MemoryFlash<'_> {
    const WRITE_SIZE: usize = 1;
    const ERASE_SIZE: usize = Self::SECTOR_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        check_erase(self, from, to)?;
        self.part(from, to.saturating_sub(from) as usize)?
            .fill(0xFF);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        check_write(self, offset, bytes.len())?;
        copy(self.part(offset, bytes.len())?, bytes);
        Ok(())
    }
}
