//! Bytes: bit-packed residues and versioned objects. The format is specified
//! in `he-core/WIRE.md`; every value has exactly one encoding.

use crate::arith::Modulus;
use crate::ckks::Ciphertext;
use crate::ckks::ciphertext::check_scale;
use crate::error::{Error, Result, WireError, check_len};
use crate::params::Params;
use crate::ring::{kernel, sample::SEED_LEN};
use crate::rlwe::expand_c1;

/// Version of the format.
pub const VERSION: u8 = 1;

/// First bytes of every object.
pub const MAGIC: [u8; 4] = *b"HEDG";

/// Bytes of the header of an object.
pub const HEADER_LEN: usize = 20;

/// Bytes of `count` residues of `bits` bits. `count` is a multiple of 8, so
/// that no bits are left over.
#[must_use]
pub const fn packed_len(count: usize, bits: u32) -> usize {
    (count >> 3) * bits as usize
}

/// Packs canonical residues, least significant bit first, without gaps.
///
/// # Errors
/// [`Error::Length`] unless `src` is a multiple of 8 and `out` has exactly
/// [`packed_len`] bytes.
pub fn pack(src: &[u32], m: &Modulus, out: &mut [u8]) -> Result<()> {
    check_len("residues to pack", src.len(), src.len() & !7)?;
    check_len(
        "packed residues",
        out.len(),
        packed_len(src.len(), m.bits()),
    )?;
    macro_rules! width {
        ($bits:literal) => {
            pack_width::<$bits>(src, out)
        };
    }
    if kernel::of_width!(m.bits(), width).is_none() {
        pack_any(src, m.bits(), out);
    }
    Ok(())
}

/// Packs residues of a width known here.
fn pack_width<const BITS: usize>(src: &[u32], out: &mut [u8]) {
    for (group, eight) in out
        .as_chunks_mut::<BITS>()
        .0
        .iter_mut()
        .zip(src.as_chunks::<8>().0)
    {
        // Eight residues are `BITS` bytes: whole words, and up to three bytes.
        for (word, k) in group.chunks_mut(4).zip(0..) {
            let mut bits = 0;
            for (&x, i) in eight.iter().zip(0..) {
                // Where the residue begins, relative to this word.
                let place = (i * BITS) as i32 - 32 * k;
                if (0..32).contains(&place) {
                    bits |= x << place;
                } else if (-(BITS as i32)..0).contains(&place) {
                    bits |= x >> -place;
                }
            }
            for (byte, b) in word.iter_mut().zip(bits.to_le_bytes()) {
                *byte = b;
            }
        }
    }
}

/// Packs residues of any width.
fn pack_any(src: &[u32], bits: u32, out: &mut [u8]) {
    let mut out = out.iter_mut();
    let (mut window, mut filled) = (0u64, 0);
    for &x in src {
        window |= u64::from(x) << filled;
        filled += bits;
        while filled >= 8 {
            if let Some(byte) = out.next() {
                *byte = window as u8;
            }
            window >>= 8;
            filled -= 8;
        }
    }
}

/// Unpacks residues and checks that they are canonical.
///
/// # Errors
/// [`Error::Length`] as in [`pack`]; [`Error::Residue`] with the index in this
/// call (and limb 0) where one is not below the modulus. `out` is then
/// undefined.
pub fn unpack(bytes: &[u8], m: &Modulus, out: &mut [u32]) -> Result<()> {
    check_len("residues to unpack", out.len(), out.len() & !7)?;
    check_len(
        "packed residues",
        bytes.len(),
        packed_len(out.len(), m.bits()),
    )?;
    let canonical = kernel::unpack(bytes, m, out)
        .unwrap_or_else(|| unpack_any(bytes, m.bits(), m.value(), out));
    if canonical {
        return Ok(());
    }
    match out.iter().position(|&x| x >= m.value()) {
        None => Ok(()),
        Some(index) => Err(Error::Residue { limb: 0, index }),
    }
}

/// Unpacks residues of any width; whether all are below `q`.
fn unpack_any(bytes: &[u8], bits: u32, q: u32, out: &mut [u32]) -> bool {
    let mask = (1u64 << bits) - 1;
    let mut bytes = bytes.iter();
    let (mut window, mut filled) = (0u64, 0);
    let mut canonical = true;
    for x in out {
        while filled < bits {
            window |= u64::from(bytes.next().copied().unwrap_or(0)) << filled;
            filled += 8;
        }
        *x = (window & mask) as u32;
        window >>= bits;
        filled -= bits;
        canonical &= *x < q;
    }
    canonical
}

/// Kind of a serialised object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Both halves.
    Ciphertext = 1,
    /// A seed and `c0`.
    SeededCiphertext = 2,
}

/// Header of an object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Level.
    pub level: u8,
    /// Fingerprint of the parameter set.
    pub params: u32,
    /// Exact scale.
    pub scale: f64,
}

