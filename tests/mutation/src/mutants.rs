//! Mutants as `cargo mutants --list --json` names them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A place, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl From<proc_macro2::LineColumn> for Place {
    fn from(place: proc_macro2::LineColumn) -> Self {
        Self {
            line: place.line,
            column: place.column + 1,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Span {
    pub start: Place,
    pub end: Place,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    StructField,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Mutant {
    pub name: String,
    pub file: String,
    pub genre: Genre,
    pub replacement: String,
    pub span: Span,
}

impl Mutant {
    /// The name without line and column, which move.
    pub fn title(&self) -> String {
        let Span { start, .. } = self.span;
        self.name
            .replacen(&format!(":{}:{}: ", start.line, start.column), ": ", 1)
    }
}

/// The numbers of `mutants` by file; a mutant's number is its place in the list.
pub fn by_file(mutants: &[Mutant]) -> BTreeMap<&str, Vec<usize>> {
    let mut files = BTreeMap::<_, Vec<_>>::new();
    for (id, mutant) in mutants.iter().enumerate() {
        files.entry(mutant.file.as_str()).or_default().push(id);
    }
    files
}
