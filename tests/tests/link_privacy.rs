//! Every byte on the link during inferences: neither the secret key nor a row
//! of pixels is among them, in any encoding that this project knows, at any bit
//! offset. The search is tried on recordings in which each of them was planted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use chacha20::ChaCha20Rng;
use he_core::ckks::encode::{decode_in_place, encode_in_place};
use he_core::params::Params;
use he_core::ring::{ntt, sample};
use he_core::rlwe::{self, SecretKey};
use he_core::wire::{pack, packed_len, unpack};
use he_edge_tests::mangler::{frame, replies, requests};
use he_edge_tests::{Reference, centred, forgetful};
use he_nn::data::Image;
use he_nn::message::{CHUNK_COEFFS, Item, Reply, Request};
use he_nn::plan::Plan;
use he_nn::schedule::{Cursor, Upload};
use host_runner::client::{Client, Keys};
use host_runner::device::{Connection, Direction};
use rand_core::SeedableRng;

/// Coefficients in a row that count as found.
const WINDOW: usize = 32;

/// All randomness of the client.
const SEED: [u8; 32] = [42; 32];

/// What went over the link, each way.
#[derive(Clone, Default)]
struct Recording {
    up: Vec<u8>,
    down: Vec<u8>,
}

/// A client whose randomness is that of [`SEED`].
fn client(reference: &Reference) -> Client<'static> {
    let keys = Keys::from_seed(reference.plan.params(), &SEED).unwrap();
    Client::with_keys(reference.plan.clone(), keys).unwrap()
}

/// What an inference sends, in order.
fn uploads(reference: &Reference) -> Vec<Upload> {
    Cursor::uploads(client(reference).program()).collect()
}

/// Which key each use takes: the number of the first use with its target and level,
/// as a key is made once and sent whenever it is used.
fn keys_of_uses(reference: &Reference) -> Vec<u16> {
    let mut uses = Vec::new();
    reference
        .plan
        .keys(|target, level| uses.push((target, level)));
    let first = |of: &_| (0..).zip(&uses).find(|(_, other)| *other == of).unwrap().0;
    uses.iter().map(first).collect()
}

/// How many keys there are.
fn keys(reference: &Reference) -> usize {
    keys_of_uses(reference)
        .iter()
        .collect::<BTreeSet<_>>()
        .len()
}

/// Runs inferences and gives the bytes of each.
fn record(reference: &Reference, images: &[Image]) -> Vec<Recording> {
    let mut client = client(reference);
    // Every inference streams its keys.
    let mut link = Connection::new(forgetful(&reference.plan));
    let seen = Arc::<Mutex<Recording>>::default();
    let recorder = seen.clone();
    link.record(move |way, bytes| {
        let mut seen = recorder.lock().unwrap();
        match way {
            Direction::Up => seen.up.extend_from_slice(bytes),
            Direction::Down => seen.down.extend_from_slice(bytes),
        }
    });
    let mut recordings = Vec::new();
    for image in images {
        let inference = client.infer(&mut link, image, &mut ()).unwrap();
        reference.check(image, &inference);
        let recording = std::mem::take(&mut *seen.lock().unwrap());
        assert_eq!(recording.up.len() as u64, inference.bytes.up);
        assert_eq!(recording.down.len() as u64, inference.bytes.down);
        recordings.push(recording);
    }
    recordings
}

/// The client's secret: it draws it before anything else.
fn secret(params: &Params) -> Vec<i8> {
    let mut rng = ChaCha20Rng::from_seed(SEED);
    (0..params.n())
        .map(|_| sample::ternary(&mut rng) as i8)
        .collect()
}

/// The messages without their framing.
#[derive(Default)]
struct Messages {
    /// Seeds with whether they belong to a key.
    seeds: Vec<([u8; 32], bool)>,
    inputs: BTreeMap<(u16, u8, u16), Vec<u8>>,
    keys: BTreeMap<(u16, u8, u8, u16), Vec<u8>>,
    results: BTreeMap<(u8, u8, u16), Vec<u8>>,
}

