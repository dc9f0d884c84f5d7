//! Training of one network on images.

use crate::model::{Kernel, Shape};
use candle_core::{D, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops::log_softmax};
use chacha20::ChaCha8Rng;
use rand_core::SeedableRng;

use super::augment::{augment, uniform};
use super::{Architecture, IMAGE, LayerSpec, Recipe, TrainError};
use crate::data::table::shuffle;
use crate::data::{CLASSES, Dataset, PIXELS, SIDE};
use crate::network::{MIN_CURVATURE, Network, NetworkInput, NetworkLayer, Quantization, Weights};
use crate::progress::Progress;

/// Images in one step of the optimizer.
const BATCH: usize = 128;

/// A layer as it is trained.
enum Stage {
    /// Over the patches of the image, for a convolution; it is the first layer.
    Conv2d {
        kernel: Kernel,
        weights: Var,
        biases: Var,
    },
    Dense {
        weights: Var,
        /// None for biases of zero.
        biases: Option<Var>,
    },
    /// `a`, `b` and `c` of `a x^2 + b x + c`, each a vector of one.
    Square([Var; 3]),
    /// `a` of `a x^2`, a vector of one.
    ScaledSquare(Var),
    Relu,
}

/// The network as it is trained.
pub(super) struct Trained {
    stages: Vec<Stage>,
}

/// What a batch gives.
struct Forward {
    logits: Tensor,
    /// The values that enter each activation, once it is folded.
    preactivations: Vec<Tensor>,
}

