//! What a ciphertext carries of its noise and its message, and the only place
//! that knows whether anything is carried at all: without the feature `noise` a
//! [`Track`] has no size and its updates are never run.

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

    /// Divided by the prime of `level` and rounded, in `parts` parts.
    pub(crate) fn rescaled(self, params: &Params, level: usize, parts: usize) -> Self {
        let Some(q) = prime(params, level) else {
            return Self::UNKNOWN;
        };
        let Self { noise, message } = self.within(params, level);
        Self {
            noise: noise
                .times(1.0 / q, 1.0 / q)
                .plus(Noise::division(params, parts)),
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
