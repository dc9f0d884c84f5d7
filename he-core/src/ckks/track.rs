//! The noise and the message that a ciphertext carries.
//!
//! No other module asks whether anything is carried: without the feature `noise` a
//! [`Track`] has no size, and its updates are never run.

use super::noise::{Message, Noise};
use crate::params::Params;

/// Noise and message in the same unit: slots times the scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) noise: Noise,
    pub(crate) message: Message,
}

impl Known {
    pub(crate) const ZERO: Self = Self {
        noise: Noise::ZERO,
        message: Message::ZERO,
    };

    pub(crate) const UNKNOWN: Self = Self {
        noise: Noise::UNKNOWN,
        message: Message::UNKNOWN,
    };

    /// A message in units of the slots, at `scale`.
    pub(crate) fn at_scale(noise: Noise, message: Message, scale: f64) -> Self {
        Self {
            noise,
            message: message.times(scale, scale),
        }
    }

    /// Integer coefficients that an encoder rounded with the error `noise`.
    ///
    /// The mean square of the slots is the sum of the squares of the
    /// coefficients (Parseval), so all of it in one slot is `N / 2` times that;
    /// and no slot exceeds the sum of the magnitudes.
    pub(crate) fn encoded(
        params: &Params,
        coefficients: impl Iterator<Item = f64>,
        noise: impl FnOnce(f64) -> Noise,
    ) -> Self {
        let (sum, squares) = coefficients.fold((0.0, 0.0), |(sum, squares), c| {
            (sum + libm::fabs(c), squares + c * c)
        });
        let rms = libm::sqrt(squares);
        let largest = libm::fmin(sum, rms * libm::sqrt(0.5 * params.n() as f64));
        let noise = noise(largest);
        let bound = largest + noise.bound;
        Self {
            noise,
            message: Message { bound, rms },
        }
    }

    /// The sum with a ciphertext whose scale is taken for this one's: `off` is
    /// their relative difference.
    pub(crate) fn plus(self, other: Self, off: f64) -> Self {
        let mismatch = Noise {
            bound: off,
            sigma: off,
        }
        .times(other.message.bound, other.message.rms);
        Self {
            noise: self.noise.plus(other.noise).plus(mismatch),
            message: self.message.plus(other.message),
        }
    }

    /// The product of two whose errors do not depend on each other.
    pub(crate) fn product(self, other: Self) -> Self {
        Self {
            noise: self.noise.product(self.message, other.noise, other.message),
            message: self.message.product(other.message),
        }
    }

    /// Times an exact number of this magnitude.
    pub(crate) fn times(self, size: f64) -> Self {
        Self {
            noise: self.noise.times(size, size),
            message: self.message.times(size, size),
        }
    }

    /// The product with itself: the errors before either factor are the same.
    pub(crate) fn square(self) -> Self {
        let Message { bound, rms } = self.message;
        let once = self.noise.times(2.0 * bound, 2.0 * rms);
        Self {
            noise: once.plus(self.noise.times(self.noise.bound, self.noise.sigma)),
            message: self.message.square(),
        }
    }

    /// The sum of the images under these automorphisms. Different ones have
    /// different slots, whose errors are independent; the same one adds up.
    pub(crate) fn images(self, elements: impl Iterator<Item = u32> + Clone) -> Self {
        let (count, root) = sums(elements);
        Self {
            noise: self.noise.times(count, root),
            message: self.message.times(count, root),
        }
    }

    /// More noise.
    pub(crate) fn with(self, noise: Noise) -> Self {
        Self {
            noise: self.noise.plus(noise),
            ..self
        }
    }

    /// After a key switch at `level`; nothing is known where there is no such
    /// level.
    pub(crate) fn switched(self, params: &Params, level: usize) -> Self {
        self.with(Noise::key_switch(params, level).unwrap_or(Noise::UNKNOWN))
    }

