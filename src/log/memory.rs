//! A log in memory, which lives as long as the process.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::ready,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Bounds, Draft, Log, LogFuture, ReadLimit, Retention};
use crate::{
    event::{Event, Topic},
    id::{Epoch, EventId},
    pattern::Patterns,
    timestamp::Timestamp,
};

/// What an event takes besides its data, about, in bytes.
const AROUND_THE_DATA: usize = 256;

/// A log that keeps the newest events, within its retention.
#[derive(Debug)]
pub struct MemoryLog {
    epoch: Epoch,
    retention: Retention,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By sequence number.
    events: BTreeMap<u64, Event>,
    bytes: usize,
    newest: u64,
    topics: HashMap<Topic, OfTopic>,
}

#[derive(Debug, Default)]
struct OfTopic {
    /// The sequence numbers of its events, oldest first.
    kept: VecDeque<u64>,
    /// The last one that was dropped.
    dropped: u64,
}

impl Kept {
    fn start(&self) -> u64 {
        self.events.first_key_value().map_or(self.newest, |(oldest, _)| oldest - 1)
    }

    fn append(&mut self, event: Event) {
        let sequence = event.id.sequence;
        self.newest = sequence;
        self.bytes += AROUND_THE_DATA + event.data.len();
        self.topics.entry(event.topic.clone()).or_default().kept.push_back(sequence);
        self.events.insert(sequence, event);
    }

    /// Drops what is over the retention, after an append to that topic.
    fn drop_excess(&mut self, topic: &Topic, retention: &Retention, now: Timestamp) {
        while let Some(of_topic) = self.topics.get(topic)
            && of_topic.kept.len() > retention.count_of(topic)
            && let Some(&oldest) = of_topic.kept.front()
        {
            self.drop_event(oldest);
        }
        while let Some((&oldest, event)) = self.events.first_key_value()
            && (self.bytes > retention.bytes || now.since(event.time) > retention.age)
        {
            self.drop_event(oldest);
        }
    }

    /// Drops an event that is the oldest of its topic.
    fn drop_event(&mut self, sequence: u64) {
        let Some(event) = self.events.remove(&sequence) else { return };
        self.bytes -= AROUND_THE_DATA + event.data.len();
        if let Some(of_topic) = self.topics.get_mut(&event.topic) {
            of_topic.kept.pop_front();
            of_topic.dropped = sequence;
        }
    }

    fn of(&self, topics: &Patterns) -> impl Iterator<Item = &OfTopic> {
        self.topics.iter().filter(|(topic, _)| topics.matches(topic)).map(|(_, of_topic)| of_topic)
    }

    fn events(&self, sequences: &[u64]) -> Vec<Event> {
        sequences.iter().filter_map(|sequence| self.events.get(sequence).cloned()).collect()
    }
}

