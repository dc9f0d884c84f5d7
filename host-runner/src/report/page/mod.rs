//! A page with everything that a directory of results holds: the papers' tables beside
//! ours, which of their claims hold, the other attacks, and the pictures.
//!
//! One file without any request to anywhere: styles and pictures are in it, and its own
//! policy forbids the rest. maud writes it, because its templates are checked by the
//! compiler and escape every value; askama's would be files in another language beside
//! the code for a page that is written in one place.

pub mod beyond;
pub mod cells;
pub mod claims;
mod countermeasures;
pub mod draw;
mod files;
mod leakage;
mod markdown;
pub mod threats;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use attacks::attack::Attack;
use attacks::leakage::Line;
use attacks::paper::{self, Paper, Table};
use attacks::record::{Picture, Record, Scale, Verdict};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;

use crate::attacked::sink::{self, Results, ResultsError};
use crate::timing;
use beyond::Overview;
use cells::{Cell, Ours};
use claims::Claim;
use draw::Look;

pub use files::picture_files;
pub use markdown::markdown;

/// What `infer --json` wrote, as far as the page shows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct InferFile {
    /// The device.
    pub device: String,
    /// The network.
    pub model: String,
    /// `latency` or `batch`.
    pub packing: String,
    /// Per sample.
    pub images: Vec<InferImage>,
    /// Of the encrypted network.
    pub accuracy: f64,
    /// Of the network in the clear.
    pub plain_accuracy: f64,
    /// Samples on which they differ.
    pub label_flips: u64,
    /// The evaluator's side.
    pub evaluator: InferEvaluator,
}

/// One sample.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct InferImage {
    /// Wall-clock seconds; none for a sample without an answer.
    pub seconds: Option<f64>,
}

/// The evaluator's side.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct InferEvaluator {
    /// Per step of the plan.
    pub stages: Vec<InferStage>,
}

/// One step of the plan.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct InferStage {
    /// Its name.
    pub name: String,
    /// Wall-clock seconds per sample; none unless on a host.
    pub seconds: Option<f64>,
}

/// What `train --encrypted --json` wrote, as far as the page shows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TrainingFile {
    /// Rows tested on.
    pub test_rows: usize,
    /// Time of the client for the table and the first model.
    pub encryption: Duration,
    /// The epochs.
    pub epochs: Vec<TrainingEpoch>,
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TrainingEpoch {
    /// Time of the evaluator.
    pub evaluator: Duration,
    /// Time of the client.
    pub client: Duration,
    /// Test rows that the decrypted weights classify right.
    pub right: usize,
}

/// What `bench --json` wrote, as far as the page shows it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct BenchFile {
    /// The device.
    pub device: String,
    /// Per operation.
    pub results: Vec<BenchRow>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct BenchRow {
    /// Its name.
    pub op: String,
    /// Ring degree.
    pub n: u64,
    /// Primes.
    pub limbs: u64,
    /// On a host.
    pub median_us: Option<f64>,
    /// On an emulated board.
    pub instructions: Option<u64>,
}

/// Everything in a directory of results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The attacks' records: of each step the last.
    pub records: Vec<Record>,
    /// Their pictures, by name.
    pub pictures: Vec<(String, Picture)>,
    /// Runs of `infer`.
    pub runs: Vec<InferFile>,
    /// Runs of `train --encrypted`.
    pub trainings: Vec<TrainingFile>,
    /// Runs of `bench`.
    pub benches: Vec<BenchFile>,
    /// What `timing` left.
    pub timing: Vec<Line>,
}

/// Reads a directory: records and pictures of `attack --out`, lines of `timing --out`, and
/// every `.json` file in it that `infer`, `train --encrypted` or `bench` wrote. Other files
/// are left alone.
///
/// # Errors
/// [`ResultsError`].
pub fn read(directory: &Path) -> Result<Found, ResultsError> {
    let mut found = Found {
        records: latest(Results::records(directory)?),
        pictures: sink::pictures(directory)?,
        timing: timing::results::read(directory)?,
        ..Found::default()
    };
    let failed = |source| ResultsError::File {
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "json") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let failed = |source| ResultsError::File {
            path: path.clone(),
            source,
        };
        let text = fs::read(&path).map_err(failed)?;
        if let Ok(run) = serde_json::from_slice(&text) {
            found.runs.push(run);
        } else if let Ok(training) = serde_json::from_slice(&text) {
            found.trainings.push(training);
        } else if let Ok(bench) = serde_json::from_slice(&text) {
            found.benches.push(bench);
        }
    }
    Ok(found)
}

