//! defmt frames, written out on the board's log port as they are made.
//!
//! Logging blocks until the port has taken the bytes, with interrupts off for
//! the time of one frame: it is for what happens seldom.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use cortex_m::interrupt;
use cortex_m::register::primask;
use defmt::Encoder;
use he_nn::link::LinkError;

use crate::board;

#[defmt::global_logger]
struct Logger;

struct State {
    encoder: UnsafeCell<Encoder>,
    busy: AtomicBool,
    interrupts: AtomicBool,
}

// SAFETY: `encoder` is only touched between `acquire` and `release`, with
// interrupts off on a single core, or in `reclaim` after the last of them.
unsafe impl Sync for State {}

static STATE: State = State {
    encoder: UnsafeCell::new(Encoder::new()),
    busy: AtomicBool::new(false),
    interrupts: AtomicBool::new(false),
};

// SAFETY: interrupts are off from `acquire` to `release`, so that one frame at a
// time is written; a frame within a frame is refused in `acquire`.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        let interrupts = primask::read().is_active();
        interrupt::disable();
        if STATE.busy.load(Ordering::Relaxed) {
            // A log statement inside the formatting of another one: a fault,
            // which is reported, in an image that cannot panic.
            cortex_m::asm::udf();
        }
        STATE.busy.store(true, Ordering::Relaxed);
        STATE.interrupts.store(interrupts, Ordering::Relaxed);
        // SAFETY: see `Sync`.
        unsafe { (*STATE.encoder.get()).start_frame(board::log) };
    }

    unsafe fn flush() {}

    unsafe fn release() {
        // SAFETY: see `Sync`.
        unsafe { (*STATE.encoder.get()).end_frame(board::log) };
        STATE.busy.store(false, Ordering::Relaxed);
        if STATE.interrupts.load(Ordering::Relaxed) {
            // SAFETY: they were on before `acquire`.
            unsafe { interrupt::enable() };
        }
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: see `Sync`.
        unsafe { (*STATE.encoder.get()).write(bytes, board::log) };
    }
}

/// Gives up a frame that a fault cut off, so that the fault can be logged. Only
/// for handlers that never return, with interrupts off.
pub(crate) fn reclaim() {
    if STATE.busy.swap(false, Ordering::Relaxed) {
        // A frame ends with a zero; the half frame is dropped by the decoder.
        board::log(&[0]);
    }
    // SAFETY: see `Sync`; the interrupted writer never runs again.
    unsafe { *STATE.encoder.get() = Encoder::new() };
}

defmt::timestamp!("{=u64}", board::now());

/// Logs a frame that was refused.
pub(crate) fn refused(error: &LinkError) {
    let reason = match error {
        LinkError::Buffer { .. } => "found no buffer",
        LinkError::TooLong { .. } => "was too long",
        LinkError::Truncated { .. } => "broke off",
        LinkError::Checksum { .. } => "was damaged",
        LinkError::Encoding { .. } => "held no request",
    };
    defmt::warn!("a frame of {=u32} bytes {=str}", error.received(), reason);
}
