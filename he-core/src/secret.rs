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

/// The index of the first negative word, if there is one, which is declassified:
/// the time of finding it does not depend on where it is.
pub(crate) fn first_negative(words: impl Iterator<Item = i32> + Clone) -> Option<usize> {
    let any = words.clone().fold(0, |any, word| any | word);
    if declassify(any < 0) {
        position_of_negative(words)
    } else {
        None
    }
}

/// The same in less code, for where there probably is one.
#[cold]
#[inline(never)]
pub(crate) fn position_of_negative(words: impl Iterator<Item = i32>) -> Option<usize> {
    let (mut seen, mut before) = (0, 0);
    for word in words {
        seen |= word;
        before += usize::from(seen >= 0);
    }
    declassify(seen < 0).then_some(before)
}
