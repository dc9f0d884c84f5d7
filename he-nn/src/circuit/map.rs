//! Layers with weights as linear maps, the way a circuit sees them: one map
//! between two activations, whatever layers it is made of.

use super::CircuitError;
use crate::model::{Kernel, Layer, LayerView, Shape};

/// Most layers with weights between two activations.
pub const MAX_MERGED: usize = 4;

/// Layers with weights that follow each other, as one map
/// `y = W x + b`: a convolution and the dense layer behind it are one matrix.
#[derive(Clone, Debug)]
pub struct LinearMap<'m> {
    layers: heapless::Vec<LayerView<'m>, MAX_MERGED>,
}

/// What a lane of the first layer takes from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taps {
    /// Every output takes every input.
    Dense {
        /// Inputs.
        inputs: usize,
    },
    /// An output takes the inputs under its window, one per kernel offset, and none
    /// where the offset lies in the padding.
    Window {
        /// Input of the convolution.
        input: Shape,
        /// Its result.
        output: Shape,
        /// Its kernels.
        kernel: Kernel,
    },
}

impl Taps {
    /// How many inputs an output takes, those in the padding included.
    #[must_use]
    pub const fn count(&self) -> usize {
        match *self {
            Self::Dense { inputs } => inputs,
            Self::Window { input, kernel, .. } => {
                input.channels as usize * kernel.height as usize * kernel.width as usize
            }
        }
    }

    /// The input that `output` takes as its `tap`-th; `None` in the padding, and beyond
    /// the last.
    #[must_use]
    pub fn source(&self, tap: usize, output: usize) -> Option<usize> {
        if tap >= self.count() {
            return None;
        }
        match *self {
            Self::Dense { .. } => Some(tap),
            Self::Window {
                input,
                output: shape,
                kernel,
            } => {
                if output >= shape.values() {
                    return None;
                }
                let (columns, rows) = (usize::from(kernel.width), usize::from(kernel.height));
                let (kx, rest) = (tap.checked_rem(columns)?, tap.checked_div(columns)?);
                let (ky, channel) = (rest.checked_rem(rows)?, rest.checked_div(rows)?);
                let (width, height) = (usize::from(shape.width), usize::from(shape.height));
                let x = output.checked_rem(width)?;
                let y = output.checked_div(width)?.checked_rem(height)?;
                let row = kernel.rows(input, y).source(ky)?;
                let column = kernel.columns(input, x).source(kx)?;
                let row = channel * usize::from(input.height) + row;
                Some(row * usize::from(input.width) + column)
            }
        }
    }

    /// Which tap of `output` an input is: what [`Self::source`] is turned around.
    #[must_use]
    pub fn tap(&self, input: usize, output: usize) -> Option<usize> {
        match *self {
            Self::Dense { inputs } => (input < inputs).then_some(input),
            Self::Window {
                input: shape,
                output: places,
                kernel,
            } => {
                let (width, height) = (usize::from(shape.width), usize::from(shape.height));
                let (ix, rest) = (input.checked_rem(width)?, input.checked_div(width)?);
                let (iy, channel) = (rest.checked_rem(height)?, rest.checked_div(height)?);
                let (columns, rows) = (usize::from(places.width), usize::from(places.height));
                let x = output.checked_rem(columns)?;
                let y = output.checked_div(columns)?.checked_rem(rows)?;
                if channel >= usize::from(shape.channels) {
                    return None;
                }
                let kx = kernel.columns(shape, x).offset(ix)?;
                let ky = kernel.rows(shape, y).offset(iy)?;
                let (columns, rows) = (usize::from(kernel.width), usize::from(kernel.height));
                Some((channel * rows + ky) * columns + kx)
            }
        }
    }
}

impl<'m> LinearMap<'m> {
    /// Of one layer; `None` for an activation.
    #[must_use]
    pub fn new(layer: LayerView<'m>) -> Option<Self> {
        layer.layer.linear()?;
        let mut layers = heapless::Vec::new();
        layers.push(layer).ok()?;
        Some(Self { layers })
    }

    /// Puts another layer behind it.
    ///
    /// # Errors
    /// [`CircuitError::Merged`] where there are [`MAX_MERGED`] already.
    pub fn then(&mut self, layer: LayerView<'m>) -> Result<(), CircuitError> {
        self.layers.push(layer).map_err(|_| CircuitError::Merged {
            layer: layer.index,
            max: MAX_MERGED,
        })
    }

    /// Index of its first and its last layer in the network.
    #[must_use]
    pub fn layers(&self) -> (usize, usize) {
        let index = |layer: Option<&LayerView<'_>>| layer.map_or(0, |layer| layer.index);
        (index(self.layers.first()), index(self.layers.last()))
    }

