//! What a plan says before anything runs.

use he_core::rlwe::SwitchTarget;
use he_nn::boards::{self, Board};
use he_nn::kept::{self, KeyShape, MAX_HELD, MemoryFlash};
use he_nn::plan::batch::BatchPlan;
use he_nn::plan::{Packing, Plan, Step, Sums, WeightMode};
use he_nn::program::Program;
use serde::Serialize;

use super::infer::ParamsReport;
use super::steps::{self, StepInfo};
use super::text::{bytes, facts, grouped, table, wide_table};
use crate::advice::{self, Advice};
use crate::choice::{self, Alternative, Exchanged};
use crate::client::Padding;
use crate::engine::{self, EngineError, batch, latency};
use crate::line::{self, Line, PaddedExchange};
use crate::planning;
use crate::quantized::{self, Quantized};

/// What `plan --json` writes.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The model.
    pub model: String,
    /// Where it runs.
    pub device: &'static str,
    /// How weights are held.
    pub weights: WeightMode,
    /// Who adds up the lanes of the last layer's results, where there are any.
    pub sums: Sums,
    /// Lanes of a result that the client adds up; 1 where there are none.
    pub lanes: usize,
    /// How values are laid out.
    pub packing: Packing,
    /// The parameter set.
    pub params: ParamsReport,
    /// Step by step.
    pub steps: Vec<StepInfo>,
    /// Largest logit error that any input and any randomness can give; `null` for
    /// features, which have no bound.
    pub logit_error_worst_case: f64,
    /// Six standard deviations of the logit error.
    pub logit_error_six_sigma: f64,
    /// Bits between the ranges of training and half the modulus.
    pub headroom_bits: f64,
    /// Samples of one run.
    pub samples: usize,
    /// Input ciphertexts of one run.
    pub ciphertexts: usize,
    /// Their bytes.
    pub input_bytes: usize,
    /// Switching keys, which are kept; on a board their uses, each streamed.
    pub keys: usize,
    /// Their bytes.
    pub key_bytes: usize,
    /// The evaluator's memory.
    pub memory_bytes: usize,
    /// Estimated seconds of one run on one thread of this machine; not of a board.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_estimate: Option<f64>,
    /// What a board takes for it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardUse>,
    /// What an image comes to over a padded link, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<PlannedPadding>,
    /// The one change of the network that would save most, where one would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
    /// The network with its weights rounded otherwise, where that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantizations: Vec<Quantized>,
}

/// What an image comes to over a padded link.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedPadding {
    /// The first one.
    pub first: PaddedImage,
    /// Later ones.
    pub later: PaddedImage,
    /// Milliseconds that the board computes for the cell that takes it longest, by the plan's
    /// estimate: with less between cells it is late.
    pub least_every_ms: f64,
}

/// An image over a padded link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PaddedImage {
    /// Cells.
    pub cells: usize,
    /// Bytes up.
    pub bytes_up: usize,
    /// Bytes down.
    pub bytes_down: usize,
    /// Seconds to the end of its last cell.
    pub seconds: f64,
}

impl PlannedPadding {
    /// Of a plan that was made for the board.
    ///
    /// # Errors
    /// [`EngineError`] where the plan has no program.
    pub fn of(plan: &Plan<'_>, board: &Board, padding: &Padding) -> Result<Self, EngineError> {
        let exchanged = Exchanged::new(plan.clone(), board)?;
        let [first, later] = [&exchanged.first, &exchanged.later]
            .map(|exchange| exchange.padded(plan, board.window, padding));
        let most = first.most_work.max(later.most_work) as f64;
        Ok(Self {
            first: first.into(),
            later: later.into(),
            least_every_ms: 1e3 * most / board.instructions_per_second(),
        })
    }

