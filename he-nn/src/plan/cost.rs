//! What a task costs where it runs: what forms are compared by, and what plans state.

use super::order::{Op, Operand, Task};
use super::{LinearMap, Step, WeightMode};
use he_core::ckks::evaluator::PolynomialOutcome;
use he_core::params::Params;

/// Passes over a limb that take as long on a host as a transform of it.
pub const PASSES_PER_TRANSFORM: usize = 6;

/// Who evaluates, and what that costs there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// A host, in memory and double precision; costs are passes over a limb.
    Host,
    /// An evaluator that is fed by a stream and works in single precision: a board, or
    /// a process that does what a board would. Costs are instructions.
    Stream {
        /// What its work costs.
        prices: Prices,
        /// Bytes that it has for its arena.
        arena_bytes: usize,
        /// Bytes of flash beside its code: for the tables of transforms and, behind them,
        /// weights which are encoded and transformed before.
        weight_bytes: usize,
        /// Whether it puts transforms off where the arena leaves room for them.
        owes: bool,
    },
}

impl Target {
    /// A stream without a limit of memory, at the prices of a Cortex-M4.
    pub const STREAM: Self = Self::Stream {
        prices: Prices::ARMV7E_M,
        arena_bytes: usize::MAX,
        weight_bytes: 0,
        owes: false,
    };

    /// Whether it is fed by a stream.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        matches!(self, Self::Stream { .. })
    }
}

/// Instructions, for estimates: fitted to counts on the board; a test holds the
/// estimate of the bundled network to within 10 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// One transform with the carrying over before it, per butterfly, in
    /// hundredths.
    pub butterfly_x100: usize,
    /// One uploaded coefficient: unpack, expand its other half, multiply and
    /// add both.
    pub coefficient: usize,
    /// Laying out and encoding one vector of weights, per coefficient.
    pub encode: usize,
    /// A product of two parts with a plaintext, added, per coefficient of a limb.
    pub product: usize,
    /// A term of a weight that is summed over what lies between two layers.
    pub term: usize,
}

impl Prices {
    /// The kernels for the Cortex-M4, M7 and M33, whose instructions are the same.
    pub const ARMV7E_M: Self = Self {
        butterfly_x100: 930,
        coefficient: 52,
        encode: 100,
        product: 14,
        term: 70,
    };
}

/// A limb of a ciphertext that a host reads, half of it unpacked and half expanded: 11
/// measured on AVX2, and some for the bytes that travel.
const READ: usize = 18;

const fn targets(params: &Params, level: usize) -> usize {
    level + 1 + params.special_limbs()
}

/// A division by the special primes, in passes.
const fn division(params: &Params, level: usize) -> usize {
    2 * PASSES_PER_TRANSFORM * targets(params, level)
}

/// A rotation or relinearisation of its own on a host, in passes.
pub(super) const fn switch(params: &Params, level: usize) -> usize {
    let (digits, targets) = (params.digits(level), targets(params, level));
    digits * targets * (PASSES_PER_TRANSFORM + 2) + division(params, level)
}

/// One of several rotations of one ciphertext on a host, in passes.
const fn hoisted(params: &Params, level: usize) -> usize {
    3 * params.digits(level) * targets(params, level) + division(params, level)
}

/// A product with a plaintext on a host, added: two passes of multiplications, and the
/// plaintext is read from memory that is far.
pub(super) const fn product(level: usize) -> usize {
    3 * (level + 1)
}

/// Number-theoretic transforms of a task on a stream's evaluator, which encodes weights in
/// plain or has them prepared.
pub(super) const fn transforms(op: Op, level: usize, encodes: bool) -> usize {
    let limbs = level + 1;
    match op {
        Op::Product { .. } | Op::Bias if encodes => limbs,
        // The limb that goes away, and it in every other's domain.
        Op::Rescale => 2 * limbs,
        // Digits to the coefficient domain and to every other prime;
        // division: two accumulators, and two halves.
        Op::Rotate(_) | Op::RotateAdd(_) | Op::Square | Op::Relinearize => {
            limbs + limbs * limbs + 2 + 2 * limbs
        }
        _ => 0,
    }
}

/// A number-theoretic transform in the unit of the target.
pub(super) const fn transform(params: &Params, target: Target) -> usize {
    match target {
        Target::Host => PASSES_PER_TRANSFORM,
        Target::Stream { prices, .. } => {
            let butterflies = params.n() / 2 * params.n().trailing_zeros() as usize;
            butterflies * prices.butterfly_x100 / 100
        }
    }
}

/// Adds up what tasks cost, in the unit of the target.
pub(super) struct Tally {
    params: &'static Params,
    target: Target,
    weights: WeightMode,
    /// Weights are prepared: no plaintext is encoded.
    prepared: bool,
    /// A rotation whose kind the next task tells.
    rotation: Option<usize>,
    total: usize,
}

