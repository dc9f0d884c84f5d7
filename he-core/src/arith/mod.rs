//! Arithmetic modulo one odd prime below 2^30.
//!
//! Reduction is signed Montgomery with R = 2^32 (Montgomery 1985; the signed
//! form is Seiler, ePrint 2018/039, algorithm 3): three multiplications, no
//! comparison. Residues are stored canonically in `0..q`; constants that are
//! multiplied by often (twiddle factors, plaintexts, keys) are stored as
//! `x * R mod q` ("Montgomery form"), so that one [`Modulus::mont`] gives the
//! plain product.

pub mod prime;

/// Largest modulus: values up to `2q` in magnitude fit an `i32`.
pub const MAX_MODULUS: u32 = 1 << 30;

/// An odd modulus below 2^30 with its Montgomery constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulus {
    q: u32,
    /// `-q^-1 mod 2^32`.
    neg_inv: i32,
    /// `2^32 mod q`, centred.
    r: i32,
    /// `2^64 mod q`, centred.
    r2: i32,
    /// `round(2^(31 + bits - 1) / q)`, for [`Self::centre`].
    barrett: i32,
    barrett_shift: u32,
}

impl Modulus {
    /// Constants for `q`.
    ///
    /// `None` unless `q` is odd, at least 3 and below [`MAX_MODULUS`].
    /// Primality is checked where it matters, by [`crate::params`].
    #[must_use]
    #[expect(
        clippy::integer_division_remainder_used,
        reason = "q is public, mostly const"
    )]
    pub const fn new(q: u32) -> Option<Self> {
        if q < 3 || q >= MAX_MODULUS || q & 1 == 0 {
            return None;
        }
        // Newton's iteration doubles the number of correct bits.
        let mut inv: u32 = 1;
        let mut i = 0;
        while i < 5 {
            inv = inv.wrapping_mul(2u32.wrapping_sub(q.wrapping_mul(inv)));
            i += 1;
        }
        let r = ((1u64 << 32) % q as u64) as u32;
        let r2 = ((r as u64 * r as u64) % q as u64) as u32;
        let bits = 32 - q.leading_zeros();
        let shift = 30 + bits;
        // 2^30 < 2^shift / q < 2^31 as 2^(bits-1) < q < 2^bits.
        let barrett = (((1u128 << shift) + (q as u128 >> 1)) / q as u128) as i32;
        Some(Self {
            q,
            neg_inv: inv.wrapping_neg() as i32,
            r: Self::centred_const(r, q),
            r2: Self::centred_const(r2, q),
            barrett,
            barrett_shift: shift,
        })
    }

    const fn centred_const(x: u32, q: u32) -> i32 {
        if x > q >> 1 {
            x as i32 - q as i32
        } else {
            x as i32
        }
    }

    /// The modulus.
    #[inline]
    #[must_use]
    pub const fn value(&self) -> u32 {
        self.q
    }

    /// Bits of the largest residue: the width on the wire.
    #[inline]
    #[must_use]
    pub const fn bits(&self) -> u32 {
        32 - (self.q - 1).leading_zeros()
    }

    /// `-q^-1 mod 2^32`.
    #[inline]
    #[must_use]
    pub const fn neg_inv(&self) -> i32 {
        self.neg_inv
    }

    /// The factor and the shift of [`Self::centre`].
    #[inline]
    #[must_use]
    pub const fn barrett(&self) -> (i32, u32) {
        (self.barrett, self.barrett_shift)
    }

    /// `2^32 / q`, rounded down.
    #[inline]
    #[must_use]
    pub const fn quotient_of_r(&self) -> u32 {
        let (_, rounded) = self.shoup(self.r);
        // Rounded down where the rest is positive.
        (rounded as u32).wrapping_sub((self.r < 0) as u32)
    }

    /// `2^(30 + bits + more) / q`, rounded down, for `more` of 0 or 1.
    #[inline]
    #[must_use]
    pub const fn wide_quotient(&self, more: u32) -> u32 {
        let (q, power) = (self.q as u64, 1u64 << (self.barrett_shift + more));
        // The bits of a power of two are those of the residues below it, and `q` is odd.
        let mut factor = (self.barrett as u64) << more;
        if factor * q > power {
            factor -= 1;
        }
        if (factor + 1) * q <= power {
            factor += 1;
        }
        factor as u32
    }

    /// `R mod q`, centred: [`Self::mont`] with it leaves a value as it is.
    #[inline]
    #[must_use]
    pub const fn r(&self) -> i32 {
        self.r
    }

    /// `R^2 mod q`, centred: [`Self::mont`] with it gives Montgomery form.
    #[inline]
    #[must_use]
    pub const fn r2(&self) -> i32 {
        self.r2
    }

    /// `t / R mod q` of a sum of products.
    ///
    /// Input: `|t| < 2^63 - 2^31 q`. Output: within `q / 2` of `t / 2^32`.
    #[inline(always)]
    #[must_use]
    pub const fn reduce_wide(&self, t: i64) -> i32 {
        let m = (t as i32).wrapping_mul(self.neg_inv);
        (t.wrapping_add(m as i64 * self.q as i64) >> 32) as i32
    }

    /// `a * b / R mod q`.
    ///
    /// Input: `|a * b| < 2^31 q`. Output: `|result| <= |a * b| / 2^32 + q / 2 < q`.
    #[inline(always)]
    #[must_use]
    pub const fn mont(&self, a: i32, b: i32) -> i32 {
        let t = a as i64 * b as i64;
        let m = (t as i32).wrapping_mul(self.neg_inv);
        // |t| < 2^31 q and |m q| <= 2^31 q, so the sum is below 2^62; its low
        // word is zero by the choice of m.
        ((t + m as i64 * self.q as i64) >> 32) as i32
    }

    /// A value in `-q < x < q` as its canonical residue.
    #[inline(always)]
    #[must_use]
    pub const fn canon(&self, x: i32) -> u32 {
        x.wrapping_add((x >> 31) & self.q as i32) as u32
    }

    /// Of a centred factor in Montgomery form, `z = w R - k q`: the factor itself and `k`,
    /// which is `w R / q` rounded. So `b w - floor(b k / R) q` is `b w` up to a multiple
    /// of `q`, and for any `i32` `b` between `-q / 4` and `5 q / 4` (Shoup; Harvey, arXiv
    /// 1205.2926).
    #[inline(always)]
    #[must_use]
    pub const fn shoup(&self, z: i32) -> (i32, i32) {
        let k = z.wrapping_mul(self.neg_inv);
        // The low word of the sum is zero.
        (((k as i64 * self.q as i64 + z as i64) >> 32) as i32, k)
    }

    /// A canonical residue as the value of least magnitude, `|x| <= q / 2`.
    #[inline(always)]
    #[must_use]
    pub const fn centred(&self, x: u32) -> i32 {
        let above = ((self.q >> 1) as i32).wrapping_sub(x as i32);
        (x as i32).wrapping_sub((above >> 31) & self.q as i32)
    }

    /// Any `i32` reduced to `|x| <= q / 2 + 1` (Barrett, rounding).
    #[inline(always)]
    #[must_use]
    pub const fn centre(&self, x: i32) -> i32 {
        let half = 1i64 << (self.barrett_shift - 1);
        let t = ((x as i64 * self.barrett as i64 + half) >> self.barrett_shift) as i32;
        x.wrapping_sub(t.wrapping_mul(self.q as i32))
    }

    /// Any `i32` as its canonical residue.
    #[inline(always)]
    #[must_use]
    pub const fn reduce(&self, x: i32) -> u32 {
        self.canon(self.centre(x))
    }

    /// Sum of two canonical residues.
    #[inline(always)]
    #[must_use]
    pub const fn add(&self, a: u32, b: u32) -> u32 {
        self.canon(
            (a as i32)
                .wrapping_add(b as i32)
                .wrapping_sub(self.q as i32),
        )
    }

    /// Difference of two canonical residues.
    #[inline(always)]
    #[must_use]
    pub const fn sub(&self, a: u32, b: u32) -> u32 {
        self.canon((a as i32).wrapping_sub(b as i32))
    }

    /// Product of two canonical residues (two reductions; for setup code).
    #[inline]
    #[must_use]
    pub const fn mul(&self, a: u32, b: u32) -> u32 {
        self.canon(self.mont(self.mont(a as i32, self.r2), b as i32))
    }

    /// A canonical residue in Montgomery form, centred.
    #[inline]
    #[must_use]
    pub const fn to_mont(&self, a: u32) -> i32 {
        self.centre(self.mont(a as i32, self.r2))
    }

    /// `a^e` for a canonical residue and a public exponent.
    #[must_use]
    pub const fn pow(&self, a: u32, mut e: u32) -> u32 {
        let mut base = a;
        let mut acc = self.canon(self.mont(self.r, 1));
        // acc starts as R * 1 / R = 1.
        while e > 0 {
            if e & 1 == 1 {
                acc = self.mul(acc, base);
            }
            base = self.mul(base, base);
            e >>= 1;
        }
        acc
    }

    /// Inverse of a nonzero canonical residue, for prime `q`.
    #[must_use]
    pub const fn inv(&self, a: u32) -> u32 {
        self.pow(a, self.q - 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMES: [u32; 6] = [
        17,
        188_417,
        1_032_193,
        134_176_769,
        268_369_921,
        1_073_692_673,
    ];

    fn samples(m: &Modulus) -> Vec<u32> {
        let q = m.value();
        let mut v = vec![0, 1, 2, q / 2 - 1, q / 2, q / 2 + 1, q - 2, q - 1];
        let mut x = 12_345u64;
        for _ in 0..200 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            v.push((x >> 33) as u32 % q);
        }
        v
    }

    #[test]
    fn products_match_the_definition() {
        for q in PRIMES {
            let m = Modulus::new(q).unwrap();
            for &a in &samples(&m) {
                for &b in &samples(&m) {
                    assert_eq!(
                        u64::from(m.mul(a, b)),
                        u64::from(a) * u64::from(b) % u64::from(q)
                    );
                    assert_eq!(m.add(a, b), (a + b) % q);
                    assert_eq!(m.sub(a, b), (a + q - b) % q);
                }
                if a != 0 {
                    assert_eq!(m.mul(a, m.inv(a)), 1);
                }
                assert_eq!(m.canon(m.centred(a)), a);
                assert!(m.centred(a).unsigned_abs() <= q / 2);
                assert_eq!(m.canon(m.mont(m.to_mont(a), 1)), a);
            }
        }
    }

    #[test]
    fn factors_with_their_quotients_keep_the_bounds() {
        for q in PRIMES {
            let m = Modulus::new(q).unwrap();
            for &w in &samples(&m) {
                let (plain, k) = m.shoup(m.to_mont(w));
                // A centred form may be one more than half.
                assert_eq!(m.canon(plain), w);
                for b in [
                    i32::MIN,
                    i32::MIN + 1,
                    -7,
                    -1,
                    0,
                    1,
                    7,
                    i32::MAX - 1,
                    i32::MAX,
                ] {
                    let quotient = (i64::from(b) * i64::from(k)) >> 32;
                    let r = i64::from(b) * i64::from(plain) - quotient * i64::from(q);
                    let four = 4 * r;
                    assert!(
                        four >= -i64::from(q) - 8 && four <= 5 * i64::from(q) + 8,
                        "{q} {w} {b}"
                    );
                }
            }
        }
    }

    #[test]
    fn reductions_keep_their_bounds_at_the_extremes() {
        for q in PRIMES {
            let m = Modulus::new(q).unwrap();
            for x in [i32::MIN, i32::MIN + 1, -1, 0, 1, i32::MAX - 1, i32::MAX] {
                let c = m.centre(x);
                assert!(c.unsigned_abs() <= q / 2 + 1, "{q} {x} {c}");
                assert_eq!(
                    i64::from(m.reduce(x)),
                    i64::from(x).rem_euclid(i64::from(q))
                );
                // |a| <= 2^31 and |b| <= q/2 is the NTT's use.
                for b in [q as i32 / 2, -(q as i32 / 2), 1, m.r(), m.r2()] {
                    let r = i64::from(m.mont(x, b));
                    let bound = (i64::from(x) * i64::from(b)).unsigned_abs() >> 32;
                    assert!(r.unsigned_abs() <= bound + u64::from(q / 2) + 1);
                    let back = i128::from(r) << 32;
                    assert_eq!((back - i128::from(x) * i128::from(b)) % i128::from(q), 0);
                }
            }
        }
    }

    #[test]
    fn moduli_outside_the_range_are_refused() {
        for q in [0, 1, 2, 4, 1 << 30, (1 << 30) + 1, u32::MAX] {
            assert_eq!(Modulus::new(q), None);
        }
    }
}
