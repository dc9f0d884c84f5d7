//! The game of NN-indistinguishability (Xiang, Dalla, Wu 2025, "Still working on code
//! and results").
//!
//! The attacker chooses `x0` and `x1`; the challenger draws a bit `b`, encrypts `x_b`
//! and has it evaluated; the attacker guesses `b` from what it sees. Before, it plays
//! as often as it likes with bits that it knows: encryption is under a public key, so
//! it can ask for either input. A network is secure in this sense if no attacker beats
//! guessing. The advantage is `2 Pr[right] - 1`, from 0 to 1, with its interval.
//!
//! There are two variants. Where the output stays encrypted, the attacker has the bytes
//! of the link ([`ciphertexts`]) or the evaluator's time ([`timing`]). Where the output
//! is published ([`published`]), the game is lost whenever `f(x0)` and `f(x1)` differ,
//! which is no fault of the encryption.
//!
//! How inputs are encrypted, under a public or a secret key, is the target's matter:
//! its name says so.
//!
//! No distinguisher proves security. One that wins is a leak; those that do not win say
//! that none of *these* does, to within the interval.

pub mod ciphertexts;
pub mod published;
mod stand_in;
pub mod timing;

use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::attack::{Attack, AttackError, Case, Control, Must, Outcome};
use crate::record::Finding;
use crate::stats::{Estimate, wilson};
use crate::target::{Access, Answers, Grants, Rows, Target, View};

use stand_in::{Flaw, StandIn};

/// Evaluations whose bytes are in memory at once, and those of which only numbers are.
const BATCH: usize = 16;
const BATCH_OF_NUMBERS: usize = 512;

/// What an attacker concludes from evaluations: it learns on some whose bit it knows,
/// and then scores others. Positive speaks for 1.
trait Distinguisher: Send {
    /// Learns from one evaluation.
    fn learn(&mut self, seen: &Seen<'_>, bit: bool);

    /// What one evaluation speaks for; 0 where it tells nothing.
    fn score(&self, seen: &Seen<'_>) -> f64;
}

/// One evaluation, as far as it was asked for.
struct Seen<'a> {
    answers: &'a Answers,
    index: usize,
}

/// A pair of inputs.
#[derive(Clone, Debug, PartialEq)]
struct Pair {
    name: &'static str,
    inputs: Rows,
}

/// How often the game is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trials {
    /// With known bits.
    known: usize,
    /// With bits to guess.
    guessed: usize,
}

