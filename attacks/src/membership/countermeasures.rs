//! What countermeasures in training cost and bring: weight decay, early stopping and
//! DP-SGD, each beside the same network without them.
//!
//! Two attacks, whose shadow models are trained as the target is, defence included: the
//! threshold on the margin of the true class ([`super::threshold`]), of two models; and
//! offline LiRA ([`super::lira`]), of 8 or 16 on random halves of the target's own pool,
//! whose figures begin with `lira`. All of these countermeasures act before encryption, and
//! the encrypted network has as many layers and weights as before, so that an inference
//! takes the same operations; `seconds_per_query` is the time of one run, beside which
//! others vary.
//!
//! Members are those that training saw: not what early stopping keeps aside.

use std::time::Instant;

use super::defence::{Defence, selected};
use super::lira::{Mode, Models};
use super::{
    ACCESS, Baselines, MARGIN, Scored, Setting, Subject, controls, each_subject_of, findings,
    logits_of, margins,
};
use crate::attack::{Attack, AttackError, Context, Control, params};
use crate::dp_sgd::Private;
use crate::extraction::exactly;
use crate::plain::classes;
use crate::record::{Finding, Scale};
use crate::stats::{agreement, auc_estimate, rate_above, threshold_at};
use crate::target::{Activation, Evaluation, Grants, Rows};

/// Shadow models of the threshold.
const SHADOWS: usize = 2;

/// The false positive rate at which LiRA's true positive rate is stated.
const RATE: f64 = 0.01;

/// What the attacker trains against one subject: the threshold's shadow models with their
/// masks, a network that has nothing to do with the target, and LiRA's models.
struct Trained {
    own: Vec<Rows>,
    masks: Vec<Vec<bool>>,
    blind: Rows,
    lira: Likelihoods,
}

impl Trained {
    /// `whole` is the subject with its whole pool, `subject` what is judged of it.
    fn new(whole: &Subject, subject: &Subject, models: usize) -> Result<Self, AttackError> {
        let setting = &subject.setting;
        let samples = &subject.shadow;
        let masks = subject.masks_over(samples.len(), SHADOWS);
        let networks = setting.shadows(samples, &masks, subject.seed)?;
        Ok(Self {
            own: logits_of(&networks, &samples.inputs)?,
            blind: networks[0].evaluate(&subject.pool.inputs, super::BATCH)?,
            masks,
            lira: Likelihoods::new(whole, subject, models)?,
        })
    }
}

/// Shadow models on halves of the target's own pool, with the target's defence.
struct Likelihoods {
    /// On what is judged, a list per model.
    margins: Vec<Vec<f64>>,
    masks: Vec<Vec<bool>>,
}

impl Likelihoods {
    fn new(whole: &Subject, judged: &Subject, models: usize) -> Result<Self, AttackError> {
        let masks = whole.masks(models);
        let networks = whole.setting.shadows(&whole.pool, &masks, whole.seed)?;
        let logits = logits_of(&networks, &judged.pool.inputs)?;
        let margins = logits.iter().map(|l| margins(l, &judged.pool.labels));
        let kept = whole.setting.judged(&whole.members);
        Ok(Self {
            margins: margins.collect(),
            masks: masks.iter().map(|mask| selected(mask, &kept)).collect(),
        })
    }

    fn models(&self) -> Models<'_> {
        Models {
            margins: &self.margins,
            masks: &self.masks,
        }
    }

    /// Of each sample, against a target with these margins.
    fn scores(&self, target: &[f64]) -> Vec<f64> {
        self.models().scores(target, Mode::Offline, None)
    }

    /// AUC and true positive rate against a target with these margins.
    fn findings(&self, target: &[f64], judged: &Subject, baselines: Baselines) -> Vec<Finding> {
        let found = Scored::of(&self.scores(target), &judged.members);
        let shadow = self.models().judged(Mode::Offline);
        let threshold = threshold_at(&shadow.others, RATE);
        let came_out = rate_above(&found.others, threshold);
        let auc = auc_estimate(&found.members, &found.others, judged.seed);
        vec![
            Finding::new("lira_auc", auc)
                .baseline("chance", 0.5)
                .baseline("gap", baselines.gap)
                .baseline("blind", baselines.blind)
                .succeeds_above(0.5, MARGIN),
            Finding::new(
                "lira_tpr_at_fpr_1_percent",
                rate_above(&found.members, threshold),
            )
            .baseline("chance", RATE)
            .baseline("fpr_that_came_out", came_out.value)
            .succeeds_above(RATE.max(came_out.ci95[1]), 0.0),
        ]
    }
}

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

