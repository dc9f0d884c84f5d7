//! A padded link: whatever is evaluated, refused or kept, the same numbers of bytes go over
//! it in the same order; what was late is said; an evaluator that does not pad is refused.
//! Nothing here depends on how fast this machine is.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use he_edge_tests::{Reference, forgetful};
use he_nn::bundled;
use he_nn::message::{Card, PROTOCOL_VERSION, Refusal, Reply, Request, TimeUnit};
use he_nn::model::Model;
use he_nn::plan::{Plan, Target, WeightMode};
use he_nn::program::Program;
use host_runner::client::{Client, ClientError, Inference, Padding};
use host_runner::device::{Connection, Direction, Duplex, duplex, serve};
use host_runner::evaluator;
use host_runner::line::Exchange;
use host_runner::planning;
use host_runner::timing::observer::PADDING;

/// Generous: the machine may be busy with other tests.
const SOON: Duration = Duration::from_secs(60);

/// The window of an evaluator on a host.
const WINDOW: u32 = 64 * 1024;

/// Bytes that went one way before others went the other way.
type Schedule = Vec<(Direction, usize)>;

/// A client over a recorded link.
struct Watched {
    client: Client<'static>,
    link: Connection<Duplex>,
    seen: Arc<Mutex<Schedule>>,
}

impl Watched {
    fn new(plan: &Plan<'static>, end: Duplex, padding: Padding) -> Self {
        let mut client = Client::new(plan.clone()).unwrap();
        client.set_padding(Some(padding));
        let mut link = Connection::new(end);
        let seen = Arc::<Mutex<Schedule>>::default();
        let recorder = seen.clone();
        link.record(move |way, bytes| {
            let mut seen = recorder.lock().unwrap();
            match seen.last_mut() {
                Some((last, sum)) if *last == way => *sum += bytes.len(),
                _ => seen.push((way, bytes.len())),
            }
        });
        Self { client, link, seen }
    }

    fn infer(&mut self) -> (Result<Inference, ClientError>, Schedule) {
        let image = &bundled::digits().unwrap().images[0];
        let answer = self.client.infer(&mut self.link, image, &mut ());
        (answer, std::mem::take(&mut *self.seen.lock().unwrap()))
    }
}

fn plan(model: &str, weights: WeightMode) -> Plan<'static> {
    let model = Model::parse(bundled::model(model).unwrap()).unwrap();
    planning::plan(None, model, weights, Target::STREAM).unwrap()
}

/// What an evaluator of a program greets with.
fn card(program: &Program<Vec<u8>>) -> Card<'_> {
    Card {
        version: PROTOCOL_VERSION,
        board: "inproc",
        model: program.name(),
        model_crc: program.model_crc(),
        params: program.params().fingerprint(),
        plan: program.fingerprint(),
        window: WINDOW,
        unit: TimeUnit::None,
    }
}

/// An evaluator of a plan that refuses the data that comes after `taken` messages of it.
fn refusing(plan: &Plan<'_>, mut taken: usize) -> Duplex {
    let (client, mut end) = duplex();
    let program = Program::of(plan).unwrap();
    thread::spawn(move || {
        serve(&mut end, |request, reply| match request {
            Ok(Request::Hello { .. }) => reply(Reply::Hello(card(&program))),
            Ok(Request::Begin { .. }) => reply(Reply::Ready {
                held: Default::default(),
            }),
            Ok(Request::Seed { .. } | Request::Data { .. }) if taken > 0 => {
                taken -= 1;
                reply(Reply::Ack);
            }
            Ok(Request::Tick { .. }) => {}
            Ok(_) => reply(Reply::Refused(Refusal::NotExpected)),
            Err(error) => reply(Reply::Refused(Refusal::Frame {
                received: error.received(),
            })),
        })
    });
    client
}

#[test]
fn whatever_is_evaluated_the_same_goes_over_a_padded_link() {
    let reference = Reference::new();
    let image = &bundled::digits().unwrap().images[0];
    // One that streams all keys each time, one that keeps them.
    let mut streaming = Watched::new(&reference.plan, forgetful(&reference.plan), PADDING);
    let (answer, expected) = streaming.infer();
    let answer = answer.unwrap();
    reference.check(image, &answer);
    let keeping = evaluator::in_process(&reference.plan).unwrap();
    let mut keeping = Watched::new(&reference.plan, keeping, PADDING);
    let mut keys = Vec::new();
    for _ in 0..2 {
        let (answer, schedule) = keeping.infer();
        let answer = answer.unwrap();
        reference.check(image, &answer);
        keys.push(answer.bytes.keys_up);
        assert_eq!(schedule, expected);
    }
    assert!(keys[1] < keys[0] / 100, "{keys:?}");
    for (model, weights) in [
        ("fashion-cryptonets", WeightMode::Plain),
        ("mnist-mlp64", WeightMode::Encrypted),
    ] {
        let plan = plan(model, weights);
        let mut other = Watched::new(&plan, evaluator::in_process(&plan).unwrap(), PADDING);
        // Encrypted weights fit once the keys are kept.
        let schedules = [other.infer(), other.infer()].map(|(answer, schedule)| {
            answer.unwrap();
            schedule
        });
        assert_eq!(schedules[1], expected, "{model}");
        let fits = weights == WeightMode::Plain;
        assert_eq!(schedules[0] == expected, fits, "{model}");
    }
    // A refusal in the middle, and one of the first message.
    for taken in [0, 100] {
        let evaluator = refusing(&reference.plan, taken);
        let (answer, schedule) = Watched::new(&reference.plan, evaluator, PADDING).infer();
        let error = answer.unwrap_err();
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");
        assert_eq!(schedule, expected);
    }

    // Cells of one size, and what was planned.
    let planned = Exchange::first(&reference.plan, &[]).unwrap();
    let planned = planned.padded(&reference.plan, WINDOW, &PADDING);
    let sum = |way| -> usize {
        let of = expected.iter().filter(|(of, _)| *of == way);
        of.map(|(_, bytes)| bytes).sum()
    };
    assert_eq!(
        (sum(Direction::Up), sum(Direction::Down)),
        (planned.up, planned.down)
    );
    assert_eq!(expected.len(), 2 * planned.cells);
    assert_eq!(answer.padded.unwrap().cells, planned.cells as u64);
    let up = expected.iter().step_by(2).map(|(_, bytes)| *bytes);
    assert_eq!(
        up.skip(4).collect::<Vec<_>>(),
        vec![WINDOW as usize / 2; planned.cells - 4]
    );
}