impl Trained {
    fn new(layers: &[LayerSpec], rng: &mut ChaCha8Rng) -> candle_core::Result<Self> {
        let mut weights = |rows: usize, columns: usize, bound: f32| {
            let values = (0..rows * columns).map(|_| bound * uniform(rng)).collect();
            Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
        };
        let vector = |value: f32, len: usize| {
            Var::from_tensor(&Tensor::from_vec(vec![value; len], len, &Device::Cpu)?)
        };
        let mut inputs = PIXELS;
        let mut stages = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let scaled = layers.get(index + 1) == Some(&LayerSpec::ScaledSquare);
            let bias = if scaled { 1.0 } else { 0.0 };
            // About a tenth of the pixels are lit: wider than for dense inputs.
            let gain = if index == 0 { 3.0 } else { 1.0 };
            stages.push(match *layer {
                LayerSpec::Conv2d(kernel) => {
                    let window = usize::from(kernel.height) * usize::from(kernel.width);
                    let channels = usize::from(kernel.out_channels);
                    inputs = kernel.output(IMAGE).values();
                    Stage::Conv2d {
                        kernel,
                        weights: weights(channels, window, gain / (window as f32).sqrt())?,
                        biases: vector(bias, channels)?,
                    }
                }
                LayerSpec::Dense(outputs) | LayerSpec::Unbiased(outputs) => {
                    let outputs = usize::from(outputs);
                    let biased = matches!(layer, LayerSpec::Dense(_));
                    let stage = Stage::Dense {
                        weights: weights(outputs, inputs, gain / (inputs as f32).sqrt())?,
                        biases: biased.then(|| vector(bias, outputs)).transpose()?,
                    };
                    inputs = outputs;
                    stage
                }
                LayerSpec::Square => {
                    Stage::Square([vector(0.25, 1)?, vector(0.5, 1)?, vector(0.0, 1)?])
                }
                LayerSpec::ScaledSquare => Stage::ScaledSquare(vector(0.25, 1)?),
                LayerSpec::Relu => Stage::Relu,
            });
        }
        Ok(Self { stages })
    }

    /// The kernel of the first layer, if that is a convolution.
    const fn first_kernel(&self) -> Option<Kernel> {
        match self.stages.as_slice() {
            [Stage::Conv2d { kernel, .. }, ..] => Some(*kernel),
            _ => None,
        }
    }

    /// Weights, and everything else that is learned.
    fn variables(&self) -> (Vec<Var>, Vec<Var>) {
        let (mut all_weights, mut others) = (Vec::new(), Vec::new());
        for stage in &self.stages {
            match stage {
                Stage::Conv2d {
                    weights, biases, ..
                } => {
                    all_weights.push(weights.clone());
                    others.push(biases.clone());
                }
                Stage::Dense { weights, biases } => {
                    all_weights.push(weights.clone());
                    others.extend(biases.clone());
                }
                Stage::Square(coefficients) => others.extend(coefficients.iter().cloned()),
                Stage::ScaledSquare(a) => others.push(a.clone()),
                Stage::Relu => {}
            }
        }
        (all_weights, others)
    }

    /// Evaluates a batch: one image per row, or one patch per row where the first layer
    /// is a convolution.
    fn forward(&self, inputs: &Tensor) -> candle_core::Result<Forward> {
        let mut x = inputs.clone();
        let mut preactivations = Vec::new();
        for stage in &self.stages {
            x = match stage {
                Stage::Conv2d {
                    kernel,
                    weights,
                    biases,
                } => {
                    let sums = x.matmul(&rounded(weights)?.t()?)?.broadcast_add(biases)?;
                    let Shape { height, width, .. } = kernel.output(IMAGE);
                    let places = usize::from(height) * usize::from(width);
                    let channels = usize::from(kernel.out_channels);
                    sums.reshape(((), places, channels))?
                        .transpose(1, 2)?
                        .contiguous()?
                        .reshape(((), channels * places))?
                }
                Stage::Dense { weights, biases } => {
                    let sums = x.matmul(&rounded(weights)?.t()?)?;
                    match biases {
                        Some(biases) => sums.broadcast_add(biases)?,
                        None => sums,
                    }
                }
                Stage::Square([a, b, c]) => {
                    let shift = (b.as_tensor() / (a.as_tensor() * 2.0)?)?;
                    preactivations.push(x.broadcast_add(&shift)?);
                    (x.sqr()?.broadcast_mul(a)? + x.broadcast_mul(b)?)?.broadcast_add(c)?
                }
                Stage::ScaledSquare(a) => {
                    preactivations.push(x.clone());
                    x.sqr()?.broadcast_mul(a)?
                }
                Stage::Relu => {
                    preactivations.push(x.clone());
                    x.relu()?
                }
            };
        }
        Ok(Forward {
            logits: x,
            preactivations,
        })
    }

    /// `a`, `b` and `c` of every learned activation.
    pub(super) fn activations(&self) -> candle_core::Result<Vec<[f32; 3]>> {
        let scalar = |var: &Var| var.max_all()?.to_scalar::<f32>();
        let of_stage = |stage: &Stage| match stage {
            Stage::Square([a, b, c]) => Some([scalar(a), scalar(b), scalar(c)]),
            Stage::ScaledSquare(a) => Some([scalar(a), Ok(0.0), Ok(0.0)]),
            _ => None,
        };
        let activations = self.stages.iter().filter_map(of_stage);
        activations.map(|[a, b, c]| Ok([a?, b?, c?])).collect()
    }

    /// The network as it was trained, its activations being folded.
    pub(super) fn network(&self, name: &str) -> Result<Network<i16>, TrainError> {
        if let Some([a, ..]) = self
            .activations()?
            .into_iter()
            .find(|[a, ..]| a.abs() < MIN_CURVATURE)
        {
            return Err(TrainError::Straight { a });
        }
        let linear = |weights: &Var, biases: Option<&Var>| {
            let biases = match biases {
                Some(biases) => biases.to_vec1::<f32>()?,
                None => vec![0.0; weights.dim(0)?],
            };
            let weights = weights.flatten_all()?.to_vec1::<f32>()?;
            candle_core::Result::Ok(Weights::new(weights, biases))
        };
        let mut activations = self.activations()?.into_iter();
        let mut layers = Vec::new();
        for stage in &self.stages {
            layers.push(match stage {
                Stage::Conv2d {
                    kernel,
                    weights,
                    biases,
                } => NetworkLayer::Conv2d(*kernel, linear(weights, Some(biases))?),
                Stage::Dense { weights, biases } => {
                    NetworkLayer::Dense(linear(weights, biases.as_ref())?)
                }
                Stage::Square(_) | Stage::ScaledSquare(_) => {
                    let [a, b, c] = activations.next().unwrap_or_default();
                    NetworkLayer::Polynomial(vec![c, b, a])
                }
                Stage::Relu => NetworkLayer::Relu,
            });
        }
        let network = Network {
            name: name.to_owned(),
            input: NetworkInput::Image(IMAGE),
            layers,
        };
        Ok(network.quantized())
    }
}

