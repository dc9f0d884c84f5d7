//! Homomorphisms as properties: programs of random operations, compared slot
//! by slot with the same operations in the clear, to within the worst-case
//! bound that the ciphertexts carry, and with the bound of the message.

use super::encode::encode_complex;
use super::evaluator::*;
use super::{Ciphertext, Constant, Message, Noise, Plaintext, decrypt};
use crate::error::Error;
use crate::ring::automorphism::rotation;
use crate::ring::sample::SEED_LEN;
use crate::rlwe::keys::{conjugation, powers_of_two, switching_key_words};
use crate::rlwe::{
    self, KeySet, PublicKey, PublicScratch, SecretKey, SwitchKey, SwitchTarget, encrypt_public,
};
use crate::testing::N64 as P;
use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};

const N: usize = 64;
const SLOTS: usize = 32;
const TOP: usize = 4;
const SCALE: f64 = (1u64 << 26) as f64;

type Complex = [f64; 2];

/// Of [`Lab::values`].
const UNIT: Message = Message {
    bound: 1.0,
    rms: core::f64::consts::FRAC_1_SQRT_2,
};

fn times(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

fn largest(values: &[Complex]) -> f64 {
    values.iter().map(|v| v[0].hypot(v[1])).fold(0.0, f64::max)
}

struct Lab {
    rng: ChaCha20Rng,
    key: SecretKey<Vec<u32>>,
    public: PublicKey<Vec<u32>>,
    /// Relinearisation, conjugation, rotations by powers of two and by 13; for
    /// the highest level, as every lower one can use them.
    keys: Vec<SwitchKey<Vec<u32>>>,
}

/// A ciphertext and what it should hold.
struct Tracked<const PARTS: usize = 2> {
    ct: Ciphertext<Vec<u32>, PARTS>,
    values: Vec<Complex>,
}

impl Lab {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let words = SecretKey::<Vec<u32>>::words(&P);
        let key = SecretKey::generate(&P, vec![0; words], &mut rng).unwrap();
        let mut public_seed = [0; SEED_LEN];
        rng.fill_bytes(&mut public_seed);
        let storage = vec![0; PublicKey::<Vec<u32>>::words(&P)];
        let mut errors = vec![0; N];
        let public =
            PublicKey::generate(&P, &key, &public_seed, &mut rng, &mut errors, storage).unwrap();
        let thirteen = SwitchTarget::Galois(rotation(N, 13));
        let keys = [SwitchTarget::Square, conjugation(&P), thirteen]
            .into_iter()
            .chain(powers_of_two(&P))
            .map(|target| switching(&key, target, TOP, &mut rng))
            .collect();
        Self {
            rng,
            key,
            public,
            keys,
        }
    }

    fn keys(&self) -> KeySet<'_, Vec<u32>> {
        KeySet::new(&self.keys)
    }

    /// Values in the unit disc.
    fn values(&mut self) -> Vec<Complex> {
        let mut unit = || f64::from(self.rng.next_u32()) / 2f64.powi(32);
        (0..SLOTS)
            .map(|_| {
                let (r, angle) = (unit().sqrt(), unit() * core::f64::consts::TAU);
                [r * angle.cos(), r * angle.sin()]
            })
            .collect()
    }

    fn encrypt(&mut self, level: usize, publicly: bool) -> Tracked {
        let values = self.values();
        let mut message = coefficients(&values, SCALE);
        let (mut c0, mut c1) = (vec![0; (level + 1) * N], vec![0; (level + 1) * N]);
        let noise = if publicly {
            let (mut integers, mut limbs) = (vec![7; 3 * N], vec![7; 3 * N]);
            let scratch = PublicScratch {
                integers: &mut integers,
                limbs: &mut limbs,
            };
            let halves = [&mut c0[..], &mut c1[..]];
            encrypt_public(
                &P,
                &self.public,
                &message,
                level,
                &mut self.rng,
                scratch,
                halves,
            )
            .unwrap();
            assert!(integers.iter().all(|&x| x == 0) && limbs.iter().all(|&x| x == 0));
            Noise::fresh_public(&P).unwrap()
        } else {
            let mut seed = [0; SEED_LEN];
            self.rng.fill_bytes(&mut seed);
            rlwe::encrypt_with_seed(
                &P,
                &self.key,
                &mut message,
                level,
                &seed,
                &mut self.rng,
                &mut c0,
            )
            .unwrap();
            rlwe::expand_c1(&P, &seed, &mut c1).unwrap();
            Noise::fresh(&P)
        };
        Tracked {
            ct: Ciphertext::new(&P, level, SCALE, c0, c1)
                .unwrap()
                .with_noise(noise, UNIT),
            values,
        }
    }

    /// Decrypts and compares every slot, both parts.
    fn check<const PARTS: usize>(&self, x: &Tracked<PARTS>) {
        let (level, scale) = (x.ct.level(), x.ct.scale());
        let (mut scratch, mut slots) = (vec![0; (level + 1) * N], vec![0.0; N]);
        let d = decrypt(&P, &self.key, &x.ct, level, scale, &mut scratch, &mut slots).unwrap();
        assert!(d.fill() < 0.5, "the test's values are too large");
        let tolerance = x.bound() / scale + 1e-12 * largest(&x.values);
        assert!((d.noise().bound * scale / x.bound() - 1.0).abs() < 1e-12);
        assert!((d.noise().sigma * scale / x.ct.noise().sigma - 1.0).abs() < 1e-12);
        assert!(largest(&x.values) <= x.magnitude() * (1.0 + 1e-9));
        // A bound that nothing can exceed would test nothing.
        assert!(tolerance < 0.02, "tolerance {tolerance}");
        for (i, v) in x.values.iter().enumerate() {
            let got = [d.slot(i).unwrap(), d.imaginary(i).unwrap()];
            let e = (got[0] - v[0]).hypot(got[1] - v[1]);
            assert!(
                e <= tolerance,
                "slot {i}: {got:?} for {v:?}, allowed {tolerance:e}"
            );
        }
        assert!(d.slot(SLOTS).is_none() && d.imaginary(SLOTS).is_none());
    }
}

