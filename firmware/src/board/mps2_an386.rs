//! Arm MPS2 with the AN386 image, a Cortex-M4F: the board that QEMU emulates as
//! `mps2-an386`. Addresses and interrupt numbers from Arm's application note
//! 386, the UART from the Cortex-M System Design Kit's manual (DDI 0479).
//!
//! | port | is |
//! |---|---|
//! | UART0 | the link, received by interrupt |
//! | UART1 | the log |
//! | SysTick | the clock |
//!
//! The UART has neither FIFO nor flow control, so on the FPGA board bytes that
//! the handler cannot store are lost, which the credit window prevents and the
//! checksum detects. The emulator holds bytes back while the UART's one-byte
//! buffer is full; the handler leaves it full when the ring is.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, Peripherals, SCB, SYST};
use cortex_m_rt::exception;
use firmware::ring::{Drain, Ring};
use he_nn::link::MAX_FRAME;
use he_nn::message::TimeUnit;

use crate::device::WINDOW;

pub(crate) const NAME: &str = "mps2-an386";

/// The emulator counts instructions; it has no model of the pipeline.
pub(crate) const TIME_UNIT: TimeUnit = TimeUnit::Instructions;

/// Both UARTs and SysTick run from this.
const SYSTEM_HZ: u32 = 25_000_000;

/// The emulator executes one instruction a nanosecond (`-icount shift=0`).
const INSTRUCTIONS_PER_TICK: u64 = 1_000_000_000 / SYSTEM_HZ as u64;

/// The emulator ignores the rate; the FPGA board's serial port takes this one.
const LINK_BAUD: u32 = 115_200;

const RAM: core::ops::Range<usize> = 0x2000_0000..0x2008_0000;

/// A full window, and room for the small requests around it.
const RING_BYTES: usize = (WINDOW as usize * MAX_FRAME).next_power_of_two();

static RECEIVED: Ring<RING_BYTES> = Ring::new();

/// The ring was full and the UART holds a byte that nobody has read.
static HELD: AtomicBool = AtomicBool::new(false);

/// Times that SysTick has wrapped.
static WRAPS: AtomicU32 = AtomicU32::new(0);

/// Registers of a CMSDK UART.
#[derive(Clone, Copy)]
struct Uart(usize);

const LINK: Uart = Uart(0x4000_4000);
const LOG: Uart = Uart(0x4000_5000);

impl Uart {
    const DATA: usize = 0x00;
    const STATE: usize = 0x04;
    const CONTROL: usize = 0x08;
    const INTERRUPT: usize = 0x0C;
    const DIVISOR: usize = 0x10;

    const STATE_SENDING: u32 = 1 << 0;
    const CONTROL_SEND: u32 = 1 << 0;
    const CONTROL_RECEIVE: u32 = 1 << 1;
    const CONTROL_RECEIVE_INTERRUPT: u32 = 1 << 3;
    const INTERRUPT_RECEIVED: u32 = 1 << 1;

    #[inline(always)]
    fn read(self, register: usize) -> u32 {
        // SAFETY: a register of this UART; reading it touches no memory.
        unsafe { ptr::with_exposed_provenance::<u32>(self.0 + register).read_volatile() }
    }

    #[inline(always)]
    fn write(self, register: usize, value: u32) {
        // SAFETY: a register of this UART; writing it touches no memory.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(self.0 + register).write_volatile(value) }
    }

    fn start(self, control: u32) {
        self.write(Self::CONTROL, 0);
        self.write(Self::DIVISOR, SYSTEM_HZ / LINK_BAUD);
        self.write(Self::CONTROL, control);
    }

    fn send(self, bytes: &[u8]) {
        for &byte in bytes {
            self.flush();
            self.write(Self::DATA, u32::from(byte));
        }
    }

    fn flush(self) {
        while self.read(Self::STATE) & Self::STATE_SENDING != 0 {}
    }
}

/// Sends on the link.
pub(crate) fn send(bytes: &[u8]) {
    LINK.send(bytes);
}

/// Waits until link and log have sent what they were given.
pub(crate) fn flush() {
    LINK.flush();
    LOG.flush();
}

/// Sends on the log port.
pub(crate) fn log(bytes: &[u8]) {
    LOG.send(bytes);
}

/// Whether four bytes at this address, and a stack frame there, can be read.
pub(crate) fn is_ram(address: usize) -> bool {
    RAM.contains(&address) && address.is_multiple_of(4)
}

