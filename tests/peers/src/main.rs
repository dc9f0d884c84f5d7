//! he-core beside other CKKS libraries: the same N, log2(QP) within two bits, the
//! same circuit with at least their precision, one thread, interleaved in one
//! run. See README.md.

mod chains;
mod clock;
mod heedge;
mod networks;
mod peer;
mod python;
mod seal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chains::{CHAINS, Chain};
use clap::Parser;
use comfy_table::{CellAlignment, LineStyle, Table, presets};
use he_core::ring::kernel::x86::Backend;
use heedge::HeEdge;
use peer::{Operation, Peer};
use python::Python;
use seal::Seal;
use serde::Serialize;

/// log2(QP) of a peer and ours differ by at most this.
const BITS_APART: f64 = 2.0;

/// Times the circuit of precision is run; the largest error counts.
const CIRCUITS: usize = 5;

/// Compares he-core with SEAL, TenSEAL and OpenFHE.
#[derive(Parser)]
struct Arguments {
    /// Write the results as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare networks instead of operations, with TenSEAL.
    #[arg(long)]
    networks: bool,
    /// Rounds: in each, every library runs every operation, or the network; 15, or
    /// 3 for networks.
    #[arg(long)]
    rounds: Option<usize>,
    /// Measured runs of an operation in a round; of a network TenSEAL has one.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only the comparisons whose name begins so: of chains, of networks, `training`.
    #[arg(long, default_value = "")]
    only: String,
    /// Only these operations, named as in the table.
    #[arg(long, value_name = "NAME", value_parser = parse_operation)]
    operation: Vec<Operation>,
    /// Only he-core, on these kernels (`avx2`): to profile it.
    #[arg(long, value_name = "KERNELS")]
    alone: Option<String>,
    /// An interpreter that has TenSEAL; without it TenSEAL is left out.
    #[arg(long, value_name = "PYTHON")]
    tenseal: Option<PathBuf>,
    /// An interpreter that has OpenFHE; without it OpenFHE is left out.
    #[arg(long, value_name = "PYTHON")]
    openfhe: Option<PathBuf>,
}

#[derive(Serialize)]
struct PeerReport {
    name: String,
    log_qp: f64,
    max_slot_error: f64,
    /// Why its times say nothing: what it was measured with is not ours.
    not_comparable: Option<&'static str>,
}

#[derive(Serialize)]
struct Row {
    op: Operation,
    /// By peer.
    median_us: BTreeMap<String, f64>,
}

#[derive(Serialize)]
struct Report {
    chain: &'static str,
    n: usize,
    peers: Vec<PeerReport>,
    results: Vec<Row>,
    /// Geometric means of their time by ours: ours, theirs.
    geometric_means: Vec<(String, String, f64)>,
}

fn parse_operation(name: &str) -> Result<Operation, serde_json::Error> {
    serde_json::from_value(name.into())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.networks {
        let report = networks::compare(
            &arguments.only,
            arguments.rounds.unwrap_or(3),
            arguments.runs,
            arguments.tenseal.as_deref(),
        )?;
        if !write_json(&report, arguments.json.as_deref())? {
            report.print();
        }
        return Ok(());
    }
    let mut reports = Vec::new();
    for chain in CHAINS
        .iter()
        .filter(|c| c.name.starts_with(&arguments.only))
    {
        let wanted = |backend: &Backend| {
            let alone = arguments.alone.as_deref();
            alone.is_none_or(|name| name == backend.name())
        };
        let ours: Result<Vec<_>> = Backend::available()
            .filter(wanted)
            .map(|backend| HeEdge::new(chain, backend))
            .collect();
        match ours {
            Ok(ours) => reports.push(compare(chain, ours, &arguments)?),
            Err(error) => eprintln!("left out: {}: {error}", chain.name),
        }
    }
    ensure!(!reports.is_empty(), "no comparison was made");
    if write_json(&reports, arguments.json.as_deref())? {
        return Ok(());
    }
    for report in &reports {
        print(report);
    }
    Ok(())
}

/// Writes a report where it is wanted; whether that was standard output.
fn write_json(report: &impl Serialize, path: Option<&Path>) -> Result<bool> {
    let Some(path) = path else {
        return Ok(false);
    };
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    if path.as_os_str() == "-" {
        print!("{json}");
        return Ok(true);
    }
    std::fs::write(path, json).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(false)
}

