//! Circuits: how a network of any number of layers is evaluated on ciphertexts,
//! decided before any of them exists.
//!
//! Two layouts of values ([`Packing`]):
//!
//! - **latency**: one sample. A vector lies in the slots of one ciphertext,
//!   repeated with a period that is a power of two, and a layer with weights is
//!   a sum of rotations times plaintexts, in one of three forms ([`Form`]).
//! - **batch**: one sample a slot, one ciphertext a value ([`batch`]).
//!
//! Layers with weights that follow each other are one matrix ([`LinearMap`]).
//! Activations are squares or, on a host alone, other polynomials of up to
//! [`MAX_DEGREE`].
//!
//! # Forms of a layer, latency packing
//!
//! **Blocks**, for the first layer: the client repeats values as the sum needs
//! them. A ciphertext has `slots / lanes` blocks of a pair of inputs `x + i x'`
//! each, in as many lanes as the layer has outputs; for a convolution lane `j`
//! holds the pair of pixels under the window of output `j` (a layout a kernel
//! offset). It is multiplied by `(w - i w') / 2` and added to the others.
//! Rotations by `lanes, 2 lanes, ..` sum the blocks, and the conjugate leaves
//! the real part.
//!
//! **Diagonals**: with `x` of period `P` and `D` outputs (a power of two), the sum
//! over `d < min(D, P)` of `x` rotated by `d` times the generalised diagonal
//! `W[i mod D][(i + d) mod P]`, and rotations by `D, 2 D, .. P / 2` (Halevi and
//! Shoup, Crypto 2014, section 4.3), with baby and giant steps (section 4.1 of
//! Crypto 2018). Of two real vectors in one complex slot, `x[s] + i x[s + h]`,
//! one diagonal serves two: half of the products and of the rotations. In the first
//! layer, where the vector fits the slots several times, the client rotates copy `c`
//! by `c` times as many diagonals as a copy takes: with four copies a quarter of the
//! products, for two rotations more that sum the copies.
//!
//! **Rows**, for a last layer of few outputs: row `k` in block `k` of period `P`,
//! one product, and rotations by `1, 2, .. P / 2`.
//!
//! # Scales
//!
//! Every scale is what the evaluator's bookkeeping arrives at, exactly. A layer's
//! results before an activation have a scale near its prime; the last layer's
//! are as large as the last modulus allows with [`HEADROOM_BITS`] to spare above
//! the range seen in training. The scale of weights follows. A polynomial takes a
//! scale near the prime of its first rescaling or below, whichever leaves the least
//! error, and leaves one near the prime of the layer after it.

pub mod batch;
mod error;
mod map;
mod noise;
pub mod program;
pub mod session;

pub use error::CircuitError;
pub use map::{LinearMap, MAX_MERGED, Taps};
pub use noise::Norms;

use crate::model::{Layer, MAX_DEGREE, Model};
use crate::plan::{HEADROOM_BITS, LogitError};
use he_core::ckks::encode::Real;
use he_core::ckks::evaluator::{PolynomialOutcome, polynomial_levels, polynomial_outcome};
use he_core::params::Params;
use he_core::ring::automorphism;
use he_core::rlwe::keys::SwitchTarget;
use serde::{Deserialize, Serialize};

/// Most steps of a circuit.
pub const MAX_STEPS: usize = crate::model::MAX_LAYERS;

/// Smallest scale of an encoded weight: below it the rounding of weights spoils
/// eight bits.
const MIN_WEIGHT_SCALE: f64 = 4096.0;

/// Largest error of a logit at six standard deviations, of the range of logits:
/// above it labels change.
const MAX_ERROR: f64 = 1.0 / 32.0;

/// log2 of the largest encoded coefficient.
const ENCODED_LOG2: f64 = 61.0;

/// How values are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// One sample in the slots of a ciphertext.
    Latency,
    /// One sample a slot, one ciphertext a value.
    Batch,
}

/// How the evaluator holds weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// In the clear.
    Plain,
    /// Encrypted under the client's key, biases too.
    Encrypted,
}