/// Executed instructions since start.
///
/// The counter counts down, and the handler that counts its wraps may come in
/// between (then read again) or may have to wait while interrupts are off: then
/// the wrap is pending, and belongs to `current` if that has just been reloaded.
pub(crate) fn now() -> u64 {
    const PENDING: u32 = 1 << 26;
    loop {
        let wraps = WRAPS.load(Ordering::Relaxed);
        let current = SYST::get_current();
        // SAFETY: reading this register has no effect.
        let pending = unsafe { (*SCB::PTR).icsr.read() } & PENDING != 0;
        if WRAPS.load(Ordering::Relaxed) != wraps {
            continue;
        }
        if current == 0 {
            // Neither side of the wrap; 40 instructions later it is over.
            continue;
        }
        let wraps = u64::from(wraps) + u64::from(pending && current > RELOAD / 2);
        let ticks = wraps * (u64::from(RELOAD) + 1) + u64::from(RELOAD - current);
        return ticks * INSTRUCTIONS_PER_TICK;
    }
}

/// SysTick counts from this to 0, 24 bits.
const RELOAD: u32 = 0x00FF_FFFF;

#[exception]
fn SysTick() {
    WRAPS.store(
        WRAPS.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}

/// The ports and the clock, started.
pub(crate) struct Board;

impl Board {
    pub(crate) fn start() -> Self {
        if let Some(mut core) = Peripherals::take() {
            core.SYST.set_clock_source(SystClkSource::Core);
            core.SYST.set_reload(RELOAD);
            core.SYST.clear_current();
            core.SYST.enable_interrupt();
            core.SYST.enable_counter();
        }
        LOG.start(Uart::CONTROL_SEND);
        LINK.start(Uart::CONTROL_SEND | Uart::CONTROL_RECEIVE | Uart::CONTROL_RECEIVE_INTERRUPT);
        // SAFETY: the handler and the statics that it uses are ready.
        unsafe { NVIC::unmask(Interrupt::LinkReceived) };
        Self
    }

    /// What has arrived. Its space in the ring is free again when the iterator
    /// is dropped.
    pub(crate) fn receive(&self) -> Drain<'static, RING_BYTES> {
        resume();
        RECEIVED.drain()
    }

    /// Returns when bytes may be there.
    pub(crate) fn wait(&self) {
        cortex_m::interrupt::free(|_| {
            if RECEIVED.is_empty() {
                // An interrupt ends this even while it is masked.
                cortex_m::asm::wfi();
            }
        });
    }
}

/// Takes up receiving again after the ring was full.
fn resume() {
    if HELD.load(Ordering::Relaxed) {
        // The handler pushes too: one at a time.
        cortex_m::interrupt::free(|_| {
            HELD.store(false, Ordering::Relaxed);
            let control = LINK.read(Uart::CONTROL);
            LINK.write(Uart::CONTROL, control | Uart::CONTROL_RECEIVE_INTERRUPT);
            // Nothing else can arrive before the buffer is read, which is here.
            push();
        });
    }
}

/// Moves the UART's byte to the ring, or stops receiving with it in place.
#[inline(always)]
fn push() {
    if !RECEIVED.push_with(|| LINK.read(Uart::DATA) as u8) {
        let control = LINK.read(Uart::CONTROL);
        LINK.write(Uart::CONTROL, control & !Uart::CONTROL_RECEIVE_INTERRUPT);
        HELD.store(true, Ordering::Relaxed);
    }
}

extern "C" fn link_received() {
    LINK.write(Uart::INTERRUPT, Uart::INTERRUPT_RECEIVED);
    push();
}

/// Interrupts that this firmware uses.
#[derive(Clone, Copy)]
enum Interrupt {
    LinkReceived = 0,
}

// SAFETY: the number is that of UART0's receive interrupt on this board.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self as u16
    }
}

/// The board's part of the vector table, by interrupt number.
#[used]
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(export_name = "__INTERRUPTS")]
static VECTORS: [unsafe extern "C" fn(); 32] = {
    unsafe extern "C" {
        fn DefaultHandler();
    }
    let mut vectors: [unsafe extern "C" fn(); 32] = [DefaultHandler; 32];
    vectors[Interrupt::LinkReceived as usize] = link_received;
    vectors
};
