//! What an attack is, and what it runs on.

use std::time::Instant;

use he_core::Params;
use he_nn::data::Dataset;
use he_nn::progress::Progress;
use serde_json::{Map, Value};

use crate::network::NetworkError;
use crate::paper::Table;
use crate::record::{Finding, Picture, RecordError, Recorder, Scale, Step};
use crate::target::{Denied, Deploy, Evaluation, Grants, Target, TargetError, View};
use crate::trainer::TrainerError;

/// An attack.
pub trait Attack: Sync {
    /// Its name, as a command calls it: small letters, digits and `-`.
    fn name(&self) -> &'static str;

    /// What it does, in one sentence.
    fn about(&self) -> &'static str;

    /// The access that it needs; what it does not declare here, it is denied.
    fn access(&self) -> Grants;

    /// What it is carried out on.
    fn subject(&self) -> Subject {
        Subject::Networks
    }

    /// The papers' tables that it fills; none, if it is not theirs.
    fn tables(&self) -> &'static [Table] {
        &[]
    }

    /// Carries it out on everything in the context.
    ///
    /// # Errors
    /// [`AttackError`]. An access that a target does not grant is none: it becomes a
    /// record.
    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError>;

    /// Small experiments of which the outcome is known, at least one that must succeed
    /// and one that must fail. A test runs them all, from bundled or synthetic data.
    fn controls(&self) -> Vec<Control<'_>>;
}

/// What attacks are carried out on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Networks: [`Context::each_target`].
    Networks,
    /// The scheme and the rules of whoever holds its key, whatever is computed:
    /// [`Context::each_scheme`].
    Schemes,
}

/// Why an attack ended without its results.
#[derive(Debug, thiserror::Error)]
pub enum AttackError {
    /// A target's.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A network's.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Training's.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// The recorder's.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The scheme's.
    #[error(transparent)]
    Scheme(#[from] he_core::Error),
    /// The machine learning library failed.
    #[error("a tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// Data that the attack needs are not there.
    #[error("{attack} needs {what}; give more data")]
    Data {
        /// Which attack.
        attack: &'static str,
        /// What is missing.
        what: String,
    },
}

impl From<Denied> for AttackError {
    fn from(denied: Denied) -> Self {
        Self::Target(denied.into())
    }
}

/// What a control's outcome must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Must {
    /// Positive: a broken attack shows here.
    Succeed,
    /// Negative: an attack that claims success whatever happens shows here.
    Fail,
}

/// How a control came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Whether the attack succeeded, by the control's own bar.
    pub succeeded: bool,
    /// The figure.
    pub value: f64,
    /// The bar.
    pub bar: f64,
}

/// A control's experiment, of a seed.
type Experiment<'a> = Box<dyn Fn(u64) -> Result<Outcome, AttackError> + 'a>;

/// A small experiment of known outcome.
pub struct Control<'a> {
    /// What it is.
    pub name: &'static str,
    /// How it must come out.
    pub must: Must,
    /// The experiment.
    pub run: Experiment<'a>,
}

impl Control<'_> {
    /// Whether it comes out as it must, and how.
    ///
    /// # Errors
    /// [`AttackError`] where it came to no outcome.
    pub fn holds(&self, seed: u64) -> Result<(bool, Outcome), AttackError> {
        let outcome = (self.run)(seed)?;
        Ok((outcome.succeeded == (self.must == Must::Succeed), outcome))
    }
}

/// Images to attack with, in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// `mnist`, `fashion-mnist`, or another name that targets refer to.
    pub name: String,
    /// The training split.
    pub train: Dataset,
    /// The test split.
    pub test: Dataset,
}

/// A run: how much, from which seed, and where results go.
pub struct Run<'c> {
    /// How much work.
    pub scale: Scale,
    /// Of everything random. Derive from it, and from nothing else.
    pub seed: u64,
    /// Is told how far the run is.
    pub progress: &'c mut dyn Progress,
    /// Where records go.
    pub recorder: Recorder<'c>,
}

impl Run<'_> {
    /// One of two values, by the scale.
    #[must_use]
    pub fn by_scale<T>(&self, quick: T, full: T) -> T {
        match self.scale {
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }

    /// Keeps a picture. What is no letter, digit, `-` or `.` in its name becomes `-`.
    ///
    /// # Errors
    /// [`AttackError::Record`].
    pub fn picture(&mut self, name: &str, picture: &Picture) -> Result<(), AttackError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let name = name.replace(|c: char| !plain(c), "-");
        Ok(self.recorder.picture(&name, picture)?)
    }
}

