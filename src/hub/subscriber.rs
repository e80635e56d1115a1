//! A subscriber: a cursor, and the one loop that reads on from it, whether what comes is old or new.

use std::{collections::HashMap, mem, sync::Arc};

use tokio::sync::watch;

use super::{Frame, Hub};
use crate::{
    event::Topic,
    id::EventId,
    log::{LogError, Read},
    notice::{Gap, GapReason},
};

/// How many bytes of events a subscriber takes at a time.
const BATCH_BYTES: usize = 64 * 1024;
/// How many events a subscriber that is behind takes from the log at a time.
const BATCH_COUNT: usize = 256;

/// A reader of the log.
pub struct Subscriber {
    hub: Arc<Hub>,
    /// Everything up to here was taken, or is announced in `gap`.
    cursor: EventId,
    /// Everything up to here was read; after the cursor only while `conflated` holds what was.
    read: u64,
    conflated: Option<Conflated>,
    /// A gap to tell of before anything else.
    gap: Option<Gap>,
    newest: watch::Receiver<u64>,
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
    Frames(Vec<Arc<Frame>>),
    /// What was asked for is not to be had; reading goes on from the cursor.
    Gap(Gap),
}

impl Subscriber {
    pub(super) fn new(hub: Arc<Hub>, cursor: EventId, gap: Option<Gap>) -> Self {
        let newest = hub.newest.subscribe();
        Self { hub, cursor, read: cursor.sequence, conflated: None, gap, newest }
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
        // Seen before looking: what is published after the look wakes us.
        let mut newest = *self.newest.borrow_and_update();
        loop {
            match self.waiting().await? {
                Some(Step::Frames(frames)) => {
                    if let Some(conflated) = &mut self.conflated {
                        conflated.add(frames);
                        if self.read >= newest {
                            return Ok(self.give_conflated());
                        }
                    } else {
                        self.cursor.sequence = self.read;
                        return Ok(Step::Frames(frames));
                    }
                }
                Some(Step::Gap(gap)) => {
                    self.cursor.sequence = self.read;
                    return Ok(Step::Gap(gap));
                }
                None if self.holds_conflated() => return Ok(self.give_conflated()),
                // The hub, and with it the sender, lives as long as we do.
                None => {
                    let _ = self.newest.changed().await;
                    newest = *self.newest.borrow_and_update();
                }
            }
        }
    }

    /// What can be read on from where we are, if anything.
    async fn waiting(&mut self) -> Result<Option<Step>, LogError> {
        if let Some(gap) = mem::take(&mut self.gap) {
            return Ok(Some(Step::Gap(gap)));
        }
        let recent = self.hub.ring().after(self.read, BATCH_BYTES);
        let frames: Vec<_> = match recent {
            Some(frames) => frames,
            None => match self.hub.log.read(self.read, BATCH_COUNT).await? {
                Read::Events(events) => events.into_iter().map(Frame::new).map(Arc::new).collect(),
                // First what was read before the gap.
                Read::Expired { .. } if self.holds_conflated() => return Ok(None),
                Read::Expired { start } => {
                    let after = EventId { sequence: self.read, ..self.cursor };
                    let gap = Gap { reason: GapReason::Expired, cursor: after.to_string() };
                    self.read = start;
                    return Ok(Some(Step::Gap(gap)));
                }
            },
        };
        let Some(last) = frames.last() else { return Ok(None) };
        self.read = last.event().id.sequence;
        Ok(Some(Step::Frames(frames)))
    }

    fn holds_conflated(&self) -> bool {
        self.conflated.as_ref().is_some_and(|conflated| !conflated.latest.is_empty())
    }

    fn give_conflated(&mut self) -> Step {
        self.cursor.sequence = self.read;
        let latest = self.conflated.as_mut().map(|conflated| mem::take(&mut conflated.latest));
        let mut frames: Vec<_> = latest.unwrap_or_default().into_values().collect();
        frames.sort_unstable_by_key(|frame| frame.event().id.sequence);
        Step::Frames(frames)
    }
}

