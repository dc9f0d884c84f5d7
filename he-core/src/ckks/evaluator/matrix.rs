//! A vector of ciphertexts times a matrix, of small integers or of plaintexts.
//!
//! [`integer_matrix`] is a layer of a quantized network with one sample per
//! slot. It multiplies by the integers as they are: it encodes and rounds nothing and
//! spends no level, and the scale absorbs the weight that an integer of 1 stands for.
//!
//! [`plaintext_matrix`] forms the sums of a product with a matrix by diagonals: one
//! row per giant step, one column per baby step (Halevi and Shoup, Crypto 2018,
//! section 4.1). Memory bounds the speed of such a sum, so the function goes through
//! the ciphertexts in parts that fit the nearest cache, and finishes a part before it
//! takes the next.

use super::check_level;
use crate::ckks::scale::{check_same_scale, check_scale};
use crate::ckks::track::{Known, Track};
use crate::ckks::{Ciphertext, Plaintext};
use crate::error::{Result, check_len};
use crate::params::Params;
use crate::ring::kernel::{self, MAX_TERMS, SMALL_BLOCK, SumTerm, small_packed_len};

/// Most columns of [`integer_matrix`].
pub const MAX_COLUMNS: usize = 1 << 16;

/// Words of a limb that [`plaintext_matrix`] takes at a time: of 32 ciphertexts,
/// 256 KB.
const BLOCK: usize = 1024;

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
        output.reset(params, level, scale / unit)?;
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

