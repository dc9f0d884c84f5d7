//! Values of a ciphertext are not published without a word on who computed it.

use he_core::ckks::Ciphertext;
use he_core::ckks::publish::{Budget, Expected, NoiseKey, publish_values};
use he_core::params::N4096_DEPTH3 as P;
use he_core::rlwe::SecretKey;

fn publish<B: Budget>(
    key: &SecretKey<Vec<u32>>,
    noise_key: &NoiseKey,
    budget: &mut B,
    ct: &Ciphertext<Vec<u32>>,
    expected: &Expected,
) {
    let (mut scratch, mut slots) = (vec![], vec![]);
    let _ = publish_values(&P, key, noise_key, budget, ct, expected, &mut scratch, &mut slots);
}

fn main() {}
