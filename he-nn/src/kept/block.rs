//! Blocks of a [`super::Log`]: headers of pages and ends of records, and the checksums of
//! pieces.

use crc::{CRC_32_ISO_HDLC, Crc};

use super::{BLOCK_BYTES, KeyId};

/// One table, six instructions per byte on a Cortex-M4: a kept key is checked at every use.
/// With sixteen tables the crate checks bounds, and its panic would be in the image.
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const PAGE_MAGIC: [u8; 4] = *b"HEk1";
const COMMIT_MAGIC: [u8; 4] = *b"HEc1";

/// Generation of a page that is free.
pub(super) const FREE: u32 = 0;
/// Generation of a page that failed: it is not used before the next mount.
pub(super) const WORN: u32 = u32::MAX;

pub(super) type Block = [u8; BLOCK_BYTES];

/// Of a piece, its record and its place.
pub(super) fn checksum(generation: u32, start: usize, piece: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&generation.to_le_bytes());
    digest.update(&(start as u32).to_le_bytes());
    digest.update(piece);
    digest.finalize()
}

/// Puts the checksum of a block at its end.
fn sealed(mut block: Block) -> Block {
    if let Some((body, crc)) = block.split_last_chunk_mut() {
        *crc = CRC.checksum(body).to_le_bytes();
    }
    block
}

/// Takes fields off the front of a block whose checksum and magic are right.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn of(block: &'b Block, magic: [u8; 4]) -> Option<Self> {
        let (body, crc) = block.split_last_chunk()?;
        let mut fields = Self(body);
        let is_right = fields.take()? == magic && *crc == CRC.checksum(body).to_le_bytes();
        is_right.then_some(fields)
    }

    fn take<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

/// Puts fields into a block.
fn block_of(magic: [u8; 4], fields: [&[u8]; 3]) -> Block {
    let mut block = [0xFF; BLOCK_BYTES];
    let bytes = magic.iter().chain(fields.into_iter().flatten());
    for (to, from) in block.iter_mut().zip(bytes) {
        *to = *from;
    }
    sealed(block)
}

pub(super) fn page_header(generation: u32, index: u16) -> Block {
    let fields = [&generation.to_le_bytes()[..], &index.to_le_bytes(), &[]];
    block_of(PAGE_MAGIC, fields)
}

/// Generation and index; `None` for what is no header.
pub(super) fn read_header(block: &Block) -> Option<(u32, u16)> {
    let mut fields = Fields::of(block, PAGE_MAGIC)?;
    let generation = u32::from_le_bytes(fields.take()?);
    let index = u16::from_le_bytes(fields.take()?);
    (generation != FREE && generation != WORN).then_some((generation, index))
}

pub(super) fn commit_block(generation: u32, length: u32, id: &KeyId) -> Block {
    let fields = [&generation.to_le_bytes()[..], &length.to_le_bytes(), &id.0];
    block_of(COMMIT_MAGIC, fields)
}

/// Generation, length and id; `None` for what is no commit.
pub(super) fn read_commit(block: &Block) -> Option<(u32, u32, KeyId)> {
    let mut fields = Fields::of(block, COMMIT_MAGIC)?;
    let generation = u32::from_le_bytes(fields.take()?);
    let length = u32::from_le_bytes(fields.take()?);
    Some((generation, length, KeyId(fields.take()?)))
}
