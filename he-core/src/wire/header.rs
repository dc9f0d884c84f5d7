//! The header that every object begins with.

use super::packing::{half_len, limbs_len};
use crate::error::{Error, Result, WireError};
use crate::params::Params;
use crate::ring::{automorphism, sample::SEED_LEN};
use crate::rlwe::{KeyLimb, SwitchTarget};

/// Version of the format.
pub const VERSION: u8 = 3;

/// First bytes of every object.
pub const MAGIC: [u8; 4] = *b"HEDG";

/// Bytes of the header of an object.
pub const HEADER_LEN: usize = 20;

/// Kind of a serialised object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Two parts.
    Ciphertext = 1,
    /// A seed and `c0`.
    SeededCiphertext = 2,
    /// Three parts.
    ThreePartCiphertext = 3,
    /// A seed and `b`, over all primes.
    PublicKey = 4,
    /// A seed and `b`, for every digit.
    SwitchingKey = 5,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Ciphertext,
        Self::SeededCiphertext,
        Self::ThreePartCiphertext,
        Self::PublicKey,
        Self::SwitchingKey,
    ];

    /// Bytes of an object of this kind at `level`, header included.
    ///
    /// # Errors
    /// [`Error::Level`] where the set has no such level, or a public key is not at
    /// the highest.
    pub fn object_len(self, params: &Params, level: usize) -> Result<usize> {
        self.check_level(params, level)?;
        let body = match self {
            Self::Ciphertext => 2 * half_len(params, level)?,
            Self::SeededCiphertext => SEED_LEN + half_len(params, level)?,
            Self::ThreePartCiphertext => 3 * half_len(params, level)?,
            Self::PublicKey => SEED_LEN + limbs_len(params, all_primes(params))?,
            Self::SwitchingKey => SEED_LEN + limbs_len(params, key_primes(params, level))?,
        };
        Ok(HEADER_LEN + body)
    }

    fn check_level(self, params: &Params, level: usize) -> Result<()> {
        params.check_level("object", level)?;
        if self == Self::PublicKey && level != params.max_level() {
            return Err(Error::Level {
                operation: "public key",
                expected: params.max_level(),
                got: level,
            });
        }
        Ok(())
    }
}

/// The primes of a public key: every one of the set.
pub(super) fn all_primes(params: &Params) -> impl Iterator<Item = usize> + use<> {
    0..params.limbs()
}

/// The primes of the limbs of a switching key for a level of the set, in their order.
pub(super) fn key_primes(params: &Params, level: usize) -> impl Iterator<Item = usize> {
    core::iter::successors(Some(KeyLimb::FIRST), move |at| at.next(params, level))
        .map(|at| at.target)
}

/// An object, with what its header says of it beside its level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Object {
    /// Two parts.
    Ciphertext {
        /// Exact scale.
        scale: f64,
    },
    /// A seed and `c0`.
    SeededCiphertext {
        /// Exact scale.
        scale: f64,
    },
    /// Three parts.
    ThreePartCiphertext {
        /// Exact scale.
        scale: f64,
    },
    /// A public key; its level is the highest.
    PublicKey,
    /// A switching key.
    SwitchingKey {
        /// What it switches from.
        target: SwitchTarget,
    },
}

impl Object {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Ciphertext { .. } => Kind::Ciphertext,
            Self::SeededCiphertext { .. } => Kind::SeededCiphertext,
            Self::ThreePartCiphertext { .. } => Kind::ThreePartCiphertext,
            Self::PublicKey => Kind::PublicKey,
            Self::SwitchingKey { .. } => Kind::SwitchingKey,
        }
    }

    /// The eight bytes that belong to the kind.
    const fn detail(&self) -> u64 {
        match *self {
            Self::Ciphertext { scale }
            | Self::SeededCiphertext { scale }
            | Self::ThreePartCiphertext { scale } => scale.to_bits(),
            Self::SwitchingKey { target } => target.element() as u64,
            Self::PublicKey => 0,
        }
    }

    fn from_detail(kind: Kind, detail: u64) -> Result<Self> {
        let scale = f64::from_bits(detail);
        let reserved = |offset| Error::Wire {
            what: WireError::Padding { offset },
        };
        Ok(match kind {
            Kind::Ciphertext => Self::Ciphertext { scale },
            Kind::SeededCiphertext => Self::SeededCiphertext { scale },
            Kind::ThreePartCiphertext => Self::ThreePartCiphertext { scale },
            Kind::PublicKey if detail == 0 => Self::PublicKey,
            Kind::PublicKey => return Err(reserved(12)),
            Kind::SwitchingKey => Self::SwitchingKey {
                target: match u32::try_from(detail) {
                    Ok(0) => SwitchTarget::Square,
                    Ok(element) => SwitchTarget::Galois(element),
                    Err(_) => return Err(reserved(16)),
                },
            },
        })
    }
}

