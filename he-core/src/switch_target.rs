//! What a switching key is for: below the layers, because errors name it.

/// What a switching key switches from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchTarget {
    /// From `s^2`: relinearisation.
    Square,
    /// From `s(X^g)`: the automorphism `g`.
    Galois(u32),
}
