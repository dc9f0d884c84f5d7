//! Which plan of a network answers first.
//!
//! A network has several plans on a board: the client sends every shifted copy of a sample
//! that its first layer takes, or fewer, of which the board makes the others by rotations
//! ([`Terms::inputs`]). Bytes are traded for instructions, and what that comes to depends on
//! the line and on the board. Here all of them go over the line in virtual time
//! ([`crate::line`]), with what the board keeps, and the one whose later images take the
//! least time is taken: a board that keeps no keys is sent them with every image, so its
//! later images are as its first. Where keys are kept in a flash, the first image waits for
//! their writing and later ones for their reading.

use he_core::Params;
use he_nn::boards::Board;
use he_nn::model::Model;
use he_nn::plan::{Plan, PlanError, Terms};
use he_nn::program::Program;

use crate::engine::EngineError;
use crate::line::{Exchange, Line, Passage};
use crate::planning;
use crate::report::plan::KeptKeys;

/// A plan among others of the same network for the same board.
#[derive(Clone, Debug)]
pub struct Alternative<'m> {
    /// The terms that it is made by.
    pub terms: Terms,
    /// Its input ciphertexts.
    pub inputs: usize,
    /// The plan, or why the board has none.
    pub outcome: Result<Exchanged<'m>, PlanError>,
}

/// A plan and what goes over the line for it.
#[derive(Clone, Debug)]
pub struct Exchanged<'m> {
    /// The plan.
    pub plan: Plan<'m>,
    /// Of the first image.
    pub first: Exchange,
    /// Of later ones.
    pub later: Exchange,
}

impl<'m> Exchanged<'m> {
    /// Of a plan that was made for the board.
    ///
    /// # Errors
    /// [`EngineError`] where it has no program.
    pub fn new(plan: Plan<'m>, board: &Board) -> Result<Self, EngineError> {
        let kept = KeptKeys::of(&plan, board);
        let first = Exchange::first(&plan, &kept.targets)?.with_flash(board, kept.room);
        let later = Exchange::of(&plan, &kept.targets)?.with_flash(board, kept.room);
        Ok(Self { plan, first, later })
    }

    /// The first image and later ones over a line to a board.
    #[must_use]
    pub fn over(&self, line: Line, board: &Board) -> [Passage; 2] {
        let speed = board.instructions_per_second();
        [&self.first, &self.later].map(|exchange| exchange.over(line, board.window, speed))
    }
}

/// All plans of a network for a board that differ in how much the client sends, from the
/// most input ciphertexts to the fewest.
///
/// # Errors
/// [`EngineError`] where a network has no plan under any set, or one has no program.
pub fn alternatives<'m>(
    params: Option<&'static Params>,
    model: Model<'m>,
    terms: Terms,
    board: &Board,
) -> Result<Vec<Alternative<'m>>, EngineError> {
    let of = |terms| planning::plan(params, model, terms, board.target());
    let least = of(terms);
    let set = match (&least, params) {
        (Ok(plan), _) => plan.params(),
        (Err(_), Some(params)) => params,
        (Err(_), None) => planning::DEFAULT_SET,
    };
    let mut found = Vec::new();
    for inputs in Plan::input_counts(set, &model)? {
        // The plan by least work is asked for as ever, and so is its firmware.
        let (terms, planned) = match &least {
            Ok(plan) if plan.ciphertexts() == inputs => (terms, least.clone()),
            _ => {
                let terms = terms.with_inputs(Some(inputs));
                (terms, of(terms))
            }
        };
        found.push(Alternative {
            terms,
            inputs,
            outcome: match planned {
                Ok(plan) => Ok(Exchanged::new(plan, board)?),
                Err(error) => Err(error),
            },
        });
    }
    Ok(found)
}

