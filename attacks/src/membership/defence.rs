//! What is done in training against membership inference.

use he_nn::network::Network;

use super::{BATCH, Samples, Setting, log_probability, seed_of};
use crate::attack::AttackError;
use crate::dp_sgd::{self, Private};
use crate::network::Differentiable;
use crate::trainer::{Goal, Training, train};

/// Share of the members that early stopping keeps aside, as a divisor.
const ASIDE: usize = 5;

/// Passes between two looks at what is kept aside.
const BETWEEN: usize = 2;

/// Looks without a better one after which training stops.
const PATIENCE: usize = 2;

/// Of the seeds of training beyond the first.
const PASSES: u64 = 500;

/// A defence in training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Defence {
    /// None but the setting's weight decay.
    None,
    /// A fifth of the members is kept aside, and the network taken that had the least
    /// loss there.
    EarlyStopping,
    /// DP-SGD.
    Private(Private),
}

/// Whether early stopping keeps a member aside, by its place among the members.
const fn aside(place: usize) -> bool {
    place % ASIDE == ASIDE - 1
}

/// What a mask of the same length selects.
pub(super) fn selected<T: Copy>(all: &[T], mask: &[bool]) -> Vec<T> {
    let pairs = all.iter().zip(mask);
    pairs.filter(|(_, kept)| **kept).map(|(x, _)| *x).collect()
}

impl Setting {
    /// Which samples an attack is judged on: the others, and those of the members that
    /// training sees. What early stopping keeps aside is never trained on, and would lower
    /// the attack's AUC by its share of the members alone.
    pub(super) fn judged(&self, members: &[bool]) -> Vec<bool> {
        let mut place = 0;
        let judged = members.iter().map(|&member| {
            let kept_aside = member && aside(place) && self.defence == Defence::EarlyStopping;
            place += usize::from(member);
            !kept_aside
        });
        judged.collect()
    }

    /// A network trained on these samples, in floating point.
    pub(super) fn fitted(&self, samples: &Samples, seed: u64) -> Result<Network<f32>, AttackError> {
        let network = Differentiable::one_hidden(self.hidden, self.activation, seed)?;
        match self.defence {
            Defence::None => self.pass(&network, samples, self.epochs, seed)?,
            Defence::EarlyStopping => return self.stopped_early(&network, samples, seed),
            Defence::Private(private) => {
                dp_sgd::train(&network, &samples.inputs, &samples.labels, &private, seed)?;
            }
        }
        Ok(network.to_network(self.name)?)
    }

    fn pass(
        &self,
        network: &Differentiable,
        samples: &Samples,
        epochs: usize,
        seed: u64,
    ) -> Result<(), AttackError> {
        let training = Training {
            epochs,
            weight_decay: self.weight_decay,
            seed,
            ..Training::default()
        };
        let goal = Goal::Labels(&samples.labels);
        train(network, &samples.inputs, goal, &training, &mut ())?;
        Ok(())
    }

    fn stopped_early(
        &self,
        network: &Differentiable,
        samples: &Samples,
        seed: u64,
    ) -> Result<Network<f32>, AttackError> {
        let mask: Vec<bool> = (0..samples.len()).map(|i| !aside(i)).collect();
        let others: Vec<bool> = mask.iter().map(|kept| !kept).collect();
        let (own, kept) = (samples.masked(&mask), samples.masked(&others));
        if own.is_empty() || kept.is_empty() {
            self.pass(network, samples, BETWEEN, seed)?;
            return Ok(network.to_network(self.name)?);
        }
        let mut best = (f64::INFINITY, network.to_network(self.name)?);
        let mut since = 0;
        for look in 0..self.epochs.div_ceil(BETWEEN) as u64 {
            self.pass(network, &own, BETWEEN, seed_of(seed, PASSES + look))?;
            let logits = network.evaluate(&kept.inputs, BATCH)?;
            let rows = logits.iter().zip(&kept.labels);
            let loss: f64 = rows.map(|(row, &label)| -log_probability(row, label)).sum();
            since += 1;
            if loss < best.0 {
                best = (loss, network.to_network(self.name)?);
                since = 0;
            }
            if since >= PATIENCE {
                break;
            }
        }
        Ok(best.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Subject;
    use crate::synthetic;
    use crate::target::Activation;

    /// What is judged as a member changes the network, and what is not does not: early
    /// stopping without patience for a second look.
    #[test]
    fn members_that_a_defence_keeps_aside_are_not_judged() {
        let mut setting = Setting {
            name: "x",
            pool: 24,
            hidden: 4,
            activation: Activation::Polynomial,
            epochs: BETWEEN,
            weight_decay: 0.0,
            defence: Defence::EarlyStopping,
        };
        let subject = Subject::new(setting, &synthetic::noise(96, 1), 1);
        let members = &subject.members;
        let judged = setting.judged(members);
        let network = |samples: &Samples| setting.fitted(&samples.masked(members), 1).unwrap();
        let before = network(&subject.pool);
        for at in (0..24).filter(|&at| members[at]) {
            let mut changed = subject.pool.clone();
            changed.inputs.row_mut(at).fill(1.0);
            assert_eq!(network(&changed) != before, judged[at], "{at}");
        }
        assert_eq!(judged.iter().filter(|judged| !**judged).count(), 12 / ASIDE);
        assert_eq!(selected(&[1, 2, 3], &[true, false, true]), [1, 3]);
        setting.defence = Defence::None;
        assert_eq!(setting.judged(members), [true; 24]);
    }
}
