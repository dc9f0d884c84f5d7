//! An evaluator that returns what it likes, and sees what becomes of it.
//!
//! Three things may become of a result: values are given out, a label is, or the holder
//! of the key goes on or does not. Each is an oracle about the key. What the holder did
//! without he-core's rules is here as `OldRule`; what he does now is
//! [`he_core::ckks::publish`]. Replays are told apart by a mask, of which `masked` is a
//! model: the client's own is over a link.

use he_core::ckks::Ciphertext;
use he_core::ckks::evaluator::add;
use he_core::ckks::publish::{HonestResult, PublishError};
use he_core::{Error, Params, Result};
use rand_core::Rng;

use super::algebra;
use super::holder::{BUDGET, Count, Ct, Holder};
use super::oracle::{self, Told, crafted};
use crate::attack::{
    Attack, AttackError, Context, Control, Must, Outcome, SchemeCase, Subject, params,
};
use crate::record::{Finding, Verdict};
use crate::stats::{self, Estimate, wilson};
use crate::target::{Access, Grants};

/// Ten classes.
const CANDIDATES: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// Coefficients per search by acceptance: twelve take least, one is the plain way.
const GROUPS: [usize; 2] = [1, 12];

/// Replays that are tried.
const REPLAYS: usize = 100;

/// Bits after the binary point of values that the old rule gives out.
const PUBLISHED_BITS: f64 = 8.0;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct ActiveEvaluator;

impl Attack for ActiveEvaluator {
    fn name(&self) -> &'static str {
        "active-evaluator"
    }

    fn about(&self) -> &'static str {
        "asks about the secret key with crafted results: by values, labels, acceptance and replays"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Labels, Access::Decrypted, Access::Ciphertexts])
    }

    fn subject(&self) -> Subject {
        Subject::Schemes
    }

    fn run(&self, context: &mut Context<'_>) -> std::result::Result<(), AttackError> {
        context.each_scheme(self, |case| {
            by_values(case)?;
            for len in GROUPS {
                by_acceptance(case, len)?;
            }
            by_labels(case)?;
            by_labels_below_the_limit(case)?;
            by_replays(case)
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        use he_core::params::N2048_DEPTH1 as SMALL;
        let of = |name, must, told: fn(&Holder) -> Result<Told>| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let holder = Holder::new(&SMALL, seed)?;
                let value = holder.right(told(&holder)?.key) as f64 / SMALL.n() as f64;
                Ok(Outcome {
                    succeeded: value > 0.99,
                    value,
                    bar: 0.99,
                })
            }),
        };
        vec![
            of("acceptance, old rule", Must::Succeed, |holder| {
                accepted_by(&SMALL, holder, &mut OldRule, 12)
            }),
            of("acceptance, he-core's rule", Must::Fail, |holder| {
                accepted_by(&SMALL, holder, &mut Count::new(1 << 20, BUDGET.1)?, 12)
            }),
            of("labels, old rule", Must::Succeed, |holder| {
                labelled_by(&SMALL, holder, &mut OldRule)
            }),
            of("labels, he-core's rule", Must::Fail, |holder| {
                labelled_by(&SMALL, holder, &mut Count::new(1 << 20, BUDGET.1)?)
            }),
        ]
    }
}

/// What a holder makes of a result. `None` is the end: there are no more answers.
trait Rule {
    /// Whether it is accepted.
    fn accepts(&mut self, holder: &Holder, ct: &Ct) -> Result<Option<bool>>;

    /// Its label.
    fn label(&mut self, holder: &Holder, ct: &Ct) -> Result<Option<usize>>;
}

/// As it was: every label is given out, every refusal is followed by another question
/// about the same key, and nothing is counted.
struct OldRule;

impl OldRule {
    /// Values, rounded, of anything.
    fn values(holder: &Holder, ct: &Ct) -> Result<Vec<f64>> {
        let unit = PUBLISHED_BITS.exp2();
        let slots = holder.unguarded(ct)?;
        Ok(slots.iter().map(|x| (x * unit).round() / unit).collect())
    }
}

