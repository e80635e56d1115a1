//! The size of a log, and the observer of its commits: figures for those who operate it.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// The size of a log and of the volume that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Number of topics that have events or have ended.
    pub topics: usize,
    /// Number of kept events.
    pub events: usize,
    /// Size of their data, in bytes.
    pub bytes: u64,
    /// The room on disk; `None` for a log in memory.
    pub disk: Option<DiskSize>,
}

/// The room that a log takes on its volume, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSize {
    /// Size of the files of the log.
    pub files: u64,
    /// Size of the volume.
    pub volume: u64,
    /// Free room on the volume.
    pub free: u64,
}

/// A function that gets the duration of each commit of new events.
type Observer = Box<dyn Fn(Duration) + Send + Sync>;

/// The place for the observer of a log's commits. Clones share it.
#[derive(Clone, Default)]
pub struct CommitObserver(Arc<OnceLock<Observer>>);

impl CommitObserver {
    /// Sets the observer. Only the first one counts.
    pub fn set(&self, observe: impl Fn(Duration) + Send + Sync + 'static) {
        // A second hub over the same log has nothing new to tell.
        let _ = self.0.set(Box::new(observe));
    }

    /// Calls `commit`, and tells the observer the time that it took. A commit that fails counts,
    /// too: a disk that hangs before its error is slow.
    #[cfg(feature = "sqlite")]
    pub(super) fn time<T>(&self, commit: impl FnOnce() -> T) -> T {
        let Some(observe) = self.0.get() else { return commit() };
        let started = std::time::Instant::now();
        let result = commit();
        observe(started.elapsed());
        result
    }
}

impl fmt::Debug for CommitObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CommitObserver").field(&self.0.get().is_some()).finish()
    }
}
