//! Which parameter set a network is planned under.

use std::time::Instant;

use he_core::Params;
use he_core::params::{N4096_DEPTH3, N8192_DEPTH5, SETS, Security};
use he_core::ring::ntt;
use he_nn::model::Model;
use he_nn::plan::batch::BatchPlan;
use he_nn::plan::{PASSES_PER_TRANSFORM, Plan, PlanError, Target, Terms};

he_core::parameter_set! {
    /// N = 8192, depth 5, for networks of three layers with two squares on a host:
    /// digits of two primes, so that a key switch has three of them at the highest
    /// level.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 909 249 | 27.47 | base: the result and its headroom |
    /// | 65 929 217 | 25.97 | fifth rescale |
    /// | 66 420 737 | 25.99 | fourth rescale |
    /// | 66 551 809 | 25.99 | third rescale |
    /// | 66 813 953 | 25.99 | second rescale |
    /// | 67 043 329 | 26.00 | first rescale |
    /// | 185 745 409 | 27.47 | special: the two together wider than the widest digit, 53.4 bits |
    /// | 185 597 953 | 27.47 | special |
    ///
    /// log2(QP) = 212.34, and the table's row is 214. No prime is above
    /// 1.86 * 10^8, where transforms need reductions between their layers.
    pub static N8192_NETWORK = {
        n: 8192, security: Security::Classical128,
        data: [
            185_909_249, 65_929_217, 66_420_737, 66_551_809, 66_813_953, 67_043_329,
        ],
        special: [185_745_409, 185_597_953]
    };

    /// N = 8192, depth 3: as [`N8192_NETWORK`], for one square. Digits of two primes.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 909 249 | 27.47 | base: the result and its headroom |
    /// | 66 551 809 | 25.99 | third rescale |
    /// | 66 813 953 | 25.99 | second rescale |
    /// | 67 043 329 | 26.00 | first rescale |
    /// | 185 745 409 | 27.47 | special: the two together wider than the widest digit, 53.5 bits |
    /// | 185 597 953 | 27.47 | special |
    ///
    /// log2(QP) = 160.39, and the table's row is 214.
    pub static N8192_SHALLOW = {
        n: 8192, security: Security::Classical128,
        data: [185_909_249, 66_551_809, 66_813_953, 67_043_329],
        special: [185_745_409, 185_597_953]
    };

    /// N = 16384, depth 11, for deeper networks on a host: two activations of up to
    /// [`MAX_DEGREE`](he_nn::model::MAX_DEGREE), or five squares. Digits of four
    /// primes, three of them at the highest level. Primes are just above 2^26, so
    /// that powers of a value at scale 2^26 keep it.
    ///
    /// | prime | bits | for |
    /// |---|---|---|
    /// | 185 597 953 | 27.47 | base: the result and its headroom |
    /// | 67 239 937 | 26.00 | eleventh rescale |
    /// | 67 502 081 | 26.01 | tenth rescale |
    /// | 67 731 457 | 26.01 | ninth rescale |
    /// | 68 190 209 | 26.02 | eighth rescale |
    /// | 68 485 121 | 26.03 | seventh rescale |
    /// | 68 681 729 | 26.03 | sixth rescale |
    /// | 68 976 641 | 26.04 | fifth rescale |
    /// | 69 206 017 | 26.04 | fourth rescale |
    /// | 69 304 321 | 26.05 | third rescale |
    /// | 69 763 073 | 26.06 | second rescale |
    /// | 70 189 057 | 26.06 | first rescale |
    /// | 185 499 649 | 27.47 | special: the four together wider than the widest digit, 105.5 bits |
    /// | 184 811 521 | 27.46 | special |
    /// | 184 188 929 | 27.46 | special |
    /// | 183 631 873 | 27.45 | special |
    ///
    /// log2(QP) = 423.67, and the table's row is 430. No prime is above
    /// 1.86 * 10^8, where transforms need reductions between their layers.
    pub static N16384_NETWORK = {
        n: 16384, security: Security::Classical128,
        data: [
            185_597_953, 67_239_937, 67_502_081, 67_731_457, 68_190_209, 68_485_121,
            68_681_729, 68_976_641, 69_206_017, 69_304_321, 69_763_073, 70_189_057,
        ],
        special: [185_499_649, 184_811_521, 184_188_929, 183_631_873]
    };
}

