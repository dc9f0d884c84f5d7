//! Networks drawn from a seed: every kind of layer, with weights that are not symmetric
//! in anything, and ranges measured over some samples.

use he_nn::clear;
use he_nn::model::{Input, Kernel, Model, Padding, Sample, Shape};
use he_nn::network::{Network, NetworkInput, NetworkLayer, Quantization, Weights};

/// The first of the samples that ranges are measured over.
pub const FIRST_SAMPLE: u32 = 1000;

/// How many samples ranges are measured over.
pub const SAMPLES: u32 = 20;

/// `x + x^3 / 10`.
pub const CUBIC: [f32; 4] = [0.0, 1.0, 0.0, 0.1];

/// A rectifier between -2 and 2, least squares.
pub const QUARTIC: [f32; 5] = [0.117, 0.5, 0.41, 0.0, -0.034];

/// The sine's, up to the seventh power.
pub const SEPTIC: [f32; 8] = [0.0, 1.0, 0.0, -0.166_67, 0.0, 0.008_333, 0.0, -0.000_198_4];

/// The sine's, as far as polynomials go.
pub const FIFTEENTH: [f32; 16] = [
    0.0,
    1.0,
    0.0,
    -0.166_67,
    0.0,
    0.008_333,
    0.0,
    -0.000_198_4,
    0.0,
    2.755_7e-6,
    0.0,
    -2.505e-8,
    0.0,
    1.605_9e-10,
    0.0,
    -7.647e-13,
];

/// What a network is made of.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// A convolution; [`conv`] makes one with square kernels.
    Conv(Kernel),
    /// A dense layer of so many outputs.
    Dense(u16),
    /// A square.
    Square,
    /// A polynomial, from the constant up.
    Polynomial(&'static [f32]),
}

/// A convolution with square kernels.
#[must_use]
pub const fn conv(out_channels: u16, side: u16, stride: u16, padding: Padding) -> Part {
    Part::Conv(Kernel {
        out_channels,
        height: side,
        width: side,
        stride,
        padding,
    })
}

