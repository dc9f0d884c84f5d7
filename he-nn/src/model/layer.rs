//! What a network is made of.

use serde::{Deserialize, Serialize};

use super::error::{Dimension, ModelError, Place, Side};

/// Bytes of an `f32`.
pub(super) const FLOAT_BYTES: usize = 4;

/// A row of `f32` in little-endian bytes, at any alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Floats<'a>(#[serde(borrow)] &'a [u8]);

impl<'a> Floats<'a> {
    /// A row of `bytes.len() / 4`; what is left over counts as an error where
    /// a model is made of it.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.0.as_chunks::<FLOAT_BYTES>().0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// One of them; `None` beyond the last.
    #[must_use]
    pub fn get(self, index: usize) -> Option<f32> {
        let bytes = self.0.as_chunks::<FLOAT_BYTES>().0.get(index)?;
        Some(f32::from_le_bytes(*bytes))
    }

    /// All of them in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = f32> + ExactSizeIterator + Clone + 'a {
        let chunks = self.0.as_chunks::<FLOAT_BYTES>().0;
        chunks.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }
}

/// The shape of what enters or leaves a layer: channel by channel, row by row.
/// Values without places, as features or a dense layer's outputs, are channels
/// of one value each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Channels.
    pub channels: u16,
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

impl Shape {
    /// So many values without places.
    #[must_use]
    pub const fn flat(values: u16) -> Self {
        Self {
            channels: values,
            height: 1,
            width: 1,
        }
    }

    /// Number of values.
    #[must_use]
    pub const fn values(self) -> usize {
        (self.channels as usize)
            .saturating_mul(self.height as usize)
            .saturating_mul(self.width as usize)
    }
}

/// What a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input<'a> {
    /// Pixels `p` from 0 to 255, of which the first layer sees `p / 255`.
    Image(Shape),
    /// Real values `v`, of which the first layer sees
    /// `(v - mean) / deviation`, each with its own mean and deviation.
    Features {
        /// Means.
        #[serde(borrow)]
        means: Floats<'a>,
        /// Standard deviations, positive.
        deviations: Floats<'a>,
    },
}

impl Input<'_> {
    /// Shape of what the first layer sees.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match self {
            Self::Image(shape) => *shape,
            // A checked model's fit.
            Self::Features { means, .. } => {
                Shape::flat(u16::try_from(means.len()).unwrap_or(u16::MAX))
            }
        }
    }
}

/// Integers that weights are rounded to, symmetric around 0: for every output (or output
/// channel) one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Integers<'a> {
    /// One byte each, two's complement, from -127 to 127: 8 bits or less.
    Bytes(#[serde(borrow)] &'a [u8]),
    /// Two bytes each, two's complement, little-endian, up to [`Self::MAX_HALF`] in magnitude:
    /// up to 16 bits.
    Halves(#[serde(borrow)] &'a [u8]),
}

impl<'a> Integers<'a> {
    /// The largest integer of 16 bits: two digits of 8 bits with a sign each, which is how
    /// batches multiply by it.
    pub const MAX_HALF: i16 = 127 * 256 + 127;

    /// The largest integer of the width.
    #[must_use]
    pub const fn max(self) -> i16 {
        match self {
            Self::Bytes(_) => 127,
            Self::Halves(_) => Self::MAX_HALF,
        }
    }

    /// Bytes of one.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Bytes(_) => 1,
            Self::Halves(_) => 2,
        }
    }

    /// All of them, as they lie in the file.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) | Self::Halves(bytes) => bytes,
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Halves(bytes) => bytes.as_chunks::<2>().0.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// One of them; `None` beyond the last.
    #[must_use]
    #[inline(always)]
    pub fn get(self, index: usize) -> Option<i16> {
        match self {
            Self::Bytes(bytes) => bytes.get(index).map(|w| w.cast_signed().into()),
            Self::Halves(bytes) => bytes
                .as_chunks()
                .0
                .get(index)
                .map(|w| i16::from_le_bytes(*w)),
        }
    }

    /// Row `output` of rows of `columns`; `None` if there is no such row.
    #[must_use]
    pub fn row(self, columns: usize, output: usize) -> Option<Self> {
        let len = columns.checked_mul(self.width())?.max(1);
        let bytes = self.bytes().chunks_exact(len).nth(output)?;
        Some(match self {
            Self::Bytes(_) => Self::Bytes(bytes),
            Self::Halves(_) => Self::Halves(bytes),
        })
    }

    /// All of them in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = i16> + Clone + use<'a> {
        // Each index is below the count.
        (0..self.len()).map(move |index| self.get(index).unwrap_or_default())
    }
}

