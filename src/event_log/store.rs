//! The trait of all event logs, with its results and errors.

use std::{
    future::{Future, pending, ready},
    pin::Pin,
    sync::Arc,
};

use serde::Serialize;

use super::{
    changed_topics::ChangedTopics,
    drops::Dropped,
    other_nodes::OtherNodes,
    retention::Retention,
    shared_changes::SharedChanges,
    size::{CommitObserver, LogSize},
};
use crate::{
    event::{Draft, Event, IdempotencyKey, Topic},
    id::{Epoch, EventId},
    notice::Outcome,
    pattern::Patterns,
    timestamp::Timestamp,
};

/// A future of an [`EventLog`]'s methods, boxed, so that the trait can be used as `dyn EventLog`.
pub type EventLogFuture<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, EventLogError>> + Send + 'a>>;

/// A store of accepted events.
pub trait EventLog: Send + Sync + 'static {
    /// Returns the range of events that the log holds now.
    fn bounds(&self) -> Bounds;

    /// Returns the newest event of the topics after the sequence number `after` that was dropped
    /// after the first `drops` drops of the log, and the number of drops so far. A reader that
    /// comes back with that number learns of the later ones, whatever the places of their events.
    ///
    /// Each drop that takes events which no earlier one has taken has a number of its own, from 1.
    /// An event that a [`read`](Self::read) missed because it was dropped is counted by the time
    /// that the read returns.
    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped;

    /// Returns the sequence number of the newest dropped event of the topics; 0 if all are kept.
    fn dropped(&self, topics: &Patterns) -> u64 {
        self.dropped_after(topics, 0, 0).newest
    }

    /// Returns the ends of the topics that have ended, those with a sequence number after `after`
    /// and up to `up_to`, in their order. Reads do not return them.
    ///
    /// The end of a topic outlives its events, until the topic is reopened or makes room for
    /// another one. An end that precedes the events of a [`read`](Self::read) is known by the time
    /// that the read returns.
    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event>;

    /// Appends the events that are not rejected, and returns one result for each draft, in their
    /// order, as soon as the events are durable. The order of the calls is the order in the log.
    ///
    /// # Errors
    ///
    /// If the events could not be made durable. Then no reader sees any of them, and none of them
    /// is in the log, unless the error is [`Unconfirmed`](EventLogError::Unconfirmed) or
    /// [`Unanswered`](EventLogError::Unanswered).
    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>>;

    /// Reads events of the topics after the sequence number `after`, oldest first, within `limit`.
    ///
    /// May return fewer events than `limit` allows, but returns at least one if any is kept.
    ///
    /// # Errors
    ///
    /// If the log could not be read. [`EventLogError::Damaged`] if the next event is damaged.
    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>>;

    /// Reads the newest event of each of the topics that has one after the sequence number `after`,
    /// oldest first, within `limit`. Takes no longer for topics with many events.
    ///
    /// May return fewer events than `limit` allows, but returns at least one if any is kept.
    ///
    /// # Errors
    ///
    /// If the log could not be read. [`EventLogError::Damaged`] if any of these events is damaged.
    /// [`read`](Self::read) finds those that are not.
    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>>;

    /// Reads the newest events of the topics before the sequence number `before`, oldest first,
    /// within `limit`.
    ///
    /// May return fewer events than `limit` allows, but returns at least one if any is kept.
    ///
    /// # Errors
    ///
    /// If the log could not be read. [`EventLogError::Damaged`] if the newest of these events is
    /// damaged.
    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>>;

    /// Returns the sequence number before that of the first kept event of `time` or later, in the
    /// order of the log. If there is none, returns that of the newest event.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64>;

    /// Returns the name of this node, for a log that several nodes write to.
    fn node(&self) -> Option<&str> {
        None
    }

    /// Returns the place of the changes that any node has made, for a log that several nodes write
    /// to. The hub shows all new events from there, its own among them: they are there by the time
    /// that an append returns. `None` if only this hub appends to the log.
    fn shared_changes(&self) -> Option<Arc<SharedChanges>> {
        None
    }

    /// Waits until the log has a sequence number that another node may have. Returns at once if
    /// only this hub appends to the log, and if no node has it.
    fn reach(&self, sequence: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let _ = sequence;
        Box::pin(ready(()))
    }

    /// Returns the other nodes, for a log that several nodes write to. The hub counts their
    /// readers, too.
    fn other_nodes(&self) -> Option<Arc<dyn OtherNodes>> {
        None
    }

    /// Returns the size of a draft, by which the hub bounds an append.
    fn size_of(&self, draft: &Draft) -> usize {
        draft.data.len()
    }

    /// Returns the size after which an append takes no further draft. By default that is 1 MiB. A
    /// log's journal must have room for several of them.
    fn max_append(&self) -> usize {
        1 << 20
    }

    /// Makes the log note topics in `changed` whenever it drops or deletes some of their events.
    /// The hub notes the other changes. The default notes none.
    fn note_changes(&self, changed: &Arc<ChangedTopics>) {
        let _ = changed;
    }

    /// Returns topics that match and have events or have ended, after the topic `after`, at most
    /// `limit`. They are ordered by their first tokens, then by their second ones, and so on.
    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic>;

    /// Returns the figures of each of the topics, in their order. Topics that the log does not know
    /// have no events.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    fn figures<'a>(&'a self, topics: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>>;

    /// Deletes the kept events of a topic, and returns their number as soon as that is durable.
    ///
    /// Reads that begin after the call find none of these events, even before the future is polled,
    /// and they count as dropped. Events that are appended after the call stay.
    ///
    /// # Errors
    ///
    /// If the events could not be deleted. Some of them may be gone then. The others can be read
    /// again, and no longer count as dropped.
    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64>;

    /// Changes the events that the log keeps. Those that exceed the new bounds are dropped soon.
    /// Bounds that were raised count for later drops. Of a log that several nodes write to, this
    /// changes all nodes. By default, fails.
    ///
    /// # Errors
    ///
    /// If the retention could not be changed.
    fn set_retention(&self, retention: Retention) -> EventLogFuture<'_, ()> {
        drop(retention);
        let error = EventLogError::new("this event log cannot change what it keeps");
        Box::pin(ready(Err(error)))
    }

    /// Finds the event of a topic that was appended with a key. Returns `None` if it is no longer
    /// kept or is damaged, and by default.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    fn find<'a>(
        &'a self,
        topic: &'a Topic,
        key: &'a IdempotencyKey,
    ) -> EventLogFuture<'a, Option<Event>> {
        let (_, _) = (topic, key);
        Box::pin(ready(Ok(None)))
    }

    /// Returns the condition of the log: the parts that fail now.
    fn condition(&self) -> Condition {
        Condition::default()
    }

    /// Returns the size of the log. Takes longer for more topics, but does not wait for the disk.
    fn size(&self) -> LogSize {
        LogSize::default()
    }

    /// Returns the place for the observer of the commits of new events; `None` for a log that
    /// commits none to a disk.
    fn commits(&self) -> Option<&CommitObserver> {
        None
    }

    /// Waits until the log has stopped for good. Never returns for a log that cannot.
    fn stopped(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(pending())
    }
}

