//! One inference over a padded link ([`he_nn::padding`]): cells of one size at equal times,
//! as many as the next multiple of a number of bytes takes, whatever is in them.
//!
//! Four cells greet and begin, then come those of the upload, and one asks for the result.
//! A refusal is kept to the end, so that it looks like an answer; the try after it looks
//! like another inference. What a tick finds late is counted, never hidden: the client or
//! the evaluator was still at work when it was due, or the answer had another length.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use he_core::Params;
use he_core::params::Prime;
use he_core::wire::packed_len;
use he_nn::link::{DELIMITER, MAX_FRAME};
use he_nn::message::{CHUNK_COEFFS, MAX_CHUNK_BYTES, Refusal, Reply, Request};
use he_nn::progress::Progress;
use serde::{Deserialize, Serialize};

use super::conversation::{
    Agreement, Clock, EncryptedResult, HELLO_PATIENCE, ResultHalves, Sending, Uploads, answered,
};
use super::error::out_of_turn;
use super::window::MOST;
use super::{Bytes, ClientError, Inference};
use crate::device::connection::GREETING_PAUSE;
use crate::device::{Connection, DeviceError, Transport};

/// What a link is padded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Padding {
    /// Bytes of the upload are rounded up to a multiple of this, in whole cells.
    pub up: u32,
    /// Bytes of the result are rounded up to a multiple of this.
    pub down: u32,
    /// Time from one cell to the next.
    pub every: Duration,
}

/// How an inference was padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Padded {
    /// Cells that were sent.
    pub cells: u64,
    /// Cells that were sent late, or whose answer was late or of another length: an
    /// observer may have seen something of this inference.
    pub late: u64,
}

/// Bytes of the cells before the evaluator's window is known: half of the smallest one, so
/// that a cell may wait while the one before is worked on.
pub(crate) const GREETING_CELL: usize = (4096 - 128) / 2;

/// Cells that greet and begin.
pub(crate) const GREETING_CELLS: usize = 4;

/// Bytes of the answers to these: room for the largest frame.
pub(crate) const GREETING_FILL: usize = MAX_FRAME + 64;

/// Bytes of the answers to cells of the upload: a refusal, or keys that are kept.
pub(crate) const FILL: usize = 128;

/// Bytes around a chunk of the result, at the most.
const AROUND_CHUNK: usize = MAX_FRAME - MAX_CHUNK_BYTES;

/// Bytes of a cell of the upload for a window of an evaluator: one may wait while the one
/// before is worked on.
pub(crate) fn cell_bytes(window: u32) -> usize {
    (window.min(MOST) as usize / 2).max(GREETING_CELL)
}

impl Padding {
    /// Cells of an upload in one class, of so many bytes each.
    pub(crate) fn class(&self, cell: usize) -> usize {
        (self.up as usize).div_ceil(cell).max(1)
    }

    /// Bytes of the answer with a result whose chunks take so many in all.
    pub(crate) fn result_fill(&self, result: usize) -> usize {
        // Its end, and the tock.
        let most = result + MAX_FRAME;
        most.next_multiple_of(self.down.max(1) as usize)
    }
}

/// Most bytes of the chunks of a result of a level.
pub(crate) fn result_bytes(params: &Params, level: usize) -> usize {
    let chunks = 2 * params.n() / CHUNK_COEFFS;
    let primes = (0..=level).filter_map(|limb| params.prime(limb).ok());
    let chunk = |prime: &Prime| packed_len(CHUNK_COEFFS, prime.modulus().bits()) + AROUND_CHUNK;
    primes.map(|prime| chunks * chunk(prime)).sum()
}

/// The cells of one inference.
struct Cells<'c, T: Transport> {
    link: &'c mut Connection<T>,
    clock: Clock,
    every: Duration,
    due: Instant,
    cell: Vec<u8>,
    fill: usize,
    padded: Padded,
}

