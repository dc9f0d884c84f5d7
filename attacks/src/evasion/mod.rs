//! Adversarial examples by a man in the middle who knows the network (Shin, Choi, Choi
//! 2021, section 5.1 and Table 4).
//!
//! The examples are made with the network in floating point and then sent through the
//! target itself: for an encrypted one through encryption, evaluation and decryption.
//! `accuracy` is that of the target on the examples; `label_flips` the share of them on
//! which the target and the network in the clear disagree, which is what encryption
//! adds. Beside the accuracy stand those on clean images and on images with random
//! noise of `±eps`: an attack that is no better than the noise has found nothing.
//!
//! Gradients are of the log odds against the network's own label, as CleverHans takes it
//! unless told otherwise: true labels would leak into single-step examples. Their signs are
//! those of the cross entropy, where that is not rounded to nothing.

pub mod adversarial_training;
pub mod apgd;
pub mod autoattack;
pub mod bim;
pub mod cw;
pub mod eot;
pub mod fab;
pub mod fgsm;
pub mod hopskipjump;
pub mod pgd;
pub mod square;
pub mod transfer;

use candle_core::{D, DType, Tensor};
use candle_nn::ops::log_softmax;
use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::paper::{SHIN_4, figure};
use crate::plain::{Plain, classes};
use crate::random;
use crate::record::{Finding, Picture};
use crate::stats::{Estimate, agreement, wilson};
use crate::target::{Access, Activation, Grants, Rows, Target};
use crate::trainer::one_hot;

/// What all of these attacks need.
pub const ACCESS: Grants = Grants::of(&[Access::Labels, Access::Weights]);

/// Samples that are evaluated, or attacked by APGD and FAB, at once, to bound the memory.
const BATCH: usize = 250;

/// Samples that one core attacks at once by signs of gradients or by C&W: their number does
/// not depend on the cores, so that sums of a product, and where C&W stops early, do not
/// either.
const PART: usize = 50;

/// The perturbation of the paper's table.
const PAPER_EPS: f64 = 0.3;

/// An attack within an L-infinity ball by signs of gradients. CleverHans 4.0 with its
/// defaults, and pixels clipped to 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignedGradient {
    /// Steps.
    pub iterations: usize,
    /// Size of a step; `None` for `eps`.
    pub step: Option<f64>,
    /// Whether it starts at random within the ball.
    pub random_start: bool,
    /// 1 to climb the loss; a test climbs down.
    pub direction: f64,
}

impl SignedGradient {
    /// Adversarial examples of images with pixels from 0 to 1, none farther than `eps`
    /// from its image in any pixel.
    ///
    /// # Errors
    /// [`AttackError::Tensor`].
    pub fn craft(
        &self,
        network: &Differentiable,
        images: &Rows,
        eps: f64,
        seed: u64,
    ) -> Result<Rows, AttackError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut start = |p: &f64| p + eps * 2.0f64.mul_add(random::uniform(&mut rng), -1.0);
        // Drawn in the order of the images, whoever works on them.
        let starts: Vec<f64> = match self.random_start {
            true => images.values().iter().map(&mut start).collect(),
            false => images.values().to_vec(),
        };
        let step = self.direction * self.step.unwrap_or(eps);
        let size = images.width().max(1) * PART;
        let parts = images
            .values()
            .par_chunks(size)
            .zip(starts.par_chunks(size));
        let crafted = parts.map(|(part, start)| {
            let clean = network.batch(part)?;
            let own = own_labels(network, &clean)?;
            let (low, high) = (
                (&clean - eps)?.clamp(0.0, 1.0)?,
                (&clean + eps)?.clamp(0.0, 1.0)?,
            );
            let within = |x: Tensor| x.maximum(&low)?.minimum(&high);
            let mut x = within(network.batch(start)?)?;
            for _ in 0..self.iterations {
                let gradient =
                    network.input_gradient(&x, |logits| log_odds_against(logits, &own))?;
                x = within((x + (gradient.sign()? * step)?)?)?;
            }
            x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()
        });
        let crafted = crafted.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Rows::new(images.width(), crafted.concat()))
    }
}

