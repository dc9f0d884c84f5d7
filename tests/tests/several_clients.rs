//! An evaluator behind TCP serves several clients at once, whatever some of them do.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cpu_time::{ProcessTime, ThreadTime};
use he_edge_tests::{Reference, assert_one_sentence};
use he_nn::program::Program;
use host_runner::client::{ClientError, RefusalSentence};
use host_runner::device::Connection;
use host_runner::device::stream::{Stream, connect};
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

/// Processor time, which other processes do not change: from the begin to the moment in
/// which each of six clients was done, of everything in this process, and of that client
/// with its session. Of eight, each has an eighth for its share.
#[test]
#[expect(clippy::print_stdout, reason = "figures of the run")]
fn eight_clients_one_silent_and_one_hostile() {
    let each = match std::env::var_os("HE_EDGE_LONG") {
        Some(_) => 200,
        None => 4,
    };
    // A hostile client that comes again may hold two places for a moment.
    let (address, visits) = serve(Limits {
        clients: 16,
        ..Limits::default()
    });
    let begin = ProcessTime::now();
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
                // As fast as the other end takes it.
                let patience = Some(Duration::from_millis(100));
                hostile.set_write_timeout(patience).unwrap();
                let mut answers = hostile.try_clone().unwrap();
                thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
                let bytes = std::array::from_fn::<u8, 4096, _>(|_| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (noise >> 27) as u8
                });
                while !done.load(Ordering::Relaxed) {
                    if hostile.write_all(&bytes).is_err() {
                        break;
                    }
                }
            }
        });
        let clients: Vec<_> = (0..6)
            .map(|seed| {
                scope.spawn(move || {
                    let own = ThreadTime::now();
                    let reference = Reference::new();
                    let mut client = reference.client(seed);
                    let socket = TcpStream::connect(address).unwrap();
                    socket.set_nodelay(true).unwrap();
                    let name = format!("tcp:{}", socket.local_addr().unwrap());
                    let mut link = Connection::new(Stream::new(socket, "it".into()).unwrap());
                    for image in reference.digits.iter().cycle().take(each) {
                        let inference = client.infer(&mut link, image, &mut ()).unwrap();
                        reference.check(image, &inference);
                    }
                    (name, own.elapsed(), begin.elapsed())
                })
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        done.store(true, Ordering::Relaxed);
        let clients: Vec<_> = ended.into_iter().map(Result::unwrap).collect();
        drop(silent);
        let mut of_hostile = Duration::ZERO;
        let mut times_of_share = Vec::new();
        while times_of_share.len() < clients.len() {
            let visit = visits.recv().unwrap();
            match clients.iter().find(|(name, ..)| *name == visit.client) {
                Some((_, own, all)) => {
                    assert_eq!(visit.inferences, each as u64);
                    let own = (*own + visit.cpu).as_secs_f64();
                    times_of_share.push(all.as_secs_f64() / 8.0 / own);
                }
                None => of_hostile += visit.cpu,
            }
        }
        let most = times_of_share.iter().copied().fold(0.0, f64::max);
        let all = begin.elapsed().as_secs_f64();
        println!(
            "six clients of {each} inferences beside a silent and a hostile one: each took at most {most:.2} times its eighth of {all:.1} s of processor time; sessions of the hostile one {:.0} %",
            100.0 * of_hostile.as_secs_f64() / all
        );
        assert!(most <= 2.0, "{times_of_share:?}");
    });
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
