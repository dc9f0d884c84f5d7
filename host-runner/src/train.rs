//! Training of the bundled architectures on 28x28 digits.
//!
//! A network is trained as it will run. Both layers see their weights rounded
//! to 8 bits in the forward pass, and the gradient passes the rounding as if
//! it were not there (the straight-through estimator: Bengio, Leonard,
//! Courville, arXiv:1308.3432, section 4). The activation `a x^2 + b x + c` is
//! learned with the weights and folded into the square of
//! [`he_nn::model`] at the end, which costs no precision.
//!
//! Two soft limits keep the values in ranges that suit CKKS, whose noise is
//! absolute: one on the value that is squared (after folding), one on the
//! logits. Smoothed labels would hold the logits down as well, but they also
//! shrink the margins between them, which is what the noise must not exceed.
//!
//! Everything random comes from one seed, and no result depends on the order
//! in which threads finish: the same machine gives the same file.

use std::{
    f32::consts::PI,
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use candle_core::{D, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, ops::log_softmax};
use chacha20::ChaCha8Rng;
use he_nn::model::{Model, ModelError, ModelParts, Ranges};
use indicatif::{ProgressBar, ProgressStyle};
use rand_core::{Rng, SeedableRng};

use crate::data::{self, CLASSES, DataError, Dataset, Image, PIXELS, SIDE, Split};

/// Images in one step of the optimizer.
const BATCH: usize = 128;

/// Below this an activation has no square left to fold into.
const MIN_CURVATURE: f32 = 1e-4;

/// The largest weight in 8 bits.
const MAX_WEIGHT: f32 = 127.0;

/// A network that can be trained by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Architecture {
    /// Name, also of the trained model.
    pub name: &'static str,
    /// Hidden units.
    pub hidden: u16,
    /// How it is trained.
    pub recipe: Recipe,
}

/// How a network is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Peak learning rate; it rises over the first epoch and then falls along
    /// a cosine to zero.
    pub learning_rate: f64,
    /// Decoupled weight decay of the two layers' weights.
    pub weight_decay: f64,
    /// Where the penalty on the value that is squared begins.
    pub preactivation_limit: f64,
    /// Where the penalty on the logits begins.
    pub logit_limit: f64,
    /// Random changes to every image.
    pub augmentation: Augmentation,
    /// Of initial weights, order of the images and augmentation.
    pub seed: u64,
}

/// Largest random changes to a training image, each drawn uniformly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Pixels, along each axis.
    pub shift: f32,
    /// Degrees.
    pub rotation: f32,
    /// Relative, along each axis.
    pub scale: f32,
}

/// What [`train`] knows.
pub const ARCHITECTURES: &[Architecture] = &[Architecture {
    name: "mnist-mlp64",
    hidden: 64,
    recipe: Recipe {
        epochs: 100,
        learning_rate: 4e-3,
        weight_decay: 1e-2,
        preactivation_limit: 6.0,
        logit_limit: 8.0,
        augmentation: Augmentation {
            shift: 0.9,
            rotation: 10.0,
            scale: 0.1,
        },
        seed: 1,
    },
}];

/// A trained network.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedModel {
    /// Its `.hemodel` file.
    pub file: Vec<u8>,
    /// What was measured.
    pub report: Report,
}

/// What was measured with the quantized network, as [`Model::plain_logits`]
/// computes it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// Images trained on.
    pub train_images: usize,
    /// Share of them that is classified right.
    pub train_accuracy: f64,
    /// Largest values over them; they are in the file, too.
    pub train_ranges: Ranges,
    /// Images tested on.
    pub test_images: usize,
    /// Share of them that is classified right.
    pub test_accuracy: f64,
    /// Largest values over them.
    pub test_ranges: Ranges,
    /// The learned activation's `a`, `b` and `c`, before folding.
    pub activation: [f32; 3],
    /// Wall time.
    pub duration: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.activation;
        writeln!(
            f,
            "{:.2} % right on {} test images ({:.2} % on {} training images), 8-bit weights",
            100.0 * self.test_accuracy,
            self.test_images,
            100.0 * self.train_accuracy,
            self.train_images
        )?;
        let r = &self.train_ranges;
        writeln!(
            f,
            "largest pre-activation {:.2}, square {:.2}, logit {:.2}",
            r.preactivation, r.square, r.logit
        )?;
        writeln!(
            f,
            "activation {a:.4} x^2 + {b:.4} x + {c:.4}, folded into the weights"
        )?;
        writeln!(f, "{:.0} s", self.duration.as_secs_f64())
    }
}