/// Of records of one step and metric, the last.
fn latest(all: Vec<Record>) -> Vec<Record> {
    let mut last = std::collections::HashMap::new();
    for (at, record) in all.iter().enumerate() {
        last.insert((record.step(), record.metric.clone()), at);
    }
    let kept: BTreeSet<usize> = last.into_values().collect();
    let numbered = all.into_iter().enumerate();
    numbered
        .filter(|(at, _)| kept.contains(at))
        .map(|(_, r)| r)
        .collect()
}

/// A number in a table: three significant places after the point, or powers of ten.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if size >= 2.0 && value.fract() == 0.0 && value > 0.0 {
        super::text::grouped(value as u64)
    } else if size >= 100.0 {
        format!("{value:.1}")
    } else if size >= 0.001 {
        format!("{value:.3}")
    } else {
        format!("{value:.1e}")
    }
}

const fn title(paper: Paper) -> &'static str {
    match paper {
        Paper::Xiang2025 => "Xiang, Dalla, Wu (2025)",
        Paper::Shin2021 => "Shin, Choi, Choi (2021)",
        Paper::ChenSong2021 => "Chen, Song (2021)",
    }
}

const fn of_paper(paper: Paper) -> &'static str {
    match paper {
        Paper::Xiang2025 => {
            "Homomorphic Encryption for Neural Network Deployment: An Empirical Security Evaluation"
        }
        Paper::Shin2021 => "Is Homomorphic Encryption-Based Deep Learning Secure Enough?",
        Paper::ChenSong2021 => {
            "Privacy Preserving Training and Evaluation with Homomorphic Encryption: A Case Study \
             on Machine Learning Models"
        }
    }
}

const PAPERS: [Paper; 3] = [Paper::Xiang2025, Paper::Shin2021, Paper::ChenSong2021];

/// What a table shows, and why ours differ.
fn about(table: Table) -> (&'static str, &'static str) {
    match table {
        paper::XIANG_1 => (
            "Membership inference and extraction, a rectifier network in the clear and a square \
             network under encryption",
            "The paper gives neither widths nor numbers of samples. Its membership rows come out \
             with a threshold of .5 on 100 members and 100 others, nearly all of whom are called \
             members; ours is fixed on shadow models, and members and others are drawn from one \
             pool.",
        ),
        paper::SHIN_1 => (
            "The network for MNIST, parameters",
            "The paper's counts imply a padded convolution, 14 x 14 x 5 = 980 values before the \
             dense layer; without padding there are 720.",
        ),
        paper::SHIN_2 => (
            "The network for Fashion-MNIST, parameters",
            "As in Table 1; the last layer's count leaves the ten biases out.",
        ),
        paper::SHIN_3 => (
            "Accuracy",
            "Other training: the paper gives neither epochs nor rates. The train column is of the \
             first training images, those that are reconstructed.",
        ),
        paper::SHIN_4 => (
            "Accuracy under attack, eps 0.3",
            "Weights differ, and the paper gives neither steps nor the norm of C&W. Ours are \
             CleverHans's defaults, but that a quick run gives C&W a tenth of its steps, ten \
             times as large.",
        ),
        paper::SHIN_5 => (
            "Reconstruction by an inverse generator",
            "SSIM here has the data range of the pixels, 1. With a range of 255 even a black image \
             has .98 and a class mean .995, which is likely the paper's mistake. The base line of \
             the paper fits neither column of its Table 3.",
        ),
        paper::SHIN_6 | paper::SHIN_7 => (
            "Membership inference by shadow models",
            "The paper's train rows are of attack sets of 8, 32 and 128 rows, so that they say \
             little; ours are of all samples of the shadow models. Its target is trained on one \
             split and judged on another; ours on a random half of one pool.",
        ),
        paper::SHIN_ABSTRACT => (
            "The figures of the abstract",
            "Means over the tables above, of as many cells as the paper has.",
        ),
        paper::CHEN_LOGISTIC => (
            "Logistic regression on Pima",
            "The paper's accuracies are of 160 rows, as in TenSEAL's tutorial, which balances the \
             classes first; ours are of 230 rows of a 7:3 split. Its five epochs are ours of \
             evaluator and client together.",
        ),
        paper::CHEN_1 => (
            "Time per image and accuracy",
            "Another machine, library and parameters. Ours are of one image at a time where such a \
             run is there, keys excluded. Nothing times networks in the clear.",
        ),
        paper::CHEN_2 | paper::CHEN_3 => (
            "Time by layer",
            "Ours are the evaluator's alone. The paper multiplies vectors by matrices in the clear; \
             here weights are kept encoded.",
        ),
        _ => ("", ""),
    }
}

