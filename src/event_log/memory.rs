//! An event log in memory, which lives as long as the process.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    future::ready,
    mem,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    ages::{AgeMarks, is_young},
    changed_topics::ChangedTopics,
    drops::Dropped,
    retention::Retention,
    size::LogSize,
    store::{
        Appended, Bounds, EventCollector, EventLog, EventLogFuture, ReadLimit, Rejected,
        TopicFigures,
    },
    times::TimeRuns,
    topics::{Admission, StoredEnd, TopicChanges, TopicEntry, Topics},
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
    contents: Mutex<MemoryContents>,
    topics: Topics<TopicSequences>,
}

/// The sequence numbers of a topic's events, oldest first.
type TopicSequences = Mutex<VecDeque<u64>>;

#[derive(Debug)]
struct MemoryContents {
    retention: Retention,
    /// `true` if a rule of the retention has an age.
    has_own_ages: bool,
    /// The kept events, by sequence number.
    events: BTreeMap<u64, Event>,
    /// Approximate size of the kept events.
    bytes: usize,
    newest: u64,
    /// Sequence numbers of the events that have a key.
    sequence_of: HashMap<(Topic, IdempotencyKey), u64>,
    /// The inverse of `sequence_of`.
    key_of: HashMap<u64, IdempotencyKey>,
    ages: AgeMarks,
    /// Up to this sequence number, all kept events are of topics with an age of their own.
    passed: u64,
    due: DueTopics,
    times: TimeRuns,
}

/// The topics that have events and an age of their own, by the time at which an event may become
/// too old.
#[derive(Debug, Default)]
struct DueTopics {
    /// By the time in milliseconds, and by a number that no other topic has.
    by_time: BTreeMap<(u64, u64), Topic>,
    /// The inverse.
    time_of: HashMap<Topic, (u64, u64)>,
    /// The last number.
    number: u64,
}

impl DueTopics {
    /// Notes an event of a topic with an age of its own.
    fn add(&mut self, topic: &Topic, time: Timestamp, age: Duration) {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.add_at(topic, time.as_millis().saturating_add(age));
    }

    fn add_at(&mut self, topic: &Topic, due: u64) {
        let known = self.time_of.get(topic).copied();
        if known.is_some_and(|(known, _)| known <= due) {
            return;
        }
        if let Some(known) = known {
            self.by_time.remove(&known);
        }
        self.number += 1;
        self.by_time.insert((due, self.number), topic.clone());
        self.time_of.insert(topic.clone(), (due, self.number));
    }

    /// Takes the next topic that may have an event that is too old.
    fn take(&mut self, now: Timestamp) -> Option<Topic> {
        let first = self.by_time.first_entry()?;
        if first.key().0 >= now.as_millis() {
            return None;
        }
        let topic = first.remove();
        self.time_of.remove(&topic);
        Some(topic)
    }
}

impl MemoryContents {
    fn new(retention: Retention) -> Self {
        Self {
            has_own_ages: retention.has_own_ages(),
            events: BTreeMap::new(),
            bytes: 0,
            newest: 0,
            sequence_of: HashMap::new(),
            key_of: HashMap::new(),
            ages: AgeMarks::new(&retention),
            passed: 0,
            due: DueTopics::default(),
            times: TimeRuns::new(),
            retention,
        }
    }

    /// Changes the retention. Drops what exceeds the new numbers and the new size.
    fn set_retention(&mut self, retention: Retention, topics: &Topics<TopicSequences>) {
        self.has_own_ages = retention.has_own_ages();
        self.ages = AgeMarks::new(&retention);
        for (sequence, event) in &self.events {
            self.ages.add(*sequence, event.time);
        }
        (self.passed, self.due, self.retention) = (0, DueTopics::default(), retention);
        topics.forget_bounds();
        for entry in topics.all() {
            self.drop_over_count(&entry, topics);
            if entry.count() > 0 && entry.bounds(&self.retention).own_age.is_some() {
                // The next append looks at its events.
                self.due.add_at(&entry.topic, 0);
            }
        }
        self.drop_over_bytes(topics);
        self.forget_dropped();
    }

    fn start(&self) -> u64 {
        self.events.first_key_value().map_or(self.newest, |(oldest, _)| oldest - 1)
    }

