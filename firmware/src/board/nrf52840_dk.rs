//! Nordic's nRF52840 DK: a Cortex-M4F at 64 MHz with 256 KiB of RAM.
//!
//! | port | is |
//! |---|---|
//! | UARTE0, P0.08 | the link's reception: the debugger's serial port |
//! | UARTE1, P0.06 | its other direction |
//! | TIMER1, PPI | count the bytes that EasyDMA has received |
//! | RTT | the log |
//! | DWT | the clock, in cycles |
//!
//! Registers from Nordic's nRF52840 product specification (chapters UARTE, NVMC and RNG),
//! pins from the DK's hardware guide. The two directions are two peripherals, because the driver of
//! the receiving one must not be disturbed by a fault handler that sends.

use embassy_nrf::buffered_uarte::{self, BufferedUarteRx};
use embassy_nrf::config::{Config, HfclkSource};
use embassy_nrf::peripherals::{UARTE0, UARTE1};
use embassy_nrf::uarte::{self, Baudrate, UarteTx};
use embassy_nrf::{bind_interrupts, pac};

use firmware::newest::Newest;

use super::hardware;
pub(crate) use super::hardware::{TIME_UNIT, log, now, undisturbed};
use crate::restart::restart;

/// See [`hardware::TRACE_SPANS`].
#[cfg(feature = "trace")]
pub(crate) const TRACE_SPANS: usize = hardware::TRACE_SPANS;

/// Static memory outside the RAM region: all of the link is in it.
pub(crate) const fn outside_bytes() -> u32 {
    0
}

/// The fastest rate of a UARTE that is what it is called: `Baud921600` is 941,176 baud, 2 %
/// away from what a debug probe takes by that name.
const LINK_BAUD: u32 = 1_000_000;

/// Cycles of the core that a byte takes on the line.
const BYTE_CYCLES: u32 = 64_000_000 / LINK_BAUD * 10;

/// EasyDMA reads RAM only, and what is sent may lie in flash.
const SEND_BYTES: usize = 64;

bind_interrupts!(struct Interrupts {
    UARTE0 => buffered_uarte::InterruptHandler<UARTE0>;
    UARTE1 => uarte::InterruptHandler<UARTE1>;
});

/// The serial port.
pub(crate) struct Link {
    receives: BufferedUarteRx<'static>,
    newest: Newest,
    /// Dropping it would stop the port.
    _sends: UarteTx<'static>,
}

impl hardware::Link for Link {
    fn take(&mut self, space: &mut [u8]) -> usize {
        let Some(arrived) = hardware::now_of(self.receives.fill_buf()) else {
            return 0;
        };
        // The driver counts by RXDRDY, which comes before EasyDMA has put the byte into RAM.
        let now = cortex_m::peripheral::DWT::cycle_count();
        let settled = self.newest.settled(arrived.len(), now, BYTE_CYCLES);
        let mut count = 0;
        for (to, &from) in space.iter_mut().zip(arrived.iter().take(settled)) {
            *to = from;
            count += 1;
        }
        self.receives.consume(count);
        self.newest.taken(count);
        count
    }
}

/// Clock and ports, started.
pub(crate) type Board = hardware::Board<Link>;

impl Board {
    pub(crate) fn start() -> Self {
        hardware::start_log();
        let core = cortex_m::Peripherals::take();
        let buffer = cortex_m::singleton!(: [u8; hardware::DMA_BYTES] = [0; hardware::DMA_BYTES]);
        let (Some(core), Some(buffer)) = (core, buffer) else {
            // Only a second call gets here.
            restart();
        };
        let mut config = Config::default();
        // The internal oscillator is too inexact for this rate.
        config.hfclk_source = HfclkSource::ExternalXtal;
        let board = embassy_nrf::init(config);
        // Code comes from flash with two wait states otherwise; off after a reset.
        pac::NVMC.icachecnf().modify(|w| w.set_cacheen(true));
        hardware::start_clock(core.DCB, core.DWT, core.SYST);

        let mut config = uarte::Config::default();
        // By its name: the peripheral knows a few rates only.
        const { assert!(LINK_BAUD == 1_000_000) };
        config.baudrate = Baudrate::Baud1m;
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
        Self::with(Link {
            receives: link,
            newest: Newest::new(),
            _sends: UarteTx::new(board.UARTE1, Interrupts, board.P0_06, config),
        })
    }
}

/// Sends on the link. By registers, as a fault handler may be the caller.
pub(crate) fn send(bytes: &[u8]) {
    if !hardware::link_sends() {
        return;
    }
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
