//! A sensor: holds a secret key, encodes and encrypts what it measures, and
//! sends ciphertexts; the same state machine on a board, in a process and in
//! tests. Its messages are framed by [`crate::link`] like those of the
//! evaluator, but are another protocol: a sensor is no evaluator.
//!
//! ```text
//! Hello -> card          Values -> ready (as often as needed)
//! Entropy -> ready       Encrypt -> seed, chunks of c0, done
//! NewKey -> ready
//! ```
//!
//! One request is answered before the next is sent. The key is made here and
//! never leaves; no reply holds a secret.
//!
//! # Randomness
//!
//! Key, seeds and errors come from one ChaCha20 stream, which only moves
//! forward: two encryptions never share a piece of it, and a failed one is not
//! taken back. Without entropy since the start nothing is drawn at all. Entropy
//! that comes later is mixed with what the stream gives next, so the same bytes
//! sent twice do not repeat a stream ([`absorb`]). **After a restart they do**,
//! the key included: a source must not repeat itself. That is why a board takes
//! entropy from the link only where it is emulated
//! ([`Platform::host_supplies`]).
//!
//! # Time
//!
//! What is encoded and encrypted is secret. The encoder's additions and
//! multiplications of `f32` take a fixed time on Cortex-M4F, M7 and M33 with
//! their FPU, subnormal numbers included; its divisions are of public numbers.
//! A target without FPU computes them in software, whose time depends on the
//! values: firmware refuses to be built for it as a sensor.
//!
//! # Memory
//!
//! Three limbs and two bits per coefficient. One limb holds values, then coefficients, then
//! coefficients with their errors, in place; one the key's transform, one the ciphertext's
//! limb. The key is 1 KiB and is transformed anew for every limb: its four transforms, kept
//! packed, would save 0.7 of 3.5 million instructions for 28 KiB, kept as words 0.8 for 48.
//! The same randomness gives the ciphertexts of `he_core::rlwe::encrypt`, bit for bit.
//!
//! # Power and emissions
//!
//! Whoever measures what the processor takes over hundreds of encryptions learns the key:
//! it is the fixed factor of products with public numbers. [`Sensor::masked`] holds the key
//! under masks that change with every limb of every encryption
//! ([`he_core::rlwe::masked`], which says what that does not cover), for two limbs and the
//! transforms of all data primes: 96 KiB rather than 49. What it draws for masks moves its
//! stream on, so later ciphertexts are others than an open sensor's.

use bytemuck::{cast_slice, cast_slice_mut};
use chacha20::ChaCha20Rng;
use he_core::ckks::encode::encode_in_place;
use he_core::ckks::scale::check_scale;
use he_core::error::Error;
use he_core::params::Params;
use he_core::rlwe::{CompactKey, Encryption, MaskedKey};
use he_core::wire::{pack, packed_len};
use rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::message::{CHUNK_COEFFS, Fault, MAX_CHUNK_BYTES, Memory, SEED_BYTES, TimeUnit};

/// Version of the messages and of the framing; both sides must agree exactly.
pub const SENSOR_VERSION: u16 = 1;

/// Bytes of entropy in one message: a whole seed of the generator.
pub const ENTROPY_BYTES: usize = 32;

/// Bytes of one value, an IEEE 754 binary32, little endian.
pub const VALUE_BYTES: usize = 4;

/// Most values in one message.
pub const MAX_VALUES: usize = MAX_CHUNK_BYTES / VALUE_BYTES;

/// To a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Opens the conversation; answered by [`Reply::Hello`].
    Hello {
        /// The client's [`SENSOR_VERSION`].
        version: u16,
    },
    /// Entropy in place of a hardware source; see [`Platform::host_supplies`].
    Entropy {
        /// 32 bytes that nobody else knows and that were never used before.
        bytes: [u8; ENTROPY_BYTES],
    },
    /// Draws a new secret key.
    NewKey,
    /// Measured values in place of a hardware sensor, for slots that are zero
    /// otherwise.
    Values {
        /// First slot; from N / 2 on, imaginary part of slot `offset - N / 2`.
        offset: u16,
        /// The values, [`VALUE_BYTES`] each.
        #[serde(borrow)]
        bytes: &'a [u8],
    },
    /// Encrypts the values, which are gone afterwards.
    Encrypt {
        /// Level of the ciphertext.
        level: u8,
        /// Bits of the `f64` scale.
        scale_bits: u64,
    },
}

