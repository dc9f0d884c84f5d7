//! A threshold on the confidence (Xiang, Dalla, Wu 2025, Table 1).
//!
//! The threshold is the best one on two shadow models. Three signals: the largest logit
//! as it comes, without softmax; the largest probability after a softmax on the
//! attacker's side; and the margin of the true class. The 2021 paper holds that the
//! unbounded range of logits protects: if it does, the first signal must fall behind
//! the others.

use super::{
    ACCESS, Baselines, Scored, Subject, controls, each_subject, findings, log_sum_exp, logits_of,
    margins,
};
use crate::attack::{Attack, AttackError, Context, Control, params};
use crate::paper::{Table, XIANG_1, figure};
use crate::record::Finding;
use crate::stats::wilson;
use crate::target::{Activation, Grants, Rows};

/// Shadow models.
const SHADOWS: usize = 2;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Threshold;

/// What the attacker looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Logit,
    Softmax,
    Margin,
}

impl Signal {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Logit, "largest logit"),
        (Self::Softmax, "largest probability"),
        (Self::Margin, "margin of the true class"),
    ];

    fn of(self, logits: &Rows, labels: &[u8]) -> Vec<f64> {
        let top = |row: &[f64]| row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self {
            Self::Logit => logits.iter().map(top).collect(),
            // Its logarithm of the odds: the same order, without rounding to 1.
            Self::Softmax => logits
                .iter()
                .map(|row| {
                    let best = he_nn::clear::class(row);
                    let others = row.iter().enumerate().filter(|(i, _)| *i != best);
                    row[best] - log_sum_exp(others.map(|(_, &z)| z))
                })
                .collect(),
            Self::Margin => margins(logits, labels),
        }
    }
}

impl Attack for Threshold {
    fn name(&self) -> &'static str {
        "membership-threshold"
    }

    fn about(&self) -> &'static str {
        "membership by a threshold on the confidence, fixed on shadow models"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn tables(&self) -> &'static [Table] {
        &[XIANG_1]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        each_subject(self, context, |case, subject, shadows| {
            let masks = subject.masks(SHADOWS);
            for (signal, name) in Signal::ALL {
                let of_step = params([
                    ("signal", name.into()),
                    ("shadows", SHADOWS.into()),
                    ("members", (subject.pool.len() / 2).into()),
                ]);
                case.step(of_step, |case| {
                    if shadows.is_none() {
                        let samples = &subject.shadow;
                        let networks = subject.setting.shadows(samples, &masks, subject.seed)?;
                        let own = logits_of(&networks, &samples.inputs)?;
                        let blind = networks[0].evaluate(&subject.pool.inputs, super::BATCH)?;
                        *shadows = Some((own, blind));
                    }
                    let Some((own, blind)) = &*shadows else {
                        return Ok(Vec::new());
                    };
                    let logits = case.target.scores(&subject.pool.inputs)?;
                    let found = signal.of(&logits, &subject.pool.labels);
                    let found = Scored::of(&found, &subject.members);
                    let mut shadow = Scored::default();
                    for (logits, mask) in own.iter().zip(&masks) {
                        shadow.extend(&signal.of(logits, &subject.shadow.labels), mask);
                    }
                    let baselines = Baselines::new(subject, &logits, blind);
                    Ok(with_threshold(subject, &found, &shadow, baselines))
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(|subject, logits, broken| {
            let mut scores = Signal::Margin.of(logits, &subject.pool.labels);
            if broken {
                scores.iter_mut().for_each(|score| *score = -*score);
            }
            Ok(scores)
        })
    }
}

/// Findings with the paper's: accuracy, precision, recall and AUC.
fn with_threshold(
    subject: &Subject,
    found: &Scored,
    shadow: &Scored,
    baselines: Baselines,
) -> Vec<Finding> {
    let column = match subject.setting.activation {
        Activation::Relu => "Black-Box",
        Activation::Polynomial => "Poly-HE",
    };
    let paper = |metric: &str| {
        let row = format!("membership inference, {metric}");
        figure(XIANG_1, &row, column)
    };
    let threshold = shadow.best_threshold();
    let above = |scores: &[f64]| scores.iter().filter(|&&s| s > threshold).count();
    let (hits, alarms) = (above(&found.members), above(&found.others));
    let (members, others) = (found.members.len(), found.others.len());
    let mut all = findings(found, shadow, baselines, subject.seed);
    if let Some(auc) = all.first_mut() {
        *auc = auc.clone().paper(paper("AUC"));
    }
    all.extend([
        Finding::new("accuracy", wilson(hits + others - alarms, members + others))
            .baseline("chance", 0.5)
            .paper(paper("accuracy"))
            .succeeds_above(0.5, super::MARGIN),
        Finding::new("precision", wilson(hits, hits + alarms))
            .baseline("chance", 0.5)
            .paper(paper("precision")),
        Finding::new("recall", wilson(hits, members)).paper(paper("recall")),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_softmax_keeps_what_single_precision_rounds_away() {
        let logits = Rows::new(3, vec![40.0, 0.0, 1.0, 50.0, 0.0, 1.0]);
        let scores = Signal::Softmax.of(&logits, &[0, 0]);
        assert!(scores[0] < scores[1], "{scores:?}");
        let as_f32 = scores.iter().map(|s| 1.0f32 / (1.0 + (-s).exp() as f32));
        assert!(as_f32.into_iter().all(|p| p == 1.0));
        assert_eq!(scores, Signal::Margin.of(&logits, &[0, 0]));
    }

    #[test]
    fn a_roc_goes_through_every_threshold_once() {
        let scored = Scored {
            members: vec![3.0, 2.0],
            others: vec![2.0, 1.0],
        };
        let curve = [(0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0)];
        assert_eq!(scored.roc(), curve);
    }

    #[test]
    fn the_best_threshold_is_the_best() {
        let scored = Scored {
            members: vec![3.0, 4.0, 5.0, 1.0],
            others: vec![0.0, 1.0, 2.0, 4.0],
        };
        // Above 2: three members and one other, 6 of 8 right.
        assert_eq!(scored.best_threshold(), 2.0);
        let worthless = Scored {
            members: vec![1.0; 3],
            others: vec![1.0; 2],
        };
        assert_eq!(worthless.best_threshold(), f64::NEG_INFINITY);
    }
}
