//! A transport held to the rate of a serial line: ten bits on the wire per byte.
//!
//! Both directions are free of each other, as on a line. Bytes are passed on a piece at a
//! time, at the pace of the line; one piece may have come while the other direction was at
//! work. What the line's driver adds, such as the 8 ms of many USB bridges, is not part of
//! it.

use std::thread;
use std::time::{Duration, Instant};

use super::{DeviceError, Transport};

/// Bits on the wire per byte: start, eight of data, stop.
const BITS: u64 = 10;

/// Bytes that are passed on at a time: less than a millisecond at 3 Mbaud, for which a
/// thread can sleep.
const PIECE: usize = 256;

/// A transport held to a rate.
#[derive(Debug)]
pub struct Shaped<T> {
    line: T,
    baud: u32,
    /// When what was sent last has gone over the line.
    sent: Instant,
    /// When what was received last had come over it, one piece earlier at most.
    came: Instant,
}

impl<T: Transport> Shaped<T> {
    /// Holds a transport to `baud` bits per second.
    #[must_use]
    pub fn new(line: T, baud: u32) -> Self {
        let now = Instant::now();
        Self {
            line,
            baud: baud.max(1),
            sent: now,
            came: now,
        }
    }

    /// How long so many bytes take on the line.
    fn takes(&self, bytes: usize) -> Duration {
        let bits = bytes as u64 * BITS;
        Duration::from_nanos(bits.saturating_mul(1_000_000_000) / u64::from(self.baud))
    }
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

impl<T: Transport> Transport for Shaped<T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        for piece in bytes.chunks(PIECE) {
            self.sent = self.sent.max(Instant::now()) + self.takes(piece.len());
            sleep_until(self.sent);
            self.line.send(piece)?;
        }
        Ok(())
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        let size = buffer.len().min(PIECE);
        let piece = buffer.get_mut(..size).unwrap_or_default();
        let read = self.line.receive(piece, timeout)?;
        // A line that was silent has nothing in store but one piece.
        let earliest = Instant::now().checked_sub(self.takes(PIECE));
        self.came = self.came.max(earliest.unwrap_or(self.came)) + self.takes(read);
        sleep_until(self.came);
        Ok(read)
    }

    fn name(&self) -> String {
        self.line.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::duplex;

    #[test]
    fn bytes_take_their_time_in_both_directions() {
        let (near, mut far) = duplex();
        // 10,000 bytes per second.
        let mut line = Shaped::new(near, 100_000);
        let start = Instant::now();
        line.send(&[7; 600]).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(60));
        let mut came = [0; 600];
        let read = far.receive(&mut came, None).unwrap();
        assert_eq!(came[..read], [7; 600][..read]);

        far.send(&[8; 1000]).unwrap();
        let (start, mut read) = (Instant::now(), 0);
        while read < 1000 {
            let more = line.receive(&mut came, None).unwrap();
            assert!(more <= PIECE && came[..more].iter().all(|&byte| byte == 8));
            read += more;
        }
        // Less the piece that was in store.
        assert!(start.elapsed() >= Duration::from_millis(74));
        let none = line.receive(&mut came, Some(Duration::from_millis(1)));
        assert!(matches!(none, Err(DeviceError::Timeout { .. })));
    }
}
