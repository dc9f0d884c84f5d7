//! Records and pictures of attacks in a directory.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use attacks::record::{self, LineError, Picture, Record, Sink, SinkError};

/// The file of records, one JSON object per line.
pub const RECORDS: &str = "records.jsonl";

/// The ending of a picture's file.
const PICTURE: &str = "picture.json";

/// Why a directory of results is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The system failed.
    #[error("{} cannot be used ({source}): name another directory", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that is no record.
    #[error("{} holds what is no record ({source}): name another directory, or remove the line", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: LineError,
    },
    /// Lines of `timing`.
    #[error(transparent)]
    Timing(#[from] crate::timing::TimingError),
    /// A picture that is none.
    #[error("{} holds no picture ({source}): remove it", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// A directory of results, open for more.
#[derive(Debug)]
pub struct Results {
    directory: PathBuf,
    records: File,
}

impl Results {
    /// The records of a directory, which is left as it is. A last line that was cut short
    /// is left out.
    ///
    /// # Errors
    /// [`ResultsError`].
    pub fn records(directory: &Path) -> Result<Vec<Record>, ResultsError> {
        let path = directory.join(RECORDS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ResultsError::File { path, source }),
        };
        record::parse(&text).map_err(|source| ResultsError::Line { path, source })
    }

    /// Opens a directory, which is made if it is not there; with the records in it.
    /// What a run that was interrupted left of a line at the end is taken away.
    ///
    /// # Errors
    /// [`ResultsError`].
    pub fn open(directory: &Path) -> Result<(Self, Vec<Record>), ResultsError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ResultsError::File { path, source }
        };
        fs::create_dir_all(directory).map_err(failed(directory))?;
        let path = directory.join(RECORDS);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(failed(&path)(error)),
        };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let present = record::parse(&text[..whole]).map_err(|source| ResultsError::Line {
            path: path.clone(),
            source,
        })?;
        let records = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(failed(&path))?;
        records.set_len(whole as u64).map_err(failed(&path))?;
        let results = Self {
            directory: directory.to_owned(),
            records,
        };
        Ok((results, present))
    }
}

impl Sink for Results {
    fn append(&mut self, records: &[Record]) -> Result<(), SinkError> {
        let mut text = String::new();
        for record in records {
            text.push_str(&record.line()?);
            text.push('\n');
        }
        // In one piece, so that an interruption leaves a step or none of it.
        self.records.write_all(text.as_bytes())?;
        self.records.sync_data()?;
        Ok(())
    }

    fn picture(&mut self, name: &str, picture: &Picture) -> Result<(), SinkError> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        serde_json::to_writer(&mut file, picture)?;
        file.persist(self.directory.join(format!("{name}.{PICTURE}")))?;
        Ok(())
    }
}

/// The pictures of a directory, by name.
///
/// # Errors
/// [`ResultsError`].
pub fn pictures(directory: &Path) -> Result<Vec<(String, Picture)>, ResultsError> {
    let failed = |source| ResultsError::File {
        path: directory.to_owned(),
        source,
    };
    let mut pictures = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(name) = name.strip_suffix(&format!(".{PICTURE}")) else {
            continue;
        };
        let text = fs::read_to_string(&path).map_err(failed)?;
        let picture = serde_json::from_str(&text).map_err(|source| ResultsError::Picture {
            path: path.clone(),
            source,
        })?;
        pictures.push((name.to_owned(), picture));
    }
    pictures.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(pictures)
}