impl Header {
    /// The 20 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let fields = MAGIC
            .into_iter()
            .chain([VERSION, self.kind as u8, self.level, 0])
            .chain(self.params.to_le_bytes())
            .chain(self.scale.to_bits().to_le_bytes());
        for (o, b) in out.iter_mut().zip(fields) {
            *o = b;
        }
        out
    }

    /// Parses and checks a header that must be of `kind` and of the set
    /// `params`.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Wire`], [`Error::Params`], [`Error::Level`].
    pub fn parse(bytes: &[u8], kind: Kind, params: &Params) -> Result<Self> {
        let wire = |what| Error::Wire { what };
        let Some((bytes, _)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err(Error::Length {
                what: "header",
                expected: HEADER_LEN,
                got: bytes.len(),
            });
        };
        let [
            m0,
            m1,
            m2,
            m3,
            version,
            k,
            level,
            reserved,
            p0,
            p1,
            p2,
            p3,
            scale @ ..,
        ] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(wire(WireError::Magic));
        }
        if version != VERSION {
            return Err(wire(WireError::Version {
                expected: VERSION,
                got: version,
            }));
        }
        if k != kind as u8 {
            return Err(wire(WireError::Kind {
                expected: kind as u8,
                got: k,
            }));
        }
        if reserved != 0 {
            return Err(wire(WireError::Padding));
        }
        let (expected, got) = (params.fingerprint(), u32::from_le_bytes([p0, p1, p2, p3]));
        if expected != got {
            return Err(Error::Params { expected, got });
        }
        params.check_level("object", usize::from(level))?;
        let scale = f64::from_bits(u64::from_le_bytes(scale));
        check_scale("object", scale).map_err(|_| wire(WireError::Scale))?;
        Ok(Self {
            kind,
            level,
            params: got,
            scale,
        })
    }
}

/// Bytes of one packed half at `level`.
#[must_use]
pub fn half_len(params: &Params, level: usize) -> usize {
    (0..=level)
        .map_while(|i| params.prime(i).ok())
        .map(|p| packed_len(params.n(), p.modulus().bits()))
        .sum()
}

/// Packs the limbs of one half (level `half.len() / N - 1`).
///
/// # Errors
/// [`Error::Length`] or [`Error::Level`].
pub fn pack_half(params: &Params, half: &[u32], out: &mut [u8]) -> Result<()> {
    let n = params.n();
    let limbs = half.len() >> n.trailing_zeros();
    check_len("half", half.len(), limbs * n)?;
    params.check_level("packing", limbs.saturating_sub(1))?;
    check_len(
        "packed half",
        out.len(),
        half_len(params, limbs.saturating_sub(1)),
    )?;
    let mut rest = out;
    for (i, limb) in half.chunks_exact(n).enumerate() {
        let m = params.prime(i)?.modulus();
        let (head, tail) = rest
            .split_at_mut_checked(packed_len(n, m.bits()))
            .unwrap_or_default();
        pack(limb, m, head)?;
        rest = tail;
    }
    Ok(())
}

/// Unpacks what [`pack_half`] wrote.
///
/// # Errors
/// [`Error::Length`], [`Error::Level`] or [`Error::Residue`].
pub fn unpack_half(params: &Params, bytes: &[u8], half: &mut [u32]) -> Result<()> {
    let n = params.n();
    let limbs = half.len() >> n.trailing_zeros();
    check_len("half", half.len(), limbs * n)?;
    params.check_level("unpacking", limbs.saturating_sub(1))?;
    check_len(
        "packed half",
        bytes.len(),
        half_len(params, limbs.saturating_sub(1)),
    )?;
    let mut rest = bytes;
    for (i, limb) in half.chunks_exact_mut(n).enumerate() {
        let m = params.prime(i)?.modulus();
        let (head, tail) = rest
            .split_at_checked(packed_len(n, m.bits()))
            .unwrap_or_default();
        unpack(head, m, limb).map_err(|e| match e {
            Error::Residue { index, .. } => Error::Residue { limb: i, index },
            other => other,
        })?;
        rest = tail;
    }
    Ok(())
}

/// Bytes of a seeded ciphertext: header, seed, `c0`.
#[must_use]
pub fn seeded_len(params: &Params, level: usize) -> usize {
    HEADER_LEN + SEED_LEN + half_len(params, level)
}

/// Bytes of a ciphertext: header, `c0`, `c1`.
#[must_use]
pub fn ciphertext_len(params: &Params, level: usize) -> usize {
    HEADER_LEN + 2 * half_len(params, level)
}

/// Writes a ciphertext.
///
/// # Errors
/// [`Error::Length`] unless `out` has [`ciphertext_len`] bytes.
pub fn write_ciphertext<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    ct: &Ciphertext<S>,
    out: &mut [u8],
) -> Result<()> {
    let (level, half) = (ct.level(), half_len(params, ct.level()));
    check_len("ciphertext bytes", out.len(), ciphertext_len(params, level))?;
    let (c0, c1) = ct.halves();
    let body = write_header(params, Kind::Ciphertext, level, ct.scale(), out)?;
    let (first, second) = body.split_at_mut_checked(half).unwrap_or_default();
    pack_half(params, c0, first)?;
    pack_half(params, c1, second)
}

