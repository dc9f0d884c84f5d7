//! Instructions on an emulated board, over secrets, inputs and weights that are drawn: the
//! firmware's program `timing` is built and run, and what it says is read. Where no path
//! depends on what was drawn, every count is the same.

use attacks::leakage::counts::counts;
use attacks::leakage::{Line, Verdict};
use he_core::benchmarks::subjects::Subject;

use super::{Settings, TimingError};
use crate::device::emulator::{self, Program};
use crate::device::firmware_build::{self, Options};
use crate::device::opening::emulated;
use crate::planning::DEFAULT_SET as PARAMS;

/// What a board does: neither decoding in double precision nor publication, which are a
/// client's on a host.
pub const SUBJECTS: [Subject; 16] = [
    Subject::Encode,
    Subject::EncryptSecret,
    Subject::EncryptCompact,
    Subject::EncryptPublic,
    Subject::Decrypt,
    Subject::KeygenSecret,
    Subject::KeygenPublic,
    Subject::KeygenRelin,
    Subject::KeygenRotation,
    Subject::Add,
    Subject::MultiplyPlain,
    Subject::MultiplyWeights,
    Subject::MultiplyCt,
    Subject::Relinearize,
    Subject::Rescale,
    Subject::Rotate,
];

/// Draws of a quick run.
const QUICK: usize = 24;

/// An instruction takes 2^7 ns of the emulator's time: 3.2 ticks of the board's timer, so
/// that ticks tell instructions exactly.
const INSTRUCTION_NS_LOG2: u8 = 7;

/// One draw: instructions of the operation, and of operation and leak.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    subject: Subject,
    is_fixed: bool,
    operation: u64,
    control: u64,
}

/// Counts and tests subjects, one run of the emulator for each; `keep` is given the lines
/// of each.
///
/// # Errors
/// [`TimingError`].
pub fn measure(
    board: &str,
    subjects: &[Subject],
    settings: &Settings,
    mut keep: impl FnMut(Vec<Line>) -> Result<(), TimingError>,
) -> Result<(), TimingError> {
    emulated(board)?;
    let samples = settings.samples.unwrap_or(QUICK);
    if samples < 2 {
        return Err(TimingError::Few {
            got: samples,
            least: 2,
        });
    }
    let options = Options {
        board,
        model: None,
        params: PARAMS,
        features: &["bench"],
        inputs: None,
    };
    let image = firmware_build::build_program(&options, "timing")?;
    for &subject in subjects {
        let words = [
            samples.to_string(),
            (settings.seed as u32).to_string(),
            subject.name().to_owned(),
        ];
        let program = Program {
            image: &image,
            instruction_ns_log2: INSTRUCTION_NS_LOG2,
            arguments: &words,
        };
        let said = emulator::run_program(board, &program)?;
        let all = parse(&said).ok_or_else(|| TimingError::BrokeOff {
            board: board.to_owned(),
            last: said.lines().last().unwrap_or_default().to_owned(),
        })?;
        keep(lines(board, subject, &all))?;
    }
    Ok(())
}

fn lines(board: &str, subject: Subject, all: &[Count]) -> Vec<Line> {
    let fixed = all.iter().filter(|count| count.is_fixed).count();
    let line = |of: fn(&Count) -> u64, control| {
        let found = counts(&all.iter().map(of).collect::<Vec<_>>())?;
        Some(Line {
            experiment: "board".into(),
            operation: subject.name().into(),
            target: format!("qemu:{board} {}", PARAMS.name()),
            statistic: "variance".into(),
            value: found.variance,
            threshold: 0.0,
            samples: found.samples as u64,
            control,
            // Both classes were there.
            verdict: Verdict::of(found.variance, 0.0, fixed > 0 && fixed < all.len()),
            details: [
                ("clock".into(), "instructions".into()),
                ("varies".into(), subject.varies().name().into()),
                ("least".into(), found.least.into()),
                ("largest".into(), found.largest.into()),
            ]
            .into(),
        })
    };
    let both = [line(|c| c.operation, false), line(|c| c.control, true)];
    both.into_iter().flatten().collect()
}

/// Reads the lines, which end with `done`.
fn parse(said: &str) -> Option<Vec<Count>> {
    let mut counts = Vec::new();
    let mut lines = said.lines();
    for line in lines.by_ref() {
        let words: Vec<&str> = line.split(' ').collect();
        let ["time", name, class, operation, control] = words[..] else {
            return (line == "done" && lines.next().is_none()).then_some(counts);
        };
        counts.push(Count {
            subject: Subject::find(name)?,
            is_fixed: match class {
                "fixed" => true,
                "random" => false,
                _ => return None,
            },
            operation: operation.parse().ok()?,
            control: control.parse().ok()?,
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_judged() {
        let said = "time add fixed 1000 1500\ntime add random 1000 1700\ndone\n";
        let all = parse(said).unwrap();
        let [operation, control] = &lines("mps2-an386", Subject::Add, &all)[..] else {
            panic!("two lines");
        };
        assert_eq!((operation.value, operation.verdict), (0.0, Verdict::Pass));
        assert_eq!(
            (control.value, control.verdict, control.control),
            (10_000.0, Verdict::Leak, true)
        );
        // One class alone shows nothing.
        let one = parse("time add fixed 1000 1500\ndone\n").unwrap();
        let lines = lines("mps2-an386", Subject::Add, &one);
        assert_eq!(lines[0].verdict, Verdict::Inconclusive);
    }

    #[test]
    fn one_that_broke_off_is_none() {
        assert!(parse("time add fixed 1000 1500\n").is_none());
        assert!(parse("time add other 1000 1500\ndone\n").is_none());
        assert!(parse("time nothing fixed 1000 1500\ndone\n").is_none());
        assert!(parse("panic at src/x\ndone\n").is_none());
    }
}
