//! An inference of the engine in memory, with every bit of its memory in reach.
//!
//! Flips come after what a checksum covers: a model is read with its CRC-32 computed
//! anew, as if its memory had changed after it was read.

use attacks::TargetError;
use attacks::ckks::bit_flips::{Exposed, Fate, Place};
use crc::{CRC_32_ISO_HDLC, Crc};
use he_core::Params;
use he_nn::bundled;
use he_nn::clear;
use he_nn::model::{Model, Sample};
use he_nn::plan::{Target as PlanTarget, WeightMode};
use he_nn::program::Program;

use crate::client::{Client, Encrypted};
use crate::engine::Engine;
use crate::planning;
use crate::service::{ServiceError, engine_of};

/// The network whose inferences are disturbed.
const NETWORK: &str = "mnist-mlp64";

/// Bytes of the checksum that ends a model.
const CRC_BYTES: usize = 4;

/// Client and engine, with an honest request and its result.
pub(super) struct ExposedInference {
    name: String,
    model: &'static [u8],
    client: Client<'static>,
    engine: Engine,
    request: Encrypted,
    upload: Vec<u8>,
    keys: Vec<u8>,
    result: Vec<u8>,
    label: usize,
}

impl ExposedInference {
    /// Of the first bundled digit.
    pub(super) fn new() -> Result<Option<Self>, ServiceError> {
        let (Some(file), Ok(digits)) = (bundled::model(NETWORK), bundled::digits()) else {
            return Ok(None);
        };
        let Some(image) = digits.images.first() else {
            return Ok(None);
        };
        let Ok(model) = Model::parse(file) else {
            return Ok(None);
        };
        let plan = planning::plan(None, model, WeightMode::Plain, PlanTarget::Host)?;
        let mut client = Client::new(plan)?;
        let (mut engine, _) = engine_of(&mut client)?;
        let keys = client.switching_keys()?;
        let request = client.encrypt(Sample::from(image))?;
        let upload = request.bytes(client.plan().params())?;
        let (result, _) = engine.evaluate(&upload)?;
        let label = clear::class(&client.decrypt(&request, &result)?);
        Ok(Some(Self {
            name: format!("{NETWORK}, memory"),
            model: file,
            client,
            engine,
            request,
            upload,
            keys,
            result,
            label,
        }))
    }

    /// The result with a flip; none where what was flipped is refused as it is read.
    fn result_of(&mut self, place: Place, bit: u64) -> Result<Option<Vec<u8>>, ServiceError> {
        let flip = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
            bytes
        };
        let evaluated = match place {
            Place::Upload => self.engine.evaluate(&flip(&self.upload)),
            Place::Result => return Ok(Some(flip(&self.result))),
            Place::Keys | Place::Weights => {
                let keys = match place {
                    Place::Keys => flip(&self.keys),
                    _ => self.keys.clone(),
                };
                let mut file = self.model.to_vec();
                if place == Place::Weights {
                    file = flip(&file);
                    if let Some((content, tail)) = file.split_last_chunk_mut::<CRC_BYTES>() {
                        let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC);
                        *tail = crc.checksum(content).to_le_bytes();
                    }
                }
                let Ok(model) = Model::parse(&file) else {
                    return Ok(None);
                };
                let program =
                    Program::of(self.client.plan()).map_err(crate::client::ClientError::from)?;
                match Engine::new(program, Some(&model), &keys, &[]) {
                    Ok(mut engine) => engine.evaluate(&self.upload),
                    Err(_) => return Ok(None),
                }
            }
        };
        Ok(evaluated.ok().map(|(result, _)| result))
    }
}

impl Exposed for ExposedInference {
    fn name(&self) -> &str {
        &self.name
    }

    fn params(&self) -> &'static Params {
        self.client.plan().params()
    }

    fn bits(&self, place: Place) -> u64 {
        let bytes = match place {
            Place::Upload => self.upload.len(),
            Place::Keys => self.keys.len(),
            Place::Weights => self.model.len().saturating_sub(CRC_BYTES),
            Place::Result => self.result.len(),
        };
        8 * bytes as u64
    }

    fn honest(&self) -> usize {
        self.label
    }

    fn flipped(&mut self, place: Place, bit: u64) -> Result<Fate, TargetError> {
        let result = self
            .result_of(place, bit)
            .map_err(|source| TargetError::Failed {
                target: self.name.clone(),
                source: Box::new(source),
            })?;
        let Some(result) = result else {
            return Ok(Fate {
                unchecked: None,
                checked: None,
                reproduced: false,
            });
        };
        let unchecked = self.client.decrypt_any(&self.request, &result).ok();
        let checked = self.client.decrypt(&self.request, &result).ok();
        Ok(Fate {
            unchecked: unchecked.map(|logits| clear::class(&logits)),
            checked: checked.map(|logits| clear::class(&logits)),
            reproduced: result == self.result,
        })
    }
}
