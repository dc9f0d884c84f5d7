//! A byte queue between one interrupt handler and one main loop.
//!
//! The bytes are atomics, which on a Cortex-M are plain byte loads and stores,
//! so the queue needs no `unsafe` and no critical section. One side only
//! pushes, the other only drains; the indices count all bytes ever and wrap.
//! Two pushing sides at once would lose bytes, never memory safety.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// A queue of `N` bytes; `N` is a power of two.
#[derive(Debug)]
pub struct Ring<const N: usize> {
    bytes: [AtomicU8; N],
    pushed: AtomicUsize,
    drained: AtomicUsize,
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Ring<N> {
    const MASK: usize = {
        assert!(N.is_power_of_two(), "a ring's capacity is a power of two");
        N - 1
    };

    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [const { AtomicU8::new(0) }; N],
            pushed: AtomicUsize::new(0),
            drained: AtomicUsize::new(0),
        }
    }

    /// True if there is nothing to drain. For the draining side.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.pushed.load(Ordering::Acquire) == self.drained.load(Ordering::Relaxed)
    }

    /// Bytes that it has room for. For the pushing side.
    #[inline(always)]
    pub fn room(&self) -> usize {
        let held = self.pushed.load(Ordering::Relaxed);
        let held = held.wrapping_sub(self.drained.load(Ordering::Acquire));
        N.saturating_sub(held)
    }

    /// Appends what `byte` gives, or does not ask for it where the queue is
    /// full; says which.
    #[inline(always)]
    pub fn push_with(&self, byte: impl FnOnce() -> u8) -> bool {
        let pushed = self.pushed.load(Ordering::Relaxed);
        if pushed.wrapping_sub(self.drained.load(Ordering::Acquire)) >= N {
            return false;
        }
        if let Some(slot) = self.bytes.get(pushed & Self::MASK) {
            slot.store(byte(), Ordering::Relaxed);
        }
        self.pushed.store(pushed.wrapping_add(1), Ordering::Release);
        true
    }

    /// Appends as many of `bytes` as it has room for; says how many.
    #[inline(always)]
    pub fn push_all(&self, bytes: impl ExactSizeIterator<Item = u8>) -> usize {
        let pushed = self.pushed.load(Ordering::Relaxed);
        let count = bytes.len().min(self.room());
        // Up to the end of the memory, and on from its start.
        let (before, from) = self.bytes.split_at(pushed & Self::MASK);
        for (slot, byte) in from.iter().chain(before).zip(bytes.take(count)) {
            slot.store(byte, Ordering::Relaxed);
        }
        self.pushed
            .store(pushed.wrapping_add(count), Ordering::Release);
        count
    }

    /// Copies the bytes that are there now to the start of `space`, as far as it reaches
    /// and they lie in one piece. They stay until [`Self::free`]. For the draining side.
    pub fn peek<'s>(&self, space: &'s mut [u8]) -> &'s [u8] {
        let drained = self.drained.load(Ordering::Relaxed);
        let held = self
            .pushed
            .load(Ordering::Acquire)
            .wrapping_sub(drained)
            .min(space.len());
        let first = self.bytes.get(drained & Self::MASK..).unwrap_or_default();
        let mut count = 0;
        for (slot, byte) in space.iter_mut().zip(first).take(held) {
            *slot = byte.load(Ordering::Relaxed);
            count += 1;
        }
        space.get(..count).unwrap_or_default()
    }

    /// Gives the space of the `count` oldest bytes to the pushing side, or of all there are.
    /// For the draining side.
    #[inline(always)]
    pub fn free(&self, count: usize) {
        let drained = self.drained.load(Ordering::Relaxed);
        let held = self.pushed.load(Ordering::Acquire).wrapping_sub(drained);
        self.drained
            .store(drained.wrapping_add(count.min(held)), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::thread;
    use std::vec::Vec;

    use super::*;

    /// At most `count` bytes, of both pieces where they lie in two.
    fn drain<const N: usize>(ring: &Ring<N>, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count && !ring.is_empty() {
            let mut space = [0; 64];
            let piece = ring.peek(&mut space[..count - all.len()]);
            all.extend_from_slice(piece);
            ring.free(piece.len());
        }
        all
    }

    #[test]
    fn it_is_a_queue_that_refuses_when_full() {
        let ring = Ring::<4>::new();
        assert!(ring.is_empty());
        for round in 0..1000u32 {
            let base = round as u8;
            for i in 0..4 {
                assert!(ring.push_with(|| base.wrapping_add(i)));
            }
            assert!(!ring.push_with(|| panic!("asked for a byte without room for it")));
            assert_eq!(ring.room(), 0);
            assert_eq!(drain(&ring, 3).len(), 3);
            assert_eq!(ring.room(), 3);
            assert_eq!(drain(&ring, 4), [base.wrapping_add(3)]);
            assert!(ring.is_empty());
            assert_eq!(ring.room(), 4);
            // One byte in front of the next round, so that it begins elsewhere.
            assert_eq!(ring.push_all([round as u8].into_iter()), 1);
            assert_eq!(ring.peek(&mut [0; 8]), [round as u8]);
            ring.free(7);
            assert!(ring.is_empty());
        }
    }

    #[test]
    fn the_counters_may_wrap() {
        let ring = Ring::<8>::new();
        ring.pushed.store(usize::MAX - 2, Ordering::Relaxed);
        ring.drained.store(usize::MAX - 2, Ordering::Relaxed);
        for i in 0..8 {
            assert!(ring.push_with(|| i));
        }
        assert!(!ring.push_with(|| 9));
        assert_eq!(drain(&ring, 8), (0..8).collect::<Vec<_>>());

        ring.pushed.store(usize::MAX - 2, Ordering::Relaxed);
        ring.drained.store(usize::MAX - 2, Ordering::Relaxed);
        assert_eq!(ring.push_all(0..10u8), 8);
        assert_eq!(ring.push_all(0..1u8), 0);
        assert_eq!(drain(&ring, 8), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn many_bytes_are_pushed_as_far_as_there_is_room() {
        let ring = Ring::<8>::new();
        assert_eq!(ring.push_all([1, 2, 3, 4, 5].into_iter()), 5);
        assert_eq!(ring.push_all([6, 7, 8, 9, 10].into_iter()), 3);
        assert_eq!(ring.push_all([11].into_iter()), 0);
        assert_eq!(drain(&ring, 2), [1, 2]);
        assert_eq!(ring.push_all([9, 10].into_iter()), 2);
        assert_eq!(drain(&ring, 9), [3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn two_threads_lose_nothing() {
        static RING: Ring<64> = Ring::new();
        const COUNT: usize = 200_000;
        // By single bytes and by pieces of up to 40 in turn, as a driver's interrupt does.
        let writer = thread::spawn(|| {
            let mut i = 0;
            while i < COUNT {
                let piece: Vec<u8> = (i..COUNT.min(i + 1 + i % 40))
                    .map(|i| (i % 251) as u8)
                    .collect();
                let pushed = if i % 2 == 0 {
                    RING.push_all(piece.into_iter())
                } else {
                    usize::from(RING.push_with(|| (i % 251) as u8))
                };
                if pushed == 0 {
                    thread::yield_now();
                }
                i += pushed;
            }
        });
        let mut seen = 0;
        while seen < COUNT {
            for byte in drain(&RING, 64) {
                assert_eq!(byte, (seen % 251) as u8);
                seen += 1;
            }
            thread::yield_now();
        }
        writer.join().unwrap();
        assert!(RING.is_empty());
    }
}
