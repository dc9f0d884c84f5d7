//! The operations that secrets, inputs or weights vary in, and their names.

use crate::params::Params;

/// What is measured: an operation, and what differs between the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Values to a plaintext; the values vary.
    Encode,
    /// The same, with a fixed class that is like any other message, where that of the others
    /// is of zeros.
    EncodeDrawn,
    /// Values to a ciphertext under a secret key; key and values vary.
    EncryptSecret,
    /// The same under a packed key, limb by limb, as a sensor does it.
    EncryptCompact,
    /// Integers to a ciphertext under a public key; the integers vary.
    EncryptPublic,
    /// To coefficients; key and message vary.
    Decrypt,
    /// To slots in double precision, with the client's checks; key and message vary.
    DecryptDecode,
    /// A secret key; the coins vary.
    KeygenSecret,
    /// A public key of a secret key that varies.
    KeygenPublic,
    /// A relinearisation key of a secret key that varies.
    KeygenRelin,
    /// The key of one rotation of a secret key that varies.
    KeygenRotation,
    /// The largest of ten slots, without a ledger on disk; key and message vary.
    #[cfg(feature = "publish")]
    PublishLabel,
    /// All slots under noise, without a ledger on disk; key and message vary.
    #[cfg(feature = "publish")]
    PublishValues,
    /// A sum; one ciphertext varies.
    Add,
    /// Ciphertext by plaintext; the ciphertext varies.
    MultiplyPlain,
    /// Ciphertext by plaintext; the plaintext, an evaluator's weights, varies.
    MultiplyWeights,
    /// A product of ciphertexts, one of which varies.
    MultiplyCt,
    /// Three parts to two; the ciphertext varies.
    Relinearize,
    /// The ciphertext varies.
    Rescale,
    /// By one slot; the ciphertext varies.
    Rotate,
}

/// What differs between the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varied {
    /// Values that are encoded.
    Message,
    /// What a key is drawn from.
    Coins,
    /// A secret key.
    Key,
    /// A secret key and what is encrypted under it.
    KeyAndMessage,
    /// Values of a plaintext that an evaluator multiplies by.
    Weights,
    /// A ciphertext that an evaluator is given.
    Input,
}

impl Varied {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Coins => "coins",
            Self::Key => "key",
            Self::KeyAndMessage => "key and message",
            Self::Weights => "weights",
            Self::Input => "input",
        }
    }
}

impl Subject {
    /// What a client or a sensor does with secrets.
    pub const CLIENT: &[Self] = &[
        Self::Encode,
        Self::EncodeDrawn,
        Self::EncryptSecret,
        Self::EncryptCompact,
        Self::EncryptPublic,
        Self::Decrypt,
        Self::DecryptDecode,
        Self::KeygenSecret,
        Self::KeygenPublic,
        Self::KeygenRelin,
        Self::KeygenRotation,
        #[cfg(feature = "publish")]
        Self::PublishLabel,
        #[cfg(feature = "publish")]
        Self::PublishValues,
    ];

    /// What an evaluator does with inputs and weights.
    pub const EVALUATOR: [Self; 7] = [
        Self::Add,
        Self::MultiplyPlain,
        Self::MultiplyWeights,
        Self::MultiplyCt,
        Self::Relinearize,
        Self::Rescale,
        Self::Rotate,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::EncodeDrawn => "encode_drawn",
            Self::EncryptSecret => "encrypt_secret",
            Self::EncryptCompact => "encrypt_compact",
            Self::EncryptPublic => "encrypt_public",
            Self::Decrypt => "decrypt",
            Self::DecryptDecode => "decrypt_decode",
            Self::KeygenSecret => "keygen_secret",
            Self::KeygenPublic => "keygen_public",
            Self::KeygenRelin => "keygen_relin",
            Self::KeygenRotation => "keygen_rotation",
            #[cfg(feature = "publish")]
            Self::PublishLabel => "publish_label",
            #[cfg(feature = "publish")]
            Self::PublishValues => "publish_values",
            Self::Add => "add",
            Self::MultiplyPlain => "multiply_plain",
            Self::MultiplyWeights => "multiply_weights",
            Self::MultiplyCt => "multiply_ct",
            Self::Relinearize => "relinearize",
            Self::Rescale => "rescale",
            Self::Rotate => "rotate",
        }
    }

    /// The subject of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let all = Self::CLIENT.iter().chain(&Self::EVALUATOR);
        all.copied().find(|subject| subject.name() == name)
    }

    /// What differs between the classes.
    #[must_use]
    pub const fn varies(self) -> Varied {
        match self {
            Self::Encode | Self::EncodeDrawn | Self::EncryptPublic => Varied::Message,
            Self::KeygenSecret => Varied::Coins,
            Self::KeygenPublic | Self::KeygenRelin | Self::KeygenRotation => Varied::Key,
            Self::MultiplyWeights => Varied::Weights,
            Self::Add
            | Self::MultiplyPlain
            | Self::MultiplyCt
            | Self::Relinearize
            | Self::Rescale
            | Self::Rotate => Varied::Input,
            _ => Varied::KeyAndMessage,
        }
    }

    pub(super) fn is_of_evaluator(self) -> bool {
        Self::EVALUATOR.contains(&self)
    }

    pub(super) const fn decrypts(self) -> bool {
        match self {
            Self::Decrypt | Self::DecryptDecode => true,
            #[cfg(feature = "publish")]
            Self::PublishLabel | Self::PublishValues => true,
            _ => false,
        }
    }

    /// Limbs that it writes.
    pub(super) const fn limbs(self, params: &Params) -> usize {
        let limbs = params.data_limbs();
        match self {
            Self::KeygenRelin | Self::KeygenRotation => limbs * params.limbs(),
            _ => limbs,
        }
    }
}
