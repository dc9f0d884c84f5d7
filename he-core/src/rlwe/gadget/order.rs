//! The order of the limbs of a switching key.

use crate::params::Params;

/// One limb of a switching key, both halves: digit `digit` modulo the prime
/// `target` (a data prime or a special one). The order of these limbs is
/// that of the stream; with several special primes, where there is no stream,
/// all digits modulo the first prime of [`Params::targets`], then all modulo the
/// next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLimb {
    /// Index of the prime.
    pub target: usize,
    /// Index of the digit.
    pub digit: usize,
}

impl KeyLimb {
    /// The first limb of every key.
    pub const FIRST: Self = Self {
        target: 0,
        digit: 0,
    };

    /// Whether the digit is that of the target's own prime, in a stream.
    pub(crate) const fn is_own(self) -> bool {
        self.target == self.digit
    }

    /// Whether a key for `level` has this limb.
    const fn exists(self, params: &Params, level: usize) -> bool {
        let Self { target, digit } = self;
        level <= params.max_level()
            && (target <= level || (target >= params.special() && target < params.limbs()))
            && digit < params.digits(level)
    }

    /// The limb after this one in a key for `level`; `None` after the last, and for a
    /// limb that such a key does not have.
    #[must_use]
    pub const fn next(self, params: &Params, level: usize) -> Option<Self> {
        if !self.exists(params, level) {
            return None;
        }
        if params.special_limbs() == 1 {
            return self.next_streamed(params, level);
        }
        let Self { target, digit } = self;
        if digit + 1 < params.digits(level) {
            return Some(Self {
                target,
                digit: digit + 1,
            });
        }
        let target = if target == level {
            params.special()
        } else {
            target + 1
        };
        if target < params.limbs() {
            Some(Self { target, digit: 0 })
        } else {
            None
        }
    }

    pub(super) const fn next_streamed(self, params: &Params, level: usize) -> Option<Self> {
        let Self { target, digit } = self;
        let special = params.special();
        let (target, digit) = if target == digit {
            if digit < level {
                (digit + 1, digit + 1)
            } else if level > 0 {
                (1, 0)
            } else {
                (special, 0)
            }
        } else if target == special {
            if digit == level {
                return None;
            }
            (special, digit + 1)
        } else {
            let other = if target + 1 == digit {
                target + 2
            } else {
                target + 1
            };
            if other <= level {
                (other, digit)
            } else if digit < level {
                (0, digit + 1)
            } else {
                (special, 0)
            }
        };
        Some(Self { target, digit })
    }

    /// How many limbs come before this one in a key for `level`; `None` for a limb
    /// that such a key does not have.
    #[must_use]
    pub const fn index(self, params: &Params, level: usize) -> Option<usize> {
        if !self.exists(params, level) {
            return None;
        }
        let Self { target, digit } = self;
        if params.special_limbs() > 1 {
            let place = if target <= level {
                target
            } else {
                target - params.special() + level + 1
            };
            return Some(place * params.digits(level) + digit);
        }
        let digits = level + 1;
        Some(if target == digit {
            digit
        } else if target == params.special() {
            digits * digits + digit
        } else {
            let others = if target > digit { target - 1 } else { target };
            digits + digit * level + others
        })
    }

    /// Whether this is the first use of the digit beyond its own prime.
    pub(super) const fn leaves_its_prime(self, params: &Params, level: usize) -> bool {
        let first = if level == 0 {
            params.special()
        } else if self.digit == 0 {
            1
        } else {
            0
        };
        self.target == first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::N4096_DEPTH3 as P;
    use crate::testing::N64_PAIRS as G;

    #[test]
    fn the_order_of_grouped_keys_is_that_of_the_index() {
        for level in 0..=G.max_level() {
            let (mut at, mut count) = (Some(KeyLimb::FIRST), 0);
            for target in G.targets(level) {
                for digit in 0..G.digits(level) {
                    let limb = KeyLimb { target, digit };
                    assert_eq!(at, Some(limb), "level {level}");
                    assert_eq!(limb.index(&G, level), Some(count));
                    count += 1;
                    at = limb.next(&G, level);
                }
            }
            assert_eq!(at, None, "level {level}");
            let n = G.n();
            assert_eq!(count * n, crate::rlwe::keys::switching_key_words(&G, level));
        }
    }

    /// Every limb, level and set: those of the order have the index of their place,
    /// and no other has an index or a next one.
    #[test]
    fn limbs_that_a_key_does_not_have_have_no_place() {
        use crate::testing::{N16, N64, N64_SIX};
        let beyond = [usize::MAX, usize::MAX - 1, usize::MAX / 2 + 1];
        let named = crate::params::SETS.into_iter();
        for params in named.chain([&N16, &N64, &G, &N64_SIX]) {
            let numbers = || (0..params.limbs() + 3).chain(beyond);
            for level in numbers() {
                let mut order = vec![];
                let mut at = Some(KeyLimb::FIRST).filter(|_| level <= params.max_level());
                while let Some(limb) = at {
                    order.push(limb);
                    at = limb.next(params, level);
                }
                for target in numbers() {
                    for digit in numbers() {
                        let limb = KeyLimb { target, digit };
                        let place = order.iter().position(|&other| other == limb);
                        assert_eq!(limb.index(params, level), place, "{level}: {limb:?}");
                        let next = place.and_then(|place| order.get(place + 1).copied());
                        assert_eq!(limb.next(params, level), next, "{level}: {limb:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_visits_every_limb_once_where_its_index_says() {
        for level in 0..=P.max_level() {
            let (mut at, mut count) = (Some(KeyLimb::FIRST), 0);
            let mut seen = vec![];
            while let Some(limb) = at {
                let index = limb.index(&P, level);
                assert_eq!(index, Some(count), "level {level}: {limb:?}");
                assert!(limb.digit <= level);
                assert!(limb.target <= level || limb.target == P.special());
                assert!(!seen.contains(&limb));
                seen.push(limb);
                count += 1;
                at = limb.next(&P, level);
            }
            assert_eq!(count, (level + 1) * (level + 2));
            // A digit leaves its prime once, after all own limbs and before
            // every other use of it.
            for digit in 0..=level {
                let uses = seen.iter().filter(|l| l.digit == digit && !l.is_own());
                let leaves: Vec<bool> = uses.map(|l| l.leaves_its_prime(&P, level)).collect();
                assert!(leaves[0] && leaves[1..].iter().all(|l| !l), "{leaves:?}");
            }
        }
    }
}
