//! Attacks on the scheme do what their documentation says, and SECURITY.md has their
//! figures.

use he_core::params::{N2048_DEPTH1, N4096_DEPTH3, N8192_DEPTH5};

use crate::attack::{Attack, Context, Run};
use crate::record::{Memory, Record, Recorder, Scale, Verdict};

/// The records of an attack on one set, quickly.
fn records(attack: &dyn Attack, set: &'static he_core::Params) -> Vec<Record> {
    let mut memory = Memory::default();
    let mut progress = ();
    let run = Run {
        scale: Scale::Quick,
        seed: 1,
        progress: &mut progress,
        recorder: Recorder::new(&mut memory, "0", Vec::new()),
    };
    let mut targets = Vec::new();
    let sets = [set];
    let mut context = Context::new(&mut targets, &[], run).on_schemes(&sets);
    attack.run(&mut context).unwrap();
    memory.records
}

/// The figure of a step with this parameter.
fn figure<'r>(records: &'r [Record], parameter: &str, value: &str, metric: &str) -> &'r Record {
    let found = records.iter().find(|record| {
        let given = record.params.get(parameter).map(|v| match v {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        given.as_deref() == Some(value) && record.metric == metric
    });
    found.unwrap_or_else(|| panic!("no record of {parameter} {value}: {metric}"))
}

/// The threat model has the figures that are found here.
fn documented(sentences: &[String]) {
    let text = include_str!("../../../SECURITY.md");
    let missing: Vec<_> = sentences.iter().filter(|s| !text.contains(*s)).collect();
    assert!(missing.is_empty(), "SECURITY.md does not say: {missing:#?}");
}

fn grouped(count: f64) -> String {
    let count = count as u64;
    match count {
        0..1000 => count.to_string(),
        _ => format!("{},{:03}", count / 1000, count % 1000),
    }
}

#[test]
fn honest_values_give_the_key_away_and_guarded_ones_do_not() {
    let records = records(&super::key_recovery::KeyRecovery, &N4096_DEPTH3);
    let value =
        |parameter, value, metric| figure(&records, parameter, value, metric).value.unwrap();
    for encoding in ["all slots", "sparse"] {
        assert_eq!(
            value("encoding", encoding, "keys recovered"),
            1.0,
            "{encoding}"
        );
    }
    for circuit in ["noop", "variance", "sigmoid", "exp", "x1 x2 + x3 x4"] {
        assert_eq!(
            value("circuit", circuit, "keys recovered"),
            1.0,
            "{circuit}"
        );
    }
    assert_eq!(value("which", "others each time", "keys recovered"), 1.0);
    assert_eq!(value("which", "always the same", "keys recovered"), 0.0);
    assert_eq!(value("measured", "all slots", "keys recovered"), 0.0);
    // After a product nothing is published: there is nothing to attack.
    let guarded = figure(&records, "measured", "regression", "applicability");
    assert_eq!(guarded.verdict, Some(Verdict::NotApplicable));
    let bits = |encoding| value("encoding", encoding, "fewest published bits").round();
    let inferences = value("which", "others each time", "inferences");
    let sparse = figure(&records, "encoding", "sparse", "keys recovered").queries;
    documented(&[
        format!(
            "| key in all slots of one ciphertext | {} bits after the point | ",
            bits("all slots")
        ),
        format!(
            "| key in 16 sparse slots of {sparse} ciphertexts | {} bits | ",
            bits("sparse")
        ),
        format!(
            "| key in ten slots of {} inferences, others each time | ",
            grouped(inferences)
        ),
    ]);
}

#[test]
fn oracles_take_the_answers_that_are_documented() {
    let records = records(&super::active_evaluator::ActiveEvaluator, &N4096_DEPTH3);
    let value =
        |parameter, value, metric| figure(&records, parameter, value, metric).value.unwrap();
    let answers = |parameter, of| value(parameter, of, "old rule: answers");
    let searched = |len| {
        assert_eq!(
            value(
                "coefficients per search",
                len,
                "old rule: coefficients recovered"
            ),
            1.0
        );
        answers("coefficients per search", len)
    };
    let (one, twelve) = (searched("1"), searched("12"));
    // No way takes less than the key's entropy.
    assert!(twelve >= 4096.0 * 3f64.log2() && twelve < 1.59 * 4096.0);
    let labels = answers("oracle", "labels");
    let of_labels = value("oracle", "labels", "old rule: coefficients recovered");
    assert!(of_labels > 0.99, "{of_labels}");
    documented(&[format!(
        "acceptance takes {} answers one coefficient at a time and {} twelve at a time, labels {}",
        grouped(one),
        grouped(twelve),
        grouped(labels)
    )]);
    for oracle in ["acceptance", "labels"] {
        let known = figure(&records, "oracle", oracle, "coefficients recovered");
        assert!(known.value.unwrap() < 0.01, "{oracle}");
    }
    for result in ["(0, 2^k)", "(1, 2^k)"] {
        assert_eq!(value("result", result, "old rule: keys recovered"), 1.0);
        assert_eq!(value("result", result, "published"), 0.0);
    }
    let replays = |metric| value("result", "of another request", metric);
    assert_eq!(replays("old rule: replays accepted"), 1.0);
    assert_eq!(replays("replays accepted"), 0.0);
    assert_eq!(replays("substituted inputs accepted"), 1.0);
    assert_eq!(value("oracle", "labels below the limit", "right"), 1.0);
}

/// Where there is no room for a countermeasure, none is tried.
#[test]
fn a_small_modulus_is_no_defence() {
    let records = records(&super::flooding_wrong::FloodingWrong, &N2048_DEPTH1);
    let low =
        |record: &&Record| record.params["countermeasure"] == "floating-point noise, low bits";
    let verdicts: Vec<_> = records.iter().filter(low).map(|r| r.verdict).collect();
    assert_eq!(verdicts, [Some(Verdict::NotApplicable)]);
}

/// Rotations at the scale of inputs take a wide special prime, and the polynomial five
/// levels: one request.
#[test]
fn copies_beside_hidden_samples_are_told_apart_under_encryption() {
    assert!(super::forger::forges_hidden_copies(&N8192_DEPTH5, 1).unwrap());
}
