//! An inference in steps over files: `keygen`, `encrypt`, `evaluate` and `decrypt`, as
//! processes of their own, and what they refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Parser;
use he_core::ckks::Ciphertext;
use he_core::ckks::publish::Allowance;
use he_core::wire;
use he_edge_tests::{assert_one_sentence, sealed};
use he_nn::bundled;
use he_nn::model::{Model, Sample};
use he_nn::plan::Packing;
use host_runner::commands::{self, Arguments};
use host_runner::files::{
    self, Cost, FileError, Opened, Passphrase, Planned, Problem, PublishedOutcome, SealedError,
    SealedKey, StepError,
};
use host_runner::report::infer::Outcome;
use host_runner::report::opened::OpenedReport;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Holds the arguments of a command that a process of the tests below runs.
const CHILD: &str = "HE_EDGE_TEST_ARGUMENTS";

const PASSPHRASE: &str = "correct horse battery staple";

#[test]
#[ignore = "a process of its own, which other tests start"]
#[expect(clippy::print_stderr, reason = "what the command's main does")]
fn runs_a_command() {
    let arguments = std::env::var(CHILD).unwrap();
    let arguments = std::iter::once("he-edge").chain(arguments.lines());
    if let Err(failure) = commands::run(Arguments::try_parse_from(arguments).unwrap()) {
        eprintln!("he-edge: {failure}");
        std::process::exit(failure.status().into());
    }
}

/// A process that runs a command, as an argument of others or alone.
fn process(before: &[&str], arguments: &[&str]) -> Command {
    let this = std::env::current_exe().unwrap();
    let child = ["--exact", "runs_a_command", "--ignored", "--nocapture"];
    let mut command = match before {
        [] => Command::new(this),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(this);
            command
        }
    };
    command.args(child).env(CHILD, arguments.join("\n"));
    command.env_remove(files::VARIABLE);
    command.stdin(std::process::Stdio::null());
    command
}

