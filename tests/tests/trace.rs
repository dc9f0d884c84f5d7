//! Timing traces of in-process evaluators, from the session to the files.

use std::collections::{BTreeMap, BTreeSet};

use he_edge_tests::suite::Case;
use he_edge_tests::{NoClock, READY, Reference};
use he_nn::bundled;
use he_nn::message::{CHUNK_COEFFS, Refusal, Reply, Request, TimeUnit};
use he_nn::model::Model;
use he_nn::plan::{Op, Plan, Target, WeightMode};
use he_nn::program::Program;
use he_nn::schedule::{Cursor, Upload};
use he_nn::session::{EMPTY_CHUNK, Session};
use he_nn::trace::{Off, Place, Ring, Span, SpanKind, Tracer};
use host_runner::client::Inference;
use host_runner::device::Connection;
use host_runner::evaluator;
use host_runner::report::timeline::{Timeline, TracedImage, kind_name};
use host_runner::service::{Deployment, Remote, Service};
use serde_json::{Value, json};

/// By the session in this process.
fn infer(case: &Case, plan: &Plan<'_>, traced: bool) -> (Deployment, Inference) {
    let link = Connection::new(evaluator::in_process(plan).unwrap());
    let mut service = Remote::new(plan.clone(), link, traced, 0.0).unwrap();
    let sample = case.samples(1)[0].sample();
    let inference = service.infer(&[sample], &mut ()).unwrap().remove(0);
    (service.deployment().clone(), inference.unwrap())
}

/// Every limb of the upload, and every step with tasks that need none.
fn places(program: &Program<Vec<u8>>) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    let mut waiting = BTreeSet::new();
    let mut cursor = Cursor::start(program);
    while let Some(upload) = cursor.upload(program) {
        waiting.insert(cursor.task());
        if let Upload::Chunk(item, _) = upload {
            places.insert(format!("{:?}", Place::Item(item)));
        }
        cursor.advance(program);
    }
    for (index, task) in program.tasks().enumerate() {
        if !waiting.contains(&index) || task.op == Op::Mask {
            places.insert(format!("{:?}", Place::Step(task.step)));
        }
    }
    places
}

#[test]
fn every_moment_of_an_inference_belongs_to_one_span() {
    let encryptable = bundled::model_names().filter(|name| !name.ends_with("relu"));
    for name in encryptable {
        for weights in [WeightMode::Plain, WeightMode::Encrypted] {
            let case = Case::bundled(name);
            let plan = case.plan(weights, Target::STREAM).unwrap();
            belongs_to_one_span(&case, &plan);
        }
    }
}

fn belongs_to_one_span(case: &Case, plan: &Plan<'_>) {
    let (deployment, inference) = infer(case, plan, true);
    assert_eq!(inference.unit, TimeUnit::Nanoseconds);
    let trace = inference.trace.unwrap();
    assert_eq!(
        trace.dropped,
        0,
        "{}: {} spans",
        case.name,
        trace.spans.len()
    );
    let spans = &trace.spans;
    assert!(spans.windows(2).all(|w| w[0].start <= w[1].start));
    for kind in SpanKind::ALL {
        let own: Vec<_> = spans.iter().filter(|s| s.kind == kind).collect();
        // Weights that come encrypted are encoded elsewhere.
        let none = kind == SpanKind::Encode && plan.weights() == WeightMode::Encrypted;
        assert_eq!(own.is_empty(), none, "{kind:?}");
        assert!(own.windows(2).all(|w| w[0].end() <= w[1].start), "{kind:?}");
        assert!(own.iter().all(|s| s.busy <= s.length && s.count > 0));
    }
    let busy: u64 = spans.iter().map(|s| u64::from(s.busy)).sum();
    let end = spans.iter().map(|s| s.end()).max().unwrap();
    assert_eq!(busy + trace.own, end - spans[0].start);

    let program = Program::of(plan).unwrap();
    let found: BTreeSet<_> = spans.iter().map(|s| format!("{:?}", s.place)).collect();
    assert_eq!(found, places(&program), "{}", case.name);
    // One expansion per chunk.
    let chunks = plan.params().n() / CHUNK_COEFFS;
    let mut expanded: BTreeMap<String, usize> = BTreeMap::new();
    let expands = spans.iter().filter(|s| s.kind == SpanKind::Expand);
    // The mask comes as its seed, apart from the items.
    let (of_items, others) =
        expands.partition::<Vec<&Span>, _>(|span| matches!(span.place, Place::Item(_)));
    assert_eq!(others.len(), usize::from(plan.is_masked()), "{}", case.name);
    for span in of_items {
        *expanded.entry(format!("{:?}", span.place)).or_default() += usize::from(span.count);
    }
    let items = spans.iter().filter(|s| matches!(s.place, Place::Item(_)));
    let items: BTreeSet<_> = items.map(|span| format!("{:?}", span.place)).collect();
    for item in &items {
        let count = expanded.get(item);
        match plan.weights() {
            WeightMode::Plain => assert_eq!(count, Some(&chunks), "{}: {item}", case.name),
            // Chunks of an input and of its weight come in turns: both limbs are one
            // group from the second chunk on.
            WeightMode::Encrypted => assert!(count.is_some(), "{}: {item}", case.name),
        }
    }
    assert_eq!(expanded.values().sum::<usize>(), chunks * items.len());
    // The transforms that the plan counts with.
    let transforms = spans.iter().filter(|s| s.kind == SpanKind::Ntt);
    let transforms = transforms.map(|s| usize::from(s.count)).sum::<usize>();
    assert_eq!(transforms, plan.transforms(), "{}", case.name);
    let mut timeline = Timeline::default();
    timeline.of(&deployment);
    for span in spans {
        assert!(timeline.step(span.place).is_some(), "{span:?}");
    }
}

