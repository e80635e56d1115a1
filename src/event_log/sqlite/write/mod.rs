//! Writing: the one thread that appends events and, between two appends, drops those that exceed
//! the retention.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `append` | a transaction that appends events |
//! | `apply` | applying the entries of a cluster's order |
//! | `import` | the log of a single process that becomes the beginning of that order |
//! | `journal` | the size of SQLite's journal |
//! | `snapshot` | the state of a mirror without its events |
//! | `retention` | the dropping of events, and the room that the files take |

mod append;
mod apply;
pub(super) mod import;
mod journal;
mod retention;
mod snapshot;

use std::{
    cell::Cell,
    error::Error,
    fs::File,
    mem::discriminant,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{oneshot, watch};

use super::{
    error::may_lack_room,
    files::{self, Place},
    index::Index,
    life_file::LifeFile,
    mirror::Mirror,
    readers::ReaderThreads,
    reserve::{Reserve, provide_blocks},
    schema,
};
use crate::{
    event::{Draft, Event, Topic},
    event_log::{
        entry::{EntryOutcome, Mirrored, Sequenced},
        retention::Retention,
        size::{CommitObserver, DiskSize},
        store::{Appended, Condition, EventLogError, Rejected},
        topics::{TopicChanges, TopicEntry},
    },
    timestamp::Timestamp,
};
use append::{AppendTransaction, Placed};

/// Interval of tidying up while few events are appended.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum interval of tidying up.
const MIN_TIDY_INTERVAL: Duration = Duration::from_millis(100);
/// Volume of appends that makes tidying up urgent.
const URGENT: AppendVolume = AppendVolume { events: 1000, bytes: 8 << 20 };
/// Interval of the checks that find out what works.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Time without an append after which a check also commits.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// Number of events that are dropped at a time, unless more than half as many were appended in the
/// meantime.
const SLICE: usize = 500;
/// Approximate size of an event in the file without its data, in bytes.
const OVERHEAD: usize = 64;

/// A command to the writer, with the channel for its reply.
pub(super) enum Command {
    Append {
        drafts: Vec<Draft>,
        time: Timestamp,
        reply: oneshot::Sender<Result<Vec<Result<Appended, Rejected>>, EventLogError>>,
    },
    /// Deletes a slice of a topic's events up to the sequence number `newest`, and replies with the
    /// number of events in it.
    Delete { topic: Topic, newest: u64, reply: oneshot::Sender<Result<usize, EventLogError>> },
    /// Does something else, such as a change to a mirror.
    Mirror(Box<dyn FnOnce(&mut Writer) + Send>),
    /// Applies an entry of a cluster's order.
    Apply { entry: Arc<Sequenced>, reply: oneshot::Sender<Result<EntryOutcome, EventLogError>> },
    #[cfg(test)]
    Tidy(oneshot::Sender<()>),
    #[cfg(test)]
    Probe(oneshot::Sender<()>),
    #[cfg(test)]
    Panic(#[expect(dead_code, reason = "it is dropped")] oneshot::Sender<()>),
    /// Works until the sender of `until` is dropped.
    #[cfg(test)]
    Work { until: Receiver<()>, reply: oneshot::Sender<()> },
    #[cfg(test)]
    LimitPages { pages: Option<u32>, reply: oneshot::Sender<()> },
}

/// The parts of a log that the writer shares with the readers.
#[derive(Clone)]
pub(super) struct Shared {
    pub index: Arc<Mutex<Index>>,
    pub condition: Arc<Mutex<Condition>>,
    /// The time since which the writer has worked without a pause; `None` while it waits.
    pub busy_since: Arc<Mutex<Option<Instant>>>,
    pub readers: Arc<ReaderThreads>,
    /// The progress of a mirror; `None` for the log of one process.
    pub mirrored: Arc<Mutex<Option<Mirrored>>>,
    /// The size of the files, which the writer measures: a volume that hangs stops no one else.
    pub disk: Arc<Mutex<DiskSize>>,
    pub commits: CommitObserver,
}

/// The only connection that writes to the database.
pub(super) struct Writer {
    connection: Connection,
    life_file: LifeFile,
    /// The log's files, which must stay where they are.
    place: Place,
    /// The file that SQLite writes before the database.
    journal: PathBuf,
    /// Size that the journal has before it is written; 0 to let it grow.
    journal_bytes: u64,
    shared: Shared,
    retention: Retention,
    /// Up to this sequence number, all kept events are of topics with an age of their own.
    passed: Cell<u64>,
    /// Up to this sequence number, all kept events were passed before the retention was changed.
    /// The marks of their ages are forgotten.
    unmarked: u64,
    /// The place in a cluster's order, if the log is a mirror.
    mirror: Option<Mirror>,
    now: Box<dyn Fn() -> Timestamp + Send>,
    /// Notified when events are no longer being dropped. Its end tells that the writer has stopped.
    dropped: watch::Sender<()>,
    reserve: Reserve,
    /// Time of the last attempt to make room, if it was in vain.
    without_room: Option<Instant>,
    /// Size of the pages of topics and ends, in bytes, until these change. To count the pages takes
    /// a walk through all of them.
    topic_bytes: Cell<Option<usize>>,
    /// Volume of the appends since the last tidying up.
    appended: AppendVolume,
    tidied: Instant,
    /// `true` if the last tidying up did not drop all the excess.
    is_untidy: bool,
    /// `true` if the indexes of the events were built again.
    is_reindexed: bool,
    /// Time of the last forced checkpoint.
    checkpointed: Instant,
    probed: Instant,
    /// Time of the last append or check that has committed; `None` at the start.
    committed: Option<Instant>,
    /// The journal's index. Dropped after the connection.
    _mapped: Option<File>,
}

#[derive(Clone, Copy, Default)]
struct AppendVolume {
    events: usize,
    bytes: usize,
}

/// A change that is made in the transaction of an append, whose results it gets.
type Change<'a> =
    dyn Fn(&Transaction<'_>, &[Result<Placed, Rejected>]) -> rusqlite::Result<()> + 'a;

/// An attempt to append that has failed.
struct FailedAttempt {
    error: rusqlite::Error,
    /// `true` if the events may be in the journal, where a restart would find them.
    may_be_stored: bool,
}

impl From<rusqlite::Error> for FailedAttempt {
    fn from(error: rusqlite::Error) -> Self {
        Self { error, may_be_stored: false }
    }
}

impl FailedAttempt {
    fn of_commit(error: rusqlite::Error) -> Self {
        // On a full disk the last page is incomplete. After any other error, such as one of the
        // sync, all may have been written.
        let may_be_stored = error.sqlite_error_code() != Some(ErrorCode::DiskFull);
        Self { error, may_be_stored }
    }
}

impl Writer {
    pub fn new(
        connection: Connection,
        life_file: LifeFile,
        shared: Shared,
        mut reserve: Reserve,
        retention: Retention,
        now: impl Fn() -> Timestamp + Send + 'static,
        dropped: watch::Sender<()>,
    ) -> rusqlite::Result<Self> {
        let database = &life_file.database;
        let place = ["", "-wal", "-shm"].map(|suffix| files::beside(database, suffix));
        let place = Place::of(place.into_iter().chain([life_file.path()]));
        let journal = files::beside(database, "-wal");
        // The journal must not need more room than the reserve has.
        let page_size: u64 =
            connection.pragma_query_value(None, "page_size", |row| row.get::<_, u64>(0))?;
        let pages = (reserve.bytes() / 8 / page_size).clamp(16, 1000);
        connection.pragma_update(None, "wal_autocheckpoint", pages)?;
        let journal_bytes =
            if reserve.bytes() > 0 { journal::usual_bytes(pages, page_size) } else { 0 };
        let mirror = Mirror::read(&connection)?;
        if let Some(mirror) = &mirror {
            // The cluster has the entries on its disks, and a mirror continues where it was.
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            *shared.mirrored.lock() = Some(mirror.mirrored());
        }
        let of_mirror = mirror.as_ref().and_then(|mirror| mirror.retention.clone());
        let retention = of_mirror.unwrap_or(retention);
        let mapped = provide_blocks(&files::beside(database, "-shm"));
        reserve.hold();
        let started = Instant::now();
        Ok(Self {
            connection,
            life_file,
            place,
            journal,
            journal_bytes,
            shared,
            retention,
            passed: Cell::new(0),
            unmarked: 0,
            mirror,
            now: Box::new(now),
            dropped,
            reserve,
            without_room: None,
            topic_bytes: Cell::new(None),
            appended: AppendVolume::default(),
            tidied: started,
            is_untidy: true,
            is_reindexed: false,
            checkpointed: started,
            probed: started,
            committed: None,
            _mapped: mapped,
        })
    }

    /// Executes commands until the last sender is dropped.
    #[expect(clippy::needless_pass_by_value, reason = "the channel must close before it ends")]
    pub fn run(mut self, commands: Receiver<Command>) {
        // Before the first client asks.
        self.probe();
        self.extend_journal();
        loop {
            *self.shared.busy_since.lock() = None;
            let command = commands.recv_timeout(self.until_tidy().min(self.until_probe()));
            *self.shared.busy_since.lock() = Some(Instant::now());
            match command {
                Ok(Command::Append { drafts, time, reply }) => {
                    let result = self.append(drafts, time);
                    self.report(result.as_ref().err().cloned());
                    // The caller may have stopped waiting.
                    let _ = reply.send(result);
                }
                Ok(Command::Delete { topic, newest, reply }) => {
                    let _ = reply.send(self.delete_slice(&topic, newest));
                }
                Ok(Command::Mirror(work)) => work(&mut self),
                Ok(Command::Apply { entry, reply }) => {
                    let result = self.apply(&entry);
                    self.report(result.as_ref().err().cloned());
                    let _ = reply.send(result);
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
                Ok(Command::Probe(reply)) => {
                    self.probe();
                    let _ = reply.send(());
                }
                #[cfg(test)]
                Ok(Command::Panic(_)) => panic!("as the test wants it"),
                #[cfg(test)]
                Ok(Command::Work { until, reply }) => {
                    let _ = reply.send(());
                    let _ = until.recv();
                }
                #[cfg(test)]
                Ok(Command::LimitPages { pages, reply }) => {
                    let pages = pages.unwrap_or(u32::MAX - 1);
                    self.connection.pragma_update(None, "max_page_count", pages).unwrap();
                    let _ = reply.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // SQLite cleans up when the last connection closes, which must be this one.
                    return self.shared.readers.stop();
                }
            }
            if self.appended.bytes >= self.max_overshoot() {
                self.drop_overshoot();
            } else if self.until_tidy().is_zero() {
                self.tidy();
            }
            if self.until_probe().is_zero() {
                self.probe();
            }
        }
    }

    /// Appends events. If the disk is full, it makes room and tries once more.
    fn append(
        &mut self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> Result<Vec<Result<Appended, Rejected>>, EventLogError> {
        self.append_with(drafts, time, None, &|_, _| Ok(()))
    }

    /// Appends events together with another change. While a node joins, the snapshot tells which
    /// drafts of the entry at `position` are new events.
    fn append_with(
        &mut self,
        drafts: Vec<Draft>,
        time: Timestamp,
        position: Option<u64>,
        change: &Change<'_>,
    ) -> Result<Vec<Result<Appended, Rejected>>, EventLogError> {
        if !self.place.is_kept() {
            return Err(EventLogError::Misplaced);
        }
        if self.reserve.is_short() {
            self.reserve.hold();
            if self.reserve.is_short() && !self.make_room() {
                return Err(EventLogError::DiskFull);
            }
        }
        let mut result = self.try_append(&drafts, time, position, change);
        let mut may_be_stored = false;
        if let Err(failed) = &result
            && may_lack_room(&failed.error)
            && self.make_room()
        {
            may_be_stored = failed.may_be_stored;
            result = self.try_append(&drafts, time, position, change);
        }
        let FailedAttempt { error, may_be_stored: may_be_stored_now } = match result {
            Ok(placed) => return Ok(self.appended(drafts, placed)),
            Err(failed) => failed,
        };
        // The next commit overwrites what failed ones have left in the journal.
        if (may_be_stored || may_be_stored_now) && self.commit_nothing().is_err() {
            return Err(EventLogError::unconfirmed(error));
        }
        Err(self.classify(error))
    }

    fn try_append(
        &mut self,
        drafts: &[Draft],
        time: Timestamp,
        position: Option<u64>,
        change: &Change<'_>,
    ) -> Result<Vec<Result<Placed, Rejected>>, FailedAttempt> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let index = &self.shared.index;
        let mut append =
            AppendTransaction::begin(&transaction, index, self.retention.topics, time)?;
        let mut results = Vec::with_capacity(drafts.len());
        let joining = self.mirror.as_ref().and_then(|mirror| mirror.joining.as_ref());
        if let (Some(joining), Some(position)) = (joining, position) {
            for (draft, number) in drafts.iter().zip(0..) {
                let is_refused = joining.refused.contains(&(position, number));
                results.push(append.append_decided(draft, is_refused)?);
            }
        } else {
            for draft in drafts {
                results.push(append.append(draft)?);
            }
        }
        let (TopicChanges { added, forgotten, ends, .. }, newest) = append.finish()?;
        change(&transaction, &results)?;
        let committed = self.shared.commits.time(|| transaction.commit());
        committed.map_err(FailedAttempt::of_commit)?;
        if !(added.is_empty() && forgotten.is_empty() && ends.is_empty()) {
            self.topic_bytes.set(None);
        }

        let index = &mut *self.shared.index.lock();
        if index.start == index.newest {
            // No event was kept. Ends are no events.
            let is_new_event = |(placed, draft): (&Result<Placed, _>, &Draft)| match placed {
                Ok(Placed { sequence, is_duplicate: false, .. }) => {
                    (!draft.name.is_topic_end()).then_some(*sequence)
                }
                _ => None,
            };
            let first = results.iter().zip(drafts).find_map(is_new_event);
            index.start = first.map_or(newest, |first| first - 1);
        }
        for topic in &forgotten {
            index.topics.forget(topic);
        }
        for (topic, row_id) in added {
            index.topics.add(topic, row_id);
        }
        // Most drafts have the topic of the one before them.
        let mut last: Option<Arc<TopicEntry<i64>>> = None;
        for (placed, draft) in results.iter().zip(drafts) {
            if last.as_ref().is_none_or(|last| last.topic != draft.topic) {
                last = index.topics.get(&draft.topic);
            }
            if let Ok(Placed { sequence, is_duplicate: false, .. }) = placed
                && !draft.name.is_topic_end()
                && let Some(entry) = &last
            {
                entry.add((*sequence, time), draft.data.len());
                index.count += 1;
                self.appended.events += 1;
                self.appended.bytes += draft.data.len() + OVERHEAD;
            }
        }
        for (topic, end) in ends {
            index.topics.set_end(&topic, end);
        }
        if newest > index.newest {
            index.newest = newest;
            index.ages.add(newest, time);
            index.times.add(newest, time);
        }
        self.life_file.record(newest);
        self.committed = Some(Instant::now());
        Ok(results)
    }

    /// Returns the results of a successful append.
    fn appended(
        &self,
        drafts: Vec<Draft>,
        placed: Vec<Result<Placed, Rejected>>,
    ) -> Vec<Result<Appended, Rejected>> {
        let index = self.shared.index.lock();
        let appended = |(draft, placed): (Draft, Result<Placed, Rejected>)| {
            let Placed { sequence, time, is_duplicate } = placed?;
            let Draft { topic, name, data, .. } = draft;
            let event = Event { id: index.id(sequence), topic, name, data, time };
            Ok(Appended { event, is_duplicate })
        };
        drafts.into_iter().zip(placed).map(appended).collect()
    }

    /// Commits a transaction that changes nothing.
    fn commit_nothing(&mut self) -> rusqlite::Result<()> {
        // SQLite writes the page even if the number is the same.
        schema::set_application_id(&self.connection)?;
        self.committed = Some(Instant::now());
        Ok(())
    }

    /// Returns the time until the next check of what works.
    fn until_probe(&self) -> Duration {
        PROBE_INTERVAL.saturating_sub(self.probed.elapsed())
    }

    /// Finds out what works, if nothing has shown it lately.
    fn probe(&mut self) {
        self.probed = Instant::now();
        self.measure_disk();
        let read_error = self.shared.readers.check().err().map(EventLogError::from);
        let has_failed = {
            let condition = &mut *self.shared.condition.lock();
            if let (None, Some(error)) = (&condition.read_error, &read_error) {
                tracing::error!(error = error as &dyn Error, "the event log cannot be read");
            }
            condition.read_error = read_error;
            condition.append_error.is_some()
        };
        let is_idle = self.committed.is_none_or(|committed| committed.elapsed() >= IDLE_TIME);
        if has_failed || is_idle || !self.place.is_kept() {
            let result = self.check_append();
            self.report(result.err());
        }
    }

    /// Measures the files and their volume.
    fn measure_disk(&self) {
        let database = &self.life_file.database;
        let files = ["", "-wal", "-shm"].map(|suffix| files::beside(database, suffix));
        let files = files.into_iter().chain([self.life_file.path()]);
        let sizes = files.filter_map(|file| Some(file.metadata().ok()?.len()));
        let files = sizes.sum::<u64>() + self.reserve.held();
        // A file system that tells nothing counts as one without a size.
        let (volume, free) = self.reserve.volume().unwrap_or_default();
        *self.shared.disk.lock() = DiskSize { files, volume, free };
    }

    /// Checks that an append can be expected to succeed.
    fn check_append(&mut self) -> Result<(), EventLogError> {
        if !self.place.is_kept() {
            return Err(EventLogError::Misplaced);
        }
        self.reserve.hold();
        if !self.reserve.has_room() && !self.make_room() {
            return Err(EventLogError::DiskFull);
        }
        let result = self.try_insert().and_then(|()| self.commit_nothing());
        result.map_err(|error| self.classify(error))
    }

    /// Inserts an event, and takes it back. A damaged page may fail this, but not an empty commit.
    fn try_insert(&mut self) -> rusqlite::Result<()> {
        let time = (self.now)();
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (index, max_topics) = (&self.shared.index, self.retention.topics);
        let draft = Draft::new(Topic::clock(), "");
        // A rejected draft is no failure.
        let _ = AppendTransaction::begin(&transaction, index, max_topics, time)?.append(&draft)?;
        transaction.rollback()
    }

    /// Records the outcome of an append or of a check. Prints each change.
    fn report(&self, error: Option<EventLogError>) {
        let known = &mut self.shared.condition.lock().append_error;
        match (&known, &error) {
            (Some(known), Some(error)) if discriminant(known) == discriminant(error) => {}
            (_, Some(error)) => {
                tracing::error!(error = error as &dyn Error, "events cannot be stored");
            }
            (Some(_), None) => tracing::info!("events can be stored again"),
            (None, None) => {}
        }
        *known = error;
    }

    fn classify(&self, error: rusqlite::Error) -> EventLogError {
        if may_lack_room(&error) && self.reserve.is_full() {
            return EventLogError::DiskFull;
        }
        error.into()
    }

    #[cfg(test)]
    pub fn refuse_writes(&self, is_refused: bool) -> rusqlite::Result<()> {
        self.connection.pragma_update(None, "query_only", is_refused)
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<usize> {
        self.connection.pragma_query_value(None, name, |row| row.get(0))
    }
}