/// The labels that a network gives, one-hot.
fn own_labels(network: &Differentiable, batch: &Tensor) -> candle_core::Result<Tensor> {
    let logits = network.forward(batch)?.detach();
    let labels = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let labels: Vec<u8> = labels.into_iter().map(|label| label as u8).collect();
    one_hot(&labels, network.outputs(), network.dtype())
}

/// `ln((1 - p) / p)` for the probability `p` of the target class, summed over the samples.
///
/// It rises with the cross entropy `-ln p`, so its gradient has the same signs. But it is a
/// log-sum-exp of the other logits less the target's: where the target's leads by more than
/// 745, which high powers reach, the exponentials of the others and with them the gradient of
/// the cross entropy are 0, and a confident network would pass for a robust one.
fn log_odds_against(logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    // Far enough below any logit to leave the sum.
    let others = (logits - (targets * 1e30)?)?;
    let top = others.max_keepdim(D::Minus1)?.detach();
    let sum = others.broadcast_sub(&top)?.exp()?.sum_keepdim(D::Minus1)?;
    let own = (logits * targets)?.sum_keepdim(D::Minus1)?;
    ((sum.log()? + top)? - own)?.sum_all()
}

/// Cross entropy, summed over the samples.
fn cross_entropy(logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    (log_softmax(logits, D::Minus1)? * targets)?
        .sum_all()?
        .neg()
}

/// Images with random noise of `±eps` on every pixel, clipped.
#[must_use]
pub fn noise(images: &Rows, eps: f64, seed: u64) -> Rows {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut noisy = images.clone();
    for pixel in noisy.values_mut() {
        let sign = if rng.next_u32() & 1 == 0 { eps } else { -eps };
        *pixel = (*pixel + sign).clamp(0.0, 1.0);
    }
    noisy
}

/// Examples of the network that was attacked last: its deployments come next to it, and
/// examples do not depend on where it is evaluated.
#[derive(Default)]
struct Made {
    /// What the network says of the clean images: equal logits are equal networks.
    logits: Rows,
    /// By `eps`.
    examples: Vec<(f64, Vec<Rows>)>,
}

impl Made {
    fn of(
        &mut self,
        network: &Differentiable,
        images: &Rows,
        eps: f64,
        make: impl FnOnce() -> Result<Vec<Rows>, AttackError>,
    ) -> Result<Vec<Rows>, AttackError> {
        let logits = network.evaluate(images, BATCH)?;
        if logits != self.logits {
            *self = Self {
                logits,
                examples: Vec::new(),
            };
        }
        if let Some((_, known)) = self.examples.iter().find(|(of, _)| *of == eps) {
            return Ok(known.clone());
        }
        let examples = make()?;
        self.examples.push((eps, examples.clone()));
        Ok(examples)
    }

    /// The same of one attack.
    fn one(
        &mut self,
        network: &Differentiable,
        images: &Rows,
        eps: f64,
        make: impl FnOnce() -> Result<Rows, AttackError>,
    ) -> Result<Rows, AttackError> {
        let made = self.of(network, images, eps, || Ok(vec![make()?]))?;
        Ok(Rows::joined(&made.iter().collect::<Vec<_>>()))
    }
}

