//! The plan: everything about the evaluation of a network that is decided before any
//! ciphertext exists: levels, forms, scales, errors, memory, keys, bytes, cost.
//!
//! Two layouts of values ([`Packing`]):
//!
//! - **latency**: one sample. A vector lies in the slots of one ciphertext,
//!   repeated with a period that is a power of two, and a layer with weights is
//!   a sum of rotations times plaintexts, in one of three forms ([`Form`]).
//! - **batch**: one sample per slot, one ciphertext per value ([`batch`]).
//!
//! Layers with weights that follow each other are one matrix ([`LinearMap`]).
//! Activations are squares or other polynomials of up to [`MAX_DEGREE`].
//!
//! | module | decides |
//! |---|---|
//! | `form` | what lies in which slot |
//! | `linear` | layers with weights as matrices |
//! | `order` | the one order of work; everything else is a fold over it |
//! | `cost` | what it costs where it runs |
//! | `bound` | values and errors through it |
//! | `range` | what a sample may do to it |
//! | `batch` | batch packing |
//!
//! # Scales
//!
//! Every scale is what the evaluator's bookkeeping arrives at, exactly. The last
//! layer's results are as large as the last modulus allows with [`HEADROOM_BITS`] to
//! spare above the range seen in training, and where the client adds up lanes these are:
//! of a lane the largest weight and the range of what it multiplies are a bound. The scale of the inputs, and that of each
//! layer's results before a square, trade the rounding of one rescaling against that
//! of the next layer's weights: the plan takes those with the least expected error
//! (a search, coordinate by coordinate). A polynomial takes a scale near the prime of
//! its first rescaling or below, whichever leaves the least error, and leaves one near
//! the prime of the layer after it. The scale of weights follows.
//!
//! # Refusals
//!
//! A plan whose errors would change labels is refused. Rotations before a product leave more
//! noise than logits have range where the special prime is narrow, so a plan that is refused
//! for its errors is tried again with switches after products alone: that is how
//! `mnist-mlp64` and `fashion-cryptonets` fit N = 4096.
//!
//! Biases of a stream's plan are encoded at `2^-20` of their scale and multiplied by `2^20`
//! as integers ([`BIAS_SHIFT`]), so that an encoder for coefficients of 30 bits serves
//! scales of 2^40.
//!
//! # Polynomials
//!
//! Degree 2 is completed to a square ([`crate::model`]), which is one product. Others take
//! `ceil(log2(d + 1))` levels. The scale of their input is a choice: an error of what `x^k`
//! is multiplied by grows with `x^k`, and with the input at a scale lower by a bit, `x^k` is
//! lower by `k` bits and its factor higher by as much. Errors are bounded by the walk that
//! evaluates ([`he_core::ckks::evaluator::polynomial_bound`]), as if all errors of one
//! ciphertext had one sign, because powers of a value depend on each other.

pub mod batch;
mod bound;
mod cost;
mod error;
mod form;
mod linear;
mod order;
mod range;

pub use bound::Norms;
pub use cost::{PASSES_PER_TRANSFORM, Prices, Target};
pub use error::PlanError;
pub use form::Form;
#[cfg(feature = "std")]
pub(crate) use linear::add_row;
pub use linear::{LinearMap, MAX_MERGED, Precision, Taps, WeightTable};
pub use order::{Op, Operand, Task};
pub use range::{Limit, OutOfRange, check};

use crate::message::{CHUNK_COEFFS, SEED_BYTES};
use crate::model::{Layer, MAX_DEGREE, Model};
use bound::{LayerFigures, State};
use core::ops::Range;
use cost::Tally;
use he_core::ckks::encode::COEFF_LIMIT_LOG2;
use he_core::ckks::evaluator::{
    Debt, PolynomialOutcome, polynomial_levels, polynomial_outcome, polynomial_words,
    workspace_words,
};
use he_core::params::Params;
use he_core::rlwe::keys::switching_key_words;
use he_core::wire::packed_len;
use serde::{Deserialize, Serialize};

/// Bits between the largest value seen in training and half the modulus, at
/// every step. Inputs unlike those of training may give larger values.
pub const HEADROOM_BITS: u32 = 2;

/// In single precision biases are encoded at a scale smaller by this power of two, and
/// multiplied by it as integers, so that they stay within the encoder's range.
pub const BIAS_SHIFT: u32 = 20;

/// Most steps of a plan.
pub const MAX_STEPS: usize = crate::model::MAX_LAYERS;

/// Smallest scale of an encoded weight: below it the rounding of weights spoils
/// eight bits.
const MIN_WEIGHT_SCALE: f64 = 4096.0;

/// Largest error of a logit at six standard deviations, of the range of logits:
/// above it labels change.
const MAX_ERROR: f64 = 1.0 / 32.0;

/// log2 of the largest coefficient that a host encodes.
const ENCODED_LOG2: f64 = 61.0;

/// log2 of the largest scale of the inputs: a sensor encodes them in single precision.
const MAX_INPUT_LOG2: f64 = 28.0;

/// The largest error of a logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitError {
    /// For any sample, but with a probability of 2^-64 over honest keys and coins
    /// ([`he_core::ckks::Noise::bound`]), as long as nothing wraps around.
    pub worst_case: f64,
    /// The part of it that depends on keys and coins, which is what the noise of published
    /// values has to hide: without the rounding of inputs and biases to integers, which
    /// whoever knows the values can compute. Told apart in batches.
    pub of_encryption: f64,
    /// Six standard deviations of independent errors, for values like those of
    /// training; of one sample `clear::error_alone`, in a batch `clear::error_in_batch`.
    pub six_sigma: f64,
}

impl LogitError {
    /// Whether an error is one that the plan expects. What is no number is not.
    #[must_use]
    pub fn allows(&self, error: f64) -> bool {
        error <= self.six_sigma
    }
}

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// One sample in the slots of a ciphertext.
    Latency,
    /// One sample per slot, one ciphertext per value.
    Batch,
}

/// How the evaluator holds weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightMode {
    /// In the clear.
    Plain,
    /// Encrypted under the client's key, biases too.
    Encrypted,
}