#[test]
fn who_asks_for_no_trace_gets_none() {
    let case = Case::bundled("mnist-mlp64");
    let plan = case.plan(WeightMode::Plain, Target::STREAM).unwrap();
    let (_, inference) = infer(&case, &plan, false);
    assert_eq!(inference.trace, None);
}

fn ask<T: Tracer>(
    session: &mut Session<'_, Vec<u8>, Model<'_>, T>,
    request: Request<'_>,
) -> Vec<String> {
    let mut replies = Vec::new();
    session.handle(request, &mut NoClock::default(), &mut |reply| {
        replies.push(format!("{reply:?}"));
    });
    replies
}

#[test]
fn a_session_without_a_tracer_says_so() {
    let Reference { model, plan, .. } = Reference::new();
    let program = Program::of(&plan).unwrap();
    let mut arena = vec![0; program.arena_words()];
    let mut chunk = EMPTY_CHUNK;
    let begin = |trace| Request::Begin {
        plan: program.fingerprint(),
        trace,
    };
    let said = |reply: Reply<'_>| vec![format!("{reply:?}")];
    let no_tracer = said(Reply::Refused(Refusal::NoTracer));

    let mut session: Session<'_, _, _, Off> =
        Session::new(&program, model, &mut arena, &mut chunk, Off).unwrap();
    assert_eq!(ask(&mut session, Request::Trace), no_tracer);
    assert_eq!(ask(&mut session, begin(true)), no_tracer);
    assert_eq!(ask(&mut session, begin(false)), said(READY));

    let mut ring = Ring::<4>::new();
    let mut session: Session<'_, _, _, &mut Ring<4>> =
        Session::new(&program, model, &mut arena, &mut chunk, &mut ring).unwrap();
    let nothing = said(Reply::Traced { dropped: 0, own: 0 });
    assert_eq!(ask(&mut session, Request::Trace), nothing);
    assert_eq!(ask(&mut session, begin(true)), said(READY));
    // Not while an inference is running; that one is dropped.
    let not_now = said(Reply::Refused(Refusal::NotExpected));
    assert_eq!(ask(&mut session, Request::Trace), not_now);
}

#[test]
fn the_file_has_what_perfetto_needs_and_the_picture_its_rows() {
    let case = Case::bundled("mnist-mlp64");
    let plan = case.plan(WeightMode::Plain, Target::STREAM).unwrap();
    let (deployment, inference) = infer(&case, &plan, true);
    let image = |index| TracedImage {
        index,
        trace: inference.trace.clone().unwrap(),
    };
    let mut timeline = Timeline::default();
    timeline.of(&deployment);
    timeline.board.clone_from(&inference.board);
    timeline.unit = inference.unit;
    timeline.images = vec![image(7), image(9)];
    let file: Value = serde_json::from_str(&timeline.json().unwrap()).unwrap();
    let other = &file["otherData"];
    assert_eq!(
        (&other["unit"], &other["dropped"]),
        (&json!("nanoseconds"), &json!(0))
    );
    let (mut ends, mut names, mut processes) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for event in file["traceEvents"].as_array().unwrap() {
        let number = |field: &str| event[field].as_f64().unwrap();
        let index = |field: &str| event[field].as_u64().unwrap();
        let (name, pid, tid) = (event["name"].as_str().unwrap(), index("pid"), index("tid"));
        match event["ph"].as_str().unwrap() {
            "M" if name == "process_name" => processes.push(event["args"]["name"].clone()),
            "M" => assert!(event["args"].is_object(), "{event}"),
            "X" => {
                names.insert(name.to_owned());
                let (ts, dur) = (number("ts"), number("dur"));
                let end: &mut f64 = ends.entry((pid, tid)).or_default();
                assert!(ts >= *end - 1e-6, "{event} begins before {end}");
                *end = ts + dur;
                let busy = event["args"]["busy"].as_f64().unwrap();
                assert!(busy <= 1000.0 * dur + 1e-3, "{event}");
                let step = event["cat"].as_str().unwrap();
                assert!(deployment.steps.iter().any(|s| s.name == step), "{event}");
            }
            other => panic!("{other} in {event}"),
        }
    }
    let kinds: BTreeSet<_> = SpanKind::ALL.map(|k| kind_name(k).to_owned()).into();
    assert_eq!(names, kinds);
    assert_eq!(ends.len(), 2 * kinds.len());
    assert_eq!(processes, ["image 7 on inproc", "image 9 on inproc"]);

    let picture = timeline.picture().unwrap().unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    for text in ["layer 0: 784-64", "milliseconds", "inproc"] {
        assert!(picture.contains(text), "{text}");
    }
    for kind in kinds {
        assert!(picture.contains(&kind), "{kind}");
    }
    assert!(picture.len() < 200_000, "{}", picture.len());
    timeline.images.clear();
    assert_eq!(timeline.picture(), Ok(None));
}
