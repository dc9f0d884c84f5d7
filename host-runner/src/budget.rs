//! What a key has published, kept in a file ([`he_core::ckks::publish`]).
//!
//! The file is JSON with a checksum. It is replaced as a whole: the new count is
//! written beside it, synced, renamed over it, and the directory is synced, all
//! before a value is decrypted. So a crash leaves the old count (and nothing
//! was published) or the new one. One process at a time holds it, by a lock on
//! `FILE.lock`.
//!
//! What this cannot see is an older copy of the file put back. Whoever can do
//! that has the secret key's machine.

use crc::{CRC_32_ISO_HDLC, Crc};
use he_core::ckks::publish::{Allowance, Budget, KeyId};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;

/// Why a budget cannot be opened or spent.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// The file system.
    #[error("the budget {} cannot be {doing}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done with it.
        doing: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// Another process holds it.
    #[error("the budget {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It is not a budget, or not as it was written.
    #[error("the budget {} is damaged: {what}; without it nothing can be published under its key, make a new key", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It counts for another key.
    #[error("the budget {} is of key {expected}, not of {got}: use the one that was made with this key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Key it was made for, in hexadecimal.
        expected: String,
        /// Key that is to publish.
        got: String,
    },
    /// The allowance is used up.
    #[error("all {allowed} publications of this key are spent: make a new key")]
    Spent {
        /// Publications that were allowed.
        allowed: u32,
    },
}

/// The budget of one key in a file.
#[derive(Debug)]
pub struct FileBudget {
    path: PathBuf,
    count: Count,
    /// Held as long as this lives.
    _lock: File,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    version: u32,
    key: String,
    queries: u32,
    statistical_bits: u32,
    spent: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    budget: Count,
    crc32: u32,
}

impl FileBudget {
    /// Makes the budget of a new key. There must be no file yet.
    ///
    /// # Errors
    /// [`BudgetError::File`] or [`BudgetError::InUse`].
    pub fn create(path: &Path, key: &KeyId, allowance: Allowance) -> Result<Self, BudgetError> {
        let lock = lock(path)?;
        let count = Count {
            version: VERSION,
            key: hex(key),
            queries: allowance.queries,
            statistical_bits: allowance.statistical_bits,
            spent: 0,
        };
        store(path, &count, true).map_err(|error| file(path, "made", error))?;
        Ok(Self {
            path: path.to_owned(),
            count,
            _lock: lock,
        })
    }

    /// Opens the budget of a key.
    ///
    /// # Errors
    /// [`BudgetError::File`], [`BudgetError::InUse`] or
    /// [`BudgetError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, BudgetError> {
        let lock = lock(path)?;
        let bytes = std::fs::read(path).map_err(|error| file(path, "read", error))?;
        let count = parse(&bytes).map_err(|what| BudgetError::Damaged {
            path: path.to_owned(),
            what,
        })?;
        Ok(Self {
            path: path.to_owned(),
            count,
            _lock: lock,
        })
    }

    /// Publications that have been counted.
    #[must_use]
    pub const fn spent(&self) -> u32 {
        self.count.spent
    }
}

impl Budget for FileBudget {
    type Error = BudgetError;

    fn allowance(&self) -> Allowance {
        Allowance {
            queries: self.count.queries,
            statistical_bits: self.count.statistical_bits,
        }
    }

    fn spend(&mut self, key: &KeyId) -> Result<(), BudgetError> {
        let got = hex(key);
        if got != self.count.key {
            return Err(BudgetError::Key {
                path: self.path.clone(),
                expected: self.count.key.clone(),
                got,
            });
        }
        if self.count.spent >= self.count.queries {
            return Err(BudgetError::Spent {
                allowed: self.count.queries,
            });
        }
        // Counted here even if storing fails: it may have failed after the
        // rename.
        self.count.spent += 1;
        store(&self.path, &self.count, false).map_err(|error| file(&self.path, "written", error))
    }
}

fn file(path: &Path, doing: &'static str, error: io::Error) -> BudgetError {
    BudgetError::File {
        path: path.to_owned(),
        doing,
        error,
    }
}

