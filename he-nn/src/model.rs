//! A quantized two-layer network with a square activation, and its file.
//!
//! # The network
//!
//! With pixels `p` in 0..=255 and symmetric 8-bit weights (-127..=127):
//!
//! ```text
//! x1_j    = w1_scale * sum_i w1[j][i] * p_i / 255 + b1[j]
//! h_j     = x1_j^2
//! logit_k = w2_scale * sum_j w2[k][j] * h_j + b2[k]
//! ```
//!
//! Any degree-2 activation `a x^2 + b x + c` with `a != 0`, one for the whole
//! layer, is this network exactly, by completing the square:
//!
//! ```text
//! a x^2 + b x + c = a (x + b/2a)^2 + (c - b^2/4a)
//! ```
//!
//! so `b/2a` goes into every `b1[j]`, `|a|` into `w2_scale` and its sign into
//! the weights `w2`, and `(c - b^2/4a) * w2_scale * sum_j w2[k][j]` (with the
//! scale and weights as they were before) into `b2[k]`. The evaluator never
//! sees the polynomial, and the fold costs no precision: no weight is
//! quantized again.
//!
//! # The file, `.hemodel` version 1
//!
//! All integers are little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`FILE_VERSION`] |
//! | 4 | length of the body |
//! | body | postcard: name, inputs, hidden, classes (`u16`), `w1_scale` (`f32`), `w1`, `b1` (bytes), `w2_scale`, `w2`, `b2`, and the three [`Ranges`] (`f32`) |
//! | 4 | CRC-32 (ISO-HDLC, the one of zip) of everything before it |
//!
//! Weights are one byte each, two's complement, row after row; biases are
//! `f32`. One network has one encoding: a body whose lengths are not in their
//! shortest form is refused. A [`Model`] borrows from the bytes, which may lie
//! in flash at any alignment, and upholds everything that [`ModelError`]
//! lists: whoever holds one need not check it again.
//!
//! # Errors
//!
//! Nothing here panics or allocates, whatever the bytes.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use core::fmt;

use crc::{CRC_32_ISO_HDLC, Crc};
use serde::{Deserialize, Serialize};

/// First bytes of a model file. The newline and the byte above 127 reveal a
/// file that went through a text conversion.
pub const MAGIC: [u8; 8] = *b"\x89hemodl\n";

/// Version of the file format.
pub const FILE_VERSION: u32 = 1;

/// Most inputs of a network.
pub const MAX_INPUTS: usize = 4096;

/// Most hidden units of a network.
pub const MAX_HIDDEN: usize = 1024;

/// Most classes of a network.
pub const MAX_CLASSES: usize = 256;

/// Longest name in bytes.
pub const MAX_NAME_BYTES: usize = 32;

/// Bytes before the body: magic, version, body length.
pub const HEADER_BYTES: usize = 16;

/// Bytes after the body.
pub const CRC_BYTES: usize = 4;

/// Bytes of one bias.
const BIAS_BYTES: usize = 4;

// The first layer's sum is exact in `i32` for every network within the limits.
const _: () = assert!(MAX_INPUTS * 127 * 255 <= i32::MAX as usize);

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// The largest values that the network produced over its training images. The
/// plan derives scales and headroom from them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranges {
    /// Largest `|x1_j|`, the value that is squared.
    pub preactivation: f32,
    /// Largest `h_j`, the square.
    pub square: f32,
    /// Largest `|logit_k|`.
    pub logit: f32,
}

/// A value of [`Ranges`], for [`ModelError::Range`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// [`Ranges::preactivation`].
    Preactivation,
    /// [`Ranges::square`].
    Square,
    /// [`Ranges::logit`].
    Logit,
}

/// One of the two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Inputs to hidden units.
    First,
    /// Hidden units to classes.
    Second,
}

/// A side of the network, for [`ModelError::Dimension`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Pixels.
    Inputs,
    /// Hidden units.
    Hidden,
    /// Classes.
    Classes,
}