/// Why there is no trained network.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// No such architecture.
    #[error("there is no architecture {name}; choose one of {}", names())]
    UnknownArchitecture {
        /// What was asked for.
        name: String,
    },
    /// The data set could not be loaded.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The loss became infinite or not a number.
    #[error("the loss was {loss} in epoch {epoch}; lower the learning rate")]
    Diverged {
        /// Epoch, from 1.
        epoch: usize,
        /// Its loss.
        loss: f32,
    },
    /// The learned activation is a straight line.
    #[error("the activation was trained to a curvature of {a}, a straight line; change the seed")]
    Straight {
        /// Its `a`.
        a: f32,
    },
    /// The trained network is outside the format.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The machine learning library failed.
    #[error("a tensor operation failed ({0}); this is a bug in the training code, report it")]
    Tensor(#[from] candle_core::Error),
}

fn names() -> String {
    ARCHITECTURES
        .iter()
        .map(|architecture| architecture.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A progress bar for [`train`] on standard error; hidden where that is not a
/// terminal.
#[must_use]
pub fn progress_bar() -> ProgressBar {
    let template = "{msg:24} [{bar:40}] {percent:>3} %  {elapsed} (left: {eta})";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0).with_style(
        style
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> "),
    )
}

/// Trains an architecture by name on the data set in a directory, and tests
/// it there.
///
/// # Errors
///
/// [`TrainError`].
pub fn train(
    architecture: &str,
    data: &Path,
    progress: &ProgressBar,
) -> Result<TrainedModel, TrainError> {
    let found = ARCHITECTURES
        .iter()
        .find(|known| known.name == architecture);
    let architecture = found.ok_or_else(|| TrainError::UnknownArchitecture {
        name: architecture.to_owned(),
    })?;
    let train = data::load(data, Split::Train)?;
    let test = data::load(data, Split::Test)?;
    train_on(architecture, &train, &test, progress)
}

/// Trains an architecture on images in memory.
///
/// # Errors
///
/// [`TrainError`].
pub fn train_on(
    architecture: &Architecture,
    train: &Dataset,
    test: &Dataset,
    progress: &ProgressBar,
) -> Result<TrainedModel, TrainError> {
    let start = Instant::now();
    let network = fit(architecture, train, progress)?;
    let folded = Folded::new(&network)?;

    let unmeasured = Ranges {
        preactivation: 0.0,
        square: 0.0,
        logit: 0.0,
    };
    let draft = folded.parts(architecture, unmeasured);
    let (train_accuracy, train_ranges) = measure(&Model::new(draft)?, train)?;
    let model = Model::new(folded.parts(architecture, train_ranges))?;
    let (test_accuracy, test_ranges) = measure(&model, test)?;
    let mut file = vec![0; model.file_len()];
    model.write(&mut file)?;
    progress.finish_and_clear();
    Ok(TrainedModel {
        file,
        report: Report {
            train_images: train.images.len(),
            train_accuracy,
            train_ranges,
            test_images: test.images.len(),
            test_accuracy,
            test_ranges,
            activation: network.activation()?,
            duration: start.elapsed(),
        },
    })
}

/// Accuracy and ranges of a network on images in the clear.
///
/// # Errors
///
/// [`ModelError`] for a network of other dimensions than 28x28 and ten.
pub fn measure(model: &Model<'_>, data: &Dataset) -> Result<(f64, Ranges), ModelError> {
    let (mut right, mut preactivation, mut logit) = (0u32, 0f64, 0f64);
    for (image, &label) in data.images.iter().zip(&data.labels) {
        preactivation = model
            .plain_preactivations(image)?
            .fold(preactivation, |max, x| max.max(x.abs()));
        let mut logits = [0.0; CLASSES];
        model.plain_logits(image, &mut logits)?;
        logit = logits.iter().fold(logit, |max, x| max.max(x.abs()));
        let best = (0..CLASSES).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        right += u32::from(best == Some(usize::from(label)));
    }
    let ranges = Ranges {
        preactivation: preactivation as f32,
        square: (preactivation * preactivation) as f32,
        logit: logit as f32,
    };
    Ok((f64::from(right) / data.images.len() as f64, ranges))
}

/// The network as it is trained.
struct Network {
    w1: Var,
    b1: Var,
    w2: Var,
    b2: Var,
    /// `a`, `b` and `c`, each a vector of one.
    activation: [Var; 3],
}

impl Network {
    fn new(hidden: usize, rng: &mut ChaCha8Rng) -> candle_core::Result<Self> {
        let mut weights = |rows: usize, columns: usize, bound: f32| {
            let values = (0..rows * columns).map(|_| bound * uniform(rng)).collect();
            Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
        };
        let vector = |value: f32, len: usize| {
            Var::from_tensor(&Tensor::from_vec(vec![value; len], len, &Device::Cpu)?)
        };
        // About a tenth of the pixels are lit: wider than for dense inputs.
        let w1 = weights(hidden, PIXELS, 3.0 / (PIXELS as f32).sqrt())?;
        let w2 = weights(CLASSES, hidden, 1.0 / (hidden as f32).sqrt())?;
        Ok(Self {
            w1,
            b1: vector(0.0, hidden)?,
            w2,
            b2: vector(0.0, CLASSES)?,
            activation: [vector(0.25, 1)?, vector(0.5, 1)?, vector(0.0, 1)?],
        })
    }

    /// Logits of a batch, and the value that is squared once the activation
    /// is folded.
    fn forward(&self, images: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        let [a, b, c] = &self.activation;
        let x = images
            .matmul(&rounded(&self.w1)?.t()?)?
            .broadcast_add(&self.b1)?;
        let h = (x.sqr()?.broadcast_mul(a)? + x.broadcast_mul(b)?)?.broadcast_add(c)?;
        let logits = h
            .matmul(&rounded(&self.w2)?.t()?)?
            .broadcast_add(&self.b2)?;
        let folded = x.broadcast_add(&(b.as_tensor() / (a.as_tensor() * 2.0)?)?)?;
        Ok((logits, folded))
    }

    fn activation(&self) -> candle_core::Result<[f32; 3]> {
        let [a, b, c] = &self.activation;
        let scalar = |var: &Var| var.max_all()?.to_scalar::<f32>();
        Ok([scalar(a)?, scalar(b)?, scalar(c)?])
    }
}

/// Trains a network.
fn fit(
    architecture: &Architecture,
    train: &Dataset,
    progress: &ProgressBar,
) -> Result<Network, TrainError> {
    let recipe = &architecture.recipe;
    let mut rng = ChaCha8Rng::seed_from_u64(recipe.seed);
    let network = Network::new(usize::from(architecture.hidden), &mut rng)?;
    let [a, b, c] = network.activation.clone();
    let params = |weight_decay| ParamsAdamW {
        lr: recipe.learning_rate,
        weight_decay,
        ..ParamsAdamW::default()
    };
    let weights = vec![network.w1.clone(), network.w2.clone()];
    let others = vec![network.b1.clone(), network.b2.clone(), a, b, c];
    let mut optimizers = [
        AdamW::new(weights, params(recipe.weight_decay))?,
        AdamW::new(others, params(0.0))?,
    ];

    let mut order: Vec<usize> = (0..train.images.len()).collect();
    let steps_per_epoch = order.len().div_ceil(BATCH);
    progress.set_length((recipe.epochs * steps_per_epoch) as u64);
    for epoch in 0..recipe.epochs {
        shuffle(&mut order, &mut rng);
        let mut total = 0.0;
        for (step, indices) in order.chunks(BATCH).enumerate() {
            let passed = epoch as f64 + step as f64 / steps_per_epoch as f64;
            for optimizer in &mut optimizers {
                optimizer.set_learning_rate(learning_rate(recipe, passed));
            }
            let (images, targets) = batch(train, indices, recipe, &mut rng)?;
            let loss = loss(&network, &images, &targets, recipe)?;
            let gradients = loss.backward()?;
            for optimizer in &mut optimizers {
                optimizer.step(&gradients)?;
            }
            total += loss.to_scalar::<f32>()?;
            progress.inc(1);
        }
        let loss = total / steps_per_epoch as f32;
        if !loss.is_finite() {
            return Err(TrainError::Diverged {
                epoch: epoch + 1,
                loss,
            });
        }
        progress.set_message(format!("epoch {}: loss {loss:.4}", epoch + 1));
    }
    Ok(network)
}

/// Cross-entropy and the two soft limits.
fn loss(
    network: &Network,
    images: &Tensor,
    targets: &Tensor,
    recipe: &Recipe,
) -> candle_core::Result<Tensor> {
    let (logits, folded) = network.forward(images)?;
    let cross_entropy = (log_softmax(&logits, D::Minus1)? * targets)?
        .sum(D::Minus1)?
        .neg()?;
    let beyond = |values: &Tensor, limit: f64| {
        ((values.abs()? / limit)? - 1.0)?
            .relu()?
            .sqr()?
            .sum(D::Minus1)
    };
    let preactivations = beyond(&folded, recipe.preactivation_limit)?;
    let logits = beyond(&logits, recipe.logit_limit)?;
    ((cross_entropy + preactivations)? + logits)?.mean_all()
}

/// Learning rate after so many epochs.
fn learning_rate(recipe: &Recipe, epochs: f64) -> f64 {
    let warm_up = epochs.min(1.0);
    let cosine = (std::f64::consts::PI * epochs / recipe.epochs as f64).cos();
    recipe.learning_rate * warm_up * 0.5 * (1.0 + cosine)
}

/// Augmented images, and their labels one-hot.
fn batch(
    data: &Dataset,
    indices: &[usize],
    recipe: &Recipe,
    rng: &mut ChaCha8Rng,
) -> candle_core::Result<(Tensor, Tensor)> {
    let mut images = Vec::with_capacity(indices.len() * PIXELS);
    let mut targets = vec![0.0f32; indices.len() * CLASSES];
    for (&index, target) in indices.iter().zip(targets.chunks_exact_mut(CLASSES)) {
        augment(&data.images[index], &recipe.augmentation, rng, &mut images);
        target[usize::from(data.labels[index])] = 1.0;
    }
    Ok((
        Tensor::from_vec(images, (indices.len(), PIXELS), &Device::Cpu)?,
        Tensor::from_vec(targets, (indices.len(), CLASSES), &Device::Cpu)?,
    ))
}

/// Appends an image, changed at random, with pixels from 0 to 1.
fn augment(image: &Image, augmentation: &Augmentation, rng: &mut ChaCha8Rng, out: &mut Vec<f32>) {
    let angle = augmentation.rotation * uniform(rng) * PI / 180.0;
    let (sin, cos) = angle.sin_cos();
    let scale_x = 1.0 + augmentation.scale * uniform(rng);
    let scale_y = 1.0 + augmentation.scale * uniform(rng);
    let shift_x = augmentation.shift * uniform(rng);
    let shift_y = augmentation.shift * uniform(rng);
    let centre = (SIDE as f32 - 1.0) / 2.0;
    let pixel = |row: i32, column: i32| {
        let side = 0..SIDE as i32;
        if side.contains(&row) && side.contains(&column) {
            f32::from(image[row as usize * SIDE + column as usize])
        } else {
            0.0
        }
    };
    for row in 0..SIDE {
        for column in 0..SIDE {
            let (dx, dy) = (
                column as f32 - centre - shift_x,
                row as f32 - centre - shift_y,
            );
            let x = centre + (cos * dx + sin * dy) * scale_x;
            let y = centre + (cos * dy - sin * dx) * scale_y;
            let (left, top) = (x.floor(), y.floor());
            let (fx, fy) = (x - left, y - top);
            let (left, top) = (left as i32, top as i32);
            let upper = pixel(top, left) * (1.0 - fx) + pixel(top, left + 1) * fx;
            let lower = pixel(top + 1, left) * (1.0 - fx) + pixel(top + 1, left + 1) * fx;
            out.push((upper * (1.0 - fy) + lower * fy) / 255.0);
        }
    }
}

/// Uniform in -1..1.
fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    // 24 bits fill the significand.
    (rng.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}

/// Fisher and Yates. The bias of the multiplication is below 2^-15 for any
/// data set that fits in memory.
fn shuffle(order: &mut [usize], rng: &mut ChaCha8Rng) {
    for last in (1..order.len()).rev() {
        let random = u64::from(rng.next_u32());
        order.swap(last, ((random * (last as u64 + 1)) >> 32) as usize);
    }
}

/// The scale of symmetric 8-bit weights.
fn weight_scale(largest: f32) -> f32 {
    (largest / MAX_WEIGHT).max(f32::MIN_POSITIVE)
}

/// Weights rounded to 8 bits, with the gradient of the weights themselves.
fn rounded(weights: &Var) -> candle_core::Result<Tensor> {
    let scale = f64::from(weight_scale(weights.abs()?.max_all()?.to_scalar::<f32>()?));
    let rounded = ((weights.as_tensor() / scale)?.round()? * scale)?;
    weights.as_tensor() + (rounded - weights.as_tensor())?.detach()
}

/// Symmetric 8-bit weights and their scale.
fn quantize(weights: &Var) -> candle_core::Result<(Vec<i8>, f32)> {
    let weights: Vec<f32> = weights.flatten_all()?.to_vec1()?;
    let scale = weight_scale(weights.iter().fold(0.0, |max: f32, w| max.max(w.abs())));
    let quantized = weights
        .iter()
        .map(|w| (w / scale).round().clamp(-MAX_WEIGHT, MAX_WEIGHT));
    Ok((quantized.map(|w| w as i8).collect(), scale))
}

/// The trained network with its activation folded into the square.
struct Folded {
    w1: Vec<u8>,
    w1_scale: f32,
    b1: Vec<u8>,
    w2: Vec<u8>,
    w2_scale: f32,
    b2: Vec<u8>,
}

impl Folded {
    /// Completes the square, as [`he_nn::model`] describes it.
    fn new(network: &Network) -> Result<Self, TrainError> {
        let [a, b, c] = network.activation()?;
        if a.abs() < MIN_CURVATURE {
            return Err(TrainError::Straight { a });
        }
        let (w1, w1_scale) = quantize(&network.w1)?;
        let (mut w2, w2_scale) = quantize(&network.w2)?;
        let hidden = network.w2.dim(1)?;
        let shift = b / (2.0 * a);
        let constant = c - b * b / (4.0 * a);
        let b1 = network
            .b1
            .to_vec1::<f32>()?
            .into_iter()
            .map(|b1| b1 + shift);
        let b2 = network
            .b2
            .to_vec1::<f32>()?
            .into_iter()
            .zip(w2.chunks_exact(hidden));
        let b2 = b2.map(|(b2, row)| {
            let sum: i32 = row.iter().map(|&w| i32::from(w)).sum();
            b2 + constant * w2_scale * sum as f32
        });
        let (b1, b2) = (little_endian(b1), little_endian(b2));
        if a < 0.0 {
            w2.iter_mut().for_each(|w| *w = -*w);
        }
        let bytes = |weights: Vec<i8>| weights.into_iter().map(i8::cast_unsigned).collect();
        Ok(Self {
            w1: bytes(w1),
            w1_scale,
            b1,
            w2: bytes(w2),
            w2_scale: w2_scale * a.abs(),
            b2,
        })
    }

    fn parts(&self, architecture: &Architecture, ranges: Ranges) -> ModelParts<'_> {
        ModelParts {
            name: architecture.name.as_bytes(),
            inputs: PIXELS as u16,
            hidden: architecture.hidden,
            classes: CLASSES as u16,
            w1_scale: self.w1_scale,
            w1: &self.w1,
            b1: &self.b1,
            w2_scale: self.w2_scale,
            w2: &self.w2,
            b2: &self.b2,
            ranges,
        }
    }
}

