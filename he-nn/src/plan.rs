//! The plan: everything about an inference that is decided before any
//! ciphertext exists, computed alike by client and evaluator.
//!
//! The circuit is that of one hidden layer with a square activation at depth
//! 3, latency packing:
//!
//! 1. A ciphertext holds `blocks` pairs of inputs, each repeated over `lanes`
//!    slots (one lane a hidden unit): slot `b * lanes + j` of ciphertext `c` is
//!    the complex number `x[2i] + x[2i+1] sqrt(-1)`, `i = c * blocks + b`. It is
//!    multiplied by a plaintext with `(w1[j][2i] - w1[j][2i+1] sqrt(-1)) / 2` in
//!    that slot and accumulated over all ciphertexts. Half of the first bias is
//!    added.
//! 2. The conjugate is added, which leaves twice the real part: both terms of
//!    every pair. Rotations by `lanes, 2 lanes, ..` with additions sum the
//!    blocks; every block then holds all pre-activations. **Then** rescale: the
//!    noise of key switching is absolute, so it is added while the scale is
//!    still doubled.
//! 3. Square, relinearise, rescale.
//! 4. One plaintext product: class `k` in block `k`. Rotations by `1, 2, ..`
//!    sum the lanes, so that slot `k * lanes` is logit `k`. Rescale.
//!
//! # Scales
//!
//! Scales are chosen, not given. The product of the scales of the second
//! layer is as large as the last modulus allows with [`HEADROOM_BITS`] to
//! spare above the range seen in training; the scale of the pre-activations
//! trades the rounding of the first rescale against that of the second
//! layer's weights, and is the one with the least expected error.
//!
//! # Error
//!
//! Two figures for the largest error of a logit, both from the same
//! propagation through the circuit: the worst case (every error at its bound
//! and all of one sign; for any image and any outcome of the sampling, as long
//! as nothing wraps around; far from what happens) and six standard deviations
//! of independent errors for values like those of training, below which a
//! measured maximum over thousands of images stays.

use crate::message::{CHUNK_COEFFS, Item, SEED_BYTES, StageKind};
use crate::model::{Model, TwoLayer};
use core::f64::consts::{FRAC_1_SQRT_2, SQRT_2};
use core::fmt;
use he_core::ckks::Noise;
use he_core::ckks::encode::COEFF_LIMIT_LOG2;
use he_core::ckks::evaluator::{SwitchOp, workspace_words};
use he_core::params::{Params, fnv};
use he_core::ring::automorphism;
use he_core::rlwe::KeyLimb;
use he_core::wire::packed_len;

/// Bits between the largest value seen in training and half the modulus, at
/// every step. Inputs unlike the training images may give larger values.
pub const HEADROOM_BITS: u32 = 2;

/// Biases are encoded at a scale smaller by this power of two, and multiplied
/// by it as integers, so that they stay within the encoder's range.
pub const BIAS_SHIFT: u32 = 20;

/// Smallest scale of an encoded weight: below it the rounding of weights
/// spoils eight bits.
const MIN_WEIGHT_SCALE: f64 = 4096.0;

