//! Measured precision of every operation under every named set, beside what the
//! ciphertexts carry of their noise, against the committed table.
//!
//! `HE_EDGE_UPDATE_PRECISION=1` writes the table anew.

use std::fmt::Write as _;
use std::path::PathBuf;

use chacha20::ChaCha20Rng;
use he_core::ckks::encode::encode_complex;
use he_core::ckks::evaluator::*;
use he_core::ckks::{Ciphertext, Constant, Message, Noise, Plaintext, decrypt};
use he_core::params::{Params, SETS};
use he_core::ring::automorphism::rotation;
use he_core::rlwe::keys::{conjugation, switching_key_words};
use he_core::rlwe::{
    self, Coefficient, CompactKey, Encryption, KeySet, PublicKey, PublicScratch, SecretKey,
    SwitchKey, SwitchTarget, encrypt_public,
};
use rand_core::{Rng, SeedableRng};

/// How a set is used, as its documentation has it: log2 of the scale at which inputs
/// are encrypted, and how many primes a rescaling takes.
fn usage(params: &Params) -> (f64, usize) {
    match params.name() {
        "N2048_DEPTH1" => (16.8, 1),
        "N4096_DEPTH3" | "N8192_DEPTH5_192" => (20.0, 1),
        "N8192_DEPTH3_256" => (21.0, 1),
        "N16384_DEPTH14" => (23.0, 1),
        "N8192_DEPTH5" | "N16384_DEPTH9_192" => (24.0, 1),
        "N8192_DEPTH6" => (25.0, 1),
        "N16384_DEPTH5_256" => (26.0, 1),
        "N8192_SCALE40" => (40.0, 2),
        other => panic!("no scale is known for {other}"),
    }
}

/// Keys and inputs that each operation is measured with.
const RUNS: u64 = 3;

/// Bits by which a figure may differ from the table's: floating point is not the
/// same to the last bit with every kernel.
const TOLERANCE: f64 = 0.02;

/// A measured standard deviation lies within this factor of the one carried, on
/// either side.
const FACTOR: f64 = 1.3;

const HEADER: &str = "set,operation,level,log2_scale,log2_largest_error,\
                      log2_standard_deviation,log2_carried_sigma,log2_carried_bound";

/// Degree 3, the sigmoid of Xiang, Dalla, Wu; degree 7, dense.
const CUBIC: [f64; 4] = [0.5, 0.197, 0.0, -0.004];
const SEPTIC: [f64; 8] = [0.25, 0.5, -0.125, 0.25, 0.0625, -0.125, 0.03125, 0.0625];

type Complex = [f64; 2];
type Ct<const PARTS: usize = 2> = Ciphertext<Vec<u32>, PARTS>;
type Key = SwitchKey<Vec<u32>>;

