//! Expectation over transformations (EoT) against logits that are flooded with noise
//! (Athalye et al. 2018, arXiv:1707.07397), with 20 answers or draws each, as AutoAttack's
//! version for randomised targets has it.
//!
//! Published values carry noise (`he_core::ckks::publish`), which makes their source a
//! randomised target. Whether that hinders a man in the middle is asked twice:
//!
//! - [`EotApgd`] has the weights: APGD on the network as it is, on one draw of the noise per
//!   gradient, and on the mean over 20.
//! - [`EotSquare`] has answers alone: [`super::square`] reads each point once or as the mean
//!   of 20 answers, with as many queries in all, so that means have a twentieth of the steps.
//!   Square compares a new answer with the best so far, which under noise is the luckiest;
//!   a mean is less lucky, and its gain holds that as well.
//!
//! # What is simulated
//!
//! The networks here have activations, of which the publication of values is refused (no
//! precision is left), so noise is added to what the target gives, in the clear and behind
//! encryption alike: as much as `infer --precision-bits` allows by default, or so many
//! medians of the margin by which the target reads clean images. Every answer has noise of
//! its own: a publication derives it from the ciphertext, and though one ciphertext gives
//! the same values twice, a client encrypts each query afresh. A budget of publications
//! counts all answers, which is what averaging costs.
//!
//! # How it is judged
//!
//! By the labels that the target gives without noise: through noise images are misread
//! without an attack, and how many stands beside it. So no search stops at an answer that
//! looks like success. The baseline is the same search led by answers that tell nothing, as
//! stripes of `±eps` mislead more often than random pixels do. At `BEYOND` margins a mean
//! of 20 still has noise of 22 margins, so that there the search by answers must come to no
//! more than its baseline. What stops Square is not thereby a defence: others may search
//! better under noise, and noise that stops it leaves the reader little.

use chacha20::ChaCha8Rng;
use he_nn::data::CLASSES;
use rand_core::SeedableRng;

use super::apgd::{Apgd, Averaging, Objective};
use super::square::{METHOD, Square, margin_of};
use super::{BATCH, Made, control_data, control_network};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::extraction::exactly;
use crate::network::Differentiable;
use crate::plain::classes;
use crate::random;
use crate::record::Finding;
use crate::stats::{agreement, paired, quantile};
use crate::target::{Access, Evaluation, Grants, Rows};

/// Answers or draws that are averaged.
const TIMES: usize = 20;

/// The perturbation of the search by answers: at 0.3 its baseline misleads as well.
const EPS: f64 = 0.1;

/// The perturbation by gradients: at 0.1 AutoAttack leaves nothing that could tell draws
/// and means apart.
const EPS_GRADIENTS: f64 = 0.05;

/// Noise in medians of the margin that no mean of [`TIMES`] sees through.
const BEYOND: f64 = 100.0;

/// What `infer --precision-bits` asks for by default.
const PRECISION_BITS: f64 = 3.0;

/// Standard deviations that a published value keeps within (`he_core::ckks::publish`).
const TAIL: f64 = 6.0;

/// Streams of the noise that answers to the attacker have, and to the reader. Squares are
/// drawn from the first.
const ATTACKER: u64 = 1;
const READER: u64 = 2;

/// How much noise there is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Level {
    /// The most that leaves these bits of precision.
    Bits(f64),
    /// So many medians of the margin of clean images.
    Margins(f64),
}

impl Level {
    /// The standard deviation of the noise on a logit.
    fn deviation(self, margin: f64) -> f64 {
        match self {
            Self::Bits(bits) => (-bits).exp2() / TAIL,
            Self::Margins(count) => count * margin,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Bits(bits) => format!("{bits} bits of precision"),
            Self::Margins(count) => format!("{count} times the margin"),
        }
    }
}

/// The median of the margin by which logits speak for the class that they give.
fn median_margin(logits: &Rows) -> f64 {
    let all = logits.iter().zip(classes(logits));
    let mut margins: Vec<f64> = all.map(|(row, own)| margin_of(row, own)).collect();
    quantile(&mut margins, 0.5)
}

/// Gives logits with noise.
struct Flooded<F> {
    /// Gives them without.
    ask: F,
    deviation: f64,
    rng: ChaCha8Rng,
}

