//! Keys, requests and results in files, for clients and evaluators that are different
//! processes with different directories.
//!
//! | module | holds |
//! |---|---|
//! | here | the container that all of them are, and [`FileError`] |
//! | `heads` | what heads say, and reading and writing files whole |
//! | `passphrase` | [`Passphrase`], and where it comes from |
//! | `planned` | [`Planned`], one sample at a time or batches |
//! | `sealed` | [`SealedKey`]: a secret key and its budget |
//! | `show` | [`show()`], what a file holds |
//! | `steps` | [`keygen`], [`encrypt`], [`evaluate`], [`decrypt`], [`publish_labels`] |
//!
//! # The container, version 1
//!
//! Integers are little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 2 | [`VERSION`] |
//! | 2 | [`Kind`] |
//! | 4 | length of the head |
//! | head | JSON: what the file is of, for people and programs |
//! | 8 | length of the body |
//! | body | objects of [`he_core::wire`], or sealed bytes |
//! | 32 | SHA-256 of everything before it |
//!
//! The hash finds damage, not malice: who can write a file can write its hash. What an
//! evaluator might gain from is checked apart: a key is sealed, and an answer bound to its
//! request.

mod heads;
mod passphrase;
mod planned;
mod sealed;
mod show;
mod steps;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

pub use heads::{Deployed, KeysHead, RequestHead, check_output};
pub use passphrase::{Passphrase, PassphraseError, VARIABLE};
pub use planned::Planned;
pub use sealed::{Cost, SealedError, SealedHead, SealedKey};
pub use show::{Fact, Shown, show, shown};
pub use steps::{
    Evaluated, Generated, Opened, PublishedLabel, PublishedOutcome, RefusedSample, Requested,
    StepError, decrypt, encrypt, evaluate, generated, keygen, packing_of, publish_labels,
};

/// First bytes of every file. The newline and the byte above 127 reveal a file that
/// went through a text conversion.
pub const MAGIC: [u8; 8] = *b"\x89heedge\n";

/// Version of the container and of all heads.
pub const VERSION: u16 = 1;

/// Bytes before the head.
const PREFIX: usize = 16;

/// Bytes of the body's length, and of the hash.
const LENGTH: usize = 8;
const HASH: usize = 32;

/// Most bytes of a head.
const MAX_HEAD: usize = 1 << 16;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A secret key and its budget, sealed by a passphrase.
    SealedKey = 1,
    /// An evaluator's keys.
    EvaluationKeys = 2,
    /// Encrypted samples.
    Request = 3,
    /// Encrypted results.
    Result = 4,
    /// What a client keeps of a request, sealed under its key.
    Note = 5,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::SealedKey,
        Self::EvaluationKeys,
        Self::Request,
        Self::Result,
        Self::Note,
    ];

    fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u16 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SealedKey => "a sealed secret key",
            Self::EvaluationKeys => "an evaluator's file of keys",
            Self::Request => "a request",
            Self::Result => "a result",
            Self::Note => "a client's note of a request",
        })
    }
}

/// Why a file is not read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} {problem}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The system does not do it.
    #[error("cannot be {doing}: {error}")]
    System {
        /// What was to be done.
        doing: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// A directory, a pipe or a device.
    #[error("is no regular file: name a file")]
    NoFile,
    /// It does not begin as one.
    #[error("is no file of keys, requests or results of this project, nor a model: name one")]
    Foreign,
    /// Another version.
    #[error("is of version {0}, and this program reads {VERSION}: use the program that wrote it")]
    Version(u16),
    /// A kind that this version does not have.
    #[error(
        "is of kind {0}, which there is not in version {VERSION}: it is damaged, copy it again"
    )]
    UnknownKind(u16),
    /// Another kind.
    #[error("is {got}, where {expected} is due: name that file")]
    Kind {
        /// What was due.
        expected: Kind,
        /// What it is.
        got: Kind,
    },
    /// Cut off, or something is added.
    #[error("has {got} bytes, {expected} by its header: it was cut off or added to, copy it again")]
    Length {
        /// By its header.
        expected: u64,
        /// Found.
        got: u64,
    },
    /// More than is read.
    #[error("has {got} bytes, and at most {most} are read: take fewer samples at a time")]
    Large {
        /// At most.
        most: u64,
        /// Found.
        got: u64,
    },
    /// It would be written over a file that the same command reads or writes.
    #[error("is {} too, which this command reads or writes: name another file", .0.display())]
    Input(PathBuf),
    /// It would be written over what cannot be made again.
    #[error("is {0}, which nothing is written over: name another file")]
    Kept(Kind),
    /// A longer head than there is.
    #[error(
        "has a head of {0} bytes, at most {MAX_HEAD} by its format: it is damaged, copy it again"
    )]
    HeadLength(usize),
    /// Its hash is not that of its content.
    #[error("is damaged: its hash is not that of what it holds, copy it again")]
    Damaged,
    /// Its head says something else than heads of its kind.
    #[error(
        "has a head that does not belong there, at line {line}, column {column}: use the program that wrote it"
    )]
    Head {
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// It is of something else.
    #[error("is of the {what} {theirs}, where {ours} is due: {todo}")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// The file's.
        theirs: Box<str>,
        /// What was due.
        ours: Box<str>,
        /// What to do.
        todo: &'static str,
    },
    /// Its body is not of so many samples.
    #[error(
        "has {bytes} bytes for {samples} samples, which is not what the plan gives: it is damaged, or was made up"
    )]
    Samples {
        /// By its head.
        samples: usize,
        /// Of its body.
        bytes: usize,
    },
    /// It answers no request that this client made.
    #[error(
        "answers no request that was made with this key: name a result of one whose note lies in `requests` beside it"
    )]
    Request,
    /// Its request has another result already.
    #[error(
        "answers a request that was answered by another result, and one request takes one: decrypt that one, or encrypt the samples again"
    )]
    Answered,
    /// What is no object of [`he_core::wire`].
    #[error("holds an object that is refused: {source}")]
    Object {
        /// Why.
        source: he_core::Error,
    },
    /// What is no network.
    #[error("is no sound model: {0}")]
    Model(he_nn::model::ModelError),
    /// A note that does not open.
    #[error(
        "does not open with this key, or does not hold what its head says: it is another key's, of an earlier version, or was changed"
    )]
    Note,
    /// It is there already.
    #[error("is there already: name another directory, or move it away")]
    Exists,
    /// A parameter set that nobody has made.
    #[error(
        "is of the parameter set {name} ({fingerprint:08x}), which this program does not have: use the program that wrote it"
    )]
    Params {
        /// Its name.
        name: String,
        /// Its fingerprint.
        fingerprint: u32,
    },
}

