//! CKKS: complex vectors in slots, with level and scale.

pub mod ciphertext;
pub mod constant;
pub mod decrypt;
pub mod encode;
pub mod evaluator;
pub mod noise;
#[cfg(feature = "publish")]
pub mod publish;
pub mod scale;

pub use ciphertext::{Ciphertext, Plaintext};
pub use constant::Constant;
pub use decrypt::{Decrypted, decrypt};
pub use noise::{Message, Noise};

mod track;

#[cfg(all(test, feature = "noise"))]
mod properties;
#[cfg(test)]
mod tests;
