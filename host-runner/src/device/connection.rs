//! Requests and replies over a transport.

use std::fmt;
use std::time::{Duration, Instant};

use he_nn::link::{self, DELIMITER, Frame, FrameReader, LinkError, MAX_DECODED, MAX_FRAME};
use he_nn::message::{Card, Fault, PROTOCOL_VERSION, Refusal, Reply, Request};
use serde::Serialize;

use super::{DeviceError, Transport};
use crate::interrupt;

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the evaluator.
    Up,
    /// From the evaluator.
    Down,
}

/// Bytes that went over the link, framing included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To the evaluator.
    pub up: u64,
    /// From the evaluator.
    pub down: u64,
}

type Recorder = Box<dyn FnMut(Direction, &[u8]) + Send>;

/// Longest wait for bytes between two looks at the wish to end.
const LOOK: Duration = Duration::from_millis(200);

/// Pause after which a greeting is repeated. A line may lose the first: to boot text, or
/// to a glitch as it opens.
pub(crate) const GREETING_PAUSE: Duration = Duration::from_secs(1);

/// Bytes taken from a transport at once.
const READ_BYTES: usize = 4096;

/// The client's end of a link.
pub struct Connection<T: Transport = Box<dyn Transport>> {
    transport: T,
    reader: Box<FrameReader<MAX_DECODED>>,
    outgoing: Box<[u8; MAX_FRAME]>,
    incoming: Box<[u8; READ_BYTES]>,
    /// The part of `incoming` that the reader has not seen.
    pending: std::ops::Range<usize>,
    /// Bytes of `outgoing` that are to be sent.
    prepared: usize,
    traffic: Traffic,
    recorder: Option<Recorder>,
    /// When the next cell of a padded link is due.
    pub(crate) next_cell: Option<Instant>,
}

impl<T: Transport> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("device", &self.transport.name())
            .field("traffic", &self.traffic)
            .finish_non_exhaustive()
    }
}

