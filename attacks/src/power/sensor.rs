//! What a sensor's encryptions leak, without noise.
//!
//! The sensor is he-core's: its key, its seeds, its ciphertexts. What its processor writes
//! while it multiplies is [`kernel`]'s, over the words of that encryption.

use chacha20::ChaCha20Rng;
use he_core::arith::Modulus;
use he_core::params::{Params, Prime};
use he_core::ring::{ntt, sample};
use he_core::rlwe::{CompactKey, Encryption, MaskedKey, expand_c1};
use he_core::{Error, Result};
use rand_core::{Rng, SeedableRng};

use super::kernel::{self, COEFFICIENTS, Leakage, Operands, POINTS, PROGRAM, Registers};

/// What the instructions of [`POINTS`] leak of one coefficient, without noise.
pub type Leak = [u8; 3];

/// Coefficients of a message are at most this in magnitude.
const MESSAGE: i32 = 1 << 14;

/// What one product of an encryption leaks, by both models of leakage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product([Vec<Leak>; 2]);

impl Product {
    /// Of the words that are multiplied: the key, the uniform half and the limb that the
    /// product is subtracted from.
    #[must_use]
    pub fn of(m: &Modulus, key: &[u32], uniform: &[u32], limb: &[u32]) -> Self {
        let mut registers = kernel::start(m);
        let mut product = Self([const { Vec::new() }; 2]);
        let pairs = key.as_chunks().0.iter().zip(uniform.as_chunks().0);
        for ((&key, &uniform), &limb) in pairs.zip(limb.as_chunks().0) {
            let operands = Operands { key, uniform, limb };
            let mut pair = [[Leak::default(); COEFFICIENTS]; 2];
            kernel::run(&mut registers, &operands, |number, before, after| {
                record(&mut pair, number, before, after);
            });
            product.extend(pair);
        }
        product
    }

    /// Of registers that were recorded: of two coefficients each those before every
    /// instruction of [`PROGRAM`], and those after the last.
    #[must_use]
    pub fn recorded<'r>(pairs: impl IntoIterator<Item = &'r Recording>) -> Self {
        let mut product = Self([const { Vec::new() }; 2]);
        for states in pairs {
            let mut pair = [[Leak::default(); COEFFICIENTS]; 2];
            for (number, two) in states.windows(2).enumerate() {
                record(&mut pair, number, &two[0], &two[1]);
            }
            product.extend(pair);
        }
        product
    }

    fn extend(&mut self, pair: [[Leak; COEFFICIENTS]; 2]) {
        for (leaks, pair) in self.0.iter_mut().zip(pair) {
            leaks.extend(pair);
        }
    }
}

/// Registers before every instruction of [`PROGRAM`], and after the last.
pub type Recording = [Registers; PROGRAM.len() + 1];

/// Notes what an instruction leaks, if it is looked at.
fn record(
    pair: &mut [[Leak; COEFFICIENTS]; 2],
    number: usize,
    before: &Registers,
    after: &Registers,
) {
    for (coefficient, points) in POINTS.iter().enumerate() {
        if let Some(point) = points.iter().position(|&at| at == number) {
            for (pair, leakage) in pair.iter_mut().zip(Leakage::ALL) {
                pair[coefficient][point] = leakage.of(number, before, after);
            }
        }
    }
}

/// One encryption: its halves, which are public, and what its products leak.
#[derive(Clone, Debug)]
struct Encrypted {
    uniform: Vec<u32>,
    ciphertext: Vec<u32>,
    products: Vec<Product>,
}

/// Traces of encryptions under one key, of one limb.
#[derive(Clone, Debug)]
pub struct Traces {
    prime: &'static Prime,
    words: usize,
    encrypted: Vec<Encrypted>,
}

impl Traces {
    /// None so far, of a limb.
    ///
    /// # Errors
    /// [`Error::Level`] for a limb that the set does not have.
    pub fn new(params: &'static Params, limb: usize) -> Result<Self> {
        Ok(Self {
            prime: params.prime(limb)?,
            words: params.n(),
            encrypted: Vec::new(),
        })
    }

    /// One encryption more.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are as many words as a limb has of everything.
    pub fn push(
        &mut self,
        uniform: &[u32],
        ciphertext: &[u32],
        products: Vec<Product>,
    ) -> Result<()> {
        let lengths = products.iter().flat_map(|p| p.0.iter().map(Vec::len));
        for got in lengths.chain([uniform.len(), ciphertext.len()]) {
            if got != self.words {
                return Err(Error::Length {
                    what: "trace",
                    expected: self.words,
                    got,
                });
            }
        }
        self.encrypted.push(Encrypted {
            uniform: uniform.to_vec(),
            ciphertext: ciphertext.to_vec(),
            products,
        });
        Ok(())
    }

