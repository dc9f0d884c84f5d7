//! `he-edge sense`: a sensor encodes and encrypts on its board.

use std::path::PathBuf;
use std::time::Instant;

use chacha20::ChaCha20Rng;
use clap::Args;
use he_nn::data::Image;
use he_nn::message::TimeUnit;
use he_nn::plan::{Target, WeightMode};
use he_nn::progress::Progress;
use he_nn::sensor::{ENTROPY_BYTES, Times};
use he_nn::{bundled, clear};
use rand_core::SeedableRng;
use serde::Serialize;
use zeroize::Zeroizing;

use super::infer::log_sink;
use super::output::{self, Bar};
use super::{Failure, ModelFile, parse_device};
use crate::client::{Client, ClientError, Keys, failed};
use crate::device::emulator::Emulator;
use crate::device::opening::emulated;
use crate::device::serial::Serial;
use crate::device::{Connection, Device, Transport, firmware_build, stream};
use crate::evaluator;
use crate::planning::{self, DEFAULT_SET as PARAMS};
use crate::report::infer::ParamsReport;
use crate::report::text::{self, grouped};
use crate::sensor::{self, Line, Measurement};

/// The sensor's program in the firmware crate.
pub const PROGRAM: &str = "sensor";

/// The feature by which it holds its key under masks.
pub const MASKED_KEY: &str = "masked-key";

/// The firmware's feature by which an emulated sensor takes its entropy from its line.
pub const HOST_ENTROPY: &str = "host-entropy";

/// Arguments of `sense`.
#[derive(Debug, Args)]
pub struct SenseArguments {
    /// Where the sensor runs: `qemu` (builds and starts it), `qemu:BOARD`,
    /// `inproc`, the path of a serial port (`PATH@BAUD`), or `tcp:HOST:PORT`.
    #[arg(long, default_value = "qemu", value_parser = parse_device)]
    pub device: Device,
    /// The bundled digit, 0 to 19, from which on it sees pixels: one per slot.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..20))]
    pub image: u8,
    /// Have it encrypt that digit for the model as well, and the in-process
    /// evaluator classify it.
    #[arg(long)]
    pub classify: bool,
    /// The model: a bundled one or a `.hemodel` file. Its input scale is used.
    #[arg(long, default_value = "mnist-mlp64")]
    pub model: String,
    /// Write the result as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Show the board's log on standard error.
    #[arg(long)]
    pub log: bool,
    /// A sensor that holds its key under masks, against who measures its power: another
    /// image, which encrypts the same in more memory.
    #[arg(long)]
    pub masked_key: bool,
}

/// One step of encoding and encrypting.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Its name.
    pub name: &'static str,
    /// Instructions, `null` unless emulated.
    pub instructions: Option<u64>,
    /// Cycles, `null` unless on hardware.
    pub cycles: Option<u64>,
}

/// The classification of what the sensor encrypted.
#[derive(Clone, Debug, Serialize)]
pub struct ClassifyReport {
    /// The digit's label.
    pub label: u8,
    /// Class of the decrypted logits.
    pub predicted: usize,
    /// Class of the same quantized network in the clear.
    pub plain_predicted: usize,
    /// Largest difference between decrypted and clear logits.
    pub max_logit_error: f64,
    /// What it may be, by the plan or by the image's own values; beyond it the command fails.
    pub allowed_error: f64,
    /// Ciphertexts that the sensor made for it.
    pub ciphertexts: usize,
}

