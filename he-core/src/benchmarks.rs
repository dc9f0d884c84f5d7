//! The operations that are measured, once for all who measure them: `he-edge
//! bench` and the criterion benches in microseconds, the firmware's program
//! `bench` in instructions. Keys here are drawn from a fixed seed: this is not a
//! way to encrypt anything.
//!
//! [`Operations::prepare`] restores the operands, [`Operations::run`] is what is
//! measured.

pub mod drawn;
pub mod subjects;

use crate::ckks::decrypt::decode;
use crate::ckks::encode::{Real, encode};
use crate::ckks::evaluator::{
    Workspace, add, multiply, multiply_plain, relinearize, rescale, rotate, workspace_words,
};
use crate::ckks::{Ciphertext, Plaintext};
use crate::error::{Error, Result};
use crate::params::Params;
use crate::ring::automorphism::rotation;
use crate::ring::ntt;
use crate::ring::sample::{SEED_LEN, Uniform};
use crate::rlwe::keys::{switching_key, switching_key_words};
use crate::rlwe::{self, KeySet, PublicKey, PublicScratch, SecretKey, SwitchKey, SwitchTarget};
use chacha20::ChaCha20Rng;
use core::mem;
use rand_core::SeedableRng;

/// What slots are encoded in: double precision on a host, single on a board.
#[cfg(not(target_os = "none"))]
pub type Float = f64;
/// What slots are encoded in: double precision on a host, single on a board.
#[cfg(target_os = "none")]
pub type Float = f32;

/// The scale of all messages, and with it the error of single precision.
const SCALE: f64 = (1u64 << 20) as f64;

const SEED: [u8; SEED_LEN] = [1; SEED_LEN];

/// An operation. All but the transforms work on all data primes, at the
/// highest level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Forward transform of one limb.
    NttForward,
    /// Inverse transform of one limb.
    NttInverse,
    /// `N / 2` real values to a plaintext in the NTT domain.
    Encode,
    /// Coefficients modulo all primes to `N / 2` values, in double precision.
    Decode,
    /// Of integers, under the secret key; the uniform half is a seed.
    EncryptSecret,
    /// Real values to a ciphertext, as a client does for each of its inputs:
    /// encoding to integers and [`Self::EncryptSecret`].
    EncodeEncrypt,
    /// Of integers, under a public key.
    EncryptPublic,
    /// To coefficients modulo all primes.
    Decrypt,
    /// Two ciphertexts.
    Add,
    /// Ciphertext by encoded plaintext.
    MultiplyPlain,
    /// Two ciphertexts, to three parts.
    MultiplyCt,
    /// Three parts to two; the key's uniform half is expanded from its seed.
    Relinearize,
    /// Two parts.
    Rescale,
    /// By one slot; the key's uniform half is expanded from its seed.
    Rotate,
    /// A relinearisation key.
    KeygenRelin,
    /// The key of one rotation.
    KeygenRotation,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::NttForward,
        Self::NttInverse,
        Self::Encode,
        Self::Decode,
        Self::EncryptSecret,
        Self::EncodeEncrypt,
        Self::EncryptPublic,
        Self::Decrypt,
        Self::Add,
        Self::MultiplyPlain,
        Self::MultiplyCt,
        Self::Relinearize,
        Self::Rescale,
        Self::Rotate,
        Self::KeygenRelin,
        Self::KeygenRotation,
    ];

    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NttForward => "ntt_forward",
            Self::NttInverse => "ntt_inverse",
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::EncryptSecret => "encrypt_secret",
            Self::EncodeEncrypt => "encode_encrypt",
            Self::EncryptPublic => "encrypt_public",
            Self::Decrypt => "decrypt",
            Self::Add => "add",
            Self::MultiplyPlain => "multiply_plain",
            Self::MultiplyCt => "multiply_ct",
            Self::Relinearize => "relinearize",
            Self::Rescale => "rescale",
            Self::Rotate => "rotate",
            Self::KeygenRelin => "keygen_relin",
            Self::KeygenRotation => "keygen_rotation",
        }
    }

    /// Limbs that it works on.
    #[must_use]
    pub const fn limbs(self, params: &Params) -> usize {
        match self {
            Self::NttForward | Self::NttInverse => 1,
            _ => params.data_limbs(),
        }
    }
}

