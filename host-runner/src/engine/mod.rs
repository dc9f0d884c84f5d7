//! The evaluator in memory: what a plan decides, carried out on a host with keys and
//! weights that are kept.
//!
//! Client and evaluator share a program or a
//! [`BatchPlan`](he_nn::plan::batch::BatchPlan) and nothing else: whatever goes from one
//! to the other is bytes of [`he_core::wire`], which both check. Nothing here knows a
//! type that holds a secret.

pub mod batch;
pub mod latency;

use std::time::Duration;

pub use latency::Engine;

use he_core::Params;
use he_core::ckks::Ciphertext;
use he_core::ckks::evaluator::{Workspace, evaluate_polynomial};
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{SwitchKey, SwitchTarget};
use he_core::wire::{self, Header, Object};
use he_nn::plan::PlanError;

/// Why an evaluation has no result. One sentence each; what to do is in it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The network has no plan, or none that a program holds.
    #[error(transparent)]
    Plan(#[from] PlanError),
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
    /// Another number of objects than the plan takes.
    #[error(
        "{got} {what} came where the plan takes {expected}; both sides must be of the same version and model"
    )]
    Count {
        /// Of what.
        what: &'static str,
        /// Due.
        expected: usize,
        /// Came.
        got: usize,
    },
    /// The model has no such layer.
    #[error(
        "the model has no layer {layer} with weights: give the model that the plan was made of"
    )]
    Layer {
        /// Its index.
        layer: usize,
    },
}

/// Names the operation that failed.
pub(crate) fn failed(what: &'static str) -> impl Fn(he_core::Error) -> EngineError {
    move |source| EngineError::Operation { what, source }
}

/// Names what was due.
pub(crate) fn refused(what: &'static str) -> impl Fn(he_core::Error) -> EngineError {
    move |source| EngineError::Bytes { what, source }
}

/// What an evaluation took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Reading and expanding the input.
    pub input: Duration,
    /// Every step of the plan.
    pub steps: Vec<Duration>,
    /// Processor time of all threads that were at work.
    pub cpu: Duration,
}

impl Times {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.input + self.steps.iter().sum::<Duration>()
    }
}

/// A polynomial of a ciphertext, in place, rescaled to `target`; in memory of
/// [`he_core::ckks::evaluator::polynomial_words`] and of key switching.
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

/// A seeded ciphertext of this level and scale.
pub(crate) fn read_fresh(
    params: &Params,
    object: &[u8],
    level: usize,
    scale: f64,
    what: &'static str,
) -> Result<Ciphertext<Vec<u32>>, EngineError> {
    let refused = refused(what);
    let header = Header::parse(object, params).map_err(&refused)?;
    if header.level != level {
        return Err(refused(he_core::Error::Level {
            operation: what,
            expected: level,
            got: header.level,
        }));
    }
    if let Object::SeededCiphertext { scale: got } = header.object
        && got.to_bits() != scale.to_bits()
    {
        return Err(refused(he_core::Error::Scale {
            operation: what,
            expected: scale,
            got,
        }));
    }
    let limbs = || vec![0; (level + 1) * params.n()];
    wire::read_seeded(params, object, limbs(), limbs()).map_err(refused)
}

/// The keys of a plan, expanded.
pub(crate) fn read_keys(
    params: &Params,
    bytes: &[u8],
    wanted: &[(SwitchTarget, usize)],
) -> Result<Vec<SwitchKey<Vec<u32>>>, EngineError> {
    let what = "a switching key";
    let parts = objects(params, bytes).map_err(refused(what))?;
    if parts.len() != wanted.len() {
        return Err(EngineError::Count {
            what: "switching keys",
            expected: wanted.len(),
            got: parts.len(),
        });
    }
    let mut keys = Vec::with_capacity(parts.len());
    for (object, &(target, level)) in parts.into_iter().zip(wanted) {
        let header = Header::parse(object, params).map_err(refused(what))?;
        // Whoever wrote them chose the level; the memory is ours.
        if header.level != level {
            return Err(refused(what)(he_core::Error::Level {
                operation: what,
                expected: level,
                got: header.level,
            }));
        }
        let words = switching_key_words(params, level);
        let key: SwitchKey<Vec<u32>> =
            wire::read_switch_key(params, object, vec![0; words]).map_err(refused(what))?;
        if key.target() != target {
            return Err(EngineError::Count {
                what: "keys of that rotation",
                expected: 1,
                got: 0,
            });
        }
        keys.push(
            key.expanded(params, vec![0; words])
                .map_err(failed("expanding a key"))?,
        );
    }
    Ok(keys)
}

/// The objects of a row of them.
///
/// # Errors
/// What is wrong with the first that is none.
pub(crate) fn objects<'b>(
    params: &Params,
    mut bytes: &'b [u8],
) -> Result<Vec<&'b [u8]>, he_core::Error> {
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
pub(crate) fn object_bytes(
    params: &Params,
    object: Object,
    level: usize,
) -> he_core::Result<usize> {
    Header { object, level }.object_len(params)
}

/// Bytes of a ciphertext of two parts on the wire.
pub(crate) fn ciphertext_bytes(params: &Params, level: usize) -> Result<usize, EngineError> {
    object_bytes(params, Object::Ciphertext { scale: 1.0 }, level).map_err(failed("writing"))
}

/// Bytes of a fresh ciphertext on the wire.
///
/// # Errors
/// [`EngineError::Operation`] where the set has no such level.
pub fn seeded_bytes(params: &Params, level: usize) -> Result<usize, EngineError> {
    object_bytes(params, Object::SeededCiphertext { scale: 1.0 }, level).map_err(failed("writing"))
}

/// Bytes of keys on the wire.
///
/// # Errors
/// As [`seeded_bytes`].
pub fn key_bytes(params: &Params, keys: &[(SwitchTarget, usize)]) -> Result<usize, EngineError> {
    keys.iter().try_fold(0, |sum, &(target, level)| {
        let bytes = object_bytes(params, Object::SwitchingKey { target }, level);
        Ok(sum + bytes.map_err(failed("writing"))?)
    })
}
