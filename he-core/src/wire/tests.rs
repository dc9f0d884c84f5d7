use super::*;
use crate::ckks::Ciphertext;
use crate::error::{Error, WireError};
use crate::params::{N4096_DEPTH3, N8192_DEPTH5, Params};
use crate::ring::automorphism::rotation;
use crate::ring::sample::SEED_LEN;
use crate::rlwe::keys::switching_key_words;
use crate::rlwe::{self, PublicKey, SecretKey, SwitchKey, SwitchTarget};
use crate::testing::{N16, N64 as P};
use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const N: usize = 64;
const SCALE: f64 = 1_048_576.0;

/// One object of every kind, from a fixed seed.
struct Objects {
    seeded: Vec<u8>,
    two: Vec<u8>,
    three: Vec<u8>,
    public: Vec<u8>,
    relinearization: Vec<u8>,
    galois: Vec<u8>,
}

fn encoded(kind: Kind, level: usize) -> Vec<u8> {
    vec![0xA5; kind.object_len(&P, level).unwrap()]
}

impl Objects {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::from_seed([17; 32]);
        let words = SecretKey::<Vec<u32>>::words(&P);
        let key = SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        let (mut seed, mut c0) = ([0; SEED_LEN], vec![0; 3 * N]);
        rng.fill_bytes(&mut seed);
        rlwe::encrypt_with_seed(&P, &key, &mut [77; N], 2, &seed, &mut rng, &mut c0).unwrap();
        let mut seeded = encoded(Kind::SeededCiphertext, 2);
        write_seeded(&P, SCALE, &seed, &c0, &mut seeded).unwrap();

        // Storage may be larger than the level needs.
        let ct = read_seeded(&P, &seeded, vec![0; 4 * N], vec![0; 4 * N]).unwrap();
        assert_eq!(ct.halves().0, c0);
        let mut two = encoded(Kind::Ciphertext, 2);
        write_ciphertext(&P, &ct, &mut two).unwrap();
        let three_parts = [ct.halves().0, ct.halves().1, &c0].map(<[u32]>::to_vec);
        let ct = Ciphertext::from_parts(&P, 2, SCALE, three_parts).unwrap();
        let mut three = encoded(Kind::ThreePartCiphertext, 2);
        write_ciphertext(&P, &ct, &mut three).unwrap();

        let mut errors = vec![0; N];
        let storage = vec![0; PublicKey::<Vec<u32>>::words(&P)];
        rng.fill_bytes(&mut seed);
        let key_half = PublicKey::generate(&P, &key, &seed, &mut rng, &mut errors, storage);
        let mut public = encoded(Kind::PublicKey, P.max_level());
        write_public_key(&P, &key_half.unwrap(), &mut public).unwrap();

        let mut switch = |target, level| {
            let b = vec![0; switching_key_words(&P, level)];
            let key = SwitchKey::generate(&P, &key, target, level, &mut rng, &mut errors, b);
            let mut bytes = encoded(Kind::SwitchingKey, level);
            write_switch_key(&P, &key.unwrap(), &mut bytes).unwrap();
            bytes
        };
        Self {
            seeded,
            two,
            three,
            public,
            relinearization: switch(SwitchTarget::Square, 1),
            galois: switch(SwitchTarget::Galois(rotation(N, 3)), P.max_level()),
        }
    }

    fn all(&self) -> [&[u8]; 6] {
        [
            &self.seeded,
            &self.two,
            &self.three,
            &self.public,
            &self.relinearization,
            &self.galois,
        ]
    }
}

/// Reads whatever these bytes are, and writes what was read.
fn again(params: &Params, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let header = Header::parse(bytes, params)?;
    let mut out = vec![0x5A; header.object_len(params).unwrap()];
    let half = || vec![0; (header.level + 1) * params.n()];
    match header.object.kind() {
        Kind::SeededCiphertext => {
            let ct = read_seeded(params, bytes, half(), half())?;
            let seed = bytes[HEADER_LEN..].first_chunk().unwrap();
            write_seeded(params, ct.scale(), seed, ct.halves().0, &mut out)?;
        }
        Kind::Ciphertext => {
            let ct = read_ciphertext(params, bytes, [half(), half()])?;
            write_ciphertext(params, &ct, &mut out)?;
        }
        Kind::ThreePartCiphertext => {
            let ct = read_ciphertext(params, bytes, [half(), half(), half()])?;
            write_ciphertext(params, &ct, &mut out)?;
        }
        Kind::PublicKey => {
            let storage = vec![0; PublicKey::<Vec<u32>>::words(params)];
            write_public_key(params, &read_public_key(params, bytes, storage)?, &mut out)?;
        }
        Kind::SwitchingKey => {
            let storage = vec![0; switching_key_words(params, header.level)];
            write_switch_key(params, &read_switch_key(params, bytes, storage)?, &mut out)?;
        }
    }
    Ok(out)
}

