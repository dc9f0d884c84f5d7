//! Frames on the link: postcard, then a CRC-32, then COBS, then `0x00`.
//!
//! ```text
//! | COBS( postcard message | CRC-32/ISO-HDLC, little endian ) | 0x00 |
//! ```
//!
//! COBS removes every zero from the frame's body, so a zero on the wire is
//! always the end of a frame: whatever was lost or damaged, the reader is
//! back in step at the next zero. Two zeros in a row enclose nothing and are
//! ignored, so a sender that does not know what went before starts with a
//! zero.
//!
//! Contract of this module: no input makes it panic, and a frame is either
//! delivered as it was encoded or reported as a [`LinkError`], once per
//! delimiter. The CRC is against accidents, not against an adversary; the
//! messages hold nothing that needs protection from one.
//!
//! Why not postcard-rpc (0.12): it has the same encoding and framing, but its server is
//! async throughout, while an evaluator does one thing and wants a plain loop whose
//! stack can be measured. Its host client needs tokio. It pairs one response with one
//! request, so a credit window would stand beside it. Its frames carry no checksum, so a
//! flipped bit in a ciphertext would go unnoticed, and its accumulator restarts in the
//! middle of an overlong frame instead of at the next delimiter.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

use core::ffi::CStr;
use core::fmt;
use core::ops::{Index, IndexMut};

use crc::{CRC_32_ISO_HDLC, Crc};
use postcard::ser_flavors::{Cobs, Flavor, crc::CrcModifier};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::message::MAX_CHUNK_BYTES;

/// Ends every frame and occurs nowhere else.
pub const DELIMITER: u8 = 0;

/// What a message adds to the chunk that it carries, at most: two variant
/// tags, three indices, a 16-bit offset and a length as varints.
const MESSAGE_OVERHEAD: usize = 2 + 3 + 3 + 3;

/// Bytes of the checksum.
const CRC_BYTES: usize = 4;

/// Largest decoded frame: message and checksum. What a [`FrameReader`] needs
/// to hold every legal frame.
pub const MAX_DECODED: usize = MAX_CHUNK_BYTES + MESSAGE_OVERHEAD + CRC_BYTES;

/// Largest frame on the wire, delimiter included: COBS adds one byte for
/// every 254 that were begun.
pub const MAX_FRAME: usize = MAX_DECODED + MAX_DECODED.div_ceil(254) + 1;

/// One 1 KiB table: about six instructions per byte on a Cortex-M4.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Why a frame could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The message does not fit the buffer that it was to be encoded into.
    Buffer {
        /// Length of the buffer.
        capacity: usize,
    },
    /// A frame is longer than any legal one.
    TooLong {
        /// Bytes before the delimiter.
        received: u32,
        /// Decoded bytes that a frame may have.
        capacity: usize,
    },
    /// A frame ended inside a COBS block or is shorter than its checksum.
    Truncated {
        /// Bytes before the delimiter.
        received: u32,
    },
    /// A frame was damaged.
    Checksum {
        /// Bytes before the delimiter.
        received: u32,
        /// The checksum that the frame carries.
        carried: u32,
        /// The checksum of the bytes that arrived.
        computed: u32,
    },
    /// An undamaged frame holds no message of the expected type, or bytes
    /// after it.
    Encoding {
        /// Bytes before the delimiter.
        received: u32,
    },
}

impl LinkError {
    /// Bytes of the offending frame as received, without the delimiter; 0
    /// where the error is not about a received frame.
    #[must_use]
    pub const fn received(&self) -> u32 {
        match *self {
            Self::Buffer { .. } => 0,
            Self::TooLong { received, .. }
            | Self::Truncated { received }
            | Self::Checksum { received, .. }
            | Self::Encoding { received } => received,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Buffer { capacity } => {
                write!(
                    f,
                    "the message does not fit a frame buffer of {capacity} bytes"
                )
            }
            Self::TooLong { received, capacity } => write!(
                f,
                "a frame of {received} bytes is longer than the {capacity} that the protocol allows"
            ),
            Self::Truncated { received } => write!(f, "a frame broke off after {received} bytes"),
            Self::Checksum {
                received,
                carried,
                computed,
            } => write!(
                f,
                "a frame of {received} bytes was damaged \
                 (it carries the checksum {carried:#010x}, its bytes have {computed:#010x})"
            ),
            Self::Encoding { received } => write!(
                f,
                "a frame of {received} bytes holds no message of this protocol version"
            ),
        }
    }
}

