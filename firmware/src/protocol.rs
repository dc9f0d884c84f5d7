//! What the board and the fault reports need to know of the evaluator's protocol.
//! The sensor has a module of this name too.

pub(crate) use he_nn::message::Reply;

/// Chunks that the client may have in flight; the board's receive ring holds
/// that many of the largest frames.
///
/// Two on the nRF52840: its driver goes on receiving only while a contiguous half
/// of the DMA buffer is free.
pub(crate) const WINDOW: u8 = if cfg!(board = "nrf52840-dk") { 2 } else { 4 };