/// Weights and biases of a layer: `scale * multiplier * sum w x + bias`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Linear<'a> {
    /// Real value of a weight of 1 in a row whose multiplier is 1.
    pub scale: f32,
    /// Of every row, from 1 to 255, what its scale is a multiple of [`Self::scale`] by:
    /// weights that were rounded per channel. Empty where all are 1: per tensor.
    #[serde(borrow)]
    pub multipliers: &'a [u8],
    /// Weights: for every output (or output channel) one row.
    #[serde(borrow)]
    pub weights: Integers<'a>,
    /// One bias per output (or output channel).
    pub biases: Floats<'a>,
}

impl<'a> Linear<'a> {
    /// Integers of one output of a layer with `columns` weights per output;
    /// `None` if there is no such output.
    #[must_use]
    pub fn row(
        &self,
        columns: usize,
        output: usize,
    ) -> Option<impl ExactSizeIterator<Item = i16> + Clone + use<'a>> {
        Some(self.weights.row(columns, output)?.iter())
    }

    /// One integer; `None` outside the layer.
    #[must_use]
    pub fn weight(&self, columns: usize, output: usize, input: usize) -> Option<i16> {
        if input >= columns {
            return None;
        }
        let index = output.checked_mul(columns)?.checked_add(input)?;
        self.weights.get(index)
    }

    /// What the scale of a row is a multiple of [`Self::scale`] by.
    #[must_use]
    pub fn multiplier(&self, output: usize) -> u8 {
        self.multipliers.get(output).map_or(1, |&factor| factor)
    }

    /// Real value of a weight of 1 in a row.
    #[must_use]
    pub fn row_scale(&self, output: usize) -> f64 {
        f64::from(self.scale) * f64::from(self.multiplier(output))
    }

    /// What all weights stand for, row after row, of `columns` each.
    pub fn values(&self, columns: usize) -> impl Iterator<Item = f64> + Clone + use<'a> {
        let linear = *self;
        let weights = self.weights.iter().enumerate();
        weights.map(move |(index, weight)| {
            let row = index.checked_div(columns).unwrap_or(0);
            linear.row_scale(row) * f64::from(weight)
        })
    }
}

/// Rows and columns of zeros around every channel of what a convolution takes.
/// Fewer on a side than the kernel has along its axis, so that every window
/// meets the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Padding {
    /// Rows above.
    pub top: u16,
    /// Rows below.
    pub bottom: u16,
    /// Columns to the left.
    pub left: u16,
    /// Columns to the right.
    pub right: u16,
}

impl Padding {
    /// None, `VALID` in TensorFlow and ONNX.
    pub const NONE: Self = Self {
        top: 0,
        bottom: 0,
        left: 0,
        right: 0,
    };

    /// As much as gives `ceil(side / stride)` windows along each side of `input`;
    /// where it is odd, the smaller half comes first: `SAME` in TensorFlow,
    /// `SAME_UPPER` in ONNX. 5x5 with stride 2 on 28x28 takes one row above and two
    /// below.
    #[must_use]
    pub const fn same(input: Shape, height: u16, width: u16, stride: u16) -> Self {
        const fn along(side: u16, of_kernel: u16, stride: u16) -> (u16, u16) {
            // Where the last window begins, in front of the padding.
            let last = match side.saturating_sub(1).checked_div(stride) {
                Some(windows) => windows.saturating_mul(stride),
                None => 0,
            };
            let total = last.saturating_add(of_kernel).saturating_sub(side);
            (total / 2, total.div_ceil(2))
        }
        let (top, bottom) = along(input.height, height, stride);
        let (left, right) = along(input.width, width, stride);
        Self {
            top,
            bottom,
            left,
            right,
        }
    }

    /// With the sides exchanged, top for bottom and left for right: `SAME_UPPER`
    /// becomes `SAME_LOWER`.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self {
            top: self.bottom,
            bottom: self.top,
            left: self.right,
            right: self.left,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_none(self) -> bool {
        matches!(self, Self::NONE)
    }
}

