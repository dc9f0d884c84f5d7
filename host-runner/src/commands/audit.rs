//! `he-edge audit`: answers evaluated again, from their receipts.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{Failure, ModelFile, output};
use crate::receipts::{self, Auditor, Verdict};
use crate::report::text::facts;

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// The receipts, as `infer --receipts` wrote them.
    pub receipts: PathBuf,
    /// The directory of what they name, as `infer --uploads` filled it.
    #[arg(long, value_name = "DIR")]
    pub uploads: PathBuf,
    /// The model that they are of: a bundled one or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// Write the result as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    answers: Vec<Answer>,
    reproduced: usize,
    forged: usize,
    failed: usize,
}

#[derive(Debug, Serialize)]
struct Answer {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

/// Runs `audit`.
///
/// # Errors
/// [`Failure::Forged`] where an answer is not what its request evaluates to, or cannot be
/// evaluated.
pub fn run(arguments: &AuditArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let receipts = receipts::read(&arguments.receipts)?;
    let mut auditor = Auditor::new(&arguments.uploads, file.parse()?, file.bytes());
    let mut answers = Vec::with_capacity(receipts.len());
    for of_image in &receipts {
        let (verdict, failed) = match auditor.audit(&of_image.receipt) {
            Ok(verdict) => (Some(verdict), None),
            Err(error) => (None, Some(error.to_string())),
        };
        answers.push(Answer {
            index: of_image.index,
            verdict,
            failed,
        });
    }
    let count = |verdict| answers.iter().filter(|a| a.verdict == verdict).count();
    let report = Report {
        reproduced: count(Some(Verdict::Reproduced)),
        forged: count(Some(Verdict::Forged)),
        failed: count(None),
        answers,
    };
    output::present(arguments.json.as_deref(), &report, || text(&report))?;
    match (report.forged, report.failed) {
        (0, 0) => Ok(()),
        (forged, failed) => Err(Failure::Forged {
            forged,
            failed,
            of: report.answers.len(),
        }),
    }
}

fn text(report: &Report) -> String {
    let mut out = facts(&[
        ("reproduced to the bit", report.reproduced.to_string()),
        ("another result", report.forged.to_string()),
        ("not evaluated", report.failed.to_string()),
    ]);
    for answer in &report.answers {
        match (&answer.verdict, &answer.failed) {
            (Some(Verdict::Forged), _) => out.push_str(&format!(
                "\nimage {}: the answer is not what its request evaluates to",
                answer.index
            )),
            (_, Some(sentence)) => {
                out.push_str(&format!("\nimage {}: {sentence}", answer.index));
            }
            _ => {}
        }
    }
    out.push('\n');
    out
}
