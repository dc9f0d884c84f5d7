//! Drives samples through a service until each has its answer: a fault of the link costs
//! another try, never a result.

use std::thread;
use std::time::{Duration, Instant};

use he_nn::model::Sample;
use he_nn::progress::Progress;

use crate::interrupt;
use crate::service::{Answer, Service, ServiceError};

/// Pause between two looks at the wish to end.
const LOOK: Duration = Duration::from_millis(50);

/// How often the same samples are tried again, and after what pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Tries after the first, per run of samples.
    pub limit: u32,
    /// Pause before a device that is gone is opened again; doubled each time.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
}

impl Retries {
    /// Tries after the first where nothing else is asked for: with pauses of 0.1 s to
    /// 10 s, a device has half a minute to come back.
    pub const DEFAULT_LIMIT: u32 = 8;

    /// With the usual pauses.
    #[must_use]
    pub const fn of(limit: u32) -> Self {
        Self {
            limit,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
        }
    }
}

impl Default for Retries {
    fn default() -> Self {
        Self::of(Self::DEFAULT_LIMIT)
    }
}

/// A finished sample.
#[derive(Debug)]
pub struct Finished {
    /// Its index among the samples.
    pub index: usize,
    /// Its answer.
    pub answer: Answer,
    /// How often it was tried again; the move to another service is one try.
    pub tried: u64,
    /// The service that answered, by its place among them.
    pub service: usize,
}

/// Has samples classified, in runs of as many as the service takes. `take` gets each
/// finished sample as soon as the run that it is in has ended, exactly once. A result that was refused is tried again as well
/// where it came over a link, as its frames may have been another's; the key is a new
/// one each time.
///
/// # Errors
/// [`ServiceError`] where tries ran out, another try is of no use, or the process is to
/// end; or what `take` says. Whatever was taken before stays valid.
pub fn drive<E: From<ServiceError>>(
    service: &mut dyn Service,
    samples: &[Sample<'_>],
    retries: Retries,
    progress: &mut dyn Progress,
    mut take: impl FnMut(Finished) -> Result<(), E>,
) -> Result<(), E> {
    let size = service.samples();
    let whole = size == 1 && !service.is_linked();
    if whole {
        progress.start(samples.len() as u64);
    }
    for (number, run) in samples.chunks(size).enumerate() {
        let first = number * size;
        progress.note(&match run.len() {
            1 => format!("sample {} of {}", first + 1, samples.len()),
            more => format!(
                "samples {} to {} of {}",
                first + 1,
                first + more,
                samples.len()
            ),
        });
        let (answers, tried) = answers(service, run, retries, progress)?;
        for (index, answer) in (first..).zip(answers) {
            take(Finished {
                index,
                answer,
                tried,
                service: 0,
            })?;
        }
        if whole {
            progress.advance(1);
        }
    }
    Ok(())
}

/// The answers of one run, and how often it was tried again.
///
/// # Errors
/// As [`drive`].
pub(crate) fn answers(
    service: &mut dyn Service,
    run: &[Sample<'_>],
    retries: Retries,
    progress: &mut dyn Progress,
) -> Result<(Vec<Answer>, u64), ServiceError> {
    let mut pause = retries.first;
    let mut tried = 0;
    loop {
        if interrupt::wished() {
            return Err(ServiceError::Interrupted);
        }
        let last = tried >= retries.limit || !service.is_linked();
        let fault = match service.infer(run, progress) {
            Ok(answers) if last || !answers.iter().any(may_be_of_link) => {
                return Ok((answers, tried.into()));
            }
            Ok(_) => None,
            Err(error) if last || !service.may_recover(&error) => return Err(error),
            Err(error) => Some(error),
        };
        tried += 1;
        // The link stands where something came that was no answer, and the next greeting
        // brings both sides back in step.
        if !fault.as_ref().is_some_and(ServiceError::is_of_absence) {
            pause = retries.first;
            continue;
        }
        loop {
            wait(pause);
            pause = retries.longest.min(2 * pause);
            match service.reopen() {
                Ok(()) => break,
                Err(error) if tried >= retries.limit || !error.is_of_link() => return Err(error),
                Err(_) if interrupt::wished() => return Err(ServiceError::Interrupted),
                Err(_) => tried += 1,
            }
        }
    }
}

/// Whether a result was refused that a line may have mixed up. One that an audit found
/// wrong is the evaluator's.
fn may_be_of_link(answer: &Answer) -> bool {
    answer
        .as_ref()
        .is_err_and(|refused| refused.error.may_be_of_link())
}

/// Waits, unless the process is to end.
fn wait(pause: Duration) {
    let end = Instant::now() + pause;
    while !interrupt::wished() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(LOOK));
    }
}
