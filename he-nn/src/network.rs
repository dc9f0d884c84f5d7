//! Networks while they are made, by training or from another format: float
//! weights, their [`Quantization`], and the folding of activations of degree
//! 2 into squares (see [`crate::model`]).

use std::fmt;
use std::ops::RangeInclusive;

use crate::model::{
    Floats, Input, Integers, Kernel, Layer, Linear, Model, ModelError, ModelParts, Shape,
};

/// Below this an activation has no square left to fold into: what would go into
/// the biases grows with its inverse.
pub const MIN_CURVATURE: f32 = 1e-4;

/// What a network takes.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkInput {
    /// Pixels, of which the first layer sees `p / 255`.
    Image(Shape),
    /// Features, each standardised by its mean and deviation.
    Features {
        /// Means.
        means: Vec<f32>,
        /// Standard deviations.
        deviations: Vec<f32>,
    },
}

/// Weights and biases.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights<T> {
    /// One row per output or output channel.
    pub weights: Vec<T>,
    /// Real value of a weight of 1 in a row whose multiplier is 1.
    pub scale: f32,
    /// What the scale of each row is a multiple of that by; none where all are 1.
    pub multipliers: Vec<u8>,
    /// One per output or output channel.
    pub biases: Vec<f32>,
}

impl<T> Weights<T> {
    /// Real value of a weight of 1 in a row.
    #[must_use]
    pub fn row_scale(&self, row: usize) -> f64 {
        let multiplier = self.multipliers.get(row).copied().unwrap_or(1);
        f64::from(self.scale) * f64::from(multiplier)
    }

    /// Weights of a row.
    fn columns(&self) -> usize {
        (self.weights.len() / self.biases.len().max(1)).max(1)
    }
}

impl<T: Copy + Into<f64>> Weights<T> {
    /// What all weights stand for, row after row.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        let rows = (0..).zip(self.weights.chunks(self.columns()));
        rows.flat_map(|(index, row)| {
            let scale = self.row_scale(index);
            row.iter().map(move |&w| scale * w.into())
        })
    }
}

impl Weights<f32> {
    /// The same, whatever the real value of 1 was, with weights that are what they stand for.
    #[must_use]
    pub const fn new(weights: Vec<f32>, biases: Vec<f32>) -> Self {
        Self {
            weights,
            scale: 1.0,
            multipliers: Vec::new(),
            biases,
        }
    }
}

/// A layer with weights of type `T`.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkLayer<T> {
    /// A convolution.
    Conv2d(Kernel, Weights<T>),
    /// A dense layer; outputs are as many as biases.
    Dense(Weights<T>),
    /// An activation polynomial, from the constant up.
    Polynomial(Vec<f32>),
    /// A rectifier.
    Relu,
}

impl<T> NetworkLayer<T> {
    const fn weights(&self) -> Option<&Weights<T>> {
        match self {
            Self::Conv2d(_, weights) | Self::Dense(weights) => Some(weights),
            Self::Polynomial(_) | Self::Relu => None,
        }
    }

    const fn weights_mut(&mut self) -> Option<&mut Weights<T>> {
        match self {
            Self::Conv2d(_, weights) | Self::Dense(weights) => Some(weights),
            Self::Polynomial(_) | Self::Relu => None,
        }
    }
}

/// A network with weights of type `T`: `f32`, or `i16` once quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct Network<T> {
    /// Name of the model.
    pub name: String,
    /// What it takes.
    pub input: NetworkInput,
    /// Its layers.
    pub layers: Vec<NetworkLayer<T>>,
}

/// Least and most bits of a quantized weight.
pub const WEIGHT_BITS: RangeInclusive<u8> = 2..=16;

/// The largest multiplier of a row's scale: of the row with the largest weight.
const MAX_MULTIPLIER: f32 = u8::MAX as f32;

/// What has a scale of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// All weights of a layer together.
    Tensor,
    /// Those of each output, or output channel.
    Channel,
}

impl Granularity {
    /// Its name in reports and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::Channel => "channel",
        }
    }
}

/// How weights are rounded to symmetric integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantization {
    bits: u8,
    granularity: Granularity,
}

