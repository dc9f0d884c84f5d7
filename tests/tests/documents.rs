//! Figures in documents are those of the code and of the committed tables.
//!
//! A table between `<!-- NAME -->` and `<!-- end -->` is made here;
//! `HE_EDGE_UPDATE_DOCUMENTS=1` writes it anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use he_edge_tests::figures::{self, Table};
use he_nn::boards::{BOARDS, Board};
use he_nn::model::{Layer, Model, Padding};
use he_nn::plan::{PlanError, Target, WeightMode};
use he_nn::{boards, bundled};
use host_runner::choice::Exchanged;
use host_runner::client::Padding as LinkPadding;
use host_runner::line::{Exchange, LINES};
use host_runner::planning;
use host_runner::report::page;
use host_runner::report::plan::{LineReport, PlanReport, PlannedPadding};
use host_runner::report::text::bytes;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A count with thousands separated by commas, as in prose.
fn grouped(count: usize) -> String {
    host_runner::report::text::grouped(count as u64).replace(' ', ",")
}

/// A Markdown table; columns of numbers are aligned right.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let header: Vec<String> = header.iter().map(|&name| name.to_owned()).collect();
    let is_number = |cell: &String| {
        cell.chars()
            .all(|c| c.is_ascii_digit() || ".,-".contains(c))
    };
    let rule = |column: usize| match rows.iter().all(|row| is_number(&row[column])) {
        true => "---:",
        false => "---",
    };
    let rules: Vec<&str> = (0..header.len()).map(rule).collect();
    let mut out = line(&header);
    out.push_str(&format!("|{}|\n", rules.join("|")));
    for row in rows {
        assert_eq!(row.len(), header.len(), "{row:?}");
        out.push_str(&line(row));
    }
    out
}

/// What is refused, by the sentence that says why.
#[derive(Default)]
struct Refused(BTreeMap<String, Vec<String>>);

impl Refused {
    fn add(&mut self, what: String, reason: &PlanError) {
        let named = self.0.entry(reason.to_string()).or_default();
        if !named.contains(&what) {
            named.push(what);
        }
    }

    fn list(&self) -> String {
        let line =
            |(reason, what): (&String, &Vec<String>)| format!("- {}: {reason}\n", what.join(", "));
        self.0.iter().map(line).collect()
    }
}

/// The lines of a committed table, without comments and header.
fn lines_of(path: &str) -> Vec<Vec<String>> {
    let text = read(path);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines
        .skip(1)
        .map(|line| line.split(',').map(Into::into).collect());
    lines.collect()
}

/// Columns 0 and `column` of a committed table.
fn counts_of(path: &str, column: usize) -> BTreeMap<String, usize> {
    let lines = lines_of(path).into_iter();
    let counts = lines.map(|line| (line[0].clone(), line[column].parse().unwrap()));
    counts.collect()
}

fn models() -> impl Iterator<Item = (&'static str, Model<'static>)> {
    bundled::model_names().map(|name| (name, Model::parse(bundled::model(name).unwrap()).unwrap()))
}

const MODES: [(WeightMode, &str); 2] = [
    (WeightMode::Plain, "plain"),
    (WeightMode::Encrypted, "encrypted"),
];

fn reported(
    model: Model<'_>,
    weights: WeightMode,
    board: Option<&Board>,
) -> Result<PlanReport, PlanError> {
    let target = board.map_or(Target::Host, Board::target);
    let plan = planning::plan(None, model, weights, target)?;
    Ok(PlanReport::of(model.name().to_owned(), &plan, board).unwrap())
}

/// Every board as its entry has it.
fn all_boards() -> String {
    let rows: Vec<Vec<String>> = BOARDS
        .iter()
        .map(|board| {
            let run = match board.machine {
                Some(_) => "in QEMU",
                None => "nowhere: it builds and fits",
            };
            let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
            let external = match board.external_bytes {
                0 => "-".to_owned(),
                some => kib(some),
            };
            let keys = match (board.external_bytes, board.kept_bytes, board.flash) {
                (0, 0, _) => "-".to_owned(),
                (0, bytes, Some(flash)) => format!("{}, {}", kib(bytes), flash.name),
                (0, bytes, None) => format!("{}, external RAM", kib(bytes)),
                _ => "beside the arena".to_owned(),
            };
            vec![
                format!("`{}`", board.name),
                board.core.to_owned(),
                kib(board.ram_bytes),
                external,
                kib(board.flash_bytes),
                keys,
                run.to_owned(),
            ]
        })
        .collect();
    table(
        &[
            "board",
            "processor",
            "RAM",
            "external RAM for the arena",
            "flash for the image",
            "for keys",
            "has run",
        ],
        &rows,
    )
}

