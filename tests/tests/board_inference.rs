//! The reference network on the emulated board: the same ciphertexts as in process, the
//! same instruction counts in every run, and the serial port instead of the mailbox.
//! What boards and networks come to stands in `inference.rs`.

use std::path::Path;

use he_edge_tests::Reference;
use he_edge_tests::suite::{self, Case, Device};
use he_nn::boards;
use he_nn::message::TimeUnit;
use he_nn::plan::{Sums, Terms, WeightMode};
use host_runner::client::Inference;
use host_runner::device::emulator::Emulator;
use host_runner::device::firmware_build::{self, Options};
use host_runner::device::log::LogSink;
use host_runner::device::shaped::Shaped;
use host_runner::device::{Connection, DEFAULT_BOARD, DeviceError, Transport};
use host_runner::report::plan::BoardUse;

/// Instructions by which a step may differ between two runs. Its time is the
/// sum of up to 970 differences between readings of a clock that ticks every
/// 1.25 instructions, and some of the readings count a wrap of that clock.
const SLACK: u64 = 250;

/// What an interrupt adds to the stack, floating point and alignment included.
const EXCEPTION_FRAME_BYTES: u32 = 26 * 4 + 4;

type Start = fn(&str, &Path, LogSink) -> Result<Emulator, DeviceError>;

fn infer(reference: &Reference, transport: impl Transport, images: usize) -> Vec<Inference> {
    let mut client = reference.client(7);
    let mut link = Connection::new(transport);
    let images = reference.digits[3..].iter().take(images);
    images
        .map(|image| client.infer(&mut link, image, &mut ()).unwrap())
        .collect()
}

fn in_process(reference: &Reference, images: usize) -> Vec<Inference> {
    let transport = host_runner::evaluator::in_process(&reference.plan).unwrap();
    infer(reference, transport, images)
}

fn on_board(reference: &Reference, start: Start, board: &str, images: usize) -> Vec<Inference> {
    with_features(reference, &[], start, board, images)
}

fn with_features(
    reference: &Reference,
    features: &[&str],
    start: Start,
    board: &str,
    images: usize,
) -> Vec<Inference> {
    let options = Options {
        board,
        model: None,
        params: reference.plan.params(),
        features,
        inputs: None,
    };
    let image = firmware_build::build(&options).unwrap();
    let board = start(board, &image, Box::new(|_| ())).unwrap();
    infer(reference, board, images)
}

