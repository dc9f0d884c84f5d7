//! A transport held to the rate of a serial line: ten bits on the wire per byte.
//!
//! Both directions are free of each other, as on a line. What is sent arrives as a whole
//! when its last byte has gone over; what comes is passed on a piece at a time. In either
//! direction one piece may have gone over while the other was at work. What the line's
//! driver adds, such as the 8 ms of many USB bridges, is not part of it: `crate::line`
//! computes with that.

use std::thread;
use std::time::{Duration, Instant};

use super::{DeviceError, Transport};
use crate::line::BITS;

/// Bytes that are taken at a time: less than a millisecond at 3 Mbaud, for which a thread
/// can sleep.
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

    /// When the next bytes begin after those before were over: a line that was silent has
    /// nothing in store but one piece.
    fn begin(&self, before: Instant) -> Instant {
        let earliest = Instant::now().checked_sub(self.takes(PIECE));
        before.max(earliest.unwrap_or(before))
    }
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

impl<T: Transport> Transport for Shaped<T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        // A piece less would be of no use: nobody hears half a frame, and an emulator's
        // mailbox has few places.
        self.sent = self.begin(self.sent) + self.takes(bytes.len());
        sleep_until(self.sent);
        self.line.send(bytes)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        let size = buffer.len().min(PIECE);
        let piece = buffer.get_mut(..size).unwrap_or_default();
        let read = self.line.receive(piece, timeout)?;
        self.came = self.begin(self.came) + self.takes(read);
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
        assert!(start.elapsed() >= Duration::from_millis(59));
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