/// Plays and gives the advantage of every distinguisher. Bits come from the seed.
fn play(
    target: &mut View<'_>,
    asked: Grants,
    pair: &Pair,
    trials: Trials,
    distinguishers: &mut [(&'static str, Box<dyn Distinguisher>)],
    seed: u64,
) -> Result<Vec<(&'static str, Estimate)>, AttackError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut right = vec![0; distinguishers.len()];
    let batch = match asked.contains(Access::Ciphertexts) {
        true => BATCH,
        false => BATCH_OF_NUMBERS,
    };
    for (count, known) in [(trials.known, true), (trials.guessed, false)] {
        let bits: Vec<bool> = (0..count).map(|_| rng.next_u32() & 1 == 1).collect();
        for part in bits.chunks(batch) {
            let rows: Vec<usize> = part.iter().map(|&bit| usize::from(bit)).collect();
            let answers = target.observe(&pair.inputs.select(&rows), asked)?;
            // Of every evaluation and distinguisher: what tells nothing is guessed.
            let mut coins = || (0..right.len()).map(|_| rng.next_u32() & 1 == 1).collect();
            let coins: Vec<Vec<bool>> = match known {
                true => Vec::new(),
                false => part.iter().map(|_| coins()).collect(),
            };
            let all = distinguishers.par_iter_mut().zip(&mut right).enumerate();
            all.for_each(|(which, ((_, distinguisher), right))| {
                for (index, &bit) in part.iter().enumerate() {
                    let seen = Seen {
                        answers: &answers,
                        index,
                    };
                    let Some(coins) = coins.get(index) else {
                        distinguisher.learn(&seen, bit);
                        continue;
                    };
                    let score = distinguisher.score(&seen);
                    let guess = if score == 0.0 {
                        coins[which]
                    } else {
                        score > 0.0
                    };
                    *right += usize::from(guess == bit);
                }
            });
        }
    }
    let names = distinguishers.iter().map(|(name, _)| *name);
    let estimates = right.into_iter().map(|r| advantage(r, trials.guessed));
    Ok(names.zip(estimates).collect())
}

/// The advantage of so many right guesses, with its interval; below 0 for a guesser that
/// is worse than a coin.
fn advantage(right: usize, trials: usize) -> Estimate {
    let share = wilson(right, trials);
    Estimate {
        value: 2.0f64.mul_add(share.value, -1.0),
        ci95: share.ci95.map(|end| 2.0f64.mul_add(end, -1.0)),
    }
}

/// Records of a game: the verdict is about an advantage of more than `margin`, which
/// makes up for several distinguishers being tried.
fn records(advantages: Vec<(&'static str, Estimate)>, margin: f64) -> Vec<Finding> {
    let record = |(name, estimate): (&str, Estimate)| {
        Finding::new(&format!("advantage: {name}"), estimate)
            .baseline("coin", 0.0)
            .succeeds_above(0.0, margin)
    };
    advantages.into_iter().map(record).collect()
}

/// Pairs that an attacker would choose: nothing against the brightest image, and two
/// images of unlike classes.
fn pairs(case: &Case<'_, '_>) -> Result<Vec<Pair>, AttackError> {
    let missing = || AttackError::Data {
        attack: "the game",
        what: "test images of two classes".into(),
    };
    let test = &case.data.test;
    let first = *test.labels.first().ok_or_else(missing)?;
    let other = test.labels.iter().position(|&label| label != first);
    let images = Rows::images(&test.images);
    let sum = |at: &usize| images.row(*at).iter().sum::<f64>();
    let brightest = (0..images.len()).max_by(|a, b| sum(a).total_cmp(&sum(b)));
    let mut zero = vec![0.0; images.width()];
    zero.extend_from_slice(images.row(brightest.ok_or_else(missing)?));
    Ok(vec![
        Pair {
            name: "black and brightest",
            inputs: Rows::new(images.width(), zero),
        },
        Pair {
            name: "two classes",
            inputs: images.select(&[0, other.ok_or_else(missing)?]),
        },
    ])
}

/// Plays where the output stays encrypted.
fn run_encrypted(
    case: &mut Case<'_, '_>,
    attack: &dyn Attack,
    distinguishers: impl Fn() -> Vec<(&'static str, Box<dyn Distinguisher>)>,
) -> Result<(), AttackError> {
    let trials = case.run.by_scale(400, 4000);
    let trials = Trials {
        known: trials,
        guessed: trials,
    };
    // Where bytes or times tell anything, they tell most of the first pair.
    let pairs = pairs(case)?;
    let pairs = &pairs[..case.run.by_scale(1, pairs.len())];
    run(case, attack, trials, pairs, distinguishers)
}

/// Plays once per pair and keeps the records.
fn run(
    case: &mut Case<'_, '_>,
    attack: &dyn Attack,
    trials: Trials,
    pairs: &[Pair],
    distinguishers: impl Fn() -> Vec<(&'static str, Box<dyn Distinguisher>)>,
) -> Result<(), AttackError> {
    let seed = case.run.seed;
    let margin = case.run.by_scale(0.15, 0.05);
    for pair in pairs {
        let of_step = crate::attack::params([
            ("pair", pair.name.into()),
            ("known", trials.known.into()),
            ("guessed", trials.guessed.into()),
            ("margin", margin.into()),
        ]);
        case.step(of_step, |case| {
            let mut all = distinguishers();
            let asked = attack.access();
            let found = play(&mut case.target, asked, pair, trials, &mut all, seed)?;
            Ok(records(found, margin))
        })?;
    }
    Ok(())
}

/// A control: one distinguisher against the stand-in with a flaw. The whole interval
/// of its advantage must lie above one half.
fn control<'a>(
    name: &'static str,
    must: Must,
    flaw: Flaw,
    asked: Grants,
    distinguisher: impl Fn() -> Box<dyn Distinguisher> + 'a,
) -> Control<'a> {
    const BAR: f64 = 0.5;
    let trials = Trials {
        known: 200,
        guessed: 200,
    };
    Control {
        name,
        must,
        run: Box::new(move |seed| {
            let mut target = StandIn::new(flaw, seed);
            let inputs = target.pair();
            let pair = Pair { name, inputs };
            let target: &mut dyn Target = &mut target;
            let mut view = View::new(target, asked);
            let mut all = [(name, distinguisher())];
            let found = play(&mut view, asked, &pair, trials, &mut all, seed)?;
            let found = found[0].1;
            Ok(Outcome {
                succeeded: found.ci95[0] > BAR,
                value: found.value,
                bar: BAR,
            })
        }),
    }
}

/// Numbers of one kind per evaluation, and which bit they speak for: every number by
/// itself under normal distributions of its mean and variance, those that differ most
/// decide (a naive Bayes classifier over the numbers of largest Welch t).
struct Gaussians {
    features: fn(&Seen<'_>) -> Vec<f64>,
    /// Count, sums and sums of squares of the centred numbers, for each bit.
    sums: [(f64, Vec<f64>, Vec<f64>); 2],
    centre: Vec<f64>,
}

/// Numbers that decide.
const DECISIVE: usize = 4;

impl Gaussians {
    const fn new(features: fn(&Seen<'_>) -> Vec<f64>) -> Self {
        Self {
            features,
            sums: [(0.0, Vec::new(), Vec::new()), (0.0, Vec::new(), Vec::new())],
            centre: Vec::new(),
        }
    }

    /// Mean and variance of a number for a bit, around the centre.
    fn moments(&self, bit: usize, feature: usize) -> (f64, f64) {
        let (count, sums, squares) = &self.sums[bit];
        let mean = sums[feature] / count;
        let variance = (squares[feature] / count - mean * mean).max(0.0);
        (mean, variance)
    }

    /// Means, variances and the log likelihood ratio at a number; how much the bits
    /// differ in it.
    fn judge(&self, feature: usize, value: f64) -> (f64, f64) {
        let (m0, v0) = self.moments(0, feature);
        let (m1, v1) = self.moments(1, feature);
        let floor = 1e-9 * (1.0 + m0.abs() + m1.abs());
        let (v0, v1) = (v0 + floor * floor, v1 + floor * floor);
        let (n0, n1) = (self.sums[0].0, self.sums[1].0);
        let of_means = (m1 - m0).abs() / (v0 / n0 + v1 / n1).sqrt();
        // The logarithm of a ratio of variances deviates by sqrt(2/n0 + 2/n1).
        let of_variances = (v1 / v0).ln().abs() / (2.0 / n0 + 2.0 / n1).sqrt();
        let log = |m: f64, v: f64| -0.5 * ((value - m).powi(2) / v + v.ln());
        (of_means.max(of_variances), log(m1, v1) - log(m0, v0))
    }
}

impl Distinguisher for Gaussians {
    fn learn(&mut self, seen: &Seen<'_>, bit: bool) {
        let values = (self.features)(seen);
        if self.centre.is_empty() {
            self.centre.clone_from(&values);
        }
        let (count, sums, squares) = &mut self.sums[usize::from(bit)];
        sums.resize(self.centre.len(), 0.0);
        squares.resize(self.centre.len(), 0.0);
        *count += 1.0;
        for (i, (value, centre)) in values.iter().zip(&self.centre).enumerate() {
            sums[i] += value - centre;
            squares[i] += (value - centre).powi(2);
        }
    }

    fn score(&self, seen: &Seen<'_>) -> f64 {
        if self.sums.iter().any(|(count, _, _)| *count < 2.0) {
            return 0.0;
        }
        let values = (self.features)(seen);
        let centred = values.iter().zip(&self.centre).map(|(v, c)| v - c);
        let mut judged: Vec<(f64, f64)> = centred
            .enumerate()
            .map(|(feature, value)| self.judge(feature, value))
            .collect();
        judged.sort_by(|a, b| b.0.total_cmp(&a.0));
        judged.iter().take(DECISIVE).map(|(_, ratio)| ratio).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advantage_goes_from_none_to_all() {
        assert_eq!(advantage(50, 100).value, 0.0);
        assert_eq!(advantage(100, 100).value, 1.0);
        assert_eq!(advantage(0, 100).value, -1.0);
        let [low, high] = advantage(50, 100).ci95;
        assert!(low < 0.0 && 0.0 < high && high < 0.2);
    }

    #[test]
    fn a_distinguisher_that_was_taught_the_wrong_bits_loses() {
        // The same game, its known bits turned round: an attack broken on purpose.
        struct Reversed(Gaussians);
        impl Distinguisher for Reversed {
            fn learn(&mut self, seen: &Seen<'_>, bit: bool) {
                self.0.learn(seen, !bit);
            }
            fn score(&self, seen: &Seen<'_>) -> f64 {
                self.0.score(seen)
            }
        }
        let asked = timing::Timing.access();
        let game = |reversed: bool| {
            let outcome = control("time", Must::Succeed, Flaw::Branch, asked, move || {
                let right = Gaussians::new(timing::time);
                if reversed {
                    Box::new(Reversed(right))
                } else {
                    Box::new(right)
                }
            });
            outcome.holds(3).unwrap().1
        };
        assert!(game(false).succeeded);
        assert!(game(true).value < -0.5);
    }

    #[test]
    fn what_tells_nothing_is_a_coin() {
        struct Mute;
        impl Distinguisher for Mute {
            fn learn(&mut self, _: &Seen<'_>, _: bool) {}
            fn score(&self, _: &Seen<'_>) -> f64 {
                0.0
            }
        }
        let asked = timing::Timing.access();
        let control = control("mute", Must::Fail, Flaw::Branch, asked, || Box::new(Mute));
        let outcome = control.holds(1).unwrap().1;
        assert!(outcome.value.abs() < 0.25, "{outcome:?}");
    }
}
