//! Where samples are classified: one trait over an evaluator in memory, in batches, or
//! at the other end of a link.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use he_core::Params;
use he_core::ckks::publish::HonestEvaluator;
use he_nn::boards;
use he_nn::message::{Memory, Stage, TimeUnit};
use he_nn::model::{Model, Sample};
use he_nn::plan::batch::BatchPlan;
use he_nn::plan::{LogitError, Packing, Plan, PlanError, Sums, Target, Terms, WeightMode};
use he_nn::program::Program;
use he_nn::progress::Progress;
use rayon::prelude::*;
use serde::Serialize;

use crate::choice;
use crate::client::publication::{self, Form, Handed, PublicationError, PublicationTerms};
use crate::client::{
    self, BatchClient, Bytes, Client, ClientError, Compared, HandedOn, Inference, Padding,
    expected_of, range_of,
};
use crate::device::firmware_build::FirmwareError;
use crate::device::{Begun, Connection, Device, DeviceError, Opening, Transport};
use crate::engine::batch::BatchEngine;
use crate::engine::{Engine, EngineError, Times, batch, latency};
use crate::evaluator::{self, EvaluatorError};
use crate::files::SealedKey;
#[cfg(feature = "nats")]
use crate::fleet::{self, FleetError};
use crate::line::Line;
use crate::planning;
use crate::receipts::{Receipt, Recorder};
use crate::report::steps::{self, StepInfo};

/// Why there is no inference.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The network does not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The client has no result.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The evaluator in memory has none.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The evaluator in this process did not start.
    #[error(transparent)]
    Evaluator(#[from] EvaluatorError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The firmware does not build.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// Nothing can be published.
    #[error(transparent)]
    Publication(#[from] PublicationError),
    /// A board nobody knows.
    #[error(transparent)]
    Board(#[from] boards::UnknownBoard),
    /// The fleet has none.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// A device that failed and that nobody can open again.
    #[error("the device failed before and cannot be opened again: run again")]
    Closed,
    /// The process is to end.
    #[error("interrupted: run again")]
    Interrupted,
    /// A way of running that there is not.
    #[error("there is no {what}: use {instead}")]
    Unserved {
        /// What was asked for.
        what: &'static str,
        /// What there is.
        instead: &'static str,
    },
}

impl ServiceError {
    /// Whether what was asked for has no plan, or none that leaves anything of it.
    #[must_use]
    pub const fn is_of_plan(&self) -> bool {
        matches!(
            self,
            Self::Plan(_)
                | Self::Unserved { .. }
                | Self::Publication(_)
                | Self::Client(ClientError::Plan(_))
                | Self::Engine(EngineError::Plan(_))
                | Self::Evaluator(EvaluatorError::Plan(_))
        )
    }

    /// Whether the link or the device behind it failed for now.
    #[must_use]
    pub const fn is_of_link(&self) -> bool {
        match self {
            Self::Client(error) => error.is_of_link(),
            Self::Device(error) => error.is_of_link(),
            #[cfg(feature = "nats")]
            Self::Fleet(error) => error.is_of_link(),
            _ => false,
        }
    }

    /// Whether the other end closed the connection.
    const fn is_of_end(&self) -> bool {
        matches!(
            self,
            Self::Client(ClientError::Device(DeviceError::Closed { .. }))
                | Self::Device(DeviceError::Closed { .. })
        )
    }

    /// Whether the device has to be opened again.
    #[must_use]
    pub const fn is_of_absence(&self) -> bool {
        match self {
            Self::Client(ClientError::Device(error)) | Self::Device(error) => error.is_of_absence(),
            // It closes the connection, too.
            Self::Client(error) => error.is_busy(),
            _ => false,
        }
    }
}

/// What a service evaluates, and how.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The parameter set.
    pub params: &'static Params,
    /// Level of the inputs.
    pub level: usize,
    /// How weights are held.
    pub weights: WeightMode,
    /// Who adds up lanes.
    pub sums: Sums,
    /// How values are laid out.
    pub packing: Packing,
    /// The plan's largest error of a logit.
    pub logit_error: LogitError,
    /// The steps of the plan.
    pub steps: Vec<StepInfo>,
    /// The program, where one sample is evaluated at a time.
    pub program: Option<Program<Vec<u8>>>,
}

impl Deployment {
    /// Whether what is said of one is true of the other.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.params.fingerprint() == other.params.fingerprint()
            && (self.level, self.weights, self.sums, self.packing)
                == (other.level, other.weights, other.sums, other.packing)
            && self.logit_error == other.logit_error
            && self.steps == other.steps
    }
}