impl Quantization {
    /// 8 bits per tensor, as all bundled networks have it.
    pub const USUAL: Self = Self {
        bits: 8,
        granularity: Granularity::Tensor,
    };

    /// So many bits, and what has a scale of its own; `None` for bits outside
    /// [`WEIGHT_BITS`].
    #[must_use]
    pub fn new(bits: u8, granularity: Granularity) -> Option<Self> {
        WEIGHT_BITS
            .contains(&bits)
            .then_some(Self { bits, granularity })
    }

    /// Bits of a weight.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// What has a scale of its own.
    #[must_use]
    pub const fn granularity(self) -> Granularity {
        self.granularity
    }

    /// The largest integer.
    #[must_use]
    pub fn largest(self) -> f32 {
        let largest = (1u32 << (self.bits - 1)) - 1;
        // What the file has room for; exact.
        largest.min(Integers::MAX_HALF.unsigned_abs().into()) as f32
    }

    /// The scale of weights of which this is the largest magnitude.
    #[must_use]
    pub fn scale(self, largest: f32) -> f32 {
        (largest / self.largest()).max(f32::MIN_POSITIVE)
    }

    /// Rounds weights to integers, in rows of so many.
    ///
    /// Per channel, a row's scale is the multiple of the layer's, by 1 to 255, at which its
    /// largest weight is still within the integers: sums of integers, which packing in batches
    /// takes, can be brought to one scale by an integer then. There are no multipliers where
    /// all rows have one scale.
    #[must_use]
    pub fn integers(self, weights: &[f32], columns: usize) -> (Vec<i16>, f32, Vec<u8>) {
        let largest = |row: &[f32]| row.iter().fold(0.0, |max: f32, w| max.max(w.abs()));
        let rounded = |row: &[f32], scale: f32| -> Vec<i16> {
            let most = self.largest();
            row.iter()
                .map(|w| (w / scale).round().clamp(-most, most) as i16)
                .collect()
        };
        let scale = self.scale(largest(weights));
        let rows = || weights.chunks(columns.max(1));
        match self.granularity {
            Granularity::Tensor => (rounded(weights, scale), scale, Vec::new()),
            Granularity::Channel => {
                let unit = (scale / MAX_MULTIPLIER).max(f32::MIN_POSITIVE);
                let multiplier = |row: &[f32]| {
                    let wanted = (self.scale(largest(row)) / unit).ceil();
                    wanted.clamp(1.0, MAX_MULTIPLIER)
                };
                let integers = rows().flat_map(|row| rounded(row, unit * multiplier(row)));
                let multipliers: Vec<u8> = rows().map(|row| multiplier(row) as u8).collect();
                let (unit, multipliers) = reduced(unit, multipliers);
                (integers.collect(), unit, multipliers)
            }
        }
    }
}

/// The same scales by the smallest multipliers, and none where all are 1.
fn reduced(unit: f32, multipliers: Vec<u8>) -> (f32, Vec<u8>) {
    fn divisor(a: u8, b: u8) -> u8 {
        match b {
            0 => a,
            _ => divisor(b, a % b),
        }
    }
    let common = multipliers.iter().fold(0, |all, &m| divisor(all, m)).max(1);
    let unit = unit * f32::from(common);
    match multipliers.iter().all(|&m| m == common) {
        true => (unit, Vec::new()),
        false => (unit, multipliers.iter().map(|m| m / common).collect()),
    }
}

impl Default for Quantization {
    fn default() -> Self {
        Self::USUAL
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits per {}", self.bits, self.granularity.name())
    }
}

