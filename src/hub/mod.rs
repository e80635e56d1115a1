//! The hub: takes publishes, appends them to the log, wakes the subscribers.
//!
//! A subscriber sees an event only after the log has said that it is durable. It owns no queue, only
//! a cursor: it reads from a ring of recent frames while it keeps up and from the log when it is
//! behind, so a slow one delays nobody. A publish wakes the subscribers of its own topic and no others.
//!
//! ```
//! use waterclock::{
//!     event::{Name, Topic},
//!     hub::{Hub, Step},
//!     id::{Cursor, Epoch},
//!     log::{MemoryLog, Retention},
//!     timestamp::Timestamp,
//! };
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let log = MemoryLog::new(Epoch::random(), Retention::default());
//! let hub = Hub::new(log, Timestamp::now);
//! let mut subscriber = hub.subscribe(Topic::clock().into(), Cursor::Now);
//! hub.publish(Topic::clock(), Name::default(), "tick".to_owned()).await?;
//! let Step::Frames(frames) = subscriber.next().await? else { panic!("nothing is missing") };
//! assert_eq!(frames[0].event().data, "tick");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod channel;
mod frame;
mod ring;
mod subscriber;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub use frame::{Batch, Format, Frame};
pub use subscriber::{Step, Subscriber};

use crate::{
    event::{Event, Name, Topic},
    id::{Cursor, EventId},
    log::{Appended, Bounds, Draft, IdempotencyKey, Log, LogError, ReadLimit, Refused},
    notice::{Gap, GapReason},
    pattern::Patterns,
    timestamp::Timestamp,
};
use channel::{Channel, Channels};
use ring::Ring;

/// How many publishes may wait for the log; further ones wait to wait.
const MAX_WAITING: usize = 1024;

/// How much a subscriber takes at a time.
const BATCH: ReadLimit = ReadLimit { count: 512, bytes: 64 * 1024 };

impl ReadLimit {
    /// Whether all those are within it.
    fn fits(self, frames: &[Arc<Frame>]) -> bool {
        let bytes = || frames.iter().map(|frame| frame.size()).sum::<usize>();
        frames.len() <= 1 || frames.len() <= self.count && bytes() <= self.bytes
    }
}

/// Takes events, keeps them, and hands them to subscribers.
pub struct Hub {
    shared: Arc<Shared>,
    publishes: mpsc::Sender<Publish>,
}

/// What publishing and the subscribers share.
struct Shared {
    log: Box<dyn Log>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    recent: Mutex<Recent>,
    /// The newest sequence number that all whom it concerns were told of.
    shown: AtomicU64,
    /// The log's newest sequence number when the hub was made.
    began_after: u64,
}

/// What is new, and who is to hear of it.
struct Recent {
    ring: Ring,
    channels: Channels,
}

/// An event that somebody waits to see kept.
struct Publish {
    topic: Topic,
    name: Name,
    data: String,
    key: Option<IdempotencyKey>,
    begun: Instant,
    answer: oneshot::Sender<Result<Arc<Frame>, PublishError>>,
}

