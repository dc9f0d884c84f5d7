//! Sums of residues times small integers: `vpmaddwd` multiplies two columns by
//! their weights and adds them.

use core::arch::x86_64::*;

use crate::arith::Modulus;
use crate::ring::kernel::small::{PAIR, SMALL_BLOCK, join, pairs_of, small_row_by};

/// Vectors of sums that are held in registers at a time, for lower and for upper
/// halves.
const HELD: usize = 4;

/// Words in a vector.
const WORDS: usize = 8;

/// Halves in a vector: two columns of its words.
const LANES: usize = 2 * WORDS;

/// See [`crate::ring::kernel::small::small_row`].
#[target_feature(enable = "avx2")]
pub(super) fn small_row(packed: &[i16], weights: &[i8], out: &mut [u32], m: &Modulus) {
    let add = |pairs: &[[i16; PAIR]], weights: &[i8], sums: &mut [i64; SMALL_BLOCK]| {
        add_group(pairs, weights, sums);
    };
    small_row_by(add, packed, weights, out, m);
}

#[target_feature(enable = "avx2")]
fn add_group(pairs: &[[i16; PAIR]], weights: &[i8], sums: &mut [i64; SMALL_BLOCK]) {
    for (part, sums) in sums.chunks_exact_mut(HELD * WORDS).enumerate() {
        let mut low = [_mm256_setzero_si256(); HELD];
        let mut high = low;
        for (pair, (first, second)) in pairs.iter().zip(pairs_of(weights)) {
            if (first, second) == (0, 0) {
                continue;
            }
            let both = i32::from(first.cast_unsigned()) | i32::from(second) << 16;
            let factors = _mm256_set1_epi32(both);
            let (of_low, of_high) = pair.split_at(PAIR >> 1);
            for (sums, halves) in [(&mut low, of_low), (&mut high, of_high)] {
                let (vectors, _) = halves.as_chunks::<LANES>();
                let vectors = vectors.iter().skip(part * HELD);
                for (sum, vector) in sums.iter_mut().zip(vectors) {
                    // SAFETY: a vector is as long as the array.
                    let x = unsafe { _mm256_loadu_si256(vector.as_ptr().cast()) };
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, factors));
                }
            }
        }
        let (mut lows, mut highs) = ([0i32; HELD * WORDS], [0i32; HELD * WORDS]);
        for (words, vectors) in [(&mut lows, &low), (&mut highs, &high)] {
            let (words, _) = words.as_chunks_mut::<WORDS>();
            for (words, &vector) in words.iter_mut().zip(vectors) {
                // SAFETY: as above.
                unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) };
            }
        }
        join(&lows, &highs, sums);
    }
}
