//! Noise on published values that does not hide the key, and he-core's, which does.
//!
//! Three countermeasures that look right, each a small model here, and the attack on it.
//! The same attack is then made on he-core's publication ([`he_core::ckks::publish`]).
//!
//! - **Average-case bounds** (Guo, Nabokov, Suvanto, Johansson, Usenix Security 2024): noise
//!   `sqrt(12 tau) 2^(s/2)` times an *estimated* error. A ciphertext added to itself `n`
//!   times has `n` times its error, where an estimate for independent operands says
//!   `sqrt(n)`: with `n` large enough the noise is less than `n / 2`, and the published
//!   coefficient divided by `n` is the error, exactly.
//! - **Constant noise, drawn anew**: the same ciphertext decrypted again and again has
//!   the same error, and the noise averages out.
//! - **Floating-point noise** (Mironov, CCS 2012): a number of 24 bits scaled to the size
//!   of the noise is a multiple of a power of two, and the bits below it are those of the
//!   error, bare.

use chacha20::ChaCha8Rng;
use he_core::ckks::Ciphertext;
use he_core::ckks::evaluator::add;
use he_core::ckks::publish::PublishError;
use he_core::{Params, Result};
use rand_core::SeedableRng;

use super::algebra;
use super::holder::{BUDGET, Count, Ct, Holder, expected};
use crate::attack::{Attack, AttackError, Context, Control, Must, Outcome, Subject, params};
use crate::random;
use crate::record::{Finding, Verdict};
use crate::stats::wilson;
use crate::target::{Access, Grants};

/// The scale of messages, which are zero here: the attacker knows them.
const SCALE: f64 = (1u64 << 20) as f64;

/// log2 of how often a ciphertext is added to itself: against the average-case bound,
/// and where he-core has room for the worst case.
const DOUBLINGS: u32 = 56;
const FEW_DOUBLINGS: u32 = 10;

/// Constant noise, beside an error of 3.2, and decryptions that leave a tenth of one.
const CONSTANT: f64 = 6.0;
const REPETITIONS: usize = 3600;

/// log2 of floating-point noise.
const FLOATING: f64 = 41.0;

/// Bits of an error, which is 21 at most.
const ERROR_BITS: u32 = 6;

/// A single-precision number of this magnitude is a multiple of `2^ERROR_BITS`.
const BARE: f64 = (1u64 << (23 + ERROR_BITS)) as f64;

/// Ciphertexts until one has no coefficient with noise below [`BARE`].
const TRIES: usize = 200;

/// A countermeasure that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    AverageCase,
    Constant,
    FloatingPoint,
}

impl Wrong {
    const ALL: [Self; 3] = [Self::AverageCase, Self::Constant, Self::FloatingPoint];

    const fn name(self) -> &'static str {
        match self {
            Self::AverageCase => "average-case bound, correlated inputs",
            Self::Constant => "constant noise, repeated decryptions",
            Self::FloatingPoint => "floating-point noise, low bits",
        }
    }

    /// Bits of the modulus that it takes to be made.
    const fn log_q(self) -> f64 {
        match self {
            Self::AverageCase => 64.0,
            Self::Constant => 0.0,
            Self::FloatingPoint => FLOATING + 4.0,
        }
    }

    /// Whether its attack finds the key: of the countermeasure, or of he-core's rule.
    fn broken(self, set: &'static Params, seed: u64, ours: bool) -> Result<Try> {
        let mut holder = Holder::new(set, seed)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        match self {
            Self::AverageCase => average_case(set, &mut holder, &mut rng, ours),
            Self::Constant => constant(set, &mut holder, &mut rng, ours),
            Self::FloatingPoint => floating_point(set, &mut holder, &mut rng, ours),
        }
    }
}