/// All tables, paper by paper.
const TABLES: [Table; 13] = [
    paper::XIANG_1,
    paper::SHIN_1,
    paper::SHIN_2,
    paper::SHIN_3,
    paper::SHIN_4,
    paper::SHIN_5,
    paper::SHIN_6,
    paper::SHIN_7,
    paper::SHIN_ABSTRACT,
    paper::CHEN_LOGISTIC,
    paper::CHEN_1,
    paper::CHEN_2,
    paper::CHEN_3,
];

/// The page.
#[must_use]
pub fn page(found: &Found) -> String {
    let claims = claims::all(found);
    let cells: Vec<(Table, Vec<Cell>)> = TABLES
        .iter()
        .map(|&table| (table, cells::cells(found, table)))
        .collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'; img-src data:";
                title { "he-edge: what encryption protects" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                header {
                    h1 { "What encryption protects, and what it does not" }
                    p.lead {
                        "Three papers' experiments on neural networks over encrypted data, done \
                         again on the same networks in the clear and behind encryption."
                    }
                    (measured(found, &cells))
                }
                nav aria-label="contents" {
                    a href="#claims" { "claims" }
                    @for paper in PAPERS { a href={ "#" (anchor(paper)) } { (title(paper)) } }
                    a href="#beyond" { "beyond the papers" }
                    a href="#threats" { "threat model" }
                    a href="#attacks" { "all attacks" }
                    @if !found.timing.is_empty() { a href="#leakage" { "leakage" } }
                    a href="#pictures" { "pictures" }
                }
                main {
                    section #claims {
                        h2 { "Which claims hold" }
                        @for claim in &claims { (claim_of(claim)) }
                    }
                    @for paper in PAPERS {
                        section id=(anchor(paper)) {
                            h2 { (title(paper)) }
                            p.paper { (of_paper(paper)) }
                            @for (table, cells) in &cells {
                                @if table.paper == paper { (table_of(*table, cells)) }
                            }
                            @if paper == Paper::Xiang2025 { (planned(found)) }
                            (figures(&curves(found, paper)))
                        }
                    }
                    section #beyond {
                        h2 { "Beyond the papers" }
                        @let overviews = beyond::overviews(found);
                        @if overviews.is_empty() { p.none { "Not measured." } }
                        @for overview in &overviews {
                            h3 { (overview.title) }
                            (overview_of(overview))
                        }
                    }
                    section #threats {
                        h2 { "Threat model" }
                        (overview_of(&threats::table(found)))
                    }
                    section #attacks {
                        h2 { "All attacks" }
                        p { "An access that a target does not give is no defence: the attack was not tried." }
                        @for attack in attacks::ATTACKS { (attack_of(*attack, found)) }
                    }
                    (leakage::section(&found.timing))
                    (benches(found))
                    section #pictures {
                        h2 { "Pictures" }
                        (pictures(found))
                    }
                }
            }
        }
    }
    .into_string()
}

const fn anchor(paper: Paper) -> &'static str {
    match paper {
        Paper::Xiang2025 => "xiang-2025",
        Paper::Shin2021 => "shin-2021",
        Paper::ChenSong2021 => "chen-song-2021",
    }
}

