//! The file `log.reserve`, which keeps some room on the volume. To drop events takes room in the
//! journal, so a disk that the log has filled would otherwise stay full for ever.

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, StatVfs, fallocate, statvfs},
    process::geteuid,
};

use super::files;

/// Name of the file.
const NAME: &str = "log.reserve";
/// Size of the file on a large volume, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Part of a smaller volume that the file takes: one of so many.
const PARTS: u64 = 16;
/// Size below which a reserve is of no use, in bytes.
const MIN_BYTES: u64 = 128 << 10;
/// Size of the index of a journal of 80 MiB, in bytes.
const MAX_MAPPED_BYTES: u64 = 5 * (32 << 10);
/// Free room that the journal and its index need, in bytes.
const MIN_OPEN: u64 = 128 << 10;
/// Free room with which an append can be expected to succeed, in bytes: more than the largest event
/// takes.
const MIN_FREE: u64 = 256 << 10;

/// Room on the volume that only the dropping of events may use.
pub(super) struct Reserve {
    file: PathBuf,
    /// Desired size.
    bytes: u64,
    /// Current size.
    held: u64,
}

impl Reserve {
    /// Returns the reserve of the log in `folder`, without changing it.
    pub fn of(folder: &Path) -> Self {
        let file = folder.join(NAME);
        let volume = volume_bytes(folder).unwrap_or(u64::MAX);
        // A simulation opens thousands of logs.
        #[cfg(test)]
        let volume = if super::in_place::waits_in_place() { 0 } else { volume };
        let held = file.metadata().map_or(0, |file| file.len());
        let bytes = (volume / PARTS).min(MAX_BYTES);
        Self { file, bytes: if bytes < MIN_BYTES { 0 } else { bytes }, held }
    }

    /// Desired size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the room, as far as there is any. If there is little, half of the reserve comes before
    /// the events, and the other half only if they have as much.
    pub fn hold(&mut self) {
        if self.held >= self.bytes {
            return;
        }
        let all = self.free().saturating_add(self.held);
        let mut bytes = (all / 2).max(all.min(self.bytes / 2)).min(self.bytes);
        // Others may take room at the same time, and a quota may permit less.
        while bytes > self.held && bytes >= MIN_BYTES {
            let Err(error) = allocate(&self.file, bytes) else {
                self.held = bytes;
                return;
            };
            // A part that was allocated is of no use.
            self.release();
            if !is_full(&error) {
                tracing::warn!(%error, "the event log has no reserve for a full disk");
                self.bytes = 0;
                return;
            }
            bytes /= 2;
        }
    }

    /// Returns `true` if the log must not take more room, since the reserve is too small.
    pub fn is_short(&self) -> bool {
        self.held < self.bytes / 2
    }

    /// Gives the room to the log. Returns `false` if there was none.
    pub fn release(&mut self) -> bool {
        let was_held = self.held > 0;
        if let Err(error) = files::remove(&self.file) {
            tracing::warn!(%error, "the reserve of the event log could not be removed");
            return false;
        }
        self.held = 0;
        // Some file systems can use the room only after that.
        if let Some(folder) = self.file.parent()
            && let Err(error) = files::sync_folder(folder)
        {
            tracing::warn!(%error, "the data folder could not be synced");
        }
        was_held
    }

    /// Returns `true` if the volume has room for an event.
    pub fn has_room(&self) -> bool {
        !self.is_short() && self.can_allocate(MIN_FREE)
    }

    /// Returns `true` if the volume has hardly any room.
    pub fn is_full(&self) -> bool {
        !self.can_allocate(MIN_OPEN)
    }

    /// Tries to take room. The numbers of the system are no proof: some file systems keep blocks
    /// for themselves, and a quota may permit less.
    fn can_allocate(&self, bytes: u64) -> bool {
        let file = files::beside(&self.file, ".new");
        let result = allocate(&file, bytes);
        let removed = files::remove(&file);
        !result.and(removed).is_err_and(|error| is_full(&error))
    }

