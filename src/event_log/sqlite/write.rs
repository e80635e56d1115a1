//! Writing: the one thread that appends events and, between two appends, drops those that exceed
//! the retention.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::{
    CachedStatement, Connection, OptionalExtension as _, Transaction, TransactionBehavior,
};
use tokio::sync::{oneshot, watch};

use super::{files, index::Index, life_file::LifeFile, schema};
use crate::{
    event::{Draft, Event, IdempotencyKey, Topic},
    event_log::{
        retention::Retention,
        store::{Appended, EventLogError, Rejected},
        topics::TopicChanges,
    },
    timestamp::Timestamp,
};

/// Interval of tidying up while few events are appended.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum interval of tidying up.
const MIN_TIDY_INTERVAL: Duration = Duration::from_millis(100);
/// Volume of appends that makes tidying up urgent.
const URGENT: AppendVolume = AppendVolume { events: 1000, bytes: 8 << 20 };
/// Number of events that are dropped at a time, unless more than half as many were appended in the
/// meantime.
const SLICE: usize = 500;
/// Approximate size of an event in the file without its data, in bytes.
const OVERHEAD: usize = 64;
/// Number of unused pages that are returned to the file system at a time.
const VACUUM_PAGES: usize = 1000;
/// Size of SQLite's journal above which the writer forces a checkpoint in spite of readers.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;
/// Timeout of a forced checkpoint.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(50);

/// A command to the writer, with the channel for its reply.
pub(super) enum Command {
    Append {
        drafts: Vec<Draft>,
        time: Timestamp,
        reply: oneshot::Sender<Result<Vec<Result<Appended, Rejected>>, EventLogError>>,
    },
    #[cfg(test)]
    Tidy(oneshot::Sender<()>),
    #[cfg(test)]
    LimitPages { pages: Option<u32>, reply: oneshot::Sender<()> },
}

/// The only connection that writes to the database.
pub(super) struct Writer {
    connection: Connection,
    life_file: LifeFile,
    /// The file that SQLite writes before the database.
    journal: PathBuf,
    index: Arc<Mutex<Index>>,
    retention: Retention,
    now: Box<dyn Fn() -> Timestamp + Send>,
    /// Notified when events are no longer being dropped.
    dropped: watch::Sender<()>,
    /// Volume of the appends since the last tidying up.
    appended: AppendVolume,
    tidied: Instant,
    /// `true` if the last tidying up did not drop all the excess.
    is_untidy: bool,
}

#[derive(Clone, Copy, Default)]
struct AppendVolume {
    events: usize,
    bytes: usize,
}

impl Writer {
    pub fn new(
        connection: Connection,
        life_file: LifeFile,
        index: Arc<Mutex<Index>>,
        retention: Retention,
        now: impl Fn() -> Timestamp + Send + 'static,
        dropped: watch::Sender<()>,
    ) -> Self {
        let journal = files::beside(&life_file.database, "-wal");
        Self {
            connection,
            life_file,
            journal,
            index,
            retention,
            now: Box::new(now),
            dropped,
            appended: AppendVolume::default(),
            tidied: Instant::now(),
            is_untidy: true,
        }
    }

