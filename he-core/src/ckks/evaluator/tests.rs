//! Hoisted rotations and polynomials, against the same one by one and in the
//! clear.

mod debts;
mod edges;

use super::*;
use crate::ckks::encode::encode_complex;
use crate::ckks::{Ciphertext, Message, Noise, decrypt};
use crate::params::Security;
use crate::ring::automorphism::{conjugation, rotation};
use crate::ring::sample::SEED_LEN;
use crate::rlwe::keys::switching_key_words;
use crate::rlwe::{self, KeySet, SecretKey, SwitchKey, SwitchTarget};
use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};

crate::parameter_set! {
    /// Six levels whose primes differ by far, so that a scale that is only
    /// nearly right is a wrong result.
    static P = {
        n: 64, security: Security::Insecure,
        data: [
            1_073_739_649, 67_107_713, 75_832_321, 61_068_673, 81_198_977, 58_383_617, 71_134_337,
        ],
        special: 1_073_741_441
    };
}

const N: usize = 64;
const SLOTS: usize = 32;
const TOP: usize = 6;
const SCALE: f64 = (1u64 << 26) as f64;

type Ct = Ciphertext<Vec<u32>>;
type Complex = [f64; 2];

struct Lab {
    rng: ChaCha20Rng,
    key: SecretKey<Vec<u32>>,
}

impl Lab {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let words = SecretKey::<Vec<u32>>::words(&P);
        let key = SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        Self { rng, key }
    }

    fn unit(&mut self) -> f64 {
        f64::from(self.rng.next_u32()) / 2f64.powi(31) - 1.0
    }

    /// Values in the unit disc.
    fn values(&mut self) -> Vec<Complex> {
        (0..SLOTS)
            .map(|_| {
                let (r, angle) = (self.unit().abs(), self.unit() * core::f64::consts::PI);
                [r * angle.cos(), r * angle.sin()]
            })
            .collect()
    }

    fn encrypt(&mut self, values: &[Complex], level: usize) -> Ct {
        let mut m = coefficients(values, SCALE);
        let mut seed = [0; SEED_LEN];
        self.rng.fill_bytes(&mut seed);
        let (mut c0, mut c1) = (vec![0; (level + 1) * N], vec![0; (level + 1) * N]);
        rlwe::encrypt_with_seed(&P, &self.key, &mut m, level, &seed, &mut self.rng, &mut c0)
            .unwrap();
        rlwe::expand_c1(&P, &seed, &mut c1).unwrap();
        Ciphertext::new(&P, level, SCALE, c0, c1).unwrap()
    }

    fn keys(
        &mut self,
        targets: impl IntoIterator<Item = SwitchTarget>,
    ) -> Vec<SwitchKey<Vec<u32>>> {
        targets
            .into_iter()
            .map(|target| {
                let storage = vec![0; switching_key_words(&P, TOP)];
                let mut errors = [0; N];
                SwitchKey::generate(
                    &P,
                    &self.key,
                    target,
                    TOP,
                    &mut self.rng,
                    &mut errors,
                    storage,
                )
                .unwrap()
            })
            .collect()
    }

    /// The largest difference of a slot from what `expected` says.
    fn error(&self, ct: &Ct, expected: &[Complex]) -> f64 {
        let (mut scratch, mut slots) = (vec![0; (ct.level() + 1) * N], vec![0.0; N]);
        let (level, scale) = (ct.level(), ct.scale());
        let d = decrypt(&P, &self.key, ct, level, scale, &mut scratch, &mut slots).unwrap();
        assert!(d.fill() < 0.5, "the test's values are too large");
        expected
            .iter()
            .enumerate()
            .map(|(i, v)| (d.slot(i).unwrap() - v[0]).hypot(d.imaginary(i).unwrap() - v[1]))
            .fold(0.0, f64::max)
    }
}

fn coefficients(values: &[Complex], scale: f64) -> Vec<i32> {
    let (re, im): (Vec<f64>, Vec<f64>) = values.iter().map(|&[re, im]| (re, im)).unzip();
    let (mut buffer, mut c) = (vec![0.0; N], vec![0; N]);
    encode_complex(&re, &im, scale, &mut buffer, &mut c, |x| x as i32).unwrap();
    c
}

fn copy_of(ct: &Ct) -> Ct {
    let (c0, c1) = ct.halves();
    Ciphertext::new(&P, ct.level(), ct.scale(), c0.to_vec(), c1.to_vec()).unwrap()
}