/// The form of a layer with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// Inputs repeated by the client.
    Blocks {
        /// Slots of a block, a power of two: outputs.
        lanes: usize,
        /// Pairs of inputs of an output.
        pairs: usize,
    },
    /// Generalised diagonals.
    Diagonals {
        /// Period of the input, a power of two.
        period: usize,
        /// Period of the output, a power of two.
        rows: usize,
        /// Baby steps, a power of two.
        baby: usize,
        /// Two diagonals in one complex slot.
        complex: bool,
        /// Copies of the input, a power of two, of which each takes other diagonals:
        /// more than one where a client rotates them as it packs.
        copies: usize,
    },
    /// A row a block.
    Rows {
        /// Period of the input, a power of two.
        period: usize,
    },
}

impl Form {
    /// Whether sizes are powers of two, and the slots as many as they take.
    #[must_use]
    pub fn fits(self, slots: usize) -> bool {
        let within = |size: usize, most: usize| size.is_power_of_two() && size <= most;
        match self {
            Self::Blocks { lanes, .. } => within(lanes, slots),
            Self::Rows { period } => within(period, slots),
            Self::Diagonals {
                period,
                rows,
                baby,
                copies,
                ..
            } => {
                let fit = within(period, slots) && within(rows, slots);
                // In this order: what is no power of two is not shifted by.
                fit && within(copies, slots >> period.max(rows).trailing_zeros())
                    && within(baby, self.diagonals())
            }
        }
    }

    /// Products of a ciphertext and a plaintext under a set with so many slots.
    #[must_use]
    pub const fn products(self, slots: usize) -> usize {
        match self {
            Self::Blocks { lanes, pairs } => {
                let blocks = slots >> lanes.trailing_zeros();
                if blocks == 0 {
                    0
                } else {
                    pairs.div_ceil(blocks)
                }
            }
            Self::Diagonals { .. } => self.diagonals(),
            Self::Rows { .. } => 1,
        }
    }

    /// Diagonals that are multiplied, 0 for other forms.
    #[must_use]
    pub const fn diagonals(self) -> usize {
        match self {
            Self::Diagonals {
                period,
                rows,
                complex,
                copies,
                ..
            } => {
                let all = if rows < period { rows } else { period };
                (if complex { all >> 1 } else { all }) >> copies.trailing_zeros()
            }
            _ => 0,
        }
    }

    /// Distance of the two values in a complex slot: diagonals of all copies.
    #[must_use]
    pub const fn pair_distance(self) -> usize {
        match self {
            Self::Diagonals { copies, .. } => self.diagonals() << copies.trailing_zeros(),
            _ => 0,
        }
    }

    /// The two values in a slot of the input of [`Form::Diagonals`], by index; the
    /// second one only where slots are complex.
    const fn inputs_of_slot(self, slot: usize) -> (usize, usize) {
        match self {
            Self::Diagonals {
                period,
                rows,
                copies,
                ..
            } => {
                let length = if rows < period { period } else { rows };
                let copy = (slot >> length.trailing_zeros()) & (copies - 1);
                let first = slot + copy * self.diagonals();
                let mask = period - 1;
                (first & mask, (first + self.pair_distance()) & mask)
            }
            _ => (0, 0),
        }
    }

    /// Giant steps and the first of them, which is no rotation.
    #[must_use]
    pub const fn giants(self) -> usize {
        match self {
            Self::Diagonals { baby, .. } => self.diagonals() >> baby.trailing_zeros(),
            _ => 1,
        }
    }

    /// Whether slots are complex, so that the real part is taken at the end.
    #[must_use]
    pub const fn is_complex(self) -> bool {
        matches!(
            self,
            Self::Blocks { .. } | Self::Diagonals { complex: true, .. }
        )
    }

    /// Whether key switching comes before the products, too, where its noise is
    /// that of a scale which is not squared yet. The client packs the pairs of the
    /// first layer.
    #[must_use]
    const fn switches_operands(self, first: bool) -> bool {
        match self {
            Self::Blocks { .. } | Self::Rows { .. } => false,
            Self::Diagonals { baby, complex, .. } => baby > 1 || (complex && !first),
        }
    }

