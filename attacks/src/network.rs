//! Networks that can be differentiated, by candle.
//!
//! A [`Differentiable`] is built from a [`Model`] or a [`Network`] and computes what
//! they compute, in `f64`, so that gradients do not vanish where single precision
//! would round a confident softmax to 1: a gradient masked by rounding would make an
//! attack look like a defence. In `f32` it is what [`crate::trainer`] trains.

use candle_core::{DType, Device, Tensor, Var};
use chacha20::ChaCha8Rng;
use he_nn::data::{CLASSES, SIDE};
use he_nn::model::{Input, Kernel, Layer, Model, ModelError, Shape};
use he_nn::network::{Network, NetworkInput, NetworkLayer, Weights};
use he_nn::train::LayerSpec;
use rand_core::SeedableRng;

use crate::random;
use crate::target::{Activation, Rows};

/// Why there is no such network, or no value of it.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The file holds no sound network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A layer whose weights do not fit what it takes.
    #[error("layer {layer} has {got} weights and needs {expected}")]
    Weights {
        /// Which layer.
        layer: usize,
        /// Weights that its input and its biases ask for.
        expected: usize,
        /// Weights that it has.
        got: usize,
    },
    /// A kernel that is larger than what it slides over, or has no stride.
    #[error("the kernel of layer {layer} does not fit its input")]
    Kernel {
        /// Which layer.
        layer: usize,
    },
    /// A convolution where dense layers alone can be trained so.
    #[error("layer {layer} is a convolution; per-sample gradients are of dense layers alone")]
    NotDense {
        /// Which layer.
        layer: usize,
    },
    /// The machine learning library failed.
    #[error("a tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// A dense layer in an evaluation, for the gradients of every sample.
#[derive(Clone, Debug)]
pub struct Traced {
    /// What it takes: `(samples, inputs)`, without a history.
    pub input: Tensor,
    /// Zeros added to what it gives: the gradient with respect to them is that of every
    /// sample's outputs.
    pub probe: Var,
    /// Its weights, `(outputs, inputs)`.
    pub weights: Var,
    /// Its biases.
    pub biases: Var,
}

/// A layer, with its weights as variables.
#[derive(Clone, Debug)]
enum Op {
    /// `(x - mean) / deviation` of every feature.
    Standardise {
        means: Tensor,
        deviations: Tensor,
    },
    /// Patches times weights.
    Conv2d {
        kernel: Kernel,
        /// Which input every entry of every patch is: place by place.
        patches: Tensor,
        places: usize,
        weights: Var,
        biases: Var,
    },
    Dense {
        weights: Var,
        biases: Var,
    },
    /// Coefficients from the constant up, each a vector of one.
    Polynomial(Vec<Var>),
    Relu,
}

/// A network in floating point. Clones share their variables.
#[derive(Clone, Debug)]
pub struct Differentiable {
    input: Shape,
    inputs: usize,
    outputs: usize,
    dtype: DType,
    ops: Vec<Op>,
}

/// A network as it grows, layer by layer.
struct Builder {
    shape: Shape,
    dtype: DType,
    ops: Vec<Op>,
    input: Shape,
}

impl Builder {
    const fn new(input: Shape, dtype: DType) -> Self {
        Self {
            shape: input,
            dtype,
            ops: Vec::new(),
            input,
        }
    }