/// What the operations work in; each slice may be longer than needed.
#[derive(Debug)]
pub struct Memory<'a> {
    /// [`Memory::words`].
    pub words: &'a mut [u32],
    /// `4 N`.
    pub integers: &'a mut [i32],
    /// `2 N`.
    pub floats: &'a mut [Float],
    /// `N`.
    pub doubles: &'a mut [f64],
}

impl Memory<'_> {
    /// Words that a set takes.
    #[must_use]
    pub const fn words(params: &Params) -> usize {
        let (n, limbs) = (params.n(), params.data_limbs());
        // Two keys and a third that is generated; the secret and the public
        // key; two ciphertexts, one in three parts, and a plaintext.
        3 * switching_key_words(params, params.max_level())
            + 2 * params.limbs() * n
            + 6 * limbs * n
            + scratch_words(params)
    }
}

/// The largest scratch: a key switch's, public-key encryption's, decryption's.
const fn scratch_words(params: &Params) -> usize {
    let switch = workspace_words(params, params.max_level());
    let limbs = params.data_limbs() * params.n();
    let public = PublicScratch::words(params);
    let larger = if switch > limbs { switch } else { limbs };
    if larger > public { larger } else { public }
}

type Limbs<'a> = &'a mut [u32];

/// The operand that an operation changes.
#[derive(Debug)]
enum Operand<'a> {
    Two(Ciphertext<Limbs<'a>>, Limbs<'a>),
    Three(Ciphertext<Limbs<'a>, 3>),
    /// An operation failed with it.
    Lost,
}

/// Keys, operands and scratch.
#[derive(Debug)]
pub struct Operations<'a> {
    params: &'static Params,
    rng: ChaCha20Rng,
    secret: SecretKey<Limbs<'a>>,
    public: PublicKey<Limbs<'a>>,
    relin: SwitchKey<Limbs<'a>>,
    rotation: [SwitchKey<Limbs<'a>>; 1],
    other: Ciphertext<Limbs<'a>>,
    plain: Plaintext<Limbs<'a>>,
    operand: Operand<'a>,
    generated: Limbs<'a>,
    scratch: Limbs<'a>,
    message: &'a mut [i32],
    integers: &'a mut [i32],
    values: &'a mut [Float],
    buffer: &'a mut [Float],
    slots: &'a mut [f64],
}

/// Takes the first `count` elements.
fn take<'a, T>(memory: &mut &'a mut [T], count: usize) -> Result<&'a mut [T]> {
    let got = memory.len();
    let (taken, rest) = mem::take(memory)
        .split_at_mut_checked(count)
        .ok_or(Error::Length {
            what: "benchmark memory",
            expected: count,
            got,
        })?;
    *memory = rest;
    Ok(taken)
}

/// A uniform ciphertext half: what an operation costs does not depend on it.
fn uniform(params: &Params, stream: u64, half: &mut [u32]) -> Result<()> {
    for (i, limb) in half.chunks_exact_mut(params.n()).enumerate() {
        Uniform::new(&SEED, stream << 32 | i as u64, params.prime(i)?.modulus()).fill(limb);
    }
    Ok(())
}