#[test]
fn every_object_comes_back_and_its_changes_are_refused_or_kept() {
    let objects = Objects::new();
    for good in objects.all() {
        assert_eq!(again(&P, good).unwrap(), good);
        for cut in 0..good.len() {
            assert!(again(&P, &good[..cut]).is_err(), "{cut}");
        }
        let longer = [good, &[0]].concat();
        let got = again(&P, &longer);
        assert!(matches!(got, Err(Error::Length { .. })), "{got:?}");
        // The same bytes in another set.
        let got = again(&N16, good);
        assert!(matches!(got, Err(Error::Params { .. })), "{got:?}");
        let mut refused = 0;
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.to_vec();
                bad[at] ^= 1 << bit;
                match again(&P, &bad) {
                    Ok(bytes) => assert_eq!(bytes, bad, "byte {at}"),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused >= 8 * 11, "{refused}");
    }
}

#[test]
fn a_refusal_names_what_disagreed() {
    let objects = Objects::new();
    let changed = |good: &[u8], at: usize, bytes: &[u8]| {
        let mut bad = good.to_vec();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        again(&P, &bad).unwrap_err()
    };
    let wire = |what| Error::Wire { what };
    for good in objects.all() {
        assert_eq!(
            changed(good, 0, b"h"),
            wire(WireError::Magic { got: *b"hEDG" })
        );
        for version in [0, 1, 2, 255] {
            assert_eq!(
                changed(good, 4, &[version]),
                wire(WireError::Version {
                    expected: 3,
                    got: version
                })
            );
        }
        for kind in [0, 6, 255] {
            assert_eq!(
                changed(good, 5, &[kind]),
                wire(WireError::UnknownKind { got: kind })
            );
        }
        assert_eq!(
            changed(good, 6, &[5]),
            Error::Level {
                operation: "object",
                expected: 4,
                got: 5
            }
        );
        assert_eq!(
            changed(good, 7, &[1]),
            wire(WireError::Padding { offset: 7 })
        );
        let fingerprint = N16.fingerprint();
        assert_eq!(
            changed(good, 8, &fingerprint.to_le_bytes()),
            Error::Params {
                expected: P.fingerprint(),
                got: fingerprint
            }
        );
        let header = Header::parse(good, &P).unwrap();
        assert_eq!(
            again(&P, &good[..good.len() - 1]),
            Err(Error::Length {
                what: "object bytes",
                expected: header.object_len(&P).unwrap(),
                got: good.len() - 1
            })
        );
    }
    for good in [&objects.seeded, &objects.two, &objects.three] {
        for scale in [
            0.0,
            -0.0,
            -1.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::from_bits(1),
            f64::MIN_POSITIVE.next_down(),
        ] {
            let bits = scale.to_bits();
            assert_eq!(
                changed(good, 12, &bits.to_le_bytes()),
                wire(WireError::Scale { bits })
            );
        }
    }
    assert_eq!(
        changed(&objects.public, 12, &[1]),
        wire(WireError::Padding { offset: 12 })
    );
    assert_eq!(
        changed(&objects.public, 6, &[3]),
        Error::Level {
            operation: "public key",
            expected: 4,
            got: 3
        }
    );
    for good in [&objects.relinearization, &objects.galois] {
        assert_eq!(
            changed(good, 16, &[1]),
            wire(WireError::Padding { offset: 16 })
        );
        for element in [2, 2 * N as u32 + 1, u32::MAX] {
            assert_eq!(
                changed(good, 12, &element.to_le_bytes()),
                Error::Galois { element }
            );
        }
    }
    // All ones are above every prime: the second limb begins after 30 bits per
    // residue, in a key for level 1 it is modulo the second prime too.
    let second = HEADER_LEN + SEED_LEN + packed_len(N, 30);
    for good in [&objects.seeded, &objects.public, &objects.relinearization] {
        assert_eq!(
            changed(good, second, &[0xff; 4]),
            Error::Residue { limb: 1, index: 0 }
        );
    }
    // A reader of one kind says so of another.
    assert_eq!(
        read_seeded(&P, &objects.two, vec![0; 3 * N], vec![0; 3 * N]).unwrap_err(),
        wire(WireError::Kind {
            expected: 2,
            got: 1
        })
    );
    let three = [(); 3].map(|()| vec![0; 3 * N]);
    assert_eq!(
        read_ciphertext(&P, &objects.two, three).unwrap_err(),
        wire(WireError::Kind {
            expected: 3,
            got: 1
        })
    );
}

