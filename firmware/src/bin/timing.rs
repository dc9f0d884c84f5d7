//! Instruction counts of operations whose secrets, inputs or weights are drawn anew each
//! time (`he_core::benchmarks::drawn`), on the emulated board.
//!
//! The command line is `SAMPLES SEED NAME..`: so many draws of each subject, half of them,
//! by a coin, of the fixed class. Lines on UART0: `time NAME CLASS COUNT CONTROL`, where
//! `CONTROL` counts the operation and the leak after it, and `done` at the end.
//!
//! The emulator is to take 128 ns of its own time per instruction (`-icount shift=7`).
//! The timer ticks every 40 ns, 3.2 times per instruction, so that the number of ticks
//! tells the number of instructions exactly, wherever between two ticks counting begins:
//! at one nanosecond per instruction, as `bench` counts, a tick is 40 instructions, and
//! counts differ by up to two ticks. No interrupt is enabled. The timer has 32 bits and
//! goes round after 1.3 thousand million instructions.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[path = "../emulated.rs"]
mod emulated;

#[cfg(target_os = "none")]
mod board {
    use core::ptr;

    use cortex_m_rt::entry;
    use he_core::benchmarks::drawn::{Drawn, Memory};
    use he_core::benchmarks::subjects::Subject;
    use he_core::params::{N4096_DEPTH3, Params};

    use crate::emulated::{self, PSRAM, command_line, psram, say};

    /// Timer 0 of the Cortex-M System Design Kit (DDI 0479), which counts down.
    const TIMER_CONTROL: usize = 0x4000_0000;
    const TIMER_VALUE: usize = 0x4000_0004;
    const TIMER_RELOAD: usize = 0x4000_0008;

    /// Ticks in ten instructions.
    const TICKS_PER_TEN: u64 = 32;

    fn start_timer() {
        // SAFETY: registers of the timer.
        unsafe {
            ptr::with_exposed_provenance_mut::<u32>(TIMER_RELOAD).write_volatile(u32::MAX);
            ptr::with_exposed_provenance_mut::<u32>(TIMER_VALUE).write_volatile(u32::MAX);
            ptr::with_exposed_provenance_mut::<u32>(TIMER_CONTROL).write_volatile(1);
        }
    }

    /// Never inlined, so that it costs the same everywhere.
    #[inline(never)]
    fn now() -> u32 {
        // SAFETY: a register of the timer.
        unsafe { ptr::with_exposed_provenance::<u32>(TIMER_VALUE).read_volatile() }
    }

    /// Instructions between two readings.
    fn instructions(from: u32, to: u32) -> u64 {
        let ticks = u64::from(from.wrapping_sub(to));
        (ticks * 10 + TICKS_PER_TEN / 2) / TICKS_PER_TEN
    }

    /// The next number of a linear congruential generator, its upper half.
    fn next(state: &mut u64) -> u32 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*state >> 32) as u32
    }

    fn subject(drawn: &mut Drawn<'_>, subject: Subject, samples: u32, state: &mut u64) {
        for _ in 0..samples {
            let fixed = next(state) & 1 == 0;
            let seed = u64::from(next(state)) << 32 | u64::from(next(state));
            drawn.draw(subject, fixed, seed).unwrap();
            let start = now();
            drawn.run(subject).unwrap();
            let middle = now();
            drawn.leak(subject);
            let end = now();
            say!(
                "time {} {} {} {}",
                subject.name(),
                if fixed { "fixed" } else { "random" },
                instructions(start, middle),
                instructions(start, end)
            );
        }
    }

    fn subjects(params: &'static Params, line: &str) {
        let (n, mut at) = (params.n(), PSRAM);
        let memory = Memory {
            words: psram(&mut at, Memory::words(params)),
            integers: psram(&mut at, 5 * n),
            floats: psram(&mut at, 2 * n),
            doubles: psram(&mut at, n),
            bytes: psram(&mut at, n / 4),
        };
        let mut drawn = Drawn::new(params, memory).unwrap();
        let mut words = line.split_ascii_whitespace();
        let mut number = || words.next()?.parse::<u32>().ok();
        let (Some(samples), Some(seed)) = (number(), number()) else {
            say!("usage SAMPLES SEED NAME..");
            return;
        };
        let mut state = u64::from(seed);
        for name in words {
            match Subject::find(name) {
                Some(found) => subject(&mut drawn, found, samples, &mut state),
                None => say!("unknown {name}"),
            }
        }
        say!("done");
    }

    #[entry]
    fn main() -> ! {
        emulated::start();
        start_timer();
        let mut buffer = [0; 512];
        subjects(&N4096_DEPTH3, command_line(&mut buffer));
        emulated::exit()
    }
}

#[cfg(not(target_os = "none"))]
#[expect(
    clippy::print_stderr,
    reason = "the one sentence that this program has to say"
)]
fn main() -> std::process::ExitCode {
    eprintln!(
        "This program runs on an emulated board: start it with `he-edge timing all --device qemu`."
    );
    std::process::ExitCode::FAILURE
}
