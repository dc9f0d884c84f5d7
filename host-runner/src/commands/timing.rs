//! `he-edge timing`: whether time depends on secrets, and what it tells.

use std::path::PathBuf;

use attacks::leakage::Line;
use clap::Args;
use he_core::benchmarks::subjects::Subject;

use super::output::{self, Bar};
use super::{Failure, parse_device};
use crate::device::Device;
use crate::planning::DEFAULT_SET;
use crate::report::text;
use crate::timing::{Settings, TimingError, board, host, observer, results};

/// Arguments of `timing`.
#[derive(Debug, Args)]
pub struct TimingArguments {
    /// `all`, `operations`, `stages`, `link`, `padding`, or one operation by its name.
    pub name: String,
    /// Directory for the results, which `report` shows. What was measured there before of
    /// the same is replaced.
    #[arg(long)]
    pub out: PathBuf,
    /// Where: `inproc` for this machine, `qemu` or `qemu:BOARD` for instructions on an
    /// emulated board.
    #[arg(long, default_value = "inproc", value_parser = parse_device)]
    pub device: Device,
    /// Measurements per operation, draws on a board, inferences per kind of `stages`,
    /// `link` and `padding`; without it a quick run. There is no verdict of dudect below 10,000.
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// The smallest leak that the bounded test is planned for, in percent of an
    /// operation's time.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = parse_percent)]
    pub smallest_leak: f64,
    /// Of everything random.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the lines of the run as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(percent),
        _ => Err("a share of the time is above 0 and at most 100".to_owned()),
    }
}

/// Runs `timing`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &TimingArguments) -> Result<(), Failure> {
    output::check(arguments.json.as_deref())?;
    // Before the work whose results go there.
    results::keep(&arguments.out, &[])?;
    let settings = Settings {
        samples: arguments.samples,
        smallest_leak: arguments.smallest_leak / 100.0,
        seed: arguments.seed,
    };
    let mut lines = Vec::new();
    let keep = |new: Vec<Line>| {
        results::keep(&arguments.out, &new)?;
        lines.extend(new);
        Ok(())
    };
    match &arguments.device {
        Device::InProcess => here(&arguments.name, &settings, keep)?,
        Device::Emulator { board } => {
            let subjects = on_board(&arguments.name)?;
            board::measure(board, &subjects, &settings, keep)?;
        }
        Device::Tcp { .. } | Device::Serial { .. } | Device::Nats { .. } => {
            return Err(Failure::NoBench {
                device: arguments.device.to_string(),
            });
        }
    }
    if let Some(path) = &arguments.json {
        let mut text = String::new();
        for line in &lines {
            let line = serde_json::to_string(line).map_err(|error| Failure::Write {
                path: path.clone(),
                source: error.into(),
            })?;
            text.push_str(&line);
            text.push('\n');
        }
        output::write(path, &text)?;
        if path.as_os_str() == output::STANDARD_OUTPUT {
            return Ok(());
        }
    }
    output::print(&table(&lines))
}

/// Measures on this machine.
fn here(
    name: &str,
    settings: &Settings,
    mut keep: impl FnMut(Vec<Line>) -> Result<(), TimingError>,
) -> Result<(), TimingError> {
    let subjects = match name {
        "all" | "operations" => Subject::CLIENT.to_vec(),
        "stages" | "link" | "padding" => Vec::new(),
        name => vec![Subject::find(name).ok_or_else(|| TimingError::Unknown {
            name: name.to_owned(),
        })?],
    };
    let mut bar = Bar::default();
    if !subjects.is_empty() {
        host::measure(DEFAULT_SET, &subjects, settings, &mut bar, &mut keep)?;
    }
    // Samples of operations are too many for whole inferences.
    let of_inferences = match name {
        "all" => Settings {
            samples: None,
            ..*settings
        },
        _ => *settings,
    };
    if matches!(name, "all" | "stages") {
        keep(observer::stages(&of_inferences, &mut bar)?)?;
    }
    if matches!(name, "all" | "link") {
        keep(observer::link(&of_inferences, &mut bar)?)?;
    }
    if matches!(name, "all" | "padding") {
        keep(observer::padding(
            &of_inferences,
            observer::PADDING,
            &mut bar,
        )?)?;
    }
    Ok(())
}

fn on_board(name: &str) -> Result<Vec<Subject>, TimingError> {
    let named = || name.to_owned();
    match name {
        "all" | "operations" => Ok(board::SUBJECTS.to_vec()),
        "stages" | "link" | "padding" => Err(TimingError::NotOnBoard { name: named() }),
        name => match Subject::find(name) {
            Some(subject) if board::SUBJECTS.contains(&subject) => Ok(vec![subject]),
            Some(_) => Err(TimingError::NotOnBoard { name: named() }),
            None => Err(TimingError::Unknown { name: named() }),
        },
    }
}

fn table(lines: &[Line]) -> String {
    let rows: Vec<[String; 6]> = lines.iter().map(row).collect();
    let header = [
        "operation",
        "on",
        "statistic",
        "value",
        "threshold",
        "verdict",
    ];
    let undemanded = lines.iter().filter(|line| !line.is_as_demanded()).count();
    let said = match undemanded {
        0 => "every control was caught, and nothing else leaks".to_owned(),
        count => format!("{count} lines are not as they should be"),
    };
    format!("{}\n{said}\n", text::table(header, &rows))
}

fn row(line: &Line) -> [String; 6] {
    let control = if line.control { ", control" } else { "" };
    let verdict = format!("{:?}", line.verdict).to_lowercase();
    [
        format!("{}{control}", line.operation),
        line.target.clone(),
        line.statistic.clone(),
        format!("{:.3}", line.value),
        format!("{:.3}", line.threshold),
        format!("{verdict} ({} samples)", line.samples),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        samples: Some(100),
        smallest_leak: 0.01,
        seed: 1,
    };

    #[test]
    fn mistyped_names_are_refused_with_those_there_are() {
        let error = here("encrpyt", &SETTINGS, |_| Ok(()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("encrpyt") && error.contains("encrypt_secret"),
            "{error}"
        );
        let error = on_board("publish_label").unwrap_err().to_string();
        assert!(
            error.contains("publish_label") && error.contains("rotate"),
            "{error}"
        );
        assert!(on_board("stages").is_err() && on_board("nothing").is_err());
        assert_eq!(on_board("all").unwrap(), board::SUBJECTS);
    }

    #[test]
    fn a_table_says_whether_all_is_as_it_should_be() {
        let mut lines = Vec::new();
        here("decrypt", &SETTINGS, |new| {
            lines.extend(new);
            Ok(())
        })
        .unwrap();
        let text = table(&lines);
        assert!(
            text.contains("decrypt, control") && text.contains("welch_t"),
            "{text}"
        );
        // Too few to catch anything, by dudect at least.
        assert!(text.contains("not as they should be"), "{text}");
    }

    #[test]
    fn shares_are_shares() {
        for text in ["0", "-1", "101", "much", "NaN"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
        assert_eq!(parse_percent("0.5"), Ok(0.5));
    }
}
