//! `he-edge infer` and `plan` for networks that a host evaluates by a circuit:
//! more layers than two, encrypted weights, batches.

use std::path::Path;
use std::time::{Duration, Instant};

use he_core::Params;
use he_nn::circuit::batch::BatchCircuit;
use he_nn::circuit::{Circuit, Form, Step};
use he_nn::model::{Input, Model, Sample};
use indicatif::ProgressBar;
use serde::Serialize;

use super::infer::{EvaluatorReport, ImageReport, InferArguments, InferReport, ParamsReport};
use super::infer::{StageReport, text};
use super::output::{self, bytes, grouped};
use super::{Failure, ModelFile, Packing, Weights};
use crate::bundled;
use crate::circuit::{self, EngineError, StageTime, batch, latency};
use crate::data::table::{SPLIT_SEED, Table};
use crate::data::{self, DataSet, Split};
use crate::device::Device;
use crate::plain;

impl From<Weights> for he_nn::circuit::Weights {
    fn from(weights: Weights) -> Self {
        match weights {
            Weights::Plain => Self::Plain,
            Weights::Encrypted => Self::Encrypted,
        }
    }
}

/// Labelled samples of the kind that a model takes.
enum Samples {
    Images(data::Dataset),
    Rows(Table),
}

impl Samples {
    /// The split of the data set that a model is for.
    fn load(model: &Model<'_>, directory: Option<&Path>, split: Split) -> Result<Self, Failure> {
        if let Input::Features { .. } = model.input() {
            let directory = directory.ok_or_else(|| Failure::NoSamples {
                model: model.name().to_owned(),
            })?;
            let (train, test) = Table::load(&DataSet::Pima.locate(directory))?.split(SPLIT_SEED);
            return Ok(Self::Rows(match split {
                Split::Train => train,
                Split::Test => test,
            }));
        }
        let Some(directory) = directory else {
            return Ok(Self::Images(bundled::digits()?));
        };
        let of_name = if model.name().starts_with("fashion") {
            DataSet::FashionMnist
        } else {
            DataSet::Mnist
        };
        Ok(Self::Images(data::load(&of_name.locate(directory), split)?))
    }

