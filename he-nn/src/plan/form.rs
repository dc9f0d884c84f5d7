//! The forms in which a layer with weights is evaluated, latency packing, and what
//! lies in which slot.
//!
//! **Blocks**, for the first layer: the client repeats values as the sum needs
//! them. A ciphertext has `slots / lanes` blocks of a pair of inputs `x + i x'`
//! each, in as many lanes as the layer has outputs; for a convolution lane `j`
//! holds the pair of pixels under the window of output `j` (one layout per kernel
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
//! one product. Its `P` lanes are added by rotations by `1, 2, .. P / 2`, or, as it is
//! the last, by the client once it has decrypted them ([`super::Sums`]).
//!
//! Results of every form but rows are periodic, with zeros where there is no output, so each
//! form can follow each. `mnist-cnn` takes blocks for the convolution (two ciphertexts), 32
//! complex diagonals for the dense layer, whose matrix has 64, and rows.
//!
//! Two measurements. Complex slots bring 784 inputs into 13 ciphertexts instead of 25: 26
//! million instructions and 0.54 MB less on a Cortex-M4F, against 13 million and 0.22 MB for
//! the conjugation. Four copies bring the first layer of `mnist-fcnn`, 784 to 1024, from
//! 512 products and 46 rotations to 128 and 22: 32 ms instead of 65, and 14.7 MB of keys
//! instead of 23.6. A giant step that reaches over the end of a copy meets the next copy's
//! rotation, so the diagonals only change places among the copies. Layers in the middle
//! have no copies: theirs come out alike.

use super::linear::{LinearMap, Precision};
use core::ops::Range;
use serde::{Deserialize, Serialize};

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
    /// One row per block.
    Rows {
        /// Period of the input, a power of two.
        period: usize,
        /// Whether rotations add the lanes of a row; otherwise they are left as they are,
        /// and not rescaled.
        summed: bool,
    },
}

