//! The conformance suite of he-core's kernels on a processor with AVX-512 that is
//! emulated: this boots without an operating system. `tests/avx512/run` builds it
//! and starts it in Bochs.
//!
//! Lines on the emulator's port 0xE9: `kernels NAME`, `equal COMPARISONS`,
//! `differs ..`, and `done` at the end.
#![cfg_attr(freestanding, no_std, no_main)]

#[cfg(freestanding)]
mod image {
    use core::arch::{asm, global_asm};
    use core::fmt::Write;
    use core::ptr;

    use he_core::ring::kernel::conformance::{MODULI, Memory, Pair, Portable};
    use he_core::ring::kernel::{Backend, small_packed_len};
    use he_core::ring::ntt::table_len;

    global_asm!(include_str!("boot.s"), options(att_syntax));

    /// Largest transform.
    const MAX_N: usize = 1 << 13;

    /// The emulator's console.
    struct Console;

    impl Write for Console {
        fn write_str(&mut self, s: &str) -> core::fmt::Result {
            for byte in s.bytes() {
                out(0xe9, byte);
            }
            Ok(())
        }
    }

    fn out(port: u16, byte: u8) {
        // SAFETY: a port of the emulator that shows the byte, or ends it.
        unsafe {
            asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags));
        }
    }

    macro_rules! say {
        ($($arg:tt)*) => { let _ = writeln!(Console, $($arg)*); };
    }

    fn end() -> ! {
        for byte in *b"Shutdown" {
            out(0x8900, byte);
        }
        loop {
            // SAFETY: interrupts are off, so this stops the processor.
            unsafe { asm!("hlt", options(nomem, nostack)) }
        }
    }

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        say!("panic {info}");
        end()
    }

    static mut LIMBS: [[u32; MAX_N]; 6] = [[0; MAX_N]; 6];
    static mut TABLE: [i32; table_len(MAX_N)] = [0; table_len(MAX_N)];
    static mut INTEGERS: [i32; 256] = [0; 256];
    static mut WIDE: [i64; 256] = [0; 256];
    static mut FLOATS: [f32; 256] = [0.0; 256];
    static mut NUMBERS: [[f64; MAX_N]; 4] = [[0.0; MAX_N]; 4];
    static mut BYTES: [u8; 512] = [0; 512];
    static mut HALVES: [i16; small_packed_len(514)] = [0; small_packed_len(514)];

    #[unsafe(no_mangle)]
    extern "C" fn start() -> ! {
        // SAFETY: the boot code calls this once, and nothing else refers to them.
        let (limbs, numbers, mut memory) = unsafe {
            (
                &mut *(&raw mut LIMBS),
                &mut *(&raw mut NUMBERS),
                Memory {
                    limbs: Default::default(),
                    table: &mut *(&raw mut TABLE),
                    integers: &mut *(&raw mut INTEGERS),
                    wide: &mut *(&raw mut WIDE),
                    floats: &mut *(&raw mut FLOATS),
                    numbers: Default::default(),
                    bytes: &mut *(&raw mut BYTES),
                    halves: &mut *(&raw mut HALVES),
                },
            )
        };
        memory.limbs = limbs.each_mut().map(|limb| &mut limb[..]);
        memory.numbers = numbers.each_mut().map(|part| &mut part[..]);
        // The fastest that the processor has; a host runs the others itself.
        if let Some(backend) = Backend::available().next() {
            say!("kernels {}", backend.name());
            let pair = Pair {
                kernels: &backend,
                reference: &Portable,
            };
            match pair.all(&MODULI, &mut memory) {
                Ok(compared) => {
                    say!("equal {compared}");
                }
                Err(difference) => {
                    say!("differs {difference:?}");
                }
            }
        }
        say!("done");
        end()
    }

    // What compiled code calls; there is no library to have it from.

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: by the contract of `memcpy`.
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _,
                inout("rsi") from => _, options(nostack, preserves_flags));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        // SAFETY: by the contract of `memset`.
        unsafe {
            asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _,
                in("al") byte as u8, options(nostack, preserves_flags));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
        for i in 0..count {
            // SAFETY: by the contract of `memcmp`; volatile, as the compiler would
            // make a call of `memcmp` of this loop.
            let (x, y) = unsafe { (ptr::read_volatile(a.add(i)), ptr::read_volatile(b.add(i))) };
            if x != y {
                return i32::from(x) - i32::from(y);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
        // SAFETY: the contracts are the same.
        unsafe { memcmp(a, b, count) }
    }
}

#[cfg(not(freestanding))]
#[expect(
    clippy::print_stderr,
    reason = "the one sentence that this program has to say"
)]
fn main() -> std::process::ExitCode {
    eprintln!("This program is its own operating system: start it with `tests/avx512/run`.");
    std::process::ExitCode::FAILURE
}
