//! `he-edge infer`: remote encrypted inference.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use he_core::Params;
use he_nn::message::{Memory, StageKind, TimeUnit};
use he_nn::model::Model;
use he_nn::plan::Plan;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::output::{self, grouped};
use super::{
    Failure, ModelFile, PARAMS, Packing, SplitName, Weights, circuit, parse_device, parse_params,
};
use crate::client::{Client, Inference};
use crate::device::emulator::Emulator;
use crate::device::log::LogSink;
use crate::device::serial::Serial;
use crate::device::{Connection, Device, DeviceError, Transport, firmware_build, stream};
use crate::evaluator;
use crate::trace::{Timeline, TracedImage};
use he_nn::bundled;
use he_nn::clear;
use he_nn::data::{self, DataSet, Dataset};

/// Arguments of `infer`.
#[derive(Debug, Args)]
pub struct InferArguments {
    /// Where the evaluator runs: `inproc`, `qemu` (builds and starts the
    /// firmware), `qemu:BOARD`, the path of a serial port (`PATH@BAUD`), or
    /// `tcp:HOST:PORT`.
    #[arg(long, default_value = "inproc", value_parser = parse_device)]
    pub device: Device,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// The parameter set; the smallest that serves if left out.
    #[arg(long, value_parser = parse_params)]
    pub params: Option<&'static Params>,
    /// Directory of the IDX files or the table, or of several data sets, of which
    /// the model's is taken; the bundled digits if left out.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Which half of the data.
    #[arg(long, value_enum, default_value = "test")]
    pub split: SplitName,
    /// How many images.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// First image.
    #[arg(long, default_value_t = 0)]
    pub offset: usize,
    /// How the evaluator holds its weights.
    #[arg(long, value_enum, default_value = "plain")]
    pub weights: Weights,
    /// How values are laid out in slots.
    #[arg(long, value_enum, default_value = "latency")]
    pub packing: Packing,
    /// Write what the evaluator did when to this file, as trace-event JSON for
    /// Perfetto or chrome://tracing, and a picture of the first image's beside
    /// it, with the ending `.svg`. Firmware is built with its tracer for it.
    #[arg(long, value_name = "FILE", value_parser = trace_path)]
    pub trace: Option<PathBuf>,
    /// Write the result as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show the board's log on standard error.
    #[arg(long)]
    pub log: bool,
}

fn trace_path(name: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(name);
    let svg = path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("svg"));
    match path.file_name() {
        Some(_) if name != "-" && !svg => Ok(path),
        _ => Err("the trace is JSON and its picture is put beside it with the ending .svg: name a file such as trace.json".to_owned()),
    }
}

/// The parameter set in use.
#[derive(Clone, Debug, Serialize)]
pub struct ParamsReport {
    /// Ring degree.
    pub n: usize,
    /// log2 of the data modulus.
    pub log_q: f64,
    /// log2 of data modulus and special prime: what security is judged by.
    pub log_qp: f64,
    /// Primes of the data modulus.
    pub data_limbs: usize,
    /// Claimed security, classical, by ePrint 2024/463.
    pub security_bits: u32,
}

impl ParamsReport {
    /// Of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self::at_level(plan.params(), plan.params().max_level())
    }

    /// Of a circuit that begins at a level: security is that of the whole set, as
    /// keys are made for it.
    #[must_use]
    pub fn at_level(p: &Params, level: usize) -> Self {
        let round = |x: f64| (x * 1000.0).round() / 1000.0;
        Self {
            n: p.n(),
            log_q: round(p.log_q(level)),
            log_qp: round(p.log_qp()),
            data_limbs: level + 1,
            security_bits: p.security().bits(),
        }
    }

    /// What a plan says of them.
    pub(super) fn sentence(&self) -> String {
        format!(
            "N = {}, {} data primes, log2(Q) = {:.1}, log2(QP) = {:.1}, {} bit security",
            self.n, self.data_limbs, self.log_q, self.log_qp, self.security_bits
        )
    }
}

