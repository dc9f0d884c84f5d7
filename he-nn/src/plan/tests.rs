//! Layouts in the clear, and what is refused.

use super::batch::BatchPlan;
use super::*;
use crate::model::{Floats, Input, Integers, Kernel, Linear, ModelParts, Padding, Shape};
use he_core::params::{N4096_DEPTH3, N8192_DEPTH5, N8192_DEPTH6, N16384_DEPTH14};
use he_core::ring::automorphism;
use he_core::rlwe::SwitchTarget;
use std::vec::Vec;

const SQUARE: [f32; 3] = [0.0, 0.0, 1.0];
const CUBIC: [f32; 4] = [0.0, 1.0, 0.0, 0.1];
const QUARTIC: [f32; 5] = [0.25, 0.5, 0.125, -0.0625, 0.01];
const SEPTIC: [f32; 8] = [0.1, 0.5, 0.0, -0.05, 0.0, 0.003, 0.0, -0.0001];

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Numbers that differ from place to place.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|i| ((i * 37 + i / 7) % 120) as u8).collect()
}

/// A layer of the tests.
#[derive(Clone, Copy)]
enum Part<'a> {
    Conv(Kernel),
    Dense(u16),
    Activation(&'a [f32]),
    Relu,
}

struct Network<'a> {
    input: Shape,
    parts: &'a [Part<'a>],
    scale: f32,
    bias: f32,
    range: f32,
}

/// Square kernels.
const fn conv(out_channels: u16, side: u16, stride: u16, padding: Padding) -> Part<'static> {
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

impl Network<'_> {
    fn file(&self) -> Vec<u8> {
        let mut shape = self.input;
        let mut storage = Vec::new();
        for part in self.parts {
            let (fan_in, rows) = match *part {
                Part::Conv(kernel) => {
                    let fan_in = usize::from(shape.channels * kernel.height * kernel.width);
                    shape = kernel.output(shape);
                    (fan_in, kernel.out_channels)
                }
                Part::Dense(outputs) => {
                    let fan_in = shape.values();
                    shape = Shape::flat(outputs);
                    (fan_in, outputs)
                }
                Part::Activation(_) | Part::Relu => (0, 0),
            };
            let rows = usize::from(rows);
            storage.push((pattern(fan_in * rows), floats(&vec![self.bias; rows])));
        }
        let coefficients: Vec<Vec<u8>> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Activation(coefficients) => floats(coefficients),
                _ => Vec::new(),
            })
            .collect();
        let layers: Vec<Layer<'_>> = self
            .parts
            .iter()
            .zip(&storage)
            .zip(&coefficients)
            .map(|((part, (weights, biases)), coefficients)| {
                let linear = Linear {
                    scale: self.scale,
                    multipliers: &[],
                    weights: Integers::Bytes(weights),
                    biases: Floats::new(biases),
                };
                let range = self.range;
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
                    Part::Activation(_) => Layer::Polynomial {
                        coefficients: Floats::new(coefficients),
                        range,
                    },
                    Part::Relu => Layer::Relu { range },
                }
            })
            .collect();
        let parts = ModelParts {
            name: b"drawn",
            input: Input::Image(self.input),
            layers: &layers,
        };
        let mut file = vec![0; parts.file_len().unwrap()];
        parts.write(&mut file).unwrap();
        file
    }
}

fn network<'a>(input: Shape, parts: &'a [Part<'a>]) -> Network<'a> {
    Network {
        input,
        parts,
        scale: 0.001,
        bias: 0.25,
        range: 8.0,
    }
}

/// Of 5x5 with stride 2 on 12x12.
const SAME: Padding = Padding::same(image(12), 5, 5, 2);

/// Of 3x3 with stride 1.
const EVEN: Padding = Padding::same(image(6), 3, 3, 1);

const CNN: [Part<'static>; 5] = [
    conv(3, 5, 2, Padding::NONE),
    Part::Activation(&SQUARE),
    Part::Dense(20),
    Part::Activation(&SQUARE),
    Part::Dense(10),
];

fn plan<'m>(
    params: &'static Params,
    file: &'m [u8],
    terms: impl Into<Terms>,
) -> Result<Plan<'m>, PlanError> {
    let model = Model::parse(file).unwrap();
    let len = Plan::buffer_len(&model);
    let (mut row, mut scratch) = (vec![0.0; len], vec![0.0; len]);
    Plan::new(params, model, terms, Target::Host, &mut row, &mut scratch)
}

