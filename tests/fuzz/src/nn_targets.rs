//! Decoders of he-nn.

use crate::script::{RECORDING, frame, play};
use he_core::params::N4096_DEPTH3;
use he_nn::link::{FrameReader, MAX_DECODED, MAX_FRAME, encode};
use he_nn::message::{Memory, PROTOCOL_VERSION, Reply, Request, TimeUnit};
use he_nn::model::{Model, ModelParts};
use he_nn::plan::Plan;
use he_nn::sensor::{self, Sensor};
use he_nn::session::{self, Session};
use he_nn::trace::Ring;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// Bytes of a line. In one piece and in many they hold the same frames.
pub(crate) fn link(bytes: &[u8]) {
    let events = |piece: usize| {
        let mut reader = Box::new(FrameReader::<MAX_DECODED>::new());
        let mut events = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            let mut piece = piece.iter().copied();
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
    match reader.read(&mut frame.iter().copied()) {
        Some(Ok(frame)) => assert_eq!(frame.message(), bytes),
        // A frame of nothing but its checksum is one.
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
    let Some(Ok(again)) = reader.read(&mut framed.iter().copied()) else {
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
    let recording = &*RECORDING;
    vec![
        two(&recording.up[..3]),
        two(&recording.down[..4]),
        two(&recording.up[3..5]),
        two(&recording.down[recording.down.len() - 3..]),
    ]
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let recording = &*RECORDING;
    let short = |messages: &'static [Vec<u8>]| messages.iter().filter(|m| m.len() < 400);
    let mut seeds: Vec<Vec<u8>> = short(&recording.up).take(20).cloned().collect();
    seeds.extend(short(&recording.down).take(20).cloned());
    seeds.extend(short(&recording.down).rev().take(40).cloned());
    seeds.extend(sensor_messages());
    seeds
}

/// A model file; and the parts of one, with the right checksum around them.
pub(crate) fn model(bytes: &[u8]) {
    if let Ok(model) = Model::parse(bytes) {
        assert_eq!(written(&model), bytes);
        plan(&model);
    }
    let Ok((parts, _)) = postcard::take_from_bytes::<ModelParts<'_>>(bytes) else {
        return;
    };
    if let Ok(model) = Model::new(parts) {
        let file = written(&model);
        let Ok(again) = Model::parse(&file) else {
            panic!("what was written cannot be read");
        };
        assert_eq!(written(&again), file);
        plan(&model);
    }
}

fn written(model: &Model<'_>) -> Vec<u8> {
    let mut file = vec![0; model.file_len()];
    assert_eq!(model.write(&mut file), Ok(file.len()));
    file
}

fn plan(model: &Model<'_>) {
    let Ok(plan) = Plan::new(&N4096_DEPTH3, model) else {
        return;
    };
    assert!(plan.logit_error().six_sigma.is_finite());
    let mut logits = vec![0.0; model.classes()];
    assert!(
        model
            .plain_logits(&vec![255; model.inputs()], &mut logits)
            .is_ok()
    );
    // Whoever gets this model makes an evaluator for it.
    let mut arena = vec![0; plan.arena_words()];
    assert!(Session::new(plan, *model, &mut arena).is_ok());
}

pub(crate) fn models() -> Vec<Vec<u8>> {
    let real = RECORDING.reference.model;
    let (hidden, inputs, classes) = (2, 4, 2);
    let parts = ModelParts {
        name: b"small",
        inputs,
        hidden,
        classes,
        w1_scale: 0.01,
        w1: &[1; 8],
        b1: &[0; 8],
        w2_scale: 0.01,
        w2: &[2; 4],
        b2: &[0; 8],
        ranges: real.ranges(),
    };
    let mut seeds = Vec::new();
    if let Ok(parts) = postcard::to_stdvec(&parts) {
        seeds.push(parts);
    }
    if let Ok(model) = Model::new(parts) {
        seeds.push(written(&model));
    }
    assert_eq!(seeds.len(), 2);
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
    fn window(&self) -> u8 {
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
}

/// The evaluator against any requests: a changed recording of good ones. After
/// them it must still greet.
pub(crate) fn session(script: &[u8]) {
    let recording = &*RECORDING;
    let plan = recording.reference.plan;
    let mut arena = vec![0; plan.arena_words()];
    let mut ring = Box::new(Ring::<64>::new());
    let Ok(mut session) =
        Session::traced(plan, recording.reference.model, &mut arena, ring.as_mut())
    else {
        panic!("the arena is as long as the plan says");
    };
    let mut machine = Machine(0);
    play(&recording.up, script, |message| {
        let mut replies = 0;
        let mut reply = |reply: Reply<'_>| {
            let mut buffer = [0; MAX_FRAME];
            assert!(encode(&reply, &mut buffer).is_ok(), "{reply:?}");
            replies += 1;
        };
        match postcard::take_from_bytes::<Request<'_>>(message) {
            Ok((request, [])) => session.handle(request, &mut machine, &mut reply),
            _ => session.refuse_frame(message.len() as u32, &mut reply),
        }
        assert!(replies > 0, "no answer to {message:02x?}");
        true
    });
    let version = PROTOCOL_VERSION;
    let mut greeted = false;
    session.handle(Request::Hello { version }, &mut machine, &mut |reply| {
        greeted = matches!(reply, Reply::Hello(_));
    });
    assert!(greeted);
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
            let mut buffer = [0; MAX_FRAME];
            assert!(encode(&reply, &mut buffer).is_ok(), "{reply:?}");
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
