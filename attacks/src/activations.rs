//! Activations: what learned polynomials of degree 2 to 5 cost in accuracy against a
//! rectifier, and what each attack gains (Xiang, Dalla, Wu 2025 leave better activations to
//! future work).
//!
//! Networks 784-64-10 that differ in their activation alone: the same members of one pool,
//! the same initial weights, the same order of samples. A polynomial begins as the least
//! squares fit of the rectifier near 0 and is learned with the weights, gradients shortened
//! and coefficients kept small; where training diverges all the same, that is the result.
//! Rate and epochs are one for all and tuned for none. Every network is attacked by PGD with
//! its weights, by surrogates from as many labels each, and by a threshold on the margin of
//! its members.
//!
//! A difference to the rectifier is one of pairs: the same images, queries and members. What
//! PGD gains is counted on images that both networks read right, or it would hold what the
//! accuracy lacks. A difference has no verdict: its interval is over samples and not over
//! trainings, and a run has dozens of them. So rectifiers trained from other seeds stand
//! beside them: differences as small as theirs say nothing.
//!
//! Where encryption is at hand every network is sent through it, and what the format or the
//! planner refuses is recorded in their words.

use std::cell::OnceCell;

use candle_core::{Tensor, Var};
use he_nn::data::CLASSES;
use he_nn::network::Network;
use nalgebra::{DMatrix, DVector};

use crate::attack::{Attack, AttackError, Case, Context, Control, Data, Must, Outcome, params};
use crate::evasion::adversarial_training::cost;
use crate::evasion::{SignedGradient, noise, pgd};
use crate::extraction::{exactly, majority, surrogate};
use crate::membership::defence::Defence;
use crate::membership::{MARGIN, Samples, Scored, Setting, Subject, margins, seed_of};
use crate::network::Differentiable;
use crate::plain::{Only, Plain, classes};
use crate::record::{Finding, Scale};
use crate::stats::{Estimate, RESAMPLES, agreement, auc, auc_estimate, bootstrap, paired, wilson};
use crate::synthetic;
use crate::target::{
    About, Access, Activation, Answers, Deploy, Evaluation, Grants, Made, Rows, Target,
    TargetError, View,
};
use crate::trainer::{Goal, Trainable, TrainerError, Training, train_on};

/// What it needs: all of its attacks together.
const ACCESS: Grants = Grants::of(&[Access::Labels, Access::Scores, Access::Weights]);

/// Hidden units.
const HIDDEN: u16 = 64;

/// Samples that are evaluated at once, to bound the memory.
const BATCH: usize = 500;

/// The perturbation of PGD. At 0.1 it leaves at most one in twenty of each bundled network's
/// images, which cannot tell activations apart.
const EPS: f64 = 0.05;

/// Polynomials are fitted to the rectifier from minus to plus this.
const RADIUS: f64 = 2.0;

/// How far a term of a learned polynomial may reach within [`RADIUS`].
const REACH: f64 = 2.0 * RADIUS;

/// Samples that the ranges of a deployment are measured on, and as many with noise.
const MEASURED: usize = 500;

/// Activations of the surrogates, with their names. Every network is copied by both, so that
/// what differs is the network alone.
const SURROGATES: [(Activation, &str); 2] = [
    (Activation::Relu, "relu"),
    (Activation::Polynomial, "square"),
];

/// Streams of seeds. No surrogate begins with the weights of what it copies.
const VICTIM: u64 = 10;
const SURROGATE: u64 = 12;
const BLIND: u64 = 13;
const OTHER: u64 = 20;

/// What stands between the two dense layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The rectifier that all are compared with.
    Relu,
    /// The same, trained from another seed: the first of them, the second.
    Other(u64),
    /// `x^2`.
    Square,
    /// A polynomial of this degree, learned with the weights.
    Learned(usize),
}

impl Kind {
    /// All of them, with so many rectifiers from other seeds.
    fn all(others: u64) -> Vec<Self> {
        let mut all = vec![Self::Relu];
        all.extend((1..=others).map(Self::Other));
        all.push(Self::Square);
        all.extend((2..=5).map(Self::Learned));
        all
    }

    fn name(self) -> String {
        match self {
            Self::Relu => "relu".into(),
            Self::Other(number) => format!("relu, other seed {number}"),
            Self::Square => "square".into(),
            Self::Learned(degree) => format!("learned degree {degree}"),
        }
    }

    const fn activation(self) -> Activation {
        match self {
            Self::Relu | Self::Other(_) => Activation::Relu,
            Self::Square | Self::Learned(_) => Activation::Polynomial,
        }
    }

    /// The polynomial that training begins with, from the constant up; a rectifier has none.
    fn initial(self) -> Vec<f64> {
        match self {
            Self::Relu | Self::Other(_) => Vec::new(),
            Self::Square => vec![0.0, 0.0, 1.0],
            Self::Learned(degree) => fit(degree),
        }
    }

    fn seed(self, seed: u64) -> u64 {
        let stream = match self {
            Self::Other(number) => OTHER + number,
            Self::Relu | Self::Square | Self::Learned(_) => VICTIM,
        };
        seed_of(seed, stream)
    }
}

