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
