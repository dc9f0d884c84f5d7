//! The likelihood ratio attack, LiRA (Carlini et al. 2022, "Membership Inference
//! Attacks From First Principles", Algorithm 1 and section VI).
//!
//! Shadow models are trained on random halves of the target's own pool, so that each
//! sample is in about half of them. The margins of a sample under the models that had
//! it and those that had it not are two Gaussians; online, the score is the logarithm
//! of their likelihood ratio at the target's margin; offline, only the second is known,
//! and the score is how far above it the target lies. With fewer than 64 models the
//! variances are those of all samples together, as the paper advises.
//!
//! Thresholds come from shadow models in the target's place, each judged by the others.
//! [`super::countermeasures`] takes the offline form against targets with a defence.

use super::{
    ACCESS, Baselines, Scored, Subject, controls, each_subject, findings, logits_of, margins,
};
use crate::attack::{Attack, AttackError, Context, Control, params};
use crate::record::Picture;
use crate::target::{Grants, Rows};

/// Fewest models for variances per sample.
const PER_SAMPLE: usize = 64;

/// Shadow models that stand in for the target, to fix thresholds.
const JUDGED: usize = 4;

/// Least variance of a margin.
const LEAST: f64 = 1e-6;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Lira;

/// What the attacker knows of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// How models fare that had it and that had it not.
    Online,
    /// How models fare that had it not.
    Offline,
}

/// Mean and sum of squared deviations.
fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum())
}

/// Margins of the shadow models, one list per model, with their masks.
pub(super) struct Models<'m> {
    pub(super) margins: &'m [Vec<f64>],
    pub(super) masks: &'m [Vec<bool>],
}

impl Models<'_> {
    /// Scores of a target with these margins. `without` leaves one model out.
    pub(super) fn scores(&self, target: &[f64], mode: Mode, without: Option<usize>) -> Vec<f64> {
        let models: Vec<usize> = (0..self.masks.len())
            .filter(|&m| Some(m) != without)
            .collect();
        let of = |sample: usize, member: bool| -> Vec<f64> {
            let such = models.iter().filter(|&&m| self.masks[m][sample] == member);
            such.map(|&m| self.margins[m][sample]).collect()
        };
        let both = |sample| [of(sample, true), of(sample, false)];
        let all: Vec<[Vec<f64>; 2]> = (0..target.len()).map(both).collect();
        // Degrees of freedom: a mean is taken from each list.
        let pooled = |side: usize| {
            let parts = all.iter().map(|lists| &lists[side]);
            let (mut squares, mut freedom) = (0.0, 0);
            for list in parts.filter(|list| list.len() > 1) {
                squares += moments(list).1;
                freedom += list.len() - 1;
            }
            (squares / freedom.max(1) as f64).max(LEAST)
        };
        let overall = [pooled(0), pooled(1)];
        let scores = target.iter().zip(&all).map(|(&x, lists)| {
            let gaussian = |side: usize| {
                let (mean, squares) = moments(&lists[side]);
                let own = squares / lists[side].len().saturating_sub(1).max(1) as f64;
                let variance = if models.len() < PER_SAMPLE {
                    overall[side]
                } else {
                    own.max(LEAST)
                };
                (mean, variance)
            };
            // A sample that no model had, or that all had, says nothing.
            if lists[1].is_empty() || (mode == Mode::Online && lists[0].is_empty()) {
                return 0.0;
            }
            let (out, out_variance) = gaussian(1);
            match mode {
                Mode::Offline => (x - out) / out_variance.sqrt(),
                Mode::Online => {
                    let (inside, in_variance) = gaussian(0);
                    let log = |mean: f64, variance: f64| {
                        -0.5 * ((x - mean).powi(2) / variance + variance.ln())
                    };
                    log(inside, in_variance) - log(out, out_variance)
                }
            }
        });
        scores.collect()
    }

    /// Scores of shadow models in the target's place.
    pub(super) fn judged(&self, mode: Mode) -> Scored {
        let mut scored = Scored::default();
        for judged in 0..JUDGED.min(self.masks.len()) {
            let scores = self.scores(&self.margins[judged], mode, Some(judged));
            scored.extend(&scores, &self.masks[judged]);
        }
        scored
    }
}

