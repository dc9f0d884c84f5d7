//! The papers' tables with ours, which claims hold, and what is beyond the papers, as text
//! for a document.

use std::fmt::Write;

use attacks::record::Scale;

use super::beyond::{self, Overview};
use super::cells::{self, Ours};
use super::{Found, TABLES, about, claims, compared, leakage, number, threats, title};

/// Text in a cell of a table, or in a line.
fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' => all.extend(['\\', c]),
            '<' => all.push_str("&lt;"),
            '&' => all.push_str("&amp;"),
            c if c.is_control() => all.push(' '),
            c => all.push(c),
        }
    }
    all
}

fn cell(ours: Option<&Ours>) -> String {
    match ours {
        None => "-".into(),
        Some(Ours {
            value,
            ci95: Some([low, high]),
            ..
        }) => format!("{} ({} to {})", number(*value), number(*low), number(*high)),
        Some(ours) => number(ours.value),
    }
}

/// Where records come from, in a sentence.
fn source(found: &Found) -> String {
    let mut commits: Vec<&str> = found.records.iter().map(|r| r.commit.as_str()).collect();
    commits.sort_unstable();
    commits.dedup();
    let quick = found.records.iter().filter(|r| r.scale == Scale::Quick);
    let quick = match (quick.count(), found.records.len()) {
        (0, _) => "a full run".into(),
        (quick, all) if quick == all => "a quick run: few samples, queries and models".into(),
        (quick, all) => format!("a full run, but {quick} of {all} records of a quick one"),
    };
    let commits: Vec<String> = commits.into_iter().map(escaped).collect();
    format!(
        "{} records of {quick}; commit {}. Intervals are of 95 %.",
        found.records.len(),
        commits.join(", ")
    )
}

/// Tables of which something is measured, the claims, and the threat model.
#[must_use]
pub fn markdown(found: &Found) -> String {
    let mut text = format!("{}\n\n## Which claims hold\n\n", source(found));
    for claim in claims::all(found) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "- **{}**: {} *{}* {}.",
            claim.standing.words(),
            escaped(claim.says),
            title(claim.paper),
            escaped(&claim.because)
        );
    }
    for table in TABLES {
        let cells = cells::cells(found, table);
        let (what, why) = about(table);
        let heading = format!("{}, {}: {what}", title(table.paper), table.name);
        if cells.iter().all(|cell| cell.ours().is_none()) {
            let _ = write!(text, "\n## {heading}\n\nNot measured.\n");
            continue;
        }
        let _ = write!(
            text,
            "\n## {heading}\n\n| row | column | paper | ours, encrypted | ours, in the clear | \
             difference |\n|---|---|---|---|---|---|\n"
        );
        for each in &cells {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} |",
                escaped(each.figure.row),
                escaped(each.figure.column),
                number(each.figure.value),
                cell(each.encrypted.as_ref()),
                cell(each.clear.as_ref()),
                compared(each)
            );
        }
        let _ = write!(text, "\n{why}\n");
    }
    for overview in beyond::overviews(found) {
        table(&mut text, &overview);
    }
    for overview in leakage::overviews(&found.timing) {
        table(&mut text, &overview);
    }
    table(&mut text, &threats::table(found));
    text
}

/// A table of what is beyond the papers.
fn table(text: &mut String, overview: &Overview) {
    let row = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<String> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    // Writing to a string cannot fail.
    let _ = write!(text, "\n## {}\n\n", overview.title);
    text.push_str(&row(&mut overview.columns.iter().map(|c| escaped(c))));
    let _ = writeln!(text, "|{}", "---|".repeat(overview.columns.len()));
    for cells in &overview.rows {
        text.push_str(&row(&mut cells.iter().map(|c| escaped(c))));
    }
    if !overview.says.is_empty() {
        let _ = write!(text, "\n{}\n", escaped(&overview.says));
    }
    let _ = write!(text, "\n{}\n", overview.about);
}
