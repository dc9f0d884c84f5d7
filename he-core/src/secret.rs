//! Memory that held a secret.

use zeroize::{DefaultIsZeroes, Zeroize};

/// A caller's scratch that is erased when this goes out of scope, on every
/// path.
pub(crate) struct Erased<'a, T: DefaultIsZeroes>(pub(crate) &'a mut [T]);

impl<'a, T: DefaultIsZeroes> Erased<'a, T> {
    /// Takes the scratch over.
    pub(crate) const fn new(scratch: &'a mut [T]) -> Self {
        Self(scratch)
    }
}

impl<T: DefaultIsZeroes> Drop for Erased<'_, T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
