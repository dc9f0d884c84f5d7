//! Networks beside TenSEAL: the same weights and the same image, what the
//! evaluator does with it, on one thread, layer by layer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use he_nn::data::table::{FEATURES, Table as Rows};
use he_nn::model::{Layer, LayerView, Model, Shape};
use he_nn::network::{Network, NetworkInput, NetworkLayer, Weights};
use he_nn::plan::{Plan, Step, Target, WeightMode};
use he_nn::{bundled, clear};
use host_runner::client::Client;
use host_runner::encrypted_training::{EPOCHS, Mode, train_by};
use host_runner::engine::{Engine, Times, latency};
use host_runner::planning;
use host_runner::report::steps;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock;
use crate::python::Worker;

/// Side of an image of MNIST.
const SIDE: usize = 28;

/// TenSEAL's ring degree in its tutorials.
const N: usize = 8192;

/// That of a convolution whose windows take more slots than [`N`] has: 196 of 5x5,
/// each in 32 slots.
const WIDE_N: usize = 16384;

/// Largest error of a logit, of the largest logit: above it a side has evaluated
/// another network.
const MAX_ERROR: f64 = 0.5;

/// Where the weights of a network come from. Time does not depend on them.
enum Source {
    /// With `he-edge`.
    Bundled,
    /// Drawn, dense layers of so many values with squares between.
    Drawn(&'static [u16]),
}

/// A network, and what others report of it.
struct Case {
    name: &'static str,
    source: Source,
    weights: WeightMode,
    /// TenSEAL's ring degree.
    tenseal_n: usize,
    /// Seconds of its layers with weights in a paper.
    paper: Option<Paper>,
}

/// What Chen and Song report (Electronics 2021): TenSEAL on a Core i7-8550U, weights in
/// the clear by our reading of its times.
#[derive(Clone, Copy, Serialize)]
struct Paper {
    layers: &'static [f64],
    all: f64,
}

const CASES: [Case; 6] = [
    Case {
        name: "mnist-mlp64",
        source: Source::Bundled,
        weights: WeightMode::Plain,
        tenseal_n: N,
        paper: None,
    },
    Case {
        name: "784-32-10-encrypted-weights",
        source: Source::Drawn(&[784, 32, 10]),
        weights: WeightMode::Encrypted,
        tenseal_n: N,
        paper: None,
    },
    Case {
        name: "mnist-cryptonets",
        source: Source::Bundled,
        weights: WeightMode::Plain,
        tenseal_n: WIDE_N,
        paper: None,
    },
    Case {
        name: "fashion-cryptonets",
        source: Source::Bundled,
        weights: WeightMode::Plain,
        tenseal_n: WIDE_N,
        paper: None,
    },
    Case {
        name: "mnist-cnn",
        source: Source::Bundled,
        weights: WeightMode::Plain,
        tenseal_n: N,
        paper: Some(Paper {
            layers: &[1.10, 7.43, 0.62],
            all: 10.74,
        }),
    },
    Case {
        name: "mnist-fcnn",
        source: Source::Bundled,
        weights: WeightMode::Plain,
        tenseal_n: N,
        paper: Some(Paper {
            layers: &[54.2, 42.5, 0.94],
            all: 102.8,
        }),
    },
];

/// One stage of an evaluation.
#[derive(Serialize)]
struct Row {
    name: String,
    /// How ours evaluates it.
    form: String,
    ms: f64,
    tenseal_ms: Option<f64>,
    paper_ms: Option<f64>,
    level: usize,
    scale_log2: f64,
    bytes: usize,
}

/// What one side sends, receives and keeps, in bytes.
#[derive(Default, Serialize)]
struct Sizes {
    input: usize,
    output: usize,
    keys: usize,
    weights: usize,
    memory: usize,
}

/// One side of a comparison.
#[derive(Serialize)]
struct Side {
    name: String,
    log_qp: f64,
    max_logit_error: f64,
    bytes: Sizes,
}

/// A network on both sides.
#[derive(Serialize)]
pub struct NetworkReport {
    network: &'static str,
    rounds: usize,
    largest_logit: f64,
    ours: Side,
    our_n: usize,
    tenseal_n: usize,
    tenseal: Option<Side>,
    stages: Vec<Row>,
}

/// Encrypted training of logistic regression: [`EPOCHS`] epochs.
#[derive(Serialize)]
pub struct TrainingReport {
    rows: usize,
    features: usize,
    runs: usize,
    sides: Vec<TrainingSide>,
}

/// One side of the training.
#[derive(Serialize)]
struct TrainingSide {
    name: String,
    n: usize,
    log_qp: f64,
    encryption_seconds: f64,
    seconds: f64,
}

/// All of them.
#[derive(Serialize)]
pub struct Report {
    networks: Vec<NetworkReport>,
    training: Option<TrainingReport>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    input_bytes: usize,
    key_bytes: usize,
    weight_bytes: usize,
}

#[derive(Deserialize)]
struct Ran {
    times: Vec<u64>,
    logits: Vec<f64>,
    output_bytes: usize,
    memory: usize,
}

/// Runs the networks whose name begins with `only`, and training where `training`
/// does.
pub fn compare(
    only: &str,
    rounds: usize,
    runs: usize,
    interpreter: Option<&Path>,
) -> Result<Report> {
    let mut networks = Vec::new();
    for case in CASES.iter().filter(|case| case.name.starts_with(only)) {
        let report = network(case, rounds.max(1), runs.max(1), interpreter);
        networks.push(report.with_context(|| case.name)?);
    }
    let (rounds, runs) = (rounds.max(1), runs.max(1));
    let training = match "training".starts_with(only) {
        true => Some(training(interpreter, rounds * runs)?),
        false => None,
    };
    ensure!(
        !networks.is_empty() || training.is_some(),
        "no comparison was made"
    );
    Ok(Report { networks, training })
}

/// TenSEAL's chain: that of its tutorial with as many primes as there are
/// rescalings. Where those are six the last is of 27 bits instead of 31, as else
/// log2(QP) were 218, above the table's 214.
fn chain(rescalings: usize) -> Vec<u32> {
    let mut bits = vec![31];
    bits.extend(std::iter::repeat_n(26, rescalings));
    bits.push(if rescalings > 5 { 27 } else { 31 });
    bits
}

const TENSEAL_SCALE: f64 = 67_108_864.0;

/// Numbers from -1 to 1, always the same ones.
fn uniform() -> impl FnMut() -> f32 {
    let mut state = 1u64;
    move || {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// The file of a network.
fn file(case: &Case, digits: &he_nn::data::Dataset) -> Result<Vec<u8>> {
    let Source::Drawn(sizes) = case.source else {
        let file = bundled::model(case.name).context("no such bundled network")?;
        return Ok(file.to_vec());
    };
    let mut draw = uniform();
    let mut layers = Vec::new();
    for (index, pair) in sizes.windows(2).enumerate() {
        let (inputs, outputs) = (usize::from(pair[0]), usize::from(pair[1]));
        // Results near one: few pixels of a digit are lit.
        let size = if index == 0 { 4.0 } else { 1.7 } / (inputs as f32).sqrt();
        if index > 0 {
            layers.push(NetworkLayer::Polynomial(vec![0.0, 0.0, 1.0]));
        }
        layers.push(NetworkLayer::Dense(Weights::new(
            (0..inputs * outputs).map(|_| draw() * size).collect(),
            (0..outputs).map(|_| draw() * 0.1).collect(),
        )));
    }
    let network = Network {
        name: case.name.into(),
        input: NetworkInput::Image(Shape {
            channels: 1,
            height: SIDE as u16,
            width: SIDE as u16,
        }),
        layers,
    }
    .quantized();
    let draft = network.draft()?;
    let model = Model::parse(&draft)?;
    let ranges = clear::measure(&model, digits.samples())?.ranges;
    Ok(network.file(&ranges)?)
}

/// A layer as TenSEAL's side takes it.
fn layer(view: LayerView<'_>, last: bool, weights: WeightMode) -> Result<Value> {
    let Some(linear) = view.layer.linear() else {
        return Ok(json!({ "kind": "square" }));
    };
    let columns = view.layer.fan_in(view.input);
    let values: Vec<f64> = linear.values(columns).collect();
    let rows: Vec<Vec<f64>> = values
        .chunks_exact(columns.max(1))
        .map(<[f64]>::to_vec)
        .collect();
    let biases: Vec<f64> = linear.biases.iter().map(f64::from).collect();
    Ok(match view.layer {
        Layer::Conv2d { kernel, .. } => {
            ensure!(view.input.channels == 1, "TenSEAL takes one channel");
            let width = usize::from(kernel.width);
            let kernels: Vec<Vec<&[f64]>> =
                rows.iter().map(|row| row.chunks(width).collect()).collect();
            let padding = kernel.padding;
            json!({
                "kind": "conv", "kernels": kernels, "biases": biases, "stride": kernel.stride,
                "padding": [padding.top, padding.bottom, padding.left, padding.right],
            })
        }
        _ => json!({
            "kind": if weights == WeightMode::Plain { "dense" } else { "encrypted" },
            "weights": rows, "biases": biases, "last": last,
        }),
    })
}

/// TenSEAL's rescalings: one a layer, and one for packing what came out in pieces.
fn rescalings(model: &Model<'_>, weights: WeightMode) -> usize {
    let count = model.layer_count();
    let packed = |view: LayerView<'_>| match view.layer {
        Layer::Conv2d { .. } => true,
        Layer::Dense { .. } => weights == WeightMode::Encrypted && view.index + 1 < count,
        _ => false,
    };
    count + model.layers().filter(|&view| packed(view)).count()
}

/// What an evaluation took: the input, then each step.
fn stages(times: Times) -> Vec<Duration> {
    std::iter::once(times.input).chain(times.steps).collect()
}

/// The median of every stage, in milliseconds.
fn medians(runs: &[Vec<Duration>]) -> Vec<f64> {
    let stages = runs.first().map_or(0, Vec::len);
    (0..stages)
        .map(|stage| median(runs.iter().map(|run| run[stage])) * 1e3)
        .collect()
}

/// The median, in seconds.
fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
}

/// TenSEAL's times, those of layers that are one of ours as one.
fn merged(plan: &Plan<'_>, times: &[u64]) -> Result<Vec<Duration>> {
    let mut left = times.iter().map(|&time| Duration::from_nanos(time));
    let mut sums = vec![left.next().context("TenSEAL has no stages")?];
    for step in plan.steps() {
        let layers = match step {
            Step::Linear { map, .. } => {
                let (first, last) = map.layers();
                last - first + 1
            }
            Step::Square { .. } | Step::Polynomial { .. } => 1,
        };
        sums.push(left.by_ref().take(layers).sum());
    }
    ensure!(
        left.next().is_none() && times.len() > plan.model().layer_count(),
        "TenSEAL has {} stages for {} layers and the input",
        times.len(),
        plan.model().layer_count()
    );
    Ok(sums)
}

fn worst(error: f64, logits: &[f64], clear: &[f64]) -> Result<f64> {
    ensure!(
        logits.len() == clear.len(),
        "{} logits instead of {}",
        logits.len(),
        clear.len()
    );
    let errors = logits.iter().zip(clear).map(|(a, b)| (a - b).abs());
    let worst = errors.fold(error, f64::max);
    ensure!(logits.iter().all(|x| x.is_finite()), "a logit is no number");
    let largest = clear.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    ensure!(
        worst < largest * MAX_ERROR,
        "an error of {worst} on logits of {largest}: that is another network"
    );
    Ok(worst)
}

fn network(
    case: &Case,
    rounds: usize,
    runs: usize,
    interpreter: Option<&Path>,
) -> Result<NetworkReport> {
    let digits = bundled::digits()?;
    let file = file(case, &digits)?;
    let model = Model::parse(&file)?;
    let image = digits.images.first().context("no image")?;
    let clear = clear::logits(&model, &image[..])?;

    let plan = planning::plan(None, model, case.weights, Target::Host)?;
    let params = plan.params();
    let mut client = Client::new(plan.clone())?;
    let (keys, weights) = (client.switching_keys()?, client.weights()?);
    let program = client.program().clone();
    let memory = latency::memory(&program);
    let mut engine = Engine::new(program, Some(&model), &keys, &weights)?;
    let input = client.encrypt(&image[..])?;
    let mut ours = Side {
        name: "he-edge".into(),
        log_qp: params.log_qp(),
        max_logit_error: 0.0,
        bytes: Sizes {
            input: input.len(),
            output: 0,
            keys: keys.len(),
            weights: weights.len(),
            memory,
        },
    };

    let bits = chain(rescalings(&model, case.weights));
    let mut tenseal = match interpreter {
        None => None,
        Some(interpreter) => {
            let mut worker = Worker::new(interpreter, "networks.py", &[])?;
            let last = model.layer_count() - 1;
            let layers: Result<Vec<Value>> = model
                .layers()
                .map(|view| layer(view, view.index == last, case.weights))
                .collect();
            let values: Vec<f64> = image.iter().map(|&p| f64::from(p) / 255.0).collect();
            let rows: Vec<&[f64]> = values.chunks(SIDE).collect();
            let described: Described = worker.ask(&json!({
                "network": {
                    "n": case.tenseal_n, "bits": bits, "scale": TENSEAL_SCALE, "layers": layers?, "image": rows,
                },
            }))?;
            let side = Side {
                name: described.name,
                log_qp: f64::from(bits.iter().sum::<u32>()),
                max_logit_error: 0.0,
                bytes: Sizes {
                    input: described.input_bytes,
                    output: 0,
                    keys: described.key_bytes,
                    weights: described.weight_bytes,
                    memory: 0,
                },
            };
            Some((worker, side))
        }
    };

    let (mut times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // One run that is not counted: TenSEAL's computations lay between.
        for run in 0..=runs {
            let (result, measured) = engine.evaluate_by(&input, clock::now)?;
            let logits = client.decrypt(&result)?;
            ours.max_logit_error = worst(ours.max_logit_error, &logits, &clear)?;
            ours.bytes.output = result.len();
            if run > 0 {
                times.push(stages(measured));
            }
        }
        if let Some((worker, side)) = &mut tenseal {
            let ran: Ran = worker.ask(&json!({ "run": true }))?;
            side.max_logit_error = worst(side.max_logit_error, &ran.logits, &clear)?;
            side.bytes.output = ran.output_bytes;
            side.bytes.memory = ran.memory;
            their_times.push(merged(&plan, &ran.times)?);
        }
    }
    let (ours_ms, theirs_ms) = (medians(&times), medians(&their_times));
    // A paper has a time per layer with weights.
    let of_paper = |at: usize| {
        let layers = case.paper?.layers;
        let step = plan.steps().get(at)?;
        let is_linear = |step: &&Step<'_>| matches!(step, Step::Linear { .. });
        let before = plan.steps().iter().take(at).filter(is_linear).count();
        is_linear(&step)
            .then(|| layers.get(before).copied())
            .flatten()
    };
    let mut stages = vec![Row {
        name: "input".into(),
        form: String::new(),
        ms: ours_ms[0],
        tenseal_ms: theirs_ms.first().copied(),
        paper_ms: None,
        level: plan.input_level(),
        scale_log2: plan.input_scale().log2(),
        bytes: input.len(),
    }];
    for (at, step) in steps::of_plan(&plan)?.into_iter().enumerate() {
        stages.push(Row {
            name: step.name,
            form: step.form,
            ms: ours_ms[at + 1],
            tenseal_ms: theirs_ms.get(at + 1).copied(),
            paper_ms: of_paper(at).map(|seconds| seconds * 1e3),
            level: step.level,
            scale_log2: step.scale_log2,
            bytes: step.bytes,
        });
    }
    Ok(NetworkReport {
        network: case.name,
        rounds,
        largest_logit: clear.iter().fold(0.0, |max, x| max.max(x.abs())),
        ours,
        our_n: params.n(),
        tenseal_n: case.tenseal_n,
        tenseal: tenseal.map(|(_, side)| side),
        stages,
    })
}

/// Rows of Pima's training split, and its features.
const TRAINING: (usize, usize) = (538, FEATURES);

/// As many rows as Pima's training split has, features drawn: time does not depend
/// on them.
fn drawn() -> Rows {
    let mut draw = uniform();
    let (rows, _) = TRAINING;
    Rows {
        rows: (0..rows).map(|_| std::array::from_fn(|_| draw())).collect(),
        labels: (0..rows).map(|_| u8::from(draw() > 0.0)).collect(),
    }
}

/// Ours with and without refresh, and one epoch of TenSEAL's tutorial, whose chain
/// this is.
fn training(interpreter: Option<&Path>, runs: usize) -> Result<TrainingReport> {
    #[derive(Deserialize)]
    struct Trained {
        encryption: u64,
        epoch: u64,
    }
    let (rows, features) = TRAINING;
    let table = drawn();
    let mut sides = Vec::new();
    for (mode, name) in [
        (Mode::Refresh, "he-edge, refresh after each epoch"),
        (Mode::NoRefresh, "he-edge, no refresh"),
    ] {
        let (mut seconds, mut encryption) = (Vec::new(), Vec::new());
        // The first is not counted.
        for run in 0..=runs {
            let seed = [run as u8; 32];
            let report = train_by(&table, &table, mode, EPOCHS, &seed, clock::now)?.report;
            if run > 0 {
                seconds.push(report.evaluator());
                encryption.push(report.encryption);
            } else {
                sides.push(TrainingSide {
                    name: name.to_owned(),
                    n: report.n,
                    log_qp: report.log_qp,
                    encryption_seconds: 0.0,
                    seconds: 0.0,
                });
            }
        }
        if let Some(side) = sides.last_mut() {
            side.seconds = median(seconds.into_iter());
            side.encryption_seconds = median(encryption.into_iter());
        }
    }
    if let Some(interpreter) = interpreter {
        let bits = [40u32, 21, 21, 21, 21, 21, 21, 40];
        let mut worker = Worker::new(interpreter, "networks.py", &[])?;
        let trained: Trained = worker.ask(&json!({
            "training": {
                "n": N, "bits": bits, "scale": 2_097_152.0, "rows": rows, "features": features,
            },
        }))?;
        sides.push(TrainingSide {
            name: format!("TenSEAL, one epoch times {EPOCHS}"),
            n: N,
            log_qp: f64::from(bits.iter().sum::<u32>()),
            encryption_seconds: trained.encryption as f64 * 1e-9,
            seconds: trained.epoch as f64 * 1e-9 * EPOCHS as f64,
        });
    }
    Ok(TrainingReport {
        rows,
        features,
        runs,
        sides,
    })
}

impl TrainingReport {
    fn print(&self) {
        println!(
            "\ntraining: logistic regression, {EPOCHS} epochs over {} encrypted rows of {} \
             features, CPU time of\nthe evaluator on one thread, medians of {} runs of ours",
            self.rows, self.features, self.runs
        );
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
        table.set_header(["", "N", "log2(QP)", "encryption, s", "training, s"]);
        for side in &self.sides {
            table.add_row([
                side.name.clone(),
                side.n.to_string(),
                format!("{:.1}", side.log_qp),
                format!("{:.3}", side.encryption_seconds),
                format!("{:.3}", side.seconds),
            ]);
        }
        for column in 1..5 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
    }
}

impl NetworkReport {
    fn all(&self, time: impl Fn(&Row) -> Option<f64>) -> Option<f64> {
        self.stages.iter().map(time).sum()
    }

