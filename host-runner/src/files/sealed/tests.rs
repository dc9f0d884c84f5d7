//! Sealed keys: what is kept, what repeats, what is counted and what is refused.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use he_core::params::N4096_DEPTH3 as P;
use sha2::{Digest, Sha256};

use super::super::{HASH, PREFIX};
use super::*;
use crate::held;

fn allowance(queries: u32) -> Allowance {
    Allowance::new(queries, 30).unwrap()
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text.into()).unwrap()
}

fn right() -> Passphrase {
    passphrase("correct horse")
}

/// A sealed key of so many publications.
fn made(queries: u32) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.key");
    let key = SealedKey::create(&path, &P, allowance(queries), &right(), Cost::LEAST);
    drop(key.unwrap());
    (folder, path)
}

fn is_in_use(error: &SealedError) -> bool {
    matches!(error, SealedError::Held(error) if matches!(error.problem, held::Problem::InUse))
}

/// Opens a key that this process has let go of. A process that another test starts holds
/// the lock, too, until it has become its own program.
fn opened(path: &Path) -> Result<SealedKey, SealedError> {
    for _ in 0..1000 {
        match SealedKey::open(path, &right()) {
            Err(error) if is_in_use(&error) => std::thread::sleep(Duration::from_millis(5)),
            other => return other,
        }
    }
    panic!("somebody keeps {}", path.display())
}

fn reopen(path: &Path) -> SealedKey {
    opened(path).unwrap()
}

/// Why it is not opened, on one line without what could steer a terminal.
fn refusal(path: &Path) -> SealedError {
    let error = opened(path).unwrap_err();
    assert!(!error.to_string().contains(char::is_control), "{error}");
    error
}

#[test]
fn key_and_count_outlive_the_process() {
    let (folder, path) = made(3);
    let id = *reopen(&path).id();
    let slots = [0.5, -0.25];
    let (level, scale) = (3, f64::from(1 << 26));
    let mut first = reopen(&path).keys().unwrap();
    let sent = first.encrypt(&slots, &[], level, scale).unwrap();
    for spent in 0..3 {
        let mut key = reopen(&path);
        assert_eq!((key.head().spent, *key.id()), (spent, id));
        assert_eq!(key.allowance(), allowance(3));
        key.spend(&id).unwrap();
    }
    let mut key = reopen(&path);
    assert!(matches!(key.spend(&id), Err(SealedError::Spent(3))));
    // It still decrypts what was encrypted before, for its holder.
    let mut bytes = Vec::new();
    sent.write(&P, &mut bytes).unwrap();
    let limbs = || vec![0; (level + 1) * P.n()];
    let ct = he_core::wire::read_seeded(&P, &bytes, limbs(), limbs()).unwrap();
    let mut object = vec![
        0;
        he_core::wire::Kind::Ciphertext
            .object_len(&P, level)
            .unwrap()
    ];
    he_core::wire::write_ciphertext(&P, &ct, &mut object).unwrap();
    let keys = key.keys().unwrap();
    let back = keys.decrypt(&object, level, scale, 0..2).unwrap();
    assert!(
        back.iter().zip(slots).all(|(a, b)| (a - b).abs() < 1e-4),
        "{back:?}"
    );
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "the key and nothing beside it");
    assert!(matches!(
        SealedKey::create(&path, &P, allowance(3), &right(), Cost::LEAST),
        Err(SealedError::Held(_))
    ));
}

/// Whoever keeps a seed and derives both from it encrypts twice with one randomness, and
/// the difference of two ciphertexts is that of their messages; whoever opens a sealed key
/// does not.
#[test]
fn a_key_that_is_opened_again_does_not_repeat_its_randomness() {
    let (_folder, path) = made(0);
    let scale = f64::from(1 << 26);
    let body = |keys: &mut Keys, value: f64| {
        let fresh = keys
            .encrypt(&vec![value; P.slots()], &[], 0, scale)
            .unwrap();
        let mut bytes = Vec::new();
        fresh.write(&P, &mut bytes).unwrap();
        let limb = || vec![0; P.n()];
        let ct = he_core::wire::read_seeded(&P, &bytes, limb(), limb()).unwrap();
        ct.into_parts()
    };
    // A constant has one and the same residue in every place of the NTT domain, so the
    // difference of two that share their randomness has, too.
    let shows = |[a0, a1]: [Vec<u32>; 2], [b0, b1]: [Vec<u32>; 2]| {
        let q = P.prime(0).unwrap().modulus();
        let mut differences = a0.iter().zip(&b0).map(|(&a, &b)| q.sub(a, b));
        let first = differences.next().unwrap();
        a1 == b1 && differences.all(|d| d == first)
    };
    let naive = |value| {
        let mut keys = Keys::from_seed(&P, &[7; 32]).unwrap();
        body(&mut keys, value)
    };
    assert!(shows(naive(0.625), naive(0.0)));
    let seed = KeySeed::new([7; 32]);
    let derived = |value| body(&mut Keys::derived(&P, &seed).unwrap(), value);
    assert!(!shows(derived(0.625), derived(0.0)));
    let mut halves = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let key = reopen(&path);
        // Not even two of one opening.
        for _ in 0..2 {
            let mut keys = key.keys().unwrap();
            for _ in 0..2 {
                let [c0, c1] = body(&mut keys, 0.625);
                halves.insert(c0);
                halves.insert(c1);
            }
        }
    }
    assert_eq!(halves.len(), 4 * 2 * 2 * 2);
}

