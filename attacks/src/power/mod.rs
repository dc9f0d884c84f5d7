//! The key of a sensor out of the power that its processor takes, **simulated**.
//!
//! A sensor multiplies the uniform half of every ciphertext, which is public, by the
//! transform of one fixed key. Whoever measures what its processor takes meanwhile knows one
//! factor of each product and learns the other ([`cpa`]): a limb of the transform is the
//! whole key.
//!
//! No power is measured here. What leaks is the Hamming weight of the words that an
//! instruction writes, or the Hamming distance to those that they replace, with normal noise:
//! [`kernel`] carries out the firmware's loop instruction by instruction, over the words of
//! he-core's encryptions ([`sensor`]). Its registers are those of the emulated board, word
//! by word, and the same analysis finds the key in what that board writes
//! (`tests/tests/board_power.rs`). A device differs in what else it does at that time, in
//! its pipeline, and in how its leak depends on data; its signal-to-noise ratio decides how
//! many encryptions it takes.
//!
//! An open sensor leaks more than these products: it computes the key's transform anew for
//! every limb of every encryption, always the same, so that averages over encryptions lose
//! all noise, and one trace may be enough ([`template`]).
//!
//! Against the analysis stands [`he_core::rlwe::MaskedKey`], of which the same is tried, and
//! two figures that would show a leak too small to find a word by, each beside what it is by
//! chance. The rank of a word's low byte stands beside the rank of the same byte where uniform
//! halves are exchanged: guesses whose prediction varies less rank higher where nothing leaks,
//! so one half is the mean over all bytes alone. The correlation of samples with what the
//! right word predicts stands beside that of another word: products of one even factor have
//! zeros in common, whatever the other factors are, so it is some 0.06 where nothing leaks.
//!
//! A quick run looks for a whole limb, and at a protected sensor, with the largest set alone.
//!
//! Traces are recorded once per key. Runs draw noise, encryptions and words anew.

pub mod cpa;
pub mod kernel;
pub mod sensor;
pub mod template;

use std::cell::OnceCell;

use chacha20::ChaCha8Rng;
use he_core::{Error, Params};
use rand_core::SeedableRng;
use rayon::prelude::*;

use self::cpa::{Draw, Observed};
use self::kernel::Leakage;
use self::sensor::{Protection, Sensor, Traces};
use self::template::{Measured, Templates, Told};
use crate::attack::{
    Attack, AttackError, Context, Control, Must, Outcome, SchemeCase, Subject, params,
};
use crate::random;
use crate::record::{Finding, Scale, Verdict};
use crate::stats::{Estimate, mean, wilson};
use crate::target::{Access, Grants};

/// Encryptions at most.
pub const MOST: usize = 1000;

/// Numbers of encryptions that are tried, by a factor of about 5/4.
const LADDER: [usize; 19] = [
    16, 20, 25, 32, 40, 50, 64, 80, 100, 125, 160, 200, 250, 320, 400, 500, 640, 800, MOST,
];

/// Signal-to-noise ratios of a sample.
const RATIOS: [f64; 5] = [10.0, 1.0, 0.3, 0.1, 0.03];

/// The ratio at which a whole limb is to be found.
const WHOLE_LIMB_RATIO: f64 = 1.0;

/// Runs against a protected sensor.
const PROTECTED_RUNS: usize = 100;

/// The largest ring degree of a sensor: three limbs are 48 KiB there.
const LARGEST: usize = 4096;

/// What every reason says.
const SIMULATED: &str = "simulated: no power was measured";

/// A figure, whose name says that it is simulated.
fn simulated(name: &str, estimate: Estimate) -> Finding {
    Finding::new(&format!("simulated power: {name}"), estimate)
}

/// A sensor and its traces.
struct Recorded {
    sensor: Sensor,
    traces: Traces,
}

impl Recorded {
    fn new(
        set: &'static Params,
        seed: u64,
        protection: Protection,
        encryptions: usize,
    ) -> Result<Self, Error> {
        let mut sensor = Sensor::new(set, seed, protection)?;
        let traces = sensor.traces(encryptions)?;
        Ok(Self { sensor, traces })
    }