/// How one attack went.
#[derive(Clone, Debug, Default, PartialEq)]
struct Try {
    /// Whether it found the key, or that he-core's noise averages out.
    found: bool,
    /// Publications that were asked for and given.
    asked: u64,
    given: u64,
    /// What was said where nothing was given.
    refusal: Option<String>,
}

/// Encrypts zero.
fn zero(set: &Params, holder: &mut Holder, level: usize) -> Result<Ct> {
    holder.encrypt(&vec![0; set.n()], level, SCALE)
}

/// The key, from an encryption of zero whose errors are known.
fn of_errors(set: &Params, ct: &Ct, errors: &[i64]) -> Result<Option<Vec<i8>>> {
    let n = set.n();
    let (c0, c1) = ct.halves();
    for (i, (c0, c1)) in c0.chunks_exact(n).zip(c1.chunks_exact(n)).enumerate() {
        let prime = set.prime(i)?;
        let m = prime.modulus();
        let mut b = algebra::residues(errors, m);
        he_core::ring::ntt::forward(&mut b, prime)?;
        b.iter_mut().zip(c0).for_each(|(b, &c0)| *b = m.sub(*b, c0));
        if let Some(key) = algebra::quotient(&b, c1, prime)? {
            return Ok(algebra::ternary(&key));
        }
    }
    Ok(None)
}

/// Publishes by he-core's rule; `None` where it refuses, with its sentence.
fn by_rule(
    holder: &Holder,
    count: &mut Count,
    ct: &Ct,
    outcome: &mut Try,
) -> Result<Option<Vec<f64>>> {
    outcome.asked += 1;
    let request = expected(ct.level(), ct.scale(), ct.noise());
    match holder.publish(count, ct, &request) {
        Ok(slots) => {
            outcome.given += 1;
            Ok(Some(slots))
        }
        Err(
            error @ (PublishError::Refused(_) | PublishError::Budget(_) | PublishError::Retired),
        ) => {
            outcome.refusal = Some(error.to_string());
            Ok(None)
        }
    }
}

/// Slots of a decryption with noise on every coefficient, as a wrong countermeasure
/// publishes them.
fn with_noise(holder: &Holder, ct: &Ct, mut noise: impl FnMut() -> f64) -> Result<Vec<f64>> {
    let exact = algebra::coefficients(&holder.unguarded(ct)?, ct.scale())?;
    let noisy: Vec<f64> = exact.iter().map(|&x| x as f64 + noise()).collect();
    algebra::slots(&noisy, ct.scale())
}

fn average_case(
    set: &Params,
    holder: &mut Holder,
    rng: &mut ChaCha8Rng,
    ours: bool,
) -> Result<Try> {
    let level = set.max_level();
    let fresh = zero(set, holder, level)?;
    let mut outcome = Try::default();
    let counts: &[u32] = match ours {
        true => &[DOUBLINGS, FEW_DOUBLINGS],
        false => &[DOUBLINGS],
    };
    for &doublings in counts {
        let [c0, c1] = fresh.parts().map(<[u32]>::to_vec);
        let mut sum =
            Ciphertext::new(set, level, SCALE, c0, c1)?.with_noise(fresh.noise(), fresh.message());
        for _ in 0..doublings {
            let [c0, c1] = sum.parts().map(<[u32]>::to_vec);
            let same =
                Ciphertext::new(set, level, SCALE, c0, c1)?.with_noise(sum.noise(), sum.message());
            add(set, &mut sum, &same)?;
        }
        let published = if ours {
            by_rule(
                holder,
                &mut Count::new(BUDGET.0, BUDGET.1)?,
                &sum,
                &mut outcome,
            )?
        } else {
            // The estimate is that for independent operands, per coefficient.
            let estimate = sum.noise().sigma / (set.n() as f64).sqrt();
            let (tau, s) = (f64::from(BUDGET.0), f64::from(BUDGET.1));
            let sigma = (12.0 * tau).sqrt() * (s / 2.0).exp2() * estimate;
            (outcome.asked, outcome.given) = (1, 1);
            Some(with_noise(holder, &sum, || {
                (sigma * random::normal(rng)).round()
            })?)
        };
        let Some(published) = published else { continue };
        let Ok(found) = algebra::coefficients(&published, SCALE) else {
            continue;
        };
        let count = f64::from(doublings).exp2();
        let errors: Vec<i64> = found
            .iter()
            .map(|&x| (x as f64 / count).round() as i64)
            .collect();
        let key = of_errors(set, &fresh, &errors)?;
        outcome.found |= holder.knows(key.as_deref());
    }
    Ok(outcome)
}

