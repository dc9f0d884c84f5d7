//! What an evaluator that lies learns from answers about what it made: the key, by
//! the rules that he-core had before labels were counted and refusals retired a
//! key, and next to nothing by those it has.
//!
//! Both attacks decrypt `16 s` plus one coefficient beside the limit of a rule, at
//! which one coefficient of the key decides. They take about 5/3 answers per
//! coefficient: the first tells +1 from the rest, the second -1 from 0.

#![expect(
    clippy::print_stdout,
    reason = "the figures of the threat model, for `--nocapture`"
)]

use chacha20::ChaCha20Rng;
use he_core::ckks::publish::{Allowance, Budget, KeyId, NoiseKey, PublishError, publish_label};
use he_core::ckks::{Ciphertext, decrypt};
use he_core::params::N4096_DEPTH3 as P;
use he_core::ring::{ntt, sample};
use he_core::rlwe::SecretKey;
use rand_core::SeedableRng;
use std::f64::consts::PI;

const N: usize = 4096;
const LEVEL: usize = 0;
const SCALE: f64 = (1u64 << 20) as f64;

/// Ten classes.
const CANDIDATES: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// The threat model has the figures that are found here.
fn documented(sentence: &str) {
    let text = include_str!("../../SECURITY.md");
    println!("{sentence}");
    assert!(
        text.contains(sentence),
        "SECURITY.md does not say: {sentence}"
    );
}

/// With a comma before the last three digits.
fn grouped(count: usize) -> String {
    format!("{},{:03}", count / 1000, count % 1000)
}

fn key() -> (Vec<i8>, SecretKey<Vec<u32>>) {
    let mut rng = ChaCha20Rng::from_seed([21; 32]);
    let s: Vec<i8> = (0..N).map(|_| sample::ternary(&mut rng) as i8).collect();
    let storage = vec![0; SecretKey::<Vec<u32>>::words(&P)];
    let key = SecretKey::from_coefficients(&P, storage, &s).unwrap();
    (s, key)
}

fn modulus() -> u32 {
    P.prime(0).unwrap().modulus().value()
}

/// `(value X^j, 16)`.
fn crafted(j: usize, value: i32) -> Ciphertext<Vec<u32>> {
    let mut c0 = vec![0; N];
    c0[j] = value.rem_euclid(modulus() as i32) as u32;
    ntt::forward(&mut c0, P.prime(0).unwrap()).unwrap();
    Ciphertext::new(&P, LEVEL, SCALE, c0, vec![16; N]).unwrap()
}

/// Asks about every coefficient, `+value` and then `-value`, whether the answer is
/// that of a coefficient beyond the limit. What was found, and the answers it took.
fn recover(
    value: i32,
    mut beyond: impl FnMut(usize, bool, &Ciphertext<Vec<u32>>) -> Option<bool>,
) -> (Vec<Option<i8>>, usize) {
    let mut answers = 0;
    let mut ask = |j: usize, negative: bool| {
        let ct = crafted(j, if negative { -value } else { value });
        let answer = beyond(j, negative, &ct);
        answers += usize::from(answer.is_some());
        answer
    };
    let coefficient = |j: usize| {
        Some(match ask(j, false)? {
            true => 1,
            false => -i8::from(ask(j, true)?),
        })
    };
    let found = (0..N).map(coefficient).collect();
    (found, answers)
}

/// By class, whether a large positive coefficient `j` makes its slot one of the larger
/// ones; `None` where the slots do not tell.
fn signs(j: usize) -> Option<[bool; CANDIDATES.len()]> {
    let mut power = 1;
    let values = CANDIDATES.map(|_| {
        let value = (PI * (j * power) as f64 / N as f64).cos();
        power = power * 5 % (2 * N);
        value
    });
    let largest = values.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let least = values.into_iter().fold(f64::INFINITY, f64::min);
    // 16 s has about 16 sqrt(2 N / 3) = 836 in a slot.
    let tells = largest - least > 20_000.0 / f64::from(modulus() / 2);
    tells.then(|| values.map(|value| value > (largest + least) / 2.0))
}

fn check(found: &[Option<i8>], s: &[i8]) -> usize {
    let decided = found.iter().zip(s).filter_map(|(f, s)| f.map(|f| (f, *s)));
    decided.inspect(|(f, s)| assert_eq!(f, s)).count()
}

/// Labels as they were: decrypted, and the largest given out, whatever was decrypted
/// and however often.
fn uncounted_label(key: &SecretKey<Vec<u32>>, ct: &Ciphertext<Vec<u32>>) -> usize {
    let (mut scratch, mut slots) = (vec![0; N], vec![0.0; N]);
    let result = decrypt(&P, key, ct, LEVEL, SCALE, &mut scratch, &mut slots).unwrap();
    let value = |i: &usize| result.slot(*i).unwrap();
    let largest = CANDIDATES
        .iter()
        .max_by(|a, b| value(a).total_cmp(&value(b)));
    *largest.unwrap()
}

/// Acceptance as it was: a result that fills more than half of the modulus is
/// refused, and the next one is judged by the same key.
fn unretired_refusal(key: &SecretKey<Vec<u32>>, ct: &Ciphertext<Vec<u32>>) -> bool {
    let (mut scratch, mut slots) = (vec![0; N], vec![0.0; N]);
    let result = decrypt(&P, key, ct, LEVEL, SCALE, &mut scratch, &mut slots).unwrap();
    result.fill() > 0.5
}

