//! Training of the bundled architectures.
//!
//! A network for images is trained as it will run. Its layers see their weights
//! rounded to 8 bits in the forward pass, and the gradient passes the rounding
//! as if it were not there (the straight-through estimator: Bengio, Leonard,
//! Courville, arXiv:1308.3432, section 4). Every activation `a x^2 + b x + c` is
//! learned with the weights and folded into the square of
//! [`crate::model`] at the end, which costs no precision.
//!
//! Soft limits keep the values in ranges that suit CKKS, whose noise is
//! absolute: on the values that are squared (after folding), and on the
//! logits. Smoothed labels would hold the logits down as well, but they also
//! shrink the margins between them, which is what the noise must not exceed.
//!
//! The regression on a table is fitted in `f64` and rounded afterwards.
//!
//! Everything random comes from one seed, and no result depends on the order
//! in which threads finish: the same machine gives the same file.

mod augment;
mod fit;
mod logistic;

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use crate::model::{Kernel, ModelError, Padding, Sample, Shape};

pub use self::augment::Augmentation;
use self::logistic::Regression;
use crate::clear::{self, Calibrated, Measured};
use crate::data::table::{SPLIT_SEED, Table, TableError};
use crate::data::{self, DataError, DataSet, Dataset, SIDE, Split};
use crate::network::{Network, NetworkInput, NetworkLayer, Weights};
use crate::progress::Progress;

/// A network that can be trained by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Architecture {
    /// Name, also of the trained model.
    pub name: &'static str,
    /// What it is trained on.
    pub data: DataSet,
    /// Its layers; a convolution can only be the first.
    pub layers: &'static [LayerSpec],
    /// How it is trained.
    pub method: Method,
}

/// A layer of an [`Architecture`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerSpec {
    /// A convolution.
    Conv2d(Kernel),
    /// A dense layer with so many outputs.
    Dense(u16),
    /// A dense layer with so many outputs whose biases are zero. An activation before
    /// it must leave them so: [`Self::ScaledSquare`] or [`Self::Relu`].
    Unbiased(u16),
    /// A learned activation of degree 2, a square once it is folded.
    Square,
    /// `a x^2` with a learned `a`, which folds into weights alone. Biases before it
    /// stand for the line of an activation of degree 2 and begin at 1.
    ScaledSquare,
    /// A rectifier: in the clear only.
    Relu,
}

/// How a network is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// By gradients, batch by batch.
    Gradient(Recipe),
    /// Logistic regression by Newton's method, on seven tenths of the rows
    /// ([`SPLIT_SEED`]), half of `ridge` times the squares of the weights added to
    /// the loss summed over the rows.
    Newton {
        /// Weight of the regularisation.
        ridge: f64,
    },
}

/// How a network for images is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Peak learning rate; it rises over the first epoch and then falls along
    /// a cosine to zero.
    pub learning_rate: f64,
    /// Decoupled weight decay of the layers' weights.
    pub weight_decay: f64,
    /// Where the penalty on the values that enter activations begins.
    pub preactivation_limit: f64,
    /// Where the penalty on the logits begins.
    pub logit_limit: f64,
    /// Random changes to every image.
    pub augmentation: Augmentation,
    /// Of initial weights, order of the images and augmentation.
    pub seed: u64,
}

const MNIST: Recipe = Recipe {
    epochs: 100,
    learning_rate: 4e-3,
    weight_decay: 1e-2,
    preactivation_limit: 6.0,
    logit_limit: 8.0,
    augmentation: Augmentation {
        shift: 0.9,
        rotation: 10.0,
        scale: 0.1,
        mirror: false,
    },
    seed: 1,
};

/// What every network for images takes.
const IMAGE: Shape = Shape {
    channels: 1,
    height: SIDE as u16,
    width: SIDE as u16,
};

const fn kernels(out_channels: u16, side: u16, stride: u16, padding: Padding) -> LayerSpec {
    LayerSpec::Conv2d(Kernel {
        out_channels,
        height: side,
        width: side,
        stride,
        padding,
    })
}

/// The convolution of Shin, Choi and Choi. Its padding follows from their parameter
/// counts: the dense layer behind it has 980 inputs, 5 channels of 14x14.
const CRYPTONETS: LayerSpec = kernels(5, 5, 2, Padding::same(IMAGE, 5, 5, 2));

const MNIST_CRYPTONETS: Recipe = Recipe {
    epochs: 50,
    learning_rate: 3e-3,
    ..MNIST
};

const FASHION_CRYPTONETS: Recipe = Recipe {
    epochs: 60,
    learning_rate: 3e-3,
    weight_decay: 0.3,
    augmentation: Augmentation {
        shift: 0.5,
        rotation: 0.0,
        scale: 0.05,
        mirror: true,
    },
    ..MNIST
};

