//! Circuits on emulated boards: weights that come encrypted, and a convolutional
//! network whose arena lies in external RAM.

use he_nn::boards;
use he_nn::bundled;
use he_nn::circuit::Weights;
use he_nn::clear;
use he_nn::message::{StageKind, TimeUnit};
use he_nn::model::Model;
use host_runner::circuit::{Keys, device};
use host_runner::client::Inference;
use host_runner::commands::circuit::BoardReport;
use host_runner::device::emulator::Emulator;
use host_runner::device::firmware_build::{self, Options};
use host_runner::device::{Connection, DEFAULT_BOARD, Transport};
use host_runner::evaluator::in_process_program;

fn infer(
    transport: impl Transport,
    model: &Model<'_>,
    weights: Weights,
    images: usize,
) -> Vec<Inference> {
    let (circuit, _) = device::plan(None, *model, weights).unwrap();
    let keys = Keys::from_seed(circuit.params(), &[7; 32]).unwrap();
    let mut client = device::Client::with_keys(circuit, keys).unwrap();
    let mut link = Connection::new(transport);
    let digits = bundled::digits().unwrap();
    let chosen = digits.images[3..].iter().zip(&digits.labels[3..]);
    let mut inferences = Vec::new();
    for (image, &label) in chosen.take(images) {
        let pixels = image.as_slice();
        let inference = client.infer(&mut link, pixels, |_, _| {}).unwrap();
        assert_eq!(inference.label(), usize::from(label));
        let clear = clear::logits(model, pixels).unwrap();
        let error = inference
            .logits
            .iter()
            .zip(&clear)
            .map(|(a, b)| (a - b).abs());
        let bound = client.circuit().logit_error().six_sigma;
        assert!(error.fold(0.0, f64::max) < bound);
        inferences.push(inference);
    }
    inferences
}

/// The board and a thread of this process give the same logits, bit for bit; memory
/// and instructions are what the plan says.
fn the_same(name: &str, board: &str, weights: Weights, images: usize) {
    let file = bundled::model(name).unwrap();
    let model = Model::parse(file).unwrap();
    let (_, program) = device::plan(None, model, weights).unwrap();
    let encrypted = weights == Weights::Encrypted;
    let held = (!encrypted).then_some(file);
    let in_process = in_process_program(program.clone(), held).unwrap();
    let host = infer(in_process, &model, weights, images);

    let path = bundled::source(name).unwrap();
    let image = firmware_build::build(&Options {
        board,
        model: Some(&path),
        params: program.params(),
        features: if encrypted {
            &["encrypted-weights"]
        } else {
            &[]
        },
    })
    .unwrap();
    let emulator = Emulator::start(board, &image, Box::new(|_| ())).unwrap();
    let emulated = infer(emulator, &model, weights, images);

    let board = boards::find(board).unwrap();
    let plan = BoardReport::of(&program, board).on_board;
    for (host, emulated) in host.iter().zip(&emulated) {
        let bits = |logits: &[f64]| logits.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&host.logits), bits(&emulated.logits));
        assert_eq!(emulated.board, board.name);
        assert_eq!(emulated.unit, TimeUnit::Instructions);
        for (stage, step) in emulated.stages.iter().zip(0..) {
            assert_eq!(stage.kind, StageKind::Step(step));
            assert!(stage.time > 1_000_000, "{stage:?}");
        }
        let total = emulated.total().unwrap();
        let ratio = plan.instructions_estimate as f64 / total as f64;
        assert!(
            (0.85..1.15).contains(&ratio),
            "estimate over count: {ratio}"
        );
        let memory = emulated.memory;
        let fixed = memory.static_bytes as usize - plan.arena_bytes;
        assert!(fixed <= board.fixed_bytes, "{fixed} bytes beside the arena");
        let peak = memory.stack_peak_bytes as usize;
        assert!(peak <= board.stack_bytes / 2, "{memory:?}");
    }
}

#[test]
fn weights_come_encrypted_to_a_board_of_512_kb() {
    the_same("mnist-mlp64", DEFAULT_BOARD, Weights::Encrypted, 2);
}

#[test]
fn a_convolutional_network_runs_in_external_memory() {
    the_same("mnist-cnn", "mps2-an500", Weights::Plain, 1);
}
