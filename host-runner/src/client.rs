//! The client of an encrypted inference: holds the secret key, encrypts,
//! streams the plan's schedule, decrypts.

use std::time::{Duration, Instant};

use chacha20::ChaCha20Rng;
use he_core::Params;
use he_core::ckks::Ciphertext;
use he_core::ckks::decrypt::decrypt;
use he_core::ckks::encode::encode_in_place;
use he_core::rlwe::keys::{switching_key, switching_key_words};
use he_core::rlwe::{self, KeyLimb, SecretKey, SwitchTarget};
use he_core::wire;
use he_nn::clear;
use he_nn::message::{
    CHUNK_COEFFS, Fault, Item, Memory, PROTOCOL_VERSION, Refusal, Reply, Request, SEED_BYTES,
    Stage, Stages, TimeUnit,
};
use he_nn::packing;
use he_nn::plan::{Cursor, Plan, Step};
use he_nn::trace::Span;
use rand_core::{Rng, SeedableRng};
use zeroize::Zeroizing;

use crate::device::{Connection, DeviceError, Transport};

/// How long an evaluator may stay silent while it computes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long an evaluator may take to answer the first message.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Most spans of a trace that are taken from an evaluator.
const MAX_SPANS: usize = 1 << 16;

/// Above this share of the modulus a result counts as wrapped around: values
/// within the plan's ranges reach a quarter of it.
const WRAPPED: f64 = 0.5;

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
        "the result of {device} fills {percent:.0} % of the modulus and may have wrapped around: the input is unlike the training images"
    )]
    Wrapped {
        /// The evaluator.
        device: String,
        /// Largest coefficient, in per cent of half the modulus.
        percent: f64,
    },
    /// The image does not fit the model.
    #[error(
        "the image has {got} pixels and the model takes {expected}: give an image of that size"
    )]
    Pixels {
        /// Inputs of the model.
        expected: usize,
        /// Pixels that came.
        got: usize,
    },
    /// The system has no randomness.
    #[error("the system's random generator failed ({0}): nothing was encrypted")]
    Random(getrandom::Error),
    /// A step of the encryption failed.
    #[error("encryption failed: {0}")]
    Encryption(he_core::Error),
}

/// A refusal as a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalSentence(pub Refusal);

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

/// What an evaluator calls itself or its model, fit for one line on a
/// terminal: the evaluator is untrusted, and its text may be anything.
pub(crate) fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let visible = text.chars().take(LONGEST);
    visible
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// The `b` half of a switching key, packed limb by limb in sending order.
pub(crate) struct PackedKey {
    pub seed: [u8; SEED_BYTES],
    limbs: Vec<Vec<u8>>,
}

impl PackedKey {
    /// Makes a key for a target and a level.
    pub(crate) fn generate(
        params: &Params,
        key: &SecretKey<Vec<u32>>,
        target: SwitchTarget,
        level: usize,
        rng: &mut ChaCha20Rng,
    ) -> Result<Self, ClientError> {
        let n = params.n();
        let mut packed = Self {
            seed: fresh_seed(rng),
            limbs: Vec::new(),
        };
        let mut errors = vec![0; n];
        let mut words = vec![0; switching_key_words(params, level)];
        switching_key(
            params,
            key,
            target,
            level,
            &packed.seed,
            rng,
            &mut errors,
            &mut words,
        )
        .map_err(ClientError::Encryption)?;
        let mut at = Some(KeyLimb::FIRST);
        for limb in words.chunks_exact(n) {
            let Some(KeyLimb { target, .. }) = at else {
                break;
            };
            packed
                .limbs
                .push(pack(params, target, limb).map_err(ClientError::Encryption)?);
            at = at.and_then(|at| at.next(params, level));
        }
        Ok(packed)
    }

    /// One limb of it.
    pub(crate) fn limb(&self, params: &Params, level: usize, at: KeyLimb) -> Option<&Vec<u8>> {
        self.limbs.get(at.index(params, level)?)
    }
}

/// A seeded ciphertext, packed limb by limb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Seed of the uniform half.
    pub seed: [u8; SEED_BYTES],
    /// The limbs of `c0`.
    pub limbs: Vec<Vec<u8>>,
}

