//! The encrypted deployment as a target of attacks: through the real client and the
//! real evaluator, as whoever attacks it would reach it.
//!
//! An attacker's client is not the honest one: it encrypts any numbers, so samples are
//! not checked against the plan, and what wraps around comes back as it is.

mod exposed;
pub mod sink;

use std::time::Instant;

use attacks::ckks::bit_flips::Exposed;
use attacks::network::Differentiable;
use attacks::record::Scale;
use attacks::target::{
    About, Access, Activation, Answers, Clock, Denied, Evaluation, Exchange, Grants, Rows, Time,
};
use attacks::{Deploy, Made, Target, TargetError};
use he_core::params::{self, Params};
use he_nn::bundled;
use he_nn::clear::{self, Calibrated};
use he_nn::model::{Input, Layer, Model, ModelError, Sample};
use he_nn::plan::batch::BatchPlan;
use he_nn::plan::{Plan, Target as PlanTarget, WeightMode};
use rayon::prelude::*;

use crate::client::{BatchClient, Client};
use crate::engine::Engine;
use crate::engine::batch::BatchEngine;
use crate::planning;
use crate::service::{ServiceError, engine_of};

/// An evaluator in this process, in batches where that is possible.
pub struct Deployment {
    about: About,
    grants: Grants,
    network: Option<Differentiable>,
    model: Model<'static>,
    weights: WeightMode,
    /// Queries from which on a batch is quicker, however few of its slots they fill; none
    /// where batches cannot be, as with encrypted weights.
    worth_a_batch: Option<usize>,
    /// One sample at a time: for what is asked of each alone, and for encrypted weights.
    /// Made when they are first asked, as most attacks take one of the two ways; several
    /// answer on a thread each, where nothing is timed.
    alone: Vec<Alone>,
    /// As many samples at a time as there are slots.
    batches: Option<Batches>,
}

type Batches = (BatchClient<'static>, BatchEngine<'static>);

struct Alone {
    client: Client<'static>,
    engine: Engine,
}

/// Networks that are deployed with encrypted weights too, one per data set: every query
/// is evaluated alone there. A quick run takes the first.
const ENCRYPTED_WEIGHTS: [&str; 2] = ["mnist-mlp64", "fashion-cryptonets"];

/// Networks of Chen and Song, who attack none: left out of a quick run.
const NOT_ATTACKED: [&str; 2] = ["mnist-fcnn", "mnist-cnn"];

/// The bundled networks for images that a run attacks.
#[must_use]
pub fn networks(scale: Scale) -> Vec<&'static str> {
    let left_out = |name: &&str| scale == Scale::Quick && NOT_ATTACKED.contains(name);
    let names = bundled::model_names().filter(|name| !left_out(name));
    names
        .filter(|name| {
            let model = bundled::model(name).and_then(|file| Model::parse(file).ok());
            model.is_some_and(|model| !matches!(model.input(), Input::Features { .. }))
        })
        .collect()
}

/// The encrypted deployments of bundled networks that a run attacks: those of
/// polynomial activations.
#[must_use]
pub fn deployments(scale: Scale) -> Vec<(&'static str, WeightMode)> {
    let mut all = Vec::new();
    for name in networks(scale) {
        let model = bundled::model(name).and_then(|file| Model::parse(file).ok());
        let relu = |model: Model<'_>| {
            model
                .layers()
                .any(|view| matches!(view.layer, Layer::Relu { .. }))
        };
        if model.is_none_or(relu) {
            continue;
        }
        all.push((name, WeightMode::Plain));
        let encrypted = match scale {
            Scale::Quick => &ENCRYPTED_WEIGHTS[..1],
            Scale::Full => &ENCRYPTED_WEIGHTS,
        };
        if encrypted.contains(&name) {
            all.push((name, WeightMode::Encrypted));
        }
    }
    all
}

/// The parameter sets that a run attacks the scheme on: the smallest, the device's, and
/// one with the levels and the room for all that attackers evaluate.
#[must_use]
pub fn schemes(scale: Scale) -> &'static [&'static Params] {
    static QUICK: [&Params; 3] = [
        &params::N2048_DEPTH1,
        &params::N4096_DEPTH3,
        &params::N8192_DEPTH5,
    ];
    match scale {
        Scale::Quick => &QUICK,
        Scale::Full => &params::SETS,
    }
}

