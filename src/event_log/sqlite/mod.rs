//! An event log in an SQLite database, which the `sqlite3` tool can inspect.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `index` | the summary of the database in memory |
//! | `files` | the names and rights of the files |
//! | `in_place` | waiting for a thread |
//! | `schema` | the tables, their migrations, and the checks when a database is opened |
//! | `reserve` | the file that keeps some room on the volume |
//! | `life_file` | the file beside the database that reveals a restored copy |
//! | `import` | the log of one process that becomes the beginning of a cluster |
//! | `mirror` | the place of a log that follows the order of a cluster |
//! | `backup` | copies of the database in one file, and their restoration |
//! | `write` | the thread that appends events and drops those that exceed the retention |
//! | `readers` | the threads that read concurrently |
//! | `read` | the reads of events |

mod backup;
mod error;
mod files;
mod import;
mod in_place;
mod index;
mod life_file;
mod mirror;
mod read;
mod readers;
mod reserve;
mod schema;
mod write;

#[cfg(test)]
mod import_tests;
#[cfg(test)]
pub(crate) mod mirror_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

pub use backup::{CopyError, CopyProgress, LogCopy, Unusable, back_up, restore};
pub use error::{OpenError, SettleError};
pub use import::ImportSource;
pub use reserve::volume_bytes;
#[cfg(test)]
pub(crate) use {
    import_tests::{folder, random_log},
    in_place::wait_in_place,
    mirror_tests::{dump, dump_content},
};

/// Time for which the writer may work without a pause. Beyond it, its disk counts as hanging.
const MAX_BUSY: Duration = Duration::from_secs(30);

use super::{
    changed_topics::ChangedTopics,
    drops::Dropped,
    entry::{EntryOutcome, Mark, Mirrored, Sequenced, Snapshot},
    retention::Retention,
    size::{CommitObserver, LogSize},
    store::{
        Appended, Bounds, Condition, EventLog, EventLogError, EventLogFuture, ReadLimit, Rejected,
        TopicFigures,
    },
    topics::Topics,
};
use crate::{
    event::{Draft, Event, IdempotencyKey, Topic},
    matcher::Matcher,
    pattern::Patterns,
    timestamp::Timestamp,
};
use index::Index;
use life_file::LifeFile;
use mirror::Mirror;
use read::{Found, TopicSelection, first_since};
use readers::ReaderThreads;
use reserve::Reserve;
use write::{Command, Shared, Writer};

/// A durable event log: appended events survive a crash of the process or the system.
pub struct SqliteLog {
    shared: Shared,
    /// The topics of the index.
    topics: Arc<Topics<i64>>,
    /// The damaged events that reads have found and that are still kept.
    damaged: Mutex<BTreeSet<u64>>,
    /// Changes each time that the writer has finished to drop events.
    drops: watch::Receiver<()>,
    database: PathBuf,
    /// `None` once the log is being closed.
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

impl SqliteLog {
    /// Opens the log in `folder`. Creates both if they are missing.
    ///
    /// `now` is the clock by which events become too old. Blocks, longer for a larger log.
    ///
    /// # Errors
    ///
    /// If the folder cannot be used, or holds files that this program cannot continue.
    pub fn open(
        folder: &Path,
        retention: Retention,
        now: impl Fn() -> Timestamp + Send + 'static,
    ) -> Result<Self, OpenError> {
        Self::open_as(folder, retention, false, now)
    }

    /// Opens the log in `folder` as the mirror of a cluster. Creates both if they are missing. The
    /// first entry says which events are kept.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), or if the log has the events of one process.
    pub fn open_mirror(folder: &Path) -> Result<Self, OpenError> {
        // Only the probe of the writer asks for the time.
        Self::open_as(folder, Retention::default(), true, Timestamp::now)
    }