impl Rule for OldRule {
    fn accepts(&mut self, holder: &Holder, ct: &Ct) -> Result<Option<bool>> {
        Ok(Some(holder.fill(ct)? < 0.5))
    }

    fn label(&mut self, holder: &Holder, ct: &Ct) -> Result<Option<usize>> {
        let slots = holder.unguarded(ct)?;
        let largest = |&a: &usize, &b: &usize| {
            let [a, b] = [a, b].map(|i| slots[CANDIDATES[i]]);
            a.total_cmp(&b)
        };
        Ok((0..CANDIDATES.len()).max_by(largest))
    }
}

/// he-core's.
impl Rule for Count {
    fn accepts(&mut self, holder: &Holder, ct: &Ct) -> Result<Option<bool>> {
        match holder.label(self, ct, &CANDIDATES) {
            Ok(_) => Ok(Some(true)),
            Err(PublishError::Retired) => Ok(Some(false)),
            Err(PublishError::Budget(_)) => Ok(None),
            Err(PublishError::Refused(error)) => Err(error),
        }
    }

    fn label(&mut self, holder: &Holder, ct: &Ct) -> Result<Option<usize>> {
        match holder.label(self, ct, &CANDIDATES) {
            Ok(label) => Ok(Some(label)),
            Err(PublishError::Retired | PublishError::Budget(_)) => Ok(None),
            Err(PublishError::Refused(error)) => Err(error),
        }
    }
}

fn scale_of(params: &Params) -> Result<f64> {
    Ok(f64::from(params.prime(1)?.modulus().value()))
}

fn accepted_by(params: &Params, holder: &Holder, rule: &mut impl Rule, len: usize) -> Result<Told> {
    let scale = scale_of(params)?;
    oracle::by_acceptance(params, scale, len, |ct| rule.accepts(holder, ct))
}

fn labelled_by(params: &Params, holder: &Holder, rule: &mut impl Rule) -> Result<Told> {
    let scale = scale_of(params)?;
    oracle::by_labels(params, scale, &CANDIDATES, |ct| rule.label(holder, ct))
}

fn exactly(value: f64) -> Estimate {
    Estimate {
        value,
        ci95: [value; 2],
    }
}

/// Findings of an oracle under the old rule and he-core's.
fn told(
    case: &mut SchemeCase<'_, '_>,
    ask: impl Fn(&Holder, bool) -> Result<Told>,
) -> std::result::Result<Vec<Finding>, AttackError> {
    let (set, seed) = (case.params, case.run.seed);
    let holder = Holder::new(set, seed)?;
    let n = set.n();
    let old = ask(&holder, false)?;
    let right = holder.right(old.key.iter().copied());
    let (mut answers, mut bits, mut known) = (Vec::new(), Vec::new(), 0);
    let runs = case.run.by_scale(20, 100);
    for run in 0..runs {
        let holder = Holder::new(set, seed.wrapping_mul(1009).wrapping_add(run))?;
        let new = ask(&holder, true)?;
        answers.push(new.answers as f64);
        bits.push(new.bits);
        known += holder.right(new.key);
    }
    case.queries += old.answers as u64 + answers.iter().sum::<f64>() as u64;
    let success = match right as f64 > 0.99 * n as f64 {
        true => Verdict::Success,
        false => Verdict::Inconclusive,
    };
    let entropy = n as f64 * 3f64.log2();
    // What the answers until then tell is what they cost.
    let failure = match (known as f64) < 0.01 * (runs as usize * n) as f64 {
        true => Verdict::Failure,
        false => Verdict::Success,
    };
    Ok(vec![
        Finding::new("old rule: coefficients recovered", wilson(right, n))
            .baseline("guessing", 1.0 / 3.0)
            .verdict(
                success,
                "every answer tells something, and none costs anything",
            ),
        Finding::new("old rule: answers", exactly(old.answers as f64))
            .baseline("bits of the key's entropy", entropy),
        Finding::new(
            "old rule: bits per answer",
            exactly(old.bits / old.answers.max(1) as f64),
        ),
        Finding::new("coefficients recovered", wilson(known, runs as usize * n)).verdict(
            failure,
            "a result that wraps around retires the key: the search ends with it",
        ),
        Finding::new(
            "answers until the key is retired",
            stats::mean(&answers, seed),
        ),
        Finding::new("bits until the key is retired", stats::mean(&bits, seed))
            .baseline("of", entropy),
    ])
}

