//! Bounds of the error that a computation carries along.
//!
//! With the feature `noise` every ciphertext carries a [`Noise`] and a [`Message`],
//! and every operation computes those of its result (`track.rs`). They describe the
//! computation that was made here. A ciphertext that came from elsewhere has none
//! until [`super::Ciphertext::with_noise`] states them.
//!
//! Errors are counted in slots before division by the scale: `N` coefficients
//! of magnitude `e` give at most `N e` in a slot, and about `sqrt(N) e` if they
//! are independent. A polynomial whose coefficients are bounded is bounded in
//! every slot, and slots multiply one by one, so bounds need no expansion
//! factor (Cheon, Kim, Kim, Song 2017, section 3.4; Costache, Curtis, Hales,
//! Murphy, Ogilvie, Player, ePrint 2022/162).
//!
//! # What a bound relies on
//!
//! On one event alone: no slot of what honest parties drew is larger than it is but
//! with a probability of [`FAILURE`]. That is the secret, the errors of the keys and of
//! the encryptions and the ternary polynomials of public-key encryption, `POLYNOMIALS`
//! of them in all the life of a key. All else is taken at its worst: how a circuit
//! depends on ciphertexts and keys, the digits of a key switch, the remainders of a
//! division. So a bound holds for circuits that are chosen by whoever sees the keys and
//! the ciphertexts, for correlated inputs (Guo, Nabokov, Suvanto, Johansson, Usenix
//! Security 2024) and for ciphertexts that are used again and again: where the event holds,
//! every step is an inequality between magnitudes.
//!
//! The probability of the event: at a slot `zeta` a polynomial with independent
//! coefficients `e_j` has in the direction `t` the part
//! `x = sum e_j cos(j phi - t)`, where `sum cos^2 = N / 2` as `zeta^2` is a root of unity
//! other than one. The coefficients are strictly sub-Gaussian,
//! `E exp(a e_j) <= exp(v a^2 / 2)` with `v` their variance: a difference of coins
//! as `cosh a <= exp(a^2 / 2)`, a ternary one term by term of both series. So
//! `P(x > r) <= exp(-r^2 / (v N))`. A magnitude is at most the largest of the parts in
//! `DIRECTIONS` directions, over the cosine of half the angle between two. The
//! sum of these probabilities over directions, slots and polynomials is [`FAILURE`] for
//! `r^2 = v N ln 2 (64 + 30 + 4 + log2(N / 2))`: nine standard deviations, where all
//! coefficients at their largest are `42 sqrt(N / 4096)` of an error and
//! `79 sqrt(N / 4096)` of the secret.

use core::f64::consts::LN_2;

use crate::error::Result;
use crate::params::Params;
use crate::ring::sample::{ERROR_COINS, ERROR_VARIANCE};

/// As log2, the probability that a bound does not hold, over honest keys and coins.
pub const FAILURE: i32 = -64;

/// As log2, polynomials that are drawn under one key: errors of keys and encryptions.
const POLYNOMIALS: i32 = 30;

/// As log2, directions in the complex plane.
const DIRECTIONS: i32 = 4;

/// `cos(pi / 16)`.
const COSINE: f64 = 0.980_785_280_403_230_4;

/// Variance of a coefficient that is -1, 0 or 1.
const TERNARY_VARIANCE: f64 = 2.0 / 3.0;

/// An error in a slot: what it does not exceed, but with a probability of 2^-64 over
/// honest keys and coins, however the operands depend on each other (see the module), and
/// its standard deviation for independent operands.
///
/// The error of arithmetic in floating point by encoding and decoding comes on
/// top, about 2^-50 of the magnitude in double precision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// Largest magnitude of the complex error, in any slot of any ciphertext of a
    /// computation: the probability of 2^-64 is of all of them together. A sum of a
    /// ciphertext with itself `n` times has `n` times the bound.
    pub bound: f64,
    /// Standard deviation of the complex error, the root of the mean square of
    /// its magnitude: real parts alone have `1 / sqrt(2)` of it. An estimate for
    /// operands with independent errors and independent values: a sum of a
    /// ciphertext with itself `n` times has `n`, not the `sqrt(n)` counted here.
    pub sigma: f64,
}

