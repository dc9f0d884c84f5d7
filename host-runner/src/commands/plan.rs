//! `he-edge plan`: everything decided before a run.

use std::path::PathBuf;

use clap::Args;
use he_core::Params;
use he_nn::boards;
use he_nn::plan::{Packing, PlanError, Sums, Target, Terms, WeightMode};

use super::output;
use super::{Failure, ModelFile, packings, parse_params, summing, weight_modes};
use crate::planning;
use crate::report::plan::PlanReport;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// The board; this host if left out.
    #[arg(long)]
    pub board: Option<String>,
    /// The parameter set, `n4096-depth3` or `n8192-depth5`; one that serves if left out.
    #[arg(long, value_parser = parse_params)]
    pub params: Option<&'static Params>,
    /// How the evaluator holds its weights.
    #[arg(long, default_value = "plain", value_parser = weight_modes())]
    pub weights: WeightMode,
    /// Who adds up the lanes of the last layer's results: the client, or the evaluator by
    /// rotations.
    #[arg(long, default_value = "client", value_parser = summing())]
    pub sums: Sums,
    /// How values are laid out in slots.
    #[arg(long, default_value = "latency", value_parser = packings())]
    pub packing: Packing,
    /// Write the plan as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs `plan`.
///
/// # Errors
/// [`Failure`]; [`Failure::Plan`] where the model does not fit.
pub fn run(arguments: &PlanArguments) -> Result<(), Failure> {
    let board = arguments.board.as_deref().map(boards::find).transpose()?;
    let file = ModelFile::open(&arguments.model)?;
    let model = file.parse()?;
    let name = file.name().to_owned();
    let planned = |source: PlanError| file.failed()(source.into());
    let report = match (arguments.packing, board) {
        (Packing::Latency, _) => {
            let target = board.map_or(Target::Host, boards::Board::target);
            let terms = Terms {
                weights: arguments.weights,
                sums: arguments.sums,
            };
            let plan = planning::plan(arguments.params, model, terms, target);
            PlanReport::of(name, &plan.map_err(planned)?, board)?
        }
        (Packing::Batch, Some(_)) => {
            return Err(Failure::Unplanned {
                what: "batch packing on a board",
                instead: "no --board",
            });
        }
        (Packing::Batch, None) => {
            if arguments.weights == WeightMode::Encrypted {
                return Err(planned(planning::encrypted_batch(&model)));
            }
            if arguments.sums == Sums::Evaluator {
                return Err(Failure::Unplanned {
                    what: "choice of who adds up lanes in batches, which have none",
                    instead: "--packing latency",
                });
            }
            let plan = planning::batch_plan(arguments.params, model).map_err(planned)?;
            PlanReport::of_batch(name, &plan)?
        }
    };
    output::present(arguments.json.as_deref(), &report, || report.text())
}
