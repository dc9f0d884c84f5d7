//! he-core, on one of its kernels.

use std::time::Duration;

use anyhow::Result;
use chacha20::ChaCha20Rng;
use he_core::ckks::encode::encode;
use he_core::ckks::evaluator::{
    Workspace, add, fast_workspace_words, hoisting_words, inner_sum_hoisted,
    inner_sum_hoisted_keys, multiply, multiply_plain, relinearize, rescale, rotate, square,
};
use he_core::ckks::{Ciphertext, Plaintext, decrypt};
use he_core::params::Params;
use he_core::ring::kernel::x86::Backend;
use he_core::ring::ntt;
use he_core::rlwe::keys::switching_key_words;
use he_core::rlwe::{
    self, KeySet, PublicKey, PublicScratch, SecretKey, SwitchKey, SwitchTarget, encrypt_public,
};
use rand_core::{Rng, SeedableRng, UnwrapErr};

use crate::chains::Chain;
use crate::clock::measure;
use crate::peer::{Operation, Peer};

type Words = Vec<u32>;

/// he-core under one chain.
pub struct HeEdge {
    backend: Backend,
    name: String,
    params: &'static Params,
    scale: f64,
    drops: &'static [usize],
    values: [Vec<f64>; 2],
    rng: ChaCha20Rng,
    secret: SecretKey<Words>,
    public: PublicKey<Words>,
    relin: SwitchKey<Words>,
    rotations: Vec<SwitchKey<Words>>,
    /// The first values, encoded.
    integers: Vec<i64>,
    plain: Plaintext<Words>,
    /// The values, encrypted.
    fresh: [Ciphertext<Words>; 2],
    scratch: Scratch,
}

/// Memory that operations use.
struct Scratch {
    floats: Vec<f64>,
    integers: Vec<i32>,
    words: Words,
    slots: Vec<f64>,
}

/// Words that are in memory: fresh pages would be first touched while measured.
fn words(count: usize) -> Words {
    vec![1; count]
}

fn copy(params: &Params, ct: &Ciphertext<Words>) -> Result<Ciphertext<Words>> {
    let (c0, c1) = ct.halves();
    let (c0, c1) = (c0.to_vec(), c1.to_vec());
    Ok(Ciphertext::new(params, ct.level(), ct.scale(), c0, c1)?)
}

impl HeEdge {
    /// Makes keys and operands.
    pub fn new(chain: &Chain, backend: Backend) -> Result<Self> {
        backend.select();
        let params = chain.params;
        let (n, level) = (params.n(), params.max_level());
        let half = (level + 1) * n;
        let mut seed = [0; 32];
        UnwrapErr(getrandom::SysRng).fill_bytes(&mut seed);
        let mut rng = ChaCha20Rng::from_seed(seed);
        let secret =
            SecretKey::generate(params, words(SecretKey::<Words>::words(params)), &mut rng)?;
        let mut errors = vec![0; n];
        rng.fill_bytes(&mut seed);
        let storage = words(PublicKey::<Words>::words(params));
        let public = PublicKey::generate(params, &secret, &seed, &mut rng, &mut errors, storage)?;
        let mut key = |target| {
            let count = switching_key_words(params, level);
            let (rng, errors) = (&mut rng, &mut errors);
            SwitchKey::generate(params, &secret, target, level, rng, errors, words(count))?
                .expanded(params, words(count))
        };
        let relin = key(SwitchTarget::Square)?;
        // The powers of two among them.
        let rotations = inner_sum_hoisted_keys(params, 1, params.slots())
            .map(&mut key)
            .collect::<Result<_, _>>()?;

        let values = [chain.values(1), chain.values(2)];
        let mut floats = vec![0.0; n];
        let mut integers = vec![0i64; n];
        let mut fresh = Vec::new();
        for values in values.iter().rev() {
            encode(values, chain.scale, &mut floats, &mut integers, |x| {
                x as i64
            })?;
            let (mut c0, mut c1) = (words(half), words(half));
            rng.fill_bytes(&mut seed);
            let mut message = integers.clone();
            rlwe::encrypt_with_seed(
                params,
                &secret,
                &mut message,
                level,
                &seed,
                &mut rng,
                &mut c0,
            )?;
            rlwe::expand_c1(params, &seed, &mut c1)?;
            fresh.push(Ciphertext::new(params, level, chain.scale, c0, c1)?);
        }
        fresh.reverse();
        let Ok(fresh) = fresh.try_into() else {
            unreachable!("two values were encrypted")
        };
        let plain = Plaintext::new(params, &integers, level, chain.scale, words(half))?;
        Ok(Self {
            backend,
            name: format!("he-edge {}", backend.name()),
            params,
            scale: chain.scale,
            drops: chain.drops,
            values,
            rng,
            secret,
            public,
            relin,
            rotations,
            integers,
            plain,
            fresh,
            scratch: Scratch {
                floats,
                integers: vec![0; 3 * n],
                words: words(
                    fast_workspace_words(params, level)
                        .max(hoisting_words(params, level))
                        .max(half)
                        .max(PublicScratch::words(params)),
                ),
                slots: vec![0.0; n],
            },
        })
    }

