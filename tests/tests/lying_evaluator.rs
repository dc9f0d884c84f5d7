//! What an evaluator that lies gets past the client, and what not: an answer of another
//! request, and an answer that was shifted a little; and what a receipt of it shows
//! somebody else.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use he_core::ckks::publish::Allowance;
use he_core::wire::{pack, unpack};
use he_edge_tests::Reference;
use he_edge_tests::command::binary;
use he_edge_tests::mangler::{Control, Damage, Hook, Mangler, frame, replies};
use he_nn::bundled;
use he_nn::message::{CHUNK_COEFFS, Reply};
use he_nn::model::{Model, Sample};
use he_nn::program::Program;
use host_runner::client::ClientError;
use host_runner::client::publication::{Form, PublicationError, PublicationTerms, Published};
use host_runner::device::{Connection, DeviceError, Transport};
use host_runner::evaluator;
use host_runner::receipts::{Auditor, Receipt, ReceiptError, Recorder, Uploads, Verdict};
use host_runner::report::infer::Entry;
use host_runner::service::{Remote, Service, ServiceError};
use serde_json::Value;

/// Clients that an old answer is given to.
const REPLAYS: u8 = 100;

type Frames = Arc<Mutex<HashMap<(u8, u8, u16), Vec<u8>>>>;

/// Whose frame of a result it is.
fn result_frame(bytes: &[u8]) -> Option<(u8, u8, u16)> {
    let mut found = None;
    replies(bytes, |reply| {
        if let Reply::Result {
            part, limb, offset, ..
        } = reply
        {
            found = Some((part, limb, offset));
        }
    });
    found
}

fn record(frames: &Frames) -> Hook {
    let frames = Arc::clone(frames);
    Box::new(move |bytes| {
        if let Some(place) = result_frame(bytes) {
            frames.lock().unwrap().insert(place, bytes.clone());
        }
    })
}

fn replay(frames: &Frames) -> Hook {
    let frames = Arc::clone(frames);
    Box::new(move |bytes| {
        if let Some(place) = result_frame(bytes) {
            bytes.clone_from(&frames.lock().unwrap()[&place]);
        }
    })
}

fn down(control: &Control, hook: Hook) {
    control.set(Damage {
        down: Some(hook),
        ..Damage::default()
    });
}

/// Under the same key, of the same sample: everything is as it should be but the request.
#[test]
fn no_answer_of_another_request_is_taken() {
    let reference = Reference::new();
    let digits = bundled::digits().unwrap();
    let (mangler, control) = Mangler::new(evaluator::in_process(&reference.plan).unwrap());
    let mut link = Connection::new(mangler);
    let mut caught = 0;
    for (seed, image) in (0..REPLAYS).zip(digits.images.iter().cycle()) {
        let mut client = reference.client(seed);
        let frames = Frames::default();
        down(&control, record(&frames));
        let honest = client.infer(&mut link, image, &mut ()).unwrap();
        reference.check(image, &honest);
        down(&control, replay(&frames));
        let replayed = client.infer(&mut link, image, &mut ());
        caught += u32::from(replayed.is_err_and(|error| error.spends_key()));
        // And the key is not used again: each refusal would tell something about it.
        let after = client.infer(&mut link, image, &mut ());
        assert!(matches!(after, Err(ClientError::Spent)), "{after:?}");
    }
    assert_eq!(caught, u32::from(REPLAYS));
}

/// Adds a constant to the result's first part, transformed as it is: every slot moves by
/// the same, and every logit, a sum of lanes, by so much.
fn shift(reference: &Reference, by: f64) -> Hook {
    let plan = &reference.plan;
    let by = (by / plan.lanes() as f64 * plan.output_scale()) as i64;
    let primes: Vec<_> = (0..=plan.output_level())
        .map(|limb| *plan.params().prime(limb).unwrap().modulus())
        .collect();
    Box::new(move |bytes| {
        let mut shifted = None;
        replies(bytes, |reply| {
            if let Reply::Result {
                part: 0,
                limb,
                offset,
                bytes,
            } = reply
            {
                let prime = primes[usize::from(limb)];
                let by = by.rem_euclid(prime.value().into()) as u32;
                let mut words = [0; CHUNK_COEFFS];
                unpack(bytes, &prime, &mut words).unwrap();
                for word in &mut words {
                    *word = (*word + by) % prime.value();
                }
                let mut packed = bytes.to_vec();
                pack(&words, &prime, &mut packed).unwrap();
                shifted = Some(frame(&Reply::Result {
                    part: 0,
                    limb,
                    offset,
                    bytes: &packed,
                }));
            }
        });
        if let Some(shifted) = shifted {
            *bytes = shifted;
        }
    })
}

