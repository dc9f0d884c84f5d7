//! A file that one process holds, and replaces as a whole.
//!
//! The new content is written beside it, synced, locked and renamed over it, and the
//! directory is synced. So a crash between any two system calls leaves the old content
//! or the new one. What it may also leave beside it, a new version that did not come into
//! its place, is removed when the file is opened next, and not opened itself.
//!
//! The lock lies on the file itself and lasts until the next version stands in its
//! place, locked. The directory is resolved when the file is opened. Under two names it
//! could be replaced under one and kept under the other, so symbolic and hard links are
//! refused, and before it is replaced, the file at the path must still be the one that
//! is locked.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Why a file cannot be held or replaced.
#[derive(Debug, thiserror::Error)]
#[error("the {what} {} {problem}", path.display())]
pub struct HeldError {
    /// What it is, in a word.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a file that is to be held.
#[derive(Debug)]
pub enum Problem {
    /// The file system does not do it.
    System {
        /// What was to be done.
        doing: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// Another process holds it.
    InUse,
    /// It has another name too, or is no file.
    Link(&'static str),
    /// It is called as the next version of a file is.
    Name,
    /// Something else stands where it was when it was opened.
    Replaced,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { doing, error } => write!(f, "cannot be {doing}: {error}"),
            Self::InUse => f.write_str("is in use by another process"),
            Self::Link(what) => {
                write!(
                    f,
                    "is {what}: name the file itself, which must have one name"
                )
            }
            Self::Name => f.write_str(
                "is called as what a process leaves behind that was ended: such names (.NAME.next) are removed, give it another",
            ),
            Self::Replaced => f.write_str("has been replaced or removed while it was in use"),
        }
    }
}

/// What tells a file from a copy of it: number and birth of its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number of the inode; a number is given again once it is free.
    pub inode: u64,
    /// Nanoseconds from 1970 to its birth; 0 where the file system does not say.
    pub born: u64,
}

impl Identity {
    /// Of an open file.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let born = found.created().ok();
        let born = born.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            inode: inode(&found),
            born: born.map_or(0, |time| time.as_nanos() as u64),
        })
    }
}

/// A file that is held.
#[derive(Debug)]
pub struct Held {
    what: &'static str,
    /// In a directory that is no link.
    path: PathBuf,
    /// The file at `path`, locked as long as this lives.
    file: File,
}

impl Held {
    /// Makes a file that there must not be yet, with what `content` makes for the file
    /// that it will be. Nobody else may read it.
    ///
    /// # Errors
    /// [`HeldError`].
    pub fn create(
        what: &'static str,
        path: &Path,
        content: impl FnOnce(&File) -> io::Result<Vec<u8>>,
    ) -> Result<Self, HeldError> {
        let path = resolve(what, path)?;
        check_left_over(what, &path)?;
        let file =
            store(&path, content, true).map_err(|error| system(what, &path, "made", error))?;
        Ok(Self { what, path, file })
    }

    /// Opens a file and locks it.
    ///
    /// # Errors
    /// [`HeldError`].
    pub fn open(what: &'static str, path: &Path) -> Result<Self, HeldError> {
        let path = resolve(what, path)?;
        // Before it is opened: opening a pipe would wait for its other end.
        check_name(what, &path)?;
        check_left_over(what, &path)?;
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.map_err(|error| system(what, &path, "read", error))?;
        let problem = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => Some(Problem::InUse),
            Err(TryLockError::Error(error)) => Some(Problem::System {
                doing: "locked",
                error,
            }),
        };
        if let Some(problem) = problem {
            return Err(HeldError {
                what,
                path,
                problem,
            });
        }
        let held = Self { what, path, file };
        // Another process may have replaced it since it was opened.
        held.check()?;
        // Who replaces it holds the lock: what lies there is nobody's.
        remove_left_overs(&held.path);
        Ok(held)
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Its first bytes, `most` at most.
    ///
    /// # Errors
    /// [`HeldError`].
    pub fn read(&self, most: u64) -> Result<Vec<u8>, HeldError> {
        let mut bytes = Vec::new();
        let read = (&self.file).take(most).read_to_end(&mut bytes);
        read.map_err(|error| system(self.what, &self.path, "read", error))?;
        Ok(bytes)
    }

    /// Replaces it by what `content` makes for the file that it will be. When this
    /// returns, that is durable; where it fails, it may be so or not.
    ///
    /// # Errors
    /// [`HeldError`].
    pub fn replace(
        &mut self,
        content: impl FnOnce(&File) -> io::Result<Vec<u8>>,
    ) -> Result<(), HeldError> {
        self.check()?;
        // Locked before it stands there; the old one is let go afterwards.
        self.file = store(&self.path, content, false)
            .map_err(|error| system(self.what, &self.path, "written", error))?;
        Ok(())
    }

    /// Checks that what stands at the path is the file that is held.
    fn check(&self) -> Result<(), HeldError> {
        let replaced = || HeldError {
            what: self.what,
            path: self.path.clone(),
            problem: Problem::Replaced,
        };
        let found = check_name(self.what, &self.path).map_err(|error| match error.problem {
            Problem::System { error, .. } if error.kind() == io::ErrorKind::NotFound => replaced(),
            _ => error,
        })?;
        let held = self.file.metadata();
        let held = held.map_err(|error| system(self.what, &self.path, "read", error))?;
        if same(&found, &held) {
            Ok(())
        } else {
            Err(replaced())
        }
    }
}

