//! An event log in memory, which lives as long as the process.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::ready,
};

use parking_lot::Mutex;

use super::{
    ages::AgeMarks,
    retention::Retention,
    store::{Appended, Bounds, EventLog, EventLogFuture, ReadLimit, Rejected},
    topics::{TopicChanges, TopicEntry, Topics},
};
use crate::{
    event::{Draft, Event, IdempotencyKey, Topic},
    id::{Epoch, EventId},
    pattern::Patterns,
    timestamp::Timestamp,
};

/// Approximate memory of an event without its data, in bytes.
const OVERHEAD: usize = 256;

/// An event log that keeps the newest events in memory, within its retention.
#[derive(Debug)]
pub struct MemoryLog {
    epoch: Epoch,
    retention: Retention,
    contents: Mutex<MemoryContents>,
}

#[derive(Debug)]
struct MemoryContents {
    /// The kept events, by sequence number.
    events: BTreeMap<u64, Event>,
    /// Approximate size of the kept events.
    bytes: usize,
    newest: u64,
    /// Bookkeeping with the sequence numbers of each topic's events, oldest first.
    topics: Topics<VecDeque<u64>>,
    /// Sequence numbers of the events that have a key.
    sequence_of: HashMap<(Topic, IdempotencyKey), u64>,
    /// The inverse of `sequence_of`.
    key_of: HashMap<u64, IdempotencyKey>,
    ages: AgeMarks,
}

impl MemoryContents {
    fn new(retention: &Retention) -> Self {
        Self {
            events: BTreeMap::new(),
            bytes: 0,
            newest: 0,
            topics: Topics::default(),
            sequence_of: HashMap::new(),
            key_of: HashMap::new(),
            ages: AgeMarks::new(retention),
        }
    }

    fn start(&self) -> u64 {
        self.events.first_key_value().map_or(self.newest, |(oldest, _)| oldest - 1)
    }

    fn append(
        &mut self,
        draft: Draft,
        time: Timestamp,
        epoch: Epoch,
        max_topics: usize,
    ) -> Result<Appended, Rejected> {
        let Draft { topic, name, data, key } = draft;
        let key = key.map(|key| (topic.clone(), key));
        let earlier = key.as_ref().and_then(|key| self.events.get(self.sequence_of.get(key)?));
        if let Some(earlier) = earlier {
            let is_same = earlier.name == name && earlier.data == data;
            let duplicate = || Appended { event: earlier.clone(), is_duplicate: true };
            return is_same.then(duplicate).ok_or(Rejected::KeyReused);
        }
        if self.topics.get(&topic).is_none()
            && let Some(empty) =
                self.topics.to_forget(&topic, max_topics, &TopicChanges::default())?
        {
            self.topics.forget(&empty);
        }
        let sequence = self.newest + 1;
        let id = EventId { epoch, sequence };
        let event = Event { id, topic, name, data, time };
        self.newest = sequence;
        self.ages.add(sequence, time);
        self.bytes += OVERHEAD + event.data.len();
        let entry = self.topics.add(event.topic.clone(), VecDeque::new());
        entry.place.push_back(sequence);
        entry.count += 1;
        entry.newest = sequence;
        if let Some(key) = key {
            self.key_of.insert(sequence, key.1.clone());
            self.sequence_of.insert(key, sequence);
        }
        self.events.insert(sequence, event.clone());
        Ok(Appended { event, is_duplicate: false })
    }

    /// Drops the events that exceed the retention, after an append to `topic`.
    fn drop_excess(&mut self, topic: &Topic, retention: &Retention, now: Timestamp) {
        while let Some(entry) = self.topics.get(topic)
            && entry.count > retention.count_of(topic)
            && let Some(&oldest) = entry.place.front()
        {
            self.drop_event(oldest);
        }
        let too_old = self.ages.newest_too_old(now);
        while let Some((&oldest, _)) = self.events.first_key_value()
            && (self.bytes > retention.bytes || oldest <= too_old)
        {
            self.drop_event(oldest);
        }
        self.ages.forget(self.start());
    }

    /// Drops an event, which must be the oldest of its topic.
    fn drop_event(&mut self, sequence: u64) {
        let Some(event) = self.events.remove(&sequence) else { return };
        self.bytes -= OVERHEAD + event.data.len();
        if let Some(entry) = self.topics.get_mut(&event.topic) {
            entry.place.pop_front();
            entry.count -= 1;
            entry.dropped = sequence;
        }
        if let Some(key) = self.key_of.remove(&sequence) {
            self.sequence_of.remove(&(event.topic, key));
        }
    }

    /// Returns the sequence numbers of the events of each topic that matches.
    fn sequences(&self, topics: &Patterns) -> impl Iterator<Item = &VecDeque<u64>> {
        self.topics.select(topics).into_iter().map(|(_, TopicEntry { place, .. })| place)
    }

    fn events(&self, sequences: &[u64]) -> Vec<Event> {
        sequences.iter().filter_map(|sequence| self.events.get(sequence).cloned()).collect()
    }
}

impl MemoryLog {
    /// Creates an empty log.
    pub fn new(epoch: Epoch, retention: Retention) -> Self {
        Self { epoch, retention, contents: Mutex::new(MemoryContents::new(&retention)) }
    }
}

impl EventLog for MemoryLog {
    fn bounds(&self) -> Bounds {
        let contents = self.contents.lock();
        Bounds { epoch: self.epoch, start: contents.start(), newest: contents.newest }
    }

    fn dropped(&self, topics: &Patterns) -> u64 {
        self.contents.lock().topics.dropped(topics)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        let mut contents = self.contents.lock();
        let append = |draft| {
            let appended = contents.append(draft, time, self.epoch, self.retention.topics);
            if let Ok(Appended { event, is_duplicate: false }) = &appended {
                contents.drop_excess(&event.topic, &self.retention, time);
            }
            appended
        };
        let appended = drafts.into_iter().map(append).collect();
        Box::pin(ready(Ok(appended)))
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        let contents = self.contents.lock();
        // No more than `limit.count` of each topic can be among the first of all.
        let mut sequences: Vec<u64> = contents
            .sequences(topics)
            .flat_map(|of_topic| {
                let from = of_topic.partition_point(|&sequence| sequence <= after);
                of_topic.range(from..).take(limit.count).copied()
            })
            .collect();
        sequences.sort_unstable();
        sequences.truncate(limit.count);
        let mut bytes = 0;
        let exceeds_limit = |sequence: &u64| {
            bytes += contents.events.get(sequence).map_or(0, |event| event.data.len());
            bytes > limit.bytes
        };
        let fitting = sequences.iter().position(exceeds_limit).unwrap_or(sequences.len());
        sequences.truncate(fitting.max(1));
        Box::pin(ready(Ok(contents.events(&sequences))))
    }

    fn latest<'a>(&'a self, topics: &'a Patterns, limit: usize) -> EventLogFuture<'a, Vec<Event>> {
        let contents = self.contents.lock();
        let mut sequences: Vec<u64> = contents
            .sequences(topics)
            .flat_map(|of_topic| of_topic.range(of_topic.len().saturating_sub(limit)..).copied())
            .collect();
        sequences.sort_unstable();
        let excess = sequences.len().saturating_sub(limit);
        Box::pin(ready(Ok(contents.events(&sequences[excess..]))))
    }
}
