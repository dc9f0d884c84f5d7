//! What is finished of a run, on disk: `infer --resume FILE`.
//!
//! The first line says of which run it is; every other is one finished image, as JSON,
//! appended in one write as soon as the image is done. A process that is killed leaves at
//! most one torn line at the end, which is dropped. The file holds decrypted results, so
//! that only its owner may read it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use he_nn::model::Sample;
use he_nn::plan::{Packing, Sums, WeightMode};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::report::infer::Entry;
use crate::report::text::hex;

/// Version of the format.
const VERSION: u32 = 3;

/// How every ledger begins.
const BEGINNING: &[u8] = b"{\"ledger\":";

/// Pause between two commands to put on the disk what was written: what a loss of power
/// may cost. A killed process loses nothing.
const SYNC: Duration = Duration::from_secs(1);

/// What a run is known by. Whoever goes on with it must have the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunTerms {
    /// Version of the format.
    pub ledger: u32,
    /// The model's name.
    pub model: String,
    /// SHA-256 of the model file.
    pub model_sha256: String,
    /// SHA-256 of the samples of the split, and their labels.
    pub data_sha256: String,
    /// How weights are held.
    pub weights: WeightMode,
    /// Who adds up lanes.
    pub sums: Sums,
    /// How values are laid out.
    pub packing: Packing,
    /// The parameter set's fingerprint.
    pub params: u32,
    /// Fingerprint of the program, where one sample is evaluated at a time: a host's and a
    /// board's are told apart, and devices of the same are as good as each other.
    pub program: Option<u32>,
    /// Share of the answers that are evaluated again.
    pub audit: f64,
}

impl RunTerms {
    /// Version of the format of new ledgers.
    pub const VERSION: u32 = VERSION;
}

/// SHA-256 of bytes, as hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of samples with their labels.
#[must_use]
pub fn digest_of(samples: &[(Sample<'_>, u8)]) -> String {
    let mut hash = Sha256::new();
    for (sample, label) in samples {
        match sample {
            Sample::Pixels(pixels) => hash.update(pixels),
            Sample::Features(features) => {
                for feature in *features {
                    hash.update(feature.to_le_bytes());
                }
            }
        }
        hash.update([*label]);
    }
    hex(&hash.finalize())
}

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Reading or writing failed.
    #[error("the ledger {} cannot be used ({source}): name another file with --resume", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process goes on with it.
    #[error("the ledger {} is in use by another run: wait for its end, or name another file with --resume", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A file that is no ledger.
    #[error("{} is no ledger of a run: name another file with --resume", path.display())]
    None {
        /// The file.
        path: PathBuf,
    },
    /// A ledger of another run.
    #[error(
        "{} is the ledger of another run, whose {what} is {theirs} and not {ours}: name another file with --resume",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
        /// In the ledger.
        theirs: String,
        /// In this run.
        ours: String,
    },
    /// A line that is no entry.
    #[error(
        "line {line} of the ledger {} is damaged: take it out, and its image is done again", path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// An open ledger, locked against other processes.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    path: PathBuf,
    synced: Instant,
}