fn empty() -> Ct {
    let limbs = || vec![3; (TOP + 1) * N];
    Ciphertext::new(&P, TOP, 1.0, limbs(), limbs()).unwrap()
}

fn times(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

fn plus(a: Complex, b: Complex) -> Complex {
    [a[0] + b[0], a[1] + b[1]]
}

fn rotated(values: &[Complex], steps: i32) -> Vec<Complex> {
    let mut values = values.to_vec();
    values.rotate_left(steps.rem_euclid(SLOTS as i32) as usize);
    values
}

fn with_workspace<R>(level: usize, f: impl FnOnce(&mut Workspace<'_>) -> R) -> R {
    let mut words = vec![5; workspace_words(&P, level)];
    f(&mut Workspace::new(&P, level, &mut words).unwrap())
}

fn galois(steps: &[i32]) -> Vec<SwitchTarget> {
    let all = steps.iter().map(|&s| SwitchTarget::Galois(rotation(N, s)));
    let mut kept = Vec::new();
    for target in all {
        if target != SwitchTarget::Galois(1) && !kept.contains(&target) {
            kept.push(target);
        }
    }
    kept
}

/// At scale 2^26 in a ring this small fresh and switching noise stay below it
/// by far, and anything that is wrong does not.
const SMALL: f64 = 1e-4;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn hoisted_rotations_are_the_separate_ones_bit_by_bit(
        seed: u64,
        level in 0..=TOP,
        steps in proptest::collection::vec(-40..40i32, 1..5),
        expanded: bool,
    ) {
        let mut lab = Lab::new(seed);
        let values = lab.values();
        let ct = lab.encrypt(&values, level);
        let mut targets = galois(&steps);
        targets.push(SwitchTarget::Galois(conjugation(N)));
        let mut keys = lab.keys(targets);
        if expanded {
            let words = switching_key_words(&P, TOP);
            let with = |key: SwitchKey<_>| {
                assert!(!key.is_expanded());
                let key = key.expanded(&P, vec![0; words]).unwrap();
                // What is slower with the same bits has no other test.
                assert!(key.is_expanded());
                key
            };
            keys = keys.into_iter().map(with).collect();
        }
        let keys = KeySet::new(&keys);
        let mut out: Vec<_> = steps.iter().map(|_| empty()).collect();
        let mut words = vec![9; hoisting_words(&P, level)];
        rotate_many(&P, &ct, &steps, keys, &mut out, &mut words).unwrap();
        for (out, &steps) in out.iter().zip(&steps) {
            let mut one = copy_of(&ct);
            with_workspace(level, |work| rotate(&P, &mut one, steps, keys, work)).unwrap();
            prop_assert_eq!(out.halves(), one.halves());
            prop_assert_eq!((out.level(), out.scale()), (level, SCALE));
            prop_assert!(lab.error(out, &rotated(&values, steps)) < SMALL);
        }
        let (mut one, mut hoisted) = (copy_of(&ct), empty());
        with_workspace(level, |work| conjugate(&P, &mut one, keys, work)).unwrap();
        let mut run = Hoisted::new(&P, &ct, &mut words).unwrap();
        run.conjugate(&P, keys, &mut hoisted).unwrap();
        prop_assert_eq!(hoisted.halves(), one.halves());
    }

    #[test]
    fn sums_of_rotations_are_the_sums(
        seed: u64,
        level in 1..=TOP,
        steps in proptest::collection::vec(-40..40i32, 1..5),
    ) {
        let mut lab = Lab::new(seed);
        let values = lab.values();
        let ct = lab.encrypt(&values, level);
        let keys = lab.keys(galois(&steps));
        let keys = KeySet::new(&keys);
        let mut words = vec![9; hoisting_words(&P, level)];
        let mut run = Hoisted::new(&P, &ct, &mut words).unwrap();
        let mut out = empty();
        run.sum(&P, &steps, keys, &mut out).unwrap();
        let sum = |weights: &[Vec<Complex>]| -> Vec<Complex> {
            (0..SLOTS)
                .map(|i| {
                    steps.iter().zip(weights).fold([0.0; 2], |sum, (&steps, w)| {
                        plus(sum, times(rotated(&values, steps)[i], w[i]))
                    })
                })
                .collect()
        };
        let ones = vec![vec![[1.0, 0.0]; SLOTS]; steps.len()];
        prop_assert!(lab.error(&out, &sum(&ones)) < SMALL);

        let weights: Vec<_> = steps.iter().map(|_| lab.values()).collect();
        let scale = SCALE / 3.0;
        let encoded: Vec<_> = weights
            .iter()
            .map(|w| {
                let storage = vec![0; Weight::<Vec<u32>>::words(&P, level)];
                Weight::new(&P, &coefficients(w, scale), level, scale, storage).unwrap()
            })
            .collect();
        // Twice, as the first leaves its scratch behind.
        for _ in 0..2 {
            run.weighted_sum(&P, &steps, &encoded, keys, &mut out).unwrap();
            prop_assert_eq!((out.level(), out.scale()), (level, SCALE * scale));
            prop_assert!(lab.error(&out, &sum(&weights)) < SMALL);
        }
        rescale(&P, &mut out, &mut [0; N]).unwrap();
        prop_assert!(lab.error(&out, &sum(&weights)) < SMALL);
    }

    #[test]
    fn hoisted_inner_sums_are_inner_sums(
        seed: u64,
        level in 0..=TOP,
        stride in prop_oneof![-9..9i32, Just(8), Just(16), Just(32)],
        log in 0..6u32,
        pairs: bool,
    ) {
        let mut lab = Lab::new(seed);
        let mut values = lab.values();
        for v in &mut values {
            *v = v.map(|x| x / 32.0);
        }
        let mut ct = lab.encrypt(&values, level);
        let count = 1usize << log;
        let targets: Vec<_> = if pairs {
            rlwe::keys::inner_sum(&P, stride, count).collect()
        } else {
            inner_sum_hoisted_keys(&P, stride, count).collect()
        };
        let keys = lab.keys(targets);
        let mut words = vec![9; hoisting_words(&P, level)];
        inner_sum_hoisted(&P, &mut ct, stride, count, KeySet::new(&keys), &mut words).unwrap();
        let expected: Vec<_> = (0..SLOTS)
            .map(|i| {
                (0..count as i32).fold([0.0; 2], |sum, k| {
                    plus(sum, rotated(&values, k * stride)[i])
                })
            })
            .collect();
        prop_assert!(lab.error(&ct, &expected) < SMALL);
        prop_assert_eq!((ct.level(), ct.scale()), (level, SCALE));
    }
}

#[test]
fn hoisting_names_what_is_missing_before_anything_changes() {
    let mut lab = Lab::new(1);
    let values = lab.values();
    let mut ct = lab.encrypt(&values, 3);
    let keys = lab.keys(galois(&[1, 2]));
    let keys = KeySet::new(&keys);
    let target = SwitchTarget::Galois(rotation(N, 4));
    let missing = Err(Error::Key { target, level: 3 });
    let length = |what, expected, got| {
        Err(Error::Length {
            what,
            expected,
            got,
        })
    };
    let mut words = vec![0; hoisting_words(&P, 3)];
    let before = ct.halves().0.to_vec();
    let short = words.len() - 1;
    assert_eq!(
        inner_sum_hoisted(&P, &mut ct, 1, 4, keys, &mut words[..short]),
        length("hoisting workspace", short + 1, short)
    );
    assert_eq!(
        inner_sum_hoisted(&P, &mut ct, 1, 8, keys, &mut words),
        missing
    );
    assert_eq!(
        inner_sum_hoisted(&P, &mut ct, 1, 3, keys, &mut words),
        length("inner sum", 4, 3)
    );
    assert_eq!(ct.halves().0, before);
    let mut out = [empty(), empty()];
    assert_eq!(
        rotate_many(&P, &ct, &[1, 4], keys, &mut out, &mut words),
        missing
    );
    assert_eq!(
        rotate_many(&P, &ct, &[1], keys, &mut out, &mut words),
        length("rotated ciphertexts", 1, 2)
    );
    let [out, _] = &mut out;
    assert!(out.halves().0.iter().all(|&x| x == 3));
    let mut run = Hoisted::new(&P, &ct, &mut words).unwrap();
    assert_eq!(run.sum(&P, &[], keys, out), length("rotations", 1, 0));
    let weight = |level, scale| {
        let storage = vec![0; Weight::<Vec<u32>>::words(&P, level)];
        Weight::new(&P, &[1; N], level, scale, storage).unwrap()
    };
    assert_eq!(
        run.weighted_sum(&P, &[0, 1], &[weight(3, SCALE)], keys, out),
        length("weights", 2, 1)
    );
    assert_eq!(
        run.weighted_sum(&P, &[1], &[weight(2, SCALE)], keys, out),
        Err(Error::Level {
            operation: "weighted sum",
            expected: 3,
            got: 2
        })
    );
    assert_eq!(
        run.weighted_sum(&P, &[0, 1], &[weight(3, SCALE), weight(3, 2.0)], keys, out),
        Err(Error::Scale {
            operation: "weighted sum",
            expected: SCALE,
            got: 2.0
        })
    );
    let limb = || vec![0; N];
    let mut small = Ciphertext::new(&P, 0, SCALE, limb(), limb()).unwrap();
    assert_eq!(
        run.rotate(&P, 1, keys, &mut small),
        length("ciphertext half", 4 * N, N)
    );
}

/// The polynomial of a value in the clear, by Horner.
fn in_the_clear(p: &[f64], x: Complex) -> Complex {
    p.iter()
        .rev()
        .fold([0.0; 2], |sum, &c| plus(times(sum, x), [c, 0.0]))
}

/// Evaluates and compares result, level and scale; gives the outcome.
fn check_polynomial(lab: &mut Lab, p: &[f64], level: usize, target: f64) -> PolynomialOutcome {
    let degree = p.iter().rposition(|&c| c != 0.0).unwrap();
    let values = lab.values();
    let fresh = Noise::fresh(&P);
    let mut ct = lab.encrypt(&values, level);
    ct = ct.with_noise(fresh, Message::within(1.0));
    let key = &lab.keys([SwitchTarget::Square])[0];
    let outcome = polynomial_outcome(&P, p, level, SCALE, target).unwrap();
    let bound = polynomial_bound(&P, p, level, SCALE, target, 1.0, fresh).unwrap();
    let mut words = vec![7; polynomial_words(&P, level, degree)];
    with_workspace(level, |work| {
        evaluate_polynomial(&P, &mut ct, p, target, key, &mut words, work)
    })
    .unwrap();
    assert_eq!((ct.level(), ct.scale()), (outcome.level, outcome.scale));
    assert_eq!(ct.scale(), target);
    let levels = (degree as f64 + 1.0).log2().ceil() as usize;
    assert_eq!(ct.level(), level - levels);
    let expected: Vec<_> = values.iter().map(|&x| in_the_clear(p, x)).collect();
    let error = lab.error(&ct, &expected);
    let sigma = bound.noise.sigma / target;
    assert!(error < 6.0 * sigma, "degree {degree}: {error:e}, {sigma:e}");
    // The worst case is what the ciphertext carries, unless terms of one sign fill
    // the modulus.
    let known = ct.noise();
    if cfg!(feature = "noise") && bound.headroom_bits > 0.0 {
        assert!((bound.noise.bound / known.bound - 1.0).abs() < 1e-9);
        assert!(bound.noise.sigma >= known.sigma * (1.0 - 1e-9));
    }
    let weight: f64 = p.iter().zip(1..).map(|(c, k)| c.abs() * f64::from(k)).sum();
    let error = error / (1.0 + weight);
    assert!(
        error < 1e-5,
        "degree {degree}: {error:e} per unit of weight"
    );
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn polynomials_of_every_degree(seed: u64, spare in 0..=1usize, ratio in 0.7..1.4f64) {
        let mut lab = Lab::new(seed);
        for degree in 1..=16 {
            let level = polynomial_levels(degree) + spare;
            let mut p: Vec<_> = (0..=degree).map(|_| lab.unit()).collect();
            // Zeros at the end are not a degree.
            p.resize(degree + 1 + spare, 0.0);
            let target = SCALE * ratio;
            let dense = check_polynomial(&mut lab, &p, level, target);
            for parity in 0..2 {
                let mut half = p.clone();
                for c in half.iter_mut().skip(parity).step_by(2) {
                    *c = 0.0;
                }
                if half.iter().skip(1).any(|&c| c != 0.0) {
                    let outcome = check_polynomial(&mut lab, &half, level, target);
                    prop_assert!(outcome.products <= dense.products);
                }
            }
            let mut monomial = vec![0.0; degree];
            monomial.push(1.0);
            let outcome = check_polynomial(&mut lab, &monomial, level, target);
            prop_assert!(outcome.products <= 2 * degree.ilog2());
        }
    }
}

#[test]
fn products_are_few_and_known_beforehand() {
    let counts = |p: &[f64]| {
        let o = polynomial_outcome(&P, p, TOP, SCALE, SCALE).unwrap();
        (o.products, o.relinearizations, TOP - o.level)
    };
    assert_eq!(counts(&[1.0, 2.0]), (0, 0, 1));
    assert_eq!(counts(&[1.0, 2.0, 3.0]), (1, 1, 2));
    assert_eq!(counts(&[1.0; 4]), (2, 2, 2));
    // Only x^2, x^4, x^8 and x^16.
    let mut monomial = [0.0; 17];
    monomial[16] = 1.0;
    assert_eq!(counts(&monomial), (4, 4, 5));
    // One by one a dense polynomial of degree 15 takes 14 products.
    let (products, relinearizations, levels) = counts(&[1.0; 16]);
    assert!(products < 10 && relinearizations <= products, "{products}");
    assert_eq!(levels, 4);
}

#[test]
fn polynomials_that_cannot_be_evaluated_name_both_sides() {
    let mut lab = Lab::new(2);
    let values = lab.values();
    let mut ct = lab.encrypt(&values, 3);
    let before = ct.halves().0.to_vec();
    let keys = lab.keys([SwitchTarget::Square, SwitchTarget::Galois(5)]);
    let [square, galois] = &keys[..] else {
        unreachable!()
    };
    let mut words = vec![0; polynomial_words(&P, 3, 8)];
    let mut run = |p: &[f64], target, key, words: &mut [u32]| {
        let simulated = polynomial_outcome(&P, p, 3, SCALE, target).map(|_| ());
        let bound = polynomial_bound(&P, p, 3, SCALE, target, 1.0, Noise::ZERO).map(|_| ());
        // (By `Debug`, as one that is no number equals nothing.)
        assert_eq!(format!("{bound:?}"), format!("{simulated:?}"));
        let done = with_workspace(3, |work| {
            evaluate_polynomial(&P, &mut ct, p, target, key, words, work)
        });
        assert!(simulated.is_ok() || simulated == done);
        assert_eq!(ct.halves().0, before);
        done.unwrap_err()
    };
    let operation = "polynomial";
    assert_eq!(
        run(&[1.0; 9], SCALE, square, &mut words),
        Error::Level {
            operation,
            expected: 4,
            got: 3
        }
    );
    for p in [&[][..], &[0.0; 3], &[1.0], &[1.0, 0.0]] {
        let error = run(p, SCALE, square, &mut words);
        assert!(
            matches!(error, Error::Length { expected: 2, .. }),
            "{error}"
        );
    }
    let q = |level| f64::from(P.prime(level).unwrap().modulus().value());
    // The sum would be at a lower scale than x itself.
    assert_eq!(
        run(&[0.0, 1.0], 0.5, square, &mut words),
        Error::Scale {
            operation,
            expected: SCALE,
            got: 0.5 * q(3)
        }
    );
    let error = run(&[0.0, 1.0], 2f64.powi(100), square, &mut words);
    assert!(matches!(error, Error::Scale { got, .. } if got == 2f64.powi(100) * q(3)));
    assert_eq!(
        run(&[0.0, f64::NAN], SCALE, square, &mut words),
        Error::NotFinite { index: 0 }
    );
    let error = run(&[0.0, 1e36], SCALE, square, &mut words);
    assert!(matches!(error, Error::Range { .. }), "{error}");
    assert_eq!(
        run(&[0.0, 1.0, 1.0], SCALE, galois, &mut words),
        Error::Key {
            target: SwitchTarget::Square,
            level: 3
        }
    );
    for value in [f64::NAN, f64::INFINITY, -1.0] {
        let bound = polynomial_bound(&P, &[0.0, 1.0], 3, SCALE, SCALE, value, Noise::ZERO);
        assert_eq!(bound, Err(Error::NotFinite { index: 0 }));
    }
    let expected = polynomial_words(&P, 3, 7);
    assert_eq!(
        run(&[1.0; 8], SCALE, square, &mut words[..expected - 1]),
        Error::Length {
            what: "polynomial workspace",
            expected,
            got: expected - 1
        }
    );
    assert!(lab.error(&ct, &values) < SMALL);
}
