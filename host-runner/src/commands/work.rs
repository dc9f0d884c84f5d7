//! `he-edge work`: an evaluator in a fleet.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Args;

use super::output::say;
use super::{Failure, nats_url, parse_device};
use crate::device::Device;
use crate::fleet::subjects::WorkerName;
use crate::fleet::worker::{self, Options};
use crate::interrupt;

/// Arguments of `work`.
#[derive(Debug, Args)]
pub struct WorkArguments {
    /// Address of the fleet's NATS server, `HOST:PORT` or `nats://HOST:PORT`.
    #[arg(long, value_name = "URL", default_value = "127.0.0.1:4222", value_parser = nats_url)]
    pub nats: String,
    /// What evaluates: `inproc`, as often as it is to take items at a time. Others do not
    /// work in a fleet yet.
    #[arg(long = "device", default_value = "inproc", value_parser = parse_device)]
    pub devices: Vec<Device>,
    /// Items that each device in process takes at a time.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// What it is called in the fleet: letters, digits, - and _; a random name if left out.
    #[arg(long, value_parser = worker_name)]
    pub name: Option<WorkerName>,
    /// Leave when standard input ends, too.
    #[arg(long, hide = true)]
    pub until_input_ends: bool,
}

fn worker_name(name: &str) -> Result<WorkerName, String> {
    name.parse::<WorkerName>()
        .map_err(|error| error.to_string())
}

/// Evaluates for the fleet until it is interrupted, and finishes what it has.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &WorkArguments) -> Result<(), Failure> {
    let is_foreign = |device: &&Device| **device != Device::InProcess;
    if let Some(device) = arguments.devices.iter().find(is_foreign) {
        return Err(Failure::NoWorker {
            device: device.to_string(),
        });
    }
    let each = usize::from(arguments.threads);
    let devices = arguments.devices.iter();
    let devices = devices.flat_map(|device| std::iter::repeat_n(device.to_string(), each));
    let options = Options {
        url: arguments.nats.clone(),
        name: match &arguments.name {
            Some(name) => name.clone(),
            None => WorkerName::fresh()?,
        },
        devices: devices.collect(),
    };
    interrupt::watch().map_err(Failure::Signals)?;
    let has_ended = Arc::new(AtomicBool::new(false));
    if arguments.until_input_ends {
        let ended = Arc::clone(&has_ended);
        thread::spawn(move || {
            // Whatever comes is nothing, and a broken one has ended.
            let mut buffer = [0; 64];
            while io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
            ended.store(true, Ordering::Relaxed);
        });
    }
    let is_to_leave = || interrupt::wished() || has_ended.load(Ordering::Relaxed);
    let totals = worker::work(&options, &is_to_leave, &mut |text| say(text))?;
    say(format_args!(
        "{} left: {} items answered, {} tries failed, {} items put aside, none unfinished",
        options.name, totals.done, totals.failed, totals.aside
    ));
    Ok(())
}
