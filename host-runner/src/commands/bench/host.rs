//! Microseconds on this machine, on one thread.

use std::time::{Duration, Instant};

use he_core::benchmarks::{Memory, Operation, Operations};
use he_core::params::Params;
use he_core::ring::kernel;

use super::Row;

/// Measured runs of an operation: at least so many, and then for as long.
const RUNS: usize = 15;
const TIME: Duration = Duration::from_millis(200);

/// Medians of all operations under a set: of so many runs, or of as many as take 0.2 s.
///
/// # Errors
/// Those of he-core; none is expected.
pub fn measure(params: &'static Params, runs: Option<usize>) -> Result<Vec<Row>, he_core::Error> {
    let n = params.n();
    let mut words = vec![0; Memory::words(params)];
    let (mut integers, mut floats, mut doubles) = (vec![0; 4 * n], vec![0.0; 2 * n], vec![0.0; n]);
    let memory = Memory {
        words: &mut words,
        integers: &mut integers,
        floats: &mut floats,
        doubles: &mut doubles,
    };
    let mut operations = Operations::new(params, memory)?;
    let mut rows = Vec::new();
    for operation in Operation::ALL {
        let mut times = Vec::new();
        let mut total = Duration::ZERO;
        let goes_on = |done: usize, total| match runs {
            Some(runs) => done <= runs,
            None => done <= RUNS || total < TIME,
        };
        while goes_on(times.len(), total) {
            operations.prepare(operation)?;
            let start = Instant::now();
            operations.run(operation)?;
            let time = start.elapsed();
            total += time;
            times.push(time);
        }
        // The first one fills the caches.
        times.remove(0);
        rows.push(Row {
            median_us: Some(median(&mut times).as_secs_f64() * 1e6),
            ..Row::of(operation, params, kernel::backend())
        });
    }
    Ok(rows)
}

/// The middle one, or the later of the two.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let mut times = [5, 1, 9].map(Duration::from_nanos);
        assert_eq!(median(&mut times), Duration::from_nanos(5));
        assert_eq!(median(&mut []), Duration::ZERO);
    }
}