/// Why bytes are not a model, or a call does not fit one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ModelError {
    /// The file ends before its content does.
    CutShort {
        /// Bytes that the file needs, as far as it could be read.
        needed: usize,
        /// Bytes that there are.
        got: usize,
    },
    /// The first eight bytes are not [`MAGIC`].
    Magic {
        /// What they are.
        got: [u8; 8],
    },
    /// Another version of the format.
    Version {
        /// What the file says.
        got: u32,
    },
    /// Bytes after the end of the file, or left over in its body.
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// The checksum does not match: the file was damaged.
    Crc {
        /// In the file.
        stored: u32,
        /// Of the file.
        computed: u32,
    },
    /// The body is not what postcard would have written for any network.
    Encoding,
    /// The name is empty or too long.
    NameLength {
        /// Its length in bytes.
        got: usize,
    },
    /// The name is not UTF-8.
    NameNotUtf8 {
        /// Bytes that are valid before the first that is not.
        valid: usize,
    },
    /// A dimension is zero or above its limit.
    Dimension {
        /// Which.
        dimension: Dimension,
        /// Its value.
        got: usize,
        /// The largest that is accepted.
        max: usize,
    },
    /// The number of weights disagrees with the dimensions.
    WeightCount {
        /// Of which layer.
        layer: Layer,
        /// What the dimensions ask for.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// The bytes of the biases disagree with the dimensions.
    BiasBytes {
        /// Of which layer.
        layer: Layer,
        /// What the dimensions ask for.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// A weight is -128, which symmetric weights do not use.
    Weight {
        /// Of which layer.
        layer: Layer,
        /// Its place, row-major.
        index: usize,
    },
    /// A scale of the weights is not finite and positive.
    Scale {
        /// Of which layer.
        layer: Layer,
        /// Its value.
        got: f32,
    },
    /// A bias is not finite.
    Bias {
        /// Of which layer.
        layer: Layer,
        /// Its place.
        index: usize,
    },
    /// A range is not finite or is negative.
    Range {
        /// Which.
        range: RangeKind,
        /// Its value.
        got: f32,
    },
    /// The output of [`Model::write`] is too short.
    OutputLength {
        /// What is needed.
        needed: usize,
        /// What there is.
        got: usize,
    },
    /// An image has another number of pixels than the network has inputs.
    Pixels {
        /// What the network takes.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// The slice for the logits has another length than there are classes.
    Logits {
        /// What the network gives.
        expected: usize,
        /// What came.
        got: usize,
    },
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Second => "second",
        })
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inputs => "inputs",
            Self::Hidden => "hidden units",
            Self::Classes => "classes",
        })
    }
}

impl fmt::Display for RangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preactivation => "pre-activations",
            Self::Square => "squares",
            Self::Logit => "logits",
        })
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CutShort { needed, got } => write!(
                f,
                "the model is cut short: it needs {needed} bytes and has {got}; copy the file again"
            ),
            Self::Magic { got } => write!(
                f,
                "this is not a .hemodel file: it starts with {} instead of {}; give a file written by `train` or `import`",
                got.escape_ascii(),
                MAGIC.escape_ascii()
            ),
            Self::Version { got } => write!(
                f,
                "the model has format version {got} and this program reads version {FILE_VERSION}; write it again with this program"
            ),
            Self::TrailingBytes { extra } => write!(
                f,
                "the model has {extra} bytes too many after its end; copy the file again"
            ),
            Self::Crc { stored, computed } => write!(
                f,
                "the model is damaged: its CRC-32 is {computed:08x} and it says {stored:08x}; copy the file again"
            ),
            Self::Encoding => f.write_str(
                "the model's checksum is right but its content is not a network; write it again with this program",
            ),
            Self::NameLength { got } => write!(
                f,
                "the model's name has {got} bytes; give it 1 to {MAX_NAME_BYTES}"
            ),
            Self::NameNotUtf8 { valid } => write!(
                f,
                "the model's name is not UTF-8 after its first {valid} bytes; give it another name"
            ),
            Self::Dimension { dimension, got, max } => write!(
                f,
                "the model has {got} {dimension}; a network has 1 to {max}"
            ),
            Self::WeightCount { layer, expected, got } => write!(
                f,
                "the model's {layer} layer has {got} weights and its dimensions ask for {expected}; write it again"
            ),
            Self::BiasBytes { layer, expected, got } => write!(
                f,
                "the biases of the model's {layer} layer take {got} bytes and its dimensions ask for {expected}; write it again"
            ),
            Self::Weight { layer, index } => write!(
                f,
                "weight {index} of the model's {layer} layer is -128; quantize to -127..127"
            ),
            Self::Scale { layer, got } => write!(
                f,
                "the weight scale of the model's {layer} layer is {got}; it must be finite and positive"
            ),
            Self::Bias { layer, index } => write!(
                f,
                "bias {index} of the model's {layer} layer is not finite; train the model again"
            ),
            Self::Range { range, got } => write!(
                f,
                "the model's range of {range} is {got}; it must be finite and not negative"
            ),
            Self::OutputLength { needed, got } => write!(
                f,
                "writing the model takes {needed} bytes and the output has {got}; give a longer one"
            ),
            Self::Pixels { expected, got } => write!(
                f,
                "the image has {got} pixels and the model takes {expected}; give an image of that size"
            ),
            Self::Logits { expected, got } => write!(
                f,
                "the output has room for {got} logits and the model gives {expected}; give exactly as many"
            ),
        }
    }
}

impl core::error::Error for ModelError {}

/// What a [`Model`] is made of, not yet checked. Also the body of the file:
/// the fields are encoded in this order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelParts<'a> {
    /// Name, UTF-8.
    #[serde(borrow)]
    pub name: &'a [u8],
    /// Pixels of an image.
    pub inputs: u16,
    /// Units of the hidden layer.
    pub hidden: u16,
    /// Classes.
    pub classes: u16,
    /// Real value of a first-layer weight of 1.
    pub w1_scale: f32,
    /// First layer, `hidden` rows of `inputs` bytes, two's complement.
    pub w1: &'a [u8],
    /// First layer's biases, `f32` little-endian.
    pub b1: &'a [u8],
    /// Real value of a second-layer weight of 1.
    pub w2_scale: f32,
    /// Second layer, `classes` rows of `hidden` bytes, two's complement.
    pub w2: &'a [u8],
    /// Second layer's biases, `f32` little-endian.
    pub b2: &'a [u8],
    /// What was seen in training.
    pub ranges: Ranges,
}

