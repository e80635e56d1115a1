//! Event logs with faults.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    event::{Draft, Event, Topic},
    event_log::{
        Appended, Bounds, Dropped, EventLog, EventLogError, EventLogFuture, MemoryLog, ReadLimit,
        Rejected, TopicFigures,
    },
    id::Epoch,
    pattern::Patterns,
    timestamp::Timestamp,
};

/// A log that loses events as it is read.
pub struct ShrinkingLog {
    pub log: MemoryLog,
    pub reads: Arc<AtomicU64>,
    /// The bounds' start and the newest dropped event after some reads. Only patterns with a
    /// wildcard match the topic of that event.
    pub lost: fn(u64) -> (u64, u64),
    /// `true` if others get a turn between each read and its result.
    pub is_slow: bool,
    pub cannot_delete: bool,
    /// Maximum number of events that a read returns.
    pub max_read: usize,
}

impl ShrinkingLog {
    pub fn new(log: MemoryLog, lost: fn(u64) -> (u64, u64)) -> Self {
        let (reads, is_slow, cannot_delete) = Default::default();
        Self { log, reads, lost, is_slow, cannot_delete, max_read: usize::MAX }
    }

    fn limit(&self, limit: ReadLimit) -> ReadLimit {
        ReadLimit { count: limit.count.min(self.max_read), ..limit }
    }

    fn slowly<'a, T: Send + 'a>(&self, read: EventLogFuture<'a, T>) -> EventLogFuture<'a, T> {
        let is_slow = self.is_slow;
        Box::pin(async move {
            if is_slow {
                tokio::task::yield_now().await;
            }
            read.await
        })
    }

    fn lost(&self) -> (u64, u64) {
        (self.lost)(self.reads.load(Ordering::Relaxed))
    }
}

impl EventLog for ShrinkingLog {
    fn bounds(&self) -> Bounds {
        Bounds { start: self.lost().0, ..self.log.bounds() }
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        let (start, dropped) = self.lost();
        match if topics.are_exact() { start } else { dropped } {
            0 => self.log.dropped_after(topics, after, drops),
            // The number of the event counts the drops, too.
            lost => Dropped { newest: if lost > drops { lost } else { 0 }, drops: lost },
        }
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event> {
        self.log.ends(topics, after, up_to)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        self.log.append(drafts, time)
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.slowly(self.log.read(topics, after.max(self.lost().0), self.limit(limit)))
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        self.log.before(time)
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        let after = after.max(self.lost().0);
        self.slowly(self.log.newest_of_each(topics, after, self.limit(limit)))
    }

    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        self.log.topics(topics, after, limit)
    }

    fn figures<'a>(&'a self, topics: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        self.log.figures(topics)
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64> {
        if self.cannot_delete {
            return Box::pin(async { Err(EventLogError::DiskFull) });
        }
        self.log.delete(topic)
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.log.read_before(topics, before, limit)
    }
}

/// A log of which two events are damaged.
pub struct DamagedLog(pub MemoryLog);

impl DamagedLog {
    const FIRST: u64 = 1000;
    const LAST: u64 = 1001;
}

impl EventLog for DamagedLog {
    fn bounds(&self) -> Bounds {
        self.0.bounds()
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        self.0.dropped_after(topics, after, drops)
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event> {
        self.0.ends(topics, after, up_to)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        self.0.append(drafts, time)
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        Box::pin(async move {
            if (Self::FIRST - 1..Self::LAST).contains(&after) {
                return Err(EventLogError::Damaged { last: Self::LAST });
            }
            let mut events = self.0.read(topics, after, limit).await?;
            events.retain(|event| after >= Self::LAST || event.id.sequence < Self::FIRST);
            Ok(events)
        })
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        self.0.before(time)
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        if after < Self::LAST {
            return Box::pin(async { Err(EventLogError::Damaged { last: Self::LAST }) });
        }
        self.0.newest_of_each(topics, after, limit)
    }

    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        self.0.topics(topics, after, limit)
    }

    fn figures<'a>(&'a self, topics: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        self.0.figures(topics)
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64> {
        self.0.delete(topic)
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        Box::pin(async move {
            if (Self::FIRST + 1..=Self::LAST + 1).contains(&before) {
                return Err(EventLogError::Damaged { last: Self::FIRST });
            }
            let mut events = self.0.read_before(topics, before, limit).await?;
            events.retain(|event| before <= Self::FIRST || event.id.sequence > Self::LAST);
            Ok(events)
        })
    }
}

/// A log whose disk is full.
pub struct FullLog;

impl EventLog for FullLog {
    fn bounds(&self) -> Bounds {
        Bounds { epoch: Epoch::new(1), start: 0, newest: 0 }
    }

    fn dropped_after(&self, _: &Patterns, _: u64, _: u64) -> Dropped {
        Dropped::default()
    }

    fn ends(&self, _: &Patterns, _: u64, _: u64) -> Vec<Event> {
        Vec::new()
    }

    fn append(
        &self,
        _: Vec<Draft>,
        _: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        Box::pin(async { Err(EventLogError::new("no space")) })
    }

    fn read<'a>(&'a self, _: &'a Patterns, _: u64, _: ReadLimit) -> EventLogFuture<'a, Vec<Event>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn before(&self, _: Timestamp) -> EventLogFuture<'_, u64> {
        Box::pin(async { Ok(0) })
    }

    fn newest_of_each<'a>(
        &'a self,
        _: &'a Patterns,
        _: u64,
        _: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn topics(&self, _: &Patterns, _: Option<&Topic>, _: usize) -> Vec<Topic> {
        Vec::new()
    }

    fn figures<'a>(&'a self, _: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn delete<'a>(&'a self, _: &'a Topic) -> EventLogFuture<'a, u64> {
        Box::pin(async { Ok(0) })
    }

    fn read_before<'a>(
        &'a self,
        _: &'a Patterns,
        _: u64,
        _: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
