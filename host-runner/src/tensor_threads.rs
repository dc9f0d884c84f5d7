//! How many threads candle takes for tensors, which only its environment tells it.
//!
//! Left to itself it reads `/proc/cpuinfo` before every product of matrices to count the
//! cores, and has threads that spin from one operation to the next: networks as small as
//! these take a fifth more processor time by the first, and by the second a core each that
//! helps nothing (measured on `attack extraction-labels`).

use std::env;
use std::process::Command;
use std::thread::available_parallelism;

/// Of products of matrices, and of this program's own work in parallel.
const PRODUCTS: &str = "RAYON_NUM_THREADS";

/// Of what is done value by value.
const VALUES: &str = "CANDLE_NUM_THREADS";

/// Starts this process anew where its environment does not say both, under the same
/// number; goes on where it does or where that fails. No thread may have been started.
pub(crate) fn settle() {
    let is_set = |name| env::var_os(name).is_some();
    if is_set(PRODUCTS) && is_set(VALUES) {
        return;
    }
    let Ok(program) = env::current_exe() else {
        return;
    };
    let mut anew = Command::new(program);
    anew.args(env::args_os().skip(1));
    if !is_set(PRODUCTS) {
        let cores = available_parallelism().map_or(1, usize::from);
        anew.env(PRODUCTS, cores.to_string());
    }
    if !is_set(VALUES) {
        anew.env(VALUES, "1");
    }
    replace(&mut anew);
}

/// The environment of a running process cannot be changed without `unsafe`.
#[cfg(unix)]
fn replace(anew: &mut Command) {
    let _slower = std::os::unix::process::CommandExt::exec(anew);
}

#[cfg(not(unix))]
fn replace(_: &mut Command) {}