/// The condition of a log. By default all of it works.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// The reason for which the log cannot append events now.
    pub append_error: Option<EventLogError>,
    /// The reason for which the log cannot be read now.
    pub read_error: Option<EventLogError>,
    /// Number of times that the log could not drop the events that exceed the retention.
    pub failed_drops: u64,
    /// Number of stored events that reads have found damaged, each counted once.
    pub damaged_events: u64,
    /// Number of changes in the cluster that this node does not have yet; `None` for the log of one
    /// process.
    pub lag: Option<u64>,
    /// `true` if this node receives nothing from its cluster.
    pub is_away: bool,
}

/// Maximum size of one read. The first event is returned even if it is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Number of events.
    pub count: usize,
    /// Bytes of data.
    pub bytes: usize,
}

/// Events within a limit, but at least one.
pub(super) struct EventCollector {
    pub events: Vec<Event>,
    bytes: usize,
    limit: ReadLimit,
}

impl EventCollector {
    pub fn new(limit: ReadLimit) -> Self {
        Self { events: Vec::new(), bytes: 0, limit }
    }

    /// Adds the event if it fits. Returns `false` if no further event will fit.
    pub fn push(&mut self, event: Event) -> bool {
        self.bytes += event.data.len();
        let fits = self.bytes <= self.limit.bytes;
        if fits || self.events.is_empty() {
            self.events.push(event);
        }
        fits && self.events.len() < self.limit.count
    }
}

