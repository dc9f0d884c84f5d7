//! An audit of differential privacy in one run of training (Steinke, Nasr, Jagielski
//! 2023, arXiv:2305.08846, Algorithm 1 and Theorem 5.2).
//!
//! Half of the pool are canaries: images with a wrong label, each a member by the flip
//! of a coin of its own; the others are members always. The auditor calls those with
//! the largest scores members and those with the least non-members, and abstains from
//! the rest. Where training is `(epsilon, delta)`-private, the right calls are hardly
//! more than those of randomised response, a binomial of `e^epsilon / (1 + e^epsilon)`:
//! so many right calls bound epsilon from below, with a confidence.
//!
//! The score is the margin of the canary's label, less that of a network that has
//! nothing to do with the target. The bound says what this attack found, not that there
//! is no better one.

use chacha20::ChaCha8Rng;
use he_nn::data::CLASSES;
use rand_core::SeedableRng;
use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

use super::countermeasures::private;
use super::defence::Defence;
use super::{ACCESS, Setting, Subject, each_subject_of, margins, seed_of};
use crate::attack::{Attack, AttackError, Context, Control, Must, Outcome, params};
use crate::extraction::exactly;
use crate::random;
use crate::record::{Finding, Scale};
use crate::stats::wilson;
use crate::synthetic;
use crate::target::{Activation, Grants, Rows, Target};

/// Probability with which the bound may be wrong.
const ERROR: f64 = 0.05;

/// Delta of the guarantee that is tested.
const DELTA: f64 = 1e-4;

/// Shares of the canaries that are called; the bound is corrected for trying all.
const SHARES: [f64; 4] = [0.125, 0.25, 0.5, 1.0];

/// Largest epsilon that is looked for.
const LARGEST: f64 = 50.0;

/// Streams of seeds.
const COINS: u64 = 10;
const STRANGER: u64 = 11;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct OneRun;

/// How likely so many right calls or more are, at most, where training is private:
/// Theorem 5.2.
fn p_value(canaries: usize, calls: usize, right: usize, epsilon: f64, delta: f64) -> f64 {
    let rate = 1.0 / (1.0 + (-epsilon).exp());
    let Ok(binomial) = Binomial::new(rate, calls as u64) else {
        return 1.0;
    };
    let tail = match right.checked_sub(1) {
        Some(fewer) => binomial.sf(fewer as u64),
        None => 1.0,
    };
    let (mut sum, mut worst) = (0.0, 0.0f64);
    for fewer in 1..=right {
        sum += binomial.pmf((right - fewer) as u64);
        worst = worst.max(sum / fewer as f64);
    }
    (tail + 2.0 * canaries as f64 * delta * worst).min(1.0)
}

/// The largest epsilon that so many right calls rule out, with this error; 0 if none.
#[must_use]
pub fn epsilon_ruled_out(
    canaries: usize,
    calls: usize,
    right: usize,
    delta: f64,
    error: f64,
) -> f64 {
    let excluded = |epsilon: f64| p_value(canaries, calls, right, epsilon, delta) < error;
    if calls == 0 || !excluded(0.0) {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, LARGEST);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if excluded(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Audited {
    epsilon: f64,
    calls: usize,
    right: usize,
}

/// Calls the canaries by their scores, in all shares, and takes the best bound.
fn audited(scores: &[f64], members: &[bool]) -> Audited {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut best: Option<Audited> = None;
    for share in SHARES {
        let half = (share * order.len() as f64 / 2.0) as usize;
        let called_in = order[..half].iter().filter(|&&i| members[i]);
        let called_out = order[order.len() - half..].iter().filter(|&&i| !members[i]);
        let right = called_in.count() + called_out.count();
        let error = ERROR / SHARES.len() as f64;
        let epsilon = epsilon_ruled_out(order.len(), 2 * half, right, DELTA, error);
        if best.is_none_or(|best| epsilon > best.epsilon) {
            best = Some(Audited {
                epsilon,
                calls: 2 * half,
                right,
            });
        }
    }
    best.unwrap_or(Audited {
        epsilon: 0.0,
        calls: 0,
        right: 0,
    })
}

/// How many of the pool are canaries: they come first.
const fn canaries(subject: &Subject) -> usize {
    subject.pool.len() / 2
}

/// Makes the first half of the pool canaries, and flips their coins.
fn with_canaries(subject: &mut Subject) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed_of(subject.seed, COINS));
    let count = canaries(subject);
    for i in 0..subject.pool.len() {
        subject.members[i] = i >= count || random::uniform(&mut rng) < 0.5;
        if i < count {
            let by = 1 + random::below(&mut rng, CLASSES - 1);
            let label = (usize::from(subject.pool.labels[i]) + by) % CLASSES;
            subject.pool.labels[i] = label as u8;
        }
    }
}

/// Scores of the canaries.
fn scores(subject: &Subject, logits: &Rows, stranger: &Rows) -> Vec<f64> {
    let labels = &subject.pool.labels[..canaries(subject)];
    let own = margins(logits, labels);
    let others = margins(stranger, labels);
    own.iter().zip(others).map(|(a, b)| a - b).collect()
}

