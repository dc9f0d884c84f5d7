//! The emulated board at the end of its link, which is the mailbox or the serial
//! port: nothing is lost, damage is refused, failures are reported and survived.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use he_nn::link::{self, MAX_DECODED, MAX_FRAME};
use he_nn::message::{
    Fault, Item, MAX_CHUNK_BYTES, PROTOCOL_VERSION, Refusal, Reply, Request, TimeUnit,
};
use he_nn::model::Model;
use he_nn::plan::WeightMode;
use he_nn::{boards, bundled};
use host_runner::client::{Client, Padding, Window};
use host_runner::device::emulator::Emulator;
use host_runner::device::firmware_build::{self, Options};
use host_runner::device::log::{LogLine, LogSink};
use host_runner::device::{Connection, DEFAULT_BOARD, DeviceError};
use host_runner::line::Exchange;
use host_runner::planning::{self, DEFAULT_SET};

/// Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers that the image with `fault-injection` takes as orders to fail.
const PANIC: u32 = 0xFA17_0001;
const UNDEFINED: u32 = 0xFA17_0002;
const OVERFLOW: u32 = 0xFA17_0003;
const OUT_OF_BOUNDS: u32 = 0xFA17_0004;

type Start = fn(&str, &Path, LogSink) -> Result<Emulator, DeviceError>;

struct Board {
    connection: Connection<Emulator>,
    log: Arc<Mutex<Vec<LogLine>>>,
}

impl Board {
    fn start(features: &[&str]) -> Self {
        Self::start_with(features, Emulator::start)
    }

    /// With every byte on the serial port, as on a real board.
    fn start_serial(features: &[&str]) -> Self {
        Self::start_with(features, Emulator::start_serial)
    }

    fn start_with(features: &[&str], start: Start) -> Self {
        let options = Options {
            board: DEFAULT_BOARD,
            model: None,
            params: DEFAULT_SET,
            features,
            inputs: None,
        };
        let image = firmware_build::build(&options).unwrap();
        let log = Arc::<Mutex<Vec<LogLine>>>::default();
        let sink = log.clone();
        let sink = Box::new(move |line| sink.lock().unwrap().push(line));
        let emulator = start(DEFAULT_BOARD, &image, sink).unwrap();
        Self {
            connection: Connection::new(emulator),
            log,
        }
    }

    /// Window of the board's card.
    fn hello(&mut self) -> usize {
        self.connection
            .hello(PATIENCE, |card| {
                let card = card.unwrap();
                assert_eq!(card.version, PROTOCOL_VERSION);
                assert_eq!(card.board, DEFAULT_BOARD);
                assert_eq!(card.unit, TimeUnit::Instructions);
                card.window as usize
            })
            .unwrap()
    }

    fn receive<R>(&mut self, take: impl FnOnce(Reply<'_>) -> R) -> R {
        self.connection.receive(PATIENCE, take).unwrap()
    }

    /// The answer to a chunk that arrived whole while no inference runs; one
    /// that lost a byte would be a refused frame.
    fn expect_not_expected(&mut self) {
        self.receive(|reply| assert_eq!(reply, Reply::Refused(Refusal::NotExpected)));
    }

    /// The order to fail, and the report that comes back.
    fn fail<R>(&mut self, order: u32, take: impl FnOnce(Fault<'_>) -> R) -> R {
        self.connection
            .send(&Request::Begin {
                plan: order,
                trace: false,
            })
            .unwrap();
        self.receive(|reply| match reply {
            Reply::Fault(fault) => take(fault),
            other => panic!("a fault was expected, not {other:?}"),
        })
    }

    /// Waits for a line of the log; it travels on a line of its own.
    fn logged(&self, level: &str, part: &str) -> bool {
        (0..200).any(|_| {
            let log = self.log.lock().unwrap();
            let found = log
                .iter()
                .any(|line| line.level == level && line.message.contains(part));
            drop(log);
            if !found {
                std::thread::sleep(Duration::from_millis(20));
            }
            found
        })
    }
}

fn chunk(seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    (0..MAX_CHUNK_BYTES)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        })
        .collect()
}

