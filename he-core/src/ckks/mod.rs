//! CKKS: real vectors in slots, with level and scale.

pub mod ciphertext;
pub mod decrypt;
pub mod encode;
pub mod evaluator;

pub use ciphertext::{Ciphertext, Plaintext};
pub use decrypt::{Decrypted, decrypt};

#[cfg(test)]
mod tests;
