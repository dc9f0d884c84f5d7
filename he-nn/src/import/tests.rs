use crate::model::{Input, Model, Sample, Shape};

use super::schema::{
    AttributeProto, DimensionProto, FLOAT, GraphProto, INT64, ModelProto, NodeProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto,
};
use super::*;
use crate::data::table::{FEATURES, SPLIT_SEED, Table};
use crate::network::{Granularity, NetworkInput, NetworkLayer};

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: FLOAT,
        float_data: values.to_vec(),
        name: name.into(),
        ..TensorProto::default()
    }
}

fn shape_tensor(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: INT64,
        int64_data: values.to_vec(),
        name: name.into(),
        ..TensorProto::default()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&name| name.to_owned()).collect(),
        output: vec![output.into()],
        name: format!("/{output}"),
        op_type: operator.into(),
        ..NodeProto::default()
    }
}

fn with(mut node: NodeProto, name: &str, ints: &[i64]) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: name.into(),
        i: ints.first().copied().unwrap_or_default(),
        ints: if ints.len() > 1 {
            ints.to_vec()
        } else {
            Vec::new()
        },
        ..AttributeProto::default()
    });
    node
}

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&dim_value: &i64| DimensionProto {
        dim_value,
        dim_param: String::new(),
    };
    let shape = TensorShapeProto {
        dim: dims.iter().map(dim).collect(),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: FLOAT,
                shape: Some(shape),
            }),
        }),
    }
}

/// A graph from `x` to `y`.
fn graph(dims: &[i64], initializer: Vec<TensorProto>, node: Vec<NodeProto>) -> GraphProto {
    GraphProto {
        node,
        name: "test".into(),
        initializer,
        input: vec![value("x", dims)],
        output: vec![value("y", &[1, 2])],
    }
}

fn bytes(graph: GraphProto) -> Vec<u8> {
    ModelProto {
        ir_version: 10,
        graph: Some(graph),
        opset_import: Vec::new(),
    }
    .encode_to_vec()
}

fn imported(graph: GraphProto) -> Result<Network<i16>, ImportError> {
    Ok(network(&bytes(graph), "test", InputKind::Pixels)?.quantized())
}

fn logits(graph: GraphProto, pixels: &[u8]) -> Vec<f64> {
    let file = imported(graph).unwrap().draft().unwrap();
    clear::logits(&Model::parse(&file).unwrap(), pixels).unwrap()
}

/// Weights that 8 bits hold: multiples of 1/127 with a largest of 1.
fn exact(count: usize) -> Vec<f32> {
    let numbers = (0..count).map(|i| ((i * 37 + 11) % 255) as f32 - 127.0);
    let mut values: Vec<f32> = numbers.map(|x| x / 127.0).collect();
    values[0] = 1.0;
    values
}

const PIXELS: [u8; 3] = [255, 51, 102];

/// A dense layer in `f64`, one row per output.
fn dense(weights: &[f32], biases: &[f32], x: &[f64]) -> Vec<f64> {
    let rows = weights.chunks(x.len()).zip(biases);
    rows.map(|(row, &bias)| {
        let terms = row.iter().zip(x).map(|(&w, x)| f64::from(w) * x);
        terms.sum::<f64>() + f64::from(bias)
    })
    .collect()
}

fn assert_close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-5, "{got} {expected}");
    }
}

fn mlp(activation: Vec<NodeProto>) -> GraphProto {
    let mut nodes = vec![with(node("Gemm", &["x", "w1", "b1"], "h"), "transB", &[1])];
    nodes.extend(activation);
    nodes.push(with(node("Gemm", &["a", "w2", "b2"], "y"), "transB", &[1]));
    let tensors = vec![
        tensor("w1", &[4, 3], &exact(12)),
        tensor("b1", &[4], &[0.5, -0.25, 0.0, 1.0]),
        tensor("w2", &[2, 4], &exact(8)),
        tensor("b2", &[2], &[1.0, -1.0]),
        tensor("two", &[], &[2.0]),
        tensor("three", &[1], &[3.0]),
        tensor("half", &[], &[0.5]),
    ];
    graph(&[1, 3], tensors, nodes)
}

/// What [`mlp`] computes with an activation.
fn mlp_in_f64(activation: impl Fn(f64) -> f64) -> Vec<f64> {
    let x = PIXELS.map(|p| f64::from(p) / 255.0);
    let h = dense(&exact(12), &[0.5, -0.25, 0.0, 1.0], &x);
    let h: Vec<f64> = h.into_iter().map(activation).collect();
    dense(&exact(8), &[1.0, -1.0], &h)
}

/// An activation in the clear.
type Clear = fn(f64) -> f64;

#[test]
fn every_way_to_write_an_activation() {
    let cases: Vec<(Vec<NodeProto>, Clear)> = vec![
        (vec![node("Mul", &["h", "h"], "a")], |x| x * x),
        (vec![node("Pow", &["h", "two"], "a")], |x| x * x),
        (vec![node("Pow", &["h", "three"], "a")], |x| x * x * x),
        // 2 x^2 + 3 x - 0.5 by products and sums.
        (
            vec![
                node("Pow", &["h", "two"], "s"),
                node("Mul", &["s", "two"], "t"),
                node("Mul", &["three", "h"], "u"),
                node("Add", &["t", "u"], "v"),
                node("Sub", &["v", "half"], "a"),
            ],
            |x| 2.0 * x * x + 3.0 * x - 0.5,
        ),
        // (2 x + 3) x / 2, as Horner has it, with a sign that cancels.
        (
            vec![
                node("Mul", &["h", "two"], "s"),
                node("Add", &["three", "s"], "t"),
                node("Mul", &["t", "h"], "u"),
                node("Neg", &["u"], "v"),
                node("Div", &["v", "two"], "w"),
                node("Neg", &["w"], "n"),
                node("Identity", &["n"], "i"),
                node("Dropout", &["i"], "a"),
            ],
            |x| (2.0 * x + 3.0) * x / 2.0,
        ),
    ];
    for (activation, f) in cases {
        let degree_two = f(3.0) - 3.0 * f(2.0) + 3.0 * f(1.0) - f(0.0) == 0.0;
        let graph = mlp(activation);
        let network = imported(graph.clone()).unwrap();
        let file = network.draft().unwrap();
        let model = Model::parse(&file).unwrap();
        // What is of degree 2 is a square in the end.
        let squares = model.layers().filter(|view| view.layer.is_square());
        assert_eq!(squares.count() == 1, degree_two && model.layer_count() == 3);
        assert_close(&logits(graph, &PIXELS), &mlp_in_f64(f));
    }
}

