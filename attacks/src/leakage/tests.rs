use chacha20::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use super::dudect::{Test, dudect};
use super::observer::advantage;
use super::rtlf::{ALPHA, Found, POWER, detectable, planned, rtlf};
use super::*;
use crate::random;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A time like those of a machine: something constant, noise, now and then an
/// interruption.
fn time(rng: &mut ChaCha8Rng) -> f64 {
    let noise = (0.5 * random::normal(rng)).exp();
    let interrupted = random::uniform(rng) < 0.01;
    let late = if interrupted {
        40.0 * random::uniform(rng)
    } else {
        0.0
    };
    1000.0 + 10.0 * noise + late
}

fn samples(count: usize, rng: &mut ChaCha8Rng, leak: impl Fn(f64) -> f64) -> Vec<Sample> {
    let mut one = || {
        let class = match rng.next_u32() & 1 {
            0 => Class::Fixed,
            _ => Class::Random,
        };
        let ticks = time(rng);
        match class {
            Class::Fixed => Sample { class, ticks },
            Class::Random => Sample {
                class,
                ticks: leak(ticks),
            },
        }
    };
    (0..count).map(|_| one()).collect()
}

fn found(samples: &[Sample], rng: &mut ChaCha8Rng) -> Found {
    let [a, b] = [Class::Fixed, Class::Random].map(|class| of_class(samples, class));
    rtlf(&a, &b, ALPHA, 2_000, rng).unwrap()
}

#[test]
fn a_shift_is_found_and_none_is_not() {
    let rng = &mut rng(1);
    let first = samples(1_000, rng, |x| x);
    let none = samples(20_000, rng, |x| x);
    let t = dudect(&first, &none).unwrap();
    assert!(t.t < dudect::THRESHOLD && t.tests > 50, "{t:?}");
    assert!(!found(&none, rng).differs());
    let shifted = samples(20_000, rng, |x| x + 1.0);
    let t = dudect(&first, &shifted).unwrap();
    assert!(t.t > 10.0, "{t:?}");
    assert!(found(&shifted, rng).differs());
}

#[test]
fn what_only_varies_is_of_second_order() {
    let rng = &mut rng(2);
    let mut all = Vec::new();
    for i in 0..20_000 {
        let (class, deviation) = match i & 1 {
            0 => (Class::Fixed, 1.0),
            _ => (Class::Random, 1.1),
        };
        let ticks = 1000.0 + deviation * random::normal(rng);
        all.push(Sample { class, ticks });
    }
    // Without a first batch there are no thresholds, and nothing is cropped.
    let t = dudect(&[], &all).unwrap();
    assert!(
        t.test == Test::SecondOrder && t.t > 5.0 && t.tests == 2,
        "{t:?}"
    );
}

#[test]
fn rare_delays_of_one_class_are_found() {
    // The slowest twentieth of one class is slower still: deciles do not see it.
    let rng = &mut rng(3);
    let late = |x: f64| if x > 1025.0 { x + 30.0 } else { x };
    let first = samples(1_000, rng, late);
    let all = samples(20_000, rng, late);
    let t = dudect(&first, &all).unwrap();
    assert!(t.t > 10.0, "{t:?}");
}

#[test]
fn constants_need_no_deviation() {
    let all = |of_random| {
        let one = |i| match i & 1 {
            0 => Sample {
                class: Class::Fixed,
                ticks: 7.0,
            },
            _ => Sample {
                class: Class::Random,
                ticks: of_random,
            },
        };
        (0..20).map(one).collect::<Vec<_>>()
    };
    assert_eq!(dudect(&[], &all(7.0)).unwrap().t, 0.0);
    assert_eq!(dudect(&[], &all(8.0)).unwrap().t, f64::INFINITY);
    let rng = &mut rng(4);
    assert!(!found(&all(7.0), rng).differs());
    assert!(found(&all(8.0), rng).differs());
    assert!(dudect(&[], &[]).is_none());
    assert!(rtlf(&[], &[1.0], ALPHA, 100, rng).is_none());
}

/// Repeated draws without a leak: false alarms stay below the bound, for both tests,
/// where the machine's speed drifts as it is measured, too.
#[test]
fn false_alarms_are_bounded() {
    let rng = &mut rng(5);
    let (mut by_rtlf, mut by_dudect) = (0, 0);
    const DRAWS: usize = 400;
    let bound = 0.05;
    for _ in 0..DRAWS {
        let mut all = samples(1_200, rng, |x| x);
        let mut drift = 0.0;
        for sample in &mut all {
            drift = 0.99 * drift + random::normal(rng);
            sample.ticks += drift;
        }
        let (first, all) = all.split_at(200);
        let [a, b] = [Class::Fixed, Class::Random].map(|class| of_class(all, class));
        by_rtlf += usize::from(rtlf(&a, &b, bound, 600, rng).unwrap().differs());
        by_dudect += usize::from(dudect(first, all).unwrap().t > dudect::THRESHOLD);
    }
    // Three standard deviations above the bound.
    let allowed = bound + 3.0 * (bound * (1.0 - bound) / DRAWS as f64).sqrt();
    assert!((by_rtlf as f64) < allowed * DRAWS as f64, "{by_rtlf}");
    assert!(by_dudect <= 2, "{by_dudect}");
}

