//! Layers with weights as linear maps, the way a plan sees them: one map
//! between two activations, whatever layers it is made of.

use super::PlanError;
use crate::model::{Integers, Kernel, Layer, LayerView, Shape};
use he_core::ckks::encode::Real;

/// The precision in which weights are formed and encoded: single on a board, whose FPU
/// has no other, double on a host. A host that follows a board's plan takes single, so
/// that both have the same bits.
pub trait Precision: Real {
    /// A number of the model, exactly.
    fn from_f32(x: f32) -> Self;
}

impl Precision for f32 {
    fn from_f32(x: f32) -> Self {
        x
    }
}

impl Precision for f64 {
    fn from_f32(x: f32) -> Self {
        x.into()
    }
}

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
        match self {
            Self::Dense { .. } => Some(tap),
            Self::Window { .. } => self.window_source(tap, output),
        }
    }

    /// Apart, as a board's code asks in several places.
    #[inline(never)]
    fn window_source(&self, tap: usize, output: usize) -> Option<usize> {
        match *self {
            Self::Dense { .. } => None,
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
    /// [`PlanError::Merged`] where there are [`MAX_MERGED`] already.
    pub fn then(&mut self, layer: LayerView<'m>) -> Result<(), PlanError> {
        self.layers.push(layer).map_err(|_| PlanError::Merged {
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
            [layer] => taps(layer),
            _ => Taps::Dense {
                inputs: self.inputs(),
            },
        }
    }

    /// Its weights, to be looked up.
    #[must_use]
    pub fn weights<T: Precision, const MERGED: bool>(&self) -> WeightTable<'_, 'm, T, MERGED> {
        let (first, rest) = match self.layers.split_first() {
            Some((first, rest)) => (LayerTable::new(*first), rest),
            None => (None, &[][..]),
        };
        WeightTable { first, rest }
    }

    /// Terms of the sums that its weights are, all of them; 0 for one layer.
    #[must_use]
    pub fn terms(&self) -> usize {
        let [first, _, ..] = self.layers.as_slice() else {
            return 0;
        };
        let mut taken = 0;
        for input in 0..self.inputs() {
            for_each_taker(first, input, |_, _| taken += 1);
        }
        taken * self.outputs()
    }

    /// A bias, with those of the layers before it carried through; `MERGED` as for
    /// [`WeightTable`].
    #[must_use]
    pub fn bias<T: Precision, const MERGED: bool>(&self, output: usize) -> T {
        match self.layers.as_slice() {
            [only, ..] if !MERGED => layer_bias(only, output),
            layers => merged_bias(layers, output),
        }
    }

    /// Numbers of scratch that [`Self::row`] takes.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        let largest = self.layers.iter().map(|l| l.input.values()).max();
        2 * largest.unwrap_or(0)
    }

    /// Writes the weights of `output` and gives its bias. `row` has one number per
    /// input.
    ///
    /// # Errors
    /// [`PlanError::Buffer`] where `row` or `scratch` is too short.
    pub fn row(
        &self,
        output: usize,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<f64, PlanError> {
        let (inputs, needed) = (self.inputs(), self.scratch_len());
        let short = PlanError::Buffer {
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

/// The weights of a map, looked up one by one: what does not change from one to the
/// next is read once. `MERGED` says whether the map may be of several layers: a board
/// whose network has none such is spared the code.
#[derive(Debug)]
pub struct WeightTable<'t, 'm, T, const MERGED: bool = true> {
    first: Option<LayerTable<'t, T>>,
    rest: &'t [LayerView<'m>],
}

impl<T: Precision, const MERGED: bool> WeightTable<'_, '_, T, MERGED> {
    /// A weight; 0 where an output does not depend on an input. Of several layers
    /// it is summed over what lies between them, at each call.
    #[must_use]
    #[inline(always)]
    pub fn at(&self, output: usize, input: usize) -> T {
        match &self.first {
            None => T::ZERO,
            Some(first) if !MERGED || self.rest.is_empty() => first.at(output, input),
            Some(first) => merged_weight(first, self.rest, output, input),
        }
    }
}

/// The weights of one layer.
#[derive(Debug)]
struct LayerTable<'t, T> {
    view: LayerView<'t>,
    taps: Taps,
    /// Weights of an output.
    columns: usize,
    weights: Integers<'t>,
    multipliers: &'t [u8],
    scale: T,
}

impl<'t, T: Precision> LayerTable<'t, T> {
    fn new(view: LayerView<'t>) -> Option<Self> {
        let linear = view.layer.linear()?;
        Some(Self {
            taps: taps(&view),
            columns: view.layer.fan_in(view.input),
            weights: linear.weights,
            multipliers: linear.multipliers,
            scale: T::from_f32(linear.scale),
            view,
        })
    }

    #[inline(always)]
    fn at(&self, output: usize, input: usize) -> T {
        match self.taps {
            Taps::Dense { inputs } if input < inputs => self.weight(output * self.columns + input),
            Taps::Dense { .. } => T::ZERO,
            Taps::Window { .. } => self.under_window(output, input),
        }
    }

    /// Apart, as a board's code has the lookup in many places.
    #[inline(never)]
    fn under_window(&self, output: usize, input: usize) -> T {
        let tap = self.taps.tap(input, output);
        let row = channel(&self.view, output) * self.columns;
        tap.map_or(T::ZERO, |tap| self.weight(row + tap))
    }

    #[inline(always)]
    fn weight(&self, index: usize) -> T {
        match self.weights {
            Integers::Bytes(weights) if self.multipliers.is_empty() => {
                weights.get(index).map_or(T::ZERO, |weight| {
                    T::from_f32(weight.cast_signed().into()) * self.scale
                })
            }
            _ => self.scaled_weight(index),
        }
    }

    /// Of more than 8 bits, or of a row with a scale of its own. Apart, as a board's code has
    /// the lookup in many places.
    #[inline(never)]
    fn scaled_weight(&self, index: usize) -> T {
        let row = index.checked_div(self.columns).unwrap_or(0);
        let multiplier = self.multipliers.get(row).map_or(1, |&factor| factor);
        let weight = self.weights.get(index).unwrap_or(0);
        T::from_f32(weight.into()) * (T::from_f32(multiplier.into()) * self.scale)
    }
}

/// A weight of several layers as one: over the results of the first that take the
/// input.
fn merged_weight<T: Precision>(
    first: &LayerTable<'_, T>,
    rest: &[LayerView<'_>],
    output: usize,
    input: usize,
) -> T {
    let Some((next, rest)) = rest.split_first() else {
        return first.at(output, input);
    };
    let Some(next) = LayerTable::new(*next) else {
        return T::ZERO;
    };
    let mut sum = T::ZERO;
    for_each_taker(&first.view, input, |middle, weight| {
        // Two layers are the common case, and spared a call per term.
        let behind = match rest {
            [] => next.at(output, middle),
            _ => merged_weight(&next, rest, output, middle),
        };
        sum = sum + first.weight(weight) * behind;
    });
    sum
}

/// Calls `take` with every output of a layer that takes an input, and the index of the
/// weight by which it does. A place is divided once, not per output.
fn for_each_taker(view: &LayerView<'_>, input: usize, mut take: impl FnMut(usize, usize)) {
    if input >= view.input.values() {
        return;
    }
    let fan_in = view.layer.fan_in(view.input);
    let Layer::Conv2d { kernel, .. } = view.layer else {
        (0..view.output.values()).for_each(|output| take(output, output * fan_in + input));
        return;
    };
    let (width, height) = (
        usize::from(view.input.width),
        usize::from(view.input.height),
    );
    let (Some(x), Some(rest)) = (input.checked_rem(width), input.checked_div(width)) else {
        return;
    };
    let (Some(y), Some(plane)) = (rest.checked_rem(height), rest.checked_div(height)) else {
        return;
    };
    // Windows along an axis that have the place under them.
    let stride = usize::from(kernel.stride).max(1);
    let windows = |place: usize, before: u16, size: u16, count: u16| {
        let place = place + usize::from(before);
        let first = (place + 1)
            .saturating_sub(usize::from(size))
            .div_ceil(stride);
        first..(place / stride + 1).min(usize::from(count))
    };
    let (top, left) = (kernel.padding.top, kernel.padding.left);
    let (columns, rows) = (
        usize::from(view.output.width),
        usize::from(view.output.height),
    );
    let (kernel_height, kernel_width) = (usize::from(kernel.height), usize::from(kernel.width));
    // Of a window that has the place under it, the tap that takes it: both from the
    // first row and column of the padding.
    let (y_padded, x_padded) = (y + usize::from(top), x + usize::from(left));
    let down = windows(y, top, kernel.height, view.output.height);
    let across = windows(x, left, kernel.width, view.output.width);
    for channel in 0..usize::from(view.output.channels) {
        let weights = channel * fan_in + plane * kernel_height * kernel_width;
        for row in down.clone() {
            let outputs = (channel * rows + row) * columns;
            let taps = weights + y_padded.wrapping_sub(row * stride) * kernel_width;
            for column in across.clone() {
                let tap = taps + x_padded.wrapping_sub(column * stride);
                take(outputs + column, tap);
            }
        }
    }
}

/// The bias of one output of a layer.
fn layer_bias<T: Precision>(view: &LayerView<'_>, output: usize) -> T {
    let linear = view.layer.linear();
    let bias = linear.and_then(|linear| linear.biases.get(channel(view, output)));
    bias.map_or(T::ZERO, T::from_f32)
}

/// The bias of one output behind all of `layers`.
fn merged_bias<T: Precision>(layers: &[LayerView<'_>], output: usize) -> T {
    let [before @ .., last] = layers else {
        return T::ZERO;
    };
    let own = layer_bias(last, output);
    if before.is_empty() {
        return own;
    }
    let Some(last_layer) = LayerTable::new(*last) else {
        return own;
    };
    (0..last.input.values()).fold(own, |sum, middle| {
        sum + merged_bias::<T>(before, middle) * last_layer.at(output, middle)
    })
}

/// What an output of one layer takes.
const fn taps(view: &LayerView<'_>) -> Taps {
    match view.layer {
        Layer::Conv2d { kernel, .. } => Taps::Window {
            input: view.input,
            output: view.output,
            kernel,
        },
        _ => Taps::Dense {
            inputs: view.input.values(),
        },
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
pub(crate) fn add_row(view: &LayerView<'_>, output: usize, factor: f64, row: &mut [f64]) -> f64 {
    let Some(linear) = view.layer.linear() else {
        return 0.0;
    };
    let columns = view.layer.fan_in(view.input);
    let taps = taps(view);
    let channel = channel(view, output);
    let scale = factor * linear.row_scale(channel);
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
    use crate::model::{Floats, Linear, Padding};
    use std::vec::Vec;

    #[test]
    fn takers_of_an_input_are_the_outputs_that_tap_it_by_their_weight() {
        let kernel = Kernel {
            out_channels: 3,
            height: 3,
            width: 2,
            stride: 2,
            padding: Padding::NONE,
        };
        let padded = Kernel {
            padding: Padding {
                top: 1,
                bottom: 2,
                left: 1,
                right: 0,
            },
            ..kernel
        };
        let shape = |channels, height, width| Shape {
            channels,
            height,
            width,
        };
        let linear = Linear {
            scale: 1.0,
            multipliers: &[],
            weights: Integers::Bytes(&[]),
            biases: Floats::new(&[]),
        };
        let range = 1.0;
        let of = |layer, input, output| LayerView {
            index: 0,
            layer,
            input,
            output,
        };
        let conv = |kernel| Layer::Conv2d {
            kernel,
            linear,
            range,
        };
        let dense = Layer::Dense {
            outputs: 4,
            linear,
            range,
        };
        for view in [
            of(conv(kernel), shape(2, 7, 6), shape(3, 3, 3)),
            of(conv(padded), shape(2, 7, 6), shape(3, 4, 3)),
            of(dense, Shape::flat(5), Shape::flat(4)),
        ] {
            for input in 0..view.input.values() {
                let mut found = Vec::new();
                for_each_taker(&view, input, |output, weight| found.push((output, weight)));
                let tapped = (0..view.output.values()).filter_map(|output| {
                    let tap = taps(&view).tap(input, output)?;
                    let row = channel(&view, output) * view.layer.fan_in(view.input);
                    Some((output, row + tap))
                });
                assert_eq!(found, tapped.collect::<Vec<_>>(), "{input}");
            }
            for_each_taker(&view, view.input.values(), |_, _| panic!("no such input"));
        }
    }

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