impl Tally {
    pub(super) const fn new(params: &'static Params, target: Target, weights: WeightMode) -> Self {
        Self {
            params,
            target,
            weights,
            prepared: false,
            rotation: None,
            total: 0,
        }
    }

    /// The same where weights are prepared, or are not.
    pub(super) const fn prepared(mut self, prepared: bool) -> Self {
        self.prepared = prepared;
        self
    }

    /// Adds a task that is no polynomial.
    pub(super) fn add(&mut self, op: Op, level: usize) {
        self.total += match self.target {
            Target::Host => self.passes(op, level),
            Target::Stream { prices, .. } => self.instructions(op, level, &prices),
        };
    }

    /// Adds a polynomial by what its evaluation comes to, as if all of it were at the
    /// highest level.
    pub(super) fn add_polynomial(&mut self, level: usize, outcome: PolynomialOutcome) {
        let rescalings = outcome.rescalings as usize;
        let (products, relinearized) =
            (outcome.products as usize, outcome.relinearizations as usize);
        self.total += match self.target {
            Target::Host => {
                rescalings * 2 * (level + 1) * PASSES_PER_TRANSFORM
                    + products * 4 * product(level)
                    + relinearized * switch(self.params, level)
            }
            Target::Stream { prices, .. } => {
                rescalings * self.instructions(Op::Rescale, level, &prices)
                    + products * 2 * self.params.n() * (level + 1) * prices.product
                    + relinearized * self.instructions(Op::Relinearize, level, &prices)
            }
        };
    }

    /// A step of a plan, task by task.
    pub(super) fn add_step(&mut self, step: &Step<'_>, task: Task) {
        match step.polynomial_outcome(self.params) {
            Some(outcome) => self.add_polynomial(task.level.into(), outcome),
            None => self.add(task.op, task.level.into()),
        }
    }

    /// The sum.
    pub(super) fn total(self) -> usize {
        let last = self.rotation.map_or(0, |level| switch(self.params, level));
        self.total + last
    }

    /// A host hoists the rotations of baby steps, which are saved one after the other.
    fn passes(&mut self, op: Op, level: usize) -> usize {
        let before = match (self.rotation.take(), op) {
            (Some(level), Op::Save(_)) => hoisted(self.params, level),
            (Some(level), _) => switch(self.params, level),
            (None, _) => 0,
        };
        before
            + match op {
                Op::Receive => (level + 1) * READ,
                Op::Product { operand, .. } => {
                    let factor = match self.weights {
                        WeightMode::Plain => 1,
                        WeightMode::Encrypted => 3,
                    };
                    let read = match operand {
                        Operand::Input => (level + 1) * READ,
                        Operand::Register(_) | Operand::Accumulator => 0,
                    };
                    read + factor * product(level)
                }
                Op::Rotate(_) => {
                    self.rotation = Some(level);
                    0
                }
                Op::RotateAdd(_) | Op::Square | Op::Relinearize => switch(self.params, level),
                Op::Rescale => 2 * (level + 1) * PASSES_PER_TRANSFORM,
                Op::Clear { .. }
                | Op::Bias
                | Op::Save(_)
                | Op::Load(_)
                | Op::Pair(_)
                | Op::Mask
                | Op::Polynomial => 0,
            }
    }

    /// Transforms, streamed coefficients, products and encodings at the target's
    /// prices.
    const fn instructions(&self, op: Op, level: usize, prices: &Prices) -> usize {
        let n = self.params.n();
        let limbs = level + 1;
        let plain = matches!(self.weights, WeightMode::Plain);
        let transforms = transforms(op, level, plain && !self.prepared);
        let transformed = transforms * transform(self.params, self.target);
        let streamed = n * limbs * prices.coefficient;
        let encode = if self.prepared { 0 } else { n * prices.encode };
        let rest = match op {
            Op::Receive => streamed,
            // Two halves, expanded.
            Op::Mask => 2 * streamed,
            Op::Product { operand, .. } => {
                let operand = match operand {
                    Operand::Input => streamed,
                    Operand::Register(_) | Operand::Accumulator => n * limbs * prices.product,
                };
                operand + if plain { encode } else { streamed }
            }
            Op::Bias if plain => encode,
            Op::Bias => streamed,
            Op::Rotate(_) | Op::RotateAdd(_) | Op::Square | Op::Relinearize => {
                streamed * (limbs + 1)
            }
            _ => 0,
        };
        transformed + rest
    }
}

/// What the weights of a map cost that are summed over what lies between its layers,
/// at each inference of a stream; a host sums them once.
pub(super) fn merging(map: &LinearMap<'_>, target: Target) -> usize {
    match target {
        Target::Host => 0,
        Target::Stream { prices, .. } => map.terms() * prices.term,
    }
}
