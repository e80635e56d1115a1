//! Watching the subscribers that name a topic: a producer learns that its last reader has left.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{attendance::Attendance, state::HubState};
use crate::event::Topic;

/// A watch over the subscribers that name a topic.
pub struct ReaderWatch {
    state: Arc<HubState>,
    topic: Topic,
    attendance: watch::Receiver<Attendance>,
}

impl ReaderWatch {
    pub(super) fn new(state: &Arc<HubState>, topic: Topic) -> Self {
        let attendance = {
            let fanout = &mut *state.fanout.lock();
            let readers = fanout.channels.exact(&topic);
            fanout.watched.watch(&topic, readers)
        };
        state.watching.notify_one();
        Self { state: Arc::clone(state), topic, attendance }
    }

    /// Waits until no subscriber of any node has named the topic for that long. One that comes and
    /// goes in the meantime, such as a poll, starts the time again. With other nodes, it may take a
    /// second longer, and the time starts again while they cannot be asked.
    pub async fn absent(&mut self, patience: Duration) {
        let began = Instant::now();
        // The waits for changes cannot fail: the sender is kept while there is a watch.
        loop {
            let Attendance { readers, changed, elsewhere } = *self.attendance.borrow_and_update();
            if readers > 0 {
                if self.attendance.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let last = changed.max(elsewhere).map_or(began, |last| last.max(began));
            let end = last + patience;
            match timeout_at(end, self.attendance.changed()).await {
                Ok(Err(_)) => return,
                Err(_) if self.is_absent_elsewhere(end).await => return,
                Ok(Ok(())) | Err(_) => {}
            }
        }
    }

    /// Waits until the other nodes have been asked at `end` or later. Returns `false` if a
    /// subscriber has come, or was there.
    async fn is_absent_elsewhere(&mut self, end: Instant) -> bool {
        if self.state.others.is_none() {
            return true;
        }
        let mut asked = self.state.others_asked.subscribe();
        tokio::select! {
            // The answers were noted before.
            _ = asked.wait_for(|asked| asked.is_some_and(|asked| asked >= end)) => {
                !self.attendance.has_changed().unwrap_or_default()
            }
            _ = self.attendance.changed() => false,
        }
    }
}

impl Drop for ReaderWatch {
    fn drop(&mut self) {
        self.state.fanout.lock().watched.unwatch(&self.topic);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, ops::Range, sync::Weak};

    use tokio::time::sleep;

    use super::*;
    use crate::{
        event_log::{MemoryLog, OtherNodes, OtherNodesFuture, OwnReaders, Readers, Retention},
        hub::Hub,
        id::{Cursor, Epoch},
        pattern::Patterns,
        timestamp::Timestamp,
    };

    fn patterns(text: &str) -> Patterns {
        Patterns::new(text.split(' ').map(|text| text.parse().unwrap())).unwrap()
    }

    /// Other nodes, of which one has a reader at some times, and which cannot be asked at others,
    /// in seconds since the start.
    struct FakeOthers {
        began: Instant,
        reading: [Range<u64>; 2],
        away: Range<u64>,
    }

    impl OtherNodes for FakeOthers {
        fn answer_for(&self, _: Weak<dyn OwnReaders>) {}

        fn readers<'a>(&'a self, topics: &'a [Topic]) -> OtherNodesFuture<'a, Vec<Readers>> {
            Box::pin(ready(vec![Readers { exact: 2, by_pattern: 1 }; topics.len()]))
        }

