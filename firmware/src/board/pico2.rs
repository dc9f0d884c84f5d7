//! Raspberry Pi Pico 2: RP2350, of which one Cortex-M33 at 150 MHz is used.
//!
//! | port | is |
//! |---|---|
//! | UART0, GPIO 0 and 1 | the link, to a debug probe's or another serial port |
//! | DMA, channel 0 | receives into a ring without end |
//! | RTT | the log |
//! | DWT | the clock, in cycles |
//!
//! Registers from Raspberry Pi's RP2350 datasheet. The abstraction layer has no
//! endless reception by DMA, so that one channel is set up here.

use core::ptr::addr_of;
use core::sync::atomic::{AtomicU8, Ordering};

use embassy_rp::Peri;
use embassy_rp::pac;
use embassy_rp::pac::dma::vals::{DataSize, TransCountMode, TreqSel};
use embassy_rp::peripherals::DMA_CH0;
use embassy_rp::uart::{self, Blocking, Uart};

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

/// What debug probes and USB bridges with a serial port manage.
const LINK_BAUD: u32 = 921_600;

/// What DMA writes. Its address bits below its size wrap, so it is aligned to
/// it.
#[repr(align(8192))]
struct Received([AtomicU8; hardware::DMA_BYTES]);

static RECEIVED: Received = Received([const { AtomicU8::new(0) }; hardware::DMA_BYTES]);

const _: () = assert!(align_of::<Received>() == hardware::DMA_BYTES);

/// The serial port, and the DMA channel that receives from it.
pub(crate) struct Link {
    /// Bytes taken so far, as an index of the ring.
    taken: usize,
    _port: Uart<'static, Blocking>,
    _channel: Peri<'static, DMA_CH0>,
}

/// A reception that overtakes this reading loses bytes, which the credit window
/// prevents and the checksum detects.
impl hardware::Link for Link {
    fn take(&mut self, space: &mut [u8]) -> usize {
        let written = pac::DMA.ch(0).write_addr().read() as usize;
        let end = written.wrapping_sub(addr_of!(RECEIVED) as usize) % hardware::DMA_BYTES;
        let mut count = 0;
        for slot in space {
            let Some(byte) = RECEIVED.0.get(self.taken) else {
                break;
            };
            if self.taken == end {
                break;
            }
            *slot = byte.load(Ordering::Acquire);
            self.taken = (self.taken + 1) % hardware::DMA_BYTES;
            count += 1;
        }
        count
    }
}

/// Clock and ports, started.
pub(crate) type Board = hardware::Board<Link>;

impl Board {
    pub(crate) fn start() -> Self {
        hardware::start_log();
        let Some(core) = cortex_m::Peripherals::take() else {
            // Only a second call gets here.
            restart();
        };
        let board = embassy_rp::init(Default::default());
        hardware::start_clock(core.DCB, core.DWT, core.SYST);

        let mut config = uart::Config::default();
        config.baudrate = LINK_BAUD;
        let link = Uart::new_blocking(board.UART0, board.PIN_0, board.PIN_1, config);
        let channel = pac::DMA.ch(0);
        channel
            .read_addr()
            .write_value(pac::UART0.uartdr().as_ptr() as u32);
        channel.write_addr().write_value(addr_of!(RECEIVED) as u32);
        channel.trans_count().write(|w| {
            w.set_mode(TransCountMode::ENDLESS);
            w.set_count(1);
        });
        pac::UART0.uartdmacr().write(|w| w.set_rxdmae(true));
        channel.ctrl_trig().write(|w| {
            w.set_treq_sel(TreqSel::UART0_RX);
            w.set_data_size(DataSize::SIZE_BYTE);
            w.set_incr_write(true);
            w.set_ring_sel(true);
            w.set_ring_size(hardware::DMA_BYTES.trailing_zeros() as u8);
            // To itself is to none.
            w.set_chain_to(0);
            w.set_en(true);
        });
        Self::with(Link {
            taken: 0,
            _port: link,
            _channel: board.DMA_CH0,
        })
    }
}

/// Sends on the link. By registers, as a fault handler may be the caller.
pub(crate) fn send(bytes: &[u8]) {
    if !hardware::link_sends() {
        return;
    }
    for &byte in bytes {
        while pac::UART0.uartfr().read().txff() {}
        pac::UART0.uartdr().write(|w| w.set_data(byte));
    }
}

/// Waits until the link has sent what it was given.
pub(crate) fn flush() {
    while hardware::link_sends() && pac::UART0.uartfr().read().busy() {}
}
