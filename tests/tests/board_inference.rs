//! Whole inferences on the emulated board: the same ciphertexts as in process,
//! and the same instruction counts in every run.

use std::path::Path;

use he_nn::message::TimeUnit;
use he_nn::model::Model;
use he_nn::plan::Plan;
use host_runner::client::{Client, Inference};
use host_runner::commands::plan;
use host_runner::device::emulator::{Emulator, LogSink};
use host_runner::device::firmware_build::{self, Options};
use host_runner::device::{Connection, DEFAULT_BOARD, DeviceError, Transport};
use host_runner::evaluator::{self, PARAMS};
use host_runner::{boards, bundled};

const MODEL: &str = "mnist-mlp64";
const SEED: [u8; 32] = [7; 32];

/// Instructions by which a stage may differ between two runs. Its time is the
/// sum of up to 970 differences between readings of a clock that ticks every
/// 1.25 instructions, and some of the readings count a wrap of that clock.
const SLACK: u64 = 250;

/// What an interrupt adds to the stack, floating point and alignment included.
const EXCEPTION_FRAME_BYTES: u32 = 26 * 4 + 4;

type Start = fn(&str, &Path, LogSink) -> Result<Emulator, DeviceError>;

fn infer(transport: impl Transport) -> Inference {
    let model = Model::parse(bundled::model(MODEL).unwrap()).unwrap();
    let plan = Plan::new(PARAMS, &model).unwrap();
    let digits = bundled::digits().unwrap();
    let mut client = Client::from_seed(plan, &model, &SEED).unwrap();
    let mut link = Connection::new(transport);
    client
        .infer(&mut link, &digits.images[3], |_, _| {})
        .unwrap()
}

fn in_process() -> Inference {
    infer(evaluator::in_process(bundled::model(MODEL).unwrap()).unwrap())
}

fn on_board(start: Start) -> Inference {
    let options = Options {
        board: DEFAULT_BOARD,
        model: None,
        features: &[],
    };
    let image = firmware_build::build(&options).unwrap();
    infer(start(DEFAULT_BOARD, &image, Box::new(|_| ())).unwrap())
}

fn bits(logits: &[f64]) -> Vec<u64> {
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_board_computes_what_the_host_computes_and_takes_as_long_each_time() {
    let host = in_process();
    let (first, second) = (on_board(Emulator::start), on_board(Emulator::start));
    assert_eq!(first.board, DEFAULT_BOARD);
    assert_eq!(first.unit, TimeUnit::Instructions);
    assert_eq!(bits(&host.logits), bits(&first.logits));
    assert_eq!(bits(&host.logits), bits(&second.logits));

    let (a, b) = (first.memory, second.memory);
    assert_eq!(a.static_bytes, b.static_bytes);
    // What `plan` says of the board's memory, and the limit of its image.
    let board = boards::find(DEFAULT_BOARD).unwrap();
    let model = Model::parse(bundled::model(MODEL).unwrap()).unwrap();
    let arena = 4 * Plan::new(PARAMS, &model).unwrap().arena_words();
    let fixed = a.static_bytes as usize - arena;
    assert!(fixed <= board.fixed_bytes, "{fixed} bytes beside the arena");
    assert!(
        board.fixed_bytes - fixed < 4096,
        "{fixed} bytes beside the arena"
    );
    assert!(
        a.stack_peak_bytes as usize <= board.stack_bytes / 2,
        "{a:?}"
    );
    assert!(a.static_bytes + a.stack_peak_bytes <= 512 * 1024, "{a:?}");

    let plan = Plan::new(PARAMS, &model).unwrap();
    let estimate = plan::report(MODEL, &plan, board)
        .unwrap()
        .instructions_estimate;
    let ratio = estimate as f64 / first.total().unwrap() as f64;
    assert!((0.9..1.1).contains(&ratio), "estimate over count: {ratio}");

    // Between requests the stack takes interrupts, wherever they come.
    let peaks = a.stack_peak_bytes.abs_diff(b.stack_peak_bytes);
    assert!(peaks <= EXCEPTION_FRAME_BYTES, "{a:?} {b:?}");
    assert_eq!(first.stages.len(), second.stages.len());
    for (a, b) in first.stages.iter().zip(&second.stages) {
        assert_eq!(a.kind, b.kind);
        // It is counted at all: the shortest stage takes 890 thousand.
        assert!(a.time > 100_000, "{a:?}");
        assert!(a.time.abs_diff(b.time) <= SLACK, "{a:?} {b:?}");
    }
}

/// Takes one to three minutes: the emulated serial port is slow.
#[test]
fn the_serial_port_carries_the_same_inference() {
    let (host, mailbox) = (in_process(), on_board(Emulator::start));
    let serial = on_board(Emulator::start_serial);
    assert_eq!(bits(&host.logits), bits(&serial.logits));
    for (a, b) in mailbox.stages.iter().zip(&serial.stages) {
        assert!(a.time.abs_diff(b.time) <= SLACK, "{a:?} {b:?}");
    }
}
