//! The size of SQLite's journal, the file that it writes before the database.
//!
//! After each checkpoint, SQLite overwrites its journal from the beginning. A sync is
//! faster as long as it does not grow, since the file system then has no length and no blocks to
//! record. So the writer gives it its usual size in advance.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};

use super::{super::schema, MIN_TIDY_INTERVAL, Writer};

/// Size of the journal above which the writer forces a checkpoint in spite of readers.
const MAX_JOURNAL_BYTES: u64 = 64 << 20;
/// Timeout of a forced checkpoint.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_millis(50);
/// Pause after one that met such a reader, a backup for example. Appends would wait for the next
/// one as long, in vain.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(500);
/// Size of a page's header in the journal, in bytes.
const FRAME_HEADER: u64 = 24;

/// Returns the size that the journal usually has, if a checkpoint follows once it has so many
/// pages. The last append before that may have some more.
pub(super) fn usual_bytes(pages: u64, page_size: u64) -> u64 {
    (pages + pages / 2) * (FRAME_HEADER + page_size)
}

/// Writes zeros behind the end of a file, up to a length, or none. Nobody else must write to it.
fn extend(file: &Path, length: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let file = OpenOptions::new().write(true).open(file)?;
    let before = file.metadata()?.len();
    let write = || {
        let mut end = before;
        while end < length {
            let zeros = ZEROS.len().min(usize::try_from(length - end).unwrap_or(usize::MAX));
            file.write_all_at(&ZEROS[..zeros], end)?;
            end += zeros as u64;
        }
        file.sync_all()
    };
    // A part of the room is of no use.
    write().inspect_err(|_| drop(file.set_len(before)))
}

impl Writer {
    /// Gives the journal its usual size, if there is plenty of room. Blocks that are only allocated
    /// would not do: the first write to each of them is recorded, too.
    ///
    /// A crash meanwhile does no harm. SQLite ignores what is behind the last page with a valid
    /// checksum.
    pub(super) fn extend_journal(&mut self) {
        let is_short = |length| length < self.journal_bytes;
        let length = self.journal.metadata().map(|journal| journal.len());
        if !length.is_ok_and(is_short) || self.reserve.free() < 4 * self.reserve.bytes() {
            return;
        }
        // Another program, such as `sqlite3`, must not write to it at the same time.
        let extended = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map(|_locked| extend(&self.journal, self.journal_bytes));
        if !matches!(extended, Ok(Ok(()))) {
            // The room may be less than the system tells.
            self.journal_bytes = 0;
            tracing::debug!(?extended, "the event log's journal could not get its usual size");
        }
    }

    /// Forces the checkpoint that SQLite postpones as long as any reader is active, if the journal
    /// has become long.
    pub(super) fn bound_journal(&mut self) {
        let length = self.journal.metadata().map_or(0, |journal| journal.len());
        let min = self.reserve.bytes() / 2;
        // The more the journal takes of a small volume, the more its events will.
        if length > min
            && length > (self.reserve.free() / 4).clamp(min, MAX_JOURNAL_BYTES)
            && self.checkpointed.elapsed() >= MIN_TIDY_INTERVAL
        {
            self.cut_journal();
        }
    }

    /// Moves the journal's content to the database, as far as readers permit.
    pub(super) fn cut_journal(&mut self) {
        let cut = |connection: &Connection| {
            connection.busy_timeout(CHECKPOINT_TIMEOUT)?;
            // The first column is 1 if a reader was in the way.
            let cut = connection.query_one("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
            connection.busy_timeout(schema::BUSY_TIMEOUT)?;
            cut
        };
        let is_busy = cut(&self.connection).unwrap_or_else(|error| {
            tracing::warn!(%error, "the event log's journal could not be cut");
            false
        });
        let pause = if is_busy { CHECKPOINT_PAUSE } else { Duration::ZERO };
        self.checkpointed = Instant::now() + pause;
    }
}
