//! A log in a file: an SQLite database, which the `sqlite3` tool can look into.
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | `schema` | what is in the file, and how an older one is brought up to date |
//! | `life` | the file beside it, by which a copy that was put in its place is noticed |
//! | `write` | the thread that appends, and drops what is over the retention |
//! | `read` | the connections that read beside it |

mod life;
mod read;
mod schema;
mod write;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

use tokio::sync::oneshot;

use super::{
    Appended, Bounds, Draft, Log, LogError, LogFuture, ReadLimit, Refused, Retention,
    topics::Topics,
};
use crate::{
    event::Event,
    id::{Epoch, EventId},
    pattern::Patterns,
    timestamp::Timestamp,
};
use life::Life;
use read::{Readers, Wanted};
use write::{Write, Writer};

/// The database in the log's folder.
const FILE: &str = "log.db";

/// A log that outlives the process, and whatever ends it: what was appended is on the disk.
pub struct FileLog {
    index: Arc<Index>,
    readers: Readers,
    writes: Option<mpsc::Sender<Write>>,
    writer: Option<JoinHandle<()>>,
}

/// Why a log cannot be opened. Then nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made, or nothing in it written.
    #[error("the log cannot be kept in {}: {why}", folder.display())]
    Folder {
        /// Which one.
        folder: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// Another process has it open.
    #[error("the log in {} is in use by another waterclock", .0.display())]
    InUse(PathBuf),
    /// Another program has locked it.
    #[error("the log {} is locked by another program, such as sqlite3", .0.display())]
    Locked(PathBuf),
    /// It was written by a later version of this program.
    #[error(
        "the log {} was written by a newer waterclock: its format is {format}, this program knows {}",
        file.display(), schema::FORMAT
    )]
    Newer {
        /// Which one.
        file: PathBuf,
        /// The number of its format.
        format: usize,
    },
    /// It is something else.
    #[error("{} is not a log of waterclock", .0.display())]
    NotALog(PathBuf),
    /// It is not as it was written.
    #[error("the log {} is damaged: {why}", file.display())]
    Damaged {
        /// Which one.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It could not be read or written.
    #[error("the log {} cannot be opened: {why}", file.display())]
    Failed {
        /// Which one.
        file: PathBuf,
        /// Why not.
        why: rusqlite::Error,
    },
}

/// What is known of the file without looking into it. The writer keeps it true.
struct Index(Mutex<Known>);

struct Known {
    epoch: Epoch,
    /// The sequence number before that of the oldest event.
    start: u64,
    /// Events up to here are durable.
    newest: u64,
    /// How many events there are.
    count: usize,
    /// With the number that each topic has in the file.
    topics: Topics<i64>,
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // No code panics half-way through a change of what the lock holds.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileLog {
    /// Opens the log in that folder; makes both where they are missing. `now` is what it takes for the
    /// time when it looks for what is too old. Blocks, for longer the more events there are.
    ///
    /// # Errors
    ///
    /// If there is no folder to be had, or what is there is no log that this program can go on with.
    pub fn open(
        folder: &Path,
        retention: Retention,
        now: impl Fn() -> Timestamp + Send + 'static,
    ) -> Result<Self, OpenError> {
        let life = Life::open(folder)?;
        let file = folder.join(FILE);
        let (connection, mut known) = schema::open(&file)?;
        if !life.is_of(&file, known.newest) {
            // What comes next may have numbers that other events have had.
            known.epoch = schema::begin_life(&connection, &file)?;
            tracing::warn!(
                epoch = %known.epoch,
                "the log was copied or restored since it was last written here: its ids begin anew"
            );
        }
        let index = Arc::new(Index(Mutex::new(known)));
        let writer = Writer::new(connection, life, &file, Arc::clone(&index), retention, now);
        let writer = writer.map_err(|why| OpenError::Folder { folder: folder.to_owned(), why })?;
        let (sender, waiting) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(&waiting))
            .map_err(|why| OpenError::Folder { folder: folder.to_owned(), why })?;
        Ok(Self { index, readers: Readers::new(file), writes: Some(sender), writer: Some(thread) })
    }

    async fn ask<T>(&self, write: impl FnOnce(oneshot::Sender<T>) -> Write) -> Result<T, LogError> {
        let gone = || LogError::new("it is no longer written to");
        let (answer, answered) = oneshot::channel();
        let writes = self.writes.as_ref().ok_or_else(gone)?;
        writes.send(write(answer)).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    /// Drops what is over the retention now, not only when there is time for it.
    #[cfg(test)]
    pub(super) async fn tidy(&self) {
        self.ask(Write::Tidy).await.unwrap();
    }

    /// Lets the file grow no further than to so many pages, or than it is; none for no end.
    #[cfg(test)]
    async fn limit_pages(&self, pages: Option<u32>) {
        self.ask(|answer| Write::LimitPages { pages, answer }).await.unwrap();
    }
}

impl Drop for FileLog {
    /// Waits until what was begun is written.
    fn drop(&mut self) {
        // Who closes the file last tidies up in it, and that is to be who may write.
        self.readers.close();
        self.writes = None;
        if let Some(writer) = self.writer.take() {
            // A panic there was told when it happened.
            let _ = writer.join();
        }
    }
}

impl Log for FileLog {
    fn bounds(&self) -> Bounds {
        let Known { epoch, start, newest, .. } = *self.index.lock();
        Bounds { epoch, start, newest }
    }

    fn dropped(&self, topics: &Patterns) -> u64 {
        self.index.lock().topics.dropped(topics)
    }

    fn append(&self, drafts: Vec<Draft>) -> LogFuture<'_, Vec<Result<Appended, Refused>>> {
        Box::pin(async move { self.ask(|answer| Write::Append { drafts, answer }).await? })
    }

    fn read<'a>(
        &'a self,
        topics: &'a Patterns,
        after: u64,
        limit: ReadLimit,
    ) -> LogFuture<'a, Vec<Event>> {
        let wanted = Wanted::after(&self.index.lock(), topics, after);
        Box::pin(async move {
            match wanted {
                Some(wanted) => self.readers.run(move |file| wanted.read(file, after, limit)).await,
                None => Ok(Vec::new()),
            }
        })
    }

    fn latest<'a>(&'a self, topics: &'a Patterns, limit: usize) -> LogFuture<'a, Vec<Event>> {
        let wanted = Wanted::after(&self.index.lock(), topics, 0);
        Box::pin(async move {
            match wanted {
                Some(wanted) => self.readers.run(move |file| wanted.latest(file, limit)).await,
                None => Ok(Vec::new()),
            }
        })
    }
}

impl Known {
    fn id(&self, sequence: u64) -> EventId {
        EventId { epoch: self.epoch, sequence }
    }
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::new(error),
        }
    }
}
