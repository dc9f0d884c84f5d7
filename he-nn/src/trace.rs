//! Timing traces: which kind of work an evaluator did when.
//!
//! At every moment of an inference the evaluator does one kind of work
//! ([`SpanKind`]). A [`Tracer`] is told at every change and adds up; an
//! inference has thousands of changes, so what belongs to one limb of
//! one item of the schedule becomes one [`Span`] per kind: the spans of a limb
//! overlap where its kinds of work took turns, and [`Span::busy`] says how
//! much of its length a span's own kind had. Spans of one kind never overlap,
//! and they are kept in the order of their starts.
//!
//! Two tracers: [`Ring`] keeps the newest spans of the last inference, [`Off`]
//! keeps nothing and leaves no instruction in the program.
//!
//! An inference of `mnist-mlp64` has about 12,000 changes and 1,700 spans of 24 bytes. They
//! stay with the evaluator and are sent when the client asks, after the result. Every moment
//! belongs to one span, but for the tracer's own work when it ends spans, which is told
//! apart. Whoever waits for bytes measures that ([`crate::session::Platform::waited`]);
//! within one gap between two requests it stands before receiving, although the two may have
//! taken turns.

use core::ops::AddAssign;

use heapless::HistoryBuf;

// They travel, so they stand among the messages.
pub use crate::message::{Place, Span, SpanKind};

/// Is told by a session what it does. Times are readings of one clock that
/// never goes back.
pub trait Tracer {
    /// Whether the calls do anything: if not, the session reads no clock for
    /// them.
    const ON: bool;

    /// An inference begins; what was kept is dropped.
    fn begin(&mut self, now: u64);
    /// The work from here on is for `place`: ends the open spans of another.
    /// [`Self::mark`] or [`Self::resume`] follows.
    fn group(&mut self, place: Place, now: u64);
    /// Whether work of this kind is going on; if so, counts one more of it.
    fn again(&mut self, kind: SpanKind) -> bool;
    /// The work from here on is of this kind.
    fn mark(&mut self, kind: SpanKind, now: u64);
    /// No work until [`Self::resume`].
    fn pause(&mut self, now: u64);
    /// Since the pause the link was waited for, `waited` long, and then heard
    /// until now. (They may have taken turns.)
    fn resume(&mut self, waited: u64, now: u64);
    /// The inference has ended: ends the open spans.
    fn end(&mut self, now: u64);
    /// What is kept, in order of start.
    fn spans(&self) -> impl Iterator<Item = Span>;
    /// Spans that were dropped because newer ones took their place.
    fn dropped(&self) -> u32;
    /// Time that it took for itself within requests, to end spans; it is part
    /// of no span. (What it takes at each mark is part of the spans.)
    fn own(&self) -> u64;
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Off;

impl Tracer for Off {
    const ON: bool = false;

    #[inline(always)]
    fn begin(&mut self, _: u64) {}
    #[inline(always)]
    fn group(&mut self, _: Place, _: u64) {}
    #[inline(always)]
    fn again(&mut self, _: SpanKind) -> bool {
        true
    }
    #[inline(always)]
    fn mark(&mut self, _: SpanKind, _: u64) {}
    #[inline(always)]
    fn pause(&mut self, _: u64) {}
    #[inline(always)]
    fn resume(&mut self, _: u64, _: u64) {}
    #[inline(always)]
    fn end(&mut self, _: u64) {}
    #[inline(always)]
    fn spans(&self) -> impl Iterator<Item = Span> {
        core::iter::empty()
    }
    #[inline(always)]
    fn dropped(&self) -> u32 {
        0
    }
    #[inline(always)]
    fn own(&self) -> u64 {
        0
    }
}

impl<T: Tracer> Tracer for &mut T {
    const ON: bool = T::ON;

    fn begin(&mut self, now: u64) {
        (**self).begin(now);
    }
    fn group(&mut self, place: Place, now: u64) {
        (**self).group(place, now);
    }
    fn again(&mut self, kind: SpanKind) -> bool {
        (**self).again(kind)
    }
    fn mark(&mut self, kind: SpanKind, now: u64) {
        (**self).mark(kind, now);
    }
    fn pause(&mut self, now: u64) {
        (**self).pause(now);
    }
    fn resume(&mut self, waited: u64, now: u64) {
        (**self).resume(waited, now);
    }
    fn end(&mut self, now: u64) {
        (**self).end(now);
    }
    fn spans(&self) -> impl Iterator<Item = Span> {
        (**self).spans()
    }
    fn dropped(&self) -> u32 {
        (**self).dropped()
    }
    fn own(&self) -> u64 {
        (**self).own()
    }
}

/// A span as the ring keeps it: 24 bytes, of which a board holds up to two
/// thousand.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start_low: u32,
    length: u32,
    busy: u32,
    start_high: u16,
    place: Place,
    kind: SpanKind,
    count: u8,
}