fn messages(reference: &Reference, recording: &Recording) -> Messages {
    let mut out = Messages::default();
    let uploads = uploads(reference);
    let mut of_keys = uploads.iter().filter_map(|upload| match upload {
        Upload::InputSeed(_) => Some(false),
        Upload::KeySeed(_) => Some(true),
        Upload::FactorSeed(_) | Upload::Chunk(..) => None,
    });
    requests(&recording.up, |request| match request {
        Request::Seed { seed } => {
            out.seeds.push((seed, of_keys.next().unwrap()));
        }
        Request::Data {
            item: Item::Input { ciphertext, limb },
            offset,
            bytes,
        } => {
            out.inputs.insert((ciphertext, limb, offset), bytes.into());
        }
        Request::Data {
            item: Item::Key { key, limb, digit },
            offset,
            bytes,
        } => {
            out.keys.insert((key, limb, digit, offset), bytes.into());
        }
        _ => {}
    });
    replies(&recording.down, |reply| {
        if let Reply::Result {
            part,
            limb,
            offset,
            bytes,
        } = reply
        {
            out.results.insert((part, limb, offset), bytes.into());
        }
    });
    assert_eq!(of_keys.next(), None);
    let chunks = out.seeds.len() + out.inputs.len() + out.keys.len();
    assert_eq!(chunks, uploads.len());
    out
}

/// One byte string that must not be found.
struct Needle {
    kind: String,
    bytes: Vec<u8>,
}

/// Residues modulo a prime in every form that the code knows.
fn residue_forms(params: &Params, prime: usize, values: &[i32]) -> Vec<(&'static str, Vec<u32>)> {
    let prime = params.prime(prime).unwrap();
    let m = prime.modulus();
    let q = i64::from(m.value());
    let plain: Vec<u32> = values
        .iter()
        .map(|&x| i64::from(x).rem_euclid(q) as u32)
        .collect();
    let montgomery =
        |words: &[u32]| -> Vec<u32> { words.iter().map(|&x| m.canon(m.to_mont(x))).collect() };
    let mut transformed = plain.clone();
    ntt::forward(&mut transformed, prime).unwrap();
    vec![
        ("coefficients, Montgomery", montgomery(&plain)),
        ("coefficients", plain),
        ("NTT, Montgomery", montgomery(&transformed)),
        ("NTT", transformed),
    ]
}

/// The residues as words and packed as on the wire, in windows that begin at
/// every multiple of `stride`.
fn residue_needles(
    name: &str,
    params: &Params,
    prime: usize,
    values: &[i32],
    stride: usize,
    needles: &mut Vec<Needle>,
) {
    let m = params.prime(prime).unwrap().modulus();
    for (form, words) in residue_forms(params, prime, values) {
        for window in words.windows(WINDOW).step_by(stride) {
            let mut packed = vec![0; packed_len(WINDOW, m.bits())];
            pack(window, m, &mut packed).unwrap();
            needles.push(Needle {
                kind: format!("{name}: {form} modulo prime {prime}, packed"),
                bytes: packed,
            });
            needles.push(Needle {
                kind: format!("{name}: {form} modulo prime {prime}, words"),
                bytes: window.iter().flat_map(|x| x.to_le_bytes()).collect(),
            });
        }
    }
}

