//! What goes through a fleet: an item, one encrypted sample and what evaluates it, and its
//! answer.
//!
//! ```text
//! magic (4) | version (1) | length of the head (4, little endian) | head (postcard) | body
//! ```
//!
//! The body is ciphertexts as [`he_core::wire`] has them. An item that would be larger than
//! a message of the broker has its body in the bucket. Lengths are checked before anything
//! is allocated by them.
//!
//! An item is a function of its content: whoever evaluates it, and however often, the answer
//! is the same to the bit. The head of an answer names its request and the digest of what
//! was evaluated, so that a stale or swapped answer is known by public data alone; that it
//! is not another's in its place is what the mask inside shows.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::subjects::{Id, WorkerName};
use crate::receipts::Digest;

/// Version of the format. Workers refuse others.
pub const VERSION: u8 = 1;

const ITEM: [u8; 4] = *b"heFI";
const ANSWER: [u8; 4] = *b"heFA";

/// Bytes before a head.
const PREFIX: usize = 9;

/// Bytes of a head at most.
pub const MAX_HEAD: usize = 4096;

/// Bytes of an input at most, wherever it lies: forty times that of `mnist-mlp64`.
pub const MAX_INPUT: u64 = 1 << 26;

/// Characters of a reason at most.
const LONGEST_REASON: usize = 400;

/// What is wrong with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// They are something else.
    #[error("it is no item of this project")]
    Foreign,
    /// Of another version.
    #[error(
        "it is of version {0} and this program knows version {VERSION}: use the same version on both sides"
    )]
    Version(u8),
    /// Its head is damaged.
    #[error("its head is damaged or longer than {MAX_HEAD} bytes")]
    Head,
    /// The body is not what the head says.
    #[error("its body is not the one that its head names")]
    Body,
}

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// One sample, evaluated by a program.
    Latency,
}

/// What evaluates an item: objects in the bucket, each by its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Evaluation {
    /// Fingerprint of the parameter set.
    pub params: u32,
    /// Fingerprint of the program.
    pub fingerprint: u32,
    /// The program.
    pub program: Digest,
    /// Switching keys.
    pub keys: Digest,
    /// The model, where weights are plain.
    pub model: Option<Digest>,
    /// Encrypted weights, where they are not.
    pub weights: Option<Digest>,
}

/// The head of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemHead {
    /// Who asks.
    pub client: Id,
    /// What for: a nonce.
    pub request: Id,
    /// How often it was sent before. A repetition is another message to the broker, which
    /// refuses what it has seen.
    pub attempt: u32,
    /// Its packing.
    pub kind: Kind,
    /// What evaluates it.
    pub evaluation: Evaluation,
    /// Of the input.
    pub input: Digest,
    /// Its bytes.
    pub input_bytes: u64,
    /// It is the body; otherwise an object of the bucket.
    pub is_inline: bool,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was evaluated; the result is the body.
    Done {
        /// Nanoseconds of reading the input.
        input: u64,
        /// Nanoseconds per step.
        steps: Vec<u64>,
    },
    /// It was put aside.
    Aside {
        /// Why.
        reason: String,
    },
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerHead {
    /// The request.
    pub request: Id,
    /// Of the input that was evaluated.
    pub input: Digest,
    /// Who did it, as it says.
    pub worker: WorkerName,
    /// What became of it.
    pub outcome: Outcome,
}

/// A head and a body as bytes; `None` for a head that is too long.
fn bytes_of(magic: [u8; 4], head: &impl Serialize, body: &[u8]) -> Option<Vec<u8>> {
    let head = postcard::to_stdvec(head).ok()?;
    if head.len() > MAX_HEAD {
        return None;
    }
    let mut bytes = Vec::with_capacity(PREFIX + head.len() + body.len());
    bytes.extend_from_slice(&magic);
    bytes.push(VERSION);
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(body);
    Some(bytes)
}