/// Kernels of a convolution, with the same stride along both axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Channels of the result, a kernel each.
    pub out_channels: u16,
    /// Rows of a kernel.
    pub height: u16,
    /// Columns of a kernel.
    pub width: u16,
    /// Places from one window to the next.
    pub stride: u16,
    /// Zeros around the input. A kernel is no larger than the input without them.
    pub padding: Padding,
}

/// What a window has in common with the input along one axis, see
/// [`Kernel::rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Places of the kernel before it, which lie in the padding.
    pub skipped: usize,
    /// First place of the input.
    pub start: usize,
    /// Places.
    pub len: usize,
}

impl Overlap {
    /// Of the window that is `place`-th along an axis with `side` places and `before`
    /// of padding in front.
    fn new(place: usize, stride: u16, of_kernel: u16, side: u16, before: u16) -> Self {
        let first = place.saturating_mul(usize::from(stride));
        let before = usize::from(before);
        let skipped = before.saturating_sub(first);
        let start = first.saturating_sub(before);
        let of_kernel = usize::from(of_kernel).saturating_sub(skipped);
        Self {
            skipped,
            start,
            len: of_kernel.min(usize::from(side).saturating_sub(start)),
        }
    }

    /// The place of the input under place `offset` of the kernel; `None` in the
    /// padding, and beyond the kernel.
    #[must_use]
    pub fn source(self, offset: usize) -> Option<usize> {
        let within = offset.checked_sub(self.skipped)?;
        if within >= self.len {
            return None;
        }
        self.start.checked_add(within)
    }

    /// The place of the kernel over place `source` of the input; `None` outside the
    /// window.
    #[must_use]
    pub fn offset(self, source: usize) -> Option<usize> {
        let within = source.checked_sub(self.start)?;
        if within >= self.len {
            return None;
        }
        self.skipped.checked_add(within)
    }
}

impl Kernel {
    /// Rows of `input` under the window in row `place` of the result.
    #[must_use]
    pub fn rows(&self, input: Shape, place: usize) -> Overlap {
        let before = self.padding.top;
        Overlap::new(place, self.stride, self.height, input.height, before)
    }

    /// Columns of `input` under the window in column `place` of the result.
    #[must_use]
    pub fn columns(&self, input: Shape, place: usize) -> Overlap {
        let before = self.padding.left;
        Overlap::new(place, self.stride, self.width, input.width, before)
    }

    /// Shape of the result for a sound kernel on this input, see
    /// [`ModelError::Dimension`] and [`ModelError::Padding`].
    #[must_use]
    pub const fn output(&self, input: Shape) -> Shape {
        const fn places(side: u16, padding: [u16; 2], of_kernel: u16, stride: u16) -> u16 {
            let padded = side.saturating_add(padding[0]).saturating_add(padding[1]);
            let windows = match padded.saturating_sub(of_kernel).checked_div(stride) {
                Some(windows) => windows,
                None => 0,
            };
            windows.saturating_add(1)
        }
        let Padding {
            top,
            bottom,
            left,
            right,
        } = self.padding;
        Shape {
            channels: self.out_channels,
            height: places(input.height, [top, bottom], self.height, self.stride),
            width: places(input.width, [left, right], self.width, self.stride),
        }
    }
}

/// A layer. `range` is the largest magnitude of its results over the images of
/// training: that of a pre-activation, an activation or, for the last layer, a
/// logit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Layer<'a> {
    /// Cross-correlation with kernels over all input channels; a row of weights
    /// is one kernel: input channel by input channel, row by row.
    Conv2d {
        /// Shape of the kernels.
        kernel: Kernel,
        /// Weights and biases, one row and one bias per output channel.
        #[serde(borrow)]
        linear: Linear<'a>,
        /// Largest magnitude of a result in training.
        range: f32,
    },
    /// Every output is a weighted sum of all inputs, which are taken in order.
    Dense {
        /// Outputs.
        outputs: u16,
        /// Weights and biases, one row and one bias per output.
        linear: Linear<'a>,
        /// Largest magnitude of a result in training.
        range: f32,
    },
    /// `c0 + c1 x + .. + cd x^d` of every value, with one polynomial for the
    /// layer and `d` at least 2. `[0, 0, 1]` is the square.
    Polynomial {
        /// `c0` to `cd`, the last not zero.
        coefficients: Floats<'a>,
        /// Largest magnitude of a result in training.
        range: f32,
    },
    /// `max(x, 0)`: for comparison in the clear; nothing evaluates it encrypted.
    Relu {
        /// Largest result in training.
        range: f32,
    },
}