#[test]
fn only_the_passphrase_opens_it_and_nothing_is_printed() {
    let (_folder, path) = made(1);
    let wrong = SealedKey::open(&path, &passphrase("correct horsE")).unwrap_err();
    assert!(matches!(wrong, SealedError::Passphrase(_)), "{wrong}");
    let key = reopen(&path);
    let printed = format!("{key:?} {:?}", right());
    assert!(!printed.contains(&format!("{:?}", key.seed)), "{printed}");
    assert!(!printed.contains("horse"), "{printed}");
    let bytes = std::fs::read(&path).unwrap();
    for secret in [&key.seed[..], &key.notes[..], &key.sealing[..]] {
        assert!(!bytes.windows(8).any(|w| w == &secret[..8]));
    }
    // Sealed again, another nonce: what is equal is not seen to be.
    let nonce = key.head.nonce;
    drop(key);
    let mut key = reopen(&path);
    let id = *key.id();
    key.spend(&id).unwrap();
    assert_ne!(key.head.nonce, nonce);
}

/// With a hash that is right: what was changed on purpose.
fn rehashed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - HASH;
    let hash = Sha256::digest(&bytes[..end]);
    bytes[end..].copy_from_slice(&hash);
    bytes
}

#[test]
fn every_change_is_refused() {
    let (_folder, path) = made(100);
    let id = *reopen(&path).id();
    reopen(&path).spend(&id).unwrap();
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        // Into the same inode.
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(refusal(&path), SealedError::File(_)), "byte {at}");
        if at < good.len() - HASH {
            std::fs::write(&path, rehashed(bad)).unwrap();
            refusal(&path);
        }
    }
    for length in [0, 1, 7, 8, PREFIX, PREFIX + 9, good.len() - 1] {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(refusal(&path), SealedError::File(_)), "{length}");
    }
    // The count, by one who knows the format and not the passphrase.
    let text = String::from_utf8_lossy(&good[PREFIX..]).into_owned();
    assert!(text.contains("\"spent\":1,"), "{text}");
    let at = good.windows(9).position(|w| w == b"\"spent\":1").unwrap();
    let mut forged = good.clone();
    forged[at + 8] = b'0';
    std::fs::write(&path, rehashed(forged)).unwrap();
    assert!(matches!(refusal(&path), SealedError::Passphrase(_)));
    // What a reader is asked for is bounded before it is given.
    let at = good.windows(10).position(|w| w == b"\"passes\":1").unwrap();
    let mut costly = good.clone();
    costly.splice(at + 9..at + 10, b"4000000000".to_owned());
    let head = u32::from_le_bytes(good[12..16].try_into().unwrap()) + 9;
    costly[12..16].copy_from_slice(&head.to_le_bytes());
    std::fs::write(&path, rehashed(costly)).unwrap();
    assert!(matches!(refusal(&path), SealedError::Cost { .. }));
    std::fs::write(&path, good).unwrap();
    assert_eq!(reopen(&path).head().spent, 1);
}

/// Through no other name, and from no copy, is anything published beside the count.
#[cfg(unix)]
#[test]
fn links_and_copies_are_refused() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let (folder, path) = made(3);
    let named = |name: &str| folder.path().join(name);
    let is_link = |error: SealedError| matches!(error, SealedError::Held(held) if matches!(held.problem, held::Problem::Link(_)));
    symlink(&path, named("link.key")).unwrap();
    assert!(is_link(refusal(&named("link.key"))));
    std::fs::hard_link(&path, named("hard.key")).unwrap();
    assert!(is_link(refusal(&path)) && is_link(refusal(&named("hard.key"))));
    std::fs::remove_file(named("hard.key")).unwrap();

    // A copy counts nothing, wherever it lies, and however often it is made: the number
    // of a freed inode is given again.
    let old = named("old.key");
    std::fs::copy(&path, &old).unwrap();
    assert!(matches!(refusal(&old), SealedError::Copy(_)));
    let id = *reopen(&path).id();
    reopen(&path).spend(&id).unwrap();
    std::fs::rename(&path, named("away.key")).unwrap();
    for _ in 0..20 {
        std::fs::copy(&old, &path).unwrap();
        assert!(matches!(refusal(&path), SealedError::Copy(_)));
        std::fs::remove_file(&path).unwrap();
    }
    // The old content in the place of the new one, in the same inode.
    std::fs::copy(&old, named("away.key")).unwrap();
    assert!(matches!(refusal(&named("away.key")), SealedError::Copy(_)));

    // Moved, it is the same file.
    let (folder, path) = made(3);
    let moved = folder.path().join("moved.key");
    std::fs::rename(&path, &moved).unwrap();
    let mut key = reopen(&moved);
    assert_eq!(
        std::fs::metadata(&moved).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let id = *key.id();
    key.spend(&id).unwrap();
    assert_eq!(
        std::fs::metadata(&moved).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // What is put in its place while it is held is not counted on.
    std::fs::rename(&moved, &path).unwrap();
    assert!(matches!(key.spend(&id), Err(SealedError::Held(_))));
    drop(key);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(
        refusal(&path),
        SealedError::Mode { mode: 0o640, .. }
    ));
}