impl core::error::Error for LinkError {}

/// Encodes one message as a frame, delimiter included, at the start of
/// `buffer`. [`MAX_FRAME`] bytes are enough for every request, and for every
/// reply whose strings (a board's or a model's name, a source path) are shorter
/// than a chunk.
///
/// # Errors
/// [`LinkError::Buffer`] where `buffer` is too short.
pub fn encode<'b, T: Serialize>(message: &T, buffer: &'b mut [u8]) -> Result<&'b [u8], LinkError> {
    let capacity = buffer.len();
    let full = |_| LinkError::Buffer { capacity };
    let flavor = CrcModifier::new(
        Cobs::try_new(FrameBuffer::new(buffer)).map_err(full)?,
        CRC.digest(),
    );
    let frame: &[u8] = postcard::serialize_with_flavor(message, flavor).map_err(full)?;
    Ok(frame)
}

/// Where a frame is written: postcard's `Slice`, without its panic at an index
/// beyond the buffer, which [`Cobs`] never asks for.
struct FrameBuffer<'b> {
    bytes: &'b mut [u8],
    used: usize,
    beyond: u8,
}

impl<'b> FrameBuffer<'b> {
    const fn new(bytes: &'b mut [u8]) -> Self {
        Self {
            bytes,
            used: 0,
            beyond: 0,
        }
    }
}

impl<'b> Flavor for FrameBuffer<'b> {
    type Output = &'b [u8];

    #[inline(always)]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        let full = postcard::Error::SerializeBufferFull;
        *self.bytes.get_mut(self.used).ok_or(full)? = data;
        self.used += 1;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<&'b [u8]> {
        let full = postcard::Error::SerializeBufferFull;
        self.bytes.get(..self.used).ok_or(full)
    }
}

impl Index<usize> for FrameBuffer<'_> {
    type Output = u8;

    fn index(&self, index: usize) -> &u8 {
        self.bytes.get(index).unwrap_or(&self.beyond)
    }
}

impl IndexMut<usize> for FrameBuffer<'_> {
    fn index_mut(&mut self, index: usize) -> &mut u8 {
        self.bytes.get_mut(index).unwrap_or(&mut self.beyond)
    }
}

/// A complete frame whose checksum is right; borrows the reader's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    message: &'a [u8],
    received: u32,
}

impl<'a> Frame<'a> {
    /// Decodes the message without copying what it borrows.
    ///
    /// # Errors
    /// [`LinkError::Encoding`] where the frame holds something else, or more.
    pub fn decode<T: Deserialize<'a>>(&self) -> Result<T, LinkError> {
        match postcard::take_from_bytes(self.message) {
            Ok((message, [])) => Ok(message),
            _ => Err(LinkError::Encoding {
                received: self.received,
            }),
        }
    }

    /// The postcard-encoded message.
    #[must_use]
    pub const fn message(&self) -> &'a [u8] {
        self.message
    }

    /// Bytes that the frame took on the wire, without its delimiter.
    #[must_use]
    pub const fn received(&self) -> u32 {
        self.received
    }
}

/// How far a frame has come.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Decoded bytes in the buffer.
    length: usize,
    /// Bytes since the last delimiter, modulo 2^32.
    received: u32,
    /// Bytes that the current COBS block still has.
    run: u8,
    /// Code of the current COBS block; [`Progress::FULL`] is followed by no zero.
    code: u8,
    /// A byte found no room.
    overlong: bool,
}

impl Progress {
    /// Code of a block of 254 bytes without a zero after it. Also the state
    /// before the first block, which nothing precedes.
    const FULL: u8 = 0xFF;

    const NONE: Self = Self {
        length: 0,
        received: 0,
        run: 0,
        code: Self::FULL,
        overlong: false,
    };

    /// Takes bytes of which none is a delimiter, block by block.
    fn take(&mut self, mut bytes: &[u8], buffer: &mut [u8]) {
        self.received = self.received.wrapping_add(bytes.len() as u32);
        while let Some((&code, rest)) = bytes.split_first() {
            if self.run == 0 {
                if self.code != Self::FULL {
                    self.store(&[0], buffer);
                }
                self.code = code;
                self.run = code.wrapping_sub(1);
                bytes = rest;
            } else {
                let (block, rest) = bytes.split_at(bytes.len().min(self.run.into()));
                self.store(block, buffer);
                self.run -= block.len() as u8;
                bytes = rest;
            }
        }
    }

