//! What programs share that run on an emulated board alone, one after the other, and
//! end the emulator: lines on UART0, the end, its command line, the PSRAM. Addresses are
//! those of `board/mps2.rs`.

use core::fmt::Write;
use core::ptr;

const UART_DATA: usize = if cfg!(board = "mps2-an505") {
    0x5020_0000
} else {
    0x4000_4000
};
const UART_STATE: usize = UART_DATA + 0x04;
const UART_CONTROL: usize = UART_DATA + 0x08;
const UART_DIVISOR: usize = UART_DATA + 0x10;

/// UART0 of the board.
pub(crate) struct Port;

/// Starts UART0.
pub(crate) fn start() {
    // SAFETY: registers of UART0 (see `board/mps2.rs`).
    unsafe {
        ptr::with_exposed_provenance_mut::<u32>(UART_DIVISOR).write_volatile(217);
        ptr::with_exposed_provenance_mut::<u32>(UART_CONTROL).write_volatile(1);
    }
}

impl Write for Port {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        for byte in s.bytes() {
            // SAFETY: registers of UART0.
            unsafe {
                while ptr::with_exposed_provenance::<u32>(UART_STATE).read_volatile() & 1 != 0 {}
                ptr::with_exposed_provenance_mut::<u32>(UART_DATA).write_volatile(u32::from(byte));
            }
        }
        Ok(())
    }
}

macro_rules! say {
    ($($arg:tt)*) => {{
        let _ = core::fmt::Write::write_fmt(
            &mut $crate::emulated::Port,
            format_args!("{}\n", format_args!($($arg)*)),
        );
    }};
}
pub(crate) use say;

/// A semihosting call.
fn semihost(operation: u32, argument: usize) -> u32 {
    let result;
    // SAFETY: the emulator is asked; it writes what the argument points to, which the
    // callers below own.
    unsafe {
        core::arch::asm!(
            "bkpt #0xab",
            inout("r0") operation => result,
            in("r1") argument,
            options(nostack),
        );
    }
    result
}

/// Ends the emulator.
pub(crate) fn exit() -> ! {
    // SYS_EXIT, ADP_Stopped_ApplicationExit.
    semihost(0x18, 0x2_0026);
    loop {
        cortex_m::asm::wfi();
    }
}

/// What the emulator was told to hand over; empty where that does not fit the buffer.
pub(crate) fn command_line(buffer: &mut [u8]) -> &str {
    let mut block = [buffer.as_mut_ptr().expose_provenance(), buffer.len()];
    // SYS_GET_CMDLINE.
    if semihost(0x15, block.as_mut_ptr().expose_provenance()) != 0 {
        return "";
    }
    // Written by the emulator.
    let [_, length] = core::hint::black_box(block);
    let bytes = buffer.get(..length).unwrap_or_default();
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    core::str::from_utf8(bytes.get(..end).unwrap_or_default()).unwrap_or_default()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("panic {info}");
    exit()
}

#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    say!("fault at {:08x}", frame.pc());
    exit()
}

extern "C" fn unexpected() {
    panic!("an interrupt that nobody enabled");
}

/// The board's part of the vector table.
#[used]
#[unsafe(link_section = ".vector_table.interrupts")]
#[unsafe(export_name = "__INTERRUPTS")]
static VECTORS: [extern "C" fn(); 32] = [unexpected; 32];

/// The board's PSRAM: keys and operands of whole operations take more than an
/// evaluator's RAM. What an instruction reads does not change its count.
pub(crate) const PSRAM: usize = if cfg!(board = "mps2-an500") {
    0x6000_0000
} else if cfg!(board = "mps2-an505") {
    0x8000_0000
} else {
    0x2100_0000
};

/// The next `count` elements of the PSRAM, zero.
pub(crate) fn psram<T: bytemuck::Pod>(at: &mut usize, count: usize) -> &'static mut [T] {
    let start = ptr::with_exposed_provenance_mut::<T>(at.next_multiple_of(align_of::<T>()));
    *at = start.addr() + count * size_of::<T>();
    // SAFETY: the PSRAM has 16 MB, of which the programs take less than 4, each element
    // once; nothing else of them uses it. Zero is a value of every plain type.
    unsafe {
        start.write_bytes(0, count);
        core::slice::from_raw_parts_mut(start, count)
    }
}
