//! A process that works with a sealed key, or with a budget in a file of its own, is killed
//! before every single system call from the opening of the file on: never has it published
//! more than is counted, a key is retired once it says so, and key, budget and note open
//! again.
//!
//! strace counts calls per thread, and the threads of a test harness are not the first one;
//! so this test is a program without one, whose processes work on their only thread. Which
//! calls there are is taken from a run that is left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use he_core::ckks::publish::{Allowance, Budget, KeyId};
use he_nn::bundled;
use he_nn::model::{Model, Sample};
use he_nn::plan::Packing;
use host_runner::budget::FileBudget;
use host_runner::files::{
    self, Cost, Passphrase, Planned, PublishedOutcome, SealedError, SealedKey,
};
use tempfile::TempDir;

const NAME: &str = "a_process_killed_before_every_system_call_has_counted_what_it_published";

/// Says what a process that this one starts does, and where.
const WORK: &str = "HE_EDGE_TEST_WORK";
const FOLDER: &str = "HE_EDGE_TEST_FOLDER";

/// What it says when it has done it.
const DONE: &str = "done\n";

fn passphrase() -> Passphrase {
    Passphrase::new("correct horse".into()).unwrap()
}

fn planned() -> Planned<'static> {
    let model = Model::parse(bundled::model("pima-logreg").unwrap()).unwrap();
    Planned::new(None, model, Packing::Latency).unwrap()
}

/// The files of a client with one request, and its result.
struct Files {
    root: TempDir,
}

impl Files {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (folder, planned) = (root.path(), planned());
        let allowance = Allowance::new(1_000_000, 30).unwrap();
        files::keygen(folder, &planned, allowance, &passphrase(), Cost::LEAST).unwrap();
        let row = [6.0, 148.0, 72.0, 35.0, 0.0, 33.6, 0.627, 50.0];
        let sample = [(0, Sample::Features(&row), 0)];
        let request = folder.join("request");
        let key = open(&key(folder)).unwrap();
        files::encrypt(&key, &planned, &sample, &request, &mut ()).unwrap();
        let [_, keys] = files::generated(folder);
        files::evaluate(&keys, planned, &request, &result(folder), &mut ()).unwrap();
        Self { root }
    }

    fn folder(&self) -> &Path {
        self.root.path()
    }

    fn key(&self) -> SealedKey {
        open(&key(self.folder())).unwrap()
    }
}

fn key(folder: &Path) -> PathBuf {
    let [secret, _] = files::generated(folder);
    secret
}

fn result(folder: &Path) -> PathBuf {
    folder.join("result")
}

fn open(path: &Path) -> Result<SealedKey, SealedError> {
    SealedKey::open(path, &passphrase())
}

/// A budget in a file of its own.
fn budget(folder: &Path) -> PathBuf {
    folder.join("budget.json")
}

/// The key that it is of.
const OWNER: KeyId = KeyId([7; 16]);

/// What lies in a directory beside a file and directories.
fn beside(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|found| found != path && found.is_file())
        .collect()
}

/// What a process that is killed does.
#[expect(clippy::print_stdout, reason = "who started it looks for it")]
fn work(what: &str) {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    match what {
        "spend" => {
            let mut budget = FileBudget::open(&budget(&folder)).unwrap();
            budget.spend(&OWNER).unwrap();
        }
        "publish" => {
            let mut key = open(&key(&folder)).unwrap();
            let published = files::publish_labels(&mut key, &planned(), &result(&folder));
            let outcome = published.unwrap().remove(0).outcome;
            assert!(matches!(outcome, PublishedOutcome::Label { .. }));
        }
        _ => {
            let mut key = open(&key(&folder)).unwrap();
            let id = *key.id();
            key.retire(&id).unwrap();
        }
    }
    print!("{DONE}");
}

/// A process that does it under strace, with these arguments.
fn traced(what: &str, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("strace");
    command
        .args(arguments)
        .arg(std::env::current_exe().unwrap());
    command.env(WORK, what).env(FOLDER, folder);
    command.stderr(Stdio::null()).output().unwrap()
}

fn is_done(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stdout).contains(DONE)
}

/// The system calls from the opening of the key or budget on: which, and the how manieth of its name.
fn calls(what: &str, folder: &Path) -> Vec<(String, usize)> {
    let log = folder.join("log");
    let arguments = ["-qq", "-o", log.to_str().unwrap()];
    assert!(is_done(&traced(what, folder, &arguments)));
    let log = fs::read_to_string(log).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    let (mut calls, mut is_open) = (Vec::new(), false);
    for line in log.lines() {
        let Some((name, _)) = line.split_once('(') else {
            continue;
        };
        assert!(!name.contains("clone") && !name.contains("fork"), "{line}");
        let count: &mut usize = counts.entry(name.to_owned()).or_default();
        *count += 1;
        is_open |= line.contains("secret.key") || line.contains("budget.json");
        if is_open && !name.starts_with("exit") {
            calls.push((name.to_owned(), *count));
        }
    }
    calls
}

/// Kills it before one of them.
fn killed(what: &str, folder: &Path, (name, nth): &(String, usize)) -> Output {
    let traced_call = format!("trace={name}");
    let inject = format!("inject={name}:signal=SIGKILL:when={nth}");
    traced(
        what,
        folder,
        &["-qq", "-o", "/dev/null", "-e", &traced_call, "-e", &inject],
    )
}

