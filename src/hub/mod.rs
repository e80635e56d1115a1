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
//!     other => panic!("no event: {other:?}"),
//! }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod attendance;
mod channel;
#[cfg(test)]
mod ends;
mod feed;
mod frame;
mod membership;
mod own_readers;
mod pattern_index;
mod publish;
mod reader_watch;
mod ring;
#[cfg(test)]
pub(crate) mod simulation;
mod state;
mod subscriber;
mod topic_filter;

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::Instant,
};

pub use feed::{Feed, FeedDelivery, RestingSubscriber};
pub use frame::{Batch, Format, Frame};
pub use publish::{DraftChain, PublishError, Publishing};
pub use reader_watch::ReaderWatch;
pub use subscriber::{Delivery, Subscriber};
pub use topic_filter::{TopicFilter, TopicSet};

use crate::{
    event::{Draft, Event, IdempotencyKey, Topic},
    event_log::{
        Bounds, Condition, Dropped, EventLog, EventLogError, LogSize, MemoryLog, OtherNodes,
        OwnReaders, ReadLimit, Readers, Retention, TopicFigures, TopicWatch,
    },
    id::{Cursor, Epoch, EventId},
    notice::{Gap, GapReason},
    pattern::Patterns,
    timestamp::Timestamp,
};
use attendance::WatchedTopics;
use channel::Channels;
use membership::Membership;
use publish::{FailureCounters, QUEUE_CAPACITY, QueuedDraft, WaitingPublisher};
use ring::Ring;
use state::{Fanout, HubState};

/// Number of topics that are looked at before the lock on them is released.
const TOPICS_PER_LOOK: usize = 1000;
/// Maximum number of reads of the event log for the events before a position. Each finds some.
const MAX_READS: usize = 16;

/// Accepts events, appends them to an event log, and delivers them to subscribers.
pub struct Hub {
    state: Arc<HubState>,
    queue: mpsc::Sender<QueuedDraft>,
}

/// The newest events, and the cursor from which a reader can continue without a gap or a repeat.
#[derive(Clone, Debug)]
pub struct Latest {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Events that are missing, or may be, between these and the cursor.
    pub gap: Option<Gap>,
    /// The position before which the next earlier events are; `None` if none are kept.
    pub before: Option<EventId>,
    /// The ends of the topics without a wildcard, up to the cursor, in order, as the event log
    /// returns them.
    pub ends: Vec<Event>,
    /// The position after the last of them.
    pub cursor: EventId,
}

/// Events before a position.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// Events that are missing, or may be, between these and the position.
    pub gap: Option<Gap>,
    /// The position before which the next earlier events are; `None` if none are kept.
    pub before: Option<EventId>,
}

impl Hub {
    /// Creates a hub over `log`. `now` is the clock that gives events their time.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, because the hub spawns a task that writes to the log.
    pub fn new(log: impl EventLog, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let others = log.other_nodes();
        Self::with_others(log, now, others)
    }

    /// Creates a hub that asks the other nodes for their readers.
    fn with_others(
        log: impl EventLog,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        others: Option<Arc<dyn OtherNodes>>,
    ) -> Self {
        let newest = log.bounds().newest;
        let changed = Arc::default();
        log.note_changes(&changed);
        let state = Arc::new(HubState {
            changed,
            own_readers_changed: Arc::default(),
            others,
            watching: Notify::new(),
            others_asked: watch::Sender::default(),
            shared_changes: log.shared_changes(),
            log: Box::new(log),
            now: Box::new(now),
            appending: tokio::sync::Mutex::default(),
            append_since: Mutex::default(),
            fanout: Mutex::new(Fanout {
                ring: Ring::new(newest),
                channels: Channels::default(),
                watched: WatchedTopics::default(),
                ends: 0,
            }),
            shown: AtomicU64::new(newest),
            failures: FailureCounters::default(),
            taken: AtomicUsize::new(0),
            initial: newest,
        });
        if let Some(others) = &state.others {
            let own: Weak<dyn OwnReaders> = Arc::<HubState>::downgrade(&state);
            others.answer_for(own);
        }
        let (queue, receiver) = mpsc::channel(QUEUE_CAPACITY);
        let writing = Arc::clone(&state);
        tokio::spawn(async move {
            if writing.shared_changes.is_none() && writing.others.is_none() {
                return writing.write(receiver).await;
            }
            tokio::select! {
                () = writing.write(receiver) => {}
                () = writing.follow() => {}
                () = writing.ask_others() => {}
            }
        });
        Self { state, queue }
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
        (self.state.now)()
    }

