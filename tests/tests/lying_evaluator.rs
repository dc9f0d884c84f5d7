//! What an evaluator that lies gets past the client, and what not: an answer of another
//! request, and an answer that was shifted a little; and what a receipt of it shows
//! somebody else.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use he_core::ckks::evaluator::add_constant;
use he_core::ckks::publish::Allowance;
use he_core::ckks::{Ciphertext, Constant};
use he_core::params::{N4096_DEPTH3, N8192_DEPTH5};
use he_core::wire::{self, pack, unpack};
use he_edge_tests::command::binary;
use he_edge_tests::mangler::{Control, Damage, Hook, Mangler, frame, replies};
use he_edge_tests::networks::{Drawn, Part, image, network};
use he_edge_tests::{Reference, assert_one_sentence, sealed};
use he_nn::message::{CHUNK_COEFFS, Reply};
use he_nn::model::{Model, Sample};
use he_nn::plan::batch::BatchPlan;
use he_nn::program::Program;
use he_nn::{bundled, clear};
use host_runner::client::publication::{Form, PublicationError, PublicationTerms, Published};
use host_runner::client::{BatchClient, Client, ClientError};
use host_runner::device::{Connection, DeviceError, Transport};
use host_runner::engine::batch::BatchEngine;
use host_runner::evaluator;
use host_runner::files::{Cost, Passphrase, SealedError, SealedKey};
use host_runner::planning;
use host_runner::receipts::{
    self, Auditor, Digest, OfImage, Receipt, ReceiptError, Recorder, Uploads, Verdict,
};
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
    let plain = clear::logits(reference.plan.model(), sample).unwrap();
    let usual = reference.plan.logit_error().six_sigma;
    let (mut logits, mut beyond) = (Vec::new(), Vec::new());
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
                let error = clear::largest_error(&inference.logits, &plain);
                beyond.push(error > inference.allowed_error.unwrap_or(usual));
                logits.push(inference.logits);
            }
            Err(error) => {
                assert!(lies && audit > 0.0, "{error}");
                let audited = matches!(error.error, ClientError::Audit { .. });
                assert!(audited, "{error}");
            }
        }
    }
    // The third was not audited, and is wrong by the shift. That is beyond what its own values
    // allow, so the key holder, who knows the sample, takes it for a failure all the same.
    assert_eq!(beyond, [false, false, true]);
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
    let objects: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    // Program, keys, three inputs.
    assert_eq!(objects.len(), 5);
    for object in objects {
        let path = object.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
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
        let entry = Entry::of((0, 7), &Err(refused), 0);
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
    fs::remove_dir(&directory).unwrap();
    let refusal = remote.infer(&[sample], &mut ()).unwrap_err();
    assert!(
        matches!(&refusal, ServiceError::Client(ClientError::Receipt(_))),
        "{refusal}"
    );
    fs::create_dir(&directory).unwrap();
    let answer = remote.infer(&[sample], &mut ()).unwrap().remove(0).unwrap();
    let mut auditor = Auditor::new(&directory, *reference.plan.model(), file);
    let receipt = answer.handed_on.receipt.unwrap();
    assert_eq!(auditor.audit(&receipt).unwrap(), Verdict::Reproduced);
}

/// A batch of a small network with its receipts: the client, what it sent and got.
struct RecordedBatch<'m> {
    client: BatchClient<'m>,
    engine: BatchEngine<'m>,
    samples: Vec<Drawn>,
    input: Vec<u8>,
    result: Vec<u8>,
    receipts: Vec<Receipt>,
}

impl<'m> RecordedBatch<'m> {
    fn new(plan: &BatchPlan<'m>, file: &[u8], uploads: &Path) -> Self {
        let mut client = BatchClient::new(plan.clone()).unwrap();
        let uploads = Uploads::new(Some(uploads)).unwrap();
        let keys = client.switching_keys().unwrap();
        client.record_by(Recorder::new(file, uploads));
        let engine = BatchEngine::new(plan.clone(), &keys).unwrap();
        let samples = (0..5).map(|seed| Drawn::of(plan.model(), seed)).collect();
        let mut batch = Self {
            client,
            engine,
            samples,
            input: Vec::new(),
            result: Vec::new(),
            receipts: Vec::new(),
        };
        batch.again();
        batch
    }

