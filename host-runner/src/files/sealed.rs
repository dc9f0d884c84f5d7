//! A secret key and what it may publish, in one sealed file.
//!
//! The file has the 32 bytes that the key is derived from ([`KeySeed`]), and nothing that
//! encryption draws from: whoever opens it draws fresh randomness for that, so a key that
//! is opened a thousand times never encrypts with the same randomness twice. They are
//! encrypted with XChaCha20-Poly1305 under a key that Argon2id makes of the passphrase.
//! The head is readable without it and authenticated with it: whoever changes the count
//! of publications needs the passphrase.
//!
//! # The count
//!
//! The whole file is replaced before anything is published ([`crate::held`]), sealed with
//! a new nonce. The passphrase is stretched once when the file is opened; to seal again
//! takes microseconds.
//!
//! A copy would count again from where it was made. So number and birth of the file's
//! inode are sealed within: a copy, or an older copy that is put back, is another file and
//! is refused. Moving the file within its file system keeps both. There is no backup of a
//! key, then; who loses it makes a new one.
//!
//! # What cannot be caught
//!
//! What puts inode and birth back too: an older state of the whole file system (a
//! snapshot, a disk image, a virtual machine), or whoever may write to the disk below the
//! file system or set the clock to the tick and meet a free inode. Two machines that run
//! from one image both have the key. A process that is killed in the middle leaves the next
//! version beside the file, which is removed at the next opening ([`crate::held`]); whoever
//! kills it, takes that version away before and swaps the two later has two counts, and so
//! has whoever links the old version in the moment between its check and its end. Where a file system does not tell births, inodes
//! alone are compared, whose numbers are given again. Whoever can do that has the key
//! holder's machine; who must stand it needs a counter outside of it, in hardware.
//!
//! # A refused result
//!
//! retires the key for good, beyond the life of the process: `2 N` answers of acceptance
//! alone give it away ([`he_core::ckks::publish`]).

use std::io;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Block, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use he_core::Params;
use he_core::ckks::publish::{Allowance, Budget, KeyId, NoiseKey};
use he_core::rlwe::{KeySeed, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::heads::set_of;
use super::{Container, FileError, Kind, Passphrase, Problem, finish, start};
use crate::budget::hex;
use crate::client::{ClientError, Keys};
use crate::held::{Held, HeldError, Identity};
use crate::planning;

/// What it is called in sentences.
const WHAT: &str = "sealed key";

/// Bytes that a file never has.
const MAX_BYTES: u64 = 1 << 16;

/// Bytes sealed: a seed, the key of notes, and which file it is.
const PLAIN: usize = 32 + 32 + 8 + 8;

/// Why a sealed key is not made, opened or used.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// The file cannot be held or replaced.
    #[error(transparent)]
    Held(#[from] HeldError),
    /// It is not a sealed key, or not as it was written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others may read it.
    #[error(
        "the sealed key {} has the permissions {mode:03o}, so that others may read or change it: run `chmod 600` on it", path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// What the passphrase costs to try is beyond what there is, or less.
    #[error(
        "the sealed key {} asks for {memory_kib} KiB and {passes} passes to be opened, and this program gives {} to {} KiB, where there is memory, and {} to {} passes: it is damaged, or of a larger machine", path.display(), Cost::LEAST.memory_kib, Cost::MOST.memory_kib, Cost::LEAST.passes, Cost::MOST.passes
    )]
    Cost {
        /// The file.
        path: PathBuf,
        /// Memory.
        memory_kib: u32,
        /// Passes.
        passes: u32,
    },
    /// Another passphrase, or other content.
    #[error(
        "the sealed key {} does not open: the passphrase is another, or the file was changed", .0.display()
    )]
    Passphrase(PathBuf),
    /// It is not the file that was written.
    #[error(
        "the sealed key {} is a copy, or was put back: what its key has published since is not known, so it is not used again; use the original, or make a new key", .0.display()
    )]
    Copy(PathBuf),
    /// Its parts do not fit.
    #[error("the sealed key {} does not hold what its head says: use the program that wrote it", .0.display())]
    Content(PathBuf),
    /// The budget of another key.
    #[error(
        "the budget is of the key {expected}, not of {got}: publish with the key that the file holds"
    )]
    Key {
        /// That of the file.
        expected: String,
        /// That is to publish.
        got: String,
    },
    /// The allowance is used up.
    #[error("all {0} publications of this key are spent: make a new key")]
    Spent(u32),
    /// A result was refused under it.
    #[error(
        "a result was refused under the key {}, and acceptance is an answer to whoever made it: make a new key", .0.display()
    )]
    Retired(PathBuf),
    /// Deriving the key failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What a guess of the passphrase costs, by Argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Cost {
    /// 64 MiB, three passes (RFC 9106, section 4, with one lane): a tenth of a second.
    pub const DEFAULT: Self = Self {
        memory_kib: 64 << 10,
        passes: 3,
    };

    /// The least that there is, for tests.
    pub const LEAST: Self = Self {
        memory_kib: 8,
        passes: 1,
    };

    /// 1 GiB and 16 passes: what a file may ask of its reader.
    const MOST: Self = Self {
        memory_kib: 1 << 20,
        passes: 16,
    };

    const fn is_possible(&self) -> bool {
        self.memory_kib <= Self::MOST.memory_kib && self.passes <= Self::MOST.passes
    }
}

