//! Faults of a link cost time, never results: a seeded proxy flips, drops, doubles,
//! delays, cuts, replays and swaps frames of inferences through TCP, and every sample is
//! answered once, and right.
//!
//! With HE_EDGE_LONG a thousand inferences under ten thousand faults.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use he_edge_tests::faults::{FAULTS, Faults, Faulty};
use he_nn::clear;
use he_nn::model::{Input, Model, Sample};
use he_nn::plan::{Plan, Target, WeightMode};
use he_nn::program::Program;
use host_runner::device::stream::{Stream, connect};
use host_runner::device::{Connection, Transport};
use host_runner::drive::{Retries, drive};
use host_runner::evaluator::{self, Held};
use host_runner::planning;
use host_runner::service::{Limits, Remote, Service, ServiceError};

const MODEL: &str = "pima-logreg";

/// For a message. One that is lost costs as much.
const PATIENCE: Duration = Duration::from_millis(250);

/// One frame in so many is damaged, so that an inference meets several faults until it is
/// answered.
const ONE_IN: u32 = 110;

fn is_long() -> bool {
    std::env::var_os("HE_EDGE_LONG").is_some()
}

fn model() -> Model<'static> {
    Model::parse(he_nn::bundled::model(MODEL).unwrap()).unwrap()
}

fn plan() -> Plan<'static> {
    planning::plan(None, model(), WeightMode::Plain, Target::STREAM).unwrap()
}

/// Rows within the ranges of training, each another.
fn rows(count: usize) -> Vec<Vec<f32>> {
    let model = model();
    let Input::Features { means, deviations } = model.input() else {
        panic!("{MODEL} takes features");
    };
    let features: Vec<(f32, f32)> = means.iter().zip(deviations.iter()).collect();
    let row = |at: usize| {
        let feature = |(of, &(mean, deviation)): (usize, &(f32, f32))| {
            let away = ((at * 7 + of * 3) % 23) as f32 / 11.0 - 1.0;
            mean + away * deviation
        };
        features.iter().enumerate().map(feature).collect()
    };
    (0..count).map(row).collect()
}

/// An evaluator behind TCP, in a thread that ends with the process.
fn serve() -> SocketAddr {
    let (tell, listening) = mpsc::channel();
    thread::spawn(move || {
        let program = Program::of(&plan()).unwrap();
        let held = Held::Plain(&program, model());
        let listening = |address| tell.send(address).unwrap();
        // How sessions end is the faults' doing.
        let limits = evaluator::Limits::default();
        evaluator::listen("127.0.0.1:0", held, limits, listening, |_| ())
    });
    listening.recv().unwrap()
}

type Link = Connection<Faulty<Stream<std::net::TcpStream>>>;

fn remote(address: SocketAddr, faults: &Faults) -> Remote<'static, impl Transport + use<>> {
    let faults = faults.clone();
    let open = move || -> Result<Link, ServiceError> {
        let stream = connect(&address.to_string())?;
        Ok(Connection::new(faults.over(stream)))
    };
    let mut remote = Remote::new(plan(), open().unwrap(), false, 0.0).unwrap();
    remote.limit(Limits {
        patience: Some(PATIENCE),
        ..Limits::default()
    });
    remote.reopened_by(open)
}

#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn no_fault_of_a_link_costs_a_result() {
    let (count, wanted) = match is_long() {
        true => (1000, 10_000),
        false => (24, 150),
    };
    let start = Instant::now();
    let address = serve();
    let faults = Faults::new(1, PATIENCE);
    let rows = rows(count);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    // The frames of another session, with keys of its own, are there to be replayed.
    let mut other = remote(address, &faults);
    assert!(other.infer(&samples[..1], &mut ()).unwrap()[0].is_ok());
    drop(other);

    let mut service = remote(address, &faults);
    assert!(service.infer(&samples[..1], &mut ()).unwrap()[0].is_ok());
    faults.set(ONE_IN);
    let retries = Retries {
        limit: 1000,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(20),
    };
    let allowed = service.deployment().logit_error.six_sigma;
    let mut answered = vec![0; count];
    let mut tried = 0;
    let take = |index: usize, answer: host_runner::service::Answer, again: u64| {
        let inference = answer.unwrap_or_else(|error| panic!("sample {index} is lost: {error}"));
        let plain = clear::logits(&model(), samples[index]).unwrap();
        for (encrypted, plain) in inference.logits.iter().zip(&plain) {
            let error = (encrypted - plain).abs();
            assert!(
                error <= allowed,
                "sample {index} is wrong: {encrypted}, not {plain}"
            );
        }
        answered[index] += 1;
        tried += again;
        Ok::<(), ServiceError>(())
    };
    drive(&mut service, &samples, retries, &mut (), take).unwrap();
    assert!(answered.iter().all(|&times| times == 1), "{answered:?}");
    let counts = faults.counts();
    println!(
        "{count} inferences under {} faults ({}), tried again {tried} times: {:.0} s",
        faults.total(),
        FAULTS
            .iter()
            .zip(counts)
            .map(|(fault, count)| format!("{fault:?} {count}"))
            .collect::<Vec<_>>()
            .join(", "),
        start.elapsed().as_secs_f64()
    );
    assert!(faults.total() >= wanted, "only {counts:?}");
    // Of every kind, and they were felt.
    for (fault, count) in FAULTS.iter().zip(counts) {
        assert!(count > 0, "{fault:?} never happened");
    }
    assert!(tried as usize > count);
}

#[test]
fn a_fault_that_stays_ends_in_a_sentence_and_keeps_what_is_finished() {
    let faults = Faults::new(2, PATIENCE);
    let mut service = remote(serve(), &faults);
    let rows = rows(5);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    let mut taken = Vec::new();
    let retries = Retries {
        limit: 3,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(2),
    };
    let error = drive(
        &mut service,
        &samples,
        retries,
        &mut (),
        |index, answer, _| {
            assert!(answer.is_ok());
            taken.push(index);
            if index == 2 {
                faults.set(1);
            }
            Ok::<(), ServiceError>(())
        },
    );
    he_edge_tests::assert_one_sentence("a line that fails for good", &error.unwrap_err());
    assert_eq!(taken, [0, 1, 2]);
}
