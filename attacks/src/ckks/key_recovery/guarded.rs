//! The same attacks on he-core's publication, and what it costs.

use he_core::ckks::Noise;
use he_core::ckks::publish::{Allowance, PublishError};
use he_core::{Params, Result};

use super::super::holder::{BUDGET, Count, Holder, expected, widest};
use super::hints::{self, Regression};
use super::{exact, scale_of};
use crate::attack::{AttackError, SchemeCase, params};
use crate::record::{Finding, Verdict};
use crate::stats::{self, wilson};

/// Runs against guarded publication.
const GUARDED_RUNS: usize = 100;

/// Why an attack on published values has nothing to work on.
const NOTHING: &str = "the modulus has no room for the noise: nothing is published";

/// What guarded publication gives the attacker: in how many runs some attack finds the
/// key, and in how many something was published.
pub(super) fn found(params: &'static Params, seed: u64, runs: usize) -> Result<[usize; 2]> {
    let (mut right, mut published) = (0, 0);
    for run in 0..runs as u64 {
        let mut holder = Holder::new(params, seed.wrapping_mul(131).wrapping_add(run))?;
        let mut count = Count::new(BUDGET.0, BUDGET.1)?;
        let (level, noise) = (params.max_level(), fresh_noise(params));
        let allowance = Allowance::new(BUDGET.0, BUDGET.1)?;
        let Ok((scale, _)) = widest(params, level, noise, &allowance) else {
            continue;
        };
        let values = holder.values();
        let message = holder.encode(&values, scale)?;
        let ct = holder.encrypt(&message, level, scale)?;
        match holder.publish(&mut count, &ct, &expected(level, scale, noise)) {
            Ok(slots) => {
                published += 1;
                let found = exact::from_all_slots(params, &ct, &slots)?;
                right += usize::from(holder.knows(found.as_deref()));
            }
            Err(PublishError::Refused(error)) => return Err(error),
            Err(PublishError::Budget(_) | PublishError::Retired) => {}
        }
    }
    Ok([right, published])
}

/// Of a fresh encryption, its rounding among it.
fn fresh_noise(params: &Params) -> Noise {
    Noise::fresh(params)
}

/// Guarded publication with the budget spent to its end, by the regression: how many
/// coefficients of the key are right, how many are by the best constant guess, and
/// publications. None where nothing is published.
fn spent(params: &'static Params, seed: u64, publications: usize) -> Result<Option<[usize; 3]>> {
    let level = params.max_level();
    let allowance = Allowance::new(BUDGET.0, BUDGET.1)?;
    let mut holder = Holder::new(params, seed)?;
    let (mut count, mut known) = (Count::new(BUDGET.0, BUDGET.1)?, Regression::new(params));
    // The noise of the product is tracked; that of the first one is that of all.
    let scale_at = |holder: &mut Holder| -> Result<Option<(f64, Noise)>> {
        let trial = hints::infer(params, holder, level, scale_of(params)?)?;
        let noise = trial.result.noise();
        Ok(widest(params, level - 1, noise, &allowance)
            .ok()
            .map(|(scale, _)| (scale, noise)))
    };
    let Some((scale, _)) = scale_at(&mut holder)? else {
        return Ok(None);
    };
    let mut published = 0;
    for _ in 0..publications {
        let inference = hints::infer(params, &mut holder, level, scale)?;
        let (noise, scale) = (inference.result.noise(), inference.result.scale());
        let request = expected(level - 1, scale, noise);
        match holder.publish(&mut count, &inference.result, &request) {
            Ok(slots) => {
                published += 1;
                known.take(&inference, &slots, 0..params.slots());
            }
            Err(PublishError::Refused(_)) => return Ok(None),
            Err(PublishError::Budget(_) | PublishError::Retired) => break,
        }
    }
    if published == 0 {
        return Ok(None);
    }
    let guess = known.key()?;
    let right = holder.right(guess.iter().map(|&s| Some(i64::from(s))));
    let constant = (-1..=1)
        .map(|s| holder.right((0..params.n()).map(|_| Some(s))))
        .max();
    Ok(Some([right, constant.unwrap_or(0), published]))
}

/// Against [`he_core::ckks::publish`], with its cost.
pub(super) fn from_guarded(case: &mut SchemeCase<'_, '_>) -> std::result::Result<(), AttackError> {
    let (set, seed) = (case.params, case.run.seed);
    let of = |what: &str| {
        params([
            ("rule", "guarded publication".into()),
            ("publications allowed", BUDGET.0.into()),
            ("statistical bits", BUDGET.1.into()),
            ("measured", what.into()),
        ])
    };
    case.step(of("precision"), |_| precision_findings(set, seed))?;
    case.step(of("all slots"), |case| {
        let [right, published] = found(set, seed, GUARDED_RUNS)?;
        case.queries += published as u64;
        Ok(vec![recovered(right, published)])
    })?;
    let publications = case.run.by_scale(32, BUDGET.0 as usize);
    case.step(of("regression"), |case| {
        let Some([right, constant, published]) = spent(set, seed, publications)? else {
            return Ok(vec![Finding::not_applicable(NOTHING)]);
        };
        case.queries += published as u64;
        let constant = wilson(constant, set.n());
        Ok(vec![
            Finding::new("coefficients right", wilson(right, set.n()))
                .baseline("best constant guess", constant.value)
                .succeeds_above(constant.value, 0.05),
        ])
    })
}

/// That an attack found the key in so many runs that published something: a failure where
/// it did in none, and nothing was tried where there are no such runs.
fn recovered(right: usize, runs: usize) -> Finding {
    if runs == 0 {
        return Finding::not_applicable(NOTHING);
    }
    let verdict = match right {
        0 => Verdict::Failure,
        _ => Verdict::Success,
    };
    let reason = format!("found in {right} of {runs} runs");
    Finding::new("keys recovered", wilson(right, runs))
        .baseline("guessing", 0.0)
        .verdict(verdict, &reason)
}

/// What guarded publication costs: bits after the binary point that are left of a fresh
/// encryption at the widest scale there is room for, and those without the noise.
fn precision_findings(
    params: &Params,
    seed: u64,
) -> std::result::Result<Vec<Finding>, AttackError> {
    let (level, noise) = (params.max_level(), fresh_noise(params));
    let allowance = Allowance::new(BUDGET.0, BUDGET.1)?;
    Ok(match widest(params, level, noise, &allowance) {
        Ok((scale, left)) => {
            let worst = (scale / noise.bound).log2();
            let usual = (scale / (6.0 * noise.sigma)).log2();
            vec![
                Finding::new("bits left", stats::mean(&[left], seed))
                    .baseline("without noise, worst case", worst)
                    .baseline("without noise, six standard deviations", usual)
                    .baseline("log2 of the scale", scale.log2()),
                Finding::new("bits that it costs", stats::mean(&[usual - left], seed))
                    .remark("beside six standard deviations of the error without noise"),
            ]
        }
        Err(error) => {
            vec![Finding::new("bits left", stats::mean(&[0.0], seed)).remark(&error.to_string())]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_publishes_nothing_was_not_attacked() {
        for room in [
            &he_core::params::N4096_DEPTH3,
            &he_core::params::N2048_DEPTH1,
        ] {
            assert_eq!(found(room, 1, 2).unwrap(), [0, 2]);
            // Behind a product neither has room for the noise.
            assert_eq!(spent(room, 1, 2).unwrap(), None);
        }
        assert_eq!(recovered(0, 2).value(), Some(0.0));
        assert_eq!(recovered(0, 0), Finding::not_applicable(NOTHING));
    }
}
