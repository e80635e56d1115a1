//! A subscriber: a cursor, and the one loop that reads on from it, whether what comes is old or new.

use std::{
    collections::HashMap,
    future::poll_fn,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use super::{BATCH, Batch, Channel, Frame, Recent, Shared};
use crate::{
    event::{Event, Topic},
    id::EventId,
    log::{LogError, LogFuture},
    notice::{Gap, GapReason},
    pattern::Patterns,
};

/// A reader of the log.
pub struct Subscriber {
    shared: Arc<Shared>,
    topics: Patterns,
    channel: Arc<Channel>,
    /// By what the channel knows it, once it has waited.
    key: Option<usize>,
    /// Everything up to here was taken, or is announced in `gap`.
    cursor: EventId,
    /// Everything up to here was read; after the cursor only while `conflated` holds what was.
    read: u64,
    /// What was dropped up to here was told of, or need not be.
    dropped: u64,
    conflated: Option<Conflated>,
    /// A gap to tell of before anything else.
    gap: Option<Gap>,
    reading: Option<Reading>,
}

/// A read of the log that is under way.
struct Reading {
    /// What was read, and the newest event of the topics that was dropped by the end of it.
    read: LogFuture<'static, (Vec<Event>, u64)>,
    /// The newest sequence number of all topics when it began.
    newest: u64,
}

/// What a subscriber that conflates has read and not yet given.
#[derive(Default)]
struct Conflated {
    latest: HashMap<Topic, Arc<Frame>>,
    skipped: u64,
}

/// What a subscriber gets.
#[derive(Debug)]
pub enum Step {
    /// The next events, at least one.
    Frames(Arc<Batch>),
    /// What was asked for is not to be had; reading goes on from the cursor.
    Gap(Gap),
}

impl Subscriber {
    pub(super) fn new(
        shared: Arc<Shared>,
        topics: Patterns,
        channel: Arc<Channel>,
        cursor: EventId,
        gap: Option<Gap>,
        dropped: u64,
    ) -> Self {
        let (key, read, conflated, reading) = (None, cursor.sequence, None, None);
        Self { shared, topics, channel, key, cursor, read, dropped, conflated, gap, reading }
    }

    /// The same, but when it is behind, it leaves out all but the latest event of each topic.
    #[must_use]
    pub fn conflated(mut self) -> Self {
        self.conflated = Some(Conflated::default());
        self
    }

    /// How many events it has left out, if it conflates.
    pub fn skipped(&self) -> Option<u64> {
        self.conflated.as_ref().map(|conflated| conflated.skipped)
    }

    /// The position from which reading goes on, after whatever [`next`](Self::next) gave last.
    pub fn cursor(&self) -> EventId {
        self.cursor
    }

    /// The sequence number of the newest event of its topics, as it changes.
    pub fn newest(&self) -> Arc<AtomicU64> {
        Arc::clone(self.channel.newest())
    }

    /// Whether a gap is yet to be told.
    pub fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// The next events, as soon as there are any, all that are waiting up to 64 KiB. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn next(&mut self) -> Result<Step, LogError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The same, but none if there is nothing yet.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn try_next(&mut self) -> Result<Option<Step>, LogError> {
        poll_fn(|context| self.poll_try_next(context)).await
    }

    /// Waits until there may be more than [`try_next`](Self::try_next) has found.
    pub async fn changed(&mut self) {
        poll_fn(|context| self.poll_changed(context)).await;
    }

    /// Polls for what [`next`](Self::next) gives.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Step, LogError>> {
        loop {
            if let Some(step) = ready!(self.poll_try_next(context))? {
                return Poll::Ready(Ok(step));
            }
            ready!(self.poll_changed(context));
        }
    }

    /// Pending only while the log is read.
    fn poll_try_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Step>, LogError>> {
        let newest = self.channel.newest().load(Ordering::Acquire);
        loop {
            match ready!(self.poll_waiting(context))? {
                Some(Step::Frames(batch)) => {
                    let Some(conflated) = &mut self.conflated else {
                        self.cursor.sequence = self.read;
                        return Poll::Ready(Ok(Some(Step::Frames(batch))));
                    };
                    conflated.add(&batch);
                    if self.read >= newest {
                        return Poll::Ready(Ok(Some(self.give_conflated())));
                    }
                }
                None if self.holds_conflated() => {
                    return Poll::Ready(Ok(Some(self.give_conflated())));
                }
                // A gap, or nothing.
                step => {
                    self.cursor.sequence = self.read;
                    return Poll::Ready(Ok(step));
                }
            }
        }
    }

    fn poll_changed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let has_newer = |read| self.channel.newest().load(Ordering::Acquire) > read;
        if has_newer(self.read) {
            return Poll::Ready(());
        }
        self.channel.wait(&mut self.key, context.waker());
        // It may have come before we were heard.
        if has_newer(self.read) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// What can be read on from where we are, if anything. Pending only while the log is read.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Step>, LogError>> {
        if let Some(gap) = self.gap.take() {
            return Poll::Ready(Ok(Some(Step::Gap(gap))));
        }
        if self.reading.is_none() {
            // In this order: the channel has heard of all events up to this one.
            let newest = self.shared.shown.load(Ordering::Acquire);
            let of_topics = self.channel.newest().load(Ordering::Acquire);
            if of_topics <= self.read {
                self.read = self.read.max(newest);
                return Poll::Ready(Ok(None));
            }
            if let Some(batch) = self.channel.latest(self.read).or_else(|| self.recent()) {
                self.read = batch.last().map_or(of_topics, |last| last.event().id.sequence);
                let step = (!batch.is_empty()).then_some(Step::Frames(batch));
                return Poll::Ready(Ok(step));
            }
            self.reading = Some(self.read_log(newest));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(Ok(None)) };
        let (newest, read) = (reading.newest, ready!(reading.read.as_mut().poll(context)));
        self.reading = None;
        let (events, dropped) = read?;
        if dropped > self.read.max(self.dropped) {
            // First what was read before the gap.
            let gap = (!self.holds_conflated()).then(|| Step::Gap(self.skip(dropped)));
            return Poll::Ready(Ok(gap));
        }
        self.read = events.last().map_or(newest, |last| last.id.sequence).max(self.read);
        let frames: Vec<_> = events.into_iter().map(Frame::new).map(Arc::new).collect();
        let batch = (!frames.is_empty()).then(|| Step::Frames(Arc::new(Batch::new(frames))));
        Poll::Ready(Ok(batch))
    }

    /// The frames after those that were read, if the ring has them all, as many as make a batch. None of
    /// them: what came is of the time before the channel began.
    fn recent(&self) -> Option<Arc<Batch>> {
        let Recent { ring, .. } = &*self.shared.recent();
        if self.read >= ring.complete_after() {
            self.channel.remember(&self.topics, ring);
        }
        let sequences = self.channel.after(self.read, BATCH.count)?;
        let mut bytes = 0;
        let frames = sequences.iter().map(|&sequence| ring.get(sequence).cloned());
        let fits = |frame: &Option<Arc<Frame>>| {
            let is_first = bytes == 0;
            bytes += frame.as_ref().map_or(0, |frame| frame.size());
            is_first || bytes <= BATCH.bytes
        };
        let frames: Vec<_> = frames.take_while(fits).collect::<Option<_>>()?;
        Some(Arc::new(Batch::new(frames)))
    }

    /// Reads where the ring does not reach.
    fn read_log(&self, newest: u64) -> Reading {
        let (shared, topics, after) = (Arc::clone(&self.shared), self.topics.clone(), self.read);
        let read = async move {
            let events = shared.log.read(&topics, after, BATCH).await?;
            // After the read, so that nothing is dropped between the two unseen.
            Ok((events, shared.log.dropped(&topics)))
        };
        Reading { read: Box::pin(read), newest }
    }

    /// Goes on after what was dropped, and tells of it.
    fn skip(&mut self, dropped: u64) -> Gap {
        let asked = EventId { sequence: self.read, ..self.cursor };
        self.dropped = dropped;
        self.read = self.read.max(self.shared.log.bounds().start);
        Gap { reason: GapReason::Expired, cursor: asked.to_string() }
    }

    fn holds_conflated(&self) -> bool {
        self.conflated.as_ref().is_some_and(|conflated| !conflated.latest.is_empty())
    }

    fn give_conflated(&mut self) -> Step {
        self.cursor.sequence = self.read;
        let latest = self.conflated.as_mut().map(|conflated| mem::take(&mut conflated.latest));
        let mut frames: Vec<_> = latest.unwrap_or_default().into_values().collect();
        frames.sort_unstable_by_key(|frame| frame.event().id.sequence);
        Step::Frames(Arc::new(Batch::new(frames)))
    }
}

