//! Applying the entries of a cluster's order, each in one transaction with its place.
//!
//! The outcome depends on the entries alone, never on this node's clock or disk. So all nodes have
//! the same log, and a node that was stopped at any moment continues where it was.

use rusqlite::{Transaction, TransactionBehavior};

use super::{
    super::{index::Index, mirror::EntryStep},
    OVERHEAD, SLICE, Writer,
    append::Placed,
    retention::Excess,
};
use crate::{
    event::Topic,
    event_log::{
        entry::{Entry, EntryOutcome, Proposal, Sequenced, WHOLE_ENTRY, WireRetention},
        retention::Retention,
        store::{EventLogError, Rejected},
    },
    id::Epoch,
    timestamp::Timestamp,
};

impl Writer {
    /// Applies an entry. Those up to the mirror's place change nothing.
    pub(super) fn apply(&mut self, entry: &Sequenced) -> Result<EntryOutcome, EventLogError> {
        let Sequenced { position, proposal: Proposal { tag, entry: change, .. }, .. } = entry;
        let Some(mirror) = &self.mirror else {
            return Err(EventLogError::new("the event log is no mirror"));
        };
        if *position <= mirror.place.position {
            return Ok(EntryOutcome::Repeated);
        }
        if mirror.is_over {
            return Err(EventLogError::new(
                "a new epoch has begun, in which the log must be opened",
            ));
        }
        // Of two nodes that begin the order, the first one does.
        let (is_too_late, is_admitted) = (mirror.is_too_late(tag), mirror.admits(change));
        let step = mirror.step(entry, self.shared.index.lock().newest);
        let joining = mirror.joining.as_ref();
        let is_whole_refused =
            joining.map(|joining| joining.refused.contains(&(*position, WHOLE_ENTRY)));
        let is_refused = is_whole_refused.unwrap_or(is_too_late || !is_admitted);
        if mirror.is_tidy_due(&step) {
            self.drop_all_excess(step.time)?;
        }
        if is_refused {
            let refused = (*position, WHOLE_ENTRY);
            self.advance(step, |transaction| {
                transaction.execute("INSERT INTO refused VALUES (?1, ?2)", refused).map(|_| ())
            })?;
            let is_repeated = is_too_late || is_admitted;
            return Ok(if is_repeated { EntryOutcome::Repeated } else { EntryOutcome::Unchanged });
        }
        Ok(match change {
            Entry::Begin { epoch, retention } => self.apply_begin(step, *epoch, retention)?,
            Entry::Retain(retention) => self.apply_retain(step, retention)?,
            Entry::Append(drafts) => {
                let drafts = drafts.clone();
                let record = |transaction: &Transaction<'_>,
                              placed: &[Result<Placed, Rejected>]| {
                    record_refused(transaction, *position, placed)?;
                    step.record(transaction)
                };
                let appended = self.append_with(drafts, step.time, Some(*position), &record)?;
                self.advanced(step);
                EntryOutcome::Appended(appended)
            }
            Entry::Delete(topic) => {
                let deleted = self.delete_all(topic)?;
                self.advance(step, |_| Ok(()))?;
                EntryOutcome::Deleted(topic.clone(), deleted)
            }
            Entry::Epoch { epoch, newest } => self.apply_epoch(step, *epoch, *newest)?,
            Entry::Import(part) => self.apply_import(step, part)?,
            Entry::Snapshot(_) | Entry::Foreign => {
                self.advance(step, |_| Ok(()))?;
                EntryOutcome::Unchanged
            }
        })
    }

    fn apply_begin(
        &mut self,
        step: EntryStep<'_>,
        epoch: Epoch,
        retention: &Retention,
    ) -> Result<EntryOutcome, EventLogError> {
        let text = json(retention)?;
        self.advance(step, |transaction| {
            transaction.execute("UPDATE mirror SET retention = ?1", [text])?;
            transaction.execute("UPDATE log SET epoch = ?1", [epoch.to_string()]).map(|_| ())
        })?;
        self.shared.index.lock().epoch = epoch;
        if let Some(mirror) = &mut self.mirror {
            mirror.retention = Some(retention.clone());
            mirror.is_importing = false;
            *self.shared.mirrored.lock() = Some(mirror.mirrored());
        }
        self.retain(retention.clone());
        Ok(EntryOutcome::Begun)
    }

    /// Changes the retention. The events that exceed it are dropped at the next place in the order
    /// at which every node tidies up.
    fn apply_retain(
        &mut self,
        step: EntryStep<'_>,
        retention: &Retention,
    ) -> Result<EntryOutcome, EventLogError> {
        let (before, text) = (json(&self.retention)?, json(retention)?);
        let position = step.place.position;
        self.advance(step, |transaction| {
            let update = "UPDATE mirror SET retention = ?1,
                 retentions = json_insert(retentions, '$[#]', json_array(?2, json(?3)))";
            transaction.execute(update, (text, position, before)).map(|_| ())
        })?;
        if let Some(mirror) = &mut self.mirror {
            mirror.retention = Some(retention.clone());
            *self.shared.mirrored.lock() = Some(mirror.mirrored());
        }
        self.retain(retention.clone());
        Ok(EntryOutcome::Retained)
    }

    fn apply_epoch(
        &mut self,
        step: EntryStep<'_>,
        epoch: Epoch,
        newest: u64,
    ) -> Result<EntryOutcome, EventLogError> {
        let update = "UPDATE log SET epoch = ?1, forgotten = max(forgotten, ?2)";
        self.advance(step, |transaction| {
            transaction.execute(update, (epoch.to_string(), newest)).map(|_| ())
        })?;
        if let Some(mirror) = self.mirror.as_mut().filter(|mirror| mirror.joining.is_none()) {
            // Until the log is opened again, its events keep the ids that readers know.
            mirror.is_over = true;
            return Ok(EntryOutcome::NewEpoch(epoch));
        }
        let index = &mut *self.shared.index.lock();
        index.epoch = epoch;
        index.topics.forget_up_to(newest);
        if newest > index.newest {
            if index.start == index.newest {
                index.start = newest;
            }
            index.newest = newest;
        }
        Ok(EntryOutcome::NewEpoch(epoch))
    }

    /// Makes the step with a change to the database, in one transaction.
    pub(super) fn advance(
        &mut self,
        step: EntryStep<'_>,
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
    fn advanced(&mut self, step: EntryStep<'_>) {
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
            let Excess { events, is_all } = self.excess(SLICE, Some(time))?;
            self.drop_events(&events)?;
            Ok(is_all)
        };
        loop {
            match drop_slice() {
                Ok(false) => {}
                Ok(true) => return Ok(()),
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

/// Returns a retention as the database has it.
fn json(retention: &Retention) -> Result<String, EventLogError> {
    serde_json::to_string(&WireRetention::from(retention)).map_err(EventLogError::new)
}

/// Records the drafts of an entry that are no new events.
fn record_refused(
    transaction: &Transaction<'_>,
    position: u64,
    placed: &[Result<Placed, Rejected>],
) -> rusqlite::Result<()> {
    for (draft, placed) in placed.iter().enumerate() {
        if !matches!(placed, Ok(Placed { is_duplicate: false, .. })) {
            let mut insert = transaction.prepare_cached("INSERT INTO refused VALUES (?1, ?2)")?;
            insert.execute((position, draft))?;
        }
    }
    Ok(())
}
