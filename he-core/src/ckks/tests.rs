//! Homomorphisms on the device's set, against the same operations in the
//! clear.

use super::decrypt::{Decrypted, decrypt};
use super::encode::{encode_complex, encode_in_place};
use super::evaluator::*;
use super::{Ciphertext, Noise, Plaintext};
use crate::error::Error;
use crate::params::N4096_DEPTH3 as P;
use crate::ring::automorphism::{conjugation, rotation};
use crate::ring::sample::SEED_LEN;
use crate::rlwe::keys::{switching_key, switching_key_words};
use crate::rlwe::{
    self, CompactKey, MaskedKey, PublicKey, PublicScratch, SecretKey, SwitchKey, SwitchTarget,
    encrypt_public,
};
use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

const N: usize = 4096;
const SLOTS: usize = 2048;
const SCALE: f64 = (1u64 << 20) as f64;

struct Bench {
    rng: ChaCha20Rng,
    key: SecretKey<Vec<u32>>,
}

impl Bench {
    fn new(seed: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let words = SecretKey::<Vec<u32>>::words(&P);
        let key = SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        Self { rng, key }
    }

    fn seed(&mut self) -> [u8; SEED_LEN] {
        let mut seed = [0; SEED_LEN];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    fn values(&mut self) -> Vec<f64> {
        (0..SLOTS)
            .map(|_| f64::from(self.rng.next_u32()) / 2f64.powi(31) - 1.0)
            .collect()
    }

    fn encrypt(&mut self, values: &[f64], level: usize) -> Ciphertext<Vec<u32>> {
        let mut m = coefficients(values, SCALE);
        let seed = self.seed();
        let (mut c0, mut c1) = (vec![0; (level + 1) * N], vec![0; (level + 1) * N]);
        rlwe::encrypt_with_seed(&P, &self.key, &mut m, level, &seed, &mut self.rng, &mut c0)
            .unwrap();
        rlwe::expand_c1(&P, &seed, &mut c1).unwrap();
        Ciphertext::new(&P, level, SCALE, c0, c1).unwrap()
    }

    fn decrypt<const PARTS: usize>(&self, ct: &Ciphertext<Vec<u32>, PARTS>) -> Vec<f64> {
        let mut scratch = vec![0; (ct.level() + 1) * N];
        let mut slots = vec![0.0; N];
        let d = decrypt(
            &P,
            &self.key,
            ct,
            ct.level(),
            ct.scale(),
            &mut scratch,
            &mut slots,
        )
        .unwrap();
        assert!(
            scratch.iter().all(|&x| x == 0),
            "the plaintext stays behind"
        );
        (0..SLOTS).map(|i| d.slot(i).unwrap()).collect()
    }

    fn switch(&mut self, op: SwitchOp, ct: &mut Ciphertext<Vec<u32>>) {
        let level = ct.level();
        let storage = vec![0; switching_key_words(&P, level)];
        let (target, mut e) = (op.target(), vec![0; N]);
        let key = SwitchKey::generate(&P, &self.key, target, level, &mut self.rng, &mut e, storage)
            .unwrap();
        assert!(e.iter().all(|&x| x == 0), "errors stay behind");
        let mut words = vec![0; workspace_words(&P, level)];
        let mut work = Workspace::new(&P, level, &mut words).unwrap();
        switch(&P, op, ct, &key, &mut work).unwrap();
    }
}

/// Of real parts and, if there are more values than slots, imaginary parts.
fn coefficients(values: &[f64], scale: f64) -> Vec<i32> {
    let mut buffer = values.to_vec();
    buffer.resize(N, 0.0);
    encode_in_place(&mut buffer, scale).unwrap();
    buffer.iter().map(|&x| x as i32).collect()
}

fn plaintext(values: &[f64], scale: f64, level: usize) -> Plaintext<Vec<u32>> {
    Plaintext::new(
        &P,
        &coefficients(values, scale),
        level,
        scale,
        vec![0; (level + 1) * N],
    )
    .unwrap()
}

fn max_error(a: &[f64], b: impl Fn(usize) -> f64) -> f64 {
    a.iter()
        .enumerate()
        .map(|(i, x)| (x - b(i)).abs())
        .fold(0.0, f64::max)
}

#[test]
fn encryption_round_trips_at_every_level() {
    let mut t = Bench::new(1);
    for level in 0..=P.max_level() {
        let v = t.values();
        let ct = t.encrypt(&v, level);
        // Error of sigma sqrt(N) = 207 in a slot at scale 2^20; seven of that.
        let e = max_error(&t.decrypt(&ct), |i| v[i]);
        assert!(e < 7.0 * 207.0 / SCALE && e > 0.0, "level {level}: {e}");
    }
}

/// Complex slots at scale 2^40, beyond words of 32 bits: with every encryption,
/// and times an encoded vector, rescaled by two primes of 20 bits.
#[test]
fn wide_coefficients_serve_a_scale_of_40_bits() {
    const WIDE: f64 = (1u64 << 40) as f64;
    let mut t = Bench::new(40);
    let (re, im) = (t.values(), t.values());
    let level = P.max_level();
    let words = (level + 1) * N;
    let encoded = |re: &[f64], im: &[f64], scale: f64| {
        let (mut buffer, mut c) = (vec![0.0; N], vec![0i64; N]);
        encode_complex(re, im, scale, &mut buffer, &mut c, |x| x as i64).unwrap();
        c
    };
    let check = |t: &Bench, ct: &Ciphertext<Vec<u32>>, want: [&[f64]; 2], limit: f64| {
        let (mut scratch, mut slots) = (vec![0; (ct.level() + 1) * N], vec![0.0; N]);
        let (l, s) = (ct.level(), ct.scale());
        let d = decrypt(&P, &t.key, ct, l, s, &mut scratch, &mut slots).unwrap();
        let error = |want: &[f64], got: &dyn Fn(usize) -> Option<f64>| {
            let errors = want
                .iter()
                .enumerate()
                .map(|(i, x)| (got(i).unwrap() - x).abs());
            errors.fold(0.0, f64::max)
        };
        let e = error(want[0], &|i| d.slot(i)).max(error(want[1], &|i| d.imaginary(i)));
        assert!(e < limit && e > 0.0, "{e} not below {limit}");
    };
    // Deviations of a slot: of an error, and of a rounding, that is of `sqrt(N (1 +
    // 2 N / 3) / 12)`.
    let (limit, rounding) = (7.0 * 207.0 / WIDE, 7.0 * 967.0);

    let mut message = encoded(&re, &im, WIDE);
    assert!(message.iter().any(|x| x.unsigned_abs() > 1 << 32));
    let (mut c0, mut c1) = (vec![0; words], vec![0; words]);
    let mut integers = vec![0; 3 * N];
    let mut limbs = vec![0; 3 * N];
    let public = {
        let (seed, storage) = (t.seed(), vec![0; PublicKey::<Vec<u32>>::words(&P)]);
        let errors = &mut integers[..N];
        PublicKey::generate(&P, &t.key, &seed, &mut t.rng, errors, storage).unwrap()
    };
    let scratch = PublicScratch {
        integers: &mut integers,
        limbs: &mut limbs,
    };
    let halves = [&mut c0[..], &mut c1[..]];
    encrypt_public(&P, &public, &message, level, &mut t.rng, scratch, halves).unwrap();
    let ct = Ciphertext::new(&P, level, WIDE, c0, c1).unwrap();
    check(&t, &ct, [&re, &im], rounding / WIDE);

    let seed = t.seed();
    let (mut c0, mut c1) = ct.into_storage();
    rlwe::encrypt_with_seed(&P, &t.key, &mut message, level, &seed, &mut t.rng, &mut c0).unwrap();
    rlwe::expand_c1(&P, &seed, &mut c1).unwrap();
    let mut ct = Ciphertext::new(&P, level, WIDE, c0, c1).unwrap();
    check(&t, &ct, [&re, &im], limit);

    // Times a vector, and twice rescaled; 86 bits of modulus at first.
    let (c, d) = (t.values(), t.values());
    let scale = 2f64.powi(37);
    let factor = encoded(&c, &d, scale);
    let plain = Plaintext::new(&P, &factor, level, scale, vec![0; words]).unwrap();
    multiply_plain(&P, &mut ct, &plain).unwrap();
    let mut scratch = vec![0; N];
    for _ in 0..2 {
        rescale(&P, &mut ct, &mut scratch).unwrap();
    }
    let product = |i: usize| [re[i] * c[i] - im[i] * d[i], re[i] * d[i] + im[i] * c[i]];
    let want: Vec<_> = (0..SLOTS).map(product).collect();
    let (x, y): (Vec<_>, Vec<_>) = want.iter().map(|&[x, y]| (x, y)).unzip();
    // The error of encryption, times at most 1.42, and the last rescale's
    // rounding.
    let limit = 1.42 * limit + rounding / ct.scale();
    check(&t, &ct, [&x, &y], limit);

    // What does not fit is refused, with its place.
    let mut beyond = vec![0i64; N];
    beyond[5] = (1 << 62) + 22;
    let refused = Err(Error::Range {
        index: 5,
        limit_log2: 62,
    });
    let got = Plaintext::new(&P, &beyond, level, WIDE, vec![0; words]).map(|_| ());
    assert_eq!(got, refused);
    let mut c0 = vec![0; words];
    let got = rlwe::encrypt_with_seed(&P, &t.key, &mut beyond, level, &seed, &mut t.rng, &mut c0);
    assert_eq!(got, refused);
}

#[test]
fn products_accumulate_and_rescale() {
    let mut t = Bench::new(2);
    let terms: Vec<_> = (0..3).map(|_| (t.values(), t.values())).collect();
    let zero = || vec![0; 4 * N];
    let mut acc = Ciphertext::zero(&P, 3, SCALE * SCALE, zero(), zero()).unwrap();
    for (x, w) in &terms {
        let ct = t.encrypt(x, 3);
        multiply_plain_add(&P, &mut acc, &ct, &plaintext(w, SCALE, 3)).unwrap();
    }
    let expect = |i: usize| terms.iter().map(|(x, w)| x[i] * w[i]).sum::<f64>();
    assert!(max_error(&t.decrypt(&acc), expect) < 5e-3);
    rescale(&P, &mut acc, &mut vec![0; N]).unwrap();
    assert_eq!(acc.level(), 2);
    assert_eq!(acc.scale(), SCALE * SCALE / 925_697.0);
    assert!(max_error(&t.decrypt(&acc), expect) < 1e-2);
}

#[test]
fn square_relinearise_rescale_down_the_chain() {
    let mut t = Bench::new(3);
    let v = t.values();
    let mut ct = t.encrypt(&v, 3);
    for level in (1..=3).rev() {
        t.switch(SwitchOp::Square, &mut ct);
        assert_eq!(ct.level(), level);
        rescale(&P, &mut ct, &mut vec![0; N]).unwrap();
    }
    let e = max_error(&t.decrypt(&ct), |i| v[i].powi(8));
    assert!(e < 0.05, "{e}");
    let err = rescale(&P, &mut ct, &mut vec![0; N]).unwrap_err();
    assert_eq!(
        err,
        Error::Level {
            operation: "rescale",
            expected: 1,
            got: 0
        }
    );
}

#[test]
fn rotations_move_slots_left() {
    let mut t = Bench::new(4);
    for steps in [1, 3, 64, 1024, -1] {
        let v = t.values();
        // At a doubled scale, where key-switching noise is small.
        let mut ct = t.encrypt(&v, 3);
        let one = plaintext(&vec![1.0; SLOTS], SCALE, 3);
        let mut wide =
            Ciphertext::zero(&P, 3, SCALE * SCALE, vec![0; 4 * N], vec![0; 4 * N]).unwrap();
        multiply_plain_add(&P, &mut wide, &ct, &one).unwrap();
        let at = |i: usize, k: i32| v[(i as i32 + k).rem_euclid(SLOTS as i32) as usize];
        t.switch(SwitchOp::RotateAdd(rotation(N, steps)), &mut wide);
        let e = max_error(&t.decrypt(&wide), |i| at(i, 0) + at(i, steps));
        assert!(e < 4e-3, "rotate-add by {steps}: {e}");
        t.switch(SwitchOp::Rotate(rotation(N, -steps)), &mut wide);
        let e = max_error(&t.decrypt(&wide), |i| at(i, -steps) + at(i, 0));
        assert!(e < 4e-3, "rotate by {steps}: {e}");
        // At a single scale the same noise is large: this is why circuits
        // for this set sum before they rescale.
        t.switch(SwitchOp::Rotate(rotation(N, steps)), &mut ct);
        let e = max_error(&t.decrypt(&ct), |i| at(i, steps));
        assert!(e > 0.05 && e < 20.0, "{e}");
    }
}

#[test]
fn adding_the_conjugate_leaves_twice_the_real_parts() {
    let mut t = Bench::new(10);
    let [a, b, c, d] = [(); 4].map(|()| t.values());
    let ct = t.encrypt(&[&a[..], &b].concat(), 3);
    let minus_d: Vec<f64> = d.iter().map(|x| -x).collect();
    let plain = plaintext(&[&c[..], &minus_d].concat(), SCALE, 3);
    let mut sum = Ciphertext::zero(&P, 3, SCALE * SCALE, vec![0; 4 * N], vec![0; 4 * N]).unwrap();
    multiply_plain_add(&P, &mut sum, &ct, &plain).unwrap();
    t.switch(SwitchOp::RotateAdd(conjugation(N)), &mut sum);
    // Two products for one: (a + ib)(c - id).
    let e = max_error(&t.decrypt(&sum), |i| 2.0 * (a[i] * c[i] + b[i] * d[i]));
    assert!(e < 8e-3, "{e}");
    // Nothing imaginary is left: what is turned by sqrt(-1) has no real part.
    let i = plaintext(&[vec![0.0; SLOTS], vec![1.0; SLOTS]].concat(), SCALE, 3);
    let mut turned =
        Ciphertext::zero(&P, 3, SCALE * SCALE * SCALE, vec![0; 4 * N], vec![0; 4 * N]).unwrap();
    multiply_plain_add(&P, &mut turned, &sum, &i).unwrap();
    assert!(max_error(&t.decrypt(&turned), |_| 0.0) < 8e-3);
}

#[test]
fn constants_are_added_at_large_scales() {
    let mut t = Bench::new(5);
    let (v, c) = (t.values(), t.values());
    let mut ct = t.encrypt(&v, 2);
    t.switch(SwitchOp::Square, &mut ct);
    let mut buffer: Vec<f32> = c.iter().map(|&x| x as f32).collect();
    buffer.resize(N, 0.0);
    encode_in_place(&mut buffer, SCALE).unwrap();
    add_encoded(&P, &mut ct, &buffer, 20, &mut vec![0; N], &mut ()).unwrap();
    assert!(max_error(&t.decrypt(&ct), |i| v[i] * v[i] + c[i]) < 5e-3);
    assert!(add_encoded(&P, &mut ct, &buffer, 31, &mut vec![0; N], &mut ()).is_err());
}

#[test]
fn mistakes_are_named() {
    let mut t = Bench::new(6);
    let v = t.values();
    let ct = t.encrypt(&v, 2);
    let zero = || vec![0; 4 * N];
    let mut acc = Ciphertext::zero(&P, 3, SCALE * SCALE, zero(), zero()).unwrap();
    let p3 = plaintext(&v, SCALE, 3);
    assert_eq!(
        multiply_plain_add(&P, &mut acc, &ct, &p3),
        Err(Error::Level {
            operation: "multiply-accumulate",
            expected: 3,
            got: 2
        })
    );
    let ct3 = t.encrypt(&v, 3);
    let half = plaintext(&v, SCALE / 2.0, 3);
    assert!(matches!(
        multiply_plain_add(&P, &mut acc, &ct3, &half),
        Err(Error::Scale { .. })
    ));
    assert!(Ciphertext::new(&P, 4, SCALE, zero(), zero()).is_err());
    assert!(Ciphertext::new(&P, 3, f64::NAN, zero(), zero()).is_err());
    assert!(Ciphertext::new(&P, 3, SCALE, vec![0; 3 * N], zero()).is_err());
    let mut high = zero();
    high[3 * N + 5] = 925_697;
    assert_eq!(
        Ciphertext::new(&P, 3, SCALE, zero(), high).unwrap_err(),
        Error::Residue { limb: 3, index: 5 }
    );
    let mut words = vec![0; workspace_words(&P, 2)];
    assert!(Workspace::new(&P, 3, &mut words).is_err());
}

#[test]
fn a_hostile_answer_is_refused_before_decryption() {
    let mut t = Bench::new(7);
    let v = t.values();
    let ct = t.encrypt(&v, 0);
    let (mut scratch, mut slots) = (vec![0; N], vec![0.0; N]);
    let mut try_ = |ct: &Ciphertext<Vec<u32>>, level, scale| -> Result<(), Error> {
        let d: Decrypted<'_> = decrypt(&P, &t.key, ct, level, scale, &mut scratch, &mut slots)?;
        assert_eq!(format!("{d:?}"), "Decrypted(..)");
        assert!(d.fill() < 0.1);
        Ok(())
    };
    try_(&ct, 0, SCALE).unwrap();
    assert!(matches!(try_(&ct, 1, SCALE), Err(Error::Level { .. })));
    assert!(matches!(
        try_(&ct, 0, SCALE * 2.0),
        Err(Error::Scale { .. })
    ));
    let (c0, c1) = ct.into_storage();
    // (0, d) decrypts to d s.
    let zero = Ciphertext::new(&P, 0, SCALE, vec![0; N], c1).unwrap();
    assert_eq!(try_(&zero, 0, SCALE), Err(Error::Transparent));
    let zero = Ciphertext::new(&P, 0, SCALE, c0, vec![0; N]).unwrap();
    assert_eq!(try_(&zero, 0, SCALE), Err(Error::Transparent));
    assert_eq!(format!("{:?}", t.key), "SecretKey(..)");
}

#[cfg(feature = "insecure-test-sets")]
#[test]
fn a_decryption_without_a_guard_is_the_polynomial_that_is_decoded() {
    let mut t = Bench::new(10);
    let v = t.values();
    let ct = t.encrypt(&v, 0);
    let (mut out, mut slots) = (vec![7; N], vec![7.0; N]);
    let (c0, c1) = ct.halves();
    rlwe::declassify_decryption(&P, &t.key, [c0, c1], &mut out).unwrap();
    super::decrypt::decode(&P, &out, SCALE, &mut slots).unwrap();
    for (slot, value) in slots.iter().zip(&v) {
        assert!((slot - value).abs() < 0.01);
    }
}

/// What a result and a key leave in the memory that their caller lent them.
#[test]
fn results_and_keys_are_erased_in_the_callers_memory() {
    let mut t = Bench::new(8);
    let v = t.values();
    let ct = t.encrypt(&v, 0);
    let (mut scratch, mut slots) = (vec![7; N], vec![7.0; N]);
    let result = decrypt(&P, &t.key, &ct, 0, SCALE, &mut scratch, &mut slots).unwrap();
    assert!((result.slot(1).unwrap() - v[1]).abs() < 0.01);
    drop(result);
    assert!(slots.iter().all(|&x| x == 0.0));
    assert!(scratch.iter().all(|&x| x == 0));

    let mut words = vec![0; SecretKey::<Vec<u32>>::words(&P)];
    let key = SecretKey::generate(&P, &mut words[..], &mut t.rng).unwrap();
    let limb = key.limb(&P, 0).unwrap();
    assert!(limb.iter().filter(|&&x| x == 0).count() < 10);
    assert_eq!(
        key.limb(&P, P.limbs()).unwrap_err(),
        Error::Level {
            operation: "secret key",
            expected: P.limbs(),
            got: P.limbs()
        }
    );
    drop(key);
    assert!(words.iter().all(|&x| x == 0));

    let mut bytes = vec![0; CompactKey::<Vec<u8>>::bytes(&P)];
    let key = CompactKey::generate(&P, &mut bytes[..], &mut t.rng).unwrap();
    let mut words = vec![0; MaskedKey::<Vec<u32>>::words(&P)];
    let masked = MaskedKey::new(&P, &key, &mut words[..], &mut t.rng).unwrap();
    drop(masked);
    assert!(words.iter().all(|&x| x == 0));
    drop(key);
    assert!(bytes.iter().all(|&x| x == 0));
}

#[test]
fn keys_are_consumed_in_any_chunks() {
    let mut t = Bench::new(9);
    let v = t.values();
    let make = |t: &mut Bench| t.encrypt(&v, 1);
    let ct = make(&mut t);
    let (c0, c1) = ct.into_storage();
    let op = SwitchOp::RotateAdd(rotation(N, 5));
    let mut key = vec![0; switching_key_words(&P, 1)];
    let (seed, mut e) = (t.seed(), vec![0; N]);
    switching_key(
        &P,
        &t.key,
        op.target(),
        1,
        &seed,
        &mut t.rng,
        &mut e,
        &mut key,
    )
    .unwrap();
    let mut results = Vec::new();
    for chunk in [8, 512, N] {
        let mut ct = Ciphertext::new(&P, 1, SCALE, c0.clone(), c1.clone()).unwrap();
        let mut words = vec![7; workspace_words(&P, 1)];
        let mut work = Workspace::new(&P, 1, &mut words).unwrap();
        let mut run = Switching::start(&P, op, &mut ct).unwrap();
        for b in key.chunks_exact(N) {
            let at = match run.due() {
                Some(Due::Digit(at)) => Ok(at),
                other => Err(other),
            }
            .unwrap();
            let early = run.absorb(&P, &mut ct, &mut work, b, b);
            assert!(matches!(early, Err(Error::Turn { .. })), "{early:?}");
            run.digit(&P, &mut ct, &mut work, &mut ()).unwrap();
            assert_eq!(run.due(), Some(Due::Key(at)));
            let again = run.digit(&P, &mut ct, &mut work, &mut ());
            assert!(matches!(again, Err(Error::Turn { .. })), "{again:?}");
            let m = P.prime(at.target).unwrap().modulus();
            let mut u = crate::ring::sample::Uniform::new(
                &seed,
                crate::ring::sample::stream(op.target().domain(), at.digit, at.target),
                m,
            );
            let mut left = N;
            for b in b.chunks(chunk) {
                // More than what is left of the limb changes nothing.
                let more = vec![1; left + 1];
                assert_eq!(
                    run.absorb(&P, &mut ct, &mut work, &more, &more),
                    Err(Error::Length {
                        what: "key chunk",
                        expected: left,
                        got: left + 1
                    })
                );
                let mut a = vec![0; b.len()];
                u.fill(&mut a);
                run.absorb(&P, &mut ct, &mut work, b, &a).unwrap();
                left -= b.len();
            }
        }
        assert_eq!(run.due(), Some(Due::Division));
        run.divide(&P, &mut ct, &mut work, &mut ()).unwrap();
        assert_eq!(run.due(), None);
        assert_eq!(
            run.absorb(&P, &mut ct, &mut work, &[0; 8], &[0; 8]),
            Err(Error::Turn {
                due: "nothing more",
                got: "a chunk of the key"
            })
        );
        assert!(run.divide(&P, &mut ct, &mut work, &mut ()).is_err());
        results.push(ct.into_storage());
    }
    assert!(results.windows(2).all(|w| w[0] == w[1]));
}

/// Key switching is exact integer arithmetic: whatever its order and its
/// memory, each of these results has these bits.
#[test]
fn key_switches_give_the_same_bits_in_any_order() {
    use sha2::{Digest, Sha256};
    let mut t = Bench::new(11);
    let v = t.values();
    let mut digest = Sha256::new();
    for level in 0..=P.max_level() {
        for op in [
            SwitchOp::Rotate(rotation(N, 3)),
            SwitchOp::RotateAdd(rotation(N, -64)),
            SwitchOp::Rotate(2 * N as u32 - 1),
            SwitchOp::Square,
        ] {
            let mut ct = t.encrypt(&v, level);
            t.switch(op, &mut ct);
            let (c0, c1) = ct.halves();
            for x in c0.iter().chain(c1) {
                digest.update(x.to_le_bytes());
            }
        }
    }
    let hex: String = digest
        .finalize()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(hex, "52efb74a33adb8a6");
}

#[test]
fn a_square_is_the_same_in_one_go_and_in_three_parts() {
    let mut t = Bench::new(11);
    let v = t.values();
    let ct = t.encrypt(&v, 2);
    let storage = vec![0; switching_key_words(&P, 3)];
    let (target, mut e) = (SwitchTarget::Square, vec![0; N]);
    let key = SwitchKey::generate(&P, &t.key, target, 3, &mut t.rng, &mut e, storage).unwrap();
    let mut words = vec![0; workspace_words(&P, 2)];
    let mut work = Workspace::new(&P, 2, &mut words).unwrap();
    let (c0, c1) = ct.halves();
    let mut at_once = Ciphertext::new(&P, 2, SCALE, c0.to_vec(), c1.to_vec()).unwrap();
    switch(&P, SwitchOp::Square, &mut at_once, &key, &mut work).unwrap();
    let copy = Ciphertext::new(&P, 2, SCALE, c0.to_vec(), c1.to_vec()).unwrap();
    let product = multiply(&P, ct, &copy, vec![0; 3 * N]).unwrap();
    let squared = square(&P, copy, vec![0; 3 * N]).unwrap();
    assert_eq!(product.parts(), squared.parts());
    let e = max_error(&t.decrypt(&product), |i| v[i] * v[i]);
    // 2 |v| times the encryption's error, seven times its deviation.
    assert!(e < 14.0 * 207.0 / SCALE, "{e}");
    let (relinearized, _) = relinearize(&P, product, &key, &mut work).unwrap();
    assert_eq!(relinearized.halves(), at_once.halves());
    assert_eq!(relinearized.scale(), at_once.scale());
}

#[test]
fn public_key_encryption_is_nearly_as_exact_as_rounding() {
    let mut t = Bench::new(12);
    let (seed, mut e) = (t.seed(), vec![0; N]);
    let storage = vec![0; PublicKey::<Vec<u32>>::words(&P)];
    let public = PublicKey::generate(&P, &t.key, &seed, &mut t.rng, &mut e, storage).unwrap();
    let sigma = Noise::public_key(&P)
        .unwrap()
        .plus(Noise::rounding(&P))
        .sigma;
    for level in 0..=P.max_level() {
        let v = t.values();
        let message = coefficients(&v, SCALE);
        let (mut c0, mut c1) = (vec![0; (level + 1) * N], vec![0; (level + 1) * N]);
        let (mut integers, mut limbs) = (vec![0; 3 * N], vec![0; 3 * N]);
        let scratch = PublicScratch {
            integers: &mut integers,
            limbs: &mut limbs,
        };
        let halves = [&mut c0[..], &mut c1[..]];
        encrypt_public(&P, &public, &message, level, &mut t.rng, scratch, halves).unwrap();
        let ct = Ciphertext::new(&P, level, SCALE, c0, c1).unwrap();
        // A real part has half the variance; 2048 slots of this seed.
        let got = t.decrypt(&ct);
        let squares: f64 = got.iter().zip(&v).map(|(x, v)| (x - v) * (x - v)).sum();
        let ratio = (2.0 * squares / SLOTS as f64).sqrt() * SCALE / sigma;
        assert!((ratio - 1.0).abs() < 0.1, "level {level}: {ratio}");
    }
}
