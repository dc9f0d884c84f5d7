//! The session, its model in flash and its arena in RAM.

use core::mem::MaybeUninit;

#[cfg(not(params = "n8192-depth5"))]
use he_core::params::N4096_DEPTH3 as PARAMS;
#[cfg(params = "n8192-depth5")]
use he_core::params::N8192_DEPTH5 as PARAMS;
use he_nn::message::{Refusal, Reply, Request};
use he_nn::program::Program;
use he_nn::session::{ChunkBuffer, EMPTY_CHUNK, Platform};

use crate::kept::{self, Store};
use crate::tracer::{self, Tracer};

include!(concat!(env!("OUT_DIR"), "/arena.rs"));

/// The program that the build script has planned.
static PROGRAM: [u8; include_bytes!(concat!(env!("OUT_DIR"), "/program.bin")).len()] =
    *include_bytes!(concat!(env!("OUT_DIR"), "/program.bin"));

/// Bytes at an address for words.
#[cfg(prepared)]
#[repr(C, align(4))]
struct Aligned<T>(T);

/// What the image holds of the model: its weights as they are multiplied, where there is
/// flash for that, or else its file. The build script has parsed and planned it. An array,
/// so that the image has a symbol of its size (`host-runner/src/image.rs`).
#[cfg(prepared)]
static MODEL: Aligned<[u8; include_bytes!(concat!(env!("OUT_DIR"), "/weights.bin")).len()]> =
    Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/weights.bin")));
#[cfg(not(any(feature = "encrypted-weights", prepared)))]
static MODEL: [u8; include_bytes!(env!("HE_EDGE_MODEL")).len()] =
    *include_bytes!(env!("HE_EDGE_MODEL"));

/// Weights in flash, or none where they come encrypted.
#[cfg(feature = "encrypted-weights")]
type Weights = he_nn::session::Encrypted;
#[cfg(prepared)]
type Weights = he_nn::session::Prepared<'static>;
#[cfg(not(any(feature = "encrypted-weights", prepared)))]
type Weights = he_nn::model::Model<'static>;

#[cfg(feature = "encrypted-weights")]
const fn weights() -> Option<Weights> {
    Some(he_nn::session::Encrypted)
}
#[cfg(prepared)]
fn weights() -> Option<Weights> {
    he_nn::session::Prepared::from_bytes(&MODEL.0)
}
#[cfg(not(any(feature = "encrypted-weights", prepared)))]
fn weights() -> Option<Weights> {
    he_nn::model::Model::parse(&MODEL).ok()
}

type Session = he_nn::session::Session<
    'static,
    &'static [u8],
    Weights,
    Tracer,
    { cfg!(polynomials) },
    { cfg!(merged) },
    Store,
>;

fn session(arena: &'static mut [u32]) -> Option<Session> {
    let program = cortex_m::singleton!(
        : Option<Program<&'static [u8]>> = Program::parse(&PARAMS, &PROGRAM[..])
    )?;
    let chunk = cortex_m::singleton!(: ChunkBuffer = EMPTY_CHUNK)?;
    let tracer = tracer::tracer()?;
    let session = he_nn::session::Session::new(program.as_ref()?, weights()?, arena, chunk, tracer);
    Some(session.ok()?.keeping(kept::store()))
}

/// The arena; a set that does not fit its memory is a link error. The section is
/// one of `.bss`, and lies in the RAM unless the board's memory map has another
/// place for it, which the start-up code does not clear.
#[unsafe(link_section = ".bss.arena")]
static mut ARENA: MaybeUninit<[u32; ARENA_WORDS]> = MaybeUninit::uninit();

/// The arena, once.
fn take_arena() -> Option<&'static mut [u32]> {
    let _once = cortex_m::singleton!(: () = ())?;
    let arena = (&raw mut ARENA).cast::<u32>();
    // SAFETY: all words are written before the reference is made, which is the
    // only one: this line is reached once.
    unsafe {
        arena.write_bytes(0, ARENA_WORDS);
        Some(core::slice::from_raw_parts_mut(arena, ARENA_WORDS))
    }
}

/// A session, or the reason to refuse everything.
pub(crate) struct Evaluator(Option<Session>);

impl Evaluator {
    /// Takes the arena; a second evaluator would get none. Apart, so that what
    /// it is made from is off the stack again.
    #[inline(never)]
    pub(crate) fn new() -> Self {
        let session = take_arena().and_then(session);
        if session.is_none() {
            defmt::error!("the model in flash does not fit; every request will be refused");
        }
        Self(session)
    }

    pub(crate) fn handle<P: Platform>(
        &mut self,
        request: Request<'_>,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) {
        match &mut self.0 {
            Some(session) => session.handle(request, platform, reply),
            None => reply(Reply::Refused(Refusal::Model)),
        }
    }

    pub(crate) fn refuse_frame(&mut self, received: u32, reply: &mut impl FnMut(Reply<'_>)) {
        match &mut self.0 {
            Some(session) => session.refuse_frame(received, reply),
            None => reply(Reply::Refused(Refusal::Model)),
        }
    }
}