fn batch_plan<'m>(params: &'static Params, model: Model<'m>) -> Result<BatchPlan<'m>, PlanError> {
    let len = Plan::buffer_len(&model);
    let (mut row, mut scratch) = (vec![0.0; len], vec![0.0; len]);
    BatchPlan::new(params, model, &mut row, &mut scratch)
}

type Slots = Vec<[f64; 2]>;

fn rotated(x: &Slots, steps: usize) -> Slots {
    (0..x.len()).map(|s| x[(s + steps) % x.len()]).collect()
}

fn add_to(x: &mut Slots, y: &Slots) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = [x[0] + y[0], x[1] + y[1]];
    }
}

/// The slots of a step's products and biases.
struct Factors {
    products: Vec<Slots>,
    bias: Vec<f64>,
}

fn factors(step: &Step<'_>, slots: usize) -> Option<Factors> {
    let Step::Linear { map, form, .. } = step else {
        return None;
    };
    let mut scratch = vec![0.0; map.scratch_len()];
    let weights = map.weights::<f64, true>();
    let rows: Vec<(Vec<f64>, f64)> = (0..map.outputs())
        .map(|k| {
            let mut row = vec![0.0; map.inputs()];
            let bias = map.row(k, &mut row, &mut scratch).unwrap();
            for (input, &weight) in row.iter().enumerate() {
                let alone = weights.at(k, input);
                assert!((alone - weight).abs() < 1e-12, "{alone} for {weight}");
            }
            let alone = map.bias::<f64, true>(k);
            assert!((alone - bias).abs() < 1e-12, "{alone} for {bias}");
            (row, bias)
        })
        .collect();
    let product = |index: usize| {
        let (mut re, mut im) = (vec![0.0; slots], vec![0.0; slots]);
        form.weight_slots(map, index, |k, input| rows[k].0[input], &mut re, &mut im);
        re.into_iter().zip(im).map(|(re, im)| [re, im]).collect()
    };
    let mut bias = vec![0.0; slots];
    form.bias_slots(map, |k| rows[k].1, &mut bias);
    Some(Factors {
        products: (0..form.products(slots)).map(product).collect(),
        bias,
    })
}

fn multiplied(x: &Slots, y: &Slots) -> Slots {
    let of =
        |(x, y): (&[f64; 2], &[f64; 2])| [x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]];
    x.iter().zip(y).map(of).collect()
}

/// The slots under a Galois element.
fn under(params: &Params, x: &Slots, g: u32) -> Slots {
    let n = params.n();
    if g == automorphism::conjugation(n) {
        return x.iter().map(|x| [x[0], -x[1]]).collect();
    }
    let steps = (0..x.len()).find(|&k| automorphism::rotation(n, k as i32) == g);
    rotated(x, steps.unwrap())
}