#[test]
fn a_cubic_activation_is_evaluated_encrypted() {
    // x + x^3 / 10.
    let mut graph = mlp(vec![
        node("Pow", &["h", "three"], "c"),
        node("Mul", &["c", "tenth"], "t"),
        node("Add", &["h", "t"], "a"),
    ]);
    graph.initializer.push(tensor("tenth", &[], &[0.1]));
    let network = imported(graph).unwrap();
    assert_eq!(
        network.layers[1],
        NetworkLayer::Polynomial(vec![0.0, 1.0, 0.0, 0.1])
    );
    let draft = network.draft().unwrap();
    let images: Vec<[u8; 3]> = (0..40u8).map(|k| [k * 6, 255 - k * 5, k ^ 77]).collect();
    let samples = images.iter().map(|image| (Sample::Pixels(image), 0));
    let measured = clear::measure(&Model::parse(&draft).unwrap(), samples).unwrap();
    let file = network.file(&measured.ranges).unwrap();
    let model = Model::parse(&file).unwrap();
    let expected = mlp_in_f64(|x| x + 0.1 * x * x * x);
    assert_close(&clear::logits(&model, &PIXELS).unwrap(), &expected);
}

#[test]
fn a_convolution_with_a_normalisation_before_it() {
    // 1x4x4, normalised; two kernels of 2x2, stride 2; square; dense to 2.
    let nodes = vec![
        node("Sub", &["x", "mean"], "centred"),
        node("Div", &["centred", "deviation"], "normal"),
        with(
            with(
                with(
                    node("Conv", &["normal", "k", "kb"], "h"),
                    "strides",
                    &[2, 2],
                ),
                "pads",
                &[0, 0, 0, 0],
            ),
            "dilations",
            &[1, 1],
        ),
        node("Mul", &["h", "h"], "s"),
        node("Reshape", &["s", "flat"], "f"),
        node("MatMul", &["f", "w"], "m"),
        node("Add", &["m", "b"], "y"),
    ];
    let weights = exact(16);
    // MatMul takes the transposed matrix.
    let transposed: Vec<f32> = (0..16).map(|i| weights[i % 2 * 8 + i / 2]).collect();
    let kernels = exact(8);
    let tensors = vec![
        tensor("mean", &[], &[0.25]),
        tensor("deviation", &[], &[0.5]),
        tensor("k", &[2, 1, 2, 2], &kernels),
        tensor("kb", &[2], &[0.5, -0.5]),
        shape_tensor("flat", &[1, -1]),
        tensor("w", &[8, 2], &transposed),
        tensor("b", &[2], &[0.5, -0.125]),
    ];
    let graph = graph(&[1, 1, 4, 4], tensors, nodes);
    let file = imported(graph.clone()).unwrap().draft().unwrap();
    let model = Model::parse(&file).unwrap();
    let shape = Shape {
        channels: 1,
        height: 4,
        width: 4,
    };
    assert_eq!(model.input(), Input::Image(shape));
    assert_eq!(model.layer_count(), 3);

    let pixels: Vec<u8> = (0..16).map(|i| (i * 97 % 256) as u8).collect();
    let at = |y: usize, x: usize| (f64::from(pixels[y * 4 + x]) / 255.0 - 0.25) / 0.5;
    let mut h = Vec::new();
    for (kernel, bias) in kernels.chunks(4).zip([0.5, -0.5]) {
        for (y, x) in [(0, 0), (0, 2), (2, 0), (2, 2)] {
            let window = [at(y, x), at(y, x + 1), at(y + 1, x), at(y + 1, x + 1)];
            let sum = dense(kernel, &[bias], &window)[0];
            h.push(sum * sum);
        }
    }
    let expected = dense(&weights, &[0.5, -0.125], &h);
    assert_close(&logits(graph, &pixels), &expected);
}

/// Sets a convolution's automatic padding.
fn automatically(mut node: NodeProto, kind: &[u8]) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: "auto_pad".into(),
        s: kind.to_vec(),
        ..AttributeProto::default()
    });
    node
}

#[test]
fn padded_convolutions() {
    // 1x4x5, a kernel of 3x2 with stride 2, and what lies above, to the left, below
    // and to the right: of 4 rows by `SAME` one in all, of 5 columns one.
    type Case<'a> = (&'a [u8], &'a [i64], [usize; 4]);
    let cases: [Case<'_>; 6] = [
        (b"", &[0, 0, 0, 0], [0, 0, 0, 0]),
        (b"NOTSET", &[1, 0, 2, 1], [1, 0, 2, 1]),
        (b"NOTSET", &[2, 1, 1, 0], [2, 1, 1, 0]),
        (b"VALID", &[], [0, 0, 0, 0]),
        (b"SAME_UPPER", &[], [0, 0, 1, 1]),
        (b"SAME_LOWER", &[], [1, 1, 0, 0]),
    ];
    let pixels: Vec<u8> = (0..20).map(|i| (i * 97 % 256) as u8).collect();
    for (automatic, pads, [top, left, bottom, right]) in cases {
        let (rows, columns) = (4 + top + bottom, 5 + left + right);
        let (rows, columns) = ((rows - 3) / 2 + 1, (columns - 2) / 2 + 1);
        let places = rows * columns;
        let convolution = with(node("Conv", &["x", "k", "kb"], "h"), "strides", &[2, 2]);
        let mut convolution = automatically(convolution, automatic);
        if !pads.is_empty() {
            convolution = with(convolution, "pads", pads);
        }
        let nodes = vec![
            convolution,
            node("Mul", &["h", "h"], "s"),
            node("Flatten", &["s"], "f"),
            with(node("Gemm", &["f", "w"], "y"), "transB", &[1]),
        ];
        let (kernel, weights) = (exact(6), exact(2 * places));
        let tensors = vec![
            tensor("k", &[1, 1, 3, 2], &kernel),
            tensor("kb", &[1], &[0.5]),
            tensor("w", &[2, places as i64], &weights),
        ];
        let at = |y: usize, x: usize| {
            let inside = y.checked_sub(top).zip(x.checked_sub(left));
            let inside = inside.filter(|&(y, x)| y < 4 && x < 5);
            inside.map_or(0.0, |(y, x)| f64::from(pixels[y * 5 + x]) / 255.0)
        };
        let h: Vec<f64> = (0..places)
            .map(|place| {
                let (y, x) = (2 * (place / columns), 2 * (place % columns));
                let window: Vec<f64> = (0..6).map(|i| at(y + i / 2, x + i % 2)).collect();
                dense(&kernel, &[0.5], &window)[0].powi(2)
            })
            .collect();
        let graph = graph(&[1, 1, 4, 5], tensors, nodes);
        let expected = dense(&weights, &[0.0, 0.0], &h);
        assert_close(&logits(graph, &pixels), &expected);
    }
}

