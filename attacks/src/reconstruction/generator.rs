//! An inverse generator from outputs alone: Shin, Choi, Choi 2021, Algorithm 1, after
//! He, Zhang, Lee 2019 (ACSAC).
//!
//! The attacker asks for the logits of its own images, the test split, and trains a
//! generator G with the mean squared error of `G(f(x))` and `x`; then it inverts logits
//! of training images, which it has never seen. The paper gives neither the generator
//! nor its training. Ours is a perceptron, 10-256-512-784, trained with Adam at 1e-3 on
//! logits that are standardised; its images are clipped to 0..1.

use chacha20::ChaCha8Rng;
use he_nn::data::Dataset;
use he_nn::model::Shape;
use he_nn::progress::Progress;
use he_nn::train::LayerSpec;
use rand_core::SeedableRng;

use super::{Baselines, findings, grid, mistaken, ssim_over};
use crate::attack::{Attack, AttackError, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::paper::{SHIN_5, Table, figure};
use crate::plain::{Plain, classes};
use crate::random;
use crate::record::{Finding, Scale};
use crate::stats::agreement;
use crate::synthetic;
use crate::target::{Access, Activation, Grants, Rows, Target, View};
use crate::trainer::{Goal, Training, train};

/// Evaluated at once, to bound the memory.
const BATCH: usize = 1024;

/// What the generator learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// Every image from its own logits.
    Own,
    /// Every image from those of another one: an attack broken on purpose.
    Shuffled,
}

/// How a generator is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// Passes over the attacker's images.
    pub epochs: usize,
    /// Images per step.
    pub batch: usize,
    /// Which logits belong to which image.
    pub pairs: Pairs,
}

/// A trained generator.
#[derive(Clone, Debug)]
pub struct Generator {
    network: Differentiable,
    /// Mean and deviation of every logit.
    moments: Vec<(f64, f64)>,
}

impl Generator {
    /// Trains one on logits and the images that they came from.
    ///
    /// # Errors
    /// [`AttackError::Trainer`], also where there is no image.
    pub fn train(
        scores: &Rows,
        images: &Rows,
        method: Method,
        seed: u64,
        progress: &mut dyn Progress,
    ) -> Result<Self, AttackError> {
        let shape = Shape::flat(scores.width() as u16);
        let layers = [
            LayerSpec::Dense(256),
            LayerSpec::Relu,
            LayerSpec::Dense(512),
            LayerSpec::Relu,
            LayerSpec::Dense(images.width() as u16),
        ];
        let count = scores.len().max(1) as f64;
        let moments = (0..scores.width()).map(|logit| {
            let mean = scores.iter().map(|row| row[logit]).sum::<f64>() / count;
            let squares = scores.iter().map(|row| (row[logit] - mean).powi(2));
            (mean, (squares.sum::<f64>() / count).sqrt().max(1e-9))
        });
        let generator = Self {
            network: Differentiable::untrained(shape, &layers, seed)?,
            moments: moments.collect(),
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        if method.pairs == Pairs::Shuffled {
            random::shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(seed));
        }
        let inputs = generator.standardised(scores).select(&order);
        let training = Training {
            epochs: method.epochs,
            batch: method.batch,
            seed,
            ..Training::default()
        };
        let goal = Goal::Values(images);
        train(&generator.network, &inputs, goal, &training, progress)?;
        Ok(generator)
    }

    fn standardised(&self, scores: &Rows) -> Rows {
        let mut inputs = scores.clone();
        let moments = self.moments.iter().cycle();
        for (value, (mean, deviation)) in inputs.values_mut().iter_mut().zip(moments) {
            *value = (*value - mean) / deviation;
        }
        inputs
    }

    /// The images that logits speak for.
    ///
    /// # Errors
    /// [`AttackError::Network`].
    pub fn invert(&self, scores: &Rows) -> Result<Rows, AttackError> {
        let mut images = self.network.evaluate(&self.standardised(scores), BATCH)?;
        let pixels = images.values_mut().iter_mut();
        pixels.for_each(|pixel| *pixel = pixel.clamp(0.0, 1.0));
        Ok(images)
    }
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct InverseGenerator;

impl Attack for InverseGenerator {
    fn name(&self) -> &'static str {
        "inverse-generator"
    }