/// The name of a deployment.
#[must_use]
pub fn name(network: &str, weights: WeightMode) -> String {
    let kind = match weights {
        WeightMode::Plain => "encrypted",
        WeightMode::Encrypted => "encrypted-weights",
    };
    format!("{network}, {kind}")
}

impl Deployment {
    /// Deploys a network. An attacker inside the server sees weights in plain, and not
    /// those that are encrypted.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn new(
        model: Model<'static>,
        dataset: &str,
        weights: WeightMode,
    ) -> Result<Self, ServiceError> {
        // What does not fit is refused now, and not in the middle of an attack.
        let plan = planning::plan(None, model, weights, PlanTarget::Host)?;
        let encrypted = weights == WeightMode::Encrypted;
        let worth_a_batch = match encrypted {
            true => None,
            false => Some(worth(&planning::batch_plan(None, model)?, &plan)),
        };
        let mut seen = vec![
            Access::Labels,
            Access::Scores,
            Access::Decrypted,
            Access::Ciphertexts,
            Access::Timing,
        ];
        let network = match encrypted {
            true => None,
            false => Differentiable::from_model(&model).ok(),
        };
        if network.is_some() {
            seen.push(Access::Weights);
        }
        Ok(Self {
            about: About {
                name: name(model.name(), weights),
                dataset: dataset.to_owned(),
                inputs: model.inputs(),
                classes: model.outputs(),
                activation: Activation::Polynomial,
                evaluation: if encrypted {
                    Evaluation::EncryptedWeights
                } else {
                    Evaluation::Encrypted
                },
            },
            grants: Grants::of(&seen),
            network,
            model,
            weights,
            worth_a_batch,
            alone: Vec::new(),
            batches: None,
        })
    }

    /// So many, or one where that is none.
    fn alone(&mut self, count: usize) -> Result<&mut [Alone], ServiceError> {
        while self.alone.len() < count.max(1) {
            self.alone.push(Alone::new(self.model, self.weights)?);
        }
        Ok(&mut self.alone)
    }

    /// The logits of queries, as decryption gives them.
    fn decrypted(&mut self, queries: &Rows) -> Result<Vec<Vec<f64>>, ServiceError> {
        if self.worth_a_batch.is_none_or(|least| queries.len() < least) {
            let rows: Vec<&[f64]> = queries.iter().collect();
            let share = rows.len().div_ceil(rayon::current_num_threads()).max(1);
            let alone = self.alone(rows.len().div_ceil(share))?;
            let parts: Vec<Vec<Vec<f64>>> = alone
                .par_iter_mut()
                .zip(rows.par_chunks(share))
                .map(|(alone, rows)| {
                    let logits = rows.iter().map(|query| Ok(alone.answer(query)?.logits));
                    logits.collect()
                })
                .collect::<Result<_, ServiceError>>()?;
            return Ok(parts.concat());
        }
        let (client, engine) = match &mut self.batches {
            Some(batches) => batches,
            none => none.insert(batches(self.model)?),
        };
        let rows: Vec<&[f64]> = queries.iter().collect();
        let mut logits = Vec::with_capacity(rows.len());
        for batch in rows.chunks(client.plan().samples()) {
            let input = client.encrypt_values(batch)?;
            let (result, _) = engine.evaluate(&input, || {})?;
            logits.append(&mut client.decrypt_any(&result, batch.len())?);
        }
        Ok(logits)
    }
}

/// Deploys what attacks train, in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deployer;

/// The file of a network, its ranges measured on samples of its kind.
fn file_of(made: Made<'_>) -> Result<Vec<u8>, ModelError> {
    let pixel = |&value: &f64| (value * 255.0).round() as u8;
    let images = made.samples.iter();
    let images: Vec<Vec<u8>> = images.map(|row| row.iter().map(pixel).collect()).collect();
    // Ranges do not depend on labels.
    let samples = images.iter().map(|image| (Sample::Pixels(image), 0));
    let Calibrated { file, .. } = clear::calibrated(made.network, samples, std::iter::empty())?;
    Ok(file)
}

