//! The evaluator on a host: the session of the firmware, in a thread or
//! behind TCP.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use he_nn::message::{Memory, TimeUnit};
use he_nn::model::{Model, ModelError};
use he_nn::plan::{Plan, PlanError, WeightMode};
use he_nn::program::Program;
use he_nn::session::{EMPTY_CHUNK, Encrypted, Platform, Session, WeightSource};
use he_nn::trace::Ring;

use crate::device::stream::Stream;
use crate::device::{DeviceError, Duplex, Transport, duplex, serve};

/// Pause after a connection that could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long a client may be silent before another gets its turn. Encrypting and
/// thinking take a client seconds.
const IDLE: Duration = Duration::from_secs(600);

/// Chunks in flight; a host has room for more than a board.
const WINDOW: u8 = 16;

/// Spans that a trace keeps: enough for every bundled network, which a test holds.
const TRACE_SPANS: usize = 1 << 15;

/// Why an evaluator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EvaluatorError {
    /// The model file is unusable.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model does not fit.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The link failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The address cannot be listened at.
    #[error("{address} cannot be listened at ({source}): name a free address of this machine")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A client was silent for too long.
    #[error("{client} sent nothing for {} s: its session is over, let it connect again", limit.as_secs_f64())]
    Idle {
        /// The client.
        client: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// A host has no instruction counter, but a clock; its memory is the arena's.
struct Host {
    arena_bytes: u32,
    start: Instant,
    /// Nanoseconds that [`Timed`] has waited, until they are asked for.
    waited: Arc<AtomicU64>,
}

impl Host {
    fn new(arena: &[u32], waited: &Arc<AtomicU64>) -> Self {
        Self {
            arena_bytes: size_of_val(arena) as u32,
            start: Instant::now(),
            waited: waited.clone(),
        }
    }
}

impl Platform for Host {
    fn board(&self) -> &'static str {
        "inproc"
    }
    fn unit(&self) -> TimeUnit {
        TimeUnit::Nanoseconds
    }
    fn now(&mut self) -> u64 {
        nanoseconds(self.start)
    }
    fn waited(&mut self) -> u64 {
        self.waited.swap(0, Ordering::Relaxed)
    }
    fn memory(&mut self) -> Memory {
        Memory {
            static_bytes: self.arena_bytes,
            stack_peak_bytes: 0,
        }
    }
    fn window(&self) -> u8 {
        WINDOW
    }
}

/// Nanoseconds since `start`, of which 64 bits hold centuries.
fn nanoseconds(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}

/// A transport that measures how long it is waited at.
struct Timed<'t, T> {
    transport: &'t mut T,
    waited: Arc<AtomicU64>,
}

impl<T: Transport> Transport for Timed<'_, T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.transport.send(bytes)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        let start = Instant::now();
        let received = self.transport.receive(buffer, timeout);
        self.waited.fetch_add(nanoseconds(start), Ordering::Relaxed);
        received
    }

    fn name(&self) -> String {
        self.transport.name()
    }
}

/// Evaluates a program for the client behind `transport` until it closes: with the
/// weights of a model, or with none where they are encrypted.
///
/// # Errors
/// [`EvaluatorError`].
pub fn evaluate<T: Transport, B: AsRef<[u8]>, W: WeightSource>(
    program: &Program<B>,
    weights: W,
    transport: &mut T,
) -> Result<(), EvaluatorError> {
    let mut arena = vec![0; program.arena_words()];
    let mut chunk = EMPTY_CHUNK;
    let mut ring = Box::new(Ring::<TRACE_SPANS>::new());
    let waited = Arc::new(AtomicU64::new(0));
    let mut host = Host::new(&arena, &waited);
    let mut session: Session<'_, B, W, _> =
        Session::new(program, weights, &mut arena, &mut chunk, ring.as_mut())?;
    let mut transport = Timed { transport, waited };
    serve(&mut transport, |request, mut reply| match request {
        Ok(request) => session.handle(request, &mut host, &mut reply),
        Err(error) => session.refuse_frame(error.received(), &mut reply),
    })?;
    Ok(())
}

