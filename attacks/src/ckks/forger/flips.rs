//! A layer whose memory can be reached: the controls of [`super::super::bit_flips`].

use he_core::ckks::publish::HonestResult;
use he_core::{Params, Result};

use super::super::bit_flips::{Exposed, Fate, Place};
use super::super::holder::Ct;
use super::lab::{FEATURES, Lab};
use super::{Check, Forger};
use crate::target::TargetError;

/// Its label is the largest of the first ten slots.
pub(crate) struct Flips {
    lab: Lab,
    inputs: Vec<Ct>,
    honest: Ct,
    label: usize,
}

impl Flips {
    const CLASSES: usize = 10;

    pub(crate) fn new(seed: u64) -> Result<Self> {
        let mut lab = Lab::new(&he_core::params::N4096_DEPTH3, seed)?;
        let layout = lab.layout(Check::FreshSamples, FEATURES);
        let inputs = lab.upload(&layout, FEATURES)?;
        let honest = lab.evaluate(Check::Audit(1.0), Forger::Honest, &inputs)?;
        let label = Self::label(&lab, &honest)?;
        Ok(Self {
            lab,
            inputs,
            honest,
            label,
        })
    }

    fn label(lab: &Lab, ct: &Ct) -> Result<usize> {
        let slots = lab.holder.unguarded(ct)?;
        let largest = (0..Self::CLASSES).max_by(|&a, &b| slots[a].total_cmp(&slots[b]));
        Ok(largest.unwrap_or(0))
    }

    fn with_flip(&mut self, bit: u64) -> Result<Fate> {
        let words = (self.lab.set.max_level() + 1) * self.lab.set.n();
        let (word, bit) = ((bit / 32) as usize, bit % 32);
        let (input, word) = (word / (2 * words), word % (2 * words));
        let flip = |ct: &mut Ct| {
            let [c0, c1] = ct.parts_mut();
            match word < words {
                true => c0[word] ^= 1 << bit,
                false => c1[word - words] ^= 1 << bit,
            }
        };
        // A word that is no residue any more would not be read.
        let limb = (word % words) / self.lab.set.n();
        let q = self.lab.set.prime(limb)?.modulus().value();
        flip(&mut self.inputs[input]);
        let [c0, c1] = self.inputs[input].parts();
        let flipped = [c0, c1].concat()[word];
        let fate = if flipped >= q {
            Fate {
                unchecked: None,
                checked: None,
                reproduced: false,
            }
        } else {
            let inputs = std::mem::take(&mut self.inputs);
            let result = self
                .lab
                .evaluate(Check::Audit(1.0), Forger::Honest, &inputs);
            self.inputs = inputs;
            let result = result?;
            let label = Some(Self::label(&self.lab, &result)?);
            Fate {
                unchecked: label,
                checked: label.filter(|_| self.lab.holder.fill(&result).is_ok_and(|f| f < 0.5)),
                reproduced: HonestResult::verified(self.lab.set, &result, &self.honest).is_ok(),
            }
        };
        flip(&mut self.inputs[input]);
        Ok(fate)
    }
}

impl Exposed for Flips {
    fn name(&self) -> &str {
        "layer"
    }

    fn params(&self) -> &'static Params {
        self.lab.set
    }

    fn bits(&self, _: Place) -> u64 {
        let words = (self.lab.set.max_level() + 1) * self.lab.set.n();
        (self.inputs.len() * 2 * words * 32) as u64
    }

    fn honest(&self) -> usize {
        self.label
    }

    fn flipped(&mut self, _: Place, bit: u64) -> std::result::Result<Fate, TargetError> {
        self.with_flip(bit).map_err(|error| TargetError::Failed {
            target: "layer".into(),
            source: error.into(),
        })
    }
}
