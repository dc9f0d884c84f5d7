//! A reader of the wire format written from `he-core/WIRE.md` alone: nothing of
//! he-core is used here. It decrypts the golden files with the golden keys.

use he_edge_tests::golden::{self, DOCUMENT, Holds, Set};
use num_bigint::{BigInt, BigUint};
use std::f64::consts::PI;

/// "The 32-bit FNV-1a hash of the bytes of `N`, `q_0 .. q_L`, `p_1 .. p_alpha` and,
/// where it is not 1, `alpha`, as 32-bit words".
fn fingerprint(set: &Set) -> u32 {
    let (n, alpha) = ([set.n as u32], [set.special.len() as u32]);
    let words = n.iter().chain(&set.data).chain(&set.special);
    words
        .chain(alpha.iter().filter(|&&alpha| alpha != 1))
        .flat_map(|word| word.to_le_bytes())
        .fold(0x811c_9dc5, |h: u32, byte| {
            (h ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        })
}

fn power(mut base: u64, mut exponent: u64, q: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result * base % q;
        }
        base = base * base % q;
        exponent >>= 1;
    }
    result
}

/// "The primitive 2N-th root of unity `b^((q - 1) / 2N) mod q` with the smallest
/// base `b >= 2` for which `psi^N = -1 (mod q)`".
fn root(q: u64, n: u64) -> u64 {
    (2..)
        .map(|b| power(b, (q - 1) / (2 * n), q))
        .find(|&psi| power(psi, n, q) == q - 1)
        .unwrap()
}

/// A prime with the powers of its root.
struct Prime {
    q: u64,
    n: usize,
    powers: Vec<u64>,
}

impl Prime {
    fn new(q: u32, n: usize) -> Self {
        let q = u64::from(q);
        let psi = root(q, n as u64);
        let mut powers = vec![1];
        for i in 1..2 * n {
            powers.push(powers[i - 1] * psi % q);
        }
        Self { q, n, powers }
    }

    fn bits(&self) -> usize {
        (u64::BITS - (self.q - 1).leading_zeros()) as usize
    }

    /// `2 brv(i) + 1`.
    fn exponent(&self, i: usize) -> usize {
        let bits = self.n.trailing_zeros();
        let reversed = (0..bits).fold(0, |r, k| r | (i >> k & 1) << (bits - 1 - k));
        2 * reversed + 1
    }

    /// "Residue `i` is the value of the polynomial at `psi^(2 brv(i) + 1)`".
    fn values(&self, a: &[i8]) -> Vec<u64> {
        let values = (0..self.n).map(|i| {
            let e = self.exponent(i);
            let terms = a.iter().enumerate().filter(|(_, c)| **c != 0);
            let sum = terms.fold(0, |sum, (j, c)| {
                let term = self.powers[j * e % (2 * self.n)];
                sum + if *c > 0 { term } else { self.q - term }
            });
            sum % self.q
        });
        values.collect()
    }

    /// "`a_j = N^-1 sum_i x_i psi^(-j (2 brv(i) + 1)) mod q`".
    fn coefficients(&self, x: &[u64]) -> Vec<u64> {
        let inverse = power(self.n as u64, self.q - 2, self.q);
        let exponents: Vec<usize> = (0..self.n).map(|i| self.exponent(i)).collect();
        let coefficient = |j: usize| {
            let sum = x.iter().zip(&exponents).fold(0, |sum, (x, e)| {
                let at = (2 * self.n - j * e % (2 * self.n)) % (2 * self.n);
                (sum + x * self.powers[at]) % self.q
            });
            sum * inverse % self.q
        };
        (0..self.n).map(coefficient).collect()
    }

    /// A coefficient between -q / 2 and q / 2.
    fn centred(&self, x: u64) -> i64 {
        if x > self.q / 2 {
            x as i64 - self.q as i64
        } else {
            x as i64
        }
    }
}

