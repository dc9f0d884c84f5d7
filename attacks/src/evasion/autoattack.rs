//! AutoAttack: an ensemble without parameters to choose (Croce, Hein 2020,
//! arXiv:2003.01690): APGD on the cross entropy, APGD on the targeted difference of logits
//! ratio, targeted FAB, and Square. A sample is robust if it is read rightly and no
//! member breaks it. Plain PGD is no member and stands beside it as a baseline, where
//! [`super::adversarial_training`] counts what PGD breaks as well.
//!
//! As with the other attacks of a man in the middle who knows the network, examples are
//! made with the network in floating point and sent through the target. Square can do
//! without: [`super::square::BySquares`] asks the target itself. Labels are the true
//! ones, as robust accuracy is about them.

use super::apgd::{Apgd, Objective};
use super::{ACCESS, BATCH, Made, control_data, control_network, fab, grid, noise, pgd, square};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::paper::Table;
use crate::plain::classes;
use crate::record::Finding;
use crate::stats::{Estimate, agreement, wilson};
use crate::target::{Grants, Rows};

/// One of the four.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Member {
    /// APGD of either objective.
    Apgd(Apgd),
    /// FAB-T.
    Fab(fab::Fab),
    /// Square, on the scores of the network in floating point.
    Square(square::Square),
}

impl Member {
    /// Its name in records.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Apgd(Apgd {
                objective: Objective::CrossEntropy,
                ..
            }) => "apgd_ce",
            Self::Apgd(_) => "apgd_t",
            Self::Fab(_) => "fab_t",
            Self::Square(_) => "square",
        }
    }

    /// Examples within `eps` in every pixel; where it found none, an image that the
    /// network reads rightly.
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
        match self {
            Self::Apgd(apgd) => apgd.craft(network, images, labels, eps, seed),
            Self::Fab(fab) => fab.craft(network, images, labels, eps),
            Self::Square(square) => {
                let scores = |rows: &Rows| Ok(network.evaluate(rows, BATCH)?);
                let found = square.search(scores, images, labels, eps, seed)?;
                Ok(found.examples)
            }
        }
    }
}

