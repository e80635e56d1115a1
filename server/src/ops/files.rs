//! Files of keys and certificates: a cheap check for changes, and writing that is atomic and
//! private.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// The metadata that reveals a change of a file or its permissions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileStamp {
    inode: u64,
    /// Two changes within the resolution of the times differ in length.
    length: u64,
    mode: u32,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// Returns the stamp of a file, or `None` if it cannot be found.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let of = fs::metadata(file).ok()?;
        Some(Self {
            inode: of.ino(),
            length: of.len(),
            mode: of.mode(),
            modified: (of.mtime(), of.mtime_nsec()),
            changed: (of.ctime(), of.ctime_nsec()),
        })
    }
}

/// Writes a file that only this user may read, completely or not at all.
pub(crate) fn write_private(file: &Path, content: &[u8]) -> io::Result<()> {
    // Two threads may write the same file.
    let unfinished = file.with_extension(format!("{:08x}.new", fastrand::u32(..)));
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut options = OpenOptions::new();
    let mut new = options.write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = new.write_all(content).and_then(|()| new.sync_all());
    let written = written.and_then(|()| fs::rename(&unfinished, file));
    if written.is_err() {
        // The error of the write says more.
        let _ = fs::remove_file(&unfinished);
    }
    written
}
