//! Snapshots of a mirror: the state without the events, from which a node can begin after the
//! cluster no longer has all entries.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::{
    super::mirror::{Joining, Mirror},
    Writer,
};
use crate::{
    event::Topic,
    event_log::{
        entry::{Mark, OrderPlace, Snapshot, SnapshotEnd, SnapshotTopic, WireRetention},
        store::EventLogError,
    },
    id::Epoch,
};

/// Number of entries that a snapshot must make needless.
const MIN_ENTRIES: u64 = if cfg!(test) { 16 } else { 4096 };

impl Writer {
    /// Names the stream that has the entries.
    pub fn join(&mut self, stream: &str) -> Result<(), EventLogError> {
        let joined = self.connection.execute("UPDATE mirror SET stream = ?1", [stream]);
        joined.map_err(|error| self.classify(error))?;
        self.reread_mirror()
    }

    /// Returns the earliest remembered place from the position `first - 1` on.
    pub fn earliest_mark(&self, first: u64) -> Result<Option<Mark>, EventLogError> {
        let select = "SELECT position, digest, last, time, newest FROM marks
                      WHERE position + 1 >= ?1 ORDER BY position LIMIT 1";
        read_mark(&self.connection, select, first).map_err(EventLogError::from)
    }

    /// Returns a snapshot, if the entries from the position `first` on that it makes needless are
    /// many enough. Forgets what no later one needs.
    pub fn snapshot(&mut self, first: u64) -> Result<Option<Snapshot>, EventLogError> {
        let (start, newest) = {
            let index = self.shared.index.lock();
            (index.start, index.newest)
        };
        let is_complete = |mirror: &&Mirror| mirror.joining.is_none() && mirror.retention.is_some();
        let Some(mirror) = self.mirror.as_ref().filter(is_complete) else { return Ok(None) };
        let read = || {
            let base = last_mark(&self.connection, start)?;
            // So there are few snapshots, however many entries follow on the base.
            let is_worth_it = |base: &Mark| {
                let removed = (base.place.position + 1).saturating_sub(first);
                let kept = mirror.place.position - base.place.position;
                removed >= MIN_ENTRIES.max(kept / 2)
            };
            let base = base.filter(is_worth_it);
            base.map(|base| self.snapshot_from(mirror, base, newest)).transpose()
        };
        let snapshot = read().map_err(|error| self.classify(error))?;
        if let Some(snapshot) = &snapshot {
            let base = snapshot.base.place.position;
            for forget in [
                "DELETE FROM marks WHERE position < ?1",
                "DELETE FROM refused WHERE position <= ?1",
                "UPDATE mirror SET retentions = (
                     SELECT json_group_array(json(value)) FROM json_each(retentions)
                     WHERE value ->> 0 > ?1
                 ) WHERE retentions <> '[]'",
            ] {
                let forgotten = self.connection.execute(forget, [base]);
                forgotten.map_err(|error| self.classify(error))?;
            }
        }
        Ok(snapshot)
    }

    fn snapshot_from(
        &self,
        mirror: &Mirror,
        base: Mark,
        newest: u64,
    ) -> rusqlite::Result<Snapshot> {
        let (epoch, forgotten) =
            self.connection.query_row("SELECT epoch, forgotten FROM log", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        let mut select = self.connection.prepare(
            "SELECT position, draft FROM refused WHERE position > ?1 ORDER BY position, draft",
        )?;
        let refused = select.query_map([base.place.position], |row| Ok((row.get(0)?, row.get(1)?)));
        let refused = refused?.collect::<rusqlite::Result<_>>()?;
        let select = "SELECT value -> 1 FROM mirror, json_each(retentions)
                      WHERE value ->> 0 > ?1 ORDER BY key LIMIT 1";
        let at_base = self
            .connection
            .query_row(select, [base.place.position], |row| row.get::<_, String>(0))
            .optional()?;
        let base_retention = at_base.and_then(|text| serde_json::from_str(&text).ok());
        let topics = self.shared.index.lock().topics.all();
        let topic = |entry: &_| snapshot_topic(&self.connection, entry);
        let topics =
            topics.iter().map(|entry| topic(&entry.topic)).collect::<rusqlite::Result<_>>()?;
        Ok(Snapshot {
            base,
            at: mirror.mark(newest),
            epoch,
            forgotten,
            retention: WireRetention::from(&self.retention),
            base_retention,
            topics,
            senders: mirror.senders().collect(),
            refused,
        })
    }

    /// Makes an empty mirror begin at the base of a snapshot.
    pub fn load(&mut self, snapshot: &Snapshot, stream: &str) -> Result<(), EventLogError> {
        let Mark { place, last, time_ms, newest } = snapshot.base;
        // The entries after the base change it as they did on other nodes.
        let retention = snapshot.base_retention.as_ref().unwrap_or(&snapshot.retention);
        let retention = serde_json::to_string(retention).map_err(EventLogError::new)?;
        let epoch: Epoch = snapshot.epoch.parse().map_err(EventLogError::new)?;
        self.change(|transaction| {
            transaction.execute(
                "UPDATE mirror SET stream = ?1, position = ?2, digest = ?3, last = ?4, time = ?5,
                     retention = ?6, is_joining = 1",
                (
                    stream,
                    place.position,
                    place.digest.cast_signed(),
                    last.cast_signed(),
                    time_ms,
                    retention,
                ),
            )?;
            snapshot.base.record(transaction)?;
            let update = "UPDATE log SET epoch = ?1, forgotten = ?2";
            transaction.execute(update, (epoch.to_string(), newest)).map(|_| ())
        })?;
        {
            let index = &mut *self.shared.index.lock();
            index.epoch = epoch;
            (index.start, index.newest) = (newest, newest);
        }
        self.reread_mirror()?;
        if let Some(mirror) = &mut self.mirror {
            let refused = snapshot.refused.iter().copied().collect::<HashSet<_>>();
            mirror.joining = Some(Joining { refused });
        }
        Ok(())
    }

    /// Completes a mirror that has applied the entries up to the place of a snapshot. The log must
    /// be opened again.
    pub fn settle(&mut self, snapshot: &Snapshot) -> Result<(), EventLogError> {
        let newest = self.shared.index.lock().newest;
        let at = self.mirror.as_ref().map(|mirror| mirror.mark(newest));
        if at != Some(snapshot.at) {
            let text = format!("the mirror is at {at:?}, and the snapshot at {:?}", snapshot.at);
            return Err(EventLogError::new(text));
        }
        self.change(|transaction| settle(transaction, snapshot))
    }

    /// Makes a change to the database in one transaction.
    fn change(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), EventLogError> {
        let commit = || {
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            change(&transaction)?;
            transaction.commit()
        };
        commit().map_err(|error| self.classify(error))
    }

    fn reread_mirror(&mut self) -> Result<(), EventLogError> {
        self.mirror = Mirror::read(&self.connection).map_err(|error| self.classify(error))?;
        if let Some(mirror) = &self.mirror {
            *self.shared.mirrored.lock() = Some(mirror.mirrored());
            if let Some(retention) = mirror.retention.clone() {
                self.retain(retention);
            }
        }
        Ok(())
    }
}

