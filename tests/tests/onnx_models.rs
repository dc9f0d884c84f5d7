//! Networks as other programs write them: each is imported and computes what onnxruntime
//! did, in the clear and encrypted, or is refused by the sentence that helps. The files,
//! their results and two tables of scikit-learn are made by
//! `tests/vectors/onnx/make_models.py`.

#![expect(clippy::print_stdout, reason = "the counts, for `--nocapture`")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use he_edge_tests::command::binary;
use he_nn::clear;
use he_nn::data::{Choice, Samples, Split};
use he_nn::import::{self, InputKind};
use he_nn::model::{Model, Sample};
use he_nn::network::NetworkInput;
use host_runner::planning;
use host_runner::service::{Batches, Service};
use serde_json::Value;
use tempfile::TempDir;

fn he_edge(arguments: &[&str], status: i32) -> String {
    let output = Command::new(binary()).args(arguments).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(status),
        "{arguments:?}: {errors}"
    );
    match status {
        0 => String::from_utf8(output.stdout).unwrap(),
        _ => errors,
    }
}

fn succeeds(arguments: &[&str]) -> String {
    he_edge(arguments, 0)
}

fn fails(status: i32, arguments: &[&str]) -> String {
    he_edge(arguments, status)
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/onnx")
}

/// A network of the list, and what is expected of it.
struct Listed {
    name: String,
    kind: InputKind,
    /// Part of the sentence that refuses it.
    refused: Option<String>,
    /// What it takes, and what it gives.
    samples: Vec<Vec<f64>>,
    results: Vec<Vec<f64>>,
    /// The table of a classifier, and the labels of its test samples.
    table: Option<(PathBuf, Vec<u64>)>,
}

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().into_iter().flatten();
    numbers.filter_map(Value::as_f64).collect()
}

fn list() -> Vec<Listed> {
    let text = fs::read_to_string(directory().join("models/expected.json")).unwrap();
    let list: Vec<Value> = serde_json::from_str(&text).unwrap();
    let rows = |value: &Value| {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(numbers)
            .collect()
    };
    let listed = |entry: &Value| Listed {
        name: entry["name"].as_str().unwrap().to_owned(),
        kind: match entry["kind"].as_str() {
            Some("features") => InputKind::Features,
            _ => InputKind::Pixels,
        },
        refused: entry["refused"].as_str().map(str::to_owned),
        samples: rows(&entry["samples"]),
        results: rows(&entry["results"]),
        table: entry["table"].as_str().map(|table| {
            let labels = entry["labels"].as_array().into_iter().flatten();
            let labels = labels.filter_map(Value::as_u64).collect();
            (directory().join("tables").join(table), labels)
        }),
    };
    list.iter().map(listed).collect()
}

fn file(listed: &Listed) -> PathBuf {
    directory()
        .join("models")
        .join(&listed.name)
        .with_extension("onnx")
}

/// A sample that the test owns.
enum Owned {
    Pixels(Vec<u8>),
    Features(Vec<f32>),
}

impl Owned {
    fn of(kind: InputKind, values: &[f64]) -> Self {
        match kind {
            InputKind::Pixels => Self::Pixels(values.iter().map(|&x| x as u8).collect()),
            InputKind::Features => Self::Features(values.iter().map(|&x| x as f32).collect()),
        }
    }

    fn sample(&self) -> Sample<'_> {
        match self {
            Self::Pixels(pixels) => Sample::Pixels(pixels),
            Self::Features(features) => Sample::Features(features),
        }
    }
}

#[test]
fn what_is_no_network_here_is_refused_by_a_sentence_that_helps() {
    let mut count = 0;
    for listed in list() {
        let Some(reason) = &listed.refused else {
            continue;
        };
        let error = import::read(&file(&listed), "listed", listed.kind).unwrap_err();
        let sentence = error.to_string();
        assert!(sentence.contains(reason), "{}: {sentence}", listed.name);
        assert!(
            !sentence.contains('\n') && sentence.len() < 400,
            "{sentence}"
        );
        count += 1;
    }
    assert!(count >= 10, "{count}");
}

