//! The golden files: fixed seeds give their bytes, reading them gives their
//! values, and a change of any byte is refused or is another value.

use chacha20::ChaCha20Rng;
use he_core::ckks::evaluator::multiply;
use he_core::ckks::{Ciphertext, decrypt};
use he_core::params::{N4096_DEPTH3, Params};
use he_core::ring::{automorphism, sample};
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{self, PublicKey, SecretKey, SwitchKey, SwitchTarget};
use he_core::wire::{self, Header, Kind, Object};
use he_edge_tests::golden::{
    self, Description, GOLDEN64, GOLDEN64_GROUPED, Golden, Holds, Set, reread,
};
use rand_core::{Rng, SeedableRng};
use std::f64::consts::PI;
use std::{env, fs};

/// Slots that a description states of each ciphertext.
const STATED: usize = 32;

fn set(name: &str) -> &'static Params {
    let mut sets = golden::known_sets();
    sets.find(|params| params.name() == name).unwrap()
}

#[test]
fn the_document_has_every_set_as_it_is() {
    let sets = golden::known_sets().map(|params| {
        let mut primes: Vec<u32> = (0..params.limbs())
            .map(|i| params.prime(i).unwrap().modulus().value())
            .collect();
        let special = primes.split_off(params.data_limbs());
        Set {
            name: params.name().into(),
            n: params.n(),
            data: primes,
            special,
            fingerprint: params.fingerprint(),
        }
    });
    assert_eq!(golden::sets(), sets.collect::<Vec<_>>());
}

/// Slot `k` of every ciphertext before squaring.
fn slot(k: usize) -> [f64; 2] {
    [
        (k * 7 % 11) as f64 / 4.0 - 1.25,
        (k * 3 % 5) as f64 / 8.0 - 0.25,
    ]
}

/// The coefficients of these slots at a scale, by the document's formula.
fn coefficients(n: usize, scale: f64) -> Vec<i32> {
    let angle: Vec<f64> = (0..2 * n).map(|t| PI * t as f64 / n as f64).collect();
    let turns: Vec<(f64, f64)> = angle.iter().map(|a| a.sin_cos()).collect();
    let mut out = vec![0.0; n];
    let mut power = 1;
    for k in 0..n / 2 {
        let [re, im] = slot(k);
        for (j, x) in out.iter_mut().enumerate() {
            let (sin, cos) = turns[j * power % (2 * n)];
            *x += re * cos + im * sin;
        }
        power = power * 5 % (2 * n);
    }
    let factor = scale * 2.0 / n as f64;
    out.iter().map(|x| (x * factor).round() as i32).collect()
}

/// What makes the objects of one set.
struct Maker {
    params: &'static Params,
    rng: ChaCha20Rng,
    secret: Vec<i8>,
    key: SecretKey<Vec<u32>>,
    files: Vec<(Description, Vec<u8>)>,
}

