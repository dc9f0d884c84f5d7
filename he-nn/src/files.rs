//! Files of a size that is known before they are read: a name on the command line may be
//! a pipe that nobody writes to, or a device without an end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads a file whole, if it is one and has at most `most` bytes.
///
/// # Errors
/// What the system says; one that says so where it is no file or larger.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, most)?.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        // It has grown since.
        return Err(too_large(bytes.len() as u64, most));
    }
    Ok(bytes)
}

/// Opens a file, if it is one and has at most `most` bytes, of which one more is read.
///
/// # Errors
/// As [`read`].
pub fn open(path: &Path, most: u64) -> io::Result<io::Take<File>> {
    // Before it is opened: that would wait for the other end of a pipe.
    check(&std::fs::metadata(path)?, most)?;
    let file = File::open(path)?;
    check(&file.metadata()?, most)?;
    Ok(file.take(most.saturating_add(1)))
}

fn check(found: &std::fs::Metadata, most: u64) -> io::Result<()> {
    if !found.is_file() {
        let what = if found.is_dir() {
            "it is a directory"
        } else {
            "it is a pipe or a device, of which nobody knows the end"
        };
        return Err(io::Error::other(what));
    }
    match found.len() <= most {
        true => Ok(()),
        false => Err(too_large(found.len(), most)),
    }
}

fn too_large(length: u64, most: u64) -> io::Error {
    io::Error::other(format!(
        "it has {length} bytes, and at most {most} are read"
    ))
}
