//! The key from decrypted values (Li, Micciancio, Eurocrypt 2021, ePrint 2020/1533).
//!
//! Whoever sees a ciphertext `(c0, c1)` and its decryption `m' = c0 + c1 s` exactly has
//! linear equations in the key. `exact` solves them from all slots of one ciphertext
//! and from sparse encodings, `hints` from a few slots of many inferences, with values
//! that are known; `circuits` are those of the public attack code. All of them are
//! tried against he-core's publication ([`he_core::ckks::publish`]) as well.

mod circuits;
mod exact;
mod guarded;
mod hints;

use he_core::{Params, Result};

use self::circuits::Circuit;
use self::hints::Regression;
use super::algebra;
use super::holder::Holder;
use crate::attack::{
    Attack, AttackError, Context, Control, Must, Outcome, SchemeCase, Subject, params,
};
use crate::record::{Finding, Verdict};
use crate::stats::{self, wilson};
use crate::target::{Access, Grants};

/// Slots of a sparse encoding: ten classes take sixteen.
const SPARSE: usize = 16;

/// Slots that an inference publishes.
const PUBLISHED: usize = 10;

/// Rounds over all slots after which a regression gives up.
const MOST_ROUNDS: usize = 200;

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct KeyRecovery;

impl Attack for KeyRecovery {
    fn name(&self) -> &'static str {
        "key-recovery"
    }

    fn about(&self) -> &'static str {
        "computes the secret key from decrypted values of honest results"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Decrypted, Access::Ciphertexts])
    }

    fn subject(&self) -> Subject {
        Subject::Schemes
    }

    fn run(&self, context: &mut Context<'_>) -> std::result::Result<(), AttackError> {
        context.each_scheme(self, |case| {
            from_slots(case)?;
            from_circuits(case)?;
            from_hints(case)?;
            guarded::from_guarded(case)
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        use he_core::params::{N2048_DEPTH1 as SMALL, N4096_DEPTH3 as ROOM};
        let of = |name, must, found: fn(u64) -> Result<f64>| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let value = found(seed)?;
                Ok(Outcome {
                    succeeded: value == 1.0,
                    value,
                    bar: 1.0,
                })
            }),
        };
        vec![
            of("all slots", Must::Succeed, |seed| {
                let scale = scale_of(&SMALL)?;
                all_slots(&SMALL, seed, scale, 40).map(share)
            }),
            of("all slots, six bits published", Must::Fail, |seed| {
                let scale = scale_of(&SMALL)?;
                all_slots(&SMALL, seed, scale, 6).map(share)
            }),
            of("hints of slots that change", Must::Succeed, |seed| {
                let found = Sweep::moving(None).run(&SMALL, seed)?;
                Ok(share(found.is_some()))
            }),
            of("guarded publication", Must::Fail, |seed| {
                // Where nothing is published nothing was tried, which is no pass.
                guarded::found(&ROOM, seed, 4).map(|found| match found {
                    [_, 0] => 1.0,
                    [right, published] => right as f64 / published as f64,
                })
            }),
        ]
    }
}

fn share(recovered: bool) -> f64 {
    f64::from(u8::from(recovered))
}

/// The scale of results at the lowest level: of the last prime that was divided by.
fn scale_of(params: &Params) -> Result<f64> {
    Ok(f64::from(params.prime(1)?.modulus().value()))
}