/// `outputs[r] = sum over c of weights[r][c] * inputs[c]`, slot by slot, in the
/// level of the inputs; the scale is the product of an input's and a weight's, which
/// must be the same for all terms of a row. `weights` holds a row an output, one
/// after the other.
///
/// The words are those of [`super::multiply_plain_add`], term by term.
///
/// # Errors
/// [`crate::Error::Length`] where the weights or the storage of an output do not fit,
/// or for no column or more than [`MAX_COLUMNS`]; [`crate::Error::Level`] or
/// [`crate::Error::Scale`] where two terms differ; [`crate::Error::Params`].
pub fn plaintext_matrix<S, T, U>(
    params: &Params,
    inputs: &[Ciphertext<T>],
    weights: &[Plaintext<U>],
    outputs: &mut [Ciphertext<S>],
) -> Result<()>
where
    S: AsRef<[u32]> + AsMut<[u32]>,
    T: AsRef<[u32]> + AsMut<[u32]>,
    U: AsRef<[u32]> + AsMut<[u32]>,
{
    const OP: &str = "plaintext matrix";
    let columns = inputs.len();
    check_len("columns", columns, columns.clamp(1, MAX_COLUMNS))?;
    check_len("weights", weights.len(), columns * outputs.len())?;
    let Some(first) = inputs.first() else {
        return Ok(());
    };
    let level = first.level();
    for input in inputs {
        input.check_params(params)?;
        check_level(OP, level, input.level())?;
    }
    for output in &mut *outputs {
        output.check_params(params)?;
        output.check_storage(level)?;
    }
    let scale_of = |row: &[Plaintext<U>]| row.first().map_or(1.0, |w| first.scale() * w.scale());
    for row in weights.chunks_exact(columns) {
        let scale = scale_of(row);
        check_scale(OP, scale)?;
        for (input, weight) in inputs.iter().zip(row) {
            weight.check_params(params)?;
            check_level(OP, level, weight.level())?;
            check_same_scale(OP, scale, input.scale() * weight.scale())?;
        }
    }
    for (output, row) in outputs.iter_mut().zip(weights.chunks_exact(columns)) {
        let scale = scale_of(row);
        // All words are written below.
        output.set(level, scale);
        output.set_track(Track::of(|| {
            inputs
                .iter()
                .zip(row)
                .fold(Known::ZERO, |sum, (input, weight)| {
                    let off = libm::fabs(scale / (input.scale() * weight.scale()) - 1.0);
                    let term = input.track().get().product(weight.track().get());
                    sum.plus(term, off)
                })
        }));
    }
    let n = params.n();
    for limb in 0..=level {
        let m = params.prime(limb)?.modulus();
        for start in (limb * n..(limb + 1) * n).step_by(BLOCK) {
            let range = start..(start + BLOCK).min((limb + 1) * n);
            for (output, row) in outputs.iter_mut().zip(weights.chunks_exact(columns)) {
                let [x0, x1] = output.words_mut();
                let (x0, x1) = (x0.get_mut(range.clone()), x1.get_mut(range.clone()));
                let (x0, x1) = (x0.unwrap_or_default(), x1.unwrap_or_default());
                // Nothing is there that the first terms are added to.
                let mut factor = 0;
                let of_row = inputs.chunks(MAX_TERMS).zip(row.chunks(MAX_TERMS));
                for (inputs, weights) in of_row {
                    let mut terms = [SumTerm::default(); MAX_TERMS];
                    for (term, (input, weight)) in terms.iter_mut().zip(inputs.iter().zip(weights))
                    {
                        let (c0, c1) = input.halves();
                        *term = SumTerm {
                            x: weight.words().get(range.clone()).unwrap_or_default(),
                            b: c0.get(range.clone()).unwrap_or_default(),
                            a: c1.get(range.clone()).unwrap_or_default(),
                        };
                    }
                    let terms = terms.get(..inputs.len()).unwrap_or_default();
                    kernel::dot_two(x0, x1, factor, terms, m);
                    factor = m.r();
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::evaluator::multiply_plain_add;
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

    fn plaintext(seed: u64, level: usize, scale: f64) -> Plaintext<Vec<u32>> {
        let values = random(N, 1 << 16, 1000 + seed);
        let values: Vec<i64> = values.iter().map(|&x| i64::from(x) - (1 << 15)).collect();
        Plaintext::new(&P, &values, level, scale, vec![0; (level + 1) * N]).unwrap()
    }

    #[test]
    fn a_row_of_plaintexts_is_a_sum_of_products() {
        for columns in [1, 5, 6, 13] {
            let inputs: Vec<_> = (0..columns).map(|k| ciphertext(k, 2, 1024.0)).collect();
            // Each row at a scale of its own.
            let weights: Vec<_> = (0..3 * columns)
                .map(|k| plaintext(k, 2, [16.0, 32.0, 64.0][(k / columns) as usize]))
                .collect();
            // What is there must not matter.
            let mut outputs: Vec<_> = (0..3).map(|k| ciphertext(90 + k, 4, 1.0)).collect();
            plaintext_matrix(&P, &inputs, &weights, &mut outputs).unwrap();
            for (output, row) in outputs.iter().zip(weights.chunks(inputs.len())) {
                let mut sum = zero(4);
                sum.reset(&P, 2, 1024.0 * row[0].scale()).unwrap();
                for (input, weight) in inputs.iter().zip(row) {
                    multiply_plain_add(&P, &mut sum, input, weight).unwrap();
                }
                assert_eq!(output.parts(), sum.parts());
                assert_eq!((output.level(), output.scale()), (sum.level(), sum.scale()));
                #[cfg(feature = "noise")]
                assert_eq!(output.noise(), sum.noise());
            }
        }
    }

    #[test]
    fn plaintexts_that_do_not_fit_are_refused() {
        let inputs = [ciphertext(1, 2, 1024.0), ciphertext(2, 2, 1024.0)];
        let good = || plaintext(1, 2, 16.0);
        let mut outputs = [zero(4)];
        let mut refused = |inputs: &[Ciphertext<Vec<u32>>], weights: &[Plaintext<Vec<u32>>]| {
            plaintext_matrix(&P, inputs, weights, &mut outputs).unwrap_err()
        };
        assert!(matches!(refused(&[], &[]), Error::Length { .. }));
        let short = refused(&inputs, &[good()]);
        assert!(matches!(short, Error::Length { .. }));
        let low = refused(&inputs, &[good(), plaintext(2, 1, 16.0)]);
        assert!(matches!(low, Error::Level { .. }));
        let scale = refused(&inputs, &[good(), plaintext(3, 2, 32.0)]);
        assert!(matches!(scale, Error::Scale { .. }));
        let mixed = [ciphertext(1, 2, 1024.0), ciphertext(2, 1, 1024.0)];
        let mixed = refused(&mixed, &[good(), good()]);
        assert!(matches!(mixed, Error::Level { .. }));
        // Nothing was written, to the first of two either where the second is short.
        assert_eq!(outputs[0].parts(), zero(4).parts());
        let short = Ciphertext::zero(&P, 1, 1.0, vec![0; 2 * N], vec![0; 2 * N]).unwrap();
        let mut outputs = [ciphertext(5, 4, 512.0), short];
        let before = outputs[0].parts().map(<[u32]>::to_vec);
        let weights = [good(), good(), good(), good()];
        let refused = plaintext_matrix(&P, &inputs, &weights, &mut outputs).unwrap_err();
        assert!(matches!(refused, Error::Length { .. }));
        assert_eq!(outputs[0].parts(), before.each_ref().map(Vec::as_slice));
        assert_eq!((outputs[0].level(), outputs[0].scale()), (4, 512.0));
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
