//! Projected gradient descent that chooses its own steps: APGD (Croce, Hein 2020,
//! arXiv:2003.01690, section 3 and Algorithm 1), with their two losses (sections 3.1 and
//! 4): the cross entropy, and the targeted difference of logits ratio.
//!
//! A step has momentum. At checkpoints, which come closer to each other, a sample whose
//! loss rose in too few steps, or not at all since the last checkpoint, goes back to its
//! best point with half the step.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::log_softmax;
use chacha20::ChaCha8Rng;
use he_nn::clear;
use rand_core::SeedableRng;

use super::BATCH;
use crate::attack::AttackError;
use crate::network::Differentiable;
use crate::random;
use crate::target::Rows;
use crate::trainer::one_hot;

/// Share of a new step in the move; the rest is momentum.
const NEW: f64 = 0.75;

/// Share of steps between checkpoints in which the loss must have risen.
const RISING: f64 = 0.75;

/// What is climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// The cross entropy with the sample's label.
    CrossEntropy,
    /// `-(z_y - z_t) / (z_1 - (z_3 + z_4) / 2)`, where `z_1 >= z_3 >= z_4` are the
    /// largest, third and fourth logit: one run for each of so many classes `t`, the most
    /// likely first. Networks of fewer than four classes take their last for them.
    TargetedDlr {
        /// Classes that are aimed at, one after another.
        targets: usize,
    },
}

/// Expectation over what a randomised target adds to its logits (Athalye et al. 2018,
/// arXiv:1802.00420, section 4.2): Gaussian noise, of which losses and gradients are means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Averaging {
    /// Draws per gradient; AutoAttack's version for randomised targets takes 20.
    pub draws: usize,
    /// Standard deviation of the noise on a logit.
    pub deviation: f64,
}

/// The attack, within an L-infinity ball.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apgd {
    /// What it climbs.
    pub objective: Objective,
    /// Steps of a run.
    pub iterations: usize,
    /// For a randomised target.
    pub averaging: Option<Averaging>,
    /// 1 to climb; a test climbs down.
    pub direction: f64,
}

/// Loss and gradient of every sample at a point.
struct Slope {
    losses: Vec<f64>,
    /// Whether the network reads the sample as another class.
    wrong: Vec<bool>,
    gradient: Vec<f64>,
}

/// What a run knows of one sample.
#[derive(Clone)]
struct Climb {
    step: f64,
    /// Loss at the last step, the largest so far, and the largest at the last checkpoint.
    last: f64,
    best: f64,
    checked: f64,
    /// Steps since the checkpoint in which the loss rose.
    rises: usize,
    /// Whether the last checkpoint halved the step.
    halved: bool,
    /// Loss of the example that is kept.
    kept: f64,
}

