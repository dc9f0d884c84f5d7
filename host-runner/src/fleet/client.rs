//! The client of a fleet: a service whose evaluators take items from a queue.
//!
//! An item is the client's until its answer is decrypted, and, where it is chosen for that,
//! evaluated again. What is done about what:
//!
//! | happens | is known by | and then |
//! |---|---|---|
//! | the broker keeps no item or loses it | it is not in the stream, and no answer came | it is sent again |
//! | an answer to nothing that is asked for | its request | it is counted |
//! | an answer to another input | the digest in its head | it is counted; its item is gone from the stream, and is sent again |
//! | a result that does not decrypt, or that an audit finds wrong | the mask, the audit | the key is renewed, and all that has no answer is encrypted anew and sent |
//! | the second answer to an item | its request | it is counted |
//!
//! A refusal that depends on the secret key tells whoever made the result something, so it
//! costs the key, as over every link. A head that names another input does not: it is
//! refused by what everybody sees. Unlike on a link, a result that an audit finds wrong is
//! tried again, as another worker may take it; after [`REFUSALS`] of them the sample is
//! given up. Answers after the first are not looked at.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures_util::StreamExt;
use futures_util::future::join_all;
use he_nn::message::{Memory, Stage, TimeUnit};
use he_nn::model::Sample;
use he_nn::progress::Progress;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::FleetError;
use super::broker::Broker;
use super::item::{AnswerHead, Evaluation, ItemHead, Kind, MAX_HEAD, MAX_INPUT, Outcome};
use super::subjects::{self, Id, WorkerName};
use crate::client::publication::PublicationError;
use crate::client::{
    Bytes, Client, ClientError, Encrypted, HandedOn, Inference, PATIENCE, printable,
};
use crate::engine::{Engine, latency};
use crate::interrupt;
use crate::receipts::Digest;
use crate::service::{
    Answer, Deployment, Exchanged, Limits, Refused, Service, ServiceError, deployment_of,
    engine_of, in_memory,
};

/// Items that are in the fleet at a time: enough for as many evaluators, and 19 MB of
/// `mnist-mlp64`.
pub const WINDOW: usize = 32;

/// Refused results of a sample, after which it is given up.
pub const REFUSALS: u32 = 8;

/// How often workers may put an item aside: its objects may have been lost.
const ASIDES: u32 = 3;

/// Pause between two looks at the wish to end, and at what is to be sent.
const LOOK: Duration = Duration::from_millis(100);

/// Pause between two questions for what vanished.
const ASK: Duration = Duration::from_millis(500);

/// Silence after which the broker is asked whether it hands out what it has.
const STUCK: Duration = Duration::from_secs(10);

/// How long an answer may take to come after its item has left the stream.
const LATE: Duration = Duration::from_millis(1500);

/// What an item is evaluated by, as bytes for the bucket.
struct Placed {
    evaluation: Evaluation,
    objects: Vec<(Digest, Vec<u8>)>,
    /// They are in the bucket, as far as is known.
    is_there: bool,
    /// Somebody missed one.
    is_missed: bool,
}

/// An item without an answer.
struct Open<'s> {
    /// Of the sample among those of the call.
    place: usize,
    sample: Sample<'s>,
    head: ItemHead,
    request: Encrypted,
    input: Vec<u8>,
    is_sent: bool,
    /// Since when it has been in no stream.
    missing: Option<Instant>,
    began: Instant,
    refusals: u32,
    asides: u32,
}

impl Open<'_> {
    /// To be sent again, as another message.
    const fn again(&mut self) {
        self.head.attempt += 1;
        self.is_sent = false;
        self.missing = None;
    }
}

/// Evaluators behind a queue.
pub struct Fleet<'m> {
    client: Client<'m>,
    deployment: Deployment,
    audit: f64,
    /// With the client's keys, once it is needed.
    engine: Option<Engine>,
    placed: Placed,
    /// Bytes of keys and encrypted weights, until they are reported.
    keys_up: u64,
    patience: Duration,
    deadline: Option<Duration>,
    memory: Memory,
    id: Id,
    answered: HashSet<Id>,
    /// Places in the stream of items without an answer.
    sent: HashMap<Id, u64>,
    /// Large inputs in the bucket whose items are answered.
    over: Vec<Digest>,
    counts: Exchanged,
    answers: Subscriber,
    broker: Broker,
    /// Last, as what is above ends in it.
    runtime: Runtime,
}

