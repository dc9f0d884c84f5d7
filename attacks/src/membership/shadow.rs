//! Shadow models (Shokri et al. 2017; Shin, Choi, Choi 2021, Tables 6 and 7).
//!
//! The attacker trains 2, 4 or 8 models of the target's kind on his own data, of which
//! he knows who is in, and learns per class from their outputs to tell members from
//! others: a logistic regression on the sorted outputs. `train` is how well it does on
//! the shadow models' outputs, `test` on the target's. He looks at the logits as they
//! come, or at the logarithms of a softmax of his own.

use candle_core::{Device, Tensor};
use he_nn::data::CLASSES;
use he_nn::model::Shape;
use he_nn::train::LayerSpec;
use rayon::prelude::*;

use super::{
    ACCESS, Baselines, MARGIN, Samples, Scored, Subject, controls, each_subject, findings,
    log_sum_exp, logits_of, seed_of,
};
use crate::attack::{Attack, AttackError, Context, Control, params};
use crate::network::Differentiable;
use crate::paper::{SHIN_6, SHIN_7, Table, figure};
use crate::record::Finding;
use crate::stats::wilson;
use crate::target::{Activation, Grants, Rows};
use crate::trainer::{Goal, Training, train};

/// Stream of seeds for the attack models.
const ATTACK_MODEL: u64 = 500;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Shadow;

/// What the attacker learns from one share of his data, however the target is evaluated.
#[derive(Default)]
struct Trained {
    /// Logits of shadow models on their samples, and those of one of them on the pool.
    logits: Option<(Vec<Rows>, Rows)>,
    /// Attack models by shadow models and outputs, with their scores of what taught them.
    models: Vec<((usize, Outputs), AttackModel, Scored)>,
}

impl Trained {
    /// The attack model of the first `shadows`, and its scores of what taught it.
    fn model(
        &mut self,
        subject: &Subject,
        samples: &Samples,
        masks: &[Vec<bool>],
        (shadows, outputs): (usize, Outputs),
    ) -> Result<(&AttackModel, &Scored, &Rows), AttackError> {
        if self.logits.is_none() {
            let networks = subject.setting.shadows(samples, masks, subject.seed)?;
            let blind = networks[0].evaluate(&subject.pool.inputs, super::BATCH)?;
            self.logits = Some((logits_of(&networks, &samples.inputs)?, blind));
        }
        let (all, blind) = self.logits.get_or_insert_default();
        let key = (shadows, outputs);
        let at = match self.models.iter().position(|(of, ..)| *of == key) {
            Some(at) => at,
            None => {
                let known: Vec<(Rows, &[u8], &[bool])> = all[..shadows]
                    .iter()
                    .zip(masks)
                    .map(|(rows, mask)| (rows.clone(), &samples.labels[..], &mask[..]))
                    .collect();
                let model = AttackModel::fitted(&known, outputs, subject.seed)?;
                let mut scored = Scored::default();
                for (rows, labels, mask) in &known {
                    scored.extend(&model.scores(rows, labels)?, mask);
                }
                self.models.push((key, model, scored));
                self.models.len() - 1
            }
        };
        let (_, model, scored) = &self.models[at];
        Ok((model, scored, blind))
    }
}

/// What the attack models see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outputs {
    Logits,
    Softmax,
}

/// Sorted outputs, the largest first.
fn features(logits: &[f64], outputs: Outputs) -> Vec<f64> {
    let mut row = logits.to_vec();
    row.sort_by(|a, b| b.total_cmp(a));
    if outputs == Outputs::Softmax {
        let total = log_sum_exp(row.iter().copied());
        row.iter_mut().for_each(|z| *z -= total);
    }
    row
}

/// A logistic regression per class.
struct AttackModel {
    classes: Vec<Option<Regression>>,
    outputs: Outputs,
}

/// One of them, with what standardises its inputs.
struct Regression {
    means: Vec<f64>,
    deviations: Vec<f64>,
    network: Differentiable,
}

