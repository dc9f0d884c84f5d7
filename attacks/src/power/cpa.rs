//! Words of the key's transform out of what the product with the public half leaks
//! (Brier, Clavier, Olivier, "Correlation power analysis with a leakage model", CHES 2004),
//! from the lowest bits up.
//!
//! The lower word of `-a s`, and that of Montgomery's multiple `-a s (-q^-1)`, depend in
//! their `b` lowest bits on the `b` lowest bits of `s` alone. So a guess is a few bits more
//! than before, and of each length the best guesses are kept, which the whole words decide
//! at the end, with all that the loop computes: they give the limb too, as the ciphertext is
//! public.
//!
//! Guesses are ranked by least squares rather than by the correlation, whose scale is free:
//! a word whose lowest bits are zero predicts the same for all encryptions and correlates
//! with nothing. That takes the unit of the leak, which the same traces tell: the public
//! half and the ciphertext go through the same registers.

use chacha20::ChaCha8Rng;
use he_core::arith::Modulus;
use rand_core::SeedableRng;
use rayon::prelude::*;

use super::kernel::{self, Leakage};
use super::sensor::Traces;
use crate::random;

/// Bits by which guesses grow.
const STEP: u32 = 4;

/// Guesses that are kept of each length.
const KEPT: usize = 32;

/// Whole words that are decided among by everything that the loop computes.
const LAST: usize = 8;

/// Steps of a sample per bit that leaks, as of a converter.
const UNIT: f64 = 16.0;

/// Variance of the ones in a uniform word: the signal of a signal-to-noise ratio.
pub const SIGNAL: f64 = 8.0;

/// Samples of one instruction, and what predicts them: the ones in
/// `(factor * s) ^ (s where over_key)`.
#[derive(Debug)]
struct Point {
    factors: Vec<u32>,
    low_factors: Vec<u16>,
    over_key: bool,
    samples: Vec<i16>,
    total: i64,
    weight: f64,
}

/// What is observed of one word over many encryptions.
#[derive(Debug)]
pub struct Observed {
    points: Vec<Point>,
    modulus: Modulus,
    encryptions: usize,
    leakage: Leakage,
    /// Words of the uniform half and of the ciphertext, and what leaked.
    known: Vec<([u32; 2], [f64; 3])>,
}

/// What is drawn of recorded traces.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// How they leak.
    pub leakage: Leakage,
    /// [`SIGNAL`] over the variance of the noise on every sample.
    pub snr: f64,
    /// Which encryptions.
    pub encryptions: &'a [usize],
    /// Of the noise.
    pub seed: u64,
}

/// Words by their index, each as it explains the samples of a product best.
#[must_use]
pub fn recover(traces: &Traces, product: usize, words: &[usize], draw: Draw<'_>) -> Vec<u32> {
    let recover = |&index: &usize| Observed::new(traces, product, index, draw).recover();
    words.par_iter().map(recover).collect()
}

impl Observed {
    /// Word `index` of product `product`, with noise drawn anew.
    #[must_use]
    pub fn new(traces: &Traces, product: usize, index: usize, draw: Draw<'_>) -> Self {
        let m = traces.modulus();
        let mut rng = ChaCha8Rng::seed_from_u64(draw.seed);
        rng.set_stream((product * traces.words() + index) as u64);
        let deviation = (SIGNAL / draw.snr).sqrt();
        let negated: Vec<u32> = draw
            .encryptions
            .iter()
            .map(|&encryption| traces.public(encryption, index)[0].wrapping_neg())
            .collect();
        let multiples: Vec<u32> = negated
            .iter()
            .map(|a| a.wrapping_mul(m.neg_inv() as u32))
            .collect();
        // The register that takes the multiple held the key before. The lower word is
        // written where there was zero, and replaced by zero.
        let predicted: &[(usize, &[u32], bool)] = match draw.leakage {
            Leakage::Weight => &[(0, &negated, false), (1, &multiples, false)],
            Leakage::Distance => &[
                (0, &negated, false),
                (1, &multiples, true),
                (2, &negated, false),
            ],
        };
        let known: Vec<([u32; 2], [f64; 3])> = draw
            .encryptions
            .iter()
            .map(|&encryption| {
                let leak = traces.leak(encryption, product, index, draw.leakage);
                let noisy = |bits| deviation.mul_add(random::normal(&mut rng), f64::from(bits));
                (traces.public(encryption, index), leak.map(noisy))
            })
            .collect();
        let points = predicted.iter().map(|&(point, factors, over_key)| {
            let leaks: Vec<f64> = known.iter().map(|(_, leaks)| leaks[point]).collect();
            Point::new(factors, over_key, &leaks)
        });
        Self {
            points: points.collect(),
            modulus: *m,
            encryptions: draw.encryptions.len(),
            leakage: draw.leakage,
            known,
        }
    }

