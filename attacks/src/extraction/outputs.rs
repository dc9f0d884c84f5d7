//! What a service does to its outputs, and what that does to extraction.
//!
//! Two tables per target: the error of the exact extraction ([`super::exact`]) against
//! the step to which logits are rounded, with queries in range and thirty times beyond
//! it; and against a budget of queries, where the attacker who cannot finish trains a
//! surrogate on as many answers ([`super::surrogate`]). The noise of the logits, which
//! encryption adds by itself, stands beside them. What labels alone give is
//! [`super::exact_labels`] and the surrogate from labels.
//!
//! An answer once given is kept, so that every step of rounding sees the same answers
//! and an encrypted service is asked once. Each row counts the queries that an attacker
//! with that row alone would need.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::exact::{
    ACCESS, MOST, Method, Tried, exactly, largest_difference, majority, not_quadratic, tried,
};
use super::surrogate::{self, Queries};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::network::Differentiable;
use crate::plain::{Plain, classes};
use crate::random;
use crate::record::{Finding, Picture, Verdict};
use crate::stats::agreement;
use crate::target::{About, Access, Activation, Answers, Grants, Rows, Target, TargetError, View};

use chacha20::ChaCha8Rng;
use he_nn::model::Shape;
use he_nn::train::LayerSpec;
use rand_core::SeedableRng;

/// Lengths of the queries: in range, and far beyond it.
const RADII: [f64; 2] = [1.0, 30.0];

/// Queries that are asked twice to measure the noise.
const TWICE: usize = 100;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Outputs;

/// Answers by a digest of their query.
type Known = HashMap<u64, Vec<f64>>;

/// A service whose answers are kept.
struct Kept<'k, 't> {
    about: About,
    target: &'k mut View<'t>,
    known: &'k mut Known,
}

fn digest(query: &[f64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    query.iter().for_each(|x| x.to_bits().hash(&mut hasher));
    hasher.finish()
}

impl Target for Kept<'_, '_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        ACCESS
    }

    fn observe(&mut self, queries: &Rows, _: Grants) -> Result<Answers, TargetError> {
        let digests: Vec<u64> = queries.iter().map(digest).collect();
        let unknown = |&i: &usize| !self.known.contains_key(&digests[i]);
        let new: Vec<usize> = (0..queries.len()).filter(unknown).collect();
        if !new.is_empty() {
            let answers = self.target.scores(&queries.select(&new))?;
            for (i, answer) in new.into_iter().zip(answers.iter()) {
                self.known.insert(digests[i], answer.to_vec());
            }
        }
        let scores = digests.iter().flat_map(|d| self.known[d].iter().copied());
        Ok(Answers {
            scores: Rows::new(self.about.classes, scores.collect()),
            ..Answers::default()
        })
    }
}

/// Digits after the point and lengths of queries; those without rounding first, as they
/// show whether the attack applies.
fn roundings(quick: bool) -> Vec<(Option<i32>, f64)> {
    let decimals: &[i32] = match quick {
        true => &[3, 1],
        false => &[6, 5, 4, 3, 2, 1, 0],
    };
    let whole = RADII.map(|radius| (None, radius));
    let rounded = RADII.into_iter().flat_map(|radius| {
        let decimals = decimals.iter();
        decimals.map(move |&digits| (Some(digits), radius))
    });
    whole.into_iter().chain(rounded).collect()
}

/// Standard deviation of what the same query is answered with.
fn noise(target: &mut View<'_>, images: &Rows) -> Result<f64, AttackError> {
    let few = images.select(&(0..images.len().min(TWICE)).collect::<Vec<_>>());
    let [a, b] = [target.scores(&few)?, target.scores(&few)?];
    let squares = a
        .values()
        .iter()
        .zip(b.values())
        .map(|(a, b)| (a - b).powi(2));
    Ok((squares.sum::<f64>() / (2.0 * a.values().len().max(1) as f64)).sqrt())
}

