//! The state of a hub, and the task that appends queued drafts and shows the events.

use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{
    attendance::WatchedTopics,
    channel::{Channel, Channels},
    frame::Frame,
    publish::{
        DraftChain, FailureCounters, PublishError, QUEUE_CAPACITY, QueuedDraft, WaitingPublisher,
    },
    ring::{Deletion, Ring},
};
use crate::{
    event::{Event, Topic},
    event_log::{
        Appended, ChangedTopics, EventLog, EventLogError, OtherNodes, Rejected, SharedChange,
        SharedChanges,
    },
    pattern::{Pattern, Patterns},
    timestamp::Timestamp,
    trace::Trace,
};

/// The state that the writer and the subscribers share.
pub(super) struct HubState {
    pub log: Box<dyn EventLog>,
    /// The changes of a log that other hubs write to, too.
    pub shared_changes: Option<Arc<SharedChanges>>,
    /// The other nodes of a cluster.
    pub others: Option<Arc<dyn OtherNodes>>,
    /// Notified when a topic begins to be watched, for this node or another one.
    pub watching: Notify,
    /// Time of the last question that the other nodes were asked for the watched topics. Set after
    /// the answers were noted.
    pub others_asked: watch::Sender<Option<Instant>>,
    pub now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Held from an append until its events are shown, and while a deletion begins: no event of a
    /// deletion must be shown after it. With shared changes, held while they are shown.
    pub appending: tokio::sync::Mutex<()>,
    /// Time since which the writer has been busy with one append.
    pub append_since: Mutex<Option<Instant>>,
    pub fanout: Mutex<Fanout>,
    /// The topics whose events or readers have changed.
    pub changed: Arc<ChangedTopics>,
    /// The topics whose readers at this node have changed, for other nodes.
    pub own_readers_changed: Arc<ChangedTopics>,
    /// The newest sequence number of which all channels have been notified.
    pub shown: AtomicU64,
    pub failures: FailureCounters,
    /// Number of drafts that were taken from the queue and are not stored yet.
    pub taken: AtomicUsize,
    /// The log's newest sequence number when the hub was created.
    pub initial: u64,
}

/// Recent events, and the channels that new events go to.
pub(super) struct Fanout {
    pub ring: Ring,
    pub channels: Channels,
    /// The topics whose readers are watched.
    pub watched: WatchedTopics,
    /// Number of ends that the ring has had. They have sequence numbers as events have.
    pub ends: u64,
}

impl HubState {
    /// Appends the queued drafts, all that are waiting at a time, until the hub is dropped or the
    /// log has stopped.
    pub async fn write(&self, mut queue: mpsc::Receiver<QueuedDraft>) {
        let mut stopped = self.log.stopped();
        let mut queued = Vec::new();
        loop {
            let taken = tokio::select! {
                biased;
                taken = queue.recv_many(&mut queued, QUEUE_CAPACITY) => taken,
                () = &mut stopped => return,
            };
            if taken == 0 {
                return;
            }
            let mut queued = queued.drain(..).peekable();
            while queued.peek().is_some() {
                self.taken.store(queued.len(), Ordering::Relaxed);
                self.append(&mut queued).await;
            }
            self.taken.store(0, Ordering::Relaxed);
        }
    }

