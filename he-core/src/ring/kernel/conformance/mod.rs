//! One suite for all kernels: it compares each with a reference, at the edges of
//! its contract and at random, in all lengths.
//!
//! Words must be the same, except that a lift may differ by the modulus, and must
//! lie between `-q` and `q`. Numbers must be the same bit for bit.
//!
//! `portable` is compared with the definitions in plain arithmetic, and every
//! other set of kernels with `portable`: on a host by the tests here, on a board
//! by the firmware's program `bench`. A new kernel is one entry of
//! `every_kernel` in `list`, without which a test fails, and one comparison in the
//! file of its family, without which another test does.
//!
//! | file | compares |
//! |---|---|
//! | `transforms` | the transforms modulo a prime |
//! | `pointwise` | products, sums and lifts, coefficient by coefficient |
//! | `sums` | sums of products with one reduction, and those with small integers |
//! | `words` | residues of a keystream and of packed bytes, and automorphisms |
//! | `single` | the encoder in single precision |
//! | `double` | the encoder and the decoder in double precision |
//!
//! Some kernels may leave a part of the work to their caller. The suite compares
//! the part that they did, and where there are vectors ([`Kernels::lanes`]) it
//! demands every whole vector. Their reference is the caller's scalar code, so the
//! suite imports from layers above this one.
//!
//! The suite leaves out [`super::Keystream`], which on a host is a library's, or compared
//! with that library by a test of its own; the program `bench` compares a board's with it.
//!
//! It needs neither `std` nor an allocator, so that it runs on any machine.

mod double;
mod list;
mod pointwise;
mod reference;
mod single;
mod sums;
mod transforms;
mod words;

#[cfg(test)]
mod definitions;
#[cfg(test)]
mod tests;

pub use list::{Current, Kernels, Portable};

use crate::arith::Modulus;
use crate::ring::ntt::table_len;

/// What is compared, and what with.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'k, K, R> {
    /// The kernels on trial.
    pub kernels: &'k K,
    /// Those that are right.
    pub reference: &'k R,
}

/// Memory of a comparison: limbs of the largest length there is to be.
#[derive(Debug)]
pub struct Memory<'a> {
    /// Operands and results, on trial and of the reference.
    pub limbs: [&'a mut [u32]; 6],
    /// Twiddle factors: [`table_len`] of the largest length.
    pub table: &'a mut [i32],
    /// Numbers to be lifted.
    pub integers: &'a mut [i32],
    /// The same.
    pub wide: &'a mut [i64],
    /// The same, and four parts for the encoder's transform on a board.
    pub floats: &'a mut [f32],
    /// Operands and results of the encoder's kernels on a host: none where there are
    /// no such kernels.
    pub numbers: [&'a mut [f64]; 4],
    /// Packed residues.
    pub bytes: &'a mut [u8],
    /// Packed columns of small products, as many as find room.
    pub halves: &'a mut [i16],
}

/// The first disagreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The kernel.
    pub kernel: &'static str,
    /// Its modulus.
    pub modulus: u32,
    /// Words of an operand.
    pub length: usize,
    /// Number of the pattern of operands.
    pub case: u32,
}

/// Moduli on both sides of the bounds that kernels distinguish: the widths that
/// they have, [`super::MAX_UNREDUCED`], and the largest there is for each
/// length.
pub const MODULI: [u32; 10] = [
    12_289,
    40_961,
    188_417,
    270_337,
    134_215_681,
    185_909_249,
    186_007_553,
    268_369_921,
    1_073_643_521,
    1_073_692_673,
];

/// Lengths of pointwise operands: around the widths of vectors.
pub const LENGTHS: [usize; 14] = [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33, 64, 256];

/// Patterns of one operand.
const PATTERNS: u32 = 6;

/// Patterns of several: the same in all, then different ones.
const CASES: u32 = 3 * PATTERNS;

/// The next of a sequence of random words.
fn next(state: &mut u64) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 32) as u32
}

/// Residues below `q`. Patterns: the largest, zero, both by turns, the edges,
/// random ones twice.
fn fill(x: &mut [u32], q: u32, case: u32, operand: u32) {
    let mut pattern = match case {
        0..PATTERNS => case,
        _ => case.wrapping_mul(operand + 1),
    };
    while pattern >= PATTERNS {
        pattern -= PATTERNS;
    }
    let edges = [0, 1, q - 1, q >> 1, (q >> 1) + 1, q - 2, 0, q - 1];
    let mut state = u64::from(case << 8 | operand);
    for (i, x) in x.iter_mut().enumerate() {
        let word = next(&mut state);
        *x = match pattern {
            0 => q - 1,
            1 => 0,
            2 => (q - 1) * (i as u32 & 1),
            3 => {
                let at = (i + operand as usize) & 7;
                edges.get(at).copied().unwrap_or_default()
            }
            _ => ((u64::from(word) * u64::from(q)) >> 32) as u32,
        };
    }
}

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// Compares everything for these moduli, transforms in all lengths up to that
    /// of the table. Returns how many comparisons that was.
    ///
    /// # Errors
    /// The first [`Difference`].
    pub fn all(&self, moduli: &[u32], memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let mut compared = self.without_modulus(memory)?;
        for &q in moduli {
            let none = Difference {
                kernel: "modulus",
                modulus: q,
                length: 0,
                case: 0,
            };
            let m = Modulus::new(q).ok_or(none)?;
            let mut n = 2;
            while table_len(n) <= memory.table.len() {
                compared += self.transforms(&m, n, memory)?;
                n <<= 1;
            }
            for length in LENGTHS {
                for from in [12_289, 185_909_249, 1_073_692_673] {
                    let from = Modulus::new(from).ok_or(none)?;
                    compared += self.pointwise(&m, &from, length, memory)?;
                }
                compared += self.residues(&m, length, memory)?;
            }
            compared += self.small_rows(&m, memory)?;
        }
        Ok(compared)
    }

    /// What has no modulus, or one of its own.
    fn without_modulus(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let mut compared = self.permutations(memory)?
            + self.unpacking(memory)?
            + self.single_precision(memory)?
            + self.slots(memory)?;
        for length in LENGTHS {
            compared += self.rounding(length, memory)?;
            compared += self.reconstruction(length, memory)?;
        }
        Ok(compared)
    }
}

/// Words between `-q` and `q` as residues; others as what is none.
fn canonical(limb: &mut [u32], m: &Modulus) {
    for x in limb {
        let within = (*x as i32).unsigned_abs() < m.value();
        *x = if within { m.canon(*x as i32) } else { u32::MAX };
    }
}

/// A number of a random word: around one, of every magnitude, or next to nothing.
fn number(word: u32, case: u32) -> f64 {
    let x = f64::from(word as i32);
    match case {
        0 => x * (1.0 / 1_073_741_824.0),
        1 if word & 15 == 0 => -0.0,
        1 => x * x * f64::from(word & 0xffff) * 1.1,
        _ => f64::from_bits(u64::from(word)) * f64::from(word as i32 >> 31 | 1),
    }
}