fn hex(key: &KeyId) -> String {
    key.0.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A lock beside the file, which is itself replaced at every write.
fn lock(path: &Path) -> Result<File, BudgetError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(|error| file(path, "locked", error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(BudgetError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(file(path, "locked", error)),
    }
}

fn checksum(count: &Count) -> serde_json::Result<u32> {
    let bytes = serde_json::to_vec(count)?;
    Ok(Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&bytes))
}

fn parse(bytes: &[u8]) -> Result<Count, String> {
    // Not serde_json's sentence, which may quote anything that the file holds.
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("what stands at line {line}, column {column} does not belong there")
    })?;
    let count = stored.budget;
    if count.version != VERSION {
        return Err(format!(
            "version {}, this program reads {VERSION}",
            count.version
        ));
    }
    let expected = checksum(&count).map_err(|error| error.to_string())?;
    if stored.crc32 != expected {
        return Err(format!(
            "its checksum is {:08x}, what it holds has {expected:08x}",
            stored.crc32
        ));
    }
    let digit = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    if count.key.len() != 32 || !count.key.chars().all(digit) {
        return Err("its key is not named by 32 hexadecimal digits".into());
    }
    if count.spent > count.queries {
        return Err(format!(
            "{} of {} publications spent",
            count.spent, count.queries
        ));
    }
    Ok(count)
}

