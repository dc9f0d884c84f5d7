//! Every operation of he-core that touches a secret, run with its secrets marked
//! undefined: under valgrind, a branch or an address that depends on one is a
//! report. `taint BACKEND SET` says `clean NAME` or `reported NAME` for each; what is
//! secret in it is marked here, and what becomes public is declassified here, with
//! a reason, or in he-core's `secret::declassify`.
//!
//! `SET` is `narrow`, one special prime and coefficients of 32 bits, or `wide`,
//! two and 64.
//!
//! `taint leaks` runs functions that leak, each of which must be reported.
#![expect(clippy::print_stdout, reason = "the reports are what it is for")]

use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;

use chacha20::ChaCha20Rng;
use he_core::ckks::encode::{decode_in_place, encode, encode_complex, encode_in_place};
use he_core::ckks::publish::{
    Allowance, Budget, Expected, HonestEvaluator, HonestResult, KeyId, NoiseKey, publish_label,
    publish_values,
};
use he_core::ckks::{Ciphertext, Noise, decrypt};
use he_core::params::{N4096_DEPTH3, N8192_SCALE40, Params};
use he_core::ring::kernel;
#[cfg(target_arch = "x86_64")]
use he_core::ring::kernel::Backend;
use he_core::ring::sample::{self, SEED_LEN};
use he_core::rlwe::keys::{switching_key, switching_key_words};
use he_core::rlwe::{
    Coefficient, CompactKey, Encryption, MaskedKey, PublicKey, PublicScratch, SecretKey, SwitchKey,
    SwitchTarget, encrypt_public, encrypt_with_seed, expand_c1,
};
use he_core::taint::{is_secret, public, published, reports, secret, watched};
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};

/// What a set is used with.
trait Message: Coefficient {
    const SCALE: f64;
    /// One by which no slot can be encoded.
    const TOO_LARGE: f64;
    /// One that has no room for an error.
    const MAX: Self;
    /// From what the encoder has rounded.
    fn from_rounded(x: f64) -> Self;
    /// Coefficients of the size that the scale makes.
    fn of_size(x: i32) -> Self;
}

impl Message for i32 {
    const SCALE: f64 = (1u64 << 20) as f64;
    const TOO_LARGE: f64 = 1e12;
    const MAX: Self = Self::MAX;
    fn from_rounded(x: f64) -> Self {
        x as Self
    }
    fn of_size(x: i32) -> Self {
        x >> 3
    }
}

impl Message for i64 {
    const SCALE: f64 = (1u64 << 40) as f64;
    const TOO_LARGE: f64 = 1e22;
    const MAX: Self = Self::MAX;
    fn from_rounded(x: f64) -> Self {
        x as Self
    }
    fn of_size(x: i32) -> Self {
        Self::from(x) << 20
    }
}

/// A generator whose words are secret: what samplers draw. Bytes are not: by `fill_bytes`
/// he-core draws public seeds, and those of a key's masks, which are uniform by rejection:
/// how many words are rejected shows, and tells nothing of those that are kept.
struct Coins(ChaCha20Rng);

