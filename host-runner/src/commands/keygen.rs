//! `he-edge keygen`: a sealed key, and what an evaluator needs.

use std::path::PathBuf;

use clap::Args;
use he_core::Params;
use he_core::ckks::publish::{Allowance, MIN_STATISTICAL_BITS};
use he_nn::plan::Packing;

use super::output;
use super::{Failure, ModelFile, check_outputs, packings, parse_params};
use crate::files::{self, Cost, Passphrase, Planned};
use crate::report::text::{bytes, facts};

/// Arguments of `keygen`.
#[derive(Debug, Args)]
pub struct KeygenArguments {
    /// Where `client/secret.key` and `evaluator/evaluation.keys` are put.
    pub directory: PathBuf,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// The parameter set; one that serves if left out.
    #[arg(long, value_parser = parse_params)]
    pub params: Option<&'static Params>,
    /// How values are laid out.
    #[arg(long, default_value = "latency", value_parser = packings())]
    pub packing: Packing,
    /// Of how many results of this key labels may be published in all its life; what its holder
    /// decrypts for himself is not counted.
    #[arg(long, default_value_t = 0)]
    pub publications: u32,
    /// File whose first line is the passphrase; otherwise it is taken from the
    /// environment variable HE_EDGE_PASSPHRASE, or asked for.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Write what was made as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs `keygen`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &KeygenArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let planned =
        Planned::new(arguments.params, file.parse()?, arguments.packing).map_err(file.failed())?;
    // Of labels, which the bits say nothing of.
    let allowance = Allowance::new(arguments.publications, MIN_STATISTICAL_BITS);
    let allowance = allowance.map_err(Failure::Allowance)?;
    let [secret, evaluation] = files::generated(&arguments.directory);
    let others = [
        Some(&*secret),
        Some(&*evaluation),
        arguments.passphrase_file.as_deref(),
        file.path(),
    ];
    check_outputs(&[arguments.json.as_deref()], &others)?;
    let passphrase = Passphrase::find(arguments.passphrase_file.as_deref(), true)?;
    let made = files::keygen(
        &arguments.directory,
        &planned,
        allowance,
        &passphrase,
        Cost::DEFAULT,
    )?;
    output::present(arguments.json.as_deref(), &made, || {
        facts(&[
            ("model", made.deployed.model.clone()),
            ("parameter set", made.deployed.params.clone()),
            (
                "for the client alone",
                match made.was_there {
                    true => format!("{}, which was there", made.secret.display()),
                    false => made.secret.display().to_string(),
                },
            ),
            (
                "for the evaluator",
                format!(
                    "{} ({})",
                    made.evaluation.display(),
                    bytes(made.evaluation_bytes)
                ),
            ),
        ])
    })
}