    fn facts(&self) -> [(&'static str, String); 2] {
        let image = |image: PaddedImage| {
            format!(
                "{} cells, {} up, {} down, {}",
                grouped(image.cells as u64),
                bytes(image.bytes_up as u64),
                bytes(image.bytes_down as u64),
                seconds(image.seconds)
            )
        };
        let images = match self.first == self.later {
            true => image(self.first),
            false => format!("{}; later images {}", image(self.first), image(self.later)),
        };
        let least = format!(
            "{:.0} ms, about, for the board not to be late",
            self.least_every_ms
        );
        [("padded", images), ("least time of a cell", least)]
    }
}

impl From<PaddedExchange> for PaddedImage {
    fn from(exchange: PaddedExchange) -> Self {
        Self {
            cells: exchange.cells,
            bytes_up: exchange.up,
            bytes_down: exchange.down,
            seconds: exchange.seconds,
        }
    }
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
    /// The board.
    pub board: &'static str,
    /// Its processor.
    pub core: &'static str,
    /// Bytes of encrypted weights and biases, streamed with every sample.
    pub weight_bytes: usize,
    /// Bytes of the result on the wire, without framing.
    pub output_bytes: usize,
    /// Memory for keys that the board keeps, beside `memory`; 0 where it keeps none.
    pub kept_bytes: usize,
    /// What keeping them takes of the flash that this memory is, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_flash: Option<FlashReport>,
    /// Bytes that go up with every image but the first, without framing.
    pub later_upload_bytes: usize,
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
    /// What an image takes on lines of several rates, those that its link can have.
    pub lines: Vec<LineReport>,
    /// The plans that differ in how much the client sends, this one among them.
    pub alternatives: Vec<AlternativeReport>,
}

/// A plan among those of a network for a board, which differ in how much the client sends.
#[derive(Clone, Debug, Serialize)]
pub struct AlternativeReport {
    /// Input ciphertexts.
    pub inputs: usize,
    /// Whether it is the plan that is reported.
    pub chosen: bool,
    /// Why the board has no such plan; nothing where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What it comes to.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub figures: Option<AlternativeFigures>,
}

/// What a plan comes to.
#[derive(Clone, Debug, Serialize)]
pub struct AlternativeFigures {
    /// Bytes that go up with the first image, framed.
    pub upload_bytes_first: usize,
    /// And with later ones.
    pub upload_bytes_later: usize,
    /// Bytes that come down with each, acknowledgements included.
    pub download_bytes: usize,
    /// Estimated instructions on the board, link excluded.
    pub instructions_estimate: u64,
    /// Six standard deviations of the logit error.
    pub logit_error_six_sigma: f64,
    /// What an image takes on lines of several rates.
    pub lines: Vec<LineReport>,
}

impl AlternativeReport {
    fn of(alternative: &Alternative<'_>, chosen: usize, board: &Board) -> Self {
        let figures = |exchanged: &Exchanged<'_>| AlternativeFigures {
            upload_bytes_first: exchanged.first.up(),
            upload_bytes_later: exchanged.later.up(),
            download_bytes: exchanged.later.down(),
            instructions_estimate: exchanged.plan.total_cost() as u64,
            logit_error_six_sigma: exchanged.plan.logit_error().six_sigma,
            lines: line::lines_of(board)
                .map(|line| LineReport::of(exchanged, line, board))
                .collect(),
        };
        Self {
            inputs: alternative.inputs,
            chosen: alternative.inputs == chosen,
            refused: alternative.outcome.as_ref().err().map(ToString::to_string),
            figures: alternative.outcome.as_ref().ok().map(figures),
        }
    }
}

/// What an image takes on a line, computing included, which is estimated at the board's
/// instructions per cycle.
#[derive(Clone, Debug, Serialize)]
pub struct LineReport {
    /// The line.
    pub line: &'static str,
    /// Its rate, in bits per second; ten bits are a byte.
    pub baud: u32,
    /// Milliseconds that a byte is on its way, each way.
    pub latency_ms: u128,
    /// Seconds of the first image.
    pub seconds_first: f64,
    /// Seconds of every later one.
    pub seconds_later: f64,
    /// Share of the first image's time in which the line is busy.
    pub busy: f64,
}

impl LineReport {
    /// The first image and later ones over a line to a board.
    fn of(exchanged: &Exchanged<'_>, line: Line, board: &Board) -> Self {
        let [first, later] = exchanged.over(line, board);
        Self {
            line: line.name,
            baud: line.baud,
            latency_ms: line.latency.as_millis(),
            seconds_first: first.seconds,
            seconds_later: later.seconds,
            busy: first.share,
        }
    }
}

/// What keeping a network's keys takes of a board's flash, by the typical times and the rated
/// endurance of its data sheet.
#[derive(Clone, Debug, Serialize)]
pub struct FlashReport {
    /// The flash.
    pub name: &'static str,
    /// Keys that are kept.
    pub kept: usize,
    /// Of so many.
    pub keys: usize,
    /// Sectors that are erased.
    pub erased: usize,
    /// Units that are programmed.
    pub programmed: usize,
    /// Seconds that the first image waits for that.
    pub seconds: f64,
    /// How often the keys can be exchanged for others before a sector has been erased as often
    /// as it is rated for.
    pub exchanges: u64,
}

