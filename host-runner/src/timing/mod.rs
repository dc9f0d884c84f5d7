//! Whether time depends on secrets: measurements for the tests of [`attacks::leakage`].
//!
//! | experiment | measures | by |
//! |---|---|---|
//! | [`host`] | each operation of a client on this machine, fixed against random secrets | dudect and RTLF, beside a control that leaks |
//! | [`board`] | instructions of the operations of clients and evaluators on an emulated board | variance, beside a control that leaks |
//! | [`observer`] | times of an evaluator's stages; sizes and times on a link | a classifier, beside another model that it has to tell |
//!
//! Results are lines in a file of the directory that is named ([`results`]).

pub mod board;
mod clock;
pub mod host;
pub mod observer;
pub mod results;

use std::path::PathBuf;

use he_core::benchmarks::subjects::Subject;
use he_nn::data::DataError;
use he_nn::model::ModelError;

use crate::client::ClientError;
use crate::device::DeviceError;
use crate::device::firmware_build::FirmwareError;
use crate::service::ServiceError;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Measurements per operation on a host, draws per operation on a board; `None` for a
    /// quick run.
    pub samples: Option<usize>,
    /// The smallest leak that RTLF has to find, as a share of the operation's time.
    pub smallest_leak: f64,
    /// Of everything random.
    pub seed: u64,
}

/// Why something was not measured.
#[derive(Debug, thiserror::Error)]
pub enum TimingError {
    /// An experiment nobody knows.
    #[error("there is no experiment {name}: use all, {}, or an operation: {}", EXPERIMENTS.join(", "), operations())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// An experiment that a board does not have.
    #[error("{name} is not measured on a board: use operations or one of {}", board::SUBJECTS.map(Subject::name).join(", "))]
    NotOnBoard {
        /// What was asked for.
        name: String,
    },
    /// An operation failed.
    #[error(
        "an operation that is measured failed ({0}): this is a mistake in he-edge, please report it"
    )]
    Operation(#[from] he_core::Error),
    /// A model that is none.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Digits that are none.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An inference failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// An inference over a link failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The board's program was not built.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The emulator failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The board's program did not say what it was to measure.
    #[error(
        "the timing program on {board} broke off at `{last}`: build it again and run the tests"
    )]
    BrokeOff {
        /// The board.
        board: String,
        /// Its last line.
        last: String,
    },
    /// Too few samples to say anything at all.
    #[error("{got} samples are too few for any statistic: take at least {least}")]
    Few {
        /// What was asked for.
        got: usize,
        /// The least.
        least: usize,
    },
    /// Results that cannot be read or written.
    #[error("{} cannot be used ({source}): name another directory with --out", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that is no result.
    #[error("line {line} of {} is no result ({source}): remove it, or name another directory with --out", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Groups of measurements.
pub const EXPERIMENTS: [&str; 4] = ["operations", "stages", "link", "padding"];

fn operations() -> String {
    let all = Subject::CLIENT.iter().chain(&Subject::EVALUATOR);
    all.map(|s| s.name()).collect::<Vec<_>>().join(", ")
}

/// A finite number in its place: JSON has no others.
fn finite(value: f64) -> f64 {
    value.clamp(f64::MIN, f64::MAX)
}
