//! Instruction counts of the inner loops on the emulated board, against the
//! committed table, and the board's kernels against the portable ones.
//!
//! `HE_EDGE_UPDATE_COUNTS=1` writes the table anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use he_core::ckks::encode::encode_in_place;
use host_runner::boards::{self, DEFAULT_BOARD};
use host_runner::device::firmware_build::{self, Options};

/// A count may grow by this part before the test fails.
const TOLERANCE: f64 = 0.02;

/// The same where another compiler than the table's made the image: what is
/// not in assembly is a little different then.
const OTHER_COMPILER: f64 = 0.15;

/// First line of the table: the compiler that it was measured with.
const COMPILER: &str = "# rustc ";

/// The board's clock ticks every 40 instructions.
const RESOLUTION: f64 = 40.0;

const HEADER: &str = "kernel,items,instructions";

fn table() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../firmware/benches")
        .join(format!("counts-{DEFAULT_BOARD}.csv"))
}

/// What the program says on its serial line.
fn report() -> String {
    let options = Options {
        board: DEFAULT_BOARD,
        model: None,
        features: &["bench"],
    };
    let image = firmware_build::build_program(&options, "bench").unwrap();
    let machine = boards::find(DEFAULT_BOARD).unwrap().machine.unwrap();
    let output = Command::new("qemu-system-arm")
        .args(["-M", machine.name, "-display", "none", "-monitor", "none"])
        .args(["-nodefaults", "-semihosting", "-serial", "stdio"])
        .args(["-icount", "shift=0,align=off,sleep=off", "-kernel"])
        .arg(image)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Name to (items, instructions).
type Counts = BTreeMap<String, (u32, u32)>;

fn rows<'a>(lines: impl Iterator<Item = (&'a str, &'a str, &'a str)>) -> Counts {
    lines
        .map(|(name, items, count)| {
            (
                name.into(),
                (items.parse().unwrap(), count.parse().unwrap()),
            )
        })
        .collect()
}

#[test]
fn the_board_computes_the_same_within_its_instruction_counts() {
    let report = report();
    let lines: Vec<Vec<&str>> = report
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    assert_eq!(
        lines.last().map(Vec::as_slice),
        Some(&["done"][..]),
        "{report}"
    );

    let differing: Vec<_> = lines.iter().filter(|l| l[0] == "differs").collect();
    assert!(differing.is_empty(), "kernels differ: {differing:?}");
    let equal = lines.iter().filter(|l| l[0] == "equal").count();
    assert_eq!(equal, 47, "comparisons that the board has made");

    // The slots that `bench.rs` encodes.
    let mut slots: Vec<f32> = (0..2048)
        .map(|i| ((i * 37) & 255) as f32 / 128.0 - 1.0)
        .collect();
    slots.resize(4096, 0.0);
    encode_in_place(&mut slots, 1e6).unwrap();
    let sum = slots.iter().fold(0x811c_9dc5_u32, |h, &x| {
        (h ^ x as i32 as u32).wrapping_mul(0x0100_0193)
    });
    let board = lines.iter().find(|l| l[..2] == ["sum", "encode"]).unwrap();
    assert_eq!(
        board[2],
        format!("{sum:08x}"),
        "board and host encode alike"
    );

    let compiler = lines.iter().find(|l| l[0] == "compiler").unwrap()[1];
    let measured = rows(
        lines
            .iter()
            .filter(|l| l[0] == "count")
            .map(|l| (l[1], l[2], l[3])),
    );
    if std::env::var_os("HE_EDGE_UPDATE_COUNTS").is_some() {
        let body: String = measured
            .iter()
            .map(|(name, (items, count))| format!("{name},{items},{count}\n"))
            .collect();
        let text = format!("{COMPILER}{compiler}\n{HEADER}\n{body}");
        std::fs::write(table(), text).unwrap();
    }
    let text = std::fs::read_to_string(table()).unwrap();
    let mut committed = text.lines();
    let measured_with = committed.next().and_then(|l| l.strip_prefix(COMPILER));
    let tolerance = match measured_with {
        Some(version) if version == compiler => TOLERANCE,
        Some(_) => OTHER_COMPILER,
        None => panic!("the table does not say what compiler it is for"),
    };
    assert_eq!(committed.next(), Some(HEADER));
    let committed = rows(committed.map(|line| {
        let mut fields = line.split(',');
        let mut next = || fields.next().unwrap();
        (next(), next(), next())
    }));
    assert!(
        measured.keys().eq(committed.keys()),
        "the table has other rows: measured {measured:?}"
    );
    let grown: Vec<String> = measured
        .iter()
        .filter_map(|(name, &(_, now))| {
            let before = committed[name].1;
            let limit = f64::from(before) * (1.0 + tolerance) + RESOLUTION;
            (f64::from(now) > limit).then(|| format!("{name}: {before} -> {now}"))
        })
        .collect();
    assert!(
        grown.is_empty(),
        "more instructions by rustc {compiler} than committed by {measured_with:?}: {grown:?}"
    );
}