impl<F: FnMut(&Rows) -> Result<Rows, AttackError>> Flooded<F> {
    /// The mean of so many answers to each point, every one with noise of its own.
    fn mean(&mut self, points: &Rows, times: usize) -> Result<Rows, AttackError> {
        let answers = (self.ask)(&Rows::joined(&vec![points; times]))?;
        let mut means = vec![0.0; answers.values().len() / times.max(1)];
        for part in answers.values().chunks_exact(means.len().max(1)) {
            for (mean, logit) in means.iter_mut().zip(part) {
                let noisy = logit + self.deviation * random::normal(&mut self.rng);
                *mean += noisy / times as f64;
            }
        }
        Ok(Rows::new(answers.width(), means))
    }
}

/// A search by answers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Search {
    /// Answers per point.
    times: usize,
    /// Queries per sample, all answers counted.
    queries: usize,
    deviation: f64,
    /// 1 to lower the margin; a test raises it.
    direction: f64,
}

impl Search {
    /// Examples by the answers of `ask`, to which noise is added here.
    fn examples(
        &self,
        ask: impl FnMut(&Rows) -> Result<Rows, AttackError>,
        images: &Rows,
        labels: &[u8],
        eps: f64,
        seed: u64,
    ) -> Result<Rows, AttackError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(ATTACKER);
        let mut flooded = Flooded {
            ask,
            deviation: self.deviation,
            rng,
        };
        let square = Square {
            queries: self.queries / self.times.max(1),
            direction: self.direction,
            goal: f64::NEG_INFINITY,
            ..METHOD
        };
        let scores = |points: &Rows| flooded.mean(points, self.times);
        Ok(square.search(scores, images, labels, eps, seed)?.examples)
    }
}

/// Steps of the baseline: the first, of stripes, and some squares.
const BLIND: usize = 100;

/// The examples of a search whose answers are noise and nothing else. The target is not
/// asked.
fn blind(images: &Rows, labels: &[u8], eps: f64, seed: u64) -> Result<Rows, AttackError> {
    let search = Search {
        times: 1,
        queries: BLIND,
        deviation: 1.0,
        direction: 1.0,
    };
    let nothing = |points: &Rows| Ok(Rows::new(CLASSES, vec![0.0; points.len() * CLASSES]));
    search.examples(nothing, images, labels, eps, seed)
}

/// The noise on logits, and what it does to whoever reads them.
#[derive(Clone, Debug, PartialEq)]
struct Noise {
    deviation: f64,
    /// What the deviation is compared with.
    margin: f64,
    /// Classes of the clean images, each read once through the noise.
    read: Vec<u8>,
}

impl Noise {
    fn new(level: Level, clean: &Rows, seed: u64) -> Self {
        let margin = median_margin(clean);
        let deviation = level.deviation(margin);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(READER);
        let mut noisy = clean.clone();
        for logit in noisy.values_mut() {
            *logit += deviation * random::normal(&mut rng);
        }
        Self {
            deviation,
            margin,
            read: classes(&noisy),
        }
    }
}

/// What the target makes of the examples of each arm. The last two are those by single
/// answers or draws and by means.
fn judged(
    case: &mut Case<'_, '_>,
    (images, labels): (&Rows, &[u8]),
    arms: &[(&str, &Rows)],
    eps: f64,
    noise: &Noise,
) -> Result<Vec<Finding>, AttackError> {
    let blind = blind(images, labels, eps, case.run.seed)?;
    let mut parts = vec![images, &blind];
    parts.extend(arms.iter().map(|(_, examples)| *examples));
    let answers = case.target.labels(&Rows::joined(&parts))?;
    let mut read = answers.chunks(labels.len().max(1));
    let mut next = || read.next().unwrap_or_default();
    let (clean, blind) = (agreement(next(), labels), agreement(next(), labels));
    let mut all = Vec::new();
    let mut right: Vec<Vec<bool>> = Vec::new();
    for (name, _) in arms {
        let read = next();
        right.push(read.iter().zip(labels).map(|(a, b)| a == b).collect());
        all.push(
            Finding::new(&format!("accuracy_{name}"), agreement(read, labels))
                .baseline("clean", clean.value)
                .baseline("blind", blind.value)
                .succeeds_below(blind),
        );
    }
    if let [.., single, means] = &right[..] {
        // No verdict: it compares two forms of one attack.
        all.push(
            Finding::new("gain_of_means", paired(single, means))
                .remark("of pairs, over the same images"),
        );
    }
    let through = agreement(&noise.read, labels);
    let bits = -(TAIL * noise.deviation).log2();
    all.extend([
        Finding::new("accuracy_through_noise", through)
            .baseline("clean", clean.value)
            .remark("clean images, read once through the noise: what it costs without an attack"),
        Finding::new("noise_deviation", exactly(noise.deviation))
            .baseline("median_margin", noise.margin),
        Finding::new("precision_bits", exactly(bits)),
    ]);
    Ok(all)
}