/// A client with its keys. The keys are made once and streamed with every
/// inference.
pub struct Client {
    plan: Plan,
    terms: Terms,
    key: SecretKey<Vec<u32>>,
    switching: Vec<PackedKey>,
    rng: ChaCha20Rng,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// Bytes on the link, framing included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// To the evaluator, keys included.
    pub up: u64,
    /// From the evaluator.
    pub down: u64,
    /// Of `up`, what the switching keys took.
    pub keys_up: u64,
}

/// One decrypted inference.
pub struct Inference {
    /// One value per class.
    pub logits: Vec<f64>,
    /// Bytes on the link.
    pub bytes: Bytes,
    /// The evaluator's board.
    pub board: String,
    /// Unit of the stage times.
    pub unit: TimeUnit,
    /// The evaluator's memory.
    pub memory: Memory,
    /// Time per stage.
    pub stages: Vec<Stage>,
    /// What the evaluator did when, if that was asked for.
    pub trace: Option<Trace>,
    /// From the first message to the last of the result.
    pub wall: Duration,
}

/// What an evaluator did when, by its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// In order of start.
    pub spans: Vec<Span>,
    /// Spans before the first of these, for which it had no room.
    pub dropped: u32,
    /// Time that the tracer took for itself, in no span.
    pub own: u64,
}

impl std::fmt::Debug for Inference {
    /// Without the logits, which are the key holder's.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inference")
            .field("board", &self.board)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Inference {
    /// The class of the largest logit.
    #[must_use]
    pub fn label(&self) -> usize {
        clear::argmax(&self.logits)
    }

    /// Sum of the stage times; `None` without a clock.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        (self.unit != TimeUnit::None).then(|| {
            self.stages
                .iter()
                .fold(0u64, |sum, s| sum.saturating_add(s.time))
        })
    }
}

impl Client {
    /// Draws a secret key and the switching keys of the plan from the
    /// system's generator.
    ///
    /// # Errors
    /// [`ClientError::Random`].
    pub fn new(plan: Plan, model: &he_nn::model::Model<'_>) -> Result<Self, ClientError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(ClientError::Random)?;
        Self::from_seed(plan, model, &seed)
    }

    /// As [`Self::new`], with all randomness from `seed`: for tests.
    ///
    /// # Errors
    /// [`ClientError::Encryption`].
    pub fn from_seed(
        plan: Plan,
        model: &he_nn::model::Model<'_>,
        seed: &[u8; 32],
    ) -> Result<Self, ClientError> {
        let params = plan.params();
        let mut rng = ChaCha20Rng::from_seed(*seed);
        let words = SecretKey::<Vec<u32>>::words(params);
        let key = SecretKey::generate(params, vec![0; words], &mut rng)
            .map_err(ClientError::Encryption)?;
        Self::with_key(plan, model, key, rng)
    }