struct Counted {
    allowance: Allowance,
    spent: u32,
}

impl Budget for Counted {
    type Error = &'static str;
    fn allowance(&self) -> Allowance {
        self.allowance
    }
    fn spend(&mut self, _: &KeyId) -> Result<(), Self::Error> {
        if self.spent >= self.allowance.queries() {
            return Err("used up");
        }
        self.spent += 1;
        Ok(())
    }
    fn retire(&mut self, _: &KeyId) -> Result<(), Self::Error> {
        self.spent = self.allowance.queries();
        Ok(())
    }
}

/// A key with its budget, as it is asked now.
struct Counter {
    key: SecretKey<Vec<u32>>,
    noise_key: NoiseKey,
    budget: Counted,
}

impl Counter {
    fn new(key: SecretKey<Vec<u32>>, queries: u32) -> Self {
        Self {
            key,
            noise_key: NoiseKey::new([22; 32]),
            budget: Counted {
                allowance: Allowance::new(queries, 30).unwrap(),
                spent: 0,
            },
        }
    }

    fn ask(&mut self, ct: &Ciphertext<Vec<u32>>) -> Result<usize, PublishError<&'static str>> {
        let (mut scratch, mut slots) = (vec![0; N], vec![0.0; N]);
        publish_label(
            &P,
            &self.key,
            &self.noise_key,
            &mut self.budget,
            ct,
            (LEVEL, SCALE),
            &CANDIDATES.map(|slot| slot..slot + 1),
            &mut scratch,
            &mut slots,
        )
    }
}

/// A coefficient beside `q / 2` wraps around if the key's adds to it.
fn beside_the_modulus() -> i32 {
    (modulus() / 2) as i32 - 8
}

/// A coefficient beside a quarter of the modulus fills more than half of it if the
/// key's adds to it.
fn beside_the_limit() -> i32 {
    (modulus() / 4) as i32 - 8
}

#[test]
fn uncounted_labels_give_the_key_away() {
    let (s, key) = key();
    let (found, answers) = recover(beside_the_modulus(), |j, negative, ct| {
        let positive = signs(j)?[uncounted_label(&key, ct)];
        Some(positive == negative)
    });
    let right = check(&found, &s);
    let (right_, n, answers_) = (grouped(right), grouped(N), grouped(answers));
    documented(&format!(
        "| {right_} of {n} coefficients from {answers_} labels, {:.1} per label |",
        right as f64 / answers as f64
    ));
    assert!(right >= 4090);
}

#[test]
fn counted_labels_give_none_of_it() {
    let (_, key) = key();
    // As many as there are questions: no number makes the attack possible.
    let mut counter = Counter::new(key, 2 * N as u32);
    let (mut retired, mut spent) = (0, 0);
    let (found, answers) = recover(beside_the_modulus(), |_, _, ct| match counter.ask(ct) {
        Ok(_) => Some(true),
        Err(PublishError::Retired) => {
            retired += 1;
            None
        }
        Err(PublishError::Budget("used up")) => {
            spent += 1;
            None
        }
        Err(other) => unreachable!("{other}"),
    });
    assert_eq!((answers, retired, spent), (0, 1, N - 1));
    assert!(found.iter().all(Option::is_none));
}

#[test]
fn acceptance_without_renewal_gives_the_whole_key_away() {
    let (s, key) = key();
    let (found, answers) = recover(beside_the_limit(), |_, _, ct| {
        Some(unretired_refusal(&key, ct))
    });
    let (n, answers) = (grouped(N), grouped(answers));
    documented(&format!("| all {n} coefficients from {answers} answers |"));
    assert_eq!(check(&found, &s), N);
}

/// One refusal is all that is told, and it comes after three answers on average.
#[test]
fn acceptance_ends_with_the_first_refusal() {
    let (s, key) = key();
    let mut counter = Counter::new(key, 2 * N as u32);
    let mut refusals = 0;
    let (found, answers) = recover(beside_the_limit(), |_, _, ct| match counter.ask(ct) {
        Ok(_) => Some(false),
        Err(PublishError::Retired) => {
            refusals += 1;
            Some(true)
        }
        Err(PublishError::Budget(_)) => None,
        Err(other) => unreachable!("{other}"),
    });
    assert_eq!(refusals, 1);
    let known = check(&found, &s);
    documented(&format!("| {known} of them from {answers} answers |"));
    assert!(known <= answers && answers < 40);
}

/// Where nothing is refused, as by an evaluator that stays below the limit, the
/// budget ends it.
#[test]
fn answers_end_with_the_budget() {
    let (_, key) = key();
    let mut counter = Counter::new(key, 100);
    let mut labels = 0;
    for j in 0..N {
        match counter.ask(&crafted(j, beside_the_limit() / 2)) {
            Ok(_) => labels += 1,
            Err(error) => assert_eq!(error, PublishError::Budget("used up")),
        }
    }
    let bits = (CANDIDATES.len() as f64).log2();
    documented(&format!(
        "| not measured; {bits:.1} bits per label of ten classes at most |"
    ));
    documented(&format!("the labels of the budget, {labels} of 100"));
    assert_eq!(labels, 100);
}
