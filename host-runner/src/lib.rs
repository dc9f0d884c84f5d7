//! What the `he-edge` command is made of.

pub mod device;