/// Whether all slots of one ciphertext, published with so many bits, give the key.
fn all_slots(params: &'static Params, seed: u64, scale: f64, bits: u32) -> Result<bool> {
    let mut holder = Holder::new(params, seed)?;
    // A ciphertext at the lowest level may have no inverse: then the next one.
    for (ct, slots) in exact::fresh(&mut holder, 4, scale)? {
        let found = exact::from_all_slots(params, &ct, &exact::rounded(&slots, bits))?;
        if holder.knows(found.as_deref()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the sparse slots of `N / (2 n)` ciphertexts, and two more in case that some
/// equations depend on others, give the key.
fn sparse_slots(params: &'static Params, seed: u64, scale: f64, bits: u32) -> Result<bool> {
    let mut holder = Holder::new(params, seed)?;
    let count = params.n() / (2 * SPARSE) + 2;
    let mut seen = exact::fresh(&mut holder, count, scale)?;
    for (_, slots) in &mut seen {
        let sparse = exact::sparse_slots(slots, scale, SPARSE)?;
        *slots = exact::rounded(&sparse, bits);
    }
    let found = exact::from_sparse_slots(params, &seen, SPARSE)?;
    Ok(holder.knows(found.as_deref()))
}

/// Full and sparse encodings: whether the key comes out, and the fewest published bits
/// after the binary point with which it does.
fn from_slots(case: &mut SchemeCase<'_, '_>) -> std::result::Result<(), AttackError> {
    type Recovers = fn(&'static Params, u64, f64, u32) -> Result<bool>;
    let (set, seed) = (case.params, case.run.seed);
    let sparse = set.n() / (2 * SPARSE) + 2;
    let ways: [(&str, Recovers, usize, usize); 2] = [
        ("all slots", all_slots, 1, case.run.by_scale(3, 20)),
        ("sparse", sparse_slots, sparse, case.run.by_scale(1, 3)),
    ];
    for (name, recovers, ciphertexts, keys) in ways {
        let scale = scale_of(set)?;
        let of_step = params([
            ("encoding", name.into()),
            (
                "slots",
                if name == "sparse" {
                    SPARSE
                } else {
                    set.slots()
                }
                .into(),
            ),
            ("ciphertexts", ciphertexts.into()),
            ("log2_scale", scale.log2().into()),
        ]);
        case.step(of_step, |case| {
            let (mut right, mut bits) = (0, Vec::new());
            for key in 0..keys as u64 {
                let seed = seed.wrapping_mul(1000).wrapping_add(key);
                case.queries += ciphertexts as u64;
                if !recovers(set, seed, scale, 52)? {
                    continue;
                }
                right += 1;
                let fewest = exact::fewest_bits(|bits| recovers(set, seed, scale, bits))?;
                bits.extend(fewest.map(f64::from));
            }
            let mut findings = vec![
                Finding::new("keys recovered", wilson(right, keys))
                    .baseline("guessing", 0.0)
                    .succeeds_above(0.0, 0.0),
            ];
            if !bits.is_empty() {
                let fewest = Finding::new("fewest published bits", stats::mean(&bits, seed))
                    .remark("bits after the binary point; one bit less gives nothing");
                findings.push(fewest);
            }
            Ok(findings)
        })?;
    }
    Ok(())
}

/// The circuits of public attack code, decrypted wherever they end.
fn from_circuits(case: &mut SchemeCase<'_, '_>) -> std::result::Result<(), AttackError> {
    let (set, seed) = (case.params, case.run.seed);
    let keys = case.run.by_scale(2, 10);
    for circuit in Circuit::ALL {
        if circuit.levels() > set.max_level() {
            continue;
        }
        let of_step = params([
            ("circuit", circuit.name().into()),
            ("log2_n", set.n().ilog2().into()),
            ("log2_qp", set.log_qp().into()),
        ]);
        case.step(of_step, |case| {
            let mut right = 0;
            for key in 0..keys as u64 {
                let mut holder = Holder::new(set, seed.wrapping_mul(77).wrapping_add(key))?;
                let ct = circuit.evaluate(set, &mut holder)?;
                let slots = holder.unguarded(&ct)?;
                case.queries += 1;
                let found = exact::from_all_slots(set, &ct, &slots)?;
                right += usize::from(holder.knows(found.as_deref()));
            }
            Ok(vec![
                Finding::new("keys recovered", wilson(right, keys))
                    .baseline("guessing", 0.0)
                    .succeeds_above(0.0, 0.0),
            ])
        })?;
    }
    Ok(())
}

/// A regression over inferences, each of which publishes a few slots.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    /// Whether an inference publishes the slots after those of the last one.
    moving: bool,
    /// Bits after the binary point; all where there is none.
    bits: Option<u32>,
}

impl Sweep {
    const fn moving(bits: Option<u32>) -> Self {
        Self { moving: true, bits }
    }

    /// Inferences until the key is known, all of it; none where it is not after
    /// [`MOST_ROUNDS`] over all slots. The attacker tells by trial: a key decrypts.
    fn run(self, params: &'static Params, seed: u64) -> Result<Option<usize>> {
        let mut holder = Holder::new(params, seed)?;
        let scale = scale_of(params)?;
        let mut known = Regression::new(params);
        let half = params.slots();
        let (mut next, mut inferences) = (0, 0);
        for _ in 0..MOST_ROUNDS {
            let round = half.div_ceil(PUBLISHED);
            for _ in 0..round {
                let inference = hints::infer(params, &mut holder, 1, scale)?;
                let slots = holder.unguarded(&inference.result)?;
                let slots = match self.bits {
                    Some(bits) => exact::rounded(&slots, bits),
                    None => slots,
                };
                let at = (0..PUBLISHED).map(|i| match self.moving {
                    true => (next + i) % half,
                    false => i,
                });
                known.take(&inference, &slots, at);
                next = (next + PUBLISHED) % half;
            }
            inferences += round;
            if holder.knows(Some(&known.key()?)) {
                return Ok(Some(inferences));
            }
            if !self.moving {
                break;
            }
        }
        Ok(None)
    }
}

/// Ten slots of many honest inferences with known values: always the same, or others
/// each time.
fn from_hints(case: &mut SchemeCase<'_, '_>) -> std::result::Result<(), AttackError> {
    let (set, seed) = (case.params, case.run.seed);
    let bits: &[Option<u32>] = case
        .run
        .by_scale(&[None], &[None, Some(16), Some(12), Some(8)]);
    for &bits in bits {
        let named = bits.map_or_else(|| "all".into(), Into::into);
        let of_step = params([
            ("slots published", PUBLISHED.into()),
            ("which", "others each time".into()),
            ("bits", named),
        ]);
        case.step(of_step, |case| {
            let found = Sweep::moving(bits).run(set, seed)?;
            let took = found.unwrap_or(MOST_ROUNDS * set.slots().div_ceil(PUBLISHED));
            case.queries += took as u64;
            let mut findings = vec![
                Finding::new("keys recovered", wilson(usize::from(found.is_some()), 1))
                    .baseline("guessing", 0.0)
                    .verdict(
                        match found {
                            Some(_) => Verdict::Success,
                            None => Verdict::Failure,
                        },
                        "every coefficient, by a regression on what rescaling leaves away",
                    ),
            ];
            if let Some(inferences) = found {
                let count = stats::mean(&[inferences as f64], seed);
                findings.push(Finding::new("inferences", count));
            }
            Ok(findings)
        })?;
    }
    let inferences = case.run.by_scale(256, 4096);
    let of_step = params([
        ("slots published", PUBLISHED.into()),
        ("which", "always the same".into()),
        ("inferences", inferences.into()),
    ]);
    case.step(of_step, |case| {
        case.queries += inferences as u64;
        same_slots(set, seed, inferences)
    })
}

/// Always the same ten slots: what they tell.
fn same_slots(
    set: &'static Params,
    seed: u64,
    inferences: usize,
) -> std::result::Result<Vec<Finding>, AttackError> {
    let mut holder = Holder::new(set, seed)?;
    let scale = scale_of(set)?;
    let mut known = Regression::new(set);
    let at: Vec<usize> = (0..PUBLISHED).collect();
    for _ in 0..inferences {
        let inference = hints::infer(set, &mut holder, 1, scale)?;
        let slots = holder.unguarded(&inference.result)?;
        known.take(&inference, &slots, at.iter().copied());
    }
    let truth = algebra::slots(&holder.revealed(), 1.0)?;
    let [error, guess] = known.error(&truth, &at);
    let bits = (guess / error).log2().max(0.0);
    let entropy = set.n() as f64 * 3f64.log2();
    let found = known.key()?;
    let recovered = usize::from(holder.knows(Some(&found)));
    Ok(vec![
        Finding::new("keys recovered", wilson(recovered, 1)).verdict(
            match recovered {
                0 => Verdict::Failure,
                _ => Verdict::Success,
            },
            "ten slots are 20 real equations of N, see the module of hints",
        ),
        Finding::new("bits per number of the key", stats::mean(&[bits], seed)).remark(
            "of the key's values in the ten slots, 20 numbers: the ratio of guessing zero to \
             the error left",
        ),
        Finding::new(
            "share of the key's entropy",
            stats::mean(&[2.0 * PUBLISHED as f64 * bits / entropy], seed),
        ),
    ])
}
