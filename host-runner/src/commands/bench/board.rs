//! Instructions on an emulated board: the firmware's program `bench` is built,
//! run, and what it says is read.

use std::collections::BTreeMap;

use crate::commands::Failure;
use crate::device::emulator;
use crate::device::firmware_build::{self, Options};
use crate::device::opening::emulated;
use crate::planning::DEFAULT_SET as PARAMS;

/// What was counted: of how many butterflies or coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Butterflies of a transform, coefficients of everything else.
    pub items: u32,
    /// Instructions for all of them.
    pub instructions: u32,
}

/// What the program said.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Version of the compiler that it was built by.
    pub compiler: String,
    /// By name: kernels (`ntt-forward-27`) and operations (`encrypt_secret`).
    pub counts: BTreeMap<String, Count>,
    /// Comparisons of the board's kernels with the portable ones that found no
    /// difference.
    pub equal: usize,
    /// Those that found one.
    pub differing: Vec<String>,
    /// Checksums of what it computed.
    pub sums: BTreeMap<String, u32>,
}

/// Builds and runs the program for a board.
///
/// # Errors
/// [`Failure::Board`], [`Failure::Firmware`], [`Failure::Device`];
/// [`Failure::BoardBench`] where it ended early.
pub fn run(board: &str) -> Result<Report, Failure> {
    emulated(board)?;
    let options = Options {
        board,
        model: None,
        params: PARAMS,
        features: &["bench"],
        inputs: None,
    };
    let image = firmware_build::build_program(&options, "bench")?;
    let said = emulator::run_to_end(board, &image)?;
    parse(&said).ok_or_else(|| Failure::BoardBench {
        board: board.into(),
        last: said.lines().last().unwrap_or_default().into(),
    })
}

/// Reads the lines, which end with `done`.
fn parse(said: &str) -> Option<Report> {
    let mut report = Report::default();
    let mut done = false;
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["count", name, items, instructions] => {
                let count = Count {
                    items: items.parse().ok()?,
                    instructions: instructions.parse().ok()?,
                };
                report.counts.insert(name.into(), count);
            }
            ["equal", ..] => report.equal += 1,
            ["differs", ..] => report.differing.push(line.into()),
            ["sum", name, sum] => {
                let sum = u32::from_str_radix(sum, 16).ok()?;
                report.sums.insert(name.into(), sum);
            }
            ["compiler", version] => report.compiler = version.into(),
            ["done"] => done = true,
            _ => return None,
        }
    }
    done.then_some(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let said = "count add-27 4096 22540\nequal ntt 1\nsum encode 0000ff00\n\
                    differs ntt-12289 16\ncompiler 1.96.0\ndone\n";
        let report = parse(said).unwrap();
        assert_eq!(
            report.counts["add-27"],
            Count {
                items: 4096,
                instructions: 22540
            }
        );
        assert_eq!((report.equal, report.differing.len()), (1, 1));
        assert_eq!(report.sums["encode"], 0xff00);
        assert_eq!(report.compiler, "1.96.0");
    }

    #[test]
    fn one_that_broke_off_is_none() {
        assert!(parse("count add-27 4096 22540\n").is_none());
        assert!(parse("panic at src/x\ndone\n").is_none());
        assert!(parse("count add-27 4096 many\ndone\n").is_none());
    }
}