/// What keeping the reference network's keys in a chip's flash comes to.
fn flash() -> String {
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    let boards = BOARDS.iter().filter(|board| board.flash.is_some());
    let rows = boards.map(|board| {
        let report = reported(model, WeightMode::Plain, Some(board)).unwrap();
        let on_board = report.board.unwrap();
        let kept = on_board.kept_flash.unwrap();
        vec![
            format!("`{}`", board.name),
            kept.name.to_owned(),
            format!("{} of {}", kept.kept, kept.keys),
            grouped(kept.erased),
            grouped(kept.programmed),
            format!("{:.1} s", kept.seconds),
            grouped(kept.exchanges as usize),
            bytes(report.input_bytes as u64 + report.key_bytes as u64),
            bytes(on_board.later_upload_bytes as u64),
        ]
    });
    table(
        &[
            "board",
            "flash",
            "keys kept",
            "sectors erased",
            "units programmed",
            "the first image waits",
            "exchanges of keys that it endures",
            "up, first image",
            "up, later",
        ],
        &rows.collect::<Vec<_>>(),
    )
}

/// The images of all boards.
const SIZES: &str = "firmware/benches/sizes.csv";

/// What an image holds.
fn sizes() -> String {
    let rows: Vec<Vec<String>> = lines_of(SIZES)
        .into_iter()
        .map(|line| {
            let mut row = vec![format!("`{}`", line[0]), line[1].clone()];
            row.extend(line[2..].iter().map(|n| grouped(n.parse().unwrap())));
            row
        })
        .collect();
    table(
        &["board", "rustc", "code", "tables", "model", "static RAM"],
        &rows,
    )
}

/// What the RAM of an emulated board is taken by.
fn memory() -> String {
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    let columns = ["mps2-an386", "mps2-an386-256k"].map(|name| {
        let board = boards::find(name).unwrap();
        let report = reported(model, WeightMode::Plain, Some(board)).unwrap();
        report.board.unwrap().memory
    });
    let [first, second] = &columns;
    assert!(
        second
            .iter()
            .all(|part| first.iter().any(|other| other.name == part.name))
    );
    let rows: Vec<Vec<String>> = first
        .iter()
        .map(|part| {
            // The smaller board has no room for some.
            let same = second.iter().find(|other| other.name == part.name);
            let other = same.map_or_else(|| "-".to_owned(), |other| grouped(other.bytes));
            vec![part.name.to_owned(), grouped(part.bytes), other]
        })
        .collect();
    table(&["bytes", "`mps2-an386`", "`mps2-an386-256k`"], &rows)
}

/// Arena and estimate of every network on the emulated boards.
fn plans() -> String {
    let emulated: Vec<&Board> = BOARDS.iter().filter(|b| b.machine.is_some()).collect();
    let mut rows = Vec::new();
    let mut refused = Refused::default();
    for (name, model) in models() {
        for (weights, mode) in MODES {
            let mut arenas = Vec::new();
            let mut planned = None;
            for board in &emulated {
                arenas.push(match reported(model, weights, Some(board)) {
                    Ok(report) => {
                        let used = report.board.clone().unwrap();
                        let arena = grouped(used.arena_bytes);
                        planned = Some((report, used));
                        arena
                    }
                    Err(reason) => {
                        let what = match reason {
                            PlanError::Relu { .. } => format!("`{name}`"),
                            _ => format!("`{name}`, {mode}, on `{}`", board.name),
                        };
                        refused.add(what, &reason);
                        "-".into()
                    }
                });
            }
            let Some((report, used)) = planned else {
                continue;
            };
            let upload = report.input_bytes + report.key_bytes + used.weight_bytes;
            let mut row = vec![
                format!("`{name}`"),
                mode.to_owned(),
                report.params.n.to_string(),
                (used.instructions_estimate / 1_000_000).to_string(),
                bytes(upload as u64),
                bytes(used.later_upload_bytes as u64),
            ];
            row.extend(arenas);
            rows.push(row);
        }
    }
    let mut header = vec![
        "network",
        "weights",
        "N",
        "million instructions",
        "upload",
        "of later images",
    ];
    let names: Vec<String> = emulated
        .iter()
        .map(|board| format!("arena, `{}`", board.name))
        .collect();
    header.extend(names.iter().map(String::as_str));
    format!(
        "{}\nWhere there is none, the plan says why:\n\n{}",
        table(&header, &rows),
        refused.list()
    )
}