/// The head and the body that bytes are.
fn parse<H: DeserializeOwned>(magic: [u8; 4], bytes: &[u8]) -> Result<(H, &[u8]), FormatError> {
    let (prefix, rest) = bytes
        .split_first_chunk::<PREFIX>()
        .ok_or(FormatError::Foreign)?;
    let [m0, m1, m2, m3, version, l0, l1, l2, l3] = *prefix;
    if [m0, m1, m2, m3] != magic {
        return Err(FormatError::Foreign);
    }
    if version != VERSION {
        return Err(FormatError::Version(version));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_HEAD {
        return Err(FormatError::Head);
    }
    let (head, body) = rest.split_at_checked(length).ok_or(FormatError::Head)?;
    match postcard::take_from_bytes(head) {
        Ok((head, [])) => Ok((head, body)),
        _ => Err(FormatError::Head),
    }
}

impl ItemHead {
    /// The item with a body, if there is one.
    #[must_use]
    pub fn bytes(&self, input: &[u8]) -> Option<Vec<u8>> {
        bytes_of(ITEM, self, if self.is_inline { input } else { &[] })
    }

    /// Reads an item: its head, and its input where that is the body.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, Option<&[u8]>), FormatError> {
        let (head, body): (Self, _) = parse(ITEM, bytes)?;
        let fits = match head.is_inline {
            true => head.input_bytes == body.len() as u64 && Digest::of(body) == head.input,
            false => body.is_empty(),
        };
        match fits && head.input_bytes <= MAX_INPUT {
            true => Ok((head.clone(), head.is_inline.then_some(body))),
            false => Err(FormatError::Body),
        }
    }
}

impl AnswerHead {
    /// The answer with a result.
    #[must_use]
    pub fn bytes(&self, result: &[u8]) -> Option<Vec<u8>> {
        bytes_of(ANSWER, self, result)
    }

    /// Reads an answer: its head and the result.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), FormatError> {
        parse(ANSWER, bytes)
    }
}

/// A reason as it may be shown, and of a length that a head has room for.
#[must_use]
pub fn reason(text: &str) -> String {
    let visible = text.chars().take(LONGEST_REASON);
    visible
        .map(|c| {
            if c.is_ascii() && !c.is_control() {
                c
            } else {
                '?'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(input: &[u8], is_inline: bool) -> ItemHead {
        let digest = Digest::of(b"object");
        ItemHead {
            client: Id::fresh().unwrap(),
            request: Id::fresh().unwrap(),
            attempt: 3,
            kind: Kind::Latency,
            evaluation: Evaluation {
                params: 1,
                fingerprint: 2,
                program: digest,
                keys: digest,
                model: Some(digest),
                weights: None,
            },
            input: Digest::of(input),
            input_bytes: input.len() as u64,
            is_inline,
        }
    }

    #[test]
    fn an_item_is_read_as_it_was_written() {
        for is_inline in [true, false] {
            let head = head(b"ciphertexts", is_inline);
            let bytes = head.bytes(b"ciphertexts").unwrap();
            let body = is_inline.then_some(&b"ciphertexts"[..]);
            assert_eq!(ItemHead::parse(&bytes), Ok((head, body)));
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_refused_or_another_request() {
        let head = head(b"ciphertexts", true);
        let bytes = head.bytes(b"ciphertexts").unwrap();
        for length in 0..bytes.len() {
            assert!(ItemHead::parse(&bytes[..length]).is_err(), "{length}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let read = ItemHead::parse(&changed);
            assert!(read.is_err() || read != Ok((head.clone(), Some(&b"ciphertexts"[..]))));
        }
        let mut long = bytes;
        long[5..9].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(ItemHead::parse(&long), Err(FormatError::Head));
    }

    #[test]
    fn an_answer_is_no_item_and_reasons_are_short_and_plain() {
        let head = AnswerHead {
            request: Id::fresh().unwrap(),
            input: Digest::of(b""),
            worker: "w".parse().unwrap(),
            outcome: Outcome::Aside {
                reason: reason(&"\u{1b}[2J\u{e4}x".repeat(1000)),
            },
        };
        let bytes = head.bytes(b"result").unwrap();
        assert_eq!(AnswerHead::parse(&bytes), Ok((head, &b"result"[..])));
        assert_eq!(ItemHead::parse(&bytes), Err(FormatError::Foreign));
        assert_eq!(reason("a\n\u{1b}b"), "a??b");
    }
}