/// A checked network, borrowed from the bytes that hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model<'a> {
    name: &'a str,
    parts: ModelParts<'a>,
    body_bytes: usize,
    crc: u32,
}

impl<'a> Model<'a> {
    /// Checks a network that was put together elsewhere.
    ///
    /// # Errors
    ///
    /// The first disagreement found, in the order of the fields.
    pub fn new(parts: ModelParts<'a>) -> Result<Self, ModelError> {
        let name = check(&parts)?;
        let body_bytes = body_bytes(&parts)?;
        let mut digest = CRC.digest();
        digest.update(&header(body_bytes)?);
        let crc = postcard::serialize_with_flavor(&parts, CrcFlavor(digest))
            .map_err(|_| ModelError::Encoding)?;
        Ok(Self {
            name,
            parts,
            body_bytes,
            crc,
        })
    }

    /// Reads a `.hemodel` file.
    ///
    /// # Errors
    ///
    /// What disagrees first: the frame of the file, its checksum, then the
    /// network in it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ModelError> {
        let cut_short = |needed| ModelError::CutShort {
            needed,
            got: bytes.len(),
        };
        let minimum = const { HEADER_BYTES + CRC_BYTES };

        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(cut_short(minimum))?;
        if *magic != MAGIC {
            return Err(ModelError::Magic { got: *magic });
        }
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(cut_short(minimum))?;
        let version = u32::from_le_bytes(*version);
        if version != FILE_VERSION {
            return Err(ModelError::Version { got: version });
        }
        let (body_bytes, rest) = rest.split_first_chunk::<4>().ok_or(cut_short(minimum))?;
        let body_bytes = u32::from_le_bytes(*body_bytes) as usize;
        let needed = body_bytes.saturating_add(minimum);
        let (body, rest) = rest.split_at_checked(body_bytes).ok_or(cut_short(needed))?;
        let (stored, extra) = rest.split_first_chunk::<4>().ok_or(cut_short(needed))?;
        if !extra.is_empty() {
            return Err(ModelError::TrailingBytes { extra: extra.len() });
        }
        let stored = u32::from_le_bytes(*stored);
        let mut digest = CRC.digest();
        digest.update(&header(body_bytes)?);
        digest.update(body);
        let computed = digest.finalize();
        if stored != computed {
            return Err(ModelError::Crc { stored, computed });
        }

