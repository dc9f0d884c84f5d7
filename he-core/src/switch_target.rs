//! What a switching key is for: below the layers, because errors name it.

use crate::ring::sample::Domain;

/// What a switching key switches from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchTarget {
    /// From `s^2`: relinearisation.
    Square,
    /// From `s(X^g)`: the automorphism `g`.
    Galois(u32),
}

impl SwitchTarget {
    /// The Galois element, 0 for relinearisation.
    #[must_use]
    pub const fn element(self) -> u32 {
        match self {
            Self::Square => 0,
            Self::Galois(element) => element,
        }
    }

    /// The domain of the uniform halves of its keys.
    #[must_use]
    pub const fn domain(self) -> Domain {
        Domain::SwitchingKey(self.element())
    }
}
