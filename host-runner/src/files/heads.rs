//! What the heads of files say, and reading and writing files whole.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use he_core::Params;
use he_nn::plan::Packing;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{
    Container, FileError, Kind, LENGTH, Layout, MAGIC, MAX_HEAD, PREFIX, Problem, finish, head_of,
    start,
};
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
                    theirs: theirs.into(),
                    ours: ours.into(),
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

/// The head of a regular file of a kind, of which nothing else is looked at: who acts on it
/// reads the file.
pub(crate) fn read_head<H: DeserializeOwned>(path: &Path, kind: Kind) -> Result<H, FileError> {
    let of_begin = || {
        let (_, length, begin) = open_regular(path)?;
        let layout = Layout::of(&begin, length)?;
        if layout.kind != kind as u16 {
            return Err(Problem::Foreign);
        }
        head_of(&begin[layout.head])
    };
    // What is wrong with a damaged one is told by all of it.
    of_begin().or_else(|_| Ok(read::<H>(path, kind)?.0))
}

/// Most bytes of a file: 25,000 samples of `mnist-mlp64` in a request.
const MAX_BYTES: u64 = 1 << 34;

/// Most bytes of one that is no container.
const MAX_OTHER_BYTES: u64 = 1 << 32;

/// The bytes of a regular file, not before its beginning says that it is so long.
pub(crate) fn read_regular(path: &Path) -> Result<Vec<u8>, Problem> {
    let (file, length, mut bytes) = open_regular(path)?;
    let most = match bytes.starts_with(&MAGIC) {
        true => {
            Layout::of(&bytes, length)?;
            MAX_BYTES
        }
        false => MAX_OTHER_BYTES,
    };
    if length > most {
        return Err(Problem::Large { most, got: length });
    }
    let left = length.saturating_sub(bytes.len() as u64);
    let read = || {
        bytes.try_reserve_exact(left as usize)?;
        // One more, so that a file that grows meanwhile has another length.
        file.take(left.saturating_add(1)).read_to_end(&mut bytes)
    };
    read().map_err(unread)?;
    Ok(bytes)
}

/// A regular file, its length and its beginning, in which there is room for a head. Opening
/// anything else might wait, and reading it not end.
fn open_regular(path: &Path) -> Result<(File, u64, Vec<u8>), Problem> {
    if !fs::metadata(path).map_err(unread)?.is_file() {
        return Err(Problem::NoFile);
    }
    let open = || {
        let file = File::open(path)?;
        let found = file.metadata()?;
        let mut begin = Vec::new();
        let room = (PREFIX + MAX_HEAD + LENGTH) as u64;
        (&file)
            .take(room.min(found.len()))
            .read_to_end(&mut begin)?;
        Ok((file, found, begin))
    };
    let (file, found, begin) = open().map_err(unread)?;
    match found.is_file() {
        true => Ok((file, found.len(), begin)),
        false => Err(Problem::NoFile),
    }
}

const fn unread(error: io::Error) -> Problem {
    Problem::System {
        doing: "read",
        error,
    }
}

/// Writes a file as a whole, durably; how many bytes it has.
pub(crate) fn write(
    path: &Path,
    kind: Kind,
    head: &impl Serialize,
    body: &[u8],
) -> Result<u64, FileError> {
    check_writable(path)?;
    stored(path, kind, head, body, Place::Any, |folder| {
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
    stored(path, kind, head, body, Place::Empty, |folder| {
        tempfile::Builder::new().tempfile_in(folder)
    })
}

/// The same of a file that is its owner's alone, in the place of what is there.
pub(crate) fn write_again(
    path: &Path,
    kind: Kind,
    head: &impl Serialize,
    body: &[u8],
) -> Result<u64, FileError> {
    stored(path, kind, head, body, Place::Any, |folder| {
        tempfile::Builder::new().tempfile_in(folder)
    })
}

/// What may be where a file is put.
enum Place {
    /// Nothing, whoever comes in between.
    Empty,
    /// A file that is replaced.
    Any,
}

fn stored(
    path: &Path,
    kind: Kind,
    head: &impl Serialize,
    body: &[u8],
    place: Place,
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
        match place {
            Place::Empty => file.persist_noclobber(path)?,
            Place::Any => file.persist(path)?,
        };
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(bytes.len() as u64)
    };
    stored().map_err(|error: io::Error| unwritten(error).at(path))
}

/// Checks before work begins that a file can stand at a path, and that what is there is
/// one, and none that cannot be made again.
pub(crate) fn check_writable(path: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => Err(Problem::NoFile.at(path)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unwritten(error).at(path)),
        Err(_) => Ok(()),
        Ok(_) => check_kept(path),
    }
}

/// Refuses a path at which keys or notes are.
fn check_kept(path: &Path) -> Result<(), FileError> {
    // What cannot be read is not known to be one.
    let begin = open_regular(path).map(|(_, _, begin)| begin);
    let found = begin.ok().and_then(|begin| {
        let rest = begin.strip_prefix(&MAGIC)?;
        let &[_, _, k0, k1, ..] = rest else {
            return None;
        };
        Kind::of(u16::from_le_bytes([k0, k1]))
    });
    match found {
        Some(kind @ (Kind::SealedKey | Kind::EvaluationKeys | Kind::Note)) => {
            Err(Problem::Kept(kind).at(path))
        }
        _ => Ok(()),
    }
}

/// Checks before work begins that what is to be written is none of the files that are read
/// or written besides, under whatever name, and no keys and no note.
///
/// # Errors
/// [`FileError`] with [`Problem::Input`] or [`Problem::Kept`].
pub fn check_output(out: &Path, others: &[&Path]) -> Result<(), FileError> {
    match others.iter().find(|other| is_same(out, other)) {
        Some(other) => Err(Problem::Input(other.to_path_buf()).at(out)),
        None => check_kept(out),
    }
}

/// Whether two paths name one file.
fn is_same(a: &Path, b: &Path) -> bool {
    let is_one = match (fs::metadata(a), fs::metadata(b)) {
        #[cfg(unix)]
        (Ok(a), Ok(b)) => {
            use std::os::unix::fs::MetadataExt;
            (a.dev(), a.ino()) == (b.dev(), b.ino())
        }
        #[cfg(not(unix))]
        (Ok(_), Ok(_)) => a.canonicalize().ok() == b.canonicalize().ok(),
        _ => false,
    };
    is_one || a == b
}

pub(crate) const fn unwritten(error: io::Error) -> Problem {
    Problem::System {
        doing: "written",
        error,
    }
}
