//! Reading concurrently with the writer. A read takes one or more short steps. Each step has a
//! connection to itself. Between two steps, other reads take their turn.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread::available_parallelism,
};

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, OpenFlags, OptionalExtension as _, Row};
use tokio::sync::Semaphore;

use super::schema;
use crate::{
    event::{Event, Name, Topic},
    event_log::{
        store::{EventCollector, EventLogError, ReadLimit},
        topics::TopicEntry,
    },
    id::{Epoch, EventId},
    timestamp::Timestamp,
};

/// Maximum number of concurrent steps, unless there are fewer cores. Further steps wait, in order.
const MAX_STEPS: usize = 4;
/// Maximum number of rows that a step looks at: about a millisecond.
const ROWS_PER_STEP: usize = 2000;
/// Maximum number of topics that a step looks at.
const TOPICS_PER_STEP: usize = 500;
/// Number of rows that can be looked at in the time that it takes to find an event of one topic.
const ROWS_PER_TOPIC: usize = 6;

/// The columns of an event, in the order that [`TopicSelection::event`] expects.
const EVENT: &str = "SELECT sequence, topic, name, time, data FROM events";

/// A pool of read-only connections.
pub(super) struct ReaderPool {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// Permits for steps, which it gives in the order of the requests.
    steps: Arc<Semaphore>,
}

impl ReaderPool {
    pub fn new(file: PathBuf) -> Self {
        // One core is left to the writer and the network.
        let cores = available_parallelism().map_or(1, usize::from);
        let steps = (cores - 1).clamp(1, MAX_STEPS);
        // Opened now, since the files may be moved or deleted later.
        let idle = (0..steps).map_while(|_| open(&file).ok()).collect();
        Self { file, idle: Mutex::new(idle), steps: Arc::new(Semaphore::new(steps)) }
    }

    /// Reads a little, unless all connections that may be used at a time are in use.
    pub fn check(&self) -> rusqlite::Result<()> {
        let Ok(_permit) = self.steps.try_acquire() else { return Ok(()) };
        let idle = self.idle.lock().pop();
        let connection = idle.map_or_else(|| open(&self.file), Ok)?;
        read_epoch(&connection)?;
        self.idle.lock().push(connection);
        Ok(())
    }

    /// Closes the connections that are not in use.
    pub fn close_idle(&self) {
        self.idle.lock().clear();
    }

    /// Runs a step on a thread for blocking work.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, EventLogError> {
        let pool = Arc::clone(self);
        let permit = Arc::clone(&self.steps).acquire_owned().await.map_err(EventLogError::new)?;
        let read = tokio::task::spawn_blocking(move || {
            // The step holds its permit to the end, even if the caller has stopped waiting.
            let _permit = permit;
            let idle = pool.idle.lock().pop();
            let connection = idle.map_or_else(|| open(&pool.file), Ok)?;
            // All queries of a step must see the same state.
            let transaction = connection.unchecked_transaction()?;
            let result = read(&transaction)?;
            transaction.finish()?;
            pool.idle.lock().push(connection);
            Ok(result)
        });
        read.await.map_err(EventLogError::new)?
    }
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(schema::BUSY_TIMEOUT)?;
    // SQLite opens the files at the first read.
    read_epoch(&connection)?;
    Ok(connection)
}