/// Samples in, inferences out.
pub trait Service: Send {
    /// What is evaluated, and how.
    fn deployment(&self) -> &Deployment;

    /// Samples that one run serves at most.
    fn samples(&self) -> usize {
        1
    }

    /// Classifies samples, one answer per sample, in order. What a run of several takes is
    /// shared among them. A sample that the plan has no room for, or whose result was
    /// refused, has that as its answer, and the others go on; the key is renewed after a
    /// refused result.
    ///
    /// # Errors
    /// [`ServiceError`] where nothing can go on.
    fn infer(
        &mut self,
        samples: &[Sample<'_>],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Answer>, ServiceError>;

    /// Publications that are allowed and those that have been counted, where something is
    /// published.
    fn publications(&self) -> Option<(u32, u32)>;

    /// Whether the sealed key that it began with was retired, as a result was refused under
    /// it: what came after is under a key that ends with the service.
    fn has_retired(&self) -> bool;

    /// Whether a link lies in between, whose faults pass.
    fn is_linked(&self) -> bool {
        false
    }

    /// Whether the same samples may be answered when they are tried again.
    fn may_recover(&self, error: &ServiceError) -> bool {
        self.is_linked() && error.is_of_link()
    }

    /// What went through a queue, where there is one in between.
    fn exchanged(&self) -> Option<Exchanged> {
        None
    }

    /// Opens the device again.
    ///
    /// # Errors
    /// [`ServiceError`]; where nothing is opened, nothing is done.
    fn reopen(&mut self) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// What went through the queue of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exchanged {
    /// Items that the broker said it keeps; one whose acknowledgement was lost with the
    /// connection is not counted.
    pub sent: u64,
    /// How often one was sent again, as it had vanished or was put aside.
    pub sent_again: u64,
    /// How often workers put one aside.
    pub put_aside: u64,
    /// Answers to what was answered already.
    pub doubled: u64,
    /// Answers to nothing that was asked for, or to another input.
    pub stale: u64,
    /// Results that were refused, each of which cost a key, by the worker that gave itself
    /// as their maker.
    pub refused_of: BTreeMap<String, u64>,
}

/// What became of a sample.
pub type Answer = Result<Inference, Refused>;

/// A sample without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// Why.
    pub error: ClientError,
    /// What the refused result was computed from, where one came and receipts are
    /// written: the answers for which somebody has to answer.
    pub receipt: Option<Box<Receipt>>,
}

impl<E: Into<ClientError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self {
            error: error.into(),
            receipt: None,
        }
    }
}

/// What is asked of a service.
pub struct Request<'a> {
    /// Where the evaluator runs.
    pub device: &'a Device,
    /// The parameter set; one that serves if left out.
    pub params: Option<&'static Params>,
    /// How weights are held, who adds up lanes, and how many inputs there are.
    pub terms: Terms,
    /// Whether the inputs are as many as answer first.
    pub by_time: bool,
    /// How values are laid out.
    pub packing: Packing,
    /// Whether inferences are traced.
    pub trace: bool,
    /// Share of the answers of a device that are evaluated again, from 0 to 1.
    pub audit: f64,
    /// The key, where one is kept; a fresh one, if left out.
    pub key: Option<SealedKey>,
    /// What is published of the answers.
    pub publish: Option<PublicationTerms>,
    /// What writes receipts of the answers.
    pub receipts: Option<Recorder>,
    /// How long a device may take.
    pub limits: Limits,
    /// What the link is padded to.
    pub padding: Option<Padding>,
    /// How a device is opened.
    pub opening: Opening<'a>,
}

/// How long a device may take; what serves where nothing is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For one message.
    pub patience: Option<Duration>,
    /// For a whole inference.
    pub deadline: Option<Duration>,
}

/// Without a board there are no instructions per second.
const NO_TIMES: ServiceError = ServiceError::Unserved {
    what: "choice by time where no known board evaluates",
    instead: "--inputs N",
};

