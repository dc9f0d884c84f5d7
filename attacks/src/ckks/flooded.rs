//! A target whose values are published: flooded by he-core's rule before anybody sees them.
//!
//! The values of many answers are put into the slots of one fresh ciphertext, and what
//! [`he_core::ckks::publish`] gives out of it is what an attacker sees: noise of its
//! generator, of a size for 1,024 publications and 30 bits of statistical security. The
//! scale of the ciphertext is chosen by the bits that shall be right, so that floods of any
//! size can be had. For a network with activations no parameter set here has room for a
//! flood beside the worst case of its error ([`crate::ckks`]'s key recovery, SECURITY.md):
//! against such a target this is what a cheaper analysis would leave.

use he_core::ckks::Noise;
use he_core::ckks::publish::{Allowance, PublishError};
use he_core::params::N4096_DEPTH3;

use super::holder::{BUDGET, Count, Holder, expected};
use crate::target::{About, Access, Answers, Grants, Rows, Target, TargetError, View};

/// Values of answers are at most so large; larger ones are cut, as they have no room.
const LARGEST: f64 = 64.0;

/// Standard deviations that a published value keeps within, as he-core counts bits.
const TAIL: f64 = 6.0;

/// A target behind guarded publication. It gives labels and scores, and no more.
pub struct Flooded<'v, 't> {
    inner: &'v mut View<'t>,
    about: About,
    holder: Holder,
    budget: Count,
    log_scale: i32,
    seed: u64,
    keys: u64,
}

impl<'v, 't> Flooded<'v, 't> {
    /// The same target, of whose values so many bits after the binary point are right.
    ///
    /// # Errors
    /// [`TargetError::Failed`] where the modulus has no room for it.
    pub fn new(inner: &'v mut View<'t>, bits: i32, seed: u64) -> Result<Self, TargetError> {
        let mut about = inner.about().clone();
        let failed = |source: he_core::Error| TargetError::Failed {
            target: about.name.clone(),
            source: Box::new(source),
        };
        let set = &N4096_DEPTH3;
        let (holder, budget) = (Holder::new(set, seed), Count::new(BUDGET.0, BUDGET.1));
        let (holder, budget) = (holder.map_err(&failed)?, budget.map_err(&failed)?);
        let allowance = Allowance::new(BUDGET.0, BUDGET.1).map_err(&failed)?;
        // Values in slots are answers over the largest.
        let wanted = f64::from(bits) + LARGEST.log2();
        let left = |log_scale: i32| {
            let scale = f64::exp2(f64::from(log_scale));
            let request = expected(set.max_level(), scale, Noise::fresh(set));
            he_core::ckks::publish::precision(set, &request, &allowance)
        };
        // A bit of scale is a bit of precision.
        let at_40 = left(40).map_err(&failed)?;
        let log_scale = 40 + (wanted - at_40).ceil() as i32;
        let bits = left(log_scale).map_err(&failed)? - LARGEST.log2();
        about.name = format!("{} (flooded)", about.name);
        // Of one part of a complex slot.
        about.randomised = Some(f64::exp2(-bits) / TAIL * std::f64::consts::FRAC_1_SQRT_2);
        Ok(Self {
            inner,
            about,
            holder,
            budget,
            log_scale,
            seed,
            keys: 0,
        })
    }

    /// What is published of these values; under a new key where the old one's budget is
    /// used up.
    fn published(&mut self, values: &[f64]) -> he_core::Result<Vec<f64>> {
        let set = &N4096_DEPTH3;
        let (level, scale) = (set.max_level(), f64::exp2(f64::from(self.log_scale)));
        let request = expected(level, scale, Noise::fresh(set));
        let mut out = Vec::with_capacity(values.len());
        for part in values.chunks(set.n()) {
            let cut = part.iter().map(|x| x.clamp(-LARGEST, LARGEST) / LARGEST);
            let message = self.holder.encode(&cut.collect::<Vec<f64>>(), scale)?;
            let slots = loop {
                let ct = self.holder.encrypt(&message, level, scale)?;
                match self.holder.publish(&mut self.budget, &ct, &request) {
                    Ok(slots) => break slots,
                    Err(PublishError::Refused(error)) => return Err(error),
                    Err(PublishError::Budget(_) | PublishError::Retired) => {
                        self.keys += 1;
                        self.holder = Holder::new(set, self.seed.wrapping_add(self.keys << 32))?;
                        self.budget = Count::new(BUDGET.0, BUDGET.1)?;
                    }
                }
            };
            out.extend(slots.iter().take(part.len()).map(|x| x * LARGEST));
        }
        Ok(out)
    }
}

