//! Why bytes are not a model, or a call does not fit one.

use core::fmt;

use super::{FILE_VERSION, MAGIC, MAX_DEGREE, MAX_NAME_BYTES};

/// A part of a network, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The input.
    Input,
    /// A layer, counted from 0 (and from 1 in sentences).
    Layer(usize),
}

/// A number that a shape is made of, for [`ModelError::Dimension`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Channels of an image, or of a convolution's result.
    Channels,
    /// Rows of an image.
    Height,
    /// Columns of an image.
    Width,
    /// Features of an input that is no image.
    Features,
    /// Outputs of a dense layer.
    Outputs,
    /// Rows of a convolution's kernel.
    KernelHeight,
    /// Columns of a convolution's kernel.
    KernelWidth,
    /// Stride of a convolution.
    Stride,
    /// Values that a layer gives in all.
    Values,
}

/// A side of an image, for [`ModelError::Padding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Above the first row.
    Top,
    /// Below the last row.
    Bottom,
    /// Before the first column.
    Left,
    /// Behind the last column.
    Right,
}

/// A row of single-precision numbers, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatKind {
    /// Means of the features.
    Means,
    /// Standard deviations of the features.
    Deviations,
    /// Biases.
    Biases,
    /// Coefficients of an activation polynomial.
    Coefficients,
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
    /// No layer, or more than there may be.
    LayerCount {
        /// How many.
        got: usize,
        /// The most that are accepted.
        max: usize,
    },
    /// An activation that is the first or the last layer, or that follows
    /// another one.
    Order {
        /// Which layer.
        layer: usize,
    },
    /// A dimension is zero or above its limit.
    Dimension {
        /// Where.
        place: Place,
        /// Which.
        dimension: Dimension,
        /// Its value.
        got: usize,
        /// The largest that is accepted there.
        max: usize,
    },
    /// A convolution's padding is as large as its kernel or larger, so that a window
    /// could lie in it alone.
    Padding {
        /// Of which layer.
        layer: usize,
        /// On which side.
        side: Side,
        /// Its rows or columns.
        got: usize,
        /// The most for this kernel.
        max: usize,
    },
    /// The number of bytes of a layer's weights disagrees with the shapes.
    WeightBytes {
        /// Of which layer.
        layer: usize,
        /// What the shapes ask for.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// Multipliers are neither none nor one per row.
    MultiplierCount {
        /// Of which layer.
        layer: usize,
        /// Its rows.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// A row's multiplier is 0.
    Multiplier {
        /// Of which layer.
        layer: usize,
        /// Which row.
        index: usize,
    },
    /// The number of bytes of a row of `f32` disagrees with the shapes.
    FloatBytes {
        /// Where.
        place: Place,
        /// Of what.
        kind: FloatKind,
        /// What the shapes ask for.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// A number is not finite.
    NotFinite {
        /// Where.
        place: Place,
        /// Of what.
        kind: FloatKind,
        /// Its place in the row.
        index: usize,
    },
    /// A standard deviation is not positive.
    Deviation {
        /// Of which feature.
        index: usize,
        /// Its value.
        got: f32,
    },
    /// A weight is outside the symmetric range of its width.
    Weight {
        /// Of which layer.
        layer: usize,
        /// Its place in the layer's weights.
        index: usize,
        /// Its value.
        got: i16,
        /// The largest there may be.
        max: i16,
    },
    /// A scale of the weights is not finite and positive.
    Scale {
        /// Of which layer.
        layer: usize,
        /// Its value.
        got: f32,
    },
    /// An activation polynomial of a degree below 2 or above [`MAX_DEGREE`],
    /// or with a leading coefficient of zero.
    Degree {
        /// Which layer.
        layer: usize,
        /// Its number of coefficients, less one.
        got: usize,
        /// Whether the last coefficient is zero.
        leading_zero: bool,
    },
    /// A range is not finite or is negative.
    Range {
        /// Of which layer.
        layer: usize,
        /// Its value.
        got: f32,
    },
    /// The output of [`super::ModelParts::write`] is too short.
    OutputLength {
        /// What is needed.
        needed: usize,
        /// What there is.
        got: usize,
    },
    /// A sample has another number of values than the network has inputs.
    Sample {
        /// What the network takes.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// Pixels for a network of features, or features for one of images.
    SampleKind {
        /// Whether the network takes pixels.
        pixels: bool,
    },
    /// The memory for plain evaluation is too short.
    Workspace {
        /// What is needed, in values.
        needed: usize,
        /// What there is.
        got: usize,
    },
    /// The slice for the logits has another length than there are outputs.
    Logits {
        /// What the network gives.
        expected: usize,
        /// What came.
        got: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Input => f.write_str("input"),
            Self::Layer(index) => write!(f, "layer {}", index.saturating_add(1)),
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Channels => "channels",
            Self::Height => "rows",
            Self::Width => "columns",
            Self::Features => "features",
            Self::Outputs => "outputs",
            Self::KernelHeight => "rows of its kernel",
            Self::KernelWidth => "columns of its kernel",
            Self::Stride => "as its stride",
            Self::Values => "values in all",
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Top => "rows of padding above",
            Self::Bottom => "rows of padding below",
            Self::Left => "columns of padding to the left",
            Self::Right => "columns of padding to the right",
        })
    }
}

impl fmt::Display for FloatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Means => "means",
            Self::Deviations => "standard deviations",
            Self::Biases => "biases",
            Self::Coefficients => "coefficients",
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
            Self::LayerCount { got, max } => {
                write!(f, "the model has {got} layers; a network has 1 to {max}")
            }
            Self::Order { layer } => write!(
                f,
                "{} of the model is an activation that does not stand between a layer with weights and another; every activation does",
                Place::Layer(layer)
            ),
            Self::Dimension {
                place,
                dimension,
                got,
                max,
            } => write!(
                f,
                "the model's {place} has {got} {dimension}; it may have 1 to {max}"
            ),
            Self::Padding {
                layer,
                side,
                got,
                max,
            } => write!(
                f,
                "{} of the model has {got} {side}; its kernel allows for up to {max}",
                Place::Layer(layer)
            ),
            Self::WeightBytes {
                layer,
                expected,
                got,
            } => write!(
                f,
                "{} of the model has {got} bytes of weights and its shapes ask for {expected}; write it again",
                Place::Layer(layer)
            ),
            Self::MultiplierCount {
                layer,
                expected,
                got,
            } => write!(
                f,
                "{} of the model has {got} multipliers for {expected} rows of weights; give one per row, or none",
                Place::Layer(layer)
            ),
            Self::Multiplier { layer, index } => write!(
                f,
                "multiplier {index} of the model's {} is 0; it must be 1 to 255",
                Place::Layer(layer)
            ),
            Self::FloatBytes {
                place,
                kind,
                expected,
                got,
            } => write!(
                f,
                "the {kind} of the model's {place} take {got} bytes and its shapes ask for {expected}; write it again"
            ),
            Self::NotFinite { place, kind, index } => write!(
                f,
                "number {index} of the {kind} of the model's {place} is not finite; train the model again"
            ),
            Self::Deviation { index, got } => write!(
                f,
                "the standard deviation of feature {index} is {got}; leave out a feature that does not vary"
            ),
            Self::Weight {
                layer,
                index,
                got,
                max,
            } => write!(
                f,
                "weight {index} of the model's {} is {got}; quantize to -{max}..{max}",
                Place::Layer(layer)
            ),
            Self::Scale { layer, got } => write!(
                f,
                "the weight scale of the model's {} is {got}; it must be finite and positive",
                Place::Layer(layer)
            ),
            Self::Degree {
                layer,
                got,
                leading_zero,
            } => {
                let zero = if leading_zero {
                    " and a leading coefficient of zero"
                } else {
                    ""
                };
                write!(
                    f,
                    "the activation in {} of the model has degree {got}{zero}; it may have 2 to {MAX_DEGREE}",
                    Place::Layer(layer)
                )
            }
            Self::Range { layer, got } => write!(
                f,
                "the range of the model's {} is {got}; it must be finite and not negative",
                Place::Layer(layer)
            ),
            Self::OutputLength { needed, got } => write!(
                f,
                "writing the model takes {needed} bytes and the output has {got}; give a longer one"
            ),
            Self::Sample { expected, got } => write!(
                f,
                "the sample has {got} values and the model takes {expected}; give as many"
            ),
            Self::SampleKind { pixels: true } => {
                f.write_str("the model takes the pixels of an image; give no features")
            }
            Self::SampleKind { pixels: false } => {
                f.write_str("the model takes features; give no image")
            }
            Self::Workspace { needed, got } => write!(
                f,
                "plain evaluation takes memory for {needed} values and there is some for {got}; give more"
            ),
            Self::Logits { expected, got } => write!(
                f,
                "the output has room for {got} logits and the model gives {expected}; give exactly as many"
            ),
        }
    }
}

impl core::error::Error for ModelError {}
