//! Learned polynomials as activations, against rectifiers: what they cost in accuracy, and
//! what each attack gains.
//!
//! A network with rectifiers is trained on a random half of a pool. Each of the others
//! starts as its copy with the nearest polynomials in their place
//! ([`Differentiable::with_polynomials`]) and is trained on with its coefficients, as long
//! as the rectifiers are. So networks differ by their activations alone, and all of them
//! have members and others from one pool. Every figure of a polynomial stands beside the
//! rectifiers' (`relu`), for which there is no encrypted path.
//!
//! The attacks are one of each kind, in the strength that a table of activations can
//! afford: PGD at eps 0.1 with the weights, membership by the margin of the true class,
//! and a surrogate with one square or rectifier, trained on labels.

use std::cell::{OnceCell, RefCell};

use chacha20::ChaCha8Rng;
use he_nn::data::{CLASSES, SIDE};
use he_nn::model::{Model, Shape};
use he_nn::network::Network;
use he_nn::plan;
use he_nn::train::{ARCHITECTURES, LayerSpec};
use rand_core::SeedableRng;

use crate::attack::{Attack, AttackError, Case, Context, Control, Data, Must, Outcome, params};
use crate::evasion::adversarial_training::cost;
use crate::evasion::{SignedGradient, noise, pgd};
use crate::extraction::{exactly, majority, surrogate};
use crate::membership::{Samples, Scored, margin, random_half};
use crate::network::{Differentiable, NetworkError};
use crate::plain::{Only, Plain, classes};
use crate::record::{Finding, Scale};
use crate::stats::{Estimate, agreement, auc_estimate, wilson};
use crate::synthetic;
use crate::target::{
    About, Access, Activation, Answers, Deploy, Evaluation, Grants, Made, Rows, Target,
    TargetError, View,
};
use crate::trainer::{Goal, Training, train};

/// What it needs.
pub const ACCESS: Grants = Grants::of(&[Access::Labels, Access::Scores, Access::Weights]);

/// Of the examples.
const EPS: f64 = 0.1;

/// How far above one half an AUC must lie to count.
const MARGIN: f64 = 0.01;

/// Samples that are evaluated at once, to bound the memory.
const BATCH: usize = 500;

/// Members that polynomials are fitted on.
const FITTED_ON: usize = 500;

/// Step size of Adam for what starts trained, a third of the first.
const TUNING_RATE: f64 = 3e-4;

const IMAGE: Shape = Shape {
    channels: 1,
    height: SIDE as u16,
    width: SIDE as u16,
};

/// What stands between linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Relu,
    /// A learned polynomial of this degree.
    Degree(usize),
}

impl Kind {
    fn all(scale: Scale) -> Vec<Self> {
        let last = match scale {
            Scale::Quick => 5,
            Scale::Full => 7,
        };
        let degrees = (2..=last).map(Self::Degree);
        std::iter::once(Self::Relu).chain(degrees).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Relu => "relu".into(),
            Self::Degree(degree) => format!("degree {degree}"),
        }
    }

    /// Its place among the networks of a family.
    const fn place(self) -> usize {
        match self {
            Self::Relu => 0,
            Self::Degree(degree) => degree,
        }
    }

    const fn activation(self) -> Activation {
        match self {
            Self::Relu => Activation::Relu,
            Self::Degree(_) => Activation::Polynomial,
        }
    }
}

/// How the networks of a family are made.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Setting {
    name: &'static str,
    /// With rectifiers.
    layers: &'static [LayerSpec],
    /// Training images, of which half are members.
    pool: usize,
    /// Passes of the rectifiers over the members.
    epochs: usize,
    /// Passes of every network after that.
    tuning: usize,
}