/// The polynomial of a degree nearest to the rectifier within [`RADIUS`], by least squares.
fn fit(degree: usize) -> Vec<f64> {
    const POINTS: usize = 401;
    let at = |i: usize| 2.0 * i as f64 / (POINTS - 1) as f64 - 1.0;
    let powers = DMatrix::from_fn(POINTS, degree + 1, |i, k| at(i).powi(k as i32));
    let values = DVector::from_fn(POINTS, |i, _| at(i).max(0.0));
    // Small and well conditioned, on -1 to 1: QR serves.
    let qr = powers.qr();
    let rotated = qr.q().transpose() * values;
    let found = qr.r().solve_upper_triangular(&rotated);
    let found: Vec<f64> = found.map_or_else(Vec::new, |found| found.iter().copied().collect());
    let scaled = found.into_iter().zip(0i32..);
    scaled.map(|(c, k)| c * RADIUS.powi(1 - k)).collect()
}

/// The largest that a coefficient may be, by its power.
fn largest(power: usize) -> f64 {
    REACH / RADIUS.powi(power as i32)
}

/// Keeps coefficients within [`largest`].
fn keep_small(coefficients: &[Var]) -> candle_core::Result<()> {
    for (power, coefficient) in coefficients.iter().enumerate() {
        let most = largest(power);
        coefficient.set(&coefficient.clamp(-most, most)?)?;
    }
    Ok(())
}

/// How much is trained, judged and asked.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Recipe {
    /// Samples of the pool, of which half are members.
    pool: usize,
    epochs: usize,
    learning_rate: f64,
    /// Whether gradients are shortened and coefficients kept small; a test lets go.
    bounded: bool,
    /// Test images.
    judged: usize,
    /// Of them, those that PGD starts from and that go through encryption.
    attacked: usize,
    /// Labels that each surrogate asks for.
    budget: usize,
    /// Rectifiers from other seeds.
    others: u64,
}

impl Recipe {
    const fn of(scale: Scale) -> Self {
        let (pool, judged, attacked, budget, others) = match scale {
            Scale::Quick => (2000, 1000, 200, 300, 1),
            Scale::Full => (15_000, 5000, 1000, 4000, 4),
        };
        Self {
            pool,
            epochs: 15,
            learning_rate: 1e-3,
            bounded: true,
            judged,
            attacked,
            budget,
            others,
        }
    }

    const fn setting(&self) -> Setting {
        Setting {
            name: "activations",
            pool: self.pool,
            hidden: HIDDEN,
            activation: Activation::Relu,
            epochs: self.epochs,
            weight_decay: 0.0,
            defence: Defence::None,
        }
    }

    fn train(&self, kind: Kind, samples: &Samples, seed: u64) -> Result<Trained, AttackError> {
        let network = Differentiable::one_hidden(HIDDEN, kind.activation(), seed)?;
        let network = network.with_polynomial(&kind.initial())?;
        let coefficients = network.coefficients();
        let learner = Learner {
            network: &network,
            learns: matches!(kind, Kind::Learned(_)),
        };
        let training = Training {
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            clip: self.bounded.then_some(1.0),
            seed,
            ..Training::default()
        };
        let bound = || match self.bounded && learner.learns {
            true => keep_small(&coefficients),
            false => Ok(()),
        };
        let mut bounding = |batch: Tensor, _: &[usize]| {
            bound()?;
            Ok(batch)
        };
        let goal = Goal::Labels(&samples.labels);
        let inputs = &samples.inputs;
        match train_on(&learner, inputs, goal, &training, &mut bounding, &mut ()) {
            Err(TrainerError::Diverged { epoch, loss }) => {
                return Ok(Trained::Diverged { epoch, loss });
            }
            other => other?,
        };
        bound()?;
        // No loss was taken of the last step.
        let logits = network.evaluate(inputs, BATCH)?;
        if logits.values().iter().any(|logit| !logit.is_finite()) {
            return Ok(Trained::Diverged {
                epoch: self.epochs,
                loss: f32::NAN,
            });
        }
        let numbers = coefficients.iter().map(|c| c.to_vec1::<f32>());
        let numbers: Vec<Vec<f32>> = numbers.collect::<candle_core::Result<_>>()?;
        Ok(Trained::Network {
            network: network.to_network(&kind.name())?.quantized(),
            coefficients: numbers.concat(),
        })
    }
}

/// A network of which the polynomial is learned or is not.
struct Learner<'n> {
    network: &'n Differentiable,
    learns: bool,
}

impl Trainable for Learner<'_> {
    fn variables(&self) -> Vec<Var> {
        let mut all = self.network.variables();
        if !self.learns {
            let fixed = self.network.coefficients();
            all.retain(|var| fixed.iter().all(|fixed| fixed.id() != var.id()));
        }
        all
    }

    fn forward(&self, batch: &Tensor) -> candle_core::Result<Tensor> {
        self.network.forward(batch)
    }
}

/// What training came to.
#[derive(Clone, Debug)]
enum Trained {
    /// A network as it is deployed, and its polynomial before it is folded into weights.
    Network {
        network: Network<i16>,
        coefficients: Vec<f32>,
    },
    /// The loss was no number.
    Diverged { epoch: usize, loss: f32 },
}

