//! The boards. Each is one file here, with its memory map beside it under the
//! same name, and one line below; boards that differ in their memory map alone
//! share the file. `HE_EDGE_BOARD` names the one to build for.
//! What the host knows of it is one entry in `host-runner/src/boards.rs`.
//!
//! A board provides:
//!
//! | item | is |
//! |---|---|
//! | `NAME`, `TIME_UNIT` | what the card says of it |
//! | `Board::start()` | sets up clock and ports, once |
//! | `Board::receive()` | the bytes that have arrived, in order |
//! | `Board::wait()` | sleeps until there may be more |
//! | `send(bytes)`, `flush()` | blocking, also from a fault handler |
//! | `log(bytes)` | blocking, to the log port |
//! | `mailbox_bytes()` | memory of the link outside the RAM region |
//! | `undisturbed(work)` | does the work with nothing else running, see below |
//! | `now()` | time since start in `TIME_UNIT`, also with interrupts off |
//! | `TRACE_SPANS` | how many spans a trace keeps, with the feature `trace` |
//! | `is_ram(address, bytes)` | whether a fault handler may read the words there |
//!
//! Requests are carried out in `undisturbed`, so that the times of an inference
//! are those of its arithmetic, and the same in every run. An emulated board
//! turns its interrupts off there: the emulated UART keeps back what it cannot
//! deliver. A real UART does not, and a byte is there every few microseconds:
//! a real board receives by DMA into the ring that `receive()` drains, sized
//! for `WINDOW` of the largest frames, and leaves at most the interrupts on
//! that fire once per wrap of that ring or of its clock.
//!
//! Evaluators draw no random numbers, so no board has to provide any.

#[cfg(any(board = "mps2-an386", board = "mps2-an386-256k"))]
#[path = "mps2_an386.rs"]
mod selected;

pub(crate) use selected::*;