    /// Period of the result; that of [`Form::Rows`] is the distance of its
    /// outputs.
    #[must_use]
    pub const fn output_period(self) -> usize {
        match self {
            Self::Blocks { lanes, .. } => lanes,
            Self::Diagonals { rows, .. } => rows,
            Self::Rows { period } => period,
        }
    }

    /// Rotations that sum the products, each followed by an addition.
    pub fn folds(self, slots: usize) -> impl Iterator<Item = usize> + Clone {
        let (first, end) = match self {
            Self::Blocks { lanes, .. } => (lanes, slots),
            Self::Diagonals {
                period,
                rows,
                copies,
                ..
            } => (rows, period.max(rows) << copies.trailing_zeros()),
            Self::Rows { period } => (1, period),
        };
        core::iter::successors(Some(first), |step| step.checked_mul(2))
            .take_while(move |&step| step < end)
    }

    /// The slot of output `k`.
    #[must_use]
    pub const fn output_slot(self, k: usize) -> usize {
        match self {
            Self::Blocks { .. } | Self::Diagonals { .. } => k,
            Self::Rows { period } => k << period.trailing_zeros(),
        }
    }

    /// Writes the slots of the plaintext of product `index` of a layer: of a block
    /// of inputs, or of diagonal `index`. `weight` gives the weight of an output
    /// and an input. `re` and `im` have a number a slot.
    pub fn weight_slots<T: Real>(
        self,
        map: &LinearMap<'_>,
        index: usize,
        weight: impl Fn(usize, usize) -> f64,
        re: &mut [T],
        im: &mut [T],
    ) {
        let slots = re.len();
        re.fill(T::ZERO);
        im.fill(T::ZERO);
        let (inputs, outputs) = (map.inputs(), map.outputs());
        let weight = |output: usize, input: Option<usize>, factor: f64| match input {
            Some(input) if output < outputs && input < inputs => {
                T::from_f64(factor * weight(output, input))
            }
            _ => T::ZERO,
        };
        match self {
            Self::Blocks { lanes, pairs } => {
                let taps = map.taps();
                let first = index * (slots >> lanes.trailing_zeros());
                let of_blocks = re
                    .chunks_exact_mut(lanes.max(1))
                    .zip(im.chunks_exact_mut(lanes.max(1)));
                for ((re, im), pair) in of_blocks.zip(first..pairs) {
                    for (output, (re, im)) in re.iter_mut().zip(im).enumerate().take(outputs) {
                        *re = weight(output, taps.source(2 * pair, output), 0.5);
                        *im = weight(output, taps.source(2 * pair + 1, output), -0.5);
                    }
                }
            }
            Self::Diagonals {
                period,
                rows,
                baby,
                complex,
                copies,
            } => {
                let b = index & (baby - 1);
                // Rotated back by the giant step that follows the product.
                let giant = index - b;
                // What the input repeats, and every output; the rest repeats it.
                let all = (period.max(rows) << copies.trailing_zeros()).clamp(1, slots.max(1));
                for (s, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate().take(all) {
                    let output = s.wrapping_sub(giant) & (rows - 1);
                    let (input, other) = self.inputs_of_slot(s + b);
                    if complex {
                        *re = weight(output, Some(input), 0.5);
                        *im = weight(output, Some(other), -0.5);
                    } else {
                        *re = weight(output, Some(input), 1.0);
                    }
                }
                for part in [re, im] {
                    if let Some((first, rest)) = part.split_at_mut_checked(all) {
                        for repeated in rest.chunks_exact_mut(all) {
                            repeated.copy_from_slice(first);
                        }
                    }
                }
            }
            Self::Rows { period } => {
                for (row, re) in re.chunks_exact_mut(period.max(1)).enumerate() {
                    for (input, re) in re.iter_mut().enumerate() {
                        *re = weight(row, Some(input), 1.0);
                    }
                }
            }
        }
    }

    /// Writes the slots of a layer's biases, as they are added before it is
    /// rescaled.
    pub fn bias_slots<T: Real>(
        self,
        map: &LinearMap<'_>,
        bias: impl Fn(usize) -> f64,
        re: &mut [T],
    ) {
        re.fill(T::ZERO);
        let outputs = map.outputs();
        if let Self::Rows { period } = self {
            for (row, re) in re.chunks_exact_mut(period.max(1)).enumerate().take(outputs) {
                if let Some(re) = re.first_mut() {
                    *re = T::from_f64(bias(row));
                }
            }
            return;
        }
        for block in re.chunks_exact_mut(self.output_period().max(1)) {
            for (output, re) in block.iter_mut().enumerate().take(outputs) {
                *re = T::from_f64(bias(output));
            }
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
    /// Of its results, after rescaling.
    pub output: f64,
}

impl LinearScales {
    /// Of the sums, before rescaling.
    #[must_use]
    pub const fn sums(&self) -> f64 {
        self.input * self.weights
    }
}

/// Where a layer may switch keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeySwitches {
    /// Before its products, too.
    Anywhere,
    /// After its products alone.
    OfProducts,
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
        /// Level of what it takes; one less afterwards.
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
            Self::Linear { .. } | Self::Square { .. } => 1,
            Self::Polynomial { coefficients, .. } => {
                polynomial_levels(coefficients.len().saturating_sub(1))
            }
        }
    }

