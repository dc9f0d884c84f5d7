#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that panics has failed, which is what it should do"
)]

use super::format::{CRC, Head, header};
use super::*;

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn bytes(weights: &[i8]) -> Vec<u8> {
    weights.iter().map(|w| w.cast_unsigned()).collect()
}

/// Memory that the parts of a small network borrow from.
struct Store {
    w1: Vec<u8>,
    w2: Vec<u8>,
    biases: Vec<u8>,
    square: Vec<u8>,
}

impl Store {
    fn new() -> Self {
        Self {
            w1: bytes(&[1, -1, 127, -127, 0, 5]),
            w2: bytes(&[3, -2, 0, 7]),
            biases: le(&[1.5, -2.0]),
            square: le(&[0.0, 0.0, 1.0]),
        }
    }

    fn first(&self) -> Linear<'_> {
        Linear {
            scale: 0.5,
            multipliers: &[],
            weights: Integers::Bytes(&self.w1),
            biases: Floats::new(&self.biases),
        }
    }

    /// Three pixels, two hidden units, a square, two classes.
    fn layers(&self) -> [Layer<'_>; 3] {
        let second = Linear {
            scale: 0.25,
            multipliers: &[],
            weights: Integers::Bytes(&self.w2),
            biases: Floats::new(&self.biases),
        };
        [
            Layer::Dense {
                outputs: 2,
                linear: self.first(),
                range: 3.0,
            },
            Layer::Polynomial {
                coefficients: Floats::new(&self.square),
                range: 9.0,
            },
            Layer::Dense {
                outputs: 2,
                linear: second,
                range: 7.5,
            },
        ]
    }
}

const THREE: Input<'_> = Input::Image(Shape {
    channels: 1,
    height: 1,
    width: 3,
});

fn write(parts: &ModelParts<'_>) -> Result<Vec<u8>, ModelError> {
    let mut out = vec![0; parts.file_len()?];
    parts.write(&mut out)?;
    Ok(out)
}

fn network(layers: &[Layer<'_>]) -> Result<Vec<u8>, ModelError> {
    write(&ModelParts {
        name: b"tiny",
        input: THREE,
        layers,
    })
}

fn file() -> Vec<u8> {
    network(&Store::new().layers()).unwrap()
}

fn logits(file: &[u8], sample: Sample<'_>) -> Result<Vec<f64>, ModelError> {
    let model = Model::parse(file)?;
    let mut workspace = vec![f64::NAN; model.workspace_len()];
    let mut out = vec![f64::NAN; model.outputs()];
    model.plain_logits(sample, &mut workspace, &mut out)?;
    Ok(out)
}

/// A file with a right frame around any body.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut file = header(body.len()).unwrap().to_vec();
    file.extend(body);
    file.extend(CRC.checksum(&file).to_le_bytes());
    file
}

/// Refused with a reason in one sentence.
fn refused(result: Result<Vec<u8>, ModelError>, error: ModelError) {
    assert_eq!(result.unwrap_err(), error);
    let sentence = error.to_string();
    assert!(!sentence.is_empty() && !sentence.contains('\n'));
}

#[test]
fn roundtrip_at_any_alignment() {
    let (store, file) = (Store::new(), file());
    let model = Model::parse(&file).unwrap();
    assert_eq!(model.file(), file);
    assert_eq!(model.crc().to_le_bytes(), file[file.len() - 4..]);
    assert_eq!(model.crc(), CRC.checksum(&file[..file.len() - 4]));
    assert_eq!((model.name(), model.input()), ("tiny", THREE));
    assert_eq!(
        (model.inputs(), model.outputs(), model.layer_count()),
        (3, 2, 3)
    );
    for shift in 1..4 {
        let mut shifted = vec![0; shift];
        shifted.extend(&file);
        let shifted = Model::parse(&shifted[shift..]).unwrap();
        let layers: Vec<Layer<'_>> = shifted.layers().map(|view| view.layer).collect();
        assert_eq!(layers, store.layers());
    }
}

