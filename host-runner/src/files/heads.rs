//! What the heads of files say, and reading and writing files whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use he_core::Params;
use he_nn::plan::Packing;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{Container, FileError, Kind, Problem, finish, start};
use crate::client::printable;
use crate::planning;

/// The network and its plan, which both sides must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployed {
    /// Name of the model.
    pub model: String,
    /// CRC-32 of its file.
    pub model_crc: u32,
    /// Name of the parameter set.
    pub params: String,
    /// Its fingerprint.
    pub params_fingerprint: u32,
    /// How samples are laid out.
    pub packing: Packing,
    /// SHA-256 of the plan: order of work, forms, levels, scales and the model's checksum.
    pub plan: String,
}

impl Deployed {
    /// Checks that what a file is of is this.
    pub(crate) fn expect(&self, found: &Self) -> Result<(), Problem> {
        type Field = (&'static str, fn(&Deployed) -> String, &'static str);
        let fields: [Field; 4] = [
            (
                "model",
                |d| named_by(&d.model, d.model_crc),
                "name that model with --model",
            ),
            (
                "parameter set",
                |d| named_by(&d.params, d.params_fingerprint),
                "name that set with --params",
            ),
            (
                "packing",
                |d| format!("{:?}", d.packing).to_lowercase(),
                "name that packing with --packing",
            ),
            (
                "plan",
                |d| printable(&d.plan),
                "use the version of this program that wrote it",
            ),
        ];
        for (what, of, todo) in fields {
            let (theirs, ours) = (of(found), of(self));
            if theirs != ours {
                return Err(Problem::Mismatch {
                    what,
                    theirs,
                    ours,
                    todo,
                });
            }
        }
        Ok(())
    }

    /// The parameter set.
    pub(crate) fn params(&self) -> Result<&'static Params, Problem> {
        set_of(&self.params, self.params_fingerprint)
    }
}

/// A name and a checksum.
fn named_by(name: &str, number: u32) -> String {
    format!("{} ({number:08x})", printable(name))
}

/// The set of a fingerprint that a file calls so.
pub(crate) fn set_of(name: &str, fingerprint: u32) -> Result<&'static Params, Problem> {
    planning::set_of(fingerprint).ok_or_else(|| Problem::Params {
        name: printable(name),
        fingerprint,
    })
}

/// What an evaluator is given once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysHead {
    /// What they are for.
    pub deployed: Deployed,
    /// Name of the secret key.
    pub key: String,
}

/// A request, its result, or what the client notes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestHead {
    /// What it is for.
    pub deployed: Deployed,
    /// Name of the secret key.
    pub key: String,
    /// 16 random bytes.
    pub request: String,
    /// How many samples it has.
    pub samples: usize,
    /// Where it is a note: the nonce of its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<[u8; 24]>,
}

/// Reads a regular file of a kind, and its head.
pub(crate) fn read<H: DeserializeOwned>(
    path: &Path,
    kind: Kind,
) -> Result<(H, Container), FileError> {
    let read = || {
        let container = Container::parse(read_regular(path)?)?.expect(kind)?;
        Ok((container.head()?, container))
    };
    read().map_err(|problem: Problem| problem.at(path))
}

/// The bytes of a regular file: opening anything else might wait, and reading it not end.
pub(crate) fn read_regular(path: &Path) -> Result<Vec<u8>, Problem> {
    let unread = |error| Problem::System {
        doing: "read",
        error,
    };
    let found = fs::metadata(path).map_err(unread)?;
    if !found.is_file() {
        return Err(Problem::NoFile);
    }
    let read = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::new();
        // One more, so that a file that grows meanwhile has another length.
        file.take(length.saturating_add(1))
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(unread)
}

/// Writes a file as a whole, durably; how many bytes it has.
pub(crate) fn write(
    path: &Path,
    kind: Kind,
    head: &impl Serialize,
    body: &[u8],
) -> Result<u64, FileError> {
    check_writable(path)?;
    stored(path, kind, head, body, |folder| {
        let mut builder = tempfile::Builder::new();
        // As other new files have them.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(folder)
    })
}

/// The same of a file that is its owner's alone, and must not be there yet.
pub(crate) fn write_new(
    path: &Path,
    kind: Kind,
    head: &impl Serialize,
    body: &[u8],
) -> Result<u64, FileError> {
    if path.symlink_metadata().is_ok() {
        return Err(Problem::Exists.at(path));
    }
    write_again(path, kind, head, body)
}

/// The same of a file that is its owner's alone, in the place of what is there.
pub(crate) fn write_again(
    path: &Path,
    kind: Kind,
    head: &impl Serialize,
    body: &[u8],
) -> Result<u64, FileError> {
    stored(path, kind, head, body, |folder| {
        tempfile::Builder::new().tempfile_in(folder)
    })
}

fn stored(
    path: &Path,
    kind: Kind,
    head: &impl Serialize,
    body: &[u8],
    made_in: impl FnOnce(&Path) -> io::Result<NamedTempFile>,
) -> Result<u64, FileError> {
    let stored = || {
        let bytes = finish(start(kind, head)?, body);
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut file = made_in(folder)?;
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(bytes.len() as u64)
    };
    stored().map_err(|error: io::Error| unwritten(error).at(path))
}

/// Checks before work begins that a file can stand at a path, and what is there is one.
pub(crate) fn check_writable(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(Problem::NoFile.at(path)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritten(error).at(path)),
        _ => Ok(()),
    }
}

pub(crate) const fn unwritten(error: io::Error) -> Problem {
    Problem::System {
        doing: "written",
        error,
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
