//! A serial line in virtual time: a transport whose clock moves by what goes over it, with
//! an evaluator behind it. Nothing sleeps, and every run takes as long.

use std::collections::VecDeque;
use std::time::Duration;

use he_nn::link::{self, FrameReader, LinkError, MAX_DECODED, MAX_FRAME};
use he_nn::message::{Reply, Request};
use host_runner::device::{DeviceError, Transport};
use host_runner::line::Line;

/// Answers a request by any number of replies.
pub type Evaluator<'e> =
    Box<dyn FnMut(Result<Request<'_>, LinkError>, &mut dyn FnMut(Reply<'_>)) + Send + 'e>;

/// The line, the client's clock and the evaluator's.
pub struct VirtualLine<'e> {
    line: Line,
    evaluator: Evaluator<'e>,
    /// Seconds that the evaluator takes for each message of an upload.
    work: Vec<f64>,
    at: usize,
    reader: FrameReader<MAX_DECODED>,
    /// When the client has done what it did last.
    client: f64,
    /// When the evaluator has.
    free: f64,
    /// What comes to the client, and when.
    replies: VecDeque<(f64, Vec<u8>)>,
    /// Frames that wait for the evaluator: until when, and their bytes.
    arrived: VecDeque<(f64, usize)>,
    waiting: usize,
}

impl std::fmt::Debug for VirtualLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VirtualLine(..)")
    }
}

impl<'e> VirtualLine<'e> {
    /// A line that has carried nothing.
    #[must_use]
    pub fn new(line: Line, evaluator: Evaluator<'e>) -> Self {
        Self {
            line,
            evaluator,
            work: Vec::new(),
            at: 0,
            reader: FrameReader::new(),
            client: 0.0,
            free: 0.0,
            replies: VecDeque::new(),
            arrived: VecDeque::new(),
            waiting: 0,
        }
    }

    /// What the evaluator takes for the messages of each following upload, in seconds.
    pub fn work(&mut self, seconds: Vec<f64>) {
        self.work = seconds;
    }

    /// Seconds since the first byte.
    #[must_use]
    pub const fn now(&self) -> f64 {
        self.client
    }

    /// Most bytes that had arrived and that the evaluator had not come to.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }
}

impl Transport for VirtualLine<'_> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.client += self.line.takes(bytes.len());
        let latency = self.line.latency.as_secs_f64();
        let whole = self.client + latency;
        let mut bytes = bytes;
        while let Some(event) = self.reader.read(&mut bytes) {
            let length = event
                .as_ref()
                .map_or(0, |frame| frame.received() as usize + 1);
            let request = event.and_then(|frame| frame.decode());
            let begin = whole.max(self.free);
            while self
                .arrived
                .front()
                .is_some_and(|&(taken, _)| taken <= whole)
            {
                self.arrived.pop_front();
            }
            if begin > whole {
                self.arrived.push_back((begin, length));
            }
            let waiting = self.arrived.iter().map(|(_, bytes)| bytes).sum();
            self.waiting = self.waiting.max(waiting);
            self.free = begin;
            match request {
                Ok(Request::Begin { .. }) => self.at = 0,
                Ok(Request::Seed { .. } | Request::Data { .. } | Request::Kept { .. }) => {
                    self.free += self.work.get(self.at).copied().unwrap_or_default();
                    self.at += 1;
                }
                _ => {}
            }
            let (line, free, replies) = (self.line, &mut self.free, &mut self.replies);
            (self.evaluator)(request, &mut |reply| {
                let mut buffer = [0; MAX_FRAME];
                if let Ok(frame) = link::encode(&reply, &mut buffer) {
                    *free += line.takes(frame.len());
                    replies.push_back((*free + latency, frame.to_vec()));
                }
            });
        }
        Ok(())
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        let Some((there, frame)) = self.replies.pop_front() else {
            // Nothing that could still come.
            return Err(DeviceError::Timeout {
                device: self.name(),
                timeout: timeout.unwrap_or_default(),
            });
        };
        self.client = self.client.max(there);
        let (now, later) = frame.split_at(frame.len().min(buffer.len()));
        for (slot, byte) in buffer.iter_mut().zip(now) {
            *slot = *byte;
        }
        if !later.is_empty() {
            self.replies.push_front((there, later.to_vec()));
        }
        Ok(now.len())
    }

    fn name(&self) -> String {
        "a line in virtual time".to_owned()
    }
}