/// Everything that an attack runs on.
pub struct Context<'c> {
    /// Targets. An attack reaches them through [`Self::each_target`] alone.
    targets: &'c mut [Box<dyn Target>],
    /// The data sets.
    pub data: &'c [Data],
    /// The parameter sets that attacks on the scheme run on.
    pub schemes: &'c [&'static Params],
    /// Deploys what an attack trains to attack it, where encryption is at hand.
    pub deploy: Option<&'c dyn Deploy>,
    /// The run.
    pub run: Run<'c>,
}

impl<'c> Context<'c> {
    /// Targets and data of a run, without encryption for targets that attacks train.
    pub const fn new(targets: &'c mut [Box<dyn Target>], data: &'c [Data], run: Run<'c>) -> Self {
        Self {
            targets,
            data,
            schemes: &[],
            deploy: None,
            run,
        }
    }

    /// The same with parameter sets, without which attacks on the scheme do nothing.
    #[must_use]
    pub fn on_schemes(self, schemes: &'c [&'static Params]) -> Self {
        Self { schemes, ..self }
    }

    /// The same with encryption for targets that attacks train.
    #[must_use]
    pub fn deploying(self, deploy: &'c dyn Deploy) -> Self {
        Self {
            deploy: Some(deploy),
            ..self
        }
    }

    /// Works on every target that has its data here. Where a target does not grant
    /// what the attack declares, a record says so and the work is left out.
    ///
    /// # Errors
    /// The work's.
    pub fn each_target(
        &mut self,
        attack: &dyn Attack,
        mut work: impl FnMut(&mut Case<'_, 'c>) -> Result<(), AttackError>,
    ) -> Result<(), AttackError> {
        for target in self.targets.iter_mut() {
            let name = &target.about().dataset;
            let Some(data) = self.data.iter().find(|data| data.name == *name) else {
                continue;
            };
            let run = &mut self.run;
            on(attack, target.as_mut(), data, run, &mut work)?;
        }
        Ok(())
    }

    /// Works on every parameter set: the attacker's side and the holder's are the
    /// work's.
    ///
    /// # Errors
    /// The work's.
    pub fn each_scheme(
        &mut self,
        attack: &dyn Attack,
        mut work: impl FnMut(&mut SchemeCase<'_, 'c>) -> Result<(), AttackError>,
    ) -> Result<(), AttackError> {
        for params in self.schemes {
            work(&mut SchemeCase {
                attack: attack.name(),
                target: params.name(),
                params,
                queries: 0,
                run: &mut self.run,
            })?;
        }
        Ok(())
    }

    /// Works on what an attack on the scheme has under a name of its own.
    ///
    /// # Errors
    /// The work's.
    pub fn own_scheme(
        &mut self,
        attack: &dyn Attack,
        target: &str,
        params: &'static Params,
        work: impl FnOnce(&mut SchemeCase<'_, 'c>) -> Result<(), AttackError>,
    ) -> Result<(), AttackError> {
        work(&mut SchemeCase {
            attack: attack.name(),
            target,
            params,
            queries: 0,
            run: &mut self.run,
        })
    }

    /// Works on a target that the attack made itself, such as one that was trained on
    /// known members.
    ///
    /// # Errors
    /// The work's.
    pub fn own_target(
        &mut self,
        attack: &dyn Attack,
        target: &mut dyn Target,
        data: &Data,
        mut work: impl FnMut(&mut Case<'_, 'c>) -> Result<(), AttackError>,
    ) -> Result<(), AttackError> {
        on(attack, target, data, &mut self.run, &mut work)
    }
}

fn on<'c>(
    attack: &dyn Attack,
    target: &mut dyn Target,
    data: &Data,
    run: &mut Run<'c>,
    work: &mut dyn FnMut(&mut Case<'_, 'c>) -> Result<(), AttackError>,
) -> Result<(), AttackError> {
    let mut case = Case {
        attack: attack.name(),
        target: View::new(target, attack.access()),
        data,
        run,
        shared: (0, 0.0),
    };
    if let Err(denied) = case.target.require(attack.access()) {
        let nothing = Map::new();
        return case.step(nothing, |_| Err(denied.clone().into()));
    }
    work(&mut case)
}

/// One attack on one target with its data.
pub struct Case<'t, 'c> {
    attack: &'static str,
    /// The target as this attack sees it.
    pub target: View<'t>,
    /// The data that it was trained for.
    pub data: &'t Data,
    /// The run.
    pub run: &'t mut Run<'c>,
    /// Queries and seconds of work that several steps share, due to the next one.
    shared: (u64, f64),
}