    /// After key switches for all these automorphisms, of which the identity
    /// takes none, with one division by `P`.
    pub(crate) fn hoisted(
        self,
        params: &Params,
        level: usize,
        elements: impl Iterator<Item = u32> + Clone,
    ) -> Self {
        let (count, root) = sums(elements.filter(|&g| g != 1));
        if count == 0.0 {
            // P is all that is divided by P.
            return self;
        }
        let product = Noise::key_product(params, level).unwrap_or(Noise::UNKNOWN);
        self.with(product.times(count, root))
            .with(Noise::mod_down(params))
    }

    /// Two parts divided by the prime of `level` and rounded.
    pub(crate) fn rescaled(self, params: &Params, level: usize) -> Self {
        let Some(q) = prime(params, level) else {
            return Self::UNKNOWN;
        };
        let Self { noise, message } = self.within(params, level);
        Self {
            noise: noise.times(1.0 / q, 1.0 / q).plus(Noise::division(params)),
            message: message.times(1.0 / q, 1.0 / q),
        }
    }

    /// Where message and noise may wrap around the modulus of `level`, there is
    /// no bound once it is changed for another. No coefficient exceeds the
    /// largest slot.
    pub(crate) fn within(self, params: &Params, level: usize) -> Self {
        let modulus = (0..=level).try_fold(1.0, |q, i| Some(q * prime(params, i)?));
        let largest = self.message.bound + self.noise.bound;
        match modulus {
            Some(modulus) if largest < 0.5 * modulus => self,
            _ => Self {
                noise: Noise {
                    bound: f64::INFINITY,
                    ..self.noise
                },
                ..self
            },
        }
    }
}

/// By what a sum over these automorphisms multiplies a bound and a standard
/// deviation.
fn sums(elements: impl Iterator<Item = u32> + Clone) -> (f64, f64) {
    let equal = |g: u32| elements.clone().filter(|&other| other == g).count();
    let square: usize = elements.clone().map(equal).sum();
    (elements.count() as f64, libm::sqrt(square as f64))
}

fn prime(params: &Params, i: usize) -> Option<f64> {
    let prime = params.prime(i).ok()?;
    Some(f64::from(prime.modulus().value()))
}

/// What is carried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Track {
    #[cfg(feature = "noise")]
    known: Known,
}

impl Track {
    pub(crate) const ZERO: Self = Self::new(Known::ZERO);
    pub(crate) const UNKNOWN: Self = Self::new(Known::UNKNOWN);

    #[cfg(feature = "noise")]
    const fn new(known: Known) -> Self {
        Self { known }
    }

    #[cfg(not(feature = "noise"))]
    const fn new(_: Known) -> Self {
        Self {}
    }

    /// What `known` computes.
    #[inline]
    pub(crate) fn of(known: impl FnOnce() -> Known) -> Self {
        let mut track = Self::UNKNOWN;
        track.update(|_| known());
        track
    }

    /// Unknown where nothing is carried.
    #[cfg(feature = "noise")]
    pub(crate) const fn get(&self) -> Known {
        self.known
    }

    /// Unknown where nothing is carried.
    #[cfg(not(feature = "noise"))]
    #[inline]
    pub(crate) const fn get(&self) -> Known {
        Known::UNKNOWN
    }

    /// Brings it forward over an operation.
    #[inline]
    pub(crate) fn update(&mut self, f: impl FnOnce(Known) -> Known) {
        #[cfg(feature = "noise")]
        {
            self.known = f(self.known);
        }
        #[cfg(not(feature = "noise"))]
        let _ = f;
    }

    /// The same of a copy.
    #[inline]
    pub(crate) fn after(mut self, f: impl FnOnce(Known) -> Known) -> Self {
        self.update(f);
        self
    }
}

#[cfg(all(test, not(feature = "noise")))]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_carried_takes_no_memory_and_claims_nothing() {
        assert_eq!(size_of::<Track>(), 0);
        let track = Track::of(|| unreachable!("computed"));
        assert_eq!(track.get(), Known::UNKNOWN);
        assert_eq!(Track::ZERO.get(), Known::UNKNOWN);
    }
}

