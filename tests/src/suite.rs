//! The suite of inferences: a network, its weights and a device in, what the inference
//! took and gave out, or the sentence by which it was refused.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use he_core::Params;
use he_nn::boards::{self, Board};
use he_nn::bundled;
use he_nn::clear;
use he_nn::message::{Memory, TimeUnit};
use he_nn::model::{Input, Model};
use he_nn::network::{Granularity, NetworkInput, Quantization};
use he_nn::plan::{Packing, Plan, PlanError, Sums, Target, Terms, WeightMode};
use he_nn::program::Program;
use host_runner::client::{Client, Inference, Keys};
use host_runner::device::firmware_build::{self, Options};
use host_runner::device::{Connection, Transport, stream};
use host_runner::evaluator::{self, Held};
use host_runner::image::Image;
use host_runner::planning;
use host_runner::report::text::{grouped, table};
use host_runner::service::{Batches, InMemory, Service};

use crate::networks::{Drawn, FIRST_SAMPLE, Part, network, rounded};

/// The network that firmware is built with where none is named.
const REFERENCE: &str = "mnist-mlp64";

/// Encryptions draw their randomness from it, so that two devices get the same.
const SEED: [u8; 32] = [7; 32];

/// A network, and samples for it.
#[derive(Debug)]
pub struct Case {
    /// What the table calls it.
    pub name: &'static str,
    /// The model file.
    pub file: Vec<u8>,
    /// The set that one sample is planned under; one that serves if left out.
    params: Option<&'static Params>,
    samples: Vec<Drawn>,
}

impl Case {
    /// A bundled network; its samples are the bundled digits from the fourth on.
    ///
    /// # Panics
    /// If there is none of that name.
    #[must_use]
    pub fn bundled(name: &'static str) -> Self {
        let file = bundled::model(name).unwrap().to_vec();
        let model = Model::parse(&file).unwrap();
        let samples = match model.input() {
            Input::Image(_) => {
                let digits = bundled::digits().unwrap().images;
                let digits = digits[3..].iter();
                digits.map(|digit| Drawn::Pixels(digit.to_vec())).collect()
            }
            Input::Features { .. } => Self::drawn_samples(&model),
        };
        Self {
            name,
            file,
            params: None,
            samples,
        }
    }

    /// A network of the tests' own.
    #[must_use]
    pub fn drawn(
        name: &'static str,
        params: Option<&'static Params>,
        input: NetworkInput,
        parts: &[Part],
    ) -> Self {
        Self::of_file(name, params, network(input, parts))
    }

    /// A network drawn likewise, with weights of so many bits.
    ///
    /// # Panics
    /// If the format does not hold it.
    #[must_use]
    pub fn rounded(
        name: &'static str,
        params: Option<&'static Params>,
        input: NetworkInput,
        parts: &[Part],
        (bits, granularity): (u8, Granularity),
    ) -> Self {
        let quantization = Quantization::new(bits, granularity).unwrap();
        Self::of_file(name, params, rounded(input, parts, quantization))
    }

    fn of_file(name: &'static str, params: Option<&'static Params>, file: Vec<u8>) -> Self {
        let samples = Self::drawn_samples(&Model::parse(&file).unwrap());
        Self {
            name,
            file,
            params,
            samples,
        }
    }

    /// Of those that ranges were measured over.
    fn drawn_samples(model: &Model<'_>) -> Vec<Drawn> {
        (3..6).map(|k| Drawn::of(model, FIRST_SAMPLE + k)).collect()
    }

    /// The network.
    ///
    /// # Panics
    /// If the file holds none.
    #[must_use]
    pub fn model(&self) -> Model<'_> {
        Model::parse(&self.file).unwrap()
    }

    /// The first samples.
    #[must_use]
    pub fn samples(&self, count: usize) -> &[Drawn] {
        &self.samples[..count.min(self.samples.len())]
    }

    /// Its plan.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan(&self, terms: impl Into<Terms>, target: Target) -> Result<Plan<'_>, PlanError> {
        planning::plan(self.params, self.model(), terms, target)
    }

    /// A file that firmware is built with.
    fn path(&self) -> PathBuf {
        bundled::source(self.name).unwrap_or_else(|| {
            let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
            let directory = root.join("../target/firmware/models");
            let path = directory.join(self.name.replace(' ', "-"));
            let path = path.with_extension("hemodel");
            // Where it is the same, nothing is built anew.
            if std::fs::read(&path).ok().as_ref() != Some(&self.file) {
                std::fs::create_dir_all(&directory).unwrap();
                std::fs::write(&path, &self.file).unwrap();
            }
            path
        })
    }
}

/// Where an inference runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The engine, in memory.
    Engine,
    /// The engine of batches.
    Batches,
    /// The session of a board, in a thread of this process.
    Session,
    /// The same behind TCP.
    Tcp,
    /// An emulated board.
    Board(&'static Board),
}

