//! Data made here, for tests and controls.

use std::f64::consts::TAU;

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

/// Waves across and down, each at a random phase: everything about an image is in four
/// numbers, which its class, one of ten ranges of phases, hardly tells.
#[must_use]
pub fn waves(count: usize, seed: u64) -> Dataset {
    const PERIOD: f64 = 14.0;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let phases: Vec<[f64; 2]> = (0..count)
        .map(|_| [random::uniform(&mut rng), random::uniform(&mut rng)])
        .collect();
    let image = |[across, down]: &[f64; 2]| {
        std::array::from_fn(|pixel| {
            let wave = |at: usize, phase: f64| (TAU * (at as f64 / PERIOD + phase)).sin();
            let sum = wave(pixel % SIDE, *across) + wave(pixel / SIDE, *down);
            (127.5 + 60.0 * sum).round() as u8
        })
    };
    let class = |[across, down]: &[f64; 2]| {
        let half = CLASSES as u8 / 2;
        (across * f64::from(half)) as u8 + half * u8::from(*down >= 0.5)
    };
    Dataset {
        images: phases.iter().map(image).collect(),
        labels: phases.iter().map(class).collect(),
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