    fn open_as(
        folder: &Path,
        retention: Retention,
        is_mirror: bool,
        now: impl Fn() -> Timestamp + Send + 'static,
    ) -> Result<Self, OpenError> {
        let mut life_file = LifeFile::open(folder)?;
        let file = life_file.database.clone();
        let mut reserve = Reserve::of(folder);
        // To open a database takes a little room, and without it, SQLite may even crash: it maps a
        // file whose blocks the system then cannot provide.
        if reserve.is_full() && (!reserve.release() || reserve.is_full()) {
            return Err(OpenError::DiskFull(file));
        }
        let opened = schema::open(&file, &retention);
        let (connection, mut index, is_repaired) = opened
            .map_err(|error| if reserve.is_full() { error.on_full_disk(&file) } else { error })?;
        prepare_mirror(&connection, &file, index.newest, is_mirror)?;
        if is_repaired {
            tracing::error!(
                epoch = %index.epoch,
                "the topics of the event log were damaged: its ids start a new epoch"
            );
        } else if !is_mirror && !life_file.matches_database(index.newest) {
            // The next sequence numbers may have been used for other events.
            index.epoch = schema::begin_life(&connection, &file)?;
            tracing::warn!(
                epoch = %index.epoch,
                "the event log was copied or restored since it was last written here: \
                 its ids start a new epoch"
            );
        }
        let newest = index.newest;
        let topics = Arc::clone(&index.topics);
        let folder_error = |reason| OpenError::Folder { folder: folder.to_owned(), reason };
        life_file.begin(newest).map_err(folder_error)?;
        let (dropped, drops) = watch::channel(());
        let shared = Shared {
            index: Arc::new(Mutex::new(index)),
            condition: Arc::default(),
            busy_since: Arc::default(),
            readers: Arc::new(ReaderThreads::start(file.clone()).map_err(folder_error)?),
            mirrored: Arc::default(),
            disk: Arc::default(),
            commits: CommitObserver::default(),
        };
        let writer =
            Writer::new(connection, life_file, shared.clone(), reserve, retention, now, dropped);
        let writer = writer.map_err(|reason| OpenError::Failed { file, reason })?;
        let (commands, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(folder_error)?;
        let (commands, writer) = (Some(commands), Some(thread));
        let database = files::database_in(folder);
        Ok(Self { shared, topics, damaged: Mutex::default(), drops, database, commands, writer })
    }

    /// Returns the part of a cluster's order that the log has applied; `None` for the log of one
    /// process.
    pub fn mirrored(&self) -> Option<Mirrored> {
        self.shared.mirrored.lock().clone()
    }

    /// Closes a mirror whose entries the cluster no longer has, moves its files into a folder
    /// beside it, and opens an empty mirror in its place. Returns that folder, too.
    ///
    /// # Errors
    ///
    /// If the files cannot be moved, or the new mirror cannot be opened.
    pub fn replace_mirror(self) -> Result<(Self, PathBuf), OpenError> {
        let database = self.database.clone();
        drop(self);
        let moved = files::set_aside(&database);
        let folder = database.parent().unwrap_or(&database);
        let aside = moved.map_err(|error| OpenError::of_file(&database, error))?;
        Ok((Self::open_mirror(folder)?, aside))
    }

    /// Closes a mirror whose entries the cluster has, removes its files, and opens an empty mirror
    /// in their place.
    ///
    /// # Errors
    ///
    /// If the files cannot be removed, or the new mirror cannot be opened.
    pub fn empty_mirror(self) -> Result<Self, OpenError> {
        let database = self.database.clone();
        drop(self);
        for suffix in ["-wal", "-shm", ""] {
            let removed = files::remove(&files::beside(&database, suffix));
            removed.map_err(|error| OpenError::of_file(&database, error))?;
        }
        Self::open_mirror(database.parent().unwrap_or(&database))
    }

    /// Names the stream whose entries the log will mirror.
    ///
    /// # Errors
    ///
    /// If the log could not be written.
    pub async fn join(&self, stream: String) -> Result<(), EventLogError> {
        self.mirror_command(move |writer| writer.join(&stream)).await
    }

    /// Notes that the mirror has entries that its stream has not. Then no stream fits to it, also
    /// after a restart.
    ///
    /// # Errors
    ///
    /// If the log could not be written.
    pub async fn leave(&self) -> Result<(), EventLogError> {
        self.join("none".to_owned()).await
    }

    /// Returns the earliest place that the mirror remembers, if it is not before the position
    /// `first - 1`.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn earliest_mark(&self, first: u64) -> Result<Option<Mark>, EventLogError> {
        self.mirror_command(move |writer| writer.earliest_mark(first)).await
    }

