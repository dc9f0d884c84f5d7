//! Expectation over transformations (Athalye et al. 2018, arXiv:1802.00420, section 4.2)
//! against a target whose answers are flooded with noise.
//!
//! Guarded publication makes every answer random ([`crate::ckks::flooded`]), which looks
//! like a defence: gradients by differences drown. An attacker who asks `k` times and takes
//! the mean divides the noise by the root of `k`. So examples are made by queries, signs of
//! gradients as PGD takes them ([`super::pgd`]), each gradient from differences along random
//! signs, with `k` of 1 and of 20, AutoAttack's number for randomised targets. Both are
//! judged by single answers of the same target, beside clean images and random noise: the
//! flood alone costs right answers, too. Who has the weights needs no answers: for him `k` is
//! the number of draws per gradient of APGD ([`super::apgd::Averaging`]).

use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::apgd::{Apgd, Averaging, Objective};
use super::{BATCH, control_data, control_network, noise};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::ckks::flooded::Flooded;
use crate::extraction::exactly;
use crate::network::Differentiable;
use crate::plain::{Plain, classes};
use crate::record::Finding;
use crate::stats::{agreement, mean};
use crate::target::{Access, Activation, Grants, Rows, View};

/// What it needs; weights, where the target gives them, serve a second attack.
const ACCESS: Grants = Grants::of(&[Access::Labels, Access::Scores, Access::Weights]);

/// Answers per query that are compared.
const ANSWERS: [usize; 2] = [1, 20];

/// Of the examples.
const EPS: f64 = 0.2;

/// Queries of one request, to bound the memory.
const REQUEST: usize = 8192;

/// Signs of gradients that are estimated from answers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ByAnswers {
    /// Answers per query, of which the mean is taken.
    answers: usize,
    /// Steps, each `2.5 eps` over their number.
    iterations: usize,
    /// Random signs per gradient, each asked at both ends.
    directions: usize,
    /// How far queries lie from the image, in every pixel: they may leave 0..1.
    distance: f64,
    /// 1 to climb; a test climbs down.
    direction: f64,
}

const METHOD: ByAnswers = ByAnswers {
    answers: 1,
    iterations: 8,
    directions: 40,
    distance: 0.1,
    direction: 1.0,
};

/// Share of earlier gradients in a step: each knows a few directions alone.
const MOMENTUM: f64 = 0.9;

impl ByAnswers {
    /// Queries for an example.
    const fn queries(&self) -> usize {
        self.iterations * self.answers * (1 + 2 * self.directions)
    }

    /// The mean of the answers to every query.
    fn asked(&self, target: &mut View<'_>, queries: &Rows) -> Result<Rows, AttackError> {
        let mut means = Vec::new();
        for part in queries.values().chunks(queries.width() * REQUEST) {
            let part = Rows::new(queries.width(), part.to_vec());
            let mut sum = target.scores(&part)?;
            for _ in 1..self.answers {
                let more = target.scores(&part)?;
                let pairs = sum.values_mut().iter_mut().zip(more.values());
                pairs.for_each(|(sum, more)| *sum += more);
            }
            means.extend(sum.values().iter().map(|sum| sum / self.answers as f64));
        }
        Ok(Rows::new(target.about().classes, means))
    }