fn bits(logits: &[f64]) -> Vec<u64> {
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_board_computes_what_the_host_computes_and_takes_as_long_each_time() {
    let reference = Reference::new();
    let run = || on_board(&reference, Emulator::start, DEFAULT_BOARD, 2);
    let (hosts, firsts, seconds) = (in_process(&reference, 2), run(), run());
    let (host, first, second) = (&hosts[0], &firsts[0], &seconds[0]);
    assert_eq!(first.board, DEFAULT_BOARD);
    assert_eq!(first.unit, TimeUnit::Instructions);
    assert_eq!(bits(&host.logits), bits(&first.logits));
    assert_eq!(bits(&host.logits), bits(&second.logits));

    let (a, b) = (first.memory, second.memory);
    assert_eq!(a.static_bytes, b.static_bytes);
    let board = boards::find(DEFAULT_BOARD).unwrap();
    let usage = BoardUse::new(&reference.plan, board).unwrap();
    let fixed = a.static_bytes as usize - usage.arena_bytes;
    let slack = board.fixed_bytes.checked_sub(fixed);
    assert!(
        slack.is_some_and(|slack| slack < 4096),
        "{fixed} bytes beside the arena"
    );
    let ratio = usage.instructions_estimate as f64 / first.total().unwrap() as f64;
    assert!((0.9..1.1).contains(&ratio), "estimate over count: {ratio}");

    // Between requests the stack takes interrupts, wherever they come.
    let peaks = a.stack_peak_bytes.abs_diff(b.stack_peak_bytes);
    assert!(peaks <= EXCEPTION_FRAME_BYTES, "{a:?} {b:?}");
    assert_eq!(first.stages.len(), reference.plan.steps().len());
    assert_eq!(first.stages.len(), second.stages.len());
    for (a, b) in first.stages.iter().zip(&second.stages) {
        assert_eq!(a.step, b.step);
        // It is counted at all.
        assert!(a.time > 100_000, "{a:?}");
        assert!(a.time.abs_diff(b.time) <= SLACK, "{a:?} {b:?}");
    }
    finds_its_keys(&usage, &hosts, &firsts);
}

/// After the first image no key goes up, and reading the keys costs little.
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn finds_its_keys(usage: &BoardUse, hosts: &[Inference], board: &[Inference]) {
    /// An image's instructions with keys kept and everything counted.
    const MOST: u64 = 100_000_000;
    let [first, later] = board else {
        panic!("{} inferences", board.len());
    };
    assert_eq!(bits(&hosts[1].logits), bits(&later.logits));
    let totals = [first, later].map(|inference| inference.total().unwrap());
    let busy = [first, later].map(|inference| inference.busy.unwrap());
    println!(
        "{} bytes up, then {} ({} of keys); {} instructions, then {}; {} with the link, then {}",
        first.bytes.up, later.bytes.up, later.bytes.keys_up, totals[0], totals[1], busy[0], busy[1]
    );
    for (total, busy) in totals.into_iter().zip(busy) {
        // A byte takes an instruction at least, and a later image half a million.
        assert!(busy > total + 500_000, "{total} of {busy}");
    }
    assert!(first.bytes.keys_up > 1_400_000 && later.bytes.keys_up < 1000);
    // The plan's, framed.
    let planned = usage.later_upload_bytes as u64;
    assert!((planned..planned + planned / 50).contains(&later.bytes.up));
    // Reading a uniform half takes less than expanding it.
    assert!(totals[1] < totals[0], "{totals:?}");
    assert!(busy[1] <= MOST, "{busy:?}");
    let readme = std::fs::read_to_string("../README.md").unwrap();
    let (before, _) = readme.split_once(" million for later ones").unwrap();
    let printed: f64 = before.rsplit(' ').next().unwrap().parse().unwrap();
    let ratio = busy[1] as f64 / 1e6 / printed;
    assert!(
        (0.98..1.02).contains(&ratio),
        "README.md has {printed}: {busy:?}"
    );
}

/// What the plan for slow lines takes; `HE_EDGE_UPDATE_COUNTS=1` writes it anew.
const SLOW_LINE: &str = "../firmware/benches/slow-line.csv";

/// One input ciphertext goes up, and the board makes the others by rotations, all by one
/// key, which goes up once. Over a line of 115,200 baud the answer is there in time.
#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn a_board_makes_the_inputs_that_are_not_sent() {
    const BAUD: u32 = 115_200;
    const MOST_BYTES: u64 = 60_000;
    const MOST_SECONDS: f64 = 10.0;
    const HEADER: &str = "bytes up first,bytes up later,bytes down,instructions,with link";
    /// Replies of a link and interrupts vary with what else a host does.
    const TOLERANCES: [f64; 5] = [0.005, 0.005, 0.005, 0.02, 0.05];

    let reference = Reference::of_inputs(1);
    let hosts = in_process(&reference, 3);
    let image = firmware_build::build(&Options {
        board: DEFAULT_BOARD,
        model: None,
        params: reference.plan.params(),
        features: &[],
        inputs: Some(1),
    });
    let board = Emulator::start(DEFAULT_BOARD, &image.unwrap(), Box::new(|_| ())).unwrap();
    let mut client = reference.client(7);
    let mut link = Connection::new(board);
    let digits = &reference.digits[3..];
    let mut infer = |index: usize| client.infer(&mut link, &digits[index], &mut ()).unwrap();
    let (first, later) = (infer(0), infer(1));
    // The line is slow from here on: the keys are there.
    let mut link = Connection::new(Shaped::new(link.into_transport(), BAUD));
    let slow = client.infer(&mut link, &digits[2], &mut ()).unwrap();
    for (index, (host, board)) in hosts.iter().zip([&first, &later, &slow]).enumerate() {
        reference.check(&digits[index], board);
        assert_eq!(bits(&host.logits), bits(&board.logits), "{index}");
    }

    let usage = BoardUse::new(&reference.plan, boards::find(DEFAULT_BOARD).unwrap()).unwrap();
    let ratio = usage.instructions_estimate as f64 / first.total().unwrap() as f64;
    assert!((0.9..1.1).contains(&ratio), "estimate over count: {ratio}");
    assert_eq!(usage.alternatives.len(), 2);
    let planned = usage.alternatives[1].figures.as_ref().unwrap();
    for (planned, bytes) in [
        (planned.upload_bytes_first, first.bytes.up),
        (planned.upload_bytes_later, later.bytes.up),
        (planned.download_bytes, later.bytes.down),
    ] {
        let ratio = bytes as f64 / planned as f64;
        assert!(
            (0.995..1.005).contains(&ratio),
            "{bytes} where {planned} are planned"
        );
    }

    let measured = [
        first.bytes.up,
        later.bytes.up,
        later.bytes.down,
        later.total().unwrap(),
        later.busy.unwrap(),
    ];
    let seconds = slow.wall.as_secs_f64();
    println!("{HEADER}: {measured:?}; {seconds:.2} s at {BAUD} baud");
    assert!(slow.bytes.up <= MOST_BYTES, "{:?}", slow.bytes);
    assert!(seconds <= MOST_SECONDS, "{seconds}");
    if std::env::var_os("HE_EDGE_UPDATE_COUNTS").is_some() {
        let row = measured.map(|count| count.to_string()).join(",");
        std::fs::write(SLOW_LINE, format!("{HEADER}\n{row}\n")).unwrap();
    }
    let table = std::fs::read_to_string(SLOW_LINE).unwrap();
    let (header, row) = table.trim_end().split_once('\n').unwrap();
    assert_eq!(header, HEADER);
    let committed = row.split(',').map(|count| count.parse::<f64>().unwrap());
    for ((committed, measured), tolerance) in committed.zip(measured).zip(TOLERANCES) {
        let ratio = measured as f64 / committed;
        assert!(
            (ratio - 1.0).abs() <= tolerance,
            "{measured} where {committed} is committed"
        );
    }
}

