//! `he-edge infer`: remote encrypted inference.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use cpu_time::ProcessTime;
use he_core::Params;
use he_nn::model::Sample;
use he_nn::plan::{Packing, WeightMode};
use he_nn::progress::Progress;

use super::output::{self, Bar};
use super::{
    Failure, ModelFile, SplitName, packings, parse_device, parse_params, samples_for, weight_modes,
};
use crate::device::log::LogSink;
use crate::device::{Device, Opening};
use crate::report::infer::{InferReport, Run};
use crate::report::timeline::{Timeline, TracedImage};
use crate::service::{self, Service};

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
    /// The parameter set; one that serves if left out.
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
    #[arg(long, default_value = "plain", value_parser = weight_modes())]
    pub weights: WeightMode,
    /// How values are laid out in slots.
    #[arg(long, default_value = "latency", value_parser = packings())]
    pub packing: Packing,
    /// Write what the evaluator did when to this file, as trace-event JSON for
    /// Perfetto or chrome://tracing, and a picture of the first image's beside
    /// it, with the ending `.svg`. Firmware is built with its tracer for it; in
    /// process the session of a board is traced.
    #[arg(long, value_name = "FILE", value_parser = trace_path)]
    pub trace: Option<PathBuf>,
    /// Share of a device's answers that are evaluated again here and compared to the
    /// bit, from 0 to 1. In process nothing is in between.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub audit: f64,
    /// Write the result as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show the board's log on standard error.
    #[arg(long)]
    pub log: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
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

/// Runs `infer`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &InferArguments) -> Result<(), Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let model = file.parse()?;
    let samples = samples_for(&model, arguments.data.as_deref(), arguments.split.into())?;
    let all = samples.all();
    let (offset, count) = (arguments.offset, arguments.count as usize);
    let end = offset.saturating_add(count);
    let chosen = all.get(offset..end).ok_or(Failure::Range {
        offset,
        end,
        available: all.len(),
    })?;
    let mut bar = Bar::default();
    let opening = Opening {
        model: file.built_from(),
        log: log_sink(arguments.log),
        progress: &mut bar,
    };
    let request = service::Request {
        device: &arguments.device,
        params: arguments.params,
        weights: arguments.weights,
        packing: arguments.packing,
        trace: arguments.trace.is_some(),
        audit: arguments.audit,
        opening,
    };
    let mut service = service::open(model, request).map_err(file.failed())?;
    let mut timeline = Timeline::default();
    let report = classify(
        &mut *service,
        &file,
        (offset, chosen),
        arguments.device.to_string(),
        &mut bar,
        &mut timeline,
    )?;
    if let Some(path) = &arguments.trace {
        write_timeline(path, &timeline)?;
    }
    output::present(arguments.json.as_deref(), &report, || report.text())?;
    verdict(&report)
}

/// Whether the work was done: every sample answered, and each as the plan says.
fn verdict(report: &InferReport) -> Result<(), Failure> {
    let worst = report.beyond_plan().filter_map(|image| {
        let error = image.classified()?.max_logit_error;
        Some((image.index, error))
    });
    if let Some((index, error)) = worst.max_by(|(_, a), (_, b)| a.total_cmp(b)) {
        return Err(Failure::BeyondPlan {
            count: report.beyond_plan().count(),
            index,
            error,
            allowed: report.allowed_error,
        });
    }
    match report.refusals().count() {
        0 => Ok(()),
        count => Err(Failure::Refused {
            count,
            of: report.images.len(),
        }),
    }
}

/// Has samples classified, in runs of as many as the service takes, and reports on it.
///
/// # Errors
/// [`Failure`] of the first that fails.
pub(super) fn classify(
    service: &mut dyn Service,
    file: &ModelFile,
    (offset, samples): (usize, &[(Sample<'_>, u8)]),
    device: String,
    bar: &mut dyn Progress,
    timeline: &mut Timeline,
) -> Result<InferReport, Failure> {
    let model = file.parse()?;
    let deployment = service.deployment().clone();
    timeline.of(&deployment);
    let mut run = Run::new(&deployment);
    let start = Instant::now();
    let alone: Vec<Sample<'_>> = samples.iter().map(|&(sample, _)| sample).collect();
    let answers = service.infer(&alone, bar).map_err(file.failed())?;
    let wall = start.elapsed();
    for ((index, &(sample, label)), answer) in (offset..).zip(samples).zip(answers) {
        run.add(&model, (index, sample, label), &answer)
            .map_err(|source| Failure::Model {
                name: file.name().to_owned(),
                source,
            })?;
        let Ok(inference) = answer else {
            continue;
        };
        if let Some(trace) = inference.trace {
            timeline.board.clone_from(&inference.board);
            timeline.unit = inference.unit;
            timeline.images.push(TracedImage { index, trace });
        }
    }
    bar.finish();
    let cpu = ProcessTime::now().as_duration();
    Ok(run.report(device, file.name().to_owned(), wall, cpu))
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
