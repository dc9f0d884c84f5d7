//! The output stays encrypted, and the attacker measures how long the evaluator takes.

use super::stand_in::Flaw;
use super::{Distinguisher, Gaussians, Seen, control, run_encrypted};
use crate::attack::{Attack, AttackError, Context, Control, Must};
use crate::paper::{Table, XIANG_GAME};
use crate::target::{Access, Grants};

/// The time, and its logarithm: interruptions make a few times very long.
pub(super) fn time(seen: &Seen<'_>) -> Vec<f64> {
    let time = seen.answers.times.get(seen.index);
    let value = time.map_or(0.0, |time| time.value as f64);
    vec![value, value.max(1.0).ln()]
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Timing;

impl Attack for Timing {
    fn name(&self) -> &'static str {
        "game-timing"
    }

    fn about(&self) -> &'static str {
        "tells which of two inputs was evaluated from the evaluator's time"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Timing])
    }

    fn tables(&self) -> &'static [Table] {
        &[XIANG_GAME]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            run_encrypted(case, self, || {
                let time: Box<dyn Distinguisher> = Box::new(Gaussians::new(time));
                vec![("time", time)]
            })
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let time = || Box::new(Gaussians::new(time)) as Box<dyn Distinguisher>;
        let asked = self.access();
        vec![
            control(
                "branch on the input",
                Must::Succeed,
                Flaw::Branch,
                asked,
                time,
            ),
            control("constant time", Must::Fail, Flaw::None, asked, time),
        ]
    }
}
