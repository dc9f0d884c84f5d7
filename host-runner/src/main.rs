//! The `he-edge` command.

use std::fmt::Display;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
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
/// lines before the first empty one, gives advice in later ones, and ends with status 2,
/// which here means that a model does not fit.
fn usage(error: &clap::Error) -> String {
    let command = Arguments::command();
    let given = std::env::args().nth(1);
    let known = given.filter(|name| command.find_subcommand(name).is_some());
    let known = known.map_or_else(String::new, |name| format!(" {name}"));
    // Its text is the help.
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return format!("`he-edge{known}` takes another word; see `he-edge{known} --help`");
    }
    let text = error.to_string();
    let lines = || text.lines().map(str::trim);
    let reason: Vec<&str> = lines().take_while(|line| !line.is_empty()).collect();
    let reason = reason.join(" ");
    let reason = reason.strip_prefix("error: ").unwrap_or(&reason);
    let advice: Vec<&str> = lines()
        .filter_map(|line| line.strip_prefix("tip: "))
        .collect();
    let advice = match advice[..] {
        [] => String::new(),
        _ => format!(" ({})", advice.join("; ")),
    };
    format!("{reason}{advice}; see `he-edge{known} --help`")
}

fn report(error: &dyn Display, status: u8) -> ExitCode {
    output::say(format_args!("he-edge: {error}"));
    ExitCode::from(status)
}
