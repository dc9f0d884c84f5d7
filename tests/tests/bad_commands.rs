//! What people mistype or have not got: every command ends in one sentence that names the
//! cause and the next step, with a status other than 0, and nothing half-written.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use he_edge_tests::assert_one_sentence;
use he_edge_tests::command::binary;
use host_runner::device::DeviceError;
use host_runner::evaluator::EvaluatorError;
use tempfile::TempDir;

/// A call, and what its sentence says.
type Case = (&'static [&'static str], &'static str);

/// In a directory with `empty` and `text` (files), `folder` and `torn.hemodel`.
const CASES: &[Case] = &[
    // Commands and options.
    (&["infr"], "exists: 'infer'"),
    (&["severe"], "'serve'"),
    (&["--nonsense"], "--nonsense"),
    (&["infer", "extra"], "see `he-edge infer --help`"),
    (&["infer", "--cuont", "3"], "exists: '--count'"),
    (&["plan", "--nonsense"], "see `he-edge plan --help`"),
    (&["train"], "--data"),
    (&["plan", "--quantization"], "--data"),
    (&["plan", "--count", "3"], "--quantization"),
    (&["plan", "--data", "folder"], "--quantization"),
    (
        &[
            "import", "text", "--data", "folder", "--out", "new", "--bits", "1",
        ],
        "1 is not in 2..=16",
    ),
    (
        &[
            "import", "text", "--data", "folder", "--out", "new", "--per", "row",
        ],
        "tensor, channel",
    ),
    (&["import"], "<FILE>"),
    (&["flash"], "--board"),
    (&["data"], "see `he-edge data --help`"),
    (&["data", "fetch"], "see `he-edge data --help`"),
    (&["keygen"], "<DIRECTORY>"),
    (&["encrypt"], "see `he-edge encrypt --help`"),
    (&["evaluate"], "--keys <FILE>"),
    (&["decrypt"], "--key <FILE>"),
    (&["show"], "<FILE>"),
    (&["audit"], "--uploads <DIR>"),
    (&["completions"], "see `he-edge completions --help`"),
    (&["completions", "tcsh"], "bash, elvish, fish"),
    (&["report"], "<DIRECTORY>"),
    (&["devices", "extra"], "see `he-edge devices --help`"),
    // Numbers.
    (&["infer", "--count", "0"], "0 is not in 1.."),
    (&["infer", "--count", "-1"], "-1 is not in 1.."),
    (&["infer", "--count", "many"], "invalid digit"),
    (&["infer", "--count", "99999999999"], "is not in 1.."),
    (&["infer", "--count", "21"], "there are 20"),
    (&["infer", "--offset", "-3"], "'-3'"),
    (&["infer", "--offset", "20", "--count", "1"], "there are 20"),
    (
        &["infer", "--offset", "18446744073709551615"],
        "there are 20",
    ),
    (&["infer", "--audit", "2"], "from 0 to 1"),
    (&["infer", "--audit", "-0.5"], "from 0 to 1"),
    (&["infer", "--audit", "NaN"], "from 0 to 1"),
    (&["infer", "--retries", "-1"], "'-1'"),
    (&["infer", "--patience", "0"], "above 0"),
    (&["infer", "--deadline", "-1"], "above 0"),
    (&["infer", "--deadline", "1e300"], "above 0"),
    (&["serve", "--clients", "0"], "not in 1..=1024"),
    (&["serve", "--clients", "9999"], "not in 1..=1024"),
    (&["serve", "--idle", "soon"], "above 0"),
    (&["serve", "--session", "inf"], "above 0"),
    // Names.
    (&["infer", "--model", "mnist"], "bundled models"),
    (&["plan", "--model", "missing.hemodel"], "missing.hemodel"),
    (&["serve", "--model", ""], "bundled models"),
    (&["infer", "--params", "n1"], "n4096-depth3"),
    (&["plan", "--params", ""], "n4096-depth3"),
    (&["infer", "--weights", "secret"], "plain, encrypted"),
    (&["infer", "--packing", "dense"], "latency, batch"),
    (&["infer", "--split", "all"], "train, test"),
    (&["plan", "--board", "toaster"], "nucleo-h743zi"),
    (&["flash", "--board", "toaster"], "nucleo-h743zi"),
    (
        &["train", "resnet", "--data", "folder", "--out", "new"],
        "choose one of",
    ),
    // Files that are none.
    (&["infer", "--model", "empty"], "empty"),
    (&["infer", "--model", "text"], "text"),
    (&["infer", "--model", "torn.hemodel"], "torn.hemodel"),
    (&["infer", "--model", "folder"], "folder"),
    (
        &["import", "empty", "--data", "folder", "--out", "new"],
        "ONNX",
    ),
    (
        &["import", "text", "--data", "folder", "--out", "new"],
        "ONNX",
    ),
    (
        &["import", "missing", "--data", "folder", "--out", "new"],
        "missing",
    ),
    (&["keygen", "new"], "--passphrase-file"),
    (&["show", "missing"], "missing"),
    (&["show", "empty"], "no file of keys"),
    (&["show", "text"], "no file of keys"),
    (&["show", "folder"], "no regular file"),
    (&["report", "missing"], "missing"),
    (&["report", "folder"], "holds no results"),
    (&["audit", "missing", "--uploads", "folder"], "missing"),
    (
        &["evaluate", "--keys", "text", "--in", "text", "--out", "new"],
        "text",
    ),
    (
        &["decrypt", "--key", "missing", "--in", "text"],
        "--passphrase-file",
    ),
    (&["data", "fetch", "moons", "--out", "folder"], "moons"),
    // Data.
    (&["infer", "--data", "missing"], "cannot be looked into"),
    (&["infer", "--data", "text"], "its name ends with none of"),
    (&["infer", "--data", "folder"], "holds no t10k-images"),
    (&["infer", "--data", "locked"], "cannot be looked into"),
    (&["infer", "--model", "pima-logreg"], "--data"),
    (
        &["infer", "--model", "pima-logreg", "--data", "folder"],
        "table (.csv)",
    ),
    (
        &["train", "mnist-mlp64", "--data", "missing", "--out", "new"],
        "missing",
    ),
    // Outputs.
    (&["infer", "--json", "folder"], "folder"),
    (&["infer", "--json", "missing/file"], "missing/file"),
    (&["infer", "--trace", "missing/file"], "missing/file"),
    (&["infer", "--trace", "-"], "trace.json"),
    (&["infer", "--trace", "a.svg"], "trace.json"),
    (&["infer", "--resume", "text"], "no ledger"),
    (&["infer", "--resume", "folder"], "folder"),
    (&["infer", "--resume", "missing/ledger"], "missing/ledger"),
    (
        &["infer", "--resume", "new", "--trace", "t.json"],
        "cannot be used with",
    ),
    (&["bench", "--json", "missing/file"], "missing/file"),
    (
        &[
            "train",
            "mnist-mlp64",
            "--data",
            "folder",
            "--out",
            "missing/x",
        ],
        "missing/x",
    ),
    // Devices.
    (&["infer", "--device", "toaster"], "inproc, qemu"),
    (&["infer", "--device", "tcp:here"], "tcp:HOST:PORT"),
    (
        &["infer", "--device", "tcp:127.0.0.1:1"],
        "he-edge serve --listen 127.0.0.1:1",
    ),
    (
        &["infer", "--device", "tcp:no-such-host.invalid:1"],
        "no-such-host.invalid",
    ),
    (
        &["infer", "--device", "/dev/no-such-port"],
        "/dev/no-such-port",
    ),
    (&["infer", "--device", "/dev/null"], "/dev/null"),
    (&["infer", "--device", "qemu:toaster"], "no board toaster"),
    (
        &["infer", "--device", "qemu:pico2"],
        "no emulator has the board",
    ),
    (&["sense", "--device", "tcp:127.0.0.1:1"], "nobody listens"),
    (
        &["sense", "--masked-key", "--device", "tcp:127.0.0.1:1"],
        "the feature masked-key",
    ),
    (&["sense", "--device", "nats:127.0.0.1:1"], "no sensor"),
    (&["infer", "--device", "nats:127.0.0.1:1"], "no NATS server"),
    (&["fleet", "--nats", "127.0.0.1:1"], "he-edge fleet up"),
    (&["fleet", "--nats", "user:word@host:1"], "without a user"),
    (&["fleet", "up", "--workers", "0"], "not in 1..=256"),
    (&["work", "--device", "qemu"], "a worker has no qemu:"),
    (&["work", "--name", "a.b"], "letters, digits"),
    (&["work", "--threads", "0"], "not in 1..=1024"),
    (&["bench", "--device", "tcp:127.0.0.1:1"], "inproc or qemu"),
    (&["serve", "--listen", "nowhere"], "nowhere"),
    (&["serve", "--listen", "192.0.2.1:7700"], "192.0.2.1:7700"),
    // What there is not.
    (
        &["infer", "--packing", "batch", "--weights", "encrypted"],
        "encrypted",
    ),
    (
        &["infer", "--packing", "batch", "--device", "tcp:127.0.0.1:1"],
        "inproc",
    ),
    (
        &["infer", "--packing", "batch", "--trace", "t.json"],
        "--packing latency",
    ),
    // One process would compare itself with itself.
    (&["infer", "--audit", "0.5"], "--receipts"),
    (
        &["infer", "--packing", "batch", "--audit", "1"],
        "--receipts",
    ),
    (
        &["plan", "--packing", "batch", "--board", "pico2"],
        "no --board",
    ),
    (&["attack", "nothing"], "fgsm"),
    (&["attack", "fgsm"], "--data and --out"),
];