impl Trained {
    fn network(&self) -> Result<&Network<i16>, TrainerError> {
        match *self {
            Self::Network { ref network, .. } => Ok(network),
            Self::Diverged { epoch, loss } => Err(TrainerError::Diverged { epoch, loss }),
        }
    }

    /// Its polynomial; or when it diverged, which is then all there is to say.
    fn findings(&self) -> Vec<Finding> {
        match self {
            Self::Network { coefficients, .. } => {
                let numbered = coefficients.iter().enumerate();
                let each = numbered.map(|(power, &c)| {
                    let name = format!("coefficient_{power}");
                    Finding::new(&name, exactly(f64::from(c)))
                });
                each.collect()
            }
            Self::Diverged { epoch, loss } => {
                let remark = format!("training diverged: the loss was {loss}");
                let finding = Finding::new("diverged_in_epoch", exactly(*epoch as f64));
                vec![finding.remark(&remark)]
            }
        }
    }
}

/// One data set: its members, and what all networks on it share.
struct Study<'d> {
    data: &'d Data,
    recipe: Recipe,
    subject: Subject,
    /// Test images; the others are the attacker's.
    judged: Rows,
    natural: Rows,
    /// The AUC on the pool of a network that saw none of it; none if its training diverged.
    blind: OnceCell<Option<f64>>,
}

impl<'d> Study<'d> {
    fn new(data: &'d Data, recipe: Recipe, seed: u64) -> Result<Self, AttackError> {
        let subject = Subject::new(recipe.setting(), &data.train, seed);
        let test = &data.test.images;
        let (judged, natural) = test.split_at(test.len() / 2);
        if subject.members.len() < 4 || judged.is_empty() {
            return Err(AttackError::Data {
                attack: "learned-activations",
                what: format!("16 training images and 2 test images of {}", data.name),
            });
        }
        Ok(Self {
            data,
            recipe,
            subject,
            judged: Rows::images(&judged[..judged.len().min(recipe.judged)]),
            natural: Rows::images(natural),
            blind: OnceCell::new(),
        })
    }

    fn seed(&self) -> u64 {
        self.subject.seed
    }

    /// Labels of the first so many test images.
    fn labels(&self, count: usize) -> &[u8] {
        &self.data.test.labels[..count]
    }

    /// The images that PGD starts from.
    fn attacked(&self) -> Rows {
        let [attacked, _] = self.judged.split_at(self.recipe.attacked);
        attacked
    }

