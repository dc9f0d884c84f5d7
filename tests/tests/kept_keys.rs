//! Keys that evaluators keep: streamed once, found again, and never a wrong answer,
//! whatever becomes of the memory that they are in.
//!
//! With HE_EDGE_LONG a thousand inferences whose evaluator loses its power.

use std::sync::{Arc, Mutex};
use std::thread;

use he_core::params::N8192_DEPTH5;
use he_core::rlwe::KeyLimb;
use he_edge_tests::flash::UnreliableFlash;
use he_edge_tests::mangler::{Damage, Mangler, frame, replies, requests};
use he_edge_tests::networks::{self, Part};
use he_edge_tests::suite::Case;
use he_edge_tests::{Reference, forgetful};
use he_nn::kept::{
    BLOCK_BYTES, ChunkPieces, KEY_ID_BYTES, KeyHash, KeyId, KeyShape, KeyStore, Log, MemoryFlash,
    MountError, PAGE_HEADER_BYTES, PageEntry, Piece, RecordEntry, RecordSize,
};
use he_nn::message::{Held, Refusal, Reply, Request, SEED_BYTES};
use he_nn::plan::{Plan, Target, WeightMode};
use he_nn::program::Program;
use he_nn::session::Encrypted;
use host_runner::client::{Client, ClientError, Inference, Keys};
use host_runner::device::{Connection, Duplex, duplex};
use host_runner::evaluator;

/// Pieces of the small records below.
const PIECES: usize = 6;

const SIZE: RecordSize = RecordSize {
    pieces: PIECES,
    bytes: SEED_BYTES + (PIECES - 1) * 160,
};

const PAGES: usize = 20;
const RECORDS: usize = 8;

/// A record of the tests: its pieces are told by its number.
fn piece(record: u8, index: usize) -> Vec<u8> {
    let bytes = if index == 0 { SEED_BYTES } else { 160 };
    let of = |i: usize| (i * 7 + index * 31) as u8 ^ record.wrapping_mul(37);
    (0..bytes).map(of).collect()
}

fn place(index: usize) -> Piece {
    Piece {
        index,
        start: match index {
            0 => 0,
            after => SEED_BYTES + (after - 1) * 160,
        },
        bytes: piece(0, index).len(),
    }
}

fn id(record: u8) -> KeyId {
    let seed = piece(record, 0).try_into().unwrap();
    let mut hash = KeyHash::new(&seed);
    (1..PIECES).for_each(|index| hash.update(&piece(record, index)));
    hash.id()
}

/// Whether the record was kept.
fn keep(store: &mut impl KeyStore, record: u8) -> bool {
    store.start(SIZE)
        && (0..PIECES).all(|index| store.append(&piece(record, index)))
        && store.commit(&id(record))
}

/// Whether the record is there and whole; what is given out is right.
fn is_whole(store: &mut impl KeyStore, record: u8) -> bool {
    let Some(found) = store.find(&id(record), SIZE) else {
        return false;
    };
    let whole = (0..PIECES).all(|index| {
        let mut read = vec![0; place(index).bytes];
        let is_right = store.read(found, place(index), &mut read);
        assert!(
            !is_right || read == piece(record, index),
            "{record} {index}"
        );
        is_right
    });
    if !whole {
        store.discard(found);
    }
    whole
}

fn held(store: &mut impl KeyStore) -> Vec<KeyId> {
    let mut ids = [[0; KEY_ID_BYTES]; RECORDS];
    let count = store.held(&mut ids, &[SIZE.stored()]);
    ids[..count].iter().copied().map(KeyId).collect()
}

/// What a mount needs beside the flash.
struct Tables {
    pages: [PageEntry; PAGES],
    records: [RecordEntry; RECORDS],
}

impl Tables {
    const fn new() -> Self {
        Self {
            pages: [PageEntry::EMPTY; PAGES],
            records: [RecordEntry::EMPTY; RECORDS],
        }
    }

    fn mount<'t>(&'t mut self, flash: &'t mut UnreliableFlash) -> Log<'t, &'t mut UnreliableFlash> {
        Log::mount(flash, &mut self.pages, &mut self.records).unwrap()
    }
}

