//! An evaluator in a fleet: takes as many items as it has evaluators, answers, and only then
//! acknowledges, so that an item whose worker ends is handed out again.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::Message;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{interval, sleep, timeout};

use super::FleetError;
use super::broker::{ACK_WAIT, Broker, MAX_OBJECT};
use super::item::{AnswerHead, Evaluation, ItemHead, MAX_INPUT, Outcome, VERSION, reason};
use super::pool::{Objects, Pool};
use super::subjects::{self, WorkerName};
use crate::receipts::Digest;

/// How often an item is handed out before it is put aside.
pub const TRIES: i64 = 5;

/// How long a request for items waits at the broker.
const WAIT: Duration = Duration::from_millis(500);

/// What an answer to it may take beyond.
const GRACE: Duration = Duration::from_secs(2);

/// Pause before a broker that failed is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Pause before an item that failed is handed out again. It does not divide [`WAIT`]: a
/// server of version 2.9.10 loses what it hands out in the moment in which a request ends,
/// for [`ACK_WAIT`].
const AGAIN: Duration = Duration::from_millis(730);

/// Pause between two looks at the wish to end.
const LOOK: Duration = Duration::from_millis(50);

/// Between two heartbeats.
pub const BEAT: Duration = Duration::from_secs(1);

/// Bytes of objects that are kept.
const KEPT_OBJECTS: usize = 1 << 29;

/// What a worker is asked to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker.
    pub url: String,
    /// What it is called.
    pub name: WorkerName,
    /// Its devices; each takes one item at a time.
    pub devices: Vec<String>,
}

/// What a worker has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Items that were answered.
    pub done: u64,
    /// Tries that failed, and were given back.
    pub failed: u64,
    /// Items that were put aside.
    pub aside: u64,
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Who.
    pub worker: WorkerName,
    /// Version of the items that it takes.
    pub version: u8,
    /// Its devices.
    pub devices: Vec<String>,
    /// Items that it has.
    pub busy: usize,
    /// Items that it answered.
    pub done: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Items that it put aside.
    pub aside: u64,
    /// Answers per second since the last heartbeat.
    pub per_second: f64,
    /// Since it began.
    pub seconds: f64,
    /// It takes no more items.
    pub is_leaving: bool,
    /// What failed last.
    pub last_error: Option<String>,
}

/// Takes items until it is to leave; then finishes and acknowledges those that it has.
///
/// # Errors
/// [`FleetError::Runtime`]. A broker that cannot be reached is waited for, and `say` hears
/// of it once.
pub fn work(
    options: &Options,
    is_to_leave: &dyn Fn() -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<Totals, FleetError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(FleetError::Runtime)?;
    runtime.block_on(LocalSet::new().run_until(serve(options, is_to_leave, say)))
}

async fn serve(
    options: &Options,
    is_to_leave: &dyn Fn() -> bool,
    say: &mut dyn FnMut(&str),
) -> Result<Totals, FleetError> {
    let mut said = String::new();
    // Each fault once, not at every try.
    let mut tell = |text: String| {
        if text != said {
            say(&text);
            said = text;
        }
    };
    let broker = loop {
        if is_to_leave() {
            return Ok(Totals::default());
        }
        match Broker::connect(&options.url, &options.name.to_string()).await {
            Ok(broker) => break broker,
            Err(error) => tell(error.to_string()),
        }
        sleep(PAUSE).await;
    };
    let count = options.devices.len();
    tell(format!(
        "{} takes {count} items at a time from {}",
        options.name, options.url
    ));
    let worker = Rc::new(Worker {
        broker,
        name: options.name.clone(),
        devices: options.devices.clone(),
        pool: Pool::start(count),
        objects: RefCell::default(),
        totals: Cell::default(),
        busy: Cell::new(0),
        is_leaving: Cell::new(false),
        last_error: RefCell::default(),
        began: Instant::now(),
    });
    let mut beating = JoinSet::new();
    beating.spawn_local(beats(Rc::clone(&worker)));
    let slots = Arc::new(Semaphore::new(count));
    let mut tasks = JoinSet::new();
    while !is_to_leave() {
        let taken = async {
            let consumer = worker.broker.workers().await?;
            while !is_to_leave() {
                while tasks.try_join_next().is_some() {}
                worker.take(&consumer, &slots, &mut tasks).await?;
            }
            Ok::<_, FleetError>(())
        };
        if let Err(error) = taken.await {
            tell(error.to_string());
            sleep(PAUSE).await;
        }
    }
    worker.is_leaving.set(true);
    while tasks.join_next().await.is_some() {}
    // The last acknowledgements; where they are lost, what they are of comes again.
    if let Err(error) = worker.broker.flush().await {
        tell(error.to_string());
    }
    Ok(worker.totals.get())
}