/// What the head of a sealed key says. It is readable without the passphrase; until the
/// file is opened nothing vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedHead {
    /// Name of the parameter set.
    pub params: String,
    /// Its fingerprint.
    pub params_fingerprint: u32,
    /// The key's name in budgets, which tells nothing about it.
    pub key: String,
    /// What it may publish in all.
    pub publications: u32,
    /// Bits of statistical security of published values.
    pub statistical_bits: u32,
    /// What it has published.
    pub spent: u32,
    /// A result was refused under it.
    pub retired: bool,
    /// What a guess of the passphrase costs.
    pub argon2id: Cost,
    /// The salt of the passphrase.
    salt: [u8; 16],
    /// The nonce of the body.
    nonce: [u8; 24],
}

/// A sealed key that is open: locked, and its budget.
pub struct SealedKey {
    held: Held,
    head: SealedHead,
    id: KeyId,
    params: &'static Params,
    allowance: Allowance,
    /// Made of the passphrase.
    sealing: Zeroizing<[u8; 32]>,
    seed: Zeroizing<[u8; 32]>,
    notes: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedKey")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

impl SealedKey {
    /// Draws a key, and seals it into a file that there must not be yet.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn create(
        path: &Path,
        params: &'static Params,
        allowance: Allowance,
        passphrase: &Passphrase,
        cost: Cost,
    ) -> Result<Self, SealedError> {
        let [mut seed, mut notes] = [(); 2].map(|()| Zeroizing::new([0; 32]));
        let mut salt = [0; 16];
        for bytes in [&mut seed[..], &mut notes[..], &mut salt[..]] {
            getrandom::fill(bytes).map_err(ClientError::Random)?;
        }
        let id = id_of(params, &seed)?;
        let mut head = SealedHead {
            params: planning::set_name(params),
            params_fingerprint: params.fingerprint(),
            key: hex(&id),
            publications: allowance.queries(),
            statistical_bits: allowance.statistical_bits(),
            spent: 0,
            retired: false,
            argon2id: cost,
            salt,
            nonce: [0; 24],
        };
        let sealing = stretched(passphrase, &head).ok_or_else(|| SealedError::Cost {
            path: path.to_owned(),
            memory_kib: cost.memory_kib,
            passes: cost.passes,
        })?;
        let held = Held::create(WHAT, path, |file| {
            let identity = Identity::of(file)?;
            sealed(&mut head, identity, &sealing, &seed, &notes)
        })?;
        check_mode(&held)?;
        Ok(Self {
            held,
            head,
            id,
            params,
            allowance,
            sealing,
            seed,
            notes,
        })
    }

