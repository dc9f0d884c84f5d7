//! The session of a circuit against requests that are wrong, in this process.

use he_core::params::N4096_DEPTH3 as PARAMS;
use he_core::wire::packed_len;
use he_edge_tests::NoClock;
use he_nn::boards;
use he_nn::bundled;
use he_nn::circuit::program::{Cursor, Program, Upload};
use he_nn::circuit::session::{CircuitSession, Encrypted, WeightSource};
use he_nn::circuit::{CircuitError, Weights};
use he_nn::message::{CHUNK_COEFFS, Item, PROTOCOL_VERSION, Refusal, Reply, Request, SEED_BYTES};
use he_nn::model::Model;
use host_runner::circuit::device;

fn program(weights: Weights) -> Program {
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    device::plan(Some(&PARAMS), model, weights).unwrap().1
}

/// What the last of some requests is answered.
fn ask<W: WeightSource>(session: &mut CircuitSession<'_, W>, requests: &[Request<'_>]) -> String {
    let mut answer = String::new();
    for request in requests {
        answer.clear();
        session.handle(*request, &mut NoClock, &mut |reply| {
            answer = format!("{reply:?}");
        });
    }
    answer
}

fn refused(refusal: Refusal) -> String {
    format!("{:?}", Reply::Refused(refusal))
}

const SEED: Request<'_> = Request::Seed {
    seed: [7; SEED_BYTES],
};

#[test]
fn wrong_requests_are_refused_and_the_next_inference_begins() {
    let program = program(Weights::Encrypted);
    let mut arena = vec![0; program.arena_words()];
    let mut session = CircuitSession::new(&program, Encrypted, &mut arena).unwrap();
    let plan = program.fingerprint();
    let begin = Request::Begin { plan, trace: false };
    let width = PARAMS.prime(0).unwrap().modulus().bits();
    let chunk = vec![0x55; packed_len(CHUNK_COEFFS, width)];
    let large = vec![0xff; chunk.len()];
    let input = Item::Input {
        ciphertext: 0,
        limb: 0,
    };
    let weight = Item::Weight { factor: 0, limb: 0 };
    let data = |item, offset, bytes| Request::Data {
        item,
        offset,
        bytes,
    };
    let order = |expected, got, got_offset| {
        refused(Refusal::Order {
            expected,
            expected_offset: 0,
            got,
            got_offset,
        })
    };
    let first = data(input, 0, &chunk);
    let cases: Vec<(Vec<Request<'_>>, String)> = vec![
        (
            vec![Request::Hello { version: 999 }],
            refused(Refusal::Version {
                evaluator: PROTOCOL_VERSION,
                client: 999,
            }),
        ),
        (
            vec![Request::Begin {
                plan: plan ^ 1,
                trace: false,
            }],
            refused(Refusal::Plan {
                evaluator: plan,
                client: plan ^ 1,
            }),
        ),
        (
            vec![Request::Begin { plan, trace: true }],
            refused(Refusal::NoTracer),
        ),
        (vec![Request::Trace], refused(Refusal::NoTracer)),
        (vec![SEED], refused(Refusal::NotExpected)),
        (vec![first], refused(Refusal::NotExpected)),
        (vec![begin, first], refused(Refusal::NotExpected)),
        // Of the input and of its factor.
        (vec![begin, SEED, first], refused(Refusal::NotExpected)),
        (vec![begin, SEED, SEED, SEED], refused(Refusal::NotExpected)),
        (
            vec![begin, SEED, SEED, data(weight, 0, &chunk)],
            order(input, weight, 0),
        ),
        (
            vec![begin, SEED, SEED, first, data(input, 512, &chunk)],
            order(weight, input, 512),
        ),
        (
            vec![begin, SEED, SEED, data(input, 0, &chunk[1..])],
            refused(Refusal::ChunkLength {
                expected: chunk.len() as u16,
                got: chunk.len() as u16 - 1,
            }),
        ),
        (
            vec![begin, SEED, SEED, first, data(weight, 0, &large)],
            refused(Refusal::Residue {
                item: weight,
                index: 0,
            }),
        ),
        (
            vec![begin, SEED, Request::Abort],
            format!("{:?}", Reply::Aborted),
        ),
    ];
    for (requests, answer) in cases {
        assert_eq!(ask(&mut session, &requests), answer, "{requests:?}");
        // Whatever was running is dropped, and another begins.
        assert_eq!(ask(&mut session, &[SEED]), refused(Refusal::NotExpected));
        let again = ask(&mut session, &[begin, SEED, SEED, first]);
        assert_eq!(again, format!("{:?}", Reply::Ack));
        assert_eq!(
            ask(&mut session, &[Request::Abort]),
            format!("{:?}", Reply::Aborted)
        );
    }
}

