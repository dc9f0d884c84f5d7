//! The session against requests that are wrong, and what a client sends against the
//! program: messages, keys, bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use he_core::params::N4096_DEPTH3 as PARAMS;
use he_core::rlwe::SwitchTarget;
use he_core::wire::{Header, Object, packed_len};
use he_edge_tests::suite::Case;
use he_edge_tests::{NoClock, READY, forgetful};
use he_nn::boards;
use he_nn::bundled;
use he_nn::link::DELIMITER;
use he_nn::message::{CHUNK_COEFFS, Item, PROTOCOL_VERSION, Refusal, Reply, Request, SEED_BYTES};
use he_nn::model::Model;
use he_nn::plan::{Plan, PlanError, Target, WeightMode};
use he_nn::program::Program;
use he_nn::progress::Progress;
use he_nn::schedule::{Cursor, Upload};
use he_nn::session::{EMPTY_CHUNK, Encrypted, Session, WeightSource};
use he_nn::trace::Off;
use host_runner::client::{Client, Keys};
use host_runner::device::{Connection, Direction};
use host_runner::engine::{Engine, EngineError, latency};
use host_runner::planning;

const REFERENCE: &str = "mnist-mlp64";

fn plan(target: Target) -> Result<Plan<'static>, PlanError> {
    let model = Model::parse(bundled::model(REFERENCE).unwrap()).unwrap();
    planning::plan(Some(&PARAMS), model, WeightMode::Encrypted, target)
}

/// With encrypted weights.
fn program() -> Program<Vec<u8>> {
    Program::of(&plan(Target::STREAM).unwrap()).unwrap()
}

type Tested<'a, W> = Session<'a, Vec<u8>, W, Off>;

