//! The other end of a sensor's line: supplies what its board emulates, takes
//! its ciphertexts. And a sensor in this process, for tests and to compare.

use std::thread;
use std::time::{Duration, Instant};

use he_core::ckks::Ciphertext;
use he_core::ckks::decrypt::decrypt;
use he_core::rlwe::{SecretKey, expand_c1};
use he_core::wire;
use he_nn::clear;
use he_nn::link::DELIMITER;
use he_nn::message::{self, CHUNK_COEFFS, Fault, Memory, TimeUnit};
use he_nn::sensor::{
    ENTROPY_BYTES, MAX_VALUES, Platform, Refusal, Reply, Request, SENSOR_VERSION, Sensor, Times,
    absorb, arena_words, masked_arena_words, value_bytes,
};

use crate::client::{PackedCiphertext, printable};
use crate::device::connection::GREETING_PAUSE;
use crate::device::server::serve_frames;
use crate::device::{Connection, DeviceError, Duplex, Transport, duplex};
use crate::planning::DEFAULT_SET as PARAMS;

/// How long a sensor may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to answer the first message.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no ciphertext. One sentence each; what to do is in it.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// The device runs something else.
    #[error(
        "{device} is an evaluator and no sensor: use `he-edge infer` with it, or put the sensor's firmware on it"
    )]
    Evaluator {
        /// The device.
        device: String,
    },
    /// The link failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The sensor has another parameter set.
    #[error(
        "{device} has the parameter set {theirs:08x} and this program {ours:08x}: build both from the same version"
    )]
    Params {
        /// The sensor.
        device: String,
        /// Its fingerprint.
        theirs: u32,
        /// The fingerprint here.
        ours: u32,
    },
    /// The sensor refused a request.
    #[error("{device} refused: {reason}")]
    Refused {
        /// The sensor.
        device: String,
        /// Its reason, and what to do.
        reason: RefusalSentence,
    },
    /// The sensor crashed.
    #[error(
        "{device} stopped with {what} and restarted without its key: run again, and report it if it happens twice"
    )]
    Crashed {
        /// The sensor.
        device: String,
        /// What happened to it.
        what: String,
    },
    /// A reply that does not belong here.
    #[error("{device} answered out of turn ({got} where {expected} was due): run again")]
    OutOfTurn {
        /// The sensor.
        device: String,
        /// What was due.
        expected: &'static str,
        /// What came.
        got: &'static str,
    },
    /// What came is not a ciphertext of these values.
    #[error(
        "the ciphertext of {device} was not decrypted ({source}): build both from the same version"
    )]
    Ciphertext {
        /// The sensor.
        device: String,
        /// What is wrong with it.
        source: he_core::Error,
    },
}

/// A refusal as a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalSentence(pub Refusal);

impl std::fmt::Display for RefusalSentence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Refusal::Version { sensor, client } => write!(
                f,
                "it speaks sensor protocol version {sensor} and this program version {client}; build both from the same version"
            ),
            Refusal::Frame { received } => write!(
                f,
                "a frame of {received} bytes arrived damaged; check the line and run again"
            ),
            Refusal::NotSupplied => f.write_str(
                "it has its own entropy and measures by itself; only an emulated board takes them from here",
            ),
            Refusal::NoEntropy => {
                f.write_str("it has had no entropy since its start; nothing is drawn before")
            }
            Refusal::NoKey => f.write_str("it has no key; have it make one first"),
            Refusal::NoValues => {
                f.write_str("it has measured nothing since the last ciphertext; measure first")
            }
            Refusal::Slots {
                offset,
                bytes,
                slots,
            } => write!(
                f,
                "{bytes} bytes of values at slot {offset} do not fit its {slots}; send four bytes per slot"
            ),
            Refusal::NotFinite { slot } => write!(
                f,
                "the value for slot {slot} is not a finite number; send finite ones"
            ),
            Refusal::Level { highest, got } => write!(
                f,
                "level {got} is above its highest, {highest}; ask for a lower one"
            ),
            Refusal::Scale => {
                f.write_str("the scale is not positive and finite; ask for one that is")
            }
            Refusal::Range { limit_log2 } => write!(
                f,
                "a value times the scale reaches 2^{limit_log2}; lower the scale"
            ),
            Refusal::Internal => f.write_str("its memory does not fit; build the firmware again"),
        }
    }
}