impl Setting {
    fn all(data: &Data, scale: Scale) -> Vec<Self> {
        let (names, pool, epochs, tuning) = match scale {
            Scale::Quick => (&["mnist-mlp64-relu"][..], 2000, 20, 10),
            Scale::Full => (
                &[
                    "mnist-mlp64-relu",
                    "mnist-cryptonets-relu",
                    "fashion-cryptonets-relu",
                ][..],
                20_000,
                20,
                10,
            ),
        };
        // A quick run has one data set.
        let fashion = data.name.starts_with("fashion");
        let own = ARCHITECTURES.iter().filter(|a| names.contains(&a.name));
        let of = |architecture: &he_nn::train::Architecture| Self {
            name: architecture.name.trim_end_matches("-relu"),
            layers: architecture.layers,
            pool: pool.min(data.train.images.len()),
            epochs,
            tuning,
        };
        own.filter(|a| a.name.starts_with("fashion") == fashion)
            .map(of)
            .collect()
    }
}

/// A network of a family: as it came from fitting, and as it is deployed.
struct Learned {
    /// In floating point, before its coefficients were learned.
    fitted: Differentiable,
    network: Network<i8>,
}

/// Networks that differ by their activations, each trained when it is first asked for.
struct Family<'d> {
    setting: Setting,
    dataset: &'d str,
    pool: Samples,
    members: Vec<bool>,
    seed: u64,
    /// With rectifiers, before tuning.
    teacher: OnceCell<Differentiable>,
    networks: [OnceCell<Learned>; 8],
    /// Examples against each of them.
    examples: [OnceCell<Rows>; 8],
    /// What the attacks gain of the rectifiers.
    relu: OnceCell<Measured>,
}

impl<'d> Family<'d> {
    fn new(setting: Setting, data: &'d Data, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let indices: Vec<usize> = (0..setting.pool.min(data.train.images.len())).collect();
        Self {
            setting,
            dataset: &data.name,
            pool: Samples::of(&data.train, &indices),
            members: random_half(indices.len(), &mut rng),
            seed,
            teacher: OnceCell::new(),
            networks: Default::default(),
            examples: Default::default(),
            relu: OnceCell::new(),
        }
    }

    fn pass(
        &self,
        network: &Differentiable,
        samples: &Samples,
        epochs: usize,
        learning_rate: f64,
    ) -> Result<(), AttackError> {
        let training = Training {
            epochs,
            learning_rate,
            seed: self.seed,
            ..Training::default()
        };
        let goal = Goal::Labels(&samples.labels);
        train(network, &samples.inputs, goal, &training, &mut ())?;
        Ok(())
    }

    fn learned(&self, kind: Kind) -> Result<&Learned, AttackError> {
        let place = &self.networks[kind.place()];
        if let Some(learned) = place.get() {
            return Ok(learned);
        }
        let members = self.pool.masked(&self.members);
        let teacher = match self.teacher.get() {
            Some(teacher) => teacher,
            None => {
                let teacher = Differentiable::untrained(IMAGE, self.setting.layers, self.seed)?;
                let rate = Training::default().learning_rate;
                self.pass(&teacher, &members, self.setting.epochs, rate)?;
                self.teacher.get_or_init(|| teacher)
            }
        };
        let network = match kind {
            Kind::Relu => teacher.copied()?,
            Kind::Degree(degree) => {
                teacher.with_polynomials(degree, &members.first(FITTED_ON).inputs)?
            }
        };
        let fitted = network.copied()?;
        self.pass(&network, &members, self.setting.tuning, TUNING_RATE)?;
        let network = network.to_network(self.setting.name)?.quantized();
        Ok(place.get_or_init(|| Learned { fitted, network }))
    }

    /// PGD's examples of the first test images.
    fn examples(&self, kind: Kind, images: &Rows) -> Result<&Rows, AttackError> {
        let place = &self.examples[kind.place()];
        if let Some(examples) = place.get() {
            return Ok(examples);
        }
        let network = Differentiable::from_network(&self.learned(kind)?.network)?;
        let examples = pgd::METHOD.craft(&network, images, EPS, self.seed)?;
        Ok(place.get_or_init(|| examples))
    }

