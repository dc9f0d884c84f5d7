//! `he-edge data`: data sets.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::{self, Bar};
use super::{Failure, check_outputs};
use crate::fetch::{self, Fetched};
use crate::report::text::{bytes, table};

/// Arguments of `data`.
#[derive(Debug, Args)]
pub struct DataArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What `data` does.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Download a data set from its mirrors, verified by its SHA-256. What was cut off is
    /// gone on with.
    Fetch(FetchArguments),
}

/// Arguments of `data fetch`.
#[derive(Debug, Args)]
pub struct FetchArguments {
    /// `mnist`, `fashion-mnist`, `pima-diabetes` or `cifar-10`.
    pub name: String,
    /// Directory in which a directory of the data set is made.
    #[arg(long)]
    pub out: PathBuf,
    /// Where the files are, instead of the known mirrors; may be given several times.
    #[arg(long = "mirror", value_name = "URL")]
    pub mirrors: Vec<String>,
    /// Write what was fetched as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs `data`.
///
/// # Errors
/// [`Failure::Fetch`], [`Failure::Write`].
pub fn run(arguments: &DataArguments) -> Result<(), Failure> {
    let DataCommand::Fetch(arguments) = &arguments.command;
    check_outputs(&[arguments.json.as_deref()], &[])?;
    let source = fetch::source(&arguments.name)?;
    let mut bar = Bar::default();
    let fetched = fetch::fetch(source, &arguments.mirrors, &arguments.out, &mut bar)?;
    output::present(arguments.json.as_deref(), &fetched, || {
        let row = |file: &Fetched| {
            let from = match &file.mirror {
                Some(mirror) => format!("{} from {mirror}", bytes(file.bytes_fetched)),
                None => "was there".to_owned(),
            };
            [
                file.path.display().to_string(),
                bytes(file.bytes),
                from,
                file.sha256.to_owned(),
            ]
        };
        let rows: Vec<[String; 4]> = fetched.iter().map(row).collect();
        table(["file", "size", "fetched", "SHA-256"], &rows)
    })
}
