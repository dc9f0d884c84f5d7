//! `he-edge infer`: remote encrypted inference.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use he_core::Params;
use he_core::ckks::publish::{Allowance, Budget as _, MIN_STATISTICAL_BITS};
use he_nn::model::{Model, Sample};
use he_nn::plan::Packing;
use he_nn::program::Program;

use super::output::{self, Bar};
use super::{
    DataArguments, Failure, KeyArguments, ModelFile, PaddingArguments, SplitName, TermsArguments,
    check_outputs, packings, parse_device, parse_params,
};
use crate::client::publication::{Form, PublicationTerms};
use crate::device::log::LogSink;
use crate::device::{Device, Opening};
use crate::drive::Retries;
use crate::files::SealedKey;
use crate::interrupt;
use crate::ledger::{self, Ledger, RunTerms};
use crate::receipts::{self, Recorder, Uploads};
use crate::report::infer::{InferReport, PaddingReport};
use crate::report::timeline::Timeline;
use crate::run::{self, Work};
use crate::service::{self, Deployment, Limits, Service};

/// Samples of the smallest batch that is planned, N = 4096.
const SMALLEST_BATCH: u32 = 2048;

/// Arguments of `infer`.
#[derive(Debug, Args)]
pub struct InferArguments {
    /// Where the evaluator runs: `inproc`, `qemu` (builds and starts the
    /// firmware), `qemu:BOARD`, the path of a serial port (`PATH@BAUD`),
    /// `tcp:HOST:PORT`, or `nats:HOST:PORT`, the workers of a fleet. Given several times, samples are spread over all of them, each of
    /// which has a key of its own; what one that fails had not finished goes to the others.
    #[arg(long = "device", default_value = "inproc", value_parser = parse_device)]
    pub devices: Vec<Device>,
    /// A bundled model or a `.hemodel` file.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// The parameter set, `n4096-depth3` or `n8192-depth5`; one that serves if left out.
    #[arg(long, value_parser = parse_params)]
    pub params: Option<&'static Params>,
    /// Where the samples are.
    #[command(flatten)]
    pub data: DataArguments,
    /// Which half of the data.
    #[arg(long, value_enum, default_value = "test")]
    pub split: SplitName,
    /// How many images.
    #[arg(long, default_value_t = 10, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// First image.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub offset: usize,
    /// Weights and sums.
    #[command(flatten)]
    pub terms: TermsArguments,
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
    /// bit, from 0 to 1. In process there is none, but by `he-edge audit` from receipts.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, default_value_t = 0.0, value_parser = share)]
    pub audit: f64,
    /// A sealed key, as `keygen` makes it, of which the parameter set is taken: it and what it
    /// may publish outlive the command. A refused result retires it; without one, each
    /// command and each device has a key of its own.
    #[arg(long, value_name = "FILE", conflicts_with = "params")]
    pub key: Option<PathBuf>,
    /// File whose first line is its passphrase; otherwise it is taken from the
    /// environment variable HE_EDGE_PASSPHRASE, or asked for.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub passphrase_file: Option<PathBuf>,
    /// What others may have of the answers.
    #[command(flatten)]
    pub publication: Publication,
    /// Write a receipt of every answer to this file, one line of JSON each: digests by
    /// which `he-edge audit` evaluates it again; of samples of a batch with the slot.
    #[arg(long, value_name = "FILE")]
    pub receipts: Option<PathBuf>,
    /// Keep in this directory what receipts name: inputs and keys as the evaluator gets
    /// them, each under its digest. The input of a batch takes as much as that of its
    /// slots, whether they are filled or not.
    #[arg(long, value_name = "DIR", requires = "receipts")]
    pub uploads: Option<PathBuf>,
    /// Keep what is finished in this file, and go on where it stopped: one line per image,
    /// with its logits. It belongs to this model, data, weights, packing and kind of
    /// device. What is published is not kept: it was given out when its image was answered.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "publish"])]
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
    /// Threads in process: a batch is worked on by all of them, by as many as there are
    /// cores if left out; in latency packing each takes samples of its own, with a key of
    /// its own, and one does if left out. Results do not depend on it.
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Hold an emulated board, or a server, to the rate of a serial line, in bits per second.
    #[arg(long, value_name = "BAUD", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1200..))]
    pub line_rate: Option<u32>,
    /// Padding.
    #[command(flatten)]
    pub padding: PaddingArguments,
    /// Write the result as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show the board's log on standard error.
    #[arg(long)]
    pub log: bool,
}

