//! The one order of work: what an evaluator does, task by task.
//!
//! One ciphertext, the accumulator, is operand and result of every task; registers
//! hold others where a form has baby steps. Cost, keys, noise, memory and bytes are
//! folds over these tasks, a board carries them out one by one, and a host does too,
//! only that it takes several at once where that is faster.

use super::{Form, Plan, Step, WeightMode};
use he_core::ckks::evaluator::SwitchOp;
use he_core::params::Params;
use he_core::ring::automorphism;
use he_core::rlwe::SwitchTarget;

/// A ciphertext that is multiplied by weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The next input, as it arrives.
    Input,
    /// A register.
    Register(u8),
    /// The accumulator, in place.
    Accumulator,
}

/// What a task does to the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It becomes zero, at the scale of the step's sums or of its input.
    Clear {
        /// Of the sums.
        sums: bool,
    },
    /// It becomes the next input, as that arrives. It was zero.
    Receive,
    /// A product with weights is added; one of [`Operand::Accumulator`] takes its
    /// place.
    Product {
        /// What is multiplied.
        operand: Operand,
        /// Which of the step's products.
        index: u16,
    },
    /// Biases are added.
    Bias,
    /// The slots are rotated or conjugated by a Galois element.
    Rotate(u32),
    /// The same, and added to what was there.
    RotateAdd(u32),
    /// Square and relinearisation.
    Square,
    /// An activation polynomial, rescalings included.
    Polynomial,
    /// The sums of products of ciphertexts go back to two parts.
    Relinearize,
    /// Division by the last prime.
    Rescale,
    /// It is copied to a register.
    Save(u8),
    /// It becomes a copy of a register.
    Load(u8),
    /// It is multiplied by the imaginary unit and a register is added.
    Pair(u8),
    /// The last input is added, a mask, which the client takes off the result again: see
    /// [`Plan::is_masked`]. Both of its halves are expanded from its seed.
    Mask,
}

impl Op {
    /// The operation that consumes a switching key as it streams.
    #[must_use]
    pub const fn switching(self) -> Option<SwitchOp> {
        match self {
            Self::Rotate(g) => Some(SwitchOp::Rotate(g)),
            Self::RotateAdd(g) => Some(SwitchOp::RotateAdd(g)),
            Self::Square => Some(SwitchOp::Square),
            Self::Relinearize => Some(SwitchOp::Relinearize),
            _ => None,
        }
    }

    /// Which halves may owe transforms behind a key switch that this operation follows, but
    /// for [`Op::Bias`]: both up to a rescaling, the first while doublings come before that.
    #[must_use]
    pub const fn lets_owe(self) -> [bool; 2] {
        match self {
            Self::Rescale => [true, true],
            Self::RotateAdd(_) => [true, false],
            _ => [false, false],
        }
    }

    /// What the switching key that it takes is for.
    #[must_use]
    pub const fn key(self) -> Option<SwitchTarget> {
        match (self, self.switching()) {
            (Self::Polynomial, _) => Some(SwitchTarget::Square),
            (_, Some(op)) => Some(op.target()),
            (_, None) => None,
        }
    }
}

/// One operation at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What is done.
    pub op: Op,
    /// The plan's step that it belongs to.
    pub step: u8,
    /// Level of the accumulator before it.
    pub level: u8,
}

/// What the tasks of a layer with weights depend on besides its form.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) params: &'static Params,
    /// Whether it is the network's first.
    pub(super) first: bool,
    pub(super) weights: WeightMode,
}

