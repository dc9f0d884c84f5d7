//! `he-edge bench`: what operations cost, beside the figures to beat.

pub mod board;
pub mod host;

use std::path::PathBuf;

use clap::{Args, value_parser};
use he_core::benchmarks::Operation;
use he_core::params::{N4096_DEPTH3, Params};
use serde::Serialize;

use he_nn::plan::{Packing, WeightMode};
use he_nn::{boards, bundled};

use super::infer;
use super::output::{self, Bar};
use super::sense::{SenseArguments, SenseReport, sense};
use super::{Failure, ModelFile, parse_device};
use crate::device::firmware_build::{self, Options};
use crate::device::{Device, Opening};
use crate::image::{Image, Sizes};
use crate::planning;
use crate::report::infer::InferReport;
use crate::report::text::{self, grouped};
use crate::report::timeline::Timeline;
use crate::run::{self, Work};
use crate::service;

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// Where: `inproc` for this machine, `qemu` or `qemu:BOARD` for an emulated
    /// board, with one whole inference there.
    #[arg(long, default_value = "inproc", value_parser = parse_device)]
    pub device: Device,
    /// The parameter set, on this machine; a board's image has that of its network.
    #[arg(long, value_name = "SET", default_value = "n4096-depth3", value_parser = any_set)]
    pub params: &'static Params,
    /// Measured runs of each operation on this machine; otherwise as many as take 0.2 s, and
    /// at least 15.
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    pub runs: Option<u16>,
    /// Write the results as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub op: &'static str,
    /// Ring degree.
    pub n: usize,
    /// Limbs that it works on.
    pub limbs: usize,
    /// log2 of the modulus of these limbs.
    pub log_q: f64,
    /// log2 of data modulus and special prime; 0 for a transform of one limb.
    pub log_qp: f64,
    /// Median microseconds; `null` on a board.
    pub median_us: Option<f64>,
    /// Instructions; `null` on a host.
    pub instructions: Option<u32>,
    /// The kernels that ran.
    pub backend: &'static str,
}

impl Row {
    /// A row without figures.
    fn of(operation: Operation, params: &Params, backend: &'static str) -> Self {
        let limbs = operation.limbs(params);
        let round = |x: f64| (x * 1000.0).round() / 1000.0;
        let log_qp = if limbs == 1 { 0.0 } else { params.log_qp() };
        Self {
            op: operation.name(),
            n: params.n(),
            limbs,
            log_q: round(params.log_q(limbs - 1)),
            log_qp: round(log_qp),
            median_us: None,
            instructions: None,
            backend,
        }
    }
}

/// A kernel on a board.
#[derive(Clone, Debug, Serialize)]
pub struct KernelRow {
    /// Its name; a number behind it is the bits of the prime.
    pub kernel: String,
    /// Butterflies of a transform, coefficients of everything else.
    pub items: u32,
    /// Instructions for all of them.
    pub instructions: u32,
}

/// A figure of the board, its limit and what others need.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// What is measured, with its unit.
    pub figure: &'static str,
    /// Here.
    pub value: f64,
    /// At most this was to be reached.
    pub limit: f64,
    /// SEAL-Embedded 1.1.0 on the same emulator (gcc -O3), where it has this.
    pub seal_embedded: Option<f64>,
}

/// What `bench --json` writes.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The device.
    pub device: String,
    /// The parameter set.
    pub params: String,
    /// Per operation.
    pub results: Vec<Row>,
    /// Per kernel; empty on a host.
    pub kernels: Vec<KernelRow>,
    /// What was to be reached; empty on a host.
    pub targets: Vec<Target>,
    /// The release image; `null` on a host.
    pub image: Option<Sizes>,
    /// One inference of the bundled network; `null` on a host.
    pub inference: Option<InferReport>,
    /// One encryption by the sensor of that board; `null` on a host.
    pub sensor: Option<SenseReport>,
}