impl Target for Flooded<'_, '_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn grants(&self) -> Grants {
        let seen = Grants::of(&[Access::Labels, Access::Scores]);
        match self.inner.grants().contains(Access::Scores) {
            true => seen,
            false => Grants::NONE,
        }
    }

    fn observe(&mut self, queries: &Rows, asked: Grants) -> Result<Answers, TargetError> {
        let scores = self.inner.scores(queries)?;
        let values = self.published(scores.values());
        let values = values.map_err(|source| TargetError::Failed {
            target: self.about.name.clone(),
            source: Box::new(source),
        })?;
        let scores = Rows::new(scores.width(), values);
        let mut answers = Answers::default();
        if asked.contains(Access::Labels) {
            answers.labels = crate::plain::classes(&scores);
        }
        if asked.contains(Access::Scores) {
            answers.scores = scores;
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain::Plain;
    use crate::target::Denied;

    const SCORES: Grants = Grants::of(&[Access::Scores]);

    /// Root of the mean square of what a flood changes, and what it says of itself.
    fn flood(bits: i32) -> (f64, f64) {
        let images = Rows::images(&he_nn::bundled::digits().unwrap().images);
        let many = images.select(&[0; 500]);
        let mut plain = Plain::bundled("mnist-mlp64", "digits").unwrap().unwrap();
        let mut view = View::new(&mut plain, SCORES);
        let exact = view.scores(&many).unwrap();
        let mut flooded = Flooded::new(&mut view, bits, 1).unwrap();
        let said = flooded.about().randomised.unwrap();
        let found = flooded.observe(&many, SCORES).unwrap().scores;
        let pairs = found.values().iter().zip(exact.values());
        let squares: f64 = pairs.map(|(a, b)| (a - b) * (a - b)).sum();
        ((squares / found.values().len() as f64).sqrt(), said)
    }

    #[test]
    fn a_flood_is_as_large_as_it_says() {
        for bits in [4, 0, -3] {
            let (found, said) = flood(bits);
            // Up to a bit smaller, as scales are whole powers of two.
            let wanted = f64::from(-bits).exp2() / TAIL / 2f64.sqrt();
            assert!((0.49..=1.01).contains(&(said / wanted)), "{bits}: {said}");
            assert!(
                (0.95..1.05).contains(&(found / said)),
                "{bits}: {found} {said}"
            );
        }
    }

    #[test]
    fn neither_weights_nor_exact_values_are_seen_behind_it() {
        let mut plain = Plain::bundled("mnist-mlp64", "digits").unwrap().unwrap();
        let mut view = View::new(&mut plain, Grants::of(&Access::ALL));
        let mut flooded = Flooded::new(&mut view, 0, 1).unwrap();
        let mut outer = View::new(&mut flooded, Grants::of(&Access::ALL));
        let query = Rows::new(784, vec![0.5; 784]);
        for access in [Access::Decrypted, Access::Weights] {
            let refused = outer.observe(&query, Grants::of(&[access]));
            let refused = matches!(refused, Err(TargetError::Denied(Denied { access: a, .. })) if a == access);
            assert!(refused, "{access}");
        }
        let scores = [outer.scores(&query).unwrap(), outer.scores(&query).unwrap()];
        assert_ne!(scores[0], scores[1], "equal queries have fresh noise");
    }
}
