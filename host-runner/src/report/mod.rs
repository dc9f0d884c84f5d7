//! Reports of runs and plans: for people as text, for programs as JSON.

pub mod infer;
pub mod opened;
#[cfg(feature = "attack")]
pub mod page;
pub mod plan;
pub mod steps;
pub mod text;
pub mod timeline;
