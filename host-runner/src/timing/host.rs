//! Operations on this machine, fixed against random.
//!
//! Per measurement a coin draws the class, the secrets of that class are made by the same
//! work, the operation is timed, and a control after it: the same operation followed by a
//! pass over the secret that leaves zeros out. So operation and control are interleaved,
//! and share their noise. A first tenth is thrown away: dudect takes the thresholds of
//! cropping from it, RTLF the sample size that it needs.

use attacks::leakage::dudect::{self, dudect};
use attacks::leakage::rtlf::{self, ALPHA, POWER, RESAMPLES};
use attacks::leakage::{Class, Line, Sample, Verdict, of_class};
use chacha20::ChaCha8Rng;
use he_core::benchmarks::drawn::{Drawn, Memory};
use he_core::benchmarks::subjects::Subject;
use he_core::params::Params;
use he_core::ring::kernel;
use he_nn::progress::Progress;
use rand_core::{Rng, SeedableRng};
use serde_json::Value;

use super::{Settings, TimingError, clock, finite};

/// The least samples of which a test says anything.
const LEAST: usize = 100;

/// Measurements of an operation.
struct Measured {
    /// Thrown away.
    first: Vec<Sample>,
    samples: Vec<Sample>,
}

/// Measures and tests subjects, one after the other; `keep` is given the lines of each.
///
/// # Errors
/// [`TimingError`].
pub fn measure(
    params: &'static Params,
    subjects: &[Subject],
    settings: &Settings,
    progress: &mut dyn Progress,
    mut keep: impl FnMut(Vec<Line>) -> Result<(), TimingError>,
) -> Result<(), TimingError> {
    let samples = settings.samples.unwrap_or(dudect::ENOUGH);
    if samples < LEAST {
        return Err(TimingError::Few {
            got: samples,
            least: LEAST,
        });
    }
    let n = params.n();
    let mut words = vec![0; Memory::words(params)];
    let (mut integers, mut floats, mut doubles) = (vec![0; 5 * n], vec![0.0; 2 * n], vec![0.0; n]);
    let mut bytes = vec![0; n / 4];
    let memory = Memory {
        words: &mut words,
        integers: &mut integers,
        floats: &mut floats,
        doubles: &mut doubles,
        bytes: &mut bytes,
    };
    let mut drawn = Drawn::new(params, memory)?;
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    progress.start((subjects.len() * samples) as u64);
    for &subject in subjects {
        progress.note(subject.name());
        let both = both(&mut drawn, subject, samples, &mut rng, progress)?;
        let mut lines = Vec::new();
        for (measured, control) in both.iter().zip([false, true]) {
            let target = format!("inproc {} {}", params.name(), kernel::backend());
            let line = Line {
                experiment: "host".into(),
                operation: subject.name().into(),
                target,
                statistic: String::new(),
                value: 0.0,
                threshold: 0.0,
                samples: measured.samples.len() as u64,
                control,
                verdict: Verdict::Inconclusive,
                details: [
                    ("clock".into(), clock::NAME.into()),
                    ("varies".into(), subject.varies().name().into()),
                ]
                .into(),
            };
            lines.push(by_dudect(measured, line.clone()));
            lines.push(by_rtlf(measured, line, settings, &mut rng));
        }
        keep(lines)?;
    }
    progress.finish();
    Ok(())
}

/// Measures a subject and its control.
fn both(
    drawn: &mut Drawn<'_>,
    subject: Subject,
    count: usize,
    rng: &mut ChaCha8Rng,
    progress: &mut dyn Progress,
) -> Result<[Measured; 2], TimingError> {
    const STEP: usize = 1000;
    let first = (count / 10).max(LEAST);
    let mut measured = [(); 2].map(|()| Measured {
        first: Vec::with_capacity(first),
        samples: Vec::with_capacity(count),
    });
    for i in 0..first + count {
        let class = match rng.next_u32() & 1 {
            0 => Class::Fixed,
            _ => Class::Random,
        };
        drawn.draw(subject, class == Class::Fixed, rng.next_u64())?;
        let start = clock::now();
        drawn.run(subject)?;
        let middle = clock::now();
        drawn.leak(subject);
        let end = clock::now();
        for (measured, stop) in measured.iter_mut().zip([middle, end]) {
            let ticks = stop.wrapping_sub(start) as f64;
            let to = match i < first {
                true => &mut measured.first,
                false => &mut measured.samples,
            };
            to.push(Sample { class, ticks });
        }
        if i >= first && (i - first) % STEP == STEP - 1 {
            progress.advance(STEP as u64);
        }
    }
    Ok(measured)
}

