//! Says which machine-specific kernels the target can run.
//!
//! `target_feature` has no stable name for the DSP instructions of Armv7E-M, so
//! the target's name decides: all of `thumbv7em` has them. On `thumbv8m.main`
//! (Cortex-M33) they are an option that assembly outside of functions is not
//! told of, so it runs the portable kernels, as everything else does.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(cortex_m_dsp)");
    if env::var("TARGET").is_ok_and(|target| target.starts_with("thumbv7em")) {
        println!("cargo:rustc-cfg=cortex_m_dsp");
    }
}
