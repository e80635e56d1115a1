//! Reads of events, in the steps that the readers run.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension as _, Row};

use super::readers::ReaderThreads;
use crate::{
    event::{Event, IdempotencyKey},
    event_log::{
        store::{EventCollector, EventLogError, ReadLimit},
        topics::TopicEntry,
    },
    id::{Epoch, EventId},
    timestamp::Timestamp,
};

/// Maximum number of rows that a step looks at: about a millisecond.
const ROWS_PER_STEP: usize = 2000;
/// Maximum number of topics that a step looks at.
const TOPICS_PER_STEP: usize = 500;
/// Number of rows that can be looked at in the time that it takes to find an event of one topic.
const ROWS_PER_TOPIC: usize = 6;

/// Looks for the oldest event of each topic of which it is not known.
pub(super) async fn find_oldest(
    readers: &Arc<ReaderThreads>,
    mut topics: Vec<Arc<TopicEntry<i64>>>,
) -> Result<(), EventLogError> {
    topics.retain(|topic| topic.count() > 0 && topic.kept().oldest.is_none());
    for topics in topics.chunks(TOPICS_PER_STEP) {
        let topics = topics.to_vec();
        readers
            .run(move |connection| {
                let mut oldest = connection.prepare_cached(
                    "SELECT sequence, time FROM events WHERE topic = ?1 AND sequence > ?2
                     ORDER BY sequence LIMIT 1",
                )?;
                for topic in topics {
                    let found = oldest.query_one((topic.place, topic.hidden()), |row| {
                        // The time of a damaged event may be anything.
                        let time = Timestamp::from_millis(row.get(1).unwrap_or_default());
                        Ok((row.get(0)?, time))
                    });
                    if let Some(found) = found.optional()? {
                        topic.set_oldest(found);
                    }
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// The topics that a read covers, and the newest event that it may return.
pub(super) struct TopicSelection {
    epoch: Epoch,
    topics: Vec<Arc<TopicEntry<i64>>>,
    /// A later event must not be returned, since an earlier one may belong to a topic that is new
    /// since.
    newest: u64,
    /// Number of events of all topics of the log.
    count: usize,
    /// The places of the topics in `topics` by their row ids, once they are needed.
    by_row: OnceLock<HashMap<i64, usize>>,
}

/// The part of the log that is still to be read, and the direction.
#[derive(Clone, Copy)]
struct Span {
    /// The sequence number before that of the first event.
    after: u64,
    /// The sequence number of the last event.
    up_to: u64,
    /// `true` if the last event is read first.
    is_backwards: bool,
}

impl Span {
    fn is_empty(self) -> bool {
        self.after >= self.up_to
    }

    /// Returns the rest behind an event.
    fn behind(self, sequence: u64) -> Self {
        if self.is_backwards {
            Self { up_to: sequence.saturating_sub(1), ..self }
        } else {
            Self { after: sequence, ..self }
        }
    }

    /// Returns a number that is lower for an event that is read earlier. Its own inverse.
    fn rank(self, sequence: u64) -> u64 {
        if self.is_backwards { !sequence } else { sequence }
    }

    /// Returns the sequence numbers of the topic's next events, as far as they are known: reading
    /// backwards, that of its newest event, if it has any. Returns `None` if it must be looked for.
    fn known_next(self, topic: &TopicEntry<i64>) -> Option<Vec<u64>> {
        let newest = topic.newest();
        let is_known = self.is_backwards && newest <= self.up_to;
        // A topic may be known for long after its last event is gone.
        let has_newest = newest > topic.hidden() && topic.count() > 0;
        is_known.then(|| if has_newest { vec![newest] } else { Vec::new() })
    }

    /// The statement for the rows of all topics.
    fn of_all(self) -> &'static str {
        if self.is_backwards {
            "SELECT sequence, topic, name, time, data FROM events
             WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence DESC LIMIT ?3"
        } else {
            "SELECT sequence, topic, name, time, data FROM events
             WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence ASC LIMIT ?3"
        }
    }

    /// The statement for the sequence numbers of a topic.
    fn of_topic(self) -> &'static str {
        if self.is_backwards {
            "SELECT sequence FROM events WHERE topic = ?1 AND sequence > ?2 AND sequence <= ?3
             ORDER BY sequence DESC LIMIT ?4"
        } else {
            "SELECT sequence FROM events WHERE topic = ?1 AND sequence > ?2 AND sequence <= ?3
             ORDER BY sequence ASC LIMIT ?4"
        }
    }
}

/// The statements that read rows in their order, in both directions.
#[cfg(test)]
pub(super) fn statements() -> Vec<&'static str> {
    let span = |is_backwards| Span { after: 0, up_to: 0, is_backwards };
    [false, true].map(span).iter().flat_map(|span| [span.of_all(), span.of_topic()]).collect()
}

/// A stored event, or the sequence number of a damaged one.
type Stored = Result<Event, u64>;

/// The result of a read: events, or the damaged ones that come first.
#[derive(Default)]
pub(super) struct Found {
    pub events: Vec<Event>,
    /// Their sequence numbers, in the order of reading. Only if there are none of these, there are
    /// events.
    pub damaged: Vec<u64>,
}

/// Events within a limit, up to the next damaged one; or damaged ones, up to the next event.
struct Collector {
    collected: EventCollector,
    damaged: Vec<u64>,
    max_damaged: usize,
}

impl Collector {
    fn new(limit: ReadLimit) -> Self {
        let collected = EventCollector::new(limit);
        Self { collected, damaged: Vec::new(), max_damaged: limit.count }
    }

    /// Adds the event if it belongs to the result. Returns `false` if no further one will.
    fn push(&mut self, stored: Stored) -> bool {
        match stored {
            Ok(event) => self.damaged.is_empty() && self.collected.push(event),
            Err(sequence) if self.collected.events.is_empty() => {
                self.damaged.push(sequence);
                self.damaged.len() < self.max_damaged
            }
            Err(_) => false,
        }
    }

    /// Returns `true` if there is something that a read can return.
    fn has_some(&self) -> bool {
        !(self.collected.events.is_empty() && self.damaged.is_empty())
    }

    fn found(self) -> Found {
        Found { events: self.collected.events, damaged: self.damaged }
    }
}

/// The result of looking at some rows.
struct Scanned {
    collector: Collector,
    /// `true` if the collector takes no further event.
    is_full: bool,
    /// The rows that were not looked at.
    rest: Span,
    /// `true` if these cannot be read in their order.
    is_broken: bool,
}

/// The next events of a topic.
struct NextOfTopic {
    topic: Arc<TopicEntry<i64>>,
    /// Sequence numbers, the next one last.
    sequences: Vec<u64>,
    /// `true` if there may be more behind these.
    has_more: bool,
}

impl TopicSelection {
    /// Creates the selection of at least one topic.
    pub fn new(epoch: Epoch, topics: Vec<Arc<TopicEntry<i64>>>, newest: u64, count: usize) -> Self {
        Self { epoch, topics, newest, count, by_row: OnceLock::new() }
    }

    /// Reads the events after the sequence number `after`, oldest first.
    pub async fn read(
        self: Arc<Self>,
        readers: &Arc<ReaderThreads>,
        after: u64,
        limit: ReadLimit,
    ) -> Result<Found, EventLogError> {
        let span = Span { after, up_to: self.newest, is_backwards: false };
        self.read_span(readers, span, limit).await
    }

    /// Reads the events before the sequence number `before`, newest first.
    pub async fn read_before(
        self: Arc<Self>,
        readers: &Arc<ReaderThreads>,
        before: u64,
        limit: ReadLimit,
    ) -> Result<Found, EventLogError> {
        let up_to = before.saturating_sub(1).min(self.newest);
        let span = Span { after: 0, up_to, is_backwards: true };
        self.read_span(readers, span, limit).await
    }

    /// Reads events in the direction of the span.
    ///
    /// If many topics are selected, it is faster to look at all events in their order than to look
    /// for the events of each topic. Whatever is left after that is looked for in the topics, since
    /// a read of a few events costs as much as one of many.
    async fn read_span(
        self: Arc<Self>,
        readers: &Arc<ReaderThreads>,
        mut span: Span,
        limit: ReadLimit,
    ) -> Result<Found, EventLogError> {
        let mut collector = Collector::new(limit);
        let mut rows = self.rows_to_scan(span, limit.count);
        while rows > 0 {
            let (this, step) = (Arc::clone(&self), rows.min(ROWS_PER_STEP));
            let look = move |connection: &_| this.scan(connection, span, collector, step);
            let scanned = readers.run(look).await?;
            collector = scanned.collector;
            let is_over = scanned.is_full || scanned.rest.is_empty();
            if is_over || (scanned.is_broken && collector.has_some()) {
                return Ok(collector.found());
            }
            span = scanned.rest;
            if scanned.is_broken {
                break;
            }
            rows -= step;
        }
        let (mut next, mut unknown) = (Vec::with_capacity(self.topics.len()), Vec::new());
        for topic in &self.topics {
            match span.known_next(topic) {
                Some(sequences) => {
                    let has_more = !sequences.is_empty();
                    next.push(NextOfTopic { topic: Arc::clone(topic), sequences, has_more });
                }
                None => unknown.push(Arc::clone(topic)),
            }
        }
        let count = (2 * limit.count.min(ROWS_PER_STEP) / self.topics.len()).max(2);
        for topics in unknown.chunks(TOPICS_PER_STEP) {
            let topics = topics.to_vec();
            let of_topics = move |connection: &_| {
                let next = |topic| Self::next_of_topic(connection, topic, span, count);
                topics.iter().map(next).collect::<rusqlite::Result<Vec<_>>>()
            };
            next.extend(readers.run(of_topics).await?);
        }
        readers.run(move |connection| self.merge(connection, next, span, collector)).await
    }

    /// Returns the number of rows that may be looked at, in their order, before the events of each
    /// topic are looked for; 0 if that would take too long.
    fn rows_to_scan(&self, span: Span, count: usize) -> usize {
        let of_topics: usize = self.topics.iter().map(|topic| topic.count()).sum();
        // As many rows have that many events of the topics, if they are spread evenly.
        let likely = count.saturating_mul(self.count) / of_topics.max(1);
        let (unknown, until_enough) = if span.is_backwards {
            let is_unknown = |topic: &&Arc<TopicEntry<_>>| span.known_next(topic).is_none();
            (self.topics.iter().filter(is_unknown).count(), usize::MAX)
        } else {
            // As many topics as events are wanted have one up to here.
            let mut newest: Vec<_> = self.topics.iter().map(|topic| topic.newest()).collect();
            let last = count.clamp(1, newest.len()) - 1;
            let (_, enough, _) = newest.select_nth_unstable(last);
            let until_enough = enough.saturating_sub(span.after);
            (self.topics.len(), usize::try_from(until_enough).unwrap_or(usize::MAX))
        };
        let max = ROWS_PER_TOPIC.saturating_mul(unknown.saturating_add(count));
        if until_enough.min(likely) > max { 0 } else { max }
    }

    /// Looks at the next `rows` rows.
    fn scan(
        &self,
        connection: &Connection,
        span: Span,
        mut collector: Collector,
        rows: usize,
    ) -> rusqlite::Result<Scanned> {
        let by_row = self.by_row.get_or_init(|| {
            self.topics.iter().enumerate().map(|(at, topic)| (topic.place, at)).collect()
        });
        let mut all = connection.prepare_cached(span.of_all())?;
        let mut is_topic = connection.prepare_cached("SELECT 1 FROM topics WHERE id = ?1")?;
        let mut others = HashSet::new();
        let mut found = all.query((span.after, span.up_to, rows))?;
        let (mut rest, mut seen) = (span, 0);
        loop {
            let row = match found.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) if is_corrupt(&error) => {
                    return Ok(Scanned { collector, is_full: false, rest, is_broken: true });
                }
                Err(error) => return Err(error),
            };
            let sequence = row.get(0)?;
            rest = rest.behind(sequence);
            seen += 1;
            let stored = match row.get(1) {
                Ok(id) => match by_row.get(&id) {
                    Some(&at) if sequence <= self.topics[at].hidden() => continue,
                    Some(&at) => self.event(&self.topics[at], row)?,
                    None if others.contains(&id) => continue,
                    None if is_topic.exists([id])? => {
                        others.insert(id);
                        continue;
                    }
                    // It may be an event of the selected topics.
                    None => Err(sequence),
                },
                Err(_) => Err(sequence),
            };
            if !collector.push(stored) {
                return Ok(Scanned { collector, is_full: true, rest, is_broken: false });
            }
        }
        if seen < rows {
            rest.after = rest.up_to;
        }
        Ok(Scanned { collector, is_full: false, rest, is_broken: false })
    }

    /// Looks for the next events of a topic.
    fn next_of_topic(
        connection: &Connection,
        topic: &Arc<TopicEntry<i64>>,
        span: Span,
        count: usize,
    ) -> rusqlite::Result<NextOfTopic> {
        let mut next = connection.prepare_cached(span.of_topic())?;
        let after = span.after.max(topic.hidden());
        let rows = next.query_map((topic.place, after, span.up_to, count), |row| row.get(0))?;
        let mut sequences: Vec<u64> = rows.collect::<rusqlite::Result<_>>()?;
        let has_more = sequences.len() == count;
        sequences.reverse();
        Ok(NextOfTopic { topic: Arc::clone(topic), sequences, has_more })
    }

    /// Reads the next events of several topics in the direction of the span.
    fn merge(
        &self,
        connection: &Connection,
        mut next: Vec<NextOfTopic>,
        span: Span,
        mut collector: Collector,
    ) -> rusqlite::Result<Found> {
        let mut by_sequence = by_sequence(connection)?;
        let first = |(number, next): (usize, &mut NextOfTopic)| {
            next.sequences.pop().map(|sequence| Reverse((span.rank(sequence), number)))
        };
        let mut heap: BinaryHeap<_> = next.iter_mut().enumerate().filter_map(first).collect();
        while let Some(Reverse((rank, number))) = heap.pop() {
            let (sequence, of_topic) = (span.rank(rank), &mut next[number]);
            // It may have been dropped since the last step.
            if let Some(stored) = self.event_at(&mut by_sequence, &of_topic.topic, sequence)?
                && !collector.push(stored)
            {
                break;
            }
            if of_topic.sequences.is_empty() && of_topic.has_more {
                let behind = span.behind(sequence);
                *of_topic = Self::next_of_topic(connection, &of_topic.topic, behind, 16)?;
            }
            heap.extend(first((number, of_topic)));
        }
        Ok(collector.found())
    }

    /// Reads the newest event of each topic after the sequence number `after`, oldest first. If any
    /// of them is damaged, returns only those.
    pub async fn newest_of_each(
        self: Arc<Self>,
        readers: &Arc<ReaderThreads>,
        after: u64,
        limit: ReadLimit,
    ) -> Result<Found, EventLogError> {
        readers
            .run(move |connection| {
                let mut by_sequence = by_sequence(connection)?;
                let mut newest = connection.prepare_cached(
                    "SELECT max(sequence) FROM events WHERE topic = ?1 AND sequence <= ?2",
                )?;
                let kept = self.topics.iter().filter(|topic| topic.count() > 0);
                let mut topics: Vec<_> = kept.map(|topic| (topic.newest(), topic)).collect();
                topics.sort_unstable_by_key(|(newest, _)| *newest);
                let (mut found, mut damaged, mut bytes) = (Vec::new(), Vec::new(), 0);
                for (sequence, topic) in topics {
                    if found.len() + damaged.len() >= limit.count || bytes >= limit.bytes {
                        break;
                    }
                    let mut event_at = |sequence| self.event_at(&mut by_sequence, topic, sequence);
                    let known = sequence <= self.newest;
                    let mut event = if known { event_at(sequence)? } else { None };
                    // A later event was added since, or this one was dropped.
                    if event.is_none()
                        && let Some(sequence) =
                            newest.query_one((topic.place, self.newest), |row| row.get(0))?
                    {
                        event = event_at(sequence)?;
                    }
                    let after = after.max(topic.hidden());
                    match event {
                        Some(Ok(event)) if event.id.sequence > after => {
                            bytes += event.data.len();
                            found.push(event);
                        }
                        Some(Err(sequence)) if sequence > after => damaged.push(sequence),
                        _ => {}
                    }
                }
                if !damaged.is_empty() {
                    damaged.sort_unstable();
                    return Ok(Found { events: Vec::new(), damaged });
                }
                found.sort_unstable_by_key(|event: &Event| event.id.sequence);
                let mut collected = EventCollector::new(limit);
                let _ = found.into_iter().all(|event| collected.push(event));
                Ok(Found { events: collected.events, damaged })
            })
            .await
    }

    /// Finds the event with a key. Returns `None` if it is damaged.
    pub async fn find(
        self: Arc<Self>,
        readers: &Arc<ReaderThreads>,
        key: IdempotencyKey,
    ) -> Result<Option<Event>, EventLogError> {
        readers
            .run(move |connection| {
                let mut find = connection.prepare_cached(
                    "SELECT sequence FROM events
                     WHERE topic = ?1 AND publisher = ?2 AND key = ?3 AND key IS NOT NULL",
                )?;
                let mut by_sequence = by_sequence(connection)?;
                for topic in &self.topics {
                    let parameters = (topic.place, &key.publisher, &key.key);
                    let sequence = find.query_one(parameters, |row| row.get(0)).optional()?;
                    if let Some(sequence) = sequence {
                        let stored = self.event_at(&mut by_sequence, topic, sequence)?;
                        return Ok(stored.and_then(Result::ok));
                    }
                }
                Ok(None)
            })
            .await
    }

    /// Reads the event with a sequence number. Returns `None` if it does not exist.
    fn event_at(
        &self,
        by_sequence: &mut CachedStatement<'_>,
        topic: &TopicEntry<i64>,
        sequence: u64,
    ) -> rusqlite::Result<Option<Stored>> {
        match by_sequence.query_one([sequence], |row| self.event(topic, row)).optional() {
            Err(error) if is_corrupt(&error) => Ok(Some(Err(sequence))),
            result => result,
        }
    }

    /// Reads the event of a row. It counts as damaged if it is none that was ever written.
    fn event(&self, topic: &TopicEntry<i64>, row: &Row<'_>) -> rusqlite::Result<Stored> {
        let sequence = row.get(0)?;
        let id = EventId { epoch: self.epoch, sequence };
        let event = || {
            let name = row.get_ref(2).ok()?.as_str().ok()?.parse().ok()?;
            let (row_id, millis): (i64, _) = (row.get(1).ok()?, row.get(3).ok()?);
            let (time, data) = (Timestamp::from_millis(millis), row.get(4).ok()?);
            let is_valid = row_id == topic.place && time.as_millis() == millis;
            is_valid.then(|| Event { id, topic: topic.topic.clone(), name, data, time })
        };
        Ok(event().ok_or(sequence))
    }
}

