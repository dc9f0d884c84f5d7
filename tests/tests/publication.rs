//! What `infer --publish` gives to others: labels of any answer, logits of batches that
//! were evaluated in this process, each counted; and what it refuses, with figures.

#![expect(clippy::print_stdout, reason = "the figures, for `--nocapture`")]

use std::time::Duration;

use he_core::ckks::publish::{Allowance, Budget, HonestEvaluator};
use he_nn::bundled;
use he_nn::clear::{self, SampleError};
use he_nn::model::{Input, Model, Sample};
use he_nn::plan::{Packing, Target, WeightMode};
use host_runner::budget::{BudgetError, FileBudget};
use host_runner::client::publication::{Form, PublicationError, PublicationTerms, Published};
use host_runner::client::{BatchClient, Client, ClientError};
use host_runner::device::{Device, Opening};
use host_runner::engine::batch::BatchEngine;
use host_runner::planning;
use host_runner::report::infer::{Entry, Run};
use host_runner::service::{self, Limits, Request, Service, ServiceError};

fn terms(form: Form, queries: u32) -> PublicationTerms {
    PublicationTerms {
        form,
        allowance: Allowance::new(queries, 30).unwrap(),
        budget: None,
        precision_bits: 3.0,
    }
}

fn model(name: &str) -> Model<'static> {
    Model::parse(bundled::model(name).unwrap()).unwrap()
}

fn open(
    name: &str,
    packing: Packing,
    publish: PublicationTerms,
) -> Result<Box<dyn Service>, ServiceError> {
    let request = Request {
        device: &Device::InProcess,
        params: None,
        terms: WeightMode::Plain.into(),
        by_time: false,
        packing,
        trace: false,
        audit: 0.0,
        key: None,
        publish: Some(publish),
        receipts: None,
        limits: Limits::default(),
        padding: None,
        opening: Opening {
            model: None,
            log: || Box::new(|_| ()),
            line_rate: None,
            progress: &mut (),
        },
    };
    service::open(model(name), request)
}

/// Rows about the mean, none of them like another.
fn rows(count: usize) -> Vec<Vec<f32>> {
    let model = model("pima-logreg");
    let Input::Features { means, deviations } = model.input() else {
        panic!("not a table");
    };
    let row = |k: usize| {
        let columns = means.iter().zip(deviations.iter()).enumerate();
        let value = |(i, (mean, deviation)): (usize, (f32, f32))| {
            mean + deviation * ((7 * k + 3 * i) % 11) as f32 / 5.0 - deviation
        };
        columns.map(value).collect()
    };
    (0..count).map(row).collect()
}

#[test]
fn labels_are_those_of_the_logits_and_are_counted_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let budget = folder.path().join("budget.json");
    let digits = bundled::digits().unwrap();
    let samples: Vec<Sample<'_>> = digits.images.iter().take(5).map(Sample::from).collect();
    let mut wanted = terms(Form::Labels, 3);
    wanted.budget = Some(budget.clone());
    let mut service = open("mnist-mlp64", Packing::Latency, wanted.clone()).unwrap();
    let answers = service.infer(&samples, &mut ()).unwrap();
    for (k, answer) in answers.into_iter().enumerate() {
        let inference = answer.unwrap();
        let label = inference.label();
        match inference.handed_on.published.unwrap() {
            Ok(published) => {
                assert!(k < 3);
                assert_eq!(published, Published::Label { label });
            }
            Err(error) => {
                let spent = BudgetError::Spent { allowed: 3 };
                assert!(k >= 3);
                assert_eq!(error.to_string(), format!("nothing was published: {spent}"));
            }
        }
    }
    assert_eq!(service.publications(), Some((3, 3)));
    drop(service);
    let counted = FileBudget::open(&budget).unwrap();
    assert_eq!((counted.spent(), counted.allowance().queries()), (3, 3));
    // Of another key, which the next command has.
    let again = open("mnist-mlp64", Packing::Latency, wanted);
    assert!(again.is_err_and(|error| error.to_string().contains("cannot be made")));
}

#[test]
fn labels_of_a_single_logit_are_its_sign_one_by_one_and_in_batches() {
    let rows = rows(40);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    for packing in [Packing::Latency, Packing::Batch] {
        let mut service = open("pima-logreg", packing, terms(Form::Labels, 40)).unwrap();
        let mut labels = Vec::new();
        for answer in service.infer(&samples, &mut ()).unwrap() {
            let inference = answer.unwrap();
            let label = inference.label();
            labels.push(label);
            let published = inference.handed_on.published.unwrap().unwrap();
            assert_eq!(published, Published::Label { label });
        }
        assert!(labels.contains(&0) && labels.contains(&1), "{labels:?}");
        assert_eq!(service.publications(), Some((40, 40)));
    }
    let refusal = open("mnist-mlp64", Packing::Batch, terms(Form::Labels, 9)).err();
    assert!(matches!(
        refusal,
        Some(ServiceError::Publication(PublicationError::Logits {
            logits: 10
        }))
    ));
}