/// Carries out the tasks of the plan on slots in the clear.
fn run(planned: &Plan<'_>, pixels: &[u8]) -> Vec<f64> {
    let params = planned.params();
    let slots = params.slots();
    let mut values = vec![0.0; pixels.len()];
    planned.model().input_values(pixels, &mut values).unwrap();
    let mut inputs = (0..planned.ciphertexts()).map(|index| -> Slots {
        let (mut re, mut im) = (vec![0.0; slots], vec![0.0; slots]);
        planned.input_slots(index, &values, &mut re, &mut im);
        re.into_iter().zip(im).map(|(re, im)| [re, im]).collect()
    });
    let all: Vec<Option<Factors>> = (planned.steps().iter())
        .map(|step| factors(step, slots))
        .collect();
    let mut x: Slots = vec![[0.0; 2]; slots];
    let mut registers: Vec<Slots> = vec![Vec::new(); planned.registers().0];
    planned.tasks(|task| {
        let step = &planned.steps()[usize::from(task.step)];
        let factors = all[usize::from(task.step)].as_ref();
        match task.op {
            Op::Clear { .. } => x = vec![[0.0; 2]; slots],
            Op::Receive => x = inputs.next().unwrap(),
            Op::Product { operand, index } => {
                let product = &factors.unwrap().products[usize::from(index)];
                match operand {
                    Operand::Input => {
                        add_to(&mut x, &multiplied(&inputs.next().unwrap(), product));
                    }
                    Operand::Register(register) => {
                        let register = &registers[usize::from(register)];
                        add_to(&mut x, &multiplied(register, product));
                    }
                    Operand::Accumulator => x = multiplied(&x, product),
                }
            }
            Op::Bias => {
                for (x, bias) in x.iter_mut().zip(&factors.unwrap().bias) {
                    x[0] += bias;
                }
            }
            Op::Rotate(g) => x = under(params, &x, g),
            Op::RotateAdd(g) => {
                let other = under(params, &x, g);
                add_to(&mut x, &other);
            }
            Op::Square => x = multiplied(&x, &x),
            Op::Polynomial => {
                let Step::Polynomial { coefficients, .. } = step else {
                    panic!("another step");
                };
                for x in &mut x {
                    *x = [
                        coefficients.iter().rev().fold(0.0, |y, c| y * x[0] + c),
                        0.0,
                    ];
                }
            }
            Op::Relinearize | Op::Rescale | Op::Mask => {}
            Op::Save(register) => registers[usize::from(register)].clone_from(&x),
            Op::Load(register) => x.clone_from(&registers[usize::from(register)]),
            Op::Pair(register) => {
                for (x, first) in x.iter_mut().zip(&registers[usize::from(register)]) {
                    *x = [first[0] - x[1], first[1] + x[0]];
                }
            }
        }
    });
    assert!(inputs.next().is_none());
    (0..planned.model().outputs())
        .map(|k| x[planned.output_slots(k)].iter().map(|x| x[0]).sum())
        .collect()
}

fn assert_right(planned: &Plan<'_>) {
    let model = planned.model();
    let pixels: Vec<u8> = (0..model.inputs()).map(|i| (i * 89 % 251) as u8).collect();
    let mut workspace = vec![0.0; model.workspace_len()];
    let mut clear = vec![0.0; model.outputs()];
    model
        .plain_logits(&pixels[..], &mut workspace, &mut clear)
        .unwrap();
    let largest = clear.iter().fold(1.0f64, |max, x| max.max(x.abs()));
    for (a, b) in run(planned, &pixels).into_iter().zip(&clear) {
        assert!((a - b).abs() < 1e-9 * largest, "{a} for {b}");
    }
}

#[test]
fn the_chosen_plan_computes_the_network() {
    let files = [
        network(image(12), &CNN).file(),
        network(
            image(6),
            &[Part::Dense(90), Part::Activation(&SQUARE), Part::Dense(7)],
        )
        .file(),
        // Merged, and a single layer.
        network(
            image(12),
            &[
                conv(3, 5, 2, Padding::NONE),
                Part::Dense(40),
                Part::Activation(&SQUARE),
                Part::Dense(3),
            ],
        )
        .file(),
        network(image(3), &[Part::Dense(1)]).file(),
        // Padded: first, merged with what follows, and behind an activation.
        network(image(12), &[conv(3, 5, 2, SAME)]).file(),
        network(
            image(12),
            &[
                conv(3, 5, 2, SAME),
                conv(2, 3, 1, EVEN),
                Part::Dense(40),
                Part::Activation(&SQUARE),
                Part::Dense(3),
            ],
        )
        .file(),
        network(
            image(12),
            &[
                conv(3, 5, 2, SAME),
                Part::Activation(&SQUARE),
                conv(2, 3, 1, EVEN),
                Part::Activation(&SQUARE),
                Part::Dense(3),
            ],
        )
        .file(),
    ];
    for activation in [&CUBIC[..], &QUARTIC, &SEPTIC, &[0.0, 1.0, 1e-5]] {
        let activation = Part::Activation(activation);
        let deep = [CNN[0], activation, CNN[2], activation, CNN[4]];
        let net = Network {
            range: 2.0,
            ..network(image(12), &deep)
        };
        let file = net.file();
        let planned = plan(&N16384_DEPTH14, &file, WeightMode::Plain).unwrap();
        assert_eq!(depth(planned.model()), Ok(planned.input_level()));
        assert_right(&planned);
    }
    for file in &files {
        for weights in [WeightMode::Plain, WeightMode::Encrypted] {
            for sums in [Sums::Client, Sums::Evaluator] {
                let terms = Terms {
                    weights,
                    sums,
                    inputs: None,
                };
                assert_right(&plan(&N8192_DEPTH6, file, terms).unwrap());
            }
        }
    }
}

