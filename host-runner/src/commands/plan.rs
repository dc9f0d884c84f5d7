//! `he-edge plan`: everything decided before a run.

use std::path::PathBuf;

use clap::Args;
use he_core::Params;
use he_nn::plan::{Plan, PlanError};
use serde::Serialize;

use super::infer::{ParamsReport, stage_name};
use super::output::{self, bytes, grouped};
use super::{Failure, ModelFile, PARAMS, Packing, Weights, circuit, parse_params};
use crate::boards::{self, Board};

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// The board; if left out, the emulated one for two layers with plain weights,
    /// a host for anything else.
    #[arg(long)]
    pub board: Option<String>,
    /// The parameter set; the smallest that serves if left out.
    #[arg(long, value_parser = parse_params)]
    pub params: Option<&'static Params>,
    /// How the evaluator holds its weights.
    #[arg(long, value_enum, default_value = "plain")]
    pub weights: Weights,
    /// How values are laid out in slots.
    #[arg(long, value_enum, default_value = "latency")]
    pub packing: Packing,
    /// Write the plan as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A step of the circuit.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Its name.
    pub name: &'static str,
    /// Level of its result.
    pub level: usize,
    /// log2 of the scale of its result.
    pub scale_log2: f64,
    /// Switching keys it uses.
    pub keys: usize,
}

/// A part of the board's RAM.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReport {
    /// What it is for.
    pub name: &'static str,
    /// How much.
    pub bytes: usize,
}

/// What a board takes for a network.
#[derive(Clone, Debug, Serialize)]
pub struct BoardUse {
    /// Bytes of the result on the wire, without framing.
    pub output_bytes: usize,
    /// The evaluator's arena.
    pub arena_bytes: usize,
    /// What the RAM is taken by.
    pub memory: Vec<MemoryReport>,
    /// RAM with buffers and stack.
    pub ram_bytes: usize,
    /// RAM of the board.
    pub ram_available: usize,
    /// Number-theoretic transforms on the evaluator.
    pub transforms: usize,
    /// Estimated instructions on the board, link excluded.
    pub instructions_estimate: u64,
}