/// Acceptance alone: twice the degree at most, one coefficient at a time; the fewest,
/// twelve at a time.
fn by_acceptance(
    case: &mut SchemeCase<'_, '_>,
    len: usize,
) -> std::result::Result<(), AttackError> {
    let set = case.params;
    let of_step = params([
        ("oracle", "acceptance".into()),
        ("coefficients per search", len.into()),
    ]);
    case.step(of_step, |case| {
        told(case, |holder, guarded| match guarded {
            true => accepted_by(set, holder, &mut Count::new(BUDGET.0, BUDGET.1)?, len),
            false => accepted_by(set, holder, &mut OldRule, len),
        })
    })
}

/// Labels of results that wrap around.
fn by_labels(case: &mut SchemeCase<'_, '_>) -> std::result::Result<(), AttackError> {
    let set = case.params;
    let of_step = params([
        ("oracle", "labels".into()),
        ("classes", CANDIDATES.len().into()),
    ]);
    case.step(of_step, |case| {
        told(case, |holder, guarded| match guarded {
            true => labelled_by(set, holder, &mut Count::new(BUDGET.0, BUDGET.1)?),
            false => labelled_by(set, holder, &mut OldRule),
        })
    })
}

/// Values of `(0, d)` and `(1, 2^k)`: the key in one answer. he-core refuses the first,
/// and of the second there is no statement that it is honest; an evaluation made again
/// differs.
fn by_values(case: &mut SchemeCase<'_, '_>) -> std::result::Result<(), AttackError> {
    let set = case.params;
    let n = set.n();
    // A quarter of the modulus is filled: the answer looks like any other.
    let k = (set.prime(0)?.modulus().value() / 4).ilog2();
    for (name, first) in [("(0, 2^k)", 0i64), ("(1, 2^k)", 1)] {
        let of_step = params([
            ("oracle", "values".into()),
            ("result", name.into()),
            ("k", k.into()),
            ("bits published", PUBLISHED_BITS.into()),
        ]);
        case.step(of_step, |case| {
            let mut holder = Holder::new(set, case.run.seed)?;
            let scale = scale_of(set)?;
            let (mut c0, mut c1) = (vec![0; n], vec![0; n]);
            (c0[0], c1[0]) = (1, 1 << k);
            // Without the check for parts that are zero, `(0, d)` is `(1, d)` less one.
            let sent = crafted(set, scale, [&c0, &c1])?;
            let mut slots = OldRule::values(&holder, &sent)?;
            for slot in &mut slots[..n / 2] {
                *slot -= (1 - first) as f64 / scale;
            }
            let found = algebra::coefficients(&slots, scale)?;
            let unit = f64::exp2(f64::from(k));
            let key: Vec<i64> = found
                .iter()
                .map(|&x| (x as f64 / unit).round() as i64)
                .collect();
            let right = usize::from(holder.knows(algebra::ternary(&key).as_deref()));
            // Now: the same result for publication.
            c0[0] = first;
            let sent = crafted(set, scale, [&c0, &c1])?;
            let message = holder.encode(&[0.0; 4], scale)?;
            let honest = holder.encrypt(&message, 0, scale)?;
            let verified = HonestResult::verified(set, &sent, &honest);
            let transparent = holder.label(&mut Count::new(1, BUDGET.1)?, &sent, &CANDIDATES);
            let refusal = match (&transparent, &verified) {
                (Err(PublishError::Refused(error @ Error::Transparent)), _) => Some(*error),
                (_, Err(error)) => Some(*error),
                (_, Ok(_)) => None,
            };
            case.queries += 1;
            let verdict = |found: bool| {
                if found {
                    Verdict::Success
                } else {
                    Verdict::Failure
                }
            };
            let reason = refusal.map_or_else(|| "it is published".into(), |e| e.to_string());
            Ok(vec![
                Finding::new("old rule: keys recovered", wilson(right, 1))
                    .verdict(verdict(right == 1), "from one answer, all coefficients"),
                Finding::new("published", wilson(usize::from(refusal.is_none()), 1))
                    .verdict(verdict(refusal.is_none()), &reason),
            ])
        })?;
    }
    Ok(())
}

