//! Timing traces of the emulated board: they agree with the times of its
//! stages, cost little, and nothing where they are left out.

use std::collections::BTreeMap;

use he_edge_tests::{Reference, assert_one_sentence};
use he_nn::message::TimeUnit;
use he_nn::program::Program;
use he_nn::trace::{Place, Span};
use host_runner::client::{ClientError, Inference};
use host_runner::device::emulator::Emulator;
use host_runner::device::firmware_build::{self, Options};
use host_runner::device::{Connection, DEFAULT_BOARD};

/// Bytes of a span on the board.
const SPAN_BYTES: u32 = 24;

fn infer(reference: &Reference, features: &[&str], traced: bool) -> Result<Inference, ClientError> {
    let options = Options {
        board: DEFAULT_BOARD,
        model: None,
        params: reference.plan.params(),
        features,
        inputs: None,
    };
    let image = firmware_build::build(&options).unwrap();
    let board = Emulator::start(DEFAULT_BOARD, &image, Box::new(|_| ())).unwrap();
    let mut client = reference.client(9);
    client.set_tracing(traced);
    client.infer(&mut Connection::new(board), &reference.digits[5], &mut ())
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "the figures of firmware/README.md, for `--nocapture`"
)]
fn the_trace_agrees_with_the_stages_and_costs_little() {
    let reference = Reference::new();
    let without = infer(&reference, &[], false).unwrap();
    let traced = infer(&reference, &["trace"], true).unwrap();
    let again = infer(&reference, &["trace"], true).unwrap();
    assert_eq!(traced.logits, without.logits);
    assert_eq!(traced.unit, TimeUnit::Instructions);

    let trace = traced.trace.as_ref().unwrap();
    assert_eq!(trace.dropped, 0);
    let program = Program::of(&reference.plan).unwrap();
    let mut busy: BTreeMap<u8, u64> = BTreeMap::new();
    let arithmetic = |span: &&Span| span.kind.is_of_stage();
    for span in trace.spans.iter().filter(arithmetic) {
        let step = match span.place {
            Place::Step(step) => step,
            Place::Item(item) => program.step_of(item).unwrap(),
        };
        *busy.entry(step).or_default() += u64::from(span.busy);
    }
    assert_eq!(traced.stages.len(), busy.len());
    for stage in &traced.stages {
        let busy = busy[&stage.step];
        let ratio = busy as f64 / stage.time as f64;
        // A stage's time begins after the tracer has noted the request.
        assert!((0.99..1.02).contains(&ratio), "{stage:?}: {busy}");
    }

    // The same work takes the same instructions, whatever is encrypted. A
    // reading of the clock is good to about one instruction, and 2 % are for
    // the link: the pieces that bytes arrive in are the host's, and their
    // interrupts fall into whatever the board is doing.
    let other = again.trace.unwrap();
    let key = |span: &Span| (span.kind, span.place, span.count);
    let (a, b) = (trace.spans.iter(), other.spans.iter());
    for (a, b) in a.filter(arithmetic).zip(b.filter(arithmetic)) {
        assert_eq!(key(a), key(b));
        assert!(
            a.busy.abs_diff(b.busy) <= 4 * u32::from(a.count) + 40 + a.busy / 50,
            "{a:?} {b:?}"
        );
    }

    let (with, without_total) = (traced.total().unwrap(), without.total().unwrap());
    let cost = with as f64 / without_total as f64 - 1.0;
    assert!(
        (-0.005..0.015).contains(&cost),
        "{with} against {without_total}"
    );
    let ring = traced.memory.static_bytes - without.memory.static_bytes;
    let spans = trace.spans.len() as u32;
    assert!(ring >= SPAN_BYTES * spans, "{ring} bytes for {spans} spans");
    assert!(traced.memory.static_bytes + traced.memory.stack_peak_bytes <= 512 * 1024);
    let begun: u64 = trace.spans.iter().map(|s| u64::from(s.count)).sum();
    println!(
        "{spans} spans of work begun {begun} times, {ring} bytes; {} for \
         the tracer itself; {with} instructions with, \
         {without_total} without; stack {} with, {} without",
        trace.own, traced.memory.stack_peak_bytes, without.memory.stack_peak_bytes
    );
}

#[test]
fn a_board_without_a_tracer_says_so() {
    let reference = Reference::new();
    let error = infer(&reference, &[], true).unwrap_err();
    assert_one_sentence("no tracer", &error);
    assert!(error.to_string().contains("without a tracer"), "{error}");
}