impl Case<'_, '_> {
    /// Whether to ask for little: in a quick run, of a target with encrypted weights,
    /// which evaluates every query alone.
    #[must_use]
    pub fn sparing(&self) -> bool {
        let alone = self.target.about().evaluation == Evaluation::EncryptedWeights;
        alone && self.run.scale == Scale::Quick
    }

    /// Whether it is a quick run on an encrypted target, of whatever weights: attacks
    /// of thousands of queries per sample then take one sample.
    #[must_use]
    pub fn one_sample(&self) -> bool {
        let clear = self.target.about().evaluation == Evaluation::Clear;
        !clear && self.run.scale == Scale::Quick
    }

    /// Does one step of work and records its findings, unless they are recorded
    /// already. `params` are a JSON object's members, see [`params`].
    ///
    /// # Errors
    /// The work's; but [`Denied`] becomes a record.
    pub fn step(
        &mut self,
        params: Map<String, Value>,
        work: impl FnOnce(&mut Self) -> Result<Vec<Finding>, AttackError>,
    ) -> Result<(), AttackError> {
        let step = self.of(params);
        if self.is_recorded(&step) {
            return Ok(());
        }
        self.run
            .progress
            .note(&format!("{} on {}", step.attack, step.target));
        let (before, start) = (self.target.queries(), Instant::now());
        let findings = match work(self) {
            Err(AttackError::Target(TargetError::Denied(denied))) => {
                vec![Finding::not_applicable(&denied.to_string())]
            }
            other => other?,
        };
        let (shared, before_it) = std::mem::take(&mut self.shared);
        let queries = self.target.queries() - before + shared;
        let seconds = start.elapsed().as_secs_f64() + before_it;
        Ok(self.run.recorder.write(&step, findings, queries, seconds)?)
    }

    fn of(&self, params: Map<String, Value>) -> Step {
        Step {
            attack: self.attack.to_owned(),
            target: self.target.about().name.clone(),
            dataset: self.data.name.clone(),
            params,
            scale: self.run.scale,
            seed: self.run.seed,
        }
    }

    fn is_recorded(&self, step: &Step) -> bool {
        // A target that denied it may grant it now, and is asked again.
        let whole = self.run.recorder.whole(step);
        whole.is_some_and(|records| records.iter().all(|record| record.value.is_some()))
    }

    /// Whether [`Self::step`] has nothing to do for these parameters.
    #[must_use]
    pub fn is_done(&self, params: &Map<String, Value>) -> bool {
        self.is_recorded(&self.of(params.clone()))
    }

    /// Adds to what the step that is under way, or else the next one, took: queries whose
    /// answers it has from work that steps share, and seconds of that work.
    pub const fn shares(&mut self, queries: u64, seconds: f64) {
        self.shared.0 += queries;
        self.shared.1 += seconds;
    }
}

/// The data of an attack on the scheme, in records.
pub const NO_DATA: &str = "none";

/// One attack on one parameter set.
pub struct SchemeCase<'t, 'c> {
    attack: &'static str,
    target: &'t str,
    /// The set.
    pub params: &'static Params,
    /// What the holder of the key was asked in this step: the work counts.
    pub queries: u64,
    /// The run.
    pub run: &'t mut Run<'c>,
}

impl SchemeCase<'_, '_> {
    /// Does one step of work and records its findings, unless they are recorded
    /// already.
    ///
    /// # Errors
    /// The work's.
    pub fn step(
        &mut self,
        params: Map<String, Value>,
        work: impl FnOnce(&mut Self) -> Result<Vec<Finding>, AttackError>,
    ) -> Result<(), AttackError> {
        let step = Step {
            attack: self.attack.to_owned(),
            target: self.target.to_owned(),
            dataset: NO_DATA.to_owned(),
            params,
            scale: self.run.scale,
            seed: self.run.seed,
        };
        if self.run.recorder.whole(&step).is_some() {
            return Ok(());
        }
        self.run
            .progress
            .note(&format!("{} on {}", step.attack, step.target));
        self.queries = 0;
        let start = Instant::now();
        let findings = work(self)?;
        let seconds = start.elapsed().as_secs_f64();
        let queries = self.queries;
        Ok(self.run.recorder.write(&step, findings, queries, seconds)?)
    }
}

/// The parameters of a step, by name.
#[must_use]
pub fn params<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    let named = members.map(|(name, value)| (name.to_owned(), value));
    named.into_iter().collect()
}