/// What was counted of the plan for slow lines.
const SLOW_LINE: &str = "firmware/benches/slow-line.csv";

/// Plans of the reference network that differ in how much the client sends.
fn inputs() -> String {
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    let board = boards::find("mps2-an386").unwrap();
    let report = reported(model, WeightMode::Plain, Some(board)).unwrap();
    let alternatives = report.board.unwrap().alternatives;
    let millions = |count: f64| format!("{:.0}", count / 1e6);
    let mut header = vec![
        "inputs",
        "up, first image",
        "up, later",
        "down",
        "million instructions",
    ];
    header.push("error of a logit");
    header.extend(LINES.iter().map(|line| line.name));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for alternative in &alternatives {
        let figures = alternative.figures.as_ref().unwrap();
        let mut row = vec![
            alternative.inputs.to_string(),
            bytes(figures.upload_bytes_first as u64),
            bytes(figures.upload_bytes_later as u64),
            bytes(figures.download_bytes as u64),
            millions(figures.instructions_estimate as f64),
            format!("{:.4}", figures.logit_error_six_sigma),
        ];
        let seconds = figures.lines.iter().map(|line| line.seconds_later);
        row.extend(seconds.map(|seconds| format!("{seconds:.1} s")));
        rows.push(row);
    }
    let counted = &lines_of(SLOW_LINE)[0];
    let count = |column: usize| counted[column].parse::<u64>().unwrap();
    let mut row = vec!["1, counted".to_owned()];
    row.extend([0, 1, 2].map(|column| bytes(count(column))));
    row.push(millions(count(3) as f64));
    row.resize(header.len(), "-".to_owned());
    rows.push(row);
    table(&header, &rows)
}

/// What an image of the reference network takes on lines, by board.
fn lines() -> String {
    let (name, line) = ("mnist-mlp64", |line: &LineReport| {
        let later = match line.seconds_later < 0.99 * line.seconds_first {
            true => format!(", later {:.1}", line.seconds_later),
            false => String::new(),
        };
        format!(
            "{:.1} s{later}; {:.0} %",
            line.seconds_first,
            100.0 * line.busy
        )
    });
    let model = Model::parse(bundled::model(name).unwrap()).unwrap();
    let boards = ["nrf52840-dk", "nucleo-h743zi", "pico2", "mps2-an386"];
    let boards = boards.map(|name| boards::find(name).unwrap());
    let reports = boards.map(|board| {
        let report = reported(model, WeightMode::Plain, Some(board)).unwrap();
        report.board.unwrap().lines
    });
    // An evaluator whose computing takes no time.
    let target = boards[1].target();
    let plan = planning::plan(None, model, WeightMode::Plain, target).unwrap();
    let alone = Exchange::of(&plan, &[]).unwrap();
    let rows = LINES.iter().map(|of| {
        let passage = alone.over(*of, boards[1].window, f64::INFINITY);
        let mut row = vec![
            of.name.to_owned(),
            format!("{:.1} s; {:.0} %", passage.seconds, 100.0 * passage.share),
        ];
        row.extend(reports.iter().map(|report| {
            let on_board = report.iter().find(|line| line.baud == of.baud);
            on_board.map_or_else(|| "-".to_owned(), line)
        }));
        row
    });
    let mut header = vec!["line, 8 ms each way".to_owned(), "link alone".to_owned()];
    header.extend(boards.map(|board| {
        let megahertz = board.core_hz / 1_000_000;
        format!("`{}`, {megahertz} MHz", board.name)
    }));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, &rows.collect::<Vec<_>>())
}