/// The attack by answers.
#[derive(Clone, Copy, Debug)]
pub struct EotSquare;

impl Attack for EotSquare {
    fn name(&self) -> &'static str {
        "eot-square"
    }

    fn about(&self) -> &'static str {
        "Square on scores flooded with noise: single answers, and means of 20 for as many queries"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Labels, Access::Scores])
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        const LEVELS: [Level; 4] = [
            Level::Bits(PRECISION_BITS),
            Level::Margins(0.1),
            Level::Margins(1.0),
            Level::Margins(BEYOND),
        ];
        context.each_target(self, |case| {
            // Behind encryption the noise is the same and each answer takes longer: a full
            // run asks there at one level, and nobody asks where weights are encrypted too,
            // as every answer is an evaluation of its own there.
            let (samples, queries, levels) = match case.target.about().evaluation {
                Evaluation::Clear => case
                    .run
                    .by_scale((10, 400, &LEVELS[..]), (100, 4000, &LEVELS[..])),
                Evaluation::Encrypted => case
                    .run
                    .by_scale((0, 0, &[][..]), (20, 1000, &LEVELS[1..2])),
                Evaluation::EncryptedWeights => (0, 0, &[][..]),
            };
            let samples = samples.min(case.data.test.images.len());
            for &level in levels.iter().filter(|_| samples > 0) {
                let of_step = params([
                    ("noise", level.name().into()),
                    ("eps", EPS.into()),
                    ("samples", samples.into()),
                    ("queries", queries.into()),
                    ("times", TIMES.into()),
                ]);
                case.step(of_step, |case| by_answers(case, level, samples, queries))?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        // Bar and steps are those of Square's controls, which have no noise: with as much as a
        // publication of three bits has, which is the least here, means must reach it too. Of
        // 300 steps some tens are kept, so that each changes some hundredths of a margin: noise
        // of a whole margin hides nearly all.
        const BAR: f64 = 1.0 / 3.0;
        let control = |name, must, (times, level): (usize, Level), direction: f64| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let searched = Searched::new(times, level, direction, seed)?;
                outcome(&searched.network, &searched.examples, &searched.labels, BAR)
            }),
        };
        // What means are for: as many steps come nearer. By chance 15 of 20 images do so once
        // in fifty times.
        const NEARER: f64 = 15.0 / 20.0;
        let pair = |name, must, times: usize| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let noise = Level::Margins(0.1 * (TIMES as f64).sqrt());
                let first = Searched::new(times, noise, 1.0, seed)?.margins()?;
                let second = Searched::new(1, noise, 1.0, seed + 1)?.margins()?;
                let nearer = first.iter().zip(&second).filter(|(a, b)| a < b).count();
                let value = nearer as f64 / first.len() as f64;
                Ok(Outcome {
                    succeeded: value >= NEARER,
                    value,
                    bar: NEARER,
                })
            }),
        };
        let little = (TIMES, Level::Bits(PRECISION_BITS));
        let (yes, no) = (Must::Succeed, Must::Fail);
        vec![
            control("means of 20, three bits", yes, little, 1.0),
            control(
                "single answers, noise of a margin",
                no,
                (1, Level::Margins(1.0)),
                1.0,
            ),
            control(
                "noise of 100 margins",
                no,
                (TIMES, Level::Margins(BEYOND)),
                1.0,
            ),
            control("margin with the wrong sign", no, little, -1.0),
            pair("means of 20 beside single answers", yes, TIMES),
            pair("single answers beside others", no, 1),
        ]
    }
}

fn by_answers(
    case: &mut Case<'_, '_>,
    level: Level,
    samples: usize,
    queries: usize,
) -> Result<Vec<Finding>, AttackError> {
    let images = Rows::images(&case.data.test.images[..samples]);
    let labels = &case.data.test.labels[..samples];
    // How much noise there is is the experiment's to know, not the attacker's.
    let seed = case.run.seed;
    let noise = Noise::new(level, &case.target.scores(&images)?, seed);
    let target = &mut case.target;
    let mut of = |times| {
        let search = Search {
            times,
            queries,
            deviation: noise.deviation,
            direction: 1.0,
        };
        let ask = |points: &Rows| Ok(target.scores(points)?);
        search.examples(ask, &images, labels, EPS, seed)
    };
    let (single, means) = (of(1)?, of(TIMES)?);
    let arms = [("by_single", &single), ("by_means", &means)];
    judged(case, (&images, labels), &arms, EPS, &noise)
}

