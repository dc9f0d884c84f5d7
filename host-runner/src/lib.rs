//! What the `he-edge` command is made of.

pub mod boards;
pub mod budget;
pub mod circuit;
pub mod client;
pub mod commands;
pub mod device;
pub mod encrypted_training;
pub mod evaluator;
pub mod image;
pub mod sensor;
pub mod trace;