/// A sample is sent as often as its first layer has blocks, or once, for rotations by one
/// key; either way the network is computed, and errors stay within what labels bear.
#[test]
fn a_sample_is_sent_as_often_as_the_terms_say() {
    let params = &N4096_DEPTH3;
    let model = Model::parse(crate::bundled::model("mnist-mlp64").unwrap()).unwrap();
    let len = Plan::buffer_len(&model);
    let of = |inputs, arena_bytes| {
        let (mut row, mut scratch) = (vec![0.0; len], vec![0.0; len]);
        let target = match Target::STREAM {
            Target::Stream {
                prices,
                weight_bytes,
                owes,
                ..
            } => Target::Stream {
                prices,
                arena_bytes,
                weight_bytes,
                owes,
            },
            Target::Host => Target::Host,
        };
        let terms = Terms::from(WeightMode::Plain).with_inputs(inputs);
        Plan::new(params, model, terms, target, &mut row, &mut scratch)
    };
    let counts: Vec<usize> = Plan::input_counts(params, &model).unwrap().collect();
    assert_eq!(counts, [13, 1]);
    let usual = of(None, usize::MAX).unwrap();
    assert_eq!(usual.ciphertexts(), 13);
    let switches = |plan: &Plan<'_>| {
        let (mut targets, mut uses) = (Vec::new(), 0);
        plan.keys(|target, _| {
            uses += 1;
            if !targets.contains(&target) {
                targets.push(target);
            }
        });
        (uses, targets.len())
    };
    for count in counts {
        let plan = of(Some(count), usize::MAX).unwrap();
        assert_eq!(plan.ciphertexts(), count);
        let payload = plan.payload().inputs / (count + 1);
        assert!(payload < usual.payload().inputs / 13);
        assert!(plan.logit_error().six_sigma < 2.0 * usual.logit_error().six_sigma);
        assert_right(&plan);
    }
    let once = of(Some(1), usize::MAX).unwrap();
    let ((before, keys), (uses, of_once)) = (switches(&usual), switches(&once));
    // Of 16 diagonals 15 are reached by rotations, all by the same key.
    assert_eq!((uses - before, of_once - keys), (15, 1));
    assert!(once.logit_error().six_sigma > usual.logit_error().six_sigma);
    assert!(once.total_cost() > usual.total_cost());
    // One more ciphertext is kept.
    let words = once.arena_words() - usual.arena_words();
    assert_eq!(words, 2 * 4 * params.n());
    let needed = size_of::<u32>() * once.arena_words();
    let short = of(Some(1), needed - 1).unwrap_err();
    let available = needed - 1;
    assert_eq!(short, PlanError::Memory { needed, available });
    assert!(of(Some(1), needed).is_ok() && of(None, needed - 1).is_ok());
    let other = of(Some(5), usize::MAX).unwrap_err();
    assert_eq!(
        other,
        PlanError::Inputs {
            layer: 0,
            inputs: 5
        }
    );
}

/// Lanes that the client adds up take no key of level 1, and what comes back is not
/// rescaled; otherwise the plan is the same.
#[test]
fn lanes_are_added_by_whom_the_terms_name() {
    let file = network(
        image(6),
        &[Part::Dense(60), Part::Activation(&SQUARE), Part::Dense(7)],
    )
    .file();
    let of = |sums| {
        let weights = WeightMode::Plain;
        plan(
            &N8192_DEPTH6,
            &file,
            Terms {
                weights,
                sums,
                inputs: None,
            },
        )
        .unwrap()
    };
    let (client, evaluator) = (of(Sums::Client), of(Sums::Evaluator));
    assert_eq!((client.lanes(), evaluator.lanes()), (64, 1));
    assert_eq!((client.output_level(), evaluator.output_level()), (1, 0));
    assert_eq!(client.output_slots(3), 192..256);
    assert_eq!(evaluator.output_slots(3), 192..193);
    let keys = |plan: &Plan<'_>| {
        let mut count = [0; 2];
        plan.keys(|_, level| count[usize::from(level > 1)] += 1);
        count
    };
    let ([of_client, before], [of_evaluator, as_before]) = (keys(&client), keys(&evaluator));
    assert_eq!((of_client, of_evaluator, before), (0, 6, as_before));
    assert!(client.total_cost() < evaluator.total_cost());
    assert!(client.payload().result > evaluator.payload().result);
}