impl BoardUse {
    /// Of an evaluator whose arena has these parts.
    pub(super) fn new(
        board: &Board,
        arena: &[(&'static str, usize)],
        output_bytes: usize,
        transforms: usize,
        instructions_estimate: u64,
    ) -> Self {
        let arena_bytes = arena.iter().map(|(_, bytes)| bytes).sum();
        let around = [
            ("link, log, faults", board.fixed_bytes),
            ("stack", board.stack_bytes),
            ("free", board.arena_bytes().saturating_sub(arena_bytes)),
        ];
        let parts = arena.iter().chain(&around);
        Self {
            output_bytes,
            arena_bytes,
            memory: parts
                .map(|&(name, bytes)| MemoryReport { name, bytes })
                .collect(),
            ram_bytes: arena_bytes + board.stack_bytes + board.fixed_bytes,
            ram_available: board.ram_bytes + board.external_bytes,
            transforms,
            instructions_estimate,
        }
    }

    /// In sentences; `arena` says what that is.
    pub(super) fn facts(&self, arena: &str) -> [(&'static str, String); 3] {
        let memory = format!(
            "{} of {} bytes, {} of them {arena}",
            grouped(self.ram_bytes as u64),
            grouped(self.ram_available as u64),
            grouped(self.arena_bytes as u64)
        );
        let work = format!(
            "about {} million instructions, {} transforms",
            self.instructions_estimate / 1_000_000,
            self.transforms
        );
        [
            ("download", bytes(self.output_bytes as u64)),
            ("memory", memory),
            ("work", work),
        ]
    }

    /// The memory, part by part.
    pub(super) fn memory_table(&self) -> String {
        let row = |part: &MemoryReport| [part.name.to_owned(), grouped(part.bytes as u64)];
        let rows: Vec<[String; 2]> = self.memory.iter().map(row).collect();
        output::table(["memory", "bytes"], &rows)
    }
}

/// What `plan --json` writes.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The model.
    pub model: String,
    /// The board.
    pub board: &'static str,
    /// How weights are held.
    pub weights: Weights,
    /// How values are laid out.
    pub packing: Packing,
    /// The parameter set.
    pub params: ParamsReport,
    /// Step by step.
    pub steps: Vec<StepReport>,
    /// Largest logit error that any input and any randomness can give.
    pub logit_error_worst_case: f64,
    /// Six standard deviations of the logit error.
    pub logit_error_six_sigma: f64,
    /// Bits between the ranges of training and half the modulus.
    pub headroom_bits: f64,
    /// Input ciphertexts.
    pub ciphertexts: usize,
    /// Uses of switching keys, each streamed.
    pub key_uses: usize,
    /// Bytes of the inputs on the wire, without framing.
    pub input_bytes: usize,
    /// Bytes of the switching keys on the wire, without framing.
    pub key_bytes: usize,
    /// What the board takes.
    #[serde(flatten)]
    pub on_board: BoardUse,
}

/// Plans a model for a board.
///
/// # Errors
/// [`PlanError::Memory`] if the arena does not fit beside stack and buffers.
pub fn report(name: &str, plan: &Plan, board: &'static Board) -> Result<PlanReport, PlanError> {
    let arena_bytes = plan.arena_words() * size_of::<u32>();
    let available = board.arena_bytes();
    if arena_bytes > available {
        return Err(PlanError::Memory {
            needed: arena_bytes,
            available,
        });
    }
    let ciphertext_bytes = plan.ciphertext_words() * size_of::<u32>();
    let arena = [
        ("ciphertext", ciphertext_bytes),
        ("key switch", arena_bytes - ciphertext_bytes),
    ];
    let (input_bytes, key_bytes, output_bytes) = plan.payload_bytes();
    Ok(PlanReport {
        model: name.to_owned(),
        board: board.name,
        weights: Weights::Plain,
        packing: Packing::Latency,
        params: ParamsReport::of(plan),
        steps: steps(plan),
        logit_error_worst_case: plan.logit_error().worst_case,
        logit_error_six_sigma: plan.logit_error().six_sigma,
        headroom_bits: plan.headroom_bits(),
        ciphertexts: plan.ciphertexts(),
        key_uses: plan.key_uses(),
        input_bytes,
        key_bytes,
        on_board: BoardUse::new(
            board,
            &arena,
            output_bytes,
            plan.transforms(),
            instructions(plan, board),
        ),
    })
}

fn steps(plan: &Plan) -> Vec<StepReport> {
    use he_nn::message::StageKind as K;
    let s = plan.scales();
    let level = plan.input_level();
    let keys = |stage| {
        (0..plan.key_uses())
            .filter(|&k| plan.key_use(k).is_some_and(|u| u.stage == stage))
            .count()
    };
    let step = |kind, level, scale: f64| StepReport {
        name: stage_name(kind),
        level,
        scale_log2: scale.log2(),
        keys: keys(kind),
    };
    let input = StepReport {
        name: "inputs",
        level,
        scale_log2: s.input.log2(),
        keys: 0,
    };
    vec![
        input,
        step(K::Layer1, level, s.sums1()),
        step(K::Sum1, level, s.sums1()),
        step(K::Rescale1, level - 1, s.preactivation),
        step(K::Activation, level - 1, s.preactivation * s.preactivation),
        step(K::Rescale2, level - 2, s.square),
        step(K::Layer2, level - 2, s.sums2()),
        step(K::Sum2, level - 2, s.sums2()),
        step(K::Rescale3, level - 3, s.output),
    ]
}

/// Transforms, streamed coefficients and encodings at the board's prices.
fn instructions(plan: &Plan, board: &Board) -> u64 {
    let n = plan.params().n() as u64;
    let butterflies = n / 2 * u64::from(n.trailing_zeros());
    let inputs = (plan.ciphertexts() * (plan.input_level() + 1)) as u64;
    let keys: u64 = (0..plan.key_uses())
        .filter_map(|k| plan.key_use(k))
        .map(|u| ((u.level + 1) * (u.level + 2)) as u64)
        .sum();
    let cost = &board.cost;
    plan.transforms() as u64 * butterflies * cost.butterfly_x100 / 100
        + (inputs + keys) * n * cost.coefficient
        // Both weights and biases of two layers.
        + (plan.ciphertexts() as u64 + 3) * n * cost.encode
}

/// Runs `plan`.
///
/// # Errors
/// [`Failure`]; [`Failure::Plan`] where the model does not fit.
pub fn run(arguments: &PlanArguments) -> Result<(), Failure> {
    let named = arguments.board.as_deref().map(boards::find).transpose()?;
    let json = arguments.json.as_deref();
    let file = ModelFile::open(&arguments.model)?;
    if circuit::is_for(&file.parse()?, arguments.weights, arguments.packing) {
        let (weights, packing) = (arguments.weights, arguments.packing);
        let report = match (named, packing) {
            (Some(board), Packing::Latency) => {
                circuit::plan_on(&file, arguments.params, weights, board)?
            }
            (Some(_), Packing::Batch) => {
                return Err(Failure::Unplanned {
                    what: "batch packing on a board",
                    instead: "no --board",
                });
            }
            (None, _) => circuit::plan(&file, arguments.params, weights, packing)?,
        };
        return output::present(json, &report, || circuit::plan_text(&report));
    }
    let board = match named {
        Some(board) => board,
        None => boards::find(boards::DEFAULT_BOARD)?,
    };
    let file = file.under(arguments.params.unwrap_or(PARAMS));
    let model = file.parse()?;
    let plan = file.plan(&model)?;
    let report = report(&arguments.model, &plan, board).map_err(|source| Failure::Plan {
        model: arguments.model.clone(),
        source,
    })?;
    output::present(json, &report, || text(&report, board))
}

fn text(r: &PlanReport, board: &Board) -> String {
    let mut facts = vec![
        ("model", r.model.clone()),
        ("board", format!("{} ({})", board.name, board.core)),
        ("parameters", r.params.sentence()),
        (
            "logit error",
            format!(
                "{:.3} at six standard deviations, {:.0} in the worst case",
                r.logit_error_six_sigma, r.logit_error_worst_case
            ),
        ),
        (
            "headroom",
            format!("{:.1} bits above the ranges of training", r.headroom_bits),
        ),
        (
            "upload",
            format!(
                "{} in {} ciphertexts, {} in {} uses of switching keys",
                bytes(r.input_bytes as u64),
                r.ciphertexts,
                bytes(r.key_bytes as u64),
                r.key_uses
            ),
        ),
        (
            "keys",
            format!(
                "streamed, none is kept: kept, they would take {} more memory and spare each image after the first that upload",
                bytes(r.key_bytes as u64)
            ),
        ),
    ];
    facts.extend(r.on_board.facts("ciphertext and key switch"));
    let rows: Vec<[String; 4]> = r
        .steps
        .iter()
        .map(|s| {
            [
                s.name.to_owned(),
                s.level.to_string(),
                format!("2^{:.2}", s.scale_log2),
                s.keys.to_string(),
            ]
        })
        .collect();
    let mut out = output::facts(&facts);
    out.push('\n');
    out.push_str(&output::table(["step", "level", "scale", "keys"], &rows));
    out.push('\n');
    out.push_str(&r.on_board.memory_table());
    out
}

#[cfg(test)]
mod tests {
    use he_nn::model::Model;

    use super::*;
    use crate::evaluator::PARAMS;
    use he_nn::bundled;

    #[test]
    fn a_board_is_refused_one_byte_below_what_fits() {
        let bytes = bundled::model("mnist-mlp64").unwrap();
        let plan = Plan::new(PARAMS, &Model::parse(bytes).unwrap()).unwrap();
        let small = boards::find("mps2-an386-256k").unwrap();
        let report_on = |ram_bytes| -> Result<BoardUse, PlanError> {
            let board = Board {
                ram_bytes,
                ..*small
            };
            let plan = report("net", &plan, Box::leak(Box::new(board)))?;
            Ok(plan.on_board)
        };
        let fits = report_on(small.ram_bytes).unwrap();
        let parts: usize = fits.memory.iter().map(|part| part.bytes).sum();
        assert_eq!(parts, 256 * 1024);
        assert_eq!(fits.arena_bytes, 13 * 4 * 4096);
        let exact = report_on(fits.ram_bytes).unwrap();
        assert_eq!(exact.memory.last().unwrap().bytes, 0);
        assert_eq!(
            report_on(fits.ram_bytes - 1).unwrap_err(),
            PlanError::Memory {
                needed: fits.arena_bytes,
                available: fits.arena_bytes - 1
            }
        );
        // Less RAM than stack and buffers take.
        assert_eq!(
            report_on(1024).unwrap_err(),
            PlanError::Memory {
                needed: fits.arena_bytes,
                available: 0
            }
        );
    }
}