impl<'m> Fleet<'m> {
    /// Connects to the broker. A share `audit` of the answers is evaluated again.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn connect(
        url: &str,
        mut client: Client<'m>,
        audit: f64,
        limits: Limits,
    ) -> Result<Self, ServiceError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(FleetError::Runtime)?;
        let id = Id::fresh()?;
        let (broker, answers) = runtime.block_on(open(url, id))?;
        let deployment = deployment_of(client.plan())?;
        let memory = in_memory(latency::memory(client.program()));
        let (placed, keys_up) = placed(&mut client)?;
        Ok(Self {
            client,
            deployment,
            audit,
            engine: None,
            placed,
            keys_up,
            patience: limits.patience.unwrap_or(PATIENCE),
            deadline: limits.deadline,
            memory,
            id,
            answered: HashSet::new(),
            sent: HashMap::new(),
            over: Vec::new(),
            counts: Exchanged::default(),
            answers,
            broker,
            runtime,
        })
    }

    /// An encrypted sample.
    fn encrypted(
        &mut self,
        sample: Sample<'_>,
    ) -> Result<(ItemHead, Encrypted, Vec<u8>), ServiceError> {
        let request = self.client.encrypt(sample)?;
        let input = request.bytes(self.deployment.params)?;
        let got = input.len() as u64;
        if got > MAX_INPUT {
            let (what, most) = ("a sample's request", MAX_INPUT);
            return Err(FleetError::Large { what, got, most }.into());
        }
        let head = ItemHead {
            client: self.id,
            request: Id::fresh()?,
            attempt: 0,
            kind: Kind::Latency,
            evaluation: self.placed.evaluation,
            input: Digest::of(&input),
            input_bytes: got,
            is_inline: input.len() + MAX_HEAD <= self.broker.max_message(),
        };
        Ok((head, request, input))
    }

    /// New keys after a refused result. Nothing under the old ones is answered any more.
    async fn renew(&mut self) -> Result<(), ServiceError> {
        self.client.renew()?;
        self.engine = None;
        let old = self.placed.evaluation;
        (self.placed, self.keys_up) = placed(&mut self.client)?;
        self.withdraw().await;
        forget(&self.broker, old).await;
        Ok(())
    }

    /// Takes out of the stream what is answered no more.
    async fn withdraw(&mut self) {
        let sent: Vec<u64> = self.sent.drain().map(|(_, at)| at).collect();
        if !sent.is_empty() {
            self.broker.withdraw(&sent).await;
        }
    }

    /// Samples, from their encryption to their answers.
    async fn exchange(
        &mut self,
        samples: &[Sample<'_>],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Answer>, ServiceError> {
        if self.client.is_spent() {
            self.renew().await?;
        }
        // Of a call that failed.
        self.withdraw().await;
        let mut answers: Vec<Option<Answer>> = samples.iter().map(|_| None).collect();
        let mut open = Vec::with_capacity(samples.len());
        for (place, &sample) in samples.iter().enumerate() {
            match self.encrypted(sample) {
                Ok((head, request, input)) => open.push(Open {
                    place,
                    sample,
                    head,
                    request,
                    input,
                    is_sent: false,
                    missing: None,
                    began: Instant::now(),
                    refusals: 0,
                    asides: 0,
                }),
                Err(ServiceError::Client(error)) if error.is_of_sample() => {
                    answers[place] = Some(Err(error.into()));
                }
                Err(error) => return Err(error),
            }
        }
        progress.start(samples.len() as u64);
        progress.advance((samples.len() - open.len()) as u64);
        let (mut heard, mut asked) = (Instant::now(), Instant::now());
        let mut connected = self.broker.connected();
        // What came and was not looked at yet has not vanished.
        let mut is_idle = false;
        let mut fault: Option<FleetError> = None;
        while !open.is_empty() {
            if interrupt::wished() {
                return Err(ServiceError::Interrupted);
            }
            if self.client.is_spent() {
                self.renew().await?;
                for item in &mut open {
                    (item.head, item.request, item.input) = self.encrypted(item.sample)?;
                    (item.is_sent, item.missing) = (false, None);
                }
            }
            if let Ok(true) = connected.has_changed() {
                connected.mark_unchanged();
                // The broker may have begun anew without what it had.
                self.placed.is_there = false;
            }
            let sent = self.send(&mut open).await;
            let done = match sent {
                Ok(()) if is_idle && asked.elapsed() >= ASK => {
                    asked = Instant::now();
                    self.ask(&mut open, heard.elapsed()).await
                }
                sent => sent,
            };
            if let Err(error) = done {
                fault = Some(error);
            }
            let next = timeout(LOOK, self.answers.next()).await;
            is_idle = next.is_err();
            match next {
                Ok(Some(message)) => {
                    if self.accept(&message.payload, &mut open, &mut answers)? {
                        (heard, fault) = (Instant::now(), None);
                        progress.advance(1);
                    }
                }
                // Only at the connection's end, which is tried for ever.
                Ok(None) => return Err(ServiceError::Closed),
                Err(_) => {}
            }
            if heard.elapsed() > self.patience {
                return Err(FleetError::Silence {
                    url: self.broker.url().to_owned(),
                    waited: self.patience,
                    unanswered: open.len(),
                    because: fault.map_or_else(String::new, |fault| format!(" ({fault})")),
                }
                .into());
            }
            if let Some(limit) = self.deadline
                && open.iter().any(|item| item.began.elapsed() > limit)
            {
                let url = self.broker.url().to_owned();
                return Err(FleetError::Deadline { url, limit }.into());
            }
        }
        let over = std::mem::take(&mut self.over);
        // What remains is forgotten in time.
        let _ = join_all(over.into_iter().map(|digest| self.broker.remove(digest))).await;
        // One per sample: whoever is not open has one.
        Ok(answers.into_iter().flatten().collect())
    }

    /// Puts what evaluates items into the bucket, and sends the items that are due.
    async fn send(&mut self, open: &mut [Open<'_>]) -> Result<(), FleetError> {
        let broker = &self.broker;
        if !self.placed.is_there {
            broker.work().await?;
            for (digest, bytes) in &self.placed.objects {
                broker.put((*digest, bytes), self.placed.is_missed).await?;
            }
            (self.placed.is_there, self.placed.is_missed) = (true, false);
        }
        let due = open.iter_mut().filter(|item| !item.is_sent);
        let sending = due.map(|item| async move {
            if !item.head.is_inline {
                let is_again = item.head.attempt > 0;
                broker.put((item.head.input, &item.input), is_again).await?;
            }
            let got = MAX_HEAD as u64 + 1;
            let bytes = item.head.bytes(&item.input).ok_or(FleetError::Large {
                what: "an item's head",
                got,
                most: MAX_HEAD as u64,
            })?;
            let subject = subjects::work(item.head.client, item.head.request);
            let sent = broker.send(subject, bytes).await?;
            item.is_sent = true;
            Ok::<_, FleetError>((item.head.request, item.head.attempt, sent.sequence))
        });
        let mut connected = broker.connected();
        let sent = tokio::select! {
            sent = join_all(sending) => sent,
            // What would acknowledge them is gone; they are sent again, and kept once.
            _ = connected.changed() => return Ok(()),
        };
        let mut all = Ok(());
        for sent in sent {
            match sent {
                Ok((request, attempt, at)) => {
                    match attempt {
                        0 => self.counts.sent += 1,
                        _ => self.counts.sent_again += 1,
                    }
                    self.sent.insert(request, at);
                }
                Err(error) => all = Err(error),
            }
        }
        all
    }

    /// Finds what vanished: what is neither in the stream nor answered, for a while. After
    /// a longer `silence` also what is in the stream and nobody is handed out.
    async fn ask(&mut self, open: &mut [Open<'_>], silence: Duration) -> Result<(), FleetError> {
        let waiting = self.broker.waiting(self.id).await?;
        if silence > STUCK && !waiting.is_empty() {
            self.broker.revive().await?;
        }
        for item in open.iter_mut().filter(|item| item.is_sent) {
            let subject = subjects::work(item.head.client, item.head.request);
            if waiting.contains(&subject) {
                item.missing = None;
                continue;
            }
            let since = *item.missing.get_or_insert_with(Instant::now);
            if since.elapsed() >= LATE {
                item.again();
                self.placed.is_there = false;
            }
        }
        Ok(())
    }

    /// Takes an answer; whether a sample is done by it.
    fn accept(
        &mut self,
        bytes: &[u8],
        open: &mut Vec<Open<'_>>,
        answers: &mut [Option<Answer>],
    ) -> Result<bool, ServiceError> {
        let Ok((head, result)) = AnswerHead::parse(bytes) else {
            self.counts.stale += 1;
            return Ok(false);
        };
        let AnswerHead {
            request,
            input,
            worker,
            outcome,
        } = head;
        let found = open.iter().position(|item| item.head.request == request);
        let Some(at) = found else {
            match self.answered.contains(&request) {
                true => self.counts.doubled += 1,
                false => self.counts.stale += 1,
            }
            return Ok(false);
        };
        let item = &mut open[at];
        if item.head.input != input {
            self.counts.stale += 1;
            return Ok(false);
        }
        let (read, steps) = match outcome {
            Outcome::Done { input, steps } => (input, steps),
            Outcome::Aside { reason } => {
                self.counts.put_aside += 1;
                item.asides += 1;
                if item.asides >= ASIDES {
                    let (worker, reason) = (worker.to_string(), printable(&reason));
                    return Err(FleetError::Aside { worker, reason }.into());
                }
                item.again();
                self.placed.is_there = false;
                self.placed.is_missed = true;
                return Ok(false);
            }
        };
        let stages = stages(read, &steps, self.deployment.steps.len());
        let Some(stages) = stages else {
            self.counts.stale += 1;
            return Ok(false);
        };
        let opened = self.opened(&worker, item, result, stages);
        let receipt = self.client.take_receipt();
        let answer = match opened {
            Ok(mut inference) => {
                inference.bytes.down = bytes.len() as u64;
                inference.handed_on.receipt = receipt;
                Ok(inference)
            }
            Err(ServiceError::Client(error)) if error.spends_key() => {
                *self
                    .counts
                    .refused_of
                    .entry(worker.to_string())
                    .or_default() += 1;
                item.refusals += 1;
                if item.refusals < REFUSALS {
                    // Under another key, and perhaps by another worker.
                    return Ok(false);
                }
                Err(Refused {
                    error,
                    receipt: receipt.map(Box::new),
                })
            }
            Err(ServiceError::Client(error)) if error.is_of_sample() => Err(Refused {
                error,
                receipt: receipt.map(Box::new),
            }),
            Err(error) => return Err(error),
        };
        let item = open.swap_remove(at);
        self.answered.insert(request);
        self.sent.remove(&request);
        if !item.head.is_inline {
            self.over.push(item.head.input);
        }
        answers[item.place] = Some(answer);
        Ok(true)
    }

    /// Decrypts a result, and evaluates it again where it is chosen for that.
    fn opened(
        &mut self,
        worker: &WorkerName,
        item: &Open<'_>,
        result: &[u8],
        stages: Vec<Stage>,
    ) -> Result<Inference, ServiceError> {
        let request = &item.request;
        self.client.record(request, result)?;
        let logits = self.client.decrypt(request, result)?;
        // Chosen after the answer has come.
        let mut chosen = [0; 8];
        getrandom::fill(&mut chosen).map_err(ClientError::Random)?;
        let chosen = u64::from_le_bytes(chosen) as f64 / u64::MAX as f64;
        let is_audited = chosen < self.audit;
        if is_audited {
            let engine = match &mut self.engine {
                Some(engine) => engine,
                none => none.insert(engine_of(&mut self.client)?.0),
            };
            let (expected, _) = engine.evaluate(&item.input)?;
            if expected != result {
                let device = worker.to_string();
                return Ok(self.client.noted(Err(ClientError::Audit { device }))?);
            }
        }
        let compared = self.client.compared(request, item.sample, logits)?;
        let published = self.client.publish(request, result, &compared)?;
        // As over a link.
        let is_beyond = match &published {
            None => self.client.is_sealed() && !compared.is_within(),
            Some(published) => matches!(published, Err(PublicationError::Beyond)),
        };
        if !is_audited && is_beyond {
            self.client.spend()?;
        }
        let keys_up = std::mem::take(&mut self.keys_up);
        Ok(Inference {
            allowed_error: compared.own_limit(self.deployment.logit_error),
            beyond_training: compared.allowed.beyond_training,
            logits: compared.logits,
            plain: compared.plain,
            bytes: Bytes {
                up: item.head.input_bytes + keys_up,
                down: 0,
                keys_up,
            },
            board: "fleet".to_owned(),
            unit: TimeUnit::Nanoseconds,
            memory: self.memory,
            stages,
            busy: None,
            trace: None,
            wall: item.began.elapsed(),
            cpu: None,
            audited: is_audited,
            handed_on: HandedOn {
                published,
                receipt: None,
            },
            padded: None,
        })
    }
}

/// Times per step of a plan with so many; nothing where there are others.
fn stages(read: u64, times: &[u64], steps: usize) -> Option<Vec<Stage>> {
    let mut stages: Vec<Stage> = (0..)
        .zip(times)
        .map(|(step, &time)| Stage { step, time })
        .collect();
    if let Some(first) = stages.first_mut() {
        first.time = first.time.saturating_add(read);
    }
    (times.len() == steps).then_some(stages)
}

async fn open(url: &str, id: Id) -> Result<(Broker, Subscriber), FleetError> {
    let broker = Broker::connect(url, &format!("he-edge client {id}")).await?;
    // What does not serve is found before anything is encrypted.
    broker.work().await?;
    let answers = broker.listen(subjects::answer(id)).await?;
    Ok((broker, answers))
}

/// What evaluates a client's items, and bytes of keys and weights.
fn placed(client: &mut Client<'_>) -> Result<(Placed, u64), ClientError> {
    let (keys, weights) = (client.switching_keys()?, client.weights()?);
    let keys_up = (keys.len() + weights.len()) as u64;
    let program = client.program();
    let is_encrypted = program.is_encrypted();
    let mut objects = Vec::new();
    let mut object = |bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        objects.push((digest, bytes));
        digest
    };
    let evaluation = Evaluation {
        params: program.params().fingerprint(),
        fingerprint: program.fingerprint(),
        program: object(program.bytes().to_vec()),
        keys: object(keys),
        model: (!is_encrypted).then(|| object(client.plan().model().file().to_vec())),
        weights: is_encrypted.then(|| object(weights)),
    };
    let placed = Placed {
        evaluation,
        objects,
        is_there: false,
        is_missed: false,
    };
    Ok((placed, keys_up))
}

/// Takes a client's own objects out of the bucket; program and model are others' too.
async fn forget(broker: &Broker, evaluation: Evaluation) {
    let own = [Some(evaluation.keys), evaluation.weights];
    for digest in own.into_iter().flatten() {
        // The bucket forgets it in time.
        let _ = broker.remove(digest).await;
    }
}

impl Drop for Fleet<'_> {
    /// Tidies up, where the broker is there.
    fn drop(&mut self) {
        const LIMIT: Duration = Duration::from_secs(2);
        let handle = self.runtime.handle().clone();
        let tidied = async {
            self.withdraw().await;
            forget(&self.broker, self.placed.evaluation).await;
        };
        let _ = handle.block_on(async { timeout(LIMIT, tidied).await });
    }
}

impl Service for Fleet<'_> {
    fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    fn samples(&self) -> usize {
        WINDOW
    }

    fn infer(
        &mut self,
        samples: &[Sample<'_>],
        progress: &mut dyn Progress,
    ) -> Result<Vec<Answer>, ServiceError> {
        let handle = self.runtime.handle().clone();
        handle.block_on(self.exchange(samples, progress))
    }

    fn publications(&self) -> Option<(u32, u32)> {
        self.client.publications()
    }

    fn has_retired(&self) -> bool {
        self.client.has_retired()
    }

    fn is_linked(&self) -> bool {
        true
    }

    fn exchanged(&self) -> Option<Exchanged> {
        Some(self.counts.clone())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_of_another_plan_are_none() {
        let stages = |times| super::stages(5, times, 2);
        assert!(stages(&[1]).is_none());
        assert!(stages(&[1, 2, 3]).is_none());
        let both = stages(&[u64::MAX, 2]).unwrap();
        assert_eq!((both[0].time, both[1].time), (u64::MAX, 2));
        assert!(super::stages(5, &[], 0).unwrap().is_empty());
    }
}
