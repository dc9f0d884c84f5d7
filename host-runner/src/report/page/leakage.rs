//! What time tells, from the lines that `he-edge timing` left: a table per experiment, with
//! the controls beside what they control.

use attacks::leakage::{Line, Verdict};
use maud::{Markup, html};

use super::beyond::Overview;
use super::number;

/// An experiment: its name in the lines, its title, what it shows.
const EXPERIMENTS: [(&str, &str, &str); 5] = [
    (
        "host",
        "Operations on a host, fixed against random",
        "welch_t is the largest |t| of dudect's 102 tests; the strict line is 4.5. rtlf is the \
         decile that differs most, in ticks, beside a threshold that at most one test in a \
         hundred without a leak exceeds; it is inconclusive where there were fewer samples than \
         find the smallest leak with a probability of 0.9. A control is the same operation \
         followed by a pass over the secret that leaves zeros out: it has to leak.",
    ),
    (
        "board",
        "Instructions on an emulated board",
        "Over keys, inputs and weights, fixed and random: a variance of zero is demanded. \
         Instructions, not cycles: neither a multiplier nor a cache whose time depends on values \
         shows.",
    ),
    (
        "stages",
        "What the times of an evaluator's steps tell",
        "The advantage of a classifier, from 0 to 1, that learned on half of the inferences. The \
         weights differ in nine tenths that are zero. Another model is a control: it has to be \
         told.",
    ),
    (
        "link",
        "What a link tells",
        "The same for sizes and times of frames. Another model, and encrypted weights, are told \
         by their sizes.",
    ),
    (
        "padding",
        "What a padded link tells",
        "The same over a link that is padded, where nothing must be told, with the link as it \
         is as the control. Late cells are those whose computing may have been seen.",
    ),
];

const fn verdict(line: &Line) -> &'static str {
    match (line.control, line.verdict) {
        (true, Verdict::Leak) => "caught",
        (true, _) => "NOT CAUGHT: the measurement shows nothing",
        (false, Verdict::Pass) => "pass",
        (false, Verdict::Leak) => "leak",
        (false, Verdict::Inconclusive) => "inconclusive: too few samples",
    }
}

/// What is particular to a line, but for what its table says.
fn details(line: &Line) -> String {
    let each = line.details.iter().map(|(name, value)| {
        let name = name.replace('_', " ");
        match (value.as_str(), value.as_f64(), value.as_array()) {
            (Some(text), ..) => format!("{name} {text}"),
            (_, Some(figure), _) => format!("{name} {}", number(figure)),
            (_, _, Some(list)) => {
                let all = list.iter().filter_map(serde_json::Value::as_f64);
                let all: Vec<String> = all.map(number).collect();
                format!("{name} {}", all.join(" to "))
            }
            _ => format!("{name} {value}"),
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

/// The section; nothing where nothing was measured.
pub(super) fn section(lines: &[Line]) -> Markup {
    let undemanded = lines.iter().filter(|line| !line.is_as_demanded()).count();
    let undecided = |line: &&Line| !line.control && line.verdict == Verdict::Inconclusive;
    let undecided = lines.iter().filter(undecided).count();
    html! {
        @if !lines.is_empty() {
            section #leakage {
                h2 { "Leakage" }
                p {
                    @if undemanded == 0 { "Every control was caught, and nothing else leaks. " }
                    @else { (undemanded) " of " (lines.len()) " lines are not as they should be. " }
                    @if undecided > 0 { (undecided) " are inconclusive." }
                }
                @for (name, title, about) in EXPERIMENTS {
                    @let mine: Vec<&Line> = lines.iter().filter(|l| l.experiment == name).collect();
                    @if !mine.is_empty() {
                        h3 { (title) }
                        (table(&mine))
                        p.why { (about) }
                    }
                }
            }
        }
    }
}

/// The same as tables for a document.
pub(super) fn overviews(lines: &[Line]) -> Vec<Overview> {
    let of = |line: &Line| {
        let control = if line.control { ", control" } else { "" };
        vec![
            format!("{}{control}", line.operation),
            line.target.clone(),
            line.statistic.clone(),
            number(line.value),
            number(line.threshold),
            number(line.samples as f64),
            verdict(line).to_owned(),
        ]
    };
    let all = EXPERIMENTS.iter().map(|&(name, title, about)| Overview {
        title,
        about,
        says: String::new(),
        columns: &[
            "operation",
            "on",
            "statistic",
            "value",
            "threshold",
            "samples",
            "verdict",
        ],
        rows: lines
            .iter()
            .filter(|line| line.experiment == name)
            .map(of)
            .collect(),
    });
    all.filter(|overview| !overview.rows.is_empty()).collect()
}

fn table(lines: &[&Line]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th { "operation" } th { "on" } th { "statistic" } th { "value" }
                    th { "threshold" } th { "samples" } th { "verdict" } th { "with" }
                }
            }
            tbody {
                @for line in lines {
                    tr {
                        th scope="row" {
                            (line.operation)
                            @if line.control { ", control" }
                        }
                        td data-label="on" { (line.target) }
                        td data-label="statistic" { (line.statistic) }
                        td data-label="value" { span.value { (number(line.value)) } }
                        td data-label="threshold" { (number(line.threshold)) }
                        td data-label="samples" { (number(line.samples as f64)) }
                        td data-label="verdict" { (verdict(line)) }
                        td data-label="with" { span.reason { (details(line)) } }
                    }
                }
            }
        }
    }
}