impl<T: Transport> Connection<T> {
    /// A connection that has not said anything yet; see [`Self::hello`].
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            reader: Box::default(),
            outgoing: Box::new([0; MAX_FRAME]),
            incoming: Box::new([0; READ_BYTES]),
            pending: 0..0,
            prepared: 0,
            traffic: Traffic::default(),
            recorder: None,
            next_cell: None,
        }
    }

    /// From now on shows every byte, each way, to `recorder`.
    pub fn record(&mut self, recorder: impl FnMut(Direction, &[u8]) + Send + 'static) {
        self.recorder = Some(Box::new(recorder));
    }

    /// What has gone over the link so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// The transport, for what only it can do.
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The transport alone. What came and was not taken is lost.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Sends one request.
    ///
    /// # Errors
    /// What the transport says, or [`DeviceError::Link`] for a chunk that is
    /// larger than the protocol's.
    pub fn send(&mut self, request: &Request<'_>) -> Result<(), DeviceError> {
        self.send_message(request)
    }

    /// Sends a message of any protocol.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_message(&mut self, message: &impl Serialize) -> Result<(), DeviceError> {
        self.prepare(message)?;
        self.send_prepared()
    }

    /// Makes the frame of a message, for [`Self::send_prepared`], and says how many bytes
    /// it has.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn prepare(&mut self, message: &impl Serialize) -> Result<usize, DeviceError> {
        self.prepared = match link::encode(message, self.outgoing.as_mut_slice()) {
            Ok(frame) => frame.len(),
            Err(source) => return Err(self.link_error(source)),
        };
        Ok(self.prepared)
    }

    /// The frame of a message, which is not sent.
    pub(crate) fn frame(&mut self, message: &impl Serialize) -> Result<&[u8], DeviceError> {
        let length = self.prepare(message)?;
        self.prepared = 0;
        Ok(self.outgoing.get(..length).unwrap_or_default())
    }

    /// Sends the frame that was made last, once; replies may be received in between.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_prepared(&mut self) -> Result<(), DeviceError> {
        let length = std::mem::take(&mut self.prepared);
        let frame = self.outgoing.get(..length).unwrap_or_default();
        count(&mut self.traffic, &mut self.recorder, Direction::Up, frame);
        self.transport.send(frame)
    }

    /// Sends bytes as they are: for tests of what the evaluator refuses.
    ///
    /// # Errors
    /// What the transport says.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        count(&mut self.traffic, &mut self.recorder, Direction::Up, bytes);
        self.transport.send(bytes)
    }

    /// Waits for one reply and hands it to `take`; it borrows its bytes from
    /// the connection.
    ///
    /// # Errors
    /// [`DeviceError::Timeout`] where none is complete in time,
    /// [`DeviceError::Link`] for a damaged frame, or what the transport says.
    pub fn receive<R>(
        &mut self,
        timeout: Duration,
        take: impl FnOnce(Reply<'_>) -> R,
    ) -> Result<R, DeviceError> {
        self.receive_frame(timeout, |frame| frame.decode().map(take))
    }

    /// As [`Self::receive`], for a message of any protocol.
    ///
    /// # Errors
    /// As [`Self::receive`]; [`DeviceError::Link`] with the error of `decode`.
    pub fn receive_frame<R>(
        &mut self,
        timeout: Duration,
        decode: impl FnOnce(Frame<'_>) -> Result<R, LinkError>,
    ) -> Result<R, DeviceError> {
        if interrupt::wished() {
            let device = self.transport.name();
            return Err(DeviceError::Interrupted { device });
        }
        let end = Instant::now() + timeout;
        let mut last_look = true;
        loop {
            let mut bytes = self.incoming.get(self.pending.clone()).unwrap_or_default();
            let event = self.reader.read(&mut bytes);
            self.pending.start = self.pending.end - bytes.len();
            if let Some(event) = event {
                return match event.and_then(decode) {
                    Ok(taken) => Ok(taken),
                    Err(source) => Err(self.link_error(source)),
                };
            }
            let left = end.saturating_duration_since(Instant::now());
            // Bytes without an end must not hold the client for ever.
            if left.is_zero() && !std::mem::take(&mut last_look) {
                return Err(self.timed_out(timeout));
            }
            let got = match self
                .transport
                .receive(self.incoming.as_mut_slice(), Some(left.min(LOOK)))
            {
                Ok(got) => got,
                Err(DeviceError::Timeout { device, .. }) => {
                    if interrupt::wished() {
                        return Err(DeviceError::Interrupted { device });
                    }
                    if left > LOOK {
                        continue;
                    }
                    return Err(DeviceError::Timeout { device, timeout });
                }
                Err(error) => return Err(error),
            };
            self.pending = 0..got;
            let bytes = self.incoming.get(..got).unwrap_or_default();
            count(
                &mut self.traffic,
                &mut self.recorder,
                Direction::Down,
                bytes,
            );
        }
    }

    /// Opens the conversation, or brings both sides back in step: whatever the
    /// evaluator was in the middle of hearing or saying is skipped. The greeting begins
    /// with a delimiter, and is repeated about every second.
    ///
    /// Instead of a card, `take` gets the refusal of the version; or, where
    /// time runs out, the last reply that tells why no greeting comes: that
    /// the evaluator fails as it starts, or has no usable model.
    ///
    /// # Errors
    /// As [`Self::receive`]; [`DeviceError::Damaged`] where frames came and none was
    /// whole.
    pub fn hello<R>(
        &mut self,
        timeout: Duration,
        take: impl FnOnce(Result<Card<'_>, Reply<'_>>) -> R,
    ) -> Result<R, DeviceError> {
        let end = Instant::now() + timeout;
        let pause = GREETING_PAUSE.min(timeout / 4);
        let mut due = Instant::now();
        let (mut whole, mut damaged) = (false, 0);
        // Of the replies to what went before, none looks like one to this.
        let mut take = Some(take);
        let mut trouble = None;
        loop {
            let now = Instant::now();
            let left = end.saturating_duration_since(now);
            if left.is_zero() {
                break;
            }
            if now >= due {
                due = now + pause;
                self.send_raw(&[DELIMITER])?;
                self.send(&Request::Hello {
                    version: PROTOCOL_VERSION,
                })?;
            }
            let until = due.saturating_duration_since(now).min(left);
            let answer = self.receive(until, |reply| match reply {
                Reply::Hello(card) => take.take().map(|take| take(Ok(card))),
                Reply::Refused(Refusal::Version { .. } | Refusal::Busy) => {
                    take.take().map(|take| take(Err(reply)))
                }
                _ => {
                    // An evaluator that restarts may still come to answer.
                    trouble = Trouble::of(&reply).or(trouble.take());
                    None
                }
            });
            match answer {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => whole = true,
                Err(DeviceError::Link { .. }) => damaged += 1,
                Err(DeviceError::Timeout { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match trouble.zip(take) {
            Some((trouble, take)) => Ok(take(Err(trouble.reply()))),
            None if damaged > 0 && !whole => Err(DeviceError::Damaged {
                device: self.transport.name(),
                frames: damaged,
                timeout,
            }),
            None => Err(self.timed_out(timeout)),
        }
    }

    fn timed_out(&self, timeout: Duration) -> DeviceError {
        DeviceError::Timeout {
            device: self.transport.name(),
            timeout,
        }
    }

    fn link_error(&self, source: LinkError) -> DeviceError {
        DeviceError::Link {
            device: self.transport.name(),
            source,
        }
    }
}

/// A reply that tells why an evaluator does not greet, kept beyond its frame.
enum Trouble {
    Model,
    Panic { file: String, line: u32 },
    Exception { number: u8, pc: u32, cfsr: u32 },
}

impl Trouble {
    fn of(reply: &Reply<'_>) -> Option<Self> {
        match *reply {
            Reply::Refused(Refusal::Model) => Some(Self::Model),
            Reply::Fault(Fault::Panic { file, line }) => Some(Self::Panic {
                file: file.to_owned(),
                line,
            }),
            Reply::Fault(Fault::Exception { number, pc, cfsr }) => {
                Some(Self::Exception { number, pc, cfsr })
            }
            _ => None,
        }
    }

    fn reply(&self) -> Reply<'_> {
        match *self {
            Self::Model => Reply::Refused(Refusal::Model),
            Self::Panic { ref file, line } => Reply::Fault(Fault::Panic { file, line }),
            Self::Exception { number, pc, cfsr } => {
                Reply::Fault(Fault::Exception { number, pc, cfsr })
            }
        }
    }
}

fn count(traffic: &mut Traffic, recorder: &mut Option<Recorder>, way: Direction, bytes: &[u8]) {
    match way {
        Direction::Up => traffic.up += bytes.len() as u64,
        Direction::Down => traffic.down += bytes.len() as u64,
    }
    if let Some(recorder) = recorder {
        recorder(way, bytes);
    }
}