#[cfg(all(test, feature = "noise"))]
mod tests {
    use super::*;
    use crate::ckks::encode::encode;
    use crate::ckks::evaluator::*;
    use crate::ckks::{Ciphertext, Constant, Plaintext};
    use crate::testing::N64 as P;

    const N: usize = 64;
    const SCALE: f64 = (1u64 << 26) as f64;
    const TOP: usize = 4;
    const NOISE: Noise = Noise {
        bound: 100.0,
        sigma: 3.0,
    };
    const MESSAGE: Message = Message {
        bound: 0.5,
        rms: 0.25,
    };

    fn unknown(level: usize) -> Ciphertext<Vec<u32>> {
        let part = || vec![1; (TOP + 1) * N];
        Ciphertext::new(&P, level, SCALE, part(), part()).unwrap()
    }

    fn stated(level: usize) -> Ciphertext<Vec<u32>> {
        unknown(level).with_noise(NOISE, MESSAGE)
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs()
    }

    #[test]
    fn a_sum_with_itself_counts_every_time() {
        let one = stated(1);
        let mut sum = stated(1);
        for count in 2..=16 {
            add(&P, &mut sum, &one).unwrap();
            let n = f64::from(count);
            assert!(near(sum.noise().bound, n * NOISE.bound));
            assert!(near(sum.message().bound, n * MESSAGE.bound));
            // As for independent operands.
            assert!(near(sum.noise().sigma, n.sqrt() * NOISE.sigma));
        }
        // A difference with itself is no smaller.
        let mut difference = stated(1);
        sub(&P, &mut difference, &one).unwrap();
        assert!(near(difference.noise().bound, 2.0 * NOISE.bound));
        // The same image twice is known to be the same.
        let twice = one.track().get().images([5, 7, 5].into_iter());
        assert!(near(twice.noise.bound, 3.0 * NOISE.bound));
        assert!(near(twice.noise.sigma, 5f64.sqrt() * NOISE.sigma));
    }

    #[test]
    fn a_square_has_twice_the_error_of_its_root() {
        let (a, scaled) = (stated(1), MESSAGE.times(SCALE, SCALE));
        let square = square(&P, a, vec![0; 2 * N]).unwrap();
        let noise = square.noise();
        assert!(near(noise.bound, 2.0 * 100.0 * scaled.bound + 1e4));
        assert!((noise.sigma / (2.0 * 3.0 * scaled.rms) - 1.0).abs() < 1e-6);
        assert!(near(square.message().bound, 0.25));
    }

    #[test]
    fn of_unknown_origin_nothing_is_claimed() {
        assert_eq!(unknown(2).noise(), Noise::UNKNOWN);
        assert_eq!(unknown(2).message(), Message::UNKNOWN);
        let (none, nothing) = (Noise::UNKNOWN, Message::UNKNOWN);

        // Whatever it is joined with, from either side.
        let mut sum = stated(2);
        add(&P, &mut sum, &unknown(2)).unwrap();
        assert_eq!((sum.noise(), sum.message()), (none, nothing));
        let product = multiply(&P, stated(2), &unknown(2), vec![0; 3 * N]).unwrap();
        assert_eq!((product.noise(), product.message()), (none, nothing));
        let mut rescaled = unknown(2);
        rescale(&P, &mut rescaled, &mut [0; N]).unwrap();
        assert_eq!((rescaled.noise(), rescaled.message()), (none, nothing));
        let mut dropped = unknown(2);
        drop_level(&P, &mut dropped, 0).unwrap();
        assert_eq!(dropped.noise().bound, f64::INFINITY);

        // What was written by others.
        let mut written = stated(2);
        written.parts_mut()[0][0] = 2;
        assert_eq!((written.noise(), written.message()), (none, nothing));
        let mut written = stated(2);
        written.halves_mut().1[0] = 2;
        assert_eq!((written.noise(), written.message()), (none, nothing));

        // Zero is known, and so is a sum that begins with it.
        let zero = || vec![0; 3 * N];
        let mut sum = Ciphertext::zero(&P, 2, SCALE, zero(), zero()).unwrap();
        assert_eq!((sum.noise(), sum.message()), (Noise::ZERO, Message::ZERO));
        add(&P, &mut sum, &stated(2)).unwrap();
        assert_eq!((sum.noise(), sum.message()), (NOISE, MESSAGE));
        sum.reset(&P, 2, SCALE).unwrap();
        assert_eq!(sum.noise(), Noise::ZERO);
        // Zero times what is unknown is zero, not NaN.
        let mut product = unknown(2);
        multiply_constant(&P, &mut product, &Constant::real(0.0, 1.0).unwrap()).unwrap();
        assert_eq!(
            (product.noise(), product.message()),
            (Noise::ZERO, Message::ZERO)
        );
    }