/// Opens a service for a network.
///
/// # Errors
/// [`ServiceError`].
pub fn open<'m>(
    model: Model<'m>,
    request: Request<'_>,
) -> Result<Box<dyn Service + 'm>, ServiceError> {
    let Request {
        device,
        params,
        mut terms,
        by_time,
        packing,
        trace,
        audit,
        key,
        publish,
        receipts,
        limits,
        padding,
        mut opening,
    } = request;
    let params = key.as_ref().map(SealedKey::params).or(params);
    let of_values = publish
        .as_ref()
        .is_some_and(|terms| terms.form == Form::Values);
    match (packing, device) {
        _ if by_time && !matches!(device, Device::Emulator { .. } | Device::Serial { .. }) => {
            Err(NO_TIMES)
        }
        (_, Device::InProcess | Device::Nats { .. }) if padding.is_some() => {
            Err(ServiceError::Unserved {
                what: "padding where there is no link of its own",
                instead: "a board or tcp:HOST:PORT, or leave --pad-to out",
            })
        }
        _ if padding.is_some() && trace => Err(ServiceError::Unserved {
            what: "trace of a padded link, which would show on it",
            instead: "--trace or --pad-to",
        }),
        (Packing::Batch, _) if by_time || terms.inputs.is_some() => Err(ServiceError::Unserved {
            what: "number of input ciphertexts in batches, which have one per value",
            instead: "--packing latency",
        }),
        // A liar's values would be the key, whatever else is checked.
        (_, device) if of_values && (trace || !matches!(device, Device::InProcess)) => {
            Err(ServiceError::Unserved {
                what: "publication of values that somebody else has computed, as those of a crafted result are the key",
                instead: "--publish labels, or --device inproc without --trace",
            })
        }
        // Client and evaluator are one: it would compare itself with itself.
        (_, Device::InProcess) if audit > 0.0 && !trace => Err(ServiceError::Unserved {
            what: "audit of what this process evaluates itself",
            instead: "another --device, or --receipts, which `he-edge audit` evaluates again",
        }),
        (Packing::Batch, _) if trace => Err(ServiceError::Unserved {
            what: "trace of batches",
            instead: "--packing latency",
        }),
        (Packing::Batch, Device::InProcess) => {
            if terms.weights == WeightMode::Encrypted {
                return Err(planning::encrypted_batch(&model).into());
            }
            if terms.sums == Sums::Evaluator {
                return Err(ServiceError::Unserved {
                    what: "choice of who adds up lanes in batches, which have none",
                    instead: "--packing latency",
                });
            }
            let plan = match &publish {
                Some(terms) if of_values => publishable(params, model, terms)?,
                _ => planning::batch_plan(params, model)?,
            };
            if publish.is_some() && !of_values && model.outputs() > 1 {
                let logits = model.outputs();
                return Err(PublicationError::Logits { logits }.into());
            }
            let client = match key {
                Some(key) => BatchClient::sealed(plan, key)?,
                None => BatchClient::new(plan)?,
            };
            let service = Batches::with_client(client)?;
            Ok(Box::new(service.handing_on(publish, receipts)?))
        }
        (Packing::Batch, _) => Err(ServiceError::Unserved {
            what: "batch packing on a device",
            instead: "--device inproc",
        }),
        (Packing::Latency, Device::Nats { .. }) if trace => Err(ServiceError::Unserved {
            what: "trace of a fleet",
            instead: "--device inproc",
        }),
        #[cfg(not(feature = "nats"))]
        (Packing::Latency, Device::Nats { .. }) => Err(ServiceError::Unserved {
            what: "fleet in this build",
            instead: "one with the feature `nats`",
        }),
        #[cfg(feature = "nats")]
        (Packing::Latency, Device::Nats { url }) => {
            // Masked, as somebody lies in between.
            let plan = planning::plan(params, model, terms, Target::STREAM)?;
            let mut client = client_of(plan, key)?;
            hand_on(&mut client, publish, receipts)?;
            Ok(Box::new(fleet::client::Fleet::connect(
                url, client, audit, limits,
            )?))
        }
        (Packing::Latency, Device::InProcess) if !trace => {
            let plan = planning::plan(params, model, terms, Target::Host)?;
            if let Some(terms) = &publish
                && of_values
            {
                return Err(no_values(&plan, terms));
            }
            let service = InMemory::with_client(client_of(plan, key)?)?;
            Ok(Box::new(service.handing_on(publish, receipts)?))
        }
        (Packing::Latency, Device::InProcess) => {
            // What is traced is the session of a board, in a thread of this process.
            let plan = planning::plan(params, model, terms, Target::STREAM)?;
            let of_plan = plan.clone();
            let open = move || {
                let link: Box<dyn Transport> = Box::new(evaluator::in_process(&of_plan)?);
                Ok(Connection::new(link))
            };
            let client = client_of(plan, key)?;
            let remote = Remote::with_client(client, open()?, trace, audit)?;
            let mut remote = remote.reopened_by(open);
            remote.limit(limits);
            Ok(Box::new(remote.handing_on(publish, receipts)?))
        }
        (Packing::Latency, _) => {
            let line_rate = opening.line_rate;
            let Begun {
                target,
                board,
                plan: held,
                link,
            } = opening.begin(device)?;
            let plan = match board.filter(|_| by_time) {
                Some(board) => {
                    // An emulator that is held to no rate has a line that takes no time.
                    let baud = match device {
                        Device::Serial { baud, .. } => *baud,
                        _ => line_rate.unwrap_or(u32::MAX),
                    };
                    let line = Line::of(baud);
                    let chosen = choice::fastest(params, model, terms, board, line, held)?;
                    terms = chosen.terms;
                    chosen.plan
                }
                None if by_time => return Err(NO_TIMES),
                None => planning::plan(params, model, terms, target)?,
            };
            let image = match link {
                Some(_) => None,
                None => {
                    Some(opening.build(device, plan.params(), terms, (trace, padding.is_some()))?)
                }
            };
            let reach = opening.reach(device, image);
            let link = match link {
                Some(link) => link,
                None => reach.open()?,
            };
            let baud = match device {
                Device::Serial { baud, .. } => Some(*baud),
                _ => line_rate,
            };
            let limits = Limits {
                deadline: limits
                    .deadline
                    .or(baud.map(|baud| client::deadline(&plan, baud))),
                ..limits
            };
            let remote = Remote::with_client(client_of(plan, key)?, link, trace, audit)?;
            let mut remote = remote.reopened_by(move || Ok(reach.open()?));
            remote.limit(limits);
            remote.pad(padding);
            Ok(Box::new(remote.handing_on(publish, receipts)?))
        }
    }
}

