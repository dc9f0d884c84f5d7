//! Networks of any number of layers, evaluated by a host: what the plan of
//! [`he_nn::circuit`] decides, carried out with keys and weights in memory.
//!
//! Client and evaluator share a [`Circuit`] or a
//! [`BatchCircuit`](he_nn::circuit::batch::BatchCircuit) and nothing else: whatever goes from one to the other is bytes of [`he_core::wire`], which
//! both check. The evaluator's half ([`latency::Evaluator`], [`batch::Evaluator`])
//! knows no type that holds a secret.

pub mod batch;
mod client;
pub mod device;
pub mod latency;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use client::Keys;
use he_core::Params;
use he_core::ckks::Ciphertext;
use he_core::ckks::evaluator::{Workspace, evaluate_polynomial, polynomial_words};
use he_core::params::{N4096_DEPTH3, Security};
use he_core::ring::ntt;
use he_core::rlwe::{SwitchKey, SwitchTarget};
use he_core::wire::{Header, Object};
use he_nn::circuit::{Circuit, CircuitError, LinearMap, PASSES_A_TRANSFORM, Weights};
use he_nn::model::Model;

he_core::parameter_set! {
    /// N = 8192, depth 5, for networks of three layers with two squares on a host:
    /// digits of two primes, so that a key switch has three of them at the highest
    /// level.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 909 249 | 27.47 | base: the result and its headroom |
    /// | 65 929 217 | 25.97 | fifth rescale |
    /// | 66 420 737 | 25.99 | fourth rescale |
    /// | 66 551 809 | 25.99 | third rescale |
    /// | 66 813 953 | 25.99 | second rescale |
    /// | 67 043 329 | 26.00 | first rescale |
    /// | 185 745 409 | 27.47 | special: the two together wider than the widest digit, 53.4 bits |
    /// | 185 597 953 | 27.47 | special |
    ///
    /// log2(QP) = 212.34, and the table's row is 214. No prime is above
    /// 1.86 * 10^8, where transforms need reductions between their layers.
    pub static N8192_NETWORK = {
        n: 8192, security: Security::Classical128,
        data: [
            185_909_249, 65_929_217, 66_420_737, 66_551_809, 66_813_953, 67_043_329,
        ],
        special: [185_745_409, 185_597_953]
    };

    /// N = 8192, depth 3: as [`N8192_NETWORK`], for one square. Digits of two primes.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 909 249 | 27.47 | base: the result and its headroom |
    /// | 66 551 809 | 25.99 | third rescale |
    /// | 66 813 953 | 25.99 | second rescale |
    /// | 67 043 329 | 26.00 | first rescale |
    /// | 185 745 409 | 27.47 | special: the two together wider than the widest digit, 53.5 bits |
    /// | 185 597 953 | 27.47 | special |
    ///
    /// log2(QP) = 160.39, and the table's row is 214.
    pub static N8192_SHALLOW = {
        n: 8192, security: Security::Classical128,
        data: [185_909_249, 66_551_809, 66_813_953, 67_043_329],
        special: [185_745_409, 185_597_953]
    };

    /// N = 16384, depth 11, for deeper networks on a host: two activations of up to
    /// [`MAX_DEGREE`](he_nn::model::MAX_DEGREE), or five squares. Digits of four
    /// primes, three of them at the highest level. Primes are just above 2^26, so
    /// that powers of a value at scale 2^26 keep it.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 597 953 | 27.47 | base: the result and its headroom |
    /// | 67 239 937 | 26.00 | eleventh rescale |
    /// | 67 502 081 | 26.01 | tenth rescale |
    /// | 67 731 457 | 26.01 | ninth rescale |
    /// | 68 190 209 | 26.02 | eighth rescale |
    /// | 68 485 121 | 26.03 | seventh rescale |
    /// | 68 681 729 | 26.03 | sixth rescale |
    /// | 68 976 641 | 26.04 | fifth rescale |
    /// | 69 206 017 | 26.04 | fourth rescale |
    /// | 69 304 321 | 26.05 | third rescale |
    /// | 69 763 073 | 26.06 | second rescale |
    /// | 70 189 057 | 26.06 | first rescale |
    /// | 185 499 649 | 27.47 | special: the four together wider than the widest digit, 105.5 bits |
    /// | 184 811 521 | 27.46 | special |
    /// | 184 188 929 | 27.46 | special |
    /// | 183 631 873 | 27.45 | special |
    ///
    /// log2(QP) = 423.67, and the table's row is 430. No prime is above
    /// 1.86 * 10^8, where transforms need reductions between their layers.
    pub static N16384_NETWORK = {
        n: 16384, security: Security::Classical128,
        data: [
            185_597_953, 67_239_937, 67_502_081, 67_731_457, 68_190_209, 68_485_121,
            68_681_729, 68_976_641, 69_206_017, 69_304_321, 69_763_073, 70_189_057,
        ],
        special: [185_499_649, 184_811_521, 184_188_929, 183_631_873]
    };
}

