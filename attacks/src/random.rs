//! Random numbers from a seed.

use chacha20::ChaCha8Rng;
use rand_core::Rng;

/// Uniform in 0..1, 53 bits.
pub fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform in 0..bound.
///
/// # Panics
/// If `bound` is 0.
pub fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    assert!(bound > 0, "there is no number below 0");
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

/// From the standard normal distribution, by Box and Muller.
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(rng)).cos()
}

/// Puts a list into random order.
pub fn shuffle<T>(list: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..list.len()).rev() {
        list.swap(last, below(rng, last + 1));
    }
}