/// Runs an attack by signs on every target over a range of `eps`.
fn sweep(
    attack: &dyn Attack,
    method: &SignedGradient,
    column: Option<&str>,
    context: &mut Context<'_>,
) -> Result<(), AttackError> {
    let mut made = Made::default();
    context.each_target(attack, |case| {
        let samples = case
            .data
            .test
            .images
            .len()
            .min(case.run.by_scale(200, 1000));
        let images = Rows::images(&case.data.test.images[..samples]);
        let labels = &case.data.test.labels[..samples];
        let seed = case.run.seed;
        let all = case
            .run
            .by_scale(&[0.1, 0.2, 0.3][..], &[0.05, 0.1, 0.15, 0.2, 0.25, 0.3]);
        for &eps in all {
            let of_step = params([
                ("eps", eps.into()),
                ("iterations", method.iterations.into()),
                ("step", method.step.unwrap_or(eps).into()),
                ("samples", samples.into()),
            ]);
            case.step(of_step, |case| {
                let network = case.target.weights()?;
                let craft = || method.craft(&network, &images, eps, seed);
                let examples = made.one(&network, &images, eps, craft)?;
                let seen = Seen::of(case, &network, [&images, &examples], labels, eps)?;
                let about = case.target.about();
                // The paper attacks its polynomial networks alone.
                let same = about.activation == Activation::Polynomial && eps == PAPER_EPS;
                let paper = column
                    .filter(|_| same)
                    .and_then(|c| figure(SHIN_4, &case.data.name, c));
                if eps == PAPER_EPS {
                    let name = format!("{}-{}-{}", attack.name(), about.name, case.data.name);
                    case.run.picture(&name, &grid(&images, &examples))?;
                }
                Ok(vec![
                    seen.accuracy(labels)
                        .paper(paper)
                        .succeeds_below(seen.noisy),
                    seen.label_flips(),
                ])
            })?;
        }
        Ok(())
    })
}

/// What a target makes of examples, and of what they are compared with.
struct Seen {
    /// Of the images that the examples were made of.
    clean: Estimate,
    /// Of the same with random noise.
    noisy: Estimate,
    /// Labels of the examples.
    found: Vec<u8>,
    /// How many of them the network in the clear does not give.
    flips: usize,
    classes: usize,
}

impl Seen {
    /// Sends images, noise of `±eps` on them, and examples through the target.
    fn of(
        case: &mut Case<'_, '_>,
        network: &Differentiable,
        [images, examples]: [&Rows; 2],
        labels: &[u8],
        eps: f64,
    ) -> Result<Self, AttackError> {
        let noisy = noise(images, eps, case.run.seed);
        let all = Rows::joined(&[images, &noisy, examples]);
        let answers = case.target.labels(&all)?;
        let (clean, others) = answers.split_at(images.len());
        let (noisy, found) = others.split_at(images.len());
        let (clean, found) = (agreement(clean, labels), found.to_vec());
        let clear = classes(&network.evaluate(examples, BATCH)?);
        Ok(Self {
            clean,
            noisy: agreement(noisy, labels),
            flips: found.iter().zip(&clear).filter(|(a, b)| a != b).count(),
            found,
            classes: case.target.about().classes,
        })
    }

    fn accuracy(&self, labels: &[u8]) -> Finding {
        Finding::new("accuracy", agreement(&self.found, labels))
            .baseline("clean", self.clean.value)
            .baseline("random_noise", self.noisy.value)
            .baseline("chance", 1.0 / self.classes as f64)
    }

    fn label_flips(&self) -> Finding {
        Finding::new("label_flips", wilson(self.flips, self.found.len()))
    }
}

/// The first images above their examples.
fn grid(images: &Rows, examples: &Rows) -> Picture {
    let count = images.len().min(10);
    let row = |rows: &Rows, i| rows.row(i).iter().map(|&p| p as f32).collect();
    let above = (0..count).map(|i| row(images, i));
    Picture::Images {
        width: he_nn::data::SIDE,
        columns: (1..=count).map(|i| i.to_string()).collect(),
        images: above.chain((0..count).map(|i| row(examples, i))).collect(),
    }
}

/// Controls on the bundled digits and network, of which all 20 are read right: an
/// attack at eps 0.3 must leave no more than a third of them.
fn controls(method: SignedGradient) -> Vec<Control<'static>> {
    const BAR: f64 = 1.0 / 3.0;
    let control = |name, must, method: SignedGradient, eps: f64| Control {
        name,
        must,
        run: Box::new(move |seed| {
            let (images, labels) = control_data()?;
            let network = control_network()?;
            let examples = method.craft(&network, &images, eps, seed)?;
            let found = classes(&network.evaluate(&examples, BATCH)?);
            let value = agreement(&found, &labels).value;
            Ok(Outcome {
                succeeded: value <= BAR,
                value,
                bar: BAR,
            })
        }),
    };
    let wrong = SignedGradient {
        direction: -1.0,
        ..method
    };
    vec![
        control("eps 0.3", Must::Succeed, method, PAPER_EPS),
        control("no perturbation", Must::Fail, method, 0.0),
        control("gradient with the wrong sign", Must::Fail, wrong, PAPER_EPS),
    ]
}

