//! Where values lie in slots (see [`crate::plan`]).

use crate::model::TwoLayer;
use crate::plan::Plan;

/// Writes input ciphertext `index` of an image into the real and imaginary
/// parts of the slots: the pair of inputs `2 i` and `2 i + 1`, `pixel / 255`,
/// in all lanes of its block, where `i = index * blocks + block`. What lies
/// beyond the last input is zero.
pub fn input_slots(plan: &Plan, index: usize, pixels: &[u8], re: &mut [f64], im: &mut [f64]) {
    let mut pairs = pixels.chunks(2).skip(index * plan.blocks());
    let lanes = plan.lanes();
    for (re, im) in re.chunks_exact_mut(lanes).zip(im.chunks_exact_mut(lanes)) {
        let mut pair = pairs.next().unwrap_or_default().iter();
        for part in [re, im] {
            // A product, as a division's time may depend on the pixel.
            part.fill(
                pair.next()
                    .map_or(0.0, |&pixel| f64::from(pixel) * (1.0 / 255.0)),
            );
        }
    }
}

/// Writes the first layer's weights for input ciphertext `index`: for unit `j`
/// and pair `i` of inputs, `(w_2i - w_2i+1 sqrt(-1)) / 2` in lane `j` of the
/// pair's block. Twice the real part of its product with the inputs' slot is
/// what both add to the sum.
pub fn weight1_slots(
    plan: &Plan,
    model: &TwoLayer<'_>,
    index: usize,
    re: &mut [f32],
    im: &mut [f32],
) {
    let scale = model.w1_scale() * 0.5;
    let weight = |unit, input| model.w1(unit, input).map_or(0.0, f32::from);
    let first = index * plan.blocks();
    let lanes = plan.lanes();
    let blocks = re.chunks_exact_mut(lanes).zip(im.chunks_exact_mut(lanes));
    for ((re, im), pair) in blocks.zip(first..) {
        for ((re, im), unit) in re.iter_mut().zip(im).zip(0..) {
            *re = weight(unit, 2 * pair) * scale;
            *im = weight(unit, 2 * pair + 1) * -scale;
        }
    }
}

/// Writes half of the first layer's biases into the lanes of block 0: adding
/// the conjugate doubles them, and the sum over blocks adds them once.
pub fn bias1_slots(plan: &Plan, model: &TwoLayer<'_>, slots: &mut [f32]) {
    slots.fill(0.0);
    for (slot, unit) in slots.iter_mut().take(plan.lanes()).zip(0..) {
        *slot = model.b1(unit).map_or(0.0, |b| b * 0.5);
    }
}

/// Writes the second layer's weights: weight of class `k` and unit `j` in lane
/// `j` of block `k`.
pub fn weight2_slots(plan: &Plan, model: &TwoLayer<'_>, slots: &mut [f32]) {
    let scale = model.w2_scale();
    for (block, class) in slots.chunks_exact_mut(plan.lanes()).zip(0..) {
        for (slot, unit) in block.iter_mut().zip(0..) {
            *slot = model.w2(class, unit).map_or(0.0, |w| f32::from(w) * scale);
        }
    }
}

/// Writes the second layer's biases, class `k` in lane 0 of block `k`: the sum
/// over lanes adds each once to the slot that is read.
pub fn bias2_slots(plan: &Plan, model: &TwoLayer<'_>, slots: &mut [f32]) {
    slots.fill(0.0);
    for (block, class) in slots.chunks_exact_mut(plan.lanes()).zip(0..) {
        if let Some(slot) = block.first_mut() {
            *slot = model.b2(class).unwrap_or(0.0);
        }
    }
}
