//! One target for everything that decodes bytes from outside. A target takes
//! any bytes and panics where the decoder broke its promise: that it refuses
//! or reads, never panics, hangs or takes memory without bound, and that what
//! has one encoding is written again as it was read.
//!
//! `tests/fuzz/run` has libFuzzer drive them by coverage. Without a C++ compiler
//! `cargo test -p he-edge-fuzz` changes the valid inputs ([`Target::seeds`]) in a
//! fixed way.
//!
//! Where a checksum or a long conversation would hold a fuzzer off, a target
//! does not take the bytes themselves but what to change in valid ones
//! ([`script`]), and computes the checksum.

mod core_targets;
mod host_targets;
mod nn_targets;
pub mod script;

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What to call it.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
    /// Valid inputs, to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Inputs that take about a second.
    pub inputs_a_second: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "wire_object",
        run: core_targets::object,
        seeds: core_targets::objects,
        inputs_a_second: 20_000,
    },
    Target {
        name: "wire_residues",
        run: core_targets::residues,
        seeds: core_targets::packed,
        inputs_a_second: 50_000,
    },
    Target {
        name: "link",
        run: nn_targets::link,
        seeds: nn_targets::frames,
        inputs_a_second: 20_000,
    },
    Target {
        name: "message",
        run: nn_targets::message,
        seeds: nn_targets::messages,
        inputs_a_second: 50_000,
    },
    Target {
        name: "model",
        run: nn_targets::model,
        seeds: nn_targets::models,
        inputs_a_second: 5_000,
    },
    Target {
        name: "program",
        run: nn_targets::program,
        seeds: nn_targets::programs,
        inputs_a_second: 100,
    },
    Target {
        name: "session",
        run: nn_targets::session,
        seeds: script::scripts,
        inputs_a_second: 30,
    },
    Target {
        name: "session_encrypted",
        run: nn_targets::session_encrypted,
        seeds: script::scripts,
        inputs_a_second: 30,
    },
    Target {
        name: "session_polynomial",
        run: nn_targets::session_polynomial,
        seeds: script::scripts,
        inputs_a_second: 30,
    },
    Target {
        name: "sensor",
        run: nn_targets::sensor,
        seeds: nn_targets::sensor_requests,
        inputs_a_second: 1_000,
    },
    Target {
        name: "client",
        run: host_targets::client,
        seeds: script::scripts,
        inputs_a_second: 30,
    },
    Target {
        name: "engine",
        run: host_targets::engine,
        seeds: host_targets::engine_objects,
        inputs_a_second: 100,
    },
    Target {
        name: "idx",
        run: host_targets::idx,
        seeds: host_targets::idx_files,
        inputs_a_second: 20_000,
    },
    Target {
        name: "onnx",
        run: host_targets::onnx,
        seeds: host_targets::onnx_files,
        inputs_a_second: 5_000,
    },
    Target {
        name: "image",
        run: host_targets::image,
        seeds: host_targets::images,
        inputs_a_second: 20_000,
    },
    Target {
        name: "budget",
        run: host_targets::budget,
        seeds: host_targets::budgets,
        inputs_a_second: 2_000,
    },
    Target {
        name: "files",
        run: host_targets::file,
        seeds: host_targets::files_of_steps,
        inputs_a_second: 1_000,
    },
    Target {
        name: "timeline",
        run: host_targets::timeline,
        seeds: host_targets::spans,
        inputs_a_second: 200,
    },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
