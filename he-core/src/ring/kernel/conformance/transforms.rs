//! The transforms modulo a prime.

use super::{Difference, Kernels, Memory, PATTERNS, Pair, fill};
use crate::arith::{Modulus, prime};
use crate::ring::ntt::tables;

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// The transforms of one length, where there is a root of unity: of canonical
    /// residues, and of what a lift leaves.
    pub(super) fn transforms(
        &self,
        m: &Modulus,
        n: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let q = m.value();
        let Some(psi) = prime::primitive_root(m, n as u32) else {
            return Ok(0);
        };
        let [x, y, ..] = &mut memory.limbs;
        let (Some(x), Some(y), Some(z)) =
            (x.get_mut(..n), y.get_mut(..n), memory.table.get_mut(..n))
        else {
            return Ok(0);
        };
        let n_inv = m.to_mont(m.inv(m.reduce(n as i32)));
        let differs = |kernel, case| Difference {
            kernel,
            modulus: q,
            length: n,
            case,
        };
        for case in 0..PATTERNS {
            tables(m, psi, z);
            fill(x, q, case, 0);
            fill(y, q, case, 0);
            self.kernels.forward(x, m, z);
            self.reference.forward(y, m, z);
            if x != y {
                return Err(differs("forward", case));
            }
            // The same residues, each other one less q.
            fill(x, q, case, 0);
            for (i, x) in x.iter_mut().enumerate() {
                if i & 1 == 0 && *x != 0 {
                    *x = x.wrapping_sub(q);
                }
            }
            self.kernels.forward(x, m, z);
            if x != y {
                return Err(differs("forward of a lift", case));
            }
            tables(m, m.inv(psi), z);
            // The factor of the inverse itself, and at its edges.
            for scale in [n_inv, (q >> 1) as i32, -((q >> 1) as i32), 0] {
                fill(x, q, case, 1);
                fill(y, q, case, 1);
                self.kernels.inverse(x, m, z, scale);
                self.reference.inverse(y, m, z, scale);
                if x != y {
                    return Err(differs("inverse", case));
                }
            }
        }
        Ok(6 * PATTERNS)
    }
}
