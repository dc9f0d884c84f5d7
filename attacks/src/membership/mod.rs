//! Membership inference: was this sample in the training set? (Xiang, Dalla, Wu 2025,
//! Table 1; Shin, Choi, Choi 2021, section 5.3, Tables 6 and 7.)
//!
//! Who trained the bundled networks is known, but not on a random half: a training
//! split against a test split measures how the two were collected as well. So these
//! attacks train targets of their own, each on a random half of one pool, and members
//! and non-members come from that pool alone ([`Subject`]). One target is well fitted
//! and one overfitted, each with squares and with rectifiers; weights have 8 bits, as
//! those of a deployment. Attackers know the architecture and how it was trained, have
//! other data of the same source, and see the scores.
//!
//! Thresholds are fixed on shadow models and never on the target. Beside every AUC
//! stand two baselines: `gap` calls a member what the target classifies rightly, and
//! `blind` asks another network and never the target.
//!
//! Every target is attacked in the clear, and those with squares behind encryption too
//! where the run can deploy them ([`crate::Deploy`]). An attack on decrypted scores does
//! not depend on encryption other than by its noise, so what it gains should not either.

pub mod countermeasures;
pub mod defence;
pub mod lira;
pub mod one_run;
pub mod rmia;
pub mod shadow;
pub mod threshold;

use std::sync::atomic::{AtomicUsize, Ordering};

use chacha20::ChaCha8Rng;
use he_nn::data::{CLASSES, Dataset};
use he_nn::network::Network;
use rand_core::SeedableRng;

use self::defence::Defence;
use crate::attack::{Attack, AttackError, Case, Context, Control, Data, Must, Outcome};
use crate::network::Differentiable;
use crate::plain::{Only, Plain, classes};
use crate::random;
use crate::record::{Finding, Scale};
use crate::stats::{RESAMPLES, auc, auc_estimate, bootstrap, rate_above, threshold_at};
use crate::synthetic;
use crate::target::{
    About, Access, Activation, Answers, Deploy, Evaluation, Grants, Made, Rows, Target, TargetError,
};

/// What these attacks need.
pub const ACCESS: Grants = Grants::of(&[Access::Scores]);

/// Samples that are evaluated at once, to bound the memory.
const BATCH: usize = 1024;

/// How far above one half an AUC must lie to count.
pub(crate) const MARGIN: f64 = 0.01;

/// Images with their labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Pixels from 0 to 1, one image per row.
    pub inputs: Rows,
    /// Their classes.
    pub labels: Vec<u8>,
}

impl Samples {
    /// Some of a data set.
    #[must_use]
    pub fn of(data: &Dataset, indices: &[usize]) -> Self {
        Self {
            inputs: Rows::images(indices.iter().map(|&i| &data.images[i])),
            labels: indices.iter().map(|&i| data.labels[i]).collect(),
        }
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Those of a mask.
    #[must_use]
    pub fn masked(&self, mask: &[bool]) -> Self {
        let indices: Vec<usize> = (0..self.len()).filter(|&i| mask[i]).collect();
        Self {
            inputs: self.inputs.select(&indices),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        }
    }

    /// The first of them.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let mask: Vec<bool> = (0..self.len()).map(|i| i < count).collect();
        self.masked(&mask)
    }
}

/// A mask with half of so many set, at random.
pub fn random_half(count: usize, rng: &mut ChaCha8Rng) -> Vec<bool> {
    let mut mask: Vec<bool> = (0..count).map(|i| i < count / 2).collect();
    random::shuffle(&mut mask, rng);
    mask
}

/// How a target and its shadow models are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// What it is to show.
    pub name: &'static str,
    /// Samples of the pool, of which half are members.
    pub pool: usize,
    /// Hidden units.
    pub hidden: u16,
    /// What stands between its two dense layers.
    pub activation: Activation,
    /// Passes over the members.
    pub epochs: usize,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// What else is done in training.
    pub defence: Defence,
}

