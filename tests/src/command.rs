//! The command as its users get it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// Builds the command by the profile `release`. Cargo gives a test the binaries of its
/// own package only; where it is built already this takes a moment. `HE_EDGE_BINARY` names
/// one that is there.
///
/// # Panics
/// If it does not build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("HE_EDGE_BINARY") {
            return path.into();
        }
        let mut cargo = Command::new(env!("CARGO"));
        // What cargo tells a test of its own package would have build scripts of
        // dependencies run again that look at it, and again outside of tests.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PKG_")
                || name.to_string_lossy().starts_with("CARGO_MANIFEST_")
            {
                cargo.env_remove(name);
            }
        }
        let output = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--release", "--quiet", "--package", "host-runner"])
            .args(["--bin", "he-edge", "--message-format", "json"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "he-edge does not build");
        let messages = String::from_utf8(output.stdout).unwrap();
        let executable = messages.lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).unwrap();
            Some(PathBuf::from(message["executable"].as_str()?))
        });
        executable.unwrap()
    })
}