/// Why a model does not fit a parameter set.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PlanError {
    /// Another network than two dense layers with a square between them.
    Architecture,
    /// The circuit needs more levels than the set has.
    Depth {
        /// Rescales of the circuit.
        needed: usize,
        /// Levels of the set.
        available: usize,
    },
    /// More hidden units than half of the slots.
    Hidden {
        /// Hidden units, rounded up to a power of two.
        lanes: usize,
        /// Slots of the set.
        slots: usize,
    },
    /// More classes than blocks.
    Classes {
        /// Classes of the model.
        classes: usize,
        /// Blocks of `lanes` slots.
        blocks: usize,
    },
    /// More inputs than a session addresses.
    Inputs {
        /// Ciphertexts that the inputs take.
        ciphertexts: usize,
        /// Most that the protocol addresses.
        max: usize,
    },
    /// A ring too small for the link's chunks.
    Ring {
        /// Ring degree.
        n: usize,
    },
    /// Several special primes, whose keys are not streamed.
    Special {
        /// How many.
        primes: usize,
    },
    /// Values that do not fit the modulus with the headroom.
    Headroom {
        /// Largest magnitude seen in training.
        value: f32,
        /// log2 of the scale that this magnitude leaves, which is too small.
        scale_log2: f64,
    },
    /// Weights or biases that are too large for their encoding.
    Encoding {
        /// Which.
        what: &'static str,
        /// The largest magnitude there may be.
        value: f64,
        /// log2 of the scale they are encoded at.
        scale_log2: f64,
    },
    /// The evaluator's memory is too small.
    Memory {
        /// Bytes needed for the arena.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Architecture => f.write_str(
                "only two dense layers on an image with a square between them are evaluated encrypted so far; take a network of that form",
            ),
            Self::Depth { needed, available } => write!(
                f,
                "the network needs {needed} rescales and the parameter set has {available} levels; take a set with a longer chain"
            ),
            Self::Hidden { lanes, slots } => write!(
                f,
                "the hidden layer takes {lanes} lanes and the parameter set has {slots} slots, of which it may take half; take a larger ring"
            ),
            Self::Classes { classes, blocks } => write!(
                f,
                "the model has {classes} classes and its hidden layer leaves {blocks} blocks of slots; take a larger ring"
            ),
            Self::Inputs { ciphertexts, max } => write!(
                f,
                "the inputs take {ciphertexts} ciphertexts and the protocol addresses {max}; take a larger ring"
            ),
            Self::Ring { n } => write!(
                f,
                "ring degree {n} is smaller than a chunk of the link; take a ring of at least {CHUNK_COEFFS}"
            ),
            Self::Special { primes } => write!(
                f,
                "the parameter set has {primes} special primes and streamed keys take 1; take a set with one"
            ),
            Self::Headroom { value, scale_log2 } => write!(
                f,
                "values of {value} leave only 2^{scale_log2:.1} for the scale of the second layer's weights; train with smaller ranges or take a wider modulus"
            ),
            Self::Encoding {
                what,
                value,
                scale_log2,
            } => write!(
                f,
                "{what} of up to {value} at scale 2^{scale_log2:.1} exceed the encoder's 2^{COEFF_LIMIT_LOG2}; train with smaller ranges"
            ),
            Self::Memory { needed, available } => write!(
                f,
                "the arena takes {needed} bytes and the board has {available} for it; take a board with more memory"
            ),
        }
    }
}

impl core::error::Error for PlanError {}

/// One use of a switching key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// What it does.
    pub op: SwitchOp,
    /// Level of the ciphertext it is applied to.
    pub level: usize,
    /// Stage it belongs to.
    pub stage: StageKind,
}

/// Scales, exact: each is what the evaluator's bookkeeping arrives at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Of the encrypted inputs.
    pub input: f64,
    /// Of the first layer's encoded weights.
    pub weights1: f64,
    /// Of the pre-activations after the first rescale.
    pub preactivation: f64,
    /// Of the squares after the second rescale.
    pub square: f64,
    /// Of the second layer's encoded weights.
    pub weights2: f64,
    /// Of the result.
    pub output: f64,
}

impl Scales {
    /// Of the first layer's sums, before the rescale.
    #[must_use]
    pub const fn sums1(&self) -> f64 {
        self.input * self.weights1
    }

    /// Of the second layer's sums, before the rescale.
    #[must_use]
    pub const fn sums2(&self) -> f64 {
        self.square * self.weights2
    }
}

/// The largest error of a logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitError {
    /// For any image and any outcome of the sampling, as long as nothing wraps
    /// around.
    pub worst_case: f64,
    /// Six standard deviations of independent errors, for values like those of
    /// training.
    pub six_sigma: f64,
}

/// Everything decided beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    params: &'static Params,
    model_crc: u32,
    inputs: usize,
    classes: usize,
    log_lanes: u32,
    scales: Scales,
    error: LogitError,
    headroom_bits: f64,
}

/// Level of the fresh inputs; the circuit spends all of it.
const DEPTH: usize = 3;

impl Plan {
    /// Plans `model` under `params`.
    ///
    /// # Errors
    /// [`PlanError`] with the figures that disagree.
    pub fn new(params: &'static Params, model: &Model<'_>) -> Result<Self, PlanError> {
        let model = &model.two_layer().ok_or(PlanError::Architecture)?;
        let slots = params.slots();
        if params.max_level() < DEPTH {
            return Err(PlanError::Depth {
                needed: DEPTH,
                available: params.max_level(),
            });
        }
        if params.n() < CHUNK_COEFFS {
            return Err(PlanError::Ring { n: params.n() });
        }
        if params.special_limbs() > 1 {
            return Err(PlanError::Special {
                primes: params.special_limbs(),
            });
        }
        // Two of each at least, so that both sums have a rotation.
        let lanes = model.hidden().next_power_of_two().max(2);
        if lanes > slots >> 1 {
            return Err(PlanError::Hidden { lanes, slots });
        }
        let blocks = slots >> lanes.trailing_zeros();
        if model.classes() > blocks {
            return Err(PlanError::Classes {
                classes: model.classes(),
                blocks,
            });
        }
        let ciphertexts = model.inputs().div_ceil((2 * blocks).max(1));
        let max = usize::from(u8::MAX);
        if ciphertexts > max {
            return Err(PlanError::Inputs { ciphertexts, max });
        }
        let circuit = Circuit::of(params, model, lanes);
        let (scales, error) = circuit.choose_scales()?;
        circuit.check_encodings(&scales)?;
        Ok(Self {
            params,
            model_crc: model.crc(),
            inputs: model.inputs(),
            classes: model.classes(),
            log_lanes: lanes.trailing_zeros(),
            scales,
            error,
            headroom_bits: circuit.headroom(&scales),
        })
    }