/// What padding costs an image, on a host behind a link and on a board.
fn padding() -> String {
    let (name, most) = ("mnist-mlp64", "2,621,440 up, 65,536 down");
    let padding = |every| LinkPadding {
        up: 2_621_440,
        down: 65_536,
        every: Duration::from_millis(every),
    };
    let model = Model::parse(bundled::model(name).unwrap()).unwrap();
    let plan = |target| planning::plan(None, model, WeightMode::Plain, target).unwrap();
    let row = |of: &str, every: u64, least: String, open: &Exchanged<'_>, window: u32| {
        let padding = padding(every);
        let images =
            [&open.first, &open.later].map(|image| image.padded(&open.plan, window, &padding));
        // All that there is to say of it is that they are one.
        assert_eq!(
            (images[0].up, images[0].down),
            (images[1].up, images[1].down),
            "{of}"
        );
        let [first, later] = [&open.first, &open.later].map(|image| grouped(image.up()));
        vec![
            of.to_owned(),
            format!("{first}; {later}"),
            grouped(open.later.down()),
            format!("{every} ms"),
            least,
            grouped(images[0].cells),
            grouped(images[0].up),
            grouped(images[0].down),
            format!("{:.1}", images[0].seconds),
        ]
    };
    let mut rows = Vec::new();
    let plan_of_host = plan(Target::STREAM);
    let mut keys = Vec::new();
    plan_of_host.keys(|target, _| keys.push(target));
    let on_host = Exchanged {
        first: Exchange::first(&plan_of_host, &keys).unwrap(),
        later: Exchange::of(&plan_of_host, &keys).unwrap(),
        plan: plan_of_host,
    };
    rows.push(row(
        "`serve` on a host",
        5,
        "-".to_owned(),
        &on_host,
        64 * 1024,
    ));
    for (name, every) in [("mps2-an386", 500), ("pico2", 150)] {
        let board = boards::find(name).unwrap();
        let plan = plan(board.target());
        let planned = PlannedPadding::of(&plan, board, &padding(every)).unwrap();
        assert!(
            planned.least_every_ms < every as f64,
            "{}",
            planned.least_every_ms
        );
        let least = format!("{:.0} ms", planned.least_every_ms);
        let of = format!("`{name}`, {} MHz", board.core_hz / 1_000_000);
        let open = Exchanged::new(plan, board).unwrap();
        rows.push(row(&of, every, least, &open, board.window));
    }
    let padded = format!("up, padded to {most}");
    let header = [
        "evaluator of `mnist-mlp64`",
        "up, first image; later",
        "down",
        "a cell every",
        "least that is not late",
        "cells",
        &padded,
        "down, padded",
        "seconds, padded",
    ];
    table(&header, &rows)
}

/// What a sensor's encryption is made of, its key open and under masks.
fn sensor() -> String {
    let open = counts_of("firmware/benches/sensor-mps2-an386.csv", 1);
    let masked = counts_of("firmware/benches/sensor-masked-key-mps2-an386.csv", 1);
    let parts = [
        ("encode", "encoding in single precision, instructions"),
        ("errors", "errors"),
        ("limbs", "transforms, the uniform half and its product"),
        ("pack", "packing"),
        ("erase", "erasing"),
        ("all", "together"),
        ("ram-static-bytes", "static RAM, bytes"),
        ("ram-stack-peak-bytes", "stack, bytes"),
    ];
    let rows: Vec<Vec<String>> = parts
        .iter()
        .map(|(item, what)| {
            let counts = [&open, &masked].map(|counts| grouped(counts[*item]));
            [vec![(*what).to_owned()], counts.to_vec()].concat()
        })
        .collect();
    table(&["part", "key as it is", "key under masks"], &rows)
}

/// Operations of he-core on the emulated board.
fn counts() -> String {
    let path = "firmware/benches/counts-mps2-an386.csv";
    let (items, counts) = (counts_of(path, 1), counts_of(path, 2));
    let mut rows = Vec::new();
    for (item, what) in [
        ("ntt-forward-27", "forward NTT, per butterfly"),
        ("ntt-inverse-27", "inverse NTT, per butterfly"),
    ] {
        let each = counts[item] as f64 / items[item] as f64;
        rows.push(vec![what.to_owned(), format!("{each:.2}")]);
    }
    for (item, what) in [
        ("multiply_plain", "product with a plaintext"),
        ("multiply_ct", "product of two ciphertexts, three parts"),
        ("relinearize", "relinearisation"),
        ("rescale", "rescaling"),
        ("rotate", "rotation"),
    ] {
        rows.push(vec![what.to_owned(), grouped(counts[item])]);
    }
    table(&["operation, N = 4096, four limbs", "instructions"], &rows)
}

/// Operations of he-core on a host, counted by `host_counts.rs`.
const OPERATIONS: &str = "tests/figures/operations-avx2.csv";

/// Slope of a line through points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let products: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    products / points.iter().map(|p| (p.0 - x).powi(2)).sum::<f64>()
}