impl<T: Transport> Cells<'_, T> {
    /// Begins a cell, with a tick.
    fn begin(&mut self, fill: usize, result: bool) -> Result<(), ClientError> {
        self.cell.clear();
        self.fill = fill;
        let fill = fill as u32;
        self.add(&Request::Tick { fill, result })
    }

    fn add(&mut self, request: &Request<'_>) -> Result<(), ClientError> {
        let frame = self.link.frame(request)?;
        self.cell.extend_from_slice(frame);
        Ok(())
    }

    /// Sends the cell when it is due.
    fn send(&mut self, size: usize) -> Result<(), ClientError> {
        self.cell.resize(size, DELIMITER);
        let now = Instant::now();
        let mut late = false;
        while self.due < now {
            late = true;
            self.due += self.every;
        }
        self.padded.late += u64::from(late);
        self.padded.cells += 1;
        thread::sleep(self.due - now);
        self.due += self.every;
        self.link.next_cell = Some(self.due);
        Ok(self.link.send_raw(&self.cell)?)
    }

    /// Sends the cell and hands on what is answered, up to the end of it.
    fn exchange(
        &mut self,
        size: usize,
        mut take: impl FnMut(Reply<'_>),
    ) -> Result<(), ClientError> {
        let before = self.link.traffic().down;
        self.send(size)?;
        loop {
            let tock = self.clock.receive(self.link, |reply| match reply {
                Reply::Tock { late } => Some(late),
                reply => {
                    take(reply);
                    None
                }
            })?;
            if let Some(late) = tock {
                let got = self.link.traffic().down - before;
                self.padded.late += u64::from(late || got != self.fill as u64);
                return Ok(());
            }
        }
    }

    /// Greets until a tick is answered: an evaluator that does not know it sends its card
    /// at once.
    fn greet(&mut self, device: &str, patience: Duration) -> Result<(), ClientError> {
        let end = Instant::now() + patience;
        let mut unpadded = 0;
        let mut tried = 0;
        loop {
            self.begin(GREETING_FILL, false)?;
            // Whatever went before is ended.
            self.cell.insert(0, DELIMITER);
            self.add(&Request::Hello {
                version: he_nn::message::PROTOCOL_VERSION,
            })?;
            self.send(GREETING_CELL)?;
            let again = Instant::now() + GREETING_PAUSE.max(self.every).min(patience / 4);
            let (mut is_unpadded, mut is_answered) = (false, false);
            loop {
                let left = again.saturating_duration_since(Instant::now());
                let answer = self.link.receive(left, |reply| match reply {
                    Reply::Tock { .. } => Ok(true),
                    Reply::Refused(Refusal::Version { .. } | Refusal::Busy) => {
                        Err(out_of_turn(device, "a greeting", &reply))
                    }
                    Reply::Hello(_) => {
                        is_unpadded = true;
                        Ok(false)
                    }
                    _ => Ok(false),
                });
                match answer {
                    Ok(Ok(true)) if tried == 0 => return Ok(()),
                    // Answers to the cells before may follow, and then it is quiet.
                    Ok(Ok(true)) => is_answered = true,
                    Ok(Err(error)) => return Err(error),
                    Ok(Ok(false)) | Err(DeviceError::Link { .. }) => {}
                    Err(DeviceError::Timeout { .. }) if is_answered => {
                        self.due = self.due.max(Instant::now());
                        return Ok(());
                    }
                    Err(error @ DeviceError::Timeout { .. }) if Instant::now() >= end => {
                        return Err(error.into());
                    }
                    Err(DeviceError::Timeout { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            tried += 1;
            // Once may be a tick that was damaged.
            unpadded += u32::from(is_unpadded);
            if unpadded > 1 {
                let device = device.to_owned();
                return Err(ClientError::Unpadded { device });
            }
            self.due = self.due.max(Instant::now());
        }
    }
}

impl Agreement {
    /// As [`Self::run`], over a padded link.
    pub(super) fn run_padded<T: Transport, E: From<ClientError> + From<DeviceError>>(
        &self,
        padding: Padding,
        link: &mut Connection<T>,
        uploads: &mut impl Uploads<E>,
        progress: &mut dyn Progress,
    ) -> Result<(EncryptedResult, Inference), E> {
        let start = Instant::now();
        let before = link.traffic();
        let device = link.transport().name();
        // Inferences begin at the times of cells.
        let mut due = link.next_cell.unwrap_or(start);
        let behind = start.saturating_duration_since(due);
        if !behind.is_zero() {
            let every = padding.every.as_nanos().max(1);
            let missed = behind.as_nanos().div_ceil(every);
            due += padding.every * u32::try_from(missed).unwrap_or(u32::MAX);
        }
        let mut cells = Cells {
            clock: Clock {
                patience: self.patience,
                end: start + self.deadline,
                limit: self.deadline,
            },
            every: padding.every,
            due,
            cell: Vec::new(),
            fill: 0,
            padded: Padded { cells: 0, late: 0 },
            link,
        };
        cells.greet(&device, self.patience.min(HELLO_PATIENCE))?;

        let mut card = None;
        cells.begin(GREETING_FILL, false)?;
        cells.exchange(GREETING_CELL, |reply| {
            if let Reply::Hello(theirs) = reply {
                card = Some(self.agree(&theirs, &device));
            }
        })?;
        let silent = || ClientError::OutOfTurn {
            device: device.clone(),
            expected: "a greeting",
            got: "nothing".to_owned(),
        };
        let (window, board, unit) = card.ok_or_else(silent)??;
        cells.begin(FILL, false)?;
        cells.add(&Request::Begin {
            plan: self.plan,
            trace: false,
        })?;
        // Why there is no result, if there is none.
        let mut failed: Option<ClientError> = None;
        let mut held = HashSet::new();
        let mut take = |reply: Reply<'_>| match reply {
            Reply::Ready { held: ids } => held = ids.ids().collect(),
            other => failed = Some(out_of_turn(&device, "readiness", &other)),
        };
        cells.exchange(GREETING_CELL, &mut take)?;
        cells.begin(GREETING_FILL, false)?;
        cells.exchange(GREETING_CELL, &mut take)?;

        let size = cell_bytes(window);
        let class = padding.class(size) as u64;
        progress.start(uploads.held(&held));
        let (mut sent, mut keys_up) = (0, 0);
        // What did not fit the cell before, and whether that cell had frames.
        let (mut next, mut has_sent) = (None, false);
        let mut is_complete = false;
        let mut stored = Vec::new();
        loop {
            cells.begin(FILL, false)?;
            let mut has_frames = false;
            stored.drain(..).for_each(|key| uploads.stored(key));
            while failed.is_none() && !is_complete {
                if next.is_none() {
                    // Of the cell before, answers come with the next tick.
                    if uploads.waits() && (has_sent || has_frames) {
                        break;
                    }
                    let Some(Sending {
                        request,
                        is_key,
                        counted,
                    }) = uploads.next()?
                    else {
                        is_complete = true;
                        break;
                    };
                    let is_kept = matches!(request, Request::Kept { .. });
                    let frame = cells.link.frame(&request)?.to_vec();
                    next = Some((frame, is_key, is_kept, counted));
                }
                let Some((frame, is_key, is_kept, counted)) =
                    next.take_if(|(frame, ..)| cells.cell.len() + frame.len() <= size)
                else {
                    break;
                };
                has_frames = true;
                cells.cell.extend_from_slice(&frame);
                progress.advance(counted);
                if is_key {
                    keys_up += frame.len() as u64;
                }
                // A few bytes for a whole key switch: others in the cell would make it late.
                if is_kept {
                    break;
                }
            }
            cells.exchange(size, |reply| match reply {
                Reply::Stored { key } => stored.push(key),
                other if failed.is_none() => {
                    failed = Some(out_of_turn(&device, "an acknowledgement", &other));
                }
                _ => {}
            })?;
            has_sent = has_frames;
            sent += 1;
            if (is_complete || failed.is_some()) && sent % class == 0 {
                break;
            }
        }

        let mut halves = ResultHalves::default();
        let mut done = None;
        let result = result_bytes(self.params, self.level);
        cells.begin(padding.result_fill(result), true)?;
        cells.exchange(size, |reply| {
            // The last cell of the upload may have ended a key.
            if failed.is_some() || matches!(reply, Reply::Stored { .. }) {
                return;
            }
            match self.take_result(&mut halves, reply, &device) {
                Ok(end) => done = done.take().or(end),
                Err(error) => failed = Some(error),
            }
        })?;
        let padded = cells.padded;
        let done = match (failed, done) {
            (Some(error), _) => Err(error),
            (None, None) => Err(silent()),
            (None, Some(done)) => self.expect_whole(&halves, &device).map(|()| done),
        };
        let done = done.inspect_err(|error| uploads.failed(error))?;
        let after = link.traffic();
        let bytes = Bytes {
            up: after.up - before.up,
            down: after.down - before.down,
            keys_up,
        };
        let wall = start.elapsed();
        let (outcome, inference) = answered(halves, done, bytes, (board, unit), wall);
        let padded = Some(padded);
        Ok((
            outcome,
            Inference {
                padded,
                ..inference
            },
        ))
    }
}
