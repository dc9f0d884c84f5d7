//! The Square attack: random search by scores, without gradients (Andriushchenko et al.
//! 2020, arXiv:1912.00049, Algorithms 1 and 2, L-infinity), with the margin of logits for
//! a loss and AutoAttack's parameters.
//!
//! Each query changes one square of the image by `±2 eps`, within the ball, and is kept
//! where the margin falls. As all samples of a step are one request, an encrypted target
//! answers them in one batch.

use chacha20::ChaCha8Rng;
use he_nn::data::SIDE;
use rand_core::SeedableRng;

use super::{PAPER_EPS, control_data, control_network, noise};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::plain::classes;
use crate::random;
use crate::record::Finding;
use crate::stats::{Estimate, agreement, mean};
use crate::target::{Access, Evaluation, Grants, Rows};

/// The attack, within an L-infinity ball.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Square {
    /// Queries per sample, two of which set it up.
    pub queries: usize,
    /// Share of the pixels in the first square.
    pub share: f64,
    /// 1 to lower the margin; a test raises it.
    pub direction: f64,
    /// The margin at which a sample is done: 0, where it is misread. Under noise one answer
    /// does not tell, and minus infinity spends all queries.
    pub goal: f64,
}

/// As AutoAttack has it.
pub const METHOD: Square = Square {
    queries: 5000,
    share: 0.8,
    direction: 1.0,
    goal: 0.0,
};

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Searched {
    /// Examples; the point of the smallest margin where none is one.
    pub examples: Rows,
    /// Queries that each sample took until it reached the goal, or all of them.
    pub queries: Vec<usize>,
    /// Whether the target's margin on the example reached the goal.
    pub broken: Vec<bool>,
}

impl Square {
    /// Adversarial examples none farther than `eps` from their image in any pixel.
    /// `scores` gives the logits of a batch.
    ///
    /// # Errors
    /// What `scores` says.
    pub fn search(
        &self,
        mut scores: impl FnMut(&Rows) -> Result<Rows, AttackError>,
        images: &Rows,
        labels: &[u8],
        eps: f64,
        seed: u64,
    ) -> Result<Searched, AttackError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let width = images.width();
        let side = SIDE.min(width.max(1));
        let (side, rows) = (side, (width / side).max(1));
        let mut found = Searched {
            examples: images.clone(),
            queries: vec![1; images.len()],
            broken: Vec::new(),
        };
        let within = |x: f64, pixel: f64| x.clamp(pixel - eps, pixel + eps).clamp(0.0, 1.0);
        let clean = scores(images)?;
        let margin = |row: &[f64], label: u8| self.direction * margin_of(row, label);
        found.broken = clean
            .iter()
            .zip(labels)
            .map(|(row, &label)| margin_of(row, label) <= self.goal)
            .collect();
        // A sample at its own image has no margin yet: the stripes come first, kept or not.
        let mut margins = vec![f64::INFINITY; images.len()];
        for step in 0..self.queries.saturating_sub(1) {
            let open: Vec<usize> = (0..images.len()).filter(|&i| !found.broken[i]).collect();
            if open.is_empty() {
                break;
            }
            let mut tried = found.examples.select(&open);
            for (at, &i) in open.iter().enumerate() {
                let (row, origin) = (tried.row_mut(at), images.row(i));
                if step == 0 {
                    let signs: Vec<f64> = (0..side).map(|_| coin(&mut rng)).collect();
                    for (pixel, value) in row.iter_mut().enumerate() {
                        *value = within(origin[pixel] + eps * signs[pixel % side], origin[pixel]);
                    }
                    continue;
                }
                let share = self.share / halvings(step - 1, self.queries);
                let edge = (share * width as f64).sqrt().round() as usize;
                let edge = edge.clamp(1, side.min(rows));
                let left = random::below(&mut rng, side - edge + 1);
                let top = random::below(&mut rng, rows - edge + 1);
                let by = 2.0 * eps * coin(&mut rng);
                for y in top..top + edge {
                    for pixel in y * side + left..y * side + left + edge {
                        row[pixel] = within(row[pixel] + by, origin[pixel]);
                    }
                }
            }
            let answers = scores(&tried)?;
            for (at, &i) in open.iter().enumerate() {
                found.queries[i] += 1;
                let (logits, label) = (answers.row(at), labels[i]);
                let reached = margin(logits, label);
                found.broken[i] = margin_of(logits, label) <= self.goal;
                if reached < margins[i] || found.broken[i] {
                    margins[i] = reached;
                    found.examples.row_mut(i).copy_from_slice(tried.row(at));
                }
            }
        }
        Ok(found)
    }
}

/// By how much a label leads the other classes.
pub(super) fn margin_of(logits: &[f64], label: u8) -> f64 {
    let label = usize::from(label);
    let others = logits.iter().enumerate().filter(|(i, _)| *i != label);
    logits[label] - others.fold(f64::NEG_INFINITY, |top, (_, &z)| top.max(z))
}

fn coin(rng: &mut ChaCha8Rng) -> f64 {
    if random::below(rng, 2) == 0 {
        1.0
    } else {
        -1.0
    }
}

/// By what the share of the first square is divided: the schedule of the paper for
/// 10,000 steps, stretched to so many.
fn halvings(step: usize, queries: usize) -> f64 {
    const STEPS: [usize; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];
    let of = step * 10_000 / queries.max(1);
    let passed = STEPS.iter().filter(|&&last| of > last).count();
    f64::from(1u32 << passed)
}

