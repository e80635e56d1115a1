//! Dropping the events that exceed the retention, and the room that the files take.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{ErrorCode, TransactionBehavior};

use super::{
    super::error::may_lack_room, AppendVolume, MIN_TIDY_INTERVAL, OVERHEAD, SLICE, TIDY_INTERVAL,
    URGENT, Writer,
};
use crate::{
    event::Topic,
    event_log::{ages::is_young, retention::Retention, store::EventLogError, topics::TopicEntry},
    timestamp::Timestamp,
};

/// Number of unused pages that are returned to the file system at a time.
const VACUUM_PAGES: usize = 1000;
/// Number of events with an age of their own, for each one that may be dropped, that a search for
/// events that are too old by the general age looks at before it pauses.
const MAX_OTHERS: usize = 8;
/// Minimum interval of attempts to make room, if they are in vain.
const ROOM_INTERVAL: Duration = Duration::from_secs(1);

/// Events that exceed the retention.
pub(super) struct Excess {
    pub events: Vec<DroppedEvent>,
    /// `false` if there may be more.
    pub is_all: bool,
}

/// An event that is to be dropped.
pub(super) struct DroppedEvent {
    sequence: u64,
    /// `None` if the topic does not exist, since the event is damaged.
    topic: Option<Topic>,
    /// Size of its data.
    bytes: usize,
}

impl Writer {
    /// Returns the time until the next tidying up.
    pub(super) fn until_tidy(&self) -> Duration {
        let AppendVolume { events, bytes } = self.appended;
        let is_urgent = self.is_untidy || events >= URGENT.events || bytes >= URGENT.bytes;
        let interval = if is_urgent { MIN_TIDY_INTERVAL } else { TIDY_INTERVAL };
        interval.saturating_sub(self.tidied.elapsed())
    }

