//! The quantized network in the clear.

use super::Model;
use super::error::ModelError;
use super::layer::{Input, Integers, Layer, LayerView, Shape};

/// What a network is evaluated on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample<'s> {
    /// Pixels of an image, channel by channel, row by row.
    Pixels(&'s [u8]),
    /// Features, as they are before standardisation.
    Features(&'s [f32]),
}

impl<'s> From<&'s [u8]> for Sample<'s> {
    fn from(pixels: &'s [u8]) -> Self {
        Self::Pixels(pixels)
    }
}

impl<'s, const N: usize> From<&'s [u8; N]> for Sample<'s> {
    fn from(pixels: &'s [u8; N]) -> Self {
        Self::Pixels(pixels)
    }
}

impl<'s> From<&'s [f32]> for Sample<'s> {
    fn from(features: &'s [f32]) -> Self {
        Self::Features(features)
    }
}

impl Model<'_> {
    /// Values of memory that plain evaluation takes.
    #[must_use]
    pub const fn workspace_len(&self) -> usize {
        self.largest.saturating_mul(2)
    }

    /// Evaluates the network in the clear: exact integer sums in a first layer
    /// on pixels, `f64` after it. `seen` is shown the results of every layer
    /// with its index, the logits last.
    ///
    /// # Errors
    ///
    /// [`ModelError::SampleKind`], [`ModelError::Sample`] or
    /// [`ModelError::Workspace`] where something does not fit the network.
    pub fn plain_layers<'s>(
        &self,
        sample: impl Into<Sample<'s>>,
        workspace: &mut [f64],
        mut seen: impl FnMut(usize, &[f64]),
    ) -> Result<(), ModelError> {
        let sample = sample.into();
        let short = ModelError::Workspace {
            needed: self.workspace_len(),
            got: workspace.len(),
        };
        let (mut from, rest) = workspace.split_at_mut_checked(self.largest).ok_or(short)?;
        let mut to = rest.get_mut(..self.largest).ok_or(short)?;
        let pixels = self.start(sample, from)?;
        for LayerView {
            index,
            layer,
            input,
            output,
        } in self.layers()
        {
            let values = from.get(..input.values()).ok_or(short)?;
            let results = to.get_mut(..output.values()).ok_or(short)?;
            match (layer, pixels) {
                (Layer::Polynomial { coefficients, .. }, _) => {
                    for (result, x) in results.iter_mut().zip(values) {
                        let horner = |sum: f64, c: f32| sum * x + f64::from(c);
                        *result = coefficients.iter().rev().fold(0.0, horner);
                    }
                }
                (Layer::Relu { .. }, _) => {
                    for (result, x) in results.iter_mut().zip(values) {
                        *result = x.max(0.0);
                    }
                }
                (_, Some(pixels)) if index == 0 => {
                    linear(&layer, input, output, pixels, 255.0, results);
                }
                _ => linear(&layer, input, output, values, 1.0, results),
            }
            seen(index, results);
            (from, to) = (to, from);
        }
        Ok(())
    }

    /// The logits of the same evaluation.
    ///
    /// # Errors
    ///
    /// As [`Self::plain_layers`], and [`ModelError::Logits`] where `out` has
    /// another length than the network has outputs.
    pub fn plain_logits<'s>(
        &self,
        sample: impl Into<Sample<'s>>,
        workspace: &mut [f64],
        out: &mut [f64],
    ) -> Result<(), ModelError> {
        if out.len() != self.outputs() {
            return Err(ModelError::Logits {
                expected: self.outputs(),
                got: out.len(),
            });
        }
        let last = self.count.saturating_sub(1);
        self.plain_layers(sample, workspace, |index, results| {
            if index == last {
                for (out, result) in out.iter_mut().zip(results) {
                    *out = *result;
                }
            }
        })
    }

    /// Writes a sample as the first layer sees it: pixels between 0 and 1, features
    /// standardised. In the same time for all values.
    ///
    /// # Errors
    ///
    /// [`ModelError::SampleKind`] or [`ModelError::Sample`] for one that does not fit
    /// the network, [`ModelError::Workspace`] where `values` is too short.
    pub fn input_values<'s>(
        &self,
        sample: impl Into<Sample<'s>>,
        values: &mut [f64],
    ) -> Result<(), ModelError> {
        let short = ModelError::Workspace {
            needed: self.inputs(),
            got: values.len(),
        };
        let values = values.get_mut(..self.inputs()).ok_or(short)?;
        if let Some(pixels) = self.start(sample.into(), values)? {
            for (value, &pixel) in values.iter_mut().zip(pixels) {
                // A product, as a division's time may depend on the pixel.
                *value = f64::from(pixel) * (1.0 / 255.0);
            }
        }
        Ok(())
    }

    /// Checks a sample, and writes what the first layer sees unless it takes
    /// the pixels themselves.
    fn start<'s>(
        &self,
        sample: Sample<'s>,
        values: &mut [f64],
    ) -> Result<Option<&'s [u8]>, ModelError> {
        let expected = self.inputs();
        let check = |got| {
            if got == expected {
                return Ok(());
            }
            Err(ModelError::Sample { expected, got })
        };
        match (self.input, sample) {
            (Input::Image(_), Sample::Pixels(pixels)) => {
                check(pixels.len())?;
                Ok(Some(pixels))
            }
            (Input::Features { means, deviations }, Sample::Features(features)) => {
                check(features.len())?;
                let standard = means.iter().zip(deviations.iter());
                for ((value, &v), (mean, deviation)) in
                    values.iter_mut().zip(features).zip(standard)
                {
                    *value = (f64::from(v) - f64::from(mean)) * (1.0 / f64::from(deviation));
                }
                Ok(None)
            }
            (Input::Image(_), Sample::Features(_)) => Err(ModelError::SampleKind { pixels: true }),
            (Input::Features { .. }, Sample::Pixels(_)) => {
                Err(ModelError::SampleKind { pixels: false })
            }
        }
    }
}