        let (parts, extra) =
            postcard::take_from_bytes::<ModelParts<'a>>(body).map_err(|_| ModelError::Encoding)?;
        if !extra.is_empty() {
            return Err(ModelError::TrailingBytes { extra: extra.len() });
        }
        // Lengths and dimensions are all that has more than one encoding, and
        // every other one is longer.
        if self::body_bytes(&parts)? != body_bytes {
            return Err(ModelError::Encoding);
        }
        Ok(Self {
            name: check(&parts)?,
            parts,
            body_bytes,
            crc: stored,
        })
    }

    /// Writes the file into `out` and returns its length.
    ///
    /// # Errors
    ///
    /// [`ModelError::OutputLength`] where `out` is shorter than
    /// [`Model::file_len`]; `out` is not touched then.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, ModelError> {
        let needed = self.file_len();
        let short = ModelError::OutputLength {
            needed,
            got: out.len(),
        };
        let out = out.get_mut(..needed).ok_or(short)?;
        let (head, out) = out.split_first_chunk_mut::<HEADER_BYTES>().ok_or(short)?;
        let (body, tail) = out.split_last_chunk_mut::<CRC_BYTES>().ok_or(short)?;
        *head = header(self.body_bytes)?;
        postcard::to_slice(&self.parts, body).map_err(|_| ModelError::Encoding)?;
        *tail = self.crc.to_le_bytes();
        Ok(needed)
    }

    /// Length of the file.
    #[must_use]
    pub const fn file_len(&self) -> usize {
        self.body_bytes
            .saturating_add(const { HEADER_BYTES + CRC_BYTES })
    }

    /// CRC-32 of the file, as its last four bytes hold it: the fingerprint by
    /// which two sides agree on a model.
    #[must_use]
    pub const fn crc(&self) -> u32 {
        self.crc
    }

    /// Name, 1 to [`MAX_NAME_BYTES`] bytes.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Pixels of an image.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        self.parts.inputs as usize
    }

    /// Units of the hidden layer.
    #[must_use]
    pub const fn hidden(&self) -> usize {
        self.parts.hidden as usize
    }

    /// Classes.
    #[must_use]
    pub const fn classes(&self) -> usize {
        self.parts.classes as usize
    }

    /// Real value of a first-layer weight of 1.
    #[must_use]
    pub const fn w1_scale(&self) -> f32 {
        self.parts.w1_scale
    }

    /// Real value of a second-layer weight of 1.
    #[must_use]
    pub const fn w2_scale(&self) -> f32 {
        self.parts.w2_scale
    }

    /// What was seen in training.
    #[must_use]
    pub const fn ranges(&self) -> Ranges {
        self.parts.ranges
    }

    /// First-layer weight from `input` to `unit`; `None` outside the layer.
    #[must_use]
    pub fn w1(&self, unit: usize, input: usize) -> Option<i8> {
        weight(self.parts.w1, self.inputs(), unit, input)
    }

    /// Second-layer weight from `unit` to `class`; `None` outside the layer.
    #[must_use]
    pub fn w2(&self, class: usize, unit: usize) -> Option<i8> {
        weight(self.parts.w2, self.hidden(), class, unit)
    }

    /// All first-layer weights of a hidden unit; `None` if there is no such
    /// unit.
    #[must_use]
    pub fn w1_row(&self, unit: usize) -> Option<impl ExactSizeIterator<Item = i8> + Clone + 'a> {
        row(self.parts.w1, self.inputs(), unit)
    }

    /// All second-layer weights of a class; `None` if there is no such class.
    #[must_use]
    pub fn w2_row(&self, class: usize) -> Option<impl ExactSizeIterator<Item = i8> + Clone + 'a> {
        row(self.parts.w2, self.hidden(), class)
    }

    /// Bias of a hidden unit; `None` if there is no such unit.
    #[must_use]
    pub fn b1(&self, unit: usize) -> Option<f32> {
        bias(self.parts.b1, unit)
    }

    /// Bias of a class; `None` if there is no such class.
    #[must_use]
    pub fn b2(&self, class: usize) -> Option<f32> {
        bias(self.parts.b2, class)
    }

    /// `x1_j` of every hidden unit in order, for an image in the clear.
    ///
    /// # Errors
    ///
    /// [`ModelError::Pixels`] for an image of another size.
    pub fn plain_preactivations<'p>(
        &self,
        pixels: &'p [u8],
    ) -> Result<impl Iterator<Item = f64> + use<'a, 'p>, ModelError> {
        if pixels.len() != self.inputs() {
            return Err(ModelError::Pixels {
                expected: self.inputs(),
                got: pixels.len(),
            });
        }
        let scale = f64::from(self.parts.w1_scale) / 255.0;
        Ok(self
            .parts
            .w1
            .chunks_exact(self.inputs())
            .zip(biases(self.parts.b1))
            .map(move |(weights, bias)| {
                let sum = weights.iter().zip(pixels).fold(0i32, |sum, (&w, &p)| {
                    // Exact: see the assertion beside the limits.
                    sum.wrapping_add(i32::from(w.cast_signed()).wrapping_mul(i32::from(p)))
                });
                scale * f64::from(sum) + f64::from(bias)
            }))
    }

    /// The same quantized network in the clear: exact integer sums in the
    /// first layer, `f64` after it.
    ///
    /// # Errors
    ///
    /// [`ModelError::Pixels`] or [`ModelError::Logits`] where a length is not
    /// the network's.
    pub fn plain_logits(&self, pixels: &[u8], out: &mut [f64]) -> Result<(), ModelError> {
        if out.len() != self.classes() {
            return Err(ModelError::Logits {
                expected: self.classes(),
                got: out.len(),
            });
        }
        let preactivations = self.plain_preactivations(pixels)?;
        out.fill(0.0);
        for (unit, x1) in preactivations.enumerate() {
            let column = self.parts.w2.iter().skip(unit).step_by(self.hidden());
            for (logit, &w) in out.iter_mut().zip(column) {
                *logit += f64::from(w.cast_signed()) * (x1 * x1);
            }
        }
        let scale = f64::from(self.parts.w2_scale);
        for (logit, bias) in out.iter_mut().zip(biases(self.parts.b2)) {
            *logit = scale * *logit + f64::from(bias);
        }
        Ok(())
    }
}

/// The first [`HEADER_BYTES`] of a file.
fn header(body_bytes: usize) -> Result<[u8; HEADER_BYTES], ModelError> {
    let body_bytes = u32::try_from(body_bytes).map_err(|_| ModelError::Encoding)?;
    let mut header = [0; HEADER_BYTES];
    let fields = MAGIC
        .into_iter()
        .chain(FILE_VERSION.to_le_bytes())
        .chain(body_bytes.to_le_bytes());
    for (byte, field) in header.iter_mut().zip(fields) {
        *byte = field;
    }
    Ok(header)
}

/// Length of the body.
fn body_bytes(parts: &ModelParts<'_>) -> Result<usize, ModelError> {
    postcard::serialize_with_flavor(parts, postcard::ser_flavors::Size::default())
        .map_err(|_| ModelError::Encoding)
}