/// Bytes of reproducible noise.
#[must_use]
pub fn bytes(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Samples of a network of features within the ranges of training, up to 2003 of them
/// each another.
///
/// # Panics
/// If the network takes images.
#[must_use]
pub fn rows(model: &Model<'_>, count: usize) -> Vec<Vec<f32>> {
    let Input::Features { means, deviations } = model.input() else {
        panic!("{} takes images", model.name());
    };
    let features: Vec<(f32, f32)> = means.iter().zip(deviations.iter()).collect();
    let row = |at: usize| {
        let feature = |(of, &(mean, deviation)): (usize, &(f32, f32))| {
            let away = ((at * 7 + of * 3) % 2003) as f32 / 1001.0 - 1.0;
            mean + away * deviation
        };
        features.iter().enumerate().map(feature).collect()
    };
    (0..count).map(row).collect()
}

/// An image of one channel.
#[must_use]
pub const fn image(width: u16) -> NetworkInput {
    NetworkInput::Image(Shape {
        channels: 1,
        height: width,
        width,
    })
}

/// Features whose means and deviations are all different.
#[must_use]
pub fn features(count: u16) -> NetworkInput {
    let numbers = || (0..count).map(f32::from);
    NetworkInput::Features {
        means: numbers().map(|i| 3.0 * i - 20.0).collect(),
        deviations: numbers().map(|i| 0.25 + i).collect(),
    }
}

/// The file of a network, with ranges over [`SAMPLES`] samples.
///
/// # Panics
/// If the format does not hold it.
#[must_use]
pub fn network(input: NetworkInput, parts: &[Part]) -> Vec<u8> {
    written(&drawn(input, parts))
}

/// The same with rows of different sizes, rounded like this.
///
/// # Panics
/// If the format does not hold it.
#[must_use]
pub fn rounded(input: NetworkInput, parts: &[Part], quantization: Quantization) -> Vec<u8> {
    let mut network = drawn(input, parts).real();
    for layer in &mut network.layers {
        if let NetworkLayer::Conv2d(_, weights) | NetworkLayer::Dense(weights) = layer {
            let columns = weights.weights.len() / weights.biases.len();
            let rows = weights.weights.chunks_mut(columns).enumerate();
            rows.for_each(|(k, row)| row.iter_mut().for_each(|w| *w /= (1 + k % 5) as f32));
        }
    }
    written(&network.quantized_by(quantization))
}

fn drawn(input: NetworkInput, parts: &[Part]) -> Network<i16> {
    let mut shape = match &input {
        NetworkInput::Image(shape) => *shape,
        NetworkInput::Features { means, .. } => Shape::flat(means.len() as u16),
    };
    let mut layers = Vec::with_capacity(parts.len());
    for (seed, part) in (1u32..).zip(parts) {
        layers.push(match *part {
            Part::Conv(kernel) => {
                let fan_in = shape.channels * kernel.height * kernel.width;
                let channels = kernel.out_channels;
                shape = kernel.output(shape);
                NetworkLayer::Conv2d(kernel, weights(fan_in.into(), channels.into(), seed))
            }
            Part::Dense(outputs) => {
                let fan_in = shape.values();
                shape = Shape::flat(outputs);
                NetworkLayer::Dense(weights(fan_in, outputs.into(), seed))
            }
            Part::Square => NetworkLayer::Polynomial(vec![0.0, 0.0, 1.0]),
            Part::Polynomial(coefficients) => NetworkLayer::Polynomial(coefficients.to_vec()),
        });
    }
    Network {
        name: "drawn".to_owned(),
        input,
        layers,
    }
}

/// The file, with ranges over [`SAMPLES`] samples.
fn written(network: &Network<i16>) -> Vec<u8> {
    let draft = network.draft().unwrap();
    let model = Model::parse(&draft).unwrap();
    let samples: Vec<Drawn> = (0..SAMPLES)
        .map(|k| Drawn::of(&model, FIRST_SAMPLE + k))
        .collect();
    let samples = samples.iter().map(|drawn| (drawn.sample(), 0));
    let measured = clear::measure(&model, samples).unwrap();
    network.file(&measured.ranges).unwrap()
}

/// Weights within -120 .. 120, whose sums stay near 1.
fn weights(fan_in: usize, rows: usize, seed: u32) -> Weights<i16> {
    let small = |b: u8| ((i32::from(b) - 128) * 15 / 16) as i16;
    let drawn = bytes(fan_in * rows, seed).into_iter().map(small);
    let biases = bytes(rows, 100 + seed).into_iter();
    Weights {
        weights: drawn.collect(),
        scale: 1.0 / (120.0 * (fan_in as f32).sqrt().max(1.0)),
        multipliers: Vec::new(),
        biases: biases.map(|b| f32::from(b) / 256.0 - 0.5).collect(),
    }
}

/// A sample, drawn for what a network takes.
#[derive(Clone, Debug)]
pub enum Drawn {
    /// Of an image.
    Pixels(Vec<u8>),
    /// As they are before standardisation.
    Features(Vec<f32>),
}

impl Drawn {
    /// A sample for this network; features lie within 1.5 deviations of their means.
    #[must_use]
    pub fn of(model: &Model<'_>, seed: u32) -> Self {
        let noise = bytes(model.inputs(), seed);
        match model.input() {
            Input::Image(_) => Self::Pixels(noise),
            Input::Features { means, deviations } => {
                let units = noise
                    .into_iter()
                    .map(|b| 1.5 * (f32::from(b) / 128.0 - 1.0));
                let lines = means.iter().zip(deviations.iter()).zip(units);
                Self::Features(lines.map(|((m, d), unit)| m + d * unit).collect())
            }
        }
    }

    /// As a network takes it.
    #[must_use]
    pub fn sample(&self) -> Sample<'_> {
        match self {
            Self::Pixels(pixels) => Sample::Pixels(pixels),
            Self::Features(features) => Sample::Features(features),
        }
    }
}