impl Ledger {
    /// Opens the ledger of a run, or begins it, and gives what is finished.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(path: &Path, terms: &RunTerms) -> Result<(Self, Vec<Entry>), LedgerError> {
        let failed = |source| LedgerError::File {
            path: path.into(),
            source,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(LedgerError::None { path: path.into() });
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LedgerError::Busy { path: path.into() },
            TryLockError::Error(source) => failed(source),
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        // What stands after the last end of a line was cut off.
        let whole = bytes.iter().rposition(|&byte| byte == b'\n');
        let whole = whole.map_or(0, |end| end + 1);
        let Some(text) = bytes.get(..whole).and_then(|b| str::from_utf8(b).ok()) else {
            return Err(LedgerError::None { path: path.into() });
        };
        let mut lines = (1..).zip(text.lines());
        let mut entries = Vec::new();
        match lines.next() {
            Some((_, first)) => {
                same_run(path, first, terms)?;
                for (line, text) in lines {
                    let entry = serde_json::from_str(text);
                    entries.push(entry.map_err(|_| LedgerError::Line {
                        path: path.into(),
                        line,
                    })?);
                }
                file.set_len(whole as u64).map_err(failed)?;
            }
            // Nothing whole: a new file, or one whose first line was cut off.
            None if bytes.iter().zip(BEGINNING).all(|(a, b)| a == b) => {
                file.set_len(0).map_err(failed)?;
            }
            None => return Err(LedgerError::None { path: path.into() }),
        }
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut ledger = Self {
            file,
            path: path.into(),
            synced: Instant::now(),
        };
        if whole == 0 {
            ledger.write(terms)?;
        }
        Ok((ledger, entries))
    }

    /// Adds a finished image.
    ///
    /// # Errors
    /// [`LedgerError::File`].
    pub fn append(&mut self, entry: &Entry) -> Result<(), LedgerError> {
        self.write(entry)
    }

    /// Where it stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, value: &impl Serialize) -> Result<(), LedgerError> {
        let mut line = serde_json::to_string(value).map_err(|e| self.failed(e.into()))?;
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|source| self.failed(source))?;
        if self.synced.elapsed() >= SYNC {
            self.sync()?;
        }
        Ok(())
    }

    /// Puts on the disk what was written.
    ///
    /// # Errors
    /// [`LedgerError::File`].
    pub fn sync(&mut self) -> Result<(), LedgerError> {
        self.synced = Instant::now();
        let synced = self.file.sync_data();
        synced.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> LedgerError {
        LedgerError::File {
            path: self.path.clone(),
            source,
        }
    }
}

