//! What an observer of whole inferences learns: numbers that he sees of each, such as times
//! of stages or sizes of messages, and a classifier that learns on some and is judged on
//! others.

use crate::stats::{Estimate, wilson};

/// What was seen of one inference: as many numbers as of every other.
pub type Features = Vec<f64>;

/// A normal distribution per feature, independent of the others (naive Bayes).
struct Gaussians {
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl Gaussians {
    fn of(seen: &[&Features], width: usize) -> Self {
        let n = seen.len().max(1) as f64;
        let column = |i: usize| seen.iter().map(move |features| features[i]);
        let mean: Vec<f64> = (0..width).map(|i| column(i).sum::<f64>() / n).collect();
        let variance = (0..width)
            .map(|i| {
                column(i)
                    .map(|x| (x - mean[i]) * (x - mean[i]))
                    .sum::<f64>()
                    / n
            })
            .collect();
        Self { mean, variance }
    }

    /// Logarithm of the likelihood. What never varied still has a deviation of a
    /// millionth of its size: a size that is the same in both classes tells nothing, and
    /// one that differs tells all.
    fn score(&self, features: &Features) -> f64 {
        let each = features.iter().zip(&self.mean).zip(&self.variance);
        each.map(|((x, mean), variance)| {
            let variance = variance.max(1e-12 * (1.0 + mean * mean));
            -0.5 * ((x - mean) * (x - mean) / variance + variance.ln())
        })
        .sum()
    }
}

/// The advantage of a classifier that tells two kinds of inferences apart, `2 Pr[right] -
/// 1`, with its 95 % interval (Wilson). Every other one of each kind is learned from, the
/// rest are judged. `None` where a kind has fewer than four, or features are not as many
/// everywhere.
#[must_use]
pub fn advantage(kinds: [&[Features]; 2]) -> Option<Estimate> {
    let width = kinds[0].first()?.len();
    let alike = kinds
        .iter()
        .all(|kind| kind.len() >= 4 && kind.iter().all(|features| features.len() == width));
    if !alike {
        return None;
    }
    let learned = kinds.map(|kind| {
        let seen: Vec<&Features> = kind.iter().step_by(2).collect();
        Gaussians::of(&seen, width)
    });
    let (mut right, mut judged) = (0.0, 0);
    for (which, kind) in kinds.iter().enumerate() {
        for features in kind.iter().skip(1).step_by(2) {
            let [a, b] = [0, 1].map(|i: usize| learned[i].score(features));
            // What tells nothing is guessed right half the time.
            right += match a.total_cmp(&b) {
                std::cmp::Ordering::Equal => 0.5,
                order => f64::from(u8::from(
                    (order == std::cmp::Ordering::Less) == (which == 1),
                )),
            };
            judged += 1;
        }
    }
    let share = wilson(right as usize, judged);
    Some(Estimate {
        value: 2.0 * right / judged as f64 - 1.0,
        ci95: share.ci95.map(|end| 2.0 * end - 1.0),
    })
}
