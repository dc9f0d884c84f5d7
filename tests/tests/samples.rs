//! Samples unlike those of training: each is classified as in the clear, or refused;
//! none ends a run, and none is wrong and looks right. Bundled and imported networks, in
//! batches and one by one, with plain and with encrypted weights.
//!
//! By default a share of the samples, on networks that take moments; with HE_EDGE_LONG
//! (`tests/run --long`) all of them on all. With HE_EDGE_DATA the table is that of the
//! data, otherwise one with its means and deviations.

#![expect(clippy::print_stdout, reason = "the counts, for `--nocapture`")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use he_edge_tests::command::binary;
use he_edge_tests::networks::{CUBIC, Drawn, Part, SEPTIC, features, image, network};
use he_nn::bundled;
use he_nn::clear;
use he_nn::data::{Choice, DataSet, PIXELS, SIDE, Samples, Split};
use he_nn::import::schema::{
    DimensionProto, FLOAT, GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto,
};
use he_nn::import::{self, InputKind};
use he_nn::model::{Input, Model, Sample};
use he_nn::network::{Network, NetworkInput, NetworkLayer, Weights};
use he_nn::plan::{Packing, Sums, Target, Terms, WeightMode};
use host_runner::planning;
use host_runner::service::{Batches, InMemory, Service};
use prost::Message;
use tempfile::TempDir;

fn is_long() -> bool {
    std::env::var_os("HE_EDGE_LONG").is_some()
}

/// A sample that the tests own.
enum Odd {
    Image(Vec<u8>),
    Row(Vec<f32>),
}

impl Odd {
    fn sample(&self) -> Sample<'_> {
        match self {
            Self::Image(pixels) => Sample::Pixels(pixels),
            Self::Row(features) => Sample::Features(features),
        }
    }
}

/// A small generator, so that a failure can be repeated.
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

/// Constant, inverted, one-hot, striped and random images, and those that the first
/// layer answers with its largest and smallest values.
fn images(model: &Model<'_>, count: usize, seed: u64) -> Vec<Odd> {
    let digits = bundled::digits().unwrap().images;
    let mut all: Vec<Vec<u8>> = (0..=255u8).step_by(15).map(|v| vec![v; PIXELS]).collect();
    all.extend(digits.iter().map(|d| d.iter().map(|p| 255 - p).collect()));
    let one_hot = |at: usize| {
        let mut image = vec![0; PIXELS];
        image[at] = 255;
        image
    };
    all.extend((0..PIXELS).step_by(29).map(one_hot));
    for period in [2, 3, 7] {
        let stripe = |i: usize| {
            if (i % SIDE).is_multiple_of(period) {
                255
            } else {
                0
            }
        };
        all.push((0..PIXELS).map(stripe).collect());
    }
    // What turns one result of the first layer as far as it goes, and its opposite.
    let first = model.layers().next().unwrap();
    let map = he_nn::plan::LinearMap::new(first).unwrap();
    let weights = map.weights::<f64, true>();
    for output in (0..map.outputs()).step_by((map.outputs() / 8).max(1)) {
        for sign in [1.0, -1.0] {
            let lit = |input| {
                if weights.at(output, input) * sign > 0.0 {
                    255
                } else {
                    0
                }
            };
            all.push((0..PIXELS).map(lit).collect());
        }
    }
    let mut state = 7 + seed;
    while all.len() < count {
        let dark = next(&mut state) % 256;
        let pixel = |state: &mut u64| {
            let x = next(state) % 256;
            if x < dark { 0 } else { x as u8 }
        };
        all.push((0..PIXELS).map(|_| pixel(&mut state)).collect());
    }
    all.truncate(count);
    all.into_iter().map(Odd::Image).collect()
}

/// Rows with a column at a missing value's code, scaled, constant, and random.
fn rows(means: &[f32], deviations: &[f32], count: usize, seed: u64) -> Vec<Odd> {
    let mut all = Vec::new();
    for column in 0..means.len() {
        for code in [
            999.0,
            9999.0,
            99999.0,
            -999.0,
            -9999.0,
            0.0,
            f32::MAX,
            f32::MIN,
        ] {
            let mut row = means.to_vec();
            row[column] = code;
            all.push(row);
        }
    }
    for power in -3..=12 {
        let factor = 10f32.powi(power);
        all.push(means.iter().map(|mean| mean * factor).collect());
        all.push(vec![factor; means.len()]);
    }
    let mut state = 11 + seed;
    while all.len() < count {
        let reach = 10f32.powi((next(&mut state) % 5) as i32);
        let standard = |state: &mut u64| next(state) as f32 / (1u64 << 30) as f32 - 1.0;
        let columns = means.iter().zip(deviations);
        all.push(
            columns
                .map(|(mean, deviation)| mean + deviation * reach * standard(&mut state))
                .collect(),
        );
    }
    all.truncate(count);
    all.into_iter().map(Odd::Row).collect()
}