/// One that was made up on the request's own answer looks right; only evaluating again
/// shows it.
#[test]
fn an_answer_that_was_shifted_is_found_by_an_audit_alone() {
    const SHIFT: f64 = 0.25;
    let reference = Reference::new();
    let digits = bundled::digits().unwrap();
    let sample = Sample::from(&digits.images[0]);
    let mut logits = Vec::new();
    for (audit, lies) in [(0.0, false), (1.0, false), (0.0, true), (1.0, true)] {
        let (mangler, control) = Mangler::new(evaluator::in_process(&reference.plan).unwrap());
        if lies {
            down(&control, shift(&reference, SHIFT));
        }
        let link = Connection::new(mangler);
        let mut remote = Remote::new(reference.plan.clone(), link, false, audit).unwrap();
        match remote.infer(&[sample], &mut ()).unwrap().remove(0) {
            Ok(inference) => {
                assert!(!(lies && audit > 0.0), "a lie passed an audit");
                assert_eq!(inference.audited, audit > 0.0);
                logits.push(inference.logits);
            }
            Err(error) => {
                assert!(lies && audit > 0.0, "{error}");
                let audited = matches!(error.error, ClientError::Audit { .. });
                assert!(audited, "{error}");
            }
        }
    }
    // The third was not audited, and is wrong by the shift.
    let [honest, _, shifted] = &logits[..] else {
        panic!("{logits:?}");
    };
    let bound = 2.0 * reference.plan.logit_error().six_sigma;
    for (honest, shifted) in honest.iter().zip(shifted) {
        assert!(((shifted - honest).abs() - SHIFT).abs() < bound);
    }
}

