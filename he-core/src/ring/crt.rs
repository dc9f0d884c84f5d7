//! From residues back to integers.
//!
//! Balanced mixed-radix digits (Garner's algorithm with centred digits): the
//! value of least magnitude is `v_0 + q_0 (v_1 + q_1 (v_2 + ..))` with
//! `|v_i| <= q_i / 2`, so its sign needs no comparison, a small value has
//! zero high digits, and the whole runs in constant time.

use crate::error::{Error, Result};
use crate::params::{MAX_LIMBS, Params};

/// Constants for the first `limbs` primes of a set.
#[derive(Clone, Debug)]
pub struct Crt<'p> {
    params: &'p Params,
    limbs: usize,
    /// `(q_0 .. q_{i-1})^-1 mod q_i`, Montgomery form.
    inverse: [i32; MAX_LIMBS],
    /// `q_0 .. q_{i-1}` as a float.
    weight: [f64; MAX_LIMBS],
    modulus: f64,
}

impl<'p> Crt<'p> {
    /// Prepares for values modulo the product of the first `limbs` primes.
    ///
    /// # Errors
    /// [`Error::Level`] if the chain is shorter.
    pub fn new(params: &'p Params, limbs: usize) -> Result<Self> {
        if limbs == 0 || limbs > params.data_limbs() {
            return Err(Error::Level {
                operation: "reconstruction",
                expected: params.data_limbs(),
                got: limbs,
            });
        }
        let mut inverse = [0; MAX_LIMBS];
        let mut weight = [1.0; MAX_LIMBS];
        let mut w = 1.0;
        for (i, (inv, wt)) in inverse.iter_mut().zip(&mut weight).take(limbs).enumerate() {
            let m = params.prime(i)?.modulus();
            let mut product = 1;
            for lower in 0..i {
                let q = params.prime(lower)?.modulus().value();
                product = m.mul(product, m.reduce(q as i32));
            }
            *inv = m.to_mont(m.inv(product));
            *wt = w;
            w *= f64::from(m.value());
        }
        Ok(Self {
            params,
            limbs,
            inverse,
            weight,
            modulus: w,
        })
    }

    /// The product of the primes, as a float.
    #[must_use]
    pub const fn modulus(&self) -> f64 {
        self.modulus
    }

    /// The centred value with residues `residue(i)` for limb `i`, as a float.
    ///
    /// # Errors
    /// None for residues that are canonical; the result type is that of the
    /// parameter lookup.
    pub fn value(&self, residue: impl Fn(usize) -> u32) -> Result<f64> {
        let mut digits = [0i32; MAX_LIMBS];
        let mut value = 0.0;
        let constants = self.inverse.iter().zip(&self.weight).take(self.limbs);
        for (i, (&inverse, &weight)) in constants.enumerate() {
            let m = self.params.prime(i)?.modulus();
            // Horner over the digits found so far, modulo q_i.
            let mut lower = 0;
            for (j, &digit) in digits.iter().enumerate().take(i).rev() {
                let q = self.params.prime(j)?.modulus().value();
                lower = m.add(m.mul(lower, m.reduce(q as i32)), m.reduce(digit));
            }
            let rest = m.sub(residue(i), lower);
            let digit = m.centred(m.canon(m.mont(rest as i32, inverse)));
            if let Some(d) = digits.get_mut(i) {
                *d = digit;
            }
            value += f64::from(digit) * weight;
        }
        Ok(value)
    }
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
                let got = crt.value(|i| v.rem_euclid(moduli[i]) as u32).unwrap();
                let err = (got - v as f64).abs();
                assert!(err <= v.unsigned_abs() as f64 * 1e-15, "{limbs} {v} {got}");
            }
        }
        assert!(Crt::new(&N16, 0).is_err());
        assert!(Crt::new(&N16, N16.data_limbs() + 1).is_err());
    }
}