impl FlashReport {
    fn fact(&self) -> (&'static str, String) {
        let text = format!(
            "{} of {} written to {} once, in {}: {} sectors erased, {} units programmed; it endures {} exchanges of keys",
            self.kept,
            self.keys,
            self.name,
            seconds(self.seconds),
            grouped(self.erased as u64),
            grouped(self.programmed as u64),
            grouped(self.exchanges)
        );
        ("keys", text)
    }
}

/// The keys that a board keeps, in the order of their first use as far as there is room.
pub(crate) struct KeptKeys {
    pub(crate) targets: Vec<SwitchTarget>,
    /// What writing them takes where they are kept in a flash.
    pub(crate) written: Option<FlashReport>,
    /// Bytes that there are for keys.
    pub(crate) room: usize,
    memory_bytes: usize,
    /// What later images send of keys: names of those that are kept, and the others.
    upload_bytes: usize,
}

impl KeptKeys {
    pub(crate) fn of(plan: &Plan<'_>, board: &Board) -> Self {
        let arena_bytes = size_of::<u32>() * (plan.arena_words() + plan.owed_words());
        let room = board.key_bytes(arena_bytes);
        let mut uses = Vec::new();
        plan.keys(|target, level| uses.push((target, level)));
        let (page, records) = match board.flash {
            Some(flash) => (flash.page_bytes(room), flash.records),
            None => {
                let sector = MemoryFlash::SECTOR_BYTES;
                let page = kept::page_bytes(room, sector, kept::BOARD_PAGES);
                (page, MAX_HELD)
            }
        };
        let shape = |target, expanded| {
            let is_of = |use_: &&(SwitchTarget, usize)| use_.0 == target;
            let highest = uses.iter().filter(is_of).map(|use_| use_.1).max();
            KeyShape::new(plan.params(), highest.unwrap_or_default(), expanded)
        };
        let memory = |target, expanded| {
            let payload = page - kept::PAGE_HEADER_BYTES;
            shape(target, expanded).size().stored().div_ceil(payload) * page
        };
        let mut wanted: Vec<SwitchTarget> = Vec::new();
        for &(target, _) in &uses {
            if !wanted.contains(&target) {
                wanted.push(target);
            }
        }
        // As `Program::keeps_uniforms` decides, and the firmware for a flash.
        let is_polynomial = |step: &Step<'_>| matches!(step, Step::Polynomial { .. });
        let expanded = room > 0
            && board.flash.is_none()
            && !plan.steps().iter().any(is_polynomial)
            && wanted
                .iter()
                .map(|&target| memory(target, true))
                .sum::<usize>()
                <= room;
        let mut kept = Self {
            targets: Vec::new(),
            written: None,
            room,
            memory_bytes: 0,
            upload_bytes: 0,
        };
        let whole = room / page.max(1) * page;
        let keys = wanted.len();
        for target in wanted.into_iter().filter(|_| room > 0) {
            let memory = memory(target, expanded);
            if kept.memory_bytes + memory <= whole && kept.targets.len() < records {
                kept.targets.push(target);
                kept.memory_bytes += memory;
            }
        }
        kept.written = board.flash.map(|flash| {
            let shapes = kept.targets.iter().map(|&target| shape(target, false));
            let writing = flash.writing(room, shapes);
            FlashReport {
                name: flash.name,
                kept: kept.targets.len(),
                keys,
                erased: writing.pages * page / flash.erase_bytes,
                programmed: writing.programmed,
                seconds: flash.seconds(room, writing),
                exchanges: flash.exchanges(room, writing),
            }
        });
        for (target, level) in uses {
            kept.upload_bytes += match kept.targets.contains(&target) {
                true => kept::KEY_ID_BYTES,
                false => KeyShape::new(plan.params(), level, false).size().bytes,
            };
        }
        kept
    }
}