#[test]
fn what_is_imported_computes_the_same() {
    let mut count = 0;
    for listed in list().iter().filter(|listed| !listed.samples.is_empty()) {
        let network = import::read(&file(listed), "listed", listed.kind);
        let network = network.unwrap_or_else(|error| panic!("{}: {error}", listed.name));
        for (values, expected) in listed.samples.iter().zip(&listed.results) {
            let got = network
                .logits(Owned::of(listed.kind, values).sample())
                .unwrap();
            match &listed.name[..] {
                "softmax" | "sigmoid-of-one" => {
                    let of_logits = match got[..] {
                        [logit] => vec![1.0 / (1.0 + (-logit).exp())],
                        _ => {
                            let sum: f64 = got.iter().map(|x| x.exp()).sum();
                            got.iter().map(|x| x.exp() / sum).collect()
                        }
                    };
                    assert_near(&listed.name, &of_logits, expected);
                }
                _ => assert_near(&listed.name, &got, expected),
            }
        }
        count += 1;
    }
    assert!(count >= 25, "{count}");
}

/// Within single precision.
fn assert_near(name: &str, got: &[f64], expected: &[f64]) {
    let largest = expected.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
    assert_eq!(got.len(), expected.len(), "{name}");
    for (a, b) in got.iter().zip(expected) {
        assert!(
            (a - b).abs() < 2e-5 * largest,
            "{name}: {got:?} {expected:?}"
        );
    }
}

/// What is a convolution stays one, and what is linear is one layer.
#[test]
fn structure_is_kept() {
    let kinds = |name: &str| -> String {
        let path = directory().join("models").join(name).with_extension("onnx");
        let network = import::read(&path, "listed", InputKind::Pixels).unwrap();
        let kind = |layer: &_| match layer {
            he_nn::network::NetworkLayer::Conv2d(..) => 'c',
            he_nn::network::NetworkLayer::Dense(_) => 'd',
            _ => 'p',
        };
        network.layers.iter().map(kind).collect()
    };
    for (name, expected) in [
        ("batchnorm", "cpd"),
        // A constant in front of padding: places at the border differ.
        ("batchnorm-first", "dpd"),
        ("average-pool", "cpd"),
        ("pad", "cpd"),
        ("pad-with-a-value", "dpd"),
        ("dilated", "cpd"),
        ("grouped", "ccpd"),
        ("uneven-strides", "dpd"),
        ("shortcut", "cpdpd"),
        ("inception", "cpd"),
        ("channels-last", "cpd"),
        ("scaled-behind-square", "cpcpd"),
    ] {
        assert_eq!(kinds(name), expected, "{name}");
    }
}

/// Labels of classifiers are scikit-learn's.
#[test]
fn classifiers_of_scikit_learn_say_what_they_said() {
    let mut count = 0;
    for listed in list() {
        let (Some((table, labels)), None) = (&listed.table, &listed.refused) else {
            continue;
        };
        let network = import::read(&file(&listed), "listed", listed.kind).unwrap();
        let test = Samples::open(table, Split::Test, &Choice::default()).unwrap();
        assert_eq!(test.len(), labels.len());
        for (index, (sample, _)) in test.all().into_iter().enumerate() {
            let logits = network.logits(sample).unwrap();
            assert_eq!(
                clear::class(&logits) as u64,
                labels[index],
                "{} {index}",
                listed.name
            );
        }
        count += 1;
    }
    assert_eq!(count, 12);
}

