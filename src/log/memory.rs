//! A log in memory, which lives as long as the process.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::ready,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    Appended, Bounds, Draft, IdempotencyKey, Log, LogFuture, ReadLimit, Refused, Retention,
    topics::{Changes, NoRoom, OfTopic, Topics},
};
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
    /// With the sequence numbers of each topic's events, oldest first.
    topics: Topics<VecDeque<u64>>,
    /// The events that came with a key.
    keys: HashMap<(Topic, IdempotencyKey), u64>,
    /// The other way round.
    key_of: HashMap<u64, IdempotencyKey>,
}

impl Kept {
    fn start(&self) -> u64 {
        self.events.first_key_value().map_or(self.newest, |(oldest, _)| oldest - 1)
    }

    fn append(
        &mut self,
        draft: Draft,
        epoch: Epoch,
        max_topics: usize,
    ) -> Result<Appended, Refused> {
        let Draft { topic, name, data, time, key } = draft;
        let key = key.map(|key| (topic.clone(), key));
        let known = key.as_ref().and_then(|key| self.events.get(self.keys.get(key)?));
        if let Some(known) = known {
            let is_same = known.name == name && known.data == data;
            return is_same.then(|| Appended::Known(known.clone())).ok_or(Refused::KeyTaken);
        }
        if self.topics.get(&topic).is_none() {
            match self.topics.to_forget(&topic, max_topics, &Changes::default()) {
                Ok(Some(empty)) => self.topics.forget(&empty),
                Ok(None) => {}
                Err(NoRoom) => return Err(Refused::TooManyTopics),
            }
        }
        let sequence = self.newest + 1;
        let id = EventId { epoch, sequence };
        let event = Event { id, topic, name, data, time };
        self.newest = sequence;
        self.bytes += AROUND_THE_DATA + event.data.len();
        let of_topic = self.topics.add(event.topic.clone(), VecDeque::new());
        of_topic.place.push_back(sequence);
        of_topic.count += 1;
        of_topic.newest = sequence;
        if let Some(key) = key {
            self.key_of.insert(sequence, key.1.clone());
            self.keys.insert(key, sequence);
        }
        self.events.insert(sequence, event.clone());
        Ok(Appended::New(event))
    }

    /// Drops what is over the retention, after an append to that topic.
    fn drop_excess(&mut self, topic: &Topic, retention: &Retention, now: Timestamp) {
        while let Some(of_topic) = self.topics.get(topic)
            && of_topic.count > retention.count_of(topic)
            && let Some(&oldest) = of_topic.place.front()
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
            of_topic.place.pop_front();
            of_topic.count -= 1;
            of_topic.dropped = sequence;
        }
        if let Some(key) = self.key_of.remove(&sequence) {
            self.keys.remove(&(event.topic, key));
        }
    }

    fn of(&self, topics: &Patterns) -> impl Iterator<Item = &OfTopic<VecDeque<u64>>> {
        self.topics.select(topics).into_iter().map(|(_, of_topic)| of_topic)
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
        self.kept().topics.dropped(topics)
    }

    fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Result<Appended, Refused>>> {
        let mut kept = self.kept();
        let append = |draft| {
            let appended = kept.append(draft, self.epoch, self.retention.topics);
            if let Ok(Appended::New(Event { topic, time, .. })) = &appended {
                kept.drop_excess(topic, &self.retention, *time);
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
    ) -> LogFuture<'a, Vec<Event>> {
        let kept = self.kept();
        // The first of each topic, so that no more than that is looked at.
        let mut sequences: Vec<u64> = kept
            .of(topics)
            .flat_map(|of_topic| {
                let from = of_topic.place.partition_point(|&sequence| sequence <= after);
                of_topic.place.range(from..).take(limit.count).copied()
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
        let last = |of_topic: &OfTopic<VecDeque<u64>>| of_topic.place.len().saturating_sub(limit);
        let mut sequences: Vec<u64> = kept
            .of(topics)
            .flat_map(|of_topic| of_topic.place.range(last(of_topic)..).copied())
            .collect();
        sequences.sort_unstable();
        let excess = sequences.len().saturating_sub(limit);
        Box::pin(ready(Ok(kept.events(&sequences[excess..]))))
    }
}