/// A client with the key that is kept, or with a fresh one.
fn client_of<'m>(plan: Plan<'m>, key: Option<SealedKey>) -> Result<Client<'m>, ClientError> {
    match key {
        Some(key) => Client::sealed(plan, key),
        None => Client::new(plan),
    }
}

/// Has a client publish labels and write receipts, as far as that is asked for.
fn hand_on(
    client: &mut Client<'_>,
    publish: Option<PublicationTerms>,
    receipts: Option<Recorder>,
) -> Result<(), ClientError> {
    if let Some(recorder) = receipts {
        client.record_by(recorder);
    }
    publish.map_or(Ok(()), |terms| client.publish_by(terms))
}

/// The plan of batches whose values can be published.
fn publishable<'m>(
    params: Option<&'static Params>,
    model: Model<'m>,
    terms: &PublicationTerms,
) -> Result<BatchPlan<'m>, ServiceError> {
    let check = |plan: &BatchPlan<'m>| {
        let (expected, error) = (expected_of(plan, terms.precision_bits), plan.logit_error());
        publication::check_values(plan.params(), error, &expected, &terms.allowance)
    };
    let plan = planning::wide_batch_plan(params, model, |plan| check(plan).is_ok())?;
    check(&plan)?;
    Ok(plan)
}

/// Why the values of single samples are not published.
fn no_values(plan: &Plan<'_>, terms: &PublicationTerms) -> ServiceError {
    let range = range_of(plan.model());
    let (error, place) = (
        plan.logit_error(),
        (plan.output_level(), plan.output_scale()),
    );
    let expected = publication::expected(error, place, range, terms.precision_bits);
    match publication::check_values(plan.params(), error, &expected, &terms.allowance) {
        Err(error) => error.into(),
        // Beside the logits are sums of which the plan has no bound.
        Ok(_) => PublicationError::Single.into(),
    }
}

/// An evaluator in memory, one sample at a time.
pub struct InMemory<'m> {
    client: Client<'m>,
    engine: Engine,
    deployment: Deployment,
    memory: Memory,
    /// Bytes of keys and encrypted weights, until they are reported.
    keys: u64,
}