fn succeeds(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

/// The sentence of a command that fails.
fn fails(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let sentence = errors
        .lines()
        .find_map(|line| line.strip_prefix("he-edge: "));
    let sentence = sentence.expect(&errors).to_owned();
    assert_one_sentence(&errors, &sentence);
    sentence
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Client and evaluator in directories that know nothing of each other.
#[test]
fn four_processes_and_two_directories() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    fs::write(path("passphrase"), PASSPHRASE).unwrap();
    let with = text("passphrase");
    let run = |arguments: &[&str]| process(&[], arguments).output().unwrap();
    let keygen = ["keygen", &text("made"), "--passphrase-file", &with];
    let keygen = [&keygen[..], &["--publications", "3"]].concat();
    succeeds(&run(&keygen));
    // No key is replaced.
    assert!(fails(&run(&keygen)).contains("is there already"));
    fs::rename(path("made/client"), path("alice")).unwrap();
    fs::rename(path("made/evaluator"), path("server")).unwrap();
    #[cfg(unix)]
    for (name, mode) in [("alice", 0o700), ("alice/secret.key", 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        let found = fs::metadata(path(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }

    let key = text("alice/secret.key");
    let (sent, received) = (text("server/request"), text("server/result"));
    let encrypt = ["encrypt", "--key", &key, "--count", "5", "--out", &sent];
    // Nobody is at a terminal.
    assert!(fails(&run(&encrypt)).contains("--passphrase-file"));
    let mut by_variable = process(&[], &encrypt);
    succeeds(
        &by_variable
            .env(files::VARIABLE, PASSPHRASE)
            .output()
            .unwrap(),
    );
    let mut by_variable = process(&[], &encrypt);
    let wrong = by_variable
        .env(files::VARIABLE, "another")
        .output()
        .unwrap();
    assert!(fails(&wrong).contains("passphrase"));

    let keys = text("server/evaluation.keys");
    let evaluate = [
        "evaluate", "--keys", &keys, "--in", &sent, "--out", &received,
    ];
    let log = text("strace");
    let strace = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", &log];
    let traces = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    if traces.is_ok_and(|output| output.status.success()) {
        succeeds(&process(&strace, &evaluate).output().unwrap());
        let log = fs::read_to_string(&log).unwrap();
        for opened in [&keys, &sent, "server/result"] {
            assert!(log.contains(opened), "{opened} was not opened");
        }
        for secret in ["alice", "secret.key", ".note", "passphrase"] {
            assert!(!log.contains(secret), "{secret} was looked for");
        }
    } else {
        // The directory is out of reach instead.
        fs::rename(path("alice"), path("away")).unwrap();
        succeeds(&run(&evaluate));
        fs::rename(path("away"), path("alice")).unwrap();
    }

    let answers = text("answers");
    let decrypt = ["decrypt", "--key", &key, "--in", &received];
    let arguments = [
        &decrypt[..],
        &["--passphrase-file", &with, "--json", &answers],
    ]
    .concat();
    succeeds(&run(&arguments));
    let answers = json(Path::new(&answers));
    assert_eq!(
        (&answers["accuracy"], &answers["label_flips"]),
        (&1.0.into(), &0.into())
    );
    let images = answers["images"].as_array().unwrap();
    assert_eq!(images.len(), 5);
    for (image, index) in images.iter().zip(0..) {
        assert_eq!(
            (&image["index"], &image["predicted"]),
            (&index.into(), &index.into())
        );
        let error = image["max_logit_error"].as_f64().unwrap();
        assert!(error > 0.0 && error < 0.05, "{error}");
    }

    // Given to others: counted first, here out of an allowance of three.
    let published = text("published");
    let publish = [
        &decrypt[..],
        &["--passphrase-file", &with, "--publish", "labels"],
    ]
    .concat();
    let publish = [&publish[..], &["--json", &published]].concat();
    assert!(fails(&run(&publish)).contains("2 of 5 answers"));
    let published = json(Path::new(&published));
    assert_eq!(published["spent"], 3);
    let images = published["published"].as_array().unwrap();
    for (image, index) in images.iter().zip(0..) {
        let label = (index < 3).then_some(index);
        assert_eq!(image["label"].as_u64(), label, "{image}");
        assert!(image.as_object().unwrap().len() == 2, "{image}");
    }
    assert!(images[3]["refused"].as_str().unwrap().contains("all 3"));

    // What is written is nothing that is read.
    let secret = fs::read(path("alice/secret.key")).unwrap();
    let by = ["--passphrase-file", &with];
    for (arguments, what) in [
        ([&decrypt[..], &by, &["--json", &key]].concat(), &key),
        ([&decrypt[..], &by, &["--json", &with]].concat(), &with),
        (
            [&decrypt[..], &by, &["--json", &received]].concat(),
            &received,
        ),
        ([&encrypt[..5], &by, &["--out", &with]].concat(), &with),
        ([&evaluate[..], &["--json", &received]].concat(), &received),
        (vec!["show", &key, "--json", &key], &key),
        (vec!["show", &sent, "--json", &keys], &keys),
    ] {
        let sentence = fails(&run(&arguments));
        let named = sentence.starts_with(what.as_str());
        let todo = sentence.ends_with("name another file");
        assert!(named && todo, "{arguments:?}: {sentence}");
    }
    let made = text("new/client/secret.key");
    let over = ["keygen", &text("new"), "--json", &made];
    assert!(fails(&run(&[&over[..], &by].concat())).contains("name another file"));
    assert!(fs::read(path("alice/secret.key")).unwrap() == secret && !path("new").exists());

    // What each of them says that it is.
    let shown = text("shown");
    let note = fs::read_dir(path("alice/requests"))
        .unwrap()
        .next()
        .unwrap();
    let note = note.unwrap().path().to_str().unwrap().to_owned();
    let model = bundled::source("pima-logreg").unwrap();
    let model = model.to_str().unwrap().to_owned();
    for (file, kind, fact) in [
        (&key, "a sealed secret key", "3 of 3 spent"),
        (&keys, "an evaluator's file of keys", "seeded, level"),
        (&sent, "a request", "mnist-mlp64"),
        (&received, "a result", "5 of two parts, level 1"),
        (&note, "a client's note of a request", "sealed"),
        (&model, "a model", "pima-logreg"),
    ] {
        succeeds(&run(&["show", file, "--json", &shown]));
        let shown = json(Path::new(&shown));
        assert_eq!(shown["kind"], kind);
        let mut facts = shown["facts"].as_array().unwrap().iter();
        let found = facts.any(|f| f["value"].as_str().unwrap().contains(fact));
        assert!(found, "{fact}: {shown}");
        succeeds(&run(&["show", file]));
    }
    let nothing = fails(&run(&["show", &with]));
    assert!(nothing.contains("no file of"), "{nothing}");
}

/// The small network, its files, and a key that costs little to open.
struct Small {
    root: TempDir,
    model: &'static [u8],
    packing: Packing,
}

impl Small {
    fn new(packing: Packing) -> Self {
        Self::allowing(packing, 0)
    }

    fn allowing(packing: Packing, publications: u32) -> Self {
        let small = Self {
            packing,
            root: tempfile::tempdir().unwrap(),
            model: bundled::model("pima-logreg").unwrap(),
        };
        small.keygen("keys", publications).unwrap();
        small
    }

    fn keygen(&self, name: &str, publications: u32) -> Result<files::Generated, StepError> {
        let allowance = Allowance::new(publications, 30).unwrap();
        let passphrase = Passphrase::new(PASSPHRASE.into()).unwrap();
        let directory = self.path(name);
        files::keygen(
            &directory,
            &self.planned(),
            allowance,
            &passphrase,
            Cost::LEAST,
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn planned(&self) -> Planned<'static> {
        Planned::new(None, Model::parse(self.model).unwrap(), self.packing).unwrap()
    }

    fn key(&self, name: &str) -> SealedKey {
        let passphrase = Passphrase::new(PASSPHRASE.into()).unwrap();
        sealed(&self.path(name).join("client/secret.key"), &passphrase).unwrap()
    }

    fn encrypt(&self, rows: &[[f32; 8]], out: &str) -> Result<files::Requested, StepError> {
        let samples: Vec<_> = (0..)
            .zip(rows)
            .map(|(index, row)| (index, Sample::Features(row), 0))
            .collect();
        let out = self.path(out);
        files::encrypt(&self.key("keys"), &self.planned(), &samples, &out, &mut ())
    }

    fn evaluate(
        &self,
        keys: &str,
        request: &str,
        out: &str,
    ) -> Result<files::Evaluated, StepError> {
        let keys = self.path(keys).join("evaluator/evaluation.keys");
        let (request, out) = (self.path(request), self.path(out));
        files::evaluate(&keys, self.planned(), &request, &out, &mut ())
    }

    fn decrypt(&self, result: &str) -> Result<Vec<Opened>, StepError> {
        files::decrypt(&mut self.key("keys"), &self.planned(), &self.path(result))
    }
}

const ROWS: [[f32; 8]; 3] = [
    [6.0, 148.0, 72.0, 35.0, 0.0, 33.6, 0.627, 50.0],
    [1.0, 85.0, 66.0, 29.0, 0.0, 26.6, 0.351, 31.0],
    [8.0, 183.0, 64.0, 0.0, 0.0, 23.3, 0.672, 32.0],
];

fn problem<T>(answer: Result<T, StepError>) -> Problem {
    match answer.map(|_| ()) {
        Err(StepError::File(FileError { problem, path })) => {
            assert_one_sentence(&path.display().to_string(), &problem);
            problem
        }
        other => panic!("{other:?}"),
    }
}

/// With a hash that is right: what was changed on purpose.
fn rehash(bytes: &mut [u8]) {
    let end = bytes.len() - 32;
    let hash = Sha256::digest(&bytes[..end]);
    bytes[end..].copy_from_slice(&hash);
}

/// Where the body begins.
fn body(bytes: &[u8]) -> usize {
    16 + u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize + 8
}

const BOTH: [Packing; 2] = [Packing::Latency, Packing::Batch];

#[test]
fn samples_out_of_range_are_left_out() {
    for packing in BOTH {
        let small = Small::new(packing);
        let mut rows = ROWS;
        rows[1][5] = 1e9;
        let made = small.encrypt(&rows, "request").unwrap();
        assert_eq!(made.samples, [0, 2]);
        assert_eq!(made.refused.len(), 1);
        assert_eq!(made.refused[0].index, 1);
        small.evaluate("keys", "request", "result").unwrap();
        let opened = small.decrypt("result").unwrap();
        let indices: Vec<usize> = opened.iter().map(|opened| opened.index).collect();
        assert_eq!(indices, [0, 2]);
        for opened in opened {
            let logits = opened.logits.unwrap();
            assert!((logits[0] - opened.plain[0]).abs() < 0.05);
        }
        let result = small.path("result");
        let published = files::publish_labels(&mut small.key("keys"), &small.planned(), &result);
        match packing {
            Packing::Latency => {
                let published = published.unwrap();
                let outcomes = published.iter().map(|sample| &sample.outcome);
                let refused = |outcome: &PublishedOutcome| match outcome {
                    PublishedOutcome::Refused { refused } => refused.contains("all 0"),
                    PublishedOutcome::Label { .. } => false,
                };
                assert!(outcomes.map(refused).eq([true, true]), "{published:?}");
            }
            Packing::Batch => assert!(matches!(published, Err(StepError::Batch))),
        }
        // Of nothing there is no request.
        let none = small.encrypt(&[rows[1]], "none").unwrap_err();
        let is_none = matches!(none, StepError::NoSample { count: 1, .. });
        assert!(is_none && !small.path("none").exists(), "{none}");
    }
}

/// A `keygen` that ended between its two files goes on, with the same key.
#[test]
fn keygen_goes_on_with_the_key_that_is_there() {
    let small = Small::allowing(Packing::Latency, 3);
    let id = small.key("keys").head().key.clone();
    small.encrypt(&ROWS, "request").unwrap();
    let keys = small.path("keys/evaluator/evaluation.keys");
    let whole = fs::read(&keys).unwrap();
    let exists = |made| matches!(problem(made), Problem::Exists);
    assert!(exists(small.keygen("keys", 3)));
    assert_eq!(fs::read(&keys).unwrap(), whole);
    fs::remove_file(&keys).unwrap();
    // Another allowance is no going on.
    assert!(exists(small.keygen("keys", 4)) && !keys.exists());
    let made = small.keygen("keys", 3).unwrap();
    assert!(made.was_there && made.key == id);
    small.evaluate("keys", "request", "result").unwrap();
    let opened = small.decrypt("result").unwrap();
    assert!(opened.iter().all(|opened| opened.logits.is_ok()));
    // The evaluator's keys of a client that has moved away are not replaced.
    fs::rename(small.path("keys/client"), small.path("away")).unwrap();
    assert!(exists(small.keygen("keys", 3)));
    assert!(!small.path("keys/client/secret.key").exists());
}

/// No step writes over what it reads, under no name, nor over keys and notes at all.
#[test]
fn nothing_is_written_over_inputs_keys_and_notes() {
    let small = Small::new(Packing::Latency);
    small.encrypt(&ROWS, "request").unwrap();
    let notes = fs::read_dir(small.path("keys/client/requests"));
    let note = notes.unwrap().next().unwrap().unwrap().file_name();
    let note = format!("keys/client/requests/{}", note.to_str().unwrap());
    let (key, keys) = ("keys/client/secret.key", "keys/evaluator/evaluation.keys");
    let files = [key, keys, "request", &note];
    let contents = || files.map(|file| fs::read(small.path(file)).unwrap());
    let before = contents();
    let mut inputs = vec!["request", keys];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(small.path("keys"), small.path("there")).unwrap();
        fs::hard_link(small.path("request"), small.path("hard")).unwrap();
        let found = problem(small.encrypt(&ROWS, "there/client/secret.key"));
        assert!(matches!(found, Problem::Input(_)), "{found:?}");
        inputs.extend(["hard", "there/evaluator/evaluation.keys"]);
    }
    let found = problem(small.encrypt(&ROWS, key));
    assert!(matches!(found, Problem::Input(_)), "{found:?}");
    for out in inputs {
        let found = problem(small.evaluate("keys", "request", out));
        assert!(matches!(found, Problem::Input(_)), "{out}: {found:?}");
    }
    for out in [keys, &note] {
        let found = problem(small.encrypt(&ROWS, out));
        assert!(matches!(found, Problem::Kept(_)), "{out}: {found:?}");
    }
    for out in [key, &note] {
        let found = problem(small.evaluate("keys", "request", out));
        assert!(matches!(found, Problem::Kept(_)), "{out}: {found:?}");
    }
    assert!(contents() == before);
    // A request or result that was there before is.
    small.evaluate("keys", "request", "result").unwrap();
    small.evaluate("keys", "request", "result").unwrap();
    small.encrypt(&ROWS, "request").unwrap();
}

/// A file is believed to be long only as far as its beginning says so, and up to what is
/// read at all: these take no room, and have a terabyte.
#[cfg(target_os = "linux")]
#[test]
fn endless_files_are_refused_by_their_beginning() {
    const LENGTH: u64 = 1 << 40;
    let small = Small::new(Packing::Latency);
    small.encrypt(&ROWS, "request").unwrap();
    let good = fs::read(small.path("request")).unwrap();
    let start = body(&good);
    let sparse = |name: &str, begin: &[u8]| {
        fs::write(small.path(name), begin).unwrap();
        let file = fs::OpenOptions::new().write(true).open(small.path(name));
        file.unwrap().set_len(LENGTH).unwrap();
    };
    let show = |name: &str| files::show(&small.path(name)).unwrap_err().problem;
    sparse("added", &good);
    let mut begin = good[..start].to_vec();
    let declared = LENGTH - start as u64 - 32;
    begin[start - 8..].copy_from_slice(&declared.to_le_bytes());
    sparse("declared", &begin);
    sparse("zeros", &[]);
    for found in [
        problem(small.evaluate("keys", "added", "out")),
        show("added"),
    ] {
        assert!(
            matches!(found, Problem::Length { got: LENGTH, .. }),
            "{found:?}"
        );
    }
    for found in [
        problem(small.evaluate("keys", "declared", "out")),
        show("declared"),
        problem(small.evaluate("keys", "zeros", "out")),
        show("zeros"),
    ] {
        assert!(
            matches!(found, Problem::Large { got: LENGTH, .. }),
            "{found:?}"
        );
    }
}

/// Of one logit a class is its sign.
#[test]
fn labels_of_one_logit_are_published() {
    let small = Small::allowing(Packing::Latency, 2);
    let samples = small.encrypt(&ROWS, "request").unwrap().samples;
    small.evaluate("keys", "request", "result").unwrap();
    let result = small.path("result");
    let published = files::publish_labels(&mut small.key("keys"), &small.planned(), &result);
    let opened = small.decrypt("result").unwrap();
    let published = published.unwrap();
    assert_eq!((samples.len(), published.len()), (3, 3));
    for (published, opened) in published.iter().zip(&opened).take(2) {
        let label = usize::from(opened.logits.as_ref().unwrap()[0] > 0.0);
        assert_eq!(published.outcome, PublishedOutcome::Label { label });
    }
    let last = &published[2].outcome;
    assert!(matches!(last, PublishedOutcome::Refused { .. }), "{last:?}");
    assert_eq!(small.key("keys").head().spent, 2);
}

/// Adds to the first `objects` results of a file, which are in the transformed domain: a
/// constant there is the same in every slot.
fn shift(planned: &Planned<'_>, bytes: &mut [u8], objects: usize, by: f64) {
    let params = planned.params();
    let header = wire::Header::parse(&bytes[body(bytes)..], params).unwrap();
    let wire::Object::Ciphertext { scale } = header.object else {
        panic!("a result is a ciphertext of two parts")
    };
    let size = wire::Kind::Ciphertext
        .object_len(params, header.level)
        .unwrap();
    let start = body(bytes);
    for object in bytes[start..].chunks_exact_mut(size).take(objects) {
        let limbs = || vec![0; (header.level + 1) * params.n()];
        let ct = wire::read_ciphertext(params, object, [limbs(), limbs()]).unwrap();
        let [mut c0, c1] = ct.into_parts();
        for (i, limb) in c0.chunks_exact_mut(params.n()).enumerate() {
            let q = i64::from(params.prime(i).unwrap().modulus().value());
            let by = ((by * scale).round() as i64).rem_euclid(q);
            for x in limb {
                *x = ((i64::from(*x) + by) % q) as u32;
            }
        }
        let ct = Ciphertext::new(params, header.level, scale, c0, c1).unwrap();
        wire::write_ciphertext(params, &ct, object).unwrap();
    }
    rehash(bytes);
}

/// A request, its result, and beside it one that is shifted by so much of the plan's figure.
fn lie(small: &Small, by: f64) {
    let planned = small.planned();
    let allowed = planned.logit_error().six_sigma;
    small.encrypt(&ROWS, "request").unwrap();
    small.evaluate("keys", "request", "result").unwrap();
    let mut lie = fs::read(small.path("result")).unwrap();
    shift(&planned, &mut lie, 1, by * allowed);
    fs::write(small.path("lie"), lie).unwrap();
}

/// An evaluator that adds to an honest result asks a question by it: whether that is
/// accepted. What goes beyond the plan's figure is the last one about a key.
#[test]
fn a_result_shifted_within_the_modulus_retires_the_key() {
    for packing in BOTH {
        let small = Small::new(packing);
        lie(&small, -3.0);
        let opened = small.decrypt("lie").unwrap();
        let Err(refused) = &opened[0].logits else {
            panic!("accepted in {packing:?}")
        };
        assert_one_sentence("decrypt", refused);
        assert!(refused.contains("the key is retired"), "{refused}");
        // The others have no answer either.
        assert!(opened.iter().all(|opened| opened.logits.is_err()));
        assert!(small.key("keys").head().retired);
        let honest = small.decrypt("result");
        let is_retired = matches!(honest, Err(StepError::Sealed(SealedError::Retired(_))));
        assert!(is_retired, "{honest:?}");
    }
}

/// A label is an answer, too: of what is beyond it, none is given out, nor one after it.
#[test]
fn no_label_of_a_shifted_result_is_published() {
    let small = Small::allowing(Packing::Latency, 9);
    let planned = small.planned();
    lie(&small, -3.0);
    let mut key = small.key("keys");
    let published = files::publish_labels(&mut key, &planned, &small.path("lie")).unwrap();
    assert_eq!(published.len(), ROWS.len());
    for label in &published {
        let PublishedOutcome::Refused { refused } = &label.outcome else {
            panic!("published: {label:?}")
        };
        assert_one_sentence("decrypt --publish", refused);
    }
    assert!(key.head().retired);
}

/// Rows with values beyond those of training have larger errors, which is said.
#[test]
fn a_row_beyond_training_is_named() {
    for packing in BOTH {
        let small = Small::new(packing);
        small.encrypt(&ROWS, "request").unwrap();
        small.evaluate("keys", "request", "result").unwrap();
        let opened = small.decrypt("result").unwrap();
        assert!(opened.iter().all(|row| !row.beyond_training), "{packing:?}");
        let mut report = OpenedReport::of(&small.planned(), opened);
        assert_eq!(report.unusual().count(), 0);
        let Outcome::Classified(found) = &mut report.images[1].outcome else {
            panic!("refused")
        };
        found.max_logit_error = 0.5;
        found.allowed_error = Some(0.75);
        found.beyond_training = true;
        assert_eq!(report.unusual().count(), 1);
        let text = report.text();
        assert!(
            text.contains("sample 1 has values beyond those of training"),
            "{text}"
        );
        assert!(text.contains("off by 5.0e-1"), "{text}");
        assert!(text.contains("let expect 7.5e-1"), "{text}");
    }
}

/// One request takes one result: a second question costs the evaluator a request.
#[test]
fn a_request_takes_one_result() {
    let small = Small::allowing(Packing::Latency, 9);
    let planned = small.planned();
    let allowed = planned.logit_error().six_sigma;
    // Within what is accepted.
    lie(&small, 0.25);
    let logits = |opened: Vec<Opened>| -> Vec<Vec<f64>> {
        opened.into_iter().map(|x| x.logits.unwrap()).collect()
    };
    let first = logits(small.decrypt("result").unwrap());
    let publish = |file: &str| {
        let file = small.path(file);
        files::publish_labels(&mut small.key("keys"), &small.planned(), &file)
    };
    assert!(matches!(problem(small.decrypt("lie")), Problem::Answered));
    assert!(matches!(problem(publish("lie")), Problem::Answered));
    assert_eq!(small.key("keys").head().spent, 0);
    // The same one tells nothing new, whatever its head says of it and where it lies.
    assert_eq!(logits(small.decrypt("result").unwrap()), first);
    assert_eq!(publish("result").unwrap().len(), 3);
    assert!(!small.key("keys").head().retired);
    // What is published counts as an answer, too.
    small.encrypt(&ROWS, "second").unwrap();
    small.evaluate("keys", "second", "of second").unwrap();
    publish("of second").unwrap();
    let mut lie = fs::read(small.path("of second")).unwrap();
    shift(&planned, &mut lie, 1, 0.25 * allowed);
    fs::write(small.path("lie"), lie).unwrap();
    assert!(matches!(problem(small.decrypt("lie")), Problem::Answered));
    small.decrypt("of second").unwrap();
}

/// More samples than a batch has room for, the last ones alone in theirs.
#[test]
fn several_batches_come_back_in_order() {
    let small = Small::new(Packing::Batch);
    let row = |i: usize| {
        let mut row = ROWS[i % ROWS.len()];
        row[7] = 21.0 + (i % 50) as f32;
        row
    };
    let count = small.planned().params().slots() + 5;
    let rows: Vec<[f32; 8]> = (0..count).map(row).collect();
    small.encrypt(&rows, "request").unwrap();
    let made = small.evaluate("keys", "request", "result").unwrap();
    assert_eq!(made.samples, count);
    let opened = small.decrypt("result").unwrap();
    assert_eq!(opened.len(), count);
    let allowed = small.planned().logit_error().six_sigma;
    for (opened, index) in opened.iter().zip(0..) {
        assert_eq!(opened.index, index);
        let logits = opened.logits.as_ref().unwrap();
        assert!((logits[0] - opened.plain[0]).abs() <= allowed, "{index}");
    }
    // The results of one batch are not those of another.
    small.encrypt(&rows, "again").unwrap();
    small.evaluate("keys", "again", "lie").unwrap();
    let mut lie = fs::read(small.path("lie")).unwrap();
    let (start, end) = (body(&lie), lie.len() - 32);
    let (one, other) = lie[start..end].split_at_mut((end - start) / 2);
    one.swap_with_slice(other);
    rehash(&mut lie);
    fs::write(small.path("lie"), lie).unwrap();
    let opened = small.decrypt("lie").unwrap();
    assert!(opened.iter().all(|opened| opened.logits.is_err()));
}

/// One bit of any file, its end, its kind and its like of another key or model.
#[test]
fn damage_and_mismatches_are_named() {
    let small = Small::new(Packing::Latency);
    small.encrypt(&ROWS, "request").unwrap();
    small.evaluate("keys", "request", "result").unwrap();
    let step = |name: &str, file: &str| match name {
        "evaluate" => problem(small.evaluate("keys", file, "out")),
        _ => problem(small.decrypt(file)),
    };
    for (name, file) in [("evaluate", "request"), ("decrypt", "result")] {
        let good = fs::read(small.path(file)).unwrap();
        let mut places: Vec<usize> = (0..body(&good) + 40).collect();
        places.extend((good.len() - 40..good.len()).chain([good.len() / 2]));
        for at in places {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(small.path("bad"), bad).unwrap();
            let found = step(name, "bad");
            let expected = match at {
                0..8 => matches!(found, Problem::Foreign),
                8..10 => matches!(found, Problem::Version(_)),
                _ => matches!(
                    found,
                    Problem::Damaged | Problem::Length { .. } | Problem::HeadLength(_)
                ),
            };
            assert!(expected, "{file} {at}: {found:?}");
        }
        for length in [0, 5, 8, 20, body(&good), good.len() - 1] {
            fs::write(small.path("bad"), &good[..length]).unwrap();
            let found = step(name, "bad");
            let expected = matches!(found, Problem::Length { .. } | Problem::Foreign);
            assert!(expected, "{length}: {found:?}");
        }
        fs::write(small.path("bad"), [&good[..], b"\n"].concat()).unwrap();
        assert!(matches!(step(name, "bad"), Problem::Length { .. }));
        assert!(matches!(step(name, "nowhere"), Problem::System { .. }));
        assert!(matches!(step(name, "keys"), Problem::NoFile));
        assert!(matches!(
            step(name, "keys/client/secret.key"),
            Problem::Kind { .. }
        ));
        // More samples than there are bytes for.
        let mut bad = good.clone();
        let at = bad.windows(11).position(|w| w == b"\"samples\":3").unwrap();
        bad[at + 10] = b'7';
        rehash(&mut bad);
        fs::write(small.path("bad"), bad).unwrap();
        assert!(matches!(step(name, "bad"), Problem::Samples { .. }));
        assert!(!small.path("out").exists());
    }
    // What goes where does not follow the name that a result gives itself.
    let mut bad = fs::read(small.path("result")).unwrap();
    let at = bad
        .windows(11)
        .position(|w| w == b"\"request\":\"")
        .unwrap()
        + 11;
    bad[at..at + 32].copy_from_slice(b"../../../../../../../etc/passwd.");
    rehash(&mut bad);
    fs::write(small.path("bad"), &bad).unwrap();
    assert!(matches!(step("decrypt", "bad"), Problem::Request));
    bad[at..at + 32].copy_from_slice(&[b'0'; 32]);
    rehash(&mut bad);
    fs::write(small.path("bad"), &bad).unwrap();
    assert!(matches!(step("decrypt", "bad"), Problem::Request));

    small.keygen("others", 0).unwrap();
    let found = problem(small.evaluate("others", "request", "out"));
    assert!(matches!(found, Problem::Mismatch { what: "key", .. }));
    let model = bundled::model("mnist-mlp64").unwrap();
    let planned = Planned::new(None, Model::parse(model).unwrap(), Packing::Latency).unwrap();
    let keys = small.path("keys/evaluator/evaluation.keys");
    let (request, out) = (small.path("request"), small.path("out"));
    let found = problem(files::evaluate(&keys, planned, &request, &out, &mut ()));
    assert!(matches!(found, Problem::Mismatch { what: "model", .. }));
    let batches = Planned::new(None, Model::parse(small.model).unwrap(), Packing::Batch);
    let batches = batches.unwrap();
    let found = problem(files::evaluate(&keys, batches, &request, &out, &mut ()));
    assert!(matches!(found, Problem::Mismatch { .. }), "{found:?}");
    // The note says what is accepted.
    let notes = small.path("keys/client/requests");
    let note = fs::read_dir(notes).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&note).unwrap();
    let mut bad = good.clone();
    let at = body(&bad) + 5;
    bad[at] ^= 1;
    rehash(&mut bad);
    fs::write(&note, bad).unwrap();
    assert!(matches!(step("decrypt", "result"), Problem::Note));
    fs::write(&note, good).unwrap();
    // None of it used the key up.
    let opened = small.decrypt("result").unwrap();
    assert!(opened.iter().all(|opened| opened.logits.is_ok()));
}

/// An evaluator that gives one request's results for another, or one sample's for
/// another, is refused, and the key with it, also in the next process.
#[test]
fn replayed_results_are_refused_and_retire_the_key() {
    for (packing, swap_samples) in [
        (Packing::Latency, false),
        (Packing::Latency, true),
        (Packing::Batch, false),
    ] {
        let small = Small::new(packing);
        small.encrypt(&ROWS, "first").unwrap();
        small.encrypt(&ROWS, "second").unwrap();
        small.evaluate("keys", "first", "of first").unwrap();
        small.evaluate("keys", "second", "of second").unwrap();
        let mut lie = fs::read(small.path("of second")).unwrap();
        let (start, end) = (body(&lie), lie.len() - 32);
        if swap_samples {
            let size = (end - start) / ROWS.len();
            let (one, other) = lie[start..end].split_at_mut(size);
            one.swap_with_slice(&mut other[..size]);
        } else {
            let old = fs::read(small.path("of first")).unwrap();
            lie[start..end].copy_from_slice(&old[body(&old)..old.len() - 32]);
        }
        rehash(&mut lie);
        fs::write(small.path("lie"), lie).unwrap();
        let opened = small.decrypt("lie").unwrap();
        assert!(opened.iter().all(|opened| opened.logits.is_err()));
        assert!(small.key("keys").head().retired);
        for answer in [
            small.decrypt("of first").map(|_| ()),
            small.encrypt(&ROWS, "third").map(|_| ()),
        ] {
            let retired = matches!(answer, Err(StepError::Sealed(SealedError::Retired(_))));
            assert!(retired, "{answer:?}");
        }
    }
}