/// What a sensor says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card<'a> {
    /// The sensor's [`SENSOR_VERSION`].
    pub version: u16,
    /// Board name.
    pub board: &'a str,
    /// Fingerprint of the parameter set.
    pub params: u32,
    /// Unit of every time it reports.
    pub unit: TimeUnit,
    /// It has had entropy since its start.
    pub seeded: bool,
    /// It holds a key.
    pub key: bool,
}

/// What an encryption took, in the card's unit, sending excluded; 0 without a
/// clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Slots to integer coefficients.
    pub encode: u64,
    /// The seed, and an error for every coefficient.
    pub errors: u64,
    /// For every limb: key and message transformed, the uniform half expanded
    /// and multiplied.
    pub limbs: u64,
    /// Bit-packing.
    pub pack: u64,
    /// Erasing the message and the key's transform.
    pub erase: u64,
}

impl Times {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.encode
            .saturating_add(self.errors)
            .saturating_add(self.limbs)
            .saturating_add(self.pack)
            .saturating_add(self.erase)
    }
}

/// From a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// Answer to [`Request::Hello`].
    #[serde(borrow)]
    Hello(Card<'a>),
    /// The request was carried out.
    Ready,
    /// Seed of the uniform half `c1` of a ciphertext.
    Seed {
        /// 32 public bytes.
        seed: [u8; SEED_BYTES],
    },
    /// [`CHUNK_COEFFS`] coefficients of `c0` (NTT domain, bit-packed), limb by
    /// limb in order.
    Chunk {
        /// Limb in the modulus chain.
        limb: u8,
        /// First coefficient.
        offset: u16,
        /// Packed coefficients.
        bytes: &'a [u8],
    },
    /// The ciphertext is complete.
    Done {
        /// Memory figures.
        memory: Memory,
        /// What it took.
        times: Times,
    },
    /// The request was refused; nothing was drawn, sent or changed, except that
    /// [`Refusal::Range`] drops the values.
    Refused(Refusal),
    /// The sensor failed and restarts, without its key.
    Fault(Fault<'a>),
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The protocol versions differ.
    Version {
        /// What the sensor speaks.
        sensor: u16,
        /// What the client speaks.
        client: u16,
    },
    /// A frame was not decodable.
    Frame {
        /// Bytes of the frame as received.
        received: u32,
    },
    /// This board has its own entropy and measures by itself.
    NotSupplied,
    /// There was no entropy since the start.
    NoEntropy,
    /// There is no key yet.
    NoKey,
    /// There are no values since the last encryption.
    NoValues,
    /// Values that are none: a broken number of bytes, or more than there are
    /// slots.
    Slots {
        /// First slot.
        offset: u16,
        /// Bytes that came.
        bytes: u16,
        /// Slots, real and imaginary parts counted apart.
        slots: u16,
    },
    /// A value is infinite or not a number; none of the message was taken.
    NotFinite {
        /// Its slot.
        slot: u16,
    },
    /// A level that the parameter set does not have.
    Level {
        /// The highest.
        highest: u8,
        /// What was asked for.
        got: u8,
    },
    /// A scale that is not positive and finite.
    Scale,
    /// A coefficient does not fit at this scale; the values are gone.
    Range {
        /// log2 of the largest magnitude allowed.
        limit_log2: u32,
    },
    /// The memory does not suit the parameter set.
    Internal,
}

/// What a sensor asks of the machine that it runs on.
pub trait Platform {
    /// Name of the board.
    fn board(&self) -> &'static str;
    /// What [`Self::now`] counts.
    fn unit(&self) -> TimeUnit;
    /// A monotonic count.
    fn now(&mut self) -> u64;
    /// Memory figures up to now.
    fn memory(&mut self) -> Memory;
    /// Whether whoever is at the other end of the link stands for the entropy
    /// source and the sensing hardware: only where both are emulated.
    fn host_supplies(&self) -> bool;
    /// A seed of the machine's own entropy source; none where it has no such source, or one
    /// that finds itself broken.
    fn entropy(&mut self) -> Option<[u8; ENTROPY_BYTES]>;
}

/// The generator after `entropy` has come: the first is its seed; later ones
/// are mixed with the next 32 bytes of the stream that they end.
#[must_use]
pub fn absorb(running: Option<ChaCha20Rng>, mut entropy: [u8; ENTROPY_BYTES]) -> ChaCha20Rng {
    if let Some(mut running) = running {
        let mut drawn = [0; ENTROPY_BYTES];
        running.fill_bytes(&mut drawn);
        for (e, d) in entropy.iter_mut().zip(drawn) {
            *e ^= d;
        }
        drawn.zeroize();
    }
    let generator = ChaCha20Rng::from_seed(entropy);
    entropy.zeroize();
    generator
}

/// The key and where it lies.
enum Key<'a> {
    None(&'a mut [u32]),
    Held(CompactKey<&'a mut [u8]>),
    Masked(MaskedKey<&'a mut [u32]>),
}

/// A sensor over three limbs and a packed key; or, [`Self::masked`], over two and a key
/// under masks. Which one is decided by type, so that the image of one has nothing of the
/// other.
pub struct Sensor<'a, const MASKED: bool = false> {
    params: &'static Params,
    rng: Option<ChaCha20Rng>,
    key: Option<Key<'a>>,
    /// Values as `f32`, then coefficients as `i32`: N words.
    slots: &'a mut [u32],
    measured: bool,
    /// None for a key under masks.
    scratch: &'a mut [u32],
    limb: &'a mut [u32],
}

/// Words of memory that a sensor takes.
#[must_use]
pub const fn arena_words(params: &Params) -> usize {
    3 * params.n() + key_words(params)
}

/// Words of memory that a sensor with its key under masks takes.
#[must_use]
pub const fn masked_arena_words(params: &Params) -> usize {
    2 * params.n() + MaskedKey::<&mut [u32]>::words(params)
}

const fn key_words(params: &Params) -> usize {
    CompactKey::<&mut [u8]>::bytes(params).div_ceil(size_of::<u32>())
}

impl<'a> Sensor<'a, false> {
    /// A sensor without entropy and key.
    ///
    /// # Errors
    /// [`Error::Length`] unless `arena` has [`arena_words`] words.
    pub fn new(params: &'static Params, arena: &'a mut [u32]) -> Result<Self, Error> {
        Self::over(params, arena, arena_words(params), params.n())
    }
}

impl<'a> Sensor<'a, true> {
    /// A sensor without entropy and key, which will hold its key under masks.
    ///
    /// # Errors
    /// [`Error::Length`] unless `arena` has [`masked_arena_words`] words.
    pub fn masked(params: &'static Params, arena: &'a mut [u32]) -> Result<Self, Error> {
        Self::over(params, arena, masked_arena_words(params), 0)
    }
}

impl<'a, const MASKED: bool> Sensor<'a, MASKED> {
    fn over(
        params: &'static Params,
        arena: &'a mut [u32],
        expected: usize,
        scratch: usize,
    ) -> Result<Self, Error> {
        let wrong = Error::Length {
            what: "sensor arena",
            expected,
            got: arena.len(),
        };
        if arena.len() != expected {
            return Err(wrong);
        }
        arena.fill(0);
        let n = params.n();
        let (slots, rest) = arena.split_at_mut_checked(n).ok_or(wrong)?;
        let (scratch, rest) = rest.split_at_mut_checked(scratch).ok_or(wrong)?;
        let (limb, key) = rest.split_at_mut_checked(n).ok_or(wrong)?;
        Ok(Self {
            params,
            rng: None,
            key: Some(Key::None(key)),
            slots,
            measured: false,
            scratch,
            limb,
        })
    }

    /// Answers one request.
    pub fn handle<P: Platform>(
        &mut self,
        request: Request<'_>,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) {
        let answer = match request {
            Request::Hello { version } => self.greet(version, platform, reply),
            Request::Entropy { bytes } => self.stir(bytes, platform, reply),
            Request::NewKey => self.new_key(platform, reply),
            Request::Values { offset, bytes } => self.measure(offset, bytes, platform, reply),
            Request::Encrypt { level, scale_bits } => {
                let done = self.encrypt(level, f64::from_bits(scale_bits), platform, reply);
                if done.is_err_and(|refusal| matches!(refusal, Refusal::Range { .. })) {
                    self.slots.zeroize();
                }
                done
            }
        };
        if let Err(refusal) = answer {
            reply(Reply::Refused(refusal));
        }
    }

    /// Answers a frame that was not decodable.
    pub fn refuse_frame(&mut self, received: u32, reply: &mut impl FnMut(Reply<'_>)) {
        reply(Reply::Refused(Refusal::Frame { received }));
    }

    fn greet<P: Platform>(
        &mut self,
        client: u16,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        if client != SENSOR_VERSION {
            return Err(Refusal::Version {
                sensor: SENSOR_VERSION,
                client,
            });
        }
        reply(Reply::Hello(Card {
            version: SENSOR_VERSION,
            board: platform.board(),
            params: self.params.fingerprint(),
            unit: platform.unit(),
            seeded: self.rng.is_some(),
            key: !matches!(self.key, None | Some(Key::None(_))),
        }));
        Ok(())
    }

    fn stir<P: Platform>(
        &mut self,
        bytes: [u8; ENTROPY_BYTES],
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        if !platform.host_supplies() {
            return Err(Refusal::NotSupplied);
        }
        self.rng = Some(absorb(self.rng.take(), bytes));
        reply(Reply::Ready);
        Ok(())
    }

    fn new_key<P: Platform>(
        &mut self,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        if let Some(mut seed) = platform.entropy() {
            self.rng = Some(absorb(self.rng.take(), seed));
            seed.zeroize();
        }
        let rng = self.rng.as_mut().ok_or(Refusal::NoEntropy)?;
        let held = self.key.take().ok_or(Refusal::Internal)?;
        self.key = Some(if MASKED {
            Self::draw_masked(self.params, held, self.limb, rng)?
        } else {
            Self::draw_open(self.params, held, rng)?
        });
        reply(Reply::Ready);
        Ok(())
    }

    fn draw_open(
        params: &Params,
        held: Key<'a>,
        rng: &mut ChaCha20Rng,
    ) -> Result<Key<'a>, Refusal> {
        let key = match held {
            Key::None(storage) => CompactKey::generate(params, cast_slice_mut(storage), rng)
                .map_err(|_| Refusal::Internal)?,
            Key::Held(mut key) => {
                key.redraw(rng);
                key
            }
            Key::Masked(_) => return Err(Refusal::Internal),
        };
        Ok(Key::Held(key))
    }

    /// Draws the key as an open sensor does, where ciphertexts will be, and puts it under
    /// masks.
    fn draw_masked(
        params: &Params,
        held: Key<'a>,
        limb: &mut [u32],
        rng: &mut ChaCha20Rng,
    ) -> Result<Key<'a>, Refusal> {
        let bytes = CompactKey::<&mut [u8]>::bytes(params);
        let storage = cast_slice_mut(limb).get_mut(..bytes).unwrap_or_default();
        let open = CompactKey::generate(params, storage, rng).map_err(|_| Refusal::Internal)?;
        let key = match held {
            Key::None(storage) => MaskedKey::new(params, &open, storage, rng),
            Key::Masked(mut key) => key.replace(params, &open, rng).map(|()| key),
            Key::Held(_) => return Err(Refusal::Internal),
        };
        Ok(Key::Masked(key.map_err(|_| Refusal::Internal)?))
    }

    fn measure<P: Platform>(
        &mut self,
        offset: u16,
        bytes: &[u8],
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        if !platform.host_supplies() {
            return Err(Refusal::NotSupplied);
        }
        let wrong = Refusal::Slots {
            offset,
            bytes: u16::try_from(bytes.len()).unwrap_or(u16::MAX),
            slots: self.params.n() as u16,
        };
        let (values, rest) = bytes.as_chunks::<VALUE_BYTES>();
        let first = usize::from(offset);
        let range = first..first + values.len();
        let slots = self.slots.get_mut(range).ok_or(wrong)?;
        if !rest.is_empty() || values.is_empty() {
            return Err(wrong);
        }
        let finite = |value: &[u8; VALUE_BYTES]| f32::from_le_bytes(*value).is_finite();
        if let Some(bad) = values.iter().position(|value| !finite(value)) {
            return Err(Refusal::NotFinite {
                slot: offset.saturating_add(bad as u16),
            });
        }
        for (slot, value) in slots.iter_mut().zip(values) {
            *slot = u32::from_le_bytes(*value);
        }
        self.measured = true;
        reply(Reply::Ready);
        Ok(())
    }

    fn encrypt<P: Platform>(
        &mut self,
        level: u8,
        scale: f64,
        platform: &mut P,
        reply: &mut impl FnMut(Reply<'_>),
    ) -> Result<(), Refusal> {
        let params = self.params;
        params
            .check_level("encryption", usize::from(level))
            .map_err(|_| Refusal::Level {
                highest: params.max_level() as u8,
                got: level,
            })?;
        check_scale("encryption", scale).map_err(|_| Refusal::Scale)?;
        let rng = self.rng.as_mut().ok_or(Refusal::NoEntropy)?;
        let key = match &mut self.key {
            None | Some(Key::None(_)) => return Err(Refusal::NoKey),
            Some(key) => key,
        };
        if !self.measured {
            return Err(Refusal::NoValues);
        }
        self.measured = false;

        let mut times = Times::default();
        let mut last = platform.now();
        let mut lap = |time: &mut u64, platform: &mut P| {
            let now = platform.now();
            *time = time.saturating_add(now.saturating_sub(last));
            last = now;
        };
        encode_in_place::<f32>(cast_slice_mut(self.slots), scale).map_err(|e| match e {
            Error::Range { limit_log2, .. } => Refusal::Range { limit_log2 },
            // The sum of finite values was none.
            _ => Refusal::Range {
                limit_log2: f32::MAX_EXP as u32,
            },
        })?;
        for slot in self.slots.iter_mut() {
            // Rounded, and below 2^30 in magnitude.
            *slot = f32::from_bits(*slot) as i32 as u32;
        }
        lap(&mut times.encode, platform);
        let message = cast_slice_mut::<u32, i32>(self.slots);
        let started = if MASKED {
            Encryption::start_masked(params, message, rng)
        } else {
            Encryption::start(params, message, self.scratch, rng)
        };
        let mut encryption = started.map_err(|_| Refusal::Internal)?;
        lap(&mut times.errors, platform);
        reply(Reply::Seed {
            seed: *encryption.seed(),
        });
        let mut packed = [0; MAX_CHUNK_BYTES];
        for i in 0..=level {
            let modulus = params
                .prime(usize::from(i))
                .map_err(|_| Refusal::Internal)?
                .modulus();
            // Sending is not counted.
            lap(&mut 0, platform);
            let done = match &mut *key {
                Key::Masked(key) if MASKED => {
                    encryption.masked_limb(key, usize::from(i), self.limb, rng)
                }
                Key::Held(key) if !MASKED => encryption.limb(key, usize::from(i), self.limb),
                _ => return Err(Refusal::Internal),
            };
            done.map_err(|_| Refusal::Internal)?;
            lap(&mut times.limbs, platform);
            let length = packed_len(CHUNK_COEFFS, modulus.bits());
            let bytes = packed.get_mut(..length).ok_or(Refusal::Internal)?;
            let mut offset = 0;
            for chunk in self.limb.chunks_exact(CHUNK_COEFFS) {
                lap(&mut 0, platform);
                pack(chunk, modulus, bytes).map_err(|_| Refusal::Internal)?;
                lap(&mut times.pack, platform);
                reply(Reply::Chunk {
                    limb: i,
                    offset,
                    bytes,
                });
                offset = offset.saturating_add(CHUNK_COEFFS as u16);
            }
        }
        lap(&mut 0, platform);
        drop(encryption);
        lap(&mut times.erase, platform);
        reply(Reply::Done {
            memory: platform.memory(),
            times,
        });
        Ok(())
    }
}

impl<const MASKED: bool> Drop for Sensor<'_, MASKED> {
    fn drop(&mut self) {
        self.slots.zeroize();
    }
}

/// The bytes of a [`Request::Values`].
#[must_use]
pub fn value_bytes(values: &[f32]) -> &[u8] {
    const {
        assert!(
            cfg!(target_endian = "little"),
            "values travel little endian"
        )
    };
    cast_slice(values)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use he_core::params::N4096_DEPTH3 as SET;
    use he_core::rlwe::{SecretKey, encrypt_with_seed};
    use he_core::wire::unpack;

    use super::*;
    use crate::link::{self, FrameReader, MAX_DECODED, MAX_FRAME};

    const SCALE: f64 = 1_048_576.0;

    /// Counts its readings; supplied by the host or not.
    struct Board {
        now: u64,
        supplied: bool,
        own: Option<[u8; ENTROPY_BYTES]>,
    }

    impl Platform for Board {
        fn board(&self) -> &'static str {
            "test"
        }
        fn unit(&self) -> TimeUnit {
            TimeUnit::Cycles
        }
        fn now(&mut self) -> u64 {
            self.now += 1;
            self.now
        }
        fn memory(&mut self) -> Memory {
            Memory::default()
        }
        fn host_supplies(&self) -> bool {
            self.supplied
        }
        fn entropy(&mut self) -> Option<[u8; ENTROPY_BYTES]> {
            self.own
        }
    }

    const SUPPLIED: Board = Board {
        now: 0,
        supplied: true,
        own: None,
    };

    #[derive(Debug, PartialEq)]
    struct Sealed {
        seed: [u8; SEED_BYTES],
        c0: Vec<u32>,
    }

    /// Every reply but the ciphertext, and that.
    fn ask<const MASKED: bool>(
        sensor: &mut Sensor<'_, MASKED>,
        board: &mut Board,
        request: Request<'_>,
    ) -> (Vec<Refusal>, Option<Sealed>) {
        let mut refusals = Vec::new();
        let mut sealed: Option<Sealed> = None;
        let mut done = false;
        sensor.handle(request, board, &mut |reply| match reply {
            Reply::Refused(refusal) => refusals.push(refusal),
            Reply::Seed { seed } => {
                sealed = Some(Sealed {
                    seed,
                    c0: Vec::new(),
                })
            }
            Reply::Chunk {
                limb,
                offset,
                bytes,
            } => {
                let c0 = &mut sealed.as_mut().unwrap().c0;
                assert_eq!(c0.len(), usize::from(limb) * SET.n() + usize::from(offset));
                let mut words = [0; CHUNK_COEFFS];
                unpack(bytes, SET.prime(limb.into()).unwrap().modulus(), &mut words).unwrap();
                c0.extend_from_slice(&words);
            }
            Reply::Done { times, .. } => {
                assert!(times.total() > 0 && !done);
                done = true;
            }
            Reply::Hello(_) | Reply::Ready => {}
            Reply::Fault(_) => panic!("a sensor does not report faults by itself"),
        });
        assert_eq!(done, sealed.is_some());
        (refusals, sealed)
    }

    fn accepted<const MASKED: bool>(
        sensor: &mut Sensor<'_, MASKED>,
        request: Request<'_>,
    ) -> Option<Sealed> {
        let (refusals, sealed) = ask(sensor, &mut { SUPPLIED }, request);
        assert_eq!(refusals, [], "{request:?}");
        sealed
    }

    fn refused<const MASKED: bool>(
        sensor: &mut Sensor<'_, MASKED>,
        request: Request<'_>,
    ) -> Refusal {
        let (refusals, sealed) = ask(sensor, &mut { SUPPLIED }, request);
        assert!(sealed.is_none() && refusals.len() == 1, "{request:?}");
        refusals[0]
    }

    fn entropy(byte: u8) -> Request<'static> {
        Request::Entropy {
            bytes: [byte; ENTROPY_BYTES],
        }
    }

    fn values(offset: u16, values: &[f32]) -> Request<'_> {
        Request::Values {
            offset,
            bytes: value_bytes(values),
        }
    }

    const ENCRYPT: Request<'static> = Request::Encrypt {
        level: 3,
        scale_bits: SCALE.to_bits(),
    };

    fn arena() -> Vec<u32> {
        vec![0xFFFF_FFFF; arena_words(&SET)]
    }

    #[test]
    fn its_ciphertexts_are_those_of_a_host_with_the_same_randomness() {
        let mut arena = arena();
        let mut sensor = Sensor::new(&SET, &mut arena).unwrap();
        let (re, im) = ([0.5, -1.0, 0.25], [2.0]);
        accepted(&mut sensor, entropy(1));
        accepted(&mut sensor, Request::NewKey);
        accepted(&mut sensor, values(7, &re));
        accepted(&mut sensor, values(SET.slots() as u16 + 9, &im));
        let sealed = accepted(&mut sensor, ENCRYPT).unwrap();

        let mut rng = absorb(None, [1; ENTROPY_BYTES]);
        let words = SecretKey::<Vec<u32>>::words(&SET);
        let key = SecretKey::generate(&SET, vec![0; words], &mut rng).unwrap();
        let mut slots = vec![0.0f32; SET.n()];
        slots[7..10].copy_from_slice(&re);
        slots[SET.slots() + 9] = im[0];
        encode_in_place(&mut slots, SCALE).unwrap();
        let mut message: Vec<i32> = slots.iter().map(|&x| x as i32).collect();
        let mut seed = [0; SEED_BYTES];
        rng.fill_bytes(&mut seed);
        let mut c0 = vec![0; 4 * SET.n()];
        encrypt_with_seed(&SET, &key, &mut message, 3, &seed, &mut rng, &mut c0).unwrap();
        assert!(sealed == Sealed { seed, c0 });
        drop(sensor);
        // All but the limb that was sent last.
        let (before, rest) = arena.split_at(2 * SET.n());
        let secrets = before.iter().chain(&rest[SET.n()..]);
        assert!(secrets.copied().all(|word| word == 0));
    }

    /// Its key is that of an open sensor, and its ciphertexts are a host's whose generator
    /// leaves out what is drawn for masks.
    #[test]
    fn under_masks_ciphertexts_are_those_of_a_host() {
        let mut arena = vec![0xFFFF_FFFF; masked_arena_words(&SET)];
        let mut sensor = Sensor::masked(&SET, &mut arena).unwrap();
        assert_eq!(refused(&mut sensor, Request::NewKey), Refusal::NoEntropy);
        accepted(&mut sensor, entropy(1));
        accepted(&mut sensor, values(0, &[0.5]));
        assert_eq!(refused(&mut sensor, ENCRYPT), Refusal::NoKey);

        let mut rng = absorb(None, [1; ENTROPY_BYTES]);
        let words = SecretKey::<Vec<u32>>::words(&SET);
        let mut masks = [[0; SEED_BYTES]; 4];
        // Another key takes the place of the first.
        for _ in 0..2 {
            accepted(&mut sensor, Request::NewKey);
            let key = SecretKey::generate(&SET, vec![0; words], &mut rng).unwrap();
            rng.fill_bytes(masks.as_flattened_mut());
            for level in [3, 1] {
                accepted(&mut sensor, values(0, &[0.5]));
                let request = Request::Encrypt {
                    level,
                    scale_bits: SCALE.to_bits(),
                };
                let sealed = accepted(&mut sensor, request).unwrap();
                let limbs = usize::from(level) + 1;
                let mut slots = vec![0.0f32; SET.n()];
                slots[0] = 0.5;
                encode_in_place(&mut slots, SCALE).unwrap();
                let mut message: Vec<i32> = slots.iter().map(|&x| x as i32).collect();
                let mut seed = [0; SEED_BYTES];
                rng.fill_bytes(&mut seed);
                let mut c0 = vec![0; limbs * SET.n()];
                let (set, top) = (&SET, limbs - 1);
                encrypt_with_seed(set, &key, &mut message, top, &seed, &mut rng, &mut c0).unwrap();
                rng.fill_bytes(masks[..limbs].as_flattened_mut());
                assert!(sealed == Sealed { seed, c0 }, "{level}");
            }
        }
        drop(sensor);
        // All but the limb that was sent last.
        let n = SET.n();
        let secrets = arena[..n].iter().chain(&arena[2 * n..]);
        assert!(secrets.copied().all(|word| word == 0));
        assert!(Sensor::masked(&SET, &mut arena[1..]).is_err());
    }

    #[test]
    fn nothing_is_drawn_before_entropy_and_nothing_twice() {
        let mut arena = arena();
        let mut sensor = Sensor::new(&SET, &mut arena).unwrap();
        let measured = values(0, &[1.0, 2.0]);
        assert_eq!(refused(&mut sensor, Request::NewKey), Refusal::NoEntropy);
        accepted(&mut sensor, measured);
        assert_eq!(refused(&mut sensor, ENCRYPT), Refusal::NoEntropy);
        accepted(&mut sensor, entropy(2));
        assert_eq!(refused(&mut sensor, ENCRYPT), Refusal::NoKey);
        accepted(&mut sensor, Request::NewKey);
        let first = accepted(&mut sensor, ENCRYPT).unwrap();
        assert_eq!(refused(&mut sensor, ENCRYPT), Refusal::NoValues);
        accepted(&mut sensor, measured);
        let second = accepted(&mut sensor, ENCRYPT).unwrap();
        // The same entropy again does not bring the stream back.
        accepted(&mut sensor, entropy(2));
        accepted(&mut sensor, measured);
        let third = accepted(&mut sensor, ENCRYPT).unwrap();
        accepted(&mut sensor, entropy(2));
        accepted(&mut sensor, Request::NewKey);
        accepted(&mut sensor, measured);
        let fourth = accepted(&mut sensor, ENCRYPT).unwrap();
        let all = [first, second, third, fourth];
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                assert_ne!(a.seed, b.seed);
                assert!(a.c0 != b.c0);
            }
        }
    }

    #[test]
    fn a_refused_encryption_takes_nothing_back() {
        let mut arena = arena();
        let mut sensor = Sensor::new(&SET, &mut arena).unwrap();
        accepted(&mut sensor, entropy(3));
        accepted(&mut sensor, Request::NewKey);
        accepted(&mut sensor, values(0, &[1.0]));
        let level = Request::Encrypt {
            level: 4,
            scale_bits: SCALE.to_bits(),
        };
        assert_eq!(
            refused(&mut sensor, level),
            Refusal::Level { highest: 3, got: 4 }
        );
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let request = Request::Encrypt {
                level: 3,
                scale_bits: scale.to_bits(),
            };
            assert_eq!(refused(&mut sensor, request), Refusal::Scale);
        }
        // These left the values; too large a scale does not.
        let large = Request::Encrypt {
            level: 3,
            scale_bits: 1e30f64.to_bits(),
        };
        assert_eq!(
            refused(&mut sensor, large),
            Refusal::Range { limit_log2: 30 }
        );
        assert_eq!(refused(&mut sensor, ENCRYPT), Refusal::NoValues);
        assert!(sensor.slots.iter().all(|&word| word == 0));
        accepted(&mut sensor, values(0, &[f32::MAX; 16]));
        assert!(matches!(
            refused(&mut sensor, ENCRYPT),
            Refusal::Range { .. }
        ));
        accepted(&mut sensor, values(4095, &[1.0]));
        let level0 = Request::Encrypt {
            level: 0,
            scale_bits: SCALE.to_bits(),
        };
        let sealed = accepted(&mut sensor, level0).unwrap();
        assert_eq!(sealed.c0.len(), SET.n());
    }

    #[test]
    fn values_are_checked() {
        let mut arena = arena();
        let mut sensor = Sensor::new(&SET, &mut arena).unwrap();
        let slots = |offset, bytes| Refusal::Slots {
            offset,
            bytes,
            slots: 4096,
        };
        assert_eq!(refused(&mut sensor, values(4096, &[1.0])), slots(4096, 4));
        assert_eq!(
            refused(&mut sensor, values(4095, &[1.0, 1.0])),
            slots(4095, 8)
        );
        assert_eq!(
            refused(&mut sensor, values(u16::MAX, &[1.0])),
            slots(u16::MAX, 4)
        );
        assert_eq!(refused(&mut sensor, values(0, &[])), slots(0, 0));
        let broken = Request::Values {
            offset: 0,
            bytes: &[0; 5],
        };
        assert_eq!(refused(&mut sensor, broken), slots(0, 5));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let request = [1.0, bad];
            assert_eq!(
                refused(&mut sensor, values(10, &request)),
                Refusal::NotFinite { slot: 11 }
            );
        }
        assert!(sensor.slots.iter().all(|&word| word == 0));
        assert!(!sensor.measured);
    }

    #[test]
    fn a_board_that_is_not_emulated_takes_neither_entropy_nor_values() {
        let mut arena = arena();
        let mut sensor = Sensor::new(&SET, &mut arena).unwrap();
        for request in [entropy(1), values(0, &[1.0])] {
            let mut board = Board {
                now: 0,
                supplied: false,
                own: None,
            };
            let (refusals, _) = ask(&mut sensor, &mut board, request);
            assert_eq!(refusals, [Refusal::NotSupplied]);
        }
        let other = Request::Hello {
            version: SENSOR_VERSION + 1,
        };
        let (sensor_speaks, client) = (SENSOR_VERSION, SENSOR_VERSION + 1);
        assert_eq!(
            refused(&mut sensor, other),
            Refusal::Version {
                sensor: sensor_speaks,
                client
            }
        );
        assert!(Sensor::new(&SET, &mut [0; 100]).is_err());
    }

    #[test]
    fn a_board_with_a_source_draws_from_it_what_it_would_draw_from_a_host() {
        let sealed_by = |own: Option<[u8; ENTROPY_BYTES]>| {
            let mut arena = arena();
            let mut sensor = Sensor::new(&SET, &mut arena).unwrap();
            match own {
                Some(_) => {
                    let (refusals, _) =
                        ask(&mut sensor, &mut Board { own, ..SUPPLIED }, Request::NewKey);
                    assert_eq!(refusals, []);
                }
                None => {
                    assert_eq!(refused(&mut sensor, Request::NewKey), Refusal::NoEntropy);
                    accepted(&mut sensor, entropy(1));
                    accepted(&mut sensor, Request::NewKey);
                }
            }
            accepted(&mut sensor, values(0, &[0.5]));
            accepted(&mut sensor, ENCRYPT).unwrap()
        };
        let of_host = sealed_by(None);
        assert_eq!(sealed_by(Some([1; ENTROPY_BYTES])), of_host);
        assert_ne!(sealed_by(Some([2; ENTROPY_BYTES])), of_host);
    }

    #[test]
    fn the_largest_messages_fit_a_frame() {
        let bytes = [0xA5; MAX_CHUNK_BYTES];
        let mut buffer = [0; MAX_FRAME];
        let request = Request::Values {
            offset: u16::MAX,
            bytes: &bytes,
        };
        let frame = link::encode(&request, &mut buffer).unwrap().to_vec();
        let mut reader = FrameReader::<MAX_DECODED>::new();
        let read = reader.read(&mut &frame[..]).unwrap().unwrap();
        assert_eq!(read.decode::<Request<'_>>(), Ok(request));
        let reply = Reply::Chunk {
            limb: 255,
            offset: u16::MAX,
            bytes: &bytes,
        };
        link::encode(&reply, &mut buffer).unwrap();
        let largest = Times {
            encode: u64::MAX,
            errors: u64::MAX,
            limbs: u64::MAX,
            pack: u64::MAX,
            erase: u64::MAX,
        };
        assert_eq!(largest.total(), u64::MAX);
        link::encode(
            &Reply::Done {
                memory: Memory::default(),
                times: largest,
            },
            &mut buffer,
        )
        .unwrap();
        assert_eq!(MAX_VALUES * VALUE_BYTES, MAX_CHUNK_BYTES);
    }
}
