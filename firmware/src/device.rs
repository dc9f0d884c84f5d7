//! The main loop: bytes from the serial line become requests, replies go back.

use cortex_m_rt::entry;
use he_nn::link::{self, FrameReader, MAX_DECODED, MAX_FRAME};
pub(crate) use he_nn::message::Reply;
use he_nn::message::{Memory, Request, TimeUnit};
use he_nn::session::Platform;
use he_nn::trace::Tracer as _;

use crate::board::{self, Board};
use crate::evaluator::Evaluator;
use crate::tracer::Tracer;
use crate::{fault, log, stack};

/// Chunks that the client may have in flight; the board's receive ring holds
/// that many of the largest frames.
///
/// Two on the nRF52840: its driver goes on receiving only while a contiguous half
/// of the DMA buffer is free.
pub(crate) const WINDOW: u8 = if cfg!(board = "nrf52840-dk") { 2 } else { 4 };

/// What the session asks of the board that it runs on.
struct Device {
    /// Time in [`board`]'s `wait` that the session has not asked for; counted
    /// only for a tracer.
    waited: u64,
}

impl Device {
    fn wait(&mut self, board: &Board) {
        if Tracer::ON {
            let start = board::now();
            board.wait();
            self.waited = self
                .waited
                .saturating_add(board::now().saturating_sub(start));
        } else {
            board.wait();
        }
    }
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
        core::mem::take(&mut self.waited)
    }

    fn memory(&mut self) -> Memory {
        Memory {
            static_bytes: stack::static_bytes().saturating_add(board::outside_bytes()),
            stack_peak_bytes: stack::peak(),
        }
    }

    fn window(&self) -> u8 {
        WINDOW
    }
}

#[entry]
fn main() -> ! {
    stack::guard();
    let board = Board::start();
    defmt::info!(
        "{=str} started: {=u32} bytes of static memory, a window of {=u8} chunks",
        board::NAME,
        stack::static_bytes(),
        WINDOW
    );

    let reader = cortex_m::singleton!(: FrameReader<MAX_DECODED> = FrameReader::new());
    let outgoing = cortex_m::singleton!(: [u8; MAX_FRAME] = [0; MAX_FRAME]);
    let (Some(reader), Some(outgoing)) = (reader, outgoing) else {
        // Only a second call of `main` gets here.
        fault::restart();
    };
    let mut evaluator = Evaluator::new();
    let mut device = Device { waited: 0 };

    let mut reply = |reply: Reply<'_>| match link::encode(&reply, outgoing) {
        Ok(frame) => board::send(frame),
        Err(_) => defmt::error!("a reply did not fit a frame and was dropped"),
    };
    loop {
        // The frame is in the reader, so the ring has its space back before
        // the request is carried out.
        let event = reader.read(&mut board.receive());
        match event.map(|event| event.and_then(|frame| frame.decode::<Request<'_>>())) {
            Some(Ok(request)) => {
                #[cfg(feature = "fault-injection")]
                fault::inject(&request);
                board::undisturbed(|| evaluator.handle(request, &mut device, &mut reply));
            }
            Some(Err(error)) => {
                log::refused(&error);
                evaluator.refuse_frame(error.received(), &mut reply);
            }
            None => device.wait(&board),
        }
    }
}
