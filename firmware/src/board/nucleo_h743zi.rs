//! ST's NUCLEO-H743ZI2: STM32H743 of revision V, a Cortex-M7 at 480 MHz. The first
//! NUCLEO-H743ZI has revision Y, which stays at 400 MHz.
//!
//! | port | is |
//! |---|---|
//! | USART3, PD8 and PD9 | the link: the virtual serial port of the ST-Link |
//! | DMA1, first stream | receives into SRAM4 |
//! | RTT | the log |
//! | DWT | the clock, in cycles |
//!
//! Registers and clocks from ST's reference manual RM0433, limits of clocks from the data
//! sheet DS12110, pins from the board's user manual UM2407. The stack lies in the DTCM. Data caches are on; SRAM4,
//! which DMA writes, is kept out of them.

use core::mem::MaybeUninit;

use cortex_m::peripheral::MPU;
use embassy_stm32::mode::Async;
use embassy_stm32::pac;
use embassy_stm32::peripherals::{DMA1_CH0, DMA1_CH1, USART3};
use embassy_stm32::rcc::{
    AHBPrescaler, APBPrescaler, HSIPrescaler, Pll, PllDiv, PllMul, PllPreDiv, PllSource, Sysclk,
    VoltageScale,
};
use embassy_stm32::usart::{self, RingBufferedUartRx, Uart, UartTx};
use embassy_stm32::{Config, bind_interrupts, dma};

use super::hardware;
pub(crate) use super::hardware::{TIME_UNIT, log, now, undisturbed};
use crate::restart::restart;

/// See [`hardware::TRACE_SPANS`].
#[cfg(feature = "trace")]
pub(crate) const TRACE_SPANS: usize = hardware::TRACE_SPANS;

/// Static memory outside the RAM region: the DMA buffer lies in SRAM4.
pub(crate) const fn outside_bytes() -> u32 {
    hardware::DMA_BYTES as u32
}

/// What debug probes and USB bridges with a serial port manage.
const LINK_BAUD: u32 = 921_600;

/// Where the DMA buffer is.
const SRAM4: u32 = 0x3800_0000;

#[unsafe(link_section = ".sram4")]
static mut RECEIVED: MaybeUninit<[u8; hardware::DMA_BYTES]> = MaybeUninit::uninit();

bind_interrupts!(struct Interrupts {
    USART3 => usart::InterruptHandler<USART3>;
    DMA1_STREAM0 => dma::InterruptHandler<DMA1_CH0>;
    DMA1_STREAM1 => dma::InterruptHandler<DMA1_CH1>;
});

/// The serial port.
pub(crate) struct Link {
    receives: RingBufferedUartRx<'static>,
    /// Dropping it would stop the port.
    _sends: UartTx<'static, Async>,
}

impl hardware::Link for Link {
    fn take(&mut self, space: &mut [u8]) -> usize {
        hardware::now_of(self.receives.read(space)).unwrap_or_default()
    }
}

/// Clock and ports, started.
pub(crate) type Board = hardware::Board<Link>;

impl Board {
    pub(crate) fn start() -> Self {
        hardware::start_log();
        let Some(mut core) = cortex_m::Peripherals::take() else {
            // Only a second call gets here.
            restart();
        };
        uncached(&mut core.MPU);
        core.SCB.enable_icache();
        core.SCB.enable_dcache(&mut core.CPUID);
        let is_fast = pac::DBGMCU.idc().read().rev_id() >= FAST_REVISION;
        if !is_fast {
            defmt::warn!("this chip's revision stays at 400 MHz, where reports take 480");
        }
        let board = embassy_stm32::init(clocks(is_fast));
        hardware::start_clock(core.DCB, core.DWT, core.SYST);

        let mut config = usart::Config::default();
        config.baudrate = LINK_BAUD;
        let uart = Uart::new(
            board.USART3,
            board.PD9,
            board.PD8,
            board.DMA1_CH1,
            board.DMA1_CH0,
            Interrupts,
            config,
        );
        let Ok(uart) = uart else {
            // This rate and these pins are what the port has.
            restart();
        };
        let (sends, receives) = uart.split();
        // SAFETY: every byte is written before the reference is made, and only
        // the driver gets it: `cortex_m::Peripherals` were there once.
        let buffer: &'static mut [u8] = unsafe {
            let buffer = &raw mut RECEIVED;
            buffer.cast::<u8>().write_bytes(0, hardware::DMA_BYTES);
            &mut *buffer.cast::<[u8; hardware::DMA_BYTES]>()
        };
        let mut link = receives.into_ring_buffered(buffer);
        link.start_uart();
        Self::with(Link {
            receives: link,
            _sends: sends,
        })
    }
}

/// `REV_ID` of the first revision that may run at 480 MHz; Y, the one before, has 0x1003.
const FAST_REVISION: u16 = 0x2000;

/// 480 or 400 MHz from the internal oscillator: no solder bridge decides whether the
/// board starts, and its 1 % is enough for a serial port.
fn clocks(is_fast: bool) -> Config {
    let mut config = Config::default();
    let rcc = &mut config.rcc;
    rcc.hsi = Some(HSIPrescaler::DIV1);
    // What it would clock is not in use.
    rcc.hsi48 = None;
    rcc.pll1 = Some(Pll {
        source: PllSource::HSI,
        prediv: PllPreDiv::DIV4,
        mul: if is_fast {
            PllMul::MUL60
        } else {
            PllMul::MUL50
        },
        fracn: None,
        divp: Some(PllDiv::DIV2),
        divq: None,
        divr: None,
    });
    rcc.sys = Sysclk::PLL1_P;
    rcc.ahb_pre = AHBPrescaler::DIV2;
    rcc.apb1_pre = APBPrescaler::DIV2;
    rcc.apb2_pre = APBPrescaler::DIV2;
    rcc.apb3_pre = APBPrescaler::DIV2;
    rcc.apb4_pre = APBPrescaler::DIV2;
    rcc.voltage_scale = if is_fast {
        VoltageScale::Scale0
    } else {
        VoltageScale::Scale1
    };
    config
}

/// Keeps SRAM4 out of the data cache.
fn uncached(mpu: &mut MPU) {
    /// `ENABLE`, 2^(15 + 1) bytes, normal memory without cache and shared, read
    /// and written by all, never executed.
    const ATTRIBUTES: u32 = 1 | 15 << 1 | 1 << 18 | 1 << 19 | 0b011 << 24 | 1 << 28;

    // SAFETY: region 0 is the stack's guard; nothing has used SRAM4 yet.
    unsafe {
        mpu.rnr.write(1);
        mpu.rbar.write(SRAM4);
        mpu.rasr.write(ATTRIBUTES);
    }
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

/// Sends on the link. By registers, as a fault handler may be the caller.
pub(crate) fn send(bytes: &[u8]) {
    if !hardware::link_sends() {
        return;
    }
    for &byte in bytes {
        while !pac::USART3.isr().read().txe() {}
        pac::USART3.tdr().write(|w| w.set_dr(byte.into()));
    }
}

/// Waits until the link has sent what it was given.
pub(crate) fn flush() {
    while hardware::link_sends() && !pac::USART3.isr().read().tc() {}
}