/// Replaces the file as a whole, durably.
fn store(path: &Path, count: &Count, new: bool) -> io::Result<()> {
    let stored = Stored {
        crc32: checksum(count)?,
        budget: count.clone(),
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, &stored)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    if new {
        file.persist_noclobber(path)?;
    } else {
        file.persist(path)?;
    }
    // The rename itself lies in the directory.
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use he_core::ckks::encode::encode_in_place;
    use he_core::ckks::publish::{Expected, NoiseKey, PublishError, publish_values};
    use he_core::ckks::{Ciphertext, Noise};
    use he_core::params::N4096_DEPTH3 as P;
    use he_core::rlwe::{self, SecretKey};

    const KEY: KeyId = KeyId([0xab; 16]);
    const ALLOWANCE: Allowance = Allowance {
        queries: 3,
        statistical_bits: 2,
    };

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("budget.json");
        (folder, path)
    }

    #[test]
    fn the_count_outlives_the_process_and_ends() {
        let (folder, path) = folder();
        drop(FileBudget::create(&path, &KEY, ALLOWANCE).unwrap());
        for spent in 0..3 {
            let mut budget = FileBudget::open(&path).unwrap();
            assert_eq!((budget.spent(), budget.allowance()), (spent, ALLOWANCE));
            budget.spend(&KEY).unwrap();
        }
        let mut budget = FileBudget::open(&path).unwrap();
        let end = budget.spend(&KEY).unwrap_err();
        assert!(matches!(end, BudgetError::Spent { allowed: 3 }), "{end}");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "the budget and its lock");
    }

    #[test]
    fn one_process_one_key_one_creation() {
        let (_folder, path) = folder();
        assert!(matches!(
            FileBudget::open(&path),
            Err(BudgetError::File { doing: "read", .. })
        ));
        let mut budget = FileBudget::create(&path, &KEY, ALLOWANCE).unwrap();
        assert!(matches!(
            FileBudget::open(&path),
            Err(BudgetError::InUse(_))
        ));
        let foreign = budget.spend(&KeyId([1; 16])).unwrap_err();
        assert!(matches!(foreign, BudgetError::Key { .. }), "{foreign}");
        assert_eq!(budget.spent(), 0);
        drop(budget);
        assert!(matches!(
            FileBudget::create(&path, &KEY, ALLOWANCE),
            Err(BudgetError::File { doing: "made", .. })
        ));
    }

    #[test]
    fn a_damaged_budget_is_refused() {
        let (_folder, path) = folder();
        let mut budget = FileBudget::create(&path, &KEY, ALLOWANCE).unwrap();
        budget.spend(&KEY).unwrap();
        drop(budget);
        let good = std::fs::read_to_string(&path).unwrap();
        // With the right checksum.
        let with_key = |key: &str| {
            let count = format!(
                r#"{{"version":1,"key":"{key}","queries":3,"statistical_bits":2,"spent":1}}"#
            );
            let count: Count = serde_json::from_str(&count).unwrap();
            let crc32 = checksum(&count).unwrap();
            serde_json::to_string(&Stored {
                budget: count,
                crc32,
            })
            .unwrap()
        };
        let changed = [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"spent\": 1", "\"spent\": 0"),
            good.replace("\"queries\": 3", "\"queries\": 300"),
            good.replace("\"version\": 1", "\"version\": 2"),
            good.replace("\"spent\"", "\"more\": 1, \"spent\""),
            good.replace("\"spent\"", "\"\\u001b[31m\": 1, \"spent\""),
            with_key("\\u001b[31m"),
            with_key("ABABABABABABABABABABABABABABABAB"),
        ];
        for bad in changed {
            assert_ne!(bad, good);
            std::fs::write(&path, &bad).unwrap();
            let refusal = FileBudget::open(&path).unwrap_err();
            assert!(matches!(refusal, BudgetError::Damaged { .. }), "{bad}");
            // It quotes nothing that could steer a terminal.
            assert!(!refusal.to_string().contains(char::is_control));
        }
        std::fs::write(&path, good).unwrap();
        assert_eq!(FileBudget::open(&path).unwrap().spent(), 1);
    }

    /// Where writing fails, nothing is published, and the count in memory goes
    /// on, so that it can only be too high.
    #[test]
    fn a_count_that_cannot_be_stored_is_not_published_on() {
        let (folder, path) = folder();
        let mut budget = FileBudget::create(&path, &KEY, ALLOWANCE).unwrap();
        // The folder is moved away: there is nowhere to write.
        let away = folder.path().with_extension("away");
        std::fs::rename(folder.path(), &away).unwrap();
        let refusal = budget.spend(&KEY).unwrap_err();
        std::fs::rename(&away, folder.path()).unwrap();
        assert!(matches!(
            refusal,
            BudgetError::File {
                doing: "written",
                ..
            }
        ));
        assert_eq!(budget.spent(), 1);
        budget.spend(&KEY).unwrap();
        drop(budget);
        assert_eq!(FileBudget::open(&path).unwrap().spent(), 2);
    }

    /// Stops between the count and the release.
    struct Crash(FileBudget);

    impl Budget for Crash {
        type Error = &'static str;
        fn allowance(&self) -> Allowance {
            self.0.allowance()
        }
        fn spend(&mut self, key: &KeyId) -> Result<(), Self::Error> {
            self.0.spend(key).map_err(|_| "not spent")?;
            Err("crash")
        }
    }

    #[test]
    fn a_crash_between_count_and_release_is_counted_once_and_publishes_nothing() {
        let n = P.n();
        let mut rng = rand_core::UnwrapErr(getrandom::SysRng);
        let words = SecretKey::<Vec<u32>>::words(&P);
        let key = SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        let noise_key = NoiseKey::new([5; 32]);
        let (level, scale) = (3, f64::from(1 << 29));
        let mut buffer = vec![0.0; n];
        buffer[0] = 0.75;
        encode_in_place(&mut buffer, scale).unwrap();
        let mut message: Vec<i32> = buffer.iter().map(|&x| x as i32).collect();
        let (mut c0, mut c1) = (vec![0; 4 * n], vec![0; 4 * n]);
        rlwe::encrypt(&P, &key, &mut message, level, &[6; 32], &mut rng, &mut c0).unwrap();
        rlwe::expand_c1(&P, &[6; 32], &mut c1).unwrap();
        let ct = Ciphertext::new(&P, level, scale, c0, c1).unwrap();
        let expected = Expected {
            level,
            scale,
            noise: Noise::error(&P).plus(Noise::rounding(&P)),
            magnitude: 1.0,
            precision_bits: -1.0,
        };
        let (mut scratch, mut slots) = (vec![0; 4 * n], vec![0.0; n]);

        let (_folder, path) = folder();
        let id = noise_key.id(&P, &key).unwrap();
        let mut crash = Crash(FileBudget::create(&path, &id, ALLOWANCE).unwrap());
        let refusal = publish_values(
            &P,
            &key,
            &noise_key,
            &mut crash,
            &ct,
            &expected,
            &mut scratch,
            &mut slots,
        )
        .unwrap_err();
        assert_eq!(refusal, PublishError::Budget("crash"));
        drop(crash);
        assert!(slots.iter().all(|&x| x == 0.0), "values were released");
        let mut budget = FileBudget::open(&path).unwrap();
        assert_eq!(budget.spent(), 1);
        let published = publish_values(
            &P,
            &key,
            &noise_key,
            &mut budget,
            &ct,
            &expected,
            &mut scratch,
            &mut slots,
        )
        .unwrap();
        let error = (published.values()[0] - 0.75).abs();
        assert!(error < (-published.precision_bits()).exp2());
        drop(budget);
        assert_eq!(FileBudget::open(&path).unwrap().spent(), 2);
    }
}
