//! The boards: for plans, to build an image, to emulate it or to put it on the board.

use crate::kept::{self, KeyShape, Writing};
use crate::plan::{Prices, Target};

/// A board that the firmware can be built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// Its name.
    pub name: &'static str,
    /// Its processor.
    pub core: &'static str,
    /// Cycles of it per second; of an emulated one, those of the board.
    pub core_hz: u32,
    /// Instructions per hundred of these cycles; of an emulated one a hundred, as the emulator
    /// counts instructions alone. No hardware has confirmed the others.
    pub instructions_per_100: u32,
    /// Bytes of frames that it takes before the first is acknowledged: its firmware's
    /// window, which a test compares.
    pub window: u32,
    /// Rates of its link that a plan is shown for, in bits per second, rising: none is above
    /// what its serial port takes. An emulated board has any, by `infer --line-rate`.
    pub bauds: &'static [u32],
    /// The compiler's name for that.
    pub target: &'static str,
    /// The firmware's feature that the image needs, for a board with a hardware
    /// abstraction layer.
    pub feature: Option<&'static str>,
    /// QEMU's machine, if it has one.
    pub machine: Option<Machine>,
    /// What probe-rs calls its chip, if there is one to put an image on.
    pub chip: Option<&'static str>,
    /// Flash for the image: `FLASH` of the memory map.
    pub flash_bytes: usize,
    /// RAM that an image may take, stack included: `STACK` and `RAM` of the
    /// board's memory map, `firmware/src/board/NAME.x`. A test compares them.
    pub ram_bytes: usize,
    /// Memory beside it that holds the arena and, behind it, keys that are kept; 0 if the
    /// arena lies in the RAM: `ARENA` of the memory map.
    pub external_bytes: usize,
    /// Memory beside it that holds nothing but keys that are kept: `KEPT` of the memory map,
    /// 0 if there is none.
    pub kept_bytes: usize,
    /// The flash that this memory is, if it is one.
    pub flash: Option<Flash>,
    /// Of the RAM, the stack: `STACK` of the memory map.
    pub stack_bytes: usize,
    /// Of the RAM, what lies beside the arena: receive ring, frame buffers, fault
    /// stack, log, and the emulator's mailbox. A test compares it with a
    /// running board.
    pub fixed_bytes: usize,
    /// What its work costs.
    pub prices: Prices,
}

/// A flash that keys are kept in, with typical times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flash {
    /// Its name.
    pub name: &'static str,
    /// Bytes that are erased at once.
    pub erase_bytes: usize,
    /// Microseconds that this takes.
    pub erase_us: u32,
    /// Bytes that are programmed at once, at the most.
    pub program_bytes: usize,
    /// Microseconds that this takes, of fewer bytes too.
    pub program_us: u32,
    /// How often each sector can be erased, as rated.
    pub erasures: u32,
    /// Bytes that are read per second, by clock and width of the interface.
    pub read_per_second: u32,
    /// Pages that the log of records divides it into at the most, of which each takes eight
    /// bytes of RAM.
    pub pages: usize,
    /// Records at the most, 32 bytes of RAM each.
    pub records: usize,
}

impl Flash {
    /// Bytes of a page of the log where it has so many bytes.
    #[must_use]
    pub const fn page_bytes(&self, capacity: usize) -> usize {
        kept::page_bytes(capacity, self.erase_bytes, self.pages)
    }

    /// What keeping keys of these shapes takes.
    #[must_use]
    pub fn writing(&self, capacity: usize, shapes: impl Iterator<Item = KeyShape>) -> Writing {
        let page = self.page_bytes(capacity);
        let mut sum = Writing::default();
        for shape in shapes {
            let of = Writing::of(&shape, page, self.program_bytes);
            sum.pages += of.pages;
            sum.programmed += of.programmed;
        }
        sum
    }

    /// Seconds that it takes.
    #[must_use]
    pub fn seconds(&self, capacity: usize, writing: Writing) -> f64 {
        let sectors = writing.pages * self.page_bytes(capacity) / self.erase_bytes;
        let erasing = sectors as f64 * f64::from(self.erase_us);
        1e-6 * (erasing + writing.programmed as f64 * f64::from(self.program_us))
    }