/// Trains a network.
pub(super) fn fit(
    architecture: &Architecture,
    recipe: &Recipe,
    train: &Dataset,
    progress: &mut dyn Progress,
) -> Result<Trained, TrainError> {
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
    let network = Trained::new(architecture.layers, &mut rng)?;
    let params = |weight_decay| ParamsAdamW {
        lr: recipe.learning_rate,
        weight_decay,
        ..ParamsAdamW::default()
    };
    let (weights, others) = network.variables();
    let mut optimizers = [
        AdamW::new(weights, params(recipe.weight_decay))?,
        AdamW::new(others, params(0.0))?,
    ];

    let mut order: Vec<usize> = (0..train.images.len()).collect();
    let steps_per_epoch = order.len().div_ceil(BATCH);
    progress.start((recipe.epochs * steps_per_epoch) as u64);
    for epoch in 0..recipe.epochs {
        shuffle(&mut order, &mut rng);
        let mut total = 0.0;
        for (step, indices) in order.chunks(BATCH).enumerate() {
            let passed = epoch as f64 + step as f64 / steps_per_epoch as f64;
            for optimizer in &mut optimizers {
                optimizer.set_learning_rate(learning_rate(recipe, passed));
            }
            let kernel = network.first_kernel();
            let (inputs, targets) = batch(train, indices, recipe, kernel, &mut rng)?;
            let loss = loss(&network.forward(&inputs)?, &targets, recipe)?;
            let gradients = loss.backward()?;
            for optimizer in &mut optimizers {
                optimizer.step(&gradients)?;
            }
            total += loss.to_scalar::<f32>()?;
            progress.advance(1);
        }
        let loss = total / steps_per_epoch as f32;
        if !loss.is_finite() {
            return Err(TrainError::Diverged {
                epoch: epoch + 1,
                loss,
            });
        }
        progress.note(&format!("epoch {}: loss {loss:.4}", epoch + 1));
    }
    Ok(network)
}

/// Cross-entropy and the soft limits.
fn loss(forward: &Forward, targets: &Tensor, recipe: &Recipe) -> candle_core::Result<Tensor> {
    let logits = &forward.logits;
    let cross_entropy = (log_softmax(logits, D::Minus1)? * targets)?
        .sum(D::Minus1)?
        .neg()?;
    let beyond = |values: &Tensor, limit: f64| {
        ((values.abs()? / limit)? - 1.0)?
            .relu()?
            .sqr()?
            .sum(D::Minus1)
    };
    let mut loss = cross_entropy;
    for values in &forward.preactivations {
        loss = (loss + beyond(values, recipe.preactivation_limit)?)?;
    }
    (loss + beyond(logits, recipe.logit_limit)?)?.mean_all()
}

/// Learning rate after so many epochs.
fn learning_rate(recipe: &Recipe, epochs: f64) -> f64 {
    let warm_up = epochs.min(1.0);
    let cosine = (std::f64::consts::PI * epochs / recipe.epochs as f64).cos();
    recipe.learning_rate * warm_up * 0.5 * (1.0 + cosine)
}

/// Augmented images or, for a kernel, their patches; and their labels one-hot.
fn batch(
    data: &Dataset,
    indices: &[usize],
    recipe: &Recipe,
    kernel: Option<Kernel>,
    rng: &mut ChaCha8Rng,
) -> candle_core::Result<(Tensor, Tensor)> {
    let mut images = vec![0.0; indices.len() * PIXELS];
    let mut targets = vec![0.0f32; indices.len() * CLASSES];
    let rows = images
        .chunks_exact_mut(PIXELS)
        .zip(targets.chunks_exact_mut(CLASSES));
    for (&index, (image, target)) in indices.iter().zip(rows) {
        augment(&data.images[index], &recipe.augmentation, rng, image);
        target[usize::from(data.labels[index])] = 1.0;
    }
    let (inputs, columns) = match kernel {
        None => (images, PIXELS),
        Some(kernel) => {
            let sources = windows(kernel);
            let patches = images.chunks_exact(PIXELS).flat_map(|image| {
                let pixel = |source: &Option<usize>| source.map_or(0.0, |at| image[at]);
                sources.iter().map(pixel)
            });
            let window = usize::from(kernel.height) * usize::from(kernel.width);
            (patches.collect(), window)
        }
    };
    let rows = inputs.len() / columns;
    Ok((
        Tensor::from_vec(inputs, (rows, columns), &Device::Cpu)?,
        Tensor::from_vec(targets, (indices.len(), CLASSES), &Device::Cpu)?,
    ))
}

