//! The log of a single process that becomes the beginning of a cluster: its content in parts, and
//! their arrival in a mirror.

use std::{collections::HashMap, sync::Arc, time::Instant};

use rusqlite::{Row, Transaction};

use super::{
    super::{index::Index, mirror::EntryStep},
    Writer,
    snapshot::{insert_topic, snapshot_topic},
};
use crate::{
    event::{IdempotencyKey, Name, Topic},
    event_log::{
        entry::{
            EntryOutcome, ImportId, ImportPart, ImportedEvent, SnapshotEnd, SnapshotTopic, digest,
        },
        store::EventLogError,
        topics::StoredEnd,
    },
    timestamp::Timestamp,
};

/// The content of the log of a single process, without its events.
pub struct ImportContent {
    pub id: ImportId,
    /// The newest sequence number, which is the place before the first topic.
    newest: u64,
    forgotten: u64,
    topics: Vec<SnapshotTopic>,
    /// Number of events that are damaged.
    pub damaged: usize,
}

impl ImportContent {
    /// Returns the place at the end of the content.
    pub fn end(&self) -> u64 {
        self.newest + self.topics.len() as u64
    }
}

impl Writer {
    /// Describes the content of a log. Damaged events are not part of it, and count as dropped.
    pub fn import_content(&self) -> Result<ImportContent, EventLogError> {
        self.describe().map_err(|error| self.classify(error))
    }

    fn describe(&self) -> rusqlite::Result<ImportContent> {
        let (epoch, newest, all) = {
            let Index { epoch, newest, topics, .. } = &*self.shared.index.lock();
            (epoch.to_string(), *newest, topics.all())
        };
        let mut forgotten =
            self.connection.query_row("SELECT forgotten FROM log", [], |row| row.get(0))?;
        let mut topics = all
            .iter()
            .map(|entry| snapshot_topic(&self.connection, &entry.topic))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        topics.sort_unstable_by(|a, b| a.topic.cmp(&b.topic));
        let (mut count, mut damaged) = (0_u64, 0);
        let mut select = self.connection.prepare(SELECT_EVENTS)?;
        let mut rows = select.query([0])?;
        while let Some(row) = rows.next()? {
            let Err((sequence, topic)) = read_event(row)? else {
                count += 1;
                continue;
            };
            damaged += 1;
            let known = topics.iter_mut().find(|known| Some(&known.topic) == topic.as_ref());
            let dropped = known.map_or(&mut forgotten, |topic| &mut topic.dropped);
            *dropped = sequence.max(*dropped);
        }
        // Serialization cannot fail: the keys of all maps are strings.
        let content = serde_json::to_vec(&(newest, forgotten, count, &topics)).unwrap_or_default();
        let id = ImportId { epoch, digest: digest(&content) };
        Ok(ImportContent { id, newest, forgotten, topics, damaged })
    }

    /// Returns the part of the content after a place, whose items have about `size` bytes as JSON
    /// without the last of them.
    pub fn import_part(
        &self,
        content: &ImportContent,
        after: u64,
        size: usize,
    ) -> Result<ImportPart, EventLogError> {
        self.part(content, after, size).map_err(|error| self.classify(error))
    }

    fn part(
        &self,
        content: &ImportContent,
        after: u64,
        size: usize,
    ) -> rusqlite::Result<ImportPart> {
        let ImportContent { id, newest, forgotten, topics, .. } = content;
        let mut part = ImportPart {
            log: id.clone(),
            after,
            up_to: after,
            events: Vec::new(),
            topics: Vec::new(),
            forgotten: None,
        };
        let mut left = size;
        if after < *newest {
            let mut select = self.connection.prepare_cached(SELECT_EVENTS)?;
            let mut rows = select.query([after])?;
            while left > 0
                && let Some(row) = rows.next()?
            {
                let Ok(event) = read_event(row)? else { continue };
                let bytes = serde_json::to_vec(&event).unwrap_or_default().len();
                left = left.saturating_sub(bytes + 1);
                part.up_to = event.sequence;
                part.events.push(event);
            }
            if left == 0 {
                return Ok(part);
            }
            part.up_to = *newest;
        }
        let sent = usize::try_from(part.up_to - newest).unwrap_or(usize::MAX);
        for topic in topics.iter().skip(sent) {
            if left == 0 {
                return Ok(part);
            }
            let bytes = serde_json::to_vec(topic).unwrap_or_default().len();
            left = left.saturating_sub(bytes + 1);
            part.up_to += 1;
            part.topics.push(topic.clone());
        }
        part.forgotten = Some(*forgotten);
        Ok(part)
    }

    /// Adds a part to a mirror.
    pub(super) fn apply_import(
        &mut self,
        step: EntryStep<'_>,
        part: &ImportPart,
    ) -> Result<EntryOutcome, EventLogError> {
        let mut added = Added { topics: HashMap::new(), is_new: Vec::new() };
        let known = |topic: &Topic| {
            let entry = self.shared.index.lock().topics.get(topic);
            entry.map(|entry| entry.place)
        };
        let mut known: HashMap<Topic, i64> = topics_of(part)
            .filter_map(|topic| {
                let place = known(&topic)?;
                Some((topic, place))
            })
            .collect();
        self.advance(step, |transaction| insert(transaction, part, &mut known, &mut added))?;
        self.topic_bytes.set(None);
        let newest = {
            let index = &mut *self.shared.index.lock();
            added.note(part, index);
            index.newest
        };
        self.life_file.record(newest);
        self.committed = Some(Instant::now());
        if let Some(mirror) = &mut self.mirror {
            mirror.import = Some(part.progress());
            mirror.is_importing = true;
            *self.shared.mirrored.lock() = Some(mirror.mirrored());
        }
        Ok(EntryOutcome::Imported)
    }
}