    /// A client with a key that was made elsewhere. **`rng` must not repeat
    /// anything that was drawn for that key**, or ciphertexts share their
    /// uniform halves.
    ///
    /// # Errors
    /// [`ClientError::Encryption`].
    pub fn with_key(
        plan: Plan,
        model: &he_nn::model::Model<'_>,
        key: SecretKey<Vec<u32>>,
        mut rng: ChaCha20Rng,
    ) -> Result<Self, ClientError> {
        let params = plan.params();
        let switching = (0..plan.key_uses())
            .filter_map(|k| plan.key_use(k))
            .map(|used| PackedKey::generate(params, &key, used.op.target(), used.level, &mut rng))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            terms: Terms {
                params,
                plan: plan.fingerprint(),
                model_name: model.name().to_owned(),
                model_crc: model.crc(),
                output_level: plan.output_level(),
                output_scale: plan.scales().output,
                slots: (0..plan.classes()).map(|k| plan.output_slot(k)).collect(),
                patience: PATIENCE,
                tracing: false,
            },
            plan,
            key,
            switching,
            rng,
        })
    }

    /// Changes how long an evaluator may stay silent; [`PATIENCE`] at first.
    pub const fn set_patience(&mut self, patience: Duration) {
        self.terms.patience = patience;
    }

    /// From now on has every inference traced, or not; not at first.
    pub const fn set_tracing(&mut self, tracing: bool) {
        self.terms.tracing = tracing;
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs one inference on the evaluator behind `link`. `progress` is told
    /// the payload bytes sent so far and in all.
    ///
    /// # Errors
    /// [`ClientError`]; the next inference on the same link works unless the
    /// link itself is gone.
    pub fn infer<T: Transport>(
        &mut self,
        link: &mut Connection<T>,
        pixels: &[u8],
        progress: impl FnMut(u64, u64),
    ) -> Result<Inference, ClientError> {
        if pixels.len() != self.plan.inputs() {
            return Err(ClientError::Pixels {
                expected: self.plan.inputs(),
                got: pixels.len(),
            });
        }
        let seal = |client: &mut Self, index| client.encrypt(index, pixels);
        self.infer_sealed(link, seal, progress)
    }

    /// As [`Self::infer`], with input ciphertexts that `seal` gives by their
    /// index, encrypted under this client's key: by a sensor.
    ///
    /// # Errors
    /// As [`Self::infer`], or what `seal` says.
    pub fn infer_sealed<T: Transport, E: From<ClientError> + From<DeviceError>>(
        &mut self,
        link: &mut Connection<T>,
        seal: impl FnMut(&mut Self, usize) -> Result<Sealed, E>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Inference, E> {
        let (inputs, keys, _) = self.plan.payload_bytes();
        let total = (inputs + keys) as u64;
        let terms = self.terms.clone();
        let mut uploads = TwoLayers {
            cursor: Cursor::start(),
            input: Vec::new(),
            client: self,
            seal,
        };
        let (result, inference) = terms.run(link, total, &mut uploads, progress)?;
        let logits = terms.decrypt(&self.key, result, &link.transport().name())?;
        Ok(Inference {
            logits,
            ..inference
        })
    }

    fn key_limb(&self, key: u8, limb: u8, digit: u8) -> Option<&Vec<u8>> {
        let used = self.plan.key_use(usize::from(key))?;
        let at = KeyLimb {
            target: usize::from(limb),
            digit: usize::from(digit),
        };
        let packed = self.switching.get(usize::from(key))?;
        packed.limb(self.plan.params(), used.level, at)
    }

    fn encrypt(&mut self, index: usize, pixels: &[u8]) -> Result<Sealed, ClientError> {
        let params = self.plan.params();
        let n = params.n();
        let level = self.plan.input_level();
        let mut buffer = Zeroizing::new(vec![0.0f64; n]);
        let mut message = Zeroizing::new(vec![0; n]);
        let mut c0 = vec![0; (level + 1) * n];
        let (re, im) = buffer.split_at_mut(params.slots());
        packing::input_slots(&self.plan, index, pixels, re, im);
        encode_in_place(&mut buffer, self.plan.scales().input)
            .and_then(|()| {
                for (integer, &x) in message.iter_mut().zip(buffer.iter()) {
                    *integer = x as i32;
                }
                rlwe::encrypt(
                    params,
                    &self.key,
                    &mut message,
                    level,
                    &mut self.rng,
                    &mut c0,
                )
            })
            .and_then(|seed| {
                let limbs = pack_limbs(params, &c0)?;
                Ok(Sealed { seed, limbs })
            })
            .map_err(ClientError::Encryption)
    }
}

/// What a client sends, message by message.
pub(crate) trait Uploads<E> {
    /// The next message, and whether it is part of a switching key.
    fn next(&mut self) -> Result<Option<(Request<'_>, bool)>, E>;
}

/// The uploads of a plan.
struct TwoLayers<'c, F> {
    client: &'c mut Client,
    seal: F,
    cursor: Cursor,
    input: Vec<Vec<u8>>,
}

impl<E, F> Uploads<E> for TwoLayers<'_, F>
where
    F: FnMut(&mut Client, usize) -> Result<Sealed, E>,
{
    fn next(&mut self) -> Result<Option<(Request<'_>, bool)>, E> {
        let Some(step) = self.cursor.step(&self.client.plan) else {
            return Ok(None);
        };
        self.cursor.advance(&self.client.plan);
        Ok(Some(match step {
            Step::InputSeed(index) => {
                let seed;
                Sealed {
                    seed,
                    limbs: self.input,
                } = (self.seal)(self.client, index)?;
                (Request::Seed { seed }, false)
            }
            Step::KeySeed(key) => {
                let key = self.client.switching.get(key);
                let seed = key.map(|k| k.seed).unwrap_or_default();
                (Request::Seed { seed }, true)
            }
            Step::Chunk(item, offset) => {
                let limb = match item {
                    Item::Input { limb, .. } => self.input.get(usize::from(limb)),
                    Item::Key { key, limb, digit } => self.client.key_limb(key, limb, digit),
                    Item::Weight { .. } => None,
                };
                let data = chunk_of(self.client.plan.params(), item, limb, offset);
                (data, matches!(item, Item::Key { .. }))
            }
        }))
    }
}

/// A chunk of a packed limb as a message.
pub(crate) fn chunk_of<'l>(
    params: &Params,
    item: Item,
    limb: Option<&'l Vec<u8>>,
    offset: usize,
) -> Request<'l> {
    let bytes = limb.and_then(|l| chunk(l, offset, params.n()));
    Request::Data {
        item,
        offset: offset as u16,
        bytes: bytes.unwrap_or_default(),
    }
}

