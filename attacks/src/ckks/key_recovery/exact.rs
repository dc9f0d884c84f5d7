//! All slots of one ciphertext, and sparse encodings.

use he_core::{Params, Result};

use super::super::algebra::{self, Points};
use super::super::holder::{Ct, Holder};

/// What is published of a value with so many bits after the binary point.
pub(super) fn rounded(slots: &[f64], bits: u32) -> Vec<f64> {
    let unit = f64::exp2(f64::from(bits));
    slots.iter().map(|x| (x * unit).round() / unit).collect()
}

/// The key of `(c0, c1)` and all its slots: the decryption `m' = c0 + c1 s` encoded
/// again, minus `c0`, divided by `c1`. None where the slots do not give `m'` exactly.
pub(super) fn from_all_slots(params: &Params, ct: &Ct, slots: &[f64]) -> Result<Option<Vec<i8>>> {
    let Ok(message) = algebra::coefficients(slots, ct.scale()) else {
        return Ok(None);
    };
    let n = params.n();
    let (c0, c1) = ct.halves();
    for (i, (c0, c1)) in c0.chunks_exact(n).zip(c1.chunks_exact(n)).enumerate() {
        let prime = params.prime(i)?;
        let m = prime.modulus();
        let mut b = algebra::residues(&message, m);
        he_core::ring::ntt::forward(&mut b, prime)?;
        for (b, &c0) in b.iter_mut().zip(c0) {
            *b = m.sub(*b, c0);
        }
        // A component that is zero has no inverse: the next prime's has.
        if let Some(key) = algebra::quotient(&b, c1, prime)? {
            return Ok(algebra::ternary(&key));
        }
    }
    Ok(None)
}

/// The slots of a sparse encoding: the values of the polynomial in `Y = X^gap` that
/// the coefficients at multiples of `gap = N / (2 n)` make, which is what
/// implementations with sparse packing publish of `n` slots.
pub(super) fn sparse_slots(slots: &[f64], scale: f64, count: usize) -> Result<Vec<f64>> {
    let coefficients = algebra::coefficients(slots, scale)?;
    let gap = coefficients.len() / (2 * count);
    let kept: Vec<f64> = coefficients
        .iter()
        .step_by(gap)
        .map(|&x| x as f64)
        .collect();
    algebra::slots(&kept, scale)
}

/// The key of ciphertexts and their sparse slots.
///
/// With `s = sum X^r s_r(Y)` and `c1 = sum X^r c_r(Y)` for `r < gap`, the part of
/// `c1 s` in `Y` alone is `c_0 s_0 + Y sum_(r > 0) c_(gap - r) s_r`. At each of the
/// `2 n` roots of `Y^(2 n) + 1` modulo a prime that is one equation in `gap` unknowns,
/// so `gap` ciphertexts decide all of them, and `2 n` eliminations of that size stand
/// for one of size `N`.
pub(super) fn from_sparse_slots(
    params: &Params,
    seen: &[(Ct, Vec<f64>)],
    count: usize,
) -> Result<Option<Vec<i8>>> {
    let (n, len) = (params.n(), 2 * count);
    let gap = n / len;
    let prime = params.prime(0)?;
    let m = prime.modulus();
    let points = Points::new(len, m)?;
    // By root, the rows of all ciphertexts.
    let mut rows: Vec<Vec<Vec<u32>>> = vec![Vec::new(); len];
    for (ct, slots) in seen {
        let Ok(message) = algebra::coefficients(slots, ct.scale()) else {
            return Ok(None);
        };
        let message = algebra::residues(&message, m);
        let limb = |part: &[u32]| -> Result<Vec<u32>> {
            let part = algebra::centred(&part[..n], prime)?;
            Ok(algebra::residues(&part, m))
        };
        let (c0, c1) = ct.halves();
        let (c0, c1) = (limb(c0)?, limb(c1)?);
        let part = |of: &[u32], r: usize| -> Vec<u32> {
            of.iter().skip(r).step_by(gap).copied().collect()
        };
        let right: Vec<u32> = message
            .iter()
            .zip(part(&c0, 0))
            .map(|(&x, c0)| m.sub(x, c0))
            .collect();
        let parts: Vec<Vec<u32>> = (0..gap).map(|r| part(&c1, r)).collect();
        for (point, rows) in rows.iter_mut().enumerate() {
            let root = points.root(point);
            let first = points.at(&parts[0], point);
            let others = (1..gap).map(|r| m.mul(root, points.at(&parts[gap - r], point)));
            let right = points.at(&right, point);
            rows.push(
                std::iter::once(first)
                    .chain(others)
                    .chain([right])
                    .collect(),
            );
        }
    }
    let solved: Option<Vec<Vec<u32>>> = rows
        .into_iter()
        .map(|rows| algebra::solve(rows, gap, m))
        .collect();
    let Some(solved) = solved else {
        return Ok(None);
    };
    let mut key = vec![0; n];
    for r in 0..gap {
        let values: Vec<u32> = solved.iter().map(|at| at[r]).collect();
        let of_part = points.interpolate(&values);
        for (k, x) in of_part.into_iter().enumerate() {
            key[r + k * gap] = i64::from(m.centred(x));
        }
    }
    Ok(algebra::ternary(&key))
}

/// The fewest bits after the binary point with which `recovers` finds the key, or none
/// up to 60. More bits never hinder.
pub(super) fn fewest_bits(mut recovers: impl FnMut(u32) -> Result<bool>) -> Result<Option<u32>> {
    let (mut fails, mut works) = (-1i64, 61);
    while works - fails > 1 {
        let middle = (fails + works) / 2;
        match recovers(middle as u32)? {
            true => works = middle,
            false => fails = middle,
        }
    }
    Ok((works <= 60).then_some(works as u32))
}

/// Fresh ciphertexts of a holder at the lowest level, with all their slots.
pub(super) fn fresh(holder: &mut Holder, count: usize, scale: f64) -> Result<Vec<(Ct, Vec<f64>)>> {
    let one = |_| {
        let values = holder.values();
        let message = holder.encode(&values, scale)?;
        let ct = holder.encrypt(&message, 0, scale)?;
        let slots = holder.unguarded(&ct)?;
        Ok((ct, slots))
    };
    (0..count).map(one).collect()
}
