//! Why a network is not evaluated as it was asked for.

use core::fmt;

/// Why no circuit evaluates a network under a parameter set. One sentence each;
/// what to do is in it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum CircuitError {
    /// A ReLU.
    Relu {
        /// The layer.
        layer: usize,
    },
    /// An activation that is no square.
    Activation {
        /// The layer.
        layer: usize,
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
        /// Rescales of the circuit.
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
        /// Weights, a ciphertext each.
        weights: usize,
    },
    /// Memory that the caller gave is too short.
    Buffer {
        /// Numbers needed.
        needed: usize,
        /// Numbers there are.
        got: usize,
    },
}

impl fmt::Display for CircuitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Relu { layer } => write!(
                f,
                "layer {layer} is a ReLU, which CKKS does not evaluate; train the network with a polynomial activation"
            ),
            Self::Activation { layer } => write!(
                f,
                "the activation in layer {layer} is no square; train with one of degree 2, which becomes a square"
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
            Self::Buffer { needed, got } => write!(
                f,
                "planning takes memory for {needed} numbers and got {got}; give it more"
            ),
        }
    }
}

impl core::error::Error for CircuitError {}