#[test]
fn padding_has_no_part_in_a_constant() {
    // A constant before a padded convolution goes into the biases of a layer before it;
    // where it is added to the input, places at the border differ and the layer is dense.
    let build = |first: NodeProto| {
        let nodes = vec![
            first,
            node("Add", &["h", "half"], "a"),
            with(
                with(node("Conv", &["a", "k"], "c"), "strides", &[1, 1]),
                "pads",
                &[0, 1, 0, 1],
            ),
            node("Flatten", &["c"], "f"),
            with(node("Gemm", &["f", "w"], "y"), "transB", &[1]),
        ];
        let tensors = vec![
            tensor("one", &[1, 1, 1, 1], &[1.0]),
            tensor("half", &[], &[0.5]),
            tensor("k", &[1, 1, 1, 2], &exact(2)),
            tensor("w", &[2, 4], &exact(8)),
        ];
        graph(&[1, 1, 1, 3], tensors, nodes)
    };
    let bare = build(node("Identity", &["x"], "h"));
    let layers = imported(bare.clone()).unwrap().layers;
    assert!(matches!(
        layers[..],
        [NetworkLayer::Dense(_), NetworkLayer::Dense(_)]
    ));
    let graph = build(node("Conv", &["x", "one"], "h"));
    let layers = imported(graph.clone()).unwrap().layers;
    assert!(matches!(layers[1], NetworkLayer::Conv2d(..)));
    let x = PIXELS.map(|p| f64::from(p) / 255.0 + 0.5);
    let framed = [0.0, x[0], x[1], x[2], 0.0];
    let h: Vec<f64> = framed
        .windows(2)
        .map(|window| dense(&exact(2), &[0.0], window)[0])
        .collect();
    let expected = dense(&exact(8), &[0.0, 0.0], &h);
    assert_close(&logits(graph, &PIXELS), &expected);
    assert_close(&logits(bare, &PIXELS), &expected);
}

#[test]
fn a_constant_a_channel() {
    let nodes = vec![
        node("Conv", &["x", "k"], "c"),
        node("Add", &["c", "kb"], "h"),
        node("Pow", &["h", "two"], "s"),
        node("Flatten", &["s"], "f"),
        node("Gemm", &["f", "w"], "m"),
        node("Mul", &["m", "two"], "y"),
    ];
    let tensors = vec![
        tensor("k", &[2, 1, 1, 2], &exact(4)),
        tensor("kb", &[1, 2, 1, 1], &[0.5, -0.5]),
        tensor("two", &[], &[2.0]),
        tensor("w", &[4, 1], &exact(4)),
    ];
    let x = PIXELS.map(|p| f64::from(p) / 255.0);
    let k = exact(4);
    let mut h = Vec::new();
    for (kernel, bias) in k.chunks(2).zip([0.5, -0.5]) {
        h.extend(x.windows(2).map(|w| dense(kernel, &[bias], w)[0].powi(2)));
    }
    let expected: Vec<f64> = dense(&exact(4), &[0.0], &h)
        .iter()
        .map(|y| 2.0 * y)
        .collect();
    assert_close(
        &logits(graph(&[1, 1, 1, 3], tensors, nodes), &PIXELS),
        &expected,
    );
}

#[test]
fn numbers_in_any_form() {
    let plain = mlp(vec![node("Mul", &["h", "h"], "a")]);
    let expected = logits(plain.clone(), &PIXELS);
    let mut raw = plain.clone();
    for tensor in &mut raw.initializer {
        let numbers = std::mem::take(&mut tensor.float_data);
        tensor.raw_data = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    }
    assert_eq!(logits(raw, &PIXELS), expected);
    let mut double = plain.clone();
    for tensor in &mut double.initializer {
        tensor.data_type = schema::DOUBLE;
        let numbers = std::mem::take(&mut tensor.float_data);
        tensor.double_data = numbers.into_iter().map(f64::from).collect();
    }
    assert_eq!(logits(double, &PIXELS), expected);
    // Old files list the weights among the inputs, others have them as nodes.
    let mut listed = plain.clone();
    listed.input.push(value("w1", &[4, 3]));
    assert_eq!(logits(listed, &PIXELS), expected);
    let mut nodes = plain;
    let constant = nodes.initializer.remove(0);
    let mut node = node("Constant", &[], "w1");
    node.attribute.push(AttributeProto {
        name: "value".into(),
        t: Some(constant),
        ..AttributeProto::default()
    });
    nodes.node.insert(0, node);
    assert_eq!(logits(nodes, &PIXELS), expected);
}

#[test]
fn features_of_a_table() {
    let nodes = vec![node("Gemm", &["x", "w", "b"], "y")];
    let tensors = vec![tensor("w", &[8, 1], &exact(8)), tensor("b", &[1], &[0.5])];
    let bytes = bytes(graph(&[1, 8], tensors, nodes));
    let network = network(&bytes, "table", InputKind::Features).unwrap();
    let file = network.quantized().draft().unwrap();
    let model = Model::parse(&file).unwrap();
    let row = [1.0f32, -2.0, 0.5, 10.0, 0.0, 3.0, 7.0, -1.0];
    let expected = dense(&exact(8), &[0.5], &row.map(f64::from));
    assert_close(&clear::logits(&model, &row[..]).unwrap(), &expected);
}