/// What is said of the values in the slots: of the exact ones, without noise. It
/// is public, a statement of whoever encrypts about the range of his inputs, and
/// never computed from what is secret. (Of plaintexts it is computed from their
/// coefficients, which are the evaluator's.)
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Message {
    /// Largest magnitude of a slot. Bounds of noise rely on it.
    pub bound: f64,
    /// Root mean square of the slots. Estimates of noise rely on it.
    pub rms: f64,
}

impl Message {
    /// Zero in every slot.
    pub const ZERO: Self = Self {
        bound: 0.0,
        rms: 0.0,
    };

    /// Values of which nothing is said.
    pub const UNKNOWN: Self = Self {
        bound: f64::INFINITY,
        rms: f64::INFINITY,
    };

    /// Values up to `bound` in magnitude, all of them that large on average.
    #[must_use]
    pub const fn within(bound: f64) -> Self {
        Self { bound, rms: bound }
    }

    /// The sum of two: the bounds add, and mean squares do as for values of
    /// independent sign.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let bound = self.bound + other.bound;
        Self {
            bound,
            rms: libm::hypot(self.rms, other.rms).min(bound),
        }
    }

    /// The product of two, slot by slot, of independent values.
    #[must_use]
    pub fn product(self, other: Self) -> Self {
        self.times(other.bound, other.rms)
    }

    /// The square: the mean of fourth powers is that of Gaussian values, or what
    /// the bound leaves of it.
    #[must_use]
    pub fn square(self) -> Self {
        self.times(
            self.bound,
            self.bound.min(core::f64::consts::SQRT_2 * self.rms),
        )
    }

    /// Times a value of up to `bound` in magnitude and of the root mean square
    /// `rms`.
    #[must_use]
    pub fn times(self, bound: f64, rms: f64) -> Self {
        Self {
            bound: multiply(self.bound, bound),
            rms: multiply(self.rms, rms),
        }
    }
}