    /// Of the limb.
    #[must_use]
    pub const fn modulus(&self) -> &'static Modulus {
        self.prime.modulus()
    }

    /// Words of a limb.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.words
    }

    /// Encryptions.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.encrypted.len()
    }

    /// Products of each encryption.
    #[must_use]
    pub fn products(&self) -> usize {
        self.encrypted.first().map_or(0, |e| e.products.len())
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.encrypted.is_empty()
    }

    /// A word of an encryption's uniform half, and of the ciphertext's other half.
    pub(super) fn public(&self, encryption: usize, index: usize) -> [u32; 2] {
        let encrypted = &self.encrypted[encryption];
        [encrypted.uniform[index], encrypted.ciphertext[index]]
    }

    /// What a product of an encryption leaks of a word.
    pub(super) fn leak(
        &self,
        encryption: usize,
        product: usize,
        index: usize,
        leakage: Leakage,
    ) -> Leak {
        let Product([weight, distance]) = &self.encrypted[encryption].products[product];
        match leakage {
            Leakage::Weight => weight[index],
            Leakage::Distance => distance[index],
        }
    }

    /// The same with uniform halves that belong to other encryptions: an analysis of them
    /// has to find nothing.
    #[must_use]
    pub fn shuffled(mut self) -> Self {
        let all = self.encrypted.iter_mut();
        let mut uniform: Vec<Vec<u32>> = all.map(|e| std::mem::take(&mut e.uniform)).collect();
        let by = uniform.len().min(1);
        uniform.rotate_left(by);
        for (encrypted, uniform) in self.encrypted.iter_mut().zip(uniform) {
            encrypted.uniform = uniform;
        }
        self
    }

    /// The key, if the words are a key's transform: one whose coefficients are -1, 0 and 1.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are as many words as a limb has.
    pub fn key_of(&self, words: &[u32]) -> Result<Option<Vec<i8>>> {
        let m = self.modulus();
        let plain = words.iter().map(|&word| m.canon(m.mont(word as i32, 1)));
        let mut limb: Vec<u32> = plain.collect();
        ntt::inverse(&mut limb, self.prime)?;
        let small = limb.iter().map(|&x| match m.centred(x) {
            x @ -1..=1 => Some(x as i8),
            _ => None,
        });
        Ok(small.collect())
    }
}

/// How a sensor holds its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// As it is ([`CompactKey`]).
    None,
    /// Less a mask that is drawn for every encryption ([`MaskedKey`]).
    Masked,
}

impl Protection {
    /// Its name in records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Masked => "masked key",
        }
    }

    /// Products per limb.
    #[must_use]
    pub const fn products(self) -> usize {
        match self {
            Self::None => 1,
            Self::Masked => 2,
        }
    }
}

/// Of every product of a limb the other factor, and what it is subtracted from.
pub(super) type Factors = Vec<[Vec<u32>; 2]>;

/// The key in one of its forms.
enum Key {
    Open(CompactKey<Vec<u8>>),
    Masked(MaskedKey<Vec<u32>>),
}

/// A sensor whose secret is known here, and to the analysis not.
pub struct Sensor {
    params: &'static Params,
    limb: usize,
    key: Key,
    coefficients: Vec<i8>,
    transform: Vec<u32>,
    rng: ChaCha20Rng,
    /// Of masks: the key's, and one that gives the same to the model.
    masks: [ChaCha20Rng; 2],
}

impl Sensor {
    /// With a key of its own, of which the limb with the smallest prime is looked at: one
    /// limb is the whole key.
    ///
    /// # Errors
    /// Those of he-core; none is expected.
    pub fn new(params: &'static Params, seed: u64, protection: Protection) -> Result<Self> {
        let bits = |i: &usize| params.prime(*i).map_or(u32::MAX, |p| p.modulus().value());
        let limb = (0..params.data_limbs()).min_by_key(bits).unwrap_or(0);
        let prime = params.prime(limb)?;
        let m = prime.modulus();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        // The same generator gives the same coefficients.
        let mut same = ChaCha20Rng::seed_from_u64(seed);
        let storage = vec![0; CompactKey::<Vec<u8>>::bytes(params)];
        let key = CompactKey::generate(params, storage, &mut rng)?;
        let drawn = (0..params.n()).map(|_| sample::ternary(&mut same) as i8);
        let coefficients: Vec<i8> = drawn.collect();
        let mont = |&s: &i8| m.canon(m.mont(i32::from(s), m.r2()));
        let mut transform: Vec<u32> = coefficients.iter().map(mont).collect();
        ntt::forward(&mut transform, prime)?;
        let [mut masks, mut same_masks] = [!seed; 2].map(ChaCha20Rng::seed_from_u64);
        let key = match protection {
            Protection::None => Key::Open(key),
            Protection::Masked => {
                let storage = vec![0; MaskedKey::<Vec<u32>>::words(params)];
                let key = MaskedKey::new(params, &key, storage, &mut masks)?;
                for _ in 0..params.data_limbs() {
                    seed_of_mask(&mut same_masks);
                }
                Key::Masked(key)
            }
        };
        Ok(Self {
            params,
            limb,
            key,
            coefficients,
            transform,
            rng,
            masks: [masks, same_masks],
        })
    }

