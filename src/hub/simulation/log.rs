//! A simulated disk, and the event log on it: late, failing, and cut off by crashes.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use super::checker::Stored;
use crate::{
    event::{Draft, Event, IdempotencyKey, Topic},
    event_log::{
        Appended, Bounds, ChangedTopics, Dropped, EventLog, EventLogError, EventLogFuture,
        MemoryLog, ReadLimit, Rejected, Retention, TopicFigures,
    },
    id::Epoch,
    pattern::{Pattern, Patterns},
    timestamp::Timestamp,
};

/// The part of the world that outlives a crash.
pub struct Disk {
    log: MemoryLog,
    random: Mutex<fastrand::Rng>,
    /// Number of steps of the simulation so far.
    step: AtomicU64,
    clock: AtomicU64,
    stored: Mutex<Vec<Stored>>,
    /// Drafts whose append has failed and that a restart may find, unless another append overwrites
    /// them.
    unconfirmed: Mutex<Option<(Vec<Draft>, Timestamp)>>,
    is_faulty: AtomicBool,
}

impl Disk {
    pub fn new(seed: u64, retention: Retention) -> Self {
        Self {
            log: MemoryLog::new(Epoch::new(1), retention),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            step: AtomicU64::new(0),
            clock: AtomicU64::new(1_000_000),
            stored: Mutex::default(),
            unconfirmed: Mutex::default(),
            is_faulty: AtomicBool::new(true),
        }
    }

    pub fn next_step(&self) {
        self.step.fetch_add(1, Relaxed);
    }

    pub fn step(&self) -> u64 {
        self.step.load(Relaxed)
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.load(Relaxed))
    }

    /// Sets the clock forward, or a little back.
    pub fn change_clock(&self, millis: i64) {
        let _ = self.clock.fetch_update(Relaxed, Relaxed, |now| now.checked_add_signed(millis));
    }

    /// Ends the faults and delays.
    pub fn calm_down(&self) {
        self.is_faulty.store(false, Relaxed);
    }

    pub fn stored(&self) -> Vec<Stored> {
        self.stored.lock().clone()
    }

    /// Restarts after a crash.
    pub async fn restart(&self) {
        let unconfirmed = self.unconfirmed.lock().take();
        if let Some((drafts, time)) = unconfirmed
            && self.random.lock().bool()
        {
            self.append_now(drafts, time).await;
        }
        // Of a deletion that the crash has cut off.
        self.note_drops().await;
    }

    /// Returns `true` once in `times` calls, on average.
    fn fails(&self, times: usize) -> bool {
        self.is_faulty.load(Relaxed) && self.random.lock().usize(..times) == 0
    }

    /// Lets others take their turn, for a while.
    async fn delay(&self) {
        if self.is_faulty.load(Relaxed) {
            let turns = self.random.lock().usize(..6);
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn append_now(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> Vec<Result<Appended, Rejected>> {
        self.unconfirmed.lock().take();
        let appended = self.log.append(drafts, time).await.unwrap();
        for Appended { event, is_duplicate } in appended.iter().flatten() {
            if !is_duplicate {
                let event = event.clone();
                self.stored.lock().push(Stored {
                    event,
                    step: self.step(),
                    dropped: None,
                    is_deleted: false,
                });
            }
        }
        self.note_drops().await;
        appended
    }

    /// Notes the stored events that the log no longer has.
    async fn note_drops(&self) {
        let all = Patterns::from(">".parse::<Pattern>().unwrap());
        let limit = ReadLimit { count: usize::MAX, bytes: usize::MAX };
        let kept = self.log.read(&all, 0, limit).await.unwrap();
        let kept: HashSet<_> = kept.iter().map(|event| event.id.sequence).collect();
        for Stored { event, dropped, .. } in &mut *self.stored.lock() {
            if !kept.contains(&event.id.sequence) {
                dropped.get_or_insert(self.step());
            }
        }
    }
}

/// The event log of one life of the process.
pub struct SimulatedLog(pub Arc<Disk>);

impl SimulatedLog {
    /// Reads, late or in vain.
    fn read_late<'a, T: Send + 'a>(
        &'a self,
        read: impl FnOnce(&'a MemoryLog) -> EventLogFuture<'a, T> + Send + 'a,
    ) -> EventLogFuture<'a, T> {
        Box::pin(async move {
            self.0.delay().await;
            if self.0.fails(50) {
                return Err(EventLogError::new("a read error"));
            }
            let found = read(&self.0.log).await;
            self.0.delay().await;
            found
        })
    }
}

impl EventLog for SimulatedLog {
    fn bounds(&self) -> Bounds {
        self.0.log.bounds()
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        self.0.log.dropped_after(topics, after, drops)
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event> {
        self.0.log.ends(topics, after, up_to)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        Box::pin(async move {
            let disk = &self.0;
            disk.delay().await;
            if disk.fails(30) {
                return Err(EventLogError::DiskFull);
            }
            if disk.fails(60) {
                *disk.unconfirmed.lock() = Some((drafts, time));
                return Err(EventLogError::unconfirmed("a failed sync"));
            }
            let appended = disk.append_now(drafts, time).await;
            disk.delay().await;
            Ok(appended)
        })
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        // Small batches, so that a replay takes several reads.
        let limit = ReadLimit { count: limit.count.min(5), ..limit };
        self.read_late(move |log| log.read(topics, after, limit))
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.read_late(move |log| log.newest_of_each(topics, after, limit))
    }

    fn note_changes(&self, changed: &Arc<ChangedTopics>) {
        self.0.log.note_changes(changed);
    }

    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        self.0.log.topics(topics, after, limit)
    }

    fn figures<'a>(&'a self, topics: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        self.read_late(move |log| log.figures(topics))
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64> {
        // The log hides the events at once.
        let deleted = self.0.log.delete(topic);
        for stored in &mut *self.0.stored.lock() {
            stored.is_deleted |= stored.event.topic == *topic && stored.dropped.is_none();
        }
        Box::pin(async move {
            let deleted = deleted.await;
            self.0.note_drops().await;
            self.0.delay().await;
            deleted
        })
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        self.read_late(move |log| log.before(time))
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        self.read_late(move |log| log.read_before(topics, before, limit))
    }

    fn set_retention(&self, retention: Retention) -> EventLogFuture<'_, ()> {
        Box::pin(async move {
            self.0.delay().await;
            let changed = self.0.log.set_retention(retention).await;
            self.0.note_drops().await;
            changed
        })
    }

    fn find<'a>(
        &'a self,
        topic: &'a Topic,
        key: &'a IdempotencyKey,
    ) -> EventLogFuture<'a, Option<Event>> {
        self.read_late(move |log| log.find(topic, key))
    }
}
