//! Parts of the firmware that know no board, tested on a host.
#![no_std]

pub mod newest;
pub mod ring;