    /// Returns the name of this node, if the event log has several.
    pub fn node(&self) -> Option<&str> {
        self.state.log.node()
    }

    /// Publishes an event, and returns it as soon as it is durable.
    ///
    /// Subscribers receive the event after that. Once the draft is in the queue, the event is
    /// published even if the future is dropped.
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
        self.queue(draft, None).await
    }

    /// Adds a draft to the publish queue like [`enqueue`](Self::enqueue). It fails with
    /// [`PublishError::Skipped`] if an earlier draft of the chain has failed.
    ///
    /// # Errors
    ///
    /// If the hub no longer writes to the log.
    pub async fn enqueue_in(
        &self,
        draft: Draft,
        chain: &DraftChain,
    ) -> Result<Publishing, EventLogError> {
        self.queue(draft, Some(chain.clone())).await
    }

    /// Adds drafts to the publish queue like [`enqueue`](Self::enqueue), or like
    /// [`enqueue_in`](Self::enqueue_in) if they belong to a chain. Waits until all of them have a
    /// slot. Together they take less time than one by one.
    ///
    /// # Errors
    ///
    /// If the hub no longer writes to the log, or there are more drafts than the queue has slots.
    pub async fn enqueue_all(
        &self,
        drafts: Vec<Draft>,
        chain: Option<&DraftChain>,
    ) -> Result<Vec<Publishing>, EventLogError> {
        let slots = self.queue.reserve_many(drafts.len()).await;
        let slots = slots.map_err(|_| EventLogError::Stopped)?;
        let since = Instant::now();
        let queue = |(slot, mut draft): (mpsc::Permit<'_, QueuedDraft>, Draft)| {
            let (result, receiver) = oneshot::channel();
            let trace = mem::take(&mut draft.trace);
            let publisher = WaitingPublisher { since, trace, result };
            slot.send(QueuedDraft { draft, chain: chain.cloned(), publisher });
            Publishing(receiver)
        };
        Ok(slots.zip(drafts).map(queue).collect())
    }

    async fn queue(
        &self,
        mut draft: Draft,
        chain: Option<DraftChain>,
    ) -> Result<Publishing, EventLogError> {
        let (result, receiver) = oneshot::channel();
        let trace = mem::take(&mut draft.trace);
        let publisher = WaitingPublisher { since: Instant::now(), trace, result };
        let queued = QueuedDraft { draft, chain, publisher };
        self.queue.send(queued).await.map_err(|_| EventLogError::Stopped)?;
        Ok(Publishing(receiver))
    }

    /// Deletes the kept events of a topic, and returns their number as soon as that is durable.
    ///
    /// A subscriber that has not read them yet receives a gap. Events that are published later
    /// stay. The events are deleted even if the future is dropped.
    ///
    /// # Errors
    ///
    /// If the log could not delete the events. Some of them may be gone then.
    pub async fn delete(&self, topic: Topic) -> Result<u64, EventLogError> {
        let state = Arc::clone(&self.state);
        let deleted = tokio::spawn(async move { state.delete(&topic).await }).await;
        deleted.map_err(EventLogError::unconfirmed)?
    }

    /// Changes the events that the log keeps. Those that exceed the new bounds are dropped soon,
    /// and a subscriber that has not read them yet receives a gap. Bounds that were raised count
    /// for later drops. In a cluster, this changes all nodes.
    ///
    /// # Errors
    ///
    /// If the log could not change its retention.
    pub async fn set_retention(&self, retention: Retention) -> Result<(), EventLogError> {
        self.state.log.set_retention(retention).await
    }

    /// Returns topics that pass the filter and have events or have ended, after the topic `after`,
    /// at most `limit`. They are ordered by their first tokens, then by their second ones, and so
    /// on.
    pub fn topics(&self, filter: &TopicFilter, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        let Some(patterns) = filter.narrowed() else { return Vec::new() };
        let mut page = self.state.log.topics(patterns, after, limit);
        if filter.is_narrow() {
            return page;
        }
        let mut passed = Vec::new();
        while let Some(last) = page.last().cloned() {
            filter.apply(&mut page);
            passed.append(&mut page);
            if passed.len() >= limit {
                break;
            }
            page = self.state.log.topics(patterns, Some(&last), limit.max(TOPICS_PER_LOOK));
        }
        passed.truncate(limit);
        passed
    }

    /// Returns the figures of each of the topics, in their order. Topics that are not known have no
    /// events.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn figures(&self, topics: &[Topic]) -> Result<Vec<TopicFigures>, EventLogError> {
        self.state.log.figures(topics).await
    }

    /// Begins to watch the topics whose events change, or the number of subscribers that name them.
    pub fn watch_topics(&self) -> TopicWatch {
        self.state.changed.watch()
    }

    /// Begins to watch one topic for the same changes. Those of other topics cost the watch
    /// nothing.
    pub fn watch_topic(&self, topic: Topic) -> TopicWatch {
        self.state.changed.watch_one(topic)
    }

    /// Begins to watch the subscribers that name a topic.
    pub fn watch_readers(&self, topic: Topic) -> ReaderWatch {
        ReaderWatch::new(&self.state, topic)
    }

    /// Counts the subscribers of all nodes to each of the topics, in their order.
    ///
    /// With other nodes, this takes some 300 ms if one of them has just failed, or twice as much
    /// while many wait for numbers. Nodes that do not answer in time count as if they had none.
    pub async fn readers(&self, topics: &[Topic]) -> Vec<Readers> {
        let elsewhere = match &self.state.others {
            Some(others) => others.readers(topics).await,
            None => Vec::new(),
        };
        let mut readers = self.state.count(topics);
        for (readers, elsewhere) in readers.iter_mut().zip(elsewhere) {
            *readers += elsewhere;
        }
        readers
    }

    /// Finds the event of a topic that was published with a key. Returns `None` if it is no longer
    /// kept.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn find(
        &self,
        topic: &Topic,
        key: &IdempotencyKey,
    ) -> Result<Option<Event>, EventLogError> {
        self.state.log.find(topic, key).await
    }

    /// Waits until the hub has the position of a cursor that another node may have given. Returns
    /// at once unless the log has other nodes, and if none of them has the position.
    pub async fn reach(&self, cursor: &Cursor) {
        if let Cursor::After(id) = cursor
            && id.epoch == self.state.log.bounds().epoch
        {
            self.state.log.reach(id.sequence).await;
        }
    }

    /// Creates a subscriber to the topics that continues at `cursor`.
    pub fn subscribe(&self, topics: Patterns, cursor: Cursor) -> Subscriber {
        let Bounds { epoch, start, newest } = self.state.log.bounds();
        let (dropped, drops) = match &cursor {
            Cursor::After(id) if id.epoch == epoch => self.dropped_after(&topics, id.sequence),
            _ => (0, self.state.log.dropped_after(&topics, u64::MAX, 0).drops),
        };
        let (membership, channel, now) = Membership::join(&self.state, &topics);
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
        // The ends that the reader does not have although its cursor is after them.
        let missed = match (&cursor, reason) {
            (Cursor::After(_), None) => None,
            (Cursor::After(id), Some(GapReason::Expired)) => Some((topics.clone(), id.sequence)),
            (Cursor::Earliest, _) | (_, Some(GapReason::OtherEpoch)) => Some((topics.clone(), 0)),
            // Of all topics that match a pattern, the ends would be too many.
            _ => topics.exact().map(|topics| (topics, 0)),
        };
        let ends = missed.map(|(topics, after)| self.state.log.ends(&topics, after, sequence));
        let ends = ends.unwrap_or_default();
        let sequence = match ends.last() {
            // Nothing follows, unless one of them is reopened.
            Some(last) if topics.are_exact() && ends.len() == topics.iter().count() => {
                last.id.sequence
            }
            _ => sequence,
        };
        let requested = match cursor {
            Cursor::After(id) => id.to_string(),
            Cursor::Malformed(text) => text,
            Cursor::Now | Cursor::Earliest => String::new(),
        };
        Subscriber {
            state: Arc::clone(&self.state),
            topics,
            channel,
            membership: Some(membership),
            waiter: None,
            cursor: EventId { epoch, sequence },
            read: sequence,
            drops,
            conflation: None,
            gap: reason.map(|reason| Gap { reason, cursor: requested }),
            ends: ends.into(),
            held: VecDeque::new(),
            log_read: None,
        }
    }

    /// Returns the newest event after a position that a reader has missed for good, and the number
    /// of drops of which it knows then.
    fn dropped_after(&self, topics: &Patterns, after: u64) -> (u64, u64) {
        let Dropped { newest, drops } = self.state.log.dropped_after(topics, after, 0);
        // The ring may still have what the log has dropped. If that is gone by the time that the
        // subscriber reads it, the log tells of it.
        let is_in_ring = newest > 0 && self.state.fanout.lock().ring.after(after, 0).is_some();
        if is_in_ring { (0, 0) } else { (newest, drops) }
    }

    /// Creates a subscriber to the topics that continues with the first kept event of `time` or
    /// later, of any topic, and with all events after it in the order of the log. Without such an
    /// event it continues with new ones. Events that were dropped before are not announced.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn subscribe_since(
        &self,
        topics: Patterns,
        time: Timestamp,
    ) -> Result<Subscriber, EventLogError> {
        let before = self.state.log.before(time).await?;
        let mut subscriber = self.subscribe(topics, Cursor::Earliest);
        subscriber.skip_to(before);
        subscriber.cursor.sequence = subscriber.read;
        // As for readers from now on, earlier ends are only those of the topics that it names.
        let exact = subscriber.topics.exact();
        let is_named = |end: &Event| exact.as_ref().is_some_and(|named| named.matches(&end.topic));
        subscriber.ends.retain(|end| end.id.sequence > before || is_named(end));
        Ok(subscriber)
    }

    /// Returns `true` if nothing follows the cursor, since all topics are exact and have ended
    /// before it.
    pub fn is_over(&self, topics: &Patterns, cursor: &Cursor) -> bool {
        let Cursor::After(id) = cursor else { return false };
        let Bounds { epoch, newest, .. } = self.state.log.bounds();
        let is_valid = id.epoch == epoch && id.sequence <= newest;
        is_valid && self.state.last_end(topics, id.sequence).is_some()
    }

    /// Returns `true` if the topic has ended and was not opened again.
    pub fn has_ended(&self, topic: &Topic) -> bool {
        self.state.last_end(&topic.clone().into(), self.newest()).is_some()
    }

    /// Returns the ids of the oldest kept event and of the newest event or end, or `None` if no
    /// event is kept.
    pub fn kept(&self) -> Option<(EventId, EventId)> {
        let Bounds { epoch, start, newest } = self.state.log.bounds();
        let id = |sequence| EventId { epoch, sequence };
        (start < newest).then(|| (id(start + 1), id(newest)))
    }

    /// Returns the newest sequence number that subscribers may see, of any topic.
    pub fn newest(&self) -> u64 {
        self.state.fanout.lock().ring.newest()
    }

    /// Returns the number of events that were published since the hub was created.
    pub fn published(&self) -> u64 {
        let fanout = self.state.fanout.lock();
        fanout.ring.newest() - self.state.initial - fanout.ends
    }

    /// Returns the numbers of publishes that failed since the hub was created, by
    /// [reason](PublishError::failure).
    pub fn failed_publishes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.state.failures.get()
    }

    /// Returns the condition of the event log: the parts that fail now.
    pub fn condition(&self) -> Condition {
        self.state.log.condition()
    }

    /// Returns the size of the event log.
    pub fn log_size(&self) -> LogSize {
        self.state.log.size()
    }

    /// Calls `observe` with the duration of each commit of new events, on the thread that writes
    /// them. Only the first observer counts. A log in memory commits nothing.
    pub fn observe_commits(&self, observe: impl Fn(Duration) + Send + Sync + 'static) {
        if let Some(commits) = self.state.log.commits() {
            commits.set(observe);
        }
    }

    /// Returns the number of drafts that wait to be stored: those in the publish queue, and those
    /// that the log is about to store. Publishers that wait for a slot are not counted.
    pub fn waiting_drafts(&self) -> usize {
        let queued = self.queue.max_capacity() - self.queue.capacity();
        queued + self.state.taken.load(Ordering::Relaxed)
    }

    /// Capacity of the publish queue.
    pub fn queue_capacity(&self) -> usize {
        self.queue.max_capacity()
    }

    /// Waits until the hub can no longer publish anything, because a part of it has ended for good.
    pub async fn stopped(&self) {
        self.queue.closed().await;
    }

    /// Returns the time since which the writer has been busy with one append to the event log.
    /// Returns `None` if no append is in flight.
    pub fn append_since(&self) -> Option<Instant> {
        *self.state.append_since.lock()
    }

    /// Reads the newest events of the topics, within `limit`. If all topics have ended, a reader
    /// that continues from the cursor gets the last end.
    ///
    /// May return fewer events, or none, although earlier ones are kept.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn latest(
        &self,
        topics: &Patterns,
        limit: ReadLimit,
    ) -> Result<Latest, EventLogError> {
        let newest = self.newest();
        let (events, reason, rest) = self.read_before(topics, newest + 1, limit).await?;
        let sequence = match self.state.last_end(topics, newest) {
            Some(last) => last - 1,
            None => newest,
        };
        // As for readers from now on, the ends of all topics that match a pattern would be too
        // many.
        let ends = topics.exact().map(|topics| self.state.log.ends(&topics, 0, sequence));
        let epoch = self.state.log.bounds().epoch;
        let cursor = EventId { epoch, sequence };
        let gap = reason.map(|reason| Gap { reason, cursor: String::new() });
        let before = rest.map(|sequence| EventId { epoch, sequence });
        Ok(Latest { events, gap, before, ends: ends.unwrap_or_default(), cursor })
    }

    /// Reads the newest events of the topics before a position, at most `limit` of them and about
    /// 64 KiB. Ends of topics are not among them.
    ///
    /// May return fewer events, or none, although earlier ones are kept. There are no events before
    /// an id of another epoch.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn earlier(
        &self,
        topics: &Patterns,
        before: EventId,
        limit: usize,
    ) -> Result<Earlier, EventLogError> {
        let epoch = self.state.log.bounds().epoch;
        let gap = |reason| Some(Gap { reason, cursor: before.to_string() });
        if before.epoch != epoch {
            let gap = gap(GapReason::OtherEpoch);
            return Ok(Earlier { events: Vec::new(), gap, before: None });
        }
        let newest = self.newest();
        let limit = ReadLimit { count: limit.min(Batch::LIMIT.count), ..Batch::LIMIT };
        let up_to = before.sequence.min(newest + 1);
        let (events, mut reason, rest) = self.read_before(topics, up_to, limit).await?;
        if before.sequence > newest {
            reason.get_or_insert(GapReason::Future);
        }
        let before = rest.map(|sequence| EventId { epoch, sequence });
        Ok(Earlier { events, gap: reason.and_then(gap), before })
    }

    /// Reads the newest events of the topics before a sequence number, within `limit`, up to the
    /// next damaged ones. Also returns a reason if damaged ones come first, and the sequence number
    /// before which reading may continue, unless nothing is left.
    async fn read_before(
        &self,
        topics: &Patterns,
        mut before: u64,
        limit: ReadLimit,
    ) -> Result<(Vec<Event>, Option<GapReason>, Option<u64>), EventLogError> {
        let (mut events, mut gap, mut bytes) = (VecDeque::<Event>::new(), None, 0);
        for _ in 0..MAX_READS {
            let left = ReadLimit {
                // One more than wanted, to know if any is left.
                count: limit.count - events.len() + 1,
                bytes: limit.bytes.saturating_sub(bytes),
            };
            let read = match self.state.log.read_before(topics, before, left).await {
                Ok(read) if read.is_empty() => return Ok((events.into(), gap, None)),
                Ok(read) => read,
                Err(EventLogError::Damaged { last }) if events.is_empty() => {
                    (gap, before) = (Some(GapReason::Damaged), last);
                    continue;
                }
                Err(EventLogError::Damaged { .. }) => break,
                Err(error) => return Err(error),
            };
            for event in read.into_iter().rev() {
                before = event.id.sequence;
                bytes += event.data.len();
                events.push_front(event);
            }
            if events.len() > limit.count || (events.len() > 1 && bytes > limit.bytes) {
                events.pop_front();
                before = events.front().map_or(before + 1, |oldest| oldest.id.sequence);
                break;
            }
        }
        Ok((events.into(), gap, Some(before)))
    }
}
