//! An evaluator that skips work or changes the result, against ways to notice it.
//!
//! The work is a linear layer, one sample per slot. A check is what the client puts beside
//! its samples and looks at in the answer; a forger that knows the check, but neither
//! places nor secrets of it, has homomorphic evaluation to work against it (Cheon and
//! Jang, arXiv 2502.12628):
//!
//! | check | the forger evaluates |
//! |---|---|
//! | copies of one sample in all slots must agree | the same change in every slot |
//! | a known sample in hidden slots | the square of the distance from it: zero there |
//! | copies, and fresh secret samples in hidden slots | the distance from the mean of all slots: `(1 - z / D)^4` is one at copies and small elsewhere |
//! | `f(a x + b y) = a f(x) + b f(y)` for secret `a`, `b` | another linear function |
//! | fresh samples in hidden slots among different ones | nothing: one slot is changed by luck |
//! | a share is evaluated again and compared to the bit | nothing: by luck |
//!
//! The last is what the client has (`--audit`). Its bound, `1 - share` per forged answer,
//! depends on nothing that is encrypted.

mod flips;
mod lab;

use he_core::Params;

pub(super) use self::flips::Flips;
use self::lab::{Lab, TOLERANCE, depth};
use crate::attack::{Attack, AttackError, Context, Control, Must, Outcome, Subject, params};
use crate::record::{Finding, Verdict};
use crate::stats::wilson;
use crate::target::{Access, Grants};

/// How the client would notice.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Check {
    Copies,
    KnownSample,
    HiddenCopies,
    FreshSamples,
    RandomLinear,
    Audit(f64),
}

/// What the evaluator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forger {
    Honest,
    /// One product of several.
    SkipsWork,
    /// Adds to one slot.
    OneSlot,
    /// Evaluates against the check.
    Adaptive,
}

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::Copies => "copies",
            Self::KnownSample => "a known sample in hidden slots",
            Self::HiddenCopies => "copies and fresh samples in hidden slots",
            Self::FreshSamples => "fresh samples in hidden slots",
            Self::RandomLinear => "random linear combination",
            Self::Audit(_) => "evaluated again",
        }
    }

    /// The most that a forger passes by luck; none where there is no such bound.
    fn bound(self) -> Option<f64> {
        match self {
            // Half of the slots are hidden ones.
            Self::FreshSamples => Some(0.5),
            Self::Audit(share) => Some(1.0 - share),
            _ => None,
        }
    }

    /// What evaluates against it; where nothing does, one slot is changed.
    const fn is_evaluated_against(self) -> bool {
        !matches!(self, Self::FreshSamples | Self::Audit(_))
    }
}

impl Forger {
    const fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::SkipsWork => "skips work",
            Self::OneSlot => "changes one slot",
            Self::Adaptive => "evaluates against the check",
        }
    }
}

