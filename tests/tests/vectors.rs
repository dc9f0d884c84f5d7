//! Every vector of an independent reference (see `tests/vectors/README.md`).

use he_core::arith::Modulus;
use he_core::ckks::encode::{decode_in_place, encode};
use he_core::params::{Params, Security};
use he_core::ring::{automorphism, kernel, ntt};
use he_core::rlwe::{self, SecretKey};
use he_edge_tests::centred;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs;

#[derive(Deserialize)]
struct File<T> {
    vectors: Vec<T>,
}

fn load<T: for<'a> Deserialize<'a>>(name: &str) -> Vec<T> {
    let path = format!("{}/vectors/{name}", env!("CARGO_MANIFEST_DIR"));
    let file: File<T> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(!file.vectors.is_empty());
    file.vectors
}

fn sha256(words: &[u32]) -> String {
    let mut h = Sha256::new();
    for w in words {
        h.update(w.to_le_bytes());
    }
    h.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[derive(Deserialize)]
struct NttVector {
    n: usize,
    q: u32,
    psi: u32,
    a: Vec<u32>,
    b: Vec<u32>,
    evaluations: Option<Vec<u32>>,
    product: Option<Vec<u32>>,
    evaluations_sha256: Option<String>,
    product_sha256: Option<String>,
}

#[test]
fn ntt_vectors() {
    for v in load::<NttVector>("ntt.json") {
        let m = Modulus::new(v.q).unwrap();
        let (mut forward, mut inverse) = (vec![0; v.n], vec![0; v.n]);
        ntt::tables(&m, v.psi, &mut forward);
        ntt::tables(&m, m.inv(v.psi), &mut inverse);
        let n_inv = m.to_mont(m.inv(v.n as u32));

        let (mut a, mut b) = (v.a, v.b);
        kernel::forward(&mut a, &m, &forward);
        kernel::forward(&mut b, &m, &forward);
        let shift = 32 - v.n.trailing_zeros();
        let natural: Vec<u32> = (0..v.n as u32)
            .map(|i| a[(i.reverse_bits() >> shift) as usize])
            .collect();
        kernel::scale(&mut b, m.r2(), &m);
        kernel::mul(&mut a, &b, &m);
        kernel::inverse(&mut a, &m, &inverse, n_inv);

        match (v.evaluations, v.product) {
            (Some(e), Some(p)) => assert!(natural == e && a == p, "n {} q {}", v.n, v.q),
            _ => {
                assert_eq!(
                    Some(sha256(&natural)),
                    v.evaluations_sha256,
                    "n {} q {}",
                    v.n,
                    v.q
                );
                assert_eq!(Some(sha256(&a)), v.product_sha256, "n {} q {}", v.n, v.q);
            }
        }
    }
}

#[derive(Deserialize)]
struct EncodeVector {
    n: usize,
    log2_scale: i32,
    slots: Vec<f64>,
    coefficients: Vec<i32>,
}

#[test]
fn encode_vectors() {
    for v in load::<EncodeVector>("encode.json") {
        let scale = 2f64.powi(v.log2_scale);
        let mut c = vec![0; v.n];
        encode(&v.slots, scale, &mut vec![0.0f64; v.n], &mut c, |x| {
            x as i32
        })
        .unwrap();
        for (x, y) in c.iter().zip(&v.coefficients) {
            assert!(x.abs_diff(*y) <= 1, "f64, n {}: {x} for {y}", v.n);
        }
        // Single precision: one unit of rounding, and 2^-20 of the magnitude.
        let slots: Vec<f32> = v.slots.iter().map(|&x| x as f32).collect();
        encode(&slots, scale, &mut vec![0.0f32; v.n], &mut c, |x| x as i32).unwrap();
        for (x, y) in c.iter().zip(&v.coefficients) {
            let allowed = 1 + (y.unsigned_abs() >> 20);
            assert!(x.abs_diff(*y) <= allowed, "f32, n {}: {x} for {y}", v.n);
        }
        let mut back: Vec<f64> = v.coefficients.iter().map(|&x| f64::from(x)).collect();
        decode_in_place(&mut back, scale).unwrap();
        for (x, y) in back.iter().zip(&v.slots) {
            assert!((x - y).abs() < v.n as f64 / scale, "n {}: {x} for {y}", v.n);
        }
    }
}

#[derive(Deserialize)]
struct DecryptVector {
    n: usize,
    moduli: Vec<u32>,
    log2_scale: i32,
    secret: Vec<i8>,
    c0: Vec<Vec<u32>>,
    c1: Vec<Vec<u32>>,
    slots: Vec<f64>,
    max_abs_slot_error: f64,
    rotate_left_by: i32,
    rotated_slots: Vec<f64>,
}

he_core::parameter_set! {
    /// Of the first vector.
    static N1024 = {
        n: 1024, security: Security::Insecure, data: [134_215_681], special: 12_289
    };
    /// Of the second vector.
    static N4096 = {
        n: 4096, security: Security::Insecure,
        data: [134_176_769, 188_417, 163_841, 147_457], special: 40_961
    };
}

/// Decrypts coefficient-domain halves and returns the slots.
fn slots(p: &Params, v: &DecryptVector, rotation: Option<u32>) -> Vec<f64> {
    let words = SecretKey::<Vec<u32>>::words(p);
    let key = SecretKey::from_coefficients(p, vec![0; words], &v.secret).unwrap();
    // The key of the rotated ciphertext is the rotated secret, so rotate the
    // plaintext, which is what the rotation of a ciphertext must decrypt to.
    let half = |limbs: &[Vec<u32>]| {
        let mut out = Vec::new();
        for (i, limb) in limbs.iter().enumerate() {
            let mut limb = limb.clone();
            ntt::forward(&mut limb, p.prime(i).unwrap()).unwrap();
            out.extend(limb);
        }
        out
    };
    let mut plain = vec![0; v.moduli.len() * v.n];
    rlwe::declassify_decryption(p, &key, [&half(&v.c0), &half(&v.c1)], &mut plain).unwrap();
    if let Some(g) = rotation {
        for (i, limb) in plain.chunks_exact_mut(v.n).enumerate() {
            let src = limb.to_vec();
            automorphism::coeff(&src, limb, g, p.prime(i).unwrap().modulus()).unwrap();
        }
    }
    let mut x = centred(p, &plain);
    decode_in_place(&mut x, 2f64.powi(v.log2_scale)).unwrap();
    x.truncate(v.n / 2);
    x
}

#[test]
fn decrypt_vectors() {
    for v in load::<DecryptVector>("decrypt.json") {
        let p = [&N1024, &N4096]
            .into_iter()
            .find(|p| {
                p.n() == v.n
                    && p.data_limbs() == v.moduli.len()
                    && v.moduli
                        .iter()
                        .enumerate()
                        .all(|(i, &q)| p.prime(i).unwrap().modulus().value() == q)
            })
            .expect("a vector with moduli that no set here has");
        let g = automorphism::rotation(v.n, v.rotate_left_by);
        for (got, expected) in [
            (slots(p, &v, None), &v.slots),
            (slots(p, &v, Some(g)), &v.rotated_slots),
        ] {
            let e = got
                .iter()
                .zip(expected)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f64::max);
            assert!(e <= v.max_abs_slot_error, "n {}: {e}", v.n);
        }
    }
}
