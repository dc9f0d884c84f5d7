//! Standard output and files: tables for people, JSON for programs.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use comfy_table::{Cell, CellAlignment, LineStyle, Table, presets};
use he_nn::progress::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Failure;

/// The name of standard output where a file is due.
const STANDARD_OUTPUT: &str = "-";

/// Presents a report: as JSON where a file is named for it, and as text unless the
/// JSON went to standard output.
///
/// # Errors
/// [`Failure::Write`].
pub fn present(
    json: Option<&Path>,
    report: &impl Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    if let Some(path) = json {
        write_json(path, report)?;
        if path == Path::new(STANDARD_OUTPUT) {
            return Ok(());
        }
    }
    print(&text())
}

/// Writes `value` as one line of JSON to a file or to standard output.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let failed = |source| Failure::Write {
        path: path.into(),
        source,
    };
    let mut text = serde_json::to_string(value).map_err(|e| failed(e.into()))?;
    text.push('\n');
    if path == Path::new(STANDARD_OUTPUT) {
        print(&text)
    } else {
        fs::write(path, text).map_err(failed)
    }
}

/// Writes text to standard output.
///
/// # Errors
/// [`Failure::Write`]; a reader that went away is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Write {
            path: PathBuf::from("standard output"),
            source: e,
        }),
        _ => Ok(()),
    }
}

/// A bar on standard error; nothing where that is not a terminal.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Default for Bar {
    fn default() -> Self {
        let template = "{msg:24} [{bar:40}] {percent:>3} %  {elapsed} (left: {eta})";
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::new(0).with_style(style.progress_chars("=> ")))
    }
}

impl Progress for Bar {
    fn start(&mut self, steps: u64) {
        self.0.set_length(steps);
    }

    fn advance(&mut self, steps: u64) {
        self.0.inc(steps);
    }

    fn note(&mut self, text: &str) {
        self.0.set_message(text.to_owned());
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A table of a name and a value per row.
#[must_use]
pub fn facts(rows: &[(&str, String)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in rows {
        table.add_row([Cell::new(name), Cell::new(value)]);
    }
    format!("{}\n", table.trim_fmt())
}

/// A table with a header; all columns but the first are aligned right.
#[must_use]
pub fn table<const C: usize>(header: [&str; C], rows: &[[String; C]]) -> String {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n", table.trim_fmt())
}

/// A count with thousands separated by spaces.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// Bytes in the unit that suits them.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("MB", 1e6), ("KB", 1e3), ("bytes", 1.0)];
    let count = count as f64;
    let unit = UNITS.iter().find(|(_, size)| count >= *size);
    match unit {
        Some((name, size)) if *size > 1.0 => format!("{:.1} {name}", count / size),
        _ => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(2_772_220), "2.8 MB");
    }
}