fn secret_needles(params: &Params, secret: &[i8], needles: &mut Vec<Needle>) {
    let values: Vec<i32> = secret.iter().map(|&s| s.into()).collect();
    for window in secret.windows(WINDOW) {
        let two_bits = |code: fn(i8) -> u8| -> Vec<u8> {
            let bytes = window.as_chunks::<4>().0.iter();
            bytes
                .map(|four| (0..4).fold(0, |byte, i| byte | code(four[i]) << (2 * i)))
                .collect()
        };
        let forms: [(&str, Vec<u8>); 4] = [
            ("bytes", window.iter().map(|&s| s as u8).collect()),
            (
                "words",
                window
                    .iter()
                    .flat_map(|&s| i32::from(s).to_le_bytes())
                    .collect(),
            ),
            ("two bits, from -1", two_bits(|s| (s + 1) as u8)),
            ("two bits, two's complement", two_bits(|s| s as u8 & 3)),
        ];
        for (form, bytes) in forms {
            let kind = format!("secret: {form}");
            needles.push(Needle { kind, bytes });
        }
    }
    for prime in 0..=params.special() {
        residue_needles("secret", params, prime, &values, 1, needles);
    }
}

fn image_needles(reference: &Reference, image: &Image, needles: &mut Vec<Needle>) {
    let plan = &reference.plan;
    let params = plan.params();
    // Whole rows, and parts of a row that no chance can bring about.
    let rows = image.chunks_exact(28).filter(|r| r.iter().any(|&p| p > 0));
    let parts = image.windows(8).filter(|part| {
        part.iter()
            .filter(|&&p| p > 0)
            .collect::<HashSet<_>>()
            .len()
            >= 4
    });
    for (what, pixels) in rows
        .map(|row| ("row", row))
        .chain(parts.map(|part| ("part of a row", part)))
    {
        let real = |p: &u8| f64::from(*p) / 255.0;
        let forms: [(&str, Vec<u8>); 3] = [
            ("bytes", pixels.to_vec()),
            (
                "f32",
                pixels
                    .iter()
                    .flat_map(|p| (real(p) as f32).to_le_bytes())
                    .collect(),
            ),
            (
                "f64",
                pixels.iter().flat_map(|p| real(p).to_le_bytes()).collect(),
            ),
        ];
        for (form, bytes) in forms {
            let kind = format!("{what}: {form}");
            needles.push(Needle { kind, bytes });
        }
    }
    for (index, message) in encoded(plan, image).into_iter().enumerate() {
        if message.iter().all(|&x| x == 0) {
            // A part of the image without ink.
            continue;
        }
        for window in message.windows(WINDOW).step_by(WINDOW) {
            needles.push(Needle {
                kind: "encoded: words".to_owned(),
                bytes: window.iter().flat_map(|x| x.to_le_bytes()).collect(),
            });
        }
        for prime in 0..=plan.input_level() {
            residue_needles("encoded", params, prime, &message, WINDOW, needles);
        }
        // Whatever the form repeats, no chance brings about so many values.
        let slots = input_slots(plan, index, image);
        let inked = |part: &&[f64]| part.iter().filter(|&&x| x > 0.0).count() >= 4;
        for part in slots.chunks_exact(WINDOW).filter(inked) {
            needles.push(Needle {
                kind: "slots: f64".to_owned(),
                bytes: part.iter().flat_map(|x| x.to_le_bytes()).collect(),
            });
        }
    }
}

/// Real parts of an input ciphertext's slots, then their imaginary parts.
fn input_slots(plan: &Plan<'_>, index: usize, image: &Image) -> Vec<f64> {
    let mut values = vec![0.0; plan.model().inputs()];
    plan.model().input_values(image, &mut values).unwrap();
    let mut slots = vec![0.0; plan.params().n()];
    let (re, im) = slots.split_at_mut(plan.params().slots());
    plan.input_slots(index, &values, re, im);
    slots
}

/// The input ciphertext with the most ink in its slots.
fn most_ink(plan: &Plan<'_>, image: &Image) -> usize {
    let ink = |index: &usize| {
        let slots = input_slots(plan, *index, image);
        slots.iter().filter(|&&x| x > 0.5).count()
    };
    (0..plan.ciphertexts()).max_by_key(ink).unwrap()
}

/// The integers that each input ciphertext encrypts.
fn encoded(plan: &Plan<'_>, image: &Image) -> Vec<Vec<i32>> {
    let of = |index| {
        let mut message = input_slots(plan, index, image);
        encode_in_place(&mut message, plan.input_scale()).unwrap();
        message.iter().map(|&x| x as i32).collect()
    };
    (0..plan.ciphertexts()).map(of).collect()
}

