//! The ends of what there is: of levels, scales, coefficients and slots.

use super::*;
use crate::ckks::encode::{COEFF_LIMIT_LOG2, encode};
use crate::ckks::{Constant, Plaintext};

const LIMIT: f64 = (1u64 << COEFF_LIMIT_LOG2) as f64;

fn prime(i: usize) -> f64 {
    f64::from(P.prime(i).unwrap().modulus().value())
}

fn scratch() -> Vec<u32> {
    vec![0; N]
}

fn plaintext(values: &[Complex], level: usize, scale: f64) -> Plaintext<Vec<u32>> {
    let words = vec![0; (level + 1) * N];
    Plaintext::new(&P, &coefficients(values, scale), level, scale, words).unwrap()
}

/// The first slot, and how much of the modulus is filled.
fn first(lab: &Lab, ct: &Ct) -> (f64, f64) {
    let (mut words, mut slots) = (vec![0; (ct.level() + 1) * N], vec![0.0; N]);
    let (level, scale) = (ct.level(), ct.scale());
    let d = decrypt(&P, &lab.key, ct, level, scale, &mut words, &mut slots).unwrap();
    (d.slot(0).unwrap(), d.fill())
}

#[test]
fn level_0_takes_everything_that_needs_no_prime() {
    let mut lab = Lab::new(11);
    let (a, b) = (lab.values(), lab.values());
    let mut ct = lab.encrypt(&a, 0);
    let other = lab.encrypt(&b, 0);
    let mut expected = a;
    let plus_each = |x: &mut Vec<Complex>, sign: f64| {
        for (x, b) in x.iter_mut().zip(&b) {
            *x = plus(*x, [sign * b[0], sign * b[1]]);
        }
    };
    add(&P, &mut ct, &other).unwrap();
    plus_each(&mut expected, 1.0);
    add_plain(&P, &mut ct, &plaintext(&b, 0, SCALE)).unwrap();
    plus_each(&mut expected, 1.0);
    sub_plain(&P, &mut ct, &plaintext(&b, 0, SCALE)).unwrap();
    sub(&P, &mut ct, &other).unwrap();
    plus_each(&mut expected, -1.0);
    plus_each(&mut expected, -1.0);
    negate(&P, &mut ct).unwrap();
    add_constant(&P, &mut ct, &Constant::complex(0.5, -0.25, SCALE).unwrap()).unwrap();
    // An integer at scale 1 leaves the scale.
    multiply_constant(&P, &mut ct, &Constant::real(3.0, 1.0).unwrap()).unwrap();
    for x in &mut expected {
        *x = [3.0 * (0.5 - x[0]), 3.0 * (-0.25 - x[1])];
    }
    let targets = [
        SwitchTarget::Galois(rotation(N, 1)),
        SwitchTarget::Galois(conjugation(N)),
    ];
    let keys = lab.keys(targets);
    let keys = KeySet::new(&keys);
    with_workspace(0, |work| {
        rotate(&P, &mut ct, 1, keys, work).unwrap();
        conjugate(&P, &mut ct, keys, work).unwrap();
        // All the way round is nothing, and takes no key.
        rotate(&P, &mut ct, 0, keys, work).unwrap();
        rotate(&P, &mut ct, SLOTS as i32, keys, work).unwrap();
    });
    let expected: Vec<Complex> = rotated(&expected, 1)
        .iter()
        .map(|x| [x[0], -x[1]])
        .collect();
    assert_eq!((ct.level(), ct.scale()), (0, SCALE));
    assert!(
        lab.error(&ct, &expected) < SMALL,
        "{}",
        lab.error(&ct, &expected)
    );
}

#[test]
fn level_0_refuses_what_needs_a_prime() {
    let mut lab = Lab::new(12);
    let values = lab.values();
    let mut ct = lab.encrypt(&values, 0);
    let before = copy_of(&ct);
    let level = |operation, expected| {
        Err(Error::Level {
            operation,
            expected,
            got: 0,
        })
    };
    assert_eq!(rescale(&P, &mut ct, &mut scratch()), level("rescale", 1));
    let aligned = align_scale(&P, &mut ct, SCALE / 2.0, &mut scratch());
    assert_eq!(aligned, level("scale alignment", 1));
    assert_eq!(drop_level(&P, &mut ct, 1), level("level drop", 1));
    drop_level(&P, &mut ct, 0).unwrap();
    let polynomial = polynomial_outcome(&P, &[0.0, 1.0], 0, SCALE, SCALE).map(|_| ());
    assert_eq!(polynomial, level("polynomial", 1));
    assert_eq!(ct.halves(), before.halves());
    // One level more than there are.
    let over = P.max_level() + 1;
    let refused = Error::Level {
        operation: "plaintext",
        expected: P.max_level(),
        got: over,
    };
    let words = vec![0; (over + 1) * N];
    let plain = Plaintext::new(&P, &[0; N], over, SCALE, words);
    assert_eq!(plain.unwrap_err(), refused);
}

