//! One error type for the crate: `Copy`, no strings, carrying the values that
//! disagree.

use crate::switch_target::SwitchTarget;
use core::fmt;

/// Result of he-core.
pub type Result<T> = core::result::Result<T, Error>;

/// What was wrong with a call. Nothing was computed and no output is valid.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A slice has the wrong length.
    Length {
        /// What the slice holds.
        what: &'static str,
        /// Elements that were needed.
        expected: usize,
        /// Elements that came.
        got: usize,
    },
    /// A residue is not below its prime.
    Residue {
        /// Limb in the chain.
        limb: usize,
        /// Index of the coefficient.
        index: usize,
    },
    /// A level is outside the modulus chain, or two levels differ.
    Level {
        /// What was asked for.
        operation: &'static str,
        /// The level that was needed (or the highest that exists).
        expected: usize,
        /// The level that came.
        got: usize,
    },
    /// The two scales of an addition differ.
    Scale {
        /// What was asked for.
        operation: &'static str,
        /// The scale of the left operand, or the one needed.
        expected: f64,
        /// The scale of the right operand.
        got: f64,
    },
    /// Two objects belong to different parameter sets.
    Params {
        /// Fingerprint of the set in use.
        expected: u32,
        /// Fingerprint of what came.
        got: u32,
    },
    /// A value does not fit when multiplied by the scale.
    Range {
        /// Index of the slot or coefficient.
        index: usize,
        /// log2 of the largest magnitude allowed.
        limit_log2: u32,
    },
    /// A slot is infinite or not a number.
    NotFinite {
        /// Index of the slot.
        index: usize,
    },
    /// A rotation or automorphism that does not exist in this ring.
    Galois {
        /// The element, which must be odd and below 2N.
        element: u32,
    },
    /// A returned ciphertext one of whose parts is zero: its decryption does
    /// not depend on the key, or is the key times what the sender chose.
    Transparent,
    /// A ciphertext has another number of parts than the operation takes.
    Parts {
        /// What was asked for.
        operation: &'static str,
        /// Parts that it takes.
        expected: usize,
        /// Parts that came.
        got: usize,
    },
    /// There is no switching key for this.
    Key {
        /// What the key must switch from.
        target: SwitchTarget,
        /// The level that it must serve.
        level: usize,
    },
    /// A step of a key switch came out of turn.
    Turn {
        /// The step that is due.
        due: &'static str,
        /// The step that came.
        got: &'static str,
    },
    /// A key was to be streamed in a set with several special primes, whose keys
    /// are used in memory.
    Streamed {
        /// Special primes of the set.
        special: usize,
    },
    /// The bound of the noise of a result is none: every ciphertext carries
    /// some.
    NoiseBound {
        /// The bound that came.
        got: f64,
    },
    /// Fewer bits of statistical security than a publication needs.
    StatisticalBits {
        /// The least that is taken.
        least: u32,
        /// Bits that came.
        got: u32,
    },
    /// A result is not what an evaluation made again gave, bit for bit.
    NotReproduced {
        /// Part of the ciphertext.
        part: usize,
        /// Word of the part, counted over its limbs.
        index: usize,
    },
    /// Flooding would leave fewer bits after the binary point than asked for.
    Precision {
        /// Bits that were asked for.
        asked: f64,
        /// Bits that would be left.
        left: f64,
    },
    /// Values and noise together do not fit the modulus.
    Headroom {
        /// log2 of the magnitude they can reach.
        needed_log2: f64,
        /// log2 of the magnitude there is room for.
        room_log2: f64,
    },
    /// Bytes that are not a serialised object.
    Wire {
        /// What is wrong with them.
        what: WireError,
    },
}

