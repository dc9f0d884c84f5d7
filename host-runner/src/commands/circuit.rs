//! `he-edge infer` and `plan` for what a circuit evaluates: more layers than two,
//! encrypted weights, batches. In process the keys and weights are in memory; any
//! other device is fed by a stream.

use std::path::Path;
use std::time::{Duration, Instant};

use he_core::Params;
use he_nn::circuit::batch::BatchCircuit;
use he_nn::circuit::program::{Op, Program};
use he_nn::circuit::{Circuit, Form, Step};
use he_nn::message::{StageKind, TimeUnit};
use he_nn::model::{Input, Model, Sample};
use indicatif::ProgressBar;
use serde::Serialize;

use super::infer::{self, StageReport, text};
use super::infer::{EvaluatorReport, ImageReport, InferArguments, InferReport, ParamsReport};
use super::output::{self, bytes, grouped};
use super::plan::BoardUse;
use super::{Failure, ModelFile, Packing, Weights};
use crate::boards::{self, Board};
use crate::circuit::{self, EngineError, StageTime, batch, latency};
use crate::device::Device;
use he_nn::bundled;
use he_nn::clear;
use he_nn::data::{DataSet, Samples, Split};

impl From<Weights> for he_nn::circuit::Weights {
    fn from(weights: Weights) -> Self {
        match weights {
            Weights::Plain => Self::Plain,
            Weights::Encrypted => Self::Encrypted,
        }
    }
}

/// The split of the data set that a model is for; without a directory the bundled
/// digits, where they are what it takes.
fn samples_for(
    model: &Model<'_>,
    directory: Option<&Path>,
    split: Split,
) -> Result<Samples, Failure> {
    // Architectures carry the name of their data.
    let set = match model.input() {
        Input::Features { .. } => DataSet::Pima,
        Input::Image(_) if model.name().starts_with("fashion") => DataSet::FashionMnist,
        Input::Image(_) => DataSet::Mnist,
    };
    match (directory, set) {
        (Some(directory), _) => Ok(Samples::load(set, &set.locate(directory), split)?),
        (None, DataSet::Mnist) => Ok(Samples::Images(bundled::digits()?)),
        (None, DataSet::FashionMnist | DataSet::Pima) => Err(Failure::NoSamples {
            model: model.name().to_owned(),
        }),
    }
}

/// Whether `infer` takes a circuit for this: the streaming session serves two
/// layers, latency packing and plain weights.
#[must_use]
pub fn is_for(model: &Model<'_>, weights: Weights, packing: Packing) -> bool {
    weights == Weights::Encrypted || packing == Packing::Batch || model.two_layer().is_none()
}

/// What one run gave.
#[derive(Default)]
struct Run {
    logits: Vec<Vec<f64>>,
    stages: Vec<StageTime>,
    /// Runs of the evaluator that `stages` sum up.
    runs: u32,
    up: usize,
    down: usize,
    keys: usize,
    weights: usize,
    memory: usize,
    level: usize,
    /// Of a device: its unit, and the time of every step in it.
    unit: Option<TimeUnit>,
    counts: Vec<u64>,
    stack: u32,
}

impl Run {
    fn add(&mut self, times: &[StageTime], up: usize, down: usize) {
        self.runs += 1;
        self.up += up;
        self.down += down;
        if self.stages.is_empty() {
            self.stages = times.to_vec();
            return;
        }
        for (sum, time) in self.stages.iter_mut().zip(times) {
            sum.time += time.time;
        }
    }
}