impl Network<f32> {
    /// Lets the input be standardised by these means and deviations, and the first
    /// layer undo it: of the same features the network computes the same.
    ///
    /// What it saw as `x` is now `d x + m` of what it sees, so that its weights `W`
    /// and biases `b` become `W diag(d)` and `b + W m`. This comes before rounding:
    /// a weight then counts by what its feature varies, not by its unit.
    ///
    /// # Errors
    /// [`ModelError::SampleKind`] for a network of images, [`ModelError::Sample`]
    /// for another number of features than it takes.
    pub fn standardise(&mut self, means: &[f32], deviations: &[f32]) -> Result<(), ModelError> {
        let NetworkInput::Features {
            means: old_means,
            deviations: old_deviations,
        } = &self.input
        else {
            return Err(ModelError::SampleKind { pixels: true });
        };
        let expected = old_means.len();
        for got in [means.len(), deviations.len()] {
            if got != expected {
                return Err(ModelError::Sample { expected, got });
            }
        }
        // `d` and `m` of every feature.
        let new = means.iter().zip(deviations);
        let lines: Vec<(f64, f64)> = new
            .zip(old_means.iter().zip(old_deviations))
            .map(|((&mean, &deviation), (&old_mean, &old_deviation))| {
                let old = f64::from(old_deviation);
                let shift = f64::from(mean) - f64::from(old_mean);
                (f64::from(deviation) / old, shift / old)
            })
            .collect();
        // Rows of another length than the input are refused when the file is written.
        if let Some(first) = self.layers.first_mut().and_then(NetworkLayer::weights_mut) {
            let scales: Vec<f64> = (0..first.biases.len())
                .map(|row| first.row_scale(row))
                .collect();
            let rows = first.weights.chunks_mut(expected.max(1));
            for ((row, bias), scale) in rows.zip(&mut first.biases).zip(scales) {
                let mut sum = f64::from(*bias);
                for (weight, &(deviation, mean)) in row.iter_mut().zip(&lines) {
                    let old = f64::from(*weight);
                    sum += scale * old * mean;
                    *weight = (old * deviation) as f32;
                }
                *bias = sum as f32;
            }
        }
        self.input = NetworkInput::Features {
            means: means.to_vec(),
            deviations: deviations.to_vec(),
        };
        Ok(())
    }

    /// The same with weights of 8 bits per tensor, and activations folded.
    #[must_use]
    pub fn quantized(self) -> Network<i16> {
        self.quantized_by(Quantization::USUAL)
    }

    /// The same with weights rounded like this, and activations folded.
    #[must_use]
    pub fn quantized_by(self, quantization: Quantization) -> Network<i16> {
        let rounded = |weights: Weights<f32>| {
            let columns = weights.columns();
            let values: Vec<f32> = weights.values().map(|w| w as f32).collect();
            let (integers, scale, multipliers) = quantization.integers(&values, columns);
            Weights {
                weights: integers,
                scale,
                multipliers,
                biases: weights.biases,
            }
        };
        let layers = self.layers.into_iter().map(|layer| match layer {
            NetworkLayer::Conv2d(kernel, weights) => NetworkLayer::Conv2d(kernel, rounded(weights)),
            NetworkLayer::Dense(weights) => NetworkLayer::Dense(rounded(weights)),
            NetworkLayer::Polynomial(coefficients) => NetworkLayer::Polynomial(coefficients),
            NetworkLayer::Relu => NetworkLayer::Relu,
        });
        let mut network = Network {
            name: self.name,
            input: self.input,
            layers: layers.collect(),
        };
        network.fold();
        network
    }
}

impl From<&Model<'_>> for Network<i16> {
    /// The network of a file.
    fn from(model: &Model<'_>) -> Self {
        let weights = |linear: &Linear<'_>| Weights {
            weights: linear.weights.iter().collect(),
            scale: linear.scale,
            multipliers: linear.multipliers.to_vec(),
            biases: linear.biases.iter().collect(),
        };
        let layers = model.layers().map(|view| match view.layer {
            Layer::Conv2d {
                kernel, ref linear, ..
            } => NetworkLayer::Conv2d(kernel, weights(linear)),
            Layer::Dense { ref linear, .. } => NetworkLayer::Dense(weights(linear)),
            Layer::Polynomial { coefficients, .. } => {
                NetworkLayer::Polynomial(coefficients.iter().collect())
            }
            Layer::Relu { .. } => NetworkLayer::Relu,
        });
        Self {
            name: model.name().into(),
            input: match model.input() {
                Input::Image(shape) => NetworkInput::Image(shape),
                Input::Features { means, deviations } => NetworkInput::Features {
                    means: means.iter().collect(),
                    deviations: deviations.iter().collect(),
                },
            },
            layers: layers.collect(),
        }
    }
}