/// The table of roundings; false where the attack does not apply.
fn rounded(
    case: &mut Case<'_, '_>,
    known: &mut Known,
    images: &Rows,
    quick: bool,
) -> Result<bool, AttackError> {
    let mut curves = RADII.map(|radius| (format!("queries of length {radius}"), Vec::new()));
    let (mut hidden, mut measured) = (0, None);
    for (decimals, radius) in roundings(quick) {
        let of_step = params([
            ("output", "scores".into()),
            ("decimals", decimals.into()),
            ("radius", radius.into()),
            ("samples", images.len().into()),
        ]);
        let mut error = None;
        case.step(of_step, |case| {
            let (seed, about) = (case.run.seed, case.target.about().clone());
            let method = Method {
                radius,
                decimals,
                budget: MOST,
                broken: false,
            };
            let labels = &case.data.test.labels[..images.len()];
            let mut kept = Kept {
                about: about.clone(),
                target: &mut case.target,
                known,
            };
            let mut view = View::new(&mut kept, ACCESS);
            match tried(&mut view, method, (images, labels), seed)? {
                Tried::Findings(mut findings) => {
                    error = findings
                        .iter()
                        .find(|finding| finding.metric() == "largest_logit_difference")
                        .and_then(Finding::value);
                    let noise = match measured {
                        Some(noise) => noise,
                        None => *measured.insert(noise(&mut case.target, images)?),
                    };
                    findings.push(Finding::new("noise", exactly(noise)));
                    Ok(findings)
                }
                Tried::NotQuadratic(share) if decimals.is_none() => {
                    hidden += 1;
                    Ok(vec![not_quadratic(&about.name, share)])
                }
                Tried::NotQuadratic(share) => Ok(vec![
                    Finding::new("third_difference_over_second", exactly(share)).verdict(
                        Verdict::Failure,
                        "rounding hides that the scores are quadratic",
                    ),
                ]),
                Tried::Budget(used) => Ok(vec![
                    Finding::new("attack_queries", exactly(used as f64))
                        .remark("no span was found within so many queries"),
                ]),
            }
        })?;
        if hidden == RADII.len() {
            return Ok(false);
        }
        let curve = curves.iter_mut().zip(RADII).find(|(_, r)| *r == radius);
        if let (Some((curve, _)), Some(error), Some(decimals)) = (curve, error, decimals) {
            curve.1.push((10f64.powi(-decimals), error));
        }
    }
    // Where some steps were recorded before, the picture was drawn then.
    if curves.iter().all(|(_, points)| points.len() > 1) {
        let title = format!(
            "extraction-outputs-{}-{}",
            case.target.about().name,
            case.data.name
        );
        let picture = Picture::Curves {
            x: "rounding step of the logits".into(),
            y: "largest error of an extracted logit".into(),
            logarithmic: true,
            curves: curves.to_vec(),
        };
        case.run.picture(&title, &picture)?;
    }
    Ok(true)
}

/// The table of budgets.
fn budgets(
    case: &mut Case<'_, '_>,
    known: &mut Known,
    images: &Rows,
    natural: &Rows,
) -> Result<(), AttackError> {
    let all = case.run.by_scale(
        &[500, 8000][..],
        &[500, 1000, 2000, 4000, 8000, 12_000, 16_000],
    );
    for &budget in all {
        let of_step = params([
            ("output", "budget".into()),
            ("budget", budget.into()),
            ("samples", images.len().into()),
        ]);
        case.step(of_step, |case| {
            let (seed, about) = (case.run.seed, case.target.about().clone());
            let method = Method {
                radius: 1.0,
                decimals: None,
                budget: budget as u64,
                broken: false,
            };
            let labels = &case.data.test.labels[..images.len()];
            let activation = about.activation;
            let mut kept = Kept {
                about,
                target: &mut case.target,
                known,
            };
            let mut view = View::new(&mut kept, ACCESS);
            let exact = tried(&mut view, method, (images, labels), seed)?;
            if let Tried::Findings(mut findings) = exact {
                findings.push(Finding::new("exact", exactly(1.0)));
                return Ok(findings);
            }
            let method = surrogate::Method {
                logits: true,
                queries: Queries::Natural,
                activation,
                budget,
                seed,
                broken: false,
            };
            let network = method.extract(&mut view, natural)?;
            let found = network.evaluate(images, surrogate::BATCH)?;
            let truth = view.scores(images)?;
            let (own, labels) = (classes(&found), classes(&truth));
            let majority = majority(&labels);
            Ok(vec![
                Finding::new("agreement", agreement(&own, &labels))
                    .baseline("majority", majority)
                    .succeeds_above(majority, 0.0),
                Finding::new(
                    "largest_logit_difference",
                    exactly(largest_difference(&found, &truth)),
                ),
                Finding::new("attack_queries", exactly(budget.min(natural.len()) as f64)),
                Finding::new("exact", exactly(0.0))
                    .remark("the budget ends before an exact extraction: a surrogate"),
            ])
        })?;
    }
    Ok(())
}