    fn level(&self) -> usize {
        self.params.max_level()
    }

    fn half(&self) -> usize {
        (self.level() + 1) * self.params.n()
    }
}

/// Divides by as many primes as a level of the circuit takes.
fn rescale_level(
    params: &Params,
    ct: &mut Ciphertext<Words>,
    primes: usize,
    scratch: &mut [u32],
) -> Result<()> {
    for _ in 0..primes {
        rescale(params, ct, &mut scratch[..params.n()])?;
    }
    Ok(())
}

impl Peer for HeEdge {
    fn name(&self) -> &str {
        &self.name
    }

    fn log_qp(&self) -> f64 {
        self.params.log_qp()
    }

    fn time(&mut self, operation: Operation, runs: usize) -> Result<Option<Vec<Duration>>> {
        self.backend.select();
        let (params, level, half, scale) = (self.params, self.level(), self.half(), self.scale);
        let n = params.n();
        let Self {
            values: [values, _],
            rng,
            secret,
            public,
            relin,
            rotations,
            integers,
            plain,
            fresh: [x, y],
            drops,
            scratch,
            ..
        } = self;
        let keys = KeySet::new(rotations);
        let primes = drops[0];
        let ciphertext = || copy(params, x);
        let with_third = || Ok((Some(copy(params, x)?), words(half)));
        let halves = || Ok([words(half), words(half)]);
        // A seed for each, as a client must have.
        let seed = |rng: &mut ChaCha20Rng| {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let lost = || anyhow::anyhow!("the operand is gone");
        let times = match operation {
            Operation::NttForward | Operation::NttInverse => measure(runs, ciphertext, |ct| {
                for part in ct.parts_mut() {
                    for (i, limb) in part.chunks_exact_mut(n).enumerate() {
                        let prime = params.prime(i)?;
                        if operation == Operation::NttForward {
                            ntt::forward(limb, prime)?;
                        } else {
                            ntt::inverse(limb, prime)?;
                        }
                    }
                }
                Ok(())
            }),
            Operation::Encode => measure(
                runs,
                || Ok((words(half), vec![1i64; n])),
                |(out, integers)| {
                    encode(values, scale, &mut scratch.floats, integers, |x| x as i64)?;
                    Plaintext::new(params, integers, level, scale, &mut out[..])?;
                    Ok(())
                },
            ),
            Operation::EncryptSecret => measure(
                runs,
                || Ok((integers.clone(), words(half))),
                |(message, c0)| {
                    let seed = seed(rng);
                    Ok(rlwe::encrypt_with_seed(
                        params, secret, message, level, &seed, rng, c0,
                    )?)
                },
            ),
            Operation::EncodeEncryptSecret => measure(
                runs,
                || Ok((vec![1i64; n], words(half))),
                |(message, c0)| {
                    let seed = seed(rng);
                    encode(values, scale, &mut scratch.floats, message, |x| x as i64)?;
                    Ok(rlwe::encrypt_with_seed(
                        params, secret, message, level, &seed, rng, c0,
                    )?)
                },
            ),
            Operation::EncryptPublic | Operation::EncodeEncryptPublic => {
                measure(runs, halves, |[c0, c1]| {
                    let memory = PublicScratch {
                        integers: &mut scratch.integers,
                        limbs: &mut scratch.words[..PublicScratch::words(params)],
                    };
                    if operation == Operation::EncodeEncryptPublic {
                        encode(values, scale, &mut scratch.floats, integers, |x| x as i64)?;
                    }
                    let halves = [&mut c0[..], &mut c1[..]];
                    Ok(encrypt_public(
                        params, public, integers, level, rng, memory, halves,
                    )?)
                })
            }
            Operation::DecryptDecode => measure(
                runs,
                || Ok(()),
                |()| {
                    let (words, slots) = (&mut scratch.words[..half], &mut scratch.slots);
                    decrypt(params, secret, x, level, scale, words, slots)?;
                    Ok(())
                },
            ),
            Operation::Add => measure(runs, ciphertext, |ct| Ok(add(params, ct, y)?)),
            Operation::MultiplyPlain => measure(runs, ciphertext, |ct| {
                Ok(multiply_plain(params, ct, plain)?)
            }),
            Operation::Multiply => measure(runs, with_third, |(ct, third)| {
                let ct = ct.take().ok_or_else(lost)?;
                Ok(multiply(params, ct, y, std::mem::take(third))?)
            }),
            Operation::Square => measure(runs, with_third, |(ct, third)| {
                let ct = ct.take().ok_or_else(lost)?;
                Ok(square(params, ct, std::mem::take(third))?)
            }),
            Operation::Relinearize => {
                let mut work = Workspace::new(params, level, &mut scratch.words)?;
                measure(
                    runs,
                    || Ok(Some(multiply(params, copy(params, x)?, y, words(half))?)),
                    |ct| {
                        let ct = ct.take().ok_or_else(lost)?;
                        Ok(relinearize(params, ct, relin, &mut work)?)
                    },
                )
            }
            Operation::Rescale => measure(runs, ciphertext, |ct| {
                rescale_level(params, ct, primes, &mut scratch.words)
            }),
            Operation::Rotate => {
                let mut work = Workspace::new(params, level, &mut scratch.words)?;
                measure(runs, ciphertext, |ct| {
                    Ok(rotate(params, ct, 1, keys, &mut work)?)
                })
            }
            Operation::EncodeMultiplyPlainRescale => measure(
                runs,
                || Ok((copy(params, x)?, words(half))),
                |(ct, out)| {
                    encode(values, scale, &mut scratch.floats, integers, |x| x as i64)?;
                    let plain = Plaintext::new(params, integers, level, scale, &mut out[..])?;
                    multiply_plain(params, ct, &plain)?;
                    rescale_level(params, ct, primes, &mut scratch.words)
                },
            ),
            Operation::MultiplyRelinearizeRescale | Operation::SquareRelinearizeRescale => {
                measure(runs, with_third, |(ct, third)| {
                    let (ct, third) = (ct.take().ok_or_else(lost)?, std::mem::take(third));
                    let product = if operation == Operation::SquareRelinearizeRescale {
                        square(params, ct, third)?
                    } else {
                        multiply(params, ct, y, third)?
                    };
                    let mut work = Workspace::new(params, level, &mut scratch.words)?;
                    let (mut ct, third) = relinearize(params, product, relin, &mut work)?;
                    rescale_level(params, &mut ct, primes, &mut scratch.words)?;
                    Ok((ct, third))
                })
            }
            Operation::InnerSum => measure(runs, ciphertext, |ct| {
                let words = &mut scratch.words;
                Ok(inner_sum_hoisted(
                    params,
                    ct,
                    1,
                    params.slots(),
                    keys,
                    words,
                )?)
            }),
        };
        times.map(Some)
    }

    fn circuit(&mut self) -> Result<Vec<f64>> {
        self.backend.select();
        let params = self.params;
        let mut ct = copy(params, &self.fresh[0])?;
        for (at, &primes) in self.drops.iter().enumerate() {
            let third = words(self.half());
            let product = if at == 0 {
                multiply(params, ct, &self.fresh[1], third)?
            } else {
                square(params, ct, third)?
            };
            let level = product.level();
            let count = fast_workspace_words(params, level);
            let mut work = Workspace::new(params, level, &mut self.scratch.words[..count])?;
            ct = relinearize(params, product, &self.relin, &mut work)?.0;
            rescale_level(params, &mut ct, primes, &mut self.scratch.words)?;
        }
        let (level, scale) = (ct.level(), ct.scale());
        let scratch = &mut self.scratch.words[..(level + 1) * params.n()];
        let slots = &mut self.scratch.slots;
        let result = decrypt(params, &self.secret, &ct, level, scale, scratch, slots)?;
        Ok((0..params.slots()).map_while(|i| result.slot(i)).collect())
    }
}