/// An upload that is larger than a class takes another one, whole.
#[test]
fn larger_uploads_take_whole_classes() {
    let reference = Reference::new();
    let padding = Padding {
        up: 1 << 19,
        ..PADDING
    };
    let end = evaluator::in_process(&reference.plan).unwrap();
    let mut watched = Watched::new(&reference.plan, end, padding);
    let cells = [watched.infer(), watched.infer()].map(|(answer, schedule)| {
        let cells = answer.unwrap().padded.unwrap().cells;
        assert_eq!(schedule.len() as u64, 2 * cells);
        cells - 5
    });
    assert_eq!(cells.map(|cells| cells % 16), [0; 2]);
    assert!(cells[0] > cells[1] && cells[1] > 0, "{cells:?}");
}

#[test]
fn what_is_late_is_said() {
    let reference = Reference::new();
    let end = evaluator::in_process(&reference.plan).unwrap();
    let padding = Padding {
        every: Duration::from_micros(20),
        ..PADDING
    };
    let (answer, schedule) = Watched::new(&reference.plan, end, padding).infer();
    let padded = answer.unwrap().padded.unwrap();
    assert!(
        padded.late > 0 && schedule.len() as u64 == 2 * padded.cells,
        "{padded:?}"
    );

    // By the evaluator: nothing was waited for between the work and the tick.
    let (client, mut end) = duplex();
    thread::spawn(move || {
        serve(&mut end, |request, _| {
            if let Ok(Request::Abort) = request {
                thread::sleep(Duration::from_millis(100));
            }
        })
    });
    let mut link = Connection::new(client);
    let tick = Request::Tick {
        fill: 50,
        result: false,
    };
    let mut late = |before: &[Request<'_>]| {
        before
            .iter()
            .for_each(|request| link.send(request).unwrap());
        let down = link.traffic().down;
        link.send(&tick).unwrap();
        let late = link.receive(SOON, |reply| match reply {
            Reply::Tock { late } => late,
            other => panic!("{other:?}"),
        });
        assert_eq!(link.traffic().down, down + 50);
        late.unwrap()
    };
    // On a busy machine an evaluator that has nothing to do may come to wait later than the tick.
    let in_time = |late: &mut dyn FnMut(&[Request<'_>]) -> bool| {
        (0..100).any(|_| {
            thread::sleep(Duration::from_millis(20));
            !late(&[])
        })
    };
    assert!(in_time(&mut late));
    assert!(late(&[Request::Abort]));
    assert!(in_time(&mut late));
}

#[test]
fn an_evaluator_that_does_not_pad_is_refused_in_a_sentence() {
    let reference = Reference::new();
    for older in [false, true] {
        let (client, mut end) = duplex();
        let program = Program::of(&reference.plan).unwrap();
        thread::spawn(move || {
            // Its reader knows no tick.
            host_runner::device::server::serve_frames(&mut end, |frame, outgoing| {
                outgoing.send(&match frame.and_then(|frame| frame.decode()) {
                    Ok(Request::Hello { version }) if older => Reply::Refused(Refusal::Version {
                        evaluator: PROTOCOL_VERSION - 1,
                        client: version,
                    }),
                    Ok(Request::Hello { .. }) => Reply::Hello(card(&program)),
                    _ => Reply::Refused(Refusal::Frame { received: 9 }),
                });
            })
        });
        let (answer, _) = Watched::new(&reference.plan, client, PADDING).infer();
        let error = answer.unwrap_err();
        match older {
            true => assert!(error.to_string().contains("protocol version"), "{error}"),
            false => assert!(matches!(error, ClientError::Unpadded { .. }), "{error}"),
        }
    }
}

/// One that does not pad is answered at once by an evaluator that padded before.
#[test]
fn a_link_is_padded_for_those_who_ask() {
    let reference = Reference::new();
    let image = &bundled::digits().unwrap().images[0];
    let end = evaluator::in_process(&reference.plan).unwrap();
    let mut watched = Watched::new(&reference.plan, end, PADDING);
    watched.infer().0.unwrap();
    watched.client.set_padding(None);
    let (answer, open) = watched.infer();
    let answer = answer.unwrap();
    reference.check(image, &answer);
    assert!(answer.padded.is_none() && open.len() > 10);
    watched.client.set_padding(Some(PADDING));
    assert!(watched.infer().0.unwrap().padded.is_some());
}
