//! Statistics of experiments: intervals, rankings and image quality.
//!
//! Distributions are statrs's. Its ranks panic on values that are no numbers, and
//! intervals for proportions, AUC and SSIM with these parameters are in no library
//! here; they are short.

use chacha20::ChaCha8Rng;
use rand_core::SeedableRng;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::random;

/// Resamples of a bootstrap, where nothing else is said.
pub const RESAMPLES: usize = 1000;

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Lower and upper end.
    pub ci95: [f64; 2],
}

/// A proportion with Wilson's score interval (Wilson 1927). Of no trials it is 0 with
/// the interval from 0 to 1.
#[must_use]
pub fn wilson(successes: usize, trials: usize) -> Estimate {
    if trials == 0 {
        return Estimate {
            value: 0.0,
            ci95: [0.0, 1.0],
        };
    }
    let z = Normal::standard().inverse_cdf(0.975);
    let n = trials as f64;
    let p = successes as f64 / n;
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Estimate {
        value: p,
        // Exact at the ends, where rounding would leave 1e-17.
        ci95: [
            if successes == 0 { 0.0 } else { centre - half },
            if successes >= trials {
                1.0
            } else {
                centre + half
            },
        ],
    }
}

/// The share of equal entries.
#[must_use]
pub fn agreement<T: PartialEq>(a: &[T], b: &[T]) -> Estimate {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    wilson(equal, a.len().max(b.len()))
}

/// How much oftener `a` is true than `b`, as a share of the same samples in the same order,
/// with the interval of Agresti and Min (2005): half a sample is added to each of the four
/// cells, so that samples that never disagree leave an interval too. Of no samples it is 0
/// with the interval from -1 to 1.
#[must_use]
pub fn paired(a: &[bool], b: &[bool]) -> Estimate {
    let count = a.len().min(b.len());
    if count == 0 {
        return Estimate {
            value: 0.0,
            ci95: [-1.0, 1.0],
        };
    }
    let only = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(a, b)| **a && !**b).count() as f64;
    let (more, less) = (only(a, b), only(b, a));
    let n = count as f64 + 2.0;
    let centre = (more - less) / n;
    let variance = (more + less + 1.0) / n - centre * centre;
    let half = Normal::standard().inverse_cdf(0.975) * (variance / n).sqrt();
    Estimate {
        value: (more - less) / count as f64,
        ci95: [(centre - half).max(-1.0), (centre + half).min(1.0)],
    }
}

/// Percentile bootstrap of any statistic of `count` units, which is given the indices
/// of each resample.
pub fn bootstrap(
    count: usize,
    resamples: usize,
    seed: u64,
    mut statistic: impl FnMut(&[usize]) -> f64,
) -> Estimate {
    let all: Vec<usize> = (0..count).collect();
    let value = statistic(&all);
    if count == 0 || resamples == 0 {
        return Estimate {
            value,
            ci95: [f64::NEG_INFINITY, f64::INFINITY],
        };
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut found: Vec<f64> = (0..resamples)
        .map(|_| {
            let drawn: Vec<usize> = (0..count).map(|_| random::below(&mut rng, count)).collect();
            statistic(&drawn)
        })
        .collect();
    Estimate {
        value,
        ci95: [quantile(&mut found, 0.025), quantile(&mut found, 0.975)],
    }
}

/// The mean with its bootstrap interval.
#[must_use]
pub fn mean(values: &[f64], seed: u64) -> Estimate {
    bootstrap(values.len(), RESAMPLES, seed, |drawn| {
        drawn.iter().map(|&i| values[i]).sum::<f64>() / drawn.len().max(1) as f64
    })
}

/// A quantile, linear between neighbours (type 7). Sorts the values; NaN of none.
#[must_use]
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(last);
    (at - low as f64).mul_add(values[high] - values[low], values[low])
}

/// Ranks from 1, equal values sharing their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = start as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank);
        start += tied.len();
    }
    ranks
}

/// The area under the ROC curve: how often a positive scores above a negative, ties
/// counting half (Mann and Whitney). One half where a side is empty.
#[must_use]
pub fn auc(positives: &[f64], negatives: &[f64]) -> f64 {
    if positives.is_empty() || negatives.is_empty() {
        return 0.5;
    }
    let ranks = ranks(&[positives, negatives].concat());
    let (p, n) = (positives.len() as f64, negatives.len() as f64);
    let sum: f64 = ranks[..positives.len()].iter().sum();
    (sum - p * (p + 1.0) / 2.0) / (p * n)
}

/// AUC with its bootstrap interval, positives and negatives drawn apart.
#[must_use]
pub fn auc_estimate(positives: &[f64], negatives: &[f64], seed: u64) -> Estimate {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let draw = |values: &[f64], rng: &mut ChaCha8Rng| -> Vec<f64> {
        (0..values.len())
            .map(|_| values[random::below(rng, values.len())])
            .collect()
    };
    let mut found: Vec<f64> = (0..RESAMPLES)
        .map(|_| auc(&draw(positives, &mut rng), &draw(negatives, &mut rng)))
        .collect();
    Estimate {
        value: auc(positives, negatives),
        ci95: [quantile(&mut found, 0.025), quantile(&mut found, 0.975)],
    }
}

