//! Instructions of this machine, counted by valgrind's callgrind on the command as its users
//! get it, against committed tables: the operations of he-core under every set, and one
//! inference of every bundled network. They do not depend on what else the machine does.
//!
//! Valgrind knows AVX2 and no AVX-512, so the counts are of AVX2 kernels. Of another kind of
//! machine there is no table, and nothing to compare.
//!
//! `HE_EDGE_UPDATE_COUNTS=1` writes the tables anew.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use he_core::params::SETS;
use he_edge_tests::command::binary;
use he_nn::bundled;
use he_nn::model::Model;
use he_nn::plan::{Target, WeightMode};
use host_runner::planning;
use serde_json::Value;

/// A count may grow by this part before the test fails.
const TOLERANCE: f64 = 0.02;

const OPERATIONS: &str = "figures/operations-avx2.csv";
const INFERENCES: &str = "figures/inferences-avx2.csv";

/// What is counted, by its name: one operation, and what an evaluator does with one sample.
const OPERATION: &str = "he_core::benchmarks::Operations::run";
const INFERENCE: &str = "host_runner::engine::latency::Engine::evaluate_by";

/// A table's first line: the compiler that its counts are of.
const COMPILER: &str = "# rustc ";

/// Runs the command under callgrind: what it printed, and the instructions of each call of
/// `function` in turn, with all that it calls.
fn counted(arguments: &[&str], function: &str) -> (String, Vec<u64>) {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--toggle-collect={function}"))
        .arg(format!("--dump-after={function}"))
        .arg(binary())
        .args(arguments)
        .output()
        .expect("valgrind can be started: tests/setup installs it");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    let mut counts = Vec::new();
    for part in 1.. {
        let Ok(text) = fs::read_to_string(directory.path().join(format!("out.{part}"))) else {
            break;
        };
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let trigger = line("desc: Trigger: ").unwrap_or_default();
        if trigger.starts_with("--dump-after=") {
            counts.push(line("totals: ").unwrap().trim().parse().unwrap());
        }
    }
    assert!(!counts.is_empty(), "{arguments:?} never calls {function}");
    (String::from_utf8(output.stdout).unwrap(), counts)
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.split(' ').nth(1).unwrap().to_owned()
}

/// Compares counts, by what they are of, with a committed table, or writes it. If not all are
/// measured, rows may be missing, and nothing is written.
fn compare(name: &str, header: &str, measured: &BTreeMap<String, u64>, all: bool) {
    let compiler = compiler();
    if all && env::var_os("HE_EDGE_UPDATE_COUNTS").is_some() {
        let rows = measured.iter().map(|(of, count)| format!("{of},{count}\n"));
        let rows: String = rows.collect();
        let text = format!("{COMPILER}{compiler}\n{header},instructions\n{rows}");
        fs::write(path(name), text).unwrap();
    }
    let text = fs::read_to_string(path(name)).unwrap();
    let mut lines = text.lines();
    let of = lines.next().and_then(|line| line.strip_prefix(COMPILER));
    assert_eq!(
        of,
        Some(&*compiler),
        "{name} is of another compiler: HE_EDGE_UPDATE_COUNTS=1 writes it anew"
    );
    let committed: BTreeMap<String, u64> = lines
        .skip(1)
        .map(|line| {
            let (of, count) = line.rsplit_once(',').unwrap();
            (of.to_owned(), count.parse().unwrap())
        })
        .collect();
    let is_known = measured.keys().all(|of| committed.contains_key(of));
    assert!(
        is_known && (measured.len() == committed.len() || !all && !measured.is_empty()),
        "{name} has other rows: measured {measured:?}"
    );
    let grown: Vec<String> = measured
        .iter()
        .filter(|(of, count)| **count as f64 > committed[*of] as f64 * (1.0 + TOLERANCE))
        .map(|(of, count)| format!("{of}: {} -> {count}", committed[of]))
        .collect();
    assert!(grown.is_empty(), "more instructions: {grown:?}");
}

/// Whether there is a table for this machine.
#[expect(clippy::print_stderr, reason = "what a run did not compare")]
fn has_table() -> bool {
    let has = std::arch::is_x86_feature_detected!("avx2");
    if !has {
        eprintln!("not compared: this processor has no AVX2");
    }
    has
}

#[test]
fn operations_take_their_instructions() {
    if !has_table() {
        return;
    }
    let mut measured = BTreeMap::new();
    for params in SETS {
        let set = planning::set_name(params);
        let arguments = ["bench", "--runs", "1", "--json", "-", "--params", &set];
        let (said, counts) = counted(&arguments, OPERATION);
        let report: Value = serde_json::from_str(&said).unwrap();
        let results = report["results"].as_array().unwrap();
        // The first of two runs is not measured, and one of valgrind's has the loading of
        // functions in it.
        assert_eq!(counts.len(), 2 * results.len());
        for (row, counts) in results.iter().zip(counts.chunks_exact(2)) {
            assert_eq!(row["backend"], "avx2");
            let (op, limbs) = (row["op"].as_str().unwrap(), &row["limbs"]);
            let of = format!("{set},{},{limbs},{op}", params.n());
            measured.insert(of, counts[1]);
        }
    }
    compare(OPERATIONS, "set,n,limbs,operation", &measured, true);
}

#[test]
fn inferences_take_their_instructions() {
    if !has_table() {
        return;
    }
    // Networks of other data than digits are compared where their data are.
    let data = env::var("HE_EDGE_DATA").ok();
    let mut measured = BTreeMap::new();
    for name in bundled::model_names() {
        let mut arguments = vec!["infer", "--model", name, "--count", "1"];
        match (&data, name.starts_with("mnist")) {
            (Some(data), false) => arguments.extend(["--data", data]),
            (None, false) => continue,
            (_, true) => {}
        }
        let model = Model::parse(bundled::model(name).unwrap()).unwrap();
        for (weights, mode) in [
            (WeightMode::Plain, "plain"),
            (WeightMode::Encrypted, "encrypted"),
        ] {
            // Networks that no set evaluates, such as those of rectifiers.
            if planning::plan(None, model, weights, Target::Host).is_err() {
                continue;
            }
            let arguments = [&arguments[..], &["--weights", mode]].concat();
            let (_, counts) = counted(&arguments, INFERENCE);
            let [count] = counts[..] else {
                panic!("{name}: {counts:?}");
            };
            measured.insert(format!("{name},{mode}"), count);
        }
    }
    compare(INFERENCES, "network,weights", &measured, data.is_some());
}
