//! The evaluator on a host: the session of the firmware, in a thread or
//! behind TCP.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use he_nn::kept::{KeyStore, Log, MemoryFlash, PAGE_HEADER_BYTES, PageEntry, RecordEntry};
use he_nn::link::{self, LinkError, MAX_FRAME};
use he_nn::message::{Memory, Refusal, Reply, Request, TimeUnit};
use he_nn::model::{Model, ModelError};
use he_nn::plan::{Plan, PlanError, WeightMode};
use he_nn::program::Program;
use he_nn::session::{EMPTY_CHUNK, Encrypted, Platform, Session, WeightSource};
use he_nn::trace::Ring;

use crate::device::stream::Stream;
use crate::device::{DeviceError, Duplex, Seconds, Transport, advice, duplex, serve};
use crate::interrupt;

/// Pause after a connection that could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Longest wait between two looks at the limits and at the wish to end.
const LOOK: Duration = Duration::from_millis(100);

/// How long inferences that run may go on once the process is to end.
const DRAIN: Duration = Duration::from_secs(60);

/// Frames without a whole one between them that end a session: no line is so bad.
const MOST_DAMAGED: u64 = 256;

/// Clients that are told at once that there is no room; more are closed without a word.
const MOST_REFUSED: usize = 16;

/// How long a client that there is no room for may take to hear it.
const REFUSAL: Duration = Duration::from_secs(1);

