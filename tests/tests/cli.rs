//! The command as people and programs call it: what it prints where, and its
//! exit status.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use assert_cmd::Command;
use he_edge_tests::assert_one_sentence;
use he_edge_tests::command::binary;
use he_edge_tests::networks::{self, CUBIC, Part, image, network};
use he_nn::boards::BOARDS;
use he_nn::bundled;
use he_nn::import::schema::{
    DimensionProto, FLOAT, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use he_nn::model::Model;
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;

/// No call may take longer.
const LIMIT: Duration = Duration::from_secs(120);

fn he_edge(arguments: &[&str]) -> Output {
    Command::new(binary())
        .env("HE_EDGE_PROGRESS", "never")
        .args(arguments)
        .timeout(LIMIT)
        .output()
        .unwrap()
}

/// Standard output of a call that works and has nothing to say on standard
/// error.
fn succeeds(arguments: &[&str]) -> String {
    let output = he_edge(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), errors.as_str()),
        (Some(0), ""),
        "{arguments:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The sentence of a call that does not work: the only line on standard error,
/// and nothing on standard output.
fn fails(status: i32, arguments: &[&str]) -> String {
    let output = he_edge(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    let what = format!("{arguments:?}: {errors}");
    assert_eq!(output.status.code(), Some(status), "{what}");
    assert!(output.stdout.is_empty(), "{what}");
    assert_eq!(errors.lines().count(), 1, "{what}");
    let sentence = errors.trim_end().strip_prefix("he-edge: ").expect(&what);
    assert_one_sentence(&what, &sentence);
    sentence.to_owned()
}

/// The one JSON document on standard output.
fn json(arguments: &[&str]) -> Value {
    let text = succeeds(arguments);
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn path(directory: &TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_owned()
}

#[test]
fn the_main_job() {
    let text = succeeds(&[]);
    let predictions = text
        .lines()
        .filter(|line| line.contains("right") || line.contains("wrong"))
        .flat_map(|line| line.split_whitespace())
        .filter(|word| word.len() == 1 && word.bytes().all(|b| b.is_ascii_digit()));
    let predictions: String = predictions.collect();
    assert!(
        predictions.starts_with("01234567890123456789"),
        "{predictions}"
    );
    // Pictures of all of them, seven lines of braille for every five.
    let braille = |c: char| ('\u{2801}'..='\u{28FF}').contains(&c);
    let drawn = text.lines().filter(|line| line.contains(braille)).count();
    assert!((20..=28).contains(&drawn), "{drawn} lines");
    for part in [
        "right",
        "20 of 20, 0 labels changed",
        "ms per image",
        "KB up",
        "switching keys",
        "KB down",
        "evaluator memory",
        "128 bit",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn infer_as_json() {
    let document = json(&["infer", "--count", "3", "--offset", "4", "--json", "-"]);
    let keys = |value: &Value| -> Vec<String> {
        let object = value.as_object().unwrap();
        object.keys().cloned().collect()
    };
    let sorted = |names: &[&str]| {
        let mut names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(
        keys(&document),
        sorted(&[
            "device",
            "model",
            "weights",
            "sums",
            "packing",
            "params",
            "images",
            "accuracy",
            "plain_accuracy",
            "label_flips",
            "bytes_up",
            "bytes_down",
            "key_bytes_up",
            "evaluator",
            "wall_seconds",
            "cpu_seconds",
            "retries",
            "unfinished",
            "audited",
            "logit_error_six_sigma"
        ])
    );
    for (field, value) in [
        ("device", "inproc"),
        ("model", "mnist-mlp64"),
        ("weights", "plain"),
        ("packing", "latency"),
    ] {
        assert_eq!(document[field], value);
    }
    let params = &document["params"];
    assert_eq!(
        keys(params),
        sorted(&["n", "log_q", "log_qp", "data_limbs", "security_bits"])
    );
    assert_eq!(
        (
            &params["n"],
            &params["data_limbs"],
            &params["security_bits"]
        ),
        (&4096.into(), &4.into(), &128.into())
    );
    let (log_q, log_qp) = (&params["log_q"], &params["log_qp"]);
    let (log_q, log_qp) = (log_q.as_f64().unwrap(), log_qp.as_f64().unwrap());
    assert!(log_q < log_qp && log_qp < 106.0);

    let images = document["images"].as_array().unwrap();
    assert_eq!(images.len(), 3);
    for (image, index) in images.iter().zip(4u64..) {
        assert_eq!(
            keys(image),
            sorted(&[
                "index",
                "label",
                "predicted",
                "plain_predicted",
                "max_logit_error",
                "logits",
                "seconds",
                "bytes_up",
                "key_bytes_up"
            ])
        );
        for field in ["index", "label", "predicted", "plain_predicted"] {
            assert_eq!(image[field].as_u64(), Some(index), "{field}");
        }
        assert!(image["max_logit_error"].as_f64().unwrap() < 0.1);
        assert!(image["seconds"].as_f64().unwrap() > 0.0);
        let logits = image["logits"].as_array().unwrap();
        assert!(logits.len() == 10 && logits.iter().all(Value::is_f64));
    }
    for (field, value) in [("accuracy", 1.0), ("plain_accuracy", 1.0)] {
        assert_eq!(document[field].as_f64(), Some(value));
    }
    assert_eq!(document["label_flips"].as_u64(), Some(0));
    let bytes = |field: &str| document[field].as_u64().unwrap();
    assert!(bytes("bytes_up") > bytes("key_bytes_up") && bytes("key_bytes_up") > 0);
    assert!(bytes("bytes_down") > 0);
    assert!(document["wall_seconds"].as_f64().unwrap() > 0.0);

    let evaluator = &document["evaluator"];
    assert_eq!(
        keys(evaluator),
        sorted(&[
            "instructions",
            "cycles",
            "instructions_with_link",
            "cycles_with_link",
            "cpu_ms",
            "wall_ms",
            "ram_static_bytes",
            "ram_stack_peak_bytes",
            "stages"
        ])
    );
    assert!(document["cpu_seconds"].as_f64().unwrap() > 0.0);
    for field in ["cpu_ms", "wall_ms"] {
        assert!(evaluator[field].as_f64().unwrap() > 0.0, "{field}");
    }
    // Nothing counts in this process.
    for field in ["instructions", "cycles"] {
        let with_link = format!("{field}_with_link");
        assert!(evaluator[field].is_null() && evaluator[&with_link].is_null());
    }
    assert!(evaluator["ram_static_bytes"].as_u64().unwrap() > 0);
    assert!(evaluator["ram_stack_peak_bytes"].is_u64());
    let stages = evaluator["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["layer 0: 784-64", "square 1", "layer 2: 64-10"]);
    assert!(stages.iter().all(|stage| stage["instructions"].is_null()));
}

/// A run in steps is the run in one.
#[test]
fn a_run_goes_on_where_it_stopped() {
    let directory = TempDir::new().unwrap();
    let ledger = path(&directory, "ledger");
    let run = |more: &[&str]| {
        let all = [&["infer", "--json", "-", "--resume", &ledger], more].concat();
        json(&all)
    };
    let first = run(&["--count", "3"]);
    let lines = |count: usize| {
        let text = fs::read_to_string(&ledger).unwrap();
        assert_eq!(text.lines().count(), count, "{text}");
    };
    lines(4);
    let all = run(&["--count", "5"]);
    lines(6);
    let images = |document: &Value| document["images"].as_array().unwrap().clone();
    let of = |image: &Value| (image["index"].clone(), image["predicted"].clone());
    assert_eq!(images(&all).len(), 5);
    for (before, now) in images(&first).iter().zip(&images(&all)) {
        assert_eq!(of(before), of(now));
    }
    assert_eq!(
        (&all["retries"], &all["unfinished"]),
        (&0.into(), &0.into())
    );
    // All of it is there: nothing is encrypted again.
    let again = run(&["--count", "5"]);
    assert_eq!(images(&again), images(&run(&["--count", "5"])));
    lines(6);
    // The first bytes are those of the keys, which the ledger has.
    assert_eq!(again["bytes_up"], all["bytes_up"]);
    for (what, other) in [
        ("model", &["--model", "mnist-cnn"][..]),
        ("packing", &["--packing", "batch"]),
        ("weights", &["--weights", "encrypted"]),
    ] {
        let other = [&["infer", "--count", "1", "--resume", &ledger], other].concat();
        let sentence = fails(1, &other);
        assert!(sentence.contains(&format!("whose {what}")), "{sentence}");
    }
    let sentence = fails(1, &["infer", "--resume", &path(&directory, "no/ledger")]);
    assert!(sentence.contains("no/ledger"), "{sentence}");
    lines(6);
}

/// A minute of work is not lost with its output.
#[test]
fn outputs_are_checked_before_the_work() {
    let directory = TempDir::new().unwrap();
    let nowhere = path(&directory, "no/file");
    let folder = path(&directory, "");
    for file in [&nowhere, &folder] {
        for arguments in [
            &["infer", "--count", "1", "--json", file][..],
            &["infer", "--count", "1", "--trace", file],
            &["bench", "--json", file],
            &["sense", "--device", "/dev/no-such-port", "--json", file],
            &["train", "mnist-mlp64", "--data", "/no-data", "--out", file],
            &[
                "import",
                "/no-file.onnx",
                "--data",
                "/no-data",
                "--out",
                file,
            ],
        ] {
            let sentence = fails(1, arguments);
            let known = sentence.contains(file.trim_end_matches('/'));
            assert!(known, "{arguments:?}: {sentence}");
        }
    }
    // Nothing is left beside them.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_file_of_json_beside_the_table() {
    let directory = TempDir::new().unwrap();
    let file = path(&directory, "report.json");
    let text = succeeds(&["infer", "--count", "1", "--json", &file]);
    assert!(text.contains("largest logit error"), "{text}");
    let document: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(document["images"].as_array().unwrap().len(), 1);
    let nowhere = path(&directory, "no/such/report.json");
    fails(1, &["infer", "--count", "1", "--json", &nowhere]);
}

#[test]
fn plan() {
    let text = succeeds(&["plan"]);
    for part in [
        "headroom",
        "logit error",
        "memory",
        "2^",
        "ms per run",
        "error after",
        "what would help most",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let on_board = ["plan", "--board", "mps2-an386"];
    let text = succeeds(&on_board);
    for part in ["headroom", "logit error", "memory", "2^", "instructions"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let document = json(&[&on_board[..], &["--json", "-"]].concat());
    for field in ["logit_error_six_sigma", "headroom_bits"] {
        assert!(document[field].as_f64().unwrap() > 0.0, "{field}");
    }
    for field in [
        "ram_bytes",
        "key_bytes",
        "input_bytes",
        "output_bytes",
        "kept_bytes",
        "later_upload_bytes",
        "instructions_estimate",
    ] {
        assert!(document[field].as_u64().unwrap() > 0, "{field}");
    }
    // Every step has its error, its part of the instructions, and of the bytes what it waits
    // for: the square key or inputs, but no bias.
    let steps = document["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3);
    let sum = |field: &str| -> u64 { steps.iter().map(|s| s[field].as_u64().unwrap()).sum() };
    let [inputs, keys] = ["input_bytes", "key_bytes"].map(|f| document[f].as_u64().unwrap());
    assert_eq!(sum("bytes_up"), inputs + keys);
    let all = document["instructions_estimate"].as_u64().unwrap();
    // Shares are rounded.
    assert!(sum("cost").abs_diff(all) <= 3, "{document}");
    let last = steps[2]["error_six_sigma"].as_f64().unwrap();
    assert_eq!(document["logit_error_six_sigma"].as_f64(), Some(last));
    assert!(
        steps
            .iter()
            .all(|s| s["error_six_sigma"].as_f64().unwrap() > 0.0)
    );
    let saves = json(&["plan", "--json", "-"])["advice"]["saves"].as_f64();
    assert!(
        saves.is_some_and(|saves| (0.01..1.0).contains(&saves)),
        "{saves:?}"
    );
    let parts = |board| {
        let document = json(&["plan", "--board", board, "--json", "-"]);
        let parts = document["memory"].as_array().unwrap().clone();
        let sum: u64 = parts.iter().map(|p| p["bytes"].as_u64().unwrap()).sum();
        assert_eq!(document["ram_available"].as_u64(), Some(sum), "{board}");
        sum
    };
    assert_eq!(parts("mps2-an386"), 512 * 1024);
    assert_eq!(parts("mps2-an386-256k"), 256 * 1024);
    fails(1, &["plan", "--board", "toaster"]);
    // Every board's plan is for the lines that it can have, and no others.
    for board in BOARDS {
        let document = json(&["plan", "--board", board.name, "--json", "-"]);
        let lines = document["lines"].as_array().unwrap().iter();
        let rates: Vec<u64> = lines.map(|line| line["baud"].as_u64().unwrap()).collect();
        let expected: Vec<u64> = board.bauds.iter().map(|&baud| baud.into()).collect();
        assert_eq!(rates, expected, "{}", board.name);
    }
    let text = succeeds(&["plan", "--board", "nrf52840-dk"]);
    assert!(
        text.contains("1 Mbaud") && !text.contains("3 Mbaud"),
        "{text}"
    );
}

#[test]
fn models_that_do_not_do() {
    let directory = TempDir::new().unwrap();
    // Sound, and with an activation that is no polynomial.
    let rectifier = path(&directory, "rectifier.hemodel");
    fs::write(&rectifier, bundled::model("mnist-mlp64-relu").unwrap()).unwrap();
    let reason = fails(2, &["plan", "--model", &rectifier]);
    assert!(reason.contains("layer 1"), "{reason}");
    assert_eq!(
        fails(2, &["plan", "--model", &rectifier, "--json", "-"]),
        reason
    );
    assert_eq!(fails(2, &["infer", "--model", &rectifier]), reason);
    assert_eq!(fails(2, &["serve", "--model", &rectifier]), reason);
    // Deeper than any set, by a host's sets and by those of a session.
    let deep = path(&directory, "deep.hemodel");
    let mut parts = vec![Part::Dense(8)];
    for _ in 0..4 {
        parts.extend([Part::Polynomial(&CUBIC), Part::Dense(8)]);
    }
    fs::write(&deep, network(image(4), &parts)).unwrap();
    for command in ["plan", "serve"] {
        let reason = fails(2, &[command, "--model", &deep]);
        assert!(reason.contains("13 rescales"), "{reason}");
    }
    // Bundled digits are no samples of a network for other images.
    let reason = fails(1, &["infer", "--model", &deep]);
    assert!(reason.contains("--data"), "{reason}");

    let missing = path(&directory, "missing.hemodel");
    let sound = bundled::model("mnist-mlp64").unwrap();
    let broken = path(&directory, "broken.hemodel");
    let mut bytes = sound.to_vec();
    bytes[20_000] ^= 4;
    fs::write(&broken, &bytes).unwrap();
    let short = path(&directory, "short.hemodel");
    fs::write(&short, &sound[..30_000]).unwrap();
    let empty = path(&directory, "empty.hemodel");
    fs::write(&empty, []).unwrap();
    let text = path(&directory, "text.hemodel");
    fs::write(&text, "no model\n").unwrap();
    let here = directory.path().to_str().unwrap();
    for model in [&missing, &broken, &short, &empty, &text, here, "mnist"] {
        for command in ["plan", "infer", "serve"] {
            let sentence = fails(1, &[command, "--model", model]);
            assert!(sentence.contains(model), "{sentence}");
        }
    }
}

/// An IDX file of one image, and one of its label.
fn idx(directory: &TempDir) -> (Vec<u8>, Vec<u8>) {
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28];
    images.extend([7; 784]);
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 1, 3];
    write_idx(directory, &images, &labels);
    (images, labels)
}

fn write_idx(directory: &TempDir, images: &[u8], labels: &[u8]) {
    let file = |name| directory.path().join(name);
    fs::write(file("t10k-images-idx3-ubyte"), images).unwrap();
    fs::write(file("t10k-labels-idx1-ubyte"), labels).unwrap();
}

#[test]
fn data_that_does_not_do() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().to_str().unwrap();
    let call = ["infer", "--data", data, "--count", "1"];
    let missing = fails(1, &call);
    assert!(missing.contains("t10k-images-idx3-ubyte"), "{missing}");
    let nowhere = path(&directory, "nowhere");
    fails(1, &["infer", "--data", &nowhere]);

    let (images, labels) = idx(&directory);
    succeeds(&call);
    fails(1, &["infer", "--data", data, "--split", "train"]);
    let range = fails(1, &["infer", "--data", data, "--count", "2"]);
    assert!(range.contains("--count"), "{range}");
    for length in [0, 3, 4, 15, 16, 500, images.len() - 1] {
        write_idx(&directory, &images[..length], &labels);
        let sentence = fails(1, &call);
        assert!(sentence.contains("cut short"), "{length}: {sentence}");
    }
    for length in [0, 7, 8] {
        write_idx(&directory, &images, &labels[..length]);
        let sentence = fails(1, &call);
        assert!(sentence.contains("cut short"), "{length}: {sentence}");
    }
    write_idx(&directory, &labels, &images);
    fails(1, &call);
    let mut eleven = labels;
    eleven[8] = 11;
    write_idx(&directory, &images, &eleven);
    let sentence = fails(1, &call);
    assert!(sentence.contains("class number 11"), "{sentence}");
}

#[test]
fn devices_that_are_not_there() {
    // Nobody listens at a port that was just given back.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let directory = TempDir::new().unwrap();
    let file = path(&directory, "file");
    fs::write(&file, "no port").unwrap();
    for device in [
        "/dev/no-such-port",
        "/dev/no-such-port@921600",
        &file,
        &format!("tcp:127.0.0.1:{port}"),
        "tcp:no-such-host.invalid:7700",
        "toaster",
        "tcp:nonsense",
        "qemu:",
        "",
    ] {
        let sentence = fails(1, &["infer", "--device", device, "--count", "1"]);
        let name = device.split('@').next().unwrap();
        assert!(sentence.contains(name), "{sentence}");
    }
    let sentence = fails(1, &["infer", "--device", "qemu:toaster"]);
    assert!(sentence.contains("no board toaster"), "{sentence}");
}

/// The operations that programs find in `bench --json`.
const OPERATIONS: [&str; 15] = [
    "ntt_forward",
    "ntt_inverse",
    "encode",
    "decode",
    "encrypt_secret",
    "encrypt_public",
    "decrypt",
    "add",
    "multiply_plain",
    "multiply_ct",
    "relinearize",
    "rescale",
    "rotate",
    "keygen_relin",
    "keygen_rotation",
];

#[test]
fn bench_on_the_host() {
    let report = json(&["bench", "--json", "-"]);
    assert_eq!(report["device"], "inproc");
    let results = report["results"].as_array().unwrap();
    for name in OPERATIONS {
        let row = results.iter().find(|row| row["op"] == name).unwrap();
        assert!(row["median_us"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["instructions"].is_null(), "{row}");
        assert_eq!(row["n"], 4096, "{row}");
        let limbs = if name.starts_with("ntt") { 1 } else { 4 };
        assert_eq!(row["limbs"], limbs, "{row}");
        assert!(row["log_q"].as_f64().unwrap() > 26.0, "{row}");
        assert!(!row["backend"].as_str().unwrap().is_empty(), "{row}");
    }
    let error = fails(1, &["bench", "--device", "tcp:localhost:1"]);
    assert!(error.contains("nothing measures operations on tcp:localhost:1"));
}

#[test]
fn a_wrong_command_line() {
    for arguments in [
        &["fly"][..],
        &["infer", "--count", "0"],
        &["infer", "--count", "many"],
        &["infer", "--split", "both"],
        &["infer", "--weights", "heavy"],
        &["train", "mnist-mlp64"],
        &["plan", "--wings"],
    ] {
        fails(1, arguments);
    }
    assert!(succeeds(&["--help"]).contains("infer"));
    assert!(succeeds(&["infer", "--help"]).contains("--device"));
    succeeds(&["--version"]);
}

#[test]
fn what_has_no_plan_is_refused_by_name() {
    let batch = ["--weights", "encrypted", "--packing", "batch"];
    for command in ["infer", "plan"] {
        let sentence = fails(2, &[&[command][..], &batch].concat());
        assert!(sentence.contains("50816 ciphertexts"), "{sentence}");
    }
    // A board has one sample at a time.
    let device = ["infer", "--device", "tcp:127.0.0.1:9", "--packing", "batch"];
    let sentence = fails(2, &device);
    assert!(sentence.contains("--device inproc"), "{sentence}");
    let sentence = fails(2, &["plan", "--board", "pico2", "--packing", "batch"]);
    assert!(sentence.contains("no --board"), "{sentence}");
    // Its memory is what decides.
    let encrypted = ["--weights", "encrypted"];
    let small = ["plan", "--board", "mps2-an386-256k"];
    let emulated = ["infer", "--device", "qemu:mps2-an386-256k"];
    for command in [small, emulated] {
        let sentence = fails(2, &[&command[..], &encrypted].concat());
        assert!(
            sentence.contains("282624 bytes") && sentence.contains("217088"),
            "{sentence}"
        );
    }
    let large = ["plan", "--board", "mps2-an386"];
    let plan = succeeds(&[&large[..], &encrypted].concat());
    assert!(plan.contains("315 392 of them the arena"), "{plan}");
    let shallow = ["--model", "mnist-cnn", "--params", "n4096-depth3"];
    for command in ["infer", "plan"] {
        let sentence = fails(2, &[&[command][..], &shallow].concat());
        assert!(sentence.contains("5 rescales"), "{sentence}");
    }
    // Features have no bundled samples.
    let sentence = fails(1, &["infer", "--model", "pima-logreg"]);
    assert!(sentence.contains("--data"), "{sentence}");
}

#[test]
fn a_circuit_says_what_every_layer_took() {
    let network = ["--model", "mnist-cnn", "--json", "-"];
    let plan: Value = serde_json::from_str(&succeeds(&[&["plan"][..], &network].concat())).unwrap();
    let output = succeeds(&[&["infer", "--count", "3"][..], &network].concat());
    let report: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["label_flips"], 0);
    assert_eq!(report["params"], plan["params"]);
    let six = plan["logit_error_six_sigma"].as_f64().unwrap();
    for image in report["images"].as_array().unwrap() {
        assert!(image["max_logit_error"].as_f64().unwrap() < six);
    }
    let stages = report["evaluator"]["stages"].as_array().unwrap();
    let steps = plan["steps"].as_array().unwrap();
    assert_eq!(stages.len(), steps.len());
    for (stage, step) in stages.iter().zip(steps) {
        assert_eq!(stage["name"], step["name"]);
        assert_eq!(stage["level"], step["level"]);
        assert_eq!(stage["scale_log2"], step["scale_log2"]);
        assert!(stage["seconds"].as_f64().unwrap() > 0.0);
        assert!(stage["instructions"].is_null());
    }
    // The inputs of three images, and the keys once.
    let bytes = |name: &str| report[name].as_u64().unwrap();
    let inputs = plan["input_bytes"].as_u64().unwrap();
    assert_eq!(bytes("bytes_up"), inputs + bytes("key_bytes_up"));
    assert_eq!(
        bytes("key_bytes_up"),
        plan["key_bytes"].as_u64().unwrap() / 3
    );
}

#[test]
fn encrypted_weights_and_batches() {
    for (arguments, count, params, samples) in [
        (&["--weights", "encrypted"][..], "2", 4096, 1),
        (&["--packing", "batch"], "20", 4096, 2048),
        (
            &["--model", "mnist-cnn", "--weights", "encrypted"],
            "1",
            8192,
            1,
        ),
    ] {
        let json = |command: &[&str]| -> Value {
            let text = succeeds(&[command, &["--json", "-"], arguments].concat());
            serde_json::from_str(&text).unwrap()
        };
        let report = json(&["infer", "--count", count]);
        assert_eq!(report["label_flips"], 0, "{arguments:?}");
        let plan = json(&["plan"]);
        assert_eq!(plan["params"]["n"], params, "{arguments:?}");
        assert_eq!(plan["samples"], samples, "{arguments:?}");
        assert_eq!(report["params"], plan["params"]);
        for image in report["images"].as_array().unwrap() {
            assert!(image["max_logit_error"].as_f64().unwrap() < 0.2);
        }
    }
}

#[test]
fn a_trace_is_a_file_and_a_picture_beside_it() {
    let directory = TempDir::new().unwrap();
    let trace = path(&directory, "trace.json");
    succeeds(&["infer", "--count", "1", "--trace", &trace]);
    let events: Value = serde_json::from_str(&fs::read_to_string(&trace).unwrap()).unwrap();
    assert!(events["traceEvents"].as_array().unwrap().len() > 1000);
    let picture = fs::read_to_string(path(&directory, "trace.svg")).unwrap();
    assert!(picture.starts_with("<svg"));
    for name in ["-", "picture.svg"] {
        let sentence = fails(1, &["infer", "--trace", name]);
        assert!(sentence.contains("trace.json"), "{sentence}");
    }
    let nowhere = path(&directory, "no/trace.json");
    let sentence = fails(1, &["infer", "--count", "1", "--trace", &nowhere]);
    assert!(sentence.contains("cannot be written"), "{sentence}");
}

/// A data set in the format of MNIST: the bundled digits twice.
fn digits_as_data() -> TempDir {
    let directory = TempDir::new().unwrap();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../he-nn/assets/digits");
    for (kind, idx) in [("images", "idx3"), ("labels", "idx1")] {
        let from = digits.join(format!("digits-{kind}-{idx}-ubyte"));
        for split in ["train", "t10k"] {
            let to = directory.path().join(format!("{split}-{kind}-{idx}-ubyte"));
            fs::copy(&from, to).unwrap();
        }
    }
    directory
}

/// An ONNX file of 784 pixels, one dense layer of ten outputs.
fn one_layer() -> ModelProto {
    let tensor = |name: &str, dims: &[i64], value: f32| TensorProto {
        dims: dims.to_vec(),
        data_type: FLOAT,
        float_data: vec![value; dims.iter().product::<i64>() as usize],
        name: name.into(),
        ..TensorProto::default()
    };
    let value = |name: &str, dims: &[i64]| ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: FLOAT,
                shape: Some(TensorShapeProto {
                    dim: dims
                        .iter()
                        .map(|&dim_value| DimensionProto {
                            dim_value,
                            dim_param: String::new(),
                        })
                        .collect(),
                }),
            }),
        }),
    };
    let graph = GraphProto {
        node: vec![NodeProto {
            input: vec!["x".into(), "w".into(), "b".into()],
            output: vec!["y".into()],
            name: "/fc/Gemm".into(),
            op_type: "Gemm".into(),
            ..NodeProto::default()
        }],
        name: "one layer".into(),
        initializer: vec![tensor("w", &[784, 10], 0.01), tensor("b", &[10], 0.5)],
        input: vec![value("x", &[1, 784])],
        output: vec![value("y", &[1, 10])],
    };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: Vec::new(),
    }
}

#[test]
fn import_of_an_onnx_file() {
    let data = digits_as_data();
    let directory = TempDir::new().unwrap();
    let (file, out) = (
        path(&directory, "layer.onnx"),
        path(&directory, "out.hemodel"),
    );
    let data = data.path().to_str().unwrap();
    let call = ["import", &file, "--data", data, "--out", &out];
    fs::write(&file, one_layer().encode_to_vec()).unwrap();
    // All logits are the same: what is right is what the first class is.
    let text = succeeds(&call);
    assert!(text.contains("10.00 % right on 20 test samples"), "{text}");
    let bytes = fs::read(&out).unwrap();
    let model = Model::parse(&bytes).unwrap();
    assert_eq!(
        (model.name(), model.inputs(), model.outputs()),
        ("layer", 784, 10)
    );
    assert!(model.layers().all(|view| view.layer.range() > 0.5));

    // It is evaluated like any other.
    let report = succeeds(&["infer", "--model", &out, "--json", "-"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    // All logits are the same, so labels are whatever errors make of them.
    for image in report["images"].as_array().unwrap() {
        assert!(image["max_logit_error"].as_f64().unwrap() < 0.05);
    }
    let named = [&call[..], &["--name", "another"]].concat();
    succeeds(&named);
    assert_eq!(
        Model::parse(&fs::read(&out).unwrap()).unwrap().name(),
        "another"
    );
}

#[test]
fn onnx_files_that_do_not_do() {
    let data = digits_as_data();
    let directory = TempDir::new().unwrap();
    let (file, out) = (path(&directory, "m.onnx"), path(&directory, "out.hemodel"));
    let data = data.path().to_str().unwrap();
    let call = ["import", &file, "--data", data, "--out", &out];
    let missing = fails(1, &call);
    assert!(missing.contains("cannot be read"), "{missing}");
    let refused = |bytes: &[u8], reason: &str| {
        fs::write(&file, bytes).unwrap();
        let sentence = fails(1, &call);
        assert!(sentence.contains(reason), "{sentence}");
        assert!(!Path::new(&out).exists());
    };
    let sound = one_layer().encode_to_vec();
    refused(&[], "not an ONNX file");
    refused(b"no model\n", "not a sound ONNX file");
    refused(&sound[..sound.len() / 2], "not a sound ONNX file");
    let change = |change: fn(&mut GraphProto)| {
        let mut model = one_layer();
        change(model.graph.as_mut().unwrap());
        model.encode_to_vec()
    };
    let operator = change(|graph| graph.node[0].op_type = "LSTM".into());
    refused(&operator, "the operator LSTM of node \"/fc/Gemm\"");
    let shape = change(|graph| graph.initializer[0].dims = vec![783, 10]);
    refused(&shape, "holds 7840 numbers");
    let nan = change(|graph| graph.initializer[0].float_data[7] = f32::NAN);
    refused(&nan, "number 7 of it is NaN");
    // A sound file, but nothing to measure ranges on.
    fs::write(&file, &sound).unwrap();
    let nowhere = path(&directory, "nowhere");
    fails(1, &["import", &file, "--data", &nowhere, "--out", &out]);
    fails(1, &["import", &file, "--out", &out]);
    fails(1, &[&call[..], &["--input", "features"]].concat());
}

#[test]
fn what_a_session_does_not_serve_is_refused_in_a_sentence() {
    let shallow = ["serve", "--model", "mnist-cnn", "--params", "n4096-depth3"];
    let sentence = fails(2, &shallow);
    assert!(sentence.contains("5 rescales"), "{sentence}");
}

#[test]
fn training_needs_its_data() {
    let directory = TempDir::new().unwrap();
    let (data, out) = (path(&directory, ""), path(&directory, "out.hemodel"));
    let arguments = ["train", "mnist-mlp64", "--data", &data, "--out", &out];
    let sentence = fails(1, &arguments);
    assert!(sentence.contains("train-images"), "{sentence}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn encrypted_training() {
    let directory = TempDir::new().unwrap();
    let (data, out) = (path(&directory, ""), path(&directory, "out.hemodel"));
    let report = path(&directory, "report.json");
    let call = [
        "train",
        "pima-logreg",
        "--encrypted",
        "--data",
        &data,
        "--out",
        &out,
    ];
    let sentence = fails(1, &call);
    assert!(sentence.contains("pima-indians-diabetes.csv"), "{sentence}");

    // Glucose and age tell, with some exceptions.
    let rows = (0..120).map(|i| {
        let (glucose, age) = (80 + 37 * i % 101, 21 + 29 * i % 43);
        let label = u8::from((glucose + age > 168) != (i % 17 == 0));
        format!(
            "{},{glucose},70,{},0,{}.5,0.4,{age},{label}\n",
            i % 7,
            i % 31,
            20 + i % 23
        )
    });
    fs::write(path(&directory, "diabetes.csv"), rows.collect::<String>()).unwrap();
    let with = |more: &[&'static str]| [&call[..], more].concat();
    let text = succeeds(&with(&["--refresh", "--epochs", "2"]));
    for what in ["epoch", "log2(scale)", "Chen and Song", "128 bit (N = 4096"] {
        assert!(text.contains(what), "{what}: {text}");
    }
    succeeds(&[&with(&["--no-refresh"])[..], &["--json", &report]].concat());
    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(report["mode"], "no-refresh");
    let epochs = report["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 5);
    let number = |value: &Value| value.as_u64().unwrap();
    for (i, epoch) in epochs.iter().enumerate() {
        // The model goes up before the first and comes down after the last.
        assert_eq!(number(&epoch["bytes_up"]) > 0, i == 0);
        assert_eq!(number(&epoch["bytes_down"]) > 0, i == 4);
        assert_eq!(epoch["after"]["level"], 12 - 3 * i);
        assert!(
            epoch["weight_difference"].as_f64().unwrap() < 0.05,
            "{epoch}"
        );
    }
    assert!(number(&report["quantized_right"]) * 10 > number(&report["test_rows"]) * 7);
    let file = fs::read(&out).unwrap();
    assert_eq!(Model::parse(&file).unwrap().name(), "pima-logreg");

    let sentence = fails(1, &with(&["--no-refresh", "--epochs", "6"]));
    assert!(sentence.contains("1 to 5"), "{sentence}");
    fails(1, &with(&["--epochs", "0"]));
    fails(1, &with(&["--refresh", "--no-refresh"]));
    fails(
        1,
        &[
            "train",
            "pima-logreg",
            "--refresh",
            "--data",
            &data,
            "--out",
            &out,
        ],
    );
    let other = [
        "train",
        "mnist-mlp64",
        "--encrypted",
        "--data",
        &data,
        "--out",
        &out,
    ];
    let sentence = fails(1, &other);
    assert!(sentence.contains("pima-logreg can"), "{sentence}");
}

#[test]
fn flashing_says_what_is_missing() {
    let sentence = fails(1, &["flash", "--board", "mps2-an386"]);
    assert!(
        sentence.contains("infer --device qemu:mps2-an386"),
        "{sentence}"
    );
    let sentence = fails(1, &["flash", "--board", "toaster"]);
    assert!(sentence.contains("there is no board toaster"), "{sentence}");
    let sentence = fails(1, &["flash", "--board", "pico2"]);
    assert!(sentence.contains("--features flash"), "{sentence}");
    let sentence = fails(1, &["infer", "--device", "qemu:pico2"]);
    assert!(
        sentence.contains("no emulator has the board pico2"),
        "{sentence}"
    );
}

/// A server that ends with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut process = std::process::Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // "evaluating mnist-mlp64 at 127.0.0.1:7700"
        let mut line = String::new();
        let stderr = process.stderr.take().unwrap();
        BufReader::new(stderr).read_line(&mut line).unwrap();
        let address = line.split_whitespace().last().unwrap().to_owned();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn serve_and_infer_over_tcp() {
    let server = Server::start(&[]);
    let device = format!("tcp:{}", server.address);
    let infer = ["infer", "--device", &device, "--count", "2", "--json", "-"];
    // Twice: one client after the other.
    for _ in 0..2 {
        let document = json(&infer);
        assert_eq!(document["device"], device.as_str());
        assert_eq!(document["accuracy"].as_f64(), Some(1.0));
    }
    // A client that hangs up in the middle of a frame, and one that talks
    // nonsense.
    for bytes in [&[1, 2, 3][..], b"GET / HTTP/1.1\r\n\r\n\0"] {
        use std::io::Write;
        let mut socket = std::net::TcpStream::connect(&server.address).unwrap();
        socket.write_all(bytes).unwrap();
    }
    json(&infer);
    // Its address is taken now.
    let sentence = fails(1, &["serve", "--listen", &server.address]);
    assert!(sentence.contains(&server.address), "{sentence}");
}

#[test]
fn what_is_served_and_what_is_asked_for_have_one_plan() {
    let encrypted = ["--model", "mnist-mlp64", "--weights", "encrypted"];
    // A set that is named on both sides.
    let named = ["--model", "mnist-mlp64", "--params", "n4096-depth3"];
    // Layers that are merged; any images do.
    let data = digits_as_data();
    let data = path(&data, "");
    let merged = ["--model", "fashion-cryptonets", "--data", &data];
    for of_model in [&encrypted[..], &["--model", "mnist-cnn"], &named, &merged] {
        let server = Server::start(match of_model {
            [of_evaluator @ .., "--data", _] => of_evaluator,
            all => all,
        });
        let device = format!("tcp:{}", server.address);
        let infer = ["infer", "--device", &device, "--count", "1"];
        let document = json(&[&infer[..], of_model, &["--json", "-"]].concat());
        assert_eq!(document["device"], device.as_str());
        assert_eq!(document["label_flips"], 0);
        let logits = document["images"][0]["max_logit_error"].as_f64();
        assert!(logits.is_some_and(|error| error < 0.5), "{logits:?}");
        // Another network's client, who is told so, and the server goes on.
        let other = [&infer[..], &["--model", "pima-logreg"]].concat();
        fails(1, &other);
        let twice = json(&[&infer[..], of_model, &["--json", "-"]].concat());
        assert_eq!(twice["label_flips"], 0);
    }
}

/// A board at the end of a serial line: the evaluator behind a pseudo terminal.
#[cfg(unix)]
mod serial {
    use he_edge_tests::serial::Port;
    use he_nn::plan::{Target, WeightMode};
    use he_nn::program::Program;
    use host_runner::planning;
    use serialport::{SerialPort, TTYPort};

    use super::*;

    #[test]
    fn infer_over_a_serial_line() {
        let (mut board, line) = TTYPort::pair().unwrap();
        board.set_timeout(LIMIT).unwrap();
        let device = line.name().unwrap();
        let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
        let plan = planning::plan(None, model, WeightMode::Plain, Target::STREAM).unwrap();
        let program = Program::of(&plan).unwrap();
        std::thread::spawn(move || {
            // Ends when the line is closed, however the system says so.
            let _ = host_runner::evaluator::evaluate(&program, model, &mut Port(board));
        });
        // Twice on one line, which stays open as a plugged in board does.
        for _ in 0..2 {
            let document = json(&["infer", "--device", &device, "--count", "2", "--json", "-"]);
            assert_eq!(document["device"], device.as_str());
            assert_eq!(document["accuracy"].as_f64(), Some(1.0));
        }
        drop(line);
    }

    #[test]
    fn a_serial_line_without_a_board() {
        let (_board, line) = TTYPort::pair().unwrap();
        let device = line.name().unwrap();
        let sentence = fails(1, &["infer", "--device", &device, "--count", "1"]);
        assert!(sentence.contains("did not answer"), "{sentence}");
    }
}

/// A batch is evaluated again as a whole, by the plan that it had: of values that are
/// published another.
#[test]
fn batches_have_receipts_that_are_audited() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let table = path("pima.csv");
    let model = bundled::model("pima-logreg").unwrap();
    let rows = networks::rows(&Model::parse(model).unwrap(), 120);
    let line = |row: &Vec<f32>| {
        let features: Vec<String> = row.iter().map(f32::to_string).collect();
        format!("{},1\n", features.join(","))
    };
    fs::write(&table, rows.iter().map(line).collect::<String>()).unwrap();
    let mut plans = Vec::new();
    for publish in [&[][..], &["--publish", "values"]] {
        let (receipts, uploads) = (path("receipts"), path("uploads"));
        let infer = ["infer", "--model", "pima-logreg", "--data", &table];
        let batch = ["--split", "train", "--count", "30", "--packing", "batch"];
        let kept = ["--receipts", &receipts, "--uploads", &uploads];
        succeeds(&[&infer[..], &batch, &kept, publish].concat());
        let text = fs::read_to_string(&receipts).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        // One result of all, in which each has a slot.
        assert_eq!(lines.len(), 30);
        for (slot, line) in lines.iter().enumerate() {
            assert_eq!(line["output"], lines[0]["output"]);
            assert_eq!(
                (&line["slot"], &line["index"]),
                (&slot.into(), &slot.into())
            );
        }
        let audit = ["audit", &receipts, "--uploads", &uploads, "--json", "-"];
        let of_model = [&audit[..], &["--model", "pima-logreg"]].concat();
        let audited: Value = serde_json::from_str(&succeeds(&of_model)).unwrap();
        assert_eq!(audited["reproduced"], 30);
        // Of another model; another output; a plan that this version does not make.
        assert_eq!(he_edge(&audit).status.code(), Some(1));
        let mut forged = lines[0].clone();
        forged["output"] = "0".repeat(64).into();
        fs::write(&receipts, forged.to_string()).unwrap();
        let output = he_edge(&of_model);
        assert_eq!(output.status.code(), Some(1));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["forged"], 1);
        let program = lines[0]["program"].as_str().unwrap();
        plans.push(program.to_owned());
        let mut plan = fs::read(Path::new(&uploads).join(program)).unwrap();
        *plan.last_mut().unwrap() ^= 1;
        let digest = host_runner::receipts::Digest::of(&plan).to_string();
        fs::write(Path::new(&uploads).join(&digest), plan).unwrap();
        let mut other = lines[0].clone();
        other["program"] = digest.into();
        fs::write(&receipts, other.to_string()).unwrap();
        let report: Value = serde_json::from_slice(&he_edge(&of_model).stdout).unwrap();
        assert_eq!(report["failed"], 1);
        let why = report["answers"][0]["failed"].as_str().unwrap();
        assert!(why.contains("none of this version's"), "{why}");
        // The same answer of two requests.
        fs::write(&receipts, text.clone() + text.lines().next().unwrap()).unwrap();
        let refusal = fails(1, &of_model);
        assert!(refusal.contains("was replayed"), "{refusal}");
    }
    assert_ne!(plans[0], plans[1]);
}

/// What others may have: labels apart from the rest of the report, and receipts that
/// somebody else audits.
#[test]
fn labels_are_published_and_receipts_audited() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (budget, receipts, uploads) = (path("budget"), path("receipts"), path("uploads"));
    let text = succeeds(&[
        "infer",
        "--count",
        "2",
        "--publish",
        "labels",
        "--budget",
        &budget,
        "--receipts",
        &receipts,
        "--uploads",
        &uploads,
        "--json",
        "-",
    ]);
    let report: Value = serde_json::from_str(&text).unwrap();
    let published = &report["published"];
    assert_eq!(
        (&published["allowed"], &published["spent"]),
        (&2.into(), &2.into())
    );
    for (answer, image) in published["answers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(report["images"].as_array().unwrap())
    {
        assert_eq!(answer["label"], image["predicted"]);
        assert_eq!(answer.as_object().unwrap().len(), 2, "an index and a label");
    }
    let audited = succeeds(&["audit", &receipts, "--uploads", &uploads, "--json", "-"]);
    let audited: Value = serde_json::from_str(&audited).unwrap();
    assert_eq!(audited["reproduced"], 2);
    // Another output.
    let lines = fs::read_to_string(&receipts).unwrap();
    let mut forged: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    forged["output"] = "0".repeat(64).into();
    fs::write(&receipts, forged.to_string()).unwrap();
    let output = he_edge(&["audit", &receipts, "--uploads", &uploads]);
    assert_eq!(output.status.code(), Some(1));
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert!(
        sentence.contains("1 of 1 answers are not what"),
        "{sentence}"
    );
    // The budget is of a key that is gone.
    let refusal = fails(1, &["infer", "--publish", "labels", "--budget", &budget]);
    assert!(refusal.contains("cannot be made"), "{refusal}");
    let refusal = fails(2, &["infer", "--publish", "values"]);
    assert!(refusal.contains("worst case"), "{refusal}");
    let negative = ["infer", "--publish", "labels", "--precision-bits", "-3"];
    let refusal = fails(1, &negative);
    assert!(refusal.contains("from 0 to 64"), "{refusal}");
    let refusal = fails(
        2,
        &[
            "infer",
            "--publish",
            "values",
            "--device",
            "tcp:localhost:1",
        ],
    );
    assert!(refusal.contains("--publish labels"), "{refusal}");
}