/// What is tried, and how often in a quick run.
fn experiments(set: &Params) -> Vec<(Check, Forger, usize)> {
    let mut all = Vec::new();
    let checks = [
        (Check::Copies, 100),
        (Check::KnownSample, 100),
        (Check::HiddenCopies, 10),
        (Check::FreshSamples, 100),
        (Check::RandomLinear, 100),
        (Check::Audit(0.1), 200),
        (Check::Audit(0.5), 200),
        (Check::Audit(1.0), 200),
    ];
    for (check, trials) in checks {
        let audit = matches!(check, Check::Audit(_));
        let forgers: &[Forger] = match audit {
            true => &[Forger::Honest, Forger::OneSlot],
            false => &[
                Forger::Honest,
                Forger::SkipsWork,
                Forger::OneSlot,
                Forger::Adaptive,
            ],
        };
        for &forger in forgers {
            let deep = check == Check::HiddenCopies && forger == Forger::Adaptive;
            if deep && !depth(set) {
                continue;
            }
            let trials = match forger {
                Forger::Honest | Forger::SkipsWork => 5,
                _ => trials,
            };
            all.push((check, forger, trials));
        }
    }
    all
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct ForgerAttack;

impl Attack for ForgerAttack {
    fn name(&self) -> &'static str {
        "forger"
    }

    fn about(&self) -> &'static str {
        "returns wrong results past copies, known answers, linear checks and audits"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Ciphertexts])
    }

    fn subject(&self) -> Subject {
        Subject::Schemes
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_scheme(self, |case| {
            let (set, seed) = (case.params, case.run.seed);
            // The distance takes a square and its rescaling, and then there is a layer.
            if set.max_level() < 3 {
                return case.step(params([]), |_| {
                    let reason = "the set has no level for a circuit and a check of it";
                    Ok(vec![Finding::not_applicable(reason)])
                });
            }
            for (check, forger, quick) in experiments(set) {
                let trials = case.run.by_scale(quick, 4 * quick);
                let mut of_step = params([
                    ("check", check.name().into()),
                    ("forger", forger.name().into()),
                    ("tolerance", TOLERANCE.into()),
                    ("requests", trials.into()),
                ]);
                if let Check::Audit(share) = check {
                    of_step.insert("share".into(), share.into());
                }
                case.step(of_step, |case| {
                    let mut lab = Lab::new(set, seed)?;
                    let mut passed = 0;
                    for _ in 0..trials {
                        let [accepted, wrong] = lab.request(check, forger)?;
                        passed += usize::from(accepted && (wrong || forger == Forger::Honest));
                    }
                    case.queries += trials as u64;
                    Ok(vec![finding(check, forger, passed, trials)])
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        use he_core::params::N4096_DEPTH3 as ROOM;
        let of = |(name, must, check, forger): (&'static str, Must, Check, Forger)| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let [accepted, wrong] = Lab::new(&ROOM, seed)?.request(check, forger)?;
                Ok(Outcome {
                    succeeded: accepted && wrong,
                    value: f64::from(u8::from(accepted && wrong)),
                    bar: 1.0,
                })
            }),
        };
        use Must::{Fail, Succeed};
        let all = [
            (
                "copies, the same change",
                Succeed,
                Check::Copies,
                Forger::Adaptive,
            ),
            (
                "known sample, its distance",
                Succeed,
                Check::KnownSample,
                Forger::Adaptive,
            ),
            (
                "linear check, less work",
                Succeed,
                Check::RandomLinear,
                Forger::SkipsWork,
            ),
            ("copies, one slot", Fail, Check::Copies, Forger::OneSlot),
            (
                "known sample, less work",
                Fail,
                Check::KnownSample,
                Forger::SkipsWork,
            ),
            ("audit of all", Fail, Check::Audit(1.0), Forger::OneSlot),
        ];
        all.into_iter().map(of).collect()
    }
}

/// The share of answers that passed and are wrong for a sample of the client's own; of an
/// honest evaluator, of those that passed.
fn finding(check: Check, forger: Forger, passed: usize, trials: usize) -> Finding {
    let share = wilson(passed, trials);
    if forger == Forger::Honest {
        return Finding::new("honest answers accepted", share);
    }
    let found = Finding::new("forged answers accepted", share);
    match check.bound() {
        Some(bound) => {
            let (verdict, reason) = match share.ci95[0] > bound {
                true => (Verdict::Success, "more than the bound allows"),
                false => (Verdict::Failure, "no more than the bound allows: by luck"),
            };
            found.baseline("bound", bound).verdict(verdict, reason)
        }
        None => {
            let verdict = match passed {
                0 => Verdict::Failure,
                _ if share.value > 0.5 => Verdict::Success,
                _ => Verdict::Inconclusive,
            };
            found.verdict(
                verdict,
                "accepted, and wrong for a sample of the client's own",
            )
        }
    }
}

/// Whether one request with copies and hidden samples is forged.
#[cfg(test)]
pub(super) fn forges_hidden_copies(set: &'static Params, seed: u64) -> he_core::Result<bool> {
    let [accepted, wrong] = Lab::new(set, seed)?.request(Check::HiddenCopies, Forger::Adaptive)?;
    Ok(accepted && wrong)
}
