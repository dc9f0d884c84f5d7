//! One module per command; the command line as `clap` reads it.

pub mod bench;
pub mod circuit;
pub mod demo;
pub mod flash;
pub mod import;
pub mod infer;
pub mod output;
pub mod plan;
pub mod sense;
pub mod serve;
pub mod train;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use he_core::Params;
use he_nn::model::{Model, ModelError};
use he_nn::plan::PlanError;

use crate::client::ClientError;
use crate::device::firmware_build::FirmwareError;
use crate::device::{Device, DeviceError};
use crate::evaluator::{EvaluatorError, PARAMS};
use crate::sensor::SensorError;
use he_nn::bundled;
use he_nn::data::{DataError, Split};

/// Neural networks on encrypted data on a microcontroller.
///
/// Without a command: classifies the bundled digits, encrypted, through the
/// in-process evaluator.
#[derive(Debug, Parser)]
#[command(version, name = "he-edge")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Remote encrypted inference.
    Infer(infer::InferArguments),
    /// Everything about an inference that is decided before it runs; exit
    /// status 2, with the reason, where it does not fit.
    Plan(plan::PlanArguments),
    /// Train a bundled architecture (needs the feature `train`), or the regression
    /// on encrypted data.
    Train(train::TrainArguments),
    /// Make a model of an ONNX file.
    Import(import::ImportArguments),
    /// Have a sensor encode and encrypt on its board, and check what it sends.
    Sense(sense::SenseArguments),
    /// Operations of he-core: microseconds here, instructions on an emulated
    /// board.
    Bench(bench::BenchArguments),
    /// Be an evaluator behind TCP, for `--device tcp:HOST:PORT`.
    Serve(serve::ServeArguments),
    /// Build the firmware, put it on a board by a debug probe and read its log
    /// (needs the feature `flash`).
    Flash(flash::FlashArguments),
}

/// How weights are held by the evaluator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// In the clear, as 8-bit integers.
    Plain,
    /// Encrypted by the client.
    Encrypted,
}

/// How values are laid out in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// One image over all slots.
    Latency,
    /// One image a slot.
    Batch,
}

/// Why a command ended without having done its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A model name that is neither bundled nor a file.
    #[error(
        "there is no model {name} ({source}): name a .hemodel file or one of the bundled models {}",
        bundled::model_names().collect::<Vec<_>>().join(", ")
    )]
    NoModel {
        /// What was asked for.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A model file that is none.
    #[error("{name}: {source}")]
    Model {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The model does not fit.
    #[error("{model} does not fit: {source}")]
    Plan {
        /// The model.
        model: String,
        /// Why.
        source: PlanError,
    },
    /// No circuit evaluates the model.
    #[error("{model} does not fit: {source}")]
    Circuit {
        /// The model.
        model: String,
        /// Why.
        source: he_nn::circuit::CircuitError,
    },
    /// An inference by a circuit on a device failed.
    #[error(transparent)]
    Stream(#[from] crate::circuit::device::StreamError),
    /// An inference by a circuit failed.
    #[error(transparent)]
    Engine(#[from] crate::circuit::EngineError),
    /// A model that needs data.
    #[error("no samples for {model} are bundled: name the directory of its data with --data")]
    NoSamples {
        /// The model.
        model: String,
    },
    /// A way of running that the planner does not know yet.
    #[error("there is no plan with {what} yet: use {instead}")]
    Unplanned {
        /// What was asked for.
        what: &'static str,
        /// What there is.
        instead: &'static str,
    },
    /// A board nobody knows.
    #[error(transparent)]
    Board(#[from] crate::boards::UnknownBoard),
    /// Unusable data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Images that the model does not take.
    #[error(
        "{model} takes {expected} inputs and the images have {got} pixels: name a model for images"
    )]
    Inputs {
        /// The model.
        model: String,
        /// Its inputs.
        expected: usize,
        /// Pixels of an image.
        got: usize,
    },
    /// A range of images that the data does not have.
    #[error(
        "images {offset}..{end} were asked for and there are {available}: lower --offset or --count"
    )]
    Range {
        /// First image.
        offset: usize,
        /// One past the last image.
        end: usize,
        /// How many there are.
        available: usize,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The firmware does not build.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The evaluator did not start.
    #[error(transparent)]
    Evaluator(#[from] EvaluatorError),
    /// An operation that is measured failed.
    #[error("a benchmark failed ({0}): this is a mistake in he-edge, please report it")]
    Benchmark(#[from] he_core::Error),
    /// The board's program did not report what it was to measure.
    #[error(
        "the benchmark program on {board} broke off at `{last}`: build it again and run the tests"
    )]
    BoardBench {
        /// The board.
        board: String,
        /// Its last line.
        last: String,
    },
    /// A device whose operations cannot be measured.
    #[error("nothing measures operations on {device} yet: use inproc or qemu")]
    NoBench {
        /// The device.
        device: String,
    },
    /// The inference failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The sensor gave no ciphertext.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// The file cannot be imported.
    #[error(transparent)]
    Import(#[from] he_nn::import::ImportError),
    /// Training on encrypted data failed.
    #[error(transparent)]
    EncryptedTraining(#[from] crate::encrypted_training::Error),
    /// Training failed.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] he_nn::train::TrainError),
    /// This build cannot train.
    #[cfg(not(feature = "train"))]
    #[error(
        "this build has no training in it: run `cargo run --release --features train -- train ..`"
    )]
    NoTraining,
    /// A board that is only emulated.
    #[error(
        "{board} is emulated and has no flash: use `he-edge infer --device qemu:{board}`, or one of the boards {}",
        crate::boards::physical()
    )]
    NotPhysical {
        /// The board.
        board: &'static str,
    },
    /// The debug probe did not do it.
    #[cfg(feature = "flash")]
    #[error(transparent)]
    Probe(#[from] crate::device::probe::ProbeError),
    /// This build has no debug probes in it.
    #[cfg(not(feature = "flash"))]
    #[error(
        "this build has no debug probes in it: run `cargo run --release --features flash -- flash ..`"
    )]
    NoFlashing,
    /// A file cannot be written.
    #[error("{} cannot be written ({source}): name another file", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Failure {
    /// Exit status: 2 where a plan does not fit, otherwise 1.
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self {
            Self::Plan { .. }
            | Self::Circuit { .. }
            | Self::Unplanned { .. }
            | Self::Evaluator(EvaluatorError::Plan(_) | EvaluatorError::Circuit(_)) => 2,
            _ => 1,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// [`Failure`], one sentence that says what was wrong and what to do.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        None => demo::run(),
        Some(Command::Infer(arguments)) => infer::run(&arguments),
        Some(Command::Plan(arguments)) => plan::run(&arguments),
        Some(Command::Train(arguments)) => train::run(&arguments),
        Some(Command::Import(arguments)) => import::run(&arguments),
        Some(Command::Sense(arguments)) => sense::run(&arguments),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::Serve(arguments)) => serve::run(&arguments),
        Some(Command::Flash(arguments)) => flash::run(&arguments),
    }
}

