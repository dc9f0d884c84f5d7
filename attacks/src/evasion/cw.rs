//! Carlini and Wagner's attack in L2: Carlini, Wagner 2017 (arXiv:1608.04644, section
//! V.A), as CleverHans 4.0 has it with its defaults, untargeted.
//!
//! It looks for the nearest image of another class and knows no `eps`. So `l2` stands
//! beside the accuracy, and `accuracy_within_0.3` is what is left if only examples
//! within 0.3 of their image in every pixel count, which is what the other attacks of
//! the paper's table are held to.

use candle_core::{D, DType, Device, Tensor};
use rayon::prelude::*;

use super::{
    ACCESS, BATCH, Made, PAPER_EPS, PART, Seen, control_data, control_network, grid, own_labels,
};
use crate::attack::{Attack, AttackError, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::paper::{SHIN_4, Table, figure};
use crate::plain::classes;
use crate::record::Finding;
use crate::stats::{agreement, mean, wilson};
use crate::target::{Activation, Grants, Rows};

/// Pixels are kept this little off 0 and 1, where the tangent is infinite.
const INSIDE: f64 = 0.999_999;

/// Above this no upper bound of the constant is known.
const UNBOUNDED: f64 = 1e9;

/// How it searches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CarliniWagner {
    /// Adam's step size.
    pub learning_rate: f64,
    /// Steps of the search for the weight of the loss.
    pub search_steps: usize,
    /// Most steps of Adam in each of them.
    pub iterations: usize,
    /// Weight of the loss at first.
    pub constant: f64,
    /// Margin of logits that an example must have.
    pub confidence: f64,
    /// 1 to push away from the label; a test pulls towards it.
    pub direction: f64,
}

/// CleverHans's defaults.
pub const METHOD: CarliniWagner = CarliniWagner {
    learning_rate: 5e-3,
    search_steps: 5,
    iterations: 1000,
    constant: 1e-2,
    confidence: 0.0,
    direction: 1.0,
};

/// With fewer steps.
const QUICK: CarliniWagner = CarliniWagner {
    learning_rate: 5e-2,
    iterations: 100,
    ..METHOD
};

/// What the search knows of one image.
#[derive(Clone, Copy)]
struct Search {
    low: f64,
    high: f64,
    constant: f64,
    /// Smallest squared distance of an example.
    best: f64,
    /// Whether this step of the search found one.
    found: bool,
}

impl CarliniWagner {
    /// The nearest examples that were found; an image itself where there is none.
    ///
    /// # Errors
    /// [`AttackError::Tensor`].
    pub fn craft(&self, network: &Differentiable, images: &Rows) -> Result<Rows, AttackError> {
        let parts = images.values().par_chunks(images.width().max(1) * PART);
        let crafted = parts.map(|part| self.craft_batch(network, part));
        let crafted = crafted.collect::<Result<Vec<_>, _>>()?;
        Ok(Rows::new(images.width(), crafted.concat()))
    }

    fn craft_batch(
        &self,
        network: &Differentiable,
        images: &[f64],
    ) -> Result<Vec<f64>, AttackError> {
        let width = network.inputs();
        let own = own_labels(network, &network.batch(images)?)?;
        let start: Vec<f64> = images
            .iter()
            .map(|x| ((2.0 * x - 1.0) * INSIDE).atanh())
            .collect();
        // CleverHans measures distances from where it starts, not from the image.
        let from: Vec<f64> = start.iter().map(|w| pixel(*w)).collect();
        let mut best = images.to_vec();
        let mut searches = vec![
            Search {
                low: 0.0,
                high: f64::INFINITY,
                constant: self.constant,
                best: f64::INFINITY,
                found: false,
            };
            images.len() / width
        ];
        for _ in 0..self.search_steps {
            let constants: Vec<f64> = searches.iter().map(|s| s.constant).collect();
            let mut w = start.clone();
            let (mut first, mut second) = (vec![0.0; w.len()], vec![0.0; w.len()]);
            let mut last = f64::INFINITY;
            for iteration in 1..=self.iterations {
                let x: Vec<f64> = w.iter().map(|w| pixel(*w)).collect();
                let (gradient, hinges) = self.gradient(network, &x, &own, &constants)?;
                let mut total = 0.0;
                for (i, search) in searches.iter_mut().enumerate() {
                    let row = i * width..(i + 1) * width;
                    let pairs = x[row.clone()].iter().zip(&from[row.clone()]);
                    let distance: f64 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
                    total += distance + search.constant * hinges[i];
                    // No margin is missing: another class leads by the confidence.
                    if hinges[i] <= 0.0 && self.direction > 0.0 {
                        search.found = true;
                        if distance < search.best {
                            search.best = distance;
                            best[row.clone()].copy_from_slice(&x[row]);
                        }
                    }
                }
                // It ends early where it no longer gains.
                if iteration % (self.iterations / 10).max(1) == 0 {
                    if total > last * 0.9999 {
                        break;
                    }
                    last = total;
                }
                let corrections = [0.9f64, 0.999].map(|beta| 1.0 - beta.powi(iteration as i32));
                for i in 0..w.len() {
                    let slope = 2.0 * x[i] * (1.0 - x[i]);
                    let g = (2.0 * (x[i] - from[i]) + gradient[i]) * slope;
                    first[i] = 0.9 * first[i] + 0.1 * g;
                    second[i] = 0.999 * second[i] + 0.001 * g * g;
                    let deviation = (second[i] / corrections[1]).sqrt() + 1e-8;
                    w[i] -= self.learning_rate * first[i] / corrections[0] / deviation;
                }
            }
            if self.direction < 0.0 {
                best = w.iter().map(|w| pixel(*w)).collect();
            }
            searches.iter_mut().for_each(Search::next);
        }
        Ok(best)
    }

