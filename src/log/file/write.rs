//! Writing: the one thread that appends to the file, and, between two appends, drops what is over the
//! retention.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use rusqlite::{
    CachedStatement, Connection, OptionalExtension as _, Transaction, TransactionBehavior,
};
use tokio::sync::oneshot;

use super::{Index, Known, Life, life, schema};
use crate::{
    event::{Event, Topic},
    log::{
        Appended, Draft, IdempotencyKey, LogError, Refused, Retention,
        topics::{Changes, NoRoom},
    },
    timestamp::Timestamp,
};

/// How often the log is tidied up when little comes.
const TIDY: Duration = Duration::from_secs(10);
/// How often at most.
const TIDY_AT_MOST: Duration = Duration::from_millis(100);
/// After so many events or bytes it is tidied up sooner.
const MANY: Appends = Appends { events: 1000, bytes: 8 << 20 };
/// How many events are dropped at a time, if no more than half of that came in the meantime.
const SLICE: usize = 500;
/// What an event takes in the file besides its data, about, in bytes.
const AROUND_THE_DATA: usize = 64;
/// How many pages are given back to the system at a time.
const VACUUM: usize = 1000;
/// Above this, SQLite's journal is written to the database whoever reads.
const JOURNAL_BYTES: u64 = 64 << 20;
/// How long that may take at a time.
const JOURNAL_WAIT: Duration = Duration::from_millis(50);

pub(super) enum Write {
    Append {
        drafts: Vec<Draft>,
        answer: oneshot::Sender<Result<Vec<Result<Appended, Refused>>, LogError>>,
    },
    #[cfg(test)]
    Tidy(oneshot::Sender<()>),
    #[cfg(test)]
    LimitPages { pages: Option<u32>, answer: oneshot::Sender<()> },
}

pub(super) struct Writer {
    file: Connection,
    journal: PathBuf,
    identity: [u64; 2],
    life: Life,
    index: Arc<Index>,
    retention: Retention,
    now: Box<dyn Fn() -> Timestamp + Send>,
    /// Since it was last tidied up.
    appended: Appends,
    tidied: Instant,
    /// Whether there is more to drop than was dropped then.
    is_untidy: bool,
}

#[derive(Clone, Copy, Default)]
struct Appends {
    events: usize,
    bytes: usize,
}

impl Writer {
    pub fn new(
        connection: Connection,
        life: Life,
        file: &Path,
        index: Arc<Index>,
        retention: Retention,
        now: impl Fn() -> Timestamp + Send + 'static,
    ) -> io::Result<Self> {
        let identity = life::identity(file)?;
        life.reached(identity, index.lock().newest);
        life.sync()?;
        let mut journal = file.as_os_str().to_owned();
        journal.push("-wal");
        Ok(Self {
            file: connection,
            journal: journal.into(),
            identity,
            life,
            index,
            retention,
            now: Box::new(now),
            appended: Appends::default(),
            tidied: Instant::now(),
            is_untidy: true,
        })
    }

