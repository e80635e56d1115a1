//! Appending events in one transaction.

use std::{
    mem,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use rusqlite::{CachedStatement, OptionalExtension as _, Transaction};

use super::super::index::Index;
use crate::{
    event::{Draft, IdempotencyKey, Topic},
    event_log::{
        store::Rejected,
        topics::{Admission, StoredEnd, TopicChanges, TopicEntry},
    },
    timestamp::Timestamp,
};

/// Number of events that one statement inserts, if as many follow one another in a topic. An event
/// then takes SQLite a third of the time.
const ROWS: usize = 16;

/// The place of a draft in the log.
pub(super) struct Placed {
    pub sequence: u64,
    pub time: Timestamp,
    /// `true` if an earlier draft with the same key, name and data has the place.
    pub is_duplicate: bool,
}

/// Events that are appended in one transaction.
pub(super) struct AppendTransaction<'a> {
    transaction: &'a Transaction<'a>,
    insert: CachedStatement<'a>,
    index: &'a Mutex<Index>,
    max_topics: usize,
    time: Timestamp,
    topics: TopicChanges,
    /// The topic of the last draft, if it is open and the log knew it before: most drafts have the
    /// topic of the one before them. `None` after each change of topics and ends.
    last: Option<Arc<TopicEntry<i64>>>,
    /// The last drafts, if they are still to be inserted. They have the topic `last` and no key.
    waiting: Vec<&'a Draft>,
    newest: u64,
}

impl<'a> AppendTransaction<'a> {
    pub fn begin(
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
        Ok(Self {
            transaction,
            insert,
            index,
            max_topics,
            time,
            topics: TopicChanges::default(),
            last: None,
            waiting: Vec::new(),
            newest,
        })
    }

    /// Appends an event. A failed insertion may be the error of a later call.
    pub fn append(&mut self, draft: &'a Draft) -> rusqlite::Result<Result<Placed, Rejected>> {
        if let Some(last) = &self.last
            && last.topic == draft.topic
            && draft.key.is_none()
            && !draft.name.is_topic_end()
        {
            self.waiting.push(draft);
            self.newest += 1;
            if self.waiting.len() == ROWS {
                self.insert_waiting()?;
            }
            let placed = Placed { sequence: self.newest, time: self.time, is_duplicate: false };
            return Ok(Ok(placed));
        }
        self.insert_waiting()?;
        self.last = None;
        let row_id = match self.topic_row(&draft.topic)? {
            Ok(row_id) => row_id,
            Err(rejected) => return Ok(Err(rejected)),
        };
        let end = self.end_of(&draft.topic);
        let duplicate = |end: &StoredEnd| {
            let (sequence, time) = (end.sequence, end.time);
            Placed { sequence, time, is_duplicate: true }
        };
        if let Some(end) = &end
            && let Some(found) = end.find_by_key(draft)
        {
            return Ok(found.map(|()| duplicate(end)));
        }
        if let Some(key) = &draft.key
            && let Some(earlier) = self.find_by_key(row_id, key, draft)?
        {
            return Ok(earlier);
        }
        if let Some(end) = end {
            match end.admit(draft) {
                Ok(Admission::New) => {}
                Ok(Admission::Duplicate) => {
                    if let Some(keyed) = end.keyed(draft) {
                        self.insert_end_key(row_id, draft)?;
                        self.topics.ends.insert(draft.topic.clone(), keyed);
                    }
                    return Ok(Ok(duplicate(&end)));
                }
                Ok(Admission::Reopening) => {
                    let reopen = "UPDATE ends SET is_reopened = 1 WHERE topic = ?1";
                    self.transaction.execute(reopen, [row_id])?;
                    self.topics.ends.insert(draft.topic.clone(), end.reopened());
                }
                Err(rejected) => return Ok(Err(rejected)),
            }
        }
        if draft.name.is_topic_end() {
            return self.append_end(row_id, draft).map(Ok);
        }
        let is_known = !self.topics.added.contains_key(&draft.topic);
        if is_known && !self.topics.ends.contains_key(&draft.topic) {
            let entry = self.index.lock().topics.get(&draft.topic);
            self.last = entry.filter(|entry| entry.end().is_none());
        }
        self.insert(row_id, draft).map(Ok)
    }

    /// Appends an event that others have decided on. `is_refused` is `true` if it is no new one.
    pub fn append_decided(
        &mut self,
        draft: &Draft,
        is_refused: bool,
    ) -> rusqlite::Result<Result<Placed, Rejected>> {
        if is_refused {
            // Nobody waits for the result.
            return Ok(Err(Rejected::KeyReused));
        }
        self.max_topics = usize::MAX;
        let row_id = match self.topic_row(&draft.topic)? {
            Ok(row_id) => row_id,
            Err(rejected) => return Ok(Err(rejected)),
        };
        if draft.name.is_topic_end() {
            return self.append_end(row_id, draft).map(Ok);
        }
        self.insert(row_id, draft).map(Ok)
    }

    /// Inserts an event. All checks have passed.
    fn insert(&mut self, row_id: i64, draft: &Draft) -> rusqlite::Result<Placed> {
        let sequence = self.newest + 1;
        self.insert_at(sequence, row_id, draft)?;
        self.newest = sequence;
        Ok(Placed { sequence, time: self.time, is_duplicate: false })
    }

