//! `he-edge infer`: remote encrypted inference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
use crate::drive::{Retries, drive};
use crate::interrupt;
use crate::ledger::{self, Ledger, Terms};
use crate::report::infer::{Entry, InferReport, Run};
use crate::report::timeline::{Timeline, TracedImage};
use crate::service::{self, Deployment, Limits, Service};

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
    /// The parameter set, `n4096-depth3` or `n8192-depth5`; one that serves if left out.
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
    #[arg(long, default_value_t = 10, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// First image.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
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
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, default_value_t = 0.0, value_parser = share)]
    pub audit: f64,
    /// Keep what is finished in this file, and go on where it stopped: one line per image,
    /// with its logits. It belongs to this model, data, weights, packing and kind of
    /// device.
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub resume: Option<PathBuf>,
    /// How often an image, or a batch, is tried again after a fault of the link.
    #[arg(long, value_name = "TIMES", allow_negative_numbers = true, default_value_t = Retries::DEFAULT_LIMIT)]
    pub retries: u32,
    /// Longest silence of a device within an inference; 60 if left out.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub patience: Option<Duration>,
    /// Longest time for a whole inference on a device; if left out, ten minutes and four
    /// times what its bytes take on the line.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub deadline: Option<Duration>,
    /// Write the result as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show the board's log on standard error.
    #[arg(long)]
    pub log: bool,
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "a time is a number of seconds above 0".to_owned())
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
pub(super) fn log_sink(show: bool) -> LogSink {
    Box::new(move |line| {
        if show {
            output::say(format_args!(
                "board {} {} {}",
                line.time, line.level, line.message
            ));
        }
    })
}

/// Drops a board's log.
pub(super) fn no_log() -> LogSink {
    log_sink(false)
}

/// Shows a board's log on standard error.
fn shown_log() -> LogSink {
    log_sink(true)
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
    output::check(arguments.json.as_deref())?;
    if let Some(path) = &arguments.trace {
        output::check(Some(path))?;
        output::check(Some(&path.with_extension("svg")))?;
    }
    interrupt::watch().map_err(Failure::Signals)?;
    let mut bar = Bar::default();
    let opening = Opening {
        model: file.built_from(),
        log: if arguments.log { shown_log } else { no_log },
        progress: &mut bar,
    };
    let request = service::Request {
        device: &arguments.device,
        params: arguments.params,
        weights: arguments.weights,
        packing: arguments.packing,
        trace: arguments.trace.is_some(),
        audit: arguments.audit,
        limits: Limits {
            patience: arguments.patience,
            deadline: arguments.deadline,
        },
        opening,
    };
    let mut service = service::open(model, request).map_err(file.failed())?;
    let mut work = Work {
        file: &file,
        offset,
        samples: chosen,
        device: arguments.device.to_string(),
        retries: Retries::of(arguments.retries),
        ledger: None,
        finished: Vec::new(),
    };
    if let Some(path) = &arguments.resume {
        let terms = terms(arguments, &file, &all, service.deployment());
        let (ledger, finished) = Ledger::open(path, &terms)?;
        work.ledger = Some(ledger);
        work.finished = finished;
    }
    let mut timeline = Timeline::default();
    let (report, ended) = carry_out(&mut *service, work, &mut bar, &mut timeline)?;
    if report.images.is_empty() {
        return ended;
    }
    let written = match &arguments.trace {
        Some(path) => write_timeline(path, &timeline),
        None => Ok(()),
    };
    let presented = output::present(arguments.json.as_deref(), &report, || report.text());
    match ended {
        Ok(()) => written.and(presented).and_then(|()| verdict(&report)),
        Err(failure) => Err(Failure::Early {
            failure: Box::new(failure),
            finished: report.images.len(),
            of: count,
            resume: arguments.resume.clone(),
        }),
    }
}

