//! A subscriber: a cursor, and the one loop that reads on from it, whether what comes is old or new.

use std::{mem, sync::Arc};

use tokio::sync::watch;

use super::{Frame, Hub};
use crate::{
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
    /// A gap to tell of before anything else.
    gap: Option<Gap>,
    newest: watch::Receiver<u64>,
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
        Self { hub, cursor, gap, newest }
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
        if let Some(gap) = mem::take(&mut self.gap) {
            return Ok(Step::Gap(gap));
        }
        loop {
            // Seen before looking: what is published after the look wakes us.
            self.newest.mark_unchanged();
            let recent = self.hub.ring().after(self.cursor.sequence, BATCH_BYTES);
            let frames = match recent {
                Some(frames) => frames,
                None => match self.hub.log.read(self.cursor.sequence, BATCH_COUNT).await? {
                    Read::Events(events) => {
                        events.into_iter().map(Frame::new).map(Arc::new).collect()
                    }
                    Read::Expired { start } => {
                        let gap =
                            Gap { reason: GapReason::Expired, cursor: self.cursor.to_string() };
                        self.cursor.sequence = start;
                        return Ok(Step::Gap(gap));
                    }
                },
            };
            if let Some(last) = frames.last() {
                self.cursor = last.event().id;
                return Ok(Step::Frames(frames));
            }
            // The hub, and with it the sender, lives as long as we do.
            let _ = self.newest.changed().await;
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
