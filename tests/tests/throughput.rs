//! How busy a serial line is kept: the client's own conversation with a session, in virtual
//! time, so that the figures are exact and no clock is looked at. At 8 ms of latency each
//! way the line is busy for at least 90 % of an inference, from 115,200 baud to 3 Mbaud,
//! where computing takes no time; what it takes on a board is in the plan, which says the
//! same as the conversation.

use he_core::rlwe::SwitchTarget;
use he_edge_tests::virtual_line::{Evaluator, VirtualLine};
use he_edge_tests::{NoClock, Reference};
use he_nn::boards::{self, Board};
use he_nn::kept::{Log, MemoryFlash, PageEntry, RecordEntry};
use he_nn::plan::Plan;
use he_nn::program::Program;
use he_nn::session::{EMPTY_CHUNK, Session};
use he_nn::trace::Off;
use host_runner::device::Connection;
use host_runner::line::{Exchange, LINES, Line, lines_of};

/// The targets of all keys of a plan.
fn targets(plan: &Plan<'_>) -> Vec<SwitchTarget> {
    let mut targets = Vec::new();
    plan.keys(|target, _| {
        if !targets.contains(&target) {
            targets.push(target);
        }
    });
    targets
}

/// Two images over a line, the second with all keys kept: what the conversation gives for
/// each is compared with the plan's. Returns the plan's passages.
fn compared(line: Line, window: u32, per_second: f64) -> [host_runner::line::Passage; 2] {
    let reference = Reference::new();
    let program = Program::of(&reference.plan).unwrap();
    let mut arena = vec![0; program.arena_words()];
    let mut chunk = EMPTY_CHUNK;
    let mut memory = vec![0; 4 << 20];
    let mut pages = vec![PageEntry::EMPTY; 256];
    let mut records = vec![RecordEntry::EMPTY; 64];
    let store = Log::mount(MemoryFlash::new(&mut memory), &mut pages, &mut records).unwrap();
    let session: Session<'_, _, _> =
        Session::new(&program, reference.model, &mut arena, &mut chunk, Off).unwrap();
    let mut session = session.keeping(store);
    let mut platform = NoClock { window };
    let answer: Evaluator<'_> = Box::new(move |request, reply| match request {
        Ok(request) => session.handle(request, &mut platform, &mut |answer| reply(answer)),
        Err(error) => session.refuse_frame(error.received(), &mut |answer| reply(answer)),
    });
    let exchanges = [
        Exchange::of(&reference.plan, &[]).unwrap(),
        Exchange::of(&reference.plan, &targets(&reference.plan)).unwrap(),
    ];
    let mut client = reference.client(1);
    let mut transport = VirtualLine::new(line, answer);
    let mut before = 0.0;
    let mut passages = Vec::new();
    for (exchange, image) in exchanges.iter().zip(&reference.digits) {
        let work = exchange.frames().iter();
        transport.work(work.map(|frame| frame.work as f64 / per_second).collect());
        let mut link = Connection::new(transport);
        let inference = client.infer(&mut link, image, &mut ()).unwrap();
        reference.check(image, &inference);
        let passage = exchange.over(line, window, per_second);
        let took = link.transport().now() - before;
        let what = format!("{} {window}: {passage:?}, {took}", line.name);
        assert!((took / passage.seconds - 1.0).abs() < 2e-3, "{what}");
        let close = |real: u64, planned: usize| (real as f64 / planned as f64 - 1.0).abs() < 2e-3;
        assert!(close(inference.bytes.up, exchange.up()), "{what}");
        assert!(close(inference.bytes.down, exchange.down()), "{what}");
        // What the window is for: a board's buffer holds all that comes.
        assert!(link.transport().waiting() <= window as usize, "{what}");
        assert!(passage.waiting <= window as usize, "{what}");
        before = link.transport().now();
        transport = link.into_transport();
        passages.push(passage);
    }
    [passages[0], passages[1]]
}

/// Boards of one kind of window.
fn board(name: &str) -> &'static Board {
    boards::find(name).unwrap()
}

#[test]
fn a_line_is_busy_for_nine_tenths_of_an_inference() {
    for (name, fastest) in [("nucleo-h743zi", 3_000_000), ("nrf52840-dk", 1_000_000)] {
        let board = board(name);
        assert_eq!(board.bauds.last(), Some(&fastest));
        for line in lines_of(board) {
            for passage in compared(line, board.window, f64::INFINITY) {
                assert!(passage.share >= 0.9, "{name}, {}: {passage:?}", line.name);
            }
        }
    }
}

#[test]
fn computing_overlaps_receiving() {
    for (name, at_least) in [("nucleo-h743zi", 0.9), ("nrf52840-dk", 0.9)] {
        let board = board(name);
        let hz = f64::from(board.core_hz);
        let line = lines_of(board).nth(1).unwrap();
        let [first, _] = compared(line, board.window, hz);
        assert!(first.share >= at_least, "{name}: {first:?}");
        // One after the other it would take longer.
        let alone = Exchange::of(&Reference::new().plan, &[]).unwrap();
        let work: u64 = alone.frames().iter().map(|frame| frame.work).sum();
        let sum = alone.over(line, board.window, f64::INFINITY).seconds + work as f64 / hz;
        assert!(first.seconds < sum, "{name}: {first:?}, {sum}");
    }
}

#[test]
fn a_smaller_window_leaves_a_fast_line_idle() {
    // Two chunks of 20 bits, as boards had it: the test above can fail.
    let [first, _] = compared(LINES[3], 2 * 1310, f64::INFINITY);
    assert!(first.share < 0.5, "{first:?}");
}

#[test]
fn the_instructions_of_messages_are_those_of_the_plan() {
    let plan = Reference::new().plan;
    let mut costs = 0;
    plan.costs(|_, cost| costs += cost);
    let frames = Exchange::of(&plan, &[]).unwrap();
    let placed: u64 = frames.frames().iter().map(|frame| frame.work).sum();
    assert_eq!(placed, costs as u64);
    // The mask is no part of the plan's.
    let total = plan.total_cost();
    assert!(
        costs >= total && costs < total + total / 20,
        "{costs}, {total}"
    );
}
