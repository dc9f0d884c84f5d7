//! `he-edge completions` and `he-edge man`: what shells and `man` know of the command.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Arguments, Failure, output};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArguments {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints completions for a shell.
///
/// # Errors
/// [`Failure::Write`].
pub fn run(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let mut command = Arguments::command();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "he-edge", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// Write a page per command into this directory, such as `~/.local/share/man/man1`;
    /// if left out, the first page goes to standard output.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Writes pages for `man`.
///
/// # Errors
/// [`Failure::Write`].
pub fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let command = Arguments::command();
    let Some(directory) = &arguments.out else {
        let page = page(command).map_err(|source| failed(Path::new("standard output"), source))?;
        return output::print(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(directory).map_err(|source| failed(directory, source))?;
    clap_mangen::generate_to(command, directory).map_err(|source| failed(directory, source))
}

fn failed(path: &Path, source: io::Error) -> Failure {
    Failure::Write {
        path: path.to_owned(),
        source,
    }
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}