impl<'a> Operations<'a> {
    /// Draws keys and operands.
    ///
    /// # Errors
    /// [`Error::Length`] where the memory is too short.
    pub fn new(params: &'static Params, memory: Memory<'a>) -> Result<Self> {
        let Memory {
            mut words,
            mut integers,
            mut floats,
            mut doubles,
        } = memory;
        let (n, level) = (params.n(), params.max_level());
        let half = params.data_limbs() * n;
        let mut rng = ChaCha20Rng::from_seed(SEED);

        let storage = take(&mut words, SecretKey::<Limbs<'_>>::words(params))?;
        let secret = SecretKey::generate(params, storage, &mut rng)?;
        let storage = take(&mut words, PublicKey::<Limbs<'_>>::words(params))?;
        let errors = take(&mut integers, n)?;
        let public = PublicKey::generate(params, &secret, &SEED, &mut rng, errors, storage)?;
        let mut key = |target, errors: &mut [i32]| {
            let storage = take(&mut words, switching_key_words(params, level))?;
            SwitchKey::generate(params, &secret, target, level, &mut rng, errors, storage)
        };
        let relin = key(SwitchTarget::Square, errors)?;
        let turn = key(SwitchTarget::Galois(rotation(n, 1)), errors)?;
        let generated = take(&mut words, switching_key_words(params, level))?;

        let [c0, c1] = [take(&mut words, half)?, take(&mut words, half)?];
        uniform(params, 1, c0)?;
        uniform(params, 2, c1)?;
        let other = Ciphertext::new(params, level, SCALE, c0, c1)?;
        let [c0, c1] = [take(&mut words, half)?, take(&mut words, half)?];
        let operand = Ciphertext::zero(params, level, SCALE, c0, c1)?;
        let operand = Operand::Two(operand, take(&mut words, half)?);

        let (values, buffer) = (take(&mut floats, n)?, take(&mut floats, n)?);
        for (i, x) in values.iter_mut().enumerate() {
            // -1 to 1 in steps of 1/128.
            *x = Float::from_f64(f64::from(((i * 37) & 255) as u32) / 128.0 - 1.0);
        }
        // The second half of the values is not encoded.
        let values = values.get_mut(..n >> 1).unwrap_or_default();
        encode(values, SCALE, buffer, errors, |x| x as i32)?;
        let plain = Plaintext::new(params, errors, level, SCALE, take(&mut words, half)?)?;
        Ok(Self {
            params,
            rng,
            secret,
            public,
            relin,
            rotation: [turn],
            other,
            plain,
            operand,
            generated,
            scratch: take(&mut words, scratch_words(params))?,
            message: errors,
            integers: take(&mut integers, 3 * n)?,
            values,
            buffer,
            slots: take(&mut doubles, n)?,
        })
    }

    /// Restores the operands of `operation`.
    ///
    /// # Errors
    /// [`Error::Parts`] after an operation that failed.
    pub fn prepare(&mut self, operation: Operation) -> Result<()> {
        let params = self.params;
        let level = params.max_level();
        let parts = match mem::replace(&mut self.operand, Operand::Lost) {
            Operand::Two(ct, third) => {
                let (c0, c1) = ct.into_storage();
                [c0, c1, third]
            }
            Operand::Three(ct) => ct.into_parts(),
            Operand::Lost => {
                return Err(Error::Parts {
                    operation: "benchmark",
                    expected: 2,
                    got: 0,
                });
            }
        };
        let [c0, c1, c2] = parts;
        for (stream, part) in (3..).zip([&mut *c0, &mut *c1, &mut *c2]) {
            uniform(params, stream, part)?;
        }
        self.operand = match operation {
            Operation::Relinearize => {
                Operand::Three(Ciphertext::from_parts(params, level, SCALE, [c0, c1, c2])?)
            }
            _ => Operand::Two(Ciphertext::new(params, level, SCALE, c0, c1)?, c2),
        };
        // Encryption adds its error to the message.
        encode(self.values, SCALE, self.buffer, self.message, |x| x as i32)
    }

    /// Runs `operation` on the operands that [`Self::prepare`] restored for it.
    ///
    /// # Errors
    /// Those of the operation.
    // A function of its own in every program: what counts instructions looks for its name.
    #[inline(never)]
    pub fn run(&mut self, operation: Operation) -> Result<()> {
        let (params, n) = (self.params, self.params.n());
        let level = params.max_level();
        let (mut ct, mut third) = match mem::replace(&mut self.operand, Operand::Lost) {
            Operand::Two(ct, third) => (ct, third),
            Operand::Three(ct) => {
                let mut work = Workspace::new(params, level, self.scratch)?;
                let (ct, third) = relinearize(params, ct, &self.relin, &mut work)?;
                self.operand = Operand::Two(ct, third);
                return Ok(());
            }
            Operand::Lost => return self.prepare(operation),
        };
        match operation {
            Operation::NttForward | Operation::NttInverse => {
                let prime = params.prime(0)?;
                let limb = third.get_mut(..n).unwrap_or_default();
                if operation == Operation::NttForward {
                    ntt::forward(limb, prime)?;
                } else {
                    ntt::inverse(limb, prime)?;
                }
            }
            Operation::Encode => {
                encode(self.values, SCALE, self.buffer, self.message, |x| x as i32)?;
                let storage = mem::take(&mut third);
                let plain = Plaintext::new(params, self.message, level, SCALE, storage)?;
                third = plain.into_storage();
            }
            Operation::Decode => {
                decode(params, third, SCALE, self.slots)?;
            }
            Operation::EncryptSecret | Operation::EncodeEncrypt => {
                if operation == Operation::EncodeEncrypt {
                    encode(self.values, SCALE, self.buffer, self.message, |x| x as i32)?;
                }
                let (c0, _) = ct.halves_mut();
                let (secret, rng) = (&self.secret, &mut self.rng);
                rlwe::encrypt_with_seed(params, secret, self.message, level, &SEED, rng, c0)?;
            }
            Operation::EncryptPublic => {
                let scratch = PublicScratch {
                    integers: self.integers,
                    limbs: self
                        .scratch
                        .get_mut(..PublicScratch::words(params))
                        .unwrap_or_default(),
                };
                let (public, rng, halves) = (&self.public, &mut self.rng, ct.halves_mut());
                let message = &*self.message;
                rlwe::encrypt_public(params, public, message, level, rng, scratch, halves.into())?;
            }
            Operation::Decrypt => {
                let (c0, c1) = ct.halves();
                rlwe::decrypt(params, &self.secret, [c0, c1], third)?;
            }
            Operation::Add => add(params, &mut ct, &self.other)?,
            Operation::MultiplyPlain => multiply_plain(params, &mut ct, &self.plain)?,
            Operation::MultiplyCt => {
                self.operand = Operand::Three(multiply(params, ct, &self.other, third)?);
                return Ok(());
            }
            Operation::Relinearize => {}
            Operation::Rescale => {
                let scratch = self.scratch.get_mut(..n).unwrap_or_default();
                rescale(params, &mut ct, scratch)?;
            }
            Operation::Rotate => {
                let mut work = Workspace::new(params, level, self.scratch)?;
                rotate(params, &mut ct, 1, KeySet::new(&self.rotation), &mut work)?;
            }
            Operation::KeygenRelin | Operation::KeygenRotation => {
                let target = match operation {
                    Operation::KeygenRelin => SwitchTarget::Square,
                    _ => SwitchTarget::Galois(rotation(n, 1)),
                };
                let errors = self.integers.get_mut(..n).unwrap_or_default();
                let (secret, rng, out) = (&self.secret, &mut self.rng, &mut *self.generated);
                switching_key(params, secret, target, level, &SEED, rng, errors, out)?;
            }
        }
        self.operand = Operand::Two(ct, third);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{N4096_DEPTH3, N8192_SCALE40};

    #[test]
    fn every_operation_runs_twice_in_the_memory_it_asks_for() {
        run_twice(&N4096_DEPTH3);
        run_twice(&N8192_SCALE40);
    }

    fn run_twice(params: &'static Params) {
        let n = params.n();
        let mut words = vec![0; Memory::words(params)];
        let (mut integers, mut floats, mut doubles) =
            (vec![0; 4 * n], vec![0.0; 2 * n], vec![0.0; n]);
        let mut operations = Operations::new(
            params,
            Memory {
                words: &mut words,
                integers: &mut integers,
                floats: &mut floats,
                doubles: &mut doubles,
            },
        )
        .unwrap();
        for operation in Operation::ALL {
            for _ in 0..2 {
                operations.prepare(operation).unwrap();
                operations.run(operation).unwrap();
                assert!(
                    !matches!(operations.operand, Operand::Lost),
                    "{operation:?}"
                );
            }
        }
    }
}
