//! What is given to others than the holder of the key: labels, or values flooded with
//! noise, counted against a budget ([`he_core::ckks::publish`]).
//!
//! Labels may be of anybody's answers. Values may be of an honest evaluator's alone, as
//! those of a crafted result are the key: here of the engine in this process, which the
//! holder of the key runs, and of batches, whose results have room for the noise, behind
//! squares too, but not behind other polynomials. In latency packing they end at level 0,
//! modulo one prime, or as lanes modulo two, where the noise has none. A label is that of
//! sums of lanes, which are not published.

use std::ops::Range;
use std::path::PathBuf;

use he_core::Params;
use he_core::ckks::publish::{
    Allowance, Budget, Expected, HonestEvaluator, HonestResult, KeyId, NoiseKey, PublishError,
    precision, publish_label, publish_values,
};
use he_core::ckks::{Ciphertext, Noise};
use he_nn::plan::LogitError;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{ClientError, Keys};
use crate::budget::{BudgetError, KeyBudget};
use crate::files::SealedKey;

/// What is published of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The class.
    Labels,
    /// The logits, flooded with noise.
    Values,
}

/// What is published, and how often.
#[derive(Clone, Debug)]
pub struct PublicationTerms {
    /// What.
    pub form: Form,
    /// How often in all the life of the key, and how hidden. Of a sealed key that is what
    /// its file says, and this is not looked at.
    pub allowance: Allowance,
    /// The file that counts, which there must not be yet; without one the count is in
    /// memory, as the key is, or with a sealed key in its file.
    pub budget: Option<PathBuf>,
    /// Bits after the binary point that values must have.
    pub precision_bits: f64,
}

/// What may be given to others.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Published {
    /// A class.
    Label {
        /// Its index.
        label: usize,
    },
    /// Logits.
    Values {
        /// Flooded with noise.
        values: Vec<f64>,
        /// Bits after the binary point that are right.
        precision_bits: f64,
    },
}

/// What was published of an answer, or why nothing was; `None` where that was not asked
/// for.
pub type Handed = Option<Result<Published, PublicationError>>;

/// Why something was not published. Others see the sentence: it has no figure of the
/// client's data in it.
#[derive(Debug, thiserror::Error)]
pub enum PublicationError {
    /// The noise leaves nothing.
    #[error(
        "values cannot be published: {source}; the noise must hide the worst case of a logit's error, {:.2e} where six standard deviations are {:.2e}, and the result is of level {level} at scale 2^{scale_log2:.1}; what helps is --publish labels, a network of squares alone in --packing batch, or fewer --publications", error.of_encryption, error.six_sigma
    )]
    NoPrecision {
        /// With the figures.
        source: he_core::Error,
        /// What a logit is off by.
        error: LogitError,
        /// Of the result.
        level: usize,
        /// Of the result.
        scale_log2: f64,
    },
    /// The budget did not allow it.
    #[error("nothing was published: {0}")]
    Budget(#[from] BudgetError),
    /// The result or the request is at fault.
    #[error("nothing was published: {0}")]
    Refused(he_core::Error),
    /// Another logit of the batch was not published.
    #[error("{0}")]
    Batch(String),
    /// A logit that the noise has no room beside.
    #[error("nothing was published of this batch: beside the noise there is no room for it")]
    Room,
    /// A wrong answer.
    #[error("nothing was published: the answer is not what the plan says")]
    Beyond,
    /// Values of one sample's result.
    #[error(
        "values of single samples are not published, as their results leave no room for the noise: use --publish labels, or --packing batch"
    )]
    Single,
    /// A label of several ciphertexts.
    #[error(
        "a batch has its {logits} logits in as many ciphertexts, and a label is chosen in one: use --packing latency"
    )]
    Logits {
        /// How many.
        logits: usize,
    },
    /// The key of the budget is gone.
    #[error(
        "nothing was published: a result was refused, and the key that the budget is of was given up with it; run again with another budget"
    )]
    Renewed,
}

impl From<PublishError<BudgetError>> for PublicationError {
    fn from(error: PublishError<BudgetError>) -> Self {
        match error {
            PublishError::Refused(source) => Self::Refused(source),
            PublishError::Budget(error) => Self::Budget(error),
            PublishError::Retired => Self::Renewed,
        }
    }
}

