//! Flow control of a client: which frames are in flight.

use std::collections::VecDeque;

/// Most bytes that are in flight, whatever an evaluator says that it takes: who sends
/// without looking at what comes back would stop at a full line both ways.
pub(super) const MOST: u32 = 1 << 18;

/// Frames that are sent and not acknowledged.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    used: usize,
    frames: VecDeque<usize>,
}

impl Window {
    /// Of an evaluator that takes so many bytes.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            limit: limit.min(MOST) as usize,
            used: 0,
            frames: VecDeque::new(),
        }
    }

    /// Whether a frame may be sent now. One may in any case, or nothing would go on.
    #[must_use]
    pub fn has_room(&self, frame: usize) -> bool {
        self.frames.is_empty() || self.used + frame <= self.limit
    }

    /// Whether all frames are acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// A frame was sent.
    pub fn sent(&mut self, frame: usize) {
        self.frames.push_back(frame);
        self.used += frame;
    }

    /// The first frame in flight was acknowledged; `false` if there is none.
    pub fn acknowledged(&mut self) -> bool {
        let frame = self.frames.pop_front();
        self.used -= frame.unwrap_or_default();
        frame.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_and_one_frame_always_goes() {
        let mut window = Window::new(1000);
        assert!(window.has_room(5000));
        window.sent(400);
        assert!(window.has_room(600) && !window.has_room(601));
        window.sent(600);
        assert!(!window.has_room(1));
        assert!(window.acknowledged());
        assert!(window.has_room(400) && !window.has_room(401));
        assert!(window.acknowledged());
        assert!(!window.acknowledged());
        assert!(window.has_room(usize::MAX));
        // What an evaluator says has a limit.
        let mut window = Window::new(u32::MAX);
        window.sent(1 << 18);
        assert!(!window.has_room(1));
    }
}