fn constant(set: &Params, holder: &mut Holder, rng: &mut ChaCha8Rng, ours: bool) -> Result<Try> {
    let level = if ours { set.max_level() } else { 0 };
    let ct = zero(set, holder, level)?;
    let mut outcome = Try::default();
    let mut count = Count::new(BUDGET.0, BUDGET.1)?;
    let mut sum = vec![0.0; set.n()];
    let mut first: Option<Vec<f64>> = None;
    for _ in 0..REPETITIONS {
        let published = if ours {
            // All that the budget has: what comes after it is refused.
            match by_rule(holder, &mut count, &ct, &mut outcome)? {
                Some(slots) => slots,
                None => break,
            }
        } else {
            (outcome.asked, outcome.given) = (outcome.asked + 1, outcome.given + 1);
            with_noise(holder, &ct, || (CONSTANT * random::normal(rng)).round())?
        };
        sum.iter_mut()
            .zip(&published)
            .for_each(|(sum, x)| *sum += x);
        if ours && *first.get_or_insert_with(|| published.clone()) != published {
            // Noise that is drawn anew averages out, if not in as many as these.
            outcome.found = true;
            return Ok(outcome);
        }
        // The same again is the same values: one tenth of the budget shows it.
        if ours && outcome.given * 10 >= u64::from(BUDGET.0) {
            break;
        }
    }
    let given = outcome.given.max(1) as f64;
    sum.iter_mut().for_each(|x| *x /= given);
    if let Ok(errors) = algebra::coefficients(&sum, SCALE) {
        let key = of_errors(set, &ct, &errors)?;
        outcome.found = holder.knows(key.as_deref());
    }
    Ok(outcome)
}

fn floating_point(
    set: &Params,
    holder: &mut Holder,
    rng: &mut ChaCha8Rng,
    ours: bool,
) -> Result<Try> {
    let mut outcome = Try::default();
    let mut count = Count::new(BUDGET.0, BUDGET.1)?;
    for _ in 0..TRIES {
        let ct = zero(set, holder, set.max_level())?;
        let published = if ours {
            match by_rule(holder, &mut count, &ct, &mut outcome)? {
                Some(slots) => slots,
                None => break,
            }
        } else {
            (outcome.asked, outcome.given) = (outcome.asked + 1, outcome.given + 1);
            // Single precision from end to end, as where noise is drawn on a board.
            let mut draw = || FLOATING.exp2() as f32 * random::normal(rng) as f32;
            with_noise(holder, &ct, || f64::from(draw().round()))?
        };
        let Ok(noisy) = algebra::coefficients(&published, SCALE) else {
            continue;
        };
        if noisy.iter().any(|x| (*x as f64).abs() < BARE + 64.0) {
            continue;
        }
        let unit = 1i64 << ERROR_BITS;
        let low = |x: &i64| (x + unit / 2).rem_euclid(unit) - unit / 2;
        let errors: Vec<i64> = noisy.iter().map(low).collect();
        let key = of_errors(set, &ct, &errors)?;
        outcome.found = holder.knows(key.as_deref());
        if outcome.found || ours {
            break;
        }
    }
    Ok(outcome)
}