/// Finds any of many byte strings at any bit offset.
struct Search<'a> {
    needles: &'a [Needle],
    /// First eight bytes of every needle, sorted.
    index: Vec<(u64, u32)>,
    /// What a key hashes to, to pass by what is in no needle.
    sieve: Vec<u64>,
}

const SIEVE_BITS: u32 = 24;

impl<'a> Search<'a> {
    fn new(needles: &'a [Needle]) -> Self {
        let mut index: Vec<(u64, u32)> = needles
            .iter()
            .zip(0..)
            .map(|(needle, i)| (key(&needle.bytes), i))
            .collect();
        index.sort_unstable();
        let mut sieve = vec![0; 1 << (SIEVE_BITS - 6)];
        for (key, _) in &index {
            let place = Self::place(*key);
            sieve[place >> 6] |= 1 << (place & 63);
        }
        Self {
            needles,
            index,
            sieve,
        }
    }

    fn place(key: u64) -> usize {
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SIEVE_BITS)) as usize
    }

    /// The kinds that are in `hay`.
    fn find(&self, hay: &[u8]) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        for shift in 0..8 {
            let shifted: Vec<u8> = (0..hay.len())
                .map(|i| {
                    let next = hay.get(i + 1).copied().unwrap_or(0);
                    (u16::from_le_bytes([hay[i], next]) >> shift) as u8
                })
                .collect();
            for (at, first) in shifted.windows(8).enumerate() {
                let key = key(first);
                let place = Self::place(key);
                if self.sieve[place >> 6] >> (place & 63) & 1 == 0 {
                    continue;
                }
                let begin = self.index.partition_point(|(k, _)| *k < key);
                let same = self.index[begin..].iter().take_while(|(k, _)| *k == key);
                for (_, i) in same {
                    let needle = &self.needles[*i as usize];
                    if shifted[at..].starts_with(&needle.bytes) {
                        found.insert(needle.kind.as_str());
                    }
                }
            }
        }
        found
    }

    /// The kinds that are in a recording, as it is or without its framing.
    fn find_in(&self, recording: &Recording) -> BTreeSet<&'a str> {
        let mut found = self.find(&recording.up);
        found.extend(self.find(&recording.down));
        found.extend(self.find_unframed(recording));
        found
    }

    fn find_unframed(&self, recording: &Recording) -> BTreeSet<&'a str> {
        // The payloads of one kind of message in a row, so that what spans two
        // chunks is whole.
        let (mut seeds, mut chunks, mut results) = (Vec::new(), Vec::new(), Vec::new());
        requests(&recording.up, |request| match request {
            Request::Seed { seed } => seeds.extend_from_slice(&seed),
            Request::Data { bytes, .. } => chunks.extend_from_slice(bytes),
            _ => {}
        });
        replies(&recording.down, |reply| {
            if let Reply::Result { bytes, .. } = reply {
                results.extend_from_slice(bytes);
            }
        });
        assert!(!seeds.is_empty() && !chunks.is_empty() && !results.is_empty());
        let mut found = self.find(&seeds);
        found.extend(self.find(&chunks));
        found.extend(self.find(&results));
        found
    }
}

fn key(bytes: &[u8]) -> u64 {
    let first: [u8; 8] = bytes[..8].try_into().unwrap();
    u64::from_le_bytes(first)
}

/// One needle of every kind, not always the first.
fn one_of_each(needles: &[Needle]) -> Vec<&Needle> {
    let mut kinds: BTreeMap<&str, Vec<&Needle>> = BTreeMap::new();
    for needle in needles {
        kinds.entry(&needle.kind).or_default().push(needle);
    }
    let picked = kinds.into_values().enumerate();
    picked
        .map(|(i, of_kind)| of_kind[i * 7919 % of_kind.len()])
        .collect()
}

