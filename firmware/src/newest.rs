//! How much of what a DMA controller has received may be read, where the count of bytes runs
//! ahead of their way to memory.

/// Bytes that wait, and since when there have been no more.
#[derive(Debug)]
pub struct Newest {
    waiting: usize,
    since: u32,
}

impl Newest {
    /// Of an empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            waiting: 0,
            since: 0,
        }
    }

    /// How many of `waiting` bytes are in memory for sure at the time `now`: all but the
    /// newest, and that too once none has come for `settles`. A time may wrap.
    pub fn settled(&mut self, waiting: usize, now: u32, settles: u32) -> usize {
        if waiting != self.waiting {
            self.waiting = waiting;
            self.since = now;
        }
        match now.wrapping_sub(self.since) >= settles {
            true => waiting,
            false => waiting.saturating_sub(1),
        }
    }

    /// So many of them were read.
    pub const fn taken(&mut self, count: usize) {
        self.waiting = self.waiting.saturating_sub(count);
    }
}

impl Default for Newest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_byte_waits_until_the_line_is_idle() {
        let mut newest = Newest::new();
        assert_eq!(newest.settled(5, 100, 10), 4);
        newest.taken(4);
        // No other came meanwhile, and then one did.
        assert_eq!(newest.settled(1, 109, 10), 0);
        assert_eq!(newest.settled(2, 111, 10), 1);
        newest.taken(1);
        assert_eq!(newest.settled(1, 120, 10), 0);
        assert_eq!(newest.settled(1, 121, 10), 1);
        newest.taken(1);
        // What comes after silence is new, whatever the clock says.
        assert_eq!(newest.settled(1, 5_000, 10), 0);
    }

    #[test]
    fn a_clock_that_wraps_holds_nothing_back() {
        let mut newest = Newest::new();
        assert_eq!(newest.settled(3, u32::MAX - 2, 10), 2);
        newest.taken(2);
        assert_eq!(newest.settled(1, 5, 10), 0);
        assert_eq!(newest.settled(1, 8, 10), 1);
    }

    #[test]
    fn less_room_than_bytes_leaves_them_settled() {
        let mut newest = Newest::new();
        assert_eq!(newest.settled(8, 0, 10), 7);
        newest.taken(2);
        assert_eq!(newest.settled(6, 20, 10), 6);
    }
}