/// That the attack found the key in so many of the runs that gave it anything; where none
/// did, it was not tried.
fn recovered(rule: &str, found: usize, runs: usize, given: u64, reason: &str) -> Finding {
    let verdict = match (found, runs) {
        (_, 0) => {
            return Finding::not_applicable(&format!("{rule}: nothing is published: {reason}"));
        }
        (0, _) => Verdict::Failure,
        _ => Verdict::Success,
    };
    Finding::new(&format!("{rule}: keys recovered"), wilson(found, runs))
        .baseline("guessing", 0.0)
        .baseline("publications", given as f64)
        .verdict(verdict, reason)
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct FloodingWrong;

impl Attack for FloodingWrong {
    fn name(&self) -> &'static str {
        "flooding-wrong"
    }

    fn about(&self) -> &'static str {
        "takes noise off published values that was measured, repeated or drawn wrongly"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Decrypted, Access::Ciphertexts])
    }

    fn subject(&self) -> Subject {
        Subject::Schemes
    }

    fn run(&self, context: &mut Context<'_>) -> std::result::Result<(), AttackError> {
        context.each_scheme(self, |case| {
            let (set, seed) = (case.params, case.run.seed);
            let runs = case.run.by_scale(2, 20);
            for wrong in Wrong::ALL {
                let of_step = params([
                    ("countermeasure", wrong.name().into()),
                    ("publications allowed", BUDGET.0.into()),
                    ("statistical bits", BUDGET.1.into()),
                    ("runs", runs.into()),
                ]);
                case.step(of_step, |case| {
                    if set.log_q(set.max_level()) < wrong.log_q() {
                        let reason = "the modulus has no room for this countermeasure";
                        return Ok(vec![Finding::not_applicable(reason)]);
                    }
                    let mut findings = Vec::new();
                    for ours in [false, true] {
                        let (mut found, mut tried, mut given) = (0, 0, 0);
                        let mut refusal = None;
                        for run in 0..runs {
                            let seed = seed.wrapping_mul(313).wrapping_add(run as u64);
                            let outcome = wrong.broken(set, seed, ours)?;
                            case.queries += outcome.asked;
                            given += outcome.given;
                            tried += usize::from(outcome.given > 0);
                            found += usize::from(outcome.found);
                            refusal = outcome.refusal.or(refusal);
                        }
                        let rule = if ours { "he-core" } else { "countermeasure" };
                        let reason = refusal.unwrap_or_else(|| "values were published".into());
                        findings.push(recovered(rule, found, tried, given, &reason));
                    }
                    Ok(findings)
                })?;
            }
            Ok(())
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        use he_core::params::N4096_DEPTH3 as ROOM;
        let of = |(wrong, name, ours): (Wrong, &'static str, bool)| Control {
            name,
            must: if ours { Must::Fail } else { Must::Succeed },
            run: Box::new(move |seed| {
                let outcome = wrong.broken(&ROOM, seed, ours)?;
                // A rule that published nothing was not attacked: that is no pass.
                let found = outcome.found || (ours && outcome.given == 0);
                Ok(Outcome {
                    succeeded: found,
                    value: f64::from(u8::from(found)),
                    bar: 1.0,
                })
            }),
        };
        let all = [
            (Wrong::AverageCase, "correlated inputs, average case", false),
            (
                Wrong::Constant,
                "repeated decryptions, constant noise",
                false,
            ),
            (
                Wrong::FloatingPoint,
                "low bits, floating-point noise",
                false,
            ),
            (Wrong::AverageCase, "correlated inputs, he-core", true),
            (Wrong::Constant, "repeated decryptions, he-core", true),
            (Wrong::FloatingPoint, "low bits, he-core", true),
        ];
        all.into_iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_everywhere_was_not_attacked() {
        let refused = recovered("he-core", 0, 0, 0, "no room");
        let expected = Finding::not_applicable("he-core: nothing is published: no room");
        assert_eq!(refused, expected);
        assert_eq!(recovered("he-core", 0, 2, 5, "").value(), Some(0.0));
    }
}