const _: () = assert!(size_of::<Entry>() == 24);

impl From<&Entry> for Span {
    fn from(entry: &Entry) -> Self {
        Self {
            kind: entry.kind,
            place: entry.place,
            count: entry.count,
            start: u64::from(entry.start_high) << 32 | u64::from(entry.start_low),
            length: entry.length,
            busy: entry.busy,
        }
    }
}

/// A span that may still grow.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    start: u64,
    end: u64,
    busy: u64,
    count: u8,
}

/// Before any other.
const FIRST: Place = Place::Step(0);

const KINDS: usize = SpanKind::ALL.len();

/// Keeps the newest `N` spans of the last inference.
#[derive(Debug)]
pub struct Ring<const N: usize> {
    kept: HistoryBuf<Entry, N>,
    /// Spans in all, dropped ones included.
    written: u32,
    /// One per kind; those with a count of 0 have not begun.
    open: [Open; KINDS],
    place: Place,
    /// The work that is going on, and since when.
    current: Option<(SpanKind, u64)>,
    /// When spans began to be ended, if no work has followed.
    ending: Option<u64>,
    own: u64,
    /// When the work paused.
    paused: u64,
    /// When the inference began.
    origin: u64,
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Ring<N> {
    /// An empty ring.
    #[must_use]
    pub const fn new() -> Self {
        const NONE: Open = Open {
            start: 0,
            end: 0,
            busy: 0,
            count: 0,
        };
        Self {
            kept: HistoryBuf::new(),
            written: 0,
            open: [NONE; KINDS],
            place: FIRST,
            current: None,
            ending: None,
            own: 0,
            paused: 0,
            origin: 0,
        }
    }

    /// Adds what is going on to its span.
    fn close(&mut self, now: u64) {
        if let Some((kind, since)) = self.current.take()
            && let Some(open) = self.open.get_mut(kind as usize)
        {
            open.busy.add_assign(now.saturating_sub(since));
            open.end = now;
        }
    }

    /// Moves the open spans to the ring, in order of start.
    fn flush(&mut self) {
        loop {
            let begun = SpanKind::ALL.into_iter().zip(&mut self.open);
            let first = begun
                .filter(|(_, open)| open.count > 0)
                .min_by_key(|(_, open)| open.start);
            let Some((kind, open)) = first else { return };
            let start = open.start.saturating_sub(self.origin);
            let narrow = |long: u64| u32::try_from(long).unwrap_or(u32::MAX);
            self.kept.write(Entry {
                start_low: start as u32,
                start_high: (start >> 32) as u16,
                length: narrow(open.end.saturating_sub(open.start)),
                busy: narrow(open.busy),
                place: self.place,
                kind,
                count: open.count,
            });
            self.written = self.written.saturating_add(1);
            *open = Open::default();
        }
    }
}

impl<const N: usize> Tracer for Ring<N> {
    const ON: bool = true;

    fn begin(&mut self, now: u64) {
        self.kept.clear();
        self.written = 0;
        self.open = Default::default();
        self.place = FIRST;
        self.current = None;
        self.ending = None;
        self.own = 0;
        self.paused = now;
        self.origin = now;
    }

    fn group(&mut self, place: Place, now: u64) {
        self.close(now);
        // Before the first work there is nothing to end.
        let begun = self.open.iter().any(|open| open.count > 0);
        self.ending = begun.then_some(now);
        if place != self.place {
            self.flush();
            self.place = place;
        }
    }

    fn again(&mut self, kind: SpanKind) -> bool {
        match (self.current, self.open.get_mut(kind as usize)) {
            (Some((current, _)), Some(open)) if current == kind => {
                open.count = open.count.saturating_add(1);
                true
            }
            _ => false,
        }
    }

    fn mark(&mut self, kind: SpanKind, now: u64) {
        self.close(now);
        if let Some(since) = self.ending.take() {
            self.own.add_assign(now.saturating_sub(since));
        }
        if let Some(open) = self.open.get_mut(kind as usize) {
            if open.count == 0 {
                open.start = now;
            }
            open.count = open.count.saturating_add(1);
        }
        self.current = Some((kind, now));
    }

    fn pause(&mut self, now: u64) {
        self.close(now);
        self.paused = now;
    }

    fn resume(&mut self, waited: u64, now: u64) {
        // The link's time goes on from the pause.
        self.ending = None;
        let waited = waited.min(now.saturating_sub(self.paused));
        if waited > 0 {
            self.mark(SpanKind::Wait, self.paused);
        }
        self.mark(SpanKind::Receive, self.paused.saturating_add(waited));
        self.close(now);
    }