/// The product of two magnitudes, of which one may be infinite, that is unknown:
/// zero times that is zero. Not inlined: a plan, which a device computes too, has
/// many of them.
#[inline(never)]
fn multiply(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

impl Noise {
    /// No error.
    pub const ZERO: Self = Self {
        bound: 0.0,
        sigma: 0.0,
    };

    /// An error of which nothing is said.
    pub const UNKNOWN: Self = Self {
        bound: f64::INFINITY,
        sigma: f64::INFINITY,
    };

    /// A fresh encryption under the secret key, resident or compact: its error,
    /// and the rounding of the encoding in double precision.
    #[must_use]
    pub fn fresh(params: &Params) -> Self {
        Self::error(params).plus(Self::rounding(params))
    }

    /// The same under the public key.
    ///
    /// # Errors
    /// As [`Self::public_key`].
    pub fn fresh_public(params: &Params) -> Result<Self> {
        Ok(Self::public_key(params)?.plus(Self::rounding(params)))
    }

    /// Rounding coefficients to integers: by 1/2 at most.
    #[must_use]
    pub fn rounding(params: &Params) -> Self {
        let n = params.n() as f64;
        Self {
            bound: n / 2.0,
            sigma: libm::sqrt(n / 12.0),
        }
    }

    /// Rounding coefficients that were computed in single precision, for values of
    /// up to `magnitude` times their scale: one more unit, or 2^-18 of the
    /// magnitude (at most sixteen stages of four roundings to 24 bits).
    #[must_use]
    pub fn rounding_f32(params: &Params, magnitude: f64) -> Self {
        let unit = libm::fmax(1.0, libm::ldexp(magnitude, -18));
        Self::rounding(params).plus(Self {
            bound: params.n() as f64 * unit,
            sigma: 0.0,
        })
    }

    /// One polynomial of errors: what secret-key encryption adds.
    #[must_use]
    pub fn error(params: &Params) -> Self {
        drawn(params, ERROR_VARIANCE, f64::from(ERROR_COINS))
    }

    /// What public-key encryption adds: the errors of the key and of the
    /// encryption divided by `P`, and the rounding of that.
    ///
    /// # Errors
    /// None; the type is that of the parameter lookup.
    pub fn public_key(params: &Params) -> Result<Self> {
        let e = Self::error(params);
        let ternary = secret(params);
        let u = drawn(params, TERNARY_VARIANCE, 1.0);
        let of_the_key = e.times(u.bound, u.sigma);
        let p = 1.0 / special(params)?;
        Ok(of_the_key
            .plus(e.times(ternary.bound, ternary.sigma))
            .times(p, p)
            .plus(Self::mod_down(params)))
    }

    /// Dividing a ciphertext of two parts by a prime, as rescaling does: both are
    /// rounded, and the second stands before the secret.
    #[must_use]
    pub fn division(params: &Params) -> Self {
        let s = secret(params);
        Self::rounding(params).times(s.bound, s.sigma)
    }

    /// Dividing a ciphertext of two parts by `P`, which ends a key switch, or
    /// several whose sum is wanted: as by a prime, once for each special prime, as
    /// the remainder is carried over with a multiple of `P` up to half their number
    /// ([`crate::rlwe::gadget`]).
    #[must_use]
    pub fn mod_down(params: &Params) -> Self {
        let primes = params.special_limbs() as f64;
        Self::division(params).times(primes, libm::sqrt(primes))
    }

    /// A key switch at `level`: digits times the key's errors, divided by `P`, and
    /// the rounding of that.
    ///
    /// # Errors
    /// [`crate::Error::Level`].
    pub fn key_switch(params: &Params, level: usize) -> Result<Self> {
        Ok(Self::key_product(params, level)?.plus(Self::mod_down(params)))
    }

    /// What the product with the key adds in a key switch at `level`, as it is
    /// after the division by `P`: digits times the key's errors. A digit of the
    /// primes whose product is `D` is a sum of one value up to `D / 2` for each of
    /// them.
    ///
    /// # Errors
    /// [`crate::Error::Level`].
    pub fn key_product(params: &Params, level: usize) -> Result<Self> {
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
        Ok(Self::error(params).times(n * bound / p, libm::sqrt(n * variance) / p))
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
            bound: multiply(self.bound, bound),
            sigma: multiply(self.sigma, sigma),
        }
    }

    /// The error of a product of `a` and `b` (times their scales), which carry
    /// `self` and `other`.
    #[must_use]
    pub fn product(self, a: Message, other: Self, b: Message) -> Self {
        self.times(b.bound, b.rms)
            .plus(other.times(a.bound, a.rms))
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

/// A slot of a polynomial of independent coefficients of this variance, none above
/// `largest`: see the module. Where `N` is small all of them at their largest are less.
fn drawn(params: &Params, variance: f64, largest: f64) -> Noise {
    let n = params.n() as f64;
    let slots = f64::from(params.n().trailing_zeros()) - 1.0;
    let bits = slots + f64::from(POLYNOMIALS + DIRECTIONS - FAILURE);
    let sigma = libm::sqrt(n * variance);
    let tail = sigma * libm::sqrt(LN_2 * bits) / COSINE;
    Noise {
        bound: libm::fmin(n * largest, tail),
        sigma,
    }
}

/// `1 + |s|` in a slot, and the root mean square of a sum of independent errors
/// before both.
fn secret(params: &Params) -> Noise {
    let s = drawn(params, TERNARY_VARIANCE, 1.0);
    Noise {
        bound: 1.0 + s.bound,
        sigma: libm::hypot(1.0, s.sigma),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{N64, N64_PAIRS};

    fn check(noise: Noise, bound: f64, sigma: f64) {
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
        assert!(near(noise.bound, bound), "{} {bound}", noise.bound);
        assert!(near(noise.sigma, sigma), "{} {sigma}", noise.sigma);
    }

    /// What no slot of 64 coefficients of this variance exceeds, by hand: in each of 16
    /// directions, at each of 32 slots of each of 2^30 polynomials.
    fn tail(variance: f64) -> f64 {
        let bits = f64::from(64 + 4 + 5 + 30);
        (64.0 * variance * bits * 2f64.ln()).sqrt() / (core::f64::consts::PI / 16.0).cos()
    }

    /// 64 coefficients rounded by 1/2, before 1 and before the secret; the
    /// remainder of two primes is carried over with twice the error.
    #[test]
    fn a_division_rounds_once_for_each_special_prime() {
        let secret = tail(2.0 / 3.0);
        assert!(secret < 57.0);
        let bound = 32.0 * (1.0 + secret);
        let sigma = (64.0 / 12.0 * (1.0 + 128.0 / 3.0f64)).sqrt();
        check(Noise::division(&N64), bound, sigma);
        check(Noise::mod_down(&N64), bound, sigma);
        check(
            Noise::mod_down(&N64_PAIRS),
            2.0 * bound,
            2f64.sqrt() * sigma,
        );
    }

    /// The sum over the digits by hand: a digit of two primes is as large as their
    /// product, and twice that.
    #[test]
    fn a_key_product_counts_digits_by_the_product_of_their_primes() {
        let q = |i: usize| f64::from(N64_PAIRS.prime(i).unwrap().modulus().value());
        let (error, p) = (tail(10.5), q(5) * q(6));
        for level in 0..=4 {
            let digits: &[(f64, f64)] = &match level {
                0 => vec![(1.0, q(0))],
                1 => vec![(2.0, q(0) * q(1))],
                2 => vec![(2.0, q(0) * q(1)), (1.0, q(2))],
                3 => vec![(2.0, q(0) * q(1)), (2.0, q(2) * q(3))],
                _ => vec![(2.0, q(0) * q(1)), (2.0, q(2) * q(3)), (1.0, q(4))],
            };
            let bound: f64 = digits.iter().map(|(count, d)| count * d / 2.0).sum();
            let variance: f64 = digits.iter().map(|(count, d)| count * d * d / 12.0).sum();
            let sigma = (64.0 * 10.5f64).sqrt() * (64.0 * variance).sqrt();
            let product = Noise::key_product(&N64_PAIRS, level).unwrap();
            check(product, error * 64.0 * bound / p, sigma / p);
        }
        assert!(Noise::key_product(&N64_PAIRS, 5).is_err());
    }

    /// Where few coefficients are summed up, all of them at their largest are less.
    #[test]
    fn a_bound_is_never_above_what_is_possible() {
        use crate::testing::N16;
        assert_eq!(drawn(&N16, TERNARY_VARIANCE, 1.0).bound, 16.0);
        check(
            drawn(&N64, TERNARY_VARIANCE, 1.0),
            tail(2.0 / 3.0),
            (128.0 / 3.0f64).sqrt(),
        );
    }

    /// In single precision a coefficient may be off by one more, or by `2^-18` of its
    /// magnitude where that is more.
    #[test]
    fn single_precision_rounds_by_a_share_of_the_magnitude() {
        let plain = (64.0 / 12.0f64).sqrt();
        for (magnitude, unit) in [(1.0, 1.0), (262_144.0, 1.0), (1_048_576.0, 4.0)] {
            let rounded = Noise::rounding_f32(&N64, magnitude);
            check(rounded, 32.0 + 64.0 * unit, plain);
        }
    }

    /// Of complex Gaussian values the mean of fourth powers is twice the squared mean of
    /// squares, and none is above the square of the largest.
    #[test]
    fn a_square_has_the_mean_of_fourth_powers() {
        let of = |bound, rms| Message { bound, rms }.square();
        let square = of(10.0, 2.0);
        assert_eq!(square.bound, 100.0);
        assert!((square.rms - 32f64.sqrt()).abs() < 1e-12, "{square:?}");
        assert_eq!(of(2.0, 2.0), Message::within(4.0));
    }

    /// `E exp(a x) <= exp(v a^2 / 2)` for what the samplers draw, from their
    /// distributions: the one property of them that bounds rely on.
    #[test]
    fn coefficients_are_strictly_sub_gaussian() {
        for step in 1..4000 {
            let a = f64::from(step) * 0.005;
            // Of coins in pairs, as logarithms: 42 halves of either sign.
            let coins = f64::from(2 * ERROR_COINS) * (0.5 * a).cosh().ln();
            assert!(coins <= 0.5 * ERROR_VARIANCE * a * a, "{a}");
            let ternary = ((1.0 + 2.0 * a.cosh()) / 3.0).ln();
            assert!(
                ternary <= 0.5 * TERNARY_VARIANCE * a * a * (1.0 + 1e-12),
                "{a}"
            );
        }
    }

    /// The root of the mean square of slots over directions is `v N / 2`, for every slot:
    /// nothing else of where a slot lies is in the tail.
    #[test]
    fn every_direction_of_a_slot_has_half_of_the_variance() {
        for slot in 0..32 {
            let phi = core::f64::consts::PI * f64::from(2 * slot + 1) / 64.0;
            for direction in 0..16 {
                let t = core::f64::consts::PI * f64::from(direction) / 8.0;
                let squares: f64 = (0..64)
                    .map(|j| (f64::from(j) * phi - t).cos().powi(2))
                    .sum();
                assert!(
                    (squares - 32.0).abs() < 1e-9,
                    "{slot} {direction}: {squares}"
                );
            }
        }
    }
}