/// Labels that are never refused: `c1` is a number, so that the slots are those of the
/// key times it, and `c0` moves one of them. That tells `Re s(zeta_0) - Re s(zeta_1)`, one
/// bit per label, and more than the ten numbers `s(zeta)` of the candidates no label can
/// tell: as long as nothing wraps around, an answer is a function of them alone, whatever
/// `c1` is. And nothing can wrap around unseen in a result of which all coefficients stay
/// below a quarter of the modulus, but for a share `2^-N` of the keys.
fn by_labels_below_the_limit(
    case: &mut SchemeCase<'_, '_>,
) -> std::result::Result<(), AttackError> {
    const LABELS: usize = 16;
    let set = case.params;
    let n = set.n();
    let of_step = params([
        ("oracle", "labels below the limit".into()),
        ("labels", LABELS.into()),
    ]);
    case.step(of_step, |case| {
        let holder = Holder::new(set, case.run.seed)?;
        let scale = scale_of(set)?;
        let factor = i64::from(set.prime(0)?.modulus().value() / 16);
        let c1: Vec<i64> = std::iter::once(factor).chain(vec![0; n - 1]).collect();
        let truth = algebra::slots(&holder.revealed(), 1.0)?;
        let truth = truth[0] - truth[1];
        // Both slots deviate by sqrt(N / 3), their difference by sqrt(2) of it.
        let deviation = (2.0 * n as f64 / 3.0).sqrt();
        let (mut low, mut high) = (-6.0 * deviation, 6.0 * deviation);
        let mut count = Count::new(BUDGET.0, BUDGET.1)?;
        let mut answers = 0;
        for _ in 0..LABELS {
            let middle = (low + high) / 2.0;
            // The other candidates stay out of the way.
            let mut slots = vec![0.0; n];
            let out = -12.0 * deviation * factor as f64;
            slots[2..CANDIDATES.len()].fill(out);
            slots[0] = -middle / 2.0 * factor as f64;
            slots[1] = -slots[0];
            let c0 = algebra::coefficients(&slots, 1.0)?;
            let moved: Vec<f64> = c0.iter().map(|&x| x as f64).collect();
            let moved = algebra::slots(&moved, 1.0)?;
            let threshold = (moved[1] - moved[0]) / factor as f64;
            let ct = crafted(set, scale, [&c0, &c1])?;
            let Some(label) = Rule::label(&mut count, &holder, &ct)? else {
                break;
            };
            answers += 1;
            match label {
                0 => low = threshold,
                _ => high = threshold,
            }
        }
        case.queries += answers as u64;
        let inside = usize::from(low <= truth && truth <= high);
        let bits = (12.0 * deviation / (high - low)).log2();
        Ok(vec![
            Finding::new("labels given", wilson(answers, LABELS)).remark(&format!(
                "{} refused; the budget counts each that is given",
                match answers {
                    LABELS => "none is".to_owned(),
                    _ => format!("the search ends with number {}, which is", answers + 1),
                }
            )),
            Finding::new("right", wilson(inside, 1)),
            Finding::new("bits per label", exactly(bits / answers.max(1) as f64))
                .baseline("most for ten classes", (CANDIDATES.len() as f64).log2())
                .remark("of ten complex numbers of the key, the only ones that labels depend on"),
        ])
    })
}