/// What the last of some requests is answered.
fn ask<W: WeightSource>(session: &mut Tested<'_, W>, requests: &[Request<'_>]) -> String {
    let mut answer = String::new();
    for request in requests {
        answer.clear();
        session.handle(*request, &mut NoClock::default(), &mut |reply| {
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
    let program = program();
    let mut arena = vec![0; program.arena_words()];
    let mut chunk = EMPTY_CHUNK;
    let mut session = Tested::new(&program, Encrypted, &mut arena, &mut chunk, Off).unwrap();
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

/// Messages of one sample: how many wait for each task.
fn messages(program: &Program<Vec<u8>>) -> BTreeMap<usize, usize> {
    let mut messages = BTreeMap::new();
    let mut cursor = Cursor::start(program);
    while cursor.upload(program).is_some() {
        *messages.entry(cursor.task()).or_default() += 1;
        cursor.advance(program);
    }
    messages
}

/// An inference that breaks off while sums of products are relinearised leaves the
/// third part in use.
#[test]
fn an_inference_that_breaks_off_anywhere_is_followed_by_another() {
    let program = program();
    let mut arena = vec![0; program.arena_words()];
    let mut chunk = EMPTY_CHUNK;
    let mut session = Tested::new(&program, Encrypted, &mut arena, &mut chunk, Off).unwrap();
    let begin = Request::Begin {
        plan: program.fingerprint(),
        trace: false,
    };
    let zeros = vec![0; packed_len(CHUNK_COEFFS, 30)];
    // Of the first factor and of every key: before, behind the seed, amid, before the end.
    let (mut breaks, mut before) = (Vec::new(), 0);
    for (task, count) in messages(&program) {
        let has_key = program
            .task(task)
            .is_some_and(|task| task.op.key().is_some());
        if before == 0 || has_key {
            breaks.extend([0, 1, count / 2, count - 1].map(|part| before + part));
        }
        before += count;
    }
    assert!(breaks.len() > 4 * 4, "{breaks:?}");
    for messages in breaks {
        assert_eq!(ask(&mut session, &[begin]), format!("{:?}", READY));
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
    let program = program();
    let needed = 4 * program.arena_words();
    let mut arena = vec![0; program.arena_words() - 1];
    let mut chunk = EMPTY_CHUNK;
    let error = Tested::new(&program, Encrypted, &mut arena, &mut chunk, Off).unwrap_err();
    let short = PlanError::Memory {
        needed,
        available: needed - 4,
    };
    assert_eq!(error, short);
    let on = |name| plan(boards::find(name).unwrap().target());
    let small = boards::find("mps2-an386-256k").unwrap().arena_bytes();
    let error = on("mps2-an386-256k").unwrap_err();
    assert_eq!(
        error,
        PlanError::Memory {
            needed,
            available: small
        }
    );
    assert_eq!(4 * on("mps2-an386").unwrap().arena_words(), needed);
}

#[test]
fn an_evaluator_of_encrypted_weights_is_told_nothing_of_them() {
    let model = Model::parse(bundled::model(REFERENCE).unwrap()).unwrap();
    let program = program();
    let bytes = program.bytes();
    let crc = model.crc();
    for crc in [postcard_u32(crc), crc.to_le_bytes().to_vec()] {
        assert!(!bytes.windows(crc.len()).any(|part| part == crc));
    }
}

/// As postcard writes it: seven bits per byte.
fn postcard_u32(mut x: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while x >= 128 {
        bytes.push(x as u8 | 128);
        x >>= 7;
    }
    bytes.push(x as u8);
    bytes
}

/// What a stream is asked of, on both ways and with one register and with many.
const CASES: [&str; 3] = ["mnist-mlp64", "mnist-cnn", "pima-logreg"];

const WEIGHTS: [WeightMode; 2] = [WeightMode::Plain, WeightMode::Encrypted];

/// Every key that a plan uses, and no other, is made; a host keeps one for the highest
/// of its levels.
#[test]
fn keys_are_those_that_the_plan_uses() {
    for name in CASES {
        let case = Case::bundled(name);
        for (weights, target) in WEIGHTS
            .iter()
            .flat_map(|&weights| [Target::Host, Target::STREAM].map(|target| (weights, target)))
        {
            let plan = case.plan(weights, target).unwrap();
            let mut highest: Vec<(SwitchTarget, usize)> = Vec::new();
            plan.keys(
                |target, level| match highest.iter_mut().find(|(t, _)| *t == target) {
                    Some((_, most)) => *most = level.max(*most),
                    None => highest.push((target, level)),
                },
            );
            let keys = Keys::from_seed(plan.params(), &[3; 32]).unwrap();
            let mut client = Client::with_keys(plan.clone(), keys).unwrap();
            assert_eq!(latency::wanted_keys(client.program()), highest, "{name}");
            let (bytes, weights) = (client.switching_keys().unwrap(), client.weights().unwrap());
            let mut made = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let header = Header::parse(rest, plan.params()).unwrap();
                let Object::SwitchingKey { target } = header.object else {
                    panic!("{name}: {header:?}");
                };
                made.push((target, header.level));
                rest = &rest[header.object_len(plan.params()).unwrap()..];
            }
            assert_eq!(made, highest, "{name}");
            refuses_other_counts(&client, plan.model(), &bytes, &weights);
        }
    }
}

/// An engine takes as many keys and weights as there are, and no others.
fn refuses_other_counts(client: &Client<'_>, model: &Model<'_>, keys: &[u8], weights: &[u8]) {
    let params = client.plan().params();
    let build = |keys: &[u8], weights: &[u8]| {
        Engine::new(client.program().clone(), Some(model), keys, weights).map(|_| ())
    };
    build(keys, weights).unwrap();
    let first = |bytes: &[u8]| {
        Header::parse(bytes, params)
            .unwrap()
            .object_len(params)
            .unwrap()
    };
    let counted = |refused: Result<(), EngineError>, expected_what: &str| match refused {
        Err(EngineError::Count {
            what,
            expected,
            got,
        }) => assert!(
            what == expected_what && got + 1 == expected,
            "{what} {got} {expected}"
        ),
        other => panic!("{other:?}"),
    };
    if !keys.is_empty() {
        counted(build(&keys[first(keys)..], weights), "switching keys");
        // A byte less, and another object.
        let cut = build(&keys[..keys.len() - 1], weights);
        assert!(matches!(cut, Err(EngineError::Bytes { .. })), "{cut:?}");
    }
    if !weights.is_empty() {
        counted(build(keys, &weights[first(weights)..]), "encrypted weights");
        let swapped = build(keys, keys);
        assert!(swapped.is_err());
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Told {
    total: u64,
    done: u64,
}

impl Progress for Told {
    fn start(&mut self, steps: u64) {
        self.total = steps;
    }
    fn advance(&mut self, steps: u64) {
        self.done += steps;
    }
    fn note(&mut self, _: &str) {}
    fn finish(&mut self) {}
}

/// The messages of a client are those of the program, and their payload that of the plan.
#[test]
fn a_client_sends_what_the_program_says() {
    for name in CASES {
        let case = Case::bundled(name);
        for weights in WEIGHTS {
            let plan = case.plan(weights, Target::STREAM).unwrap();
            let payload = plan.payload();
            let program = Program::of(&plan).unwrap();
            // One that keeps no keys: each goes up with every use.
            let mut link = Connection::new(forgetful(&plan));
            let sent = Arc::new(Mutex::new(0));
            let count = sent.clone();
            link.record(move |direction, bytes| {
                // A greeting begins with a delimiter.
                if direction == Direction::Up && bytes != [DELIMITER] {
                    *count.lock().unwrap() += 1;
                }
            });
            let keys = Keys::from_seed(plan.params(), &[3; 32]).unwrap();
            let mut client = Client::with_keys(plan, keys).unwrap();
            let mut told = Told::default();
            let sample = case.samples(1)[0].sample();
            client.infer(&mut link, sample, &mut told).unwrap();
            let expected = payload.inputs + payload.factors + payload.keys;
            assert_eq!((told.done, told.total), (expected as u64, expected as u64));
            // Before them a greeting, and a beginning.
            let messages: usize = messages(&program).values().sum();
            assert_eq!(*sent.lock().unwrap(), messages + 2, "{name}");
        }
    }
}