/// The sets that a host tries a network with, the smallest first.
pub static HOST_SETS: [&Params; 4] = [
    &N4096_DEPTH3,
    &N8192_SHALLOW,
    &N8192_NETWORK,
    &N16384_NETWORK,
];

/// The sets of evaluators that are fed by a stream, the smallest first. They have names
/// on the command line; the firmware's build script has the same.
pub static STREAM_SETS: [&Params; 2] = [&N4096_DEPTH3, &N8192_DEPTH5];

/// The set that is meant where none is named; the firmware has the same.
pub static DEFAULT_SET: &Params = &N4096_DEPTH3;

/// A set that nobody has made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no parameter set {name}: use one of {known}")]
pub struct UnknownSet {
    name: String,
    /// Names that there are.
    known: String,
}

/// The name of a set on the command line, such as `n4096-depth3`.
#[must_use]
pub fn set_name(params: &Params) -> String {
    params.name().to_lowercase().replace('_', "-")
}

/// Looks a set of [`STREAM_SETS`] up by that name.
///
/// # Errors
/// [`UnknownSet`].
pub fn set(name: &str) -> Result<&'static Params, UnknownSet> {
    named(name, &STREAM_SETS)
}

/// Looks any set up by that name: one of he-core's, or of [`HOST_SETS`].
///
/// # Errors
/// [`UnknownSet`].
pub fn any_set(name: &str) -> Result<&'static Params, UnknownSet> {
    let own = HOST_SETS.into_iter();
    let own = own.filter(|set| SETS.iter().all(|other| other.name() != set.name()));
    named(name, &SETS.into_iter().chain(own).collect::<Vec<_>>())
}

fn named(name: &str, sets: &[&'static Params]) -> Result<&'static Params, UnknownSet> {
    let found = sets.iter().find(|set| set_name(set) == name);
    found.copied().ok_or_else(|| UnknownSet {
        name: name.into(),
        known: sets
            .iter()
            .map(|set| set_name(set))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// The set of a fingerprint, of all that networks are planned under.
#[must_use]
pub fn set_of(fingerprint: u32) -> Option<&'static Params> {
    let mut sets = HOST_SETS.into_iter().chain(STREAM_SETS);
    sets.find(|set| set.fingerprint() == fingerprint)
}

/// Plans a network for one sample: on a host under the set of [`HOST_SETS`] that takes
/// the least time, as a small ring that serves may need many more products than the
/// next; for a stream under the first of [`STREAM_SETS`] that serves; or under the set
/// that is named.
///
/// # Errors
/// [`PlanError`] of the last set that was tried.
pub fn plan<'m>(
    params: Option<&'static Params>,
    model: Model<'m>,
    terms: impl Into<Terms>,
    target: Target,
) -> Result<Plan<'m>, PlanError> {
    let terms = terms.into();
    let under = |params| {
        let mut row = vec![0.0; Plan::buffer_len(&model)];
        let mut scratch = row.clone();
        Plan::new(params, model, terms, target, &mut row, &mut scratch)
    };
    match (params, target) {
        (Some(params), _) => under(params),
        (None, Target::Stream { .. }) => first_that_serves(&STREAM_SETS, under),
        (None, Target::Host) => {
            let price = |plan: &Plan<'_>| plan.total_cost() * plan.params().n();
            let [first, rest @ ..] = HOST_SETS;
            rest.into_iter()
                .map(under)
                .fold(under(first), |best, next| match (best, next) {
                    (Ok(best), Ok(next)) if price(&next) >= price(&best) => Ok(best),
                    (Ok(best), Err(_)) => Ok(best),
                    (_, next) => next,
                })
        }
    }
}

/// Plans a network for batches, under the first of [`HOST_SETS`] that serves, or the set
/// that is named.
///
/// # Errors
/// [`PlanError`] of the last set that was tried.
pub fn batch_plan<'m>(
    params: Option<&'static Params>,
    model: Model<'m>,
) -> Result<BatchPlan<'m>, PlanError> {
    let under = |params| {
        let mut row = vec![0.0; Plan::buffer_len(&model)];
        let mut scratch = row.clone();
        BatchPlan::new(params, model, &mut row, &mut scratch)
    };
    match params {
        Some(params) => under(params),
        None => first_that_serves(&HOST_SETS, under),
    }
}