    /// How often that can be written before a sector has been erased as often as it is rated
    /// for: pages are taken in turns, so all wear alike. 0 where nothing is written.
    #[must_use]
    pub fn exchanges(&self, capacity: usize, writing: Writing) -> u64 {
        let pages = capacity / self.page_bytes(capacity).max(1);
        let erasures = u64::from(self.erasures) * pages as u64;
        erasures.checked_div(writing.pages as u64).unwrap_or(0)
    }
}

impl Board {
    /// How fast it computes.
    #[must_use]
    pub fn instructions_per_second(&self) -> f64 {
        f64::from(self.core_hz) * f64::from(self.instructions_per_100) / 100.0
    }

    /// Room for an arena.
    #[must_use]
    pub const fn arena_bytes(&self) -> usize {
        match self.external_bytes {
            0 => self
                .ram_bytes
                .saturating_sub(self.stack_bytes + self.fixed_bytes),
            external => external,
        }
    }

    /// Flash for tables of transforms and for weights that are encoded and transformed
    /// before: what code, program and constants of any board leave of it.
    #[must_use]
    pub const fn weight_bytes(&self) -> usize {
        self.flash_bytes.saturating_sub(224 * 1024)
    }

    /// Room for keys beside an arena of so many bytes.
    #[must_use]
    pub const fn key_bytes(&self, arena_bytes: usize) -> usize {
        match self.external_bytes {
            0 => self.kept_bytes,
            external => external.saturating_sub(arena_bytes),
        }
    }

    /// The board as what a plan is made for.
    #[must_use]
    pub const fn target(&self) -> Target {
        Target::Stream {
            prices: self.prices,
            arena_bytes: self.arena_bytes(),
            weight_bytes: self.weight_bytes(),
            owes: true,
        }
    }
}

/// What QEMU makes of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// QEMU's name for it.
    pub name: &'static str,
    /// Its main memory, where the firmware looks for the mailbox.
    pub memory_bytes: u64,
}

/// The board that is meant where none is named; the firmware's build script has
/// the same.
pub const DEFAULT_BOARD: &str = "mps2-an386";

/// The window of most boards: 8 KiB, but for small requests around it.
const WINDOW: u32 = 8192 - 128;

/// Usual rates of serial ports, and what USB at full speed carries.
const ANY_BAUD: &[u32] = &[115_200, 921_600, 1_000_000, 3_000_000, 10_000_000];

/// The emulator's machine, with the counts of its processor.
const MPS2_AN386: Board = Board {
    name: "mps2-an386",
    core: "Cortex-M4F",
    core_hz: 25_000_000,
    instructions_per_100: 100,
    window: WINDOW,
    bauds: ANY_BAUD,
    target: ARMV7E_M_TARGET,
    feature: None,
    machine: Some(Machine {
        name: "mps2-an386",
        memory_bytes: 16 << 20,
    }),
    chip: None,
    flash_bytes: 4 << 20,
    ram_bytes: 512 * 1024,
    external_bytes: 0,
    kept_bytes: 15 << 20,
    flash: None,
    stack_bytes: 32 * 1024,
    fixed_bytes: 28 * 1024,
    prices: Prices::ARMV7E_M,
};

/// The external flash of the nRF52840 DK, Macronix's MX25R6435F. Its times are those that the chip
/// says of itself (words 10 and 11 of its JESD216 table, as boards' descriptions copy it: 3 times
/// 16 ms and 14 times 64 us), of its high performance mode; its endurance is what such chips are
/// rated at, without the sheet at hand.
/// Read over four lines at 32 MHz.
const MX25R6435F: Flash = Flash {
    name: "MX25R6435F",
    erase_bytes: 4096,
    erase_us: 48_000,
    program_bytes: 256,
    program_us: 896,
    erasures: 100_000,
    read_per_second: 14_000_000,
    // 3 KiB of RAM: a plan of 256 KB leaves four.
    pages: 256,
    records: 32,
};

