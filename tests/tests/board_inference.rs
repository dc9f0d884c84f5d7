//! Whole inferences on the emulated board: the same ciphertexts as in process,
//! and the same instruction counts in every run.

use std::path::Path;

use he_nn::boards::{self, Board};
use he_nn::bundled;
use he_nn::message::{Memory, TimeUnit};
use he_nn::model::Model;
use he_nn::plan::Plan;
use host_runner::client::{Client, Inference};
use host_runner::commands::plan;
use host_runner::device::emulator::Emulator;
use host_runner::device::firmware_build::{self, Options};
use host_runner::device::log::LogSink;
use host_runner::device::{Connection, DEFAULT_BOARD, DeviceError, Transport};
use host_runner::evaluator::{self, PARAMS};

const MODEL: &str = "mnist-mlp64";
const SEED: [u8; 32] = [7; 32];

/// Instructions by which a stage may differ between two runs. Its time is the
/// sum of up to 970 differences between readings of a clock that ticks every
/// 1.25 instructions, and some of the readings count a wrap of that clock.
const SLACK: u64 = 250;

/// What an interrupt adds to the stack, floating point and alignment included.
const EXCEPTION_FRAME_BYTES: u32 = 26 * 4 + 4;

type Start = fn(&str, &Path, LogSink) -> Result<Emulator, DeviceError>;

/// The digits from the fourth on, one after the other.
fn infer(transport: impl Transport, images: usize) -> Vec<Inference> {
    let model = Model::parse(bundled::model(MODEL).unwrap()).unwrap();
    let plan = Plan::new(PARAMS, &model).unwrap();
    let digits = bundled::digits().unwrap();
    let mut client = Client::from_seed(plan, &model, &SEED).unwrap();
    let mut link = Connection::new(transport);
    let images = digits.images[3..].iter().take(images);
    images
        .map(|image| client.infer(&mut link, image, |_, _| {}).unwrap())
        .collect()
}

fn in_process(images: usize) -> Vec<Inference> {
    let transport = evaluator::in_process(bundled::model(MODEL).unwrap()).unwrap();
    infer(transport, images)
}

fn on_board(start: Start, board: &str, images: usize) -> Vec<Inference> {
    let options = Options {
        board,
        model: None,
        params: PARAMS,
        features: &[],
    };
    let image = firmware_build::build(&options).unwrap();
    infer(start(board, &image, Box::new(|_| ())).unwrap(), images)
}

/// What `plan` says of the board's memory, and the limit of its image.
fn check_memory(memory: Memory, board: &Board) {
    let model = Model::parse(bundled::model(MODEL).unwrap()).unwrap();
    let arena = 4 * Plan::new(PARAMS, &model).unwrap().arena_words();
    let fixed = memory.static_bytes as usize - arena;
    assert!(fixed <= board.fixed_bytes, "{fixed} bytes beside the arena");
    assert!(
        board.fixed_bytes - fixed < 4096,
        "{fixed} bytes beside the arena"
    );
    let peak = memory.stack_peak_bytes as usize;
    assert!(peak <= board.stack_bytes / 2, "{memory:?}");
    assert!(
        memory.static_bytes as usize + board.stack_bytes <= board.ram_bytes,
        "{memory:?}"
    );
}

fn bits(logits: &[f64]) -> Vec<u64> {
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_board_computes_what_the_host_computes_and_takes_as_long_each_time() {
    let run = || on_board(Emulator::start, DEFAULT_BOARD, 1).remove(0);
    let (host, first, second) = (in_process(1).remove(0), run(), run());
    assert_eq!(first.board, DEFAULT_BOARD);
    assert_eq!(first.unit, TimeUnit::Instructions);
    assert_eq!(bits(&host.logits), bits(&first.logits));
    assert_eq!(bits(&host.logits), bits(&second.logits));

    let (a, b) = (first.memory, second.memory);
    assert_eq!(a.static_bytes, b.static_bytes);
    let board = boards::find(DEFAULT_BOARD).unwrap();
    check_memory(a, board);

    let model = Model::parse(bundled::model(MODEL).unwrap()).unwrap();
    let plan = Plan::new(PARAMS, &model).unwrap();
    let estimate = plan::report(MODEL, &plan, board)
        .unwrap()
        .on_board
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

#[test]
fn a_board_of_256_kb_computes_the_same() {
    const NAME: &str = "mps2-an386-256k";
    const IMAGES: usize = 3;
    let board = boards::find(NAME).unwrap();
    assert_eq!(board.ram_bytes, 256 * 1024);
    let (host, small) = (in_process(IMAGES), on_board(Emulator::start, NAME, IMAGES));
    assert_eq!(small.len(), IMAGES);
    for (host, small) in host.iter().zip(&small) {
        assert_eq!(small.board, NAME);
        assert_eq!(bits(&host.logits), bits(&small.logits));
        check_memory(small.memory, board);
    }
}

#[test]
fn another_processor_computes_the_same() {
    const NAME: &str = "mps2-an500";
    let board = boards::find(NAME).unwrap();
    let (host, other) = (in_process(1), on_board(Emulator::start, NAME, 1));
    let (host, other) = (&host[0], &other[0]);
    assert_eq!(other.board, NAME);
    assert_eq!(bits(&host.logits), bits(&other.logits));
    check_memory(other.memory, board);
}

/// Takes one to three minutes: the emulated serial port is slow.
#[test]
fn the_serial_port_carries_the_same_inference() {
    let run = |start| on_board(start, DEFAULT_BOARD, 1).remove(0);
    let host = in_process(1).remove(0);
    let (mailbox, serial) = (run(Emulator::start), run(Emulator::start_serial));
    assert_eq!(bits(&host.logits), bits(&serial.logits));
    for (a, b) in mailbox.stages.iter().zip(&serial.stages) {
        assert!(a.time.abs_diff(b.time) <= SLACK, "{a:?} {b:?}");
    }
}