/// One image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageReport {
    /// Its index in the split.
    pub index: usize,
    /// Its label.
    pub label: u8,
    /// Class of the decrypted logits.
    pub predicted: usize,
    /// Class of the same quantized network in the clear.
    pub plain_predicted: usize,
    /// Largest difference between decrypted and clear logits.
    pub max_logit_error: f64,
    /// Decrypted logits.
    pub logits: Vec<f64>,
}

/// One stage, mean over the images.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// Instructions an image, `null` unless emulated.
    pub instructions: Option<u64>,
    /// Cycles an image, `null` unless on hardware.
    pub cycles: Option<u64>,
    /// Seconds an image, `null` unless on a host.
    pub seconds: Option<f64>,
    /// Level before it; of circuits alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<usize>,
    /// log2 of the scale after it; of circuits alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_log2: Option<f64>,
    /// Bytes of the ciphertexts after it, on the wire; of circuits alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

/// The evaluator's side, means over the images.
#[derive(Clone, Debug, Serialize)]
pub struct EvaluatorReport {
    /// Instructions an image, link excluded; `null` unless emulated.
    pub instructions: Option<u64>,
    /// Cycles an image, link excluded; `null` unless on hardware.
    pub cycles: Option<u64>,
    /// Seconds an image, link excluded; `null` unless on a host.
    pub seconds: Option<f64>,
    /// Static memory; in-process, the arena.
    pub ram_static_bytes: u32,
    /// Peak of the painted stack; in-process, 0.
    pub ram_stack_peak_bytes: u32,
    /// Per stage.
    pub stages: Vec<StageReport>,
}

/// What `infer --json` writes.
#[derive(Clone, Debug, Serialize)]
pub struct InferReport {
    /// The device.
    pub device: String,
    /// The model.
    pub model: String,
    /// How its weights are held.
    pub weights: Weights,
    /// How values are laid out.
    pub packing: Packing,
    /// The parameter set.
    pub params: ParamsReport,
    /// Per image.
    pub images: Vec<ImageReport>,
    /// Share of images classified right from decrypted logits.
    pub accuracy: f64,
    /// Share of images classified right in the clear.
    pub plain_accuracy: f64,
    /// Images whose label differs between the two.
    pub label_flips: usize,
    /// Bytes to the evaluator an image, framing and keys included.
    pub bytes_up: u64,
    /// Bytes from the evaluator an image.
    pub bytes_down: u64,
    /// Of `bytes_up`, what the switching keys took.
    pub key_bytes_up: u64,
    /// The evaluator's side.
    pub evaluator: EvaluatorReport,
    /// Wall-clock seconds an image, encryption and link included.
    pub wall_seconds: f64,
}

/// Name of a stage in reports.
#[must_use]
pub const fn stage_name(kind: StageKind) -> &'static str {
    match kind {
        StageKind::Layer1 => "layer1",
        StageKind::Sum1 => "sum1",
        StageKind::Rescale1 => "rescale1",
        StageKind::Activation => "activation",
        StageKind::Rescale2 => "rescale2",
        StageKind::Layer2 => "layer2",
        StageKind::Sum2 => "sum2",
        StageKind::Rescale3 => "rescale3",
        StageKind::Step(_) => "step",
    }
}

/// Opens a device; an emulated board is built for and started.
///
/// # Errors
/// [`Failure`].
pub fn open(
    device: &Device,
    model: &ModelFile,
    log: bool,
) -> Result<Connection<Box<dyn Transport>>, Failure> {
    open_with(device, model, log, &[])
}

/// As [`open`], with these cargo features of the firmware where it is built.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    device: &Device,
    model: &ModelFile,
    log: bool,
    features: &[&str],
) -> Result<Connection<Box<dyn Transport>>, Failure> {
    let transport: Box<dyn Transport> = match device {
        Device::InProcess => Box::new(evaluator::in_process_under(model.params(), model.bytes())?),
        Device::Emulator { board } => {
            check_emulated(board)?;
            let image = build_firmware(board, model, features)?;
            Box::new(Emulator::start(board, &image, log_sink(log))?)
        }
        Device::Tcp { address } => Box::new(stream::connect(address)?),
        Device::Serial { path, baud } => Box::new(Serial::open(path, *baud)?),
    };
    Ok(Connection::new(transport))
}