/// A mask, as a model of what is sent over a link: uniform halves, that the evaluator adds to
/// the result.
fn mask(set: &Params, holder: &mut Holder, scale: f64) -> Result<Ct> {
    let m = set.prime(0)?.modulus();
    let mut half = || {
        let words = (0..set.n()).map(|_| holder.rng.next_u64() % u64::from(m.value()));
        words.map(|word| word as u32).collect()
    };
    let halves: [Vec<u32>; 2] = [half(), half()];
    let [c0, c1] = halves;
    Ciphertext::new(set, 0, scale, c0, c1)
}

/// What the client takes the mask off of.
fn unmasked(set: &Params, ct: Ct, mask: &Ct) -> Result<Ct> {
    let m = set.prime(0)?.modulus();
    let scale = ct.scale();
    let (c0, c1) = ct.into_storage();
    let [m0, m1] = mask.parts();
    let off = |half: Vec<u32>, of: &[u32]| {
        let words = half.iter().zip(of);
        words.map(|(&c, &x)| m.sub(c, x)).collect::<Vec<u32>>()
    };
    Ciphertext::new(set, 0, scale, off(c0, m0), off(c1, m1))
}

/// Answers of other requests, and results of other inputs with the mask carried over.
fn by_replays(case: &mut SchemeCase<'_, '_>) -> std::result::Result<(), AttackError> {
    let set = case.params;
    let of_step = params([("result", "of another request".into())]);
    case.step(of_step, |case| {
        let mut holder = Holder::new(set, case.run.seed)?;
        let scale = scale_of(set)? / 8.0;
        let (mut old, mut replayed, mut substituted) = (0, 0, 0);
        for _ in 0..REPLAYS {
            let mut request = || {
                let values = holder.values();
                let message = holder.encode(&values, scale)?;
                let ct = holder.encrypt(&message, 0, scale)?;
                Ok::<_, Error>((ct, mask(set, &mut holder, scale)?))
            };
            let (first, first_mask) = request()?;
            let (_, second_mask) = request()?;
            old += usize::from(OldRule.accepts(&holder, &first)? == Some(true));
            let answer = |mask_of: &Ct| -> Result<Ct> {
                let [c0, c1] = first.parts().map(<[u32]>::to_vec);
                let mut ct = Ciphertext::new(set, 0, scale, c0, c1)?;
                add(set, &mut ct, mask_of)?;
                unmasked(set, ct, &second_mask)
            };
            let accepted = |mask_of: &Ct| -> Result<bool> {
                let mut count = Count::new(BUDGET.0, BUDGET.1)?;
                Ok(count.accepts(&holder, &answer(mask_of)?)? == Some(true))
            };
            replayed += usize::from(accepted(&first_mask)?);
            substituted += usize::from(accepted(&second_mask)?);
        }
        case.queries += 3 * REPLAYS as u64;
        let verdict = |accepted: usize| match accepted {
            0 => Verdict::Failure,
            _ => Verdict::Success,
        };
        let of = |metric, accepted, reason| {
            Finding::new(metric, wilson(accepted, REPLAYS)).verdict(verdict(accepted), reason)
        };
        Ok(vec![
            of("old rule: replays accepted", old, "nothing binds an answer to its request"),
            of(
                "replays accepted",
                replayed,
                "the mask of another request leaves uniform residues, and the key is retired",
            ),
            of(
                "substituted inputs accepted",
                substituted,
                "whoever evaluates can add the mask to what he likes: an audit finds it, see forger",
            ),
        ])
    })
}