#[test]
fn the_planned_sample_finds_the_smallest_leak() {
    let rng = &mut rng(6);
    let batch: Vec<f64> = (0..2_000).map(|_| time(rng)).collect();
    let n = planned(&batch, 0.4, ALPHA, rng);
    assert!((dudect::ENOUGH..200_000).contains(&n), "{n}");
    let back = detectable(&batch, n, ALPHA, rng);
    assert!((back - 0.4).abs() < 0.06 || n == dudect::ENOUGH, "{back}");
    let mut hits = 0;
    const DRAWS: usize = 40;
    for _ in 0..DRAWS {
        let all = samples(n, rng, |x| x + 0.4);
        hits += usize::from(found(&all, rng).differs());
    }
    assert!(
        hits as f64 >= (POWER - 0.12) * DRAWS as f64,
        "{hits} of {DRAWS}"
    );
    // A tenth of it is too few.
    let mut hits = 0;
    for _ in 0..DRAWS {
        let all = samples(n / 10, rng, |x| x + 0.4);
        hits += usize::from(found(&all, rng).differs());
    }
    assert!(hits < DRAWS / 2, "{hits} of {DRAWS}");
}

/// Nine order statistics drawn at once have the law of a resample drawn value by value.
#[test]
fn resamples_are_those_of_the_script() {
    let rng = &mut rng(7);
    let data: Vec<f64> = (0..101).map(f64::from).collect();
    let mut by_value = Vec::new();
    for _ in 0..4_000 {
        let mut drawn: Vec<f64> = (0..100).map(|_| data[random::below(rng, 101)]).collect();
        drawn.sort_by(f64::total_cmp);
        // Type 2, as 100 p is a whole number.
        by_value.push([10, 50, 90].map(|at: usize| (drawn[at - 1] + drawn[at]) / 2.0));
    }
    let at_once = rtlf::tests_of_resamples(&data, 100, 4_000, rng);
    for i in 0..3 {
        let moments = |all: &[[f64; 3]]| {
            let n = all.len() as f64;
            let mean = all.iter().map(|x| x[i]).sum::<f64>() / n;
            let variance = all.iter().map(|x| (x[i] - mean).powi(2)).sum::<f64>() / n;
            (mean, variance.sqrt())
        };
        let ((m, s), (n, t)) = (moments(&by_value), moments(&at_once));
        assert!(
            (m - n).abs() < 0.4 && (s / t - 1.0).abs() < 0.06,
            "{m} {n} {s} {t}"
        );
    }
}

#[test]
fn counts_are_all_the_same_or_not() {
    assert_eq!(counts::counts(&[5; 9]).unwrap().variance, 0.0);
    let found = counts::counts(&[5, 5, 5, 9]).unwrap();
    assert_eq!((found.least, found.largest, found.variance), (5, 9, 3.0));
    assert!(counts::counts(&[]).is_none());
}

#[test]
fn an_observer_learns_what_differs() {
    let rng = &mut rng(8);
    let mut seen = |size: f64, mean: f64| -> Vec<Vec<f64>> {
        let mut one = || vec![size, mean + random::normal(rng)];
        (0..200).map(|_| one()).collect()
    };
    let (a, b) = (seen(1000.0, 5.0), seen(1000.0, 5.0));
    let none = advantage([&a, &b]).unwrap();
    assert!(none.ci95[0] < 0.0 && 0.0 < none.ci95[1], "{none:?}");
    assert_eq!(advantage([&a, &seen(1001.0, 5.0)]).unwrap().value, 1.0);
    let some = advantage([&a, &seen(1000.0, 6.0)]).unwrap();
    assert!(some.ci95[0] > 0.1 && some.value < 0.9, "{some:?}");
    assert!(advantage([&a, &[]]).is_none());
    assert!(advantage([&a, &[vec![1.0], vec![1.0], vec![1.0], vec![1.0]]]).is_none());
}

#[test]
fn verdicts() {
    assert_eq!(Verdict::of(5.0, 4.5, false), Verdict::Leak);
    assert_eq!(Verdict::of(4.5, 4.5, true), Verdict::Pass);
    assert_eq!(Verdict::of(1.0, 4.5, false), Verdict::Inconclusive);
    assert_eq!(Verdict::of(f64::NAN, 4.5, true), Verdict::Leak);
}