/// What both sides must agree on, what the result must be, and the conversation up
/// to it.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub params: &'static Params,
    /// Fingerprint of the plan or the program.
    pub plan: u32,
    pub model_name: String,
    pub model_crc: u32,
    pub output_level: usize,
    pub output_scale: f64,
    /// The slot of each logit.
    pub slots: Vec<usize>,
    pub patience: Duration,
    pub tracing: bool,
}

impl Terms {
    /// Has one inference carried out. `total` are the bytes that `progress` counts
    /// up to. The inference has no logits yet.
    pub(crate) fn run<T: Transport, E: From<ClientError> + From<DeviceError>>(
        &self,
        link: &mut Connection<T>,
        total: u64,
        uploads: &mut impl Uploads<E>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<(Outcome, Inference), E> {
        let start = Instant::now();
        let before = link.traffic();
        let device = link.transport().name();
        let (window, board, unit) = self.greet(link, &device)?;
        link.send(&Request::Begin {
            plan: self.plan,
            trace: self.tracing,
        })?;
        self.await_readiness(link, &device)?;

        let mut sent = 0;
        let mut keys_up = 0;
        let mut in_flight = 0;
        while let Some((request, is_key)) = uploads.next()? {
            if in_flight == window {
                link.receive(self.patience, |reply| match reply {
                    Reply::Ack => Ok(()),
                    other => Err(out_of_turn(&device, "an acknowledgement", &other)),
                })??;
                in_flight -= 1;
            }
            let up = link.traffic().up;
            link.send(&request)?;
            sent += match request {
                Request::Data { bytes, .. } => bytes.len() as u64,
                _ => SEED_BYTES as u64,
            };
            if is_key {
                keys_up += link.traffic().up - up;
            }
            in_flight += 1;
            progress(sent, total);
        }
        let (halves, done) = self.collect(link, &device, in_flight)?;
        let after = link.traffic();
        let wall = start.elapsed();
        let trace = match self.tracing {
            true => Some(self.fetch_trace(link, &device)?),
            false => None,
        };
        let outcome = Outcome {
            halves,
            scale: f64::from_bits(done.scale_bits),
        };
        let inference = Inference {
            logits: Vec::new(),
            bytes: Bytes {
                up: after.up - before.up,
                down: after.down - before.down,
                keys_up,
            },
            board,
            unit,
            memory: done.memory,
            stages: done.stages.into_iter().collect(),
            trace,
            wall,
        };
        Ok((outcome, inference))
    }

    /// Says hello and compares what both sides hold.
    fn greet<T: Transport>(
        &self,
        link: &mut Connection<T>,
        device: &str,
    ) -> Result<(usize, String, TimeUnit), ClientError> {
        let params = self.params.fingerprint();
        let disagreement = |what, theirs, ours| ClientError::Disagreement {
            device: device.to_owned(),
            what,
            theirs,
            ours,
        };
        link.hello(self.patience.min(HELLO_PATIENCE), |answer| {
            let card = answer.map_err(|reply| out_of_turn(device, "a greeting", &reply))?;
            if card.version != PROTOCOL_VERSION {
                return Err(ClientError::Version {
                    device: device.to_owned(),
                    theirs: card.version,
                    ours: PROTOCOL_VERSION,
                });
            }
            if card.model_crc != self.model_crc {
                return Err(ClientError::Model {
                    device: device.to_owned(),
                    theirs: printable(card.model),
                    theirs_crc: card.model_crc,
                    ours: self.model_name.clone(),
                    ours_crc: self.model_crc,
                });
            }
            if card.params != params {
                return Err(disagreement("the parameter set", card.params, params));
            }
            if card.plan != self.plan {
                return Err(disagreement("the plan", card.plan, self.plan));
            }
            Ok((
                usize::from(card.window.max(1)),
                printable(card.board),
                card.unit,
            ))
        })?
    }

    /// Waits until the evaluator is ready. Greetings that come before are
    /// answers to an earlier hello, which was given up too soon.
    fn await_readiness<T: Transport>(
        &self,
        link: &mut Connection<T>,
        device: &str,
    ) -> Result<(), ClientError> {
        let end = Instant::now() + self.patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let ready = link.receive(left, |reply| match reply {
                Reply::Ready => Ok(true),
                Reply::Hello(_) if !left.is_zero() => Ok(false),
                other => Err(out_of_turn(device, "readiness", &other)),
            })??;
            if ready {
                return Ok(());
            }
        }
    }

