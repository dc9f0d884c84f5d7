//! Whatever goes wrong on the link or comes from the evaluator ends in one
//! clear sentence, and the next inference on the same connection works.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use he_core::ring::ntt;
use he_core::wire::{pack, packed_len};
use he_edge_tests::mangler::{Control, Damage, Hook, Mangler, frame, replies, requests};
use he_edge_tests::{READY, Reference, assert_one_sentence, forgetful, two_layer};
use he_nn::clear;
use he_nn::link::MAX_DECODED;
use he_nn::message::{
    CHUNK_COEFFS, Card, Fault, Item, MAX_CHUNK_BYTES, PROTOCOL_VERSION, Refusal, Reply, Request,
    SEED_BYTES, Stage, Stages, TimeUnit,
};
use he_nn::model::Model;
use he_nn::network::Weights;
use he_nn::plan::{Target, WeightMode};
use he_nn::schedule::{Cursor, Upload};
use host_runner::client::{Client, ClientError, Keys};
use host_runner::device::{Connection, DeviceError, Duplex};
use host_runner::evaluator;
use host_runner::planning::{self, DEFAULT_SET};

/// For replies that come. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// For replies that never come.
const SHORT: Duration = Duration::from_millis(400);

/// Offset of a limb's second chunk.
const NEXT: u16 = CHUNK_COEFFS as u16;

/// A client, an evaluator, and a link between them that can be damaged.
struct Setup {
    reference: Reference,
    client: Client<'static>,
    link: Connection<Mangler<Duplex>>,
    control: Control,
    runs: usize,
}

impl Setup {
    fn new() -> Self {
        let reference = Reference::new();
        // Frames are numbered over a whole upload.
        let (mangler, control) = Mangler::new(forgetful(&reference.plan));
        let mut setup = Self {
            client: reference.client(1),
            reference,
            link: Connection::new(mangler),
            control,
            runs: 0,
        };
        setup.works("at first");
        setup
    }

    fn infer(&mut self) -> Result<host_runner::client::Inference, ClientError> {
        self.runs += 1;
        let image = self.reference.digits[self.runs % self.reference.digits.len()];
        self.client.infer(&mut self.link, &image, &mut ())
    }

    /// An undisturbed inference gives the right logits.
    fn works(&mut self, after: &str) {
        self.control.set(Damage::default());
        self.client.set_patience(PATIENCE);
        match self.infer() {
            Ok(inference) => {
                let image = self.reference.digits[self.runs % self.reference.digits.len()];
                self.reference.check(&image, &inference);
            }
            Err(error) => panic!("after {after}: {error}"),
        }
    }

    /// An inference under damage is right all the same.
    fn survives(&mut self, what: &str, damage: Damage) {
        self.client.set_patience(PATIENCE);
        self.control.set(damage);
        match self.infer() {
            Ok(inference) => {
                let image = self.reference.digits[self.runs % self.reference.digits.len()];
                self.reference.check(&image, &inference);
            }
            Err(error) => panic!("{what}: {error}"),
        }
        self.works(what);
    }

    /// An inference under damage ends in one sentence, the next one works.
    fn fails(&mut self, what: &str, patience: Duration, damage: Damage) -> ClientError {
        self.client.set_patience(patience);
        self.control.set(damage);
        let error = match self.infer() {
            Ok(_) => panic!("{what}: this should have failed"),
            Err(error) => error,
        };
        assert_one_sentence(what, &error);
        if let ClientError::Result { .. } | ClientError::Wrapped { .. } = error {
            // The evaluator has learned that its result was not accepted.
            self.client = self.reference.client(2);
        }
        self.works(what);
        error
    }