    /// Opens a sealed key.
    ///
    /// # Errors
    /// [`SealedError`].
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, SealedError> {
        let held = Held::open(WHAT, path)?;
        let path = held.path();
        let of_file = |problem: Problem| problem.at(path);
        let container = Container::parse(held.read(MAX_BYTES)?)
            .and_then(|container| container.expect(Kind::SealedKey))
            .map_err(of_file)?;
        let head: SealedHead = container.head().map_err(of_file)?;
        check_mode(&held)?;
        let params = set_of(&head.params, head.params_fingerprint).map_err(of_file)?;
        let sealing = stretched(passphrase, &head).ok_or_else(|| SealedError::Cost {
            path: path.to_owned(),
            memory_kib: head.argon2id.memory_kib,
            passes: head.argon2id.passes,
        })?;
        let payload = Payload {
            msg: container.body(),
            aad: container.before(),
        };
        let plain = XChaCha20Poly1305::new((&*sealing).into())
            .decrypt(&XNonce::from(head.nonce), payload)
            .map_err(|_| SealedError::Passphrase(path.to_owned()))?;
        let plain = Zeroizing::new(plain);
        let content = || SealedError::Content(path.to_owned());
        let &[
            ref secrets @ ..,
            i0,
            i1,
            i2,
            i3,
            i4,
            i5,
            i6,
            i7,
            b0,
            b1,
            b2,
            b3,
            b4,
            b5,
            b6,
            b7,
        ] = <&[u8; PLAIN]>::try_from(&plain[..]).map_err(|_| content())?;
        let written = Identity {
            inode: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            born: u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
        };
        let mut found = Identity::of(held.file()).map_err(|error| {
            let doing = "read";
            of_file(Problem::System { doing, error })
        })?;
        if written.born == 0 {
            found.born = 0;
        }
        if found != written {
            return Err(SealedError::Copy(path.to_owned()));
        }
        let [mut seed, mut notes] = [(); 2].map(|()| Zeroizing::new([0; 32]));
        let (first, second) = secrets.split_at(32);
        seed.copy_from_slice(first);
        notes.copy_from_slice(second);
        let id = id_of(params, &seed)?;
        let allowance = Allowance::new(head.publications, head.statistical_bits);
        match allowance {
            Ok(allowance) if hex(&id) == head.key && head.spent <= head.publications => Ok(Self {
                held,
                head,
                id,
                params,
                allowance,
                sealing,
                seed,
                notes,
            }),
            _ => Err(content()),
        }
    }

    /// The secret key, derived again, with fresh randomness to encrypt with.
    ///
    /// # Errors
    /// [`SealedError::Retired`]; [`SealedError::Client`] where the system has no
    /// randomness.
    pub fn keys(&self) -> Result<Keys, SealedError> {
        if self.head.retired {
            return Err(SealedError::Retired(self.held.path().to_owned()));
        }
        Ok(Keys::derived(self.params, &KeySeed::new(*self.seed))?)
    }

    /// The secret key, derived again, for publications alone: they check retirement
    /// themselves.
    pub(super) fn secret(&self) -> he_core::Result<SecretKey<Vec<u32>>> {
        secret(self.params, &KeySeed::new(*self.seed))
    }

    /// The key of the noise of published values, which belongs to the secret key.
    #[must_use]
    pub fn noise_key(&self) -> NoiseKey {
        NoiseKey::new(*KeySeed::new(*self.seed).noise_key())
    }

    /// The key that notes of requests are sealed with.
    pub(super) fn notes(&self) -> &[u8; 32] {
        &self.notes
    }

    /// Checks that the key is of a parameter set.
    ///
    /// # Errors
    /// [`FileError`] with both.
    pub fn expect_set(&self, params: &Params) -> Result<(), FileError> {
        if self.params.fingerprint() == params.fingerprint() {
            return Ok(());
        }
        let mismatch = Problem::Mismatch {
            what: "parameter set",
            theirs: planning::set_name(self.params).into(),
            ours: planning::set_name(params).into(),
            todo: "name that set with --params",
        };
        Err(mismatch.at(self.path()))
    }

    /// The parameter set.
    #[must_use]
    pub const fn params(&self) -> &'static Params {
        self.params
    }

    /// Its name in budgets.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// What its head says.
    #[must_use]
    pub const fn head(&self) -> &SealedHead {
        &self.head
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.held.path()
    }

    fn check_key(&self, key: &KeyId) -> Result<(), SealedError> {
        if *key == self.id {
            return Ok(());
        }
        Err(SealedError::Key {
            expected: hex(&self.id),
            got: hex(key),
        })
    }

    /// Puts the head into the file. What is in memory stays as it is even where that
    /// fails: it may have failed after the rename.
    fn store(&mut self) -> Result<(), SealedError> {
        let Self {
            held,
            head,
            sealing,
            seed,
            notes,
            ..
        } = self;
        held.replace(|file| sealed(head, Identity::of(file)?, sealing, seed, notes))?;
        Ok(())
    }
}