#[test]
fn rows_and_weights_of_a_layer() {
    let file = file();
    let model = Model::parse(&file).unwrap();
    let first = model.layers().next().unwrap();
    let linear = first.layer.linear().unwrap();
    assert_eq!((model.name(), linear.scale), ("tiny", 0.5));
    assert_eq!(linear.row(3, 0).unwrap().collect::<Vec<_>>(), [1, -1, 127]);
    assert_eq!(linear.row(3, 1).unwrap().collect::<Vec<_>>(), [-127, 0, 5]);
    assert!(linear.row(3, 2).is_none());
    assert_eq!(
        (linear.weight(3, 1, 0), linear.weight(3, 1, 2)),
        (Some(-127), Some(5))
    );
    assert_eq!(
        (
            linear.weight(3, 0, 3),
            linear.weight(3, 2, 0),
            linear.weight(3, usize::MAX, 1)
        ),
        (None, None, None)
    );
    assert_eq!(
        (linear.biases.get(1), linear.biases.get(2)),
        (Some(-2.0), None)
    );
    let ranges: Vec<f32> = model.layers().map(|view| view.layer.range()).collect();
    assert_eq!(ranges, [3.0, 9.0, 7.5]);
}

#[test]
fn plain_network_by_hand() {
    let file = file();
    let pixels = [255, 51, 0];
    // x1 = [0.5 * (1 - 0.2) + 1.5, 0.5 * -127 - 2] = [1.9, -65.5]
    let logits = logits(&file, (&pixels).into()).unwrap();
    let h = [1.9 * 1.9, 65.5 * 65.5];
    assert!((logits[0] - (0.25 * (3.0 * h[0] - 2.0 * h[1]) + 1.5)).abs() < 1e-9);
    assert!((logits[1] - (0.25 * 7.0 * h[1] - 2.0)).abs() < 1e-9);

    let model = Model::parse(&file).unwrap();
    let mut seen = Vec::new();
    let mut workspace = vec![0.0; model.workspace_len()];
    let observe = |index, values: &[f64]| seen.push((index, values.to_vec()));
    model
        .plain_layers(&pixels, &mut workspace, observe)
        .unwrap();
    assert!((seen[0].1[0] - 1.9).abs() < 1e-12 && (seen[0].1[1] + 65.5).abs() < 1e-12);
    assert_eq!(
        seen[1].1,
        seen[0].1.iter().map(|x| x * x).collect::<Vec<_>>()
    );
    assert_eq!((seen.len(), seen[2].0, &seen[2].1), (3, 2, &logits));
}

#[test]
fn what_does_not_fit_plain_evaluation() {
    let file = file();
    let model = Model::parse(&file).unwrap();
    let (mut workspace, mut out) = (vec![0.0; model.workspace_len()], [0.0; 2]);
    let error = model.plain_logits(&[1, 2], &mut workspace, &mut out);
    let expected = 3;
    assert_eq!(error, Err(ModelError::Sample { expected, got: 2 }));
    let error = model.plain_logits(&[1, 2, 3], &mut workspace, &mut out[..1]);
    let expected = 2;
    assert_eq!(error, Err(ModelError::Logits { expected, got: 1 }));
    let error = model.plain_logits(&[1, 2, 3], &mut workspace[..5], &mut out);
    assert_eq!(error, Err(ModelError::Workspace { needed: 6, got: 5 }));
    let error = model.plain_logits(&[1.0f32, 2.0, 3.0][..], &mut workspace, &mut out);
    assert_eq!(error, Err(ModelError::SampleKind { pixels: true }));
}

#[test]
fn features_are_standardised() {
    let store = Store::new();
    let (means, deviations) = (le(&[1.0, -2.0, 0.0]), le(&[2.0, 0.5, 1.0]));
    let file = write(&ModelParts {
        name: b"features",
        input: Input::Features {
            means: Floats::new(&means),
            deviations: Floats::new(&deviations),
        },
        layers: &[Layer::Dense {
            outputs: 2,
            linear: store.first(),
            range: 3.0,
        }],
    })
    .unwrap();
    // (3, -1, 0.1) is (1, 2, 0.1).
    let logits = logits(&file, (&[3.0f32, -1.0, 0.1][..]).into()).unwrap();
    assert!((logits[0] - (0.5 * (1.0 - 2.0 + 12.7) + 1.5)).abs() < 1e-6);
    assert!((logits[1] - (0.5 * (-127.0 + 0.5) - 2.0)).abs() < 1e-6);
    let error = self::logits(&file, (&[1, 2, 3]).into()).unwrap_err();
    assert_eq!(error, ModelError::SampleKind { pixels: false });
}

