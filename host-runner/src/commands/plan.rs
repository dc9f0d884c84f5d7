//! `he-edge plan`: everything decided before a run.

use std::path::PathBuf;

use clap::Args;
use he_core::Params;
use he_nn::boards::{self, Board};
use he_nn::data::Split;
use he_nn::model::Model;
use he_nn::plan::{Packing, Plan, PlanError, Sums, Target, Terms, WeightMode};
use he_nn::progress::Progress;

use super::output::{self, Bar};
use super::{
    DataArguments, Failure, ModelFile, PaddingArguments, TermsArguments, chosen, packings,
    parse_params,
};
use crate::advice::{self, Advice};
use crate::choice;
use crate::line::Line;
use crate::planning;
use crate::quantized::{self, Evaluated, Quantized, QuantizedError};
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
    /// Compare weights of 4, 6, 8 and 16 bits, rounded per tensor and per channel, in accuracy on
    /// the data, in the clear and encrypted; an ONNX file imported with `--bits 16` is the best
    /// to begin with.
    #[arg(long, requires = "data", conflicts_with = "board")]
    pub quantization: bool,
    /// Samples of the test split that are encrypted for it.
    #[arg(long, requires = "quantization", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// The data that ranges and accuracy are measured on, as `infer --data` takes it.
    #[arg(long, requires = "quantization")]
    pub data: Option<PathBuf>,
    /// Column of a table that holds the labels, as `infer --label` takes it.
    #[arg(long, value_name = "COLUMN", requires = "data")]
    pub label: Option<String>,
    /// Write the plan as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The change of the network that would save most, planned as the network itself is.
fn advised(
    arguments: &PlanArguments,
    terms: Terms,
    model: Model<'_>,
    board: Option<&Board>,
) -> Option<Advice> {
    let target = board.map_or(Target::Host, Board::target);
    let passes = |params: &Params, passes: usize| (passes * params.n()) as f64;
    advice::best(&model, |model| match arguments.packing {
        Packing::Latency => {
            let plan = planning::plan(arguments.params, model, terms, target).ok()?;
            Some(match target {
                Target::Host => passes(plan.params(), plan.total_cost()),
                Target::Stream { .. } => plan.total_cost() as f64,
            })
        }
        Packing::Batch => {
            let plan = planning::batch_plan(arguments.params, model).ok()?;
            // Of a sample, as sets differ in how many they take.
            Some(passes(plan.params(), plan.passes()) / plan.samples() as f64)
        }
    })
}

/// The network with its weights rounded otherwise.
fn quantizations(
    arguments: &PlanArguments,
    file: &ModelFile,
    model: &Model<'_>,
) -> Result<Vec<Quantized>, Failure> {
    let data = DataArguments {
        data: arguments.data.clone(),
        label: arguments.label.clone(),
    };
    let [train, test] = [Split::Train, Split::Test].map(|split| data.samples(model, split));
    let (train, test) = (train?, test?);
    let (train, test) = (train.all(), test.all());
    let evaluated = Evaluated {
        params: arguments.params,
        terms: arguments.terms.into(),
        packing: arguments.packing,
        count: chosen(&test, 0, arguments.count)?.len(),
    };
    let mut bar = Bar::default();
    let rows = quantized::compare(model, &train, &test, evaluated, &mut bar);
    bar.finish();
    rows.map_err(|error| match error {
        QuantizedError::Model(source) => Failure::Model {
            name: file.name().to_owned(),
            source,
        },
        QuantizedError::Service(error) => file.failed()(error),
        QuantizedError::Run(error) => file.failed_in_run()(error),
    })
}

/// Runs `plan`.
///
/// # Errors
/// [`Failure`]; [`Failure::Plan`] where the model does not fit.
pub fn run(arguments: &PlanArguments) -> Result<(), Failure> {
    let board = arguments.board.as_deref().map(boards::find).transpose()?;
    let file = ModelFile::open(&arguments.model)?;
    let model = file.parse()?;
    let quantizations = match arguments.quantization {
        true => quantizations(arguments, &file, &model)?,
        false => Vec::new(),
    };
    let (report, terms) = match report(arguments, &file, model, board) {
        // Weights rounded otherwise may have a plan.
        Err(failure) if !quantizations.is_empty() => {
            output::print(&quantized::table(&quantizations))?;
            return Err(failure);
        }
        planned => planned?,
    };
    let report = PlanReport {
        advice: advised(arguments, terms, model, board),
        quantizations,
        ..report
    };
    output::present(arguments.json.as_deref(), &report, || report.text())
}

/// The plan, and the terms that it was made by.
fn report(
    arguments: &PlanArguments,
    file: &ModelFile,
    model: Model<'_>,
    board: Option<&Board>,
) -> Result<(PlanReport, Terms), Failure> {
    let mut terms: Terms = arguments.terms.into();
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
            let line = Line::of(baud);
            let chosen = choice::fastest(arguments.params, model, terms, board, line, None);
            let chosen = chosen.map_err(|source| file.failed()(source.into()))?;
            terms = chosen.plan.terms();
            padded(
                PlanReport::of(name, &chosen.plan, Some(board))?,
                &chosen.plan,
            )?
        }
        (Packing::Latency, _) => {
            let target = board.map_or(Target::Host, Board::target);
            let plan = planning::plan(arguments.params, model, terms, target);
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
    Ok((report, terms))
}