fn system(what: &'static str, path: &Path, doing: &'static str, error: io::Error) -> HeldError {
    HeldError {
        what,
        path: path.to_owned(),
        problem: Problem::System { doing, error },
    }
}

/// The path with its directory resolved, so that it names one place for good.
fn resolve(what: &'static str, path: &Path) -> Result<PathBuf, HeldError> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| {
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        system(what, path, "found", error)
    })?;
    let folder = folder.canonicalize();
    let folder = folder.map_err(|error| system(what, path, "found", error))?;
    Ok(folder.join(name))
}

/// Checks that a path is a file with no other name; what is known of it.
fn check_name(what: &'static str, path: &Path) -> Result<Metadata, HeldError> {
    let found = std::fs::symlink_metadata(path);
    let found = found.map_err(|error| system(what, path, "read", error))?;
    let link = if found.is_symlink() {
        "a symbolic link"
    } else if !found.is_file() {
        "no file"
    } else if links(&found) > 1 {
        // None is what another process has just replaced.
        "a file with more names than this (hard links)"
    } else {
        return Ok(found);
    };
    Err(HeldError {
        what,
        path: path.to_owned(),
        problem: Problem::Link(link),
    })
}

#[cfg(unix)]
fn links(found: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(found)
}

#[cfg(unix)]
fn inode(found: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(found)
}

#[cfg(unix)]
fn same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Elsewhere the standard library tells none of the three.
#[cfg(not(unix))]
const fn links(_: &Metadata) -> u64 {
    1
}

#[cfg(not(unix))]
const fn inode(_: &Metadata) -> u64 {
    0
}

#[cfg(not(unix))]
const fn same(_: &Metadata, _: &Metadata) -> bool {
    true
}

/// Around the name of a file in that of its next version.
const BEFORE: &str = ".";
const AFTER: &str = ".next";

/// Whether a path is a version of a file that did not come into its place: of the file
/// called so, if a name is given.
fn is_left_over(path: &Path, name: Option<&str>) -> bool {
    let found = path.file_name().unwrap_or_default().to_string_lossy();
    let found = found.strip_prefix(BEFORE);
    let Some(found) = found.and_then(|found| found.strip_suffix(AFTER)) else {
        return false;
    };
    // What follows the name has no dot: `.key.new.x.next` is none of `key`.
    let of = found.rsplit_once('.').map(|(name, _)| name);
    name.is_none_or(|name| of == Some(name))
}

/// Refuses a path that is called so.
fn check_left_over(what: &'static str, path: &Path) -> Result<(), HeldError> {
    match is_left_over(path, None) {
        false => Ok(()),
        true => Err(HeldError {
            what,
            path: path.to_owned(),
            problem: Problem::Name,
        }),
    }
}

/// Removes such versions, as far as that is possible.
fn remove_left_overs(path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(entries) = path.parent().and_then(|folder| folder.read_dir().ok()) else {
        return;
    };
    for entry in entries.flatten() {
        if is_left_over(&entry.path(), Some(&name)) {
            // Where it stays, it is still not opened.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Replaces the file as a whole, durably; the new one, locked. It is its owner's alone.
fn store(
    path: &Path,
    content: impl FnOnce(&File) -> io::Result<Vec<u8>>,
    new: bool,
) -> io::Result<File> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut file = tempfile::Builder::new()
        .prefix(&format!("{BEFORE}{name}."))
        .suffix(AFTER)
        .tempfile_in(folder)?;
    let content = content(file.as_file())?;
    file.write_all(&content)?;
    file.as_file().sync_all()?;
    file.as_file().try_lock()?;
    let file = if new {
        file.persist_noclobber(path)?
    } else {
        file.persist(path)?
    };
    // The rename itself lies in the directory.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What could not be opened again is not made.
    #[test]
    fn a_name_of_a_next_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".x.next", ".key.ab.next"] {
            let path = folder.path().join(name);
            let made = Held::create("key", &path, |_| Ok(vec![1])).unwrap_err();
            assert!(matches!(made.problem, Problem::Name), "{made}");
            assert!(!path.exists());
            std::fs::write(&path, [1]).unwrap();
            let opened = Held::open("key", &path).unwrap_err();
            assert!(matches!(opened.problem, Problem::Name), "{opened}");
        }
        Held::create("key", &folder.path().join("x.next"), |_| Ok(vec![1])).unwrap();
    }

    /// What another file's next version is called is left alone, and so is everything else.
    #[test]
    fn only_next_versions_of_the_file_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        drop(Held::create("key", &path, |_| Ok(vec![1])).unwrap());
        for name in [
            ".key.ab.next",
            ".key.new.ab.next",
            ".keys.ab.next",
            "key.ab.next",
        ] {
            std::fs::write(folder.path().join(name), [2]).unwrap();
        }
        let opened = (0..1000).find_map(|_| {
            let opened = Held::open("key", &path);
            // A process that another test starts may hold the lock for a moment.
            std::thread::sleep(std::time::Duration::from_millis(
                u64::from(opened.is_err()) * 5,
            ));
            opened.ok()
        });
        assert_eq!(opened.unwrap().read(9).unwrap(), [1]);
        let left = std::fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(
            left,
            [".key.new.ab.next", ".keys.ab.next", "key", "key.ab.next"]
        );
    }
}
