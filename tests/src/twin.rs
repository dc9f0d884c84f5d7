//! The objects that an engine in memory takes, streamed to a session: both evaluate the
//! same ciphertexts with the same keys, so that their results can be compared word for
//! word.

use std::collections::HashMap;

use he_core::Params;
use he_core::rlwe::{KeyLimb, SwitchTarget};
use he_core::wire::{HEADER_LEN, Header, Object, packed_len};
use he_nn::message::{CHUNK_COEFFS, Item, Reply, Request, SEED_BYTES};
use he_nn::plan::{Op, Plan, WeightMode};
use he_nn::program::Program;
use he_nn::schedule::{Cursor, Upload};
use he_nn::session::{EMPTY_CHUNK, Encrypted, Prepared, Session, WeightSource, prepare};
use he_nn::trace::Off;
use host_runner::client::{Client, Keys};
use host_runner::engine::Engine;

use crate::NoClock;
use crate::networks::Drawn;

/// A result as its packed words and its scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    scale_bits: u64,
    packed: Vec<u8>,
}

/// Evaluates a sample by the engine and by the session, from the same objects.
///
/// # Panics
/// If either refuses them, or if weights that were prepared, or transforms that are put off, give
/// the session another result.
#[must_use]
pub fn both(plan: &Plan<'_>, sample: &Drawn) -> (Words, Words) {
    let keys = Keys::from_seed(plan.params(), &[11; 32]).unwrap();
    let mut client = Client::with_keys(plan.clone(), keys).unwrap();
    let (keys, weights) = (client.switching_keys().unwrap(), client.weights().unwrap());
    let input = client.encrypt(sample.sample()).unwrap();
    let input = input.bytes(plan.params()).unwrap();
    let program = client.program().clone();

    let mut engine = Engine::new(program.clone(), Some(plan.model()), &keys, &weights).unwrap();
    let (result, _) = engine.evaluate(&input).unwrap();
    let header = Header::parse(&result, plan.params()).unwrap();
    let Object::Ciphertext { scale } = header.object else {
        panic!("the engine returned {header:?}");
    };
    let by_engine = Words {
        scale_bits: scale.to_bits(),
        packed: result[HEADER_LEN..].to_vec(),
    };

    let objects = Objects::of(&program, &keys, &weights, &input);
    let mut arena = vec![0; program.arena_words()];
    let mut longer = vec![0; program.arena_words() + 2 * plan.params().n()];
    let by_session = match plan.weights() {
        WeightMode::Plain => {
            let words = prepare(&program, plan.model()).unwrap();
            assert_eq!(size_of_val(&words[..]), plan.prepared_bytes());
            let by_prepared = objects.stream(&program, Prepared::new(&words), &mut arena);
            let by_model = objects.stream(&program, *plan.model(), &mut arena);
            let by_both = objects.stream(&program, Prepared::new(&words), &mut longer);
            assert!(by_prepared == by_model, "prepared weights give other words");
            assert!(
                by_both == by_model,
                "transforms that are put off give other words"
            );
            by_model
        }
        WeightMode::Encrypted => {
            let prompt = objects.stream(&program, Encrypted, &mut arena);
            let put_off = objects.stream(&program, Encrypted, &mut longer);
            assert!(
                prompt == put_off,
                "transforms that are put off give other words"
            );
            prompt
        }
    };
    (by_engine, by_session)
}

/// A seeded ciphertext or a switching key, as bytes.
struct Seeded<'b> {
    header: Header,
    seed: [u8; SEED_BYTES],
    /// Packed, in the order of the wire.
    limbs: Vec<&'b [u8]>,
}

fn parse<'b>(params: &Params, mut bytes: &'b [u8]) -> Vec<Seeded<'b>> {
    let mut objects = Vec::new();
    while !bytes.is_empty() {
        let header = Header::parse(bytes, params).unwrap();
        let (object, rest) = bytes.split_at(header.object_len(params).unwrap());
        bytes = rest;
        let (seed, mut body) = object[HEADER_LEN..].split_first_chunk().unwrap();
        let primes: Vec<usize> = match header.object {
            Object::SwitchingKey { .. } => {
                let next = |at: &KeyLimb| at.next(params, header.level);
                let limbs = std::iter::successors(Some(KeyLimb::FIRST), next);
                limbs.map(|at| at.target).collect()
            }
            _ => (0..=header.level).collect(),
        };
        let mut limbs = Vec::new();
        for prime in primes {
            let bits = params.prime(prime).unwrap().modulus().bits();
            let limb;
            (limb, body) = body.split_at(packed_len(params.n(), bits));
            limbs.push(limb);
        }
        assert!(body.is_empty(), "{header:?}");
        objects.push(Seeded {
            header,
            seed: *seed,
            limbs,
        });
    }
    objects
}