fn odd(model: &Model<'_>, count: usize, seed: u64) -> Vec<Odd> {
    match model.input() {
        Input::Image(_) => images(model, count, seed),
        Input::Features { means, deviations } => {
            let of = |floats: he_nn::model::Floats<'_>| floats.iter().collect::<Vec<f32>>();
            rows(&of(means), &of(deviations), count, seed)
        }
    }
}

/// What a search among images finds: pairs of a digit and of what it ends at, which turns a
/// logit as far as rounds of steps along its slopes take it; and pairs of digits.
struct Found {
    furthest: Vec<[Vec<u8>; 2]>,
    pairs: Vec<[Vec<u8>; 2]>,
}

impl Found {
    /// Searches with every logit, up and down, or a few of them; nothing among rows.
    fn of(model: &Model<'_>) -> Self {
        let (mut furthest, mut pairs) = (Vec::new(), Vec::new());
        if matches!(model.input(), Input::Image(_)) {
            let digits = bundled::digits().unwrap().images;
            let aims = (0..model.outputs()).flat_map(|logit| [(logit, 1.0), (logit, -1.0)]);
            for (at, aim) in aims.step_by(if is_long() { 1 } else { 5 }).enumerate() {
                let digit = digits[at % digits.len()].to_vec();
                let end = climbed(model, &digit, aim);
                furthest.push([digit, end]);
            }
            let next = digits.iter().zip(digits.iter().skip(1));
            pairs.extend(next.map(|(a, b)| [a.to_vec(), b.to_vec()]));
        }
        Self { furthest, pairs }
    }

    /// Between a digit and where the search went: the last that the plan has room for, a
    /// little before and after it, and the end. Between two digits of different classes:
    /// both sides of where the class changes.
    fn samples(&self, model: &Model<'_>, fits: impl Fn(Sample<'_>) -> bool) -> Vec<Odd> {
        let between = |[from, to]: &[Vec<u8>; 2], part: f64| -> Vec<u8> {
            let pixels = from.iter().zip(to);
            let mixed = |(a, b): (&u8, &u8)| {
                (f64::from(*a) + part * (f64::from(*b) - f64::from(*a))).round() as u8
            };
            pixels.map(mixed).collect()
        };
        let last = |is_before: &dyn Fn(f64) -> bool| {
            let (mut before, mut after) = (0.0, 1.0);
            for _ in 0..12 {
                let middle = f64::midpoint(before, after);
                match is_before(middle) {
                    true => before = middle,
                    false => after = middle,
                }
            }
            (before, after)
        };
        let mut all = Vec::new();
        for pair in &self.furthest {
            let (inside, outside) = last(&|part| fits(Sample::Pixels(&between(pair, part))));
            assert!(pair[0] != pair[1], "nothing was found");
            let parts = [inside, 0.98 * inside, 0.9 * inside, outside, 1.0];
            all.extend(parts.map(|part| Odd::Image(between(pair, part))));
        }
        let class =
            |pixels: &[u8]| clear::class(&clear::logits(model, Sample::Pixels(pixels)).unwrap());
        for pair in &self.pairs {
            let first = class(&pair[0]);
            if class(&pair[1]) != first {
                let (before, after) = last(&|part| class(&between(pair, part)) == first);
                all.extend([before, after].map(|part| Odd::Image(between(pair, part))));
            }
        }
        all
    }
}