    fn victims(&self) -> Vec<Victim<'_>> {
        let victim = |kind| Victim {
            study: self,
            kind,
            trained: OnceCell::new(),
            measured: OnceCell::new(),
        };
        let all = Kind::all(self.recipe.others).into_iter();
        all.map(victim).collect()
    }

    fn auc(&self, scores: &[f64]) -> f64 {
        Scored::of(scores, &self.subject.members).auc()
    }

    fn blind(&self) -> Result<Option<f64>, AttackError> {
        if let Some(known) = self.blind.get() {
            return Ok(*known);
        }
        let Subject { pool, shadow, .. } = &self.subject;
        let seed = seed_of(self.seed(), BLIND);
        let trained = self.recipe.train(Kind::Relu, shadow, seed)?;
        let found = match trained.network() {
            Ok(network) => {
                let network = Differentiable::from_network(network)?;
                let logits = network.evaluate(&pool.inputs, BATCH)?;
                Some(self.auc(&margins(&logits, &pool.labels)))
            }
            Err(_) => None,
        };
        Ok(*self.blind.get_or_init(|| found))
    }

    /// Attacks a network.
    fn measured(&self, target: &mut View<'_>) -> Result<Measured, AttackError> {
        let network = target.weights()?;
        let few = self.attacked();
        let noisy = noise(&few, EPS, self.seed());
        let examples = pgd::METHOD.craft(&network, &few, EPS, self.seed())?;
        let own = target.labels(&Rows::joined(&[&self.judged, &noisy, &examples]))?;
        let (own, others) = own.split_at(self.judged.len());
        let (noisy, attacked) = others.split_at(few.len());
        let mut agreed = [None, None];
        for (agreed, (activation, _)) in agreed.iter_mut().zip(SURROGATES) {
            let seed = seed_of(self.seed(), SURROGATE);
            let budget = self.recipe.budget;
            let found = surrogate::from_labels(target, &self.natural, activation, budget, seed);
            if let Some(surrogate) = unless_diverged(found)? {
                let read = classes(&surrogate.evaluate(&self.judged, BATCH)?);
                *agreed = Some(same(&read, own));
            }
        }
        let pool = &self.subject.pool;
        let logits = target.scores(&pool.inputs)?;
        let of = |read: &[u8]| same(read, self.labels(read.len()));
        let right = same(&classes(&logits), &pool.labels);
        let right: Vec<f64> = right.into_iter().map(|r| f64::from(u8::from(r))).collect();
        Ok(Measured {
            clean: of(own),
            noisy: agreement(noisy, self.labels(noisy.len())),
            attacked: of(attacked),
            agreed,
            majority: majority(own),
            margins: margins(&logits, &pool.labels),
            gap: self.auc(&right),
        })
    }

    /// What a network's figures are.
    fn findings(&self, mine: &Measured) -> Result<Vec<Finding>, AttackError> {
        let clean = share(&mine.clean[..mine.attacked.len()]).value;
        let mut all = vec![
            Finding::new("accuracy", share(&mine.clean)),
            Finding::new("robust_accuracy", share(&mine.attacked))
                .baseline("clean", clean)
                .baseline("random_noise", mine.noisy.value)
                .succeeds_below(mine.noisy),
        ];
        for (agreed, (_, name)) in mine.agreed.iter().zip(SURROGATES) {
            let metric = format!("agreement_of_{name}_surrogate");
            all.extend(agreed.as_ref().map(|agreed| {
                Finding::new(&metric, share(agreed))
                    .baseline("majority", mine.majority)
                    .succeeds_above(mine.majority, 0.0)
            }));
        }
        let scored = Scored::of(&mine.margins, &self.subject.members);
        let mut membership = Finding::new(
            "auc",
            auc_estimate(&scored.members, &scored.others, self.seed()),
        )
        .baseline("chance", 0.5)
        .baseline("gap", mine.gap)
        .succeeds_above(0.5, MARGIN);
        if let Some(blind) = self.blind()? {
            membership = membership.baseline("blind", blind);
        }
        all.push(membership);
        Ok(all)
    }

    /// What attacks gain over the rectifier, and by what it is more often right. Above 0 an
    /// attack gains more.
    fn gains(&self, mine: &Measured, relu: &Measured) -> Vec<Finding> {
        const REMARK: &str = "of pairs, over the same samples; of one training each";
        let gain = |metric: &str, estimate| Finding::new(metric, estimate).remark(REMARK);
        let more = paired(&mine.clean, &relu.clean);
        let both: Vec<usize> = (0..mine.attacked.len())
            .filter(|&i| mine.clean[i] && relu.clean[i])
            .collect();
        let of_both = |right: &[bool]| both.iter().map(|&i| right[i]).collect::<Vec<bool>>();
        let (mine_left, relu_left) = (of_both(&mine.attacked), of_both(&relu.attacked));
        let mut all = vec![
            gain("accuracy_over_relu", more).baseline("relu", share(&relu.clean).value),
            Finding::new("gain_of_pgd", paired(&relu_left, &mine_left))
                .baseline("relu", share(&relu_left).value)
                .remark("of pairs, over the images that both read right; of one training each"),
        ];
        let both = mine.agreed.iter().zip(&relu.agreed).zip(SURROGATES);
        for ((mine, relu), (_, name)) in both {
            let (Some(mine), Some(relu)) = (mine, relu) else {
                continue;
            };
            let metric = format!("gain_of_{name}_surrogate");
            all.push(gain(&metric, paired(mine, relu)).baseline("relu", share(relu).value));
        }
        let members = &self.subject.members;
        let difference = bootstrap(members.len(), RESAMPLES, self.seed(), |drawn| {
            let of = |scores: &[f64]| {
                let part = |member| {
                    let own = drawn.iter().filter(|&&i| members[i] == member);
                    own.map(|&i| scores[i]).collect::<Vec<f64>>()
                };
                auc(&part(true), &part(false))
            };
            of(&mine.margins) - of(&relu.margins)
        });
        let relu = self.auc(&relu.margins);
        all.push(gain("gain_of_membership", difference).baseline("relu", relu));
        all
    }
}

/// Which entries are equal.
fn same(a: &[u8], b: &[u8]) -> Vec<bool> {
    a.iter().zip(b).map(|(a, b)| a == b).collect()
}

fn share(right: &[bool]) -> Estimate {
    wilson(right.iter().filter(|r| **r).count(), right.len())
}

/// Nothing where a training diverged, which ends no run.
fn unless_diverged<T>(found: Result<T, AttackError>) -> Result<Option<T>, AttackError> {
    match found {
        Err(AttackError::Trainer(TrainerError::Diverged { .. })) => Ok(None),
        other => other.map(Some),
    }
}

/// What attacks on a network came to, sample by sample: pairs are of the same index.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    /// Whether test images are read right, and examples of PGD.
    clean: Vec<bool>,
    attacked: Vec<bool>,
    noisy: Estimate,
    /// Whether each surrogate agrees on a test image; none where its training diverged.
    agreed: [Option<Vec<bool>>; 2],
    /// Share of the label that the network gives most often.
    majority: f64,
    /// Of the pool.
    margins: Vec<f64>,
    /// AUC of calling a member what is read right.
    gap: f64,
}

/// A network of a study, trained when it is first asked for.
struct Victim<'s> {
    study: &'s Study<'s>,
    kind: Kind,
    trained: OnceCell<Trained>,
    measured: OnceCell<Measured>,
}

