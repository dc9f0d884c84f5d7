//! One inference with an evaluator at the other end of a link: greeting, upload, result.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use he_core::Params;
use he_core::wire;
use he_nn::kept::KeyId;
use he_nn::message::{
    CHUNK_COEFFS, Card, Memory, PROTOCOL_VERSION, Reply, Request, Stages, TimeUnit,
};
use he_nn::progress::Progress;
use he_nn::trace::Span;
use zeroize::Zeroizing;

use super::error::{out_of_turn, printable};
use super::padded::Padding;
use super::window::Window;
use super::{Bytes, ClientError, HandedOn, Inference};
use crate::device::{Connection, DeviceError, Transport};

/// How long an evaluator may stay silent while it computes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long an evaluator may take to answer the first message.
pub(super) const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Most spans of a trace that are taken from an evaluator.
const MAX_SPANS: usize = 1 << 16;

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

/// What a client sends, message by message.
pub(super) trait Uploads<E> {
    /// What the evaluator keeps, before the first message; the bytes that are to be sent.
    fn held(&mut self, keys: &HashSet<KeyId>) -> u64;

    /// The evaluator keeps a key since it has come whole.
    fn stored(&mut self, key: KeyId);

    /// Whether the next message depends on what is answered to those before.
    fn waits(&self) -> bool;

    /// The evaluator gave no result.
    fn failed(&mut self, error: &ClientError);

    /// The next message.
    fn next(&mut self) -> Result<Option<Sending<'_>>, E>;
}

/// What a client sends next.
pub(super) struct Sending<'a> {
    pub(super) request: Request<'a>,
    /// Whether it is part of a switching key, or stands for one.
    pub(super) is_key: bool,
    /// Of the bytes that were to be sent at first, those that are done with.
    pub(super) counted: u64,
}

/// What both sides must agree on, what the result must be, and the conversation up
/// to it.
#[derive(Clone, Debug)]
pub(super) struct Agreement {
    pub params: &'static Params,
    /// Level of the result.
    pub level: usize,
    /// Fingerprint of the plan or the program.
    pub plan: u32,
    pub model_name: String,
    pub model_crc: u32,
    pub patience: Duration,
    /// For the whole inference.
    pub deadline: Duration,
    pub tracing: bool,
    /// What the link is padded to.
    pub padding: Option<Padding>,
}

impl Agreement {
    /// Has one inference carried out. `progress` counts the bytes that are sent. The
    /// inference has no logits yet.
    pub(super) fn run<T: Transport, E: From<ClientError> + From<DeviceError>>(
        &self,
        link: &mut Connection<T>,
        uploads: &mut impl Uploads<E>,
        progress: &mut dyn Progress,
    ) -> Result<(EncryptedResult, Inference), E> {
        if let Some(padding) = self.padding {
            return self.run_padded(padding, link, uploads, progress);
        }
        let start = Instant::now();
        let before = link.traffic();
        let device = link.transport().name();
        let (window, board, unit) = self.greet(link, &device)?;
        link.send(&Request::Begin {
            plan: self.plan,
            trace: self.tracing,
        })?;
        let clock = Clock {
            patience: self.patience,
            end: start + self.deadline,
            limit: self.deadline,
        };
        let held = self.await_readiness(link, &clock, &device)?;

        progress.start(uploads.held(&held));
        let mut keys_up = 0;
        let mut window = Window::new(window);
        let mut stored = Vec::new();
        let acknowledge = |link: &mut Connection<T>, window: &mut Window, stored: &mut Vec<_>| {
            let answer = clock.receive(link, |reply| match reply {
                Reply::Ack => Ok(None),
                Reply::Stored { key } => Ok(Some(key)),
                other => Err(out_of_turn(&device, "an acknowledgement", &other)),
            });
            stored.extend(answer.flatten()?);
            window.acknowledged();
            Ok::<_, ClientError>(())
        };
        loop {
            while uploads.waits() && !window.is_empty() {
                acknowledge(link, &mut window, &mut stored)
                    .inspect_err(|error| uploads.failed(error))?;
            }
            stored.drain(..).for_each(|key| uploads.stored(key));
            let Some(Sending {
                request,
                is_key,
                counted,
            }) = uploads.next()?
            else {
                break;
            };
            let frame = link.prepare(&request)?;
            while !window.has_room(frame) {
                if let Err(error) = acknowledge(link, &mut window, &mut stored) {
                    uploads.failed(&error);
                    return Err(error.into());
                }
            }
            link.send_prepared()?;
            window.sent(frame);
            progress.advance(counted);
            if is_key {
                keys_up += frame as u64;
            }
        }
        let collected = self.collect(link, &clock, &device, window);
        let (halves, done) = collected.inspect_err(|error| uploads.failed(error))?;
        let after = link.traffic();
        let wall = start.elapsed();
        let trace = match self.tracing {
            true => Some(self.fetch_trace(link, &clock, &device)?),
            false => None,
        };
        let bytes = Bytes {
            up: after.up - before.up,
            down: after.down - before.down,
            keys_up,
        };
        let (outcome, inference) = answered(halves, done, bytes, (board, unit), wall);
        Ok((outcome, Inference { trace, ..inference }))
    }

    /// Says hello and compares what both sides hold.
    fn greet<T: Transport>(
        &self,
        link: &mut Connection<T>,
        device: &str,
    ) -> Result<(u32, String, TimeUnit), ClientError> {
        link.hello(self.patience.min(HELLO_PATIENCE), |answer| {
            let card = answer.map_err(|reply| out_of_turn(device, "a greeting", &reply))?;
            self.agree(&card, device)
        })?
    }