        fn absences<'a>(
            &'a self,
            topics: &'a [Topic],
        ) -> OtherNodesFuture<'a, Option<Vec<Option<Duration>>>> {
            let now = self.began.elapsed();
            let absence = |reading: &Range<u64>| {
                let [start, end] = [reading.start, reading.end].map(Duration::from_secs);
                (now >= start).then(|| now.saturating_sub(end))
            };
            let absence = self.reading.iter().filter_map(absence).min();
            let absences =
                (!self.away.contains(&now.as_secs())).then(|| vec![absence; topics.len()]);
            Box::pin(async {
                sleep(Duration::from_millis(100)).await;
                absences
            })
        }
    }

    fn hub(reading: [Range<u64>; 2], away: Range<u64>) -> Hub {
        let others = FakeOthers { began: Instant::now(), reading, away };
        let log = MemoryLog::new(Epoch::new(1), Retention::default());
        Hub::with_others(log, Timestamp::now, Some(Arc::new(others)))
    }

    #[tokio::test(start_paused = true)]
    async fn readers_of_other_nodes_count() {
        let (a, began) = ("a".parse::<Topic>().unwrap(), Instant::now());
        let hub = hub([3..30, 37..38], 50..60);
        let reader = hub.subscribe(patterns("a"), Cursor::Now);
        assert_eq!(
            hub.readers(std::slice::from_ref(&a)).await,
            [Readers { exact: 3, by_pattern: 1 }]
        );
        drop(reader);
        let after = |patience| {
            let mut watch = hub.watch_readers(a.clone());
            async move {
                watch.absent(Duration::from_secs(patience)).await;
                began.elapsed().as_secs()
            }
        };
        // The others are asked once a second, so each wait may take a second longer. While they
        // cannot be asked, none ends. The last question without an answer is that at 59 s.
        let ends = tokio::join!(after(1), after(4), after(8), after(16), after(30));
        assert_eq!(ends, (1, 35, 47, 76, 90));
        assert!(hub.state.fanout.lock().watched.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn topics_are_watched_for_other_nodes_for_some_seconds() {
        let hub = hub([0..0, 0..0], 0..0);
        let [a, b]: [Topic; 2] = ["a", "b"].map(|topic| topic.parse().unwrap());
        let topics = [a, b];
        let absences = || hub.state.absences(&topics);
        let reader = hub.subscribe(patterns("a"), Cursor::Now);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(absences(), [seconds(0), None]);
        drop(reader);
        drop(hub.subscribe(patterns("b *"), Cursor::Now));
        sleep(Duration::from_secs(5)).await;
        assert_eq!(absences(), [seconds(5); 2]);
        sleep(Duration::from_secs(9)).await;
        assert_eq!(absences(), [seconds(14); 2]);
        sleep(Duration::from_secs(12)).await;
        assert!(hub.state.fanout.lock().watched.is_empty());
        assert_eq!(absences(), [None; 2]);
        // An upload goes on with the watch that another node began.
        let mut watch = hub.watch_readers(topics[0].clone());
        watch.absent(Duration::from_secs(20)).await;
        drop(watch);
        assert!(hub.state.fanout.lock().watched.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_producer_is_alone_once_nobody_has_named_its_topic_for_a_while() {
        let (hub, began) = (Hub::in_memory(), Instant::now());
        let (a, patience) = (|| "a".parse::<Topic>().unwrap(), Duration::from_secs(10));
        let after = |seconds| tokio::time::sleep_until(began + Duration::from_secs(seconds));
        // A pattern that matches does not name it.
        let _pattern = hub.subscribe(patterns("* b"), Cursor::Now);
        let stream = hub.subscribe(patterns("a b.*"), Cursor::Now);
        let (mut first, mut second) = (hub.watch_readers(a()), hub.watch_readers(a()));
        let readers = async {
            after(30).await;
            drop(stream);
            // A poll that is answered at once.
            after(35).await;
            drop(hub.subscribe(patterns("a"), Cursor::Now));
            after(44).await;
            let reconnected = hub.subscribe(patterns("a"), Cursor::Now);
            after(60).await;
            drop(reconnected);
        };
        tokio::join!(readers, first.absent(patience), second.absent(patience));
        assert_eq!(began.elapsed(), Duration::from_secs(70));
        drop((first, second));
        assert!(hub.state.fanout.lock().watched.is_empty());
        // Nobody comes at all.
        hub.watch_readers(a()).absent(patience).await;
        assert_eq!(began.elapsed(), Duration::from_secs(80));
    }
}