impl TryRng for Coins {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(hidden(self.0.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(hidden(self.0.next_u64()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Coins {}

fn hidden<T: Copy>(x: T) -> T {
    let mut x = [x];
    secret(&mut x);
    let [x] = x;
    x
}

/// Slots of a client.
fn slots(count: usize) -> Vec<f64> {
    let mut values: Vec<f64> = (0..count).map(|i| (i as f64 * 0.7).sin() * 3.0).collect();
    secret(&mut values);
    values
}

fn message<C: Message>(n: usize) -> Vec<C> {
    let words = (0..n as i32).map(|i| i.wrapping_mul(77_777));
    let mut message: Vec<C> = words.map(C::of_size).collect();
    secret(&mut message);
    message
}

/// A budget that is never used up.
struct Endless;

impl Budget for Endless {
    type Error = Infallible;

    fn allowance(&self) -> Allowance {
        Allowance::new(1, 30).unwrap()
    }

    fn spend(&mut self, _: &KeyId) -> Result<(), Infallible> {
        Ok(())
    }

    fn retire(&mut self, _: &KeyId) -> Result<(), Infallible> {
        Ok(())
    }
}

type Key = SecretKey<Vec<u32>>;

/// Runs operations and says which of them were reported.
struct Run {
    params: &'static Params,
    coins: Coins,
    reported: usize,
}

impl Run {
    fn new(params: &'static Params) -> Self {
        Self {
            params,
            coins: Coins(ChaCha20Rng::from_seed([5; 32])),
            reported: 0,
        }
    }

    fn check<T>(&mut self, name: &str, operation: impl FnOnce(&mut Coins) -> T) -> T {
        let before = reports();
        let result = black_box(operation(&mut self.coins));
        let more = reports() - before;
        if more == 0 {
            println!("clean {name}");
        } else {
            self.reported += 1;
            println!("reported {name} {more}");
        }
        result
    }

    /// The same, of an operation whose result is secret: that it is still marked as
    /// such shows that the marks went all the way.
    fn check_secret<T>(
        &mut self,
        name: &str,
        operation: impl FnOnce(&mut Coins) -> Vec<T>,
    ) -> Vec<T> {
        let result = self.check(name, operation);
        if !is_secret(&result) {
            self.reported += 1;
            println!("unmarked {name}");
        }
        result
    }

    fn key(&mut self) -> Key {
        let p = self.params;
        self.check("secret-key", |rng| {
            SecretKey::generate(p, vec![0; Key::words(p)], rng).unwrap()
        })
    }

    fn sampling(&mut self) {
        let n = self.params.n();
        self.check_secret("sample-ternary", |rng| {
            (0..n).map(|_| sample::ternary(rng)).collect()
        });
        self.check_secret("sample-error", |rng| {
            (0..n).map(|_| sample::error(rng)).collect()
        });
    }

    fn encoding<C: Message>(&mut self) {
        let (p, n) = (self.params, self.params.n());
        let (re, im) = (slots(n / 2), slots(n / 2));
        let (mut buffer, mut integers) = (vec![0.0; n], vec![C::default(); n]);
        self.check_secret("encode", |_| {
            encode(&re, C::SCALE, &mut buffer, &mut integers, C::from_rounded).unwrap();
            // The mean of the imaginary parts, which everybody knows to be zero.
            integers.remove(n / 2);
            integers.clone()
        });
        integers.push(C::default());
        self.check_secret("encode-complex", |_| {
            let (scale, to_int) = (C::SCALE, C::from_rounded);
            encode_complex(&re, &im, scale, &mut buffer, &mut integers, to_int).unwrap();
            integers.clone()
        });
        self.check_secret("encode-single-precision", |_| {
            let mut buffer: Vec<f32> = re.iter().chain(&im).map(|&x| x as f32).collect();
            encode_in_place(&mut buffer, i32::SCALE).unwrap();
            let mut limb = vec![0; n];
            let m = p.prime(0).unwrap().modulus();
            kernel::lift_f32(&buffer, &mut limb, m.r(), m);
            limb
        });
        // What is refused shows that it is.
        self.check("encode-out-of-range", |_| {
            let (scale, to_int) = (C::TOO_LARGE, C::from_rounded);
            assert!(encode(&re, scale, &mut buffer, &mut integers, to_int).is_err());
        });
        self.check("encode-not-finite", |_| {
            let mut values = [1.0, f64::NAN, 2.0];
            secret(&mut values);
            let (scale, to_int) = (C::SCALE, C::from_rounded);
            assert!(encode(&values, scale, &mut buffer, &mut integers, to_int).is_err());
        });
        self.check_secret("decode-slots", |_| {
            let mut buffer = slots(n);
            decode_in_place(&mut buffer, C::SCALE).unwrap();
            buffer
        });
    }

    fn secret_key_encryption<C: Message>(&mut self, key: &Key) -> Ciphertext<Vec<u32>> {
        let (p, n, level) = (self.params, self.params.n(), self.params.max_level());
        let words = (level + 1) * n;
        let seed = [1; SEED_LEN];
        let mut c0 = self.check_secret("encrypt", |rng| {
            let (mut message, mut c0) = (message::<C>(n), vec![0; words]);
            encrypt_with_seed(p, key, &mut message, level, &seed, rng, &mut c0).unwrap();
            c0
        });
        self.check("encrypt-out-of-range", |rng| {
            let (mut message, mut c0) = (vec![C::MAX; n], vec![0; n]);
            secret(&mut message);
            assert!(encrypt_with_seed(p, key, &mut message, 0, &seed, rng, &mut c0).is_err());
        });
        self.check_secret("compact", |rng| {
            let storage = vec![0; CompactKey::<Vec<u8>>::bytes(p)];
            let key = CompactKey::generate(p, storage, rng).unwrap();
            let (mut message, mut scratch) = (message::<C>(n), vec![0; n]);
            let mut limb = vec![0; n];
            let mut run = Encryption::start(p, &mut message, &mut scratch, rng).unwrap();
            for i in 0..=level {
                run.limb(&key, i, &mut limb).unwrap();
            }
            limb
        });
        self.check_secret("masked", |rng| {
            let storage = vec![0; CompactKey::<Vec<u8>>::bytes(p)];
            let key = CompactKey::generate(p, storage, rng).unwrap();
            let storage = vec![0; MaskedKey::<Vec<u32>>::words(p)];
            let mut key = MaskedKey::new(p, &key, storage, rng).unwrap();
            let (mut message, mut limb) = (message::<C>(n), vec![0; n]);
            let mut run = Encryption::start_masked(p, &mut message, rng).unwrap();
            for i in 0..=level {
                run.masked_limb(&mut key, i, &mut limb, rng).unwrap();
            }
            limb
        });
        // A ciphertext is for everybody.
        public(&mut c0);
        let mut c1 = vec![0; words];
        expand_c1(p, &seed, &mut c1).unwrap();
        Ciphertext::new(p, level, C::SCALE, c0, c1).unwrap()
    }

    fn public_key_encryption<C: Message>(&mut self, key: &Key) {
        let (p, n, level) = (self.params, self.params.n(), self.params.max_level());
        let mut b = self.check_secret("public-key", |rng| {
            let (mut errors, storage) = (vec![0; n], vec![0; PublicKey::<Vec<u32>>::words(p)]);
            let key = PublicKey::generate(p, key, &[2; SEED_LEN], rng, &mut errors, storage);
            key.unwrap().b().to_vec()
        });
        // The key is for everybody.
        public(&mut b);
        let key = PublicKey::from_parts(p, [2; SEED_LEN], b).unwrap();
        self.check_secret("encrypt-public", |rng| {
            let mut integers = vec![0; 3 * n];
            let mut limbs = vec![0; PublicScratch::words(p)];
            let scratch = PublicScratch {
                integers: &mut integers,
                limbs: &mut limbs,
            };
            let [mut c0, mut c1] = [(); 2].map(|()| vec![0; (level + 1) * n]);
            let halves = [&mut c0[..], &mut c1[..]];
            encrypt_public(p, &key, &message::<C>(n), level, rng, scratch, halves).unwrap();
            [c0, c1].concat()
        });
    }

    fn switching_keys(&mut self, key: &Key) {
        let (p, level) = (self.params, self.params.max_level());
        let (mut errors, words) = (vec![0; p.n()], switching_key_words(p, level));
        for (name, target) in [
            ("switching-key-square", SwitchTarget::Square),
            ("switching-key-galois", SwitchTarget::Galois(5)),
        ] {
            self.check_secret(name, |rng| {
                let (seed, mut b) = ([3; SEED_LEN], vec![0; words]);
                switching_key(p, key, target, level, &seed, rng, &mut errors, &mut b).unwrap();
                b
            });
        }
        self.check("switching-key-in-memory", |rng| {
            let (target, storage) = (SwitchTarget::Square, vec![0; words]);
            SwitchKey::generate(p, key, target, level, rng, &mut errors, storage).unwrap()
        });
    }

    fn decryption<C: Message>(&mut self, key: &Key, ct: &Ciphertext<Vec<u32>>) {
        let (p, n, level) = (self.params, self.params.n(), self.params.max_level());
        let (mut scratch, mut slots) = (vec![0; (level + 1) * n], vec![0.0; n]);
        self.check_secret("decrypt", |_| {
            let result = decrypt(p, key, ct, level, C::SCALE, &mut scratch, &mut slots).unwrap();
            let (re, im) = (result.slot(7).unwrap(), result.imaginary(7).unwrap());
            vec![result.fill(), re, im]
        });
        let [c0, c1] = ct.parts().map(<[u32]>::to_vec);
        let three = [c0.clone(), c1, c0];
        let three = Ciphertext::from_parts(p, level, C::SCALE, three).unwrap();
        self.check_secret("decrypt-three-parts", |_| {
            let result = decrypt(p, key, &three, level, C::SCALE, &mut scratch, &mut slots);
            vec![result.unwrap().fill()]
        });
        self.check("publish-label", |_| {
            let mut bytes = [7; 32];
            secret(&mut bytes);
            let noise_key = NoiseKey::new(bytes);
            let (words, numbers) = (&mut scratch, &mut slots);
            let label = publish_label(
                p,
                key,
                &noise_key,
                &mut Endless,
                ct,
                (level, C::SCALE),
                &[0..64, 64..128, 5..6, 100..101, 2047..2048],
                words,
                numbers,
            );
            // The label is what is published.
            assert!(published(label.unwrap()) < 5);
        });
        self.check_secret("publish-values", |_| {
            let mut bytes = [7; 32];
            secret(&mut bytes);
            let noise_key = NoiseKey::new(bytes);
            let expected = Expected {
                level,
                scale: C::SCALE,
                noise: Noise::error(p),
                magnitude: 100.0,
                // More noise than message: what is computed is the same.
                precision_bits: -40.0,
            };
            let (words, numbers) = (&mut scratch, &mut slots);
            let given = publish_values(
                p,
                key,
                &noise_key,
                &mut Endless,
                &HonestResult::stated(ct, HonestEvaluator::assume()),
                &expected,
                words,
                numbers,
            );
            vec![given.unwrap().fill()]
        });
    }

    fn all<C: Message>(&mut self) {
        let (p, n) = (self.params, self.params.n());
        self.sampling();
        let key = self.key();
        self.check("secret-key-of-coefficients", |_| {
            let mut coefficients: Vec<i8> = (0..n).map(|i| (i % 3) as i8 - 1).collect();
            secret(&mut coefficients);
            SecretKey::from_coefficients(p, vec![0; Key::words(p)], &coefficients).unwrap()
        });
        self.encoding::<C>();
        let ct = self.secret_key_encryption::<C>(&key);
        self.public_key_encryption::<C>(&key);
        self.switching_keys(&key);
        self.decryption::<C>(&key, &ct);
        self.check("erasure", |_| drop(key));
    }

    fn leaks(&mut self) {
        let (p, n, level) = (self.params, self.params.n(), self.params.max_level());
        let table: Vec<u32> = (0..64).collect();
        self.check("leak-branch", |rng| {
            if sample::ternary(rng) == 0 {
                println!("a coefficient is zero");
            }
        });
        self.check("leak-address", |rng| {
            let index = (sample::error(rng) & 31) as usize;
            table.get(index).copied()
        });
        // As the encoder did once: each value is looked at and left at.
        self.check("leak-early-exit", |_| {
            slots(16).iter().position(|&x| black_box(x) > 2.0)
        });
        // A secret that has passed through kernels is one still.
        let key = SecretKey::generate(p, vec![0; Key::words(p)], &mut self.coins).unwrap();
        self.check("leak-behind-kernels", |rng| {
            let (mut message, mut c0) = (message::<i32>(n), vec![0; (level + 1) * n]);
            let seed = [1; SEED_LEN];
            encrypt_with_seed(p, &key, &mut message, level, &seed, rng, &mut c0).unwrap();
            c0.contains(&black_box(17))
        });
        // The refusal that he-core declassifies is one bit: where is secret.
        self.check("leak-of-a-place", |_| {
            let mut values = [1.0, f64::NAN, 2.0];
            secret(&mut values);
            let (mut buffer, mut integers) = (vec![0.0; n], vec![0i32; n]);
            let (scale, to_int) = (i32::SCALE, i32::from_rounded);
            let refused = encode(&values, scale, &mut buffer, &mut integers, to_int);
            if refused == Err(he_core::Error::NotFinite { index: 1 }) {
                println!("the second value is not finite");
            }
        });
        // What is not secret does not pass for it.
        self.check_secret("unmarked", |_| vec![1u32; 4]);
    }
}

#[cfg(target_arch = "x86_64")]
fn select(name: &str) -> bool {
    let backend = Backend::available().find(|backend| backend.name() == name);
    backend.inspect(|backend| backend.select()).is_some()
}

#[cfg(not(target_arch = "x86_64"))]
fn select(name: &str) -> bool {
    name == kernel::backend()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !watched() {
        println!("nobody is watching: start this under valgrind on x86-64");
        return ExitCode::FAILURE;
    }
    let mut run = Run::new(&N4096_DEPTH3);
    match *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        ["leaks"] => run.leaks(),
        [backend, "narrow"] if select(backend) => run.all::<i32>(),
        [backend, "wide"] if select(backend) => {
            run = Run::new(&N8192_SCALE40);
            run.all::<i64>();
        }
        _ => {
            println!("say `leaks`, or kernels that are here (portable, avx2) and narrow or wide");
            return ExitCode::FAILURE;
        }
    }
    println!("{} reported", run.reported);
    ExitCode::from(u8::from(run.reported != 0))
}