/// A network whose sums cancel: logits are small, lanes are not. The plan has room for
/// lanes of all that training has seen, and what is beyond is refused lane by lane.
#[test]
fn lanes_that_cancel_have_room_or_are_refused() {
    let parts = [Part::Dense(60), Part::Activation(&SQUARE), Part::Dense(1)];
    let file = network(image(6), &parts).file();
    let planned = plan(&N8192_DEPTH6, &file, WeightMode::Plain).unwrap();
    assert_eq!(planned.lanes(), 64);
    let last = planned.steps().len() - 1;
    let (Some(Step::Linear { map, .. }), Some(before)) =
        (planned.steps().last(), planned.steps().get(last - 1))
    else {
        panic!("the last step has weights");
    };
    let limit = planned.limit(last).unwrap().value;
    let weights = map.weights::<f64, true>();
    let weight = |&input: &usize| weights.at(0, input);
    let mut inputs: Vec<usize> = (0..map.inputs()).collect();
    inputs.sort_by(|a, b| weight(b).abs().total_cmp(&weight(a).abs()));
    assert!(weight(&inputs[0]).abs() * before.range() * 3.9 < limit);
    // Two lanes that take each other off again.
    let of = |lane: f64| {
        let mut values = vec![0.0; map.inputs()];
        values[inputs[0]] = lane / weight(&inputs[0]);
        values[inputs[1]] = -lane / weight(&inputs[1]);
        planned.check_step(last, &values, &[0.0])
    };
    let bias = map.bias::<f64, true>(0).abs();
    assert_eq!(of(0.99 * limit - bias), Ok(()));
    let refusal = of(1.01 * limit + bias).unwrap_err();
    assert_eq!(refusal.limit, limit);
    assert!(of(f64::NAN).is_err());
}

const fn rows(period: usize, summed: bool) -> Form {
    Form::Rows { period, summed }
}

#[test]
fn every_form_computes_the_layer() {
    let file = network(
        image(5),
        &[Part::Dense(20), Part::Activation(&SQUARE), Part::Dense(6)],
    )
    .file();
    let base = plan(&N8192_DEPTH6, &file, WeightMode::Plain).unwrap();
    let with = |first: Form, last: Form| {
        let mut planned = base.clone();
        for (step, new) in planned.steps.iter_mut().step_by(2).zip([first, last]) {
            if let Step::Linear { form, .. } = step {
                let form: &mut Form = form;
                *form = new;
            }
        }
        planned
    };
    let copied = |period, rows, baby, complex, copies| Form::Diagonals {
        period,
        rows,
        baby,
        complex,
        copies,
    };
    let diagonals = |period, rows, baby, complex| copied(period, rows, baby, complex, 1);
    // 25 inputs in 32 slots, 20 outputs in 32, 6 in 8.
    for complex in [false, true] {
        for baby in [1, 2, 8, 16] {
            for last in [
                rows(32, true),
                rows(32, false),
                diagonals(32, 8, 1, complex),
                diagonals(32, 8, 4, complex),
            ] {
                assert_right(&with(diagonals(32, 32, baby, complex), last));
                let blocks = Form::Blocks {
                    lanes: 32,
                    pairs: 13,
                };
                assert_right(&with(blocks, last));
                // A period of twice the inputs, and more outputs than inputs.
                assert_right(&with(diagonals(64, 32, baby, complex), last));
            }
        }
        for summed in [false, true] {
            let wide = rows(64, summed);
            assert_right(&with(diagonals(32, 64, 4, complex), wide));
        }
        // More inputs than outputs, as many, and less, in copies.
        for (period, rows, baby, copies) in [
            (64, 32, 1, 2),
            (64, 32, 4, 4),
            (32, 32, 2, 8),
            (32, 64, 4, 4),
            (32, 32, 1, 16),
        ] {
            let last = self::rows(rows, true);
            assert_right(&with(copied(period, rows, baby, complex, copies), last));
        }
    }
}