/// Why an event was not published. Nobody sees it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The log does not take it.
    #[error("the event is refused: {0}")]
    Refused(#[from] Refused),
    /// The log could not keep it.
    #[error(transparent)]
    NotKept(#[from] LogError),
}

/// An event that is being published.
#[derive(Debug)]
pub struct Publishing(oneshot::Receiver<Result<Arc<Frame>, PublishError>>);

impl Publishing {
    /// Waits until it is durable. With a key that has come before, with the same event, it is that one.
    ///
    /// # Errors
    ///
    /// If the log refuses it, or could not keep it.
    pub async fn kept(self) -> Result<Arc<Frame>, PublishError> {
        self.0.await.map_err(|_| not_written())?
    }
}

fn not_written() -> LogError {
    LogError::new("it is no longer written to")
}

/// The latest events, and the cursor to go on from without losing or repeating one.
#[derive(Clone, Debug)]
pub struct Latest {
    /// Oldest first.
    pub events: Vec<Event>,
    /// The position after the last of them.
    pub cursor: EventId,
}

impl Hub {
    /// A hub over that log. `now` is what it takes for the time.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, on which it writes to the log.
    pub fn new(log: impl Log, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let newest = log.bounds().newest;
        let shared = Arc::new(Shared {
            log: Box::new(log),
            now: Box::new(now),
            recent: Mutex::new(Recent { ring: Ring::new(newest), channels: Channels::default() }),
            shown: AtomicU64::new(newest),
            began_after: newest,
        });
        let (publishes, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(Arc::clone(&shared).write(waiting));
        Self { shared, publishes }
    }

    /// The time, as the hub takes it.
    pub fn now(&self) -> Timestamp {
        (self.shared.now)()
    }

    /// Appends an event to the log and, once it is durable, shows it to the subscribers. What was
    /// begun is finished, also if the future is dropped.
    ///
    /// # Errors
    ///
    /// If the log refuses it, or could not keep it. Then nobody sees it.
    pub async fn publish(
        &self,
        topic: Topic,
        name: Name,
        data: String,
    ) -> Result<Arc<Frame>, PublishError> {
        self.enqueue(topic, name, data, None).await?.kept().await
    }

    /// Hands an event over to be published, after those that were handed over before it; with a key, if
    /// it has not been before. Waits only while too many are waiting for the log already.
    ///
    /// # Errors
    ///
    /// If the log is no longer written to.
    pub async fn enqueue(
        &self,
        topic: Topic,
        name: Name,
        data: String,
        key: Option<IdempotencyKey>,
    ) -> Result<Publishing, LogError> {
        let (answer, answered) = oneshot::channel();
        let publish = Publish { topic, name, data, key, begun: Instant::now(), answer };
        self.publishes.send(publish).await.map_err(|_| not_written())?;
        Ok(Publishing(answered))
    }

    /// A reader of those topics that goes on at `cursor`.
    pub fn subscribe(&self, topics: Patterns, cursor: Cursor) -> Subscriber {
        let Bounds { epoch, start, newest } = self.shared.log.bounds();
        let dropped = self.shared.log.dropped(&topics);
        let (channel, now) = {
            let Recent { ring, channels } = &mut *self.shared.recent();
            (channels.join(&topics, ring.newest()), ring.newest())
        };
        let (position, reason) = match &cursor {
            Cursor::Now => (now, None),
            Cursor::Earliest => (start, None),
            Cursor::After(id) if id.epoch != epoch => (start, Some(GapReason::OtherEpoch)),
            Cursor::After(id) if id.sequence > newest.max(now) => (now, Some(GapReason::Future)),
            Cursor::After(id) if id.sequence < dropped => {
                (id.sequence.max(start), Some(GapReason::Expired))
            }
            Cursor::After(id) => (id.sequence, None),
            Cursor::Malformed(_) => (now, Some(GapReason::Malformed)),
        };
        let asked = match cursor {
            Cursor::After(id) => id.to_string(),
            Cursor::Malformed(text) => text,
            Cursor::Now | Cursor::Earliest => String::new(),
        };
        let gap = reason.map(|reason| Gap { reason, cursor: asked });
        let cursor = EventId { epoch, sequence: position };
        Subscriber::new(Arc::clone(&self.shared), topics, channel, cursor, gap, dropped)
    }

    /// The oldest and the newest event kept, if there are any.
    pub fn kept(&self) -> Option<(EventId, EventId)> {
        let Bounds { epoch, start, newest } = self.shared.log.bounds();
        let id = |sequence| EventId { epoch, sequence };
        (start < newest).then(|| (id(start + 1), id(newest)))
    }

    /// The newest sequence number that subscribers may see; it counts the whole log.
    pub fn newest(&self) -> u64 {
        self.shared.recent().ring.newest()
    }

    /// How many events were published since the hub was made.
    pub fn published(&self) -> u64 {
        self.newest() - self.shared.began_after
    }

    /// The latest events of those topics, at most `limit`.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn latest(&self, topics: &Patterns, limit: usize) -> Result<Latest, LogError> {
        let newest = self.newest();
        let events = self.shared.log.latest(topics, limit).await?;
        // Some may have come meanwhile.
        let sequence = events.last().map_or(newest, |last| last.id.sequence.max(newest));
        let epoch = self.shared.log.bounds().epoch;
        Ok(Latest { events, cursor: EventId { epoch, sequence } })
    }
}

impl Shared {
    /// Appends what is published, all that waits at a time, until nobody can publish any more.
    async fn write(self: Arc<Self>, mut waiting: mpsc::Receiver<Publish>) {
        let mut publishes = Vec::new();
        while waiting.recv_many(&mut publishes, MAX_WAITING).await > 0 {
            let time = (self.now)();
            let mut drafts = Vec::with_capacity(publishes.len());
            let mut answers = Vec::with_capacity(publishes.len());
            for Publish { topic, name, data, key, begun, answer } in publishes.drain(..) {
                drafts.push(Draft { topic, name, data, time, key });
                answers.push((begun, answer));
            }
            match self.log.append(drafts).await {
                Ok(appended) => {
                    let (mut new, mut told) = (Vec::new(), Vec::new());
                    for (appended, (begun, answer)) in appended.into_iter().zip(answers) {
                        let frame = appended.map(|appended| match appended {
                            Appended::New(event) => {
                                let frame = Arc::new(Frame::just_published(event, begun));
                                new.push(Arc::clone(&frame));
                                frame
                            }
                            Appended::Known(event) => Arc::new(Frame::new(event)),
                        });
                        told.push((answer, frame));
                    }
                    self.show(new);
                    for (answer, frame) in told {
                        // Who has asked may be gone.
                        let _ = answer.send(frame.map_err(PublishError::from));
                    }
                }
                Err(error) => {
                    for (_, answer) in answers {
                        let _ = answer.send(Err(error.clone().into()));
                    }
                }
            }
        }
    }

    /// Shows events to the subscribers of their topics.
    fn show(&self, frames: Vec<Arc<Frame>>) {
        let Some(newest) = frames.last().map(|last| last.event().id.sequence) else { return };
        let mut of_channels: HashMap<*const Channel, (Arc<Channel>, Vec<Arc<Frame>>)> =
            HashMap::new();
        {
            let Recent { ring, channels } = &mut *self.recent();
            for frame in frames {
                for channel in channels.of(&frame.event().topic) {
                    let of_channel = of_channels.entry(Arc::as_ptr(channel));
                    let (_, frames) =
                        of_channel.or_insert_with(|| (Arc::clone(channel), Vec::new()));
                    // It may be for the same channel by two patterns.
                    if frames.last().is_none_or(|last| !Arc::ptr_eq(last, &frame)) {
                        frames.push(Arc::clone(&frame));
                    }
                }
                ring.push(frame);
            }
            for (channel, frames) in of_channels.values() {
                channel.push(frames);
            }
        }
        for (channel, frames) in of_channels.into_values() {
            channel.show(frames);
        }
        self.shown.store(newest, Ordering::Release);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // No code panics half-way through a change of what the lock holds.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