    /// Sends requests by hand and takes the last answer.
    fn ask(&mut self, requests: &[Request<'_>], expected: Reply<'_>) {
        self.control.set(Damage::default());
        self.link
            .hello(PATIENCE, |card| assert!(card.is_ok()))
            .unwrap();
        for (i, request) in requests.iter().enumerate() {
            self.link.send(request).unwrap();
            let last = i + 1 == requests.len();
            self.link
                .receive(PATIENCE, |reply| {
                    let refused = matches!(reply, Reply::Refused(_));
                    assert!(last || !refused, "{request:?}: {reply:?}");
                    if last {
                        assert_eq!(reply, expected, "{request:?}");
                    }
                })
                .unwrap();
        }
        self.works(&format!("{:?}", expected));
    }
}

/// Does something to the frame with this number, counted from the delimiter
/// that opens an inference: 1 is the hello, 2 the beginning, 3 the first seed.
fn at(number: usize, change: impl Fn(&mut Vec<u8>) + Send + 'static) -> Option<Hook> {
    let mut count = 0;
    Some(Box::new(move |frame| {
        if count == number {
            change(frame);
        }
        count += 1;
    }))
}

fn up(number: usize, change: impl Fn(&mut Vec<u8>) + Send + 'static) -> Damage {
    Damage {
        up: at(number, change),
        ..Damage::default()
    }
}

fn down(number: usize, change: impl Fn(&mut Vec<u8>) + Send + 'static) -> Damage {
    Damage {
        down: at(number, change),
        ..Damage::default()
    }
}

/// Frames that open an inference: the delimiter, the hello, the beginning.
const OPENING: usize = 3;

/// What one inference sends after these, in order.
fn uploads(setup: &Setup) -> Vec<Upload> {
    Cursor::uploads(setup.client.program()).collect()
}

/// The numbers of frames that tests damage.
struct Numbers {
    /// Seed and first chunk of an input, and the last of its chunks.
    input: [usize; 3],
    /// Seed and first chunk of a key.
    key: [usize; 2],
    /// The last frame.
    last: usize,
}

fn numbers(setup: &Setup) -> Numbers {
    let uploads = uploads(setup);
    let number = |is: fn(&Upload) -> bool| OPENING + uploads.iter().position(is).unwrap();
    let last = |is: fn(&Upload) -> bool| OPENING + uploads.iter().rposition(is).unwrap();
    Numbers {
        input: [
            number(|upload| matches!(upload, Upload::InputSeed(0))),
            number(|upload| matches!(upload, Upload::Chunk(Item::Input { .. }, 0))),
            last(|upload| {
                let Upload::Chunk(item, _) = upload else {
                    return false;
                };
                matches!(item, Item::Input { ciphertext: 0, .. })
            }),
        ],
        key: [
            number(|upload| matches!(upload, Upload::KeySeed(0))),
            number(|upload| matches!(upload, Upload::Chunk(Item::Key { .. }, 0))),
        ],
        last: OPENING + uploads.len() - 1,
    }
}

fn truncated(frame: &mut Vec<u8>) {
    frame.truncate(frame.len() / 2);
    frame.push(0);
}

#[expect(clippy::ptr_arg, reason = "one of several changes to a frame")]
fn flipped(frame: &mut Vec<u8>) {
    let middle = frame.len() / 2;
    frame[middle] ^= 0x10;
}

fn overlong(frame: &mut Vec<u8>) {
    *frame = vec![0x7F; 3 * MAX_DECODED];
    frame.push(0);
}

fn twice(frame: &mut Vec<u8>) {
    frame.extend(frame.clone());
}

#[test]
fn damaged_frames_to_the_evaluator() {
    let mut setup = Setup::new();
    let Numbers { input, key, last } = numbers(&setup);
    let [seed, chunk, last_chunk] = input;
    let within = (chunk + last_chunk) / 2;
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 3] = [
        ("truncated", truncated),
        ("flipped", flipped),
        ("overlong", overlong),
    ];
    for number in [2, seed, chunk, within, last_chunk, key[0], key[1], last] {
        for (name, change) in changes {
            let what = format!("{name} frame {number} of {last}");
            let error = setup.fails(&what, PATIENCE, up(number, change));
            let refused = |reason| matches!(reason, Refusal::Frame { .. });
            assert!(
                matches!(&error, ClientError::Refused { reason, .. } if refused(reason.0)),
                "{what}: {error}"
            );
        }
    }
    // A repeated hello answers itself twice, which does no harm; every other
    // frame belongs exactly once.
    setup.control.set(up(1, twice));
    setup.infer().unwrap();
    for number in [2, seed, chunk, within, key[0], key[1]] {
        setup.fails(&format!("{number} came twice"), PATIENCE, up(number, twice));
    }
    for number in [seed, chunk, within, key[0], key[1]] {
        let what = format!("{number} was lost");
        setup.fails(&what, PATIENCE, up(number, Vec::clear));
    }
    // Each bit of a frame's ends, where headers, checksum and delimiter are.
    for bit in 0..8 {
        for byte in [0, 1, 2, 3] {
            setup.fails(
                "a flipped header",
                PATIENCE,
                up(chunk, move |f| f[byte] ^= 1 << bit),
            );
        }
        for byte in [1, 2, 3] {
            let flip = move |f: &mut Vec<u8>| {
                let place = f.len() - byte;
                f[place] ^= 1 << bit;
            };
            setup.fails("a flipped end", PATIENCE, up(chunk, flip));
        }
    }
}