#[test]
fn keys_are_switched_after_products_where_they_are_noisy() {
    let parts = [Part::Dense(60), Part::Activation(&SQUARE), Part::Dense(10)];
    let file = network(image(28), &parts).file();
    for weights in [WeightMode::Plain, WeightMode::Encrypted] {
        let planned = plan(&N4096_DEPTH3, &file, weights).unwrap();
        for (index, step) in planned.steps().iter().enumerate() {
            if let Step::Linear { form, .. } = step {
                assert!(!form.switches_operands(index == 0), "{form:?}");
            }
        }
        assert_right(&planned);
    }
}

#[test]
fn keys_are_those_of_the_rotations() {
    let file = network(image(12), &CNN).file();
    let planned = plan(&N8192_DEPTH6, &file, WeightMode::Encrypted).unwrap();
    let mut levels = Vec::new();
    let mut squares = 0;
    planned.keys(|target, level| {
        levels.push(level);
        squares += usize::from(target == SwitchTarget::Square);
    });
    assert!(levels.is_sorted_by(|a, b| a >= b));
    assert_eq!((levels[0], planned.input_level()), (5, 5));
    // Two squares, and every giant step of three layers.
    let giants = planned.steps().iter().map(|step| match step {
        Step::Linear { form, .. } => form.giants(),
        _ => 1,
    });
    assert_eq!(squares, giants.sum::<usize>());
}

#[test]
fn a_polynomial_takes_its_levels_and_keeps_scales() {
    for (activation, levels) in [(&CUBIC[..], 2), (&QUARTIC, 3), (&SEPTIC, 3)] {
        let parts = [
            Part::Dense(20),
            Part::Activation(activation),
            Part::Dense(20),
            Part::Activation(&SQUARE),
            Part::Dense(4),
        ];
        let file = network(image(6), &parts).file();
        let deep = plan(&N16384_DEPTH14, &file, WeightMode::Plain).unwrap();
        let steps = deep.steps();
        let mut level = 1 + levels + 1 + 1 + 1;
        let mut scale = deep.input_scale();
        for step in steps {
            assert_eq!(step.level(), level);
            let prime = deep.prime(level);
            let (input, output) = match step {
                Step::Linear { scales, .. } => (scales.input, scales.output),
                Step::Square { input, output, .. } => {
                    assert_eq!(*output, input * input / prime);
                    (*input, *output)
                }
                Step::Polynomial {
                    coefficients,
                    input,
                    output,
                    ..
                } => {
                    assert_eq!(step.levels(), levels);
                    assert_eq!(coefficients.len(), activation.len());
                    // Powers do not outgrow the primes that they are divided by.
                    assert!(*input < 1.5 * prime && *input > prime / 512.0);
                    let outcome = step.polynomial_outcome(deep.params()).unwrap();
                    assert_eq!(outcome.level, step.output_level());
                    assert_eq!(outcome.scale, *output);
                    (*input, *output)
                }
            };
            assert_eq!(input, scale);
            (scale, level) = (output, step.output_level());
        }
        assert_eq!((scale, level), (deep.output_scale(), deep.output_level()));
        let mut square_keys = Vec::new();
        deep.keys(|target, level| {
            if target == SwitchTarget::Square {
                square_keys.push(level);
            }
        });
        assert_eq!(square_keys, [3 + levels, 2]);
    }
}