/// Plans a network for batches whose values are published, under the first of
/// [`HOST_SETS`], or the set that is named, for which `serves`; or the widest that there
/// is, where it is for none.
///
/// # Errors
/// [`PlanError`] of the last set that was tried, where none has a plan.
pub fn wide_batch_plan<'m>(
    params: Option<&'static Params>,
    model: Model<'m>,
    serves: impl Fn(&BatchPlan<'m>) -> bool,
) -> Result<BatchPlan<'m>, PlanError> {
    let under = |params| {
        let mut row = vec![0.0; Plan::buffer_len(&model)];
        let mut scratch = row.clone();
        BatchPlan::wide(params, model, &mut row, &mut scratch)
    };
    let mut best = None;
    let mut failed = PlanError::Depth {
        needed: 1,
        available: 0,
    };
    for params in params.map_or(HOST_SETS.to_vec(), |named| vec![named]) {
        match under(params) {
            Ok(plan) if serves(&plan) => return Ok(plan),
            Ok(plan) => best = Some(plan),
            Err(error) => failed = error,
        }
    }
    best.ok_or(failed)
}

/// How the bytes of [`batch_bytes`] begin.
const BATCH: &[u8] = b"he-edge batch plan 1";

/// What batches are evaluated by, as bytes: set, network, level and scale of the inputs,
/// and every step, without weights. They are what a batch has for a program: a file's head
/// has their digest, and [`batch_plan_of`] makes the plan again from them and the network.
#[must_use]
pub fn batch_bytes(plan: &BatchPlan<'_>) -> Vec<u8> {
    let number = |x: usize| (x as u64).to_le_bytes();
    let mut bytes = BATCH.to_vec();
    bytes.extend_from_slice(&plan.params().fingerprint().to_le_bytes());
    bytes.extend_from_slice(&plan.model().crc().to_le_bytes());
    bytes.extend_from_slice(&number(plan.input_level()));
    bytes.extend_from_slice(&plan.input_scale().to_le_bytes());
    for step in plan.steps() {
        for x in [
            step.layer,
            step.level,
            step.rescales,
            step.approach.rescales,
        ] {
            bytes.extend_from_slice(&number(x));
        }
        for x in [step.input, step.output, step.approach.factor] {
            bytes.extend_from_slice(&x.to_le_bytes());
        }
    }
    bytes
}

/// How [`batch_bytes`] begin: what the rest is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchHead {
    /// Fingerprint of the parameter set.
    pub params: u32,
    /// The network's checksum.
    pub model_crc: u32,
    level: usize,
    scale: f64,
}

impl BatchHead {
    /// Of bytes that are a plan of batches.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (params, rest) = bytes.strip_prefix(BATCH)?.split_first_chunk()?;
        let (model_crc, rest) = rest.split_first_chunk()?;
        let (level, rest) = rest.split_first_chunk()?;
        let (scale, _) = rest.split_first_chunk()?;
        Some(Self {
            params: u32::from_le_bytes(*params),
            model_crc: u32::from_le_bytes(*model_crc),
            level: usize::try_from(u64::from_le_bytes(*level)).ok()?,
            scale: f64::from_le_bytes(*scale),
        })
    }
}

/// The plan of batches with these bytes, for a network; nothing where this version makes
/// another of what they begin with.
#[must_use]
pub fn batch_plan_of<'m>(model: Model<'m>, bytes: &[u8]) -> Option<BatchPlan<'m>> {
    let head = BatchHead::read(bytes)?;
    let params = set_of(head.params)?;
    // What is no power of two, or no number, gives other bytes.
    let inputs = (head.level, head.scale.log2() as i32);
    let mut row = vec![0.0; Plan::buffer_len(&model)];
    let mut scratch = row.clone();
    let plan = BatchPlan::of_inputs(params, model, inputs, &mut row, &mut scratch).ok()?;
    (batch_bytes(&plan) == bytes).then_some(plan)
}

