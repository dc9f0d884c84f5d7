//! The circuits that public attack code runs (ucsd-crypto/CKKSKeyRecovery: noop,
//! variance, sigmoid, exp; DynamicEstimationAttack: x1 x2 + x3 x4), by their parameters.

use he_core::ckks::evaluator::{
    Workspace, add, evaluate_polynomial, inner_sum, multiply, polynomial_levels, polynomial_words,
    relinearize, rescale, square, workspace_words,
};
use he_core::rlwe::keys::{self, KeySet, SwitchTarget};
use he_core::{Params, Result};

use super::super::holder::{Ct, Holder};

/// A circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circuit {
    /// Nothing: encrypted and decrypted.
    Noop,
    /// The sum of the squares of all slots.
    Variance,
    /// `1/2 + x/4 - x^3/48`, Taylor's to degree 3.
    Sigmoid,
    /// Taylor's to degree 7.
    Exp,
    /// `x1 x2 + x3 x4`.
    TwoProducts,
}

impl Circuit {
    pub(super) const ALL: [Self; 5] = [
        Self::Noop,
        Self::Variance,
        Self::Sigmoid,
        Self::Exp,
        Self::TwoProducts,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Variance => "variance",
            Self::Sigmoid => "sigmoid",
            Self::Exp => "exp",
            Self::TwoProducts => "x1 x2 + x3 x4",
        }
    }

    fn polynomial(self) -> &'static [f64] {
        match self {
            Self::Sigmoid => &[0.5, 0.25, 0.0, -1.0 / 48.0],
            Self::Exp => &[
                1.0,
                1.0,
                1.0 / 2.0,
                1.0 / 6.0,
                1.0 / 24.0,
                1.0 / 120.0,
                1.0 / 720.0,
                1.0 / 5040.0,
            ],
            _ => &[],
        }
    }

    /// Levels that it takes, of one prime each.
    pub(super) fn levels(self) -> usize {
        match self {
            Self::Noop => 0,
            Self::Variance | Self::TwoProducts => 1,
            Self::Sigmoid | Self::Exp => polynomial_levels(self.polynomial().len() - 1),
        }
    }

    /// Evaluates it, as honestly as he-core does, on uniform values up to 1.
    pub(super) fn evaluate(self, params: &Params, holder: &mut Holder) -> Result<Ct> {
        let (n, level) = (params.n(), params.max_level());
        let mut ct = fresh(params, holder)?;
        if self == Self::Noop {
            return Ok(ct);
        }
        let scale = ct.scale();
        let key = holder.switch_key(SwitchTarget::Square)?;
        let mut words = vec![0; workspace_words(params, level)];
        let mut work = Workspace::new(params, level, &mut words)?;
        let third = || vec![0; (level + 1) * n];
        match self {
            Self::Noop => {}
            Self::Variance => {
                let product = square(params, ct, third())?;
                (ct, _) = relinearize(params, product, &key, &mut work)?;
                rescale(params, &mut ct, &mut vec![0; n])?;
                let targets = keys::inner_sum(params, 1, params.slots());
                let rotations: Result<Vec<_>> = targets.map(|t| holder.switch_key(t)).collect();
                let rotations = rotations?;
                let keys = KeySet::new(&rotations);
                inner_sum(params, &mut ct, 1, params.slots(), keys, &mut work)?;
            }
            Self::Sigmoid | Self::Exp => {
                let coefficients = self.polynomial();
                let mut words = vec![0; polynomial_words(params, level, coefficients.len() - 1)];
                let (c, w) = (coefficients, &mut words);
                evaluate_polynomial(params, &mut ct, c, scale, &key, w, &mut work)?;
            }
            Self::TwoProducts => {
                let x2 = fresh(params, holder)?;
                let product = multiply(params, ct, &x2, third())?;
                (ct, _) = relinearize(params, product, &key, &mut work)?;
                let (x3, x4) = (fresh(params, holder)?, fresh(params, holder)?);
                let product = multiply(params, x3, &x4, third())?;
                let (other, _) = relinearize(params, product, &key, &mut work)?;
                add(params, &mut ct, &other)?;
                rescale(params, &mut ct, &mut vec![0; n])?;
            }
        }
        Ok(ct)
    }
}

/// Uniform values up to 1 at the highest level. Their scale is the prime that the first
/// rescaling divides by, so that it stays.
fn fresh(params: &Params, holder: &mut Holder) -> Result<Ct> {
    let level = params.max_level();
    let scale = f64::from(params.prime(level)?.modulus().value());
    let values = holder.values();
    let message = holder.encode(&values, scale)?;
    holder.encrypt(&message, level, scale)
}
