//! `he-edge decrypt`: a result into classes.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output;
use super::{Failure, KeyArguments, ModelFile, check_outputs};
use crate::files::{self, Kind, Planned, PublishedLabel, PublishedOutcome, SealedKey};
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
    /// Decrypt nothing for yourself, but classes that may be given to others, whoever made
    /// the result: each is counted in the key's budget first.
    #[arg(long, value_name = "WHAT", value_parser = ["labels"])]
    pub publish: Option<String>,
    /// Write the answers as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs `decrypt`.
///
/// # Errors
/// [`Failure`]; [`Failure::Unanswered`] where results were refused, for which the key is
/// retired, and [`Failure::Unusual`].
pub fn run(arguments: &DecryptArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let model = file.parse()?;
    let [key, passphrase] = arguments.key.files();
    let inputs = [key, passphrase, file.path(), Some(&*arguments.result)];
    check_outputs(&[arguments.json.as_deref()], &inputs)?;
    let mut key = arguments.key.open()?;
    let packing = files::packing_of(&arguments.result, Kind::Result)?;
    let planned = Planned::new(Some(key.params()), model, packing).map_err(file.failed())?;
    if arguments.publish.is_some() {
        return publish(arguments, &mut key, &planned);
    }
    let opened = files::decrypt(&mut key, &planned, &arguments.result)?;
    let report = OpenedReport::of(&planned, opened);
    output::present(arguments.json.as_deref(), &report, || report.text())?;
    let of = report.images.len();
    match (report.refused(), report.unusual().count()) {
        (0, 0) => Ok(()),
        (0, count) => Err(Failure::Unusual { count, of }),
        (count, _) => Err(Failure::Unanswered { count, of }),
    }
}

/// What `decrypt --publish --json` writes.
#[derive(Serialize)]
struct Published {
    published: Vec<PublishedLabel>,
    /// Publications of the key, and those that are allowed.
    spent: u32,
    publications: u32,
}

fn publish(
    arguments: &DecryptArguments,
    key: &mut SealedKey,
    planned: &Planned<'_>,
) -> Result<(), Failure> {
    let report = Published {
        published: files::publish_labels(key, planned, &arguments.result)?,
        spent: key.head().spent,
        publications: key.head().publications,
    };
    output::present(arguments.json.as_deref(), &report, || {
        let mut text = String::new();
        for sample in &report.published {
            text.push_str(&match &sample.outcome {
                PublishedOutcome::Label { label } => {
                    format!("sample {}: class {label}\n", sample.index)
                }
                PublishedOutcome::Refused { refused } => {
                    format!("sample {}: nothing is published, {refused}\n", sample.index)
                }
            });
        }
        let (spent, all) = (report.spent, report.publications);
        format!("{text}{spent} of {all} publications of this key are spent\n")
    })?;
    let mut refused = report
        .published
        .iter()
        .filter_map(|sample| match &sample.outcome {
            PublishedOutcome::Refused { refused } => Some(refused),
            PublishedOutcome::Label { .. } => None,
        });
    match refused.next() {
        None => Ok(()),
        Some(first) => Err(Failure::Unpublished {
            count: 1 + refused.count(),
            of: report.published.len(),
            sentence: format!("{first}; make a new key, with more --publications"),
        }),
    }
}
