//! A link that damages, loses and invents frames on purpose.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use he_nn::link::{self, Frame, FrameReader, MAX_DECODED, MAX_FRAME};
use he_nn::message::{Reply, Request};
use host_runner::device::{DeviceError, Transport};
use serde::Serialize;

/// Changes one frame, delimiter included. Emptied, it is lost; it may also
/// become several.
pub type Hook = Box<dyn FnMut(&mut Vec<u8>) + Send>;

/// What is to be done to the frames each way; nothing at first.
#[derive(Default)]
pub struct Damage {
    /// To the evaluator.
    pub up: Option<Hook>,
    /// From the evaluator.
    pub down: Option<Hook>,
    /// Bytes that come from the evaluator over and over instead of what it
    /// says.
    pub flood: Option<Vec<u8>>,
}

impl std::fmt::Debug for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Damage(..)")
    }
}

/// The test's handle on a [`Mangler`] that a connection owns.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Mutex<Damage>>);

impl Control {
    /// From now on does this; [`Damage::default`] for nothing.
    pub fn set(&self, damage: Damage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = damage;
    }

    fn with<R>(&self, f: impl FnOnce(&mut Damage) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A transport between a connection and the transport to the evaluator.
#[derive(Debug)]
pub struct Mangler<T> {
    inner: T,
    control: Control,
    /// Bytes of a frame from the evaluator that is not complete.
    partial: Vec<u8>,
    /// Bytes that the connection has not taken.
    ready: Vec<u8>,
}

impl<T> Mangler<T> {
    /// Between a connection and `inner`.
    pub fn new(inner: T) -> (Self, Control) {
        let control = Control::default();
        let mangler = Self {
            inner,
            control: control.clone(),
            partial: Vec::new(),
            ready: Vec::new(),
        };
        (mangler, control)
    }

    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.ready.len());
        for (slot, byte) in buffer.iter_mut().zip(self.ready.drain(..count)) {
            *slot = byte;
        }
        count
    }
}

impl<T: Transport> Transport for Mangler<T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        // A connection sends one frame at a time, or delimiters alone.
        let mut frame = bytes.to_vec();
        self.control.with(|damage| {
            if let Some(hook) = &mut damage.up {
                hook(&mut frame);
            }
        });
        self.inner.send(&frame)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        if let Some(flood) = self.control.with(|damage| damage.flood.clone()) {
            let count = buffer.len().min(flood.len());
            for (slot, byte) in buffer.iter_mut().zip(flood) {
                *slot = byte;
            }
            return Ok(count);
        }
        loop {
            let count = self.give(buffer);
            if count > 0 {
                return Ok(count);
            }
            let mut bytes = [0; 4096];
            let got = self.inner.receive(&mut bytes, timeout)?;
            for &byte in bytes.iter().take(got) {
                self.partial.push(byte);
                if byte == link::DELIMITER {
                    let mut frame = std::mem::take(&mut self.partial);
                    self.control.with(|damage| {
                        if let Some(hook) = &mut damage.down {
                            hook(&mut frame);
                        }
                    });
                    self.ready.append(&mut frame);
                }
            }
        }
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

/// A message as a frame.
///
/// # Panics
/// If it is larger than any message of the protocol.
pub fn frame(message: &impl Serialize) -> Vec<u8> {
    let mut buffer = [0; MAX_FRAME];
    link::encode(message, &mut buffer).unwrap().to_vec()
}

/// Shows every sound request in `bytes`.
pub fn requests(bytes: &[u8], mut take: impl FnMut(Request<'_>)) {
    frames(bytes, |frame| {
        if let Ok(request) = frame.decode() {
            take(request);
        }
    });
}

/// Shows every sound reply in `bytes`.
pub fn replies(bytes: &[u8], mut take: impl FnMut(Reply<'_>)) {
    frames(bytes, |frame| {
        if let Ok(reply) = frame.decode() {
            take(reply);
        }
    });
}

fn frames(bytes: &[u8], mut take: impl FnMut(Frame<'_>)) {
    let mut reader = Box::new(FrameReader::<MAX_DECODED>::new());
    let mut bytes = bytes;
    while let Some(event) = reader.read(&mut bytes) {
        if let Ok(frame) = event {
            take(frame);
        }
    }
}