/// The smallest threshold that at most this share of the negatives scores above. The
/// negatives are a shadow's, never those that are judged.
#[must_use]
pub fn threshold_at(negatives: &[f64], false_positive_rate: f64) -> f64 {
    let mut sorted = negatives.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let allowed = (false_positive_rate.clamp(0.0, 1.0) * sorted.len() as f64) as usize;
    sorted.get(allowed).copied().unwrap_or(f64::NEG_INFINITY)
}

/// The share that scores above a threshold, with Wilson's interval: of positives the
/// true positive rate, of negatives the false positive rate that really came out.
#[must_use]
pub fn rate_above(scores: &[f64], threshold: f64) -> Estimate {
    let above = scores.iter().filter(|&&score| score > threshold).count();
    wilson(above, scores.len())
}

/// Points of the ROC curve, false against true positive rate, from (0, 0) to (1, 1);
/// one point per distinct score.
#[must_use]
pub fn roc(positives: &[f64], negatives: &[f64]) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, bool)> = positives.iter().map(|&s| (s, true)).collect();
    all.extend(negatives.iter().map(|&s| (s, false)));
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut fp, mut tp) = (0, 0);
    let mut points = vec![(0.0, 0.0)];
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let right = tied.iter().filter(|(_, positive)| *positive).count();
        tp += right;
        fp += tied.len() - right;
        points.push((
            fp as f64 / negatives.len().max(1) as f64,
            tp as f64 / positives.len().max(1) as f64,
        ));
    }
    points
}

/// Mean squared error.
#[must_use]
pub fn mse(a: &[f64], b: &[f64]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
    squares.sum::<f64>() / a.len().min(b.len()).max(1) as f64
}

/// Peak signal-to-noise ratio in decibels; infinite for equal images.
#[must_use]
pub fn psnr(a: &[f64], b: &[f64], data_range: f64) -> f64 {
    10.0 * (data_range * data_range / mse(a, b)).log10()
}

/// Side of SSIM's window.
const WINDOW: usize = 11;

/// Standard deviation of its Gaussian in pixels.
const SIGMA: f64 = 1.5;

