//! The hub: appends published events to the event log, and wakes the subscribers.
//!
//! A subscriber sees an event only after the log has made it durable. It owns no queue, only a
//! cursor: it reads from a ring of recent events while it keeps up, and from the log when it is
//! behind, so a slow subscriber delays nobody. A publish wakes only the subscribers of its own
//! topic.
//!
//! ```
//! use waterclock::{Cursor, Delivery, Draft, Hub, Pattern};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let hub = Hub::in_memory();
//! let mut subscriber = hub.subscribe("orders.>".parse::<Pattern>()?.into(), Cursor::Now);
//! hub.publish(Draft::new("orders.eu".parse()?, "order 7")).await?;
//!
//! match subscriber.next().await? {
//!     Delivery::Events(batch) => assert_eq!(batch[0].event().data, "order 7"),
//!     Delivery::Gap(gap) => panic!("events are missing: {gap:?}"),
//! }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod channel;
mod frame;
mod ring;
mod subscriber;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub use frame::{Batch, Format, Frame};
pub use subscriber::{Delivery, Subscriber};

use crate::{
    event::{Draft, Event},
    event_log::{
        Appended, Bounds, EventLog, EventLogError, MemoryLog, ReadLimit, Rejected, Retention,
    },
    id::{Cursor, Epoch, EventId},
    notice::{Gap, GapReason},
    pattern::Patterns,
    timestamp::Timestamp,
};
use channel::{Channel, Channels};
use ring::Ring;

/// Capacity of the publish queue. When it is full, [`Hub::enqueue`] waits for a slot.
const QUEUE_CAPACITY: usize = 1024;

/// Maximum size of a batch that a subscriber receives.
const BATCH_LIMIT: ReadLimit = ReadLimit { count: 512, bytes: 64 * 1024 };

impl ReadLimit {
    /// Returns `true` if the frames are within the limit.
    fn fits(self, frames: &[Arc<Frame>]) -> bool {
        let bytes = || frames.iter().map(|frame| frame.size()).sum::<usize>();
        frames.len() <= 1 || frames.len() <= self.count && bytes() <= self.bytes
    }
}

/// Accepts events, appends them to an event log, and delivers them to subscribers.
pub struct Hub {
    core: Arc<HubCore>,
    queue: mpsc::Sender<QueuedDraft>,
}

/// The state that the writer and the subscribers share.
struct HubCore {
    log: Box<dyn EventLog>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    fanout: Mutex<Fanout>,
    /// The newest sequence number of which all channels have been notified.
    shown: AtomicU64,
    /// The log's newest sequence number when the hub was created.
    initial: u64,
}

/// Recent events, and the channels that new events go to.
struct Fanout {
    ring: Ring,
    channels: Channels,
}

/// A draft in the publish queue, with the channel for its result.
struct QueuedDraft {
    draft: Draft,
    queued: Instant,
    result: oneshot::Sender<Result<Arc<Frame>, PublishError>>,
}

/// A failed publish. No subscriber sees the event.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The log has rejected the event.
    #[error("the event was rejected: {0}")]
    Rejected(#[from] Rejected),
    /// The log could not make the event durable.
    #[error(transparent)]
    EventLog(#[from] EventLogError),
}

/// A publish in flight, returned by [`Hub::enqueue`].
///
/// Resolves to the event as soon as it is durable, or to the earlier event if the draft was a
/// duplicate. The event is published even if this future is dropped.
#[derive(Debug)]
pub struct Publishing(oneshot::Receiver<Result<Arc<Frame>, PublishError>>);

impl Future for Publishing {
    type Output = Result<Arc<Frame>, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = Pin::new(&mut self.0).poll(context);
        result.map(|result| result.unwrap_or_else(|_| Err(writer_stopped().into())))
    }
}

fn writer_stopped() -> EventLogError {
    EventLogError::new("the hub's writer has stopped")
}

/// The newest events, and the cursor from which a reader can continue without a gap or a repeat.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The position after the last of them.
    pub cursor: EventId,
}

impl Hub {
    /// Creates a hub over `log`. `now` is the clock that gives events their time.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, because the hub spawns a task that writes to the log.
    pub fn new(log: impl EventLog, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let newest = log.bounds().newest;
        let core = Arc::new(HubCore {
            log: Box::new(log),
            now: Box::new(now),
            fanout: Mutex::new(Fanout { ring: Ring::new(newest), channels: Channels::default() }),
            shown: AtomicU64::new(newest),
            initial: newest,
        });
        let (queue, receiver) = mpsc::channel(QUEUE_CAPACITY);
        tokio::spawn(Arc::clone(&core).write(receiver));
        Self { core, queue }
    }