impl Apgd {
    /// Adversarial examples none farther than `eps` from their image in any pixel; the
    /// image itself where none was found. `labels` are the true ones: what the network
    /// reads wrongly needs no attack.
    ///
    /// # Errors
    /// [`AttackError::Tensor`].
    pub fn craft(
        &self,
        network: &Differentiable,
        images: &Rows,
        labels: &[u8],
        eps: f64,
        seed: u64,
    ) -> Result<Rows, AttackError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rounds = match self.objective {
            Objective::CrossEntropy => 1,
            Objective::TargetedDlr { targets } => targets.min(network.outputs() - 1),
        };
        let mut out = images.clone();
        let logits = network.evaluate(images, BATCH)?;
        let mut open = read_right(&logits, labels);
        for round in 0..rounds {
            let mut left = Vec::new();
            for part in open.chunks(BATCH) {
                let own: Vec<u8> = part.iter().map(|&i| labels[i]).collect();
                let aims: Vec<u8> = part
                    .iter()
                    .map(|&i| ranked(logits.row(i), labels[i])[round])
                    .collect();
                let clean = images.select(part);
                let found = self.climb(network, &clean, [&own, &aims], eps, &mut rng)?;
                for (&i, found) in part.iter().zip(found) {
                    match found {
                        Some(example) => out.row_mut(i).copy_from_slice(&example),
                        None => left.push(i),
                    }
                }
            }
            open = left;
        }
        Ok(out)
    }

    /// One run on a batch; the examples with the largest loss.
    fn climb(
        &self,
        network: &Differentiable,
        clean: &Rows,
        classes: [&[u8]; 2],
        eps: f64,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<Option<Vec<f64>>>, AttackError> {
        let width = clean.width();
        let within = |x: f64, pixel: f64| x.clamp(pixel - eps, pixel + eps).clamp(0.0, 1.0);
        let mut x = clean.clone();
        for (value, pixel) in x.values_mut().iter_mut().zip(clean.values()) {
            let drawn = 2.0f64.mul_add(random::uniform(rng), -1.0);
            *value = within(pixel + eps * drawn, *pixel);
        }
        let mut slope = self.slope(network, &x, classes, rng)?;
        let (mut before, mut best, mut best_gradient) =
            (x.clone(), x.clone(), slope.gradient.clone());
        let mut found: Vec<Option<Vec<f64>>> = vec![None; clean.len()];
        let mut climbs: Vec<Climb> = slope.losses.iter().map(|&l| Climb::new(l, eps)).collect();
        let of = |share: f64| ((share * self.iterations as f64) as usize).max(1);
        let (mut period, mut since) = (of(0.22), 0);
        for iteration in 0..self.iterations {
            let new = if iteration == 0 { 1.0 } else { NEW };
            for (i, climb) in climbs.iter().enumerate() {
                for at in i * width..(i + 1) * width {
                    let (here, pixel) = (x.values()[at], clean.values()[at]);
                    let sign = sign(slope.gradient[at]);
                    let z = within(here + self.direction * climb.step * sign, pixel);
                    let old = before.values()[at];
                    let moved = here + new * (z - here) + (1.0 - new) * (here - old);
                    before.values_mut()[at] = here;
                    x.values_mut()[at] = within(moved, pixel);
                }
            }
            slope = self.slope(network, &x, classes, rng)?;
            since += 1;
            for (i, climb) in climbs.iter_mut().enumerate() {
                let loss = self.direction * slope.losses[i];
                climb.rises += usize::from(loss > climb.last);
                climb.last = loss;
                if slope.wrong[i] && loss > climb.kept {
                    climb.kept = loss;
                    found[i] = Some(x.row(i).to_vec());
                }
                let row = i * width..(i + 1) * width;
                if loss > climb.best {
                    climb.best = loss;
                    best.row_mut(i).copy_from_slice(x.row(i));
                    best_gradient[row.clone()].copy_from_slice(&slope.gradient[row.clone()]);
                }
                if since == period && climb.halves(period) {
                    x.row_mut(i).copy_from_slice(best.row(i));
                    slope.gradient[row.clone()].copy_from_slice(&best_gradient[row]);
                }
            }
            if since == period {
                (period, since) = (period.saturating_sub(of(0.03)).max(of(0.06)), 0);
            }
        }
        Ok(found)
    }

    fn slope(
        &self,
        network: &Differentiable,
        x: &Rows,
        [own, aims]: [&[u8]; 2],
        rng: &mut ChaCha8Rng,
    ) -> Result<Slope, AttackError> {
        let (mut losses, mut wrong) = (Vec::new(), Vec::new());
        let gradient = network.input_gradient(&network.batch(x.values())?, |logits| {
            let rows = logits.detach().to_dtype(DType::F64)?.to_vec2::<f64>()?;
            let read = rows.iter().map(|row| clear::class(row) as u8);
            wrong = read.zip(own).map(|(read, own)| read != *own).collect();
            let each = match self.averaging {
                None => self.losses(logits, own, aims)?,
                Some(Averaging { draws, deviation }) => {
                    let mut sum = self.losses(&noisy(logits, deviation, rng)?, own, aims)?;
                    for _ in 1..draws {
                        sum = (sum + self.losses(&noisy(logits, deviation, rng)?, own, aims)?)?;
                    }
                    (sum / draws.max(1) as f64)?
                }
            };
            losses = each.detach().to_dtype(DType::F64)?.to_vec1::<f64>()?;
            each.sum_all()
        })?;
        let gradient = gradient.to_dtype(DType::F64)?.flatten_all()?;
        Ok(Slope {
            losses,
            wrong,
            gradient: gradient.to_vec1::<f64>()?,
        })
    }

    /// The loss of every sample.
    fn losses(&self, logits: &Tensor, own: &[u8], aims: &[u8]) -> candle_core::Result<Tensor> {
        let classes = logits.dim(1)?;
        let own = one_hot(own, classes, logits.dtype())?;
        if self.objective == Objective::CrossEntropy {
            return (log_softmax(logits, D::Minus1)? * own)?
                .sum(D::Minus1)?
                .neg();
        }
        let aims = one_hot(aims, classes, logits.dtype())?;
        let rows = logits.detach().to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let mut shares = Vec::with_capacity(rows.len() * classes);
        for row in &rows {
            let mut order: Vec<usize> = (0..classes).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let mut share = vec![0.0; classes];
            for (place, weight) in [(0, 1.0), (2, -0.5), (3, -0.5)] {
                share[order[place.min(classes - 1)]] += weight;
            }
            shares.append(&mut share);
        }
        let shares = Tensor::from_vec(shares, logits.shape(), &Device::Cpu)?;
        let spread = (logits * shares.to_dtype(logits.dtype())?)?.sum(D::Minus1)?;
        let lead = (logits * (aims - own)?)?.sum(D::Minus1)?;
        lead / (spread + 1e-12)?
    }
}

impl Climb {
    fn new(loss: f64, eps: f64) -> Self {
        Self {
            step: 2.0 * eps,
            last: loss,
            best: loss,
            checked: loss,
            rises: 0,
            halved: false,
            kept: f64::NEG_INFINITY,
        }
    }

    /// At a checkpoint: halves the step where it did not serve.
    fn halves(&mut self, period: usize) -> bool {
        let seldom = self.rises as f64 <= RISING * period as f64;
        let stands = !self.halved && self.checked >= self.best;
        self.halved = seldom || stands;
        if self.halved {
            self.step /= 2.0;
        }
        (self.rises, self.checked) = (0, self.best);
        self.halved
    }
}

