//! What countermeasures in training cost and bring: weight decay, early stopping and
//! DP-SGD, each beside the same network without them.
//!
//! The attack is the threshold on the margin of the true class ([`super::threshold`]),
//! with two shadow models that are trained the same way, defence included. All of these
//! countermeasures act before encryption, and the encrypted network has as many layers
//! and weights as before, so that an inference takes the same operations;
//! `seconds_per_query` is the time of one run, beside which others vary.
//!
//! Members are those that training saw: not what early stopping keeps aside.

use std::time::Instant;

use super::defence::{Defence, selected};
use super::{
    ACCESS, Baselines, Scored, Setting, Subject, controls, each_subject_of, findings, logits_of,
    margins,
};
use crate::attack::{Attack, AttackError, Context, Control, params};
use crate::dp_sgd::Private;
use crate::extraction::exactly;
use crate::plain::classes;
use crate::record::{Finding, Scale};
use crate::stats::agreement;
use crate::target::{Activation, Evaluation, Grants, Rows};

/// Shadow models.
const SHADOWS: usize = 2;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Countermeasures;

impl Defence {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::EarlyStopping => "early stopping",
            Self::Private(_) => "DP-SGD",
        }
    }
}

/// DP-SGD with this noise, in units of the clipping norm.
pub(super) const fn private(name: &'static str, noise: f64, scale: Scale) -> Setting {
    let steps = match scale {
        Scale::Quick => 100,
        Scale::Full => 600,
    };
    Setting {
        name,
        defence: Defence::Private(Private {
            rate: 0.05,
            steps,
            clip: 1.0,
            noise,
            learning_rate: 5e-3,
            delta: 1e-4,
        }),
        ..undefended(scale)
    }
}

/// An overfitted network with squares.
const fn undefended(scale: Scale) -> Setting {
    let (pool, hidden) = match scale {
        Scale::Quick => (600, 32),
        Scale::Full => (4000, 64),
    };
    Setting {
        name: "undefended",
        pool,
        hidden,
        activation: Activation::Polynomial,
        epochs: 40,
        weight_decay: 0.0,
        defence: Defence::None,
    }
}

/// The subject with the samples of its pool that the attack is judged on.
fn judged(subject: &Subject) -> Subject {
    let kept = subject.setting.judged(&subject.members);
    Subject {
        pool: subject.pool.masked(&kept),
        members: selected(&subject.members, &kept),
        ..subject.clone()
    }
}

/// One network per countermeasure.
fn settings(scale: Scale) -> Vec<Setting> {
    let none = undefended(scale);
    let decayed = |name, weight_decay| Setting {
        name,
        weight_decay,
        ..none
    };
    let stopped = Setting {
        name: "early stopping",
        defence: Defence::EarlyStopping,
        ..none
    };
    let mut all = vec![none, decayed("weight decay 10", 10.0), stopped];
    match scale {
        Scale::Quick => all.push(private("DP-SGD, noise 2", 2.0, scale)),
        Scale::Full => all.extend([
            decayed("weight decay 1", 1.0),
            private("DP-SGD, noise 1", 1.0, scale),
            private("DP-SGD, noise 4", 4.0, scale),
        ]),
    }
    all
}