    fn store(&mut self, bytes: &[u8], buffer: &mut [u8]) {
        let room = buffer.get_mut(self.length..).unwrap_or_default();
        match room.get_mut(..bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            None => self.overlong = true,
        }
    }
}

/// Takes bytes as they arrive and gives out frames. COBS is undone on the way
/// into the one buffer; `N` bounds the decoded length.
#[derive(Debug)]
pub struct FrameReader<const N: usize = MAX_DECODED> {
    buffer: [u8; N],
    progress: Progress,
    /// The last frame was given out: its bytes go with the next one.
    given_out: bool,
}

impl<const N: usize> Default for FrameReader<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> FrameReader<N> {
    /// An empty reader.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            buffer: [0; N],
            progress: Progress::NONE,
            given_out: false,
        }
    }

    /// Takes bytes until a frame is complete or there are none left. The slice
    /// begins behind the frame's delimiter afterwards, so the call is repeated
    /// until it gives `None`.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Option<Result<Frame<'_>, LinkError>> {
        if self.given_out {
            self.reset();
        }
        // The delimiter is what ends a C string: `core` looks for it word by word.
        while let Ok(before) = CStr::from_bytes_until_nul(bytes) {
            let before = before.to_bytes();
            self.progress.take(before, &mut self.buffer);
            *bytes = bytes.get(before.len() + 1..).unwrap_or_default();
            if self.progress.received != 0 {
                return Some(self.finish());
            }
        }
        self.progress.take(bytes, &mut self.buffer);
        *bytes = &[];
        None
    }

    /// Forgets a frame that has begun.
    pub const fn reset(&mut self) {
        self.progress = Progress::NONE;
        self.given_out = false;
    }

    /// Overwrites the frame that it gave out last, if none has begun since.
    pub fn erase_given_out(&mut self) {
        if self.given_out {
            self.buffer.zeroize();
            self.reset();
        }
    }

    /// True while bytes of an unfinished frame are held.
    #[must_use]
    pub const fn mid_frame(&self) -> bool {
        self.progress.received != 0 && !self.given_out
    }

    #[inline(never)]
    fn finish(&mut self) -> Result<Frame<'_>, LinkError> {
        self.given_out = true;
        let Progress {
            length,
            received,
            run,
            overlong,
            ..
        } = self.progress;
        if overlong {
            return Err(LinkError::TooLong {
                received,
                capacity: N,
            });
        }
        if run != 0 {
            return Err(LinkError::Truncated { received });
        }
        let decoded = self.buffer.get(..length).unwrap_or(&[]);
        let Some((message, checksum)) = decoded.split_last_chunk::<CRC_BYTES>() else {
            return Err(LinkError::Truncated { received });
        };
        let carried = u32::from_le_bytes(*checksum);
        let computed = CRC.checksum(message);
        if carried != computed {
            return Err(LinkError::Checksum {
                received,
                carried,
                computed,
            });
        }
        Ok(Frame { message, received })
    }
}

#[cfg(test)]
mod tests {
    use core::slice;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::kept::{KEY_ID_BYTES, KeyId, MAX_HELD};
    use crate::message::{
        Card, Fault, Held, Item, MAX_STAGES, Memory, PROTOCOL_VERSION, Refusal, Reply, Request,
        Stage, TimeUnit,
    };
    use crate::trace::{Place, Span, SpanKind};

    fn frame_of<T: Serialize>(message: &T) -> Vec<u8> {
        let mut buffer = [0xAA; MAX_FRAME];
        encode(message, &mut buffer).unwrap().to_vec()
    }

    /// Every event that a reader reports for these bytes, messages as bytes.
    fn events<const N: usize>(
        reader: &mut FrameReader<N>,
        bytes: &[u8],
    ) -> Vec<Result<Vec<u8>, LinkError>> {
        let mut bytes = bytes;
        let mut found = Vec::new();
        while let Some(event) = reader.read(&mut bytes) {
            found.push(event.map(|frame| frame.message().to_vec()));
        }
        found
    }

    fn chunk() -> [u8; MAX_CHUNK_BYTES] {
        // A linear congruence: every byte value occurs, zeros included.
        let mut state = 1u32;
        core::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
    }

