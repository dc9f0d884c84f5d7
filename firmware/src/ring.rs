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

    /// The bytes that are there now, in order. They are free for the pushing
    /// side when the iterator is dropped; bytes that were not taken stay.
    #[inline(always)]
    pub fn drain(&self) -> Drain<'_, N> {
        Drain {
            next: self.drained.load(Ordering::Relaxed),
            end: self.pushed.load(Ordering::Acquire),
            ring: self,
        }
    }
}

/// See [`Ring::drain`].
#[derive(Debug)]
pub struct Drain<'r, const N: usize> {
    ring: &'r Ring<N>,
    next: usize,
    end: usize,
}

impl<const N: usize> Iterator for Drain<'_, N> {
    type Item = u8;

    #[inline(always)]
    fn next(&mut self) -> Option<u8> {
        if self.next == self.end {
            return None;
        }
        let byte = self
            .ring
            .bytes
            .get(self.next & Ring::<N>::MASK)?
            .load(Ordering::Relaxed);
        self.next = self.next.wrapping_add(1);
        Some(byte)
    }
}

impl<const N: usize> Drop for Drain<'_, N> {
    #[inline(always)]
    fn drop(&mut self) {
        self.ring.drained.store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::thread;
    use std::vec::Vec;

    use super::*;

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
            assert_eq!(ring.drain().take(3).collect::<Vec<_>>().len(), 3);
            assert_eq!(ring.drain().collect::<Vec<_>>(), [base.wrapping_add(3)]);
            assert!(ring.is_empty());
            assert_eq!(ring.room(), 4);
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
        assert_eq!(ring.drain().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn two_threads_lose_nothing() {
        static RING: Ring<64> = Ring::new();
        const COUNT: usize = 200_000;
        let writer = thread::spawn(|| {
            for i in 0..COUNT {
                while !RING.push_with(|| (i % 251) as u8) {
                    thread::yield_now();
                }
            }
        });
        let mut seen = 0;
        while seen < COUNT {
            for byte in RING.drain() {
                assert_eq!(byte, (seen % 251) as u8);
                seen += 1;
            }
            thread::yield_now();
        }
        writer.join().unwrap();
        assert!(RING.is_empty());
    }
}
