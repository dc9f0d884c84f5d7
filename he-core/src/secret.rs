//! Memory that held a secret, and what of a secret may decide a branch.

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

/// A bit about secrets that decides a branch: an operation that refuses secret
/// input shows that it did. Every such place calls this and says why; the
/// checker of [`crate::taint`] is told of no other.
#[inline(always)]
pub(crate) fn declassify(bit: bool) -> bool {
    // What the bit is made of must not be looked at one by one until it is known.
    let bit = core::hint::black_box(u8::from(bit));
    #[cfg(feature = "taint")]
    let bit = crate::taint::published(bit);
    bit != 0
}

/// The index of the first negative word, if one is, which is declassified.
pub(crate) fn first_negative(words: impl Iterator<Item = i32> + Clone) -> Option<usize> {
    let any = words.clone().fold(0, |any, word| any | word);
    if declassify(any < 0) {
        position_of_negative(words)
    } else {
        None
    }
}

/// The same where there probably is one. What is learnt of every word before the
/// result is that it is not the result.
#[cold]
#[inline(never)]
pub(crate) fn position_of_negative(mut words: impl Iterator<Item = i32>) -> Option<usize> {
    words.position(|word| declassify(word < 0))
}