    /// How many of the words an analysis finds.
    fn right(&self, product: usize, words: &[usize], draw: Draw<'_>) -> usize {
        let found = cpa::recover(&self.traces, product, words, draw);
        let pairs = words.iter().zip(found);
        pairs
            .filter(|&(&index, word)| self.sensor.transform()[index] == word)
            .count()
    }

    /// Words found of the whole limb, and the key if that is one.
    fn limb(&self, draw: Draw<'_>) -> Result<(usize, bool), Error> {
        let all: Vec<usize> = (0..self.traces.words()).collect();
        let words = cpa::recover(&self.traces, 0, &all, draw);
        let pairs = words.iter().zip(self.sensor.transform());
        let right = pairs.filter(|(a, b)| a == b).count();
        let key = self.traces.key_of(&words)?;
        Ok((right, key.as_deref() == Some(self.sensor.coefficients())))
    }
}

/// Encryptions and words of a run, in random order.
struct Subset {
    encryptions: Vec<usize>,
    words: Vec<usize>,
    seed: u64,
}

impl Subset {
    fn draw(traces: &Traces, words: usize, seed: u64, run: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(run as u64);
        let mut drawn = |count: usize, of: usize| {
            let mut all: Vec<usize> = (0..of).collect();
            random::shuffle(&mut all, &mut rng);
            all.truncate(count);
            all
        };
        Self {
            encryptions: drawn(traces.len(), traces.len()),
            words: drawn(words, traces.words()),
            seed: seed.wrapping_mul(1009).wrapping_add(run as u64),
        }
    }

    /// The first encryptions of them.
    fn first(&self, count: usize, leakage: Leakage, snr: f64) -> Draw<'_> {
        Draw {
            leakage,
            snr,
            encryptions: self.encryptions.get(..count).unwrap_or(&self.encryptions),
            seed: self.seed,
        }
    }
}

/// The fewest encryptions of [`LADDER`] from which all words of a run are found; none if
/// [`MOST`] are too few.
fn needed(recorded: &Recorded, subset: &Subset, leakage: Leakage, snr: f64) -> Option<usize> {
    let all = |count: usize| {
        let draw = subset.first(count, leakage, snr);
        recorded.right(0, &subset.words, draw) == subset.words.len()
    };
    // More encryptions find more, up to luck.
    let at = LADDER.partition_point(|&count| !all(count));
    LADDER.get(at).copied()
}

fn exactly(value: f64) -> Estimate {
    Estimate {
        value,
        ci95: [value, value],
    }
}

/// How many encryptions it takes, by leakage and ratio.
fn sweep(case: &mut SchemeCase<'_, '_>, recorded: &Lazy) -> Result<(), AttackError> {
    let (set, seed) = (case.params, case.run.seed);
    let (runs, words) = (case.run.by_scale(4, 50), case.run.by_scale(4, 16));
    for leakage in Leakage::ALL {
        for snr in RATIOS {
            let of_step = params([
                ("protection", Protection::None.name().into()),
                ("leakage", leakage.name().into()),
                ("snr", snr.into()),
                ("words", words.into()),
                ("runs", runs.into()),
                ("encryptions", MOST.into()),
            ]);
            case.step(of_step, |case| {
                let recorded = recorded.of(set, seed)?;
                case.queries += MOST as u64;
                let found: Vec<Option<usize>> = (0..runs)
                    .map(|run| {
                        let subset = Subset::draw(&recorded.traces, words, seed, run);
                        needed(recorded, &subset, leakage, snr)
                    })
                    .collect();
                let enough: Vec<f64> = found.iter().flatten().map(|&n| n as f64).collect();
                let share = wilson(enough.len(), runs);
                let verdict = match enough.len() {
                    0 => Verdict::Failure,
                    count if count == runs => Verdict::Success,
                    _ => Verdict::Inconclusive,
                };
                let mut findings =
                    vec![simulated("runs that find all words", share).verdict(verdict, SIMULATED)];
                if !enough.is_empty() {
                    let remark = format!("{SIMULATED}; the mean over runs that find all words");
                    let needed = mean(&enough, seed);
                    findings.push(simulated("encryptions needed", needed).remark(&remark));
                }
                Ok(findings)
            })?;
        }
    }
    Ok(())
}

