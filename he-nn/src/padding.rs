//! A padded link: how much goes over it and when is decided by the client's clock and by
//! what it was told, not by what is computed.
//!
//! The client sends cells of equal size at equal times:
//!
//! ```text
//! | Tick { fill } | frames of requests, as many as there are and fit | 0x00 .. |
//! ```
//!
//! The evaluator answers a tick, and nothing else: with what it has replied since the tick
//! before, filled up with zeros to `fill` bytes, and [`Reply::Tock`] at the end. Zeros end
//! no frame ([`crate::link`]), so a reader passes over them. What a cell asks for is
//! computed behind the answer to its tick, and must be done before the next: then the
//! answer's time tells nothing of it, and no clock is needed here. An evaluator that was not
//! done says so ([`Reply::Tock`]). Acknowledgements are left out: a tick that is answered is
//! one of everything before it. Refusals wait for their tick, too.
//!
//! What somebody learns who reads the bytes is another matter: the frames are readable.
//! This is for links in a tunnel (TLS, SSH without compression), of which an observer sees
//! numbers, sizes and times of bytes.
//!
//! A greeting ends padding, unless a tick is the frame before it: a client that pads sends
//! one there. So one that does not pad is answered at once, whoever came before it.

use crate::message::{Reply, Request};

/// Where a padded conversation stands, on the evaluator's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    is_on: bool,
    /// The frame before was a tick.
    ticked: bool,
    /// Since a tick something was asked for, and nothing has been waited for since.
    busy: bool,
}

/// A tick that is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    fill: u32,
    late: bool,
    /// Whether the result is asked for.
    pub result: bool,
}

impl Pace {
    /// Of a link that is not padded.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            is_on: false,
            ticked: false,
            busy: false,
        }
    }

    /// Whether replies wait for a tick.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Everything that has come is carried out, and bytes are waited for.
    pub const fn idle(&mut self) {
        self.busy = false;
    }

    /// A request, or a frame that was none, before it is carried out; the tick that it is.
    pub const fn heard(&mut self, request: Option<&Request<'_>>) -> Option<Tick> {
        if let Some(&Request::Tick { fill, result }) = request {
            self.is_on = true;
            self.ticked = true;
            return Some(Tick {
                fill,
                late: self.busy,
                result,
            });
        }
        if matches!(request, Some(Request::Hello { .. })) && !self.ticked {
            self.is_on = false;
        }
        self.ticked = false;
        self.busy = true;
        None
    }
}

/// Whether a reply is left out where replies wait: acknowledgements, and refusals behind
/// the first since the tick, of which there is one per request that follows it.
pub const fn leaves_out(reply: &Reply<'_>, has_refused: &mut bool) -> bool {
    match reply {
        Reply::Ack => true,
        Reply::Refused(_) => core::mem::replace(has_refused, true),
        _ => false,
    }
}

impl Tick {
    /// The end of its answer.
    #[must_use]
    pub const fn tock<'a>(self) -> Reply<'a> {
        Reply::Tock { late: self.late }
    }

    /// Zeros that fill up an answer that has so many bytes without them.
    #[must_use]
    pub const fn zeros(self, bytes: usize) -> usize {
        (self.fill as usize).saturating_sub(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Refusal;

    const TICK: Request<'_> = Request::Tick {
        fill: 100,
        result: false,
    };
    const HELLO: Request<'_> = Request::Hello { version: 1 };

    #[test]
    fn a_greeting_ends_padding_unless_a_tick_is_before_it() {
        let mut pace = Pace::new();
        assert_eq!(pace.heard(Some(&HELLO)), None);
        assert!(!pace.is_on());
        assert!(pace.heard(Some(&TICK)).is_some());
        pace.heard(Some(&HELLO));
        assert!(pace.is_on());
        // Whoever is cut off behind a tick leaves padding on for one greeting.
        pace.heard(Some(&HELLO));
        assert!(!pace.is_on());
        pace.heard(Some(&TICK));
        pace.heard(None);
        assert!(pace.is_on());
        pace.heard(Some(&HELLO));
        assert!(!pace.is_on());
    }

    #[test]
    fn of_refusals_the_first_is_kept() {
        let refused = Reply::Refused(Refusal::NotExpected);
        let mut has_refused = false;
        let replies = [
            &Reply::Ack,
            &Reply::Aborted,
            &refused,
            &refused,
            &Reply::Aborted,
        ];
        let left_out = replies.map(|reply| leaves_out(reply, &mut has_refused));
        assert_eq!(left_out, [true, false, false, true, false]);
    }

    #[test]
    fn a_tick_is_late_where_nothing_was_waited_for() {
        let mut pace = Pace::new();
        let late =
            |pace: &mut Pace| pace.heard(Some(&TICK)).unwrap().tock() == Reply::Tock { late: true };
        assert!(!late(&mut pace));
        pace.heard(Some(&Request::Abort));
        assert!(late(&mut pace));
        pace.idle();
        assert!(!late(&mut pace));
        pace.idle();
        // Bytes were waited for in the middle of a cell.
        pace.heard(Some(&Request::Abort));
        assert!(late(&mut pace));
        let tick = pace.heard(Some(&TICK)).unwrap();
        assert_eq!(
            [0, 99, 100, 101].map(|bytes| tick.zeros(bytes)),
            [100, 1, 0, 0]
        );
    }
}