    /// Level of its results.
    #[must_use]
    pub fn output_level(&self) -> usize {
        self.level().saturating_sub(self.levels())
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

/// Passes over a limb that take as long as a transform of it.
pub const PASSES_A_TRANSFORM: usize = 6;

/// What a host's key switches and products take, by count of transforms and of
/// passes over a limb: what forms are compared by. In units of a pass.
mod cost {
    use super::PASSES_A_TRANSFORM as TRANSFORM;
    use super::Params;

    /// A limb of a ciphertext that is read, half of it unpacked and half expanded: 11
    /// measured on AVX2, and some for the bytes that travel.
    pub(super) const READ: usize = 18;

    const fn targets(params: &Params, level: usize) -> usize {
        level + 1 + params.special_limbs()
    }

    /// A division by the special primes.
    const fn division(params: &Params, level: usize) -> usize {
        2 * TRANSFORM * targets(params, level)
    }

    /// A rotation or relinearisation of its own.
    pub(super) const fn switch(params: &Params, level: usize) -> usize {
        let (digits, targets) = (params.digits(level), targets(params, level));
        digits * targets * (TRANSFORM + 2) + division(params, level)
    }

    /// One of several rotations of one ciphertext.
    pub(super) const fn hoisted(params: &Params, level: usize) -> usize {
        3 * params.digits(level) * targets(params, level) + division(params, level)
    }

    /// A product with a plaintext, added: two passes of multiplications, and the
    /// plaintext is read from memory that is far.
    pub(super) const fn product(level: usize) -> usize {
        3 * (level + 1)
    }
}

/// A circuit of one sample.
#[derive(Clone, Debug)]
pub struct Circuit<'m> {
    params: &'static Params,
    model: Model<'m>,
    weights: Weights,
    steps: heapless::Vec<Step<'m>, MAX_STEPS>,
    error: LogitError,
    headroom_bits: f64,
}

/// Layers of a network as maps and activations between them.
#[expect(
    clippy::large_enum_variant,
    reason = "there is no allocator to box a map in, and parts live while a plan is made"
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

fn parts<'m>(model: &Model<'m>) -> Result<heapless::Vec<Part<'m>, MAX_STEPS>, CircuitError> {
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
            _ => return Err(CircuitError::Relu { layer: view.index }),
        };
        // A model has no more layers than there is room.
        let _ = parts.push(part);
    }
    Ok(parts)
}