/// -1, 0 or 1: a pixel without influence stays, where [`f64::signum`] would move it.
fn sign(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

fn noisy(logits: &Tensor, deviation: f64, rng: &mut ChaCha8Rng) -> candle_core::Result<Tensor> {
    let count = logits.elem_count();
    let noise: Vec<f64> = (0..count)
        .map(|_| deviation * random::normal(rng))
        .collect();
    let noise = Tensor::from_vec(noise, logits.shape(), &Device::Cpu)?;
    logits + noise.to_dtype(logits.dtype())?
}

/// The samples that logits give to their labels.
pub(super) fn read_right(logits: &Rows, labels: &[u8]) -> Vec<usize> {
    let read = logits.iter().map(|row| clear::class(row) as u8);
    let equal = read
        .zip(labels)
        .enumerate()
        .filter(|(_, (read, label))| read == *label);
    equal.map(|(i, _)| i).collect()
}

/// The classes other than one, those of the largest logits first.
pub(super) fn ranked(logits: &[f64], own: u8) -> Vec<u8> {
    let mut order: Vec<u8> = (0..logits.len() as u8).filter(|&c| c != own).collect();
    order.sort_by(|&a, &b| logits[usize::from(b)].total_cmp(&logits[usize::from(a)]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evasion::{control_data, control_network};
    use crate::plain::classes;

    const CE: Apgd = Apgd {
        objective: Objective::CrossEntropy,
        iterations: 20,
        averaging: None,
        direction: 1.0,
    };

    #[test]
    fn the_ratio_of_differences_and_its_gradient_are_as_defined() {
        let method = Apgd {
            objective: Objective::TargetedDlr { targets: 9 },
            ..CE
        };
        let logits = [[3.0f64, 7.0, 1.0, -2.0, 5.0], [0.5, 0.1, 0.2, 0.4, 0.3]];
        let value = |logits: &[[f64; 5]; 2]| {
            let logits = Tensor::new(logits, &Device::Cpu).unwrap();
            let losses = method.losses(&logits, &[1, 0], &[2, 3]).unwrap();
            losses.to_vec1::<f64>().unwrap()
        };
        // -(7 - 1) / (7 - (3 + 1) / 2), -(0.5 - 0.4) / (0.5 - (0.3 + 0.2) / 2).
        let found = value(&logits);
        assert!((found[0] + 6.0 / 5.0).abs() < 1e-9, "{found:?}");
        assert!((found[1] + 0.1 / 0.25).abs() < 1e-9, "{found:?}");
        let var = candle_core::Var::new(&logits, &Device::Cpu).unwrap();
        let sum = method.losses(&var, &[1, 0], &[2, 3]).unwrap().sum_all();
        let gradients = sum.unwrap().backward().unwrap();
        let gradient = gradients.get(&var).unwrap().to_vec2::<f64>().unwrap();
        for row in 0..2 {
            for class in 0..5 {
                let shifted = |by: f64| {
                    let mut at = logits;
                    at[row][class] += by;
                    value(&at)[row]
                };
                let difference = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
                assert!((difference - gradient[row][class]).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn examples_stay_within_eps_and_steps_shrink() {
        let (images, labels) = control_data().unwrap();
        let network = control_network().unwrap();
        let examples = CE.craft(&network, &images, &labels, 0.1, 3).unwrap();
        let mut largest = 0.0f64;
        for (a, b) in examples.values().iter().zip(images.values()) {
            assert!((0.0..=1.0).contains(a));
            largest = largest.max((a - b).abs());
        }
        assert!((0.05..0.1 + 1e-9).contains(&largest), "{largest}");
        let found = classes(&network.evaluate(&examples, 20).unwrap());
        for (i, label) in found.iter().enumerate() {
            // What was not broken is left as it was.
            assert!(*label != labels[i] || examples.row(i) == images.row(i));
        }
        let mut climb = Climb::new(1.0, 0.1);
        (climb.rises, climb.best) = (9, 2.0);
        assert!(!climb.halves(10) && climb.step == 0.2, "it rose");
        assert!(climb.halves(10) && climb.step == 0.1, "it never rose");
    }

    #[test]
    fn noise_of_a_target_averages_out() {
        let (images, labels) = control_data().unwrap();
        let network = control_network().unwrap();
        let averaged = |draws| {
            let averaging = Averaging {
                draws,
                deviation: 2.0,
            };
            Apgd {
                averaging: Some(averaging),
                ..CE
            }
        };
        // Gradients at one point, against the exact one of much noise.
        let gradient = |draws: usize, seed: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let classes = [&labels[..], &labels[..]];
            let slope = averaged(draws).slope(&network, &images, classes, &mut rng);
            slope.unwrap().gradient
        };
        let reference = gradient(2000, 1);
        let error = |draws| {
            let found = gradient(draws, 2);
            let pairs = found.iter().zip(&reference);
            pairs.map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt()
        };
        let (one, twenty) = (error(1), error(20));
        assert!(twenty < one / 2.5, "{one} {twenty}");
    }
}