/// Median microseconds of SEAL 4.4.3 on one thread, at N = 4096 with primes of
/// 36, 36 and 37 bits (log2(QP) = 109): as most people get it, and with HEXL
/// (AVX-512 IFMA). Measured on one of our machines.
const SEAL: [(&str, f64, f64); 6] = [
    ("ntt_forward", 55.0, 6.2),
    ("encode", 188.0, 113.0),
    ("encrypt_secret", 536.0, 418.0),
    ("relinearize", 634.0, 281.0),
    ("rotate", 652.0, 286.0),
    ("rescale", 176.0, 45.0),
];

/// The parameter set of the reference network.
const PARAMS: &Params = &N4096_DEPTH3;

/// The network of the inference.
const MODEL: &str = "mnist-mlp64";

fn any_set(name: &str) -> Result<&'static Params, String> {
    planning::any_set(name).map_err(|e| e.to_string())
}

/// Runs `bench`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &BenchArguments) -> Result<(), Failure> {
    output::check(arguments.json.as_deref())?;
    let device = arguments.device.to_string();
    let on_host = matches!(arguments.device, Device::InProcess);
    if !on_host && (arguments.params.name() != PARAMS.name() || arguments.runs.is_some()) {
        return Err(Failure::BenchOfHost { device });
    }
    let report = match &arguments.device {
        Device::InProcess => BenchReport {
            device,
            params: planning::set_name(arguments.params),
            results: host::measure(arguments.params, arguments.runs.map(usize::from))?,
            kernels: Vec::new(),
            targets: Vec::new(),
            image: None,
            inference: None,
            sensor: None,
        },
        Device::Emulator { board } => on_board(device, board)?,
        Device::Tcp { .. } | Device::Serial { .. } | Device::Nats { .. } => {
            return Err(Failure::NoBench { device });
        }
    };
    output::present(arguments.json.as_deref(), &report, || text(&report))
}

fn on_board(device: String, board: &str) -> Result<BenchReport, Failure> {
    let counted = board::run(board)?;
    let results = Operation::ALL.into_iter().map(|operation| Row {
        instructions: counted
            .counts
            .get(operation.name())
            .map(|count| count.instructions),
        ..Row::of(operation, PARAMS, "cortex_m")
    });
    let is_operation = |name: &str| Operation::ALL.iter().any(|op| op.name() == name);
    let kernels = counted
        .counts
        .iter()
        .filter(|(name, _)| !is_operation(name))
        .map(|(name, count)| KernelRow {
            kernel: name.clone(),
            items: count.items,
            instructions: count.instructions,
        });
    let options = Options {
        board,
        model: None,
        params: PARAMS,
        features: &[],
        inputs: None,
    };
    let image = Image::read(&firmware_build::build(&options)?)?.sizes;
    let inference = infer_once(&device, board)?;
    let mut report = BenchReport {
        device,
        params: planning::set_name(PARAMS),
        results: results.collect(),
        kernels: kernels.collect(),
        targets: Vec::new(),
        image: Some(image),
        inference: Some(inference),
        sensor: Some(sense_once(board)?),
    };
    report.targets = targets(&counted, &report, board)?;
    Ok(report)
}

/// One image through the release image of the board.
fn infer_once(device: &str, board: &str) -> Result<InferReport, Failure> {
    let file = ModelFile::open(MODEL)?;
    let digits = bundled::digits()?;
    let samples: Vec<_> = digits.samples().take(1).collect();
    let mut bar = Bar::default();
    let request = service::Request {
        device: &Device::Emulator {
            board: board.into(),
        },
        params: None,
        terms: WeightMode::Plain.into(),
        by_time: false,
        packing: Packing::Latency,
        trace: false,
        audit: 0.0,
        key: None,
        publish: None,
        receipts: None,
        limits: service::Limits::default(),
        padding: None,
        opening: Opening {
            model: file.built_from(),
            log: infer::no_log,
            line_rate: None,
            progress: &mut bar,
        },
    };
    let model = file.parse()?;
    let mut service = service::open(model, request).map_err(file.failed())?;
    run::classify(
        &mut *service,
        Work::of(file.name(), &samples, device),
        &mut bar,
        &mut Timeline::default(),
    )
    .map_err(file.failed_in_run())
}

