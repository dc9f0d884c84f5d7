//! The command as processes that a test signals and kills, and what a run through them must
//! leave: every image answered once, and right.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use he_nn::bundled;
use he_nn::model::Model;
use serde_json::Value;

use crate::networks;

/// The network of these runs: the smallest of the bundled ones.
pub const MODEL: &str = "pima-logreg";

/// Nothing that is waited for takes longer.
pub const LIMIT: Duration = Duration::from_secs(240);

/// Writes a table of samples like those of training, of which the command's training half
/// has `images` at least.
///
/// # Panics
/// If it cannot.
pub fn table(directory: &Path, images: usize) {
    let model = Model::parse(bundled::model(MODEL).unwrap()).unwrap();
    let mut text = String::new();
    for (at, row) in networks::rows(&model, 4 * images).iter().enumerate() {
        for feature in row {
            text.push_str(&format!("{feature},"));
        }
        text.push_str(&format!("{}\n", at % 2));
    }
    fs::write(directory.join("pima-indians-diabetes.csv"), text).unwrap();
}

/// Sends a signal to a process, by the shell, which every system has; `false` if there is no
/// such process.
///
/// # Panics
/// If there is no shell.
#[must_use]
pub fn signal(name: &str, process: &str) -> bool {
    let script = "kill -s \"$1\" \"$2\" 2>/dev/null";
    let mut kill = Command::new("sh");
    let sent = kill.args(["-c", script, "sh", name, process]).status();
    sent.unwrap().success()
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has ended.
    pub fn signal(&self, name: &str) {
        assert!(signal(name, &self.0.id().to_string()));
    }

    /// Whether it has ended.
    ///
    /// # Panics
    /// If the system does not say.
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Its status and what it said on standard error.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(&mut self) -> (ExitStatus, String) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < LIMIT, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        (status, said)
    }
}

/// The lines of the ledger in a directory after its first: images that are finished. A torn
/// line is none.
#[must_use]
pub fn finished(directory: &Path) -> usize {
    let text = fs::read(directory.join("ledger")).unwrap_or_default();
    let lines = text.iter().filter(|&&byte| byte == b'\n').count();
    lines.saturating_sub(1)
}

/// The document of a run in a directory, `out.json`, whose images are there once, and right,
/// each with its line in the ledger.
///
/// # Panics
/// If they are not.
#[must_use]
pub fn document(directory: &Path) -> Value {
    let text = fs::read_to_string(directory.join("out.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let images = document["images"].as_array().unwrap();
    let indices: BTreeSet<u64> = images
        .iter()
        .map(|i| i["index"].as_u64().unwrap())
        .collect();
    assert_eq!(indices.len(), images.len(), "answered twice");
    for image in images {
        assert_eq!(image["predicted"], image["plain_predicted"], "{image}");
    }
    let ledger = fs::read_to_string(directory.join("ledger")).unwrap();
    assert_eq!(ledger.lines().count(), 1 + images.len());
    document
}

/// The same of a run that has answered all of `images`.
///
/// # Panics
/// If it has not.
#[must_use]
pub fn whole_document(directory: &Path, images: usize) -> Value {
    let document = document(directory);
    assert_eq!(document["images"].as_array().unwrap().len(), images);
    assert_eq!(document["unfinished"], 0);
    document
}

/// Removes ledger and document, for a run from the beginning.
///
/// # Panics
/// If they are not there.
pub fn begin_anew(directory: &Path) {
    for name in ["ledger", "out.json"] {
        fs::remove_file(directory.join(name)).unwrap();
    }
}