impl Victim<'_> {
    fn trained(&self) -> Result<&Trained, AttackError> {
        if let Some(trained) = self.trained.get() {
            return Ok(trained);
        }
        let Study {
            subject, recipe, ..
        } = self.study;
        let members = subject.pool.masked(&subject.members);
        let trained = recipe.train(self.kind, &members, self.kind.seed(subject.seed))?;
        Ok(self.trained.get_or_init(|| trained))
    }

    fn network(&self) -> Result<&Network<i16>, AttackError> {
        Ok(self.trained()?.network()?)
    }

    /// What attacks on it in the clear came to; none where its training diverged.
    fn measured(&self) -> Result<Option<&Measured>, AttackError> {
        if self.measured.get().is_none() {
            let mut target = At::new(self, Evaluation::Clear, None);
            let mut view = View::new(&mut target, ACCESS);
            if let Trained::Diverged { .. } = self.trained()? {
                return Ok(None);
            }
            let found = self.study.measured(&mut view)?;
            self.measured.get_or_init(|| found);
        }
        Ok(self.measured.get())
    }

    fn deployed(
        &self,
        evaluation: Evaluation,
        deploy: Option<&dyn Deploy>,
    ) -> Result<Box<dyn Target>, AttackError> {
        let (network, name) = (self.network()?, self.kind.name());
        let dataset = &self.study.data.name;
        let (Some(deploy), true) = (deploy, evaluation != Evaluation::Clear) else {
            let network = Differentiable::from_network(network)?;
            let plain = Plain::new(&name, dataset, self.kind.activation(), network);
            return Ok(Box::new(plain));
        };
        // Members and others alike, and what an attacker's noise makes of them.
        let [pool, _] = self.study.subject.pool.inputs.split_at(MEASURED);
        let noisy = noise(&pool, EPS, self.study.seed());
        let made = Made {
            name: &name,
            dataset,
            network,
            samples: &Rows::joined(&[&pool, &noisy]),
        };
        Ok(deploy.deploy(made, evaluation)?)
    }
}

/// A victim as a target, deployed when it is first asked.
struct At<'v> {
    about: About,
    victim: &'v Victim<'v>,
    deploy: Option<&'v dyn Deploy>,
    target: Option<Box<dyn Target>>,
}

impl<'v> At<'v> {
    fn new(victim: &'v Victim<'v>, evaluation: Evaluation, deploy: Option<&'v dyn Deploy>) -> Self {
        let place = match evaluation {
            Evaluation::Clear => "",
            Evaluation::Encrypted | Evaluation::EncryptedWeights => ", encrypted",
        };
        let about = About {
            name: format!("{}{place}", victim.kind.name()),
            dataset: victim.study.data.name.clone(),
            inputs: victim.study.judged.width(),
            classes: CLASSES,
            activation: victim.kind.activation(),
            evaluation,
        };
        Self {
            about,
            victim,
            deploy,
            target: None,
        }
    }

    fn failed(&self, source: AttackError) -> TargetError {
        TargetError::Failed {
            target: self.about.name.clone(),
            source: source.into(),
        }
    }
}

impl Target for At<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        ACCESS
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        if self.target.is_none() {
            let made = self.victim.deployed(self.about.evaluation, self.deploy);
            self.target = Some(made.map_err(|source| self.failed(source))?);
        }
        match &mut self.target {
            Some(target) => target.observe(queries, asked),
            None => Ok(Answers::default()),
        }
    }

    fn weights(&self) -> Result<Differentiable, TargetError> {
        let network = self
            .victim
            .network()
            .map_err(|source| self.failed(source))?;
        Differentiable::from_network(network).map_err(|source| self.failed(source.into()))
    }
}

/// The study.
#[derive(Clone, Copy, Debug)]
pub struct LearnedActivations;

impl Attack for LearnedActivations {
    fn name(&self) -> &'static str {
        "learned-activations"
    }

    fn about(&self) -> &'static str {
        "study: learned polynomials of degree 2 to 5 against ReLU, in accuracy and under attack"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let (all, scale) = (context.data, context.run.scale);
        for data in all {
            // A quick run takes one data set.
            if scale == Scale::Full || !data.name.starts_with("fashion") {
                study(self, context, data, Recipe::of(scale))?;
            }
        }
        Ok(())
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls()
    }
}

/// Every activation on one data set.
fn study(
    attack: &dyn Attack,
    context: &mut Context<'_>,
    data: &Data,
    recipe: Recipe,
) -> Result<(), AttackError> {
    let deploy = context.deploy;
    let study = Study::new(data, recipe, context.run.seed)?;
    let victims = study.victims();
    let of_step = params([
        ("members", (study.subject.members.len() / 2).into()),
        ("epochs", recipe.epochs.into()),
        ("eps", EPS.into()),
        ("samples", study.judged.len().into()),
        ("attacked", study.attacked().len().into()),
        (
            "surrogate_queries",
            recipe.budget.min(study.natural.len()).into(),
        ),
    ]);
    for victim in &victims {
        let mut clear = At::new(victim, Evaluation::Clear, None);
        context.own_target(attack, &mut clear, data, |case| {
            case.step(of_step.clone(), |case| in_the_clear(case, victim, &victims))
        })?;
        if matches!(victim.kind, Kind::Other(_)) {
            continue;
        }
        if let Some(deploy) = deploy {
            let mut target = At::new(victim, Evaluation::Encrypted, Some(deploy));
            context.own_target(attack, &mut target, data, |case| {
                case.step(of_step.clone(), |case| encrypted(case, victim, deploy))
            })?;
        }
    }
    // For the record that says so.
    for victim in &victims[..1] {
        let labels = At::new(victim, Evaluation::Clear, None);
        context.own_target(attack, &mut Only::labels(labels), data, |_| Ok(()))?;
    }
    Ok(())
}

