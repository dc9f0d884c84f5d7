//! Samples unlike those of training: each is classified as in the clear, or refused;
//! none ends a run, and none is wrong and looks right.

use he_nn::bundled;
use he_nn::clear;
use he_nn::data::{PIXELS, SIDE};
use he_nn::model::{Input, Model, Sample};
use he_nn::plan::{Target, WeightMode};
use host_runner::planning;
use host_runner::service::{Batches, InMemory, Service};

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
fn images(model: &Model<'_>, count: usize) -> Vec<Odd> {
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
    let mut state = 7;
    while all.len() < count {
        let dark = next(&mut state) % 256;
        let pixel = |state: &mut u64| {
            let x = next(state) % 256;
            if x < dark { 0 } else { x as u8 }
        };
        all.push((0..PIXELS).map(|_| pixel(&mut state)).collect());
    }
    all.truncate(count.max(all.len().min(count)));
    all.into_iter().map(Odd::Image).collect()
}

/// Rows with a column at a missing value's code, scaled, constant, and random.
fn rows(means: &[f32], deviations: &[f32], count: usize) -> Vec<Odd> {
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
    let mut state = 11;
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
    all.into_iter().map(Odd::Row).collect()
}

fn odd(model: &Model<'_>, count: usize) -> Vec<Odd> {
    match model.input() {
        Input::Image(_) => images(model, count),
        Input::Features { means, deviations } => {
            let of = |floats: he_nn::model::Floats<'_>| floats.iter().collect::<Vec<f32>>();
            rows(&of(means), &of(deviations), count)
        }
    }
}

/// What became of samples.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    refused: usize,
    /// Further from the clear than the plan says, which the command reports.
    beyond: usize,
}

/// Has samples classified and compares with the clear.
fn drive(service: &mut dyn Service, model: &Model<'_>, odd: &[Odd], tally: &mut Tally) {
    let samples: Vec<Sample<'_>> = odd.iter().map(Odd::sample).collect();
    let answers = service.infer(&samples, &mut ()).unwrap();
    assert_eq!(answers.len(), samples.len());
    let allowed = service.deployment().logit_error.six_sigma;
    for (index, (answer, &sample)) in answers.iter().zip(&samples).enumerate() {
        let inference = match answer {
            Ok(inference) => inference,
            Err(error) => {
                let sentence = error.to_string();
                assert!(
                    sentence.contains("has room for"),
                    "{}: {sentence}",
                    model.name()
                );
                tally.refused += 1;
                continue;
            }
        };
        let plain = clear::logits(model, sample).unwrap();
        let errors = inference
            .logits
            .iter()
            .zip(&plain)
            .map(|(a, b)| (a - b).abs());
        let error = errors.fold(0.0, f64::max);
        if error <= allowed {
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
            assert!(
                inference.label() == label || near,
                "{} {index}",
                model.name()
            );
            tally.right += 1;
        } else {
            // An error grows with values beyond training; what wrapped around is off by
            // the modulus, four times the range or more.
            let range = f64::from(model.layers().last().unwrap().layer.range()).max(1.0);
            assert!(error < range, "{} {index}: {error} is a wrap", model.name());
            tally.beyond += 1;
        }
    }
}

fn models() -> impl Iterator<Item = Model<'static>> {
    let files = bundled::model_names().map(|name| bundled::model(name).unwrap());
    let models = files.map(|file| Model::parse(file).unwrap());
    models.filter(|model| planning::batch_plan(None, *model).is_ok())
}

#[test]
fn odd_samples_in_batches_are_right_or_refused() {
    let mut tally = Tally::default();
    for model in models() {
        let mut service = Batches::new(planning::batch_plan(None, model).unwrap()).unwrap();
        let count = service.samples();
        drive(&mut service, &model, &odd(&model, count), &mut tally);
    }
    let all = tally.right + tally.refused + tally.beyond;
    assert!(all >= 20_000, "{all}");
    assert!(tally.right > 0 && tally.refused > 0, "{tally:?}");
}

#[test]
fn odd_samples_one_by_one_are_right_or_refused() {
    let mut tally = Tally::default();
    for model in models() {
        for weights in [WeightMode::Plain, WeightMode::Encrypted] {
            let plan = planning::plan(None, model, weights, Target::Host).unwrap();
            let mut service = InMemory::new(plan).unwrap();
            drive(&mut service, &model, &odd(&model, 120), &mut tally);
        }
    }
    assert!(tally.right > 0 && tally.refused > 0, "{tally:?}");
}
