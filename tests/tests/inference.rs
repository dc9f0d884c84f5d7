//! One suite of inferences: every network with plain and with encrypted weights, in
//! memory, in batches, by the session in this process, behind TCP and on emulated boards
//! (feature `emulator`), in one table. Labels are those of the network in the clear and
//! errors within the plan's; wherever the plan is the same, results are, bit for bit.
//!
//! By default boards run what each claim needs; with HE_EDGE_LONG every network runs on
//! every emulated board. Instructions and memory of boards are held to
//! `firmware/benches/inference.csv`; `HE_EDGE_UPDATE_INFERENCE=1` writes its rows anew.

use std::io::Write;
use std::sync::Mutex;
use std::thread;

use he_core::params::N8192_DEPTH5;
use he_edge_tests::networks::{
    CUBIC, Drawn, FIFTEENTH, FIRST_SAMPLE, Part, QUARTIC, SEPTIC, conv, features, image, network,
};
use he_edge_tests::suite::{Case, Device, Row, run, text, word};
use he_edge_tests::twin;
use he_nn::bundled;
use he_nn::clear;
use he_nn::model::{Model, Padding, Sample, Shape};
use he_nn::network::{Granularity, NetworkInput};
use he_nn::plan::batch::BatchPlan;
use he_nn::plan::{Form, Plan, PlanError, Prices, Step, Sums, Target, Terms, WeightMode};
use he_nn::program::Program;
use host_runner::client::{BatchClient, Keys};
use host_runner::engine::batch::BatchEngine;
use host_runner::planning::{self, DEFAULT_SET, N8192_NETWORK};

const WEIGHTS: [WeightMode; 2] = [WeightMode::Plain, WeightMode::Encrypted];

/// Whether a network is for the clear alone: its activation is no polynomial.
fn is_in_the_clear(name: &str) -> bool {
    name.ends_with("-relu")
}

/// Of 5x5 with stride 2 on 12x12: one place before and two behind.
const SAME: Padding = Padding::same(
    Shape {
        channels: 1,
        height: 12,
        width: 12,
    },
    5,
    5,
    2,
);

/// A second convolution, padded on two sides alone.
const PADDED_BEHIND_AN_ACTIVATION: [Part; 5] = [
    conv(3, 5, 2, SAME),
    Part::Square,
    conv(
        2,
        3,
        1,
        Padding {
            bottom: 2,
            left: 1,
            ..Padding::NONE
        },
    ),
    Part::Square,
    Part::Dense(10),
];

/// Not bundled: polynomials of degree three, layers without an activation between them,
/// standardised features in a network of several layers.
fn drawn() -> Vec<Case> {
    const STRIDED: Part = conv(2, 4, 2, Padding::NONE);
    vec![
        Case::drawn(
            "drawn-cubic",
            Some(&N8192_DEPTH5),
            image(10),
            &[Part::Dense(24), Part::Polynomial(&CUBIC), Part::Dense(5)],
        ),
        Case::drawn(
            "drawn-merged",
            None,
            image(12),
            &[STRIDED, Part::Dense(40), Part::Square, Part::Dense(10)],
        ),
        Case::drawn(
            "drawn-three-layers",
            Some(&N8192_DEPTH5),
            image(12),
            &[
                STRIDED,
                Part::Square,
                Part::Dense(16),
                Part::Square,
                Part::Dense(4),
            ],
        ),
        // Copies of the input, each for other diagonals.
        Case::drawn(
            "drawn-copies",
            Some(&N8192_DEPTH5),
            image(8),
            &[Part::Dense(64), Part::Square, Part::Dense(10)],
        ),
        Case::drawn(
            "drawn-padded",
            None,
            image(12),
            &PADDED_BEHIND_AN_ACTIVATION,
        ),
        Case::rounded(
            "drawn-wide",
            None,
            image(12),
            &PADDED_BEHIND_AN_ACTIVATION,
            (12, Granularity::Channel),
        ),
        Case::rounded(
            "drawn-merged-channels",
            None,
            image(12),
            &[STRIDED, Part::Dense(40), Part::Square, Part::Dense(10)],
            (4, Granularity::Channel),
        ),
        Case::drawn(
            "drawn-features",
            None,
            features(13),
            &[Part::Dense(20), Part::Square, Part::Dense(3)],
        ),
    ]
}

