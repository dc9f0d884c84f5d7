//! Faults of a link cost time, never results: a seeded proxy flips, drops, doubles,
//! delays, cuts, replays and swaps frames of inferences through TCP, a pseudo terminal and
//! to an emulated board, and every sample is answered once, and right.
//!
//! With HE_EDGE_LONG twelve hundred inferences and more than ten thousand faults; the
//! figures are in `tests/figures/faults.csv`.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use he_edge_tests::faults::{FAULTS, Faults, Faulty};
use he_edge_tests::figures::{self, Run};
use he_edge_tests::networks;
use he_nn::clear;
use he_nn::model::{Model, Sample};
use he_nn::plan::{Plan, Target, WeightMode};
use he_nn::program::Program;
use host_runner::device::stream::{Stream, connect};
use host_runner::device::{Connection, DEFAULT_BAUD, DeviceError, Transport};
use host_runner::drive::{Finished, Retries, drive};
use host_runner::evaluator::{self, EvaluatorError, Held, Visit};
use host_runner::planning;
use host_runner::service::{Limits, Remote, Service, ServiceError};
use host_runner::spread::spread;

const MODEL: &str = "pima-logreg";

/// For a message. One that is lost costs as much.
const PATIENCE: Duration = Duration::from_millis(250);

/// What is done to a line, and how much of it.
struct Storm {
    /// What the frames go through.
    through: &'static str,
    inferences: usize,
    /// One frame in so many is damaged, so that an inference meets several faults until it
    /// is answered.
    one_in: u32,
    /// Faults that there are at least.
    faults: u64,
    /// For a message.
    patience: Duration,
}

fn is_long() -> bool {
    std::env::var_os("HE_EDGE_LONG").is_some()
}

fn model() -> Model<'static> {
    Model::parse(he_nn::bundled::model(MODEL).unwrap()).unwrap()
}

fn plan() -> Plan<'static> {
    planning::plan(None, model(), WeightMode::Plain, Target::STREAM).unwrap()
}

/// An evaluator behind TCP, in a thread that ends with the process.
fn serve() -> SocketAddr {
    // How sessions end is the faults' doing.
    serve_within(evaluator::Limits::default()).0
}

/// One with limits, and the sessions that are over.
fn serve_within(limits: evaluator::Limits) -> (SocketAddr, mpsc::Receiver<Visit>) {
    let (tell, listening) = mpsc::channel();
    let (over, visits) = mpsc::channel();
    thread::spawn(move || {
        let program = Program::of(&plan()).unwrap();
        let held = Held::Plain(&program, model());
        let listening = |address| tell.send(address).unwrap();
        let ended = |visit| drop(over.send(visit));
        evaluator::listen("127.0.0.1:0", held, limits, listening, ended)
    });
    (listening.recv().unwrap(), visits)
}

/// A client of a device that `open` opens, with faults in between.
fn remote<T: Transport + 'static>(
    open: impl Fn() -> Result<T, DeviceError> + Send + 'static,
    faults: &Faults,
) -> Remote<'static, Faulty<T>> {
    remote_of(plan(), open, faults, PATIENCE)
}

/// As [`remote`], of a plan.
fn remote_of<T: Transport + 'static>(
    plan: Plan<'static>,
    open: impl Fn() -> Result<T, DeviceError> + Send + 'static,
    faults: &Faults,
    patience: Duration,
) -> Remote<'static, Faulty<T>> {
    let faults = faults.clone();
    let open = move || -> Result<Connection<Faulty<T>>, ServiceError> {
        Ok(Connection::new(faults.over(open()?)))
    };
    let mut remote = Remote::new(plan, open().unwrap(), false, 0.0).unwrap();
    remote.limit(Limits {
        patience: Some(patience),
        ..Limits::default()
    });
    remote.reopened_by(open)
}

/// To an evaluator behind TCP.
fn tcp(address: SocketAddr) -> impl Fn() -> Result<Stream<TcpStream>, DeviceError> + Clone + Send {
    move || connect(&address.to_string())
}