impl Conflated {
    fn add(&mut self, frames: &[Arc<Frame>]) {
        for frame in frames {
            let older = self.latest.insert(frame.event().topic.clone(), Arc::clone(frame));
            self.skipped += u64::from(older.is_some());
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.channel.forget(key);
        }
        self.shared.recent().channels.leave(&self.topics);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use super::*;
    use crate::{
        event::{Event, Name, Topic},
        hub::Hub,
        id::{Cursor, Epoch},
        log::{Appended, Bounds, Draft, Log, LogFuture, MemoryLog, ReadLimit, Refused, Retention},
        timestamp::Timestamp,
    };

    fn log(count: usize) -> MemoryLog {
        MemoryLog::new(
            Epoch::new(1),
            Retention { count, clock_count: count, ..Retention::default() },
        )
    }

    fn hub(count: usize) -> Hub {
        Hub::new(log(count), || Timestamp::from_millis(0))
    }

    async fn publish(hub: &Hub, count: u64) {
        for _ in 0..count {
            publish_to(hub, "clock").await;
        }
    }

    async fn publish_to(hub: &Hub, topic: &str) {
        hub.publish(topic.parse().unwrap(), Name::default(), String::new()).await.unwrap();
    }

    fn subscribe(hub: &Hub, cursor: Cursor) -> Subscriber {
        hub.subscribe(Topic::clock().into(), cursor)
    }

    fn patterns(text: &str) -> Patterns {
        Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap()
    }

    fn id(sequence: u64) -> EventId {
        EventId { epoch: Epoch::new(1), sequence }
    }

    /// All that comes without waiting.
    async fn take(subscriber: &mut Subscriber) -> Vec<u64> {
        let mut sequences = Vec::new();
        while let Ok(step) = tokio::time::timeout(Duration::from_millis(1), subscriber.next()).await
        {
            match step.unwrap() {
                Step::Frames(frames) => {
                    sequences.extend(frames.iter().map(|frame| frame.event().id.sequence));
                }
                Step::Gap(gap) => panic!("{gap:?}"),
            }
        }
        sequences
    }

    async fn gap(subscriber: &mut Subscriber) -> (GapReason, String) {
        match subscriber.next().await.unwrap() {
            Step::Gap(gap) => (gap.reason, gap.cursor),
            Step::Frames(frames) => panic!("{} frames", frames.len()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replay_and_live_have_no_seam() {
        let hub = hub(10_000);
        publish(&hub, 3000).await;
        // From far behind, where only the log reaches, through the ring, to what is yet to come.
        let mut subscriber = subscribe(&hub, Cursor::After(id(1)));
        let mut sequences = take(&mut subscriber).await;
        publish(&hub, 5).await;
        sequences.extend(take(&mut subscriber).await);
        assert_eq!(sequences, (2..=3005).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_at_a_time_is_bounded_in_bytes_from_the_log_as_from_the_ring() {
        let hub = hub(1000);
        let mut live = subscribe(&hub, Cursor::Now);
        for _ in 0..100 {
            let data = "x".repeat(10_000);
            hub.publish(Topic::clock(), Name::default(), data).await.unwrap();
        }
        let mut behind = subscribe(&hub, Cursor::Earliest);
        for subscriber in [&mut live, &mut behind] {
            let Step::Frames(frames) = subscriber.next().await.unwrap() else { panic!("a gap") };
            assert_eq!(frames.len(), 6);
            assert_eq!(take(subscriber).await, (7..=100).collect::<Vec<_>>());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_each_cursor_starts() {
        let hub = hub(10);
        publish(&hub, 3).await;
        for (cursor, expected) in [
            (Cursor::Now, vec![]),
            (Cursor::Earliest, vec![1, 2, 3]),
            (Cursor::After(id(0)), vec![1, 2, 3]),
            (Cursor::After(id(2)), vec![3]),
            (Cursor::After(id(3)), vec![]),
        ] {
            assert_eq!(take(&mut subscribe(&hub, cursor.clone())).await, expected, "{cursor:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cursor_that_cannot_be_honoured_is_a_gap_and_then_goes_on() {
        let hub = hub(2);
        publish(&hub, 5).await;
        let other: EventId = "0000000000000002-4".parse().unwrap();
        for (cursor, reason, expected) in [
            (Cursor::After(id(2)), GapReason::Expired, vec![4, 5]),
            (Cursor::After(other), GapReason::OtherEpoch, vec![4, 5]),
            (Cursor::After(id(6)), GapReason::Future, vec![]),
            (Cursor::Malformed("x".to_owned()), GapReason::Malformed, vec![]),
        ] {
            let mut subscriber = subscribe(&hub, cursor.clone());
            assert!(subscriber.has_gap());
            assert_eq!(gap(&mut subscriber).await.0, reason, "{cursor:?}");
            assert_eq!(take(&mut subscriber).await, expected, "{cursor:?}");
        }
        assert!(!subscribe(&hub, Cursor::After(id(3))).has_gap(), "nothing after it is missing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_falls_behind_the_retention_is_told() {
        let hub = hub(2000);
        let mut subscriber = subscribe(&hub, Cursor::Now);
        publish(&hub, 1).await;
        assert_eq!(take(&mut subscriber).await, [1]);
        publish(&hub, 20_000).await;
        assert_eq!(gap(&mut subscriber).await, (GapReason::Expired, id(1).to_string()));
        assert_eq!(subscriber.cursor(), id(18_001));
        assert_eq!(take(&mut subscriber).await, (18_002..=20_001).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn connected_to_a_quiet_log_and_back_after_a_publish_the_event_arrives() {
        let hub = hub(10);
        let cursor = subscribe(&hub, Cursor::Now).cursor();
        publish(&hub, 1).await;
        assert_eq!(take(&mut subscribe(&hub, Cursor::After(cursor))).await, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn each_gets_what_it_asked_for_in_the_order_of_the_log() {
        let hub = hub(10_000);
        let mut old = hub.subscribe(patterns("a b.*"), Cursor::Now);
        for topic in ["a", "b.c", "c", "b.c.d", "a", "b.d"] {
            publish_to(&hub, topic).await;
        }
        assert_eq!(take(&mut old).await, [1, 2, 5, 6]);
        for (topics, expected) in [("a", vec![1, 5]), ("b.>", vec![2, 4, 6]), ("d", vec![])] {
            let mut new = hub.subscribe(patterns(topics), Cursor::Earliest);
            assert_eq!(take(&mut new).await, expected, "from the log: {topics}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_of_a_quiet_topic_is_not_woken_by_others_and_has_no_false_gap() {
        let hub = hub(10);
        let mut quiet = hub.subscribe(patterns("quiet"), Cursor::Now);
        publish(&hub, 20_000).await;
        let mut next = tokio_test::task::spawn(quiet.next());
        assert!(next.poll().is_pending());
        publish(&hub, 1).await;
        assert!(!next.is_woken(), "ten thousand of them would be");
        publish_to(&hub, "quiet").await;
        assert!(next.is_woken());
        drop(next);
        assert_eq!(take(&mut quiet).await, [20_002]);
        // Nor has one that comes back with a cursor that is older than what the busy topic keeps.
        let mut back = hub.subscribe(patterns("quiet"), Cursor::After(id(3)));
        assert!(!back.has_gap());
        assert_eq!(take(&mut back).await, [20_002]);
        assert!(hub.subscribe(patterns("quiet clock"), Cursor::After(id(3))).has_gap());
    }

    #[tokio::test(start_paused = true)]
    async fn the_cursor_of_a_quiet_subscriber_goes_on_with_the_log() {
        let hub = hub(10);
        let mut quiet = hub.subscribe(patterns("quiet"), Cursor::Now);
        publish(&hub, 5).await;
        assert!(take(&mut quiet).await.is_empty());
        assert_eq!(quiet.cursor(), id(5));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_conflates_gets_only_the_latest_of_each_topic_when_it_is_behind() {
        let hub = hub(10_000);
        let mut subscriber = hub.subscribe(patterns(">"), Cursor::After(id(0))).conflated();
        publish(&hub, 3000).await;
        let other: Topic = "orders".parse().unwrap();
        hub.publish(other, Name::default(), String::new()).await.unwrap();
        publish(&hub, 20).await;
        assert_eq!(take(&mut subscriber).await, [3001, 3021]);
        assert_eq!(subscriber.cursor(), id(3021));
        assert_eq!(subscriber.skipped(), Some(3019));
        // One that keeps up misses nothing.
        for sequence in 3022..3030 {
            publish(&hub, 1).await;
            assert_eq!(take(&mut subscriber).await, [sequence]);
        }
        assert_eq!(subscriber.skipped(), Some(3019));
    }

    /// A log that loses everything up to a place after the first read.
    struct ShrinkingLog {
        log: MemoryLog,
        reads: AtomicU64,
    }

    impl ShrinkingLog {
        const LOST: u64 = 3000;

        fn lost(&self) -> u64 {
            if self.reads.load(Ordering::Relaxed) > 1 { Self::LOST } else { 0 }
        }
    }

    impl Log for ShrinkingLog {
        fn bounds(&self) -> Bounds {
            Bounds { start: self.lost(), ..self.log.bounds() }
        }

        fn dropped(&self, _: &Patterns) -> u64 {
            self.lost()
        }

        fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Result<Appended, Refused>>> {
            self.log.append(drafts)
        }

        fn read<'a>(
            &'a self,
            topics: &'a Patterns,
            after: u64,
            limit: ReadLimit,
        ) -> LogFuture<'a, Vec<Event>> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.log.read(topics, after.max(self.lost()), limit)
        }

        fn latest<'a>(&'a self, topics: &'a Patterns, limit: usize) -> LogFuture<'a, Vec<Event>> {
            self.log.latest(topics, limit)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_conflates_gets_what_was_before_a_gap_first() {
        let hub = Hub::new(ShrinkingLog { log: log(20_000), reads: AtomicU64::new(0) }, || {
            Timestamp::from_millis(0)
        });
        // So many that the ring lacks those that are lost.
        publish(&hub, 12_000).await;
        let mut subscriber = subscribe(&hub, Cursor::Earliest).conflated();
        let Step::Frames(frames) = subscriber.next().await.unwrap() else { panic!("a gap") };
        let batch = BATCH.count as u64;
        assert_eq!(frames.last().unwrap().event().id, id(batch));
        assert_eq!(subscriber.cursor(), id(batch), "a cut here comes back to the gap");
        assert_eq!(gap(&mut subscriber).await, (GapReason::Expired, id(batch).to_string()));
        assert_eq!(take(&mut subscriber).await, [12_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_events_and_the_cursor_after_them() {
        let hub = hub(10);
        let clock = Topic::clock().into();
        assert_eq!(hub.latest(&clock, 2).await.unwrap().cursor, id(0));
        publish(&hub, 3).await;
        let latest = hub.latest(&clock, 2).await.unwrap();
        let ids: Vec<_> = latest.events.iter().map(|event| event.id).collect();
        assert_eq!((ids, latest.cursor), (vec![id(2), id(3)], id(3)));
        assert_eq!(hub.kept(), Some((id(1), id(3))));
    }

    /// A log whose disk is full.
    struct FullLog;

    impl Log for FullLog {
        fn bounds(&self) -> Bounds {
            Bounds { epoch: Epoch::new(1), start: 0, newest: 0 }
        }

        fn dropped(&self, _: &Patterns) -> u64 {
            0
        }

        fn append(&self, _: Vec<Draft>) -> LogFuture<'_, Vec<Result<Appended, Refused>>> {
            Box::pin(async { Err(LogError::new("no space")) })
        }

        fn read<'a>(&'a self, _: &'a Patterns, _: u64, _: ReadLimit) -> LogFuture<'a, Vec<Event>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn latest<'a>(&'a self, _: &'a Patterns, _: usize) -> LogFuture<'a, Vec<Event>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_could_not_keep_nobody_sees() {
        let hub = Hub::new(FullLog, || Timestamp::from_millis(0));
        let mut subscriber = subscribe(&hub, Cursor::Now);
        hub.publish(Topic::clock(), Name::default(), String::new()).await.unwrap_err();
        assert!(take(&mut subscriber).await.is_empty());
        assert!(hub.latest(&Topic::clock().into(), 9).await.unwrap().events.is_empty());
    }
}