/// Encrypted and clear labels agree over a thousand drawn samples, or all of the table:
/// a flip only where two logits are as near as the plan's error.
#[test]
fn encrypted_labels_are_those_in_the_clear() {
    let (mut flips, mut beyond, mut compared) = (0, 0, 0);
    let (all, mut noisy) = (list(), Vec::new());
    for listed in all.iter().filter(|listed| listed.refused.is_none()) {
        let mut network = import::read(&file(listed), "listed", listed.kind).unwrap();
        let mut state = 5u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as f64 / f64::from(1u32 << 31)
        };
        let drawn: Vec<Owned> = match &listed.table {
            Some((table, _)) => {
                let train = Samples::open(table, Split::Train, &Choice::default()).unwrap();
                let (means, deviations) = train.standard();
                network.standardise(&means, &deviations).unwrap();
                let owned = |(sample, _): (Sample<'_>, u8)| match sample {
                    Sample::Features(row) => Owned::Features(row.to_vec()),
                    Sample::Pixels(pixels) => Owned::Pixels(pixels.to_vec()),
                };
                train.all().into_iter().map(owned).collect()
            }
            None => {
                let values = match &network.input {
                    NetworkInput::Image(shape) => shape.values(),
                    NetworkInput::Features { means, .. } => means.len(),
                };
                let reach = if listed.kind == InputKind::Pixels {
                    256.0
                } else {
                    3.0
                };
                let row = |_| -> Vec<f64> { (0..values).map(|_| reach * next()).collect() };
                (0..1000)
                    .map(row)
                    .map(|row| Owned::of(listed.kind, &row))
                    .collect()
            }
        };
        let network = network.quantized();
        let samples: Vec<Sample<'_>> = drawn.iter().map(Owned::sample).collect();
        let labelled = || samples.iter().map(|&sample| (sample, 0));
        let made = clear::calibrated(&network, labelled(), labelled()).unwrap();
        let model = Model::parse(&made.file).unwrap();
        let plan = planning::batch_plan(None, model);
        let plan = plan.unwrap_or_else(|error| panic!("{}: {error}", listed.name));
        let mut service = Batches::new(plan).unwrap();
        let allowed = service.deployment().logit_error.six_sigma;
        let answers = service.infer(&samples, &mut ()).unwrap();
        for (answer, &sample) in answers.iter().zip(&samples) {
            let inference = answer
                .as_ref()
                .unwrap_or_else(|e| panic!("{}: {e}", listed.name));
            let plain = clear::logits(&model, sample).unwrap();
            let error = clear::largest_error(&inference.logits, &plain);
            // The plan's six standard deviations are those of a usual sample: one whose
            // values are far out is noisier, is counted, and has a figure of its own.
            let own = inference.allowed_error.unwrap_or(allowed);
            assert!(error <= own, "{}: {error} {own} {allowed}", listed.name);
            assert_eq!(own > allowed, error > allowed, "{}", listed.name);
            if error > allowed && !noisy.contains(&&listed.name) {
                noisy.push(&listed.name);
            }
            beyond += usize::from(error > allowed);
            compared += 1;
            let label = clear::class(&plain);
            if inference.label() != label {
                let margin = match plain[..] {
                    [logit] => logit.abs(),
                    _ => plain[label] - plain[inference.label()],
                };
                assert!(margin <= 2.0 * error, "{}: {margin} {error}", listed.name);
                flips += 1;
            }
        }
    }
    println!(
        "{compared} samples, {flips} labels changed, {beyond} errors beyond the plan's figure in {noisy:?}"
    );
    assert!(
        compared > 25_000 && flips < 10 && 1000 * beyond < compared,
        "{flips} {beyond}"
    );
}