/// A whole limb, which is the key.
fn whole_limb(case: &mut SchemeCase<'_, '_>, recorded: &Lazy) -> Result<(), AttackError> {
    let (set, seed) = (case.params, case.run.seed);
    let encryptions = case.run.by_scale(400, MOST);
    for &leakage in case.run.by_scale(&Leakage::ALL[..1], &Leakage::ALL) {
        let of_step = params([
            ("protection", Protection::None.name().into()),
            ("leakage", leakage.name().into()),
            ("snr", WHOLE_LIMB_RATIO.into()),
            ("words", set.n().into()),
            ("encryptions", encryptions.into()),
        ]);
        case.step(of_step, |case| {
            let recorded = recorded.of(set, seed)?;
            case.queries += encryptions as u64;
            let subset = Subset::draw(&recorded.traces, 0, seed, 0);
            let draw = subset.first(encryptions, leakage, WHOLE_LIMB_RATIO);
            let (right, is_key) = recorded.limb(draw)?;
            // Of a ternary key.
            let all = set.n() as f64 * 3f64.log2();
            let bits = if is_key { all } else { 0.0 };
            let verdict = if is_key {
                Verdict::Success
            } else {
                Verdict::Failure
            };
            Ok(vec![
                simulated("words of a limb found", wilson(right, set.n())).remark(SIMULATED),
                simulated("bits of the key found", exactly(bits))
                    .baseline("bits of the key", all)
                    .verdict(verdict, SIMULATED),
            ])
        })?;
    }
    Ok(())
}

/// Encryptions of which templates see the mean.
const TEMPLATE_ENCRYPTIONS: [usize; 2] = [1, 10];

/// What templates tell of a run's sensor that was made for it, from a sensor with another key.
/// Under masks they see words of the share of one limb.
fn told(
    set: &'static Params,
    protection: Protection,
    measured: Measured,
    change: fn(Templates) -> Templates,
) -> Result<Told, Error> {
    let seed = measured.seed.wrapping_mul(2);
    let own = Sensor::new(set, seed, Protection::None)?;
    let mut attacked = Sensor::new(set, seed.wrapping_add(1), protection)?;
    let mut own_words = template::stored(set, own.coefficients())?;
    let words = match protection {
        Protection::None => template::stored(set, attacked.coefficients())?,
        Protection::Masked => {
            own_words = vec![own_words.swap_remove(attacked.limb())];
            let (_, products) = attacked.encrypt()?;
            products
                .into_iter()
                .take(1)
                .map(|[share, _]| share)
                .collect()
        }
    };
    let profiled = Measured {
        seed: measured.seed ^ u64::MAX,
        ..measured
    };
    let leaks = template::leaks(&own_words, profiled);
    let templates = change(Templates::new(own.coefficients(), &leaks));
    let found = templates.probabilities(&template::leaks(&words, measured));
    Ok(Told::of(&found, attacked.coefficients()))
}

/// The key out of one trace, or the mean of a few, by templates.
fn by_templates(case: &mut SchemeCase<'_, '_>) -> Result<(), AttackError> {
    let (set, seed) = (case.params, case.run.seed);
    let open = RATIOS
        .iter()
        .flat_map(|&snr| TEMPLATE_ENCRYPTIONS.map(|count| (Protection::None, snr, count)));
    // The share is another one in each encryption.
    let masked = [(Protection::Masked, RATIOS[0], 1)];
    for (step, (protection, snr, encryptions)) in open.chain(masked).enumerate() {
        let runs = match protection {
            Protection::None => case.run.by_scale(4, 50),
            Protection::Masked => PROTECTED_RUNS,
        };
        let of_step = params([
            ("by", "templates".into()),
            ("protection", protection.name().into()),
            ("leakage", Leakage::Weight.name().into()),
            ("snr", snr.into()),
            ("runs", runs.into()),
            ("encryptions", encryptions.into()),
        ]);
        case.step(of_step, |case| {
            case.queries += encryptions as u64;
            let run = |run: usize| {
                let measured = Measured {
                    snr,
                    encryptions,
                    // Noise of its own for every step.
                    seed: seed
                        .wrapping_mul(1009)
                        .wrapping_add((step * PROTECTED_RUNS + run) as u64),
                };
                told(set, protection, measured, |templates| templates)
            };
            let all: Result<Vec<Told>, Error> = (0..runs).into_par_iter().map(run).collect();
            let all = all?;
            let n = set.n();
            let keys = all.iter().filter(|told| told.right == n).count();
            let shares: Vec<f64> = all.iter().map(|t| t.right as f64 / n as f64).collect();
            let bits: Vec<f64> = all.iter().map(|told| told.bits).collect();
            // Some of the key is no key, and leaves less of it than its parameters promise.
            let verdict = match (keys, protection) {
                (0, Protection::Masked) => Verdict::Failure,
                (keys, _) if keys == runs => Verdict::Success,
                _ => Verdict::Inconclusive,
            };
            let mut findings = vec![
                simulated("keys found", wilson(keys, runs)).verdict(verdict, SIMULATED),
                simulated("coefficients found", mean(&shares, seed))
                    .baseline("guessing", 1.0 / 3.0)
                    .remark(SIMULATED),
            ];
            // Of words that templates were not made for their probabilities say nothing.
            if protection == Protection::None {
                let known = simulated("bits of the key known", mean(&bits, seed));
                let known = known.baseline("bits of the key", n as f64 * 3f64.log2());
                findings.push(known.remark(SIMULATED));
            }
            Ok(findings)
        })?;
    }
    Ok(())
}