/// Writes a needle over bytes, from bit `shift` of the first byte on.
fn plant(needle: &[u8], shift: usize, over: &mut [u8]) {
    for (i, byte) in needle.iter().enumerate() {
        for bit in 0..8 {
            let place = 8 * i + bit + shift;
            let mask = 1 << (place % 8);
            let target = &mut over[place / 8];
            *target = if byte >> bit & 1 == 1 {
                *target | mask
            } else {
                *target & !mask
            };
        }
    }
}

/// A copy with the needles in its payloads, each in a chunk of its own and at
/// a bit offset of its own.
fn with_planted(recording: &Recording, needles: &[&Needle], down: bool) -> Recording {
    let mut left = needles.iter().zip(0usize..);
    let mut put = |bytes: &[u8]| -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if let Some((needle, number)) = left.next() {
            plant(&needle.bytes, number % 8, &mut bytes[100 + number..]);
        }
        bytes
    };
    let mut copy = Recording::default();
    if down {
        copy.up.clone_from(&recording.up);
        replies(&recording.down, |reply| {
            copy.down.extend(match reply {
                Reply::Result {
                    part,
                    limb,
                    offset,
                    bytes,
                } => frame(&Reply::Result {
                    part,
                    limb,
                    offset,
                    bytes: &put(bytes),
                }),
                other => frame(&other),
            });
        });
    } else {
        copy.down.clone_from(&recording.down);
        requests(&recording.up, |request| {
            copy.up.extend(match request {
                Request::Data {
                    item,
                    offset,
                    bytes,
                } => frame(&Request::Data {
                    item,
                    offset,
                    bytes: &put(bytes),
                }),
                other => frame(&other),
            });
        });
    }
    assert!(left.next().is_none(), "not enough chunks to plant in");
    copy
}

#[test]
fn neither_key_nor_pixels_are_on_the_link() {
    let reference = Reference::new();
    let params = reference.plan.params();
    let image = reference.digits[3];
    let recording = &record(&reference, &[image])[0];
    let secret = secret(params);
    the_secret_is_the_clients(&reference, recording, &secret, &image);

    let mut needles = Vec::new();
    secret_needles(params, &secret, &mut needles);
    image_needles(&reference, &image, &mut needles);
    let search = Search::new(&needles);
    assert_eq!(search.find_in(recording), BTreeSet::new());

    // Does the search find what is there?
    let one_of_each = one_of_each(&needles);
    let kinds: BTreeSet<&str> = one_of_each.iter().map(|n| n.kind.as_str()).collect();
    assert_eq!(
        kinds.len(),
        4 + 8 * (params.special() + 1) + 6 + 1 + 8 * (reference.plan.input_level() + 1) + 1
    );
    let planted = with_planted(recording, &one_of_each, false);
    assert_eq!(search.find_unframed(&planted), kinds, "up");
    for some in one_of_each.chunks(10) {
        let kinds = some.iter().map(|n| n.kind.as_str()).collect();
        let planted = with_planted(recording, some, true);
        let down = Recording {
            up: frame(&Request::Seed { seed: [1; 32] })
                .into_iter()
                .chain(frame(&Request::Data {
                    item: Item::Input {
                        ciphertext: 0,
                        limb: 0,
                    },
                    offset: 0,
                    bytes: &[1],
                }))
                .collect(),
            down: planted.down,
        };
        assert_eq!(search.find_unframed(&down), kinds, "down");
    }
    // Beside the frames: what is no message at all.
    for up in [true, false] {
        let mut raw = recording.clone();
        let way = if up { &mut raw.up } else { &mut raw.down };
        for needle in &one_of_each {
            way.extend(&needle.bytes);
        }
        assert_eq!(search.find_in(&raw), kinds, "beside the frames");
    }
}