fn little_endian(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quick, and far from the bundled recipe only in size.
    const SMALL: Architecture = Architecture {
        name: "small",
        hidden: 8,
        recipe: Recipe {
            epochs: 4,
            learning_rate: 1e-2,
            weight_decay: 1e-2,
            preactivation_limit: 6.0,
            logit_limit: 10.0,
            augmentation: Augmentation {
                shift: 0.5,
                rotation: 2.0,
                scale: 0.02,
            },
            seed: 5,
        },
    };

    /// Ten bars at different heights, in noise.
    fn bars(count: usize, seed: u64) -> Dataset {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let labels: Vec<u8> = (0..count).map(|i| (i % CLASSES) as u8).collect();
        let images = labels.iter().map(|&label| {
            let bar = 4 + 2 * usize::from(label);
            std::array::from_fn(|pixel| {
                let noise = (rng.next_u32() % 64) as u8;
                if (bar..bar + 2).contains(&(pixel / SIDE)) {
                    191 + noise
                } else {
                    noise
                }
            })
        });
        Dataset {
            images: images.collect(),
            labels: labels.clone(),
        }
    }

    fn train_small(architecture: &Architecture) -> Result<TrainedModel, TrainError> {
        train_on(
            architecture,
            &bars(1000, 1),
            &bars(200, 2),
            &ProgressBar::hidden(),
        )
    }

    #[test]
    fn learns_and_is_reproducible() {
        let trained = train_small(&SMALL).unwrap();
        assert!(trained.report.test_accuracy > 0.95, "{:?}", trained.report);
        let model = Model::parse(&trained.file).unwrap();
        assert_eq!((model.name(), model.hidden()), ("small", 8));
        assert_eq!(model.ranges(), trained.report.train_ranges);
        assert_eq!(
            measure(&model, &bars(200, 2)).unwrap(),
            (trained.report.test_accuracy, trained.report.test_ranges)
        );

        assert_eq!(train_small(&SMALL).unwrap().file, trained.file);
        let other = Recipe {
            seed: 6,
            ..SMALL.recipe
        };
        let other = train_small(&Architecture {
            recipe: other,
            ..SMALL
        })
        .unwrap();
        assert_ne!(other.file, trained.file);
    }

    #[test]
    fn limits_hold_values_down() {
        let ranges = |preactivation_limit, logit_limit| {
            let recipe = Recipe {
                preactivation_limit,
                logit_limit,
                ..SMALL.recipe
            };
            train_small(&Architecture { recipe, ..SMALL })
                .unwrap()
                .report
                .train_ranges
        };
        let (free, held) = (ranges(1e3, 1e3), ranges(1.0, 3.0));
        assert!(held.preactivation < free.preactivation && held.logit < free.logit);
        assert!(held.preactivation < 3.0 && held.logit < 9.0, "{held:?}");
    }

    #[test]
    fn the_file_computes_what_was_trained() {
        // Both signs of the curvature, since the weights carry it.
        for a in [0.3f32, -0.4] {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let network = Network::new(8, &mut rng).unwrap();
            let set = |var: &Var, value: f32| {
                let values = Tensor::from_vec(vec![value], 1, &Device::Cpu).unwrap();
                var.set(&values).unwrap();
            };
            set(&network.activation[0], a);
            set(&network.activation[1], 0.7);
            set(&network.activation[2], -0.2);

            let data = bars(20, 4);
            let pixels = data
                .images
                .iter()
                .flatten()
                .map(|&p| f32::from(p) / 255.0)
                .collect();
            let images = Tensor::from_vec(pixels, (20, PIXELS), &Device::Cpu).unwrap();
            let (logits, squared) = network.forward(&images).unwrap();
            let logits: Vec<Vec<f32>> = logits.to_vec2().unwrap();
            let squared: Vec<Vec<f32>> = squared.to_vec2().unwrap();

            let folded = Folded::new(&network).unwrap();
            let unmeasured = Ranges {
                preactivation: 0.0,
                square: 0.0,
                logit: 0.0,
            };
            let model = Model::new(folded.parts(&SMALL, unmeasured)).unwrap();
            for (image, (logits, squared)) in data.images.iter().zip(logits.iter().zip(squared)) {
                for (x, trained) in model.plain_preactivations(image).unwrap().zip(squared) {
                    assert!((x - f64::from(trained)).abs() < 1e-4, "{x} {trained}");
                }
                let mut plain = [0.0; CLASSES];
                model.plain_logits(image, &mut plain).unwrap();
                for (plain, &trained) in plain.iter().zip(logits) {
                    assert!(
                        (plain - f64::from(trained)).abs() < 1e-3,
                        "{plain} {trained}"
                    );
                }
            }
        }
    }

    #[test]
    fn rounding_passes_the_gradient() {
        let values = vec![0.3f32, -1.27, 0.004, 0.0, 1.0, -0.6];
        let weights = Tensor::from_vec(values, (2, 3), &Device::Cpu).unwrap();
        let weights = Var::from_tensor(&weights).unwrap();
        let rounded = rounded(&weights).unwrap();
        let (quantized, scale) = quantize(&weights).unwrap();
        assert_eq!(quantized, [30, -127, 0, 0, 100, -60]);
        let values = rounded.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (value, q) in values.iter().zip(quantized) {
            assert!((value - scale * f32::from(q)).abs() < 1e-6);
        }
        let gradients = rounded.sum_all().unwrap().backward().unwrap();
        let gradient = gradients.get(&weights).unwrap().flatten_all().unwrap();
        assert_eq!(gradient.to_vec1::<f32>().unwrap(), [1.0; 6]);
    }

    #[test]
    fn no_augmentation_changes_nothing() {
        let none = Augmentation {
            shift: 0.0,
            rotation: 0.0,
            scale: 0.0,
        };
        let image = bars(3, 8).images[2];
        let mut out = Vec::new();
        augment(&image, &none, &mut ChaCha8Rng::seed_from_u64(0), &mut out);
        let expected: Vec<f32> = image.iter().map(|&p| f32::from(p) / 255.0).collect();
        for (out, expected) in out.iter().zip(&expected) {
            assert!((out - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_shuffle_is_a_permutation() {
        let mut order: Vec<usize> = (0..100).collect();
        shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(9));
        assert!(order.iter().enumerate().filter(|&(i, &at)| i == at).count() < 10);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..100));
    }

    #[test]
    fn errors() {
        let nowhere = Path::new("no-such-directory");
        let bar = ProgressBar::hidden();
        let error = train("mlp-9000", nowhere, &bar).unwrap_err();
        assert!(error.to_string().contains("mnist-mlp64"), "{error}");
        let error = train("mnist-mlp64", nowhere, &bar).unwrap_err();
        assert!(
            matches!(error, TrainError::Data(DataError::Missing { .. })),
            "{error}"
        );

        let recipe = Recipe {
            learning_rate: 1e12,
            ..SMALL.recipe
        };
        let error = train_small(&Architecture { recipe, ..SMALL }).unwrap_err();
        assert!(matches!(error, TrainError::Diverged { .. }), "{error}");

        let network = Network::new(2, &mut ChaCha8Rng::seed_from_u64(0)).unwrap();
        network.activation[0]
            .set(&Tensor::zeros(1, candle_core::DType::F32, &Device::Cpu).unwrap())
            .unwrap();
        assert!(matches!(
            Folded::new(&network),
            Err(TrainError::Straight { .. })
        ));
    }
}