impl BoardUse {
    /// Of a plan that was made for the board.
    ///
    /// # Errors
    /// [`EngineError`] where the plan has no program.
    pub fn new(plan: &Plan<'_>, board: &Board) -> Result<Self, EngineError> {
        let terms = plan.terms();
        let (params, model) = (plan.params(), *plan.model());
        let others = choice::alternatives(Some(params), model, terms.with_inputs(None), board)?;
        let others = others.iter();
        let alternatives = others.map(|one| AlternativeReport::of(one, plan.ciphertexts(), board));
        let words = |words: usize| words * size_of::<u32>();
        let arena = [
            ("ciphertext", words(plan.accumulator_words())),
            ("other ciphertexts", words(plan.register_words())),
            ("key switch", words(plan.work_words())),
            ("a chunk kept", words(plan.held_words())),
            ("polynomial and its key", words(plan.polynomial_words())),
            ("transforms put off", words(plan.owed_words())),
        ];
        let arena = arena.into_iter().filter(|(_, bytes)| *bytes > 0);
        let arena_bytes = words(plan.arena_words() + plan.owed_words());
        let around = [
            ("link, log, faults", board.fixed_bytes),
            ("stack", board.stack_bytes),
            ("free", board.arena_bytes().saturating_sub(arena_bytes)),
        ];
        let payload = plan.payload();
        let kept = KeptKeys::of(plan, board);
        let exchanged = Exchanged::new(plan.clone(), board)?;
        let lines = line::lines_of(board);
        let lines = lines.map(|line| LineReport::of(&exchanged, line, board));
        Ok(Self {
            board: board.name,
            core: board.core,
            weight_bytes: payload.factors,
            output_bytes: payload.result,
            kept_bytes: kept.memory_bytes,
            kept_flash: kept.written,
            later_upload_bytes: payload.inputs + payload.factors + kept.upload_bytes,
            arena_bytes,
            memory: arena
                .chain(around)
                .map(|(name, bytes)| MemoryReport { name, bytes })
                .collect(),
            ram_bytes: arena_bytes + board.stack_bytes + board.fixed_bytes,
            ram_available: board.ram_bytes + board.external_bytes,
            transforms: plan.transforms(),
            instructions_estimate: plan.total_cost() as u64,
            lines: lines.collect(),
            alternatives: alternatives.collect(),
        })
    }

    fn facts(&self) -> impl Iterator<Item = (&'static str, String)> {
        let memory = format!(
            "{} of {} bytes, {} of them the arena",
            grouped(self.ram_bytes as u64),
            grouped(self.ram_available as u64),
            grouped(self.arena_bytes as u64)
        );
        let work = format!(
            "about {} million instructions, {} transforms",
            self.instructions_estimate / 1_000_000,
            self.transforms
        );
        let facts = [
            ("download", bytes(self.output_bytes as u64)),
            ("memory", memory),
            ("work", work),
        ];
        let flash = self.kept_flash.as_ref().map(FlashReport::fact);
        facts.into_iter().chain(flash)
    }

    fn line_table(&self) -> String {
        let row = |line: &LineReport| {
            [
                format!("{}, {} ms", line.line, line.latency_ms),
                seconds(line.seconds_first),
                seconds(line.seconds_later),
                format!("{:.0} %", 100.0 * line.busy),
            ]
        };
        let rows: Vec<[String; 4]> = self.lines.iter().map(row).collect();
        let header = [
            "line, latency each way",
            "first image",
            "later images",
            "line busy",
        ];
        table(header, &rows)
    }

    /// Later images are what is compared, and the fastest on each line is marked.
    fn alternative_table(&self) -> String {
        let millions = |n: u64| format!("{:.0}", n as f64 / 1e6);
        let fastest = |index: usize| {
            let of = |one: &AlternativeReport| {
                let line = one.figures.as_ref()?.lines.get(index)?;
                Some(line.seconds_later)
            };
            let all = self.alternatives.iter().filter_map(of);
            all.fold(f64::INFINITY, f64::min)
        };
        let row = |one: &AlternativeReport| {
            let mut row = vec![match one.chosen {
                true => format!("{} (this plan)", one.inputs),
                false => one.inputs.to_string(),
            }];
            match &one.figures {
                Some(figures) => {
                    row.extend([
                        bytes(figures.upload_bytes_first as u64),
                        bytes(figures.upload_bytes_later as u64),
                        bytes(figures.download_bytes as u64),
                        millions(figures.instructions_estimate),
                    ]);
                    row.extend(figures.lines.iter().enumerate().map(|(index, line)| {
                        let mark = match line.seconds_later <= fastest(index) {
                            true => " *",
                            false => "",
                        };
                        seconds(line.seconds_later) + mark
                    }));
                }
                None => {
                    row.push("does not fit".to_owned());
                    row.resize(5 + self.lines.len(), "-".to_owned());
                }
            }
            row
        };
        let rows: Vec<Vec<String>> = self.alternatives.iter().map(row).collect();
        let mut header = vec![
            "inputs",
            "up, first image",
            "up, later",
            "down",
            "million instructions",
        ];
        header.extend(self.lines.iter().map(|line| line.line));
        let mut out = wide_table(&header, &rows);
        out.push_str("\nSeconds are of later images; * answers first on a line.\n");
        for one in &self.alternatives {
            if let Some(refused) = &one.refused {
                out.push_str(&format!("{} inputs: {refused}\n", one.inputs));
            }
        }
        out
    }