    /// Parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// Scales.
    #[must_use]
    pub const fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Largest error of a logit.
    #[must_use]
    pub const fn logit_error(&self) -> LogitError {
        self.error
    }

    /// Least distance, over the steps of the circuit, between the values seen
    /// in training and half the modulus, in bits.
    #[must_use]
    pub const fn headroom_bits(&self) -> f64 {
        self.headroom_bits
    }

    /// Inputs of the network.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// Classes of the network.
    #[must_use]
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// Slots of one block: the hidden units, rounded up to a power of two.
    #[must_use]
    pub const fn lanes(&self) -> usize {
        // As `Params::n`: visibly not zero.
        1 << self.log_lanes
    }

    /// Blocks of slots in one ciphertext, each with a pair of inputs.
    #[must_use]
    pub const fn blocks(&self) -> usize {
        1 << (self.params.slots().trailing_zeros() - self.log_lanes)
    }

    /// Input ciphertexts.
    #[must_use]
    pub const fn ciphertexts(&self) -> usize {
        let log_inputs = self.blocks().trailing_zeros() + 1;
        self.inputs.div_ceil(1 << log_inputs)
    }

    /// Level of the input ciphertexts.
    #[must_use]
    pub const fn input_level(&self) -> usize {
        DEPTH
    }

    /// Level of the result.
    #[must_use]
    pub const fn output_level(&self) -> usize {
        0
    }

    /// The slot of class `k` in the result.
    #[must_use]
    pub const fn output_slot(&self, k: usize) -> usize {
        k << self.log_lanes
    }

    /// Number of key uses.
    #[must_use]
    pub const fn key_uses(&self) -> usize {
        // 1 + log2(blocks), 1, log2(lanes).
        self.params.slots().trailing_zeros() as usize + 2
    }

    /// The `k`-th key use in the order of the circuit.
    #[must_use]
    pub const fn key_use(&self, k: usize) -> Option<KeyUse> {
        let sums1 = 1 + self.blocks().trailing_zeros() as usize;
        let n = self.params.n();
        let (g, level, stage) = if k == 0 {
            (automorphism::conjugation(n), DEPTH, StageKind::Sum1)
        } else if k < sums1 {
            (
                automorphism::rotation(n, (self.lanes() << (k - 1)) as i32),
                DEPTH,
                StageKind::Sum1,
            )
        } else if k == sums1 {
            let stage = StageKind::Activation;
            return Some(KeyUse {
                op: SwitchOp::Square,
                level: DEPTH - 1,
                stage,
            });
        } else if k < self.key_uses() {
            (
                automorphism::rotation(n, 1 << (k - sums1 - 1)),
                DEPTH - 2,
                StageKind::Sum2,
            )
        } else {
            return None;
        };
        Some(KeyUse {
            op: SwitchOp::RotateAdd(g),
            level,
            stage,
        })
    }

    /// Whether `k` is the last key use of its stage.
    #[must_use]
    pub fn ends_stage(&self, k: usize) -> bool {
        self.key_use(k).map(|u| u.stage) != self.key_use(k + 1).map(|u| u.stage)
    }

    /// Words of the evaluator's arena: the ciphertext and the largest key
    /// switch.
    #[must_use]
    pub const fn arena_words(&self) -> usize {
        arena_words(self.params)
    }

    /// Of these, the ciphertext: accumulator of the first layer and of every
    /// key switch.
    #[must_use]
    pub const fn ciphertext_words(&self) -> usize {
        ciphertext_words(self.params)
    }

    /// Bytes that seeds and payloads of one inference take on the wire,
    /// without framing: (inputs, keys, result).
    #[must_use]
    pub fn payload_bytes(&self) -> (usize, usize, usize) {
        let n = self.params.n();
        let width = |limb| self.params.prime(limb).map_or(0, |p| p.modulus().bits());
        let limb_bytes = |limb| packed_len(n, width(limb));
        let half: usize = (0..=DEPTH).map(limb_bytes).sum();
        let inputs = self.ciphertexts() * (half + SEED_BYTES);
        let keys = (0..self.key_uses())
            .filter_map(|k| self.key_use(k))
            .map(|u| {
                let row: usize = (0..=u.level).map(limb_bytes).sum::<usize>()
                    + limb_bytes(self.params.special());
                row * (u.level + 1) + SEED_BYTES
            })
            .sum();
        (inputs, keys, 2 * limb_bytes(0))
    }