/// An inference that breaks off while sums of products are relinearised leaves the
/// third part in use.
#[test]
fn an_inference_that_breaks_off_anywhere_is_followed_by_another() {
    let program = program(Weights::Encrypted);
    let mut arena = vec![0; program.arena_words()];
    let mut session = CircuitSession::new(&program, Encrypted, &mut arena).unwrap();
    let begin = Request::Begin {
        plan: program.fingerprint(),
        trace: false,
    };
    let zeros = vec![0; packed_len(CHUNK_COEFFS, 30)];
    for messages in [3, 900, 925, 1100, 2000] {
        assert_eq!(ask(&mut session, &[begin]), format!("{:?}", Reply::Ready));
        let mut cursor = Cursor::start(&program);
        for _ in 0..messages {
            let upload = cursor.upload(&program).unwrap();
            let request = match upload {
                Upload::Chunk(item, offset) => {
                    let (Item::Input { limb, .. }
                    | Item::Key { limb, .. }
                    | Item::Weight { limb, .. }) = item;
                    let prime = PARAMS.prime(usize::from(limb)).unwrap();
                    let length = packed_len(CHUNK_COEFFS, prime.modulus().bits());
                    Request::Data {
                        item,
                        offset: offset as u16,
                        bytes: &zeros[..length],
                    }
                }
                _ => SEED,
            };
            assert_eq!(ask(&mut session, &[request]), format!("{:?}", Reply::Ack));
            cursor.advance(&program);
        }
    }
}

#[test]
fn what_is_too_large_is_refused_with_its_figures() {
    let program = program(Weights::Encrypted);
    let needed = 4 * program.arena_words();
    let mut arena = vec![0; program.arena_words() - 1];
    let error = CircuitSession::new(&program, Encrypted, &mut arena).unwrap_err();
    let short = CircuitError::Memory {
        needed,
        available: needed - 4,
    };
    assert_eq!(error, short);
    let small = boards::find("mps2-an386-256k").unwrap().arena_bytes();
    assert_eq!(
        program.check_memory(small),
        Err(CircuitError::Memory {
            needed,
            available: small
        })
    );
    let large = boards::find("mps2-an386").unwrap().arena_bytes();
    assert_eq!(program.check_memory(large), Ok(()));
    // Two special primes are for keys in memory.
    let model = Model::parse(bundled::model("mnist-cnn").unwrap()).unwrap();
    let params = &host_runner::circuit::N8192_NETWORK;
    let error = device::plan(Some(params), model, Weights::Plain).unwrap_err();
    assert_eq!(error, CircuitError::Special { primes: 2 });
}

#[test]
fn an_evaluator_of_encrypted_weights_is_told_nothing_of_them() {
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    let mut room = vec![0; 8192];
    let program = program(Weights::Encrypted);
    let bytes = program.write(&mut room).unwrap();
    assert!(bytes.len() < 600, "{} bytes", bytes.len());
    let crc = postcard_u32(model.crc());
    assert!(!bytes.windows(crc.len()).any(|part| part == crc));
}

/// As postcard writes it: seven bits a byte.
fn postcard_u32(mut x: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while x >= 128 {
        bytes.push(x as u8 | 128);
        x >>= 7;
    }
    bytes.push(x as u8);
    bytes
}
