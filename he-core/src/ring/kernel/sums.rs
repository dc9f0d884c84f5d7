//! Sums of products with one reduction, for digits of several primes and for matrices
//! of plaintexts. This is safe code for every target. Hosts have a faster form in
//! `x86`; boards need none, as a set with several special primes is for hosts.

use crate::arith::Modulus;

/// Most terms of [`lift_sum`] and of [`dot_two`].
pub const MAX_TERMS: usize = 5;

/// Words that are summed at a time.
const BLOCK: usize = 64;

/// A source of [`lift_sum`].
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// The modulus of the residues.
    pub from: Modulus,
    /// Their factor modulo the target, centred.
    pub factor: i32,
}

/// A term of the two sums of [`dot_two`]: a digit and the two halves of its key, or a
/// plaintext and the two parts of a ciphertext.
#[derive(Clone, Copy, Debug, Default)]
pub struct SumTerm<'a> {
    /// Residues of the factor in both sums.
    pub x: &'a [u32],
    /// Residues of the other factor in the first sum.
    pub b: &'a [u32],
    /// Residues of that in the second.
    pub a: &'a [u32],
}

/// `dst = sum of x_i factor_i / R` over the limbs `x_i` of `src`, each as long as
/// `dst` and centred first: base extension. Words between `-q` and `q`, as in
/// `lift`, which this is for one term. At most [`MAX_TERMS`] are read.
///
/// With `|x| < 2^29` and `|factor| <= q / 2 + 1` the sum of five products is
/// below `5 * 2^29 (q / 2 + 1) < 2^31 q`: within the bound of one reduction.
pub fn lift_sum(src: &[u32], terms: &[Carried], dst: &mut [u32], m: &Modulus) {
    let n = dst.len();
    for (block, dst) in dst.chunks_mut(BLOCK).enumerate() {
        let mut sums = [0i64; BLOCK];
        let start = block * BLOCK;
        for (k, term) in terms.iter().take(MAX_TERMS).enumerate() {
            let limb = src.get(k * n + start..(k + 1) * n).unwrap_or_default();
            for (sum, &x) in sums.iter_mut().zip(limb) {
                *sum += i64::from(term.from.centred(x)) * i64::from(term.factor);
            }
        }
        for (y, &sum) in dst.iter_mut().zip(&sums) {
            *y = m.reduce_wide(sum) as u32;
        }
    }
}

/// `acc0 = (acc0 factor + sum of x b) / R` and `acc1` likewise with `a`, modulo one
/// prime, canonical: the gadget product, or products with plaintexts. `factor` is
/// centred; at most [`MAX_TERMS`] of `terms` are read.
///
/// With residues below `q < 2^30` the sum lies between `-q (q / 2 + 1)` and
/// `5.5 q^2`, reduced between `-0.63 q - 1` and `1.88 q + 1`.
pub fn dot_two(
    acc0: &mut [u32],
    acc1: &mut [u32],
    factor: i32,
    terms: &[SumTerm<'_>],
    m: &Modulus,
) {
    dot(acc0, factor, terms, |term| term.b, m);
    dot(acc1, factor, terms, |term| term.a, m);
}

fn dot<'a>(
    acc: &mut [u32],
    factor: i32,
    terms: &[SumTerm<'a>],
    half: impl Fn(&SumTerm<'a>) -> &'a [u32],
    m: &Modulus,
) {
    for (block, acc) in acc.chunks_mut(BLOCK).enumerate() {
        let mut sums = [0i64; BLOCK];
        for (sum, &x) in sums.iter_mut().zip(acc.iter()) {
            *sum = i64::from(x) * i64::from(factor);
        }
        let start = block * BLOCK;
        for term in terms.iter().take(MAX_TERMS) {
            let digit = term.x.get(start..).unwrap_or_default();
            let key = half(term).get(start..).unwrap_or_default();
            for ((sum, &digit), &key) in sums.iter_mut().zip(digit).zip(key) {
                *sum += i64::from(digit) * i64::from(key);
            }
        }
        for (x, &sum) in acc.iter_mut().zip(&sums) {
            let word = m.reduce_wide(sum);
            // From below 2 q to below q.
            *x = m.canon(m.canon(word) as i32 - m.value() as i32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn they_are_sums_of_products() {
        let m = Modulus::new(1_073_643_521).unwrap();
        let q = m.value();
        let n = BLOCK + 5;
        for count in 0..=MAX_TERMS {
            let terms = vec![
                Carried {
                    from: m,
                    factor: -(q as i32 / 2)
                };
                count
            ];
            // The extremes in the first word, both signs of the centred residue.
            let mut src = random(count * n, q, 1);
            for limb in src.chunks_exact_mut(n) {
                (limb[0], limb[1]) = (q / 2, q / 2 + 1);
            }
            let mut lifted = vec![7; n];
            lift_sum(&src, &terms, &mut lifted, &m);
            let top = vec![q - 1; n];
            let random = random(n, q, 2);
            let keys: Vec<_> = (0..count)
                .map(|k| SumTerm {
                    x: &top,
                    b: if k == 1 { &random } else { &top },
                    a: &random,
                })
                .collect();
            for factor in [-(q as i32 / 2), q as i32 / 2, 3] {
                let (mut acc0, mut acc1) = (top.clone(), random.clone());
                dot_two(&mut acc0, &mut acc1, factor, &keys, &m);
                for i in 0..n {
                    let wide = |x: u32| i128::from(x);
                    let r = 1i128 << 32;
                    let terms = keys.iter();
                    let sum0 = wide(top[i]) * i128::from(factor)
                        + terms
                            .clone()
                            .map(|t| wide(t.x[i]) * wide(t.b[i]))
                            .sum::<i128>();
                    let sum1 = wide(random[i]) * i128::from(factor)
                        + terms.map(|t| wide(t.x[i]) * wide(t.a[i])).sum::<i128>();
                    for (acc, sum) in [(acc0[i], sum0), (acc1[i], sum1)] {
                        assert!(acc < q);
                        assert_eq!((wide(acc) * r - sum) % i128::from(q), 0);
                    }
                }
            }
            for (i, &word) in lifted.iter().enumerate() {
                assert!((word as i32).unsigned_abs() < q);
                let sum: i128 = (0..count)
                    .map(|k| i128::from(m.centred(src[k * n + i])) * -i128::from(q / 2))
                    .sum();
                let r = i128::from(word as i32) << 32;
                assert_eq!((r - sum) % i128::from(q), 0);
            }
        }
    }
}