fn cases() -> Vec<Case> {
    let bundled = bundled::model_names().map(Case::bundled);
    bundled.chain(drawn()).collect()
}

/// Whether a device may refuse a case by this: where no polynomial is, where each weight
/// would be a ciphertext of its own, and where a board's memory ends.
fn may_refuse(case: &Case, device: Device, error: &PlanError) -> bool {
    match error {
        PlanError::Relu { .. } => is_in_the_clear(case.name),
        PlanError::EncryptedBatch { .. } => device == Device::Batches,
        PlanError::Memory { needed, available } => {
            matches!(device, Device::Board(_)) && needed > available
        }
        _ => false,
    }
}

/// Runs pieces of work on two threads; their results in order.
fn on_two_threads<W: Sync, T: Send>(work: &[W], of: impl Fn(&W) -> T + Sync) -> Vec<T> {
    let next = Mutex::new(work.iter().enumerate());
    let results = Mutex::new(Vec::with_capacity(work.len()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let taken = next.lock().unwrap().next();
                    let Some((index, work)) = taken else { break };
                    let result = of(work);
                    results.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Past the capture of the output: the table is to be seen.
fn show(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

#[test]
fn every_network_runs_on_every_host_or_is_refused_in_a_sentence() {
    const DEVICES: [Device; 4] = [
        Device::Engine,
        Device::Batches,
        Device::Session,
        Device::Tcp,
    ];
    let cases = cases();
    let work: Vec<_> = cases
        .iter()
        .flat_map(|case| WEIGHTS.map(|weights| (case, weights)))
        .collect();
    let rows = on_two_threads(&work, |&(case, weights)| {
        DEVICES.map(|device| Row {
            network: case.name,
            weights,
            device,
            outcome: run(case, weights, device, 2),
        })
    });
    let mut all = Vec::new();
    for ((case, _), rows) in work.iter().zip(rows) {
        for row in &rows {
            if let Err(error) = &row.outcome {
                assert!(may_refuse(case, row.device, error), "{row:?}");
            }
        }
        // The same program behind both links.
        if let [_, _, Ok(session), Ok(tcp)] = rows.each_ref().map(|row| &row.outcome) {
            assert_eq!(session.bits(), tcp.bits(), "{}", case.name);
            assert_eq!(session.inferences[0].stages.len(), session.steps);
        }
        all.extend(rows);
    }
    show(&text(&all));
}

/// The engine reads the program of a board: in single precision, one task after the
/// other or several at once, its result is that of the session.
#[test]
fn an_engine_with_the_program_of_a_board_gives_the_words_of_its_session() {
    let cases = cases();
    let work: Vec<_> = cases
        .iter()
        .filter(|case| !is_in_the_clear(case.name))
        .flat_map(|case| WEIGHTS.map(|weights| (case, weights)))
        .collect();
    let compared = on_two_threads(&work, |&(case, weights)| {
        let mut programs: Vec<u32> = Vec::new();
        let mut target = Target::STREAM;
        let sums = Sums::Evaluator;
        if let Ok(plan) = case.plan(
            Terms {
                weights,
                sums,
                inputs: None,
            },
            target,
        ) {
            let (engine, session) = twin::both(&plan, &case.samples(1)[0]);
            assert!(engine == session, "{}, summed", case.name);
        }
        // Then in less and less memory, until nothing fits.
        loop {
            let plan = match case.plan(weights, target) {
                Ok(plan) => plan,
                Err(error) => {
                    assert!(matches!(error, PlanError::Memory { .. }), "{error}");
                    return programs.len();
                }
            };
            let fingerprint = Program::of(&plan).unwrap().fingerprint();
            if !programs.contains(&fingerprint) {
                let (engine, session) = twin::both(&plan, &case.samples(1)[0]);
                assert!(
                    engine == session,
                    "{}, weights {}",
                    case.name,
                    word(weights)
                );
                programs.push(fingerprint);
            }
            target = Target::Stream {
                prices: Prices::ARMV7E_M,
                arena_bytes: size_of::<u32>() * plan.arena_words() - 1,
                weight_bytes: 0,
                owes: false,
            };
        }
    });
    // Each has one at least, and less memory makes others.
    assert!(compared.iter().all(|&programs| programs > 0));
    assert!(compared.iter().any(|&programs| programs > 1));
}

/// Of the layers with weights.
fn forms(plan: &Plan<'_>) -> Vec<Form> {
    let linear = plan.steps().iter().filter_map(|step| match step {
        Step::Linear { form, .. } => Some(*form),
        Step::Square { .. } | Step::Polynomial { .. } => None,
    });
    linear.collect()
}

#[test]
fn every_form_gives_the_logits_of_the_clear_network() {
    const CONV: Part = conv(3, 5, 2, Padding::NONE);
    let networks = [
        // Convolution by blocks, then diagonals, then rows.
        (
            image(12),
            &[
                CONV,
                Part::Square,
                Part::Dense(20),
                Part::Square,
                Part::Dense(10),
            ][..],
        ),
        // Copies of the input.
        (
            image(28),
            &[Part::Dense(1000), Part::Square, Part::Dense(10)],
        ),
        // More outputs than inputs.
        (image(6), &[Part::Dense(100), Part::Square, Part::Dense(10)]),
        // Merged layers.
        (
            image(12),
            &[CONV, Part::Dense(40), Part::Square, Part::Dense(10)],
        ),
        // Padded: by blocks, merged, and behind an activation.
        (
            image(12),
            &[
                conv(3, 5, 2, SAME),
                Part::Square,
                Part::Dense(20),
                Part::Square,
                Part::Dense(10),
            ],
        ),
        (
            image(12),
            &[
                conv(3, 5, 2, SAME),
                Part::Dense(40),
                Part::Square,
                Part::Dense(10),
            ],
        ),
        (image(12), &PADDED_BEHIND_AN_ACTIVATION),
    ];
    let mut seen = [false; 4];
    for (input, parts) in networks {
        let case = Case::drawn("form", Some(&N8192_NETWORK), input, parts);
        for weights in WEIGHTS {
            let answered = run(&case, weights, Device::Engine, 1).unwrap();
            assert!(answered.six_sigma < 0.05, "{parts:?}: {answered:?}");
            let sums = Sums::Evaluator;
            let summed = run(
                &case,
                Terms {
                    weights,
                    sums,
                    inputs: None,
                },
                Device::Engine,
                1,
            )
            .unwrap();
            assert!(summed.six_sigma < 0.05, "{parts:?}: {summed:?}");
            let plan = case.plan(weights, Target::Host).unwrap();
            for (index, form) in forms(&plan).into_iter().enumerate() {
                let kind = match form {
                    Form::Blocks { .. } => 0,
                    Form::Diagonals { complex: true, .. } if index > 0 => 1,
                    Form::Diagonals { copies: 2.., .. } => 3,
                    Form::Diagonals { .. } => continue,
                    Form::Rows { .. } => 2,
                };
                seen[kind] = true;
            }
        }
    }
    // Blocks, pairs of diagonals between two layers, rows, copies.
    assert_eq!(seen, [true; 4]);
}

#[test]
fn streams_take_the_forms_that_cost_them_least() {
    let plan_of = |case: &Case| forms(&case.plan(WeightMode::Plain, Target::STREAM).unwrap());
    let cases = drawn();
    let named = |name: &str| plan_of(cases.iter().find(|case| case.name == name).unwrap());
    let paired = |form: &Form| {
        matches!(
            form,
            Form::Diagonals {
                complex: true,
                baby: 2..,
                ..
            }
        )
    };
    let three = named("drawn-three-layers");
    assert!(three[1..].iter().any(paired), "{three:?}");
    let copies = named("drawn-copies");
    assert!(
        matches!(copies[0], Form::Diagonals { copies: 2.., .. }),
        "{copies:?}"
    );
}

#[test]
fn polynomials_give_the_logits_of_the_clear_network() {
    let networks: [(&'static [f32], usize); 4] =
        [(&CUBIC, 2), (&QUARTIC, 3), (&SEPTIC, 3), (&FIFTEENTH, 4)];
    on_two_threads(&networks, |&(coefficients, levels)| {
        let activation = Part::Polynomial(coefficients);
        let conv = conv(2, 4, 2, Padding::NONE);
        let shallow = [Part::Dense(24), activation, Part::Dense(5)];
        let deep = [
            conv,
            activation,
            Part::Dense(16),
            activation,
            Part::Dense(4),
        ];
        for (side, parts, depth) in [(8, &shallow[..], levels + 2), (10, &deep, 2 * levels + 3)] {
            let case = Case::drawn("polynomial", None, image(side), parts);
            for weights in WEIGHTS {
                let plan = case.plan(weights, Target::Host).unwrap();
                assert_eq!(plan.input_level(), depth);
                assert!(plan.logit_error().worst_case > 0.0);
                let answered = run(&case, weights, Device::Engine, 1).unwrap();
                assert!(answered.six_sigma < 0.05, "{parts:?}: {answered:?}");
            }
        }
    });
}

#[test]
fn what_no_set_is_deep_enough_for_is_refused() {
    // One cubic activation more than there are levels for.
    let mut parts = vec![Part::Dense(8)];
    for _ in 0..4 {
        parts.extend([Part::Polynomial(&CUBIC), Part::Dense(8)]);
    }
    let case = Case::drawn("deep", None, image(4), &parts);
    for (device, available) in [(Device::Engine, 11), (Device::Session, 5)] {
        let error = run(&case, WeightMode::Plain, device, 1).unwrap_err();
        let depth = PlanError::Depth {
            needed: 13,
            available,
        };
        assert_eq!(error, depth);
    }
    // Two special primes are for keys in memory.
    let model = case.model();
    let params = Some(&N8192_NETWORK);
    let under = |model| planning::plan(params, model, WeightMode::Plain, Target::STREAM);
    assert_eq!(
        under(model).unwrap_err(),
        PlanError::Depth {
            needed: 13,
            available: 5
        }
    );
    let shallow = Model::parse(bundled::model("mnist-cnn").unwrap()).unwrap();
    assert_eq!(
        under(shallow).unwrap_err(),
        PlanError::Special { primes: 2 }
    );
}

#[test]
fn small_odd_and_wide_networks_stream() {
    let shapes = [
        (1, 1, 1),
        (2, 1, 2),
        (33, 2, 3),
        (100, 3, 10),
        (784, 50, 10),
        (784, 64, 32),
        (500, 128, 16),
        (20, 1024, 2),
    ];
    on_two_threads(&shapes, |&(inputs, hidden, classes)| {
        let row = NetworkInput::Image(Shape {
            channels: 1,
            height: 1,
            width: inputs,
        });
        let parts = [Part::Dense(hidden), Part::Square, Part::Dense(classes)];
        let case = Case::drawn("shape", Some(DEFAULT_SET), row, &parts);
        let plan = case.plan(WeightMode::Plain, Target::STREAM).unwrap();
        let bound = plan.logit_error();
        // Zeros would be told from it.
        let plain = clear::logits(&case.model(), case.samples(1)[0].sample()).unwrap();
        let is_large = |x: &f64| x.abs() > bound.six_sigma;
        assert!(plain.iter().any(is_large), "{parts:?}: {plain:?} {bound:?}");
        assert!(bound.six_sigma < bound.worst_case);
        run(&case, WeightMode::Plain, Device::Session, 1).unwrap();
    });
}

/// Runs a batch of drawn samples; the largest error of a logit.
fn batch_error(plan: &BatchPlan<'_>) -> f64 {
    let model = plan.model();
    let drawn: Vec<Drawn> = (0..20)
        .map(|k| Drawn::of(model, FIRST_SAMPLE + k))
        .collect();
    let keys = Keys::from_seed(plan.params(), &[7; 32]).unwrap();
    let mut client = BatchClient::with_keys(plan.clone(), keys);
    let keys = client.switching_keys().unwrap();
    let mut engine = BatchEngine::new(plan.clone(), &keys).unwrap();
    let samples: Vec<Sample<'_>> = drawn.iter().map(Drawn::sample).collect();
    let input = client.encrypt(&samples).unwrap();
    let mut steps = 0;
    let (result, _) = engine.evaluate(&input, || steps += 1).unwrap();
    assert_eq!(steps, plan.steps().len());
    let logits = client.decrypt(&result, samples.len()).unwrap();
    assert_eq!(logits.len(), samples.len());
    let mut worst = 0.0f64;
    for (logits, sample) in logits.iter().zip(samples) {
        let plain = clear::logits(model, sample).unwrap();
        for (a, b) in logits.iter().zip(&plain) {
            worst = worst.max((a - b).abs());
        }
    }
    worst
}

#[test]
fn a_batch_gives_the_logits_of_every_sample() {
    let conv = conv(2, 3, 2, Padding::NONE);
    let squares = [
        conv,
        Part::Square,
        Part::Dense(8),
        Part::Square,
        Part::Dense(3),
    ];
    let with = |coefficients| {
        let activation = Part::Polynomial(coefficients);
        network(
            image(4),
            &[
                Part::Dense(6),
                activation,
                Part::Dense(5),
                activation,
                Part::Dense(3),
            ],
        )
    };
    let mut files = vec![
        network(image(9), &squares),
        network(image(12), &PADDED_BEHIND_AN_ACTIVATION),
    ];
    files.extend([&CUBIC[..], &QUARTIC, &SEPTIC, &FIFTEENTH].map(with));
    on_two_threads(&files, |file| {
        let model = Model::parse(file).unwrap();
        let plan = planning::batch_plan(None, model).unwrap();
        let (error, bound) = (batch_error(&plan), plan.logit_error().six_sigma);
        assert!(error < bound && bound < 0.05, "{error} and {bound}");
    });
}

#[cfg(feature = "emulator")]
mod on_boards {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    use he_edge_tests::suite::Answered;
    use he_nn::boards::{self, BOARDS, Board};
    use he_nn::message::TimeUnit;
    use host_runner::evaluator;

    use super::*;

    /// How far instructions may be from the table.
    const TOLERANCE: f64 = 0.02;

    /// Where layers are merged: what is inlined of a term differs by the directory that
    /// the image is built in.
    const MERGED: f64 = 0.04;

    /// With the link: how much of a frame has come when the board looks differs from run to
    /// run, and by what else the host does: 10 % of the smallest network, beside two builds.
    const LINKED: f64 = 0.15;

    /// The same where another compiler than the table's made the image.
    const OTHER_COMPILER: f64 = 0.15;

    const HEADER: &str = "board,network,weights,compiler,instructions,with link,ram static,stack";

    /// What each claim needs: a network, its weights and a board.
    const CLAIMS: &[(&str, WeightMode, &str)] = &[
        ("mnist-mlp64", WeightMode::Plain, "mps2-an386"),
        ("mnist-mlp64", WeightMode::Encrypted, "mps2-an386"),
        // The same in half of the memory, and what does not fit it.
        ("mnist-mlp64", WeightMode::Plain, "mps2-an386-256k"),
        ("mnist-mlp64", WeightMode::Encrypted, "mps2-an386-256k"),
        // An Armv8-M processor.
        ("mnist-mlp64", WeightMode::Plain, "mps2-an505"),
        ("pima-logreg", WeightMode::Plain, "mps2-an386-256k"),
        // A convolution and three layers, in external memory.
        ("mnist-cnn", WeightMode::Plain, "mps2-an500"),
        // Layers without an activation between them.
        ("fashion-cryptonets", WeightMode::Plain, "mps2-an500"),
        ("mnist-cryptonets", WeightMode::Encrypted, "mps2-an500"),
        ("mnist-fcnn", WeightMode::Encrypted, "mps2-an500"),
        // A polynomial of degree three.
        ("drawn-cubic", WeightMode::Plain, "mps2-an500"),
    ];

    /// At most, instructions on the default board.
    const MOST: [(WeightMode, u64); 2] = [
        (WeightMode::Plain, 84_000_000),
        (WeightMode::Encrypted, 115_000_000),
    ];

    /// Arena of the reference network with plain weights, two limbs for transforms that are
    /// put off included.
    const ARENA_BYTES: usize = 245_760;

    fn table() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../firmware/benches/inference.csv")
    }

    type Key = (String, String, String);

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Figures {
        compiler: String,
        instructions: u64,
        with_link: u64,
        ram_static: u32,
        stack: u32,
    }

    impl Figures {
        fn of(answered: &Answered) -> Self {
            let memory = answered.memory();
            Self {
                compiler: answered.compiler.clone().unwrap(),
                instructions: answered.inferences[0].total().unwrap(),
                with_link: answered.inferences[0].busy.unwrap(),
                ram_static: memory.static_bytes,
                stack: memory.stack_peak_bytes,
            }
        }

        /// Compares with what is committed.
        fn check(&self, key: &Key, committed: &BTreeMap<Key, Self>) {
            let then = committed.get(key);
            let then = then.unwrap_or_else(|| panic!("the table has no row of {key:?}: {self:?}"));
            let tolerance = if then.compiler != self.compiler {
                OTHER_COMPILER
            } else if key.1 == "fashion-cryptonets" {
                MERGED
            } else {
                TOLERANCE
            };
            let parts = |figures: &Self| {
                [
                    (figures.instructions as f64, tolerance),
                    (figures.with_link as f64, tolerance.max(LINKED)),
                    (figures.ram_static.into(), tolerance),
                    (figures.stack.into(), tolerance),
                ]
            };
            // Where it takes less, the table is behind.
            for ((was, tolerance), (is, _)) in parts(then).into_iter().zip(parts(self)) {
                assert!(
                    (is / was - 1.0).abs() <= tolerance,
                    "{key:?}: {then:?} has become {self:?}: if that is meant, write the table anew \
                     with HE_EDGE_UPDATE_INFERENCE=1"
                );
            }
        }
    }

    fn committed() -> BTreeMap<Key, Figures> {
        let text = fs::read_to_string(table()).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(HEADER));
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            let [
                board,
                network,
                weights,
                compiler,
                instructions,
                with_link,
                ram,
                stack,
            ] = fields[..]
            else {
                panic!("{line}");
            };
            let figures = Figures {
                compiler: compiler.into(),
                instructions: instructions.parse().unwrap(),
                with_link: with_link.parse().unwrap(),
                ram_static: ram.parse().unwrap(),
                stack: stack.parse().unwrap(),
            };
            ((board.into(), network.into(), weights.into()), figures)
        };
        lines.map(row).collect()
    }

    fn write(rows: &BTreeMap<Key, Figures>) {
        let mut text = format!("{HEADER}\n");
        for ((board, network, weights), f) in rows {
            let Figures {
                compiler,
                instructions,
                with_link,
                ram_static,
                stack,
            } = f;
            text.push_str(&format!(
                "{board},{network},{weights},{compiler},{instructions},{with_link},{ram_static},{stack}\n"
            ));
        }
        fs::write(table(), text).unwrap();
    }

    /// The same plan in this process gives the same logits; memory and instructions are
    /// what the plan says.
    fn check(case: &Case, weights: WeightMode, board: &'static Board, answered: &Answered) {
        let what = format!("{}, weights {}, {}", case.name, word(weights), board.name);
        let plan = case.plan(weights, board.target()).unwrap();
        let session = evaluator::in_process(&plan).unwrap();
        let session = he_edge_tests::suite::over(session, case, &plan, answered.inferences.len());
        assert!(
            session == answered.bits(),
            "{what}: other logits than in process"
        );
        let inference = &answered.inferences[0];
        assert_eq!(inference.board, board.name);
        assert_eq!(inference.unit, TimeUnit::Instructions);
        assert_eq!(inference.stages.len(), answered.steps, "{what}");
        for (stage, step) in inference.stages.iter().zip(0..) {
            assert!(
                stage.step == step && stage.time > 100_000,
                "{what}: {stage:?}"
            );
        }
        let ratio = answered.estimate as f64 / inference.total().unwrap() as f64;
        assert!(
            (0.85..1.15).contains(&ratio),
            "{what}: estimate over count {ratio}"
        );
        let memory = answered.memory();
        let fixed = memory.static_bytes as usize - answered.arena_bytes;
        assert!(
            fixed <= board.fixed_bytes,
            "{what}: {fixed} bytes beside the arena"
        );
        let peak = memory.stack_peak_bytes as usize;
        assert!(peak <= board.stack_bytes / 2, "{what}: {memory:?}");
        assert!(
            memory.static_bytes as usize + board.stack_bytes
                <= board.ram_bytes + board.external_bytes,
            "{what}: {memory:?}"
        );
        if case.name == "mnist-mlp64" && board.name == boards::DEFAULT_BOARD {
            let most = MOST
                .into_iter()
                .find(|(mode, _)| *mode == weights)
                .unwrap()
                .1;
            let total = inference.total().unwrap();
            assert!(total <= most, "{what}: {total} instructions");
            if weights == WeightMode::Plain {
                assert_eq!(answered.arena_bytes, ARENA_BYTES);
            }
        }
    }

    #[test]
    fn networks_run_on_boards_or_are_refused_in_a_sentence() {
        let cases = cases();
        let emulated = || BOARDS.iter().filter(|board| board.machine.is_some());
        let is_long = std::env::var_os("HE_EDGE_LONG").is_some();
        let mut work = Vec::new();
        for case in &cases {
            for weights in WEIGHTS {
                for board in emulated() {
                    let claim = (case.name, weights, board.name);
                    if is_long || CLAIMS.contains(&claim) {
                        work.push((case, weights, board));
                    }
                }
            }
        }
        assert!(work.len() >= CLAIMS.len());
        let rows = on_two_threads(&work, |&(case, weights, board)| {
            let device = Device::Board(board);
            Row {
                network: case.name,
                weights,
                device,
                outcome: run(case, weights, device, 1),
            }
        });
        show(&text(&rows));
        let measured = work
            .iter()
            .zip(&rows)
            .filter_map(|((case, weights, board), row)| {
                let answered = row.outcome.as_ref().ok()?;
                let names = [board.name, case.name, word(*weights)].map(str::to_owned);
                Some((names.into(), Figures::of(answered)))
            });
        let measured: BTreeMap<Key, Figures> = measured.collect();
        if std::env::var_os("HE_EDGE_UPDATE_INFERENCE").is_some() {
            let mut all = if table().exists() {
                committed()
            } else {
                BTreeMap::new()
            };
            all.extend(measured.clone());
            write(&all);
        }
        for (&(case, weights, board), row) in work.iter().zip(&rows) {
            match &row.outcome {
                Ok(answered) => check(case, weights, board, answered),
                Err(error) => {
                    let allowed = may_refuse(case, row.device, error);
                    assert!(allowed, "{}: {error}", case.name);
                }
            }
        }
        let committed = committed();
        for (key, figures) in &measured {
            figures.check(key, &committed);
        }
        if is_long {
            assert!(
                measured.keys().eq(committed.keys()),
                "the table has other rows"
            );
        }
    }
}
