//! By queries: slopes in the direction of every pixel.

use super::{Descent, Directions, Stencil, control, oracle, report, victims};
use crate::attack::{Attack, AttackError, Context, Control, Must, params};
use crate::network::Differentiable;
use crate::paper::{Table, XIANG_INVERSION};
use crate::target::{Access, Grants, Rows};

/// Distance of a query from the point of interest, in a pixel that goes from 0 to 1.
/// Queries leave that range by up to twice as much, in one pixel only.
const STEP: f64 = 1.0;

/// The descent: few steps of a larger size, since each costs 1,569 queries or 3,137.
const DESCENT: Descent = Descent {
    iterations: 6,
    rate: 0.1,
    variation: 1e-4,
    direction: 1.0,
};

/// Recovers inputs from answers by queries.
fn recover(
    oracle: &mut dyn FnMut(&Rows) -> Result<Rows, AttackError>,
    stencil: Stencil,
    descent: Descent,
    goals: &Rows,
    inputs: usize,
) -> Result<Rows, AttackError> {
    let pixels = Directions::Pixels(inputs);
    descent.run(goals, inputs, |at| {
        let mut slopes = Vec::with_capacity(at.values().len());
        for (point, goal) in at.iter().zip(goals.iter()) {
            slopes.extend(stencil.gradient(oracle, point, goal, &pixels, STEP)?);
        }
        Ok(Rows::new(inputs, slopes))
    })
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Differences;

impl Attack for Differences {
    fn name(&self) -> &'static str {
        "gradient-differences"
    }

    fn about(&self) -> &'static str {
        "an input from its logits by finite differences of queries, with large steps"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Scores])
    }

    fn tables(&self) -> &'static [Table] {
        &[XIANG_INVERSION]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            let count = match case.one_sample() {
                true => 1,
                false => case.run.by_scale(3, 10),
            };
            let originals = victims(case, count)?;
            let descent = Descent {
                iterations: case.run.by_scale(DESCENT.iterations, 30),
                rate: case.run.by_scale(DESCENT.rate, 0.05),
                ..DESCENT
            };
            // Behind encryption the longer stencil, exact for two squares, is the full run's.
            let stencils = match case.one_sample() {
                true => &[Stencil::Central][..],
                false => &[Stencil::Central, Stencil::FivePoint],
            };
            for &stencil in stencils {
                let of_step = params([
                    ("stencil", stencil.name().into()),
                    ("step", STEP.into()),
                    ("iterations", descent.iterations.into()),
                    ("rate", descent.rate.into()),
                    ("variation", descent.variation.into()),
                    ("victims", originals.len().into()),
                ]);
                case.step(of_step, |case| {
                    let answers = case.target.scores(&originals)?;
                    let inputs = originals.width();
                    let found = recover(
                        &mut oracle(&mut case.target),
                        stencil,
                        descent,
                        &answers,
                        inputs,
                    )?;
                    let reached = case.target.scores(&found)?;
                    let form = stencil.name();
                    report(self, case, &originals, &answers, &found, &reached, form)
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let of = |descent: Descent, blind: bool| {
            move |network: &Differentiable, answers: &Rows, _seed: u64| {
                let mut oracle = |queries: &Rows| -> Result<Rows, AttackError> {
                    if blind {
                        let nothing = vec![0.0; queries.len() * network.outputs()];
                        return Ok(Rows::new(network.outputs(), nothing));
                    }
                    Ok(network.evaluate(queries, queries.len())?)
                };
                let inputs = network.inputs();
                recover(&mut oracle, Stencil::Central, descent, answers, inputs)
            }
        };
        let right = Descent {
            iterations: 150,
            rate: 0.02,
            ..DESCENT
        };
        let wrong = Descent {
            direction: -1.0,
            ..right
        };
        vec![
            control("more outputs than pixels", Must::Succeed, of(right, false)),
            control("gradient with the wrong sign", Must::Fail, of(wrong, false)),
            control("answers without the input", Must::Fail, of(right, true)),
        ]
    }
}
