//! The basic iterative method: Kurakin, Goodfellow, Bengio 2017 (arXiv:1607.02533).

use super::{ACCESS, SignedGradient, controls, sweep};
use crate::attack::{Attack, AttackError, Context, Control};
use crate::paper::{SHIN_4, Table};
use crate::target::Grants;

/// Its parameters.
pub const METHOD: SignedGradient = SignedGradient {
    iterations: 40,
    step: Some(0.01),
    random_start: false,
    direction: 1.0,
};

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Bim;

impl Attack for Bim {
    fn name(&self) -> &'static str {
        "bim"
    }

    fn about(&self) -> &'static str {
        "adversarial examples by 40 small steps along the sign of the gradient"
    }

    fn access(&self) -> Grants {
        ACCESS
    }

    fn tables(&self) -> &'static [Table] {
        &[SHIN_4]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        sweep(self, &METHOD, Some("BIM"), context)
    }

    fn controls(&self) -> Vec<Control<'_>> {
        controls(METHOD)
    }
}