    /// Number-theoretic transforms of one inference on the evaluator.
    #[must_use]
    pub fn transforms(&self) -> usize {
        let limbs = DEPTH + 1;
        let encoded = self.ciphertexts() * limbs + limbs + 2 * (DEPTH - 1);
        let keys: usize = (0..self.key_uses())
            .filter_map(|k| self.key_use(k))
            .map(|u| {
                let l = u.level + 1;
                // Digits to the coefficient domain and to every other prime;
                // division: two accumulators, and two halves.
                l + l * l + 2 + 2 * l
            })
            .sum();
        let rescales: usize = (1..=DEPTH).map(|l| 2 + 2 * l).sum();
        encoded + keys + rescales
    }

    /// A number that both sides compare before they begin: it covers the
    /// parameter set, the model, every use of a key and every scale.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        let s = &self.scales;
        let scales = [
            s.input,
            s.weights1,
            s.preactivation,
            s.square,
            s.weights2,
            s.output,
        ];
        let mut h = fnv(fnv(0x811c_9dc5, self.params.fingerprint()), self.model_crc);
        for u in (0..self.key_uses()).filter_map(|k| self.key_use(k)) {
            h = fnv(fnv(h, u.op.target().element()), u.level as u32);
        }
        for x in scales {
            let bits = x.to_bits();
            h = fnv(fnv(h, bits as u32), (bits >> 32) as u32);
        }
        h
    }
}

/// Words of the arena under a parameter set, for statics.
#[must_use]
pub const fn arena_words(params: &Params) -> usize {
    ciphertext_words(params) + workspace_words(params, DEPTH)
}

const fn ciphertext_words(params: &Params) -> usize {
    2 * (DEPTH + 1) * params.n()
}

/// Magnitudes of one network under one set, for the choice of scales.
struct Circuit {
    params: &'static Params,
    /// Largest `sum_i |w1_ji|` and `sqrt(sum_i w1_ji^2)` over units.
    w1: (f64, f64),
    /// The same of the second layer over classes.
    w2: (f64, f64),
    /// Largest magnitudes that the weights' scales allow in a slot: two halves
    /// of the first layer's are the parts of a complex number.
    w_max: (f64, f64),
    /// Largest values of the biases' slots, in the first layer half of a bias.
    b_max: (f64, f64),
    inputs: f64,
    /// Inputs with those that fill up the last ciphertext: their slots carry
    /// errors too.
    padded: f64,
    hidden: f64,
    /// Largest pre-activation, square and logit.
    ranges: (f64, f64, f64),
    blocks: f64,
    lanes: f64,
}

/// Norms of integer weights times their scale, the largest over the rows.
fn norms<I: Iterator<Item = i8>>(rows: impl Iterator<Item = I>, scale: f32) -> (f64, f64) {
    let (mut l1, mut l2) = (0u64, 0u64);
    for row in rows {
        let (mut sum, mut squares) = (0, 0);
        for w in row {
            let w = u64::from(w.unsigned_abs());
            sum += w;
            squares += w * w;
        }
        (l1, l2) = (l1.max(sum), l2.max(squares));
    }
    let scale = f64::from(scale);
    (l1 as f64 * scale, libm::sqrt(l2 as f64) * scale)
}

/// Largest magnitude.
fn largest(values: impl Iterator<Item = f32>) -> f64 {
    values.fold(0.0, |max, x| max.max(f64::from(x.abs())))
}

impl Circuit {
    fn of(params: &'static Params, model: &TwoLayer<'_>, lanes: usize) -> Self {
        let r = model.ranges();
        let rows1 = (0..model.hidden()).filter_map(|j| model.w1_row(j));
        let rows2 = (0..model.classes()).filter_map(|k| model.w2_row(k));
        Self {
            params,
            w1: norms(rows1, model.w1_scale()),
            w2: norms(rows2, model.w2_scale()),
            w_max: (
                127.0 * FRAC_1_SQRT_2 * f64::from(model.w1_scale()),
                127.0 * f64::from(model.w2_scale()),
            ),
            b_max: (
                largest((0..model.hidden()).filter_map(|j| model.b1(j))) / 2.0,
                largest((0..model.classes()).filter_map(|k| model.b2(k))),
            ),
            inputs: model.inputs() as f64,
            padded: model
                .inputs()
                .next_multiple_of((params.n() >> lanes.trailing_zeros()).max(1))
                as f64,
            hidden: model.hidden() as f64,
            ranges: (
                f64::from(r.preactivation),
                f64::from(r.square),
                f64::from(r.logit),
            ),
            blocks: (params.slots() >> lanes.trailing_zeros()) as f64,
            lanes: lanes as f64,
        }
    }