/// What the page is made of.
fn measured(found: &Found, cells: &[(Table, Vec<Cell>)]) -> Markup {
    let records = &found.records;
    let distinct = |of: &dyn Fn(&Record) -> String| {
        let all: BTreeSet<String> = records.iter().map(of).collect();
        all.into_iter().collect::<Vec<String>>().join(", ")
    };
    let all = || cells.iter().flat_map(|(_, cells)| cells);
    let filled = all().filter(|cell| cell.ours().is_some()).count();
    // The seconds of a step stand in each of its records.
    let steps: BTreeMap<String, f64> = records
        .iter()
        .map(|r| (format!("{:?}", r.step()), r.seconds))
        .collect();
    let quick = records.iter().filter(|r| r.scale == Scale::Quick).count();
    html! {
        dl.facts {
            div { dt { "figures of the papers with ours beside them" } dd { (filled) " of " (all().count()) } }
            div { dt { "records" } dd { (records.len()) ", of these " (quick) " of a quick run" } }
            div { dt { "commit" } dd { (distinct(&|r| r.commit.clone())) } }
            div { dt { "seed" } dd { (distinct(&|r| r.seed.to_string())) } }
            div { dt { "runs of infer" } dd { (found.runs.len()) } }
            div { dt { "encrypted trainings" } dd { (found.trainings.len()) } }
            div { dt { "time of all steps" } dd { (number(steps.values().sum::<f64>() / 60.0)) " min" } }
        }
    }
}

fn claim_of(claim: &Claim) -> Markup {
    html! {
        article.claim.(claim.standing.class()) {
            p.standing { (claim.standing.words()) }
            div {
                p.says { (claim.says) " " span.whose { (title(claim.paper)) } }
                p.because { (claim.because) "." }
            }
        }
    }
}

/// A figure of ours in a cell of a table.
fn ours(label: &str, ours: Option<&Ours>) -> Markup {
    html! {
        td data-label=(label) {
            @if let Some(ours) = ours {
                span.value title=(ours.of) { (number(ours.value)) }
                @if let Some([low, high]) = ours.ci95 {
                    " " span.interval { (number(low)) " to " (number(high)) }
                }
            } @else { span.none { "-" } }
        }
    }
}

/// How the paper's figure lies to ours.
fn compared(cell: &Cell) -> String {
    let Some(ours) = cell.ours() else {
        return "not measured".into();
    };
    let difference = ours.value - cell.figure.value;
    // Of times a ratio says more.
    let column = cell.figure.column;
    if (matches!(column, "s" | "s per image") || column.contains(", s")) && ours.value > 0.0 {
        return format!(
            "the paper's {} times ours",
            number(cell.figure.value / ours.value)
        );
    }
    match ours.ci95 {
        Some([low, high]) if (low..=high).contains(&cell.figure.value) => {
            "within our interval".into()
        }
        _ if difference == 0.0 => "equal".into(),
        _ if difference > 0.0 => format!("ours higher by {}", number(difference)),
        _ => format!("ours lower by {}", number(-difference)),
    }
}

fn table_of(table: Table, cells: &[Cell]) -> Markup {
    let (what, why) = about(table);
    html! {
        h3 { (table.name) ": " (what) }
        table {
            thead {
                tr {
                    th { "row" } th { "column" } th { "paper" } th { "ours, encrypted" }
                    th { "ours, in the clear" } th { "difference" }
                }
            }
            tbody {
                @for cell in cells {
                    tr {
                        th scope="row" { (cell.figure.row) }
                        td data-label="column" { (cell.figure.column) }
                        td data-label="paper" { (number(cell.figure.value)) }
                        (ours("ours, encrypted", cell.encrypted.as_ref()))
                        (ours("ours, in the clear", cell.clear.as_ref()))
                        td data-label="difference" { (compared(cell)) }
                    }
                }
            }
        }
        p.why { (why) }
    }
}

/// A table of what is beyond the papers.
fn overview_of(overview: &Overview) -> Markup {
    html! {
        div.wide {
            table {
                thead { tr { @for name in overview.columns { th { (name) } } } }
                tbody {
                    @for row in &overview.rows {
                        tr {
                            @for (at, (cell, name)) in row.iter().zip(overview.columns).enumerate() {
                                @if at == 0 { th scope="row" { (cell) } }
                                @else { td data-label=(name) { span { (cell) } } }
                            }
                        }
                    }
                }
            }
        }
        @if !overview.says.is_empty() { p.because { (overview.says) } }
        p.why { (overview.about) }
    }
}