/// Decrypts a recorded input with the secret that is searched for: were it
/// another, not finding it would mean nothing.
fn the_secret_is_the_clients(
    reference: &Reference,
    recording: &Recording,
    secret: &[i8],
    image: &Image,
) {
    let plan = &reference.plan;
    let params = plan.params();
    let ciphertext = most_ink(plan, image);
    let (n, limbs) = (params.n(), plan.input_level() + 1);
    let messages = messages(reference, recording);
    let mut c0 = Vec::new();
    for limb in 0..limbs as u8 {
        for offset in (0..n as u16).step_by(CHUNK_COEFFS) {
            let bytes = &messages.inputs[&(ciphertext as u16, limb, offset)];
            let mut words = [0; CHUNK_COEFFS];
            let m = params.prime(limb.into()).unwrap().modulus();
            unpack(bytes, m, &mut words).unwrap();
            c0.extend(words);
        }
    }
    let mut c1 = vec![0; limbs * n];
    // Inputs are numbered as they are sent.
    let mut of_inputs = messages.seeds.iter().filter(|(_, of_key)| !of_key);
    let (seed, _) = of_inputs.nth(ciphertext).unwrap();
    rlwe::expand_c1(params, seed, &mut c1).unwrap();
    let words = vec![0; SecretKey::<Vec<u32>>::words(params)];
    let key = SecretKey::from_coefficients(params, words, secret).unwrap();
    let mut plain = vec![0; limbs * n];
    rlwe::declassify_decryption(params, &key, [&c0, &c1], &mut plain).unwrap();
    let mut slots = centred(params, &plain);
    decode_in_place(&mut slots, plan.input_scale()).unwrap();
    let expected = input_slots(plan, ciphertext, image);
    for part in expected.chunks_exact(params.slots()) {
        assert!(part.iter().any(|&x| x > 0.5));
    }
    for (got, expected) in slots.iter().zip(&expected) {
        assert!((got - expected).abs() < 0.01, "{got} for {expected}");
    }
}

#[test]
fn two_inferences_of_one_image_have_nothing_in_common() {
    let reference = Reference::new();
    let image = reference.digits[5];
    let recordings = record(&reference, &[image, image]);
    let of = |i: usize| messages(&reference, &recordings[i]);
    let (first, second) = (of(0), of(1));
    assert_eq!(first.inputs.len(), second.inputs.len());
    let sent = uploads(&reference).into_iter();
    let inputs = sent.filter(|upload| matches!(upload, Upload::Chunk(Item::Input { .. }, _)));
    assert_eq!(first.inputs.len(), inputs.count());

    let mut chunks = HashSet::new();
    for messages in [&first, &second] {
        for bytes in messages.inputs.values().chain(messages.results.values()) {
            assert!(chunks.insert(bytes.clone()), "a chunk appears twice");
        }
    }
    // Keys are made once and sent again; nothing else is.
    assert_eq!(first.keys, second.keys);
    let of_uses = keys_of_uses(&reference);
    for ((key, limb, digit, offset), bytes) in &first.keys {
        let made = of_uses[usize::from(*key)];
        if made == *key {
            assert!(chunks.insert(bytes.clone()), "a chunk appears twice");
        } else {
            assert_eq!(bytes, &first.keys[&(made, *limb, *digit, *offset)]);
        }
    }
    let seeds = |messages: &Messages, keys: bool| -> Vec<[u8; 32]> {
        let of_kind = messages.seeds.iter().filter(|(_, key)| *key == keys);
        of_kind.map(|(seed, _)| *seed).collect()
    };
    let of_keys = seeds(&first, true);
    assert_eq!(of_keys, seeds(&second, true));
    assert_eq!(of_keys.len(), of_uses.len());
    let made = (0..).zip(&of_uses).filter(|(key, made)| key == *made);
    let made = made.map(|(key, _): (u16, _)| of_keys[usize::from(key)]);
    let mut all = HashSet::new();
    let used = [seeds(&first, false), seeds(&second, false), made.collect()];
    for seed in used.iter().flatten() {
        assert!(all.insert(*seed), "a seed appears twice");
    }
    assert_eq!(all.len(), 2 * seeds(&first, false).len() + keys(&reference));
}