impl Network<i16> {
    /// With the weights that its integers stand for: to round them otherwise.
    #[must_use]
    pub fn real(self) -> Network<f32> {
        let real = |weights: Weights<i16>| {
            let values = weights.values().map(|w| w as f32).collect();
            Weights::new(values, weights.biases)
        };
        let layers = self.layers.into_iter().map(|layer| match layer {
            NetworkLayer::Conv2d(kernel, weights) => NetworkLayer::Conv2d(kernel, real(weights)),
            NetworkLayer::Dense(weights) => NetworkLayer::Dense(real(weights)),
            NetworkLayer::Polynomial(coefficients) => NetworkLayer::Polynomial(coefficients),
            NetworkLayer::Relu => NetworkLayer::Relu,
        });
        Network {
            name: self.name,
            input: self.input,
            layers: layers.collect(),
        }
    }

    /// Completes the square of every activation of degree 2 between two layers
    /// with weights, where its curvature and the padding behind it allow it.
    fn fold(&mut self) {
        for at in 1..self.layers.len().saturating_sub(1) {
            let [before, activation, after] = &mut self.layers[at - 1..=at + 1] else {
                continue;
            };
            let padded =
                matches!(after, NetworkLayer::Conv2d(kernel, _) if !kernel.padding.is_none());
            let (Some(before), NetworkLayer::Polynomial(coefficients), Some(after)) =
                (before.weights_mut(), activation, after.weights_mut())
            else {
                continue;
            };
            let [c, b, a] = coefficients[..] else {
                continue;
            };
            if a.abs() < MIN_CURVATURE || after.biases.is_empty() {
                continue;
            }
            let shift = b / (2.0 * a);
            let constant = c - b * b / (4.0 * a);
            // Zeros of padding have no part in the constant.
            if padded && constant != 0.0 {
                continue;
            }
            before.biases.iter_mut().for_each(|bias| *bias += shift);
            let rows = after.weights.chunks_exact(after.columns());
            let sums: Vec<f32> = (0..)
                .zip(rows)
                .map(|(index, row)| {
                    let sum: i64 = row.iter().map(|&w| i64::from(w)).sum();
                    (after.row_scale(index) * sum as f64) as f32
                })
                .collect();
            for (bias, sum) in after.biases.iter_mut().zip(sums) {
                *bias += constant * sum;
            }
            if a < 0.0 {
                after.weights.iter_mut().for_each(|w| *w = -*w);
            }
            after.scale *= a.abs();
            *coefficients = vec![0.0, 0.0, 1.0];
        }
    }

    /// The `.hemodel` file, with one range per layer.
    ///
    /// # Errors
    /// [`ModelError`] for what is no network within the format's limits.
    pub fn file(&self, ranges: &[f32]) -> Result<Vec<u8>, ModelError> {
        let little_endian =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
        // Everything as bytes, to borrow from.
        let bytes: Vec<(Vec<u8>, Vec<u8>)> = self
            .layers
            .iter()
            .map(|layer| match (layer.weights(), layer) {
                (Some(w), _) => (integers(&w.weights), little_endian(&w.biases)),
                (None, NetworkLayer::Polynomial(coefficients)) => {
                    (Vec::new(), little_endian(coefficients))
                }
                (None, _) => (Vec::new(), Vec::new()),
            })
            .collect();
        let layers: Vec<Layer<'_>> = self
            .layers
            .iter()
            .zip(&bytes)
            .zip(ranges)
            .map(|((layer, (weights, floats)), &range)| {
                match layer {
                    NetworkLayer::Conv2d(kernel, w) => Layer::Conv2d {
                        kernel: *kernel,
                        linear: linear(w, weights, floats),
                        range,
                    },
                    NetworkLayer::Dense(w) => Layer::Dense {
                        // What does not fit does not have so many biases either.
                        outputs: u16::try_from(w.biases.len()).unwrap_or(u16::MAX),
                        linear: linear(w, weights, floats),
                        range,
                    },
                    NetworkLayer::Polynomial(_) => Layer::Polynomial {
                        coefficients: Floats::new(floats),
                        range,
                    },
                    NetworkLayer::Relu => Layer::Relu { range },
                }
            })
            .collect();
        let (means, deviations);
        let input = match &self.input {
            NetworkInput::Image(shape) => Input::Image(*shape),
            NetworkInput::Features {
                means: m,
                deviations: d,
            } => {
                means = little_endian(m);
                deviations = little_endian(d);
                Input::Features {
                    means: Floats::new(&means),
                    deviations: Floats::new(&deviations),
                }
            }
        };
        let parts = ModelParts {
            name: self.name.as_bytes(),
            input,
            layers: &layers,
        };
        let mut file = vec![0; parts.file_len()?];
        parts.write(&mut file)?;
        Ok(file)
    }