fn times(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

fn plus(a: Complex, b: Complex) -> Complex {
    [a[0] + b[0], a[1] + b[1]]
}

fn each(values: &[Complex], f: impl Fn(usize, Complex) -> Complex) -> Vec<Complex> {
    values.iter().enumerate().map(|(i, &v)| f(i, v)).collect()
}

fn horner(coefficients: &[f64], x: Complex) -> Complex {
    let terms = coefficients.iter().rev();
    terms.fold([0.0; 2], |sum, &c| plus(times(sum, x), [c, 0.0]))
}

/// What an operation came to over all runs.
struct Row {
    operation: &'static str,
    level: usize,
    scale: f64,
    /// In units of the slots: largest error and sum of squares.
    largest: f64,
    squares: f64,
    count: usize,
    carried: Noise,
}

impl Row {
    fn deviation(&self) -> f64 {
        (self.squares / self.count as f64).sqrt()
    }

    fn line(&self, set: &str) -> String {
        let log2 = |x: f64| format!("{:.3}", x.log2());
        format!(
            "{set},{},{},{},{},{},{},{}",
            self.operation,
            self.level,
            log2(self.scale),
            log2(self.largest),
            log2(self.deviation()),
            log2(self.carried.sigma),
            log2(self.carried.bound)
        )
    }
}

/// With coefficients of 32 or 64 bits.
struct Lab<C> {
    params: &'static Params,
    scale: f64,
    /// Primes that a rescaling takes.
    primes: usize,
    to_integer: fn(f64) -> C,
    rng: ChaCha20Rng,
    secret: SecretKey<Vec<u32>>,
    public: PublicKey<Vec<u32>>,
    keys: Vec<Key>,
}

impl<C: Coefficient> Lab<C> {
    fn new(params: &'static Params, to_integer: fn(f64) -> C, run: u64) -> Self {
        let (log_scale, primes) = usage(params);
        let mut rng = ChaCha20Rng::seed_from_u64(run);
        let words = SecretKey::<Vec<u32>>::words(params);
        let secret = SecretKey::generate(params, vec![0; words], &mut rng).unwrap();
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let (mut errors, storage) = (
            vec![0; params.n()],
            vec![0; PublicKey::<Vec<u32>>::words(params)],
        );
        let public =
            PublicKey::generate(params, &secret, &seed, &mut rng, &mut errors, storage).unwrap();
        let rotations = [1, 2, 3, 4].map(|k| SwitchTarget::Galois(rotation(params.n(), k)));
        let keys = [SwitchTarget::Square, conjugation(params)]
            .into_iter()
            .chain(rotations)
            .map(|target| {
                let level = params.max_level();
                let storage = vec![0; switching_key_words(params, level)];
                let e = &mut errors;
                SwitchKey::generate(params, &secret, target, level, &mut rng, e, storage).unwrap()
            })
            .collect();
        Self {
            params,
            scale: log_scale.exp2(),
            primes,
            to_integer,
            rng,
            secret,
            public,
            keys,
        }
    }

    /// Uniform in the unit disc, so that the root mean square is `sqrt(1/2)`.
    fn values(&mut self) -> Vec<Complex> {
        let mut unit = || f64::from(self.rng.next_u32()) / 2f64.powi(32);
        (0..self.params.slots())
            .map(|_| {
                let (r, angle) = (unit().sqrt(), unit() * std::f64::consts::TAU);
                [r * angle.cos(), r * angle.sin()]
            })
            .collect()
    }

    fn coefficients(&self, values: &[Complex]) -> Vec<C> {
        let n = self.params.n();
        let (re, im): (Vec<f64>, Vec<f64>) = values.iter().map(|&[re, im]| (re, im)).unzip();
        let (mut buffer, mut integers) = (vec![0.0; n], vec![C::default(); n]);
        let (scale, to_integer) = (self.scale, self.to_integer);
        encode_complex(&re, &im, scale, &mut buffer, &mut integers, to_integer).unwrap();
        integers
    }

    fn limbs(&self) -> Vec<u32> {
        vec![0; self.params.data_limbs() * self.params.n()]
    }

    fn level(&self) -> usize {
        self.params.max_level()
    }

    fn ciphertext(&self, c0: Vec<u32>, c1: Vec<u32>, noise: Noise) -> Ct {
        Ciphertext::new(self.params, self.level(), self.scale, c0, c1)
            .unwrap()
            .with_noise(noise, UNIT)
    }

    fn encrypt(&mut self, values: &[Complex]) -> Ct {
        let (mut message, mut c0, mut c1) = (self.coefficients(values), self.limbs(), self.limbs());
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let (p, level) = (self.params, self.level());
        let (secret, rng) = (&self.secret, &mut self.rng);
        rlwe::encrypt_with_seed(p, secret, &mut message, level, &seed, rng, &mut c0).unwrap();
        rlwe::expand_c1(p, &seed, &mut c1).unwrap();
        self.ciphertext(c0, c1, Noise::fresh(p))
    }

    fn encrypt_public(&mut self, values: &[Complex]) -> Ct {
        let p = self.params;
        let (message, mut c0, mut c1) = (self.coefficients(values), self.limbs(), self.limbs());
        let (mut integers, mut limbs) = (vec![0; 3 * p.n()], vec![0; PublicScratch::words(p)]);
        let scratch = PublicScratch {
            integers: &mut integers,
            limbs: &mut limbs,
        };
        let (level, rng) = (p.max_level(), &mut self.rng);
        let halves = [&mut c0[..], &mut c1[..]];
        encrypt_public(p, &self.public, &message, level, rng, scratch, halves).unwrap();
        self.ciphertext(c0, c1, Noise::fresh_public(p).unwrap())
    }

    /// By the device's code, with a key of its own: the secret of that key is
    /// this one's, as both are drawn from the same generator.
    fn encrypt_compact(&mut self, values: &[Complex], run: u64) -> Ct {
        let (p, n) = (self.params, self.params.n());
        let mut same = ChaCha20Rng::seed_from_u64(run);
        let bytes = CompactKey::<Vec<u8>>::bytes(p);
        let key = CompactKey::generate(p, vec![0; bytes], &mut same).unwrap();
        let (mut message, mut scratch) = (self.coefficients(values), vec![0; n]);
        let (mut c0, mut c1) = (self.limbs(), self.limbs());
        let mut run = Encryption::start(p, &mut message, &mut scratch, &mut self.rng).unwrap();
        for (i, limb) in c0.chunks_exact_mut(n).enumerate() {
            run.limb(&key, i, limb).unwrap();
        }
        rlwe::expand_c1(p, run.seed(), &mut c1).unwrap();
        drop(run);
        self.ciphertext(c0, c1, Noise::fresh(p))
    }

    fn plain(&self, values: &[Complex]) -> Plaintext<Vec<u32>> {
        let c = self.coefficients(values);
        Plaintext::new(self.params, &c, self.level(), self.scale, self.limbs())
            .unwrap()
            .with_noise(Noise::rounding(self.params), UNIT)
    }

    fn keys(&self) -> KeySet<'_, Vec<u32>> {
        KeySet::new(&self.keys)
    }

    fn with<R>(&self, f: impl FnOnce(&mut Workspace<'_>) -> R) -> R {
        let mut words = vec![0; workspace_words(self.params, self.level())];
        f(&mut Workspace::new(self.params, self.level(), &mut words).unwrap())
    }

    fn relinearize(&self, ct: Ct<3>) -> Ct {
        let key = self.keys().find(SwitchTarget::Square, ct.level()).unwrap();
        self.with(|work| relinearize(self.params, ct, key, work))
            .unwrap()
            .0
    }

    /// By as many primes as the scale has.
    fn rescale(&self, ct: &mut Ct) {
        for _ in 0..self.primes {
            rescale(self.params, ct, &mut vec![0; self.params.n()]).unwrap();
        }
    }
}

/// Of [`Lab::values`].
const UNIT: Message = Message {
    bound: 1.0,
    rms: std::f64::consts::FRAC_1_SQRT_2,
};

/// The rows of one set.
struct Table {
    rows: Vec<Row>,
}

impl Table {
    fn add<C: Coefficient, const PARTS: usize>(
        &mut self,
        lab: &Lab<C>,
        operation: &'static str,
        ct: &Ct<PARTS>,
        values: &[Complex],
    ) {
        let (p, level, scale) = (lab.params, ct.level(), ct.scale());
        let (mut scratch, mut slots) = (vec![0; (level + 1) * p.n()], vec![0.0; p.n()]);
        let d = decrypt(p, &lab.secret, ct, level, scale, &mut scratch, &mut slots).unwrap();
        assert!(d.fill() < 0.5, "{operation}: the values are too large");
        let errors = values.iter().enumerate().map(|(i, v)| {
            let (re, im) = (d.slot(i).unwrap(), d.imaginary(i).unwrap());
            (re - v[0]).hypot(im - v[1])
        });
        let (largest, squares) = errors.fold((0.0f64, 0.0), |(largest, squares), e| {
            (largest.max(e), squares + e * e)
        });
        assert!(
            largest <= d.noise().bound,
            "{operation}: an error of {largest:e} above the bound {:e}",
            d.noise().bound
        );
        let size = values.iter().map(|v| v[0].hypot(v[1])).fold(0.0, f64::max);
        assert!(size <= ct.message().bound * (1.0 + 1e-9), "{operation}");
        if !self.rows.iter().any(|row| row.operation == operation) {
            self.rows.push(Row {
                operation,
                level,
                scale,
                largest: 0.0,
                squares: 0.0,
                count: 0,
                carried: d.noise(),
            });
        }
        let row = self.rows.iter_mut().find(|row| row.operation == operation);
        let row = row.unwrap();
        assert_eq!(
            (row.level, row.scale, row.carried),
            (level, scale, d.noise())
        );
        row.largest = row.largest.max(largest);
        row.squares += squares;
        row.count += values.len();
    }

    /// One run over all operations that the set has levels for.
    fn measure<C: Coefficient>(&mut self, mut lab: Lab<C>, run: u64) {
        let (p, n, level, scale) = (lab.params, lab.params.n(), lab.level(), lab.scale);
        let (v, w) = (lab.values(), lab.values());
        let (x, y) = (lab.encrypt(&v), lab.encrypt_public(&w));
        self.add(&lab, "encrypt_secret", &x, &v);
        self.add(&lab, "encrypt_public", &y, &w);
        let compact = lab.encrypt_compact(&v, run);
        self.add(&lab, "encrypt_compact", &compact, &v);
        let copy = |ct: &Ct| {
            let [c0, c1] = ct.parts().map(<[u32]>::to_vec);
            let copy = Ciphertext::new(p, ct.level(), ct.scale(), c0, c1).unwrap();
            copy.with_noise(ct.noise(), ct.message())
        };

        let mut sum = copy(&x);
        add(p, &mut sum, &y).unwrap();
        self.add(&lab, "add", &sum, &each(&v, |i, v| plus(v, w[i])));
        let mut difference = copy(&x);
        sub(p, &mut difference, &y).unwrap();
        let minus = |a: Complex, b: Complex| [a[0] - b[0], a[1] - b[1]];
        let expected = each(&v, |i, v| minus(v, w[i]));
        self.add(&lab, "sub", &difference, &expected);
        let mut ct = copy(&x);
        negate(p, &mut ct).unwrap();
        self.add(&lab, "negate", &ct, &each(&v, |_, v| minus([0.0; 2], v)));
        let mut ct = copy(&x);
        drop_level(p, &mut ct, level - 1).unwrap();
        self.add(&lab, "drop_level", &ct, &v);
        let mut sum = copy(&x);
        add_plain(p, &mut sum, &lab.plain(&w)).unwrap();
        self.add(&lab, "add_plain", &sum, &each(&v, |i, v| plus(v, w[i])));
        let mut difference = copy(&x);
        sub_plain(p, &mut difference, &lab.plain(&w)).unwrap();
        self.add(&lab, "sub_plain", &difference, &expected);
        let c = [0.3, -0.4];
        let mut sum = copy(&x);
        add_constant(p, &mut sum, &Constant::complex(c[0], c[1], scale).unwrap()).unwrap();
        self.add(&lab, "add_constant", &sum, &each(&v, |_, v| plus(v, c)));

        let mut product = copy(&x);
        let constant = Constant::complex(c[0], c[1], scale).unwrap();
        multiply_constant(p, &mut product, &constant).unwrap();
        let expected = each(&v, |_, v| times(v, c));
        self.add(&lab, "multiply_constant", &product, &expected);
        let expected = each(&v, |i, v| times(v, w[i]));
        let mut product = copy(&x);
        multiply_plain(p, &mut product, &lab.plain(&w)).unwrap();
        self.add(&lab, "multiply_plain", &product, &expected);
        let mut sum = copy(&product);
        multiply_plain_add(p, &mut sum, &y, &lab.plain(&v)).unwrap();
        let twice = each(&expected, |_, v| plus(v, v));
        self.add(&lab, "multiply_plain_add", &sum, &twice);
        lab.rescale(&mut product);
        self.add(&lab, "multiply_plain_rescale", &product, &expected);
        let mut ct = copy(&x);
        align_scale(p, &mut ct, 1.1 * scale, &mut vec![0; n]).unwrap();
        self.add(&lab, "align_scale", &ct, &v);
        let product = multiply(p, copy(&x), &y, lab.limbs()).unwrap();
        self.add(&lab, "multiply", &product, &expected);
        let mut product = lab.relinearize(product);
        self.add(&lab, "multiply_relinearize", &product, &expected);
        lab.rescale(&mut product);
        self.add(&lab, "multiply_relinearize_rescale", &product, &expected);
        let expected = each(&v, |_, v| times(v, v));
        let product = square(p, copy(&x), lab.limbs()).unwrap();
        self.add(&lab, "square", &product, &expected);
        let mut product = copy(&x);
        let key = lab.keys().find(SwitchTarget::Square, level).unwrap();
        lab.with(|work| switch(p, SwitchOp::Square, &mut product, key, work))
            .unwrap();
        self.add(&lab, "square_relinearize", &product, &expected);

        let turned = |k: usize| each(&v, |i, _| v[(i + k) & (v.len() - 1)]);
        let mut ct = copy(&x);
        lab.with(|work| rotate(p, &mut ct, 1, lab.keys(), work))
            .unwrap();
        self.add(&lab, "rotate", &ct, &turned(1));
        let mut ct = copy(&x);
        lab.with(|work| conjugate(p, &mut ct, lab.keys(), work))
            .unwrap();
        self.add(&lab, "conjugate", &ct, &each(&v, |_, v| [v[0], -v[1]]));
        let sums = |steps: &[usize]| {
            each(&v, |i, _| {
                let terms = steps.iter().map(|k| v[(i + k) & (v.len() - 1)]);
                terms.fold([0.0; 2], plus)
            })
        };
        let eight: Vec<usize> = (0..8).collect();
        let mut ct = copy(&x);
        lab.with(|work| inner_sum(p, &mut ct, 1, 8, lab.keys(), work))
            .unwrap();
        self.add(&lab, "inner_sum_8", &ct, &sums(&eight));
        // As the networks do: before the rescaling.
        let mut ct = copy(&x);
        multiply_plain(p, &mut ct, &lab.plain(&w)).unwrap();
        lab.with(|work| inner_sum(p, &mut ct, 1, 8, lab.keys(), work))
            .unwrap();
        lab.rescale(&mut ct);
        let products = each(&v, |i, v| times(v, w[i]));
        let expected = each(&v, |i, _| {
            (0..8).fold([0.0; 2], |sum, k| {
                plus(sum, products[(i + k) & (v.len() - 1)])
            })
        });
        self.add(&lab, "multiply_plain_inner_sum_8_rescale", &ct, &expected);
        let mut words = vec![0; hoisting_words(p, level)];
        let mut ct = copy(&x);
        inner_sum_hoisted(p, &mut ct, 1, 8, lab.keys(), &mut words).unwrap();
        self.add(&lab, "inner_sum_hoisted_8", &ct, &sums(&eight));
        let mut hoisted = Hoisted::new(p, &x, &mut words).unwrap();
        let mut out = Ciphertext::zero(p, level, scale, lab.limbs(), lab.limbs()).unwrap();
        hoisted.rotate(p, 2, lab.keys(), &mut out).unwrap();
        self.add(&lab, "hoisted_rotate", &out, &turned(2));
        hoisted.conjugate(p, lab.keys(), &mut out).unwrap();
        let conjugates = each(&v, |_, v| [v[0], -v[1]]);
        self.add(&lab, "hoisted_conjugate", &out, &conjugates);
        hoisted.sum(p, &[0, 1, 2, 4], lab.keys(), &mut out).unwrap();
        self.add(&lab, "hoisted_sum_4", &out, &sums(&[0, 1, 2, 4]));
        let weights = [v.clone(), w.clone()];
        let encoded = weights.each_ref().map(|w| {
            let storage = vec![0; Weight::<Vec<u32>>::words(p, level)];
            Weight::new(p, &lab.coefficients(w), level, scale, storage)
                .unwrap()
                .with_noise(Noise::rounding(p), UNIT)
        });
        let steps = [1, 3];
        hoisted
            .weighted_sum(p, &steps, &encoded, lab.keys(), &mut out)
            .unwrap();
        let expected = each(&v, |i, _| {
            let at = |k: usize| v[(i + k) & (v.len() - 1)];
            plus(times(at(1), weights[0][i]), times(at(3), weights[1][i]))
        });
        self.add(&lab, "hoisted_weighted_sum_2", &out, &expected);

        for (name, coefficients) in [
            ("polynomial_degree_3", &CUBIC[..]),
            ("polynomial_degree_7", &SEPTIC[..]),
        ] {
            let degree = coefficients.len() - 1;
            // Every level of a polynomial is one prime.
            if lab.primes > 1 || level < polynomial_levels(degree) {
                continue;
            }
            let mut ct = copy(&x);
            let mut words = vec![0; polynomial_words(p, level, degree)];
            let key = lab.keys().find(SwitchTarget::Square, level).unwrap();
            lab.with(|work| {
                evaluate_polynomial(p, &mut ct, coefficients, scale, key, &mut words, work)
            })
            .unwrap();
            self.add(&lab, name, &ct, &each(&v, |_, v| horner(coefficients, v)));
        }

        // A product at every level, with what is fresh.
        let (mut ct, mut expected) = (copy(&x), v.clone());
        while ct.level() >= lab.primes {
            let values = lab.values();
            let mut fresh = lab.encrypt(&values);
            drop_level(p, &mut fresh, ct.level()).unwrap();
            let third = vec![0; (ct.level() + 1) * n];
            ct = lab.relinearize(multiply(p, ct, &fresh, third).unwrap());
            lab.rescale(&mut ct);
            expected = each(&expected, |i, v| times(v, values[i]));
        }
        self.add(&lab, "products_to_the_base", &ct, &expected);

        // Sums of what was encrypted apart, so that errors are independent.
        let (other, another) = (lab.encrypt(&w), lab.encrypt(&v));
        let mut sum = multiply(p, copy(&x), &y, lab.limbs()).unwrap();
        multiply_add(p, &mut sum, &other, &another).unwrap();
        let twice = each(&v, |i, v| times(plus(v, v), w[i]));
        self.add(&lab, "multiply_add", &sum, &twice);
        let (mut sum, mut halves) = (copy(&x), vec![0; integer_matrix_halves(2)]);
        let outputs = std::slice::from_mut(&mut sum);
        integer_matrix(p, &[&x, &other], &[3, -5], 0.125, outputs, &mut halves).unwrap();
        let weighted = |i: usize, v: Complex| [0, 1].map(|k| 0.375 * v[k] - 0.625 * w[i][k]);
        self.add(&lab, "integer_matrix", &sum, &each(&v, weighted));
        let outputs = std::slice::from_mut(&mut sum);
        let (terms, plain) = ([copy(&x), other], [lab.plain(&w), lab.plain(&v)]);
        plaintext_matrix(p, &terms, &plain, outputs).unwrap();
        self.add(&lab, "plaintext_matrix", &sum, &twice);
    }
}

fn table() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("precision.csv")
}