/// Two clients take turns, so that each makes room at the cost of the other. Whatever
/// operation breaks off, what had been kept before it in the same inference is there
/// afterwards, nothing wrong is given out, and the keys are kept again.
#[test]
fn a_thousand_losses_of_power_give_no_wrong_key() {
    let mut flash = UnreliableFlash::new(PAGES, 1);
    let (mut cuts, mut at) = (0, 0);
    let mut client = 0;
    while cuts < 1000 {
        // 3 pages per record: six of them fit, and not eight.
        let mine: Vec<u8> = (0..4).map(|k| client * 4 + k).collect();
        flash.cut_after(at);
        let mut tables = Tables::new();
        let mut store = tables.mount(&mut flash);
        store.begin();
        let used: Vec<u8> = mine
            .iter()
            .copied()
            .filter(|&record| is_whole(&mut store, record))
            .collect();
        let missing = mine.iter().filter(|record| !used.contains(record));
        let kept: Vec<u8> = missing
            .copied()
            .take_while(|&record| keep(&mut store, record))
            .collect();
        let is_cut = flash.restart();
        cuts += u32::from(is_cut);
        let mut tables = Tables::new();
        let mut store = tables.mount(&mut flash);
        store.begin();
        // Of the other client's keys some may be gone, and none is wrong.
        for record in 0..8 {
            let is_there = is_whole(&mut store, record);
            let was_kept = used.contains(&record) || kept.contains(&record);
            assert!(is_there || !was_kept, "cut {cuts}: {record} is lost");
        }
        store.begin();
        for &record in &mine {
            assert!(is_whole(&mut store, record) || keep(&mut store, record));
        }
        assert!(mine.iter().all(|&record| is_whole(&mut store, record)));
        // The next operation, until all were cut; then the other client.
        at = if is_cut { at + 1 } else { 0 };
        client = if is_cut { client } else { 1 - client };
        if is_cut {
            // Back to where the other client's keys are there.
            store.begin();
            (0..8)
                .filter(|record| !mine.contains(record))
                .for_each(|record| {
                    assert!(is_whole(&mut store, record) || keep(&mut store, record))
                });
        }
    }
    assert!(flash.operations() > 10_000);
}

#[test]
fn the_record_used_longest_ago_makes_room_and_none_of_this_inference() {
    let mut memory = vec![0; PAGES * 1024];
    let mut tables = Tables::new();
    let flash = MemoryFlash::new(&mut memory);
    let mut store = Log::mount(flash, &mut tables.pages, &mut tables.records).unwrap();
    store.begin();
    for record in 0..RECORDS as u8 {
        assert!(keep(&mut store, record));
    }
    // There are eight entries, all of this inference.
    assert!(store.has_room([SIZE; RECORDS].into_iter()));
    assert!(!store.has_room([SIZE; RECORDS + 1].into_iter()));
    let mut ids = [[0; KEY_ID_BYTES]; RECORDS];
    assert_eq!(store.held(&mut ids, &[SIZE.stored() + 32]), 0);
    assert!(!keep(&mut store, 100));
    assert_eq!(held(&mut store).len(), RECORDS);
    store.begin();
    assert!(is_whole(&mut store, 0) && is_whole(&mut store, 2));
    assert!(keep(&mut store, 100) && keep(&mut store, 101));
    let ids: Vec<KeyId> = held(&mut store);
    let gone = [1, 3].map(id);
    assert!(gone.iter().all(|id| !ids.contains(id)), "{ids:?}");
    // Those used last come first, of which the newest.
    let first = [101, 100, 2, 0].map(id);
    assert_eq!(ids[..4], first);
    // Half a record is none, nor is one with a piece too many or another size.
    store.begin();
    assert!(store.start(SIZE) && store.append(&piece(50, 0)));
    assert!(!store.commit(&id(50)) && !store.append(&piece(50, 1)));
    let larger = RecordSize {
        bytes: SIZE.bytes + 32,
        ..SIZE
    };
    assert!(store.find(&id(0), larger).is_none());
    assert!(store.start(SIZE));
    assert!((0..PIECES).all(|index| store.append(&piece(50, index))));
    assert!(!store.append(&piece(50, 1)));
    // An inference that begins forgets what was not ended.
    assert!(store.start(SIZE) && store.append(&piece(51, 0)));
    store.begin();
    assert!(!store.append(&piece(51, 1)) && !store.commit(&id(51)));
    // Larger than all of it.
    let huge = RecordSize {
        pieces: 1,
        bytes: PAGES * 1024,
    };
    assert!(!store.start(huge));
    assert!(is_whole(&mut store, 100));
}