impl Setting {
    /// What every attack here runs on.
    fn all(scale: Scale) -> Vec<Self> {
        let of = |activation| {
            let (well, over) = match scale {
                Scale::Quick => (2000, 600),
                Scale::Full => (12_000, 2000),
            };
            [
                Self {
                    name: "well-fitted",
                    pool: well,
                    hidden: 64,
                    activation,
                    epochs: 5,
                    weight_decay: 0.05,
                    defence: Defence::None,
                },
                Self {
                    name: "overfitted",
                    pool: over,
                    hidden: 64,
                    activation,
                    epochs: 40,
                    weight_decay: 0.0,
                    defence: Defence::None,
                },
            ]
        };
        [Activation::Polynomial, Activation::Relu]
            .into_iter()
            .flat_map(of)
            .collect()
    }

    /// A network trained on these samples, as it is deployed: with weights of 8 bits.
    ///
    /// # Errors
    /// The trainer's.
    fn network(&self, samples: &Samples, seed: u64) -> Result<Network<i16>, AttackError> {
        Ok(self.fitted(samples, seed)?.quantized())
    }

    /// The same, to evaluate it in the clear.
    ///
    /// # Errors
    /// The trainer's.
    fn trained(&self, samples: &Samples, seed: u64) -> Result<Differentiable, AttackError> {
        let network = self.network(samples, seed)?;
        Ok(Differentiable::from_network(&network)?)
    }

    /// One network per mask, trained on what it selects, on all cores. The seed of each
    /// depends on its place alone.
    ///
    /// # Errors
    /// The trainer's.
    fn shadows(
        &self,
        samples: &Samples,
        masks: &[Vec<bool>],
        seed: u64,
    ) -> Result<Vec<Differentiable>, AttackError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(mask) = masks.get(at) else {
                    return done;
                };
                let own = seed_of(seed, SHADOW + at as u64);
                done.push((at, self.trained(&samples.masked(mask), own)));
            }
        };
        let mut all = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..cores.min(masks.len()))
                .map(|_| scope.spawn(worker))
                .collect();
            let joined = workers.into_iter().flat_map(|worker| {
                let panicked = |payload| std::panic::resume_unwind(payload);
                worker.join().unwrap_or_else(panicked)
            });
            joined.collect::<Vec<_>>()
        });
        all.sort_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, network)| network).collect()
    }
}

/// Streams of seeds.
const TARGET: u64 = 1;
const SPLIT: u64 = 2;
const MASKS: u64 = 3;
const SHADOW: u64 = 1000;

/// A seed of its own for each use.
pub(crate) fn seed_of(seed: u64, stream: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rand_core::Rng::next_u64(&mut rng)
}

/// A target with the data around it: four parts of one data set, drawn at random and
/// disjoint.
#[derive(Clone, Debug)]
pub struct Subject {
    /// How it is made.
    pub setting: Setting,
    /// What the target's members and non-members come from.
    pub pool: Samples,
    /// Which of the pool it was trained on.
    pub members: Vec<bool>,
    /// The attacker's, for shadow models.
    pub shadow: Samples,
    /// The attacker's, for reference models.
    pub reference: Samples,
    /// The attacker's, in no model.
    pub population: Samples,
    /// Of everything random.
    pub seed: u64,
}

