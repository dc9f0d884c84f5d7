//! Why a network is not evaluated as it was asked for.

use core::fmt;

use crate::message::CHUNK_COEFFS;
use crate::plan::HEADROOM_BITS;
use he_core::ckks::encode::COEFF_LIMIT_LOG2;

/// Why a network is not evaluated under a parameter set. One sentence each;
/// what to do is in it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum PlanError {
    /// A ReLU.
    Relu {
        /// The layer.
        layer: usize,
    },
    /// A polynomial that cannot be evaluated at the set's scales.
    Polynomial {
        /// The layer.
        layer: usize,
        /// Why.
        source: he_core::Error,
    },
    /// Powers and sums of an activation polynomial that would wrap around the modulus.
    Powers {
        /// The layer.
        layer: usize,
        /// Largest magnitude seen in training of what it takes.
        value: f64,
        /// Headroom that it leaves, in bits, counted as that of a square: where
        /// [`HEADROOM_BITS`] are left, twice the value does not wrap around.
        headroom_bits: f64,
    },
    /// Too many layers with weights between two activations.
    Merged {
        /// The first that is too many.
        layer: usize,
        /// Most there may be.
        max: usize,
    },
    /// More levels needed than there are.
    Depth {
        /// Rescales of the plan.
        needed: usize,
        /// Levels of the set.
        available: usize,
    },
    /// A vector that does not fit the slots.
    Slots {
        /// The layer.
        layer: usize,
        /// Slots of its input or output, a power of two.
        needed: usize,
        /// Slots of the set.
        slots: usize,
    },
    /// Values that leave too little of the modulus for a scale.
    Headroom {
        /// Largest magnitude seen in training.
        value: f32,
        /// log2 of the scale that it leaves.
        scale_log2: f64,
    },
    /// Values that would wrap around the modulus.
    Wraps {
        /// The layer.
        layer: usize,
        /// Largest magnitude seen in training.
        value: f64,
        /// log2 of their scale.
        scale_log2: f64,
        /// log2 of the modulus at that level.
        log_q: f64,
    },
    /// Weights or biases that are too large to be encoded.
    Encoding {
        /// The layer.
        layer: usize,
        /// Largest magnitude.
        value: f64,
        /// log2 of the scale they are encoded at.
        scale_log2: f64,
    },
    /// A class without a weight, in batch packing.
    Dead {
        /// The layer.
        layer: usize,
        /// The class.
        output: usize,
    },
    /// Errors that change labels.
    Noise {
        /// Largest error of a logit, at six standard deviations.
        error: f64,
        /// Largest logit in training.
        range: f64,
    },
    /// Encrypted weights in batch packing.
    EncryptedBatch {
        /// Weights, one ciphertext per weight.
        weights: usize,
    },
    /// Several special primes, whose keys are not streamed.
    Special {
        /// How many.
        primes: usize,
    },
    /// A ring too small for the link's chunks.
    Ring {
        /// Ring degree.
        n: usize,
    },
    /// More of something than a session addresses.
    Many {
        /// Of what.
        what: &'static str,
        /// How many.
        got: usize,
        /// Most there may be.
        max: usize,
    },
    /// Weights or biases that are too large for an encoder in single precision.
    Single {
        /// The layer.
        layer: usize,
        /// Largest magnitude.
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
    /// A number of input ciphertexts that no form of the first layer takes.
    Inputs {
        /// The layer.
        layer: usize,
        /// How many.
        inputs: usize,
    },
    /// Memory that the caller gave is too short.
    Buffer {
        /// Numbers needed.
        needed: usize,
        /// Numbers there are.
        got: usize,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Relu { layer } => write!(
                f,
                "layer {layer} is a ReLU, which CKKS does not evaluate; train the network with a polynomial activation"
            ),
            Self::Polynomial { layer, source } => write!(
                f,
                "the polynomial in layer {layer} cannot be evaluated under the parameter set: {source}; take a set with larger primes, or train with another activation"
            ),
            Self::Powers {
                layer,
                value,
                headroom_bits,
            } => write!(
                f,
                "values up to {value:.1} leave {headroom_bits:.1} bits of headroom to the powers of the polynomial in layer {layer} where {HEADROOM_BITS} are kept; train with smaller ranges or a smaller degree"
            ),
            Self::Merged { layer, max } => write!(
                f,
                "layer {layer} is one of more than {max} layers without an activation between them; merge them before"
            ),
            Self::Depth { needed, available } => write!(
                f,
                "the network needs {needed} rescales and the parameter set has {available} levels; take a set with a longer chain"
            ),
            Self::Slots {
                layer,
                needed,
                slots,
            } => write!(
                f,
                "layer {layer} takes {needed} slots and the parameter set has {slots}; take a larger ring"
            ),
            Self::Headroom { value, scale_log2 } => write!(
                f,
                "values of {value} leave only 2^{scale_log2:.1} for the scale of the result; train with smaller ranges or take a wider modulus"
            ),
            Self::Wraps {
                layer,
                value,
                scale_log2,
                log_q,
            } => write!(
                f,
                "values of {value} in layer {layer} at scale 2^{scale_log2:.1} exceed the modulus 2^{log_q:.1} there; train with smaller ranges or take a longer chain"
            ),
            Self::Encoding {
                layer,
                value,
                scale_log2,
            } => write!(
                f,
                "weights or biases of up to {value} in layer {layer} at scale 2^{scale_log2:.1} exceed the encoder's range; train with smaller ranges"
            ),
            Self::Dead { layer, output } => write!(
                f,
                "output {output} of layer {layer} has no weight that is not zero, so nothing encrypted comes of it; take it out of the network, or use latency packing"
            ),
            Self::Noise { error, range } => write!(
                f,
                "logits up to {range:.1} would have errors up to {error:.3} under the parameter set; take one with larger primes"
            ),
            Self::EncryptedBatch { weights } => write!(
                f,
                "encrypted weights in batch packing would take {weights} ciphertexts; use latency packing for encrypted weights"
            ),
            Self::Special { primes } => write!(
                f,
                "the parameter set has {primes} special primes and streamed keys take 1; take a set with one"
            ),
            Self::Ring { n } => write!(
                f,
                "ring degree {n} is smaller than a chunk of the link; take a ring of at least {CHUNK_COEFFS}"
            ),
            Self::Many { what, got, max } => write!(
                f,
                "the plan takes {got} {what} and a session has room for {max}; take a larger ring or a smaller network"
            ),
            Self::Single {
                layer,
                value,
                scale_log2,
            } => write!(
                f,
                "weights or biases of up to {value} in layer {layer} at scale 2^{scale_log2:.1} exceed the 2^{COEFF_LIMIT_LOG2} of a board's encoder; train with smaller ranges"
            ),
            Self::Memory { needed, available } => write!(
                f,
                "the arena takes {needed} bytes and the board has {available} for it; take a board with more memory"
            ),
            Self::Inputs { layer, inputs } => write!(
                f,
                "layer {layer} is not evaluated on {inputs} input ciphertexts; take a number that `plan --board` lists"
            ),
            Self::Buffer { needed, got } => write!(
                f,
                "planning takes memory for {needed} numbers and got {got}; give it more"
            ),
        }
    }
}

impl core::error::Error for PlanError {}