/// What a run is known by.
fn terms(
    arguments: &InferArguments,
    file: &ModelFile,
    all: &[(Sample<'_>, u8)],
    deployment: &Deployment,
) -> Terms {
    let device = match &arguments.device {
        Device::Tcp { .. } => "tcp".to_owned(),
        Device::Serial { .. } => "serial".to_owned(),
        in_process_or_emulated => in_process_or_emulated.to_string(),
    };
    Terms {
        ledger: Terms::VERSION,
        model: file.name().to_owned(),
        model_sha256: ledger::digest(file.bytes()),
        data_sha256: ledger::digest_of(all),
        weights: arguments.weights,
        packing: arguments.packing,
        params: deployment.params.fingerprint(),
        device,
        audit: arguments.audit,
    }
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

/// What is to be classified, and how.
pub(super) struct Work<'a> {
    /// The model.
    pub(super) file: &'a ModelFile,
    /// Index of the first sample.
    pub(super) offset: usize,
    /// The samples, with their labels.
    pub(super) samples: &'a [(Sample<'a>, u8)],
    /// What the report calls the device.
    pub(super) device: String,
    /// What is done about faults.
    pub(super) retries: Retries,
    /// Where finished images are kept.
    pub(super) ledger: Option<Ledger>,
    /// Images that an earlier run finished, of any range.
    pub(super) finished: Vec<Entry>,
}

impl<'a> Work<'a> {
    /// Samples from the first, without a ledger.
    pub(super) fn of(file: &'a ModelFile, samples: &'a [(Sample<'a>, u8)], device: &str) -> Self {
        Self {
            file,
            offset: 0,
            samples,
            device: device.to_owned(),
            retries: Retries::default(),
            ledger: None,
            finished: Vec::new(),
        }
    }
}

/// Has samples classified and reports on it.
///
/// # Errors
/// [`Failure`] of the first that fails.
pub(super) fn classify(
    service: &mut dyn Service,
    work: Work<'_>,
    bar: &mut dyn Progress,
    timeline: &mut Timeline,
) -> Result<InferReport, Failure> {
    let (report, ended) = carry_out(service, work, bar, timeline)?;
    ended.map(|()| report)
}

/// Has samples classified and reports on those that were, and on what ended the run.
///
/// # Errors
/// [`Failure`] where nothing can begin.
fn carry_out(
    service: &mut dyn Service,
    work: Work<'_>,
    bar: &mut dyn Progress,
    timeline: &mut Timeline,
) -> Result<(InferReport, Result<(), Failure>), Failure> {
    let Work {
        file,
        offset,
        samples,
        device,
        retries,
        mut ledger,
        finished,
    } = work;
    let model = file.parse()?;
    let deployment = service.deployment().clone();
    timeline.of(&deployment);
    let mut run = Run::new(&deployment);
    let mut due: BTreeMap<usize, (Sample<'_>, u8)> =
        (offset..).zip(samples.iter().copied()).collect();
    // What an earlier run took counts, too.
    let mut before = Duration::ZERO;
    for entry in finished {
        if due.remove(&entry.index).is_some() {
            if let Ok((classified, _)) = &entry.answer {
                before += Duration::try_from_secs_f64(classified.seconds).unwrap_or_default();
            }
            run.add(entry);
        }
    }
    let start = Instant::now();
    let alone: Vec<Sample<'_>> = due.values().map(|&(sample, _)| sample).collect();
    let due: Vec<_> = due.into_iter().collect();
    let ended = drive(service, &alone, retries, bar, |at, answer, tried| {
        let Some(&(index, (sample, label))) = due.get(at) else {
            return Ok(());
        };
        let entry = Entry::of(&model, (index, sample, label), &answer, tried);
        let entry = entry.map_err(|source| Failure::Model {
            name: file.name().to_owned(),
            source,
        })?;
        if let Some(ledger) = &mut ledger {
            ledger.append(&entry)?;
        }
        run.add(entry);
        if let Ok(inference) = answer
            && let Some(trace) = inference.trace
        {
            timeline.board.clone_from(&inference.board);
            timeline.unit = inference.unit;
            timeline.images.push(TracedImage { index, trace });
        }
        Ok(())
    });
    bar.finish();
    let ended = match ledger {
        Some(mut ledger) => ended.and(ledger.sync().map_err(Failure::from)),
        None => ended,
    };
    let ended = ended.map_err(|failure| match failure {
        Failure::Service(error) => file.failed()(error),
        other => other,
    });
    let cpu = ProcessTime::now().as_duration();
    let report = run.report(
        samples.len(),
        device,
        file.name().to_owned(),
        before + start.elapsed(),
        cpu,
    );
    Ok((report, ended))
}

/// Writes a timeline and its picture.
fn write_timeline(path: &Path, timeline: &Timeline) -> Result<(), Failure> {
    let write = |path: &Path, text: std::io::Result<String>| {
        let text = text.map_err(|source| Failure::Write {
            path: path.into(),
            source,
        })?;
        output::write(path, &text)
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
