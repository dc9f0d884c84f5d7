//! The memory of a key switch.

use crate::error::{Error, Result};
use crate::params::Params;

/// Words of memory that a key switch at `level` works in; `usize::MAX` for a level
/// that the set does not have.
#[must_use]
pub const fn workspace_words(params: &Params, level: usize) -> usize {
    if level > params.max_level() {
        return usize::MAX;
    }
    if params.special_limbs() > 1 {
        return fast_workspace_words(params, level);
    }
    // Mod-down needs the two accumulators and a limb.
    let source = if level == 0 { 2 } else { level + 1 };
    (source + 1) * params.n()
}

/// Words with which a switch by a key in memory is faster, with the same result, if the key
/// keeps its uniform half ([`crate::rlwe::SwitchKey::expanded`]), and on x86-64 by any key:
/// all digits modulo one prime are multiplied in one pass. With several special primes there
/// is no other way, and these are [`workspace_words`].
#[must_use]
pub const fn fast_workspace_words(params: &Params, level: usize) -> usize {
    if level > params.max_level() {
        return usize::MAX;
    }
    workspace_limbs(params, level) * params.n()
}

/// The memory of a key switch: the polynomial that is switched and one limb; with
/// several special primes, its digits modulo one prime and the accumulators
/// modulo the special ones too.
#[derive(Debug)]
pub struct Workspace<'a> {
    pub(super) spare: &'a mut [u32],
    pub(super) source: &'a mut [u32],
}

impl<'a> Workspace<'a> {
    /// Divides `words` up; they may be more than needed, see
    /// [`fast_workspace_words`].
    ///
    /// # Errors
    /// [`Error::Length`] if there are fewer than [`workspace_words`]; [`Error::Level`].
    pub fn new(params: &Params, level: usize, words: &'a mut [u32]) -> Result<Self> {
        params.check_level("key switching", level)?;
        let expected = workspace_words(params, level);
        let got = words.len();
        let parts = words.split_at_mut_checked(params.n());
        match parts {
            Some((spare, source)) if got >= expected => Ok(Self { spare, source }),
            _ => Err(Error::Length {
                what: "key-switching workspace",
                expected,
                got,
            }),
        }
    }

    /// Checks that there is room for a key switch at `level`.
    pub(crate) fn check_level(&self, params: &Params, level: usize) -> Result<()> {
        let (expected, n) = (workspace_words(params, level), params.n());
        let got = n + self.source.len();
        if got >= expected && self.spare.len() == n {
            Ok(())
        } else {
            Err(Error::Length {
                what: "key-switching workspace",
                expected,
                got,
            })
        }
    }

    /// Whether there are [`fast_workspace_words`].
    pub(crate) const fn is_fast(&self, params: &Params, level: usize) -> bool {
        self.spare.len() + self.source.len() >= fast_workspace_words(params, level)
    }

    /// Limb `i` of the polynomial that is switched, and the spare limb.
    ///
    /// # Errors
    /// [`Error::Level`] if the workspace is for a lower level.
    pub fn source_and_spare(&mut self, i: usize) -> Result<(&mut [u32], &mut [u32])> {
        let n = self.spare.len();
        Ok((limb(self.source, n, i)?, self.spare))
    }
}

/// Limbs that a key switch at `level` works in: the polynomial, its digits modulo
/// one prime, both accumulators modulo the special primes, and one.
pub(super) const fn workspace_limbs(params: &Params, level: usize) -> usize {
    (level + 1) + params.digits(level) + 2 * params.special_limbs() + 1
}

/// Limb `i` of `words`.
pub(super) fn limb(words: &mut [u32], n: usize, i: usize) -> Result<&mut [u32]> {
    let expected = words.len() >> n.trailing_zeros();
    words.get_mut(i * n..(i + 1) * n).ok_or(Error::Level {
        operation: "limb",
        expected,
        got: i,
    })
}

#[cfg(test)]
mod tests {
    use super::super::KeySwitch;
    use super::*;
    use crate::params::N4096_DEPTH3 as P;
    use crate::testing::N64_PAIRS as G;

    #[test]
    fn grouped_sets_have_no_stream_and_their_own_memory() {
        let refused = Err(Error::Streamed { special: 2 });
        assert_eq!(KeySwitch::new(&G, 1).map(|_| ()), refused);
        for level in 0..=G.max_level() {
            // The polynomial, 1 to 3 digits, two times two accumulators, a limb.
            let digits = [1, 1, 2, 2, 3][level];
            let expected = (level + 1 + digits + 4 + 1) * G.n();
            assert_eq!(workspace_words(&G, level), expected, "level {level}");
            assert_eq!(fast_workspace_words(&G, level), expected);
            let mut words = vec![0; expected];
            assert!(Workspace::new(&G, level, &mut words).is_ok());
            assert_eq!(
                Workspace::new(&G, level, &mut words[1..]).map(|_| ()),
                Err(Error::Length {
                    what: "key-switching workspace",
                    expected,
                    got: expected - 1
                })
            );
            // A workspace of a lower level is found too small by the switch.
            if level > 0 {
                let mut words = vec![0; workspace_words(&G, level - 1)];
                let work = Workspace::new(&G, level - 1, &mut words).unwrap();
                assert!(work.check_level(&G, level).is_err());
            }
        }
        // One prime per digit: more is faster, less is enough.
        let (fast, enough) = (fast_workspace_words(&P, 3), workspace_words(&P, 3));
        assert!(fast > enough);
        for (words, is_fast) in [(enough, false), (fast - 1, false), (fast, true)] {
            let mut words = vec![0; words];
            let work = Workspace::new(&P, 3, &mut words).unwrap();
            assert_eq!(work.is_fast(&P, 3), is_fast);
        }
    }

    #[test]
    fn a_limb_that_is_not_there_is_refused_with_how_many_there_are() {
        let n = P.n();
        let mut words = vec![0; workspace_words(&P, 1)];
        let limbs = words.len() / n - 1;
        let mut work = Workspace::new(&P, 1, &mut words).unwrap();
        assert!(work.source_and_spare(limbs - 1).is_ok());
        assert_eq!(
            work.source_and_spare(limbs).map(|_| ()),
            Err(Error::Level {
                operation: "limb",
                expected: limbs,
                got: limbs
            })
        );
    }
}