impl<'a> Layer<'a> {
    /// Whether it is the activation `x^2`.
    #[must_use]
    pub fn is_square(&self) -> bool {
        matches!(self, Self::Polynomial { coefficients, .. } if coefficients.iter().eq([0.0, 0.0, 1.0]))
    }

    /// Whether it is an activation polynomial that is no square.
    #[must_use]
    pub fn is_polynomial(&self) -> bool {
        matches!(self, Self::Polynomial { .. }) && !self.is_square()
    }

    /// Largest magnitude of a result in training.
    #[must_use]
    pub const fn range(&self) -> f32 {
        match *self {
            Self::Conv2d { range, .. }
            | Self::Dense { range, .. }
            | Self::Polynomial { range, .. }
            | Self::Relu { range } => range,
        }
    }

    /// The same layer with another range.
    #[must_use]
    pub const fn with_range(mut self, new: f32) -> Self {
        match &mut self {
            Self::Conv2d { range, .. }
            | Self::Dense { range, .. }
            | Self::Polynomial { range, .. }
            | Self::Relu { range } => *range = new,
        }
        self
    }

    /// Its weights and biases; `None` for an activation.
    #[must_use]
    pub const fn linear(&self) -> Option<&Linear<'a>> {
        match self {
            Self::Conv2d { linear, .. } | Self::Dense { linear, .. } => Some(linear),
            Self::Polynomial { .. } | Self::Relu { .. } => None,
        }
    }

    /// Weights of one output: what a row of [`Linear::weights`] has, 0 for an
    /// activation.
    #[must_use]
    pub const fn fan_in(&self, input: Shape) -> usize {
        match self {
            Self::Conv2d { kernel, .. } => (input.channels as usize)
                .saturating_mul(kernel.height as usize)
                .saturating_mul(kernel.width as usize),
            Self::Dense { .. } => input.values(),
            Self::Polynomial { .. } | Self::Relu { .. } => 0,
        }
    }

    /// Shape of its results for an input of this shape.
    ///
    /// # Errors
    ///
    /// Of layer `index`, [`ModelError::Dimension`] for a kernel that is larger than
    /// the input or a dimension that is zero, [`ModelError::Padding`] for padding
    /// that is not smaller than the kernel.
    pub(super) fn output(&self, index: usize, input: Shape) -> Result<Shape, ModelError> {
        let check = |dimension, got: u16, max: u16| {
            if (1..=max).contains(&got) {
                return Ok(());
            }
            Err(ModelError::Dimension {
                place: Place::Layer(index),
                dimension,
                got: usize::from(got),
                max: usize::from(max),
            })
        };
        match *self {
            Self::Conv2d { kernel, .. } => {
                let longer = input.height.max(input.width);
                check(Dimension::Channels, kernel.out_channels, u16::MAX)?;
                check(Dimension::KernelHeight, kernel.height, input.height)?;
                check(Dimension::KernelWidth, kernel.width, input.width)?;
                check(Dimension::Stride, kernel.stride, longer)?;
                let Padding {
                    top,
                    bottom,
                    left,
                    right,
                } = kernel.padding;
                for (side, got, of_kernel) in [
                    (Side::Top, top, kernel.height),
                    (Side::Bottom, bottom, kernel.height),
                    (Side::Left, left, kernel.width),
                    (Side::Right, right, kernel.width),
                ] {
                    if got >= of_kernel {
                        return Err(ModelError::Padding {
                            layer: index,
                            side,
                            got: usize::from(got),
                            max: usize::from(of_kernel).saturating_sub(1),
                        });
                    }
                }
                Ok(kernel.output(input))
            }
            Self::Dense { outputs, .. } => {
                check(Dimension::Outputs, outputs, u16::MAX)?;
                Ok(Shape::flat(outputs))
            }
            Self::Polynomial { .. } | Self::Relu { .. } => Ok(input),
        }
    }
}

/// A layer in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerView<'a> {
    /// Its place in the network, from 0.
    pub index: usize,
    /// The layer.
    pub layer: Layer<'a>,
    /// Shape of what it takes.
    pub input: Shape,
    /// Shape of what it gives.
    pub output: Shape,
}