const NONE: Padding = Padding::NONE;

#[test]
fn the_same_padding_is_that_of_tensorflow() {
    let shape = |height, width| Shape {
        channels: 1,
        height,
        width,
    };
    // Input and kernel along an axis, stride, and what `tf.nn.conv2d` puts before and
    // behind by its documentation: `max((ceil(in / s) - 1) s + k - in, 0)` in all.
    for (side, of_kernel, stride, before, behind) in [
        (28, 5, 2, 1, 2),
        (28, 5, 1, 2, 2),
        (14, 3, 2, 0, 1),
        (7, 3, 2, 1, 1),
        (7, 2, 1, 0, 1),
        (9, 2, 3, 0, 0),
        (4, 4, 4, 0, 0),
        (5, 4, 4, 1, 2),
        (1, 1, 1, 0, 0),
    ] {
        for swapped in [false, true] {
            let (input, height, width) = match swapped {
                false => (shape(side, 40), of_kernel, 1),
                true => (shape(40, side), 1, of_kernel),
            };
            let padding = Padding::same(input, height, width, stride);
            let along = |p: Padding| match swapped {
                false => (p.top, p.bottom),
                true => (p.left, p.right),
            };
            assert_eq!(along(padding), (before, behind), "{side} {of_kernel}");
            assert_eq!(along(padding.mirrored()), (behind, before));
            let kernel = Kernel {
                out_channels: 1,
                height,
                width,
                stride,
                padding,
            };
            let output = kernel.output(input);
            let places = |side: u16| side.div_ceil(stride);
            assert_eq!(output, shape(places(input.height), places(input.width)));
        }
    }
}

#[test]
fn a_padded_convolution_is_that_of_an_image_with_a_frame() {
    // Two channels of 5x4, and every padding that kernels of 3x2 may have.
    let input = Shape {
        channels: 2,
        height: 5,
        width: 4,
    };
    let (top, left) = (0..3, 0..2);
    let weights: Vec<i8> = (0..24).map(|i| (i * 29 % 250 - 125) as i8).collect();
    let (weight_bytes, biases) = (bytes(&weights), le(&[0.5, -1.0]));
    let pixels: Vec<u8> = (0..40).map(|i| (i * 83 % 255 + 1) as u8).collect();
    let sides = top.flat_map(|top| left.clone().map(move |left| (top, left)));
    for (top, left) in sides {
        for (bottom, right) in [(0, 0), (1, 0), (2, 1)] {
            for stride in [1, 2, 3] {
                let padding = Padding {
                    top,
                    bottom,
                    left,
                    right,
                };
                let convolved = |input, padding, pixels: &[u8]| {
                    let kernel = Kernel {
                        out_channels: 2,
                        height: 3,
                        width: 2,
                        stride,
                        padding,
                    };
                    let convolution = Layer::Conv2d {
                        kernel,
                        linear: Linear {
                            scale: 0.01,
                            multipliers: &[],
                            weights: Integers::Bytes(&weight_bytes),
                            biases: Floats::new(&biases),
                        },
                        range: 1.0,
                    };
                    let file = write(&ModelParts {
                        name: b"conv",
                        input: Input::Image(input),
                        layers: &[convolution],
                    });
                    let file = file.unwrap();
                    let model = Model::parse(&file).unwrap();
                    (
                        model.layers().next().unwrap().output,
                        logits(&file, pixels.into()),
                    )
                };
                let framed = Shape {
                    height: 5 + top + bottom,
                    width: 4 + left + right,
                    ..input
                };
                let mut frame = vec![0; framed.values()];
                for (i, &pixel) in pixels.iter().enumerate() {
                    let row = i / 20 * usize::from(framed.height) + i / 4 % 5 + usize::from(top);
                    frame[row * usize::from(framed.width) + i % 4 + usize::from(left)] = pixel;
                }
                assert_eq!(
                    convolved(input, padding, &pixels),
                    convolved(framed, NONE, &frame),
                    "{padding:?} {stride}"
                );
            }
        }
    }
}