    /// As [`Self::file`] with ranges of zero, to measure them with.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn draft(&self) -> Result<Vec<u8>, ModelError> {
        self.file(&vec![0.0; self.layers.len()])
    }
}

/// Whether one byte holds a weight.
fn is_byte(weight: i16) -> bool {
    weight.unsigned_abs() <= i8::MAX.unsigned_abs().into()
}

/// The bytes of weights: one of each where that is enough, otherwise two.
fn integers(weights: &[i16]) -> Vec<u8> {
    match weights.iter().all(|&w| is_byte(w)) {
        true => weights.iter().map(|&w| (w as i8).cast_unsigned()).collect(),
        false => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
    }
}

/// Weights and biases of a file.
fn linear<'a>(of: &'a Weights<i16>, bytes: &'a [u8], biases: &'a [u8]) -> Linear<'a> {
    Linear {
        scale: of.scale,
        multipliers: &of.multipliers,
        weights: match bytes.len() == of.weights.len() {
            true => Integers::Bytes(bytes),
            false => Integers::Halves(bytes),
        },
        biases: Floats::new(biases),
    }
}

#[cfg(test)]
mod tests {
    use crate::model::Padding;

    use super::*;
    use crate::clear;

    fn small(coefficients: Vec<f32>) -> Network<f32> {
        let weights =
            |weights: &[f32], biases: &[f32]| Weights::new(weights.to_vec(), biases.to_vec());
        let kernel = Kernel {
            out_channels: 2,
            height: 1,
            width: 2,
            stride: 1,
            padding: Padding::NONE,
        };
        Network {
            name: "small".into(),
            input: NetworkInput::Image(Shape {
                channels: 1,
                height: 1,
                width: 3,
            }),
            layers: vec![
                NetworkLayer::Conv2d(kernel, weights(&[0.5, -1.0, 0.75, 0.25], &[0.5, -0.25])),
                NetworkLayer::Polynomial(coefficients),
                NetworkLayer::Dense(weights(
                    &[1.27, -0.5, 0.25, 0.1, -0.3, 0.7, 0.9, -1.0],
                    &[1.0, -1.0],
                )),
            ],
        }
    }

    #[test]
    fn the_fold_is_exact() {
        // Both signs of the curvature, since the weights carry it.
        for coefficients in [vec![0.125, 0.75, -0.5], vec![-0.2, 0.7, 0.3]] {
            let folded = small(coefficients.clone()).quantized();
            assert_eq!(
                folded.layers[1],
                NetworkLayer::Polynomial(vec![0.0, 0.0, 1.0])
            );
            // A term of degree 3 that does nothing keeps the polynomial as it
            // is.
            let kept = small([coefficients, vec![1e-30]].concat()).quantized();
            assert!(matches!(&kept.layers[1], NetworkLayer::Polynomial(c) if c.len() == 4));
            let logits = |network: &Network<i16>| {
                let file = network.draft().unwrap();
                let model = Model::parse(&file).unwrap();
                clear::logits(&model, &[255, 51, 102]).unwrap()
            };
            for (folded, kept) in logits(&folded).iter().zip(logits(&kept)) {
                assert!((folded - kept).abs() < 1e-5, "{folded} {kept}");
            }
        }
    }