/// A ciphertext from a sensor, and what it took.
#[derive(Debug)]
pub struct Measurement {
    /// The ciphertext.
    pub sealed: PackedCiphertext,
    /// Its level.
    pub level: usize,
    /// Its scale.
    pub scale: f64,
    /// The sensor's memory.
    pub memory: Memory,
    /// What encoding and encrypting took, in the unit of [`Line::unit`].
    pub times: Times,
}

impl Measurement {
    /// Decrypts: real parts of the slots, then imaginary parts.
    ///
    /// # Errors
    /// What is wrong with the ciphertext.
    pub fn decrypt(&self, key: &SecretKey<Vec<u32>>) -> Result<Vec<f64>, he_core::Error> {
        let n = PARAMS.n();
        let words = (self.level + 1) * n;
        let (mut c0, mut c1) = (vec![0; words], vec![0; words]);
        wire::unpack_half(PARAMS, &self.sealed.limbs.concat(), &mut c0)?;
        expand_c1(PARAMS, &self.sealed.seed, &mut c1)?;
        let ct = Ciphertext::new(PARAMS, self.level, self.scale, c0, c1)?;
        let (mut scratch, mut slots) = (vec![0; words], vec![0.0; n]);
        let plain = decrypt(
            PARAMS,
            key,
            &ct,
            self.level,
            self.scale,
            &mut scratch,
            &mut slots,
        )?;
        Ok((0..n).filter_map(|i| plain.slot(i)).collect())
    }
}

/// The key that a sensor makes first after `entropy` was the first it got:
/// whoever supplies the entropy knows the key. For emulated boards.
///
/// # Errors
/// None for the set in use; the type is that of key generation.
pub fn first_key(entropy: [u8; ENTROPY_BYTES]) -> Result<SecretKey<Vec<u32>>, he_core::Error> {
    let words = SecretKey::<Vec<u32>>::words(PARAMS);
    SecretKey::generate(PARAMS, vec![0; words], &mut absorb(None, entropy))
}

/// The line to a sensor that has greeted.
#[derive(Debug)]
pub struct Line<T: Transport> {
    link: Connection<T>,
    device: String,
    board: String,
    unit: TimeUnit,
}

