//! The client of a circuit whose evaluator is fed by a stream: a board, a thread or
//! a server ([`he_nn::circuit::session`]).

use chacha20::ChaCha20Rng;
use he_core::Params;
use he_core::ckks::encode::encode_complex;
use he_core::rlwe::{self, KeyLimb, SecretKey, SwitchTarget};
use he_nn::circuit::program::{Cursor, Op, Program, Task, Upload};
use he_nn::circuit::{Circuit, CircuitError, Step, Weights};
use he_nn::message::{Item, Request};
use he_nn::model::{Model, Sample};
use std::time::Duration;
use zeroize::Zeroizing;

use super::latency::values_of;
use super::{EngineError, Keys, Matrix, failed};
use crate::client::{
    ClientError, Inference, PATIENCE, PackedKey, Sealed, Terms, Uploads, chunk_of, pack_limbs,
};
use crate::device::{Connection, DeviceError, Transport};
use crate::evaluator;

/// Why there is no result. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The conversation failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Encryption failed, or the sample does not fit.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<DeviceError> for StreamError {
    fn from(error: DeviceError) -> Self {
        Self::Client(error.into())
    }
}

/// Plans a network for an evaluator that is fed by a stream, under the first set
/// that serves or the one that is named.
///
/// # Errors
/// [`CircuitError`] of the last set.
pub fn plan<'m>(
    params: Option<&'static Params>,
    model: Model<'m>,
    weights: Weights,
) -> Result<(Circuit<'m>, Program), CircuitError> {
    // Whatever the set.
    if let Some(view) = model.layers().find(|view| view.layer.is_polynomial()) {
        return Err(CircuitError::Activation { layer: view.index });
    }
    let under = |params| {
        let circuit = super::plan_under(params, model, weights)?;
        let program = program(&circuit)?;
        Ok((circuit, program))
    };
    if let Some(params) = params {
        return under(params);
    }
    let [first, rest @ ..] = evaluator::SETS;
    let mut planned = under(first);
    for params in rest {
        if planned.is_err() {
            planned = under(params);
        }
    }
    planned
}

/// The program of a circuit.
///
/// # Errors
/// As [`Program::new`].
pub fn program(circuit: &Circuit<'_>) -> Result<Program, CircuitError> {
    let mut row = vec![0.0; Circuit::buffer_len(circuit.model())];
    let mut scratch = row.clone();
    Program::new(circuit, &mut row, &mut scratch)
}

/// A client with its keys. They and the encrypted factors are made once and
/// streamed with every sample.
pub struct Client<'m> {
    circuit: Circuit<'m>,
    program: Program,
    terms: Terms,
    key: SecretKey<Vec<u32>>,
    rng: ChaCha20Rng,
    /// One of each target and level.
    keys: Vec<(SwitchTarget, usize, PackedKey)>,
    factors: Vec<Sealed>,
}

impl std::fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("program", &self.program)
            .finish_non_exhaustive()
    }
}

impl<'m> Client<'m> {
    /// A client with fresh keys.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn new(circuit: Circuit<'m>) -> Result<Self, StreamError> {
        let keys = Keys::new(circuit.params())?;
        Self::with_keys(circuit, keys)
    }

    /// A client with keys of the circuit's set.
    ///
    /// # Errors
    /// [`StreamError`].
    pub fn with_keys(circuit: Circuit<'m>, keys: Keys) -> Result<Self, StreamError> {
        let program = program(&circuit).map_err(EngineError::Circuit)?;
        let params = circuit.params();
        let (key, mut rng) = keys.into_parts();
        let mut keys: Vec<(SwitchTarget, usize, PackedKey)> = Vec::new();
        for task in program.key_uses() {
            let (Some(op), level) = (task.op.switching(), usize::from(task.level)) else {
                continue;
            };
            let target = op.target();
            if !keys.iter().any(|(t, l, _)| (*t, *l) == (target, level)) {
                let packed = PackedKey::generate(params, &key, target, level, &mut rng)?;
                keys.push((target, level, packed));
            }
        }
        let factors = sealed_factors(&circuit, &program, &key, &mut rng)?;
        let outputs = circuit.model().outputs();
        Ok(Self {
            terms: Terms {
                params,
                plan: program.fingerprint(),
                model_name: circuit.model().name().to_owned(),
                model_crc: program.model_crc(),
                output_level: 0,
                output_scale: program.output_scale(),
                slots: (0..outputs).map(|k| circuit.output_slot(k)).collect(),
                patience: PATIENCE,
                tracing: false,
            },
            circuit,
            program,
            key,
            rng,
            keys,
            factors,
        })
    }

    /// Changes how long an evaluator may stay silent; [`PATIENCE`] at first.
    pub const fn set_patience(&mut self, patience: Duration) {
        self.terms.patience = patience;
    }

    /// The program.
    #[must_use]
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// The circuit.
    #[must_use]
    pub const fn circuit(&self) -> &Circuit<'m> {
        &self.circuit
    }

    /// Runs one inference on the evaluator behind `link`. `progress` is told the
    /// payload bytes sent so far and in all.
    ///
    /// # Errors
    /// [`StreamError`]; the next inference on the same link works unless the link
    /// itself is gone.
    pub fn infer<'s, T: Transport>(
        &mut self,
        link: &mut Connection<T>,
        sample: impl Into<Sample<'s>>,
        progress: impl FnMut(u64, u64),
    ) -> Result<Inference, StreamError> {
        let values = values_of(self.circuit.model(), sample.into())?;
        let payload = self.program.payload();
        let total = (payload.inputs + payload.factors + payload.keys) as u64;
        let terms = self.terms.clone();
        let mut uploads = Streamed {
            cursor: Cursor::start(&self.program),
            input: Vec::new(),
            values: &values,
            client: self,
        };
        let (outcome, inference) = terms.run(link, total, &mut uploads, progress)?;
        let logits = terms.decrypt(&self.key, outcome, &link.transport().name())?;
        Ok(Inference {
            logits,
            ..inference
        })
    }

    fn seal_input(&mut self, index: usize, values: &[f64]) -> Result<Sealed, EngineError> {
        let params = self.circuit.params();
        let mut re = Zeroizing::new(vec![0.0; params.slots()]);
        let mut im = re.clone();
        self.circuit.input_slots(index, values, &mut re, &mut im);
        let (level, scale) = (self.program.input_level(), self.program.input_scale());
        seal(params, &self.key, &mut self.rng, &re, &im, level, scale)
    }

    /// The key of use `index`.
    fn key_use(&self, index: usize) -> Option<(usize, &PackedKey)> {
        let task = self.program.key_uses().nth(index)?;
        let (target, level) = (task.op.switching()?.target(), usize::from(task.level));
        let known = self
            .keys
            .iter()
            .find(|(t, l, _)| (*t, *l) == (target, level));
        known.map(|(_, _, packed)| (level, packed))
    }
}