/// Returns the last remembered place before all kept events.
fn last_mark(connection: &Connection, start: u64) -> rusqlite::Result<Option<Mark>> {
    let select = "SELECT position, digest, last, time, newest FROM marks WHERE newest <= ?1
                  ORDER BY position DESC LIMIT 1";
    read_mark(connection, select, start)
}

fn read_mark(
    connection: &Connection,
    select: &str,
    parameter: u64,
) -> rusqlite::Result<Option<Mark>> {
    let mark = connection.query_row(select, [parameter], |row| {
        let digest = |column| row.get(column).map(i64::cast_unsigned);
        Ok(Mark {
            place: OrderPlace { position: row.get(0)?, digest: digest(1)? },
            last: digest(2)?,
            time_ms: row.get(3)?,
            newest: row.get(4)?,
        })
    });
    mark.optional()
}

pub(super) fn snapshot_topic(
    connection: &Connection,
    topic: &Topic,
) -> rusqlite::Result<SnapshotTopic> {
    let mut select = connection.prepare_cached(
        "SELECT id, dropped, sequence, time, data, is_reopened
         FROM topics LEFT JOIN ends ON ends.topic = topics.id WHERE topics.topic = ?1",
    )?;
    let (id, dropped, end) = select.query_row([topic.as_str()], |row| {
        let end = row.get::<_, Option<u64>>(2)?.map(|sequence| {
            Ok::<_, rusqlite::Error>(SnapshotEnd {
                sequence,
                time_ms: row.get(3)?,
                data: row.get(4)?,
                is_reopened: row.get(5)?,
                keys: Vec::new(),
            })
        });
        Ok((row.get::<_, i64>(0)?, row.get(1)?, end.transpose()?))
    })?;
    let end = end.map(|mut end: SnapshotEnd| {
        let mut select = connection.prepare_cached(
            "SELECT publisher, key FROM end_keys WHERE topic = ?1 ORDER BY publisher, key",
        )?;
        let keys = select.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        end.keys = keys.collect::<rusqlite::Result<_>>()?;
        Ok::<_, rusqlite::Error>(end)
    });
    Ok(SnapshotTopic { topic: topic.to_string(), dropped, end: end.transpose()? })
}