/// What is published of the answers.
#[derive(Debug, Args)]
pub struct Publication {
    /// What others may have of the answers: labels, or, of batches in process, values,
    /// that is logits flooded with noise. They stand under `published`, apart from what
    /// is the client's alone.
    #[arg(long, value_parser = forms())]
    publish: Option<Form>,
    /// Count publications in this file, which there must not be yet; without one they
    /// are counted in memory, as the key ends with the command. A sealed key has its own
    /// count.
    #[arg(
        long,
        value_name = "FILE",
        requires = "publish",
        conflicts_with = "key"
    )]
    budget: Option<PathBuf>,
    /// Publications that the key is allowed; what the command needs, if left out. A
    /// label is one, and the values of a batch are one per logit.
    #[arg(long, value_name = "N", requires = "publish", conflicts_with = "key", value_parser = clap::value_parser!(u32).range(1..))]
    publications: Option<u32>,
    /// Bits of statistical security of published values.
    #[arg(long, value_name = "BITS", requires = "publish", conflicts_with = "key", default_value_t = MIN_STATISTICAL_BITS)]
    statistical_bits: u32,
    /// Bits after the binary point that published values must have.
    #[arg(long, value_name = "BITS", requires = "publish", allow_negative_numbers = true, default_value_t = 3.0, value_parser = precision_bits)]
    precision_bits: f64,
}

fn forms() -> impl TypedValueParser<Value = Form> {
    PossibleValuesParser::new(["labels", "values"]).map(|name| match name.as_str() {
        "values" => Form::Values,
        _ => Form::Labels,
    })
}

impl Publication {
    /// For so many samples of a network with so many logits; with a sealed key what that
    /// allows.
    fn terms(
        &self,
        samples: u32,
        logits: u32,
        sealed: Option<&SealedKey>,
    ) -> Result<Option<PublicationTerms>, Failure> {
        let Some(form) = self.publish else {
            return Ok(None);
        };
        let needed = match form {
            Form::Labels => samples,
            // A batch holds the slots of the smallest ring, or more.
            Form::Values => logits * samples.div_ceil(SMALLEST_BATCH),
        };
        let queries = self.publications.unwrap_or(needed);
        let allowance = match sealed {
            Some(key) => key.allowance(),
            None => Allowance::new(queries, self.statistical_bits).map_err(Failure::Allowance)?,
        };
        Ok(Some(PublicationTerms {
            form,
            allowance,
            budget: self.budget.clone(),
            precision_bits: self.precision_bits,
        }))
    }
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "a time is a number of seconds above 0".to_owned())
}

