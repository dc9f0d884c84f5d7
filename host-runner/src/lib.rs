//! What the `he-edge` command is made of.
//!
//! | module | holds |
//! |---|---|
//! | [`service`] | one trait over everything that classifies samples |
//! | [`drive`] | samples through a service, tried again after faults |
//! | [`spread`] | samples over several services |
//! | [`run`] | a run of samples: what is due, kept and reported |
//! | [`ledger`] | what is finished of a run, on disk |
//! | [`interrupt`] | Ctrl-C and SIGTERM |
//! | [`client`] | the side of the key |
//! | [`engine`] | the evaluator in memory |
//! | [`evaluator`] | the session of a board, in a thread or behind TCP |
//! | [`mod@line`] | what a serial line makes of an inference, in virtual time |
//! | `fleet` | evaluators behind a queue of NATS JetStream (feature `nats`) |
//! | [`planning`] | which parameter set a network is planned under |
//! | [`advice`] | the one change of a network that would save most |
//! | [`quantized`] | a network with its weights rounded otherwise |
//! | [`choice`] | which of a network's plans on a board answers first |
//! | [`device`] | bytes to and from boards |
//! | `attacked` | the encrypted deployment as a target of attacks (feature `attack`) |
//! | `timing` | whether time depends on secrets (feature `attack`) |
//! | [`report`] | what runs, plans and attacks gave, as text, JSON and a page |
//! | [`budget`] | publications that are counted on disk |
//! | [`files`] | keys, requests and results in files; what the steps over them do |
//! | [`held`] | a file that one process holds, and replaces as a whole |
//! | [`receipts`] | digests of answers, by which others evaluate again |
//! | [`image`] | sizes of a board's image |
//! | [`sensor`] | the client of a sensor's board |
//! | [`encrypted_training`] | training on encrypted data |
//! | [`fetch`] | downloads of data sets |
//! | `tensor_threads` | how many threads training takes (feature `train`) |
//! | [`commands`] | the command line |

pub mod advice;
#[cfg(feature = "attack")]
pub mod attacked;
pub mod budget;
pub mod choice;
pub mod client;
pub mod commands;
pub mod device;
pub mod drive;
pub mod encrypted_training;
pub mod engine;
pub mod evaluator;
pub mod fetch;
pub mod files;
#[cfg(feature = "nats")]
pub mod fleet;
pub mod held;
pub mod image;
pub mod interrupt;
pub mod ledger;
pub mod line;
pub mod planning;
pub mod quantized;
pub mod receipts;
pub mod report;
pub mod run;
pub mod sensor;
pub mod service;
pub mod spread;
#[cfg(feature = "train")]
mod tensor_threads;
#[cfg(feature = "attack")]
pub mod timing;