/// How operations grow with the degree, of the same four limbs, and with the limbs, of the
/// same degree, where a digit is one prime; exponents beside those of what is computed.
fn growth() -> String {
    let lines = lines_of(OPERATIONS);
    let count = |set: &str, operation: &str| -> f64 {
        let line = lines
            .iter()
            .find(|line| line[0] == set && line[3] == operation);
        line.unwrap_or_else(|| panic!("{OPERATIONS} has no {operation} of {set}"))[4]
            .parse()
            .unwrap()
    };
    // A transform of N coefficients has N / 2 log2(N) butterflies.
    let doubled = (2.0f64 * 13.0 / 12.0).log2();
    let sets = [
        "n8192-depth3-256",
        "n8192-depth5-192",
        "n8192-depth5",
        "n8192-depth6",
    ];
    let limbs = |set: &str| -> f64 {
        let line = lines.iter().find(|line| line[0] == set && line[3] == "add");
        line.unwrap()[2].parse().unwrap()
    };
    // A key switch transforms each of L digits modulo L + 1 primes.
    let switches: Vec<(f64, f64)> = sets
        .iter()
        .map(|set| (limbs(set).ln(), (limbs(set) * (limbs(set) + 1.0)).ln()))
        .collect();
    let squared = slope(&switches);
    let none = || "-".to_owned();
    let rows: Vec<Vec<String>> = [
        ("ntt_forward", doubled, None),
        ("ntt_inverse", doubled, None),
        ("encode", doubled, Some(1.0)),
        ("encrypt_secret", doubled, Some(1.0)),
        ("decrypt", doubled, Some(1.0)),
        ("add", 1.0, Some(1.0)),
        ("multiply_plain", 1.0, Some(1.0)),
        ("multiply_ct", 1.0, Some(1.0)),
        ("rescale", doubled, Some(1.0)),
        ("relinearize", doubled, Some(squared)),
        ("rotate", doubled, Some(squared)),
        ("keygen_rotation", doubled, Some(squared)),
    ]
    .into_iter()
    .map(|(operation, in_degree, in_limbs)| {
        let of = |set| count(set, operation);
        let degree = (of("n8192-depth3-256") / of("n4096-depth3")).log2();
        let points = sets.map(|set| (limbs(set).ln(), of(set).ln()));
        vec![
            operation.to_owned(),
            grouped(of("n4096-depth3") as usize),
            grouped(of("n8192-depth3-256") as usize),
            format!("{degree:.2}"),
            format!("{in_degree:.2}"),
            in_limbs.map_or_else(none, |_| format!("{:.2}", slope(&points))),
            in_limbs.map_or_else(none, |limbs| format!("{limbs:.2}")),
        ]
    })
    .collect();
    table(
        &[
            "operation",
            "N = 4096, 4 limbs",
            "N = 8192, 4 limbs",
            "exponent of N",
            "expected",
            "exponent of limbs, 4 to 7",
            "expected",
        ],
        &rows,
    )
}

/// Inferences on a host, counted by `host_counts.rs`.
fn host_inferences() -> String {
    let rows: Vec<Vec<String>> = lines_of("tests/figures/inferences-avx2.csv")
        .into_iter()
        .map(|line| {
            let million = line[2].parse::<f64>().unwrap() / 1e6;
            vec![
                format!("`{}`", line[0]),
                line[1].clone(),
                format!("{million:.1}"),
            ]
        })
        .collect();
    table(&["network", "weights", "million instructions"], &rows)
}

/// Every network on a host.
fn networks() -> String {
    let mut rows = Vec::new();
    let mut refused = Refused::default();
    for (name, model) in models() {
        for (weights, mode) in MODES {
            match reported(model, weights, None) {
                Ok(report) => rows.push(vec![
                    format!("`{name}`"),
                    mode.to_owned(),
                    format!("{}, {:.1}", report.params.n, report.params.log_qp),
                    (report.params.data_limbs - 1).to_string(),
                    format!(
                        "{} in {}",
                        bytes(report.input_bytes as u64),
                        report.ciphertexts
                    ),
                    format!("{} in {}", bytes(report.key_bytes as u64), report.keys),
                    format!("{:.4}", report.logit_error_six_sigma),
                ]),
                Err(reason) => refused.add(format!("`{name}`"), &reason),
            }
        }
    }
    let header = [
        "network",
        "weights",
        "N, log2(QP)",
        "levels",
        "input",
        "keys, once",
        "error of a logit, six sigma",
    ];
    format!("{}\nRefused:\n\n{}", table(&header, &rows), refused.list())
}