const SELECT_EVENTS: &str = "SELECT sequence, topics.topic, name, time, data, publisher, key
     FROM events LEFT JOIN topics ON topics.id = events.topic
     WHERE sequence > ?1 ORDER BY sequence";

/// Reads an event. Of a damaged one, returns the sequence number and the topic, if it has one.
fn read_event(row: &Row<'_>) -> rusqlite::Result<Result<ImportedEvent, (u64, Option<String>)>> {
    let sequence: u64 = row.get(0)?;
    let topic: Option<String> = row.get(1)?;
    let event = || {
        let name: String = row.get(2).ok()?;
        let time_ms: u64 = row.get(3).ok()?;
        let (publisher, key): (Option<String>, Option<String>) =
            (row.get(5).ok()?, row.get(6).ok()?);
        name.parse::<Name>().ok()?;
        let is_valid = Timestamp::from_millis(time_ms).as_millis() == time_ms;
        let topic = topic.as_ref()?.parse().ok()?;
        let data = row.get(4).ok()?;
        is_valid.then_some(ImportedEvent { sequence, topic, name, time_ms, data, publisher, key })
    };
    Ok(event().ok_or_else(|| (sequence, topic.clone())))
}

/// Returns the topics of a part, some of them several times.
fn topics_of(part: &ImportPart) -> impl Iterator<Item = Topic> {
    let of_events = part.events.iter().map(|event| event.topic.clone());
    of_events.chain(part.topics.iter().filter_map(|topic| topic.topic.parse().ok()))
}

/// The rows that a part adds.
struct Added {
    /// The row ids of new topics.
    topics: HashMap<Topic, i64>,
    /// `true` for each event that is new, in their order.
    is_new: Vec<bool>,
}

/// Inserts a part.
fn insert(
    transaction: &Transaction<'_>,
    part: &ImportPart,
    known: &mut HashMap<Topic, i64>,
    added: &mut Added,
) -> rusqlite::Result<()> {
    for topic in topics_of(part) {
        if known.contains_key(&topic) {
            continue;
        }
        let mut insert = transaction
            .prepare_cached("INSERT INTO topics (topic, dropped) VALUES (?1, 0) RETURNING id")?;
        let row_id: i64 = insert.query_row([topic.as_str()], |row| row.get(0))?;
        known.insert(topic.clone(), row_id);
        added.topics.insert(topic, row_id);
    }
    // A number and a key occur once in the log.
    let mut insert = transaction.prepare_cached(
        "INSERT OR IGNORE INTO events (sequence, topic, name, time, data, publisher, key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for event in &part.events {
        let ImportedEvent { sequence, topic, name, time_ms, data, publisher, key } = event;
        let values = (sequence, known.get(topic), name, time_ms, data, publisher, key);
        added.is_new.push(insert.execute(values)? == 1);
    }
    for topic in &part.topics {
        insert_topic(transaction, topic)?;
    }
    if let Some(forgotten) = part.forgotten {
        transaction.execute("UPDATE log SET forgotten = max(forgotten, ?1)", [forgotten])?;
    }
    let progress = part.progress();
    let values = (
        progress.log.epoch,
        progress.log.digest.cast_signed(),
        progress.up_to,
        progress.is_complete,
    );
    let update = "UPDATE mirror SET imported_epoch = ?1, imported_digest = ?2,
                      imported_up_to = ?3, is_imported = ?4";
    transaction.execute(update, values).map(|_| ())
}

impl Added {
    /// Adds the part to the summary.
    fn note(self, part: &ImportPart, index: &mut Index) {
        for (topic, row_id) in self.topics {
            index.topics.add(topic, row_id);
        }
        for event in
            part.events.iter().zip(self.is_new).filter_map(|(event, new)| new.then_some(event))
        {
            let Some(entry) = index.topics.get(&event.topic) else { continue };
            let time = Timestamp::from_millis(event.time_ms);
            entry.add_imported((event.sequence, time), event.data.len());
            if index.count == 0 {
                index.start = event.sequence.saturating_sub(1);
            }
            index.count += 1;
            index.newest = event.sequence.max(index.newest);
            index.ages.add(event.sequence, time);
            index.times.add(event.sequence, time);
        }
        for SnapshotTopic { topic, dropped, end } in &part.topics {
            let Ok(topic) = topic.parse::<Topic>() else { continue };
            let Some(entry) = index.topics.get(&topic) else { continue };
            index.topics.set_dropped(&entry, *dropped);
            index.newest = (*dropped).max(index.newest);
            if let Some(end) = end {
                index.newest = end.sequence.max(index.newest);
                index.topics.set_end(&topic, stored_end(end));
            }
        }
        if let Some(forgotten) = part.forgotten {
            if forgotten > 0 {
                index.topics.forget_up_to(forgotten);
            }
            index.newest = forgotten.max(index.newest);
        }
        if index.count == 0 {
            index.start = index.newest;
        }
    }
}

fn stored_end(end: &SnapshotEnd) -> Arc<StoredEnd> {
    let SnapshotEnd { sequence, time_ms, data, is_reopened, keys } = end;
    let key = |(publisher, key): &(String, String)| IdempotencyKey {
        publisher: publisher.clone(),
        key: key.clone(),
    };
    Arc::new(StoredEnd {
        sequence: *sequence,
        time: Timestamp::from_millis(*time_ms),
        data: data.clone(),
        keys: keys.iter().map(key).collect(),
        is_reopened: *is_reopened,
    })
}