/// "ChaCha with 8 rounds in its original form".
fn chacha8(seed: &[u8], block: u64, nonce: u64) -> [u32; 16] {
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let mut state = [0; 16];
    let head = b"expand 32-byte k"
        .chunks(4)
        .chain(seed.chunks(4))
        .map(word);
    let tail = [
        block as u32,
        (block >> 32) as u32,
        nonce as u32,
        (nonce >> 32) as u32,
    ];
    for (s, w) in state.iter_mut().zip(head.chain(tail)) {
        *s = w;
    }
    let mut x = state;
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        for (p, q, r, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
            x[p] = x[p].wrapping_add(x[q]);
            x[r] = (x[r] ^ x[p]).rotate_left(by);
        }
    };
    for _ in 0..4 {
        for i in 0..4 {
            quarter(i, 4 + i, 8 + i, 12 + i);
        }
        for i in 0..4 {
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
        }
    }
    for (x, s) in x.iter_mut().zip(state) {
        *x = x.wrapping_add(s);
    }
    x
}

/// "A word `w` gives the residue `floor(w q / 2^32)`, unless
/// `w q mod 2^32 < 2^32 mod q`: then it is skipped".
fn uniform(seed: &[u8], [kind, g, d, j]: [u64; 4], q: u64, n: usize) -> Vec<u64> {
    // "the nonce `2^56 kind + 2^16 g + 256 d + j`".
    let nonce = (kind << 56) + (g << 16) + 256 * d + j;
    (0..)
        .flat_map(|block| chacha8(seed, block, nonce))
        .map(|w| u64::from(w) * q)
        .filter(|wide| wide % (1 << 32) >= (1 << 32) % q)
        .map(|wide| wide >> 32)
        .take(n)
        .collect()
}

/// A reader of one object's bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        head
    }

    fn number(&mut self, count: usize) -> u64 {
        let bytes = self.take(count).iter().rev();
        bytes.fold(0, |x, &byte| x << 8 | u64::from(byte))
    }

    /// "Bit `k` of residue `i` is bit `(i bits(q) + k) mod 8` of byte ..".
    fn limb(&mut self, prime: &Prime) -> Vec<u64> {
        let bits = prime.bits();
        let bytes = self.take(prime.n * bits / 8);
        let residue = |i: usize| {
            let bit = |k: usize| u64::from(bytes[(i * bits + k) / 8] >> ((i * bits + k) % 8) & 1);
            (0..bits).fold(0, |x, k| x | bit(k) << k)
        };
        let limb: Vec<u64> = (0..prime.n).map(residue).collect();
        assert!(limb.iter().all(|&x| x < prime.q));
        limb
    }

    fn limbs(&mut self, primes: &[Prime]) -> Vec<Vec<u64>> {
        primes.iter().map(|prime| self.limb(prime)).collect()
    }
}

/// `x + y s`, place by place.
fn plus_product(x: &[u64], y: &[u64], s: &[u64], q: u64) -> Vec<u64> {
    let both = x.iter().zip(y).zip(s);
    both.map(|((x, y), s)| (x + y * s) % q).collect()
}

/// The coefficients of limbs, between `-Q / 2` and `Q / 2`.
fn chinese_remainder(primes: &[Prime], limbs: &[Vec<u64>]) -> Vec<BigInt> {
    let product: BigUint = primes.iter().map(|p| BigUint::from(p.q)).product();
    let coefficients: Vec<Vec<u64>> = primes
        .iter()
        .zip(limbs)
        .map(|(prime, limb)| prime.coefficients(limb))
        .collect();
    // For each prime a number that is 1 modulo it and 0 modulo the others.
    let units: Vec<BigUint> = primes
        .iter()
        .map(|p| {
            let others = &product / p.q;
            let inverse = (&others % p.q).modpow(&(p.q - 2).into(), &p.q.into());
            others * inverse
        })
        .collect();
    (0..primes[0].n)
        .map(|j| {
            let sum: BigUint = units.iter().zip(&coefficients).map(|(u, c)| u * c[j]).sum();
            let x = BigInt::from(sum % &product);
            if &x * 2 > product.clone().into() {
                x - BigInt::from(product.clone())
            } else {
                x
            }
        })
        .collect()
}