/// The model of the firmware where none is named.
const DEFAULT_MODEL: &str = "mnist-mlp64";

/// A model's bytes, and the file they come from unless it is bundled.
#[derive(Debug)]
pub struct ModelFile {
    bytes: Vec<u8>,
    name: String,
    path: Option<PathBuf>,
    params: &'static Params,
}

impl ModelFile {
    /// Reads a bundled model or a file.
    ///
    /// # Errors
    /// [`Failure::NoModel`].
    pub fn open(name: &str) -> Result<Self, Failure> {
        let name = name.to_owned();
        if let Some(bytes) = bundled::model(&name) {
            return Ok(Self {
                bytes: bytes.to_vec(),
                name,
                path: None,
                params: PARAMS,
            });
        }
        let path = PathBuf::from(&name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Self {
                bytes,
                name,
                path: Some(path),
                params: PARAMS,
            }),
            Err(source) => Err(Failure::NoModel { name, source }),
        }
    }

    /// The same under another parameter set.
    #[must_use]
    pub fn under(self, params: &'static Params) -> Self {
        Self { params, ..self }
    }

    /// The parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file, `None` for a bundled model.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The file for the firmware's build script, `None` for the model that it takes
    /// by itself.
    #[must_use]
    pub fn built_from(&self) -> Option<PathBuf> {
        match &self.path {
            Some(path) => Some(path.clone()),
            None if self.name == DEFAULT_MODEL => None,
            None => bundled::source(&self.name),
        }
    }

    /// What it was asked for by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network.
    ///
    /// # Errors
    /// [`Failure::Model`].
    pub fn parse(&self) -> Result<Model<'_>, Failure> {
        Model::parse(&self.bytes).map_err(|source| Failure::Model {
            name: self.name.clone(),
            source,
        })
    }

    /// Plans it under its set.
    ///
    /// # Errors
    /// [`Failure::Plan`].
    pub fn plan(&self, model: &Model<'_>) -> Result<he_nn::plan::Plan, Failure> {
        he_nn::plan::Plan::new(self.params, model).map_err(|source| Failure::Plan {
            model: self.name.clone(),
            source,
        })
    }
}

fn parse_params(name: &str) -> Result<&'static Params, String> {
    crate::evaluator::params(name).map_err(|e| e.to_string())
}

fn parse_device(name: &str) -> Result<Device, String> {
    name.parse()
        .map_err(|e: crate::device::DeviceNameError| e.to_string())
}

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    /// The training images.
    Train,
    /// The test images.
    Test,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::Train,
            SplitName::Test => Self::Test,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluator;

    #[test]
    fn sets_have_names() {
        let name = evaluator::params_name(PARAMS);
        assert!(std::ptr::eq(parse_params(&name).unwrap(), PARAMS));
        assert_eq!(
            parse_params("n16").unwrap_err(),
            "there is no parameter set n16: use one of n4096-depth3, n8192-depth5"
        );
    }
}