/// APGD under noise: on the cross entropy, and on the targeted difference of logits ratio
/// for what that leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gradients {
    iterations: usize,
    targets: usize,
    /// 1 to climb; a test climbs down.
    direction: f64,
}

impl Gradients {
    /// Examples by gradients that are means over draws of noise, or of the network without.
    fn examples(
        &self,
        network: &Differentiable,
        (images, labels): (&Rows, &[u8]),
        averaging: Option<Averaging>,
        eps: f64,
        seed: u64,
    ) -> Result<Rows, AttackError> {
        let targets = self.targets;
        let objectives = [Objective::CrossEntropy, Objective::TargetedDlr { targets }];
        let mut found = images.clone();
        for objective in objectives {
            let apgd = Apgd {
                objective,
                iterations: self.iterations,
                averaging,
                direction: self.direction,
            };
            // What is broken already is left as it is, and the others are images still.
            found = apgd.craft(network, &found, labels, eps, seed)?;
        }
        Ok(found)
    }
}

/// The attack by gradients.
#[derive(Clone, Copy, Debug)]
pub struct EotApgd;

impl Attack for EotApgd {
    fn name(&self) -> &'static str {
        "eot-apgd"
    }

    fn about(&self) -> &'static str {
        "APGD on a network flooded with noise: gradients without it, of one draw, means of 20"
    }

    fn access(&self) -> Grants {
        super::ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let levels = context.run.by_scale(&[1.0][..], &[0.1, 1.0, BEYOND]);
        let (samples, iterations, targets) = context.run.by_scale((20, 20, 2), (500, 100, 3));
        let gradients = Gradients {
            iterations,
            targets,
            direction: 1.0,
        };
        let mut made: Vec<Made> = levels.iter().map(|_| Made::default()).collect();
        context.each_target(self, |case| {
            let samples = samples.min(case.data.test.images.len());
            for (&margins, made) in levels.iter().zip(&mut made) {
                let level = Level::Margins(margins);
                let of_step = params([
                    ("noise", level.name().into()),
                    ("eps", EPS_GRADIENTS.into()),
                    ("samples", samples.into()),
                    ("iterations", iterations.into()),
                    ("draws", TIMES.into()),
                ]);
                case.step(of_step, |case| {
                    by_gradients(case, level, samples, gradients, made)
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        // Perturbation and bar are those of AutoAttack's controls, of whose members these
        // are two.
        const BAR: f64 = 0.6;
        let control = |name, must, eps: f64, direction: f64| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let (images, labels) = control_data()?;
                let network = control_network()?;
                let clean = network.evaluate(&images, BATCH)?;
                let gradients = Gradients {
                    iterations: 15,
                    targets: 2,
                    direction,
                };
                let averaging = Averaging {
                    draws: TIMES,
                    deviation: median_margin(&clean),
                };
                let clean = (&images, &labels[..]);
                let examples = gradients.examples(&network, clean, Some(averaging), eps, seed)?;
                outcome(&network, &examples, &labels, BAR)
            }),
        };
        vec![
            control("noise of a margin, eps 0.05", Must::Succeed, 0.05, 1.0),
            control("no perturbation", Must::Fail, 0.0, 1.0),
            control("gradient with the wrong sign", Must::Fail, 0.05, -1.0),
        ]
    }
}

fn by_gradients(
    case: &mut Case<'_, '_>,
    level: Level,
    samples: usize,
    gradients: Gradients,
    made: &mut Made,
) -> Result<Vec<Finding>, AttackError> {
    let network = case.target.weights()?;
    let images = Rows::images(&case.data.test.images[..samples]);
    let labels = &case.data.test.labels[..samples];
    let seed = case.run.seed;
    let noise = Noise::new(level, &network.evaluate(&images, BATCH)?, seed);
    let deviation = noise.deviation;
    let examples = made.of(&network, &images, EPS_GRADIENTS, || {
        let draws = [0, 1, TIMES].into_iter();
        let each = draws.map(|draws| {
            let averaging = (draws > 0).then_some(Averaging { draws, deviation });
            gradients.examples(&network, (&images, labels), averaging, EPS_GRADIENTS, seed)
        });
        each.collect()
    })?;
    let names = ["without_noise", "by_single", "by_means"];
    let arms: Vec<(&str, &Rows)> = names.into_iter().zip(&examples).collect();
    judged(case, (&images, labels), &arms, EPS_GRADIENTS, &noise)
}

/// Of a control: a search of 300 steps on the bundled digits.
struct Searched {
    network: Differentiable,
    examples: Rows,
    labels: Vec<u8>,
}

impl Searched {
    fn new(times: usize, level: Level, direction: f64, seed: u64) -> Result<Self, AttackError> {
        const STEPS: usize = 300;
        let (images, labels) = control_data()?;
        let network = control_network()?;
        let clean = network.evaluate(&images, BATCH)?;
        let search = Search {
            times,
            queries: STEPS * times,
            deviation: level.deviation(median_margin(&clean)),
            direction,
        };
        let ask = |points: &Rows| Ok(network.evaluate(points, BATCH)?);
        let examples = search.examples(ask, &images, &labels, EPS, seed)?;
        Ok(Self {
            network,
            examples,
            labels,
        })
    }

    /// By how much the labels lead without noise.
    fn margins(&self) -> Result<Vec<f64>, AttackError> {
        let logits = self.network.evaluate(&self.examples, BATCH)?;
        let all = logits.iter().zip(&self.labels);
        Ok(all.map(|(row, &label)| margin_of(row, label)).collect())
    }
}

/// Of a control: the share of examples that are still read right is at most the bar.
fn outcome(
    network: &Differentiable,
    examples: &Rows,
    labels: &[u8],
    bar: f64,
) -> Result<Outcome, AttackError> {
    let read = classes(&network.evaluate(examples, BATCH)?);
    let value = agreement(&read, labels).value;
    Ok(Outcome {
        succeeded: value <= bar,
        value,
        bar,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_of_the_same_point_and_its_noise_falls_by_the_root() {
        let points = Rows::new(2, (0..200).map(f64::from).collect());
        let mut asked = 0;
        let ask = |rows: &Rows| {
            asked += rows.len();
            Ok(rows.clone())
        };
        let mut flooded = Flooded {
            ask,
            deviation: 2.0,
            rng: ChaCha8Rng::seed_from_u64(1),
        };
        let mut deviation = |times| {
            let found = flooded.mean(&points, times).unwrap();
            let pairs = found.values().iter().zip(points.values());
            let square: f64 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
            (square / 200.0).sqrt()
        };
        // Of 200 values a deviation is off by 5 %: three times that.
        let (one, twenty) = (deviation(1), deviation(20));
        assert!((one / 2.0 - 1.0).abs() < 0.15, "{one}");
        let expected = 2.0 / 20f64.sqrt();
        assert!((twenty / expected - 1.0).abs() < 0.15, "{twenty}");
        assert_eq!(asked, 100 + 2000);
    }

    #[test]
    fn budgets_are_equal_and_spent_whatever_noise_pretends() {
        let (images, labels) = control_data().unwrap();
        let network = control_network().unwrap();
        for times in [1, TIMES] {
            let mut asked = 0;
            let ask = |points: &Rows| {
                asked += points.len();
                Ok(network.evaluate(points, BATCH)?)
            };
            let search = Search {
                times,
                queries: 60,
                deviation: 100.0,
                direction: 1.0,
            };
            let found = search.examples(ask, &images, &labels, EPS, 1).unwrap();
            assert_eq!(asked, 60 * images.len(), "{times}");
            for (a, b) in found.values().iter().zip(images.values()) {
                assert!((0.0..=1.0).contains(a) && (a - b).abs() <= EPS + 1e-12);
            }
        }
    }

    #[test]
    fn noise_of_so_many_bits_is_that_of_a_publication() {
        let sigma = Level::Bits(3.0).deviation(7.0);
        assert!((TAIL * sigma - 0.125).abs() < 1e-12);
        assert_eq!(Level::Margins(2.0).deviation(7.0), 14.0);
        // Margins of 2, 5 and 1, whatever the labels are.
        let logits = Rows::new(2, vec![3.0, 1.0, 0.0, 5.0, 1.0, 2.0]);
        assert_eq!(median_margin(&logits), 2.0);
    }

    #[test]
    fn what_one_loss_breaks_the_other_leaves_as_it_is() {
        let (images, labels) = control_data().unwrap();
        let network = control_network().unwrap();
        let broken = |targets| {
            let gradients = Gradients {
                iterations: 10,
                targets,
                direction: 1.0,
            };
            let clean = (&images, &labels[..]);
            let found = gradients.examples(&network, clean, None, 0.03, 1).unwrap();
            for (a, b) in found.values().iter().zip(images.values()) {
                assert!((a - b).abs() <= 0.03 + 1e-12);
            }
            let read = classes(&network.evaluate(&found, BATCH).unwrap());
            let wrong = read.iter().zip(&labels).map(|(a, b)| a != b);
            wrong.collect::<Vec<bool>>()
        };
        let (one, both) = (broken(0), broken(3));
        assert!(one.iter().zip(&both).all(|(one, both)| *both || !one));
    }
}