impl Subject {
    /// Draws the parts, each of at most the setting's pool and a quarter of the data.
    #[must_use]
    pub fn new(setting: Setting, data: &Dataset, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..data.labels.len()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed_of(seed, SPLIT));
        random::shuffle(&mut order, &mut rng);
        let size = setting.pool.min(order.len() / 4);
        let part = |at: usize| Samples::of(data, &order[at * size..(at + 1) * size]);
        Self {
            setting,
            pool: part(0),
            members: random_half(size, &mut rng),
            shadow: part(1),
            reference: part(2),
            population: part(3),
            seed,
        }
    }

    /// So many masks over as many samples as the pool has.
    fn masks(&self, count: usize) -> Vec<Vec<bool>> {
        self.masks_over(self.pool.len(), count)
    }

    /// So many masks over so many samples.
    fn masks_over(&self, samples: usize, count: usize) -> Vec<Vec<bool>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed_of(self.seed, MASKS));
        let masks = (0..count).map(|_| random_half(samples, &mut rng));
        masks.collect()
    }

    /// The target in the clear.
    fn target(&self, dataset: &str) -> Trained<'static> {
        self.target_of(dataset, Evaluation::Clear, None)
    }

    fn target_of<'d>(
        &self,
        dataset: &str,
        evaluation: Evaluation,
        deploy: Option<&'d dyn Deploy>,
    ) -> Trained<'d> {
        let kind = match self.setting.activation {
            Activation::Polynomial => "square",
            Activation::Relu => "relu",
        };
        let where_to = match evaluation {
            Evaluation::Clear => "",
            Evaluation::Encrypted => ", encrypted",
            Evaluation::EncryptedWeights => ", encrypted-weights",
        };
        let about = About {
            name: format!("{} {kind}{where_to}", self.setting.name),
            dataset: dataset.to_owned(),
            inputs: self.pool.inputs.width(),
            classes: CLASSES,
            activation: self.setting.activation,
            evaluation,
        };
        Trained {
            about,
            members: self.pool.masked(&self.members),
            pool: self.pool.inputs.clone(),
            setting: self.setting,
            seed: seed_of(self.seed, TARGET),
            deploy,
            network: None,
            answered: Vec::new(),
        }
    }

    /// How the target is evaluated: with squares behind encryption too, where that can
    /// be had. With encrypted weights every sample is evaluated alone, so that in a quick
    /// run only the smaller pool is.
    fn evaluations(&self, encrypted: bool, scale: Scale) -> &'static [Evaluation] {
        const ALL: &[Evaluation] = &[
            Evaluation::Clear,
            Evaluation::Encrypted,
            Evaluation::EncryptedWeights,
        ];
        if !encrypted || self.setting.activation == Activation::Relu {
            &ALL[..1]
        } else if scale == Scale::Quick && self.pool.len() > SMALL {
            &ALL[..2]
        } else {
            ALL
        }
    }
}

/// Samples of a pool that encrypted weights are quick enough for.
const SMALL: usize = 1000;

/// Batches of which an attacker keeps the answers.
const KEPT: usize = 2;

/// The target of a [`Subject`]. It is trained when it is first asked, so that a run
/// that goes on after an interruption trains none in vain.
struct Trained<'d> {
    about: About,
    members: Samples,
    /// Members and non-members alike, for the ranges of a deployment.
    pool: Rows,
    setting: Setting,
    seed: u64,
    deploy: Option<&'d dyn Deploy>,
    network: Option<Box<dyn Target>>,
    /// Queries and scores: whoever asks the same again has the answer already.
    answered: Vec<(Rows, Rows)>,
}

impl Trained<'_> {
    fn deployed(&self) -> Result<Box<dyn Target>, AttackError> {
        let About { name, dataset, .. } = &self.about;
        let network = self.setting.network(&self.members, self.seed)?;
        if let (Some(deploy), true) = (self.deploy, self.about.evaluation != Evaluation::Clear) {
            let made = Made {
                name: self.setting.name,
                dataset,
                network: &network,
                samples: &self.pool,
            };
            return Ok(deploy.deploy(made, self.about.evaluation)?);
        }
        let network = Differentiable::from_network(&network)?;
        let plain = Plain::new(name, dataset, self.setting.activation, network);
        Ok(Box::new(plain))
    }
}

impl Target for Trained<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        Plain::GRANTS.without(Grants::of(&[Access::Weights]))
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let known = self.answered.iter().find(|(asked, _)| asked == queries);
        if let (Some((_, scores)), ACCESS) = (known, asked) {
            return Ok(Answers {
                scores: scores.clone(),
                ..Answers::default()
            });
        }
        if self.network.is_none() {
            let network = self.deployed().map_err(|source| TargetError::Failed {
                target: self.about.name.clone(),
                source: source.into(),
            })?;
            self.network = Some(network);
        }
        let Some(network) = &mut self.network else {
            return Ok(Answers::default());
        };
        let answers = network.observe(queries, asked)?;
        if asked == ACCESS {
            self.answered.truncate(KEPT - 1);
            let answered = (queries.clone(), answers.scores.clone());
            self.answered.insert(0, answered);
        }
        Ok(answers)
    }
}

