//! Projected gradient descent: Madry et al. 2018 (arXiv:1706.06083).

use super::{ACCESS, SignedGradient, controls, sweep};
use crate::attack::{Attack, AttackError, Context, Control};
use crate::target::Grants;

/// Its parameters.
pub const METHOD: SignedGradient = SignedGradient {
    iterations: 40,
    step: Some(0.01),
    random_start: true,
    direction: 1.0,
};

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Pgd;

impl Attack for Pgd {
    fn name(&self) -> &'static str {
        "pgd"
    }

    fn about(&self) -> &'static str {
        "adversarial examples by 40 small steps from a random start"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        sweep(self, &METHOD, None, context)
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(METHOD)
    }
}
