//! Where samples are classified: one trait over an evaluator in memory, in batches, or
//! at the other end of a link.

use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use he_core::Params;
use he_nn::boards;
use he_nn::message::{Memory, Stage, TimeUnit};
use he_nn::model::{Model, Sample};
use he_nn::plan::batch::BatchPlan;
use he_nn::plan::{LogitError, Packing, Plan, PlanError, Target, WeightMode};
use he_nn::program::Program;
use he_nn::progress::Progress;

use crate::client::{BatchClient, Bytes, Client, ClientError, Inference};
use crate::device::firmware_build::FirmwareError;
use crate::device::{Connection, Device, DeviceError, Opening, Transport};
use crate::engine::batch::BatchEngine;
use crate::engine::{Engine, EngineError, Times, batch, latency};
use crate::evaluator::{self, EvaluatorError};
use crate::planning;
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
    /// A board nobody knows.
    #[error(transparent)]
    Board(#[from] boards::UnknownBoard),
    /// A way of running that there is not.
    #[error("there is no {what}: use {instead}")]
    Unserved {
        /// What was asked for.
        what: &'static str,
        /// What there is.
        instead: &'static str,
    },
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
    /// How values are laid out.
    pub packing: Packing,
    /// The plan's largest error of a logit.
    pub logit_error: LogitError,
    /// The steps of the plan.
    pub steps: Vec<StepInfo>,
    /// The program, where one sample is evaluated at a time.
    pub program: Option<Program<Vec<u8>>>,
}

/// Samples in, inferences out.
pub trait Service {
    /// What is evaluated, and how.
    fn deployment(&self) -> &Deployment;

    /// Samples that one run serves at most.
    fn samples(&self) -> usize {
        1
    }

    /// Classifies samples, an inference each, in order. What a run of several takes is
    /// shared among them.
    ///
    /// # Errors
    /// [`ServiceError`] of the first that fails.
    fn infer(
        &mut self,
        samples: &[Sample<'_>],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Inference>, ServiceError>;
}

/// What is asked of a service.
pub struct Request<'a> {
    /// Where the evaluator runs.
    pub device: &'a Device,
    /// The parameter set; one that serves if left out.
    pub params: Option<&'static Params>,
    /// How weights are held.
    pub weights: WeightMode,
    /// How values are laid out.
    pub packing: Packing,
    /// Whether inferences are traced.
    pub trace: bool,
    /// How a device is opened.
    pub opening: Opening<'a>,
}

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
        weights,
        packing,
        trace,
        opening,
    } = request;
    match (packing, device) {
        (Packing::Batch, _) if trace => Err(ServiceError::Unserved {
            what: "trace of batches",
            instead: "--packing latency",
        }),
        (Packing::Batch, Device::InProcess) => {
            if weights == WeightMode::Encrypted {
                return Err(planning::encrypted_batch(&model).into());
            }
            Ok(Box::new(Batches::new(planning::batch_plan(
                params, model,
            )?)?))
        }
        (Packing::Batch, _) => Err(ServiceError::Unserved {
            what: "batch packing on a device",
            instead: "--device inproc",
        }),
        (Packing::Latency, Device::InProcess) if !trace => {
            let plan = planning::plan(params, model, weights, Target::Host)?;
            Ok(Box::new(InMemory::new(plan)?))
        }
        (Packing::Latency, Device::InProcess) => {
            // What is traced is the session of a board, in a thread of this process.
            let plan = planning::plan(params, model, weights, Target::STREAM)?;
            let link = evaluator::in_process(&plan)?;
            let link: Box<dyn Transport> = Box::new(link);
            Ok(Box::new(Remote::new(plan, Connection::new(link), trace)?))
        }
        (Packing::Latency, _) => {
            let (target, link) = opening.begin(device)?;
            let plan = planning::plan(params, model, weights, target)?;
            let link = match link {
                Some(link) => link,
                None => opening.start(device, plan.params(), weights, trace)?,
            };
            Ok(Box::new(Remote::new(plan, link, trace)?))
        }
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
        let (keys, weights) = (client.switching_keys()?, client.weights()?);
        let plan = client.plan();
        let program = Program::of(plan)?;
        let memory = in_memory(latency::memory(&program));
        let engine = Engine::new(program, Some(plan.model()), &keys, &weights)?;
        Ok(Self {
            deployment: deployment_of(plan)?,
            client,
            engine,
            memory,
            keys: (keys.len() + weights.len()) as u64,
        })
    }
}

