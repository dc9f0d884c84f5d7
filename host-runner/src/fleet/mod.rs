//! Evaluators in a fleet: samples' ciphertexts through a work queue of NATS JetStream.
//!
//! | module | holds |
//! |---|---|
//! | here | [`FleetError`] |
//! | [`subjects`] | names of streams, subjects and objects |
//! | [`item`] | an item and its answer as bytes |
//! | [`broker`] | the connection: what is created when it is missing, objects by their digest |
//! | [`pool`] | a worker's evaluators, each in a thread |
//! | [`worker`] | `he-edge work`: takes items, answers, acknowledges |
//! | [`client`] | `--device nats:URL`: knows every item until its answer is decrypted |
//! | [`status`] | what `he-edge fleet` shows |
//! | [`up`] | a fleet on this machine, for trying |
//!
//! **The broker is taken to be lossy, and is not trusted.** Whatever it acknowledged may be
//! gone after a `kill -9` or a loss of power, streams and objects included. So nothing is
//! believed to be done before its answer is decrypted: the client keeps every item until
//! then, asks the stream which of its items are still there and sends again what vanished,
//! under a new message id; both sides create again what is missing. What comes twice is
//! counted once. Nothing relies on an fsync.
//!
//! An answer goes by a plain message, not through a stream: where it is lost its item is
//! evaluated again, and a client that ended has taken its key along, so that nobody could
//! read what a stream would have kept.
//!
//! The runtime of the broker's library stays within this module; the rest of the program is
//! threads.

pub mod broker;
pub mod client;
pub mod item;
pub mod pool;
pub mod status;
pub mod subjects;
pub mod up;
pub mod worker;

use std::time::Duration;

use crate::device::Seconds;
use crate::receipts::Digest;

/// Why a fleet does not work. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Nobody answers at the address.
    #[error(
        "no NATS server answers at {url} ({reason}): start one with JetStream, as `he-edge fleet up` does"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What the library said.
        reason: String,
    },
    /// The broker did not do what it was asked for.
    #[error(
        "the broker at {url} did not {doing} ({reason}): check its log, and that it runs with JetStream"
    )]
    Broker {
        /// The address.
        url: String,
        /// What was asked for.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// No answer.
    #[error(
        "no answer came from the fleet at {url} within {}, and {unanswered} items wait{because}: see `he-edge fleet --nats {url}`, start workers with `he-edge work --nats {url}`, or allow more with --patience",
        Seconds(*waited)
    )]
    Silence {
        /// The address.
        url: String,
        /// How long it was waited for.
        waited: Duration,
        /// How many items have no answer.
        unanswered: usize,
        /// What the broker said last, or nothing.
        because: String,
    },
    /// An item took too long.
    #[error("an item had no answer from the fleet at {url} within {}: allow more with --deadline", Seconds(*limit))]
    Deadline {
        /// The address.
        url: String,
        /// How long it may take.
        limit: Duration,
    },
    /// Workers put an item aside.
    #[error("worker {worker} put the item aside: {reason}")]
    Aside {
        /// Who, as it says.
        worker: String,
        /// Why.
        reason: String,
    },
    /// An object is not there.
    #[error("the object {0} is not in the bucket: its client puts it there again")]
    Missing(Digest),
    /// An object is another.
    #[error("the object {0} in the bucket is another: its client puts it there again")]
    Object(Digest),
    /// Something is too large.
    #[error("{what} has {got} bytes and {most} are allowed")]
    Large {
        /// What.
        what: &'static str,
        /// Its bytes.
        got: u64,
        /// How many it may have.
        most: u64,
    },
    /// A worker's name.
    #[error("a worker's name has 1 to 64 letters, digits, - and _")]
    Name,
    /// The system has no randomness.
    #[error("the system's random generator failed ({0})")]
    Random(getrandom::Error),
    /// The runtime did not start.
    #[error("the threads of the connection did not start ({0}): allow this process more")]
    Runtime(std::io::Error),
    /// There is no server's program.
    #[error(
        "nats-server is not installed: install it with `apt install nats-server` or your system's equivalent"
    )]
    ServerMissing,
    /// The server did not come up.
    #[error(
        "nats-server did not come up at {address} ({reason}): see {log}, or choose another --port"
    )]
    Server {
        /// Where it was to listen.
        address: String,
        /// What happened.
        reason: String,
        /// Its log.
        log: String,
    },
    /// A process or a file of a local fleet.
    #[error("{what} could not be {doing} ({source})")]
    Local {
        /// What.
        what: String,
        /// What was to be done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl FleetError {
    /// Whether it may pass by itself. Silence lasted as long as was allowed.
    #[must_use]
    pub const fn is_of_link(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Broker { .. })
    }
}