#[test]
fn storage_of_the_wrong_length_is_refused() {
    let objects = Objects::new();
    let length = |what, expected, got| Error::Length {
        what,
        expected,
        got,
    };
    let two = read_ciphertext(&P, &objects.two, [vec![0; 3 * N], vec![0; 2 * N]]);
    assert_eq!(two.unwrap_err(), length("ciphertext half", 3 * N, 2 * N));
    let words = PublicKey::<Vec<u32>>::words(&P);
    assert_eq!(
        read_public_key(&P, &objects.public, vec![0; words + N]).unwrap_err(),
        length("public key", words, words + N)
    );
    // Of another set.
    let key = read_public_key(&P, &objects.public, vec![0; words]).unwrap();
    let mut out = vec![0; Kind::PublicKey.object_len(&N16, N16.max_level()).unwrap()];
    let foreign = write_public_key(&N16, &key, &mut out).unwrap_err();
    assert!(matches!(foreign, Error::Params { .. }), "{foreign}");
    let words = switching_key_words(&P, 1);
    assert_eq!(
        read_switch_key(&P, &objects.relinearization, vec![0; words - 1]).unwrap_err(),
        length("switching key", words, words - 1)
    );
    let key = read_switch_key(&P, &objects.relinearization, vec![0; words]).unwrap();
    assert_eq!((key.level(), key.target()), (1, SwitchTarget::Square));
    let mut out = encoded(Kind::SwitchingKey, 2);
    assert!(matches!(
        write_switch_key(&P, &key, &mut out),
        Err(Error::Length { .. })
    ));
    assert!(matches!(
        write_switch_key(&N16, &key, &mut out),
        Err(Error::Params { .. })
    ));
    let subnormal = f64::MIN_POSITIVE.next_down();
    let mut out = encoded(Kind::SeededCiphertext, 0);
    let written = write_seeded(&P, subnormal, &[0; SEED_LEN], &[0; N], &mut out);
    let what = WireError::Scale {
        bits: subnormal.to_bits(),
    };
    assert_eq!(written, Err(Error::Wire { what }));
    // No limb at all.
    let none = write_seeded(&P, SCALE, &[0; SEED_LEN], &[], &mut out);
    assert_eq!(none, Err(length("half", N, 0)));
}

#[test]
fn lengths_are_those_of_the_document() {
    // 27, 20, 20, 20 and 19 bits per residue.
    let (p, eighth) = (&N4096_DEPTH3, 4096 / 8);
    assert_eq!(
        Kind::Ciphertext.object_len(p, 0).unwrap(),
        20 + 2 * 27 * eighth
    );
    assert_eq!(
        Kind::ThreePartCiphertext.object_len(p, 1).unwrap(),
        20 + 3 * 47 * eighth
    );
    assert_eq!(
        Kind::SeededCiphertext.object_len(p, 3).unwrap(),
        20 + 32 + 87 * eighth
    );
    assert_eq!(
        Kind::PublicKey.object_len(p, 3).unwrap(),
        20 + 32 + 106 * eighth
    );
    assert_eq!(
        Kind::SwitchingKey.object_len(p, 1).unwrap(),
        20 + 32 + 2 * (27 + 20 + 19) * eighth
    );
    assert_eq!(
        Kind::PublicKey.object_len(&N8192_DEPTH5, 5).unwrap(),
        20 + 32 + (28 + 5 * 24 + 28) * 1024
    );

    let mut half = vec![0; 2 * N];
    let mut bytes = vec![0; half_len(&P, 1).unwrap()];
    unpack_half(&P, &bytes, &mut half).unwrap();
    assert!(unpack_half(&P, &bytes[1..], &mut half).is_err());
    assert!(pack_half(&P, &half[1..], &mut bytes).is_err());
    bytes[packed_len(N, 30)..][..16].fill(0xff);
    assert_eq!(
        unpack_half(&P, &bytes, &mut half),
        Err(Error::Residue { limb: 1, index: 0 })
    );
}

#[test]
fn a_level_that_is_none_has_no_length() {
    let top = P.max_level();
    let level = |operation, got| Error::Level {
        operation,
        expected: top,
        got,
    };
    assert_eq!(half_len(&P, top + 1), Err(level("packed half", top + 1)));
    // As far as the special prime, and beyond every prime.
    for beyond in [top + 1, P.limbs(), usize::MAX] {
        for kind in [
            Kind::Ciphertext,
            Kind::SeededCiphertext,
            Kind::ThreePartCiphertext,
            Kind::PublicKey,
            Kind::SwitchingKey,
        ] {
            assert_eq!(kind.object_len(&P, beyond), Err(level("object", beyond)));
        }
        let header = Header {
            object: Object::SwitchingKey {
                target: SwitchTarget::Square,
            },
            level: beyond,
        };
        assert_eq!(header.object_len(&P), Err(level("object", beyond)));
        assert_eq!(header.to_bytes(&P), Err(level("object", beyond)));
    }
    assert_eq!(
        Kind::PublicKey.object_len(&P, top - 1),
        Err(level("public key", top - 1))
    );
}
