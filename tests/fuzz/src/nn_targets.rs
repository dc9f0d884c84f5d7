//! Decoders of he-nn.

use crate::script::{ENCRYPTED, PLAIN, POLYNOMIAL, Recording, frame, play};
use crc::{CRC_32_ISO_HDLC, Crc};
use he_core::params::N4096_DEPTH3;
use he_core::wire::packed_len;
use he_nn::kept::{KeyStore, Log, MemoryFlash, Nothing, PageEntry, RecordEntry};
use he_nn::link::{FrameReader, LinkError, MAX_DECODED, MAX_FRAME, encode};
use he_nn::message::{
    CHUNK_COEFFS, Item, Memory, PROTOCOL_VERSION, Reply, Request, SEED_BYTES, TimeUnit,
};
use he_nn::model::{
    CRC_BYTES, FILE_VERSION, Floats, HEADER_BYTES, Input, Integers, Kernel, Layer, Linear, MAGIC,
    MAX_DEGREE, Model, ModelParts, Padding, Sample, Shape,
};
use he_nn::plan::{Plan, Target, WeightMode};
use he_nn::program::Program;
use he_nn::schedule::{Cursor, Upload};
use he_nn::sensor::{self, Sensor};
use he_nn::session::{self, ChunkBuffer, EMPTY_CHUNK, Encrypted, Session, WeightSource};
use he_nn::trace::{Off, Ring, Tracer};
use host_runner::planning::STREAM_SETS;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// Bytes of a line. In one piece and in many they hold the same frames.
pub(crate) fn link(bytes: &[u8]) {
    let events = |piece: usize| {
        let mut reader = Box::new(FrameReader::<MAX_DECODED>::new());
        let mut events = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            let mut piece = piece;
            while let Some(event) = reader.read(&mut piece) {
                events.push(event.map(|frame| {
                    decode(frame.message());
                    (frame.message().to_vec(), frame.received())
                }));
            }
        }
        events
    };
    assert_eq!(events(bytes.len()), events(3));
}

/// A message in a frame whose checksum is right.
pub(crate) fn message(bytes: &[u8]) {
    let Ok(frame) = frame(bytes) else {
        return;
    };
    let mut reader = Box::new(FrameReader::<MAX_DECODED>::new());
    match reader.read(&mut &frame[..]) {
        // A frame of nothing but its checksum is one.
        Some(Ok(frame)) => assert_eq!(frame.message(), bytes),
        // COBS adds less to some bytes than a frame has room for: more of them fit
        // the frame than any message has.
        Some(Err(LinkError::TooLong { capacity, .. })) => {
            // With the checksum, of 32 bits.
            assert!(bytes.len() + size_of::<u32>() > capacity);
            return;
        }
        other => panic!("{other:?}"),
    }
    decode(bytes);
}

fn decode(bytes: &[u8]) {
    decode_as::<Request<'_>>(bytes);
    decode_as::<Reply<'_>>(bytes);
    decode_as::<sensor::Request<'_>>(bytes);
    decode_as::<sensor::Reply<'_>>(bytes);
}

/// What is decoded is encoded into a frame, and comes back.
fn decode_as<'a, T: Debug + Deserialize<'a> + PartialEq + Serialize>(bytes: &'a [u8]) {
    let Ok((message, [])) = postcard::take_from_bytes::<T>(bytes) else {
        return;
    };
    let mut buffer = vec![0; MAX_FRAME];
    let Ok(framed) = encode(&message, &mut buffer) else {
        panic!("{message:?} was in a frame and fits none");
    };
    let mut reader = Box::new(FrameReader::<MAX_DECODED>::new());
    let Some(Ok(again)) = reader.read(&mut &framed[..]) else {
        panic!("{message:?} came in no frame");
    };
    // It borrows from the reader, so bytes are compared: encoding is a function.
    assert!(again.message().len() <= bytes.len());
    let Ok(bytes) = postcard::to_stdvec(&message) else {
        panic!("{message:?} has no encoding");
    };
    assert_eq!(again.message(), bytes);
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let two = |messages: &[Vec<u8>]| {
        let frames = messages.iter().filter_map(|message| frame(message).ok());
        frames.flatten().collect::<Vec<u8>>()
    };
    let recording = &*PLAIN;
    vec![
        two(&recording.up[..3]),
        two(&recording.down[..4]),
        two(&recording.up[3..5]),
        two(&recording.down[recording.down.len() - 3..]),
    ]
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let recording = &*PLAIN;
    let short = |messages: &'static [Vec<u8>]| messages.iter().filter(|m| m.len() < 400);
    let mut seeds: Vec<Vec<u8>> = short(&recording.up).take(20).cloned().collect();
    seeds.extend(short(&recording.down).take(20).cloned());
    seeds.extend(short(&recording.down).rev().take(40).cloned());
    seeds.extend(sensor_messages());
    seeds
}