/// Refuses a board that nothing emulates, before an image is built for it.
pub(super) fn check_emulated(board: &str) -> Result<(), Failure> {
    match crate::boards::find(board)?.machine {
        Some(_) => Ok(()),
        None => Err(DeviceError::UnknownBoard {
            board: board.into(),
        }
        .into()),
    }
}

/// Builds the evaluator for a board, with these cargo features.
///
/// # Errors
/// [`Failure::Firmware`].
pub fn build_firmware(
    board: &str,
    model: &ModelFile,
    features: &[&str],
) -> Result<PathBuf, Failure> {
    let path = model.built_from();
    let options = firmware_build::Options {
        board,
        model: path.as_deref(),
        params: model.params(),
        features,
    };
    let spinner = ProgressBar::new_spinner().with_message("building the firmware");
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    let image = firmware_build::build(&options)?;
    spinner.finish_and_clear();
    Ok(image)
}

/// Takes a board's log, and writes it to standard error if it is to be shown.
#[expect(
    clippy::print_stderr,
    reason = "the log goes where the user asked for it"
)]
pub(super) fn log_sink(show: bool) -> LogSink {
    Box::new(move |line| {
        if show {
            eprintln!("board {} {} {}", line.time, line.level, line.message);
        }
    })
}

/// A bar over the bytes of an upload; drawn only on a terminal.
#[must_use]
pub fn upload_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:16} [{bar:30}] {bytes:>10} of {total_bytes} ({bytes_per_sec})",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style.progress_chars("=> "))
}

/// Runs inferences one after the other and collects a report.
///
/// # Errors
/// [`Failure::Client`] at the first that fails.
pub fn run_images<T: Transport>(
    client: &mut Client,
    link: &mut Connection<T>,
    model: &Model<'_>,
    images: impl Iterator<Item = (usize, [u8; data::PIXELS], u8)>,
    count: usize,
    mut seen: impl FnMut(&ImageReport, &Inference),
) -> Result<Collected, Failure> {
    let bar = upload_bar();
    let mut collected = Collected::default();
    let start = Instant::now();
    for (done, (index, pixels, label)) in images.enumerate() {
        bar.set_message(format!("image {} of {count}", done + 1));
        let inference = client.infer(link, &pixels, |sent, total| {
            bar.set_length(total);
            bar.set_position(sent);
        })?;
        let plain = clear::logits(model, &pixels).map_err(|source| Failure::Model {
            name: model.name().to_owned(),
            source,
        })?;
        let errors = inference
            .logits
            .iter()
            .zip(&plain)
            .map(|(a, b)| (a - b).abs());
        let report = ImageReport {
            index,
            label,
            predicted: inference.label(),
            plain_predicted: clear::argmax(&plain),
            max_logit_error: errors.fold(0.0, f64::max),
            logits: inference.logits.clone(),
        };
        seen(&report, &inference);
        collected.add(report, &inference);
    }
    bar.finish_and_clear();
    collected.seconds = start.elapsed().as_secs_f64();
    Ok(collected)
}

/// What a run of inferences added up to.
#[derive(Debug, Default)]
pub struct Collected {
    /// Per image.
    pub images: Vec<ImageReport>,
    up: u64,
    down: u64,
    keys_up: u64,
    /// The evaluator's memory, largest seen.
    pub memory: Memory,
    unit: Option<TimeUnit>,
    stages: Vec<(StageKind, u64)>,
    /// Wall-clock time in all.
    pub seconds: f64,
}

impl Collected {
    fn add(&mut self, report: ImageReport, inference: &Inference) {
        self.up += inference.bytes.up;
        self.down += inference.bytes.down;
        self.keys_up += inference.bytes.keys_up;
        let m = &mut self.memory;
        m.static_bytes = m.static_bytes.max(inference.memory.static_bytes);
        m.stack_peak_bytes = m.stack_peak_bytes.max(inference.memory.stack_peak_bytes);
        self.unit = Some(inference.unit);
        for stage in &inference.stages {
            match self.stages.iter_mut().find(|(kind, _)| *kind == stage.kind) {
                Some((_, time)) => *time = time.saturating_add(stage.time),
                None => self.stages.push((stage.kind, stage.time)),
            }
        }
        self.images.push(report);
    }