    fn q(&self, i: usize) -> f64 {
        self.params
            .prime(i)
            .map_or(1.0, |p| f64::from(p.modulus().value()))
    }

    /// Error in a slot of a key switch at `level`, a level of the circuit.
    fn key_switch(&self, level: usize) -> Noise {
        Noise::key_switch(self.params, level).unwrap_or(Noise::UNKNOWN)
    }

    /// Largest pre-activation of any image, pixels being at most 1. Partial
    /// sums, complex and of half the terms, stay below it.
    fn x_bound(&self) -> f64 {
        self.w1.0 + 2.0 * self.b_max.0
    }

    /// Error of a logit for given scales.
    ///
    /// The bound holds for every image and every outcome of the sampling, as
    /// long as nothing wraps around; sigma takes the values seen in training.
    fn logit_error(&self, s: &Scales) -> LogitError {
        let at = |e: Noise, scale: f64| e.times(1.0 / scale, 1.0 / scale);
        // A sum over `count` terms adds the noise of each rotation (or
        // conjugation), doubled by every later one: count - 1 of them in all.
        let summed = |e: Noise, count: f64| e.times(count - 1.0, libm::sqrt(count - 1.0));
        // Constants are rounded at the smaller scale; the sum over blocks or
        // lanes adds the rounding of as many slots.
        let encoded =
            |value: f64, scale: f64| at(Noise::rounding_f32(self.params, value * scale), scale);
        let bias = |value: f64, scale: f64, count: f64| {
            let scale = libm::ldexp(scale, -(BIAS_SHIFT as i32));
            encoded(value, scale).times(count, libm::sqrt(count))
        };
        let of_both = |a: Noise, b: Noise| a.times(b.bound, b.sigma);
        let division = Noise::division(self.params);
        let (x, h, _) = self.ranges;
        let x_bound = self.x_bound();
        let pairs = libm::ceil(self.inputs / 2.0);
        // Every block holds a sum and its conjugate.
        let terms = 2.0 * self.blocks;
        // Both errors of an input: encryption and the rounding of its encoding.
        let pixel = at(Noise::fresh(self.params), s.input);
        let weight1 = encoded(self.w_max.0, s.weights1);
        // An error e of a product's slot becomes 2 Re(e): at most twice as large,
        // and sqrt(2) times for sigma, which counts both parts of e. With the
        // weights' half that is 1 / sqrt(2) for a pixel's error; a pair of pixels
        // has a magnitude of at most sqrt(2), so it is sqrt(2) an input for a
        // weight's. One pixel in four is taken as bright for sigma.
        let preactivation = pixel
            .times(self.w1.0, self.w1.1 * FRAC_1_SQRT_2)
            .plus(weight1.times(2.0 * SQRT_2 * pairs, libm::sqrt(self.inputs / 2.0)))
            .plus(of_both(pixel, weight1).times(self.padded, libm::sqrt(self.padded)))
            .plus(bias(self.b_max.0, s.sums1(), terms))
            .plus(at(summed(self.key_switch(DEPTH), terms), s.sums1()))
            .plus(at(division, s.preactivation));
        let h_bound = x_bound * x_bound;
        let square = preactivation
            .times(2.0 * x_bound, x)
            .plus(of_both(preactivation, preactivation))
            .plus(at(
                self.key_switch(DEPTH - 1),
                s.preactivation * s.preactivation,
            ))
            .plus(at(division, s.square));
        let weight2 = encoded(self.w_max.1, s.weights2);
        let logit = square
            .times(self.w2.0, self.w2.1)
            .plus(weight2.times(self.hidden * h_bound, libm::sqrt(self.hidden) * h / 4.0))
            .plus(of_both(square, weight2).times(self.lanes, libm::sqrt(self.lanes)))
            .plus(bias(self.b_max.1, s.sums2(), self.lanes))
            .plus(at(
                summed(self.key_switch(DEPTH - 2), self.lanes),
                s.sums2(),
            ))
            .plus(at(division, s.output));
        LogitError {
            worst_case: logit.bound,
            six_sigma: 6.0 * logit.sigma,
        }
    }

