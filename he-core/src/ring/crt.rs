//! From residues back to integers.
//!
//! Balanced mixed-radix digits (Garner's algorithm with centred digits): the
//! value of least magnitude is `v_0 + q_0 (v_1 + q_1 (v_2 + ..))` with
//! `|v_i| <= q_i / 2`, so its sign needs no comparison, a small value has
//! zero high digits, and the whole runs in constant time.

use super::kernel::{self, RadixStep};
use crate::arith::Modulus;
use crate::error::{Error, Result, check_len};
use crate::params::{MAX_LIMBS, Params};
use zeroize::Zeroizing;

/// Pairs of primes of a chain.
const MAX_PAIRS: usize = (MAX_LIMBS * (MAX_LIMBS - 1)) >> 1;

/// Constants for the first `limbs` primes of a set.
#[derive(Clone, Debug)]
pub(crate) struct Crt {
    limbs: usize,
    moduli: [Option<Modulus>; MAX_LIMBS],
    /// `q_j^-1 mod q_i` for `j < i`, at `i (i - 1) / 2 + j`, in Montgomery form.
    inverses: [i32; MAX_PAIRS],
    /// `q_0 .. q_{i-1}` as a float.
    weights: [f64; MAX_LIMBS],
    modulus: f64,
}

impl Crt {
    /// Prepares for values modulo the product of the first `limbs` primes.
    ///
    /// # Errors
    /// [`Error::Level`] if the chain is shorter.
    pub(crate) fn new(params: &Params, limbs: usize) -> Result<Self> {
        if limbs == 0 || limbs > params.data_limbs() {
            return Err(Error::Level {
                operation: "reconstruction",
                expected: params.data_limbs(),
                got: limbs,
            });
        }
        let mut moduli = [None; MAX_LIMBS];
        for (i, modulus) in moduli.iter_mut().enumerate().take(limbs) {
            *modulus = Some(*params.prime(i)?.modulus());
        }
        Ok(Self::of(moduli))
    }

    /// The same for any primes, all different, which come before what is none.
    pub(crate) fn of(moduli: [Option<Modulus>; MAX_LIMBS]) -> Self {
        let mut crt = Self {
            limbs: moduli.iter().flatten().count(),
            moduli,
            inverses: [0; MAX_PAIRS],
            weights: [1.0; MAX_LIMBS],
            modulus: 1.0,
        };
        let mut inverses = crt.inverses.iter_mut();
        let primes = moduli.iter().flatten();
        for (i, (m, weight)) in primes.clone().zip(&mut crt.weights).enumerate() {
            for (lower, inverse) in primes.clone().take(i).zip(&mut inverses) {
                *inverse = m.to_mont(m.inv(m.reduce(lower.value() as i32)));
            }
            *weight = crt.modulus;
            crt.modulus *= f64::from(m.value());
        }
        crt
    }

    /// The product of the primes, as a float.
    pub(crate) const fn modulus(&self) -> f64 {
        self.modulus
    }

    /// Those of every prime, in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = RadixStep<'_>> {
        let moduli = self.moduli.iter().flatten();
        let mut first = 0;
        moduli
            .zip(&self.weights)
            .enumerate()
            .map(move |(i, (modulus, &weight))| {
                let inverses = self.inverses.get(first..first + i).unwrap_or_default();
                first += i;
                RadixStep {
                    modulus,
                    weight,
                    inverses,
                }
            })
    }

    /// What `f` makes of those of all primes.
    pub(crate) fn with_steps<R>(&self, f: impl FnOnce(&[RadixStep<'_>]) -> R) -> R {
        let mut steps = self.steps();
        let Some(first) = steps.next() else {
            return f(&[]);
        };
        let mut all = [first; MAX_LIMBS];
        for (to, step) in all.iter_mut().skip(1).zip(steps) {
            *to = step;
        }
        f(all.get(..self.limbs).unwrap_or_default())
    }

    /// The centred value with residues `residue(i)` for limb `i`, as a float.
    #[cfg(test)]
    pub(crate) fn value(&self, residue: impl Fn(usize) -> u32) -> f64 {
        value(self.steps(), residue)
    }

    /// The centred values of all coefficients, from limbs in the coefficient
    /// domain; returns the largest magnitude.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are as many limbs of `out.len()` residues as
    /// primes.
    pub(crate) fn values(&self, residues: &[u32], out: &mut [f64]) -> Result<f64> {
        let n = out.len();
        check_len("residues", residues.len(), self.limbs * n)?;
        let (done, mut largest) =
            self.with_steps(|steps| kernel::reconstruct(steps, residues, out));
        let mut digits = Zeroizing::new([0; MAX_LIMBS]);
        for (k, x) in out.iter_mut().enumerate().skip(done) {
            *x = value_by(self.steps(), &mut digits, |limb| {
                residues.get(limb * n + k).copied().unwrap_or(0)
            });
            largest = f64::max(largest, libm::fabs(*x));
        }
        Ok(largest)
    }
}

/// The centred value with residues `residue(i)` modulo the prime of step `i`.
#[cfg(any(test, feature = "kernel-comparison"))]
pub(crate) fn value<'a>(
    steps: impl Iterator<Item = RadixStep<'a>>,
    residue: impl Fn(usize) -> u32,
) -> f64 {
    value_by(steps, &mut Zeroizing::new([0; MAX_LIMBS]), residue)
}

