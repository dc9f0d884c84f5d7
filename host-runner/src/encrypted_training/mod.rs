//! Logistic regression trained on encrypted data (Chen and Song 2021): five epochs
//! of gradient descent over the Pima table, of which the evaluator sees neither rows
//! nor labels nor weights.
//!
//! | module | holds |
//! |---|---|
//! | [`circuit`] | what both sides know: parameters, layout, levels, scales, keys |
//! | [`client`] | the secret key: encrypts the table and the model, decrypts models |
//! | [`evaluator`] | the untrusted half: bytes in, bytes out, no type of a secret key |
//! | [`clear`] | the same algorithm in `f64` |
//!
//! With [`Mode::Refresh`] the client decrypts the weights after every epoch and
//! encrypts them anew, as the paper does; N = 4096 suffices. With
//! [`Mode::NoRefresh`] the weights come back after the last epoch only, for which
//! N = 16384 has the levels.
//!
//! What the client decrypts is checked as any answer of an evaluator is: its level
//! and scale must be those that the client computed, and a refreshed model is
//! encrypted from the decrypted numbers alone. That the evaluator did the right
//! computation is not checked, and going on tells it that its answer was taken. A
//! trained model that is given to others publishes
//! approximate decryptions (Li and Micciancio, Eurocrypt 2021); what is written to a
//! file is rounded to 8 bits, and nothing is proved of that.

pub mod circuit;
pub mod clear;
pub mod client;
pub mod evaluator;

use std::time::{Duration, Instant};

use he_nn::model::ModelError;
use serde::Serialize;

use self::circuit::{Circuit, Shape};
use self::client::Client;
use self::evaluator::Evaluator;
use crate::client::ClientError;
use crate::engine::EngineError;
use he_nn::clear::{Calibrated, calibrated};
use he_nn::data::table::{FEATURES, SPLIT_SEED, Table, TableError};
use he_nn::network::{Network, NetworkInput, NetworkLayer, Weights};

/// The architecture that can be trained so, and the name of the model.
pub const ARCHITECTURE: &str = "pima-logreg";

/// Epochs of the paper.
pub const EPOCHS: usize = 5;

/// Whether the client renews the weights between epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It decrypts them after each epoch and encrypts them anew.
    Refresh,
    /// It gets them after the last epoch.
    NoRefresh,
}

/// Why there is no trained model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another architecture.
    #[error("{name} cannot be trained on encrypted data: {ARCHITECTURE} can")]
    Architecture {
        /// What was asked for.
        name: String,
    },
    /// The table could not be loaded.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Too few rows, or too many.
    #[error("the table has {rows} rows and this computation takes 1 to {most}: use another")]
    Rows {
        /// How many there are.
        rows: usize,
        /// How many there may be.
        most: usize,
    },
    /// No epochs, or too many.
    #[error(
        "{epochs} epochs were asked for and in this mode there can be 1 to {most}: ask for as many, more of them with --refresh"
    )]
    Epochs {
        /// How many.
        epochs: usize,
        /// How many there may be.
        most: usize,
    },
    /// Weights whose scale cannot be brought back.
    #[error(
        "the weights have scale {got:e} and the computation is for {expected:e}: encrypt them anew"
    )]
    Scale {
        /// Theirs.
        got: f64,
        /// What it is made for.
        expected: f64,
    },
    /// A model that was to be refreshed first.
    #[error("this model is to be refreshed after every epoch: send it to the client first")]
    Stale,
    /// Decrypted weights fill the modulus.
    #[error(
        "the weights that came back fill {:.0} % of the modulus, so they have wrapped around or were made up: train fewer epochs",
        100.0 * fill
    )]
    Wrapped {
        /// Share of half the modulus.
        fill: f64,
    },
    /// An operation on ciphertexts, keys or their bytes was refused.
    #[error(
        "the encrypted computation was refused ({0}): both sides need the same version and table"
    )]
    Library(#[from] he_core::Error),
    /// Other objects were sent than the computation takes.
    #[error(transparent)]
    Engine(EngineError),
    /// The client's keys failed.
    #[error(transparent)]
    Client(ClientError),
    /// The system has no random numbers.
    #[error("the system gave no random numbers ({0}): try again")]
    Random(getrandom::Error),
    /// The trained weights are outside the format.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Operation { source, .. } | EngineError::Bytes { source, .. } => {
                Self::Library(source)
            }
            other => Self::Engine(other),
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Operation { source, .. } | ClientError::Result { source, .. } => {
                Self::Library(source)
            }
            ClientError::Wrapped { percent, .. } => Self::Wrapped {
                fill: percent / 100.0,
            },
            ClientError::Random(source) => Self::Random(source),
            other => Self::Client(other),
        }
    }
}

/// Standardised features and their labels, 0 or 1: as many of one as of the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Features of every row.
    pub features: Vec<[f64; FEATURES]>,
    /// The labels.
    pub labels: Vec<u8>,
}