#[test]
fn worn_and_aged_pages_are_noticed_and_keys_kept_elsewhere() {
    let mut flash = UnreliableFlash::new(PAGES, 2);
    // Writes that do not hold.
    flash.wear(3 * 512..5 * 512);
    let mut tables = Tables::new();
    let mut store = tables.mount(&mut flash);
    let all = RecordSize {
        pieces: 1,
        bytes: (PAGES - 1) * (512 - PAGE_HEADER_BYTES),
    };
    assert!(store.has_room([all].into_iter()));
    let mut tries = 0;
    for record in 0..4 {
        while !keep(&mut store, record) {
            tries += 1;
            store.begin();
        }
        assert!(is_whole(&mut store, record));
    }
    assert!((1..=2).contains(&tries), "{tries}");
    assert!(!store.has_room([all].into_iter()));
    // A bit that changes later.
    let mut flash = UnreliableFlash::new(PAGES, 3);
    let mut tables = Tables::new();
    let mut store = tables.mount(&mut flash);
    assert!(keep(&mut store, 0) && keep(&mut store, 1));
    let mut losses = 0;
    for byte in (0..PAGES * 512).step_by(97) {
        flash.flip(byte);
        let mut tables = Tables::new();
        let mut store = tables.mount(&mut flash);
        for record in 0..2 {
            if !is_whole(&mut store, record) {
                losses += 1;
                assert!(keep(&mut store, record) && is_whole(&mut store, record));
            }
        }
    }
    assert!(losses > 10, "{losses}");
}

#[test]
fn a_flash_that_does_not_serve_is_refused_with_its_figures() {
    let mut flash = UnreliableFlash::new(0, 1);
    let mut tables = Tables::new();
    let error = Log::mount(&mut flash, &mut tables.pages, &mut tables.records).unwrap_err();
    let small = MountError::Small {
        capacity: 0,
        pages: PAGES,
        records: RECORDS,
    };
    assert_eq!(error, small);
    he_edge_tests::assert_one_sentence("a flash without a page", &error);
}

/// What a client sends at a second sample, and the answer of either.
fn two(case: &Case, plan: &Plan<'_>, link: Duplex) -> [Inference; 2] {
    let keys = Keys::from_seed(plan.params(), &[3; 32]).unwrap();
    let mut client = Client::with_keys(plan.clone(), keys).unwrap();
    let mut link = Connection::new(link);
    let samples = case.samples(2);
    [0, 1].map(|k| {
        client
            .infer(&mut link, samples[k].sample(), &mut ())
            .unwrap()
    })
}

/// The keys go up once, and the answers are those of an evaluator that keeps none.
#[test]
fn the_second_sample_sends_no_key_and_its_answer_is_the_same() {
    for (name, weights) in [
        ("mnist-mlp64", WeightMode::Plain),
        ("mnist-mlp64", WeightMode::Encrypted),
        ("pima-logreg", WeightMode::Plain),
        // Uses keys at several levels.
        ("mnist-cnn", WeightMode::Plain),
    ] {
        let case = Case::bundled(name);
        let plan = case.plan(weights, Target::STREAM).unwrap();
        let [first, second] = two(&case, &plan, evaluator::in_process(&plan).unwrap());
        let payload = plan.payload();
        let program = Program::of(&plan).unwrap();
        // However often it is used.
        let once: usize = program.kept_keys(false).map(|size| size.bytes).sum();
        let once = once as u64;
        assert!(
            (once..once + once / 20).contains(&first.bytes.keys_up),
            "{name}"
        );
        let uses = program.key_uses().count() as u64;
        // A frame of an id, with tag, checksum and the ends of COBS.
        let of_use = (KEY_ID_BYTES as u64 + 1)..(KEY_ID_BYTES as u64 + 16);
        assert!(of_use.contains(&(second.bytes.keys_up / uses)), "{name}");
        let rest = first.bytes.up - first.bytes.keys_up;
        assert!((second.bytes.up - second.bytes.keys_up).abs_diff(rest) < rest / 100);
        // One that keeps nothing.
        let [same, streamed] = two(&case, &plan, forgetful(&plan));
        assert_eq!(
            (same.logits, streamed.logits),
            (first.logits, second.logits)
        );
        assert!(streamed.bytes.keys_up > payload.keys as u64, "{name}");
        assert_eq!(streamed.bytes.keys_up, same.bytes.keys_up, "{name}");
    }
}