impl Budget for SealedKey {
    type Error = SealedError;

    fn allowance(&self) -> Allowance {
        self.allowance
    }

    fn spend(&mut self, key: &KeyId) -> Result<(), SealedError> {
        self.check_key(key)?;
        if self.head.retired {
            return Err(SealedError::Retired(self.held.path().to_owned()));
        }
        if self.head.spent >= self.head.publications {
            return Err(SealedError::Spent(self.head.publications));
        }
        self.head.spent += 1;
        self.store()
    }

    /// The key is not used again at all.
    fn retire(&mut self, key: &KeyId) -> Result<(), SealedError> {
        self.check_key(key)?;
        self.head.retired = true;
        self.head.spent = self.head.publications;
        self.store()
    }
}

/// The secret key of a seed.
fn secret(params: &'static Params, seed: &KeySeed) -> he_core::Result<SecretKey<Vec<u32>>> {
    let storage = vec![0; SecretKey::<Vec<u32>>::words(params)];
    SecretKey::generate(params, storage, &mut seed.key_rng())
}

/// The name of the key of a seed.
fn id_of(params: &'static Params, seed: &[u8; 32]) -> Result<KeyId, ClientError> {
    let seed = KeySeed::new(*seed);
    let failed = crate::client::failed("key generation");
    let key = secret(params, &seed).map_err(&failed)?;
    NoiseKey::new(*seed.noise_key())
        .id(params, &key)
        .map_err(failed)
}

/// The key that a passphrase is stretched to; nothing at a cost that there is not.
fn stretched(passphrase: &Passphrase, head: &SealedHead) -> Option<Zeroizing<[u8; 32]>> {
    let Cost { memory_kib, passes } = head.argon2id;
    if !head.argon2id.is_possible() {
        return None;
    }
    let params = argon2::Params::new(memory_kib, passes, 1, Some(32)).ok()?;
    let mut blocks = Vec::new();
    blocks.try_reserve_exact(params.block_count()).ok()?;
    blocks.resize(params.block_count(), Block::default());
    let mut blocks = Zeroizing::new(blocks);
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into_with_memory(
            passphrase.bytes(),
            &head.salt,
            key.as_mut(),
            &mut blocks[..],
        )
        .ok()?;
    Some(key)
}

/// The file's bytes under a new nonce, which the head gets.
fn sealed(
    head: &mut SealedHead,
    identity: Identity,
    sealing: &[u8; 32],
    seed: &[u8; 32],
    notes: &[u8; 32],
) -> io::Result<Vec<u8>> {
    getrandom::fill(&mut head.nonce).map_err(io::Error::other)?;
    let bytes = start(Kind::SealedKey, head)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(PLAIN));
    plain.extend_from_slice(seed);
    plain.extend_from_slice(notes);
    plain.extend_from_slice(&identity.inode.to_le_bytes());
    plain.extend_from_slice(&identity.born.to_le_bytes());
    let payload = Payload {
        msg: &plain,
        aad: &bytes,
    };
    let body = XChaCha20Poly1305::new(sealing.into())
        .encrypt(&XNonce::from(head.nonce), payload)
        .map_err(|_| io::Error::other("sealing failed"))?;
    Ok(finish(bytes, &body))
}

/// Refuses a file that others may read.
#[cfg(unix)]
fn check_mode(held: &Held) -> Result<(), SealedError> {
    use std::os::unix::fs::PermissionsExt;
    let path = held.path().to_owned();
    let found = held.file().metadata().map_err(|error| {
        let doing = "read";
        Problem::System { doing, error }.at(&path)
    })?;
    match found.permissions().mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(SealedError::Mode { path, mode }),
        _ => Ok(()),
    }
}

/// Elsewhere there are no such permissions.
#[cfg(not(unix))]
const fn check_mode(_: &Held) -> Result<(), SealedError> {
    Ok(())
}

#[cfg(test)]
mod tests;
