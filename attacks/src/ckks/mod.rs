//! Attacks on CKKS itself, and on the rules of whoever holds its key.
//!
//! What is attacked here is no network but a parameter set and a rule: what the holder
//! of the key gives out of what he decrypts. So these attacks run on sets
//! ([`crate::Context::each_scheme`]), and a record's target is the set's name. The
//! holder ([`holder::Holder`]) encrypts and decrypts with he-core's own code and
//! publishes by he-core's own rule ([`he_core::ckks::publish`]). Rules and noises that
//! are known to be wrong, the positive controls, are small models in the file of the
//! attack that breaks them, and named so.
//!
//! An attacker is given public things alone: ciphertexts, keys of the evaluator, what is
//! published. The secret is compared with what he found, by [`holder::Holder::knows`].
//!
//! `algebra`, [`holder`] < the attacks.

pub mod active_evaluator;
mod algebra;
pub mod bit_flips;
pub mod flooding_wrong;
pub mod forger;
pub mod holder;
pub mod key_recovery;
mod oracle;

#[cfg(test)]
mod tests;