/// What [`train`] knows.
pub const ARCHITECTURES: &[Architecture] = &[
    // Xiang, Dalla and Wu 2025, and the network that they compare with.
    Architecture {
        name: "mnist-mlp64",
        data: DataSet::Mnist,
        layers: &[
            LayerSpec::Dense(64),
            LayerSpec::Square,
            LayerSpec::Dense(10),
        ],
        method: Method::Gradient(MNIST),
    },
    Architecture {
        name: "mnist-mlp64-relu",
        data: DataSet::Mnist,
        layers: &[LayerSpec::Dense(64), LayerSpec::Relu, LayerSpec::Dense(10)],
        method: Method::Gradient(Recipe {
            epochs: 50,
            ..MNIST
        }),
    },
    // Shin, Choi and Choi 2021, Tables 1 and 2; 99,240 and 126,978 parameters, the
    // second without ten biases. And what they become with rectifiers.
    Architecture {
        name: "mnist-cryptonets",
        data: DataSet::Mnist,
        layers: &[
            CRYPTONETS,
            LayerSpec::Square,
            LayerSpec::Dense(100),
            LayerSpec::Square,
            LayerSpec::Dense(10),
        ],
        method: Method::Gradient(MNIST_CRYPTONETS),
    },
    Architecture {
        name: "mnist-cryptonets-relu",
        data: DataSet::Mnist,
        layers: &[
            CRYPTONETS,
            LayerSpec::Relu,
            LayerSpec::Dense(100),
            LayerSpec::Relu,
            LayerSpec::Dense(10),
        ],
        method: Method::Gradient(MNIST_CRYPTONETS),
    },
    Architecture {
        name: "fashion-cryptonets",
        data: DataSet::FashionMnist,
        layers: &[
            CRYPTONETS,
            LayerSpec::Dense(128),
            LayerSpec::ScaledSquare,
            LayerSpec::Unbiased(10),
        ],
        method: Method::Gradient(FASHION_CRYPTONETS),
    },
    Architecture {
        name: "fashion-cryptonets-relu",
        data: DataSet::FashionMnist,
        layers: &[
            CRYPTONETS,
            LayerSpec::Dense(128),
            LayerSpec::Relu,
            LayerSpec::Unbiased(10),
        ],
        method: Method::Gradient(FASHION_CRYPTONETS),
    },
    // Chen and Song 2021.
    Architecture {
        name: "pima-logreg",
        data: DataSet::Pima,
        layers: &[LayerSpec::Dense(1)],
        method: Method::Newton { ridge: 1.0 },
    },
    Architecture {
        name: "mnist-fcnn",
        data: DataSet::Mnist,
        layers: &[
            LayerSpec::Dense(1024),
            LayerSpec::Square,
            LayerSpec::Dense(64),
            LayerSpec::Square,
            LayerSpec::Dense(10),
        ],
        method: Method::Gradient(Recipe {
            epochs: 15,
            learning_rate: 1e-3,
            weight_decay: 3e-2,
            ..MNIST
        }),
    },
    Architecture {
        name: "mnist-cnn",
        data: DataSet::Mnist,
        layers: &[
            kernels(4, 7, 3, Padding::NONE),
            LayerSpec::Square,
            LayerSpec::Dense(64),
            LayerSpec::Square,
            LayerSpec::Dense(10),
        ],
        method: Method::Gradient(Recipe {
            epochs: 60,
            learning_rate: 4e-3,
            ..MNIST
        }),
    },
];

/// A trained network.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedModel {
    /// Its `.hemodel` file.
    pub file: Vec<u8>,
    /// What was measured.
    pub report: Report,
}

