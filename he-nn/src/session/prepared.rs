//! Weights in the form that they are multiplied in: encoded at each use, or once before
//! anything runs.
//!
//! A plaintext takes an encoder's transform and one number-theoretic transform per limb;
//! the words are the same at every inference. Where there is flash for them
//! ([`crate::plan::Plan::is_prepared`]), the build script makes them and the board reads
//! them: 15 of the 132 million instructions of `mnist-mlp64`, for 983 KB instead of 51.
//! Neither the model nor an encoder is in such an image.

use he_core::ckks::encode::encode_in_place;
#[cfg(feature = "std")]
use he_core::ckks::evaluator::{transform_addend, transform_encoded};

use super::{WeightSource, internal};
use crate::message::Refusal;
use crate::plan::{BIAS_SHIFT, Form, LinearMap};
#[cfg(feature = "std")]
use crate::plan::{Op, Task};
use crate::program::Program;

/// Plaintexts of all layers, limb by limb in the order of [`Program::plaintexts`]: weights
/// as [`transform_encoded`] writes them, biases as [`transform_addend`] does.
///
/// [`transform_encoded`]: he_core::ckks::evaluator::transform_encoded
/// [`transform_addend`]: he_core::ckks::evaluator::transform_addend
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'a>(&'a [u32]);

impl<'a> Prepared<'a> {
    /// Over what [`prepare`] has made.
    #[must_use]
    pub const fn new(words: &'a [u32]) -> Self {
        Self(words)
    }

    /// Over the bytes of these words as this machine has them; `None` for an address that
    /// is none of words.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        bytemuck::try_cast_slice(bytes).ok().map(Self)
    }
}

impl WeightSource for Prepared<'_> {
    const PLAIN: bool = true;
    const PREPARED: bool = true;

    fn map(&self, _: usize, _: usize) -> Option<LinearMap<'_>> {
        None
    }

    fn prepared(&self, first: usize, words: usize) -> Option<&[u32]> {
        self.0.get(first..)?.get(..words)
    }
}

/// The words of [`Prepared`] for a program whose weights are in plain and single precision.
///
/// # Errors
/// [`Refusal::Model`] if the program is not one of the model.
#[cfg(feature = "std")]
pub fn prepare<B: AsRef<[u8]>>(
    program: &Program<B>,
    model: &crate::model::Model<'_>,
) -> Result<Vec<u32>, Refusal> {
    let params = program.params();
    let n = params.n();
    let mut buffer = vec![0; n];
    let mut words = Vec::new();
    for Task { op, step, level } in program.plaintexts() {
        let is_bias = match op {
            Op::Product { index, .. } => {
                encode_weights::<_, _, true>(program, model, step, index, &mut buffer)?;
                false
            }
            _ => {
                let sums = program.linear(step).ok_or(Refusal::Model)?.sums();
                encode_biases::<_, _, true>(program, model, step, sums, &mut buffer)?;
                true
            }
        };
        let coefficients: &[f32] = bytemuck::cast_slice(&buffer);
        for limb in 0..=usize::from(level) {
            let start = words.len();
            words.resize(start + n, 0);
            let to = words.get_mut(start..).ok_or(Refusal::Model)?;
            match is_bias {
                true => transform_addend(params, limb, coefficients, BIAS_SHIFT, to, &mut ()),
                false => transform_encoded(params, limb, coefficients, to, &mut ()),
            }
            .map_err(internal)?;
        }
    }
    Ok(words)
}

/// Encodes the weights of a product as integers in `f32`, in a buffer of one limb; their
/// scale.
pub(super) fn encode_weights<B: AsRef<[u8]>, W: WeightSource, const MERGED: bool>(
    program: &Program<B>,
    weights: &W,
    step: u8,
    index: u16,
    buffer: &mut [u32],
) -> Result<f64, Refusal> {
    let scale = program.linear(step).ok_or(Refusal::Model)?.weights;
    encode(
        program,
        weights,
        (step, scale),
        buffer,
        |map, form, re, im| {
            let weights = map.weights::<f32, MERGED>();
            let weight = |output, input| weights.at(output, input);
            form.weight_slots(map, usize::from(index), weight, re, im);
        },
    )?;
    Ok(scale)
}

/// The same of the biases of a step whose sums have this scale; they are encoded at
/// [`BIAS_SHIFT`] bits less.
pub(super) fn encode_biases<B: AsRef<[u8]>, W: WeightSource, const MERGED: bool>(
    program: &Program<B>,
    weights: &W,
    step: u8,
    sums: f64,
    buffer: &mut [u32],
) -> Result<(), Refusal> {
    let scale = sums / f64::from(1u32 << BIAS_SHIFT);
    encode(
        program,
        weights,
        (step, scale),
        buffer,
        |map, form, re, _| {
            form.bias_slots(map, |k| map.bias::<f32, MERGED>(k), re);
        },
    )
}

/// Encodes what `fill` writes into the slots.
fn encode<B: AsRef<[u8]>, W: WeightSource>(
    program: &Program<B>,
    weights: &W,
    (step, scale): (u8, f64),
    buffer: &mut [u32],
    fill: impl FnOnce(&LinearMap<'_>, Form, &mut [f32], &mut [f32]),
) -> Result<(), Refusal> {
    let params = program.params();
    let linear = program.linear(step).ok_or(Refusal::Model)?;
    let (first, count) = (usize::from(linear.layer), usize::from(linear.layers));
    let map = weights.map(first, count).ok_or(Refusal::Model)?;
    let buffer = buffer.get_mut(..params.n()).ok_or(Refusal::Model)?;
    let coefficients: &mut [f32] = bytemuck::cast_slice_mut(buffer);
    let halves = coefficients.split_at_mut_checked(params.slots());
    let (re, im) = halves.ok_or(Refusal::Model)?;
    im.fill(0.0);
    fill(&map, linear.form, re, im);
    encode_in_place(coefficients, scale).map_err(internal)
}