/// What is wrong with serialised bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// They do not start with the magic number.
    Magic {
        /// What they start with.
        got: [u8; 4],
    },
    /// They were written by another version of the format.
    Version {
        /// Version this code reads.
        expected: u8,
        /// Version in the bytes.
        got: u8,
    },
    /// Another kind of object.
    Kind {
        /// Kind that was needed.
        expected: u8,
        /// Kind in the bytes.
        got: u8,
    },
    /// A kind of object that this version does not have.
    UnknownKind {
        /// Kind in the bytes.
        got: u8,
    },
    /// A field that must be zero is not.
    Padding {
        /// Where it begins.
        offset: usize,
    },
    /// A scale that is not a positive, finite, normal number.
    Scale {
        /// IEEE 754 binary64.
        bits: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length {
                what,
                expected,
                got,
            } => {
                write!(f, "{what} takes {expected} elements, {got} were given")
            }
            Self::Residue { limb, index } => {
                write!(
                    f,
                    "coefficient {index} of limb {limb} is not below its prime"
                )
            }
            Self::Level {
                operation,
                expected,
                got,
            } => {
                write!(
                    f,
                    "{operation} needs level {expected}, the operand has level {got}"
                )
            }
            Self::Scale {
                operation,
                expected,
                got,
            } => {
                write!(
                    f,
                    "{operation} needs scale {expected:e}, the operand has scale {got:e}"
                )
            }
            Self::Params { expected, got } => {
                write!(f, "parameter set {got:08x} where {expected:08x} is in use")
            }
            Self::Range { index, limit_log2 } => {
                write!(f, "element {index} times the scale reaches 2^{limit_log2}")
            }
            Self::NotFinite { index } => write!(f, "slot {index} is not a finite number"),
            Self::Galois { element } => {
                write!(
                    f,
                    "{element} is not an odd number below twice the ring degree"
                )
            }
            Self::Transparent => f.write_str("the ciphertext is transparent"),
            Self::Parts {
                operation,
                expected,
                got,
            } => {
                write!(
                    f,
                    "{operation} takes {expected} parts, the ciphertext has {got}"
                )
            }
            Self::Key { target, level } => match target {
                SwitchTarget::Square => write!(f, "no relinearisation key for level {level}"),
                SwitchTarget::Galois(g) => {
                    write!(f, "no key for Galois element {g} at level {level}")
                }
            },
            Self::Turn { due, got } => {
                write!(f, "{got} came where {due} is due in a key switch")
            }
            Self::Streamed { special } => write!(
                f,
                "a streamed key needs a set with 1 special prime, this one has {special}"
            ),
            Self::NoiseBound { got } => {
                write!(f, "{got:e} is not the bound of a result's noise")
            }
            Self::StatisticalBits { least, got } => write!(
                f,
                "{got} bits of statistical security, at least {least} are needed"
            ),
            Self::NotReproduced { part, index } => write!(
                f,
                "word {index} of part {part} is not what evaluating again gives"
            ),
            Self::Precision { asked, left } => write!(
                f,
                "{asked:.1} bits of precision were asked for, flooding leaves {left:.1}"
            ),
            Self::Headroom {
                needed_log2,
                room_log2,
            } => write!(
                f,
                "values and noise reach 2^{needed_log2:.1}, there is room for 2^{room_log2:.1}"
            ),
            Self::Wire { what } => what.fmt(f),
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic { got } => {
                write!(f, "bytes that start with {got:02x?} are no he-edge object")
            }
            Self::Version { expected, got } => {
                write!(f, "format version {got}, this code reads {expected}")
            }
            Self::Kind { expected, got } => {
                write!(f, "an object of kind {got} where kind {expected} is needed")
            }
            Self::UnknownKind { got } => {
                write!(f, "objects of kind {got} are not known here")
            }
            Self::Padding { offset } => {
                write!(f, "the field at byte {offset} must be zero and is not")
            }
            Self::Scale { bits } => write!(
                f,
                "the scale {:e} is not a positive, finite, normal number",
                f64::from_bits(bits)
            ),
        }
    }
}

impl core::error::Error for Error {}

/// Checks the length of a slice.
pub(crate) fn check_len(what: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected {
        Ok(())
    } else {
        Err(Error::Length {
            what,
            expected,
            got,
        })
    }
}
