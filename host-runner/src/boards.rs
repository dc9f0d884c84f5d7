//! What the host knows of each board: for plans, and to emulate it.

/// A board that the firmware can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// Its name.
    pub name: &'static str,
    /// Its processor.
    pub core: &'static str,
    /// QEMU's machine, if it has one.
    pub machine: Option<Machine>,
    /// RAM that an image may take, stack included: `STACK` and `RAM` of the
    /// board's memory map, `firmware/src/board/NAME.x`. A test compares them.
    pub ram_bytes: usize,
    /// Of that, the stack: `STACK` of the memory map.
    pub stack_bytes: usize,
    /// Of that, what lies beside the arena: receive ring, frame buffers, fault
    /// stack, log, and the emulator's mailbox. A test compares it with a
    /// running board.
    pub fixed_bytes: usize,
    /// What an inference costs.
    pub cost: Cost,
}

/// What QEMU makes of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// QEMU's name for it.
    pub name: &'static str,
    /// Its main memory, where the firmware looks for the mailbox.
    pub memory_bytes: u64,
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

/// The board that is meant where none is named; the firmware's build script has
/// the same.
pub const DEFAULT_BOARD: &str = "mps2-an386";

/// The emulator's machine, with the counts of its processor.
const MPS2_AN386: Board = Board {
    name: "mps2-an386",
    core: "Cortex-M4F",
    machine: Some(Machine {
        name: "mps2-an386",
        memory_bytes: 16 << 20,
    }),
    ram_bytes: 512 * 1024,
    stack_bytes: 32 * 1024,
    fixed_bytes: 24 * 1024,
    cost: Cost {
        butterfly_x100: 930,
        coefficient: 52,
        encode: 100,
    },
};

/// All boards.
pub const BOARDS: &[Board] = &[
    MPS2_AN386,
    // The same machine, held to the RAM of smaller boards.
    Board {
        name: "mps2-an386-256k",
        ram_bytes: 256 * 1024,
        stack_bytes: 16 * 1024,
        ..MPS2_AN386
    },
];

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn firmware() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware")
    }

    /// `LENGTH` of a region in a memory map.
    fn length(map: &str, region: &str) -> usize {
        let is_region = |line: &&str| line.split(':').next().map(str::trim) == Some(region);
        let line = map.lines().find(is_region).unwrap();
        let length = line.split("LENGTH = ").nth(1).unwrap().trim();
        let unit = match length.chars().last() {
            Some('K') => 1024,
            Some('M') => 1024 * 1024,
            _ => panic!("{line}"),
        };
        unit * length[..length.len() - 1].parse::<usize>().unwrap()
    }

    #[test]
    fn memory_maps_and_entries_agree() {
        let mut maps = 0;
        for entry in fs::read_dir(firmware().join("src/board")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "x") {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let board = find(&name.replace('_', "-")).unwrap();
            let map = fs::read_to_string(&path).unwrap();
            let stack = length(&map, "STACK");
            assert_eq!(board.stack_bytes, stack, "{name}");
            assert_eq!(board.ram_bytes, stack + length(&map, "RAM"), "{name}");
            maps += 1;
        }
        assert_eq!(maps, BOARDS.len());
    }

    #[test]
    fn the_firmware_has_the_same_default() {
        find(DEFAULT_BOARD).unwrap();
        let script = fs::read_to_string(firmware().join("build.rs")).unwrap();
        let line = format!("const DEFAULT_BOARD: &str = \"{DEFAULT_BOARD}\";");
        assert!(script.contains(&line));
    }
}