/// The operations of a layer with weights, rescaling included where its form has one.
pub(super) fn linear(form: Form, place: Place, mut then: impl FnMut(Op)) {
    let Place {
        params,
        first,
        weights,
    } = place;
    let rotation = |steps: usize| automorphism::rotation(params.n(), steps as i32);
    let product = |operand, index: usize| Op::Product {
        operand,
        index: index as u16,
    };
    let encrypted = weights == WeightMode::Encrypted;
    if first && !matches!(form, Form::Blocks { .. }) {
        then(Op::Clear { sums: false });
        then(Op::Receive);
    }
    match form {
        Form::Blocks { .. } => {
            then(Op::Clear { sums: true });
            for index in 0..form.products(params.slots()) {
                then(product(Operand::Input, index));
            }
            if encrypted {
                then(Op::Relinearize);
            }
        }
        Form::Rows { .. } => {
            then(product(Operand::Accumulator, 0));
            if encrypted {
                then(Op::Relinearize);
            }
        }
        Form::Diagonals { baby, complex, .. } => {
            if complex && !first {
                then(Op::Save(0));
                then(Op::Rotate(rotation(form.pair_distance())));
                then(Op::Pair(0));
            }
            then(Op::Save(0));
            for steps in 1..baby {
                if steps > 1 {
                    then(Op::Load(0));
                }
                then(Op::Rotate(rotation(steps)));
                then(Op::Save(steps as u8));
            }
            then(Op::Clear { sums: true });
            // The last giant step comes first, so that each is a rotation by one.
            for (done, giant) in (0..form.giants()).rev().enumerate() {
                if done > 0 {
                    then(Op::Rotate(rotation(baby)));
                }
                for b in 0..baby {
                    then(product(Operand::Register(b as u8), giant * baby + b));
                }
                if encrypted {
                    then(Op::Relinearize);
                }
            }
        }
    }
    for fold in form.folds(params.slots()) {
        then(Op::RotateAdd(rotation(fold)));
    }
    if form.is_complex() {
        then(Op::RotateAdd(automorphism::conjugation(params.n())));
    }
    then(Op::Bias);
    if form.levels() > 0 {
        then(Op::Rescale);
    }
}

/// Registers that a form takes.
pub(super) const fn registers(form: Form) -> usize {
    match form {
        Form::Diagonals { baby, .. } => baby,
        Form::Blocks { .. } | Form::Rows { .. } => 0,
    }
}

impl Plan<'_> {
    /// Calls `then` with every task, in order.
    pub fn tasks(&self, mut then: impl FnMut(Task)) {
        for index in 0..self.steps().len() {
            self.tasks_of(index, &mut then);
        }
        if self.is_masked() {
            then(Task {
                op: Op::Mask,
                step: self.steps().len().saturating_sub(1) as u8,
                level: self.output_level() as u8,
            });
        }
    }

    /// Whether a mask, a ciphertext with uniform halves, drawn anew for each sample, is added
    /// to the result: it binds an answer to its request, as another request's answer less
    /// this mask is noise, which is refused. Nothing has to be hidden by it, so what goes up
    /// is the seed of both halves. In memory nothing lies between client and evaluator that
    /// could answer with another result. An evaluator that carries the mask over to what
    /// it makes up is not caught by it, but by evaluating again.
    #[must_use]
    pub const fn is_masked(&self) -> bool {
        self.target().is_stream()
    }

    /// Calls `then` with the tasks of one step, in order.
    pub(super) fn tasks_of(&self, index: usize, mut then: impl FnMut(Task)) {
        let Some(step) = self.steps().get(index) else {
            return;
        };
        let mut then = |op| {
            then(Task {
                op,
                step: index as u8,
                level: step.level() as u8,
            });
        };
        match step {
            Step::Linear { form, .. } => {
                let place = Place {
                    params: self.params(),
                    first: index == 0,
                    weights: self.weights(),
                };
                linear(*form, place, then);
            }
            Step::Square { .. } => {
                then(Op::Square);
                then(Op::Rescale);
            }
            Step::Polynomial { .. } => then(Op::Polynomial),
        }
    }

    /// Switching keys that it takes, each with the level it is used at: calls `take`
    /// for every use, from high levels to low ones.
    pub fn keys(&self, mut take: impl FnMut(SwitchTarget, usize)) {
        self.tasks(|task| {
            if let Some(target) = task.op.key() {
                take(target, task.level.into());
            }
        });
    }
}