fn in_the_clear(
    case: &mut Case<'_, '_>,
    victim: &Victim<'_>,
    victims: &[Victim<'_>],
) -> Result<Vec<Finding>, AttackError> {
    let (study, trained) = (victim.study, victim.trained()?);
    let mut all = trained.findings();
    if let Trained::Diverged { .. } = trained {
        return Ok(all);
    }
    let mine = study.measured(&mut case.target)?;
    let mine = victim.measured.get_or_init(|| mine);
    all.extend(study.findings(mine)?);
    let relu = victims.iter().find(|victim| victim.kind == Kind::Relu);
    if let (Some(relu), true) = (relu, victim.kind != Kind::Relu) {
        let relu = relu.measured()?;
        all.extend(relu.map_or_else(Vec::new, |relu| study.gains(mine, relu)));
    }
    Ok(all)
}

/// Sends images and examples through encryption, or records why that cannot be.
fn encrypted(
    case: &mut Case<'_, '_>,
    victim: &Victim<'_>,
    deploy: &dyn Deploy,
) -> Result<Vec<Finding>, AttackError> {
    let (study, trained) = (victim.study, victim.trained()?);
    if let Trained::Diverged { .. } = trained {
        return Ok(trained.findings());
    }
    let network = case.target.weights()?;
    let images = study.attacked();
    let examples = pgd::METHOD.craft(&network, &images, EPS, study.seed())?;
    let both = Rows::joined(&[&images, &examples]);
    let refused = |source: &dyn std::fmt::Display| {
        vec![Finding::new("deployed", exactly(0.0)).remark(&source.to_string())]
    };
    let read = match case.target.labels(&both) {
        Err(TargetError::Failed { source, .. }) => return Ok(refused(&source)),
        other => other?,
    };
    let clear = classes(&network.evaluate(&both, BATCH)?);
    let labels = study.labels(images.len());
    let finding = |name: &str, read: &[u8], clear: &[u8]| {
        Finding::new(name, agreement(read, labels))
            .baseline("clear", agreement(clear, labels).value)
    };
    let ((of_images, of_examples), (images_clear, examples_clear)) =
        (read.split_at(images.len()), clear.split_at(images.len()));
    let flips = same(&read, &clear).iter().filter(|same| !**same).count();
    let mut all = vec![
        Finding::new("deployed", exactly(1.0)),
        finding("accuracy", of_images, images_clear),
        finding("robust_accuracy", of_examples, examples_clear),
        Finding::new("label_flips", wilson(flips, read.len()))
            .remark("of images and examples together"),
    ];
    let mut target = victim.deployed(Evaluation::Encrypted, Some(deploy))?;
    if let Some([bytes, time]) = cost(target.as_mut(), &images)? {
        for (name, value) in [("bytes_per_query", bytes), ("evaluator_ms_per_query", time)] {
            let value = Finding::new(name, exactly(value));
            all.push(value.remark("of one deployment: the interval is none"));
        }
    }
    Ok(all)
}

/// What a control changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Twist {
    None,
    /// The attack is broken on purpose, or what should differ does not.
    Broken,
    /// Noise stands in for the attack.
    Noise,
}

fn controls() -> Vec<Control<'static>> {
    type Experiment = fn(Twist, u64) -> Result<Outcome, AttackError>;
    let control = |name, must, experiment: Experiment, twist| Control {
        name,
        must,
        run: Box::new(move |seed| experiment(twist, seed)),
    };
    let (yes, no) = (Must::Succeed, Must::Fail);
    vec![
        control("PGD on a cubic", yes, pgd_on_a_cubic, Twist::None),
        control("PGD with the wrong sign", no, pgd_on_a_cubic, Twist::Broken),
        control("noise instead of PGD", no, pgd_on_a_cubic, Twist::Noise),
        control(
            "members that a quartic learned by heart",
            yes,
            members_of_a_quartic,
            Twist::None,
        ),
        control(
            "a quartic trained on others",
            no,
            members_of_a_quartic,
            Twist::Broken,
        ),
        control(
            "a pair of which one learned wrong labels",
            yes,
            difference_of_a_pair,
            Twist::None,
        ),
        control(
            "a pair of two seeds",
            no,
            difference_of_a_pair,
            Twist::Broken,
        ),
    ]
}

/// For a few hundred images made here.
const SMALL: Recipe = Recipe {
    pool: 100,
    epochs: 20,
    learning_rate: 1e-3,
    bounded: true,
    judged: 100,
    attacked: 100,
    budget: 100,
    others: 0,
};

/// A network that reads bars.
fn reads_bars(kind: Kind, turned: bool, seed: u64) -> Result<Differentiable, AttackError> {
    let mut data = synthetic::bars(300, seed);
    if turned {
        data.labels.rotate_left(1);
    }
    let all: Vec<usize> = (0..data.labels.len()).collect();
    let trained = SMALL.train(kind, &Samples::of(&data, &all), seed)?;
    Ok(Differentiable::from_network(trained.network()?)?)
}

/// Whether a network reads new bars right.
fn right_of_bars(network: &Differentiable, seed: u64) -> Result<Vec<bool>, AttackError> {
    let data = synthetic::bars(100, seed);
    let read = classes(&network.evaluate(&Rows::images(&data.images), BATCH)?);
    Ok(same(&read, &data.labels))
}