    /// Creates a hub over a [`MemoryLog`] with the default retention, a random epoch and the
    /// system's clock.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn in_memory() -> Self {
        Self::new(MemoryLog::new(Epoch::random(), Retention::default()), Timestamp::now)
    }

    /// Returns the current time by the hub's clock.
    pub fn now(&self) -> Timestamp {
        (self.core.now)()
    }

    /// Publishes an event, and returns it as soon as it is durable.
    ///
    /// Subscribers receive the event after that. It is published even if the future is dropped
    /// after its first poll.
    ///
    /// # Errors
    ///
    /// If the log rejects the event, or could not make it durable.
    pub async fn publish(&self, draft: Draft) -> Result<Arc<Frame>, PublishError> {
        self.enqueue(draft).await?.await
    }

    /// Adds a draft to the publish queue, and returns without waiting for the log.
    ///
    /// Drafts are published in the order in which they are enqueued. Waits for a slot if the queue
    /// is full.
    ///
    /// # Errors
    ///
    /// If the hub no longer writes to the log.
    pub async fn enqueue(&self, draft: Draft) -> Result<Publishing, EventLogError> {
        let (result, receiver) = oneshot::channel();
        let queued = QueuedDraft { draft, queued: Instant::now(), result };
        self.queue.send(queued).await.map_err(|_| writer_stopped())?;
        Ok(Publishing(receiver))
    }

    /// Creates a subscriber to the topics that continues at `cursor`.
    pub fn subscribe(&self, topics: Patterns, cursor: Cursor) -> Subscriber {
        let Bounds { epoch, start, newest } = self.core.log.bounds();
        let dropped = self.core.log.dropped(&topics);
        let (channel, now) = {
            let Fanout { ring, channels } = &mut *self.core.fanout.lock();
            (channels.join(&topics, ring.newest()), ring.newest())
        };
        let (sequence, reason) = match &cursor {
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
        let requested = match cursor {
            Cursor::After(id) => id.to_string(),
            Cursor::Malformed(text) => text,
            Cursor::Now | Cursor::Earliest => String::new(),
        };
        Subscriber {
            core: Arc::clone(&self.core),
            topics,
            channel,
            waiter: None,
            cursor: EventId { epoch, sequence },
            read: sequence,
            dropped,
            conflation: None,
            gap: reason.map(|reason| Gap { reason, cursor: requested }),
            pending_read: None,
        }
    }

    /// Returns the ids of the oldest and the newest kept event, or `None` if no event is kept.
    pub fn kept(&self) -> Option<(EventId, EventId)> {
        let Bounds { epoch, start, newest } = self.core.log.bounds();
        let id = |sequence| EventId { epoch, sequence };
        (start < newest).then(|| (id(start + 1), id(newest)))
    }

    /// Returns the newest sequence number that subscribers may see, of any topic.
    pub fn newest(&self) -> u64 {
        self.core.fanout.lock().ring.newest()
    }

    /// Returns the number of events that were published since the hub was created.
    pub fn published(&self) -> u64 {
        self.newest() - self.core.initial
    }

    /// Reads the newest events of the topics, at most `limit`.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn latest(&self, topics: &Patterns, limit: usize) -> Result<Latest, EventLogError> {
        let newest = self.newest();
        let events = self.core.log.latest(topics, limit).await?;
        // The read may have found events that were published after `newest`.
        let sequence = events.last().map_or(newest, |last| last.id.sequence.max(newest));
        let epoch = self.core.log.bounds().epoch;
        Ok(Latest { events, cursor: EventId { epoch, sequence } })
    }
}

impl HubCore {
    /// Appends the queued drafts, all that are waiting at a time, until the hub is dropped.
    async fn write(self: Arc<Self>, mut queue: mpsc::Receiver<QueuedDraft>) {
        let mut queued = Vec::new();
        while queue.recv_many(&mut queued, QUEUE_CAPACITY).await > 0 {
            let time = (self.now)();
            let mut drafts = Vec::with_capacity(queued.len());
            let mut waiting = Vec::with_capacity(queued.len());
            for QueuedDraft { draft, queued, result } in queued.drain(..) {
                drafts.push(draft);
                waiting.push((queued, result));
            }
            match self.log.append(drafts, time).await {
                Ok(appended) => self.deliver(appended, waiting),
                Err(error) => {
                    for (_, result) in waiting {
                        // A publisher may have stopped waiting.
                        let _ = result.send(Err(error.clone().into()));
                    }
                }
            }
        }
    }

    /// Shows appended events to the subscribers, then to their publishers.
    fn deliver(
        &self,
        appended: Vec<Result<Appended, Rejected>>,
        waiting: Vec<(Instant, oneshot::Sender<Result<Arc<Frame>, PublishError>>)>,
    ) {
        let mut new = Vec::with_capacity(appended.len());
        let mut results = Vec::with_capacity(appended.len());
        for (appended, (queued, result)) in appended.into_iter().zip(waiting) {
            let frame = appended.map(|Appended { event, is_duplicate }| {
                if is_duplicate {
                    return Arc::new(Frame::new(event));
                }
                let frame = Arc::new(Frame::just_published(event, queued));
                new.push(Arc::clone(&frame));
                frame
            });
            results.push((result, frame));
        }
        self.show(new);
        for (result, frame) in results {
            // A publisher may have stopped waiting.
            let _ = result.send(frame.map_err(PublishError::from));
        }
    }

    /// Shows events to the subscribers of their topics.
    fn show(&self, frames: Vec<Arc<Frame>>) {
        let Some(newest) = frames.last().map(|last| last.event().id.sequence) else { return };
        let mut by_channel: HashMap<*const Channel, (Arc<Channel>, Vec<Arc<Frame>>)> =
            HashMap::new();
        {
            let Fanout { ring, channels } = &mut *self.fanout.lock();
            for frame in frames {
                for channel in channels.of(&frame.event().topic) {
                    let entry = by_channel.entry(Arc::as_ptr(channel));
                    let (_, frames) = entry.or_insert_with(|| (Arc::clone(channel), Vec::new()));
                    // Two patterns of a channel may match the same event.
                    if frames.last().is_none_or(|last| !Arc::ptr_eq(last, &frame)) {
                        frames.push(Arc::clone(&frame));
                    }
                }
                ring.push(frame);
            }
            for (channel, frames) in by_channel.values() {
                channel.push(frames);
            }
        }
        for (channel, frames) in by_channel.into_values() {
            channel.show(frames);
        }
        self.shown.store(newest, Ordering::Release);
    }
}