    /// How much better a guess of so many bits explains the samples than none does.
    fn score(&self, guess: u32, bits: u32, ones: &mut [i16]) -> f64 {
        let all = self.encryptions as f64;
        let score = |point: &Point| {
            point.predict(guess, bits, ones);
            let (mut sum, mut squares, mut products) = (0i64, 0i64, 0i64);
            // Pieces whose sums fit 32 bits: checks of that would forbid SIMD.
            for (ones, samples) in ones.chunks(1024).zip(point.samples.chunks(1024)) {
                let (mut s, mut q, mut p) = (0i32, 0i32, 0i32);
                for (&h, &y) in ones.iter().zip(samples) {
                    let (h, y) = (i32::from(h), i32::from(y));
                    s = s.wrapping_add(h);
                    q = q.wrapping_add(h.wrapping_mul(h));
                    p = p.wrapping_add(h.wrapping_mul(y));
                }
                sum += i64::from(s);
                squares += i64::from(q);
                products += i64::from(p);
            }
            let mean = sum as f64 / all;
            let covariance = (products as f64 - mean * point.total as f64) / UNIT;
            let variance = mean.mul_add(-(sum as f64), squares as f64);
            point.weight * 2.0f64.mul_add(covariance, -variance)
        };
        self.points.iter().map(score).sum()
    }

    /// The word that explains the samples best.
    #[must_use]
    pub fn recover(&self) -> u32 {
        let mut ones = vec![0; self.encryptions];
        let (mut kept, mut bits) = (vec![0], 0);
        while bits < self.modulus.bits() {
            let more = STEP.min(self.modulus.bits() - bits);
            let longer = kept
                .iter()
                .flat_map(|&low| (0..1 << more).map(move |high| low | high << bits));
            let possible: Vec<u32> = longer.filter(|&word| word < self.modulus.value()).collect();
            bits += more;
            kept = self.best(&possible, bits, &mut ones);
        }
        // Of a word `2^k t` the lowest bits tell little, and `t` explains what its upper
        // bits leak: so `t` may be all that is kept.
        let shifted = kept
            .iter()
            .flat_map(|&word| (0..self.modulus.bits()).map(move |by| u64::from(word) << by));
        let possible = shifted.filter(|&word| word < u64::from(self.modulus.value()));
        let mut possible: Vec<u32> = possible.map(|word| word as u32).collect();
        possible.sort_unstable();
        possible.dedup();
        let mut whole = self.best(&possible, u32::BITS, &mut ones);
        whole.truncate(LAST);
        let by_all = whole.iter().map(|&word| (self.score_of_all(word), word));
        let best = by_all.max_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or(0, |(_, word)| word)
    }

    /// How much better a whole word explains all samples than none does. With the
    /// ciphertext, which is public, it gives the limb too, and so all that is written.
    fn score_of_all(&self, word: u32) -> f64 {
        let m = &self.modulus;
        let predicted: Vec<[f64; 3]> = self
            .known
            .iter()
            .map(|&([uniform, ciphertext], _)| {
                let product = m.canon(m.mont(uniform as i32, word as i32));
                let limb = m.add(ciphertext, product);
                kernel::leak(m, self.leakage, [word, uniform, limb]).map(f64::from)
            })
            .collect();
        let all = self.encryptions as f64;
        let score = |point: usize| {
            let pairs = || predicted.iter().zip(&self.known);
            let mean = |of: &dyn Fn(f64, f64) -> f64| {
                pairs()
                    .map(|(h, (_, y))| of(h[point], y[point]))
                    .sum::<f64>()
                    / all
            };
            let (h, y) = (mean(&|h, _| h), mean(&|_, y| y));
            let covariance = mean(&|a, b| (a - h) * (b - y));
            let variance = mean(&|a, _| (a - h) * (a - h));
            let of_samples = mean(&|_, b| (b - y) * (b - y));
            if of_samples > 0.0 {
                2.0f64.mul_add(covariance, -variance) / of_samples
            } else {
                0.0
            }
        };
        (0..3).map(score).sum()
    }

