//! Emulators that are killed at any moment cost no image, and leave neither a directory nor
//! a process.
//!
//! With HE_EDGE_LONG at a hundred moments of runs of fifty images; the figures are in
//! `tests/figures/kills.csv`.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use he_edge_tests::assert_one_sentence;
use he_edge_tests::command::binary;
use he_edge_tests::figures::{self, Run};
use he_edge_tests::processes::{
    LIMIT, MODEL, Process, begin_anew, document, finished, signal, table, whole_document,
};
use tempfile::TempDir;

/// Where runs are, and the temporary directories of their emulators.
struct Place {
    directory: TempDir,
    temporary: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        // QEMU takes a comma for the end of a value.
        let temporary = directory.path().join("with, comma");
        fs::create_dir(&temporary).unwrap();
        Self {
            directory,
            temporary,
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Has the image built, which may take longer than anything that is waited for below.
    fn build(&self, of_model: &[&str]) {
        let mut infer = Command::new(binary());
        infer.args(["infer", "--device", "qemu", "--count", "1"]);
        let output = infer.args(of_model).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Begins a run, or goes on with it.
    fn infer(&self, count: usize, more: &[&str]) -> Process {
        let child = Command::new(binary())
            .args(["infer", "--device", "qemu", "--count", &count.to_string()])
            .args(["--resume", "ledger", "--json", "out.json"])
            .args(more)
            .env("TMPDIR", &self.temporary)
            .current_dir(self.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Process(child.unwrap())
    }

    /// Nothing is left of an emulator, nor in the temporary directories.
    fn is_clean(&self, emulator: &str) {
        let is_gone = || !Path::new("/proc").join(emulator).exists();
        wait("an emulator stays", is_gone);
        self.is_empty();
    }

    /// Nothing is left in the temporary directories.
    fn is_empty(&self) {
        let is_empty = || fs::read_dir(&self.temporary).unwrap().next().is_none();
        wait("a directory stays", is_empty);
    }
}

fn wait(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A child of the process, by what the system says of every process.
fn emulator_of(process: &Process) -> Option<String> {
    let parent = process.0.id().to_string();
    let of_system = fs::read_dir("/proc").unwrap().flatten();
    let mut found = of_system.filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let is_dead = fields.next() == Some("Z");
        let is_child = fields.next() == Some(parent.as_str());
        let id = entry.file_name().into_string().ok()?;
        (is_child && !is_dead && name.starts_with("qemu-system")).then_some(id)
    });
    found.next()
}

#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn kills_at_any_moment_cost_no_image() {
    let is_long = std::env::var_os("HE_EDGE_LONG").is_some();
    let run = Run::begin(is_long);
    let (moments, images) = if is_long { (100, 50) } else { (8, 8) };
    let mut rng = ChaCha8Rng::from_seed([6; 32]);
    let place = Place::new();
    table(place.path(), images);
    let data = place.path().to_str().unwrap();
    let of_model = ["--model", MODEL, "--split", "train", "--data", data];
    place.build(&of_model);
    // Without tries the end of its emulator is the end of a process, which is resumed.
    let infer = |rng: &mut ChaCha8Rng| {
        let retries = ["0", "8"][(rng.next_u64() % 2) as usize];
        place.infer(images, &[&of_model[..], &["--retries", retries]].concat())
    };
    let (mut clients, mut emulators, mut runs, mut resumed, mut retries) = (0, 0, 0, 0, 0);
    let mut client = infer(&mut rng);
    // Lines of the ledger, which no kill takes back.
    let mut kept = 0;
    while clients + emulators < moments || runs == 0 {
        wait("neither an emulator nor an end", || {
            emulator_of(&client).is_some() || client.has_ended()
        });
        let moment = Duration::from_millis(rng.next_u64() % 1000);
        let begin = Instant::now();
        while begin.elapsed() < moment && !client.has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        if client.has_ended() {
            let (status, said) = client.end();
            if status.success() {
                let document = whole_document(place.path(), images);
                retries += document["retries"].as_u64().unwrap();
                runs += 1;
                kept = 0;
                begin_anew(place.path());
            } else {
                let sentence = said.lines().last().unwrap_or_default();
                let sentence = sentence.strip_prefix("he-edge: ").unwrap_or(&said);
                assert_one_sentence("its emulator was killed", &sentence);
                assert!(sentence.contains("mps2-an386"), "{said}");
            }
        } else if clients + emulators == moments {
            continue;
        } else if !rng.next_u64().is_multiple_of(4) {
            // One that is started anew has no process for a moment.
            if let Some(emulator) = emulator_of(&client) {
                emulators += u64::from(signal("KILL", &emulator));
            }
            continue;
        } else {
            clients += 1;
        }
        drop(client);
        let now = finished(place.path());
        assert!(now >= kept, "{now} of {kept} finished images");
        kept = now;
        resumed += u64::from(kept > 0);
        client = infer(&mut rng);
    }
    drop(client);
    place.is_empty();
    assert!(emulators > 0 && resumed > 0);
    let measured = [clients, emulators, runs, images as u64, resumed];
    run.keep(figures::KILLS, "an emulated board", &measured);
    println!(
        "{runs} runs of {images} through {clients} kills of the client and {emulators} of the emulator, tried again {retries} times, resumed {resumed} times"
    );
}

/// Whatever ends the emulator, or the process that has it, leaves neither a directory nor a
/// process.
#[test]
fn nothing_is_left_of_an_emulator() {
    const COUNT: usize = 6;
    let place = Place::new();
    let finished = || finished(place.path());
    place.build(&[]);

    // The emulator, after two images; then the process, after four.
    let client = place.infer(COUNT, &[]);
    wait("no image", || finished() >= 2);
    let first = emulator_of(&client).unwrap();
    assert!(signal("KILL", &first));
    wait("no image after a kill", || finished() >= 4);
    let second = emulator_of(&client).unwrap();
    assert_ne!(first, second);
    drop(client);
    place.is_clean(&second);
    let (status, said) = place.infer(COUNT, &[]).end();
    assert!(status.success(), "{said}");
    let document = document(place.path());
    assert_eq!(document["images"].as_array().unwrap().len(), COUNT);
    assert_eq!(document["retries"], 1);
    place.is_clean(&second);

    // Told to end, and told twice.
    fs::remove_file(place.path().join("ledger")).unwrap();
    for times in 1..=2 {
        let mut client = place.infer(COUNT, &[]);
        wait("no emulator", || emulator_of(&client).is_some());
        let emulator = emulator_of(&client).unwrap();
        for _ in 0..times {
            client.signal("TERM");
        }
        assert!(!client.end().0.success());
        place.is_clean(&emulator);
    }
}
