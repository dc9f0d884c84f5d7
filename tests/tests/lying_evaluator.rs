//! What an evaluator that lies gets past the client, and what not: an answer of another
//! request, and an answer that was shifted a little.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use he_core::wire::{pack, unpack};
use he_edge_tests::Reference;
use he_edge_tests::mangler::{Control, Damage, Hook, Mangler, frame, replies};
use he_nn::bundled;
use he_nn::message::{CHUNK_COEFFS, Reply};
use he_nn::model::Sample;
use host_runner::client::ClientError;
use host_runner::device::Connection;
use host_runner::evaluator;
use host_runner::service::{Remote, Service};

/// Clients that an old answer is given to.
const REPLAYS: u8 = 100;

type Frames = Arc<Mutex<HashMap<(u8, u16), Vec<u8>>>>;

/// Whose frame of a result it is.
fn result_frame(bytes: &[u8]) -> Option<(u8, u16)> {
    let mut found = None;
    replies(bytes, |reply| {
        if let Reply::Result { part, offset, .. } = reply {
            found = Some((part, offset));
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
/// the same.
fn shift(reference: &Reference, by: f64) -> Hook {
    let prime = *reference.plan.params().prime(0).unwrap().modulus();
    let by = (by * reference.plan.output_scale()) as u32;
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
                assert!(matches!(error, ClientError::Audit { .. }), "{error}");
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
