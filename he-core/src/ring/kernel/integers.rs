//! Integers of 64 bits carried over to a modulus. Safe code for every target.

use crate::arith::Modulus;

/// Largest magnitude of an integer that is carried over: `2^62`.
pub const LIMIT_LOG2: u32 = 62;

/// `x = high 2^32 + low` for `|x| <= 2^62`; then `|high| <= 2^30`.
#[inline(always)]
const fn halves(x: i64) -> (i32, i32) {
    let low = x as i32;
    let high = (x.wrapping_sub(low as i64) >> 32) as i32;
    (high, low)
}

/// The factor of the upper half that belongs to `factor`: times `2^32`.
#[inline(always)]
#[must_use]
pub const fn high_factor(factor: i32, m: &Modulus) -> i32 {
    m.centre(m.mont(factor, m.r2()))
}

/// One integer times a factor, canonical; see [`lift_i64`].
#[inline(always)]
#[must_use]
pub const fn carry(x: i64, factor: i32, high_factor: i32, m: &Modulus) -> u32 {
    let (high, low) = halves(x);
    m.add(
        m.canon(m.mont(high, high_factor)),
        m.canon(m.mont(low, factor)),
    )
}

/// Integers up to `2^62` in magnitude carried over to `m` times `factor`
/// (centred; `m.r()` leaves the value, `m.r2()` gives Montgomery form), in
/// constant time. Canonical.
pub fn lift_i64(src: &[i64], dst: &mut [u32], factor: i32, m: &Modulus) {
    let high = high_factor(factor, m);
    for (y, &x) in dst.iter_mut().zip(src) {
        *y = carry(x, factor, high, m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_carried_over() {
        const LIMIT: i64 = 1 << LIMIT_LOG2;
        let mut src = vec![
            0,
            1,
            -1,
            (1 << 31) - 1,
            1 << 31,
            -(1 << 31),
            -(1 << 31) - 1,
            1 << 32,
            LIMIT,
            -LIMIT,
        ];
        let mut x = 1i64;
        src.extend((0..200).map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            x >> 1
        }));
        for q in [17, 12_289, 134_176_769, 1_073_692_673] {
            let m = Modulus::new(q).unwrap();
            let mut dst = vec![0; src.len()];
            for factor in [1, q / 3, q - 1] {
                lift_i64(&src, &mut dst, m.to_mont(factor), &m);
                for (&x, &y) in src.iter().zip(&dst) {
                    let product = i128::from(x) * i128::from(factor);
                    assert_eq!(i128::from(y), product.rem_euclid(i128::from(q)), "{x} {q}");
                }
            }
        }
    }
}