#[test]
fn a_convolution_is_its_sum() {
    // Two channels of 5x4, three kernels of 3x2, stride 2: 2x2 places.
    let input = Shape {
        channels: 2,
        height: 5,
        width: 4,
    };
    let kernel = Kernel {
        out_channels: 3,
        height: 3,
        width: 2,
        stride: 2,
        padding: NONE,
    };
    let weights: Vec<i8> = (0..3 * 2 * 3 * 2)
        .map(|i| (i * 29 % 250 - 125) as i8)
        .collect();
    let (weight_bytes, biases) = (bytes(&weights), le(&[0.5, -1.0, 2.0]));
    let convolution = Layer::Conv2d {
        kernel,
        linear: Linear {
            scale: 0.01,
            multipliers: &[],
            weights: Integers::Bytes(&weight_bytes),
            biases: Floats::new(&biases),
        },
        range: 1.0,
    };
    let (relu, zero) = (Layer::Relu { range: 1.0 }, le(&[0.0; 12]));
    // An identity behind it, so that its results can be compared as logits,
    // once as they are and once through a rectifier.
    let identity: Vec<i8> = (0..144).map(|i| i8::from(i % 13 == 0)).collect();
    let identity = bytes(&identity);
    let dense = Layer::Dense {
        outputs: 12,
        linear: Linear {
            scale: 1.0,
            multipliers: &[],
            weights: Integers::Bytes(&identity),
            biases: Floats::new(&zero),
        },
        range: 1.0,
    };
    let pixels: Vec<u8> = (0..40).map(|i| (i * 83 % 256) as u8).collect();
    let at = |c: usize, y: usize, x: usize| f64::from(pixels[(c * 5 + y) * 4 + x]) / 255.0;
    let expected: Vec<f64> = (0..12)
        .map(|i| {
            let (o, y, x) = (i / 4, i / 2 % 2, i % 2);
            let mut sum = 0.0;
            for (k, &w) in weights[o * 12..(o + 1) * 12].iter().enumerate() {
                let (c, dy, dx) = (k / 6, k / 2 % 3, k % 2);
                sum += f64::from(w) * at(c, 2 * y + dy, 2 * x + dx);
            }
            f64::from(0.01f32) * sum + [0.5, -1.0, 2.0][o]
        })
        .collect();
    for rectified in [false, true] {
        let layers = [convolution, relu, dense];
        let layers = if rectified {
            &layers[..]
        } else {
            &[convolution, dense]
        };
        let file = write(&ModelParts {
            name: b"conv",
            input: Input::Image(input),
            layers,
        })
        .unwrap();
        let model = Model::parse(&file).unwrap();
        let view = model.layers().next().unwrap();
        let output = Shape {
            channels: 3,
            height: 2,
            width: 2,
        };
        assert_eq!((view.input, view.output), (input, output));
        assert_eq!(view.layer.fan_in(input), 12);
        assert_eq!(model.layers().last().unwrap().output, Shape::flat(12));
        let logits = logits(&file, (&pixels[..]).into()).unwrap();
        for (got, &expected) in logits.iter().zip(&expected) {
            let expected = if rectified {
                expected.max(0.0)
            } else {
                expected
            };
            assert!((got - expected).abs() < 1e-9, "{got} {expected}");
        }
        assert!(expected.iter().any(|&x| x < 0.0));
    }
}

#[test]
fn polynomials_of_any_degree() {
    let store = Store::new();
    let [first, _, second] = store.layers();
    let coefficients = le(&[0.5, -1.0, 0.25, 2.0]);
    let cubic = Layer::Polynomial {
        coefficients: Floats::new(&coefficients),
        range: 1.0,
    };
    let file = network(&[first, cubic, second]).unwrap();
    let logits = logits(&file, (&[255, 51, 0]).into()).unwrap();
    let f = |x: f64| 0.5 - x + 0.25 * x * x + 2.0 * x * x * x;
    assert!((logits[1] - (0.25 * 7.0 * f(-65.5) - 2.0)).abs() < 1e-6);
}

#[test]
fn widest_sums_are_exact() {
    let (weights, zero) = (bytes(&[127; MAX_VALUES]), le(&[0.0]));
    let file = write(&ModelParts {
        name: b"wide",
        input: Input::Image(Shape {
            channels: 1,
            height: 128,
            width: 128,
        }),
        layers: &[Layer::Dense {
            outputs: 1,
            linear: Linear {
                scale: 1.0,
                multipliers: &[],
                weights: Integers::Bytes(&weights),
                biases: Floats::new(&zero),
            },
            range: 1.0,
        }],
    })
    .unwrap();
    let logits = logits(&file, (&[255; MAX_VALUES]).into()).unwrap();
    assert!((logits[0] - 127.0 * MAX_VALUES as f64).abs() < 1e-6);
}

