//! Processes that are killed at any moment lose no finished image: `infer --resume` goes
//! on, and a client goes on with a server that comes back.
//!
//! With HE_EDGE_LONG at two hundred moments; the figures are in `tests/figures/kills.csv`.
//! An emulator is killed in `board_killed.rs`.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use he_edge_tests::assert_one_sentence;
use he_edge_tests::command::binary;
use he_edge_tests::figures::{self, Run};
use he_edge_tests::processes::{
    LIMIT, MODEL, Process, begin_anew, document, finished, table, whole_document,
};
use tempfile::TempDir;

const IMAGES: usize = 50;

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

#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn kills_at_any_moment_cost_no_image() {
    let is_long = std::env::var_os("HE_EDGE_LONG").is_some();
    let run = Run::begin(is_long);
    let moments = if is_long { 200 } else { 20 };
    let mut rng = ChaCha8Rng::from_seed([5; 32]);
    let directory = TempDir::new().unwrap();
    table(directory.path(), IMAGES);
    let (mut server, address) = serve("127.0.0.1:0");
    let (mut kills, mut runs, mut retries, mut began_too_soon) = ([0, 0], 0, 0, 0);
    let mut resumed = 0;
    let mut client = infer(&address, directory.path(), &[]);
    while kills[0] + kills[1] < moments || runs == 0 {
        let moment = Duration::from_millis(rng.next_u64() % 400);
        let begin = Instant::now();
        while begin.elapsed() < moment && !client.has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(began_too_soon <= moments);
        if client.has_ended() {
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
            let document = whole_document(directory.path(), IMAGES);
            retries += document["retries"].as_u64().unwrap();
            runs += 1;
            begin_anew(directory.path());
            client = infer(&address, directory.path(), &[]);
        } else if kills[0] + kills[1] < moments {
            let which = (rng.next_u64() % 2) as usize;
            kills[which] += 1;
            if which == 0 {
                drop(client);
                resumed += u64::from(finished(directory.path()) > 0);
                client = infer(&address, directory.path(), &[]);
            } else {
                drop(server);
                server = serve(&address).0;
            }
        }
    }
    let [clients, servers] = kills;
    let measured = [clients, servers, runs, IMAGES as u64, resumed];
    run.keep(figures::KILLS, "a server", &measured);
    println!(
        "{runs} runs of {IMAGES} through {clients} kills of the client and {servers} of the server, tried again {retries} times; {began_too_soon} began without a server"
    );
}

#[test]
fn a_device_that_is_not_there_is_lost_and_others_go_on_with_the_run() {
    let directory = TempDir::new().unwrap();
    table(directory.path(), IMAGES);
    // One that nobody serves, known before as one that somebody served.
    let (server, gone) = serve("127.0.0.1:0");
    drop(server);
    let gone = format!("tcp:{gone}");
    let (server, address) = serve("127.0.0.1:0");
    let (status, said) = infer(&address, directory.path(), &["--device", &gone]).end();
    assert!(status.success(), "{said}");
    let document = |images: usize| whole_document(directory.path(), images);
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
    table(directory.path(), IMAGES);
    let (mut server, address) = serve("127.0.0.1:0");
    let mut client = infer(&address, directory.path(), &[]);
    let begin = Instant::now();
    while finished(directory.path()) < 3 {
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