/// Reads what [`write_ciphertext`] wrote into caller-provided storage of at
/// least as many limbs.
///
/// # Errors
/// [`Error`] naming what is wrong with the bytes or too short.
pub fn read_ciphertext<S: AsRef<[u32]> + AsMut<[u32]>>(
    params: &Params,
    bytes: &[u8],
    mut c0: S,
    mut c1: S,
) -> Result<Ciphertext<S>> {
    let header = Header::parse(bytes, Kind::Ciphertext, params)?;
    let level = usize::from(header.level);
    check_len(
        "ciphertext bytes",
        bytes.len(),
        ciphertext_len(params, level),
    )?;
    let body = bytes.get(HEADER_LEN..).unwrap_or_default();
    let (first, second) = body
        .split_at_checked(half_len(params, level))
        .unwrap_or_default();
    unpack_half(params, first, storage(params, level, &mut c0)?)?;
    unpack_half(params, second, storage(params, level, &mut c1)?)?;
    Ciphertext::new(params, level, header.scale, c0, c1)
}

/// Writes a seeded ciphertext: `c0` as [`crate::rlwe::encrypt`] gives it.
///
/// # Errors
/// [`Error::Length`] unless `c0` has whole limbs and `out` [`seeded_len`]
/// bytes; [`Error::Level`].
pub fn write_seeded(
    params: &Params,
    scale: f64,
    seed: &[u8; SEED_LEN],
    c0: &[u32],
    out: &mut [u8],
) -> Result<()> {
    let level = (c0.len() >> params.n().trailing_zeros()).saturating_sub(1);
    check_len("ciphertext bytes", out.len(), seeded_len(params, level))?;
    let body = write_header(params, Kind::SeededCiphertext, level, scale, out)?;
    let (head, half) = body.split_at_mut_checked(SEED_LEN).unwrap_or_default();
    head.copy_from_slice(seed);
    pack_half(params, c0, half)
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
    let header = Header::parse(bytes, Kind::SeededCiphertext, params)?;
    let level = usize::from(header.level);
    let expected = seeded_len(params, level);
    let short = Error::Length {
        what: "ciphertext bytes",
        expected,
        got: bytes.len(),
    };
    check_len("ciphertext bytes", bytes.len(), expected)?;
    let body = bytes.get(HEADER_LEN..).unwrap_or_default();
    let (seed, half) = body.split_first_chunk::<SEED_LEN>().ok_or(short)?;
    unpack_half(params, half, storage(params, level, &mut c0)?)?;
    expand_c1(params, seed, storage(params, level, &mut c1)?)?;
    Ciphertext::new(params, level, header.scale, c0, c1)
}

fn write_header<'o>(
    params: &Params,
    kind: Kind,
    level: usize,
    scale: f64,
    out: &'o mut [u8],
) -> Result<&'o mut [u8]> {
    params.check_level("object", level)?;
    check_scale("object", scale)?;
    let header = Header {
        kind,
        level: level as u8,
        params: params.fingerprint(),
        scale,
    };
    let (head, body) = out.split_at_mut_checked(HEADER_LEN).unwrap_or_default();
    head.copy_from_slice(&header.to_bytes());
    Ok(body)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn every_width_is_packed_as_specified() {
        for bits in 2..=30u32 {
            let q = (1 << bits) - 1;
            let m = Modulus::new(q).unwrap();
            assert_eq!(m.bits(), bits);
            let mut src = random(32, q, u64::from(bits));
            src[..4].copy_from_slice(&[q - 1, 0, q - 1, 1]);
            let mut expected = vec![0u8; packed_len(32, bits)];
            for (i, &x) in src.iter().enumerate() {
                for b in 0..bits as usize {
                    let at = i * bits as usize + b;
                    expected[at >> 3] |= ((x >> b & 1) as u8) << (at & 7);
                }
            }
            let mut bytes = vec![0xA5; expected.len()];
            pack(&src, &m, &mut bytes).unwrap();
            assert_eq!(bytes, expected, "{bits} bits");
            let mut back = vec![7; 32];
            unpack(&bytes, &m, &mut back).unwrap();
            assert_eq!(back, src, "{bits} bits");
            // q itself, the one value of this width that is not a residue.
            for index in [0, 5, 31] {
                let mut bytes = bytes.clone();
                for b in 0..bits as usize {
                    let at = index * bits as usize + b;
                    bytes[at >> 3] |= 1 << (at & 7);
                }
                assert_eq!(
                    unpack(&bytes, &m, &mut back),
                    Err(Error::Residue { limb: 0, index })
                );
            }
        }
    }
}
