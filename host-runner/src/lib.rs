//! What the `he-edge` command is made of.

pub mod bundled;
pub mod data;
#[cfg(feature = "train")]
pub mod train;
