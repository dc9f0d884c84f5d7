//! `he-edge plan`: everything decided before a run.

use std::path::PathBuf;

use clap::Args;
use he_core::Params;
use he_nn::boards;
use he_nn::plan::{Packing, Plan, PlanError, Sums, Target, WeightMode};

use super::output;
use super::{Failure, ModelFile, PaddingArguments, TermsArguments, packings, parse_params};
use crate::choice;
use crate::line::Line;
use crate::planning;
use crate::report::plan::{PlanReport, PlannedPadding};

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
    /// Weights and sums.
    #[command(flatten)]
    pub terms: TermsArguments,
    /// The rate of the board's line, in bits per second, by which `--inputs auto` chooses.
    #[arg(long, value_name = "BAUD", requires = "board", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1200..))]
    pub line_rate: Option<u32>,
    /// Padding of the link to the board.
    #[command(flatten)]
    pub padding: PaddingArguments,
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
    let padding = arguments.padding.padding();
    let padded = |report: PlanReport, plan: &Plan<'_>| match (padding, board) {
        (Some(padding), Some(board)) => Ok::<_, Failure>(PlanReport {
            padding: Some(PlannedPadding::of(plan, board, &padding)?),
            ..report
        }),
        _ => Ok(report),
    };
    let report = match (arguments.packing, board) {
        _ if padding.is_some() && board.is_none() => {
            return Err(Failure::Unplanned {
                what: "padding without a link to a board",
                instead: "--board",
            });
        }
        (Packing::Latency, _) if arguments.terms.is_by_time() => {
            let (Some(board), Some(baud)) = (board, arguments.line_rate) else {
                return Err(Failure::Unplanned {
                    what: "choice by time without a board and its line",
                    instead: "--board and --line-rate, or --inputs N",
                });
            };
            let (terms, line) = (arguments.terms.into(), Line::of(baud));
            let chosen = choice::fastest(arguments.params, model, terms, board, line, None);
            let chosen = chosen.map_err(|source| file.failed()(source.into()))?;
            padded(
                PlanReport::of(name, &chosen.plan, Some(board))?,
                &chosen.plan,
            )?
        }
        (Packing::Latency, _) => {
            let target = board.map_or(Target::Host, boards::Board::target);
            let plan = planning::plan(arguments.params, model, arguments.terms, target);
            let plan = plan.map_err(planned)?;
            padded(PlanReport::of(name, &plan, board)?, &plan)?
        }
        (Packing::Batch, Some(_)) => {
            return Err(Failure::Unplanned {
                what: "batch packing on a board",
                instead: "no --board",
            });
        }
        (Packing::Batch, None) => {
            if arguments.terms.weights == WeightMode::Encrypted {
                return Err(planned(planning::encrypted_batch(&model)));
            }
            if arguments.terms.sums == Sums::Evaluator {
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