    /// Executes commands until the last sender is dropped.
    pub fn run(mut self, commands: &Receiver<Command>) {
        loop {
            match commands.recv_timeout(self.until_tidy()) {
                Ok(Command::Append { drafts, time, reply }) => {
                    // The caller may have stopped waiting.
                    let _ = reply.send(self.append(drafts, time).map_err(EventLogError::from));
                }
                #[cfg(test)]
                Ok(Command::Tidy(reply)) => {
                    self.is_untidy = true;
                    while self.is_untidy {
                        self.tidy();
                    }
                    let _ = reply.send(());
                }
                #[cfg(test)]
                Ok(Command::LimitPages { pages, reply }) => {
                    let pages = pages.unwrap_or(u32::MAX - 1);
                    self.connection.pragma_update(None, "max_page_count", pages).unwrap();
                    let _ = reply.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.until_tidy().is_zero() {
                self.tidy();
            }
        }
    }

    fn append(
        &mut self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> rusqlite::Result<Vec<Result<Appended, Rejected>>> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut append =
            AppendTransaction::begin(&transaction, &self.index, self.retention.topics, time)?;
        let mut results = Vec::with_capacity(drafts.len());
        for draft in drafts {
            results.push(append.append(draft)?);
        }
        let (TopicChanges { added, forgotten, .. }, newest) = append.finish();
        transaction.commit()?;

        let index = &mut *self.index.lock();
        for topic in &forgotten {
            index.topics.forget(topic);
        }
        for (topic, row_id) in added {
            index.topics.add(topic, row_id);
        }
        for appended in results.iter().flatten() {
            if let Appended { event: Event { topic, id, data, .. }, is_duplicate: false } = appended
                && let Some(entry) = index.topics.get(topic)
            {
                entry.add(1, id.sequence);
                index.count += 1;
                self.appended.events += 1;
                self.appended.bytes += data.len();
            }
        }
        if newest > index.newest {
            index.newest = newest;
            index.ages.add(newest, time);
        }
        self.life_file.record(newest);
        Ok(results)
    }

    /// Returns the time until the next tidying up.
    fn until_tidy(&self) -> Duration {
        let AppendVolume { events, bytes } = self.appended;
        let is_urgent = self.is_untidy || events >= URGENT.events || bytes >= URGENT.bytes;
        let interval = if is_urgent { MIN_TIDY_INTERVAL } else { TIDY_INTERVAL };
        interval.saturating_sub(self.tidied.elapsed())
    }

    fn tidy(&mut self) {
        let slice = SLICE.max(2 * self.appended.events);
        match self.drop_excess(slice) {
            Ok(dropped) => self.is_untidy = dropped == slice,
            Err(error) => {
                self.is_untidy = false;
                tracing::warn!(%error, "old events could not be dropped from the event log");
            }
        }
        self.appended = AppendVolume::default();
        self.tidied = Instant::now();
    }

    /// Drops events that exceed the retention, at most `slice`, and returns their number.
    fn drop_excess(&mut self, slice: usize) -> rusqlite::Result<usize> {
        let excess = self.excess(slice)?;
        self.cut_journal()?;
        if excess.len() < slice {
            self.release_pages()?;
        }
        if excess.is_empty() {
            return Ok(0);
        }
        let mut dropping: HashMap<Topic, u64> = HashMap::new();
        for (sequence, topic) in &excess {
            let newest = dropping.entry(topic.clone()).or_default();
            *newest = (*sequence).max(*newest);
        }
        // Readers see the index and the database at different moments, so they wait meanwhile.
        let dropping = Arc::new(dropping);
        self.index.lock().dropping = Arc::clone(&dropping);
        let result = self.delete(&excess, &dropping);
        {
            let index = &mut *self.index.lock();
            index.dropping = Arc::default();
            if let Ok(oldest) = &result {
                for (topic, newest) in dropping.iter() {
                    if let Some(entry) = index.topics.get(topic) {
                        entry.set_dropped(*newest);
                    }
                }
                for (_, topic) in &excess {
                    if let Some(entry) = index.topics.get(topic) {
                        entry.remove();
                        index.count -= 1;
                    }
                }
                index.start = oldest.map_or(index.newest, |oldest| oldest - 1);
                index.ages.forget(index.start);
            }
        }
        // There may be no log to be read any more.
        let _ = self.dropped.send(());
        result.map(|_| excess.len())
    }

    /// Deletes events, of which `newest` has the newest of each topic. Returns the sequence number
    /// of the oldest event that is left.
    fn delete(
        &mut self,
        events: &[(u64, Topic)],
        newest: &HashMap<Topic, u64>,
    ) -> rusqlite::Result<Option<u64>> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM events WHERE sequence = ?1")?;
            for (sequence, _) in events {
                delete.execute([sequence])?;
            }
            let mut update =
                transaction.prepare_cached("UPDATE topics SET dropped = ?2 WHERE topic = ?1")?;
            for (topic, sequence) in newest {
                update.execute((topic.as_str(), sequence))?;
            }
        }
        let oldest =
            transaction.query_one("SELECT min(sequence) FROM events", [], |row| row.get(0))?;
        transaction.commit()?;
        Ok(oldest)
    }

