//! A seeded proxy that does to frames what lines and boards do: it lies between a
//! connection and any transport.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use he_nn::link;
use host_runner::device::{DeviceError, Transport};

/// What is done to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One bit of it is another.
    Flip,
    /// It is lost.
    Drop,
    /// It comes twice.
    Double,
    /// It comes later, sometimes later than is waited for.
    Delay,
    /// The connection ends in the middle of it.
    Cut,
    /// Another whole frame comes in its place, from before or from another session.
    Replay,
    /// It comes after the one that follows it.
    Swap,
}

/// All of them.
pub const FAULTS: [Fault; 7] = [
    Fault::Flip,
    Fault::Drop,
    Fault::Double,
    Fault::Delay,
    Fault::Cut,
    Fault::Replay,
    Fault::Swap,
];

/// Frames that are kept for replays, each way.
const KEPT: usize = 1024;

/// Most delays are below this, in milliseconds; one in eight is four times as long as the
/// client waits.
const SHORT_MS: u64 = 4;

struct State {
    rng: ChaCha8Rng,
    /// Of so many frames one is damaged; none at 0.
    one_in: u32,
    patience: Duration,
    counts: [u64; FAULTS.len()],
    seen: [VecDeque<Vec<u8>>; 2],
}

impl State {
    fn below(&mut self, end: usize) -> usize {
        (self.rng.next_u64() % end.max(1) as u64) as usize
    }
}

/// The faults of several links, one after the other or at the same time.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<State>>);

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Faults(..)")
    }
}

impl Faults {
    /// Frames pass as they are, until [`Self::set`]. `patience` is how long the client
    /// waits for a message.
    #[must_use]
    pub fn new(seed: u8, patience: Duration) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: ChaCha8Rng::from_seed([seed; 32]),
            one_in: 0,
            patience,
            counts: [0; FAULTS.len()],
            seen: Default::default(),
        })))
    }

    /// From now on damages one frame in so many, each way; none at 0.
    pub fn set(&self, one_in: u32) {
        self.with(|state| state.one_in = one_in);
    }

    /// How often each of [`FAULTS`] was done.
    #[must_use]
    pub fn counts(&self) -> [u64; FAULTS.len()] {
        self.with(|state| state.counts)
    }

    /// How many faults there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// A transport with these faults.
    pub fn over<T: Transport>(&self, inner: T) -> Faulty<T> {
        Faulty {
            inner,
            faults: self.clone(),
            is_cut: false,
            held: [None, None],
            partial: Vec::new(),
            ready: VecDeque::new(),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is done to the next frame, which is kept for later.
    fn next(&self, way: usize, frame: &[u8]) -> Option<Fault> {
        self.with(|state| {
            // Delimiters alone are no frames.
            if frame.len() > 1 {
                if state.seen[way].len() == KEPT {
                    let oldest = state.below(KEPT);
                    state.seen[way].remove(oldest);
                }
                state.seen[way].push_back(frame.to_vec());
            }
            let one_in = state.one_in as usize;
            if one_in == 0 || state.below(one_in) != 0 {
                return None;
            }
            let which = state.below(FAULTS.len());
            state.counts[which] += 1;
            Some(FAULTS[which])
        })
    }
}

/// A transport with faults.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    faults: Faults,
    is_cut: bool,
    /// A frame each way that is to come after the next.
    held: [Option<Vec<u8>>; 2],
    partial: Vec<u8>,
    ready: VecDeque<u8>,
}

impl<T: Transport> Faulty<T> {
    /// What comes of a frame.
    fn damaged(&mut self, way: usize, mut frame: Vec<u8>) -> Vec<u8> {
        let before = self.held[way].take();
        let fault = self.faults.next(way, &frame);
        match fault {
            None => {}
            Some(Fault::Flip) => self.faults.with(|state| {
                let bit = state.below(8 * frame.len());
                frame[bit / 8] ^= 1 << (bit % 8);
            }),
            Some(Fault::Drop) => frame.clear(),
            Some(Fault::Double) => frame.extend_from_within(..),
            Some(Fault::Delay) => {
                let delay = self.faults.with(|state| match state.below(8) {
                    0 => 4 * state.patience,
                    _ => Duration::from_millis(state.below(SHORT_MS as usize) as u64),
                });
                thread::sleep(delay);
            }
            Some(Fault::Cut) => {
                frame.truncate(frame.len() / 2);
                self.is_cut = true;
            }
            Some(Fault::Replay) => {
                frame = self.faults.with(|state| {
                    let which = state.below(state.seen[way].len());
                    state.seen[way].get(which).cloned().unwrap_or_default()
                });
            }
            Some(Fault::Swap) => self.held[way] = Some(std::mem::take(&mut frame)),
        }
        frame.extend(before.into_iter().flatten());
        frame
    }

    fn cut(&self) -> DeviceError {
        DeviceError::Closed {
            device: self.inner.name(),
            detail: " (cut)".to_owned(),
        }
    }
}

impl<T: Transport> Transport for Faulty<T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        if self.is_cut {
            return Err(self.cut());
        }
        // A connection sends one frame at a time, or delimiters alone.
        let bytes = self.damaged(0, bytes.to_vec());
        self.inner.send(&bytes)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        loop {
            let count = buffer.len().min(self.ready.len());
            for (slot, byte) in buffer.iter_mut().zip(self.ready.drain(..count)) {
                *slot = byte;
            }
            if count > 0 {
                return Ok(count);
            }
            if self.is_cut {
                return Err(self.cut());
            }
            let mut bytes = [0; 4096];
            let got = self.inner.receive(&mut bytes, timeout)?;
            for &byte in bytes.iter().take(got) {
                self.partial.push(byte);
                if byte == link::DELIMITER && !self.is_cut {
                    let frame = std::mem::take(&mut self.partial);
                    let frame = self.damaged(1, frame);
                    self.ready.extend(frame);
                }
            }
        }
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}