/// A model file; and the body of one, with the right frame around it.
pub(crate) fn model(bytes: &[u8]) {
    for file in [bytes, &framed(bytes)] {
        if let Ok(model) = Model::parse(file) {
            assert_eq!(written(&model), file);
            plan(&model);
        }
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend(FILE_VERSION.to_le_bytes());
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(body);
    checked(&file)
}

/// Bytes with their checksum after them.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(bytes);
    [bytes, &crc.to_le_bytes()].concat()
}

/// A model's parts, put together again.
fn written(model: &Model<'_>) -> Vec<u8> {
    let layers: Vec<Layer<'_>> = model.layers().map(|view| view.layer).collect();
    let parts = ModelParts {
        name: model.name().as_bytes(),
        input: model.input(),
        layers: &layers,
    };
    let mut file = vec![0; parts.file_len().unwrap_or_default()];
    assert!(parts.write(&mut file).is_ok());
    file
}

fn plan(model: &Model<'_>) {
    let pixels = vec![255; model.inputs()];
    let features = vec![1.0f32; model.inputs()];
    let sample = match model.input() {
        Input::Image(_) => Sample::Pixels(&pixels),
        Input::Features { .. } => Sample::Features(&features),
    };
    let mut workspace = vec![0.0; model.workspace_len()];
    let mut logits = vec![0.0; model.outputs()];
    assert!(
        model
            .plain_logits(sample, &mut workspace, &mut logits)
            .is_ok()
    );
    let mut row = vec![0.0; Plan::buffer_len(model)];
    let mut scratch = row.clone();
    let (params, target) = (&N4096_DEPTH3, Target::STREAM);
    for weights in [WeightMode::Plain, WeightMode::Encrypted] {
        let planned = Plan::new(params, *model, weights, target, &mut row, &mut scratch);
        let Ok(plan) = planned else {
            continue;
        };
        assert!(plan.logit_error().six_sigma.is_finite());
        // Whoever gets this model makes an evaluator for it.
        let Ok(program) = Program::of(&plan) else {
            panic!("a plan of {} has no program", model.name());
        };
        assert_eq!(program.arena_words(), plan.arena_words());
        let mut arena = vec![0; program.arena_words()];
        let mut chunk = EMPTY_CHUNK;
        let made = match weights {
            WeightMode::Plain => {
                new_session(&program, *model, &mut arena, &mut chunk, Off).is_some()
            }
            WeightMode::Encrypted => {
                new_session(&program, Encrypted, &mut arena, &mut chunk, Off).is_some()
            }
        };
        assert!(made, "the arena is as long as the program says");
    }
}

/// A session that has the code of any program.
fn new_session<'a, B: AsRef<[u8]>, W: WeightSource, T: Tracer>(
    program: &'a Program<B>,
    weights: W,
    arena: &'a mut [u32],
    chunk: &'a mut ChunkBuffer,
    tracer: T,
) -> Option<Session<'a, B, W, T>> {
    Session::new(program, weights, arena, chunk, tracer).ok()
}

/// The largest arena that an evaluator of the target [`program`] is given, in words.
const MAX_ARENA: usize = 4 << 20;

/// The most messages that it takes.
const MAX_MESSAGES: usize = 1000;

/// The most tasks of a program that it carries out.
const MAX_TASKS: usize = 256;

/// A program, with and without its checksum. One that is read has an evaluator, which
/// answers all that the program has it wait for.
pub(crate) fn program(bytes: &[u8]) {
    for bytes in [bytes, &checked(bytes)] {
        for params in STREAM_SETS {
            if let Some(program) = Program::parse(params, bytes) {
                carry_out(&program);
            }
        }
    }
}

fn carry_out(program: &Program<&[u8]>) {
    assert_eq!(program.tasks().count(), program.len());
    for step in 0..program.steps() as u8 {
        if let Some(polynomial) = program.polynomial(step) {
            // So many as were announced.
            assert!(program.coefficients(polynomial).count() <= MAX_DEGREE + 1);
        }
    }
    if program.arena_words() > MAX_ARENA || program.len() > MAX_TASKS {
        assert!(new_session(program, Encrypted, &mut [], &mut { EMPTY_CHUNK }, Off).is_none());
        return;
    }
    // With weights in plain, those of the model that is meant, or any others.
    if program.is_encrypted() {
        feed(program, Encrypted);
    } else if program.model_crc() == PLAIN.plan.model().crc() {
        feed(program, *PLAIN.plan.model());
    } else {
        feed(program, *POLYNOMIAL.plan.model());
    }
}