impl Rows {
    /// The rows of a table, standardised by given means and deviations.
    #[must_use]
    pub fn standardised(
        table: &Table,
        means: &[f32; FEATURES],
        deviations: &[f32; FEATURES],
    ) -> Self {
        let row = |row: &[f32; FEATURES]| {
            let value =
                |i: usize| (f64::from(row[i]) - f64::from(means[i])) / f64::from(deviations[i]);
            std::array::from_fn(value)
        };
        Self {
            features: table.rows.iter().map(row).collect(),
            labels: table.labels.clone(),
        }
    }
}

/// A regression on standardised features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Model {
    /// One a feature.
    pub weights: [f64; FEATURES],
    /// The bias.
    pub bias: f64,
}

impl Model {
    /// What training begins with.
    pub const ZERO: Self = Self {
        weights: [0.0; FEATURES],
        bias: 0.0,
    };

    /// The logit of a row.
    #[must_use]
    pub fn logit(&self, row: &[f64; FEATURES]) -> f64 {
        let terms = self.weights.iter().zip(row).map(|(w, x)| w * x);
        terms.sum::<f64>() + self.bias
    }

    /// Rows that are classified right.
    #[must_use]
    pub fn right(&self, rows: &Rows) -> usize {
        let rows = rows.features.iter().zip(&rows.labels);
        rows.filter(|(row, label)| (self.logit(row) > 0.0) == (**label == 1))
            .count()
    }

    /// Rows that two models classify differently.
    #[must_use]
    pub fn flips(&self, other: &Self, rows: &Rows) -> usize {
        let differ = |row: &&[f64; FEATURES]| (self.logit(row) > 0.0) != (other.logit(row) > 0.0);
        rows.features.iter().filter(differ).count()
    }

    /// The largest difference of a weight or the bias.
    #[must_use]
    pub fn difference(&self, other: &Self) -> f64 {
        let weights = self.weights.iter().zip(&other.weights);
        weights
            .chain([(&self.bias, &other.bias)])
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max)
    }
}

/// The encrypted table: as many ciphertexts of each kind as [`Circuit::parts`], each
/// the bytes of a seeded ciphertext.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Data {
    /// Rows for the logits.
    pub forward: Vec<Vec<u8>>,
    /// Labels for the logits.
    pub labels: Vec<Vec<u8>>,
    /// Rows for the gradient.
    pub gradient: Vec<Vec<u8>>,
}

/// A fresh encrypted model, each the bytes of a seeded ciphertext.
#[derive(Clone, Debug, PartialEq)]
pub struct EncryptedModel {
    /// Weights and bias.
    pub weights: Vec<u8>,
    /// The bias where the logits take it.
    pub bias: Vec<u8>,
}

/// One epoch, as it was measured. The client decrypts the weights after each, also
/// where it does not renew them: for this table alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochReport {
    /// Time of the evaluator, reading and writing bytes excluded.
    pub evaluator: Duration,
    /// Time of the client, for decryption, and encryption where it renews.
    pub client: Duration,
    /// The weights before.
    pub before: Shape,
    /// The weights afterwards.
    pub after: Shape,
    /// Bytes of the model to the evaluator.
    pub bytes_up: usize,
    /// Bytes of the weights to the client; 0 where only the table needs them.
    pub bytes_down: usize,
    /// Test rows that the decrypted weights classify right.
    pub right: usize,
    /// The same after as many epochs in the clear, in `f64`.
    pub clear_right: usize,
    /// Test rows that the two classify differently.
    pub flips: usize,
    /// Largest difference of a weight or the bias between them.
    pub weight_difference: f64,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// With or without refresh.
    pub mode: Mode,
    /// Parameter set.
    pub params: &'static str,
    /// Its ring degree.
    pub n: usize,
    /// Its `log2(QP)`.
    pub log_qp: f64,
    /// Bits of security.
    pub security: u32,
    /// Rows trained on.
    pub rows: usize,
    /// Rows tested on.
    pub test_rows: usize,
    /// Time of the client for its switching keys.
    pub key_generation: Duration,
    /// Time of the client for the table and the first model.
    pub encryption: Duration,
    /// Time of the evaluator to read and expand what it is sent once.
    pub preparation: Duration,
    /// Bytes of the switching keys.
    pub key_bytes: usize,
    /// Bytes of the table.
    pub data_bytes: usize,
    /// The epochs.
    pub epochs: Vec<EpochReport>,
    /// Test rows that the model in the file, of 8-bit weights, classifies right.
    pub quantized_right: usize,
}

impl Report {
    /// Time of the evaluator for all epochs.
    #[must_use]
    pub fn evaluator(&self) -> Duration {
        self.epochs.iter().map(|epoch| epoch.evaluator).sum()
    }
}