    /// Examples within `eps` of images whose labels are these.
    fn craft(
        &self,
        target: &mut View<'_>,
        images: &Rows,
        labels: &[u8],
        eps: f64,
        seed: u64,
    ) -> Result<Rows, AttackError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let width = images.width();
        let mut x = images.clone();
        let mut slopes = vec![0.0; images.values().len()];
        let step = self.direction * 2.5 * eps / self.iterations.max(1) as f64;
        for _ in 0..self.iterations {
            let (mut queries, mut signs) = (Vec::new(), Vec::new());
            for row in x.iter() {
                queries.extend_from_slice(row);
                for _ in 0..self.directions {
                    let drawn: Vec<f64> = (0..width).map(|_| sign(&mut rng)).collect();
                    for side in [self.distance, -self.distance] {
                        queries.extend(row.iter().zip(&drawn).map(|(x, d)| x + side * d));
                    }
                    signs.push(drawn);
                }
            }
            let answers = self.asked(target, &Rows::new(width, queries))?;
            let per_image = 1 + 2 * self.directions;
            for (i, &label) in labels.iter().enumerate() {
                let of = |query: usize| answers.row(i * per_image + query);
                let aim = runner_up(of(0), label);
                let lead = |row: &[f64]| row[aim] - row[usize::from(label)];
                let slope = &mut slopes[i * width..(i + 1) * width];
                slope.iter_mut().for_each(|s| *s *= MOMENTUM);
                for at in 0..self.directions {
                    let rise = lead(of(1 + 2 * at)) - lead(of(2 + 2 * at));
                    let drawn = &signs[i * self.directions + at];
                    let pairs = slope.iter_mut().zip(drawn);
                    pairs.for_each(|(slope, sign)| *slope += rise * sign);
                }
            }
            let moved = x.values_mut().iter_mut().zip(images.values()).zip(&slopes);
            for ((x, &pixel), &slope) in moved {
                let here = *x + step * if slope == 0.0 { 0.0 } else { slope.signum() };
                *x = here.clamp(pixel - eps, pixel + eps).clamp(0.0, 1.0);
            }
        }
        Ok(x)
    }
}

fn sign(rng: &mut ChaCha8Rng) -> f64 {
    if rng.next_u32() & 1 == 0 { 1.0 } else { -1.0 }
}

/// The class of the largest logit but for one.
fn runner_up(logits: &[f64], own: u8) -> usize {
    let others = logits
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != usize::from(own));
    others
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map_or(0, |(i, _)| i)
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Eot;

impl Attack for Eot {
    fn name(&self) -> &'static str {
        "eot"
    }

    fn about(&self) -> &'static str {
        "examples on a target with flooded answers, from single answers and from means of 20"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            // Every query would be evaluated alone.
            if case.sparing() {
                return Ok(());
            }
            let samples = match case.one_sample() {
                true => 1,
                false => case.run.by_scale(5, 20),
            };
            let samples = samples.min(case.data.test.images.len());
            let method = ByAnswers {
                iterations: case.run.by_scale(METHOD.iterations, 20),
                ..METHOD
            };
            for &bits in case.run.by_scale(&[-2][..], &[1, -1, -3]) {
                let of_step = params([
                    ("eps", EPS.into()),
                    ("bits", bits.into()),
                    ("iterations", method.iterations.into()),
                    ("directions", method.directions.into()),
                    ("distance", method.distance.into()),
                    ("samples", samples.into()),
                ]);
                case.step(of_step, |case| compared(case, method, bits, samples))?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 0.5;
        let control = |name, must, answers: usize, direction: f64| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let method = ByAnswers {
                    answers,
                    direction,
                    ..METHOD
                };
                let value = on_digits(method, seed)?;
                Ok(Outcome {
                    succeeded: value <= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control("means of 20 answers", Must::Succeed, 20, 1.0),
            control("single answers in the same noise", Must::Fail, 1, 1.0),
            control("means of 20, the wrong sign", Must::Fail, 20, -1.0),
        ]
    }
}

/// What the network of the controls reads rightly, without noise, of examples that were
/// made of flooded answers.
fn on_digits(method: ByAnswers, seed: u64) -> Result<f64, AttackError> {
    const BITS: i32 = -4;
    let (images, labels) = control_data()?;
    let (images, labels) = (images.split_at(10)[0].clone(), &labels[..10]);
    let network = control_network()?;
    let mut plain = Plain::new("digits", "digits", Activation::Polynomial, network.clone());
    let mut view = View::new(&mut plain, ACCESS);
    let mut flooded = Flooded::new(&mut view, BITS, seed)?;
    let mut asked = View::new(&mut flooded, ACCESS);
    let examples = method.craft(&mut asked, &images, labels, EPS, seed)?;
    let read = classes(&network.evaluate(&examples, BATCH)?);
    Ok(agreement(&read, labels).value)
}