/// What the paper of 2025 planned and has no figures of.
fn planned(found: &Found) -> Markup {
    let parts = [
        (
            "Planned: gradient-based inversion",
            "With the weights, and by differences of queries on the service. Beside each SSIM \
             stands that of the mean of the class, which tells no more than the answer does.",
            &["ssim", "residual"][..],
            &[
                "gradient-white-box",
                "gradient-differences",
                "gradient-spsa",
            ],
        ),
        (
            "Planned: NN-indistinguishability game",
            "The advantage of a distinguisher goes from 0 to 1. Where outputs are published the \
             game is lost whenever they differ, which is no fault of the encryption.",
            &[],
            &["game-ciphertexts", "game-timing", "game-published"],
        ),
    ];
    html! {
        @for (title, about, metrics, attacks) in parts {
            h3 { (title) }
            p.why { (about) }
            @let mine = |r: &&Record| {
                attacks.contains(&r.attack.as_str())
                    && r.value.is_some()
                    && (metrics.is_empty() || metrics.contains(&r.metric.as_str()))
            };
            @if !found.records.iter().any(|r| mine(&r)) { p.none { "Not measured." } }
            @else { (records(found.records.iter().filter(mine), true)) }
        }
    }
}

const fn verdict(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Success) => "succeeds",
        Some(Verdict::Failure) => "fails",
        Some(Verdict::Inconclusive) => "undecided",
        Some(Verdict::NotApplicable) => "not applicable",
        None => "",
    }
}

fn attack_of(attack: &dyn Attack, found: &Found) -> Markup {
    let mine = found.records.iter().filter(|r| r.attack == attack.name());
    let mine: Vec<&Record> = mine.collect();
    let access: Vec<String> = attack.access().iter().map(|a| a.to_string()).collect();
    html! {
        details {
            summary {
                strong { (attack.name()) } " " (attack.about()) " "
                span.count { (mine.len()) " records" }
            }
            p { "Needs " (access.join(", ")) "." }
            @if mine.is_empty() { p { "Not run: " code { "he-edge attack " (attack.name()) } "." } }
            @else {
                (records(mine.into_iter(), false))
            }
        }
    }
}

/// Records as a table.
fn records<'f>(all: impl Iterator<Item = &'f Record>, with_attack: bool) -> Markup {
    let params = |record: &Record| {
        let each = record.params.iter().map(|(name, value)| match value {
            serde_json::Value::String(text) => format!("{name} {text}"),
            other => format!("{name} {other}"),
        });
        each.collect::<Vec<String>>().join(", ")
    };
    html! {
        table {
            thead {
                tr {
                    th { "target" } th { "with" } th { "metric" } th { "value" }
                    th { "beside" } th { "queries" } th { "verdict" }
                }
            }
            tbody {
                @for record in all {
                    tr {
                        th scope="row" {
                            @if with_attack { (record.attack) " on " }
                            (record.target) " (" (record.dataset) ")"
                        }
                        td data-label="with" { (params(record)) }
                        td data-label="metric" { (record.metric) }
                        td data-label="value" {
                            @match record.value {
                                Some(value) => span.value { (number(value)) },
                                None => span.none { "-" },
                            }
                            @if let Some([low, high]) = record.ci95 {
                                " " span.interval { (number(low)) " to " (number(high)) }
                            }
                        }
                        td data-label="beside" {
                            @for (name, value) in &record.baseline {
                                span.beside { (name) " " (number(*value)) } " "
                            }
                        }
                        td data-label="queries" { (number(record.queries as f64)) }
                        td data-label="verdict" {
                            (verdict(record.verdict))
                            @if let Some(reason) = &record.reason { " " span.reason { (reason) } }
                        }
                    }
                }
            }
        }
    }
}

