//! Quantized networks and their file.
//!
//! # The network
//!
//! A sequence of layers ([`Layer`]): convolutions and dense layers with symmetric
//! integer weights of up to 8 bits (-127..=127) or up to 16, a scale per layer, which
//! a row may have a multiple of (weights rounded per channel), and `f32` biases; and
//! activations between them, each one polynomial for its whole layer. Every
//! layer carries the largest magnitude that its results had over the images of
//! training, from which a plan derives scales and headroom.
//!
//! An activation `a x^2 + b x + c` with `a != 0` between two layers with weights
//! is a plain square exactly, by completing it:
//!
//! ```text
//! a x^2 + b x + c = a (x + b/2a)^2 + (c - b^2/4a)
//! ```
//!
//! so `b/2a` goes into every bias before it, `|a|` into the scale of the weights
//! after it and its sign into these weights, and `c - b^2/4a` times their sum
//! (with the scale and weights as they were before) into the biases after it.
//! Training and import do this, and an evaluator sees the square `[0, 0, 1]`; the
//! fold costs no precision, as no weight is quantized again.
//!
//! A convolution may surround its input with zeros ([`Padding`]). Those behind an
//! activation are zeros of its results: `c - b^2/4a` cannot go into biases that
//! padded windows share with others, so where it is not 0 the activation stays as
//! it is.
//!
//! # The file, `.hemodel` version 4
//!
//! All integers are little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`FILE_VERSION`] |
//! | 4 | length of the body |
//! | body | postcard: name (bytes), [`Input`], number of layers (`u8`), and so many of [`Layer`] |
//! | 4 | CRC-32 (ISO-HDLC, the one of zip) of everything before it |
//!
//! Weights are one or two bytes each ([`Integers`]), row after row; rows of `f32`
//! are bytes too. A body whose lengths or dimensions are not in their shortest form is
//! refused, so that what it says has one encoding. A [`Model`] borrows
//! from the bytes, which may lie in flash at any alignment, and upholds
//! everything that [`ModelError`] lists: whoever holds one need not check it
//! again. Version 2 had no padding and version 3 no multipliers: both are refused.
//!
//! There is no other way to a [`Model`] than [`Model::parse`], and its layers are decoded as
//! they are walked over, so a board keeps a few pointers instead of a list.
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

mod check;
mod clear;
mod error;
mod format;
mod layer;
#[cfg(test)]
mod tests;

pub use clear::Sample;
pub use error::{Dimension, FloatKind, ModelError, Place, Side};
pub use format::{CRC_BYTES, HEADER_BYTES, ModelParts};
pub use layer::{
    Floats, Input, Integers, Kernel, Layer, LayerView, Linear, Overlap, Padding, Shape,
};

/// First bytes of a model file. The newline and the byte above 127 reveal a
/// file that went through a text conversion.
pub const MAGIC: [u8; 8] = *b"\x89hemodl\n";

/// Version of the file format.
pub const FILE_VERSION: u32 = 4;

/// Most layers of a network.
pub const MAX_LAYERS: usize = 16;

/// Most values that enter or leave a layer.
pub const MAX_VALUES: usize = 16384;

/// Largest degree of an activation polynomial.
pub const MAX_DEGREE: usize = 15;

/// Longest name in bytes.
pub const MAX_NAME_BYTES: usize = 32;

// A first layer's sum over pixels of weights of a byte is exact in `i32` for every network
// within the limits; of wider ones in `i64`.
const _: () = assert!(MAX_VALUES * 127 * 255 <= i32::MAX as usize);

/// A checked network, borrowed from the file that holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model<'a> {
    file: &'a [u8],
    name: &'a str,
    input: Input<'a>,
    /// So many layers, encoded.
    layers: &'a [u8],
    count: usize,
    outputs: usize,
    /// Most values between two layers.
    largest: usize,
    crc: u32,
}

impl<'a> Model<'a> {
    /// The file.
    #[must_use]
    pub const fn file(&self) -> &'a [u8] {
        self.file
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

    /// What it takes.
    #[must_use]
    pub const fn input(&self) -> Input<'a> {
        self.input
    }

    /// Number of values that it takes.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.input.shape().values()
    }

    /// Number of logits: one per class, or a single one whose sign tells two
    /// classes apart.
    #[must_use]
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// Number of layers, activations included.
    #[must_use]
    pub const fn layer_count(&self) -> usize {
        self.count
    }

    /// The layers in order, each with the shapes around it.
    pub fn layers(&self) -> impl Iterator<Item = LayerView<'a>> + Clone + use<'a> {
        let mut rest = self.layers;
        let mut input = self.input.shape();
        (0..self.count).map_while(move |index| {
            let layer = format::next_layer(&mut rest)?;
            let output = layer.output(index, input).ok()?;
            let view = LayerView {
                index,
                layer,
                input,
                output,
            };
            input = output;
            Some(view)
        })
    }
}
