//! Spreads samples over several services: each takes the next run of samples when it is
//! done with the last, and what one that fails has not finished goes to the others.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use he_nn::model::Sample;
use he_nn::progress::Progress;

use crate::drive::{Finished, Retries, answers};
use crate::service::{Service, ServiceError};

/// A service that gave up, and what its runs of samples were given to.
#[derive(Debug)]
pub struct Lost {
    /// Which, by its place among the services.
    pub service: usize,
    /// Why.
    pub error: ServiceError,
}

/// A run of samples, and how often it was moved.
type Due = (Range<usize>, u64);

/// What is left to do.
struct Left {
    due: VecDeque<Due>,
    /// Runs that a service has and may give back.
    at_work: usize,
    /// Whether no new run is to be begun.
    is_over: bool,
}

/// What services share.
struct Queue {
    left: Mutex<Left>,
    changed: Condvar,
}

/// What a service says.
enum Event {
    Finished(Vec<Finished>),
    Lost(Lost),
}

impl Queue {
    fn new(samples: usize, size: usize) -> Self {
        let runs = (0..samples).step_by(size.max(1));
        let due = runs.map(|first| (first..samples.min(first + size), 0));
        Self {
            left: Mutex::new(Left {
                due: due.collect(),
                at_work: 0,
                is_over: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next run. Waits while others are at work on what they may give back.
    fn next(&self) -> Option<Due> {
        let mut left = self.left();
        loop {
            if left.is_over {
                return None;
            }
            if let Some(due) = left.due.pop_front() {
                left.at_work += 1;
                return Some(due);
            }
            if left.at_work == 0 {
                return None;
            }
            left = self
                .changed
                .wait(left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A run is done, or due again.
    fn done(&self, again: Option<Due>) {
        let mut left = self.left();
        left.at_work -= 1;
        if let Some(due) = again {
            left.due.push_front(due);
        }
        self.changed.notify_all();
    }

    fn end(&self) {
        self.left().is_over = true;
        self.changed.notify_all();
    }

    /// One service, until nothing is left or it gives up.
    fn work(
        &self,
        (place, service): (usize, &mut dyn Service),
        samples: &[Sample<'_>],
        retries: Retries,
        said: &Sender<Event>,
    ) {
        while let Some((range, moved)) = self.next() {
            let Some(run) = samples.get(range.clone()) else {
                return self.done(None);
            };
            // Given back on whatever way this ends, a panic too: others wait for it.
            let mut at_work = AtWork {
                queue: self,
                again: Some((range.clone(), moved + 1)),
            };
            match answers(service, run, retries, &mut ()) {
                Ok((answers, tried)) => {
                    let finished = range.zip(answers).map(|(index, answer)| Finished {
                        index,
                        answer,
                        tried: moved + tried,
                        service: place,
                    });
                    // Nobody listens where the caller has gone.
                    let _ = said.send(Event::Finished(finished.collect()));
                    at_work.again = None;
                }
                Err(error) => {
                    let _ = said.send(Event::Lost(Lost {
                        service: place,
                        error,
                    }));
                    return;
                }
            }
        }
    }
}

/// A run that a service has.
struct AtWork<'q> {
    queue: &'q Queue,
    /// What is due again where it ends now.
    again: Option<Due>,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.queue.done(self.again.take());
    }
}

/// Has samples classified by several services at a time. `take` gets each finished sample
/// exactly once, in the order in which they finish, on the caller's thread. Returns the
/// services that gave up, and what ended the work early: [`ServiceError`] of the last
/// service where all gave up before the last sample, or where the process is to end; or
/// what `take` says. What was taken before stays valid.
pub fn spread<E: From<ServiceError>>(
    services: &mut [&mut dyn Service],
    samples: &[Sample<'_>],
    retries: Retries,
    progress: &mut dyn Progress,
    mut take: impl FnMut(Finished) -> Result<(), E>,
) -> (Vec<Lost>, Result<(), E>) {
    // A service takes as many as it can, unless others would have nothing to do.
    let share = samples.len().div_ceil(services.len().max(1)).max(1);
    let largest = services.iter().map(|service| service.samples()).max();
    let queue = Queue::new(samples.len(), largest.unwrap_or(1).min(share));
    progress.start(samples.len() as u64);
    let mut lost: Vec<Lost> = Vec::new();
    let mut failed = None;
    let mut taken = 0;
    thread::scope(|scope| {
        let (said, events) = channel();
        for entry in services.iter_mut().enumerate() {
            let (queue, said) = (&queue, said.clone());
            scope.spawn(move || {
                let (place, service) = entry;
                queue.work((place, &mut **service), samples, retries, &said);
            });
        }
        drop(said);
        for event in events {
            match event {
                Event::Lost(gone) => {
                    if matches!(gone.error, ServiceError::Interrupted) {
                        queue.end();
                    }
                    lost.push(gone);
                }
                Event::Finished(_) if failed.is_some() => {}
                Event::Finished(finished) => {
                    let count = finished.len();
                    let all = finished.into_iter().try_for_each(&mut take);
                    if let Err(error) = all {
                        failed = Some(error);
                        queue.end();
                    }
                    taken += count;
                    progress.advance(count as u64);
                }
            }
        }
    });
    progress.finish();
    let is_interrupted = |lost: &Lost| matches!(lost.error, ServiceError::Interrupted);
    let ended = match failed {
        Some(error) => Err(error),
        None if taken == samples.len() => Ok(()),
        None if lost.iter().any(is_interrupted) => Err(ServiceError::Interrupted.into()),
        None => Err(lost
            .pop()
            .map_or(ServiceError::Closed, |lost| lost.error)
            .into()),
    };
    // Who was interrupted did not give up.
    lost.retain(|lost| !is_interrupted(lost));
    (lost, ended)
}
