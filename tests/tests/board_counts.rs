//! Instruction counts of the inner loops on the emulated board, against the
//! committed table, and the board's kernels against the portable ones.
//!
//! `HE_EDGE_UPDATE_COUNTS=1` writes the table anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use he_core::ckks::encode::encode_in_place;
use host_runner::commands::bench::board::{self, Count};

/// A count may grow by this part before the test fails.
const TOLERANCE: f64 = 0.02;

/// The same where another compiler than the table's made the image: what is
/// not in assembly is a little different then.
const OTHER_COMPILER: f64 = 0.15;

/// First line of the table: the compiler that it was measured with.
const COMPILER: &str = "# rustc ";

/// The slower of the boards' clocks ticks every 50 instructions.
const RESOLUTION: f64 = 50.0;

/// Armv7E-M, and Armv8-M with the same instructions.
const BOARDS: [&str; 2] = ["mps2-an386", "mps2-an505"];

const HEADER: &str = "kernel,items,instructions";

fn table(board: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../firmware/benches")
        .join(format!("counts-{board}.csv"))
}

#[test]
fn boards_compute_the_same_within_their_instruction_counts() {
    BOARDS.into_iter().for_each(check);
}

fn check(name: &str) {
    let report = board::run(name).unwrap();
    assert!(report.differing.is_empty(), "{:?}", report.differing);
    assert_eq!(report.equal, 32, "comparisons that the board has made");

    // The slots that `bench.rs` encodes.
    let mut slots: Vec<f32> = (0..2048)
        .map(|i| ((i * 37) & 255) as f32 / 128.0 - 1.0)
        .collect();
    slots.resize(4096, 0.0);
    encode_in_place(&mut slots, 1e6).unwrap();
    let sum = slots.iter().fold(0x811c_9dc5_u32, |h, &x| {
        (h ^ x as i32 as u32).wrapping_mul(0x0100_0193)
    });
    assert_eq!(report.sums["encode"], sum, "board and host encode alike");

    let (compiler, measured) = (report.compiler, report.counts);
    if std::env::var_os("HE_EDGE_UPDATE_COUNTS").is_some() {
        let body: String = measured
            .iter()
            .map(|(name, c)| format!("{name},{},{}\n", c.items, c.instructions))
            .collect();
        let text = format!("{COMPILER}{compiler}\n{HEADER}\n{body}");
        std::fs::write(table(name), text).unwrap();
    }
    let text = std::fs::read_to_string(table(name)).unwrap();
    let mut committed = text.lines();
    let measured_with = committed.next().and_then(|l| l.strip_prefix(COMPILER));
    let tolerance = match measured_with {
        Some(version) if version == compiler => TOLERANCE,
        Some(_) => OTHER_COMPILER,
        None => panic!("the table does not say what compiler it is for"),
    };
    assert_eq!(committed.next(), Some(HEADER));
    let committed: BTreeMap<String, Count> = committed
        .map(|line| {
            let mut fields = line.split(',');
            let mut next = || fields.next().unwrap();
            let name = next().into();
            let count = Count {
                items: next().parse().unwrap(),
                instructions: next().parse().unwrap(),
            };
            (name, count)
        })
        .collect();
    assert!(
        measured.keys().eq(committed.keys()),
        "the table has other rows: measured {measured:?}"
    );
    let grown: Vec<String> = measured
        .iter()
        .filter_map(|(name, count)| {
            let (before, now) = (committed[name].instructions, count.instructions);
            let limit = f64::from(before) * (1.0 + tolerance) + RESOLUTION;
            (f64::from(now) > limit).then(|| format!("{name}: {before} -> {now}"))
        })
        .collect();
    assert!(
        grown.is_empty(),
        "more instructions by rustc {compiler} than committed by {measured_with:?}: {grown:?}"
    );
}
