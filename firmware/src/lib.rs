//! Parts of the firmware that know no processor: tested on a host, and what an
//! emulator's host has to know of a board.
#![no_std]

pub mod mailbox;
pub mod ring;
