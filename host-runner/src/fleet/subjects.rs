//! Names on the broker: streams, subjects, the bucket of objects. A client or a worker that
//! may use no others can do its part.
//!
//! | name | is |
//! |---|---|
//! | `he-edge.work.CLIENT.REQUEST` | an item, in the stream [`WORK`] until it is acknowledged |
//! | `he-edge.answer.CLIENT` | answers to a client, which nobody keeps |
//! | `he-edge.aside.WORKER` | items that were put aside, in the stream [`ASIDE`] |
//! | `he-edge.beat.WORKER` | a worker's heartbeat, JSON |
//! | [`OBJECTS`] | the bucket of programs, keys, models and large inputs, each under its SHA-256 |
//!
//! An item has a subject of its own, so that its client can ask the stream which of its
//! items are still there: one that is neither there nor answered has vanished.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::FleetError;
use crate::report::text::hex;

/// Stream of the items to be evaluated, a work queue.
pub const WORK: &str = "HE_EDGE_WORK";

/// Stream of the items that no worker could evaluate.
pub const ASIDE: &str = "HE_EDGE_ASIDE";

/// Bucket of objects.
pub const OBJECTS: &str = "HE_EDGE_OBJECTS";

/// The consumer that all workers share.
pub const WORKERS: &str = "workers";

/// All items.
pub const ALL_WORK: &str = "he-edge.work.>";

/// All items that were put aside.
pub const ALL_ASIDE: &str = "he-edge.aside.>";

/// All heartbeats.
pub const ALL_BEATS: &str = "he-edge.beat.*";

/// Bytes of a worker's name at most.
const LONGEST_NAME: usize = 64;

/// 16 random bytes: the name of a client, or of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id([u8; 16]);

impl Id {
    /// A fresh one.
    ///
    /// # Errors
    /// [`FleetError::Random`].
    pub fn fresh() -> Result<Self, FleetError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(FleetError::Random)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A worker's name: a token of a subject.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct WorkerName(String);

impl WorkerName {
    /// A random one.
    ///
    /// # Errors
    /// [`FleetError::Random`].
    pub fn fresh() -> Result<Self, FleetError> {
        let mut name = Id::fresh()?.to_string();
        name.truncate(8);
        Ok(Self(format!("worker-{name}")))
    }
}

impl std::str::FromStr for WorkerName {
    type Err = FleetError;

    fn from_str(name: &str) -> Result<Self, FleetError> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(is_plain) {
            true => Ok(Self(name.to_owned())),
            false => Err(FleetError::Name),
        }
    }
}

impl TryFrom<String> for WorkerName {
    type Error = FleetError;

    fn try_from(name: String) -> Result<Self, FleetError> {
        name.parse()
    }
}

impl From<WorkerName> for String {
    fn from(name: WorkerName) -> Self {
        name.0
    }
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Subject of an item.
#[must_use]
pub fn work(client: Id, request: Id) -> String {
    format!("he-edge.work.{client}.{request}")
}

/// Subjects of all items of a client.
#[must_use]
pub fn work_of(client: Id) -> String {
    format!("he-edge.work.{client}.*")
}

/// Subject of the answers to a client.
#[must_use]
pub fn answer(client: Id) -> String {
    format!("he-edge.answer.{client}")
}

/// Subject of what a worker puts aside.
#[must_use]
pub fn aside(worker: &WorkerName) -> String {
    format!("he-edge.aside.{worker}")
}

/// Subject of a worker's heartbeats.
#[must_use]
pub fn beat(worker: &WorkerName) -> String {
    format!("he-edge.beat.{worker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_reaches_beyond_its_token() {
        for name in ["", "a.b", "*", ">", "a b", "\u{e4}", &"a".repeat(65)] {
            assert!(name.parse::<WorkerName>().is_err(), "{name}");
        }
        let name: WorkerName = "w_1-a".parse().unwrap();
        assert_eq!(beat(&name), "he-edge.beat.w_1-a");
        let (client, request) = (Id([0xab; 16]), Id([1; 16]));
        let subject = work(client, request);
        assert!(subject.starts_with(work_of(client).trim_end_matches('*')));
        assert_eq!(subject.split('.').count(), 4);
    }
}