    /// Largest logit error over all images.
    #[must_use]
    pub fn max_logit_error(&self) -> f64 {
        self.images
            .iter()
            .map(|i| i.max_logit_error)
            .fold(0.0, f64::max)
    }

    /// The report.
    #[must_use]
    pub fn report(self, device: String, model: &str, plan: &Plan) -> InferReport {
        let count = self.images.len().max(1);
        let share = |right: usize| right as f64 / count as f64;
        let mean = |total: u64| total / count as u64;
        let of = |unit| move |time| (self.unit == Some(unit)).then_some(time);
        let (instructions, cycles) = (of(TimeUnit::Instructions), of(TimeUnit::Cycles));
        let nanoseconds = of(TimeUnit::Nanoseconds);
        let seconds = |time: u64| time as f64 / 1e9;
        let sum = |sum: u64, (_, time): &(_, u64)| sum.saturating_add(*time);
        let total = mean(self.stages.iter().fold(0, sum));
        let stages = self.stages.iter().map(|&(kind, time)| StageReport {
            name: stage_name(kind).to_owned(),
            instructions: instructions(mean(time)),
            cycles: cycles(mean(time)),
            seconds: nanoseconds(mean(time)).map(seconds),
            level: None,
            scale_log2: None,
            bytes: None,
        });
        let right = |f: fn(&ImageReport) -> usize| {
            self.images
                .iter()
                .filter(|i| f(i) == usize::from(i.label))
                .count()
        };
        InferReport {
            device,
            model: model.to_owned(),
            weights: Weights::Plain,
            packing: Packing::Latency,
            params: ParamsReport::of(plan),
            accuracy: share(right(|i| i.predicted)),
            plain_accuracy: share(right(|i| i.plain_predicted)),
            label_flips: self
                .images
                .iter()
                .filter(|i| i.predicted != i.plain_predicted)
                .count(),
            bytes_up: mean(self.up),
            bytes_down: mean(self.down),
            key_bytes_up: mean(self.keys_up),
            evaluator: EvaluatorReport {
                instructions: instructions(total),
                cycles: cycles(total),
                seconds: nanoseconds(total).map(seconds),
                ram_static_bytes: self.memory.static_bytes,
                ram_stack_peak_bytes: self.memory.stack_peak_bytes,
                stages: stages.collect(),
            },
            wall_seconds: self.seconds / count as f64,
            images: self.images,
        }
    }
}

/// The images of `offset .. offset + count`.
fn select(
    data: Dataset,
    offset: usize,
    count: usize,
) -> Result<impl Iterator<Item = (usize, [u8; data::PIXELS], u8)>, Failure> {
    let available = data.images.len();
    let end = offset.saturating_add(count);
    if end > available {
        return Err(Failure::Range {
            offset,
            end,
            available,
        });
    }
    let pairs = data.images.into_iter().zip(data.labels).enumerate();
    Ok(pairs
        .skip(offset)
        .take(count)
        .map(|(i, (image, label))| (i, image, label)))
}

