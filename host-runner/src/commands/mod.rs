//! One module per command; the command line as `clap` reads it.

#[cfg(feature = "attack")]
pub mod attack;
pub mod audit;
pub mod bench;
pub mod completions;
pub mod data;
pub mod decrypt;
pub mod demo;
pub mod devices;
pub mod encrypt;
pub mod evaluate;
pub mod flash;
#[cfg(feature = "nats")]
pub mod fleet;
pub mod import;
pub mod infer;
pub mod keygen;
pub mod output;
pub mod plan;
#[cfg(feature = "attack")]
pub mod report;
pub mod sense;
pub mod serve;
pub mod show;
#[cfg(feature = "attack")]
pub mod timing;
pub mod train;
#[cfg(feature = "nats")]
pub mod work;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use he_core::Params;
use he_nn::bundled;
use he_nn::data::{Choice, DataError, DataSet, Form, Samples, Split};
use he_nn::files;
use he_nn::model::{Input, Model, ModelError, Sample};
use he_nn::plan::{Packing, PlanError, Sums, Terms, WeightMode};

use crate::client::{ClientError, Padding};
use crate::device::firmware_build::FirmwareError;
use crate::device::{Device, DeviceError};
use crate::engine::EngineError;
use crate::evaluator::EvaluatorError;
use crate::files::{
    FileError, Passphrase, PassphraseError, SealedError, SealedKey, StepError, check_output,
};
#[cfg(feature = "nats")]
use crate::fleet::FleetError;
use crate::planning;
use crate::run::RunError;
use crate::sensor::SensorError;
use crate::service::ServiceError;

/// Neural networks on encrypted data on a microcontroller.
///
/// Without a command: classifies the bundled digits, encrypted, through the
/// in-process evaluator.
#[derive(Debug, Parser)]
#[command(version, name = "he-edge")]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Remote encrypted inference.
    Infer(Box<infer::InferArguments>),
    /// Evaluate answers again, from their receipts, and compare them to the bit.
    Audit(audit::AuditArguments),
    /// Everything about an inference that is decided before it runs; exit
    /// status 2, with the reason, where it does not fit.
    Plan(plan::PlanArguments),
    /// Make a secret key, sealed by a passphrase, and what an evaluator needs, each in a
    /// directory of its own.
    Keygen(keygen::KeygenArguments),
    /// Encrypt samples into a request for an evaluator.
    Encrypt(encrypt::EncryptArguments),
    /// Evaluate a request: opens no secret.
    Evaluate(evaluate::EvaluateArguments),
    /// Decrypt and check a result.
    Decrypt(decrypt::DecryptArguments),
    /// Say what a file of this project holds.
    Show(show::ShowArguments),
    /// Train a bundled architecture (needs the feature `train`), or the regression
    /// on encrypted data.
    Train(train::TrainArguments),
    /// Make a model of an ONNX file.
    Import(import::ImportArguments),
    /// Have a sensor encode and encrypt on its board, and check what it sends.
    Sense(sense::SenseArguments),
    /// Operations of he-core: microseconds here, instructions on an emulated
    /// board.
    Bench(bench::BenchArguments),
    /// Be an evaluator behind TCP, for `--device tcp:HOST:PORT`.
    Serve(serve::ServeArguments),
    /// Be an evaluator in a fleet, for `--device nats:HOST:PORT`.
    #[cfg(feature = "nats")]
    Work(work::WorkArguments),
    /// A fleet's workers and its queue; `fleet up` starts one on this machine.
    #[cfg(feature = "nats")]
    Fleet(fleet::FleetArguments),
    /// Attack the networks, in the clear and encrypted: the papers' experiments and
    /// stronger ones.
    #[cfg(feature = "attack")]
    Attack(attack::AttackArguments),
    /// Whether time depends on secrets: operations here or on an emulated board, what the
    /// times of stages and a link tell.
    #[cfg(feature = "attack")]
    Timing(timing::TimingArguments),
    /// One page with every table and picture of a directory of results.
    #[cfg(feature = "attack")]
    Report(report::ReportArguments),
    /// What `--device` can name on this machine: emulators and serial ports.
    Devices(devices::DevicesArguments),
    /// Data sets.
    Data(data::DataArguments),
    /// Print completions for a shell.
    Completions(completions::CompletionsArguments),
    /// Print or write pages for `man`.
    Man(completions::ManArguments),
    /// Build the firmware, put it on a board by a debug probe and read its log
    /// (needs the feature `flash`).
    Flash(flash::FlashArguments),
}