    /// Appends the next drafts, up to a number of bytes.
    async fn append(&self, queued: &mut impl Iterator<Item = QueuedDraft>) {
        let (mut drafts, mut publishers, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < self.log.max_append()
            && let Some(QueuedDraft { draft, chain, publisher }) = queued.next()
        {
            if chain.as_ref().is_some_and(DraftChain::has_failed) {
                publisher.fail(PublishError::Skipped);
                continue;
            }
            bytes += self.log.size_of(&draft);
            drafts.push(draft);
            publishers.push((publisher, chain));
        }
        if drafts.is_empty() {
            return;
        }
        *self.append_since.lock() = Some(Instant::now());
        let appending = match &self.shared_changes {
            Some(_) => None,
            None => Some(self.appending.lock().await),
        };
        let appended = self.log.append(drafts, (self.now)()).await;
        if let Some(changes) = &self.shared_changes {
            self.show_changes(changes).await;
        }
        match appended {
            Ok(appended) => self.deliver(appended, publishers),
            Err(error) => {
                for (publisher, chain) in publishers {
                    publisher.fail(self.failed(error.clone().into(), chain.as_ref()));
                }
            }
        }
        drop(appending);
        *self.append_since.lock() = None;
    }

    /// Shows the changes that any hub has made to the log, until the future is dropped. Never
    /// returns.
    pub async fn follow(&self) {
        let Some(changes) = &self.shared_changes else { return pending().await };
        loop {
            changes.changed().await;
            self.show_changes(changes).await;
        }
    }

    async fn show_changes(&self, changes: &SharedChanges) {
        let _appending = self.appending.lock().await;
        for change in changes.take() {
            match change {
                SharedChange::Events(events) => {
                    let shown = self.fanout.lock().ring.newest();
                    // The hub may have been created after some arrived.
                    let new = events.into_iter().filter(|event| event.id.sequence > shown);
                    let frame = |event| {
                        Arc::new(Frame::just_published(event, Instant::now(), Trace::default()))
                    };
                    self.show(&new.map(frame).collect::<Vec<_>>());
                }
                SharedChange::Deleting(topic) => self.mark_deleted(topic, Deletion::PENDING),
                SharedChange::Deleted(topic, drops) => self.mark_deleted(topic, drops),
            }
        }
        changes.shown();
    }

    /// Deletes the kept events of a topic.
    pub async fn delete(&self, topic: &Topic) -> Result<u64, EventLogError> {
        if let Some(changes) = &self.shared_changes {
            let deleted = self.log.delete(topic).await;
            self.show_changes(changes).await;
            return deleted;
        }
        let deleted = {
            let _appending = self.appending.lock().await;
            let deleted = self.log.delete(topic);
            self.mark_deleted(topic.clone(), self.drops_of(topic));
            deleted
        };
        // The events that could not be deleted are in the log only.
        deleted.await.inspect_err(|_| self.fanout.lock().ring.forget_marks(topic))
    }

    /// Returns the number of drops that the log has made.
    fn drops_of(&self, topic: &Topic) -> u64 {
        self.log.dropped_after(&topic.clone().into(), u64::MAX, 0).drops
    }

    /// Marks the places of a topic's deleted events.
    fn mark_deleted(&self, topic: Topic, drops: u64) {
        // Readers of the topic that are behind must ask the log, which tells them of the gap.
        let channels = {
            let Fanout { ring, channels, .. } = &mut *self.fanout.lock();
            let channels = channels.of(&topic);
            ring.mark_deleted(Deletion { topic, drops });
            channels
        };
        for channel in channels {
            channel.forget_last_batch();
        }
    }

    /// Removes the events up to the sequence number `up_to` that were dropped after they were read.
    /// So none of them is delivered after the gap that announces them.
    pub fn remove_dropped(&self, events: &mut Vec<Event>, up_to: u64) {
        let mut dropped_of: HashMap<Topic, u64> = HashMap::new();
        events.retain(|event| {
            let Event { id, topic, name, .. } = event;
            if id.sequence > up_to || name.is_topic_end() {
                return true;
            }
            let dropped = dropped_of.get(topic).copied().unwrap_or_else(|| {
                let dropped = self.log.dropped(&topic.clone().into());
                dropped_of.insert(topic.clone(), dropped);
                dropped
            });
            id.sequence > dropped
        });
    }

    /// Returns the sequence number of the last of the topics' ends, if none of them has a wildcard
    /// and all have ended up to the sequence number `up_to`.
    pub fn last_end(&self, topics: &Patterns, up_to: u64) -> Option<u64> {
        if !topics.are_exact() {
            return None;
        }
        let ends = self.log.ends(topics, 0, up_to);
        (ends.len() == topics.iter().count()).then(|| ends.last().map(|end| end.id.sequence))?
    }

    /// Notes that a subscriber to the patterns has come or gone.
    pub fn note_readers(&self, patterns: &Patterns) {
        if self.changed.is_watched() || self.own_readers_changed.is_watched() {
            let topics: Vec<_> = patterns.iter().filter_map(Pattern::topic).collect();
            self.changed.note(&topics);
            self.own_readers_changed.note(&topics);
        }
    }

    /// Notes that a publish has failed.
    fn failed(&self, error: PublishError, chain: Option<&DraftChain>) -> PublishError {
        if let Some(chain) = chain {
            chain.fail();
        }
        self.failures.count(&error);
        error
    }

    /// Shows appended events to the subscribers, unless these have them, then to their publishers.
    fn deliver(
        &self,
        appended: Vec<Result<Appended, Rejected>>,
        publishers: Vec<(WaitingPublisher, Option<DraftChain>)>,
    ) {
        let mut new = Vec::with_capacity(appended.len());
        let mut results = Vec::with_capacity(appended.len());
        for (appended, (publisher, chain)) in appended.into_iter().zip(publishers) {
            let result = match appended {
                Ok(Appended { event, is_duplicate })
                    if is_duplicate || self.shared_changes.is_some() =>
                {
                    if let Some(trace) = publisher.trace.get() {
                        trace.stored(event.id, None);
                    }
                    Ok(Arc::new(Frame::new(event)))
                }
                Ok(Appended { event, .. }) => {
                    let WaitingPublisher { since, ref trace, .. } = publisher;
                    let frame = Arc::new(Frame::just_published(event, since, trace.clone()));
                    new.push(Arc::clone(&frame));
                    Ok(frame)
                }
                Err(rejected) => {
                    let error = self.failed(rejected.into(), chain.as_ref());
                    if let Some(trace) = publisher.trace.get() {
                        trace.failed(&error);
                    }
                    Err(error)
                }
            };
            results.push((publisher.result, result));
        }
        self.show(&new);
        for (publisher, result) in results {
            // The publisher may have stopped waiting.
            let _ = publisher.send(result);
        }
    }

    /// Shows events to the subscribers of their topics.
    fn show(&self, frames: &[Arc<Frame>]) {
        let Some(newest) = frames.last().map(|last| last.event().id.sequence) else { return };
        let mut by_channel: HashMap<*const Channel, (Arc<Channel>, Vec<Arc<Frame>>)> =
            HashMap::new();
        {
            let mut by_topic: HashMap<&Topic, Vec<Arc<Channel>>> = HashMap::new();
            // Most events have the topic of the one before them, and most topics have no reader.
            let mut without: Option<&Topic> = None;
            let Fanout { ring, channels, ends, .. } = &mut *self.fanout.lock();
            for frame in frames {
                *ends += u64::from(frame.event().name.is_topic_end());
                let topic = &frame.event().topic;
                if without != Some(topic) {
                    let found = by_topic.entry(topic).or_insert_with(|| channels.of(topic));
                    without = found.is_empty().then_some(topic);
                    for channel in found {
                        let entry = by_channel.entry(Arc::as_ptr(channel));
                        let (_, frames) =
                            entry.or_insert_with(|| (Arc::clone(channel), Vec::new()));
                        frames.push(Arc::clone(frame));
                    }
                }
                if let Some(trace) = frame.trace().get() {
                    let found = by_topic.get(topic).map_or(&[][..], Vec::as_slice);
                    let streams = found.iter().map(|channel| channel.subscribers()).sum();
                    trace.stored(frame.event().id, Some(streams));
                }
                ring.push(Arc::clone(frame));
            }
        }
        self.changed.note(frames.iter().map(|frame| &frame.event().topic));
        for (channel, frames) in by_channel.into_values() {
            channel.show(frames);
        }
        self.shown.store(newest, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::{fmt::Display, sync::Arc};

    use parking_lot::Mutex;

    use crate::{
        event::{Draft, IdempotencyKey},
        hub::{Delivery, Hub, PublishError},
        id::{Cursor, EventId},
        notice::TopicEnd,
        trace::{EventTrace, Trace},
    };

    /// Notes what it is told.
    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);

    impl EventTrace for Notes {
        fn stored(&self, id: EventId, streams: Option<usize>) {
            self.0.lock().push(format!("{} {streams:?}", id.sequence));
        }

        fn failed(&self, reason: &dyn Display) {
            self.0.lock().push(reason.to_string());
        }

        fn sent(&self, streams: usize) {
            self.0.lock().push(format!("sent {streams}"));
        }
    }

    #[tokio::test]
    async fn drafts_wait_until_the_log_has_stored_them() {
        let hub = Hub::in_memory();
        let draft = || Draft::new("a".parse().unwrap(), "");
        assert_eq!((hub.waiting_drafts(), hub.queue_capacity()), (0, 1024));
        // The writer has had no turn yet.
        let first = hub.enqueue(draft()).await.unwrap();
        let second = hub.enqueue(draft()).await.unwrap();
        assert_eq!(hub.waiting_drafts(), 2);
        first.await.unwrap();
        second.await.unwrap();
        assert_eq!(hub.waiting_drafts(), 0);
    }

    #[tokio::test]
    async fn a_trace_goes_with_its_event_to_the_readers() {
        let (hub, notes) = (Hub::in_memory(), Arc::new(Notes::default()));
        let draft = || {
            let trace = Trace::new(Arc::clone(&notes) as _);
            let key = IdempotencyKey { publisher: String::new(), key: "k".to_owned() };
            Draft { trace, ..Draft::new("a.b".parse().unwrap(), "") }.with_key(key)
        };
        let subscribe = |pattern: &str| {
            hub.subscribe(pattern.parse::<crate::Pattern>().unwrap().into(), Cursor::Now)
        };
        let (mut first, _second, _other) = (subscribe("a.b"), subscribe("a.*"), subscribe("b"));
        hub.publish(draft()).await.unwrap();
        let Ok(Delivery::Events(batch)) = first.next().await else { panic!() };
        assert!(batch.is_traced());
        batch[0].trace().get().unwrap().sent(2);
        // A duplicate, an event without a trace, and one that fails.
        hub.publish(draft()).await.unwrap();
        let untraced = Draft { trace: Trace::default(), key: None, ..draft() };
        hub.publish(untraced).await.unwrap();
        let Ok(Delivery::Events(batch)) = first.next().await else { panic!() };
        assert!(!batch.is_traced());
        hub.publish(TopicEnd::done("a.b".parse().unwrap()).draft()).await.unwrap();
        let failed = hub.publish(Draft { key: None, ..draft() }).await;
        assert!(matches!(failed, Err(PublishError::Rejected(_))));
        let rejected = "the event was rejected: the topic has ended";
        assert_eq!(*notes.0.lock(), ["1 Some(2)", "sent 2", "1 None", rejected]);
    }
}
