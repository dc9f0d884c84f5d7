//! With the weights: 500 steps of 0.01.

use rayon::prelude::*;

use super::{Descent, control, norm, report, victims};
use crate::attack::{Attack, AttackError, Context, Control, Must, params};
use crate::network::Differentiable;
use crate::paper::{Table, XIANG_INVERSION};
use crate::target::{Access, Grants, Rows};

/// The descent.
pub const DESCENT: Descent = Descent {
    iterations: 500,
    rate: 1e-2,
    variation: 1e-4,
    direction: 1.0,
};

/// The gradient of every image's loss.
///
/// # Errors
/// [`AttackError::Tensor`].
pub fn gradient(network: &Differentiable, at: &Rows, goals: &Rows) -> Result<Rows, AttackError> {
    let shape = (goals.len(), goals.width());
    let tensor = |values: &[f64]| -> candle_core::Result<candle_core::Tensor> {
        candle_core::Tensor::from_slice(values, shape, &candle_core::Device::Cpu)?
            .to_dtype(network.dtype())
    };
    let wanted = tensor(goals.values())?;
    let weights: Vec<f64> = goals
        .iter()
        .flat_map(|goal| vec![1.0 / norm(goal); goal.len()])
        .collect();
    let weights = tensor(&weights)?;
    let slopes = network.input_gradient(&network.batch(at.values())?, |logits| {
        ((logits - &wanted)?.sqr()? * &weights)?.sum_all()
    })?;
    let slopes = slopes
        .to_dtype(candle_core::DType::F64)?
        .flatten_all()?
        .to_vec1::<f64>()?;
    Ok(Rows::new(at.width(), slopes))
}

/// Images that one core recovers at once.
const PART: usize = 5;

/// The images that logits speak for, on all cores.
fn recovered(
    descent: Descent,
    network: &Differentiable,
    answers: &Rows,
) -> Result<Rows, AttackError> {
    let inputs = network.inputs();
    let width = answers.width();
    let parts = answers.values().par_chunks(width.max(1) * PART);
    let parts = parts.map(|part| {
        let goals = Rows::new(width, part.to_vec());
        descent.run(&goals, inputs, |at| gradient(network, at, &goals))
    });
    let parts = parts.collect::<Result<Vec<Rows>, _>>()?;
    let values = parts.iter().flat_map(|part| part.values());
    Ok(Rows::new(inputs, values.copied().collect()))
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct WhiteBox;

impl Attack for WhiteBox {
    fn name(&self) -> &'static str {
        "gradient-white-box"
    }

    fn about(&self) -> &'static str {
        "an input from its logits by gradients of the network itself"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Weights, Access::Scores])
    }

    fn tables(&self) -> &'static [Table] {
        &[XIANG_INVERSION]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            let originals = victims(case, case.run.by_scale(20, 100))?;
            let of_step = params([
                ("iterations", DESCENT.iterations.into()),
                ("rate", DESCENT.rate.into()),
                ("variation", DESCENT.variation.into()),
                ("victims", originals.len().into()),
            ]);
            case.step(of_step, |case| {
                let network = case.target.weights()?;
                let answers = case.target.scores(&originals)?;
                let found = recovered(DESCENT, &network, &answers)?;
                let reached = case.target.scores(&found)?;
                report(self, case, &originals, &answers, &found, &reached, "all")
            })
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let recover = |descent: Descent| {
            move |network: &Differentiable, answers: &Rows, _seed: u64| {
                recovered(descent, network, answers)
            }
        };
        let wrong = Descent {
            direction: -1.0,
            ..DESCENT
        };
        let still = Descent {
            iterations: 0,
            ..DESCENT
        };
        vec![
            control("more outputs than pixels", Must::Succeed, recover(DESCENT)),
            control("gradient with the wrong sign", Must::Fail, recover(wrong)),
            control("no step", Must::Fail, recover(still)),
        ]
    }
}