/// Compares a ledger's first line with a run.
fn same_run(path: &Path, first: &str, terms: &RunTerms) -> Result<(), LedgerError> {
    let none = || LedgerError::None { path: path.into() };
    let theirs: Value = serde_json::from_str(first).map_err(|_| none())?;
    let ours = serde_json::to_value(terms).map_err(|_| none())?;
    let (Some(theirs), Some(ours)) = (theirs.as_object(), ours.as_object()) else {
        return Err(none());
    };
    if !theirs.contains_key("ledger") {
        return Err(none());
    }
    // A program differs where anything else does, which says more.
    let mut terms: Vec<_> = ours.iter().collect();
    terms.sort_by_key(|(key, _)| *key == "program");
    for (key, ours) in terms {
        let theirs = theirs.get(key).unwrap_or(&Value::Null);
        if theirs != ours {
            return Err(LedgerError::Other {
                path: path.into(),
                what: match &key[..] {
                    // A number that only programs compare.
                    "program" => "program (kind of device, parameters)".into(),
                    "ledger" => "version".into(),
                    key => key.replace('_', " "),
                },
                theirs: theirs.to_string(),
                ours: ours.to_string(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use he_nn::message::{Memory, Stage, TimeUnit};

    use super::*;
    use crate::report::infer::{Classified, Figures};

    fn terms() -> RunTerms {
        RunTerms {
            ledger: VERSION,
            model: "a".into(),
            model_sha256: digest(b"model"),
            data_sha256: digest_of(&[(Sample::Pixels(&[1, 2]), 3)]),
            weights: WeightMode::Plain,
            sums: Sums::Client,
            packing: Packing::Latency,
            params: 7,
            program: Some(9),
            audit: 0.25,
        }
    }

    fn classified() -> Classified {
        Classified {
            predicted: 3,
            plain_predicted: 3,
            max_logit_error: 0.1 + 0.2,
            allowed_error: None,
            beyond_training: false,
            logits: vec![-1.0, 1e-3, 7.25],
            seconds: 0.5,
        }
    }

    fn figures() -> Figures {
        Figures {
            bytes_up: 1 << 40,
            bytes_down: 2,
            key_bytes_up: 3,
            memory: Memory::default(),
            unit: TimeUnit::Nanoseconds,
            stages: vec![Stage {
                step: 1,
                time: u64::MAX,
            }],
            busy: Some(u64::MAX - 1),
            cpu: Some(Duration::from_nanos(1_234_567_890)),
            audited: true,
            padded: None,
        }
    }

    fn entry(index: usize) -> Entry {
        Entry {
            index,
            label: 1,
            answer: match index {
                0 => Err("no room: leave it out".into()),
                _ => Ok((classified(), figures())),
            },
            retries: 2,
            device: None,
            published: None,
            receipt: None,
        }
    }

    #[test]
    fn a_ledger_goes_on_wherever_it_was_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let (mut ledger, finished) = Ledger::open(&path, &terms()).unwrap();
        assert!(finished.is_empty());
        // Locked as long as it is open.
        let busy = Ledger::open(&path, &terms()).unwrap_err();
        assert!(matches!(busy, LedgerError::Busy { .. }), "{busy}");
        for index in 0..3 {
            ledger.append(&entry(index)).unwrap();
        }
        drop(ledger);
        let whole = fs::read(&path).unwrap();
        let mut last = 0;
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (mut ledger, finished) = Ledger::open(&path, &terms()).unwrap();
            let ends = whole[..length]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            assert_eq!(finished.len(), ends.saturating_sub(1));
            assert!(finished.len() >= last);
            let same = finished
                .iter()
                .zip(0..)
                .all(|(e, index)| *e == entry(index));
            assert!(same, "{finished:?}");
            last = finished.len();
            for index in finished.len()..3 {
                ledger.append(&entry(index)).unwrap();
            }
            drop(ledger);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {length}");
        }
        assert_eq!(last, 3);
    }

    #[test]
    fn what_is_no_ledger_of_this_run_is_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        drop(Ledger::open(&path, &terms()).unwrap());
        let before = fs::read(&path).unwrap();
        let others = [
            (
                "model",
                RunTerms {
                    model: "b".into(),
                    ..terms()
                },
            ),
            (
                "data sha256",
                RunTerms {
                    data_sha256: digest(b""),
                    ..terms()
                },
            ),
            (
                "weights",
                RunTerms {
                    weights: WeightMode::Encrypted,
                    ..terms()
                },
            ),
            (
                "sums",
                RunTerms {
                    sums: Sums::Evaluator,
                    ..terms()
                },
            ),
            (
                "packing",
                RunTerms {
                    packing: Packing::Batch,
                    ..terms()
                },
            ),
            (
                "params",
                RunTerms {
                    params: 8,
                    ..terms()
                },
            ),
            (
                "program (kind of device, parameters)",
                RunTerms {
                    program: None,
                    ..terms()
                },
            ),
            (
                "audit",
                RunTerms {
                    audit: 0.0,
                    ..terms()
                },
            ),
        ];
        for (what, other) in others {
            let error = Ledger::open(&path, &other).unwrap_err().to_string();
            assert!(error.contains(&format!("whose {what} is ")), "{error}");
            assert_eq!(fs::read(&path).unwrap(), before);
        }
        for text in ["notes\n", "notes", "[1]\n", "{\"a\":1}\n", "\u{ff}\n"] {
            fs::write(&path, text).unwrap();
            let error = Ledger::open(&path, &terms()).unwrap_err();
            assert!(matches!(error, LedgerError::None { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let mut torn = before;
        torn.extend_from_slice(b"{}\n");
        fs::write(&path, &torn).unwrap();
        let error = Ledger::open(&path, &terms()).unwrap_err();
        assert!(
            matches!(error, LedgerError::Line { line: 2, .. }),
            "{error}"
        );
        assert!(matches!(
            Ledger::open(directory.path(), &terms()).unwrap_err(),
            LedgerError::File { .. }
        ));
    }
}