/// Everything that a [`Model`] promises; gives the name back as text.
fn check<'a>(parts: &ModelParts<'a>) -> Result<&'a str, ModelError> {
    if !(1..=MAX_NAME_BYTES).contains(&parts.name.len()) {
        return Err(ModelError::NameLength {
            got: parts.name.len(),
        });
    }
    let name = core::str::from_utf8(parts.name).map_err(|error| ModelError::NameNotUtf8 {
        valid: error.valid_up_to(),
    })?;

    let inputs = dimension(Dimension::Inputs, parts.inputs, MAX_INPUTS)?;
    let hidden = dimension(Dimension::Hidden, parts.hidden, MAX_HIDDEN)?;
    let classes = dimension(Dimension::Classes, parts.classes, MAX_CLASSES)?;

    check_layer(
        Layer::First,
        inputs,
        hidden,
        parts.w1_scale,
        parts.w1,
        parts.b1,
    )?;
    check_layer(
        Layer::Second,
        hidden,
        classes,
        parts.w2_scale,
        parts.w2,
        parts.b2,
    )?;

    for (range, got) in [
        (RangeKind::Preactivation, parts.ranges.preactivation),
        (RangeKind::Square, parts.ranges.square),
        (RangeKind::Logit, parts.ranges.logit),
    ] {
        if !got.is_finite() || got.is_sign_negative() {
            return Err(ModelError::Range { range, got });
        }
    }
    Ok(name)
}

fn dimension(dimension: Dimension, got: u16, max: usize) -> Result<usize, ModelError> {
    let got = usize::from(got);
    if !(1..=max).contains(&got) {
        return Err(ModelError::Dimension {
            dimension,
            got,
            max,
        });
    }
    Ok(got)
}

fn check_layer(
    layer: Layer,
    columns: usize,
    rows: usize,
    scale: f32,
    weights: &[u8],
    bias_bytes: &[u8],
) -> Result<(), ModelError> {
    if !scale.is_finite() || scale <= 0.0 {
        return Err(ModelError::Scale { layer, got: scale });
    }
    let expected = rows.saturating_mul(columns);
    if weights.len() != expected {
        return Err(ModelError::WeightCount {
            layer,
            expected,
            got: weights.len(),
        });
    }
    if let Some(index) = weights.iter().position(|w| w.cast_signed() == i8::MIN) {
        return Err(ModelError::Weight { layer, index });
    }
    let expected = rows.saturating_mul(BIAS_BYTES);
    if bias_bytes.len() != expected {
        return Err(ModelError::BiasBytes {
            layer,
            expected,
            got: bias_bytes.len(),
        });
    }
    if let Some(index) = biases(bias_bytes).position(|bias| !bias.is_finite()) {
        return Err(ModelError::Bias { layer, index });
    }
    Ok(())
}

fn row(
    weights: &[u8],
    columns: usize,
    row: usize,
) -> Option<impl ExactSizeIterator<Item = i8> + Clone> {
    Some(
        weights
            .chunks_exact(columns)
            .nth(row)?
            .iter()
            .map(|w| w.cast_signed()),
    )
}

fn weight(weights: &[u8], columns: usize, row: usize, column: usize) -> Option<i8> {
    if column >= columns {
        return None;
    }
    let index = row.checked_mul(columns)?.checked_add(column)?;
    Some(weights.get(index)?.cast_signed())
}

fn biases(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes
        .as_chunks::<BIAS_BYTES>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
}

fn bias(bytes: &[u8], index: usize) -> Option<f32> {
    Some(f32::from_le_bytes(
        *bytes.as_chunks::<BIAS_BYTES>().0.get(index)?,
    ))
}

