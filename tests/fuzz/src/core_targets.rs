//! Decoders of he-core.

use he_core::arith::Modulus;
use he_core::ckks::evaluator::rescale;
use he_core::ckks::{Ciphertext, decrypt};
use he_core::rlwe::SecretKey;
use he_core::wire::{self, Header, Kind};
use he_edge_tests::golden::{self, GOLDEN64 as P, reread};
use std::sync::LazyLock;

/// Any object of a small ring. What is read must be written as it was, and be
/// fit for use.
pub(crate) fn object(bytes: &[u8]) {
    // Whatever it is, no reader of another kind may take it.
    let header = Header::parse(bytes, &P);
    let half = || vec![0; P.data_limbs() * P.n()];
    let two = wire::read_ciphertext(&P, bytes, [half(), half()]);
    let three = wire::read_ciphertext(&P, bytes, [half(), half(), half()]);
    let seeded = wire::read_seeded(&P, bytes, half(), half());
    let kind = header.map(|header| header.object.kind());
    assert!(two.is_err() || kind == Ok(Kind::Ciphertext));
    assert!(three.is_err() || kind == Ok(Kind::ThreePartCiphertext));
    assert!(seeded.is_err() || kind == Ok(Kind::SeededCiphertext));
    if let Ok((again, _)) = reread(&P, bytes) {
        assert_eq!(again, bytes);
    }
    // Evaluation takes many times as long as reading.
    if bytes.last().is_none_or(|last| last % 32 != 0) {
        return;
    }
    if let Ok(ct) = two {
        evaluate(ct);
    }
    if let Ok(ct) = three {
        open(&ct);
    }
    if let Ok(ct) = seeded {
        evaluate(ct);
    }
}

fn open<const PARTS: usize>(ct: &Ciphertext<Vec<u32>, PARTS>) {
    static KEY: LazyLock<SecretKey<Vec<u32>>> = LazyLock::new(|| {
        let secret: Vec<i8> = (0..P.n()).map(|i| (i % 3) as i8 - 1).collect();
        let storage = vec![0; SecretKey::<Vec<u32>>::words(&P)];
        let Ok(key) = SecretKey::from_coefficients(&P, storage, &secret) else {
            panic!("the test's key");
        };
        key
    });
    let mut slots = vec![0.0; P.n()];
    let mut scratch = vec![0; (ct.level() + 1) * P.n()];
    // Infinite slots and the like are the key holder's to judge.
    let _ = decrypt(
        &P,
        &KEY,
        ct,
        ct.level(),
        ct.scale(),
        &mut scratch,
        &mut slots,
    );
}

fn evaluate(mut ct: Ciphertext<Vec<u32>>) {
    let mut scratch = vec![0; P.n()];
    open(&ct);
    while ct.level() > 0 && rescale(&P, &mut ct, &mut scratch).is_ok() {
        open(&ct);
    }
}

/// The golden files of the small ring.
pub(crate) fn objects() -> Vec<Vec<u8>> {
    let golden = golden::load();
    let small = golden.objects.iter().filter(|d| d.set == P.name());
    small.map(golden::Description::bytes).collect()
}

/// Packed residues: the width, the number of groups of eight, the bytes.
pub(crate) fn residues(bytes: &[u8]) {
    let &[bits, groups, ref rest @ ..] = bytes else {
        return;
    };
    let (bits, count) = (2 + u32::from(bits) % 29, 8 * (usize::from(groups) % 32));
    let q = (1 << bits) - 1;
    let Some(m) = Modulus::new(q) else {
        panic!("{q} is odd and below 2^30");
    };
    let mut residues = vec![0; count];
    let length = wire::packed_len(count, bits);
    if rest.len() < length {
        assert!(wire::unpack(rest, &m, &mut residues).is_err());
        return;
    }
    let packed = &rest[..length];
    let bit = |at: usize| u32::from(packed[at / 8] >> (at % 8) & 1);
    let expected: Vec<u32> = (0..count)
        .map(|i| (0..bits as usize).fold(0, |x, k| x | bit(i * bits as usize + k) << k))
        .collect();
    match wire::unpack(packed, &m, &mut residues) {
        Ok(()) => {
            assert_eq!(residues, expected);
            let mut again = vec![0; length];
            assert_eq!(wire::pack(&residues, &m, &mut again), Ok(()));
            assert_eq!(again, packed);
        }
        Err(_) => assert!(expected.contains(&q)),
    }
}

pub(crate) fn packed() -> Vec<Vec<u8>> {
    let one = |bits: usize| {
        let body = (0..2 * bits).map(|i| (i * 37 + bits) as u8);
        [bits as u8 - 2, 2].into_iter().chain(body).collect()
    };
    (2..=30).map(one).collect()
}
