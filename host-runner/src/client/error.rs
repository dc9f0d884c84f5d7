//! Why a client has no result, in sentences.

use std::time::Duration;

use he_nn::clear::SampleError;
use he_nn::message::{Fault, Item, Refusal, Reply};
use he_nn::model::ModelError;
use he_nn::plan::PlanError;

use super::publication::PublicationError;
use crate::device::{DeviceError, Seconds};
use crate::files::SealedError;
use crate::receipts::ReceiptError;

/// Why there is no result. One sentence each; what to do is in it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The link failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The evaluator holds another model.
    #[error(
        "{device} holds the model {theirs} ({theirs_crc:08x}) and this client {ours} ({ours_crc:08x}): name that model, or flash this one"
    )]
    Model {
        /// The evaluator.
        device: String,
        /// Name of the evaluator's model.
        theirs: String,
        /// CRC-32 of the evaluator's model.
        theirs_crc: u32,
        /// Name of the client's model.
        ours: String,
        /// CRC-32 of the client's model.
        ours_crc: u32,
    },
    /// The evaluator would compute something else.
    #[error(
        "{device} has {what} {theirs:08x} and this client {ours:08x}: build both from the same version"
    )]
    Disagreement {
        /// The evaluator.
        device: String,
        /// What differs.
        what: &'static str,
        /// The evaluator's fingerprint.
        theirs: u32,
        /// The client's fingerprint.
        ours: u32,
    },
    /// The evaluator speaks another protocol.
    #[error(
        "{device} speaks protocol version {theirs} and this client version {ours}: build both from the same version"
    )]
    Version {
        /// The evaluator.
        device: String,
        /// The evaluator's version.
        theirs: u16,
        /// The client's version.
        ours: u16,
    },
    /// The evaluator does not pad.
    #[error(
        "{device} does not pad its side of the link: build its firmware with the feature `padding`, or leave --pad-to out"
    )]
    Unpadded {
        /// The evaluator.
        device: String,
    },
    /// The evaluator refused a message.
    #[error("{device} refused: {reason}")]
    Refused {
        /// The evaluator.
        device: String,
        /// Its reason, and what to do.
        reason: RefusalSentence,
    },
    /// The evaluator crashed.
    #[error(
        "{device} stopped with {what} and restarted: run again, and report it if it happens twice"
    )]
    Crashed {
        /// The evaluator.
        device: String,
        /// What happened to it.
        what: String,
    },
    /// A reply that does not belong here.
    #[error("{device} answered out of turn ({got} where {expected} was due): run again")]
    OutOfTurn {
        /// The evaluator.
        device: String,
        /// What was due.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// What came back is not an acceptable ciphertext.
    #[error("{device} returned a result that was not decrypted: {source}")]
    Result {
        /// The evaluator.
        device: String,
        /// What is wrong with it.
        source: he_core::Error,
    },
    /// The values left the range that the plan has room for.
    #[error(
        "the result of {device} fills {percent:.0} % of the modulus and may have wrapped around: the input is unlike the training data, or the evaluator made it so"
    )]
    Wrapped {
        /// The evaluator.
        device: String,
        /// Largest coefficient, in per cent of half the modulus.
        percent: f64,
    },
    /// The inference took too long as a whole.
    #[error(
        "{device} did not finish the inference within {}, though it kept talking: allow more with --deadline, or reset it",
        Seconds(*limit)
    )]
    Deadline {
        /// The evaluator.
        device: String,
        /// How long the whole may take.
        limit: Duration,
    },
    /// The sample does not fit the network, or the plan has no room for its values.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// Values are to be published, and the noise leaves no room for the sample's.
    #[error(
        "a logit of it is {logit:.1} in the clear, and beside the noise of published values there is room for {room:.1}: leave the sample out, or publish nothing of it"
    )]
    Room {
        /// The first that is too large.
        logit: f64,
        /// What it may be.
        room: f64,
    },
    /// The result of the batch that the sample was in was refused.
    #[error("the result of its batch was refused: {sentence}")]
    Batch {
        /// Why.
        sentence: String,
    },
    /// The answer is not what the evaluation of the request gives.
    #[error(
        "{device} returned another result than the evaluation of this sample gives, bit for bit: it did not do the work, or changed it; do not use it"
    )]
    Audit {
        /// The evaluator.
        device: String,
    },
    /// The key has been used for a result that was refused.
    #[error(
        "a result was refused, and acceptance is an answer to whoever made it: renew the key before it is used again"
    )]
    Spent,
    /// The network has no plan, or none that a program holds.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Another number of something than the plan takes.
    #[error(
        "{got} {what} came where the plan takes {expected}: both sides must be of the same version and model"
    )]
    Count {
        /// Of what.
        what: &'static str,
        /// Due.
        expected: usize,
        /// Came.
        got: usize,
    },
    /// Nothing can be published.
    #[error(transparent)]
    Publication(#[from] PublicationError),
    /// A sealed key is not used.
    #[error(transparent)]
    Sealed(Box<SealedError>),
    /// A receipt cannot be kept.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The system has no randomness.
    #[error("the system's random generator failed ({0}): nothing was encrypted")]
    Random(getrandom::Error),
    /// A step of making keys or ciphertexts failed.
    #[error("{what} failed: {source}")]
    Operation {
        /// Which.
        what: &'static str,
        /// Why.
        source: he_core::Error,
    },
}

