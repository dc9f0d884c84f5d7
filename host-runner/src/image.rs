//! What a firmware image holds: how large its parts are, and what must not be
//! in it.

use std::path::Path;

use object::elf::{SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE};
use object::read::elf::{ElfFile32, ElfSection32};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, SectionFlags};

use crate::device::DeviceError;

/// Parts of the names of functions that panic, and of allocators. `rustc`'s two
/// ways to mangle a path both write it as lengths and words.
const UNWANTED_IN_SYMBOLS: [&str; 13] = [
    "4core9panicking",
    "rust_begin_unwind",
    "rust_panic",
    "unwrap_failed",
    "expect_failed",
    "len_mismatch_fail",
    "index_fail",
    "__rust_alloc",
    "__rust_realloc",
    "__rust_dealloc",
    "__rg_alloc",
    "_ZN5alloc",
    "4core3fmt",
];

/// Names of C's allocator.
const UNWANTED_SYMBOLS: [&str; 4] = ["malloc", "calloc", "realloc", "free"];

/// Parts of what the standard library says when it panics.
const UNWANTED_TEXTS: [&str; 12] = [
    "panicked at",
    "explicit panic",
    "index out of bounds",
    "out of range for slice",
    "called `Option::unwrap()`",
    "called `Result::unwrap()`",
    "internal error: entered unreachable",
    "assertion failed",
    "attempt to ",
    "mid > len",
    "must be non-zero",
    "copy_from_slice:",
];

/// The symbol of the model in the firmware, mangled in either way.
const MODEL: &str = "8firmware9evaluator5MODEL";

/// Bytes of the parts of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sizes {
    /// Instructions and the vector table, in flash.
    pub code: u64,
    /// Constants in flash, the model apart: tables of transforms, above all.
    pub tables: u64,
    /// The model in flash, or its weights as they are multiplied.
    pub model: u64,
    /// Static variables in RAM, the stack apart.
    pub ram: u64,
}

impl Sizes {
    /// What the image takes in flash.
    #[must_use]
    pub const fn flash(&self) -> u64 {
        self.code + self.tables + self.model
    }
}

/// An image, read.
#[derive(Clone, Debug)]
pub struct Image {
    /// How large its parts are.
    pub sizes: Sizes,
    /// The version of the compiler that made it, such as `1.96.0`; empty if the
    /// image does not say.
    pub compiler: String,
    /// What a release image must not hold, one line each: functions that panic,
    /// allocators, texts of panics, paths of sources. Sorted.
    pub unwanted: Vec<String>,
}

impl Image {
    /// Reads an ELF file for a 32-bit processor.
    ///
    /// # Errors
    /// [`DeviceError::Image`].
    pub fn read(path: &Path) -> Result<Self, DeviceError> {
        let wrong = |reason: String| DeviceError::Image {
            path: path.into(),
            reason,
        };
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&bytes).map_err(|error| wrong(error.to_string()))
    }

    /// As [`Self::read`], of bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, object::Error> {
        let elf = ElfFile32::<Endianness>::parse(bytes)?;
        let mut sizes = Sizes::default();
        let mut unwanted = Vec::new();
        for section in elf.sections() {
            let Some(flags) = loaded(&section) else {
                continue;
            };
            let part = if flags & SHF_WRITE != 0 {
                &mut sizes.ram
            } else if flags & SHF_EXECINSTR != 0 || section.name()? == ".vector_table" {
                &mut sizes.code
            } else {
                &mut sizes.tables
            };
            *part += section.size();
            unwanted.extend(texts(section.data()?));
        }
        for symbol in elf.symbols() {
            let section = symbol.section_index();
            let section = section.and_then(|index| elf.section_by_index(index).ok());
            if section.is_none_or(|section| loaded(&section).is_none()) {
                continue;
            }
            let name = symbol.name()?;
            if name.contains(MODEL) {
                sizes.model += symbol.size();
            }
            if UNWANTED_SYMBOLS.contains(&name)
                || UNWANTED_IN_SYMBOLS.iter().any(|part| name.contains(part))
            {
                unwanted.push(format!("symbol {name}"));
            }
        }
        sizes.tables = sizes.tables.saturating_sub(sizes.model);
        unwanted.sort();
        unwanted.dedup();
        let comment = elf.section_by_name(".comment");
        let compiler = comment.map_or(Ok(String::new()), |c| c.data().map(compiler))?;
        Ok(Self {
            sizes,
            compiler,
            unwanted,
        })
    }
}

/// The flags of a section that takes memory on the board. The data of one
/// without bytes in the file are none.
fn loaded(section: &ElfSection32<'_, '_, Endianness>) -> Option<u32> {
    match section.flags() {
        SectionFlags::Elf { sh_flags } => {
            let flags = sh_flags as u32;
            (flags & SHF_ALLOC != 0).then_some(flags)
        }
        _ => None,
    }
}

/// The version in a comment such as `rustc version 1.96.0 (..)`.
fn compiler(comment: &[u8]) -> String {
    let text = String::from_utf8_lossy(comment);
    let version = text.split("rustc version ").nth(1).unwrap_or_default();
    version.split_whitespace().next().unwrap_or_default().into()
}

/// Texts of panics and paths of sources.
fn texts(data: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for text in UNWANTED_TEXTS {
        if data.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(format!("text {text:?}"));
        }
    }
    // A path has a name before its ending; three bytes alone may be a number.
    let in_path = |&byte: &u8| byte.is_ascii_alphanumeric() || b"_-/.".contains(&byte);
    for (at, _) in data.windows(3).enumerate().filter(|(_, w)| w == b".rs") {
        let (before, _) = data.split_at(at);
        let name: Vec<u8> = before.iter().rev().copied().take_while(in_path).collect();
        if name.len() >= 3 {
            let path: String = name.iter().rev().map(|&byte| char::from(byte)).collect();
            found.push(format!("path {path}.rs"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_panics_are_found() {
        let data =
            b"\x01\x02he-core/src/wire/mod.rs\x00called `Option::unwrap()` on a `None` value";
        assert_eq!(
            texts(data),
            [
                "text \"called `Option::unwrap()`\"",
                "path he-core/src/wire/mod.rs"
            ]
        );
        assert_eq!(texts(b"\x00\x03.rs\x00a.rs and the like"), [""; 0]);
    }

    #[test]
    fn the_compiler_is_in_the_comment() {
        let comment = b"Linker: LLD 22\0rustc version 1.96.0 (ac68faa20 2026-05-25)\0";
        assert_eq!(compiler(comment), "1.96.0");
        assert_eq!(compiler(b"Linker: LLD 22\0"), "");
    }

    #[test]
    fn what_is_no_image_is_one_sentence() {
        let error = Image::read(Path::new("none")).unwrap_err().to_string();
        assert!(error.starts_with("none cannot be read as a firmware image ("));
        assert!(Image::parse(b"no ELF").is_err());
    }
}