/// Who adds up the lanes of the last layer's results, where it is evaluated in rows
/// ([`Form::Rows`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sums {
    /// The client, once it has decrypted them: the evaluator takes no rotations for it, nor
    /// the keys of these, and returns them before rescaling, as the error of a rescaling
    /// would be added up with them. The client sees what an output sums.
    #[default]
    Client,
    /// The evaluator, by rotations.
    Evaluator,
}

/// What is agreed on a plan beside set, network and target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How the evaluator holds weights.
    pub weights: WeightMode,
    /// Who adds up the lanes of the last layer's results.
    pub sums: Sums,
    /// Input ciphertexts of a sample, one of [`Plan::input_counts`]; `None` for as many as
    /// the target takes the least work with. What is not sent the evaluator makes by
    /// rotations.
    pub inputs: Option<usize>,
}

impl Terms {
    /// With so many input ciphertexts; `None` leaves them to the work.
    #[must_use]
    pub const fn with_inputs(self, inputs: Option<usize>) -> Self {
        Self { inputs, ..self }
    }
}

/// The client adds up lanes, and the work decides how many inputs there are.
impl From<WeightMode> for Terms {
    fn from(weights: WeightMode) -> Self {
        Self {
            weights,
            sums: Sums::default(),
            inputs: None,
        }
    }
}

/// Scales of a layer with weights, exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearScales {
    /// Of what it takes.
    pub input: f64,
    /// Of its weights.
    pub weights: f64,
    /// Of its results, after rescaling if there is one.
    pub output: f64,
}

impl LinearScales {
    /// Of the sums, before rescaling.
    #[must_use]
    pub const fn sums(&self) -> f64 {
        self.input * self.weights
    }
}

/// What is done, in order.
#[derive(Clone, Debug)]
#[cfg_attr(
    target_pointer_width = "64",
    expect(
        clippy::large_enum_variant,
        reason = "there is no allocator to box with"
    )
)]
pub enum Step<'m> {
    /// A layer with weights, or several as one.
    Linear {
        /// Weights and biases.
        map: LinearMap<'m>,
        /// How it is evaluated.
        form: Form,
        /// Level of what it takes; [`Form::levels`] less afterwards.
        level: usize,
        /// Scales.
        scales: LinearScales,
    },
    /// A square.
    Square {
        /// The activation's index in the network.
        layer: usize,
        /// Level of what it takes; one less afterwards.
        level: usize,
        /// Scale of what it takes.
        input: f64,
        /// Scale of its results, after rescaling.
        output: f64,
        /// Largest result in training.
        range: f64,
    },
    /// A polynomial in every slot.
    Polynomial {
        /// The activation's index in the network.
        layer: usize,
        /// From the constant up.
        coefficients: Coefficients,
        /// Level of what it takes; [`Step::levels`] less afterwards.
        level: usize,
        /// Scale of what it takes.
        input: f64,
        /// Scale of its results, after rescaling.
        output: f64,
        /// Largest magnitude of what it takes, in training.
        domain: f64,
        /// Largest result in training.
        range: f64,
    },
}

/// Coefficients of an activation polynomial, from the constant up.
pub type Coefficients = heapless::Vec<f64, { MAX_DEGREE + 1 }>;

impl Step<'_> {
    /// Level of what it takes.
    #[must_use]
    pub const fn level(&self) -> usize {
        match self {
            Self::Linear { level, .. }
            | Self::Square { level, .. }
            | Self::Polynomial { level, .. } => *level,
        }
    }

    /// Levels that it takes.
    #[must_use]
    pub fn levels(&self) -> usize {
        match self {
            Self::Linear { form, .. } => form.levels(),
            Self::Square { .. } => 1,
            Self::Polynomial { coefficients, .. } => {
                polynomial_levels(coefficients.len().saturating_sub(1))
            }
        }
    }

    /// Largest result in training.
    #[must_use]
    pub fn range(&self) -> f64 {
        match self {
            Self::Linear { map, .. } => map.range(),
            Self::Square { range, .. } | Self::Polynomial { range, .. } => *range,
        }
    }

    /// Level of its results.
    #[must_use]
    pub fn output_level(&self) -> usize {
        self.level().saturating_sub(self.levels())
    }

    /// Scale of its results.
    #[must_use]
    pub const fn output_scale(&self) -> f64 {
        match self {
            Self::Linear { scales, .. } => scales.output,
            Self::Square { output, .. } | Self::Polynomial { output, .. } => *output,
        }
    }

    /// What a polynomial's evaluation comes to; `None` for any other step.
    #[must_use]
    pub fn polynomial_outcome(&self, params: &Params) -> Option<PolynomialOutcome> {
        let Self::Polynomial {
            coefficients,
            level,
            input,
            output,
            ..
        } = self
        else {
            return None;
        };
        polynomial_outcome(params, coefficients, *level, *input, *output).ok()
    }
}

/// The plan of one sample.
#[derive(Clone, Debug)]
pub struct Plan<'m> {
    params: &'static Params,
    model: Model<'m>,
    terms: Terms,
    target: Target,
    steps: heapless::Vec<Step<'m>, MAX_STEPS>,
    /// Of every step's results, see [`Self::step_error`].
    errors: StepErrors,
    error: LogitError,
    headroom_bits: f64,
}

/// Six standard deviations of the error of every step's results.
type StepErrors = heapless::Vec<f64, MAX_STEPS>;

/// Layers of a network as maps and activations between them.
#[cfg_attr(
    target_pointer_width = "64",
    expect(
        clippy::large_enum_variant,
        reason = "there is no allocator to box a map in, and parts live while a plan is made"
    )
)]
enum Part<'m> {
    Linear(LinearMap<'m>),
    Square {
        layer: usize,
        range: f64,
    },
    Polynomial {
        layer: usize,
        coefficients: Coefficients,
        range: f64,
    },
}

impl Part<'_> {
    fn levels(&self) -> usize {
        match self {
            Self::Linear(_) | Self::Square { .. } => 1,
            Self::Polynomial { coefficients, .. } => {
                polynomial_levels(coefficients.len().saturating_sub(1))
            }
        }
    }
}

