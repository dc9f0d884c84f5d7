//! What the programs do between requests: bytes off the line become requests, and
//! replies go back.

use he_nn::link::{self, FrameReader, MAX_DECODED, MAX_FRAME};
use he_nn::message::Memory;
use serde::{Deserialize, Serialize};

use zeroize::Zeroize;

use crate::board::{self, Board};
use crate::restart::restart;
use crate::{log, stack};

/// One that answers requests.
pub(crate) trait Program {
    /// What it is asked.
    type Request<'a>: Deserialize<'a>;
    /// What it says.
    type Reply<'a>: Serialize;

    /// Carries a request out; nothing is received meanwhile.
    fn handle(
        &mut self,
        request: Self::Request<'_>,
        reply: &mut impl for<'r> FnMut(Self::Reply<'r>),
    );

    /// Answers a damaged frame of so many bytes.
    fn refuse_frame(&mut self, received: u32, reply: &mut impl for<'r> FnMut(Self::Reply<'r>));

    /// Whether requests hold secrets, which are erased once they are carried out.
    const RECEIVES_SECRETS: bool = false;

    /// Whether it is asked for the time that went by without a byte.
    const MEASURES_WAITING: bool = false;

    /// So much time has gone by without a byte.
    fn waited(&mut self, _time: u64) {}
}

/// Bytes that are looked at at once.
const PIECE_BYTES: usize = 512;

/// Memory that the program takes.
pub(crate) fn memory() -> Memory {
    Memory {
        static_bytes: stack::static_bytes().saturating_add(board::outside_bytes()),
        stack_peak_bytes: stack::peak(),
    }
}

/// Answers requests for ever.
pub(crate) fn serve<P: Program>(board: &mut Board, program: &mut P) -> ! {
    let reader = cortex_m::singleton!(: FrameReader<MAX_DECODED> = FrameReader::new());
    let outgoing = cortex_m::singleton!(: [u8; MAX_FRAME] = [0; MAX_FRAME]);
    let space = cortex_m::singleton!(: [u8; PIECE_BYTES] = [0; PIECE_BYTES]);
    let (Some(reader), Some(outgoing), Some(space)) = (reader, outgoing, space) else {
        // Only a second call of `main` gets here.
        restart();
    };
    let mut reply = |reply: P::Reply<'_>| match link::encode(&reply, outgoing) {
        Ok(frame) => board::send(frame),
        Err(_) => defmt::error!("a reply did not fit a frame and was dropped"),
    };
    // Since when nothing has come.
    let mut silent = None;
    loop {
        // Moving what has come is no waiting.
        let now = silent.map(|_| board::now());
        let piece = board.peek(space);
        if piece.is_empty() {
            if P::MEASURES_WAITING && silent.is_none() {
                silent = Some(board::now());
            }
            board.wait();
            continue;
        }
        if let (Some(since), Some(now)) = (silent.take(), now) {
            program.waited(now.saturating_sub(since));
        }
        let mut rest = piece;
        let event = reader.read(&mut rest);
        // The frame is in the reader, so its space is free before the request is carried
        // out.
        board.free(piece.len().saturating_sub(rest.len()));
        match event.map(|event| event.and_then(|frame| frame.decode::<P::Request<'_>>())) {
            Some(Ok(request)) => board::undisturbed(|| program.handle(request, &mut reply)),
            Some(Err(error)) => {
                log::refused(&error);
                program.refuse_frame(error.received(), &mut reply);
            }
            None => {}
        }
        if P::RECEIVES_SECRETS {
            reader.erase_given_out();
            space.zeroize();
        }
    }
}
