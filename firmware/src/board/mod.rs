//! The boards. Each is one file here, with its memory map beside it under the
//! same name, and one line below; `HE_EDGE_BOARD` names the one to build for.
//! Boards that differ in their memory map alone share the file; what others
//! share lies in a file of its own, which theirs re-export. What the host knows
//! of a board is one entry in `he-nn/src/boards.rs`.
//!
//! A board provides:
//!
//! | item | is |
//! |---|---|
//! | `TIME_UNIT` | what the card says of its times |
//! | `Board::start()` | sets up clock and ports, once |
//! | `Board::peek(space)` | a copy of the next bytes that have arrived |
//! | `Board::free(count)` | takes so many of them |
//! | `Board::wait()` | sleeps until there may be more |
//! | `send(bytes)`, `flush()` | blocking, also from a fault handler |
//! | `log(bytes)` | blocking, to the log port |
//! | `outside_bytes()` | static memory outside the RAM region |
//! | `undisturbed(work)` | does the work with nothing else running, see below |
//! | `now()` | time since start in `TIME_UNIT`, also with interrupts off |
//! | `TRACE_SPANS` | how many spans a trace keeps, with the feature `trace` |
//!
//! Requests are carried out in `undisturbed`, so that the times of an inference
//! are those of its arithmetic, and the same in every run. An emulated board
//! turns its interrupts off there: the emulated UART keeps back what it cannot
//! deliver. A real UART does not, and a byte is there every few microseconds:
//! a real board receives by DMA into the ring that `peek()` reads, which holds a
//! window of frames (`crate::protocol`), and leaves at most the interrupts on
//! that fire once per wrap of that ring or of its clock.

#[cfg(any(board = "nrf52840-dk", board = "nucleo-h743zi", board = "pico2"))]
mod hardware;
#[cfg(any(
    board = "mps2-an386",
    board = "mps2-an386-256k",
    board = "mps2-an500",
    board = "mps2-an505"
))]
mod mps2;

#[cfg(any(board = "mps2-an386", board = "mps2-an386-256k"))]
#[path = "mps2_an386.rs"]
mod selected;
#[cfg(board = "mps2-an500")]
#[path = "mps2_an500.rs"]
mod selected;
#[cfg(board = "mps2-an505")]
#[path = "mps2_an505.rs"]
mod selected;
#[cfg(all(board = "nrf52840-dk", feature = "nrf52840-dk"))]
#[path = "nrf52840_dk.rs"]
mod selected;
#[cfg(all(board = "nucleo-h743zi", feature = "nucleo-h743zi"))]
#[path = "nucleo_h743zi.rs"]
mod selected;
#[cfg(all(board = "pico2", feature = "pico2"))]
#[path = "pico2.rs"]
mod selected;

#[cfg(any(
    all(board = "nrf52840-dk", not(feature = "nrf52840-dk")),
    all(board = "nucleo-h743zi", not(feature = "nucleo-h743zi")),
    all(board = "pico2", not(feature = "pico2")),
))]
compile_error!("this board's image is built with the feature of its name: `--features BOARD`");

pub(crate) use selected::*;

/// The board's name, from the build script.
pub(crate) const NAME: &str = env!("HE_EDGE_BOARD");