/// Bytes in flight: 4 MB/s at a round trip of 16 ms. Most of them wait in the system's
/// buffers.
const WINDOW: u32 = 64 * 1024;

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
    #[error(
        "{address} cannot be listened at ({source}): {}",
        advice(source, "name a free address of this machine")
    )]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A connection cannot be taken.
    #[error(
        "a connection could not be taken ({source}): if files ran out, allow more or lower --clients"
    )]
    Accept {
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no room for a client.
    #[error(
        "{client} was refused: {clients} clients are served already, allow more with --clients"
    )]
    Busy {
        /// The client.
        client: String,
        /// How many there may be.
        clients: usize,
    },
    /// A client stayed for too long.
    #[error("{client} was served for {}: its session is over, let it connect again", Seconds(*limit))]
    Long {
        /// The client.
        client: String,
        /// How long a session may last.
        limit: Duration,
    },
    /// A client sends what is no message.
    #[error(
        "{client} sent {frames} damaged frames in a row: its session is over, check what it is and its line"
    )]
    Damaged {
        /// The client.
        client: String,
        /// How many.
        frames: u64,
    },
    /// A client was silent for too long.
    #[error("{client} sent nothing whole for {}: its session is over, let it connect again", Seconds(*limit))]
    Idle {
        /// The client.
        client: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// A host has no instruction counter, but a clock; its memory is that of arena and kept
/// keys.
struct Host {
    memory_bytes: u32,
    start: Instant,
    /// Nanoseconds that [`Timed`] has waited.
    waited: Arc<AtomicU64>,
}

impl Host {
    fn new(memory_bytes: usize, waited: &Arc<AtomicU64>) -> Self {
        Self {
            memory_bytes: u32::try_from(memory_bytes).unwrap_or(u32::MAX),
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
        self.waited.load(Ordering::Relaxed)
    }
    fn memory(&mut self) -> Memory {
        Memory {
            static_bytes: self.memory_bytes,
            stack_peak_bytes: 0,
        }
    }
    fn window(&self) -> u32 {
        WINDOW
    }
    fn keeps_result(&self) -> bool {
        true
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

/// What a session tells whoever limits it, in one thread.
#[derive(Debug)]
struct Meter {
    start: Instant,
    /// Nanoseconds from `start` to the last whole request.
    heard: AtomicU64,
    /// An inference has begun and not ended.
    is_running: AtomicBool,
    inferences: AtomicU64,
    /// Frames since the last whole one that were none.
    damaged: AtomicU64,
}

impl Meter {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            heard: AtomicU64::new(0),
            is_running: AtomicBool::new(false),
            inferences: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        }
    }

    fn take(&self, request: Result<&Request<'_>, &LinkError>) {
        match request {
            Ok(request) => {
                self.damaged.store(0, Ordering::Relaxed);
                self.heard.store(nanoseconds(self.start), Ordering::Relaxed);
                if let Request::Begin { .. } = request {
                    self.is_running.store(true, Ordering::Relaxed);
                }
            }
            Err(_) => {
                self.damaged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn give(&self, reply: &Reply<'_>) {
        match reply {
            Reply::Done { .. } => {
                self.inferences.fetch_add(1, Ordering::Relaxed);
                self.is_running.store(false, Ordering::Relaxed);
            }
            Reply::Aborted | Reply::Refused(_) => self.is_running.store(false, Ordering::Relaxed),
            _ => {}
        }
    }

    /// How long ago a whole request came.
    fn silence(&self) -> Duration {
        let heard = Duration::from_nanos(self.heard.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(heard)
    }
}

/// Memory for the keys of one client, as many as the program uses: new keys take the place
/// of the old ones. It is the client's alone and goes with its session, so clients share
/// nothing, and one that connects again streams its keys again.
struct KeyRoom {
    memory: Vec<u8>,
    pages: Vec<PageEntry>,
    records: Vec<RecordEntry>,
}

impl KeyRoom {
    /// Bytes of a page.
    const PAGE: usize = 1 << 14;

    fn pages<B: AsRef<[u8]>>(program: &Program<B>) -> usize {
        let payload = Self::PAGE - PAGE_HEADER_BYTES;
        let keys = program.kept_keys(false);
        keys.map(|size| size.stored().div_ceil(payload)).sum()
    }

    fn new<B: AsRef<[u8]>>(program: &Program<B>) -> Self {
        let pages = Self::pages(program);
        Self {
            memory: vec![0; pages * Self::PAGE],
            pages: vec![PageEntry::EMPTY; pages],
            records: vec![RecordEntry::EMPTY; program.kept_keys(false).count()],
        }
    }

    const fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Nothing where a program has no keys.
    fn store(&mut self) -> Option<Log<'_, MemoryFlash<'_>>> {
        let memory = MemoryFlash::new(&mut self.memory);
        Log::mount(memory, &mut self.pages, &mut self.records).ok()
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
    metered(program, weights, transport, &Meter::new())
}

/// As [`evaluate`], with keys kept in `store`, which may outlive it.
///
/// # Errors
/// [`EvaluatorError`].
pub fn evaluate_keeping<T: Transport, B: AsRef<[u8]>, W: WeightSource, K: KeyStore>(
    program: &Program<B>,
    weights: W,
    transport: &mut T,
    store: K,
) -> Result<(), EvaluatorError> {
    answer(program, weights, transport, &Meter::new(), (store, 0))
}

fn metered<T: Transport, B: AsRef<[u8]>, W: WeightSource>(
    program: &Program<B>,
    weights: W,
    transport: &mut T,
    meter: &Meter,
) -> Result<(), EvaluatorError> {
    let mut room = KeyRoom::new(program);
    let bytes = room.bytes();
    answer(program, weights, transport, meter, (room.store(), bytes))
}

/// Answers a client until it closes. Keys are kept in a store, of so many bytes.
fn answer<T: Transport, B: AsRef<[u8]>, W: WeightSource, K: KeyStore>(
    program: &Program<B>,
    weights: W,
    transport: &mut T,
    meter: &Meter,
    (store, store_bytes): (K, usize),
) -> Result<(), EvaluatorError> {
    let mut arena = vec![0; program.arena_words()];
    let mut chunk = EMPTY_CHUNK;
    let mut ring = Box::new(Ring::<TRACE_SPANS>::new());
    let waited = Arc::new(AtomicU64::new(0));
    let mut host = Host::new(size_of_val(&arena[..]) + store_bytes, &waited);
    let session: Session<'_, B, W, _> =
        Session::new(program, weights, &mut arena, &mut chunk, ring.as_mut())?;
    let mut session = session.keeping(store);
    let mut transport = Timed { transport, waited };
    serve(&mut transport, |request, reply| {
        meter.take(request.as_ref());
        let mut reply = |answer: Reply<'_>| {
            meter.give(&answer);
            reply(answer);
        };
        match request {
            Ok(request) => session.handle(request, &mut host, &mut reply),
            Err(error) => session.refuse_frame(error.received(), &mut reply),
        }
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

/// How many clients an evaluator serves at once, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at once; each takes [`client_bytes`].
    pub clients: usize,
    /// Longest time without a whole message. Encrypting and thinking take a client
    /// seconds.
    pub idle: Duration,
    /// Longest session; a client that has more to do connects again.
    pub session: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 8,
            idle: Duration::from_secs(120),
            session: Duration::from_secs(3600),
        }
    }
}

/// Memory that a client takes: the arena, its keys, the room for a trace, and buffers.
#[must_use]
pub fn client_bytes(program: &Program<Vec<u8>>) -> usize {
    const BUFFERS: usize = 4 * MAX_FRAME;
    let keys = KeyRoom::pages(program) * KeyRoom::PAGE;
    size_of::<u32>() * program.arena_words() + keys + size_of::<Ring<TRACE_SPANS>>() + BUFFERS
}

/// A transport that waits no longer than a client may take.
struct Limited<'m, T> {
    transport: T,
    meter: &'m Meter,
    limits: Limits,
    /// When the wish to end was seen.
    draining: Option<Instant>,
    bytes: [u64; 2],
    /// Why the session is over, if it is the evaluator that ended it.
    over: Option<Over>,
}

#[derive(Clone, Copy, Debug)]
enum Over {
    Idle,
    Session,
    Damaged,
    Drained,
}

impl<T: Transport> Limited<'_, T> {
    /// Whether, and why, no more is waited for; otherwise how long.
    fn left(&mut self) -> Result<Duration, Over> {
        if interrupt::wished() {
            let since = *self.draining.get_or_insert_with(Instant::now);
            if !self.meter.is_running.load(Ordering::Relaxed) || since.elapsed() > DRAIN {
                return Err(Over::Drained);
            }
        }
        if self.meter.damaged.load(Ordering::Relaxed) >= MOST_DAMAGED {
            return Err(Over::Damaged);
        }
        let idle = self.limits.idle.saturating_sub(self.meter.silence());
        let session = self.limits.session;
        let session = session.saturating_sub(self.meter.start.elapsed());
        match (idle.is_zero(), session.is_zero()) {
            (_, true) => Err(Over::Session),
            (true, false) => Err(Over::Idle),
            (false, false) => Ok(idle.min(session)),
        }
    }
}

impl<T: Transport> Transport for Limited<'_, T> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.bytes[1] += bytes.len() as u64;
        self.transport.send(bytes)
    }

    fn receive(&mut self, buffer: &mut [u8], _: Option<Duration>) -> Result<usize, DeviceError> {
        loop {
            let left = self.left().map_err(|over| {
                self.over = Some(over);
                DeviceError::Closed {
                    device: self.name(),
                    detail: String::new(),
                }
            })?;
            match self.transport.receive(buffer, Some(left.min(LOOK))) {
                Err(DeviceError::Timeout { .. }) => {}
                Ok(count) => {
                    self.bytes[0] += count as u64;
                    return Ok(count);
                }
                Err(error) => return Err(error),
            }
        }
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
    fn evaluate<T: Transport>(
        self,
        transport: &mut T,
        meter: &Meter,
    ) -> Result<(), EvaluatorError> {
        match self {
            Self::Plain(program, weights) => metered(program, weights, transport, meter),
            Self::Encrypted(program) => metered(program, Encrypted, transport, meter),
        }
    }
}

/// A session that is over.
#[derive(Debug)]
pub struct Visit {
    /// The client.
    pub client: String,
    /// Inferences that were done for it.
    pub inferences: u64,
    /// Bytes from it.
    pub received: u64,
    /// Bytes to it.
    pub sent: u64,
    /// How long it was there.
    pub time: Duration,
    /// Processor time that it took here.
    pub cpu: Duration,
    /// What ended it, other than the client's leave.
    pub ended: Result<(), EvaluatorError>,
}

/// One client's session. Ends when the client does, or a limit is reached.
fn session(socket: TcpStream, peer: SocketAddr, held: Held<'_>, limits: Limits) -> Visit {
    let client = format!("tcp:{peer}");
    // A session has this thread for itself.
    let cpu = ThreadTime::now();
    let meter = Meter::new();
    let mut bytes = [0; 2];
    let evaluated = Stream::new(socket, client.clone()).map_err(EvaluatorError::from);
    let ended = evaluated.and_then(|transport| {
        let mut transport = Limited {
            transport,
            meter: &meter,
            limits,
            draining: None,
            bytes,
            over: None,
        };
        let ended = held.evaluate(&mut transport, &meter);
        bytes = transport.bytes;
        let client = client.clone();
        match transport.over {
            None | Some(Over::Drained) => ended,
            Some(Over::Idle) => Err(EvaluatorError::Idle {
                client,
                limit: limits.idle,
            }),
            Some(Over::Session) => Err(EvaluatorError::Long {
                client,
                limit: limits.session,
            }),
            Some(Over::Damaged) => Err(EvaluatorError::Damaged {
                client,
                frames: MOST_DAMAGED,
            }),
        }
    });
    Visit {
        client,
        inferences: meter.inferences.load(Ordering::Relaxed),
        received: bytes[0],
        sent: bytes[1],
        time: meter.start.elapsed(),
        cpu: cpu.elapsed(),
        ended,
    }
}

/// Tells a client that there is no room for it.
fn refuse(socket: TcpStream, peer: SocketAddr) -> Result<(), DeviceError> {
    let closing = socket.try_clone();
    let mut transport = Stream::new(socket, format!("tcp:{peer}"))?;
    let mut buffer = [0; MAX_FRAME];
    // What it says first is not read for its meaning: a socket that is closed with bytes
    // unread takes back what was sent.
    transport.receive(&mut buffer, Some(REFUSAL))?;
    if let Ok(frame) = link::encode(&Reply::Refused(Refusal::Busy), &mut buffer) {
        let frame = frame.to_vec();
        transport.send(&frame)?;
    }
    if let Ok(closing) = closing {
        let _ = closing.shutdown(Shutdown::Write);
    }
    let end = Instant::now() + REFUSAL;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        transport.receive(&mut buffer, Some(left))?;
    }
    Ok(())
}

/// Listens at `address` and evaluates what is `held` for several clients at once, each in
/// a thread and a session of its own; one beyond [`Limits::clients`] is told so.
/// `listening` is told the address bound (with port 0, the system chooses the port);
/// `ended` of every session that is over. Returns when the process is to end
/// ([`interrupt::watch`]) and the inferences that run are done.
///
/// # Errors
/// [`EvaluatorError`] if the address cannot be listened at.
pub fn listen(
    address: &str,
    held: Held<'_>,
    limits: Limits,
    listening: impl FnOnce(SocketAddr),
    ended: impl Fn(Visit) + Sync,
) -> Result<(), EvaluatorError> {
    let failed = |source| EvaluatorError::Listen {
        address: address.to_owned(),
        source,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listening(listener.local_addr().map_err(failed)?);
    let (tell, arrivals) = mpsc::channel();
    // Ends with the process, or with the first client after the end.
    thread::spawn(move || {
        loop {
            let arrival = listener.accept();
            let is_short = arrival.is_err();
            if tell.send(arrival).is_err() {
                return;
            }
            if is_short {
                thread::sleep(ACCEPT_PAUSE);
            }
        }
    });
    let (inside, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (inside, refused, ended) = (&inside, &refused, &ended);
    thread::scope(|scope| {
        while !interrupt::wished() {
            let (socket, peer) = match arrivals.recv_timeout(LOOK) {
                Ok(Ok(arrival)) => arrival,
                Ok(Err(source)) => {
                    // A client that is gone again, or a passing shortage.
                    ended(Visit::of_nobody(
                        "a client",
                        EvaluatorError::Accept { source },
                    ));
                    continue;
                }
                Err(_) => continue,
            };
            // Only this thread counts up.
            if inside.load(Ordering::Relaxed) < limits.clients {
                inside.fetch_add(1, Ordering::Relaxed);
                scope.spawn(move || {
                    let visit = session(socket, peer, held, limits);
                    inside.fetch_sub(1, Ordering::Relaxed);
                    ended(visit);
                });
                continue;
            }
            let client = format!("tcp:{peer}");
            if refused.load(Ordering::Relaxed) < MOST_REFUSED {
                refused.fetch_add(1, Ordering::Relaxed);
                scope.spawn(move || {
                    // One that does not even ask is closed.
                    let _ = refuse(socket, peer);
                    refused.fetch_sub(1, Ordering::Relaxed);
                });
            }
            let clients = limits.clients;
            let busy = EvaluatorError::Busy {
                client: client.clone(),
                clients,
            };
            ended(Visit::of_nobody(&client, busy));
        }
    });
    Ok(())
}

impl Visit {
    /// Of a client that had no session.
    fn of_nobody(client: &str, error: EvaluatorError) -> Self {
        Self {
            client: client.to_owned(),
            inferences: 0,
            received: 0,
            sent: 0,
            time: Duration::ZERO,
            cpu: Duration::ZERO,
            ended: Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use he_nn::plan::Target;

    use super::*;
    use crate::planning;

    #[test]
    fn a_silent_client_loses_its_session() {
        let limits = Limits {
            idle: Duration::from_millis(50),
            ..Limits::default()
        };
        let model = Model::parse(he_nn::bundled::model("mnist-mlp64").unwrap()).unwrap();
        let plan = planning::plan(None, model, WeightMode::Plain, Target::STREAM).unwrap();
        let program = Program::of(&plan).unwrap();
        let model = Held::Plain(&program, model);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        // One byte now and then is no message.
        let mut slow = client.try_clone().unwrap();
        thread::spawn(move || {
            use std::io::Write;
            while slow.write_all(&[1]).is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let visit = session(socket, peer, model, limits);
        assert_eq!(
            visit.ended.unwrap_err().to_string(),
            format!(
                "tcp:{} sent nothing whole for 50 ms: its session is over, let it connect again",
                client.local_addr().unwrap()
            )
        );
        assert!(visit.received > 0);
        // A client that leaves is no failure.
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        drop(client);
        session(socket, peer, model, Limits::default())
            .ended
            .unwrap();
        // One that talks without end has its time.
        let limits = Limits {
            session: Duration::from_millis(50),
            ..Limits::default()
        };
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let visit = session(socket, peer, model, limits);
        assert!(matches!(visit.ended, Err(EvaluatorError::Long { .. })));
        drop(client);
        // Nor does nonsense go on for ever.
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        thread::spawn(move || {
            use std::io::Write;
            while client.write_all(&[7, 0]).is_ok() {}
        });
        let visit = session(socket, peer, model, Limits::default());
        assert!(matches!(visit.ended, Err(EvaluatorError::Damaged { .. })));
    }
}
