//! The file beside the database. It says which file the log was last written to, and how far. If the
//! database is another file, or does not reach so far, then it is a copy from some time before, and
//! events after it may have been sent whose sequence numbers would come a second time.
//!
//! It is also what keeps a second process from the log: the first one locks it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    time::UNIX_EPOCH,
};

use super::OpenError;

const FILE: &str = "log.life";
/// Three numbers of twenty digits, each with a space or a line feed.
const LENGTH: usize = 3 * 21;

pub(super) struct Life(File);

impl Life {
    /// Locks it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let in_folder = |why| OpenError::Folder { folder: folder.to_owned(), why };
        std::fs::create_dir_all(folder).map_err(in_folder)?;
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).to_owned();
        let file = options.open(folder.join(FILE)).map_err(in_folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
            Err(TryLockError::Error(why)) => Err(in_folder(why)),
        }
    }

    /// Whether that database, which ends with that event, is the one that was last written. A log that
    /// has no events yet is.
    pub fn is_of(&self, database: &Path, newest: u64) -> bool {
        let mut text = [0; LENGTH];
        let written = self.0.read_exact_at(&mut text, 0).ok().and_then(|()| {
            let text = std::str::from_utf8(&text).ok()?;
            let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
            <[u64; 3]>::try_from(numbers.ok()?).ok()
        });
        match (written, identity(database)) {
            (Some([inode, born, reached]), Ok(now)) => [inode, born] == now && reached <= newest,
            _ => newest == 0,
        }
    }

    /// Makes durable which database it is of.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// Notes how far that database reaches. That need not be durable: if it is lost with what the system
    /// has not written yet, it says less than is true, and that is not noticed as a copy.
    pub fn reached(&self, identity: [u64; 2], newest: u64) {
        let [inode, born] = identity;
        let text = format!("{inode:020} {born:020} {newest:020}\n");
        if let Err(error) = self.0.write_all_at(text.as_bytes(), 0) {
            tracing::warn!(%error, "how far the log reaches could not be noted");
        }
    }
}

/// What tells a file from a copy of it: its number in the file system, and when it was made, where the
/// file system knows.
pub(super) fn identity(file: &Path) -> io::Result<[u64; 2]> {
    let metadata = file.metadata()?;
    let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0);
    Ok([metadata.ino(), born])
}
