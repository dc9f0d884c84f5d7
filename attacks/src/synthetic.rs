//! Data made here, for tests and controls.

use chacha20::ChaCha8Rng;
use he_nn::data::{CLASSES, Dataset, SIDE};
use rand_core::{Rng, SeedableRng};

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

/// Images of nothing but noise with labels that mean nothing: what a network knows of
/// them it has learned by heart.
#[must_use]
pub fn noise(count: usize, seed: u64) -> Dataset {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let labels = (0..count).map(|_| (rng.next_u32() % CLASSES as u32) as u8);
    let labels: Vec<u8> = labels.collect();
    let images = labels
        .iter()
        .map(|_| std::array::from_fn(|_| (rng.next_u32() % 256) as u8));
    Dataset {
        images: images.collect(),
        labels,
    }
}
