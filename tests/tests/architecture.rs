//! The documents lead where they say: every path and name in ARCHITECTURE.md, and every
//! link between documents, is there.

use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 19] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "README.md",
    "SECURITY.md",
    "docs/boards.md",
    "docs/figures.md",
    "docs/files.md",
    "docs/fleet.md",
    "docs/libraries.md",
    "docs/networks.md",
    "docs/results.md",
    "docs/training.md",
    "firmware/README.md",
    "he-core/PRECISION.md",
    "he-core/WIRE.md",
    "he-nn/assets/README.md",
    "tests/README.md",
    "tests/golden/README.md",
    "tests/peers/README.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands in backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Rows of the table from a sentence to a file, without its header.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with("| \""))
}

#[test]
fn every_path_exists() {
    let text = read("ARCHITECTURE.md");
    let paths: Vec<&str> = text
        .lines()
        .flat_map(quoted)
        .filter(|name| name.contains('/') && !name.contains(' '))
        .collect();
    assert!(paths.len() > 40, "{paths:?}");
    for path in paths {
        assert!(root().join(path).exists(), "ARCHITECTURE.md: {path}");
    }
}

#[test]
fn every_sentence_leads_to_a_file_in_one_step() {
    let text = read("ARCHITECTURE.md");
    assert!(rows(&text).count() > 30);
    for row in rows(&text) {
        let (files, names): (Vec<&str>, Vec<&str>) =
            quoted(row).partition(|name| name.contains('/'));
        assert!(!files.is_empty() && !row.contains("there"), "{row}");
        let sources: String = files
            .iter()
            .filter(|path| root().join(path).is_file())
            .map(|path| read(path))
            .collect();
        for name in names {
            let last = name.rsplit("::").next().unwrap_or(name);
            assert!(sources.contains(last), "{row}: {name}");
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for document in DOCUMENTS {
        let text = read(document);
        let directory = root().join(document);
        let directory = directory.parent().unwrap();
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|part| part.split(')').next())
        {
            if link.starts_with("http") || link.starts_with('#') {
                continue;
            }
            let path = link.split('#').next().unwrap_or(link);
            assert!(directory.join(path).exists(), "{document}: {link}");
            links += 1;
        }
    }
    assert!(links > 10, "{links}");
}

#[test]
fn every_document_is_looked_at() {
    for directory in [".", "docs", "firmware", "he-core", "he-nn/assets", "tests"] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                let path = match directory {
                    "." => name,
                    _ => format!("{directory}/{name}"),
                };
                assert!(DOCUMENTS.contains(&path.as_str()), "{path}");
            }
        }
    }
}
