//! `he-edge fleet`: what a fleet does, and one on this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::{self, say};
use super::{Failure, nats_url};
use crate::fleet::status;
use crate::fleet::up::{self, Options};
use crate::interrupt;

/// Arguments of `fleet`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FleetArguments {
    /// What to do instead of looking.
    #[command(subcommand)]
    pub command: Option<FleetCommand>,
    /// Address of the fleet's NATS server, `HOST:PORT` or `nats://HOST:PORT`.
    #[arg(long, value_name = "URL", default_value = "127.0.0.1:4222", value_parser = nats_url)]
    pub nats: String,
    /// Write what it does as JSON to this file; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What else there is.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Start a fleet on this machine: `nats-server` with JetStream, and workers, until
    /// Ctrl-C.
    Up(UpArguments),
}

/// Arguments of `fleet up`.
#[derive(Debug, Args)]
pub struct UpArguments {
    /// Workers, each a process.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Items that each worker takes at a time.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Port at which the broker listens, on this machine alone.
    #[arg(long, allow_negative_numbers = true, default_value_t = 4222, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Directory in which the broker keeps what it has, and its log; a temporary one, removed
    /// at the end, if left out.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// Shows a fleet, or starts one.
///
/// # Errors
/// [`Failure`].
pub fn run(arguments: &FleetArguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(FleetCommand::Up(arguments)) => start(arguments),
        None => {
            output::check(arguments.json.as_deref())?;
            let status = status::of(&arguments.nats)?;
            output::present(arguments.json.as_deref(), &status, || status.text())
        }
    }
}

fn start(arguments: &UpArguments) -> Result<(), Failure> {
    interrupt::watch().map_err(Failure::Signals)?;
    // Held until the end, which removes it.
    let (store, _held) = match &arguments.store {
        Some(store) => (store.clone(), None),
        None => {
            let directory = tempfile::tempdir().map_err(|source| Failure::Write {
                path: std::env::temp_dir(),
                source,
            })?;
            (directory.path().to_owned(), Some(directory))
        }
    };
    let options = Options {
        port: arguments.port,
        store,
        workers: arguments.workers,
        threads: arguments.threads,
    };
    up::up(&options, &interrupt::wished, &mut |text| say(text))?;
    say("interrupted: the fleet has ended");
    Ok(())
}