/// One encryption by the sensor on the board.
fn sense_once(board: &str) -> Result<SenseReport, Failure> {
    sense(&SenseArguments {
        device: Device::Emulator {
            board: board.into(),
        },
        image: 0,
        classify: false,
        model: MODEL.into(),
        json: None,
        log: false,
        masked_key: false,
    })
}

/// The figures of the board that have a limit.
fn targets(
    counted: &board::Report,
    report: &BenchReport,
    board: &str,
) -> Result<Vec<Target>, Failure> {
    let count = |name: &str| {
        counted
            .counts
            .get(name)
            .copied()
            .ok_or_else(|| Failure::BoardBench {
                board: board.into(),
                last: format!("a report without {name}"),
            })
    };
    let each = |name| count(name).map(|c| f64::from(c.instructions) / f64::from(c.items));
    let mut targets = vec![
        Target {
            figure: "forward NTT, instructions per butterfly",
            value: each("ntt-forward-27")?,
            limit: 8.5,
            seal_embedded: Some(27.7),
        },
        Target {
            figure: "inverse NTT, instructions per butterfly",
            value: each("ntt-inverse-27")?,
            limit: 9.0,
            seal_embedded: None,
        },
    ];
    if let Some(sensor) = &report.sensor {
        let ram = sensor.ram_static_bytes + sensor.ram_stack_peak_bytes;
        targets.push(Target {
            figure: "a sensor's encode and encrypt, 2048 values, four limbs, million instructions",
            value: sensor.instructions.unwrap_or_default() as f64 / 1e6,
            limit: 4.0,
            seal_embedded: Some(32.6),
        });
        targets.push(Target {
            figure: "its RAM, static and stack, KiB",
            value: f64::from(ram) / 1024.0,
            limit: 100.0,
            seal_embedded: Some(145.0),
        });
    }
    if let Some(evaluator) = report.inference.as_ref().map(|i| &i.evaluator) {
        let ram = evaluator.ram_static_bytes + evaluator.ram_stack_peak_bytes;
        let limit = boards::find(board)?.ram_bytes;
        targets.push(Target {
            figure: "one inference, link excluded, million instructions",
            value: evaluator.instructions.unwrap_or_default() as f64 / 1e6,
            limit: 150.0,
            seal_embedded: None,
        });
        targets.push(Target {
            figure: "its RAM, static and stack, KiB",
            value: f64::from(ram) / 1024.0,
            limit: limit as f64 / 1024.0,
            seal_embedded: None,
        });
    }
    if let Some(image) = report.image {
        targets.push(Target {
            figure: "code in flash, KiB",
            value: image.code as f64 / 1024.0,
            limit: 96.0,
            seal_embedded: None,
        });
    }
    Ok(targets)
}

