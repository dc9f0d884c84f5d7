//! Says which machine-specific kernels the target can run.
//!
//! `target_feature` has no stable name for the DSP instructions of Armv7E-M and
//! Armv8-M, so the target's name decides: all of `thumbv7em` has them; on
//! `thumbv8m.main` they are an option, on if the flags name a processor that
//! has them or the feature itself. Everything else runs the portable kernels.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(cortex_m_dsp)");
    let target = env::var("TARGET").unwrap_or_default();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let optional = [
        "+dsp",
        "cortex-m33",
        "cortex-m35p",
        "cortex-m55",
        "cortex-m85",
    ];
    let named = target.starts_with("thumbv8m.main") && optional.iter().any(|o| flags.contains(o));
    if target.starts_with("thumbv7em") || named {
        println!("cargo:rustc-cfg=cortex_m_dsp");
    }
}
