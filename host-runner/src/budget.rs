//! What a key has published, kept in a file ([`he_core::ckks::publish`]).
//!
//! The file is JSON with a checksum, held and replaced as a whole ([`crate::held`]), all
//! before a value is decrypted. So a crash leaves the old count (and nothing was
//! published) or the new one. One process at a time holds it, under one name.
//!
//! What this cannot see is an older copy of the file put back. Whoever can do
//! that has the secret key's machine.

use crc::{CRC_32_ISO_HDLC, Crc};
use he_core::ckks::publish::{Allowance, Budget, KeyId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::files::{SealedError, SealedKey};
use crate::held::{Held, HeldError};
use crate::report::text;

pub(crate) const VERSION: u32 = 1;

/// What it is called in sentences.
const WHAT: &str = "budget";

/// Bytes that a budget never has.
const MAX_BYTES: u64 = 4096;

/// Why a budget cannot be opened or spent.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// The file cannot be held or replaced.
    #[error(transparent)]
    Held(#[from] HeldError),
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
    /// The budget that is sealed with its key.
    #[error(transparent)]
    Sealed(#[from] Box<SealedError>),
}

impl From<SealedError> for BudgetError {
    fn from(error: SealedError) -> Self {
        Self::Sealed(Box::new(error))
    }
}

/// The budget of one key in a file.
#[derive(Debug)]
pub struct FileBudget {
    count: Count,
    allowance: Allowance,
    held: Held,
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
    /// [`BudgetError::Held`].
    pub fn create(path: &Path, key: &KeyId, allowance: Allowance) -> Result<Self, BudgetError> {
        let count = Count {
            version: VERSION,
            key: hex(key),
            queries: allowance.queries(),
            statistical_bits: allowance.statistical_bits(),
            spent: 0,
        };
        let held = Held::create(WHAT, path, |_| stored(&count))?;
        Ok(Self {
            count,
            allowance,
            held,
        })
    }

    /// Opens the budget of a key.
    ///
    /// # Errors
    /// [`BudgetError::Held`] or [`BudgetError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, BudgetError> {
        let held = Held::open(WHAT, path)?;
        let bytes = held.read(MAX_BYTES)?;
        let (count, allowance) = parse(&bytes).map_err(|what| BudgetError::Damaged {
            path: held.path().to_owned(),
            what,
        })?;
        Ok(Self {
            count,
            allowance,
            held,
        })
    }

    /// Publications that have been counted.
    #[must_use]
    pub const fn spent(&self) -> u32 {
        self.count.spent
    }

    fn check_key(&self, key: &KeyId) -> Result<(), BudgetError> {
        let got = hex(key);
        if got == self.count.key {
            return Ok(());
        }
        Err(BudgetError::Key {
            path: self.held.path().to_owned(),
            expected: self.count.key.clone(),
            got,
        })
    }

    /// Counts up to `spent`, in memory even if storing fails: it may have failed
    /// after the rename.
    fn count(&mut self, spent: u32) -> Result<(), BudgetError> {
        self.count.spent = spent;
        self.held.replace(|_| stored(&self.count))?;
        Ok(())
    }
}

impl Budget for FileBudget {
    type Error = BudgetError;

    fn allowance(&self) -> Allowance {
        self.allowance
    }

    fn spend(&mut self, key: &KeyId) -> Result<(), BudgetError> {
        self.check_key(key)?;
        if self.count.spent >= self.count.queries {
            return Err(BudgetError::Spent {
                allowed: self.count.queries,
            });
        }
        self.count(self.count.spent + 1)
    }

    fn retire(&mut self, key: &KeyId) -> Result<(), BudgetError> {
        self.check_key(key)?;
        self.count(self.count.queries)
    }
}

/// The budget of one key: in a file or in memory, of a key that ends with the process; or
/// sealed with its key.
#[derive(Debug)]
pub enum KeyBudget {
    /// In a file.
    File(FileBudget),
    /// In the file of the key itself, which outlives the process.
    Sealed(Box<SealedKey>),
    /// In memory.
    Memory {
        /// What the key may publish.
        allowance: Allowance,
        /// What it has published.
        spent: u32,
    },
}

impl KeyBudget {
    /// The budget of a new key: in a file, where one is named, which there must not be
    /// yet.
    ///
    /// # Errors
    /// As [`FileBudget::create`].
    pub fn create(
        path: Option<&Path>,
        key: &KeyId,
        allowance: Allowance,
    ) -> Result<Self, BudgetError> {
        Ok(match path {
            Some(path) => Self::File(FileBudget::create(path, key, allowance)?),
            None => Self::Memory {
                allowance,
                spent: 0,
            },
        })
    }

    /// Publications that have been counted.
    #[must_use]
    pub const fn spent(&self) -> u32 {
        match self {
            Self::File(budget) => budget.spent(),
            Self::Sealed(key) => key.head().spent,
            Self::Memory { spent, .. } => *spent,
        }
    }
}

impl Budget for KeyBudget {
    type Error = BudgetError;

    fn allowance(&self) -> Allowance {
        match self {
            Self::File(budget) => budget.allowance(),
            Self::Sealed(key) => key.allowance(),
            Self::Memory { allowance, .. } => *allowance,
        }
    }

    fn spend(&mut self, key: &KeyId) -> Result<(), BudgetError> {
        match self {
            Self::File(budget) => budget.spend(key),
            Self::Sealed(sealed) => Ok(sealed.spend(key)?),
            Self::Memory { allowance, spent } if *spent >= allowance.queries() => {
                Err(BudgetError::Spent {
                    allowed: allowance.queries(),
                })
            }
            Self::Memory { spent, .. } => {
                *spent += 1;
                Ok(())
            }
        }
    }

    fn retire(&mut self, key: &KeyId) -> Result<(), BudgetError> {
        match self {
            Self::File(budget) => budget.retire(key),
            Self::Sealed(sealed) => Ok(sealed.retire(key)?),
            Self::Memory { allowance, spent } => {
                *spent = allowance.queries();
                Ok(())
            }
        }
    }
}

pub(crate) fn hex(key: &KeyId) -> String {
    text::hex(&key.0)
}

fn checksum(count: &Count) -> serde_json::Result<u32> {
    let bytes = serde_json::to_vec(count)?;
    Ok(Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&bytes))
}