/// The plan whose later images take the least time on a line, of equals the one with the
/// most inputs; or that with the fingerprint `held`, which the board has already.
///
/// # Errors
/// As [`alternatives`]; where the board has room for no plan, why it has none for the one
/// with the most inputs.
pub fn fastest<'m>(
    params: Option<&'static Params>,
    model: Model<'m>,
    terms: Terms,
    board: &Board,
    line: Line,
    held: Option<u32>,
) -> Result<Chosen<'m>, EngineError> {
    let mut best: Option<Chosen<'m>> = None;
    let mut refused = None;
    for Alternative { terms, outcome, .. } in alternatives(params, model, terms, board)? {
        match outcome {
            Ok(exchanged) => {
                let [_, Passage { seconds, .. }] = exchanged.over(line, board);
                let is_held = match held {
                    Some(held) => Program::of(&exchanged.plan)?.fingerprint() == held,
                    None => false,
                };
                let chosen = Chosen {
                    terms,
                    plan: exchanged.plan,
                    seconds,
                };
                if is_held {
                    return Ok(chosen);
                }
                if best.as_ref().is_none_or(|best| seconds < best.seconds) {
                    best = Some(chosen);
                }
            }
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    match (best, refused) {
        (Some(best), _) => Ok(best),
        (None, Some(error)) => Err(error.into()),
        // There is one at least.
        (None, None) => Err(PlanError::Inputs {
            layer: 0,
            inputs: 0,
        }
        .into()),
    }
}

/// The plan that answers first.
#[derive(Clone, Debug)]
pub struct Chosen<'m> {
    /// The terms that it is made by, and its firmware.
    pub terms: Terms,
    /// The plan.
    pub plan: Plan<'m>,
    /// Seconds of a later image.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use he_nn::plan::WeightMode;
    use he_nn::{boards, bundled};

    use super::*;

    fn model() -> Model<'static> {
        Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap()
    }

    fn chosen(board: &str, baud: u32, held: Option<u32>) -> usize {
        let (board, terms) = (boards::find(board).unwrap(), WeightMode::Plain.into());
        let chosen = fastest(None, model(), terms, board, Line::of(baud), held).unwrap();
        let inputs = chosen.plan.ciphertexts();
        // What the firmware is built by gives the same plan.
        let again = planning::plan(None, model(), chosen.terms, board.target()).unwrap();
        assert_eq!(again.ciphertexts(), inputs);
        inputs
    }

    #[test]
    fn a_slow_line_takes_one_input_and_a_fast_one_all() {
        assert_eq!(chosen("mps2-an386", 115_200, None), 1);
        assert_eq!(chosen("mps2-an386", 3_000_000, None), 13);
        // A line that takes no time leaves the least work.
        assert_eq!(chosen("mps2-an386", u32::MAX, None), 13);
        // No room for another ciphertext, nor for keys.
        assert_eq!(chosen("mps2-an386-256k", 115_200, None), 13);
        // Keys are in its flash.
        assert_eq!(chosen("pico2", 115_200, None), 1);
    }

    #[test]
    fn what_a_board_has_already_is_taken() {
        let board = boards::find("mps2-an386").unwrap();
        let of = |inputs| {
            let terms = Terms::from(WeightMode::Plain).with_inputs(inputs);
            let plan = planning::plan(None, model(), terms, board.target()).unwrap();
            Program::of(&plan).unwrap().fingerprint()
        };
        assert_eq!(chosen("mps2-an386", 115_200, Some(of(None))), 13);
        assert_eq!(chosen("mps2-an386", 3_000_000, Some(of(Some(1)))), 1);
        assert_eq!(chosen("mps2-an386", 115_200, Some(7)), 1);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_size() {
        let board = boards::find("mps2-an386-256k").unwrap();
        let all = alternatives(None, model(), WeightMode::Plain.into(), board).unwrap();
        let counts: Vec<usize> = all.iter().map(|one| one.inputs).collect();
        assert_eq!(counts, [13, 1]);
        assert!(all[0].outcome.is_ok());
        let available = board.arena_bytes();
        match all[1].outcome.as_ref().map(|_| ()) {
            Err(&PlanError::Memory {
                needed,
                available: there,
            }) => assert_eq!((needed, there), (344_064, available)),
            other => panic!("{other:?}"),
        }
    }

    /// The first image waits for the flash as long as its report says, wherever the chunks lie.
    #[test]
    fn a_first_image_waits_for_its_keys_to_be_written() {
        for name in ["nrf52840-dk", "nucleo-h743zi", "pico2"] {
            let board = boards::find(name).unwrap();
            let plan = planning::plan(None, model(), WeightMode::Plain, board.target());
            let plan = plan.unwrap();
            let kept = KeptKeys::of(&plan, board);
            let report = kept.written.unwrap();
            let [with, without] = [
                Exchanged::new(plan.clone(), board).unwrap().first,
                Exchange::first(&plan, &kept.targets).unwrap(),
            ];
            let work = |exchange: &Exchange| -> u64 {
                let sent = exchange.frames().iter().filter(|frame| !frame.is_kept);
                sent.map(|frame| frame.work).sum()
            };
            let waits = (work(&with) - work(&without)) as f64 / board.instructions_per_second();
            assert!(
                (waits - report.seconds).abs() < 1e-4,
                "{name}: {waits} {report:?}"
            );
            // By hand: each sector that the keys take is erased once, and each byte is
            // programmed in units of at most so many.
            let flash = board.flash.unwrap();
            let bytes: usize = report.erased * flash.erase_bytes;
            assert!(bytes <= board.kept_bytes, "{name}");
            let least = f64::from(flash.erase_us) * report.erased as f64;
            assert!(report.seconds > 1e-6 * least, "{name}");
            let all = u64::from(flash.erasures) * (board.kept_bytes / bytes) as u64;
            assert!(report.exchanges >= all, "{name}: {report:?}");
            // Later images neither write nor are sent what is kept.
            let later = Exchanged::new(plan, board).unwrap().later;
            assert!(later.up() < with.up() / 2, "{name}");
        }
    }
}