/// A trained model and how it came about.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// Its `.hemodel` file.
    pub file: Vec<u8>,
    /// The weights that were decrypted, not rounded.
    pub model: Model,
    /// What was measured.
    pub report: Report,
}

/// Trains on the table in a directory, with a fresh key.
///
/// # Errors
/// [`Error`].
pub fn train(directory: &std::path::Path, mode: Mode, epochs: usize) -> Result<Trained, Error> {
    let (train, test) = Table::load(directory)?.split(SPLIT_SEED);
    let mut seed = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(Error::Random)?;
    train_on(&train, &test, mode, epochs, &seed)
}

/// Trains on `train`, client and evaluator in one process with bytes between them;
/// all randomness of the client comes from `seed`.
///
/// # Errors
/// [`Error`].
pub fn train_on(
    train: &Table,
    test: &Table,
    mode: Mode,
    epochs: usize,
    seed: &[u8; 32],
) -> Result<Trained, Error> {
    let start = Instant::now();
    train_by(train, test, mode, epochs, seed, || start.elapsed())
}

/// As [`train_on`], with the times of another clock: that of the processor's time,
/// where a machine is shared.
///
/// # Errors
/// [`Error`].
pub fn train_by(
    train: &Table,
    test: &Table,
    mode: Mode,
    epochs: usize,
    seed: &[u8; 32],
    clock: impl Fn() -> Duration,
) -> Result<Trained, Error> {
    let since = |start: Duration| clock().saturating_sub(start);
    let (means, deviations) = train.standard();
    let rows = Rows::standardised(train, &means, &deviations);
    let tested = Rows::standardised(test, &means, &deviations);
    let circuit = Circuit::new(mode, rows.features.len())?;
    let steps = circuit.steps(epochs)?;

    let mut client = Client::from_seed(circuit, seed)?;
    let start = clock();
    let keys = client.keys()?;
    let key_generation = since(start);
    let start = clock();
    let data = client.encrypt_rows(&rows)?;
    let mut sent = client.encrypt_model(&Model::ZERO)?;
    let encryption = since(start);
    let start = clock();
    let mut evaluator = Evaluator::new(circuit, &keys, &data)?;
    let mut held = evaluator.read(&sent)?;
    let preparation = since(start);

    let (mut model, mut clear) = (Model::ZERO, Model::ZERO);
    let mut bytes_up = sent.weights.len() + sent.bias.len();
    let mut reports = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        let start = clock();
        held = evaluator.epoch(held)?;
        let evaluator_time = since(start);
        let weights = evaluator.write(&held)?;
        let start = clock();
        model = client.decrypt_model(&weights, step.output)?;
        let last = i + 1 == steps.len();
        let renews = mode == Mode::Refresh && !last;
        if renews {
            sent = client.encrypt_model(&model)?;
        }
        let client_time = since(start);
        clear = clear::epoch(&clear, &rows);
        reports.push(EpochReport {
            evaluator: evaluator_time,
            client: client_time,
            before: step.input,
            after: step.output,
            bytes_up,
            bytes_down: if renews || last { weights.len() } else { 0 },
            right: model.right(&tested),
            clear_right: clear.right(&tested),
            flips: model.flips(&clear, &tested),
            weight_difference: model.difference(&clear),
        });
        bytes_up = 0;
        if renews {
            held = evaluator.read(&sent)?;
            bytes_up = sent.weights.len() + sent.bias.len();
        }
    }

    let calibrated = quantized(&model, (means, deviations), train, test)?;
    let params = circuit.params();
    let sizes = |objects: &[Vec<u8>]| objects.iter().map(Vec::len).sum::<usize>();
    Ok(Trained {
        file: calibrated.file,
        model,
        report: Report {
            mode,
            params: params.name(),
            n: params.n(),
            log_qp: params.log_qp(),
            security: params.security().bits(),
            rows: rows.features.len(),
            test_rows: tested.features.len(),
            key_generation,
            encryption,
            preparation,
            key_bytes: keys.len(),
            data_bytes: sizes(&data.forward) + sizes(&data.labels) + sizes(&data.gradient),
            epochs: reports,
            quantized_right: calibrated.test.right,
        },
    })
}

/// The model with weights of 8 bits, as a file.
fn quantized(
    model: &Model,
    (means, deviations): ([f32; FEATURES], [f32; FEATURES]),
    train: &Table,
    test: &Table,
) -> Result<Calibrated, ModelError> {
    let network = Network {
        name: ARCHITECTURE.to_owned(),
        input: NetworkInput::Features {
            means: means.to_vec(),
            deviations: deviations.to_vec(),
        },
        layers: vec![NetworkLayer::Dense(Weights::new(
            model.weights.map(|w| w as f32).to_vec(),
            vec![model.bias as f32],
        ))],
    };
    calibrated(&network.quantized(), train.samples(), test.samples())
}

#[cfg(test)]
mod tests;
