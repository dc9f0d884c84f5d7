//! Networks of other shapes than the reference, encrypted, in process.

use he_edge_tests::two_layer;
use he_nn::clear;
use he_nn::model::Model;
use he_nn::network::Weights;
use he_nn::plan::Plan;
use host_runner::client::Client;
use host_runner::device::Connection;
use host_runner::evaluator::{PARAMS, in_process};

/// A network with weights that are not symmetric in anything, as a file.
fn network(inputs: u16, hidden: u16, classes: u16) -> Vec<u8> {
    let weights = |rows: u16, columns: u16, step: u32| -> Vec<i8> {
        let count = u32::from(rows) * u32::from(columns);
        (0..count)
            .map(|i| ((i * step % 251) as i32 - 125) as i8)
            .collect()
    };
    let floats = |count: u16, step: f32| -> Vec<f32> {
        (0..count).map(|i| f32::from(i % 7) * step - 0.5).collect()
    };
    let first = Weights {
        weights: weights(hidden, inputs, 97),
        scale: 0.05 / f32::from(inputs).sqrt(),
        biases: floats(hidden, 0.2),
    };
    let second = Weights {
        weights: weights(classes, hidden, 89),
        scale: 0.05 / f32::from(hidden).sqrt(),
        biases: floats(classes, 0.3),
    };
    // Ranges that the pixels below stay within.
    two_layer("shape", inputs, first, second, [8.0, 64.0, 15.0])
}

#[test]
fn small_odd_and_wide_networks_give_their_logits() {
    for (inputs, hidden, classes) in [
        (1, 1, 1),
        (2, 1, 2),
        (33, 2, 3),
        (100, 3, 10),
        (784, 50, 10),
        (784, 64, 32),
        (500, 128, 16),
        (20, 1024, 2),
    ] {
        let shape = format!("{inputs}-{hidden}-{classes}");
        let file = network(inputs, hidden, classes);
        let model = Model::parse(&file).unwrap();
        let plan = Plan::new(PARAMS, &model).unwrap();
        let pixels: Vec<u8> = (0..u32::from(inputs))
            .map(|i| (i * 37 % 256) as u8)
            .collect();
        let plain = clear::logits(&model, &pixels[..]).unwrap();
        assert!(plain.iter().any(|x| x.abs() > 0.1), "{shape}: {plain:?}");

        let mut client = Client::from_seed(plan, &model, &[1; 32]).unwrap();
        let mut link = Connection::new(in_process(&file).unwrap());
        let result = client.infer(&mut link, &pixels, |_, _| {}).unwrap();
        let error = result
            .logits
            .iter()
            .zip(&plain)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        let bound = plan.logit_error();
        assert!(
            error < bound.six_sigma,
            "{shape}: {error} against {bound:?}"
        );
        assert!(bound.six_sigma < bound.worst_case);
    }
}