struct Worker {
    broker: Broker,
    name: WorkerName,
    devices: Vec<String>,
    pool: Pool,
    objects: RefCell<Kept>,
    totals: Cell<Totals>,
    busy: Cell<usize>,
    is_leaving: Cell<bool>,
    last_error: RefCell<Option<String>>,
    began: Instant,
}

impl Worker {
    /// Asks for as many items as evaluators are free, and begins each that comes.
    async fn take(
        self: &Rc<Self>,
        consumer: &PullConsumer,
        slots: &Arc<Semaphore>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), FleetError> {
        let mut free = Vec::new();
        // Not for ever: there may be a wish to end.
        if let Ok(Ok(permit)) = timeout(LOOK, Arc::clone(slots).acquire_owned()).await {
            free.push(permit);
        }
        while let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
            free.push(permit);
        }
        if free.is_empty() {
            return Ok(());
        }
        let failed = |reason: String| FleetError::Broker {
            url: self.broker.url().to_owned(),
            doing: "hand out items",
            reason,
        };
        let mut connected = self.broker.connected();
        let asked = consumer.batch().max_messages(free.len()).expires(WAIT);
        let mut items = match timeout(GRACE, asked.messages()).await {
            Ok(Ok(items)) => items,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed("no answer in time".to_owned())),
        };
        while let Some(permit) = free.pop() {
            let next = tokio::select! {
                next = timeout(WAIT + GRACE, items.next()) => next,
                // The request ended with the connection.
                _ = connected.changed() => return Ok(()),
            };
            match next {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(item))) => {
                    tasks.spawn_local(Rc::clone(self).handle(item, permit));
                }
                Ok(Some(Err(error))) => return Err(failed(error.to_string())),
                Err(_) => return Err(failed("no answer in time".to_owned())),
            }
        }
        Ok(())
    }

    /// One item, from its bytes to its acknowledgement.
    async fn handle(self: Rc<Self>, item: Message, permit: OwnedSemaphorePermit) {
        self.busy.set(self.busy.get() + 1);
        let tries = item.info().map_or(1, |info| info.delivered);
        let answer = if tries > TRIES {
            // Whoever had it is gone, perhaps by it.
            let last = "no worker that took it finished it";
            Err(last.to_owned())
        } else {
            let mut answer = pin!(self.answer(&item));
            let mut alive = interval(ACK_WAIT / 4);
            loop {
                tokio::select! {
                    answer = &mut answer => break answer,
                    // Where this is lost another evaluates the same.
                    _ = alive.tick() => drop(item.ack_with(AckKind::Progress).await),
                }
            }
        };
        let mut totals = self.totals.get();
        let acknowledged = match answer {
            Ok((subject, bytes)) => match self.broker.tell(subject, bytes).await {
                Ok(()) => {
                    totals.done += 1;
                    item.ack().await
                }
                Err(error) => Err(error.to_string().into()),
            },
            Err(why) => {
                let why = reason(&why);
                *self.last_error.borrow_mut() = Some(why.clone());
                if tries < TRIES {
                    totals.failed += 1;
                    item.ack_with(AckKind::Nak(Some(AGAIN))).await
                } else {
                    let put = self
                        .put_aside(&item, &format!("{why}, in try {tries}"))
                        .await;
                    match put {
                        Ok(()) => {
                            totals.aside += 1;
                            item.ack_with(AckKind::Term).await
                        }
                        // It comes again, and then is put aside.
                        Err(error) => Err(error.to_string().into()),
                    }
                }
            }
        };
        if let Err(error) = acknowledged {
            *self.last_error.borrow_mut() = Some(reason(&error.to_string()));
        }
        self.totals.set(totals);
        self.busy.set(self.busy.get() - 1);
        drop(permit);
    }

    /// The answer to an item, and where it goes.
    async fn answer(&self, item: &Message) -> Result<(String, Vec<u8>), String> {
        let (head, body) = ItemHead::parse(&item.payload).map_err(|error| error.to_string())?;
        let input = match body {
            Some(body) => body.to_vec(),
            None => {
                let input = self.broker.get(head.input, MAX_INPUT).await;
                input.map_err(|error| error.to_string())?
            }
        };
        let objects = self.objects(head.evaluation).await;
        let objects = objects.map_err(|error| error.to_string())?;
        let (result, times) = self.pool.evaluate(head.evaluation, objects, input).await?;
        let nanoseconds = |time: &Duration| time.as_nanos() as u64;
        let answer = AnswerHead {
            request: head.request,
            input: head.input,
            worker: self.name.clone(),
            outcome: Outcome::Done {
                input: nanoseconds(&times.input),
                steps: times.steps.iter().map(nanoseconds).collect(),
            },
        };
        let bytes = answer
            .bytes(&result)
            .ok_or("the answer's head is too long")?;
        match bytes.len() <= self.broker.max_message() {
            true => Ok((subjects::answer(head.client), bytes)),
            false => Err(format!(
                "the answer has {} bytes and a message of this broker {}: raise its max_payload",
                bytes.len(),
                self.broker.max_message()
            )),
        }
    }

    /// The objects that evaluate an item.
    async fn objects(&self, evaluation: Evaluation) -> Result<Objects, FleetError> {
        Ok(Objects {
            program: self.object(evaluation.program).await?,
            keys: self.object(evaluation.keys).await?,
            model: match evaluation.model {
                Some(model) => Some(self.object(model).await?),
                None => None,
            },
            weights: match evaluation.weights {
                Some(weights) => Some(self.object(weights).await?),
                None => None,
            },
        })
    }

    async fn object(&self, digest: Digest) -> Result<Arc<Vec<u8>>, FleetError> {
        if let Some(kept) = self.objects.borrow_mut().get(digest) {
            return Ok(kept);
        }
        let bytes = Arc::new(self.broker.get(digest, MAX_OBJECT).await?);
        self.objects.borrow_mut().keep(digest, &bytes);
        Ok(bytes)
    }

    /// Puts an item aside, and tells its client, if it can be read whose it is.
    async fn put_aside(&self, item: &Message, why: &str) -> Result<(), FleetError> {
        let bytes = item.payload.to_vec();
        let subject = subjects::aside(&self.name);
        self.broker.put_aside(subject, bytes, why).await?;
        let Ok((head, _)) = ItemHead::parse(&item.payload) else {
            return Ok(());
        };
        let answer = AnswerHead {
            request: head.request,
            input: head.input,
            worker: self.name.clone(),
            outcome: Outcome::Aside {
                reason: why.to_owned(),
            },
        };
        match answer.bytes(&[]) {
            Some(bytes) => self.broker.tell(subjects::answer(head.client), bytes).await,
            None => Ok(()),
        }
    }

    fn beat(&self, per_second: f64) -> Beat {
        let totals = self.totals.get();
        Beat {
            worker: self.name.clone(),
            version: VERSION,
            devices: self.devices.clone(),
            busy: self.busy.get(),
            done: totals.done,
            failed: totals.failed,
            aside: totals.aside,
            per_second,
            seconds: self.began.elapsed().as_secs_f64(),
            is_leaving: self.is_leaving.get(),
            last_error: self.last_error.borrow().clone(),
        }
    }
}