/// Runs `infer` by a circuit.
///
/// # Errors
/// [`Failure`].
pub fn infer(arguments: &InferArguments, file: &ModelFile) -> Result<(), Failure> {
    let model = file.parse()?;
    let streamed = !matches!(arguments.device, Device::InProcess);
    if streamed && arguments.packing == Packing::Batch {
        return Err(Failure::Unplanned {
            what: "batch packing on a device",
            instead: "--device inproc",
        });
    }
    if arguments.trace.is_some() {
        return Err(Failure::Unplanned {
            what: "a trace of a circuit",
            instead: "a network of two layers with --weights plain",
        });
    }
    let data = arguments.data.as_deref();
    let samples = samples_for(&model, data, arguments.split.into())?;
    let all = samples.all();
    let (offset, count) = (arguments.offset, arguments.count as usize);
    let end = offset.saturating_add(count);
    let chosen = all.get(offset..end).ok_or(Failure::Range {
        offset,
        end,
        available: all.len(),
    })?;
    let start = Instant::now();
    let (params, run) = match arguments.packing {
        Packing::Latency if streamed => on_device(arguments, file, &model, chosen)?,
        Packing::Latency => one_by_one(arguments, file, &model, chosen)?,
        Packing::Batch => in_batches(arguments, file, &model, chosen)?,
    };
    let wall = start.elapsed();
    let report = report(arguments, &model, params, offset, chosen, &run, wall)?;
    output::present(arguments.json.as_deref(), &report, || {
        let worst = report.images.iter().map(|i| i.max_logit_error);
        let mut out = text(&report, worst.fold(0.0, f64::max));
        // What a device counts is in the text.
        if run.unit.is_none_or(|unit| unit == TimeUnit::Nanoseconds) {
            out.push('\n');
            out.push_str(&stage_table(&report));
        }
        out
    })
}

fn planned(file: &ModelFile) -> impl Fn(he_nn::circuit::CircuitError) -> Failure {
    move |source| Failure::Circuit {
        model: file.name().to_owned(),
        source,
    }
}

/// The circuit of one sample.
pub(super) fn latency_circuit<'m>(
    file: &ModelFile,
    model: &Model<'m>,
    params: Option<&'static Params>,
    weights: Weights,
) -> Result<Circuit<'m>, Failure> {
    match params {
        Some(params) => circuit::plan_under(params, *model, weights.into()),
        None => circuit::plan(*model, weights.into()),
    }
    .map_err(planned(file))
}

/// The circuit of a batch.
pub(super) fn batch_circuit<'m>(
    file: &ModelFile,
    model: &Model<'m>,
    params: Option<&'static Params>,
    weights: Weights,
) -> Result<BatchCircuit<'m>, Failure> {
    if weights == Weights::Encrypted {
        let of_layer = |view: he_nn::model::LayerView<'_>| {
            view.layer.linear().map_or(0, |linear| linear.weights.len())
        };
        let weights = model.layers().map(of_layer).sum();
        let source = he_nn::circuit::CircuitError::EncryptedBatch { weights };
        return Err(planned(file)(source));
    }
    match params {
        Some(params) => batch::plan_under(params, *model),
        None => batch::plan(*model),
    }
    .map_err(planned(file))
}

