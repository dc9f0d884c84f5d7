//! Blocks of a [`super::Log`]: headers of pages and ends of records, and the checksums of
//! pieces.

use crc::{CRC_32_ISO_HDLC, Crc};

use super::{BLOCK_BYTES, KeyId};

/// Of headers and ends. With sixteen tables the crate checks bounds, and its panic would be
/// in the image.
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

const PAGE_MAGIC: [u8; 4] = *b"HEk2";
const COMMIT_MAGIC: [u8; 4] = *b"HEc2";

/// `FACTOR 2^32 - 1` is prime (a test says so).
const FACTOR: u32 = 0xFFFF_FFCF;

/// Generation of a page that is free.
pub(super) const FREE: u32 = 0;
/// Generation of a page that failed: it is not used before the next mount.
pub(super) const WORN: u32 = u32::MAX;

pub(super) type Block = [u8; BLOCK_BYTES];

/// Of a piece, its record and its place: their words as one number, modulo the prime
/// `p = FACTOR 2^32 - 1`, as a CRC is a remainder modulo a polynomial.
///
/// A kept key is checked at every use, so this is read 1.5 MB at a time for `mnist-mlp64`:
/// one multiplication per word on a Cortex-M4, where a CRC takes six instructions per
/// *byte*. It is to notice what becomes of a page that wears out or was half written: two
/// pieces have the same checksum only if they differ by a multiple of `p`, so damage within
/// 63 bits is always seen, and other damage is missed once in 2^63. It is no defence
/// against someone who writes to the memory: that is the evaluator itself, which nobody
/// trusts with the answer. What a key *is* was named by its [`KeyId`], in SHA-256, when it
/// was streamed.
///
/// With `low + 2^32 high` for the number `s` so far, the next word `w` gives
/// `FACTOR low + high + w = s / 2^32 + w` modulo `p`, which never leaves 64 bits.
pub(super) fn checksum(generation: u32, start: usize, piece: &[u8]) -> u64 {
    let mut sum = (u64::from(generation) << 32) | u64::from(start as u32);
    // A piece is a multiple of a block.
    let (words, _) = piece.as_chunks();
    for &word in words {
        sum = step(sum, u32::from_le_bytes(word));
    }
    sum
}

#[inline(always)]
const fn step(sum: u64, word: u32) -> u64 {
    FACTOR as u64 * (sum & 0xFFFF_FFFF) + (sum >> 32) + word as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    const P: u128 = ((FACTOR as u128) << 32) - 1;

    fn power(base: u128, mut exponent: u128) -> u128 {
        let (mut result, mut base) = (1, base % P);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * base % P;
            }
            base = base * base % P;
            exponent >>= 1;
        }
        result
    }

    /// Miller and Rabin's test by the first twelve primes decides below 3.3e24 (Sorenson
    /// and Webster 2015).
    #[test]
    fn the_modulus_is_prime() {
        let twos = (P - 1).trailing_zeros();
        for base in [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37] {
            let mut x = power(base, (P - 1) >> twos);
            let mut is_witness = x != 1 && x != P - 1;
            for _ in 1..twos {
                x = x * x % P;
                is_witness &= x != P - 1;
            }
            assert!(!is_witness, "{base}");
        }
    }

    #[test]
    fn a_checksum_is_a_number_modulo_the_prime() {
        let piece: Vec<u8> = (0..96u32).map(|i| (i * i * 37 + 11) as u8).collect();
        let inverse = power(1 << 32, P - 2);
        let mut expected = ((7u128 << 32) | 640) % P;
        for word in piece.chunks_exact(4) {
            let word = u32::from_le_bytes(word.try_into().unwrap());
            expected = (expected * inverse + u128::from(word)) % P;
        }
        assert_eq!(u128::from(checksum(7, 640, &piece)) % P, expected);
        // Any damage within 63 bits, another place and another record.
        let whole = checksum(7, 640, &piece);
        for first in 0..(piece.len() - 8) * 8 {
            for pattern in [
                1u64,
                0b11,
                (1 << 62) | 1,
                (1 << 63) - 1,
                0x5A5A_1234_0F0F_7777 >> 1,
            ] {
                let mut damaged = piece.clone();
                let window = first / 8..first / 8 + 8;
                let before = u64::from_le_bytes(damaged[window.clone()].try_into().unwrap());
                let bits = pattern << (first % 8);
                damaged[window].copy_from_slice(&(before ^ bits).to_le_bytes());
                assert_ne!(checksum(7, 640, &damaged), whole, "{first} {pattern:x}");
            }
        }
        assert_ne!(checksum(8, 640, &piece), whole);
        assert_ne!(checksum(7, 672, &piece), whole);
    }
}