#[test]
fn clients_of_their_own_have_seeds_of_their_own() {
    let reference = Reference::new();
    let mut seeds = HashSet::new();
    for _ in 0..2 {
        let mut of_client = HashSet::new();
        let mut client = Client::new(reference.plan.clone()).unwrap();
        let mut link = reference.link();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let recorder = seen.clone();
        link.record(move |way, bytes| {
            if way == Direction::Up {
                recorder.lock().unwrap().extend_from_slice(bytes);
            }
        });
        client
            .infer(&mut link, &reference.digits[0], &mut ())
            .unwrap();
        requests(&seen.lock().unwrap(), |request| {
            if let Request::Seed { seed } = request {
                // A key's comes as often as it is used.
                of_client.insert(seed);
            }
        });
        for seed in of_client {
            assert!(seeds.insert(seed), "a seed appears twice");
        }
    }
    assert_eq!(
        seeds.len(),
        // The last input is the mask.
        2 * (reference.plan.ciphertexts() + 1 + keys(&reference))
    );
}

/// Chi-square of residues over 64 intervals of equal length.
fn chi_square(residues: &[u32], q: u32) -> f64 {
    const BINS: usize = 64;
    let mut counts = [0u32; BINS];
    for &x in residues {
        counts[(u64::from(x) * BINS as u64 / u64::from(q)) as usize] += 1;
    }
    let expected = residues.len() as f64 / BINS as f64;
    let squares = counts.iter().map(|&c| (f64::from(c) - expected).powi(2));
    squares.sum::<f64>() / expected
}

#[test]
fn what_is_sent_looks_uniform() {
    // 63 degrees of freedom: mean 63, standard deviation 11.2. The seed of the
    // client is fixed, so this passes always or never.
    const LIMIT: f64 = 63.0 + 5.0 * 11.2;
    let reference = Reference::new();
    let params = reference.plan.params();
    let image = reference.digits[8];
    let recording = &record(&reference, &[image])[0];
    let messages = messages(&reference, recording);
    let residues = |limb: usize, bytes: &[u8]| {
        let mut words = [0; CHUNK_COEFFS];
        unpack(bytes, params.prime(limb).unwrap().modulus(), &mut words).unwrap();
        words
    };
    for limb in 0..=params.special() {
        let q = params.prime(limb).unwrap().modulus().value();
        let of_limb = |l: u8| usize::from(l) == limb;
        let inputs = messages.inputs.iter().filter(|((_, l, _), _)| of_limb(*l));
        let keys = messages.keys.iter().filter(|((_, l, _, _), _)| of_limb(*l));
        let inputs: Vec<u32> = inputs.flat_map(|(_, b)| residues(limb, b)).collect();
        let keys: Vec<u32> = keys.flat_map(|(_, b)| residues(limb, b)).collect();
        for (what, sent) in [("inputs", inputs), ("keys", keys)] {
            if sent.is_empty() {
                assert_eq!((what, limb), ("inputs", params.special()));
                continue;
            }
            let chi = chi_square(&sent, q);
            assert!(chi < LIMIT, "{what}, limb {limb}: {chi}");
        }
        // The same figure of what is not encrypted.
        let plain = encoded(&reference.plan, &image);
        let mut forms = residue_forms(params, limb, &plain[most_ink(&reference.plan, &image)]);
        let coefficients = forms.remove(1).1;
        assert!(chi_square(&coefficients, q) > 10.0 * LIMIT);
    }
    let bytes: Vec<u32> = messages
        .inputs
        .iter()
        .filter(|((_, limb, _), _)| *limb == 0)
        .flat_map(|(_, bytes)| bytes.iter().map(|&b| b.into()))
        .collect();
    let chi = chi_square(&bytes, 256);
    assert!(chi < LIMIT, "bytes: {chi}");
}
