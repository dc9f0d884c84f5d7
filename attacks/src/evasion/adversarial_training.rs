//! Adversarial training as a countermeasure (Madry et al. 2018, arXiv:1706.06083): the
//! papers' networks, trained on examples of PGD instead of on images.
//!
//! Shin, Choi and Choi hold countermeasures infeasible under encryption. This one acts
//! before it: weights of 8 bits are what is deployed, as many as before, so that an encrypted
//! inference of them takes the same operations. So two networks of one architecture are trained on the
//! same images from one seed, with and without examples, and both are attacked in the clear
//! and on the encrypted path. Beside every figure of the hardened network stands the
//! ordinary one's.

use std::cell::OnceCell;

use candle_core::Tensor;
use chacha20::ChaCha8Rng;
use he_nn::data::CLASSES;
use he_nn::model::Shape;
use he_nn::network::Network;
use he_nn::train::{ARCHITECTURES, Architecture, LayerSpec};
use rand_core::SeedableRng;

use super::autoattack::{ensemble, robust};
use super::{ACCESS, BATCH, cross_entropy, noise, pgd};
use crate::attack::{Attack, AttackError, Case, Context, Control, Data, Must, Outcome, params};
use crate::network::Differentiable;
use crate::plain::{Only, Plain, classes};
use crate::random;
use crate::record::{Finding, Scale};
use crate::stats::{Estimate, agreement, quantile, wilson};
use crate::synthetic;
use crate::target::{
    About, Access, Activation, Answers, Deploy, Evaluation, Grants, Made, Rows, Target,
    TargetError, View,
};
use crate::trainer::{Change, Goal, Training, one_hot, train_on};

/// Of the examples that are trained on and of those that are attacked with. The paper's
/// 0.3 is beyond what networks of this size learn.
const EPS: f64 = 0.1;

/// Steps of PGD per batch, each a quarter of `eps`.
const STEPS: usize = 5;

/// What every network here takes.
const IMAGE: Shape = Shape {
    channels: 1,
    height: he_nn::data::SIDE as u16,
    width: he_nn::data::SIDE as u16,
};

/// The networks that a run of this scale trains.
const fn networks(scale: Scale) -> &'static [&'static str] {
    match scale {
        Scale::Quick => &["mnist-mlp64", "fashion-cryptonets"],
        Scale::Full => &[
            "mnist-mlp64",
            "mnist-mlp64-relu",
            "mnist-cryptonets",
            "mnist-cryptonets-relu",
            "fashion-cryptonets",
            "fashion-cryptonets-relu",
        ],
    }
}

/// Names of the hardened targets that a run of this scale has behind encryption, if it has
/// the data of all.
#[must_use]
pub fn encrypted_targets(scale: Scale) -> Vec<String> {
    let squares = networks(scale).iter().filter(|n| !n.ends_with("-relu"));
    squares
        .map(|name| format!("hardened {name}, encrypted"))
        .collect()
}

/// How two networks are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Setting {
    name: &'static str,
    layers: &'static [LayerSpec],
    images: usize,
    epochs: usize,
    eps: f64,
    /// 1 to train on examples that raise the loss; a test lowers it.
    direction: f64,
}

impl Setting {
    /// The networks for these data that a run trains. Only some of the papers' in a quick
    /// one, on few images.
    fn all(data: &Data, scale: Scale) -> Vec<Self> {
        let (images, epochs) = match scale {
            Scale::Quick => (2000, 8),
            Scale::Full => (60_000, 20),
        };
        let names = networks(scale);
        let fashion = data.name.starts_with("fashion");
        let ours = |architecture: &&Architecture| {
            let name = architecture.name;
            names.contains(&name) && name.starts_with("fashion") == fashion
        };
        let of = |architecture: &Architecture| Self {
            name: architecture.name,
            layers: architecture.layers,
            images: images.min(data.train.images.len()),
            epochs,
            eps: EPS,
            direction: 1.0,
        };
        ARCHITECTURES.iter().filter(ours).map(of).collect()
    }

