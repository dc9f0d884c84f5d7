//! Sums of residues times small integers, with one reduction: safe code for every
//! target; hosts have a faster way (`x86`).
//!
//! A residue below 2^30 is two halves of 15 bits, and products of those with
//! eight bits are summed in pairs in 32 bits.

use crate::arith::Modulus;

/// Words of a limb that are summed at a time: those of a thousand limbs fit the
/// second level of a cache.
pub const SMALL_BLOCK: usize = 64;

/// Bits of a half.
const HALF: u32 = 15;

/// Halves of one pair of columns: the lower ones of both by turns, then the upper
/// ones.
pub(super) const PAIR: usize = 4 * SMALL_BLOCK;

/// Pairs whose products are summed in 32 bits: each adds at most `2 * 2^15 * 128`.
const PAIRS_IN_A_WORD: usize = 255;

/// Halves that [`pack_column`] writes for so many columns.
#[must_use]
pub const fn small_packed_len(columns: usize) -> usize {
    columns.div_ceil(2) * PAIR
}

/// Writes a block of a column, canonical residues, to its place among `packed`.
pub fn pack_column(packed: &mut [i16], column: usize, words: &[u32]) {
    let start = (column >> 1) * PAIR;
    let pair = packed.get_mut(start..start + PAIR).unwrap_or_default();
    let (low, high) = pair.split_at_mut(pair.len() >> 1);
    let odd = column & 1;
    for ((low, high), &word) in low
        .chunks_exact_mut(2)
        .zip(high.chunks_exact_mut(2))
        .zip(words)
    {
        if let (Some(low), Some(high)) = (low.get_mut(odd), high.get_mut(odd)) {
            *low = (word & ((1 << HALF) - 1)) as i16;
            *high = (word >> HALF) as i16;
        }
    }
}

/// `out = sum of weights times columns` for a block of canonical residues, of as
/// many columns as there are weights: the row of a matrix. The sum stays below
/// 2^53, as there are at most 2^16 columns.
pub fn small_row(packed: &[i16], weights: &[i8], out: &mut [u32], m: &Modulus) {
    small_row_by(add_group, packed, weights, out, m);
}

/// The same with another `add_group`: of pairs of columns and their weights, at
/// most [`PAIRS_IN_A_WORD`], whose products it adds to sums.
#[inline(always)]
pub(super) fn small_row_by(
    add_group: impl Fn(&[[i16; PAIR]], &[i8], &mut [i64; SMALL_BLOCK]),
    packed: &[i16],
    weights: &[i8],
    out: &mut [u32],
    m: &Modulus,
) {
    let mut sums = [0i64; SMALL_BLOCK];
    let (pairs, _) = packed.as_chunks::<PAIR>();
    let groups = pairs
        .chunks(PAIRS_IN_A_WORD)
        .zip(weights.chunks(2 * PAIRS_IN_A_WORD));
    for (pairs, weights) in groups {
        add_group(pairs, weights, &mut sums);
    }
    for (out, &sum) in out.iter_mut().zip(&sums) {
        *out = m.canon(m.mont(m.reduce_wide(sum), m.r2()));
    }
}

/// The weights of pairs of columns; of an odd number, the last is with none.
pub(super) fn pairs_of(weights: &[i8]) -> impl Iterator<Item = (i16, i16)> {
    let of = |weight: Option<&i8>| weight.map_or(0, |&w| i16::from(w));
    weights
        .chunks(2)
        .map(move |pair| (of(pair.first()), of(pair.get(1))))
}

/// What the halves of a block add up to.
pub(super) fn join(low: &[i32], high: &[i32], sums: &mut [i64]) {
    for ((sum, &low), &high) in sums.iter_mut().zip(low).zip(high) {
        *sum += i64::from(low) + (i64::from(high) << HALF);
    }
}

fn add_group(pairs: &[[i16; PAIR]], weights: &[i8], sums: &mut [i64; SMALL_BLOCK]) {
    let (mut low, mut high) = ([0i32; SMALL_BLOCK], [0i32; SMALL_BLOCK]);
    for (pair, (first, second)) in pairs.iter().zip(pairs_of(weights)) {
        if (first, second) == (0, 0) {
            continue;
        }
        let (of_low, of_high) = pair.split_at(PAIR >> 1);
        for (sums, halves) in [(&mut low, of_low), (&mut high, of_high)] {
            let (halves, _) = halves.as_chunks::<2>();
            for (sum, &[even, odd]) in sums.iter_mut().zip(halves) {
                *sum += i32::from(even) * i32::from(first) + i32::from(odd) * i32::from(second);
            }
        }
    }
    join(&low, &high, sums);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn rows_are_sums_of_products() {
        let m = Modulus::new(1_073_643_521).unwrap();
        let q = m.value();
        for columns in [0, 1, 2, 3, 510, 511, 1300] {
            let mut words = random(columns * SMALL_BLOCK, q, 3);
            words
                .iter_mut()
                .step_by(SMALL_BLOCK)
                .for_each(|w| *w = q - 1);
            let weights: Vec<i8> = (0..columns)
                .map(|k| match k % 4 {
                    0 | 1 => -128,
                    2 => 127,
                    _ => (k % 256) as u8 as i8,
                })
                .collect();
            for weights in [weights.clone(), vec![-128; columns], vec![127; columns]] {
                let mut packed = vec![0; small_packed_len(columns)];
                for (k, block) in words.chunks_exact(SMALL_BLOCK).enumerate() {
                    pack_column(&mut packed, k, block);
                }
                let mut out = [0; SMALL_BLOCK];
                small_row(&packed, &weights, &mut out, &m);
                for (i, &out) in out.iter().enumerate() {
                    let sum: i64 = weights
                        .iter()
                        .enumerate()
                        .map(|(k, &w)| i64::from(w) * i64::from(words[k * SMALL_BLOCK + i]))
                        .sum();
                    assert_eq!(i64::from(out), sum.rem_euclid(i64::from(q)));
                }
            }
        }
    }
}