impl Device {
    /// An emulated board, by name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn board(name: &str) -> Self {
        Self::Board(boards::find(name).unwrap())
    }

    /// What plans for it are made for.
    #[must_use]
    pub const fn target(&self) -> Target {
        match self {
            Self::Engine | Self::Batches => Target::Host,
            Self::Session | Self::Tcp => Target::STREAM,
            Self::Board(board) => board.target(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("inproc"),
            Self::Batches => f.write_str("inproc, batch"),
            Self::Session => f.write_str("session"),
            Self::Tcp => f.write_str("tcp"),
            Self::Board(board) => write!(f, "qemu:{}", board.name),
        }
    }
}

/// How weights are held, in a word.
#[must_use]
pub const fn word(weights: WeightMode) -> &'static str {
    match weights {
        WeightMode::Plain => "plain",
        WeightMode::Encrypted => "encrypted",
    }
}

/// What a device gave for some samples, checked against the network in the clear.
#[derive(Debug)]
pub struct Answered {
    /// In order.
    pub inferences: Vec<Inference>,
    /// Bytes of the arena that the plan takes, where a stream's evaluator has one.
    pub arena_bytes: usize,
    /// What the plan says that it takes, in the unit of its target.
    pub estimate: usize,
    /// How many steps the plan has.
    pub steps: usize,
    /// Largest error of a logit.
    pub error: f64,
    /// The plan's six standard deviations.
    pub six_sigma: f64,
    /// The compiler of a board's image.
    pub compiler: Option<String>,
}

impl Answered {
    /// Of the first inference: instructions, or milliseconds.
    #[must_use]
    pub fn cost(&self) -> String {
        let inference = &self.inferences[0];
        let total = inference.total().unwrap_or_default();
        match inference.unit {
            TimeUnit::Nanoseconds => {
                let best = self.inferences.iter().filter_map(Inference::total).min();
                let time = Duration::from_nanos(best.unwrap_or_default());
                format!("{:.2} ms", 1e3 * time.as_secs_f64())
            }
            unit => format!("{} {unit:?}", grouped(total)).to_lowercase(),
        }
    }

    /// What the evaluator says of its memory.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.inferences[0].memory
    }

    /// Logits, bit for bit.
    #[must_use]
    pub fn bits(&self) -> Vec<Vec<u64>> {
        self.inferences.iter().map(bits).collect()
    }
}

/// Has a device classify the first samples of a case.
///
/// # Errors
/// [`PlanError`] by which the device's plan is refused.
///
/// # Panics
/// If anything else fails, a label is not that of the clear network, or a logit is
/// further from it than the plan says.
pub fn run(
    case: &Case,
    terms: impl Into<Terms>,
    device: Device,
    samples: usize,
) -> Result<Answered, PlanError> {
    let terms = terms.into();
    let model = case.model();
    if device == Device::Batches {
        if terms.weights == WeightMode::Encrypted {
            planning::batch_plan(None, model)?;
            return Err(planning::encrypted_batch(&model));
        }
        let plan = planning::batch_plan(None, model)?;
        let (six_sigma, steps) = (plan.logit_error().six_sigma, plan.steps().len());
        let estimate = plan.passes();
        let mut service = Batches::new(plan).unwrap();
        assert_eq!(service.deployment().packing, Packing::Batch);
        let inferences = served(&mut service, case, samples);
        return Ok(checked(case, six_sigma, steps, estimate, inferences));
    }
    let plan = case.plan(terms, device.target())?;
    let (six_sigma, steps) = (plan.logit_error().six_sigma, plan.steps().len());
    let words = plan.arena_words() + plan.owed_words();
    let (arena_bytes, estimate) = (size_of::<u32>() * words, plan.total_cost());
    let mut compiler = None;
    let client = || client(&plan);
    let inferences = match device {
        Device::Engine => {
            let mut service = InMemory::with_client(client()).unwrap();
            served(&mut service, case, samples)
        }
        Device::Session | Device::Batches => {
            let transport = evaluator::in_process(&plan).unwrap();
            linked(&mut client(), transport, case, samples)
        }
        Device::Tcp => {
            let transport = stream::connect(&serve(case, &plan).to_string()).unwrap();
            linked(&mut client(), transport, case, samples)
        }
        Device::Board(board) => {
            // Other tests build the image of the reference network too.
            let path = (case.name != REFERENCE).then(|| case.path());
            let image = firmware_build::build(&Options {
                board: board.name,
                model: path.as_deref(),
                params: plan.params(),
                features: match (terms.weights, terms.sums) {
                    (WeightMode::Plain, Sums::Client) => &[],
                    (WeightMode::Plain, Sums::Evaluator) => &["evaluator-sums"],
                    (WeightMode::Encrypted, Sums::Client) => &["encrypted-weights"],
                    (WeightMode::Encrypted, Sums::Evaluator) => {
                        &["encrypted-weights", "evaluator-sums"]
                    }
                },
                inputs: terms.inputs,
            })
            .unwrap();
            compiler = Some(Image::read(&image).unwrap().compiler);
            linked(&mut client(), emulated(board, &image), case, samples)
        }
    };
    Ok(Answered {
        arena_bytes,
        compiler,
        ..checked(case, six_sigma, steps, estimate, inferences)
    })
}

