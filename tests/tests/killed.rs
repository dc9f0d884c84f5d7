//! Processes that are killed at any moment lose no finished image: `infer --resume` goes
//! on, and a client goes on with a server that comes back.
//!
//! With HE_EDGE_LONG at two hundred moments.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use he_edge_tests::assert_one_sentence;
use he_edge_tests::command::binary;
use he_nn::model::{Input, Model};
use serde_json::Value;
use tempfile::TempDir;

const MODEL: &str = "pima-logreg";

const IMAGES: usize = 50;

/// No run takes longer.
const LIMIT: Duration = Duration::from_secs(240);

/// A table of rows like those of training.
fn table(directory: &Path) {
    let model = Model::parse(he_nn::bundled::model(MODEL).unwrap()).unwrap();
    let Input::Features { means, deviations } = model.input() else {
        panic!("{MODEL} takes features");
    };
    let features: Vec<(f32, f32)> = means.iter().zip(deviations.iter()).collect();
    let mut text = String::new();
    for at in 0..4 * IMAGES {
        for (of, (mean, deviation)) in features.iter().enumerate() {
            let away = ((at * 7 + of * 3) % 23) as f32 / 11.0 - 1.0;
            text.push_str(&format!("{},", mean + away * deviation));
        }
        text.push_str(&format!("{}\n", at % 2));
    }
    fs::write(directory.join("pima-indians-diabetes.csv"), text).unwrap();
}

/// Sends a signal to a process, by the shell, which every system has.
fn signal(name: &str, process: &str) {
    let script = "kill -s \"$1\" \"$2\"";
    let mut kill = Command::new("sh");
    let sent = kill.args(["-c", script, "sh", name, process]).status();
    assert!(sent.unwrap().success());
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, name: &str) {
        signal(name, &self.0.id().to_string());
    }

    /// Its status and what it said on standard error.
    fn end(&mut self) -> (ExitStatus, String) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < LIMIT, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        (status, said)
    }
}