#[test]
fn every_cut_is_refused() {
    let file = file();
    for len in 0..file.len() {
        match Model::parse(&file[..len]).unwrap_err() {
            ModelError::CutShort { needed, got } => {
                assert_eq!(got, len);
                assert_eq!(needed, if len < HEADER_BYTES { 20 } else { file.len() });
            }
            error => panic!("{len}: {error:?}"),
        }
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let file = file();
    for index in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[index] ^= 1 << bit;
            let error = Model::parse(&damaged).unwrap_err();
            let expected = match index {
                0..8 => matches!(error, ModelError::Magic { .. }),
                8..12 => matches!(error, ModelError::Version { .. }),
                12..16 => matches!(
                    error,
                    ModelError::CutShort { .. } | ModelError::TrailingBytes { .. }
                ),
                _ => matches!(error, ModelError::Crc { .. }),
            };
            assert!(expected, "byte {index}: {error:?}");
        }
    }
}

/// The parts of a model, as they were read.
fn written_again(model: &Model<'_>) -> Vec<u8> {
    let layers: Vec<Layer<'_>> = model.layers().map(|view| view.layer).collect();
    write(&ModelParts {
        name: model.name().as_bytes(),
        input: model.input(),
        layers: &layers,
    })
    .unwrap()
}

#[test]
fn flipped_bodies_with_a_right_checksum_never_panic() {
    let store = Store::new();
    let [first, square, second] = store.layers();
    let kernel = Kernel {
        out_channels: 2,
        height: 1,
        width: 3,
        stride: 1,
        padding: NONE,
    };
    let convolution = Layer::Conv2d {
        kernel,
        linear: store.first(),
        range: 2.0,
    };
    let relu = Layer::Relu { range: 1.0 };
    // One place to the left and two to the right are two windows.
    let padded = Layer::Conv2d {
        kernel: Kernel {
            stride: 3,
            padding: Padding {
                left: 1,
                right: 2,
                ..NONE
            },
            ..kernel
        },
        linear: store.first(),
        range: 2.0,
    };
    let bias = le(&[1.5]);
    let behind_padding = Layer::Dense {
        outputs: 1,
        linear: Linear {
            biases: Floats::new(&bias),
            ..*second.linear().unwrap()
        },
        range: 2.0,
    };
    for layers in [
        [first, square, second],
        [convolution, square, second],
        [padded, square, behind_padding],
        [convolution, relu, second],
    ] {
        let file = network(&layers).unwrap();
        let body = &file[HEADER_BYTES..file.len() - CRC_BYTES];
        let mut accepted = 0;
        for index in 0..body.len() {
            for value in 0..=u8::MAX {
                let mut damaged = body.to_vec();
                damaged[index] = value;
                let damaged = framed(&damaged);
                // What is accepted is canonical: it writes itself again.
                if let Ok(model) = Model::parse(&damaged) {
                    assert_eq!(written_again(&model), damaged);
                    if let Input::Image(_) = model.input() {
                        let pixels = vec![255; model.inputs()];
                        logits(&damaged, (&pixels[..]).into()).unwrap();
                    }
                    accepted += 1;
                }
            }
        }
        assert!(accepted > body.len());
        for len in 0..body.len() {
            assert_eq!(
                Model::parse(&framed(&body[..len])).unwrap_err(),
                ModelError::Encoding
            );
        }
    }
}

#[test]
fn trailing_bytes() {
    let mut outside = file();
    outside.extend([0; 3]);
    assert_eq!(
        Model::parse(&outside).unwrap_err(),
        ModelError::TrailingBytes { extra: 3 }
    );
    let inside = file();
    let mut body = inside[HEADER_BYTES..inside.len() - CRC_BYTES].to_vec();
    body.extend([0; 2]);
    assert_eq!(
        Model::parse(&framed(&body)).unwrap_err(),
        ModelError::TrailingBytes { extra: 2 }
    );
}