/// The report for people.
#[must_use]
pub fn text(report: &BenchReport) -> String {
    let Some(image) = &report.image else {
        return on_host_text(report);
    };
    let none = || String::from("-");
    let rows: Vec<[String; 5]> = report
        .results
        .iter()
        .map(|row| {
            let coefficients = (row.limbs * row.n) as f64;
            [
                row.op.into(),
                row.n.to_string(),
                row.limbs.to_string(),
                row.instructions.map_or_else(none, |i| grouped(i.into())),
                row.instructions
                    .map_or_else(none, |i| format!("{:.1}", f64::from(i) / coefficients)),
            ]
        })
        .collect();
    let header = ["operation", "N", "limbs", "instructions", "a coefficient"];
    let mut out = text::table(header, &rows);
    let rows: Vec<[String; 4]> = report
        .kernels
        .iter()
        .map(|row| {
            [
                row.kernel.clone(),
                grouped(row.items.into()),
                grouped(row.instructions.into()),
                format!("{:.2}", f64::from(row.instructions) / f64::from(row.items)),
            ]
        })
        .collect();
    out.push('\n');
    out.push_str(&text::table(
        ["kernel", "items", "instructions", "an item"],
        &rows,
    ));
    if let Some(inference) = &report.inference {
        let stages = &inference.evaluator.stages;
        let rows: Vec<[String; 2]> = stages
            .iter()
            .map(|s| [s.name.clone(), s.instructions.map_or_else(none, grouped)])
            .collect();
        out.push('\n');
        out.push_str(&text::table(
            ["stage of an inference", "instructions"],
            &rows,
        ));
        out.push('\n');
        let e = &inference.evaluator;
        out.push_str(&text::facts(&[
            (
                "RAM",
                format!(
                    "{} bytes static, {} bytes of stack at most",
                    grouped(e.ram_static_bytes.into()),
                    grouped(e.ram_stack_peak_bytes.into())
                ),
            ),
            (
                "flash",
                format!(
                    "{} bytes code, {} bytes tables, {} bytes model",
                    grouped(image.code),
                    grouped(image.tables),
                    grouped(image.model)
                ),
            ),
        ]));
    }
    let rows: Vec<[String; 4]> = report
        .targets
        .iter()
        .map(|t| {
            let figure = |x: f64| format!("{x:.2}");
            [
                t.figure.into(),
                figure(t.value),
                figure(t.limit),
                t.seal_embedded.map_or_else(none, figure),
            ]
        })
        .collect();
    out.push('\n');
    out.push_str(&text::table(
        ["to be reached", "here", "at most", "SEAL-Embedded"],
        &rows,
    ));
    out.push_str(
        "SEAL-Embedded 1.1.0, counted in the same emulator; it encrypts only, with three primes.\n",
    );
    out
}

fn on_host_text(report: &BenchReport) -> String {
    let none = || String::from("-");
    let with_peers = report.params == planning::set_name(PARAMS);
    let rows: Vec<[String; 7]> = report
        .results
        .iter()
        .map(|row| {
            let peer = SEAL.iter().find(|(op, ..)| with_peers && *op == row.op);
            [
                row.op.into(),
                row.n.to_string(),
                row.limbs.to_string(),
                row.median_us.map_or_else(none, |us| format!("{us:.1}")),
                row.backend.into(),
                peer.map_or_else(none, |(_, plain, _)| format!("{plain:.1}")),
                peer.map_or_else(none, |(.., hexl)| format!("{hexl:.1}")),
            ]
        })
        .collect();
    let header = [
        "operation",
        "N",
        "limbs",
        "median us",
        "kernels",
        "SEAL",
        "with HEXL",
    ];
    let mut out = text::table(header, &rows);
    let of_all = report.results.iter().map(|row| row.log_qp);
    let log_qp = of_all.fold(0.0, f64::max);
    out.push_str(&format!("One thread. log2(QP) = {log_qp:.1} here"));
    if with_peers {
        out.push_str("; SEAL 4.4.3 with log2(QP) = 109, in three primes,\non another machine");
    }
    out.push_str(". Keys here are seeds, expanded at each use.\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_is_an_operation() {
        for (name, plain, hexl) in SEAL {
            assert!(Operation::ALL.iter().any(|op| op.name() == name), "{name}");
            assert!(plain > hexl);
        }
    }

    #[test]
    fn a_transform_is_of_one_limb() {
        let row = Row::of(Operation::NttForward, PARAMS, "portable");
        assert_eq!((row.limbs, row.log_qp), (1, 0.0));
        let row = Row::of(Operation::Rotate, PARAMS, "portable");
        assert_eq!(row.limbs, PARAMS.data_limbs());
        assert!(row.log_q < row.log_qp);
    }
}