/// What a sum with integer weights can be taken over.
trait Value: Copy {
    /// Sum of products.
    type Sum: Copy;
    const ZERO: Self::Sum;
    fn add(sum: Self::Sum, weight: i16, value: Self) -> Self::Sum;
    fn real(sum: Self::Sum) -> f64;

    /// Adds the products of as many weights and values as there are of both, for weights of
    /// a byte.
    fn dot_bytes(sum: Self::Sum, weights: &[u8], values: &[Self]) -> Self::Sum {
        let terms = weights.iter().zip(values);
        terms.fold(sum, |sum, (w, &x)| {
            Self::add(sum, w.cast_signed().into(), x)
        })
    }
}

/// Products that are added at once.
const LANES: usize = 16;

impl Value for u8 {
    type Sum = i64;
    const ZERO: i64 = 0;
    fn add(sum: i64, weight: i16, value: Self) -> i64 {
        // Exact: 2^14 products of less than 2^23.
        sum.wrapping_add(i32::from(weight).wrapping_mul(value.into()).into())
    }

    fn real(sum: i64) -> f64 {
        // Exact below 2^53.
        sum as f64
    }

    /// Long rows by lanes, with products of 16 bits, which -127 to 127 times 0 to 255 fit: a
    /// product takes 1.2 instructions on x86-64, where one of 32 bits takes 2.8. Sums of lanes
    /// fit 32 bits: see the assertion beside the limits.
    fn dot_bytes(sum: i64, weights: &[u8], values: &[Self]) -> i64 {
        let count = weights.len().min(values.len());
        let weights = weights.get(..count).unwrap_or_default();
        let values = values.get(..count).unwrap_or_default();
        let (weights, last_weights) = weights.as_chunks::<LANES>();
        let (values, last_values) = values.as_chunks::<LANES>();
        let last = last_weights.iter().zip(last_values);
        let sum = last.fold(sum, |sum, (w, &x)| {
            Self::add(sum, w.cast_signed().into(), x)
        });
        if weights.is_empty() {
            return sum;
        }
        let mut sums = [0i32; LANES];
        for (weights, values) in weights.iter().zip(values) {
            for ((sum, w), &x) in sums.iter_mut().zip(weights).zip(values) {
                let product = i16::from(w.cast_signed()).wrapping_mul(i16::from(x));
                *sum = sum.wrapping_add(i32::from(product));
            }
        }
        let lanes = sums.into_iter().fold(0, i32::wrapping_add);
        sum.wrapping_add(lanes.into())
    }
}

impl Value for f64 {
    type Sum = Self;
    const ZERO: Self = 0.0;
    fn add(sum: Self, weight: i16, value: Self) -> Self {
        sum + Self::from(weight) * value
    }

    fn real(sum: Self) -> f64 {
        sum
    }
}