    fn memory_table(&self) -> String {
        let row = |part: &MemoryReport| [part.name.to_owned(), grouped(part.bytes as u64)];
        let rows: Vec<[String; 2]> = self.memory.iter().map(row).collect();
        table(["memory", "bytes"], &rows)
    }
}

/// Seconds for people.
fn seconds(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

impl PlanReport {
    /// Of a plan of one sample: on the board that it was made for, or on this host.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn of(model: String, plan: &Plan<'_>, board: Option<&Board>) -> Result<Self, EngineError> {
        let params = plan.params();
        let program = Program::of(plan)?;
        let error = plan.logit_error();
        let kept = latency::wanted_keys(&program);
        let payload = plan.payload();
        let on_board = board.map(|board| BoardUse::new(plan, board)).transpose()?;
        let (device, keys, key_bytes, input_bytes, memory_bytes, seconds) = match &on_board {
            Some(on_board) => (
                on_board.board,
                program.key_uses().count(),
                payload.keys,
                payload.inputs,
                on_board.ram_bytes,
                None,
            ),
            None => {
                let input = engine::seeded_bytes(params, plan.input_level())?;
                let seconds = planning::seconds(params, plan.total_cost());
                (
                    "inproc",
                    kept.len(),
                    engine::key_bytes(params, &kept)?,
                    plan.ciphertexts() * input,
                    latency::memory(&program),
                    Some(seconds.map_err(engine::failed("timing"))?),
                )
            }
        };
        Ok(Self {
            model,
            device,
            weights: plan.weights(),
            sums: plan.sums(),
            lanes: plan.lanes(),
            packing: Packing::Latency,
            params: ParamsReport::at_level(params, plan.input_level()),
            steps: steps::of_plan(plan)?,
            logit_error_worst_case: error.worst_case,
            logit_error_six_sigma: error.six_sigma,
            headroom_bits: plan.headroom_bits(),
            samples: 1,
            ciphertexts: plan.ciphertexts(),
            input_bytes,
            keys,
            key_bytes,
            memory_bytes,
            seconds_estimate: seconds,
            board: on_board,
            padding: None,
            advice: None,
            quantizations: Vec::new(),
        })
    }

    /// Of a plan of batches.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn of_batch(model: String, plan: &BatchPlan<'_>) -> Result<Self, EngineError> {
        let params = plan.params();
        let keys = batch::wanted_keys(plan);
        let error = plan.logit_error();
        let inputs = plan.model().inputs();
        let seconds = planning::seconds(params, plan.passes());
        Ok(Self {
            model,
            device: "inproc",
            weights: WeightMode::Plain,
            sums: Sums::Client,
            lanes: 1,
            packing: Packing::Batch,
            params: ParamsReport::at_level(params, plan.input_level()),
            steps: steps::of_batch(plan)?,
            logit_error_worst_case: error.worst_case,
            logit_error_six_sigma: error.six_sigma,
            headroom_bits: plan.headroom_bits(),
            samples: plan.samples(),
            ciphertexts: inputs,
            input_bytes: inputs * engine::seeded_bytes(params, plan.input_level())?,
            keys: keys.len(),
            key_bytes: engine::key_bytes(params, &keys)?,
            memory_bytes: batch::memory(plan, 1),
            seconds_estimate: Some(seconds.map_err(engine::failed("timing"))?),
            board: None,
            padding: None,
            advice: None,
            quantizations: Vec::new(),
        })
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut rows = vec![
            ("model", self.model.clone()),
            ("device", self.device.to_owned()),
            ("parameters", self.params.sentence()),
        ];
        if let Some(board) = &self.board {
            rows.push(("board", format!("{} ({})", board.board, board.core)));
        }
        let (six, worst) = (self.logit_error_six_sigma, self.logit_error_worst_case);
        rows.push((
            "logit error",
            if worst.is_finite() {
                format!("{six:.4} at six standard deviations, {worst:.0} in the worst case")
            } else {
                format!(
                    "{six:.4} at six standard deviations; there is no worst case, as inputs unlike those of training may wrap around"
                )
            },
        ));
        rows.extend([
            (
                "headroom",
                format!(
                    "{:.1} bits above the ranges of training",
                    self.headroom_bits
                ),
            ),
            ("samples per run", grouped(self.samples as u64)),
            ("upload", self.upload()),
        ]);
        if let Some(seconds) = self.seconds_estimate {
            let time = format!(
                "about {:.3} ms per run on one thread of this machine",
                1e3 * seconds
            );
            rows.extend([
                ("evaluator memory", bytes(self.memory_bytes as u64)),
                ("time", time),
            ]);
        }
        if let Some(board) = &self.board {
            rows.extend(board.facts());
        }
        if let Some(padding) = &self.padding {
            rows.extend(padding.facts());
        }
        let mut out = format!("{}\n{}", facts(&rows), self.step_table());
        out.push_str(&match &self.advice {
            Some(Advice { change, saves }) => format!(
                "what would help most: {change}, {:.0} % less work of the evaluator per sample; the network has to be trained with it\n",
                100.0 * saves
            ),
            None => format!(
                "no change of one layer that was planned would save {:.0} %\n",
                100.0 * advice::LEAST
            ),
        });
        if let Some(board) = &self.board {
            out.push('\n');
            out.push_str(&board.memory_table());
            out.push('\n');
            out.push_str(&board.line_table());
            if board.alternatives.len() > 1 {
                out.push('\n');
                out.push_str(&board.alternative_table());
            }
        }
        if !self.quantizations.is_empty() {
            out.push('\n');
            out.push_str(&quantized::table(&self.quantizations));
        }
        out
    }

    /// What a step costs: time on this machine, or a board's instructions and their time.
    fn cost(&self, step: &StepInfo) -> String {
        let all: usize = self.steps.iter().map(|step| step.cost).sum();
        let cost = step.cost as f64;
        let board = self.board.as_ref();
        match (
            self.seconds_estimate,
            board.map(|board| boards::find(board.board)),
        ) {
            (Some(seconds), _) => {
                format!("{:.2} ms", 1e3 * seconds * cost / all.max(1) as f64)
            }
            (None, Some(Ok(board))) => {
                let took = seconds(cost / board.instructions_per_second());
                format!("{:.1} M instructions, {took}", 1e-6 * cost)
            }
            (None, _) => format!("{:.1} M instructions", 1e-6 * cost),
        }
    }

    fn step_table(&self) -> String {
        let of = |s: &StepInfo| {
            let name = match s.form.as_str() {
                "" => s.name.clone(),
                form => format!("{}, {form}", s.name),
            };
            let mut row = vec![
                name,
                s.level.to_string(),
                format!("2^{:.2}", s.scale_log2),
                format!("{:.1e}", s.error_six_sigma),
                grouped(s.products as u64),
                self.cost(s),
                bytes(s.bytes as u64),
            ];
            if self.board.is_some() {
                row.push(bytes(s.bytes_up as u64));
            }
            row
        };
        let mut header = vec![
            "step",
            "level before",
            "scale after",
            "error after, six sigma",
            "products",
            "cost",
            "bytes of its results",
        ];
        if self.board.is_some() {
            header.push("up, first image");
        }
        wide_table(&header, &self.steps.iter().map(of).collect::<Vec<_>>())
    }

    /// What goes up, and how often.
    fn upload(&self) -> String {
        let inputs = bytes(self.input_bytes as u64);
        let (ciphertexts, keys) = (
            grouped(self.ciphertexts as u64),
            bytes(self.key_bytes as u64),
        );
        match &self.board {
            None => format!(
                "{inputs} in {ciphertexts} ciphertexts; once, {keys} in {} keys",
                self.keys
            ),
            Some(board) => {
                let weights = match board.weight_bytes {
                    0 => String::new(),
                    some => format!("{} of encrypted weights, ", bytes(some as u64)),
                };
                let later = match board.kept_bytes {
                    0 => String::new(),
                    some => format!(
                        "; {} with each image after the first, as the board keeps keys in {} of {}",
                        bytes(board.later_upload_bytes as u64),
                        bytes(some as u64),
                        match board.kept_flash {
                            Some(_) => "flash",
                            None => "external memory",
                        }
                    ),
                };
                format!(
                    "{inputs} in {ciphertexts} ciphertexts, {weights}{keys} in {} uses of switching keys{later}",
                    self.keys
                )
            }
        }
    }
}
