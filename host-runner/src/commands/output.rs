//! Standard output, files and bars.

use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

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

/// How far the work is, on standard error: a bar on a terminal, elsewhere a line from
/// time to time.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    lines: Option<Lines>,
}

impl Default for Bar {
    fn default() -> Self {
        let template = "{msg:24} [{bar:40}] {percent:>3} %  {elapsed} (left: {eta})";
        let style = ProgressStyle::with_template(template);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            bar: ProgressBar::new(0).with_style(style.progress_chars("=> ")),
            lines: is_told_in_lines().then(Lines::start),
        }
    }
}

/// Whether standard error takes lines: what is a terminal has its bar.
fn is_told_in_lines() -> bool {
    let never = std::env::var_os(PROGRESS).is_some_and(|value| value == "never");
    !never && !io::stderr().is_terminal()
}

/// Before the first line, in seconds: who waits less is told nothing.
const FIRST_PAUSE: u64 = 20;

/// Between two lines, in seconds.
const PAUSE: u64 = 60;

/// Set to `never`, nothing is said of how far the work is.
const PROGRESS: &str = "HE_EDGE_PROGRESS";

/// What says lines while the work goes on, however long a step takes.
#[derive(Debug)]
struct Lines {
    status: Arc<Mutex<Status>>,
    /// Dropped, it ends the thread, which nobody waits for: its reader may be gone.
    _stop: Sender<()>,
}

/// What is being done.
#[derive(Debug)]
struct Status {
    is_at_work: bool,
    note: String,
    steps: u64,
    done: u64,
    begun: Instant,
}

impl Status {
    /// What is done, how fast, and what is left of it.
    fn line(&self) -> String {
        let took = self.begun.elapsed().as_secs_f64();
        let mut line = format!("{}, after {took:.0} s", self.note);
        if self.done > 0 && self.steps > self.done {
            let each = took / self.done as f64;
            let left = each * (self.steps - self.done) as f64;
            let percent = 100 * self.done / self.steps;
            line.push_str(&format!(": {percent} %, {left:.0} s left"));
        }
        line
    }
}

impl Lines {
    fn start() -> Self {
        let status = Arc::new(Mutex::new(Status {
            is_at_work: false,
            note: String::new(),
            steps: 0,
            done: 0,
            begun: Instant::now(),
        }));
        let (stop, stopped) = mpsc::channel();
        let seen = Arc::clone(&status);
        thread::spawn(move || {
            let mut pause = FIRST_PAUSE;
            loop {
                match stopped.recv_timeout(Duration::from_secs(pause)) {
                    Err(RecvTimeoutError::Timeout) => pause = PAUSE,
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
                // Not said under the lock, as whoever reads may take its time.
                let line = {
                    let status = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    (status.is_at_work && !status.note.is_empty()).then(|| status.line())
                };
                if let Some(line) = line {
                    say(line);
                }
            }
        });
        Self {
            status,
            _stop: stop,
        }
    }
}

impl Bar {
    fn tell(&self, change: impl FnOnce(&mut Status)) {
        if let Some(lines) = &self.lines {
            change(&mut lines.status.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Progress for Bar {
    fn start(&mut self, steps: u64) {
        self.bar.set_length(steps);
        self.bar.set_position(0);
        self.tell(|status| {
            status.is_at_work = true;
            (status.steps, status.done) = (steps, 0);
            status.begun = Instant::now();
        });
    }

    fn advance(&mut self, steps: u64) {
        self.bar.inc(steps);
        self.tell(|status| status.done += steps);
    }

    fn note(&mut self, text: &str) {
        self.bar.set_message(text.to_owned());
        self.tell(|status| {
            if !status.is_at_work {
                (status.steps, status.done) = (0, 0);
                status.begun = Instant::now();
            }
            status.is_at_work = true;
            status.note = text.to_owned();
        });
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
        self.tell(|status| status.is_at_work = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_done_and_what_is_left() {
        let mut status = Status {
            is_at_work: true,
            note: "sample 3 of 8".into(),
            steps: 8,
            done: 2,
            begun: Instant::now() - Duration::from_secs(10),
        };
        assert_eq!(status.line(), "sample 3 of 8, after 10 s: 25 %, 30 s left");
        status.done = 0;
        assert_eq!(status.line(), "sample 3 of 8, after 10 s");
    }
}