    #[test]
    fn a_worst_case_that_may_wrap_around_has_no_bound() {
        let half = 0.5 * P.log_q(1).exp2() / SCALE;
        for (bound, fits) in [(0.99, true), (1.01, false)] {
            let large = Message {
                bound: bound * half,
                rms: 1.0,
            };
            let mut ct = unknown(1).with_noise(NOISE, large);
            rescale(&P, &mut ct, &mut [0; N]).unwrap();
            assert_eq!(ct.noise().bound.is_finite(), fits);
            assert!(ct.noise().sigma.is_finite());
            let mut ct = unknown(2).with_noise(NOISE, large);
            drop_level(&P, &mut ct, 1).unwrap();
            assert_eq!(ct.noise().bound.is_finite(), fits);
        }
    }

    /// Every switch of a hoisted sum adds the product with its key, the division by
    /// `P` comes once, and the identity needs neither.
    #[test]
    fn a_hoisted_sum_counts_every_switch() {
        let one = stated(2).track().get();
        let product = Noise::key_product(&P, 2).unwrap();
        let division = Noise::mod_down(&P);
        for (elements, switches, root) in [
            (vec![1], 0.0, 0.0f64),
            (vec![5], 1.0, 1.0),
            (vec![1, 5, 25], 2.0, 2.0),
            (vec![5, 25, 125, 1, 5], 4.0, 6.0),
        ] {
            let sum = one.hoisted(&P, 2, elements.into_iter()).noise;
            let once = f64::from(u8::from(switches > 0.0));
            let bound = NOISE.bound + switches * product.bound + once * division.bound;
            assert!(near(sum.bound, bound), "{switches}: {} {bound}", sum.bound);
            let variance = root * product.sigma.powi(2) + once * division.sigma.powi(2);
            assert!(near(sum.sigma, variance.sqrt().hypot(NOISE.sigma)));
        }
    }

    /// The same through the operation, of which the weights are ones.
    #[test]
    fn a_hoisted_operation_carries_the_noise_of_every_switch() {
        use crate::ring::automorphism::rotation;
        use crate::rlwe::{KeySet, SecretKey, SwitchKey, SwitchTarget};
        use rand_core::SeedableRng;
        let mut rng = chacha20::ChaCha20Rng::from_seed([3; 32]);
        let words = SecretKey::<Vec<u32>>::words(&P);
        let secret = SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        let steps = [1, 2, 3, 4];
        let keys = steps.map(|steps| {
            let storage = vec![0; crate::rlwe::keys::switching_key_words(&P, 2)];
            let target = SwitchTarget::Galois(rotation(N, steps));
            let mut errors = [0; N];
            SwitchKey::generate(&P, &secret, target, 2, &mut rng, &mut errors, storage).unwrap()
        });
        let ct = stated(2);
        let mut memory = vec![0; hoisting_words(&P, 2)];
        let mut hoisted = Hoisted::new(&P, &ct, &mut memory).unwrap();
        let limbs = || vec![0; 3 * N];
        let mut out = Ciphertext::zero(&P, 2, SCALE, limbs(), limbs()).unwrap();
        let product = Noise::key_product(&P, 2).unwrap();
        let division = Noise::mod_down(&P);
        let expected = 4.0 * (NOISE.bound + product.bound) + division.bound;
        let keys = KeySet::new(&keys);
        hoisted.sum(&P, &steps, keys, &mut out).unwrap();
        assert!(
            near(out.noise().bound, expected),
            "{} {expected}",
            out.noise().bound
        );

        let one = (1u64 << 26) as f64;
        let (mut buffer, mut coefficients) = ([0.0; N], [0; N]);
        encode(&[1.0; N / 2], one, &mut buffer, &mut coefficients, |x| {
            x as i32
        })
        .unwrap();
        let weights = steps.map(|_| {
            let storage = vec![0; Weight::<Vec<u32>>::words(&P, 2)];
            let weight = Weight::new(&P, &coefficients, 2, one, storage).unwrap();
            weight.with_noise(Noise::ZERO, Message::within(1.0))
        });
        hoisted
            .weighted_sum(&P, &steps, &weights, keys, &mut out)
            .unwrap();
        let expected = 4.0 * one * (NOISE.bound + product.bound) + division.bound;
        assert!(
            near(out.noise().bound, expected),
            "{} {expected}",
            out.noise().bound
        );
    }

