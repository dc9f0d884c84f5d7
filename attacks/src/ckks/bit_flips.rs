//! Single bits that flip in what an evaluator holds, and the labels that come of it.
//!
//! Whatever flips a bit (a fault of memory, a line, somebody with a hammer), the
//! question is whether the client notices: a label that is wrong and looks right is
//! silent. Each flip is one inference with one bit changed in one [`Place`], from the
//! evaluator's reading of it on, past the checksums of files and frames, which are of
//! the way there and not of memory. The label is looked at three times: as decryption
//! gives it, after the client's checks (format, level, scale, what wraps around), and
//! where the answer is evaluated again and compared to the bit.
//!
//! All flips are of inferences of one digit under one key: shares are over the bits, and
//! not over inputs and keys.
//!
//! What is flipped are bytes as they lie in memory while nothing is computed: uploads,
//! switching keys, weights, results. Sums and products under way, which live for
//! microseconds, are not.
//!
//! This crate has no engine: [`Exposed`] is one that whoever runs it supplies
//! ([`crate::Deploy::exposed`]).

use chacha20::ChaCha8Rng;
use he_core::Params;
use rand_core::SeedableRng;

use crate::attack::{Attack, AttackError, Context, Control, Must, Outcome, Subject, params};
use crate::random;
use crate::record::{Finding, Verdict};
use crate::stats::wilson;
use crate::target::{Access, Grants, TargetError};

use super::forger::Flips;

/// Where a bit flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The ciphertexts of a request.
    Upload,
    /// The evaluator's switching keys.
    Keys,
    /// The evaluator's weights.
    Weights,
    /// The ciphertext that it returns.
    Result,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Upload, Self::Keys, Self::Weights, Self::Result];

    const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Keys => "switching keys",
            Self::Weights => "weights",
            Self::Result => "result",
        }
    }

    /// Flips in a quick run and in a full one: a million in all. Keys and weights are
    /// read anew for each, which takes longer than an inference.
    const fn flips(self) -> [usize; 2] {
        match self {
            Self::Upload => [1000, 400_000],
            Self::Result => [2000, 500_000],
            Self::Keys | Self::Weights => [200, 50_000],
        }
    }
}

/// Flips of a step at most: an interrupted run goes on after the last.
const STEP: usize = 50_000;

/// What became of an inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The label as decryption gives it; none where there is nothing to decrypt.
    pub unchecked: Option<usize>,
    /// The label that the client's checks let through.
    pub checked: Option<usize>,
    /// Whether the result is, to the bit, the one that the client computes again.
    pub reproduced: bool,
}

/// An inference whose memory can be reached.
pub trait Exposed {
    /// Its name in records.
    fn name(&self) -> &str;

    /// The set that it is encrypted under.
    fn params(&self) -> &'static Params;

    /// Bits of a place.
    fn bits(&self, place: Place) -> u64;

    /// The label without any flip.
    fn honest(&self) -> usize;

    /// One inference with one bit of a place flipped.
    ///
    /// # Errors
    /// [`TargetError::Failed`] for what is no consequence of the flip.
    fn flipped(&mut self, place: Place, bit: u64) -> Result<Fate, TargetError>;
}

/// Counts of silent labels: unchecked, checked, audited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Silent {
    flips: usize,
    unchecked: usize,
    checked: usize,
    audited: usize,
}

impl Silent {
    fn of(
        exposed: &mut dyn Exposed,
        place: Place,
        flips: usize,
        seed: u64,
    ) -> Result<Self, TargetError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let bits = exposed.bits(place).max(1);
        let honest = exposed.honest();
        let mut silent = Self::default();
        for _ in 0..flips {
            let bit = random::below(&mut rng, bits as usize) as u64;
            let fate = exposed.flipped(place, bit)?;
            let wrong = |label: Option<usize>| label.is_some_and(|label| label != honest);
            silent.flips += 1;
            silent.unchecked += usize::from(wrong(fate.unchecked));
            silent.checked += usize::from(wrong(fate.checked));
            silent.audited += usize::from(wrong(fate.checked) && fate.reproduced);
        }
        Ok(silent)
    }

    fn findings(self) -> Vec<Finding> {
        let of = |metric, count, reason: &str| {
            let verdict = match count {
                0 => Verdict::Failure,
                _ => Verdict::Success,
            };
            let reason = format!("{reason}; of one digit under one key");
            Finding::new(metric, wilson(count, self.flips)).verdict(verdict, &reason)
        };
        vec![
            of(
                "silent wrong labels, unchecked",
                self.unchecked,
                "whatever decryption gives",
            ),
            of(
                "silent wrong labels, checked",
                self.checked,
                "format, level, scale and half of the modulus are checked",
            )
            .baseline(
                "unchecked",
                self.unchecked as f64 / self.flips.max(1) as f64,
            ),
            of(
                "silent wrong labels, every answer audited",
                self.audited,
                "evaluated again and compared to the bit; of a share that is audited, the \
                 others are as without",
            ),
        ]
    }
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct BitFlips;

impl Attack for BitFlips {
    fn name(&self) -> &'static str {
        "bit-flips"
    }

    fn about(&self) -> &'static str {
        "flips single bits of ciphertexts, keys and weights, and counts wrong labels that look right"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Labels, Access::Ciphertexts])
    }

    fn subject(&self) -> Subject {
        Subject::Schemes
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        let mut exposed = match context.deploy {
            Some(deploy) => deploy.exposed()?,
            None => None,
        };
        let Some(exposed) = &mut exposed else {
            return context.each_scheme(self, |case| {
                case.step(params([]), |_| {
                    let reason = "there is no engine here whose memory can be reached";
                    Ok(vec![Finding::not_applicable(reason)])
                })
            });
        };
        let name = exposed.name().to_owned();
        let set = exposed.params();
        context.own_scheme(self, &name, set, |case| {
            let seed = case.run.seed;
            for place in Place::ALL {
                let [quick, full] = place.flips();
                let flips = case.run.by_scale(quick, full);
                for part in 0..flips.div_ceil(STEP) {
                    let flips = STEP.min(flips - part * STEP);
                    let of_step = params([
                        ("place", place.name().into()),
                        ("bits", exposed.bits(place).into()),
                        ("flips", flips.into()),
                        ("part", part.into()),
                    ]);
                    case.step(of_step, |case| {
                        let seed = seed.wrapping_mul(1009).wrapping_add(part as u64);
                        let silent = Silent::of(exposed.as_mut(), place, flips, seed)?;
                        case.queries += flips as u64;
                        Ok(silent.findings())
                    })?;
                }
            }
            Ok(())
        })
    }

    /// A layer of he-core's operations: with decryption alone, and with audits.
    fn controls(&self) -> Vec<Control<'_>> {
        const FLIPS: usize = 60;
        let of = |name, must, count: fn(Silent) -> usize| Control {
            name,
            must,
            run: Box::new(move |seed| {
                let mut flips = Flips::new(seed)?;
                let silent = Silent::of(&mut flips, Place::Upload, FLIPS, seed)?;
                let value = count(silent) as f64 / silent.flips as f64;
                Ok(Outcome {
                    succeeded: value > 0.0,
                    value,
                    bar: 0.0,
                })
            }),
        };
        vec![
            of("unchecked", Must::Succeed, |silent| silent.unchecked),
            of("audited", Must::Fail, |silent| silent.audited),
        ]
    }
}