    fn append(
        &mut self,
        draft: Draft,
        time: Timestamp,
        epoch: Epoch,
        topics: &Topics<TopicSequences>,
    ) -> Result<Appended, Rejected> {
        let end = topics.get(&draft.topic).and_then(|entry| entry.end());
        if let Some(end) = &end
            && let Some(found) = end.find_by_key(&draft)
        {
            let event = end.event(draft.topic, epoch);
            return found.map(|()| Appended { event, is_duplicate: true });
        }
        let key = draft.key.clone().map(|key| (draft.topic.clone(), key));
        let earlier = key.as_ref().and_then(|key| self.events.get(self.sequence_of.get(key)?));
        if let Some(earlier) = earlier {
            let is_same = earlier.name == draft.name && earlier.data == draft.data;
            let duplicate = || Appended { event: earlier.clone(), is_duplicate: true };
            return is_same.then(duplicate).ok_or(Rejected::KeyReused);
        }
        if let Some(end) = &end {
            match end.admit(&draft)? {
                Admission::Duplicate => {
                    if let Some(keyed) = end.keyed(&draft) {
                        topics.set_end(&draft.topic, keyed);
                    }
                    let event = end.event(draft.topic, epoch);
                    return Ok(Appended { event, is_duplicate: true });
                }
                Admission::Reopening => topics.set_end(&draft.topic, end.reopened()),
                Admission::New => {}
            }
        }
        let entry = if let Some(entry) = topics.get(&draft.topic) {
            entry
        } else {
            if let Some(empty) =
                topics.to_forget(&draft.topic, self.retention.topics, &TopicChanges::default())?
            {
                topics.forget(&empty);
            }
            topics.add(draft.topic.clone(), Mutex::default())
        };
        let sequence = self.newest + 1;
        if draft.name.is_topic_end() {
            self.newest = sequence;
            let end = StoredEnd::new(&draft, sequence, time);
            let event = end.event(draft.topic, epoch);
            topics.set_end(&event.topic, end);
            return Ok(Appended { event, is_duplicate: false });
        }
        let Draft { topic, name, data, .. } = draft;
        let id = EventId { epoch, sequence };
        let event = Event { id, topic, name, data, time };
        self.newest = sequence;
        self.ages.add(sequence, time);
        self.times.add(sequence, time);
        self.bytes += OVERHEAD + event.data.len();
        entry.place.lock().push_back(sequence);
        entry.add((sequence, time), event.data.len());
        if self.has_own_ages
            && let Some(age) = entry.bounds(&self.retention).own_age
        {
            self.due.add(&event.topic, time, age);
        }
        if let Some(key) = key {
            self.key_of.insert(sequence, key.1.clone());
            self.sequence_of.insert(key, sequence);
        }
        self.events.insert(sequence, event.clone());
        Ok(Appended { event, is_duplicate: false })
    }

    /// Drops the events that exceed the retention, after an append to `topic`.
    fn drop_excess(&mut self, topic: &Topic, topics: &Topics<TopicSequences>, now: Timestamp) {
        if let Some(entry) = topics.get(topic) {
            self.drop_over_count(&entry, topics);
        }
        if self.has_own_ages {
            self.drop_by_own_ages(topics, now);
        }
        self.drop_over_bytes(topics);
        let too_old = self.ages.newest_too_old(now);
        while let Some((&oldest, event)) = self.events.range(self.passed + 1..).next()
            && oldest <= too_old
        {
            let topic = event.topic.clone();
            let entry = if self.has_own_ages { topics.get(&topic) } else { None };
            if entry.is_some_and(|entry| entry.bounds(&self.retention).own_age.is_some()) {
                self.passed = oldest;
                continue;
            }
            if is_young(event.time, now, self.retention.age) {
                break;
            }
            self.drop_event(oldest, topics);
            topics.note([&topic]);
        }
        self.forget_dropped();
    }

    fn drop_over_count(
        &mut self,
        entry: &TopicEntry<TopicSequences>,
        topics: &Topics<TopicSequences>,
    ) {
        while entry.count() > entry.bounds(&self.retention).count
            && let Some(oldest) = entry.first_after(0)
        {
            self.drop_event(oldest, topics);
            topics.note([&entry.topic]);
        }
    }

    fn drop_over_bytes(&mut self, topics: &Topics<TopicSequences>) {
        while self.bytes > self.retention.bytes
            && let Some((&oldest, event)) = self.events.first_key_value()
        {
            let topic = event.topic.clone();
            self.drop_event(oldest, topics);
            topics.note([&topic]);
        }
    }

