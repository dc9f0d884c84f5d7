//! What an oracle tells that answers about crafted ciphertexts.
//!
//! `(c0, c1)` with `c1 = X^d (1 + 3 X + .. + 3^(k-1) X^(k-1))` puts
//! `u = sum 3^i s_(g-i)`, which is `k` coefficients of the key as one number of
//! `-(3^k - 1)/2 ..= (3^k - 1)/2`, into the coefficient `g + d`, and `c0` moves it beside a
//! limit. So an answer whether the limit was passed is a comparison of `u` with any
//! threshold, and a binary search finds `k` coefficients in about `k log2 3` answers:
//! one coefficient at a time takes 5/3 answers each, twelve at a time 1.586, and no way
//! takes less than `log2 3 = 1.585`, as the key has that entropy.
//!
//! A label says more than acceptance: where the limit is that of the modulus, a
//! coefficient beyond it becomes its negative, so three of them at once make one of
//! eight patterns, and ten classes tell them apart ([`Places`]): three comparisons per
//! label.

use std::f64::consts::PI;

use he_core::ring::ntt;
use he_core::{Params, Result};

use super::algebra;
use super::holder::Ct;
use he_core::ckks::Ciphertext;

/// What an answer said, or that there will be no more.
pub(super) type Answer<T> = Option<T>;

/// `(c0, c1)` of coefficients at level 0.
pub(super) fn crafted(params: &Params, scale: f64, halves: [&[i64]; 2]) -> Result<Ct> {
    let prime = params.prime(0)?;
    let mut limbs = halves.map(|half| algebra::residues(half, prime.modulus()));
    for limb in &mut limbs {
        ntt::forward(limb, prime)?;
    }
    let [c0, c1] = limbs;
    Ciphertext::new(params, 0, scale, c0, c1)
}

/// Coefficients of a key that are looked for together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The last of them.
    at: usize,
    len: usize,
    /// What their number may be.
    low: i64,
    high: i64,
}

impl Group {
    /// All coefficients, `len` at a time; the last ones may be fewer.
    pub(super) fn all(n: usize, len: usize) -> Vec<Self> {
        let starts = (0..n).step_by(len);
        let of = |start: usize| {
            let len = len.min(n - start);
            let most = (3i64.pow(len as u32) - 1) / 2;
            Self {
                at: start + len - 1,
                len,
                low: -most,
                high: most,
            }
        };
        starts.map(of).collect()
    }

    fn found(&self) -> bool {
        self.low == self.high
    }

    /// Above it lies half of what is left.
    fn threshold(&self) -> i64 {
        (self.low + self.high).div_euclid(2)
    }

    fn learn(&mut self, above: bool) {
        let threshold = self.threshold();
        match above {
            true => self.low = threshold + 1,
            false => self.high = threshold,
        }
    }

    /// Writes what was found into a key.
    fn write(&self, key: &mut [Option<i64>]) {
        if !self.found() {
            return;
        }
        let mut digits = self.low + (3i64.pow(self.len as u32) - 1) / 2;
        for i in 0..self.len {
            key[self.at - i] = Some(digits % 3 - 1);
            digits /= 3;
        }
    }

    /// Bits that were told about it.
    fn bits(&self) -> f64 {
        let all = self.len as f64 * 3f64.log2();
        all - ((self.high - self.low + 1) as f64).log2()
    }
}

/// What an attacker knows at the end.
pub(super) struct Told {
    /// The key, as far as it is known.
    pub(super) key: Vec<Option<i64>>,
    /// Bits of it.
    pub(super) bits: f64,
    /// Answers that were given.
    pub(super) answers: usize,
}

impl Told {
    fn new(n: usize, groups: &[Group], answers: usize) -> Self {
        let mut key = vec![None; n];
        groups.iter().for_each(|group| group.write(&mut key));
        Self {
            key,
            bits: groups.iter().map(Group::bits).sum(),
            answers,
        }
    }
}

/// `1 + 3 X + .. `, `len` terms, times `X^shift`.
fn powers_of_three(n: usize, len: usize, shift: usize) -> Vec<i64> {
    let mut out = vec![0; n];
    for i in 0..len {
        let at = (i + shift) % (2 * n);
        let sign = if at < n { 1 } else { -1 };
        out[at % n] = sign * 3i64.pow(i as u32);
    }
    out
}

/// Asks whether results are accepted: refused is what fills half of the modulus or more.
pub(super) fn by_acceptance(
    params: &Params,
    scale: f64,
    len: usize,
    mut accepted: impl FnMut(&Ct) -> Result<Answer<bool>>,
) -> Result<Told> {
    let n = params.n();
    let limit = i64::from(params.prime(0)?.modulus().value() / 4);
    let mut groups = Group::all(n, len);
    let mut answers = 0;
    'all: for group in &mut groups {
        let c1 = powers_of_three(n, group.len, 0);
        while !group.found() {
            let mut c0 = vec![0; n];
            c0[group.at] = limit - group.threshold();
            let Some(accepted) = accepted(&crafted(params, scale, [&c0, &c1])?)? else {
                break 'all;
            };
            answers += 1;
            group.learn(!accepted);
        }
    }
    Ok(Told::new(n, &groups, answers))
}