/// The ensemble with so many steps per member, queries for Square, and classes to aim at.
#[must_use]
pub fn ensemble(iterations: usize, queries: usize, targets: usize) -> [Member; 4] {
    let apgd = |objective| {
        Member::Apgd(Apgd {
            objective,
            iterations,
            averaging: None,
            direction: 1.0,
        })
    };
    [
        apgd(Objective::CrossEntropy),
        apgd(Objective::TargetedDlr { targets }),
        Member::Fab(fab::Fab {
            iterations,
            targets,
            ..fab::METHOD
        }),
        Member::Square(square::Square {
            queries,
            ..square::METHOD
        }),
    ]
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct AutoAttack;

impl Attack for AutoAttack {
    fn name(&self) -> &'static str {
        "autoattack"
    }

    fn about(&self) -> &'static str {
        "the ensemble APGD-CE, APGD-T, FAB-T and Square: accuracy where no member succeeds"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn tables(&self) -> &'static [Table] {
        &[]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let mut made = Made::default();
        context.each_target(self, |case| {
            let samples = case.run.by_scale(20, 500);
            let samples = samples.min(case.data.test.images.len());
            let (iterations, queries) = case.run.by_scale((30, 300), (100, 5000));
            let members = ensemble(iterations, queries, case.target.about().classes - 1);
            let all = case.run.by_scale(&[0.1, 0.3][..], &[0.05, 0.1, 0.2, 0.3]);
            for &eps in all {
                let of_step = params([
                    ("eps", eps.into()),
                    ("iterations", iterations.into()),
                    ("queries", queries.into()),
                    ("samples", samples.into()),
                ]);
                case.step(of_step, |case| {
                    attacked(case, &members, samples, eps, &mut made)
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        // From eps 0.075 on they break most samples with the wrong sign too.
        const BAR: f64 = 0.6;
        let control = |name, must, eps: f64, direction: f64| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let (images, labels) = control_data()?;
                let network = control_network()?;
                let mut members = ensemble(15, 60, 2);
                for member in &mut members {
                    match member {
                        Member::Apgd(apgd) => apgd.direction = direction,
                        Member::Fab(fab) => fab.overshoot *= direction,
                        Member::Square(square) => square.direction = direction,
                    }
                }
                let read = members.iter().map(|member| {
                    let examples = member.craft(&network, &images, &labels, eps, seed)?;
                    Ok(classes(&network.evaluate(&examples, BATCH)?))
                });
                let read = read.collect::<Result<Vec<_>, AttackError>>()?;
                let value = robust(&read, &labels).value;
                Ok(Outcome {
                    succeeded: value <= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control(
                "fewer steps than published, eps 0.2",
                Must::Succeed,
                0.2,
                1.0,
            ),
            control(
                "fewer steps than published, eps 0.05",
                Must::Succeed,
                0.05,
                1.0,
            ),
            control("no perturbation", Must::Fail, 0.0, 1.0),
            control(
                "members with the wrong sign, eps 0.05",
                Must::Fail,
                0.05,
                -1.0,
            ),
        ]
    }
}

/// The share of samples that no member breaks.
pub(super) fn robust(read: &[Vec<u8>], labels: &[u8]) -> Estimate {
    let stands = |i: usize| read.iter().all(|read| read[i] == labels[i]);
    let count = (0..labels.len()).filter(|&i| stands(i)).count();
    wilson(count, labels.len())
}

fn attacked(
    case: &mut Case<'_, '_>,
    members: &[Member],
    samples: usize,
    eps: f64,
    made: &mut Made,
) -> Result<Vec<Finding>, AttackError> {
    let images = Rows::images(&case.data.test.images[..samples]);
    let labels = &case.data.test.labels[..samples];
    let seed = case.run.seed;
    let network = case.target.weights()?;
    // The last is plain PGD, to compare with.
    let all = made.of(&network, &images, eps, || {
        let mut all = Vec::new();
        for member in members {
            all.push(member.craft(&network, &images, labels, eps, seed)?);
        }
        all.push(pgd::METHOD.craft(&network, &images, eps, seed)?);
        Ok(all)
    })?;
    let noisy = noise(&images, eps, seed);
    let mut parts = vec![&images, &noisy];
    parts.extend(&all);
    let answers = case.target.labels(&Rows::joined(&parts))?;
    let read: Vec<Vec<u8>> = answers.chunks(samples.max(1)).map(<[u8]>::to_vec).collect();
    let (clean, noisy) = (agreement(&read[0], labels), agreement(&read[1], labels));
    let of_members = &read[2..2 + members.len()];
    let pgd = agreement(&read[2 + members.len()], labels);
    let mut flips = 0;
    for (examples, read) in all.iter().zip(of_members) {
        let clear = classes(&network.evaluate(examples, BATCH)?);
        flips += read.iter().zip(&clear).filter(|(a, b)| a != b).count();
    }
    let finding = |name: &str, value| {
        Finding::new(name, value)
            .baseline("clean", clean.value)
            .baseline("random_noise", noisy.value)
            .baseline("pgd", pgd.value)
            .baseline("chance", 1.0 / case.target.about().classes as f64)
            .succeeds_below(noisy)
    };
    let mut findings = vec![
        finding("robust_accuracy", robust(of_members, labels))
            .remark("by the four members; PGD is beside them"),
    ];
    for (member, read) in members.iter().zip(of_members) {
        let name = format!("robust_accuracy_{}", member.name());
        findings.push(finding(&name, agreement(read, labels)));
    }
    findings.push(Finding::new(
        "label_flips",
        wilson(flips, samples * members.len()),
    ));
    if eps == super::PAPER_EPS {
        let about = case.target.about();
        let name = format!("autoattack-{}-{}", about.name, case.data.name);
        case.run.picture(&name, &grid(&images, &all[0]))?;
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Robust by the ensemble and by PGD, on the bundled digits.
    fn both(eps: f64) -> (f64, f64) {
        let (images, labels) = control_data().unwrap();
        let network = control_network().unwrap();
        let read = |examples: Rows| classes(&network.evaluate(&examples, BATCH).unwrap());
        let of_pgd = read(pgd::METHOD.craft(&network, &images, eps, 1).unwrap());
        let members = ensemble(20, 60, 3);
        let all = members.map(|member| {
            let examples = member.craft(&network, &images, &labels, eps, 1).unwrap();
            for (a, b) in examples.values().iter().zip(images.values()) {
                assert!((a - b).abs() <= eps + 1e-12 && (0.0..=1.0).contains(a));
            }
            read(examples)
        });
        (
            robust(&all, &labels).value,
            agreement(&of_pgd, &labels).value,
        )
    }

    #[test]
    fn it_is_never_weaker_than_pgd() {
        let mut robust_at = Vec::new();
        for eps in [0.03, 0.06, 0.1, 0.2] {
            let (ensemble, pgd) = both(eps);
            assert!(ensemble <= pgd, "eps {eps}: {ensemble} against PGD's {pgd}");
            robust_at.push(ensemble);
        }
        // Neither trivially: some samples stand where eps is small.
        assert!(robust_at[0] > 0.2 && robust_at[3] < 0.2, "{robust_at:?}");
    }

    #[test]
    fn one_member_is_enough_to_break_a_sample() {
        let read = [vec![1, 2, 3], vec![1, 0, 3], vec![1, 2, 0]];
        assert_eq!(robust(&read, &[1, 2, 3]).value, 1.0 / 3.0);
    }
}
