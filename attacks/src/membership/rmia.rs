//! Robust membership inference, RMIA (Zarifzadeh, Liu, Shokri 2024, "Low-Cost
//! High-Power Membership Inference Attacks", equations 2 to 4, offline form).
//!
//! The target's probability of a sample, relative to that of reference models which
//! never saw it, is compared with the same ratio of samples of the population: the
//! score is the share of the population that the sample beats by a factor. With one
//! reference model it does what LiRA needs many for.

use super::{
    ACCESS, Baselines, Samples, Scored, Subject, controls, each_subject, findings, log_probability,
    logits_of,
};
use crate::attack::{Attack, AttackError, Context, Control, params};
use crate::network::Differentiable;
use crate::target::{Grants, Rows};

/// The factor by which a ratio must exceed another.
const GAMMA: f64 = 2.0;

/// How far the offline form trusts `p_out`: `p = ((1 + a) p_out + 1 - a) / 2`. The
/// paper's value for CIFAR-10.
const A: f64 = 0.3;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Rmia;

/// The logarithm of `p(x | target) / p(x)` of every sample.
fn log_ratios(target: &Rows, references: &[Rows], labels: &[u8]) -> Vec<f64> {
    let ratios = labels.iter().enumerate().map(|(i, &label)| {
        let outside = references
            .iter()
            .map(|rows| log_probability(rows.row(i), label).exp());
        let mean = outside.sum::<f64>() / references.len().max(1) as f64;
        let prior = 0.5 * (1.0 + A).mul_add(mean, 1.0 - A);
        log_probability(target.row(i), label) - prior.ln()
    });
    ratios.collect()
}

/// The share of the population that each sample beats. `population` is sorted.
fn beaten(samples: &[f64], population: &[f64]) -> Vec<f64> {
    let share = |&ratio: &f64| {
        let bar = ratio - GAMMA.ln();
        let below = population.partition_point(|&z| z < bar);
        below as f64 / population.len().max(1) as f64
    };
    samples.iter().map(share).collect()
}

/// Reference models and what they say of the population.
struct References {
    networks: Vec<Differentiable>,
    population: Samples,
    of_population: Vec<Rows>,
}

impl References {
    fn trained(subject: &Subject, count: usize) -> Result<Self, AttackError> {
        let masks = subject.masks(count);
        let networks = subject
            .setting
            .shadows(&subject.reference, &masks, subject.seed)?;
        Ok(Self {
            of_population: logits_of(&networks, &subject.population.inputs)?,
            population: subject.population.clone(),
            networks,
        })
    }

    /// Scores of samples that the first so many references never saw.
    fn scores(
        &self,
        count: usize,
        samples: &Samples,
        target: &Rows,
        target_on_population: &Rows,
    ) -> Result<Vec<f64>, AttackError> {
        let own = logits_of(&self.networks[..count], &samples.inputs)?;
        let ratios = log_ratios(target, &own, &samples.labels);
        let mut population = log_ratios(
            target_on_population,
            &self.of_population[..count],
            &self.population.labels,
        );
        population.sort_by(f64::total_cmp);
        Ok(beaten(&ratios, &population))
    }
}

impl Attack for Rmia {
    fn name(&self) -> &'static str {
        "membership-rmia"
    }

    fn about(&self) -> &'static str {
        "membership by ratios to a population, with 1, 2 and 4 reference models"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        each_subject(self, context, |case, subject, trained| {
            for count in [1, 2, 4] {
                let of_step = params([
                    ("references", count.into()),
                    ("gamma", GAMMA.into()),
                    ("a", A.into()),
                    ("members", (subject.pool.len() / 2).into()),
                ]);
                case.step(of_step, |case| {
                    if trained.is_none() {
                        let references = References::trained(subject, 4)?;
                        // A shadow model in the target's place fixes the threshold.
                        let masks = subject.masks(1);
                        let shadow =
                            subject
                                .setting
                                .shadows(&subject.shadow, &masks, subject.seed)?;
                        let [own, population] = [&subject.shadow, &subject.population]
                            .map(|samples| shadow[0].evaluate(&samples.inputs, super::BATCH));
                        *trained = Some((references, own?, population?, masks));
                    }
                    let Some((references, own, population, masks)) = &*trained else {
                        return Ok(Vec::new());
                    };
                    let scores = references.scores(count, &subject.shadow, own, population)?;
                    let shadow = Scored::of(&scores, &masks[0]);

                    let logits = case.target.scores(&subject.pool.inputs)?;
                    let population = case.target.scores(&subject.population.inputs)?;
                    let found = references.scores(count, &subject.pool, &logits, &population)?;
                    let found = Scored::of(&found, &subject.members);
                    let blind =
                        references.networks[0].evaluate(&subject.pool.inputs, super::BATCH)?;
                    let baselines = Baselines::new(subject, &logits, &blind);
                    Ok(findings(&found, &shadow, baselines, subject.seed))
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(|subject, logits, broken| {
            let references = References::trained(subject, 1)?;
            // The target on the population: for a control, another model that never saw
            // it serves as well.
            let stranger =
                subject
                    .setting
                    .shadows(&subject.shadow, &subject.masks(1), subject.seed)?;
            let population = stranger[0].evaluate(&subject.population.inputs, super::BATCH)?;
            let samples = &subject.pool;
            if broken {
                // Samples are taken for others.
                let mut turned = logits.clone();
                turned.values_mut().rotate_left(logits.width());
                return references.scores(1, samples, &turned, &population);
            }
            references.scores(1, samples, logits, &population)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_beats_what_lies_a_factor_below() {
        let population = [-3.0, -1.0, 0.0, 2.0];
        assert_eq!(
            beaten(&[-5.0, 0.0, 0.71, 9.0], &population),
            [0.0, 0.5, 0.75, 1.0]
        );
    }

    #[test]
    fn ratios_are_of_probabilities() {
        // Even odds of the target and of the reference: 0.5 / ((1.3 * 0.5 + 0.7) / 2).
        let even = Rows::new(2, vec![0.0, 0.0]);
        let found = log_ratios(&even, std::slice::from_ref(&even), &[1]);
        assert!((found[0].exp() - 0.5 / 0.675).abs() < 1e-12);
    }
}
