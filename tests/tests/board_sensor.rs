//! A sensor on the emulated board: its ciphertexts are those of the same sensor
//! in process and decrypt to what it measured, within the committed
//! instructions and memory, its key open or under masks; what is wrong is refused and
//! survived.
//!
//! `HE_EDGE_UPDATE_COUNTS=1` writes the table anew.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use he_nn::message::TimeUnit;
use he_nn::sensor::{ENTROPY_BYTES, Refusal, Reply, Request};
use host_runner::commands::sense::{HOST_ENTROPY, MASKED_KEY, PROGRAM, steps};
use host_runner::device::emulator::Emulator;
use host_runner::device::firmware_build::{self, Options};
use host_runner::device::log::LogLine;
use host_runner::device::{Connection, DEFAULT_BOARD, Transport};
use host_runner::planning::DEFAULT_SET;
use host_runner::sensor::{Line, Measurement, RefusalSentence, SensorError, first_key, in_process};

const ENTROPY: [u8; ENTROPY_BYTES] = [42; ENTROPY_BYTES];
const SCALE: f64 = 2_097_152.0;
const LEVEL: usize = 3;

/// What this board is to stay below: the goals of its first version.
const MOST_INSTRUCTIONS: u64 = 4_000_000;
const MOST_MEMORY: u32 = 100 * 1024;

/// The same with its key under masks: two more uniform polynomials per limb instead of a
/// transform, and the transforms of four limbs in place of one.
const MOST_MASKED_INSTRUCTIONS: u64 = 5_000_000;
const MOST_MASKED_MEMORY: u32 = 128 * 1024;

/// A count may grow by this part before the test fails.
const TOLERANCE: f64 = 0.02;

/// The same where another compiler than the table's made the image.
const OTHER_COMPILER: f64 = 0.15;

/// The board's clock ticks every 1.25 instructions and is read some 80 times;
/// an interrupt may come on top of the deepest stack.
const RESOLUTION: f64 = 250.0;

/// Instructions by which the same work may be counted differently: each reading
/// of the clock is good to about one.
const SLACK: u64 = 50;

/// What the generator takes for its next 256 bytes. The error of an encryption
/// may begin at any place between two of these, as it is drawn after the key.
const REFILL: u64 = 6000;

const COMPILER: &str = "# rustc ";
const HEADER: &str = "item,count";

const PATIENCE: Duration = Duration::from_secs(60);

fn table(features: &[&str]) -> PathBuf {
    let name = [&["sensor"], features, &[DEFAULT_BOARD]].concat().join("-");
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../firmware/benches")
        .join(name + ".csv")
}

/// 2048 values, and 2048 imaginary parts.
fn values(seed: f32, amplitude: f32) -> Vec<f32> {
    let values = (0..DEFAULT_SET.n()).map(|i| (i as f32 * 0.37 + seed).sin() * amplitude);
    values.collect()
}

/// Seeds and amplitudes of what is measured. The largest has coefficients beyond
/// 2^22, the smallest has none that is not zero.
const MEASURED: [(f32, f32); 4] = [(1.0, 1.0), (1.0, 1.0), (2.0, 200.0), (3.0, 1e-9)];

/// What a value of this amplitude may be off by after decryption: six standard
/// deviations of a slot's error (N errors of variance 10.5, and as many
/// roundings), and the rounding of the encoder's single precision.
fn bound(amplitude: f32) -> f64 {
    6.0 * 210.0 / SCALE + 4e-6 * f64::from(amplitude)
}

struct Board {
    line: Line<Emulator>,
    log: Arc<Mutex<Vec<LogLine>>>,
}

impl Board {
    /// One whose entropy is its host's.
    fn start(features: &[&str]) -> Self {
        Self::of(&[&[HOST_ENTROPY], features].concat())
    }

    fn of(features: &[&str]) -> Self {
        let options = Options {
            board: DEFAULT_BOARD,
            model: None,
            params: DEFAULT_SET,
            features,
            inputs: None,
        };
        let image = firmware_build::build_program(&options, PROGRAM).unwrap();
        let log = Arc::<Mutex<Vec<LogLine>>>::default();
        let sink = log.clone();
        let sink = Box::new(move |line| sink.lock().unwrap().push(line));
        let emulator = Emulator::start_serial(DEFAULT_BOARD, &image, sink).unwrap();
        Self {
            line: Line::open(Connection::new(emulator)).unwrap(),
            log,
        }
    }