/// The pixels that a kernel sees of an image, place by place; none in the padding.
fn windows(kernel: Kernel) -> Vec<Option<usize>> {
    let places = kernel.output(IMAGE);
    let mut sources = Vec::new();
    for y in 0..usize::from(places.height) {
        let rows = kernel.rows(IMAGE, y);
        for x in 0..usize::from(places.width) {
            let columns = kernel.columns(IMAGE, x);
            for ky in 0..usize::from(kernel.height) {
                for kx in 0..usize::from(kernel.width) {
                    let source = rows.source(ky).zip(columns.source(kx));
                    sources.push(source.map(|(row, column)| row * SIDE + column));
                }
            }
        }
    }
    sources
}

/// Weights rounded to 8 bits, with the gradient of the weights themselves.
fn rounded(weights: &Var) -> candle_core::Result<Tensor> {
    let largest = weights.abs()?.max_all()?.to_scalar::<f32>()?;
    let scale = f64::from(Quantization::USUAL.scale(largest));
    let rounded = ((weights.as_tensor() / scale)?.round()? * scale)?;
    weights.as_tensor() + (rounded - weights.as_tensor())?.detach()
}

#[cfg(test)]
mod tests {
    use crate::model::{Model, Padding};

    use super::super::ARCHITECTURES;
    use super::*;
    use crate::clear;

    fn set(var: &Var, value: f32) {
        let values = Tensor::from_vec(vec![value], 1, &Device::Cpu).unwrap();
        var.set(&values).unwrap();
    }

    const KERNEL: Kernel = Kernel {
        out_channels: 3,
        height: 5,
        width: 4,
        stride: 3,
        padding: Padding::NONE,
    };

    /// More padding on one side of either axis than on the other.
    const PADDED: Kernel = Kernel {
        padding: Padding {
            top: 1,
            bottom: 4,
            left: 3,
            right: 2,
        },
        ..KERNEL
    };

    #[test]
    fn the_file_computes_what_was_trained() {
        let data = super::super::tests::bars(20, 4);
        let recipe = Recipe {
            augmentation: super::super::augment::Augmentation {
                shift: 0.0,
                rotation: 0.0,
                scale: 0.0,
                mirror: false,
            },
            ..super::super::tests::RECIPE
        };
        let indices: Vec<usize> = (0..20).collect();
        for layers in [
            &[LayerSpec::Dense(8), LayerSpec::Square, LayerSpec::Dense(10)][..],
            &[
                LayerSpec::Conv2d(KERNEL),
                LayerSpec::Square,
                LayerSpec::Dense(6),
                LayerSpec::Square,
                LayerSpec::Dense(10),
            ],
            &[
                LayerSpec::Conv2d(KERNEL),
                LayerSpec::Dense(6),
                LayerSpec::Relu,
                LayerSpec::Dense(10),
            ],
            &[
                LayerSpec::Conv2d(PADDED),
                LayerSpec::Square,
                LayerSpec::Dense(6),
                LayerSpec::ScaledSquare,
                LayerSpec::Unbiased(10),
            ],
        ] {
            // Both signs of the curvature, since the weights carry it.
            for a in [0.3f32, -0.4] {
                let mut rng = ChaCha8Rng::seed_from_u64(3);
                let trained = Trained::new(layers, &mut rng).unwrap();
                for stage in &trained.stages {
                    match stage {
                        Stage::Square(coefficients) => {
                            set(&coefficients[0], a);
                            set(&coefficients[1], 0.7);
                            set(&coefficients[2], -0.2);
                        }
                        Stage::ScaledSquare(coefficient) => set(coefficient, a),
                        _ => {}
                    }
                }
                let kernel = trained.first_kernel();
                let (inputs, _) = batch(&data, &indices, &recipe, kernel, &mut rng).unwrap();
                let forward = trained.forward(&inputs).unwrap();
                let logits: Vec<Vec<f32>> = forward.logits.to_vec2().unwrap();

                let file = trained.network("small").unwrap().draft().unwrap();
                let model = Model::parse(&file).unwrap();
                assert_eq!(model.layer_count(), layers.len());
                let biases = model
                    .layers()
                    .last()
                    .unwrap()
                    .layer
                    .linear()
                    .unwrap()
                    .biases;
                let unbiased = layers.last() == Some(&LayerSpec::Unbiased(10));
                // Those of a dense layer begin at zero, too.
                assert!(!unbiased || biases.iter().all(|bias| bias == 0.0));
                for (image, logits) in data.images.iter().zip(logits) {
                    let plain = clear::logits(&model, image).unwrap();
                    for (plain, trained) in plain.iter().zip(logits) {
                        let trained = f64::from(trained);
                        let tolerance = 1e-3 * trained.abs().max(1.0);
                        assert!((plain - trained).abs() < tolerance, "{plain} {trained}");
                    }
                }
                let ranges =
                    clear::measure(&model, data.images.iter().map(|image| (image.into(), 0)))
                        .unwrap()
                        .ranges;
                for (stage, values) in (1..)
                    .zip(layers)
                    .filter(|(_, layer)| {
                        matches!(layer, LayerSpec::Square | LayerSpec::ScaledSquare)
                    })
                    .map(|(stage, _)| stage)
                    .zip(&forward.preactivations)
                {
                    // `stage` counts from 1: the layer before the activation.
                    let largest = values.abs().unwrap().max_all().unwrap();
                    let largest = largest.to_scalar::<f32>().unwrap();
                    assert!((ranges[stage - 2] - largest).abs() < 1e-3 * largest.max(1.0));
                }
            }
        }
    }