fn parse(bytes: &[u8]) -> Result<(Count, Allowance), String> {
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
    let allowance = Allowance::new(count.queries, count.statistical_bits);
    let allowance = allowance.map_err(|error| error.to_string())?;
    Ok((count, allowance))
}

/// Key, publications spent and allowed, if that is a budget.
pub(crate) fn described(bytes: &[u8]) -> Option<(String, u32, u32)> {
    let (count, _) = parse(bytes).ok()?;
    Some((count.key, count.spent, count.queries))
}

/// The file's content.
fn stored(count: &Count) -> std::io::Result<Vec<u8>> {
    let stored = Stored {
        crc32: checksum(count)?,
        budget: count.clone(),
    };
    let mut bytes = serde_json::to_vec_pretty(&stored)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::Problem;
    use he_core::ckks::encode::encode_in_place;
    use he_core::ckks::publish::{
        Expected, HonestEvaluator, HonestResult, NoiseKey, PublishError, publish_values,
    };
    use he_core::ckks::{Ciphertext, Noise};
    use he_core::params::N4096_DEPTH3 as P;
    use he_core::rlwe::{self, SecretKey};
    use std::io::Read;

    const KEY: KeyId = KeyId([0xab; 16]);
    const ALLOWANCE: Allowance = match Allowance::new(3, 30) {
        Ok(allowance) => allowance,
        Err(_) => unreachable!(),
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
            let mut budget = reopen(&path);
            assert_eq!((budget.spent(), budget.allowance()), (spent, ALLOWANCE));
            budget.spend(&KEY).unwrap();
        }
        let mut budget = reopen(&path);
        let end = budget.spend(&KEY).unwrap_err();
        assert!(matches!(end, BudgetError::Spent { allowed: 3 }), "{end}");
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "the budget and nothing beside it");
    }

    #[test]
    fn one_process_one_key_one_creation() {
        let (_folder, path) = folder();
        assert!(matches!(
            FileBudget::open(&path),
            Err(BudgetError::Held(HeldError {
                problem: Problem::System { doing: "read", .. },
                ..
            }))
        ));
        let mut budget = FileBudget::create(&path, &KEY, ALLOWANCE).unwrap();
        assert!(matches!(
            FileBudget::open(&path),
            Err(BudgetError::Held(HeldError {
                problem: Problem::InUse,
                ..
            }))
        ));
        let foreign = budget.spend(&KeyId([1; 16])).unwrap_err();
        assert!(matches!(foreign, BudgetError::Key { .. }), "{foreign}");
        assert_eq!(budget.spent(), 0);
        drop(budget);
        assert!(matches!(
            FileBudget::create(&path, &KEY, ALLOWANCE),
            Err(BudgetError::Held(HeldError {
                problem: Problem::System { doing: "made", .. },
                ..
            }))
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
        let with = |key: &str, bits: u32| {
            let count = format!(
                r#"{{"version":1,"key":"{key}","queries":3,"statistical_bits":{bits},"spent":1}}"#
            );
            let count: Count = serde_json::from_str(&count).unwrap();
            let crc32 = checksum(&count).unwrap();
            serde_json::to_string(&Stored {
                budget: count,
                crc32,
            })
            .unwrap()
        };
        let with_key = |key: &str| with(key, 30);
        let with_bits = |bits| with(&"ab".repeat(16), bits);
        let changed = [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"spent\": 1", "\"spent\": 0"),
            good.replace("\"queries\": 3", "\"queries\": 300"),
            good.replace("\"version\": 1", "\"version\": 2"),
            with_bits(29),
            good.replace("\"spent\"", "\"more\": 1, \"spent\""),
            good.replace("\"spent\"", "\"\\u001b[31m\": 1, \"spent\""),
            with_key("\\u001b[31m"),
            with_key("ABABABABABABABABABABABABABABABAB"),
        ];
        for bad in changed {
            assert_ne!(bad, good);
            std::fs::write(&path, &bad).unwrap();
            let refusal = opened(&path).unwrap_err();
            assert!(matches!(refusal, BudgetError::Damaged { .. }), "{bad}");
            // It quotes nothing that could steer a terminal.
            assert!(!refusal.to_string().contains(char::is_control));
        }
        std::fs::write(&path, good).unwrap();
        assert_eq!(reopen(&path).spent(), 1);
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
        assert!(
            matches!(&refusal, BudgetError::Held(held) if matches!(held.problem, Problem::Replaced)),
            "{refusal}"
        );
        assert_eq!(budget.spent(), 1);
        budget.spend(&KEY).unwrap();
        drop(budget);
        assert_eq!(reopen(&path).spent(), 2);
    }

    #[test]
    fn a_retired_key_publishes_no_more() {
        let (_folder, path) = folder();
        let mut budget = FileBudget::create(&path, &KEY, ALLOWANCE).unwrap();
        budget.spend(&KEY).unwrap();
        let foreign = budget.retire(&KeyId([1; 16])).unwrap_err();
        assert!(matches!(foreign, BudgetError::Key { .. }), "{foreign}");
        budget.retire(&KEY).unwrap();
        assert!(matches!(budget.spend(&KEY), Err(BudgetError::Spent { .. })));
        drop(budget);
        assert_eq!(reopen(&path).spent(), 3);
    }

    /// Through another name of the file nothing is spent beside the count.
    #[cfg(unix)]
    #[test]
    fn links_are_refused_and_directories_resolved() {
        use std::os::unix::fs::symlink;
        let (folder, path) = folder();
        drop(FileBudget::create(&path, &KEY, ALLOWANCE).unwrap());
        let named = |name: &str| folder.path().join(name);
        let refused = |path: &Path| match FileBudget::open(path) {
            Err(BudgetError::Held(HeldError {
                problem: Problem::Link(what),
                ..
            })) => what,
            other => unreachable!("{other:?}"),
        };
        symlink(&path, named("link.json")).unwrap();
        assert_eq!(refused(&named("link.json")), "a symbolic link");
        assert_eq!(refused(folder.path()), "no file");
        std::fs::hard_link(&path, named("hard.json")).unwrap();
        for name in ["hard.json", "budget.json"] {
            assert!(refused(&named(name)).contains("hard links"));
        }
        std::fs::remove_file(named("hard.json")).unwrap();
        // A budget is not made through a link either.
        symlink(named("nothing"), named("dangling.json")).unwrap();
        for name in ["link.json", "dangling.json"] {
            let made = FileBudget::create(&named(name), &KEY, ALLOWANCE);
            assert!(matches!(
                made,
                Err(BudgetError::Held(HeldError {
                    problem: Problem::System { doing: "made", .. },
                    ..
                }))
            ));
        }

        // A directory under another name is the same place: one process at a time,
        // one count.
        symlink(folder.path(), named("there")).unwrap();
        let there = named("there").join("budget.json");
        let mut budget = FileBudget::open(&there).unwrap();
        assert!(matches!(
            FileBudget::open(&path),
            Err(BudgetError::Held(HeldError {
                problem: Problem::InUse,
                ..
            }))
        ));
        budget.spend(&KEY).unwrap();
        assert!(matches!(
            FileBudget::open(&path),
            Err(BudgetError::Held(HeldError {
                problem: Problem::InUse,
                ..
            }))
        ));
        // What turns into a link while it is held is not counted on.
        std::fs::hard_link(&path, named("hard.json")).unwrap();
        assert!(matches!(
            budget.spend(&KEY),
            Err(BudgetError::Held(HeldError {
                problem: Problem::Link(_),
                ..
            }))
        ));
        std::fs::remove_file(named("hard.json")).unwrap();
        drop(budget);
        assert_eq!(reopen(&path).spent(), 1);
    }

    #[test]
    fn what_is_put_in_the_place_of_a_held_budget_is_refused() {
        let (folder, path) = folder();
        let old = folder.path().join("old.json");
        let mut budget = FileBudget::create(&path, &KEY, ALLOWANCE).unwrap();
        std::fs::copy(&path, &old).unwrap();
        budget.spend(&KEY).unwrap();
        std::fs::rename(&old, &path).unwrap();
        assert!(matches!(
            budget.spend(&KEY),
            Err(BudgetError::Held(HeldError {
                problem: Problem::Replaced,
                ..
            }))
        ));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            budget.spend(&KEY),
            Err(BudgetError::Held(HeldError {
                problem: Problem::Replaced,
                ..
            }))
        ));
    }

    /// Names the budget that a process of the tests below spends from.
    const CHILD: &str = "HE_EDGE_TEST_BUDGET";

    /// Opens a budget that this process has let go of. A process that another test starts
    /// holds the lock, too, until it has become its own program.
    fn opened(path: &Path) -> Result<FileBudget, BudgetError> {
        let tries = (0..1000).map(|_| FileBudget::open(path)).find(|opened| {
            let is_in_use = matches!(
                opened,
                Err(BudgetError::Held(HeldError {
                    problem: Problem::InUse,
                    ..
                }))
            );
            if is_in_use {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            !is_in_use
        });
        tries.unwrap()
    }

    fn reopen(path: &Path) -> FileBudget {
        opened(path).unwrap()
    }

    fn child(path: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "budget::tests::spends_until_the_end";
        command.args(["--exact", name, "--ignored", "--nocapture"]);
        command.env(CHILD, path);
        command.stdout(std::process::Stdio::piped());
        command
    }

    #[test]
    #[ignore = "a process of its own, which other tests start"]
    #[expect(clippy::print_stdout, reason = "who started it counts the lines")]
    fn spends_until_the_end() {
        let path = PathBuf::from(std::env::var_os(CHILD).unwrap());
        loop {
            match FileBudget::open(&path).and_then(|mut budget| budget.spend(&KEY)) {
                // Only now would something be decrypted.
                Ok(()) => println!("published"),
                Err(BudgetError::Held(HeldError {
                    problem: Problem::InUse | Problem::Replaced,
                    ..
                })) => {}
                Err(BudgetError::Spent { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn publications(output: &[u8]) -> u32 {
        String::from_utf8_lossy(output)
            .matches("published\n")
            .count() as u32
    }

    #[test]
    fn two_processes_spend_what_one_may() {
        let (_folder, path) = folder();
        let allowance = Allowance::new(40, 30).unwrap();
        drop(FileBudget::create(&path, &KEY, allowance).unwrap());
        let children = [(); 2].map(|()| child(&path).spawn().unwrap());
        let published = children.map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            publications(&output.stdout)
        });
        assert_eq!(published.iter().sum::<u32>(), 40, "{published:?}");
        assert_eq!(reopen(&path).spent(), 40);
    }

    /// Processes that are killed at all moments of a publication have never
    /// published more than was counted.
    #[test]
    fn a_process_killed_at_any_moment_has_counted_what_it_published() {
        let (_folder, path) = folder();
        let allowance = Allowance::new(100_000, 30).unwrap();
        drop(FileBudget::create(&path, &KEY, allowance).unwrap());
        let (mut published, mut rounds) = (0, 0);
        let mut unpublished = 0;
        while rounds < 60 {
            let mut child = child(&path).spawn().unwrap();
            let (mut output, mut seen) = (child.stdout.take().unwrap(), Vec::new());
            // From before it opens the budget, or from its first publication on.
            while rounds % 2 == 1 && publications(&seen) == 0 {
                let mut some = [0; 64];
                let count = output.read(&mut some).unwrap();
                assert!(count > 0, "it ended by itself");
                seen.extend_from_slice(&some[..count]);
            }
            std::thread::sleep(std::time::Duration::from_micros(331 * rounds));
            child.kill().unwrap();
            child.wait().unwrap();
            output.read_to_end(&mut seen).unwrap();
            published += publications(&seen);
            // It leaves no lock behind.
            let spent = reopen(&path).spent();
            assert!(published <= spent, "{published} of {spent}");
            unpublished = spent - published;
            rounds += 1;
        }
        assert!(published > 0);
        // A kill loses one publication at most.
        assert!(u64::from(unpublished) <= rounds, "{unpublished}");
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
        fn retire(&mut self, key: &KeyId) -> Result<(), Self::Error> {
            self.0.retire(key).map_err(|_| "not retired")
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
        rlwe::encrypt_with_seed(&P, &key, &mut message, level, &[6; 32], &mut rng, &mut c0)
            .unwrap();
        rlwe::expand_c1(&P, &[6; 32], &mut c1).unwrap();
        let ct = Ciphertext::new(&P, level, scale, c0, c1).unwrap();
        let expected = Expected {
            level,
            scale,
            noise: Noise::error(&P).plus(Noise::rounding(&P)),
            magnitude: 1.0,
            precision_bits: -15.0,
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
            &HonestResult::stated(&ct, HonestEvaluator::assume()),
            &expected,
            &mut scratch,
            &mut slots,
        )
        .unwrap_err();
        assert_eq!(refusal, PublishError::Budget("crash"));
        drop(crash);
        assert!(slots.iter().all(|&x| x == 0.0), "values were released");
        let mut budget = reopen(&path);
        assert_eq!(budget.spent(), 1);
        let published = publish_values(
            &P,
            &key,
            &noise_key,
            &mut budget,
            &HonestResult::stated(&ct, HonestEvaluator::assume()),
            &expected,
            &mut scratch,
            &mut slots,
        )
        .unwrap();
        let error = (published.values()[0] - 0.75).abs();
        assert!(error < (-published.precision_bits()).exp2());
        drop(budget);
        assert_eq!(reopen(&path).spent(), 2);
    }
}
