//! Key switching, rescaling and public-key encryption against their formulas over
//! the integers.
//!
//! What is checked here is computed apart: residues are taken out of the NTT domain
//! by an interpolation of its own, put together by the Chinese remainder theorem in
//! big integers, and multiplied modulo `X^N + 1` over the integers, by the
//! definition (in the full-size rings in one product of integers, which a test
//! compares with the definition). Results must be equal word for word.

use chacha20::ChaCha20Rng;
use he_core::ckks::evaluator::{
    Hoisted, SwitchOp, Workspace, fast_workspace_words, hoisting_words, rescale, switch,
    workspace_words,
};
use he_core::ckks::{Ciphertext, Noise};
use he_core::params::{N4096_DEPTH3, N8192_SCALE40, Params, Security};
use he_core::ring::automorphism::{conjugation, rotation};
use he_core::ring::sample::{self, Domain, SEED_LEN, Uniform};
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{
    KeyLimb, KeySet, PublicKey, PublicScratch, SecretKey, SwitchKey, SwitchTarget, encrypt_public,
};
use num_bigint::{BigInt, BigUint, Sign};
use rand_core::{Rng, SeedableRng};

he_core::parameter_set! {
    /// One prime per digit.
    static SINGLE = {
        n: 64, security: Security::Insecure,
        data: [1_073_739_649, 67_107_713, 12_289, 40_961, 67_104_769], special: 1_073_741_441
    };

    /// Two primes per digit, of different widths; the last digit has one.
    static PAIRS = {
        n: 64, security: Security::Insecure,
        data: [1_073_739_649, 67_107_713, 12_289, 40_961, 67_104_769],
        special: [1_073_741_441, 1_073_738_753]
    };

    /// Four primes per digit, the last digit has three; a special prime as narrow as
    /// the ring allows.
    static FOURS = {
        n: 64, security: Security::Insecure,
        data: [
            1_073_739_649, 67_107_713, 12_289, 40_961, 67_104_769, 67_107_457, 67_106_561,
        ],
        special: [1_073_741_441, 1_073_738_753, 7681, 1_073_736_449]
    };

    /// More special primes than a digit has: two digits of two primes, at level 2 one
    /// of two and one of one.
    static TWO_OF_THREE = {
        n: 64, security: Security::Insecure,
        data: [1_073_739_649, 67_107_713, 12_289, 67_104_769],
        special: [1_073_741_441, 7681, 1_073_738_753]
    };

    /// The same with digits of three primes and of two.
    static THREE_OF_FOUR = {
        n: 64, security: Security::Insecure,
        data: [1_073_739_649, 67_107_713, 12_289, 67_104_769, 40_961],
        special: [1_073_741_441, 7681, 1_073_738_753, 1_073_736_449]
    };
}

type Poly = Vec<BigInt>;

fn prime(params: &Params, i: usize) -> u64 {
    params.prime(i).unwrap().modulus().value().into()
}

fn power(mut base: u64, mut e: u64, q: u64) -> u64 {
    let mut x = 1;
    while e > 0 {
        if e & 1 == 1 {
            x = x * base % q;
        }
        base = base * base % q;
        e >>= 1;
    }
    x
}

fn inverse(x: u64, q: u64) -> u64 {
    power(x, q - 2, q)
}

/// Sum of `v_k w^(j k)` for every `j`.
fn dft(v: &[u64], w: u64, q: u64) -> Vec<u64> {
    if v.len() == 1 {
        return v.to_vec();
    }
    let half = |odd: usize| v.iter().copied().skip(odd).step_by(2).collect::<Vec<_>>();
    let square = w * w % q;
    let (even, odd) = (dft(&half(0), square, q), dft(&half(1), square, q));
    let mut x = 1;
    let mut out = vec![0; v.len()];
    for k in 0..even.len() {
        let t = odd[k] * x % q;
        out[k] = (even[k] + t) % q;
        out[k + even.len()] = (even[k] + q - t) % q;
        x = x * w % q;
    }
    out
}

