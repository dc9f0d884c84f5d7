//! What a Cortex-M executes over secrets: the addresses of all instructions and of all
//! memory that they read and write are the same for fixed and random keys, messages,
//! inputs and weights, those of the assembly kernels included. A plugin of the emulator
//! (`tests/traces/plugin.c`) digests them between two readings of the board's timer, which
//! the firmware's program `timing` takes before and after what it runs.
//!
//! And `he-edge timing` counts the same instructions for all of them.
//!
//! Counts are over six draws by default, over a thousand with HE_EDGE_LONG.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use he_core::benchmarks::subjects::Subject;
use host_runner::device::firmware_build::{Options, build_program};
use host_runner::planning::DEFAULT_SET;
use host_runner::timing::board::{self, SUBJECTS};
use host_runner::timing::{Settings, TimingError};

const BOARD: &str = "mps2-an386";
const MACHINE: &str = "mps2-an386";

/// What lies between two readings: a digest, instructions, accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    digest: String,
    instructions: u64,
    accesses: u64,
}

fn parse(text: &str) -> Vec<Span> {
    let span = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        Span {
            digest: words[0].to_owned(),
            instructions: words[1].parse().unwrap(),
            accesses: words[2].parse().unwrap(),
        }
    };
    text.lines().map(span).collect()
}

fn plugin(directory: &Path) -> PathBuf {
    let out = directory.join("plugin.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/plugin.c");
    let status = Command::new("cc")
        .args([
            "-std=c99", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o",
        ])
        .args([&out, &source])
        .status()
        .expect("a C compiler can be started: tests/setup installs it");
    assert!(status.success());
    out
}

/// Per draw whether it is of the fixed class, the operation's span and the leak's.
fn draws(image: &Path, subject: Subject, count: usize) -> Vec<(bool, [Span; 2])> {
    let directory = tempfile::tempdir().unwrap();
    let spans = directory.path().join("spans");
    let plugin = plugin(directory.path());
    // Without `-icount`, which has an instruction that reads a timer begun twice. Digests
    // need no clock.
    let output = Command::new("qemu-system-arm")
        .args(["-M", MACHINE, "-display", "none", "-monitor", "none"])
        .args(["-nodefaults", "-serial", "stdio", "-semihosting-config"])
        .arg(format!(
            "enable=on,arg={count},arg=7,arg={}",
            subject.name()
        ))
        .arg("-plugin")
        .arg(format!("{},out={}", plugin.display(), spans.display()))
        .arg("-kernel")
        .arg(image)
        .output()
        .expect("QEMU can be started: tests/setup installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    let classes: Vec<bool> = said
        .lines()
        .filter(|line| line.starts_with("time "))
        .map(|line| line.contains(" fixed "))
        .collect();
    assert_eq!(classes.len(), count, "{said}{complaint}");
    let spans = parse(&fs::read_to_string(spans).unwrap());
    // The timer is started by a write. Before each operation a reading ends what was
    // drawn.
    assert_eq!(spans.len(), 1 + 3 * count, "{said}");
    let each = spans[1..].chunks(3).zip(classes);
    each.map(|(spans, fixed)| (fixed, [spans[1].clone(), spans[2].clone()]))
        .collect()
}

#[test]
fn board_executes_the_same_over_all_secrets() {
    let options = Options {
        board: BOARD,
        model: None,
        params: DEFAULT_SET,
        features: &["bench"],
        inputs: None,
    };
    let image = build_program(&options, "timing").unwrap();
    for subject in SUBJECTS {
        let all = draws(&image, subject, 4);
        let classes = all.iter().filter(|(fixed, _)| *fixed).count();
        assert!((1..4).contains(&classes), "{classes}");
        let (_, [first, _]) = &all[0];
        // Of thousands of coefficients each takes something.
        assert!(
            first.instructions > 20_000 && first.accesses > 4096,
            "{first:?}"
        );
        for (fixed, [operation, _]) in &all {
            assert_eq!(operation, first, "{} {fixed}", subject.name());
        }
        // A pass that leaves zeros out takes another path per class.
        let leak = |class: bool| all.iter().find(|(fixed, _)| *fixed == class).unwrap();
        let [fixed, random] = [true, false].map(|class| &leak(class).1[1]);
        assert_ne!(fixed.digest, random.digest, "{}", subject.name());
        assert!(fixed.instructions < random.instructions);
    }
}

#[test]
fn board_counts_have_no_variance_over_secrets() {
    let is_long = std::env::var_os("HE_EDGE_LONG").is_some();
    let settings = Settings {
        samples: Some(if is_long { 1000 } else { 6 }),
        smallest_leak: 0.01,
        seed: 3,
    };
    let mut lines = Vec::new();
    let keep = |new| {
        lines.extend(new);
        Ok(())
    };
    board::measure(BOARD, &SUBJECTS, &settings, keep).unwrap();
    assert_eq!(lines.len(), 2 * SUBJECTS.len());
    for line in &lines {
        assert!(line.is_as_demanded(), "{line:?}");
        assert_eq!(line.statistic, "variance");
        assert_eq!(line.value == 0.0, !line.control, "{line:?}");
        let least = line.details["least"].as_u64().unwrap();
        assert!(least > 20_000, "{line:?}");
    }
}

#[test]
fn board_that_nobody_emulates_is_refused_before_anything_is_built() {
    let settings = Settings {
        samples: Some(1),
        smallest_leak: 0.01,
        seed: 3,
    };
    let measured = |board| board::measure(board, &SUBJECTS, &settings, |_| Ok(()));
    assert!(matches!(measured("pico2"), Err(TimingError::Service(_))));
    // One draw has no variance.
    assert!(matches!(
        measured(BOARD),
        Err(TimingError::Few { got: 1, least: 2 })
    ));
}
