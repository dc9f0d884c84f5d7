//! Builds the firmware image for a board.
//!
//! Either compiler will do: one with the board's target installed by rustup, or
//! one with its library source, which then is compiled along (that is how
//! distributions package it).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

use he_core::Params;

use crate::planning::{DEFAULT_SET as PARAMS, set_name};
use he_nn::boards::{self, Board, UnknownBoard};

const PROFILE: &str = "firmware";
const EVALUATOR: &str = "firmware";

/// The least version of Rust; the workspace's `rust-version`.
const WANTED: &str = env!("CARGO_PKG_RUST_VERSION");

/// What to build.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// The board.
    pub board: &'a str,
    /// The model file that the image holds; the bundled one if `None`.
    pub model: Option<&'a Path>,
    /// The parameter set that it plans under.
    pub params: &'a Params,
    /// Cargo features of the firmware.
    pub features: &'a [&'a str],
    /// Most input ciphertexts of its plan ([`he_nn::plan::Terms::inputs`]).
    pub inputs: Option<usize>,
}

/// Why there is no image. One sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// The program was moved away from its workspace.
    #[error("the firmware's sources are not at {} any more: run he-edge from its workspace, or build it there again", .0.display())]
    NoSources(PathBuf),
    /// The model file is not there.
    #[error("the model {} cannot be read ({reason}): name a model file", path.display())]
    NoModel {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// There is no such board.
    #[error(transparent)]
    Board(#[from] UnknownBoard),
    /// No compiler can build for the board.
    #[error(
        "no Rust compiler here can build for {board}: run tests/setup, or `rustup target add {target}`"
    )]
    NoCompiler {
        /// The board.
        board: &'static str,
        /// The compiler's name for its processor.
        target: &'static str,
    },
    /// The only compiler that could build for the board is too old.
    #[error(
        "{} is Rust {found} and the firmware needs {WANTED}: run tests/setup, or `rustup target add {target}`",
        rustc.display()
    )]
    OldCompiler {
        /// The compiler.
        rustc: PathBuf,
        /// Its version.
        found: String,
        /// Its name for the board's processor.
        target: &'static str,
    },
    /// No linker can link for the board.
    #[error("no linker for the board was found: run tests/setup, or install `lld`")]
    NoLinker,
    /// There is no cargo.
    #[error(
        "cargo was not found, which builds the firmware for {board}: install Rust from https://rustup.rs, or put cargo on the PATH"
    )]
    NoCargo {
        /// The board.
        board: String,
    },
    /// Cargo could not be run or failed.
    #[error("the firmware for {board} does not build ({reason}): run `{command}` to see all of it")]
    Failed {
        /// The board.
        board: String,
        /// The compiler's first error.
        reason: String,
        /// The same command for a shell.
        command: String,
    },
}

/// A compiler that can build for the board.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Toolchain {
    /// The target is installed.
    Target,
    /// The library source is there; `None` is the compiler that `PATH` finds.
    Source {
        rustc: Option<PathBuf>,
        cargo: Option<PathBuf>,
        linker: PathBuf,
    },
}

/// Builds an image and gives its path. Only what changed is built again.
///
/// # Errors
/// See [`FirmwareError`].
pub fn build(options: &Options<'_>) -> Result<PathBuf, FirmwareError> {
    build_program(options, EVALUATOR)
}

/// Builds another program of the firmware crate, as [`build`] does the
/// evaluator.
///
/// # Errors
/// See [`FirmwareError`].
pub fn build_program(options: &Options<'_>, program: &str) -> Result<PathBuf, FirmwareError> {
    let board = boards::find(options.board)?;
    let root = workspace()?;
    let model = match options.model {
        None => None,
        Some(path) => Some(
            fs::canonicalize(path).map_err(|error| FirmwareError::NoModel {
                path: path.into(),
                reason: error.to_string(),
            })?,
        ),
    };
    let toolchain = find_toolchain(&root, board)?;
    let target_directory = root.join("target").join("firmware");

    let mut command = toolchain.command(board.target);
    command
        .current_dir(&root)
        .args([
            "build",
            "--quiet",
            "--package",
            "firmware",
            "--bin",
            program,
        ])
        .args([
            "--target",
            board.target,
            "--profile",
            PROFILE,
            "--target-dir",
        ])
        .arg(&target_directory)
        .env("HE_EDGE_BOARD", options.board)
        .env("HE_EDGE_PARAMS", set_name(options.params))
        // What the surrounding build was told does not hold for the board.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET");
    match &model {
        Some(model) => command.env("HE_EDGE_MODEL", model),
        None => command.env_remove("HE_EDGE_MODEL"),
    };
    match options.inputs {
        Some(inputs) => command.env("HE_EDGE_INPUTS", inputs.to_string()),
        None => command.env_remove("HE_EDGE_INPUTS"),
    };
    let features: Vec<_> = board
        .feature
        .iter()
        .chain(options.features)
        .copied()
        .collect();
    if !features.is_empty() {
        command.arg("--features").arg(features.join(","));
    }

    let failed = |reason: String, command: &Command| FirmwareError::Failed {
        board: options.board.into(),
        reason,
        command: shell(command),
    };
    let images = target_directory.join("images");
    // Held to the end. Builds wait for each other anyway, and every one leaves its
    // result under the same name: another thread or process would copy this one's.
    let _lock = lock(&images).map_err(|error| failed(error.to_string(), &command))?;
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => FirmwareError::NoCargo {
            board: options.board.to_owned(),
        },
        _ => failed(error.to_string(), &command),
    })?;
    if !output.status.success() {
        return Err(failed(
            first_error(&String::from_utf8_lossy(&output.stderr)),
            &command,
        ));
    }

    let built = target_directory
        .join(board.target)
        .join(PROFILE)
        .join(program);
    let image = images.join(image_name(options, program));
    match replace(&built, &image) {
        Ok(()) => Ok(image),
        Err(error) => Err(failed(error.to_string(), &command)),
    }
}