#[test]
fn what_no_plan_evaluates_is_refused_with_its_figures() {
    let refused = |params, net: &Network<'_>| {
        let file = net.file();
        // Of lanes a bias of that size would be refused first.
        let (weights, sums) = (WeightMode::Plain, Sums::Evaluator);
        plan(
            params,
            &file,
            Terms {
                weights,
                sums,
                inputs: None,
            },
        )
        .unwrap_err()
    };
    let parts = [Part::Dense(4), Part::Relu, Part::Dense(2)];
    let e = refused(&N8192_DEPTH5, &network(image(3), &parts));
    assert_eq!(e, PlanError::Relu { layer: 1 });
    let e = refused(&N4096_DEPTH3, &network(image(12), &CNN));
    let depth = PlanError::Depth {
        needed: 5,
        available: 3,
    };
    assert_eq!(e, depth);
    let e = refused(&N4096_DEPTH3, &network(image(3), &[Part::Dense(3000)]));
    let slots = PlanError::Slots {
        layer: 0,
        needed: 4096,
        slots: 2048,
    };
    assert_eq!(e, slots);
    let e = refused(&N8192_DEPTH5, &network(image(3), &[Part::Dense(2); 5]));
    assert_eq!(e, PlanError::Merged { layer: 4, max: 4 });
    let net = Network {
        range: 1e9,
        ..network(image(12), &CNN)
    };
    let e = refused(&N8192_DEPTH5, &net);
    assert!(matches!(e, PlanError::Headroom { .. }), "{e}");
    let net = Network {
        bias: 1e9,
        ..network(image(12), &CNN)
    };
    let e = refused(&N8192_DEPTH5, &net);
    assert!(matches!(e, PlanError::Encoding { layer: 0, .. }), "{e}");
    // An error that is small against one is large against such logits.
    let net = Network {
        range: 1e-5,
        ..network(image(3), &[Part::Dense(1)])
    };
    let e = refused(&N4096_DEPTH3, &net);
    assert!(matches!(e, PlanError::Noise { .. }), "{e}");
    let parts = [Part::Dense(4), Part::Activation(&CUBIC), Part::Dense(2)];
    let e = refused(&N4096_DEPTH3, &network(image(3), &parts));
    let cubic = PlanError::Depth {
        needed: 4,
        available: 3,
    };
    assert_eq!(e, cubic);
    let net = Network {
        range: 2000.0,
        ..network(image(3), &parts)
    };
    let e = refused(&N8192_DEPTH5, &net);
    assert!(matches!(e, PlanError::Powers { layer: 1, .. }), "{e}");
    let steep = [0.0, 1.0, 0.0, 1e36];
    let parts = [Part::Dense(4), Part::Activation(&steep), Part::Dense(2)];
    let e = refused(&N8192_DEPTH5, &network(image(3), &parts));
    assert!(matches!(e, PlanError::Polynomial { layer: 1, .. }), "{e}");
    for e in [depth, slots, cubic] {
        let sentence = std::format!("{e}");
        assert!(sentence.contains("; take "), "{sentence}");
    }
}

#[test]
fn a_batch_takes_the_lowest_level_that_serves() {
    let file = network(image(12), &CNN).file();
    let model = Model::parse(&file).unwrap();
    let batch = batch_plan(&N8192_DEPTH6, model).unwrap();
    let steps = batch.steps();
    assert!(batch.input_level() < 6 && batch.headroom_bits() >= f64::from(HEADROOM_BITS));
    assert_eq!(steps.len(), 5);
    // A layer with weights takes no level, and its scale is the integers'.
    for (k, step) in steps.iter().enumerate() {
        if k % 2 == 0 {
            assert_eq!(step.rescales, 0);
            assert_eq!(step.output, step.input / f64::from(0.001f32));
        } else {
            assert!(step.output >= libm::exp2(batch::MIN_SCALE_LOG2));
        }
    }
    assert_eq!(batch.square_level(), Some(batch.input_level()));
    // A polynomial is brought to the scale of its powers first.
    for (activation, levels) in [(&CUBIC[..], 2), (&QUARTIC, 3), (&SEPTIC, 3)] {
        let parts = [
            Part::Dense(20),
            Part::Activation(activation),
            Part::Dense(20),
            Part::Activation(activation),
            Part::Dense(4),
        ];
        let net = Network {
            range: 2.0,
            ..network(image(6), &parts)
        };
        let file = net.file();
        let model = Model::parse(&file).unwrap();
        let batch = batch_plan(&N16384_DEPTH14, model).unwrap();
        let first = batch.steps()[1];
        assert_eq!(
            batch.square_level(),
            Some(first.level - first.approach.rescales)
        );
        let mut level = batch.input_level();
        for (step, view) in batch.steps().iter().zip(model.layers()) {
            assert_eq!(step.level, level);
            level -= step.rescales;
            let outcome = step.polynomial_outcome(batch.params(), view.layer);
            assert_eq!(outcome.is_some(), view.layer.linear().is_none());
            if let Some(outcome) = outcome {
                assert_eq!((outcome.level, outcome.scale), (level, step.output));
                assert_eq!(step.rescales, step.approach.rescales + levels);
                assert!(step.approach.factor >= 1.0);
                let prime = batch.params().prime(step.level).unwrap();
                let prime = f64::from(prime.modulus().value());
                assert!(step.approach.scale < 1.6 * prime);
            }
        }
        assert_eq!(level, batch.output_level());
        // The primes of the device are too narrow.
        let e = batch_plan(&N4096_DEPTH3, model).unwrap_err();
        assert!(
            matches!(e, PlanError::Polynomial { .. } | PlanError::Depth { .. }),
            "{e}"
        );
    }
    let wide = Network {
        range: 1e20,
        ..network(image(12), &CNN)
    };
    let file = wide.file();
    let model = Model::parse(&file).unwrap();
    let e = batch_plan(&N4096_DEPTH3, model).unwrap_err();
    assert!(matches!(e, PlanError::Wraps { .. }), "{e}");
}