fn publications() -> usize {
    let made = Files::new();
    let folder = made.folder();
    let note = fs::read_dir(folder.join("client/requests")).unwrap();
    let note = note.map(|entry| entry.unwrap().path()).next().unwrap();
    let unanswered = fs::read(&note).unwrap();
    let calls = calls("publish", folder);
    // Opening, the mark in the note, the count, and what is said of it.
    for name in ["flock", "fsync", "getrandom", "write"] {
        assert!(
            calls.iter().any(|(call, _)| call == name),
            "{name}: {calls:?}"
        );
    }
    let (mut published, mut spent) = (1, 1);
    assert_eq!(made.key().head().spent, spent);
    let (mut kills, mut left, mut marked, mut both) = (0, 0, 0, [false; 2]);
    for call in &calls {
        fs::write(&note, &unanswered).unwrap();
        let output = killed("publish", folder, call);
        kills += usize::from(!output.status.success());
        published += u32::from(is_done(&output));
        // What it left behind is no second key, and goes.
        for version in beside(&key(folder)) {
            let refused = open(&version).unwrap_err();
            assert!(matches!(refused, SealedError::Held(_)), "{refused}");
            left += 1;
        }
        let mut key = made.key();
        let before = spent;
        spent = key.head().spent;
        assert!(beside(key.path()).is_empty(), "{call:?}");
        assert!(published <= spent, "{call:?}: {published} of {spent}");
        assert!(spent - before <= 1 && !key.head().retired, "{call:?}");
        both[usize::from(spent > before)] = true;
        let is_marked = fs::read(&note).unwrap() != unanswered;
        marked += usize::from(is_marked);
        assert!(
            is_marked || spent == before,
            "{call:?}: counted and not marked"
        );
        // The note is whole, and the same result is its own.
        let opened = files::decrypt(&mut key, &planned(), &result(folder)).unwrap();
        assert!(opened[0].logits.is_ok(), "{call:?}");
        beside(&note)
            .iter()
            .for_each(|path| fs::remove_file(path).unwrap());
    }
    assert!(both == [true; 2], "before the count and after it");
    assert!(left > 0, "between a new version and its renaming");
    assert!(
        marked > 0 && marked < calls.len(),
        "before the mark and after it"
    );
    assert!(10 * kills >= 9 * calls.len(), "{kills} of {}", calls.len());
    kills
}

fn retirements() -> usize {
    let made = Files::new();
    let folder = made.folder();
    let calls = calls("retire", folder);
    assert!(made.key().head().retired);
    let (mut kills, mut both) = (0, [false; 2]);
    for call in &calls {
        // There is no copy of a key: a new one each time.
        fs::remove_file(key(folder)).unwrap();
        let allowance = Allowance::new(3, 30).unwrap();
        let params = planned().params();
        let new = SealedKey::create(&key(folder), params, allowance, &passphrase(), Cost::LEAST);
        drop(new.unwrap());
        let output = killed("retire", folder, call);
        kills += usize::from(!output.status.success());
        let retired = made.key().head().retired;
        assert!(retired || !is_done(&output), "{call:?}");
        assert!(beside(&key(folder)).is_empty(), "{call:?}");
        both[usize::from(retired)] = true;
    }
    assert!(both == [true; 2], "before and after");
    assert!(10 * kills >= 9 * calls.len(), "{kills} of {}", calls.len());
    kills
}

fn counts() -> usize {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let allowance = Allowance::new(1_000_000, 30).unwrap();
    drop(FileBudget::create(&budget(folder), &OWNER, allowance).unwrap());
    let calls = calls("spend", folder);
    for name in ["flock", "fsync", "rename"] {
        assert!(
            calls.iter().any(|(call, _)| call.starts_with(name)),
            "{name}: {calls:?}"
        );
    }
    let count = || FileBudget::open(&budget(folder)).unwrap().spent();
    let (mut published, mut spent) = (1, 1);
    assert_eq!(count(), spent);
    let (mut kills, mut both) = (0, [false; 2]);
    for call in &calls {
        let output = killed("spend", folder, call);
        kills += usize::from(!output.status.success());
        published += u32::from(is_done(&output));
        let before = spent;
        spent = count();
        assert!(published <= spent, "{call:?}: {published} of {spent}");
        assert!(spent - before <= 1, "{call:?}");
        both[usize::from(spent > before)] = true;
    }
    assert!(both == [true; 2], "before the count and after it");
    assert!(10 * kills >= 9 * calls.len(), "{kills} of {}", calls.len());
    kills
}

#[expect(clippy::print_stdout, reason = "what a test harness says")]
fn main() {
    if let Ok(what) = std::env::var(WORK) {
        return work(&what);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has("--list") {
        if !has("--ignored") {
            println!("{NAME}: test");
        }
        return;
    }
    let mut filters = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'));
    if has("--ignored")
        || filters
            .next()
            .is_some_and(|filter| !NAME.contains(filter.as_str()))
    {
        return;
    }
    let traces = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    if !traces.is_ok_and(|output| output.status.success()) {
        println!("left out: kills before every system call, as strace does not run here");
        return;
    }
    let (publications, retirements, counts) = (publications(), retirements(), counts());
    println!(
        "{NAME}: {publications} kills of publications, {retirements} of retirements, {counts} of counts in a file of their own"
    );
}
