//! By queries: slopes in random directions of all pixels at once, the cheap form
//! (Spall 1992, simultaneous perturbation). Slopes are those of the logits and not of
//! the loss, so that central differences are exact for a square here too.

use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::{Descent, Directions, Stencil, control, oracle, report, victims};
use crate::attack::{Attack, AttackError, Context, Control, Must, params};
use crate::network::Differentiable;
use crate::paper::{Table, XIANG_INVERSION};
use crate::target::{Access, Grants, Rows};

/// Change of every pixel. All move at once, so it is smaller than for single pixels:
/// the logits grow with the square of the input's length.
const STEP: f64 = 0.25;

/// The descent.
const DESCENT: Descent = Descent {
    iterations: 60,
    rate: 0.02,
    variation: 1e-4,
    direction: 1.0,
};

/// Directions per gradient.
const DIRECTIONS: usize = 20;

/// Recovers inputs from answers by queries.
fn recover(
    oracle: &mut dyn FnMut(&Rows) -> Result<Rows, AttackError>,
    descent: Descent,
    directions: usize,
    goals: &Rows,
    inputs: usize,
    seed: u64,
) -> Result<Rows, AttackError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sign = || if rng.next_u32() & 1 == 0 { 1.0 } else { -1.0 };
    descent.run(goals, inputs, |at| {
        let mut slopes = Vec::with_capacity(at.values().len());
        for (point, goal) in at.iter().zip(goals.iter()) {
            let signs = (0..directions).map(|_| (0..inputs).map(|_| sign()).collect());
            let signs = Directions::Signs(signs.collect());
            slopes.extend(Stencil::Central.gradient(oracle, point, goal, &signs, STEP)?);
        }
        Ok(Rows::new(inputs, slopes))
    })
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Spsa;

impl Attack for Spsa {
    fn name(&self) -> &'static str {
        "gradient-spsa"
    }

    fn about(&self) -> &'static str {
        "an input from its logits by differences of queries in a few random directions"
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
                iterations: match case.one_sample() {
                    true => DESCENT.iterations / 2,
                    false => case.run.by_scale(DESCENT.iterations, 500),
                },
                ..DESCENT
            };
            let of_step = params([
                ("directions", DIRECTIONS.into()),
                ("step", STEP.into()),
                ("iterations", descent.iterations.into()),
                ("rate", descent.rate.into()),
                ("variation", descent.variation.into()),
                ("victims", originals.len().into()),
            ]);
            let seed = case.run.seed;
            case.step(of_step, |case| {
                let answers = case.target.scores(&originals)?;
                let inputs = originals.width();
                let found = recover(
                    &mut oracle(&mut case.target),
                    descent,
                    DIRECTIONS,
                    &answers,
                    inputs,
                    seed,
                )?;
                let reached = case.target.scores(&found)?;
                report(self, case, &originals, &answers, &found, &reached, "signs")
            })
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let of = |descent: Descent| {
            move |network: &Differentiable, answers: &Rows, seed: u64| {
                let mut oracle = |queries: &Rows| -> Result<Rows, AttackError> {
                    Ok(network.evaluate(queries, queries.len())?)
                };
                let inputs = network.inputs();
                recover(&mut oracle, descent, 60, answers, inputs, seed)
            }
        };
        let right = Descent {
            iterations: 400,
            rate: 0.01,
            ..DESCENT
        };
        let wrong = Descent {
            direction: -1.0,
            ..right
        };
        vec![
            control("more outputs than pixels", Must::Succeed, of(right)),
            control("gradient with the wrong sign", Must::Fail, of(wrong)),
        ]
    }
}