/// A perceptron with rectifiers, of scikit-learn: at most one of 54 rows is lost.
#[test]
fn a_rectifier_is_replaced_on_the_table_that_it_was_trained_on() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("model.hemodel");
    let [onnx, data] = ["models/wine-relu.onnx", "tables/wine"].map(|path| directory().join(path));
    let call = [
        "import",
        onnx.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let said = fails(1, &call);
    assert!(said.contains("--fit-activations"), "{said}");
    let said = fails(
        1,
        &[&call[..], &["--fit-activations", "--degree", "1"]].concat(),
    );
    assert!(said.contains("from 2 to 15"), "{said}");
    let said = succeeds(&[&call[..], &["--fit-activations"]].concat());
    assert!(
        said.contains("Relu of node") && said.contains("distilled"),
        "{said}"
    );
    let share = |line: &str| -> f64 {
        let line = said.lines().find(|found| found.contains(line)).unwrap();
        let before = line.split(" % right").next().unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let (original, encrypted) = (share("before activations"), share("weights of 8 bits"));
    assert!(encrypted > original - 1.9, "{said}");
}

/// From a table and scikit-learn's file to encrypted labels: two commands.
#[test]
fn tables_of_scikit_learn_from_csv_to_encrypted_labels() {
    for (table, classes, least) in [
        ("breast-cancer", "benign, malignant", 0.97),
        ("wine", "class_0, class_1, class_2", 0.97),
    ] {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("model.hemodel");
        let (out, data) = (
            out.to_str().unwrap(),
            directory().join("tables").join(table),
        );
        let (data, onnx) = (
            data.to_str().unwrap(),
            directory()
                .join("models")
                .join(format!("{table}-logistic.onnx")),
        );
        let onnx = onnx.to_str().unwrap();
        let said = succeeds(&["import", onnx, "--data", data, "--out", out]);
        assert!(said.contains(classes), "{said}");
        let report = succeeds(&[
            "infer",
            "--model",
            out,
            "--data",
            data,
            "--count",
            "50",
            "--packing",
            "batch",
            "--json",
            "-",
        ]);
        let report: Value = serde_json::from_str(&report).unwrap();
        assert_eq!(report["label_flips"], 0);
        assert!(report["accuracy"].as_f64().unwrap() >= least, "{report}");
        // Data of the other form is one sentence with both.
        let said = fails(1, &["infer", "--model", "mnist-mlp64", "--data", data]);
        assert!(said.contains("features, and images of 1x28x28"), "{said}");
        let said = fails(
            1,
            &["infer", "--model", out, "--data", data, "--label", "colour"],
        );
        assert!(said.contains("no column \"colour\""), "{said}");
    }
}

#[test]
fn weights_are_rounded_as_one_chooses_and_compared() {
    let out = TempDir::new().unwrap();
    let model = out.path().join("wine.hemodel");
    let model = model.to_str().unwrap();
    let onnx = directory().join("models/wine-logistic.onnx");
    let table = directory().join("tables/wine");
    let (onnx, table) = (onnx.to_str().unwrap(), table.to_str().unwrap());
    let rounded = ["--bits", "4", "--per", "channel"];
    let import = ["import", onnx, "--data", table, "--out", model];
    let said = succeeds(&[&import[..], &rounded].concat());
    assert!(said.contains("4 bits per channel"), "{said}");
    let said = succeeds(&[&import[..], &["--bits", "16"]].concat());
    assert!(said.contains("16 bits per tensor"), "{said}");

    let plan = ["plan", "--model", model, "--data", table, "--quantization"];
    let text = succeeds(&[&plan[..], &["--count", "10"]].concat());
    assert!(
        text.contains("scale per") && text.contains("the first 10 of them"),
        "{text}"
    );
    let document: Value = serde_json::from_str(&succeeds(
        &[&plan[..], &["--count", "10", "--json", "-"]].concat(),
    ))
    .unwrap();
    let rows = document["quantizations"].as_array().unwrap();
    assert_eq!(rows.len(), 7);
    let ways: Vec<(u64, &str)> = rows
        .iter()
        .map(|row| (row["bits"].as_u64().unwrap(), row["per"].as_str().unwrap()))
        .collect();
    assert!(
        ways.contains(&(4, "channel")) && ways.contains(&(16, "tensor")),
        "{ways:?}"
    );
    for row in rows {
        let found = &row["encrypted"];
        assert_eq!(
            (&found["samples"], &found["label_flips"]),
            (&10.into(), &0.into()),
            "{row}"
        );
        let [error, most] = ["logit_error", "logit_error_six_sigma"].map(|f| found[f].as_f64());
        assert!(error < most, "{row}");
        assert!(row["plain_accuracy"].as_f64().unwrap() > 0.9, "{row}");
    }
}