    fn all(&self) -> Vec<(Sample<'_>, u8)> {
        match self {
            Self::Images(images) => images.samples().collect(),
            Self::Rows(table) => table.samples().collect(),
        }
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
    if !matches!(arguments.device, Device::InProcess) {
        return Err(Failure::Unplanned {
            what: "this network, packing or form of weights on a device",
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
    let samples = Samples::load(&model, data, arguments.split.into())?;
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
        Packing::Latency => one_by_one(arguments, file, &model, chosen)?,
        Packing::Batch => in_batches(arguments, file, &model, chosen)?,
    };
    let wall = start.elapsed();
    let report = report(arguments, &model, params, offset, chosen, &run, wall)?;
    if let Some(path) = &arguments.json {
        output::write_json(path, &report)?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    let worst = report.images.iter().map(|i| i.max_logit_error);
    let mut out = text(&report, worst.fold(0.0, f64::max));
    out.push('\n');
    out.push_str(&stage_table(&report));
    output::print(&out)
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
        let clear = plain::logits(model, sample).map_err(EngineError::Sample)?;
        let errors = logits.iter().zip(&clear).map(|(a, b)| (a - b).abs());
        images.push(ImageReport {
            index: offset + index,
            label,
            predicted: plain::class(logits),
            plain_predicted: plain::class(&clear),
            max_logit_error: errors.fold(0.0, f64::max),
            logits: logits.clone(),
        });
    }
    let count = images.len().max(1);
    let share = |right: fn(&ImageReport) -> bool| {
        images.iter().filter(|image| right(image)).count() as f64 / count as f64
    };
    let each = |time: Duration| time.as_secs_f64() / count as f64;
    let stages = run.stages.iter().map(|stage| StageReport {
        name: stage.name.clone(),
        instructions: None,
        cycles: None,
        seconds: Some(each(stage.time)),
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
            instructions: None,
            cycles: None,
            seconds: Some(each(total)),
            ram_static_bytes: u32::try_from(run.memory).unwrap_or(u32::MAX),
            ram_stack_peak_bytes: 0,
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
    /// Largest logit error that any input and any randomness can give; of a batch,
    /// unknown before it runs.
    pub logit_error_worst_case: Option<f64>,
    /// Six standard deviations of the logit error.
    pub logit_error_six_sigma: Option<f64>,
    /// Bits between the ranges of training and half the modulus.
    pub headroom_bits: f64,
    /// Samples of one run.
    pub samples: usize,
    /// Input ciphertexts of one run.
    pub ciphertexts: usize,
    /// Their bytes.
    pub input_bytes: usize,
    /// Switching keys, which are kept.
    pub keys: usize,
    /// Their bytes.
    pub key_bytes: usize,
    /// The evaluator's memory.
    pub memory_bytes: usize,
    /// Estimated seconds of one run on one thread of this machine.
    pub seconds_estimate: f64,
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
            let params = circuit.params();
            let keys = latency::wanted_keys(&circuit);
            let steps = circuit.steps().iter().map(|step| describe(step, params));
            let error = circuit.logit_error();
            Ok(CircuitReport {
                model: name,
                device: "inproc",
                weights,
                packing,
                params: ParamsReport::at_level(params, circuit.input_level()),
                steps: steps.collect(),
                logit_error_worst_case: Some(error.worst_case),
                logit_error_six_sigma: Some(error.six_sigma),
                headroom_bits: circuit.headroom_bits(),
                samples: 1,
                ciphertexts: circuit.ciphertexts(),
                input_bytes: circuit.ciphertexts()
                    * circuit::seeded_bytes(params, circuit.input_level())?,
                keys: keys.len(),
                key_bytes: circuit::key_bytes(params, &keys)?,
                memory_bytes: latency::memory(&circuit),
                seconds_estimate: circuit::seconds(params, circuit.passes())?,
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
                        name: match view.layer.linear() {
                            Some(_) => format!("layer {}", step.layer),
                            None => format!("square {}", step.layer),
                        },
                        level: step.level,
                        scale_log2: step.output.log2(),
                        products: view.layer.fan_in(view.input) * view.output.values(),
                    })
                    .collect(),
                logit_error_worst_case: None,
                logit_error_six_sigma: None,
                headroom_bits: circuit.headroom_bits(),
                samples: circuit.samples(),
                ciphertexts: model.inputs(),
                input_bytes: model.inputs() * circuit::seeded_bytes(params, circuit.input_level())?,
                keys: keys.len(),
                key_bytes: circuit::key_bytes(params, &keys)?,
                memory_bytes: batch::memory(&circuit),
                seconds_estimate: circuit::seconds(params, circuit.passes())?,
            })
        }
    }
}

fn describe(step: &Step<'_>, params: &Params) -> CircuitStep {
    match step {
        Step::Linear {
            map,
            form,
            level,
            scales,
        } => CircuitStep {
            name: format!("{}, {}", latency::layer_name(map), form_name(*form)),
            level: *level,
            scale_log2: scales.output.log2(),
            products: form.products(params.slots()),
        },
        Step::Square {
            layer,
            level,
            output,
            ..
        } => CircuitStep {
            name: format!("square {layer}"),
            level: *level,
            scale_log2: output.log2(),
            products: 1,
        },
    }
}

fn form_name(form: Form) -> String {
    match form {
        Form::Blocks { lanes, .. } => format!("blocks of {lanes} lanes"),
        Form::Diagonals { baby, .. } => format!(
            "{} diagonals, {baby} baby and {} giant steps",
            form.diagonals(),
            form.giants()
        ),
        Form::Rows { period } => format!("rows of {period}"),
    }
}

/// A circuit's plan for people.
#[must_use]
pub fn plan_text(r: &CircuitReport) -> String {
    let mut facts = vec![
        ("model", r.model.clone()),
        ("device", r.device.to_owned()),
        (
            "parameters",
            format!(
                "N = {}, {} data primes, log2(Q) = {:.1}, log2(QP) = {:.1}, {} bit security",
                r.params.n,
                r.params.data_limbs,
                r.params.log_q,
                r.params.log_qp,
                r.params.security_bits
            ),
        ),
    ];
    if let (Some(six), Some(worst)) = (r.logit_error_six_sigma, r.logit_error_worst_case) {
        facts.push((
            "logit error",
            format!("{six:.4} at six standard deviations, {worst:.0} in the worst case"),
        ));
    }
    facts.extend([
        (
            "headroom",
            format!("{:.1} bits above the ranges of training", r.headroom_bits),
        ),
        ("samples a run", grouped(r.samples as u64)),
        (
            "upload",
            format!(
                "{} in {} ciphertexts; once, {} in {} keys",
                bytes(r.input_bytes as u64),
                grouped(r.ciphertexts as u64),
                bytes(r.key_bytes as u64),
                r.keys
            ),
        ),
        ("evaluator memory", bytes(r.memory_bytes as u64)),
        (
            "time",
            format!(
                "about {} ms a run on one thread of this machine",
                milliseconds(r.seconds_estimate)
            ),
        ),
    ]);
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
    out
}