    /// The compiler of the image, which it logs at its start.
    fn compiler(&self) -> String {
        for _ in 0..500 {
            let log = self.log.lock().unwrap();
            let found = log
                .iter()
                .find_map(|line| line.message.split("built by rustc ").nth(1));
            if let Some(version) = found {
                return version.to_owned();
            }
            drop(log);
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the sensor did not log its start");
    }
}

fn measurements<T: Transport>(line: &mut Line<T>) -> [Measurement; 4] {
    line.entropy(ENTROPY).unwrap();
    line.new_key().unwrap();
    MEASURED.map(|(seed, amplitude)| {
        line.measure(0, &values(seed, amplitude)).unwrap();
        line.encrypt(LEVEL, SCALE).unwrap()
    })
}

fn refusal(result: Result<impl Sized, SensorError>) -> Refusal {
    match result {
        Err(SensorError::Refused {
            reason: RefusalSentence(refusal),
            ..
        }) => refusal,
        Err(other) => panic!("a refusal was expected, not {other}"),
        Ok(_) => panic!("a refusal was expected"),
    }
}

#[test]
fn the_board_encrypts_what_a_host_encrypts_within_its_instructions_and_memory() {
    encrypts_within(&[], MOST_INSTRUCTIONS, MOST_MEMORY);
}

/// As it would be put on the FPGA board, which has no generator.
#[test]
fn an_image_that_is_not_for_the_emulator_takes_no_entropy_from_its_line() {
    let mut board = Board::of(&[]);
    let refused = refusal(board.line.entropy(ENTROPY));
    assert_eq!(refused, Refusal::NotSupplied);
    assert_eq!(refusal(board.line.new_key()), Refusal::NoEntropy);
}

#[test]
fn the_board_encrypts_under_masks_within_its_instructions_and_memory() {
    encrypts_within(&[MASKED_KEY], MOST_MASKED_INSTRUCTIONS, MOST_MASKED_MEMORY);
}

fn encrypts_within(features: &[&str], most_instructions: u64, most_memory: u32) {
    let mut board = Board::start(features);
    assert_eq!(board.line.board(), DEFAULT_BOARD);
    assert_eq!(board.line.unit(), TimeUnit::Instructions);
    let on_board = measurements(&mut board.line);
    let masked = features.contains(&MASKED_KEY);
    let on_host = measurements(&mut Line::open(Connection::new(in_process(masked))).unwrap());
    let key = first_key(ENTROPY).unwrap();
    for ((a, b), (seed, amplitude)) in on_board.iter().zip(&on_host).zip(MEASURED) {
        assert!(a.sealed == b.sealed, "board and host encrypt alike");
        let measured = values(seed, amplitude);
        let error = board.line.error_of(a, &key, &measured).unwrap();
        let bound = bound(amplitude);
        assert!(error > 0.0 && error < bound, "{error} of {bound}");
        let total = a.times.total();
        assert!(total <= most_instructions, "{total} instructions");
    }
    let [first, second, third, last] = &on_board;
    // The same work whatever the values are. Limbs are left out, as the
    // expansion of their seed, which is public, takes a little more or less.
    for other in [second, third, last] {
        let (a, b) = (&first.times, &other.times);
        assert!(a.encode.abs_diff(b.encode) <= SLACK, "{a:?} {b:?}");
        assert!(a.errors.abs_diff(b.errors) <= REFILL, "{a:?} {b:?}");
        assert!(a.pack.abs_diff(b.pack) <= SLACK, "{a:?} {b:?}");
        assert!(a.erase.abs_diff(b.erase) <= SLACK, "{a:?} {b:?}");
    }
    assert_ne!(first.sealed.seed, second.sealed.seed);
    assert!(first.sealed.limbs != second.sealed.limbs);
    // Another key decrypts to nothing like it.
    let foreign = first_key([43; ENTROPY_BYTES]).unwrap();
    let error = board.line.error_of(first, &foreign, &values(1.0, 1.0));
    assert!(error.unwrap() > 1e3);

    let memory = last.memory;
    let ram = memory.static_bytes + memory.stack_peak_bytes;
    assert!(ram <= most_memory, "{memory:?}");
    compare(features, &board.compiler(), second);
}

fn compare(features: &[&str], compiler: &str, measured: &Measurement) {
    let all = [("all", measured.times.total())];
    let memory = [
        ("ram-static-bytes", measured.memory.static_bytes),
        ("ram-stack-peak-bytes", measured.memory.stack_peak_bytes),
    ];
    let memory = memory.map(|(name, bytes)| (name, u64::from(bytes)));
    let rows: Vec<_> = steps(&measured.times)
        .into_iter()
        .chain(all)
        .chain(memory)
        .collect();
    if std::env::var_os("HE_EDGE_UPDATE_COUNTS").is_some() {
        let mut text = format!("{COMPILER}{compiler}\n{HEADER}\n");
        for (name, count) in &rows {
            writeln!(text, "{name},{count}").unwrap();
        }
        std::fs::write(table(features), text).unwrap();
    }
    let text = std::fs::read_to_string(table(features)).unwrap();
    let mut lines = text.lines();
    let tolerance = match lines.next().and_then(|line| line.strip_prefix(COMPILER)) {
        Some(version) if version == compiler => TOLERANCE,
        Some(_) => OTHER_COMPILER,
        None => panic!("the table does not say what compiler it is for"),
    };
    assert_eq!(lines.next(), Some(HEADER));
    let committed: Vec<(&str, u64)> = lines
        .map(|line| line.split_once(',').unwrap())
        .map(|(name, count)| (name, count.parse().unwrap()))
        .collect();
    assert_eq!(committed.len(), rows.len(), "the table has other rows");
    for ((name, count), (committed_name, before)) in rows.into_iter().zip(committed) {
        assert_eq!(name, committed_name, "the table has other rows");
        let limit = before as f64 * (1.0 + tolerance) + RESOLUTION;
        assert!((count as f64) <= limit, "{name} grew: {before} -> {count}");
    }
}

#[test]
fn what_is_wrong_is_refused_and_the_next_request_works() {
    let mut board = Board::start(&[]);
    let line = &mut board.line;
    assert_eq!(refusal(line.new_key()), Refusal::NoEntropy);
    line.measure(0, &values(3.0, 1.0)).unwrap();
    assert_eq!(refusal(line.encrypt(LEVEL, SCALE)), Refusal::NoEntropy);
    line.entropy(ENTROPY).unwrap();
    assert_eq!(refusal(line.encrypt(LEVEL, SCALE)), Refusal::NoKey);
    line.new_key().unwrap();
    assert!(matches!(
        refusal(line.measure(DEFAULT_SET.n() - 1, &[0.0; 2])),
        Refusal::Slots { .. }
    ));
    assert_eq!(
        refusal(line.measure(5, &[0.0, f32::NAN])),
        Refusal::NotFinite { slot: 6 }
    );

    // Bytes that are no frame, a frame that holds no request, and one cut off.
    let mut take_frame_refusal = |bytes: &[u8], received| {
        let link = line.link();
        link.send_raw(bytes).unwrap();
        let refused = link.receive_frame(PATIENCE, |frame| {
            Ok(frame.decode::<Reply<'_>>()? == Reply::Refused(Refusal::Frame { received }))
        });
        assert!(refused.unwrap(), "{bytes:?}");
    };
    take_frame_refusal(&[1, 2, 3, 0], 3);
    let mut buffer = [0; 64];
    let frame = he_nn::link::encode(&[0xFFu8; 9], &mut buffer).unwrap();
    take_frame_refusal(frame, frame.len() as u32 - 1);
    let entropy = Request::Entropy { bytes: ENTROPY };
    let frame = he_nn::link::encode(&entropy, &mut buffer).unwrap();
    let cut = [&frame[..20], &[0]].concat();
    take_frame_refusal(&cut, 20);
    let long = [vec![7; 5000], vec![0]].concat();
    take_frame_refusal(&long, 5000);

    // Refusals have taken neither the key nor the values.
    let measurement = line.encrypt(0, SCALE).unwrap();
    let key = first_key(ENTROPY).unwrap();
    // At one limb the modulus is 27 bits and holds all of this.
    let error = line
        .error_of(&measurement, &key, &values(3.0, 1.0))
        .unwrap();
    assert!(error < bound(1.0), "{error}");
    assert_eq!(refusal(line.encrypt(LEVEL, SCALE)), Refusal::NoValues);
}