/// What values are to be flooded has all the scale that fits behind a square, and no value
/// that its bound does not rely on.
#[cfg(feature = "std")]
#[test]
fn a_wide_plan_keeps_its_scale_and_limits_values() {
    let model = Model::parse(crate::bundled::model("mnist-mlp64").unwrap()).unwrap();
    let mut row = vec![0.0; Plan::buffer_len(&model)];
    let mut scratch = row.clone();
    let narrow = BatchPlan::new(&N8192_DEPTH6, model, &mut row, &mut scratch).unwrap();
    let wide = BatchPlan::wide(&N8192_DEPTH6, model, &mut row, &mut scratch).unwrap();
    let (few, many) = (wide.logit_error(), narrow.logit_error());
    assert!(few.worst_case < 2f64.powi(-35) * many.worst_case);
    assert!(wide.output_scale() > 2f64.powi(90));
    for view in model.layers() {
        let most = 2.0 * f64::from(view.layer.range()).max(1.0);
        assert!(wide.limit(view.index).unwrap().value <= most);
        assert!(narrow.limit(view.index).unwrap().value > most);
    }
}

/// Nothing of what a plan costs is lost between its steps, on a host and for a stream.
#[test]
fn steps_cost_what_the_plan_costs() {
    let parts = [
        conv(4, 5, 2, Padding::NONE),
        Part::Activation(&SQUARE),
        Part::Dense(32),
        Part::Activation(&SQUARE),
        Part::Dense(10),
    ];
    let network = Network {
        input: image(16),
        parts: &parts,
        scale: 0.001,
        bias: 0.1,
        range: 4.0,
    };
    let file = network.file();
    let model = Model::parse(&file).unwrap();
    for target in [Target::Host, Target::STREAM] {
        let mut row = std::vec![0.0; Plan::buffer_len(&model)];
        let mut scratch = row.clone();
        let terms = WeightMode::Plain;
        let plan = Plan::new(&N8192_DEPTH5, model, terms, target, &mut row, &mut scratch).unwrap();
        let steps = plan.steps().len();
        let sum: usize = (0..steps).map(|step| plan.step_cost(step)).sum();
        // Shares of what is put off are rounded down.
        assert!(
            sum.abs_diff(plan.total_cost()) <= steps,
            "{sum} {}",
            plan.total_cost()
        );
        let bytes = (0..steps).map(|step| plan.step_payload(step));
        let bytes: usize = bytes.map(|of| of.inputs + of.keys + of.factors).sum();
        let all = plan.payload();
        assert_eq!(bytes, all.inputs + all.keys + all.factors);
        let last = plan.step_error(steps - 1);
        assert_eq!(last, plan.logit_error().six_sigma);
        assert_eq!((plan.step_cost(steps), plan.step_error(steps)), (0, 0.0));
    }
}
