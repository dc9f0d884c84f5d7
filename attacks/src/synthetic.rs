//! Data made here, for tests and controls.

use chacha20::ChaCha8Rng;
use he_nn::data::{CLASSES, Dataset, SIDE};
use he_nn::model::Shape;
use he_nn::train::LayerSpec;
use rand_core::{Rng, SeedableRng};

use crate::network::{Differentiable, NetworkError};
use crate::random;

/// Ten bars at different heights, in noise: as many images as asked for, the classes
/// in turn.
#[must_use]
pub fn bars(count: usize, seed: u64) -> Dataset {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<u8> = (0..count).map(|i| (i % CLASSES) as u8).collect();
    let images = labels.iter().map(|&label| {
        let bar = 4 + 2 * usize::from(label);
        std::array::from_fn(|pixel| {
            let noise = (rng.next_u32() % 64) as u8;
            if (bar..bar + 2).contains(&(pixel / SIDE)) {
                191 + noise
            } else {
                noise
            }
        })
    });
    Dataset {
        images: images.collect(),
        labels,
    }
}

/// Ten bars at different heights on black, each of random brightness and length: what
/// a reconstruction can find and a class mean cannot.
#[must_use]
pub fn shades(count: usize, seed: u64) -> Dataset {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels: Vec<u8> = (0..count).map(|i| (i % CLASSES) as u8).collect();
    let images = labels.iter().map(|&label| {
        let bar = 4 + 2 * usize::from(label);
        let length = 6 + random::below(&mut rng, SIDE - 6);
        let brightness = 64 + random::below(&mut rng, 192) as u8;
        std::array::from_fn(|pixel| {
            let inside = (bar..bar + 2).contains(&(pixel / SIDE)) && pixel % SIDE < length;
            if inside { brightness } else { 0 }
        })
    });
    Dataset {
        images: images.collect(),
        labels,
    }
}

/// A linear network from images to ten logits, not trained.
///
/// # Errors
/// [`NetworkError`]: none for this shape.
pub fn linear(seed: u64) -> Result<Differentiable, NetworkError> {
    let shape = Shape {
        channels: 1,
        height: SIDE as u16,
        width: SIDE as u16,
    };
    Differentiable::untrained(shape, &[LayerSpec::Dense(CLASSES as u16)], seed)
}
