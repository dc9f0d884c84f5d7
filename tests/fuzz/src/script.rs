//! Recorded inferences, and changes to them. An input of the targets of sessions and
//! of the client is a list of steps: so a few bytes reach any point of
//! a conversation of thousands of messages with right checksums.

use he_edge_tests::Reference;
use he_nn::link::{FrameReader, LinkError, MAX_FRAME, encode};
use he_nn::model::{Model, Sample, Shape};
use he_nn::network::{Network, NetworkInput, NetworkLayer, Weights};
use he_nn::plan::{Plan, Target, WeightMode};
use he_nn::program::Program;
use host_runner::client::{Client, ClientError, Keys};
use host_runner::device::{Connection, Direction};
use host_runner::{evaluator, planning};
use serde::ser::{Serialize, SerializeTuple, Serializer};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A plan, its program, and the messages of an inference, without framing.
pub(crate) struct Recording {
    pub(crate) plan: Plan<'static>,
    pub(crate) program: Program<Vec<u8>>,
    pub(crate) up: Vec<Vec<u8>>,
    pub(crate) down: Vec<Vec<u8>>,
}

impl Recording {
    pub(crate) fn client(&self) -> Client<'static> {
        match client(&self.plan) {
            Ok(client) => client,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Of the bundled network, its weights in plain; traced.
pub(crate) static PLAIN: LazyLock<Recording> = LazyLock::new(|| {
    let Reference { plan, digits, .. } = Reference::new();
    record(plan, (&digits[0]).into(), true, 1)
});

/// The same with encrypted weights.
pub(crate) static ENCRYPTED: LazyLock<Recording> = LazyLock::new(|| {
    let Reference { model, digits, .. } = Reference::new();
    let plan = streamed(model, WeightMode::Encrypted);
    record(plan, (&digits[0]).into(), false, 1)
});

/// Of a network whose first two layers are one matrix, before a polynomial. Of two
/// inferences: the evaluator keeps the keys of the first for the second.
pub(crate) static POLYNOMIAL: LazyLock<Recording> = LazyLock::new(|| {
    let Ok(file) = polynomial_network() else {
        panic!("the network is within the format's limits");
    };
    let Ok(model) = Model::parse(file.leak()) else {
        panic!("what was written is read");
    };
    let plan = streamed(model, WeightMode::Plain);
    let recording = record(plan, Sample::Pixels(&[200; 16]), false, 2);
    assert!(recording.program.has_polynomials() && recording.program.is_merged());
    recording
});

fn polynomial_network() -> Result<Vec<u8>, he_nn::model::ModelError> {
    let dense = |inputs: usize, outputs: usize| {
        NetworkLayer::Dense(Weights {
            weights: (0..inputs * outputs).map(|i| (i % 7) as i16 - 3).collect(),
            scale: 0.05,
            multipliers: Vec::new(),
            biases: vec![0.25; outputs],
        })
    };
    let network = Network {
        name: "polynomial".to_owned(),
        input: NetworkInput::Image(Shape {
            channels: 1,
            height: 4,
            width: 4,
        }),
        layers: vec![
            dense(16, 8),
            dense(8, 8),
            NetworkLayer::Polynomial(vec![0.1, 0.5, 0.25, 0.05]),
            dense(8, 4),
        ],
    };
    network.file(&[2.0, 2.0, 3.0, 4.0])
}

fn streamed(model: Model<'static>, weights: WeightMode) -> Plan<'static> {
    match planning::plan(None, model, weights, Target::STREAM) {
        Ok(plan) => plan,
        Err(error) => panic!("{error}"),
    }
}

fn client(plan: &Plan<'static>) -> Result<Client<'static>, ClientError> {
    Client::with_keys(plan.clone(), Keys::from_seed(plan.params(), &[1; 32])?)
}

/// Inferences in this process.
fn record(plan: Plan<'static>, sample: Sample<'_>, trace: bool, inferences: usize) -> Recording {
    let bytes = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let Ok(link) = evaluator::in_process(&plan) else {
        panic!("the plan has an evaluator");
    };
    let mut link = Connection::new(link);
    let sink = bytes.clone();
    link.record(move |direction, bytes| {
        let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
        match direction {
            Direction::Up => sink.0.extend_from_slice(bytes),
            Direction::Down => sink.1.extend_from_slice(bytes),
        }
    });
    let inferred = client(&plan).and_then(|mut client| {
        client.set_tracing(trace);
        for _ in 0..inferences {
            client.infer(&mut link, sample, &mut ())?;
        }
        Ok(client.program().clone())
    });
    let program = match inferred {
        Ok(program) => program,
        Err(error) => panic!("{error}"),
    };
    let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
    let (up, down) = (messages(&bytes.0), messages(&bytes.1));
    assert!(up.len() > 1000 && down.len() > 1000);
    Recording {
        plan,
        program,
        up,
        down,
    }
}

fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = Box::new(FrameReader::<{ he_nn::link::MAX_DECODED }>::new());
    let (mut bytes, mut found) = (bytes, Vec::new());
    while let Some(frame) = reader.read(&mut bytes) {
        match frame {
            Ok(frame) => found.push(frame.message().to_vec()),
            Err(error) => panic!("{error}"),
        }
    }
    found
}

/// Bytes that postcard encodes as they are.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        for byte in self.0 {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

/// A frame around any bytes.
///
/// # Errors
/// [`LinkError::Buffer`] for more bytes than a frame has.
pub fn frame(message: &[u8]) -> Result<Vec<u8>, LinkError> {
    let mut buffer = vec![0; MAX_FRAME];
    encode(&Raw(message), &mut buffer).map(<[u8]>::to_vec)
}

/// Plays a recording with changes; `out` takes the messages and says whether to
/// go on. A step is a byte that says what to do, and two bytes of argument:
///
/// | step mod 8 | does with the argument `x` |
/// |---|---|
/// | 0 | plays `x` messages |
/// | 1 | plays `x` times 16 messages, at most up to the last 16 |
/// | 2 | leaves `x mod 256` messages out |
/// | 3 | goes back by `x mod 256` messages |
/// | 4 | plays one with byte `x / 8` changed in bit `x mod 8` |
/// | 5 | plays one cut off after `x` bytes |
/// | 6 | inserts the next `x mod 64` bytes of the script as a message |
/// | 7 | plays one with its first bytes replaced by the next `x mod 16` of the script |
pub(crate) fn play(recording: &[Vec<u8>], script: &[u8], mut out: impl FnMut(&[u8]) -> bool) {
    let (mut rest, mut at) = (script, 0);
    // A script may go back; it must end all the same.
    let mut left = 2 * recording.len();
    let mut say = |message: &[u8]| {
        left = left.saturating_sub(1);
        left > 0 && out(message)
    };
    let take = |rest: &mut &[u8], count: usize| {
        let (head, tail) = rest.split_at(count.min(rest.len()));
        *rest = tail;
        head.to_vec()
    };
    while let [step, low, high, tail @ ..] = rest {
        rest = tail;
        let x = usize::from(u16::from_le_bytes([*low, *high]));
        let one = recording.get(at);
        let go_on = match step % 8 {
            step @ (0 | 1) => {
                let end = match step {
                    0 => at + x,
                    _ => (at + 16 * x).min(recording.len() - 16).max(at),
                };
                let end = end.min(recording.len());
                let part = recording.get(at..end).unwrap_or_default();
                at = end;
                part.iter().all(|message| say(message))
            }
            2 => {
                at = (at + x % 256).min(recording.len());
                true
            }
            3 => {
                at = at.saturating_sub(x % 256);
                true
            }
            4 => one.is_none_or(|message| {
                let mut message = message.clone();
                if let Some(byte) = message.get_mut(x / 8) {
                    *byte ^= 1 << (x % 8);
                }
                at += 1;
                say(&message)
            }),
            5 => one.is_none_or(|message| {
                at += 1;
                say(&message[..x.min(message.len())])
            }),
            6 => say(&take(&mut rest, x % 64)),
            _ => one.is_none_or(|message| {
                let mut message = message.clone();
                for (byte, new) in message.iter_mut().zip(take(&mut rest, x % 16)) {
                    *byte = new;
                }
                at += 1;
                say(&message)
            }),
        };
        if !go_on {
            return;
        }
    }
}

/// Scripts that reach the beginning, the middle, and the end.
pub(crate) fn scripts() -> Vec<Vec<u8>> {
    [
        &[0, 3, 0][..],
        &[0, 40, 0, 4, 9, 0],
        &[0, 2, 0, 2, 1, 0, 0, 9, 0],
        &[0, 30, 0, 5, 3, 0, 0, 9, 0],
        &[0, 2, 0, 6, 3, 0, 1, 2, 3],
        &[0, 9, 0, 3, 2, 0, 0, 9, 0],
        &[0, 1, 0, 7, 2, 0, 1, 1, 0, 3, 0],
        // Most of it, its end, and a change in its end.
        &[1, 0xff, 0x0f, 0, 0xff, 0],
        &[1, 0xff, 0x0f, 4, 200, 0, 0, 0xff, 0],
    ]
    .map(<[u8]>::to_vec)
    .to_vec()
}