    /// Drops the events that are too old by the ages of their topics.
    fn drop_by_own_ages(&mut self, topics: &Topics<TopicSequences>, now: Timestamp) {
        let due: Vec<_> = std::iter::from_fn(|| self.due.take(now)).collect();
        for topic in due {
            let Some(entry) = topics.get(&topic) else { continue };
            let Some(age) = entry.bounds(&self.retention).own_age else { continue };
            // An event with a time in the future is too old if a later one is.
            let (mut too_old, mut undecided, mut next): (_, _, Option<Timestamp>) = (0, 0, None);
            for sequence in entry.place.lock().iter() {
                let Some(event) = self.events.get(sequence) else { continue };
                let is_young = is_young(event.time, now, age);
                if is_young || event.time > now {
                    undecided += 1;
                    next = Some(next.map_or(event.time, |next| next.min(event.time)));
                } else {
                    too_old += mem::take(&mut undecided) + 1;
                    next = None;
                }
                if is_young {
                    break;
                }
            }
            for _ in 0..too_old {
                if let Some(oldest) = entry.first_after(0) {
                    self.drop_event(oldest, topics);
                    topics.note([&topic]);
                }
            }
            if let Some(next) = next {
                self.due.add(&topic, next, age);
            }
        }
    }

    /// Forgets the times of dropped events.
    fn forget_dropped(&mut self) {
        let start = self.start();
        self.ages.forget(start.max(self.passed));
        self.times.forget(start);
    }

    /// Drops an event, which must be the oldest of its topic. The caller notes the change.
    fn drop_event(&mut self, sequence: u64, topics: &Topics<TopicSequences>) {
        let Some(event) = self.events.remove(&sequence) else { return };
        self.bytes -= OVERHEAD + event.data.len();
        if let Some(entry) = topics.get(&event.topic) {
            topics.set_dropped(&entry, sequence);
            entry.place.lock().pop_front();
            entry.remove(event.data.len());
        }
        if let Some(key) = self.key_of.remove(&sequence) {
            self.sequence_of.remove(&(event.topic, key));
        }
    }

    /// Returns the sequence number of the first event of `time` or later.
    fn first_since(&self, time: Timestamp) -> Option<u64> {
        self.times.since(time).into_iter().find_map(|(after, last)| {
            let mut run = self.events.range(after + 1..=last);
            run.find_map(|(sequence, event)| (event.time >= time).then_some(*sequence))
        })
    }

    /// Returns the events with these sequence numbers, within the limit, but at least one.
    fn events(&self, sequences: &[u64], limit: ReadLimit) -> Vec<Event> {
        let mut collected = EventCollector::new(limit);
        for event in sequences.iter().filter_map(|sequence| self.events.get(sequence)) {
            if !collected.push(event.clone()) {
                break;
            }
        }
        collected.events
    }
}

impl MemoryLog {
    /// Creates an empty log.
    pub fn new(epoch: Epoch, retention: Retention) -> Self {
        let contents = Mutex::new(MemoryContents::new(retention));
        Self { epoch, contents, topics: Topics::default() }
    }
}

impl TopicEntry<TopicSequences> {
    /// Returns the first sequence number after `after`.
    fn first_after(&self, after: u64) -> Option<u64> {
        let sequences = self.place.lock();
        sequences.get(sequences.partition_point(|&sequence| sequence <= after)).copied()
    }

    /// Returns the last sequence number up to `newest`.
    fn last_up_to(&self, newest: u64) -> Option<u64> {
        let sequences = self.place.lock();
        let end = sequences.partition_point(|&sequence| sequence <= newest);
        sequences.get(end.checked_sub(1)?).copied()
    }
}

/// Returns the first `count` sequence numbers after `after` and up to `newest`, in order.
fn merge(
    topics: &[Arc<TopicEntry<TopicSequences>>],
    after: u64,
    newest: u64,
    count: usize,
) -> Vec<u64> {
    let first_after = |number: usize, after| {
        let first = topics[number].first_after(after).filter(|&sequence| sequence <= newest);
        first.map(|sequence| Reverse((sequence, number)))
    };
    let mut next: BinaryHeap<_> =
        (0..topics.len()).filter_map(|number| first_after(number, after)).collect();
    let mut merged = Vec::new();
    while merged.len() < count
        && let Some(Reverse((sequence, number))) = next.pop()
    {
        merged.push(sequence);
        next.extend(first_after(number, sequence));
    }
    merged
}