    /// The same samples once more, encrypted anew.
    fn again(&mut self) {
        let samples: Vec<Sample<'_>> = self.samples.iter().map(Drawn::sample).collect();
        self.input = self.client.encrypt(&samples).unwrap();
        (self.result, _) = self.engine.evaluate(&self.input, || ()).unwrap();
        self.receipts = self.recorded(&self.result.clone());
    }

    /// The receipts of a result that came.
    fn recorded(&mut self, result: &[u8]) -> Vec<Receipt> {
        let receipts = self.client.record(&self.input, result, self.samples.len());
        receipts.unwrap().into_iter().flatten().collect()
    }
}

/// Audits lines of receipts: what is found of the last.
type Audit<'a> = dyn FnMut(&[&Value]) -> Result<Verdict, ReceiptError> + 'a;

fn small() -> Vec<u8> {
    let parts = [Part::Dense(6), Part::Square, Part::Dense(3)];
    network(image(4), &parts)
}

/// One logit of a whole batch is moved, of the others nothing: the client believes it, and
/// the audit of any sample finds it.
#[test]
fn a_batch_with_one_forged_ciphertext_is_found_by_its_receipts() {
    let file = small();
    let plan = planning::batch_plan(None, Model::parse(&file).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut batch = RecordedBatch::new(&plan, &file, folder.path());
    let mut auditor = Auditor::new(folder.path(), *plan.model(), &file);
    let honest = batch.receipts.clone();
    assert_eq!(honest.len(), 5);
    let (params, level, outputs) = (plan.params(), plan.output_level(), plan.model().outputs());
    let size = batch.result.len() / outputs;
    for output in 0..outputs {
        let mut forged = batch.result.clone();
        let object = &mut forged[output * size..(output + 1) * size];
        let limbs = || vec![0; (level + 1) * params.n()];
        let mut ct: Ciphertext<Vec<u32>> =
            wire::read_ciphertext(params, object, [limbs(), limbs()]).unwrap();
        let by = Constant::real(0.25, ct.scale()).unwrap();
        add_constant(params, &mut ct, &by).unwrap();
        wire::write_ciphertext(params, &ct, object).unwrap();
        let believed = batch.client.decrypt(&forged, batch.samples.len()).unwrap();
        let before = batch
            .client
            .decrypt(&batch.result, batch.samples.len())
            .unwrap();
        for (believed, before) in believed.iter().zip(&before) {
            for (at, (a, b)) in believed.iter().zip(before).enumerate() {
                let moved = if at == output { 0.25 } else { 0.0 };
                assert!((a - b - moved).abs() < 1e-3, "{a} {b}");
            }
        }
        let receipts = batch.recorded(&forged);
        for (forged, honest) in receipts.iter().zip(&honest) {
            assert_eq!(auditor.audit(forged).unwrap(), Verdict::Forged);
            assert_eq!(auditor.audit(honest).unwrap(), Verdict::Reproduced);
        }
    }
    // The answer of an earlier batch of the same samples, under the same keys.
    let old = batch.result.clone();
    batch.again();
    for receipt in batch.recorded(&old) {
        assert_eq!(auditor.audit(&receipt).unwrap(), Verdict::Forged);
    }
    assert_eq!(
        auditor.audit(&batch.receipts[4]).unwrap(),
        Verdict::Reproduced
    );
}

/// Every field of a batch's receipt, and every object that it names, changed in turn.
#[test]
fn what_was_changed_in_a_receipt_of_a_batch_is_named() {
    let file = small();
    let model = Model::parse(&file).unwrap();
    let plan = planning::batch_plan(Some(&N8192_DEPTH5), model).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let uploads = folder.path().join("uploads");
    let mut batch = RecordedBatch::new(&plan, &file, &uploads);
    let other = RecordedBatch::new(&plan, &file, &uploads);
    // Plans of the same network: under another set, and from another level.
    let keep = |plan: &BatchPlan<'_>| -> Value {
        let bytes = planning::batch_bytes(plan);
        let digest = Digest::of(&bytes).to_string();
        fs::write(uploads.join(&digest), bytes).unwrap();
        digest.into()
    };
    let of_set = keep(&planning::batch_plan(Some(&N4096_DEPTH3), model).unwrap());
    let (mut row, mut scratch) = (vec![0.0; 64], vec![0.0; 64]);
    let of_level = BatchPlan::wide(&N8192_DEPTH5, model, &mut row, &mut scratch);
    let of_level = keep(&of_level.unwrap());
    let first = batch.receipts.clone();
    batch.again();
    let value = |receipt: &Receipt| {
        let receipt = receipt.clone();
        serde_json::to_value(OfImage { index: 7, receipt }).unwrap()
    };
    let path = folder.path().join("receipts");
    let mut auditor = Auditor::new(&uploads, *plan.model(), &file);
    let mut audit = |lines: &[&Value]| -> Result<Verdict, ReceiptError> {
        let lines: Vec<String> = lines.iter().map(|line| line.to_string()).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        let audited = receipts::read(&path)?.into_iter();
        let mut verdicts = audited.map(|of_image| auditor.audit(&of_image.receipt));
        verdicts.try_fold(Verdict::Reproduced, |_, verdict| verdict)
    };
    let sound = value(&first[2]);
    let second = value(&first[3]);
    assert_eq!(audit(&[&sound, &second]).unwrap(), Verdict::Reproduced);
    let nowhere = "0".repeat(64);
    let with = |field: &str, new: Value| {
        let mut changed = sound.clone();
        assert_ne!(changed[field], new, "{field}");
        changed[field] = new;
        changed
    };
    let refused = |audit: &mut Audit<'_>, changed: Value| -> ReceiptError {
        let refusal = audit(&[&changed]).unwrap_err();
        assert_one_sentence("audit", &refusal.to_string());
        refusal
    };
    let audit: &mut Audit<'_> = &mut audit;
    for version in [0, 1, 3] {
        let refusal = refused(audit, with("version", version.into()));
        assert!(
            matches!(refusal, ReceiptError::Line { line: 1, .. }),
            "{refusal}"
        );
    }
    for (field, named) in [
        ("program", "the program"),
        ("keys", "the keys"),
        ("input", "the input"),
    ] {
        let refusal = refused(audit, with(field, nowhere.clone().into()));
        let is_named = matches!(&refusal, ReceiptError::Missing { what, .. } if *what == named);
        assert!(is_named, "{refusal}");
    }
    let another = Value::from(N8192_DEPTH5.fingerprint() ^ 1);
    for (field, new, named) in [
        ("params", another, "the parameter set"),
        ("program", of_set, "the parameter set"),
        ("model", Value::Null, "the model"),
        ("weights", nowhere.clone().into(), "the encrypted weights"),
        ("slot", plan.samples().into(), "the slot"),
    ] {
        let refusal = refused(audit, with(field, new));
        let is_named =
            matches!(&refusal, ReceiptError::Disagreement { what, .. } if *what == named);
        assert!(is_named, "{field}: {refusal}");
    }
    // It takes keys of another level.
    let refusal = refused(audit, with("program", of_level));
    assert!(matches!(refusal, ReceiptError::Engine(_)), "{refusal}");
    let refusal = refused(audit, with("model", nowhere.clone().into()));
    assert!(matches!(refusal, ReceiptError::Model { .. }), "{refusal}");
    let mut slotless = sound.clone();
    slotless.as_object_mut().unwrap().remove("slot");
    let refusal = refused(audit, slotless);
    assert!(matches!(refusal, ReceiptError::Line { .. }), "{refusal}");
    // Of other answers: the evaluation gives another result.
    let later = value(&batch.receipts[2]);
    let stranger = value(&other.receipts[2]);
    for (field, new) in [
        ("output", Value::from(nowhere)),
        ("output", later["output"].clone()),
        ("input", later["input"].clone()),
        ("input", stranger["input"].clone()),
        ("keys", stranger["keys"].clone()),
    ] {
        assert_eq!(
            audit(&[&with(field, new)]).unwrap(),
            Verdict::Forged,
            "{field}"
        );
    }
    // One answer for two samples.
    for again in [&sound, &with("slot", 3.into())] {
        let refusal = audit(&[&sound, &second, again]).unwrap_err();
        let is_replay = matches!(refusal, ReceiptError::Replayed { line: 3, .. });
        assert!(is_replay, "{refusal}");
    }
    // And what they name.
    for (field, named) in [
        ("program", "the program"),
        ("keys", "the keys"),
        ("input", "the input"),
    ] {
        let object = uploads.join(sound[field].as_str().unwrap());
        let bytes = fs::read(&object).unwrap();
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&object, changed).unwrap();
        // An auditor that has not seen them yet.
        let mut auditor = Auditor::new(&uploads, *plan.model(), &file);
        let refusal = auditor.audit(&first[2]).unwrap_err();
        let is_named = matches!(&refusal, ReceiptError::Object { what, .. } if *what == named);
        assert!(is_named, "{refusal}");
        fs::write(&object, bytes).unwrap();
        assert_eq!(auditor.audit(&first[2]).unwrap(), Verdict::Reproduced);
    }
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

