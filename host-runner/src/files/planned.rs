//! A network planned for steps over files, one sample at a time or in batches.
//!
//! A request is a row of units of equal length, each of one sample or of a batch: input
//! ciphertexts, then the masks of its results. Of one sample the program of a stream adds
//! the mask itself; results of a batch are masked afterwards.

use he_core::Params;
use he_core::ckks::Ciphertext;
use he_core::ckks::evaluator::add;
use he_core::wire;
use he_nn::clear::{self, Allowed, SampleError};
use he_nn::model::{Model, Sample};
use he_nn::plan::batch::BatchPlan;
use he_nn::plan::{LogitError, Packing, Plan, Target, WeightMode};
use he_nn::program::Program;
use sha2::{Digest, Sha256};

use super::heads::Deployed;
use crate::client::{BatchClient, Client, ClientError, Encrypted, Keys, Mask};
use crate::engine::batch::BatchEngine;
use crate::engine::{Engine, EngineError, ciphertext_bytes, failed, objects, read_fresh, refused};
use crate::planning;
use crate::report::text::hex;
use crate::service::ServiceError;

/// A network planned for steps over files.
#[derive(Debug)]
pub struct Planned<'m> {
    pub(super) plan: AnyPlan<'m>,
    pub(super) deployed: Deployed,
}

/// Its plan.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, for the whole of a process"
)]
pub(super) enum AnyPlan<'m> {
    Latency(Plan<'m>, Program<Vec<u8>>),
    Batch(BatchPlan<'m>),
}

impl<'m> Planned<'m> {
    /// Plans a network, under a set that serves if none is named.
    ///
    /// # Errors
    /// [`ServiceError::Plan`].
    pub fn new(
        params: Option<&'static Params>,
        model: Model<'m>,
        packing: Packing,
    ) -> Result<Self, ServiceError> {
        let plan = match packing {
            Packing::Latency => {
                let plan = planning::plan(params, model, WeightMode::Plain, Target::STREAM)?;
                let program = Program::of(&plan)?;
                AnyPlan::Latency(plan, program)
            }
            Packing::Batch => AnyPlan::Batch(planning::batch_plan(params, model)?),
        };
        let set = plan.params();
        Ok(Self {
            deployed: Deployed {
                model: model.name().to_owned(),
                model_crc: model.crc(),
                params: planning::set_name(set),
                params_fingerprint: set.fingerprint(),
                packing,
                plan: hex(&plan.digest()),
            },
            plan,
        })
    }

    /// The parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.plan.params()
    }

    /// The network.
    #[must_use]
    pub const fn model(&self) -> &Model<'m> {
        match &self.plan {
            AnyPlan::Latency(plan, _) => plan.model(),
            AnyPlan::Batch(plan) => plan.model(),
        }
    }

    /// What the plan says of a logit's error.
    #[must_use]
    pub const fn logit_error(&self) -> LogitError {
        match &self.plan {
            AnyPlan::Latency(plan, _) => plan.logit_error(),
            AnyPlan::Batch(plan) => plan.logit_error(),
        }
    }

    /// The logits of a sample in the clear, if the plan has room for its values.
    pub(super) fn checked(&self, sample: Sample<'_>) -> Result<Vec<f64>, SampleError> {
        match &self.plan {
            AnyPlan::Latency(plan, _) => clear::checked(plan, sample),
            AnyPlan::Batch(plan) => clear::checked_in_batch(plan, sample),
        }
    }

    /// How far a sample's logits may be from those in the clear, where they are by `error`
    /// (`clear::allowed_alone`, `clear::allowed_in_batch`).
    pub(super) fn allowed(&self, sample: Sample<'_>, error: f64) -> Result<Allowed, SampleError> {
        match &self.plan {
            AnyPlan::Latency(plan, _) => Ok(clear::allowed_alone(plan, sample, error)?),
            AnyPlan::Batch(plan) => Ok(clear::allowed_in_batch(plan, sample, error)?),
        }
    }

    /// Samples of a unit at most.
    pub(super) const fn unit(&self) -> usize {
        match &self.plan {
            AnyPlan::Latency(..) => 1,
            AnyPlan::Batch(plan) => plan.samples(),
        }
    }

    /// Results of a unit, and their level.
    pub(super) fn results(&self) -> (usize, usize) {
        match &self.plan {
            AnyPlan::Latency(plan, _) => (1, plan.output_level()),
            AnyPlan::Batch(plan) => (plan.model().outputs(), plan.output_level()),
        }
    }

    /// Bytes of the results of a unit.
    pub(super) fn result_bytes(&self) -> Result<usize, EngineError> {
        let (results, level) = self.results();
        Ok(results * ciphertext_bytes(self.params(), level)?)
    }

    /// Bytes that the masks of a unit are kept in.
    pub(super) fn mask_bytes(&self) -> usize {
        let (results, _) = self.results();
        results * Mask::BYTES
    }

    /// The client's side, with its keys.
    pub(super) fn sender(&self, keys: Keys) -> Result<Sender<'m>, ClientError> {
        Ok(match &self.plan {
            AnyPlan::Latency(plan, _) => Sender::Latency(Client::with_keys(plan.clone(), keys)?),
            AnyPlan::Batch(plan) => Sender::Batch(BatchClient::with_keys(plan.clone(), keys)),
        })
    }

    /// The evaluator's side, with the client's switching keys.
    pub(super) fn evaluator(self, keys: &[u8]) -> Result<Evaluator<'m>, EngineError> {
        Ok(match self.plan {
            AnyPlan::Latency(plan, program) => {
                Evaluator::Latency(Engine::new(program, Some(plan.model()), keys, &[])?)
            }
            AnyPlan::Batch(plan) => Evaluator::Batch(BatchEngine::new(plan.clone(), keys)?, plan),
        })
    }
}