    /// Returns a snapshot by which the cluster can do without its entries before the snapshot's
    /// base. Returns `None` if those from the position `first` on are few.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn snapshot(&self, first: u64) -> Result<Option<Snapshot>, EventLogError> {
        self.mirror_command(move |writer| writer.snapshot(first)).await
    }

    /// Makes an empty mirror begin at the base of a snapshot. Then the entries up to the snapshot's
    /// place must be applied, and [`settle`](Self::settle) completes the mirror.
    ///
    /// # Errors
    ///
    /// If the log could not be written.
    pub async fn load(&self, snapshot: Arc<Snapshot>, stream: String) -> Result<(), EventLogError> {
        self.mirror_command(move |writer| writer.load(&snapshot, &stream)).await
    }

    /// Completes a mirror that has applied all entries up to the place of a snapshot, and opens it
    /// again.
    ///
    /// # Errors
    ///
    /// If the mirror is at another place, or could not be written or opened.
    pub async fn settle(self, snapshot: Arc<Snapshot>) -> Result<Self, SettleError> {
        self.mirror_command(move |writer| writer.settle(&snapshot)).await?;
        let folder = self.database.parent().unwrap_or(&self.database).to_owned();
        drop(self);
        Ok(Self::open_mirror(&folder)?)
    }

    async fn mirror_command<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, EventLogError> + Send + 'static,
    ) -> Result<T, EventLogError> {
        let command = |reply: oneshot::Sender<_>| {
            Command::Mirror(Box::new(move |writer| {
                // The caller may have stopped waiting.
                let _ = reply.send(work(writer));
            }))
        };
        self.command(command).await?
    }

    /// Applies an entry of a cluster's order. The log must be a mirror.
    ///
    /// The result is not on disk yet when this returns. A crash of the system may undo the last
    /// entries, and the mirror's place with them, so that they are applied again.
    ///
    /// # Errors
    ///
    /// If the log could not be written. A later attempt may succeed.
    pub async fn apply(&self, entry: Arc<Sequenced>) -> Result<EntryOutcome, EventLogError> {
        self.command(|reply| Command::Apply { entry, reply }).await?
    }

    /// Sends a command to the writer, and waits for its reply.
    async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, EventLogError> {
        let (reply, replied) = oneshot::channel();
        let commands = self.commands.as_ref().ok_or(EventLogError::Stopped)?;
        commands.send(command(reply)).map_err(|_| EventLogError::Stopped)?;
        // The writer has stopped at an unknown point.
        in_place::reply(replied)
            .await
            .map_err(|_| EventLogError::unconfirmed("the writer has stopped"))
    }

    /// Returns the condition at a time.
    fn condition_at(&self, now: Instant) -> Condition {
        let mut condition = self.shared.condition.lock().clone();
        let busy_since = *self.shared.busy_since.lock();
        if busy_since.is_some_and(|since| now.saturating_duration_since(since) > MAX_BUSY) {
            // The writer itself cannot tell.
            let hangs = || EventLogError::new("the disk does not respond");
            condition.append_error.get_or_insert_with(hangs);
        }
        condition
    }

    /// Waits until events of the topics after `after` are no longer being dropped. A read may have
    /// missed them, and then they must count as dropped. If they cannot be dropped, they stay, and
    /// must not count.
    async fn wait_for_drop(&self, topics: &Patterns, after: u64) {
        let mut drops = self.drops.clone();
        drops.mark_unchanged();
        let dropping = Arc::clone(&self.shared.index.lock().dropping);
        if dropping.is_empty() {
            return;
        }
        let is_affected = {
            let mut matcher = Matcher::new(topics);
            dropping.iter().any(|(topic, newest)| *newest > after && matcher.matches(topic))
        };
        if is_affected {
            // An error means that the writer has stopped.
            let _ = drops.changed().await;
        }
    }

    /// Selects the topics that have events after the sequence number `after`. Returns `None` if
    /// none has.
    fn select(&self, topics: &Patterns, after: u64) -> Option<Arc<TopicSelection>> {
        let (epoch, newest, count) = {
            let Index { epoch, newest, count, .. } = *self.shared.index.lock();
            (epoch, newest, count)
        };
        // The index is not locked while the patterns are compared with the topics.
        let topics = self.topics.select(topics, after);
        (!topics.is_empty()).then(|| Arc::new(TopicSelection::new(epoch, topics, newest, count)))
    }

    /// Returns the events, or the error if the next ones are damaged, up to the last of those. Each
    /// damaged event is counted once, and the output mentions it once.
    fn undamaged(&self, Found { events, damaged }: Found) -> Result<Vec<Event>, EventLogError> {
        let Some(&last) = damaged.last() else { return Ok(events) };
        let mut known = self.damaged.lock();
        *known = known.split_off(&self.shared.index.lock().start);
        let new = damaged.iter().filter(|sequence| known.insert(**sequence)).count() as u64;
        self.shared.condition.lock().damaged_events += new;
        if new > 0 {
            tracing::error!(
                count = new,
                first = damaged[0],
                last,
                "stored events are damaged: readers get a gap in their place"
            );
        }
        Err(EventLogError::Damaged { last })
    }

    /// Drops all events that exceed the retention, without waiting until the writer is idle.
    #[cfg(test)]
    pub(super) async fn tidy(&self) {
        self.command(Command::Tidy).await.unwrap();
    }

    /// Makes the writer find out what works.
    #[cfg(test)]
    async fn probe(&self) {
        self.command(Command::Probe).await.unwrap();
    }

    /// Limits the size of the file to `pages`, or to its current size if that is more; `None` lifts
    /// the limit.
    #[cfg(test)]
    async fn limit_pages(&self, pages: Option<u32>) {
        self.command(|reply| Command::LimitPages { pages, reply }).await.unwrap();
    }

    /// Lets all writes of a mirror fail, as on a broken disk, or succeed again.
    #[cfg(test)]
    pub(crate) async fn refuse_writes(&self, is_refused: bool) {
        self.mirror_command(move |writer| Ok(writer.refuse_writes(is_refused)?)).await.unwrap();
    }
}

