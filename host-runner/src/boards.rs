//! What the host knows of each board: for plans.

/// A board that the firmware can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// Its name.
    pub name: &'static str,
    /// Its processor.
    pub core: &'static str,
    /// RAM that an image may take, stack included.
    pub ram_bytes: usize,
    /// Of that, the stack.
    pub stack_bytes: usize,
    /// Of that, what lies beside the arena: receive ring, frame buffers, fault
    /// stack, log, and the emulator's mailbox. A test compares it with a
    /// running board.
    pub fixed_bytes: usize,
    /// What an inference costs.
    pub cost: Cost,
}

/// Instructions, for estimates: fitted to counts on the board; a test holds
/// the estimate of the bundled network to within 10 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// One transform with the carrying over before it, per butterfly, in
    /// hundredths.
    pub butterfly_x100: u64,
    /// One uploaded coefficient: unpack, expand its other half, multiply and
    /// add both.
    pub coefficient: u64,
    /// Laying out and encoding one vector of weights, per coefficient.
    pub encode: u64,
}

/// All boards, the default one first.
pub const BOARDS: &[Board] = &[Board {
    name: "mps2-an386",
    core: "Cortex-M4F",
    ram_bytes: 512 * 1024,
    stack_bytes: 32 * 1024,
    fixed_bytes: 52 * 1024,
    cost: Cost {
        butterfly_x100: 930,
        coefficient: 70,
        encode: 120,
    },
}];

/// A board that is not in [`BOARDS`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no board {name}: use one of {}", names())]
pub struct UnknownBoard {
    name: String,
}

fn names() -> String {
    BOARDS.iter().map(|b| b.name).collect::<Vec<_>>().join(", ")
}

/// Looks a board up.
///
/// # Errors
/// [`UnknownBoard`].
pub fn find(name: &str) -> Result<&'static Board, UnknownBoard> {
    BOARDS
        .iter()
        .find(|b| b.name == name)
        .ok_or_else(|| UnknownBoard {
            name: name.to_owned(),
        })
}