/// Every network in batches.
fn batches() -> String {
    let mut rows = Vec::new();
    for (name, model) in models() {
        let Ok(plan) = planning::batch_plan(None, model) else {
            continue;
        };
        let report = PlanReport::of_batch(name.to_owned(), &plan).unwrap();
        rows.push(vec![
            format!("`{name}`"),
            format!("{}, {:.1}", report.params.n, report.params.log_qp),
            (report.params.data_limbs - 1).to_string(),
            grouped(report.samples),
            grouped(report.input_bytes / report.samples),
            format!("{:.4}", report.logit_error_six_sigma),
        ]);
    }
    let header = [
        "network",
        "N, log2(QP)",
        "levels",
        "samples per run",
        "input bytes per sample",
        "error of a logit, six sigma",
    ];
    table(&header, &rows)
}

/// What inferences take on emulated boards.
const INFERENCE: &str = "firmware/benches/inference.csv";

/// Inferences on emulated boards.
fn inference() -> String {
    let rows: Vec<Vec<String>> = lines_of(INFERENCE)
        .into_iter()
        .filter(|line| bundled::model(&line[1]).is_some())
        .map(|line| {
            let number = |column: usize| line[column].parse::<usize>().unwrap();
            vec![
                format!("`{}`", line[1]),
                line[2].clone(),
                format!("`{}`", line[0]),
                format!("{:.1}", number(4) as f64 / 1e6),
                format!("{:.1}", number(5) as f64 / 1e6),
                grouped(number(6)),
                grouped(number(7)),
            ]
        })
        .collect();
    let header = [
        "network",
        "weights",
        "board",
        "million instructions",
        "link included",
        "static RAM, bytes",
        "peak of the stack, bytes",
    ];
    table(&header, &rows)
}

/// Right answers of the bundled networks on all test samples, in the clear.
const ACCURACY: &str = "he-nn/assets/accuracy.csv";

/// The accuracies that the papers report for networks of the same layers.
const PAPERS: [(&str, &str); 5] = [
    ("mnist-cryptonets", "97.1 %"),
    ("fashion-cryptonets", "88.4 %"),
    ("mnist-cnn", "98.28 %"),
    ("mnist-fcnn", "96.15 %"),
    ("pima-logreg", "68.1 %"),
];

/// The layers of a network in words.
fn layers(model: &Model<'_>) -> String {
    let mut words = Vec::new();
    for view in model.layers() {
        if view.index == 0 && !matches!(view.layer, Layer::Conv2d { .. }) {
            words.push(view.input.values().to_string());
        }
        words.push(match view.layer {
            Layer::Conv2d { kernel, .. } => format!(
                "conv {} of {}x{} stride {}{}",
                kernel.out_channels,
                kernel.height,
                kernel.width,
                kernel.stride,
                if kernel.padding == Padding::NONE {
                    ""
                } else {
                    ", padded"
                }
            ),
            Layer::Dense { outputs, .. } => outputs.to_string(),
            Layer::Relu { .. } => "ReLU".into(),
            _ if view.layer.is_square() => "square".into(),
            _ => "polynomial".into(),
        });
    }
    words.join(" - ")
}

/// The bundled networks in the clear.
fn accuracy() -> String {
    let papers = BTreeMap::from(PAPERS);
    let rows: Vec<Vec<String>> = lines_of(ACCURACY)
        .into_iter()
        .map(|line| {
            let model = Model::parse(bundled::model(&line[0]).unwrap()).unwrap();
            vec![
                format!("`{}`", line[0]),
                layers(&model),
                percent(line[1].parse().unwrap(), line[2].parse().unwrap()),
                papers
                    .get(&*line[0])
                    .map_or_else(|| "-".into(), |&share| share.into()),
            ]
        })
        .collect();
    table(
        &[
            "network",
            "layers",
            "right in the clear, 8-bit weights",
            "the paper's",
        ],
        &rows,
    )
}

/// The same networks with their weights rounded otherwise.
fn quantization() -> String {
    let lines = lines_of("he-nn/assets/quantization.csv");
    let ways: Vec<[&String; 2]> = lines
        .iter()
        .take_while(|line| line[0] == lines[0][0])
        .map(|line| [&line[1], &line[2]])
        .collect();
    let rows: Vec<Vec<String>> = lines
        .chunks(ways.len())
        .map(|of_network| {
            let first = &of_network[0];
            let mut row = vec![format!(
                "`{}`, {}",
                first[0],
                grouped(first[5].parse().unwrap())
            )];
            for (line, way) in of_network.iter().zip(&ways) {
                assert_eq!([&line[1], &line[2]], *way);
                let [right, samples] = [&line[4], &line[5]].map(|count| count.parse::<f64>());
                let share = 100.0 * right.unwrap() / samples.unwrap();
                row.push(format!("{share:.2} %"));
            }
            row
        })
        .collect();
    let mut header = vec!["network, test samples".to_owned()];
    header.extend(
        ways.iter()
            .map(|[bits, per]| format!("{bits} bits per {per}")),
    );
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    table(&header, &rows)
}

