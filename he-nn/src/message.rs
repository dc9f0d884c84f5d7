//! The messages between client and evaluator, protocol version 11.
//!
//! The client sends [`Request`]s, the evaluator answers with [`Reply`]s. Both
//! are postcard-encoded and framed by [`crate::link`]. The client streams the
//! items of the schedule in order ([`crate::schedule`]); the evaluator
//! acknowledges every [`Request::Data`] with one [`Reply::Ack`], and the
//! client keeps at most [`Card::window`] bytes of frames unacknowledged: that is the
//! whole flow control, and it makes the receive buffer of a device a constant. It
//! counts bytes, not chunks, so that all of the buffer is used whatever a chunk's
//! width: a line stays busy as long as the window holds what goes over it between a
//! chunk and its acknowledgement.
//!
//! [`Reply::Ready`] names the keys that the evaluator keeps ([`crate::kept`]), and
//! [`Reply::Stored`] one that it keeps since; in the place of one of these the client sends
//! [`Request::Kept`].
//!
//! On a padded link ([`crate::padding`]) replies wait for a tick, which acknowledges what
//! came before it.

use he_core::probe::Work;
use serde::{Deserialize, Serialize};

use crate::kept::{KEY_ID_BYTES, KeyId};

/// Version of the messages and of the framing; both sides must agree exactly.
pub const PROTOCOL_VERSION: u16 = 11;

/// Coefficients of one limb that travel in one chunk (the last chunk of a
/// limb is never shorter: ring degrees are multiples of it).
pub const CHUNK_COEFFS: usize = 512;

/// Largest payload of a chunk: 512 coefficients of 30 bits.
pub const MAX_CHUNK_BYTES: usize = CHUNK_COEFFS * 30 / 8;

/// Bytes of a seed for the uniform half of a ciphertext or key.
pub const SEED_BYTES: usize = 32;

/// Stages whose time an evaluator reports: one per step of its plan, of which there is at
/// most one per layer.
pub const MAX_STAGES: usize = crate::model::MAX_LAYERS;

/// One item of the upload schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// One limb (NTT domain, bit-packed) of `c0` of an input ciphertext.
    Input {
        /// Index of the input ciphertext.
        ciphertext: u16,
        /// Index of the limb in the modulus chain.
        limb: u8,
    },
    /// One limb (NTT domain, bit-packed) of the `b` half of one digit of a
    /// switching key.
    Key {
        /// Index of the key use, in the order of the program.
        key: u16,
        /// Target limb; that of the special prime has the index after the data limbs.
        limb: u8,
        /// Gadget digit.
        digit: u8,
    },
    /// One limb (NTT domain, bit-packed) of `c0` of an encrypted factor: of weights,
    /// or of biases.
    Weight {
        /// Index of the factor, in the order of the program.
        factor: u16,
        /// Index of the limb in the modulus chain.
        limb: u8,
    },
}

/// From the client to the evaluator.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Opens the conversation; answered by [`Reply::Hello`] or, where the
    /// version differs, by [`Reply::Refused`].
    Hello {
        /// The client's [`PROTOCOL_VERSION`].
        version: u16,
    },
    /// Starts an inference; whatever was running is dropped. Answered by
    /// [`Reply::Ready`] or [`Reply::Refused`].
    Begin {
        /// Fingerprint of the plan that the client computed.
        plan: u32,
        /// Whether to trace it; refused by an evaluator without a tracer.
        trace: bool,
    },
    /// The seed of the uniform half of the item group that follows: sent
    /// before the first limb of each input ciphertext, factor and key. The last input, a
    /// mask, is nothing but its seed. Acknowledged like data.
    Seed {
        /// 32 public bytes.
        seed: [u8; SEED_BYTES],
    },
    /// One chunk of an item. `bytes` holds [`CHUNK_COEFFS`] coefficients,
    /// bit-packed to the width of the limb's prime.
    Data {
        /// Which item.
        item: Item,
        /// First coefficient of this chunk.
        offset: u16,
        /// Packed coefficients.
        #[serde(borrow, with = "serde_bytes")]
        bytes: &'a [u8],
    },
    /// Stands for the seed and all chunks of a key that the evaluator keeps: it takes it
    /// from there. Acknowledged like data, once.
    Kept {
        /// One of those that [`Reply::Ready`] or [`Reply::Stored`] named.
        key: KeyId,
    },
    /// Drops a running inference; answered by [`Reply::Aborted`].
    Abort,
    /// Asks for the trace of the last inference. Answered by any number of
    /// [`Reply::Span`] and one [`Reply::Traced`], or refused while one is
    /// running.
    Trace,
    /// Begins padding, or goes on with it ([`crate::padding`]): asks for what was replied
    /// since the last one, filled up to so many bytes and ended by [`Reply::Tock`].
    #[cfg(feature = "padding")]
    Tick {
        /// Bytes of the answer.
        fill: u32,
        /// Whether the result is asked for, of an evaluator that has no memory to keep it
        /// packed.
        result: bool,
    },
}