fn he_edge(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .env("HE_EDGE_PROGRESS", "never")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn sentence(output: &Output, what: &str) -> String {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{what}: {errors}"
    );
    assert!(output.stdout.is_empty(), "{what}");
    assert_eq!(errors.lines().count(), 1, "{what}: {errors}");
    let sentence = errors.trim_end().strip_prefix("he-edge: ").expect(what);
    sentence.to_owned()
}

#[test]
fn every_bad_input_ends_in_a_sentence_and_leaves_nothing() {
    assert!(CASES.len() >= 60);
    let directory = TempDir::new().unwrap();
    let here = directory.path();
    fs::write(here.join("empty"), "").unwrap();
    fs::write(here.join("text"), "some text\n").unwrap();
    let model = he_nn::bundled::model("mnist-mlp64").unwrap();
    fs::write(here.join("torn.hemodel"), &model[..30_000]).unwrap();
    fs::create_dir(here.join("folder")).unwrap();
    fs::create_dir(here.join("locked")).unwrap();
    fs::set_permissions(here.join("locked"), fs::Permissions::from_mode(0o000)).unwrap();
    let names = |directory: &Path| {
        let found = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = found.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names(here);
    // Who may read everything finds an empty directory.
    let is_root = fs::read_dir(here.join("locked")).is_ok();
    let mut wrong = Vec::new();
    for (arguments, says) in CASES {
        let what = arguments.join(" ");
        let output = he_edge(here, arguments);
        let sentence = sentence(&output, &what);
        assert_one_sentence(&what, &sentence);
        let is_there = sentence.contains(says) || is_root && arguments.contains(&"locked");
        if !is_there {
            wrong.push(format!("{what}: {sentence}, without {says}"));
        }
        assert_eq!(names(here), before, "{what} left something");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        fs::read_to_string(here.join("text")).unwrap(),
        "some text\n"
    );
    assert!(names(&here.join("folder")).is_empty());
}

/// What the surroundings lack.
#[test]
fn a_system_without_what_is_needed_is_a_sentence() {
    let directory = TempDir::new().unwrap();
    let without = |name: &str, value: &str, arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.env_clear().env(name, value).args(arguments);
        let output = command.current_dir(directory.path()).output().unwrap();
        sentence(&output, name)
    };
    // Where a distribution's compiler is there, it is the emulator that is not.
    let said = without("PATH", "/missing", &["infer", "--device", "qemu"]);
    let distribution = Path::new("/usr/bin/cargo").is_file();
    assert!(
        said.contains("cargo was not found") || distribution,
        "{said}"
    );
    assert_one_sentence("no cargo", &said);
    let full = Command::new("sh")
        .args(["-c", "\"$0\" plan > /dev/full"])
        .arg(binary())
        .output()
        .unwrap();
    if Path::new("/dev/full").exists() {
        let said = sentence(&full, "a full disk");
        assert!(said.contains("standard output cannot be written"), "{said}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_reader_of_errors_that_went_away_is_no_panic() {
    use std::process::Stdio;
    let mut child = Command::new(binary())
        .arg("infr")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// A process that may open no more files is told so, not to look for another address.
#[test]
fn files_that_ran_out_are_no_wrong_address() {
    let sentences = |code| {
        let source = || std::io::Error::from_raw_os_error(code);
        let absent = DeviceError::Absent {
            device: "tcp:127.0.0.1:1".to_owned(),
            source: source(),
        };
        let listen = EvaluatorError::Listen {
            address: "127.0.0.1:1".to_owned(),
            source: source(),
        };
        [absent.to_string(), listen.to_string()]
    };
    // EMFILE, and EACCES.
    for (code, is_of_files) in [(24, true), (13, false)] {
        for sentence in sentences(code) {
            assert_one_sentence("an error of the system", &sentence);
            assert_eq!(sentence.contains("ulimit -n"), is_of_files, "{sentence}");
        }
    }
}
