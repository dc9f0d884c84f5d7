//! The `he-edge` command.

use std::process::ExitCode;

use clap::Parser;
use host_runner::commands::{self, Arguments, Failure};

fn main() -> ExitCode {
    match commands::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

#[expect(clippy::print_stderr, reason = "this is where errors are printed")]
fn report(failure: &Failure) -> ExitCode {
    eprintln!("he-edge: {failure}");
    ExitCode::from(failure.status())
}