    #[test]
    fn an_activation_before_padding_keeps_its_constant() {
        let padded = |coefficients: Vec<f32>| {
            let mut network = small(coefficients);
            let kernel = Kernel {
                out_channels: 1,
                height: 1,
                width: 2,
                stride: 1,
                padding: Padding {
                    left: 1,
                    right: 1,
                    ..Padding::NONE
                },
            };
            // Three windows along two columns.
            let weights = Weights::new(vec![0.5, -1.0, 1.27, 0.3], vec![0.5]);
            let NetworkLayer::Dense(mut last) = network.layers.remove(2) else {
                panic!("{network:?}");
            };
            last.weights = vec![1.27, -0.5, 0.25, 0.1, -0.3, 0.7];
            network.layers.push(NetworkLayer::Conv2d(kernel, weights));
            network.layers.push(NetworkLayer::Dense(last));
            network
        };
        let logits = |network: &Network<i16>| {
            let file = network.draft().unwrap();
            clear::logits(&Model::parse(&file).unwrap(), &[255, 51, 102]).unwrap()
        };
        for (coefficients, folds) in [
            (vec![0.125, 0.75, -0.5], false),
            (vec![0.0, 0.75, -0.5], false),
            (vec![0.0, 0.0, -0.5], true),
        ] {
            let network = padded(coefficients.clone()).quantized();
            let square = NetworkLayer::Polynomial(vec![0.0, 0.0, 1.0]);
            assert_eq!(network.layers[1] == square, folds);
            let kept = padded([coefficients, vec![1e-30]].concat()).quantized();
            assert_ne!(kept.layers[1], square);
            for (folded, kept) in logits(&network).iter().zip(logits(&kept)) {
                assert!((folded - kept).abs() < 1e-5, "{folded} {kept}");
            }
        }
    }

    /// The bound of every weight's rounding: half of a step, and that a row's own step is at
    /// most 1/255 of the layer's above what its largest weight asks for.
    #[test]
    fn weights_are_within_half_a_step_of_their_row() {
        let rows: [&[f32]; 4] = [
            &[1.0, -0.3, 0.77, 0.01],
            &[0.1, -0.1, 0.033, 0.002],
            &[1e-4, -9e-5, 3e-5, 0.0],
            &[0.0; 4],
        ];
        let weights = rows.concat();
        for bits in WEIGHT_BITS {
            for granularity in [Granularity::Tensor, Granularity::Channel] {
                let quantization = Quantization::new(bits, granularity).unwrap();
                let (integers, scale, multipliers) = quantization.integers(&weights, 4);
                let found = Weights {
                    weights: integers,
                    scale,
                    multipliers,
                    biases: vec![0.0; 4],
                };
                let unit = 1.0 / quantization.largest();
                let values: Vec<f64> = found.values().collect();
                for (row, got) in rows.iter().zip(values.chunks(4)) {
                    let largest = row.iter().fold(0.0f32, |max, w| max.max(w.abs()));
                    let step = match granularity {
                        Granularity::Tensor => unit,
                        Granularity::Channel => largest * unit + unit / MAX_MULTIPLIER,
                    };
                    for (&w, got) in row.iter().zip(got) {
                        let off = (f64::from(w) - got).abs();
                        assert!(off <= 0.501 * f64::from(step), "{quantization}: {w} {got}");
                    }
                }
            }
        }
        for bits in [0, 1, 17] {
            assert_eq!(Quantization::new(bits, Granularity::Tensor), None);
        }
    }