    fn plain(&self, kind: Kind) -> Result<Plain, AttackError> {
        let network = Differentiable::from_network(&self.learned(kind)?.network)?;
        let name = self.setting.name;
        Ok(Plain::new(name, self.dataset, kind.activation(), network))
    }

    fn deployed(&self, kind: Kind, deploy: &dyn Deploy) -> Result<Box<dyn Target>, AttackError> {
        // Room for images, and for images with noise as large as an attacker's.
        let [images, _] = self.pool.inputs.split_at(500);
        let noisy = noise(&images, EPS, self.seed);
        let made = Made {
            name: self.setting.name,
            dataset: self.dataset,
            network: &self.learned(kind)?.network,
            samples: &Rows::joined(&[&images, &noisy]),
        };
        Ok(deploy.deploy(made, Evaluation::Encrypted)?)
    }
}

/// A network of a family as a target: in the clear, or as it is put into its slot.
struct OfFamily<'f> {
    about: About,
    family: &'f Family<'f>,
    kind: Kind,
    slot: &'f RefCell<Option<Box<dyn Target>>>,
}

impl<'f> OfFamily<'f> {
    fn new(
        family: &'f Family<'f>,
        kind: Kind,
        evaluation: Evaluation,
        slot: &'f RefCell<Option<Box<dyn Target>>>,
    ) -> Self {
        let place = match evaluation {
            Evaluation::Clear => "",
            Evaluation::Encrypted => ", encrypted",
            Evaluation::EncryptedWeights => ", encrypted-weights",
        };
        Self {
            about: About {
                name: format!("{} {}{place}", kind.name(), family.setting.name),
                dataset: family.dataset.to_owned(),
                inputs: IMAGE.values(),
                classes: CLASSES,
                activation: kind.activation(),
                evaluation,
                randomised: None,
            },
            family,
            kind,
            slot,
        }
    }

    fn failed(&self, source: AttackError) -> TargetError {
        TargetError::Failed {
            target: self.about.name.clone(),
            source: source.into(),
        }
    }
}

impl Target for OfFamily<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        ACCESS
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        if let Some(target) = self.slot.borrow_mut().as_mut() {
            return target.observe(queries, asked);
        }
        let plain = self.family.plain(self.kind);
        let mut plain = plain.map_err(|source| self.failed(source))?;
        plain.observe(queries, asked)
    }

    fn weights(&self) -> Result<Differentiable, TargetError> {
        let plain = self.family.plain(self.kind);
        plain.map_err(|source| self.failed(source))?.weights()
    }
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Activations;

