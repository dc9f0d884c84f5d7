//! What the board and the fault reports need to know of the evaluator's protocol.
//! The sensor has a module of this name too.

pub(crate) use he_nn::message::Reply;

/// Bytes that arrive and wait while a request is carried out.
///
/// Half of the DMA buffer on the nRF52840: its driver goes on receiving only while a
/// contiguous half of it is free.
pub(crate) const BUFFER_BYTES: usize = if cfg!(board = "nrf52840-dk") {
    4096
} else {
    8192
};

/// Bytes of frames that the client may have in flight: the buffer, but for a greeting, or
/// the end of an inference that is given up, around them.
pub(crate) const WINDOW: u32 = (BUFFER_BYTES - 128) as u32;
