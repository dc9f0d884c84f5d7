//! The network that the plan of today serves, as a view of a model.

use super::Model;
use super::layer::{Input, Layer, LayerView, Linear};

/// The largest values that the network produced over its training images. The
/// plan derives scales and headroom from them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranges {
    /// Largest `|x1_j|`, the value that is squared.
    pub preactivation: f32,
    /// Largest `h_j`, the square.
    pub square: f32,
    /// Largest `|logit_k|`.
    pub logit: f32,
}

/// A network for images of two dense layers with a square between them:
///
/// ```text
/// x1_j    = w1_scale * sum_i w1[j][i] * p_i / 255 + b1[j]
/// h_j     = x1_j^2
/// logit_k = w2_scale * sum_j w2[k][j] * h_j + b2[k]
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TwoLayer<'a> {
    name: &'a str,
    crc: u32,
    inputs: usize,
    first: Linear<'a>,
    second: Linear<'a>,
    ranges: Ranges,
}

impl<'a> Model<'a> {
    /// The same network as two dense layers with a square between them; `None`
    /// for any other.
    #[must_use]
    pub fn two_layer(&self) -> Option<TwoLayer<'a>> {
        let (Input::Image(input), 3) = (self.input, self.count) else {
            return None;
        };
        let mut layers = self.layers().map(|LayerView { layer, .. }| layer);
        let (first, preactivation) = dense(layers.next()?)?;
        let square = layers.next()?;
        if !square.is_square() {
            return None;
        }
        let (second, logit) = dense(layers.next()?)?;
        Some(TwoLayer {
            name: self.name,
            crc: self.crc,
            inputs: input.values(),
            first,
            second,
            ranges: Ranges {
                preactivation,
                square: square.range(),
                logit,
            },
        })
    }
}

const fn dense(layer: Layer<'_>) -> Option<(Linear<'_>, f32)> {
    match layer {
        Layer::Dense { linear, range, .. } => Some((linear, range)),
        _ => None,
    }
}

impl<'a> TwoLayer<'a> {
    /// Name of the model.
    #[must_use]
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Checksum of the model.
    #[must_use]
    pub const fn crc(&self) -> u32 {
        self.crc
    }

    /// Pixels of an image.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Units of the hidden layer.
    #[must_use]
    pub const fn hidden(&self) -> usize {
        self.first.biases.len()
    }

    /// Classes.
    #[must_use]
    pub const fn classes(&self) -> usize {
        self.second.biases.len()
    }

    /// Real value of a first-layer weight of 1.
    #[must_use]
    pub const fn w1_scale(&self) -> f32 {
        self.first.scale
    }

    /// Real value of a second-layer weight of 1.
    #[must_use]
    pub const fn w2_scale(&self) -> f32 {
        self.second.scale
    }

    /// What was seen in training.
    #[must_use]
    pub const fn ranges(&self) -> Ranges {
        self.ranges
    }

    /// First-layer weight from `input` to `unit`; `None` outside the layer.
    #[must_use]
    pub fn w1(&self, unit: usize, input: usize) -> Option<i8> {
        self.first.weight(self.inputs, unit, input)
    }

    /// Second-layer weight from `unit` to `class`; `None` outside the layer.
    #[must_use]
    pub fn w2(&self, class: usize, unit: usize) -> Option<i8> {
        self.second.weight(self.hidden(), class, unit)
    }

    /// All first-layer weights of a hidden unit; `None` if there is no such
    /// unit.
    #[must_use]
    pub fn w1_row(&self, unit: usize) -> Option<impl ExactSizeIterator<Item = i8> + Clone + 'a> {
        self.first.row(self.inputs, unit)
    }

    /// All second-layer weights of a class; `None` if there is no such class.
    #[must_use]
    pub fn w2_row(&self, class: usize) -> Option<impl ExactSizeIterator<Item = i8> + Clone + 'a> {
        self.second.row(self.hidden(), class)
    }

    /// Bias of a hidden unit; `None` if there is no such unit.
    #[must_use]
    pub fn b1(&self, unit: usize) -> Option<f32> {
        self.first.biases.get(unit)
    }

    /// Bias of a class; `None` if there is no such class.
    #[must_use]
    pub fn b2(&self, class: usize) -> Option<f32> {
        self.second.biases.get(class)
    }
}