#[test]
fn the_last_rescale_leaves_the_first_prime() {
    let mut lab = Lab::new(13);
    let (values, weights) = (lab.values(), lab.values());
    let mut ct = lab.encrypt(&values, 1);
    multiply_plain(&P, &mut ct, &plaintext(&weights, 1, prime(1))).unwrap();
    rescale(&P, &mut ct, &mut scratch()).unwrap();
    // The scale is exact, not nearly so.
    assert_eq!((ct.level(), ct.scale()), (0, SCALE));
    let expected: Vec<Complex> = values
        .iter()
        .zip(&weights)
        .map(|(&a, &b)| times(a, b))
        .collect();
    assert!(lab.error(&ct, &expected) < SMALL);
    assert_eq!(ct.halves().0.len(), N);
}

#[test]
fn a_result_is_right_up_to_half_the_modulus_and_shows_that_it_wrapped() {
    let mut lab = Lab::new(14);
    let half = 0.5 * prime(0) / SCALE;
    // A constant is one coefficient: value times scale. Errors are a few
    // hundred of 2^29.
    for (value, wraps) in [
        (half * 0.999_99, false),
        (half * 1.000_01, true),
        (-half * 0.999_99, false),
        (-half * 1.000_01, true),
    ] {
        let mut ct = lab.encrypt(&[], 0);
        add_constant(&P, &mut ct, &Constant::real(value, SCALE).unwrap()).unwrap();
        let (got, fill) = first(&lab, &ct);
        let expected = if wraps {
            value - value.signum() * 2.0 * half
        } else {
            value
        };
        assert!((got - expected).abs() < SMALL, "{value}: {got}");
        // Both sides of the edge are near it: the limit that a client allows,
        // one half, is far below.
        assert!(fill > 0.999 && fill <= 1.0, "{value}: {fill}");
    }
    // Doubling passes one half before anything wraps.
    let mut ct = lab.encrypt(&[[1.0, 0.0]; SLOTS], 0);
    let mut value = 1.0;
    loop {
        let copy = copy_of(&ct);
        add(&P, &mut ct, &copy).unwrap();
        value *= 2.0;
        let (got, fill) = first(&lab, &ct);
        let right = (got - value).abs() < 100.0 * SMALL;
        assert!(
            right || fill > 0.5 || value > 2.0 * half,
            "{value} is {got}, at {fill}"
        );
        if value >= half {
            break;
        }
        assert!((fill - value / half).abs() < 1e-3, "{value}: {fill}");
    }
}

#[test]
fn a_scale_near_the_modulus_is_a_scale() {
    let mut lab = Lab::new(15);
    // Values to +-1 at a third of the modulus, and a scale above all of it.
    let scale = prime(0) / 3.0;
    let mut ct = lab.encrypt(&[], 0);
    let one = Constant::real(1.0, scale).unwrap();
    ct = Ciphertext::new(&P, 0, scale, ct.halves().0.to_vec(), ct.halves().1.to_vec()).unwrap();
    add_constant(&P, &mut ct, &one).unwrap();
    let (got, fill) = first(&lab, &ct);
    assert!((got - 1.0).abs() < 1e-5 && (fill - 2.0 / 3.0).abs() < 1e-5);
    let scale = 1024.0 * prime(0);
    let mut ct = Ciphertext::new(&P, 0, scale, vec![5; N], vec![7; N]).unwrap();
    add_constant(&P, &mut ct, &Constant::real(2f64.powi(-12), scale).unwrap()).unwrap();
    assert!(first(&lab, &ct).1 <= 1.0);
}