/// Works on every target that these attacks train, and on one that gives labels alone.
/// `T` is what the attacker trains against a subject, however it is evaluated.
fn each_subject<T>(
    attack: &dyn Attack,
    context: &mut Context<'_>,
    work: impl FnMut(&mut Case<'_, '_>, &Subject, &mut Option<T>) -> Result<(), AttackError>,
) -> Result<(), AttackError> {
    let settings = Setting::all(context.run.scale);
    each_subject_of(attack, context, &settings, |_| {}, work)
}

/// Works on targets of these settings. `prepare` changes what is in a subject before its
/// target is trained.
fn each_subject_of<T>(
    attack: &dyn Attack,
    context: &mut Context<'_>,
    settings: &[Setting],
    prepare: impl Fn(&mut Subject),
    mut work: impl FnMut(&mut Case<'_, '_>, &Subject, &mut Option<T>) -> Result<(), AttackError>,
) -> Result<(), AttackError> {
    let (all, seed): (&[Data], u64) = (context.data, context.run.seed);
    let (deploy, scale) = (context.deploy, context.run.scale);
    for data in all {
        for &setting in settings {
            let mut subject = Subject::new(setting, &data.train, seed);
            if subject.members.len() < 2 {
                return Err(AttackError::Data {
                    attack: attack.name(),
                    what: format!("8 training images of {} at least", data.name),
                });
            }
            prepare(&mut subject);
            let mut trained = None;
            for &evaluation in subject.evaluations(deploy.is_some(), scale) {
                let mut target = subject.target_of(&data.name, evaluation, deploy);
                let mut work = |case: &mut Case<'_, '_>| work(case, &subject, &mut trained);
                context.own_target(attack, &mut target, data, &mut work)?;
            }
            let mut labels = Only::labels(subject.target(&data.name));
            let mut work = |case: &mut Case<'_, '_>| work(case, &subject, &mut trained);
            context.own_target(attack, &mut labels, data, &mut work)?;
        }
    }
    Ok(())
}

/// The logits of one sample, less their maximum.
fn log_sum_exp(logits: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + logits.map(|z| (z - top).exp()).sum::<f64>().ln()
}

/// `log p_y - log` of the sum of the others, from the logits and in `f64`: softmax in
/// single precision would round a sixth of the samples to 1 (Carlini et al. 2022,
/// section VI.A).
#[must_use]
pub fn margin(logits: &[f64], label: u8) -> f64 {
    let label = usize::from(label);
    let others = logits.iter().enumerate().filter(|(i, _)| *i != label);
    logits[label] - log_sum_exp(others.map(|(_, &z)| z))
}

/// `log p_y`.
#[must_use]
pub fn log_probability(logits: &[f64], label: u8) -> f64 {
    logits[usize::from(label)] - log_sum_exp(logits.iter().copied())
}

/// [`margin`] of every sample.
pub(crate) fn margins(logits: &Rows, labels: &[u8]) -> Vec<f64> {
    let rows = logits.iter().zip(labels);
    rows.map(|(row, &label)| margin(row, label)).collect()
}

/// Scores of members and of non-members; higher speaks for a member.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scored {
    /// Of members.
    pub members: Vec<f64>,
    /// Of the others.
    pub others: Vec<f64>,
}

impl Scored {
    /// Parts scores by who is a member.
    #[must_use]
    pub fn of(scores: &[f64], members: &[bool]) -> Self {
        let mut scored = Self::default();
        scored.extend(scores, members);
        scored
    }

    /// Adds scores.
    pub fn extend(&mut self, scores: &[f64], members: &[bool]) {
        for (&score, &member) in scores.iter().zip(members) {
            let side = if member {
                &mut self.members
            } else {
                &mut self.others
            };
            side.push(score);
        }
    }

    /// The area under the ROC curve.
    #[must_use]
    pub fn auc(&self) -> f64 {
        auc(&self.members, &self.others)
    }

