//! What boards of real hardware share: the cycle counter as the clock, the log
//! over RTT, and the way from a DMA buffer to the main loop.
//!
//! A board here receives by DMA and may be disturbed at any time by no more than
//! SysTick and its DMA controller's few interrupts, so requests are carried out
//! with interrupts on.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
#[cfg(not(board = "pico2"))]
use core::task::Poll;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{DCB, DWT, SYST};
use cortex_m_rt::exception;
use firmware::ring::Ring;
use he_nn::message::TimeUnit;
use rtt_target::{ChannelMode, UpChannel, rtt_init};

use crate::protocol::BUFFER_BYTES;

pub(crate) const TIME_UNIT: TimeUnit = TimeUnit::Cycles;

/// Spans that a trace keeps, 24 bytes each: those of an inference of the
/// reference network, or what fits beside it.
#[cfg(feature = "trace")]
pub(crate) const TRACE_SPANS: usize = if cfg!(board = "nrf52840-dk") {
    256
} else {
    2048
};

/// What may arrive while a request is carried out: a full window.
pub(super) const DMA_BYTES: usize = 8192;

/// Of it, what is free whatever has been read: the nRF52840's driver fills halves.
const FREE_BYTES: usize = if cfg!(board = "nrf52840-dk") {
    DMA_BYTES / 2
} else {
    DMA_BYTES
};

const _: () = assert!(BUFFER_BYTES <= FREE_BYTES);

/// Bytes on the way from the DMA buffer to the main loop; the window is held
/// there, not here.
pub(super) const RING_BYTES: usize = 512;

static RECEIVED: Ring<RING_BYTES> = Ring::new();

/// The port can send. Until then a report of a fault would wait for it without end.
static LINK_SENDS: AtomicBool = AtomicBool::new(false);

/// The cycle counter's last reading, and how often it has wrapped.
static LAST: AtomicU32 = AtomicU32::new(0);
static WRAPS: AtomicU32 = AtomicU32::new(0);

/// Starts the clock.
pub(super) fn start_clock(mut dcb: DCB, mut dwt: DWT, mut systick: SYST) {
    /// The longest pause between two interrupts; the cycle counter wraps after
    /// 256 of them.
    const RELOAD: u32 = 0x00FF_FFFF;

    dcb.enable_trace();
    DWT::unlock();
    dwt.set_cycle_count(0);
    dwt.enable_cycle_counter();
    systick.set_clock_source(SystClkSource::Core);
    systick.set_reload(RELOAD);
    systick.clear_current();
    systick.enable_interrupt();
    systick.enable_counter();
}

/// Cycles of the core since start.
pub(crate) fn now() -> u64 {
    cortex_m::interrupt::free(|_| {
        let cycles = DWT::cycle_count();
        let mut wraps = WRAPS.load(Ordering::Relaxed);
        if cycles < LAST.load(Ordering::Relaxed) {
            wraps = wraps.wrapping_add(1);
            WRAPS.store(wraps, Ordering::Relaxed);
        }
        LAST.store(cycles, Ordering::Relaxed);
        u64::from(wraps) << 32 | u64::from(cycles)
    })
}

/// Sees every wrap of the cycle counter.
#[exception]
fn SysTick() {
    now();
}

/// Sets up the channel that a debug probe finds by its name.
pub(super) fn start_log() {
    rtt_init! {
        up: {
            0: {
                size: 1024,
                mode: ChannelMode::NoBlockSkip,
                name: "defmt"
            }
        }
    };
}

/// Hands bytes to a debug probe. What it does not fetch in time is left out.
pub(crate) fn log(bytes: &[u8]) {
    // SAFETY: `crate::log` writes one frame at a time, with interrupts off.
    if let Some(mut channel) = unsafe { UpChannel::conjure(0) } {
        channel.write(bytes);
    }
}

/// Carries out `work`; see [`super`].
pub(crate) fn undisturbed<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// A link that receives by DMA.
pub(crate) trait Link {
    /// Moves bytes out of the DMA buffer as far as `space` reaches; says how many.
    fn take(&mut self, space: &mut [u8]) -> usize;
}

/// A board with its link; each board's file says how it is started.
pub(crate) struct Board<L>(L);

impl<L: Link> Board<L> {
    /// A board whose port is ready.
    pub(super) fn with(link: L) -> Self {
        LINK_SENDS.store(true, Ordering::Relaxed);
        Self(link)
    }

    /// Copies what has arrived to the start of `space`, as far as it reaches and lies in
    /// one piece.
    pub(crate) fn peek<'s>(&mut self, space: &'s mut [u8]) -> &'s [u8] {
        let mut bytes = [0; RING_BYTES];
        if let Some(room) = bytes.get_mut(..RECEIVED.room()) {
            let taken = self.0.take(room);
            RECEIVED.push_all(room.iter().take(taken).copied());
        }
        RECEIVED.peek(space)
    }

    /// Takes bytes that [`Self::peek`] gave.
    pub(crate) fn free(&mut self, count: usize) {
        RECEIVED.free(count);
    }

    /// Returns at once. DMA says nothing of single bytes, so what would wake a sleeping core is
    /// SysTick, once in up to a quarter of a second; and each of these cores gates the clock
    /// that its cycle counter runs by while it sleeps (`DWT`, Arm DDI 0403, C1.8), so that what
    /// a report calls waiting would be missing.
    pub(crate) fn wait(&self) {}
}

/// Whether the port can send.
pub(super) fn link_sends() -> bool {
    LINK_SENDS.load(Ordering::Relaxed)
}

/// What a driver gives at once; nothing where bytes were lost, as the frame that lost them is
/// refused by its checksum.
#[cfg(not(board = "pico2"))]
pub(super) fn now_of<T, E>(read: impl Future<Output = Result<T, E>>) -> Option<T> {
    match embassy_futures::poll_once(read) {
        Poll::Ready(Ok(found)) => Some(found),
        Poll::Ready(Err(_)) => {
            defmt::warn!("the serial port lost bytes");
            None
        }
        Poll::Pending => None,
    }
}
