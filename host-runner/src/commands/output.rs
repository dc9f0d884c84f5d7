//! Standard output, files and bars.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use he_nn::progress::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::Failure;

/// The name of standard output where a file is due.
pub(super) const STANDARD_OUTPUT: &str = "-";

/// Checks that a file can be written, before the work whose result goes there.
///
/// # Errors
/// [`Failure::Write`].
pub fn check(path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path.filter(|path| *path != Path::new(STANDARD_OUTPUT)) else {
        return Ok(());
    };
    let failed = |source| Failure::Write {
        path: path.into(),
        source,
    };
    match path.metadata() {
        Ok(found) if found.is_dir() => Err(failed(io::ErrorKind::IsADirectory.into())),
        // Replaced as a whole, but what its owner has locked stays.
        Ok(found) if found.is_file() && found.permissions().readonly() => {
            Err(failed(io::ErrorKind::PermissionDenied.into()))
        }
        // A pipe or a device is opened when there is something to write.
        Ok(found) if !found.is_file() => Ok(()),
        _ => new_file(path).map(|_| ()).map_err(failed),
    }
}

/// A file beside `path` that is to replace it.
fn new_file(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // As other new files have them.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}

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
    let written = match json {
        Some(path) if path == Path::new(STANDARD_OUTPUT) => return write_json(path, report),
        Some(path) => write_json(path, report),
        None => Ok(()),
    };
    // The work is not lost with the file.
    print(&text()).and(written)
}

/// Writes `value` as one line of JSON to a file or to standard output.
fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string(value).map_err(|e| Failure::Write {
        path: path.into(),
        source: e.into(),
    })?;
    text.push('\n');
    write(path, &text)
}

/// Writes text to a file, as a whole, or to standard output.
///
/// # Errors
/// [`Failure::Write`].
pub fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if path == Path::new(STANDARD_OUTPUT) {
        return print(text);
    }
    write_bytes(path, text.as_bytes())
}

/// Writes bytes to a file, as a whole.
///
/// # Errors
/// [`Failure::Write`].
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |source| Failure::Write {
        path: path.into(),
        source,
    };
    let whole = path.is_file() || !path.exists();
    if !whole {
        // A pipe or a device is written to as it is.
        return fs::write(path, bytes).map_err(failed);
    }
    let mut file = new_file(path).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
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

/// Writes a line to standard error. Where nobody reads it any more there is nobody to
/// tell, and what was being done goes on.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
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
        self.0.set_position(0);
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