#[test]
fn non_canonical_lengths_are_refused() {
    let file = file();
    let body = &file[HEADER_BYTES..file.len() - CRC_BYTES];
    assert_eq!(body[0], 4); // length of "tiny"
    let mut longer = vec![0x84, 0x00];
    longer.extend(&body[1..]);
    assert_eq!(
        Model::parse(&framed(&longer)).unwrap_err(),
        ModelError::Encoding
    );
    // Outputs of the first layer, behind name, input, count and kind.
    assert_eq!(body[5..11], [0, 1, 1, 3, 3, 1]);
    assert_eq!(body[11], 2);
    let mut longer = body[..11].to_vec();
    longer.extend([0x82, 0x00]);
    longer.extend(&body[12..]);
    assert_eq!(
        Model::parse(&framed(&longer)).unwrap_err(),
        ModelError::Encoding
    );
}

#[test]
fn names() {
    let store = Store::new();
    let named = |name| {
        write(&ModelParts {
            name,
            input: THREE,
            layers: &store.layers(),
        })
    };
    refused(named(b""), ModelError::NameLength { got: 0 });
    refused(named(&[b'a'; 33]), ModelError::NameLength { got: 33 });
    refused(named(b"ab\xff"), ModelError::NameNotUtf8 { valid: 2 });
    assert!(named(&[b'a'; 32]).is_ok());
}

#[test]
fn inputs() {
    fn taking(input: Input<'_>) -> Result<Vec<u8>, ModelError> {
        write(&ModelParts {
            name: b"tiny",
            input,
            layers: &Store::new().layers(),
        })
    }
    let image = |channels, height, width| {
        taking(Input::Image(Shape {
            channels,
            height,
            width,
        }))
    };
    let error = |dimension, got| ModelError::Dimension {
        place: Place::Input,
        dimension,
        got,
        max: MAX_VALUES,
    };
    refused(image(0, 1, 3), error(Dimension::Channels, 0));
    refused(image(1, 0, 3), error(Dimension::Height, 0));
    refused(image(1, 1, 20000), error(Dimension::Width, 20000));
    refused(image(1, 129, 128), error(Dimension::Values, 129 * 128));

    let features = |means: &[f32], deviations: &[f32]| {
        let (means, deviations) = (le(means), le(deviations));
        taking(Input::Features {
            means: Floats::new(&means),
            deviations: Floats::new(&deviations),
        })
    };
    assert!(features(&[0.0; 3], &[1.0; 3]).is_ok());
    refused(features(&[], &[]), error(Dimension::Features, 0));
    let (place, kind) = (Place::Input, FloatKind::Deviations);
    refused(
        features(&[0.0; 3], &[1.0; 2]),
        ModelError::FloatBytes {
            place,
            kind,
            expected: 12,
            got: 8,
        },
    );
    refused(
        features(&[0.0; 3], &[1.0, f32::NAN, 1.0]),
        ModelError::NotFinite {
            place,
            kind,
            index: 1,
        },
    );
    refused(
        features(&[0.0, 0.0, f32::INFINITY], &[1.0; 3]),
        ModelError::NotFinite {
            place,
            kind: FloatKind::Means,
            index: 2,
        },
    );
    refused(
        features(&[0.0; 3], &[1.0, 1.0, 0.0]),
        ModelError::Deviation { index: 2, got: 0.0 },
    );
}

#[test]
fn order_and_number_of_layers() {
    let store = Store::new();
    let [first, square, second] = store.layers();
    let counted = |got| ModelError::LayerCount {
        got,
        max: MAX_LAYERS,
    };
    refused(network(&[]), counted(0));
    let many: Vec<Layer<'_>> = core::iter::once(first).chain([second; 16]).collect();
    refused(network(&many), counted(17));
    assert!(network(&many[..16]).is_ok());
    let many: Vec<Layer<'_>> = core::iter::once(first).chain([second; 299]).collect();
    refused(network(&many), counted(300));

    let relu = Layer::Relu { range: 1.0 };
    let order = |layer| ModelError::Order { layer };
    refused(network(&[square, first]), order(0));
    refused(network(&[first, square]), order(1));
    refused(network(&[first, relu, square, second]), order(2));
}

