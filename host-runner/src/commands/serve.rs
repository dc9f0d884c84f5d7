//! `he-edge serve`: an evaluator behind TCP.

use clap::Args;
use he_core::Params;

use he_nn::plan::{Target, WeightMode};
use he_nn::program::Program;

use super::{Failure, ModelFile, parse_params, weight_modes};
use crate::evaluator::{self, Held};
use crate::planning;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1:7700")]
    pub listen: String,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// How its weights are held; encrypted ones come from the client, and of the
    /// model its shape and ranges are read.
    #[arg(long, default_value = "plain", value_parser = weight_modes())]
    pub weights: WeightMode,
    /// The parameter set; one that serves if left out.
    #[arg(long, value_parser = parse_params)]
    pub params: Option<&'static Params>,
}

/// Serves one client after the other until it is interrupted.
///
/// # Errors
/// [`Failure`].
#[expect(
    clippy::print_stderr,
    reason = "a server says what it does on standard error"
)]
pub fn run(arguments: &ServeArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let model = file.parse()?;
    let plan = planning::plan(arguments.params, model, arguments.weights, Target::STREAM);
    let plan = plan.map_err(|source| file.failed()(source.into()))?;
    let program = Program::of(&plan).map_err(|source| file.failed()(source.into()))?;
    let held = match arguments.weights {
        WeightMode::Plain => Held::Plain(&program, model),
        WeightMode::Encrypted => Held::Encrypted(&program),
    };
    match evaluator::listen(
        &arguments.listen,
        held,
        |address| eprintln!("evaluating {} at {address}", model.name()),
        |ended| {
            if let Err(error) = ended {
                eprintln!("he-edge: {error}");
            }
        },
    )? {}
}