/// Serializes into a checksum, so that a model has its CRC without a buffer.
struct CrcFlavor(crc::Digest<'static, u32>);

impl postcard::ser_flavors::Flavor for CrcFlavor {
    type Output = u32;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.update(&[byte]);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.update(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<u32> {
        Ok(self.0.finalize())
    }
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that panics has failed, which is what it should do"
)]
mod tests {
    use super::*;

    const W1: [u8; 6] = [1, 0xff, 127, 0x81, 0, 5];
    const W2: [u8; 4] = [3, 0xfe, 0, 7];

    fn le<const B: usize>(values: &[f32]) -> [u8; B] {
        let mut bytes = [0; B];
        for (chunk, value) in bytes.chunks_exact_mut(4).zip(values) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Three inputs, two hidden units, two classes.
    fn parts(biases: &[u8; 8]) -> ModelParts<'_> {
        ModelParts {
            name: b"tiny",
            inputs: 3,
            hidden: 2,
            classes: 2,
            w1_scale: 0.5,
            w1: &W1,
            b1: biases,
            w2_scale: 0.25,
            w2: &W2,
            b2: biases,
            ranges: Ranges {
                preactivation: 3.0,
                square: 9.0,
                logit: 7.5,
            },
        }
    }

    fn biases() -> [u8; 8] {
        le(&[1.5, -2.0])
    }

    fn file() -> Vec<u8> {
        let mut out = [0; 256];
        let len = Model::new(parts(&biases()))
            .unwrap()
            .write(&mut out)
            .unwrap();
        out[..len].to_vec()
    }

    /// A file with a right frame around any body.
    fn framed(body: &[u8]) -> Vec<u8> {
        let mut file = header(body.len()).unwrap().to_vec();
        file.extend(body);
        file.extend(CRC.checksum(&file).to_le_bytes());
        file
    }

    /// The frame, then postcard of parts that were not checked.
    fn unchecked(parts: &ModelParts<'_>) -> Vec<u8> {
        let mut buffer = [0; 8192];
        framed(postcard::to_slice(parts, &mut buffer).unwrap())
    }

    /// Both ways to a model refuse these parts for this reason.
    fn refused(parts: &ModelParts<'_>, error: ModelError) {
        assert_eq!(Model::new(*parts).unwrap_err(), error);
        assert_eq!(Model::parse(&unchecked(parts)).unwrap_err(), error);
        let sentence = error.to_string();
        assert!(!sentence.is_empty() && !sentence.contains('\n'));
    }

    #[test]
    fn roundtrip() {
        let biases = biases();
        let model = Model::new(parts(&biases)).unwrap();
        let file = file();
        assert_eq!(file.len(), model.file_len());
        let parsed = Model::parse(&file).unwrap();
        assert_eq!(parsed, model);
        assert_eq!(parsed.crc().to_le_bytes(), file[file.len() - 4..]);
        assert_eq!(parsed.crc(), CRC.checksum(&file[..file.len() - 4]));
        // Any alignment.
        for shift in 1..4 {
            let mut shifted = vec![0; shift];
            shifted.extend(&file);
            assert_eq!(Model::parse(&shifted[shift..]).unwrap(), model);
        }
    }

    #[test]
    fn accessors() {
        let biases = biases();
        let model = Model::new(parts(&biases)).unwrap();
        assert_eq!(model.name(), "tiny");
        assert_eq!((model.inputs(), model.hidden(), model.classes()), (3, 2, 2));
        assert_eq!((model.w1_scale(), model.w2_scale()), (0.5, 0.25));
        assert_eq!(model.w1_row(0).unwrap().collect::<Vec<_>>(), [1, -1, 127]);
        assert_eq!(model.w1_row(1).unwrap().collect::<Vec<_>>(), [-127, 0, 5]);
        assert!(model.w1_row(2).is_none());
        assert_eq!(model.w2_row(1).unwrap().collect::<Vec<_>>(), [0, 7]);
        assert!(model.w2_row(2).is_none());
        assert_eq!((model.w1(1, 0), model.w1(1, 2)), (Some(-127), Some(5)));
        assert_eq!(
            (model.w1(0, 3), model.w1(2, 0), model.w1(usize::MAX, 1)),
            (None, None, None)
        );
        assert_eq!(
            (model.w2(0, 1), model.w2(0, 2), model.w2(2, 0)),
            (Some(-2), None, None)
        );
        assert_eq!(
            (model.b1(0), model.b1(1), model.b1(2)),
            (Some(1.5), Some(-2.0), None)
        );
        assert_eq!((model.b2(1), model.b2(usize::MAX)), (Some(-2.0), None));
        assert_eq!(model.ranges().logit, 7.5);
    }

    #[test]
    fn plain_network_by_hand() {
        let biases = biases();
        let model = Model::new(parts(&biases)).unwrap();
        let pixels = [255, 51, 0];
        // x1 = [0.5 * (1 - 0.2) + 1.5, 0.5 * -127 - 2] = [1.9, -65.5]
        let x1: Vec<f64> = model.plain_preactivations(&pixels).unwrap().collect();
        assert!((x1[0] - 1.9).abs() < 1e-12 && (x1[1] + 65.5).abs() < 1e-12);
        let mut logits = [f64::NAN; 2];
        model.plain_logits(&pixels, &mut logits).unwrap();
        let h = [1.9 * 1.9, 65.5 * 65.5];
        assert!((logits[0] - (0.25 * (3.0 * h[0] - 2.0 * h[1]) + 1.5)).abs() < 1e-9);
        assert!((logits[1] - (0.25 * 7.0 * h[1] - 2.0)).abs() < 1e-9);

        assert_eq!(
            model.plain_logits(&pixels[..2], &mut logits).unwrap_err(),
            ModelError::Pixels {
                expected: 3,
                got: 2
            }
        );
        assert_eq!(
            model.plain_logits(&pixels, &mut logits[..1]).unwrap_err(),
            ModelError::Logits {
                expected: 2,
                got: 1
            }
        );
    }

    #[test]
    fn widest_sums_are_exact() {
        let zero = [0; 4];
        let w1 = [127; MAX_INPUTS];
        let model = Model::new(ModelParts {
            inputs: MAX_INPUTS as u16,
            hidden: 1,
            classes: 1,
            w1_scale: 1.0,
            w1: &w1,
            b1: &zero,
            w2: &[1],
            b2: &zero,
            ..parts(&[0; 8])
        })
        .unwrap();
        let x1 = model
            .plain_preactivations(&[255; MAX_INPUTS])
            .unwrap()
            .next()
            .unwrap();
        assert!((x1 - 127.0 * MAX_INPUTS as f64).abs() < 1e-6);
    }

    #[test]
    fn a_degree_2_activation_folds_exactly() {
        // The activation a x^2 + b x + c between two small layers, once as it
        // stands and once folded as the module says.
        let (a, b, c) = (-0.5, 0.75, 0.125);
        let (w1, b1) = ([[2i8, -3, 1], [4, 0, -1]], [0.5, -0.25]);
        let (w2, b2) = ([[5i8, -6], [7, 8]], [1.0, -1.0]);
        let pixels = [255u8, 51, 102];
        let direct: Vec<f64> = (0..2)
            .map(|k| {
                let sum: f64 = (0..2)
                    .map(|j| {
                        let sum: f64 = (0..3)
                            .map(|i| f64::from(w1[j][i]) * f64::from(pixels[i]))
                            .sum();
                        let x = 0.5 * sum / 255.0 + b1[j];
                        f64::from(w2[k][j]) * (a * x * x + b * x + c)
                    })
                    .sum();
                0.25 * sum + b2[k]
            })
            .collect();

        let constant = c - b * b / (4.0 * a);
        let b1 = b1.map(|b1| (b1 + b / (2.0 * a)) as f32);
        let b2: [f32; 2] = core::array::from_fn(|k| {
            (b2[k] + constant * 0.25 * f64::from(w2[k][0] + w2[k][1])) as f32
        });
        let w2 = w2.map(|row| row.map(|w| -w)); // a is negative
        let model_parts = ModelParts {
            w1: &w1.map(|row| row.map(i8::cast_unsigned)).concat(),
            b1: &le::<8>(&b1),
            w2_scale: 0.25 * a.abs() as f32,
            w2: &w2.map(|row| row.map(i8::cast_unsigned)).concat(),
            b2: &le::<8>(&b2),
            ..parts(&[0; 8])
        };
        let mut folded = [0.0; 2];
        Model::new(model_parts)
            .unwrap()
            .plain_logits(&pixels, &mut folded)
            .unwrap();
        for (direct, folded) in direct.iter().zip(folded) {
            assert!((direct - folded).abs() < 1e-5, "{direct} {folded}");
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let file = file();
        for len in 0..file.len() {
            match Model::parse(&file[..len]).unwrap_err() {
                ModelError::CutShort { needed, got } => {
                    assert_eq!(got, len);
                    assert_eq!(needed, if len < HEADER_BYTES { 20 } else { file.len() });
                }
                error => panic!("{len}: {error:?}"),
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let file = file();
        for index in 0..file.len() {
            for bit in 0..8 {
                let mut damaged = file.clone();
                damaged[index] ^= 1 << bit;
                let error = Model::parse(&damaged).unwrap_err();
                let expected = match index {
                    0..8 => matches!(error, ModelError::Magic { .. }),
                    8..12 => matches!(error, ModelError::Version { .. }),
                    12..16 => matches!(
                        error,
                        ModelError::CutShort { .. } | ModelError::TrailingBytes { .. }
                    ),
                    _ => matches!(error, ModelError::Crc { .. }),
                };
                assert!(expected, "byte {index}: {error:?}");
            }
        }
    }

    #[test]
    fn flipped_bodies_with_a_right_checksum_never_panic() {
        let file = file();
        let body = &file[HEADER_BYTES..file.len() - CRC_BYTES];
        for index in 0..body.len() {
            for value in 0..=u8::MAX {
                let mut damaged = body.to_vec();
                damaged[index] = value;
                let damaged = framed(&damaged);
                // What is accepted is canonical: it writes itself again.
                if let Ok(model) = Model::parse(&damaged) {
                    let mut out = vec![0; model.file_len()];
                    model.write(&mut out).unwrap();
                    assert_eq!(out, damaged);
                }
            }
        }
        for len in 0..body.len() {
            assert_eq!(
                Model::parse(&framed(&body[..len])).unwrap_err(),
                ModelError::Encoding
            );
        }
    }

    #[test]
    fn trailing_bytes() {
        let mut outside = file();
        outside.extend([0; 3]);
        assert_eq!(
            Model::parse(&outside).unwrap_err(),
            ModelError::TrailingBytes { extra: 3 }
        );
        let inside = file();
        let mut body = inside[HEADER_BYTES..inside.len() - CRC_BYTES].to_vec();
        body.extend([0; 2]);
        assert_eq!(
            Model::parse(&framed(&body)).unwrap_err(),
            ModelError::TrailingBytes { extra: 2 }
        );
    }

    #[test]
    fn non_canonical_lengths_are_refused() {
        let file = file();
        let body = &file[HEADER_BYTES..file.len() - CRC_BYTES];
        assert_eq!(body[0], 4); // length of "tiny"
        let mut longer = vec![0x84, 0x00];
        longer.extend(&body[1..]);
        assert_eq!(
            Model::parse(&framed(&longer)).unwrap_err(),
            ModelError::Encoding
        );
    }

    #[test]
    fn names() {
        let biases = biases();
        let parts = parts(&biases);
        refused(
            &ModelParts { name: b"", ..parts },
            ModelError::NameLength { got: 0 },
        );
        refused(
            &ModelParts {
                name: &[b'a'; 33],
                ..parts
            },
            ModelError::NameLength { got: 33 },
        );
        refused(
            &ModelParts {
                name: b"ab\xff",
                ..parts
            },
            ModelError::NameNotUtf8 { valid: 2 },
        );
        assert!(
            Model::new(ModelParts {
                name: &[b'a'; 32],
                ..parts
            })
            .is_ok()
        );
    }

    #[test]
    fn dimensions() {
        use Dimension::{Classes, Hidden, Inputs};
        let biases = biases();
        let parts = parts(&biases);
        for got in [0, 4097] {
            let error = ModelError::Dimension {
                dimension: Inputs,
                got: usize::from(got),
                max: 4096,
            };
            refused(
                &ModelParts {
                    inputs: got,
                    ..parts
                },
                error,
            );
        }
        for got in [0, 1025] {
            let error = ModelError::Dimension {
                dimension: Hidden,
                got: usize::from(got),
                max: 1024,
            };
            refused(
                &ModelParts {
                    hidden: got,
                    ..parts
                },
                error,
            );
        }
        for got in [0, 257] {
            let error = ModelError::Dimension {
                dimension: Classes,
                got: usize::from(got),
                max: 256,
            };
            refused(
                &ModelParts {
                    classes: got,
                    ..parts
                },
                error,
            );
        }
    }

    #[test]
    fn weights_and_biases() {
        let biases = biases();
        let parts = parts(&biases);
        let (first, second) = (Layer::First, Layer::Second);
        refused(
            &ModelParts { inputs: 4, ..parts },
            ModelError::WeightCount {
                layer: first,
                expected: 8,
                got: 6,
            },
        );
        refused(
            &ModelParts {
                w2: &[0; 5],
                ..parts
            },
            ModelError::WeightCount {
                layer: second,
                expected: 4,
                got: 5,
            },
        );
        refused(
            &ModelParts {
                w1: &[0, 0, 0, 128, 0, 0],
                ..parts
            },
            ModelError::Weight {
                layer: first,
                index: 3,
            },
        );
        refused(
            &ModelParts {
                w2: &[0, 128, 0, 0],
                ..parts
            },
            ModelError::Weight {
                layer: second,
                index: 1,
            },
        );
        refused(
            &ModelParts {
                b1: &biases[..7],
                ..parts
            },
            ModelError::BiasBytes {
                layer: first,
                expected: 8,
                got: 7,
            },
        );
        refused(
            &ModelParts {
                b2: &[0; 12],
                ..parts
            },
            ModelError::BiasBytes {
                layer: second,
                expected: 8,
                got: 12,
            },
        );
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let broken = le::<8>(&[0.0, value]);
            refused(
                &ModelParts {
                    b1: &broken,
                    ..parts
                },
                ModelError::Bias {
                    layer: first,
                    index: 1,
                },
            );
            refused(
                &ModelParts {
                    b2: &broken,
                    ..parts
                },
                ModelError::Bias {
                    layer: second,
                    index: 1,
                },
            );
        }
    }

    #[test]
    fn scales_and_ranges() {
        let biases = biases();
        let parts = parts(&biases);
        for value in [0.0, -1.0, f32::INFINITY] {
            let error = |layer| ModelError::Scale { layer, got: value };
            refused(
                &ModelParts {
                    w1_scale: value,
                    ..parts
                },
                error(Layer::First),
            );
            refused(
                &ModelParts {
                    w2_scale: value,
                    ..parts
                },
                error(Layer::Second),
            );
        }
        for value in [-0.5, f32::INFINITY] {
            let error = |range| ModelError::Range { range, got: value };
            let ranges = Ranges {
                preactivation: value,
                ..parts.ranges
            };
            refused(
                &ModelParts { ranges, ..parts },
                error(RangeKind::Preactivation),
            );
            let ranges = Ranges {
                square: value,
                ..parts.ranges
            };
            refused(&ModelParts { ranges, ..parts }, error(RangeKind::Square));
            let ranges = Ranges {
                logit: value,
                ..parts.ranges
            };
            refused(&ModelParts { ranges, ..parts }, error(RangeKind::Logit));
        }
        // NaN is not equal to itself, so these two by pattern.
        assert!(matches!(
            Model::new(ModelParts {
                w1_scale: f32::NAN,
                ..parts
            }),
            Err(ModelError::Scale {
                layer: Layer::First,
                ..
            })
        ));
        let ranges = Ranges {
            square: f32::NAN,
            ..parts.ranges
        };
        assert!(matches!(
            Model::new(ModelParts { ranges, ..parts }),
            Err(ModelError::Range {
                range: RangeKind::Square,
                ..
            })
        ));
    }

    #[test]
    fn a_short_output_is_left_alone() {
        let biases = biases();
        let model = Model::new(parts(&biases)).unwrap();
        let needed = model.file_len();
        let mut out = vec![0xaa; needed - 1];
        assert_eq!(
            model.write(&mut out).unwrap_err(),
            ModelError::OutputLength {
                needed,
                got: needed - 1
            }
        );
        assert!(out.iter().all(|&byte| byte == 0xaa));
    }
}