fn precision_bits(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(bits) if (0.0..=64.0).contains(&bits) => Ok(bits),
        _ => Err("bits after the binary point are a number from 0 to 64".to_owned()),
    }
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
    let samples = arguments.data.samples(&model, arguments.split.into())?;
    let all = samples.all();
    let (offset, count) = (arguments.offset, arguments.count as usize);
    let end = offset.saturating_add(count);
    let chosen = all.get(offset..end).ok_or(Failure::Range {
        offset,
        end,
        available: all.len(),
    })?;
    if let Some(threads) = arguments.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
        pool.build_global().map_err(Failure::Threads)?;
    }
    let read = [
        arguments.key.as_deref(),
        arguments.passphrase_file.as_deref(),
    ];
    let written = [
        arguments.json.as_deref(),
        arguments.receipts.as_deref(),
        arguments.trace.as_deref(),
    ];
    check_outputs(&written, &read)?;
    output::check(arguments.json.as_deref())?;
    output::check(arguments.receipts.as_deref())?;
    if let Some(path) = &arguments.trace {
        output::check(Some(path))?;
        output::check(Some(&path.with_extension("svg")))?;
    }
    interrupt::watch().map_err(Failure::Signals)?;
    let mut bar = Bar::default();
    let mut opened = arguments.open(&file, model, &mut bar)?;
    let mut work = Work {
        name: file.name(),
        offset,
        samples: chosen,
        devices: opened.devices,
        unopened: opened.unopened,
        retries: Retries::of(arguments.retries),
        ledger: None,
        finished: Vec::new(),
    };
    let Some(first) = opened.services.first() else {
        return Ok(());
    };
    let deployment = first.deployment().clone();
    if let Some(path) = &arguments.resume {
        let terms = terms(arguments, &file, &all, &deployment);
        let (ledger, finished) = Ledger::open(path, &terms)?;
        work.ledger = Some(ledger);
        work.finished = finished;
    }
    let mut timeline = Timeline::default();
    let services = opened.services.iter_mut();
    let mut services: Vec<&mut dyn Service> = services.map(|service| &mut **service as _).collect();
    let (mut report, ended) =
        run::carry_out(&mut services, &deployment, work, &mut bar, &mut timeline);
    report.padding = arguments
        .padding
        .padding()
        .map(|padding| PaddingReport::of(padding, &report.images));
    let has_retired = services.iter().any(|service| service.has_retired());
    let ended = ended.map_err(file.failed_in_run());
    if report.images.is_empty() {
        return ended;
    }
    let written = match &arguments.trace {
        Some(path) => write_timeline(path, &timeline),
        None => Ok(()),
    };
    let receipts = match &arguments.receipts {
        Some(path) => write_receipts(path, &report.receipts),
        None => Ok(()),
    };
    let written = written.and(receipts);
    for warning in report.padding.iter().flat_map(PaddingReport::warnings) {
        output::say(format_args!("{warning}"));
    }
    let presented = output::present(arguments.json.as_deref(), &report, || report.text());
    match ended {
        Ok(()) => {
            let verdict = match (&arguments.key, has_retired) {
                (Some(key), true) => Err(Failure::KeyRetired(key.clone())),
                _ => verdict(&report),
            };
            written.and(presented).and(verdict)
        }
        Err(failure) => Err(Failure::Early {
            failure: Box::new(failure),
            finished: report.images.len(),
            of: count,
            resume: arguments.resume.clone(),
        }),
    }
}

impl InferArguments {
    /// The devices that samples are spread over: in process, each thread is one.
    fn spread_over(&self) -> Vec<&Device> {
        let threads = match (&self.devices[..], self.packing) {
            ([Device::InProcess], Packing::Latency) => self.threads.unwrap_or(1),
            _ => 1,
        };
        let devices = self.devices.iter();
        devices
            .flat_map(|device| std::iter::repeat_n(device, threads.into()))
            .collect()
    }

    /// Opens the sealed key.
    fn sealed(&self, file: &Path) -> Result<SealedKey, Failure> {
        let key = KeyArguments {
            file: file.to_owned(),
            passphrase_file: self.passphrase_file.clone(),
        };
        key.open()
    }

