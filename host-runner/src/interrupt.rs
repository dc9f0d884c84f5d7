//! A wish to end, by Ctrl-C or SIGTERM: work stops between two messages, and what is
//! finished is written. A second wish ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status of a process that was told twice: 128 and the number of SIGINT.
const AT_ONCE: i32 = 130;

/// Of the process, as signals are.
fn wish() -> &'static Arc<AtomicBool> {
    static WISH: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    WISH.get_or_init(Arc::default)
}

/// From now on notes the wish to end instead of ending. A hang-up keeps its meaning, so
/// that `nohup` has its own.
///
/// # Errors
/// What the system says.
pub fn watch() -> std::io::Result<()> {
    static WATCHED: AtomicBool = AtomicBool::new(false);
    if WATCHED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal only sets the flag.
        flag::register_conditional_shutdown(signal, AT_ONCE, wish().clone())?;
        flag::register(signal, wish().clone())?;
    }
    Ok(())
}

/// Whether the process is to end.
#[must_use]
pub fn wished() -> bool {
    wish().load(Ordering::Relaxed)
}