    fn print(&self) {
        let paper = CASES.iter().find(|case| case.name == self.network);
        let paper = paper.and_then(|case| case.paper);
        println!(
            "\n{}: one image, CPU time on one thread, medians of {} rounds",
            self.network, self.rounds
        );
        let sides = std::iter::once((self.our_n, &self.ours));
        for (n, side) in sides.chain(self.tenseal.iter().map(|side| (self.tenseal_n, side))) {
            println!(
                "  {:<15} N = {n}, log2(QP) = {:.1}, largest error of a logit {:.4} of {:.1}",
                side.name, side.log_qp, side.max_logit_error, self.largest_logit
            );
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
        let mut header = vec![
            "layer",
            "evaluated by",
            "level",
            "scale",
            "bytes after",
            "ms",
        ];
        if self.tenseal.is_some() {
            header.extend(["TenSEAL", "times"]);
        }
        if paper.is_some() {
            header.push("paper");
        }
        let columns = header.len();
        table.set_header(header);
        let ms = |time: Option<f64>| time.map_or_else(String::new, |time| format!("{time:.2}"));
        let mut add =
            |start: Vec<String>, ours: f64, theirs: Option<f64>, of_paper: Option<f64>| {
                let mut cells = start;
                cells.push(ms(Some(ours)));
                if let Some(theirs) = theirs {
                    cells.extend([ms(Some(theirs)), format!("{:.0}", theirs / ours)]);
                }
                if paper.is_some() {
                    cells.push(ms(of_paper));
                }
                table.add_row(cells);
            };
        for row in &self.stages {
            let start = vec![
                row.name.clone(),
                row.form.clone(),
                row.level.to_string(),
                format!("2^{:.2}", row.scale_log2),
                row.bytes.to_string(),
            ];
            add(start, row.ms, row.tenseal_ms, row.paper_ms);
        }
        let mut start = vec![String::new(); 5];
        start[0] = "all".into();
        let all = self.all(|row| Some(row.ms)).unwrap_or_default();
        let theirs = self.all(|row| row.tenseal_ms);
        add(start, all, theirs, paper.map(|paper| paper.all * 1e3));
        for column in 2..columns {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        for side in std::iter::once(&self.ours).chain(&self.tenseal) {
            let bytes = &side.bytes;
            println!(
                "  {:<15} bytes: input {}, result {}, keys {}, encrypted weights {}; memory {}",
                side.name, bytes.input, bytes.output, bytes.keys, bytes.weights, bytes.memory
            );
        }
    }
}

impl Report {
    /// As tables.
    pub fn print(&self) {
        for network in &self.networks {
            network.print();
        }
        if let Some(training) = &self.training {
            training.print();
        }
    }
}