impl Attack for Outputs {
    fn name(&self) -> &'static str {
        "extraction-outputs"
    }

    fn about(&self) -> &'static str {
        "what rounding, noise and query budgets do to the extraction of one square"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            // Encrypted, the table takes minutes per network: a quick run leaves it to the
            // rows of extraction-exact.
            if case.one_sample() {
                return Ok(());
            }
            let test = &case.data.test.images;
            let kept = (test.len() / 2).min(case.run.by_scale(500, 2000));
            let (judge, natural) = test.split_at(kept);
            let (judge, natural) = (Rows::images(judge), Rows::images(natural));
            let mut known = Known::new();
            let quick = case.run.by_scale(true, false);
            if rounded(case, &mut known, &judge, quick)? {
                budgets(case, &mut known, &judge, &natural)?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 0.1;
        let control = |name, must, decimals: i32, radius: f64, broken: bool| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let value = rounded_error(decimals, radius, broken, seed)?;
                Ok(Outcome {
                    succeeded: value < BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control("four digits", Must::Succeed, 4, 1.0, false),
            control("one digit", Must::Fail, 1, 1.0, false),
            control("one digit, longer queries", Must::Succeed, 1, 300.0, false),
            control("broken on purpose", Must::Fail, 4, 1.0, true),
        ]
    }
}

/// Largest error of a logit extracted from a random network that rounds.
fn rounded_error(decimals: i32, radius: f64, broken: bool, seed: u64) -> Result<f64, AttackError> {
    let layers = [LayerSpec::Dense(5), LayerSpec::Square, LayerSpec::Dense(10)];
    let network = Differentiable::untrained(Shape::flat(20), &layers, seed)?.precise()?;
    let mut target = Plain::new("random", "random", Activation::Polynomial, network);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
    let samples = (0..20 * 50).map(|_| random::uniform(&mut rng)).collect();
    let samples = Rows::new(20, samples);
    let mut view = View::new(&mut target, Grants::of(&[Access::Scores]));
    let method = Method {
        radius,
        decimals: Some(decimals),
        budget: MOST,
        broken,
    };
    let labels = classes(&view.scores(&samples)?);
    let mut known = Known::new();
    let mut kept = Kept {
        about: view.about().clone(),
        target: &mut view,
        known: &mut known,
    };
    let mut kept = View::new(&mut kept, ACCESS);
    let Tried::Findings(findings) = tried(&mut kept, method, (&samples, &labels), seed)? else {
        return Ok(f64::MAX);
    };
    let error = findings
        .iter()
        .find(|finding| finding.metric() == "largest_logit_difference");
    Ok(error.and_then(Finding::value).unwrap_or(f64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::Budget;

    #[test]
    fn an_answer_is_asked_for_once() {
        let layers = [LayerSpec::Dense(2)];
        let network = Differentiable::untrained(Shape::flat(3), &layers, 1).unwrap();
        let plain = Plain::new("x", "x", Activation::Polynomial, network);
        let mut budget = Budget::new(plain, 2);
        let mut view = View::new(&mut budget, ACCESS);
        let mut known = Known::new();
        let queries = Rows::new(3, vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        let mut ask = |queries: &Rows| {
            let mut kept = Kept {
                about: view.about().clone(),
                target: &mut view,
                known: &mut known,
            };
            kept.observe(queries, ACCESS).map(|answers| answers.scores)
        };
        let first = ask(&queries).unwrap();
        let again = ask(&queries.select(&[1, 0, 1])).unwrap();
        assert_eq!(again, first.select(&[1, 0, 1]));
        assert!(ask(&Rows::new(3, vec![0.0; 3])).is_err());
    }
}
