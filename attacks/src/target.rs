//! What is attacked, and what an attacker may see of it.
//!
//! A [`Target`] answers batches of queries with what it [grants](Target::grants). An
//! attack holds no target but a [`View`] of one: the view lets through what the
//! attack [declared](crate::Attack::access) and the target grants, checks the
//! queries and the answers, and counts. So an attack by labels cannot use weights by
//! mistake, and one whose target refuses an access ends with [`Denied`], which
//! becomes a record "not applicable" and never a defence.
//!
//! The targets in memory are in [`crate::plain`]; the encrypted deployment is a
//! target that whoever owns links and devices implements.

use std::fmt;

use he_nn::network::Network;

use crate::ckks::bit_flips::Exposed;
use crate::network::Differentiable;

/// One thing that an attacker may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// The class of an answer.
    Labels,
    /// The logits as they are published: perhaps rounded.
    Scores,
    /// Every value that decryption gave, as precise as it gave them.
    Decrypted,
    /// The network itself.
    Weights,
    /// The bytes between client and evaluator.
    Ciphertexts,
    /// How long the evaluator took.
    Timing,
}

impl Access {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Labels,
        Self::Scores,
        Self::Decrypted,
        Self::Weights,
        Self::Ciphertexts,
        Self::Timing,
    ];
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Labels => "labels",
            Self::Scores => "scores",
            Self::Decrypted => "decrypted values",
            Self::Weights => "weights",
            Self::Ciphertexts => "ciphertexts",
            Self::Timing => "timing",
        })
    }
}

/// A set of accesses: the capability that a target grants and an attack declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grants(u8);

impl Grants {
    /// No access.
    pub const NONE: Self = Self(0);