#[test]
fn scales_leave_the_range_of_numbers_by_an_error() {
    let mut lab = Lab::new(16);
    let values = lab.values();
    let (c0, c1) = lab.encrypt(&values, 1).into_storage();
    let with = |scale| Ciphertext::new(&P, 1, scale, c0.clone(), c1.clone());
    let (huge, tiny) = (f64::MAX, f64::MIN_POSITIVE);
    for scale in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, tiny / 2.0] {
        assert!(matches!(with(scale), Err(Error::Scale { .. })), "{scale}");
    }
    let unchanged = |ct: &Ct, scale| {
        assert_eq!((ct.level(), ct.scale()), (1, scale));
        assert_eq!(ct.halves(), (&c0[..], &c1[..]));
    };
    let mut ct = with(huge).unwrap();
    let refused = |result: Result<()>| assert!(matches!(result, Err(Error::Scale { .. })));
    refused(multiply_plain(&P, &mut ct, &plaintext(&values, 1, 2.0)));
    refused(multiply_constant(
        &P,
        &mut ct,
        &Constant::real(1.0, 2.0).unwrap(),
    ));
    refused(multiply_encoded(
        &P,
        &mut ct,
        &[0.0; N],
        2.0,
        &mut scratch(),
        &mut (),
    ));
    refused(square(&P, copy_of(&ct), vec![0; 2 * N]).map(|_| ()));
    refused(multiply(&P, copy_of(&ct), &with(huge).unwrap(), vec![0; 2 * N]).map(|_| ()));
    unchanged(&ct, huge);
    let mut ct = with(tiny).unwrap();
    refused(rescale(&P, &mut ct, &mut scratch()));
    refused(multiply_plain(&P, &mut ct, &plaintext(&values, 1, 0.5)));
    refused(align_scale(&P, &mut ct, huge, &mut scratch()));
    unchanged(&ct, tiny);
}

#[test]
fn coefficients_end_below_the_limit() {
    let (mut buffer, mut integers) = (vec![0.0f64; N], vec![0; N]);
    let mut constant = |value: f64, scale: f64| {
        let done = encode(&[value; SLOTS], scale, &mut buffer, &mut integers, |x| {
            x as i32
        });
        done.map(|()| integers[0])
    };
    let largest = LIMIT - 1.0;
    assert_eq!(constant(largest, 1.0), Ok(largest as i32));
    assert_eq!(constant(-largest, 1.0), Ok(-largest as i32));
    let range = Error::Range {
        index: 0,
        limit_log2: COEFF_LIMIT_LOG2,
    };
    for value in [LIMIT, -LIMIT, 1e300] {
        assert_eq!(constant(value, 1.0), Err(range), "{value}");
    }
    // In single precision the next number below the limit.
    let (mut buffer, mut integers) = (vec![0.0f32; N], vec![0; N]);
    let mut constant = |value: f32| {
        let done = encode(&[value; SLOTS], 1.0, &mut buffer, &mut integers, |x| {
            x as i32
        });
        done.map(|()| integers[0])
    };
    let limit = LIMIT as f32;
    assert_eq!(constant(limit.next_down()), Ok(limit.next_down() as i32));
    assert_eq!(constant(-limit.next_down()), Ok(-limit.next_down() as i32));
    for value in [limit, -limit, 1e30] {
        assert_eq!(constant(value), Err(range), "{value}");
    }
    // The sum of all slots is not finite.
    assert_eq!(constant(f32::MAX), Err(Error::NotFinite { index: 0 }));
}

#[test]
fn what_is_refused_says_where() {
    let (mut buffer, mut integers) = (vec![0.0f64; N], vec![0; N]);
    for at in [0, 1, SLOTS - 1] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut values = vec![1.0; SLOTS];
            values[at] = bad;
            let done = encode(&values, 1.0, &mut buffer, &mut integers, |x| x as i32);
            assert_eq!(done, Err(Error::NotFinite { index: at }), "{bad}");
            // The first of several.
            values[SLOTS - 1] = f64::NAN;
            let done = encode(&values, 1.0, &mut buffer, &mut integers, |x| x as i32);
            assert_eq!(done, Err(Error::NotFinite { index: at }), "{bad}");
        }
    }
    let lab = &mut Lab::new(17);
    let mut encrypt = |message: &mut [i32]| {
        let (seed, mut c0) = ([9; SEED_LEN], vec![0; N]);
        rlwe::encrypt_with_seed(&P, &lab.key, message, 0, &seed, &mut lab.rng, &mut c0)
    };
    for at in [0, 7, N - 1] {
        for (edge, room) in [
            (i32::MAX - 21, true),
            (i32::MIN + 21, true),
            (i32::MAX - 20, false),
            (i32::MIN + 20, false),
        ] {
            let mut message = [0; N];
            message[at] = edge;
            let refused = Err(Error::Range {
                index: at,
                limit_log2: 31,
            });
            let done = encrypt(&mut message);
            assert_eq!(done, if room { Ok(()) } else { refused }, "{edge}");
            // What is refused is left as it was.
            assert!(
                room || message[at] == edge && message.iter().filter(|&&x| x == 0).count() == N - 1
            );
        }
    }
    for (coefficient, at) in [(2, 0), (-2, 5), (i8::MIN, N - 1), (i8::MAX, 3)] {
        let mut coefficients = [1i8; N];
        coefficients[at] = coefficient;
        let storage = vec![0; SecretKey::<Vec<u32>>::words(&P)];
        let key = SecretKey::from_coefficients(&P, storage, &coefficients);
        let range = Error::Range {
            index: at,
            limit_log2: 1,
        };
        assert_eq!(key.unwrap_err(), range);
    }
}

