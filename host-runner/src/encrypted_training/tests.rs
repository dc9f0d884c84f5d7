use chacha20::ChaCha8Rng;
use he_core::ckks::Ciphertext;
use he_core::wire::{self, Kind};
use he_nn::model::Model as NetworkModel;
use rand_core::{Rng, SeedableRng};

use super::*;

/// Weights are this near to those in the clear; they are up to about 0.6, and a
/// step changes them by more than 0.05.
const NEAR: f64 = 0.01;

fn uniform(rng: &mut ChaCha8Rng) -> f32 {
    rng.next_u32() as f32 / (1u64 << 31) as f32 - 1.0
}

/// A rule with some noise, features of different sizes.
fn drawn(rows: usize) -> Table {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut table = Table {
        rows: Vec::new(),
        labels: Vec::new(),
    };
    for _ in 0..rows {
        let row: [f32; FEATURES] = std::array::from_fn(|i| (i + 1) as f32 * uniform(&mut rng));
        let score = 3.0 * row[0] - row[3] + 0.4 * row[7] + 0.8 + uniform(&mut rng);
        table.rows.push(row);
        table.labels.push(u8::from(score > 0.0));
    }
    table
}

fn standardised(table: &Table) -> Rows {
    let (means, deviations) = table.standard();
    Rows::standardised(table, &means, &deviations)
}