impl<'m> InMemory<'m> {
    /// Makes keys, and an evaluator that has them.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn new(plan: Plan<'m>) -> Result<Self, ServiceError> {
        Self::with_client(Client::new(plan)?)
    }

    /// As [`Self::new`], for a client that has its keys.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn with_client(mut client: Client<'m>) -> Result<Self, ServiceError> {
        let (engine, keys) = engine_of(&mut client)?;
        Ok(Self {
            deployment: deployment_of(client.plan())?,
            memory: in_memory(latency::memory(engine.program())),
            client,
            engine,
            keys,
        })
    }

    /// From now on has labels published and receipts written, as far as that is asked for.
    ///
    /// # Errors
    /// As [`Client::publish_by`].
    pub fn handing_on(
        mut self,
        publish: Option<PublicationTerms>,
        receipts: Option<Recorder>,
    ) -> Result<Self, ServiceError> {
        hand_on(&mut self.client, publish, receipts)?;
        Ok(self)
    }

    /// One sample, from its encryption to its logits.
    fn answer(&mut self, sample: Sample<'_>) -> Result<Inference, ServiceError> {
        if self.client.is_spent() {
            self.client.renew()?;
            (self.engine, self.keys) = engine_of(&mut self.client)?;
        }
        let start = Instant::now();
        let request = self.client.encrypt(sample)?;
        let input = request.bytes(self.deployment.params)?;
        let (result, times) = self.engine.evaluate(&input)?;
        self.client.record(&request, &result)?;
        let logits = self.client.decrypt(&request, &result)?;
        let wall = start.elapsed();
        let compared = self.client.compared(&request, sample, logits)?;
        let published = self.client.publish(&request, &result, &compared)?;
        let keys_up = std::mem::take(&mut self.keys);
        Ok(Inference {
            allowed_error: compared.own_limit(self.deployment.logit_error),
            beyond_training: compared.allowed.beyond_training,
            logits: compared.logits,
            plain: compared.plain,
            bytes: Bytes {
                up: input.len() as u64 + keys_up,
                down: result.len() as u64,
                keys_up,
            },
            board: "inproc".to_owned(),
            unit: TimeUnit::Nanoseconds,
            memory: self.memory,
            stages: stages(&times, 1),
            busy: None,
            trace: None,
            wall,
            cpu: Some(times.cpu),
            audited: false,
            handed_on: HandedOn {
                published,
                receipt: None,
            },
            padded: None,
        })
    }
}

/// An engine that has the client's keys, and their bytes.
pub(crate) fn engine_of(client: &mut Client<'_>) -> Result<(Engine, u64), ServiceError> {
    let (keys, weights) = (client.switching_keys()?, client.weights()?);
    let plan = client.plan();
    let engine = Engine::new(Program::of(plan)?, Some(plan.model()), &keys, &weights)?;
    Ok((engine, (keys.len() + weights.len()) as u64))
}

/// Keeps what is wrong with one sample as its answer. Either has its receipt.
fn of_sample(
    answer: Result<Inference, ServiceError>,
    receipt: Option<Receipt>,
) -> Result<Answer, ServiceError> {
    match answer {
        Ok(mut inference) => {
            inference.handed_on.receipt = receipt;
            Ok(Ok(inference))
        }
        Err(ServiceError::Client(error)) if error.is_of_sample() => Ok(Err(Refused {
            error,
            receipt: receipt.map(Box::new),
        })),
        Err(error) => Err(error),
    }
}

pub(crate) fn in_memory(bytes: usize) -> Memory {
    Memory {
        static_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        stack_peak_bytes: 0,
    }
}

pub(crate) fn deployment_of(plan: &Plan<'_>) -> Result<Deployment, EngineError> {
    Ok(Deployment {
        params: plan.params(),
        level: plan.input_level(),
        weights: plan.weights(),
        sums: plan.sums(),
        packing: Packing::Latency,
        logit_error: plan.logit_error(),
        steps: steps::of_plan(plan)?,
        program: Some(Program::of(plan)?),
    })
}

impl Service for InMemory<'_> {
    fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    fn infer(
        &mut self,
        samples: &[Sample<'_>],
        _: &mut dyn Progress,
    ) -> Result<Vec<Answer>, ServiceError> {
        let answers = samples.iter().map(|&sample| {
            let answer = self.answer(sample);
            of_sample(answer, self.client.take_receipt())
        });
        answers.collect()
    }

    fn publications(&self) -> Option<(u32, u32)> {
        self.client.publications()
    }

    fn has_retired(&self) -> bool {
        self.client.has_retired()
    }
}

/// Times as stages, a share of them each: reading the input belongs to the first step.
fn stages(times: &Times, share: u64) -> Vec<Stage> {
    let mut stages: Vec<Stage> = (0..)
        .zip(&times.steps)
        .map(|(step, time)| Stage {
            step,
            time: nanoseconds(*time),
        })
        .collect();
    if let Some(first) = stages.first_mut() {
        first.time += nanoseconds(times.input);
    }
    for stage in &mut stages {
        stage.time /= share;
    }
    stages
}