/// Margins of so many shadow models on the pool, and those of one that never saw it.
fn shadow_margins(
    subject: &Subject,
    masks: &[Vec<bool>],
) -> Result<(Vec<Vec<f64>>, Rows), AttackError> {
    let setting = &subject.setting;
    let networks = setting.shadows(&subject.pool, masks, subject.seed)?;
    let all = logits_of(&networks, &subject.pool.inputs)?;
    let margins = all.iter().map(|rows| margins(rows, &subject.pool.labels));
    let stranger = setting.shadows(&subject.reference, &subject.masks(1), subject.seed)?;
    let blind = stranger[0].evaluate(&subject.pool.inputs, super::BATCH)?;
    Ok((margins.collect(), blind))
}

impl Attack for Lira {
    fn name(&self) -> &'static str {
        "membership-lira"
    }

    fn about(&self) -> &'static str {
        "membership by likelihood ratios over shadow models, online and offline"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        each_subject(self, context, |case, subject, trained| {
            let shadows = case.run.by_scale(16, 64);
            let masks = subject.masks(shadows);
            for (mode, name) in [(Mode::Online, "online"), (Mode::Offline, "offline")] {
                let of_step = params([
                    ("mode", name.into()),
                    ("shadows", shadows.into()),
                    ("members", (subject.pool.len() / 2).into()),
                ]);
                case.step(of_step, |case| {
                    if trained.is_none() {
                        *trained = Some(shadow_margins(subject, &masks)?);
                    }
                    let Some((all, blind)) = &*trained else {
                        return Ok(Vec::new());
                    };
                    let models = Models {
                        margins: all,
                        masks: &masks,
                    };
                    let logits = case.target.scores(&subject.pool.inputs)?;
                    let target = margins(&logits, &subject.pool.labels);
                    let found = models.scores(&target, mode, None);
                    let found = Scored::of(&found, &subject.members);
                    let baselines = Baselines::new(subject, &logits, blind);
                    let shadow = models.judged(mode);
                    let picture = Picture::Curves {
                        x: "false positive rate".into(),
                        y: "true positive rate".into(),
                        logarithmic: true,
                        curves: vec![(format!("LiRA, {name}"), found.roc())],
                    };
                    let about = case.target.about();
                    let title = format!("{}-{name}-{}", self.name(), about.name);
                    let title = format!("{title}-{}", case.data.name);
                    case.run.picture(&title, &picture)?;
                    Ok(findings(&found, &shadow, baselines, subject.seed))
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(|subject, logits, broken| {
            let mut masks = subject.masks(8);
            let (all, _) = shadow_margins(subject, &masks)?;
            if broken {
                // Each model is taken for the next.
                masks.rotate_left(1);
            }
            let models = Models {
                margins: &all,
                masks: &masks,
            };
            let target = margins(logits, &subject.pool.labels);
            Ok(models.scores(&target, Mode::Online, None))
        })
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::membership::random_half;
    use crate::random::normal;

    #[test]
    fn gaussians_are_told_apart_as_theory_says() {
        // Two unit Gaussians two apart: the best AUC is that of a difference of mean 2
        // and deviation sqrt 2, Phi(sqrt 2) = .9214. Each sample has its own level,
        // which a threshold for all cannot know.
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let count = 2000;
        let levels: Vec<f64> = (0..count).map(|_| 20.0 * normal(&mut rng)).collect();
        let mut draw = || {
            let mask = random_half(count, &mut rng);
            let margins = levels.iter().zip(&mask).map(|(level, &member)| {
                level + 2.0 * f64::from(u8::from(member)) + normal(&mut rng)
            });
            (margins.collect::<Vec<f64>>(), mask)
        };
        let (all, masks): (Vec<_>, Vec<_>) = (0..32).map(|_| draw()).unzip();
        let (target, members) = draw();
        let models = Models {
            margins: &all,
            masks: &masks,
        };
        for (mode, least) in [(Mode::Online, 0.90), (Mode::Offline, 0.88)] {
            let found = models.scores(&target, mode, None);
            let auc = Scored::of(&found, &members).auc();
            assert!((least..0.94).contains(&auc), "{mode:?} {auc}");
            let shadow = models.judged(mode).auc();
            assert!((auc - shadow).abs() < 0.03, "{auc} {shadow}");
        }
        let plain = Scored::of(&target, &members).auc();
        assert!(plain < 0.56, "{plain}");
    }
}
