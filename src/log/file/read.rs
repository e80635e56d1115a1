//! Reading, beside the writer: each read has a connection of its own for as long as it takes, and sees
//! the log as it was when it began.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{CachedStatement, Connection, OpenFlags, Row};
use tokio::sync::Semaphore;

use super::{Known, schema};
use crate::{
    event::{Event, Name, Topic},
    id::{Epoch, EventId},
    log::{LogError, ReadLimit},
    pattern::Patterns,
    timestamp::Timestamp,
};

/// How many reads there are at a time; further ones wait.
const MAX_READS: usize = 4;

/// What an event is read from. Its order is that of [`Wanted::event`].
const EVENT: &str = "SELECT sequence, topic, name, time, data FROM events";

/// The connections that read.
pub(super) struct Readers(Arc<Shared>);

struct Shared {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
    reads: Arc<Semaphore>,
}

impl Readers {
    pub fn new(file: PathBuf) -> Self {
        let reads = Arc::new(Semaphore::new(MAX_READS));
        Self(Arc::new(Shared { file, idle: Mutex::default(), reads }))
    }

    /// Closes the connections that are not reading.
    pub fn close(&self) {
        self.0.idle().clear();
    }

    /// Reads, on a thread where that may block.
    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let shared = Arc::clone(&self.0);
        let permit = Arc::clone(&self.0.reads).acquire_owned().await.map_err(LogError::new)?;
        let read = tokio::task::spawn_blocking(move || {
            // Until it is done, whoever still waits for it.
            let _permit = permit;
            let idle = shared.idle().pop();
            let connection = idle.map_or_else(|| open(&shared.file), Ok)?;
            // One transaction for all that it reads.
            let transaction = connection.unchecked_transaction()?;
            let answer = read(&transaction)?;
            transaction.finish()?;
            shared.idle().push(connection);
            Ok(answer)
        });
        read.await.map_err(LogError::new)?
    }
}

impl Shared {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // No code panics half-way through a change of what the lock holds.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(schema::BUSY)?;
    Ok(connection)
}

/// What is to be read.
pub(super) struct Wanted {
    epoch: Epoch,
    /// By their number in the file.
    topics: HashMap<i64, Topic>,
    /// Nothing after this one is read: it may be of a topic that is not among those yet.
    newest: u64,
    /// Whether these topics' events are so many of all that it is best to go through all.
    is_most: bool,
}

impl Wanted {
    /// Those topics, as far as they have events after that one; none if none has.
    pub fn after(known: &Known, topics: &Patterns, after: u64) -> Option<Self> {
        let selected = known.topics.select(topics);
        let has_more = selected.iter().filter(|(_, of_topic)| of_topic.newest > after);
        let topics: HashMap<_, _> =
            has_more.map(|(topic, of_topic)| (of_topic.place, Topic::clone(topic))).collect();
        let count: usize = selected.iter().map(|(_, of_topic)| of_topic.count).sum();
        let is_most = count >= known.count / 2;
        let Known { epoch, newest, .. } = *known;
        (!topics.is_empty()).then_some(Self { epoch, topics, newest, is_most })
    }

    /// Reads the events after that one.
    pub fn read(
        &self,
        file: &Connection,
        after: u64,
        limit: ReadLimit,
    ) -> rusqlite::Result<Vec<Event>> {
        let mut events = Taken { events: Vec::new(), bytes: 0, limit };
        if self.is_most {
            let all = format!("{EVENT} WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence");
            let mut all = file.prepare_cached(&all)?;
            let mut rows = all.query([after, self.newest])?;
            let mut others = 0;
            // They may be most of all and still few of those here.
            while others <= limit.count
                && let Some(row) = rows.next()?
            {
                match self.topics.get(&row.get(1)?) {
                    Some(topic) if !events.take(self.event(topic, row)?) => break,
                    Some(_) => {}
                    None => others += 1,
                }
            }
        }
        if events.events.is_empty() {
            let mut by_sequence = by_sequence(file)?;
            for (sequence, topic) in self.next(file, after, limit.count)? {
                let event = by_sequence.query_one([sequence], |row| self.event(topic, row))?;
                if !events.take(event) {
                    break;
                }
            }
        }
        Ok(events.events)
    }

    /// The next events after that one and their topics, in order: at most so many, and at least one if
    /// there is one.
    fn next(
        &self,
        file: &Connection,
        after: u64,
        count: usize,
    ) -> rusqlite::Result<Vec<(u64, &Topic)>> {
        let mut next = file.prepare_cached(
            "SELECT sequence FROM events WHERE topic = ?1 AND sequence > ?2 AND sequence <= ?3
             ORDER BY sequence LIMIT ?4",
        )?;
        // Of many topics, only some events of each are looked for. What is beyond the last one that was
        // found of a topic is not complete.
        let of_each = if self.topics.len() == 1 { count } else { 2 * count / self.topics.len() };
        let of_each = of_each.max(1);
        let mut complete = self.newest;
        let mut found = Vec::new();
        for (number, topic) in &self.topics {
            let rows = next.query_map((number, after, complete, of_each), |row| row.get(0))?;
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

    /// Reads the latest events, oldest first.
    pub fn latest(&self, file: &Connection, limit: usize) -> rusqlite::Result<Vec<Event>> {
        let mut latest = file.prepare_cached(
            "SELECT sequence FROM events WHERE topic = ?1 AND sequence <= ?2
             ORDER BY sequence DESC LIMIT ?3",
        )?;
        let mut found = Vec::new();
        for (number, topic) in &self.topics {
            let rows = latest.query_map((number, self.newest, limit), |row| row.get(0))?;
            for sequence in rows {
                found.push((sequence?, topic));
            }
        }
        found.sort_unstable_by_key(|&(sequence, _): &(u64, _)| sequence);
        let excess = found.len().saturating_sub(limit);
        let mut by_sequence = by_sequence(file)?;
        let event = |(sequence, topic)| {
            by_sequence.query_one([sequence], |row: &Row<'_>| self.event(topic, row))
        };
        found.drain(excess..).map(event).collect()
    }

    fn event(&self, topic: &Topic, row: &Row<'_>) -> rusqlite::Result<Event> {
        Ok(Event {
            id: EventId { epoch: self.epoch, sequence: row.get(0)? },
            topic: topic.clone(),
            // It was a name when it was written.
            name: row.get_ref(2)?.as_str()?.parse().unwrap_or_else(|_| Name::default()),
            time: Timestamp::from_millis(row.get(3)?),
            data: row.get(4)?,
        })
    }
}

fn by_sequence(file: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    file.prepare_cached(&format!("{EVENT} WHERE sequence = ?1"))
}

/// Events, as many as are within the limit, but at least one.
struct Taken {
    events: Vec<Event>,
    bytes: usize,
    limit: ReadLimit,
}

impl Taken {
    /// Adds it if it fits; false if no more will.
    fn take(&mut self, event: Event) -> bool {
        self.bytes += event.data.len();
        let fits = self.bytes <= self.limit.bytes;
        if fits || self.events.is_empty() {
            self.events.push(event);
        }
        fits && self.events.len() < self.limit.count
    }
}
