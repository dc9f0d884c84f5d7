//! Bounds of the error that a computation carries along.
//!
//! Errors are counted in slots before division by the scale: `N` coefficients
//! of magnitude `e` give at most `N e` in a slot, and about `sqrt(N) e` if they
//! are independent. A polynomial whose coefficients are bounded is bounded in
//! every slot, and slots multiply one by one, so bounds need no expansion
//! factor (Cheon, Kim, Kim, Song 2017, section 3.4; Costache, Curtis, Hales,
//! Murphy, Ogilvie, Player, ePrint 2020/1481).

use crate::error::Result;
use crate::params::Params;
use crate::ring::sample::{ERROR_COINS, ERROR_VARIANCE};

/// An error in a slot: what it cannot exceed, whatever is drawn and however
/// the operands depend on each other, and its standard deviation for
/// independent operands.
///
/// The error of arithmetic in floating point by encoding and decoding comes on
/// top, about 2^-50 of the magnitude in double precision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// Largest magnitude.
    pub bound: f64,
    /// Standard deviation.
    pub sigma: f64,
}

impl Noise {
    /// Rounding coefficients to integers: by 1/2 at most.
    #[must_use]
    pub fn rounding(params: &Params) -> Self {
        let n = params.n() as f64;
        Self {
            bound: n / 2.0,
            sigma: libm::sqrt(n / 12.0),
        }
    }

    /// One polynomial of errors: what secret-key encryption adds.
    #[must_use]
    pub fn error(params: &Params) -> Self {
        let n = params.n() as f64;
        Self {
            bound: n * f64::from(ERROR_COINS),
            sigma: libm::sqrt(n * ERROR_VARIANCE),
        }
    }

    /// What public-key encryption adds: the errors of the key and of the
    /// encryption divided by `P`, and the rounding of that.
    ///
    /// # Errors
    /// None; the type is that of the parameter lookup.
    pub fn public_key(params: &Params) -> Result<Self> {
        let e = Self::error(params);
        let ternary = secret(params, 2);
        let of_the_key = e.times(
            ternary.bound - 1.0,
            libm::sqrt(2.0 * params.n() as f64 / 3.0),
        );
        let p = 1.0 / special(params)?;
        Ok(of_the_key
            .plus(e.times(ternary.bound, ternary.sigma))
            .times(p, p)
            .plus(Self::mod_down(params)))
    }

    /// Dividing a ciphertext of `parts` parts by a prime, as rescaling does:
    /// each part is rounded, and stands before a power of the secret.
    #[must_use]
    pub fn division(params: &Params, parts: usize) -> Self {
        let s = secret(params, parts);
        Self::rounding(params).times(s.bound, s.sigma)
    }

    /// Dividing a ciphertext of two parts by `P`: as by a prime, once for each
    /// special prime, as the remainder is carried over with a multiple of `P`
    /// up to half their number ([`crate::rlwe::gadget`]).
    #[must_use]
    pub fn mod_down(params: &Params) -> Self {
        let primes = params.special_limbs() as f64;
        Self::division(params, 2).times(primes, libm::sqrt(primes))
    }

    /// A key switch at `level`: digits times the key's errors, divided by `P`. A
    /// digit of the primes whose product is `D` is a sum of one value up to `D / 2`
    /// for each of them.
    ///
    /// # Errors
    /// [`crate::Error::Level`].
    pub fn key_switch(params: &Params, level: usize) -> Result<Self> {
        params.check_level("key switching", level)?;
        let n = params.n() as f64;
        let (mut bound, mut variance) = (0.0, 0.0);
        for digit in 0..params.digits(level) {
            let group = params.digit(digit, level);
            let primes = group.len() as f64;
            let mut d = 1.0;
            for i in group {
                d *= prime(params, i)?;
            }
            bound += primes * d / 2.0;
            variance += primes * d * d / 12.0;
        }
        let p = special(params)?;
        Ok(Self::error(params)
            .times(n * bound / p, libm::sqrt(n * variance) / p)
            .plus(Self::mod_down(params)))
    }

    /// The error of a sum.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            bound: self.bound + other.bound,
            sigma: libm::hypot(self.sigma, other.sigma),
        }
    }

    /// Times a value of up to `bound` in magnitude and of the root mean square
    /// `sigma`.
    #[must_use]
    pub fn times(self, bound: f64, sigma: f64) -> Self {
        Self {
            bound: self.bound * bound,
            sigma: self.sigma * sigma,
        }
    }

    /// The error of a product whose factors are up to `a` and `b` in magnitude
    /// (times their scales) and carry `self` and `other`.
    #[must_use]
    pub fn product(self, a: f64, other: Self, b: f64) -> Self {
        self.times(b, b)
            .plus(other.times(a, a))
            .plus(self.times(other.bound, other.sigma))
    }
}

/// `P`.
fn special(params: &Params) -> Result<f64> {
    let mut p = 1.0;
    for i in params.special()..params.limbs() {
        p *= prime(params, i)?;
    }
    Ok(p)
}

fn prime(params: &Params, i: usize) -> Result<f64> {
    Ok(f64::from(params.prime(i)?.modulus().value()))
}

/// `1 + |s| + |s|^2 + ..` in a slot, `parts` terms, and the root mean square
/// of a sum of independent errors before them. A slot of `s` is a sum of `N`
/// terms of variance 2/3; that of its square has twice the square of it.
fn secret(params: &Params, parts: usize) -> Noise {
    let n = params.n() as f64;
    let variance = 2.0 * n / 3.0;
    let (third, square) = if parts == 3 {
        (n * n, 2.0 * variance * variance)
    } else {
        (0.0, 0.0)
    };
    Noise {
        bound: 1.0 + n + third,
        sigma: libm::sqrt(1.0 + variance + square),
    }
}
