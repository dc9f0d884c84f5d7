//! Decoders of he-nn.

use crate::script::{CIRCUIT, RECORDING, frame, play};
use crc::{CRC_32_ISO_HDLC, Crc};
use he_core::params::N4096_DEPTH3;
use he_nn::circuit::session::{CircuitSession, Encrypted};
use he_nn::link::{FrameReader, LinkError, MAX_DECODED, MAX_FRAME, encode};
use he_nn::message::{Memory, PROTOCOL_VERSION, Reply, Request, TimeUnit};
use he_nn::model::{
    CRC_BYTES, FILE_VERSION, Floats, HEADER_BYTES, Input, Kernel, Layer, Linear, MAGIC, Model,
    ModelParts, Padding, Sample, Shape,
};
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
    let crc = Crc::<u32>::new(&CRC_32_ISO_HDLC).checksum(&file);
    file.extend(crc.to_le_bytes());
    file
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
    let Ok(plan) = Plan::new(&N4096_DEPTH3, model) else {
        return;
    };
    assert!(plan.logit_error().six_sigma.is_finite());
    // Whoever gets this model makes an evaluator for it.
    let mut arena = vec![0; plan.arena_words()];
    assert!(Session::new(plan, *model, &mut arena).is_ok());
}

/// Two dense layers with a square, and a convolution with a rectifier, each as
/// a file and as its body.
pub(crate) fn models() -> Vec<Vec<u8>> {
    let square: Vec<u8> = [0.0f32, 0.0, 1.0].map(f32::to_le_bytes).concat();
    let linear = |weights| Linear {
        scale: 0.01,
        weights,
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
    let mut seeds = Vec::new();
    for layers in [
        [dense(&[1; 8]), polynomial, dense(&[2; 4])],
        [convolution, Layer::Relu { range: 4.0 }, dense(&[2; 8])],
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
    assert_eq!(seeds.len(), 4);
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

/// The evaluator against any requests. After them it must still greet.
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
    let hello = Request::Hello {
        version: PROTOCOL_VERSION,
    };
    converse(&recording.up, script, hello, |request, mut reply| {
        match request {
            Ok(request) => session.handle(request, &mut machine, &mut reply),
            Err(received) => session.refuse_frame(received, &mut reply),
        };
    });
}

/// The evaluator of a circuit against any requests. After them it must still begin.
pub(crate) fn circuit(script: &[u8]) {
    let (program, up) = &*CIRCUIT;
    let mut arena = vec![0; program.arena_words()];
    let Ok(mut session) = CircuitSession::new(program, Encrypted, &mut arena) else {
        panic!("the arena is as long as the program says");
    };
    let mut machine = Machine(0);
    let begin = Request::Begin {
        plan: program.fingerprint(),
        trace: false,
    };
    converse(up, script, begin, |request, mut reply| {
        match request {
            Ok(request) => session.handle(request, &mut machine, &mut reply),
            Err(received) => session.refuse_frame(received, &mut reply),
        };
    });
}

/// Has an evaluator handle a changed recording of good requests, or how many bytes
/// came that are none. Each gets an answer that fits a frame, and `last` after them
/// the one that a greeting or the begin of an inference is due.
fn converse(
    up: &[Vec<u8>],
    script: &[u8],
    last: Request<'_>,
    mut handle: impl FnMut(Result<Request<'_>, u32>, &mut dyn FnMut(Reply<'_>)),
) {
    play(up, script, |message| {
        let mut replies = 0;
        let request = match postcard::take_from_bytes::<Request<'_>>(message) {
            Ok((request, [])) => Ok(request),
            _ => Err(message.len() as u32),
        };
        handle(request, &mut |reply| {
            assert_fits_a_frame(&reply);
            replies += 1;
        });
        assert!(replies > 0, "no answer to {message:02x?}");
        true
    });
    let mut taken = false;
    handle(Ok(last), &mut |reply| {
        taken = match last {
            Request::Hello { .. } => matches!(reply, Reply::Hello(_)),
            _ => matches!(reply, Reply::Ready),
        };
    });
    assert!(taken, "{last:?}");
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
