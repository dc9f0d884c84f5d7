//! The evaluator as a program of the board.

use cortex_m_rt::entry;
use he_nn::message::{Memory, Reply, Request, TimeUnit};
use he_nn::session::Platform;

use crate::board;
use crate::evaluator::Evaluator;
use crate::protocol::WINDOW;
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
    })
}