/// Returns the last `count` sequence numbers up to `up_to`, newest first.
fn merge_back(topics: &[Arc<TopicEntry<TopicSequences>>], up_to: u64, count: usize) -> Vec<u64> {
    let last = |number: usize, up_to| topics[number].last_up_to(up_to).map(|last| (last, number));
    let mut next: BinaryHeap<_> =
        (0..topics.len()).filter_map(|number| last(number, up_to)).collect();
    let mut merged = Vec::new();
    while merged.len() < count
        && let Some((sequence, number)) = next.pop()
    {
        merged.push(sequence);
        next.extend(last(number, sequence - 1));
    }
    merged
}

impl EventLog for MemoryLog {
    fn bounds(&self) -> Bounds {
        let contents = self.contents.lock();
        Bounds { epoch: self.epoch, start: contents.start(), newest: contents.newest }
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        self.topics.dropped_after(topics, after, drops)
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event> {
        self.topics.ends(topics, after, up_to, self.epoch)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        let mut contents = self.contents.lock();
        let append = |draft| {
            let topics = &self.topics;
            let appended = contents.append(draft, time, self.epoch, topics);
            if let Ok(Appended { event, is_duplicate: false }) = &appended {
                contents.drop_excess(&event.topic, topics, time);
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
        // An event that is appended during the read must not be returned, since an earlier one of
        // another topic may have been missed.
        let newest = self.bounds().newest;
        let sequences = merge(&self.topics.select(topics, after), after, newest, limit.count);
        Box::pin(ready(Ok(self.contents.lock().events(&sequences, limit))))
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        let newest = self.bounds().newest;
        let selected = self.topics.select(topics, after);
        let of_each = selected.iter().filter_map(|topic| topic.last_up_to(newest));
        let mut sequences: Vec<_> = of_each.filter(|&sequence| sequence > after).collect();
        sequences.sort_unstable();
        Box::pin(ready(Ok(self.contents.lock().events(&sequences, limit))))
    }

    fn size(&self) -> LogSize {
        self.topics.size()
    }

    fn note_changes(&self, changed: &Arc<ChangedTopics>) {
        self.topics.note_changes(changed);
    }

    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        self.topics.page(topics, after, limit)
    }

    fn figures<'a>(&'a self, topics: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        let contents = self.contents.lock();
        let figures = self.topics.figures(topics, self.epoch, |entry| {
            let oldest = contents.events.get(&entry.first_after(0)?)?;
            Some((oldest.id.sequence, oldest.time))
        });
        Box::pin(ready(Ok(figures)))
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64> {
        let mut contents = self.contents.lock();
        let Some(entry) = self.topics.get(topic) else { return Box::pin(ready(Ok(0))) };
        let kept = entry.place.lock().clone();
        if let Some(newest) = kept.back() {
            // All of them at once, for readers and for watchers.
            self.topics.set_dropped(&entry, *newest);
            for sequence in &kept {
                contents.drop_event(*sequence, &self.topics);
            }
            self.topics.note([topic]);
        }
        contents.forget_dropped();
        Box::pin(ready(Ok(kept.len() as u64)))
    }

    /// Changes the retention. Events that are too old are dropped by the next append, as ever.
    fn set_retention(&self, retention: Retention) -> EventLogFuture<'_, ()> {
        self.contents.lock().set_retention(retention, &self.topics);
        Box::pin(ready(Ok(())))
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        let contents = self.contents.lock();
        let before = contents.first_since(time).map_or(contents.newest, |first| first - 1);
        Box::pin(ready(Ok(before)))
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        // A later event of another topic may be missed, as in a read.
        let up_to = before.saturating_sub(1).min(self.bounds().newest);
        let selected = self.topics.select(topics, 0);
        let mut events = loop {
            let sequences = merge_back(&selected, up_to, limit.count);
            let events = self.contents.lock().events(&sequences, limit);
            // All of them may have been deleted meanwhile, but not those before them.
            if !events.is_empty() || sequences.is_empty() {
                break events;
            }
        };
        events.reverse();
        Box::pin(ready(Ok(events)))
    }

    fn find<'a>(
        &'a self,
        topic: &'a Topic,
        key: &'a IdempotencyKey,
    ) -> EventLogFuture<'a, Option<Event>> {
        let contents = self.contents.lock();
        let sequence = contents.sequence_of.get(&(topic.clone(), key.clone()));
        let event = sequence.and_then(|sequence| contents.events.get(sequence)).cloned();
        Box::pin(ready(Ok(event)))
    }
}
