//! Targets in memory, and what can be laid around any target.

use chacha20::ChaCha8Rng;
use he_nn::clear;
use he_nn::model::{Layer, Model};
use he_nn::{bundled, model::ModelError};
use rand_core::SeedableRng;

use crate::network::{Differentiable, NetworkError};
use crate::random;
use crate::target::{
    About, Access, Activation, Answers, Denied, Evaluation, Grants, Rows, Target, TargetError,
};

/// Most queries that are evaluated at once, to bound the memory.
const BATCH: usize = 1024;

/// A network evaluated in the clear, in `f64`.
#[derive(Clone, Debug)]
pub struct Plain {
    about: About,
    network: Differentiable,
}

impl Plain {
    /// Everything that a network in the clear can give.
    pub const GRANTS: Grants = Grants::of(&[
        Access::Labels,
        Access::Scores,
        Access::Decrypted,
        Access::Weights,
    ]);

    /// A bundled network; `None` if there is no such.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn bundled(name: &str, dataset: &str) -> Result<Option<Self>, NetworkError> {
        let file = bundled::model(name);
        file.map(|file| Self::from_file(file, dataset)).transpose()
    }

    /// The network of a `.hemodel` file, under its name.
    ///
    /// # Errors
    /// [`NetworkError`] for a file that holds none.
    pub fn from_file(file: &[u8], dataset: &str) -> Result<Self, NetworkError> {
        let model = Model::parse(file)?;
        let relu = model
            .layers()
            .any(|view| matches!(view.layer, Layer::Relu { .. }));
        let activation = if relu {
            Activation::Relu
        } else {
            Activation::Polynomial
        };
        let network = Differentiable::from_model(&model)?;
        Ok(Self::new(model.name(), dataset, activation, network))
    }

    /// A network under a name.
    #[must_use]
    pub fn new(name: &str, dataset: &str, activation: Activation, network: Differentiable) -> Self {
        let about = About {
            name: name.to_owned(),
            dataset: dataset.to_owned(),
            inputs: network.inputs(),
            classes: network.outputs(),
            activation,
            evaluation: Evaluation::Clear,
        };
        Self { about, network }
    }
}

impl Target for Plain {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        Self::GRANTS
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let scores = self.network.evaluate(queries, BATCH);
        let scores = scores.map_err(|source| TargetError::Failed {
            target: self.about.name.clone(),
            source: source.into(),
        })?;
        let mut answers = Answers::default();
        if asked.contains(Access::Labels) {
            answers.labels = classes(&scores);
        }
        if asked.contains(Access::Decrypted) {
            answers.decrypted = scores.clone();
        }
        if asked.contains(Access::Scores) {
            answers.scores = scores;
        }
        Ok(answers)
    }

    fn weights(&self) -> Result<Differentiable, TargetError> {
        Ok(self.network.clone())
    }
}

/// The class that every row of logits speaks for.
#[must_use]
pub fn classes(scores: &Rows) -> Vec<u8> {
    scores.iter().map(|row| clear::class(row) as u8).collect()
}

/// Grants of a target, cut down.
#[derive(Debug)]
pub struct Only<T> {
    inner: T,
    about: About,
    grants: Grants,
}

impl<T: Target> Only<T> {
    /// The same target, granting no more than these.
    pub fn new(inner: T, grants: Grants) -> Self {
        let mut about = inner.about().clone();
        let names: Vec<String> = grants.iter().map(|access| access.to_string()).collect();
        about.name = format!("{} (only {})", about.name, names.join(", "));
        Self {
            inner,
            about,
            grants,
        }
    }

    /// The same target, granting labels alone.
    pub fn labels(inner: T) -> Self {
        Self::new(inner, Grants::of(&[Access::Labels]))
    }
}

impl<T: Target> Target for Only<T> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        self.inner.grants().and(self.grants)
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        self.inner.observe(queries, asked)
    }

    fn weights(&self) -> Result<Differentiable, TargetError> {
        if self.grants().contains(Access::Weights) {
            return self.inner.weights();
        }
        Err(denied(&self.about, Access::Weights))
    }
}