fn levels(parts: &[Part<'_>]) -> usize {
    parts.iter().map(Part::levels).sum()
}

/// Levels that a network takes in latency packing: one a layer with weights, one a
/// square, `ceil(log2(d + 1))` a polynomial of degree `d`.
///
/// # Errors
/// [`CircuitError`] for a network that no circuit evaluates.
pub fn depth(model: &Model<'_>) -> Result<usize, CircuitError> {
    parts(model).map(|parts| levels(&parts))
}

impl<'m> Circuit<'m> {
    /// Plans `model` for one sample under `params`. `row` and `scratch` are memory
    /// for [`LinearMap::row`]: [`Self::buffer_len`] numbers each.
    ///
    /// # Errors
    /// [`CircuitError`] with the figures that disagree.
    pub fn new(
        params: &'static Params,
        model: Model<'m>,
        weights: Weights,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<Self, CircuitError> {
        let depth = depth(&model)?;
        if params.max_level() < depth {
            return Err(CircuitError::Depth {
                needed: depth,
                available: params.max_level(),
            });
        }
        let mut circuit = Self {
            params,
            model,
            weights,
            steps: heapless::Vec::new(),
            error: LogitError {
                worst_case: 0.0,
                six_sigma: 0.0,
            },
            headroom_bits: f64::INFINITY,
        };
        match circuit.plan(KeySwitches::Anywhere, row, scratch) {
            // A set with a narrow special prime leaves too much noise in what is
            // switched before its product.
            Err(CircuitError::Noise { .. }) => {
                circuit.plan(KeySwitches::OfProducts, row, scratch)?;
            }
            planned => planned?,
        }
        Ok(circuit)
    }

    fn plan(
        &mut self,
        switches: KeySwitches,
        row: &mut [f64],
        scratch: &mut [f64],
    ) -> Result<(), CircuitError> {
        self.steps.clear();
        self.lay_out(parts(&self.model)?, switches)?;
        self.choose_scales()?;
        self.bound(row, scratch)
    }

    /// Numbers that [`Self::new`] takes for `row` and for `scratch`.
    #[must_use]
    pub fn buffer_len(model: &Model<'_>) -> usize {
        let inputs = model.layers().map(|view| view.input.values());
        2 * inputs.max().unwrap_or(0)
    }

    /// Chooses forms and levels.
    fn lay_out(
        &mut self,
        parts: heapless::Vec<Part<'m>, MAX_STEPS>,
        switches: KeySwitches,
    ) -> Result<(), CircuitError> {
        let last = parts.len().saturating_sub(1);
        let mut level = levels(&parts);
        let (mut period, mut domain) = (0, 0.0);
        for (index, part) in parts.into_iter().enumerate() {
            let taken = part.levels();
            let step = match part {
                Part::Linear(map) => {
                    let form =
                        self.cheapest(&map, level, (index == 0, index == last), period, switches)?;
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

    /// The form of a layer that takes the least time of a host; with encrypted
    /// weights every product is one of ciphertexts.
    fn cheapest(
        &self,
        map: &LinearMap<'_>,
        level: usize,
        (first, last): (bool, bool),
        period: usize,
        switches: KeySwitches,
    ) -> Result<Form, CircuitError> {
        let slots = self.params.slots();
        let rows = map.outputs().next_power_of_two().max(2);
        let period = if first {
            map.inputs().next_power_of_two().max(2)
        } else {
            period
        };
        let (layer, _) = map.layers();
        let wide = CircuitError::Slots {
            layer,
            needed: rows.max(period),
            slots,
        };
        if rows > slots || period > slots {
            return Err(wide);
        }
        let mut best: Option<(usize, Form)> = None;
        let mut consider = |form: Form| {
            if switches == KeySwitches::OfProducts && form.switches_operands(first) {
                return;
            }
            let cost = self.cost(form, level, first);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, form));
            }
        };
        if first {
            consider(Form::Blocks {
                lanes: rows,
                pairs: map.taps().count().div_ceil(2),
            });
        }
        if last && !first && map.outputs() <= slots >> period.trailing_zeros() {
            consider(Form::Rows { period });
        }
        // Only a client rotates copies.
        let most = if first {
            slots >> period.max(rows).trailing_zeros()
        } else {
            1
        };
        for complex in [false, true] {
            let mut copies = 1;
            while copies <= most {
                let mut baby = 1;
                loop {
                    let form = Form::Diagonals {
                        period,
                        rows,
                        baby,
                        complex,
                        copies,
                    };
                    if baby > form.diagonals() {
                        break;
                    }
                    consider(form);
                    baby <<= 1;
                }
                copies <<= 1;
            }
        }
        best.map(|(_, form)| form).ok_or(wide)
    }

    /// What a form takes, in passes over a limb.
    fn cost(&self, form: Form, level: usize, first: bool) -> usize {
        let (params, slots) = (self.params, self.params.slots());
        let switch = cost::switch(params, level);
        let encrypted = self.weights == Weights::Encrypted;
        let product = cost::product(level) * if encrypted { 3 } else { 1 };
        let mut total = form.products(slots) * product;
        total += form.folds(slots).count() * switch;
        total += usize::from(form.is_complex()) * switch;
        if let Form::Diagonals { baby, complex, .. } = form {
            total += (baby - 1) * cost::hoisted(params, level);
            total += (form.giants() - 1) * switch;
            // The client packs pairs; in the middle a rotation does.
            total += usize::from(complex && !first) * switch;
        }
        if encrypted {
            total += form.giants() * switch;
        }
        if first {
            // Each ciphertext of the input is read, checked and expanded.
            let ciphertexts = match form {
                Form::Blocks { .. } => form.products(slots),
                _ => 1,
            };
            total += ciphertexts * (level + 1) * cost::READ;
        }
        total
    }

    /// What one sample takes, in passes of a product over a limb, by the prices that
    /// forms are chosen by; [`PASSES_A_TRANSFORM`] make a transform.
    #[must_use]
    pub fn passes(&self) -> usize {
        let steps = self.steps.iter().enumerate();
        steps
            .map(|(index, step)| {
                let level = step.level();
                let rescaling = 2 * (level + 1) * PASSES_A_TRANSFORM;
                match step {
                    Step::Linear { form, .. } => rescaling + self.cost(*form, level, index == 0),
                    Step::Square { .. } => rescaling + cost::switch(self.params, level),
                    // As if all of it were at the highest level.
                    Step::Polynomial { .. } => {
                        step.polynomial_outcome(self.params).map_or(0, |outcome| {
                            outcome.rescalings as usize * rescaling
                                + outcome.products as usize * 4 * cost::product(level)
                                + outcome.relinearizations as usize
                                    * cost::switch(self.params, level)
                        })
                    }
                }
            })
            .sum()
    }

    fn prime(&self, i: usize) -> f64 {
        prime_value(self.params, i)
    }

    /// Chooses scales from the first layer to the last.
    fn choose_scales(&mut self) -> Result<(), CircuitError> {
        let first = self.prime(self.input_level());
        let mut scale = floor_pow2(first);
        let logit = f64::from(self.model.layers().last().map_or(1.0, |l| l.layer.range()));
        let value = logit.max(1.0);
        let room = self.prime(0) / 2.0 / f64::from(1u32 << HEADROOM_BITS) / value;
        let output = floor_pow2(room);
        for index in 0..self.steps.len() {
            let (Some(step), next) = (self.steps.get(index), self.steps.get(index + 1)) else {
                break;
            };
            let prime = self.prime(step.level());
            let below = self.prime(step.output_level());
            let target = match next {
                None => output,
                Some(Step::Polynomial {
                    coefficients,
                    level,
                    domain,
                    ..
                }) => {
                    // The polynomial's own results.
                    let end = next.map_or(0, Step::output_level);
                    let place = (*level, round_pow2(self.prime(end)));
                    let near = round_pow2(below);
                    noise::polynomial_input_scale(self.params, coefficients, place, *domain, near)
                }
                Some(_) => floor_pow2(below),
            };
            let Some(step) = self.steps.get_mut(index) else {
                break;
            };
            match step {
                Step::Linear { scales, .. } => {
                    let weights = target * prime / scale;
                    *scales = LinearScales {
                        input: scale,
                        weights,
                        output: scale * weights / prime,
                    };
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
        for step in &self.steps {
            if let Step::Linear { scales, .. } = step
                && scales.weights < MIN_WEIGHT_SCALE
            {
                return Err(CircuitError::Headroom {
                    value: value as f32,
                    scale_log2: libm::log2(room),
                });
            }
        }
        Ok(())
    }

    /// Bounds values and errors through the circuit, and checks that they fit.
    fn bound(&mut self, row: &mut [f64], scratch: &mut [f64]) -> Result<(), CircuitError> {
        let mut state = noise::State::fresh(self.params, self.model.input(), self.weights);
        let mut headroom = f64::INFINITY;
        for (index, step) in self.steps.iter().enumerate() {
            let level = step.level();
            let log_q = self.params.log_q(level);
            match step {
                Step::Linear {
                    map, form, scales, ..
                } => {
                    let (layer, _) = map.layers();
                    let norms = Norms::of(map, row, scratch)?;
                    let largest =
                        libm::fmax(norms.weight * scales.weights, norms.bias * scales.sums());
                    if !largest.is_finite() || libm::log2(libm::fmax(largest, 1.0)) >= ENCODED_LOG2
                    {
                        return Err(CircuitError::Encoding {
                            layer,
                            value: libm::fmax(norms.weight, norms.bias),
                            scale_log2: libm::log2(scales.sums()),
                        });
                    }
                    let range = libm::fmax(map.range(), 1.0);
                    let left = log_q - 1.0 - libm::log2(scales.sums() * range);
                    headroom = libm::fmin(headroom, left);
                    if left < f64::from(HEADROOM_BITS) {
                        return Err(CircuitError::Wraps {
                            layer,
                            value: range,
                            scale_log2: libm::log2(scales.sums()),
                            log_q,
                        });
                    }
                    let place = (index == 0, range);
                    state.linear(self.params, *form, level, scales, &norms, place);
                    state.divide(self.params, level);
                }
                Step::Square {
                    layer,
                    input,
                    range,
                    ..
                } => {
                    let range = libm::fmax(*range, 1.0);
                    let left = log_q - 1.0 - libm::log2(input * input * range);
                    headroom = libm::fmin(headroom, left);
                    if left < f64::from(HEADROOM_BITS) {
                        return Err(CircuitError::Wraps {
                            layer: *layer,
                            value: range,
                            scale_log2: libm::log2(input * input),
                            log_q,
                        });
                    }
                    state.square(self.params, level, *input, range);
                    state.divide(self.params, level);
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
                    let failed = |source| CircuitError::Polynomial {
                        layer: *layer,
                        source,
                    };
                    let place = (level, *input, *output);
                    let left = state
                        .polynomial(self.params, coefficients, place, (*domain, *range))
                        .map_err(failed)?;
                    headroom = libm::fmin(headroom, left);
                    if left < f64::from(HEADROOM_BITS) {
                        return Err(CircuitError::Powers {
                            layer: *layer,
                            value: *domain,
                            headroom_bits: left,
                        });
                    }
                }
            }
        }
        self.headroom_bits = headroom;
        self.error = state.logit_error(self.output_scale());
        check_error(&self.model, self.error)
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

    /// How weights are held.
    #[must_use]
    pub const fn weights(&self) -> Weights {
        self.weights
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

    /// Level of the inputs; that of the result is 0.
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

    /// Scale of the result.
    #[must_use]
    pub fn output_scale(&self) -> f64 {
        match self.steps.last() {
            Some(Step::Linear { scales, .. }) => scales.output,
            _ => 1.0,
        }
    }

    /// Ciphertexts of one sample.
    #[must_use]
    pub fn ciphertexts(&self) -> usize {
        match self.steps.first() {
            Some(Step::Linear {
                form: form @ Form::Blocks { .. },
                ..
            }) => form.products(self.params.slots()),
            _ => 1,
        }
    }

    /// The slot of output `k` in the result.
    #[must_use]
    pub fn output_slot(&self, k: usize) -> usize {
        match self.steps.last() {
            Some(Step::Linear { form, .. }) => form.output_slot(k),
            _ => k,
        }
    }

    /// Switching keys that it takes, each with the highest level it is used at:
    /// calls `take` for every use, from high levels to low ones.
    pub fn keys(&self, mut take: impl FnMut(SwitchTarget, usize)) {
        let n = self.params.n();
        let rotation = |steps: usize| SwitchTarget::Galois(automorphism::rotation(n, steps as i32));
        let conjugation = SwitchTarget::Galois(automorphism::conjugation(n));
        for (index, step) in self.steps.iter().enumerate() {
            let level = step.level();
            let Step::Linear { form, .. } = step else {
                take(SwitchTarget::Square, level);
                continue;
            };
            if let Form::Diagonals { baby, complex, .. } = *form {
                if complex && index > 0 {
                    take(rotation(form.pair_distance()), level);
                }
                for b in 1..baby {
                    take(rotation(b), level);
                }
                if form.giants() > 1 {
                    take(rotation(baby), level);
                }
            }
            if self.weights == Weights::Encrypted {
                take(SwitchTarget::Square, level);
            }
            for fold in form.folds(self.params.slots()) {
                take(rotation(fold), level);
            }
            if form.is_complex() {
                take(conjugation, level);
            }
        }
    }

    /// Writes what lies in the slots of input ciphertext `index` for values as the
    /// first layer sees them.
    pub fn input_slots(&self, index: usize, values: &[f64], re: &mut [f64], im: &mut [f64]) {
        re.fill(0.0);
        im.fill(0.0);
        let Some(Step::Linear { map, form, .. }) = self.steps.first() else {
            return;
        };
        let value = |at: Option<usize>| at.and_then(|at| values.get(at)).copied().unwrap_or(0.0);
        match *form {
            Form::Blocks { lanes, pairs } => {
                let taps = map.taps();
                let outputs = map.outputs();
                let blocks = self.params.slots() >> lanes.trailing_zeros();
                let first = index * blocks;
                let of_blocks = re.chunks_exact_mut(lanes).zip(im.chunks_exact_mut(lanes));
                for ((re, im), pair) in of_blocks.zip(first..pairs) {
                    for (output, (re, im)) in re.iter_mut().zip(im).enumerate().take(outputs) {
                        *re = value(taps.source(2 * pair, output));
                        *im = value(taps.source(2 * pair + 1, output));
                    }
                }
            }
            Form::Diagonals { complex, .. } => {
                for (s, (re, im)) in re.iter_mut().zip(im).enumerate() {
                    let (first, second) = form.inputs_of_slot(s);
                    *re = value(Some(first));
                    if complex {
                        *im = value(Some(second));
                    }
                }
            }
            Form::Rows { period } => {
                for (s, re) in re.iter_mut().enumerate() {
                    *re = value(Some(s & (period - 1)));
                }
            }
        }
    }

    /// Writes the slots of the plaintext of product `index` of a step, see
    /// [`Form::weight_slots`].
    pub fn weight_slots(
        &self,
        step: usize,
        index: usize,
        weight: impl Fn(usize, usize) -> f64,
        re: &mut [f64],
        im: &mut [f64],
    ) {
        if let Some(Step::Linear { map, form, .. }) = self.steps.get(step) {
            form.weight_slots(map, index, weight, re, im);
        }
    }

    /// Writes the slots of a step's biases, see [`Form::bias_slots`].
    pub fn bias_slots(&self, step: usize, bias: impl Fn(usize) -> f64, re: &mut [f64]) {
        if let Some(Step::Linear { map, form, .. }) = self.steps.get(step) {
            form.bias_slots(map, bias, re);
        }
    }
}

/// Refuses errors that change labels.
fn check_error(model: &Model<'_>, error: LogitError) -> Result<(), CircuitError> {
    let range = model.layers().last().map_or(1.0, |l| l.layer.range());
    let range = f64::from(range);
    if error.six_sigma <= range * MAX_ERROR {
        return Ok(());
    }
    Err(CircuitError::Noise {
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
