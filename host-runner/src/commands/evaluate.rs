//! `he-edge evaluate`: a request into a result, without a secret.

use std::path::PathBuf;

use clap::Args;
use he_core::Params;

use super::output::{self, Bar};
use super::{Failure, ModelFile, check_outputs, parse_params};
use crate::files::{self, Kind, Planned};
use crate::report::text::{bytes, facts};

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub struct EvaluateArguments {
    /// The evaluator's keys, `evaluation.keys`.
    #[arg(long, value_name = "FILE")]
    pub keys: PathBuf,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// The parameter set; one that serves if left out.
    #[arg(long, value_parser = parse_params)]
    pub params: Option<&'static Params>,
    /// The request.
    #[arg(long = "in", value_name = "FILE")]
    pub request: PathBuf,
    /// Write the result to this file, for the client.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write what was made as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs `evaluate`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &EvaluateArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let (keys, request) = (&*arguments.keys, &*arguments.request);
    let outputs = [Some(&*arguments.out), arguments.json.as_deref()];
    check_outputs(&outputs, &[Some(keys), Some(request), file.path()])?;
    let packing = files::packing_of(&arguments.keys, Kind::EvaluationKeys)?;
    let planned = Planned::new(arguments.params, file.parse()?, packing).map_err(file.failed())?;
    let mut bar = Bar::default();
    let made = files::evaluate(
        &arguments.keys,
        planned,
        &arguments.request,
        &arguments.out,
        &mut bar,
    )?;
    output::present(arguments.json.as_deref(), &made, || {
        facts(&[
            ("request", made.request.clone()),
            ("samples", made.samples.to_string()),
            (
                "for the client",
                format!("{} ({})", made.file.display(), bytes(made.bytes)),
            ),
            (
                "wall-clock ms per sample",
                format!("{:.2}", 1e3 * made.seconds),
            ),
        ])
    })
}