    fn about(&self) -> &'static str {
        "images of the training split from their logits, by a generator that is trained on the test split"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Scores])
    }

    fn tables(&self) -> &'static [Table] {
        &[SHIN_5]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            // The paper attacks its polynomial networks alone, and so does a quick run.
            let twin = case.target.about().activation == Activation::Relu;
            if twin && case.run.scale == Scale::Quick {
                return Ok(());
            }
            let own = case.data.test.images.len();
            let most = case.run.by_scale(4000, usize::MAX);
            let own = own.min(if case.sparing() { 2000 } else { most });
            let victims = case.data.train.images.len();
            let victims = victims.min(case.run.by_scale(200, 1000));
            if own == 0 || victims == 0 {
                return Err(AttackError::Data {
                    attack: "inverse-generator",
                    what: "images in both splits".into(),
                });
            }
            let method = Method {
                epochs: case.run.by_scale(10, 30),
                batch: case.run.by_scale(64, 32),
                pairs: Pairs::Own,
            };
            let seed = case.run.seed;
            let of_step = params([
                ("epochs", method.epochs.into()),
                ("batch", method.batch.into()),
                ("own_images", own.into()),
                ("victims", victims.into()),
            ]);
            case.step(of_step, |case| {
                let images = Rows::images(&case.data.test.images[..own]);
                let labels = &case.data.test.labels[..own];
                let originals = Rows::images(&case.data.train.images[..victims]);
                let truth = &case.data.train.labels[..victims];
                let all = case.target.scores(&Rows::joined(&[&images, &originals]))?;
                let [scores, seen] = all.split_at(images.len());
                let progress = &mut *case.run.progress;
                let generator = Generator::train(&scores, &images, method, seed, progress)?;
                let found = generator.invert(&seen)?;
                let read = classes(&seen);
                let baselines = Baselines::new(&images, labels, &read, seed);
                let all = Rows::joined(&[&found, &baselines.class_mean]);
                let [again, means] = case.target.scores(&all)?.split_at(found.len());
                let (again, means) = (classes(&again), classes(&means));
                // The paper attacks its polynomial networks alone.
                let polynomial = case.target.about().activation == Activation::Polynomial;
                let paper = |column| {
                    let printed = figure(SHIN_5, &case.data.name, column);
                    printed.filter(|_| polynomial)
                };
                let mut all = findings(&originals, &found, &baselines, seed);
                let mistake = mistaken(&originals, &found, &baselines, paper("SSIM"), seed);
                all.push(mistake);
                all.push(
                    Finding::new("base_line_accuracy", agreement(&read, truth))
                        .paper(paper("base-line accuracy")),
                );
                all.push(
                    Finding::new("reclassification", agreement(&again, truth))
                        .baseline("class_mean", agreement(&means, truth).value)
                        .baseline("chance", 1.0 / case.target.about().classes as f64)
                        .paper(paper("reclassification"))
                        .remark("class means are read as well; SSIM tells them apart"),
                );
                let name = format!("{}-{}", self.name(), case.target.about().name);
                let name = format!("{name}-{}", case.data.name);
                let rows = [&originals, &found, &baselines.class_mean];
                case.run.picture(&name, &grid(&rows))?;
                Ok(all)
            })
        })
    }

    /// On waves at random phases, which their classes hardly tell: the gain in SSIM over
    /// the class mean.
    fn controls(&self) -> Vec<Control<'_>> {
        let control = |name, must, epochs, pairs| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let method = Method {
                    epochs,
                    batch: 16,
                    pairs,
                };
                let own = synthetic::waves(400, seed);
                let victims = synthetic::waves(50, seed + 1);
                gain(&mut control_target(seed)?, &own, &victims, method, seed)
            }),
        };
        vec![
            control("own logits", Must::Succeed, 10, Pairs::Own),
            control("logits of other images", Must::Fail, 10, Pairs::Shuffled),
            control("generator without training", Must::Fail, 0, Pairs::Own),
        ]
    }
}

/// A linear network that was never trained: it drops nothing of four numbers, and reads
/// no class.
fn control_target(seed: u64) -> Result<Plain, AttackError> {
    let network = synthetic::linear(seed)?;
    Ok(Plain::new(
        "waves",
        "waves",
        Activation::Polynomial,
        network,
    ))
}

/// SSIM over the class mean that controls ask for; the positive one reached 0.6.
const BAR: f64 = 0.3;

/// How much SSIM a generator gains over the class mean, and whether that is sure.
fn gain(
    target: &mut dyn Target,
    own: &Dataset,
    victims: &Dataset,
    method: Method,
    seed: u64,
) -> Result<Outcome, AttackError> {
    let mut target = View::new(target, InverseGenerator.access());
    let (images, originals) = (Rows::images(&own.images), Rows::images(&victims.images));
    let scores = target.scores(&images)?;
    let generator = Generator::train(&scores, &images, method, seed, &mut ())?;
    let seen = target.scores(&originals)?;
    let found = generator.invert(&seen)?;
    let labels = classes(&scores);
    let baselines = Baselines::new(&images, &labels, &classes(&seen), seed);
    let gain = ssim_over(&originals, &found, &baselines.class_mean, seed);
    Ok(Outcome {
        succeeded: gain.ci95[0] > BAR,
        value: gain.value,
        bar: BAR,
    })
}