fn parts<'m>(model: &Model<'m>) -> Result<heapless::Vec<Part<'m>, MAX_STEPS>, PlanError> {
    let mut parts: heapless::Vec<Part<'m>, MAX_STEPS> = heapless::Vec::new();
    for view in model.layers() {
        let part = match (view.layer, LinearMap::new(view)) {
            (_, Some(map)) => {
                if let Some(Part::Linear(before)) = parts.last_mut() {
                    before.then(view)?;
                    continue;
                }
                Part::Linear(map)
            }
            (
                Layer::Polynomial {
                    coefficients,
                    range,
                },
                None,
            ) => {
                let (layer, range) = (view.index, f64::from(range));
                if view.layer.is_square() {
                    Part::Square { layer, range }
                } else {
                    Part::Polynomial {
                        layer,
                        coefficients: coefficients.iter().map(f64::from).collect(),
                        range,
                    }
                }
            }
            _ => return Err(PlanError::Relu { layer: view.index }),
        };
        // A model has no more layers than there is room.
        let _ = parts.push(part);
    }
    Ok(parts)
}

fn levels(parts: &[Part<'_>]) -> usize {
    parts.iter().map(Part::levels).sum()
}

/// Levels that a network takes in latency packing: one per layer with weights, one per
/// square, `ceil(log2(d + 1))` per polynomial of degree `d`. A last layer whose lanes the
/// client adds up keeps its own, as it needs the modulus of both.
///
/// # Errors
/// [`PlanError`] for a network with an activation that is no polynomial.
pub fn depth(model: &Model<'_>) -> Result<usize, PlanError> {
    parts(model).map(|parts| levels(&parts))
}

/// What forms a plan may take.
#[derive(Clone, Copy)]
struct Allowed {
    /// Keys are switched before products, too, not after them alone.
    operands: bool,
    /// Registers that there is memory for.
    registers: usize,
}

impl<'m> Plan<'m> {
    /// Plans `model` for one sample under `params` on a target. `row` and `scratch` are
    /// memory for [`LinearMap::row`]: [`Self::buffer_len`] numbers each.
    ///
    /// # Errors
    /// [`PlanError`] with the figures that disagree.
    pub fn new(
        params: &'static Params,
        model: Model<'m>,
        terms: impl Into<Terms>,
        target: Target,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<Self, PlanError> {
        let terms = terms.into();
        let depth = depth(&model)?;
        if params.max_level() < depth {
            return Err(PlanError::Depth {
                needed: depth,
                available: params.max_level(),
            });
        }
        if target.is_stream() {
            check_stream(params)?;
        }
        let mut plan = Self {
            params,
            model,
            terms,
            target,
            steps: heapless::Vec::new(),
            errors: heapless::Vec::new(),
            error: LogitError {
                worst_case: 0.0,
                of_encryption: 0.0,
                six_sigma: 0.0,
            },
            headroom_bits: f64::INFINITY,
        };
        let mut allowed = Allowed {
            operands: true,
            registers: plan.most_registers(depth),
        };
        match plan.choose(allowed, row, scratch) {
            // A set with a narrow special prime leaves too much noise in what is
            // switched before its product.
            Err(PlanError::Noise { .. }) => {
                allowed.operands = false;
                plan.choose(allowed, row, scratch)?;
            }
            planned => planned?,
        }
        plan.check_memory()?;
        Ok(plan)
    }

    fn choose(
        &mut self,
        allowed: Allowed,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), PlanError> {
        self.steps.clear();
        self.lay_out(parts(&self.model)?, allowed)?;
        let mut figures = heapless::Vec::new();
        for step in &self.steps {
            let norms = match step {
                Step::Linear { map, .. } => Some(Norms::of(map, row, scratch)?),
                Step::Square { .. } | Step::Polynomial { .. } => None,
            };
            let _ = figures.push(norms);
        }
        self.choose_scales(&figures)
    }

    /// Numbers that [`Self::new`] takes for `row` and for `scratch`.
    #[must_use]
    pub fn buffer_len(model: &Model<'_>) -> usize {
        let inputs = model.layers().map(|view| view.input.values());
        2 * inputs.max().unwrap_or(0)
    }

    /// Registers that the target has memory for.
    const fn most_registers(&self, depth: usize) -> usize {
        let Target::Stream { arena_bytes, .. } = self.target else {
            return usize::MAX;
        };
        let part = (depth + 1) * self.params.n();
        let fixed = self.parts() * part + workspace_words(self.params, depth) + self.held_words();
        (arena_bytes / size_of::<u32>()).saturating_sub(fixed) / (2 * part)
    }

    /// How many input ciphertexts plans of `model` can have under `params`, from the most
    /// down: as many as the first layer has products where the client repeats its inputs, or
    /// one.
    ///
    /// # Errors
    /// [`PlanError`] for a network with an activation that is no polynomial.
    pub fn input_counts(
        params: &Params,
        model: &Model<'_>,
    ) -> Result<impl Iterator<Item = usize> + use<>, PlanError> {
        let parts = parts(model)?;
        let blocks = match parts.first() {
            Some(Part::Linear(map)) => blocks_of(map).inputs(params.slots()),
            _ => 1,
        };
        let more = (blocks > 1).then_some(blocks);
        Ok(more.into_iter().chain(core::iter::once(1)))
    }

    /// Chooses forms and levels.
    fn lay_out(
        &mut self,
        parts: heapless::Vec<Part<'m>, MAX_STEPS>,
        allowed: Allowed,
    ) -> Result<(), PlanError> {
        let last = parts.len().saturating_sub(1);
        let mut level = levels(&parts);
        let (mut period, mut domain) = (0, 0.0);
        for (index, part) in parts.into_iter().enumerate() {
            let taken = part.levels();
            let step = match part {
                Part::Linear(map) => {
                    let place = (index == 0, index == last);
                    let form = self.cheapest(&map, level, place, period, allowed)?;
                    period = form.output_period();
                    domain = map.range();
                    Step::Linear {
                        map,
                        form,
                        level,
                        scales: LinearScales {
                            input: 0.0,
                            weights: 0.0,
                            output: 0.0,
                        },
                    }
                }
                Part::Square { layer, range } => Step::Square {
                    layer,
                    level,
                    input: 0.0,
                    output: 0.0,
                    range,
                },
                Part::Polynomial {
                    layer,
                    coefficients,
                    range,
                } => Step::Polynomial {
                    layer,
                    coefficients,
                    level,
                    input: 0.0,
                    output: 0.0,
                    domain,
                    range,
                },
            };
            let _ = self.steps.push(step);
            level -= taken;
        }
        Ok(())
    }

    /// The form of a layer that costs the target least.
    fn cheapest(
        &self,
        map: &LinearMap<'_>,
        level: usize,
        (first, last): (bool, bool),
        period: usize,
        allowed: Allowed,
    ) -> Result<Form, PlanError> {
        let slots = self.params.slots();
        let rows = map.outputs().next_power_of_two().max(2);
        let period = if first {
            map.inputs().next_power_of_two().max(2)
        } else {
            period
        };
        let (layer, _) = map.layers();
        let wide = PlanError::Slots {
            layer,
            needed: rows.max(period),
            slots,
        };
        if rows > slots || period > slots {
            return Err(wide);
        }
        let mut best: Option<(usize, Form)> = None;
        let wanted = self.terms.inputs.filter(|_| first);
        // Registers of the form that takes the fewest of those that there is no memory for.
        let mut lacking: Option<usize> = None;
        let mut consider = |form: Form| {
            if (!allowed.operands && form.switches_operands(first))
                || wanted.is_some_and(|wanted| form.inputs(slots) != wanted)
            {
                return;
            }
            let registers = order::registers(form);
            if registers > allowed.registers {
                lacking = Some(lacking.map_or(registers, |least| least.min(registers)));
                return;
            }
            let cost = self.cost(form, level, first);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, form));
            }
        };
        if first {
            consider(blocks_of(map));
        }
        if last && !first && map.outputs() <= slots >> period.trailing_zeros() {
            consider(Form::Rows {
                period,
                summed: self.terms.sums == Sums::Evaluator,
            });
        }
        // Only a client rotates copies.
        let most = if first {
            slots >> period.max(rows).trailing_zeros()
        } else {
            1
        };
        for complex in [false, true] {
            for copies in powers_of_two(most) {
                let of = |baby| Form::Diagonals {
                    period,
                    rows,
                    baby,
                    complex,
                    copies,
                };
                powers_of_two(of(1).diagonals()).for_each(|baby| consider(of(baby)));
            }
        }
        // Where memory for registers is all that is missing, say so.
        match (best, lacking, wanted) {
            (Some((_, form)), _, _) => Ok(form),
            (None, Some(registers), _) => Err(self.memory_error(registers, level)),
            (None, None, Some(inputs)) => Err(PlanError::Inputs { layer, inputs }),
            (None, None, None) => Err(wide),
        }
    }

    /// What a form costs.
    fn cost(&self, form: Form, level: usize, first: bool) -> usize {
        let place = order::Place {
            params: self.params,
            first,
            weights: self.terms.weights,
        };
        let mut tally = Tally::new(self.params, self.target, self.terms.weights);
        order::linear(form, place, |op| tally.add(op, level));
        tally.total()
    }

    /// What one sample costs, in the unit of the target: passes over a limb on a host,
    /// of which [`PASSES_PER_TRANSFORM`] make a transform, instructions of a stream's
    /// evaluator.
    #[must_use]
    pub fn total_cost(&self) -> usize {
        let prepared = self.is_prepared();
        let tally = Tally::new(self.params, self.target, self.terms.weights);
        let mut tally = tally.prepared(prepared);
        let mut merging = 0;
        for (index, step) in self.steps.iter().enumerate() {
            self.tasks_of(index, |task| tally.add_step(step, task));
            merging += self.merging(step);
        }
        let transform = cost::transform(self.params, self.target);
        (tally.total() + merging).saturating_sub(self.transforms_put_off() * transform)
    }

    /// What summing the weights of merged layers costs, where a step forms them itself.
    fn merging(&self, step: &Step<'_>) -> usize {
        match step {
            Step::Linear { map, .. }
                if self.terms.weights == WeightMode::Plain && !self.is_prepared() =>
            {
                cost::merging(map, self.target)
            }
            _ => 0,
        }
    }

    /// Transforms of divisions that are saved where the target has the memory to put them
    /// off: those of the first half of a ciphertext between doublings, of both up to a
    /// rescaling. See [`he_core::ckks::evaluator::Debt`].
    fn transforms_put_off(&self) -> usize {
        let special = self.params.prime(self.params.special());
        let Some(special) = special.ok().filter(|_| self.owed_words() > 0) else {
            return 0;
        };
        let special = special.modulus().value();
        let (mut saved, mut owed) = (0, 0);
        // Limbs of a key switch, until it is known what follows.
        let mut switched = None;
        self.tasks(|task| {
            if task.op == Op::Bias {
                return;
            }
            if let Some(limbs) = switched.take() {
                let [first, second] = task.op.lets_owe();
                owed = if first {
                    Debt::bound_behind(owed, special)
                } else {
                    0
                };
                let second = second && Debt::bound_behind(0, special) != 0;
                saved += limbs * (usize::from(owed != 0) + usize::from(second));
            }
            switched = task.op.switching().map(|_| usize::from(task.level) + 1);
            if !matches!(task.op, Op::RotateAdd(_)) {
                owed = 0;
            }
        });
        saved
    }

    /// What every task costs by itself, in order and in the unit of the target. Summing the
    /// weights of merged layers is shared among the products of its step, and what putting
    /// transforms off saves among all key switches.
    pub fn costs(&self, mut then: impl FnMut(Task, usize)) {
        let prepared = self.is_prepared();
        let tally = || Tally::new(self.params, self.target, self.terms.weights).prepared(prepared);
        let mut switches = 0;
        self.tasks(|task| switches += usize::from(task.op.switching().is_some()));
        let transform = cost::transform(self.params, self.target);
        let saved = self.transforms_put_off() * transform / switches.max(1);
        let is_product = |task: Task| matches!(task.op, Op::Product { .. });
        for (index, step) in self.steps.iter().enumerate() {
            let merging = self.merging(step);
            let mut products = 0;
            self.tasks_of(index, |task| products += usize::from(is_product(task)));
            self.tasks_of(index, |task| {
                let mut tally = tally();
                tally.add_step(step, task);
                let share = match is_product(task) {
                    true => merging / products.max(1),
                    false => 0,
                };
                let less = match task.op.switching() {
                    Some(_) => saved,
                    None => 0,
                };
                then(task, (tally.total() + share).saturating_sub(less));
            });
        }
        if self.is_masked() {
            self.tasks(|task| {
                if task.op == Op::Mask {
                    let mut tally = tally();
                    tally.add(task.op, task.level.into());
                    then(task, tally.total());
                }
            });
        }
    }

    /// What a step costs, in the unit of the target as [`Self::total_cost`]. Where a result is
    /// masked, that is no step's.
    #[must_use]
    pub fn step_cost(&self, step: usize) -> usize {
        let prepared = self.is_prepared();
        let mut tally = Tally::new(self.params, self.target, self.terms.weights).prepared(prepared);
        let (mut switches, mut all_switches) = (0, 0);
        let is_switch = |task: Task| usize::from(task.op.switching().is_some());
        self.tasks(|task| all_switches += is_switch(task));
        let Some(of) = self.steps.get(step) else {
            return 0;
        };
        self.tasks_of(step, |task| {
            switches += is_switch(task);
            tally.add_step(of, task);
        });
        let transform = cost::transform(self.params, self.target);
        let saved = self.transforms_put_off() * transform * switches / all_switches.max(1);
        (tally.total() + self.merging(of)).saturating_sub(saved)
    }

    /// Six standard deviations of the error of a step's results, of samples like those of
    /// training and as values: of the last step a logit's, or a lane's. 0 for no step.
    #[must_use]
    pub fn step_error(&self, step: usize) -> f64 {
        self.errors.get(step).copied().unwrap_or(0.0)
    }

    /// Number-theoretic transforms of one sample on a stream's evaluator.
    #[must_use]
    pub fn transforms(&self) -> usize {
        let encodes = self.terms.weights == WeightMode::Plain && !self.is_prepared();
        let mut sum = 0;
        self.tasks(|task| sum += cost::transforms(task.op, task.level.into(), encodes));
        sum.saturating_sub(self.transforms_put_off())
    }

    /// Bytes of all weights and biases as they are multiplied and added, which is as
    /// plaintexts in the NTT domain; 0 where they are encrypted.
    #[must_use]
    pub fn prepared_bytes(&self) -> usize {
        let mut limbs = 0;
        self.tasks(|task| {
            if let Op::Product { .. } | Op::Bias = task.op {
                limbs += usize::from(task.level) + 1;
            }
        });
        match self.terms.weights {
            WeightMode::Plain => limbs * self.params.n() * size_of::<u32>(),
            WeightMode::Encrypted => 0,
        }
    }

    /// Whether the target has room for weights that are encoded and transformed before
    /// anything runs, rather than at each use.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        match self.target {
            Target::Host => false,
            Target::Stream { weight_bytes, .. } => {
                let weights = weight_bytes.saturating_sub(self.params.table_bytes());
                (1..=weights).contains(&self.prepared_bytes())
            }
        }
    }

    fn prime(&self, i: usize) -> f64 {
        prime_value(self.params, i)
    }

    /// Chooses the scales with the least error.
    ///
    /// Two coordinates of each layer are free: the scale of its results where a square
    /// follows, in quarters of a bit, and for the first layer that of its inputs, a
    /// power of two. Each in turn takes the value with the least error, twice over.
    fn choose_scales(&mut self, norms: &AllNorms) -> Result<(), PlanError> {
        let mut choice = self.first_choice()?;
        let planned = self.apply(&choice, norms);
        let searched = !self
            .steps
            .iter()
            .any(|s| matches!(s, Step::Polynomial { .. }));
        let mut best = planned
            .as_ref()
            .map_or(f64::INFINITY, |error| error.six_sigma);
        if searched {
            for _ in 0..SEARCH_ROUNDS {
                for at in 0..choice.len() {
                    best = self.search(&mut choice, at, best, norms);
                }
            }
        }
        let error = self.apply(&choice, norms)?;
        check_error(&self.model, error)
    }

    /// Tries other values of one coordinate; the least error.
    fn search(&mut self, choice: &mut Choice, at: usize, mut best: f64, norms: &AllNorms) -> f64 {
        let Some(&before) = choice.get(at) else {
            return best;
        };
        let (step, reach) = match at {
            0 => (1.0, 10),
            _ => (0.25, 32),
        };
        let mut chosen = before;
        for offset in -reach..=reach {
            let Some(value) = choice.get_mut(at) else {
                return best;
            };
            *value = before.map(|log| log + step * f64::from(offset));
            if value.is_none() || (at == 0 && *value > Some(MAX_INPUT_LOG2)) {
                continue;
            }
            match self.apply(choice, norms) {
                Ok(error) if error.six_sigma < best => {
                    best = error.six_sigma;
                    chosen = before.map(|log| log + step * f64::from(offset));
                }
                _ => {}
            }
        }
        if let Some(value) = choice.get_mut(at) {
            *value = chosen;
        }
        best
    }

    /// Scales near the primes that they are divided by.
    fn first_choice(&self) -> Result<Choice, PlanError> {
        let mut choice = Choice::new();
        let _ = choice.push(Some(libm::floor(libm::log2(
            self.prime(self.input_level()),
        ))));
        for (index, step) in self.steps.iter().enumerate() {
            let free = matches!(step, Step::Linear { .. })
                && matches!(self.steps.get(index + 1), Some(Step::Square { .. }));
            let below = libm::floor(libm::log2(self.prime(step.output_level())));
            let _ = choice.push(free.then_some(below));
        }
        Ok(choice)
    }

    /// Takes a choice of scales, from the first layer to the last, and bounds the
    /// errors that it leaves.
    fn apply(&mut self, choice: &Choice, norms: &AllNorms) -> Result<LogitError, PlanError> {
        let last = self.steps.len().saturating_sub(1);
        let value = self.largest(last, norms.last().copied().flatten().unwrap_or_default());
        // As a sum of logarithms: the modulus itself may be no `f64`.
        let room = self.params.log_q(self.output_level()) - 1.0 - f64::from(HEADROOM_BITS);
        let room = room - libm::log2(value);
        let output = libm::exp2(libm::floor(room));
        let mut scale = libm::exp2(choice.first().copied().flatten().unwrap_or(0.0));
        for index in 0..self.steps.len() {
            let (Some(step), next) = (self.steps.get(index), self.steps.get(index + 1)) else {
                break;
            };
            let prime = self.prime(step.level());
            let below = self.prime(step.output_level());
            let chosen = choice.get(index + 1).copied().flatten();
            let target = match (next, chosen) {
                (None, _) => output,
                (Some(polynomial @ Step::Polynomial { .. }), _) => {
                    self.polynomial_input(polynomial, below)
                }
                (Some(_), Some(log)) => libm::exp2(log),
                (Some(_), None) => floor_pow2(below),
            };
            let Some(step) = self.steps.get_mut(index) else {
                break;
            };
            match step {
                Step::Linear { form, scales, .. } => {
                    let divisor = if form.levels() > 0 { prime } else { 1.0 };
                    let weights = target * divisor / scale;
                    *scales = LinearScales {
                        input: scale,
                        weights,
                        output: scale * weights / divisor,
                    };
                    if weights < MIN_WEIGHT_SCALE {
                        return Err(PlanError::Headroom {
                            value: value as f32,
                            scale_log2: room,
                        });
                    }
                    scale = scales.output;
                }
                Step::Square { input, output, .. } => {
                    *input = scale;
                    *output = scale * scale / prime;
                    scale = *output;
                }
                Step::Polynomial { input, output, .. } => {
                    *input = scale;
                    *output = round_pow2(below);
                    scale = *output;
                }
            }
        }
        let (error, headroom, errors) = self.bound(norms)?;
        self.error = error;
        self.headroom_bits = headroom;
        self.errors = errors;
        Ok(error)
    }

    /// The scale that a polynomial takes, from a layer whose results are near a prime.
    fn polynomial_input(&self, step: &Step<'_>, below: f64) -> f64 {
        let Step::Polynomial {
            coefficients,
            level,
            domain,
            ..
        } = step
        else {
            return floor_pow2(below);
        };
        // The polynomial's own results.
        let place = (*level, round_pow2(self.prime(step.output_level())));
        bound::polynomial_input_scale(self.params, coefficients, place, *domain, round_pow2(below))
    }

    /// Bounds values and errors through the tasks, and checks that they fit: the error
    /// of a logit, the least headroom in bits, and the errors of all steps.
    fn bound(&self, norms: &AllNorms) -> Result<(LogitError, f64, StepErrors), PlanError> {
        let mut state = State::fresh(self.params, self.model.input());
        let mut headroom = f64::INFINITY;
        let mut errors = heapless::Vec::new();
        for (index, (step, norms)) in self.steps.iter().zip(norms).enumerate() {
            let left = match step {
                Step::Linear {
                    map, form, scales, ..
                } => {
                    let norms = norms.unwrap_or_default();
                    self.check_encoding(map, scales, &norms)?;
                    let (layer, _) = map.layers();
                    let value = self.largest(index, norms);
                    let left = self.headroom(layer, step.level(), scales.sums(), value)?;
                    let figures = self.figures(map, *form, *scales, norms);
                    self.tasks_of(index, |task| {
                        state.task(self.params, task.op, task.level.into(), &figures);
                    });
                    left
                }
                Step::Square {
                    layer,
                    input,
                    range,
                    ..
                } => {
                    let range = libm::fmax(*range, 1.0);
                    let left = self.headroom(*layer, step.level(), input * input, range)?;
                    state.square(self.params, step.level(), *input, range);
                    state.divide(self.params, step.level());
                    left
                }
                Step::Polynomial {
                    layer,
                    coefficients,
                    input,
                    output,
                    domain,
                    range,
                    ..
                } => {
                    let failed = |source| PlanError::Polynomial {
                        layer: *layer,
                        source,
                    };
                    let place = (step.level(), *input, *output);
                    let left = state
                        .polynomial(self.params, coefficients, place, (*domain, *range))
                        .map_err(failed)?;
                    if left < f64::from(HEADROOM_BITS) {
                        return Err(PlanError::Powers {
                            layer: *layer,
                            value: *domain,
                            headroom_bits: left,
                        });
                    }
                    left
                }
            };
            headroom = libm::fmin(headroom, left);
            let _ = errors.push(state.logit_error(step.output_scale()).six_sigma);
        }
        Ok((state.logit_error(self.output_scale()), headroom, errors))
    }

    /// What the errors of a layer's tasks depend on.
    fn figures(
        &self,
        map: &LinearMap<'_>,
        form: Form,
        scales: LinearScales,
        norms: Norms,
    ) -> LayerFigures {
        LayerFigures {
            form,
            scales,
            norms,
            range: libm::fmax(map.range(), 1.0),
            weights: self.terms.weights,
            single: self.target.is_stream(),
        }
    }

    /// The largest value in training of what a layer with weights leaves: of its results, or
    /// a bound of their lanes.
    fn largest(&self, index: usize, norms: Norms) -> f64 {
        let value = match (self.steps.get(index), index.checked_sub(1)) {
            (Some(Step::Linear { form, .. }), Some(before)) if form.lanes() > 1 => {
                let taken = self.steps.get(before).map_or(1.0, Step::range);
                norms.weight * taken + norms.bias / form.lanes() as f64
            }
            (Some(step), _) => step.range(),
            (None, _) => 1.0,
        };
        libm::fmax(value, 1.0)
    }

    /// Bits between a value at a scale and half the modulus of a level.
    fn headroom(
        &self,
        layer: usize,
        level: usize,
        scale: f64,
        value: f64,
    ) -> Result<f64, PlanError> {
        let log_q = self.params.log_q(level);
        let left = log_q - 1.0 - libm::log2(scale * value);
        if left < f64::from(HEADROOM_BITS) {
            return Err(PlanError::Wraps {
                layer,
                value,
                scale_log2: libm::log2(scale),
                log_q,
            });
        }
        Ok(left)
    }

    /// Refuses weights and biases that the target's encoder does not take.
    fn check_encoding(
        &self,
        map: &LinearMap<'_>,
        scales: &LinearScales,
        norms: &Norms,
    ) -> Result<(), PlanError> {
        let (layer, _) = map.layers();
        if self.target.is_stream() && self.terms.weights == WeightMode::Plain {
            check_single(layer, norms.weight, scales.weights)?;
            let shifted = libm::ldexp(scales.sums(), -(BIAS_SHIFT as i32));
            return check_single(layer, norms.bias, shifted);
        }
        let largest = libm::fmax(norms.weight * scales.weights, norms.bias * scales.sums());
        if !largest.is_finite() || libm::log2(libm::fmax(largest, 1.0)) >= ENCODED_LOG2 {
            return Err(PlanError::Encoding {
                layer,
                value: libm::fmax(norms.weight, norms.bias),
                scale_log2: libm::log2(scales.sums()),
            });
        }
        Ok(())
    }

    /// Parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// The network.
    #[must_use]
    pub const fn model(&self) -> &Model<'m> {
        &self.model
    }

    /// The terms that it was made by.
    #[must_use]
    pub const fn terms(&self) -> Terms {
        self.terms
    }

    /// How weights are held.
    #[must_use]
    pub const fn weights(&self) -> WeightMode {
        self.terms.weights
    }

    /// Who adds up the lanes of the last layer's results, where it has any.
    #[must_use]
    pub const fn sums(&self) -> Sums {
        self.terms.sums
    }

    /// Lanes of a result that the client adds up; 1 where there are none.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.output_slots(0).len()
    }

    /// Who evaluates.
    #[must_use]
    pub const fn target(&self) -> Target {
        self.target
    }

    /// What is done, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step<'m>] {
        &self.steps
    }

    /// Largest error of a logit.
    #[must_use]
    pub const fn logit_error(&self) -> LogitError {
        self.error
    }

    /// Least distance over the steps between values seen in training and half
    /// the modulus, in bits.
    #[must_use]
    pub const fn headroom_bits(&self) -> f64 {
        self.headroom_bits
    }

    /// Level of the inputs.
    #[must_use]
    pub fn input_level(&self) -> usize {
        self.steps.first().map_or(0, Step::level)
    }

    /// Scale of the inputs.
    #[must_use]
    pub fn input_scale(&self) -> f64 {
        match self.steps.first() {
            Some(Step::Linear { scales, .. }) => scales.input,
            _ => 1.0,
        }
    }

    /// Level of the result: 0, or that of the lanes that the client adds up.
    #[must_use]
    pub fn output_level(&self) -> usize {
        self.steps.last().map_or(0, Step::output_level)
    }

    /// Scale of the result.
    #[must_use]
    pub fn output_scale(&self) -> f64 {
        self.steps.last().map_or(1.0, Step::output_scale)
    }

    /// Ciphertexts of one sample.
    #[must_use]
    pub fn ciphertexts(&self) -> usize {
        match self.steps.first() {
            Some(Step::Linear { form, .. }) => form.inputs(self.params.slots()),
            _ => 1,
        }
    }

    /// The slots of the result that add up to output `k`.
    #[must_use]
    pub fn output_slots(&self, k: usize) -> Range<usize> {
        match self.steps.last() {
            Some(Step::Linear { form, .. }) => form.output_slots(k),
            _ => k..k + 1,
        }
    }

    /// Writes what lies in the slots of input ciphertext `index`, see
    /// [`Form::input_slots`].
    pub fn input_slots(&self, index: usize, values: &[f64], re: &mut [f64], im: &mut [f64]) {
        if let Some(Step::Linear { map, form, .. }) = self.steps.first() {
            form.input_slots(map, index, values, re, im);
        }
    }
}