/// Examples of who has the weights, by so many draws per gradient.
fn by_weights(
    network: &Differentiable,
    images: &Rows,
    labels: &[u8],
    averaging: Averaging,
    seed: u64,
) -> Result<Rows, AttackError> {
    let apgd = Apgd {
        objective: Objective::CrossEntropy,
        iterations: 20,
        averaging: Some(averaging),
        direction: 1.0,
    };
    apgd.craft(network, images, labels, EPS, seed)
}

fn compared(
    case: &mut Case<'_, '_>,
    method: ByAnswers,
    bits: i32,
    samples: usize,
) -> Result<Vec<Finding>, AttackError> {
    let seed = case.run.seed;
    let images = Rows::images(&case.data.test.images[..samples]);
    let labels = &case.data.test.labels[..samples];
    let network = case.target.weights()?;
    let mut flooded = Flooded::new(&mut case.target, bits, seed)?;
    let mut target = View::new(&mut flooded, ACCESS);
    let deviation = target.about().randomised.unwrap_or(0.0);

    let mut all = vec![images.clone(), noise(&images, EPS, seed)];
    for answers in ANSWERS {
        let method = ByAnswers { answers, ..method };
        all.push(method.craft(&mut target, &images, labels, EPS, seed)?);
    }
    for draws in ANSWERS {
        let averaging = Averaging { draws, deviation };
        all.push(by_weights(&network, &images, labels, averaging, seed)?);
    }
    let parts: Vec<&Rows> = all.iter().collect();
    let read = target.labels(&Rows::joined(&parts))?;
    let read: Vec<&[u8]> = read.chunks(samples.max(1)).collect();
    let of = |at: usize| agreement(read[at], labels);
    let finding = |name: String, at: usize| {
        Finding::new(&name, of(at))
            .baseline("clean", of(0).value)
            .baseline("random_noise", of(1).value)
            .succeeds_below(of(1))
    };
    let mut findings = Vec::new();
    for (i, answers) in ANSWERS.into_iter().enumerate() {
        findings.push(finding(format!("accuracy_answers_{answers}"), 2 + i));
        let queries = ByAnswers { answers, ..method }.queries();
        let name = format!("queries_answers_{answers}");
        findings.push(Finding::new(&name, exactly(queries as f64)).remark("per example"));
    }
    for (i, draws) in ANSWERS.into_iter().enumerate() {
        findings.push(finding(format!("accuracy_weights_draws_{draws}"), 4 + i));
    }
    // Pairs of one image: what averaging adds.
    let right = |at: usize, i: usize| f64::from(u8::from(read[at][i] == labels[i]));
    let gained: Vec<f64> = (0..samples).map(|i| right(2, i) - right(3, i)).collect();
    findings
        .push(Finding::new("misread_by_averaging", mean(&gained, seed)).succeeds_above(0.0, 0.0));
    findings.push(Finding::new("noise", exactly(deviation)).remark("deviation of a logit"));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_counted_and_examples_stay_within_eps() {
        let (images, labels) = control_data().unwrap();
        let few = images.select(&[0, 1]);
        let network = control_network().unwrap();
        let mut plain = Plain::new("digits", "digits", Activation::Polynomial, network);
        let mut view = View::new(&mut plain, ACCESS);
        let method = ByAnswers {
            answers: 3,
            iterations: 2,
            ..METHOD
        };
        let examples = method.craft(&mut view, &few, &labels[..2], 0.1, 1).unwrap();
        assert_eq!(view.queries() as usize, 2 * method.queries());
        for (a, b) in examples.values().iter().zip(few.values()) {
            assert!((a - b).abs() <= 0.1 + 1e-12 && (0.0..=1.0).contains(a));
        }
    }

    #[test]
    fn the_runner_up_is_never_the_own_class() {
        assert_eq!(runner_up(&[5.0, 1.0, 3.0], 0), 2);
        assert_eq!(runner_up(&[5.0, 1.0, 3.0], 2), 0);
    }
}