/// Rows of large features far from zero, the fourth of them constant.
fn drawn_table(rows: usize) -> Table {
    let mut state = 1u32;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 65536.0 - 0.5
    };
    const CENTRES: [f32; FEATURES] = [1.2e4, -3e3, 8e3, 35.0, 1e4, 0.0, -7.5e3, 2e4];
    const WIDTHS: [f32; FEATURES] = [2e3, 900.0, 3e3, 0.0, 2e3, 1e3, 1.5e3, 4e3];
    let rows: Vec<[f32; FEATURES]> = (0..rows)
        .map(|_| std::array::from_fn(|i| CENTRES[i] + WIDTHS[i] * draw()))
        .collect();
    let labels = rows.iter().map(|row| u8::from(row[0] > 1.2e4)).collect();
    Table { rows, labels }
}

#[test]
fn features_are_standardised_by_the_table() {
    let directory = tempfile::tempdir().unwrap();
    let table = drawn_table(200);
    let lines = table.rows.iter().zip(&table.labels).map(|(row, label)| {
        let fields: Vec<String> = row.iter().map(f32::to_string).collect();
        format!("{},{label}\n", fields.join(","))
    });
    std::fs::write(
        directory.path().join("diabetes.csv"),
        lines.collect::<String>(),
    )
    .unwrap();
    let (train, test) = table.split(SPLIT_SEED);
    let (means, deviations) = train.standard();
    assert_eq!(deviations[3], 1.0);

    // As a network trained on features as they are may be: what its weights take
    // from them is within a few units, and the biases take out the means.
    let (hidden, second) = (6, exact(6));
    let first: Vec<f32> = (exact(hidden * FEATURES).iter().enumerate())
        .map(|(i, w)| w / (2.0 * deviations[i % FEATURES].max(200.0)))
        .collect();
    let of_means: Vec<f64> = means.iter().map(|&m| f64::from(m)).collect();
    let biases: Vec<f32> = dense(&first, &vec![0.0; hidden], &of_means)
        .iter()
        .map(|sum| 0.25 - *sum as f32)
        .collect();
    let nodes = vec![
        with(node("Gemm", &["x", "w1", "b1"], "h"), "transB", &[1]),
        node("Mul", &["h", "h"], "a"),
        with(node("Gemm", &["a", "w2", "b2"], "y"), "transB", &[1]),
    ];
    let (rows, columns) = (hidden as i64, FEATURES as i64);
    let tensors = vec![
        tensor("w1", &[rows, columns], &first),
        tensor("b1", &[rows], &biases),
        tensor("w2", &[1, rows], &second),
        tensor("b2", &[1], &[-1.0]),
    ];
    let onnx = directory.path().join("features.onnx");
    std::fs::write(&onnx, bytes(graph(&[1, columns], tensors, nodes))).unwrap();
    let choice = Choice::default();
    let imported = import(
        &onnx,
        "features",
        directory.path(),
        &choice,
        Wanted::default(),
    )
    .unwrap();
    // Rounded otherwise where that is wanted.
    let wanted = Wanted {
        quantization: Quantization::new(4, Granularity::Channel).unwrap(),
        ..Wanted::default()
    };
    let four = import(&onnx, "features", directory.path(), &choice, wanted).unwrap();
    for view in Model::parse(&four.calibrated.file).unwrap().layers() {
        let Some(linear) = view.layer.linear() else {
            continue;
        };
        // A row alone has the layer's scale.
        let rows = linear.biases.len();
        assert_eq!(linear.multipliers.len(), if rows > 1 { rows } else { 0 });
        assert_eq!(linear.weights.iter().map(i16::abs).max(), Some(7));
    }
    assert_eq!(imported.form, Form::Features(FEATURES));
    let model = Model::parse(&imported.calibrated.file).unwrap();
    let Input::Features {
        means: stored_means,
        deviations: stored_deviations,
    } = model.input()
    else {
        panic!("{:?}", model.input());
    };
    assert!(stored_means.iter().eq(means));
    assert!(stored_deviations.iter().eq(deviations));

    // In the clear: as the original, but for the rounding of weights to 8 bits of
    // the largest of their layer.
    let step = |largest: f32| f64::from(largest) / 254.0;
    let largest = first.iter().enumerate();
    let largest = largest.map(|(i, w)| (w * deviations[i % FEATURES]).abs());
    let (first_step, second_step) = (step(largest.fold(0.0, f32::max)), step(1.0));
    for row in &test.rows {
        let x = row.map(f64::from);
        let h = dense(&first, &biases, &x);
        let squares: Vec<f64> = h.iter().map(|h| h * h).collect();
        let expected = dense(&second, &[-1.0], &squares);
        let standard = (0..FEATURES).map(|i| (x[i] - of_means[i]) / f64::from(deviations[i]));
        let of_first = first_step * standard.map(f64::abs).sum::<f64>();
        let allowed: f64 = (h.iter().zip(&second))
            .map(|(h, &w)| {
                let of_square = (2.0 * h.abs() + of_first) * of_first;
                f64::from(w.abs()) * of_square + second_step * (h * h + of_square)
            })
            .sum();
        let logits = clear::logits(&model, &row[..]).unwrap();
        let error = (logits[0] - expected[0]).abs();
        // Biases in single precision, beside large sums.
        assert!(error < allowed + 0.01, "{logits:?} {expected:?} {allowed}");
        assert!(allowed < 0.5, "{allowed}");
    }
}

#[test]
fn features_that_the_table_does_not_have() {
    let nodes = vec![node("Gemm", &["x", "w"], "y")];
    let bytes = bytes(graph(&[1, 5], vec![tensor("w", &[5, 1], &exact(5))], nodes));
    let mut network = network(&bytes, "five", InputKind::Features).unwrap();
    assert_eq!(
        network.input,
        NetworkInput::Features {
            means: vec![0.0; 5],
            deviations: vec![1.0; 5],
        }
    );
    let (means, deviations) = drawn_table(10).standard();
    let error = network.standardise(&means, &deviations).unwrap_err();
    let error = ImportError::from(error).to_string();
    assert!(
        error.contains("has 8 values and the model takes 5"),
        "{error}"
    );
}

/// Refused in one line that says `reason`.
fn refused(graph: GraphProto, reason: &str) {
    let file = imported(graph).and_then(|network| Ok(network.draft()?));
    let error = file.unwrap_err().to_string();
    assert!(error.contains(reason), "{error}");
    assert!(!error.contains('\n') && error.len() > 20, "{error}");
}

