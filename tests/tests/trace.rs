//! Timing traces of in-process evaluators, from the session to the files.

use std::collections::{BTreeMap, BTreeSet};

use he_edge_tests::NoClock;
use he_nn::bundled;
use he_nn::message::{Refusal, Reply, Request, TimeUnit};
use he_nn::model::Model;
use he_nn::plan::Plan;
use he_nn::session::Session;
use he_nn::trace::{Place, Ring, SpanKind, Tracer};
use host_runner::client::{Client, Inference};
use host_runner::device::Connection;
use host_runner::evaluator::{self, PARAMS};
use host_runner::trace::{Timeline, TracedImage, kind_name, stage};
use serde_json::{Value, json};

const MODEL: &str = "mnist-mlp64";

fn model() -> Model<'static> {
    Model::parse(bundled::model(MODEL).unwrap()).unwrap()
}

fn infer(traced: bool) -> (Plan, Inference) {
    let model = model();
    let plan = Plan::new(PARAMS, &model).unwrap();
    let mut client = Client::from_seed(plan, &model, &[5; 32]).unwrap();
    client.set_tracing(traced);
    let link = evaluator::in_process(bundled::model(MODEL).unwrap()).unwrap();
    let digits = bundled::digits().unwrap();
    let inference = client.infer(&mut Connection::new(link), &digits.images[0], |_, _| {});
    (plan, inference.unwrap())
}

#[test]
fn every_moment_of_an_inference_belongs_to_one_span() {
    let (plan, inference) = infer(true);
    assert_eq!(inference.unit, TimeUnit::Nanoseconds);
    let trace = inference.trace.unwrap();
    assert_eq!(trace.dropped, 0);
    let spans = &trace.spans;
    assert!(spans.windows(2).all(|w| w[0].start <= w[1].start));
    for kind in SpanKind::ALL {
        let own: Vec<_> = spans.iter().filter(|s| s.kind == kind).collect();
        assert!(!own.is_empty(), "{kind:?}");
        assert!(own.windows(2).all(|w| w[0].end() <= w[1].start), "{kind:?}");
        assert!(own.iter().all(|s| s.busy <= s.length && s.count > 0));
    }
    let busy: u64 = spans.iter().map(|s| u64::from(s.busy)).sum();
    let end = spans.iter().map(|s| s.end()).max().unwrap();
    assert_eq!(busy + trace.own, end - spans[0].start);

    // Every limb of the schedule, and every stage that needs no upload.
    let place = |place| spans.iter().filter(move |s| s.place == place);
    let limbs: BTreeSet<_> = spans.iter().map(|s| format!("{:?}", s.place)).collect();
    let keys = (0..plan.key_uses()).map(|k| plan.key_use(k).unwrap().level);
    let keys: usize = keys.map(|level| (level + 1) * (level + 2)).sum();
    let inputs = plan.ciphertexts() * (plan.input_level() + 1);
    assert_eq!(limbs.len(), inputs + keys + 5);
    // One expansion a chunk.
    let chunks = PARAMS.n() / he_nn::message::CHUNK_COEFFS;
    for span in spans.iter().filter(|s| matches!(s.place, Place::Item(_))) {
        let expanded = place(span.place).filter(|s| s.kind == SpanKind::Expand);
        let counts = expanded.map(|s| usize::from(s.count)).sum::<usize>();
        assert_eq!(counts, chunks, "{span:?}");
    }
    // The transforms that the plan counts with.
    let transforms = spans.iter().filter(|s| s.kind == SpanKind::Ntt);
    let transforms = transforms.map(|s| usize::from(s.count)).sum::<usize>();
    assert_eq!(transforms, plan.transforms());
    for span in spans {
        assert!(stage(&plan, span.place).is_some(), "{span:?}");
    }
}

#[test]
fn who_asks_for_no_trace_gets_none() {
    let (_, inference) = infer(false);
    assert_eq!(inference.trace, None);
}

fn ask<T: Tracer>(session: &mut Session<'_, T>, request: Request<'_>) -> Vec<String> {
    let mut replies = Vec::new();
    session.handle(request, &mut NoClock, &mut |reply| {
        replies.push(format!("{reply:?}"));
    });
    replies
}

#[test]
fn a_session_without_a_tracer_says_so() {
    let plan = Plan::new(PARAMS, &model()).unwrap();
    let mut arena = vec![0; plan.arena_words()];
    let begin = |trace| Request::Begin {
        plan: plan.fingerprint(),
        trace,
    };
    let said = |reply: Reply<'_>| vec![format!("{reply:?}")];
    let no_tracer = said(Reply::Refused(Refusal::NoTracer));

    let mut session = Session::new(plan, model(), &mut arena).unwrap();
    assert_eq!(ask(&mut session, Request::Trace), no_tracer);
    assert_eq!(ask(&mut session, begin(true)), no_tracer);
    assert_eq!(ask(&mut session, begin(false)), said(Reply::Ready));

    let mut ring = Ring::<4>::new();
    let mut session = Session::traced(plan, model(), &mut arena, &mut ring).unwrap();
    let nothing = said(Reply::Traced { dropped: 0, own: 0 });
    assert_eq!(ask(&mut session, Request::Trace), nothing);
    assert_eq!(ask(&mut session, begin(true)), said(Reply::Ready));
    // Not while an inference is running; that one is dropped.
    let not_now = said(Reply::Refused(Refusal::NotExpected));
    assert_eq!(ask(&mut session, Request::Trace), not_now);
}

#[test]
fn the_file_has_what_perfetto_needs_and_the_picture_its_rows() {
    let (plan, inference) = infer(true);
    let image = |index| TracedImage {
        index,
        trace: inference.trace.clone().unwrap(),
    };
    let timeline = Timeline {
        plan,
        board: inference.board.clone(),
        unit: inference.unit,
        images: vec![image(7), image(9)],
    };
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
                assert!(event["cat"].is_string(), "{event}");
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
    for text in ["layer1", "sum1", "milliseconds", "inproc"] {
        assert!(picture.contains(text), "{text}");
    }
    for kind in kinds {
        assert!(picture.contains(&kind), "{kind}");
    }
    assert!(picture.len() < 200_000, "{}", picture.len());
    let empty = Timeline {
        images: Vec::new(),
        ..timeline
    };
    assert_eq!(empty.picture(), Ok(None));
}