    fn activation(&self) -> Activation {
        match self.layers.contains(&LayerSpec::Relu) {
            true => Activation::Relu,
            false => Activation::Polynomial,
        }
    }

    /// The network as it is deployed, trained on images or, with `hardened`, on examples.
    fn trained(
        &self,
        images: &Rows,
        labels: &[u8],
        hardened: bool,
        seed: u64,
    ) -> Result<Network<i16>, AttackError> {
        let network = Differentiable::untrained(IMAGE, self.layers, seed)?;
        let training = Training {
            epochs: self.epochs,
            batch: 64,
            seed,
            ..Training::default()
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1);
        let mut harden = |batch: Tensor, at: &[usize]| {
            let labels: Vec<u8> = at.iter().map(|&i| labels[i]).collect();
            self.examples(&network, batch, &labels, &mut rng)
        };
        let mut keep = |batch: Tensor, _: &[usize]| Ok(batch);
        let change: &mut Change<'_> = if hardened { &mut harden } else { &mut keep };
        let goal = Goal::Labels(labels);
        train_on(&network, images, goal, &training, change, &mut ())?;
        Ok(network.to_network(self.name)?.quantized())
    }

    /// PGD from a random start against the labels.
    fn examples(
        &self,
        network: &Differentiable,
        batch: Tensor,
        labels: &[u8],
        rng: &mut ChaCha8Rng,
    ) -> candle_core::Result<Tensor> {
        let eps = self.eps;
        let labels = one_hot(labels, network.outputs(), batch.dtype())?;
        let low = (&batch - eps)?.clamp(0.0, 1.0)?;
        let high = (&batch + eps)?.clamp(0.0, 1.0)?;
        let start = (0..batch.elem_count())
            .map(|_| (eps * 2.0f64.mul_add(random::uniform(rng), -1.0)) as f32);
        let start = Tensor::from_vec(start.collect(), batch.shape(), batch.device())?;
        let mut x = (&batch + start)?.maximum(&low)?.minimum(&high)?;
        for _ in 0..STEPS {
            let gradient = network.input_gradient(&x, |logits| cross_entropy(logits, &labels))?;
            let step = (gradient.sign()? * (self.direction * eps / 4.0))?;
            x = (x + step)?.maximum(&low)?.minimum(&high)?;
        }
        Ok(x)
    }
}

/// Both networks of a setting, trained when one is first asked for.
struct Pair<'d> {
    setting: Setting,
    data: &'d Data,
    seed: u64,
    networks: OnceCell<[Network<i16>; 2]>,
}

impl Pair<'_> {
    /// The ordinary network and the hardened one.
    fn networks(&self) -> Result<&[Network<i16>; 2], AttackError> {
        if let Some(networks) = self.networks.get() {
            return Ok(networks);
        }
        let train = &self.data.train;
        let images = Rows::images(&train.images[..self.setting.images]);
        let labels = &train.labels[..self.setting.images];
        let [ordinary, hardened] = [false, true]
            .map(|hardened| self.setting.trained(&images, labels, hardened, self.seed));
        let both = [ordinary?, hardened?];
        Ok(self.networks.get_or_init(|| both))
    }

    /// Samples like those that a deployment must have room for: images, and images with
    /// noise as large as an attacker's.
    fn samples(&self) -> Rows {
        let images = &self.data.train.images;
        let images = Rows::images(&images[..images.len().min(500)]);
        let noisy = noise(&images, self.setting.eps, self.seed);
        Rows::joined(&[&images, &noisy])
    }

    fn deployed(
        &self,
        hardened: bool,
        evaluation: Evaluation,
        deploy: Option<&dyn Deploy>,
    ) -> Result<Box<dyn Target>, AttackError> {
        let network = &self.networks()?[usize::from(hardened)];
        let Setting { name, .. } = self.setting;
        let (Some(deploy), true) = (deploy, evaluation != Evaluation::Clear) else {
            let network = Differentiable::from_network(network)?;
            let activation = self.setting.activation();
            let plain = Plain::new(name, &self.data.name, activation, network);
            return Ok(Box::new(plain));
        };
        let made = Made {
            name,
            dataset: &self.data.name,
            network,
            samples: &self.samples(),
        };
        Ok(deploy.deploy(made, evaluation)?)
    }
}