    /// The gradient of the weighted margins, and the margins that are missing.
    fn gradient(
        &self,
        network: &Differentiable,
        x: &[f64],
        own: &Tensor,
        constants: &[f64],
    ) -> Result<(Vec<f64>, Vec<f64>), AttackError> {
        let constants = Tensor::new(constants, &Device::Cpu)?;
        let mut hinges = Vec::new();
        let gradient = network.input_gradient(&network.batch(x)?, |logits| {
            let real = (logits * own)?.sum(D::Minus1)?;
            let other = (logits - (own * 1e9)?)?.max(D::Minus1)?;
            let missing = ((real - other)? * self.direction)?;
            let missing = (missing + self.confidence)?.relu()?;
            hinges = missing.detach().to_vec1::<f64>()?;
            (missing * constants)?.sum_all()
        })?;
        let gradient = gradient.to_dtype(DType::F64)?.flatten_all()?;
        Ok((gradient.to_vec1::<f64>()?, hinges))
    }
}

impl Search {
    /// Halves the interval of the constant, or widens it tenfold while nothing bounds it.
    fn next(&mut self) {
        if self.found {
            self.high = self.high.min(self.constant);
        } else {
            self.low = self.low.max(self.constant);
        }
        if self.high < UNBOUNDED {
            self.constant = f64::midpoint(self.low, self.high);
        } else {
            self.constant *= 10.0;
        }
        self.found = false;
    }
}

/// The pixel of an unbounded variable.
fn pixel(w: f64) -> f64 {
    f64::midpoint(w.tanh(), 1.0)
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Cw;

impl Attack for Cw {
    fn name(&self) -> &'static str {
        "cw-l2"
    }

    fn about(&self) -> &'static str {
        "the nearest adversarial examples in L2 that Adam finds"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn tables(&self) -> &'static [Table] {
        &[SHIN_4]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let mut made = Made::default();
        context.each_target(self, |case| {
            let method = case.run.by_scale(QUICK, METHOD);
            let most = case.run.by_scale(50, 200);
            let samples = case.data.test.images.len().min(most);
            let images = Rows::images(&case.data.test.images[..samples]);
            let labels = &case.data.test.labels[..samples];
            let seed = case.run.seed;
            let of_step = params([
                ("learning_rate", method.learning_rate.into()),
                ("search_steps", method.search_steps.into()),
                ("iterations", method.iterations.into()),
                ("constant", method.constant.into()),
                ("confidence", method.confidence.into()),
                ("samples", samples.into()),
            ]);
            case.step(of_step, |case| {
                let network = case.target.weights()?;
                let craft = || method.craft(&network, &images);
                let examples = made.one(&network, &images, 0.0, craft)?;
                let seen = Seen::of(case, &network, [&images, &examples], labels, PAPER_EPS)?;
                let pairs = || examples.iter().zip(images.iter());
                let l2 = pairs().map(|(a, b)| {
                    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
                    squares.sum::<f64>().sqrt()
                });
                let l2: Vec<f64> = l2.collect();
                let far = pairs().map(|(a, b)| {
                    let mut differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
                    differences.any(|d| d > PAPER_EPS)
                });
                let outcomes = seen.found.iter().zip(labels).zip(far);
                let within = outcomes.filter(|((a, b), far)| a == b || *far).count();
                let about = case.target.about();
                let polynomial = about.activation == Activation::Polynomial;
                let paper = figure(SHIN_4, &case.data.name, "C&W").filter(|_| polynomial);
                let name = format!("cw-l2-{}-{}", about.name, case.data.name);
                case.run.picture(&name, &grid(&images, &examples))?;
                Ok(vec![
                    seen.accuracy(labels)
                        .paper(paper)
                        // The noise is far longer than these examples: no bar for them.
                        .succeeds_below(seen.clean),
                    Finding::new("accuracy_within_0.3", wilson(within, samples))
                        .baseline("clean", seen.clean.value)
                        .baseline("random_noise", seen.noisy.value),
                    Finding::new("l2", mean(&l2, seed)),
                    seen.label_flips(),
                ])
            })
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 1.0 / 3.0;
        let control = |name, must, method: CarliniWagner| Control {
            name,
            must,
            run: Box::new(move |_| {
                let (images, labels) = control_data()?;
                let network = control_network()?;
                let examples = method.craft(&network, &images)?;
                let found = classes(&network.evaluate(&examples, BATCH)?);
                let value = agreement(&found, &labels).value;
                Ok(Outcome {
                    succeeded: value <= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        let changed = |iterations, direction| CarliniWagner {
            iterations,
            direction,
            ..QUICK
        };
        vec![
            control("fewer steps than the defaults", Must::Succeed, QUICK),
            control("no steps", Must::Fail, changed(0, 1.0)),
            control("margin with the wrong sign", Must::Fail, changed(100, -1.0)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_near_and_other_classes() {
        let (images, labels) = control_data().unwrap();
        let network = control_network().unwrap();
        let examples = QUICK.craft(&network, &images).unwrap();
        let found = classes(&network.evaluate(&examples, 20).unwrap());
        assert!(found.iter().zip(&labels).all(|(a, b)| a != b), "{found:?}");
        for (a, b) in examples.iter().zip(images.iter()) {
            let squares: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
            // Signs of gradients at eps 0.3 are about 0.3 * 28 away at most.
            assert!((0.05..4.0).contains(&squares.sqrt()), "{}", squares.sqrt());
            assert!(a.iter().all(|p| (0.0..=1.0).contains(p)));
        }
    }
}