/// Makes an empty log a mirror, unless it is one already. A log of one process must be none.
fn prepare_mirror(
    connection: &Connection,
    file: &Path,
    newest: u64,
    is_mirror: bool,
) -> Result<(), OpenError> {
    let failed = |reason| OpenError::Failed { file: file.to_owned(), reason };
    match (Mirror::read(connection).map_err(failed)?, is_mirror) {
        (Some(_), false) => Err(OpenError::Mirror(file.to_owned())),
        (None, true) if newest > 0 => Err(OpenError::NoMirror(file.to_owned())),
        (None, true) => Mirror::begin(connection).map_err(failed),
        _ => Ok(()),
    }
}

impl Drop for SqliteLog {
    /// Waits until pending appends are written.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the thread has already been printed.
            let _ = writer.join();
        }
        // The writer has done so, unless it has panicked.
        self.shared.readers.stop();
    }
}

impl EventLog for SqliteLog {
    fn bounds(&self) -> Bounds {
        let Index { epoch, start, newest, .. } = *self.shared.index.lock();
        Bounds { epoch, start, newest }
    }

    fn dropped_after(&self, topics: &Patterns, after: u64, drops: u64) -> Dropped {
        self.topics.dropped_after(topics, after, drops)
    }

    fn ends(&self, topics: &Patterns, after: u64, up_to: u64) -> Vec<Event> {
        let epoch = self.shared.index.lock().epoch;
        self.topics.ends(topics, after, up_to, epoch)
    }