    /// Returns events that exceed the retention, at most `limit`, each once.
    fn excess(&self, limit: usize) -> rusqlite::Result<Vec<(u64, Topic)>> {
        let mut excess = Vec::new();
        let mut seen = HashSet::new();
        let over_count: Vec<(i64, Topic, usize)> = {
            let all = self.index.lock().topics.all();
            let over = all.iter().filter_map(|entry| {
                let over = entry.count().checked_sub(self.retention.count_of(&entry.topic))?;
                (over > 0).then(|| (entry.place, entry.topic.clone(), over))
            });
            over.collect()
        };
        let mut oldest = self.connection.prepare_cached(
            "SELECT sequence FROM events WHERE topic = ?1 ORDER BY sequence LIMIT ?2",
        )?;
        for (row_id, topic, over) in over_count {
            let count = over.min(limit - excess.len());
            for sequence in oldest.query_map((row_id, count), |row| row.get(0))? {
                let sequence = sequence?;
                seen.insert(sequence);
                excess.push((sequence, topic.clone()));
            }
        }

        let too_old = self.index.lock().ages.newest_too_old((self.now)());
        let mut over_bytes = self.used_bytes()?.saturating_sub(self.retention.bytes);
        let mut oldest = self.connection.prepare_cached(
            "SELECT sequence, topics.topic, octet_length(data)
             FROM events JOIN topics ON topics.id = events.topic ORDER BY sequence",
        )?;
        let mut rows = oldest.query([])?;
        while excess.len() < limit
            && let Some(row) = rows.next()?
        {
            let sequence: u64 = row.get(0)?;
            if sequence > too_old && over_bytes == 0 {
                break;
            }
            over_bytes = over_bytes.saturating_sub(row.get::<_, usize>(2)? + OVERHEAD);
            // The topic was valid when it was written.
            if let (true, Ok(topic)) = (seen.insert(sequence), row.get_ref(1)?.as_str()?.parse()) {
                excess.push((sequence, topic));
            }
        }
        Ok(excess)
    }

    /// Returns the size of the used pages of the file.
    fn used_bytes(&self) -> rusqlite::Result<usize> {
        let pages = self.pragma("page_count")? - self.pragma("freelist_count")?;
        Ok(pages * self.pragma("page_size")?)
    }

