//! What he-core brings along on a device: what it needs, and no more.

use std::collections::BTreeSet;
use std::process::Command;

/// Crates that he-core is built with for a microcontroller, and why.
const ALLOWED: [(&str, &str); 5] = [
    ("chacha20", "uniform polynomials from a seed"),
    ("cfg-if", "chacha20's choice of a backend"),
    ("libm", "square roots and magnitudes without std"),
    ("rand_core", "the caller's generator"),
    ("zeroize", "erasing secrets"),
];

/// Names of the crates in what `cargo tree` prints.
fn crates(target: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--locked", "--package", "he-core"])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--target", target])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "he-core")
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_device_needs_five_crates() {
    let allowed: BTreeSet<String> = ALLOWED.iter().map(|(name, _)| (*name).into()).collect();
    for target in ["thumbv7em-none-eabihf", "thumbv8m.main-none-eabihf"] {
        assert_eq!(crates(target), allowed, "{target}");
    }
}

/// The list is that of the target: a host has one more.
#[test]
fn a_host_also_asks_for_its_instructions() {
    assert!(crates("x86_64-unknown-linux-gnu").contains("cpufeatures"));
}