/// One publication for a whole batch: each value within what is promised, and with noise.
#[test]
fn values_of_a_batch_are_as_exact_as_is_said_and_cost_one_publication() {
    let rows = rows(600);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    let mut service = open("pima-logreg", Packing::Batch, terms(Form::Values, 1)).unwrap();
    let mut largest: f64 = 0.0;
    let mut within = 0.0;
    for answer in service.infer(&samples, &mut ()).unwrap() {
        let inference = answer.unwrap();
        let Published::Values {
            values,
            precision_bits,
        } = inference.handed_on.published.unwrap().unwrap()
        else {
            panic!("a label");
        };
        assert!(precision_bits >= 3.0);
        within = (-precision_bits).exp2();
        assert_eq!(values.len(), 1);
        largest = largest.max((values[0] - inference.logits[0]).abs());
    }
    assert!(largest <= within, "{largest} {within}");
    // Six standard deviations, of which some hundred samples show two or more.
    assert!(largest > within / 8.0, "{largest} {within}");
    assert_eq!(service.publications(), Some((1, 1)));
    // And no second batch.
    let answers = service.infer(&samples[..1], &mut ()).unwrap();
    let inference = answers.into_iter().next().unwrap().unwrap();
    let refusal = inference.handed_on.published.unwrap().unwrap_err();
    assert!(matches!(
        refusal,
        PublicationError::Batch(sentence) if sentence.contains("all 1 publications")
    ));
}

/// The noise relies on values of twice those of training: a sample with a larger one
/// is refused before anything is encrypted, with its figure, which is the
/// client's, and the others of its batch are published.
#[test]
fn values_beyond_the_room_beside_the_noise_are_not_published() {
    let mut rows = rows(2);
    rows[1][5] = 900.0;
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    let mut service = open("pima-logreg", Packing::Batch, terms(Form::Values, 2)).unwrap();
    let answers = service.infer(&samples, &mut ()).unwrap();
    let mut run = Run::new(service.deployment());
    for (index, answer) in answers.iter().enumerate() {
        run.add(Entry::of((index, 0), answer, 0));
    }
    let nothing = (Duration::ZERO, Duration::ZERO);
    let of = (2, "inproc".to_owned(), "pima-logreg".to_owned());
    let report = run.report(of.0, of.1, of.2, nothing, service.publications());
    let refusal = answers[1].as_ref().unwrap_err();
    let ClientError::Sample(SampleError::Range(beyond)) = refusal.error else {
        panic!("{refusal}");
    };
    assert!(beyond.value.abs() > beyond.limit, "{refusal}");
    let value = format!("{:.1}", beyond.value);
    assert!(refusal.to_string().contains(&value), "{refusal}");
    assert_eq!(report.images[1].refused(), Some(&*refusal.to_string()));
    // Others have the first sample's values, and nothing of the second.
    let published = report.published.unwrap();
    assert_eq!((published.allowed, published.spent), (2, 1));
    assert_eq!(published.answers.len(), 1);
    assert_eq!(published.answers[0].index, 0);
    assert!(published.unpublished.is_empty());
}

/// Of results that are not as they should be, others have a sentence without figures: one
/// logit that does not fit, and one that is not that in the clear.
#[test]
fn what_others_read_of_an_unpublished_batch_has_no_figure_of_it() {
    let model = model("pima-logreg");
    let plan = planning::batch_plan(None, model).unwrap();
    let rows = rows(3);
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    for form in [Form::Labels, Form::Values] {
        let mut client = BatchClient::new(plan.clone()).unwrap();
        client.publish_by(terms(form, 20)).unwrap();
        let keys = client.switching_keys().unwrap();
        let input = client.encrypt(&samples).unwrap();
        let mut engine = BatchEngine::new(plan.clone(), &keys).unwrap();
        let (result, _) = engine.evaluate(&input, || {}).unwrap();
        for (decrypted, clear) in [(1e6, 1e6), (0.5, 1.5), (f64::NAN, f64::NAN)] {
            let compared = |decrypted, clear| {
                client
                    .compared(samples[1], vec![decrypted], vec![clear])
                    .unwrap()
            };
            let mut logits = vec![compared(0.0, 0.0); 3];
            logits[1] = compared(decrypted, clear);
            let published = match form {
                Form::Labels => client.publish_labels(&result, &logits),
                Form::Values => client.publish_values(&result, &logits, HonestEvaluator::assume()),
            };
            let published: Vec<_> = published.unwrap().into_iter().flatten().collect();
            assert_eq!(published.len(), 3);
            let is_wrong = (decrypted - clear).abs() != 0.0;
            for (index, published) in published.into_iter().enumerate() {
                match published {
                    Err(refusal) => {
                        assert!(form == Form::Values || (index == 1 && is_wrong));
                        let is_beyond = matches!(refusal, PublicationError::Beyond);
                        assert_eq!(is_beyond, is_wrong, "{refusal}");
                        let sentence = refusal.to_string();
                        assert!(
                            !sentence.contains(|c: char| c.is_ascii_digit()),
                            "{sentence}"
                        );
                    }
                    Ok(_) => assert!(form == Form::Labels && !(index == 1 && is_wrong)),
                }
            }
            // Values were not counted.
            let counted = client.publications().unwrap().1;
            assert!(form == Form::Labels || counted == 0, "{counted}");
        }
    }
}

