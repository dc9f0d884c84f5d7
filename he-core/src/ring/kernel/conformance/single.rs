//! The encoder in single precision, which a board has.

use super::{Difference, Kernels, Memory, Pair, next, number};
use crate::ckks::encode::{self, Real};

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// The encoder's kernels in single precision, which a board has.
    pub(super) fn single_precision(&self, memory: &mut Memory<'_>) -> Result<u32, Difference> {
        let differs = |kernel, length, case| Difference {
            kernel,
            modulus: 0,
            length,
            case,
        };
        let mut compared = 0;
        let quarter = memory.floats.len() >> 2;
        let (x, y) = memory.floats.split_at_mut(2 * quarter);
        let ((xr, xi), (yr, yi)) = (x.split_at_mut(quarter), y.split_at_mut(quarter));
        let twiddles = <f32 as Real>::twiddles();
        let mut n = 2;
        while n <= quarter.min(twiddles.len()) {
            let (Some(xr), Some(xi), Some(yr), Some(yi)) = (
                xr.get_mut(..n),
                xi.get_mut(..n),
                yr.get_mut(..n),
                yi.get_mut(..n),
            ) else {
                break;
            };
            for case in 0..2 {
                for (x, operand) in [(&mut *xr, 1), (&mut *xi, 2), (&mut *yr, 1), (&mut *yi, 2)] {
                    let mut state = operand;
                    for x in x {
                        *x = number(next(&mut state), case) as f32;
                    }
                }
                // What a kernel leaves, the stages do.
                let left = self.kernels.fft_inverse(xr, xi, twiddles);
                encode::stages_from(xr, xi, left);
                let of_reference = self.reference.fft_inverse(yr, yi, twiddles);
                encode::stages_from(yr, yi, of_reference);
                let bits = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits();
                if !xr.iter().zip(&*yr).all(bits) || !xi.iter().zip(&*yi).all(bits) {
                    return Err(differs("fft_inverse", n, case));
                }
                compared += u32::from(left < n);
            }
            n <<= 1;
        }

        let mut state = 0;
        let edges = [
            0.0,
            -0.0,
            0.5,
            -0.5,
            1.5,
            2.5,
            -2.5,
            4_194_303.5,
            8_388_607.5,
            8_388_609.0,
            -2e9,
        ];
        for (i, (x, y)) in x.iter_mut().zip(y.iter_mut()).enumerate() {
            let word = next(&mut state);
            // Halves of integers, and numbers of every magnitude below 2^31.
            let random = (word as i32 >> (word & 31)) as f32 * 0.5;
            *x = edges.get(i).copied().unwrap_or(random);
            *y = *x;
        }
        self.kernels.round_f32(x);
        self.reference.round_f32(y);
        // Zero has two signs, and either is right.
        if x.iter().ne(y.iter()) {
            return Err(differs("round_f32", x.len(), 0));
        }
        Ok(compared + 1)
    }
}