    /// Checks that weights and biases fit the encoder: a coefficient is at most
    /// the largest slot.
    fn check_encodings(&self, s: &Scales) -> Result<(), PlanError> {
        let limit = libm::exp2(f64::from(COEFF_LIMIT_LOG2));
        let shifted = |scale| libm::ldexp(scale, -(BIAS_SHIFT as i32));
        for (what, value, scale) in [
            ("weights of the first layer", self.w_max.0, s.weights1),
            (
                "biases of the first layer",
                self.b_max.0,
                shifted(s.sums1()),
            ),
            ("weights of the second layer", self.w_max.1, s.weights2),
            (
                "biases of the second layer",
                self.b_max.1,
                shifted(s.sums2()),
            ),
        ] {
            // Less what rounding in single precision may add.
            if value * scale >= limit * (1.0 - 1.0 / 65536.0) {
                return Err(PlanError::Encoding {
                    what,
                    value,
                    scale_log2: libm::log2(scale),
                });
            }
        }
        Ok(())
    }

    /// Least headroom in bits over the steps.
    fn headroom(&self, s: &Scales) -> f64 {
        let (_, h, logit) = self.ranges;
        let q0 = libm::log2(self.q(0));
        let q1 = q0 + libm::log2(self.q(1));
        let q2 = q1 + libm::log2(self.q(2));
        let q3 = q2 + libm::log2(self.q(3));
        let left = |q: f64, scale: f64, value: f64| q - 1.0 - libm::log2(scale * value);
        [
            left(q3, s.sums1(), self.x_bound()),
            left(q2, s.preactivation * s.preactivation, h),
            left(q1, s.square, h),
            left(q1, s.sums2(), logit),
            left(q0, s.output, logit),
        ]
        .into_iter()
        .fold(f64::INFINITY, f64::min)
    }

    fn choose_scales(&self) -> Result<(Scales, LogitError), PlanError> {
        let (_, _, logit) = self.ranges;
        let value = logit.max(1.0);
        // The result: half of q_0, less headroom.
        let room = self.q(0) / 2.0 / f64::from(1u32 << HEADROOM_BITS) / value;
        let output = floor_pow2(room);
        let mut best: Option<(Scales, LogitError)> = None;
        for log in 72..=112 {
            // Quarter bits from 2^18 to 2^28.
            let preactivation = libm::exp2(f64::from(log) / 4.0);
            let square = preactivation * preactivation / self.q(2);
            let weights2 = output * self.q(1) / square;
            // The first layer's sum is split where weights and inputs
            // contribute alike, near the middle.
            let sums1 = preactivation * self.q(3);
            let input = floor_pow2(libm::sqrt(sums1) * 2.0);
            let scales = Scales {
                input,
                weights1: sums1 / input,
                preactivation,
                square,
                weights2,
                output,
            };
            if weights2 < MIN_WEIGHT_SCALE || self.headroom(&scales) < f64::from(HEADROOM_BITS) {
                continue;
            }
            let error = self.logit_error(&scales);
            if best.is_none_or(|(_, e)| error.six_sigma < e.six_sigma) {
                best = Some((scales, error));
            }
        }
        best.map(|(s, _)| (self.exact(&s), self.logit_error(&self.exact(&s))))
            .ok_or(PlanError::Headroom {
                value: value as f32,
                scale_log2: libm::log2(room),
            })
    }

    /// The scales as the evaluator's bookkeeping computes them, operation by
    /// operation.
    fn exact(&self, s: &Scales) -> Scales {
        let preactivation = s.input * s.weights1 / self.q(3);
        let square = preactivation * preactivation / self.q(2);
        let output = square * s.weights2 / self.q(1);
        Scales {
            preactivation,
            square,
            output,
            ..*s
        }
    }
}

fn floor_pow2(x: f64) -> f64 {
    libm::exp2(libm::floor(libm::log2(x)))
}

/// What the client sends next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The seed of input ciphertext `0`, `1`, ..
    InputSeed(usize),
    /// The seed of key use `0`, `1`, ..
    KeySeed(usize),
    /// A chunk.
    Chunk(Item, usize),
}

/// Walks through the upload of one inference; both sides hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Input ciphertexts, then key uses.
    group: usize,
    seeded: bool,
    /// Of an input, only the target counts.
    limb: KeyLimb,
    offset: usize,
}

impl Cursor {
    /// At the first step.
    #[must_use]
    pub const fn start() -> Self {
        Self {
            group: 0,
            seeded: false,
            limb: KeyLimb::FIRST,
            offset: 0,
        }
    }