/// Returns the sequence number of the first event of `time` or later, after `after` and up to
/// `last`.
pub(super) fn first_since(
    connection: &Connection,
    after: u64,
    last: u64,
    time: Timestamp,
) -> rusqlite::Result<Option<u64>> {
    let mut first = connection.prepare_cached(
        "SELECT sequence FROM events WHERE sequence > ?1 AND sequence <= ?2 AND time >= ?3
         ORDER BY sequence LIMIT 1",
    )?;
    match first.query_one((after, last, time.as_millis()), |row| row.get(0)).optional() {
        // The damage is announced to whoever reads on from here.
        Err(error) if is_corrupt(&error) => Ok(Some(after + 1)),
        result => result,
    }
}

/// Returns `true` if a page of the file, or the structure of a row, is damaged.
fn is_corrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
}

fn by_sequence(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection
        .prepare_cached("SELECT sequence, topic, name, time, data FROM events WHERE sequence = ?1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::{drops::Dropped, topics::KeptEvents};

    #[test]
    fn a_topic_without_events_is_not_looked_for_backwards() {
        let topic = TopicEntry::new("a".parse().unwrap(), 1, Dropped::default());
        let span = Span { after: 0, up_to: 9, is_backwards: true };
        for (count, newest, expected) in [
            (0, 7, Some(vec![])),
            (1, 7, Some(vec![7])),
            // Events that are not to be read have been added since.
            (2, 10, None),
        ] {
            topic.restore(count, newest, KeptEvents::default());
            assert_eq!(span.known_next(&topic), expected, "{count} {newest}");
        }
    }
}
