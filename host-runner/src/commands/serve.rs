//! `he-edge serve`: an evaluator behind TCP.

use clap::Args;
use he_core::Params;

use super::{Failure, ModelFile, Packing, Weights, circuit, parse_params};
use crate::evaluator::{self, Held};

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
    #[arg(long, value_enum, default_value = "plain")]
    pub weights: Weights,
    /// The parameter set; the smallest that serves if left out.
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
    let program;
    let held = if circuit::is_for(&model, arguments.weights, Packing::Latency)
        || arguments.params.is_some()
    {
        program = circuit::program(&file, &model, arguments.params, arguments.weights)?;
        match arguments.weights {
            Weights::Plain => Held::Circuit(&program, model),
            Weights::Encrypted => Held::Encrypted(&program),
        }
    } else {
        file.plan(&model)?;
        Held::TwoLayers(file.bytes())
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