    /// These accesses.
    #[must_use]
    pub const fn of(accesses: &[Access]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < accesses.len() {
            bits |= 1 << accesses[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether this access is among them.
    #[must_use]
    pub const fn contains(self, access: Access) -> bool {
        self.0 & (1 << access as u8) != 0
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The accesses in the order of [`Access::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Access> {
        Access::ALL.into_iter().filter(move |&a| self.contains(a))
    }
}

/// An access that the target does not grant or the attack did not declare.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{target} does not give {access}")]
pub struct Denied {
    /// What was asked for.
    pub access: Access,
    /// Name of the target.
    pub target: String,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The target does not give this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The budget of queries is used up.
    #[error("{target} answers {budget} queries, {used} are used and {asked} more were asked")]
    Budget {
        /// Name of the target.
        target: String,
        /// Queries that it answers in all.
        budget: u64,
        /// Queries answered so far.
        used: u64,
        /// Queries of the refused batch.
        asked: u64,
    },
    /// A query of another length than the network takes.
    #[error("{target} takes {expected} values per query and was given {got}")]
    Width {
        /// Name of the target.
        target: String,
        /// Values that it takes.
        expected: usize,
        /// Values per query.
        got: usize,
    },
    /// A query with a value that is no number.
    #[error("query {query} for {target} holds an infinite value or none")]
    NotFinite {
        /// Name of the target.
        target: String,
        /// Which query of the batch.
        query: usize,
    },
    /// The target answered with another number of answers than it was asked.
    #[error("{target} gave {got} answers ({access}) to {expected} queries")]
    Answers {
        /// Name of the target.
        target: String,
        /// Of this access.
        access: Access,
        /// Queries.
        expected: usize,
        /// Answers.
        got: usize,
    },
    /// The target failed.
    #[error("{target} failed: {source}")]
    Failed {
        /// Name of the target.
        target: String,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Rows of equal width.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    width: usize,
    values: Vec<f64>,
}

impl Rows {
    /// Rows of `width` values, one after another.
    ///
    /// What is left over beyond the last whole row is dropped.
    #[must_use]
    pub fn new(width: usize, mut values: Vec<f64>) -> Self {
        values.truncate(
            values
                .len()
                .checked_rem(width)
                .map_or(0, |r| values.len() - r),
        );
        Self { width, values }
    }

    /// Images, pixels from 0 to 1.
    pub fn images<'i>(images: impl IntoIterator<Item = &'i he_nn::data::Image>) -> Self {
        let pixels = images.into_iter().flatten();
        Self {
            width: he_nn::data::PIXELS,
            values: pixels.map(|&p| f64::from(p) / 255.0).collect(),
        }
    }

    /// Values per row.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All values, row after row.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All values, to change.
    #[must_use]
    pub fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// The rows in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, f64> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// A row.
    ///
    /// # Panics
    /// If there is no such row, as an index into a slice does.
    #[must_use]
    pub fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// A row, to change.
    ///
    /// # Panics
    /// If there is no such row, as an index into a slice does.
    #[must_use]
    pub fn row_mut(&mut self, index: usize) -> &mut [f64] {
        &mut self.values[index * self.width..(index + 1) * self.width]
    }

    /// Rows of one width after another: a request of many costs an encrypted target as
    /// much as one of few.
    #[must_use]
    pub fn joined(parts: &[&Self]) -> Self {
        let values = parts.iter().flat_map(|rows| &rows.values);
        Self {
            width: parts.first().map_or(0, |rows| rows.width),
            values: values.copied().collect(),
        }
    }

    /// The rows before one, and the others from it on; all before it if it is not there.
    #[must_use]
    pub fn split_at(&self, row: usize) -> [Self; 2] {
        let (before, after) = self
            .values
            .split_at(self.values.len().min(row * self.width));
        [before, after].map(|values| Self::new(self.width, values.to_vec()))
    }

    /// Some of the rows, in this order.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        Self {
            width: self.width,
            values: indices.iter().flat_map(|&i| self.row(i)).copied().collect(),
        }
    }
}

/// What crossed the link for one query, as an eavesdropper sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// From client to evaluator.
    pub up: Vec<u8>,
    /// From evaluator to client.
    pub down: Vec<u8>,
}

/// What a time is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Nanoseconds on a host.
    Nanoseconds,
    /// Cycles on a board.
    Cycles,
    /// Instructions on an emulated board.
    Instructions,
}

/// How long the evaluator took for one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// How many.
    pub value: u64,
    /// Of what.
    pub clock: Clock,
}

/// The answers to a batch: one entry per query for every access asked for, none for
/// the others. All entries of one index belong to one evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// [`Access::Labels`].
    pub labels: Vec<u8>,
    /// [`Access::Scores`].
    pub scores: Rows,
    /// [`Access::Decrypted`].
    pub decrypted: Rows,
    /// [`Access::Ciphertexts`].
    pub exchanges: Vec<Exchange>,
    /// [`Access::Timing`].
    pub times: Vec<Time>,
}

/// The activation of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Rectifiers.
    Relu,
    /// Polynomials, a square among them.
    Polynomial,
}

/// Where a network is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evaluation {
    /// In the clear.
    Clear,
    /// Encrypted inputs, weights in the clear.
    Encrypted,
    /// Encrypted inputs and weights.
    EncryptedWeights,
}

/// What a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its name in records: of the model, and of the device if there is one.
    pub name: String,
    /// Name of the [`crate::Data`] that it was trained for.
    pub dataset: String,
    /// Values per query.
    pub inputs: usize,
    /// Values per answer.
    pub classes: usize,
    /// Its activation.
    pub activation: Activation,
    /// Where it is evaluated.
    pub evaluation: Evaluation,
}

/// A network that answers queries.
pub trait Target {
    /// What it is.
    fn about(&self) -> &About;

    /// What it lets an attacker see.
    fn grants(&self) -> Grants;

    /// Evaluates a batch, of thousands if need be, one sample per row: for an image
    /// pixels from 0 to 1, though an attacker's may lie outside. Gives what is asked
    /// for; it is not asked for what it does not grant.
    ///
    /// # Errors
    /// [`TargetError`]; a link's failure is [`TargetError::Failed`].
    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError>;

    /// The network in floating point, to differentiate; for a target that grants
    /// [`Access::Weights`].
    ///
    /// # Errors
    /// [`TargetError::Denied`] from one that does not.
    fn weights(&self) -> Result<Differentiable, TargetError> {
        Err(TargetError::Denied(Denied {
            access: Access::Weights,
            target: self.about().name.clone(),
        }))
    }
}

/// A network that an attack made, to be deployed.
#[derive(Clone, Copy, Debug)]
pub struct Made<'m> {
    /// Its name.
    pub name: &'m str,
    /// Name of the [`crate::Data`] that it was trained for.
    pub dataset: &'m str,
    /// The network, with weights of 8 bits and for images.
    pub network: &'m Network<i16>,
    /// Samples of its kind, pixels from 0 to 1: the ranges of a deployment are measured
    /// on them. Where the attack is about what the network was trained on, these must
    /// not be the members alone, or who is out of range would tell who is none.
    pub samples: &'m Rows,
}

/// Puts a network that an attack made behind encryption. This crate has no encryption;
/// whoever runs it does.
pub trait Deploy {
    /// The network as a target with encrypted inputs, and encrypted weights if
    /// `evaluation` says so.
    ///
    /// # Errors
    /// [`TargetError::Failed`] where there is no such deployment of it.
    fn deploy(
        &self,
        made: Made<'_>,
        evaluation: Evaluation,
    ) -> Result<Box<dyn Target>, TargetError>;

    /// An inference whose memory can be reached, where there is one.
    ///
    /// # Errors
    /// [`TargetError::Failed`].
    fn exposed(&self) -> Result<Option<Box<dyn Exposed>>, TargetError> {
        Ok(None)
    }
}

/// A target as one attack sees it.
pub struct View<'t> {
    target: &'t mut dyn Target,
    declared: Grants,
    queries: u64,
}

impl<'t> View<'t> {
    /// A view that lets these accesses through.
    pub fn new(target: &'t mut dyn Target, declared: Grants) -> Self {
        Self {
            target,
            declared,
            queries: 0,
        }
    }

    /// What the target is.
    #[must_use]
    pub fn about(&self) -> &About {
        self.target.about()
    }

    /// Queries answered through this view.
    #[must_use]
    pub const fn queries(&self) -> u64 {
        self.queries
    }

    /// What may be asked for.
    #[must_use]
    pub fn grants(&self) -> Grants {
        self.declared.and(self.target.grants())
    }

    /// Checks that all of these may be asked for.
    ///
    /// # Errors
    /// [`Denied`] with the first that may not.
    pub fn require(&self, asked: Grants) -> Result<(), Denied> {
        let denied = asked.without(self.grants()).iter().next();
        denied.map_or(Ok(()), |access| {
            Err(Denied {
                access,
                target: self.about().name.clone(),
            })
        })
    }

    /// Evaluates a batch.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        self.require(asked)?;
        let About { name, inputs, .. } = self.target.about();
        if queries.width() != *inputs {
            return Err(TargetError::Width {
                target: name.clone(),
                expected: *inputs,
                got: queries.width(),
            });
        }
        if let Some(at) = queries.values().iter().position(|x| !x.is_finite()) {
            return Err(TargetError::NotFinite {
                target: name.clone(),
                query: at / inputs,
            });
        }
        let answers = self.target.observe(queries, asked)?;
        for access in asked.iter() {
            let got = match access {
                Access::Labels => answers.labels.len(),
                Access::Scores => answers.scores.len(),
                Access::Decrypted => answers.decrypted.len(),
                Access::Ciphertexts => answers.exchanges.len(),
                Access::Timing => answers.times.len(),
                Access::Weights => continue,
            };
            if got != queries.len() {
                return Err(TargetError::Answers {
                    target: self.about().name.clone(),
                    access,
                    expected: queries.len(),
                    got,
                });
            }
        }
        self.queries += queries.len() as u64;
        Ok(answers)
    }

    /// The class of every query.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn labels(&mut self, queries: &Rows) -> Result<Vec<u8>, TargetError> {
        let asked = Grants::of(&[Access::Labels]);
        Ok(self.observe(queries, asked)?.labels)
    }

    /// The published logits of every query.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn scores(&mut self, queries: &Rows) -> Result<Rows, TargetError> {
        let asked = Grants::of(&[Access::Scores]);
        Ok(self.observe(queries, asked)?.scores)
    }

    /// The network in floating point.
    ///
    /// # Errors
    /// [`TargetError::Denied`].
    pub fn weights(&self) -> Result<Differentiable, TargetError> {
        self.require(Grants::of(&[Access::Weights]))?;
        self.target.weights()
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("about", self.about())
            .field("declared", &self.declared)
            .field("queries", &self.queries)
            .finish()
    }
}