    /// Opens a service per device. Of several, those that are not there are left out.
    fn open<'m>(
        &self,
        file: &ModelFile,
        model: Model<'m>,
        bar: &mut Bar,
    ) -> Result<Opened<'m>, Failure> {
        let is_spread = self.spread_over().len() > 1;
        for (what, is_asked) in [
            (
                "--publish, as the publications that are left belong to one key",
                self.publication.publish.is_some(),
            ),
            ("--key, as each has a key of its own", self.key.is_some()),
            ("--trace", self.trace.is_some()),
        ] {
            if is_spread && is_asked {
                return Err(Failure::OneDevice { what });
            }
        }
        let has_line =
            |device: &Device| matches!(device, Device::Emulator { .. } | Device::Tcp { .. });
        if self.line_rate.is_some()
            && let Some(device) = self.devices.iter().find(|device| !has_line(device))
        {
            return Err(Failure::NoLine {
                device: device.to_string(),
            });
        }
        let mut sealed = match &self.key {
            Some(file) => Some(self.sealed(file)?),
            None => None,
        };
        let devices = self.spread_over();
        let mut opened = Opened {
            services: Vec::with_capacity(devices.len()),
            devices: Vec::new(),
            unopened: Vec::new(),
        };
        let mut last = None;
        for &device in &devices {
            let request = service::Request {
                device,
                params: self.params,
                terms: self.terms.into(),
                by_time: self.terms.is_by_time(),
                packing: self.packing,
                trace: self.trace.is_some(),
                audit: self.audit,
                publish: self.publication.terms(
                    self.count,
                    model.outputs() as u32,
                    sealed.as_ref(),
                )?,
                // There is one device then.
                key: sealed.take(),
                receipts: match &self.receipts {
                    None => None,
                    Some(_) => {
                        let uploads = Uploads::new(self.uploads.as_deref())?;
                        Some(Recorder::new(file.bytes(), uploads))
                    }
                },
                limits: Limits {
                    patience: self.patience,
                    deadline: self.deadline,
                },
                padding: self.padding.padding(),
                opening: Opening {
                    model: file.built_from(),
                    log: if self.log { shown_log } else { no_log },
                    line_rate: self.line_rate,
                    progress: &mut *bar,
                },
            };
            let service = match service::open(model, request) {
                Ok(service) => service,
                Err(error) if is_spread && error.is_of_link() => {
                    opened
                        .unopened
                        .push((device.to_string(), error.to_string()));
                    last = Some(error);
                    continue;
                }
                Err(error) => return Err(file.failed()(error)),
            };
            // One report says of all what one plan says.
            if let Some(first) = opened.services.first()
                && !first.deployment().is_like(service.deployment())
            {
                return Err(Failure::OtherPlan {
                    first: opened.devices.first().cloned().unwrap_or_default(),
                    other: device.to_string(),
                });
            }
            opened.services.push(service);
            opened.devices.push(device.to_string());
        }
        match last {
            Some(error) if opened.services.is_empty() => Err(file.failed()(error)),
            _ => {
                for (device, why) in &opened.unopened {
                    output::say(format_args!("{device} is left out: {why}"));
                }
                Ok(opened)
            }
        }
    }
}

/// Services, and what there was no service of.
struct Opened<'m> {
    services: Vec<Box<dyn Service + 'm>>,
    /// What each of them is called.
    devices: Vec<String>,
    unopened: Vec<(String, String)>,
}

/// Writes receipts, one line each.
fn write_receipts(path: &Path, receipts: &[receipts::OfImage]) -> Result<(), Failure> {
    let lines = receipts::lines(receipts).map_err(|error| Failure::Write {
        path: path.to_owned(),
        source: error.into(),
    })?;
    output::write(path, &lines)
}

/// What a run is known by.
fn terms(
    arguments: &InferArguments,
    file: &ModelFile,
    all: &[(Sample<'_>, u8)],
    deployment: &Deployment,
) -> RunTerms {
    RunTerms {
        ledger: RunTerms::VERSION,
        model: file.name().to_owned(),
        model_sha256: ledger::digest(file.bytes()),
        data_sha256: ledger::digest_of(all),
        weights: arguments.terms.weights,
        sums: arguments.terms.sums,
        packing: arguments.packing,
        params: deployment.params.fingerprint(),
        program: deployment.program.as_ref().map(Program::fingerprint),
        audit: arguments.audit,
    }
}

/// Whether the work was done: every sample answered, and each as the plan says.
fn verdict(report: &InferReport) -> Result<(), Failure> {
    let worst = report.beyond_plan().filter_map(|image| {
        let classified = image.classified()?;
        let allowed = classified.allowed(report.logit_error_six_sigma);
        Some((image.index, classified.max_logit_error, allowed))
    });
    // The one that is furthest beyond what it may be.
    let beyond = |(_, error, allowed): &(usize, f64, f64)| error / allowed;
    let worst = worst.max_by(|a, b| beyond(a).total_cmp(&beyond(b)));
    if let Some((index, error, allowed)) = worst {
        return Err(Failure::BeyondPlan {
            count: report.beyond_plan().count(),
            index,
            error,
            allowed,
        });
    }
    if let Some(published) = &report.published
        && let Some(first) = published.unpublished.first()
    {
        return Err(Failure::Unpublished {
            count: published.unpublished.len(),
            of: published.unpublished.len() + published.answers.len(),
            sentence: first.why.clone(),
        });
    }
    let of = report.images.len();
    match (report.refusals().count(), report.unusual().count()) {
        (0, 0) => Ok(()),
        (0, count) => Err(Failure::Unusual { count, of }),
        (count, _) => Err(Failure::Refused { count, of }),
    }
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