#[test]
fn operators_that_cannot_be_imported_are_named() {
    let square = || vec![node("Mul", &["h", "h"], "a")];
    refused(
        mlp(vec![node("Relu", &["h"], "a")]),
        "the operator Relu of node \"/a\"",
    );
    refused(mlp(vec![node("Pow", &["h", "half"], "a")]), "exponent");
    refused(mlp(vec![node("Mul", &["h", "lost"], "a")]), "\"lost\"");
    refused(mlp(vec![node("Mul", &["h"], "a")]), "no input 1");
    refused(
        mlp(vec![
            node("Pow", &["h", "three"], "c"),
            node("Pow", &["c", "three"], "d"),
            node("Pow", &["d", "two"], "a"),
        ]),
        "degree 18",
    );
    let mut unnamed = mlp(vec![node("Sigmoid", &["h"], "a")]);
    unnamed.node[1].name.clear();
    refused(unnamed, "the operator Sigmoid of node \"a\"");
    let mut hostile = mlp(vec![node("Lost\n\x1b[2J\u{7f}", &["h"], "a")]);
    hostile.node[1].name = "{\n".repeat(1000);
    refused(hostile, "the operator Lost??[2J? of node \"????");
    let mut foreign = mlp(square());
    foreign.node[0].domain = "com.example".into();
    refused(foreign, "com.example");
    let mut skip = mlp(square());
    skip.node.insert(2, node("Add", &["a", "x"], "q"));
    refused(skip, "data of the shapes [4] and [3]");
    let mut across = mlp(square());
    across.node[2] = node("Add", &["a", "h"], "q");
    across
        .node
        .push(with(node("Gemm", &["a", "w4"], "b"), "transB", &[1]));
    across.node.push(node("Add", &["b", "h"], "c"));
    across
        .node
        .push(with(node("Gemm", &["c", "w2"], "y"), "transB", &[1]));
    across.initializer.push(tensor("w4", &[4, 4], &exact(16)));
    refused(across, "a skip connection across an activation");
    let gate = mlp(vec![
        with(node("Gemm", &["x", "w1"], "g"), "transB", &[1]),
        node("Mul", &["h", "g"], "a"),
    ]);
    refused(gate, "two different layers");
    let mut transposed = mlp(square());
    transposed.node[0] = with(transposed.node[0].clone(), "transA", &[1]);
    refused(transposed, "transA");
    let mut unused = mlp(square());
    unused.output[0].name = "w1".into();
    refused(unused, "not computed from the input");
    let mut many = mlp(square());
    many.node
        .extend((0..600).map(|i| node("Neg", &["h"], &format!("n{i}"))));
    refused(many, "603 operators");
}

#[test]
fn convolutions_that_cannot_be_imported_are_named() {
    let convolution = |attribute: &str, ints: &[i64]| {
        let nodes = vec![
            with(node("Conv", &["x", "k"], "c"), attribute, ints),
            node("Flatten", &["c"], "f"),
            node("Gemm", &["f", "w"], "y"),
        ];
        let tensors = vec![
            tensor("k", &[1, 1, 2, 2], &exact(4)),
            tensor("w", &[9, 2], &exact(18)),
        ];
        graph(&[1, 1, 4, 4], tensors, nodes)
    };
    assert!(imported(convolution("pads", &[0, 0, 0, 0])).is_ok());
    // 5x5 places where the dense layer takes 3x3.
    refused(convolution("pads", &[1, 1, 1, 1]), "take 9 values");
    refused(convolution("pads", &[1, 1]), "its pads are [1, 1]");
    refused(
        convolution("pads", &[0, 0, -1, 0]),
        "its pads are [0, 0, -1, 0]",
    );
    refused(
        convolution("pads", &[0, 2, 0, 0]),
        "the kernel's 2 rows and 2 columns",
    );
    refused(convolution("pads", &[0, 0, 0, 1 << 40]), "its pads are");
    let automatic = |kind: &[u8], attribute, ints: &[i64]| {
        let mut graph = convolution(attribute, ints);
        graph.node[0] = automatically(graph.node[0].clone(), kind);
        graph
    };
    assert!(imported(automatic(b"VALID", "group", &[1])).is_ok());
    refused(
        automatic(b"SAME", "group", &[1]),
        "its auto_pad is \"SAME\"",
    );
    refused(
        automatic(b"SAME_UPPER", "pads", &[0, 0, 1, 1]),
        "an auto_pad and pads of [0, 0, 1, 1]",
    );
    refused(convolution("group", &[2]), "in 2 groups do not fit");
    refused(convolution("dilations", &[0, 2]), "dilations are [0, 2]");
    refused(convolution("strides", &[1, 2]), "take 9 values");
    refused(convolution("strides", &[0, 0]), "strides are [0, 0]");
    refused(convolution("strides", &[3, 3]), "take 9 values");
    let mut large = convolution("group", &[1]);
    large.initializer[0] = tensor("k", &[1, 1, 5, 1], &exact(5));
    refused(large, "of 5x1 places do not fit data of 4x4");
}

#[test]
fn wrong_numbers_and_shapes_are_named() {
    let sound = || mlp(vec![node("Mul", &["h", "h"], "a")]);
    for value in [f32::NAN, f32::INFINITY] {
        let mut broken = sound();
        broken.initializer[0].float_data[7] = value;
        refused(broken, "\"w1\" cannot be used: number 7");
    }
    let mut short = sound();
    short.initializer[0].float_data.pop();
    refused(short, "holds 11 numbers");
    let mut negative = sound();
    negative.initializer[0].dims = vec![-4, -3];
    refused(negative, "negative");
    let mut huge = sound();
    huge.initializer[0].dims = vec![i64::MAX, i64::MAX];
    refused(huge, "holds 12 numbers");
    let mut narrow = sound();
    narrow.initializer[0].dims = vec![3, 4];
    refused(narrow, "take 4 values");
    let mut biases = sound();
    biases.initializer[1] = tensor("b1", &[3], &[0.0; 3]);
    refused(biases, "3 biases for 4 outputs");
    let mut half = sound();
    half.initializer[0].data_type = 10;
    refused(half, "data type is number 10");
    let mut external = sound();
    external.initializer[0].data_location = 1;
    refused(external, "in another file");
    let mut unknown = sound();
    unknown.input[0] = value("x", &[1, 0]);
    refused(unknown, "the input \"x\"");
    let mut untyped = sound();
    untyped.input[0].r#type = None;
    refused(untyped, "the input \"x\"");
    let mut two = sound();
    two.input.push(value("z", &[1, 3]));
    refused(two, "2 inputs");
    let mut tiny = sound();
    tiny.initializer[0].float_data = vec![0.0; 12];
    tiny.initializer[4].float_data = vec![0.0];
    assert!(imported(tiny).is_ok());
    let mut wide = sound();
    wide.initializer[0] = tensor("w1", &[20000, 3], &vec![0.5; 60000]);
    wide.initializer[1] = tensor("b1", &[1], &[0.0]);
    wide.initializer[2] = tensor("w2", &[2, 20000], &vec![0.5; 40000]);
    refused(wide, "20000 values in all");
}

