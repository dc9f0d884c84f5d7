//! Model inversion by class: Fredrikson, Jha, Ristenpart 2015 (CCS), algorithm 1,
//! "MI-Face".
//!
//! For every class, gradient descent from a black image to one that the network is sure
//! of, clipped to 0..1. The cost is the cross entropy of the class and not `1 - p`: both
//! have their least values at the same images, but the gradient of `1 - p` vanishes
//! where a network is sure of another class. The paper's denoising of faces has no
//! counterpart here.
//!
//! The result stands for a class and not for an image. So it is compared with training
//! images of its class and must resemble them more than the inversion of another class
//! does; and it must beat the class mean to tell more than public images do.

use candle_core::{D, DType, Tensor};
use candle_nn::ops::log_softmax;

use super::{Baselines, findings, grid, ssim_over};
use crate::attack::{Attack, AttackError, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::record::Finding;
use crate::stats::agreement;
use crate::synthetic;
use crate::target::{Access, Grants, Rows};
use crate::trainer::{Goal, Training, one_hot, train};

/// How classes are inverted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Method {
    /// Steps.
    pub steps: usize,
    /// Their size: times the gradient, as in the paper.
    pub rate: f64,
    /// 1 to descend; a test climbs.
    pub direction: f64,
}

/// The paper's step size.
const METHOD: Method = Method {
    steps: 1000,
    rate: 0.1,
    direction: 1.0,
};

impl Method {
    /// An image per class.
    ///
    /// # Errors
    /// [`AttackError::Tensor`].
    pub fn invert(&self, network: &Differentiable) -> Result<Rows, AttackError> {
        let (classes, inputs) = (network.outputs(), network.inputs());
        let all: Vec<u8> = (0..classes).map(|class| class as u8).collect();
        let wanted = one_hot(&all, classes, network.dtype())?;
        let cost = |logits: &Tensor| {
            (log_softmax(logits, D::Minus1)? * &wanted)?
                .sum_all()?
                .neg()
        };
        let mut x = network.batch(&vec![0.0; classes * inputs])?;
        for _ in 0..self.steps {
            let gradient = network.input_gradient(&x, cost)?;
            let step = (gradient * (self.rate * self.direction))?;
            x = (x - step)?.clamp(0.0, 1.0)?;
        }
        let pixels = x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        Ok(Rows::new(inputs, pixels))
    }
}

/// The image of every label's class, or of the class `shift` farther on.
fn of_labels(inverted: &Rows, labels: &[u8], shift: usize) -> Rows {
    let classes = inverted.len().max(1);
    let rows = labels.iter().map(|&l| (usize::from(l) + shift) % classes);
    inverted.select(&rows.collect::<Vec<usize>>())
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct ClassInversion;

impl Attack for ClassInversion {
    fn name(&self) -> &'static str {
        "class-inversion"
    }

    fn about(&self) -> &'static str {
        "an image of every class, by gradients of the network's confidence"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Weights, Access::Labels])
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            let count = case.data.train.images.len();
            let count = count.min(case.run.by_scale(200, 1000));
            let method = Method {
                steps: case.run.by_scale(200, METHOD.steps),
                ..METHOD
            };
            let seed = case.run.seed;
            let of_step = params([
                ("steps", method.steps.into()),
                ("rate", method.rate.into()),
                ("images", count.into()),
            ]);
            case.step(of_step, |case| {
                let inverted = method.invert(&case.target.weights()?)?;
                let originals = Rows::images(&case.data.train.images[..count]);
                let labels = &case.data.train.labels[..count];
                let test = &case.data.test;
                let known = Rows::images(&test.images);
                let baselines = Baselines::new(&known, &test.labels, labels, seed);
                let found = of_labels(&inverted, labels, 0);
                let others = of_labels(&inverted, labels, 1);
                let all: Vec<u8> = (0..inverted.len()).map(|class| class as u8).collect();
                let read = agreement(&case.target.labels(&inverted)?, &all);
                let over = ssim_over(&originals, &found, &others, seed);
                let mut records = findings(&originals, &found, &baselines, seed);
                records.push(Finding::new("ssim_over_other_class", over).succeeds_above(0.0, 0.0));
                records.push(
                    Finding::new("reclassification", read)
                        .baseline("chance", 1.0 / all.len().max(1) as f64)
                        .remark("an adversarial example of noise is read as its class too"),
                );
                let name = format!("{}-{}", self.name(), case.target.about().name);
                let name = format!("{name}-{}", case.data.name);
                let means = Baselines::new(&known, &test.labels, &all, seed).class_mean;
                case.run.picture(&name, &grid(&[&inverted, &means]))?;
                Ok(records)
            })
        })
    }

    /// On a linear network and bars: the gain in SSIM over the inversion of another
    /// class must be 0.05 at least.
    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 0.05;
        let control = |name, must, epochs: usize, direction: f64| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let data = synthetic::bars(300, seed);
                let images = Rows::images(&data.images);
                let network = synthetic::linear(seed)?;
                let training = Training {
                    epochs,
                    seed,
                    ..Training::default()
                };
                let goal = Goal::Labels(&data.labels);
                train(&network, &images, goal, &training, &mut ())?;
                let method = Method {
                    steps: 200,
                    direction,
                    ..METHOD
                };
                let inverted = method.invert(&network)?;
                let found = of_labels(&inverted, &data.labels, 0);
                let others = of_labels(&inverted, &data.labels, 1);
                let value = ssim_over(&images, &found, &others, seed).value;
                Ok(Outcome {
                    succeeded: value >= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control("bars", Must::Succeed, 10, 1.0),
            control("network that was never trained", Must::Fail, 0, 1.0),
            control("gradient with the wrong sign", Must::Fail, 10, -1.0),
        ]
    }
}
