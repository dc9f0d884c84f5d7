//! Downloads data sets: from mirrors, verified by their digests, continued where a
//! download was cut off.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use he_nn::progress::Progress;
use serde::Serialize;
use sha2::{Digest, Sha256};
use ureq::Agent;

use crate::report::text::hex;

/// How long a mirror may take to connect and to begin to answer, and may say nothing.
const PATIENCE: Duration = Duration::from_secs(30);

/// A data set.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name, and that of its directory.
    pub name: &'static str,
    /// Where its files are; each mirror has all of them.
    pub mirrors: &'static [&'static str],
    /// Its files.
    pub files: &'static [SourceFile],
}

/// One file of it.
#[derive(Clone, Copy, Debug)]
pub struct SourceFile {
    /// Its name at the mirror.
    pub remote: &'static str,
    /// Its name here.
    pub name: &'static str,
    /// Its length.
    pub bytes: u64,
    /// Its digest, in hexadecimal digits.
    pub sha256: &'static str,
}

const fn file(name: &'static str, bytes: u64, sha256: &'static str) -> SourceFile {
    SourceFile {
        remote: name,
        name,
        bytes,
        sha256,
    }
}

/// Every data set. The digests are those that others publish for these files.
pub const SOURCES: &[Source] = &[
    Source {
        name: "mnist",
        mirrors: &[
            "https://storage.googleapis.com/cvdf-datasets/mnist",
            "https://ossci-datasets.s3.amazonaws.com/mnist",
        ],
        files: &[
            file(
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            file(
                "train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            file(
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            file(
                "t10k-labels-idx1-ubyte.gz",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ],
    },
    Source {
        name: "fashion-mnist",
        mirrors: &[
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        ],
        files: &[
            file(
                "train-images-idx3-ubyte.gz",
                26_421_880,
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            file(
                "train-labels-idx1-ubyte.gz",
                29_515,
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            file(
                "t10k-images-idx3-ubyte.gz",
                4_422_102,
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            file(
                "t10k-labels-idx1-ubyte.gz",
                5_148,
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ],
    },
    Source {
        name: "pima-diabetes",
        mirrors: &["https://raw.githubusercontent.com/jbrownlee/Datasets/master"],
        files: &[SourceFile {
            remote: "pima-indians-diabetes.data.csv",
            name: "pima-indians-diabetes.csv",
            bytes: 23_278,
            sha256: "6bfe5d0f379d17a0e0819b996407e3c09bf80febd4287f2ed212190dfff154af",
        }],
    },
    Source {
        name: "cifar-10",
        mirrors: &[
            "https://www.cs.toronto.edu/~kriz",
            "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10",
        ],
        files: &[file(
            "cifar-10-binary.tar.gz",
            170_052_171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        )],
    },
];

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A data set nobody knows.
    #[error(
        "there is no data set {name}: use one of {}",
        SOURCES.iter().map(|source| source.name).collect::<Vec<_>>().join(", ")
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// What comes cannot be kept.
    #[error("{} cannot be written ({source}): name another directory", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process fetches it.
    #[error("{} is being written by another process: wait for it", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// No mirror gave the file.
    #[error(
        "{file} did not come: {}; what has come is kept, so run again, or name another mirror with --mirror",
        tries.join("; ")
    )]
    Mirrors {
        /// The file.
        file: &'static str,
        /// What each mirror did.
        tries: Vec<String>,
    },
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its digest.
    pub sha256: &'static str,
    /// What came over the network; 0 where the file was there.
    pub bytes_fetched: u64,
    /// The mirror that gave the last of it.
    pub mirror: Option<String>,
}

/// The data set of this name.
///
/// # Errors
/// [`FetchError::Unknown`].
pub fn source(name: &str) -> Result<&'static Source, FetchError> {
    let found = SOURCES.iter().find(|source| source.name == name);
    found.ok_or_else(|| FetchError::Unknown {
        name: name.to_owned(),
    })
}

/// Fetches what is missing of a data set into a directory of its name, from `mirrors`
/// where some are named and from the known ones otherwise.
///
/// # Errors
/// [`FetchError`] of the first file that did not come; those before it stay.
pub fn fetch(
    source: &Source,
    mirrors: &[String],
    root: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<Fetched>, FetchError> {
    let directory = root.join(source.name);
    fs::create_dir_all(&directory).map_err(|error| FetchError::Keep {
        path: directory.clone(),
        source: error,
    })?;
    let known = source.mirrors.iter().map(|&mirror| mirror.to_owned());
    let mirrors = match mirrors {
        [] => known.collect(),
        named => named.to_vec(),
    };
    let agent: Agent = Agent::config_builder()
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_recv_body(None)
        .timeout_per_read(Some(PATIENCE))
        .build()
        .into();
    let files = source.files.iter();
    let fetched = files.map(|file| one(&agent, file, &mirrors, &directory, progress));
    fetched.collect()
}

/// One file, from the first mirror that gives it.
fn one(
    agent: &Agent,
    file: &SourceFile,
    mirrors: &[String],
    directory: &Path,
    progress: &mut dyn Progress,
) -> Result<Fetched, FetchError> {
    let path = directory.join(file.name);
    let keep = |source| FetchError::Keep {
        path: path.clone(),
        source,
    };
    let fetched = |bytes_fetched, mirror| Fetched {
        path: path.clone(),
        bytes: file.bytes,
        sha256: file.sha256,
        bytes_fetched,
        mirror,
    };
    if is_whole(&path, file).map_err(keep)? {
        return Ok(fetched(0, None));
    }
    let part = directory.join(format!("{}.part", file.name));
    let (mut tries, mut came) = (Vec::new(), 0);
    for mirror in mirrors {
        let url = format!("{}/{}", mirror.trim_end_matches('/'), file.remote);
        progress.note(file.name);
        loop {
            let resumed = part.metadata().is_ok_and(|found| found.len() > 0);
            progress.start(file.bytes);
            let outcome = transfer(agent, &url, file.bytes, &part, progress);
            progress.finish();
            let (kept, more, failed) = match outcome {
                Ok((kept, more)) => (Some(kept), more, None),
                Err(Transfer::Keep(source)) => {
                    return Err(FetchError::Keep { path: part, source });
                }
                Err(Transfer::Busy) => return Err(FetchError::Busy { path: part }),
                Err(Transfer::Remote { came, why }) => (None, came, Some(why)),
            };
            came += more;
            if is_whole(&part, file).map_err(keep)? {
                if let Some(kept) = &kept {
                    kept.sync_all().map_err(keep)?;
                }
                fs::rename(&part, &path).map_err(keep)?;
                return Ok(fetched(came, Some(mirror.clone())));
            }
            let length = part.metadata().map_or(0, |found| found.len());
            // What is as long as the file and another must not be gone on with.
            let other = length >= file.bytes;
            if other {
                fs::remove_file(&part).map_err(keep)?;
                // What another mirror left of it may be what is wrong.
                if resumed {
                    continue;
                }
            }
            tries.push(match (failed, other) {
                (_, true) => format!("{url} gave another file than the one that is pinned"),
                (Some(why), _) => format!("{url} {why}"),
                (None, _) => format!("{url} ended after {length} of {} bytes", file.bytes),
            });
            break;
        }
    }
    Err(FetchError::Mirrors {
        file: file.name,
        tries,
    })
}

/// Why a transfer ended early.
enum Transfer {
    /// Another process has the part.
    Busy,
    /// By this machine.
    Keep(io::Error),
    /// By the mirror.
    Remote { came: u64, why: String },
}

/// Goes on with a part, or begins it. Returns the part, locked, and the bytes that came.
fn transfer(
    agent: &Agent,
    url: &str,
    bytes: u64,
    part: &Path,
    progress: &mut dyn Progress,
) -> Result<(File, u64), Transfer> {
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).write(true);
    let mut kept = options.open(part).map_err(Transfer::Keep)?;
    match kept.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Transfer::Busy),
        Err(TryLockError::Error(error)) => return Err(Transfer::Keep(error)),
    }
    let have = kept.metadata().map_err(Transfer::Keep)?.len();
    let remote = |came: u64, why: String| Transfer::Remote { came, why };
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = request
        .call()
        .map_err(|error| remote(0, format!("did not answer ({error})")))?;
    // Only 206 is the rest; a mirror that knows no ranges sends all of it.
    let from = match response.status().as_u16() {
        206 => have,
        _ => 0,
    };
    kept.set_len(from).map_err(Transfer::Keep)?;
    kept.seek(SeekFrom::Start(from)).map_err(Transfer::Keep)?;
    progress.advance(from);
    // One byte too many shows that it is another file.
    let limit = bytes.saturating_sub(from) + 1;
    let mut body = response.into_body().into_reader().take(limit);
    let (mut came, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => return Ok((kept, came)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(remote(came, format!("broke off ({error})"))),
        };
        let chunk = buffer.get(..read).unwrap_or_default();
        kept.write_all(chunk).map_err(Transfer::Keep)?;
        came += read as u64;
        progress.advance(read as u64);
    }
}

/// Whether a file is there and is the one.
fn is_whole(path: &Path, file: &SourceFile) -> io::Result<bool> {
    let mut found = match File::open(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if found.metadata()?.len() != file.bytes {
        return Ok(false);
    }
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match found.read(&mut buffer)? {
            0 => break,
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    Ok(hex(&hash.finalize()) == file.sha256)
}
