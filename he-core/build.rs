//! Says which machine-specific kernels the target can run.
//!
//! `target_feature` has no stable name for the DSP instructions, so the target's name
//! decides: all of `thumbv7em` (Cortex-M4 and M7) has them. On `thumbv8m.main`
//! (Cortex-M33) they are an option, and the feature `armv8m-dsp` says that the processor
//! has it; without, it runs the portable kernels, as everything else does.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(cortex_m_dsp, armv8m)");
    let target = env::var("TARGET").unwrap_or_default();
    let is_armv8m = target.starts_with("thumbv8m.main");
    if is_armv8m {
        println!("cargo:rustc-cfg=armv8m");
    }
    let has_option = env::var_os("CARGO_FEATURE_ARMV8M_DSP").is_some();
    if target.starts_with("thumbv7em") || (is_armv8m && has_option) {
        println!("cargo:rustc-cfg=cortex_m_dsp");
    }
}