/// Of which 64 bits hold centuries.
const fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// An evaluator in memory, as many samples at a time as there are slots.
pub struct Batches<'m> {
    client: BatchClient<'m>,
    engine: BatchEngine<'m>,
    deployment: Deployment,
    memory: Memory,
    keys: u64,
}

impl<'m> Batches<'m> {
    /// Makes keys, and an evaluator that has them.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn new(plan: BatchPlan<'m>) -> Result<Self, ServiceError> {
        Self::with_client(BatchClient::new(plan)?)
    }

    /// As [`Self::new`], for a client that has its keys.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn with_client(mut client: BatchClient<'m>) -> Result<Self, ServiceError> {
        let plan = client.plan().clone();
        let keys = client.switching_keys()?;
        Ok(Self {
            deployment: Deployment {
                params: plan.params(),
                level: plan.input_level(),
                weights: WeightMode::Plain,
                sums: Sums::Client,
                packing: Packing::Batch,
                logit_error: plan.logit_error(),
                steps: steps::of_batch(&plan)?,
                program: None,
            },
            memory: in_memory(batch::memory(&plan, rayon::current_num_threads())),
            engine: BatchEngine::new(plan, &keys)?,
            client,
            keys: keys.len() as u64,
        })
    }
}

impl Batches<'_> {
    /// From now on publishes and has receipts written, as far as that is asked for.
    ///
    /// # Errors
    /// As [`BatchClient::publish_by`].
    pub fn handing_on(
        mut self,
        publish: Option<PublicationTerms>,
        receipts: Option<Recorder>,
    ) -> Result<Self, ServiceError> {
        if let Some(recorder) = receipts {
            self.client.record_by(recorder);
        }
        if let Some(terms) = publish {
            self.client.publish_by(terms)?;
        }
        Ok(self)
    }

    /// Publishes a result of the engine.
    fn publish(&mut self, result: &[u8], logits: &[Compared]) -> Result<Vec<Handed>, ClientError> {
        match self.client.form() {
            None => Ok(logits.iter().map(|_| None).collect()),
            Some(Form::Labels) => self.client.publish_labels(result, logits),
            // The engine is this process's own, and so the statement is true.
            Some(Form::Values) => {
                let evaluator = HonestEvaluator::assume();
                self.client.publish_values(result, logits, evaluator)
            }
        }
    }

    /// A batch of samples that the plan has room for, with their logits in the clear.
    fn batch(
        &mut self,
        (batch, clear): (&[Sample<'_>], &[Vec<f64>]),
        progress: &mut dyn Progress,
    ) -> Result<Vec<Answer>, ServiceError> {
        let start = Instant::now();
        let input = self.client.encrypt_checked(batch)?;
        let (result, times) = self.engine.evaluate(&input, || progress.advance(1))?;
        // As it came: of a refused result, too.
        let receipts = self.client.record(&input, &result, batch.len())?;
        let logits = match self.client.decrypt(&result, batch.len()) {
            Ok(logits) => logits,
            // One result of all samples: none of them has an answer.
            Err(error) if error.spends_key() => {
                let sentence = error.to_string();
                self.renew()?;
                let refused = |receipt: Option<Receipt>| Refused {
                    error: ClientError::Batch {
                        sentence: sentence.clone(),
                    },
                    receipt: receipt.map(Box::new),
                };
                let receipts = receipts.into_iter();
                return Ok(receipts.map(|receipt| Err(refused(receipt))).collect());
            }
            Err(error) => return Err(error.into()),
        };
        let count = batch.len() as u64;
        let wall = start.elapsed() / count as u32;
        let each = logits.into_iter().zip(clear.iter().cloned()).zip(batch);
        let client = &self.client;
        let compared =
            each.map(|((logits, plain), &sample)| client.compared(sample, logits, plain));
        let logits: Vec<Compared> = compared.collect::<Result<_, _>>()?;
        let published = self.publish(&result, &logits)?;
        let stages = stages(&times, count);
        let mut answers = Vec::with_capacity(batch.len());
        let each = logits.into_iter().zip(published).zip(receipts);
        let usual = self.deployment.logit_error;
        for (index, ((compared, published), receipt)) in (0..).zip(each) {
            let keys_up = std::mem::take(&mut self.keys);
            // What does not divide evenly belongs to the first.
            let share =
                |bytes: usize| bytes as u64 / count + u64::from(index < bytes as u64 % count);
            answers.push(Ok(Inference {
                allowed_error: compared.own_limit(usual),
                beyond_training: compared.allowed.beyond_training,
                logits: compared.logits,
                plain: compared.plain,
                bytes: Bytes {
                    up: share(input.len()) + keys_up,
                    down: share(result.len()),
                    keys_up,
                },
                board: "inproc".to_owned(),
                unit: TimeUnit::Nanoseconds,
                memory: self.memory,
                stages: stages.clone(),
                busy: None,
                trace: None,
                wall,
                cpu: Some(times.cpu / count as u32),
                audited: false,
                handed_on: HandedOn { published, receipt },
                padded: None,
            }));
        }
        Ok(answers)
    }

    /// Draws new keys.
    fn renew(&mut self) -> Result<(), ServiceError> {
        let plan = self.client.plan().clone();
        self.client.renew()?;
        let keys = self.client.switching_keys()?;
        self.keys = keys.len() as u64;
        self.engine = BatchEngine::new(plan, &keys)?;
        Ok(())
    }
}

impl Service for Batches<'_> {
    fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    fn samples(&self) -> usize {
        self.deployment.params.slots()
    }

    fn infer(
        &mut self,
        samples: &[Sample<'_>],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Answer>, ServiceError> {
        // Those that the plan has no room for take no slot.
        let client = &self.client;
        let checked = samples.par_iter().map(|&sample| client.checked(sample));
        let checked: Vec<_> = checked.collect();
        let mut answers = Vec::with_capacity(samples.len());
        let (mut fit, mut clear) = (Vec::new(), Vec::new());
        for (&sample, checked) in samples.iter().zip(checked) {
            answers.push(match checked {
                Ok(logits) => {
                    fit.push(sample);
                    clear.push(logits);
                    None
                }
                Err(error) => Some(Err(error.into())),
            });
        }
        let size = self.samples();
        let batches = fit.chunks(size).zip(clear.chunks(size));
        progress.start((batches.len() * self.deployment.steps.len()) as u64);
        let mut of_batches = Vec::with_capacity(fit.len());
        for batch in batches {
            of_batches.append(&mut self.batch(batch, progress)?);
        }
        let mut of_batches = of_batches.into_iter();
        let filled = answers
            .into_iter()
            .map(|answer| answer.or_else(|| of_batches.next()));
        // As many as fit came back.
        Ok(filled.flatten().collect())
    }

    fn publications(&self) -> Option<(u32, u32)> {
        self.client.publications()
    }

    fn has_retired(&self) -> bool {
        self.client.has_retired()
    }
}

/// An evaluator at the other end of a link.
///
/// Evaluation is deterministic, the same bit for bit on a board and here, and needs no
/// secret. So a share of the answers, chosen where the evaluator cannot see it, is
/// evaluated again and compared to the bit: of `k` answers that are not what was asked
/// for, one is found with a probability of `1 - (1 - share)^k`.
pub struct Remote<'m, T: Transport = Box<dyn Transport>> {
    client: Client<'m>,
    /// Nothing after a device could not be opened again.
    link: Option<Connection<T>>,
    deployment: Deployment,
    audit: f64,
    /// With the client's keys, once it is needed.
    engine: Option<Engine>,
    open: Option<Opener<'m, T>>,
    /// Something came from the device at some time.
    is_heard: bool,
    /// It was opened more than once.
    is_reopened: bool,
}

