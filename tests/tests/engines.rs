//! Encrypted networks against the same in the clear.

use he_core::params::N8192_DEPTH5;
use he_nn::circuit::batch::BatchCircuit;
use he_nn::circuit::{Form, Step, Weights};
use he_nn::model::{
    Floats, Input, Kernel, Layer, Linear, Model, ModelParts, Padding, Sample, Shape,
};

use super::*;
use he_nn::clear;

/// Bytes of reproducible noise.
fn bytes(count: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// Weights within -120 .. 120.
fn weights(count: usize, seed: u32) -> Vec<u8> {
    let small = |b: u8| ((i32::from(b) - 128) * 15 / 16) as i8;
    bytes(count, seed)
        .into_iter()
        .map(|b| small(b).cast_unsigned())
        .collect()
}

fn floats(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

fn biases(count: usize, seed: u32) -> Vec<u8> {
    floats(
        bytes(count, seed)
            .into_iter()
            .map(|b| f32::from(b) / 256.0 - 0.5),
    )
}

/// What a network of the tests is made of.
enum Part {
    Conv(Kernel),
    Dense(u16),
    Square,
    Polynomial(&'static [f32]),
}

/// A network whose ranges are those over some samples.
fn network(input: Shape, parts: &[Part]) -> Vec<u8> {
    let activations: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| match *part {
            Part::Polynomial(coefficients) => floats(coefficients.iter().copied()),
            _ => floats([0.0, 0.0, 1.0].into_iter()),
        })
        .collect();
    let mut shape = input;
    let mut storage = Vec::new();
    for (seed, part) in (1u32..).zip(parts) {
        let (count, outputs, rows) = match *part {
            Part::Conv(kernel) => {
                let fan_in = shape.channels * kernel.height * kernel.width;
                shape = kernel.output(shape);
                (usize::from(fan_in), shape, kernel.out_channels)
            }
            Part::Dense(outputs) => {
                let fan_in = shape.values();
                shape = Shape::flat(outputs);
                (fan_in, shape, outputs)
            }
            Part::Square | Part::Polynomial(_) => (0, shape, 0),
        };
        let rows = usize::from(rows);
        storage.push((
            weights(count * rows, seed),
            biases(rows, 100 + seed),
            outputs,
            count,
        ));
    }
    let build = |ranges: &[f32]| {
        let layers: Vec<Layer<'_>> = parts
            .iter()
            .zip(&storage)
            .zip(&activations)
            .zip(ranges)
            .map(
                |(((part, (weights, biases, _, fan_in)), activation), &range)| {
                    let linear = Linear {
                        scale: 1.0 / (120.0 * (*fan_in as f32).sqrt().max(1.0)),
                        weights,
                        biases: Floats::new(biases),
                    };
                    match *part {
                        Part::Conv(kernel) => Layer::Conv2d {
                            kernel,
                            linear,
                            range,
                        },
                        Part::Dense(outputs) => Layer::Dense {
                            outputs,
                            linear,
                            range,
                        },
                        Part::Square | Part::Polynomial(_) => Layer::Polynomial {
                            coefficients: Floats::new(activation),
                            range,
                        },
                    }
                },
            )
            .collect();
        let parts = ModelParts {
            name: b"drawn",
            input: Input::Image(input),
            layers: &layers,
        };
        let mut file = vec![0; parts.file_len().unwrap()];
        parts.write(&mut file).unwrap();
        file
    };
    let first = build(&vec![1.0; parts.len()]);
    let model = Model::parse(&first).unwrap();
    let images: Vec<Vec<u8>> = (0..20).map(|k| bytes(input.values(), 1000 + k)).collect();
    let samples = images.iter().map(|image| (Sample::Pixels(image), 0));
    let measured = clear::measure(&model, samples).unwrap();
    build(&measured.ranges)
}

/// Square kernels.
const fn conv(out_channels: u16, side: u16, stride: u16, padding: Padding) -> Part {
    Part::Conv(Kernel {
        out_channels,
        height: side,
        width: side,
        stride,
        padding,
    })
}

const fn image(width: u16) -> Shape {
    Shape {
        channels: 1,
        height: width,
        width,
    }
}

/// Of 5x5 with stride 2 on 12x12: one place before and two behind.
const SAME: Padding = Padding::same(image(12), 5, 5, 2);

/// A second convolution, padded on two sides alone.
fn padded_behind_an_activation() -> Vec<u8> {
    let padding = Padding {
        bottom: 2,
        left: 1,
        ..Padding::NONE
    };
    network(
        image(12),
        &[
            conv(3, 5, 2, SAME),
            Part::Square,
            conv(2, 3, 1, padding),
            Part::Square,
            Part::Dense(10),
        ],
    )
}

/// Runs one sample; gives the forms and the largest error of a logit.
fn latency_error(file: &[u8], params: &'static Params, weights: Weights) -> (Vec<Form>, f64, f64) {
    let model = Model::parse(file).unwrap();
    let circuit = plan_under(params, model, weights).unwrap();
    let forms = circuit
        .steps()
        .iter()
        .filter_map(|step| match step {
            Step::Linear { form, .. } => Some(*form),
            Step::Square { .. } | Step::Polynomial { .. } => None,
        })
        .collect();
    let (steps, expected_error) = (circuit.steps().len(), circuit.logit_error().six_sigma);
    let keys = Keys::from_seed(params, &[7; 32]).unwrap();
    let mut client = latency::Client::with_keys(circuit.clone(), keys);
    let (keys, factors) = (client.switching_keys().unwrap(), client.weights().unwrap());
    let mut evaluator = latency::Evaluator::new(circuit, &keys, &factors).unwrap();
    let sample = bytes(model.inputs(), 1003);
    let input = client.encrypt(&sample[..]).unwrap();
    let (result, times) = evaluator.evaluate(&input).unwrap();
    assert_eq!(times.len(), steps + 1);
    let logits = client.decrypt(&result).unwrap();
    let clear = clear::logits(&model, &sample[..]).unwrap();
    let error = logits
        .iter()
        .zip(&clear)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert_eq!(logits.len(), clear.len());
    (forms, error, expected_error)
}

#[test]
fn every_form_gives_the_logits_of_the_clear_network() {
    let nets = [
        // Convolution by blocks, then diagonals, then rows.
        network(
            image(12),
            &[
                conv(3, 5, 2, Padding::NONE),
                Part::Square,
                Part::Dense(20),
                Part::Square,
                Part::Dense(10),
            ],
        ),
        // Copies of the input.
        network(
            image(28),
            &[Part::Dense(1000), Part::Square, Part::Dense(10)],
        ),
        // More outputs than inputs.
        network(image(6), &[Part::Dense(100), Part::Square, Part::Dense(10)]),
        // Merged layers.
        network(
            image(12),
            &[
                conv(3, 5, 2, Padding::NONE),
                Part::Dense(40),
                Part::Square,
                Part::Dense(10),
            ],
        ),
        // Padded: by blocks, merged, and behind an activation.
        network(
            image(12),
            &[
                conv(3, 5, 2, SAME),
                Part::Square,
                Part::Dense(20),
                Part::Square,
                Part::Dense(10),
            ],
        ),
        network(
            image(12),
            &[
                conv(3, 5, 2, SAME),
                Part::Dense(40),
                Part::Square,
                Part::Dense(10),
            ],
        ),
        padded_behind_an_activation(),
    ];
    let mut seen = [false; 4];
    for file in &nets {
        for weights in [Weights::Plain, Weights::Encrypted] {
            let (forms, error, bound) = latency_error(file, &N8192_NETWORK, weights);
            assert!(
                error < bound,
                "{forms:?} {weights:?}: {error} above {bound}"
            );
            assert!(bound < 0.05, "{forms:?} {weights:?}: {bound}");
            for (index, form) in forms.into_iter().enumerate() {
                let kinds = match form {
                    Form::Blocks { .. } => 0,
                    Form::Diagonals { complex: true, .. } if index > 0 => 1,
                    Form::Diagonals { copies: 2.., .. } => 3,
                    Form::Diagonals { .. } => continue,
                    Form::Rows { .. } => 2,
                };
                seen[kinds] = true;
            }
        }
    }
    // Blocks, pairs of diagonals between two layers, rows, copies.
    assert_eq!(seen, [true; 4]);
}

const CUBIC: [f32; 4] = [0.0, 1.0, 0.0, 0.1];
/// A rectifier between -2 and 2, least squares.
const QUARTIC: [f32; 5] = [0.117, 0.5, 0.41, 0.0, -0.034];
/// The sine's.
const SEPTIC: [f32; 8] = [0.0, 1.0, 0.0, -0.166_67, 0.0, 0.008_333, 0.0, -0.000_198_4];

/// The sine's, as far as polynomials go.
const FIFTEENTH: [f32; 16] = [
    0.0,
    1.0,
    0.0,
    -0.166_67,
    0.0,
    0.008_333,
    0.0,
    -0.000_198_4,
    0.0,
    2.755_7e-6,
    0.0,
    -2.505e-8,
    0.0,
    1.605_9e-10,
    0.0,
    -7.647e-13,
];

#[test]
fn polynomials_give_the_logits_of_the_clear_network() {
    for (coefficients, levels) in [
        (&CUBIC[..], 2),
        (&QUARTIC, 3),
        (&SEPTIC, 3),
        (&FIFTEENTH, 4),
    ] {
        let activation = || Part::Polynomial(coefficients);
        let shallow = network(image(8), &[Part::Dense(24), activation(), Part::Dense(5)]);
        let deep = network(
            image(10),
            &[
                conv(2, 4, 2, Padding::NONE),
                activation(),
                Part::Dense(16),
                activation(),
                Part::Dense(4),
            ],
        );
        for (file, depth) in [(&shallow, levels + 2), (&deep, 2 * levels + 3)] {
            let model = Model::parse(file).unwrap();
            for weights in [Weights::Plain, Weights::Encrypted] {
                let circuit = plan(model, weights).unwrap();
                assert_eq!(circuit.input_level(), depth);
                assert!(circuit.logit_error().worst_case > 0.0);
                let params = circuit.params();
                let (forms, error, bound) = latency_error(file, params, weights);
                let what = format!("{coefficients:?} {forms:?} {weights:?}");
                assert!(error < bound, "{what}: {error} above {bound}");
                assert!(bound < 0.05, "{what}: {bound}");
            }
        }
    }
}

#[test]
fn polynomials_are_refused_on_a_board_and_where_no_set_is_deep_enough() {
    let parts = [Part::Dense(8), Part::Polynomial(&CUBIC), Part::Dense(3)];
    let file = network(image(4), &parts);
    let model = Model::parse(&file).unwrap();
    let on_a_board = |model, params| device::plan(params, model, Weights::Plain).unwrap_err();
    let activation = CircuitError::Activation { layer: 1 };
    assert_eq!(on_a_board(model, None), activation);
    assert_eq!(on_a_board(model, Some(&N8192_NETWORK)), activation);
    // One cubic activation more than there are levels for.
    let mut parts = vec![Part::Dense(8)];
    for _ in 0..4 {
        parts.extend([Part::Polynomial(&CUBIC), Part::Dense(8)]);
    }
    let file = network(image(4), &parts);
    let model = Model::parse(&file).unwrap();
    let depth = CircuitError::Depth {
        needed: 13,
        available: 11,
    };
    assert_eq!(plan(model, Weights::Plain).unwrap_err(), depth);
    // No longer chain would serve a board.
    assert_eq!(on_a_board(model, None), activation);
}

#[test]
fn a_batch_gives_the_logits_of_every_sample() {
    let file = network(
        image(9),
        &[
            conv(2, 3, 2, Padding::NONE),
            Part::Square,
            Part::Dense(8),
            Part::Square,
            Part::Dense(3),
        ],
    );
    let model = Model::parse(&file).unwrap();
    let circuit = batch::plan(model).unwrap();
    let images: Vec<Vec<u8>> = (0..20).map(|k| bytes(model.inputs(), 1000 + k)).collect();
    let error = batch_error(&circuit, &images);
    assert!(error < 0.01, "{error}");
}

#[test]
fn a_batch_evaluates_polynomials() {
    for coefficients in [&CUBIC[..], &QUARTIC, &SEPTIC, &FIFTEENTH] {
        let activation = || Part::Polynomial(coefficients);
        let parts = [
            Part::Dense(6),
            activation(),
            Part::Dense(5),
            activation(),
            Part::Dense(3),
        ];
        let file = network(image(4), &parts);
        let model = Model::parse(&file).unwrap();
        let circuit = batch::plan(model).unwrap();
        let bound = circuit.logit_error().six_sigma;
        let images: Vec<Vec<u8>> = (0..20).map(|k| bytes(16, 1000 + k)).collect();
        let error = batch_error(&circuit, &images);
        assert!(error < bound, "{coefficients:?}: {error} above {bound}");
        assert!(bound < 0.05, "{coefficients:?}: {bound}");
    }
}

#[test]
fn padded_convolutions_in_batches() {
    let file = padded_behind_an_activation();
    let model = Model::parse(&file).unwrap();
    let circuit = batch::plan(model).unwrap();
    let bound = circuit.logit_error().six_sigma;
    let images: Vec<Vec<u8>> = (0..3).map(|k| bytes(144, 1000 + k)).collect();
    let error = batch_error(&circuit, &images);
    assert!(error < bound && bound < 0.05, "{error} {bound}");
}

/// Runs a batch; the largest error of a logit.
fn batch_error(circuit: &BatchCircuit<'_>, images: &[Vec<u8>]) -> f64 {
    let keys = Keys::from_seed(circuit.params(), &[7; 32]).unwrap();
    let mut client = batch::Client::with_keys(circuit.clone(), keys);
    let keys = client.switching_keys().unwrap();
    let mut evaluator = batch::Evaluator::new(circuit.clone(), &keys).unwrap();
    let samples: Vec<Sample<'_>> = images.iter().map(|i| Sample::Pixels(i)).collect();
    let input = client.encrypt(&samples).unwrap();
    let (result, _) = evaluator.evaluate(&input, |_| ()).unwrap();
    let logits = client.decrypt(&result, samples.len()).unwrap();
    assert_eq!(logits.len(), images.len());
    let mut worst = 0.0f64;
    for (logits, image) in logits.iter().zip(images) {
        let clear = clear::logits(circuit.model(), &image[..]).unwrap();
        for (a, b) in logits.iter().zip(&clear) {
            worst = worst.max((a - b).abs());
        }
    }
    worst
}

/// The same through the streaming session, from a client that knows the evaluator
/// by its messages alone.
fn streamed(file: &[u8], params: &'static Params, weights: Weights, count: usize) -> f64 {
    let model = Model::parse(file).unwrap();
    let (circuit, program) = device::plan(Some(params), model, weights).unwrap();
    let mut room = vec![0; 8192];
    let written = program.write(&mut room).unwrap();
    let read = he_nn::circuit::program::Program::parse(params, written).unwrap();
    assert_eq!(read.fingerprint(), program.fingerprint());
    let held = (weights == Weights::Plain).then_some(file);
    let transport = crate::evaluator::in_process_program(read, held).unwrap();
    let mut link = crate::device::Connection::new(transport);
    let keys = Keys::from_seed(params, &[5; 32]).unwrap();
    let mut client = device::Client::with_keys(circuit, keys).unwrap();
    let payload = program.payload();
    let mut worst = 0.0f64;
    for index in 0..count {
        let pixels = bytes(model.inputs(), 900 + index as u32);
        let (mut last, mut of) = (0, 0);
        let inference = client
            .infer(&mut link, pixels.as_slice(), |sent, total| {
                (last, of) = (sent, total)
            })
            .unwrap();
        assert_eq!(last, of);
        assert_eq!(
            last as usize,
            payload.inputs + payload.factors + payload.keys
        );
        let clear = clear::logits(&model, pixels.as_slice()).unwrap();
        for (a, b) in inference.logits.iter().zip(&clear) {
            worst = worst.max((a - b).abs());
        }
        assert_eq!(inference.logits.len(), clear.len());
    }
    let bound = client.circuit().logit_error().six_sigma;
    assert!(worst < bound, "{worst} and six standard deviations {bound}");
    worst
}

#[test]
fn two_layers_stream_with_encrypted_weights() {
    let image = Shape {
        channels: 1,
        height: 8,
        width: 8,
    };
    let parts = [Part::Dense(32), Part::Square, Part::Dense(5)];
    let file = network(image, &parts);
    streamed(&file, &N4096_DEPTH3, Weights::Encrypted, 2);
    streamed(&file, &N4096_DEPTH3, Weights::Plain, 1);
}

#[test]
fn three_layers_stream() {
    let image = Shape {
        channels: 1,
        height: 12,
        width: 12,
    };
    let padding = Padding::same(image, 4, 4, 2);
    let parts = [
        conv(2, 4, 2, padding),
        Part::Square,
        Part::Dense(16),
        Part::Square,
        Part::Dense(4),
    ];
    let file = network(image, &parts);
    let model = Model::parse(&file).unwrap();
    let (circuit, _) = device::plan(Some(&N8192_DEPTH5), model, Weights::Plain).unwrap();
    let complex = circuit.steps().iter().any(|step| {
        matches!(
            step,
            Step::Linear {
                form: Form::Diagonals {
                    complex: true,
                    baby: 2..,
                    ..
                },
                ..
            }
        )
    });
    assert!(complex, "{:?}", circuit.steps());
    for weights in [Weights::Plain, Weights::Encrypted] {
        streamed(&file, &N8192_DEPTH5, weights, 1);
    }
}

#[test]
fn a_stream_with_copies_of_the_input() {
    let parts = [Part::Dense(256), Part::Square, Part::Dense(10)];
    let file = network(image(28), &parts);
    let model = Model::parse(&file).unwrap();
    let (circuit, _) = device::plan(Some(&N8192_DEPTH5), model, Weights::Plain).unwrap();
    let [
        Step::Linear {
            form: Form::Diagonals { copies: 2.., .. },
            ..
        },
        ..,
    ] = circuit.steps()
    else {
        panic!("{:?}", circuit.steps());
    };
    streamed(&file, &N8192_DEPTH5, Weights::Plain, 1);
}