/// What time is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeUnit {
    /// No clock.
    None,
    /// Executed instructions (emulated board under `-icount`).
    Instructions,
    /// Core cycles (hardware).
    Cycles,
    /// Nanoseconds of wall-clock time (an evaluator on a host).
    Nanoseconds,
}

/// What an evaluator says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card<'a> {
    /// The evaluator's [`PROTOCOL_VERSION`].
    pub version: u16,
    /// Board name, such as `mps2-an386` or `inproc`.
    pub board: &'a str,
    /// Name of the model it holds.
    pub model: &'a str,
    /// CRC-32 of the model file it holds.
    pub model_crc: u32,
    /// Fingerprint of the parameter set.
    pub params: u32,
    /// Fingerprint of the plan it will execute.
    pub plan: u32,
    /// Bytes of frames, delimiters included, that may be unacknowledged. One frame may be
    /// in any case.
    pub window: u32,
    /// Unit of every time it reports.
    pub unit: TimeUnit,
}

/// Memory of the evaluator in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// `.data` and `.bss`, arena and receive buffers included.
    pub static_bytes: u32,
    /// Peak of the painted stack since reset.
    pub stack_peak_bytes: u32,
}

/// Ids of the keys that an evaluator keeps, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held<'a>(#[serde(borrow, with = "serde_bytes")] &'a [u8]);

impl<'a> Held<'a> {
    /// Of these ids.
    #[must_use]
    pub const fn new(ids: &'a [[u8; KEY_ID_BYTES]]) -> Self {
        Self(ids.as_flattened())
    }

    /// The ids. Bytes that make up none are left out.
    pub fn ids(self) -> impl Iterator<Item = KeyId> + 'a {
        let (ids, _) = self.0.as_chunks();
        ids.iter().copied().map(KeyId)
    }
}

/// Times of an inference, in order of execution.
pub type Stages = heapless::Vec<Stage, MAX_STAGES>;

/// Time spent in one step of the plan, link handling and the keeping of keys apart, in the
/// card's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Which step.
    pub step: u8,
    /// Time, 0 without a clock.
    pub time: u64,
}

/// Why a request was not carried out. The offending values are in it, so that
/// one sentence can be made of it on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The client's protocol version is not the evaluator's.
    Version {
        /// What the evaluator speaks.
        evaluator: u16,
        /// What the client speaks.
        client: u16,
    },
    /// The plans differ.
    Plan {
        /// Fingerprint on the evaluator.
        evaluator: u32,
        /// Fingerprint on the client.
        client: u32,
    },
    /// A frame was not decodable: wrong COBS, CRC or encoding, or too long.
    Frame {
        /// Bytes of the frame as received.
        received: u32,
    },
    /// Data came while no inference was running, or before its seed.
    NotExpected,
    /// Data came out of the plan's order.
    Order {
        /// What comes next in the schedule.
        expected: Item,
        /// Its offset.
        expected_offset: u16,
        /// What came.
        got: Item,
        /// Its offset.
        got_offset: u16,
    },
    /// A chunk has the wrong number of bytes.
    ChunkLength {
        /// Bytes that 512 coefficients of this limb take.
        expected: u16,
        /// Bytes that came.
        got: u16,
    },
    /// A residue is not below its prime.
    Residue {
        /// The item.
        item: Item,
        /// Index of the coefficient.
        index: u16,
    },
    /// A key that is not kept, or is damaged and no longer kept.
    NotKept {
        /// Index of the key use, in the order of the program.
        key: u16,
    },
    /// The model the evaluator holds does not fit its plan or memory.
    Model,
    /// The evaluator was built without a tracer.
    NoTracer,
    /// The evaluator serves as many clients as it may. A board serves one and never says
    /// so.
    #[cfg(feature = "std")]
    Busy,
}

/// Why an evaluator stopped, sent by firmware just before it restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault<'a> {
    /// A Rust panic.
    Panic {
        /// Source file.
        file: &'a str,
        /// Line.
        line: u32,
    },
    /// A processor exception.
    Exception {
        /// Exception number (3 is HardFault).
        number: u8,
        /// Program counter that was stacked.
        pc: u32,
        /// Configurable fault status register.
        cfsr: u32,
    },
}