fn data(bytes: &[u8]) -> Request<'_> {
    Request::Data {
        item: Item::Input {
            ciphertext: 0,
            limb: 0,
        },
        offset: 0,
        bytes,
    }
}

#[test]
fn a_few_hundred_chunks_arrive_under_the_window() {
    send_chunks(Board::start(&[]));
}

#[test]
fn a_few_hundred_chunks_arrive_under_the_window_on_the_serial_port() {
    send_chunks(Board::start_serial(&[]));
}

fn send_chunks(mut board: Board) {
    const CHUNKS: u32 = 300;
    let window = board.hello();
    let board_has = boards::find(DEFAULT_BOARD).unwrap().window;
    assert_eq!(window, board_has as usize);
    assert!(
        board.logged("info", "mps2-an386 started"),
        "{:?}",
        board.log
    );

    let mut flying = Window::new(window as u32);
    for number in 0..CHUNKS {
        let bytes = chunk(number);
        let frame = board.connection.prepare(&data(&bytes)).unwrap();
        while !flying.has_room(frame) {
            board.expect_not_expected();
            flying.acknowledged();
        }
        board.connection.send_prepared().unwrap();
        flying.sent(frame);
    }
    while flying.acknowledged() {
        board.expect_not_expected();
    }
    let traffic = board.connection.traffic();
    assert!(traffic.up > u64::from(CHUNKS) * MAX_CHUNK_BYTES as u64);
    board.connection.send(&Request::Abort).unwrap();
    assert!(board.receive(|reply| reply == Reply::Aborted));
}

#[test]
fn a_burst_beyond_the_window_is_held_back_not_lost() {
    send_a_burst(Board::start(&[]));
}

#[test]
fn a_burst_beyond_the_window_is_held_back_not_lost_on_the_serial_port() {
    send_a_burst(Board::start_serial(&[]));
}

fn send_a_burst(mut board: Board) {
    // More than the board and the mailbox can store, at once, before it can
    // have answered the first.
    const CHUNKS: u32 = 40;
    board.hello();
    let mut burst = Vec::new();
    for number in 0..CHUNKS {
        let mut buffer = [0; MAX_FRAME];
        burst.extend_from_slice(link::encode(&data(&chunk(number)), &mut buffer).unwrap());
    }
    board.connection.send_raw(&burst).unwrap();
    for _ in 0..CHUNKS {
        board.expect_not_expected();
    }
}

#[test]
fn damaged_frames_are_refused_and_the_next_hello_works() {
    send_damage(Board::start(&[]));
}

#[test]
fn damaged_frames_are_refused_and_the_next_hello_works_on_the_serial_port() {
    send_damage(Board::start_serial(&[]));
}

fn send_damage(mut board: Board) {
    board.hello();
    let mut buffer = [0; MAX_FRAME];
    let bytes = chunk(1);
    let clean = link::encode(&data(&bytes), &mut buffer).unwrap().to_vec();

    let mut flipped = clean.clone();
    // Not into a zero: that would be two frames.
    let place = clean.iter().position(|&byte| byte & 0xFE != 0).unwrap();
    flipped[place] ^= 1;
    let mut truncated = clean[..clean.len() / 2].to_vec();
    truncated.push(0);
    let mut overlong = vec![0x7F; 3 * MAX_DECODED];
    overlong.push(0);
    let mut encoding = [0; 16];
    let encoding = link::encode(&0xEEu8, &mut encoding).unwrap().to_vec();

    for damaged in [flipped, truncated, overlong, encoding] {
        board.connection.send_raw(&damaged).unwrap();
        let received = damaged.len() as u32 - 1;
        board.receive(|reply| {
            assert_eq!(reply, Reply::Refused(Refusal::Frame { received }));
        });
        assert!(board.logged("warn", &format!("a frame of {received} bytes")));
        board.hello();
    }
    // A frame that never ends, until the next hello cuts it off.
    board.connection.send_raw(&[0x11; 100]).unwrap();
    board.hello();
}