impl Maker {
    fn new(params: &'static Params, seed: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let secret: Vec<i8> = (0..params.n())
            .map(|_| sample::ternary(&mut rng) as i8)
            .collect();
        let storage = vec![0; SecretKey::<Vec<u32>>::words(params)];
        let key = SecretKey::from_coefficients(params, storage, &secret).unwrap();
        Self {
            params,
            rng,
            secret,
            key,
            files: Vec::new(),
        }
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    fn room(&self, kind: Kind, level: usize) -> Vec<u8> {
        vec![0; kind.object_len(self.params, level).unwrap()]
    }

    fn add(&mut self, name: &str, level: usize, holds: Holds, bytes: Vec<u8>) {
        let set = self.params.name();
        let description = Description {
            file: format!("{set}-{name}.bin"),
            set: set.into(),
            holds,
            level,
        };
        self.files.push((description, bytes));
    }

    /// Describes a ciphertext; `square` if its slots are squares.
    fn ciphertext(&mut self, name: &str, level: usize, scale: f64, square: bool, bytes: Vec<u8>) {
        let value = |k| match (slot(k), square) {
            (z, false) => z,
            ([re, im], true) => [re * re - im * im, 2.0 * re * im],
        };
        let holds = Holds::Ciphertext {
            kind: bytes[5],
            scale,
            slots: (0..STATED).map(value).collect(),
            // Seven times that of an error of deviation 3.24 in N coefficients,
            // and a little; a square doubles it, times a slot of 1.3. Powers of
            // two, which JSON keeps.
            error: match (self.params.n(), square) {
                (64, false) => 2f64.powi(-12),
                (64, true) => 2f64.powi(-10),
                _ => 2f64.powi(-9),
            },
        };
        self.add(name, level, holds, bytes);
    }

    fn encrypt(&mut self, level: usize, scale: f64) -> Vec<u8> {
        let n = self.params.n();
        let (seed, mut c0) = (self.seed(), vec![0; (level + 1) * n]);
        let mut message = coefficients(n, scale);
        let rng = &mut self.rng;
        rlwe::encrypt_with_seed(
            self.params,
            &self.key,
            &mut message,
            level,
            &seed,
            rng,
            &mut c0,
        )
        .unwrap();
        let mut bytes = self.room(Kind::SeededCiphertext, level);
        wire::write_seeded(self.params, scale, &seed, &c0, &mut bytes).unwrap();
        bytes
    }

    fn read(&self, bytes: &[u8], level: usize) -> Ciphertext<Vec<u32>> {
        let half = || vec![0; (level + 1) * self.params.n()];
        wire::read_seeded(self.params, bytes, half(), half()).unwrap()
    }

    fn seeded(&mut self, level: usize) {
        let scale = 2f64.powi(20);
        let bytes = self.encrypt(level, scale);
        self.ciphertext("seeded", level, scale, false, bytes);
    }

    fn two_parts(&mut self, level: usize) {
        let scale = 1_000_000.0;
        let seeded = self.encrypt(level, scale);
        let mut bytes = self.room(Kind::Ciphertext, level);
        wire::write_ciphertext(self.params, &self.read(&seeded, level), &mut bytes).unwrap();
        self.ciphertext("two-parts", level, scale, false, bytes);
    }

    fn three_parts(&mut self, level: usize) {
        let scale = 2f64.powi(20);
        let bytes = self.encrypt(level, scale);
        let third = vec![0; (level + 1) * self.params.n()];
        let (x, y) = (self.read(&bytes, level), self.read(&bytes, level));
        let square = multiply(self.params, x, &y, third).unwrap();
        let mut bytes = self.room(Kind::ThreePartCiphertext, level);
        wire::write_ciphertext(self.params, &square, &mut bytes).unwrap();
        self.ciphertext("three-parts", level, scale * scale, true, bytes);
    }

    fn public_key(&mut self) {
        let (seed, mut errors) = (self.seed(), vec![0; self.params.n()]);
        let storage = vec![0; PublicKey::<Vec<u32>>::words(self.params)];
        let rng = &mut self.rng;
        let key =
            PublicKey::generate(self.params, &self.key, &seed, rng, &mut errors, storage).unwrap();
        let level = self.params.max_level();
        let mut bytes = self.room(Kind::PublicKey, level);
        wire::write_public_key(self.params, &key, &mut bytes).unwrap();
        self.add("public-key", level, Holds::PublicKey, bytes);
    }

    fn switching_key(&mut self, name: &str, target: SwitchTarget, level: usize) {
        let mut errors = vec![0; self.params.n()];
        let storage = vec![0; switching_key_words(self.params, level)];
        let rng = &mut self.rng;
        let key = SwitchKey::generate(
            self.params,
            &self.key,
            target,
            level,
            rng,
            &mut errors,
            storage,
        );
        let mut bytes = self.room(Kind::SwitchingKey, level);
        wire::write_switch_key(self.params, &key.unwrap(), &mut bytes).unwrap();
        let element = target.element();
        self.add(name, level, Holds::SwitchingKey { element }, bytes);
    }
}

fn make() -> (Golden, Vec<Vec<u8>>) {
    let mut small = Maker::new(&GOLDEN64, 64);
    small.seeded(2);
    small.two_parts(1);
    small.three_parts(2);
    small.public_key();
    small.switching_key("relinearization-key", SwitchTarget::Square, 1);
    let rotation = SwitchTarget::Galois(automorphism::rotation(64, 3));
    small.switching_key("rotation-key", rotation, 2);
    let mut real = Maker::new(&N4096_DEPTH3, 40);
    real.seeded(3);
    real.two_parts(0);
    let mut grouped = Maker::new(&GOLDEN64_GROUPED, 65);
    grouped.seeded(3);
    grouped.public_key();
    grouped.switching_key("relinearization-key", SwitchTarget::Square, 3);
    grouped.switching_key("rotation-key", rotation, 2);

    let mut keys = std::collections::BTreeMap::new();
    let (mut objects, mut files) = (Vec::new(), Vec::new());
    for maker in [small, real, grouped] {
        let character = |s: &i8| ['-', '0', '+'][(s + 1) as usize];
        let key = maker.secret.iter().map(character).collect();
        keys.insert(maker.params.name().into(), key);
        for (description, bytes) in maker.files {
            objects.push(description);
            files.push(bytes);
        }
    }
    (Golden { keys, objects }, files)
}

#[test]
fn the_files_are_what_fixed_seeds_give() {
    let (made, files) = make();
    if env::var_os("HE_EDGE_UPDATE_GOLDEN").is_some() {
        for (description, bytes) in made.objects.iter().zip(&files) {
            fs::write(golden::path(&description.file), bytes).unwrap();
        }
        let json = serde_json::to_string_pretty(&made).unwrap() + "\n";
        fs::write(golden::path("golden.json"), json).unwrap();
    }
    assert_eq!(golden::load(), made);
    for (description, bytes) in made.objects.iter().zip(&files) {
        assert_eq!(&description.bytes(), bytes, "{}", description.file);
    }
    // No file is left that nothing describes.
    let names = fs::read_dir(golden::path("")).unwrap();
    let binary = names.filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|ending| ending == "bin")
    });
    assert_eq!(binary.count(), made.objects.len());
}