#[test]
fn shapes_of_layers() {
    let store = Store::new();
    let [first, square, second] = store.layers();
    let error = |layer, dimension, got, max| ModelError::Dimension {
        place: Place::Layer(layer),
        dimension,
        got,
        max,
    };
    let dense = |outputs| Layer::Dense {
        outputs,
        linear: store.first(),
        range: 1.0,
    };
    let max = usize::from(u16::MAX);
    refused(network(&[dense(0)]), error(0, Dimension::Outputs, 0, max));
    refused(
        network(&[first, square, dense(16385)]),
        error(2, Dimension::Values, 16385, MAX_VALUES),
    );
    let sound = Kernel {
        out_channels: 2,
        height: 1,
        width: 3,
        stride: 1,
        padding: NONE,
    };
    let convolution = |kernel| {
        let convolution = Layer::Conv2d {
            kernel,
            linear: store.first(),
            range: 1.0,
        };
        network(&[convolution, square, second])
    };
    assert!(convolution(sound).is_ok());
    for (kernel, dimension, got, max) in [
        (
            Kernel {
                out_channels: 0,
                ..sound
            },
            Dimension::Channels,
            0,
            max,
        ),
        (Kernel { height: 2, ..sound }, Dimension::KernelHeight, 2, 1),
        (Kernel { height: 0, ..sound }, Dimension::KernelHeight, 0, 1),
        (Kernel { width: 4, ..sound }, Dimension::KernelWidth, 4, 3),
        (Kernel { stride: 0, ..sound }, Dimension::Stride, 0, 3),
        (Kernel { stride: 4, ..sound }, Dimension::Stride, 4, 3),
    ] {
        refused(convolution(kernel), error(0, dimension, got, max));
    }
    for (padding, side, got, max) in [
        (Padding { top: 1, ..NONE }, Side::Top, 1, 0),
        (Padding { bottom: 1, ..NONE }, Side::Bottom, 1, 0),
        (Padding { left: 3, ..NONE }, Side::Left, 3, 2),
        (
            Padding {
                right: u16::MAX,
                ..NONE
            },
            Side::Right,
            usize::from(u16::MAX),
            2,
        ),
    ] {
        let error = ModelError::Padding {
            layer: 0,
            side,
            got,
            max,
        };
        refused(convolution(Kernel { padding, ..sound }), error);
    }
}

#[test]
fn weights_and_biases() {
    fn with(linear: Linear<'_>) -> Result<Vec<u8>, ModelError> {
        let dense = Layer::Dense {
            outputs: 2,
            linear,
            range: 1.0,
        };
        let store = Store::new();
        let [_, square, second] = store.layers();
        network(&[dense, square, second])
    }
    let store = Store::new();
    let [first, _, second] = store.layers();
    let sound = store.first();
    refused(
        with(Linear {
            weights: Integers::Bytes(&[0; 5]),
            ..sound
        }),
        ModelError::WeightBytes {
            layer: 0,
            expected: 6,
            got: 5,
        },
    );
    refused(
        with(Linear {
            weights: Integers::Bytes(&[0, 0, 0, 128, 0, 0]),
            ..sound
        }),
        ModelError::Weight {
            layer: 0,
            index: 3,
            got: -128,
            max: 127,
        },
    );
    let halves = |wide: [i16; 6]| wide.map(i16::to_le_bytes).concat();
    let max = Integers::MAX_HALF;
    for got in [max + 1, -max - 1, i16::MIN] {
        refused(
            with(Linear {
                weights: Integers::Halves(&halves([0, max, -max, 0, got, 0])),
                ..sound
            }),
            ModelError::Weight {
                layer: 0,
                index: 4,
                got,
                max,
            },
        );
    }
    refused(
        with(Linear {
            weights: Integers::Halves(&[0; 11]),
            ..sound
        }),
        ModelError::WeightBytes {
            layer: 0,
            expected: 12,
            got: 11,
        },
    );
    refused(
        with(Linear {
            multipliers: &[1, 2, 3],
            ..sound
        }),
        ModelError::MultiplierCount {
            layer: 0,
            expected: 2,
            got: 3,
        },
    );
    refused(
        with(Linear {
            multipliers: &[7, 0],
            ..sound
        }),
        ModelError::Multiplier { layer: 0, index: 1 },
    );
    // What is refused above is at the edge of what is not.
    let edge = halves([0, max, -max, 0, 1, -1]);
    let file = with(Linear {
        weights: Integers::Halves(&edge),
        multipliers: &[1, 255],
        ..sound
    });
    let file = file.unwrap();
    let model = Model::parse(&file).unwrap();
    let linear = *model.layers().next().unwrap().layer.linear().unwrap();
    assert_eq!(linear.row(3, 1).unwrap().collect::<Vec<_>>(), [0, 1, -1]);
    assert_eq!(linear.weight(3, 0, 2), Some(-max));
    let values: Vec<f64> = linear.values(3).collect();
    let expected = [0, 32639, -32639, 0, 255, -255].map(|w| 0.5 * f64::from(w));
    assert_eq!(values, expected);
    let (place, kind) = (Place::Layer(0), FloatKind::Biases);
    refused(
        with(Linear {
            biases: Floats::new(&[0; 7]),
            ..sound
        }),
        ModelError::FloatBytes {
            place,
            kind,
            expected: 8,
            got: 7,
        },
    );
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let broken = le(&[0.0, value]);
        refused(
            with(Linear {
                biases: Floats::new(&broken),
                ..sound
            }),
            ModelError::NotFinite {
                place,
                kind,
                index: 1,
            },
        );
        let broken = le(&[0.0, value, 1.0]);
        let polynomial = Layer::Polynomial {
            coefficients: Floats::new(&broken),
            range: 1.0,
        };
        refused(
            network(&[first, polynomial, second]),
            ModelError::NotFinite {
                place: Place::Layer(1),
                kind: FloatKind::Coefficients,
                index: 1,
            },
        );
    }
    for scale in [0.0, -1.0, f32::INFINITY] {
        refused(
            with(Linear { scale, ..sound }),
            ModelError::Scale {
                layer: 0,
                got: scale,
            },
        );
    }
    // NaN is not equal to itself, so this one by pattern.
    assert!(matches!(
        with(Linear {
            scale: f32::NAN,
            ..sound
        }),
        Err(ModelError::Scale { layer: 0, .. })
    ));
}