impl From<SealedError> for ClientError {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::Client(error) => error,
            error => Self::Sealed(Box::new(error)),
        }
    }
}

impl From<ModelError> for ClientError {
    fn from(error: ModelError) -> Self {
        Self::Sample(error.into())
    }
}

impl ClientError {
    /// Whether it is about one sample, so that others can be evaluated.
    #[must_use]
    pub const fn is_of_sample(&self) -> bool {
        matches!(
            self,
            Self::Sample(_)
                | Self::Room { .. }
                | Self::Audit { .. }
                | Self::Batch { .. }
                | Self::Wrapped { .. }
                | Self::Result { .. }
        )
    }

    /// Whether it is a result that a line may have mixed up, with frames of another.
    #[must_use]
    pub const fn may_be_of_link(&self) -> bool {
        matches!(self, Self::Wrapped { .. } | Self::Result { .. })
    }

    /// Whether the link or the device behind it failed, so that the same request may be
    /// answered when it is made again.
    #[must_use]
    pub const fn is_of_link(&self) -> bool {
        match self {
            Self::Device(error) => error.is_of_link(),
            Self::Refused { reason, .. } => reason.is_of_link(),
            Self::Crashed { .. } | Self::OutOfTurn { .. } | Self::Deadline { .. } => true,
            _ => false,
        }
    }

    /// Whether the evaluator has lost a key that it said it kept.
    pub(crate) const fn is_of_kept_key(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                reason: RefusalSentence(Refusal::NotKept { .. }),
                ..
            }
        )
    }

    /// Whether it is the evaluator's refusal of one client more.
    pub(crate) const fn is_busy(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                reason: RefusalSentence(Refusal::Busy),
                ..
            }
        )
    }

    /// Whether the evaluator learns from it what it should not: that a result which it
    /// made was not accepted.
    #[must_use]
    pub const fn spends_key(&self) -> bool {
        matches!(
            self,
            Self::Audit { .. } | Self::Wrapped { .. } | Self::Result { .. }
        )
    }
}

/// A refusal as a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalSentence(pub Refusal);

impl RefusalSentence {
    /// Whether the link may be to blame for it, or the moment.
    const fn is_of_link(self) -> bool {
        match self.0 {
            Refusal::Frame { .. }
            | Refusal::NotExpected
            | Refusal::Order { .. }
            | Refusal::ChunkLength { .. }
            | Refusal::Residue { .. }
            | Refusal::NotKept { .. }
            | Refusal::Busy => true,
            Refusal::Version { .. } | Refusal::Plan { .. } | Refusal::Model | Refusal::NoTracer => {
                false
            }
        }
    }
}