    fn tensor(
        &self,
        values: Vec<f64>,
        shape: impl Into<candle_core::Shape>,
    ) -> Result<Tensor, NetworkError> {
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?)
    }

    fn var(
        &self,
        values: Vec<f64>,
        shape: impl Into<candle_core::Shape>,
    ) -> Result<Var, NetworkError> {
        Ok(Var::from_tensor(&self.tensor(values, shape)?)?)
    }

    fn standardise(&mut self, means: Vec<f64>, deviations: Vec<f64>) -> Result<(), NetworkError> {
        let width = means.len();
        let means = self.tensor(means, width)?;
        let deviations = self.tensor(deviations, width)?;
        self.ops.push(Op::Standardise { means, deviations });
        Ok(())
    }

    fn check(&self, got: usize, expected: usize) -> Result<(), NetworkError> {
        if got == expected {
            return Ok(());
        }
        let layer = self.ops.len();
        Err(NetworkError::Weights {
            layer,
            expected,
            got,
        })
    }

    /// What a convolution of this kernel takes per output: rows of weights are so long.
    fn window(&self, kernel: Kernel) -> usize {
        usize::from(self.shape.channels) * usize::from(kernel.height) * usize::from(kernel.width)
    }

    fn conv2d(
        &mut self,
        kernel: Kernel,
        weights: Vec<f64>,
        biases: Vec<f64>,
    ) -> Result<(), NetworkError> {
        let layer = self.ops.len();
        let window = self.window(kernel);
        let channels = usize::from(kernel.out_channels);
        self.check(weights.len(), channels * window)?;
        self.check(biases.len(), channels)?;
        let Shape {
            channels: planes,
            height,
            width,
        } = self.shape;
        let unfit = || NetworkError::Kernel { layer };
        // Tested in the clear and by the plan as well: a kernel no larger than its input.
        let fits = |side: u16, of_kernel: u16| of_kernel >= 1 && of_kernel <= side;
        if kernel.stride == 0 || !fits(height, kernel.height) || !fits(width, kernel.width) {
            return Err(unfit());
        }
        let shape = self.shape;
        let output = kernel.output(shape);
        let (rows, columns) = (usize::from(output.height), usize::from(output.width));
        // What lies in the padding is the zero that stands behind the input.
        let zero = shape.values() as u32;
        let mut indices = Vec::with_capacity(rows * columns * window);
        for row in 0..rows {
            for column in 0..columns {
                for plane in 0..usize::from(planes) {
                    for y in 0..usize::from(kernel.height) {
                        for x in 0..usize::from(kernel.width) {
                            let line = kernel.rows(shape, row).source(y);
                            let place = kernel.columns(shape, column).source(x);
                            let source = line.zip(place).map(|(line, place)| {
                                let line = plane * usize::from(height) + line;
                                (line * usize::from(width) + place) as u32
                            });
                            indices.push(source.unwrap_or(zero));
                        }
                    }
                }
            }
        }
        let count = indices.len();
        self.ops.push(Op::Conv2d {
            kernel,
            patches: Tensor::from_vec(indices, count, &Device::Cpu)?,
            places: rows * columns,
            weights: self.var(weights, (channels, window))?,
            biases: self.var(biases, channels)?,
        });
        self.shape = Shape {
            channels: kernel.out_channels,
            height: rows as u16,
            width: columns as u16,
        };
        Ok(())
    }

    fn dense(&mut self, weights: Vec<f64>, biases: Vec<f64>) -> Result<(), NetworkError> {
        let (outputs, inputs) = (biases.len(), self.shape.values());
        self.check(weights.len(), outputs * inputs)?;
        self.ops.push(Op::Dense {
            weights: self.var(weights, (outputs, inputs))?,
            biases: self.var(biases, outputs)?,
        });
        self.shape = Shape::flat(outputs as u16);
        Ok(())
    }

    fn polynomial(
        &mut self,
        coefficients: impl IntoIterator<Item = f64>,
    ) -> Result<(), NetworkError> {
        let vars = coefficients.into_iter().map(|c| self.var(vec![c], 1));
        let vars = vars.collect::<Result<_, _>>()?;
        self.ops.push(Op::Polynomial(vars));
        Ok(())
    }

    fn finish(self) -> Differentiable {
        Differentiable {
            input: self.input,
            inputs: self.input.values(),
            outputs: self.shape.values(),
            dtype: self.dtype,
            ops: self.ops,
        }
    }
}

