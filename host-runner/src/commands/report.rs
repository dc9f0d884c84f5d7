//! `he-edge report`: the results of a directory as one page.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::output;
use crate::report::page;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Directory of results: where `attack --out` and `timing --out` left them, with
    /// the files of `infer --json`, `train --encrypted --json` and `bench --json` beside
    /// them.
    pub directory: PathBuf,
    /// The page; `report.html` in the directory unless another file is named, `-` for
    /// standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write the papers' tables and the claims as Markdown to this file, `-` for standard
    /// output; the page then where `--out` names it.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Write every picture into this directory too, as PNG or SVG.
    #[arg(long, value_name = "DIR")]
    pub pictures: Option<PathBuf>,
}

/// Runs `report`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &ReportArguments) -> Result<(), Failure> {
    let directory = &arguments.directory;
    let found = page::read(directory)?;
    if found == page::Found::default() {
        return Err(Failure::NothingToReport {
            directory: directory.clone(),
        });
    }
    if let Some(pictures) = &arguments.pictures {
        fs::create_dir_all(pictures).map_err(|source| Failure::Write {
            path: pictures.clone(),
            source,
        })?;
        for (name, bytes) in page::picture_files(&found) {
            output::write_bytes(&pictures.join(name), &bytes)?;
        }
    }
    if let Some(path) = &arguments.markdown {
        output::write(path, &page::markdown(&found))?;
        if arguments.out.is_none() {
            return Ok(());
        }
    }
    let own = || directory.join("report.html");
    let out = arguments.out.clone().unwrap_or_else(own);
    output::write(&out, &page::page(&found))?;
    if out.as_os_str() == "-" {
        return Ok(());
    }
    output::print(&format!(
        "{}: {} records, {} pictures, {} runs of infer, {} of encrypted training, {} of bench, \
         {} lines of timing\n",
        out.display(),
        found.records.len(),
        found.pictures.len(),
        found.runs.len(),
        found.trainings.len(),
        found.benches.len(),
        found.timing.len()
    ))
}