/// Scores of an attack, or their opposites where it is broken on purpose.
fn turned(scores: Vec<f64>, broken: bool) -> Vec<f64> {
    let sign = if broken { -1.0 } else { 1.0 };
    scores.into_iter().map(|score| sign * score).collect()
}

/// Names of the targets that a run of this scale has behind encryption with weights in
/// plain, on each data set; the first is without a countermeasure.
#[must_use]
pub fn encrypted_targets(scale: Scale) -> Vec<String> {
    let all = settings(scale).into_iter();
    all.map(|setting| format!("{} square, encrypted", setting.name))
        .collect()
}

impl Attack for Countermeasures {
    fn name(&self) -> &'static str {
        "membership-countermeasures"
    }

    fn about(&self) -> &'static str {
        "membership by a threshold and by LiRA, against weight decay, early stopping and DP-SGD"
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
            |case, subject, trained: &mut Option<Trained>| {
                // Every query is evaluated alone there, and says the same.
                if case.sparing() {
                    return Ok(());
                }
                let setting = &subject.setting;
                let models = case.run.by_scale(8, 16);
                let of_step = params([
                    ("defence", setting.defence.name().into()),
                    ("weight_decay", setting.weight_decay.into()),
                    ("shadows", SHADOWS.into()),
                    ("lira_shadows", models.into()),
                    ("members", (subject.pool.len() / 2).into()),
                ]);
                case.step(of_step, |case| {
                    let whole = subject;
                    let subject = &judged(whole);
                    let trained = match trained {
                        Some(trained) => trained,
                        none => none.insert(Trained::new(whole, subject, models)?),
                    };
                    let Trained {
                        own,
                        masks,
                        blind,
                        lira,
                    } = trained;
                    let logits = case.target.scores(&subject.pool.inputs)?;
                    let target = margins(&logits, &subject.pool.labels);
                    let found = Scored::of(&target, &subject.members);
                    let mut shadow = Scored::default();
                    for (logits, mask) in own.iter().zip(&*masks) {
                        let kept = setting.judged(mask);
                        let margins = margins(logits, &subject.shadow.labels);
                        shadow.extend(&selected(&margins, &kept), &selected(mask, &kept));
                    }
                    let baselines = Baselines::new(subject, &logits, blind);
                    let mut all = findings(&found, &shadow, baselines, subject.seed);
                    all.extend(lira.findings(&target, subject, baselines));
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
        let mut all = controls(|subject, logits, broken| {
            Ok(turned(margins(logits, &subject.pool.labels), broken))
        });
        let lira = controls(|subject, logits, broken| {
            let likelihoods = Likelihoods::new(subject, subject, 8)?;
            let target = margins(logits, &subject.pool.labels);
            Ok(turned(likelihoods.scores(&target), broken))
        });
        let names = [
            "LiRA: members learned by heart",
            "LiRA: trained on others",
            "LiRA: broken on purpose",
        ];
        let named = lira.into_iter().zip(names);
        all.extend(named.map(|(control, name)| Control { name, ..control }));
        all
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

    /// LiRA's AUC, on a target that had its members or, with `stranger`, had others.
    fn lira(setting: Setting, stranger: bool) -> f64 {
        let setting = Setting {
            pool: 100,
            hidden: 32,
            epochs: 20,
            ..setting
        };
        let whole = Subject::new(setting, &synthetic::noise(400, 2), 2);
        let mut target = whole.target("noise");
        if stranger {
            target.members = whole.population.first(whole.pool.len() / 2);
        }
        let subject = judged(&whole);
        let logits = target.observe(&subject.pool.inputs, ACCESS).unwrap().scores;
        let likelihoods = Likelihoods::new(&whole, &subject, 8).unwrap();
        let margins = margins(&logits, &subject.pool.labels);
        let baselines = Baselines::new(&subject, &logits, &logits);
        let found = likelihoods.findings(&margins, &subject, baselines);
        let metrics: Vec<&str> = found.iter().map(Finding::metric).collect();
        assert_eq!(metrics, ["lira_auc", "lira_tpr_at_fpr_1_percent"]);
        found[0].value().unwrap()
    }

    #[test]
    fn countermeasures_lower_what_lira_gains() {
        let none = undefended(Scale::Quick);
        let without = lira(none, false);
        assert!(without > 0.9, "{without}");
        // A target that had none of them gives nothing, with a defence or without.
        let stranger = lira(none, true);
        assert!((0.35..0.65).contains(&stranger), "{stranger}");
        let stopped = Setting {
            defence: Defence::EarlyStopping,
            ..none
        };
        let stopped = lira(stopped, false);
        assert!(stopped < without - 0.1, "{stopped} {without}");
        let private = lira(private("x", 4.0, Scale::Quick), false);
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