/// Where there is room for the uniform halves too, they are read instead of expanded; the
/// answers are the same, and damage to them is noticed as any other.
#[test]
fn uniform_halves_that_are_kept_give_the_same_answers() {
    for (name, weights, expanded) in [
        ("mnist-mlp64", WeightMode::Plain, true),
        ("mnist-mlp64", WeightMode::Encrypted, true),
        // Uses keys at several levels.
        ("mnist-cnn", WeightMode::Plain, true),
        // The key of a polynomial is kept without.
        ("drawn-cubic", WeightMode::Plain, false),
    ] {
        let case = match name {
            "drawn-cubic" => Case::drawn(
                name,
                Some(&N8192_DEPTH5),
                networks::image(10),
                &[
                    Part::Dense(24),
                    Part::Polynomial(&networks::CUBIC),
                    Part::Dense(5),
                ],
            ),
            _ => Case::bundled(name),
        };
        let plan = case.plan(weights, Target::STREAM).unwrap();
        let program = Program::of(&plan).unwrap();
        let bytes = |expanded| -> usize {
            let sizes = program.kept_keys(expanded);
            sizes
                .map(|size| size.stored().next_multiple_of(1 << 14))
                .sum()
        };
        assert!(bytes(true) > bytes(false) * 2);
        let mut memory = vec![0; bytes(true) * 21 / 20];
        let mut pages = vec![PageEntry::EMPTY; memory.len() >> 14];
        let mut records = vec![RecordEntry::EMPTY; program.kept_keys(true).count()];
        let keys = Keys::from_seed(plan.params(), &[3; 32]).unwrap();
        let mut client = Client::with_keys(plan.clone(), keys).unwrap();
        let [same, other] = two(&case, &plan, forgetful(&plan));
        for damaged in [false, true] {
            let (mine, mut end) = duplex();
            let flash = MemoryFlash::new(&mut memory);
            let store = Log::mount(flash, &mut pages, &mut records).unwrap();
            assert_eq!(program.keeps_uniforms(&store), expanded, "{name}");
            let (program, model) = (&program, case.model());
            thread::scope(|scope| {
                scope.spawn(move || match weights {
                    WeightMode::Plain => {
                        evaluator::evaluate_keeping(program, model, &mut end, store)
                    }
                    WeightMode::Encrypted => {
                        evaluator::evaluate_keeping(program, Encrypted, &mut end, store)
                    }
                });
                let mut link = Connection::new(mine);
                let samples = case.samples(2);
                let mut infer = |k: usize| client.infer(&mut link, samples[k].sample(), &mut ());
                if damaged {
                    let ClientError::Refused { reason, .. } = infer(0).unwrap_err() else {
                        panic!("{name}: another error");
                    };
                    assert!(matches!(reason.0, Refusal::NotKept { .. }), "{name}");
                }
                let (first, second) = (infer(0).unwrap(), infer(1).unwrap());
                // Within the plan's error: masks and encryptions are drawn anew.
                for (kept, streamed) in [(&first, &same), (&second, &other)] {
                    for (a, b) in kept.logits.iter().zip(&streamed.logits) {
                        assert!(
                            (a - b).abs() <= 2.0 * plan.logit_error().six_sigma,
                            "{name}"
                        );
                    }
                }
                assert!(second.bytes.keys_up < 2000, "{name}");
            });
            if !damaged {
                damage_first_chunk(&mut memory, program, expanded);
            }
        }
    }
}

/// Changes a bit in the first chunk of the record that begins in the first page: in its
/// uniform half where that is kept, and there alone.
fn damage_first_chunk(memory: &mut [u8], program: &Program<Vec<u8>>, expanded: bool) {
    let params = program.params();
    let shape = KeyShape::new(params, params.max_level(), expanded);
    let ChunkPieces { sent, uniform } = shape.chunk(shape.first_chunk(KeyLimb::FIRST).unwrap(), 0);
    let piece = uniform.unwrap_or(sent);
    memory[PAGE_HEADER_BYTES + piece.start + piece.index * BLOCK_BYTES + 17] ^= 0x10;

    let mut pages = vec![PageEntry::EMPTY; memory.len() >> 14];
    let mut records = vec![RecordEntry::EMPTY; program.kept_keys(true).count()];
    let mut store = Log::mount(MemoryFlash::new(memory), &mut pages, &mut records).unwrap();
    let sizes: Vec<RecordSize> = program.kept_keys(expanded).collect();
    let stored: Vec<usize> = sizes.iter().map(|size| size.stored()).collect();
    let mut ids = vec![[0; KEY_ID_BYTES]; sizes.len()];
    let count = store.held(&mut ids, &stored);
    assert_eq!(count, sizes.len());
    let mut damaged = 0;
    for id in ids.into_iter().map(KeyId) {
        let found = sizes.iter().find_map(|&size| store.find(&id, size));
        let found = found.unwrap();
        let mut is_read = |piece: Piece| store.read(found, piece, &mut vec![0; piece.bytes]);
        assert!(uniform.is_none() || is_read(sent));
        damaged += usize::from(!is_read(piece));
    }
    assert_eq!(damaged, 1);
}