/// From an image, the pixels that turn a logit furthest to where they do, as many at once as
/// turn it further together; six rounds.
fn climbed(model: &Model<'_>, image: &[u8], (logit, sign): (usize, f64)) -> Vec<u8> {
    let score = |pixels: &[u8]| sign * clear::logits(model, Sample::Pixels(pixels)).unwrap()[logit];
    let mut best = (score(image), image.to_vec());
    for _ in 0..6 {
        let mut pixels = best.1.clone();
        let mut gains: Vec<(f64, usize, u8)> = Vec::new();
        for at in 0..pixels.len() {
            for value in [0, 255] {
                pixels[at] = value;
                gains.push((score(&pixels) - best.0, at, value));
            }
            pixels[at] = best.1[at];
        }
        gains.retain(|(gain, ..)| *gain > 0.0);
        gains.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut count = gains.len();
        while count > 0 {
            let mut turned = best.1.clone();
            for &(_, at, value) in &gains[..count] {
                turned[at] = value;
            }
            let found = score(&turned);
            if found > best.0 {
                best = (found, turned);
                break;
            }
            count /= 2;
        }
    }
    best.1
}

/// Rows in random directions, as far out as the plan just has room for, and a little
/// further: where the most values are near half the modulus. Nothing among images.
fn edges(model: &Model<'_>, fits: impl Fn(Sample<'_>) -> bool, count: usize) -> Vec<Odd> {
    let Input::Features { means, deviations } = model.input() else {
        return Vec::new();
    };
    let columns: Vec<(f32, f32)> = means.iter().zip(deviations.iter()).collect();
    let mut state = 13;
    let mut all = Vec::new();
    while all.len() < count {
        let standard = |state: &mut u64| next(state) as f32 / (1u64 << 30) as f32 - 1.0;
        let direction: Vec<f32> = columns.iter().map(|_| standard(&mut state)).collect();
        let at = |reach: f32| -> Vec<f32> {
            let places = columns.iter().zip(&direction);
            places.map(|((m, d), x)| m + d * reach * x).collect()
        };
        let (mut inside, mut outside) = (0.0, 1e9);
        for _ in 0..60 {
            let middle = f32::midpoint(inside, outside);
            match fits(Sample::Features(&at(middle))) {
                true => inside = middle,
                false => outside = middle,
            }
        }
        all.extend([at(inside), at(0.99 * inside), at(outside)].map(Odd::Row));
    }
    all.truncate(count);
    all
}

/// What became of samples.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    right: usize,
    refused: usize,
    /// Further from the clear than the plan says, which the command reports and fails.
    reported: usize,
    /// Further than the plan's figure, and as near as their own values let expect; some of
    /// those that are right.
    unusual: usize,
    /// Further off by a wrap, or another label within the plan's error: nothing tells.
    wrong: usize,
}

impl Tally {
    const fn all(&self) -> usize {
        self.right + self.refused + self.reported + self.wrong
    }

    fn add(&mut self, other: Self) {
        self.right += other.right;
        self.refused += other.refused;
        self.reported += other.reported;
        self.unusual += other.unusual;
        self.wrong += other.wrong;
    }

    fn say(&self, what: &str) {
        println!(
            "{what}: {} samples, {} right, {} of them beyond the plan's figure, {} refused, {} reported, {} wrong",
            self.all(),
            self.right,
            self.unusual,
            self.refused,
            self.reported,
            self.wrong
        );
    }
}

/// Has samples classified and compares with the clear.
fn drive(service: &mut dyn Service, model: &Model<'_>, odd: &[Odd]) -> Tally {
    let mut tally = Tally::default();
    let samples: Vec<Sample<'_>> = odd.iter().map(Odd::sample).collect();
    let answers = service.infer(&samples, &mut ()).unwrap();
    assert_eq!(answers.len(), samples.len());
    let of_plan = service.deployment().logit_error.six_sigma;
    for (index, (answer, &sample)) in answers.iter().zip(&samples).enumerate() {
        let inference = match answer {
            Ok(inference) => inference,
            Err(error) => {
                let sentence = error.to_string();
                // Before it was encrypted, or after: what is near half the modulus.
                let known = ["has room for", "may have wrapped around"];
                assert!(
                    known.iter().any(|part| sentence.contains(part)),
                    "{}: {sentence}",
                    model.name()
                );
                tally.refused += 1;
                continue;
            }
        };
        let allowed = inference.allowed_error.unwrap_or(of_plan);
        tally.unusual += usize::from(inference.allowed_error.is_some());
        let plain = clear::logits(model, sample).unwrap();
        let errors = inference
            .logits
            .iter()
            .zip(&plain)
            .map(|(a, b)| (a - b).abs());
        let error = errors.fold(0.0, f64::max);
        // A label may differ where two logits are as near as that.
        let label = clear::class(&plain);
        let near = match plain[..] {
            [logit] => logit.abs() <= allowed,
            _ => {
                plain
                    .iter()
                    .filter(|x| plain[label] - **x <= 2.0 * allowed)
                    .count()
                    > 1
            }
        };
        // What is seen to be wrong; what wrapped around is off by the modulus, four times the
        // range or more.
        let range = f64::from(model.layers().last().unwrap().layer.range()).max(1.0);
        if error > allowed && error < range {
            tally.reported += 1;
        } else if error <= allowed && (inference.label() == label || near) {
            tally.right += 1;
        } else {
            println!("{} {index}: {error} beside {plain:?}", model.name());
            tally.wrong += 1;
        }
    }
    tally
}