#[cfg(feature = "train")]
impl Command {
    /// Whether it trains networks, or differentiates them.
    const fn trains(&self) -> bool {
        match self {
            Self::Train(_) | Self::Import(_) => true,
            #[cfg(feature = "attack")]
            Self::Attack(_) => true,
            _ => false,
        }
    }
}

/// `plain` or `encrypted`, on the command line.
fn weight_modes() -> impl TypedValueParser<Value = WeightMode> {
    PossibleValuesParser::new(["plain", "encrypted"]).map(|name| match name.as_str() {
        "encrypted" => WeightMode::Encrypted,
        _ => WeightMode::Plain,
    })
}

/// What is agreed on a plan, on the command line.
#[derive(Clone, Copy, Debug, Args)]
pub struct TermsArguments {
    /// How the evaluator holds its weights; encrypted ones come from the client, and of the
    /// model it knows shape and ranges.
    #[arg(long, default_value = "plain", value_parser = weight_modes())]
    pub weights: WeightMode,
    /// Who adds up the lanes of the last layer's results: the client, or the evaluator by
    /// rotations, which take it time and keys. A client sees what each result sums.
    #[arg(long, default_value = "client", value_parser = summing())]
    pub sums: Sums,
    /// Input ciphertexts of a sample, or `auto` for as many as answer first on the board and
    /// its line; as many as take the evaluator the least work if left out. Fewer are less to
    /// send, and the evaluator makes the others by rotations. `plan --board` lists them.
    #[arg(long, value_name = "N|auto", value_parser = inputs)]
    pub inputs: Option<Inputs>,
}

/// What a link is padded to, on the command line.
#[derive(Clone, Copy, Debug, Args)]
pub struct PaddingArguments {
    /// Pad the link, so that who sees numbers, sizes and times of its bytes learns no more
    /// than these figures: bytes of an inference's upload and of its result, each rounded up
    /// to a multiple. The bytes themselves must go through a tunnel (TLS, SSH without
    /// compression). Needs --pad-every.
    #[arg(long, value_name = "UP,DOWN", requires = "pad_every", allow_negative_numbers = true, value_parser = multiples)]
    pub pad_to: Option<[u32; 2]>,
    /// Milliseconds from one cell of a padded link to the next: longer than the evaluator
    /// computes for any of them, or it is late, which is counted. `plan --board` says how
    /// long that is.
    #[arg(long, value_name = "MS", requires = "pad_to", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub pad_every: Option<u32>,
}

fn multiples(text: &str) -> Result<[u32; 2], String> {
    let number = |text: &str| text.parse().ok().filter(|n| (1..=1 << 30).contains(n));
    let both = text
        .split_once(',')
        .and_then(|(up, down)| Some([number(up)?, number(down)?]));
    both.ok_or_else(|| {
        "bytes of upload and result are two numbers from 1 to 1073741824, as 2097152,65536"
            .to_owned()
    })
}

impl PaddingArguments {
    /// What is asked for.
    fn padding(&self) -> Option<Padding> {
        let ([up, down], every) = self.pad_to.zip(self.pad_every)?;
        Some(Padding {
            up,
            down,
            every: Duration::from_millis(every.into()),
        })
    }
}

/// How many input ciphertexts a sample has, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// As many as answer first.
    Auto,
    /// So many.
    Exactly(usize),
}

fn inputs(text: &str) -> Result<Inputs, String> {
    match (text, text.parse()) {
        ("auto", _) => Ok(Inputs::Auto),
        (_, Ok(count @ 1..)) => Ok(Inputs::Exactly(count)),
        _ => Err("input ciphertexts are a number above 0, or auto".to_owned()),
    }
}