    fn append(
        &self,
        drafts: Vec<Draft>,
        time: Timestamp,
    ) -> EventLogFuture<'_, Vec<Result<Appended, Rejected>>> {
        Box::pin(
            async move { self.command(|reply| Command::Append { drafts, time, reply }).await? },
        )
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        Box::pin(async move {
            let Some(selection) = self.select(topics, after) else { return Ok(Vec::new()) };
            let found = selection.read(&self.shared.readers, after, limit).await?;
            self.wait_for_drop(topics, after).await;
            self.undamaged(found)
        })
    }

    fn newest_of_each<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        Box::pin(async move {
            let Some(selection) = self.select(topics, after) else { return Ok(Vec::new()) };
            let found = selection.newest_of_each(&self.shared.readers, after, limit).await?;
            self.wait_for_drop(topics, after).await;
            self.undamaged(found)
        })
    }

    fn note_changes(&self, changed: &Arc<ChangedTopics>) {
        self.topics.note_changes(changed);
    }

    fn topics(&self, topics: &Patterns, after: Option<&Topic>, limit: usize) -> Vec<Topic> {
        self.topics.page(topics, after, limit)
    }

    fn figures<'a>(&'a self, topics: &'a [Topic]) -> EventLogFuture<'a, Vec<TopicFigures>> {
        Box::pin(async move {
            let epoch = self.shared.index.lock().epoch;
            let unknown: Vec<_> =
                topics.iter().filter_map(|topic| self.topics.get(topic)).collect();
            read::find_oldest(&self.shared.readers, unknown).await?;
            Ok(self.topics.figures(topics, epoch, |_| None))
        })
    }

    fn delete<'a>(&'a self, topic: &'a Topic) -> EventLogFuture<'a, u64> {
        let entry = self.topics.get(topic).filter(|entry| entry.count() > 0);
        let entry = entry.map(|entry| (self.topics.hide(&entry), entry));
        Box::pin(async move {
            let Some((newest, entry)) = entry else { return Ok(0) };
            let mut deleted = 0;
            // Between two slices, other commands take their turn.
            loop {
                let slice = |reply| Command::Delete { topic: topic.clone(), newest, reply };
                let slice = self.command(slice).await.and_then(|slice| slice);
                match slice.inspect_err(|_| entry.show_hidden(newest))? {
                    0 => return Ok(deleted),
                    slice => deleted += slice as u64,
                }
            }
        })
    }

    fn before(&self, time: Timestamp) -> EventLogFuture<'_, u64> {
        Box::pin(async move {
            let (newest, runs) = {
                let Index { newest, times, .. } = &*self.shared.index.lock();
                (*newest, times.since(time))
            };
            for (after, last) in runs {
                let first = move |connection: &_| first_since(connection, after, last, time);
                if let Some(first) = self.shared.readers.run(first).await? {
                    return Ok(first - 1);
                }
            }
            Ok(newest)
        })
    }

    fn condition(&self) -> Condition {
        self.condition_at(Instant::now())
    }

    fn size(&self) -> LogSize {
        LogSize { disk: Some(*self.shared.disk.lock()), ..self.topics.size() }
    }

    fn commits(&self) -> Option<&CommitObserver> {
        Some(&self.shared.commits)
    }

    fn stopped(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut drops = self.drops.clone();
        // The sender ends with the writer, also if that panics.
        Box::pin(async move { while drops.changed().await.is_ok() {} })
    }

    /// Changes the retention, unless the log is a mirror.
    fn set_retention(&self, retention: Retention) -> EventLogFuture<'_, ()> {
        Box::pin(self.mirror_command(move |writer| writer.set_retention(retention)))
    }

    fn find<'a>(
        &'a self,
        topic: &'a Topic,
        key: &'a IdempotencyKey,
    ) -> EventLogFuture<'a, Option<Event>> {
        Box::pin(async move {
            let topic = topic.clone().into();
            let Some(selection) = self.select(&topic, 0) else { return Ok(None) };
            selection.find(&self.shared.readers, key.clone()).await
        })
    }

    fn read_before<'a>(
        &'a self,
        topics: &'a Patterns,
        before: u64,
        limit: ReadLimit,
    ) -> EventLogFuture<'a, Vec<Event>> {
        Box::pin(async move {
            let Some(selection) = self.select(topics, 0) else { return Ok(Vec::new()) };
            let found = selection.read_before(&self.shared.readers, before, limit).await?;
            let mut events = self.undamaged(found)?;
            events.reverse();
            Ok(events)
        })
    }
}