/// What one run tells of a protected sensor.
struct Attempt {
    /// Words found.
    right: usize,
    /// Per word and product the rank of the right low byte, and its rank with uniform halves
    /// of other encryptions.
    ranks: Vec<[f64; 2]>,
    /// Per word and product the correlation with what the right word predicts, and with
    /// what the word behind it does.
    correlations: Vec<[f64; 2]>,
}

impl Attempt {
    fn new(recorded: &Recorded, others: &Traces, subset: &Subset, draw: Draw<'_>) -> Self {
        let mut attempt = Self {
            right: 0,
            ranks: Vec::new(),
            correlations: Vec::new(),
        };
        for product in 0..recorded.traces.products() {
            attempt.right += recorded.right(product, &subset.words, draw);
            for &index in &subset.words {
                let word = recorded.sensor.transform()[index];
                let observed = [&recorded.traces, others]
                    .map(|traces| Observed::new(traces, product, index, draw));
                attempt
                    .ranks
                    .push(observed.each_ref().map(|o| o.rank(word)));
                let transform = recorded.sensor.transform();
                let other = transform[(index + 1) % transform.len()];
                let pair = [word, other].map(|word| observed[0].correlation(word));
                attempt.correlations.push(pair);
            }
        }
        attempt
    }
}

/// Figures, what they are by chance, and their differences.
fn beside<'p>(pairs: impl Iterator<Item = &'p [f64; 2]>) -> [Vec<f64>; 3] {
    let mut all = [const { Vec::new() }; 3];
    for &[found, by_chance] in pairs {
        for (all, value) in all.iter_mut().zip([found, by_chance, found - by_chance]) {
            all.push(value);
        }
    }
    all
}

/// The same analysis of a sensor that masks its key, of both products.
fn protected(case: &mut SchemeCase<'_, '_>, recorded: &Lazy) -> Result<(), AttackError> {
    let (set, seed) = (case.params, case.run.seed);
    let (runs, words) = (PROTECTED_RUNS, case.run.by_scale(1, 16));
    for leakage in Leakage::ALL {
        let snr = RATIOS[0];
        let of_step = params([
            ("protection", Protection::Masked.name().into()),
            ("leakage", leakage.name().into()),
            ("snr", snr.into()),
            ("words", words.into()),
            ("runs", runs.into()),
            ("encryptions", MOST.into()),
        ]);
        case.step(of_step, |case| {
            let recorded = recorded.of(set, seed)?;
            case.queries += MOST as u64;
            let others = recorded.traces.clone().shuffled();
            let attempt = |run: usize| {
                let subset = Subset::draw(&recorded.traces, words, seed, run);
                let draw = subset.first(MOST, leakage, snr);
                Attempt::new(recorded, &others, &subset, draw)
            };
            let attempts: Vec<Attempt> = (0..runs).into_par_iter().map(attempt).collect();
            let right: usize = attempts.iter().map(|a| a.right).sum();
            let successes = attempts.iter().filter(|a| a.right > 0).count();
            let ranks = attempts.iter().flat_map(|a| &a.ranks);
            let [rank, by_chance, rank_excess] = beside(ranks);
            let correlations = attempts.iter().flat_map(|a| &a.correlations);
            let [correlation, of_another, excess] = beside(correlations);
            let verdict = match successes {
                0 => Verdict::Failure,
                _ => Verdict::Success,
            };
            let reason = format!(
                "{SIMULATED}; an analysis of the first order: what combines samples of both \
                 products is not excluded"
            );
            Ok(vec![
                simulated("words found", wilson(right, rank.len())).remark(SIMULATED),
                simulated("runs that find any word", wilson(successes, runs))
                    .verdict(verdict, &reason),
                simulated("rank of the low byte", mean(&rank, seed))
                    .baseline("halves exchanged", mean(&by_chance, seed).value)
                    .remark(SIMULATED),
                simulated(
                    "rank less that with halves exchanged",
                    mean(&rank_excess, seed),
                )
                .baseline("no leak", 0.0)
                .remark(SIMULATED),
                simulated("correlation with the right word", mean(&correlation, seed))
                    .baseline("another word", mean(&of_another, seed).value)
                    .remark(SIMULATED),
                simulated(
                    "correlation less that with another word",
                    mean(&excess, seed),
                )
                .baseline("no leak", 0.0)
                .remark(SIMULATED),
            ])
        })?;
    }
    Ok(())
}