/// One network of a pair as a target, deployed when it is first asked.
struct Deployed<'p> {
    about: About,
    pair: &'p Pair<'p>,
    hardened: bool,
    deploy: Option<&'p dyn Deploy>,
    target: Option<Box<dyn Target>>,
}

impl<'p> Deployed<'p> {
    fn new(
        pair: &'p Pair<'p>,
        hardened: bool,
        evaluation: Evaluation,
        deploy: Option<&'p dyn Deploy>,
    ) -> Self {
        let kind = if hardened { "hardened" } else { "ordinary" };
        let place = match evaluation {
            Evaluation::Clear => "",
            Evaluation::Encrypted => ", encrypted",
            Evaluation::EncryptedWeights => ", encrypted-weights",
        };
        let about = About {
            name: format!("{kind} {}{place}", pair.setting.name),
            dataset: pair.data.name.clone(),
            inputs: IMAGE.values(),
            classes: CLASSES,
            activation: pair.setting.activation(),
            evaluation,
        };
        Self {
            about,
            pair,
            hardened,
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

impl Target for Deployed<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        // What both the clear and the encrypted target give: an attacker inside sees weights.
        ACCESS
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let target = match &mut self.target {
            Some(target) => target,
            none => {
                let made = self
                    .pair
                    .deployed(self.hardened, self.about.evaluation, self.deploy);
                let made = made.map_err(|source| TargetError::Failed {
                    target: self.about.name.clone(),
                    source: source.into(),
                })?;
                none.insert(made)
            }
        };
        target.observe(queries, asked)
    }

    fn weights(&self) -> Result<Differentiable, TargetError> {
        let networks = self.pair.networks().map_err(|source| self.failed(source))?;
        let network = Differentiable::from_network(&networks[usize::from(self.hardened)]);
        network.map_err(|source| self.failed(source.into()))
    }
}

/// The countermeasure, measured by attacks.
#[derive(Clone, Copy, Debug)]
pub struct AdversarialTraining;

impl Attack for AdversarialTraining {
    fn name(&self) -> &'static str {
        "adversarial-training"
    }

    fn about(&self) -> &'static str {
        "countermeasure: networks trained on PGD's examples, under PGD and AutoAttack"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let (all, seed, scale) = (context.data, context.run.seed, context.run.scale);
        let deploy = context.deploy;
        for data in all {
            for setting in Setting::all(data, scale) {
                let pair = Pair {
                    setting,
                    data,
                    seed,
                    networks: OnceCell::new(),
                };
                let encrypted = deploy.is_some() && setting.activation() == Activation::Polynomial;
                let places: &[Evaluation] = match encrypted {
                    true => &[Evaluation::Clear, Evaluation::Encrypted],
                    false => &[Evaluation::Clear],
                };
                for &place in places {
                    let [mut ordinary, mut hardened] =
                        [false, true].map(|hardened| Deployed::new(&pair, hardened, place, deploy));
                    context.own_target(self, &mut hardened, data, |case| {
                        let most = case.run.by_scale([100, 20], [1000, 200]);
                        let counts = most.map(|most| most.min(data.test.images.len()));
                        let of_step = params([
                            ("eps", setting.eps.into()),
                            ("images", setting.images.into()),
                            ("epochs", setting.epochs.into()),
                            ("samples", counts[0].into()),
                            ("samples_autoattack", counts[1].into()),
                        ]);
                        case.step(of_step, |case| compared(case, &pair, &mut ordinary, counts))
                    })?;
                }
                // For the record that says so.
                let hardened = Deployed::new(&pair, true, Evaluation::Clear, None);
                context.own_target(self, &mut Only::labels(hardened), data, |_| Ok(()))?;
            }
        }
        Ok(())
    }

    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 0.3;
        let control = |name, must, eps: f64, direction: f64| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let value = gained(eps, direction, seed)?;
                Ok(Outcome {
                    succeeded: value >= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control("bars, trained at eps 0.09", Must::Succeed, BARS_EPS, 1.0),
            control("trained at eps 0", Must::Fail, 0.0, 1.0),
            control("examples with the wrong sign", Must::Fail, BARS_EPS, -1.0),
        ]
    }
}

