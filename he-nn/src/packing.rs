//! Where values lie in slots (see [`crate::plan`]).

use crate::model::Model;
use crate::plan::Plan;

/// Writes input ciphertext `index` of an image into the slots: input `b` of
/// this ciphertext, `pixel / 255`, in all lanes of block `b`.
pub fn input_slots(plan: &Plan, index: usize, pixels: &[u8], slots: &mut [f64]) {
    let inputs = pixels.iter().skip(index * plan.blocks());
    let mut blocks = slots.chunks_exact_mut(plan.lanes());
    for (block, &pixel) in (&mut blocks).zip(inputs) {
        // A product, as a division's time may depend on the pixel.
        block.fill(f64::from(pixel) * (1.0 / 255.0));
    }
    for block in blocks {
        block.fill(0.0);
    }
}

/// Writes the first layer's weights for input ciphertext `index`: weight of
/// unit `j` and input `b` in lane `j` of block `b`.
pub fn weight1_slots(plan: &Plan, model: &Model<'_>, index: usize, slots: &mut [f32]) {
    let scale = model.w1_scale();
    let first = index * plan.blocks();
    for (block, input) in slots.chunks_exact_mut(plan.lanes()).zip(first..) {
        for (slot, unit) in block.iter_mut().zip(0..) {
            *slot = model.w1(unit, input).map_or(0.0, |w| f32::from(w) * scale);
        }
    }
}

/// Writes the first layer's biases into the lanes of block 0, which the sum
/// over blocks adds once.
pub fn bias1_slots(plan: &Plan, model: &Model<'_>, slots: &mut [f32]) {
    slots.fill(0.0);
    for (slot, unit) in slots.iter_mut().take(plan.lanes()).zip(0..) {
        *slot = model.b1(unit).unwrap_or(0.0);
    }
}

/// Writes the second layer's weights: weight of class `k` and unit `j` in lane
/// `j` of block `k`.
pub fn weight2_slots(plan: &Plan, model: &Model<'_>, slots: &mut [f32]) {
    let scale = model.w2_scale();
    for (block, class) in slots.chunks_exact_mut(plan.lanes()).zip(0..) {
        for (slot, unit) in block.iter_mut().zip(0..) {
            *slot = model.w2(class, unit).map_or(0.0, |w| f32::from(w) * scale);
        }
    }
}

/// Writes the second layer's biases, class `k` in lane 0 of block `k`: the sum
/// over lanes adds each once to the slot that is read.
pub fn bias2_slots(plan: &Plan, model: &Model<'_>, slots: &mut [f32]) {
    slots.fill(0.0);
    for (block, class) in slots.chunks_exact_mut(plan.lanes()).zip(0..) {
        if let Some(slot) = block.first_mut() {
            *slot = model.b2(class).unwrap_or(0.0);
        }
    }
}
