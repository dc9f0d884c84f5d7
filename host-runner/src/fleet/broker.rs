//! The connection to the broker, and what both sides ask of it. Each call has a limit, and
//! creates what is missing, as the broker may have lost it.

use std::collections::HashSet;
use std::fmt::Display;
use std::future::{self, Future};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::{self, GetErrorKind, ObjectStore};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, Subscriber};
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::FleetError;
use super::subjects::{self, ALL_ASIDE, ALL_WORK, ASIDE, Id, OBJECTS, WORK, WORKERS};
use crate::receipts::Digest;

/// For a call that carries little.
const LIMIT: Duration = Duration::from_secs(5);

/// For an object.
const OBJECT_LIMIT: Duration = Duration::from_secs(120);

/// Longest pause before the connection is tried again; it is tried for ever.
const RECONNECT: Duration = Duration::from_millis(500);

/// After this time without a word from its worker an item goes to another.
pub const ACK_WAIT: Duration = Duration::from_secs(5);

/// How long a message id is known: repetitions of one message come within seconds.
const DUPLICATES: Duration = Duration::from_secs(120);

/// How long items and objects are kept that nobody asked for: a run that is longer puts its
/// objects there again.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How long items that were put aside are kept, and how many.
const ASIDE_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
const ASIDE_ITEMS: i64 = 1000;

/// Bytes of an object at most.
pub const MAX_OBJECT: u64 = 1 << 30;

/// Messages of a subscription that are kept while nobody reads them; more are dropped, and
/// their items evaluated again.
const UNREAD: usize = 1024;

/// Bytes of a message beside head and body of an item: its headers.
const HEADERS: usize = 1024;

/// Header of an item that was put aside: why.
pub const REASON: &str = "He-Edge-Reason";

/// What the broker says of a message that it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its place in the stream.
    pub sequence: u64,
    /// It was there already.
    pub is_duplicate: bool,
}

/// A connection.
#[derive(Debug, Clone)]
pub struct Broker {
    url: String,
    client: Client,
    context: Context,
    connected: watch::Receiver<u64>,
}

impl Broker {
    /// Connects; later it connects again by itself whenever the connection is lost.
    ///
    /// # Errors
    /// [`FleetError::Unreachable`].
    pub async fn connect(url: &str, name: &str) -> Result<Self, FleetError> {
        let (sender, connected) = watch::channel(0);
        let options = ConnectOptions::new()
            .name(name)
            .connection_timeout(LIMIT)
            .request_timeout(Some(LIMIT))
            .subscription_capacity(UNREAD)
            .max_reconnects(None)
            .reconnect_delay_callback(|tries| {
                RECONNECT.min(Duration::from_millis(25) * tries as u32)
            })
            .event_callback(move |event| {
                if matches!(event, Event::Connected) {
                    sender.send_modify(|count| *count += 1);
                }
                future::ready(())
            });
        let unreachable = |reason: String| FleetError::Unreachable {
            url: url.to_owned(),
            reason,
        };
        let client = match timeout(2 * LIMIT, options.connect(url)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("it is silent".to_owned())),
        };
        let mut context = jetstream::new(client.clone());
        context.set_timeout(LIMIT);
        Ok(Self {
            url: url.to_owned(),
            client,
            context,
            connected,
        })
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes whenever the connection was made again.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<u64> {
        let mut connected = self.connected.clone();
        connected.mark_unchanged();
        connected
    }

    /// Bytes that head and body of a message may have.
    #[must_use]
    pub fn max_message(&self) -> usize {
        self.client.max_payload().saturating_sub(HEADERS)
    }

    fn failed(&self, doing: &'static str, reason: &impl Display) -> FleetError {
        FleetError::Broker {
            url: self.url.clone(),
            doing,
            reason: reason.to_string(),
        }
    }

    /// Waits for a call, but not for ever.
    async fn within<T, E: Display>(
        &self,
        (doing, limit): (&'static str, Duration),
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, FleetError> {
        match timeout(limit, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(doing, &error)),
            Err(_) => Err(self.failed(doing, &"no answer in time")),
        }
    }

    /// The stream of items.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn work(&self) -> Result<stream::Stream, FleetError> {
        let config = stream::Config {
            name: WORK.to_owned(),
            subjects: vec![ALL_WORK.to_owned()],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            max_age: KEPT,
            duplicate_window: DUPLICATES,
            num_replicas: 1,
            ..stream::Config::default()
        };
        let call = self.context.get_or_create_stream(config);
        self.within(("open the stream of items", LIMIT), call).await
    }