/// Logits of a network that was trained as the target was, on none of its data.
fn stranger(subject: &Subject, inputs: &Rows) -> Result<Rows, AttackError> {
    let seed = seed_of(subject.seed, STRANGER);
    let half = subject.reference.first(subject.reference.len().div_ceil(2));
    let network = subject.setting.trained(&half, seed)?;
    Ok(network.evaluate(inputs, super::BATCH)?)
}

/// Networks that are audited.
fn settings(scale: Scale) -> Vec<Setting> {
    let all = Setting::all(scale).into_iter();
    let squares = all.filter(|setting| setting.activation == Activation::Polynomial);
    let noise = private("DP-SGD, noise 2", 2.0, scale);
    squares.chain([noise]).collect()
}

impl Attack for OneRun {
    fn name(&self) -> &'static str {
        "membership-audit"
    }

    fn about(&self) -> &'static str {
        "a lower bound on epsilon in one run, by canaries that are members by coin flips"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let settings = settings(context.run.scale);
        each_subject_of(
            self,
            context,
            &settings,
            with_canaries,
            |case, subject, other| {
                // Every query is evaluated alone there, and says the same.
                if case.sparing() {
                    return Ok(());
                }
                let count = canaries(subject);
                let of_step = params([
                    ("canaries", count.into()),
                    ("delta", DELTA.into()),
                    ("confidence", (1.0 - ERROR).into()),
                ]);
                case.step(of_step, |case| {
                    let inputs = subject.pool.first(count).inputs;
                    if other.is_none() {
                        *other = Some(stranger(subject, &inputs)?);
                    }
                    let Some(other) = &*other else {
                        return Ok(Vec::new());
                    };
                    let logits = case.target.scores(&inputs)?;
                    let found = scores(subject, &logits, other);
                    let found = audited(&found, &subject.members[..count]);
                    let mut bound = Finding::new("epsilon_lower", exactly(found.epsilon))
                        .succeeds_above(0.0, 0.0)
                        .remark("epsilon is at least this, with 95 % confidence");
                    if let Defence::Private(private) = subject.setting.defence {
                        bound = bound.baseline("proved_upper", private.epsilon());
                    }
                    Ok(vec![
                        bound,
                        Finding::new("calls", exactly(found.calls as f64)),
                        Finding::new("right_calls", wilson(found.right, found.calls))
                            .baseline("chance", 0.5),
                    ])
                })
            },
        )
    }

    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 0.3;
        let control = |name, must, other_coins: bool, broken: bool| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let setting = Setting {
                    name: "by heart",
                    pool: 120,
                    hidden: 32,
                    activation: Activation::Polynomial,
                    epochs: 20,
                    weight_decay: 0.0,
                    defence: Defence::None,
                };
                let mut subject = Subject::new(setting, &synthetic::noise(480, seed), seed);
                with_canaries(&mut subject);
                let count = canaries(&subject);
                let inputs = subject.pool.first(count).inputs;
                let logits = subject.target("noise").observe(&inputs, ACCESS)?.scores;
                if other_coins {
                    subject.seed += 1;
                    let labels = subject.pool.labels.clone();
                    with_canaries(&mut subject);
                    subject.pool.labels = labels;
                }
                let mut found = scores(&subject, &logits, &stranger(&subject, &inputs)?);
                if broken {
                    found.iter_mut().for_each(|score| *score = -*score);
                }
                let value = audited(&found, &subject.members[..count]).epsilon;
                Ok(Outcome {
                    succeeded: value > BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control("canaries learned by heart", Must::Succeed, false, false),
            control("coins flipped anew", Must::Fail, true, false),
            control("broken on purpose", Must::Fail, false, true),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_theorem() {
        // All calls right and delta 0: rate^calls = error, so that
        // epsilon = -ln(error^(-1 / calls) - 1).
        let calls: usize = 100;
        let expected = -(0.05f64.powf(-1.0 / calls as f64) - 1.0).ln();
        let found = epsilon_ruled_out(200, calls, calls, 0.0, 0.05);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        // Half right rules nothing out, and delta weakens a bound.
        assert_eq!(epsilon_ruled_out(200, 100, 50, 0.0, 0.05), 0.0);
        let weaker = epsilon_ruled_out(200, calls, calls, 1e-4, 0.05);
        assert!(0.0 < weaker && weaker < found, "{weaker}");
    }

    #[test]
    fn a_bound_holds_for_randomised_response_as_often_as_it_says() {
        // An answer that keeps its bit with e / (1 + e) is 1-private, and the auditor who
        // calls what it hears is as good as the theorem allows.
        let (epsilon, count, trials) = (1.0f64, 200, 400);
        let keep = 1.0 / (1.0 + (-epsilon).exp());
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut above, mut sum) = (0, 0.0);
        for _ in 0..trials {
            let right = (0..count)
                .filter(|_| random::uniform(&mut rng) < keep)
                .count();
            let found = epsilon_ruled_out(count, count, right, 0.0, ERROR);
            above += usize::from(found > epsilon);
            sum += found;
        }
        // 5 % are expected; 9 % would be more than three deviations away.
        assert!(above <= 36, "{above}");
        let mean = sum / f64::from(trials);
        assert!((0.6..1.0).contains(&mean), "{mean}");
    }
}