/// The memory of a stream's evaluator, in words, and what travels.
impl Plan<'_> {
    /// Parts of the accumulator: three where products of ciphertexts are added up.
    #[must_use]
    pub const fn parts(&self) -> usize {
        match self.terms.weights {
            WeightMode::Plain => 2,
            WeightMode::Encrypted => 3,
        }
    }

    /// Of all parts of the accumulator.
    #[must_use]
    pub fn accumulator_words(&self) -> usize {
        self.parts() * (self.input_level() + 1) * self.params.n()
    }

    /// Registers, and the highest level of what they hold.
    #[must_use]
    pub fn registers(&self) -> (usize, usize) {
        let (mut count, mut level) = (0, 0);
        self.tasks(|task| {
            if let Op::Save(register) = task.op {
                count = count.max(usize::from(register) + 1);
                level = level.max(usize::from(task.level));
            }
        });
        (count, level)
    }

    /// Of all registers.
    #[must_use]
    pub fn register_words(&self) -> usize {
        let (count, level) = self.registers();
        2 * count * (level + 1) * self.params.n()
    }

    /// Of a key switch's workspace, scratch of everything else.
    #[must_use]
    pub fn work_words(&self) -> usize {
        workspace_words(self.params, self.input_level())
    }

    /// Of both halves of a chunk, kept until its factor comes.
    #[must_use]
    pub const fn held_words(&self) -> usize {
        match self.terms.weights {
            WeightMode::Plain => 0,
            WeightMode::Encrypted => 2 * CHUNK_COEFFS,
        }
    }

    /// Of what a polynomial takes at most: its key, kept while it is evaluated, and the
    /// powers.
    #[must_use]
    pub fn polynomial_words(&self) -> usize {
        let of = |step: &Step<'_>| match step {
            Step::Polynomial {
                coefficients,
                level,
                ..
            } => {
                let degree = coefficients.len().saturating_sub(1);
                switching_key_words(self.params, *level)
                    + polynomial_words(self.params, *level, degree)
            }
            Step::Linear { .. } | Step::Square { .. } => 0,
        };
        self.steps.iter().map(of).max().unwrap_or(0)
    }

    /// Of the evaluator's arena.
    #[must_use]
    pub fn arena_words(&self) -> usize {
        self.accumulator_words()
            + self.register_words()
            + self.work_words()
            + self.held_words()
            + self.polynomial_words()
    }

    /// Two limbs behind the arena, in which transforms of divisions are put off; none where
    /// the target has no room for them, or does not put them off.
    #[must_use]
    pub fn owed_words(&self) -> usize {
        let words = 2 * self.params.n();
        match self.target {
            Target::Stream {
                arena_bytes,
                owes: true,
                ..
            } if (self.arena_words() + words) * size_of::<u32>() <= arena_bytes => words,
            Target::Stream { .. } | Target::Host => 0,
        }
    }

    /// Refuses a target whose arena is too small.
    fn check_memory(&self) -> Result<(), PlanError> {
        let Target::Stream { arena_bytes, .. } = self.target else {
            return Ok(());
        };
        let needed = self.arena_words() * size_of::<u32>();
        if needed > arena_bytes {
            return Err(PlanError::Memory {
                needed,
                available: arena_bytes,
            });
        }
        Ok(())
    }

    /// The arena that so many registers would take, which is not there.
    const fn memory_error(&self, registers: usize, level: usize) -> PlanError {
        let part = (level + 1) * self.params.n();
        let words = (self.parts() + 2 * registers) * part
            + workspace_words(self.params, level)
            + self.held_words();
        let available = match self.target {
            Target::Stream { arena_bytes, .. } => arena_bytes,
            Target::Host => usize::MAX,
        };
        PlanError::Memory {
            needed: words * size_of::<u32>(),
            available,
        }
    }

    /// Bytes that seeds and chunks of one sample take on the wire.
    #[must_use]
    pub fn payload(&self) -> Payload {
        self.payload_of(|_| true)
    }

    /// What of that a step waits for.
    #[must_use]
    pub fn step_payload(&self, step: usize) -> Payload {
        Payload {
            result: 0,
            ..self.payload_of(|task| usize::from(task.step) == step)
        }
    }

    fn payload_of(&self, of: impl Fn(Task) -> bool) -> Payload {
        let params = self.params;
        let limb = |i| {
            params
                .prime(i)
                .map_or(0, |p| packed_len(params.n(), p.modulus().bits()))
        };
        let mut payload = Payload {
            result: 2 * (0..=self.output_level()).map(limb).sum::<usize>(),
            ..Payload::default()
        };
        let encrypted = self.terms.weights == WeightMode::Encrypted;
        self.tasks(|task| {
            if !of(task) {
                return;
            }
            let level = usize::from(task.level);
            let half: usize = (0..=level).map(limb).sum();
            let streams = Streams::of(task.op, encrypted);
            if streams.input {
                payload.inputs += SEED_BYTES;
            }
            if streams.input && !streams.seed_alone {
                payload.inputs += half;
            }
            if streams.factor {
                payload.factors += half + SEED_BYTES;
            }
            if streams.key {
                payload.keys += (half + limb(params.special())) * (level + 1) + SEED_BYTES;
            }
        });
        payload
    }
}

