//! What long forms of tests have measured: committed tables, which documents show
//! (`tests/tests/documents.rs`). With HE_EDGE_LONG and `HE_EDGE_UPDATE_FIGURES=1` the tests
//! write their rows anew.

use std::env;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use he_nn::message::PROTOCOL_VERSION;

/// A table of figures.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its file, from the root of the project.
    pub path: &'static str,
    /// Names of its columns, but for those at the end that every table has.
    pub columns: &'static str,
}

/// Faults of a link: through what, inferences, faults, tries again, seconds.
pub const FAULTS: Table = Table {
    path: "tests/figures/faults.csv",
    columns: "through,inferences,faults,tried-again,seconds",
};

/// Kills of processes: what evaluates, kills of the client, of it, finished runs, images of
/// each, times that a client went on with a ledger.
pub const KILLS: Table = Table {
    path: "tests/figures/kills.csv",
    columns: "evaluator,kills-of-client,kills-of-evaluator,runs,images,resumed",
};

/// What every row ends with: the protocol's version and what the tests were built from.
pub const ENDS_WITH: &str = "protocol,commit,committed";

/// A long form that is under way, whose figures are kept if that is asked for.
#[derive(Debug)]
pub struct Run {
    /// What it was built from, as far as sources have not changed since.
    commit: Option<String>,
}

impl Run {
    /// Begins, if it is a long form.
    ///
    /// # Panics
    /// If git does not know the commit, which figures are kept with.
    #[must_use]
    pub fn begin(is_long: bool) -> Self {
        let is_kept = is_long && env::var_os("HE_EDGE_UPDATE_FIGURES").is_some();
        Self {
            commit: is_kept.then(|| commit(&root())),
        }
    }

    /// Puts figures into the row of a table that `name` begins.
    ///
    /// # Panics
    /// If the table cannot be written.
    pub fn keep(&self, table: Table, name: &str, figures: &[u64]) {
        let Some(commit) = &self.commit else {
            return;
        };
        let mut row = name.to_owned();
        for figure in figures {
            row.push_str(&format!(",{figure}"));
        }
        row.push_str(&format!(",{PROTOCOL_VERSION},{commit}"));
        put(table, name, &row);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Puts a row into a table, in place of the one that begins so.
fn put(table: Table, name: &str, row: &str) {
    let path = root().join(table.path);
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path).unwrap();
    // Tests that run at the same time have rows of the same table.
    file.lock().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let mut rows: Vec<&str> = text.lines().skip(1).collect();
    match rows
        .iter()
        .position(|old| old.split(',').next() == Some(name))
    {
        Some(at) => rows[at] = row,
        None => rows.push(row),
    }
    let text = format!("{},{ENDS_WITH}\n{}\n", table.columns, rows.join("\n"));
    file.rewind().unwrap();
    file.set_len(0).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// The commit that the tests are built from, with a `+` if there is more than it has, and
/// its date.
fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        let output = command.current_dir(root).args(arguments).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        )
    };
    let (is_known, commit) = git(&["show", "-s", "--format=%h,%cs", "HEAD"]);
    assert!(is_known, "git knows no commit");
    let others = ["diff", "--quiet", "HEAD", "--", ".", ":!tests/figures"];
    match git(&others) {
        (true, _) => commit,
        (false, _) => commit.replacen(',', "+,", 1),
    }
}