/// Asks the evaluator for a key that it never had, or says that it has lost one.
fn lies(damage: Damage) -> (Vec<ClientError>, Vec<Inference>) {
    let reference = Reference::new();
    let (mangler, control) = Mangler::new(evaluator::in_process(&reference.plan).unwrap());
    control.set(damage);
    let mut link = Connection::new(mangler);
    let mut client = reference.client(3);
    let (mut errors, mut answers) = (Vec::new(), Vec::new());
    for image in &reference.digits[..3] {
        // As often as the command tries.
        for _ in 0..2 {
            match client.infer(&mut link, image, &mut ()) {
                Ok(inference) => {
                    reference.check(image, &inference);
                    answers.push(inference);
                    break;
                }
                Err(error) => errors.push(error),
            }
        }
    }
    (errors, answers)
}

/// One that names a key which it does not have costs time; after it has said so, the
/// client streams all keys until it has an answer.
#[test]
fn an_evaluator_that_names_keys_it_does_not_have_gets_them_streamed() {
    // It takes one id of the client for another.
    let named = Arc::new(Mutex::new(0));
    let count = named.clone();
    let changes = Damage {
        up: Some(Box::new(move |bytes| {
            let mut changed = None;
            requests(bytes, |request| {
                if let Request::Kept { .. } = request {
                    let key = KeyId([9; KEY_ID_BYTES]);
                    changed = Some(frame(&Request::Kept { key }));
                }
            });
            if let Some(changed) = changed {
                *count.lock().unwrap() += 1;
                *bytes = changed;
            }
        })),
        ..Damage::default()
    };
    let (errors, answers) = lies(changes);
    assert_eq!(answers.len(), 3);
    assert_eq!(errors.len(), 2);
    assert!(*named.lock().unwrap() >= 2);
    for error in &errors {
        let ClientError::Refused { reason, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(reason.0, Refusal::NotKept { key: 0 });
        assert!(error.is_of_link() && !error.spends_key());
        he_edge_tests::assert_one_sentence("a lost key", error);
    }
    let first = answers[0].bytes.keys_up;
    assert!(answers.iter().all(|a| a.bytes.keys_up == first));
}

/// Ids that are nobody's, and more than there may be, change nothing.
#[test]
fn names_of_foreign_keys_are_passed_over() {
    let foreign = Damage {
        down: Some(Box::new(|bytes| {
            let mut changed = None;
            replies(bytes, |reply| {
                if let Reply::Ready { .. } = reply {
                    let ids = [[8; KEY_ID_BYTES]; he_nn::kept::MAX_HELD];
                    let held = Held::new(&ids);
                    changed = Some(frame(&Reply::Ready { held }));
                }
            });
            if let Some(changed) = changed {
                *bytes = changed;
            }
        })),
        ..Damage::default()
    };
    let (errors, answers) = lies(foreign);
    assert!(errors.is_empty(), "{errors:?}");
    let first = answers[0].bytes.keys_up;
    assert!(answers.iter().all(|a| a.bytes.keys_up == first));
}

/// A key that many rotations take goes up once where it is kept, and with every use where it
/// is not.
#[test]
fn a_key_that_is_kept_goes_up_once_in_an_inference() {
    let reference = Reference::of_inputs(1);
    let infer = |end: Duplex| {
        let (mut link, mut client) = (Connection::new(end), reference.client(5));
        let mut infer = |index: usize| {
            let image = &reference.digits[index];
            let inference = client.infer(&mut link, image, &mut ()).unwrap();
            reference.check(image, &inference);
            inference.bytes.keys_up
        };
        [infer(0), infer(1)]
    };
    let [first, later] = infer(evaluator::in_process(&reference.plan).unwrap());
    let [streamed, again] = infer(forgetful(&reference.plan));
    // Of 22 uses 15 are of one key, of 219 KB.
    assert!((1_600_000..1_750_000).contains(&first), "{first}");
    assert!(later < 1500, "{later}");
    assert!(streamed - first > 14 * 215_000, "{streamed}");
    assert_eq!(streamed, again);
}

/// New keys go up once more, to the place of the old.
#[test]
fn renewed_keys_are_streamed_and_kept() {
    let reference = Reference::new();
    let mut link = reference.link();
    let mut client = reference.client(3);
    let mut up = Vec::new();
    for round in 0..2 {
        for image in &reference.digits[..2] {
            let inference = client.infer(&mut link, image, &mut ()).unwrap();
            reference.check(image, &inference);
            up.push(inference.bytes.keys_up);
        }
        if round == 0 {
            client.renew().unwrap();
        }
    }
    assert!(up[0] > 1_400_000 && up[2] > 1_400_000, "{up:?}");
    assert!(up[1] < 1000 && up[3] < 1000, "{up:?}");
}

#[test]
fn an_evaluator_that_lost_its_power_answers_the_next_inference_rightly() {
    let is_long = std::env::var_os("HE_EDGE_LONG").is_some();
    survives_cuts(false, if is_long { 1000 } else { 24 });
}

#[test]
fn an_evaluator_that_keeps_uniform_halves_survives_a_loss_of_power_too() {
    let is_long = std::env::var_os("HE_EDGE_LONG").is_some();
    survives_cuts(true, if is_long { 1000 } else { 16 });
}

/// An evaluator over a flash that loses its power amid an inference, is started again and
/// answers the next one with what it has; it keeps uniform halves too, or does not.
fn survives_cuts(expanded: bool, cuts: usize) {
    let case = Case::bundled("pima-logreg");
    let plan = case.plan(WeightMode::Plain, Target::STREAM).unwrap();
    let program = Program::of(&plan).unwrap();
    let sizes: Vec<RecordSize> = program.kept_keys(expanded).collect();
    // Room for one client's keys and a little of another's.
    let stored: usize = sizes.iter().map(|size| size.stored()).sum();
    let sectors = stored * 11 / 10 / 448 + sizes.len();
    let mut flash = UnreliableFlash::new(sectors, 5);
    let clients = [3, 4].map(|seed| {
        let keys = Keys::from_seed(plan.params(), &[seed; 32]).unwrap();
        Client::with_keys(plan.clone(), keys).unwrap()
    });
    let mut clients = clients.map(Some);
    let sample = case.samples(1)[0].sample();
    let clear = he_nn::clear::logits(&case.model(), sample).unwrap();
    let allowed = plan.logit_error().six_sigma;
    let mut run = |which: usize, flash: &mut UnreliableFlash| -> Inference {
        let client = clients[which].as_mut().unwrap();
        let (mine, mut end) = duplex();
        let mut pages = vec![PageEntry::EMPTY; sectors];
        let mut records = [RecordEntry::EMPTY; 8];
        thread::scope(|scope| {
            let model = case.model();
            let program = &program;
            scope.spawn(move || {
                let store = Log::mount(flash, &mut pages, &mut records).unwrap();
                assert_eq!(program.keeps_uniforms(&store), expanded);
                evaluator::evaluate_keeping(program, model, &mut end, store)
            });
            let mut link = Connection::new(mine);
            let inference = client.infer(&mut link, sample, &mut ()).unwrap();
            for (encrypted, clear) in inference.logits.iter().zip(&clear) {
                assert!((encrypted - clear).abs() <= allowed);
            }
            inference
        })
    };
    // What an inference of either client writes, and what is cut of it.
    run(0, &mut flash);
    let before = flash.operations();
    let streamed = run(1, &mut flash).bytes.keys_up;
    let operations = flash.operations() - before;
    assert!(operations > 100, "{operations}");
    let mut lost = 0;
    for cut in 0..cuts {
        let which = cut % 2;
        flash.cut_after(cut as u64 * 7919 % operations);
        run(which, &mut flash);
        lost += u32::from(flash.restart());
        let again = run(which, &mut flash);
        // COBS adds more or less to other bytes.
        assert!(again.bytes.keys_up <= streamed + streamed / 100);
        let kept = run(which, &mut flash);
        assert!(kept.bytes.keys_up < 1000, "{}", kept.bytes.keys_up);
    }
    assert!(lost as usize * 2 > cuts, "{lost}");
}