/// What bars are attacked with, whose waves have an amplitude of 0.24.
const BARS_EPS: f64 = 0.09;

/// What PGD at [`BARS_EPS`] leaves right of a network that was hardened on bars, over what it
/// leaves of the ordinary one.
fn gained(eps: f64, direction: f64, seed: u64) -> Result<f64, AttackError> {
    const LAYERS: &[LayerSpec] = &[
        LayerSpec::Dense(16),
        LayerSpec::Square,
        LayerSpec::Dense(CLASSES as u16),
    ];
    let setting = Setting {
        name: "bars",
        layers: LAYERS,
        images: 300,
        epochs: 20,
        eps,
        direction,
    };
    let (data, judge) = (synthetic::bars(300, seed), synthetic::bars(100, seed + 1));
    let (images, judged) = (Rows::images(&data.images), Rows::images(&judge.images));
    let mut left = [0.0; 2];
    for hardened in [false, true] {
        let network = setting.trained(&images, &data.labels, hardened, seed)?;
        let network = Differentiable::from_network(&network)?;
        let examples = pgd::METHOD.craft(&network, &judged, BARS_EPS, seed)?;
        let read = classes(&network.evaluate(&examples, BATCH)?);
        left[usize::from(hardened)] = agreement(&read, &judge.labels).value;
    }
    Ok(left[1] - left[0])
}

/// What a network's accuracy is on images, on PGD's examples and under AutoAttack, and how
/// many labels of PGD's examples it changes against the clear.
struct Measured {
    clean: Estimate,
    pgd: Estimate,
    autoattack: Estimate,
    flips: Estimate,
}

fn measured(
    target: &mut View<'_>,
    data: &Data,
    [samples, few]: [usize; 2],
    scale: Scale,
    seed: u64,
) -> Result<Measured, AttackError> {
    let network = target.weights()?;
    let images = Rows::images(&data.test.images[..samples]);
    let labels = &data.test.labels[..samples];
    let examples = pgd::METHOD.craft(&network, &images, EPS, seed)?;
    let [strong, _] = images.split_at(few);
    let (iterations, queries, targets) = match scale {
        Scale::Quick => (20, 100, 3),
        Scale::Full => (100, 5000, 9),
    };
    let mut all = vec![images, examples];
    for member in ensemble(iterations, queries, targets) {
        all.push(member.craft(&network, &strong, &labels[..few], EPS, seed)?);
    }
    let parts: Vec<&Rows> = all.iter().collect();
    let answers = target.labels(&Rows::joined(&parts))?;
    let (read, of_members) = answers.split_at(2 * samples);
    let (clean, attacked) = read.split_at(samples);
    let mut members: Vec<Vec<u8>> = of_members.chunks(few.max(1)).map(<[u8]>::to_vec).collect();
    // Plain PGD belongs to the ensemble: none may look stronger than it.
    members.push(attacked[..few].to_vec());
    let clear = classes(&network.evaluate(&all[1], BATCH)?);
    let flips = attacked.iter().zip(&clear).filter(|(a, b)| a != b).count();
    Ok(Measured {
        clean: agreement(clean, labels),
        pgd: agreement(attacked, labels),
        autoattack: robust(&members, &labels[..few]),
        flips: wilson(flips, samples),
    })
}

