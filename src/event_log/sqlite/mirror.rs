//! The place of a mirror in a cluster's order, as the database has it.

use std::collections::{HashMap, HashSet, VecDeque};

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use crate::{
    event_log::{
        entry::{
            Entry, ImportId, ImportProgress, Mark, Mirrored, OrderPlace, Proposal, Sequenced, Tag,
            WireRetention,
        },
        retention::Retention,
    },
    timestamp::Timestamp,
};

/// Number of positions after which a mirror drops what exceeds the retention.
const TIDY_POSITIONS: u64 = 16;
/// Time after which it does so, too, in milliseconds.
const TIDY_MILLIS: u64 = 10_000;
/// Number of positions after which a mirror remembers its place.
const MARK_POSITIONS: u64 = if cfg!(test) { 8 } else { 1024 };
/// Maximum number of senders whose proposals are told apart. A sender is one life of a process.
const MAX_SENDERS: usize = 1000;
/// Number of the last places whose digests are compared with those that other nodes have seen.
const RECENT: usize = 4096;

/// Adds the place before the first entry, without an import.
const BEGIN: &str =
    "INSERT INTO mirror VALUES ('', 0, 0, 0, 0, '', 0, NULL, NULL, NULL, NULL, '[]')";

/// The place of a mirror in a cluster's order.
pub(super) struct Mirror {
    pub stream: String,
    pub place: OrderPlace,
    /// The digest of the last entry.
    pub last: u64,
    /// The time of the last entry. Times of entries never go back.
    pub time: Timestamp,
    /// The retention of all nodes; `None` before the first entry.
    pub retention: Option<Retention>,
    /// The part of the order up to a snapshot's place, while a node joins.
    pub joining: Option<Joining>,
    /// `true` once a new epoch has begun. The log must be opened again.
    pub is_over: bool,
    /// The place that the sender of the last entry had seen, if this log has other entries there.
    doubt: Option<OrderPlace>,
    /// The import of the log of a single process, if there was one.
    pub import: Option<ImportProgress>,
    /// `true` from the first part of the import until the order begins.
    pub is_importing: bool,
    /// The number of the last proposal of each sender, and its position.
    senders: HashMap<String, (u64, u64)>,
    recent: VecDeque<OrderPlace>,
}

/// The outcomes of entries that a node cannot decide on, since it does not have those before.
pub(super) struct Joining {
    /// The drafts that are no new events, as in a snapshot.
    pub refused: HashSet<(u64, i64)>,
}

/// The progress that an entry makes.
pub(super) struct EntryStep<'a> {
    pub place: OrderPlace,
    last: u64,
    /// The state before the step, if it is to be remembered.
    mark: Option<Mark>,
    pub time: Timestamp,
    tag: &'a Tag,
    /// As in the mirror after the step.
    doubt: Option<OrderPlace>,
    /// The sender that makes room for that of the tag.
    forgotten: Option<String>,
}

impl Mirror {
    /// Reads the place from the database. Returns `None` if the log mirrors nothing.
    pub fn read(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let select =
            "SELECT stream, position, digest, last, time, retention, is_joining FROM mirror";
        let read = connection.query_row(select, [], |row| {
            let digest = |column| row.get(column).map(i64::cast_unsigned);
            let place = OrderPlace { position: row.get(1)?, digest: digest(2)? };
            let time = Timestamp::from_millis(row.get(4)?);
            let retention = serde_json::from_str::<WireRetention>(row.get_ref(5)?.as_str()?);
            let retention =
                retention.ok().and_then(|retention| Retention::try_from(retention).ok());
            let joining = row.get::<_, bool>(6)?.then(|| Joining { refused: HashSet::new() });
            Ok((row.get(0)?, place, digest(3)?, time, retention, joining))
        });
        let Some((stream, place, last, time, retention, joining)) = read.optional()? else {
            return Ok(None);
        };
        let mut select = connection.prepare("SELECT sender, number, position FROM senders")?;
        let senders = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        let senders = senders.collect::<rusqlite::Result<_>>()?;
        let recent = VecDeque::from([place]);
        let (is_over, doubt) = (false, None);
        let import = read_import(connection)?;
        let is_importing = import.is_some() && retention.is_none();
        Ok(Some(Self {
            stream,
            place,
            last,
            time,
            retention,
            joining,
            is_over,
            doubt,
            import,
            is_importing,
            senders,
            recent,
        }))
    }

    /// Makes a log a mirror that has no entries yet.
    pub fn begin(connection: &Connection) -> rusqlite::Result<()> {
        connection.execute(BEGIN, []).map(|_| ())
    }

