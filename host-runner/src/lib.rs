//! What the `he-edge` command is made of.

pub mod boards;
pub mod budget;
pub mod bundled;
pub mod circuit;
pub mod client;
pub mod commands;
pub mod data;
pub mod device;
pub mod encrypted_training;
pub mod evaluator;
pub mod image;
pub mod import;
pub mod network;
pub mod plain;
pub mod sensor;
pub mod trace;
#[cfg(feature = "train")]
pub mod train;