impl Deploy for Deployer {
    fn deploy(
        &self,
        made: Made<'_>,
        evaluation: Evaluation,
    ) -> Result<Box<dyn Target>, TargetError> {
        let name = format!("{}, encrypted", made.name);
        let failed = |source: ServiceError| TargetError::Failed {
            target: name.clone(),
            source: Box::new(source),
        };
        let of_model = |source: ModelError| TargetError::Failed {
            target: name.clone(),
            source: Box::new(source),
        };
        // A deployment borrows its model for the life of the process, as those of
        // bundled networks do. A run trains some dozen, of 50 KB each.
        let file: &'static [u8] = Vec::leak(file_of(made).map_err(of_model)?);
        let model = Model::parse(file).map_err(of_model)?;
        let weights = match evaluation {
            Evaluation::Clear | Evaluation::Encrypted => WeightMode::Plain,
            Evaluation::EncryptedWeights => WeightMode::Encrypted,
        };
        let deployment = Deployment::new(model, made.dataset, weights).map_err(failed)?;
        Ok(Box::new(deployment))
    }

    fn exposed(&self) -> Result<Option<Box<dyn Exposed>>, TargetError> {
        let exposed = exposed::ExposedInference::new().map_err(|source| TargetError::Failed {
            target: "an inference in memory".to_owned(),
            source: Box::new(source),
        })?;
        Ok(exposed.map(|exposed| Box::new(exposed) as Box<dyn Exposed>))
    }
}

/// What one query alone shows.
struct Shown {
    logits: Vec<f64>,
    exchange: Exchange,
    time: Time,
}

impl Alone {
    fn new(model: Model<'static>, weights: WeightMode) -> Result<Self, ServiceError> {
        let plan = planning::plan(None, model, weights, PlanTarget::Host)?;
        let mut client = Client::new(plan)?;
        let (engine, _) = engine_of(&mut client)?;
        Ok(Self { client, engine })
    }

    fn answer(&mut self, query: &[f64]) -> Result<Shown, ServiceError> {
        let request = self.client.encrypt_values(query)?;
        let up = request.bytes(self.client.plan().params())?;
        let start = Instant::now();
        let (down, _) = self.engine.evaluate(&up)?;
        let value = start.elapsed().as_nanos() as u64;
        let logits = self.client.decrypt_any(&request, &down)?;
        Ok(Shown {
            logits,
            exchange: Exchange { up, down },
            time: Time {
                value,
                clock: Clock::Nanoseconds,
            },
        })
    }
}

/// How many queries alone take as long as a batch, by what the plans state.
fn worth(batch: &BatchPlan<'_>, alone: &Plan<'_>) -> usize {
    let [batch, alone] = [
        (batch.passes(), batch.params()),
        (alone.total_cost(), alone.params()),
    ]
    .map(|(passes, params)| passes * params.n());
    batch.div_ceil(alone.max(1))
}

fn batches(model: Model<'static>) -> Result<Batches, ServiceError> {
    let plan = planning::batch_plan(None, model)?;
    let mut client = BatchClient::new(plan.clone())?;
    let keys = client.switching_keys()?;
    Ok((client, BatchEngine::new(plan, &keys)?))
}

/// One at a time where each is looked at, otherwise in batches.
fn needs_each(asked: Grants) -> bool {
    asked.contains(Access::Ciphertexts) || asked.contains(Access::Timing)
}

impl Target for Deployment {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        self.grants
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let name = self.about.name.clone();
        let failed = |source: ServiceError| TargetError::Failed {
            target: name.clone(),
            source: Box::new(source),
        };
        let mut answers = Answers::default();
        let logits = if needs_each(asked) {
            let mut logits = Vec::with_capacity(queries.len());
            // The first alone, so that all times are of one.
            for alone in self.alone(1).map_err(&failed)?.iter_mut().take(1) {
                for query in queries.iter() {
                    let shown = alone.answer(query).map_err(&failed)?;
                    logits.push(shown.logits);
                    if asked.contains(Access::Ciphertexts) {
                        answers.exchanges.push(shown.exchange);
                    }
                    if asked.contains(Access::Timing) {
                        answers.times.push(shown.time);
                    }
                }
            }
            logits
        } else {
            self.decrypted(queries).map_err(&failed)?
        };
        if asked.contains(Access::Labels) {
            let labels = logits.iter().map(|row| clear::class(row) as u8);
            answers.labels = labels.collect();
        }
        let rows = Rows::new(self.about.classes, logits.concat());
        if asked.contains(Access::Scores) {
            answers.scores = rows.clone();
        }
        if asked.contains(Access::Decrypted) {
            answers.decrypted = rows;
        }
        Ok(answers)
    }

    fn weights(&self) -> Result<Differentiable, TargetError> {
        self.network.clone().ok_or_else(|| {
            TargetError::Denied(Denied {
                access: Access::Weights,
                target: self.about.name.clone(),
            })
        })
    }
}

#[cfg(test)]
mod tests;