/// Coefficients from values at the odd powers of the root, in bit-reversed order.
fn interpolate(limb: &[u32], q: u64) -> Vec<u64> {
    let n = limb.len() as u64;
    let psi = (2..q)
        .map(|base| power(base, (q - 1) / (2 * n), q))
        .find(|&psi| power(psi, n, q) == q - 1)
        .unwrap();
    let shift = 64 - n.trailing_zeros();
    let natural: Vec<u64> = (0..n)
        .map(|k| limb[(k.reverse_bits() >> shift) as usize].into())
        .collect();
    let back = inverse(psi, q);
    let mut factor = inverse(n, q);
    let mut coefficients = dft(&natural, back * back % q, q);
    for x in &mut coefficients {
        *x = *x * factor % q;
        factor = factor * back % q;
    }
    coefficients
}

/// Residues of one polynomial, coefficient domain, a limb for each of `primes`.
fn coefficients(params: &Params, limbs: &[u32], primes: &[usize]) -> Vec<Vec<u64>> {
    let limbs = limbs.chunks_exact(params.n()).zip(primes);
    limbs
        .map(|(limb, &i)| interpolate(limb, prime(params, i)))
        .collect()
}

fn modulus(params: &Params, primes: &[usize]) -> BigInt {
    primes
        .iter()
        .map(|&i| BigInt::from(prime(params, i)))
        .product()
}

fn centred(x: BigInt, q: &BigInt) -> BigInt {
    let x = ((x % q) + q) % q;
    if &x * 2 > *q { x - q } else { x }
}

fn residue(x: &BigInt, q: u64) -> u64 {
    let q = BigInt::from(q);
    u64::try_from(((x % &q) + &q) % q).unwrap()
}

/// The integers with these residues, modulo the product, centred.
fn reconstruct(params: &Params, residues: &[Vec<u64>], primes: &[usize]) -> Poly {
    let all = modulus(params, primes);
    let weights: Vec<BigInt> = primes
        .iter()
        .map(|&i| {
            let q = prime(params, i);
            let others = &all / q;
            let inv = inverse(residue(&others, q), q);
            others * inv
        })
        .collect();
    (0..params.n())
        .map(|c| {
            let sum = residues.iter().zip(&weights).map(|(x, w)| w * x[c]).sum();
            centred(sum, &all)
        })
        .collect()
}

fn polynomial(params: &Params, limbs: &[u32], primes: &[usize]) -> Poly {
    reconstruct(params, &coefficients(params, limbs, primes), primes)
}

/// The value with residues `x_i`, carried out of a group of primes: the sum of
/// `y_i D / q_i` with `y_i = x_i (D / q_i)^-1` centred modulo `q_i`.
fn carried(params: &Params, x: &[BigInt], primes: &[usize]) -> Poly {
    let d = modulus(params, primes);
    let mut out = vec![BigInt::ZERO; x.len()];
    for &i in primes {
        let q = prime(params, i);
        let others = &d / q;
        let inv = inverse(residue(&others, q), q);
        for (y, x) in out.iter_mut().zip(x) {
            let term = residue(x, q) * inv % q;
            *y += &others * centred(term.into(), &q.into());
        }
    }
    out
}

/// Product modulo `X^N + 1`, by the definition.
fn schoolbook(x: &[BigInt], y: &[BigInt]) -> Poly {
    let n = x.len();
    let mut out = vec![BigInt::ZERO; n];
    for (i, a) in x.iter().enumerate() {
        for (j, b) in y.iter().enumerate() {
            if i + j < n {
                out[i + j] += a * b;
            } else {
                out[i + j - n] -= a * b;
            }
        }
    }
    out
}