    /// Takes the outstanding acknowledgements, the result and its end.
    fn collect<T: Transport>(
        &self,
        link: &mut Connection<T>,
        device: &str,
        mut in_flight: usize,
    ) -> Result<(ResultHalves, Done), ClientError> {
        let params = self.params;
        let limbs = self.output_level + 1;
        let mut result = ResultHalves {
            words: [const { Vec::new() }; 2],
        };
        let expected = limbs * params.n();
        loop {
            let event = link.receive(self.patience, |reply| match reply {
                Reply::Ack if in_flight > 0 => {
                    in_flight -= 1;
                    Ok(None)
                }
                Reply::Result {
                    part,
                    limb,
                    offset,
                    bytes,
                } => result
                    .take(self, part, limb, offset, bytes)
                    .map(|()| None)
                    .map_err(|source| ClientError::Result {
                        device: device.to_owned(),
                        source,
                    }),
                Reply::Done {
                    scale_bits,
                    memory,
                    stages,
                } => Ok(Some(Done {
                    scale_bits,
                    memory,
                    stages,
                })),
                other => Err(out_of_turn(device, "the result", &other)),
            })??;
            if let Some(done) = event {
                for half in &result.words {
                    if half.len() != expected {
                        let source = he_core::Error::Length {
                            what: "result",
                            expected,
                            got: half.len(),
                        };
                        return Err(ClientError::Result {
                            device: device.to_owned(),
                            source,
                        });
                    }
                }
                return Ok((result, done));
            }
        }
    }

    /// Asks for the trace of the inference that has just ended.
    fn fetch_trace<T: Transport>(
        &self,
        link: &mut Connection<T>,
        device: &str,
    ) -> Result<Trace, ClientError> {
        link.send(&Request::Trace)?;
        let mut trace = Trace::default();
        loop {
            let end = link.receive(self.patience, |reply| match reply {
                Reply::Span(span) if trace.spans.len() < MAX_SPANS => {
                    trace.spans.push(span);
                    Ok(None)
                }
                Reply::Traced { dropped, own } => Ok(Some((dropped, own))),
                other => Err(out_of_turn(device, "the end of the trace", &other)),
            })??;
            if let Some((dropped, own)) = end {
                trace.dropped = dropped;
                trace.own = own;
                return Ok(trace);
            }
        }
    }