#[test]
fn frames_that_nobody_answers() {
    let mut setup = Setup::new();
    let last = numbers(&setup).last;
    for (number, name) in [(2, "begin"), (last, "last chunk")] {
        let what = format!("lost {name}");
        let error = setup.fails(&what, SHORT, up(number, Vec::clear));
        assert!(
            matches!(error, ClientError::Device(DeviceError::Timeout { .. })),
            "{what}: {error}"
        );
    }
    let without_end = |f: &mut Vec<u8>| {
        f.pop();
    };
    setup.fails("last chunk without its end", SHORT, up(last, without_end));
    // A greeting is repeated.
    setup.survives("a lost hello", up(1, Vec::clear));
    setup.survives("a damaged hello", up(1, flipped));

    // Greetings that come after they were given up.
    let late = Arc::new(Mutex::new(Vec::new()));
    let kept = late.clone();
    let keep = move |f: &mut Vec<u8>| kept.lock().unwrap().append(f);
    setup.client.set_patience(SHORT);
    setup.control.set(Damage {
        down: Some(Box::new(keep)),
        ..Damage::default()
    });
    let error = setup.infer().unwrap_err();
    assert_one_sentence("late greeting", &error);
    let bring = move |f: &mut Vec<u8>| {
        let mut both = std::mem::take(&mut *late.lock().unwrap());
        both.append(f);
        *f = both;
    };
    setup.control.set(down(0, bring));
    setup.client.set_patience(PATIENCE);
    setup.infer().unwrap();
    setup.works("a late greeting");
}

#[test]
fn damaged_frames_from_the_evaluator() {
    let mut setup = Setup::new();
    let acks = uploads(&setup).len();
    let n = setup.reference.plan.params().n();
    // The greeting, readiness, the acknowledgements, the result, its end.
    let (result, results) = (2 + acks, 2 * n / CHUNK_COEFFS);
    let done = result + results;
    for number in [1, 2, result / 2, result - 1, result, result + 3, done] {
        type Change = fn(&mut Vec<u8>);
        let changes: [(&str, Change); 3] = [
            ("truncated", truncated),
            ("flipped", flipped),
            ("overlong", overlong),
        ];
        for (name, change) in changes {
            let what = format!("{name} reply {number} of {done}");
            let error = setup.fails(&what, PATIENCE, down(number, change));
            assert!(
                matches!(error, ClientError::Device(DeviceError::Link { .. })),
                "{what}: {error}"
            );
        }
    }
    // What comes before the first whole greeting is skipped, whatever it is.
    for noise in [
        &b"boot 1.2 ok\r\n"[..],
        b"\xff",
        b"\x00\x80\xfe",
        &[0x55; 5000],
    ] {
        let noisy = move |frame: &mut Vec<u8>| drop(frame.splice(..0, noise.iter().copied()));
        setup.survives("noise before the greeting", down(0, noisy));
    }
    for change in [truncated, flipped, overlong] {
        setup.survives("a damaged greeting", down(0, change));
        let all = Damage {
            down: Some(Box::new(change)),
            ..Damage::default()
        };
        let error = setup.fails("damaged greetings only", SHORT, all);
        assert!(
            matches!(error, ClientError::Device(DeviceError::Damaged { .. })),
            "{error}"
        );
    }
    for number in [1, done] {
        setup.fails("a lost reply", SHORT, down(number, Vec::clear));
    }
    // One acknowledgement less makes the window smaller, no more.
    for number in [2, result / 2, result - 1] {
        setup.control.set(down(number, Vec::clear));
        setup.infer().unwrap();
        setup.works("a lost acknowledgement");
    }
    for number in [result, result + 7, done - 1] {
        let error = setup.fails("a lost chunk", PATIENCE, down(number, Vec::clear));
        assert!(matches!(error, ClientError::Result { .. }), "{error}");
        let error = setup.fails("a repeated chunk", PATIENCE, down(number, twice));
        assert!(matches!(error, ClientError::Result { .. }), "{error}");
    }
}

/// Rewrites one request with a sound checksum: what an adversary on the line
/// can do, who is no accident.
fn rewritten(number: usize, change: impl Fn(&mut Vec<u8>) + Send + 'static) -> Damage {
    up(number, move |bytes| {
        let original = std::mem::take(bytes);
        requests(&original, |request| {
            *bytes = match request {
                Request::Seed { mut seed } => {
                    let mut changed = seed.to_vec();
                    change(&mut changed);
                    seed.copy_from_slice(&changed);
                    frame(&Request::Seed { seed })
                }
                Request::Data {
                    item,
                    offset,
                    bytes,
                } => {
                    let mut changed = bytes.to_vec();
                    change(&mut changed);
                    let bytes = &changed;
                    frame(&Request::Data {
                        item,
                        offset,
                        bytes,
                    })
                }
                other => panic!("{other:?} is not changed"),
            };
        });
    })
}

#[test]
fn an_adversary_on_the_line() {
    let mut setup = Setup::new();
    let Numbers { input, key, .. } = numbers(&setup);
    // What the evaluator then computes has nothing to do with the image; the
    // client sees it by values that fill the modulus.
    for (what, number) in [
        ("input seed", input[0]),
        ("input", input[1]),
        ("input of the last limb", input[2]),
        ("key seed", key[0]),
        ("key", key[1] + 20),
    ] {
        let error = setup.fails(what, PATIENCE, rewritten(number, |bytes| bytes[5] ^= 1));
        assert!(
            matches!(error, ClientError::Wrapped { .. }),
            "{what}: {error}"
        );
    }
}