#[test]
fn degrees_and_ranges() {
    let store = Store::new();
    let [first, square, second] = store.layers();
    for (coefficients, got, leading_zero) in [
        (vec![], 0, false),
        (vec![1.0, 2.0], 1, false),
        (vec![1.0, 2.0, 0.0], 2, true),
        (vec![1.0; 17], 16, false),
    ] {
        let coefficients = le(&coefficients);
        let polynomial = Layer::Polynomial {
            coefficients: Floats::new(&coefficients),
            range: 1.0,
        };
        refused(
            network(&[first, polynomial, second]),
            ModelError::Degree {
                layer: 1,
                got,
                leading_zero,
            },
        );
    }
    for got in [-0.5, f32::INFINITY] {
        for layer in 0..3 {
            let mut layers = [first, square, second];
            layers[layer] = layers[layer].with_range(got);
            refused(network(&layers), ModelError::Range { layer, got });
        }
    }
    assert!(matches!(
        network(&[first, square.with_range(f32::NAN), second]),
        Err(ModelError::Range { layer: 1, .. })
    ));
}

#[test]
fn a_short_output_is_left_alone() {
    let store = Store::new();
    let layers = store.layers();
    let parts = ModelParts {
        name: b"tiny",
        input: THREE,
        layers: &layers,
    };
    let needed = parts.file_len().unwrap();
    let mut out = vec![0xaa; needed - 1];
    assert_eq!(
        parts.write(&mut out).unwrap_err(),
        ModelError::OutputLength {
            needed,
            got: needed - 1
        }
    );
    assert!(out.iter().all(|&byte| byte == 0xaa));
    // A longer one is used as far as it is needed.
    let mut out = vec![0xaa; needed + 2];
    assert_eq!(parts.write(&mut out).unwrap().file().len(), needed);
    assert_eq!(out[needed..], [0xaa; 2]);
}

#[test]
fn the_head_is_three_fields() {
    // What the documentation of the format says.
    let head = Head {
        name: b"x",
        input: THREE,
        layers: 3,
    };
    let mut buffer = [0; 16];
    let bytes = postcard::to_slice(&head, &mut buffer).unwrap();
    assert_eq!(bytes, [1, b'x', 0, 1, 1, 3, 3]);
}