/// Where some coefficients are moved to, so that the label tells all patterns of their
/// signs.
struct Places {
    shift: usize,
    /// Place of each group's number, and whether it stands there with its sign changed.
    places: Vec<(usize, bool)>,
    /// By label, which are negative, as bits.
    patterns: Vec<Option<usize>>,
}

/// Least distance between the largest slot and the next, in units of half the modulus.
const MARGIN: f64 = 0.05;

impl Places {
    /// The first shift of these groups with a label per pattern, if there is one.
    fn find(n: usize, groups: &[Group], cosines: &[f64], candidates: &[usize]) -> Option<Self> {
        // The slot of index i is at the root with exponent 5^i.
        let exponents: Vec<usize> = candidates
            .iter()
            .map(|&i| (0..i).fold(1, |power, _| power * 5 % (2 * n)))
            .collect();
        (0..n).find_map(|shift| {
            let places: Vec<(usize, bool)> = groups
                .iter()
                .map(|group| ((group.at + shift) % n, group.at + shift >= n))
                .collect();
            let mut patterns = vec![None; candidates.len()];
            for pattern in 0..1 << groups.len() {
                let value = |exponent: &usize| -> f64 {
                    let terms = places.iter().enumerate().map(|(i, (place, _))| {
                        let cosine = cosines[exponent * place % (2 * n)];
                        if pattern >> i & 1 == 1 {
                            -cosine
                        } else {
                            cosine
                        }
                    });
                    terms.sum()
                };
                let values: Vec<f64> = exponents.iter().map(value).collect();
                let best = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]))?;
                let mut others = values.iter().enumerate().filter(|(i, _)| *i != best);
                let clear = others.all(|(_, x)| *x < values[best] - MARGIN);
                if !clear || patterns[best].is_some() {
                    return None;
                }
                patterns[best] = Some(pattern);
            }
            Some(Self {
                shift,
                places,
                patterns,
            })
        })
    }
}

/// Asks for labels of results that wrap around the modulus: three comparisons each.
pub(super) fn by_labels(
    params: &Params,
    scale: f64,
    candidates: &[usize],
    mut label: impl FnMut(&Ct) -> Result<Answer<usize>>,
) -> Result<Told> {
    /// Few enough that the rest of `c1 s` is small beside the modulus in a slot.
    const LEN: usize = 5;
    const TOGETHER: usize = 3;
    let n = params.n();
    let limit = i64::from(params.prime(0)?.modulus().value() / 2);
    let cosines: Vec<f64> = (0..2 * n)
        .map(|k| (PI * k as f64 / n as f64).cos())
        .collect();
    let mut groups = Group::all(n, LEN);
    let mut answers = 0;
    // Far from each other: the first slots hardly tell neighbours apart.
    let stride = groups.len().div_ceil(TOGETHER);
    for first in 0..stride {
        let mut together: Vec<Group> = groups.iter().skip(first).step_by(stride).cloned().collect();
        let Some(found) = Places::find(n, &together, &cosines, candidates) else {
            continue;
        };
        let c1 = powers_of_three(n, LEN, found.shift);
        let mut ended = false;
        while together.iter().any(|group| !group.found()) {
            let mut c0 = vec![0; n];
            for (group, &(place, negated)) in together.iter().zip(&found.places) {
                // `-u` is above `-t - 1` where `u` is not above `t`.
                let threshold = match negated {
                    false => group.threshold(),
                    true => -group.threshold() - 1,
                };
                c0[place] = limit - threshold;
            }
            let Some(label) = label(&crafted(params, scale, [&c0, &c1])?)? else {
                ended = true;
                break;
            };
            answers += 1;
            let Some(pattern) = found.patterns.get(label).copied().flatten() else {
                break;
            };
            for (i, (group, &(_, negated))) in together.iter_mut().zip(&found.places).enumerate() {
                if !group.found() {
                    group.learn((pattern >> i & 1 == 1) != negated);
                }
            }
        }
        for (group, told) in groups.iter_mut().skip(first).step_by(stride).zip(together) {
            *group = told;
        }
        if ended {
            break;
        }
    }
    Ok(Told::new(n, &groups, answers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_every_number() {
        for u in -121..=121 {
            let mut group = Group::all(5, 5).remove(0);
            let mut answers = 0;
            while !group.found() {
                let above = u > group.threshold();
                group.learn(above);
                answers += 1;
            }
            let mut key = vec![None; 5];
            group.write(&mut key);
            let back: i64 = (0..5)
                .map(|i| 3i64.pow(i) * key[4 - i as usize].unwrap())
                .sum();
            assert_eq!(back, u);
            assert!((7..=8).contains(&answers), "{answers}");
            assert!((group.bits() - 5.0 * 3f64.log2()).abs() < 1e-12);
        }
    }
}