/// Replaces the evaluator's replies.
fn hostile(mut each: impl FnMut(Reply<'_>, &mut dyn FnMut(Reply<'_>)) + Send + 'static) -> Damage {
    let hook: Hook = Box::new(move |bytes| {
        let original = std::mem::take(bytes);
        replies(&original, |reply| {
            each(reply, &mut |said| bytes.extend(frame(&said)));
        });
    });
    Damage {
        down: Some(hook),
        ..Damage::default()
    }
}

/// Replaces the chunks of the result.
fn result(
    change: impl Fn(u8, u8, u16, &[u8], &mut dyn FnMut(Reply<'_>)) + Send + 'static,
) -> Damage {
    hostile(move |reply, say| match reply {
        Reply::Result {
            part,
            limb,
            offset,
            bytes,
        } => change(part, limb, offset, bytes, say),
        other => say(other),
    })
}

/// Replaces the residues of the result by those of a polynomial: `of` gives them by the
/// modulus, the part and the coefficient.
fn residues(of: impl Fn(u32, u8, usize) -> u32 + Send + 'static) -> Damage {
    let params = DEFAULT_SET;
    result(move |part, limb, offset, _, say| {
        let prime = params.prime(limb.into()).unwrap();
        let modulus = prime.modulus();
        let of = |i| of(modulus.value(), part, i);
        let mut words: Vec<u32> = (0..params.n()).map(of).collect();
        ntt::forward(&mut words, prime).unwrap();
        let mut bytes = vec![0; packed_len(CHUNK_COEFFS, modulus.bits())];
        let words = &words[usize::from(offset)..][..CHUNK_COEFFS];
        pack(words, modulus, &mut bytes).unwrap();
        let bytes = &bytes;
        say(Reply::Result {
            part,
            limb,
            offset,
            bytes,
        });
    })
}

#[test]
fn a_hostile_result_is_not_decrypted() {
    let mut setup = Setup::new();
    let params = setup.reference.plan.params();
    let chunk = packed_len(CHUNK_COEFFS, params.prime(0).unwrap().modulus().bits());
    let beyond = params.n() as u16;
    let mut refused = |what: &str, damage: Damage| {
        let error = setup.fails(what, PATIENCE, damage);
        // A first part of zeros shows as the client's own mask.
        let is_refused = matches!(
            error,
            ClientError::Result { .. } | ClientError::Wrapped { .. }
        );
        assert!(is_refused, "{what}: {error}");
    };
    for halves in [[true, false], [false, true], [true, true]] {
        let what = format!("zeros in {halves:?}");
        let zeros = result(move |part, limb, offset, bytes, say| {
            let zeros = vec![0; bytes.len()];
            let zero = halves[usize::from(part)];
            say(Reply::Result {
                part,
                limb,
                offset,
                bytes: if zero { &zeros } else { bytes },
            });
        });
        refused(&what, zeros);
    }
    let scales: [fn(f64) -> f64; 7] = [
        |x| 2.0 * x,
        |x| x * (1.0 + 1e-6),
        |x| -x,
        |_| 0.0,
        |_| f64::NAN,
        |_| f64::INFINITY,
        |_| f64::MIN_POSITIVE,
    ];
    for change in scales {
        let scale = hostile(move |reply, say| match reply {
            Reply::Done {
                scale_bits,
                memory,
                stages,
                busy,
            } => say(Reply::Done {
                scale_bits: change(f64::from_bits(scale_bits)).to_bits(),
                memory,
                stages,
                busy,
            }),
            other => say(other),
        });
        refused("another scale", scale);
    }
    type Place = fn(u8, u8, u16) -> (u8, u8, u16);
    let places: [(&str, Place); 7] = [
        ("part 2", |_, limb, offset| (2, limb, offset)),
        ("limb 1", |part, _, offset| (part, 1, offset)),
        ("limb 255", |part, _, offset| (part, 255, offset)),
        ("the next offset", |part, limb, offset| {
            (part, limb, offset + NEXT)
        }),
        ("an odd offset", |part, limb, offset| {
            (part, limb, offset + 1)
        }),
        ("the last offset", |part, limb, _| (part, limb, u16::MAX)),
        ("no offset", |part, limb, _| (part, limb, 0)),
    ];
    for (what, place) in places {
        let moved = result(move |part, limb, offset, bytes, say| {
            let (part, limb, offset) = place(part, limb, offset);
            say(Reply::Result {
                part,
                limb,
                offset,
                bytes,
            });
        });
        refused(what, moved);
    }
    for length in [0, 1, chunk - 1, chunk + 1, MAX_CHUNK_BYTES] {
        let cut = result(move |part, limb, offset, bytes, say| {
            let mut other = bytes.to_vec();
            other.resize(length, 0);
            let bytes = &other;
            say(Reply::Result {
                part,
                limb,
                offset,
                bytes,
            });
        });
        refused(&format!("a chunk of {length} bytes"), cut);
    }
    let maximal = result(|part, limb, offset, bytes, say| {
        let bytes = &vec![0xFF; bytes.len()];
        say(Reply::Result {
            part,
            limb,
            offset,
            bytes,
        });
    });
    refused("residues above the prime", maximal);
    let more = hostile(move |reply, say| {
        if let Reply::Done { .. } = reply {
            let bytes = &vec![0; chunk];
            say(Reply::Result {
                part: 1,
                limb: 0,
                offset: beyond,
                bytes,
            });
        }
        say(reply);
    });
    refused("a chunk too many", more);
    let early = hostile(|reply, say| {
        if let Reply::Result { .. } = reply {
            say(Reply::Done {
                scale_bits: 0,
                memory: Default::default(),
                stages: Stages::new(),
                busy: 0,
            });
        }
        say(reply);
    });
    refused("an end before the result", early);
}

#[test]
fn impossible_times_do_no_harm() {
    let mut setup = Setup::new();
    setup.control.set(hostile(|reply, say| match reply {
        Reply::Done {
            scale_bits, memory, ..
        } => {
            let time = u64::MAX;
            // A step twice, and one that the plan does not have.
            let steps = [0, u8::MAX, 0];
            say(Reply::Done {
                scale_bits,
                memory,
                stages: steps
                    .map(|step| Stage { step, time })
                    .into_iter()
                    .collect::<Stages>(),
                busy: u64::MAX,
            });
        }
        Reply::Hello(card) => say(Reply::Hello(Card {
            unit: TimeUnit::Cycles,
            ..card
        })),
        other => say(other),
    }));
    let inference = setup.infer().unwrap();
    assert_eq!(inference.total(), Some(u64::MAX));
    setup.control.set(Damage::default());
}

#[test]
fn values_that_fill_the_modulus_are_not_taken_for_logits() {
    let mut setup = Setup::new();
    let noise = |q: u32, part: u8, i: usize| {
        let x = (i as u64 + 1 + u64::from(part) * 5000).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (x >> 32) as u32 % q
    };
    let reordered = result(|part, limb, offset, bytes, say| {
        let bytes: Vec<u8> = bytes.iter().map(|b| b.reverse_bits() & 0x7F).collect();
        let bytes = &bytes;
        say(Reply::Result {
            part,
            limb,
            offset,
            bytes,
        });
    });
    for (what, damage) in [
        ("noise", residues(noise)),
        (
            "half the modulus everywhere",
            residues(move |q, part, i| match part {
                0 => q / 2,
                _ => noise(q, part, i),
            }),
        ),
        ("bits in another order", reordered),
    ] {
        let error = setup.fails(what, PATIENCE, damage);
        assert!(
            matches!(
                error,
                ClientError::Wrapped { .. } | ClientError::Result { .. }
            ),
            "{what}: {error}"
        );
    }
}

#[test]
fn an_evaluator_that_talks_out_of_turn() {
    let mut setup = Setup::new();
    // In place of readiness, of an acknowledgement, and of the result.
    type Is = fn(&Reply<'_>) -> bool;
    let turns: [(&str, Is); 3] = [
        ("readiness", |r| matches!(r, Reply::Ready { .. })),
        ("acknowledgement", |r| matches!(r, Reply::Ack)),
        ("result", |r| matches!(r, Reply::Result { .. })),
    ];
    const TEXT: &str = "src/\u{1b}[2Jmain.rs\nError { everything is fine }";
    let wrong: [(&str, Reply<'static>); 9] = [
        ("readiness", READY),
        ("acknowledgement", Reply::Ack),
        ("abort", Reply::Aborted),
        (
            "result",
            Reply::Result {
                part: 0,
                limb: 9,
                offset: 9,
                bytes: &[9],
            },
        ),
        (
            "end",
            Reply::Done {
                scale_bits: 0,
                memory: he_nn::message::Memory {
                    static_bytes: 0,
                    stack_peak_bytes: 0,
                },
                stages: Stages::new(),
                busy: 0,
            },
        ),
        ("refusal", Reply::Refused(Refusal::Model)),
        (
            "refusal of the order",
            Reply::Refused(Refusal::Order {
                expected: Item::Input {
                    ciphertext: 1,
                    limb: 2,
                },
                expected_offset: 3,
                got: Item::Key {
                    key: 4,
                    limb: 5,
                    digit: 6,
                },
                got_offset: 7,
            }),
        ),
        (
            "panic",
            Reply::Fault(Fault::Panic {
                file: "src/main.rs",
                line: 7,
            }),
        ),
        (
            "exception",
            Reply::Fault(Fault::Exception {
                number: 3,
                pc: 4,
                cfsr: 5,
            }),
        ),
    ];
    for (turn, is) in turns {
        for (name, wrong) in wrong.clone() {
            if turn == name {
                continue;
            }
            let what = format!("{name} in place of {turn}");
            let mut said = false;
            let damage = hostile(move |reply, say| {
                if is(&reply) && !std::mem::replace(&mut said, true) {
                    say(wrong.clone());
                }
                say(reply);
            });
            // An acknowledgement too many is noticed at the end only.
            setup.fails(&what, PATIENCE, damage);
        }
    }
    let text = hostile(|reply, say| match reply {
        Reply::Ready { .. } => say(Reply::Fault(Fault::Panic {
            file: TEXT,
            line: 1,
        })),
        other => say(other),
    });
    let error = match setup.client_error(text) {
        ClientError::Crashed { what, .. } => what,
        other => panic!("{other}"),
    };
    assert!(!error.chars().any(char::is_control), "{error}");
    setup.works("a fault with a text of its own");

    // A board that fails as it starts never greets, but says why.
    let boot = |trouble: Reply<'static>| {
        hostile(move |reply, say| match reply {
            Reply::Hello(_) => (0..2).for_each(|_| say(trouble.clone())),
            other => say(other),
        })
    };
    let panic_in = |file| Reply::Fault(Fault::Panic { file, line: 1 });
    let panic = panic_in("src/main.rs");
    let error = setup.fails("a panic at boot", SHORT, boot(panic.clone()));
    assert!(
        matches!(&error, ClientError::Crashed { what, .. } if what == "a panic at src/main.rs:1"),
        "{error}"
    );
    setup.client.set_patience(SHORT);
    let error = setup.client_error(boot(panic_in(TEXT)));
    assert!(matches!(error, ClientError::Crashed { .. }), "{error}");
    assert!(!error.to_string().chars().any(char::is_control), "{error}");
    let exception = Reply::Fault(Fault::Exception {
        number: 3,
        pc: 4,
        cfsr: 5,
    });
    let error = setup.fails("an exception at boot", SHORT, boot(exception));
    assert!(matches!(error, ClientError::Crashed { .. }), "{error}");
    let model = Reply::Refused(Refusal::Model);
    let error = setup.fails("an unusable model", SHORT, boot(model));
    assert!(
        matches!(&error, ClientError::Refused { reason, .. } if reason.0 == Refusal::Model),
        "{error}"
    );
    // One that comes up again in time is used.
    let restarted = hostile(move |reply, say| {
        if matches!(reply, Reply::Hello(_)) {
            say(panic.clone());
        }
        say(reply);
    });
    setup.client.set_patience(PATIENCE);
    setup.control.set(restarted);
    setup.infer().unwrap();

    let acks = hostile(|reply, say| {
        for _ in 0..if reply == Reply::Ack { 30 } else { 1 } {
            say(reply.clone());
        }
    });
    setup.fails("thirty acknowledgements each", PATIENCE, acks);
    let greetings = hostile(|reply, say| match reply {
        Reply::Hello(_) => (0..3).for_each(|_| say(reply.clone())),
        other => say(other),
    });
    setup.control.set(greetings);
    setup.infer().unwrap();
    setup.works("greetings");
}

impl Setup {
    fn client_error(&mut self, damage: Damage) -> ClientError {
        self.control.set(damage);
        match self.infer() {
            Ok(_) => panic!("this should have failed"),
            Err(error) => error,
        }
    }
}

#[test]
fn an_evaluator_without_end_does_not_hold_the_client() {
    let mut setup = Setup::new();
    let floods = [
        ("acknowledgements", frame(&Reply::Ack)),
        ("refusals", frame(&Reply::Refused(Refusal::NotExpected))),
        ("zeros", vec![0; 512]),
        ("a frame without end", vec![0x11; 512]),
        ("damaged frames", [vec![0x11; 30], vec![0]].concat()),
    ];
    for (name, flood) in floods {
        let start = Instant::now();
        let flood = Damage {
            flood: Some(flood),
            ..Damage::default()
        };
        let error = setup.fails(name, SHORT, flood);
        let known = match name {
            "damaged frames" => matches!(error, ClientError::Device(DeviceError::Damaged { .. })),
            _ => matches!(error, ClientError::Device(DeviceError::Timeout { .. })),
        };
        assert!(known, "{name}: {error}");
        assert!(start.elapsed() < PATIENCE, "{name}");
    }
    // Silence from the beginning, and after a while.
    for after in [0, 1, 2, 100] {
        let mut count = 0;
        let silence: Hook = Box::new(move |frame| {
            if count >= after {
                frame.clear();
            }
            count += 1;
        });
        let silence = Damage {
            down: Some(silence),
            ..Damage::default()
        };
        let error = setup.fails("silence", SHORT, silence);
        assert!(
            matches!(error, ClientError::Device(DeviceError::Timeout { .. })),
            "{error}"
        );
    }
    // Endless greetings where readiness was due.
    let mut greeting = Vec::new();
    let greetings: Hook = Box::new(move |bytes| {
        if greeting.is_empty() {
            greeting = bytes.clone();
        } else {
            *bytes = greeting.clone();
        }
    });
    let greetings = Damage {
        down: Some(greetings),
        ..Damage::default()
    };
    setup.fails("greetings only", SHORT, greetings);

    // Acknowledgements that come just before patience ends.
    setup.client.set_deadline(Duration::from_millis(800));
    let slow: Hook = Box::new(|_| std::thread::sleep(Duration::from_millis(100)));
    let slow = Damage {
        down: Some(slow),
        ..Damage::default()
    };
    let start = Instant::now();
    let error = setup.client_error(slow);
    assert_one_sentence("an evaluator that dawdles", &error);
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    assert!(start.elapsed() < PATIENCE);
    setup.client.set_deadline(PATIENCE);
    setup.works("an evaluator that dawdles");
}

/// An evaluator whose card differs.
fn card(change: impl Fn(&mut Card<'_>) + Send + 'static) -> Damage {
    hostile(move |reply, say| match reply {
        Reply::Hello(mut card) => {
            change(&mut card);
            say(Reply::Hello(card));
        }
        other => say(other),
    })
}

#[test]
fn an_evaluator_of_another_kind() {
    let mut setup = Setup::new();
    const NEWER: u16 = PROTOCOL_VERSION + 1;
    let error = setup.fails("newer", PATIENCE, card(|card| card.version = NEWER));
    assert!(
        matches!(
            error,
            ClientError::Version {
                theirs: NEWER,
                ours: PROTOCOL_VERSION,
                ..
            }
        ),
        "{error}"
    );
    let newer = hostile(|reply, say| match reply {
        Reply::Hello(_) => say(Reply::Refused(Refusal::Version {
            evaluator: 2,
            client: 1,
        })),
        other => say(other),
    });
    let error = setup.fails("refused version", PATIENCE, newer);
    assert!(matches!(error, ClientError::Refused { .. }), "{error}");

    let error = setup.fails("parameters", PATIENCE, card(|card| card.params ^= 1));
    assert!(matches!(error, ClientError::Disagreement { .. }), "{error}");
    let error = setup.fails("plan", PATIENCE, card(|card| card.plan ^= 1));
    assert!(matches!(error, ClientError::Disagreement { .. }), "{error}");
    let model = card(|card| {
        card.model_crc ^= 1;
        card.model = "net\n\u{1b}[31mError {";
    });
    match setup.client_error(model) {
        error @ ClientError::Model { .. } => {
            assert!(!error.to_string().chars().any(char::is_control), "{error}");
        }
        other => panic!("{other}"),
    }
    setup.works("another model");
    // A window of no bytes is none: one chunk at a time, then.
    setup.control.set(card(|card| card.window = 0));
    setup.infer().unwrap();
    setup.works("no window");
}

#[test]
fn an_evaluator_with_another_model() {
    let bytes = small_model();
    let other = Model::parse(&bytes).unwrap();
    let plan = planning::plan(Some(DEFAULT_SET), other, WeightMode::Plain, Target::STREAM).unwrap();
    let mut link = Connection::new(evaluator::in_process(&plan).unwrap());
    let reference = Reference::new();
    let image = reference.digits[3];
    let error = reference
        .client(1)
        .infer(&mut link, &image, &mut ())
        .unwrap_err();
    assert!(matches!(error, ClientError::Model { .. }), "{error}");
    assert_one_sentence("another model", &error);

    // The client of that model, on the same connection.
    let bound = plan.logit_error().six_sigma;
    let keys = Keys::from_seed(plan.params(), &[2; 32]).unwrap();
    let mut client = Client::with_keys(plan, keys).unwrap();
    let error = client.infer(&mut link, &image[1..], &mut ()).unwrap_err();
    assert!(
        matches!(error, ClientError::Sample(_))
            && ["784", "783"]
                .into_iter()
                .all(|count| error.to_string().contains(count)),
        "{error}"
    );
    assert_one_sentence("pixels", &error);
    let inference = client.infer(&mut link, &image, &mut ()).unwrap();
    let plain = clear::logits(&other, &image).unwrap();
    assert_eq!(inference.logits.len(), 4);
    for (a, b) in inference.logits.iter().zip(plain) {
        assert!((a - b).abs() < bound, "{a} for {b}");
    }
}

/// A network of another shape: 784 inputs, 5 hidden units, 4 classes.
fn small_model() -> Vec<u8> {
    let first = Weights {
        weights: (0..5 * 784).map(|i| i % 7).collect(),
        scale: 0.002,
        multipliers: Vec::new(),
        biases: vec![0.0; 5],
    };
    let second = Weights {
        weights: (0..4 * 5).map(|i| i * 3 % 11).collect(),
        scale: 0.01,
        multipliers: Vec::new(),
        biases: vec![0.0; 4],
    };
    two_layer("small", 784, first, second, [4.0, 16.0, 10.0])
}

#[test]
fn requests_that_are_refused() {
    let mut setup = Setup::new();
    let plan = setup.client.program().fingerprint();
    let begin = Request::Begin { plan, trace: false };
    let seed = Request::Seed {
        seed: [7; SEED_BYTES],
    };
    let input = |ciphertext, limb| Item::Input { ciphertext, limb };
    let data = |item, offset, bytes| Request::Data {
        item,
        offset,
        bytes,
    };
    let width = DEFAULT_SET.prime(0).unwrap().modulus().bits();
    let chunk = vec![0x55; packed_len(CHUNK_COEFFS, width)];
    let first = data(input(0, 0), 0, &chunk);
    let refused = Reply::Refused;
    let order = |got, got_offset| {
        refused(Refusal::Order {
            expected: input(0, 0),
            expected_offset: 0,
            got,
            got_offset,
        })
    };
    let key = Item::Key {
        key: 0,
        limb: DEFAULT_SET.special() as u8,
        digit: 0,
    };

    setup.ask(
        &[Request::Hello { version: 999 }],
        refused(Refusal::Version {
            evaluator: PROTOCOL_VERSION,
            client: 999,
        }),
    );
    setup.ask(
        &[Request::Begin {
            plan: plan ^ 1,
            trace: false,
        }],
        refused(Refusal::Plan {
            evaluator: plan,
            client: plan ^ 1,
        }),
    );
    setup.ask(&[first], refused(Refusal::NotExpected));
    setup.ask(&[seed], refused(Refusal::NotExpected));
    setup.ask(&[begin, first], refused(Refusal::NotExpected));
    setup.ask(&[begin, seed, seed], refused(Refusal::NotExpected));
    setup.ask(
        &[begin, seed, data(input(0, 0), NEXT, &chunk)],
        order(input(0, 0), NEXT),
    );
    setup.ask(
        &[begin, seed, data(input(0, 1), 0, &chunk)],
        order(input(0, 1), 0),
    );
    setup.ask(
        &[begin, seed, data(input(u16::MAX, 255), u16::MAX, &chunk)],
        order(input(u16::MAX, 255), u16::MAX),
    );
    setup.ask(&[begin, seed, data(key, 0, &chunk)], order(key, 0));
    setup.ask(
        &[begin, seed, first, first],
        refused(Refusal::Order {
            expected: input(0, 0),
            expected_offset: NEXT,
            got: input(0, 0),
            got_offset: 0,
        }),
    );
    let long = [0; MAX_CHUNK_BYTES];
    for length in [0, 1, chunk.len() - 1, chunk.len() + 1, MAX_CHUNK_BYTES] {
        setup.ask(
            &[begin, seed, data(input(0, 0), 0, &long[..length])],
            refused(Refusal::ChunkLength {
                expected: chunk.len() as u16,
                got: length as u16,
            }),
        );
    }
    let above = vec![0xFF; chunk.len()];
    setup.ask(
        &[begin, seed, data(input(0, 0), 0, &above)],
        refused(Refusal::Residue {
            item: input(0, 0),
            index: 0,
        }),
    );
    setup.ask(&[Request::Abort], Reply::Aborted);
    setup.ask(&[begin, seed, first, Request::Abort], Reply::Aborted);
    setup.ask(&[begin, seed, first, begin], READY);
}

#[test]
fn an_inference_that_breaks_off_anywhere_leaves_nothing_behind() {
    let mut setup = Setup::new();
    let last = numbers(&setup).last;
    // An abort in place of a frame: a client that was started again.
    for number in (OPENING..last).step_by(97).chain([last - 1, last]) {
        let what = format!("an abort at {number}");
        let abort = up(number, |f| *f = frame(&Request::Abort));
        setup.fails(&what, PATIENCE, abort);
    }
}

#[test]
fn noise_on_the_line_between_inferences() {
    let mut setup = Setup::new();
    let mut state = 1u32;
    for round in 0..20 {
        let noise: Vec<u8> = (0..1 + round * 200)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        setup.control.set(Damage::default());
        setup.link.send_raw(&noise).unwrap();
        setup.works("noise");
    }
}

#[test]
fn an_evaluator_that_is_gone() {
    let reference = Reference::new();
    let (end, evaluator) = host_runner::device::duplex();
    drop(evaluator);
    let mut link = Connection::new(end);
    let error = reference
        .client(1)
        .infer(&mut link, &reference.digits[0], &mut ())
        .unwrap_err();
    assert!(
        matches!(error, ClientError::Device(DeviceError::Closed { .. })),
        "{error}"
    );
    assert_one_sentence("gone", &error);
}
