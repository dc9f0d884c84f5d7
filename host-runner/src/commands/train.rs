//! `he-edge train`: trains a bundled architecture.

use std::path::PathBuf;

use clap::Args;

use super::Failure;

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
}

/// Runs `train`.
///
/// # Errors
/// [`Failure`].
#[cfg(feature = "train")]
pub fn run(arguments: &TrainArguments) -> Result<(), Failure> {
    use super::output;
    use crate::train;

    let bar = train::progress_bar();
    let trained = train::train(&arguments.architecture, &arguments.data, &bar)?;
    bar.finish_and_clear();
    std::fs::write(&arguments.out, &trained.file).map_err(|source| Failure::Write {
        path: arguments.out.clone(),
        source,
    })?;
    let report = trained.report;
    if let Some(path) = &arguments.json {
        output::write_json(path, &report)?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    output::print(&report.to_string())
}

/// Names the feature that is missing.
///
/// # Errors
/// Always.
#[cfg(not(feature = "train"))]
pub const fn run(_: &TrainArguments) -> Result<(), Failure> {
    Err(Failure::NoTraining)
}