#[test]
fn files_that_are_none() {
    let sound = bytes(mlp(vec![node("Mul", &["h", "h"], "a")]));
    assert!(network(&sound, "sound", InputKind::Pixels).is_ok());
    let refused = |bytes: &[u8]| {
        let error = match network(bytes, "cut", InputKind::Pixels) {
            Ok(network) => network.quantized().draft().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(!error.contains('\n') && error.len() > 20, "{error}");
    };
    for len in 0..sound.len() {
        // A cut at the end of a message leaves a sound one with less in it.
        refused(&sound[..len]);
    }
    refused(b"this is no model\n");
    refused(&[0; 64]);
    for index in 0..sound.len() {
        for bit in 0..8 {
            let mut damaged = sound.clone();
            damaged[index] ^= 1 << bit;
            // Many still say something sound; none may panic.
            if let Ok(network) = network(&damaged, "damaged", InputKind::Pixels) {
                let _ = network.quantized().draft();
            }
        }
    }
}

#[test]
fn an_activation_at_either_end_has_a_layer_of_its_own() {
    let mut end = mlp(vec![node("Mul", &["h", "h"], "a")]);
    end.node.push(node("Mul", &["y", "y"], "z"));
    end.output[0].name = "z".into();
    let expected: Vec<f64> = mlp_in_f64(|x| x * x).iter().map(|y| y * y).collect();
    assert_close(&logits(end, &PIXELS), &expected);
    // Of all pixels, by a convolution of one place.
    let nodes = vec![
        node("Mul", &["x", "x"], "s"),
        with(node("Gemm", &["s", "w"], "y"), "transB", &[1]),
    ];
    let start = graph(&[1, 3], vec![tensor("w", &[2, 3], &exact(6))], nodes);
    let layers = imported(start.clone()).unwrap().layers;
    assert!(matches!(&layers[0], NetworkLayer::Conv2d(kernel, _) if kernel.width == 1));
    let x = PIXELS.map(|p| (f64::from(p) / 255.0).powi(2));
    assert_close(&logits(start, &PIXELS), &dense(&exact(6), &[0.0, 0.0], &x));
}

#[test]
fn activations_are_known_however_they_are_written() {
    let one = |operator: &str| vec![node(operator, &["h"], "a")];
    let cases: Vec<(Vec<NodeProto>, Clear)> = vec![
        (one("Relu"), |x| x.max(0.0)),
        (one("Sigmoid"), |x| 1.0 / (1.0 + (-x).exp())),
        (one("Tanh"), f64::tanh),
        (one("Softplus"), |x| x.exp().ln_1p()),
        // SiLU.
        (
            vec![node("Sigmoid", &["h"], "g"), node("Mul", &["h", "g"], "a")],
            |x| x / (1.0 + (-x).exp()),
        ),
        // GELU, as PyTorch exports it.
        (
            vec![
                node("Div", &["h", "root"], "d"),
                node("Erf", &["d"], "e"),
                node("Add", &["e", "one"], "f"),
                node("Mul", &["h", "f"], "g"),
                node("Mul", &["g", "half"], "a"),
            ],
            |x| x * 0.5 * (1.0 + libm::erf(x / 2f64.sqrt())),
        ),
        // ReLU6.
        (vec![node("Clip", &["h", "zero", "six"], "a")], |x| {
            x.clamp(0.0, 6.0)
        }),
    ];
    for (activation, f) in cases {
        let mut graph = mlp(activation);
        for (name, number) in [
            ("root", 2f32.sqrt()),
            ("one", 1.0),
            ("zero", 0.0),
            ("six", 6.0),
        ] {
            graph.initializer.push(tensor(name, &[], &[number]));
        }
        let sentence = imported(graph.clone()).unwrap_err().to_string();
        assert!(sentence.contains("--fit-activations"), "{sentence}");
        let kept = graph::network(&graph, "kept", InputKind::Pixels, None, true).unwrap();
        let [_, emit::Part::Activation(function), _] = &kept.parts[..] else {
            panic!("{kept:?}");
        };
        for x in [-8.0, -1.5, -0.1, 0.0, 0.3, 2.0, 7.0] {
            assert!((function.at(x) - f(x)).abs() < 1e-6, "{function:?} {x}");
        }
    }
    // At the end it is left out: what is largest stays so.
    let mut end = mlp(vec![node("Mul", &["h", "h"], "a")]);
    end.node.push(node("Sigmoid", &["y"], "z"));
    end.output[0].name = "z".into();
    assert_close(&logits(end, &PIXELS), &mlp_in_f64(|x| x * x));
}

/// The probability of a class as a single logit gives it, the other's, and both joined.
fn of_one_logit(order: [&str; 2]) -> GraphProto {
    let nodes = vec![
        with(node("Gemm", &["x", "w", "b"], "z"), "transB", &[1]),
        node("Sigmoid", &["z"], "p"),
        node("Sub", &["one", "p"], "q"),
        with(node("Concat", &order, "y"), "axis", &[1]),
    ];
    let tensors = vec![
        tensor("w", &[1, 3], &exact(3)),
        tensor("b", &[1], &[0.5]),
        tensor("one", &[], &[1.0]),
    ];
    graph(&[1, 3], tensors, nodes)
}

#[test]
fn two_classes_of_one_logit_are_in_order() {
    let x = PIXELS.map(|p| f64::from(p) / 255.0);
    let expected = dense(&exact(3), &[0.5], &x);
    assert_close(&logits(of_one_logit(["q", "p"]), &PIXELS), &expected);
    refused(of_one_logit(["p", "q"]), "whose sign does not tell");
    refused(of_one_logit(["p", "p"]), "whose sign does not tell");
    let ended = |order, operator: &str| {
        let mut graph = of_one_logit(order);
        let mut end = node(operator, &["y"], "end");
        if operator == "ZipMap" {
            end.domain = "ai.onnx.ml".into();
        }
        graph.node.push(end);
        graph.output[0].name = "end".into();
        graph
    };
    for operator in ["ArgMax", "ZipMap"] {
        assert_close(&logits(ended(["q", "p"], operator), &PIXELS), &expected);
        refused(ended(["p", "q"], operator), "whose sign does not tell");
    }
}

#[test]
fn labels_in_another_order_are_refused() {
    let zipped = |name: &str, ints: &[i64], strings: &[&str]| {
        let mut graph = of_one_logit(["q", "p"]);
        let mut end = node("ZipMap", &["y"], "end");
        end.domain = "ai.onnx.ml".into();
        end.attribute.push(AttributeProto {
            name: name.into(),
            ints: ints.to_vec(),
            strings: strings.iter().map(|s| s.as_bytes().to_vec()).collect(),
            ..AttributeProto::default()
        });
        graph.node.push(end);
        graph.output[0].name = "end".into();
        graph
    };
    let numbers = |ints: &[i64]| zipped("classlabels_int64s", ints, &[]);
    let texts = |strings: &[&str]| zipped("classlabels_strings", &[], strings);
    for sound in [
        numbers(&[-1, 10]),
        texts(&["cat", "dog"]),
        texts(&["2", "9"]),
    ] {
        assert!(imported(sound).is_ok());
    }
    for turned in [numbers(&[1, 0]), numbers(&[1, 1])] {
        refused(turned, "its classlabels_int64s are not in ascending order");
    }
    // Text is in the order of bytes, and of numbers where all are.
    for turned in [["dog", "cat"], ["10", "9"], ["9", "10"]] {
        refused(
            texts(&turned),
            "its classlabels_strings are not in ascending order",
        );
    }
    let mut encoder = zipped("values_int64s", &[1, 0], &[]);
    encoder.node.last_mut().unwrap().op_type = "LabelEncoder".into();
    refused(encoder, "its values_int64s are not");
}

#[test]
fn an_average_counts_no_place_beyond_the_padding() {
    // Of three places and one in front, windows of two by two steps, the last of which
    // reaches beyond.
    let average = |pads: &[i64], with_padding: i64| {
        let mut pool = node("AveragePool", &["x"], "a");
        for (name, ints) in [
            ("kernel_shape", &[1, 2][..]),
            ("strides", &[1, 2]),
            ("pads", pads),
        ] {
            pool = with(pool, name, ints);
        }
        pool = with(pool, "ceil_mode", &[1]);
        pool = with(pool, "count_include_pad", &[with_padding]);
        let nodes = vec![pool, node("Flatten", &["a"], "y")];
        logits(graph(&[1, 1, 1, 3], Vec::new(), nodes), &PIXELS)
    };
    let x = PIXELS.map(|p| f64::from(p) / 255.0);
    let close = |got: &[f64], expected: &[f64]| {
        assert_eq!(got.len(), expected.len());
        // Weights of 8 bits.
        let fits = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.005);
        assert!(fits, "{got:?} {expected:?}");
    };
    let first = f64::midpoint(x[0], x[1]);
    close(&average(&[0, 0, 0, 0], 1), &[first, x[2]]);
    close(&average(&[0, 0, 0, 1], 1), &[first, x[2] / 2.0]);
    close(&average(&[0, 0, 0, 1], 0), &[first, x[2]]);
    close(
        &average(&[0, 1, 0, 0], 1),
        &[x[0] / 2.0, f64::midpoint(x[1], x[2])],
    );
}

