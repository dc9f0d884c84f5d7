//! The finest clock of the machine: the processor's counter where it has one that can be
//! read without a call of the system.

/// What the ticks are of.
#[cfg(target_arch = "x86_64")]
pub(super) const NAME: &str = "rdtsc";
/// What the ticks are of.
#[cfg(target_arch = "aarch64")]
pub(super) const NAME: &str = "cntvct_el0";
/// What the ticks are of.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const NAME: &str = "nanoseconds";

/// What was done before is finished, and what is done afterwards has not begun.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) fn now() -> u64 {
    tick_counter::start()
}

/// What was done before is finished, and what is done afterwards has not begun.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn now() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
