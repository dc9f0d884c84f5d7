//! The client, its evaluator and the forger, one request at a time.

use he_core::ckks::evaluator::{
    Workspace, add, add_constant, add_plain, drop_level, inner_sum, multiply_add,
    multiply_constant, relinearize, rescale, square, sub, workspace_words,
};
use he_core::ckks::publish::HonestResult;
use he_core::ckks::{Ciphertext, Constant, Message, Noise, Plaintext};
use he_core::rlwe::keys::{self, KeySet, SwitchKey, SwitchTarget};
use he_core::{Params, Result};
use rand_core::Rng;

use super::super::holder::{Ct, Holder};
use super::{Check, Forger};

/// How far an answer may be from what it should be: several times the error of these
/// circuits.
pub(super) const TOLERANCE: f64 = 0.01;

/// How far the forger moves answers; the small shift is for [`Lab::nearness`], so that
/// what is left of it at hidden samples is below the tolerance.
const SHIFT: f64 = 0.25;
const SMALL_SHIFT: f64 = 0.03;

/// Numbers per sample.
pub(super) const FEATURES: usize = 4;
const MANY_FEATURES: usize = 24;

/// Hidden samples among copies, and slots that a mean is over.
const HIDDEN: usize = 64;
const WINDOW: usize = 16;

/// What the samples in the slots are, as the client knows.
pub(super) struct Layout {
    /// By slot.
    samples: Vec<Vec<f64>>,
    /// Slots of which the client knows the answer.
    known: Vec<usize>,
    /// `a` and `b`.
    secrets: [f64; 2],
}

/// A client with its evaluator's keys.
pub(super) struct Lab {
    pub(super) set: &'static Params,
    pub(super) holder: Holder,
    scale: f64,
    square: SwitchKey<Vec<u32>>,
    rotations: Vec<SwitchKey<Vec<u32>>>,
}

/// Weights of the layer.
fn weight(feature: usize, features: usize) -> f64 {
    let sign = if feature.is_multiple_of(2) { 1.0 } else { -1.0 };
    sign / features as f64
}

impl Lab {
    pub(super) fn new(set: &'static Params, seed: u64) -> Result<Self> {
        let mut holder = Holder::new(set, seed)?;
        let square = holder.switch_key(SwitchTarget::Square)?;
        let rotations = match depth(set) {
            true => keys::inner_sum(set, 1, WINDOW)
                .map(|target| holder.switch_key(target))
                .collect::<Result<_>>()?,
            false => Vec::new(),
        };
        let level = set.max_level();
        Ok(Self {
            set,
            holder,
            scale: f64::from(set.prime(level)?.modulus().value()),
            square,
            rotations,
        })
    }

    fn unit(&mut self) -> f64 {
        f64::from(self.holder.rng.next_u32()) / 2f64.powi(31) - 1.0
    }

    fn sample(&mut self, features: usize) -> Vec<f64> {
        (0..features).map(|_| self.unit()).collect()
    }