/// Whoever has input, keys and model sees that an answer is not that of its request, with
/// no secret, and an object that is another is not taken for it.
#[test]
fn a_receipt_shows_that_an_answer_was_forged() {
    let reference = Reference::new();
    let digits = bundled::digits().unwrap();
    let file = bundled::model("mnist-mlp64").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (mangler, control) = Mangler::new(evaluator::in_process(&reference.plan).unwrap());
    let uploads = Uploads::new(Some(folder.path())).unwrap();
    let link = Connection::new(mangler);
    let remote = Remote::new(reference.plan.clone(), link, false, 0.0).unwrap();
    let mut remote = remote
        .handing_on(None, Some(Recorder::new(file, uploads)))
        .unwrap();
    let mut receipt = |image: usize| -> Receipt {
        let sample = Sample::from(&digits.images[image]);
        let answer = remote.infer(&[sample], &mut ()).unwrap().remove(0).unwrap();
        answer.handed_on.receipt.unwrap()
    };
    let honest = receipt(0);
    down(&control, shift(&reference, 0.25));
    let forged = receipt(1);
    control.set(Damage::default());
    let after = receipt(2);
    let mut auditor = Auditor::new(folder.path(), *reference.plan.model(), file);
    for (receipt, verdict) in [
        (&honest, Verdict::Reproduced),
        (&forged, Verdict::Forged),
        (&after, Verdict::Reproduced),
    ] {
        assert_eq!(auditor.audit(receipt).unwrap(), verdict);
    }
    // Of another model, and with objects that are not those named.
    let mut other = file.to_vec();
    *other.last_mut().unwrap() ^= 1;
    let mut stranger = Auditor::new(folder.path(), *reference.plan.model(), &other);
    let refusal = stranger.audit(&honest).unwrap_err();
    assert!(matches!(refusal, ReceiptError::Model { .. }), "{refusal}");
    let objects: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    // Program, keys, three inputs.
    assert_eq!(objects.len(), 5);
    for object in objects {
        let path = object.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let mut auditor = Auditor::new(folder.path(), *reference.plan.model(), file);
    let refusal = auditor.audit(&honest).unwrap_err();
    assert!(matches!(refusal, ReceiptError::Object { .. }), "{refusal}");
}

/// Of those answers that the client did not take, too: found by an audit, and refused as
/// they wrapped around.
#[test]
fn refused_answers_have_receipts_that_show_what_was_wrong() {
    let reference = Reference::new();
    let digits = bundled::digits().unwrap();
    let sample = Sample::from(&digits.images[0]);
    let file = bundled::model("mnist-mlp64").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (audit, by) in [(1.0, 0.25), (0.0, half_the_modulus(&reference))] {
        let (mangler, control) = Mangler::new(evaluator::in_process(&reference.plan).unwrap());
        down(&control, shift(&reference, by));
        let uploads = Uploads::new(Some(folder.path())).unwrap();
        let link = Connection::new(mangler);
        let remote = Remote::new(reference.plan.clone(), link, false, audit).unwrap();
        let recorder = Recorder::new(file, uploads);
        let mut remote = remote.handing_on(None, Some(recorder)).unwrap();
        let refused = remote.infer(&[sample], &mut ()).unwrap().remove(0);
        let refused = refused.unwrap_err();
        let is_audit = matches!(refused.error, ClientError::Audit { .. });
        assert_eq!(is_audit, audit > 0.0, "{refused}");
        // The report has it from there.
        let entry = Entry::of(reference.plan.model(), (0, sample, 7), &Err(refused), 0).unwrap();
        assert!(entry.answer.is_err());
        let mut auditor = Auditor::new(folder.path(), *reference.plan.model(), file);
        let verdict = auditor.audit(&entry.receipt.unwrap()).unwrap();
        assert_eq!(verdict, Verdict::Forged);
    }
}

/// A receipt that could not be kept is an error; the next ones are written all the same.
#[test]
fn after_a_receipt_that_could_not_be_kept_the_next_are_written() {
    let reference = Reference::new();
    let digits = bundled::digits().unwrap();
    let sample = Sample::from(&digits.images[0]);
    let file = bundled::model("mnist-mlp64").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("uploads");
    let uploads = Uploads::new(Some(&directory)).unwrap();
    let link = Connection::new(evaluator::in_process(&reference.plan).unwrap());
    let remote = Remote::new(reference.plan.clone(), link, false, 0.0).unwrap();
    let recorder = Recorder::new(file, uploads);
    let mut remote = remote.handing_on(None, Some(recorder)).unwrap();
    std::fs::remove_dir(&directory).unwrap();
    let refusal = remote.infer(&[sample], &mut ()).unwrap_err();
    assert!(
        matches!(&refusal, ServiceError::Client(ClientError::Receipt(_))),
        "{refusal}"
    );
    std::fs::create_dir(&directory).unwrap();
    let answer = remote.infer(&[sample], &mut ()).unwrap().remove(0).unwrap();
    let mut auditor = Auditor::new(&directory, *reference.plan.model(), file);
    let receipt = answer.handed_on.receipt.unwrap();
    assert_eq!(auditor.audit(&receipt).unwrap(), Verdict::Reproduced);
}

/// Labels that are known to be wrong: neither given to others nor counted; whoever forged
/// one and sees that it is missing learns nothing more, as the key is not used again.
#[test]
fn a_label_that_is_known_to_be_wrong_is_not_published() {
    let reference = Reference::new();
    let digits = bundled::digits().unwrap();
    let sample = Sample::from(&digits.images[0]);
    let (mangler, control) = Mangler::new(evaluator::in_process(&reference.plan).unwrap());
    let link = Connection::new(mangler);
    let remote = Remote::new(reference.plan.clone(), link, false, 0.0).unwrap();
    let mut remote = remote.handing_on(Some(labels(5)), None).unwrap();
    let by = 1.0;
    assert!(by > reference.plan.logit_error().six_sigma);
    down(&control, shift(&reference, by));
    let answer = remote.infer(&[sample], &mut ()).unwrap().remove(0).unwrap();
    let refusal = answer.handed_on.published.unwrap().unwrap_err();
    assert!(matches!(refusal, PublicationError::Beyond), "{refusal}");
    assert_eq!(remote.publications(), Some((5, 0)), "nothing is counted");
    control.set(Damage::default());
    let answer = remote.infer(&[sample], &mut ()).unwrap().remove(0).unwrap();
    let refusal = answer.handed_on.published.unwrap().unwrap_err();
    assert!(matches!(refusal, PublicationError::Renewed), "{refusal}");
    assert_eq!(remote.publications(), Some((5, 5)), "retired");
}

fn labels(queries: u32) -> PublicationTerms {
    PublicationTerms {
        form: Form::Labels,
        allowance: Allowance::new(queries, 30).unwrap(),
        budget: None,
        precision_bits: 0.0,
    }
}

/// Of every lane, in units of a logit.
fn half_the_modulus(reference: &Reference) -> f64 {
    let plan = &reference.plan;
    let half = (plan.params().log_q(plan.output_level()) - 1.0).exp2();
    half / plan.output_scale() * plan.lanes() as f64
}

/// A result that was refused ends the key, its budget, and what is published under it.
#[test]
fn after_a_refused_result_nothing_is_published() {
    let reference = Reference::new();
    let digits = bundled::digits().unwrap();
    let (mangler, control) = Mangler::new(evaluator::in_process(&reference.plan).unwrap());
    let link = Connection::new(mangler);
    let remote = Remote::new(reference.plan.clone(), link, false, 0.0).unwrap();
    let mut remote = remote.handing_on(Some(labels(5)), None).unwrap();
    let sample = Sample::from(&digits.images[0]);
    let mut infer = || {
        let answer = remote.infer(&[sample], &mut ()).unwrap().remove(0);
        (answer, remote.publications())
    };
    let (first, count) = infer();
    let first = first.unwrap();
    let label = first.label();
    let published = first.handed_on.published.unwrap().unwrap();
    assert_eq!(published, Published::Label { label });
    assert_eq!(count, Some((5, 1)));
    down(&control, shift(&reference, half_the_modulus(&reference)));
    let (refused, _) = infer();
    assert!(refused.is_err_and(|refused| refused.error.spends_key()));
    control.set(Damage::default());
    let (after, count) = infer();
    let after = after.unwrap();
    assert_eq!(after.label(), label, "the client has its answer");
    let refusal = after.handed_on.published.unwrap().unwrap_err();
    assert!(matches!(refusal, PublicationError::Renewed), "{refusal}");
    assert_eq!(count, Some((5, 5)), "retired");
}

/// The evaluator's end of a TCP connection.
struct Tcp(TcpStream);

impl Transport for Tcp {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        let device = self.name();
        let sent = self.0.write_all(bytes);
        sent.map_err(|source| DeviceError::Transfer { device, source })
    }

    fn receive(&mut self, buffer: &mut [u8], _: Option<Duration>) -> Result<usize, DeviceError> {
        let (device, detail) = (self.name(), String::new());
        match self.0.read(buffer) {
            Ok(0) => Err(DeviceError::Closed { device, detail }),
            received => received.map_err(|source| DeviceError::Transfer { device, source }),
        }
    }

    fn name(&self) -> String {
        "the client".to_owned()
    }
}