fn switching(
    key: &SecretKey<Vec<u32>>,
    target: SwitchTarget,
    level: usize,
    rng: &mut ChaCha20Rng,
) -> SwitchKey<Vec<u32>> {
    let storage = vec![0; switching_key_words(&P, level)];
    SwitchKey::generate(&P, key, target, level, rng, &mut [0; N], storage).unwrap()
}

fn with_workspace<R>(level: usize, f: impl FnOnce(&mut Workspace<'_>) -> R) -> R {
    let mut words = vec![5; workspace_words(&P, level)];
    f(&mut Workspace::new(&P, level, &mut words).unwrap())
}

fn coefficients(values: &[Complex], scale: f64) -> Vec<i32> {
    let (re, im): (Vec<f64>, Vec<f64>) = values.iter().map(|&[re, im]| (re, im)).unzip();
    let (mut buffer, mut c) = (vec![0.0; N], vec![0; N]);
    encode_complex(&re, &im, scale, &mut buffer, &mut c, |x| x as i32).unwrap();
    c
}

fn plaintext(values: &[Complex], scale: f64, level: usize) -> Plaintext<Vec<u32>> {
    let c = coefficients(values, scale);
    let plain = Plaintext::new(&P, &c, level, scale, vec![0; (level + 1) * N]).unwrap();
    plain.with_noise(Noise::rounding(&P), UNIT)
}

impl<const PARTS: usize> Tracked<PARTS> {
    /// Of the message, as it is carried.
    fn magnitude(&self) -> f64 {
        self.ct.message().bound
    }

    /// Of the noise, as it is carried.
    fn bound(&self) -> f64 {
        self.ct.noise().bound
    }

    /// Whether a value of `magnitude` at `scale` fits the modulus twice over.
    fn fits(level: usize, magnitude: f64, scale: f64) -> bool {
        magnitude * scale < 2f64.powf(P.log_q(level)) / 4.0
    }

    fn each(&mut self, f: impl Fn(Complex) -> Complex) {
        for v in &mut self.values {
            *v = f(*v);
        }
    }

    fn add<const OTHER: usize>(&mut self, other: &Tracked<OTHER>, sign: f64) {
        if sign > 0.0 {
            add(&P, &mut self.ct, &other.ct).unwrap();
        } else {
            sub(&P, &mut self.ct, &other.ct).unwrap();
        }
        for (v, w) in self.values.iter_mut().zip(&other.values) {
            *v = [v[0] + sign * w[0], v[1] + sign * w[1]];
        }
    }

    fn negate(&mut self) {
        negate(&P, &mut self.ct).unwrap();
        self.each(|[re, im]| [-re, -im]);
    }

    fn add_plain(&mut self, values: &[Complex], sign: f64) {
        // What the encoder takes; a larger scale is the constants' business.
        if self.ct.scale() * 2.0 >= 2f64.powi(30) {
            return;
        }
        let plain = plaintext(values, self.ct.scale(), self.ct.level());
        if sign > 0.0 {
            add_plain(&P, &mut self.ct, &plain).unwrap();
        } else {
            sub_plain(&P, &mut self.ct, &plain).unwrap();
        }
        for (v, w) in self.values.iter_mut().zip(values) {
            *v = [v[0] + sign * w[0], v[1] + sign * w[1]];
        }
    }

    fn add_constant(&mut self, c: Complex) {
        let constant = Constant::complex(c[0], c[1], self.ct.scale()).unwrap();
        add_constant(&P, &mut self.ct, &constant).unwrap();
        self.each(|[re, im]| [re + c[0], im + c[1]]);
    }

    fn multiply_constant(&mut self, c: Complex, scale: f64) {
        let constant = Constant::complex(c[0], c[1], scale).unwrap();
        multiply_constant(&P, &mut self.ct, &constant).unwrap();
        self.each(|v| times(v, c));
    }

    fn multiply_plain(&mut self, values: &[Complex], scale: f64) {
        let plain = plaintext(values, scale, self.ct.level());
        multiply_plain(&P, &mut self.ct, &plain).unwrap();
        for (v, w) in self.values.iter_mut().zip(values) {
            *v = times(*v, *w);
        }
    }

    fn drop_level(&mut self, level: usize) {
        drop_level(&P, &mut self.ct, level).unwrap();
    }
}

impl Tracked {
    fn align(&mut self, target: f64) {
        align_scale(&P, &mut self.ct, target, &mut [0; N]).unwrap();
        assert!((self.ct.scale() / target - 1.0).abs() < 1e-12);
    }

    fn rescale(&mut self) {
        rescale(&P, &mut self.ct, &mut [0; N]).unwrap();
    }

    fn tensor(self, other: &Tracked) -> Tracked<3> {
        let c2 = vec![9; (self.ct.level() + 1) * N];
        let values = self.values.iter().zip(&other.values);
        Tracked {
            values: values.map(|(&v, &w)| times(v, w)).collect(),
            ct: multiply(&P, self.ct, &other.ct, c2).unwrap(),
        }
    }

    fn square(self) -> Tracked<3> {
        let c2 = vec![9; (self.ct.level() + 1) * N];
        Tracked {
            values: self.values.iter().map(|&v| times(v, v)).collect(),
            ct: square(&P, self.ct, c2).unwrap(),
        }
    }

    fn rotate(&mut self, lab: &Lab, steps: i32) {
        let level = self.ct.level();
        with_workspace(level, |work| {
            rotate(&P, &mut self.ct, steps, lab.keys(), work)
        })
        .unwrap();
        let steps = steps.rem_euclid(SLOTS as i32);
        self.values.rotate_left(steps as usize);
    }

    fn conjugate(&mut self, lab: &Lab) {
        let level = self.ct.level();
        with_workspace(level, |work| conjugate(&P, &mut self.ct, lab.keys(), work)).unwrap();
        self.each(|[re, im]| [re, -im]);
    }

    /// The bound of the noise after a sum of `count` slots: every switch's is
    /// doubled by every later step, and the terms are not independent.
    fn summed(&self, count: usize) -> f64 {
        let one = Noise::key_switch(&P, self.ct.level()).unwrap();
        count as f64 * self.bound() + (count as f64 - 1.0) * one.bound
    }

    /// In the clear: each slot plus the one `steps` further.
    fn add_values(&mut self, steps: usize) {
        let mut other = self.values.clone();
        other.rotate_left(steps);
        for (v, w) in self.values.iter_mut().zip(other) {
            *v = [v[0] + w[0], v[1] + w[1]];
        }
    }

    fn inner_sum(&mut self, lab: &Lab, stride: i32, count: usize) {
        let summed = self.summed(count);
        with_workspace(self.ct.level(), |work| {
            inner_sum(&P, &mut self.ct, stride, count, lab.keys(), work)
        })
        .unwrap();
        assert!(self.bound() <= summed * (1.0 + 1e-12));
        let old = self.values.clone();
        for (i, v) in self.values.iter_mut().enumerate() {
            *v = (0..count as i32).fold([0.0; 2], |sum, k| {
                let from = (i as i32 + k * stride).rem_euclid(SLOTS as i32);
                let w = old[from as usize];
                [sum[0] + w[0], sum[1] + w[1]]
            });
        }
    }

    fn copy(&self) -> Self {
        let (c0, c1) = self.ct.halves();
        let (level, scale) = (self.ct.level(), self.ct.scale());
        Self {
            ct: Ciphertext::new(&P, level, scale, c0.to_vec(), c1.to_vec())
                .unwrap()
                .with_noise(self.ct.noise(), self.ct.message()),
            values: self.values.clone(),
        }
    }
}

impl Tracked<3> {
    fn relinearize(self, lab: &Lab) -> Tracked {
        let level = self.ct.level();
        let key = lab.keys().find(SwitchTarget::Square, level).unwrap();
        let (ct, third) =
            with_workspace(level, |work| relinearize(&P, self.ct, key, work)).unwrap();
        assert_eq!(third.len(), (level + 1) * N);
        Tracked {
            ct,
            values: self.values,
        }
    }
}

/// Brings two ciphertexts to one level and scale; false where there is no
/// level left to do it, or one would not fit there.
fn meet(x: &mut Tracked, y: &mut Tracked) -> bool {
    let (high, low) = if x.ct.level() >= y.ct.level() {
        (x, y)
    } else {
        (y, x)
    };
    let apart = (high.ct.scale() / low.ct.scale() - 1.0).abs() > 1e-9;
    let Some(level) = (low.ct.level() + usize::from(high.ct.level() > low.ct.level()))
        .checked_sub(usize::from(apart))
    else {
        return false;
    };
    let level = level.min(low.ct.level());
    let fits = |x: &Tracked| Tracked::<2>::fits(level, x.magnitude(), low.ct.scale());
    if !fits(high) || !fits(low) {
        return false;
    }
    if apart {
        let above = (low.ct.level() + 1).min(high.ct.level());
        high.drop_level(above);
        high.align(low.ct.scale());
    }
    let level = high.ct.level().min(low.ct.level());
    high.drop_level(level);
    low.drop_level(level);
    true
}

/// One step of a program.
#[derive(Clone, Copy, Debug)]
enum Step {
    Swap,
    Add,
    Sub,
    Negate,
    AddPlain(bool),
    AddConstant(f64, f64),
    MultiplyConstant(f64, f64),
    MultiplyInteger(i8),
    MultiplyPlain,
    Multiply,
    Square,
    Rotate(i32),
    Conjugate,
    InnerSum(i32, u32),
    DropLevel,
    Align(f64),
}

fn step() -> impl Strategy<Value = Step> {
    let unit = || -1.0..1.0f64;
    prop_oneof![
        Just(Step::Swap),
        Just(Step::Add),
        Just(Step::Sub),
        Just(Step::Negate),
        any::<bool>().prop_map(Step::AddPlain),
        (unit(), unit()).prop_map(|(a, b)| Step::AddConstant(a, b)),
        (unit(), unit()).prop_map(|(a, b)| Step::MultiplyConstant(a, b)),
        (-3..=3i8).prop_map(Step::MultiplyInteger),
        Just(Step::MultiplyPlain),
        Just(Step::Multiply),
        Just(Step::Square),
        (-40..40i32).prop_map(Step::Rotate),
        Just(Step::Conjugate),
        (
            prop_oneof![Just(1), Just(2), Just(4), Just(16), Just(32)],
            0..6u32
        )
            .prop_map(|(stride, log)| Step::InnerSum(stride, log)),
        Just(Step::DropLevel),
        (0.5..2.0f64).prop_map(Step::Align),
    ]
}

fn product_fits(x: &Tracked, y: &Tracked) -> bool {
    let (level, size) = (x.ct.level(), x.magnitude() * y.magnitude());
    level > 0 && size < 8.0 && Tracked::<2>::fits(level, size, x.ct.scale() * y.ct.scale())
}

/// Carries a step out on `x`, with `y` as the other operand, unless there is
/// no level left or the result would not fit.
fn run(lab: &mut Lab, step: Step, x: &mut Tracked, y: &mut Tracked) {
    // So that one more step stays within what `check` allows.
    if x.bound().max(y.bound()) > 0.003 * x.ct.scale().min(y.ct.scale()) {
        return;
    }
    let level = x.ct.level();
    let room = |factor: f64, x: &Tracked| {
        Tracked::<2>::fits(x.ct.level(), x.magnitude() * factor, x.ct.scale())
            && x.magnitude() * factor < 8.0
    };
    match step {
        Step::Swap => core::mem::swap(x, y),
        Step::Add | Step::Sub => {
            if meet(x, y) && room(1.0 + y.magnitude() / x.magnitude(), x) {
                x.add(y, if matches!(step, Step::Add) { 1.0 } else { -1.0 });
            }
        }
        Step::Negate => x.negate(),
        Step::AddPlain(plus) => {
            if room(1.0 + 1.0 / x.magnitude(), x) {
                x.add_plain(&lab.values(), if plus { 1.0 } else { -1.0 });
            }
        }
        Step::AddConstant(a, b) => {
            if room(1.0 + 1.5 / x.magnitude(), x) {
                x.add_constant([a, b]);
            }
        }
        Step::MultiplyConstant(a, b) => {
            if level > 0 && room(SCALE * 1.5, x) {
                x.multiply_constant([a, b], SCALE);
                x.rescale();
            }
        }
        Step::MultiplyInteger(k) => {
            if k != 0 && room(f64::from(k).abs(), x) {
                let before = x.bound();
                x.multiply_constant([f64::from(k), 0.0], 1.0);
                // Integers are not rounded.
                assert_eq!(x.bound(), before * f64::from(k).abs());
            }
        }
        Step::MultiplyPlain => {
            if level > 0 && Tracked::<2>::fits(level, x.magnitude() * SCALE, x.ct.scale()) {
                x.multiply_plain(&lab.values(), SCALE);
                x.rescale();
            }
        }
        Step::Multiply => {
            if meet(x, y) && product_fits(x, y) {
                let product = x.copy().tensor(y);
                *x = product.relinearize(lab);
                x.rescale();
            }
        }
        Step::Square => {
            if product_fits(x, x) {
                *x = x.copy().square().relinearize(lab);
                x.rescale();
            }
        }
        Step::Rotate(steps) => x.rotate(lab, steps),
        Step::Conjugate => x.conjugate(lab),
        Step::InnerSum(stride, log) => {
            let count = 1 << log;
            if room(f64::from(count), x) && x.summed(count as usize) < 0.01 * x.ct.scale() {
                x.inner_sum(lab, stride, count as usize);
            }
        }
        Step::DropLevel => {
            if level > 0 && Tracked::<2>::fits(level - 1, x.magnitude(), x.ct.scale()) {
                x.drop_level(level - 1);
            }
        }
        Step::Align(by) => {
            let target = x.ct.scale() * by;
            let in_range = (2f64.powi(24)..2f64.powi(27)).contains(&target);
            if level > 0 && in_range && Tracked::<2>::fits(level - 1, x.magnitude(), target) {
                x.align(target);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn programs_compute_what_they_say(
        seed: u64,
        levels in (0..=4usize, 0..=4usize),
        public: [bool; 2],
        steps in proptest::collection::vec(step(), 1..16),
    ) {
        let mut lab = Lab::new(seed);
        let mut x = lab.encrypt(levels.0, public[0]);
        let mut y = lab.encrypt(levels.1, public[1]);
        lab.check(&x);
        for step in steps {
            run(&mut lab, step, &mut x, &mut y);
            lab.check(&x);
            lab.check(&y);
        }
    }

    #[test]
    fn products_of_three_parts_add_rescale_and_decrypt(
        seed: u64,
        level in 1..=4usize,
        public: bool,
        c in (-1.0..1.0f64, -1.0..1.0f64),
    ) {
        let mut lab = Lab::new(seed);
        let (x, y) = (lab.encrypt(level, public), lab.encrypt(level, !public));
        let square = x.copy().square();
        lab.check(&square);
        let mut product = x.tensor(&y);
        lab.check(&product);
        product.add(&square, -1.0);
        product.add_constant([c.0, c.1]);
        product.negate();
        lab.check(&product);
        // Two parts at the same scale join.
        let mut linear = y.copy();
        linear.multiply_plain(&lab.values(), SCALE);
        product.add(&linear, 1.0);
        lab.check(&product);
        if level > 1 {
            product.add_plain(&lab.values(), 1.0);
            lab.check(&product);
        }
        let mut two = Tracked {
            ct: Ciphertext::from_parts(
                &P,
                product.ct.level(),
                product.ct.scale(),
                product.ct.parts().map(<[u32]>::to_vec),
            )
            .unwrap()
            .with_noise(product.ct.noise(), product.ct.message()),
            values: product.values.clone(),
        }
        .relinearize(&lab);
        two.rescale();
        two.rotate(&lab, 7);
        lab.check(&two);
        if level > 1 {
            two.multiply_constant([c.1, c.0], SCALE);
            two.rescale();
            lab.check(&two);
            product.drop_level(1);
            lab.check(&product);
        }
    }

    #[test]
    fn operands_that_differ_are_named(seed: u64, levels in (0..=4usize, 0..=4usize)) {
        let mut lab = Lab::new(seed);
        let (mut x, y) = (lab.encrypt(levels.0, false), lab.encrypt(levels.1, false));
        let plain = plaintext(&y.values, SCALE, levels.1);
        let wrong = |operation| Err(Error::Level { operation, expected: levels.0, got: levels.1 });
        if levels.0 != levels.1 {
            prop_assert_eq!(add(&P, &mut x.ct, &y.ct), wrong("addition"));
            prop_assert_eq!(sub(&P, &mut x.ct, &y.ct), wrong("subtraction"));
            prop_assert_eq!(add_plain(&P, &mut x.ct, &plain), wrong("addition"));
            prop_assert_eq!(sub_plain(&P, &mut x.ct, &plain), wrong("subtraction"));
            prop_assert_eq!(multiply_plain(&P, &mut x.ct, &plain), wrong("multiplication"));
            let product = multiply(&P, x.copy().ct, &y.ct, vec![0; (levels.0 + 1) * N]);
            prop_assert_eq!(product.map(|_| ()), wrong("multiplication"));
        } else {
            let short = multiply(&P, x.copy().ct, &y.ct, vec![0; (levels.0 + 1) * N - 1]);
            let length = matches!(short, Err(Error::Length { .. }));
            prop_assert!(length);
        }
        // Nothing has changed.
        lab.check(&x);
        let mut half = y.copy();
        half.multiply_constant([1.0, 0.0], 0.5 * SCALE);
        let (scale, half_scale) = (SCALE, half.ct.scale());
        x.drop_level(levels.0.min(levels.1));
        half.drop_level(levels.0.min(levels.1));
        let wrong = |operation, got| Err(Error::Scale { operation, expected: scale, got });
        prop_assert_eq!(add(&P, &mut x.ct, &half.ct), wrong("addition", half_scale));
        let one = Constant::real(1.0, 3.0).unwrap();
        prop_assert_eq!(add_constant(&P, &mut x.ct, &one), wrong("addition", 3.0));
        let above = x.ct.level() + 1;
        prop_assert_eq!(
            drop_level(&P, &mut x.ct, above),
            Err(Error::Level { operation: "level drop", expected: above, got: above - 1 })
        );
        lab.check(&x);
    }
}

#[test]
fn keys_serve_lower_levels_and_may_keep_their_uniform_half() {
    let mut lab = Lab::new(3);
    for level in 0..=TOP {
        let x = lab.encrypt(level, false);
        let g = rotation(N, 3);
        let op = SwitchOp::RotateAdd(g);
        for key_level in 0..=TOP {
            let target = SwitchTarget::Galois(g);
            let key = switching(&lab.key, target, key_level, &mut lab.rng);
            let mut y = x.copy();
            let done = with_workspace(level, |work| switch(&P, op, &mut y.ct, &key, work));
            if key_level < level {
                assert_eq!(done, Err(Error::Key { target, level }));
                lab.check(&y);
                continue;
            }
            done.unwrap();
            y.add_values(3);
            assert!((y.bound() / x.summed(2) - 1.0).abs() < 1e-12);
            lab.check(&y);
            // From its parts, and with both halves: the same bits.
            let words = switching_key_words(&P, key_level);
            let (seed, b) = (*key.seed(), key.b().to_vec());
            let again = SwitchKey::from_parts(&P, target, key_level, seed, b)
                .unwrap()
                .expanded(&P, vec![0; words])
                .unwrap();
            let mut z = x.copy();
            with_workspace(level, |work| switch(&P, op, &mut z.ct, &again, work)).unwrap();
            assert_eq!(y.ct.halves(), z.ct.halves());
            // With room for all digits of a prime at a time: the same, and as much
            // is known of the noise.
            let mut words = vec![0; fast_workspace_words(&P, level)];
            let mut work = Workspace::new(&P, level, &mut words).unwrap();
            let mut w = x.copy();
            switch(&P, op, &mut w.ct, &again, &mut work).unwrap();
            assert_eq!(y.ct.halves(), w.ct.halves());
            assert_eq!(y.ct.noise(), w.ct.noise());
        }
    }
}

#[test]
fn missing_keys_parts_and_room_are_named_before_anything_changes() {
    let mut lab = Lab::new(4);
    let mut x = lab.encrypt(3, false);
    let before = x.ct.halves().0.to_vec();
    // 5 = 4 + 1, of which the key of 4 is missing.
    let kept: Vec<_> = [SwitchTarget::Square, SwitchTarget::Galois(rotation(N, 1))]
        .map(|target| switching(&lab.key, target, 3, &mut lab.rng))
        .into();
    let target = SwitchTarget::Galois(rotation(N, 4));
    let missing = Err(Error::Key { target, level: 3 });
    let few = KeySet::new(&kept);
    with_workspace(3, |work| {
        assert_eq!(rotate(&P, &mut x.ct, 5, few, work), missing);
        assert_eq!(
            inner_sum(&P, &mut x.ct, 1, 8, few, work),
            Err(Error::Key {
                target: SwitchTarget::Galois(rotation(N, 2)),
                level: 3
            })
        );
        let length = |expected, got| {
            Err(Error::Length {
                what: "inner sum",
                expected,
                got,
            })
        };
        assert_eq!(inner_sum(&P, &mut x.ct, 1, 3, few, work), length(4, 3));
        assert_eq!(inner_sum(&P, &mut x.ct, 1, 64, few, work), length(32, 64));
        let target = conjugation(&P);
        assert_eq!(
            conjugate(&P, &mut x.ct, few, work),
            Err(Error::Key { target, level: 3 })
        );
        let relinearise = SwitchOp::Relinearize;
        assert_eq!(
            switch(&P, relinearise, &mut x.ct, &kept[0], work),
            Err(Error::Parts {
                operation: "relinearisation",
                expected: 3,
                got: 2
            })
        );
    });
    let short = with_workspace(2, |work| rotate(&P, &mut x.ct, 1, few, work));
    assert!(matches!(short, Err(Error::Length { .. })));
    assert_eq!(x.ct.halves().0, before);
    lab.check(&x);
    // A third part that still holds something is not dropped.
    let product = x.square();
    assert!(matches!(
        product.ct.into_two_parts(),
        Err(Error::Parts { .. })
    ));
    // What is no residue is no key.
    let mut b = kept[0].b().to_vec();
    let q = P.prime(1).unwrap().modulus().value();
    b[N + 9] = q;
    assert_eq!(
        SwitchKey::from_parts(&P, SwitchTarget::Square, 3, [0; SEED_LEN], b).unwrap_err(),
        Error::Residue { limb: 1, index: 9 }
    );
    let mut b = lab.public.b().to_vec();
    assert!(PublicKey::from_parts(&P, *lab.public.seed(), b.clone()).is_ok());
    b[5 * N] = P.prime(5).unwrap().modulus().value();
    assert_eq!(
        PublicKey::from_parts(&P, *lab.public.seed(), b).unwrap_err(),
        Error::Residue { limb: 5, index: 0 }
    );
}

#[test]
fn a_scale_that_cannot_be_reached_is_refused() {
    let mut lab = Lab::new(1);
    let mut x = lab.encrypt(1, true);
    // The constant would be 2^-1.
    let q = f64::from(P.prime(1).unwrap().modulus().value());
    let least = SCALE / q;
    assert_eq!(
        align_scale(&P, &mut x.ct, least / 2.0, &mut [0; N]),
        Err(Error::Scale {
            operation: "scale alignment",
            expected: least,
            got: least / 2.0
        })
    );
    x.drop_level(0);
    assert!(matches!(
        align_scale(&P, &mut x.ct, SCALE, &mut [0; N]),
        Err(Error::Level { .. })
    ));
    lab.check(&x);
}

#[test]
fn fresh_noise_has_its_standard_deviation() {
    // Of the two components of a slot's error together, over many encryptions;
    // the standard error of 6,400 such squares is 1.3 %.
    let mut lab = Lab::new(2);
    for publicly in [false, true] {
        let (mut square, mut sigma) = (0.0, 0.0);
        for _ in 0..200 {
            let x = lab.encrypt(2, publicly);
            let (mut scratch, mut slots) = (vec![0; 3 * N], vec![0.0; N]);
            let d = decrypt(&P, &lab.key, &x.ct, 2, SCALE, &mut scratch, &mut slots).unwrap();
            for (i, v) in x.values.iter().enumerate() {
                let (re, im) = (d.slot(i).unwrap() - v[0], d.imaginary(i).unwrap() - v[1]);
                square += (re * re + im * im) * SCALE * SCALE;
            }
            sigma = x.ct.noise().sigma;
        }
        let ratio = (square / (200.0 * SLOTS as f64)).sqrt() / sigma;
        assert!((ratio - 1.0).abs() < 0.05, "public key {publicly}: {ratio}");
    }
}