fn in_memory(bytes: usize) -> Memory {
    Memory {
        static_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        stack_peak_bytes: 0,
    }
}

fn deployment_of(plan: &Plan<'_>) -> Result<Deployment, EngineError> {
    Ok(Deployment {
        params: plan.params(),
        level: plan.input_level(),
        weights: plan.weights(),
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
        progress: &mut dyn Progress,
    ) -> Result<Vec<Inference>, ServiceError> {
        progress.start(samples.len() as u64);
        let mut inferences = Vec::with_capacity(samples.len());
        for &sample in samples {
            let start = Instant::now();
            let input = self.client.encrypt(sample)?;
            let cpu = ThreadTime::now();
            let (result, times) = self.engine.evaluate(&input)?;
            let cpu = cpu.elapsed();
            let logits = self.client.decrypt(&result)?;
            let keys_up = std::mem::take(&mut self.keys);
            inferences.push(Inference {
                logits,
                bytes: Bytes {
                    up: input.len() as u64 + keys_up,
                    down: result.len() as u64,
                    keys_up,
                },
                board: "inproc".to_owned(),
                unit: TimeUnit::Nanoseconds,
                memory: self.memory,
                stages: stages(&times, 1),
                trace: None,
                wall: start.elapsed(),
                cpu: Some(cpu),
            });
            progress.advance(1);
        }
        Ok(inferences)
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
        let mut client = BatchClient::new(plan.clone())?;
        let keys = client.switching_keys()?;
        Ok(Self {
            deployment: Deployment {
                params: plan.params(),
                level: plan.input_level(),
                weights: WeightMode::Plain,
                packing: Packing::Batch,
                logit_error: plan.logit_error(),
                steps: steps::of_batch(&plan)?,
                program: None,
            },
            memory: in_memory(batch::memory(&plan)),
            engine: BatchEngine::new(plan, &keys)?,
            client,
            keys: keys.len() as u64,
        })
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
    ) -> Result<Vec<Inference>, ServiceError> {
        let batches = samples.chunks(self.samples());
        progress.start((batches.len() * self.deployment.steps.len()) as u64);
        let mut inferences = Vec::with_capacity(samples.len());
        for batch in batches {
            let start = Instant::now();
            let input = self.client.encrypt(batch)?;
            let cpu = ThreadTime::now();
            let (result, times) = self.engine.evaluate(&input, || progress.advance(1))?;
            let cpu = cpu.elapsed();
            let logits = self.client.decrypt(&result, batch.len())?;
            let count = batch.len() as u64;
            let wall = start.elapsed() / count as u32;
            let stages = stages(&times, count);
            for (index, logits) in (0..).zip(logits) {
                let keys_up = std::mem::take(&mut self.keys);
                // What does not divide evenly belongs to the first.
                let share =
                    |bytes: usize| bytes as u64 / count + u64::from(index < bytes as u64 % count);
                inferences.push(Inference {
                    logits,
                    bytes: Bytes {
                        up: share(input.len()) + keys_up,
                        down: share(result.len()),
                        keys_up,
                    },
                    board: "inproc".to_owned(),
                    unit: TimeUnit::Nanoseconds,
                    memory: self.memory,
                    stages: stages.clone(),
                    trace: None,
                    wall,
                    cpu: Some(cpu / count as u32),
                });
            }
        }
        Ok(inferences)
    }
}

/// An evaluator at the other end of a link.
pub struct Remote<'m, T: Transport = Box<dyn Transport>> {
    client: Client<'m>,
    link: Connection<T>,
    deployment: Deployment,
}

impl<'m, T: Transport> Remote<'m, T> {
    /// Makes keys for an evaluator that has the plan.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn new(plan: Plan<'m>, link: Connection<T>, trace: bool) -> Result<Self, ServiceError> {
        let deployment = deployment_of(&plan)?;
        let mut client = Client::new(plan)?;
        client.set_tracing(trace);
        Ok(Self {
            client,
            link,
            deployment,
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
    ) -> Result<Vec<Inference>, ServiceError> {
        let mut inferences = Vec::with_capacity(samples.len());
        for (done, &sample) in samples.iter().enumerate() {
            progress.note(&format!("sample {} of {}", done + 1, samples.len()));
            inferences.push(self.client.infer(&mut self.link, sample, progress)?);
        }
        Ok(inferences)
    }
}