    /// The limb that is looked at.
    #[must_use]
    pub const fn limb(&self) -> usize {
        self.limb
    }

    /// The key: what an analysis is compared with.
    #[must_use]
    pub fn coefficients(&self) -> &[i8] {
        &self.coefficients
    }

    /// The words of its transform, in Montgomery form.
    #[must_use]
    pub fn transform(&self) -> &[u32] {
        &self.transform
    }

    /// Traces of encryptions of random messages.
    ///
    /// # Errors
    /// Those of he-core; none is expected.
    pub fn traces(&mut self, encryptions: usize) -> Result<Traces> {
        let mut traces = Traces::new(self.params, self.limb)?;
        for _ in 0..encryptions {
            let ([uniform, ciphertext], products) = self.encrypt()?;
            let products = products
                .iter()
                .map(|[key, limb]| Product::of(traces.modulus(), key, &uniform, limb));
            traces.push(&uniform, &ciphertext, products.collect())?;
        }
        Ok(traces)
    }

    /// The limbs of both halves; and of every product the other factor and what it is
    /// subtracted from.
    pub(super) fn encrypt(&mut self) -> Result<([Vec<u32>; 2], Factors)> {
        let (params, n) = (self.params, self.params.n());
        let mut message: Vec<i32> = (0..n)
            .map(|_| (self.rng.next_u32() >> 17) as i32 - MESSAGE)
            .collect();
        let (mut scratch, mut c0) = (vec![0; n], vec![0; n]);
        let mut encryption = Encryption::start(params, &mut message, &mut scratch, &mut self.rng)?;
        let m = params.prime(self.limb)?.modulus();
        let transform = self.transform.clone();
        let factors = match &mut self.key {
            Key::Open(key) => {
                encryption.limb(key, self.limb, &mut c0)?;
                vec![transform]
            }
            Key::Masked(key) => {
                let [masks, same] = &mut self.masks;
                encryption.masked_limb(key, self.limb, &mut c0, masks)?;
                let mut mask = vec![0; n];
                let stream = sample::stream(sample::Domain::KeyMask, 0, self.limb);
                sample::Uniform::new(&seed_of_mask(same), stream, m).fill(&mut mask);
                let pairs = transform.iter().zip(&mask);
                let share = pairs.map(|(&s, &mask)| m.sub(s, mask)).collect();
                vec![share, mask]
            }
        };
        let mut halves = vec![0; (self.limb + 1) * n];
        expand_c1(params, encryption.seed(), &mut halves)?;
        let uniform = halves.split_off(self.limb * n);
        // Backwards from the ciphertext.
        let ciphertext = c0.clone();
        let mut products = Vec::new();
        for factor in factors.into_iter().rev() {
            for ((x, &a), &s) in c0.iter_mut().zip(&uniform).zip(&factor) {
                *x = m.add(*x, m.canon(m.mont(a as i32, s as i32)));
            }
            products.push([factor, c0.clone()]);
        }
        products.reverse();
        Ok(([uniform, ciphertext], products))
    }
}

/// The next seed, as [`MaskedKey`] draws it.
fn seed_of_mask(rng: &mut ChaCha20Rng) -> [u8; sample::SEED_LEN] {
    let mut seed = [0; sample::SEED_LEN];
    rng.fill_bytes(&mut seed);
    seed
}

#[cfg(test)]
mod tests {
    use super::*;
    use he_core::params::{N2048_DEPTH1, N4096_DEPTH3};

    /// The words that the model works on are those of he-core's encryption: what is left
    /// without the product is a message with its error.
    #[test]
    fn words_are_those_of_an_encryption() {
        let sets = [&N2048_DEPTH1, &N4096_DEPTH3];
        let protections = [Protection::None, Protection::Masked];
        for (params, protection) in sets.into_iter().zip(protections.into_iter().cycle()) {
            words_are_those(params, protection);
        }
        words_are_those(sets[0], protections[1]);
    }

    fn words_are_those(params: &'static Params, protection: Protection) {
        let mut sensor = Sensor::new(params, 5, protection).unwrap();
        // The second time a mask replaces another.
        for _ in 0..2 {
            let (_, products) = sensor.encrypt().unwrap();
            assert_eq!(products.len(), protection.products());
            let [_, mut limb] = products[0].clone();
            let prime = params.prime(sensor.limb).unwrap();
            ntt::inverse(&mut limb, prime).unwrap();
            let m = prime.modulus();
            assert!(m.value() as i32 > 2 * (MESSAGE + 21));
            let largest = limb.iter().map(|&x| m.centred(x).abs()).max();
            assert!(largest.unwrap() <= MESSAGE + 21, "{largest:?}");
            let traces = Traces::new(params, sensor.limb).unwrap();
            let key = traces.key_of(sensor.transform()).unwrap();
            assert_eq!(key.as_deref(), Some(sensor.coefficients()));
        }
    }
}
