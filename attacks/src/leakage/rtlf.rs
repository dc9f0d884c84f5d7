//! RTLF (Dunsche, Maehren, Erinola, Merget, Bissantz, Somorovsky, Schwenk, "With Great
//! Power Come Great Side Channels", USENIX Security 2024): deciles of two classes are
//! compared, and the threshold of each comes from resampling one class against itself,
//! so that false alarms are at most `alpha`.
//!
//! For each decile the threshold is the `1 - alpha / 9` quantile of the difference
//! between two resamples of one class, and of the classes the larger one; there is a leak
//! where any decile differs by more. Quantiles are R's type 2, as in the authors' script.
//!
//! The script draws every resample value by value, which takes minutes for a million
//! measurements. Only nine order statistics of a resample matter, and their ranks in the
//! sample are uniform order statistics, whose spacings are gamma variates over their sum
//! (Devroye, "Non-Uniform Random Variate Generation", 1986, V.3.1). So a resample takes 19
//! variates here, whatever its size, and has the same law.
//!
//! Resampling supposes that measurements are independent, and on a machine they are not.
//! What dependence there is lies in the order of measuring; as classes are drawn by a
//! coin per measurement, a class is a random sample of that order, and differences between
//! classes vary as those of independent samples do. SILENT (Dunsche et al., arXiv
//! 2504.19821) resamples in blocks instead, for measurements that were not shuffled.

use chacha20::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::random;

/// Share of false alarms among tests without a leak, at most.
pub const ALPHA: f64 = 0.01;

/// Probability with which the planned number of samples finds the smallest leak.
pub const POWER: f64 = 0.9;

/// Resamples per class.
pub const RESAMPLES: usize = 10_000;

const DECILES: usize = 9;

/// What the test found: the decile whose difference is largest, measured by its
/// threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// Difference of the classes' deciles, in ticks.
    pub difference: f64,
    /// Above it there is a leak.
    pub threshold: f64,
    /// Which decile, 1 to 9.
    pub decile: usize,
}

impl Found {
    /// Whether the classes differ.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.difference > self.threshold
    }

    /// How large the difference is beside its threshold.
    fn ratio(&self) -> f64 {
        match self.difference == 0.0 {
            true => 0.0,
            false => self.difference / self.threshold,
        }
    }
}

/// Ranks, from 0, between which a decile of `n` values lies (type 2): where `n p` is a
/// whole number, the mean of two neighbours.
fn ranks(n: usize, decile: usize) -> [usize; 2] {
    let (whole, rest) = (n * decile / 10, n * decile % 10);
    match rest {
        0 => [whole.saturating_sub(1), whole.min(n - 1)],
        _ => [whole, whole],
    }
}

/// Deciles of sorted values, of which there is at least one.
fn deciles(sorted: &[f64]) -> [f64; DECILES] {
    std::array::from_fn(|i| {
        let [low, high] = ranks(sorted.len(), i + 1);
        (sorted[low] + sorted[high]) / 2.0
    })
}

/// A gamma variate of scale 1 and a shape of at least 1 (Marsaglia, Tsang 2000).
fn gamma(shape: f64, rng: &mut ChaCha8Rng) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = random::normal(rng);
        let v = (1.0 + c * x).powi(3);
        // In (0, 1], so that the logarithm is one.
        let u = 1.0 - random::uniform(rng);
        if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// Deciles of a resample of `n` values of `sorted`, drawn with replacement.
fn resampled(sorted: &[f64], n: usize, rng: &mut ChaCha8Rng) -> [f64; DECILES] {
    // Positions of the ranks among `n` ordered uniform variates.
    let mut positions = [[0.0; 2]; DECILES];
    let (mut sum, mut last) = (0.0, None);
    for (i, position) in positions.iter_mut().enumerate() {
        for (place, rank) in position.iter_mut().zip(ranks(n, i + 1)) {
            let step = last.map_or(rank + 1, |last: usize| rank - last);
            if step > 0 {
                sum += gamma(step as f64, rng);
            }
            last = Some(rank);
            *place = sum;
        }
    }
    sum += gamma((n - last.unwrap_or(0)) as f64, rng);
    let value = |position: f64| {
        let at = (position / sum * sorted.len() as f64) as usize;
        sorted[at.min(sorted.len() - 1)]
    };
    positions.map(|[low, high]| (value(low) + value(high)) / 2.0)
}