/// Rows of measured figures, as they are; with the commit.
fn measured(table_of: Table, header: &[&str]) -> String {
    let rows = lines_of(table_of.path).into_iter().map(|line| {
        let (figures, ends_with) = line.split_at(header.len());
        let [protocol, commit, committed] = ends_with else {
            panic!("{}: {line:?}", table_of.path);
        };
        let figure = |cell: &String| cell.parse().map_or_else(|_| cell.clone(), grouped);
        let mut row: Vec<String> = figures.iter().map(figure).collect();
        row.push(format!("{commit} of {committed}, {protocol}"));
        row
    });
    let header = [header, &["commit, protocol"]].concat();
    table(&header, &rows.collect::<Vec<_>>())
}

/// Inferences under faults of the link.
fn faults() -> String {
    let header = ["through", "inferences", "faults", "tried again", "seconds"];
    measured(figures::FAULTS, &header)
}

/// Runs through kills.
fn kills() -> String {
    measured(
        figures::KILLS,
        &[
            "evaluator",
            "kills of the client",
            "kills of it",
            "runs",
            "images of each",
            "gone on with",
        ],
    )
}

/// The papers' tables with ours, from the committed records.
fn results() -> String {
    let found = page::read(&root().join("docs/results")).unwrap();
    format!("{}\n", page::markdown(&found).trim_end())
}

/// What makes a table.
type Make = fn() -> String;

const TABLES: [(&str, &str, Make); 20] = [
    ("docs/boards.md", "boards", all_boards),
    ("docs/boards.md", "inference", inference),
    ("docs/boards.md", "sizes", sizes),
    ("docs/boards.md", "memory", memory),
    ("docs/boards.md", "plans", plans),
    ("docs/boards.md", "lines", lines),
    ("docs/boards.md", "inputs", inputs),
    ("docs/boards.md", "padding", padding),
    ("docs/boards.md", "flash", flash),
    ("docs/boards.md", "sensor", sensor),
    ("docs/figures.md", "counts", counts),
    ("docs/figures.md", "growth", growth),
    ("docs/figures.md", "host inferences", host_inferences),
    ("docs/networks.md", "accuracy", accuracy),
    ("docs/networks.md", "quantization", quantization),
    ("docs/networks.md", "networks", networks),
    ("docs/networks.md", "batches", batches),
    ("docs/figures.md", "faults", faults),
    ("docs/figures.md", "kills", kills),
    ("docs/results.md", "results", results),
];

/// A document with a table of its in place of the one that stands there.
fn with_table(text: &str, name: &str, made: &str) -> Option<String> {
    let begin = format!("<!-- {name} -->\n");
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once("<!-- end -->")?;
    Some(format!("{before}{begin}\n{made}\n<!-- end -->{after}"))
}

#[test]
fn tables_are_those_of_the_code() {
    let update = env::var_os("HE_EDGE_UPDATE_DOCUMENTS").is_some();
    for (document, name, make) in TABLES {
        let text = read(document);
        let expected = with_table(&text, name, &make())
            .unwrap_or_else(|| panic!("{document} has no table {name}"));
        if update {
            fs::write(root().join(document), &expected).unwrap();
        } else {
            assert!(
                text == expected,
                "{document}: the table {name} is out of date; HE_EDGE_UPDATE_DOCUMENTS=1 writes it anew"
            );
        }
    }
}

#[test]
fn no_table_is_made_by_hand_between_marks() {
    for document in [
        "docs/boards.md",
        "docs/figures.md",
        "docs/networks.md",
        "docs/results.md",
        "docs/training.md",
    ] {
        let marks = read(document).matches("<!-- end -->").count();
        let made = TABLES.iter().filter(|(of, ..)| *of == document).count();
        assert_eq!(marks, made, "{document}");
    }
}

/// A share in percent, as documents have it.
fn percent(right: usize, samples: usize) -> String {
    format!(
        "{:.2} % of {}",
        100.0 * right as f64 / samples as f64,
        grouped(samples)
    )
}