impl std::fmt::Display for RefusalSentence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Refusal::Version { evaluator, client } => write!(
                f,
                "it speaks protocol version {evaluator} and this client version {client}; build both from the same version"
            ),
            Refusal::Plan { evaluator, client } => write!(
                f,
                "its plan is {evaluator:08x} and this client's {client:08x}; build both from the same version"
            ),
            Refusal::Frame { received } => write!(
                f,
                "a frame of {received} bytes arrived damaged; check the line and run again"
            ),
            Refusal::NotExpected => {
                f.write_str("a message came that belongs to no running inference; run again")
            }
            Refusal::Order {
                expected,
                expected_offset,
                got,
                got_offset,
            } => {
                let (expected, got) = (Place(expected), Place(got));
                write!(
                    f,
                    "coefficient {got_offset} of {got} came where {expected_offset} of {expected} was due; run again"
                )
            }
            Refusal::ChunkLength { expected, got } => {
                write!(
                    f,
                    "a chunk has {got} bytes instead of {expected}; run again"
                )
            }
            Refusal::Residue { item, index } => write!(
                f,
                "coefficient {index} of {} is not below its prime; run again",
                Place(item)
            ),
            Refusal::NotKept { key } => write!(
                f,
                "it does not keep key {key} whole, though it named it; run again, which sends it anew"
            ),
            Refusal::Busy => f.write_str(
                "it serves as many clients as it may; try again later, or have it allow more with --clients",
            ),
            Refusal::NoTracer => f.write_str(
                "it was built without a tracer; build its firmware with the feature `trace`, or leave --trace out",
            ),
            Refusal::Model => {
                f.write_str("its model does not fit its plan or memory; build the firmware again")
            }
        }
    }
}

/// An item in a sentence.
struct Place(Item);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Item::Input { ciphertext, limb } => write!(f, "limb {limb} of input {ciphertext}"),
            Item::Key { key, limb, digit } => write!(f, "limb {limb}, digit {digit} of key {key}"),
            Item::Weight { factor, limb } => write!(f, "limb {limb} of encrypted factor {factor}"),
        }
    }
}

/// Names the step that failed.
pub(crate) fn failed(what: &'static str) -> impl Fn(he_core::Error) -> ClientError {
    move |source| ClientError::Operation { what, source }
}

/// What an evaluator calls itself or its model, fit for one line on a
/// terminal: the evaluator is untrusted, and its text may be anything.
pub(crate) fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let visible = text.chars().take(LONGEST);
    visible
        .map(|c| match c {
            // These turn text around or hide in it.
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => '?',
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}

pub(super) fn refused(device: &str, refusal: Refusal) -> ClientError {
    ClientError::Refused {
        device: device.to_owned(),
        reason: RefusalSentence(refusal),
    }
}

pub(super) fn out_of_turn(device: &str, expected: &'static str, reply: &Reply<'_>) -> ClientError {
    let device_name = device.to_owned();
    match *reply {
        Reply::Refused(refusal) => refused(device, refusal),
        Reply::Fault(Fault::Panic { file, line }) => ClientError::Crashed {
            device: device_name,
            what: format!("a panic at {}:{line}", printable(file)),
        },
        Reply::Fault(Fault::Exception { number, pc, cfsr }) => ClientError::Crashed {
            device: device_name,
            what: format!("exception {number} at {pc:#010x} (CFSR {cfsr:#010x})"),
        },
        Reply::Hello(_) => turn(device_name, expected, "a greeting"),
        Reply::Ready { .. } => turn(device_name, expected, "readiness"),
        Reply::Ack | Reply::Stored { .. } => turn(device_name, expected, "an acknowledgement"),
        Reply::Result { .. } => turn(device_name, expected, "a part of a result"),
        Reply::Done { .. } => turn(device_name, expected, "an end"),
        Reply::Aborted => turn(device_name, expected, "an abort"),
        Reply::Span(_) => turn(device_name, expected, "a span of a trace"),
        Reply::Tock { .. } => turn(device_name, expected, "the end of a tick"),
        Reply::Traced { .. } => turn(device_name, expected, "the end of a trace"),
    }
}

fn turn(device: String, expected: &'static str, got: &str) -> ClientError {
    ClientError::OutOfTurn {
        device,
        expected,
        got: got.to_owned(),
    }
}