impl Form {
    /// Whether sizes are powers of two, and the slots as many as they take.
    #[must_use]
    pub fn fits(self, slots: usize) -> bool {
        let within = |size: usize, most: usize| size.is_power_of_two() && size <= most;
        match self {
            Self::Blocks { lanes, .. } => within(lanes, slots),
            Self::Rows { period, .. } => within(period, slots),
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

    /// Input ciphertexts of a first layer under a set with so many slots.
    #[must_use]
    pub const fn inputs(self, slots: usize) -> usize {
        match self {
            Self::Blocks { .. } => self.products(slots),
            Self::Diagonals { .. } | Self::Rows { .. } => 1,
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
    pub(super) const fn inputs_of_slot(self, slot: usize) -> (usize, usize) {
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
    pub(super) const fn switches_operands(self, first: bool) -> bool {
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
            Self::Rows { period, .. } => period,
        }
    }

    /// Lanes of an output that are left for the client to add; 1 where the output is a slot.
    #[must_use]
    pub const fn lanes(self) -> usize {
        match self {
            Self::Rows {
                period,
                summed: false,
            } => period,
            _ => 1,
        }
    }

    /// Levels that it takes: lanes that are left are not rescaled, as the error of a rescaling
    /// would be added up with them.
    #[must_use]
    pub const fn levels(self) -> usize {
        match self {
            Self::Rows { summed: false, .. } => 0,
            _ => 1,
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
            // Where they are not summed, from the end on.
            Self::Rows { period, .. } => (self.lanes(), period),
        };
        core::iter::successors(Some(first), |step| step.checked_mul(2))
            .take_while(move |&step| step < end)
    }

    /// The slots that add up to output `k`: one, or its lanes.
    #[must_use]
    pub const fn output_slots(self, k: usize) -> Range<usize> {
        let first = match self {
            Self::Blocks { .. } | Self::Diagonals { .. } => k,
            Self::Rows { period, .. } => k << period.trailing_zeros(),
        };
        first..first + self.lanes()
    }

    /// Writes the slots of the plaintext of product `index` of a layer: of a block
    /// of inputs, or of diagonal `index`. `weight` gives the weight of an output
    /// and an input. `re` and `im` have one number per slot.
    pub fn weight_slots<T: Precision>(
        self,
        map: &LinearMap<'_>,
        index: usize,
        weight: impl Fn(usize, usize) -> T,
        re: &mut [T],
        im: &mut [T],
    ) {
        let slots = re.len();
        re.fill(T::ZERO);
        im.fill(T::ZERO);
        let (inputs, outputs) = (map.inputs(), map.outputs());
        let (half, minus_half) = (T::from_f32(0.5), T::from_f32(-0.5));
        let weight = |output: usize, input: Option<usize>| match input {
            Some(input) if output < outputs && input < inputs => weight(output, input),
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
                        *re = weight(output, taps.source(2 * pair, output)) * half;
                        *im = weight(output, taps.source(2 * pair + 1, output)) * minus_half;
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
                let all = period.max(rows) << copies.trailing_zeros();
                // In this order it is seen not to be 0.
                let all = all.min(slots).max(1);
                for (s, (re, im)) in re.iter_mut().zip(im.iter_mut()).enumerate().take(all) {
                    let output = s.wrapping_sub(giant) & (rows - 1);
                    let (input, other) = self.inputs_of_slot(s + b);
                    if complex {
                        *re = weight(output, Some(input)) * half;
                        *im = weight(output, Some(other)) * minus_half;
                    } else {
                        *re = weight(output, Some(input));
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
            Self::Rows { period, .. } => {
                for (row, re) in re.chunks_exact_mut(period.max(1)).enumerate() {
                    for (input, re) in re.iter_mut().enumerate() {
                        *re = weight(row, Some(input));
                    }
                }
            }
        }
    }

    /// Writes the slots of a layer's biases, as they are added before it is
    /// rescaled.
    pub fn bias_slots<T: Precision>(
        self,
        map: &LinearMap<'_>,
        bias: impl Fn(usize) -> T,
        re: &mut [T],
    ) {
        re.fill(T::ZERO);
        let outputs = map.outputs();
        if let Self::Rows { period, .. } = self {
            // Shared among the lanes that the client adds up, exactly, as they are a power of
            // two: in one of them it would be what the modulus must have room for.
            let share = T::from_f32(1.0 / self.lanes() as f32);
            for (row, re) in re.chunks_exact_mut(period.max(1)).enumerate().take(outputs) {
                let bias = bias(row) * share;
                re.iter_mut().take(self.lanes()).for_each(|re| *re = bias);
            }
            return;
        }
        for block in re.chunks_exact_mut(self.output_period().max(1)) {
            for (output, re) in block.iter_mut().enumerate().take(outputs) {
                *re = bias(output);
            }
        }
    }

    /// Writes what lies in the slots of input ciphertext `index` for values as the
    /// first layer sees them: `re` and `im` have one number per slot.
    pub fn input_slots(
        self,
        map: &LinearMap<'_>,
        index: usize,
        values: &[f64],
        re: &mut [f64],
        im: &mut [f64],
    ) {
        let slots = re.len();
        re.fill(0.0);
        im.fill(0.0);
        let value = |at: Option<usize>| at.and_then(|at| values.get(at)).copied().unwrap_or(0.0);
        match self {
            Self::Blocks { lanes, pairs } => {
                let taps = map.taps();
                let outputs = map.outputs();
                let first = index * (slots >> lanes.trailing_zeros());
                let of_blocks = re.chunks_exact_mut(lanes).zip(im.chunks_exact_mut(lanes));
                for ((re, im), pair) in of_blocks.zip(first..pairs) {
                    for (output, (re, im)) in re.iter_mut().zip(im).enumerate().take(outputs) {
                        *re = value(taps.source(2 * pair, output));
                        *im = value(taps.source(2 * pair + 1, output));
                    }
                }
            }
            Self::Diagonals { complex, .. } => {
                for (s, (re, im)) in re.iter_mut().zip(im).enumerate() {
                    let (first, second) = self.inputs_of_slot(s);
                    *re = value(Some(first));
                    if complex {
                        *im = value(Some(second));
                    }
                }
            }
            Self::Rows { period, .. } => {
                for (s, re) in re.iter_mut().enumerate() {
                    *re = value(Some(s & (period - 1)));
                }
            }
        }
    }
}