/// Why batches do not take encrypted weights: each would be a ciphertext of its own.
#[must_use]
pub fn encrypted_batch(model: &Model<'_>) -> PlanError {
    let layers = model.layers();
    let of_layer = layers.filter_map(|view| view.layer.linear().copied());
    PlanError::EncryptedBatch {
        weights: of_layer.map(|linear| linear.weights.len()).sum(),
    }
}

/// What the first of some sets gives that gives anything. Where memory is missing, a
/// larger set misses more, so the search ends there.
fn first_that_serves<T>(
    sets: &[&'static Params],
    plan: impl Fn(&'static Params) -> Result<T, PlanError>,
) -> Result<T, PlanError> {
    let mut planned = Err(PlanError::Depth {
        needed: 1,
        available: 0,
    });
    for params in sets {
        if matches!(planned, Ok(_) | Err(PlanError::Memory { .. })) {
            break;
        }
        planned = plan(params);
    }
    planned
}

/// Seconds that so many passes over a limb take on this machine, by the time of a
/// transform: the least of some.
///
/// # Errors
/// That of a set without primes, which there is not.
pub fn seconds(params: &Params, passes: usize) -> he_core::Result<f64> {
    const RUNS: usize = 50;
    let prime = params.prime(0)?;
    let mut limb = vec![1; params.n()];
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let start = Instant::now();
        ntt::forward(&mut limb, prime)?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least * passes as f64 / PASSES_PER_TRANSFORM as f64)
}

#[cfg(test)]
mod tests {
    use he_nn::plan::WeightMode;

    use super::*;

    /// The figures are of the set that lacks the least.
    #[test]
    fn missing_memory_is_that_of_the_first_set() {
        let model = he_nn::bundled::model("mnist-mlp64").unwrap();
        let model = Model::parse(model).unwrap();
        let board = he_nn::boards::find("mps2-an386-256k").unwrap();
        let under = |params| plan(params, model, WeightMode::Encrypted, board.target());
        let named = under(Some(&N4096_DEPTH3)).unwrap_err();
        assert!(matches!(named, PlanError::Memory { .. }));
        assert_eq!(under(None).unwrap_err(), named);
        assert_ne!(under(Some(&N8192_DEPTH5)).unwrap_err(), named);
    }

    #[test]
    fn a_plan_of_batches_is_made_again_from_its_bytes() {
        let pima = Model::parse(he_nn::bundled::model("pima-logreg").unwrap()).unwrap();
        let mlp = Model::parse(he_nn::bundled::model("mnist-mlp64").unwrap()).unwrap();
        let usual = batch_plan(None, pima).unwrap();
        let wide = wide_batch_plan(None, pima, |_| true).unwrap();
        assert_ne!(batch_bytes(&usual), batch_bytes(&wide));
        for plan in [usual, wide, batch_plan(None, mlp).unwrap()] {
            let bytes = batch_bytes(&plan);
            let made = batch_plan_of(*plan.model(), &bytes).unwrap();
            assert_eq!(made.steps(), plan.steps());
            assert_eq!(made.logit_error(), plan.logit_error());
            // Of another network, cut off, or with any byte changed: none.
            let other = match plan.model().name() == pima.name() {
                true => mlp,
                false => pima,
            };
            assert!(batch_plan_of(other, &bytes).is_none());
            assert!(batch_plan_of(*plan.model(), &bytes[..bytes.len() - 1]).is_none());
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(batch_plan_of(*plan.model(), &changed).is_none(), "{at}");
            }
        }
    }

    #[test]
    fn sets_have_names() {
        for params in STREAM_SETS {
            assert!(std::ptr::eq(set(&set_name(params)).unwrap(), params));
        }
        assert_eq!(
            set("n16").unwrap_err().to_string(),
            "there is no parameter set n16: use one of n4096-depth3, n8192-depth5"
        );
    }
}
