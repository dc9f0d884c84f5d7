//! An operation over secrets of both classes (`he_core::benchmarks::drawn`), for whoever
//! steps through it: `traced BACKEND SUBJECT operation|leak` asks to be traced, and for
//! each draw stops itself before and after what is to be followed. Draws are of one
//! process, so that all of them work in the same memory.
#![expect(clippy::print_stdout, reason = "what it says is what went wrong")]

use std::process::ExitCode;

use he_core::benchmarks::drawn::{Drawn, Memory};
use he_core::benchmarks::subjects::Subject;
use he_core::parameter_set;
use he_core::params::Security;
#[cfg(target_arch = "x86_64")]
use he_core::ring::kernel::Backend;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};

parameter_set! {
    /// The primes of the default set at a degree whose traces are short: what is executed
    /// depends on the degree. On values it must not.
    static TRACED = {
        n: 256, security: Security::Insecure,
        data: [134_176_769, 1_032_193, 974_849, 925_697], special: 270_337
    };
}

/// Classes and seeds: fixed ones differ by their coins alone.
const DRAWS: [(bool, u64); 3] = [(true, 1), (false, 2), (true, 3)];

fn stop() -> Result<(), String> {
    raise(Signal::SIGSTOP).map_err(|error| error.to_string())
}

/// What is followed, between two stops. One function for all draws: a loop of draws may
/// be unrolled, and each of them then lies elsewhere.
#[inline(never)]
fn followed(drawn: &mut Drawn<'_>, subject: Subject, leaks: bool) -> Result<(), String> {
    stop()?;
    if leaks {
        drawn.leak(subject);
    } else {
        drawn.run(subject).map_err(|error| error.to_string())?;
    }
    stop()
}

fn run(subject: Subject, leaks: bool) -> Result<(), String> {
    let params = &TRACED;
    let n = params.n();
    let mut words = vec![0; Memory::words(params)];
    let (mut integers, mut floats, mut doubles) = (vec![0; 5 * n], vec![0.0; 2 * n], vec![0.0; n]);
    let mut bytes = vec![0; n / 4];
    let memory = Memory {
        words: &mut words,
        integers: &mut integers,
        floats: &mut floats,
        doubles: &mut doubles,
        bytes: &mut bytes,
    };
    let failed = |error: he_core::Error| error.to_string();
    let mut drawn = Drawn::new(params, memory).map_err(failed)?;
    // What is looked up or chosen once is so by now.
    drawn.draw(subject, false, 5).map_err(failed)?;
    drawn.run(subject).map_err(failed)?;
    ptrace::traceme().map_err(|error| error.to_string())?;
    for (fixed, seed) in DRAWS {
        drawn.draw(subject, fixed, seed).map_err(failed)?;
        followed(&mut drawn, subject, leaks)?;
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn select(name: &str) -> bool {
    let backend = Backend::available().find(|backend| backend.name() == name);
    backend.inspect(|backend| backend.select()).is_some()
}

#[cfg(not(target_arch = "x86_64"))]
fn select(_: &str) -> bool {
    false
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [backend, subject, what] = &arguments[..] else {
        println!("say BACKEND SUBJECT operation|leak");
        return ExitCode::FAILURE;
    };
    let Some(subject) = Subject::find(subject).filter(|_| select(backend)) else {
        println!("no kernels {backend} here, or no operation {subject}");
        return ExitCode::FAILURE;
    };
    match run(subject, what == "leak") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
