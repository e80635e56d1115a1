//! Applying the entries of a cluster's order, each in one transaction with its place.
//!
//! The outcome depends on the entries alone, never on this node's clock or disk. So all nodes have
//! the same log, and a node that was stopped at any moment continues where it was.

use std::collections::{HashMap, VecDeque};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use super::{super::index::Index, OVERHEAD, SLICE, Writer};
use crate::{
    event::Topic,
    event_log::{
        entry::{
            ApplyError, Entry, Mirrored, Outcome, Place, Proposal, Sequenced, Tag, WireRetention,
        },
        retention::Retention,
        store::EventLogError,
    },
    id::Epoch,
    timestamp::Timestamp,
};

/// Number of positions after which a mirror drops what exceeds the retention.
const TIDY_POSITIONS: u64 = 16;
/// Time after which it does so, too, in milliseconds.
const TIDY_MILLIS: u64 = 10_000;
/// Maximum number of senders whose proposals are told apart. A sender is one life of a process.
const MAX_SENDERS: usize = 1000;
/// Number of the last places whose digests are compared with those that other nodes have seen.
const RECENT: usize = 4096;

/// The place of a mirror in a cluster's order.
pub(in super::super) struct Mirror {
    stream: String,
    place: Place,
    /// The digest of the last entry.
    last: u64,
    /// The time of the last entry. Times of entries never go back.
    time: Timestamp,
    /// The retention of all nodes; `None` before the first entry.
    pub retention: Option<Retention>,
    /// The number of the last proposal of each sender, and its position.
    senders: HashMap<String, (u64, u64)>,
    recent: VecDeque<Place>,
}

/// The progress that an entry makes.
struct Step<'a> {
    place: Place,
    last: u64,
    time: Timestamp,
    tag: &'a Tag,
    /// The sender that makes room for that of the tag.
    forgotten: Option<String>,
}

impl Mirror {
    /// Reads the place from the database. Returns `None` if the log mirrors nothing.
    pub fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let select = "SELECT stream, position, digest, last, time, retention FROM mirror";
        let read = connection.query_row(select, [], |row| {
            let digest = |column| row.get(column).map(i64::cast_unsigned);
            let place = Place { position: row.get(1)?, digest: digest(2)? };
            let time = Timestamp::from_millis(row.get(4)?);
            let retention = serde_json::from_str::<WireRetention>(row.get_ref(5)?.as_str()?);
            Ok((row.get(0)?, place, digest(3)?, time, retention.ok().map(Retention::from)))
        });
        let Some((stream, place, last, time, retention)) = read.optional()? else {
            return Ok(None);
        };
        let mut select = connection.prepare("SELECT sender, number, position FROM senders")?;
        let senders = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        let senders = senders.collect::<rusqlite::Result<_>>()?;
        let recent = VecDeque::from([place]);
        Ok(Some(Self { stream, place, last, time, retention, senders, recent }))
    }

    /// Makes a log a mirror that has no entries yet.
    pub fn begin(connection: &Connection) -> rusqlite::Result<()> {
        connection.execute("INSERT INTO mirror VALUES ('', 0, 0, 0, 0, '')", []).map(|_| ())
    }

    /// Returns the part that others see.
    pub fn mirrored(&self) -> Mirrored {
        let Self { stream, place, last, retention, .. } = self;
        Mirrored { stream: stream.clone(), place: *place, last: *last, retention: *retention }
    }

    /// Returns the progress that an entry makes.
    fn step<'a>(&self, entry: &'a Sequenced) -> Step<'a> {
        let (time, tag) = (self.time.max(entry.time), &entry.proposal.tag);
        let (place, forgotten) = (self.place.after(entry), self.to_forget(tag));
        Step { place, last: entry.digest, time, tag, forgotten }
    }

    /// Returns the sender that makes room for that of a tag, if one must: the one that has been
    /// silent for the longest time.
    fn to_forget(&self, tag: &Tag) -> Option<String> {
        if self.senders.len() < MAX_SENDERS || self.senders.contains_key(&tag.sender) {
            return None;
        }
        let oldest = self.senders.iter().min_by_key(|(_, (_, position))| *position);
        oldest.map(|(sender, _)| sender.clone())
    }

    /// Returns `true` if all nodes drop what exceeds the retention before the step.
    fn is_tidy_due(&self, step: &Step<'_>) -> bool {
        self.place.position / TIDY_POSITIONS != step.place.position / TIDY_POSITIONS
            || self.time.as_millis() / TIDY_MILLIS != step.time.as_millis() / TIDY_MILLIS
    }

    /// Returns `true` if a node that has seen the place has not applied the same entries.
    fn has_diverged(&self, seen: Place) -> bool {
        let found = self.recent.binary_search_by_key(&seen.position, |place| place.position);
        found.is_ok_and(|number| self.recent[number].digest != seen.digest)
    }

    /// Returns `true` if a later proposal of its sender precedes this one, or the same.
    fn is_too_late(&self, tag: &Tag) -> bool {
        self.senders.get(&tag.sender).is_some_and(|(last, _)| tag.number <= *last)
    }

    fn advance(&mut self, step: Step<'_>) {
        (self.place, self.last, self.time) = (step.place, step.last, step.time);
        if let Some(sender) = step.forgotten {
            self.senders.remove(&sender);
        }
        let Tag { sender, number } = step.tag.clone();
        let (last, position) = self.senders.entry(sender).or_default();
        (*last, *position) = (number.max(*last), step.place.position);
        self.recent.push_back(step.place);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }
}

