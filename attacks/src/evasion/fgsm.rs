//! The fast gradient sign method: Goodfellow, Shlens, Szegedy 2015 (arXiv:1412.6572).

use super::{ACCESS, SignedGradient, controls, sweep};
use crate::attack::{Attack, AttackError, Context, Control};
use crate::paper::{SHIN_4, Table};
use crate::target::Grants;

/// Its parameters.
pub const METHOD: SignedGradient = SignedGradient {
    iterations: 1,
    step: None,
    random_start: false,
    direction: 1.0,
};

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Fgsm;

impl Attack for Fgsm {
    fn name(&self) -> &'static str {
        "fgsm"
    }

    fn about(&self) -> &'static str {
        "adversarial examples by one step along the sign of the gradient"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn tables(&self) -> &'static [Table] {
        &[SHIN_4]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        sweep(self, &METHOD, Some("FGSM"), context)
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(METHOD)
    }
}
