//! Bytes: bit-packed residues and versioned objects, as `he-core/WIRE.md`
//! specifies them.
//!
//! Every value has exactly one encoding. Whatever is read is checked as a
//! whole, and written again it gives the same bytes; anything else is refused
//! with an error that names what disagreed. No bytes make a reader panic, and
//! none makes it take memory: that is the caller's.
//!
//! | object | written by | read by |
//! |---|---|---|
//! | ciphertext of two or three parts | [`write_ciphertext`] | [`read_ciphertext`] |
//! | fresh ciphertext, its uniform half as a seed | [`write_seeded`] | [`read_seeded`] |
//! | public key, seeded | [`write_public_key`] | [`read_public_key`] |
//! | switching key, seeded | [`write_switch_key`] | [`read_switch_key`] |
//!
//! Who does not know what comes asks [`Header::parse`]: it says which object
//! follows, at what level, and [`Header::object_len`] how long it is. A secret
//! key has no encoding.

mod header;
mod objects;
mod packing;

pub use header::{HEADER_LEN, Header, Kind, MAGIC, Object, VERSION};
pub use objects::{
    read_ciphertext, read_public_key, read_seeded, read_switch_key, write_ciphertext,
    write_public_key, write_seeded, write_switch_key,
};
pub use packing::{half_len, pack, pack_half, packed_len, unpack, unpack_half};

#[cfg(test)]
mod tests;