#[test]
fn a_rectifier_is_replaced_by_polynomials_that_keep_the_labels() {
    let directory = tempfile::tempdir().unwrap();
    // Inside or outside of a ring, by eight rectifiers.
    let mut state = 3u32;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as f32 / 32768.0 - 1.0
    };
    let rows: Vec<[f32; 2]> = (0..600).map(|_| [draw(), draw()]).collect();
    let directions: Vec<[f32; 2]> = (0..8)
        .map(|k| (k as f32 * std::f32::consts::FRAC_PI_4).sin_cos().into())
        .collect();
    let outside = |[x, y]: [f32; 2]| -> f32 {
        let lifted = directions
            .iter()
            .map(|[a, b]| (a * x + b * y - 0.1).max(0.0));
        lifted.sum::<f32>() - 1.0
    };
    let lines = rows.iter().map(|&row| {
        let label = u8::from(outside(row) > 0.0);
        format!("{},{},{label}\n", row[0], row[1])
    });
    let data = directory.path().join("ring.csv");
    std::fs::write(&data, lines.collect::<String>()).unwrap();
    let nodes = vec![
        with(node("Gemm", &["x", "w1", "b1"], "h"), "transB", &[1]),
        node("Relu", &["h"], "a"),
        with(node("Gemm", &["a", "w2", "b2"], "y"), "transB", &[1]),
    ];
    let tensors = vec![
        tensor("w1", &[8, 2], directions.as_flattened()),
        tensor("b1", &[8], &[-0.1; 8]),
        tensor("w2", &[1, 8], &[1.0; 8]),
        tensor("b2", &[1], &[-1.0]),
    ];
    let onnx = directory.path().join("ring.onnx");
    std::fs::write(&onnx, bytes(graph(&[1, 2], tensors, nodes))).unwrap();
    let choice = Choice::default();
    let fitted = |degree| {
        let wanted = Wanted {
            degree: Some(degree),
            ..Wanted::default()
        };
        import(&onnx, "ring", &data, &choice, wanted).unwrap()
    };
    assert!(import(&onnx, "ring", &data, &choice, Wanted::default()).is_err());
    for degree in [Degree::Fixed(2), Degree::Fixed(5), Degree::Auto] {
        let made = fitted(degree);
        let replaced = made.replaced.unwrap();
        assert_eq!(replaced.accuracy, 1.0);
        let [activation] = &replaced.activations[..] else {
            panic!("{replaced:?}");
        };
        assert_eq!(
            (&activation.operator[..], &activation.node[..]),
            ("Relu", "/a")
        );
        assert!(
            activation.distilled && activation.error < 0.1,
            "{activation:?}"
        );
        let degree = activation.coefficients.len() - 1;
        assert!([2, 3, 5, 7].contains(&degree), "{degree}");
        assert!(activation.accuracy > 0.97, "{activation:?}");
        assert!(
            made.calibrated.test.accuracy() > 0.96,
            "{:?}",
            made.calibrated.test
        );
    }
}

