//! Ciphertexts and keys as bytes.

use super::header::{HEADER_LEN, Header, Kind, Object, all_primes, key_primes};
use super::packing::{half_len, level_of, pack_half, pack_limbs, unpack_half, unpack_limbs};
use crate::ckks::Ciphertext;
use crate::error::{Error, Result, WireError, check_len};
use crate::params::Params;
use crate::ring::sample::SEED_LEN;
use crate::rlwe::keys::switching_key_words;
use crate::rlwe::{PublicKey, SwitchKey, expand_c1};

const OBJECT: &str = "object bytes";

/// Writes a ciphertext, of two parts or three.
///
/// # Errors
/// [`Error::Length`] unless `out` has [`Kind::object_len`] bytes;
/// [`Error::Params`]; [`Error::Wire`] for a subnormal scale.
pub fn write_ciphertext<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    ct: &Ciphertext<S, PARTS>,
    out: &mut [u8],
) -> Result<()> {
    ct.check_params(params)?;
    let (level, scale) = (ct.level(), ct.scale());
    let object = match PARTS {
        2 => Object::Ciphertext { scale },
        _ => Object::ThreePartCiphertext { scale },
    };
    let mut body = begin(params, Header { object, level }, out)?;
    for part in ct.parts() {
        let (head, tail) = body
            .split_at_mut_checked(half_len(params, level)?)
            .unwrap_or_default();
        pack_half(params, part, head)?;
        body = tail;
    }
    Ok(())
}

/// Reads what [`write_ciphertext`] wrote into caller-provided storage of at
/// least as many limbs.
///
/// # Errors
/// [`Error`] naming what is wrong with the bytes or too short.
pub fn read_ciphertext<S: AsRef<[u32]> + AsMut<[u32]>, const PARTS: usize>(
    params: &Params,
    bytes: &[u8],
    mut parts: [S; PARTS],
) -> Result<Ciphertext<S, PARTS>> {
    let kind = match PARTS {
        2 => Kind::Ciphertext,
        _ => Kind::ThreePartCiphertext,
    };
    let (level, scale, mut body) = open_ciphertext(params, bytes, kind)?;
    for part in &mut parts {
        let (head, tail) = body
            .split_at_checked(half_len(params, level)?)
            .unwrap_or_default();
        unpack_half(params, head, storage(params, level, part)?)?;
        body = tail;
    }
    Ciphertext::from_parts(params, level, scale, parts)
}

/// Writes a seeded ciphertext: `c0` as [`crate::rlwe::encrypt`] gives it.
///
/// # Errors
/// [`Error::Length`] unless `c0` has whole limbs and `out`
/// [`Kind::object_len`] bytes; [`Error::Level`]; [`Error::Wire`] for a scale
/// that is not positive, finite and normal.
pub fn write_seeded(
    params: &Params,
    scale: f64,
    seed: &[u8; SEED_LEN],
    c0: &[u32],
    out: &mut [u8],
) -> Result<()> {
    let level = level_of("ciphertext", params, c0)?;
    let object = Object::SeededCiphertext { scale };
    let body = begin(params, Header { object, level }, out)?;
    pack_half(params, c0, put_seed(seed, body))
}

/// Reads what [`write_seeded`] wrote, and expands the other half.
///
/// # Errors
/// As [`read_ciphertext`].
pub fn read_seeded<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    bytes: &[u8],
    mut c0: S,
    mut c1: S,
) -> Result<Ciphertext<S>> {
    let (level, scale, body) = open_ciphertext(params, bytes, Kind::SeededCiphertext)?;
    let (seed, half) = take_seed(body)?;
    unpack_half(params, half, storage(params, level, &mut c0)?)?;
    expand_c1(params, seed, storage(params, level, &mut c1)?)?;
    Ciphertext::new(params, level, scale, c0, c1)
}

/// Writes a public key.
///
/// # Errors
/// [`Error::Length`] unless `out` has [`Kind::object_len`] bytes;
/// [`Error::Params`].
pub fn write_public_key<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    key: &PublicKey<S>,
    out: &mut [u8],
) -> Result<()> {
    key.check_params(params)?;
    let header = Header {
        object: Object::PublicKey,
        level: params.max_level(),
    };
    let body = begin(params, header, out)?;
    let b = put_seed(key.seed(), body);
    pack_limbs(params, all_primes(params), key.b(), b)
}

/// Reads what [`write_public_key`] wrote into storage of
/// [`PublicKey::words`].
///
/// # Errors
/// [`Error`] naming what is wrong with the bytes or of the wrong length.
pub fn read_public_key<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    bytes: &[u8],
    mut storage: S,
) -> Result<PublicKey<S>> {
    let (_, body) = open(params, bytes, Kind::PublicKey)?;
    let (seed, b) = take_seed(body)?;
    let words = storage.as_mut();
    check_len("public key", words.len(), PublicKey::<S>::words(params))?;
    unpack_limbs(params, all_primes(params), b, words)?;
    PublicKey::from_parts(params, *seed, storage)
}