/// The sets that a network is tried with, the smallest first.
pub static SETS: [&Params; 4] = [
    &N4096_DEPTH3,
    &N8192_SHALLOW,
    &N8192_NETWORK,
    &N16384_NETWORK,
];

/// Why there is no result. One sentence each; what to do is in it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No circuit evaluates the network.
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    /// An operation of he-core failed.
    #[error("{what} failed: {source}")]
    Operation {
        /// Which.
        what: &'static str,
        /// Why.
        source: he_core::Error,
    },
    /// Bytes that are not what was due.
    #[error("{what} was refused: {source}; both sides must be of the same version and model")]
    Bytes {
        /// What was due.
        what: &'static str,
        /// What is wrong.
        source: he_core::Error,
    },
    /// Another number of objects than the circuit takes.
    #[error(
        "{got} {what} came where the circuit takes {expected}; both sides must be of the same version and model"
    )]
    Count {
        /// Of what.
        what: &'static str,
        /// Due.
        expected: usize,
        /// Came.
        got: usize,
    },
    /// The result is not acceptable.
    #[error("the evaluator returned a result that was not decrypted: {0}")]
    Result(he_core::Error),
    /// The values left the range that the plan has room for.
    #[error(
        "the result fills {percent:.0} % of the modulus and may have wrapped around: the input is unlike the training data"
    )]
    Wrapped {
        /// Largest coefficient, in per cent of half the modulus.
        percent: f64,
    },
    /// The sample does not fit the network.
    #[error(transparent)]
    Sample(#[from] he_nn::model::ModelError),
    /// The system has no randomness.
    #[error("the system's random generator failed ({0}): nothing was encrypted")]
    Random(getrandom::Error),
}

/// Names the operation that failed.
fn failed(what: &'static str) -> impl Fn(he_core::Error) -> EngineError {
    move |source| EngineError::Operation { what, source }
}

/// Names what was due.
fn refused(what: &'static str) -> impl Fn(he_core::Error) -> EngineError {
    move |source| EngineError::Bytes { what, source }
}

/// What one layer took.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct StageTime {
    /// What was done.
    pub name: String,
    /// Time.
    pub time: Duration,
    /// Level before it.
    pub level: usize,
    /// log2 of the scale of its results.
    pub scale_log2: f64,
    /// Bytes of the ciphertexts that it leaves, on the wire.
    pub bytes: usize,
}

/// Weights and biases of a map, in memory.
#[derive(Clone, Debug)]
pub struct Matrix {
    columns: usize,
    weights: Vec<f64>,
    biases: Vec<f64>,
}

impl Matrix {
    /// Of a map.
    ///
    /// # Errors
    /// As [`LinearMap::row`].
    pub fn new(map: &LinearMap<'_>) -> Result<Self, CircuitError> {
        let columns = map.inputs();
        let mut scratch = vec![0.0; map.scratch_len()];
        let mut weights = vec![0.0; columns * map.outputs()];
        let mut biases = Vec::with_capacity(map.outputs());
        for (output, row) in weights.chunks_exact_mut(columns.max(1)).enumerate() {
            biases.push(map.row(output, row, &mut scratch)?);
        }
        Ok(Self {
            columns,
            weights,
            biases,
        })
    }

    /// A weight.
    #[must_use]
    pub fn weight(&self, output: usize, input: usize) -> f64 {
        self.weights[output * self.columns + input]
    }

    /// A bias.
    #[must_use]
    pub fn bias(&self, output: usize) -> f64 {
        self.biases[output]
    }
}

