//! libFuzzer's program. `HE_EDGE_FUZZ_TARGET` names the target; its valid inputs
//! are put into the folder `HE_EDGE_FUZZ_SEEDS`. `tests/fuzz/run` sets both.
#![no_main]

use he_edge_fuzz::Target;
use std::alloc::System;
use std::sync::LazyLock;
use std::{env, fs};

/// No input may take more than this: an allocation beyond it fails, which ends
/// the program.
#[global_allocator]
static ALLOCATOR: cap::Cap<System> = cap::Cap::new(System, 512 << 20);

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = env::var("HE_EDGE_FUZZ_TARGET").unwrap_or_default();
    match he_edge_fuzz::find(&name) {
        Some(target) => target,
        None => panic!("there is no target {name:?}"),
    }
});

libfuzzer_sys::fuzz_target!(
    init: {
        if let Ok(folder) = env::var("HE_EDGE_FUZZ_SEEDS") {
            for (i, seed) in (TARGET.seeds)().iter().enumerate() {
                if let Err(error) = fs::write(format!("{folder}/seed-{i}"), seed) {
                    panic!("{folder} cannot be written to: {error}");
                }
            }
        }
    },
    |input: &[u8]| (TARGET.run)(input)
);