/// The same as one product of integers: the polynomials at a power of two
/// beyond every coefficient (Kronecker).
fn at_power(x: &[BigInt], y: &[BigInt]) -> Poly {
    let n = x.len();
    let bits = |p: &[BigInt]| p.iter().map(BigInt::bits).max().unwrap_or(0);
    let words = (bits(x) + bits(y) + u64::from(n.ilog2()) + 2).div_ceil(32) as usize;
    let pack = |p: &[BigInt]| -> BigInt {
        let part = |sign: Sign| {
            let mut all = vec![0; n * words];
            for (x, out) in p.iter().zip(all.chunks_exact_mut(words)) {
                if x.sign() == sign {
                    let digits = x.magnitude().to_u32_digits();
                    out[..digits.len()].copy_from_slice(&digits);
                }
            }
            BigInt::from(BigUint::new(all))
        };
        part(Sign::Plus) - part(Sign::Minus)
    };
    // Every digit made positive.
    let half = BigInt::from(1) << (32 * words - 1);
    let mut halves = vec![0u32; 2 * n * words];
    for digit in halves.chunks_exact_mut(words) {
        digit[words - 1] = 1 << 31;
    }
    let product = pack(x) * pack(y) + BigInt::from(BigUint::new(halves));
    let mut digits = product.magnitude().to_u32_digits();
    digits.resize(2 * n * words, 0);
    let terms: Vec<BigInt> = digits
        .chunks_exact(words)
        .map(|digit| BigInt::from(BigUint::from_slice(digit)) - &half)
        .collect();
    (0..n).map(|i| &terms[i] - &terms[i + n]).collect()
}

fn product(x: &[BigInt], y: &[BigInt]) -> Poly {
    if x.len() <= 64 {
        schoolbook(x, y)
    } else {
        at_power(x, y)
    }
}

/// `X -> X^g`.
fn automorphism(x: &[BigInt], g: u32) -> Poly {
    let n = x.len();
    let mut out = vec![BigInt::ZERO; n];
    for (i, x) in x.iter().enumerate() {
        let at = i * g as usize % (2 * n);
        if at < n {
            out[at] = x.clone();
        } else {
            out[at - n] = -x;
        }
    }
    out
}

