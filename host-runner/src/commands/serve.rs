//! `he-edge serve`: an evaluator behind TCP.

use clap::Args;

use super::{Failure, ModelFile};
use crate::evaluator;

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1:7700")]
    pub listen: String,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
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
    file.plan(&model)?;
    match evaluator::listen(
        &arguments.listen,
        file.bytes(),
        |address| eprintln!("evaluating {} at {address}", model.name()),
        |ended| {
            if let Err(error) = ended {
                eprintln!("he-edge: {error}");
            }
        },
    )? {}
}