fn read_epoch(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_one("SELECT epoch FROM log", [], |_| Ok(()))
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

/// The next events of a topic.
struct NextOfTopic {
    topic: Arc<TopicEntry<i64>>,
    /// Sequence numbers, newest first.
    sequences: Vec<u64>,
    /// `true` if there may be more after these.
    has_more: bool,
}

impl TopicSelection {
    /// Creates the selection of at least one topic.
    pub fn new(epoch: Epoch, topics: Vec<Arc<TopicEntry<i64>>>, newest: u64, count: usize) -> Self {
        Self { epoch, topics, newest, count, by_row: OnceLock::new() }
    }

    /// Reads the events after the sequence number `after`, oldest first.
    ///
    /// If many topics are selected, it is faster to look at all events in their order than to look
    /// for the events of each topic.
    pub async fn read(
        self: Arc<Self>,
        readers: &Arc<ReaderPool>,
        mut after: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Event>, EventLogError> {
        let mut rows = self.rows_to_scan(after, limit.count);
        while rows > 0 {
            let (this, step) = (Arc::clone(&self), rows.min(ROWS_PER_STEP));
            let scan = move |connection: &_| this.scan(connection, after, limit, step);
            let (events, scanned) = readers.run(scan).await?;
            if !events.is_empty() || scanned >= self.newest {
                return Ok(events);
            }
            after = scanned;
            rows -= step;
        }
        let mut next = Vec::with_capacity(self.topics.len());
        for from in (0..self.topics.len()).step_by(TOPICS_PER_STEP) {
            let this = Arc::clone(&self);
            let step = move |connection: &_| this.next_of_topics(connection, from, after, limit);
            next.extend(readers.run(step).await?);
        }
        readers.run(move |connection| self.merge(connection, next, limit)).await
    }

    /// Returns the number of rows that may be looked at, in their order, before the events of each
    /// topic are looked for; 0 if that would take too long.
    fn rows_to_scan(&self, after: u64, count: usize) -> usize {
        let max = ROWS_PER_TOPIC.saturating_mul(self.topics.len().saturating_add(count));
        let of_topics: usize = self.topics.iter().map(|topic| topic.count()).sum();
        // As many topics as events are wanted have one up to here.
        let mut newest: Vec<_> = self.topics.iter().map(|topic| topic.newest()).collect();
        let last = count.clamp(1, newest.len()) - 1;
        let (_, enough, _) = newest.select_nth_unstable(last);
        let until_enough = usize::try_from(enough.saturating_sub(after)).unwrap_or(usize::MAX);
        // As many rows have that many events of the topics, if they are spread evenly.
        let likely = count.saturating_mul(self.count) / of_topics.max(1);
        if until_enough.min(likely) > max { 0 } else { max }
    }

    /// Looks at `rows` rows after the sequence number `after`. Returns the events of the topics and
    /// the sequence number of the last row.
    fn scan(
        &self,
        connection: &Connection,
        after: u64,
        limit: ReadLimit,
        rows: usize,
    ) -> rusqlite::Result<(Vec<Event>, u64)> {
        let by_row = self.by_row.get_or_init(|| {
            self.topics.iter().enumerate().map(|(at, topic)| (topic.place, at)).collect()
        });
        let all =
            format!("{EVENT} WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3");
        let mut all = connection.prepare_cached(&all)?;
        let mut found = all.query((after, self.newest, rows))?;
        let (mut collected, mut scanned, mut seen) = (EventCollector::new(limit), after, 0);
        while let Some(row) = found.next()? {
            scanned = row.get(0)?;
            seen += 1;
            if let Some(&at) = by_row.get(&row.get(1)?)
                && !collected.push(self.event(&self.topics[at].topic, row)?)
            {
                return Ok((collected.events, scanned));
            }
        }
        Ok((collected.events, if seen < rows { self.newest } else { scanned }))
    }

    /// Returns the next events of [`TOPICS_PER_STEP`] topics after the sequence number `after`.
    fn next_of_topics(
        &self,
        connection: &Connection,
        from: usize,
        after: u64,
        limit: ReadLimit,
    ) -> rusqlite::Result<Vec<NextOfTopic>> {
        let count = (2 * limit.count.min(ROWS_PER_STEP) / self.topics.len()).max(2);
        let topics = self.topics.iter().skip(from).take(TOPICS_PER_STEP);
        topics.map(|topic| self.next_of_topic(connection, topic, after, count)).collect()
    }

    fn next_of_topic(
        &self,
        connection: &Connection,
        topic: &Arc<TopicEntry<i64>>,
        after: u64,
        count: usize,
    ) -> rusqlite::Result<NextOfTopic> {
        let mut next = connection.prepare_cached(
            "SELECT sequence FROM events WHERE topic = ?1 AND sequence > ?2 AND sequence <= ?3
             ORDER BY sequence LIMIT ?4",
        )?;
        let rows = next.query_map((topic.place, after, self.newest, count), |row| row.get(0))?;
        let mut sequences: Vec<u64> = rows.collect::<rusqlite::Result<_>>()?;
        let has_more = sequences.len() == count;
        sequences.reverse();
        Ok(NextOfTopic { topic: Arc::clone(topic), sequences, has_more })
    }

    /// Reads the next events of several topics in the order of the log.
    fn merge(
        &self,
        connection: &Connection,
        mut next: Vec<NextOfTopic>,
        limit: ReadLimit,
    ) -> rusqlite::Result<Vec<Event>> {
        let mut by_sequence = by_sequence(connection)?;
        let mut collected = EventCollector::new(limit);
        let first = |(number, next): (usize, &mut NextOfTopic)| {
            next.sequences.pop().map(|sequence| Reverse((sequence, number)))
        };
        let mut heap: BinaryHeap<_> = next.iter_mut().enumerate().filter_map(first).collect();
        while let Some(Reverse((sequence, number))) = heap.pop() {
            let of_topic = &mut next[number];
            let event = |row: &Row<'_>| self.event(&of_topic.topic.topic, row);
            // It may have been dropped since the last step.
            if let Some(event) = by_sequence.query_one([sequence], event).optional()?
                && !collected.push(event)
            {
                break;
            }
            if of_topic.sequences.is_empty() && of_topic.has_more {
                *of_topic = self.next_of_topic(connection, &of_topic.topic, sequence, 16)?;
            }
            heap.extend(first((number, of_topic)));
        }
        Ok(collected.events)
    }

    /// Reads the newest event of each topic after the sequence number `after`, oldest first.
    pub async fn newest_of_each(
        self: Arc<Self>,
        readers: &Arc<ReaderPool>,
        after: u64,
        limit: ReadLimit,
    ) -> Result<Vec<Event>, EventLogError> {
        readers
            .run(move |connection| {
                let mut by_sequence = by_sequence(connection)?;
                let mut newest = connection.prepare_cached(
                    "SELECT max(sequence) FROM events WHERE topic = ?1 AND sequence <= ?2",
                )?;
                let mut topics: Vec<_> =
                    self.topics.iter().map(|topic| (topic.newest(), topic)).collect();
                topics.sort_unstable_by_key(|(newest, _)| *newest);
                let mut found = Vec::new();
                for (sequence, topic) in topics.into_iter().take(limit.count) {
                    let event = |row: &Row<'_>| self.event(&topic.topic, row);
                    let mut event_at =
                        |sequence: u64| by_sequence.query_one([sequence], event).optional();
                    let known = sequence <= self.newest;
                    let mut event = if known { event_at(sequence)? } else { None };
                    // A later event was added since, or this one was dropped.
                    if event.is_none()
                        && let Some(sequence) =
                            newest.query_one((topic.place, self.newest), |row| row.get(0))?
                    {
                        event = event_at(sequence)?;
                    }
                    found.extend(event.filter(|event| event.id.sequence > after));
                }
                found.sort_unstable_by_key(|event: &Event| event.id.sequence);
                let mut collected = EventCollector::new(limit);
                let _ = found.into_iter().all(|event| collected.push(event));
                Ok(collected.events)
            })
            .await
    }

    /// Reads the newest events, oldest first.
    pub async fn latest(
        self: Arc<Self>,
        readers: &Arc<ReaderPool>,
        limit: usize,
    ) -> Result<Vec<Event>, EventLogError> {
        readers
            .run(move |connection| {
                let mut latest = connection.prepare_cached(
                    "SELECT sequence FROM events WHERE topic = ?1 AND sequence <= ?2
                     ORDER BY sequence DESC LIMIT ?3",
                )?;
                // Only topics whose newest events are among the newest of all have any of them.
                let mut topics: Vec<_> =
                    self.topics.iter().map(|topic| (Reverse(topic.newest()), topic)).collect();
                topics.sort_unstable_by_key(|(newest, _)| *newest);
                let mut found = Vec::new();
                for (_, topic) in topics.into_iter().take(limit) {
                    let rows =
                        latest.query_map((topic.place, self.newest, limit), |row| row.get(0))?;
                    for sequence in rows {
                        found.push((sequence?, &topic.topic));
                    }
                }
                found.sort_unstable_by_key(|&(sequence, _): &(u64, _)| sequence);
                let excess = found.len().saturating_sub(limit);
                let mut by_sequence = by_sequence(connection)?;
                let event = |(sequence, topic)| {
                    by_sequence.query_one([sequence], |row: &Row<'_>| self.event(topic, row))
                };
                found.drain(excess..).map(event).collect()
            })
            .await
    }

    fn event(&self, topic: &Topic, row: &Row<'_>) -> rusqlite::Result<Event> {
        Ok(Event {
            id: EventId { epoch: self.epoch, sequence: row.get(0)? },
            topic: topic.clone(),
            // The name was valid when it was written.
            name: row.get_ref(2)?.as_str()?.parse().unwrap_or_else(|_| Name::default()),
            time: Timestamp::from_millis(row.get(3)?),
            data: row.get(4)?,
        })
    }
}

fn by_sequence(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(&format!("{EVENT} WHERE sequence = ?1"))
}
