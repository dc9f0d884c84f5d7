//! Clock and tracer, as the work of a session sees them.

use he_core::probe::{Probe, Work};

use super::Platform;
use crate::message::Request;
use crate::schedule::Upload;
use crate::trace::{Place, SpanKind, Tracer};

#[derive(Debug)]
pub(super) struct Trace<T> {
    pub(super) tracer: T,
    /// The running inference is traced.
    pub(super) on: bool,
    /// What had been waited when it was last asked for.
    pub(super) waited: u64,
}

impl<T: Tracer> Trace<T> {
    #[inline(always)]
    pub(super) const fn is_on(&self) -> bool {
        T::ON && self.on
    }

    #[inline(always)]
    pub(super) const fn watch<'w, P>(&'w mut self, platform: &'w mut P) -> Watch<'w, T, P> {
        Watch {
            trace: self,
            platform,
        }
    }

    /// The work from here on is for `place`, and of this kind.
    #[inline(always)]
    pub(super) fn group<P: Platform>(&mut self, place: Place, kind: SpanKind, platform: &mut P) {
        if self.is_on() {
            self.tracer.group(place, platform.now());
            self.tracer.mark(kind, platform.now());
        }
    }

    /// A request came, and `next` is what it is for.
    pub(super) fn heard<P: Platform>(
        &mut self,
        request: &Request<'_>,
        next: Option<Upload>,
        platform: &mut P,
    ) {
        let item = match (request, next) {
            (
                Request::Data {
                    item, offset: 0, ..
                },
                _,
            ) => Some(*item),
            (Request::Seed { .. }, Some(Upload::Chunk(item, 0))) => Some(item),
            _ => None,
        };
        if let Some(item) = item {
            self.tracer.group(Place::Item(item), platform.now());
        }
        let now = platform.now();
        let waited = platform.waited();
        self.tracer.resume(waited.saturating_sub(self.waited), now);
        self.waited = waited;
        self.tracer.mark(SpanKind::Decode, now);
    }

    /// A request is answered.
    pub(super) fn answered<P: Platform>(&mut self, running: bool, platform: &mut P) {
        let now = platform.now();
        if running {
            self.tracer.pause(now);
        } else {
            self.tracer.end(now);
            self.on = false;
        }
    }
}

pub(super) struct Watch<'w, T, P> {
    trace: &'w mut Trace<T>,
    platform: &'w mut P,
}

impl<T: Tracer, P: Platform> Watch<'_, T, P> {
    /// The work from here on is of this kind.
    #[inline(always)]
    pub(super) fn mark(&mut self, kind: SpanKind) {
        if self.trace.is_on() {
            self.note(kind);
        }
    }

    #[inline(never)]
    fn note(&mut self, kind: SpanKind) {
        let tracer = &mut self.trace.tracer;
        if !tracer.again(kind) {
            tracer.mark(kind, self.platform.now());
        }
    }
}

impl<T: Tracer, P: Platform> Probe for Watch<'_, T, P> {
    #[inline(always)]
    fn begin(&mut self, work: Work) {
        self.mark(work.into());
    }
}