/// The STM32H743's own flash, at the 32 bits at once that its driver sets: ST's data sheet
/// (DS12110), tables of programming and endurance. Those of erasing and of endurance were seen, in
/// ST's answers to users; that of programming is as it is known, without the sheet at hand. A word
/// of 256 bits is read in a few cycles of 240 MHz.
const STM32H743: Flash = Flash {
    name: "STM32H743",
    erase_bytes: 128 * 1024,
    erase_us: 1_100_000,
    program_bytes: 32,
    program_us: 130,
    erasures: 10_000,
    read_per_second: 200_000_000,
    pages: 12,
    records: 16,
};

/// Pico 2's flash, 4 MB of Winbond's W25Q32 series: its data sheet, tables of AC characteristics
/// and of features, as they are known, without the sheet at hand. Read through the cache, eight
/// bytes in 28 cycles of 75 MHz.
const W25Q32: Flash = Flash {
    name: "W25Q32",
    erase_bytes: 4096,
    erase_us: 45_000,
    program_bytes: 256,
    program_us: 400,
    erasures: 100_000,
    read_per_second: 21_000_000,
    pages: 512,
    records: 32,
};

/// All boards.
pub const BOARDS: &[Board] = &[
    MPS2_AN386,
    // The same machine, held to the RAM of smaller boards.
    Board {
        name: "mps2-an386-256k",
        ram_bytes: 256 * 1024,
        kept_bytes: 0,
        stack_bytes: 16 * 1024,
        ..MPS2_AN386
    },
    Board {
        name: "mps2-an500",
        core: "Cortex-M7",
        machine: Some(Machine {
            name: "mps2-an500",
            memory_bytes: 16 << 20,
        }),
        external_bytes: 15 << 20,
        kept_bytes: 0,
        ..MPS2_AN386
    },
    Board {
        name: "mps2-an505",
        core: "Cortex-M33",
        core_hz: 20_000_000,
        target: ARMV8M_TARGET,
        machine: Some(Machine {
            name: "mps2-an505",
            memory_bytes: 16 << 20,
        }),
        ..MPS2_AN386
    },
    Board {
        name: "nrf52840-dk",
        core: "Cortex-M4F",
        core_hz: 64_000_000,
        instructions_per_100: 75,
        window: 4096 - 128,
        // The fastest that UARTE knows; what it calls 921,600 is 941,176.
        bauds: &[115_200, 1_000_000],
        feature: Some("nrf52840-dk"),
        machine: None,
        chip: Some("nRF52840_xxAA"),
        flash_bytes: 1 << 20,
        ram_bytes: 256 * 1024,
        kept_bytes: 8 << 20,
        flash: Some(MX25R6435F),
        stack_bytes: 16 * 1024,
        fixed_bytes: 24 * 1024,
        ..MPS2_AN386
    },
    Board {
        name: "nucleo-h743zi",
        core: "Cortex-M7",
        core_hz: 480_000_000,
        instructions_per_100: 90,
        window: WINDOW,
        // USART3 has 120 MHz: at most a sixteenth of that.
        bauds: &[115_200, 921_600, 1_000_000, 3_000_000],
        target: ARMV7E_M_TARGET,
        feature: Some("nucleo-h743zi"),
        machine: None,
        chip: Some("STM32H743ZITx"),
        // Of 2 MB; weights that are encoded before would leave half of the keys no room.
        flash_bytes: 512 * 1024,
        ram_bytes: 640 * 1024,
        external_bytes: 0,
        kept_bytes: 1536 * 1024,
        flash: Some(STM32H743),
        stack_bytes: 128 * 1024,
        fixed_bytes: 24 * 1024,
        prices: Prices::ARMV7E_M,
    },
    Board {
        name: "pico2",
        core: "Cortex-M33",
        core_hz: 150_000_000,
        instructions_per_100: 75,
        window: WINDOW,
        // UART0 has 150 MHz: at most a sixteenth of that.
        bauds: &[115_200, 921_600, 1_000_000, 3_000_000],
        target: ARMV8M_TARGET,
        feature: Some("pico2"),
        machine: None,
        chip: Some("RP235x"),
        // Half of what there is.
        flash_bytes: 2 << 20,
        ram_bytes: 520 * 1024,
        external_bytes: 0,
        kept_bytes: 2 << 20,
        flash: Some(W25Q32),
        stack_bytes: 32 * 1024,
        fixed_bytes: 24 * 1024,
        prices: Prices::ARMV7E_M,
    },
];