    fn insert_at(&mut self, sequence: u64, row_id: i64, draft: &Draft) -> rusqlite::Result<()> {
        let Draft { name, data, key, .. } = draft;
        let (publisher, key) = key.as_ref().map(|key| (&key.publisher, &key.key)).unzip();
        let time = self.time.as_millis();
        self.insert.execute((sequence, row_id, name.as_str(), time, data, publisher, key))?;
        Ok(())
    }

    /// Inserts the drafts that wait.
    fn insert_waiting(&mut self) -> rusqlite::Result<()> {
        let Some(row_id) = self.last.as_ref().map(|last| last.place) else { return Ok(()) };
        let mut waiting = mem::take(&mut self.waiting);
        let first = self.newest + 1 - waiting.len() as u64;
        if waiting.len() == ROWS {
            let mut insert = self.transaction.prepare_cached(insert_rows())?;
            insert.raw_bind_parameter(1, row_id)?;
            insert.raw_bind_parameter(2, self.time.as_millis())?;
            insert.raw_bind_parameter(3, first)?;
            for (row, draft) in waiting.iter().enumerate() {
                insert.raw_bind_parameter(2 * row + 4, draft.name.as_str())?;
                insert.raw_bind_parameter(2 * row + 5, &draft.data)?;
            }
            insert.raw_execute()?;
        } else {
            for (sequence, draft) in (first..).zip(&waiting) {
                self.insert_at(sequence, row_id, draft)?;
            }
        }
        waiting.clear();
        self.waiting = waiting;
        Ok(())
    }

    fn append_end(&mut self, row_id: i64, draft: &Draft) -> rusqlite::Result<Placed> {
        let sequence = self.newest + 1;
        let end = StoredEnd::new(draft, sequence, self.time);
        let mut insert = self.transaction.prepare_cached(
            "INSERT OR REPLACE INTO ends (topic, sequence, time, data, is_reopened)
             VALUES (?1, ?2, ?3, ?4, 0)",
        )?;
        insert.execute((row_id, sequence, self.time.as_millis(), &end.data))?;
        self.transaction.execute("DELETE FROM end_keys WHERE topic = ?1", [row_id])?;
        self.insert_end_key(row_id, draft)?;
        self.newest = sequence;
        self.topics.ends.insert(draft.topic.clone(), end);
        Ok(Placed { sequence, time: self.time, is_duplicate: false })
    }

    /// Inserts the key of a draft that ends a topic, if it has one.
    fn insert_end_key(&self, row_id: i64, draft: &Draft) -> rusqlite::Result<()> {
        let Some(IdempotencyKey { publisher, key }) = &draft.key else { return Ok(()) };
        let insert = "INSERT OR IGNORE INTO end_keys (topic, publisher, key) VALUES (?1, ?2, ?3)";
        self.transaction.prepare_cached(insert)?.execute((row_id, publisher, key)).map(|_| ())
    }

    /// Returns the topic's newest end. The topic must not be forgotten.
    fn end_of(&self, topic: &Topic) -> Option<Arc<StoredEnd>> {
        if let Some(end) = self.topics.ends.get(topic) {
            return Some(Arc::clone(end));
        }
        let is_new = self.topics.added.contains_key(topic);
        if is_new { None } else { self.index.lock().topics.get(topic)?.end() }
    }

    /// Inserts the rest. Returns the pending changes to the topics, and the newest sequence number.
    pub fn finish(mut self) -> rusqlite::Result<(TopicChanges, u64)> {
        self.insert_waiting()?;
        Ok((self.topics, self.newest))
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
                    "UPDATE log SET forgotten = max(
                         forgotten,
                         (SELECT max(dropped, coalesce(sequence, 0))
                          FROM topics LEFT JOIN ends ON ends.topic = topics.id
                          WHERE topics.topic = ?1)
                     )",
                    [empty.as_str()],
                )?;
                for table in ["ends", "end_keys"] {
                    let delete = format!(
                        "DELETE FROM {table} WHERE topic = (SELECT id FROM topics WHERE topic = ?1)"
                    );
                    self.transaction.execute(&delete, [empty.as_str()])?;
                }
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
    ) -> rusqlite::Result<Option<Result<Placed, Rejected>>> {
        let mut find = self.transaction.prepare_cached(
            "SELECT sequence, time, name = ?4 AND data = ?5 FROM events
             WHERE topic = ?1 AND publisher = ?2 AND key = ?3 AND key IS NOT NULL",
        )?;
        let parameters = (row_id, &key.publisher, &key.key, draft.name.as_str(), &draft.data);
        let found = find.query_one(parameters, |row| {
            let sequence = row.get(0)?;
            // The event may be damaged.
            let (Ok(time), Ok(true)) = (row.get(1), row.get(2)) else {
                return Ok(Err(Rejected::KeyReused));
            };
            let time = Timestamp::from_millis(time);
            Ok(Ok(Placed { sequence, time, is_duplicate: true }))
        });
        found.optional()
    }
}

/// The statement that inserts [`ROWS`] events of a topic. Its parameters are the topic's row id,
/// the time, the first sequence number, and then the name and the data of each event.
fn insert_rows() -> &'static str {
    static INSERT: LazyLock<String> = LazyLock::new(|| {
        let row = |row| format!("(?3 + {row}, ?1, ?{}, ?2, ?{})", 2 * row + 4, 2 * row + 5);
        let rows: Vec<_> = (0..ROWS).map(row).collect();
        format!("INSERT INTO events (sequence, topic, name, time, data) VALUES {}", rows.join(", "))
    });
    &INSERT
}