fn denied(about: &About, access: Access) -> TargetError {
    TargetError::Denied(Denied {
        access,
        target: about.name.clone(),
    })
}

/// A target that rounds what it publishes, and gives neither what it decrypted nor
/// its weights.
#[derive(Debug)]
pub struct Rounded<T> {
    inner: T,
    about: About,
    decimals: i32,
}

impl<T: Target> Rounded<T> {
    /// The same target, its scores rounded to so many decimal places.
    pub fn new(inner: T, decimals: u8) -> Self {
        let mut about = inner.about().clone();
        about.name = format!("{} (rounded to {decimals} decimals)", about.name);
        Self {
            inner,
            about,
            decimals: i32::from(decimals),
        }
    }
}

impl<T: Target> Target for Rounded<T> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        let hidden = Grants::of(&[Access::Decrypted, Access::Weights]);
        self.inner.grants().without(hidden)
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let mut answers = self.inner.observe(queries, asked)?;
        let unit = 10f64.powi(self.decimals);
        for score in answers.scores.values_mut() {
            *score = (*score * unit).round() / unit;
        }
        Ok(answers)
    }
}

/// A target that answers so many queries and no more.
#[derive(Debug)]
pub struct Budget<T> {
    inner: T,
    about: About,
    budget: u64,
    used: u64,
}

impl<T: Target> Budget<T> {
    /// The same target with a budget.
    pub fn new(inner: T, budget: u64) -> Self {
        let mut about = inner.about().clone();
        about.name = format!("{} (at most {budget} queries)", about.name);
        Self {
            inner,
            about,
            budget,
            used: 0,
        }
    }
}

impl<T: Target> Target for Budget<T> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        self.inner.grants()
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let more = queries.len() as u64;
        if more > self.budget - self.used {
            return Err(TargetError::Budget {
                target: self.about.name.clone(),
                budget: self.budget,
                used: self.used,
                asked: more,
            });
        }
        let answers = self.inner.observe(queries, asked)?;
        self.used += more;
        Ok(answers)
    }

    fn weights(&self) -> Result<Differentiable, TargetError> {
        self.inner.weights()
    }
}

/// A target with Gaussian noise on every logit. It stands in for encryption in
/// tests; figures about encryption come from encrypted targets alone.
#[derive(Debug)]
pub struct Noisy {
    inner: Plain,
    about: About,
    deviation: f64,
    rng: ChaCha8Rng,
}

impl Noisy {
    /// A network in the clear with noise of this standard deviation.
    #[must_use]
    pub fn new(inner: Plain, deviation: f64, seed: u64) -> Self {
        let mut about = inner.about().clone();
        about.name = format!("{} (noise {deviation:e})", about.name);
        Self {
            inner,
            about,
            deviation,
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }
}

impl Target for Noisy {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        Plain::GRANTS
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let scores = Grants::of(&[Access::Scores]);
        let mut noisy = self.inner.observe(queries, scores)?.scores;
        for score in noisy.values_mut() {
            *score += self.deviation * random::normal(&mut self.rng);
        }
        let mut answers = Answers::default();
        if asked.contains(Access::Labels) {
            answers.labels = classes(&noisy);
        }
        if asked.contains(Access::Decrypted) {
            answers.decrypted = noisy.clone();
        }
        if asked.contains(Access::Scores) {
            answers.scores = noisy;
        }
        Ok(answers)
    }

    fn weights(&self) -> Result<Differentiable, TargetError> {
        self.inner.weights()
    }
}

/// The bundled networks for images with the data set that each is for.
///
/// # Errors
/// [`NetworkError`] for a bundled file that is damaged.
pub fn bundled_images() -> Result<Vec<Plain>, NetworkError> {
    let mut targets = Vec::new();
    for name in bundled::model_names() {
        let file = bundled::model(name).unwrap_or_default();
        let model: Result<Model<'_>, ModelError> = Model::parse(file);
        if model?.inputs() != he_nn::data::PIXELS {
            continue;
        }
        let dataset = if name.starts_with("fashion") {
            "fashion-mnist"
        } else {
            "mnist"
        };
        targets.push(Plain::from_file(file, dataset)?);
    }
    Ok(targets)
}