    #[test]
    fn a_file_and_its_network_compute_the_same_however_weights_were_rounded() {
        for bits in [3, 8, 16] {
            for granularity in [Granularity::Tensor, Granularity::Channel] {
                let quantization = Quantization::new(bits, granularity).unwrap();
                // A square, folded, and a cubic.
                for coefficients in [vec![0.125, 0.75, -0.5], vec![0.1, 0.7, 0.2, -0.05]] {
                    let network = small(coefficients).quantized_by(quantization);
                    let file = network.draft().unwrap();
                    let model = Model::parse(&file).unwrap();
                    let widths = model.layers().filter_map(|view| {
                        let linear = view.layer.linear()?;
                        Some((linear.weights.width(), linear.multipliers.len()))
                    });
                    let width = if bits > 8 { 2 } else { 1 };
                    let rows = if granularity == Granularity::Tensor {
                        0
                    } else {
                        2
                    };
                    assert_eq!(widths.collect::<Vec<_>>(), [(width, rows); 2]);
                    let sample: &[u8] = &[255, 51, 102];
                    let back = Network::from(&model);
                    assert_eq!(back, network);
                    let back = back.real();
                    let logits = back.logits(sample).unwrap();
                    for (a, b) in logits.iter().zip(clear::logits(&model, sample).unwrap()) {
                        assert!((a - b).abs() < 1e-5, "{quantization}: {a} {b}");
                    }
                    // Rounding what was rounded changes nothing.
                    let again = back.quantized_by(quantization);
                    let values = |network: &Network<i16>| -> Vec<f64> {
                        let weights = network.layers.iter().filter_map(NetworkLayer::weights);
                        weights
                            .flat_map(|w| w.values().collect::<Vec<_>>())
                            .collect()
                    };
                    for (a, b) in values(&network).iter().zip(values(&again)) {
                        assert!((a - b).abs() < 1e-5, "{quantization}: {a} {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_straight_line_is_left_as_it_is() {
        let straight = vec![0.0, 1.0, 1e-5];
        let network = small(straight.clone()).quantized();
        assert_eq!(network.layers[1], NetworkLayer::Polynomial(straight));
    }

    #[test]
    fn a_standardised_network_computes_the_same() {
        let dense = |weights: &[f32], biases: &[f32]| {
            NetworkLayer::Dense(Weights {
                weights: weights.to_vec(),
                scale: 0.5,
                multipliers: Vec::new(),
                biases: biases.to_vec(),
            })
        };
        let raw = Network {
            name: "raw".into(),
            input: NetworkInput::Features {
                means: vec![1.0, -2.0],
                deviations: vec![0.5, 4.0],
            },
            layers: vec![dense(&[1.5, -0.25, 0.75, 2.0, 0.0, 1.0], &[0.5, -1.0, 3.0])],
        };
        let mut standard = raw.clone();
        let (means, deviations) = ([120.0, 1e-3], [30.0, 0.125]);
        standard.standardise(&means, &deviations).unwrap();
        let logits = |network: &Network<f32>, row: [f64; 2]| -> Vec<f64> {
            let (NetworkInput::Features { means, deviations }, [NetworkLayer::Dense(w)]) =
                (&network.input, &network.layers[..])
            else {
                panic!("{network:?}");
            };
            let rows = w.weights.chunks(2).zip(&w.biases);
            rows.map(|(weights, &bias)| {
                let terms = (0..2).map(|i| {
                    let x = (row[i] - f64::from(means[i])) / f64::from(deviations[i]);
                    f64::from(w.scale) * f64::from(weights[i]) * x
                });
                terms.sum::<f64>() + f64::from(bias)
            })
            .collect()
        };
        for row in [[121.0, 0.0], [-3.0, 0.5]] {
            for (a, b) in logits(&raw, row).iter().zip(logits(&standard, row)) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
        }
        assert_ne!(raw.layers, standard.layers);

        let unchanged = standard.clone();
        let three = [1.0; 3];
        let error = ModelError::Sample {
            expected: 2,
            got: 3,
        };
        assert_eq!(standard.standardise(&three, &deviations), Err(error));
        assert_eq!(standard.standardise(&means, &three), Err(error));
        assert_eq!(standard, unchanged);
        assert_eq!(
            small(vec![0.0, 0.0, 1.0]).standardise(&means, &deviations),
            Err(ModelError::SampleKind { pixels: true })
        );
    }

    #[test]
    fn weights_are_rounded_to_the_nearest() {
        let rounded = |weights: &[f32]| Quantization::USUAL.integers(weights, 3);
        let (integers, scale, multipliers) = rounded(&[0.3, -1.27, 0.004, 0.0, 1.0, -0.6]);
        assert_eq!(integers, [30, -127, 0, 0, 100, -60]);
        assert!((scale - 0.01).abs() < 1e-9 && multipliers.is_empty());
        assert_eq!(rounded(&[0.0; 3]).0, [0; 3]);
    }

    #[test]
    fn ranges_are_in_the_file() {
        let network = small(vec![0.0, 0.0, 1.0]).quantized();
        let file = network.file(&[1.0, 2.0, 3.0]).unwrap();
        let model = Model::parse(&file).unwrap();
        let ranges: Vec<f32> = model.layers().map(|view| view.layer.range()).collect();
        assert_eq!(ranges, [1.0, 2.0, 3.0]);
    }
}
