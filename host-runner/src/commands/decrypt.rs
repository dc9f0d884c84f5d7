//! `he-edge decrypt`: a result into classes.

use std::path::PathBuf;

use clap::Args;

use super::output;
use super::{Failure, KeyArguments, ModelFile};
use crate::files::{self, Planned};
use crate::report::opened::OpenedReport;

/// Arguments of `decrypt`.
#[derive(Debug, Args)]
pub struct DecryptArguments {
    /// The sealed key, beside which `encrypt` put its notes.
    #[command(flatten)]
    pub key: KeyArguments,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// The result.
    #[arg(long = "in", value_name = "FILE")]
    pub result: PathBuf,
    /// Write the answers as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs `decrypt`.
///
/// # Errors
/// [`Failure`]; [`Failure::Refused`] and [`Failure::BeyondPlan`] as `infer` has them.
pub fn run(arguments: &DecryptArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let model = file.parse()?;
    let mut key = arguments.key.open()?;
    let planned = Planned::new(Some(key.params()), model).map_err(file.failed())?;
    let opened = files::decrypt(&mut key, &planned, &arguments.result)?;
    let report = OpenedReport::of(&planned, opened);
    output::present(arguments.json.as_deref(), &report, || report.text())?;
    if let Some((index, error)) = report.beyond_plan().max_by(|(_, a), (_, b)| a.total_cmp(b)) {
        return Err(Failure::BeyondPlan {
            count: report.beyond_plan().count(),
            index,
            error,
            allowed: report.allowed_error,
        });
    }
    match report.refused() {
        0 => Ok(()),
        count => Err(Failure::Unanswered {
            count,
            of: report.images.len(),
        }),
    }
}