/// At a perturbation of one half. The pixels of a bar are 254/255 at most, so that each can
/// be made darker than every pixel of another bar can be made bright: within reach of each
/// image is one whose brighter bar is of another class. Steps are as many as cross the ball,
/// so PGD must leave no more than chance, a tenth.
///
/// Noise of that size halves the contrast of a bar from 0.75 to 0.37 on average, and over 56
/// pixels, of a deviation near 0.32 each, the bar stays nine deviations brighter. The wrong sign
/// lowers the loss. Both must leave more than half.
fn pgd_on_a_cubic(twist: Twist, seed: u64) -> Result<Outcome, AttackError> {
    const HALF: f64 = 0.5;
    let bar = if twist == Twist::None { 0.1 } else { HALF };
    let method = SignedGradient {
        direction: if twist == Twist::Broken { -1.0 } else { 1.0 },
        iterations: 100,
        ..pgd::METHOD
    };
    let network = reads_bars(Kind::Learned(3), false, seed)?;
    let data = synthetic::bars(100, seed + 1);
    let images = Rows::images(&data.images);
    let examples = match twist {
        Twist::Noise => noise(&images, HALF, seed),
        Twist::None | Twist::Broken => method.craft(&network, &images, HALF, seed)?,
    };
    let read = classes(&network.evaluate(&examples, BATCH)?);
    let value = agreement(&read, &data.labels).value;
    Ok(Outcome {
        succeeded: value <= bar,
        value,
        bar,
    })
}

/// Members that were learned by heart score above all others, an AUC of 1; of 50 members and
/// 50 others that were not, it is one half with a deviation of 0.06. The bar lies half way.
fn members_of_a_quartic(twist: Twist, seed: u64) -> Result<Outcome, AttackError> {
    const BAR: f64 = 0.75;
    let subject = Subject::new(SMALL.setting(), &synthetic::noise(400, seed), seed);
    let members = match twist {
        Twist::None => subject.pool.masked(&subject.members),
        Twist::Broken | Twist::Noise => subject.population.first(subject.pool.len() / 2),
    };
    let trained = SMALL.train(Kind::Learned(4), &members, seed)?;
    let network = Differentiable::from_network(trained.network()?)?;
    let logits = network.evaluate(&subject.pool.inputs, BATCH)?;
    let scores = margins(&logits, &subject.pool.labels);
    let value = Scored::of(&scores, &subject.members).auc();
    Ok(Outcome {
        succeeded: value > BAR,
        value,
        bar: BAR,
    })
}