/// What `sense --json` writes.
#[derive(Clone, Debug, Serialize)]
pub struct SenseReport {
    /// The device.
    pub device: String,
    /// The sensor's board.
    pub board: String,
    /// The parameter set.
    pub params: ParamsReport,
    /// Whether this command had it hold its key under masks.
    pub masked_key: bool,
    /// Values that were encrypted.
    pub values: usize,
    /// log2 of the scale.
    pub log_scale: f64,
    /// Largest difference between a value and what decrypts.
    pub max_error: f64,
    /// Bytes of the ciphertext: seed and packed `c0`.
    pub ciphertext_bytes: usize,
    /// Bytes to the sensor for one ciphertext: the values, in place of a
    /// sensing hardware.
    pub bytes_up: u64,
    /// Bytes from the sensor for one ciphertext, framing included.
    pub bytes_down: u64,
    /// Instructions of encoding and encrypting; `null` unless emulated.
    pub instructions: Option<u64>,
    /// Cycles of the same; `null` unless on hardware.
    pub cycles: Option<u64>,
    /// Of that, each step.
    pub steps: Vec<StepReport>,
    /// The sensor's static memory; in-process, the arena.
    pub ram_static_bytes: u32,
    /// Peak of its painted stack; in-process, 0.
    pub ram_stack_peak_bytes: u32,
    /// What became of the digit, if that was asked for.
    pub classified: Option<ClassifyReport>,
    /// Wall-clock seconds of one ciphertext, link included.
    pub wall_seconds: f64,
}

fn open(arguments: &SenseArguments) -> Result<Connection<Box<dyn Transport>>, Failure> {
    let transport: Box<dyn Transport> = match &arguments.device {
        Device::InProcess => Box::new(sensor::in_process(arguments.masked_key)),
        Device::Emulator { board } => {
            emulated(board)?;
            let options = firmware_build::Options {
                board,
                model: None,
                params: PARAMS,
                features: if arguments.masked_key {
                    &[HOST_ENTROPY, MASKED_KEY]
                } else {
                    &[HOST_ENTROPY]
                },
                inputs: None,
            };
            let mut bar = Bar::default();
            bar.note("building the firmware");
            let image = firmware_build::build_program(&options, PROGRAM)?;
            bar.finish();
            // What goes up is little, and a mailbox would count as its memory.
            Box::new(Emulator::start_serial(
                board,
                &image,
                log_sink(arguments.log),
            )?)
        }
        device @ (Device::Tcp { .. } | Device::Serial { .. }) if arguments.masked_key => {
            let device = device.to_string();
            return Err(Failure::FinishedSensor { device });
        }
        Device::Tcp { address } => Box::new(stream::connect(address)?),
        Device::Serial { path, baud } => Box::new(Serial::open(path, *baud)?),
        Device::Nats { .. } => {
            return Err(Failure::NoSensor {
                device: arguments.device.to_string(),
            });
        }
    };
    Ok(Connection::new(transport))
}

/// The steps by name.
#[must_use]
pub fn steps(times: &Times) -> [(&'static str, u64); 5] {
    [
        ("encode", times.encode),
        ("errors", times.errors),
        ("limbs", times.limbs),
        ("pack", times.pack),
        ("erase", times.erase),
    ]
}

/// Pixels of the bundled digits from `first` on, around and around, `1 / 255`
/// each.
fn pixels(digits: &[Image], first: usize) -> Vec<f32> {
    let digits = digits.iter().cycle().skip(first);
    let pixels = digits.flatten().take(PARAMS.slots());
    pixels.map(|&p| f32::from(p) * (1.0 / 255.0)).collect()
}

/// Runs `sense`.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &SenseArguments) -> Result<(), Failure> {
    output::check(arguments.json.as_deref())?;
    let report = sense(arguments)?;
    output::present(arguments.json.as_deref(), &report, || text(&report))?;
    match &report.classified {
        None => Ok(()),
        Some(found) if found.max_logit_error <= found.allowed_error => Ok(()),
        // What is no number, too.
        Some(found) => Err(Failure::BeyondPlan {
            count: 1,
            index: usize::from(arguments.image),
            error: found.max_logit_error,
            allowed: found.allowed_error,
        }),
    }
}