impl Differentiable {
    /// The network of a model, in `f64`.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn from_model(model: &Model<'_>) -> Result<Self, NetworkError> {
        let mut builder = Builder::new(model.input().shape(), DType::F64);
        if let Input::Features { means, deviations } = model.input() {
            let [means, deviations] =
                [means, deviations].map(|row| row.iter().map(f64::from).collect());
            builder.standardise(means, deviations)?;
        }
        for view in model.layers() {
            let linear = view.layer.linear().map(|linear| {
                let weights = linear.values(view.layer.fan_in(view.input));
                (
                    weights.collect(),
                    linear.biases.iter().map(f64::from).collect(),
                )
            });
            match (view.layer, linear) {
                (Layer::Conv2d { kernel, .. }, Some((weights, biases))) => {
                    builder.conv2d(kernel, weights, biases)?;
                }
                (_, Some((weights, biases))) => builder.dense(weights, biases)?,
                (Layer::Polynomial { coefficients, .. }, None) => {
                    builder.polynomial(coefficients.iter().map(f64::from))?;
                }
                (_, None) => builder.ops.push(Op::Relu),
            }
        }
        Ok(builder.finish())
    }

    /// A network in floating point, or with quantized weights, in `f64`.
    ///
    /// # Errors
    /// [`NetworkError`] for one whose layers do not fit each other.
    pub fn from_network<T: Copy + Into<f64>>(network: &Network<T>) -> Result<Self, NetworkError> {
        let wide = |row: &[f32]| row.iter().copied().map(f64::from).collect::<Vec<f64>>();
        let linear = |weights: &Weights<T>| (weights.values().collect(), wide(&weights.biases));
        let shape = match &network.input {
            NetworkInput::Image(shape) => *shape,
            NetworkInput::Features { means, .. } => Shape::flat(means.len() as u16),
        };
        let mut builder = Builder::new(shape, DType::F64);
        if let NetworkInput::Features { means, deviations } = &network.input {
            builder.standardise(wide(means), wide(deviations))?;
        }
        for layer in &network.layers {
            match layer {
                NetworkLayer::Conv2d(kernel, weights) => {
                    let (weights, biases) = linear(weights);
                    builder.conv2d(*kernel, weights, biases)?;
                }
                NetworkLayer::Dense(weights) => {
                    let (weights, biases) = linear(weights);
                    builder.dense(weights, biases)?;
                }
                NetworkLayer::Polynomial(coefficients) => builder.polynomial(wide(coefficients))?,
                NetworkLayer::Relu => builder.ops.push(Op::Relu),
            }
        }
        Ok(builder.finish())
    }

    /// A network to be trained, in `f32`: He's initial weights (arXiv:1502.01852,
    /// uniform), biases 0, and activations `x^2/4 + x/2` for [`LayerSpec::Square`].
    ///
    /// # Errors
    /// [`NetworkError`] for a kernel that does not fit.
    pub fn untrained(input: Shape, layers: &[LayerSpec], seed: u64) -> Result<Self, NetworkError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut weights = |rows: usize, columns: usize| {
            let bound = (6.0 / columns.max(1) as f64).sqrt();
            let mut draw = || bound * 2.0f64.mul_add(random::uniform(&mut rng), -1.0);
            (0..rows * columns).map(|_| draw()).collect::<Vec<f64>>()
        };
        let mut builder = Builder::new(input, DType::F32);
        for layer in layers {
            match *layer {
                LayerSpec::Conv2d(kernel) => {
                    let channels = usize::from(kernel.out_channels);
                    let weights = weights(channels, builder.window(kernel));
                    builder.conv2d(kernel, weights, vec![0.0; channels])?;
                }
                LayerSpec::Dense(outputs) | LayerSpec::Unbiased(outputs) => {
                    let outputs = usize::from(outputs);
                    let weights = weights(outputs, builder.shape.values());
                    builder.dense(weights, vec![0.0; outputs])?;
                }
                LayerSpec::Square | LayerSpec::ScaledSquare => {
                    builder.polynomial([0.0, 0.5, 0.25])?;
                }
                LayerSpec::Relu => builder.ops.push(Op::Relu),
            }
        }
        Ok(builder.finish())
    }

    /// A network for images with one hidden layer, to be trained: what a shadow model
    /// or a surrogate is.
    ///
    /// # Errors
    /// As [`Self::untrained`].
    pub fn one_hidden(
        hidden: u16,
        activation: Activation,
        seed: u64,
    ) -> Result<Self, NetworkError> {
        let image = Shape {
            channels: 1,
            height: SIDE as u16,
            width: SIDE as u16,
        };
        let between = match activation {
            Activation::Polynomial => LayerSpec::Square,
            Activation::Relu => LayerSpec::Relu,
        };
        let layers = [
            LayerSpec::Dense(hidden),
            between,
            LayerSpec::Dense(CLASSES as u16),
        ];
        Self::untrained(image, &layers, seed)
    }

    /// The same network with this polynomial, from the constant up, in place of each that it
    /// has; weights stay the same variables.
    ///
    /// # Errors
    /// [`NetworkError::Tensor`].
    pub fn with_polynomial(mut self, coefficients: &[f64]) -> Result<Self, NetworkError> {
        let var = |c: &f64| {
            let tensor = Tensor::from_vec(vec![*c], 1, &Device::Cpu)?;
            Var::from_tensor(&tensor.to_dtype(self.dtype)?)
        };
        for op in &mut self.ops {
            if let Op::Polynomial(old) = op {
                *old = coefficients
                    .iter()
                    .map(var)
                    .collect::<candle_core::Result<_>>()?;
            }
        }
        Ok(self)
    }

    /// The same network in `f64` with variables of its own.
    ///
    /// # Errors
    /// [`NetworkError::Tensor`].
    pub fn precise(&self) -> Result<Self, NetworkError> {
        let wide = |var: &Var| Var::from_tensor(&var.to_dtype(DType::F64)?.copy()?);
        let ops = self.ops.iter().map(|op| {
            Ok(match op {
                Op::Standardise { means, deviations } => Op::Standardise {
                    means: means.to_dtype(DType::F64)?,
                    deviations: deviations.to_dtype(DType::F64)?,
                },
                Op::Conv2d {
                    kernel,
                    patches,
                    places,
                    weights,
                    biases,
                } => Op::Conv2d {
                    kernel: *kernel,
                    patches: patches.clone(),
                    places: *places,
                    weights: wide(weights)?,
                    biases: wide(biases)?,
                },
                Op::Dense { weights, biases } => Op::Dense {
                    weights: wide(weights)?,
                    biases: wide(biases)?,
                },
                Op::Polynomial(coefficients) => {
                    let wide = coefficients.iter().map(wide);
                    Op::Polynomial(wide.collect::<candle_core::Result<_>>()?)
                }
                Op::Relu => Op::Relu,
            })
        });
        Ok(Self {
            ops: ops.collect::<candle_core::Result<_>>()?,
            dtype: DType::F64,
            ..*self
        })
    }

    /// Back to a [`Network`], to quantize it and write its file.
    ///
    /// # Errors
    /// [`NetworkError::Tensor`].
    pub fn to_network(&self, name: &str) -> Result<Network<f32>, NetworkError> {
        let row = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
        let linear = |weights: &Var, biases: &Var| {
            candle_core::Result::Ok(Weights::new(row(weights)?, row(biases)?))
        };
        let mut input = NetworkInput::Image(self.input);
        let mut layers = Vec::new();
        for op in &self.ops {
            layers.push(match op {
                Op::Standardise { means, deviations } => {
                    input = NetworkInput::Features {
                        means: row(means)?,
                        deviations: row(deviations)?,
                    };
                    continue;
                }
                Op::Conv2d {
                    kernel,
                    weights,
                    biases,
                    ..
                } => NetworkLayer::Conv2d(*kernel, linear(weights, biases)?),
                Op::Dense { weights, biases } => NetworkLayer::Dense(linear(weights, biases)?),
                Op::Polynomial(coefficients) => {
                    let values = coefficients.iter().map(|c| row(c));
                    let values: Vec<Vec<f32>> = values.collect::<candle_core::Result<_>>()?;
                    NetworkLayer::Polynomial(values.concat())
                }
                Op::Relu => NetworkLayer::Relu,
            });
        }
        let name = name.to_owned();
        Ok(Network {
            name,
            input,
            layers,
        })
    }

    /// Values that it takes.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Logits that it gives.
    #[must_use]
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// Precision of its variables.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Everything that is learned.
    #[must_use]
    pub fn variables(&self) -> Vec<Var> {
        let of = |op: &Op| match op {
            Op::Conv2d {
                weights, biases, ..
            }
            | Op::Dense { weights, biases } => {
                vec![weights.clone(), biases.clone()]
            }
            Op::Polynomial(coefficients) => coefficients.clone(),
            Op::Standardise { .. } | Op::Relu => Vec::new(),
        };
        self.ops.iter().flat_map(of).collect()
    }

    /// Coefficients of the activations: what is learned beside the linear layers.
    #[must_use]
    pub fn coefficients(&self) -> Vec<Var> {
        let of = |op: &Op| match op {
            Op::Polynomial(coefficients) => coefficients.clone(),
            _ => Vec::new(),
        };
        self.ops.iter().flat_map(of).collect()
    }

    /// Evaluates a batch of a dense network as [`Self::forward`] does, and gives its
    /// layers for the gradients of every sample.
    ///
    /// # Errors
    /// [`NetworkError::NotDense`] for a convolution.
    pub fn traced(&self, batch: &Tensor) -> Result<(Tensor, Vec<Traced>), NetworkError> {
        let mut x = batch.clone();
        let mut layers = Vec::new();
        for (layer, op) in self.ops.iter().enumerate() {
            x = match op {
                Op::Dense { weights, biases } => {
                    let probe = Var::zeros((x.dim(0)?, weights.dim(0)?), x.dtype(), x.device())?;
                    layers.push(Traced {
                        input: x.detach(),
                        probe: probe.clone(),
                        weights: weights.clone(),
                        biases: biases.clone(),
                    });
                    let sums = x.matmul(&weights.t()?)?.broadcast_add(biases)?;
                    (sums + probe.as_tensor())?
                }
                Op::Standardise { means, deviations } => {
                    x.broadcast_sub(means)?.broadcast_div(deviations)?
                }
                Op::Polynomial(coefficients) => polynomial(coefficients, &x)?,
                Op::Relu => x.relu()?,
                Op::Conv2d { .. } => return Err(NetworkError::NotDense { layer }),
            };
        }
        Ok((x, layers))
    }

    /// Evaluates a batch: `(samples, inputs)` to `(samples, outputs)`.
    ///
    /// # Errors
    /// candle's, for a batch of another shape or precision.
    pub fn forward(&self, batch: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = batch.clone();
        for op in &self.ops {
            x = match op {
                Op::Standardise { means, deviations } => {
                    x.broadcast_sub(means)?.broadcast_div(deviations)?
                }
                Op::Conv2d {
                    patches,
                    places,
                    weights,
                    biases,
                    ..
                } => {
                    let (channels, window) = weights.dims2()?;
                    let zero = Tensor::zeros((x.dim(0)?, 1), x.dtype(), x.device())?;
                    let sums = Tensor::cat(&[&x, &zero], 1)?
                        .contiguous()?
                        .index_select(patches, 1)?
                        .reshape(((), window))?
                        .matmul(&weights.t()?)?
                        .broadcast_add(biases)?;
                    sums.reshape(((), *places, channels))?
                        .transpose(1, 2)?
                        .contiguous()?
                        .reshape(((), channels * places))?
                }
                Op::Dense { weights, biases } => x.matmul(&weights.t()?)?.broadcast_add(biases)?,
                Op::Polynomial(coefficients) => polynomial(coefficients, &x)?,
                Op::Relu => x.relu()?,
            };
        }
        Ok(x)
    }

    /// The logits of samples, at most `batch` at once.
    ///
    /// # Errors
    /// [`NetworkError::Tensor`].
    pub fn evaluate(&self, samples: &Rows, batch: usize) -> Result<Rows, NetworkError> {
        let mut logits = Vec::with_capacity(samples.len() * self.outputs);
        for part in samples.values().chunks(self.inputs * batch.max(1)) {
            let rows = self.batch(part)?;
            let out = self.forward(&rows)?.detach().to_dtype(DType::F64)?;
            logits.extend(out.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok(Rows::new(self.outputs, logits))
    }

    /// Samples as a tensor of this network's precision.
    ///
    /// # Errors
    /// candle's, for values that are no whole samples.
    pub fn batch(&self, values: &[f64]) -> candle_core::Result<Tensor> {
        let rows = values.len() / self.inputs.max(1);
        Tensor::from_slice(values, (rows, self.inputs), &Device::Cpu)?.to_dtype(self.dtype)
    }

    /// The gradient of a loss with respect to the input. `loss` gets the logits of all
    /// samples and gives one number; where it is a sum over samples, every row is the
    /// gradient of its own sample.
    ///
    /// # Errors
    /// candle's.
    pub fn input_gradient(
        &self,
        samples: &Tensor,
        loss: impl FnOnce(&Tensor) -> candle_core::Result<Tensor>,
    ) -> candle_core::Result<Tensor> {
        let input = Var::from_tensor(&samples.detach())?;
        let gradients = loss(&self.forward(&input)?)?.backward()?;
        let gradient = gradients.get(&input);
        gradient.map_or_else(|| samples.zeros_like(), |found| Ok(found.detach()))
    }
}

/// Horner's rule.
fn polynomial(coefficients: &[Var], x: &Tensor) -> candle_core::Result<Tensor> {
    let mut rest = coefficients.iter().rev();
    let Some(last) = rest.next() else {
        return x.zeros_like();
    };
    let mut sum = x.zeros_like()?.broadcast_add(last)?;
    for c in rest {
        sum = (sum * x)?.broadcast_add(c)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use he_nn::{bundled, clear, data};

    use super::*;
    use he_nn::model::Padding;

    #[test]
    fn logits_agree_with_the_clear_evaluation() {
        let digits = bundled::digits().unwrap();
        let samples = Rows::images(&digits.images);
        let mut largest = 0.0f64;
        for name in bundled::model_names() {
            let model = Model::parse(bundled::model(name).unwrap()).unwrap();
            if model.inputs() != data::PIXELS {
                continue;
            }
            let logits = Differentiable::from_model(&model).unwrap();
            let logits = logits.evaluate(&samples, 7).unwrap();
            for (image, row) in digits.images.iter().zip(logits.iter()) {
                for (a, b) in clear::logits(&model, image).unwrap().iter().zip(row) {
                    largest = largest.max((a - b).abs());
                }
            }
        }
        assert!(largest < 1e-9, "{largest}");
    }

    #[test]
    fn features_are_standardised() {
        let model = Model::parse(bundled::model("pima-logreg").unwrap()).unwrap();
        let row = [6.0f32, 148.0, 72.0, 35.0, 0.0, 33.6, 0.627, 50.0];
        let expected = clear::logits(&model, &row[..]).unwrap();
        let network = Differentiable::from_model(&model).unwrap();
        let samples = Rows::new(8, row.iter().copied().map(f64::from).collect());
        let got = network.evaluate(&samples, 1).unwrap();
        assert!((expected[0] - got.row(0)[0]).abs() < 1e-9);
    }

    /// Several channels, sides and strides that are not equal, a cubic.
    fn mixed() -> Network<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut weights = |rows: usize, columns: usize| Weights {
            weights: (0..rows * columns)
                .map(|_| random::normal(&mut rng) as f32)
                .collect(),
            scale: 0.3,
            multipliers: Vec::new(),
            biases: (0..rows).map(|i| 0.1 * i as f32).collect(),
        };
        let kernel = |out_channels, height, width, stride, (top, right)| Kernel {
            out_channels,
            height,
            width,
            stride,
            padding: Padding {
                top,
                right,
                ..Padding::NONE
            },
        };
        Network {
            name: "mixed".into(),
            input: NetworkInput::Image(Shape {
                channels: 2,
                height: 7,
                width: 9,
            }),
            layers: vec![
                NetworkLayer::Conv2d(kernel(3, 3, 2, 2, (0, 1)), weights(3, 12)),
                NetworkLayer::Polynomial(vec![0.1, 0.7, 0.2, -0.05]),
                NetworkLayer::Conv2d(kernel(2, 2, 3, 1, (1, 0)), weights(2, 18)),
                NetworkLayer::Relu,
                NetworkLayer::Dense(weights(4, 18)),
            ],
        }
    }

    #[test]
    fn a_network_and_its_file_are_the_same() {
        let quantized = mixed().quantized();
        let file = quantized.draft().unwrap();
        let model = Model::parse(&file).unwrap();
        let pixels: Vec<u8> = (0..126).map(|i| (i * 37 % 256) as u8).collect();
        let expected = clear::logits(&model, &pixels[..]).unwrap();
        let samples = Rows::new(126, pixels.iter().map(|&p| f64::from(p) / 255.0).collect());
        for network in [
            Differentiable::from_model(&model).unwrap(),
            Differentiable::from_network(&quantized).unwrap(),
        ] {
            let got = network.evaluate(&samples, 1).unwrap();
            for (a, b) in expected.iter().zip(got.row(0)) {
                assert!((a - b).abs() < 1e-9, "{expected:?} {got:?}");
            }
        }
        let back = Differentiable::from_network(&mixed())
            .unwrap()
            .to_network("mixed")
            .unwrap();
        assert_eq!(back.layers.len(), 5);
        let twice = Differentiable::from_network(&back).unwrap();
        let once = Differentiable::from_network(&mixed()).unwrap();
        let (a, b) = (
            once.evaluate(&samples, 1).unwrap(),
            twice.evaluate(&samples, 1).unwrap(),
        );
        for (a, b) in a.values().iter().zip(b.values()) {
            assert!((a - b).abs() < 1e-5);
        }
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let network = Differentiable::from_network(&mixed()).unwrap();
        let at: Vec<f64> = (0..252).map(|i| f64::from(i * 53 % 97) / 97.0).collect();
        let loss = |logits: &Tensor| logits.sqr()?.sum_all();
        let batch = network.batch(&at).unwrap();
        let gradient = network.input_gradient(&batch, loss).unwrap();
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let value = |at: &[f64]| {
            let logits = network.forward(&network.batch(at).unwrap()).unwrap();
            loss(&logits).unwrap().to_scalar::<f64>().unwrap()
        };
        for i in (0..252).step_by(11) {
            let shifted = |by: f64| {
                let mut at = at.clone();
                at[i] += by;
                value(&at)
            };
            let difference = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
            assert!(
                (difference - gradient[i]).abs() < 1e-5,
                "{i}: {difference} {}",
                gradient[i]
            );
        }
    }

    #[test]
    fn layers_that_do_not_fit_are_refused() {
        let mut network = mixed();
        network.layers.remove(0);
        let error = Differentiable::from_network(&network).unwrap_err();
        assert!(
            matches!(
                error,
                NetworkError::Weights {
                    layer: 1,
                    expected: 24,
                    got: 36
                }
            ),
            "{error}"
        );
    }
}