/// Starts an evaluator of a plan in a thread and gives the client's end of its link.
/// The thread ends when that end is dropped.
///
/// # Errors
/// [`EvaluatorError::Plan`] where a program does not hold the plan.
pub fn in_process(plan: &Plan<'_>) -> Result<Duplex, EvaluatorError> {
    let program = Program::of(plan)?;
    let (client, mut end) = duplex();
    let model = match plan.weights() {
        WeightMode::Plain => Some(plan.model().file().to_vec()),
        WeightMode::Encrypted => None,
    };
    // The model was parsed before it was planned; should the thread fail all the same,
    // its end closes and the client is told.
    thread::spawn(move || match model {
        None => evaluate(&program, Encrypted, &mut end),
        Some(model) => evaluate(&program, Model::parse(&model)?, &mut end),
    });
    Ok(client)
}

/// A transport that does not wait for ever.
struct Limited<T> {
    transport: T,
    limit: Duration,
}

impl<T: Transport> Transport for Limited<T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.transport.send(bytes)
    }

    fn receive(
        &mut self,
        buffer: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<usize, DeviceError> {
        let limit = timeout.map_or(self.limit, |timeout| timeout.min(self.limit));
        self.transport.receive(buffer, Some(limit))
    }

    fn name(&self) -> String {
        self.transport.name()
    }
}

/// What an evaluator behind TCP holds.
#[derive(Clone, Copy, Debug)]
pub enum Held<'a> {
    /// A program and its weights.
    Plain(&'a Program<Vec<u8>>, Model<'a>),
    /// A program whose weights come encrypted.
    Encrypted(&'a Program<Vec<u8>>),
}

impl Held<'_> {
    fn evaluate<T: Transport>(self, transport: &mut T) -> Result<(), EvaluatorError> {
        match self {
            Self::Plain(program, weights) => evaluate(program, weights, transport),
            Self::Encrypted(program) => evaluate(program, Encrypted, transport),
        }
    }
}

/// One client's session. Ends when the client does, or is silent for `limit`.
fn session(
    socket: TcpStream,
    peer: SocketAddr,
    held: Held<'_>,
    limit: Duration,
) -> Result<(), EvaluatorError> {
    let transport = Stream::new(socket, format!("tcp:{peer}"))?;
    let mut transport = Limited { transport, limit };
    match held.evaluate(&mut transport) {
        // A full send buffer has another limit.
        Err(EvaluatorError::Device(DeviceError::Timeout { device, timeout }))
            if timeout == limit =>
        {
            Err(EvaluatorError::Idle {
                client: device,
                limit,
            })
        }
        ended => ended,
    }
}

/// Listens at `address` and evaluates what is `held` for one client after the other, each in
/// a session of its own, which ends after ten silent minutes. `listening` is told the address bound (with port 0,
/// the system chooses the port); `ended` how each session ended. Never returns
/// but with an error.
///
/// # Errors
/// [`EvaluatorError`] if the model is unusable or the address is not free.
pub fn listen(
    address: &str,
    held: Held<'_>,
    listening: impl FnOnce(SocketAddr),
    mut ended: impl FnMut(Result<(), EvaluatorError>),
) -> Result<std::convert::Infallible, EvaluatorError> {
    let failed = |source| EvaluatorError::Listen {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listening(listener.local_addr().map_err(failed)?);
    loop {
        let (socket, peer) = match listener.accept() {
            Ok(connection) => connection,
            Err(source) => {
                // A client that is gone again, or a passing shortage.
                ended(Err(failed(source)));
                thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        ended(session(socket, peer, held, IDLE));
    }
}

#[cfg(test)]
mod tests {
    use he_nn::plan::Target;

    use super::*;
    use crate::planning;

    #[test]
    fn a_silent_client_loses_its_session() {
        let limit = Duration::from_millis(50);
        let model = Model::parse(he_nn::bundled::model("mnist-mlp64").unwrap()).unwrap();
        let plan = planning::plan(None, model, WeightMode::Plain, Target::STREAM).unwrap();
        let program = Program::of(&plan).unwrap();
        let model = Held::Plain(&program, model);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let error = session(socket, peer, model, limit).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "tcp:{} sent nothing for 0.05 s: its session is over, let it connect again",
                client.local_addr().unwrap()
            )
        );
        // A client that leaves is no failure.
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        drop(client);
        session(socket, peer, model, IDLE).unwrap();
    }
}