/// Has the sensor encrypt, and checks what it sends.
pub(super) fn sense(arguments: &SenseArguments) -> Result<SenseReport, Failure> {
    let file = ModelFile::open(&arguments.model)?;
    let model = file.parse()?;
    let plan = planning::plan(Some(PARAMS), model, WeightMode::Plain, Target::STREAM);
    let plan = plan.map_err(|source| file.failed()(source.into()))?;
    let digits = bundled::digits()?;
    let first = usize::from(arguments.image);
    let (level, scale) = (plan.input_level(), plan.input_scale());

    let mut line = Line::open(open(arguments)?)?;
    let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
    getrandom::fill(entropy.as_mut()).map_err(ClientError::Random)?;
    line.entropy(*entropy)?;
    line.new_key()?;

    let values = pixels(&digits.images, first);
    let before = line.link().traffic();
    let start = Instant::now();
    line.measure(0, &values)?;
    let measurement = line.encrypt(level, scale)?;
    let wall_seconds = start.elapsed().as_secs_f64();
    let after = line.link().traffic();
    let key = sensor::first_key(*entropy).map_err(failed("key generation"))?;
    let max_error = line.error_of(&measurement, &key, &values)?;

    let mut classified = None;
    if arguments.classify
        && let Some((image, &label)) = digits.images.get(first).zip(digits.labels.get(first))
    {
        // Before anything of it is encrypted: what wraps around may look right.
        let plain = clear::checked(&plan, &image[..]).map_err(ClientError::from)?;
        // The switching keys' randomness is not the sensor's.
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(ClientError::Random)?;
        let rng = ChaCha20Rng::from_seed(*seed);
        let mut link = Connection::new(evaluator::in_process(&plan)?);
        let mut client = Client::with_keys(plan.clone(), Keys::with_key(PARAMS, key, rng))?;
        let mut values = Zeroizing::new(vec![0.0; model.inputs()]);
        model
            .input_values(&image[..], &mut values)
            .map_err(ClientError::from)?;
        let mut ciphertexts = 0;
        let mut bar = Bar::default();
        bar.note("from the sensor");
        let seal = |client: &mut Client<'_>, index| {
            ciphertexts += 1;
            let mut slots = Zeroizing::new(vec![0.0f64; PARAMS.n()]);
            let (re, im) = slots.split_at_mut(PARAMS.slots());
            client.plan().input_slots(index, &values, re, im);
            let slots = slots.iter().map(|&x| x as f32);
            let slots = Zeroizing::new(slots.collect::<Vec<f32>>());
            line.measure(0, &slots)?;
            Ok::<_, Failure>(line.encrypt(level, scale)?.sealed)
        };
        let inference = client.infer_packed(&mut link, seal, &mut bar)?;
        bar.finish();
        let error = clear::largest_error(&inference.logits, &plain);
        let allowed = clear::allowed_alone(&plan, &image[..], error).map_err(ClientError::from)?;
        classified = Some(ClassifyReport {
            label,
            predicted: inference.label(),
            plain_predicted: clear::class(&plain),
            max_logit_error: error,
            allowed_error: allowed.error,
            ciphertexts,
        });
    }

    let report = report(
        arguments.device.to_string(),
        line.board().to_owned(),
        line.unit(),
        ParamsReport::at_level(PARAMS, level),
        &measurement,
    );
    Ok(SenseReport {
        masked_key: arguments.masked_key,
        values: values.len(),
        max_error,
        bytes_up: after.up - before.up,
        bytes_down: after.down - before.down,
        classified,
        wall_seconds,
        ..report
    })
}

/// The report on one measurement, as far as that tells.
fn report(
    device: String,
    board: String,
    unit: TimeUnit,
    params: ParamsReport,
    measurement: &Measurement,
) -> SenseReport {
    let counted = |of, time| (unit == of).then_some(time);
    let total = measurement.times.total();
    let packed: usize = measurement.sealed.limbs.iter().map(Vec::len).sum();
    let steps = steps(&measurement.times);
    SenseReport {
        device,
        board,
        params,
        masked_key: false,
        values: 0,
        log_scale: measurement.scale.log2(),
        max_error: 0.0,
        ciphertext_bytes: measurement.sealed.seed.len() + packed,
        bytes_up: 0,
        bytes_down: 0,
        instructions: counted(TimeUnit::Instructions, total),
        cycles: counted(TimeUnit::Cycles, total),
        steps: steps
            .map(|(name, time)| StepReport {
                name,
                instructions: counted(TimeUnit::Instructions, time),
                cycles: counted(TimeUnit::Cycles, time),
            })
            .to_vec(),
        ram_static_bytes: measurement.memory.static_bytes,
        ram_stack_peak_bytes: measurement.memory.stack_peak_bytes,
        classified: None,
        wall_seconds: 0.0,
    }
}