/// Opens a device again.
type Opener<'m, T> = Box<dyn FnMut() -> Result<Connection<T>, ServiceError> + Send + 'm>;

impl<'m, T: Transport> Remote<'m, T> {
    /// Makes keys for an evaluator that has the plan. A share `audit` of its answers is
    /// evaluated again.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn new(
        plan: Plan<'m>,
        link: Connection<T>,
        trace: bool,
        audit: f64,
    ) -> Result<Self, ServiceError> {
        Self::with_client(Client::new(plan)?, link, trace, audit)
    }

    /// As [`Self::new`], for a client that has its keys.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn with_client(
        mut client: Client<'m>,
        link: Connection<T>,
        trace: bool,
        audit: f64,
    ) -> Result<Self, ServiceError> {
        client.set_tracing(trace);
        Ok(Self {
            deployment: deployment_of(client.plan())?,
            client,
            link: Some(link),
            audit,
            engine: None,
            open: None,
            is_heard: false,
            is_reopened: false,
        })
    }

    /// As [`InMemory::handing_on`].
    ///
    /// # Errors
    /// As [`Client::publish_by`].
    pub fn handing_on(
        mut self,
        publish: Option<PublicationTerms>,
        receipts: Option<Recorder>,
    ) -> Result<Self, ServiceError> {
        hand_on(&mut self.client, publish, receipts)?;
        Ok(self)
    }

    /// With a way to open the device again after it failed. What it has not kept
    /// is sent again, so it needs nothing else.
    #[must_use]
    pub fn reopened_by(
        mut self,
        open: impl FnMut() -> Result<Connection<T>, ServiceError> + Send + 'm,
    ) -> Self {
        self.open = Some(Box::new(open));
        self
    }

    /// Changes how long the device may take.
    pub fn limit(&mut self, limits: Limits) {
        if let Some(patience) = limits.patience {
            self.client.set_patience(patience);
        }
        if let Some(deadline) = limits.deadline {
            self.client.set_deadline(deadline);
        }
    }

    /// From now on pads the link, or does not.
    pub fn pad(&mut self, padding: Option<Padding>) {
        self.client.set_padding(padding);
    }

    /// One sample, from its encryption to its logits.
    fn answer(
        &mut self,
        sample: Sample<'_>,
        progress: &mut dyn Progress,
    ) -> Result<Inference, ServiceError> {
        if self.client.is_spent() {
            self.client.renew()?;
            self.engine = None;
        }
        if self.link.is_none() {
            self.reopen()?;
        }
        let Some(link) = &mut self.link else {
            return Err(ServiceError::Closed);
        };
        let request = self.client.encrypt(sample)?;
        let (mut inference, result) = self.client.infer_encrypted(link, &request, progress)?;
        // Chosen after the answer has come.
        let mut chosen = [0; 8];
        getrandom::fill(&mut chosen).map_err(ClientError::Random)?;
        let chosen = u64::from_le_bytes(chosen) as f64 / u64::MAX as f64;
        let is_audited = chosen < self.audit;
        if is_audited {
            let engine = match &mut self.engine {
                Some(engine) => engine,
                none => none.insert(engine_of(&mut self.client)?.0),
            };
            let (expected, _) = engine.evaluate(&request.bytes(self.deployment.params)?)?;
            if expected != result {
                let device = link.transport().name();
                return Ok(self.client.noted(Err(ClientError::Audit { device }))?);
            }
        }
        let logits = std::mem::take(&mut inference.logits);
        let compared = self.client.compared(&request, sample, logits)?;
        let published = self.client.publish(&request, &result, &compared)?;
        // That a label is missing is seen, too, by whoever made the result; and a key that
        // outlives the process is not used for one who adds something to honest results.
        let is_beyond = match &published {
            None => self.client.is_sealed() && !compared.is_within(),
            Some(published) => matches!(published, Err(PublicationError::Beyond)),
        };
        if !is_audited && is_beyond {
            self.client.spend()?;
        }
        Ok(Inference {
            allowed_error: compared.own_limit(self.deployment.logit_error),
            beyond_training: compared.allowed.beyond_training,
            logits: compared.logits,
            plain: compared.plain,
            audited: is_audited,
            handed_on: HandedOn {
                published,
                receipt: None,
            },
            ..inference
        })
    }
}