/// What an engine takes for one sample.
struct Objects<'b> {
    params: &'static Params,
    inputs: Vec<Seeded<'b>>,
    weights: Vec<Seeded<'b>>,
    /// In the order of the stream, places among `weights`.
    factors: Vec<usize>,
    keys: Vec<Seeded<'b>>,
    /// In the order of the stream, what they are for.
    key_uses: Vec<SwitchTarget>,
}

impl<'b> Objects<'b> {
    fn of(program: &Program<Vec<u8>>, keys: &'b [u8], weights: &'b [u8], input: &'b [u8]) -> Self {
        let params = program.params();
        // An engine takes the products of a layer by their index, then its biases.
        let key = |task: &he_nn::plan::Task| match task.op {
            Op::Product { index, .. } => (task.step, index.into()),
            _ => (task.step, u32::MAX),
        };
        let mut order: Vec<(u8, u32)> = program.factors().map(|task| key(&task)).collect();
        order.sort_unstable();
        let places: HashMap<_, _> = order.into_iter().zip(0..).collect();
        Self {
            params,
            inputs: parse(params, input),
            weights: parse(params, weights),
            factors: program.factors().map(|task| places[&key(&task)]).collect(),
            keys: parse(params, keys),
            key_uses: program
                .key_uses()
                .filter_map(|task| task.op.key())
                .collect(),
        }
    }

    /// The key of a use: one for all levels.
    fn key(&self, index: usize) -> &Seeded<'b> {
        let target = self.key_uses[index];
        let is_it = |key: &&Seeded<'_>| key.header.object == Object::SwitchingKey { target };
        self.keys.iter().find(is_it).unwrap()
    }

    fn limb(&self, item: Item) -> &'b [u8] {
        match item {
            Item::Input { ciphertext, limb } => {
                self.inputs[usize::from(ciphertext)].limbs[usize::from(limb)]
            }
            Item::Weight { factor, limb } => {
                let place = self.factors[usize::from(factor)];
                self.weights[place].limbs[usize::from(limb)]
            }
            Item::Key { key, limb, digit } => {
                let key = self.key(key.into());
                let at = KeyLimb {
                    target: limb.into(),
                    digit: digit.into(),
                };
                key.limbs[at.index(self.params, key.header.level).unwrap()]
            }
        }
    }

    /// Feeds a session with them; its result.
    fn stream<W: WeightSource>(
        &self,
        program: &Program<Vec<u8>>,
        weights: W,
        arena: &mut [u32],
    ) -> Words {
        let mut chunk = EMPTY_CHUNK;
        let mut session: Session<'_, _, W, Off> =
            Session::new(program, weights, arena, &mut chunk, Off).unwrap();
        let mut words = None;
        let mut packed = Vec::new();
        let mut ask = |request: Request<'_>| {
            session.handle(request, &mut NoClock::default(), &mut |reply| match reply {
                Reply::Result { bytes, .. } => packed.extend_from_slice(bytes),
                Reply::Done { scale_bits, .. } => words = Some(scale_bits),
                Reply::Ready { .. } | Reply::Ack => {}
                other => panic!("{request:?} was answered by {other:?}"),
            });
        };
        ask(Request::Begin {
            plan: program.fingerprint(),
            trace: false,
        });
        for upload in Cursor::uploads(program) {
            ask(match upload {
                Upload::InputSeed(input) => Request::Seed {
                    seed: self.inputs[input].seed,
                },
                Upload::FactorSeed(factor) => Request::Seed {
                    seed: self.weights[self.factors[factor]].seed,
                },
                Upload::KeySeed(key) => Request::Seed {
                    seed: self.key(key).seed,
                },
                Upload::Chunk(item, offset) => {
                    let limb = self.limb(item);
                    let length = limb.len() * CHUNK_COEFFS / self.params.n();
                    let first = offset / CHUNK_COEFFS * length;
                    Request::Data {
                        item,
                        offset: offset as u16,
                        bytes: &limb[first..first + length],
                    }
                }
            });
        }
        assert!(packed.iter().any(|&byte| byte != 0));
        Words {
            scale_bits: words.expect("the session gave no result"),
            packed,
        }
    }
}