/// A server at an address, and the address it got.
fn serve(address: &str) -> (Process, String) {
    let child = Command::new(binary())
        .args(["serve", "--model", MODEL, "--listen", address])
        .stderr(Stdio::piped())
        .spawn();
    let mut process = Process(child.unwrap());
    let mut stderr = BufReader::new(process.0.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    let address = line.split_whitespace().last().unwrap_or_default();
    assert!(line.contains(" at "), "{line}");
    (process, address.to_owned())
}

fn infer(address: &str, directory: &Path, more: &[&str]) -> Process {
    let child = Command::new(binary())
        .args(["infer", "--model", MODEL, "--split", "train"])
        .args(["--count", &IMAGES.to_string()])
        .args(["--device", &format!("tcp:{address}")])
        .arg("--data")
        .arg(directory)
        .args(["--resume", "ledger", "--json", "out.json"])
        .args(more)
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    Process(child.unwrap())
}

/// The document of a run, whose images are there once, and right.
fn document(directory: &Path) -> Value {
    let text = fs::read_to_string(directory.join("out.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let images = document["images"].as_array().unwrap();
    let indices: BTreeSet<u64> = images
        .iter()
        .map(|i| i["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices.len(), images.len(), "answered twice");
    for image in images {
        assert_eq!(image["predicted"], image["plain_predicted"], "{image}");
    }
    let ledger = fs::read_to_string(directory.join("ledger")).unwrap();
    assert_eq!(ledger.lines().count(), 1 + images.len());
    document
}

#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn kills_at_any_moment_cost_no_image() {
    let moments = match std::env::var_os("HE_EDGE_LONG") {
        Some(_) => 200,
        None => 20,
    };
    let mut rng = ChaCha8Rng::from_seed([5; 32]);
    let directory = TempDir::new().unwrap();
    table(directory.path());
    let (mut server, address) = serve("127.0.0.1:0");
    let (mut kills, mut runs, mut retries, mut began_too_soon) = ([0, 0], 0, 0, 0);
    let mut client = infer(&address, directory.path(), &[]);
    while kills[0] + kills[1] < moments || runs == 0 {
        let moment = Duration::from_millis(rng.next_u64() % 400);
        let begin = Instant::now();
        while begin.elapsed() < moment && client.0.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(began_too_soon <= moments);
        if client.0.try_wait().unwrap().is_some() {
            let (status, said) = client.end();
            if !status.success() {
                // It began in the moment in which there was no server: a mistake of whoever
                // calls, for all that it knows.
                let gone = said.contains("nobody listens") || said.contains("closed the");
                assert!(gone && said.lines().count() == 1, "{said}");
                began_too_soon += 1;
                client = infer(&address, directory.path(), &[]);
                continue;
            }
            let document = document(directory.path());
            assert_eq!(document["images"].as_array().unwrap().len(), IMAGES);
            assert_eq!(document["unfinished"], 0);
            retries += document["retries"].as_u64().unwrap();
            runs += 1;
            fs::remove_file(directory.path().join("ledger")).unwrap();
            fs::remove_file(directory.path().join("out.json")).unwrap();
            client = infer(&address, directory.path(), &[]);
        } else if kills[0] + kills[1] < moments {
            let which = (rng.next_u64() % 2) as usize;
            kills[which] += 1;
            if which == 0 {
                drop(client);
                client = infer(&address, directory.path(), &[]);
            } else {
                drop(server);
                server = serve(&address).0;
            }
        }
    }
    let [clients, servers] = kills;
    println!(
        "{runs} runs of {IMAGES} through {clients} kills of the client and {servers} of the server, tried again {retries} times; {began_too_soon} began without a server"
    );
}

#[test]
fn a_device_that_is_not_there_is_lost_and_others_go_on_with_the_run() {
    let directory = TempDir::new().unwrap();
    table(directory.path());
    // One that nobody serves, known before as one that somebody served.
    let (server, gone) = serve("127.0.0.1:0");
    drop(server);
    let gone = format!("tcp:{gone}");
    let (server, address) = serve("127.0.0.1:0");
    let (status, said) = infer(&address, directory.path(), &["--device", &gone]).end();
    assert!(status.success(), "{said}");
    let document = |images: usize| {
        let document = document(directory.path());
        assert_eq!(document["images"].as_array().unwrap().len(), images);
        assert_eq!(document["unfinished"], 0);
        document
    };
    let whole = document(IMAGES);
    let lost = whole["lost_devices"].as_array().unwrap();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0]["device"], gone.as_str());
    assert!(lost[0]["why"].as_str().unwrap().contains("nobody listens"));

    // Other devices go on: a part of the ledger, another server, and one twice.
    let ledger = directory.path().join("ledger");
    let text = fs::read_to_string(&ledger).unwrap();
    let part: String = text.split_inclusive('\n').take(1 + IMAGES / 2).collect();
    fs::write(&ledger, part).unwrap();
    drop(server);
    let (_other, other) = serve("127.0.0.1:0");
    let same = format!("tcp:{other}");
    let (status, said) = infer(&other, directory.path(), &["--device", &same]).end();
    assert!(status.success(), "{said}");
    assert!(
        document(IMAGES)["lost_devices"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );

    // Without any there is no run, and one sentence.
    let (status, said) = infer(
        &gone["tcp:".len()..],
        directory.path(),
        &["--device", &gone],
    )
    .end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("nobody listens") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn an_interrupted_run_keeps_what_is_finished() {
    let directory = TempDir::new().unwrap();
    table(directory.path());
    let (mut server, address) = serve("127.0.0.1:0");
    let mut client = infer(&address, directory.path(), &[]);
    let ledger = directory.path().join("ledger");
    let begin = Instant::now();
    while fs::read(&ledger).map_or(0, |text| text.iter().filter(|&&b| b == b'\n').count()) < 4 {
        assert!(begin.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(1));
    }
    client.signal("TERM");
    let (status, said) = client.end();
    let partial = document(directory.path());
    let finished = partial["images"].as_array().unwrap().len();
    if finished < IMAGES {
        assert_eq!(status.code(), Some(1), "{said}");
        let sentence = said.trim_end().strip_prefix("he-edge: ").unwrap();
        assert_one_sentence("interrupted", &sentence);
        assert!(sentence.contains("goes on from ledger"), "{sentence}");
        assert!(
            sentence.contains(&format!("{finished} of {IMAGES}")),
            "{sentence}"
        );
        assert_eq!(partial["unfinished"], IMAGES - finished);
    }
    let (status, said) = infer(&address, directory.path(), &[]).end();
    assert!(status.success(), "{said}");
    assert_eq!(document(directory.path())["unfinished"], 0);
    // A server that is told to end does so, and that is no failure.
    server.signal("TERM");
    assert!(server.end().0.success());
}

/// Whatever ends the emulator, or the process that has it, costs no image and leaves
/// neither a directory nor a process.
#[test]
#[cfg(all(feature = "emulator", target_os = "linux"))]
fn board_kills_of_the_emulator_cost_no_image() {
    const COUNT: usize = 6;
    let directory = TempDir::new().unwrap();
    let temporary = directory.path().join("with, comma");
    fs::create_dir(&temporary).unwrap();
    let infer = || {
        let child = Command::new(binary())
            .args(["infer", "--device", "qemu", "--count", &COUNT.to_string()])
            .args(["--resume", "ledger", "--json", "out.json"])
            .env("TMPDIR", &temporary)
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Process(child.unwrap())
    };
    // A child of the process, by what the system says of every process.
    let emulator_of = |process: &Process| {
        let parent = process.0.id().to_string();
        let of_system = fs::read_dir("/proc").unwrap().flatten();
        let mut found = of_system.filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            let is_child = rest.split(' ').nth(1) == Some(parent.as_str());
            let id = entry.file_name().into_string().ok()?;
            (is_child && name.starts_with("qemu-system")).then_some(id)
        });
        found.next()
    };
    let finished = || {
        let text = fs::read(directory.path().join("ledger")).unwrap_or_default();
        text.iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            .saturating_sub(1)
    };
    let wait = |what: &str, is: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !is() {
            assert!(begin.elapsed() < LIMIT, "{what}");
            thread::sleep(Duration::from_millis(2));
        }
    };
    let nothing_left = |emulator: &str| {
        let is_gone = || !Path::new("/proc").join(emulator).exists();
        wait("an emulator stays", &is_gone);
        let is_empty = || fs::read_dir(&temporary).unwrap().next().is_none();
        wait("a directory stays", &is_empty);
    };

    // The emulator, after two images; then the process, after four.
    let client = infer();
    wait("no image", &|| finished() >= 2);
    let first = emulator_of(&client).unwrap();
    signal("KILL", &first);
    wait("no image after a kill", &|| finished() >= 4);
    let second = emulator_of(&client).unwrap();
    assert_ne!(first, second);
    drop(client);
    nothing_left(&second);
    let (status, said) = infer().end();
    assert!(status.success(), "{said}");
    let document = document(directory.path());
    assert_eq!(document["images"].as_array().unwrap().len(), COUNT);
    assert_eq!(document["retries"], 1);
    nothing_left(&second);

    // Told to end, and told twice.
    fs::remove_file(directory.path().join("ledger")).unwrap();
    for times in 1..=2 {
        let mut client = infer();
        wait("no emulator", &|| emulator_of(&client).is_some());
        let emulator = emulator_of(&client).unwrap();
        for _ in 0..times {
            client.signal("TERM");
        }
        assert!(!client.end().0.success());
        nothing_left(&emulator);
    }
}