    /// Values that it takes.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |l| l.input.values())
    }

    /// Values that it gives.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |l| l.output.values())
    }

    /// Largest magnitude of its results in training.
    #[must_use]
    pub fn range(&self) -> f64 {
        self.layers
            .last()
            .map_or(0.0, |l| f64::from(l.layer.range()))
    }

    /// What an output takes.
    #[must_use]
    pub fn taps(&self) -> Taps {
        match self.layers.as_slice() {
            [
                LayerView {
                    layer: Layer::Conv2d { kernel, .. },
                    input,
                    output,
                    ..
                },
            ] => Taps::Window {
                input: *input,
                output: *output,
                kernel: *kernel,
            },
            _ => Taps::Dense {
                inputs: self.inputs(),
            },
        }
    }

    /// The one layer that it is made of.
    #[must_use]
    pub fn single(&self) -> Option<&LayerView<'m>> {
        match self.layers.as_slice() {
            [layer] => Some(layer),
            _ => None,
        }
    }

    /// A weight of a map of one layer; `None` outside of it, and for one of several.
    #[must_use]
    pub fn weight(&self, output: usize, input: usize) -> Option<f64> {
        let view = self.single()?;
        let linear = view.layer.linear()?;
        let columns = view.layer.fan_in(view.input);
        let tap = self.taps().tap(input, output)?;
        let weight = linear.weight(columns, channel(view, output), tap)?;
        Some(f64::from(linear.scale) * f64::from(weight))
    }

    /// A bias of a map of one layer.
    #[must_use]
    pub fn bias(&self, output: usize) -> Option<f32> {
        let view = self.single()?;
        view.layer.linear()?.biases.get(channel(view, output))
    }

    /// Numbers of scratch that [`Self::row`] takes.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        let largest = self.layers.iter().map(|l| l.input.values()).max();
        2 * largest.unwrap_or(0)
    }

    /// Writes the weights of `output` and gives its bias. `row` has a number an
    /// input.
    ///
    /// # Errors
    /// [`CircuitError::Buffer`] where `row` or `scratch` is too short.
    pub fn row(
        &self,
        output: usize,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<f64, CircuitError> {
        let (inputs, needed) = (self.inputs(), self.scratch_len());
        let short = CircuitError::Buffer {
            needed: inputs.max(needed),
            got: row.len().min(scratch.len()),
        };
        let row = row.get_mut(..inputs).ok_or(short)?;
        let scratch = scratch.get_mut(..needed).ok_or(short)?;
        let (mut values, mut next) = scratch.split_at_mut_checked(needed >> 1).ok_or(short)?;
        let mut reversed = self.layers.iter().rev();
        let Some(last) = reversed.next() else {
            return Ok(0.0);
        };
        values.fill(0.0);
        let mut bias = add_row(last, output, 1.0, values);
        for layer in reversed {
            next.fill(0.0);
            for (middle, &factor) in values.iter().take(layer.output.values()).enumerate() {
                if factor != 0.0 {
                    bias += add_row(layer, middle, factor, next);
                }
            }
            (values, next) = (next, values);
        }
        for (weight, &value) in row.iter_mut().zip(values.iter()) {
            *weight = value;
        }
        Ok(bias)
    }
}

/// The row of weights that an output takes.
fn channel(view: &LayerView<'_>, output: usize) -> usize {
    match view.layer {
        Layer::Conv2d { .. } => {
            let places = usize::from(view.output.height) * usize::from(view.output.width);
            output.checked_div(places).unwrap_or(0)
        }
        _ => output,
    }
}

/// Adds `factor` times the weights of one output of a layer; gives `factor`
/// times its bias.
fn add_row(view: &LayerView<'_>, output: usize, factor: f64, row: &mut [f64]) -> f64 {
    let Some(linear) = view.layer.linear() else {
        return 0.0;
    };
    let columns = view.layer.fan_in(view.input);
    let taps = match view.layer {
        Layer::Conv2d { kernel, .. } => Taps::Window {
            input: view.input,
            output: view.output,
            kernel,
        },
        _ => Taps::Dense { inputs: columns },
    };
    let channel = channel(view, output);
    let scale = factor * f64::from(linear.scale);
    if let Some(weights) = linear.row(columns, channel) {
        for (tap, weight) in weights.enumerate() {
            let target = taps.source(tap, output).and_then(|at| row.get_mut(at));
            if let Some(target) = target {
                *target += scale * f64::from(weight);
            }
        }
    }
    factor * linear.biases.get(channel).map_or(0.0, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Padding;

    #[test]
    fn taps_turned_around_are_sources() {
        let kernel = Kernel {
            out_channels: 3,
            height: 3,
            width: 2,
            stride: 2,
            padding: Padding::NONE,
        };
        let shape = |channels, height, width| Shape {
            channels,
            height,
            width,
        };
        let window = Taps::Window {
            input: shape(2, 7, 6),
            output: shape(3, 3, 3),
            kernel,
        };
        let padded = Taps::Window {
            input: shape(2, 7, 6),
            output: shape(3, 5, 4),
            kernel: Kernel {
                padding: Padding {
                    top: 2,
                    bottom: 2,
                    left: 1,
                    right: 1,
                },
                ..kernel
            },
        };
        let dense = Taps::Dense { inputs: 5 };
        for (taps, inputs, outputs) in [(window, 84, 27), (padded, 84, 60), (dense, 5, 4)] {
            let mut outside = 0;
            for output in 0..outputs {
                let mut found = 0;
                for input in 0..inputs {
                    if let Some(tap) = taps.tap(input, output) {
                        assert_eq!(taps.source(tap, output), Some(input));
                        found += 1;
                    }
                }
                let sources = (0..taps.count()).filter_map(|tap| taps.source(tap, output));
                assert_eq!(found, sources.count());
                assert!(found > 0);
                outside += taps.count() - found;
                assert_eq!(taps.tap(inputs, output), None);
            }
            // Windows of 3 x 2 begin at rows -2, 0, .. 6 of seven, with 1, 3, 3, 3 and 1
            // of them inside, and at columns -1, 1, .. 5 of six, with 1, 2, 2 and 1;
            // for two channels of input and three of output.
            let expected = if taps == padded {
                6 * (5 * 4 * 6 - 11 * 6)
            } else {
                0
            };
            assert_eq!(outside, expected);
        }
    }
}
