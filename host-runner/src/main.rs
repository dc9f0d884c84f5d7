//! The `he-edge` command.

use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser;
use host_runner::commands::{self, Arguments, output};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version are no errors.
        Err(answer) if !answer.use_stderr() => answer.exit(),
        Err(error) => return report(&usage(&error), 1),
    };
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, failure.status()),
    }
}

/// What is wrong with the command line, in one sentence: clap says it in the
/// lines before the first empty one, and ends with status 2, which here means
/// that a model does not fit.
fn usage(error: &clap::Error) -> String {
    let text = error.to_string();
    let reason: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let reason = reason.join(" ");
    let reason = reason.strip_prefix("error: ").unwrap_or(&reason);
    format!("{reason}; see `he-edge --help`")
}

fn report(error: &dyn Display, status: u8) -> ExitCode {
    output::say(format_args!("he-edge: {error}"));
    ExitCode::from(status)
}