/// Encrypts slots, packed limb by limb.
fn seal(
    params: &Params,
    key: &SecretKey<Vec<u32>>,
    rng: &mut ChaCha20Rng,
    re: &[f64],
    im: &[f64],
    level: usize,
    scale: f64,
) -> Result<Sealed, EngineError> {
    let n = params.n();
    let mut buffer = Zeroizing::new(vec![0.0f64; n]);
    let mut message = Zeroizing::new(vec![0i64; n]);
    encode_complex(re, im, scale, &mut buffer, &mut message, |x| x as i64)
        .map_err(failed("encoding"))?;
    let mut c0 = vec![0; (level + 1) * n];
    let seed = rlwe::encrypt(params, key, &mut message, level, rng, &mut c0)
        .map_err(failed("encryption"))?;
    let limbs = pack_limbs(params, &c0).map_err(failed("encryption"))?;
    Ok(Sealed { seed, limbs })
}

/// The encrypted factors in the order of the stream; none where weights are plain.
fn sealed_factors(
    circuit: &Circuit<'_>,
    program: &Program,
    key: &SecretKey<Vec<u32>>,
    rng: &mut ChaCha20Rng,
) -> Result<Vec<Sealed>, EngineError> {
    let params = circuit.params();
    let mut re = Zeroizing::new(vec![0.0; params.slots()]);
    let mut im = re.clone();
    let mut matrix: Option<(u8, Matrix)> = None;
    let mut sealed = Vec::new();
    for &Task { op, step, level } in program.factors() {
        let Some(Step::Linear { map, scales, .. }) = circuit.steps().get(usize::from(step)) else {
            continue;
        };
        let matrix = match &mut matrix {
            Some((known, matrix)) if *known == step => &*matrix,
            other => &other.insert((step, Matrix::new(map)?)).1,
        };
        let scale = match op {
            Op::Product { index, .. } => {
                let weight = |output, input| matrix.weight(output, input);
                let index = usize::from(index);
                circuit.weight_slots(usize::from(step), index, weight, &mut re, &mut im);
                scales.weights
            }
            _ => {
                circuit.bias_slots(usize::from(step), |k| matrix.bias(k), &mut re);
                im.fill(0.0);
                scales.sums()
            }
        };
        sealed.push(seal(params, key, rng, &re, &im, level.into(), scale)?);
    }
    Ok(sealed)
}

/// The uploads of a program.
struct Streamed<'c, 'm> {
    client: &'c mut Client<'m>,
    cursor: Cursor,
    values: &'c [f64],
    input: Vec<Vec<u8>>,
}

impl Uploads<StreamError> for Streamed<'_, '_> {
    fn next(&mut self) -> Result<Option<(Request<'_>, bool)>, StreamError> {
        let Some(upload) = self.cursor.upload(&self.client.program) else {
            return Ok(None);
        };
        self.cursor.advance(&self.client.program);
        Ok(Some(match upload {
            Upload::InputSeed(index) => {
                let sealed = self.client.seal_input(index, self.values)?;
                self.input = sealed.limbs;
                (Request::Seed { seed: sealed.seed }, false)
            }
            Upload::FactorSeed(factor) => {
                let seed = self.client.factors.get(factor).map(|f| f.seed);
                let seed = seed.unwrap_or_default();
                (Request::Seed { seed }, false)
            }
            Upload::KeySeed(key) => {
                let seed = self.client.key_use(key).map(|(_, key)| key.seed);
                let seed = seed.unwrap_or_default();
                (Request::Seed { seed }, true)
            }
            Upload::Chunk(item, offset) => {
                let params = self.client.circuit.params();
                let limb = match item {
                    Item::Input { limb, .. } => self.input.get(usize::from(limb)),
                    Item::Weight { factor, limb } => {
                        let factor = self.client.factors.get(usize::from(factor));
                        factor.and_then(|f| f.limbs.get(usize::from(limb)))
                    }
                    Item::Key { key, limb, digit } => {
                        let at = KeyLimb {
                            target: usize::from(limb),
                            digit: usize::from(digit),
                        };
                        let used = self.client.key_use(usize::from(key));
                        used.and_then(|(level, key)| key.limb(params, level, at))
                    }
                };
                let is_key = matches!(item, Item::Key { .. });
                (chunk_of(params, item, limb, offset), is_key)
            }
        }))
    }
}