    /// The ROC curve: false positive rate and true positive rate at every threshold.
    #[must_use]
    pub fn roc(&self) -> Vec<(f64, f64)> {
        let mut all: Vec<(f64, bool)> = self.members.iter().map(|&s| (s, true)).collect();
        all.extend(self.others.iter().map(|&s| (s, false)));
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut hits, mut alarms) = (0usize, 0usize);
        let rate = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let (members, others) = (self.members.len(), self.others.len());
        let tied = all.chunk_by(|a, b| a.0 == b.0).map(|tied| {
            let found = tied.iter().filter(|(_, member)| *member).count();
            hits += found;
            alarms += tied.len() - found;
            (rate(alarms, others), rate(hits, members))
        });
        std::iter::once((0.0, 0.0)).chain(tied).collect()
    }

    /// The threshold above which calling a member is right most often.
    #[must_use]
    pub fn best_threshold(&self) -> f64 {
        let mut all: Vec<(f64, bool)> = self.members.iter().map(|&s| (s, true)).collect();
        all.extend(self.others.iter().map(|&s| (s, false)));
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Below everything, all are called members.
        let mut right = self.members.len();
        let (mut best, mut threshold) = (right, f64::NEG_INFINITY);
        for tied in all.chunk_by(|a, b| a.0 == b.0) {
            let members = tied.iter().filter(|(_, member)| *member).count();
            right = right + (tied.len() - members) - members;
            if right > best {
                (best, threshold) = (right, tied[0].0);
            }
        }
        threshold
    }
}

/// What AUCs stand beside.
#[derive(Clone, Copy, Debug)]
struct Baselines {
    gap: f64,
    blind: f64,
}

impl Baselines {
    /// From the target's logits on the pool and those of a network that has nothing to
    /// do with it.
    fn new(subject: &Subject, logits: &Rows, blind: &Rows) -> Self {
        let labels = &subject.pool.labels;
        let right: Vec<f64> = classes(logits)
            .iter()
            .zip(labels)
            .map(|(a, b)| f64::from(u8::from(a == b)))
            .collect();
        let of = |scores: &[f64]| Scored::of(scores, &subject.members).auc();
        Self {
            gap: of(&right),
            blind: of(&margins(blind, labels)),
        }
    }
}

/// The share of members among those called so where this share of all samples are
/// members; the prior itself where nobody is called.
fn ppv(prior: f64, true_rate: f64, false_rate: f64) -> f64 {
    let called = prior.mul_add(true_rate, (1.0 - prior) * false_rate);
    if called > 0.0 {
        prior * true_rate / called
    } else {
        prior
    }
}

/// AUC, true positive rates at low false positive rates with thresholds from shadow
/// models (and the rates that really came out), and the worth of a positive answer at
/// priors of 1, 10 and 50 %.
fn findings(found: &Scored, shadow: &Scored, baselines: Baselines, seed: u64) -> Vec<Finding> {
    let mut all = vec![
        Finding::new("auc", auc_estimate(&found.members, &found.others, seed))
            .baseline("chance", 0.5)
            .baseline("gap", baselines.gap)
            .baseline("blind", baselines.blind)
            .succeeds_above(0.5, MARGIN),
    ];
    for (name, rate) in [("1_percent", 0.01), ("0.1_percent", 0.001)] {
        let threshold = threshold_at(&shadow.others, rate);
        let came_out = rate_above(&found.others, threshold);
        all.push(
            Finding::new(
                &format!("tpr_at_fpr_{name}"),
                rate_above(&found.members, threshold),
            )
            .baseline("chance", rate)
            .baseline("fpr_that_came_out", came_out.value)
            .succeeds_above(rate.max(came_out.ci95[1]), 0.0),
        );
        all.push(Finding::new(&format!("fpr_for_{name}"), came_out).baseline("aim", rate));
    }
    let threshold = threshold_at(&shadow.others, 0.01);
    let split = found.members.len();
    let count = split + found.others.len();
    for (name, prior) in [("1", 0.01), ("10", 0.1), ("50", 0.5)] {
        let estimate = bootstrap(count, RESAMPLES, seed, |drawn| {
            let (mut members, mut others, mut hits, mut alarms) = (0u32, 0u32, 0u32, 0u32);
            for &i in drawn {
                if i < split {
                    members += 1;
                    hits += u32::from(found.members[i] > threshold);
                } else {
                    others += 1;
                    alarms += u32::from(found.others[i - split] > threshold);
                }
            }
            let rate = |part: u32, whole: u32| f64::from(part) / f64::from(whole.max(1));
            ppv(prior, rate(hits, members), rate(alarms, others))
        });
        let name = format!("ppv_at_prior_{name}_percent");
        all.push(Finding::new(&name, estimate).baseline("prior", prior));
    }
    all
}