/// Which of its streams a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) input: bool,
    pub(crate) factor: bool,
    pub(crate) key: bool,
    /// Its input has no chunks.
    pub(crate) seed_alone: bool,
}

impl Streams {
    /// Of a task, where weights are encrypted or not.
    pub(crate) const fn of(op: Op, encrypted: bool) -> Self {
        let (input, factor) = match op {
            Op::Receive | Op::Mask => (true, false),
            Op::Product {
                operand: Operand::Input,
                ..
            } => (true, encrypted),
            Op::Product { .. } | Op::Bias => (false, encrypted),
            _ => (false, false),
        };
        Self {
            input,
            factor,
            key: op.key().is_some(),
            seed_alone: matches!(op, Op::Mask),
        }
    }

    pub(crate) const fn any(self) -> bool {
        self.input || self.factor || self.key
    }
}

/// What is sent over the link for one sample, apart from framing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Bytes of the inputs.
    pub inputs: usize,
    /// Bytes of encrypted factors.
    pub factors: usize,
    /// Bytes of switching keys.
    pub keys: usize,
    /// Bytes of the result.
    pub result: usize,
}

/// Norms of the weights of every step; none of an activation.
type AllNorms = heapless::Vec<Option<Norms>, MAX_STEPS>;

/// Free scales as log2: of the inputs, then of every step's results where they are
/// free.
type Choice = heapless::Vec<Option<f64>, { MAX_STEPS + 1 }>;

