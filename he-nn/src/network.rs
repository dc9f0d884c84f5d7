//! Networks while they are made, by training or from another format: float
//! weights, their rounding to 8 bits, and the folding of activations of degree
//! 2 into squares (see [`crate::model`]).

use crate::model::{Floats, Input, Kernel, Layer, Linear, ModelError, ModelParts, Shape};

/// The largest weight in 8 bits.
pub const MAX_WEIGHT: f32 = 127.0;

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
    /// Real value of a weight of 1.
    pub scale: f32,
    /// One per output or output channel.
    pub biases: Vec<f32>,
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

/// A network with weights of type `T`: `f32`, or `i8` once quantized.
#[derive(Clone, Debug, PartialEq)]
pub struct Network<T> {
    /// Name of the model.
    pub name: String,
    /// What it takes.
    pub input: NetworkInput,
    /// Its layers.
    pub layers: Vec<NetworkLayer<T>>,
}

/// The scale of symmetric 8-bit weights.
#[must_use]
pub fn weight_scale(largest: f32) -> f32 {
    (largest / MAX_WEIGHT).max(f32::MIN_POSITIVE)
}

/// Symmetric 8-bit weights and their scale.
#[must_use]
pub fn quantize(weights: &[f32]) -> (Vec<i8>, f32) {
    let scale = weight_scale(weights.iter().fold(0.0, |max: f32, w| max.max(w.abs())));
    let quantized = weights
        .iter()
        .map(|w| (w / scale).round().clamp(-MAX_WEIGHT, MAX_WEIGHT));
    (quantized.map(|w| w as i8).collect(), scale)
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
            let scale = f64::from(first.scale);
            let rows = first.weights.chunks_mut(expected.max(1));
            for (row, bias) in rows.zip(&mut first.biases) {
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

    /// The same with weights of 8 bits, and activations folded.
    #[must_use]
    pub fn quantized(self) -> Network<i8> {
        let rounded = |weights: Weights<f32>| {
            let (quantized, scale) = quantize(&weights.weights);
            Weights {
                weights: quantized,
                scale: scale * weights.scale,
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

impl Network<i8> {
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
            let columns = after.weights.len() / after.biases.len();
            for (bias, row) in after
                .biases
                .iter_mut()
                .zip(after.weights.chunks_exact(columns.max(1)))
            {
                let sum: i32 = row.iter().map(|&w| i32::from(w)).sum();
                *bias += constant * after.scale * sum as f32;
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
                (Some(w), _) => (
                    w.weights.iter().map(|w| w.cast_unsigned()).collect(),
                    little_endian(&w.biases),
                ),
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
                let linear = |scale| Linear {
                    scale,
                    weights,
                    biases: Floats::new(floats),
                };
                match layer {
                    NetworkLayer::Conv2d(kernel, w) => Layer::Conv2d {
                        kernel: *kernel,
                        linear: linear(w.scale),
                        range,
                    },
                    NetworkLayer::Dense(w) => Layer::Dense {
                        // What does not fit does not have so many biases either.
                        outputs: u16::try_from(w.biases.len()).unwrap_or(u16::MAX),
                        linear: linear(w.scale),
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

#[cfg(test)]
mod tests {
    use crate::model::{Model, Padding};

    use super::*;
    use crate::clear;

    fn small(coefficients: Vec<f32>) -> Network<f32> {
        let weights = |weights: &[f32], biases: &[f32]| Weights {
            weights: weights.to_vec(),
            scale: 1.0,
            biases: biases.to_vec(),
        };
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
            let logits = |network: &Network<i8>| {
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
            let weights = Weights {
                weights: vec![0.5, -1.0, 1.27, 0.3],
                scale: 1.0,
                biases: vec![0.5],
            };
            let NetworkLayer::Dense(mut last) = network.layers.remove(2) else {
                panic!("{network:?}");
            };
            last.weights = vec![1.27, -0.5, 0.25, 0.1, -0.3, 0.7];
            network.layers.push(NetworkLayer::Conv2d(kernel, weights));
            network.layers.push(NetworkLayer::Dense(last));
            network
        };
        let logits = |network: &Network<i8>| {
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
        let (quantized, scale) = quantize(&[0.3, -1.27, 0.004, 0.0, 1.0, -0.6]);
        assert_eq!(quantized, [30, -127, 0, 0, 100, -60]);
        assert!((scale - 0.01).abs() < 1e-9);
        assert_eq!(quantize(&[0.0; 3]).0, [0; 3]);
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