#[test]
fn failures_are_reported_and_survived() {
    fail_and_survive(Board::start(&["fault-injection"]));
}

#[test]
fn failures_are_reported_and_survived_on_the_serial_port() {
    fail_and_survive(Board::start_serial(&["fault-injection"]));
}

fn fail_and_survive(mut board: Board) {
    board.hello();

    board.fail(PANIC, |fault| match fault {
        Fault::Panic { file, line } => {
            assert!(
                file.ends_with("fault_injection.rs") && line > 0,
                "{file}:{line}"
            );
        }
        other => panic!("{other:?}"),
    });
    assert!(board.logged("error", "panicked at"));
    board.hello();

    board.fail(OUT_OF_BOUNDS, |fault| {
        assert!(matches!(fault, Fault::Panic { .. }), "{fault:?}")
    });
    board.hello();

    board.fail(UNDEFINED, |fault| match fault {
        Fault::Exception {
            number: 3,
            pc,
            cfsr,
        } => {
            assert!(pc != 0 && pc < 0x40_0000, "{pc:#x}");
            // UNDEFINSTR
            assert_eq!(cfsr, 1 << 16);
        }
        other => panic!("{other:?}"),
    });
    assert!(board.logged("error", "exception 3"));
    board.hello();

    for _ in 0..3 {
        board.fail(OVERFLOW, |fault| match fault {
            // DACCVIOL, MSTKERR: the guard below the stack.
            Fault::Exception {
                number: 3, cfsr, ..
            } => assert_ne!(cfsr & 0x12, 0, "{cfsr:#x}"),
            other => panic!("{other:?}"),
        });
        board.hello();
    }
}

#[test]
fn an_image_that_is_none_is_refused() {
    let image = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let error = Emulator::start(DEFAULT_BOARD, &image, Box::new(|_| ())).unwrap_err();
    assert!(matches!(error, DeviceError::Image { .. }), "{error}");
}

/// By the firmware's feature: the first image, with keys, and later ones are the same bytes
/// each way, and those of the plan.
#[test]
fn a_padded_board_answers_in_cells() {
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    let padding = Padding {
        up: 5 << 19,
        down: 1 << 16,
        // By the emulator's speed, which is a board's only roughly: what is late is counted.
        every: Duration::from_millis(10),
    };
    let board = boards::find(DEFAULT_BOARD).unwrap();
    let plan = planning::plan(None, model, WeightMode::Plain, board.target()).unwrap();
    let planned = Exchange::first(&plan, &[]).unwrap();
    let planned = planned.padded(&plan, board.window, &padding);
    let link = Connection::new(Board::start(&["padding"]).connection.into_transport());
    let mut link = link;
    let mut client = Client::new(plan).unwrap();
    client.set_padding(Some(padding));
    let digits = bundled::digits().unwrap();
    let mut keys = Vec::new();
    for (image, label) in digits.images.iter().zip(&digits.labels).take(2) {
        let answer = client.infer(&mut link, image, &mut ()).unwrap();
        assert_eq!(answer.label(), usize::from(*label));
        assert_eq!(
            (answer.bytes.up, answer.bytes.down),
            (planned.up as u64, planned.down as u64)
        );
        assert_eq!(answer.padded.unwrap().cells, planned.cells as u64);
        keys.push(answer.bytes.keys_up);
    }
    assert!(keys[1] < keys[0] / 100, "{keys:?}");
    // And one that does not pad is answered as ever.
    client.set_padding(None);
    let answer = client.infer(&mut link, &digits.images[0], &mut ()).unwrap();
    assert!(answer.padded.is_none() && answer.bytes.up < planned.up as u64 / 2);
}