/// Waits until nobody else builds an image. Dropping the file unlocks it.
fn lock(images: &Path) -> io::Result<File> {
    fs::create_dir_all(images)?;
    let file = File::create(images.join(".lock"))?;
    file.lock()?;
    Ok(file)
}

/// Copies a file so that whoever reads the old one, as an emulator that starts, reads
/// it to its end.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    let part = to.with_extension("part");
    fs::copy(from, &part)?;
    fs::rename(&part, to)
}

/// One file per combination, so that a later build of another does not replace
/// an image that is in use.
fn image_name(options: &Options<'_>, program: &str) -> String {
    let model = options
        .model
        .and_then(Path::file_stem)
        .map_or("default".into(), OsStr::to_string_lossy);
    let mut name = format!("{}-{model}", options.board);
    if options.params.fingerprint() != PARAMS.fingerprint() {
        name = format!("{name}-{}", set_name(options.params));
    }
    if program != EVALUATOR {
        name = format!("{name}-{program}");
    }
    for feature in options.features {
        name = format!("{name}-{feature}");
    }
    if let Some(inputs) = options.inputs {
        name = format!("{name}-inputs-{inputs}");
    }
    name + ".elf"
}

fn workspace() -> Result<PathBuf, FirmwareError> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().unwrap_or(here).to_owned();
    if root.join("firmware/Cargo.toml").is_file() {
        Ok(root)
    } else {
        Err(FirmwareError::NoSources(root.join("firmware")))
    }
}

impl Toolchain {
    fn command(&self, target: &str) -> Command {
        match self {
            Self::Target => Command::new("cargo"),
            Self::Source {
                rustc,
                cargo,
                linker,
            } => {
                let mut command = cargo
                    .as_ref()
                    .map_or_else(|| Command::new("cargo"), Command::new);
                if let Some(rustc) = rustc {
                    command.env("RUSTC", rustc);
                }
                // Building the library along is not a stable option of cargo.
                command
                    .args(["-Z", "build-std=core"])
                    .env("RUSTC_BOOTSTRAP", "1")
                    .env(linker_variable(target), linker);
                command
            }
        }
    }
}

/// The variable by which cargo takes a linker.
fn linker_variable(target: &str) -> String {
    let name = target.replace(['-', '.'], "_").to_uppercase();
    format!("CARGO_TARGET_{name}_LINKER")
}

fn find_toolchain(root: &Path, board: &Board) -> Result<Toolchain, FirmwareError> {
    let target = board.target;
    let installed = sysroot(root, Path::new("rustc"));
    if let Some(sysroot) = &installed {
        if sysroot
            .join("lib/rustlib")
            .join(target)
            .join("lib")
            .is_dir()
        {
            return Ok(Toolchain::Target);
        }
        if has_source(sysroot) {
            let linker = find_linker(&[sysroot]).ok_or(FirmwareError::NoLinker)?;
            return Ok(Toolchain::Source {
                rustc: None,
                cargo: None,
                linker,
            });
        }
    }
    let (rustc, cargo) = (
        PathBuf::from("/usr/bin/rustc"),
        PathBuf::from("/usr/bin/cargo"),
    );
    match sysroot(root, &rustc) {
        Some(packaged) if cargo.is_file() && has_source(&packaged) => {
            let found = version(root, &rustc).unwrap_or_default();
            if !is_recent(&found) {
                return Err(FirmwareError::OldCompiler {
                    rustc,
                    found,
                    target,
                });
            }
            let sysroots: Vec<_> = [Some(&packaged), installed.as_ref()]
                .into_iter()
                .flatten()
                .collect();
            let linker = find_linker(&sysroots).ok_or(FirmwareError::NoLinker)?;
            Ok(Toolchain::Source {
                rustc: Some(rustc),
                cargo: Some(cargo),
                linker,
            })
        }
        _ if installed.is_none() && !cargo.is_file() => Err(FirmwareError::NoCargo {
            board: board.name.to_owned(),
        }),
        _ => Err(FirmwareError::NoCompiler {
            board: board.name,
            target,
        }),
    }
}