/// The attack by queries to the target itself.
#[derive(Clone, Copy, Debug)]
pub struct BySquares;

impl Attack for BySquares {
    fn name(&self) -> &'static str {
        "square"
    }

    fn about(&self) -> &'static str {
        "adversarial examples by random search on the target's scores, without weights"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Labels, Access::Scores])
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            // What is evaluated encrypted takes as long for a full batch as for one sample.
            let (samples, queries) = match case.target.about().evaluation {
                Evaluation::Clear => case.run.by_scale((50, 500), (500, METHOD.queries)),
                Evaluation::Encrypted => case.run.by_scale((5, 60), (500, 1000)),
                Evaluation::EncryptedWeights => case.run.by_scale((2, 30), (20, 1000)),
            };
            let samples = samples.min(case.data.test.images.len());
            let of_step = params([
                ("eps", PAPER_EPS.into()),
                ("samples", samples.into()),
                ("queries", queries.into()),
            ]);
            case.step(of_step, |case| queried(case, samples, queries))
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 1.0 / 3.0;
        let control = |name, must, eps: f64, direction: f64| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let (images, labels) = control_data()?;
                let network = control_network()?;
                let method = Square {
                    queries: 300,
                    direction,
                    ..METHOD
                };
                let scores = |rows: &Rows| Ok(network.evaluate(rows, rows.len())?);
                let found = method.search(scores, &images, &labels, eps, seed)?;
                let read = classes(&network.evaluate(&found.examples, images.len())?);
                let value = agreement(&read, &labels).value;
                Ok(Outcome {
                    succeeded: value <= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control("300 queries at eps 0.3", Must::Succeed, PAPER_EPS, 1.0),
            control("300 queries at eps 0.1", Must::Succeed, 0.1, 1.0),
            control("no perturbation", Must::Fail, 0.0, 1.0),
            control("margin with the wrong sign, eps 0.1", Must::Fail, 0.1, -1.0),
        ]
    }
}

fn queried(
    case: &mut Case<'_, '_>,
    samples: usize,
    queries: usize,
) -> Result<Vec<Finding>, AttackError> {
    let images = Rows::images(&case.data.test.images[..samples]);
    let labels = &case.data.test.labels[..samples];
    let seed = case.run.seed;
    let noisy = noise(&images, PAPER_EPS, seed);
    let before = case.target.labels(&Rows::joined(&[&images, &noisy]))?;
    let (clean, noisy) = before.split_at(samples);
    let (clean, noisy) = (agreement(clean, labels), agreement(noisy, labels));
    let method = Square { queries, ..METHOD };
    let target = &mut case.target;
    let scores = |rows: &Rows| Ok(target.scores(rows)?);
    let found = method.search(scores, &images, labels, PAPER_EPS, seed)?;
    // The answer that broke a sample is not asked for again: noise may take it back.
    let after = case.target.labels(&found.examples)?;
    let used: Vec<f64> = (found.queries.iter().zip(&found.broken))
        .filter_map(|(&used, broken)| broken.then_some(used as f64))
        .collect();
    let mut all = vec![
        Finding::new("accuracy", agreement(&after, labels))
            .baseline("clean", clean.value)
            .baseline("random_noise", noisy.value)
            .baseline("chance", 1.0 / case.target.about().classes as f64)
            .succeeds_below(noisy),
    ];
    let spent = match used.is_empty() {
        true => Estimate {
            value: queries as f64,
            ci95: [queries as f64; 2],
        },
        false => mean(&used, seed),
    };
    all.push(
        Finding::new("queries_until_misread", spent).remark(match used.is_empty() {
            true => "no sample was misread: all queries were used",
            false => "mean over the samples that were misread",
        }),
    );
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_shrink_as_published() {
        let at = |step| halvings(step, 10_000);
        assert_eq!([at(0), at(10), at(11), at(51)], [1.0, 1.0, 2.0, 4.0]);
        assert_eq!([at(1001), at(8001), at(9999)], [32.0, 512.0, 512.0]);
        assert_eq!(halvings(5, 100), 8.0);
    }

    #[test]
    fn examples_stay_within_eps_and_queries_are_counted() {
        let (images, labels) = control_data().unwrap();
        let network = control_network().unwrap();
        let mut asked = 0;
        let method = Square {
            queries: 40,
            ..METHOD
        };
        let scores = |rows: &Rows| {
            asked += rows.len();
            Ok(network.evaluate(rows, 20)?)
        };
        let found = method.search(scores, &images, &labels, 0.15, 2).unwrap();
        assert_eq!(asked, found.queries.iter().sum::<usize>());
        assert!(found.queries.iter().all(|&q| q <= 40));
        for (a, b) in found.examples.values().iter().zip(images.values()) {
            assert!((0.0..=1.0).contains(a) && (a - b).abs() <= 0.15 + 1e-12);
        }
        let read = classes(&network.evaluate(&found.examples, 20).unwrap());
        for ((read, label), broken) in read.iter().zip(&labels).zip(&found.broken) {
            assert_eq!(read != label, *broken);
        }
        assert!(found.broken.contains(&true) && found.broken.contains(&false));
    }
}