    /// Drops a slice of the events that exceed the retention.
    pub(super) fn tidy(&mut self) {
        if self.place.is_kept() {
            self.bound_journal();
            self.reserve.hold();
            self.extend_journal();
            let slice = SLICE.max(2 * self.appended.events);
            let dropped = self.drop_excess(slice);
            self.is_untidy = matches!(dropped, Ok(false));
            if dropped.is_ok() && !self.is_untidy {
                self.release_pages(VACUUM_PAGES);
            }
            if let Err(error) = dropped {
                self.report_failed_drop(&error);
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt)
                    && !self.is_reindexed
                {
                    // A damaged row and its index disagree. If this does not help, it never will.
                    self.is_reindexed = true;
                    self.is_untidy = self.connection.execute_batch("REINDEX events").is_ok();
                }
                if may_lack_room(&error) {
                    self.make_room();
                }
            }
        } else {
            // There is nothing to drop until the files are back.
            self.is_untidy = false;
        }
        self.appended = AppendVolume::default();
        self.tidied = Instant::now();
    }

    /// Number of appended bytes after which the log may exceed its size no further.
    pub(super) fn max_overshoot(&self) -> usize {
        (self.retention.bytes / 8).clamp(64 << 10, URGENT.bytes)
    }

    /// Drops at least as much as was appended, if the log exceeds its size.
    pub(super) fn drop_overshoot(&mut self) {
        let appended = self.appended.bytes;
        let Ok(before) = self.used_bytes() else { return self.tidy() };
        loop {
            self.tidy();
            let Ok(now) = self.used_bytes() else { return };
            let is_enough = before.saturating_sub(now) >= 2 * appended;
            if is_enough || now <= self.retention.bytes || !self.is_untidy {
                return;
            }
        }
    }

    /// Makes room on a full disk: gives the reserve to the journal, drops what exceeds the
    /// retention, and takes the reserve again. Returns `true` if there is room then.
    pub(super) fn make_room(&mut self) -> bool {
        if self.without_room.is_some_and(|at| at.elapsed() < ROOM_INTERVAL) {
            return false;
        }
        self.reserve.release();
        if let Err(error) = self.drop_for_room() {
            self.report_failed_drop(&error);
            // The rest of the attempt in the journal takes room.
            self.cut_journal();
        }
        self.reserve.hold();
        let has_room = self.reserve.has_room();
        self.without_room = (!has_room).then(Instant::now);
        has_room
    }

    fn drop_for_room(&mut self) -> rusqlite::Result<()> {
        let needed = usize::try_from(self.reserve.bytes()).unwrap_or(usize::MAX);
        self.cut_journal();
        let mut slice = SLICE;
        loop {
            match self.drop_excess(slice) {
                Ok(is_all) => self.is_untidy = !is_all,
                // A smaller slice takes less room in the journal.
                Err(error) if may_lack_room(&error) && slice > 1 => {
                    slice = (slice / 8).max(1);
                    self.cut_journal();
                    continue;
                }
                Err(error) => return Err(error),
            }
            self.cut_journal();
            slice = (2 * slice).min(SLICE);
            // The rest is dropped by and by.
            if !self.is_untidy || self.unused_bytes()? >= 2 * needed {
                break;
            }
        }
        // The room that the log does not need any more is the reserve's and the journal's. To
        // move a page takes some pages in the journal.
        let pages = needed / self.pragma("page_size")? / 16;
        for _ in 0..2 * 16 {
            if self.reserve.free() >= 2 * self.reserve.bytes() || self.unused_bytes()? == 0 {
                break;
            }
            self.vacuum(pages)?;
            self.cut_journal();
        }
        Ok(())
    }

    fn report_failed_drop(&self, error: &rusqlite::Error) {
        tracing::warn!(%error, "old events could not be dropped from the event log");
        self.shared.condition.lock().failed_drops += 1;
    }

    /// Changes the retention of the log of one process.
    pub fn set_retention(&mut self, retention: Retention) -> Result<(), EventLogError> {
        if self.mirror.is_some() {
            return Err(EventLogError::new("an entry of the cluster must change what it keeps"));
        }
        self.retain(retention);
        Ok(())
    }

    /// Keeps other events from now on. What exceeds the new bounds is dropped by and by.
    pub(super) fn retain(&mut self, retention: Retention) {
        {
            let index = &mut *self.shared.index.lock();
            index.ages.set_max_age(retention.age);
            index.topics.forget_bounds();
        }
        self.unmarked = self.unmarked.max(self.passed.take());
        self.retention = retention;
        self.is_untidy = true;
    }

    /// Drops events that exceed the retention, at most `slice`. Returns `true` if these were all. A
    /// mirror does so while it applies entries, and at no other time.
    fn drop_excess(&mut self, slice: usize) -> rusqlite::Result<bool> {
        if self.mirror.is_some() {
            return Ok(true);
        }
        let Excess { events, is_all } = self.excess(slice, None)?;
        self.drop_events(&events)?;
        let passed = self.passed.get();
        if passed > 0 {
            self.shared.index.lock().ages.forget(passed);
        }
        Ok(is_all)
    }

    /// Deletes a slice of a topic's events up to the sequence number `newest`, oldest first. On a
    /// full disk, the journal may take the reserve for it. Returns the number of deleted events.
    pub(super) fn delete_slice(
        &mut self,
        topic: &Topic,
        newest: u64,
    ) -> Result<usize, EventLogError> {
        if !self.place.is_kept() {
            return Err(EventLogError::Misplaced);
        }
        let mut deleted = self.try_delete_slice(topic, newest);
        if deleted.as_ref().is_err_and(may_lack_room) {
            self.reserve.release();
            self.cut_journal();
            deleted = self.try_delete_slice(topic, newest);
            self.cut_journal();
            self.reserve.hold();
        }
        deleted.map_err(|error| self.classify(error))
    }

    fn try_delete_slice(&mut self, topic: &Topic, newest: u64) -> rusqlite::Result<usize> {
        let Some(entry) = self.shared.index.lock().topics.get(topic) else { return Ok(0) };
        let events: Vec<_> = {
            let mut oldest = self.connection.prepare_cached(
                "SELECT sequence, octet_length(data) FROM events
                 WHERE topic = ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3",
            )?;
            let rows = oldest.query_map((entry.place, newest, SLICE), |row| {
                let bytes: Option<usize> = row.get(1)?;
                let (topic, bytes) = (Some(topic.clone()), bytes.unwrap_or_default());
                Ok(DroppedEvent { sequence: row.get(0)?, topic, bytes })
            })?;
            rows.collect::<rusqlite::Result<_>>()?
        };
        self.drop_events(&events)?;
        self.committed = Some(Instant::now());
        Ok(events.len())
    }

    /// Drops events from the database and from its summary.
    pub(super) fn drop_events(&mut self, excess: &[DroppedEvent]) -> rusqlite::Result<()> {
        if excess.is_empty() {
            return Ok(());
        }
        let mut dropping: HashMap<Topic, u64> = HashMap::new();
        for DroppedEvent { sequence, topic, .. } in excess {
            let Some(topic) = topic else { continue };
            let newest = dropping.entry(topic.clone()).or_default();
            *newest = (*sequence).max(*newest);
        }
        // Readers see the index and the database at different moments, so they wait meanwhile.
        let dropping = Arc::new(dropping);
        self.shared.index.lock().dropping = Arc::clone(&dropping);
        let result = self.delete(excess, &dropping);
        {
            let index = &mut *self.shared.index.lock();
            index.dropping = Arc::default();
            if let Ok(oldest) = &result {
                for (topic, newest) in dropping.iter() {
                    if let Some(entry) = index.topics.get(topic) {
                        index.topics.set_dropped(&entry, *newest);
                    }
                }
                for DroppedEvent { topic, bytes, .. } in excess {
                    let topic = topic.as_ref();
                    if let Some(entry) = topic.and_then(|topic| index.topics.get(topic)) {
                        entry.remove(*bytes);
                        index.count = index.count.saturating_sub(1);
                    }
                }
                if let Some(newest) = newest_without_topic(excess) {
                    index.topics.forget_up_to(newest);
                }
                index.start = oldest.map_or(index.newest, |oldest| oldest - 1);
                index.ages.forget(index.start);
                index.times.forget(index.start);
            }
        }
        let topics = Arc::clone(&self.shared.index.lock().topics);
        topics.note(dropping.keys());
        // There may be no log to be read any more.
        let _ = self.dropped.send(());
        result.map(|_| ())
    }

    /// Deletes events, of which `newest` has the newest of each topic. Returns the sequence number
    /// of the oldest event that is left.
    fn delete(
        &mut self,
        events: &[DroppedEvent],
        newest: &HashMap<Topic, u64>,
    ) -> rusqlite::Result<Option<u64>> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            // One statement for many events takes SQLite less time for each.
            let mut delete = transaction
                .prepare_cached("DELETE FROM events WHERE sequence BETWEEN ?1 AND ?2")?;
            let mut sequences: Vec<_> = events.iter().map(|event| event.sequence).collect();
            sequences.sort_unstable();
            for run in sequences.chunk_by(|before, next| before + 1 == *next) {
                delete.execute((run.first(), run.last()))?;
            }
            let mut update =
                transaction.prepare_cached("UPDATE topics SET dropped = ?2 WHERE topic = ?1")?;
            for (topic, sequence) in newest {
                update.execute((topic.as_str(), sequence))?;
            }
            if let Some(newest) = newest_without_topic(events) {
                let update = "UPDATE log SET forgotten = max(forgotten, ?1)";
                transaction.execute(update, [newest])?;
            }
        }
        let oldest =
            transaction.query_one("SELECT min(sequence) FROM events", [], |row| row.get(0))?;
        transaction.commit()?;
        Ok(oldest)
    }

    /// Returns events that exceed the retention, at most `limit`, each once. For a mirror, `time`
    /// is that of an entry. If it drops these events again and again until none is left, the
    /// remaining ones do not depend on the limit, nor on a restart in between.
    pub(super) fn excess(&self, limit: usize, time: Option<Timestamp>) -> rusqlite::Result<Excess> {
        let is_mirror = time.is_some();
        let now = time.unwrap_or_else(|| (self.now)());
        let (mut excess, mut seen) = (Vec::new(), HashSet::new());
        let (mut over_count, mut due, mut own_ages) = (Vec::new(), Vec::new(), HashSet::new());
        let all = self.shared.index.lock().topics.all();
        for entry in &all {
            let bounds = entry.bounds(&self.retention);
            let count = entry.count();
            if count > bounds.count {
                over_count.push((entry, count - bounds.count));
            }
            let Some(age) = bounds.own_age.filter(|_| count > 0) else { continue };
            own_ages.insert(entry.place);
            let oldest = entry.kept().oldest;
            if oldest.is_none_or(|(_, time)| !is_young(time, now, age)) {
                due.push((entry, age));
            }
        }
        let mut oldest = self.connection.prepare_cached(
            "SELECT sequence, octet_length(data) FROM events
             WHERE topic = ?1 ORDER BY sequence LIMIT ?2",
        )?;
        for (entry, over) in over_count {
            let count = over.min(limit - excess.len());
            let mut rows = oldest.query((entry.place, count))?;
            while let Some(row) = rows.next()? {
                let (sequence, bytes): (_, Option<usize>) = (row.get(0)?, row.get(1)?);
                seen.insert(sequence);
                let (topic, bytes) = (Some(entry.topic.clone()), bytes.unwrap_or_default());
                excess.push(DroppedEvent { sequence, topic, bytes });
            }
        }
        // A mirror must find all of them.
        let max_due = if is_mirror { usize::MAX } else { 2 * limit };
        let mut is_all = due.len() <= max_due;
        for (entry, age) in due.into_iter().take(max_due) {
            if excess.len() < limit {
                is_all &= self.add_too_old((entry, age), now, limit, (&mut excess, &mut seen))?;
            }
        }

        // The times of entries never go back, so the oldest event is enough to decide. Imported
        // events may come from a clock that was ahead, which shows nothing: without marks, a later
        // event must show that these are too old.
        let mut undecided = Vec::new();
        let (marked, too_old, bytes) = if is_mirror {
            (0, u64::MAX, self.kept_bytes())
        } else {
            let marked = self.shared.index.lock().ages.newest_too_old(now);
            (marked, marked.max(self.unmarked), self.used_bytes()?)
        };
        let of_excess: usize = excess.iter().map(|event| event.bytes + OVERHEAD).sum();
        let mut over_bytes = bytes.saturating_sub(of_excess + self.retention.bytes);
        let mut oldest = self.connection.prepare_cached(
            "SELECT sequence, topics.topic, octet_length(data), time, events.topic
             FROM events LEFT JOIN topics ON topics.id = events.topic
             WHERE sequence > ?1 ORDER BY sequence",
        )?;
        // The general age does not decide on topics with an age of their own. Those at the
        // beginning of the log are looked at once.
        let mut is_beginning = over_bytes == 0;
        let mut others = if is_mirror { usize::MAX } else { MAX_OTHERS * limit };
        let mut rows = oldest.query([if is_beginning { self.passed.get() } else { 0 }])?;
        while excess.len() < limit
            && let Some(row) = rows.next()?
        {
            let sequence: u64 = row.get(0)?;
            let has_own_age = || row.get(4).is_ok_and(|place| own_ages.contains(&place));
            if over_bytes == 0 && sequence <= too_old && has_own_age() {
                if others == 0 {
                    is_all = false;
                    break;
                }
                others -= 1;
                if is_beginning {
                    self.passed.set(sequence);
                }
                continue;
            }
            is_beginning = false;
            // A damaged event may have no time.
            let time = row.get(3).ok().map(Timestamp::from_millis);
            let is_young = time.is_some_and(|time| is_young(time, now, self.retention.age));
            if (sequence > too_old || is_young) && over_bytes == 0 {
                break;
            }
            let bytes = row.get::<_, Option<usize>>(2)?.unwrap_or_default();
            if !seen.insert(sequence) {
                continue;
            }
            // A damaged event may have no topic.
            let topic = row.get_ref(1)?.as_str().ok().and_then(|topic| topic.parse().ok());
            let dropped = DroppedEvent { sequence, topic, bytes };
            if sequence > marked && over_bytes == 0 && time.is_some_and(|time| time > now) {
                undecided.push(dropped);
                continue;
            }
            over_bytes = over_bytes.saturating_sub(bytes + OVERHEAD);
            excess.append(&mut undecided);
            excess.push(dropped);
        }
        is_all &= excess.len() < limit;
        excess.truncate(limit);
        Ok(Excess { events: excess, is_all })
    }

    /// Adds the events of a topic that are too old by its own age. An event with a time in the
    /// future is too old if a later one is, unless too many are between. Returns `false` if there
    /// may be more.
    fn add_too_old(
        &self,
        (entry, age): (&TopicEntry<i64>, Duration),
        now: Timestamp,
        limit: usize,
        (excess, seen): (&mut Vec<DroppedEvent>, &mut HashSet<u64>),
    ) -> rusqlite::Result<bool> {
        let max = limit.max(SLICE);
        let mut oldest = self.connection.prepare_cached(
            "SELECT sequence, octet_length(data), time FROM events
             WHERE topic = ?1 ORDER BY sequence LIMIT ?2",
        )?;
        let mut rows = oldest.query((entry.place, max))?;
        let (mut undecided, mut count, mut is_dropping) = (Vec::new(), 0, false);
        while let Some(row) = rows.next()? {
            let sequence: u64 = row.get(0)?;
            let bytes = row.get::<_, Option<usize>>(1)?.unwrap_or_default();
            // A damaged event may have no time.
            let time = row.get(2).ok().map(Timestamp::from_millis);
            if let Some(time) = time.filter(|time| is_young(*time, now, age)) {
                if count == 0 {
                    // Until it is too old, nobody has to look again.
                    entry.set_oldest((sequence, time));
                }
                return Ok(true);
            }
            count += 1;
            if seen.contains(&sequence) {
                is_dropping = true;
                continue;
            }
            undecided.push(DroppedEvent { sequence, topic: Some(entry.topic.clone()), bytes });
            if time.is_none_or(|time| time <= now) {
                is_dropping = true;
                seen.extend(undecided.iter().map(|event| event.sequence));
                excess.append(&mut undecided);
            }
        }
        Ok(count < max || !is_dropping)
    }

    /// Returns the size of the used pages of the file, without those of topics and ends. The number
    /// of topics bounds these, and to drop events would not make them fewer.
    fn used_bytes(&self) -> rusqlite::Result<usize> {
        let pages = self.pragma("page_count")? - self.pragma("freelist_count")?;
        let used = pages * self.pragma("page_size")?;
        if used <= self.retention.bytes {
            return Ok(used);
        }
        let of_topics = match self.topic_bytes.get() {
            Some(bytes) => bytes,
            None => self.count_topic_bytes()?,
        };
        self.topic_bytes.set(Some(of_topics));
        Ok(used.saturating_sub(of_topics))
    }

    /// Returns the size of the pages of topics and ends.
    fn count_topic_bytes(&self) -> rusqlite::Result<usize> {
        let mut size = self.connection.prepare_cached(
            "SELECT coalesce(sum(pgsize), 0) FROM dbstat
             WHERE name IN ('topics', 'sqlite_autoindex_topics_1', 'ends', 'end_keys')
                 AND aggregate = TRUE",
        )?;
        // Of a damaged table, all pages count.
        Ok(size.query_one([], |row| row.get(0)).unwrap_or_default())
    }

    /// Returns the size of the unused pages of the file.
    fn unused_bytes(&self) -> rusqlite::Result<usize> {
        Ok(self.pragma("freelist_count")? * self.pragma("page_size")?)
    }

    /// Returns at most `max` unused pages to the file system if they are more than a quarter of the
    /// file. A failure costs room, but keeps no old events.
    fn release_pages(&self, max: usize) {
        let release = || {
            let (unused, all) = (self.pragma("freelist_count")?, self.pragma("page_count")?);
            if unused > max && unused > all / 4 { self.vacuum(max) } else { Ok(()) }
        };
        if let Err(error) = release() {
            tracing::warn!(%error, "unused pages of the event log could not be released");
        }
    }

    fn vacuum(&self, pages: usize) -> rusqlite::Result<()> {
        let vacuum = format!("PRAGMA incremental_vacuum({pages})");
        let mut vacuum = self.connection.prepare(&vacuum)?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }
}

/// Returns the newest event whose topic does not exist, since it is damaged.
fn newest_without_topic(events: &[DroppedEvent]) -> Option<u64> {
    let without = events.iter().filter(|event| event.topic.is_none());
    without.map(|event| event.sequence).max()
}