fn compared(
    case: &mut Case<'_, '_>,
    pair: &Pair<'_>,
    ordinary: &mut Deployed<'_>,
    counts: [usize; 2],
) -> Result<Vec<Finding>, AttackError> {
    let (scale, seed, data) = (case.run.scale, case.run.seed, case.data);
    let before = measured(&mut View::new(ordinary, ACCESS), data, counts, scale, seed)?;
    let after = measured(&mut case.target, data, counts, scale, seed)?;
    let finding = |name: &str, after: Estimate, before: Estimate| {
        Finding::new(name, after).baseline("ordinary", before.value)
    };
    let mut all = vec![
        finding("accuracy", after.clean, before.clean),
        finding("accuracy_pgd", after.pgd, before.pgd).succeeds_above(before.pgd.ci95[1], 0.0),
        finding("robust_accuracy", after.autoattack, before.autoattack)
            .succeeds_above(before.autoattack.ci95[1], 0.0),
        finding("label_flips", after.flips, before.flips),
    ];
    if case.target.about().evaluation == Evaluation::Clear {
        return Ok(all);
    }
    let query = Rows::images(&data.test.images[..1]);
    let mut costs = Vec::new();
    for hardened in [false, true] {
        let evaluation = case.target.about().evaluation;
        let mut target = pair.deployed(hardened, evaluation, ordinary.deploy)?;
        costs.push(cost(target.as_mut(), &query)?);
    }
    if let [Some(before), Some(after)] = &costs[..] {
        for (at, name) in [(0, "bytes_per_query"), (1, "evaluator_ms_per_query")] {
            let value = Estimate {
                value: after[at],
                ci95: [after[at]; 2],
            };
            let value = Finding::new(name, value).baseline("ordinary", before[at]);
            all.push(value.remark("of one deployment each: the interval is none"));
        }
    }
    Ok(all)
}

/// Bytes on the link and the evaluator's milliseconds (the median of some) of one query;
/// none from a target that shows neither.
pub(crate) fn cost(target: &mut dyn Target, query: &Rows) -> Result<Option<[f64; 2]>, AttackError> {
    const TIMES: usize = 5;
    let asked = Grants::of(&[Access::Ciphertexts, Access::Timing]);
    if asked.without(target.grants()) != Grants::NONE {
        return Ok(None);
    }
    let query = query.select(&[0; TIMES]);
    let answers = target.observe(&query, asked)?;
    let mut times: Vec<f64> = answers.times.iter().map(|t| t.value as f64 / 1e6).collect();
    let bytes = answers.exchanges.first().map(|e| e.up.len() + e.down.len());
    Ok(bytes.map(|bytes| [bytes as f64, quantile(&mut times, 0.5)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_training_stay_within_eps_and_raise_the_loss() {
        let data = synthetic::bars(40, 1);
        let network = Differentiable::one_hidden(16, Activation::Polynomial, 1).unwrap();
        let images = Rows::images(&data.images);
        let batch = network.batch(images.values()).unwrap();
        let setting = Setting {
            name: "bars",
            layers: &[],
            images: 40,
            epochs: 1,
            eps: 0.2,
            direction: 1.0,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let found = setting.examples(&network, batch.clone(), &data.labels, &mut rng);
        let found = found.unwrap();
        let far = (&found - &batch)
            .unwrap()
            .abs()
            .unwrap()
            .flatten_all()
            .unwrap();
        let far = far.max(0).unwrap().to_scalar::<f32>().unwrap();
        assert!((0.19..0.200_001).contains(&far), "{far}");
        let labels = one_hot(&data.labels, 10, batch.dtype()).unwrap();
        let loss = |x: &Tensor| {
            let logits = network.forward(x).unwrap();
            cross_entropy(&logits, &labels)
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
        };
        assert!(loss(&found) > 1.5 * loss(&batch));
    }
}
