//! The file `log.life` beside the database. It records the identity of the database that was last
//! written and its newest sequence number. A database with another identity, or with an older
//! newest event, is a copy from an earlier time: clients may have received later events, whose
//! sequence numbers must not be used again.
//!
//! The file also keeps a second process from the log: the first one locks it.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, UNIX_EPOCH},
};

use super::{error::OpenError, files, schema::BUSY_TIMEOUT};

/// Name of this file.
const NAME: &str = "log.life";
/// Pause between two attempts to lock the file.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Length of the text: three numbers of twenty digits, each followed by a space or a line feed.
const LENGTH: usize = 3 * 21;

pub(super) struct LifeFile {
    file: File,
    /// The database in the same folder.
    pub database: PathBuf,
    /// Inode and time of creation of the database; zeros until [`begin`](Self::begin).
    identity: [u64; 2],
}

impl LifeFile {
    /// Opens and locks the file. Creates the folder and the file if they are missing.
    ///
    /// Waits for the lock up to [`BUSY_TIMEOUT`]. A process that was killed holds it until all of
    /// its threads have ended, although its clients have seen their connections close.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let folder_error = |reason| OpenError::Folder { folder: folder.to_owned(), reason };
        files::create_folder(folder).map_err(folder_error)?;
        let options = files::private().create(true).truncate(false).to_owned();
        let file = options.open(folder.join(NAME)).map_err(folder_error)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        file,
                        database: files::database_in(folder),
                        identity: [0; 2],
                    });
                }
                Err(TryLockError::WouldBlock) if begun.elapsed() < BUSY_TIMEOUT => {
                    thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(folder.to_owned())),
                Err(TryLockError::Error(reason)) => return Err(folder_error(reason)),
            }
        }
    }

    /// Returns the path of this file.
    pub fn path(&self) -> PathBuf {
        self.database.with_file_name(NAME)
    }

    /// Returns `true` if the database, whose newest event is `newest`, is the one that was last
    /// written here, or if it has had no events yet.
    pub fn matches_database(&self, newest: u64) -> bool {
        let mut text = [0; LENGTH];
        let recorded = self.file.read_exact_at(&mut text, 0).ok().and_then(|()| {
            let text = std::str::from_utf8(&text).ok()?;
            let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
            <[u64; 3]>::try_from(numbers.ok()?).ok()
        });
        match (recorded, identity(&self.database)) {
            (Some([inode, created, recorded]), Ok(now)) => {
                [inode, created] == now && recorded <= newest
            }
            _ => newest == 0,
        }
    }

    /// Records the identity of the database durably.
    pub fn begin(&mut self, newest: u64) -> io::Result<()> {
        files::make_private(&self.path());
        self.identity = identity(&self.database)?;
        self.record(newest);
        self.file.sync_all()
    }

    /// Records the newest sequence number.
    ///
    /// The record need not be durable: a lost one says less than is true, and a database with newer
    /// events than recorded does not count as a copy.
    pub fn record(&self, newest: u64) {
        let [inode, created] = self.identity;
        let text = format!("{inode:020} {created:020} {newest:020}\n");
        if let Err(error) = self.file.write_all_at(text.as_bytes(), 0) {
            tracing::warn!(%error, "the newest sequence number could not be recorded in log.life");
        }
    }
}

/// Returns the numbers by which a file differs from its copies: the inode, and the time of creation
/// if the file system records it.
fn identity(file: &Path) -> io::Result<[u64; 2]> {
    let metadata = file.metadata()?;
    let created = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let created = created.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0);
    Ok([metadata.ino(), created])
}
