//! The transforms modulo a prime.

use super::{Difference, Kernels, Memory, PATTERNS, Pair, fill};
use crate::arith::{Modulus, prime};
use crate::ring::kernel::Carried;
use crate::ring::ntt::{other_parts, table_len, tables};

impl<K: Kernels, R: Kernels> Pair<'_, K, R> {
    /// The transforms of one length, where there is a root of unity.
    pub(super) fn transforms(
        &self,
        m: &Modulus,
        n: usize,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let Some(psi) = prime::primitive_root(m, n as u32) else {
            return Ok(0);
        };
        let n_inv = m.to_mont(m.inv(m.reduce(n as i32)));
        let mut compared = 0;
        for case in 0..PATTERNS {
            let z = memory.table.get_mut(..table_len(n)).unwrap_or_default();
            write(m, psi, n, z);
            compared += self.forwards(m, n, case, memory)?;
            // Only hosts have those.
            if cfg!(target_arch = "x86_64") {
                compared += self.carried(m, n, case, memory)?;
            }
            let z = memory.table.get_mut(..table_len(n)).unwrap_or_default();
            write(m, m.inv(psi), n, z);
            compared += self.inverses(m, n, (case, n_inv), memory)?;
        }
        Ok(compared)
    }

    /// Of canonical residues, and of what a lift leaves.
    fn forwards(
        &self,
        m: &Modulus,
        n: usize,
        case: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let q = m.value();
        let [x, y, ..] = &mut memory.limbs;
        let (Some(x), Some(y)) = (x.get_mut(..n), y.get_mut(..n)) else {
            return Ok(0);
        };
        let mut compared = 0;
        fill(y, q, case, 0);
        self.reference.forward(y, m, first_part(memory.table, n));
        for z in tables_of(memory.table, n) {
            fill(x, q, case, 0);
            self.kernels.forward(x, m, z);
            if x != y {
                return Err(differs("forward", m, n, case));
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
                return Err(differs("forward of a lift", m, n, case));
            }
            compared += 2;
        }
        Ok(compared)
    }

    /// By the factor of the inverse itself, and at its edges.
    fn inverses(
        &self,
        m: &Modulus,
        n: usize,
        (case, n_inv): (u32, i32),
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        let q = m.value();
        let [x, y, ..] = &mut memory.limbs;
        let (Some(x), Some(y)) = (x.get_mut(..n), y.get_mut(..n)) else {
            return Ok(0);
        };
        let mut compared = 0;
        for scale in [n_inv, (q >> 1) as i32, -((q >> 1) as i32), 0] {
            fill(y, q, case, 1);
            self.reference
                .inverse(y, m, first_part(memory.table, n), scale);
            for z in tables_of(memory.table, n) {
                fill(x, q, case, 1);
                self.kernels.inverse(x, m, z, scale);
                if x != y {
                    return Err(differs("inverse", m, n, case));
                }
                compared += 1;
            }
        }
        Ok(compared)
    }

    /// Base extensions and divisions that transform on the way, from as many primes as
    /// there is room for.
    fn carried(
        &self,
        m: &Modulus,
        n: usize,
        case: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Difference> {
        const MOST: usize = 4;
        const FROM: [u32; MOST] = [1_073_692_673, 12_289, 185_909_249, 1_073_643_521];
        let q = m.value();
        let half = (q >> 1) as i32;
        let limbs = &mut memory.limbs;
        let room = limbs.each_ref().map(|limb| limb.len()).into_iter().min();
        let [src, x, y, scratch, ..] = limbs;
        let (Some(x), Some(y), Some(scratch)) =
            (x.get_mut(..n), y.get_mut(..n), scratch.get_mut(..n))
        else {
            return Ok(0);
        };
        let z = memory.table.get(..table_len(n)).unwrap_or_default();
        let mut terms = [Carried {
            from: *m,
            factor: 0,
        }; MOST];
        let mut compared = 0;
        // By one prime as it is, too.
        let several = match case {
            0 => [(1, m.r()), (4, -half)],
            2 => [(1, half), (3, m.r2())],
            4 => [(1, m.r()), (2, half)],
            _ => return Ok(0),
        };
        for (count, factor) in several {
            if room.is_none_or(|room| count * n > room) {
                continue;
            }
            for (i, term) in terms.iter_mut().take(count).enumerate() {
                let from = FROM.get((i + case as usize) & 3).copied().unwrap_or(q);
                let sign = if i & 1 == 0 { 1 } else { -1 };
                *term = Carried {
                    from: Modulus::new(from).unwrap_or(*m),
                    factor: sign * factor,
                };
                let limb = src.get_mut(i * n..(i + 1) * n).unwrap_or_default();
                fill(limb, from, case, i as u32);
            }
            let terms = terms.get(..count).unwrap_or_default();
            let due = self.kernels.lanes() > 1 && q <= kernel_bound() && n >= 2048;
            let done = self.kernels.carry_forward(src, terms, x, m, z);
            if done {
                self.reference.carry_forward(src, terms, y, m, z);
                for x in x.iter_mut() {
                    *x = m.reduce(*x as i32);
                }
            }
            if (due && !done) || (done && x != y) {
                return Err(differs("carry_forward", m, n, case));
            }
            let factors = if count == 1 {
                [half, -half]
            } else {
                [m.r2(), half]
            };
            fill(x, q, case, 5);
            fill(y, q, case, 5);
            let divided = self
                .kernels
                .mod_down(x, (src, terms), scratch, factors, m, z);
            if divided {
                self.reference
                    .mod_down(y, (src, terms), scratch, factors, m, z);
            }
            if (due && !divided) || x != y {
                return Err(differs("mod_down", m, n, case));
            }
            compared += u32::from(divided);
            compared += u32::from(done);
        }
        Ok(compared)
    }
}

/// The largest modulus of transforms without reductions: on hosts, where there are such.
const fn kernel_bound() -> u32 {
    #[cfg(target_arch = "x86_64")]
    let bound = crate::ring::kernel::portable::MAX_UNREDUCED;
    #[cfg(not(target_arch = "x86_64"))]
    let bound = 0;
    bound
}

/// Writes all parts of a table.
fn write(m: &Modulus, root: u32, n: usize, z: &mut [i32]) {
    tables(m, root, z.get_mut(..n).unwrap_or_default());
    other_parts(m, n, z);
}

/// The first part of a table.
fn first_part(table: &[i32], n: usize) -> &[i32] {
    table.get(..n).unwrap_or_default()
}

/// That part alone, and all of it if there are others.
fn tables_of(table: &[i32], n: usize) -> impl Iterator<Item = &[i32]> {
    let whole = table_len(n);
    let lengths = [n, whole].into_iter().take(if whole > n { 2 } else { 1 });
    lengths.map(|length| table.get(..length).unwrap_or_default())
}

fn differs(kernel: &'static str, m: &Modulus, length: usize, case: u32) -> Difference {
    Difference {
        kernel,
        modulus: m.value(),
        length,
        case,
    }
}