impl Conflated {
    fn add(&mut self, frames: Vec<Arc<Frame>>) {
        for frame in frames {
            let older = self.latest.insert(frame.event().topic.clone(), frame);
            self.skipped += u64::from(older.is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        event::{Name, Topic},
        id::{Cursor, Epoch},
        log::{Bounds, Draft, Log, LogFuture, MemoryLog},
        timestamp::Timestamp,
    };

    fn hub(retain_count: usize) -> Arc<Hub> {
        let log = MemoryLog::new(Epoch::new(1), retain_count);
        Arc::new(Hub::new(log, || Timestamp::from_millis(0)))
    }

    async fn publish(hub: &Hub, count: u64) {
        for _ in 0..count {
            hub.publish(Topic::clock(), Name::default(), String::new()).await.unwrap();
        }
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
            Step::Frames(frames) => panic!("{frames:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replay_and_live_have_no_seam() {
        let hub = hub(10_000);
        publish(&hub, 3000).await;
        // From far behind, where only the log reaches, through the ring, to what is yet to come.
        let mut subscriber = hub.subscribe(Cursor::After(id(1)));
        let mut sequences = take(&mut subscriber).await;
        publish(&hub, 5).await;
        sequences.extend(take(&mut subscriber).await);
        assert_eq!(sequences, (2..=3005).collect::<Vec<_>>());
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
            assert_eq!(take(&mut hub.subscribe(cursor.clone())).await, expected, "{cursor:?}");
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
            let mut subscriber = hub.subscribe(cursor.clone());
            assert!(subscriber.has_gap());
            assert_eq!(gap(&mut subscriber).await.0, reason, "{cursor:?}");
            assert_eq!(take(&mut subscriber).await, expected, "{cursor:?}");
        }
        assert!(!hub.subscribe(Cursor::After(id(3))).has_gap(), "nothing after it is missing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_falls_behind_the_retention_is_told() {
        let hub = hub(2000);
        let mut subscriber = hub.subscribe(Cursor::Now);
        publish(&hub, 1).await;
        assert_eq!(take(&mut subscriber).await, [1]);
        publish(&hub, 4000).await;
        assert_eq!(gap(&mut subscriber).await, (GapReason::Expired, id(1).to_string()));
        assert_eq!(subscriber.cursor(), id(2001));
        assert_eq!(take(&mut subscriber).await, (2002..=4001).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn connected_to_a_quiet_log_and_back_after_a_publish_the_event_arrives() {
        let hub = hub(10);
        let cursor = hub.subscribe(Cursor::Now).cursor();
        publish(&hub, 1).await;
        assert_eq!(take(&mut hub.subscribe(Cursor::After(cursor))).await, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_conflates_gets_only_the_latest_of_each_topic_when_it_is_behind() {
        let hub = hub(10_000);
        let mut subscriber = hub.subscribe(Cursor::After(id(0))).conflated();
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

    /// A log of which everything after the first batch is lost while it is read.
    struct ShrinkingLog(MemoryLog);

    impl Log for ShrinkingLog {
        fn bounds(&self) -> Bounds {
            self.0.bounds()
        }

        fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<crate::event::Event>> {
            self.0.append(drafts)
        }

        fn read(&self, after: u64, limit: usize) -> LogFuture<'_, Read> {
            let is_lost = (1..4000).contains(&after);
            let lost = async { Ok(Read::Expired { start: 4000 }) };
            if is_lost { Box::pin(lost) } else { self.0.read(after, limit) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_conflates_gets_what_was_before_a_gap_first() {
        let log = ShrinkingLog(MemoryLog::new(Epoch::new(1), 10_000));
        let hub = Arc::new(Hub::new(log, || Timestamp::from_millis(0)));
        publish(&hub, 6000).await;
        let mut subscriber = hub.subscribe(Cursor::Earliest).conflated();
        let Step::Frames(frames) = subscriber.next().await.unwrap() else { panic!("a gap") };
        let batch = BATCH_COUNT as u64;
        assert_eq!(frames.last().unwrap().event().id, id(batch));
        assert_eq!(subscriber.cursor(), id(batch), "a cut here comes back to the gap");
        assert_eq!(gap(&mut subscriber).await, (GapReason::Expired, id(batch).to_string()));
        assert_eq!(take(&mut subscriber).await, [6000]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_events_and_the_cursor_after_them() {
        let hub = hub(10);
        assert_eq!(hub.latest(2).cursor, id(0));
        publish(&hub, 3).await;
        let latest = hub.latest(2);
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

        fn append(&self, _: Vec<Draft>) -> LogFuture<'_, Vec<crate::event::Event>> {
            Box::pin(async { Err(LogError::new("no space")) })
        }

        fn read(&self, _: u64, _: usize) -> LogFuture<'_, Read> {
            Box::pin(async { Ok(Read::Events(Vec::new())) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_could_not_keep_nobody_sees() {
        let hub = Arc::new(Hub::new(FullLog, || Timestamp::from_millis(0)));
        let mut subscriber = hub.subscribe(Cursor::Now);
        hub.publish(Topic::clock(), Name::default(), String::new()).await.unwrap_err();
        assert!(take(&mut subscriber).await.is_empty());
        assert!(hub.latest(9).events.is_empty());
    }
}