/// Adds the products of weights, beginning with the `skipped`-th, and values, as many as
/// there are of both.
fn dot<T: Value>(sum: T::Sum, weights: Integers<'_>, skipped: usize, values: &[T]) -> T::Sum {
    match weights {
        Integers::Bytes(bytes) => {
            T::dot_bytes(sum, bytes.get(skipped..).unwrap_or_default(), values)
        }
        Integers::Halves(_) => {
            let terms = weights.iter().skip(skipped).zip(values);
            terms.fold(sum, |sum, (w, &x)| T::add(sum, w, x))
        }
    }
}

/// A dense layer or a convolution of values that stand for `unit` times what
/// they are.
fn linear<T: Value>(
    layer: &Layer<'_>,
    input: Shape,
    output: Shape,
    values: &[T],
    unit: f64,
    results: &mut [f64],
) {
    let Some(linear) = layer.linear() else {
        return;
    };
    let columns = layer.fan_in(input);
    // Of every row its weights, what a sum of its integers counts, and its bias.
    let rows = (0usize..).map_while(|row| {
        let weights = linear.weights.row(columns, row)?;
        let bias = f64::from(linear.biases.get(row)?);
        Some((weights, linear.row_scale(row) / unit, bias))
    });
    let Layer::Conv2d { kernel, .. } = *layer else {
        for (result, (row, scale, bias)) in results.iter_mut().zip(rows) {
            *result = scale * T::real(dot(T::ZERO, row, 0, values)) + bias;
        }
        return;
    };
    let (width, height) = (usize::from(input.width), usize::from(input.height));
    let columns = usize::from(output.width).max(1);
    let places = usize::from(output.height).saturating_mul(columns);
    for (channel, (row, scale, bias)) in results.chunks_exact_mut(places.max(1)).zip(rows) {
        for (line, y) in channel.chunks_exact_mut(columns).zip(0usize..) {
            let over = kernel.rows(input, y);
            for (result, x) in line.iter_mut().zip(0usize..) {
                let across = kernel.columns(input, x);
                let mut sum = T::ZERO;
                // Rows of the kernel, of all channels one after the other.
                let kernel_height = usize::from(kernel.height);
                for c in 0..usize::from(input.channels) {
                    let inside = (over.skipped..over.skipped.saturating_add(over.len))
                        .map(|ky| c.saturating_mul(kernel_height).saturating_add(ky));
                    let first = c.saturating_mul(height).saturating_add(over.start);
                    for (kernel_row, line) in inside.zip(first..) {
                        let start = line.saturating_mul(width).saturating_add(across.start);
                        let end = start.saturating_add(across.len);
                        let window = values.get(start..end).unwrap_or_default();
                        let weights = row.row(usize::from(kernel.width), kernel_row);
                        let weights = weights.unwrap_or(Integers::Bytes(&[]));
                        sum = dot(sum, weights, across.skipped, window);
                    }
                }
                *result = scale * T::real(sum) + bias;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_add_what_one_by_one_does() {
        let weights = |count: usize| -> Vec<i8> {
            (0..count as i64)
                .map(|i| (i * 89 % 255 - 127) as i8)
                .collect()
        };
        let values =
            |count: usize| -> Vec<u8> { (0..count).map(|i| (255 - i * 37 % 256) as u8).collect() };
        for (length, more) in (0..75).flat_map(|length| [(length, 0), (length, 20)]) {
            let terms = weights(length).into_iter().zip(values(length));
            let expected = terms.fold(5, |sum, (w, x)| sum + i64::from(w) * i64::from(x));
            for (row, inputs) in [(length, length + more), (length + more, length)] {
                let row: Vec<u8> = weights(row).into_iter().map(i8::cast_unsigned).collect();
                let found = dot(5, Integers::Bytes(&row), 0, &values(inputs));
                assert_eq!(found, expected, "{length} and {more} more");
                // The same weights in 16 bits.
                let wide = row.iter().map(|w| i16::from(w.cast_signed()));
                let wide: Vec<u8> = wide.flat_map(i16::to_le_bytes).collect();
                let found = dot(5, Integers::Halves(&wide), 0, &values(inputs));
                assert_eq!(found, expected, "{length} and {more} more");
            }
        }
    }

    #[test]
    fn sums_of_the_largest_wide_weights_are_exact() {
        let weights = [32767i16.to_le_bytes(); super::super::MAX_VALUES].concat();
        let values = [255u8; super::super::MAX_VALUES];
        let found = dot(0, Integers::Halves(&weights), 0, &values);
        assert_eq!(found, 32767 * 255 * super::super::MAX_VALUES as i64);
        assert_eq!(u8::real(found) as i64, found);
    }
}