/// The same with the external memory as a flash.
#[test]
fn a_board_with_flash_finds_its_keys() {
    if std::env::var_os("HE_EDGE_LONG").is_none() {
        return;
    }
    let reference = Reference::new();
    let run = with_features(
        &reference,
        &["kept-flash"],
        Emulator::start,
        DEFAULT_BOARD,
        2,
    );
    let board = boards::find(DEFAULT_BOARD).unwrap();
    let usage = BoardUse::new(&reference.plan, board).unwrap();
    finds_its_keys(&usage, &in_process(&reference, 2), &run);
}

/// A network of two activations, whose keys several levels share.
#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn a_board_with_external_memory_finds_the_keys_of_a_larger_network() {
    if std::env::var_os("HE_EDGE_LONG").is_none() {
        return;
    }
    let board = boards::find("mps2-an500").unwrap();
    let case = Case::bundled("mnist-cnn");
    let plan = case.plan(WeightMode::Plain, board.target()).unwrap();
    let usage = BoardUse::new(&plan, board).unwrap();
    let answered = suite::run(&case, WeightMode::Plain, Device::Board(board), 2).unwrap();
    let [first, later] = &answered.inferences[..] else {
        panic!("{} inferences", answered.inferences.len());
    };
    println!(
        "{} bytes up, then {} ({} of keys); {:?} instructions, then {:?}",
        first.bytes.up,
        later.bytes.up,
        later.bytes.keys_up,
        first.total(),
        later.total()
    );
    let planned = usage.later_upload_bytes as u64;
    assert!(
        (planned..planned + planned / 50).contains(&later.bytes.up),
        "{planned}"
    );
}

