//! The encoder and the decoder in double precision, which a host has.

use super::{Difference, Kernels, MODULI, Memory, PATTERNS, Pair, fill, next, number};
use crate::arith::Modulus;
use crate::ckks::encode;
use crate::params::MAX_LIMBS;
use crate::ring::crt::Crt;

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// The encoder's and the decoder's transform on a host, of every length.
    pub(super) fn slots(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let twiddles = encode::split_twiddles();
        let [xr, xi, yr, yi] = &mut memory.numbers;
        let mut compared = 0;
        let mut n = 2;
        while n <= xr.len().min(twiddles.0.len()) {
            let (Some(xr), Some(xi), Some(yr), Some(yi)) = (
                xr.get_mut(..n),
                xi.get_mut(..n),
                yr.get_mut(..n),
                yi.get_mut(..n),
            ) else {
                break;
            };
            // From 16 numbers on there are tiles, in vectors of either length.
            let due = self.kernels.lanes() > 1 && n >= 16;
            for case in 0..3 {
                for forward in [false, true] {
                    for (x, operand) in [(&mut *xr, 1), (&mut *xi, 2), (&mut *yr, 1), (&mut *yi, 2)]
                    {
                        let mut state = operand;
                        for x in x {
                            *x = number(next(&mut state), case);
                        }
                    }
                    let done = if forward {
                        self.kernels.fft_forward_f64(xr, xi, twiddles, 0.3)
                    } else {
                        self.kernels.fft_inverse_f64(xr, xi, twiddles)
                    };
                    if done && forward {
                        self.reference.fft_forward_f64(yr, yi, twiddles, 0.3);
                    } else if done {
                        self.reference.fft_inverse_f64(yr, yi, twiddles);
                    }
                    let same = !done || same_bits(xr, yr) && same_bits(xi, yi);
                    if due && !done || !same {
                        return Err(Difference {
                            kernel: if forward {
                                "fft_forward_f64"
                            } else {
                                "fft_inverse_f64"
                            },
                            modulus: 0,
                            length: n,
                            case,
                        });
                    }
                    compared += u32::from(done);
                }
            }
            n <<= 1;
        }
        Ok(compared)
    }

    /// Scaling and rounding, and what is not below the limit.
    pub(super) fn rounding(
        &self,
        length: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        const LIMIT: f64 = (1u64 << 62) as f64;
        // Where the limit is reached, if there are so many, and by what.
        const ABOVE: [(usize, f64); 8] = [
            (usize::MAX, 0.0),
            (0, LIMIT),
            (1, -LIMIT),
            (3, f64::NAN),
            (4, f64::INFINITY),
            (7, LIMIT),
            (8, f64::NEG_INFINITY),
            (31, -f64::NAN),
        ];
        const EDGES: [f64; 8] = [
            -0.2,
            0.5,
            -1.5,
            2.5,
            4_503_599_627_370_495.5,
            -4_503_599_627_370_497.0,
            -0.0,
            LIMIT * (1.0 - f64::EPSILON),
        ];
        let [x, y, ..] = &mut memory.numbers;
        let (Some(x), Some(y)) = (x.get_mut(1..=length), y.get_mut(1..=length)) else {
            return Ok(0);
        };
        let (mut compared, mut state) = (0, length as u64);
        for (case, (at, above)) in (0..).zip(ABOVE) {
            for factor in [1.0, 0.37] {
                for (i, x) in x.iter_mut().enumerate() {
                    let random = number(next(&mut state), 0) * 1_048_576.0;
                    *x = match case {
                        0 | 2 => EDGES.get(i & 7).copied().unwrap_or(random),
                        _ => random,
                    };
                }
                if let Some(x) = x.get_mut(at) {
                    *x = above;
                }
                y.copy_from_slice(x);
                let (done, below) = self.kernels.scale_and_round(x, factor, LIMIT);
                // Vectors of numbers are half as long as those of words.
                let lanes = self.kernels.lanes() >> 1;
                let least = if lanes > 0 { length & !(lanes - 1) } else { 0 };
                let (Some(x), Some(y)) = (x.get(..done), y.get_mut(..done)) else {
                    return Err(Difference {
                        kernel: "scale_and_round",
                        modulus: 0,
                        length,
                        case,
                    });
                };
                let (_, expected) = self.reference.scale_and_round(y, factor, LIMIT);
                if done < least || below != expected || !same_bits(x, y) {
                    return Err(Difference {
                        kernel: "scale_and_round",
                        modulus: 0,
                        length,
                        case,
                    });
                }
                compared += u32::from(done > 0);
            }
        }
        Ok(compared)
    }

    /// Centred values of residues modulo the first of [`MODULI`].
    pub(super) fn reconstruction(
        &self,
        length: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let ([residues, ..], [x, y, ..]) = (&mut memory.limbs, &mut memory.numbers);
        let (Some(residues), Some(x), Some(y)) = (
            residues.get_mut(1..=MODULI.len() * length),
            x.get_mut(1..=length),
            y.get_mut(1..=length),
        ) else {
            return Ok(0);
        };
        let mut compared = 0;
        for limbs in 1..=MODULI.len() {
            let residues = residues.get_mut(..limbs * length).unwrap_or_default();
            compared += self.reconstruct(limbs, residues, x, y)?;
        }
        Ok(compared)
    }

    fn reconstruct(
        &self,
        limbs: usize,
        residues: &mut [u32],
        x: &mut [f64],
        y: &mut [f64],
    ) -> Result<u32, Difference> {
        let mut moduli = [None; MAX_LIMBS];
        for (place, q) in moduli.iter_mut().zip(MODULI).take(limbs) {
            *place = Modulus::new(q);
        }
        let (crt, length, mut compared) = (&Crt::of(moduli), x.len(), 0);
        for case in 0..PATTERNS {
            for (i, step) in crt.steps().enumerate() {
                if let Some(limb) = residues.get_mut(i * length..(i + 1) * length) {
                    fill(limb, step.modulus.value(), case, i as u32);
                }
            }
            let (done, largest) =
                crt.with_steps(|steps| self.kernels.reconstruct(steps, residues, x));
            crt.with_steps(|steps| self.reference.reconstruct(steps, residues, y));
            let lanes = self.kernels.lanes();
            let least = if lanes > 1 { length & !(lanes - 1) } else { 0 };
            let same = done >= least
                && match (x.get(..done), y.get(..done)) {
                    (Some(x), Some(y)) => {
                        let expected = y.iter().fold(0.0, |a, x| f64::max(a, libm::fabs(*x)));
                        same_bits(x, y) && largest.to_bits() == expected.to_bits()
                    }
                    _ => false,
                };
            if !same {
                return Err(Difference {
                    kernel: "reconstruct",
                    modulus: limbs as u32,
                    length,
                    case,
                });
            }
            compared += u32::from(done > 0);
        }
        Ok(compared)
    }
}

/// The same numbers, and NaN where there is NaN.
fn same_bits(x: &[f64], y: &[f64]) -> bool {
    let same = |(x, y): (&f64, &f64)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
    x.len() == y.len() && x.iter().zip(y).all(same)
}