/// Plans a network for one sample, under the set of [`SETS`] that takes the least
/// time: a small ring that serves may need many more products than the next.
///
/// # Errors
/// [`CircuitError`] of the last set.
pub fn plan<'m>(model: Model<'m>, weights: Weights) -> Result<Circuit<'m>, CircuitError> {
    let price = |circuit: &Circuit<'_>| circuit.passes() * circuit.params().n();
    let mut best: Result<Circuit<'m>, CircuitError> = plan_under(SETS[0], model, weights);
    for params in &SETS[1..] {
        let next = plan_under(params, model, weights);
        best = match (best, next) {
            (Ok(best), Ok(next)) if price(&next) >= price(&best) => Ok(best),
            (Ok(best), Err(_)) => Ok(best),
            (_, next) => next,
        };
    }
    best
}

/// Plans a network for one sample under a set.
///
/// # Errors
/// [`CircuitError`].
pub fn plan_under<'m>(
    params: &'static Params,
    model: Model<'m>,
    weights: Weights,
) -> Result<Circuit<'m>, CircuitError> {
    let mut row = vec![0.0; Circuit::buffer_len(&model)];
    let mut scratch = row.clone();
    Circuit::new(params, model, weights, &mut row, &mut scratch)
}

/// Seconds that so many passes over a limb take on this machine, by the time of a
/// transform: the least of some.
///
/// # Errors
/// [`EngineError::Operation`].
pub fn seconds(params: &Params, passes: usize) -> Result<f64, EngineError> {
    const RUNS: usize = 50;
    let prime = params.prime(0).map_err(failed("timing"))?;
    let mut limb = vec![1; params.n()];
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        ntt::forward(&mut limb, prime).map_err(failed("timing"))?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least * passes as f64 / PASSES_A_TRANSFORM as f64)
}

/// What the first of [`SETS`] gives that gives anything.
fn first_that_serves<T>(
    plan: impl Fn(&'static Params) -> Result<T, CircuitError>,
) -> Result<T, CircuitError> {
    let [first, rest @ ..] = SETS;
    let mut planned = plan(first);
    for params in rest {
        if planned.is_err() {
            planned = plan(params);
        }
    }
    planned
}

/// Words that [`polynomial`] works in besides switching keys, for so many coefficients.
fn polynomial_len(params: &Params, level: usize, coefficients: usize) -> usize {
    polynomial_words(params, level, coefficients.saturating_sub(1))
}

/// A polynomial of a ciphertext, in place, rescaled to `target`; in memory of
/// [`polynomial_len`] and of key switching.
fn polynomial(
    params: &Params,
    ct: &mut Ciphertext<Vec<u32>>,
    coefficients: &[f64],
    target: f64,
    key: &SwitchKey<Vec<u32>>,
    (words, work): (&mut [u32], &mut [u32]),
) -> Result<(), EngineError> {
    let what = "a polynomial";
    let mut work = Workspace::new(params, ct.level(), work).map_err(failed(what))?;
    evaluate_polynomial(params, ct, coefficients, target, key, words, &mut work)
        .map_err(failed(what))
}

/// The objects of a row of them.
///
/// # Errors
/// What is wrong with the first that is none.
fn objects<'b>(params: &Params, mut bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, he_core::Error> {
    let mut objects = Vec::new();
    while !bytes.is_empty() {
        let length = Header::parse(bytes, params)?.object_len(params)?;
        let Some((object, rest)) = bytes.split_at_checked(length) else {
            return Err(he_core::Error::Length {
                what: "object",
                expected: length,
                got: bytes.len(),
            });
        };
        objects.push(object);
        bytes = rest;
    }
    Ok(objects)
}

/// Bytes of an object on the wire.
fn object_bytes(params: &Params, object: Object, level: usize) -> Result<usize, EngineError> {
    let header = Header { object, level };
    header.object_len(params).map_err(failed("writing"))
}

/// Bytes of a ciphertext of two parts on the wire.
pub(crate) fn ciphertext_bytes(params: &Params, level: usize) -> Result<usize, EngineError> {
    object_bytes(params, Object::Ciphertext { scale: 1.0 }, level)
}

/// Bytes of a fresh ciphertext on the wire.
///
/// # Errors
/// [`EngineError::Operation`] where the set has no such level.
pub fn seeded_bytes(params: &Params, level: usize) -> Result<usize, EngineError> {
    object_bytes(params, Object::SeededCiphertext { scale: 1.0 }, level)
}

/// Bytes of keys on the wire.
///
/// # Errors
/// As [`seeded_bytes`].
pub fn key_bytes(params: &Params, keys: &[(SwitchTarget, usize)]) -> Result<usize, EngineError> {
    keys.iter().try_fold(0, |sum, &(target, level)| {
        Ok(sum + object_bytes(params, Object::SwitchingKey { target }, level)?)
    })
}