    fn largest_request(bytes: &[u8]) -> Request<'_> {
        let item = Item::Key {
            key: 255,
            limb: 255,
            digit: 255,
        };
        Request::Data {
            item,
            offset: u16::MAX,
            bytes,
        }
    }

    fn done() -> Reply<'static> {
        let stage = Stage {
            step: 7,
            time: u64::MAX,
        };
        Reply::Done {
            scale_bits: u64::MAX,
            memory: Memory {
                static_bytes: u32::MAX,
                stack_peak_bytes: u32::MAX,
            },
            stages: (0..MAX_STAGES).map(|_| stage).collect(),
            busy: u64::MAX,
        }
    }

    #[test]
    fn the_largest_messages_fit_the_constants() {
        for bytes in [[0; MAX_CHUNK_BYTES], [1; MAX_CHUNK_BYTES], chunk()] {
            let request = largest_request(&bytes);
            let decoded = postcard::to_allocvec(&request).unwrap().len() + CRC_BYTES;
            assert!(decoded <= MAX_DECODED);
            assert!(frame_of(&request).len() <= MAX_FRAME);
            let reply = Reply::Result {
                part: 1,
                limb: 255,
                offset: u16::MAX,
                bytes: &bytes,
            };
            assert!(frame_of(&reply).len() <= MAX_FRAME);
        }
        assert!(frame_of(&done()).len() <= MAX_FRAME);
    }

    #[test]
    fn requests_and_replies_survive_the_link() {
        let chunk = chunk();
        let requests = [
            Request::Hello {
                version: PROTOCOL_VERSION,
            },
            Request::Begin {
                plan: 0xDEAD_BEEF,
                trace: true,
            },
            Request::Seed { seed: [0; 32] },
            largest_request(&chunk),
            Request::Data {
                item: Item::Input {
                    ciphertext: 0,
                    limb: 0,
                },
                offset: 0,
                bytes: &[],
            },
            Request::Kept {
                key: KeyId([7; KEY_ID_BYTES]),
            },
            Request::Abort,
            Request::Trace,
        ];
        let wire: Vec<u8> = requests.iter().flat_map(frame_of).collect();
        let mut reader = FrameReader::<MAX_DECODED>::new();
        let mut bytes = &wire[..];
        for request in requests {
            let frame = reader.read(&mut bytes).unwrap().unwrap();
            assert_eq!(frame.decode::<Request<'_>>(), Ok(request));
        }
        assert!(reader.read(&mut bytes).is_none());

        let replies = [
            Reply::Hello(Card {
                version: 1,
                board: "mps2-an386",
                model: "mnist-mlp64",
                model_crc: 1,
                params: 2,
                plan: 3,
                window: 8064,
                unit: TimeUnit::Instructions,
            }),
            Reply::Ready {
                held: Held::new(&[[0; KEY_ID_BYTES]; MAX_HELD]),
            },
            Reply::Ack,
            Reply::Result {
                part: 0,
                limb: 0,
                offset: 512,
                bytes: &chunk,
            },
            done(),
            Reply::Span(Span {
                kind: SpanKind::Send,
                place: Place::Step(7),
                count: 255,
                start: (1 << 48) - 1,
                length: u32::MAX,
                busy: 0,
            }),
            Reply::Traced {
                dropped: 1,
                own: u64::MAX,
            },
            Reply::Refused(Refusal::Frame { received: 70_000 }),
            Reply::Fault(Fault::Panic {
                file: "src/main.rs",
                line: 7,
            }),
        ];
        for reply in replies {
            let mut reader = FrameReader::<MAX_DECODED>::new();
            let wire = frame_of(&reply);
            let frame = reader.read(&mut &wire[..]).unwrap().unwrap();
            assert_eq!(frame.decode::<Reply<'_>>(), Ok(reply));
            assert_eq!(frame.received() as usize + 1, wire.len());
        }
    }

    #[test]
    fn frame_layout_is_fixed() {
        // Postcard 00 01; its CRC-32 by zlib is 0x36DE2269; COBS by hand.
        assert_eq!(
            frame_of(&Request::Hello { version: 1 }),
            [0x01, 0x06, 0x01, 0x69, 0x22, 0xDE, 0x36, 0x00]
        );
    }

    #[test]
    fn a_short_buffer_is_an_error_at_every_length() {
        let chunk = chunk();
        let request = largest_request(&chunk);
        let needed = frame_of(&request).len();
        let mut buffer = [0; MAX_FRAME];
        for capacity in 0..needed {
            assert_eq!(
                encode(&request, &mut buffer[..capacity]),
                Err(LinkError::Buffer { capacity })
            );
        }
        assert_eq!(
            encode(&request, &mut buffer[..needed]).unwrap().len(),
            needed
        );
    }

    #[test]
    fn every_single_bit_flip_is_detected_and_the_next_frame_arrives() {
        let chunk = chunk();
        let next = frame_of(&Request::Abort);
        let abort = postcard::to_allocvec(&Request::Abort).unwrap();
        let messages = [
            Request::Hello { version: 1 },
            Request::Seed {
                seed: core::array::from_fn(|i| (i as u8) % 5),
            },
            largest_request(&chunk),
        ];
        for message in messages {
            let original = postcard::to_allocvec(&message).unwrap();
            let clean = frame_of(&message);
            // Every bit of the body; the delimiter's flips are another test.
            for bit in 0..(clean.len() - 1) * 8 {
                let mut wire = clean.clone();
                wire[bit / 8] ^= 1 << (bit % 8);
                wire.extend_from_slice(&next);
                let found = events(&mut FrameReader::<MAX_DECODED>::new(), &wire);
                assert!(found.first().unwrap().is_err(), "bit {bit}");
                assert!(!found.contains(&Ok(original.clone())), "bit {bit}");
                assert_eq!(found.last(), Some(&Ok(abort.clone())), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_damaged_delimiter_costs_two_frames_and_no_more() {
        let abort = frame_of(&Request::Abort);
        for bit in 0..8 {
            let mut wire = frame_of(&Request::Seed { seed: [7; 32] });
            *wire.last_mut().unwrap() ^= 1 << bit;
            wire.extend_from_slice(&abort);
            wire.extend_from_slice(&abort);
            let found = events(&mut FrameReader::<MAX_DECODED>::new(), &wire);
            assert_eq!(found.len(), 2);
            assert!(found[0].is_err() && found[1].is_ok());
        }
    }

    #[test]
    fn every_truncation_is_detected() {
        let clean = frame_of(&Request::Seed { seed: [0x11; 32] });
        for kept in 1..clean.len() - 1 {
            let mut wire = clean[..kept].to_vec();
            wire.push(DELIMITER);
            wire.extend_from_slice(&clean);
            let found = events(&mut FrameReader::<MAX_DECODED>::new(), &wire);
            assert_eq!(found.len(), 2);
            assert_eq!(found[0].clone().unwrap_err().received() as usize, kept);
            assert!(found[1].is_ok());
        }
    }

    #[test]
    fn an_overlong_frame_is_reported_once_with_its_length() {
        let mut wire: Vec<u8> = core::iter::repeat_n(0x55, 100_000).collect();
        wire.push(DELIMITER);
        wire.extend_from_slice(&frame_of(&Request::Abort));
        let found = events(&mut FrameReader::<MAX_DECODED>::new(), &wire);
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            Err(LinkError::TooLong {
                received: 100_000,
                capacity: MAX_DECODED
            })
        );
        assert!(found[1].is_ok());
    }

    #[test]
    fn the_capacity_is_exact() {
        let frame = frame_of(&Request::Seed { seed: [1; 32] });
        assert!(events(&mut FrameReader::<37>::new(), &frame)[0].is_ok());
        assert_eq!(
            events(&mut FrameReader::<36>::new(), &frame)[0],
            Err(LinkError::TooLong {
                received: 38,
                capacity: 36
            })
        );
        assert!(events(&mut FrameReader::<0>::new(), &frame)[0].is_err());
    }

    #[test]
    fn empty_frames_are_ignored() {
        let mut wire = [DELIMITER; 5].to_vec();
        wire.extend_from_slice(&frame_of(&Request::Abort));
        wire.extend_from_slice(&[DELIMITER; 3]);
        assert_eq!(
            events(&mut FrameReader::<MAX_DECODED>::new(), &wire).len(),
            1
        );
    }

    #[test]
    fn a_frame_that_holds_something_else_is_an_encoding_error() {
        let mut reader = FrameReader::<MAX_DECODED>::new();
        for wire in [
            frame_of(&0xFFu8),
            frame_of(&(Request::Abort, 1u8)),
            frame_of(&()),
        ] {
            let frame = reader.read(&mut &wire[..]).unwrap().unwrap();
            let received = wire.len() as u32 - 1;
            assert_eq!(
                frame.decode::<Request<'_>>(),
                Err(LinkError::Encoding { received })
            );
        }
    }

    #[test]
    fn what_is_erased_is_gone_and_the_next_frame_is_read() {
        let mut out = [0; MAX_FRAME];
        let frame = encode(&0x1234_5678_u32, &mut out).unwrap();
        let mut reader = FrameReader::<MAX_DECODED>::new();
        assert!(reader.read(&mut &*frame).unwrap().is_ok());
        assert!(reader.buffer.iter().any(|&byte| byte != 0));
        reader.erase_given_out();
        assert!(reader.buffer.iter().all(|&byte| byte == 0));
        let again = reader.read(&mut &*frame).unwrap().unwrap();
        assert_eq!(again.decode::<u32>(), Ok(0x1234_5678));
    }

    #[test]
    fn a_frame_in_pieces_is_a_frame() {
        let frame = frame_of(&Request::Seed { seed: [3; 32] });
        let mut reader = FrameReader::<MAX_DECODED>::new();
        for byte in &frame[..frame.len() - 1] {
            assert!(reader.read(&mut slice::from_ref(byte)).is_none());
            assert!(reader.mid_frame());
        }
        assert!(reader.read(&mut &[DELIMITER][..]).unwrap().is_ok());
        assert!(!reader.mid_frame());
        reader.read(&mut &frame[..9]);
        reader.reset();
        assert!(reader.read(&mut &frame[..]).unwrap().is_ok());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let mut reader = FrameReader::<64>::new();
            let mut input = &bytes[..];
            while let Some(event) = reader.read(&mut input) {
                if let Ok(frame) = event {
                    let _ = frame.decode::<Request<'_>>();
                    let _ = frame.decode::<Reply<'_>>();
                }
            }
            // Whatever came, a delimiter and a frame bring the reader back.
            let mut wire = vec![DELIMITER];
            wire.extend_from_slice(&frame_of(&Request::Abort));
            prop_assert!(events(&mut reader, &wire).last().unwrap().is_ok());
        }

        #[test]
        fn random_messages_never_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let frame = Frame { message: &bytes, received: 0 };
            let _ = frame.decode::<Request<'_>>();
            let _ = frame.decode::<Reply<'_>>();
        }

        #[test]
        fn decoding_agrees_with_the_cobs_crate(bytes in prop::collection::vec(0u8..4, 0..700)) {
            let mut payload = bytes;
            let crc = CRC.checksum(&payload);
            payload.extend_from_slice(&crc.to_le_bytes());
            let mut wire = vec![0; cobs::max_encoding_length(payload.len())];
            let length = cobs::encode(&payload, &mut wire);
            wire.truncate(length);
            wire.push(DELIMITER);
            let found = events(&mut FrameReader::<1000>::new(), &wire);
            payload.truncate(payload.len() - CRC_BYTES);
            prop_assert_eq!(found, vec![Ok(payload)]);
        }

        /// A line hands over what has come, wherever that ends.
        #[test]
        fn frames_cut_anywhere_are_the_same_frames(
            contents in prop::collection::vec(prop::collection::vec(0u8..3, 0..300), 1..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            damaged in prop::option::of((any::<prop::sample::Index>(), 1u8..)),
        ) {
            let mut wire: Vec<u8> =
                contents.iter().flat_map(|bytes| frame_of(&largest_request(bytes))).collect();
            if let Some((place, change)) = damaged {
                let place = place.index(wire.len());
                wire[place] ^= change;
            }
            let whole = events(&mut FrameReader::<MAX_DECODED>::new(), &wire);
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            ends.extend([0, wire.len()]);
            ends.sort_unstable();
            let mut reader = FrameReader::<MAX_DECODED>::new();
            let pieces: Vec<_> = ends
                .windows(2)
                .flat_map(|ends| events(&mut reader, &wire[ends[0]..ends[1]]))
                .collect();
            prop_assert_eq!(&pieces, &whole);
            if damaged.is_none() {
                prop_assert_eq!(whole.len(), contents.len());
                prop_assert!(whole.iter().all(Result::is_ok));
            }
        }

        #[test]
        fn chunks_of_any_content_survive(bytes in prop::collection::vec(any::<u8>(), 0..=MAX_CHUNK_BYTES)) {
            let request = largest_request(&bytes);
            let wire = frame_of(&request);
            let mut reader = FrameReader::<MAX_DECODED>::new();
            let frame = reader.read(&mut &wire[..]).unwrap().unwrap();
            prop_assert_eq!(frame.decode::<Request<'_>>(), Ok(request));
        }
    }
}