#[test]
fn reading_gives_the_values() {
    let golden = golden::load();
    for d in &golden.objects {
        let (params, bytes) = (set(&d.set), d.bytes());
        let header = Header::parse(&bytes, params).unwrap();
        assert_eq!(header.level, d.level);
        let storage = vec![0; SecretKey::<Vec<u32>>::words(params)];
        let key = SecretKey::from_coefficients(params, storage, &golden.key(&d.set)).unwrap();
        match (&d.holds, header.object) {
            (Holds::PublicKey, Object::PublicKey) => {}
            (Holds::SwitchingKey { element: 0 }, Object::SwitchingKey { target }) => {
                assert_eq!(target, SwitchTarget::Square);
            }
            (&Holds::SwitchingKey { element }, Object::SwitchingKey { target }) => {
                assert_eq!(target, SwitchTarget::Galois(element));
            }
            (
                Holds::Ciphertext {
                    kind,
                    scale,
                    slots: expected,
                    error,
                },
                object,
            ) => {
                assert_eq!(object.kind() as u8, *kind);
                let half = || vec![0; (d.level + 1) * params.n()];
                let mut scratch = vec![0; (d.level + 1) * params.n()];
                let mut slots = vec![0.0; params.n()];
                let (level, scale) = (d.level, *scale);
                let got = match object.kind() {
                    Kind::ThreePartCiphertext => {
                        let parts = [half(), half(), half()];
                        let ct = wire::read_ciphertext(params, &bytes, parts).unwrap();
                        decrypt(params, &key, &ct, level, scale, &mut scratch, &mut slots)
                    }
                    Kind::SeededCiphertext => {
                        let ct = wire::read_seeded(params, &bytes, half(), half()).unwrap();
                        decrypt(params, &key, &ct, level, scale, &mut scratch, &mut slots)
                    }
                    _ => {
                        let parts = [half(), half()];
                        let ct = wire::read_ciphertext(params, &bytes, parts).unwrap();
                        decrypt(params, &key, &ct, level, scale, &mut scratch, &mut slots)
                    }
                };
                let got = got.unwrap();
                for (k, &[re, im]) in expected.iter().enumerate() {
                    let (x, y) = (got.slot(k).unwrap(), got.imaginary(k).unwrap());
                    assert!(
                        (x - re).abs() < *error && (y - im).abs() < *error,
                        "{}, slot {k}: {x} + {y} i",
                        d.file
                    );
                }
            }
            (holds, object) => panic!("{}: {object:?} for {holds:?}", d.file),
        }
    }
}

#[test]
fn a_changed_byte_is_refused_or_another_value() {
    for d in golden::load().objects {
        let (params, good) = (set(&d.set), d.bytes());
        let (bytes, words) = reread(params, &good).unwrap();
        assert_eq!(bytes, good, "{}", d.file);
        // Every byte of the small set's files and of the first hundred of the
        // others; of the rest of those, some.
        let (mut refused, mut read) = (0, 0);
        let places = (0..good.len()).filter(|at| params.n() == 64 || *at < 100 || at % 499 == 0);
        for at in places {
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= change;
                match reread(params, &bad) {
                    Err(_) => refused += 1,
                    Ok((bytes, other)) => {
                        assert_eq!(bytes, bad, "{}, byte {at}", d.file);
                        // Its words, or what the header says of them.
                        assert!(other != words || (6..20).contains(&at), "byte {at}");
                        read += 1;
                    }
                }
            }
        }
        assert!(refused > 40 && read > 40, "{}: {refused}, {read}", d.file);
    }
}