fn sum(x: &[BigInt], y: &[BigInt]) -> Poly {
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

/// `(P x + k - r) / P`, with `k` modulo `Q P` and `r` carried out of its residues
/// modulo the special primes.
fn divided(params: &Params, x: &[BigInt], k: &[BigInt]) -> Poly {
    let special: Vec<usize> = (params.special()..params.limbs()).collect();
    let p = modulus(params, &special);
    let r = carried(params, k, &special);
    let primes = special.len();
    x.iter()
        .zip(k)
        .zip(&r)
        .map(|((x, k), r)| {
            // A rounding; to the nearest with one special prime.
            assert!(r.magnitude() * 2u32 <= p.magnitude() * primes);
            let rest = k - r;
            assert_eq!(&rest % &p, BigInt::ZERO);
            x + rest / &p
        })
        .collect()
}

struct Lab {
    params: &'static Params,
    rng: ChaCha20Rng,
    secret: Poly,
    key: SecretKey<Vec<u32>>,
}

type Key = SwitchKey<Vec<u32>>;

impl Lab {
    fn new(params: &'static Params) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(params.fingerprint().into());
        let ternary: Vec<i8> = (0..params.n())
            .map(|_| sample::ternary(&mut rng) as i8)
            .collect();
        let storage = vec![0; SecretKey::<Vec<u32>>::words(params)];
        Self {
            params,
            key: SecretKey::from_coefficients(params, storage, &ternary).unwrap(),
            rng,
            secret: ternary.into_iter().map(BigInt::from).collect(),
        }
    }

    fn switch_key(&mut self, target: SwitchTarget, expanded: bool) -> Key {
        let (params, level) = (self.params, self.params.max_level());
        let storage = || vec![0; switching_key_words(params, level)];
        let mut errors = vec![0; params.n()];
        let (key, rng) = (&self.key, &mut self.rng);
        let key =
            SwitchKey::generate(params, key, target, level, rng, &mut errors, storage()).unwrap();
        if expanded {
            key.expanded(params, storage()).unwrap()
        } else {
            key
        }
    }

    /// Uniform limbs `0 ..= level`.
    fn uniform(&mut self, level: usize) -> Vec<u32> {
        (0..=level)
            .flat_map(|i| {
                let q = prime(self.params, i);
                (0..self.params.n())
                    .map(|_| (self.rng.next_u64() % q) as u32)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// `sum of digit key` modulo `Q P`, centred: both halves of a key switch of `x`
    /// at `level`, before the division.
    fn gadget_product(&self, x: &[BigInt], key: &Key, level: usize) -> [Poly; 2] {
        let (params, n) = (self.params, self.params.n());
        let targets: Vec<usize> = (0..=level)
            .chain(params.special()..params.limbs())
            .collect();
        let all = modulus(params, &targets);
        // Of the whole chain: as few primes as leave the number of digits as it is.
        let digits = params.data_limbs().div_ceil(params.special_limbs());
        let size = params.data_limbs().div_ceil(digits);
        let mut k = [(); 2].map(|()| vec![BigInt::ZERO; n]);
        for digit in 0..(level + 1).div_ceil(size) {
            let group: Vec<usize> = (digit * size..((digit + 1) * size).min(level + 1)).collect();
            let value = carried(params, x, &group);
            let (mut b, mut a) = (vec![], vec![]);
            for &target in &targets {
                let at = KeyLimb { target, digit }
                    .index(params, key.level())
                    .unwrap();
                b.extend_from_slice(&key.b()[at * n..(at + 1) * n]);
                let m = params.prime(target).unwrap().modulus();
                let mut limb = vec![0; n];
                Uniform::new(
                    key.seed(),
                    sample::stream(key.target().domain(), digit, target),
                    m,
                )
                .fill(&mut limb);
                a.extend(limb);
            }
            for (k, half) in k.iter_mut().zip([b, a]) {
                let half = polynomial(params, &half, &targets);
                *k = sum(k, &product(&value, &half));
            }
        }
        k.map(|k| k.into_iter().map(|x| centred(x, &all)).collect())
    }

    fn check_words(&self, got: &[u32], expected: &[BigInt], level: usize, what: &str) {
        for (i, limb) in got.chunks_exact(self.params.n()).enumerate() {
            assert!(i <= level);
            let q = prime(self.params, i);
            let expected: Vec<u64> = expected.iter().map(|x| residue(x, q)).collect();
            assert!(interpolate(limb, q) == expected, "{what}, limb {i}");
        }
    }

    /// The largest coefficient of `sum of parts s^i - message` modulo `Q`.
    fn error(&self, parts: &[&[BigInt]], message: &[BigInt], level: usize) -> f64 {
        let q = modulus(self.params, &(0..=level).collect::<Vec<_>>());
        let mut value = vec![BigInt::ZERO; self.params.n()];
        for part in parts.iter().rev() {
            value = sum(&product(&value, &self.secret), part);
        }
        let errors = value
            .into_iter()
            .zip(message)
            .map(|(x, m)| centred(x - m, &q));
        let largest = errors.map(|e| e.magnitude().clone()).max().unwrap();
        largest.to_string().parse().unwrap()
    }

    /// Bounds of [`Noise`] are of slots, and no coefficient exceeds the largest slot.
    fn check_error(&self, error: f64, noise: Noise, what: &str) {
        let n = self.params.n() as f64;
        assert!(error > 0.0, "{what} is exact");
        assert!(error <= noise.bound, "{what}: {error} above {noise:?}");
        // A coefficient is a sum of thousands of terms, and the bound the worst of
        // each: the largest of N lies below 8 standard deviations.
        let sigma = noise.sigma / n.sqrt();
        assert!(error <= 8.0 * sigma, "{what}: {error} above 8 * {sigma}");
    }

    /// One operation at `level`, with its formula.
    fn check_switch(&mut self, op: SwitchOp, level: usize, expanded: bool) {
        let params = self.params;
        let what = format!("{op:?} at level {level} of {}", params.name());
        let key = self.switch_key(op.target(), expanded);
        let data: Vec<usize> = (0..=level).collect();
        let words = [(); 3].map(|()| self.uniform(level));
        let [c0, c1, c2] = words.each_ref().map(|c| polynomial(params, c, &data));
        let q = modulus(params, &data);
        let reduced = |x: Poly| -> Poly { x.into_iter().map(|x| centred(x, &q)).collect() };

        let (x0, x1, switched) = match op {
            SwitchOp::Rotate(g) => (
                automorphism(&c0, g),
                vec![BigInt::ZERO; params.n()],
                automorphism(&c1, g),
            ),
            SwitchOp::RotateAdd(g) => (
                sum(&c0, &automorphism(&c0, g)),
                c1.clone(),
                automorphism(&c1, g),
            ),
            SwitchOp::Square => (
                reduced(product(&c0, &c0)),
                reduced(product(&c0, &c1))
                    .into_iter()
                    .map(|x| x * 2)
                    .collect(),
                reduced(product(&c1, &c1)),
            ),
            SwitchOp::Relinearize => (c0, c1, c2),
        };
        let from = match op.target() {
            SwitchTarget::Square => product(&self.secret, &self.secret),
            SwitchTarget::Galois(g) => automorphism(&self.secret, g),
        };
        let [k0, k1] = self.gadget_product(&switched, &key, level);
        let expected = [divided(params, &x0, &k0), divided(params, &x1, &k1)];

        // Of two sizes, which have two ways with one special prime.
        let limbs = if self.rng.next_u32() & 1 == 0 {
            workspace_words(params, level)
        } else {
            fast_workspace_words(params, level)
        };
        let mut memory = vec![7; limbs];
        let mut work = Workspace::new(params, level, &mut memory).unwrap();
        let [c0, c1, c2] = words;
        let got = if op == SwitchOp::Relinearize {
            let mut ct = Ciphertext::from_parts(params, level, 1.0, [c0, c1, c2]).unwrap();
            switch(params, op, &mut ct, &key, &mut work).unwrap();
            ct.into_two_parts().unwrap().0
        } else {
            let mut ct = Ciphertext::new(params, level, 1.0, c0, c1).unwrap();
            switch(params, op, &mut ct, &key, &mut work).unwrap();
            ct
        };
        for (part, expected) in got.parts().into_iter().zip(&expected) {
            self.check_words(part, expected, level, &what);
        }
        let message = sum(
            &sum(&x0, &product(&x1, &self.secret)),
            &product(&switched, &from),
        );
        let error = self.error(&[&expected[0], &expected[1]], &message, level);
        self.check_error(error, Noise::key_switch(params, level).unwrap(), &what);
    }

    /// The sum of two rotations and the ciphertext itself, divided once.
    fn check_hoisted(&mut self, level: usize, expanded: bool) {
        let params = self.params;
        let n = params.n();
        let what = format!("hoisted sum at level {level} of {}", params.name());
        let steps = [0, 3, -2];
        let elements = [3, -2].map(|s| rotation(n, s));
        let keys = elements.map(|g| self.switch_key(SwitchTarget::Galois(g), expanded));
        let data: Vec<usize> = (0..=level).collect();
        let words = [(); 2].map(|()| self.uniform(level));
        let [c0, c1] = words.each_ref().map(|c| polynomial(params, c, &data));
        let (mut x0, mut k) = (c0.clone(), [(); 2].map(|()| vec![BigInt::ZERO; n]));
        let targets: Vec<usize> = data
            .iter()
            .copied()
            .chain(params.special()..params.limbs())
            .collect();
        let all = modulus(params, &targets);
        for (g, key) in elements.into_iter().zip(&keys) {
            x0 = sum(&x0, &automorphism(&c0, g));
            let terms = self.gadget_product(&automorphism(&c1, g), key, level);
            for (k, term) in k.iter_mut().zip(&terms) {
                *k = sum(k, term).into_iter().map(|x| centred(x, &all)).collect();
            }
        }
        let expected = [divided(params, &x0, &k[0]), divided(params, &c1, &k[1])];

        let [c0, c1] = words;
        let ct = Ciphertext::new(params, level, 1.0, c0, c1).unwrap();
        let mut memory = vec![7; hoisting_words(params, level)];
        let mut hoisted = Hoisted::new(params, &ct, &mut memory).unwrap();
        let limbs = || vec![3; (level + 1) * n];
        let mut out = Ciphertext::zero(params, level, 1.0, limbs(), limbs()).unwrap();
        let set = KeySet::new(&keys);
        hoisted.sum(params, &steps, set, &mut out).unwrap();
        for (part, expected) in out.parts().into_iter().zip(&expected) {
            self.check_words(part, expected, level, &what);
        }
        // One rotation has the words of a separate one.
        hoisted.rotate(params, 3, set, &mut out).unwrap();
        let mut memory = vec![7; workspace_words(params, level)];
        let mut work = Workspace::new(params, level, &mut memory).unwrap();
        let [c0, c1] = ct.parts().map(<[u32]>::to_vec);
        let mut separate = Ciphertext::new(params, level, 1.0, c0, c1).unwrap();
        let op = SwitchOp::Rotate(elements[0]);
        switch(params, op, &mut separate, &keys[0], &mut work).unwrap();
        assert!(separate.parts() == out.parts(), "{what}");
    }

    /// `(x - [x] modulo the last prime) / that prime`, of three parts.
    fn check_rescale(&mut self, level: usize) {
        let params = self.params;
        let what = format!("rescale at level {level} of {}", params.name());
        let data: Vec<usize> = (0..=level).collect();
        let words = [(); 2].map(|()| self.uniform(level));
        let parts = words.each_ref().map(|c| polynomial(params, c, &data));
        let q = BigInt::from(prime(params, level));
        let expected = parts.each_ref().map(|part| -> Poly {
            part.iter()
                .map(|x| (x - centred(x.clone(), &q)) / &q)
                .collect()
        });
        let mut ct = Ciphertext::from_parts(params, level, 1.0, words).unwrap();
        rescale(params, &mut ct, &mut vec![7; params.n()]).unwrap();
        assert_eq!(ct.level(), level - 1);
        for (part, expected) in ct.parts().into_iter().zip(&expected) {
            self.check_words(part, expected, level - 1, &what);
        }
        // Against the value before, divided exactly: all of it times q.
        let scaled = expected.map(|part| part.iter().map(|x| x * &q).collect::<Poly>());
        let [m0, m1] = &parts;
        let message = sum(m0, &product(m1, &self.secret));
        let [s0, s1] = &scaled;
        let error = self.error(&[s0, s1], &message, level);
        let q: f64 = q.to_string().parse().unwrap();
        self.check_error(error / q, Noise::division(params), &what);
    }

    /// `(key u + e + P m - r) / P`.
    fn check_public(&mut self, level: usize) {
        let params = self.params;
        let n = params.n();
        let what = format!(
            "public-key encryption at level {level} of {}",
            params.name()
        );
        let seed = [6; SEED_LEN];
        let storage = vec![0; PublicKey::<Vec<u32>>::words(params)];
        let mut errors = vec![0; n];
        let (key, rng) = (&self.key, &mut self.rng);
        let public = PublicKey::generate(params, key, &seed, rng, &mut errors, storage).unwrap();
        let message: Vec<i32> = (0..n)
            .map(|i| (i as i32 - 20).wrapping_mul(130_000_001) >> 1)
            .collect();
        let mut halves = [(); 2].map(|()| vec![5; (level + 1) * n]);
        let (mut integers, mut limbs) = (vec![0; 3 * n], vec![0; PublicScratch::words(params)]);
        let scratch = PublicScratch {
            integers: &mut integers,
            limbs: &mut limbs,
        };
        let [mut rng, mut same] = [(); 2].map(|()| ChaCha20Rng::from_seed([8; 32]));
        let out = halves.each_mut().map(|half| &mut half[..]);
        encrypt_public(params, &public, &message, level, &mut rng, scratch, out).unwrap();

        let integers = |same: &mut ChaCha20Rng, draw: fn(&mut ChaCha20Rng) -> i32| -> Poly {
            (0..n).map(|_| draw(same).into()).collect()
        };
        let u = integers(&mut same, sample::ternary);
        let errors = [(); 2].map(|()| integers(&mut same, sample::error));
        let every: Vec<usize> = (0..params.limbs()).collect();
        let all = modulus(params, &every);
        let mut a = vec![];
        for &i in &every {
            let m = params.prime(i).unwrap().modulus();
            let mut limb = vec![0; n];
            Uniform::new(&seed, sample::stream(Domain::PublicKey, 0, i), m).fill(&mut limb);
            a.extend(limb);
        }
        let message: Poly = message.into_iter().map(BigInt::from).collect();
        let zero = vec![BigInt::ZERO; n];
        let mut expected = vec![];
        for ((half, e), m) in [public.b(), &a]
            .into_iter()
            .zip(&errors)
            .zip([&message, &zero])
        {
            let k = sum(&product(&polynomial(params, half, &every), &u), e);
            let k: Poly = k.into_iter().map(|x| centred(x, &all)).collect();
            expected.push(divided(params, m, &k));
        }
        for (half, expected) in halves.iter().zip(&expected) {
            self.check_words(half, expected, level, &what);
        }
        let error = self.error(&[&expected[0], &expected[1]], &message, level);
        self.check_error(error, Noise::public_key(params).unwrap(), &what);
    }
}

#[test]
fn one_product_of_integers_is_the_definition() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for bits in [1, 30, 61, 200] {
        let mut draw = || -> Poly {
            (0..16)
                .map(|i| {
                    let words: Vec<u32> = (0..7).map(|_| rng.next_u32()).collect();
                    let x: BigInt = BigInt::from(BigUint::new(words)) % (BigInt::from(1) << bits);
                    if i % 3 == 0 { -x } else { x }
                })
                .collect()
        };
        let (x, y) = (draw(), draw());
        assert_eq!(schoolbook(&x, &y), at_power(&x, &y));
    }
}

#[test]
fn key_switching_is_its_formula() {
    for params in [&SINGLE, &PAIRS, &FOURS, &TWO_OF_THREE, &THREE_OF_FOUR] {
        let mut lab = Lab::new(params);
        for level in 0..=params.max_level() {
            for (i, op) in [
                SwitchOp::Rotate(rotation(params.n(), 3)),
                SwitchOp::Rotate(conjugation(params.n())),
                SwitchOp::RotateAdd(rotation(params.n(), -1)),
                SwitchOp::Square,
                SwitchOp::Relinearize,
            ]
            .into_iter()
            .enumerate()
            {
                lab.check_switch(op, level, (i + level) % 2 == 0);
            }
            lab.check_hoisted(level, level % 2 == 0);
            lab.check_public(level);
            if level > 0 {
                lab.check_rescale(level);
            }
        }
    }
}

#[test]
fn full_size_key_switching_is_its_formula() {
    for params in [&N4096_DEPTH3, &N8192_SCALE40] {
        let mut lab = Lab::new(params);
        let level = params.max_level();
        lab.check_switch(SwitchOp::Relinearize, level, true);
        lab.check_switch(SwitchOp::Rotate(rotation(params.n(), 1)), level - 1, false);
        lab.check_rescale(level);
        lab.check_public(level);
    }
}