/// The command has its answers and says that they are not what the plan says; labels of
/// them are not published.
#[test]
fn infer_fails_where_answers_are_beyond_the_plan() {
    let reference = Reference::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let device = format!("tcp:{}", listener.local_addr().unwrap());
    let program = Program::of(&reference.plan).unwrap();
    let lie = shift(&reference, 1.0);
    let model = Model::parse(bundled::model("mnist-mlp64").unwrap()).unwrap();
    std::thread::spawn(move || {
        let (mut mangler, control) = Mangler::new(Tcp(listener.accept().unwrap().0));
        // What goes up from here is the answer.
        control.set(Damage {
            up: Some(lie),
            ..Damage::default()
        });
        // Ends when the client does.
        let _ = evaluator::evaluate(&program, model, &mut mangler);
    });
    let mut command = Command::new(binary());
    command.env("HE_EDGE_PROGRESS", "never");
    command.args(["infer", "--device", &device, "--count", "2"]);
    command.args(["--publish", "labels", "--json", "-"]);
    let output = command.output().unwrap();
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    assert!(
        sentence.contains("the logits of 2 samples differ from those in the clear"),
        "{sentence}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for image in report["images"].as_array().unwrap() {
        let error = image["max_logit_error"].as_f64().unwrap();
        assert!((error - 1.0).abs() < 0.5, "{error}");
    }
    let published = &report["published"];
    assert_eq!(published["answers"].as_array().unwrap().len(), 0);
    assert_eq!(published["unpublished"].as_array().unwrap().len(), 2);
    // Counted is what the key lost when it was given up.
    assert_eq!(published["spent"], 2);
}