#[test]
fn one_step_by_hand() {
    let rows = Rows {
        features: vec![[1.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0], [0.0; FEATURES]],
        labels: vec![1, 0],
    };
    let first = clear::epoch(&Model::ZERO, &rows);
    assert_eq!(first.weights, [0.25, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    assert_eq!(first.bias, 0.0);
    // Only the first row has a logit, 5.25, and only weights decay.
    let second = clear::epoch(&first, &rows);
    let error = 0.5 + 0.197 * 5.25 - 0.004 * 5.25f64.powi(3) - 1.0;
    assert!((second.weights[0] - (0.95 * 0.25 - error / 2.0)).abs() < 1e-12);
    assert!((second.weights[7] - (0.95 - 2.0 * error)).abs() < 1e-12);
    assert!((second.bias + (error + 0.5) / 2.0).abs() < 1e-12);
}

/// Encrypted training ends where training in the clear does; with refresh in more
/// ciphertexts than one.
fn agrees(mode: Mode, epochs: usize) {
    let (train, test) = drawn(900).split(1);
    assert!(mode == Mode::NoRefresh || Circuit::new(mode, train.rows.len()).unwrap().parts() > 1);
    let trained = train_on(&train, &test, mode, epochs, &[7; 32]).unwrap();
    let report = &trained.report;
    let rows = standardised(&train);
    let mut clear = Model::ZERO;
    for epoch in &report.epochs {
        let next = clear::epoch(&clear, &rows);
        assert!(next.difference(&clear) > 5.0 * NEAR, "a step is visible");
        assert!(epoch.weight_difference < NEAR, "{report:?}");
        clear = next;
    }
    assert_eq!(report.epochs.len(), epochs);
    assert!(trained.model.difference(&clear) < NEAR);
    let last = report.epochs.last().unwrap();
    assert!(last.clear_right * 10 > report.test_rows * 9, "{report:?}");
    assert!(last.flips * 50 <= report.test_rows, "{report:?}");

    // The file says what the decrypted weights do.
    let file = NetworkModel::parse(&trained.file).unwrap();
    let measured = he_nn::clear::measure(&file, test.samples()).unwrap();
    assert_eq!(
        (file.name(), measured.right),
        (ARCHITECTURE, report.quantized_right)
    );
    assert!(report.quantized_right.abs_diff(last.right) * 50 <= report.test_rows);
}

#[test]
fn with_refresh_as_in_the_clear() {
    agrees(Mode::Refresh, 4);
}

#[test]
fn without_refresh_as_in_the_clear() {
    agrees(Mode::NoRefresh, 5);
}

#[test]
fn levels_and_scales() {
    let circuit = Circuit::new(Mode::NoRefresh, 538).unwrap();
    assert_eq!(circuit.parts(), 1);
    assert_eq!(circuit.params().security().bits(), 128);
    let steps = circuit.steps(5).unwrap();
    let levels: Vec<usize> = steps.iter().map(|step| step.output.level).collect();
    assert_eq!(levels, [12, 9, 6, 3, 0]);
    for step in &steps {
        let drift = step.output.scale / circuit.fresh().scale - 1.0;
        assert!(drift.abs() < 0.03, "{step:?}");
        assert!((16.0..64.0).contains(&step.factor), "{step:?}");
    }
    for epochs in [0, 6] {
        let error = circuit.steps(epochs).unwrap_err();
        assert!(matches!(error, Error::Epochs { most: 5, .. }), "{error}");
    }
    let refreshed = Circuit::new(Mode::Refresh, 538).unwrap();
    assert_eq!((refreshed.parts(), refreshed.rows_each()), (3, 256));
    assert_eq!(refreshed.steps(40).unwrap().len(), 40);
    assert!(refreshed.steps(1001).is_err());
    for mode in [Mode::Refresh, Mode::NoRefresh] {
        for rows in [0, 10_000_000] {
            let error = Circuit::new(mode, rows).unwrap_err();
            assert!(matches!(error, Error::Rows { .. }), "{error}");
        }
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let rows = standardised(&drawn(40));
    let circuit = Circuit::new(Mode::Refresh, 40).unwrap();
    let mut client = Client::from_seed(circuit, &[1; 32]).unwrap();
    let keys = client.keys().unwrap();
    let data = client.encrypt_rows(&rows).unwrap();
    let model = client.encrypt_model(&Model::ZERO).unwrap();

    // Keys that are missing, or cut short; data of another number; a model of
    // another set.
    let last = circuit.keys().last().unwrap().1;
    let last = Kind::SwitchingKey.object_len(circuit.params(), last);
    let missing = &keys[..keys.len() - last.unwrap()];
    let error = Evaluator::new(circuit, missing, &data).err().unwrap();
    assert!(matches!(error, Error::Engine(EngineError::Count { .. })));
    let short = &keys[..keys.len() - 1];
    let error = Evaluator::new(circuit, short, &data).err().unwrap();
    assert!(matches!(error, Error::Library(_)), "{error}");
    let mut doubled = data.clone();
    doubled.labels.push(data.labels[0].clone());
    assert!(Evaluator::new(circuit, &keys, &doubled).is_err());
    let mut exchanged = data.clone();
    std::mem::swap(&mut exchanged.labels, &mut exchanged.gradient);
    let error = Evaluator::new(circuit, &keys, &exchanged).err().unwrap();
    let scale = matches!(error, Error::Library(he_core::Error::Scale { .. }));
    assert!(scale, "{error}");
    let mut evaluator = Evaluator::new(circuit, &keys, &data).unwrap();
    let other = Circuit::new(Mode::NoRefresh, 40).unwrap();
    let mut foreign = Client::from_seed(other, &[2; 32]).unwrap();
    assert!(
        evaluator
            .read(&foreign.encrypt_model(&Model::ZERO).unwrap())
            .is_err()
    );
    let few = standardised(&drawn(39));
    assert!(client.encrypt_rows(&few).is_err());

    // A model that the client has not renewed.
    let held = evaluator.read(&model).unwrap();
    let held = evaluator.epoch(held).unwrap();
    let weights = evaluator.write(&held).unwrap();
    assert!(matches!(evaluator.epoch(held), Err(Error::Stale)));

    // Answers that the client did not expect: another level or scale, the bytes of
    // a transparent ciphertext, weights that fill the modulus.
    let [step] = circuit.steps(1).unwrap()[..] else {
        panic!("one step");
    };
    assert!(client.decrypt_model(&weights, step.output).is_ok());
    let scale = 2.0 * step.output.scale;
    for expected in [
        Shape {
            scale,
            ..step.output
        },
        step.input,
    ] {
        assert!(client.decrypt_model(&weights, expected).is_err());
    }
    let params = circuit.params();
    let answer = |scale, c0, c1| {
        let ct = Ciphertext::new(params, 0, scale, c0, c1).unwrap();
        let mut bytes = vec![0; Kind::Ciphertext.object_len(params, 0).unwrap()];
        wire::write_ciphertext(params, &ct, &mut bytes).unwrap();
        client.decrypt_model(&bytes, step.output)
    };
    let (n, scale) = (params.n(), step.output.scale);
    let error = answer(scale, vec![0; n], vec![1; n]).unwrap_err();
    assert!(matches!(error, Error::Library(he_core::Error::Transparent)));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut noise = || -> Vec<u32> { (0..n).map(|_| rng.next_u32() >> 6).collect() };
    let error = answer(scale, noise(), noise()).unwrap_err();
    assert!(matches!(error, Error::Wrapped { .. }), "{error}");
}