    /// The correlation of samples with what a word predicts, the mean over instructions.
    #[must_use]
    pub fn correlation(&self, word: u32) -> f64 {
        let mut ones = vec![0; self.encryptions];
        let all = self.encryptions as f64;
        let of = |point: &Point| {
            point.predict(word, u32::BITS, &mut ones);
            let pairs = || ones.iter().zip(&point.samples);
            let mean = |f: &dyn Fn(f64, f64) -> f64| {
                let each = pairs().map(|(&h, &y)| f(f64::from(h), f64::from(y)));
                each.sum::<f64>() / all
            };
            let (h, y) = (mean(&|h, _| h), mean(&|_, y| y));
            let covariance = mean(&|a, b| (a - h) * (b - y));
            let variances = mean(&|a, _| (a - h).powi(2)) * mean(&|_, b| (b - y).powi(2));
            if variances > 0.0 {
                covariance / variances.sqrt()
            } else {
                0.0
            }
        };
        self.points.iter().map(of).sum::<f64>() / self.points.len().max(1) as f64
    }

    /// The best guesses, in order.
    fn best(&self, guesses: &[u32], bits: u32, ones: &mut [i16]) -> Vec<u32> {
        let mut scored: Vec<(f64, u32)> = guesses
            .iter()
            .map(|&guess| (self.score(guess, bits, ones), guess))
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.truncate(KEPT);
        scored.into_iter().map(|(_, guess)| guess).collect()
    }

    /// The share of wrong guesses of the lowest eight bits that explain the samples better
    /// than the right one: 0 where they are known. By chance one half, over all bytes; of one
    /// byte less, the less its prediction varies.
    #[must_use]
    pub fn rank(&self, word: u32) -> f64 {
        let mut ones = vec![0; self.encryptions];
        let right = word & 0xff;
        let least = self.score(right, 8, &mut ones);
        let wrong = (0..256).filter(|&guess| guess != right);
        let before = wrong.map(|guess| {
            let score = self.score(guess, 8, &mut ones);
            match score.total_cmp(&least) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            }
        });
        before.sum::<f64>() / 255.0
    }
}

impl Point {
    fn new(factors: &[u32], over_key: bool, leaks: &[f64]) -> Self {
        let all = leaks.len() as f64;
        let mean = leaks.iter().sum::<f64>() / all;
        // Rounded and saturated, as of a converter.
        let samples: Vec<i16> = leaks
            .iter()
            .map(|leak| ((leak - mean) * UNIT).round() as i16)
            .collect();
        let variance = leaks.iter().map(|leak| (leak - mean).powi(2)).sum::<f64>() / all;
        Self {
            low_factors: factors.iter().map(|&factor| factor as u16).collect(),
            factors: factors.to_vec(),
            over_key,
            total: samples.iter().map(|&y| i64::from(y)).sum(),
            samples,
            weight: if variance > 0.0 {
                variance.recip()
            } else {
                0.0
            },
        }
    }

    /// Ones in the lowest bits of what is predicted. Of up to 16 bits in half words, which
    /// takes a third of the time.
    fn predict(&self, guess: u32, bits: u32, ones: &mut [i16]) {
        let over = if self.over_key { guess } else { 0 };
        let mask = u32::MAX >> (u32::BITS - bits);
        if bits <= u16::BITS {
            let (guess, over, mask) = (guess as u16, over as u16, mask as u16);
            for (ones, &factor) in ones.iter_mut().zip(&self.low_factors) {
                *ones = ((factor.wrapping_mul(guess) ^ over) & mask).count_ones() as i16;
            }
        } else {
            for (ones, &factor) in ones.iter_mut().zip(&self.factors) {
                *ones = ((factor.wrapping_mul(guess) ^ over) & mask).count_ones() as i16;
            }
        }
    }
}