fn benches(found: &Found) -> Markup {
    html! {
        @if !found.benches.is_empty() {
            section #operations {
                h2 { "Operations" }
                @for bench in &found.benches {
                    h3 { (bench.device) }
                    table {
                        thead { tr { th { "operation" } th { "N" } th { "primes" } th { "median, us" } th { "instructions" } } }
                        tbody {
                            @for row in &bench.results {
                                tr {
                                    th scope="row" { (row.op) }
                                    td data-label="N" { (row.n) }
                                    td data-label="primes" { (row.limbs) }
                                    td data-label="median, us" { (row.median_us.map_or_else(|| "-".to_owned(), number)) }
                                    td data-label="instructions" { (row.instructions.map_or_else(|| "-".to_owned(), super::text::grouped)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One picture with its caption.
fn figure(caption: &str, picture: &Picture) -> Markup {
    let look = draw::draw(picture);
    let left_out = match picture {
        Picture::Curves { curves, .. } => curves.len().saturating_sub(draw::MOST_CURVES),
        Picture::Images { .. } => 0,
    };
    html! {
        figure {
            @match look {
                Ok(Look::Svg(svg)) => (PreEscaped(svg)),
                Ok(Look::Png { file, width, height }) => {
                    img src=(draw::address(&file)) width=(width) height=(height) alt=(caption);
                }
                Err(reason) => p.none { "This picture cannot be drawn: " (reason) "." },
            }
            figcaption {
                (caption)
                @if left_out > 0 { "; " (left_out) " more curves are left out" }
            }
        }
    }
}

/// A metric over a parameter, a curve per target.
fn over(
    found: &Found,
    attack: &str,
    metric: &str,
    parameter: &str,
    dataset: &str,
    only: &dyn Fn(&Record) -> bool,
) -> Option<Picture> {
    let mut curves: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let full = found
        .records
        .iter()
        .any(|r| r.attack == attack && r.scale == Scale::Full);
    for record in &found.records {
        let at = record
            .params
            .get(parameter)
            .and_then(serde_json::Value::as_f64);
        let scale = (record.scale == Scale::Full) == full;
        // Chen and Song's networks are attacked by nobody.
        let theirs = ["mnist-fcnn", "mnist-cnn"]
            .iter()
            .any(|n| record.target.starts_with(n));
        let mine = record.attack == attack && record.metric == metric && scale && !theirs;
        if let (true, true, Some(x), Some(y)) = (
            mine && record.dataset == dataset,
            only(record),
            at,
            record.value,
        ) {
            curves
                .entry(record.target.clone())
                .or_default()
                .push((x, y));
        }
    }
    for points in curves.values_mut() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|a, b| a.0 == b.0);
    }
    let curves: Vec<_> = curves
        .into_iter()
        .filter(|(_, points)| points.len() > 1)
        .collect();
    (!curves.is_empty()).then(|| Picture::Curves {
        x: parameter.to_owned(),
        y: metric.to_owned(),
        logarithmic: false,
        curves,
    })
}

/// Curves over eps and over the budget of queries, from the records, with captions.
fn curves(found: &Found, paper: Paper) -> Vec<(String, Picture)> {
    let mut drawn: Vec<(String, Picture)> = Vec::new();
    for dataset in ["mnist", "fashion-mnist"] {
        let mut add = |attack: &str, metric, parameter, only: &dyn Fn(&Record) -> bool| {
            if let Some(picture) = over(found, attack, metric, parameter, dataset, only) {
                drawn.push((
                    format!("{attack}, {dataset}: {metric} over {parameter}"),
                    picture,
                ));
            }
        };
        match paper {
            Paper::Shin2021 => {
                for attack in ["fgsm", "bim", "pgd"] {
                    add(attack, "accuracy", "eps", &|_| true);
                }
            }
            Paper::Xiang2025 => {
                let natural = |r: &Record| r.params.get("queries").is_some_and(|q| q == "natural");
                for attack in ["extraction-labels", "extraction-logits"] {
                    add(attack, "agreement", "budget", &natural);
                }
            }
            Paper::ChenSong2021 => {}
        }
    }
    drawn
}

fn figures(drawn: &[(String, Picture)]) -> Markup {
    html! {
        @if !drawn.is_empty() {
            div.figures { @for (caption, picture) in drawn { (figure(caption, picture)) } }
        }
    }
}

fn pictures(found: &Found) -> Markup {
    let mut groups: BTreeMap<&str, Vec<&(String, Picture)>> = BTreeMap::new();
    for entry in &found.pictures {
        let of = attacks::ATTACKS.iter().map(|attack| attack.name());
        let name = of
            .filter(|name| entry.0.starts_with(name))
            .max_by_key(|name| name.len());
        groups
            .entry(name.unwrap_or("others"))
            .or_default()
            .push(entry);
    }
    html! {
        @if groups.is_empty() { p { "There is none in this directory." } }
        @for (name, entries) in &groups {
            h3 { (name) }
            div.figures { @for (caption, picture) in entries { (figure(caption, picture)) } }
        }
    }
}

#[cfg(test)]
mod tests;