impl Attack for Countermeasures {
    fn name(&self) -> &'static str {
        "membership-countermeasures"
    }

    fn about(&self) -> &'static str {
        "membership by a threshold, against weight decay, early stopping and DP-SGD"
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
            |_| {},
            |case, subject, shadows| {
                // Every query is evaluated alone there, and says the same.
                if case.sparing() {
                    return Ok(());
                }
                let setting = &subject.setting;
                let of_step = params([
                    ("defence", setting.defence.name().into()),
                    ("weight_decay", setting.weight_decay.into()),
                    ("shadows", SHADOWS.into()),
                    ("members", (subject.pool.len() / 2).into()),
                ]);
                case.step(of_step, |case| {
                    let subject = &judged(subject);
                    if shadows.is_none() {
                        let masks = subject.masks_over(subject.shadow.len(), SHADOWS);
                        let samples = &subject.shadow;
                        let networks = setting.shadows(samples, &masks, subject.seed)?;
                        let own = logits_of(&networks, &samples.inputs)?;
                        let blind = networks[0].evaluate(&subject.pool.inputs, super::BATCH)?;
                        *shadows = Some((own, masks, blind));
                    }
                    let Some((own, masks, blind)) = &*shadows else {
                        return Ok(Vec::new());
                    };
                    let logits = case.target.scores(&subject.pool.inputs)?;
                    let found = margins(&logits, &subject.pool.labels);
                    let found = Scored::of(&found, &subject.members);
                    let mut shadow = Scored::default();
                    for (logits, mask) in own.iter().zip(masks) {
                        let kept = setting.judged(mask);
                        let margins = margins(logits, &subject.shadow.labels);
                        shadow.extend(&selected(&margins, &kept), &selected(mask, &kept));
                    }
                    let baselines = Baselines::new(subject, &logits, blind);
                    let mut all = findings(&found, &shadow, baselines, subject.seed);
                    let test = &case.data.test;
                    let count = test.images.len().min(2000);
                    let images = Rows::images(&test.images[..count]);
                    let start = Instant::now();
                    let answers = case.target.scores(&images)?;
                    let seconds = start.elapsed().as_secs_f64() / count.max(1) as f64;
                    let accuracy = agreement(&classes(&answers), &test.labels[..count]);
                    all.push(Finding::new("test_accuracy", accuracy));
                    if case.target.about().evaluation != Evaluation::Clear {
                        let time = Finding::new("seconds_per_query", exactly(seconds));
                        all.push(time.remark("of one run: the interval is none"));
                    }
                    if let Defence::Private(private) = setting.defence {
                        let remark = format!("proved for delta {}", private.delta);
                        let epsilon = Finding::new("epsilon", exactly(private.epsilon()));
                        all.push(epsilon.remark(&remark));
                    }
                    Ok(all)
                })
            },
        )
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(|subject, logits, broken| {
            let mut scores = margins(logits, &subject.pool.labels);
            if broken {
                scores.iter_mut().for_each(|score| *score = -*score);
            }
            Ok(scores)
        })
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha8Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::synthetic;
    use crate::target::Target;

    /// AUC of the threshold attack on noise that an undefended network learns by heart.
    fn auc(setting: Setting) -> f64 {
        let setting = Setting {
            pool: 100,
            hidden: 32,
            epochs: 20,
            ..setting
        };
        let subject = Subject::new(setting, &synthetic::noise(400, 2), 2);
        let mut target = subject.target("noise");
        let subject = judged(&subject);
        let logits = target.observe(&subject.pool.inputs, ACCESS).unwrap().scores;
        let scores = margins(&logits, &subject.pool.labels);
        Scored::of(&scores, &subject.members).auc()
    }

    #[test]
    fn countermeasures_lower_what_membership_inference_gains() {
        let without = auc(undefended(Scale::Quick));
        assert!(without > 0.9, "{without}");
        let stopped = Setting {
            defence: Defence::EarlyStopping,
            ..undefended(Scale::Quick)
        };
        let stopped = auc(stopped);
        assert!(stopped < without, "{stopped}");
        let private = auc(private("x", 4.0, Scale::Quick));
        assert!(private < 0.7, "{private}");
    }

    #[test]
    fn seeds_of_defences_are_reproducible() {
        let setting = private("x", 1.0, Scale::Quick);
        let data = synthetic::noise(40, 1);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mask = crate::membership::random_half(40, &mut rng);
        let samples = crate::membership::Samples::of(&data, &(0..40).collect::<Vec<_>>());
        let network = |seed| setting.fitted(&samples.masked(&mask), seed).unwrap();
        assert_eq!(network(1), network(1));
        assert_ne!(network(1), network(2));
    }
}
