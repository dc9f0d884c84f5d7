//! Nordic's nRF52840 DK: a Cortex-M4F at 64 MHz with 256 KiB of RAM.
//!
//! | port | is |
//! |---|---|
//! | UARTE0, P0.08 | the link's reception: the debugger's serial port |
//! | UARTE1, P0.06 | its other direction |
//! | TIMER1, PPI | count the bytes that EasyDMA has received |
//! | RTT | the log |
//! | DWT | the clock, in cycles |
//! | RNG | entropy |
//!
//! Registers from Nordic's nRF52840 product specification, pins from the DK's
//! hardware guide. The two directions are two peripherals, because the driver of
//! the receiving one must not be disturbed by a fault handler that sends.

use core::cell::RefCell;

use embassy_nrf::buffered_uarte::{self, BufferedUarteRx};
use embassy_nrf::config::{Config, HfclkSource};
use embassy_nrf::mode::Blocking;
use embassy_nrf::peripherals::{UARTE0, UARTE1};
use embassy_nrf::rng::Rng;
use embassy_nrf::uarte::{self, Baudrate, UarteTx};
use embassy_nrf::{bind_interrupts, pac};
use firmware::ring::Drain;

use super::hardware;
pub(crate) use super::hardware::{TIME_UNIT, log, now, outside_bytes, undisturbed};
use crate::fault;

/// See [`hardware::TRACE_SPANS`].
#[cfg(feature = "trace")]
pub(crate) const TRACE_SPANS: usize = hardware::TRACE_SPANS;

/// All memory of the link is in the RAM region.
pub(super) const OUTSIDE_BYTES: u32 = 0;

/// EasyDMA reads RAM only, and what is sent may lie in flash.
const SEND_BYTES: usize = 64;

bind_interrupts!(struct Interrupts {
    UARTE0 => buffered_uarte::InterruptHandler<UARTE0>;
    UARTE1 => uarte::InterruptHandler<UARTE1>;
});

/// Clock and ports, started.
pub(crate) struct Board {
    link: RefCell<BufferedUarteRx<'static>>,
    random: RefCell<Rng<'static, Blocking>>,
    /// Dropping it would stop the port.
    _sends: UarteTx<'static>,
}

impl Board {
    pub(crate) fn start() -> Self {
        hardware::start_log();
        let core = cortex_m::Peripherals::take();
        let buffer = cortex_m::singleton!(: [u8; hardware::DMA_BYTES] = [0; hardware::DMA_BYTES]);
        let (Some(core), Some(buffer)) = (core, buffer) else {
            // Only a second call gets here.
            fault::restart();
        };
        let mut config = Config::default();
        // The internal oscillator is too inexact for this rate.
        config.hfclk_source = HfclkSource::ExternalXtal;
        let board = embassy_nrf::init(config);
        hardware::start_clock(core.DCB, core.DWT, core.SYST);

        let mut config = uarte::Config::default();
        // By its name: the peripheral knows a few rates only.
        const { assert!(hardware::LINK_BAUD == 921_600) };
        config.baudrate = Baudrate::Baud921600;
        let link = BufferedUarteRx::new(
            board.UARTE0,
            board.TIMER1,
            board.PPI_CH0,
            board.PPI_CH1,
            board.PPI_GROUP0,
            Interrupts,
            board.P0_08,
            config.clone(),
            buffer,
        );
        Self {
            link: RefCell::new(link),
            random: RefCell::new(Rng::new_blocking(board.RNG)),
            _sends: UarteTx::new(board.UARTE1, Interrupts, board.P0_06, config),
        }
    }

    /// What has arrived.
    pub(crate) fn receive(&self) -> Drain<'static, { hardware::RING_BYTES }> {
        hardware::receive(|space| {
            let Ok(mut link) = self.link.try_borrow_mut() else {
                return 0;
            };
            match embassy_futures::poll_once(link.read(space)) {
                core::task::Poll::Ready(Ok(count)) => count,
                // The frame that lost bytes is refused by its checksum.
                core::task::Poll::Ready(Err(_)) => {
                    defmt::warn!("the serial port lost bytes");
                    0
                }
                core::task::Poll::Pending => 0,
            }
        })
    }

    /// Returns at once: DMA says nothing of single bytes.
    pub(crate) fn wait(&self) {}

    /// Fills `bytes` from the noise source.
    #[expect(dead_code, reason = "the evaluator draws no random numbers")]
    pub(crate) fn entropy(&self, bytes: &mut [u8]) {
        if let Ok(mut random) = self.random.try_borrow_mut() {
            random.blocking_fill_bytes(bytes);
        }
    }
}

/// Sends on the link. By registers, as a fault handler may be the caller.
pub(crate) fn send(bytes: &[u8]) {
    let tx = pac::UARTE1.dma().tx();
    let end = pac::UARTE1.events_dma().tx().end();
    for part in bytes.chunks(SEND_BYTES) {
        let mut buffer = [0; SEND_BYTES];
        for (to, &from) in buffer.iter_mut().zip(part) {
            *to = from;
        }
        end.write_value(0);
        tx.ptr().write_value(buffer.as_ptr() as u32);
        tx.maxcnt().write(|w| w.set_maxcnt(part.len() as u16));
        // The buffer is written before the peripheral reads it.
        cortex_m::asm::dmb();
        pac::UARTE1.tasks_dma().tx().start().write_value(1);
        while end.read() == 0 {}
        cortex_m::asm::dmb();
        core::hint::black_box(&buffer);
    }
}

/// Nothing is left to wait for: `send` returns when all is sent.
pub(crate) fn flush() {}
