//! The evaluator as a program of the board.

use cortex_m_rt::entry;
use he_nn::message::{Memory, Reply, Request, TimeUnit};
#[cfg(feature = "padding")]
use he_nn::padding::{self, Pace, Tick};
use he_nn::session::Platform;

use crate::board;
use crate::evaluator::Evaluator;
use crate::protocol::WINDOW;
#[cfg(feature = "padding")]
use crate::serve::Mode;
use crate::serve::{self, Program};
use crate::start::start;

/// What the session asks of the board that it runs on.
struct Device {
    /// Time without a byte, since start.
    waited: u64,
}

impl Platform for Device {
    fn board(&self) -> &'static str {
        board::NAME
    }

    fn unit(&self) -> TimeUnit {
        board::TIME_UNIT
    }

    fn now(&mut self) -> u64 {
        board::now()
    }

    fn waited(&mut self) -> u64 {
        self.waited
    }

    fn memory(&mut self) -> Memory {
        serve::memory()
    }

    fn window(&self) -> u32 {
        WINDOW
    }
}

/// The evaluator and what it asks of its board.
struct Served {
    evaluator: Evaluator,
    device: Device,
    #[cfg(feature = "padding")]
    pace: Pace,
}

impl Program for Served {
    type Request<'a> = Request<'a>;
    type Reply<'a> = Reply<'a>;

    fn handle(&mut self, request: Request<'_>, reply: &mut impl for<'r> FnMut(Reply<'r>)) {
        #[cfg(feature = "fault-injection")]
        crate::fault_injection::inject(&request);
        self.evaluator.handle(request, &mut self.device, reply);
    }

    fn refuse_frame(&mut self, received: u32, reply: &mut impl for<'r> FnMut(Reply<'r>)) {
        self.evaluator.refuse_frame(received, reply);
    }

    #[cfg(feature = "padding")]
    fn heard(&mut self, request: Option<&Request<'_>>) -> (Mode, Option<Tick>) {
        let tick = self.pace.heard(request);
        // What waits, and a result, are sent by the tick.
        match (tick, self.pace.is_on()) {
            (None, true) => (Mode::Keeps, tick),
            _ => (Mode::Sends, tick),
        }
    }

    #[cfg(feature = "padding")]
    fn idle(&mut self) {
        self.pace.idle();
    }

    #[cfg(feature = "padding")]
    fn leaves_out(reply: &Reply<'_>, has_refused: &mut bool) -> bool {
        padding::leaves_out(reply, has_refused)
    }

    #[cfg(feature = "padding")]
    fn tock<'a>(tick: Tick) -> Option<Reply<'a>> {
        Some(tick.tock())
    }

    const MEASURES_WAITING: bool = true;

    fn waited(&mut self, time: u64) {
        self.device.waited = self.device.waited.saturating_add(time);
    }
}

#[entry]
fn main() -> ! {
    start("the evaluator", || Served {
        evaluator: Evaluator::new(),
        device: Device { waited: 0 },
        #[cfg(feature = "padding")]
        pace: Pace::new(),
    })
}
