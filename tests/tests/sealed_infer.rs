//! `infer --key`: a key and what it may publish outlive the process, and are counted once.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use he_edge_tests::assert_one_sentence;
use he_edge_tests::command::binary;
use serde_json::Value;
use tempfile::TempDir;

/// A directory with a sealed key of `mnist-mlp64`'s set.
struct Place(TempDir);

impl Place {
    fn new(publications: u32) -> Self {
        let place = Self(TempDir::new().unwrap());
        fs::write(place.path("passphrase"), "correct horse").unwrap();
        let publications = publications.to_string();
        let keygen = ["keygen", "made", "--passphrase-file", "passphrase"];
        let made = place.run(&[&keygen[..], &["--publications", &publications]].concat());
        assert!(made.status.success(), "{made:?}");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).env("HE_EDGE_PROGRESS", "never");
        command.current_dir(self.0.path()).output().unwrap()
    }

    /// Infers with a key, and writes the document `out.json`.
    fn infer(&self, key: &str, count: &str, more: &[&str]) -> Output {
        let infer = ["infer", "--key", key, "--passphrase-file", "passphrase"];
        let of = ["--count", count, "--json", "out.json"];
        self.run(&[&infer[..], &of, more].concat())
    }

    fn document(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("out.json")).unwrap()).unwrap()
    }

    /// What the key has published.
    fn spent(&self) -> u64 {
        let file = fs::read(self.path(KEY)).unwrap();
        let head = String::from_utf8_lossy(&file);
        let (_, spent) = head.split_once("\"spent\":").unwrap();
        spent.split(',').next().unwrap().parse().unwrap()
    }
}

const KEY: &str = "made/client/secret.key";

/// The sentence of a command that fails.
fn fails(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    let sentence = errors.trim_end().strip_prefix("he-edge: ");
    let sentence = sentence.expect(&errors).to_owned();
    assert_one_sentence(&errors, &sentence);
    sentence
}

#[test]
fn publications_are_counted_over_processes_and_end() {
    let place = Place::new(4);
    // What its holder decrypts for himself is not counted.
    let alone = place.infer(KEY, "2", &[]);
    assert!(alone.status.success(), "{alone:?}");
    assert_eq!(
        (&place.document()["label_flips"], place.spent()),
        (&0.into(), 0)
    );
    let publish = ["--publish", "labels"];
    let first = place.infer(KEY, "3", &publish);
    assert!(first.status.success(), "{first:?}");
    assert_eq!(place.spent(), 3);
    // Another process, and what is left.
    let sentence = fails(&place.infer(KEY, "3", &publish));
    assert!(sentence.contains("2 of 3 answers"), "{sentence}");
    assert!(sentence.contains("all 4 publications"), "{sentence}");
    assert_eq!(place.document()["images"].as_array().unwrap().len(), 3);
    assert_eq!(place.spent(), 4);
}

#[test]
fn copies_and_links_are_refused_and_nothing_is_written_over_the_key() {
    let place = Place::new(1);
    let key = fs::read(place.path(KEY)).unwrap();
    fs::write(place.path("copy"), &key).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let owner = fs::Permissions::from_mode(0o600);
        fs::set_permissions(place.path("copy"), owner).unwrap();
        let sentence = fails(&place.infer("copy", "1", &[]));
        assert!(sentence.contains("is a copy"), "{sentence}");
        symlink(place.path(KEY), place.path("link")).unwrap();
        let sentence = fails(&place.infer("link", "1", &[]));
        assert!(sentence.contains("symbolic link"), "{sentence}");
    }
    for out in ["--json", "--receipts", "--trace", "--resume"] {
        let infer = ["infer", "--key", KEY, "--passphrase-file", "passphrase"];
        fails(&place.run(&[&infer[..], &["--count", "1", out, KEY]].concat()));
    }
    fs::write(place.path("passphrase"), "another").unwrap();
    let sentence = fails(&place.infer(KEY, "1", &[]));
    assert!(sentence.contains("passphrase"), "{sentence}");
    assert!(!place.path("out.json").exists());
    assert_eq!(fs::read(place.path(KEY)).unwrap(), key);
}

#[test]
fn one_device_has_the_key_and_its_budget_is_its_own() {
    let place = Place::new(1);
    let sentence = fails(&place.infer(KEY, "2", &["--threads", "2"]));
    assert!(sentence.contains("--key"), "{sentence}");
    for (more, what) in [
        (&["--params", "n8192-depth5"][..], "--params"),
        (&["--publish", "labels", "--budget", "new"], "--budget"),
        (
            &["--publish", "labels", "--publications", "9"],
            "--publications",
        ),
    ] {
        let sentence = fails(&place.infer(KEY, "1", more));
        assert!(sentence.contains(what), "{sentence}");
    }
    // One of another set.
    let sentence = fails(&place.infer(KEY, "1", &["--model", "mnist-fcnn"]));
    assert!(sentence.contains("mnist-fcnn"), "{sentence}");
}
