//! `he-edge flash`: builds the firmware and puts it on a board.

use clap::Args;

use super::Failure;
use he_nn::boards;

/// Arguments of `flash`.
#[derive(Debug, Args)]
pub struct FlashArguments {
    /// The board.
    #[arg(long)]
    pub board: String,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// The debug probe, as `VID:PID` or `VID:PID:SERIAL`, if there are several.
    #[arg(long)]
    pub probe: Option<String>,
    /// End when the image is on the board, without reading its log.
    #[arg(long)]
    pub no_log: bool,
}

/// Runs `flash`; with the log, until it is interrupted.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &FlashArguments) -> Result<(), Failure> {
    let board = boards::find(&arguments.board)?;
    let chip = board
        .chip
        .ok_or(Failure::NotPhysical { board: board.name })?;
    flash(board, chip, arguments)
}

#[cfg(feature = "flash")]
fn flash(board: &boards::Board, chip: &str, arguments: &FlashArguments) -> Result<(), Failure> {
    use he_nn::plan::WeightMode;

    use super::{ModelFile, infer, output};
    use crate::device::firmware_build::{self, Options};
    use crate::device::probe::Probe;
    use crate::planning;

    // Before the build, which takes longer than to find that there is none.
    let probe = Probe::find(arguments.probe.as_deref())?;
    let model = ModelFile::open(&arguments.model)?;
    let plan = planning::plan(None, model.parse()?, WeightMode::Plain, board.target());
    let plan = plan.map_err(|source| model.failed()(source.into()))?;
    let built_from = model.built_from();
    let image = firmware_build::build(&Options {
        board: board.name,
        model: built_from.as_deref(),
        params: plan.params(),
        features: &[],
        inputs: None,
    })?;
    let running = probe.flash(chip, &image)?;
    if arguments.no_log {
        return output::print(&format!("{} runs the evaluator", board.name));
    }
    running.read_log(&image, infer::log_sink(true))?;
    Ok(())
}

/// Names the feature that is missing.
#[cfg(not(feature = "flash"))]
const fn flash(_: &boards::Board, _: &str, _: &FlashArguments) -> Result<(), Failure> {
    Err(Failure::NoFlashing)
}
