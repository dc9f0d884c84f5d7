//! A run of samples through a service: what an earlier run finished is left out, what is
//! finished is kept, and the report is of both.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use he_nn::model::Sample;
use he_nn::progress::Progress;

use crate::drive::{Finished, Retries, drive};
use crate::ledger::{Ledger, LedgerError};
use crate::report::infer::{Entry, InferReport, Run};
use crate::report::timeline::{Timeline, TracedImage};
use crate::service::{Deployment, Service, ServiceError};
use crate::spread::{Lost, spread};

/// What is to be classified, and how.
#[derive(Debug)]
pub struct Work<'a> {
    /// What the report calls the model.
    pub name: &'a str,
    /// Index of the first sample.
    pub offset: usize,
    /// The samples, with their labels.
    pub samples: &'a [(Sample<'a>, u8)],
    /// What the report calls the device of each service; threads in process are of one name.
    pub devices: Vec<String>,
    /// Devices that could not be opened, and why.
    pub unopened: Vec<(String, String)>,
    /// What is done about faults.
    pub retries: Retries,
    /// Where finished images are kept.
    pub ledger: Option<Ledger>,
    /// Images that an earlier run finished, of any range.
    pub finished: Vec<Entry>,
}

impl<'a> Work<'a> {
    /// Samples from the first, without a ledger.
    #[must_use]
    pub fn of(name: &'a str, samples: &'a [(Sample<'a>, u8)], device: &str) -> Self {
        Self {
            name,
            offset: 0,
            samples,
            devices: vec![device.to_owned()],
            unopened: Vec::new(),
            retries: Retries::default(),
            ledger: None,
            finished: Vec::new(),
        }
    }
}

/// What ended a run before its last sample.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The service failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// What is finished cannot be kept.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Has samples classified and reports on it.
///
/// # Errors
/// [`RunError`] of the first that fails.
pub fn classify(
    service: &mut dyn Service,
    work: Work<'_>,
    progress: &mut dyn Progress,
    timeline: &mut Timeline,
) -> Result<InferReport, RunError> {
    let deployment = service.deployment().clone();
    let services = &mut [service];
    let (report, ended) = carry_out(services, &deployment, work, progress, timeline);
    ended.map(|()| report)
}

/// Has samples classified, by one service or spread over several of the same deployment,
/// and reports on those that were, and on what ended the run. Traces are added to
/// `timeline`.
pub fn carry_out(
    services: &mut [&mut dyn Service],
    deployment: &Deployment,
    work: Work<'_>,
    progress: &mut dyn Progress,
    timeline: &mut Timeline,
) -> (InferReport, Result<(), RunError>) {
    let Work {
        name,
        offset,
        samples,
        devices,
        unopened,
        retries,
        mut ledger,
        finished,
    } = work;
    timeline.of(deployment);
    let mut run = Run::new(deployment);
    let mut due: BTreeMap<usize, (Sample<'_>, u8)> =
        (offset..).zip(samples.iter().copied()).collect();
    // What an earlier run took counts, too: of images that ran at the same time, their share.
    let mut before = Duration::ZERO;
    for entry in finished {
        if due.remove(&entry.index).is_some() {
            if let Ok((classified, _)) = &entry.answer {
                before += Duration::try_from_secs_f64(classified.seconds).unwrap_or_default();
            }
            run.add(entry);
        }
    }
    let mut named: Vec<String> = Vec::new();
    for device in &devices {
        if !named.contains(device) {
            named.push(device.clone());
        }
    }
    let at_a_time = services.len().max(1) as u32;
    let start = Instant::now();
    let alone: Vec<Sample<'_>> = due.values().map(|&(sample, _)| sample).collect();
    let due: Vec<_> = due.into_iter().collect();
    let take = |finished: Finished| {
        let Finished {
            index: at,
            answer,
            tried,
            service,
        } = finished;
        let Some(&(index, (_, label))) = due.get(at) else {
            return Ok(());
        };
        let mut entry = Entry::of((index, label), &answer, tried);
        if named.len() + unopened.len() > 1 {
            entry.device = devices.get(service).cloned();
        }
        if let Some(ledger) = &mut ledger {
            ledger.append(&entry)?;
        }
        run.add(entry);
        if let Ok(inference) = answer
            && let Some(trace) = inference.trace
        {
            timeline.board.clone_from(&inference.board);
            timeline.unit = inference.unit;
            timeline.images.push(TracedImage { index, trace });
        }
        Ok::<_, RunError>(())
    };
    let (lost, ended) = match &mut *services {
        [service] => {
            let ended = drive(&mut **service, &alone, retries, progress, take);
            (Vec::new(), ended)
        }
        several => spread(&mut *several, &alone, retries, progress, take),
    };
    progress.finish();
    let ended = match ledger {
        Some(mut ledger) => ended.and(ledger.sync().map_err(RunError::from)),
        None => ended,
    };
    for (device, why) in unopened {
        run.lose(device, format!("was not there: {why}"));
    }
    for Lost { service, error } in lost {
        let device = devices.get(service).cloned().unwrap_or_default();
        run.lose(device, format!("gave up: {error}"));
    }
    for exchanged in services.iter().filter_map(|service| service.exchanged()) {
        run.exchange(exchanged);
    }
    let cpu = ProcessTime::now().as_duration();
    let report = run.report(
        samples.len(),
        named.join(", "),
        name.to_owned(),
        (before / at_a_time + start.elapsed(), cpu),
        services.iter().find_map(|service| service.publications()),
    );
    (report, ended)
}
