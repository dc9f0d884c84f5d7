//! Says in one line what a run of `cargo test` did not include.

#[expect(clippy::print_stdout, reason = "this is all that it is for")]
fn main() {
    // It has no test that a runner could list.
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let parts = [
        (
            cfg!(feature = "emulator"),
            "the emulated board (`emulator`)",
        ),
        (
            cfg!(feature = "data"),
            "accuracy on MNIST and the Pima table (`data`)",
        ),
        (cfg!(feature = "train"), "training (`train`)"),
    ];
    let missing: Vec<&str> = parts
        .into_iter()
        .filter(|(included, _)| !included)
        .map(|(_, name)| name)
        .collect();
    if !missing.is_empty() {
        println!(
            "left out: {}: features of he-edge-tests, or run tests/run for everything",
            missing.join(", ")
        );
    }
}