/// Has samples answered under faults, of which there are as many as wanted at least.
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn drive_through<T: Transport + 'static>(
    plan: &Plan<'static>,
    open: impl Fn() -> Result<T, DeviceError> + Clone + Send + 'static,
    storm: &Storm,
) {
    let count = storm.inferences;
    let start = Instant::now();
    let run = Run::begin(is_long());
    let faults = Faults::new(1, storm.patience);
    let remote = |open| remote_of(plan.clone(), open, &faults, storm.patience);
    let rows = networks::rows(&model(), count);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    // The frames of another session, with keys of its own, are there to be replayed.
    let mut other = remote(open.clone());
    assert!(other.infer(&samples[..1], &mut ()).unwrap()[0].is_ok());
    drop(other);

    let mut service = remote(open);
    assert!(service.infer(&samples[..1], &mut ()).unwrap()[0].is_ok());
    faults.set(storm.one_in);
    let retries = Retries {
        limit: 1000,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(20),
    };
    let allowed = service.deployment().logit_error.six_sigma;
    let mut answered = vec![0; count];
    let mut tried = 0;
    let take = |finished: Finished| {
        let (index, answer) = (finished.index, finished.answer);
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
        tried += finished.tried;
        Ok::<(), ServiceError>(())
    };
    drive(&mut service, &samples, retries, &mut (), take).unwrap();
    assert!(answered.iter().all(|&times| times == 1), "{answered:?}");
    let counts = faults.counts();
    let kinds = FAULTS.iter().zip(counts);
    let kinds: Vec<_> = kinds
        .map(|(fault, count)| format!("{fault:?} {count}"))
        .collect();
    println!(
        "{count} inferences under {} faults ({}), tried again {tried} times: {:.0} s",
        faults.total(),
        kinds.join(", "),
        start.elapsed().as_secs_f64()
    );
    // Of every kind where there are many, and they were felt.
    assert!(faults.total() >= storm.faults, "only {kinds:?}");
    let is_storm = faults.total() > 20 * FAULTS.len() as u64;
    assert!(
        !is_storm || counts.iter().all(|&count| count > 0),
        "{kinds:?}"
    );
    assert!(tried > 0);
    let measured = [
        count as u64,
        faults.total(),
        tried,
        start.elapsed().as_secs(),
    ];
    run.keep(figures::FAULTS, storm.through, &measured);
}

#[test]
fn no_fault_of_a_link_costs_a_result() {
    let (inferences, faults) = match is_long() {
        true => (2000, 10_000),
        false => (24, 100),
    };
    let storm = Storm {
        through: "TCP",
        inferences,
        one_in: 60,
        faults,
        patience: PATIENCE,
    };
    drive_through(&plan(), tcp(serve()), &storm);
}

/// A board whose main memory, or whose serial port, the frames go through: cuts restart it.
#[cfg(feature = "emulator")]
mod emulated {
    use he_nn::boards;
    use host_runner::device::emulator::Emulator;
    use host_runner::device::firmware_build::{self, Options};

    use super::*;

    const BOARD: &str = "mps2-an386-256k";

    #[test]
    fn board_no_fault_of_the_line_to_an_emulated_board_costs_a_result() {
        let target = boards::find(BOARD).unwrap().target();
        let plan = planning::plan(None, model(), WeightMode::Plain, target).unwrap();
        let file = he_nn::bundled::source(MODEL);
        let options = Options {
            board: BOARD,
            model: file.as_deref(),
            params: plan.params(),
            features: &[],
            inputs: None,
        };
        let image = firmware_build::build(&options).unwrap();
        let open = move || Emulator::start(BOARD, &image, Box::new(|_| ()));
        let (inferences, faults) = match is_long() {
            true => (100, 200),
            false => (6, 6),
        };
        // It keeps no keys: an inference is 180 frames up and as many down.
        let storm = Storm {
            through: "an emulated board",
            inferences,
            one_in: 240,
            faults,
            patience: Duration::from_secs(1),
        };
        drive_through(&plan, open, &storm);
    }
}

/// A board at the end of a serial line: the evaluator behind a pseudo terminal.
#[cfg(unix)]
mod serial {
    use he_edge_tests::serial::Port;
    use host_runner::device::serial::Serial;
    use serialport::{SerialPort, TTYPort};

    use super::*;

    #[test]
    fn no_fault_of_a_serial_line_costs_a_result() {
        let (mut board, line) = TTYPort::pair().unwrap();
        board.set_timeout(Duration::from_secs(600)).unwrap();
        let path = line.name().unwrap();
        thread::spawn(move || {
            let program = Program::of(&plan()).unwrap();
            evaluator::evaluate(&program, model(), &mut Port(board))
        });
        let inferences = if is_long() { 100 } else { 24 };
        let open = move || Serial::open(&path, DEFAULT_BAUD);
        // One connection, whose evaluator keeps its keys: uploads are short.
        let storm = Storm {
            through: "a pseudo terminal",
            inferences,
            one_in: 60,
            faults: inferences as u64,
            patience: PATIENCE,
        };
        drive_through(&plan(), open, &storm);
        // It stays plugged in meanwhile.
        drop(line);
    }
}