/// From the evaluator to the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is no allocator to box with, and one reply is made at a time"
)]
pub enum Reply<'a> {
    /// Answer to [`Request::Hello`].
    #[serde(borrow)]
    Hello(Card<'a>),
    /// Ready for the first item of the schedule.
    Ready {
        /// Keys that are kept, those used last first, at most [`crate::kept::MAX_HELD`].
        #[serde(borrow)]
        held: Held<'a>,
    },
    /// One data or seed message was consumed.
    Ack,
    /// One chunk of the result ciphertext (NTT domain, bit-packed).
    Result {
        /// 0 for `c0`, 1 for `c1`.
        part: u8,
        /// Limb in the modulus chain.
        limb: u8,
        /// First coefficient of this chunk.
        offset: u16,
        /// Packed coefficients.
        #[serde(borrow, with = "serde_bytes")]
        bytes: &'a [u8],
    },
    /// The inference is complete; the evaluator is idle again.
    Done {
        /// Bits of the `f64` scale of the result.
        scale_bits: u64,
        /// Memory figures.
        memory: Memory,
        /// Time per stage.
        stages: Stages,
        /// Time since the begin but for waiting for bytes, in the card's unit: the stages,
        /// what kept keys take, bytes from the line to requests, and replies up to this one.
        busy: u64,
    },
    /// Answer to [`Request::Abort`].
    Aborted,
    /// One span of a trace, in order of start.
    Span(Span),
    /// The trace is complete.
    Traced {
        /// Spans before the first that was sent, for which there was no room.
        dropped: u32,
        /// Time that the tracer took for itself, see
        /// [`crate::trace::Tracer::own`].
        own: u64,
    },
    /// The request was refused; a running inference is dropped.
    Refused(Refusal),
    /// The evaluator failed and restarts.
    Fault(Fault<'a>),
    /// In the place of [`Reply::Ack`] for the last chunk of a key: it is kept from now on, so
    /// that [`Request::Kept`] stands for its next use in the same inference, too.
    Stored {
        /// The key.
        key: KeyId,
    },
    /// Ends the answer to [`Request::Tick`].
    #[cfg(feature = "padding")]
    Tock {
        /// The evaluator was still at work on what came before the tick.
        late: bool,
    },
}

/// What an evaluator can be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SpanKind {
    /// Waiting for bytes.
    Wait,
    /// Bytes to frames to requests.
    Receive,
    /// Unpacking coefficients, and checking that they are the ones expected; reading keys
    /// that are kept.
    Decode,
    /// Expanding the uniform half from its seed.
    Expand,
    /// Encoding weights and biases, transforms apart.
    Encode,
    /// Number-theoretic transforms.
    Ntt,
    /// Products with weights, squares, and their sums.
    MultiplyAccumulate,
    /// Preparing digits of the polynomial that is switched, transforms apart.
    Digit,
    /// Products of a digit and a part of a switching key.
    KeyProduct,
    /// Division by the special prime after key switching, transforms apart.
    ModDown,
    /// Division by the last prime of the modulus, transforms apart.
    Rescale,
    /// Packing and sending replies.
    Send,
    /// Keeping a key that streams by.
    Keep,
}

impl SpanKind {
    /// All kinds, in the order that an item passes through them.
    pub const ALL: [Self; 13] = [
        Self::Wait,
        Self::Receive,
        Self::Decode,
        Self::Expand,
        Self::Encode,
        Self::Ntt,
        Self::MultiplyAccumulate,
        Self::Digit,
        Self::KeyProduct,
        Self::ModDown,
        Self::Rescale,
        Self::Send,
        Self::Keep,
    ];

    /// Whether a stage's time holds it: neither the link's nor what keeps keys, once.
    #[must_use]
    pub const fn is_of_stage(self) -> bool {
        !matches!(self, Self::Wait | Self::Receive | Self::Send | Self::Keep)
    }
}

impl From<Work> for SpanKind {
    fn from(work: Work) -> Self {
        match work {
            Work::Encode => Self::Encode,
            Work::Ntt => Self::Ntt,
            Work::Multiply => Self::MultiplyAccumulate,
            Work::Digit => Self::Digit,
            Work::KeyProduct => Self::KeyProduct,
            Work::ModDown => Self::ModDown,
            Work::Rescale => Self::Rescale,
        }
    }
}

/// What work is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// One limb of an item of the schedule; its seed, too, is for the first.
    Item(Item),
    /// Work of a step that needs no upload; that of the last includes sending the
    /// result.
    Step(u8),
}

/// One kind of work for one place. Times are in the unit of the evaluator's
/// card, from the begin of the inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What was done.
    pub kind: SpanKind,
    /// What it was done for.
    pub place: Place,
    /// How often it was begun; [`u8::MAX`] stands for any larger number too.
    pub count: u8,
    /// When it was first begun, below 2^48.
    pub start: u64,
    /// From there to its last end, at most `u32::MAX`.
    pub length: u32,
    /// Of that, the time that this kind of work had.
    pub busy: u32,
}

impl Span {
    /// When it last ended.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.length as u64)
    }
}
