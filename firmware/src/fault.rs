//! What happens when the program fails: say so on the link, then restart.
//!
//! A report starts with a delimiter, which ends whatever frame was being sent.
//! No `core::fmt` here: a panic is reported by its place in the source.

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::panic::PanicInfo;

use cortex_m::peripheral::{MPU, SCB};
use he_nn::link::{self, DELIMITER};
use he_nn::message::Fault;

use crate::protocol::Reply;
use crate::restart::restart;
use crate::{board, stack};

/// A report with the longest source path that is sent whole.
const REPORT_BYTES: usize = 256;

/// What the reporting code of a processor exception runs on: the stack that it
/// interrupted may be the reason.
const FAULT_STACK_BYTES: usize = 2048;

#[repr(align(8))]
struct FaultStack(
    #[expect(dead_code, reason = "only its address is used")] UnsafeCell<[u8; FAULT_STACK_BYTES]>,
);

// SAFETY: the storage is a stack for one exception handler that never returns;
// no Rust code refers to it.
unsafe impl Sync for FaultStack {}

static FAULT_STACK: FaultStack = FaultStack(UnsafeCell::new([0; FAULT_STACK_BYTES]));

fn report(fault: Fault<'_>) -> ! {
    let mut buffer = [0; REPORT_BYTES];
    board::send(&[DELIMITER]);
    let short = match fault {
        Fault::Panic { line, .. } => Fault::Panic { file: "", line },
        other => other,
    };
    let mut send = |fault| match link::encode(&Reply::Fault(fault), &mut buffer) {
        Ok(frame) => {
            board::send(frame);
            true
        }
        Err(_) => false,
    };
    // A source path may be longer than the buffer; its line is still worth having.
    if !send(fault) {
        send(short);
    }
    board::flush();
    restart();
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    cortex_m::interrupt::disable();
    let (file, line) = info
        .location()
        .map_or(("", 0), |place| (place.file(), place.line()));
    crate::log::reclaim();
    defmt::error!("panicked at {=str}:{=u32}", file, line);
    report(Fault::Panic { file, line })
}

/// Every exception without a handler of its own; memory, bus and usage faults
/// are escalated to this one. Moves to the fault stack before any Rust runs.
#[unsafe(naked)]
#[unsafe(export_name = "HardFault")]
unsafe extern "C" fn hard_fault() -> ! {
    naked_asm!(
        "mrs r0, msp",
        "movw r1, :lower16:{stack}",
        "movt r1, :upper16:{stack}",
        "add.w r1, r1, #{size}",
        "msr msp, r1",
        "b {exception}",
        stack = sym FAULT_STACK,
        size = const FAULT_STACK_BYTES,
        exception = sym exception,
    )
}

/// An interrupt that nobody enabled.
#[unsafe(naked)]
#[unsafe(export_name = "DefaultHandler")]
unsafe extern "C" fn default_handler() -> ! {
    naked_asm!("b {hard_fault}", hard_fault = sym hard_fault)
}

extern "C" fn exception(frame: *const u32) -> ! {
    /// Index of the program counter in the frame that the processor pushes.
    const PC: usize = 6;
    /// Words of that frame, floating-point registers aside.
    const FRAME_WORDS: usize = 8;
    /// `MSTKERR`, `STKERR` and, on Armv8-M, `STKOF`: the frame could not be pushed.
    const NOT_PUSHED: u32 = 1 << 4 | 1 << 12 | 1 << 20;

    cortex_m::interrupt::disable();
    // SAFETY: the handler has the core to itself and never returns; without
    // the guard region it may read what lies below the stack.
    let cfsr = unsafe {
        (*MPU::PTR).ctrl.write(0);
        (*SCB::PTR).cfsr.read()
    };
    let number = match SCB::vect_active() {
        cortex_m::peripheral::scb::VectActive::Interrupt { irqn } => irqn.wrapping_add(16),
        cortex_m::peripheral::scb::VectActive::Exception(_) => 3,
        cortex_m::peripheral::scb::VectActive::ThreadMode => 0,
    };
    let readable = stack::holds(frame as usize, FRAME_WORDS * size_of::<u32>());
    let pc = if cfsr & NOT_PUSHED == 0 && readable {
        // SAFETY: the processor has just pushed its frame there, on the stack.
        unsafe { frame.add(PC).read_volatile() }
    } else {
        0
    };
    crate::log::reclaim();
    defmt::error!(
        "exception {=u8} at {=u32:#010x}, CFSR {=u32:#010x}",
        number,
        pc,
        cfsr
    );
    report(Fault::Exception { number, pc, cfsr })
}