impl<T: Transport> Service for Remote<'_, T> {
    fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    fn infer(
        &mut self,
        samples: &[Sample<'_>],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Answer>, ServiceError> {
        let mut answers = Vec::with_capacity(samples.len());
        for &sample in samples {
            let answer = self.answer(sample, progress);
            let link = self.link.as_ref();
            self.is_heard |= link.is_some_and(|link| link.traffic().down > 0);
            answers.push(of_sample(answer, self.client.take_receipt())?);
        }
        Ok(answers)
    }

    fn publications(&self) -> Option<(u32, u32)> {
        self.client.publications()
    }

    fn has_retired(&self) -> bool {
        self.client.has_retired()
    }

    fn is_linked(&self) -> bool {
        true
    }

    /// Who has never said anything is not there. A session that was over before it was
    /// used, as the firmware of another device took long to build, is opened again once.
    fn may_recover(&self, error: &ServiceError) -> bool {
        let is_there = self.is_heard || error.is_of_end() && !self.is_reopened;
        error.is_of_link() && (is_there || !error.is_of_absence())
    }

    fn reopen(&mut self) -> Result<(), ServiceError> {
        if let Some(open) = &mut self.open {
            self.is_reopened = true;
            // A serial port opens once only.
            self.link = None;
            self.link = Some(open()?);
        }
        Ok(())
    }
}