/// Sends what a program takes, all of it zero, until that is refused.
fn feed<W: WeightSource>(program: &Program<&[u8]>, weights: W) {
    let params = program.params();
    let mut arena = vec![0; program.arena_words()];
    let mut chunk = EMPTY_CHUNK;
    let Some(mut session) = new_session(program, weights, &mut arena, &mut chunk, Off) else {
        panic!("the arena is as long as the program says");
    };
    let mut machine = Machine(0);
    let mut ask = |request: Request<'_>| {
        let (mut replies, mut refused) = (0, false);
        session.handle(request, &mut machine, &mut |reply| {
            assert_fits_a_frame(&reply);
            refused |= matches!(reply, Reply::Refused(_));
            replies += 1;
        });
        assert!(replies > 0, "no answer to {request:?}");
        !refused
    };
    let plan = program.fingerprint();
    if !ask(Request::Begin { plan, trace: false }) {
        return;
    }
    let mut cursor = Cursor::start(program);
    for _ in 0..MAX_MESSAGES {
        let Some(upload) = cursor.upload(program) else {
            return;
        };
        cursor.advance(program);
        let accepted = match upload {
            Upload::InputSeed(_) | Upload::FactorSeed(_) | Upload::KeySeed(_) => {
                let seed = [7; SEED_BYTES];
                ask(Request::Seed { seed })
            }
            Upload::Chunk(item, offset) => {
                assert!(program.step_of(item).is_some(), "{item:?} is of no step");
                let (Item::Input { limb, .. } | Item::Key { limb, .. } | Item::Weight { limb, .. }) =
                    item;
                let Ok(prime) = params.prime(limb.into()) else {
                    panic!("{item:?} has no prime");
                };
                let bytes = vec![0; packed_len(CHUNK_COEFFS, prime.modulus().bits())];
                ask(Request::Data {
                    item,
                    offset: offset as u16,
                    bytes: &bytes,
                })
            }
        };
        if !accepted {
            return;
        }
    }
}

/// Those of the recordings, each without its checksum.
pub(crate) fn programs() -> Vec<Vec<u8>> {
    [&PLAIN, &ENCRYPTED, &POLYNOMIAL]
        .map(|recording| {
            let bytes = recording.program.bytes();
            bytes[..bytes.len() - CRC_BYTES].to_vec()
        })
        .to_vec()
}

/// Two dense layers with a square, and a convolution with a rectifier, each as
/// a file and as its body.
pub(crate) fn models() -> Vec<Vec<u8>> {
    let square: Vec<u8> = [0.0f32, 0.0, 1.0].map(f32::to_le_bytes).concat();
    let linear = |weights| Linear {
        scale: 0.01,
        multipliers: &[],
        weights: Integers::Bytes(weights),
        biases: Floats::new(&[0; 8]),
    };
    let dense = |weights| Layer::Dense {
        outputs: 2,
        linear: linear(weights),
        range: 4.0,
    };
    let polynomial = Layer::Polynomial {
        coefficients: Floats::new(&square),
        range: 16.0,
    };
    let kernel = Kernel {
        out_channels: 2,
        height: 1,
        width: 2,
        stride: 2,
        padding: Padding::NONE,
    };
    let convolution = Layer::Conv2d {
        kernel,
        linear: linear(&[1; 4]),
        range: 4.0,
    };
    let wide = Layer::Dense {
        outputs: 2,
        linear: Linear {
            multipliers: &[3, 255],
            weights: Integers::Halves(&[3; 16]),
            ..linear(&[])
        },
        range: 4.0,
    };
    let mut seeds = Vec::new();
    for layers in [
        [dense(&[1; 8]), polynomial, dense(&[2; 4])],
        [convolution, Layer::Relu { range: 4.0 }, dense(&[2; 8])],
        [wide, polynomial, dense(&[2; 4])],
    ] {
        let parts = ModelParts {
            name: b"small",
            input: Input::Image(Shape {
                channels: 1,
                height: 1,
                width: 4,
            }),
            layers: &layers,
        };
        let mut file = vec![0; parts.file_len().unwrap_or_default()];
        if parts.write(&mut file).is_ok() {
            seeds.push(file[HEADER_BYTES..file.len() - CRC_BYTES].to_vec());
            seeds.push(file);
        }
    }
    assert_eq!(seeds.len(), 6);
    seeds
}

/// An evaluator's machine.
struct Machine(u64);

impl session::Platform for Machine {
    fn board(&self) -> &'static str {
        "fuzz"
    }
    fn unit(&self) -> TimeUnit {
        TimeUnit::Instructions
    }
    fn now(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
    fn memory(&mut self) -> Memory {
        Memory::default()
    }
    fn window(&self) -> u32 {
        4
    }
}

impl sensor::Platform for Machine {
    fn board(&self) -> &'static str {
        "fuzz"
    }
    fn unit(&self) -> TimeUnit {
        TimeUnit::Instructions
    }
    fn now(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
    fn memory(&mut self) -> Memory {
        Memory::default()
    }
    fn host_supplies(&self) -> bool {
        true
    }
    fn entropy(&mut self) -> Option<[u8; sensor::ENTROPY_BYTES]> {
        None
    }
}

