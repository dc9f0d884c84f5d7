//! Arm MPS2 with one of the images AN386 (Cortex-M4F), AN500 (Cortex-M7) and AN505
//! (Cortex-M33), as QEMU emulates them. Addresses and interrupt numbers from Arm's
//! application notes of these numbers, the UART from the Cortex-M System Design Kit's
//! manual (DDI 0479). The images differ in the processor, in its clock and in where UARTs
//! and PSRAM lie, which `selected` says.
//!
//! | port | is |
//! |---|---|
//! | UART0 | the link, received by interrupt |
//! | UART1 | the log |
//! | SysTick | the clock |
//! | PSRAM | the mailbox, if the emulator's host has set one up |
//!
//! The emulator needs 20 to 40 microseconds for every byte that a UART receives,
//! which is a minute for the bytes of one inference. Its host can therefore map
//! the board's PSRAM and put the bytes there ([`he_nn::mailbox`]), as a DMA
//! controller would; what UART0 then receives only wakes the board. Without a
//! mailbox, as on the FPGA board, the bytes themselves come through UART0 into a
//! ring. Replies leave through UART0. A slot of the mailbox is read where it lies, and
//! given back when it is taken whole: a board that restarts within one reads it again, so
//! a sender puts one frame into each.
//!
//! The UART has neither FIFO nor flow control, so on the FPGA board bytes that
//! the handler cannot store are lost, which the credit window prevents and the
//! checksum detects. The emulator holds bytes back while the UART's one-byte
//! buffer is full; the handler leaves it full when the ring is.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, Peripherals, SCB, SYST};
use cortex_m_rt::exception;
use firmware::ring::Ring;
use he_nn::mailbox;
use he_nn::message::TimeUnit;

use super::selected::{self, PSRAM, SYSTEM_HZ};
use crate::protocol::BUFFER_BYTES;

/// The emulator counts instructions; it has no model of the pipeline.
pub(crate) const TIME_UNIT: TimeUnit = TimeUnit::Instructions;

/// Spans that a trace keeps, 24 bytes each: those of an inference of the
/// reference network, or what fits beside it.
#[cfg(feature = "trace")]
pub(crate) const TRACE_SPANS: usize = if cfg!(board = "mps2-an386-256k") {
    256
} else {
    2048
};

/// A tick of SysTick, which runs from the same clock as both UARTs.
const TICK_NS: u64 = 1_000_000_000 / SYSTEM_HZ as u64;

/// What the emulator takes for one instruction (`-icount shift=5`): less than a
/// tick, so that hardly more than one instruction falls between two readings of
/// SysTick, and enough for 21 million instructions between two of its wraps.
const INSTRUCTION_NS: u64 = 1 << 5;

/// The emulator ignores the rate; the FPGA board's serial port takes this one.
const LINK_BAUD: u32 = 115_200;

/// What arrives while a request is carried out.
const RING_BYTES: usize = BUFFER_BYTES;

static RECEIVED: Ring<RING_BYTES> = Ring::new();

/// The ring was full and the UART holds a byte that nobody has read.
static HELD: AtomicBool = AtomicBool::new(false);

/// Bytes come through the mailbox.
static MAILBOX: AtomicBool = AtomicBool::new(false);

/// Times that SysTick has wrapped.
static WRAPS: AtomicU32 = AtomicU32::new(0);

/// Registers of a CMSDK UART.
#[derive(Clone, Copy)]
struct Uart(usize);

const LINK: Uart = Uart(selected::UARTS[0]);
const LOG: Uart = Uart(selected::UARTS[1]);

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

/// Carries out `work` without any interrupt; see [`super`].
pub(crate) fn undisturbed<R>(work: impl FnOnce() -> R) -> R {
    cortex_m::interrupt::free(|_| work())
}

/// Static memory outside the RAM region: what the image has in the PSRAM, and
/// the mailbox, if there is one. That counts as static memory, although a board
/// without an emulator's host has none.
pub(crate) fn outside_bytes() -> u32 {
    let mailbox = if MAILBOX.load(Ordering::Relaxed) {
        mailbox::BYTES as u32
    } else {
        0
    };
    mailbox + selected::arena_outside()
}

/// Executed instructions since start.
///
/// A wrap of the counter is counted by its interrupt or, where interrupts are
/// off, here: readings must not be more than one wrap apart then.
pub(crate) fn now() -> u64 {
    cortex_m::interrupt::free(|_| {
        loop {
            let current = SYST::get_current();
            if SCB::is_pendst_pending() {
                // Before or after that reading: count it and read again.
                SCB::clear_pendst();
                count_wrap();
                continue;
            }
            if current == 0 {
                // Neither side of the wrap; one tick later it is over.
                continue;
            }
            let wraps = u64::from(WRAPS.load(Ordering::Relaxed));
            let ticks = wraps * (u64::from(RELOAD) + 1) + u64::from(RELOAD - current);
            return ticks * TICK_NS / INSTRUCTION_NS;
        }
    })
}

/// SysTick counts from this to 0, 24 bits.
const RELOAD: u32 = 0x00FF_FFFF;

#[exception]
fn SysTick() {
    count_wrap();
}

