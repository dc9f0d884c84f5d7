//! The evaluator's end of a transport on a host: what the firmware's main loop
//! is on a board.

use std::time::{Duration, Instant};

use he_nn::link::{self, Frame, FrameReader, LinkError, MAX_DECODED, MAX_FRAME};
use he_nn::message::{Reply, Request};
use he_nn::padding::{Pace, Tick, leaves_out};
use serde::Serialize;

use super::{DeviceError, Transport};

/// Bytes that were asked for and took longer than this had not come yet.
const WAITED: Duration = Duration::from_micros(20);

/// Answers requests until the other end closes the connection. The handler
/// gets every request, or what was wrong with a frame, and sends any number of
/// replies. They are padded where the client asks for that ([`he_nn::padding`]).
///
/// # Errors
/// What the transport says, except that it was closed.
pub fn serve<T, H>(transport: &mut T, mut handler: H) -> Result<(), DeviceError>
where
    T: Transport + ?Sized,
    H: FnMut(Result<Request<'_>, LinkError>, &mut dyn FnMut(Reply<'_>)),
{
    let mut pace = Pace::new();
    let mut has_refused = false;
    serve_frames(transport, |frame, outgoing| {
        let request = frame.and_then(|frame| frame.decode());
        if std::mem::take(&mut outgoing.has_waited) {
            pace.idle();
        }
        let tick = pace.heard(request.as_ref().ok());
        has_refused &= tick.is_none();
        if !pace.is_on() || matches!(request, Ok(Request::Begin { .. })) {
            outgoing.kept = [const { Vec::new() }; 2];
        }
        handler(request, &mut |reply| match pace.is_on() {
            true if leaves_out(&reply, &mut has_refused) => {}
            true => {
                let is_result = matches!(reply, Reply::Result { .. } | Reply::Done { .. });
                outgoing.keep(is_result.into(), &reply);
            }
            false => outgoing.send(&reply),
        });
        if let Some(tick) = tick {
            outgoing.answer(tick);
        }
    })
}

/// Where the handler of [`serve_frames`] sends its replies.
pub struct Outgoing<'t, T: Transport + ?Sized> {
    transport: &'t mut T,
    buffer: [u8; MAX_FRAME],
    failed: Option<DeviceError>,
    /// Frames that wait for a tick, and those of a result, which wait for the one that asks
    /// for it.
    kept: [Vec<u8>; 2],
    /// Bytes had to be waited for.
    has_waited: bool,
}

impl<T: Transport + ?Sized> Outgoing<'_, T> {
    /// Sends a message; after the first that fails, none.
    pub fn send(&mut self, message: &impl Serialize) {
        if self.failed.is_some() {
            return;
        }
        self.failed = match link::encode(message, &mut self.buffer) {
            Ok(frame) => self.transport.send(frame).err(),
            Err(source) => Some(DeviceError::Link {
                device: self.transport.name(),
                source,
            }),
        };
    }

    /// Keeps a message for a tick.
    fn keep(&mut self, which: usize, message: &impl Serialize) {
        match link::encode(message, &mut self.buffer) {
            Ok(frame) => self.kept[which].extend_from_slice(frame),
            Err(source) => {
                self.failed = Some(DeviceError::Link {
                    device: self.transport.name(),
                    source,
                });
            }
        }
    }

    /// Answers a tick, in one piece: a tunnel shows pieces.
    fn answer(&mut self, tick: Tick) {
        let mut answer = std::mem::take(&mut self.kept[0]);
        if tick.result {
            answer.append(&mut self.kept[1]);
        }
        self.keep(0, &tick.tock());
        let zeros = tick.zeros(answer.len() + self.kept[0].len());
        answer.resize(answer.len() + zeros, link::DELIMITER);
        answer.append(&mut self.kept[0]);
        if self.failed.is_none() {
            self.failed = self.transport.send(&answer).err();
        }
    }
}

