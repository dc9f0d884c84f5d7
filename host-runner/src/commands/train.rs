//! `he-edge train`: trains a bundled architecture, or the regression on encrypted
//! data.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{Failure, output};
use crate::encrypted_training::{self, ARCHITECTURE, EPOCHS, Error, Mode, Report};
use crate::report::text as tables;
use he_nn::data::DataSet;

/// What Chen and Song 2021 report, on an Intel Core i7-8550U: seconds of
/// encryption, of five epochs, and the accuracy.
const PAPER: [&str; 3] = ["8 to 10 s", "200 s", "73.75 %"];

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct TrainArguments {
    /// The architecture, such as `mnist-mlp64`.
    pub architecture: String,
    /// Directory of the data set's files, or of several data sets.
    #[arg(long)]
    pub data: PathBuf,
    /// Where to write the `.hemodel` file.
    #[arg(long)]
    pub out: PathBuf,
    /// Write the report as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Train on encrypted data, with an encrypted model: `pima-logreg` alone.
    #[arg(long)]
    pub encrypted: bool,
    /// The client renews the encrypted weights after every epoch (the default).
    #[arg(long, requires = "encrypted", conflicts_with = "no_refresh")]
    pub refresh: bool,
    /// The client gets the weights after the last epoch only; five epochs at most.
    #[arg(long, requires = "encrypted")]
    pub no_refresh: bool,
    /// Epochs of encrypted training.
    #[arg(long, value_name = "N", requires = "encrypted", default_value_t = EPOCHS)]
    pub epochs: usize,
}

/// Runs `train`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &TrainArguments) -> Result<(), Failure> {
    if arguments.encrypted {
        run_encrypted(arguments)
    } else {
        run_plain(arguments)
    }
}

fn run_encrypted(arguments: &TrainArguments) -> Result<(), Failure> {
    if arguments.architecture != ARCHITECTURE {
        return Err(Error::Architecture {
            name: arguments.architecture.clone(),
        }
        .into());
    }
    let mode = if arguments.no_refresh {
        Mode::NoRefresh
    } else {
        Mode::Refresh
    };
    let directory = DataSet::Pima.locate(&arguments.data);
    check(arguments)?;
    let trained = encrypted_training::train(&directory, mode, arguments.epochs)?;
    write_model(&arguments.out, &trained.file)?;
    output::present(arguments.json.as_deref(), &trained.report, || {
        table(&trained.report)
    })
}

/// The report for people.
fn table(report: &Report) -> String {
    let share = |right: usize| {
        let share = right as f64 / report.test_rows.max(1) as f64;
        format!("{:.2} %", 100.0 * share)
    };
    let bytes = |count: usize| tables::bytes(count as u64);
    let rows: Vec<[String; 11]> = (1..)
        .zip(&report.epochs)
        .map(|(number, epoch): (usize, _)| {
            [
                number.to_string(),
                milliseconds(epoch.evaluator),
                milliseconds(epoch.client),
                format!("{} to {}", epoch.before.level, epoch.after.level),
                format!("{:.3}", epoch.after.scale.log2()),
                bytes(epoch.bytes_up),
                bytes(epoch.bytes_down),
                share(epoch.right),
                share(epoch.clear_right),
                epoch.flips.to_string(),
                format!("{:.4}", epoch.weight_difference),
            ]
        })
        .collect();
    let mut text = tables::table(
        [
            "epoch",
            "evaluator ms",
            "client ms",
            "level",
            "log2(scale)",
            "up",
            "down",
            "right",
            "clear",
            "flips",
            "weights off by",
        ],
        &rows,
    );
    let [encryption, epochs, accuracy] = PAPER.map(str::to_owned);
    let right = report.epochs.last().map_or(0, |epoch| epoch.right);
    let columns = ["", "here", "Chen and Song 2021"];
    text.push_str(&tables::table(
        columns,
        &[
            [
                "encryption of the table".to_owned(),
                seconds(report.encryption),
                encryption,
            ],
            [
                format!("{} epochs, evaluator", report.epochs.len()),
                seconds(report.evaluator()),
                format!("{epochs} for 5"),
            ],
            [
                format!("right of {} test rows", report.test_rows),
                share(right),
                accuracy,
            ],
        ],
    ));
    text.push_str(&tables::facts(&[
        ("8-bit weights in the file", share(report.quantized_right)),
        (
            "keys",
            format!(
                "{} in {}; {} for the evaluator to read them and the table",
                bytes(report.key_bytes),
                seconds(report.key_generation),
                seconds(report.preparation)
            ),
        ),
        (
            "table",
            format!("{}, {} rows", bytes(report.data_bytes), report.rows),
        ),
        (
            "security",
            format!(
                "{} bit (N = {}, log2(QP) = {:.1})",
                report.security, report.n, report.log_qp
            ),
        ),
    ]));
    text
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1}", 1e3 * time.as_secs_f64())
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// Checks that the outputs can be written, before minutes of training.
fn check(arguments: &TrainArguments) -> Result<(), Failure> {
    output::check(Some(&arguments.out))?;
    output::check(arguments.json.as_deref())
}

fn write_model(path: &Path, file: &[u8]) -> Result<(), Failure> {
    output::write_bytes(path, file)
}

#[cfg(feature = "train")]
fn run_plain(arguments: &TrainArguments) -> Result<(), Failure> {
    use he_nn::train;

    let mut bar = output::Bar::default();
    check(arguments)?;
    let trained = train::train(&arguments.architecture, &arguments.data, &mut bar)?;
    write_model(&arguments.out, &trained.file)?;
    let report = trained.report;
    output::present(arguments.json.as_deref(), &report, || report.to_string())
}

/// Names the feature that is missing.
#[cfg(not(feature = "train"))]
const fn run_plain(_: &TrainArguments) -> Result<(), Failure> {
    Err(Failure::NoTraining)
}