/// "`z_k = (1 / scale) sum_j m_j exp(i pi j 5^k / N)`".
fn slot(m: &[BigInt], scale: f64, k: u32) -> [f64; 2] {
    let n = m.len();
    let five = power(5, k.into(), 2 * n as u64) as usize;
    let mut sum = [0.0, 0.0];
    for (j, x) in m.iter().enumerate() {
        let x = i128::try_from(x).unwrap() as f64 / scale;
        let (sin, cos) = (PI * (j * five % (2 * n)) as f64 / n as f64).sin_cos();
        sum = [sum[0] + x * cos, sum[1] + x * sin];
    }
    sum
}

/// `s(X^g)`.
fn automorphism(s: &[i8], g: usize) -> Vec<i8> {
    let n = s.len();
    let mut out = vec![0; n];
    for (j, &x) in s.iter().enumerate() {
        let at = j * g % (2 * n);
        if at < n {
            out[at] = x;
        } else {
            out[at - n] = -x;
        }
    }
    out
}

/// The errors of a key: the same small integers modulo every prime.
struct Errors(Option<Vec<i64>>);

impl Errors {
    fn check(&mut self, prime: &Prime, limb: &[u64]) {
        let coefficients = prime.coefficients(limb);
        let e: Vec<i64> = coefficients.iter().map(|&x| prime.centred(x)).collect();
        assert!(e.iter().all(|e| e.abs() <= 21) && e.iter().any(|&e| e != 0));
        assert_eq!(*self.0.get_or_insert(e.clone()), e);
    }
}

/// "A digit belongs to `h` data primes, `h = ceil((L + 1) / ceil((L + 1) / alpha))`".
fn digit_primes(set: &Set) -> usize {
    let data = set.data.len();
    data.div_ceil(data.div_ceil(set.special.len()))
}

/// The limbs of a switching key in their order: digit and prime.
fn key_order(set: &Set, level: usize, digits: usize) -> Vec<(usize, usize)> {
    let special = set.data.len();
    if set.special.len() == 1 {
        let others = (0..=level).flat_map(|d| (0..=level).map(move |j| (d, j)));
        (0..=level)
            .map(|d| (d, d))
            .chain(others.filter(|(d, j)| d != j))
            .chain((0..=level).map(|d| (d, special)))
            .collect()
    } else {
        (0..=level)
            .chain(special..special + set.special.len())
            .flat_map(|j| (0..digits).map(move |d| (d, j)))
            .collect()
    }
}