#[test]
fn accuracies_are_the_same_everywhere() {
    let assets = read("he-nn/assets/README.md");
    let readme = read("README.md");
    let mut names: Vec<String> = lines_of(ACCURACY)
        .into_iter()
        .map(|line| line[0].clone())
        .collect();
    for line in lines_of(ACCURACY) {
        let share = percent(line[1].parse().unwrap(), line[2].parse().unwrap());
        let named = format!("| `{}` |", line[0]);
        let row = assets
            .lines()
            .find(|row| row.starts_with(&named) && row.contains('%'));
        assert!(
            row.is_some_and(|row| row.contains(&share)),
            "{named} {share}"
        );
        assert!(
            line[0] != "mnist-mlp64" || readme.contains(&share),
            "README.md: {share}"
        );
    }
    let mut bundled: Vec<&str> = bundled::model_names().collect();
    bundled.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, bundled);
}

#[test]
fn faults_and_kills_are_as_many_as_the_first_page_says() {
    let sum = |table: Table, columns: &[usize]| -> usize {
        let of = |line: &Vec<String>| -> usize {
            columns
                .iter()
                .map(|&at| line[at].parse::<usize>().unwrap())
                .sum()
        };
        lines_of(table.path).iter().map(of).sum()
    };
    let (inferences, faults) = (sum(figures::FAULTS, &[1]), sum(figures::FAULTS, &[2]));
    let kills = sum(figures::KILLS, &[1, 2]);
    assert!(inferences >= 1000 && faults >= 10_000 && kills >= 200);
    let sentence = format!(
        "{} inferences under {} faults of the link",
        grouped(inferences),
        grouped(faults)
    );
    let readme = read("README.md").replace('\n', " ");
    assert!(readme.contains(&sentence), "README.md: {sentence}");
    let sentence = format!("{} kills of processes", grouped(kills));
    assert!(readme.contains(&sentence), "README.md: {sentence}");
}

/// In JSON and in words, where keys are in a flash and nowhere else.
#[test]
fn a_plan_says_what_keys_take_of_a_flash() {
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    for board in BOARDS {
        let report = reported(model, WeightMode::Plain, Some(board)).unwrap();
        let (text, document) = (report.text(), serde_json::to_value(&report).unwrap());
        let kept = &document["kept_flash"];
        let Some(flash) = board.flash else {
            assert!(kept.is_null() && !text.contains("exchanges"), "{text}");
            continue;
        };
        assert_eq!(kept["name"], flash.name);
        let (erased, seconds) = (kept["erased"].as_f64(), kept["seconds"].as_f64());
        let least = 1e-6 * f64::from(flash.erase_us) * erased.unwrap();
        assert!(seconds.unwrap() > least && least > 0.0, "{kept}");
        let exchanges = kept["exchanges"].as_u64();
        assert!(exchanges >= Some(flash.erasures.into()), "{kept}");
        assert!(
            text.contains(flash.name) && text.contains("exchanges"),
            "{text}"
        );
    }
}

#[test]
fn the_first_page_has_the_figures_of_the_plan() {
    let readme = read("README.md");
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    let board = boards::find("mps2-an386").unwrap();
    let report = reported(model, WeightMode::Plain, Some(board)).unwrap();
    let params = &report.params;
    let line_of = |path, key: &[&str]| {
        let mut lines = lines_of(path).into_iter();
        lines.find(|line| line.iter().zip(key).all(|(cell, key)| cell == key))
    };
    let counted = line_of(INFERENCE, &[board.name, "mnist-mlp64", "plain"]).unwrap();
    let sizes = line_of(SIZES, &[board.name]).unwrap();
    let number = |cell: &String| cell.parse::<usize>().unwrap();
    for figure in [
        format!(
            "{:.1} million instructions",
            number(&counted[4]) as f64 / 1e6
        ),
        format!("{:.1} with the link", number(&counted[5]) as f64 / 1e6),
        format!("{} bytes static", grouped(number(&counted[6]))),
        format!("{} of stack", grouped(number(&counted[7]))),
        format!("{:.1} KB of code", number(&sizes[2]) as f64 / 1e3),
        format!(
            "arena {}",
            grouped(report.board.as_ref().unwrap().arena_bytes)
        ),
        format!(
            "{:.3} at six standard deviations",
            report.logit_error_six_sigma
        ),
        format!(
            "{} with later ones",
            bytes(report.board.as_ref().unwrap().later_upload_bytes as u64)
        ),
        format!("{}-bit security", params.security_bits),
        format!("N = {}, log2(QP) = {:.1}", params.n, params.log_qp),
    ] {
        assert!(readme.contains(&figure), "README.md: {figure}");
    }
}