/// With interrupts off, or in the one that calls it.
fn count_wrap() {
    WRAPS.store(
        WRAPS.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}

/// The ports and the clock, started.
pub(crate) struct Board {
    /// Bytes of the mailbox's oldest slot that are taken.
    taken: usize,
}

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
        let magic = (0..).zip(mailbox::MAGIC);
        let found = magic.fold(true, |found, (offset, byte)| {
            found && psram(offset).load(Ordering::Acquire) == byte
        });
        MAILBOX.store(found, Ordering::Relaxed);
        LINK.start(Uart::CONTROL_SEND | Uart::CONTROL_RECEIVE | Uart::CONTROL_RECEIVE_INTERRUPT);
        // SAFETY: the handler and the statics that it uses are ready.
        unsafe { NVIC::unmask(Interrupt::LinkReceived) };
        Self { taken: 0 }
    }

    /// Copies what has arrived to the start of `space`, as far as it reaches and lies in
    /// one piece.
    pub(crate) fn peek<'s>(&mut self, space: &'s mut [u8]) -> &'s [u8] {
        if !MAILBOX.load(Ordering::Relaxed) {
            resume();
            return RECEIVED.peek(space);
        }
        if !mail_waits() {
            return &[];
        }
        let (slot, length) = oldest_slot();
        let count = length.saturating_sub(self.taken).min(space.len());
        if count == 0 {
            // A slot of nothing.
            self.free(0);
            return &[];
        }
        let from = PSRAM + slot + mailbox::LENGTH_BYTES + self.taken;
        // SAFETY: the range lies within a slot of the mailbox, as `length` is at most a slot's,
        // at the PSRAM's start, which memory maps leave to it; the emulator's host does not
        // write a slot before it is drained; `space` is elsewhere and at least as long.
        unsafe {
            ptr::with_exposed_provenance::<u8>(from)
                .copy_to_nonoverlapping(space.as_mut_ptr(), count);
        }
        space.get(..count).unwrap_or_default()
    }

    /// Takes bytes that [`Self::peek`] gave.
    pub(crate) fn free(&mut self, count: usize) {
        if !MAILBOX.load(Ordering::Relaxed) {
            RECEIVED.free(count);
            return;
        }
        self.taken += count;
        if mail_waits() && self.taken >= oldest_slot().1 {
            self.taken = 0;
            let drained = psram(mailbox::DRAINED).load(Ordering::Relaxed);
            psram(mailbox::DRAINED).store(drained.wrapping_add(1), Ordering::Release);
        }
    }

    /// Returns when bytes may be there.
    pub(crate) fn wait(&self) {
        cortex_m::interrupt::free(|_| {
            // A byte that is held back raises no interrupt.
            let held = HELD.load(Ordering::Relaxed);
            if RECEIVED.is_empty() && !held && !mail_waits() {
                // An interrupt ends this even while it is masked.
                cortex_m::asm::wfi();
            }
        });
    }
}

/// A byte of the PSRAM.
#[inline(always)]
fn psram(offset: usize) -> &'static AtomicU8 {
    // SAFETY: the callers' offsets lie in the mailbox, whose place memory maps leave to it;
    // its other user is the emulator's host, as a device would be.
    unsafe { AtomicU8::from_ptr(ptr::with_exposed_provenance_mut(PSRAM + offset)) }
}

/// Whether the mailbox holds bytes that are not taken yet.
fn mail_waits() -> bool {
    MAILBOX.load(Ordering::Relaxed)
        && psram(mailbox::PUSHED).load(Ordering::Acquire)
            != psram(mailbox::DRAINED).load(Ordering::Relaxed)
}

/// Where the mailbox's oldest slot lies in the PSRAM, and how many bytes it holds.
fn oldest_slot() -> (usize, usize) {
    let slot = mailbox::slot(psram(mailbox::DRAINED).load(Ordering::Relaxed));
    let byte = |i: usize| psram(slot + i).load(Ordering::Relaxed);
    let length = usize::from(u16::from_le_bytes([byte(0), byte(1)]));
    (slot, length.min(mailbox::SLOT_BYTES))
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
    if MAILBOX.load(Ordering::Relaxed) {
        // It was to wake the board, and that it has done.
        LINK.read(Uart::DATA);
    } else {
        push();
    }
}

/// Interrupts that this firmware uses.
#[derive(Clone, Copy)]
#[repr(u16)]
enum Interrupt {
    LinkReceived = selected::LINK_RECEIVED,
}

// SAFETY: the number is that of UART0's receive interrupt on this board.
unsafe impl InterruptNumber for Interrupt {
    fn number(self) -> u16 {
        self as u16
    }
}

/// Entries of the table: up to the interrupt that is used, and all that the images with
/// fewest have.
const INTERRUPTS: usize = if selected::LINK_RECEIVED < 32 { 32 } else { 64 };

/// The board's part of the vector table, by interrupt number.
#[used]
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(export_name = "__INTERRUPTS")]
static VECTORS: [unsafe extern "C" fn(); INTERRUPTS] = {
    unsafe extern "C" {
        fn DefaultHandler();
    }
    let mut vectors: [unsafe extern "C" fn(); INTERRUPTS] = [DefaultHandler; INTERRUPTS];
    vectors[Interrupt::LinkReceived as usize] = link_received;
    vectors
};