/// Writes a switching key.
///
/// # Errors
/// [`Error::Length`] unless `out` has [`Kind::object_len`] bytes;
/// [`Error::Params`].
pub fn write_switch_key<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    key: &SwitchKey<S>,
    out: &mut [u8],
) -> Result<()> {
    let (target, level) = (key.target(), key.level());
    key.check(params, target, level)?;
    let object = Object::SwitchingKey { target };
    let body = begin(params, Header { object, level }, out)?;
    let b = put_seed(key.seed(), body);
    pack_limbs(params, key_primes(params, level), key.b(), b)
}

/// Reads what [`write_switch_key`] wrote into storage of
/// [`switching_key_words`] for the level in the header (see
/// [`Header::parse`]).
///
/// # Errors
/// [`Error`] naming what is wrong with the bytes or of the wrong length; limbs
/// are counted in the order of [`crate::rlwe::KeyLimb`].
pub fn read_switch_key<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    bytes: &[u8],
    mut storage: S,
) -> Result<SwitchKey<S>> {
    let (header, body) = open(params, bytes, Kind::SwitchingKey)?;
    let level = header.level;
    let Object::SwitchingKey { target } = header.object else {
        return Err(wrong_kind(Kind::SwitchingKey, &header));
    };
    let (seed, b) = take_seed(body)?;
    let words = storage.as_mut();
    let expected = switching_key_words(params, level);
    check_len("switching key", words.len(), expected)?;
    unpack_limbs(params, key_primes(params, level), b, words)?;
    SwitchKey::from_parts(params, target, level, *seed, storage)
}

/// Writes the header of an object that fills `out`; gives the rest.
fn begin<'o>(params: &Params, header: Header, out: &'o mut [u8]) -> Result<&'o mut [u8]> {
    let bytes = header.to_bytes(params)?;
    check_len(OBJECT, out.len(), header.object_len(params)?)?;
    let (head, body) = out.split_first_chunk_mut().ok_or(Error::Length {
        what: OBJECT,
        expected: HEADER_LEN,
        got: 0,
    })?;
    *head = bytes;
    Ok(body)
}

/// Checks the header of an object that fills `bytes`; gives the rest.
fn open<'b>(params: &Params, bytes: &'b [u8], kind: Kind) -> Result<(Header, &'b [u8])> {
    let header = Header::parse(bytes, params)?;
    if header.object.kind() != kind {
        return Err(wrong_kind(kind, &header));
    }
    check_len(OBJECT, bytes.len(), header.object_len(params)?)?;
    Ok((header, bytes.get(HEADER_LEN..).unwrap_or_default()))
}

const fn wrong_kind(expected: Kind, header: &Header) -> Error {
    Error::Wire {
        what: WireError::Kind {
            expected: expected as u8,
            got: header.object.kind() as u8,
        },
    }
}

/// As [`open`], for a ciphertext: its level and scale, and the rest.
fn open_ciphertext<'b>(
    params: &Params,
    bytes: &'b [u8],
    kind: Kind,
) -> Result<(usize, f64, &'b [u8])> {
    let (header, body) = open(params, bytes, kind)?;
    match header.object {
        Object::Ciphertext { scale }
        | Object::SeededCiphertext { scale }
        | Object::ThreePartCiphertext { scale } => Ok((header.level, scale, body)),
        Object::PublicKey | Object::SwitchingKey { .. } => Err(wrong_kind(kind, &header)),
    }
}

/// Writes the seed; gives the rest.
fn put_seed<'o>(seed: &[u8; SEED_LEN], body: &'o mut [u8]) -> &'o mut [u8] {
    match body.split_first_chunk_mut() {
        Some((head, rest)) => {
            *head = *seed;
            rest
        }
        None => &mut [],
    }
}

fn take_seed(body: &[u8]) -> Result<(&[u8; SEED_LEN], &[u8])> {
    body.split_first_chunk().ok_or(Error::Length {
        what: "seed",
        expected: SEED_LEN,
        got: body.len(),
    })
}

fn storage<'s, S: AsMut<[u32]>>(
    params: &Params,
    level: usize,
    half: &'s mut S,
) -> Result<&'s mut [u32]> {
    let words = half.as_mut();
    let (expected, got) = ((level + 1) * params.n(), words.len());
    let short = Error::Length {
        what: "ciphertext half",
        expected,
        got,
    };
    words.get_mut(..expected).ok_or(short)
}