impl TermsArguments {
    /// Whether the inputs are those that answer first.
    fn is_by_time(&self) -> bool {
        self.inputs == Some(Inputs::Auto)
    }
}

impl From<TermsArguments> for Terms {
    fn from(
        TermsArguments {
            weights,
            sums,
            inputs,
        }: TermsArguments,
    ) -> Self {
        Self {
            weights,
            sums,
            inputs: match inputs {
                Some(Inputs::Exactly(count)) => Some(count),
                Some(Inputs::Auto) | None => None,
            },
        }
    }
}

/// `client` or `evaluator`, on the command line.
fn summing() -> impl TypedValueParser<Value = Sums> {
    PossibleValuesParser::new(["client", "evaluator"]).map(|name| match name.as_str() {
        "evaluator" => Sums::Evaluator,
        _ => Sums::Client,
    })
}

/// `latency` or `batch`, on the command line.
fn packings() -> impl TypedValueParser<Value = Packing> {
    PossibleValuesParser::new(["latency", "batch"]).map(|name| match name.as_str() {
        "batch" => Packing::Batch,
        _ => Packing::Latency,
    })
}

/// Where samples are, on the command line.
#[derive(Debug, Args)]
pub struct DataArguments {
    /// Directory, tar or file of the data: IDX files, a table (.csv), arrays (.npz, .npy),
    /// PNG or JPEG images in folders by class, or CIFAR-10's binary files; or a directory of
    /// several data sets, of which the model's is taken. The bundled digits if left out.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Column of a table that holds the labels, by its name or its number from 1; one that
    /// is called so, or the last one, if left out.
    #[arg(long, value_name = "COLUMN", requires = "data")]
    pub label: Option<String>,
}

impl DataArguments {
    /// One split of the samples that a model takes.
    fn samples(&self, model: &Model<'_>, split: Split) -> Result<Samples, Failure> {
        // Architectures carry the name of their data.
        let set = match model.input() {
            Input::Features { .. } => DataSet::Pima,
            Input::Image(_) if model.name().starts_with("fashion") => DataSet::FashionMnist,
            Input::Image(_) => DataSet::Mnist,
        };
        let wanted = Form::of(model);
        let digits = || Ok::<_, DataError>(Samples::from(bundled::digits()?));
        match &self.data {
            Some(path) => {
                let path = set.locate(path);
                let choice = Choice {
                    label: self.label.clone(),
                };
                let samples = Samples::open(&path, split, &choice)?.fitting(wanted, &path)?;
                // One logit tells two classes apart.
                let classes = model.outputs().max(2);
                let labels = samples.all().into_iter().map(|(_, label)| label);
                match labels.max() {
                    Some(label) if usize::from(label) >= classes => Err(Failure::Classes {
                        path,
                        label,
                        model: model.name().to_owned(),
                        classes,
                    }),
                    _ => Ok(samples),
                }
            }
            None => match digits()? {
                digits if set == DataSet::Mnist && digits.form() == wanted => Ok(digits),
                _ => Err(Failure::NoSamples {
                    model: model.name().to_owned(),
                }),
            },
        }
    }
}

/// The samples that are asked for.
fn chosen<'s, 'd>(
    all: &'s [(Sample<'d>, u8)],
    offset: usize,
    count: u32,
) -> Result<&'s [(Sample<'d>, u8)], Failure> {
    let end = offset.saturating_add(count as usize);
    all.get(offset..end).ok_or(Failure::Range {
        offset,
        end,
        available: all.len(),
    })
}

/// A sealed key on the command line.
#[derive(Debug, Args)]
pub struct KeyArguments {
    /// The sealed key, `secret.key`.
    #[arg(long = "key", value_name = "FILE")]
    pub file: PathBuf,
    /// File whose first line is its passphrase; otherwise it is taken from the
    /// environment variable HE_EDGE_PASSPHRASE, or asked for.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl KeyArguments {
    /// The files that it reads.
    fn files(&self) -> [Option<&Path>; 2] {
        [Some(&self.file), self.passphrase_file.as_deref()]
    }

