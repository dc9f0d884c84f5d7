//! What the programs do between requests: bytes off the line become requests, and
//! replies go back.

use he_nn::link::{self, FrameReader, MAX_DECODED, MAX_FRAME};
use he_nn::message::Memory;
#[cfg(feature = "padding")]
use he_nn::padding::Tick;
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

    /// Hears a request, or a frame that was none, before it is carried out; what becomes of
    /// replies, and the tick that it is.
    #[cfg(feature = "padding")]
    fn heard(&mut self, _: Option<&Self::Request<'_>>) -> (Mode, Option<Tick>) {
        (Mode::Sends, None)
    }

    /// All that came is carried out, and bytes are waited for.
    #[cfg(feature = "padding")]
    fn idle(&mut self) {}

    /// Whether a reply is left out where replies wait.
    #[cfg(feature = "padding")]
    fn leaves_out(_: &Self::Reply<'_>, _has_refused: &mut bool) -> bool {
        false
    }

    /// The end of the answer to a tick.
    #[cfg(feature = "padding")]
    fn tock<'a>(_: Tick) -> Option<Self::Reply<'a>> {
        None
    }
}

/// What becomes of replies.
#[cfg(feature = "padding")]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They are sent.
    Sends,
    /// They wait for a tick.
    Keeps,
}

/// Replies on their way to the line. Those that wait lie in the one frame buffer: greeting,
/// readiness, a refusal, keys that are kept. A result does not fit, and is sent by the tick
/// that asks for it.
struct Replies {
    buffer: &'static mut [u8; MAX_FRAME],
    #[cfg(feature = "padding")]
    mode: Mode,
    /// Bytes of the buffer that wait.
    #[cfg(feature = "padding")]
    waiting: usize,
    /// Bytes that were sent since the tick.
    #[cfg(feature = "padding")]
    sent: usize,
    /// A refusal waits.
    #[cfg(feature = "padding")]
    has_refused: bool,
}

impl Replies {
    #[cfg(not(feature = "padding"))]
    fn reply<P: Program>(&mut self, reply: &P::Reply<'_>) {
        match link::encode(reply, self.buffer) {
            Ok(frame) => board::send(frame),
            Err(_) => defmt::error!("a reply did not fit a frame and was dropped"),
        }
    }

    #[cfg(feature = "padding")]
    fn reply<P: Program>(&mut self, reply: &P::Reply<'_>) {
        if self.mode == Mode::Keeps && P::leaves_out(reply, &mut self.has_refused) {
            return;
        }
        let mut frame = self.encoded(reply);
        if frame == 0 && self.waiting > 0 {
            // Rather early than never: the client notices by the length.
            self.send_waiting();
            frame = self.encoded(reply);
        }
        if frame == 0 {
            defmt::error!("a reply did not fit a frame and was dropped");
        }
        self.waiting = self.waiting.saturating_add(frame);
        if self.mode == Mode::Sends {
            self.send_waiting();
        }
    }

    /// Bytes of a reply behind those that wait; none where there is no room.
    #[cfg(feature = "padding")]
    fn encoded(&mut self, reply: &impl Serialize) -> usize {
        let room = self.buffer.get_mut(self.waiting..).unwrap_or_default();
        link::encode(reply, room).map_or(0, <[u8]>::len)
    }

    #[cfg(feature = "padding")]
    fn send_waiting(&mut self) {
        let waiting = self.buffer.get(..self.waiting).unwrap_or_default();
        board::send(waiting);
        self.sent = self.sent.saturating_add(self.waiting);
        self.waiting = 0;
    }

    /// Fills an answer up and ends it.
    #[cfg(feature = "padding")]
    fn answer<P: Program>(&mut self, tick: Tick) {
        const ZEROS: [u8; 64] = [link::DELIMITER; 64];
        self.send_waiting();
        let Some(tock) = P::tock(tick) else {
            return;
        };
        self.waiting = self.encoded(&tock);
        let mut zeros = tick.zeros(self.sent.saturating_add(self.waiting));
        while zeros > 0 {
            let piece = ZEROS.get(..zeros.min(ZEROS.len())).unwrap_or_default();
            board::send(piece);
            zeros = zeros.saturating_sub(piece.len());
        }
        self.send_waiting();
    }
}

/// Has the program hear a request, or a frame that was none, and replies wait or not.
#[cfg(feature = "padding")]
fn hear<P: Program>(
    program: &mut P,
    replies: &mut Replies,
    request: Option<&P::Request<'_>>,
) -> Option<Tick> {
    let (mode, tick) = program.heard(request);
    replies.mode = mode;
    replies.sent = 0;
    replies.has_refused &= tick.is_none();
    if mode == Mode::Sends && tick.is_none() {
        // What waited was another client's.
        replies.waiting = 0;
    }
    tick
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
    let mut replies = Replies {
        buffer: outgoing,
        #[cfg(feature = "padding")]
        mode: Mode::Sends,
        #[cfg(feature = "padding")]
        waiting: 0,
        #[cfg(feature = "padding")]
        sent: 0,
        #[cfg(feature = "padding")]
        has_refused: false,
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
            #[cfg(feature = "padding")]
            program.idle();
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
            Some(Ok(request)) => {
                #[cfg(feature = "padding")]
                let tick = hear(program, &mut replies, Some(&request));
                let mut reply = |reply: P::Reply<'_>| replies.reply::<P>(&reply);
                board::undisturbed(|| program.handle(request, &mut reply));
                #[cfg(feature = "padding")]
                if let Some(tick) = tick {
                    replies.answer::<P>(tick);
                }
            }
            Some(Err(error)) => {
                #[cfg(feature = "padding")]
                hear(program, &mut replies, None);
                log::refused(&error);
                let mut reply = |reply: P::Reply<'_>| replies.reply::<P>(&reply);
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