/// Sets the drops and the end of a topic. Inserts it if it is new.
pub(super) fn insert_topic(connection: &Connection, topic: &SnapshotTopic) -> rusqlite::Result<()> {
    let SnapshotTopic { topic, dropped, end } = topic;
    let id: i64 = connection
        .prepare_cached(
            "INSERT INTO topics (topic, dropped) VALUES (?1, ?2)
             ON CONFLICT (topic) DO UPDATE SET dropped = ?2 RETURNING id",
        )?
        .query_row((topic, dropped), |row| row.get(0))?;
    let Some(SnapshotEnd { sequence, time_ms, data, is_reopened, keys }) = end else {
        return Ok(());
    };
    let insert = "INSERT OR REPLACE INTO ends VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(insert)?.execute((id, sequence, time_ms, data, is_reopened))?;
    for (publisher, key) in keys {
        let insert = "INSERT OR IGNORE INTO end_keys VALUES (?1, ?2, ?3)";
        connection.prepare_cached(insert)?.execute((id, publisher, key))?;
    }
    Ok(())
}

/// Replaces the state of a mirror by that of a snapshot.
fn settle(transaction: &Transaction<'_>, snapshot: &Snapshot) -> rusqlite::Result<()> {
    transaction.execute_batch("DELETE FROM ends; DELETE FROM end_keys; DELETE FROM senders;")?;
    let mut known = transaction.prepare("SELECT topic FROM topics")?;
    let known =
        known.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let kept: HashSet<_> = snapshot.topics.iter().map(|topic| topic.topic.as_str()).collect();
    for topic in known.iter().filter(|topic| !kept.contains(topic.as_str())) {
        transaction.execute("DELETE FROM topics WHERE topic = ?1", [topic])?;
    }
    for topic in &snapshot.topics {
        insert_topic(transaction, topic)?;
    }
    for sender in &snapshot.senders {
        let insert = "INSERT INTO senders VALUES (?1, ?2, ?3)";
        transaction.prepare_cached(insert)?.execute((&sender.0, sender.1, sender.2))?;
    }
    let update = "UPDATE log SET epoch = ?1, forgotten = ?2";
    transaction.execute(update, (&snapshot.epoch, snapshot.forgotten))?;
    transaction.execute("UPDATE mirror SET is_joining = 0", []).map(|_| ())
}
