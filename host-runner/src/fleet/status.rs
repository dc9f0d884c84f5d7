//! What a fleet does, from its workers' heartbeats and the broker's own counts.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout_at};

use super::FleetError;
use super::broker::{Broker, REASON};
use super::item::reason;
use super::subjects::{ALL_BEATS, WorkerName};
use super::worker::{BEAT, Beat};
use crate::report::text::{bytes, facts, grouped, table};

/// Heartbeats that are listened for: each worker's one, and one that was late.
const LISTEN: Duration = BEAT.saturating_mul(2);

/// Bytes of a heartbeat at most, and workers that are listened to.
const MAX_BEAT: usize = 1 << 14;
const MAX_WORKERS: usize = 100_000;

/// A fleet at a moment.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The broker.
    pub url: String,
    /// Its workers, by name.
    pub workers: Vec<Beat>,
    /// Its items.
    pub queue: Queue,
    /// Items that were put aside, and why the last one was.
    pub aside: Aside,
}

/// Items without an answer.
#[derive(Clone, Debug, Serialize)]
pub struct Queue {
    /// That no worker has.
    pub waiting: u64,
    /// That workers have.
    pub handed_out: u64,
    /// Of those, that somebody had before.
    pub handed_out_again: u64,
    /// Bytes of all.
    pub bytes: u64,
}

/// Items that no worker could evaluate.
#[derive(Clone, Debug, Serialize)]
pub struct Aside {
    /// How many there are.
    pub items: u64,
    /// Why the last one is there.
    pub last_reason: Option<String>,
}

/// Asks a fleet, and listens to it.
///
/// # Errors
/// [`FleetError`].
pub fn of(url: &str) -> Result<Status, FleetError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(FleetError::Runtime)?;
    runtime.block_on(look(url))
}

async fn look(url: &str) -> Result<Status, FleetError> {
    let broker = Broker::connect(url, "he-edge fleet").await?;
    let mut beats = broker.listen(ALL_BEATS.to_owned()).await?;
    let end = Instant::now() + LISTEN;
    let consumer = broker.workers().await?;
    let consumer = consumer.cached_info();
    let stream = broker.work().await?;
    let aside = broker.aside().await?;
    let items = aside.cached_info().state.messages;
    let last = aside.cached_info().state.last_sequence;
    // One that is gone by now has no reason.
    let last_reason = match items {
        0 => None,
        _ => aside.get_raw_message(last).await.ok().and_then(|message| {
            let why = message.headers.get(REASON)?;
            Some(reason(why.as_str()))
        }),
    };
    let queue = Queue {
        waiting: consumer.num_pending,
        handed_out: consumer.num_ack_pending as u64,
        handed_out_again: consumer.num_redelivered as u64,
        bytes: stream.cached_info().state.bytes,
    };
    let mut workers: BTreeMap<WorkerName, Beat> = BTreeMap::new();
    while let Ok(Some(message)) = timeout_at(end, beats.next()).await {
        if message.payload.len() > MAX_BEAT || workers.len() >= MAX_WORKERS {
            continue;
        }
        // Whatever else somebody says there is no heartbeat.
        if let Ok(mut beat) = serde_json::from_slice::<Beat>(&message.payload) {
            beat.devices = beat.devices.iter().map(|device| reason(device)).collect();
            beat.last_error = beat.last_error.map(|error| reason(&error));
            workers.insert(beat.worker.clone(), beat);
        }
    }
    Ok(Status {
        url: url.to_owned(),
        workers: workers.into_values().collect(),
        queue,
        aside: Aside { items, last_reason },
    })
}

impl Status {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let queue = &self.queue;
        let mut rows = vec![
            ("broker", self.url.clone()),
            ("items that wait", grouped(queue.waiting)),
            (
                "items that workers have",
                format!(
                    "{}, {} of them again",
                    grouped(queue.handed_out),
                    grouped(queue.handed_out_again)
                ),
            ),
            ("bytes in the queue", bytes(queue.bytes)),
            ("items put aside", grouped(self.aside.items)),
        ];
        if let Some(why) = &self.aside.last_reason {
            rows.push(("the last of them", why.clone()));
        }
        let of_worker = |beat: &Beat| {
            let leaving = if beat.is_leaving { " (leaving)" } else { "" };
            [
                format!("{}{leaving}", beat.worker),
                counted(&beat.devices),
                beat.busy.to_string(),
                grouped(beat.done),
                format!("{:.1}", beat.per_second),
                grouped(beat.failed),
                grouped(beat.aside),
                beat.last_error.clone().unwrap_or_default(),
            ]
        };
        let workers: Vec<[String; 8]> = self.workers.iter().map(of_worker).collect();
        let header = [
            "worker",
            "devices",
            "busy",
            "answered",
            "per s",
            "failed",
            "put aside",
            "last error",
        ];
        match workers.is_empty() {
            true => format!("{}no worker was heard\n", facts(&rows)),
            false => format!("{}\n{}", facts(&rows), table(header, &workers)),
        }
    }
}

/// Devices with how many of each there are.
fn counted(devices: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for device in devices {
        *counts.entry(device).or_default() += 1;
    }
    let each = counts
        .iter()
        .map(|(device, count)| format!("{count} {device}"));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_workers_devices_and_errors() {
        let status = Status {
            url: "localhost:4222".into(),
            workers: vec![Beat {
                worker: "w1".parse().unwrap(),
                version: 1,
                devices: vec!["inproc".into(), "inproc".into()],
                busy: 1,
                done: 1234,
                failed: 2,
                aside: 1,
                per_second: 3.25,
                seconds: 9.0,
                is_leaving: true,
                last_error: Some("its head is damaged".into()),
            }],
            queue: Queue {
                waiting: 5,
                handed_out: 2,
                handed_out_again: 1,
                bytes: 1_500_000,
            },
            aside: Aside {
                items: 1,
                last_reason: Some("foreign".into()),
            },
        };
        let text = status.text();
        for part in [
            "w1 (leaving)",
            "2 inproc",
            "1 234",
            "damaged",
            "1.5 MB",
            "2, 1 of them again",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let none = Status {
            workers: Vec::new(),
            ..status
        };
        assert!(none.text().contains("no worker was heard"));
    }
}