impl Problem {
    pub(crate) fn at(self, path: &Path) -> FileError {
        FileError {
            path: path.to_owned(),
            problem: self,
        }
    }
}

/// Where what lies in a file, by its beginning.
pub(crate) struct Layout {
    kind: u16,
    head: Range<usize>,
    body: Range<usize>,
}

impl Layout {
    /// Of a file of so many bytes, of which as many are given as there may be before a body.
    pub(crate) fn of(begin: &[u8], got: u64) -> Result<Self, Problem> {
        let Some((&prefix, rest)) = begin.split_first_chunk::<PREFIX>() else {
            return Err(match begin.starts_with(&MAGIC) {
                true => Problem::Length {
                    expected: (PREFIX + LENGTH + HASH) as u64,
                    got,
                },
                false => Problem::Foreign,
            });
        };
        let [magic @ .., v0, v1, k0, k1, h0, h1, h2, h3] = prefix;
        if magic != MAGIC {
            return Err(Problem::Foreign);
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(Problem::Version(version));
        }
        let head = u32::from_le_bytes([h0, h1, h2, h3]) as usize;
        if head > MAX_HEAD {
            return Err(Problem::HeadLength(head));
        }
        let around = (PREFIX + head + LENGTH + HASH) as u64;
        let length = rest.get(head..).and_then(|rest| rest.first_chunk());
        let Some(&length) = length else {
            return Err(Problem::Length {
                expected: around,
                got,
            });
        };
        let body = u64::from_le_bytes(length);
        let expected = body.saturating_add(around);
        if expected != got {
            return Err(Problem::Length { expected, got });
        }
        let start = PREFIX + head + LENGTH;
        Ok(Self {
            kind: u16::from_le_bytes([k0, k1]),
            head: PREFIX..PREFIX + head,
            body: start..start + body as usize,
        })
    }
}

/// A head of its bytes.
pub(crate) fn head_of<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Not serde_json's sentence, which may quote anything that the file holds.
    serde_json::from_slice(bytes).map_err(|error| Problem::Head {
        line: error.line(),
        column: error.column(),
    })
}

/// A file's bytes, whole and undamaged.
pub(crate) struct Container {
    kind: Kind,
    bytes: Vec<u8>,
    head: Range<usize>,
    body: Range<usize>,
}

impl Container {
    /// Takes bytes apart.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, Problem> {
        let layout = Layout::of(&bytes, bytes.len() as u64)?;
        let (content, hash) = bytes.split_at(bytes.len() - HASH);
        if Sha256::digest(content).as_slice() != hash {
            return Err(Problem::Damaged);
        }
        Ok(Self {
            kind: Kind::of(layout.kind).ok_or(Problem::UnknownKind(layout.kind))?,
            head: layout.head,
            body: layout.body,
            bytes,
        })
    }

    /// It, if it is of a kind.
    pub(crate) fn expect(self, expected: Kind) -> Result<Self, Problem> {
        if self.kind == expected {
            return Ok(self);
        }
        Err(Problem::Kind {
            expected,
            got: self.kind,
        })
    }

    /// Its head.
    pub(crate) fn head<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        head_of(&self.bytes[self.head.clone()])
    }

    /// All before the length of its body.
    pub(crate) fn before(&self) -> &[u8] {
        &self.bytes[..self.head.end]
    }

    /// Its body.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.body.clone()]
    }
}

/// All of a file before the length of its body.
pub(crate) fn start(kind: Kind, head: &impl Serialize) -> io::Result<Vec<u8>> {
    let head = serde_json::to_vec(head)?;
    let mut bytes = Vec::with_capacity(PREFIX + head.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(kind as u16).to_le_bytes());
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    Ok(bytes)
}

/// The bytes of a file that begins as [`start`] says.
pub(crate) fn finish(mut bytes: Vec<u8>, body: &[u8]) -> Vec<u8> {
    bytes.reserve_exact(LENGTH + body.len() + HASH);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(body);
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}