/// Runs `infer`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &InferArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    if circuit::is_for(&file.parse()?, arguments.weights, arguments.packing) {
        return circuit::infer(arguments, &file);
    }
    let file = file.under(arguments.params.unwrap_or(PARAMS));
    let model = file.parse()?;
    let plan = file.plan(&model)?;
    if model.inputs() != data::PIXELS {
        return Err(Failure::Inputs {
            model: file.name().to_owned(),
            expected: model.inputs(),
            got: data::PIXELS,
        });
    }
    let dataset = match &arguments.data {
        Some(directory) => data::load(&DataSet::Mnist.locate(directory), arguments.split.into())?,
        None => bundled::digits()?,
    };
    let count = arguments.count as usize;
    let images = select(dataset, arguments.offset, count)?;
    let tracing = arguments.trace.is_some();
    let features: &[&str] = if tracing { &["trace"] } else { &[] };
    let mut link = open_with(&arguments.device, &file, arguments.log, features)?;
    let mut client = Client::new(plan, &model)?;
    client.set_tracing(tracing);
    let mut timeline = Timeline {
        plan,
        board: String::new(),
        unit: TimeUnit::None,
        images: Vec::new(),
    };
    let collected = run_images(
        &mut client,
        &mut link,
        &model,
        images,
        count,
        |report, inference| {
            if let Some(trace) = &inference.trace {
                timeline.board.clone_from(&inference.board);
                timeline.unit = inference.unit;
                timeline.images.push(TracedImage {
                    index: report.index,
                    trace: trace.clone(),
                });
            }
        },
    )?;
    if let Some(path) = &arguments.trace {
        write_timeline(path, &timeline)?;
    }
    let max_error = collected.max_logit_error();
    let report = collected.report(arguments.device.to_string(), &arguments.model, &plan);
    output::present(arguments.json.as_deref(), &report, || {
        text(&report, max_error)
    })
}

/// Writes a timeline and its picture.
fn write_timeline(path: &Path, timeline: &Timeline) -> Result<(), Failure> {
    let write = |path: &Path, text: std::io::Result<String>| {
        text.and_then(|text| std::fs::write(path, text))
            .map_err(|source| Failure::Write {
                path: path.into(),
                source,
            })
    };
    write(path, timeline.json().map_err(Into::into))?;
    let picture = timeline
        .picture()
        .map_err(std::io::Error::other)
        .transpose();
    match picture {
        Some(picture) => write(&path.with_extension("svg"), picture),
        None => Ok(()),
    }
}

/// The report for people.
#[must_use]
pub fn text(report: &InferReport, max_error: f64) -> String {
    let images = report.images.len();
    let percent = |x: f64| format!("{:.2} %", 100.0 * x);
    let e = &report.evaluator;
    let ram = u64::from(e.ram_static_bytes) + u64::from(e.ram_stack_peak_bytes);
    let mut rows = vec![
        ("device", report.device.clone()),
        ("model", report.model.clone()),
        (
            "parameters",
            format!(
                "N = {}, log2(QP) = {:.1}, {} bit security",
                report.params.n, report.params.log_qp, report.params.security_bits
            ),
        ),
        ("images", images.to_string()),
        ("accuracy, encrypted", percent(report.accuracy)),
        ("accuracy, in the clear", percent(report.plain_accuracy)),
        (
            "labels changed by encryption",
            report.label_flips.to_string(),
        ),
        ("largest logit error", format!("{max_error:.4}")),
        (
            "bytes up an image",
            format!(
                "{} (keys {})",
                grouped(report.bytes_up),
                grouped(report.key_bytes_up)
            ),
        ),
        ("bytes down an image", grouped(report.bytes_down)),
        (
            "evaluator memory",
            format!(
                "{} bytes ({} static, {} stack)",
                grouped(ram),
                grouped(e.ram_static_bytes.into()),
                grouped(e.ram_stack_peak_bytes.into())
            ),
        ),
        ("seconds an image", format!("{:.3}", report.wall_seconds)),
    ];
    if let Some(count) = e.instructions {
        rows.push(("instructions an image", grouped(count)));
    }
    if let Some(count) = e.cycles {
        rows.push(("cycles an image", grouped(count)));
    }
    if let Some(seconds) = e.seconds {
        rows.push(("evaluator, ms an image", format!("{:.2}", 1e3 * seconds)));
    }
    let mut out = output::facts(&rows);
    let timed = |s: &StageReport| s.instructions.or(s.cycles);
    let stages: Vec<[String; 2]> = e
        .stages
        .iter()
        .filter_map(|s| timed(s).map(|t| [s.name.clone(), grouped(t)]))
        .collect();
    if !stages.is_empty() {
        let unit = if e.instructions.is_some() {
            "instructions"
        } else {
            "cycles"
        };
        out.push('\n');
        out.push_str(&output::table(["stage", unit], &stages));
    }
    out
}