impl Attack for Activations {
    fn name(&self) -> &'static str {
        "activations"
    }

    fn about(&self) -> &'static str {
        "study: learned polynomials against rectifiers, in accuracy and in what attacks gain"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let (all, seed, scale) = (context.data, context.run.seed, context.run.scale);
        let deploy = context.deploy;
        for data in all {
            for setting in Setting::all(data, scale) {
                let family = Family::new(setting, data, seed);
                for kind in Kind::all(scale) {
                    let slot = RefCell::new(None);
                    let mut clear = OfFamily::new(&family, kind, Evaluation::Clear, &slot);
                    context.own_target(self, &mut clear, data, |case| {
                        case.step(steps(case, &family, kind), |case| {
                            compared(case, &family, kind, None)
                        })
                    })?;
                    let (Some(deploy), Kind::Degree(_)) = (deploy, kind) else {
                        continue;
                    };
                    let mut encrypted = OfFamily::new(&family, kind, Evaluation::Encrypted, &slot);
                    context.own_target(self, &mut encrypted, data, |case| {
                        case.step(steps(case, &family, kind), |case| {
                            match family.deployed(kind, deploy) {
                                Ok(target) => *slot.borrow_mut() = Some(target),
                                // Too deep for every parameter set, or too large.
                                Err(AttackError::Target(TargetError::Failed {
                                    source, ..
                                })) => {
                                    return Ok(vec![Finding::not_applicable(&source.to_string())]);
                                }
                                Err(error) => return Err(error),
                            }
                            compared(case, &family, kind, Some(&slot))
                        })
                    })?;
                }
                // For the record that says so.
                let slot = RefCell::new(None);
                let relu = OfFamily::new(&family, Kind::Relu, Evaluation::Clear, &slot);
                context.own_target(self, &mut Only::labels(relu), data, |_| Ok(()))?;
            }
        }
        Ok(())
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let learns = |name, must, degree: usize, mixed: bool| Control {
            name,
            must,
            run: Box::new(move |seed| {
                const BAR: f64 = 0.9;
                let (value, _) = on_bars(degree, mixed, 1.0, seed)?;
                Ok(Outcome {
                    succeeded: value >= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        let attacked = |name, must, direction: f64| Control {
            name,
            must,
            run: Box::new(move |seed| {
                const BAR: f64 = 0.3;
                let (clean, left) = on_bars(3, false, direction, seed)?;
                let value = clean - left;
                Ok(Outcome {
                    succeeded: value >= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            learns("bars, degree 2", Must::Succeed, 2, false),
            learns("bars, degree 5", Must::Succeed, 5, false),
            learns("labels of other images", Must::Fail, 3, true),
            attacked("bars under PGD, degree 3", Must::Succeed, 1.0),
            attacked("PGD with the wrong sign", Must::Fail, -1.0),
        ]
    }
}

fn steps(
    case: &Case<'_, '_>,
    family: &Family<'_>,
    kind: Kind,
) -> serde_json::Map<String, serde_json::Value> {
    let counts = Counts::of(case);
    params([
        ("activation", kind.name().into()),
        ("degree", kind.place().into()),
        ("members", (family.pool.len() / 2).into()),
        ("epochs", family.setting.epochs.into()),
        ("tuning", family.setting.tuning.into()),
        ("eps", EPS.into()),
        ("samples", counts.judge.into()),
        ("samples_pgd", counts.attacked.into()),
        ("budget", counts.budget.into()),
    ])
}

/// How many samples.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Test images that accuracy and surrogates are judged on.
    judge: usize,
    /// The first of them, that are attacked.
    attacked: usize,
    /// Test images behind them, that a surrogate is trained on.
    budget: usize,
}

impl Counts {
    fn of(case: &Case<'_, '_>) -> Self {
        let test = case.data.test.images.len();
        let [judge, attacked, budget] = case.run.by_scale([1000, 200, 300], [5000, 1000, 3000]);
        let judge = judge.min(test / 2);
        Self {
            judge,
            attacked: attacked.min(judge),
            budget: budget.min(test - judge),
        }
    }
}

/// What a network is worth, and what attacks gain of it.
#[derive(Clone, Debug)]
struct Measured {
    clean: Estimate,
    noisy: Estimate,
    pgd: Estimate,
    auc: Estimate,
    agreement: Estimate,
    majority: f64,
    /// Labels of the judge's images and of the examples that the network in the clear does
    /// not give.
    flips: Estimate,
}

fn measured(
    target: &mut View<'_>,
    family: &Family<'_>,
    kind: Kind,
    data: &Data,
    counts: Counts,
) -> Result<Measured, AttackError> {
    let test = &data.test;
    let images = Rows::images(&test.images[..counts.judge]);
    let labels = &test.labels[..counts.judge];
    let [few, _] = images.split_at(counts.attacked);
    let examples = family.examples(kind, &few)?;
    let noisy = noise(&few, EPS, family.seed);
    let queries = Rows::joined(&[&images, &noisy, examples, &family.pool.inputs]);
    let scores = target.scores(&queries)?;
    let [seen, of_pool] = scores.split_at(counts.judge + 2 * counts.attacked);
    let read = classes(&seen);
    let (clean, others) = read.split_at(counts.judge);
    let (with_noise, attacked) = others.split_at(counts.attacked);

    let network = target.weights()?;
    let asked = Rows::joined(&[&images, &noisy, examples]);
    let clear = classes(&network.evaluate(&asked, BATCH)?);
    let flips = read.iter().zip(&clear).filter(|(a, b)| a != b).count();

    let pairs = of_pool.iter().zip(&family.pool.labels);
    let margins: Vec<f64> = pairs.map(|(row, &label)| margin(row, label)).collect();
    let scored = Scored::of(&margins, &family.members);

    let natural = &test.images[counts.judge..counts.judge + counts.budget];
    let natural = Rows::images(natural);
    let copy = surrogate::from_labels(target, &natural, counts.budget, family.seed)?;
    let copied = classes(&copy.evaluate(&images, BATCH)?);
    Ok(Measured {
        clean: agreement(clean, labels),
        noisy: agreement(with_noise, &labels[..counts.attacked]),
        pgd: agreement(attacked, &labels[..counts.attacked]),
        auc: auc_estimate(&scored.members, &scored.others, family.seed),
        agreement: agreement(&copied, clean),
        majority: majority(clean),
        flips: wilson(flips, read.len()),
    })
}

/// A network beside the rectifiers. `slot` holds its deployment, if it is one.
fn compared(
    case: &mut Case<'_, '_>,
    family: &Family<'_>,
    kind: Kind,
    slot: Option<&RefCell<Option<Box<dyn Target>>>>,
) -> Result<Vec<Finding>, AttackError> {
    let (counts, data) = (Counts::of(case), case.data);
    let relu = match family.relu.get() {
        Some(relu) => relu,
        None => {
            let mut plain = family.plain(Kind::Relu)?;
            let mut view = View::new(&mut plain, ACCESS);
            let relu = measured(&mut view, family, Kind::Relu, data, counts)?;
            family.relu.get_or_init(|| relu)
        }
    };
    let own = measured(&mut case.target, family, kind, data, counts)?;
    let beside = |finding: Finding, of: Estimate| match kind {
        Kind::Relu => finding,
        Kind::Degree(_) => finding.baseline("relu", of.value),
    };
    let finding = |name: &str, own: Estimate, of: Estimate| beside(Finding::new(name, own), of);
    let learned = family.learned(kind)?;
    let labels = &data.test.labels[..counts.judge];
    let images = Rows::images(&data.test.images[..counts.judge]);
    let fitted = classes(&learned.fitted.evaluate(&images, BATCH)?);
    let mut all = vec![
        finding("accuracy", own.clean, relu.clean)
            .baseline("fitted_alone", agreement(&fitted, labels).value),
        finding("accuracy_pgd", own.pgd, relu.pgd)
            .baseline("random_noise", own.noisy.value)
            .succeeds_below(own.noisy),
        finding("membership_auc", own.auc, relu.auc)
            .baseline("chance", 0.5)
            .succeeds_above(0.5, MARGIN),
        finding("surrogate_agreement", own.agreement, relu.agreement)
            .baseline("majority", own.majority)
            .succeeds_above(own.majority, 0.0),
    ];
    if kind != Kind::Relu {
        let levels = exactly(depth(&learned.network)? as f64);
        all.push(Finding::new("levels", levels).remark("of a chain for one sample"));
    }
    if let Some(slot) = slot {
        all.push(Finding::new("label_flips", own.flips));
        let query = Rows::images(&data.test.images[..1]);
        let cost = match slot.borrow_mut().as_mut() {
            Some(target) => cost(target.as_mut(), &query)?,
            None => None,
        };
        if let Some(cost) = cost {
            for (name, value) in ["bytes_per_query", "evaluator_ms_per_query"]
                .iter()
                .zip(cost)
            {
                let finding = Finding::new(name, exactly(value));
                all.push(finding.remark("of one deployment: the interval is none"));
            }
        }
    }
    Ok(all)
}

/// Levels that an inference of one sample takes.
fn depth(network: &Network<i8>) -> Result<usize, AttackError> {
    let file = network.draft().map_err(NetworkError::from)?;
    let model = Model::parse(&file).map_err(NetworkError::from)?;
    // Rectifiers alone have none.
    Ok(plan::depth(&model).unwrap_or(0))
}

/// Accuracy of a learned polynomial on bars, and what PGD in this direction leaves of it;
/// with `mixed` labels, trained on those of other images.
fn on_bars(
    degree: usize,
    mixed: bool,
    direction: f64,
    seed: u64,
) -> Result<(f64, f64), AttackError> {
    const LAYERS: &[LayerSpec] = &[
        LayerSpec::Dense(16),
        LayerSpec::Relu,
        LayerSpec::Dense(CLASSES as u16),
    ];
    /// As strong as [`crate::evasion::adversarial_training`]'s.
    const BARS_EPS: f64 = 0.09;
    let setting = Setting {
        name: "bars",
        layers: LAYERS,
        pool: 600,
        epochs: 10,
        tuning: 5,
    };
    let mut train = synthetic::bars(600, seed);
    if mixed {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        crate::random::shuffle(&mut train.labels, &mut rng);
    }
    let data = Data {
        name: "bars".into(),
        train,
        test: synthetic::bars(100, seed + 1),
    };
    let family = Family::new(setting, &data, seed);
    let network = &family.learned(Kind::Degree(degree))?.network;
    let network = Differentiable::from_network(network)?;
    let images = Rows::images(&data.test.images);
    let method = SignedGradient {
        direction,
        ..pgd::METHOD
    };
    let examples = method.craft(&network, &images, BARS_EPS, seed)?;
    let right = |rows: &Rows| -> Result<f64, AttackError> {
        let read = classes(&network.evaluate(rows, BATCH)?);
        Ok(agreement(&read, &data.test.labels).value)
    };
    Ok((right(&images)?, right(&examples)?))
}

#[cfg(test)]
mod tests {
    use he_nn::network::NetworkLayer;

    use super::*;

    fn family(data: &Data) -> Family<'_> {
        let layers: &[LayerSpec] = &[LayerSpec::Dense(16), LayerSpec::Relu, LayerSpec::Dense(10)];
        let setting = Setting {
            name: "bars",
            layers,
            pool: 200,
            epochs: 5,
            tuning: 2,
        };
        Family::new(setting, data, 1)
    }

    #[test]
    fn networks_differ_by_their_activations_and_take_the_levels_of_their_degree() {
        let data = Data {
            name: "bars".into(),
            train: synthetic::bars(200, 1),
            test: synthetic::bars(20, 2),
        };
        let family = family(&data);
        let levels = |degree| depth(&family.learned(Kind::Degree(degree)).unwrap().network);
        // Two layers, and ceil(log2(d + 1)) levels per polynomial; a square takes one.
        for (degree, expected) in [(2, 3), (3, 4), (4, 5), (5, 5), (7, 5)] {
            assert_eq!(levels(degree).unwrap(), expected, "degree {degree}");
        }
        let images = &family.pool.inputs;
        let logits = |kind| family.learned(kind).unwrap().fitted.evaluate(images, 200);
        let relu = logits(Kind::Relu).unwrap();
        let far = |degree| {
            let found = logits(Kind::Degree(degree)).unwrap();
            let pairs = found.values().iter().zip(relu.values());
            pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>()
        };
        assert!(far(4) < far(2) && far(2) > 0.0);
    }

    #[test]
    fn learning_moves_coefficients_of_every_power_and_stays_finite() {
        let data = Data {
            name: "bars".into(),
            train: synthetic::bars(200, 1),
            test: synthetic::bars(20, 2),
        };
        let family = family(&data);
        let learned = family.learned(Kind::Degree(5)).unwrap();
        let coefficients = |layer: &NetworkLayer<_>| match layer {
            NetworkLayer::Polynomial(all) => all.clone(),
            _ => Vec::new(),
        };
        let before = learned.fitted.to_network("x").unwrap().quantized();
        let before = coefficients(&before.layers[1]);
        let after = coefficients(&learned.network.layers[1]);
        assert_eq!((before.len(), after.len()), (6, 6));
        for (a, b) in before.iter().zip(&after) {
            assert!(b.is_finite() && a != b, "{before:?} {after:?}");
        }
    }
}