/// The centred value with residues `residue(i)` modulo the prime of step `i`; with memory
/// for the digits, which the caller erases.
fn value_by<'a>(
    steps: impl Iterator<Item = RadixStep<'a>>,
    digits: &mut [i32; MAX_LIMBS],
    residue: impl Fn(usize) -> u32,
) -> f64 {
    let mut value = 0.0;
    for (i, step) in steps.enumerate() {
        let m = step.modulus;
        let mut x = residue(i) as i32;
        // At most 0.75 q + 1 less a digit of another prime: below 2^31.
        for (&digit, &inverse) in digits.iter().zip(step.inverses) {
            x = m.mont(x.wrapping_sub(digit), inverse);
        }
        let x = m.centred(m.canon(x));
        if let Some(digit) = digits.get_mut(i) {
            *digit = x;
        }
        value += f64::from(x) * step.weight;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::N16;

    #[test]
    fn centred_values_come_back() {
        let moduli: Vec<i128> = (0..N16.data_limbs())
            .map(|i| i128::from(N16.prime(i).unwrap().modulus().value()))
            .collect();
        for limbs in 1..=N16.data_limbs() {
            let crt = Crt::new(&N16, limbs).unwrap();
            let q: i128 = moduli[..limbs].iter().product();
            for v in [0, 1, -1, 12_345, -99_999, q / 2, -(q / 2), q / 3, -(q / 3)] {
                let got = crt.value(|i| v.rem_euclid(moduli[i]) as u32);
                let err = (got - v as f64).abs();
                assert!(err <= v.unsigned_abs() as f64 * 1e-15, "{limbs} {v} {got}");
            }
        }
        assert!(Crt::new(&N16, 0).is_err());
        assert!(Crt::new(&N16, N16.data_limbs() + 1).is_err());
    }

    /// All at once is, on every backend, what one by one is, bit for bit.
    #[test]
    fn limbs_of_values_come_back() {
        use crate::params::{N4096_DEPTH3, N8192_DEPTH5};
        use crate::testing::random;
        for (params, limbs) in [(&N16, 4), (&N4096_DEPTH3, 4), (&N8192_DEPTH5, 6), (&N16, 1)] {
            let n = params.n();
            let crt = Crt::new(params, limbs).unwrap();
            let mut residues = vec![];
            for i in 0..limbs {
                let q = params.prime(i).unwrap().modulus().value();
                let mut limb = random(n, q, i as u64 + 9);
                limb[..4].copy_from_slice(&[0, q - 1, q / 2, q / 2 + 1]);
                residues.extend(limb);
            }
            let expected: Vec<f64> = (0..n).map(|k| crt.value(|i| residues[i * n + k])).collect();
            let largest = expected.iter().fold(0.0, |a, x| f64::max(a, x.abs()));
            assert!(largest <= 0.5 * crt.modulus() * (1.0 + 1e-15));
            let check = |got: &[f64]| {
                for (x, y) in got.iter().zip(&expected) {
                    assert_eq!(x.to_bits(), y.to_bits());
                }
            };
            let mut out = vec![0.0; n];
            assert_eq!(crt.values(&residues, &mut out).unwrap(), largest);
            check(&out);
            assert!(crt.values(&residues[1..], &mut out).is_err());
            #[cfg(target_arch = "x86_64")]
            for backend in kernel::Backend::available() {
                let mut out = vec![0.0; n];
                let (done, most) = crt.with_steps(|steps| {
                    kernel::reconstruct_on(backend, steps, &residues, &mut out)
                });
                assert_eq!(done, if backend.name() == "portable" { 0 } else { n });
                check(&out[..done]);
                assert!(done == 0 || most == largest);
            }
        }
    }
}