fn compare(chain: &Chain, ours: Vec<HeEdge>, arguments: &Arguments) -> Result<Report> {
    ensure!(!ours.is_empty(), "this processor has no such kernels");
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    if arguments.alone.is_none() {
        peers.push(Box::new(Seal::new(chain)?));
    }
    let interpreters = [
        ("tenseal", &arguments.tenseal),
        ("openfhe", &arguments.openfhe),
    ];
    for (library, interpreter) in interpreters {
        if let (Some(interpreter), None) = (interpreter, &arguments.alone) {
            let peer = Python::new(interpreter, library, chain);
            peers.push(Box::new(peer.with_context(|| library)?));
        }
    }
    let theirs = peers.len();
    peers.extend(ours.into_iter().map(|peer| Box::new(peer) as Box<dyn Peer>));

    let expected = chain.expected();
    let mut described = Vec::new();
    for peer in &mut peers {
        let mut worst = 0.0f64;
        for _ in 0..CIRCUITS {
            let got = peer.circuit().with_context(|| peer.name().to_owned())?;
            ensure!(
                got.len() == expected.len(),
                "{} gave {} slots",
                peer.name(),
                got.len()
            );
            for (got, x) in got.iter().zip(&expected) {
                let error = (got - x).abs();
                ensure!(error.is_finite(), "{} gave no number", peer.name());
                worst = worst.max(error);
            }
        }
        described.push(PeerReport {
            name: peer.name().into(),
            log_qp: peer.log_qp(),
            max_slot_error: worst,
            not_comparable: None,
        });
    }
    let (others, ours) = described.split_at_mut(theirs);
    for other in others {
        for ours in &*ours {
            if (ours.log_qp - other.log_qp).abs() > BITS_APART {
                other.not_comparable = Some("another log2(QP): left out");
            } else if ours.max_slot_error > other.max_slot_error {
                other.not_comparable = Some("more precise than ours");
            }
        }
    }
    let left_out = |i: usize| (described[i].log_qp - described[theirs].log_qp).abs() > BITS_APART;
    let mut operations = Operation::ALL.to_vec();
    if !arguments.operation.is_empty() {
        operations.retain(|operation| arguments.operation.contains(operation));
    }

    let mut times: BTreeMap<(Operation, usize), Vec<Duration>> = BTreeMap::new();
    for _ in 0..arguments.rounds.unwrap_or(15).max(1) {
        for &operation in &operations {
            for (i, peer) in peers.iter_mut().enumerate().filter(|(i, _)| !left_out(*i)) {
                let measured = peer
                    .time(operation, arguments.runs.max(1))
                    .with_context(|| format!("{}: {operation:?}", peer.name()))?;
                if let Some(measured) = measured {
                    times.entry((operation, i)).or_default().extend(measured);
                }
            }
        }
    }
    let results: Vec<Row> = operations
        .into_iter()
        .map(|op| Row {
            op,
            median_us: peers
                .iter()
                .enumerate()
                .filter_map(|(i, peer)| {
                    let times = times.get_mut(&(op, i))?;
                    Some((peer.name().into(), median(times)))
                })
                .collect(),
        })
        .collect();
    let mut geometric_means = Vec::new();
    for ours in &described[theirs..] {
        for other in &described[..theirs] {
            // Where a library has single operations, those count; TenSEAL has
            // almost none.
            let composed = other.name.starts_with("TenSEAL");
            let ratios: Vec<f64> = results
                .iter()
                .filter(|row| composed || row.op.is_single())
                .filter_map(|row| ratio(row, &other.name, &ours.name))
                .collect();
            if ratios.is_empty() {
                continue;
            }
            let mean = ratios.iter().map(|x| x.ln()).sum::<f64>() / ratios.len() as f64;
            geometric_means.push((ours.name.clone(), other.name.clone(), mean.exp()));
        }
    }
    Ok(Report {
        chain: chain.name,
        n: chain.params.n(),
        peers: described,
        results,
        geometric_means,
    })
}

/// Microseconds of the middle one.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// How often ours goes into theirs.
fn ratio(row: &Row, theirs: &str, ours: &str) -> Option<f64> {
    Some(row.median_us.get(theirs)? / row.median_us.get(ours)?)
}

fn print(report: &Report) {
    println!(
        "\n{}: N = {}, CPU time on one thread",
        report.chain, report.n
    );
    for peer in &report.peers {
        println!(
            "  {:<16} log2(QP) = {:5.1}, largest error of a slot 2^{:.1}{}{}",
            peer.name,
            peer.log_qp,
            peer.max_slot_error.log2(),
            peer.not_comparable.map_or("", |_| ": "),
            peer.not_comparable.unwrap_or_default()
        );
    }
    let names = || report.peers.iter().map(|peer| peer.name.as_str());
    let others: Vec<&str> = names().filter(|name| report.measured(name)).collect();
    let (others, ours): (Vec<&str>, Vec<&str>) =
        others.into_iter().partition(|name| !is_ours(name));
    // Beside the fastest of our kernels all libraries, beside the others SEAL.
    let compared = |at: usize| {
        &others[..if at == 0 {
            others.len()
        } else {
            others.len().min(1)
        }]
    };

    let mut header = vec!["median us"];
    header.extend(&others);
    for (at, name) in ours.iter().enumerate() {
        header.push(name);
        header.extend(compared(at).iter().map(|_| "times"));
    }
    let columns = header.len();
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()));
    table.set_header(header);
    let number = |x: Option<f64>, digits| x.map_or_else(|| "-".into(), |x| format!("{x:.digits$}"));
    for row in &report.results {
        let time = |name: &str| number(row.median_us.get(name).copied(), 1);
        let name = serde_json::to_value(row.op).unwrap_or_default();
        let mut cells = vec![name.as_str().unwrap_or_default().to_owned()];
        cells.extend(others.iter().map(|name| time(name)));
        for (at, name) in ours.iter().enumerate() {
            cells.push(time(name));
            let ratios = compared(at).iter().map(|other| ratio(row, other, name));
            cells.extend(ratios.map(|x| number(x, 2)));
        }
        table.add_row(cells);
    }
    let mut cells = vec!["geometric mean".to_owned()];
    cells.extend(others.iter().map(|_| String::new()));
    for (at, name) in ours.iter().enumerate() {
        cells.push(String::new());
        cells.extend(compared(at).iter().map(|other| {
            let mut means = report.geometric_means.iter();
            let mean = means.find(|(a, b, _)| a == name && b == other);
            number(mean.map(|(.., x)| *x), 2)
        }));
    }
    table.add_row(cells);
    for column in 1..columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("{table}");
    if others.is_empty() {
        return;
    }
    println!(
        "times: how often ours goes into {}'s. The mean against TenSEAL is over all rows\n\
         that it has, the others are over the single operations (ntt_forward to rotate).",
        others.join("'s, ")
    );
}

fn is_ours(name: &str) -> bool {
    name.starts_with("he-edge")
}

impl Report {
    fn measured(&self, name: &str) -> bool {
        self.results
            .iter()
            .any(|row| row.median_us.contains_key(name))
    }
}
