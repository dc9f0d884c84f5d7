//! Bit-packed residues, and the limbs of one polynomial.

use crate::arith::Modulus;
use crate::error::{Error, Result, check_len};
use crate::params::Params;
use crate::ring::kernel;

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
    // A board packs few residues, and a width's code each is a tenth of its flash.
    let fast = cfg!(not(target_arch = "arm"));
    if !fast || kernel::of_width!(m.bits(), width).is_none() {
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
    let (words, rest) = out.as_chunks_mut::<4>();
    let mut words = words.iter_mut();
    // The low `filled` bits, below 32 between two residues, are not in `out` yet.
    let (mut window, mut filled) = (0u32, 0);
    for &x in src {
        window |= x << filled;
        filled += bits;
        if filled >= 32 {
            if let Some(word) = words.next() {
                *word = window.to_le_bytes();
            }
            filled -= 32;
            window = x.wrapping_shr(bits - filled);
        }
    }
    for (byte, b) in rest.iter_mut().zip(window.to_le_bytes()) {
        *byte = b;
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

/// Bytes of one limb for each of these primes.
pub(super) fn limbs_len(params: &Params, primes: impl Iterator<Item = usize>) -> Result<usize> {
    primes
        .map(|i| Ok(packed_len(params.n(), params.prime(i)?.modulus().bits())))
        .sum()
}

/// Packs one limb for each of these primes. The caller has checked the length
/// of `out`; one too short is [`Error::Length`] all the same.
pub(super) fn pack_limbs(
    params: &Params,
    primes: impl Iterator<Item = usize>,
    words: &[u32],
    out: &mut [u8],
) -> Result<()> {
    let mut rest = out;
    for (i, limb) in primes.zip(words.chunks_exact(params.n())) {
        let m = params.prime(i)?.modulus();
        let (head, tail) = rest
            .split_at_mut_checked(packed_len(params.n(), m.bits()))
            .unwrap_or_default();
        pack(limb, m, head)?;
        rest = tail;
    }
    Ok(())
}

/// Unpacks what [`pack_limbs`] wrote; in [`Error::Residue`] limbs are counted in
/// the order of `primes`.
pub(super) fn unpack_limbs(
    params: &Params,
    primes: impl Iterator<Item = usize>,
    bytes: &[u8],
    words: &mut [u32],
) -> Result<()> {
    let mut rest = bytes;
    for (at, (i, limb)) in primes.zip(words.chunks_exact_mut(params.n())).enumerate() {
        let m = params.prime(i)?.modulus();
        let (head, tail) = rest
            .split_at_checked(packed_len(params.n(), m.bits()))
            .unwrap_or_default();
        unpack(head, m, limb).map_err(|e| match e {
            Error::Residue { index, .. } => Error::Residue { limb: at, index },
            other => other,
        })?;
        rest = tail;
    }
    Ok(())
}

/// Bytes of one packed half at `level`.
///
/// # Errors
/// [`Error::Level`] where the set has no such level.
pub fn half_len(params: &Params, level: usize) -> Result<usize> {
    params.check_level("packed half", level)?;
    limbs_len(params, 0..=level)
}

/// Packs the limbs of one half (level `half.len() / N - 1`).
///
/// # Errors
/// [`Error::Length`] or [`Error::Level`].
pub fn pack_half(params: &Params, half: &[u32], out: &mut [u8]) -> Result<()> {
    let level = level_of("packing", params, half)?;
    check_len("packed half", out.len(), half_len(params, level)?)?;
    pack_limbs(params, 0..=level, half, out)
}

/// Unpacks what [`pack_half`] wrote.
///
/// # Errors
/// [`Error::Length`], [`Error::Level`] or [`Error::Residue`].
pub fn unpack_half(params: &Params, bytes: &[u8], half: &mut [u32]) -> Result<()> {
    let level = level_of("unpacking", params, half)?;
    check_len("packed half", bytes.len(), half_len(params, level)?)?;
    unpack_limbs(params, 0..=level, bytes, half)
}

/// The level of a half, which has at least one limb and whole ones.
pub(super) fn level_of(operation: &'static str, params: &Params, half: &[u32]) -> Result<usize> {
    let limbs = (half.len() >> params.n().trailing_zeros()).max(1);
    check_len("half", half.len(), limbs * params.n())?;
    params.check_level(operation, limbs - 1)?;
    Ok(limbs - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn a_half_has_as_many_limbs_as_the_set_and_no_more() {
        use crate::testing::N64;
        let (n, limbs) = (N64.n(), N64.max_level() + 1);
        let half: Vec<u32> = (0..limbs)
            .flat_map(|i| random(n, N64.prime(i).unwrap().modulus().value(), i as u64))
            .collect();
        let mut bytes = vec![0; half_len(&N64, N64.max_level()).unwrap()];
        pack_half(&N64, &half, &mut bytes).unwrap();
        let mut back = vec![7; half.len()];
        unpack_half(&N64, &bytes, &mut back).unwrap();
        assert_eq!(back, half);
        let refused = |operation| {
            Err(Error::Level {
                operation,
                expected: N64.max_level(),
                got: limbs,
            })
        };
        let mut longer = vec![0; half.len() + n];
        assert_eq!(pack_half(&N64, &longer, &mut bytes), refused("packing"));
        assert_eq!(unpack_half(&N64, &bytes, &mut longer), refused("unpacking"));
        for words in [0, n - 1, n + 1] {
            assert!(
                pack_half(&N64, &half[..words], &mut bytes).is_err(),
                "{words}"
            );
        }
    }

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
            bytes.fill(0xA5);
            pack_any(&src, bits, &mut bytes);
            assert_eq!(bytes, expected, "{bits} bits, of any width");
            let mut back = vec![7; 32];
            unpack(&bytes, &m, &mut back).unwrap();
            assert_eq!(back, src, "{bits} bits");
            back.fill(7);
            assert!(unpack_any(&bytes, bits, q, &mut back), "{bits} bits");
            assert_eq!(back, src, "{bits} bits, of any width");
            // Nothing but q.
            assert!(!unpack_any(&vec![0xFF; bytes.len()], bits, q, &mut back));
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
