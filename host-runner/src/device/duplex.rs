//! A transport within the process: two ends, each of which hears what the
//! other says.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{DeviceError, Transport};

/// Bytes that wait in one direction before the sender does.
const CAPACITY: usize = 64 * 1024;

/// What both ends of [`duplex`] are called.
const EVALUATOR: &str = "the in-process evaluator";

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<State>,
    changed: Condvar,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the other thread leaves the queue whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

/// One end. Dropping it closes both directions.
#[derive(Debug)]
pub struct Duplex {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    name: &'static str,
}

/// Two ends of a new transport to an evaluator.
pub fn duplex() -> (Duplex, Duplex) {
    named(EVALUATOR)
}

/// Two ends of a new transport to something else.
pub fn named(name: &'static str) -> (Duplex, Duplex) {
    let (a, b) = <(Arc<Pipe>, Arc<Pipe>)>::default();
    (
        Duplex {
            incoming: a.clone(),
            outgoing: b.clone(),
            name,
        },
        Duplex {
            incoming: b,
            outgoing: a,
            name,
        },
    )
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.incoming.close();
        self.outgoing.close();
    }
}

impl Duplex {
    fn closed(&self) -> DeviceError {
        DeviceError::Closed {
            device: self.name.into(),
            detail: String::new(),
        }
    }
}

impl Transport for Duplex {
    fn send(&mut self, mut bytes: &[u8]) -> Result<(), DeviceError> {
        let mut state = self.outgoing.lock();
        loop {
            if state.closed {
                return Err(self.closed());
            }
            let room = CAPACITY.saturating_sub(state.bytes.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            state.bytes.extend(now);
            self.outgoing.changed.notify_all();
            bytes = later;
            if bytes.is_empty() {
                return Ok(());
            }
            state = self
                .outgoing
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        let end = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.incoming.lock();
        loop {
            if !state.bytes.is_empty() {
                let count = buffer.len().min(state.bytes.len());
                for (slot, byte) in buffer.iter_mut().zip(state.bytes.drain(..count)) {
                    *slot = byte;
                }
                self.incoming.changed.notify_all();
                return Ok(count);
            }
            if state.closed {
                return Err(self.closed());
            }
            let changed = &self.incoming.changed;
            state = match end {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let timeout = timeout.unwrap_or_default();
                        return Err(DeviceError::Timeout {
                            device: self.name.into(),
                            timeout,
                        });
                    }
                    let waited = changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn name(&self) -> String {
        self.name.into()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn bytes_cross_in_order_beyond_the_capacity() {
        let (mut a, mut b) = duplex();
        let sent: Vec<u8> = (0..3 * CAPACITY).map(|i| (i % 253) as u8).collect();
        let expected = sent.clone();
        let writer = thread::spawn(move || {
            a.send(&sent).unwrap();
            a
        });
        let mut got = Vec::new();
        let mut buffer = [0; 1000];
        while got.len() < expected.len() {
            let count = b
                .receive(&mut buffer, Some(Duration::from_secs(10)))
                .unwrap();
            got.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(got, expected);
        drop(writer.join().unwrap());
        assert!(matches!(
            b.receive(&mut buffer, None),
            Err(DeviceError::Closed { .. })
        ));
        assert!(matches!(b.send(&[1]), Err(DeviceError::Closed { .. })));
    }

    #[test]
    fn silence_is_a_timeout_and_what_was_sent_before_closing_arrives() {
        let (mut a, mut b) = duplex();
        let mut buffer = [0; 8];
        let timeout = Duration::from_millis(5);
        let error = b.receive(&mut buffer, Some(timeout)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the in-process evaluator did not answer within 5 ms: check that it runs the \
             evaluator, or reset it"
        );
        a.send(b"end").unwrap();
        drop(a);
        assert_eq!(b.receive(&mut buffer, Some(timeout)).unwrap(), 3);
        assert!(b.receive(&mut buffer, Some(timeout)).is_err());
    }
}
