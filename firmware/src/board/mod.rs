//! The boards. Each is one file here, with its memory map beside it under the
//! same name, and one line below; `HE_EDGE_BOARD` names the one to build for.
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
//! | `now()` | time since start in `TIME_UNIT`, also with interrupts off |
//! | `is_ram(address)` | whether a fault handler may read a word there |
//!
//! Evaluators draw no random numbers, so no board has to provide any.

#[cfg(board = "mps2-an386")]
#[path = "mps2_an386.rs"]
mod selected;

pub(crate) use selected::*;
