//! The way out of what cannot go on.

use cortex_m::peripheral::SCB;

/// Starts the program anew, as after power-on.
pub(crate) fn restart() -> ! {
    SCB::sys_reset()
}