const ARMV7E_M_TARGET: &str = "thumbv7em-none-eabihf";
const ARMV8M_TARGET: &str = "thumbv8m.main-none-eabihf";

/// A board that is not in [`BOARDS`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no board {name}: use one of {}", names())]
pub struct UnknownBoard {
    name: String,
}

fn names() -> String {
    list(|_| true)
}

/// The names of the boards that QEMU emulates.
#[must_use]
pub fn emulated() -> String {
    list(|board| board.machine.is_some())
}

/// The names of the boards that an image can be put on.
#[must_use]
pub fn physical() -> String {
    list(|board| board.chip.is_some())
}

fn list(which: impl Fn(&Board) -> bool) -> String {
    let chosen = BOARDS.iter().filter(|&board| which(board));
    chosen.map(|b| b.name).collect::<Vec<_>>().join(", ")
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
            let external = match board.external_bytes {
                0 => 0,
                _ => length(&map, "ARENA"),
            };
            assert_eq!(board.external_bytes, external, "{name}");
            let kept = match board.kept_bytes {
                0 => 0,
                _ => length(&map, "KEPT"),
            };
            assert_eq!(board.kept_bytes, kept, "{name}");
            // The map has such a place if and only if the entry says so.
            let keeps = board.key_bytes(0) > 0;
            assert_eq!(map.contains("_kept_start = "), keeps, "{name}");
            assert_eq!(board.flash_bytes, length(&map, "FLASH"), "{name}");
            maps += 1;
        }
        assert_eq!(maps, BOARDS.len());
    }

    #[test]
    fn features_are_those_of_the_firmware() {
        let manifest = fs::read_to_string(firmware().join("Cargo.toml")).unwrap();
        let modules = fs::read_to_string(firmware().join("src/board/mod.rs")).unwrap();
        for board in BOARDS {
            // The build script takes the feature for that of the same name.
            assert!(board.feature.is_none_or(|feature| feature == board.name));
            let line = format!("\n{} = [", board.name);
            assert_eq!(manifest.contains(&line), board.feature.is_some());
            assert!(modules.contains(&format!("board = \"{}\"", board.name)));
            assert!(board.machine.is_none() || board.chip.is_none());
        }
    }

    #[test]
    fn windows_are_those_of_the_firmware() {
        let protocol = fs::read_to_string(firmware().join("src/protocol.rs")).unwrap();
        let buffer = protocol.split_once("const BUFFER_BYTES").unwrap().1;
        let (smaller, larger) = buffer.split_once("} else {").unwrap();
        let number = |text: &str| -> u32 {
            let digits = text.lines().map(str::trim);
            digits.filter_map(|line| line.parse().ok()).next().unwrap()
        };
        let [smaller, larger] = [smaller, larger].map(number);
        assert!(protocol.contains("= (BUFFER_BYTES - 128) as u32;"));
        for board in BOARDS {
            let is_smaller = buffer.contains(&format!("board = \"{}\"", board.name));
            let bytes = if is_smaller { smaller } else { larger };
            assert_eq!(board.window, bytes - 128, "{}", board.name);
        }
    }

    #[test]
    fn rates_are_rising_and_hold_the_firmwares() {
        let rate = |file: &str| -> u32 {
            let source = fs::read_to_string(firmware().join("src/board").join(file)).unwrap();
            let line = source.split_once("const LINK_BAUD: u32 = ").unwrap().1;
            let digits = line.split(';').next().unwrap().replace('_', "");
            digits.parse().unwrap()
        };
        for board in BOARDS {
            let rate = match board.machine {
                Some(_) => rate("mps2.rs"),
                None => rate(&format!("{}.rs", board.name.replace('-', "_"))),
            };
            assert!(board.bauds.contains(&rate), "{}", board.name);
            assert!(board.bauds.is_sorted_by(|a, b| a < b), "{}", board.name);
        }
    }

    #[test]
    fn the_firmware_has_the_same_default() {
        find(DEFAULT_BOARD).unwrap();
        let script = fs::read_to_string(firmware().join("build.rs")).unwrap();
        let line = format!("const DEFAULT_BOARD: &str = \"{DEFAULT_BOARD}\";");
        assert!(script.contains(&line));
    }
}
