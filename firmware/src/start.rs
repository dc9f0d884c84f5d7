//! How a program of a board begins.

use crate::board::{self, Board};
use crate::protocol::WINDOW;
use crate::serve::{Program, serve};
use crate::stack;

/// Starts the board, says so on the log, makes the program and serves it. `role` is
/// the program's name on the log.
pub(crate) fn start<P: Program>(role: &str, program: impl FnOnce() -> P) -> ! {
    stack::guard();
    let mut board = Board::start();
    defmt::info!(
        "{=str} started as {=str}: {=u32} bytes of static memory, a window of {=u32} bytes, built by rustc {=str}",
        board::NAME,
        role,
        stack::static_bytes(),
        WINDOW,
        env!("HE_EDGE_COMPILER")
    );
    serve(&mut board, &mut program())
}