    fn end(&mut self, now: u64) {
        self.close(now);
        self.flush();
    }

    fn spans(&self) -> impl Iterator<Item = Span> {
        self.kept.oldest_ordered().map(Span::from)
    }

    fn dropped(&self) -> u32 {
        let kept = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
        self.written.saturating_sub(kept)
    }

    fn own(&self) -> u64 {
        self.own
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Item;

    const ITEM: Place = Place::Item(Item::Input {
        ciphertext: 1,
        limb: 2,
    });
    const STAGE: Place = Place::Step(2);

    fn spans(tracer: &impl Tracer) -> Vec<(SpanKind, u8, u64, u32, u32)> {
        let row = |s: Span| (s.kind, s.count, s.start, s.length, s.busy);
        tracer.spans().map(row).collect()
    }

    #[test]
    fn turns_within_a_group_become_one_span_a_kind() {
        let mut ring = Ring::<8>::new();
        ring.begin(1000);
        ring.group(ITEM, 1000);
        ring.resume(30, 1050);
        ring.mark(SpanKind::Decode, 1050);
        ring.mark(SpanKind::Ntt, 1060);
        assert!(ring.again(SpanKind::Ntt) && !ring.again(SpanKind::Decode));
        ring.mark(SpanKind::Decode, 1160);
        ring.mark(SpanKind::Send, 1170);
        ring.pause(1175);
        ring.resume(0, 1180);
        // Nothing is kept before the group ends.
        assert_eq!(spans(&ring), []);
        ring.group(STAGE, 1180);
        ring.mark(SpanKind::Rescale, 1183);
        ring.end(1200);
        assert_eq!(
            spans(&ring),
            [
                (SpanKind::Wait, 1, 0, 30, 30),
                (SpanKind::Receive, 2, 30, 150, 25),
                (SpanKind::Decode, 2, 50, 120, 20),
                (SpanKind::Ntt, 2, 60, 100, 100),
                (SpanKind::Send, 1, 170, 5, 5),
                (SpanKind::Rescale, 1, 183, 17, 17),
            ]
        );
        let busy: u64 = ring.spans().map(|s| u64::from(s.busy)).sum();
        assert_eq!((busy, ring.own()), (197, 3), "every moment has one place");
        let places: Vec<_> = ring.spans().map(|s| s.place).collect();
        assert_eq!(places, [ITEM, ITEM, ITEM, ITEM, ITEM, STAGE]);
    }

    #[test]
    fn before_the_first_span_no_time_is_the_tracers() {
        let mut ring = Ring::<8>::new();
        ring.begin(0);
        ring.group(STAGE, 10);
        ring.mark(SpanKind::MultiplyAccumulate, 14);
        ring.group(ITEM, 20);
        ring.mark(SpanKind::Encode, 25);
        ring.end(30);
        let busy: u64 = ring.spans().map(|s| u64::from(s.busy)).sum();
        assert_eq!((busy, ring.own()), (30 - 14 - 5, 5));
    }

    #[test]
    fn a_full_ring_keeps_the_newest_and_counts_the_dropped() {
        let mut ring = Ring::<4>::new();
        for inference in 0..2 {
            ring.begin(inference);
            for i in 0..7 {
                let place = if i % 2 == 0 { ITEM } else { STAGE };
                ring.group(place, inference + 10 * i);
                ring.mark(SpanKind::Digit, inference + 10 * i);
            }
            ring.end(inference + 70);
            let starts: Vec<_> = ring.spans().map(|s| s.start).collect();
            assert_eq!(starts, [30, 40, 50, 60]);
            assert_eq!(ring.dropped(), 3);
        }
        ring.begin(0);
        assert_eq!((ring.spans().count(), ring.dropped()), (0, 0));
    }

    #[test]
    fn large_values_are_kept_or_held_at_their_limits() {
        let mut ring = Ring::<4>::new();
        let late = (1 << 47) + 12_345;
        ring.begin(0);
        ring.resume(late, late);
        ring.group(ITEM, late);
        for i in 0..300 {
            ring.mark(SpanKind::Expand, late + i);
            ring.pause(late + i);
        }
        ring.end(late + 300);
        assert_eq!(
            spans(&ring),
            [
                (SpanKind::Wait, 1, 0, u32::MAX, u32::MAX),
                (SpanKind::Receive, 1, late, 0, 0),
                (SpanKind::Expand, 255, late, 299, 0),
            ]
        );
    }

    #[test]
    fn no_tracer_keeps_nothing() {
        let mut off = Off;
        off.begin(1);
        off.mark(SpanKind::Ntt, 2);
        off.end(3);
        assert_eq!((off.spans().count(), off.dropped()), (0, 0));
    }
}