/// The fields of a line: set, operation and level, and the figures.
fn fields(line: &str) -> (String, Vec<f64>) {
    let fields: Vec<&str> = line.split(',').collect();
    let (names, figures) = fields.split_at(3);
    let figures = figures.iter().map(|x| x.parse().unwrap()).collect();
    (names.join(","), figures)
}

#[test]
fn every_operation_is_as_precise_as_the_table_says_and_as_it_carries() {
    let mut text = format!("{HEADER}\n");
    let mut off = Vec::new();
    for params in SETS {
        let mut table = Table { rows: Vec::new() };
        for run in 0..RUNS {
            if usage(params).0 < f64::from(i32::ENCODED_LOG2) {
                table.measure(Lab::new(params, |x| x as i32, run), run);
            } else {
                table.measure(Lab::new(params, |x| x as i64, run), run);
            }
        }
        for row in &table.rows {
            let line = row.line(params.name());
            let ratio = row.deviation() / row.carried.sigma;
            if !(1.0 / FACTOR..=FACTOR).contains(&ratio) {
                off.push(format!("{ratio:.3} of what is carried: {line}"));
            }
            writeln!(text, "{line}").unwrap();
        }
    }
    if std::env::var_os("HE_EDGE_UPDATE_PRECISION").is_some() {
        std::fs::write(table(), &text).unwrap();
    }
    assert!(off.is_empty(), "{}", off.join("\n"));

    let committed = std::fs::read_to_string(table()).unwrap();
    assert_eq!(committed.lines().next(), Some(HEADER));
    let names =
        |text: &str| -> Vec<String> { text.lines().skip(1).map(|line| fields(line).0).collect() };
    assert_eq!(names(&committed), names(&text), "the table has other rows");
    for (then, now) in committed.lines().zip(text.lines()).skip(1) {
        let (then_figures, now_figures) = (fields(then).1, fields(now).1);
        assert_eq!(then_figures.len(), now_figures.len(), "{then}");
        for (a, b) in then_figures.iter().zip(&now_figures) {
            assert!(
                a == b || (a - b).abs() <= TOLERANCE,
                "{then} has become {now}: if that is meant, write the table anew with \
                 HE_EDGE_UPDATE_PRECISION=1"
            );
        }
    }
}