/// A key that is kept is given up for good: by a refused result, and by one that is further
/// from the sample's than the plan says, whether labels are published or not.
#[test]
fn a_lie_retires_a_sealed_key_for_every_process() {
    let reference = Reference::new();
    let digits = bundled::digits().unwrap();
    let sample = Sample::from(&digits.images[0]);
    let folder = tempfile::tempdir().unwrap();
    let passphrase = Passphrase::new("correct horse".into()).unwrap();
    for (name, by, publishes) in [
        ("refused", half_the_modulus(&reference), false),
        ("beyond", 0.25, false),
        ("beyond-and-published", 0.25, true),
    ] {
        let path = folder.path().join(name);
        let (params, allowance) = (reference.plan.params(), Allowance::new(5, 30).unwrap());
        let made = SealedKey::create(&path, params, allowance, &passphrase, Cost::LEAST);
        drop(made.unwrap());
        let client = || {
            let key = sealed(&path, &passphrase).unwrap();
            Client::sealed(reference.plan.clone(), key)
        };
        let (mangler, control) = Mangler::new(evaluator::in_process(&reference.plan).unwrap());
        let link = Connection::new(mangler);
        let remote = Remote::with_client(client().unwrap(), link, false, 0.0).unwrap();
        let publish = publishes.then(|| labels(1));
        let mut remote = remote.handing_on(publish, None).unwrap();
        let mut infer = || {
            let answer = remote.infer(&[sample], &mut ()).unwrap().remove(0);
            (answer, remote.has_retired(), remote.publications())
        };
        let (honest, has_retired, count) = infer();
        let label = honest.unwrap().label();
        assert!(!has_retired);
        // Of the sealed budget, whatever the terms say.
        assert_eq!(count, publishes.then_some((5, 1)));
        down(&control, shift(&reference, by));
        let (answer, has_retired, _) = infer();
        assert_eq!(answer.is_err(), name == "refused");
        // In the file, before anything else goes out.
        assert!(has_retired);
        assert!(
            fs::read(&path)
                .unwrap()
                .windows(15)
                .any(|w| w == b"\"retired\":true,")
        );
        // Under a key that ends with the client.
        control.set(Damage::default());
        let (after, ..) = infer();
        assert_eq!(after.unwrap().label(), label);
        drop(remote);
        let refusal = client().unwrap_err();
        let ClientError::Sealed(refusal) = refusal else {
            panic!("{refusal}");
        };
        assert!(matches!(*refusal, SealedError::Retired(_)), "{refusal}");
        assert_one_sentence(name, &refusal);
    }
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