    /// The step that comes next, `None` at the end.
    #[must_use]
    pub fn step(&self, plan: &Plan) -> Option<Step> {
        let (limb, digit) = (self.limb.target as u8, self.limb.digit as u8);
        if self.group < plan.ciphertexts() {
            if !self.seeded {
                return Some(Step::InputSeed(self.group));
            }
            let item = Item::Input {
                ciphertext: self.group as u8,
                limb,
            };
            return Some(Step::Chunk(item, self.offset));
        }
        let key = self.group - plan.ciphertexts();
        plan.key_use(key)?;
        if !self.seeded {
            return Some(Step::KeySeed(key));
        }
        Some(Step::Chunk(
            Item::Key {
                key: key as u8,
                limb,
                digit,
            },
            self.offset,
        ))
    }

    /// Moves past the current step.
    pub fn advance(&mut self, plan: &Plan) {
        if !self.seeded {
            self.seeded = true;
            return;
        }
        self.offset += CHUNK_COEFFS;
        if self.offset < plan.params().n() {
            return;
        }
        self.offset = 0;
        let key = self.group.checked_sub(plan.ciphertexts());
        let next = match key.and_then(|k| plan.key_use(k)) {
            Some(used) => self.limb.next(plan.params(), used.level),
            None if self.limb.target < plan.input_level() => Some(KeyLimb {
                target: self.limb.target + 1,
                ..self.limb
            }),
            None => None,
        };
        if let Some(next) = next {
            self.limb = next;
            return;
        }
        *self = Self {
            group: self.group + 1,
            ..Self::start()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Floats, Input, Layer, Linear, ModelParts, Shape};
    use he_core::params::N4096_DEPTH3 as P;
    use std::vec::Vec;

    struct Network {
        inputs: u16,
        hidden: u16,
        classes: u16,
        w1_scale: f32,
        b1: f32,
        logit: f32,
        /// Of the three, how many there are.
        layers: usize,
    }

    const REFERENCE: Network = Network {
        inputs: 784,
        hidden: 64,
        classes: 10,
        w1_scale: 0.01,
        b1: 0.5,
        logit: 15.0,
        layers: 3,
    };

    fn plan(shape: &Network) -> Result<Plan, PlanError> {
        plan_on(&P, shape)
    }

    fn plan_on(params: &'static Params, shape: &Network) -> Result<Plan, PlanError> {
        let bytes = |count: u16| vec![3u8; usize::from(count)];
        let floats =
            |count: u16, x: f32| -> Vec<u8> { (0..count).flat_map(|_| x.to_le_bytes()).collect() };
        let (w1, w2) = (
            bytes(shape.inputs).repeat(usize::from(shape.hidden)),
            bytes(shape.hidden).repeat(usize::from(shape.classes)),
        );
        let (b1, b2) = (floats(shape.hidden, shape.b1), floats(shape.classes, 0.1));
        let square = floats(1, 0.0).repeat(2);
        let square = [square, floats(1, 1.0)].concat();
        let layers = [
            Layer::Dense {
                outputs: shape.hidden,
                linear: Linear {
                    scale: shape.w1_scale,
                    weights: &w1,
                    biases: Floats::new(&b1),
                },
                range: 8.0,
            },
            Layer::Polynomial {
                coefficients: Floats::new(&square),
                range: 64.0,
            },
            Layer::Dense {
                outputs: shape.classes,
                linear: Linear {
                    scale: 0.002,
                    weights: &w2,
                    biases: Floats::new(&b2),
                },
                range: shape.logit,
            },
        ];
        let parts = ModelParts {
            name: b"shape",
            input: Input::Image(Shape {
                channels: 1,
                height: 1,
                width: shape.inputs,
            }),
            layers: &layers[..shape.layers],
        };
        let mut file = vec![0; parts.file_len().unwrap()];
        Plan::new(params, &parts.write(&mut file).unwrap())
    }

    #[test]
    fn the_reference_shape_is_that_of_the_design() {
        let p = plan(&REFERENCE).unwrap();
        assert_eq!(
            (p.lanes(), p.blocks(), p.ciphertexts(), p.key_uses()),
            (64, 32, 13, 13)
        );
        assert_eq!(
            (p.input_level(), p.output_level(), p.output_slot(3)),
            (3, 0, 192)
        );
        assert!(p.headroom_bits() >= f64::from(HEADROOM_BITS));
        let e = p.logit_error();
        assert!(
            e.six_sigma < 0.1 && e.worst_case > 100.0 * e.six_sigma,
            "{e:?}"
        );
        // The scales are those of the evaluator's bookkeeping.
        let s = p.scales();
        let q = |i| f64::from(P.prime(i).unwrap().modulus().value());
        assert_eq!(s.preactivation, s.input * s.weights1 / q(3));
        assert_eq!(s.square, s.preactivation * s.preactivation / q(2));
        assert_eq!(s.output, s.square * s.weights2 / q(1));
    }

    #[test]
    fn key_uses_take_real_parts_then_sum_blocks_then_lanes() {
        let p = plan(&REFERENCE).unwrap();
        let uses: Vec<KeyUse> = (0..p.key_uses()).map(|k| p.key_use(k).unwrap()).collect();
        let rotate = |steps| SwitchOp::RotateAdd(automorphism::rotation(4096, steps));
        let ops: Vec<SwitchOp> = uses.iter().map(|u| u.op).collect();
        let mut expected = vec![SwitchOp::RotateAdd(2 * 4096 - 1)];
        expected.extend([64, 128, 256, 512, 1024].map(rotate));
        expected.push(SwitchOp::Square);
        expected.extend([1, 2, 4, 8, 16, 32].map(rotate));
        assert_eq!(ops, expected);
        assert_eq!(uses.iter().map(|u| u.level).sum::<usize>(), 6 * 3 + 2 + 6);
        let ends: Vec<usize> = (0..13).filter(|&k| p.ends_stage(k)).collect();
        assert_eq!(ends, [5, 6, 12]);
        assert_eq!(p.key_use(13), None);
    }

    #[test]
    fn the_cursor_covers_the_payload() {
        let p = plan(&REFERENCE).unwrap();
        let (mut cursor, mut bytes, mut steps) = (Cursor::start(), 0, 0);
        while let Some(step) = cursor.step(&p) {
            bytes += match step {
                Step::InputSeed(_) | Step::KeySeed(_) => SEED_BYTES,
                Step::Chunk(Item::Weight { .. }, _) => panic!("weights are in plain"),
                Step::Chunk(Item::Input { limb, .. } | Item::Key { limb, .. }, _) => {
                    let m = P.prime(usize::from(limb)).unwrap().modulus();
                    packed_len(CHUNK_COEFFS, m.bits())
                }
            };
            steps += 1;
            cursor.advance(&p);
        }
        let (inputs, keys, _) = p.payload_bytes();
        assert_eq!(bytes, inputs + keys);
        // 13 inputs of 4 limbs; 6 keys of 20, one of 12 and 6 of 6 limbs.
        assert_eq!(steps, 13 + 13 + 8 * (52 + 120 + 12 + 36));
    }

    #[test]
    fn every_stage_has_a_rotation() {
        for hidden in [1, 2, 3, 100, 1024] {
            let p = plan(&Network {
                hidden,
                classes: 2,
                inputs: 200,
                ..REFERENCE
            })
            .unwrap();
            assert!(p.lanes() >= 2 && p.blocks() >= 2 && p.lanes() >= usize::from(hidden));
            assert_eq!(p.key_uses(), 13);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_figures() {
        let refused = |shape| plan(&shape).unwrap_err();
        let e = refused(Network {
            layers: 1,
            ..REFERENCE
        });
        assert_eq!(e, PlanError::Architecture);
        let e = refused(Network {
            hidden: 1024,
            classes: 10,
            ..REFERENCE
        });
        assert_eq!(
            e,
            PlanError::Classes {
                classes: 10,
                blocks: 2
            }
        );
        let e = refused(Network {
            inputs: 4096,
            hidden: 1024,
            classes: 2,
            ..REFERENCE
        });
        assert_eq!(
            e,
            PlanError::Inputs {
                ciphertexts: 1024,
                max: 255
            }
        );
        let e = refused(Network {
            w1_scale: 1e4,
            ..REFERENCE
        });
        assert!(
            matches!(
                e,
                PlanError::Encoding {
                    what: "weights of the first layer",
                    ..
                }
            ),
            "{e}"
        );
        let e = refused(Network {
            b1: 1e6,
            ..REFERENCE
        });
        assert!(
            matches!(
                e,
                PlanError::Encoding {
                    what: "biases of the first layer",
                    ..
                }
            ),
            "{e}"
        );
        let e = refused(Network {
            logit: 1e9,
            ..REFERENCE
        });
        assert!(matches!(e, PlanError::Headroom { .. }), "{e}");
        let e = plan_on(&he_core::params::N8192_SCALE40, &REFERENCE).unwrap_err();
        assert_eq!(e, PlanError::Special { primes: 2 });
    }

    #[test]
    fn plans_of_different_models_differ() {
        let a = plan(&REFERENCE).unwrap().fingerprint();
        let b = plan(&Network {
            b1: 0.6,
            ..REFERENCE
        })
        .unwrap()
        .fingerprint();
        assert_ne!(a, b);
        assert_eq!(a, plan(&REFERENCE).unwrap().fingerprint());
    }
}