#[test]
fn as_many_values_as_slots_and_none_at_all() {
    let mut lab = Lab::new(18);
    for count in [0, 1, SLOTS - 1, SLOTS] {
        let values: Vec<Complex> = lab.values().into_iter().take(count).collect();
        let ct = lab.encrypt(&values, 1);
        let mut expected = values;
        expected.resize(SLOTS, [0.0; 2]);
        assert!(lab.error(&ct, &expected) < SMALL, "{count}");
    }
    assert_eq!(coefficients(&[], SCALE), [0; N]);
    let (mut buffer, mut integers) = (vec![0.0; N], vec![0; N]);
    let many = encode(&[0.0; SLOTS + 1], 1.0, &mut buffer, &mut integers, |x| {
        x as i32
    });
    let length = Error::Length {
        what: "slots",
        expected: SLOTS,
        got: SLOTS + 1,
    };
    assert_eq!(many, Err(length));
    // Only the last one.
    let mut values = vec![[0.0; 2]; SLOTS];
    values[SLOTS - 1] = [1.0, -1.0];
    let ct = lab.encrypt(&values, 0);
    assert!(lab.error(&ct, &values) < SMALL);
    let (mut words, mut slots) = (vec![0; N], vec![0.0; N]);
    let result = decrypt(&P, &lab.key, &ct, 0, SCALE, &mut words, &mut slots).unwrap();
    assert!(result.slot(SLOTS - 1).is_some() && result.slot(SLOTS).is_none());
    assert!(result.imaginary(SLOTS - 1).is_some() && result.imaginary(SLOTS).is_none());
}

/// Every length that the crate computes from a level, a degree or a place, for all
/// that exist and for what does not: nothing overflows, loops or claims memory for it.
#[test]
fn lengths_of_what_does_not_exist_are_refused_or_beyond_all_memory() {
    use crate::params::{MAX_LIMBS, SETS};
    use crate::rlwe::keys::switching_key_words;
    use crate::testing::{N16, N64_PAIRS};
    use crate::wire::{Kind, half_len};

    const NONE: usize = usize::MAX;
    let small = [&N16, &P, &N64_PAIRS];
    for params in SETS.into_iter().chain(small) {
        let (n, top) = (params.n(), params.max_level());
        let most = 32 * MAX_LIMBS * MAX_LIMBS * n;
        for level in (0..=top + 3).chain([NONE / 2, NONE - 1, NONE]) {
            let exists = level <= top;
            let lengths = [
                workspace_words(params, level),
                fast_workspace_words(params, level),
                hoisting_words(params, level),
                Weight::<Vec<u32>>::words(params, level),
                switching_key_words(params, level),
                polynomial_words(params, level, 1),
            ];
            // A polynomial takes a level.
            for (i, words) in lengths.into_iter().enumerate() {
                let fits = exists && (i != 5 || top > 0);
                let expected = if fits { 1..=most } else { NONE..=NONE };
                assert!(expected.contains(&words), "{i} at {level}: {words}");
            }
            for degree in (0..70).chain([NONE / 2, NONE / 2 + 1, NONE - 1, NONE]) {
                let words = polynomial_words(params, level, degree);
                let fits = exists && polynomial_levels(degree) <= top;
                assert_eq!(words < NONE, fits, "degree {degree} at {level}");
            }
            let mut words = vec![0; 4 * n];
            let work = Workspace::new(params, level, &mut words);
            assert!(exists || matches!(work, Err(Error::Level { .. })));
            assert_eq!(half_len(params, level).is_ok(), exists);
            assert_eq!(Kind::SwitchingKey.object_len(params, level).is_ok(), exists);
            // Digits cover the primes of the level and no others.
            let digits = 0..params.digits(level);
            let covered = digits.flat_map(|digit| params.digit(digit, level));
            let limbs = level.min(top) + 1;
            assert!(covered.eq(0..limbs), "{level}");
            assert!(params.digit(NONE, level).is_empty());
            let targets = params.targets(level).count();
            assert_eq!(targets, limbs + params.special_limbs());
            assert!(params.log_q(level) <= params.log_q(top));
            // A ciphertext with more memory than its set has levels.
            let room = || vec![1; (top + 4) * n];
            let mut ct = Ciphertext::zero(params, 0, SCALE, room(), room()).unwrap();
            let reset = ct.reset(params, level, SCALE);
            assert_eq!(reset.is_ok(), exists, "{level}");
            if !exists {
                assert!(matches!(reset, Err(Error::Level { .. })), "{reset:?}");
                assert_eq!(ct.level(), 0);
            }
        }
    }
}