    /// So many different slots.
    fn places(&mut self, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.set.slots()).collect();
        for i in 0..count {
            let rest = (all.len() - i) as u64;
            let other = i + (self.holder.rng.next_u64() % rest) as usize;
            all.swap(i, other);
        }
        all.truncate(count);
        all
    }

    pub(super) fn layout(&mut self, check: Check, features: usize) -> Layout {
        let slots = self.set.slots();
        let copies = matches!(check, Check::Copies | Check::HiddenCopies);
        let first = self.sample(features);
        let mut samples: Vec<Vec<f64>> = (0..slots)
            .map(|_| {
                if copies {
                    first.clone()
                } else {
                    self.sample(features)
                }
            })
            .collect();
        let known = match check {
            Check::KnownSample | Check::FreshSamples => self.places(slots / 2),
            Check::HiddenCopies => self.places(HIDDEN),
            _ => Vec::new(),
        };
        for &slot in &known {
            samples[slot] = match check {
                // The same for all requests, so that everybody knows it.
                Check::KnownSample => known_sample(features),
                _ => self.sample(features),
            };
        }
        let secrets = [self.unit(), self.unit()];
        if check == Check::RandomLinear {
            for slot in (0..slots - 2).step_by(3) {
                let (x, y) = (&samples[slot], &samples[slot + 1]);
                let both = x
                    .iter()
                    .zip(y)
                    .map(|(x, y)| secrets[0] * x + secrets[1] * y);
                samples[slot + 2] = both.collect();
            }
        }
        Layout {
            samples,
            known,
            secrets,
        }
    }

    pub(super) fn upload(&mut self, layout: &Layout, features: usize) -> Result<Vec<Ct>> {
        let one = |feature: usize| {
            let values: Vec<f64> = layout.samples.iter().map(|s| s[feature]).collect();
            let message = self.holder.encode(&values, self.scale)?;
            self.holder
                .encrypt(&message, self.set.max_level(), self.scale)
        };
        (0..features).map(one).collect()
    }

    fn copy(&self, ct: &Ct) -> Result<Ct> {
        let [c0, c1] = ct.parts().map(<[u32]>::to_vec);
        let copy = Ciphertext::new(self.set, ct.level(), ct.scale(), c0, c1)?;
        Ok(copy.with_noise(ct.noise(), ct.message()))
    }

    /// The values at another scale: what they are is divided by as much.
    fn restated(&self, ct: Ct, scale: f64) -> Result<Ct> {
        let level = ct.level();
        let (c0, c1) = ct.into_storage();
        Ciphertext::new(self.set, level, scale, c0, c1)
    }

    fn rescaled(&self, ct: &mut Ct) -> Result<()> {
        rescale(self.set, ct, &mut vec![0; self.set.n()])
    }

    /// The layer, at a level and scale.
    fn layer(&self, inputs: &[Ct], weights: &[f64], level: usize, scale: f64) -> Result<Ct> {
        let dropped = f64::from(self.set.prime(level + 1)?.modulus().value());
        let mut sum: Option<Ct> = None;
        for (input, &weight) in inputs.iter().zip(weights) {
            let mut term = self.copy(input)?;
            drop_level(self.set, &mut term, level + 1)?;
            let at = scale * dropped / input.scale();
            multiply_constant(self.set, &mut term, &Constant::real(weight, at)?)?;
            match &mut sum {
                Some(sum) => add(self.set, sum, &term)?,
                none => *none = Some(term),
            }
        }
        let mut sum = sum.ok_or(he_core::Error::Length {
            what: "inputs",
            expected: 1,
            got: 0,
        })?;
        self.rescaled(&mut sum)?;
        self.restated(sum, scale)
    }

    /// The sum of squares, one level lower.
    fn squares(&self, mut terms: Vec<Ct>) -> Result<Ct> {
        let words = (self.set.max_level() + 1) * self.set.n();
        let Some(last) = terms.pop() else {
            return Err(he_core::Error::Length {
                what: "inputs",
                expected: 1,
                got: 0,
            });
        };
        let mut sum = square(self.set, last, vec![0; words])?;
        for term in &terms {
            multiply_add(self.set, &mut sum, term, term)?;
        }
        let mut sum = self.relinearized(sum)?;
        self.rescaled(&mut sum)?;
        Ok(sum)
    }

    fn relinearized(&self, product: Ciphertext<Vec<u32>, 3>) -> Result<Ct> {
        let level = self.set.max_level();
        let mut words = vec![0; workspace_words(self.set, level)];
        let mut work = Workspace::new(self.set, level, &mut words)?;
        Ok(relinearize(self.set, product, &self.square, &mut work)?.0)
    }

    /// `shift` times the squared distance from the known sample: zero where it is.
    fn distance_from_known(&self, inputs: &[Ct], shift: f64) -> Result<Ct> {
        let known = known_sample(inputs.len());
        let terms: Result<Vec<Ct>> = inputs
            .iter()
            .zip(known)
            .map(|(input, value)| {
                let mut term = self.copy(input)?;
                add_constant(self.set, &mut term, &Constant::real(-value, input.scale())?)?;
                Ok(term)
            })
            .collect();
        let z = self.squares(terms?)?;
        let scale = z.scale() / shift;
        self.restated(z, scale)
    }

    /// `shift (1 - z / D)^4` for the squared distance `z` from the mean of a window of
    /// slots and the one `D` that is expected of other samples.
    fn nearness(&self, inputs: &[Ct], shift: f64) -> Result<Ct> {
        let level = self.set.max_level();
        let mut words = vec![0; workspace_words(self.set, level)];
        let mut work = Workspace::new(self.set, level, &mut words)?;
        let times = WINDOW as f64;
        let mut terms = Vec::new();
        for input in inputs {
            let mut sum = self.copy(input)?;
            let keys = KeySet::new(&self.rotations);
            inner_sum(self.set, &mut sum, 1, WINDOW, keys, &mut work)?;
            let mut term = self.copy(input)?;
            multiply_constant(self.set, &mut term, &Constant::real(times, 1.0)?)?;
            sub(self.set, &mut term, &sum)?;
            // So many times the distance is the distance at so many times the scale.
            let scale = term.scale() * times;
            terms.push(self.restated(term, scale)?);
        }
        let z = self.squares(terms)?;
        // Uniform numbers from -1 to 1 differ by 2/3 in the mean square.
        let expected = 2.0 / 3.0 * inputs.len() as f64;
        let scale = z.scale() * expected;
        let mut a = self.restated(z, scale)?;
        add_constant(self.set, &mut a, &Constant::real(-1.0, scale)?)?;
        // The sign goes with the first square.
        let words = (level + 1) * self.set.n();
        let mut a = self.relinearized(square(self.set, a, vec![0; words])?)?;
        self.rescaled(&mut a)?;
        self.rescaled(&mut a)?;
        let mut a = self.relinearized(square(self.set, a, vec![0; words])?)?;
        self.rescaled(&mut a)?;
        let scale = a.scale() / shift;
        self.restated(a, scale)
    }

    /// What is returned.
    pub(super) fn evaluate(&mut self, check: Check, forger: Forger, inputs: &[Ct]) -> Result<Ct> {
        let (set, level) = (self.set, self.set.max_level() - 1);
        let features = inputs.len();
        let mut weights: Vec<f64> = (0..features).map(|f| weight(f, features)).collect();
        if forger == Forger::SkipsWork {
            weights[1..].fill(0.0);
        }
        let change = match (forger, check) {
            (Forger::Adaptive, Check::KnownSample) => {
                Some(self.distance_from_known(inputs, SHIFT)?)
            }
            (Forger::Adaptive, Check::HiddenCopies) => Some(self.nearness(inputs, SMALL_SHIFT)?),
            _ => None,
        };
        let forger = match forger {
            Forger::Adaptive if !check.is_evaluated_against() => Forger::OneSlot,
            forger => forger,
        };
        if let Some(change) = change {
            let mut result = self.layer(inputs, &weights, change.level(), change.scale())?;
            add(set, &mut result, &change)?;
            return Ok(result);
        }
        if (forger, check) == (Forger::Adaptive, Check::RandomLinear) {
            weights[0] += SHIFT;
        }
        let mut result = self.layer(inputs, &weights, level, self.scale)?;
        match (forger, check) {
            (Forger::Adaptive, Check::Copies) => {
                add_constant(set, &mut result, &Constant::real(SHIFT, self.scale)?)?;
            }
            (Forger::OneSlot, _) => {
                let mut values = vec![0.0; set.slots()];
                let at = self.places(1);
                values[at[0]] = SHIFT;
                let coefficients = self.holder.encode(&values, self.scale)?;
                let words = vec![0; (level + 1) * set.n()];
                let plain = Plaintext::new(set, &coefficients, level, self.scale, words)?
                    .with_noise(Noise::rounding(set), Message::within(1.0));
                add_plain(set, &mut result, &plain)?;
            }
            _ => {}
        }
        Ok(result)
    }

    /// One request: whether the answer is accepted, and whether it is wrong for one of the
    /// client's own samples.
    pub(super) fn request(&mut self, check: Check, forger: Forger) -> Result<[bool; 2]> {
        let features = match (check, depth(self.set)) {
            (Check::HiddenCopies, true) => MANY_FEATURES,
            _ => FEATURES,
        };
        let layout = self.layout(check, features);
        let inputs = self.upload(&layout, features)?;
        let result = self.evaluate(check, forger, &inputs)?;
        let got = self.holder.unguarded(&result)?;
        let exact: Vec<f64> = layout
            .samples
            .iter()
            .map(|s| {
                s.iter()
                    .enumerate()
                    .map(|(f, x)| weight(f, features) * x)
                    .sum()
            })
            .collect();
        let off = |slot: usize| (got[slot] - exact[slot]).abs();
        let accepted = match check {
            Check::Audit(share) => {
                let drawn = (self.unit() + 1.0) / 2.0;
                let audited = drawn < share;
                // From his own input, as he uploaded it.
                let again = match audited {
                    true => Some(self.evaluate(check, Forger::Honest, &inputs)?),
                    false => None,
                };
                again.is_none_or(|again| HonestResult::verified(self.set, &result, &again).is_ok())
            }
            Check::RandomLinear => (0..self.set.slots() - 2).step_by(3).all(|slot| {
                let [a, b] = layout.secrets;
                let expected = a * got[slot] + b * got[slot + 1];
                (got[slot + 2] - expected).abs() <= 3.0 * TOLERANCE
            }),
            _ => {
                let known = layout.known.iter().all(|&slot| off(slot) <= TOLERANCE);
                let agree = !matches!(check, Check::Copies | Check::HiddenCopies) || {
                    let own = (0..got.len() / 2).filter(|slot| !layout.known.contains(slot));
                    let (low, high) = own.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), s| {
                        (l.min(got[s]), h.max(got[s]))
                    });
                    high - low <= 2.0 * TOLERANCE
                };
                known && agree
            }
        };
        let mut is_known = vec![false; self.set.slots()];
        layout.known.iter().for_each(|&slot| is_known[slot] = true);
        let wrong =
            (0..self.set.slots()).any(|slot| !is_known[slot] && off(slot) > 2.0 * TOLERANCE);
        Ok([accepted, wrong])
    }
}

/// The sample that everybody knows the answer of.
fn known_sample(features: usize) -> Vec<f64> {
    (0..features).map(|f| (f as f64 * 1.7).sin()).collect()
}

/// Whether a set has the levels for [`Lab::nearness`], and a special prime as wide as
/// its digits, so that rotations at the scale of inputs add little.
pub(super) fn depth(set: &Params) -> bool {
    let special = set.prime(set.special()).map_or(0, |p| p.modulus().bits());
    set.max_level() == 5 && special > 24
}
