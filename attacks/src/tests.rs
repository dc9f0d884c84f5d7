//! What holds for every attack.

mod controls;

use std::collections::HashSet;

use he_nn::bundled;

use crate::attack::Subject;
use crate::plain::{Budget, Noisy, Only, Plain, Rounded};
use crate::record::{Memory, Record, Recorder, Scale, Verdict};
use crate::target::{About, Answers, Rows};
use crate::{
    ATTACKS, Access, Context, Data, Denied, Grants, Run, Target, TargetError, View, find, paper,
};

fn digits() -> Data {
    let digits = bundled::digits().unwrap();
    Data {
        name: "digits".into(),
        train: digits.clone(),
        test: digits,
    }
}

fn plain(name: &str) -> Plain {
    Plain::bundled(name, "digits").unwrap().unwrap()
}

#[test]
fn names_are_unique_and_figures_exist() {
    let mut names = HashSet::new();
    for attack in ATTACKS {
        let name = attack.name();
        assert!(names.insert(name), "{name}");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(name.chars().all(plain), "{name}");
        assert!(
            !attack.about().is_empty() && attack.access() != Grants::NONE,
            "{name}"
        );
        for table in attack.tables() {
            let planned = table.name.starts_with("planned");
            assert!(
                planned || paper::FIGURES.iter().any(|f| f.table == *table),
                "{name}"
            );
        }
        assert_eq!(find(name).unwrap().name(), name);
    }
    assert!(find("no-such-attack").is_none());
}

/// Runs every attack on three targets, of which the last gives labels alone.
fn run_all(memory: &mut Memory, data: &[Data]) {
    let present = memory.records.clone();
    let mut targets: Vec<Box<dyn Target>> = vec![
        Box::new(plain("mnist-mlp64")),
        Box::new(plain("mnist-mlp64-relu")),
        Box::new(Only::labels(plain("mnist-mlp64"))),
    ];
    let mut progress = ();
    let run = Run {
        scale: Scale::Quick,
        seed: 1,
        progress: &mut progress,
        recorder: Recorder::new(memory, "0", present),
    };
    let context = Context::new(&mut targets, data, run);
    static SMALL: [&he_core::Params; 1] = [&he_core::params::N2048_DEPTH1];
    let mut context = context.on_schemes(&SMALL);
    for attack in ATTACKS {
        attack.run(&mut context).unwrap();
    }
}

#[test]
fn every_attack_runs_and_goes_on_where_it_stopped() {
    let data = [digits()];
    let mut memory = Memory::default();
    run_all(&mut memory, &data);
    for attack in ATTACKS {
        let mine = |record: &&Record| record.attack == attack.name();
        let mut mine = memory.records.iter().filter(mine).peekable();
        assert!(mine.peek().is_some(), "{} recorded nothing", attack.name());
        let of_networks = attack.subject() == Subject::Networks;
        if of_networks && attack.access().without(Grants::of(&[Access::Labels])) != Grants::NONE {
            let refused = mine.filter(|record| record.target.contains("only labels"));
            let refused: Vec<&Record> = refused.collect();
            assert!(!refused.is_empty(), "{}", attack.name());
            for record in refused {
                assert_eq!(record.verdict, Some(Verdict::NotApplicable));
                assert_eq!((record.value, record.queries), (None, 0));
                assert!(record.reason.as_ref().unwrap().contains("does not give"));
            }
        }
    }
    // What was refused is asked again; what it says again is not recorded again.
    let before = memory.records.clone();
    run_all(&mut memory, &data);
    assert_eq!(memory.records, before);
    // The same seed gives the same figures.
    let mut other = Memory::default();
    run_all(&mut other, &data);
    let figures = |records: &[Record]| -> Vec<_> {
        records
            .iter()
            .map(|r| (r.step(), r.metric.clone(), r.value, r.ci95))
            .collect()
    };
    assert_eq!(figures(&other.records), figures(&before));
}

/// Queries of a step are those that its surrogate takes, whenever they were asked; the first
/// has those by which all are judged as well.
#[test]
fn surrogates_have_their_own_queries_and_resumed_runs_too() {
    let mut data = [digits()];
    let test = &mut data[0].test;
    let (images, labels) = (test.images.clone(), test.labels.clone());
    for _ in 1..60 {
        test.images.extend(images.iter().cloned());
        test.labels.extend(&labels);
    }
    let judged = test.images.len() as u64 / 2;
    let attack = find("extraction-labels").unwrap();
    let run = |memory: &mut Memory| {
        let present = memory.records.clone();
        let mut targets: Vec<Box<dyn Target>> = vec![Box::new(plain("mnist-mlp64"))];
        let mut progress = ();
        let run = Run {
            scale: Scale::Quick,
            seed: 1,
            progress: &mut progress,
            recorder: Recorder::new(memory, "0", present),
        };
        attack
            .run(&mut Context::new(&mut targets, &data, run))
            .unwrap();
    };
    let check = |records: &[Record]| {
        let counts = records.iter().filter(|r| r.metric == "attack_queries");
        let counts: Vec<(u64, u64)> = counts
            .map(|record| (record.value.unwrap() as u64, record.queries))
            .collect();
        for (at, &(used, queries)) in counts.iter().enumerate() {
            let judged = if at == 0 { judged } else { 0 };
            assert_eq!(queries, used + judged, "{counts:?}");
        }
        counts.len()
    };
    let mut memory = Memory::default();
    run(&mut memory);
    assert_eq!(check(&memory.records), 4);
    // As if it had been interrupted after the first two.
    let whole = memory.records.clone();
    let half = whole.len() / 2;
    memory.records.truncate(half);
    run(&mut memory);
    assert_eq!(check(&memory.records[half..]), 2);
    let values = |records: &[Record]| records.iter().map(|r| r.value).collect::<Vec<_>>();
    assert_eq!(values(&memory.records), values(&whole));
}