/// The range of events that a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The current life of the log.
    pub epoch: Epoch,
    /// The sequence number before that of the oldest kept event; equal to `newest` if no event is
    /// kept.
    pub start: u64,
    /// The sequence number of the newest event or end, which need not be kept any more.
    pub newest: u64,
}

/// The figures of a topic: what a log keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFigures {
    /// The topic.
    pub topic: Topic,
    /// Number of kept events.
    pub events: usize,
    /// Size of their data, in bytes.
    pub bytes: u64,
    /// Number of events that were appended since the log was opened, or since the topic was last
    /// forgotten. Unlike the number of kept events, it only grows.
    pub published: u64,
    /// The oldest of them; `None` if no event is kept.
    pub oldest: Option<EventStamp>,
    /// The newest of them; `None` if no event is kept.
    pub newest: Option<EventStamp>,
    /// The publisher's verdict, if the topic has ended.
    pub outcome: Option<Outcome>,
}

/// The id and the time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EventStamp {
    /// Its place in the event log.
    pub id: EventId,
    /// Time at which the server accepted it.
    pub time: Timestamp,
}

/// A draft that the log has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The event in the log.
    pub event: Event,
    /// `true` if an earlier draft with the same key, name and data had already added the event.
    pub is_duplicate: bool,
}

/// A reason for which the log rejects a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// An event with another name or other data has the same key.
    #[error("the key was used for another event")]
    KeyReused,
    /// The topic limit is reached.
    #[error("there are too many topics")]
    TooManyTopics,
    /// The topic has ended, and the draft does not open it again.
    #[error("the topic has ended")]
    Ended,
}

/// A failed operation of the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventLogError {
    /// The disk is full. A later attempt may succeed.
    #[error("the disk is full")]
    DiskFull,
    /// The files of the log were moved, deleted or replaced. An attempt may succeed once they are
    /// back.
    #[error("the files of the event log are no longer in their place")]
    Misplaced,
    /// The cluster cannot be reached. A later attempt may succeed.
    #[error("the cluster cannot be reached")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The cluster has not answered, and may or may not have stored the events.
    #[error("the cluster has not answered, and may have stored the events")]
    Unanswered(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A failure at a moment that leaves open if the log has the events: they may be in it after a
    /// restart.
    #[error("the event log failed, and may have stored the events")]
    Unconfirmed(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The log has stopped for good.
    #[error("the event log has stopped")]
    Stopped,
    /// The next events are damaged. Reading may continue behind them.
    #[error("stored events are damaged")]
    Damaged {
        /// The sequence number of the last of them, in the direction of the read.
        last: u64,
    },
    /// Any other failure.
    #[error("the event log failed")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl EventLogError {
    /// Creates a [`Failed`](Self::Failed) with `source`.
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(source.into().into())
    }

    /// Creates an [`Unavailable`](Self::Unavailable) with `source`.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(source.into().into())
    }

    /// Creates an [`Unanswered`](Self::Unanswered) with `source`.
    pub fn unanswered(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unanswered(source.into().into())
    }

    /// Creates an [`Unconfirmed`](Self::Unconfirmed) with `source`.
    pub fn unconfirmed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unconfirmed(source.into().into())
    }
}
