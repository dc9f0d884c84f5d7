//! Adversarial examples by transfer (Papernot et al. 2017, arXiv:1602.02697): a man in the
//! middle who sees labels alone trains a surrogate on them and attacks that.
//!
//! He needs neither the network nor its scores, and encrypted weights do not hinder him.
//! His images are the second part of the test split, the attacked ones the first.

use super::autoattack::{ensemble, robust};
use super::{BATCH, bundled, control_data, control_network, noise, pgd};
use crate::attack::{Attack, AttackError, Case, Context, Control, Must, Outcome, params};
use crate::extraction::surrogate;
use crate::network::Differentiable;
use crate::plain::classes;
use crate::record::Finding;
use crate::stats::agreement;
use crate::synthetic;
use crate::target::{Access, Grants, Rows};

/// What it needs.
const ACCESS: Grants = Grants::of(&[Access::Labels]);

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Transfer;

impl Attack for Transfer {
    fn name(&self) -> &'static str {
        "transfer"
    }

    fn about(&self) -> &'static str {
        "adversarial examples made on a surrogate that was trained on the target's labels"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            let (samples, budget) = case.run.by_scale((50, 1000), (500, 5000));
            let (samples, budget) = match case.sparing() {
                true => (20, 200),
                false => (samples, budget),
            };
            let samples = samples.min(case.data.test.images.len() / 2);
            let mut surrogate = None;
            let all = case.run.by_scale(&[0.1, 0.3][..], &[0.05, 0.1, 0.2, 0.3]);
            for &eps in all {
                let of_step = params([
                    ("eps", eps.into()),
                    ("samples", samples.into()),
                    ("queries", budget.into()),
                ]);
                case.step(of_step, |case| {
                    let network = match surrogate.take() {
                        Some(network) => network,
                        None => trained(case, samples, budget)?,
                    };
                    let found = transferred(case, &network, samples, eps);
                    surrogate = Some(network);
                    found
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        const BAR: f64 = 0.5;
        let control = |name, must, eps: f64, of_twin: bool| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let (images, labels) = control_data()?;
                let surrogate = match of_twin {
                    true => bundled("mnist-mlp64-relu")?,
                    false => synthetic::linear(seed)?.precise()?,
                };
                let examples = pgd::METHOD.craft(&surrogate, &images, eps, seed)?;
                let read = classes(&control_network()?.evaluate(&examples, BATCH)?);
                let value = agreement(&read, &labels).value;
                Ok(Outcome {
                    succeeded: value <= BAR,
                    value,
                    bar: BAR,
                })
            }),
        };
        vec![
            control(
                "from the twin with rectifiers, eps 0.3",
                Must::Succeed,
                0.3,
                true,
            ),
            control(
                "from the twin with rectifiers, eps 0.2",
                Must::Succeed,
                0.2,
                true,
            ),
            control("no perturbation", Must::Fail, 0.0, true),
            control(
                "from a network that knows nothing, eps 0.2",
                Must::Fail,
                0.2,
                false,
            ),
        ]
    }
}

fn trained(
    case: &mut Case<'_, '_>,
    samples: usize,
    budget: usize,
) -> Result<Differentiable, AttackError> {
    let natural = Rows::images(&case.data.test.images[samples..]);
    let activation = case.target.about().activation;
    let seed = case.run.seed;
    surrogate::from_labels(&mut case.target, &natural, activation, budget, seed)
}

/// Accuracy of the target on examples of the surrogate: PGD's, and where none of the
/// ensemble's is misread either.
fn transferred(
    case: &mut Case<'_, '_>,
    surrogate: &Differentiable,
    samples: usize,
    eps: f64,
) -> Result<Vec<Finding>, AttackError> {
    let images = Rows::images(&case.data.test.images[..samples]);
    let labels = &case.data.test.labels[..samples];
    let seed = case.run.seed;
    let (iterations, queries, targets) = case.run.by_scale((20, 60, 3), (100, 1000, 9));
    let mut all = vec![
        images.clone(),
        noise(&images, eps, seed),
        pgd::METHOD.craft(surrogate, &images, eps, seed)?,
    ];
    for member in ensemble(iterations, queries, targets) {
        all.push(member.craft(surrogate, &images, labels, eps, seed)?);
    }
    let parts: Vec<&Rows> = all.iter().collect();
    let answers = case.target.labels(&Rows::joined(&parts))?;
    let read: Vec<Vec<u8>> = answers.chunks(samples.max(1)).map(<[u8]>::to_vec).collect();
    let of = |at: usize| agreement(&read[at], labels);
    let own = classes(&surrogate.evaluate(&images, BATCH)?);
    let on_surrogate = classes(&surrogate.evaluate(&all[2], BATCH)?);
    let finding = |name: &str, value| {
        Finding::new(name, value)
            .baseline("clean", of(0).value)
            .baseline("random_noise", of(1).value)
            .baseline("chance", 1.0 / case.target.about().classes as f64)
            .succeeds_below(of(1))
    };
    Ok(vec![
        finding("accuracy", of(2)).baseline("surrogate", agreement(&on_surrogate, labels).value),
        finding("robust_accuracy", robust(&read[2..], labels)),
        Finding::new("surrogate_agreement", agreement(&own, &read[0])),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::Plain;
    use crate::target::{Activation, View};

    #[test]
    fn a_surrogate_sees_labels_alone() {
        let mut target = Plain::bundled("mnist-mlp64", "digits").unwrap().unwrap();
        let mut view = View::new(&mut target, ACCESS);
        let images = Rows::images(&he_nn::bundled::digits().unwrap().images);
        surrogate::from_labels(&mut view, &images, Activation::Polynomial, 10, 1).unwrap();
        assert_eq!(view.queries(), 10);
    }
}