    /// Tables 1 and 2 of Shin, Choi and Choi (2021), layer by layer; their sums are
    /// 99,240 and 126,978.
    #[test]
    fn the_cryptonets_have_the_parameters_of_the_paper() {
        for (name, expected) in [
            ("mnist-cryptonets", [130, 98_100, 1_010]),
            ("mnist-cryptonets-relu", [130, 98_100, 1_010]),
            ("fashion-cryptonets", [130, 125_568, 1_280]),
            ("fashion-cryptonets-relu", [130, 125_568, 1_280]),
        ] {
            let mut known = ARCHITECTURES.iter();
            let architecture = known.find(|known| known.name == name).unwrap();
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            let trained = Trained::new(architecture.layers, &mut rng).unwrap();
            let of_stage = |stage: &Stage| match stage {
                Stage::Conv2d {
                    weights, biases, ..
                } => Some(weights.elem_count() + biases.elem_count()),
                Stage::Dense { weights, biases } => {
                    let biases = biases.as_ref().map_or(0, |biases| biases.elem_count());
                    Some(weights.elem_count() + biases)
                }
                Stage::Square(_) | Stage::ScaledSquare(_) | Stage::Relu => None,
            };
            let parameters: Vec<usize> = trained.stages.iter().filter_map(of_stage).collect();
            assert_eq!(parameters, expected, "{name}");
        }
    }

    #[test]
    fn rounding_passes_the_gradient() {
        let values = vec![0.3f32, -1.27, 0.004, 0.0, 1.0, -0.6];
        let weights = Tensor::from_vec(values.clone(), (2, 3), &Device::Cpu).unwrap();
        let weights = Var::from_tensor(&weights).unwrap();
        let rounded = rounded(&weights).unwrap();
        let (quantized, scale, _) = Quantization::USUAL.integers(&values, 3);
        let values = rounded.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (value, q) in values.iter().zip(quantized) {
            assert!((value - scale * f32::from(q)).abs() < 1e-6);
        }
        let gradients = rounded.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&weights).unwrap().flatten_all().unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [1.0; 6]);
    }

    #[test]
    fn a_straight_activation_is_refused() {
        let layers = [LayerSpec::Dense(2), LayerSpec::Square, LayerSpec::Dense(10)];
        let trained = Trained::new(&layers, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        if let Stage::Square(coefficients) = &trained.stages[1] {
            set(&coefficients[0], 0.0);
        }
        assert!(matches!(
            trained.network("line"),
            Err(TrainError::Straight { .. })
        ));
    }
}
