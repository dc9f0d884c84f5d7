//! Makes the image one that starts at a boot sector.

use std::env;

fn main() {
    println!("cargo:rustc-check-cfg=cfg(freestanding)");
    println!("cargo:rerun-if-changed=image.x");
    if env::var_os("CARGO_CFG_FREESTANDING").is_some() {
        let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{directory}/image.x,--build-id=none");
    }
}