    /// Current size in bytes.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Returns the free room in bytes, as far as the system knows.
    pub fn free(&self) -> u64 {
        self.volume().map_or(u64::MAX, |(_, free)| free)
    }

    /// Returns the size of the volume and its free room, in bytes, if the system tells it.
    pub fn volume(&self) -> Option<(u64, u64)> {
        let volume = volume(self.file.parent().unwrap_or(&self.file)).ok()?;
        // Some file systems keep blocks for root.
        let free = if geteuid().is_root() { volume.f_bfree } else { volume.f_bavail };
        let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
        Some((bytes(volume.f_blocks), bytes(free)))
    }
}

/// Provides the blocks of a file that SQLite maps into memory, as far as it may grow. Without them,
/// a write to the memory would end the process on a full disk.
///
/// The result must outlive SQLite's use of the file, since to close a file releases all locks that
/// the process has on it.
pub(super) fn provide_blocks(file: &Path) -> Option<File> {
    let file = files::private().open(file).ok()?;
    if let Err(error) = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, MAX_MAPPED_BYTES) {
        tracing::debug!(%error, "the blocks of the journal's index could not be provided");
    }
    Some(file)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Gives a file blocks of its own.
fn allocate(file: &Path, bytes: u64) -> io::Result<()> {
    let file = files::private().create(true).truncate(false).open(file)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // Some file systems have blocks only for what was written.
        Err(rustix::io::Errno::OPNOTSUPP) => fill(file, bytes),
        Err(error) => Err(error.into()),
    }
}

fn fill(mut file: File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)?;
    file.sync_all()
}

/// Returns the size of the volume that holds `folder`, or that will hold it once it is created.
///
/// # Errors
///
/// If the system does not tell.
pub fn volume_bytes(folder: &Path) -> io::Result<u64> {
    let mut ancestors = folder.ancestors();
    let existing = ancestors.find(|folder| folder.exists() && !folder.as_os_str().is_empty());
    let volume = volume(existing.unwrap_or(Path::new(".")))?;
    Ok(volume.f_blocks.saturating_mul(volume.f_frsize))
}

/// Returns the numbers of the volume that holds `folder`. Zeros, which some file systems tell
/// instead, are an error.
fn volume(folder: &Path) -> io::Result<StatVfs> {
    let volume = statvfs(folder)?;
    if volume.f_blocks == 0 {
        return Err(io::Error::new(ErrorKind::Unsupported, "the file system does not tell it"));
    }
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_has_blocks_of_its_own_and_gives_them_back() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::of(folder.path());
        assert!(!reserve.release());
        reserve.hold();
        let file = folder.path().join(NAME).metadata().unwrap();
        assert_eq!((file.len(), reserve.held), (reserve.bytes(), reserve.bytes()));
        assert!(file.blocks() * 512 >= reserve.bytes());
        let mut reserve = Reserve::of(folder.path());
        assert!(reserve.release());
        assert!(!folder.path().join(NAME).exists());
    }

    #[test]
    fn the_volume_of_a_missing_folder_is_that_of_its_parent() {
        let folder = tempfile::tempdir().unwrap();
        let missing = volume_bytes(&folder.path().join("a/b")).unwrap();
        assert_eq!(missing, volume_bytes(folder.path()).unwrap());
        assert!(volume_bytes(Path::new("missing/folder")).is_ok());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_volume_that_does_not_tell_its_size_is_not_empty() {
        let untold = Path::new("/proc");
        assert_eq!(statvfs(untold).unwrap().f_blocks, 0);
        assert_eq!(volume_bytes(untold).unwrap_err().kind(), ErrorKind::Unsupported);
        let reserve = Reserve::of(untold);
        assert_eq!((reserve.bytes(), reserve.free()), (MAX_BYTES, u64::MAX));
    }
}