    /// Returns the part that others see.
    pub fn mirrored(&self) -> Mirrored {
        let Self { stream, place, last, retention, joining, doubt, import, .. } = self;
        Mirrored {
            stream: stream.clone(),
            place: *place,
            last: *last,
            retention: retention.clone(),
            is_joining: joining.is_some(),
            doubt: *doubt,
            import: import.clone(),
        }
    }

    /// Returns the state at the place, whose newest sequence number is `newest`.
    pub fn mark(&self, newest: u64) -> Mark {
        let Self { place, last, time, .. } = self;
        Mark { place: *place, last: *last, time_ms: time.as_millis(), newest }
    }

    /// Returns the progress that an entry makes.
    pub fn step<'a>(&self, entry: &'a Sequenced, newest: u64) -> EntryStep<'a> {
        let Proposal { tag, seen, .. } = &entry.proposal;
        let time = self.time.max(entry.time);
        let doubt = Some(*seen).filter(|seen| self.has_diverged(*seen));
        let (place, forgotten) = (self.place.after(entry), self.to_forget(tag));
        let is_marked = self.place.position / MARK_POSITIONS != place.position / MARK_POSITIONS;
        let mark = is_marked.then(|| self.mark(newest));
        EntryStep { place, last: entry.digest, mark, time, tag, doubt, forgotten }
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

    /// Returns `true` if all nodes drop what exceeds the retention before the step. During an
    /// import, the retention is not known yet.
    pub fn is_tidy_due(&self, step: &EntryStep<'_>) -> bool {
        let is_next = self.place.position / TIDY_POSITIONS != step.place.position / TIDY_POSITIONS
            || self.time.as_millis() / TIDY_MILLIS != step.time.as_millis() / TIDY_MILLIS;
        is_next && !self.is_importing
    }

    /// Returns `true` if the state of the order admits a change. The order begins once. Before
    /// that, the log of a single process may be imported. Then the order begins with all of it.
    pub fn admits(&self, change: &Entry) -> bool {
        let has_begun = self.retention.is_some();
        match change {
            Entry::Begin { epoch, .. } => {
                let is_with = |import: &ImportProgress| {
                    import.is_complete && import.log.epoch == epoch.to_string()
                };
                !has_begun && self.import.as_ref().is_none_or(is_with)
            }
            Entry::Import(part) => !has_begun && part.follows(self.import.as_ref()),
            // Others are of nodes that have followed another stream before.
            _ => has_begun,
        }
    }

    /// Returns `true` if a node that has seen the place has not applied the same entries.
    fn has_diverged(&self, seen: OrderPlace) -> bool {
        let found = self.recent.binary_search_by_key(&seen.position, |place| place.position);
        found.is_ok_and(|number| self.recent[number].digest != seen.digest)
    }

    /// Returns `true` if a later proposal of its sender precedes this one, or the same.
    pub fn is_too_late(&self, tag: &Tag) -> bool {
        self.senders.get(&tag.sender).is_some_and(|(last, _)| tag.number <= *last)
    }

    /// Returns the senders with the numbers of their last proposals, and the positions of these.
    pub fn senders(&self) -> impl Iterator<Item = (String, u64, u64)> {
        let senders = self.senders.iter();
        senders.map(|(sender, (number, position))| (sender.clone(), *number, *position))
    }

    pub fn advance(&mut self, step: EntryStep<'_>) {
        (self.place, self.last, self.time) = (step.place, step.last, step.time);
        self.doubt = step.doubt;
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

fn read_import(connection: &Connection) -> rusqlite::Result<Option<ImportProgress>> {
    let select = "SELECT imported_epoch, imported_digest, imported_up_to, is_imported FROM mirror
                  WHERE imported_epoch IS NOT NULL";
    let read = connection.query_row(select, [], |row| {
        let digest = row.get(1).map(i64::cast_unsigned)?;
        let log = ImportId { epoch: row.get(0)?, digest };
        Ok(ImportProgress { log, up_to: row.get(2)?, is_complete: row.get(3)? })
    });
    read.optional()
}

impl Mark {
    /// Writes the place, for later snapshots and comparisons.
    pub(super) fn record(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let Self { place, last, time_ms, newest } = self;
        let digests = (place.digest.cast_signed(), last.cast_signed());
        let mark = (place.position, digests.0, digests.1, time_ms, newest);
        let insert = "INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3, ?4, ?5)";
        transaction.execute(insert, mark).map(|_| ())
    }
}

impl EntryStep<'_> {
    /// Writes the place.
    pub fn record(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let OrderPlace { position, digest } = self.place;
        let mut update = transaction
            .prepare_cached("UPDATE mirror SET position = ?1, digest = ?2, last = ?3, time = ?4")?;
        let digests = (digest.cast_signed(), self.last.cast_signed());
        update.execute((position, digests.0, digests.1, self.time.as_millis()))?;
        if let Some(mark) = self.mark {
            mark.record(transaction)?;
        }
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