impl Step<'_> {
    /// Writes the place.
    fn record(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let Place { position, digest } = self.place;
        let mut update = transaction
            .prepare_cached("UPDATE mirror SET position = ?1, digest = ?2, last = ?3, time = ?4")?;
        let digests = (digest.cast_signed(), self.last.cast_signed());
        update.execute((position, digests.0, digests.1, self.time.as_millis()))?;
        if let Some(forgotten) = &self.forgotten {
            transaction.execute("DELETE FROM senders WHERE sender = ?1", [forgotten])?;
        }
        let Tag { sender, number } = self.tag;
        let mut update = transaction.prepare_cached(
            "INSERT INTO senders VALUES (?1, ?2, ?3) ON CONFLICT (sender)
             DO UPDATE SET number = max(number, ?2), position = ?3",
        )?;
        update.execute((sender, number, position)).map(|_| ())
    }
}

impl Writer {
    /// Names the stream that has the entries.
    pub(super) fn join(&mut self, stream: &str) -> Result<(), EventLogError> {
        let joined = self.connection.execute("UPDATE mirror SET stream = ?1", [stream]);
        joined.map_err(|error| self.classify(error))?;
        if let Some(mirror) = &mut self.mirror {
            stream.clone_into(&mut mirror.stream);
            *self.shared.mirrored.lock() = Some(mirror.mirrored());
        }
        Ok(())
    }

    /// Applies an entry. Those up to the mirror's place change nothing.
    pub(super) fn apply(&mut self, entry: &Sequenced) -> Result<Outcome, ApplyError> {
        let Sequenced { position, proposal: Proposal { tag, seen, entry: change }, .. } = entry;
        let Some(mirror) = &self.mirror else {
            return Err(EventLogError::new("the event log is no mirror").into());
        };
        if *position <= mirror.place.position {
            return Ok(Outcome::Repeated);
        }
        if mirror.has_diverged(*seen) {
            return Err(ApplyError::Diverged { position: *position });
        }
        let has_begun = mirror.retention.is_some();
        // Of two nodes that begin the order, the first one does.
        let is_too_late =
            mirror.is_too_late(tag) || (has_begun && matches!(change, Entry::Begin { .. }));
        let step = mirror.step(entry);
        if mirror.is_tidy_due(&step) {
            self.drop_all_excess(step.time)?;
        }
        if is_too_late {
            self.advance(step, |_| Ok(()))?;
            return Ok(Outcome::Repeated);
        }
        Ok(match change {
            Entry::Begin { epoch, retention } => self.apply_begin(step, *epoch, *retention)?,
            Entry::Append(drafts) => {
                let drafts = drafts.clone();
                let appended =
                    self.append_with(drafts, step.time, &|transaction| step.record(transaction))?;
                self.advanced(step);
                Outcome::Appended(appended)
            }
            Entry::Delete(topic) => {
                let deleted = self.delete_all(topic)?;
                self.advance(step, |_| Ok(()))?;
                Outcome::Deleted(topic.clone(), deleted)
            }
            Entry::Epoch { epoch, newest } => self.apply_epoch(step, *epoch, *newest)?,
        })
    }