/// Succeeds where the interval of a paired difference lies above 0.
fn difference_of_a_pair(twist: Twist, seed: u64) -> Result<Outcome, AttackError> {
    let first = reads_bars(Kind::Learned(2), false, seed)?;
    let second = reads_bars(Kind::Learned(2), twist == Twist::None, seed + 3)?;
    let of = |network| right_of_bars(network, seed + 1);
    let [value, _] = paired(&of(&first)?, &of(&second)?).ci95;
    Ok(Outcome {
        succeeded: value > 0.0,
        value,
        bar: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Run;
    use crate::record::{Memory, Record, Recorder};

    const TINY: Recipe = Recipe {
        pool: 60,
        epochs: 3,
        learning_rate: 1e-3,
        bounded: true,
        judged: 30,
        attacked: 10,
        budget: 20,
        others: 2,
    };

    fn bars() -> Data {
        Data {
            name: "bars".into(),
            train: synthetic::bars(240, 1),
            test: synthetic::bars(80, 2),
        }
    }

    fn run(recipe: Recipe, deploy: Option<&dyn Deploy>) -> Vec<Record> {
        let data = [bars()];
        let mut memory = Memory::default();
        let mut progress = ();
        let run = Run {
            scale: Scale::Quick,
            seed: 1,
            progress: &mut progress,
            recorder: Recorder::new(&mut memory, "0", Vec::new()),
        };
        let mut context = Context::new(&mut [], &data, run);
        context.deploy = deploy;
        study(&LearnedActivations, &mut context, &data[0], recipe).unwrap();
        memory.records
    }

    fn of<'r>(records: &'r [Record], target: &str, metric: &str) -> Option<&'r Record> {
        let mut all = records.iter();
        all.find(|record| record.target == target && record.metric == metric)
    }

    #[test]
    fn a_fit_is_the_rectifier_where_its_degree_allows() {
        // Of |x| on -1..1 by Legendre polynomials: 3/16 + 15/16 x^2, and half of it.
        let r = RADIUS;
        let expected = [3.0 * r / 32.0, 0.5, 15.0 / (32.0 * r)];
        for (found, expected) in fit(2).iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{found} {expected}");
        }
        let error = |degree| {
            let coefficients = fit(degree);
            let square = |i: i32| {
                let x = r * f64::from(i) / 100.0;
                let value = coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
                (value - x.max(0.0)).powi(2)
            };
            (-100..=100).map(square).sum::<f64>()
        };
        assert!(error(4) < 0.5 * error(2), "{} {}", error(4), error(2));
        assert!(error(5) <= error(4) + 1e-9);
        for degree in 2..=5 {
            let within = fit(degree).into_iter().enumerate();
            assert!(within.into_iter().all(|(k, c)| c.abs() <= largest(k)));
        }
    }

    #[test]
    fn what_is_learned_stays_small_and_a_square_stays_a_square() {
        let data = synthetic::bars(60, 1);
        let samples = Samples::of(&data, &(0..60).collect::<Vec<_>>());
        // Steps so long that every coefficient meets its bound.
        let recipe = Recipe {
            learning_rate: 1.0,
            ..TINY
        };
        let coefficients = |kind| match recipe.train(kind, &samples, 1).unwrap() {
            Trained::Network { coefficients, .. } => coefficients,
            diverged @ Trained::Diverged { .. } => panic!("{kind:?}: {diverged:?}"),
        };
        let quintic = coefficients(Kind::Learned(5));
        let bounds: Vec<f64> = (0..=5).map(largest).collect();
        let within = quintic.iter().zip(&bounds);
        assert!(within.clone().all(|(c, b)| f64::from(c.abs()) <= *b + 1e-6));
        assert!(
            within
                .into_iter()
                .any(|(c, b)| f64::from(c.abs()) > 0.99 * b)
        );
        assert_eq!(coefficients(Kind::Square), [0.0, 0.0, 1.0]);
    }

    #[test]
    fn networks_begin_alike_and_surrogates_do_not_begin_with_them() {
        let weights = |seed| {
            let network = Differentiable::one_hidden(HIDDEN, Activation::Relu, seed).unwrap();
            network.to_network("x").unwrap()
        };
        let seeds: Vec<u64> = Kind::all(2).iter().map(|kind| kind.seed(7)).collect();
        assert_eq!(seeds.iter().filter(|seed| **seed == seeds[0]).count(), 6);
        assert_ne!(seeds[1], seeds[2]);
        for seed in [seed_of(7, SURROGATE), seed_of(7, BLIND)] {
            assert!(seeds.iter().all(|own| weights(*own) != weights(seed)));
        }
    }

    #[test]
    fn a_training_that_diverges_is_recorded_and_ends_no_run() {
        let recipe = Recipe {
            // Steps so long that a fifth power leaves single precision.
            learning_rate: 1e6,
            bounded: false,
            ..TINY
        };
        let records = run(recipe, None);
        let diverged = of(&records, "learned degree 5", "diverged_in_epoch").unwrap();
        assert!(diverged.value.is_some_and(|epoch| epoch >= 1.0));
        assert!(diverged.reason.as_ref().unwrap().contains("loss"));
        assert!(of(&records, "learned degree 5", "accuracy").is_none());
        assert!(of(&records, "relu", "accuracy").is_some());
    }

    /// Deploys in the clear, all labels one further; nothing of degree 5.
    struct Shifting;

    struct Shifted(Plain);

    impl Target for Shifted {
        fn about(&self) -> &About {
            self.0.about()
        }
        fn grants(&self) -> Grants {
            self.0.grants()
        }
        fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
            let mut answers = self.0.observe(queries, asked)?;
            let labels = answers.labels.iter_mut();
            labels.for_each(|label| *label = (*label + 1) % CLASSES as u8);
            Ok(answers)
        }
    }

    impl Deploy for Shifting {
        fn deploy(&self, made: Made<'_>, _: Evaluation) -> Result<Box<dyn Target>, TargetError> {
            if made.name.ends_with('5') {
                return Err(TargetError::Failed {
                    target: made.name.into(),
                    source: "it has no room".into(),
                });
            }
            let network = Differentiable::from_network(made.network).unwrap();
            let plain = Plain::new(made.name, made.dataset, Activation::Polynomial, network);
            Ok(Box::new(Shifted(plain)))
        }
    }

    #[test]
    fn every_activation_has_its_figures_of_pairs_and_of_encryption() {
        let records = run(TINY, Some(&Shifting));
        for kind in Kind::all(TINY.others) {
            let name = kind.name();
            let queries = of(&records, &name, "accuracy").unwrap().queries;
            assert_eq!(queries, of(&records, "relu", "accuracy").unwrap().queries);
            for metric in ["robust_accuracy", "auc", "agreement_of_relu_surrogate"] {
                assert!(of(&records, &name, metric).is_some(), "{name} {metric}");
            }
            for metric in [
                "accuracy_over_relu",
                "gain_of_pgd",
                "gain_of_square_surrogate",
                "gain_of_membership",
            ] {
                let found = of(&records, &name, metric);
                assert_eq!(found.is_some(), kind != Kind::Relu, "{name} {metric}");
            }
            let encrypted = format!("{name}, encrypted");
            let flips = of(&records, &encrypted, "label_flips");
            let deployed = of(&records, &encrypted, "deployed");
            match kind {
                Kind::Other(_) => assert!(deployed.is_none()),
                Kind::Learned(5) => {
                    let refused = deployed.unwrap();
                    assert_eq!((refused.value, refused.verdict), (Some(0.0), None));
                    let reason = refused.reason.as_ref().unwrap();
                    assert!(reason.contains("it has no room"), "{reason}");
                    assert!(flips.is_none());
                }
                _ => assert_eq!(flips.unwrap().value, Some(1.0), "{name}"),
            }
        }
    }
}
