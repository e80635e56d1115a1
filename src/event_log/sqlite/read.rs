//! Reading concurrently with the writer. Each read has a connection to itself, and sees the log as
//! it was when the read began.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, OpenFlags, Row};
use tokio::sync::Semaphore;

use super::{index::Index, schema};
use crate::{
    event::{Event, Name, Topic},
    event_log::store::{EventLogError, ReadLimit},
    id::{Epoch, EventId},
    pattern::Patterns,
    timestamp::Timestamp,
};

/// Maximum number of concurrent reads. Further reads wait.
const MAX_READS: usize = 4;

/// The columns of an event, in the order that [`TopicSelection::event`] expects.
const EVENT: &str = "SELECT sequence, topic, name, time, data FROM events";

/// A pool of read-only connections.
pub(super) struct ReaderPool {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    reads: Arc<Semaphore>,
}

impl ReaderPool {
    pub fn new(file: PathBuf) -> Self {
        Self { file, idle: Mutex::default(), reads: Arc::new(Semaphore::new(MAX_READS)) }
    }

    /// Closes the connections that are not in use.
    pub fn close_idle(&self) {
        self.idle.lock().clear();
    }

    /// Runs a read on a thread for blocking work.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, EventLogError> {
        let pool = Arc::clone(self);
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(EventLogError::new)?;
        let read = tokio::task::spawn_blocking(move || {
            // The read holds its permit to the end, even if the caller has stopped waiting.
            let _permit = permit;
            let idle = pool.idle.lock().pop();
            let connection = idle.map_or_else(|| open(&pool.file), Ok)?;
            // All queries of a read must see the same state.
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
    Ok(connection)
}

/// The topics that a read covers.
pub(super) struct TopicSelection {
    epoch: Epoch,
    /// The topics, by their row ids.
    topics: HashMap<i64, Topic>,
    /// The newest event that may be read. A later one may belong to a topic that is new since.
    newest: u64,
    /// `true` if the topics have at least half of all events, so that scanning all is fastest.
    is_majority: bool,
}

impl TopicSelection {
    /// Selects the topics that have events after the sequence number `after`. Returns `None` if
    /// none has.
    pub fn after(index: &Index, topics: &Patterns, after: u64) -> Option<Self> {
        let selected = index.topics.select(topics);
        let has_more = selected.iter().filter(|(_, entry)| entry.newest > after);
        let topics: HashMap<_, _> =
            has_more.map(|(topic, entry)| (entry.place, Topic::clone(topic))).collect();
        let count: usize = selected.iter().map(|(_, entry)| entry.count).sum();
        let is_majority = count >= index.count / 2;
        let Index { epoch, newest, .. } = *index;
        (!topics.is_empty()).then_some(Self { epoch, topics, newest, is_majority })
    }

    /// Reads the events after the sequence number `after`, oldest first.
    pub fn read(
        &self,
        connection: &Connection,
        after: u64,
        limit: ReadLimit,
    ) -> rusqlite::Result<Vec<Event>> {
        let mut collected = EventCollector { events: Vec::new(), bytes: 0, limit };
        if self.is_majority {
            let all = format!("{EVENT} WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence");
            let mut all = connection.prepare_cached(&all)?;
            let mut rows = all.query([after, self.newest])?;
            let mut others = 0;
            // A majority of all events may still be a minority of those after `after`.
            while others <= limit.count
                && let Some(row) = rows.next()?
            {
                match self.topics.get(&row.get(1)?) {
                    Some(topic) if !collected.push(self.event(topic, row)?) => break,
                    Some(_) => {}
                    None => others += 1,
                }
            }
        }
        if collected.events.is_empty() {
            let mut by_sequence = by_sequence(connection)?;
            for (sequence, topic) in self.next(connection, after, limit.count)? {
                let event = by_sequence.query_one([sequence], |row| self.event(topic, row))?;
                if !collected.push(event) {
                    break;
                }
            }
        }
        Ok(collected.events)
    }

    /// Returns the sequence numbers after `after` and their topics, in order: at most `count`, and
    /// at least one if there is one.
    fn next(
        &self,
        connection: &Connection,
        after: u64,
        count: usize,
    ) -> rusqlite::Result<Vec<(u64, &Topic)>> {
        let mut next = connection.prepare_cached(
            "SELECT sequence FROM events WHERE topic = ?1 AND sequence > ?2 AND sequence <= ?3
             ORDER BY sequence LIMIT ?4",
        )?;
        // With many topics, only the first few events of each are queried. The result is complete
        // only up to the last event of a topic that reached this limit.
        let of_each = if self.topics.len() == 1 { count } else { 2 * count / self.topics.len() };
        let of_each = of_each.max(1);
        let mut complete = self.newest;
        let mut found = Vec::new();
        for (row_id, topic) in &self.topics {
            let rows = next.query_map((row_id, after, complete, of_each), |row| row.get(0))?;
            let of_topic: Vec<u64> = rows.collect::<rusqlite::Result<_>>()?;
            if let (Some(&last), true) = (of_topic.last(), of_topic.len() == of_each) {
                complete = complete.min(last);
            }
            found.extend(of_topic.into_iter().map(|sequence| (sequence, topic)));
        }
        found.retain(|&(sequence, _)| sequence <= complete);
        found.sort_unstable_by_key(|&(sequence, _)| sequence);
        found.truncate(count);
        Ok(found)
    }

    /// Reads the newest events, oldest first.
    pub fn latest(&self, connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Event>> {
        let mut latest = connection.prepare_cached(
            "SELECT sequence FROM events WHERE topic = ?1 AND sequence <= ?2
             ORDER BY sequence DESC LIMIT ?3",
        )?;
        let mut found = Vec::new();
        for (row_id, topic) in &self.topics {
            let rows = latest.query_map((row_id, self.newest, limit), |row| row.get(0))?;
            for sequence in rows {
                found.push((sequence?, topic));
            }
        }
        found.sort_unstable_by_key(|&(sequence, _): &(u64, _)| sequence);
        let excess = found.len().saturating_sub(limit);
        let mut by_sequence = by_sequence(connection)?;
        let event = |(sequence, topic)| {
            by_sequence.query_one([sequence], |row: &Row<'_>| self.event(topic, row))
        };
        found.drain(excess..).map(event).collect()
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

/// Events within a limit, but at least one.
struct EventCollector {
    events: Vec<Event>,
    bytes: usize,
    limit: ReadLimit,
}

impl EventCollector {
    /// Adds the event if it fits. Returns `false` if no further event will fit.
    fn push(&mut self, event: Event) -> bool {
        self.bytes += event.data.len();
        let fits = self.bytes <= self.limit.bytes;
        if fits || self.events.is_empty() {
            self.events.push(event);
        }
        fits && self.events.len() < self.limit.count
    }
}