#[test]
fn a_fault_that_stays_ends_in_a_sentence_and_keeps_what_is_finished() {
    let faults = Faults::new(2, PATIENCE);
    let mut service = remote(tcp(serve()), &faults);
    let rows = networks::rows(&model(), 5);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    let mut taken = Vec::new();
    let retries = Retries {
        limit: 3,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(2),
    };
    let error = drive(&mut service, &samples, retries, &mut (), |finished| {
        assert!(finished.answer.is_ok());
        taken.push(finished.index);
        if finished.index == 2 {
            faults.set(1);
        }
        Ok::<(), ServiceError>(())
    });
    he_edge_tests::assert_one_sentence("a line that fails for good", &error.unwrap_err());
    assert_eq!(taken, [0, 1, 2]);
}

/// Few tries, soon after each other.
fn impatient() -> Retries {
    Retries {
        limit: 2,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(2),
    }
}

#[test]
fn what_a_device_leaves_is_done_by_the_others() {
    let rows = networks::rows(&model(), 9);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    let address = serve();
    let (broken, sound) = (Faults::new(3, PATIENCE), Faults::new(4, PATIENCE));
    let mut devices = [
        remote(tcp(address), &sound),
        remote(tcp(address), &broken),
        remote(tcp(address), &sound),
    ];
    let mut services = devices.each_mut().map(|device| device as &mut dyn Service);
    // Every frame of one is damaged once it has been heard.
    assert!(services[1].infer(&samples[..1], &mut ()).unwrap()[0].is_ok());
    broken.set(1);
    let mut answered = vec![0; samples.len()];
    let take = |finished: Finished| {
        let logits = finished.answer.unwrap().logits;
        let plain = clear::logits(&model(), samples[finished.index]).unwrap();
        assert!(clear::largest_error(&logits, &plain) < 0.1);
        assert_ne!(finished.service, 1);
        answered[finished.index] += 1;
        Ok::<(), ServiceError>(())
    };
    let (lost, ended) = spread(&mut services, &samples, impatient(), &mut (), take);
    ended.unwrap();
    assert!(answered.iter().all(|&times| times == 1), "{answered:?}");
    let lost: Vec<_> = lost.iter().map(|lost| lost.service).collect();
    assert_eq!(lost, [1]);
}

#[test]
fn a_session_that_was_over_before_it_was_used_is_opened_again() {
    let rows = networks::rows(&model(), 3);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    let limits = evaluator::Limits {
        idle: Duration::from_secs(2),
        ..evaluator::Limits::default()
    };
    let (address, visits) = serve_within(limits);
    let faults = Faults::new(6, PATIENCE);
    let mut devices = [remote(tcp(address), &faults), remote(tcp(address), &faults)];
    // As while firmware builds.
    for _ in 0..2 {
        let over = visits.recv().unwrap().ended;
        assert!(matches!(over, Err(EvaluatorError::Idle { .. })), "{over:?}");
    }
    let mut services = devices.each_mut().map(|device| device as &mut dyn Service);
    let mut answered = 0;
    let take = |finished: Finished| {
        answered += u32::from(finished.answer.is_ok());
        Ok::<(), ServiceError>(())
    };
    let (lost, ended) = spread(&mut services, &samples, impatient(), &mut (), take);
    ended.unwrap();
    assert!(lost.is_empty(), "{lost:?}");
    assert_eq!(answered, 3);
}

#[test]
fn without_a_device_left_the_run_ends_and_keeps_what_is_finished() {
    let rows = networks::rows(&model(), 6);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    let address = serve();
    let faults = Faults::new(5, PATIENCE);
    let mut devices = [remote(tcp(address), &faults), remote(tcp(address), &faults)];
    let mut services = devices.each_mut().map(|device| device as &mut dyn Service);
    let mut taken = Vec::new();
    let take = |finished: Finished| {
        assert!(finished.answer.is_ok());
        taken.push(finished.index);
        if taken.len() == 2 {
            faults.set(1);
        }
        Ok::<(), ServiceError>(())
    };
    let (lost, ended) = spread(&mut services, &samples, impatient(), &mut (), take);
    he_edge_tests::assert_one_sentence("no device is left", &ended.unwrap_err());
    // The error of the last one is what ended the run.
    assert_eq!(lost.len(), 1);
    taken.sort_unstable();
    taken.dedup();
    // Those that were under way when the line broke may have been finished.
    assert!((2..=4).contains(&taken.len()), "{taken:?}");
}
