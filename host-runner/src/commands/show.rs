//! `he-edge show`: what a file holds.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, check_outputs, output};
use crate::files;
use crate::report::text::{bytes, facts};

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// A key, a request, a result, a model or a budget.
    pub file: PathBuf,
    /// Write it as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs `show`.
///
/// # Errors
/// [`Failure::File`].
pub fn run(arguments: &ShowArguments) -> Result<(), Failure> {
    check_outputs(&[arguments.json.as_deref()], &[Some(&arguments.file)])?;
    let shown = files::show(&arguments.file)?;
    output::present(arguments.json.as_deref(), &shown, || {
        let kind = format!("{}, version {}", shown.kind, shown.version);
        let mut rows = vec![("is", kind), ("size", bytes(shown.bytes as u64))];
        let said = shown.facts.iter();
        rows.extend(said.map(|fact| (fact.name, fact.value.clone())));
        facts(&rows)
    })
}