/// Structural similarity (Wang et al. 2004): windows of 11x11 under a Gaussian of
/// deviation 1.5, K1 = 0.01, K2 = 0.03, the mean over the windows that lie within the
/// image. `None` for images that are smaller than a window or of unequal size.
///
/// `data_range` is the distance between black and white: 1 for pixels from 0 to 1. The
/// constants grow with its square, so that a range that is too large makes any two
/// images look alike.
#[must_use]
pub fn ssim(a: &[f64], b: &[f64], width: usize, data_range: f64) -> Option<f64> {
    let height = a.len().checked_div(width)?;
    if a.len() != width * height || b.len() != a.len() || width < WINDOW || height < WINDOW {
        return None;
    }
    let mut kernel: [f64; WINDOW] = std::array::from_fn(|i| {
        let distance = i as f64 - (WINDOW / 2) as f64;
        (-distance * distance / (2.0 * SIGMA * SIGMA)).exp()
    });
    let total: f64 = kernel.iter().sum();
    kernel.iter_mut().for_each(|k| *k /= total);
    let columns = width - WINDOW + 1;
    let blurred = |value: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let weighted = |terms: &dyn Fn(usize) -> f64| -> f64 {
            kernel.iter().enumerate().map(|(i, k)| k * terms(i)).sum()
        };
        let rows: Vec<f64> = (0..height * columns)
            .map(|at| {
                let start = at / columns * width + at % columns;
                weighted(&|i| value(start + i))
            })
            .collect();
        (0..(height - WINDOW + 1) * columns)
            .map(|at| weighted(&|i| rows[at + i * columns]))
            .collect()
    };
    let (mean_a, mean_b) = (blurred(&|i| a[i]), blurred(&|i| b[i]));
    let squares_a = blurred(&|i| a[i] * a[i]);
    let squares_b = blurred(&|i| b[i] * b[i]);
    let products = blurred(&|i| a[i] * b[i]);
    let c1 = (0.01 * data_range).powi(2);
    let c2 = (0.03 * data_range).powi(2);
    let sum: f64 = (0..mean_a.len())
        .map(|i| {
            let (ma, mb) = (mean_a[i], mean_b[i]);
            let (va, vb) = (squares_a[i] - ma * ma, squares_b[i] - mb * mb);
            let covariance = products[i] - ma * mb;
            (2.0 * ma * mb + c1) * (2.0 * covariance + c2)
                / ((ma * ma + mb * mb + c1) * (va + vb + c2))
        })
        .sum();
    Some(sum / mean_a.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, within: f64) {
        assert!((a - b).abs() < within, "{a} {b}");
    }

    #[test]
    fn wilson_is_as_published() {
        // Newcombe 1998, Table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (successes, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let [a, b] = wilson(successes, trials).ci95;
            near(a, low, 6e-5);
            near(b, high, 6e-5);
        }
        assert_eq!(wilson(0, 0).ci95, [0.0, 1.0]);
    }

    #[test]
    fn auc_counts_ties_half() {
        near(auc(&[1.0, 2.0], &[1.0, 0.0]), 0.875, 1e-12);
        near(auc(&[1.0; 5], &[1.0; 9]), 0.5, 1e-12);
        near(auc(&[3.0, 4.0], &[1.0, 2.0]), 1.0, 1e-12);
        near(auc(&[], &[1.0]), 0.5, 1e-12);
        // The trapezoids under the ROC curve are the same area.
        let (p, n) = ([0.9, 0.4, 0.4, 0.7], [0.1, 0.4, 0.8, 0.2, 0.2]);
        let area: f64 = roc(&p, &n)
            .windows(2)
            .map(|w| (w[1].0 - w[0].0) * (w[0].1 + w[1].1) / 2.0)
            .sum();
        near(area, auc(&p, &n), 1e-12);
    }

    #[test]
    fn a_bootstrap_covers_and_repeats() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let values: Vec<f64> = (0..400).map(|_| random::normal(&mut rng)).collect();
        let found = mean(&values, 1);
        // The standard error is 1/20.
        near(found.ci95[1] - found.ci95[0], 2.0 * 1.96 / 20.0, 0.03);
        assert!(found.ci95[0] < found.value && found.value < found.ci95[1]);
        assert_eq!(found, mean(&values, 1));
        assert_ne!(found, mean(&values, 2));
        let apart = auc_estimate(&values[..200], &values[200..], 3);
        assert!(apart.ci95[0] < 0.5 && 0.5 < apart.ci95[1], "{apart:?}");
    }

    #[test]
    fn paired_shares_are_told_apart_where_their_own_intervals_are_not() {
        // 40 samples of 1,000 that one has right and the other wrong, and 10 the other way.
        let a: Vec<bool> = (0..1000).map(|i| i < 840).collect();
        let b: Vec<bool> = (0..1000).map(|i| (40..850).contains(&i)).collect();
        let apart = paired(&a, &b);
        near(apart.value, 0.03, 1e-12);
        // By hand: (40 - 10) / 1002 -+ 1.96 sqrt((51 / 1002 - (30 / 1002)^2) / 1002).
        near(apart.ci95[0], 0.016_094_671, 1e-8);
        near(apart.ci95[1], 0.043_785_568, 1e-8);
        let of = |list: &[bool]| wilson(list.iter().filter(|x| **x).count(), list.len());
        assert!(of(&a).ci95[0] < of(&b).ci95[1], "{:?} {:?}", of(&a), of(&b));
        let back = paired(&b, &a);
        assert_eq!(back.ci95, [-apart.ci95[1], -apart.ci95[0]]);
        // Samples that agree say that the difference is small, not that it is none.
        let same = paired(&a[..100], &a[..100]);
        assert!(same.value == 0.0 && same.ci95[0] < -0.01 && same.ci95[1] > 0.01);
        assert!(paired(&[true; 20], &[false; 20]).ci95[1] == 1.0);
        assert_eq!(paired(&[], &[]).ci95, [-1.0, 1.0]);
    }

    #[test]
    fn thresholds_keep_the_false_positive_rate() {
        let negatives: Vec<f64> = (0..1000).map(f64::from).collect();
        for rate in [0.0, 0.001, 0.01, 0.5, 1.0] {
            let threshold = threshold_at(&negatives, rate);
            near(rate_above(&negatives, threshold).value, rate, 1e-12);
        }
        // Ties stay below.
        assert_eq!(
            rate_above(&[1.0; 10], threshold_at(&[1.0; 10], 0.1)).value,
            0.0
        );
    }

    #[test]
    fn image_quality_is_that_of_scikit_image() {
        let image = |f: fn(usize, usize) -> usize| -> Vec<f64> {
            (0..784).map(|i| f(i / 28, i % 28) as f64 / 255.0).collect()
        };
        let a = image(|i, j| (i * 37 + j * 91) % 256);
        let b = image(|i, j| (i * 37 + j * 91) % 256 * 3 / 4 + (i * j) % 40);
        // scikit-image 0.26: structural_similarity(.., gaussian_weights=True,
        // sigma=1.5, use_sample_covariance=False).
        near(
            ssim(&a, &b, 28, 1.0).unwrap(),
            0.941_839_218_919_675_9,
            1e-10,
        );
        near(
            ssim(&a, &b, 28, 255.0).unwrap(),
            0.999_481_738_992_510_1,
            1e-10,
        );
        near(mse(&a, &b), 0.010_452_494_723_379_547, 1e-12);
        near(psnr(&a, &b, 1.0), 19.807_800_1, 1e-6);
        near(ssim(&a, &a, 28, 1.0).unwrap(), 1.0, 1e-12);
        assert_eq!(ssim(&a, &b, 10, 1.0), None);
    }
}