impl<T: Transport> Line<T> {
    /// Says hello.
    ///
    /// # Errors
    /// [`SensorError`].
    pub fn open(mut link: Connection<T>) -> Result<Self, SensorError> {
        let device = link.transport().name();
        let mut due = Instant::now();
        let end = due + HELLO_PATIENCE;
        loop {
            let now = Instant::now();
            let left = end.saturating_duration_since(now);
            if now >= due {
                due = now + GREETING_PAUSE;
                link.send_raw(&[DELIMITER])?;
                link.send_message(&Request::Hello {
                    version: SENSOR_VERSION,
                })?;
            }
            let until = due.saturating_duration_since(now).min(left);
            let card = link.receive_frame(until, |frame| {
                // It reads the greeting as its own, of another version.
                if let Ok(message::Reply::Refused(message::Refusal::Version { .. })) =
                    frame.decode()
                    && frame.decode::<Reply<'_>>().is_err()
                {
                    let device = device.clone();
                    return Ok(Err(SensorError::Evaluator { device }));
                }
                Ok(match frame.decode()? {
                    Reply::Hello(card) => Ok((card.params, printable(card.board), card.unit)),
                    other => Err(unexpected(&device, "a greeting", &other)),
                })
            });
            match card {
                Ok(Ok((theirs, board, unit))) => {
                    let ours = PARAMS.fingerprint();
                    if theirs != ours {
                        return Err(SensorError::Params {
                            device,
                            theirs,
                            ours,
                        });
                    }
                    return Ok(Self {
                        link,
                        device,
                        board,
                        unit,
                    });
                }
                Ok(Err(
                    error @ (SensorError::Evaluator { .. }
                    | SensorError::Refused {
                        reason: RefusalSentence(Refusal::Version { .. }),
                        ..
                    }),
                )) => return Err(error),
                // Replies to what went before, whole or cut off.
                Ok(Err(_)) | Err(DeviceError::Link { .. } | DeviceError::Timeout { .. })
                    if !left.is_zero() => {}
                Err(DeviceError::Timeout { device, .. }) => {
                    let timeout = HELLO_PATIENCE;
                    return Err(DeviceError::Timeout { device, timeout }.into());
                }
                Ok(Err(error)) => return Err(error),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The sensor's board.
    #[must_use]
    pub fn board(&self) -> &str {
        &self.board
    }

    /// What its times count.
    #[must_use]
    pub const fn unit(&self) -> TimeUnit {
        self.unit
    }

    /// The connection, for its byte counts and for tests.
    pub const fn link(&mut self) -> &mut Connection<T> {
        &mut self.link
    }

    /// Supplies entropy.
    ///
    /// # Errors
    /// [`SensorError`].
    pub fn entropy(&mut self, bytes: [u8; ENTROPY_BYTES]) -> Result<(), SensorError> {
        self.order(&Request::Entropy { bytes })
    }

    /// Has it make a new key.
    ///
    /// # Errors
    /// [`SensorError`].
    pub fn new_key(&mut self) -> Result<(), SensorError> {
        self.order(&Request::NewKey)
    }

    /// Supplies measured values from slot `first` on; from N / 2 on they are
    /// imaginary parts.
    ///
    /// # Errors
    /// [`SensorError`].
    pub fn measure(&mut self, first: usize, values: &[f32]) -> Result<(), SensorError> {
        for (i, values) in values.chunks(MAX_VALUES).enumerate() {
            // What is beyond the slots is refused there.
            let offset = u16::try_from(first + i * MAX_VALUES).unwrap_or(u16::MAX);
            self.order(&Request::Values {
                offset,
                bytes: value_bytes(values),
            })?;
        }
        Ok(())
    }

    /// Has it encrypt what it has measured.
    ///
    /// # Errors
    /// [`SensorError`].
    pub fn encrypt(&mut self, level: usize, scale: f64) -> Result<Measurement, SensorError> {
        self.link.send_message(&Request::Encrypt {
            level: u8::try_from(level).unwrap_or(u8::MAX),
            scale_bits: scale.to_bits(),
        })?;
        let seed = self.receive("a seed", |reply| match *reply {
            Reply::Seed { seed } => Some(seed),
            _ => None,
        })?;
        let mut limbs = vec![Vec::new(); level + 1];
        for (i, limb) in limbs.iter_mut().enumerate() {
            for offset in (0..PARAMS.n()).step_by(CHUNK_COEFFS) {
                let place = (i, offset);
                self.receive("the next part of a ciphertext", |reply| match *reply {
                    Reply::Chunk {
                        limb: at,
                        offset,
                        bytes,
                    } if (usize::from(at), usize::from(offset)) == place => {
                        limb.extend_from_slice(bytes);
                        Some(())
                    }
                    _ => None,
                })?;
            }
        }
        let (memory, times) = self.receive("the end of a ciphertext", |reply| match *reply {
            Reply::Done { memory, times } => Some((memory, times)),
            _ => None,
        })?;
        Ok(Measurement {
            sealed: PackedCiphertext { seed, limbs },
            level,
            scale,
            memory,
            times,
        })
    }

    /// Decrypts a measurement and gives the largest difference from `values`,
    /// which are followed by zeros: real parts, then imaginary parts.
    ///
    /// # Errors
    /// [`SensorError::Ciphertext`].
    pub fn error_of(
        &self,
        measurement: &Measurement,
        key: &SecretKey<Vec<u32>>,
        values: &[f32],
    ) -> Result<f64, SensorError> {
        let slots = measurement
            .decrypt(key)
            .map_err(|source| SensorError::Ciphertext {
                device: self.device.clone(),
                source,
            })?;
        let expected = values.iter().map(|&v| f64::from(v));
        let errors = slots.iter().zip(expected.chain(std::iter::repeat(0.0)));
        Ok(clear::largest(errors.map(|(a, b)| (a - b).abs())))
    }

    fn order(&mut self, request: &Request<'_>) -> Result<(), SensorError> {
        self.link.send_message(request)?;
        self.receive("readiness", |reply| match reply {
            Reply::Ready => Some(()),
            _ => None,
        })
    }

    fn receive<R>(
        &mut self,
        expected: &'static str,
        take: impl FnOnce(&Reply<'_>) -> Option<R>,
    ) -> Result<R, SensorError> {
        let device = &self.device;
        self.link.receive_frame(PATIENCE, |frame| {
            let reply = frame.decode()?;
            Ok(take(&reply).ok_or_else(|| unexpected(device, expected, &reply)))
        })?
    }
}

fn unexpected(device: &str, expected: &'static str, reply: &Reply<'_>) -> SensorError {
    let device = device.to_owned();
    let got = match *reply {
        Reply::Refused(refusal) => {
            return SensorError::Refused {
                device,
                reason: RefusalSentence(refusal),
            };
        }
        Reply::Fault(fault) => {
            let what = match fault {
                Fault::Panic { file, line } => format!("a panic at {}:{line}", printable(file)),
                Fault::Exception { number, pc, cfsr } => {
                    format!("exception {number} at {pc:#010x} (CFSR {cfsr:#010x})")
                }
            };
            return SensorError::Crashed { device, what };
        }
        Reply::Hello(_) => "a greeting",
        Reply::Ready => "readiness",
        Reply::Seed { .. } => "a seed",
        Reply::Chunk { .. } => "a part of a ciphertext",
        Reply::Done { .. } => "an end",
    };
    SensorError::OutOfTurn {
        device,
        expected,
        got,
    }
}

/// A host has no instruction counter; its memory is the arena's, of so many words.
struct Host(usize);

impl Platform for Host {
    fn board(&self) -> &'static str {
        "inproc"
    }
    fn unit(&self) -> TimeUnit {
        TimeUnit::None
    }
    fn now(&mut self) -> u64 {
        0
    }
    fn memory(&mut self) -> Memory {
        Memory {
            static_bytes: (self.0 * size_of::<u32>()) as u32,
            stack_peak_bytes: 0,
        }
    }
    fn host_supplies(&self) -> bool {
        true
    }
    fn entropy(&mut self) -> Option<[u8; ENTROPY_BYTES]> {
        None
    }
}

/// Starts a sensor in a thread, its key under masks or open, and gives the other end of its
/// line. The thread ends when that end is dropped.
#[must_use]
pub fn in_process(masked: bool) -> Duplex {
    let (client, mut end) = duplex::named("the in-process sensor");
    // Should the thread fail, its end closes and the other is told.
    thread::spawn(move || -> Result<(), DeviceError> {
        let words = match masked {
            false => arena_words(PARAMS),
            true => masked_arena_words(PARAMS),
        };
        let mut arena = vec![0; words];
        match masked {
            false => serve(Sensor::new(PARAMS, &mut arena), Host(words), &mut end),
            true => serve(Sensor::masked(PARAMS, &mut arena), Host(words), &mut end),
        }
    });
    client
}

fn serve<const MASKED: bool>(
    sensor: Result<Sensor<'_, MASKED>, he_core::Error>,
    mut host: Host,
    end: &mut Duplex,
) -> Result<(), DeviceError> {
    let Ok(mut sensor) = sensor else {
        // The arena has the length that it asks for.
        return Ok(());
    };
    serve_frames(end, |frame, outgoing| {
        let mut reply = |reply: Reply<'_>| outgoing.send(&reply);
        match frame.and_then(|frame| frame.decode::<Request<'_>>()) {
            Ok(request) => sensor.handle(request, &mut host, &mut reply),
            Err(error) => sensor.refuse_frame(error.received(), &mut reply),
        }
    })
}
