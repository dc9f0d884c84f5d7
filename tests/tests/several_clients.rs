//! An evaluator behind TCP serves several clients at once, whatever some of them do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use he_edge_tests::{Reference, assert_one_sentence};
use he_nn::program::Program;
use host_runner::client::{ClientError, RefusalSentence};
use host_runner::device::Connection;
use host_runner::device::stream::connect;
use host_runner::evaluator::{self, EvaluatorError, Held, Limits, Visit};

/// An evaluator in a thread that ends with the process, and who was there.
fn serve(limits: Limits) -> (SocketAddr, mpsc::Receiver<Visit>) {
    let (tell, listening) = mpsc::channel();
    let (tell_visit, visits) = mpsc::channel();
    thread::spawn(move || {
        let reference = Reference::new();
        let program = Program::of(&reference.plan).unwrap();
        let held = Held::Plain(&program, reference.model);
        evaluator::listen(
            "127.0.0.1:0",
            held,
            limits,
            |address| tell.send(address).unwrap(),
            |visit| drop(tell_visit.send(visit)),
        )
    });
    (listening.recv().unwrap(), visits)
}

#[test]
fn eight_clients_one_silent_and_one_hostile() {
    const EACH: usize = 4;
    let (address, _visits) = serve(Limits::default());
    let done = AtomicBool::new(false);
    let silent = TcpStream::connect(address).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            // Nonsense, frames that begin well, and floods, as long as the others are there.
            let mut noise = 1u32;
            while !done.load(Ordering::Relaxed) {
                let Ok(mut hostile) = TcpStream::connect(address) else {
                    continue;
                };
                hostile.set_nonblocking(true).unwrap();
                let bytes = std::array::from_fn::<u8, 4096, _>(|_| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (noise >> 27) as u8
                });
                let mut answers = [0; 4096];
                for _ in 0..64 {
                    let _ = hostile.write(&bytes);
                    let _ = hostile.read(&mut answers);
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let clients: Vec<_> = (0..6)
            .map(|seed| {
                scope.spawn(move || {
                    let reference = Reference::new();
                    let mut client = reference.client(seed);
                    let mut link = Connection::new(connect(&address.to_string()).unwrap());
                    for image in &reference.digits[..EACH] {
                        let inference = client.infer(&mut link, image, &mut ()).unwrap();
                        reference.check(image, &inference);
                    }
                })
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    drop(silent);
}

#[test]
fn one_client_too_many_is_told_so_and_a_silent_one_makes_room() {
    let (address, visits) = serve(Limits {
        clients: 2,
        idle: Duration::from_secs(3),
        ..Limits::default()
    });
    let silent = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    let reference = Reference::new();
    let mut client = reference.client(1);
    let image = &reference.digits[0];
    let mut infer = || {
        let mut link = Connection::new(connect(&address.to_string()).unwrap());
        client.infer(&mut link, image, &mut ())
    };
    let error = infer().unwrap_err();
    assert_one_sentence("one too many", &error);
    let refused = matches!(
        error,
        ClientError::Refused {
            reason: RefusalSentence(he_nn::message::Refusal::Busy),
            ..
        }
    );
    assert!(refused, "{error}");
    let told = visits.recv().unwrap().ended;
    assert!(matches!(told, Err(EvaluatorError::Busy { clients: 2, .. })));
    let is_idle = |visit: Visit| matches!(visit.ended, Err(EvaluatorError::Idle { .. }));
    assert!(is_idle(visits.recv().unwrap()));
    reference.check(image, &infer().unwrap());
    drop(silent);
}