/// What a control changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twist {
    /// Nothing: the target learned its members by heart.
    None,
    /// The target was trained on other samples than those called its members.
    Stranger,
    /// The attack is broken on purpose.
    Broken,
}

/// An AUC that a control must exceed: on 100 samples, chance stays below .65.
const BAR: f64 = 0.75;

/// Controls on noise with labels that mean nothing. `scores` attacks the target's
/// logits on the pool, and is told whether to break.
fn controls(
    scores: fn(&Subject, &Rows, bool) -> Result<Vec<f64>, AttackError>,
) -> Vec<Control<'static>> {
    let control = move |name, must, twist: Twist| Control {
        name,
        must,
        run: Box::new(move |seed| {
            let setting = Setting {
                name: "by heart",
                pool: 100,
                hidden: 32,
                activation: Activation::Polynomial,
                epochs: 20,
                weight_decay: 0.0,
                defence: Defence::None,
            };
            let subject = Subject::new(setting, &synthetic::noise(400, seed), seed);
            let mut target = subject.target("noise");
            if twist == Twist::Stranger {
                target.members = subject.population.first(subject.pool.len() / 2);
            }
            let logits = target.observe(&subject.pool.inputs, ACCESS)?.scores;
            let broken = twist == Twist::Broken;
            let found = scores(&subject, &logits, broken)?;
            let value = Scored::of(&found, &subject.members).auc();
            Ok(Outcome {
                succeeded: value > BAR,
                value,
                bar: BAR,
            })
        }),
    };
    vec![
        control("members learned by heart", Must::Succeed, Twist::None),
        control("trained on others", Must::Fail, Twist::Stranger),
        control("broken on purpose", Must::Fail, Twist::Broken),
    ]
}

/// Logits of each network.
fn logits_of(networks: &[Differentiable], inputs: &Rows) -> Result<Vec<Rows>, AttackError> {
    let all = networks.iter().map(|n| Ok(n.evaluate(inputs, BATCH)?));
    all.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Keeps what ranges would be measured on, and deploys nothing.
    #[derive(Default)]
    struct Watching(Mutex<Option<Rows>>);

    impl Deploy for Watching {
        fn deploy(&self, made: Made<'_>, _: Evaluation) -> Result<Box<dyn Target>, TargetError> {
            *self.0.lock().unwrap() = Some(made.samples.clone());
            let network = Differentiable::from_network(made.network).unwrap();
            let activation = Activation::Polynomial;
            Ok(Box::new(Plain::new("x", "noise", activation, network)))
        }
    }

    #[test]
    fn ranges_of_a_deployment_are_of_members_and_others_alike() {
        let setting = Setting {
            name: "small",
            pool: 20,
            hidden: 4,
            activation: Activation::Polynomial,
            epochs: 1,
            weight_decay: 0.0,
            defence: Defence::None,
        };
        let subject = Subject::new(setting, &synthetic::noise(80, 1), 1);
        let watching = Watching::default();
        let mut deployed = subject.target_of("noise", Evaluation::Encrypted, Some(&watching));
        deployed.observe(&subject.pool.inputs, ACCESS).unwrap();
        let seen = watching.0.lock().unwrap().clone();
        assert_eq!(seen, Some(subject.pool.inputs.clone()));
        assert!(subject.members.iter().any(|member| !member));
    }
}