/// What was measured with the quantized network, as [`crate::model::Model::plain_logits`]
/// computes it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    /// Over the samples trained on; these ranges are in the file, too.
    pub train: Measured,
    /// Over the samples tested on.
    pub test: Measured,
    /// `a`, `b` and `c` of every learned activation, before folding; of a scaled
    /// square `b` and `c` are 0.
    pub activations: Vec<[f32; 3]>,
    /// Share of the test samples that the same network classifies right before
    /// its weights are rounded; for the regression alone.
    pub unrounded_accuracy: Option<f64>,
    /// Wall time.
    pub duration: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.2} % right on {} test samples ({:.2} % on {} training samples), 8-bit weights",
            100.0 * self.test.accuracy(),
            self.test.samples,
            100.0 * self.train.accuracy(),
            self.train.samples
        )?;
        if let Some(accuracy) = self.unrounded_accuracy {
            writeln!(f, "{:.2} % in f64", 100.0 * accuracy)?;
        }
        for (layer, (train, test)) in (1..).zip(self.train.ranges.iter().zip(&self.test.ranges)) {
            writeln!(
                f,
                "largest result of layer {layer}: {train:.2} in training, {test:.2} in the test"
            )?;
        }
        for [a, b, c] in &self.activations {
            writeln!(
                f,
                "activation {a:.4} x^2 + {b:.4} x + {c:.4}, folded into the weights"
            )?;
        }
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
    /// The images could not be loaded.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The table could not be loaded.
    #[error(transparent)]
    Table(#[from] TableError),
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

/// Trains an architecture by name on its data set in a directory, and tests it
/// there.
///
/// # Errors
///
/// [`TrainError`].
pub fn train(
    architecture: &str,
    data: &Path,
    progress: &mut dyn Progress,
) -> Result<TrainedModel, TrainError> {
    let found = ARCHITECTURES
        .iter()
        .find(|known| known.name == architecture);
    let architecture = found.ok_or_else(|| TrainError::UnknownArchitecture {
        name: architecture.to_owned(),
    })?;
    let directory = architecture.data.locate(data);
    match architecture.method {
        Method::Gradient(recipe) => {
            let train = data::load(&directory, Split::Train)?;
            let test = data::load(&directory, Split::Test)?;
            train_on(architecture, &recipe, &train, &test, progress)
        }
        Method::Newton { ridge } => {
            let (train, test) = Table::load(&directory)?.split(SPLIT_SEED);
            regress(architecture.name, ridge, &train, &test)
        }
    }
}

/// Trains an architecture on images in memory.
///
/// # Errors
///
/// [`TrainError`].
pub fn train_on(
    architecture: &Architecture,
    recipe: &Recipe,
    train: &Dataset,
    test: &Dataset,
    progress: &mut dyn Progress,
) -> Result<TrainedModel, TrainError> {
    let start = Instant::now();
    let trained = fit::fit(architecture, recipe, train, progress)?;
    let network = trained.network(architecture.name)?;
    let mut model = calibrated(&network, train.samples(), test.samples())?;
    progress.finish();
    model.report.activations = trained.activations()?;
    model.report.duration = start.elapsed();
    Ok(model)
}

/// Fits the regression to a table.
fn regress(
    name: &str,
    ridge: f64,
    train: &Table,
    test: &Table,
) -> Result<TrainedModel, TrainError> {
    let start = Instant::now();
    let regression = Regression::fit(train, ridge);
    let network = Network {
        name: name.to_owned(),
        input: NetworkInput::Features {
            means: regression.means.to_vec(),
            deviations: regression.deviations.to_vec(),
        },
        layers: vec![NetworkLayer::Dense(Weights::new(
            regression.weights.map(|w| w as f32).to_vec(),
            vec![regression.bias as f32],
        ))],
    };
    let mut model = calibrated(&network.quantized(), train.samples(), test.samples())?;
    model.report.unrounded_accuracy = Some(regression.accuracy(test));
    model.report.duration = start.elapsed();
    Ok(model)
}

/// Measures a network and writes it with the ranges of training.
fn calibrated<'s>(
    network: &Network<i16>,
    train: impl Iterator<Item = (Sample<'s>, u8)>,
    test: impl Iterator<Item = (Sample<'s>, u8)>,
) -> Result<TrainedModel, TrainError> {
    let Calibrated { file, train, test } = clear::calibrated(network, train, test)?;
    Ok(TrainedModel {
        file,
        report: Report {
            train,
            test,
            activations: Vec::new(),
            unrounded_accuracy: None,
            duration: Duration::ZERO,
        },
    })
}

#[cfg(test)]
mod tests {
    use crate::model::Model;
    use chacha20::ChaCha8Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::data::CLASSES;

    /// Quick, and far from the bundled recipes only in size.
    pub(super) const RECIPE: Recipe = Recipe {
        epochs: 4,
        learning_rate: 1e-2,
        logit_limit: 10.0,
        augmentation: Augmentation {
            shift: 0.5,
            rotation: 2.0,
            scale: 0.02,
            mirror: false,
        },
        seed: 5,
        ..MNIST
    };

    const SMALL: Architecture = Architecture {
        name: "small",
        data: DataSet::Mnist,
        layers: &[LayerSpec::Dense(8), LayerSpec::Square, LayerSpec::Dense(10)],
        method: Method::Gradient(RECIPE),
    };

    /// Ten bars at different heights, in noise.
    pub(super) fn bars(count: usize, seed: u64) -> Dataset {
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

    fn train_small(
        architecture: &Architecture,
        recipe: &Recipe,
    ) -> Result<TrainedModel, TrainError> {
        train_on(architecture, recipe, &bars(1000, 1), &bars(200, 2), &mut ())
    }

    #[test]
    fn learns_and_is_reproducible() {
        let trained = train_small(&SMALL, &RECIPE).unwrap();
        assert!(trained.report.test.accuracy() > 0.95, "{}", trained.report);
        let model = Model::parse(&trained.file).unwrap();
        assert_eq!(model.name(), "small");
        let first = model.layers().next().unwrap();
        assert_eq!(first.output.values(), 8);
        let ranges: Vec<f32> = model.layers().map(|view| view.layer.range()).collect();
        assert_eq!(ranges, trained.report.train.ranges);
        assert_eq!(
            clear::measure(&model, bars(200, 2).samples()).unwrap(),
            trained.report.test
        );

        assert_eq!(train_small(&SMALL, &RECIPE).unwrap().file, trained.file);
        let other = Recipe { seed: 6, ..RECIPE };
        assert_ne!(train_small(&SMALL, &other).unwrap().file, trained.file);
    }

    #[test]
    fn a_convolution_and_two_squares_learn() {
        const LAYERS: &[LayerSpec] = &[
            kernels(3, 7, 3, Padding::NONE),
            LayerSpec::Square,
            LayerSpec::Dense(16),
            LayerSpec::Square,
            LayerSpec::Dense(10),
        ];
        let network = Architecture {
            layers: LAYERS,
            ..SMALL
        };
        let trained = train_small(&network, &RECIPE).unwrap();
        assert!(trained.report.test.accuracy() > 0.9, "{}", trained.report);
        assert_eq!(trained.report.activations.len(), 2);
        let model = Model::parse(&trained.file).unwrap();
        assert_eq!(model.layer_count(), LAYERS.len());
    }

    #[test]
    fn limits_hold_values_down() {
        let ranges = |preactivation_limit, logit_limit| {
            let recipe = Recipe {
                preactivation_limit,
                logit_limit,
                ..RECIPE
            };
            train_small(&SMALL, &recipe).unwrap().report.train.ranges
        };
        let (free, held) = (ranges(1e3, 1e3), ranges(1.0, 3.0));
        assert!(held[0] < free[0] && held[2] < free[2]);
        assert!(held[0] < 3.0 && held[2] < 9.0, "{held:?}");
    }

    #[test]
    fn a_regression_keeps_its_accuracy() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let rows: Vec<[f32; 8]> = (0..400)
            .map(|_| std::array::from_fn(|i| augment::uniform(&mut rng) * (i + 1) as f32))
            .collect();
        let labels = rows
            .iter()
            .map(|row| u8::from(row[0] * 3.0 - row[3] + 0.5 * row[7] + 1.0 > 0.0))
            .collect();
        let (train, test) = Table { rows, labels }.split(2);
        let report = regress("table", 1.0, &train, &test).unwrap().report;
        let unrounded = report.unrounded_accuracy.unwrap();
        assert!(unrounded > 0.95, "{report}");
        assert!(
            (report.test.accuracy() - unrounded).abs() < 0.02,
            "{report}"
        );
    }

    #[test]
    fn every_architecture_ends_in_its_classes() {
        for architecture in ARCHITECTURES {
            let (outputs, gradient) = match architecture.data {
                DataSet::Mnist | DataSet::FashionMnist => (10, true),
                DataSet::Pima => (1, false),
            };
            assert!(
                matches!(
                    architecture.layers.last(),
                    Some(LayerSpec::Dense(n) | LayerSpec::Unbiased(n)) if *n == outputs
                ),
                "{}",
                architecture.name
            );
            let by_gradient = matches!(architecture.method, Method::Gradient(_));
            assert_eq!(by_gradient, gradient);
        }
    }

    #[test]
    fn errors() {
        let nowhere = Path::new("no-such-directory");
        let mut bar = ();
        let error = train("mlp-9000", nowhere, &mut bar).unwrap_err();
        assert!(error.to_string().contains("mnist-mlp64"), "{error}");
        let error = train("mnist-mlp64", nowhere, &mut bar).unwrap_err();
        assert!(
            matches!(error, TrainError::Data(DataError::Missing { .. })),
            "{error}"
        );
        let error = train("pima-logreg", nowhere, &mut bar).unwrap_err();
        assert!(
            matches!(error, TrainError::Table(TableError::Missing { .. })),
            "{error}"
        );

        let recipe = Recipe {
            learning_rate: 1e12,
            ..RECIPE
        };
        let error = train_small(&SMALL, &recipe).unwrap_err();
        assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    }
}
