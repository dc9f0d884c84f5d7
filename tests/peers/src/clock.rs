//! CPU time of this thread.

use std::time::Duration;

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};

/// CPU time so far.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Measures `run`, each time on what `prepare` made, after one run that is not
/// counted. What is made and what comes out is dropped outside.
pub fn measure<A, B>(
    runs: usize,
    mut prepare: impl FnMut() -> Result<A>,
    mut run: impl FnMut(&mut A) -> Result<B>,
) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(runs);
    for i in 0..=runs {
        let mut operands = prepare()?;
        // What reading the clock costs, in the state that it is in now.
        let before = now();
        let start = now();
        let result = run(&mut operands);
        let end = now();
        drop(result?);
        if i > 0 {
            times.push((end - start).saturating_sub(start - before));
        }
    }
    Ok(times)
}