/// Traces that are recorded where a step first needs them.
struct Lazy {
    protection: Protection,
    recorded: OnceCell<Recorded>,
}

impl Lazy {
    const fn new(protection: Protection) -> Self {
        Self {
            protection,
            recorded: OnceCell::new(),
        }
    }

    fn of(&self, set: &'static Params, seed: u64) -> Result<&Recorded, Error> {
        if let Some(recorded) = self.recorded.get() {
            return Ok(recorded);
        }
        let recorded = Recorded::new(set, seed, self.protection, MOST)?;
        Ok(self.recorded.get_or_init(|| recorded))
    }
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Power;

impl Attack for Power {
    fn name(&self) -> &'static str {
        "power"
    }

    fn about(&self) -> &'static str {
        "finds a sensor's key in simulated power traces: of its products with public polynomials, and in one of the key's transform"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Ciphertexts])
    }

    fn subject(&self) -> Subject {
        Subject::Schemes
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_scheme(self, |case| {
            if case.params.n() > LARGEST {
                let reason = format!("no sensor has memory for N above {LARGEST} here");
                return case.step(params([]), |_| Ok(vec![Finding::not_applicable(&reason)]));
            }
            by_templates(case)?;
            let open = Lazy::new(Protection::None);
            sweep(case, &open)?;
            if case.run.scale == Scale::Quick && case.params.n() < LARGEST {
                return Ok(());
            }
            whole_limb(case, &open)?;
            protected(case, &Lazy::new(Protection::Masked))
        })
    }

    /// Eight words each.
    fn controls(&self) -> Vec<Control<'_>> {
        use he_core::params::N2048_DEPTH1 as SMALL;
        const WORDS: usize = 8;
        const ENCRYPTIONS: usize = 200;
        type Change = fn(Traces) -> Traces;
        let of = |name, must, protection: Protection, change: Change| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let mut recorded = Recorded::new(&SMALL, seed, protection, ENCRYPTIONS)?;
                recorded.traces = change(recorded.traces);
                let subset = Subset::draw(&recorded.traces, WORDS, seed, 0);
                let mut right = 0;
                for product in 0..protection.products() {
                    for leakage in Leakage::ALL {
                        let draw = subset.first(ENCRYPTIONS, leakage, RATIOS[0]);
                        right += recorded.right(product, &subset.words, draw);
                    }
                }
                let tried = WORDS * Leakage::ALL.len() * protection.products();
                let value = right as f64 / tried as f64;
                Ok(Outcome {
                    succeeded: value > 0.0,
                    value,
                    bar: 0.0,
                })
            }),
        };
        let by_templates = |name, must, protection, change: fn(Templates) -> Templates| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let measured = Measured {
                    snr: RATIOS[0],
                    encryptions: 10,
                    seed,
                };
                let told = told(&SMALL, protection, measured, change)?;
                // Five standard deviations above guessing.
                let n = SMALL.n() as f64;
                let bar = 1.0 / 3.0 + 5.0 * (2.0 / 9.0 / n).sqrt();
                let value = told.right as f64 / n;
                Ok(Outcome {
                    succeeded: value > bar,
                    value,
                    bar,
                })
            }),
        };
        vec![
            by_templates(
                "templates, an open sensor",
                Must::Succeed,
                Protection::None,
                |templates| templates,
            ),
            by_templates(
                "templates whose values are exchanged",
                Must::Fail,
                Protection::None,
                Templates::exchanged,
            ),
            by_templates(
                "templates, a masked key",
                Must::Fail,
                Protection::Masked,
                |templates| templates,
            ),
            of(
                "an open sensor",
                Must::Succeed,
                Protection::None,
                |traces| traces,
            ),
            of(
                "an open sensor, uniform halves of other encryptions",
                Must::Fail,
                Protection::None,
                Traces::shuffled,
            ),
            of("a masked key", Must::Fail, Protection::Masked, |traces| {
                traces
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use he_core::params::N2048_DEPTH1;

    /// With little noise every word of a limb is found, and they are the key.
    #[test]
    fn a_limb_is_the_key() {
        let recorded = Recorded::new(&N2048_DEPTH1, 3, Protection::None, 100).unwrap();
        let subset = Subset::draw(&recorded.traces, 0, 3, 0);
        for leakage in Leakage::ALL {
            let draw = subset.first(100, leakage, 10.0);
            let (right, is_key) = recorded.limb(draw).unwrap();
            assert_eq!((right, is_key), (N2048_DEPTH1.n(), true), "{leakage:?}");
        }
        // A wrong word is no key.
        let mut words = recorded.sensor.transform().to_vec();
        words[7] ^= 1;
        assert_eq!(recorded.traces.key_of(&words).unwrap(), None);
    }

    /// Masks leave no correlation beyond that of another word, where without them there is
    /// some of each sample; the bar is five standard errors of as many independent pairs.
    #[test]
    fn masks_leave_no_correlation() {
        const ENCRYPTIONS: usize = 500;
        for protection in [Protection::None, Protection::Masked] {
            let recorded = Recorded::new(&N2048_DEPTH1, 7, protection, ENCRYPTIONS).unwrap();
            let subset = Subset::draw(&recorded.traces, 200, 7, 0);
            for (leakage, product) in Leakage::ALL
                .into_iter()
                .flat_map(|l| (0..protection.products()).map(move |p| (l, p)))
            {
                let draw = subset.first(ENCRYPTIONS, leakage, RATIOS[0]);
                let of = |&index: &usize| {
                    let transform = recorded.sensor.transform();
                    let observed = Observed::new(&recorded.traces, product, index, draw);
                    let other = transform[(index + 1) % transform.len()];
                    observed.correlation(transform[index]) - observed.correlation(other)
                };
                let all: Vec<f64> = subset.words.iter().map(of).collect();
                let average = all.iter().sum::<f64>() / all.len() as f64;
                let bar = 5.0 * (2.0 / (ENCRYPTIONS * all.len()) as f64).sqrt();
                match protection {
                    Protection::None => assert!(average > 5.0 * bar, "{leakage:?} {average}"),
                    Protection::Masked => {
                        assert!(average.abs() < bar, "{leakage:?} {product} {average}");
                    }
                }
            }
        }
    }

    /// More noise takes more encryptions, and the rank tells what is known.
    #[test]
    fn noise_takes_encryptions() {
        let recorded = Recorded::new(&N2048_DEPTH1, 4, Protection::None, MOST).unwrap();
        let subset = Subset::draw(&recorded.traces, 4, 4, 0);
        let needed = |snr| needed(&recorded, &subset, Leakage::Weight, snr);
        let [clean, noisy] = [10.0, 0.1].map(needed);
        assert!(
            clean.unwrap() < noisy.unwrap_or(usize::MAX),
            "{clean:?} {noisy:?}"
        );
        assert_eq!(needed(1e-6), None);
        let index = subset.words[0];
        let word = recorded.sensor.transform()[index];
        let rank = |snr| {
            let draw = subset.first(MOST, Leakage::Weight, snr);
            Observed::new(&recorded.traces, 0, index, draw).rank(word)
        };
        assert!(rank(10.0) < 0.05 && rank(1e-6) > 0.05);
    }
}