    /// Writes until nobody can ask for it any more.
    pub fn run(mut self, waiting: &Receiver<Write>) {
        loop {
            match waiting.recv_timeout(self.until_tidy()) {
                Ok(Write::Append { drafts, answer }) => {
                    // Who has asked may be gone.
                    let _ = answer.send(self.append(drafts).map_err(LogError::from));
                }
                #[cfg(test)]
                Ok(Write::Tidy(answer)) => {
                    self.is_untidy = true;
                    while self.is_untidy {
                        self.tidy();
                    }
                    let _ = answer.send(());
                }
                #[cfg(test)]
                Ok(Write::LimitPages { pages, answer }) => {
                    let pages = pages.unwrap_or(u32::MAX - 1);
                    self.file.pragma_update(None, "max_page_count", pages).unwrap();
                    let _ = answer.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.until_tidy().is_zero() {
                self.tidy();
            }
        }
    }

    fn append(&mut self, drafts: Vec<Draft>) -> rusqlite::Result<Vec<Result<Appended, Refused>>> {
        let transaction = self.file.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch::begin(&transaction, &self.index, self.retention.topics)?;
        let mut answers = Vec::with_capacity(drafts.len());
        for draft in drafts {
            answers.push(batch.append(draft)?);
        }
        let (Changes { added, forgotten, .. }, newest) = batch.end();
        transaction.commit()?;

        let mut known = self.index.lock();
        for topic in &forgotten {
            known.topics.forget(topic);
        }
        for (topic, number) in added {
            known.topics.add(topic, number);
        }
        for answer in &answers {
            if let Ok(Appended::New(Event { topic, id, data, .. })) = answer
                && let Some(of_topic) = known.topics.get_mut(topic)
            {
                of_topic.count += 1;
                of_topic.newest = id.sequence;
                known.count += 1;
                self.appended.events += 1;
                self.appended.bytes += data.len();
            }
        }
        known.newest = newest;
        drop(known);
        self.life.reached(self.identity, newest);
        Ok(answers)
    }

    /// How long there is time until the log is to be tidied up.
    fn until_tidy(&self) -> Duration {
        let Appends { events, bytes } = self.appended;
        let is_urgent = self.is_untidy || events >= MANY.events || bytes >= MANY.bytes;
        let due = if is_urgent { TIDY_AT_MOST } else { TIDY };
        due.saturating_sub(self.tidied.elapsed())
    }

    fn tidy(&mut self) {
        let slice = SLICE.max(2 * self.appended.events);
        match self.drop_excess(slice) {
            Ok(dropped) => self.is_untidy = dropped == slice,
            Err(error) => {
                self.is_untidy = false;
                tracing::warn!(%error, "what is too old could not be dropped from the log");
            }
        }
        self.appended = Appends::default();
        self.tidied = Instant::now();
    }

    /// Drops what is over the retention, at most `slice` events; how many were dropped.
    fn drop_excess(&mut self, slice: usize) -> rusqlite::Result<usize> {
        let excess = self.excess(slice)?;
        self.cut_journal()?;
        if excess.len() < slice {
            self.give_back()?;
        }
        if excess.is_empty() {
            return Ok(0);
        }
        // Told before it is true, so that nobody misses an event without being told.
        let mut dropped: HashMap<&Topic, u64> = HashMap::new();
        for (sequence, topic) in &excess {
            let of_topic = dropped.entry(topic).or_default();
            *of_topic = (*sequence).max(*of_topic);
        }
        {
            let mut known = self.index.lock();
            for (topic, sequence) in &dropped {
                if let Some(of_topic) = known.topics.get_mut(topic) {
                    of_topic.dropped = of_topic.dropped.max(*sequence);
                }
            }
        }
        let transaction = self.file.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut delete =
                transaction.prepare_cached("DELETE FROM events WHERE sequence = ?1")?;
            for (sequence, _) in &excess {
                delete.execute([sequence])?;
            }
            let mut note =
                transaction.prepare_cached("UPDATE topics SET dropped = ?2 WHERE topic = ?1")?;
            for (topic, sequence) in &dropped {
                note.execute((topic.as_str(), sequence))?;
            }
        }
        let oldest: Option<u64> =
            transaction.query_one("SELECT min(sequence) FROM events", [], |row| row.get(0))?;
        transaction.commit()?;

        let mut known = self.index.lock();
        for (_, topic) in &excess {
            if let Some(of_topic) = known.topics.get_mut(topic) {
                of_topic.count -= 1;
                known.count -= 1;
            }
        }
        known.start = oldest.map_or(known.newest, |oldest| oldest - 1);
        Ok(excess.len())
    }

    /// Events that are over the retention, at most so many, none twice.
    fn excess(&self, limit: usize) -> rusqlite::Result<Vec<(u64, Topic)>> {
        let mut excess = Vec::new();
        let mut seen = HashSet::new();
        let over_count: Vec<(i64, Topic, usize)> = {
            let known = self.index.lock();
            let over = known.topics.iter().filter_map(|(topic, of_topic)| {
                let over = of_topic.count.checked_sub(self.retention.count_of(topic))?;
                (over > 0).then(|| (of_topic.place, topic.clone(), over))
            });
            over.collect()
        };
        let mut oldest = self.file.prepare_cached(
            "SELECT sequence FROM events WHERE topic = ?1 ORDER BY sequence LIMIT ?2",
        )?;
        for (number, topic, over) in over_count {
            let room = over.min(limit - excess.len());
            for sequence in oldest.query_map((number, room), |row| row.get(0))? {
                let sequence = sequence?;
                seen.insert(sequence);
                excess.push((sequence, topic.clone()));
            }
        }

        let cut = (self.now)().as_millis().saturating_sub(millis(self.retention.age));
        let mut over_bytes = self.used_bytes()?.saturating_sub(self.retention.bytes);
        let mut oldest = self.file.prepare_cached(
            "SELECT sequence, topics.topic, time, octet_length(data)
             FROM events JOIN topics ON topics.id = events.topic ORDER BY sequence",
        )?;
        let mut rows = oldest.query([])?;
        while excess.len() < limit
            && let Some(row) = rows.next()?
        {
            let (sequence, time): (u64, u64) = (row.get(0)?, row.get(2)?);
            if time >= cut && over_bytes == 0 {
                break;
            }
            over_bytes = over_bytes.saturating_sub(row.get::<_, usize>(3)? + AROUND_THE_DATA);
            // It was a topic when it was written.
            if let (true, Ok(topic)) = (seen.insert(sequence), row.get_ref(1)?.as_str()?.parse()) {
                excess.push((sequence, topic));
            }
        }
        Ok(excess)
    }

    /// How many bytes of the file are in use.
    fn used_bytes(&self) -> rusqlite::Result<usize> {
        let pages = self.pragma("page_count")? - self.pragma("freelist_count")?;
        Ok(pages * self.pragma("page_size")?)
    }

    /// Does what SQLite puts off as long as there is always somebody who reads: waits a little for them.
    fn cut_journal(&self) -> rusqlite::Result<()> {
        if self.journal.metadata().is_ok_and(|journal| journal.len() > JOURNAL_BYTES) {
            self.file.busy_timeout(JOURNAL_WAIT)?;
            let cut = self.file.query_one("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.file.busy_timeout(schema::BUSY)?;
            if let Err(error) = cut {
                tracing::warn!(%error, "the log's journal could not be cut");
            }
        }
        Ok(())
    }

    /// Gives back to the system what is no longer in use, if that is much.
    fn give_back(&self) -> rusqlite::Result<()> {
        let (unused, all) = (self.pragma("freelist_count")?, self.pragma("page_count")?);
        if unused > VACUUM && unused > all / 4 {
            let mut vacuum = self.file.prepare(&format!("PRAGMA incremental_vacuum({VACUUM})"))?;
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<usize> {
        self.file.pragma_query_value(None, name, |row| row.get(0))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Events that are being appended together.
struct Batch<'a> {
    transaction: &'a Transaction<'a>,
    insert: CachedStatement<'a>,
    index: &'a Index,
    max_topics: usize,
    topics: Changes,
    newest: u64,
}

impl<'a> Batch<'a> {
    fn begin(
        transaction: &'a Transaction<'a>,
        index: &'a Index,
        max_topics: usize,
    ) -> rusqlite::Result<Self> {
        let insert = transaction.prepare_cached(
            "INSERT INTO events (sequence, topic, name, time, data, publisher, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let newest = index.lock().newest;
        Ok(Self { transaction, insert, index, max_topics, topics: Changes::default(), newest })
    }

    fn append(&mut self, draft: Draft) -> rusqlite::Result<Result<Appended, Refused>> {
        let number = match self.number(&draft.topic)? {
            Ok(number) => number,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(key) = &draft.key
            && let Some(known) = self.known(number, key, &draft)?
        {
            return Ok(known);
        }
        let Draft { topic, name, data, time, key } = draft;
        let sequence = self.newest + 1;
        let (publisher, key) = key.map(|key| (key.publisher, key.key)).unzip();
        self.insert.execute((
            sequence,
            number,
            name.as_str(),
            time.as_millis(),
            &data,
            publisher,
            key,
        ))?;
        self.newest = sequence;
        let id = self.index.lock().id(sequence);
        Ok(Ok(Appended::New(Event { id, topic, name, data, time })))
    }

    /// What has happened to the topics, and the newest sequence number.
    fn end(self) -> (Changes, u64) {
        (self.topics, self.newest)
    }

    /// The topic's number in the file, where it is entered if it is new.
    fn number(&mut self, topic: &Topic) -> rusqlite::Result<Result<i64, Refused>> {
        let changes = &mut self.topics;
        if let Some(number) = changes.added.get(topic) {
            return Ok(Ok(*number));
        }
        let to_forget = {
            let Known { topics, .. } = &*self.index.lock();
            let known = topics.get(topic).filter(|_| !changes.forgotten.contains(topic));
            if let Some(of_topic) = known {
                if of_topic.count == 0 {
                    changes.used.insert(topic.clone());
                }
                return Ok(Ok(of_topic.place));
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
            Err(NoRoom) => return Ok(Err(Refused::TooManyTopics)),
        }
        let number = self.transaction.query_one(
            "INSERT INTO topics (topic, dropped) SELECT ?1, forgotten FROM log RETURNING id",
            [topic.as_str()],
            |row| row.get(0),
        )?;
        changes.added.insert(topic.clone(), number);
        Ok(Ok(number))
    }

    /// What came with that key before, if anything did.
    fn known(
        &self,
        number: i64,
        key: &IdempotencyKey,
        draft: &Draft,
    ) -> rusqlite::Result<Option<Result<Appended, Refused>>> {
        let mut known = self.transaction.prepare_cached(
            "SELECT sequence, time, name = ?4 AND data = ?5 FROM events
             WHERE topic = ?1 AND publisher = ?2 AND key = ?3 AND key IS NOT NULL",
        )?;
        let Draft { topic, name, data, .. } = draft;
        let parameters = (number, &key.publisher, &key.key, name.as_str(), data);
        let known = known.query_one(parameters, |row| {
            let (sequence, time, is_same): (u64, u64, bool) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let event = Event {
                id: self.index.lock().id(sequence),
                topic: topic.clone(),
                name: name.clone(),
                data: data.clone(),
                time: Timestamp::from_millis(time),
            };
            Ok(is_same.then_some(Appended::Known(event)).ok_or(Refused::KeyTaken))
        });
        known.optional()
    }
}
