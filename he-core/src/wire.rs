//! Bytes: bit-packed residues and versioned objects. The format is specified
//! in `he-core/WIRE.md`; every value has exactly one encoding.

use crate::arith::Modulus;
use crate::ckks::Ciphertext;
use crate::ckks::ciphertext::check_scale;
use crate::error::{Error, Result, WireError, check_len};
use crate::params::Params;
use crate::ring::sample::SEED_LEN;
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
    let bits = m.bits();
    let groups = out.chunks_exact_mut(bits as usize);
    for (group, eight) in groups.zip(src.as_chunks::<8>().0) {
        // Eight residues are `bits` bytes: whole words, and up to three bytes.
        let (words, rest) = group.as_chunks_mut::<4>();
        let mut words = words.iter_mut();
        let (mut window, mut filled) = (0u32, 0);
        for &x in eight {
            let low = window | x << filled;
            if filled + bits < 32 {
                (window, filled) = (low, filled + bits);
                continue;
            }
            if let Some(word) = words.next() {
                *word = low.to_le_bytes();
            }
            // `32 - filled` bits of x are out; all of it where that is `bits`.
            window = (x >> 1) >> (31 - filled);
            filled = filled + bits - 32;
        }
        for (byte, last) in rest.iter_mut().zip(window.to_le_bytes()) {
            *byte = last;
        }
    }
    Ok(())
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
    macro_rules! widths {
        ($($bits:literal)*) => {
            match m.bits() {
                $($bits => unpack_width::<$bits>(bytes, m.value(), out),)*
                bits => unpack_any(bytes, bits, m.value(), out),
            }
        };
    }
    if widths!(16 17 18 19 20 21 22 23 24 25 26 27 28 29 30) {
        return Ok(());
    }
    match out.iter().position(|&x| x >= m.value()) {
        None => Ok(()),
        Some(index) => Err(Error::Residue { limb: 0, index }),
    }
}

/// Residue `I` of the eight in a group of `BITS` bytes, `4 <= BITS <= 30`.
#[inline(always)]
fn residue<const BITS: usize, const I: usize>(group: &[u8; BITS]) -> u32 {
    // Four bytes that hold its first bit, and end within the group.
    let first = I * BITS;
    let at = if first >> 3 < BITS - 4 {
        first >> 3
    } else {
        BITS - 4
    };
    let shift = first - 8 * at;
    let word = |at: usize| {
        let bytes = group.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let mut x = word(at) >> shift;
    if shift + BITS > 32 {
        let next = group.get(at + 4).copied().unwrap_or(0);
        x |= u32::from(next) << (32 - shift);
    }
    x & ((1 << BITS) - 1)
}

/// Unpacks residues of a width known here; whether all are below `q`.
fn unpack_width<const BITS: usize>(bytes: &[u8], q: u32, out: &mut [u32]) -> bool {
    let (groups, _) = bytes.as_chunks::<BITS>();
    let (eights, _) = out.as_chunks_mut::<8>();
    // The sign of `q - 1 - x` for any x.
    let mut above = 0;
    for (eight, group) in eights.iter_mut().zip(groups) {
        let x = [
            residue::<BITS, 0>(group),
            residue::<BITS, 1>(group),
            residue::<BITS, 2>(group),
            residue::<BITS, 3>(group),
            residue::<BITS, 4>(group),
            residue::<BITS, 5>(group),
            residue::<BITS, 6>(group),
            residue::<BITS, 7>(group),
        ];
        for x in x {
            above |= (q - 1).wrapping_sub(x);
        }
        *eight = x;
    }
    above >> 31 == 0
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