fn one_by_one(
    arguments: &InferArguments,
    file: &ModelFile,
    model: &Model<'_>,
    samples: &[(Sample<'_>, u8)],
) -> Result<(&'static Params, Run), Failure> {
    let circuit = latency_circuit(file, model, arguments.params, arguments.weights)?;
    let mut client = latency::Client::new(circuit.clone())?;
    let (keys, weights) = (client.switching_keys()?, client.weights()?);
    let mut evaluator = latency::Evaluator::new(circuit.clone(), &keys, &weights)?;
    let mut run = Run {
        keys: keys.len(),
        weights: weights.len(),
        memory: latency::memory(&circuit),
        level: circuit.input_level(),
        ..Run::default()
    };
    let bar = bar(samples.len());
    for &(sample, _) in samples {
        let input = client.encrypt(sample)?;
        let (result, times) = evaluator.evaluate(&input)?;
        run.logits.push(client.decrypt(&result)?);
        run.add(&times, input.len(), result.len());
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((circuit.params(), run))
}

/// The circuit of one sample for an evaluator that is fed by a stream, and its
/// program; refused where a board's memory is too small.
fn program_for<'m>(
    file: &ModelFile,
    model: &Model<'m>,
    params: Option<&'static Params>,
    weights: Weights,
    board: Option<&Board>,
) -> Result<(Circuit<'m>, Program), Failure> {
    let (circuit, program) =
        circuit::device::plan(params, *model, weights.into()).map_err(planned(file))?;
    if let Some(board) = board {
        let checked = program.check_memory(board.arena_bytes());
        checked.map_err(planned(file))?;
    }
    Ok((circuit, program))
}

/// The program of an evaluator behind TCP.
pub(super) fn program(
    file: &ModelFile,
    model: &Model<'_>,
    params: Option<&'static Params>,
    weights: Weights,
) -> Result<Program, Failure> {
    program_for(file, model, params, weights, None).map(|(_, program)| program)
}

fn on_device(
    arguments: &InferArguments,
    file: &ModelFile,
    model: &Model<'_>,
    samples: &[(Sample<'_>, u8)],
) -> Result<(&'static Params, Run), Failure> {
    let weights = arguments.weights;
    let board = match &arguments.device {
        Device::Emulator { board } => Some(boards::find(board)?),
        _ => None,
    };
    let (circuit, _) = program_for(file, model, arguments.params, weights, board)?;
    let params = circuit.params();
    let features: &[&str] = match weights {
        Weights::Plain => &[],
        Weights::Encrypted => &["encrypted-weights"],
    };
    let built = ModelFile::open(&arguments.model)?.under(params);
    let mut link = infer::open_with(&arguments.device, &built, arguments.log, features)?;
    let mut client = circuit::device::Client::new(circuit.clone())?;
    let mut run = Run {
        level: circuit.input_level(),
        stages: step_times(&circuit)?,
        counts: vec![0; circuit.steps().len()],
        ..Run::default()
    };
    let bar = infer::upload_bar();
    for (done, &(sample, _)) in samples.iter().enumerate() {
        bar.set_message(format!("sample {} of {}", done + 1, samples.len()));
        let inference = client.infer(&mut link, sample, |sent, total| {
            bar.set_length(total);
            bar.set_position(sent);
        })?;
        run.runs += 1;
        run.up += (inference.bytes.up - inference.bytes.keys_up) as usize;
        run.keys += inference.bytes.keys_up as usize;
        run.down += inference.bytes.down as usize;
        run.memory = run.memory.max(inference.memory.static_bytes as usize);
        run.stack = run.stack.max(inference.memory.stack_peak_bytes);
        run.unit = Some(inference.unit);
        for stage in &inference.stages {
            let StageKind::Step(step) = stage.kind else {
                continue;
            };
            if let Some(count) = run.counts.get_mut(usize::from(step)) {
                *count = count.saturating_add(stage.time);
            }
        }
        run.logits.push(inference.logits);
    }
    bar.finish_and_clear();
    if run.unit == Some(TimeUnit::Nanoseconds) {
        for (stage, &count) in run.stages.iter_mut().zip(&run.counts) {
            stage.time = Duration::from_nanos(count);
        }
    }
    Ok((params, run))
}

/// The steps of a circuit, of which no time is known yet.
fn step_times(circuit: &Circuit<'_>) -> Result<Vec<StageTime>, EngineError> {
    let params = circuit.params();
    let of = |step: &Step<'_>| {
        let scale = match step {
            Step::Linear { scales, .. } => scales.output,
            Step::Square { output, .. } | Step::Polynomial { output, .. } => *output,
        };
        Ok(StageTime {
            name: latency::step_name(step),
            time: Duration::ZERO,
            level: step.level(),
            scale_log2: scale.log2(),
            bytes: circuit::ciphertext_bytes(params, step.output_level())?,
        })
    };
    circuit.steps().iter().map(of).collect()
}

fn in_batches(
    arguments: &InferArguments,
    file: &ModelFile,
    model: &Model<'_>,
    samples: &[(Sample<'_>, u8)],
) -> Result<(&'static Params, Run), Failure> {
    let circuit = batch_circuit(file, model, arguments.params, arguments.weights)?;
    let mut client = batch::Client::new(circuit.clone())?;
    let keys = client.switching_keys()?;
    let mut evaluator = batch::Evaluator::new(circuit.clone(), &keys)?;
    let mut run = Run {
        keys: keys.len(),
        memory: batch::memory(&circuit),
        level: circuit.input_level(),
        ..Run::default()
    };
    let batches = samples.chunks(circuit.samples());
    let bar = bar(batches.len() * circuit.steps().len());
    for chunk in batches {
        let of_chunk: Vec<Sample<'_>> = chunk.iter().map(|&(sample, _)| sample).collect();
        let input = client.encrypt(&of_chunk)?;
        let (result, times) = evaluator.evaluate(&input, |_| bar.inc(1))?;
        run.logits.extend(client.decrypt(&result, chunk.len())?);
        run.add(&times, input.len(), result.len());
    }
    bar.finish_and_clear();
    Ok((circuit.params(), run))
}

/// A bar over steps; drawn only on a terminal.
fn bar(steps: usize) -> ProgressBar {
    ProgressBar::new(steps as u64)
}

fn report(
    arguments: &InferArguments,
    model: &Model<'_>,
    params: &'static Params,
    offset: usize,
    samples: &[(Sample<'_>, u8)],
    run: &Run,
    wall: Duration,
) -> Result<InferReport, Failure> {
    let mut images = Vec::with_capacity(samples.len());
    for (index, (&(sample, label), logits)) in samples.iter().zip(&run.logits).enumerate() {
        let clear = clear::logits(model, sample).map_err(EngineError::Sample)?;
        let errors = logits.iter().zip(&clear).map(|(a, b)| (a - b).abs());
        images.push(ImageReport {
            index: offset + index,
            label,
            predicted: clear::class(logits),
            plain_predicted: clear::class(&clear),
            max_logit_error: errors.fold(0.0, f64::max),
            logits: logits.clone(),
        });
    }
    let count = images.len().max(1);
    let share = |right: fn(&ImageReport) -> bool| {
        images.iter().filter(|image| right(image)).count() as f64 / count as f64
    };
    let each = |time: Duration| time.as_secs_f64() / count as f64;
    // Of a host there is a clock, of a board what it counts.
    let timed = run.unit.is_none_or(|unit| unit == TimeUnit::Nanoseconds);
    let mean = |unit, time: u64| (run.unit == Some(unit)).then_some(time / count as u64);
    let counts = run.counts.iter().copied().chain(std::iter::repeat(0));
    let counted: u64 = run.counts.iter().sum();
    let stages = run
        .stages
        .iter()
        .zip(counts)
        .map(|(stage, time)| StageReport {
            name: stage.name.clone(),
            instructions: mean(TimeUnit::Instructions, time),
            cycles: mean(TimeUnit::Cycles, time),
            seconds: timed.then(|| each(stage.time)),
            level: Some(stage.level),
            scale_log2: Some(stage.scale_log2),
            bytes: Some(stage.bytes),
        });
    let total: Duration = run.stages.iter().map(|stage| stage.time).sum();
    let keys = (run.keys + run.weights) / count;
    Ok(InferReport {
        device: arguments.device.to_string(),
        model: arguments.model.clone(),
        weights: arguments.weights,
        packing: arguments.packing,
        params: ParamsReport::at_level(params, run.level),
        accuracy: share(|i| i.predicted == usize::from(i.label)),
        plain_accuracy: share(|i| i.plain_predicted == usize::from(i.label)),
        label_flips: images
            .iter()
            .filter(|i| i.predicted != i.plain_predicted)
            .count(),
        bytes_up: (run.up / count + keys) as u64,
        bytes_down: (run.down / count) as u64,
        key_bytes_up: keys as u64,
        evaluator: EvaluatorReport {
            instructions: mean(TimeUnit::Instructions, counted),
            cycles: mean(TimeUnit::Cycles, counted),
            seconds: timed.then(|| each(total)),
            ram_static_bytes: u32::try_from(run.memory).unwrap_or(u32::MAX),
            ram_stack_peak_bytes: run.stack,
            stages: stages.collect(),
        },
        wall_seconds: each(wall),
        images,
    })
}

/// Layer by layer.
fn stage_table(report: &InferReport) -> String {
    let rows: Vec<[String; 5]> = report
        .evaluator
        .stages
        .iter()
        .map(|stage| {
            [
                stage.name.clone(),
                stage.seconds.map_or_else(String::new, milliseconds),
                stage.level.map_or_else(String::new, |l| l.to_string()),
                stage
                    .scale_log2
                    .map_or_else(String::new, |s| format!("2^{s:.2}")),
                stage.bytes.map_or_else(String::new, |b| bytes(b as u64)),
            ]
        })
        .collect();
    output::table(
        [
            "layer",
            "ms an image",
            "level before",
            "scale after",
            "ciphertexts after",
        ],
        &rows,
    )
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3}", 1e3 * seconds)
}

/// A step of a circuit.
#[derive(Clone, Debug, Serialize)]
pub struct CircuitStep {
    /// What it does.
    pub name: String,
    /// Level of what it takes.
    pub level: usize,
    /// log2 of the scale of its result.
    pub scale_log2: f64,
    /// Products with weights.
    pub products: usize,
}

/// What `plan --json` writes of a circuit.
#[derive(Clone, Debug, Serialize)]
pub struct CircuitReport {
    /// The model.
    pub model: String,
    /// Where it runs.
    pub device: &'static str,
    /// How weights are held.
    pub weights: Weights,
    /// How values are laid out.
    pub packing: Packing,
    /// The parameter set.
    pub params: ParamsReport,
    /// Step by step.
    pub steps: Vec<CircuitStep>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board: Option<BoardReport>,
}

/// A circuit on a board.
#[derive(Clone, Debug, Serialize)]
pub struct BoardReport {
    /// Bytes of encrypted weights and biases, streamed with every sample.
    pub weight_bytes: usize,
    /// What it takes of the board.
    #[serde(flatten)]
    pub on_board: BoardUse,
}

impl BoardReport {
    /// Of a program.
    #[must_use]
    pub fn of(program: &Program, board: &Board) -> Self {
        let words = |words: usize| words * size_of::<u32>();
        let arena = [
            ("ciphertext", words(program.parts() * program.part_words())),
            (
                "other ciphertexts",
                words(2 * program.registers() * program.register_words()),
            ),
            ("key switch", words(program.work_words())),
            ("a chunk kept", words(program.held_words())),
        ];
        let payload = program.payload();
        Self {
            weight_bytes: payload.factors,
            on_board: BoardUse::new(
                board,
                &arena,
                payload.result,
                program.transforms(),
                instructions(program, board),
            ),
        }
    }
}

/// Transforms, streamed coefficients and encodings at the board's prices.
fn instructions(program: &Program, board: &Board) -> u64 {
    let n = program.params().n() as u64;
    let butterflies = n / 2 * u64::from(n.trailing_zeros());
    let limbs = |level: u8| u64::from(level) + 1;
    let keys = program
        .key_uses()
        .map(|task| limbs(task.level) * (limbs(task.level) + 1));
    let factors = program.factors().map(|task| limbs(task.level));
    let inputs = program.inputs() as u64 * (program.input_level() as u64 + 1);
    let streamed = keys.sum::<u64>() + factors.sum::<u64>() + inputs;
    let encoded = match program.is_encrypted() {
        true => 0,
        false => {
            let encodes = |op: &Op| matches!(op, Op::Product { .. } | Op::Bias);
            program
                .tasks()
                .iter()
                .filter(|task| encodes(&task.op))
                .count() as u64
        }
    };
    let cost = &board.cost;
    program.transforms() as u64 * butterflies * cost.butterfly_x100 / 100
        + streamed * n * cost.coefficient
        + encoded * n * cost.encode
}

/// Plans a circuit for a board.
///
/// # Errors
/// [`Failure::Circuit`] where the network does not fit.
pub fn plan_on(
    file: &ModelFile,
    params: Option<&'static Params>,
    weights: Weights,
    board: &'static Board,
) -> Result<CircuitReport, Failure> {
    let model = file.parse()?;
    let (circuit, program) = program_for(file, &model, params, weights, Some(board))?;
    let payload = program.payload();
    let board_report = BoardReport::of(&program, board);
    Ok(CircuitReport {
        device: board.name,
        input_bytes: payload.inputs,
        keys: program.key_uses().count(),
        key_bytes: payload.keys,
        memory_bytes: board_report.on_board.ram_bytes,
        board: Some(board_report),
        ..latency_report(file, &circuit, weights)?
    })
}

fn latency_report(
    file: &ModelFile,
    circuit: &Circuit<'_>,
    weights: Weights,
) -> Result<CircuitReport, Failure> {
    let params = circuit.params();
    let keys = latency::wanted_keys(circuit);
    let steps = circuit.steps().iter().map(|step| describe(step, params));
    let error = circuit.logit_error();
    Ok(CircuitReport {
        model: file.name().to_owned(),
        device: "inproc",
        weights,
        packing: Packing::Latency,
        params: ParamsReport::at_level(params, circuit.input_level()),
        steps: steps.collect(),
        logit_error_worst_case: error.worst_case,
        logit_error_six_sigma: error.six_sigma,
        headroom_bits: circuit.headroom_bits(),
        samples: 1,
        ciphertexts: circuit.ciphertexts(),
        input_bytes: circuit.ciphertexts() * circuit::seeded_bytes(params, circuit.input_level())?,
        keys: keys.len(),
        key_bytes: circuit::key_bytes(params, &keys)?,
        memory_bytes: latency::memory(circuit),
        seconds_estimate: None,
        board: None,
    })
}

/// Plans a circuit.
///
/// # Errors
/// [`Failure::Circuit`] where the network does not fit.
pub fn plan(
    file: &ModelFile,
    params: Option<&'static Params>,
    weights: Weights,
    packing: Packing,
) -> Result<CircuitReport, Failure> {
    let model = file.parse()?;
    let name = file.name().to_owned();
    match packing {
        Packing::Latency => {
            let circuit = latency_circuit(file, &model, params, weights)?;
            let seconds = circuit::seconds(circuit.params(), circuit.passes())?;
            Ok(CircuitReport {
                seconds_estimate: Some(seconds),
                ..latency_report(file, &circuit, weights)?
            })
        }
        Packing::Batch => {
            let circuit = batch_circuit(file, &model, params, weights)?;
            let params = circuit.params();
            let keys = batch::wanted_keys(&circuit);
            let steps = circuit.steps().iter().zip(model.layers());
            Ok(CircuitReport {
                model: name,
                device: "inproc",
                weights,
                packing,
                params: ParamsReport::at_level(params, circuit.input_level()),
                steps: steps
                    .map(|(step, view)| CircuitStep {
                        name: batch::layer_name(&view),
                        level: step.level,
                        scale_log2: step.output.log2(),
                        products: view.layer.fan_in(view.input) * view.output.values(),
                    })
                    .collect(),
                logit_error_worst_case: circuit.logit_error().worst_case,
                logit_error_six_sigma: circuit.logit_error().six_sigma,
                headroom_bits: circuit.headroom_bits(),
                samples: circuit.samples(),
                ciphertexts: model.inputs(),
                input_bytes: model.inputs() * circuit::seeded_bytes(params, circuit.input_level())?,
                keys: keys.len(),
                key_bytes: circuit::key_bytes(params, &keys)?,
                memory_bytes: batch::memory(&circuit),
                seconds_estimate: Some(circuit::seconds(params, circuit.passes())?),
                board: None,
            })
        }
    }
}

fn describe(step: &Step<'_>, params: &Params) -> CircuitStep {
    match step {
        Step::Linear {
            form,
            level,
            scales,
            ..
        } => CircuitStep {
            name: format!("{}, {}", latency::step_name(step), form_name(*form)),
            level: *level,
            scale_log2: scales.output.log2(),
            products: form.products(params.slots()),
        },
        Step::Square { level, output, .. } => CircuitStep {
            name: latency::step_name(step),
            level: *level,
            scale_log2: output.log2(),
            products: 1,
        },
        Step::Polynomial { level, output, .. } => CircuitStep {
            name: latency::step_name(step),
            level: *level,
            scale_log2: output.log2(),
            products: step
                .polynomial_outcome(params)
                .map_or(0, |outcome| outcome.products as usize),
        },
    }
}

fn form_name(form: Form) -> String {
    match form {
        Form::Blocks { lanes, .. } => format!("blocks of {lanes} lanes"),
        Form::Diagonals { baby, copies, .. } => {
            let counted = |count: usize, what: &str| {
                format!("{count} {what}{}", if count == 1 { "" } else { "s" })
            };
            let copied = if copies > 1 {
                format!(" in each of {copies} copies")
            } else {
                String::new()
            };
            format!(
                "{}{copied}, {}, {}",
                counted(form.diagonals(), "diagonal"),
                counted(baby, "baby step"),
                counted(form.giants(), "giant step")
            )
        }
        Form::Rows { period } => format!("rows of {period}"),
    }
}

/// A circuit's plan for people.
#[must_use]
pub fn plan_text(r: &CircuitReport) -> String {
    let mut facts = vec![
        ("model", r.model.clone()),
        ("device", r.device.to_owned()),
        ("parameters", r.params.sentence()),
    ];
    let (six, worst) = (r.logit_error_six_sigma, r.logit_error_worst_case);
    facts.push((
        "logit error",
        if worst.is_finite() {
            format!("{six:.4} at six standard deviations, {worst:.0} in the worst case")
        } else {
            format!(
                "{six:.4} at six standard deviations; there is no worst case, as inputs unlike those of training may wrap around"
            )
        },
    ));
    facts.extend([
        (
            "headroom",
            format!("{:.1} bits above the ranges of training", r.headroom_bits),
        ),
        ("samples a run", grouped(r.samples as u64)),
        ("upload", upload(r)),
    ]);
    if let Some(seconds) = r.seconds_estimate {
        let time = format!(
            "about {} ms a run on one thread of this machine",
            milliseconds(seconds)
        );
        facts.extend([
            ("evaluator memory", bytes(r.memory_bytes as u64)),
            ("time", time),
        ]);
    }
    if let Some(board) = &r.board {
        facts.extend(board.on_board.facts("the arena"));
    }
    let rows: Vec<[String; 4]> = r
        .steps
        .iter()
        .map(|s| {
            [
                s.name.clone(),
                s.level.to_string(),
                format!("2^{:.2}", s.scale_log2),
                grouped(s.products as u64),
            ]
        })
        .collect();
    let mut out = output::facts(&facts);
    out.push('\n');
    out.push_str(&output::table(
        ["step", "level before", "scale after", "products"],
        &rows,
    ));
    if let Some(board) = &r.board {
        out.push('\n');
        out.push_str(&board.on_board.memory_table());
    }
    out
}

/// What goes up, and how often.
fn upload(r: &CircuitReport) -> String {
    let inputs = bytes(r.input_bytes as u64);
    let (ciphertexts, keys) = (grouped(r.ciphertexts as u64), bytes(r.key_bytes as u64));
    match &r.board {
        None => format!(
            "{inputs} in {ciphertexts} ciphertexts; once, {keys} in {} keys",
            r.keys
        ),
        Some(board) => {
            let weights = match board.weight_bytes {
                0 => String::new(),
                some => format!("{} of encrypted weights, ", bytes(some as u64)),
            };
            format!(
                "{inputs} in {ciphertexts} ciphertexts, {weights}{keys} in {} uses of switching keys",
                r.keys
            )
        }
    }
}
