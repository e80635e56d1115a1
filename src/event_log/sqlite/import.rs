//! The log of a single process that becomes the beginning of a cluster.
//!
//! It stays where it is, unchanged, until a mirror in a folder beside it has its events from the
//! cluster's order. Then it is set aside, and the mirror takes its place.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{OpenError, SqliteLog, files, life_file::LifeFile, write::import::ImportContent};
use crate::{
    event_log::{
        entry::{ImportId, ImportPart},
        retention::Retention,
        store::EventLogError,
    },
    id::Epoch,
    timestamp::Timestamp,
};

/// The retention of a log that must not change.
const UNLIMITED: Retention = Retention {
    count: usize::MAX,
    clock_count: usize::MAX,
    age: Duration::MAX,
    bytes: usize::MAX / 2,
    topics: usize::MAX,
    rules: Vec::new(),
};
/// Suffix of the folder with the mirror.
const SUFFIX: &str = "-import";

/// The log of a single process that becomes the beginning of a cluster.
pub struct ImportSource {
    pub(super) log: SqliteLog,
    content: Arc<ImportContent>,
}

impl ImportSource {
    /// Opens the log of a single process in `folder`. Returns `None` if there is none with events.
    /// If an import was cut short at its very end, completes it.
    ///
    /// Blocks, longer for a larger log.
    ///
    /// # Errors
    ///
    /// If the folder cannot be used, or holds files that this program cannot continue.
    pub async fn open(folder: &Path) -> Result<Option<Self>, OpenError> {
        let database = files::database_in(folder);
        if !database.exists() {
            if mirror_of(&database).exists() {
                // Writes back its journal, should it have one.
                drop(SqliteLog::open_mirror(&folder_beside(&database))?);
                put_in_place(&database)?;
            }
            return Ok(None);
        }
        let log = match SqliteLog::open(folder, UNLIMITED, Timestamp::now) {
            Err(OpenError::Mirror(_)) => {
                remove_folder(&database);
                return Ok(None);
            }
            opened => opened?,
        };
        if log.shared.index.lock().newest == 0 {
            return Ok(None);
        }
        let failed = |error: EventLogError| OpenError::Folder {
            folder: folder.to_owned(),
            reason: io::Error::other(error),
        };
        let content = log.mirror_command(|writer| writer.import_content()).await.map_err(failed)?;
        if content.damaged > 0 {
            tracing::error!(
                count = content.damaged,
                "stored events are damaged: readers get a gap in their place"
            );
        }
        Ok(Some(Self { log, content: Arc::new(content) }))
    }

    /// Returns the identification of the log and of its content.
    pub fn id(&self) -> &ImportId {
        &self.content.id
    }

    /// Returns the epoch of the log, which becomes that of the order.
    pub fn epoch(&self) -> Epoch {
        self.log.shared.index.lock().epoch
    }

    /// Returns the place at the end of the content.
    pub fn end(&self) -> u64 {
        self.content.end()
    }

    /// Returns the part of the content after a place. Its items have about `size` bytes as JSON
    /// without the last of them.
    ///
    /// # Errors
    ///
    /// If the log could not be read.
    pub async fn part(&self, after: u64, size: usize) -> Result<ImportPart, EventLogError> {
        let content = Arc::clone(&self.content);
        self.log.mirror_command(move |writer| writer.import_part(&content, after, size)).await
    }

    /// Opens the mirror that will take the place of the log.
    ///
    /// # Errors
    ///
    /// As [`SqliteLog::open_mirror`].
    pub fn open_mirror(&self) -> Result<SqliteLog, OpenError> {
        SqliteLog::open_mirror(&folder_beside(&self.log.database))
    }

    /// Sets the log aside, in a folder beside it, and puts the mirror in its place. Returns that
    /// folder.
    ///
    /// # Errors
    ///
    /// If the files cannot be moved. The next [`open`](Self::open) tries again.
    pub fn replace_by(self, mirror: SqliteLog) -> Result<PathBuf, OpenError> {
        let database = self.log.database.clone();
        drop(mirror);
        drop(self);
        check_closed(&mirror_of(&database))?;
        let aside = files::set_aside(&database);
        let aside = aside.map_err(|error| OpenError::of_file(&database, error))?;
        put_in_place(&database)?;
        Ok(aside)
    }
}

/// Puts the mirror in the place of a log that was set aside.
fn put_in_place(database: &Path) -> Result<(), OpenError> {
    let mirror = mirror_of(database);
    // Keeps other processes away.
    let _life_file = LifeFile::open(database.parent().unwrap_or(database))?;
    check_closed(&mirror)?;
    let placed =
        files::remove_companions(database).and_then(|()| files::put_in_place(&mirror, database));
    placed.map_err(|error| OpenError::of_file(database, error))?;
    remove_folder(database);
    Ok(())
}

/// Checks that a database has no journal, since it was closed in order.
fn check_closed(database: &Path) -> Result<(), OpenError> {
    if files::beside(database, "-wal").exists() {
        let error = io::Error::other("its journal could not be written back");
        return Err(OpenError::of_file(database, error));
    }
    Ok(())
}

/// Removes the folder of the mirror, which is not needed any more.
fn remove_folder(database: &Path) {
    let folder = folder_beside(database);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "the folder could not be removed");
        }
        _ => {}
    }
}

fn folder_beside(database: &Path) -> PathBuf {
    files::beside(database, SUFFIX)
}

fn mirror_of(database: &Path) -> PathBuf {
    files::database_in(&folder_beside(database))
}