/// A network of dense layers with squares between them, as PyTorch exports one.
fn onnx(widths: &[usize]) -> Vec<u8> {
    let value = |name: &str, width: usize| {
        let dim = |dim_value| DimensionProto {
            dim_value,
            ..DimensionProto::default()
        };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto {
                tensor_type: Some(TensorTypeProto {
                    elem_type: FLOAT,
                    shape: Some(TensorShapeProto {
                        dim: vec![dim(1), dim(width as i64)],
                    }),
                }),
            }),
        }
    };
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        name: format!("/{output}"),
        op_type: op.into(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    };
    let mut state = 17;
    let mut graph = GraphProto {
        input: vec![value("input", widths[0])],
        ..GraphProto::default()
    };
    let mut last = "input".to_owned();
    for (layer, pair) in widths.windows(2).enumerate() {
        let &[inputs, outputs] = pair else {
            continue;
        };
        if layer > 0 {
            let squared = format!("square{layer}");
            graph.node.push(node("Mul", &[&last, &last], &squared));
            last = squared;
        }
        let mut tensor = |name: String, dims: Vec<i64>, reach: f32| {
            let count = dims.iter().product::<i64>();
            let mut drawn = || (next(&mut state) as f32 / (1u64 << 30) as f32 - 1.0) * reach;
            graph.initializer.push(TensorProto {
                dims,
                data_type: FLOAT,
                float_data: (0..count).map(|_| drawn()).collect(),
                name,
                ..TensorProto::default()
            });
        };
        let (weight, bias, sum) = (
            format!("w{layer}"),
            format!("b{layer}"),
            format!("gemm{layer}"),
        );
        let reach = 1.7 / (inputs as f32).sqrt();
        tensor(weight.clone(), vec![inputs as i64, outputs as i64], reach);
        tensor(bias.clone(), vec![outputs as i64], 0.5);
        graph
            .node
            .push(node("Gemm", &[&last, &weight, &bias], &sum));
        last = sum;
    }
    graph.output = vec![value(&last, widths[widths.len() - 1])];
    ModelProto {
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// An imported network, its ranges measured on the bundled digits or on drawn rows.
fn imported(widths: &[usize], kind: InputKind) -> Vec<u8> {
    let mut network = import::network(&onnx(widths), "imported", kind).unwrap();
    match kind {
        InputKind::Pixels => {
            let digits = bundled::digits().unwrap();
            let calibrated =
                clear::calibrated(&network.quantized(), digits.samples(), digits.samples());
            calibrated.unwrap().file
        }
        InputKind::Features => {
            let NetworkInput::Features { means, deviations } = features(widths[0] as u16) else {
                panic!("no features");
            };
            network.standardise(&means, &deviations).unwrap();
            let network = network.quantized();
            let draft = network.draft().unwrap();
            let model = Model::parse(&draft).unwrap();
            let rows: Vec<Drawn> = (0..60).map(|seed| Drawn::of(&model, seed)).collect();
            let rows = || rows.iter().map(|row| (row.sample(), 0));
            clear::calibrated(&network, rows(), rows()).unwrap().file
        }
    }
}

/// Bundled and imported networks, and whether they take moments.
fn files() -> Vec<(String, Vec<u8>, bool)> {
    let bundled = bundled::model_names().map(|name| {
        let quick = ["mnist-mlp64", "pima-logreg"].contains(&name);
        (
            name.to_owned(),
            bundled::model(name).unwrap().to_vec(),
            quick,
        )
    });
    let mut files: Vec<_> = bundled.collect();
    for (widths, kind) in [
        (&[784, 24, 10][..], InputKind::Pixels),
        (&[784, 12, 12, 4], InputKind::Pixels),
        (&[8, 16, 3], InputKind::Features),
        (&[12, 1], InputKind::Features),
    ] {
        let file = imported(widths, kind);
        files.push((format!("imported {widths:?}"), file, true));
    }
    files
}

/// Networks without a plan of any kind: CKKS evaluates no ReLU.
const UNPLANNED: [&str; 3] = [
    "mnist-mlp64-relu",
    "mnist-cryptonets-relu",
    "fashion-cryptonets-relu",
];

/// The names of the networks that a test drives.
fn due() -> Vec<String> {
    let files = files().into_iter();
    files
        .filter(|(name, _, quick)| (*quick || is_long()) && !UNPLANNED.contains(&&**name))
        .map(|(name, ..)| name)
        .collect()
}

#[test]
fn odd_samples_in_batches_are_right_or_refused() {
    let mut all = Tally::default();
    let (mut driven, mut unplanned) = (Vec::new(), Vec::new());
    for (name, file, quick) in files() {
        let model = Model::parse(&file).unwrap();
        let Ok(plan) = planning::batch_plan(None, model) else {
            unplanned.push(name);
            continue;
        };
        if !quick && !is_long() {
            continue;
        }
        let start = Instant::now();
        let fits = |sample: Sample<'_>| clear::checked_in_batch(&plan, sample).is_ok();
        let mut samples = edges(&model, fits, 300);
        samples.extend(Found::of(&model).samples(&model, fits));
        let mut service = Batches::new(plan.clone()).unwrap();
        let (rounds, count) = match is_long() {
            // Where a batch takes moments, more of them.
            true => (if quick { 6 } else { 1 }, service.samples()),
            false => (1, 600),
        };
        for round in 0..rounds {
            samples.extend(odd(&model, count, round));
        }
        let tally = drive(&mut service, &model, &samples);
        tally.say(&format!("{name}, batches, {:.0?}", start.elapsed()));
        assert!(tally.right > 0, "{name}");
        all.add(tally);
        driven.push(name);
    }
    all.say("batches");
    assert_eq!(unplanned, UNPLANNED);
    assert_eq!(driven, due());
    assert!(all.all() >= if is_long() { 20_000 } else { 2_000 });
    assert!(all.right > 0 && all.refused > 0, "{all:?}");
    // Of each sample an error is stated, and none exceeds it.
    assert_eq!((all.wrong, all.reported), (0, 0));
}

/// A network whose first layer computes one value many times over, so that all of its
/// results have the same error.
fn twins() -> Vec<u8> {
    const UNITS: usize = 16;
    let dense = |row: &[i16], count: usize, scale: f32| {
        NetworkLayer::Dense(Weights {
            weights: row.repeat(count),
            scale,
            multipliers: Vec::new(),
            biases: vec![0.25; count],
        })
    };
    let network = Network {
        name: "twins".to_owned(),
        input: features(4),
        layers: vec![
            dense(&[60, -40, 80, 100], UNITS, 1.0 / 100.0),
            NetworkLayer::Polynomial(vec![0.0, 0.0, 1.0]),
            dense(&[100; UNITS], 2, 1.0 / 1600.0),
        ],
    };
    let draft = network.draft().unwrap();
    let model = Model::parse(&draft).unwrap();
    let rows: Vec<Drawn> = (0..60).map(|seed| Drawn::of(&model, seed)).collect();
    let rows = || rows.iter().map(|row| (row.sample(), 0));
    clear::calibrated(&network, rows(), rows()).unwrap().file
}

/// One sample in all slots of a batch: its errors are as many draws, and their deviation is
/// the one stated of it, usual or not.
#[test]
fn the_errors_of_a_sample_have_the_deviation_stated_of_it() {
    let polynomial = |coefficients| {
        let parts = [
            Part::Dense(6),
            Part::Polynomial(coefficients),
            Part::Dense(5),
            Part::Square,
            Part::Dense(3),
        ];
        network(image(4), &parts)
    };
    let mut unusual = 0;
    for (name, file) in [
        ("table", imported(&[8, 16, 3], InputKind::Features)),
        ("twins", twins()),
        ("cubic", polynomial(&CUBIC[..])),
        ("septic", polynomial(&SEPTIC)),
    ] {
        let model = Model::parse(&file).unwrap();
        let plan = planning::batch_plan(None, model).unwrap();
        let fits = |sample: Sample<'_>| clear::checked_in_batch(&plan, sample).is_ok();
        // A usual one, and one half as far out as there is room.
        let mut samples = vec![match Drawn::of(&model, 3) {
            Drawn::Features(row) => Odd::Row(row),
            Drawn::Pixels(pixels) => Odd::Image(pixels),
        }];
        if let (Some(Odd::Row(edge)), Input::Features { means, .. }) =
            (edges(&model, fits, 3).first(), model.input())
        {
            let halfway = means.iter().zip(edge).map(|(m, x)| f32::midpoint(m, *x));
            samples.push(Odd::Row(halfway.collect()));
        }
        let mut service = Batches::new(plan.clone()).unwrap();
        for sample in &samples {
            let sample = sample.sample();
            let own = clear::error_in_batch(&plan, sample).unwrap();
            let stated = own.sigma();
            let plain = clear::logits(&model, sample).unwrap();
            let answers = service
                .infer(&vec![sample; plan.samples()], &mut ())
                .unwrap();
            let (mut squares, mut largest) = (vec![0.0; plain.len()], 0.0);
            for answer in &answers {
                let logits = &answer.as_ref().unwrap().logits;
                for ((sum, a), b) in squares.iter_mut().zip(logits).zip(&plain) {
                    *sum += (a - b).powi(2) / answers.len() as f64;
                    largest = f64::max(largest, (a - b).abs());
                }
            }
            // What is stated is of complex errors, and logits are real.
            let worst: f64 = squares.iter().copied().fold(0.0, f64::max);
            let found = (2.0 * worst).sqrt();
            let of_plan = plan.logit_error().six_sigma / 6.0;
            println!("{name}: {found:.3e}, stated {stated:.3e}, by the plan {of_plan:.3e}");
            println!(
                "  largest {largest:.3e}, limit {:.3e}, {own:?}",
                own.limit()
            );
            assert!(largest <= own.limit(), "{name}: {largest} of {own:?}");
            let ratio = found / stated;
            assert!((0.8..1.25).contains(&ratio), "{name}: {found} of {stated}");
            unusual += usize::from(stated > of_plan);
        }
    }
    assert!(unusual > 0, "none differs from the plan's figure");
}

/// The same of samples by themselves, drawn anew each time. What is stated is of the largest
/// weights of a step and of the worse of two ways in which copies of a value may depend on
/// each other, so it may be more than is found.
#[test]
fn the_errors_of_a_sample_by_itself_are_within_those_stated_of_it() {
    // A slot's roundings are multiplied by the key's value there: by many keys, each of which
    // makes two draws. The deviation found is that of 100 or 25 independent squares at worst,
    // of the distribution of Laplace: right to 11 % or 22 %, twice of which it may be more than
    // is stated.
    const DRAWS: usize = 2;
    let digits = bundled::digits().unwrap().images;
    for (name, file) in [
        ("table", imported(&[8, 16, 3], InputKind::Features)),
        (
            "mnist-mlp64",
            bundled::model("mnist-mlp64").unwrap().to_vec(),
        ),
        ("mnist-cnn", bundled::model("mnist-cnn").unwrap().to_vec()),
        (
            "cubic",
            network(
                image(4),
                &[Part::Dense(6), Part::Polynomial(&CUBIC), Part::Dense(3)],
            ),
        ),
    ] {
        let model = Model::parse(&file).unwrap();
        for (kind, terms, target) in ways() {
            let Ok(plan) = planning::plan(None, model, terms, target) else {
                assert!(
                    terms.inputs.is_some() && name != "mnist-mlp64",
                    "{name}, {kind}"
                );
                continue;
            };
            let drawn = Drawn::of(&model, 3);
            // Random pixels are unlike digits, and not every plan has room for them.
            let sample = match (clear::checked(&plan, drawn.sample()), bundled::model(name)) {
                (Ok(_), _) => drawn.sample(),
                (Err(_), Some(_)) => Sample::Pixels(&digits[0][..]),
                (Err(error), None) => panic!("{name}, {kind}: {error}"),
            };
            let own = clear::error_alone(&plan, sample).unwrap();
            let plain = clear::logits(&model, sample).unwrap();
            let (keys, most) = match plan.params().n() {
                ..=4096 => (100, 1.25),
                _ => (25, 1.5),
            };
            let (mut squares, mut largest) = (vec![0.0; plain.len()], 0.0);
            for _ in 0..keys {
                let mut service = InMemory::new(plan.clone()).unwrap();
                for answer in service.infer(&[sample; DRAWS], &mut ()).unwrap() {
                    let logits = answer.unwrap().logits;
                    for ((sum, a), b) in squares.iter_mut().zip(&logits).zip(&plain) {
                        *sum += (a - b).powi(2) / (keys * DRAWS) as f64;
                        largest = f64::max(largest, (a - b).abs());
                    }
                }
            }
            let worst: f64 = squares.iter().copied().fold(0.0, f64::max);
            let (found, stated) = ((2.0 * worst).sqrt(), own.sigma());
            let of_plan = plan.logit_error().six_sigma / 6.0;
            println!("{name}, {kind}: {found:.3e}, stated {stated:.3e}, by the plan {of_plan:.3e}");
            assert!(largest <= own.limit(), "{name}: {largest} of {own:?}");
            let ratio = found / stated;
            assert!((0.2..most).contains(&ratio), "{name}: {found} of {stated}");
        }
    }
}

/// The ways in which a sample by itself is evaluated.
fn ways() -> [(&'static str, Terms, Target); 5] {
    let plain = Terms::from(WeightMode::Plain);
    let sums = Sums::Evaluator;
    [
        ("plain", plain, Target::Host),
        ("encrypted", WeightMode::Encrypted.into(), Target::Host),
        ("streamed", plain, Target::STREAM),
        ("one input", plain.with_inputs(Some(1)), Target::STREAM),
        ("evaluator's sums", Terms { sums, ..plain }, Target::STREAM),
    ]
}

#[test]
fn odd_samples_one_by_one_are_right_or_refused() {
    let mut all = Tally::default();
    let mut driven = ways().map(|(kind, ..)| (kind, Vec::new()));
    for (name, file, quick) in files() {
        if !quick && !is_long() {
            continue;
        }
        let model = Model::parse(&file).unwrap();
        let found = Found::of(&model);
        for ((kind, terms, target), (_, driven)) in ways().into_iter().zip(&mut driven) {
            let start = Instant::now();
            let Ok(plan) = planning::plan(None, model, terms, target) else {
                let is_due = !UNPLANNED.contains(&&*name) && terms.inputs.is_none();
                assert!(!is_due, "{name}, {kind}: no plan");
                continue;
            };
            let count = match target {
                _ if !is_long() => 60,
                Target::Host => 250,
                _ => 60,
            };
            let mut samples = odd(&model, count, 0);
            let fits = |sample: Sample<'_>| clear::checked(&plan, sample).is_ok();
            samples.extend(edges(&model, fits, count / 2));
            samples.extend(found.samples(&model, fits));
            let mut service = InMemory::new(plan.clone()).unwrap();
            let tally = drive(&mut service, &model, &samples);
            tally.say(&format!("{name}, {kind}, {:.0?}", start.elapsed()));
            assert!(tally.right > 0, "{name}, {kind}");
            all.add(tally);
            driven.push(name.clone());
        }
    }
    for (kind, driven) in driven {
        match kind {
            // Networks with rotations enough between their inputs.
            "one input" => assert!(driven.contains(&"mnist-mlp64".to_owned()), "{driven:?}"),
            _ => assert_eq!(driven, due(), "{kind}"),
        }
    }
    all.say("one by one");
    assert!(all.all() >= if is_long() { 5_000 } else { 1_500 });
    assert!(all.right > 0 && all.refused > 0, "{all:?}");
    assert_eq!((all.wrong, all.reported), (0, 0));
}

/// The command names rows beyond those of training whose results are less exact than the
/// plan says, and does not end as if all were well.
#[test]
fn infer_names_rows_beyond_training() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let file = imported(&[8, 16, 3], InputKind::Features);
    fs::write(path("model.hemodel"), &file).unwrap();
    let model = Model::parse(&file).unwrap();
    let plan = planning::batch_plan(None, model).unwrap();
    let fits = |sample: Sample<'_>| clear::checked_in_batch(&plan, sample).is_ok();
    let Input::Features { means, .. } = model.input() else {
        panic!("no features");
    };
    let halfway = |edge: &Odd| match edge {
        Odd::Row(edge) => means
            .iter()
            .zip(edge)
            .map(|(m, x)| f32::midpoint(m, *x))
            .collect(),
        Odd::Image(_) => panic!("no row"),
    };
    let of_training = |seed| match Drawn::of(&model, seed) {
        Drawn::Features(row) => row,
        Drawn::Pixels(_) => panic!("no row"),
    };
    let far: Vec<Vec<f32>> = edges(&model, fits, 90)
        .iter()
        .step_by(3)
        .map(halfway)
        .collect();
    let usual: Vec<Vec<f32>> = (0..30).map(of_training).collect();
    for (name, rows, code) in [("usual", usual, 0), ("far", far, 1)] {
        let table = path(&format!("{name}.csv"));
        let mut text = "a,b,c,d,e,f,g,h,label\n".to_owned();
        for (i, row) in rows.iter().enumerate() {
            let row: Vec<String> = row.iter().map(f32::to_string).collect();
            text.push_str(&format!("{},{}\n", row.join(","), i % 3));
        }
        fs::write(&table, text).unwrap();
        let model = path("model.hemodel");
        let mut command = Command::new(binary());
        command.env("HE_EDGE_PROGRESS", "never");
        command.args(["infer", "--model", &model, "--data", &table]);
        command.args(["--label", "label", "--split", "train", "--count", "20"]);
        let output = command.args(["--packing", "batch"]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let sentence = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {sentence}{said}");
        let named = said.matches("has values beyond those of training").count();
        assert_eq!(named > 0, code == 1, "{said}");
        let count = format!("{named} of 20 results are less exact than the plan says");
        assert_eq!(sentence.contains(&count), code == 1, "{sentence}");
    }
}

/// The rows of the table, or as many that are like them.
fn table(model: &Model<'_>) -> Vec<Vec<f32>> {
    if let Some(root) = std::env::var_os("HE_EDGE_DATA") {
        let directory = DataSet::Pima.locate(&PathBuf::from(root));
        let samples = Samples::open(&directory, Split::Test, &Choice::default()).unwrap();
        let rows = samples.all().into_iter().map(|(sample, _)| match sample {
            Sample::Features(row) => row.to_vec(),
            Sample::Pixels(_) => panic!("no table"),
        });
        return rows.collect();
    }
    let drawn = (0..230).map(|seed| match Drawn::of(model, seed) {
        Drawn::Features(row) => row,
        Drawn::Pixels(_) => panic!("no table"),
    });
    drawn.collect()
}

/// Missing values as tables have them: with one column at 9999, all 230 labels were
/// changed, with nothing said.
#[test]
fn every_column_at_every_missing_code_is_right_or_refused() {
    let model = Model::parse(bundled::model("pima-logreg").unwrap()).unwrap();
    let rows = table(&model);
    let mut all = Tally::default();
    for packing in [Packing::Batch, Packing::Latency] {
        let mut service: Box<dyn Service> = match packing {
            Packing::Batch => {
                let plan = planning::batch_plan(None, model).unwrap();
                Box::new(Batches::new(plan).unwrap())
            }
            Packing::Latency => {
                let plan = planning::plan(None, model, WeightMode::Plain, Target::Host);
                Box::new(InMemory::new(plan.unwrap()).unwrap())
            }
        };
        let mut of_packing = Tally::default();
        for code in [999.0, 9999.0, 99999.0, -999.0, -9999.0] {
            for column in 0..model.inputs() {
                let every = match (packing, is_long()) {
                    (Packing::Latency, false) => 40,
                    _ => 1,
                };
                let coded = rows.iter().step_by(every).map(|row| {
                    let mut row = row.clone();
                    row[column] = code;
                    Odd::Row(row)
                });
                let coded: Vec<Odd> = coded.collect();
                let tally = drive(&mut *service, &model, &coded);
                assert_eq!(
                    (tally.wrong, tally.reported),
                    (0, 0),
                    "{packing:?}: column {column} at {code}"
                );
                of_packing.add(tally);
            }
        }
        of_packing.say(&format!("missing codes, {packing:?}"));
        all.add(of_packing);
    }
    assert!(all.right > 0 && all.refused > 0, "{all:?}");
}
