//! A NOR flash that loses its power, and one that forgets.

use chacha20::ChaCha8Rng;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use rand_core::{Rng, SeedableRng};

/// A flash of the tests: erasing sets all bits of a sector, writing clears some, and only
/// where all were set. At the operation where its power is lost, part of it is done; every
/// later one fails until [`Self::restart`].
#[derive(Debug)]
pub struct UnreliableFlash {
    bytes: Vec<u8>,
    rng: ChaCha8Rng,
    operations: u64,
    /// Operations until the power is lost.
    left: Option<u64>,
    is_off: bool,
    /// Bytes of which some bits stay as they are.
    worn: Option<std::ops::Range<usize>>,
}

impl UnreliableFlash {
    /// Of so many sectors, full of anything.
    #[must_use]
    pub fn new(sectors: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut bytes = vec![0; sectors * Self::ERASE_SIZE];
        rng.fill_bytes(&mut bytes);
        Self {
            bytes,
            rng,
            operations: 0,
            left: None,
            is_off: false,
            worn: None,
        }
    }

    /// The power goes at this operation, counted from now on, 0 being the next.
    pub const fn cut_after(&mut self, operations: u64) {
        self.left = Some(operations);
    }

    /// Power is there again; whether it was lost.
    pub const fn restart(&mut self) -> bool {
        self.left = None;
        std::mem::replace(&mut self.is_off, false)
    }

    /// Operations so far.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// From now on these bytes do not take what is written.
    pub fn wear(&mut self, bytes: std::ops::Range<usize>) {
        self.worn = Some(bytes);
    }

    /// Changes a bit, as age does.
    pub fn flip(&mut self, byte: usize) {
        self.bytes[byte] ^= 1;
    }

    /// Whether the next operation is done as a whole, in part, or not at all.
    fn power(&mut self) -> Result<bool, NorFlashErrorKind> {
        if self.is_off {
            return Err(NorFlashErrorKind::Other);
        }
        self.operations += 1;
        match &mut self.left {
            Some(0) => {
                self.is_off = true;
                Ok(false)
            }
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => Ok(true),
        }
    }
}

impl ErrorType for UnreliableFlash {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for UnreliableFlash {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        check_read(self, offset, bytes.len())?;
        if self.is_off {
            return Err(NorFlashErrorKind::Other);
        }
        let start = offset as usize;
        bytes.copy_from_slice(&self.bytes[start..start + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl NorFlash for UnreliableFlash {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 512;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        check_erase(self, from, to)?;
        let is_whole = self.power()?;
        for at in from as usize..to as usize {
            let noise = self.rng.next_u32() as u8;
            // Half erased: some bits are set.
            self.bytes[at] |= if is_whole { 0xFF } else { noise };
        }
        is_whole.then_some(()).ok_or(NorFlashErrorKind::Other)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        check_write(self, offset, bytes.len())?;
        let is_whole = self.power()?;
        let written = match is_whole {
            true => bytes.len(),
            false => self.rng.next_u32() as usize % bytes.len(),
        };
        for (i, &byte) in bytes.iter().enumerate() {
            let at = offset as usize + i;
            assert!(
                self.bytes[at] == 0xFF || self.worn.is_some(),
                "byte {at} was not erased before it was written"
            );
            let noise = self.rng.next_u32() as u8;
            self.bytes[at] &= match i.cmp(&written) {
                std::cmp::Ordering::Less => byte,
                std::cmp::Ordering::Equal if !is_whole => byte | noise,
                _ => 0xFF,
            };
            if self.worn.as_ref().is_some_and(|worn| worn.contains(&at)) {
                self.bytes[at] |= 0x11;
            }
        }
        is_whole.then_some(()).ok_or(NorFlashErrorKind::Other)
    }
}