/// Files of every kind of operator, each byte damaged: whatever it then says, nothing
/// panics or takes long.
#[test]
fn damaged_files_of_other_programs() {
    let files: [&[u8]; 7] = [
        include_bytes!("../../../tests/vectors/onnx/models/average-pool-padded.onnx"),
        include_bytes!("../../../tests/vectors/onnx/models/breast-cancer-perceptron.onnx"),
        include_bytes!("../../../tests/vectors/onnx/models/inception.onnx"),
        include_bytes!("../../../tests/vectors/onnx/models/pad.onnx"),
        include_bytes!("../../../tests/vectors/onnx/models/shape-of-the-batch.onnx"),
        include_bytes!("../../../tests/vectors/onnx/models/slices.onnx"),
        include_bytes!("../../../tests/vectors/onnx/models/wine-pca.onnx"),
    ];
    for file in files {
        for index in 0..file.len() {
            let mut damaged = file.to_vec();
            damaged[index] ^= 1 << (index % 8);
            for kind in [InputKind::Pixels, InputKind::Features] {
                if let Ok(network) = network(&damaged, "damaged", kind) {
                    let _ = network.quantized().draft();
                }
            }
        }
    }
}

const fn kind(layer: &NetworkLayer<i16>) -> &'static str {
    match layer {
        NetworkLayer::Conv2d(..) => "Conv2d",
        NetworkLayer::Dense(_) => "Dense",
        NetworkLayer::Polynomial(_) => "Polynomial",
        NetworkLayer::Relu => "Relu",
    }
}

#[test]
fn files_by_another_program() {
    // Made by `tests/vectors/onnx/make.py` with the `onnx` package, which also
    // computed the logits.
    type Expected = (&'static [u8], &'static [&'static str], [f64; 3]);
    let files: [Expected; 3] = [
        (
            include_bytes!("../../../tests/vectors/onnx/conv.onnx"),
            &["Conv2d", "Polynomial", "Dense"],
            [0.561_107_456_7, -0.812_495_529_7, 1.628_517_746_9],
        ),
        (
            include_bytes!("../../../tests/vectors/onnx/dense.onnx"),
            &["Dense", "Polynomial", "Dense"],
            [-0.491_113_722_3, -0.510_923_743_2, 0.517_165_303_2],
        ),
        (
            include_bytes!("../../../tests/vectors/onnx/padded.onnx"),
            &[
                "Conv2d",
                "Polynomial",
                "Conv2d",
                "Conv2d",
                "Polynomial",
                "Dense",
            ],
            [-5.890_388_011_9, -0.521_720_409_3, -1.889_668_107_0],
        ),
    ];
    for (file, kinds, expected) in files {
        let network = network(file, "foreign", InputKind::Pixels);
        let network = network.unwrap().quantized();
        let got: Vec<&str> = network.layers.iter().map(kind).collect();
        assert_eq!(got, kinds);
        let file = network.draft().unwrap();
        let model = Model::parse(&file).unwrap();
        let pixels: Vec<u8> = (0..model.inputs()).map(|i| (i * 53 % 256) as u8).collect();
        let logits = clear::logits(&model, &pixels[..]).unwrap();
        let largest = expected.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
        for (got, expected) in logits.iter().zip(expected) {
            // The weights have 8 bits here.
            assert!((got - expected).abs() < 0.02 * largest, "{logits:?}");
        }
    }
}

/// Moves the numbers of all tensors into one file, with a gap before each.
fn moved(graph: &mut GraphProto, location: &str) -> Vec<u8> {
    let mut file = Vec::new();
    for tensor in &mut graph.initializer {
        file.extend([0xff; 3]);
        let offset = file.len();
        let numbers = std::mem::take(&mut tensor.float_data);
        file.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
        let length = file.len() - offset;
        tensor.data_location = 1;
        tensor.external_data = [
            ("location", location.to_owned()),
            ("offset", offset.to_string()),
            ("length", length.to_string()),
        ]
        .map(|(key, value)| StringStringEntryProto {
            key: key.to_owned(),
            value,
        })
        .to_vec();
    }
    file
}

#[test]
fn numbers_in_a_file_beside_it_are_those_inside() {
    let directory = tempfile::tempdir().unwrap();
    let onnx = directory.path().join("mlp.onnx");
    let numbers = directory.path().join("mlp.onnx.data");
    let square = || mlp(vec![node("Mul", &["h", "h"], "a")]);
    let expected = network(&bytes(square()), "test", InputKind::Pixels).unwrap();
    let mut outside = square();
    let file = moved(&mut outside, "mlp.onnx.data");
    std::fs::write(&onnx, bytes(outside.clone())).unwrap();
    let read = || read(&onnx, "test", InputKind::Pixels);
    let refused = |reason: &str| {
        let error = read().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(!error.contains('\n') && error.len() > 20, "{error}");
    };
    refused("\"mlp.onnx.data\", which cannot be read");
    std::fs::write(&numbers, &file).unwrap();
    assert_eq!(read().unwrap(), expected);
    std::fs::write(&numbers, &file[..file.len() - 1]).unwrap();
    refused("\"half\" cannot be used: its numbers are at byte");
    std::fs::write(&numbers, &file).unwrap();
    let change = |key: &str, value: &str, reason: &str| {
        let mut changed = outside.clone();
        let entries = &mut changed.initializer[1].external_data;
        let entry = entries.iter_mut().find(|entry| entry.key == key).unwrap();
        entry.value = value.to_owned();
        std::fs::write(&onnx, bytes(changed)).unwrap();
        refused(reason);
    };
    change("length", "12", "holds 3 numbers");
    change("length", "-4", "no number of bytes");
    change(
        "offset",
        "18446744073709551615",
        "at byte 18446744073709551615",
    );
    change("offset", "x\n", "the offset x? of its numbers");
    for elsewhere in ["", "../mlp.onnx.data", "/etc/hostname", "./../x"] {
        change("location", elsewhere, "not beside the ONNX file");
    }
}