/// The evaluator against any requests, traced.
pub(crate) fn session(script: &[u8]) {
    let mut ring = Box::new(Ring::<64>::new());
    converse(&PLAIN, *PLAIN.plan.model(), ring.as_mut(), Nothing, script);
}

/// One whose weights come encrypted.
pub(crate) fn session_encrypted(script: &[u8]) {
    converse(&ENCRYPTED, Encrypted, Off, Nothing, script);
}

/// One with polynomials and layers that are one matrix, which keeps keys.
pub(crate) fn session_polynomial(script: &[u8]) {
    let mut memory = vec![0; 1 << 20];
    let mut pages = [PageEntry::EMPTY; 64];
    let mut records = [RecordEntry::EMPTY; 8];
    let memory = MemoryFlash::new(&mut memory);
    let Ok(store) = Log::mount(memory, &mut pages, &mut records) else {
        panic!("there is room for pages");
    };
    let model = *POLYNOMIAL.plan.model();
    converse(&POLYNOMIAL, model, Off, store, script);
}

/// Has an evaluator handle a changed recording of good requests. Each gets an answer
/// that fits a frame; after them it must still greet, and begin.
fn converse<W: WeightSource, T: Tracer, K: KeyStore>(
    recording: &Recording,
    weights: W,
    tracer: T,
    store: K,
    script: &[u8],
) {
    let program = &recording.program;
    let mut arena = vec![0; program.arena_words()];
    let mut chunk = EMPTY_CHUNK;
    let Some(session) = new_session(program, weights, &mut arena, &mut chunk, tracer) else {
        panic!("the arena is as long as the program says");
    };
    let mut session = session.keeping(store);
    let mut machine = Machine(0);
    play(&recording.up, script, |message| {
        let mut replies = 0;
        let mut reply = |reply: Reply<'_>| {
            assert_fits_a_frame(&reply);
            replies += 1;
        };
        match postcard::take_from_bytes::<Request<'_>>(message) {
            Ok((request, [])) => session.handle(request, &mut machine, &mut reply),
            _ => session.refuse_frame(message.len() as u32, &mut reply),
        }
        assert!(replies > 0, "no answer to {message:02x?}");
        true
    });
    let (mut greeted, mut ready) = (false, false);
    let hello = Request::Hello {
        version: PROTOCOL_VERSION,
    };
    session.handle(hello, &mut machine, &mut |reply| {
        greeted = matches!(reply, Reply::Hello(_));
    });
    let plan = program.fingerprint();
    let begin = Request::Begin { plan, trace: false };
    session.handle(begin, &mut machine, &mut |reply| {
        ready = matches!(reply, Reply::Ready { .. });
    });
    assert!(greeted && ready, "greeted: {greeted}, ready: {ready}");
}

fn assert_fits_a_frame(reply: &(impl Debug + Serialize)) {
    let mut buffer = [0; MAX_FRAME];
    assert!(encode(reply, &mut buffer).is_ok(), "{reply:?}");
}

/// The sensor against any sequence of requests.
pub(crate) fn sensor(bytes: &[u8]) {
    let params = &N4096_DEPTH3;
    let mut arena = vec![0; sensor::arena_words(params)];
    let Ok(mut sensor) = Sensor::new(params, &mut arena) else {
        panic!("the arena is as long as it says");
    };
    let (mut rest, mut machine) = (bytes, Machine(0));
    // An encryption takes a millisecond.
    for _ in 0..16 {
        let Ok((request, tail)) = postcard::take_from_bytes::<sensor::Request<'_>>(rest) else {
            break;
        };
        rest = tail;
        let mut replies = 0;
        sensor.handle(request, &mut machine, &mut |reply| {
            assert_fits_a_frame(&reply);
            replies += 1;
        });
        assert!(replies > 0);
    }
}

fn sensor_messages() -> Vec<Vec<u8>> {
    let values = [1.0f32, -0.5, 0.25].map(f32::to_le_bytes).concat();
    let requests = [
        sensor::Request::Hello { version: 1 },
        sensor::Request::Entropy { bytes: [7; 32] },
        sensor::Request::NewKey,
        sensor::Request::Values {
            offset: 5,
            bytes: &values,
        },
        sensor::Request::Encrypt {
            level: 0,
            scale_bits: 1_000_000f64.to_bits(),
        },
    ];
    let encoded = requests.iter().map(postcard::to_stdvec);
    encoded.filter_map(Result::ok).collect()
}

pub(crate) fn sensor_requests() -> Vec<Vec<u8>> {
    let all = sensor_messages();
    assert_eq!(all.len(), 5);
    vec![all.concat(), all[1..].concat(), all[2..].concat()]
}