/// Labels are not what was asked for.
#[test]
fn a_client_of_single_samples_publishes_no_values() {
    let plan = planning::plan(None, model("pima-logreg"), WeightMode::Plain, Target::Host);
    let mut client = Client::new(plan.unwrap()).unwrap();
    let refusal = client.publish_by(terms(Form::Values, 1)).unwrap_err();
    assert!(
        matches!(refusal, ClientError::Publication(PublicationError::Single)),
        "{refusal}"
    );
    assert_eq!(client.publications(), None);
    client.publish_by(terms(Form::Labels, 1)).unwrap();
}

/// At the wide scale of what is published an input beyond the encoder's range is refused
/// like any other, and the others of its batch are published.
#[test]
fn inputs_beyond_the_encoder_do_not_end_a_run() {
    let mut rows = rows(1500);
    for row in rows.iter_mut().skip(1) {
        row[5] = 99999.0;
    }
    let samples: Vec<Sample<'_>> = rows.iter().map(|row| Sample::Features(row)).collect();
    let mut service = open("pima-logreg", Packing::Batch, terms(Form::Values, 1)).unwrap();
    let mut answers = service.infer(&samples, &mut ()).unwrap().into_iter();
    let first = answers.next().unwrap().unwrap();
    assert!(matches!(first.handed_on.published, Some(Ok(_))));
    for answer in answers {
        let refusal = answer.unwrap_err();
        assert!(matches!(refusal.error, ClientError::Sample(_)), "{refusal}");
    }
}

/// The logits of a network with an activation, to 8 bits: of magnitudes up to 16 that is
/// four bits after the point, after 1,024 publications at an advantage of 2^-18.
#[test]
fn logits_behind_a_square_are_published_in_batches() {
    let digits = bundled::digits().unwrap();
    let samples: Vec<Sample<'_>> = digits.images.iter().take(20).map(Sample::from).collect();
    let wanted = PublicationTerms {
        precision_bits: 4.0,
        ..terms(Form::Values, 1024)
    };
    let mut service = open("mnist-mlp64", Packing::Batch, wanted).unwrap();
    let params = service.deployment().params;
    assert!(params.n() <= 8192, "{}", params.n());
    let answers = service.infer(&samples, &mut ()).unwrap();
    // One publication per logit, of all samples together.
    assert_eq!(service.publications(), Some((1024, 10)));
    let (mut apart, mut worst) = (0, 0.0f64);
    for (answer, &sample) in answers.into_iter().zip(&samples) {
        let published = answer.unwrap().handed_on.published.unwrap().unwrap();
        let Published::Values {
            values,
            precision_bits,
        } = published
        else {
            panic!("{published:?}");
        };
        assert!(precision_bits >= 4.0);
        let clear = clear::logits(&model("mnist-mlp64"), sample).unwrap();
        assert_eq!(values.len(), clear.len());
        for (value, clear) in values.iter().zip(clear) {
            worst = worst.max((value - clear).abs() * precision_bits.exp2());
            apart += usize::from((value - clear).abs() > 1e-6);
        }
    }
    println!("{}: at most {worst:.2} of the error stated", params.name());
    // Of 200 values at six standard deviations, and not without noise.
    assert!(worst > 0.1 && worst < 1.0, "{worst}");
    assert!(apart > 190, "{apart}");
}

/// With the worst case, which the noise must hide, and what would help.
#[test]
fn values_without_precision_are_refused_before_anything_is_encrypted() {
    let few = terms(Form::Values, 1);
    let many = PublicationTerms {
        allowance: Allowance::new(u32::MAX, 80).unwrap(),
        ..few.clone()
    };
    for (packing, wanted) in [(Packing::Latency, few), (Packing::Batch, many)] {
        let refusal = open("mnist-mlp64", packing, wanted).err();
        let Some(ServiceError::Publication(refusal)) = refusal else {
            panic!("{packing:?}: published");
        };
        let PublicationError::NoPrecision { error, .. } = &refusal else {
            panic!("{refusal}");
        };
        // Of one sample no worst case is worth anything; that of a batch is small, and the
        // noise for 2^32 publications is large.
        let large = error.worst_case > 10.0;
        assert!(large == (packing == Packing::Latency), "{error:?}");
        assert!(error.six_sigma < 0.1, "{error:?}");
        println!("{packing:?}: {refusal}");
        let sentence = refusal.to_string();
        for part in ["worst case", "--publish labels", "--packing batch"] {
            assert!(sentence.contains(part), "{sentence}");
        }
    }
    // One sample's results end at level 0.
    let refusal = open("pima-logreg", Packing::Latency, terms(Form::Values, 1)).err();
    assert!(matches!(
        refusal,
        Some(ServiceError::Publication(PublicationError::NoPrecision {
            level: 0,
            ..
        }))
    ));
}