/// Counts and publishes, of one key. Of a sealed key it is there even where nothing is
/// published, as a refused result retires that key for good.
pub struct Publisher {
    form: Option<Form>,
    precision_bits: f64,
    noise_key: NoiseKey,
    id: KeyId,
    budget: KeyBudget,
    renewed: bool,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// For keys that have published nothing yet.
    fn new(terms: PublicationTerms, params: &Params, keys: &Keys) -> Result<Self, ClientError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(ClientError::Random)?;
        let noise_key = NoiseKey::new(*seed);
        let id = noise_key.id(params, &keys.key);
        let id = id.map_err(PublicationError::Refused)?;
        let budget = KeyBudget::create(terms.budget.as_deref(), &id, terms.allowance);
        Ok(Self {
            form: Some(terms.form),
            precision_bits: terms.precision_bits,
            budget: budget.map_err(PublicationError::Budget)?,
            noise_key,
            id,
            renewed: false,
        })
    }

    /// For a sealed key, which has its own budget. Nothing is published until
    /// [`Self::set`].
    pub(super) fn of_sealed(key: SealedKey) -> Self {
        Self {
            form: None,
            precision_bits: 0.0,
            noise_key: key.noise_key(),
            id: *key.id(),
            budget: KeyBudget::Sealed(Box::new(key)),
            renewed: false,
        }
    }

    /// From now on publishes by the terms: a sealed key within the budget that it has, any
    /// other within a new one.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn set(
        publisher: &mut Option<Self>,
        terms: PublicationTerms,
        params: &Params,
        keys: &Keys,
    ) -> Result<(), ClientError> {
        match publisher {
            Some(publisher) if publisher.is_sealed() => {
                publisher.form = Some(terms.form);
                publisher.precision_bits = terms.precision_bits;
            }
            _ => *publisher = Some(Self::new(terms, params, keys)?),
        }
        Ok(())
    }

    /// Whether its key outlives the process.
    pub(super) const fn is_sealed(&self) -> bool {
        matches!(self.budget, KeyBudget::Sealed(_))
    }

    /// Whether that key was retired, as a result was refused under it.
    pub(super) const fn has_retired(&self) -> bool {
        self.is_sealed() && self.renewed
    }

    /// What is published, if anything is.
    pub(super) const fn form(&self) -> Option<Form> {
        self.form
    }

    /// Bits after the binary point that values must have.
    pub(super) const fn precision_bits(&self) -> f64 {
        self.precision_bits
    }

    /// Publications that are allowed, and those that have been counted, where something is
    /// published.
    pub(super) fn count(&self) -> Option<(u32, u32)> {
        let count = || (self.budget.allowance().queries(), self.budget.spent());
        self.form.map(|_| count())
    }

    /// Its key is not used again: nothing more is published, and a sealed key is retired in
    /// its file.
    ///
    /// # Errors
    /// [`PublicationError::Budget`] where the file of a sealed key cannot be written: the key
    /// must not be used again, and nothing says so.
    pub(super) fn close(&mut self) -> Result<(), PublicationError> {
        if self.renewed {
            return Ok(());
        }
        let retired = self.budget.retire(&self.id);
        if self.is_sealed() {
            retired?;
        }
        // Any other key is gone, even where that cannot be stored.
        self.renewed = true;
        Ok(())
    }

    /// The class that the sums over `candidates` speak for, whoever made the result.
    pub(super) fn label(
        &mut self,
        params: &Params,
        keys: &Keys,
        ct: &Ciphertext<Vec<u32>>,
        place: (usize, f64),
        candidates: &[Range<usize>],
    ) -> Result<usize, PublicationError> {
        if self.renewed {
            return Err(PublicationError::Renewed);
        }
        let mut scratch = vec![0; (place.0 + 1) * params.n()];
        let mut slots = vec![0.0; params.n()];
        let label = publish_label(
            params,
            &keys.key,
            &self.noise_key,
            &mut self.budget,
            ct,
            place,
            candidates,
            &mut scratch,
            &mut slots,
        );
        self.renewed |= matches!(label, Err(PublishError::Retired));
        Ok(label?)
    }

    /// The values of all slots of a result, and the bits that are right: of an evaluator
    /// that is **stated honest**.
    pub(super) fn values(
        &mut self,
        params: &Params,
        keys: &Keys,
        ct: &Ciphertext<Vec<u32>>,
        expected: &Expected,
        evaluator: HonestEvaluator,
    ) -> Result<(Vec<f64>, f64), PublicationError> {
        if self.renewed {
            return Err(PublicationError::Renewed);
        }
        let mut scratch = vec![0; (expected.level + 1) * params.n()];
        let mut slots = vec![0.0; params.n()];
        let published = publish_values(
            params,
            &keys.key,
            &self.noise_key,
            &mut self.budget,
            &HonestResult::stated(ct, evaluator),
            expected,
            &mut scratch,
            &mut slots,
        )?;
        Ok((published.values().to_vec(), published.precision_bits()))
    }
}

/// What the holder of the key knows of a result at a level and scale, from its plan.
#[must_use]
pub fn expected(
    error: LogitError,
    (level, scale): (usize, f64),
    range: f32,
    precision_bits: f64,
) -> Expected {
    Expected {
        level,
        scale,
        noise: Noise {
            bound: error.of_encryption * scale,
            sigma: error.six_sigma / 6.0 * scale,
        },
        // Twice what training has seen.
        magnitude: 2.0 * f64::from(range).max(1.0),
        precision_bits,
    }
}

/// Whether values of results like these can be published: the bits that are right then.
///
/// # Errors
/// [`PublicationError::NoPrecision`] with the figures, and what would help.
pub fn check_values(
    params: &Params,
    error: LogitError,
    expected: &Expected,
    allowance: &Allowance,
) -> Result<f64, PublicationError> {
    precision(params, expected, allowance).map_err(|source| PublicationError::NoPrecision {
        source,
        error,
        level: expected.level,
        scale_log2: expected.scale.log2(),
    })
}
