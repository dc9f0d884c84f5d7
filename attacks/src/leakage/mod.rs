//! Whether time, or a count of instructions, depends on a secret: tests of measurements,
//! and the lines that they are kept in.
//!
//! Whoever measures draws a class per measurement by a coin, fixed or random
//! ([`Class`]), so that under the null hypothesis the labels are exchangeable, whatever
//! else the machine does at the time. Two tests look at the result: [`dudect`] as
//! published, strong and without a bound on false alarms, and [`rtlf`], whose false
//! alarms are bounded and whose sample size is planned. Where instructions are counted
//! there is no noise, and [`counts`] demands a variance of zero. [`observer`] says what
//! a classifier learns of features of whole inferences.

pub mod counts;
pub mod dudect;
pub mod observer;
pub mod rtlf;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a secret was in one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same in all measurements of this class.
    Fixed,
    /// Drawn anew.
    Random,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// What the secret was.
    pub class: Class,
    /// Ticks of whatever clock.
    pub ticks: f64,
}

/// Ticks of one class, in the order in which they were measured.
#[must_use]
pub fn of_class(samples: &[Sample], class: Class) -> Vec<f64> {
    let of = samples.iter().filter(|sample| sample.class == class);
    of.map(|sample| sample.ticks).collect()
}

/// What a test says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing was found, by samples that were enough to find it.
    Pass,
    /// The classes differ.
    Leak,
    /// Nothing was found, but the samples were too few.
    Inconclusive,
}

impl Verdict {
    /// Of a value that is a leak above a threshold; below it, it passes if there was
    /// enough to look at.
    #[must_use]
    pub fn of(value: f64, threshold: f64, enough: bool) -> Self {
        match (value > threshold || value.is_nan(), enough) {
            (true, _) => Self::Leak,
            (false, true) => Self::Pass,
            (false, false) => Self::Inconclusive,
        }
    }
}

/// One line of results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The kind of measurement: `host`, `board`, `stages`, `link`.
    pub experiment: String,
    /// What was measured.
    pub operation: String,
    /// Where.
    pub target: String,
    /// The statistic: `welch_t`, `rtlf`, `variance` or `advantage`.
    pub statistic: String,
    /// Its value.
    pub value: f64,
    /// Above it, there is a leak.
    pub threshold: f64,
    /// Measurements.
    pub samples: u64,
    /// A function that leaks on purpose was measured: it has to be caught.
    pub control: bool,
    /// What the test says.
    pub verdict: Verdict,
    /// What is particular to the statistic: clock, sample size planned, interval.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, Value>,
}

impl Line {
    /// Whether the other is the same measurement, perhaps of another time.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        let key = |line: &Self| {
            (
                line.experiment.clone(),
                line.operation.clone(),
                line.target.clone(),
                line.statistic.clone(),
                line.control,
            )
        };
        key(self) == key(other)
    }

    /// A control has to be caught, everything else has to pass. Nothing is said of what
    /// is inconclusive, unless it is a control.
    #[must_use]
    pub fn is_as_demanded(&self) -> bool {
        match self.control {
            true => self.verdict == Verdict::Leak,
            false => self.verdict != Verdict::Leak,
        }
    }
}

#[cfg(test)]
mod tests;