impl Regression {
    fn fitted(rows: &[Vec<f64>], members: &[u8], seed: u64) -> Result<Self, AttackError> {
        let width = rows[0].len();
        let count = rows.len() as f64;
        let mean = |of: &dyn Fn(&[f64]) -> f64| rows.iter().map(|r| of(r)).sum::<f64>() / count;
        let means: Vec<f64> = (0..width).map(|i| mean(&|r| r[i])).collect();
        let deviations = (0..width)
            .map(|i| mean(&|r| (r[i] - means[i]).powi(2)).sqrt().max(1e-9))
            .collect();
        let shape = Shape::flat(width as u16);
        let mut regression = Self {
            means,
            deviations,
            network: Differentiable::untrained(shape, &[LayerSpec::Dense(2)], seed)?,
        };
        let inputs = regression.standardised(rows.iter().map(Vec::as_slice));
        let training = Training {
            epochs: 60,
            // At most eight steps per epoch: their number decides the time, and what is
            // convex needs no noise.
            batch: rows.len().div_ceil(8).max(64),
            learning_rate: 1e-2,
            weight_decay: 1e-3,
            clip: None,
            seed,
        };
        let goal = Goal::Labels(members);
        train(&regression.network, &inputs, goal, &training, &mut ())?;
        regression.network = regression.network.precise()?;
        Ok(regression)
    }

    fn standardised<'r>(&self, rows: impl Iterator<Item = &'r [f64]>) -> Rows {
        let scaled = rows.flat_map(|row| {
            let terms = row.iter().zip(&self.means).zip(&self.deviations);
            terms.map(|((x, mean), deviation)| (x - mean) / deviation)
        });
        Rows::new(self.means.len(), scaled.collect())
    }

    /// Logarithm of the odds that it is a member.
    fn score(&self, row: &[f64]) -> Result<f64, AttackError> {
        let input = self.standardised(std::iter::once(row));
        let batch = Tensor::from_slice(input.values(), (1, row.len()), &Device::Cpu)?;
        let out = self.network.forward(&batch)?.flatten_all()?;
        let out = out.to_vec1::<f64>()?;
        Ok(out[1] - out[0])
    }
}

impl AttackModel {
    /// Learns from outputs of which it is known who is a member.
    fn fitted(
        known: &[(Rows, &[u8], &[bool])],
        outputs: Outputs,
        seed: u64,
    ) -> Result<Self, AttackError> {
        let classes = (0..CLASSES).into_par_iter().map(|class| {
            let (mut rows, mut members) = (Vec::new(), Vec::new());
            for (logits, labels, mask) in known {
                for ((row, &label), &member) in logits.iter().zip(*labels).zip(*mask) {
                    if usize::from(label) == class {
                        rows.push(features(row, outputs));
                        members.push(u8::from(member));
                    }
                }
            }
            if rows.is_empty() {
                return Ok(None);
            }
            let seed = seed_of(seed, ATTACK_MODEL + class as u64);
            Regression::fitted(&rows, &members, seed).map(Some)
        });
        Ok(Self {
            classes: classes.collect::<Result<_, AttackError>>()?,
            outputs,
        })
    }

    /// Scores above 0 call a member. A class that the attacker never saw scores 0.
    fn scores(&self, logits: &Rows, labels: &[u8]) -> Result<Vec<f64>, AttackError> {
        let rows = logits.iter().zip(labels);
        let scores = rows.map(|(row, &label)| {
            let model = self.classes.get(usize::from(label));
            let row = features(row, self.outputs);
            model
                .and_then(Option::as_ref)
                .map_or(Ok(0.0), |model| model.score(&row))
        });
        scores.collect()
    }
}

