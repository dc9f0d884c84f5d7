//! The inner loops, one module per kind of machine.
//!
//! The contract of every kernel, checked in one place by the tests of
//! [`portable`]: residues in and out are canonical; factors named `_mont` are
//! in centred Montgomery form (`|b| <= q / 2 + 1`) or canonical Montgomery
//! form (`0 <= b < q`), either is within the bounds; slices have equal lengths
//! (the shorter one decides, nothing is read or written beyond it).
//!
//! [`portable`] is safe code and compiles for every target.

pub mod portable;

pub use portable::*;