/// The evaluator adds up the lanes of the last layer: no partial sum goes down, for
/// instructions and keys.
#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn a_board_adds_up_lanes_where_the_client_must_not_see_them() {
    let board = boards::find(DEFAULT_BOARD).unwrap();
    let case = Case::bundled("mnist-mlp64");
    let of = |sums| {
        let weights = WeightMode::Plain;
        let terms = Terms {
            weights,
            sums,
            inputs: None,
        };
        suite::run(&case, terms, Device::Board(board), 2).unwrap()
    };
    let figures = [Sums::Client, Sums::Evaluator].map(|sums| {
        let answered = of(sums);
        let totals: Vec<u64> = answered
            .inferences
            .iter()
            .map(|one| one.total().unwrap())
            .collect();
        let bytes = answered.inferences[0].bytes;
        println!("{sums:?}: {bytes:?}, {totals:?} instructions");
        (totals, bytes)
    });
    let [(less, lanes), (more, sums)] = figures;
    for (less, more) in less.iter().zip(&more) {
        assert!(
            (18_000_000..30_000_000).contains(&(more - less)),
            "{less} {more}"
        );
    }
    // Six keys of two digits.
    assert!((390_000..420_000).contains(&(sums.keys_up - lanes.keys_up)));
}

#[test]
fn a_board_of_256_kb_computes_the_same_one_after_the_other() {
    const NAME: &str = "mps2-an386-256k";
    const IMAGES: usize = 3;
    let reference = Reference::new();
    assert_eq!(boards::find(NAME).unwrap().ram_bytes, 256 * 1024);
    let host = in_process(&reference, IMAGES);
    let small = on_board(&reference, Emulator::start, NAME, IMAGES);
    assert_eq!(small.len(), IMAGES);
    for (host, small) in host.iter().zip(&small) {
        assert_eq!(small.board, NAME);
        assert_eq!(bits(&host.logits), bits(&small.logits));
    }
}

/// A Cortex-M33 runs the kernels with DSP instructions, in as many instructions as the
/// Cortex-M4, whose kernels they are.
#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn a_processor_of_armv8_m_computes_the_same() {
    let reference = Reference::new();
    let host = in_process(&reference, 2);
    let board = on_board(&reference, Emulator::start, "mps2-an505", 2);
    let totals: Vec<u64> = board.iter().map(|one| one.total().unwrap()).collect();
    println!("{totals:?} instructions on a Cortex-M33");
    // The second finds its keys and their uniform halves. It takes 3 million more than on
    // the Cortex-M4: for this target the compiler does not use UMAAL, which is a step of the
    // checksum.
    assert!(totals[1] < 82_000_000, "{totals:?}");
    for (host, board) in host.iter().zip(&board) {
        assert_eq!(board.board, "mps2-an505");
        assert_eq!(bits(&host.logits), bits(&board.logits));
    }
    let other = boards::find(DEFAULT_BOARD).unwrap();
    let estimate = BoardUse::new(&reference.plan, other)
        .unwrap()
        .instructions_estimate as f64;
    let ratio = estimate / totals[0] as f64;
    assert!(
        (0.85..1.15).contains(&ratio),
        "estimate over count: {ratio}"
    );
}

/// Takes one to three minutes: the emulated serial port is slow.
#[test]
fn the_serial_port_carries_the_same_inference() {
    let reference = Reference::new();
    let run = |start| on_board(&reference, start, DEFAULT_BOARD, 1).remove(0);
    let host = in_process(&reference, 1).remove(0);
    let (mailbox, serial) = (run(Emulator::start), run(Emulator::start_serial));
    assert_eq!(bits(&host.logits), bits(&serial.logits));
    assert_eq!(mailbox.stages.len(), serial.stages.len());
    for (a, b) in mailbox.stages.iter().zip(&serial.stages) {
        assert!(a.time.abs_diff(b.time) <= SLACK, "{a:?} {b:?}");
    }
}
