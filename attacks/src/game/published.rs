//! The output is published: decrypted logits tell inputs apart.
//!
//! Three pairs: two classes, which even labels tell apart; two images that differ in
//! one pixel by one step of 255, which the noise of encryption could hide; and one image
//! twice, of which nothing can tell the copies apart.

use super::stand_in::Flaw;
use super::{Distinguisher, Gaussians, Pair, Seen, Trials, control, pairs, run};
use crate::attack::{Attack, AttackError, Context, Control, Must};
use crate::paper::{Table, XIANG_GAME};
use crate::target::{Access, Grants, Rows};

/// The logits.
fn logits(seen: &Seen<'_>) -> Vec<f64> {
    let scores = &seen.answers.scores;
    if seen.index < scores.len() {
        return scores.row(seen.index).to_vec();
    }
    Vec::new()
}

/// An image with a copy of which the middle pixel is one step brighter or darker, and
/// with a copy.
fn close_pairs(image: &[f64]) -> [Pair; 2] {
    let pair = |name, second: &[f64]| Pair {
        name,
        inputs: Rows::new(image.len(), [image, second].concat()),
    };
    let mut near = image.to_vec();
    let middle = near.len() / 2 + image.len().isqrt() / 2;
    if let Some(pixel) = near.get_mut(middle) {
        *pixel += if *pixel > 0.5 { -1.0 } else { 1.0 } / 255.0;
    }
    [pair("one step in one pixel", &near), pair("equal", image)]
}

/// The attack.
#[derive(Clone, Copy, Debug)]
pub struct Published;

impl Attack for Published {
    fn name(&self) -> &'static str {
        "game-published"
    }

    fn about(&self) -> &'static str {
        "tells which of two inputs was evaluated from the decrypted logits"
    }

    fn access(&self) -> Grants {
        Grants::of(&[Access::Scores])
    }

    fn tables(&self) -> &'static [Table] {
        &[XIANG_GAME]
    }

    fn run(&self, context: &mut Context<'_>) -> Result<(), AttackError> {
        context.each_target(self, |case| {
            let trials = case.run.by_scale(200, 2000);
            let trials = Trials {
                known: trials,
                guessed: trials,
            };
            let mut pairs = pairs(case)?;
            let close = close_pairs(pairs[1].inputs.row(0));
            pairs.extend(close);
            run(case, self, trials, &pairs, || {
                let logits: Box<dyn Distinguisher> = Box::new(Gaussians::new(logits));
                vec![("logits", logits)]
            })
        })
    }

    fn controls(&self) -> Vec<Control<'_>> {
        let asked = self.access();
        let sums = || Box::new(Gaussians::new(logits)) as Box<dyn Distinguisher>;
        let nothing = || Box::new(Gaussians::new(|_| vec![0.0])) as Box<dyn Distinguisher>;
        vec![
            control("sums of the inputs", Must::Succeed, Flaw::None, asked, sums),
            control(
                "answers not looked at",
                Must::Fail,
                Flaw::None,
                asked,
                nothing,
            ),
        ]
    }
}