    fn open(&self) -> Result<SealedKey, Failure> {
        let passphrase = Passphrase::find(self.passphrase_file.as_deref(), false)?;
        Ok(SealedKey::open(&self.file, &passphrase)?)
    }
}

/// Checks before work begins that no file that a command writes is one that it reads, or
/// that it writes besides.
fn check_outputs(outputs: &[Option<&Path>], inputs: &[Option<&Path>]) -> Result<(), Failure> {
    let mut others: Vec<&Path> = inputs.iter().copied().flatten().collect();
    for &out in outputs.iter().flatten() {
        if out != Path::new(output::STANDARD_OUTPUT) {
            check_output(out, &others)?;
            others.push(out);
        }
    }
    Ok(())
}

/// Why a command ended without having done its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A model name that is neither bundled nor a file.
    #[error(
        "there is no model {name} ({source}): name a .hemodel file or one of the bundled models {}",
        bundled::model_names().collect::<Vec<_>>().join(", ")
    )]
    NoModel {
        /// What was asked for.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A model file that is none.
    #[error("{name}: {source}")]
    Model {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The model does not fit.
    #[error("{model} does not fit: {source}")]
    Plan {
        /// The model.
        model: String,
        /// Why.
        source: PlanError,
    },
    /// There is no inference.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// An evaluation failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A model that needs data.
    #[error("no samples for {model} are bundled: name the directory of its data with --data")]
    NoSamples {
        /// The model.
        model: String,
    },
    /// A label that the model cannot give.
    #[error(
        "{} holds a sample of class number {label}, from 0, and {model} tells {classes} classes: give the data that it was trained for, or the column of its labels with --label",
        path.display()
    )]
    Classes {
        /// The data.
        path: PathBuf,
        /// The largest label.
        label: u8,
        /// The model.
        model: String,
        /// How many classes it tells.
        classes: usize,
    },
    /// A way of running that the planner does not know yet.
    #[error("there is no plan with {what} yet: use {instead}")]
    Unplanned {
        /// What was asked for.
        what: &'static str,
        /// What there is.
        instead: &'static str,
    },
    /// A sensor that this command does not make.
    #[error(
        "--masked-key is for a sensor that this command starts, and that at {device} is finished: build its firmware with the feature masked-key, and leave the option out"
    )]
    FinishedSensor {
        /// Where it is.
        device: String,
    },
    /// A board nobody knows.
    #[error(transparent)]
    Board(#[from] he_nn::boards::UnknownBoard),
    /// Unusable data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A range of images that the data does not have.
    #[error(
        "images {offset}..{end} were asked for and there are {available}: lower --offset or --count"
    )]
    Range {
        /// First image.
        offset: usize,
        /// One past the last image.
        end: usize,
        /// How many there are.
        available: usize,
    },
    /// Samples without a result; the others are in the report.
    #[error(
        "{count} of {of} samples were refused, as the report says of each: leave them out, or bring their values into the range of training"
    )]
    Refused {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// Samples with values beyond those of training, whose results are less exact than the
    /// plan says.
    #[error(
        "{count} of {of} results are less exact than the plan says, of samples with values beyond those of training, as the report says of each: leave these samples out, or bring their values into the range of training"
    )]
    Unusual {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// Answers that were not published.
    #[error("{count} of {of} answers were not published: {sentence}")]
    Unpublished {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
        /// Why the first was not.
        sentence: String,
    },
    /// A sealed key that was given up.
    #[error(
        "a result was refused under the key {}, which retires it, and what came after was answered under a key of this run alone: make a new one with he-edge keygen", .0.display()
    )]
    KeyRetired(PathBuf),
    /// Publication that could not be allowed.
    #[error("--statistical-bits: {0}")]
    Allowance(he_core::Error),
    /// A receipt that cannot be read or written.
    #[error(transparent)]
    Receipt(#[from] crate::receipts::ReceiptError),
    /// Answers that evaluation does not give.
    #[error(
        "{forged} of {of} answers are not what their requests evaluate to, and {failed} could not be evaluated: whoever gave them did not do the work, or changed it"
    )]
    Forged {
        /// How many are another result.
        forged: usize,
        /// How many are unknown.
        failed: usize,
        /// Of how many.
        of: usize,
    },
    /// Logits further from those in the clear than they may be.
    #[error(
        "the logits of {count} samples differ from those in the clear by more than they may, those of sample {index} by {error:.4}, where {allowed:.4} is the most: the evaluator may have changed them, or the sample is unlike the training data"
    )]
    BeyondPlan {
        /// How many.
        count: usize,
        /// The worst.
        index: usize,
        /// Its error.
        error: f64,
        /// What the plan says of it.
        allowed: f64,
    },
    /// What only one device can do.
    #[error(
        "several devices or threads do not go with {what}: name one --device, without --threads"
    )]
    OneDevice {
        /// What was asked for.
        what: &'static str,
    },
    /// A line that cannot be shaped.
    #[error(
        "{device} has no line whose rate could be chosen: use --line-rate with qemu or tcp:HOST:PORT; a serial port's is given as PATH@BAUD"
    )]
    NoLine {
        /// The device.
        device: String,
    },
    /// Threads that do not start.
    #[error("the threads do not start ({0}): lower --threads")]
    Threads(rayon::ThreadPoolBuildError),
    /// Devices that one plan does not serve.
    #[error(
        "{other} takes another plan than {first}: run them one after the other, or name devices of one kind"
    )]
    OtherPlan {
        /// The first device.
        first: String,
        /// The other.
        other: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The firmware does not build.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The evaluator did not start.
    #[error(transparent)]
    Evaluator(#[from] EvaluatorError),
    /// An operation that is measured failed.
    #[error("a benchmark failed ({0}): this is a mistake in he-edge, please report it")]
    Benchmark(#[from] he_core::Error),
    /// The board's program did not report what it was to measure.
    #[error(
        "the benchmark program on {board} broke off at `{last}`: build it again and run the tests"
    )]
    BoardBench {
        /// The board.
        board: String,
        /// Its last line.
        last: String,
    },
    /// A device whose operations cannot be measured.
    #[error("nothing measures operations on {device} yet: use inproc or qemu")]
    NoBench {
        /// The device.
        device: String,
    },
    /// A choice that only this machine leaves.
    #[error(
        "{device} runs the operations of its image's set, counted once: --params and --runs are for inproc"
    )]
    BenchOfHost {
        /// The device.
        device: String,
    },
    /// A device that is no sensor.
    #[error("there is no sensor at {device}: use inproc, qemu, tcp:HOST:PORT or a serial port")]
    NoSensor {
        /// The device.
        device: String,
    },
    /// A device that a worker of a fleet does not have.
    #[error(
        "a worker has no {device} yet: it evaluates in its own process, so use --device inproc as often as it is to take items at a time"
    )]
    NoWorker {
        /// The device.
        device: String,
    },
    /// A fleet.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The inference failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The sensor gave no ciphertext.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// The file cannot be imported.
    #[error(transparent)]
    Import(#[from] he_nn::import::ImportError),
    /// Training on encrypted data failed.
    #[error(transparent)]
    EncryptedTraining(#[from] crate::encrypted_training::Error),
    /// Training failed.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] he_nn::train::TrainError),
    /// This build cannot train.
    #[cfg(not(feature = "train"))]
    #[error(
        "this build has no training in it: run `cargo run --release --features train -- train ..`"
    )]
    NoTraining,
    /// A board that is only emulated.
    #[error(
        "{board} is emulated and has no flash: use `he-edge infer --device qemu:{board}`, or one of the boards {}",
        he_nn::boards::physical()
    )]
    NotPhysical {
        /// The board.
        board: &'static str,
    },
    /// The debug probe did not do it.
    #[cfg(feature = "flash")]
    #[error(transparent)]
    Probe(#[from] crate::device::probe::ProbeError),
    /// This build has no debug probes in it.
    #[cfg(not(feature = "flash"))]
    #[error(
        "this build has no debug probes in it: run `cargo run --release --features flash -- flash ..`"
    )]
    NoFlashing,
    /// An attack nobody knows.
    #[cfg(feature = "attack")]
    #[error(
        "there is no attack {name}: use all, list or one of {}",
        attacks::ATTACKS.iter().map(|attack| attack.name()).collect::<Vec<_>>().join(", ")
    )]
    NoAttack {
        /// Its name.
        name: String,
    },
    /// An attack without data, or without a place for its results.
    #[cfg(feature = "attack")]
    #[error(
        "an attack takes data and leaves results: name both directories, with --data and --out"
    )]
    AttackPaths,
    /// An attack failed.
    #[cfg(feature = "attack")]
    #[error(transparent)]
    Attack(#[from] attacks::AttackError),
    /// Time was not measured.
    #[cfg(feature = "attack")]
    #[error(transparent)]
    Timing(#[from] crate::timing::TimingError),
    /// A directory of results.
    #[cfg(feature = "attack")]
    #[error(transparent)]
    Results(#[from] crate::attacked::sink::ResultsError),
    /// A directory without results.
    #[cfg(feature = "attack")]
    #[error(
        "{} holds no results: name the directory that `he-edge attack NAME --out DIR` wrote to",
        directory.display()
    )]
    NothingToReport {
        /// The directory.
        directory: PathBuf,
    },
    /// A step over files was not done.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A sealed key is not opened.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// A file holds something else.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no passphrase.
    #[error(transparent)]
    Passphrase(#[from] PassphraseError),
    /// Results that were refused.
    #[error(
        "{count} of {of} results were refused, as the report says of each, and the key is retired: find out what the evaluator did, and make a new key"
    )]
    Unanswered {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// The run ended before all images were done.
    #[error(
        "{failure}; {finished} of {of} images are finished and stand in the outputs: {}",
        match resume {
            Some(path) => format!("the same command goes on from {}", path.display()),
            None => "with --resume FILE a run can be gone on with".to_owned(),
        }
    )]
    Early {
        /// What ended it.
        failure: Box<Self>,
        /// Images that are finished.
        finished: usize,
        /// Images that were asked for.
        of: usize,
        /// The ledger.
        resume: Option<PathBuf>,
    },
    /// A ledger of finished images.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
    /// A data set did not come.
    #[error(transparent)]
    Fetch(#[from] crate::fetch::FetchError),
    /// Serial ports cannot be listed.
    #[error("the system does not list its serial ports ({0}): name the port's path with --device")]
    Ports(serialport::Error),
    /// Signals cannot be watched for.
    #[error("the system does not tell of signals ({0}): run again")]
    Signals(std::io::Error),
    /// A file cannot be written.
    #[error("{} cannot be written ({source}): name another file", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Failure {
    /// Exit status: 2 where a plan does not fit, otherwise 1.
    #[must_use]
    pub const fn status(&self) -> u8 {
        match self {
            Self::Plan { .. } | Self::Unplanned { .. } => 2,
            Self::Evaluator(EvaluatorError::Plan(_)) => 2,
            Self::Service(error) if error.is_of_plan() => 2,
            _ => 1,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// [`Failure`], one sentence that says what was wrong and what to do.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    #[cfg(feature = "train")]
    if arguments.command.as_ref().is_some_and(Command::trains) {
        crate::tensor_threads::settle();
    }
    match arguments.command {
        None => demo::run(),
        Some(Command::Infer(arguments)) => infer::run(&arguments),
        Some(Command::Audit(arguments)) => audit::run(&arguments),
        Some(Command::Plan(arguments)) => plan::run(&arguments),
        Some(Command::Keygen(arguments)) => keygen::run(&arguments),
        Some(Command::Encrypt(arguments)) => encrypt::run(&arguments),
        Some(Command::Evaluate(arguments)) => evaluate::run(&arguments),
        Some(Command::Decrypt(arguments)) => decrypt::run(&arguments),
        Some(Command::Show(arguments)) => show::run(&arguments),
        Some(Command::Train(arguments)) => train::run(&arguments),
        Some(Command::Import(arguments)) => import::run(&arguments),
        Some(Command::Sense(arguments)) => sense::run(&arguments),
        Some(Command::Bench(arguments)) => bench::run(&arguments),
        Some(Command::Serve(arguments)) => serve::run(&arguments),
        #[cfg(feature = "nats")]
        Some(Command::Work(arguments)) => work::run(&arguments),
        #[cfg(feature = "nats")]
        Some(Command::Fleet(arguments)) => fleet::run(&arguments),
        #[cfg(feature = "attack")]
        Some(Command::Attack(arguments)) => attack::run(&arguments),
        #[cfg(feature = "attack")]
        Some(Command::Timing(arguments)) => timing::run(&arguments),
        #[cfg(feature = "attack")]
        Some(Command::Report(arguments)) => report::run(&arguments),
        Some(Command::Devices(arguments)) => devices::run(&arguments),
        Some(Command::Data(arguments)) => data::run(&arguments),
        Some(Command::Completions(arguments)) => completions::run(&arguments),
        Some(Command::Man(arguments)) => completions::man(&arguments),
        Some(Command::Flash(arguments)) => flash::run(&arguments),
    }
}

/// Bytes that no model of the format has: sixteen of the largest layers.
const MAX_MODEL_BYTES: u64 = 1 << 32;

/// The model of the firmware where none is named.
const DEFAULT_MODEL: &str = "mnist-mlp64";

/// A model's bytes, and the file they come from unless it is bundled.
#[derive(Debug)]
pub struct ModelFile {
    bytes: Vec<u8>,
    name: String,
    path: Option<PathBuf>,
}

impl ModelFile {
    /// Reads a bundled model or a file.
    ///
    /// # Errors
    /// [`Failure::NoModel`].
    pub fn open(name: &str) -> Result<Self, Failure> {
        let name = name.to_owned();
        if let Some(bytes) = bundled::model(&name) {
            return Ok(Self {
                bytes: bytes.to_vec(),
                name,
                path: None,
            });
        }
        let path = PathBuf::from(&name);
        match files::read(&path, MAX_MODEL_BYTES) {
            Ok(bytes) => Ok(Self {
                bytes,
                name,
                path: Some(path),
            }),
            Err(source) => Err(Failure::NoModel { name, source }),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file, `None` for a bundled model.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The file for the firmware's build script, `None` for the model that it takes
    /// by itself.
    #[must_use]
    pub fn built_from(&self) -> Option<PathBuf> {
        match &self.path {
            Some(path) => Some(path.clone()),
            None if self.name == DEFAULT_MODEL => None,
            None => bundled::source(&self.name),
        }
    }

    /// What it was asked for by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network.
    ///
    /// # Errors
    /// [`Failure::Model`].
    pub fn parse(&self) -> Result<Model<'_>, Failure> {
        Model::parse(&self.bytes).map_err(|source| Failure::Model {
            name: self.name.clone(),
            source,
        })
    }

    /// Names the model where it does not fit.
    pub(crate) fn failed(&self) -> impl Fn(ServiceError) -> Failure {
        let model = self.name.clone();
        move |error| match error {
            ServiceError::Plan(source) => Failure::Plan {
                model: model.clone(),
                source,
            },
            other => Failure::Service(other),
        }
    }

    /// Names the model where a run of it ended early.
    pub(crate) fn failed_in_run(&self) -> impl Fn(RunError) -> Failure {
        let service = self.failed();
        move |error| match error {
            RunError::Service(error) => service(error),
            RunError::Ledger(error) => Failure::Ledger(error),
        }
    }
}

fn parse_params(name: &str) -> Result<&'static Params, String> {
    planning::set(name).map_err(|e| e.to_string())
}

fn parse_device(name: &str) -> Result<Device, String> {
    name.parse()
        .map_err(|e: crate::device::DeviceNameError| e.to_string())
}

/// The address of a fleet's broker.
#[cfg(feature = "nats")]
fn nats_url(url: &str) -> Result<String, String> {
    match crate::device::is_nats_url(url) {
        true => Ok(url.to_owned()),
        false => Err("an address is HOST:PORT or nats://HOST:PORT, without a user".to_owned()),
    }
}

/// Which half of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    /// The training images.
    Train,
    /// The test images.
    Test,
}

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::Train,
            SplitName::Test => Self::Test,
        }
    }
}