impl AnyPlan<'_> {
    const fn params(&self) -> &'static Params {
        match self {
            Self::Latency(plan, _) => plan.params(),
            Self::Batch(plan) => plan.params(),
        }
    }

    /// Of what is done in which order, at which levels and scales, with which model.
    fn digest(&self) -> [u8; 32] {
        match self {
            Self::Latency(_, program) => Sha256::digest(program.bytes()).into(),
            Self::Batch(plan) => Sha256::digest(planning::batch_bytes(plan)).into(),
        }
    }
}

/// The client's side.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, for the whole of a process"
)]
pub(super) enum Sender<'m> {
    Latency(Client<'m>),
    Batch(BatchClient<'m>),
}

impl Sender<'_> {
    /// What the evaluator is given once.
    pub(super) fn switching_keys(&mut self) -> Result<Vec<u8>, ClientError> {
        match self {
            Self::Latency(client) => client.switching_keys(),
            Self::Batch(client) => client.switching_keys(),
        }
    }

    /// A unit, and the masks of its results.
    pub(super) fn encrypt(
        &mut self,
        samples: &[Sample<'_>],
    ) -> Result<(Vec<u8>, Vec<Mask>), ClientError> {
        match (self, samples) {
            (Self::Latency(client), &[sample]) => {
                let request = client.encrypt(sample)?;
                let bytes = request.bytes(client.plan().params())?;
                Ok((bytes, request.mask().into_iter().collect()))
            }
            (Self::Latency(_), _) => Err(ClientError::Count {
                what: "samples",
                expected: 1,
                got: samples.len(),
            }),
            (Self::Batch(client), _) => {
                let mut bytes = client.encrypt(samples)?;
                let (of_masks, masks) = client.masks()?;
                bytes.extend_from_slice(&of_masks);
                Ok((bytes, masks))
            }
        }
    }

    /// The logits of each sample of a unit.
    pub(super) fn decrypt(
        &mut self,
        bytes: &[u8],
        masks: &[Mask],
        samples: usize,
    ) -> Result<Vec<Vec<f64>>, ClientError> {
        match self {
            Self::Latency(client) => {
                let awaited = Encrypted::awaited(masks.first().copied());
                Ok(vec![client.decrypt(&awaited, bytes)?])
            }
            Self::Batch(client) => client.decrypt_masked(bytes, masks, samples),
        }
    }
}

/// The evaluator's side.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one, for the whole of a process"
)]
pub(super) enum Evaluator<'m> {
    Latency(Engine),
    Batch(BatchEngine<'m>, BatchPlan<'m>),
}

impl Evaluator<'_> {
    /// The masked results of a unit.
    pub(super) fn evaluate(&mut self, unit: &[u8]) -> Result<Vec<u8>, EngineError> {
        match self {
            Self::Latency(engine) => Ok(engine.evaluate(unit)?.0),
            Self::Batch(engine, plan) => {
                let params = plan.params();
                let what = "an input ciphertext";
                let parts = objects(params, unit).map_err(refused(what))?;
                let inputs = plan.model().inputs();
                let expected = inputs + plan.model().outputs();
                if parts.len() != expected {
                    return Err(EngineError::Count {
                        what: "input ciphertexts",
                        expected,
                        got: parts.len(),
                    });
                }
                let (samples, masks) = parts.split_at(inputs);
                let length = samples.iter().map(|object| object.len()).sum();
                let (inputs, _) = unit.split_at(length);
                let (results, _) = engine.evaluate(inputs, || ())?;
                masked(plan, &results, masks)
            }
        }
    }
}

/// Adds a mask to each result of a batch.
fn masked(plan: &BatchPlan<'_>, results: &[u8], masks: &[&[u8]]) -> Result<Vec<u8>, EngineError> {
    let (params, level, scale) = (plan.params(), plan.output_level(), plan.output_scale());
    let (what, limbs) = ("a mask", || vec![0; (level + 1) * params.n()]);
    let size = ciphertext_bytes(params, level)?;
    let mut out = vec![0; results.len()];
    let each = results.chunks_exact(size).zip(out.chunks_exact_mut(size));
    for ((result, out), mask) in each.zip(masks) {
        let mut result: Ciphertext<Vec<u32>> =
            wire::read_ciphertext(params, result, [limbs(), limbs()]).map_err(failed(what))?;
        let mask = read_fresh(params, mask, level, scale, what)?;
        add(params, &mut result, &mask).map_err(failed(what))?;
        wire::write_ciphertext(params, &result, out).map_err(failed("writing"))?;
    }
    Ok(out)
}