#[test]
fn a_refused_result_retires_the_key_for_good() {
    let (_folder, path) = made(5);
    let mut key = reopen(&path);
    let id = *key.id();
    assert!(matches!(
        key.spend(&KeyId([1; 16])),
        Err(SealedError::Key { .. })
    ));
    assert!(matches!(
        key.retire(&KeyId([1; 16])),
        Err(SealedError::Key { .. })
    ));
    key.retire(&id).unwrap();
    drop(key);
    let mut key = reopen(&path);
    assert!(key.head().retired);
    assert!(matches!(key.keys(), Err(SealedError::Retired(_))));
    assert!(matches!(key.spend(&id), Err(SealedError::Retired(_))));
}

/// Names the key that a process of the tests below spends from.
const CHILD: &str = "HE_EDGE_TEST_SEALED";

/// A process that publishes until nothing is left.
fn child(path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "files::sealed::tests::spends_until_the_end";
    command.args(["--exact", name, "--ignored", "--nocapture"]);
    command.env(CHILD, path).stdout(Stdio::piped());
    command
}

/// Publishes once; whether anything was left to publish.
#[expect(clippy::print_stdout, reason = "who started it counts the lines")]
fn publish() -> bool {
    let path = PathBuf::from(std::env::var_os(CHILD).unwrap());
    loop {
        let spent = SealedKey::open(&path, &right()).and_then(|mut key| {
            let id = *key.id();
            key.spend(&id)
        });
        match spent {
            Ok(()) => {
                // Only now would something be decrypted.
                println!("published");
                return true;
            }
            Err(SealedError::Spent(_)) => return false,
            // Another process has it, or has just replaced it.
            Err(SealedError::Held(held)) => assert!(
                matches!(held.problem, held::Problem::InUse | held::Problem::Replaced),
                "{held}"
            ),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
#[ignore = "a process of its own, which other tests start"]
fn spends_until_the_end() {
    while publish() {}
}

fn publications(output: &[u8]) -> u32 {
    String::from_utf8_lossy(output)
        .matches("published\n")
        .count() as u32
}

#[test]
fn two_processes_spend_what_one_may() {
    let (_folder, path) = made(40);
    let children = [(); 2].map(|()| child(&path).spawn().unwrap());
    let published = children.map(|child| {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        publications(&output.stdout)
    });
    assert_eq!(published.iter().sum::<u32>(), 40, "{published:?}");
    assert_eq!(reopen(&path).head().spent, 40);
}

/// Processes that are killed at all moments have never published more than was counted,
/// and the key opens again.
#[test]
fn a_process_killed_at_any_moment_has_counted_what_it_published() {
    let (_folder, path) = made(1_000_000);
    let (mut published, mut spent) = (0, 0);
    for round in 0..40u64 {
        let mut child = child(&path).spawn().unwrap();
        let (mut output, mut seen) = (child.stdout.take().unwrap(), Vec::new());
        // From before it opens the key, or from its first publication on.
        while round % 2 == 1 && publications(&seen) == 0 {
            let mut some = [0; 64];
            let count = output.read(&mut some).unwrap();
            assert!(count > 0, "it ended by itself");
            seen.extend_from_slice(&some[..count]);
        }
        std::thread::sleep(Duration::from_micros(331 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        output.read_to_end(&mut seen).unwrap();
        published += publications(&seen);
        spent = reopen(&path).head().spent;
        // A kill loses one publication at most.
        assert!(published <= spent && u64::from(spent - published) <= round + 1);
    }
    assert!(published > 0 && spent > 0);
}

#[test]
fn passphrases_come_from_files() {
    use super::super::PassphraseError;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("passphrase");
    let read = |text: &[u8]| {
        std::fs::write(&path, text).unwrap();
        Passphrase::from_file(&path).map(|passphrase| passphrase.bytes().to_vec())
    };
    for text in [
        "correct horse",
        "correct horse\n",
        "correct horse\r\nmore\n",
    ] {
        assert_eq!(read(text.as_bytes()).unwrap(), b"correct horse");
    }
    assert_eq!(read(" a\t".as_bytes()).unwrap(), b" a\t");
    assert_eq!(read(&[b'x'; 1024]).unwrap().len(), 1024);
    assert!(matches!(read(b""), Err(PassphraseError::Empty)));
    assert!(matches!(read(b"\nx"), Err(PassphraseError::Empty)));
    for length in [1025, 5000] {
        assert!(matches!(
            read(&vec![b'x'; length]),
            Err(PassphraseError::Long)
        ));
    }
    assert!(matches!(
        Passphrase::from_file(folder.path()),
        Err(PassphraseError::File { .. })
    ));
}