    fn apply_begin(
        &mut self,
        step: Step<'_>,
        epoch: Epoch,
        retention: Retention,
    ) -> Result<Outcome, EventLogError> {
        let text = serde_json::to_string(&WireRetention::from(&retention));
        let text = text.map_err(EventLogError::new)?;
        self.advance(step, |transaction| {
            transaction.execute("UPDATE mirror SET retention = ?1", [text])?;
            transaction.execute("UPDATE log SET epoch = ?1", [epoch.to_string()]).map(|_| ())
        })?;
        self.shared.index.lock().epoch = epoch;
        self.retention = retention;
        if let Some(mirror) = &mut self.mirror {
            mirror.retention = Some(retention);
            *self.shared.mirrored.lock() = Some(mirror.mirrored());
        }
        Ok(Outcome::Begun)
    }

    fn apply_epoch(
        &mut self,
        step: Step<'_>,
        epoch: Epoch,
        newest: u64,
    ) -> Result<Outcome, EventLogError> {
        let update = "UPDATE log SET epoch = ?1, forgotten = max(forgotten, ?2)";
        self.advance(step, |transaction| {
            transaction.execute(update, (epoch.to_string(), newest)).map(|_| ())
        })?;
        let index = &mut *self.shared.index.lock();
        index.epoch = epoch;
        index.topics.forget_up_to(newest);
        if newest > index.newest {
            if index.start == index.newest {
                index.start = newest;
            }
            index.newest = newest;
        }
        Ok(Outcome::NewEpoch(epoch))
    }

    /// Makes the step with a change to the database, in one transaction.
    fn advance(
        &mut self,
        step: Step<'_>,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), EventLogError> {
        if !self.place.is_kept() {
            return Err(EventLogError::Misplaced);
        }
        let commit = || {
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            change(&transaction)?;
            step.record(&transaction)?;
            transaction.commit()
        };
        commit().map_err(|error| self.classify(error))?;
        self.advanced(step);
        Ok(())
    }

    /// Notes that the step is made.
    fn advanced(&mut self, step: Step<'_>) {
        if let Some(mirror) = &mut self.mirror {
            mirror.advance(step);
            *self.shared.mirrored.lock() = Some(mirror.mirrored());
        }
    }

    /// Deletes all events of a topic, and returns their number.
    fn delete_all(&mut self, topic: &Topic) -> Result<u64, EventLogError> {
        let entry = self.shared.index.lock().topics.get(topic);
        let Some(entry) = entry.filter(|entry| entry.count() > 0) else { return Ok(0) };
        let newest = self.shared.index.lock().topics.hide(&entry);
        let mut deleted = 0;
        loop {
            match self.delete_slice(topic, newest)? {
                0 => return Ok(deleted),
                slice => deleted += slice as u64,
            }
        }
    }

    /// Drops all events that exceed the retention at a time.
    fn drop_all_excess(&mut self, time: Timestamp) -> Result<(), EventLogError> {
        let mut drop_slice = || {
            let excess = self.excess(SLICE, Some(time))?;
            self.drop_events(&excess)?;
            Ok(excess.len())
        };
        loop {
            match drop_slice() {
                Ok(SLICE) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(self.classify(error)),
            }
        }
    }

    /// Returns the retention's measure of the events of a mirror, in bytes. Unlike the size of the
    /// file, it is the same on all nodes.
    pub(super) fn kept_bytes(&self) -> usize {
        let Index { topics, count, .. } = &*self.shared.index.lock();
        let data: u64 = topics.all().iter().map(|entry| entry.kept().bytes).sum();
        usize::try_from(data).unwrap_or(usize::MAX).saturating_add(count * OVERHEAD)
    }
}