/// Header of an object of a known parameter set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// What follows.
    pub object: Object,
    /// Level.
    pub level: usize,
}

impl Header {
    /// The 20 bytes.
    ///
    /// # Errors
    /// As [`Self::parse`], for what could not be read again.
    pub fn to_bytes(&self, params: &Params) -> Result<[u8; HEADER_LEN]> {
        self.check(params)?;
        let mut out = [0; HEADER_LEN];
        let fields = MAGIC
            .into_iter()
            .chain([VERSION, self.object.kind() as u8, self.level as u8, 0])
            .chain(params.fingerprint().to_le_bytes())
            .chain(self.object.detail().to_le_bytes());
        for (o, b) in out.iter_mut().zip(fields) {
            *o = b;
        }
        Ok(out)
    }

    /// Parses and checks a header, which must be of the set `params`.
    /// Whatever follows it is not looked at.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Wire`], [`Error::Params`], [`Error::Level`]
    /// or [`Error::Galois`].
    pub fn parse(bytes: &[u8], params: &Params) -> Result<Self> {
        let wire = |what| Error::Wire { what };
        let Some((bytes, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Error::Length {
                what: "header",
                expected: HEADER_LEN,
                got: bytes.len(),
            });
        };
        let [
            m0,
            m1,
            m2,
            m3,
            version,
            kind,
            level,
            reserved,
            p0,
            p1,
            p2,
            p3,
            detail @ ..,
        ] = *bytes;
        let got = [m0, m1, m2, m3];
        if got != MAGIC {
            return Err(wire(WireError::Magic { got }));
        }
        if version != VERSION {
            return Err(wire(WireError::Version {
                expected: VERSION,
                got: version,
            }));
        }
        let Some(kind) = Kind::ALL.into_iter().find(|&k| k as u8 == kind) else {
            return Err(wire(WireError::UnknownKind { got: kind }));
        };
        if reserved != 0 {
            return Err(wire(WireError::Padding { offset: 7 }));
        }
        let (expected, got) = (params.fingerprint(), u32::from_le_bytes([p0, p1, p2, p3]));
        if expected != got {
            return Err(Error::Params { expected, got });
        }
        let header = Self {
            object: Object::from_detail(kind, u64::from_le_bytes(detail))?,
            level: usize::from(level),
        };
        header.check(params)?;
        Ok(header)
    }

    /// Bytes of the object, header included.
    ///
    /// # Errors
    /// As [`Kind::object_len`], for a header that was not parsed.
    pub fn object_len(&self, params: &Params) -> Result<usize> {
        self.object.kind().object_len(params, self.level)
    }

    fn check(&self, params: &Params) -> Result<()> {
        self.object.kind().check_level(params, self.level)?;
        match self.object {
            Object::Ciphertext { scale }
            | Object::SeededCiphertext { scale }
            | Object::ThreePartCiphertext { scale } => {
                if !scale.is_normal() || scale < 0.0 {
                    let bits = scale.to_bits();
                    return Err(Error::Wire {
                        what: WireError::Scale { bits },
                    });
                }
            }
            Object::SwitchingKey {
                target: SwitchTarget::Galois(element),
            } => automorphism::check(element, params.n())?,
            Object::PublicKey
            | Object::SwitchingKey {
                target: SwitchTarget::Square,
            } => {}
        }
        Ok(())
    }
}
