//! The evaluator on a Cortex-M board.
//!
//! | module | holds |
//! |---|---|
//! | [`board`] | everything that differs between boards, one file each |
//! | `device` | the evaluator as a program of the board |
//! | `evaluator` | the session and the model |
//! | `fault` | panics and processor exceptions: report, then restart |
//! | `fault_injection` | failures on purpose, for tests |
//! | `kept` | where switching keys are kept |
//! | `log` | defmt frames on the second serial line |
//! | `protocol` | the replies and the window |
//! | `restart` | the way out of what cannot go on |
//! | `serve` | the main loop, the sensor's too |
//! | `stack` | painted stack: its peak, and its guard |
//! | `start` | how a program begins, the sensor's too |
//! | `tracer` | what keeps timing traces |
//!
//! On a host this is a program that says where the real one is built.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;
#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
mod evaluator;
#[cfg(target_os = "none")]
mod fault;
#[cfg(all(target_os = "none", feature = "fault-injection"))]
mod fault_injection;
#[cfg(target_os = "none")]
mod kept;
#[cfg(target_os = "none")]
mod log;
#[cfg(target_os = "none")]
mod protocol;
#[cfg(target_os = "none")]
mod restart;
#[cfg(target_os = "none")]
mod serve;
#[cfg(target_os = "none")]
mod stack;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
mod tracer;

#[cfg(not(target_os = "none"))]
#[expect(
    clippy::print_stderr,
    reason = "the one sentence that this program has to say"
)]
fn main() -> std::process::ExitCode {
    eprintln!(
        "The firmware runs on a board: start it in an emulator with `he-edge infer --device qemu`, \
         or build it by hand as firmware/README.md says."
    );
    std::process::ExitCode::FAILURE
}