impl Attack for Shadow {
    fn name(&self) -> &'static str {
        "membership-shadow"
    }

    fn about(&self) -> &'static str {
        "membership learned from the outputs of 2, 4 and 8 shadow models"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn tables(&self) -> &'static [Table] {
        &[SHIN_6, SHIN_7]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        each_subject(self, context, |case, subject, all| {
            let of_shares: &mut [Trained; 3] = all.get_or_insert_with(Default::default);
            let shares = [(1.0, "base"), (0.5, "half"), (0.2, "20 %")];
            for ((share, column), trained) in shares.into_iter().zip(of_shares) {
                let count = (subject.shadow.len() as f64 * share) as usize;
                let samples = subject.shadow.first(count.max(2));
                let masks = subject.masks_over(samples.len(), 8);
                for (shadows, outputs, name) in [2, 4, 8].into_iter().flat_map(|count| {
                    [
                        (count, Outputs::Logits, "logits"),
                        (count, Outputs::Softmax, "softmax"),
                    ]
                }) {
                    let of_step = params([
                        ("shadows", shadows.into()),
                        ("data", column.into()),
                        ("samples", samples.len().into()),
                        ("outputs", name.into()),
                    ]);
                    case.step(of_step, |case| {
                        let asked = (shadows, outputs);
                        let (model, shadow, blind) =
                            trained.model(subject, &samples, &masks, asked)?;
                        let logits = case.target.scores(&subject.pool.inputs)?;
                        let found = model.scores(&logits, &subject.pool.labels)?;
                        let found = Scored::of(&found, &subject.members);
                        let table = if case.data.name == "fashion-mnist" {
                            SHIN_7
                        } else {
                            SHIN_6
                        };
                        let known_data = case.data.name.ends_with("mnist");
                        let polynomial = subject.setting.activation == Activation::Polynomial;
                        let paper = |phase: &str, metric: &str| {
                            let row = format!("{shadows} shadows, {column}, {phase}");
                            figure(table, &row, metric).filter(|_| known_data && polynomial)
                        };
                        let baselines = Baselines::new(subject, &logits, blind);
                        let mut out = findings(&found, shadow, baselines, subject.seed);
                        out.extend(phase("train", shadow, &paper));
                        out.extend(phase("test", &found, &paper));
                        Ok(out)
                    })?;
                }
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(with_two)
    }
}

/// Accuracy, recall and precision as the paper's tables have them.
fn phase(name: &str, scored: &Scored, paper: &dyn Fn(&str, &str) -> Option<f64>) -> [Finding; 3] {
    let above = |scores: &[f64]| scores.iter().filter(|&&s| s > 0.0).count();
    let (hits, alarms) = (above(&scored.members), above(&scored.others));
    let (members, others) = (scored.members.len(), scored.others.len());
    let finding = |metric: &str, estimate| {
        Finding::new(&format!("{name}_{metric}"), estimate).paper(paper(name, metric))
    };
    let right = wilson(hits + others - alarms, members + others);
    [
        finding("accuracy", right)
            .baseline("chance", 0.5)
            .succeeds_above(0.5, MARGIN),
        finding("recall", wilson(hits, members)),
        finding("precision", wilson(hits, hits + alarms)).baseline("chance", 0.5),
    ]
}

/// Two shadow models; broken, the attack model learns the opposite.
fn with_two(subject: &Subject, logits: &Rows, broken: bool) -> Result<Vec<f64>, AttackError> {
    let masks = subject.masks(2);
    let samples = &subject.shadow;
    let networks = subject.setting.shadows(samples, &masks, subject.seed)?;
    let all = logits_of(&networks, &samples.inputs)?;
    let mut taught = masks;
    if broken {
        // Members are taught as others, and others as members.
        taught
            .iter_mut()
            .flatten()
            .for_each(|member| *member = !*member);
    }
    let known: Vec<(Rows, &[u8], &[bool])> = all
        .into_iter()
        .zip(&taught)
        .map(|(rows, mask)| (rows, &samples.labels[..], &mask[..]))
        .collect();
    let model = AttackModel::fitted(&known, Outputs::Softmax, subject.seed)?;
    model.scores(logits, &subject.pool.labels)
}
