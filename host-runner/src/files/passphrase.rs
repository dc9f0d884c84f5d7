//! The passphrase of a sealed key.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The environment variable that may hold it.
pub const VARIABLE: &str = "HE_EDGE_PASSPHRASE";

/// Most bytes of one.
const MOST: u64 = 1024;

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// Its file cannot be read.
    #[error("the passphrase cannot be read from {} ({error}): name another file", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Nobody can be asked.
    #[error(
        "a passphrase is needed and nobody is at a terminal: name its file with --passphrase-file, or put it into the environment variable {VARIABLE}"
    )]
    NoTerminal,
    /// The terminal did not give one.
    #[error(
        "the passphrase cannot be read from the terminal ({0}): name its file with --passphrase-file"
    )]
    Terminal(io::Error),
    /// Of no bytes.
    #[error("the passphrase is empty: choose one that nobody guesses")]
    Empty,
    /// Of too many bytes.
    #[error("the passphrase has more than {MOST} bytes: choose a shorter one")]
    Long,
    /// Entered twice, and not the same.
    #[error("the two passphrases differ: enter the same one twice")]
    Differ,
}

/// A passphrase. Erased when dropped, never printed.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl Passphrase {
    /// Takes bytes over.
    ///
    /// # Errors
    /// [`PassphraseError::Empty`], [`PassphraseError::Long`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, PassphraseError> {
        let bytes = Zeroizing::new(bytes);
        match bytes.len() as u64 {
            0 => Err(PassphraseError::Empty),
            length if length > MOST => Err(PassphraseError::Long),
            _ => Ok(Self(bytes)),
        }
    }

    /// The first line of a file, which may be a pipe.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn from_file(path: &Path) -> Result<Self, PassphraseError> {
        // Of the size that it may have, so that no smaller copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize + 3));
        let read = File::open(path).and_then(|file| file.take(MOST + 2).read_to_end(&mut bytes));
        read.map_err(|error| PassphraseError::File {
            path: path.to_owned(),
            error,
        })?;
        let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Self::new(line.to_vec())
    }

    /// From the file that is named, the environment variable [`VARIABLE`], or the
    /// terminal, where it is entered twice if it is `new`.
    ///
    /// # Errors
    /// [`PassphraseError`].
    pub fn find(file: Option<&Path>, new: bool) -> Result<Self, PassphraseError> {
        if let Some(path) = file {
            return Self::from_file(path);
        }
        if let Some(value) = std::env::var_os(VARIABLE) {
            return Self::new(value.into_encoded_bytes());
        }
        if !io::stdin().is_terminal() {
            return Err(PassphraseError::NoTerminal);
        }
        let first = Self::ask("passphrase of the key: ")?;
        if new && first.0 != Self::ask("the same again: ")?.0 {
            return Err(PassphraseError::Differ);
        }
        Ok(first)
    }

    fn ask(prompt: &str) -> Result<Self, PassphraseError> {
        let line = rpassword::prompt_password(prompt).map_err(PassphraseError::Terminal)?;
        Self::new(line.into_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