/// Heartbeats, as long as the worker is there.
async fn beats(worker: Rc<Worker>) {
    let mut ticks = interval(BEAT);
    let (mut before, mut at) = (0, Instant::now());
    loop {
        ticks.tick().await;
        let done = worker.totals.get().done;
        let since = at.elapsed().as_secs_f64().max(1e-3);
        let beat = worker.beat((done - before) as f64 / since);
        (before, at) = (done, Instant::now());
        if let Ok(bytes) = serde_json::to_vec(&beat) {
            // The next is soon.
            let _ = worker
                .broker
                .tell(subjects::beat(&worker.name), bytes)
                .await;
        }
    }
}

/// Objects that came last.
#[derive(Default)]
struct Kept {
    objects: Vec<(Digest, Arc<Vec<u8>>)>,
}

impl Kept {
    fn get(&mut self, digest: Digest) -> Option<Arc<Vec<u8>>> {
        let at = self.objects.iter().position(|(of, _)| *of == digest)?;
        let object = self.objects.remove(at);
        let bytes = Arc::clone(&object.1);
        self.objects.push(object);
        Some(bytes)
    }

    fn keep(&mut self, digest: Digest, bytes: &Arc<Vec<u8>>) {
        if self.get(digest).is_none() {
            self.objects.push((digest, Arc::clone(bytes)));
        }
        let mut size: usize = self.objects.iter().map(|(_, bytes)| bytes.len()).sum();
        while size > KEPT_OBJECTS && self.objects.len() > 1 {
            size -= self.objects.remove(0).1.len();
        }
    }
}