/// The report for people.
fn text(report: &SenseReport) -> String {
    let ram = u64::from(report.ram_static_bytes) + u64::from(report.ram_stack_peak_bytes);
    let mut rows = vec![
        ("device", report.device.clone()),
        (
            "parameters",
            format!(
                "N = {}, {} limbs, log2(QP) = {:.1}, {} bit security",
                report.params.n,
                report.params.data_limbs,
                report.params.log_qp,
                report.params.security_bits
            ),
        ),
        ("values encrypted", report.values.to_string()),
        ("scale", format!("2^{:.2}", report.log_scale)),
        (
            "largest error after decryption",
            format!("{:.1e}", report.max_error),
        ),
        (
            "ciphertext",
            format!("{} bytes", grouped(report.ciphertext_bytes as u64)),
        ),
        (
            "on the link",
            format!(
                "{} bytes up, {} down",
                grouped(report.bytes_up),
                grouped(report.bytes_down)
            ),
        ),
        (
            "sensor memory",
            format!(
                "{} bytes ({} static, {} stack)",
                grouped(ram),
                grouped(report.ram_static_bytes.into()),
                grouped(report.ram_stack_peak_bytes.into())
            ),
        ),
        ("seconds", format!("{:.3}", report.wall_seconds)),
    ];
    if let Some(c) = &report.classified {
        rows.push((
            "classified",
            format!(
                "{} where {} is right, from {} ciphertexts; largest logit error {:.4}",
                c.predicted, c.label, c.ciphertexts, c.max_logit_error
            ),
        ));
    }
    let mut out = text::facts(&rows);
    let unit = match (report.instructions, report.cycles) {
        (Some(total), _) => Some(("instructions", total)),
        (None, Some(total)) => Some(("cycles", total)),
        (None, None) => None,
    };
    if let Some((unit, total)) = unit {
        let timed = |s: &StepReport| s.instructions.or(s.cycles).unwrap_or_default();
        let steps = report.steps.iter().map(|s| (s.name, timed(s)));
        let rows: Vec<[String; 2]> = steps
            .chain([("all", total)])
            .map(|(name, time)| [name.to_owned(), grouped(time)])
            .collect();
        out.push('\n');
        out.push_str(&text::table(["step", unit], &rows));
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;
    use crate::commands::{Arguments, Command};

    #[test]
    fn a_sensor_encrypts_what_an_evaluator_classifies() {
        for (image, masked) in [(3usize, false), (18, true)] {
            let index = image.to_string();
            let mut line = vec![
                "he-edge",
                "sense",
                "--device",
                "inproc",
                "--classify",
                "--image",
                &index,
            ];
            if masked {
                line.push("--masked-key");
            }
            let Some(Command::Sense(arguments)) = Arguments::parse_from(line).command else {
                panic!("another command");
            };
            let report = sense(&arguments).unwrap();
            assert_eq!((report.values, report.params.data_limbs), (2048, 4));
            let words = match masked {
                false => he_nn::sensor::arena_words(PARAMS),
                true => he_nn::sensor::masked_arena_words(PARAMS),
            };
            assert_eq!(report.masked_key, masked);
            assert_eq!(report.ram_static_bytes as usize, 4 * words);
            assert!(
                report.max_error > 0.0 && report.max_error < 1e-3,
                "{report:?}"
            );
            assert!(report.bytes_down > report.ciphertext_bytes as u64);
            let classified = report.classified.as_ref().unwrap();
            assert_eq!(usize::from(classified.label), image % 10);
            assert_eq!(classified.predicted, image % 10);
            assert_eq!(classified.plain_predicted, image % 10);
            assert!(classified.max_logit_error < 0.1, "{classified:?}");
            assert_eq!(classified.ciphertexts, 13);
            let text = text(&report);
            assert!(text.contains("values encrypted"), "{text}");
            let json = serde_json::to_value(&report).unwrap();
            assert_eq!(json["instructions"], Value::Null);
        }
        assert!(Arguments::try_parse_from(["he-edge", "sense", "--image", "20"]).is_err());
    }
}