fn by_dudect(measured: &Measured, line: Line) -> Line {
    let mut line = Line {
        statistic: "welch_t".into(),
        threshold: dudect::THRESHOLD,
        ..line
    };
    let enough = measured.samples.len() >= dudect::ENOUGH;
    if let Some(largest) = dudect(&measured.first, &measured.samples) {
        line.value = finite(largest.t);
        // No verdict below the number, of a leak neither.
        line.verdict = match enough {
            true => Verdict::of(largest.t, dudect::THRESHOLD, true),
            false => Verdict::Inconclusive,
        };
        line.details
            .insert("test".into(), largest.test.to_string().into());
        line.details.insert("tests".into(), largest.tests.into());
    }
    line
}

fn by_rtlf(measured: &Measured, line: Line, settings: &Settings, rng: &mut ChaCha8Rng) -> Line {
    let mut line = Line {
        statistic: "rtlf".into(),
        ..line
    };
    let mut batch: Vec<f64> = measured.first.iter().map(|sample| sample.ticks).collect();
    batch.sort_by(f64::total_cmp);
    let median = batch.get(batch.len() / 2).copied().unwrap_or_default();
    let leak = settings.smallest_leak * median;
    let planned = rtlf::planned(&batch, leak, ALPHA, rng);
    let [fixed, random] =
        [Class::Fixed, Class::Random].map(|class| of_class(&measured.samples, class));
    let detectable = rtlf::detectable(&batch, measured.samples.len(), ALPHA, rng);
    if let Some(found) = rtlf::rtlf(&fixed, &random, ALPHA, RESAMPLES, rng) {
        line.value = found.difference;
        line.threshold = found.threshold;
        let enough = measured.samples.len() >= planned;
        line.verdict = Verdict::of(found.difference, found.threshold, enough);
        line.details.insert("decile".into(), found.decile.into());
    }
    let numbers = [
        ("alpha", ALPHA),
        ("power", POWER),
        ("median", median),
        ("smallest_leak", leak),
        ("detectable_leak", detectable),
    ];
    for (name, number) in numbers {
        line.details
            .insert(name.into(), Value::from(finite(number)));
    }
    line.details
        .insert("planned_samples".into(), (planned as u64).into());
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planning::DEFAULT_SET;

    fn measured(samples: usize) -> Result<Vec<Line>, TimingError> {
        let settings = Settings {
            samples: Some(samples),
            smallest_leak: 0.01,
            seed: 1,
        };
        let mut lines = Vec::new();
        let keep = |new| {
            lines.extend(new);
            Ok(())
        };
        let subjects = [Subject::Encode, Subject::EncodeDrawn];
        measure(DEFAULT_SET, &subjects, &settings, &mut (), keep)?;
        Ok(lines)
    }

    /// Of the operation itself nothing is asserted: that is a measurement, and a machine
    /// may be busy.
    #[test]
    fn the_control_is_caught_by_both_tests() {
        let lines = measured(dudect::ENOUGH).unwrap();
        let names: Vec<_> = lines
            .iter()
            .map(|line| (line.statistic.as_str(), line.control))
            .collect();
        let both = ["welch_t", "rtlf"];
        let expected = [false, true].map(|control| both.map(|name| (name, control)));
        assert_eq!(names, expected.concat().repeat(2));
        for line in lines.iter().filter(|line| line.control) {
            assert_eq!(line.verdict, Verdict::Leak, "{line:?}");
            assert!(line.value > 4.0 * line.threshold, "{line:?}");
        }
    }

    #[test]
    fn below_ten_thousand_there_is_no_verdict() {
        for line in measured(LEAST).unwrap() {
            if line.statistic == "welch_t" {
                assert_eq!(line.verdict, Verdict::Inconclusive, "{line:?}");
            }
            assert_ne!(line.verdict, Verdict::Pass, "{line:?}");
        }
        let few = measured(LEAST - 1);
        assert!(matches!(
            few,
            Err(TimingError::Few {
                got: 99,
                least: 100
            })
        ));
    }
}
