//! Errors of the database.

use std::{
    io,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

use crate::event_log::store::EventLogError;

/// A reason for which a log cannot be opened. The events are left unchanged.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be created or written to.
    #[error("the event log cannot be kept in {}: {reason}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// The disk is full.
    #[error("the event log {} cannot be opened: the disk is full", .0.display())]
    DiskFull(PathBuf),
    /// Another process has the log open.
    #[error("the event log in {} is in use by another waterclock", .0.display())]
    InUse(PathBuf),
    /// Another program has locked the database.
    #[error("the event log {} is locked by another program, such as sqlite3", .0.display())]
    Locked(PathBuf),
    /// A later version of this program has written the database.
    #[error(
        "the event log {} was written by a newer waterclock: its format is {format}, \
         this program knows {supported}",
        file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// The number of its format.
        format: usize,
        /// The number of the newest format that this program knows.
        supported: usize,
    },
    /// The log is the mirror of a cluster.
    #[error(
        "the event log {} belongs to a node of a cluster: serve it with --cluster, or choose another \
         folder",
        .0.display()
    )]
    Mirror(PathBuf),
    /// The log has events of one process, which a node of a cluster cannot have.
    #[error(
        "the event log {} has the events of a single process: choose another folder for this node, \
         or make them the beginning of a cluster with --cluster-import",
        .0.display()
    )]
    NoMirror(PathBuf),
    /// The file is not a database of this program.
    #[error("{} is not an event log of waterclock", .0.display())]
    NotALog(PathBuf),
    /// The database is corrupt.
    #[error("the event log {} is damaged: {details}", file.display())]
    Damaged {
        /// The database.
        file: PathBuf,
        /// A description of the damage.
        details: String,
    },
    /// The database could not be read or written.
    #[error("the event log {} cannot be opened: {reason}", file.display())]
    Failed {
        /// The database.
        file: PathBuf,
        /// SQLite's reason.
        reason: rusqlite::Error,
    },
}

/// A reason for which a mirror cannot be completed by a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The mirror cannot be written, or does not fit to the snapshot.
    #[error(transparent)]
    EventLog(#[from] EventLogError),
    /// The mirror cannot be opened again.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl OpenError {
    /// Returns `true` if the error may come from a full disk.
    pub(super) fn may_lack_room(&self) -> bool {
        match self {
            Self::Failed { reason, .. } => may_lack_room(reason),
            _ => matches!(self, Self::DiskFull(_)),
        }
    }

    /// Returns the error as one of a full disk, if it may be one.
    pub(super) fn on_full_disk(self, file: &Path) -> Self {
        if self.may_lack_room() { Self::DiskFull(file.to_owned()) } else { self }
    }

    /// Creates the error for a file that cannot be written.
    pub(super) fn of_file(file: &Path, reason: io::Error) -> Self {
        match reason.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull(file.to_owned())
            }
            _ => Self::Folder { folder: file.parent().unwrap_or(file).to_owned(), reason },
        }
    }
}

/// Returns `true` if the error may come from a full disk, on which SQLite cannot create a file
/// either.
pub(super) fn may_lack_room(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen)
    )
}

impl From<rusqlite::Error> for EventLogError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::DiskFull,
            _ => Self::new(error),
        }
    }
}
