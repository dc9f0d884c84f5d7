//! Evaluators in a fleet: brokers and workers that are killed at moments from a seed, a
//! worker that lies, items that nobody can evaluate, workers that leave.
//!
//! They need `nats-server` (tests/setup installs it); without it they fail.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use futures_util::StreamExt;
use he_edge_tests::command::binary;
use he_edge_tests::processes::{MODEL, Process, begin_anew, finished, table, whole_document};
use host_runner::fleet::broker::{Broker, MAX_OBJECT};
use host_runner::fleet::item::{AnswerHead, ItemHead, Outcome};
use host_runner::fleet::pool::{Objects, Pool};
use host_runner::fleet::status;
use host_runner::fleet::subjects::{self, Id};
use host_runner::receipts::Digest;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Nothing that is waited for takes longer.
const SOON: Duration = Duration::from_secs(60);

/// A port that nobody has.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < SOON, "not within a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A broker that keeps what it has in a directory.
fn broker(port: u16, store: &Path) -> Process {
    let started = Command::new("nats-server")
        .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
        .args(["--jetstream", "--store_dir"])
        .arg(store)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let started = started.unwrap_or_else(|error| {
        panic!("nats-server does not start ({error}): install it, with tests/setup")
    });
    let process = Process(started);
    until("the broker listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    process
}

fn worker(port: u16, name: &str) -> Process {
    let started = Command::new(binary())
        .args([
            "work",
            "--nats",
            &format!("127.0.0.1:{port}"),
            "--name",
            name,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    Process(started.unwrap())
}

fn infer(port: u16, directory: &Path, count: usize, more: &[&str]) -> Process {
    let started = Command::new(binary())
        .args(["infer", "--model", MODEL, "--split", "train"])
        .args(["--count", &count.to_string()])
        .args(["--device", &format!("nats:127.0.0.1:{port}")])
        .arg("--data")
        .arg(directory)
        .args(["--resume", "ledger", "--json", "out.json"])
        .args(more)
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    Process(started.unwrap())
}

/// The samples of a fleet, and where its broker keeps what it has.
fn directories(count: usize) -> (TempDir, TempDir) {
    let directory = TempDir::new().unwrap();
    table(directory.path(), count);
    (directory, TempDir::new().unwrap())
}

#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn kills_of_broker_and_workers_cost_no_image() {
    const IMAGES: usize = 200;
    const BROKERS: usize = 6;
    let mut rng = ChaCha8Rng::from_seed([19; 32]);
    let (directory, store) = directories(IMAGES);
    let port = free_port();
    let mut server = broker(port, store.path());
    let names = ["w1", "w2", "w3"];
    let mut workers = names.map(|name| worker(port, name));
    let mut killed = [false; 3];
    let (mut kills, mut runs, mut began_too_soon) = (0, 0, 0);
    let mut totals = [0; 3];
    let mut client = infer(port, directory.path(), IMAGES, &[]);
    while kills < BROKERS || killed.contains(&false) || runs == 0 {
        let moment = Duration::from_millis(rng.next_u64() % 400);
        let begin = Instant::now();
        while begin.elapsed() < moment && !client.has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        if client.has_ended() || (kills == BROKERS && !killed.contains(&false)) {
            let (status, said) = client.end();
            if status.success() {
                let document = whole_document(directory.path(), IMAGES);
                let fleet = &document["fleet"];
                for (total, name) in totals.iter_mut().zip(["sent", "sent_again", "doubled"]) {
                    *total += fleet[name].as_u64().unwrap();
                }
                assert_eq!(fleet["refused_of"], serde_json::json!({}));
                assert_eq!(document["retries"], 0);
                runs += 1;
                begin_anew(directory.path());
            } else {
                // It began in the moment in which there was no broker.
                let is_absence = said.contains("no NATS server") || said.contains("did not");
                assert!(is_absence && said.lines().count() == 1, "{said}");
                began_too_soon += 1;
                assert!(began_too_soon <= BROKERS);
            }
            client = infer(port, directory.path(), IMAGES, &[]);
            continue;
        }
        let unharmed: Vec<usize> = (0..3).filter(|&at| !killed[at]).collect();
        if rng.next_u64() % 3 == 0 && !unharmed.is_empty() || kills == BROKERS {
            let at = unharmed[rng.next_u64() as usize % unharmed.len()];
            // Dropped, it is killed.
            workers[at] = worker(port, names[at]);
            killed[at] = true;
        } else {
            drop(server);
            server = broker(port, store.path());
            kills += 1;
        }
    }
    let [sent, again, doubled] = totals;
    println!(
        "{runs} runs of {IMAGES} through {kills} kills of the broker and one of each of 3 workers: {sent} items sent, {again} again, {doubled} answered twice; {began_too_soon} began without a broker"
    );
}

/// What a worker says instead of the truth, in turns.
#[derive(Default)]
struct Liar {
    items: u64,
    /// Its last honest answer, which it did not give, of this request and of one before.
    last: [Option<(AnswerHead, Vec<u8>)>; 2],
}

impl Liar {
    fn answers(&mut self, head: &AnswerHead, result: &[u8], alone: bool) -> Vec<Vec<u8>> {
        // Of a request that came again it is the truth.
        let is_new = self.last[0]
            .as_ref()
            .is_none_or(|(last, _)| last.request != head.request);
        if is_new {
            self.last.swap(0, 1);
            self.last[0] = Some((head.clone(), result.to_vec()));
        }
        let other = self.last[1].as_ref();
        let old = other.map_or(b"heFA".to_vec(), |(head, result)| {
            head.bytes(result).unwrap()
        });
        let old_result = other.map_or(Vec::new(), |(_, result)| result.clone());
        // Those that a client takes for stale cost it seconds.
        let kind = match alone {
            true => [0, 3, 4][self.items as usize % 3],
            false => self.items % 6,
        };
        self.items += 1;
        let changed = |change: fn(&mut u8)| {
            let mut changed = result.to_vec();
            changed.last_mut().map(change);
            head.bytes(&changed).unwrap()
        };
        match kind {
            // Another request's result.
            0 => vec![head.bytes(&old_result).unwrap()],
            // Another answer, as it was.
            1 => vec![old],
            // Of another input.
            2 => {
                let input = Digest::of(b"another");
                let other = AnswerHead {
                    input,
                    ..head.clone()
                };
                vec![other.bytes(result).unwrap()]
            }
            // Off by a bit, which the logits hardly show: what an audit is for.
            3 => vec![changed(|byte| *byte ^= 1)],
            // Nothing, and what is no answer.
            4 => vec![head.bytes(&[]).unwrap(), vec![0; 1 << 19], b"heFA".to_vec()],
            // Of another network.
            _ => {
                let outcome = Outcome::Done {
                    input: 0,
                    steps: vec![1; 200],
                };
                let other = AnswerHead {
                    outcome,
                    ..head.clone()
                };
                vec![other.bytes(result).unwrap()]
            }
        }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Takes items as a worker does, and lies of each. How many those were.
fn lie(port: u16, ends: &Arc<AtomicBool>, alone: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (ends, alone) = (Arc::clone(ends), Arc::clone(alone));
    let serve = async move {
        let broker = Broker::connect(&format!("127.0.0.1:{port}"), "liar")
            .await
            .unwrap();
        let consumer = broker.workers().await.unwrap();
        let pool = Pool::start(1);
        let mut liar = Liar::default();
        while !ends.load(Ordering::Relaxed) {
            // An item that comes as this ends is not seen, and comes again after a minute: so
            // rarely.
            let expires = Duration::from_secs(5);
            let batch = consumer.batch().max_messages(1).expires(expires).messages();
            let mut items = batch.await.unwrap();
            while let Some(Ok(item)) = items.next().await {
                let (head, input) = ItemHead::parse(&item.payload).unwrap();
                let of = head.evaluation;
                let get = async |digest| broker.get(digest, MAX_OBJECT).await.map(Arc::new);
                let (program, keys) = (get(of.program).await, get(of.keys).await);
                let model = get(of.model.unwrap()).await;
                // The client may have another key by now.
                if let (Ok(program), Ok(keys), Ok(model)) = (program, keys, model) {
                    let objects = Objects {
                        program,
                        keys,
                        model: Some(model),
                        weights: None,
                    };
                    let evaluated = pool.evaluate(of, objects, input.unwrap().to_vec()).await;
                    let (result, times) = evaluated.unwrap();
                    let answer = AnswerHead {
                        request: head.request,
                        input: head.input,
                        worker: "liar".parse().unwrap(),
                        outcome: Outcome::Done {
                            input: 0,
                            steps: times.steps.iter().map(|_| 1).collect(),
                        },
                    };
                    for bytes in liar.answers(&answer, &result, alone.load(Ordering::Relaxed)) {
                        broker
                            .tell(subjects::answer(head.client), bytes)
                            .await
                            .unwrap();
                    }
                }
                item.ack().await.unwrap();
            }
        }
        liar.items
    };
    thread::spawn(move || runtime().block_on(serve))
}

#[test]
fn no_lie_of_a_worker_is_taken_and_an_honest_one_gets_the_work_done() {
    const IMAGES: usize = 12;
    let (directory, store) = directories(IMAGES);
    let port = free_port();
    let _server = broker(port, store.path());
    let ends = Arc::new(AtomicBool::new(false));
    let alone = Arc::new(AtomicBool::new(false));
    let liar = lie(port, &ends, &alone);
    let honest = worker(port, "honest");
    let audited = ["--audit", "1", "--retries", "0"];
    let (status, said) = infer(port, directory.path(), IMAGES, &audited).end();
    assert!(status.success(), "{said}");
    let document = whole_document(directory.path(), IMAGES);
    assert_eq!(document["audited"], IMAGES as u64);
    let fleet = &document["fleet"];
    let refused = fleet["refused_of"].as_object().unwrap();
    assert!(refused.keys().all(|name| name == "liar"), "{fleet}");
    let caught = refused["liar"].as_u64().unwrap();
    assert!(caught > 0, "{fleet}");
    // Between its first lie that is refused and the next it tells stale ones; the honest worker
    // may have left it one item.
    assert!(caught < 2 || fleet["stale"].as_u64() > Some(0), "{fleet}");

    // Alone it gets nothing past, and the client says so and ends.
    drop(honest);
    alone.store(true, Ordering::Relaxed);
    begin_anew(directory.path());
    let (status, said) = infer(port, directory.path(), 1, &audited).end();
    assert!(!status.success());
    assert!(said.contains("1 of 1 samples were refused"), "{said}");
    ends.store(true, Ordering::Relaxed);
    assert!(liar.join().unwrap() > 8);
}

#[test]
fn what_nobody_can_evaluate_is_put_aside_with_the_reason_and_others_go_on() {
    const IMAGES: usize = 5;
    let (directory, store) = directories(IMAGES);
    let port = free_port();
    let _server = broker(port, store.path());
    let url = format!("127.0.0.1:{port}");
    let mut evaluator = worker(port, "w1");
    runtime().block_on(async {
        let broker = Broker::connect(&url, "test").await.unwrap();
        broker.work().await.unwrap();
        let subject = || subjects::work(Id::fresh().unwrap(), Id::fresh().unwrap());
        let poison = vec![b"no item".to_vec(), b"heFI\x09\0\0\0\0".to_vec()];
        for bytes in poison {
            let first = broker.send(subject(), bytes.clone()).await.unwrap();
            assert!(!first.is_duplicate);
            // The same bytes are the same message, wherever they are sent.
            let again = broker.send(subject(), bytes).await.unwrap();
            assert_eq!((again.is_duplicate, again.sequence), (true, first.sequence));
        }
    });
    // Meanwhile.
    let (status, said) = infer(port, directory.path(), IMAGES, &[]).end();
    assert!(status.success(), "{said}");
    let document = whole_document(directory.path(), IMAGES);
    assert_eq!(document["fleet"]["put_aside"], 0);
    let mut seen = status::of(&url).unwrap();
    until("both are put aside", || {
        seen = status::of(&url).unwrap();
        seen.aside.items == 2
    });
    let why = seen.aside.last_reason.as_deref().unwrap();
    assert!(
        why.contains("no item of") || why.contains("version 9"),
        "{why}"
    );
    assert!(why.contains("in try "), "{why}");
    let [beat] = &seen.workers[..] else {
        panic!("{seen:?}");
    };
    assert_eq!(beat.aside, 2);
    assert!(beat.failed > 0);
    assert_eq!((seen.queue.waiting, seen.queue.handed_out), (0, 0));
    evaluator.signal("TERM");
    let (status, said) = evaluator.end();
    assert!(
        status.success() && said.contains("2 items put aside"),
        "{said}"
    );
}

#[test]
fn a_worker_that_leaves_loses_nothing() {
    const IMAGES: usize = 200;
    let (directory, store) = directories(IMAGES);
    let port = free_port();
    let _server = broker(port, store.path());
    let (mut first, _second) = (worker(port, "first"), worker(port, "second"));
    let mut client = infer(port, directory.path(), IMAGES, &[]);
    until("the first images are done", || {
        finished(directory.path()) > 0 || client.has_ended()
    });
    first.signal("TERM");
    let (status, said) = first.end();
    assert!(status.success(), "{said}");
    assert!(said.contains("none unfinished"), "{said}");
    let (status, said) = client.end();
    assert!(status.success(), "{said}");
    let document = whole_document(directory.path(), IMAGES);
    let fleet = &document["fleet"];
    assert_eq!(fleet["sent"], IMAGES as u64);
    for name in ["sent_again", "doubled", "stale", "put_aside"] {
        assert_eq!(fleet[name], 0, "{name} {fleet}");
    }
}

/// With the command alone: a fleet, its table, digits through it, and nothing left of it.
#[test]
fn a_fleet_on_this_machine_comes_up_and_ends() {
    let port = free_port();
    let url = format!("127.0.0.1:{port}");
    let store = TempDir::new().unwrap();
    let up = Command::new(binary())
        .args(["fleet", "up", "--workers", "2", "--port", &port.to_string()])
        .arg("--store")
        .arg(store.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut up = Process(up.unwrap());
    let mut said = BufReader::new(up.0.stderr.take().unwrap()).lines();
    let came_up = said
        .by_ref()
        .map(Result::unwrap)
        .find(|line| !line.starts_with("worker-"));
    let line = came_up.unwrap_or_default();
    assert!(line.contains(&format!("--device nats:{url}")), "{line}");
    let call = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    let device = format!("nats:{url}");
    let report = call(&["infer", "--device", &device, "--count", "4", "--json", "-"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["images"].as_array().unwrap().len(), 4);
    assert_eq!(
        (&report["label_flips"], &report["fleet"]["sent"]),
        (&0.into(), &4.into())
    );
    let seen: Value =
        serde_json::from_str(&call(&["fleet", "--nats", &url, "--json", "-"])).unwrap();
    let workers = seen["workers"].as_array().unwrap();
    let done: u64 = workers
        .iter()
        .map(|beat| beat["done"].as_u64().unwrap())
        .sum();
    assert_eq!((workers.len(), done), (2, 4), "{seen}");
    assert!(call(&["fleet", "--nats", &url]).contains("worker-2"));
    up.signal("INT");
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert!(up.0.wait().unwrap().success(), "{rest:?}");
    let left = rest
        .iter()
        .filter(|line| line.contains("none unfinished"))
        .count();
    assert_eq!(left, 2, "{rest:?}");
    until("the broker has ended", || TcpStream::connect(&url).is_err());
    assert!(fs::exists(store.path().join("nats-server.log")).unwrap());
}
