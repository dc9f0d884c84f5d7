//! What is measured, and of whom.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Operations, all at the highest level of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Both parts of a ciphertext, over the whole data modulus.
    NttForward,
    /// The same back.
    NttInverse,
    /// Real values in all slots to a plaintext in the NTT domain.
    Encode,
    /// Under the secret key; the uniform half is a seed.
    EncryptSecret,
    /// Under the public key.
    EncryptPublic,
    /// Ciphertext to values. The libraries divide the work differently between
    /// decryption and decoding, so it is measured as one.
    DecryptDecode,
    /// Two ciphertexts.
    Add,
    /// Ciphertext by plaintext that is encoded.
    MultiplyPlain,
    /// Two ciphertexts, to three parts.
    Multiply,
    /// To three parts.
    Square,
    /// Three parts to two.
    Relinearize,
    /// By what a level takes.
    Rescale,
    /// By one slot.
    Rotate,
    /// Values to a ciphertext under the secret key.
    EncodeEncryptSecret,
    /// Values to a ciphertext under the public key.
    EncodeEncryptPublic,
    /// Ciphertext by values, and rescaled.
    EncodeMultiplyPlainRescale,
    /// Two ciphertexts, relinearised, rescaled.
    MultiplyRelinearizeRescale,
    /// The same of one with itself.
    SquareRelinearizeRescale,
    /// Of all slots: a rotation for each power of two.
    InnerSum,
}

impl Operation {
    /// The single ones first.
    pub const ALL: [Self; 19] = [
        Self::NttForward,
        Self::NttInverse,
        Self::Encode,
        Self::EncryptSecret,
        Self::EncryptPublic,
        Self::DecryptDecode,
        Self::Add,
        Self::MultiplyPlain,
        Self::Multiply,
        Self::Square,
        Self::Relinearize,
        Self::Rescale,
        Self::Rotate,
        Self::EncodeEncryptSecret,
        Self::EncodeEncryptPublic,
        Self::EncodeMultiplyPlainRescale,
        Self::MultiplyRelinearizeRescale,
        Self::SquareRelinearizeRescale,
        Self::InnerSum,
    ];

    /// Not made of others.
    pub fn is_single(self) -> bool {
        self < Self::EncodeEncryptSecret
    }
}

/// What a peer is asked to do under one chain.
pub trait Peer {
    /// Its name and version.
    fn name(&self) -> &str;

    /// log2 of data modulus and special primes.
    fn log_qp(&self) -> f64;

    /// CPU time of some runs of an operation on one thread, after one that is not
    /// counted; `None` if it has no such operation.
    fn time(&mut self, operation: Operation, runs: usize) -> Result<Option<Vec<Duration>>>;

    /// Runs the circuit of precision on values encrypted under the secret key
    /// (the public one if there is no other) and returns what it decrypts to.
    fn circuit(&mut self) -> Result<Vec<f64>>;
}