    /// The stream of items that were put aside.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn aside(&self) -> Result<stream::Stream, FleetError> {
        let config = stream::Config {
            name: ASIDE.to_owned(),
            subjects: vec![ALL_ASIDE.to_owned()],
            storage: StorageType::File,
            max_age: ASIDE_KEPT,
            max_messages: ASIDE_ITEMS,
            discard: DiscardPolicy::Old,
            duplicate_window: DUPLICATES,
            num_replicas: 1,
            ..stream::Config::default()
        };
        let call = self.context.get_or_create_stream(config);
        let doing = "open the stream of items that were put aside";
        self.within((doing, LIMIT), call).await
    }

    /// What all workers take items from.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn workers(&self) -> Result<PullConsumer, FleetError> {
        let stream = self.work().await?;
        let config = pull::Config {
            durable_name: Some(WORKERS.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // Workers count, as they know the reason.
            max_deliver: -1,
            max_ack_pending: 1 << 16,
            ..pull::Config::default()
        };
        let call = stream.get_or_create_consumer(WORKERS, config);
        self.within(("open the consumer of workers", LIMIT), call)
            .await
    }

    /// The bucket.
    async fn objects(&self) -> Result<ObjectStore, FleetError> {
        if let Ok(Ok(store)) = timeout(LIMIT, self.context.get_object_store(OBJECTS)).await {
            return Ok(store);
        }
        let call = self.context.create_object_store(object_store::Config {
            bucket: OBJECTS.to_owned(),
            max_age: KEPT,
            storage: StorageType::File,
            num_replicas: 1,
            ..object_store::Config::default()
        });
        self.within(("open the bucket of objects", LIMIT), call)
            .await
    }

    /// Puts an object into the bucket, unless one of its name and length is there already
    /// and it is not to be put there `again`. Nothing, as the keys of a network that rotates
    /// nothing are, is no object: it would be one of all clients.
    ///
    /// # Errors
    /// [`FleetError::Broker`], [`FleetError::Large`].
    pub async fn put(
        &self,
        (digest, bytes): (Digest, &[u8]),
        again: bool,
    ) -> Result<(), FleetError> {
        check_length(bytes.len() as u64, MAX_OBJECT)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let (store, name) = (self.objects().await?, digest.to_string());
        let known = timeout(LIMIT, store.info(&name)).await;
        let is_there = known
            .is_ok_and(|known| known.is_ok_and(|info| !info.deleted && info.size == bytes.len()));
        if is_there && !again {
            return Ok(());
        }
        let mut reader = bytes;
        let call = store.put(name.as_str(), &mut reader);
        self.within(("keep an object", OBJECT_LIMIT), call).await?;
        Ok(())
    }

    /// An object of the bucket, of at most so many bytes, whose digest is checked.
    ///
    /// # Errors
    /// [`FleetError::Missing`], [`FleetError::Object`], [`FleetError::Large`],
    /// [`FleetError::Broker`].
    pub async fn get(&self, digest: Digest, most: u64) -> Result<Vec<u8>, FleetError> {
        if digest == Digest::of(&[]) {
            return Ok(Vec::new());
        }
        let (store, name) = (self.objects().await?, digest.to_string());
        let doing = "give an object";
        let mut object = match timeout(LIMIT, store.get(&name)).await {
            Ok(Ok(object)) => object,
            Ok(Err(error)) if error.kind() == GetErrorKind::NotFound => {
                return Err(FleetError::Missing(digest));
            }
            Ok(Err(error)) => return Err(self.failed(doing, &error)),
            Err(_) => return Err(self.failed(doing, &"no answer in time")),
        };
        let length = object.info().size as u64;
        check_length(length, most)?;
        let mut bytes = Vec::with_capacity(length as usize);
        // One more, so that a longer one is another.
        let mut object = (&mut object).take(length + 1);
        self.within((doing, OBJECT_LIMIT), object.read_to_end(&mut bytes))
            .await?;
        match Digest::of(&bytes) == digest {
            true => Ok(bytes),
            false => Err(FleetError::Object(digest)),
        }
    }

    /// Takes an object out of the bucket.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn remove(&self, digest: Digest) -> Result<(), FleetError> {
        if digest == Digest::of(&[]) {
            return Ok(());
        }
        let store = self.objects().await?;
        let call = store.delete(digest.to_string());
        self.within(("remove an object", LIMIT), call).await
    }

    /// Has an item kept until a worker acknowledges it. Its message id is the digest of its
    /// bytes: the same bytes are kept once, however often they are sent.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn send(&self, subject: String, bytes: Vec<u8>) -> Result<Sent, FleetError> {
        let message = PublishMessage::build()
            .message_id(Digest::of(&bytes).to_string())
            .payload(bytes.into());
        self.keep("keep an item", subject, message).await
    }

    async fn keep(
        &self,
        doing: &'static str,
        subject: String,
        message: PublishMessage,
    ) -> Result<Sent, FleetError> {
        let call = async {
            let acknowledged = self.context.send_publish(subject, message).await?;
            acknowledged.await
        };
        let acknowledged = self.within((doing, LIMIT), call).await?;
        Ok(Sent {
            sequence: acknowledged.sequence,
            is_duplicate: acknowledged.duplicate,
        })
    }

    /// Puts an item aside.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn put_aside(
        &self,
        subject: String,
        bytes: Vec<u8>,
        reason: &str,
    ) -> Result<(), FleetError> {
        self.aside().await?;
        let message = PublishMessage::build()
            .message_id(Digest::of(&bytes).to_string())
            .header(REASON, reason)
            .payload(bytes.into());
        self.keep("put an item aside", subject, message).await?;
        Ok(())
    }

    /// Subjects of a client's items that are in the stream. It is created if it is missing,
    /// and then there are none.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn waiting(&self, client: Id) -> Result<HashSet<String>, FleetError> {
        let doing = "say which items wait";
        let stream = self.work().await?;
        let call = stream.info_with_subjects(subjects::work_of(client));
        let mut info = self.within((doing, LIMIT), call).await?;
        let mut subjects = HashSet::new();
        let all = async {
            while let Some(subject) = info.next().await {
                subjects.insert(subject?.0);
            }
            Ok::<_, stream::InfoError>(())
        };
        self.within((doing, LIMIT), all).await?;
        Ok(subjects)
    }

    /// Takes items out of the stream, by their places in it. One that is gone is out, too.
    ///
    /// Not by a purge of their subjects: a server of version 2.9.10 then forgets what others
    /// have to be handed out again, and their items stay in the stream for ever.
    pub async fn withdraw(&self, sequences: &[u64]) {
        let Ok(stream) = self.work().await else {
            return;
        };
        let all = sequences.iter().map(|&at| stream.delete_message(at));
        // What remains is evaluated for nobody, and forgotten in time.
        let _ = timeout(LIMIT, join_all(all)).await;
    }

    /// Where the stream has items of which its consumer knows nothing, as it lost what it
    /// was to hand out again: removes the consumer, which workers create anew from the
    /// beginning of the stream. Whether that was so.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn revive(&self) -> Result<bool, FleetError> {
        let consumer = self.workers().await?;
        let known = consumer.cached_info();
        if known.num_pending > 0 || known.num_ack_pending > 0 {
            return Ok(false);
        }
        let stream = self.work().await?;
        if stream.cached_info().state.messages == 0 {
            return Ok(false);
        }
        let call = stream.delete_consumer(WORKERS);
        self.within(("remove the consumer of workers", LIMIT), call)
            .await?;
        Ok(true)
    }

    /// Sends a message that nobody keeps.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn tell(&self, subject: String, bytes: Vec<u8>) -> Result<(), FleetError> {
        let call = self.client.publish(subject, bytes.into());
        self.within(("take a message", LIMIT), call).await
    }

    /// Waits until what was sent has left.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn flush(&self) -> Result<(), FleetError> {
        self.within(("take messages", LIMIT), self.client.flush())
            .await
    }

    /// Messages of a subject, from now on.
    ///
    /// # Errors
    /// [`FleetError::Broker`].
    pub async fn listen(&self, subject: String) -> Result<Subscriber, FleetError> {
        let call = self.client.subscribe(subject);
        let subscriber = self.within(("send messages", LIMIT), call).await?;
        // An answer must not be there before the subscription is.
        self.flush().await?;
        Ok(subscriber)
    }
}

const fn check_length(got: u64, most: u64) -> Result<(), FleetError> {
    match got <= most {
        true => Ok(()),
        false => Err(FleetError::Large {
            what: "an object",
            got,
            most,
        }),
    }
}