impl MemoryLog {
    /// An empty log of that epoch.
    pub fn new(epoch: Epoch, retention: Retention) -> Self {
        Self { epoch, retention, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // No code panics half-way through a change of what the lock holds.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryLog {
    fn bounds(&self) -> Bounds {
        let kept = self.kept();
        Bounds { epoch: self.epoch, start: kept.start(), newest: kept.newest }
    }

    fn dropped(&self, topics: &Patterns) -> u64 {
        self.kept().of(topics).map(|of_topic| of_topic.dropped).max().unwrap_or(0)
    }

    fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Event>> {
        let mut kept = self.kept();
        let mut appended = Vec::with_capacity(drafts.len());
        for Draft { topic, name, data, time } in drafts {
            let id = EventId { epoch: self.epoch, sequence: kept.newest + 1 };
            let event = Event { id, topic, name, data, time };
            kept.append(event.clone());
            kept.drop_excess(&event.topic, &self.retention, event.time);
            appended.push(event);
        }
        Box::pin(ready(Ok(appended)))
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> LogFuture<'a, Vec<Event>> {
        let kept = self.kept();
        // The first of each topic, so that no more than that is looked at.
        let mut sequences: Vec<u64> = kept
            .of(topics)
            .flat_map(|of_topic| {
                let from = of_topic.kept.partition_point(|&sequence| sequence <= after);
                of_topic.kept.range(from..).take(limit.count).copied()
            })
            .collect();
        sequences.sort_unstable();
        sequences.truncate(limit.count);
        let mut bytes = 0;
        let is_too_much = |sequence: &u64| {
            bytes += kept.events.get(sequence).map_or(0, |event| event.data.len());
            bytes > limit.bytes
        };
        let fit = sequences.iter().position(is_too_much).unwrap_or(sequences.len());
        sequences.truncate(fit.max(1));
        Box::pin(ready(Ok(kept.events(&sequences))))
    }

    fn latest<'a>(&'a self, topics: &'a Patterns, limit: usize) -> LogFuture<'a, Vec<Event>> {
        let kept = self.kept();
        let last = |of_topic: &OfTopic| of_topic.kept.len().saturating_sub(limit);
        let mut sequences: Vec<u64> = kept
            .of(topics)
            .flat_map(|of_topic| of_topic.kept.range(last(of_topic)..).copied())
            .collect();
        sequences.sort_unstable();
        let excess = sequences.len().saturating_sub(limit);
        Box::pin(ready(Ok(kept.events(&sequences[excess..]))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{event::Name, pattern::Pattern};

    const EPOCH: Epoch = Epoch::new(1);

    fn log(count: usize) -> MemoryLog {
        MemoryLog::new(EPOCH, Retention { count, ..Retention::default() })
    }

    fn draft(topic: &str, data: &str, seconds: u64) -> Draft {
        Draft {
            topic: topic.parse().unwrap(),
            name: Name::default(),
            data: data.to_owned(),
            time: Timestamp::from_millis(seconds * 1000),
        }
    }

    /// Appends events of one letter each to the topics of those names.
    async fn append(log: &MemoryLog, topics: &str) {
        for topic in topics.chars() {
            log.append(vec![draft(&topic.to_string(), "x", 0)]).await.unwrap();
        }
    }

    fn patterns(text: &str) -> Patterns {
        Patterns::new(text.split(' ').map(|text| text.parse::<Pattern>().unwrap())).unwrap()
    }

    async fn read(log: &MemoryLog, topics: &str, after: u64, count: usize) -> Vec<u64> {
        let limit = ReadLimit { count, bytes: usize::MAX };
        let events = log.read(&patterns(topics), after, limit).await.unwrap();
        events.iter().map(|event| event.id.sequence).collect()
    }

    async fn latest(log: &MemoryLog, topics: &str, limit: usize) -> Vec<u64> {
        let events = log.latest(&patterns(topics), limit).await.unwrap();
        events.iter().map(|event| event.id.sequence).collect()
    }

    #[tokio::test]
    async fn events_are_numbered_from_one_and_read_after_a_sequence_number() {
        let log = log(10);
        assert_eq!(log.bounds(), Bounds { epoch: EPOCH, start: 0, newest: 0 });
        let drafts = vec![draft("a", "first", 0), draft("a", "second", 1)];
        let appended = log.append(drafts).await.unwrap();
        assert_eq!(appended[1].id, EventId { epoch: EPOCH, sequence: 2 });
        append(&log, "a").await;
        assert_eq!(read(&log, "a", 0, 2).await, [1, 2]);
        assert_eq!(read(&log, "a", 2, 9).await, [3]);
        assert!(read(&log, "a", 3, 9).await.is_empty());
        assert!(read(&log, "a", u64::MAX, 9).await.is_empty());
    }

    #[tokio::test]
    async fn topics_are_read_together_in_the_order_of_the_log() {
        let log = log(10);
        append(&log, "abcabcba").await;
        assert_eq!(read(&log, "a", 0, 9).await, [1, 4, 8]);
        assert_eq!(read(&log, "a b", 1, 9).await, [2, 4, 5, 7, 8]);
        assert_eq!(read(&log, "a b", 1, 3).await, [2, 4, 5]);
        assert_eq!(read(&log, ">", 3, 2).await, [4, 5]);
        assert!(read(&log, "d", 0, 9).await.is_empty());
        assert_eq!(latest(&log, "a b", 3).await, [5, 7, 8]);
        assert_eq!(latest(&log, "c", 9).await, [3, 6]);
    }

    #[tokio::test]
    async fn what_is_over_the_retention_is_dropped_and_its_numbers_are_never_used_again() {
        let log = log(2);
        append(&log, "aaab").await;
        assert_eq!(log.bounds(), Bounds { epoch: EPOCH, start: 1, newest: 4 });
        assert_eq!(read(&log, ">", 0, 9).await, [2, 3, 4]);
        let dropped = |topics| log.dropped(&patterns(topics));
        assert_eq!((dropped("a"), dropped("b"), dropped("c"), dropped(">")), (1, 0, 0, 1));
        append(&log, "aaaa").await;
        assert_eq!(log.bounds(), Bounds { epoch: EPOCH, start: 3, newest: 8 });
        assert_eq!(read(&log, ">", 0, 9).await, [4, 7, 8], "each topic keeps its own");
        assert_eq!(dropped("a b"), 6);
    }

    #[tokio::test]
    async fn as_many_are_read_as_fit_and_at_least_one() {
        let log = log(10);
        append(&log, "aaaaa").await;
        for (bytes, expected) in [(0, vec![2]), (1, vec![2]), (3, vec![2, 3, 4])] {
            let read = log.read(&patterns("a"), 1, ReadLimit { count: 9, bytes }).await.unwrap();
            let read: Vec<_> = read.iter().map(|event| event.id.sequence).collect();
            assert_eq!(read, expected, "{bytes}");
        }
    }

    #[tokio::test]
    async fn the_clock_keeps_its_own_count() {
        let log = MemoryLog::new(EPOCH, Retention { clock_count: 1, ..Retention::default() });
        for topic in ["clock", "other", "clock", "other"] {
            log.append(vec![draft(topic, "x", 0)]).await.unwrap();
        }
        assert_eq!(read(&log, ">", 0, 9).await, [2, 3, 4]);
    }

    #[tokio::test]
    async fn age_and_bytes_bound_the_whole() {
        let hour = Duration::from_hours(1);
        let log = MemoryLog::new(EPOCH, Retention { age: hour, ..Retention::default() });
        log.append(vec![draft("a", "x", 0), draft("b", "x", 1800)]).await.unwrap();
        log.append(vec![draft("c", "x", 3601)]).await.unwrap();
        assert_eq!(read(&log, ">", 0, 9).await, [2, 3]);

        let bytes = 10 * (AROUND_THE_DATA + 1);
        let log = MemoryLog::new(EPOCH, Retention { bytes, ..Retention::default() });
        append(&log, &"ab".repeat(20)).await;
        assert_eq!(read(&log, ">", 0, 99).await, (31..=40).collect::<Vec<_>>());
        assert_eq!(log.kept().bytes, bytes);
    }
}