    /// Decrypts a result: the logits.
    pub(crate) fn decrypt(
        &self,
        key: &SecretKey<Vec<u32>>,
        result: Outcome,
        device: &str,
    ) -> Result<Vec<f64>, ClientError> {
        let rejected = |source| ClientError::Result {
            device: device.to_owned(),
            source,
        };
        let (params, level) = (self.params, self.output_level);
        let [c0, c1] = result.halves.words;
        let ct = Ciphertext::new(params, level, result.scale, c0, c1).map_err(rejected)?;
        let mut scratch = vec![0; (level + 1) * params.n()];
        let mut slots = vec![0.0; params.n()];
        let plain = decrypt(
            params,
            key,
            &ct,
            level,
            self.output_scale,
            &mut scratch,
            &mut slots,
        )
        .map_err(rejected)?;
        if plain.fill() > WRAPPED {
            let percent = 100.0 * plain.fill();
            return Err(ClientError::Wrapped {
                device: device.to_owned(),
                percent,
            });
        }
        let logits = self.slots.iter().filter_map(|&slot| plain.slot(slot));
        Ok(logits.collect())
    }
}

/// A result that is still encrypted.
pub(crate) struct Outcome {
    halves: ResultHalves,
    scale: f64,
}

struct Done {
    scale_bits: u64,
    memory: Memory,
    stages: Stages,
}

/// The result as it arrives, in order.
struct ResultHalves {
    words: [Vec<u32>; 2],
}

impl ResultHalves {
    fn take(
        &mut self,
        terms: &Terms,
        part: u8,
        limb: u8,
        offset: u16,
        bytes: &[u8],
    ) -> Result<(), he_core::Error> {
        let params = terms.params;
        let at = usize::from(limb) * params.n() + usize::from(offset);
        let wrong = he_core::Error::Length {
            what: "result",
            expected: at,
            got: 0,
        };
        if usize::from(limb) > terms.output_level {
            return Err(wrong);
        }
        let half = self.words.get_mut(usize::from(part)).ok_or(wrong)?;
        if half.len() != at {
            return Err(he_core::Error::Length {
                what: "result",
                expected: half.len(),
                got: at,
            });
        }
        let mut words = [0; CHUNK_COEFFS];
        wire::unpack(
            bytes,
            params.prime(usize::from(limb))?.modulus(),
            &mut words,
        )?;
        half.extend_from_slice(&words);
        Ok(())
    }
}

fn fresh_seed(rng: &mut ChaCha20Rng) -> [u8; SEED_BYTES] {
    let mut seed = [0; SEED_BYTES];
    rng.fill_bytes(&mut seed);
    seed
}

/// Packs the limbs of a fresh ciphertext's first half.
pub(crate) fn pack_limbs(params: &Params, half: &[u32]) -> Result<Vec<Vec<u8>>, he_core::Error> {
    let limbs = half.chunks_exact(params.n()).enumerate();
    limbs.map(|(i, limb)| pack(params, i, limb)).collect()
}

fn pack(params: &Params, limb: usize, words: &[u32]) -> Result<Vec<u8>, he_core::Error> {
    let modulus = params.prime(limb)?.modulus();
    let mut bytes = vec![0; wire::packed_len(words.len(), modulus.bits())];
    wire::pack(words, modulus, &mut bytes)?;
    Ok(bytes)
}

/// The packed coefficients `offset ..` of one chunk of a limb of `n`.
fn chunk(limb: &[u8], offset: usize, n: usize) -> Option<&[u8]> {
    let length = limb.len() * CHUNK_COEFFS / n;
    limb.chunks_exact(length).nth(offset / CHUNK_COEFFS)
}

fn refused(device: &str, refusal: Refusal) -> ClientError {
    ClientError::Refused {
        device: device.to_owned(),
        reason: RefusalSentence(refusal),
    }
}

fn out_of_turn(device: &str, expected: &'static str, reply: &Reply<'_>) -> ClientError {
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
        Reply::Ready => turn(device_name, expected, "readiness"),
        Reply::Ack => turn(device_name, expected, "an acknowledgement"),
        Reply::Result { .. } => turn(device_name, expected, "a part of a result"),
        Reply::Done { .. } => turn(device_name, expected, "an end"),
        Reply::Aborted => turn(device_name, expected, "an abort"),
        Reply::Span(_) => turn(device_name, expected, "a span of a trace"),
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