/// How often each free scale is searched: a second time makes up for what the others
/// were when it was searched first, a third changes nothing on the bundled networks.
const SEARCH_ROUNDS: usize = 2;

/// What a stream does not serve, whatever the network.
const fn check_stream(params: &Params) -> Result<(), PlanError> {
    if params.special_limbs() > 1 {
        return Err(PlanError::Special {
            primes: params.special_limbs(),
        });
    }
    if params.n() < CHUNK_COEFFS {
        return Err(PlanError::Ring { n: params.n() });
    }
    Ok(())
}

/// A coefficient is at most the largest slot; less what rounding in single precision
/// may add.
fn check_single(layer: usize, value: f64, scale: f64) -> Result<(), PlanError> {
    let limit = libm::exp2(f64::from(COEFF_LIMIT_LOG2)) * (1.0 - 1.0 / 65536.0);
    if value * scale < limit {
        return Ok(());
    }
    Err(PlanError::Single {
        layer,
        value,
        scale_log2: libm::log2(scale),
    })
}

/// The form of a first layer whose inputs the client repeats.
fn blocks_of(map: &LinearMap<'_>) -> Form {
    Form::Blocks {
        lanes: map.outputs().next_power_of_two().max(2),
        pairs: map.taps().count().div_ceil(2),
    }
}

/// 1, 2, 4 up to `most`.
fn powers_of_two(most: usize) -> impl Iterator<Item = usize> {
    core::iter::successors(Some(1usize), |power| power.checked_mul(2))
        .take_while(move |&power| power <= most)
}

/// Refuses errors that change labels.
fn check_error(model: &Model<'_>, error: LogitError) -> Result<(), PlanError> {
    let range = model.layers().last().map_or(1.0, |l| l.layer.range());
    let range = f64::from(range);
    if error.six_sigma <= range * MAX_ERROR {
        return Ok(());
    }
    Err(PlanError::Noise {
        error: error.six_sigma,
        range,
    })
}

/// The prime that a rescaling from level `i` divides by.
fn prime_value(params: &Params, i: usize) -> f64 {
    let prime = params.prime(i);
    prime.map_or(1.0, |p| f64::from(p.modulus().value()))
}

fn floor_pow2(x: f64) -> f64 {
    libm::exp2(libm::floor(libm::log2(x)))
}

fn round_pow2(x: f64) -> f64 {
    libm::exp2(libm::round(libm::log2(x)))
}

#[cfg(test)]
mod tests;