/// As [`serve`], for messages of any protocol.
///
/// # Errors
/// As [`serve`].
pub fn serve_frames<T, H>(transport: &mut T, mut handler: H) -> Result<(), DeviceError>
where
    T: Transport + ?Sized,
    H: FnMut(Result<Frame<'_>, LinkError>, &mut Outgoing<'_, T>),
{
    let mut reader = Box::<FrameReader<MAX_DECODED>>::default();
    let mut incoming = vec![0; MAX_FRAME];
    let mut outgoing = Outgoing {
        transport,
        buffer: [0; MAX_FRAME],
        failed: None,
        kept: [const { Vec::new() }; 2],
        has_waited: false,
    };
    loop {
        let asked = Instant::now();
        let received = outgoing.transport.receive(&mut incoming, None);
        outgoing.has_waited |= asked.elapsed() > WAITED;
        let got = match received {
            Ok(got) => got,
            Err(DeviceError::Closed { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut bytes = incoming.get(..got).unwrap_or_default();
        while let Some(event) = reader.read(&mut bytes) {
            handler(event, &mut outgoing);
            match outgoing.failed.take() {
                None => {}
                Some(DeviceError::Closed { .. }) => return Ok(()),
                Some(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Duration;

    use he_nn::message::{Card, Item, PROTOCOL_VERSION, Refusal, TimeUnit};

    use super::super::{Connection, Direction, duplex};
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// Runs a handler in a thread of its own and gives the client's end of a
    /// transport to it. The thread ends when that end is dropped.
    fn in_process<H>(handler: H) -> impl Transport
    where
        H: FnMut(Result<Request<'_>, LinkError>, &mut dyn FnMut(Reply<'_>)) + Send + 'static,
    {
        let (client, mut evaluator) = duplex();
        // If the handler panics, its end closes and the client is told.
        thread::spawn(move || serve(&mut evaluator, handler));
        client
    }

    fn evaluator(request: Result<Request<'_>, LinkError>, reply: &mut dyn FnMut(Reply<'_>)) {
        match request {
            Ok(Request::Hello { .. }) => reply(Reply::Hello(Card {
                version: PROTOCOL_VERSION,
                board: "test",
                model: "none",
                model_crc: 0,
                params: 0,
                plan: 0,
                window: 8064,
                unit: TimeUnit::None,
            })),
            Ok(Request::Data { bytes, .. }) => {
                reply(Reply::Result {
                    part: 0,
                    limb: 0,
                    offset: 0,
                    bytes,
                });
            }
            Ok(Request::Abort) => panic!("the evaluator is meant to die here"),
            Ok(_) => reply(Reply::Ack),
            Err(error) => {
                reply(Reply::Refused(Refusal::Frame {
                    received: error.received(),
                }));
            }
        }
    }

    #[test]
    fn a_conversation_is_counted_and_recorded() {
        let mut connection = Connection::new(in_process(evaluator));
        let seen = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let recorded = seen.clone();
        connection.record(move |way, bytes| {
            let mut seen = recorded.lock().unwrap();
            match way {
                Direction::Up => seen.0.extend_from_slice(bytes),
                Direction::Down => seen.1.extend_from_slice(bytes),
            }
        });
        let board = connection
            .hello(SOON, |card| card.unwrap().board.to_owned())
            .unwrap();
        assert_eq!(board, "test");

        let chunk = [0xA5; 1920];
        let item = Item::Input {
            ciphertext: 1,
            limb: 2,
        };
        for _ in 0..4 {
            connection
                .send(&Request::Data {
                    item,
                    offset: 0,
                    bytes: &chunk,
                })
                .unwrap();
        }
        for _ in 0..4 {
            let same = connection
                .receive(
                    SOON,
                    |reply| matches!(reply, Reply::Result { bytes, .. } if bytes == chunk),
                )
                .unwrap();
            assert!(same);
        }
        let traffic = connection.traffic();
        let seen = seen.lock().unwrap();
        assert_eq!(
            (traffic.up, traffic.down),
            (seen.0.len() as u64, seen.1.len() as u64)
        );
        assert!(traffic.up > 4 * 1920 && traffic.down > 4 * 1920);
        assert_eq!(
            seen.0
                .windows(chunk.len())
                .filter(|window| *window == chunk)
                .count(),
            0
        );
    }

    #[test]
    fn damage_is_refused_and_hello_brings_both_back_in_step() {
        let mut connection = Connection::new(in_process(evaluator));
        connection.send_raw(&[1, 2, 3, 0, 9, 9]).unwrap();
        let refused = connection
            .receive(SOON, |reply| {
                matches!(reply, Reply::Refused(Refusal::Frame { received: 3 }))
            })
            .unwrap();
        assert!(refused);
        assert!(connection.hello(SOON, |card| card.is_ok()).unwrap());
    }

    #[test]
    fn a_dead_evaluator_is_a_closed_connection() {
        let mut connection = Connection::new(in_process(evaluator));
        connection.send(&Request::Abort).unwrap();
        let error = connection.receive(SOON, |_| ()).unwrap_err();
        assert!(matches!(error, DeviceError::Closed { .. }), "{error}");
    }
}