    /// Forces the checkpoint that SQLite postpones as long as any reader is active.
    fn cut_journal(&self) -> rusqlite::Result<()> {
        if self.journal.metadata().is_ok_and(|journal| journal.len() > MAX_JOURNAL_BYTES) {
            self.connection.busy_timeout(CHECKPOINT_TIMEOUT)?;
            let cut = self.connection.query_one("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.connection.busy_timeout(schema::BUSY_TIMEOUT)?;
            if let Err(error) = cut {
                tracing::warn!(%error, "the event log's journal could not be cut");
            }
        }
        Ok(())
    }

    /// Returns unused pages to the file system if they are more than a quarter of the file.
    fn release_pages(&self) -> rusqlite::Result<()> {
        let (unused, all) = (self.pragma("freelist_count")?, self.pragma("page_count")?);
        if unused > VACUUM_PAGES && unused > all / 4 {
            let vacuum = format!("PRAGMA incremental_vacuum({VACUUM_PAGES})");
            let mut vacuum = self.connection.prepare(&vacuum)?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<usize> {
        self.connection.pragma_query_value(None, name, |row| row.get(0))
    }
}

/// Events that are appended in one transaction.
struct AppendTransaction<'a> {
    transaction: &'a Transaction<'a>,
    insert: CachedStatement<'a>,
    index: &'a Mutex<Index>,
    max_topics: usize,
    time: Timestamp,
    topics: TopicChanges,
    newest: u64,
}

impl<'a> AppendTransaction<'a> {
    fn begin(
        transaction: &'a Transaction<'a>,
        index: &'a Mutex<Index>,
        max_topics: usize,
        time: Timestamp,
    ) -> rusqlite::Result<Self> {
        let insert = transaction.prepare_cached(
            "INSERT INTO events (sequence, topic, name, time, data, publisher, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let newest = index.lock().newest;
        let topics = TopicChanges::default();
        Ok(Self { transaction, insert, index, max_topics, time, topics, newest })
    }

    fn append(&mut self, draft: Draft) -> rusqlite::Result<Result<Appended, Rejected>> {
        let row_id = match self.topic_row(&draft.topic)? {
            Ok(row_id) => row_id,
            Err(rejected) => return Ok(Err(rejected)),
        };
        if let Some(key) = &draft.key
            && let Some(earlier) = self.find_by_key(row_id, key, &draft)?
        {
            return Ok(earlier);
        }
        let Draft { topic, name, data, key } = draft;
        let sequence = self.newest + 1;
        let (publisher, key) = key.map(|key| (key.publisher, key.key)).unzip();
        let time = self.time.as_millis();
        self.insert.execute((sequence, row_id, name.as_str(), time, &data, publisher, key))?;
        self.newest = sequence;
        let id = self.index.lock().id(sequence);
        let event = Event { id, topic, name, data, time: self.time };
        Ok(Ok(Appended { event, is_duplicate: false }))
    }

    /// Returns the pending changes to the topics, and the newest sequence number.
    fn finish(self) -> (TopicChanges, u64) {
        (self.topics, self.newest)
    }

    /// Returns the topic's row id. Inserts the topic if it is new.
    fn topic_row(&mut self, topic: &Topic) -> rusqlite::Result<Result<i64, Rejected>> {
        let changes = &mut self.topics;
        if let Some(row_id) = changes.added.get(topic) {
            return Ok(Ok(*row_id));
        }
        let to_forget = {
            let Index { topics, .. } = &*self.index.lock();
            let entry = topics.get(topic).filter(|_| !changes.forgotten.contains(topic));
            if let Some(entry) = entry {
                if entry.count() == 0 {
                    changes.used.insert(topic.clone());
                }
                return Ok(Ok(entry.place));
            }
            topics.to_forget(topic, self.max_topics, changes)
        };
        match to_forget {
            Ok(None) => {}
            Ok(Some(empty)) => {
                self.transaction.execute(
                    "UPDATE log SET forgotten =
                         max(forgotten, (SELECT dropped FROM topics WHERE topic = ?1))",
                    [empty.as_str()],
                )?;
                let delete = "DELETE FROM topics WHERE topic = ?1";
                self.transaction.execute(delete, [empty.as_str()])?;
                changes.forgotten.insert(empty);
            }
            Err(rejected) => return Ok(Err(rejected)),
        }
        let row_id = self.transaction.query_one(
            "INSERT INTO topics (topic, dropped) SELECT ?1, forgotten FROM log RETURNING id",
            [topic.as_str()],
            |row| row.get(0),
        )?;
        changes.added.insert(topic.clone(), row_id);
        Ok(Ok(row_id))
    }

    /// Returns the outcome for a draft whose key was used before, or `None` if the key is new.
    fn find_by_key(
        &self,
        row_id: i64,
        key: &IdempotencyKey,
        draft: &Draft,
    ) -> rusqlite::Result<Option<Result<Appended, Rejected>>> {
        let mut find = self.transaction.prepare_cached(
            "SELECT sequence, time, name = ?4 AND data = ?5 FROM events
             WHERE topic = ?1 AND publisher = ?2 AND key = ?3 AND key IS NOT NULL",
        )?;
        let Draft { topic, name, data, .. } = draft;
        let parameters = (row_id, &key.publisher, &key.key, name.as_str(), data);
        let found = find.query_one(parameters, |row| {
            let (sequence, time, is_same): (u64, u64, bool) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let event = Event {
                id: self.index.lock().id(sequence),
                topic: topic.clone(),
                name: name.clone(),
                data: data.clone(),
                time: Timestamp::from_millis(time),
            };
            let duplicate = Appended { event, is_duplicate: true };
            Ok(is_same.then_some(duplicate).ok_or(Rejected::KeyReused))
        });
        found.optional()
    }
}
