//! A vector of ciphertexts times a matrix of small integers: a layer of a
//! quantized network with one sample a slot.
//!
//! An integer is multiplied by as it is. Nothing is encoded or rounded and no
//! level is spent; what an integer of 1 stands for goes into the scale.

use super::check_level;
use crate::ckks::Ciphertext;
use crate::ckks::ciphertext::{check_same_scale, check_scale};
use crate::ckks::track::{Known, Track};
use crate::error::{Result, check_len};
use crate::params::Params;
use crate::ring::kernel::{self, SMALL_BLOCK, small_packed_len};

/// Most columns of [`integer_matrix`].
pub const MAX_COLUMNS: usize = 1 << 16;

/// Words of scratch that [`integer_matrix`] takes for so many columns.
#[must_use]
pub const fn integer_matrix_halves(columns: usize) -> usize {
    small_packed_len(columns)
}

/// `outputs[r] = unit * sum over c of weights[r][c] * inputs[c]`, slot by slot,
/// in the level of the inputs; their scale is divided by `unit`, the real value
/// of an integer 1. `weights` holds a row an output, one after the other.
/// `halves` is scratch of [`integer_matrix_halves`]. A row of zeros gives a
/// transparent ciphertext.
///
/// # Errors
/// [`crate::Error::Length`] where weights, scratch or the storage of an output do
/// not fit, or for no column or more than [`MAX_COLUMNS`];
/// [`crate::Error::Level`] or [`crate::Error::Scale`] where two inputs differ;
/// [`crate::Error::Scale`] for a unit that leaves none; [`crate::Error::Params`].
pub fn integer_matrix<S, T, const PARTS: usize>(
    params: &Params,
    inputs: &[&Ciphertext<T, PARTS>],
    weights: &[i8],
    unit: f64,
    outputs: &mut [Ciphertext<S, PARTS>],
    halves: &mut [i16],
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
{
    const OP: &str = "integer matrix";
    let columns = inputs.len();
    check_len("columns", columns, columns.clamp(1, MAX_COLUMNS))?;
    check_len("weights", weights.len(), columns * outputs.len())?;
    check_len("halves", halves.len(), small_packed_len(columns))?;
    let Some(first) = inputs.first() else {
        return Ok(());
    };
    let (level, scale) = (first.level(), first.scale());
    for input in inputs {
        input.check_params(params)?;
        check_level(OP, level, input.level())?;
        check_same_scale(OP, scale, input.scale())?;
    }
    check_scale(OP, scale / unit)?;
    for (output, row) in outputs.iter_mut().zip(weights.chunks_exact(columns)) {
        output.check_params(params)?;
        output.reset(level, scale / unit)?;
        output.set_track(Track::of(|| {
            let terms = inputs.iter().zip(row).filter(|(_, w)| **w != 0);
            terms.fold(Known::ZERO, |sum, (input, &w)| {
                let size = f64::from(w.unsigned_abs());
                let off = libm::fabs(scale / input.scale() - 1.0);
                sum.plus(input.track().get().times(size), off)
            })
        }));
    }
    let n = params.n();
    for part in 0..PARTS {
        for limb in 0..=level {
            let m = params.prime(limb)?.modulus();
            let blocks = (limb * n..(limb + 1) * n).step_by(SMALL_BLOCK);
            for start in blocks {
                let range = start..(start + SMALL_BLOCK).min((limb + 1) * n);
                for (column, input) in inputs.iter().enumerate() {
                    let words = input.parts().into_iter().nth(part).unwrap_or_default();
                    let words = words.get(range.clone()).unwrap_or_default();
                    kernel::pack_column(halves, column, words);
                }
                for (output, row) in outputs.iter_mut().zip(weights.chunks_exact(columns)) {
                    let words = output.words_mut().into_iter().nth(part);
                    let words = words.and_then(|words| words.get_mut(range.clone()));
                    kernel::small_row(halves, row, words.unwrap_or_default(), m);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::testing::{N64 as P, random};

    const N: usize = 64;

    fn ciphertext(seed: u64, level: usize, scale: f64) -> Ciphertext<Vec<u32>> {
        let part = |seed| {
            let limbs = (0..=level).flat_map(|i| {
                let q = P.prime(i).unwrap().modulus().value();
                random(N, q, seed * 16 + i as u64)
            });
            limbs.collect::<Vec<u32>>()
        };
        Ciphertext::new(&P, level, scale, part(2 * seed + 1), part(2 * seed + 2)).unwrap()
    }

    fn zero(level: usize) -> Ciphertext<Vec<u32>> {
        Ciphertext::zero(&P, level, 1.0, vec![0; 5 * N], vec![0; 5 * N]).unwrap()
    }

    #[test]
    fn it_is_the_sum_of_products_in_every_residue() {
        let inputs: Vec<_> = (0..5).map(|k| ciphertext(k, 2, 1024.0)).collect();
        let inputs: Vec<_> = inputs.iter().collect();
        let weights: Vec<i8> = vec![1, -2, 127, -128, 0, 5, 5, -5, 5, 99, 0, 0, 0, 0, 0];
        let mut outputs: Vec<_> = (0..3).map(|_| zero(4)).collect();
        let mut halves = vec![0; integer_matrix_halves(5)];
        integer_matrix(&P, &inputs, &weights, 0.25, &mut outputs, &mut halves).unwrap();
        for (output, row) in outputs.iter().zip(weights.chunks(5)) {
            assert_eq!((output.level(), output.scale()), (2, 4096.0));
            for part in 0..2 {
                for i in 0..3 * N {
                    let q = i64::from(P.prime(i / N).unwrap().modulus().value());
                    let sum: i64 = inputs
                        .iter()
                        .zip(row)
                        .map(|(input, &w)| i64::from(w) * i64::from(input.parts()[part][i]))
                        .sum();
                    assert_eq!(i64::from(output.parts()[part][i]), sum.rem_euclid(q));
                }
            }
        }
    }

    #[cfg(feature = "noise")]
    #[test]
    fn noise_and_message_grow_by_the_weights() {
        use crate::ckks::{Message, Noise};
        let noise = Noise {
            bound: 10.0,
            sigma: 2.0,
        };
        let stated = |k| ciphertext(k, 2, 1024.0).with_noise(noise, Message::within(0.5));
        let inputs = [stated(0), stated(1), stated(2)];
        let inputs: Vec<_> = inputs.iter().collect();
        let mut outputs = [zero(4)];
        let mut halves = vec![0; integer_matrix_halves(3)];
        integer_matrix(&P, &inputs, &[3, 0, -4], 0.25, &mut outputs, &mut halves).unwrap();
        let [sum] = outputs;
        assert_eq!((sum.noise().bound, sum.noise().sigma), (70.0, 10.0));
        // In units of the slots: 7 times 0.5, an integer standing for 0.25.
        assert!((sum.message().bound - 0.875).abs() < 1e-12);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (a, b) = (ciphertext(1, 2, 1024.0), ciphertext(2, 1, 1024.0));
        let c = ciphertext(3, 2, 2048.0);
        let mut outputs = [zero(4)];
        let mut halves = vec![0; integer_matrix_halves(2)];
        let mut refused = |inputs: &[&Ciphertext<Vec<u32>>], weights: &[i8], unit| {
            integer_matrix(&P, inputs, weights, unit, &mut outputs, &mut halves).unwrap_err()
        };
        assert!(matches!(refused(&[], &[], 1.0), Error::Length { .. }));
        assert!(matches!(
            refused(&[&a, &a], &[1], 1.0),
            Error::Length { .. }
        ));
        assert!(matches!(
            refused(&[&a, &a, &a], &[1, 1, 1], 1.0),
            Error::Length { .. }
        ));
        assert!(matches!(
            refused(&[&a, &b], &[1, 1], 1.0),
            Error::Level { .. }
        ));
        assert!(matches!(
            refused(&[&a, &c], &[1, 1], 1.0),
            Error::Scale { .. }
        ));
        assert!(matches!(
            refused(&[&a, &a], &[1, 1], 0.0),
            Error::Scale { .. }
        ));
    }
}
