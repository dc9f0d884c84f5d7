//! What brings words in or moves them: residues of a keystream and of packed bytes,
//! and automorphisms.

use super::{Difference, Kernels, Memory, Pair, fill, next};
use crate::arith::Modulus;
use crate::wire;

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// Residues of random words, up to one that is refused.
    pub(super) fn residues(
        &self,
        m: &Modulus,
        length: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        // Where a word is refused, if there are so many.
        const REFUSED: [usize; 10] = [usize::MAX, 0, 1, 6, 7, 8, 15, 16, 31, 40];
        let q = m.value();
        // 2^32 mod q, and 1 / q mod 2^32, which gives words by their low half.
        let (reject_below, inverse) = (m.canon(m.r()), m.neg_inv().wrapping_neg() as u32);
        let with_low = |low: u32| low.wrapping_mul(inverse);
        let [words, x, y, ..] = &mut memory.limbs;
        let (Some(words), Some(x), Some(y)) = (
            words.get_mut(1..=length),
            x.get_mut(1..=length),
            y.get_mut(1..=length),
        ) else {
            return Ok(0);
        };
        let (mut compared, mut state) = (0, u64::from(q));
        for (case, refused) in (0..).zip(REFUSED) {
            for word in words.iter_mut() {
                let low = next(&mut state);
                *word = with_low(low.max(reject_below));
            }
            // The edges of what is accepted.
            if let [first, .., last] = words {
                (*first, *last) = (with_low(reject_below), with_low(u32::MAX));
            }
            if let Some(word) = words.get_mut(refused) {
                *word = with_low(if case & 1 == 0 { 0 } else { reject_below - 1 });
            }
            let done = self.kernels.residues(words, x, q, reject_below);
            let most = self.reference.residues(words, y, q, reject_below);
            let lanes = self.kernels.lanes();
            let least = if lanes > 1 { most & !(lanes - 1) } else { 0 };
            if !(least..=most).contains(&done) || x.get(..done) != y.get(..done) {
                return Err(Difference {
                    kernel: "residues",
                    modulus: q,
                    length,
                    case,
                });
            }
            compared += u32::from(done > 0);
            // Only hosts have one that leaves out what is refused.
            if cfg!(target_arch = "x86_64") {
                let (used, made) = self.kernels.accepted(words, x, q, reject_below);
                let read = words.get(..used).unwrap_or_default();
                let (_, expected) = self.reference.accepted(read, y, q, reject_below);
                let due = if lanes == 16 { length & !15 } else { 0 };
                if used < due || made != expected || x.get(..made) != y.get(..made) {
                    return Err(Difference {
                        kernel: "accepted",
                        modulus: q,
                        length,
                        case,
                    });
                }
                compared += u32::from(used > 0);
            }
        }
        Ok(compared)
    }

    /// Automorphisms of evaluations, of every length.
    pub(super) fn permutations(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        const ELEMENTS: u32 = 16;
        let mut compared = 0;
        let mut n = 2;
        while n <= memory.table.len() {
            let [src, x, y, ..] = &mut memory.limbs;
            let (Some(src), Some(x), Some(y)) = (src.get_mut(..n), x.get_mut(..n), y.get_mut(..n))
            else {
                break;
            };
            for (x, i) in src.iter_mut().zip(0..) {
                *x = i;
            }
            let last = 2 * n as u32 - 1;
            for case in 0..=ELEMENTS {
                // The identity first, conjugation last.
                let g = match case {
                    ELEMENTS => last,
                    _ => (case.wrapping_mul(0x9E37_79B1) | 1) & last,
                };
                let half = (g >> 1) << (32 - n.trailing_zeros());
                let done = self.kernels.permute(src, x, g, half);
                let lanes = self.kernels.lanes();
                let due = lanes > 1 && n >= lanes;
                if due && !done || done && !(self.reference.permute(src, y, g, half) && x == y) {
                    return Err(Difference {
                        kernel: "permute",
                        modulus: 0,
                        length: n,
                        case: g,
                    });
                }
                compared += u32::from(done);
            }
            n <<= 1;
        }
        Ok(compared)
    }

    /// Residues out of their bytes, in every width, at every alignment, and one that
    /// is none.
    pub(super) fn unpacking(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        const MOST: usize = 128;
        let [words, x, y, ..] = &mut memory.limbs;
        let (Some(words), Some(x), Some(y)) =
            (words.get_mut(..MOST), x.get_mut(..MOST), y.get_mut(..MOST))
        else {
            return Ok(0);
        };
        let mut compared = 0;
        for bits in 14..=30 {
            // The width's largest word is the modulus itself: not a residue.
            let q = (1 << bits) - 1;
            let Some(m) = Modulus::new(q) else { continue };
            for (length, case) in [0, 8, 16, 64, MOST].into_iter().zip(0..) {
                let (Some(words), Some(x), Some(y)) = (
                    words.get_mut(..length),
                    x.get_mut(..length),
                    y.get_mut(..length),
                ) else {
                    continue;
                };
                for above in [None, Some(0), Some(7), Some(30), length.checked_sub(1)] {
                    fill(words, q, 4, bits);
                    if let Some([first, second, ..]) = words.get_mut(1..) {
                        (*first, *second) = (q - 1, 0);
                    }
                    let place = above.and_then(|at| words.get_mut(at));
                    let canonical = place.is_none();
                    if let Some(word) = place {
                        *word = q;
                    }
                    let end = wire::packed_len(length, bits);
                    let packed = memory.bytes.get_mut(bits as usize & 3..);
                    let Some(packed) = packed.and_then(|bytes| bytes.get_mut(..end)) else {
                        continue;
                    };
                    let same = wire::pack(words, &m, packed).is_ok() && {
                        let done = self.kernels.unpack(packed, &m, x);
                        compared += u32::from(done.is_some());
                        done == self.reference.unpack(packed, &m, y)
                            && (done.is_none() || done == Some(canonical) && x == y && x == words)
                    };
                    if !same {
                        return Err(Difference {
                            kernel: "unpack",
                            modulus: q,
                            length,
                            case,
                        });
                    }
                }
            }
        }
        Ok(compared)
    }
}