#[test]
fn a_view_gives_what_is_declared_and_granted() {
    let images = Rows::images(&digits().test.images);
    let mut target = plain("mnist-mlp64");
    let mut view = View::new(&mut target, Grants::of(&[Access::Labels]));
    assert_eq!(view.labels(&images).unwrap(), digits().test.labels);
    assert_eq!(view.queries(), 20);
    // Granted but not declared.
    let error = view.scores(&images).unwrap_err();
    let TargetError::Denied(Denied { access, target }) = error else {
        panic!("{error}");
    };
    assert_eq!((access, target.as_str()), (Access::Scores, "mnist-mlp64"));
    assert!(matches!(view.weights(), Err(TargetError::Denied(_))));
    // Declared but not granted.
    let mut target = Only::labels(plain("mnist-mlp64"));
    let mut view = View::new(&mut target, Grants::of(&Access::ALL));
    assert!(view.labels(&images).is_ok());
    assert!(matches!(view.scores(&images), Err(TargetError::Denied(_))));
    assert!(matches!(view.weights(), Err(TargetError::Denied(_))));
    assert_eq!(view.queries(), 20, "what is refused is not counted");
}

#[test]
fn queries_that_do_not_fit_are_refused() {
    let mut target = plain("mnist-mlp64");
    let mut view = View::new(&mut target, Grants::of(&Access::ALL));
    let error = view.labels(&Rows::new(3, vec![0.0; 6])).unwrap_err();
    assert!(
        matches!(
            error,
            TargetError::Width {
                expected: 784,
                got: 3,
                ..
            }
        ),
        "{error}"
    );
    let mut values = vec![0.0; 784 * 2];
    values[800] = f64::NAN;
    let error = view.labels(&Rows::new(784, values)).unwrap_err();
    assert!(
        matches!(error, TargetError::NotFinite { query: 1, .. }),
        "{error}"
    );
    assert!(view.labels(&Rows::new(784, Vec::new())).unwrap().is_empty());
}

#[test]
fn answers_that_are_missing_are_an_error() {
    struct Silent(About);
    impl Target for Silent {
        fn about(&self) -> &About {
            &self.0
        }
        fn grants(&self) -> Grants {
            Grants::of(&Access::ALL)
        }
        fn observe(&mut self, _: &Rows, _: Grants) -> Result<Answers, TargetError> {
            Ok(Answers::default())
        }
    }
    let mut silent = Silent(plain("mnist-mlp64").about().clone());
    let mut view = View::new(&mut silent, Grants::of(&Access::ALL));
    let images = Rows::images(&digits().test.images);
    for access in [
        Access::Labels,
        Access::Scores,
        Access::Decrypted,
        Access::Ciphertexts,
        Access::Timing,
    ] {
        let error = view.observe(&images, Grants::of(&[access])).unwrap_err();
        assert!(
            matches!(
                error,
                TargetError::Answers {
                    expected: 20,
                    got: 0,
                    ..
                }
            ),
            "{error}"
        );
    }
    assert_eq!(view.queries(), 0);
}

#[test]
fn wrappers_change_what_they_say() {
    let images = Rows::images(&digits().test.images);
    let scores = |target: &mut dyn Target| {
        View::new(target, Grants::of(&Access::ALL))
            .scores(&images)
            .unwrap()
    };
    let exact = scores(&mut plain("mnist-mlp64"));

    let mut rounded = Rounded::new(plain("mnist-mlp64"), 1);
    for (a, b) in scores(&mut rounded).values().iter().zip(exact.values()) {
        assert!((a - b).abs() <= 0.05 + 1e-9 && (a * 10.0 - (a * 10.0).round()).abs() < 1e-9);
    }
    assert!(!rounded.grants().contains(Access::Decrypted));

    let mut noisy = Noisy::new(plain("mnist-mlp64"), 1e-3, 1);
    let errors: Vec<f64> = scores(&mut noisy)
        .values()
        .iter()
        .zip(exact.values())
        .map(|(a, b)| a - b)
        .collect();
    let deviation = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
    assert!((8e-4..1.2e-3).contains(&deviation), "{deviation}");

    let mut budget = Budget::new(plain("mnist-mlp64"), 30);
    let mut view = View::new(&mut budget, Grants::of(&Access::ALL));
    view.labels(&images).unwrap();
    let error = view.labels(&images).unwrap_err();
    assert!(
        matches!(
            error,
            TargetError::Budget {
                budget: 30,
                used: 20,
                asked: 20,
                ..
            }
        ),
        "{error}"
    );
    view.labels(&images.select(&[0, 3])).unwrap();
    assert_eq!(view.queries(), 22);
}