    /// Of a message that may wrap around nothing is claimed once it is decrypted.
    #[test]
    fn a_decryption_that_may_have_wrapped_around_has_no_bound() {
        use rand_core::SeedableRng;
        let mut rng = chacha20::ChaCha20Rng::from_seed([3; 32]);
        let words = crate::rlwe::SecretKey::<Vec<u32>>::words(&P);
        let key = crate::rlwe::SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        let half = 0.5 * P.log_q(1).exp2() / SCALE;
        for (share, fits) in [(0.99, true), (1.01, false)] {
            let ct = unknown(1).with_noise(NOISE, Message::within(share * half));
            let (mut scratch, mut slots) = ([0; 2 * N], [0.0; N]);
            let result =
                crate::ckks::decrypt(&P, &key, &ct, 1, SCALE, &mut scratch, &mut slots).unwrap();
            assert_eq!(result.noise().bound.is_finite(), fits);
        }
    }

    #[test]
    fn a_plaintext_is_bounded_by_its_coefficients() {
        let values: Vec<f64> = (0..N / 2).map(|i| (i as f64 * 0.7).sin()).collect();
        let peak = {
            let mut one = vec![0.0; N / 2];
            one[3] = 4.0;
            one
        };
        for values in [values, peak] {
            let (mut buffer, mut c) = ([0.0; N], [0; N]);
            encode(&values, SCALE, &mut buffer, &mut c, |x| x as i32).unwrap();
            let plain = Plaintext::new(&P, &c, 1, SCALE, vec![0; 2 * N]).unwrap();
            let Known { noise, message } = plain.track().get();
            let largest = values.iter().fold(0.0f64, |max, x| max.max(x.abs()));
            let squares: f64 = values.iter().map(|x| x * x).sum();
            assert_eq!(noise, Noise::rounding(&P));
            assert!(message.bound >= largest * SCALE);
            assert!(message.bound <= 1.001 * (squares.sqrt() * SCALE + noise.bound));
            let rms = (squares / (N / 2) as f64).sqrt();
            assert!((message.rms / (rms * SCALE) - 1.0).abs() < 1e-3);
            // A statement takes its place.
            let plain = plain.with_noise(NOISE, Message::within(1.0));
            assert_eq!(plain.track().get().message.bound, SCALE);
        }
    }

    #[test]
    fn a_scale_taken_for_another_is_an_error() {
        let off = 1.0 + 5e-10;
        let part = || vec![1; 2 * N];
        let other = Ciphertext::new(&P, 1, SCALE * off, part(), part()).unwrap();
        let other = other.with_noise(Noise::ZERO, MESSAGE);
        let mut sum = stated(1);
        add(&P, &mut sum, &other).unwrap();
        let mismatch = sum.noise().bound - NOISE.bound;
        assert!((mismatch / (5e-10 * MESSAGE.bound * SCALE) - 1.0).abs() < 1e-3);
    }
}