/// What a compiler answers.
fn ask(root: &Path, rustc: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(rustc);
    let output = command.current_dir(root).args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| answer.trim().to_owned())
}

fn sysroot(root: &Path, rustc: &Path) -> Option<PathBuf> {
    ask(root, rustc, &["--print", "sysroot"]).map(PathBuf::from)
}

/// As in `rustc 1.95.0 (59807616e 2026-04-14)`.
fn version(root: &Path, rustc: &Path) -> Option<String> {
    let answer = ask(root, rustc, &["--version"])?;
    answer.split_whitespace().nth(1).map(str::to_owned)
}

/// Whether a version is at least [`WANTED`].
fn is_recent(found: &str) -> bool {
    fn numbers(version: &str) -> Option<(u32, u32)> {
        let mut parts = version.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
    numbers(found) >= numbers(WANTED)
}

fn has_source(sysroot: &Path) -> bool {
    let library = sysroot.join("lib/rustlib/src/rust/library");
    // Without its lock file cargo refuses to build it.
    library.join("core/src/lib.rs").is_file() && library.join("Cargo.lock").is_file()
}

/// `rust-lld` of one of the compilers, else `ld.lld` on the path.
fn find_linker(sysroots: &[&PathBuf]) -> Option<PathBuf> {
    let own = sysroots.iter().find_map(|sysroot| {
        let hosts = fs::read_dir(sysroot.join("lib/rustlib")).ok()?;
        hosts
            .filter_map(Result::ok)
            .map(|host| host.path().join("bin/rust-lld"))
            .find(|linker| linker.is_file())
    });
    own.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|part| part.join("ld.lld"))
            .find(|file| file.is_file())
    })
}

/// The line of a compiler's output that says what is wrong.
fn first_error(output: &str) -> String {
    let line = output
        .lines()
        .find(|line| line.starts_with("error") || line.contains("rust-lld: error"))
        .or_else(|| output.lines().rev().find(|line| !line.trim().is_empty()));
    line.unwrap_or("it says nothing").trim().into()
}

/// A command as one would type it.
fn shell(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!(
            "{}={}",
            name.to_string_lossy(),
            value?.to_string_lossy()
        ))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| word.to_string_lossy().into_owned());
    variables
        .chain(words)
        .filter(|word| word != "--quiet")
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_the_reason() {
        let output = "warning: x\nerror: linking failed\n  = note: y\nerror: could not compile\n";
        assert_eq!(first_error(output), "error: linking failed");
        assert_eq!(first_error("something odd\n\n"), "something odd");
        assert_eq!(first_error(""), "it says nothing");
    }

    #[test]
    fn a_compiler_must_be_recent() {
        for old in ["", "rustc", "0.99.0", "1.63.0", "1.94.9-nightly"] {
            assert!(!is_recent(old), "{old}");
        }
        for recent in [WANTED, "1.95.0", "1.100.0-beta.1", "2.0.0"] {
            assert!(is_recent(recent), "{recent}");
        }
        let error = FirmwareError::OldCompiler {
            rustc: "/usr/bin/rustc".into(),
            found: "1.63.0".into(),
            target: "thumbv7em-none-eabihf",
        };
        let start = format!("/usr/bin/rustc is Rust 1.63.0 and the firmware needs {WANTED}: ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }

    #[test]
    fn cargo_takes_the_linker_by_the_targets_name() {
        assert_eq!(
            linker_variable("thumbv8m.main-none-eabihf"),
            "CARGO_TARGET_THUMBV8M_MAIN_NONE_EABIHF_LINKER"
        );
    }

    #[test]
    fn images_do_not_replace_each_other() {
        let plain = Options {
            board: "b",
            model: None,
            params: PARAMS,
            features: &[],
            inputs: None,
        };
        let model = Some(Path::new("/m/net.hemodel"));
        assert_eq!(image_name(&plain, EVALUATOR), "b-default.elf");
        let other = Options {
            board: "b",
            model,
            params: PARAMS,
            features: &["fault-injection"],
            inputs: Some(1),
        };
        assert_eq!(
            image_name(&other, EVALUATOR),
            "b-net-fault-injection-inputs-1.elf"
        );
    }

    #[test]
    fn a_missing_model_is_one_sentence() {
        let model = Some(Path::new("/no/such.hemodel"));
        let error = build(&Options {
            board: "mps2-an386",
            model,
            params: PARAMS,
            features: &[],
            inputs: None,
        })
        .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the model /no/such.hemodel cannot be read (")
        );
    }
}