#[cfg(unix)]
fn emulated(board: &Board, image: &std::path::Path) -> impl Transport + use<> {
    use host_runner::device::emulator::Emulator;
    Emulator::start(board.name, image, Box::new(|_| ())).unwrap()
}

/// From a service.
fn served(service: &mut dyn Service, case: &Case, samples: usize) -> Vec<Inference> {
    let samples: Vec<_> = case.samples(samples).iter().map(Drawn::sample).collect();
    let answers = service.infer(&samples, &mut ()).unwrap();
    answers.into_iter().map(Result::unwrap).collect()
}

/// From the other end of a link.
fn linked(
    client: &mut Client<'_>,
    transport: impl Transport,
    case: &Case,
    samples: usize,
) -> Vec<Inference> {
    let mut link = Connection::new(transport);
    let samples = case.samples(samples).iter();
    samples
        .map(|drawn| client.infer(&mut link, drawn.sample(), &mut ()).unwrap())
        .collect()
}

/// The logits that the first samples get over a transport, bit for bit.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn over(
    transport: impl Transport,
    case: &Case,
    plan: &Plan<'_>,
    samples: usize,
) -> Vec<Vec<u64>> {
    let inferences = linked(&mut client(plan), transport, case, samples);
    inferences.iter().map(bits).collect()
}

fn client<'m>(plan: &Plan<'m>) -> Client<'m> {
    let keys = Keys::from_seed(plan.params(), &SEED).unwrap();
    Client::with_keys(plan.clone(), keys).unwrap()
}

fn bits(inference: &Inference) -> Vec<u64> {
    inference.logits.iter().map(|x| x.to_bits()).collect()
}

/// An evaluator behind TCP, in a thread that ends with the process.
fn serve(case: &Case, plan: &Plan<'_>) -> SocketAddr {
    let (program, file) = (Program::of(plan).unwrap(), case.file.clone());
    let (tell, listening) = mpsc::channel();
    thread::spawn(move || {
        let model = Model::parse(&file).unwrap();
        let held = if program.is_encrypted() {
            Held::Encrypted(&program)
        } else {
            Held::Plain(&program, model)
        };
        let listening = |address| tell.send(address).unwrap();
        let limits = evaluator::Limits::default();
        evaluator::listen("127.0.0.1:0", held, limits, listening, |visit| {
            visit.ended.unwrap()
        })
    });
    listening.recv().unwrap()
}

/// Compares inferences with the network in the clear.
fn checked(
    case: &Case,
    six_sigma: f64,
    steps: usize,
    estimate: usize,
    inferences: Vec<Inference>,
) -> Answered {
    let model = case.model();
    assert!(!inferences.is_empty());
    let mut error = 0.0f64;
    for (inference, drawn) in inferences.iter().zip(case.samples(usize::MAX)) {
        let plain = clear::logits(&model, drawn.sample()).unwrap();
        error = clear::largest([error, clear::largest_error(&inference.logits, &plain)]);
        assert_eq!(inference.label(), clear::class(&plain), "{}", case.name);
    }
    assert!(
        error < six_sigma,
        "{}: {error} where six standard deviations are {six_sigma}",
        case.name
    );
    Answered {
        inferences,
        arena_bytes: 0,
        estimate,
        steps,
        error,
        six_sigma,
        compiler: None,
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// The network.
    pub network: &'static str,
    /// How weights are held.
    pub weights: WeightMode,
    /// Where it ran.
    pub device: Device,
    /// What came of it.
    pub outcome: Result<Answered, PlanError>,
}

/// The table for people, and below it why some rows are empty.
#[must_use]
pub fn text(rows: &[Row]) -> String {
    let mut sentences: Vec<String> = Vec::new();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let [cost, ram, error] = match &row.outcome {
            Ok(answered) => {
                let memory = answered.memory();
                let ram = u64::from(memory.static_bytes) + u64::from(memory.stack_peak_bytes);
                let error = format!("{:.4} of {:.4}", answered.error, answered.six_sigma);
                [answered.cost(), grouped(ram), error]
            }
            Err(error) => {
                let sentence = error.to_string();
                let known = sentences.iter().position(|known| *known == sentence);
                let index = known.unwrap_or_else(|| {
                    sentences.push(sentence);
                    sentences.len() - 1
                });
                [format!("({})", index + 1), String::new(), String::new()]
            }
        };
        let name = format!("{}, {}", row.network, word(row.weights));
        lines.push([name, row.device.to_string(), cost, ram, error]);
    }
    let header = [
        "network, weights",
        "device",
        "evaluator, per sample",
        "RAM",
        "largest error of a logit",
    ];
    let mut out = table(header, &lines);
    for (index, sentence) in (1..).zip(&sentences) {
        out.push_str(&format!("({index}) {sentence}\n"));
    }
    out
}