    /// Compares what both sides hold; the window, the board and its unit of time.
    pub(super) fn agree(
        &self,
        card: &Card<'_>,
        device: &str,
    ) -> Result<(u32, String, TimeUnit), ClientError> {
        let params = self.params.fingerprint();
        let disagreement = |what, theirs, ours| ClientError::Disagreement {
            device: device.to_owned(),
            what,
            theirs,
            ours,
        };
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
        Ok((card.window, printable(card.board), card.unit))
    }

    /// Waits until the evaluator is ready, and says what it keeps. Greetings that come before are
    /// answers to an earlier hello, which was given up too soon.
    fn await_readiness<T: Transport>(
        &self,
        link: &mut Connection<T>,
        clock: &Clock,
        device: &str,
    ) -> Result<HashSet<KeyId>, ClientError> {
        let end = Instant::now() + self.patience;
        loop {
            let ready = clock.receive(link, |reply| match reply {
                Reply::Ready { held } => Ok(Some(held.ids().collect())),
                Reply::Hello(_) if Instant::now() < end => Ok(None),
                other => Err(out_of_turn(device, "readiness", &other)),
            })??;
            if let Some(held) = ready {
                return Ok(held);
            }
        }
    }

    /// Takes the outstanding acknowledgements, the result and its end.
    fn collect<T: Transport>(
        &self,
        link: &mut Connection<T>,
        clock: &Clock,
        device: &str,
        mut window: Window,
    ) -> Result<(ResultHalves, Done), ClientError> {
        let mut result = ResultHalves::default();
        loop {
            let event = clock.receive(link, |reply| match reply {
                Reply::Ack | Reply::Stored { .. } if window.acknowledged() => Ok(None),
                reply => self.take_result(&mut result, reply, device),
            })??;
            if let Some(done) = event {
                self.expect_whole(&result, device)?;
                return Ok((result, done));
            }
        }
    }

    /// Takes a part of the result, or its end.
    pub(super) fn take_result(
        &self,
        result: &mut ResultHalves,
        reply: Reply<'_>,
        device: &str,
    ) -> Result<Option<Done>, ClientError> {
        match reply {
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
                busy,
            } => Ok(Some(Done {
                scale_bits,
                memory,
                stages,
                busy,
            })),
            other => Err(out_of_turn(device, "the result", &other)),
        }
    }

    /// Both halves have the length that they are to have.
    pub(super) fn expect_whole(
        &self,
        result: &ResultHalves,
        device: &str,
    ) -> Result<(), ClientError> {
        let expected = (self.level + 1) * self.params.n();
        match result.words.iter().find(|half| half.len() != expected) {
            None => Ok(()),
            Some(half) => Err(ClientError::Result {
                device: device.to_owned(),
                source: he_core::Error::Length {
                    what: "result",
                    expected,
                    got: half.len(),
                },
            }),
        }
    }

    /// Asks for the trace of the inference that has just ended.
    fn fetch_trace<T: Transport>(
        &self,
        link: &mut Connection<T>,
        clock: &Clock,
        device: &str,
    ) -> Result<Trace, ClientError> {
        link.send(&Request::Trace)?;
        let mut trace = Trace::default();
        loop {
            let end = clock.receive(link, |reply| match reply {
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
}

/// How long is waited: for one message, and for the whole inference. An evaluator that
/// acknowledges a chunk just before patience ends would hold a client for a day.
pub(super) struct Clock {
    pub(super) patience: Duration,
    pub(super) end: Instant,
    pub(super) limit: Duration,
}

impl Clock {
    /// Waits for one reply and hands it to `take`.
    pub(super) fn receive<T: Transport, R>(
        &self,
        link: &mut Connection<T>,
        take: impl FnOnce(Reply<'_>) -> R,
    ) -> Result<R, ClientError> {
        let left = self.end.saturating_duration_since(Instant::now());
        let late = |link: &Connection<T>| ClientError::Deadline {
            device: link.transport().name(),
            limit: self.limit,
        };
        if left.is_zero() {
            return Err(late(link));
        }
        match link.receive(self.patience.min(left), take) {
            Err(DeviceError::Timeout { .. }) if left < self.patience => Err(late(link)),
            received => Ok(received?),
        }
    }
}

/// A result that is still encrypted.
pub(super) struct EncryptedResult {
    pub(super) halves: (Vec<u32>, Vec<u32>),
    pub(super) scale: f64,
}

pub(super) struct Done {
    pub(super) scale_bits: u64,
    pub(super) memory: Memory,
    pub(super) stages: Stages,
    pub(super) busy: u64,
}

/// What came of a conversation: the result, and what it took, of which the client knows more
/// once it is decrypted.
pub(super) fn answered(
    halves: ResultHalves,
    done: Done,
    bytes: Bytes,
    (board, unit): (String, TimeUnit),
    wall: Duration,
) -> (EncryptedResult, Inference) {
    let [c0, c1] = halves.words;
    let outcome = EncryptedResult {
        halves: (c0, c1),
        scale: f64::from_bits(done.scale_bits),
    };
    let inference = Inference {
        logits: Vec::new(),
        plain: Zeroizing::default(),
        bytes,
        board,
        unit,
        memory: done.memory,
        stages: done.stages.into_iter().collect(),
        busy: Some(done.busy),
        trace: None,
        wall,
        cpu: None,
        audited: false,
        allowed_error: None,
        beyond_training: false,
        handed_on: HandedOn::default(),
        padded: None,
    };
    (outcome, inference)
}

/// The result as it arrives, in order.
#[derive(Default)]
pub(super) struct ResultHalves {
    pub(super) words: [Vec<u32>; 2],
}

impl ResultHalves {
    fn take(
        &mut self,
        terms: &Agreement,
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
        // A chunk behind the end of a limb would be read modulo another prime.
        if usize::from(limb) > terms.level || usize::from(offset) >= params.n() {
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
