//! Sums of products with one reduction, of limbs and of small integers.

use super::{Difference, Kernels, Memory, PATTERNS, Pair, canonical, fill, next};
use crate::arith::Modulus;
use crate::ring::kernel::{self, Carried, MAX_TERMS, SMALL_BLOCK, SumTerm, small_packed_len};

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// Sums of up to [`MAX_TERMS`] limbs times constants; every other limb is modulo
    /// `from`.
    pub(super) fn lift_sums(
        &self,
        m: &Modulus,
        from: &Modulus,
        length: usize,
        case: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let [src, _, x, _, y, _] = &mut memory.limbs;
        let (Some(src), Some(x), Some(y)) = (
            src.get_mut(1..=MAX_TERMS * length),
            x.get_mut(1..=length),
            y.get_mut(1..=length),
        ) else {
            return Ok(0);
        };
        let half = (m.value() >> 1) as i32;
        let factors = [half, -half, m.r2(), half, m.r()];
        let largest = Modulus::new(1_073_692_673).unwrap_or(*from);
        let mut compared = 0;

        let mut terms = [Carried {
            from: *from,
            factor: 0,
        }; MAX_TERMS];
        for (i, (term, factor)) in terms.iter_mut().zip(factors).enumerate() {
            let from = if i & 1 == 0 { largest } else { *from };
            *term = Carried { from, factor };
            if let Some(limb) = src.get_mut(i * length..(i + 1) * length) {
                fill(limb, from.value(), case, i as u32);
            }
        }
        for count in 0..=MAX_TERMS {
            let terms = terms.get(..count).unwrap_or_default();
            let read = src.get(..count * length).unwrap_or_default();
            self.kernels.lift_sum(read, terms, x, m);
            self.reference.lift_sum(read, terms, y, m);
            canonical(x, m);
            canonical(y, m);
            if x != y {
                return Err(Difference {
                    kernel: "lift_sum",
                    modulus: m.value(),
                    length,
                    case,
                });
            }
            compared += 1;
        }
        Ok(compared)
    }

    /// Two sums of up to [`MAX_TERMS`] products of limbs.
    pub(super) fn dot_products(
        &self,
        m: &Modulus,
        length: usize,
        case: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let q = m.value();
        let half = (q >> 1) as i32;
        let [src, keys, x0, x1, y0, y1] = &mut memory.limbs;
        let words = MAX_TERMS * length;
        let (Some(src), Some(keys), Some(x0), Some(x1), Some(y0), Some(y1)) = (
            src.get_mut(1..=words),
            keys.get_mut(1..=words),
            x0.get_mut(1..=length),
            x1.get_mut(1..=length),
            y0.get_mut(1..=length),
            y1.get_mut(1..=length),
        ) else {
            return Ok(0);
        };
        let mut compared = 0;
        for i in 0..MAX_TERMS {
            for (words, operand) in [(&mut *src, i), (&mut *keys, MAX_TERMS + i)] {
                if let Some(limb) = words.get_mut(i * length..(i + 1) * length) {
                    fill(limb, q, case, operand as u32);
                }
            }
        }
        let (src, keys) = (&*src, &*keys);
        let mut terms = [SumTerm {
            x: &[],
            b: &[],
            a: &[],
        }; MAX_TERMS];
        for (i, term) in terms.iter_mut().enumerate() {
            *term = SumTerm {
                x: part(src, i, length),
                b: part(keys, i, length),
                a: part(keys, MAX_TERMS - 1 - i, length),
            };
        }
        for (count, factor) in (0..=MAX_TERMS).zip([half, -half, m.r2(), m.r(), half, half]) {
            let terms = terms.get(..count).unwrap_or_default();
            for (acc, operand) in [(&mut *x0, 0), (&mut *x1, 1), (&mut *y0, 0), (&mut *y1, 1)] {
                fill(acc, q, case, operand);
            }
            self.kernels.dot_two(x0, x1, factor, terms, m);
            self.reference.dot_two(y0, y1, factor, terms, m);
            if x0 != y0 || x1 != y1 {
                return Err(Difference {
                    kernel: "dot_two",
                    modulus: q,
                    length,
                    case,
                });
            }
            compared += 1;
        }
        Ok(compared)
    }

    /// Sums of residues times small integers.
    pub(super) fn small_rows(
        &self,
        m: &Modulus,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        // Around the number of columns that are summed in one word.
        const COLUMNS: [usize; 8] = [0, 1, 2, 3, 8, 510, 511, MOST];
        const MOST: usize = 514;
        let q = m.value();
        let [words, x, y, ..] = &mut memory.limbs;
        let (Some(words), Some(x), Some(y)) = (
            words.get_mut(..SMALL_BLOCK),
            x.get_mut(1..=SMALL_BLOCK),
            y.get_mut(1..=SMALL_BLOCK),
        ) else {
            return Ok(0);
        };
        let mut weights = [0; MOST];
        let (mut compared, mut state) = (0, u64::from(q));
        for case in 0..PATTERNS {
            for (column, weight) in weights.iter_mut().enumerate() {
                fill(words, q, case, column as u32);
                kernel::pack_column(memory.halves, column, words);
                *weight = match case {
                    0 => i8::MIN,
                    1 => 0,
                    2 => i8::MAX,
                    3 if column & 1 == 0 => i8::MIN,
                    3 => i8::MAX,
                    _ => next(&mut state) as i8,
                };
            }
            for columns in COLUMNS {
                let length = small_packed_len(columns);
                let (Some(packed), Some(weights)) =
                    (memory.halves.get(..length), weights.get(..columns))
                else {
                    continue;
                };
                self.kernels.small_row(packed, weights, x, m);
                self.reference.small_row(packed, weights, y, m);
                if x != y {
                    return Err(Difference {
                        kernel: "small_row",
                        modulus: q,
                        length: columns,
                        case,
                    });
                }
                compared += 1;
            }
        }
        Ok(compared)
    }
}

/// Limb `i` of several.
fn part(words: &[u32], i: usize, length: usize) -> &[u32] {
    words.get(i * length..(i + 1) * length).unwrap_or_default()
}