fn read(set: &Set, secret: &[i8], bytes: &[u8], level: usize, holds: &Holds) {
    let mut reader = Reader(bytes);
    assert_eq!(reader.take(4), b"HEDG");
    assert_eq!(reader.number(1), 3);
    let kind = reader.number(1);
    assert_eq!(reader.number(1), level as u64);
    assert_eq!(reader.number(1), 0);
    assert_eq!(reader.number(4), u64::from(set.fingerprint));
    let detail = reader.number(8);
    let all = set.data.iter().chain(&set.special);
    let mut all: Vec<Prime> = all.map(|&q| Prime::new(q, set.n)).collect();
    match *holds {
        Holds::Ciphertext {
            kind: stated,
            scale,
            ref slots,
            error,
        } => {
            assert_eq!(kind, u64::from(stated));
            assert_eq!(f64::from_bits(detail), scale);
            all.truncate(level + 1);
            let seed = if kind == 2 { reader.take(32) } else { &[] };
            let mut parts = vec![reader.limbs(&all)];
            match kind {
                1 => parts.push(reader.limbs(&all)),
                2 => parts.push(
                    (0..=level)
                        .map(|j| uniform(seed, [2, 0, 0, j as u64], all[j].q, set.n))
                        .collect(),
                ),
                3 => parts.extend([reader.limbs(&all), reader.limbs(&all)]),
                other => panic!("kind {other}"),
            }
            // Horner's rule in s.
            let mut m = parts.pop().unwrap();
            for part in parts.iter().rev() {
                for ((m, x), prime) in m.iter_mut().zip(part).zip(&all) {
                    *m = plus_product(x, m, &prime.values(secret), prime.q);
                }
            }
            let m = chinese_remainder(&all, &m);
            assert_eq!(slots.len(), 32);
            for (k, expected) in slots.iter().enumerate() {
                let got = slot(&m, scale, k as u32);
                let off = (got[0] - expected[0]).hypot(got[1] - expected[1]);
                assert!(off < 1.5 * error, "slot {k}: {got:?} for {expected:?}");
            }
        }
        Holds::PublicKey => {
            assert_eq!((kind, detail), (4, 0));
            let seed = reader.take(32);
            let mut errors = Errors(None);
            for (j, prime) in all.iter().enumerate() {
                let b = reader.limb(prime);
                let a = uniform(seed, [4, 0, 0, j as u64], prime.q, set.n);
                errors.check(prime, &plus_product(&b, &a, &prime.values(secret), prime.q));
            }
        }
        Holds::SwitchingKey { element } => {
            assert_eq!((kind, detail), (5, u64::from(element)));
            let seed = reader.take(32);
            let size = digit_primes(set);
            let digits = (level + 1).div_ceil(size);
            let mut errors: Vec<Errors> = (0..digits).map(|_| Errors(None)).collect();
            for (digit, j) in key_order(set, level, digits) {
                let prime = &all[j];
                let s = prime.values(secret);
                let b = reader.limb(prime);
                let a = uniform(
                    seed,
                    [5, element.into(), digit as u64, j as u64],
                    prime.q,
                    set.n,
                );
                let mut e = plus_product(&b, &a, &s, prime.q);
                // `g_d` is 1 here; `P` is 0 modulo the special primes.
                if j <= level && j / size == digit {
                    let source = match element {
                        0 => s.iter().map(|s| s * s % prime.q).collect(),
                        g => prime.values(&automorphism(secret, g as usize)),
                    };
                    let special = set.special.iter().map(|&p| u64::from(p));
                    let p = special.fold(1, |product, p| product * (p % prime.q) % prime.q);
                    let minus = prime.q - p;
                    e = plus_product(&e, &source, &vec![minus; set.n], prime.q);
                }
                errors[digit].check(prime, &e);
            }
        }
    }
    assert!(reader.0.is_empty());
}

#[test]
fn the_document_and_a_key_are_enough() {
    let golden = golden::load();
    let sets = golden::sets();
    assert!(golden.objects.len() >= 12);
    for d in &golden.objects {
        let set = sets.iter().find(|set| set.name == d.set).unwrap();
        let secret = golden.key(&d.set);
        read(set, &secret, &d.bytes(), d.level, &d.holds);
    }
}

#[test]
fn the_fingerprints_are_the_documents_hash() {
    for set in golden::sets() {
        assert_eq!(fingerprint(&set), set.fingerprint, "{}", set.name);
    }
}

#[test]
fn another_key_does_not_decrypt() {
    // The check above can fail.
    let golden = golden::load();
    let sets = golden::sets();
    for d in golden.objects.iter().filter(|d| d.set != "N4096_DEPTH3") {
        let set = sets.iter().find(|set| set.name == d.set).unwrap();
        let mut secret = golden.key(&d.set);
        secret[5] = if secret[5] == 0 { 1 } else { 0 };
        let (bytes, level, holds) = (d.bytes(), d.level, &d.holds);
        let read = std::panic::catch_unwind(|| read(set, &secret, &bytes, level, holds));
        assert!(read.is_err(), "{}", d.file);
    }
}

#[test]
fn the_documents_examples_are_right() {
    assert_eq!(root(134_176_769, 4096), 51_707_741);
    assert!(DOCUMENT.contains("51707741"));
    let seed: Vec<u8> = (0..32).collect();
    for object in [[2, 0, 0, 0], [4, 0, 0, 0], [5, 0, 0, 0], [5, 25, 0, 0]] {
        let first = uniform(&seed, object, 134_176_769, 4);
        let first: Vec<String> = first.iter().map(u64::to_string).collect();
        let first = first.join(", ");
        assert!(DOCUMENT.contains(&first), "{object:?}: {first}");
    }
}