/// The bundled digits and their labels.
fn control_data() -> Result<(Rows, Vec<u8>), AttackError> {
    let digits = he_nn::bundled::digits().map_err(|error| AttackError::Data {
        attack: "evasion",
        what: format!("the bundled digits, of which {error}"),
    })?;
    Ok((Rows::images(&digits.images), digits.labels))
}

/// The bundled network of the controls.
fn control_network() -> Result<Differentiable, AttackError> {
    bundled("mnist-mlp64")
}

/// A bundled network.
fn bundled(name: &str) -> Result<Differentiable, AttackError> {
    let plain = Plain::bundled(name, "digits")?.ok_or_else(|| AttackError::Data {
        attack: "evasion",
        what: format!("the bundled network {name}"),
    })?;
    Ok(plain.weights()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_stay_within_eps_and_pixels() {
        let digits = he_nn::bundled::digits().unwrap();
        let images = Rows::images(&digits.images);
        let network = control_network().unwrap();
        for method in [fgsm::METHOD, bim::METHOD, pgd::METHOD] {
            let examples = method.craft(&network, &images, 0.2, 3).unwrap();
            let mut largest = 0.0f64;
            for (a, b) in examples.values().iter().zip(images.values()) {
                assert!((0.0..=1.0).contains(a));
                largest = largest.max((a - b).abs());
            }
            assert!((0.19..0.2 + 1e-9).contains(&largest), "{largest}");
            let again = method.craft(&network, &images, 0.2, 3).unwrap();
            assert_eq!(examples, again);
        }
    }

    #[test]
    fn random_noise_is_no_attack() {
        let digits = he_nn::bundled::digits().unwrap();
        let noisy = noise(&Rows::images(&digits.images), 0.3, 1);
        let found = classes(&control_network().unwrap().evaluate(&noisy, 20).unwrap());
        let value = agreement(&found, &digits.labels).value;
        assert!(value > 1.0 / 3.0, "{value}");
    }

    #[test]
    fn gradients_of_confident_logits_lower_the_own_as_much_as_they_raise_others() {
        let gradient = |logits: [f64; 3], loss: fn(&Tensor, &Tensor) -> _| {
            let var = candle_core::Var::new(&[logits], &candle_core::Device::Cpu).unwrap();
            let target = one_hot(&[0], 3, DType::F64).unwrap();
            let loss: candle_core::Result<Tensor> = loss(&var, &target);
            let gradients = loss.unwrap().backward().unwrap();
            let rows = gradients.get(&var).unwrap().to_vec2::<f64>();
            rows.unwrap().remove(0)
        };
        // The first leads by 999: of the cross entropy nothing is left.
        let confident = gradient([1000.0, 0.0, 1.0], log_odds_against);
        let share = 1.0 / (1.0 + 1f64.exp());
        for (found, expected) in confident.iter().zip([-1.0, share, 1.0 - share]) {
            assert!((found - expected).abs() < 1e-12, "{confident:?}");
        }
        assert_eq!(gradient([1000.0, 0.0, 1.0], cross_entropy), [0.0; 3]);
        // Where both can be told they are multiples of each other.
        let (a, b) = (
            gradient([2.0, 0.5, 1.0], log_odds_against),
            gradient([2.0, 0.5, 1.0], cross_entropy),
        );
        for class in 1..3 {
            assert!((a[class] / b[class] - a[0] / b[0]).abs() < 1e-12);
        }
        assert!(a[0] / b[0] > 0.0);
    }
}
