//! dudect (Reparaz, Balasch, Verbauwhede, DATE 2017; ePrint 2016/1123): Welch's t-test of
//! raw times, of times below each of a hundred thresholds, and of their centred squares.
//!
//! As published, thresholds come from a first batch that is then thrown away, and no
//! verdict is given below ten thousand measurements. Two things differ. Squares are
//! centred by the mean of the whole class instead of the mean so far, which is the same
//! statistic without its beginning. And a cropped test counts from 500 measurements of
//! each class on, where the authors' code demands ten thousand: Welch's t is as good a
//! normal deviate there, and a quick run has all tests.

use super::{Class, Sample};

/// Below so many measurements there is no verdict.
pub const ENOUGH: usize = 10_000;

/// The strict line, which the code of the authors mentions and which the evaluation of
/// hardware uses; theirs is 10.
pub const THRESHOLD: f64 = 4.5;

/// Thresholds of cropping.
pub const CROPS: usize = 100;

/// What a test needs of each class.
const LEAST: f64 = 500.0;

/// Mean and variance of a class (Welford).
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn push(&mut self, x: f64) {
        self.count += 1.0;
        let delta = x - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (x - self.mean);
    }

    /// Variance of the mean.
    fn of_mean(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

/// Welch's t of two classes. Equal constants have t = 0, different ones an infinite t.
#[derive(Clone, Copy, Debug, Default)]
pub struct Welch {
    fixed: Moments,
    random: Moments,
}

impl Welch {
    /// Takes one measurement.
    pub fn push(&mut self, class: Class, x: f64) {
        match class {
            Class::Fixed => self.fixed.push(x),
            Class::Random => self.random.push(x),
        }
    }

    /// t; `None` with fewer than two measurements of a class.
    #[must_use]
    pub fn t(&self) -> Option<f64> {
        let least = self.fixed.count.min(self.random.count);
        let difference = self.fixed.mean - self.random.mean;
        let deviation = (self.fixed.of_mean() + self.random.of_mean()).sqrt();
        match (least >= 2.0, difference == 0.0) {
            (false, _) => None,
            (true, true) => Some(0.0),
            (true, false) => Some(difference / deviation),
        }
    }
}

/// One of the tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Test {
    /// All times.
    Raw,
    /// Times below this share of the first batch.
    Cropped(f64),
    /// Squares of what times differ from their class's mean.
    SecondOrder,
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Raw => f.write_str("raw"),
            Self::Cropped(share) => write!(f, "fastest {:.1} %", 100.0 * share),
            Self::SecondOrder => f.write_str("second order"),
        }
    }
}

/// The largest of all tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Largest {
    /// |t|.
    pub t: f64,
    /// Which test it is of.
    pub test: Test,
    /// Tests that had enough to count.
    pub tests: usize,
}

/// Shares below which times are cropped: 1 - 2^(-10 (i + 1) / 100), dense at the end.
fn shares() -> impl Iterator<Item = f64> {
    (1..=CROPS).map(|i| 1.0 - 0.5f64.powf(10.0 * i as f64 / CROPS as f64))
}

/// Tests `samples`. `first` is a batch measured before them, by which thresholds are set.
/// `None` where not even the raw test has measurements of both classes.
#[must_use]
pub fn dudect(first: &[Sample], samples: &[Sample]) -> Option<Largest> {
    let mut sorted: Vec<f64> = first.iter().map(|sample| sample.ticks).collect();
    sorted.sort_by(f64::total_cmp);
    let limits: Vec<(f64, f64)> = shares()
        .filter_map(|share| {
            let at = (share * sorted.len() as f64) as usize;
            Some((share, *sorted.get(at)?))
        })
        .collect();
    let mut raw = Welch::default();
    let mut cropped = vec![Welch::default(); limits.len()];
    for &Sample { class, ticks } in samples {
        raw.push(class, ticks);
        // Limits ascend: those above the time take it.
        let from = limits.partition_point(|&(_, limit)| limit <= ticks);
        for test in &mut cropped[from..] {
            test.push(class, ticks);
        }
    }
    let mut second = Welch::default();
    for &Sample { class, ticks } in samples {
        let mean = match class {
            Class::Fixed => raw.fixed.mean,
            Class::Random => raw.random.mean,
        };
        second.push(class, (ticks - mean) * (ticks - mean));
    }
    let crops = limits.iter().zip(&cropped);
    let counting = crops.filter(|(_, test)| test.fixed.count.min(test.random.count) >= LEAST);
    let mut all = vec![(Test::Raw, raw.t()?), (Test::SecondOrder, second.t()?)];
    all.extend(counting.filter_map(|(&(share, _), test)| Some((Test::Cropped(share), test.t()?))));
    let largest = all
        .iter()
        .max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()))?;
    Some(Largest {
        t: largest.1.abs(),
        test: largest.0,
        tests: all.len(),
    })
}