/// Differences, decile by decile, between pairs of resamples of one class.
fn differences(
    sorted: &[f64],
    n: usize,
    count: usize,
    rng: &mut ChaCha8Rng,
) -> [Vec<f64>; DECILES] {
    let mut all: [Vec<f64>; DECILES] = std::array::from_fn(|_| Vec::with_capacity(count));
    for _ in 0..count {
        let (a, b) = (resampled(sorted, n, rng), resampled(sorted, n, rng));
        for (i, of_decile) in all.iter_mut().enumerate() {
            of_decile.push((a[i] - b[i]).abs());
        }
    }
    all
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Compares two classes; `None` where one is empty. False alarms are at most `alpha` of
/// tests without a leak.
#[must_use]
pub fn rtlf(
    fixed: &[f64],
    random: &[f64],
    alpha: f64,
    resamples: usize,
    rng: &mut ChaCha8Rng,
) -> Option<Found> {
    let classes = [sorted(fixed), sorted(random)];
    let n = fixed.len().min(random.len());
    if n == 0 || resamples == 0 {
        return None;
    }
    let mut thresholds = [0.0f64; DECILES];
    for class in &classes {
        for (threshold, mut found) in thresholds
            .iter_mut()
            .zip(differences(class, n, resamples, rng))
        {
            found.sort_by(f64::total_cmp);
            let at = ((1.0 - alpha / DECILES as f64) * found.len() as f64) as usize;
            *threshold = threshold.max(found[at.min(found.len() - 1)]);
        }
    }
    let [a, b] = classes.map(|class| deciles(&class));
    let found = (0..DECILES).map(|i| Found {
        difference: (a[i] - b[i]).abs(),
        threshold: thresholds[i],
        decile: i + 1,
    });
    found.max_by(|a, b| a.ratio().total_cmp(&b.ratio()))
}

/// How many measurements in both classes together find a shift by `leak` ticks with
/// probability [`POWER`], planned from a first batch of whichever class.
///
/// A decile of `n` measurements has a standard deviation of `s / sqrt(n)`, its difference
/// between two classes `s sqrt(2 / n)`, and the threshold is the same deviation times a
/// normal quantile. So `n = 2 s^2 (z(1 - alpha / 18) + z(power))^2 / leak^2` per class, by
/// the decile of the least `s`, which the resamples of the batch tell. Other deciles only
/// add to the power. At least [`super::dudect::ENOUGH`].
#[must_use]
pub fn planned(batch: &[f64], leak: f64, alpha: f64, rng: &mut ChaCha8Rng) -> usize {
    let Some(deviation) = deviation(batch, rng) else {
        return usize::MAX;
    };
    let per_class = 2.0 * (deviation * quantiles(alpha) / leak).powi(2);
    // A float beyond the range becomes the largest integer.
    ((2.0 * per_class).ceil() as usize).max(super::dudect::ENOUGH)
}

/// The shift that so many measurements in both classes together find with probability
/// [`POWER`]: [`planned`] the other way round.
#[must_use]
pub fn detectable(batch: &[f64], samples: usize, alpha: f64, rng: &mut ChaCha8Rng) -> f64 {
    let deviation = deviation(batch, rng).unwrap_or(f64::INFINITY);
    deviation * quantiles(alpha) * 2.0 / (samples.max(1) as f64).sqrt()
}

/// Of threshold and power, in standard deviations of a difference.
fn quantiles(alpha: f64) -> f64 {
    let normal = Normal::standard();
    normal.inverse_cdf(1.0 - alpha / (2 * DECILES) as f64) + normal.inverse_cdf(POWER)
}

/// The least standard deviation of a decile, times the square root of the batch's size.
fn deviation(batch: &[f64], rng: &mut ChaCha8Rng) -> Option<f64> {
    const PAIRS: usize = 500;
    let n = batch.len();
    if n == 0 {
        return None;
    }
    let of_deciles = differences(&sorted(batch), n, PAIRS, rng).map(|found| {
        let squares: f64 = found.iter().map(|d| d * d).sum();
        (squares / PAIRS as f64 / 2.0 * n as f64).sqrt()
    });
    of_deciles.into_iter().min_by(f64::total_cmp)
}

/// First, fifth and ninth decile of resamples, for the comparison with a plain way.
#[cfg(test)]
pub(super) fn tests_of_resamples(
    sorted: &[f64],
    n: usize,
    count: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<[f64; 3]> {
    let one = |_| {
        let all = resampled(sorted, n, rng);
        [all[0], all[4], all[8]]
    };
    (0..count).map(one).collect()
}
